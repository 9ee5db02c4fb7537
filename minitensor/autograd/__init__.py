"""Reverse-mode differentiation: the ops as they run, and the walk back through them.

Running an op leaves an instance of its class behind: a node of the graph, which holds what its
backward rule needs and the edges to the ops that made its inputs. Tensors point at nodes, nodes at
earlier nodes, never the other way, so a graph is freed by reference counts as soon as its last
tensor dies. Every node is younger than all it depends on: visiting nodes youngest first is a
topological order, and that is the whole backward walk.
"""

from .checkpoint import checkpoint
from .engine import RemovableHandle, backward, grad
from .function import Function, once_differentiable
from .op import (
    OPS,
    SPACES,
    AccumulateGrad,
    Alias,
    Op,
    ViewScatter,
    check_changeable,
    check_writable,
    forget_base,
    in_place,
    rebase,
)
from .state import (
    OutOfMemoryError,
    detect_anomaly,
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    module_path,
    no_grad,
    set_grad_enabled,
    state,
    user_line,
)

from ..gradcheck import gradcheck, gradgradcheck  # isort: skip  # it uses the names above

__all__ = [
    "OPS",
    "SPACES",
    "AccumulateGrad",
    "Alias",
    "Function",
    "Op",
    "OutOfMemoryError",
    "RemovableHandle",
    "ViewScatter",
    "backward",
    "check_changeable",
    "check_writable",
    "checkpoint",
    "detect_anomaly",
    "enable_grad",
    "forget_base",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "in_place",
    "inference_mode",
    "is_grad_enabled",
    "is_inference_mode_enabled",
    "module_path",
    "no_grad",
    "once_differentiable",
    "rebase",
    "set_grad_enabled",
    "state",
    "user_line",
]
