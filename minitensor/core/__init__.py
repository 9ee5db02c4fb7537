"""Reverse-mode differentiation: tensors, ops, and the backward pass through the graph they leave.

Running an op leaves an instance of its class behind: a node of the graph, which holds the tensors
its backward rule needs and the edges to the nodes that made its inputs. Tensors point at nodes and
nodes at earlier nodes, never the other way, so reference counts free a graph as soon as its last
tensor dies. Every node is younger than all it depends on, so visiting nodes youngest first is a
topological order: that is the whole backward pass.
"""

from ..names import show
from .backward import RemovableHandle, backward, grad
from .op import (
    NAMESPACES,
    OPS,
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
from .tensor import Size, Tensor, wrap

__all__ = [
    "NAMESPACES",
    "OPS",
    "AccumulateGrad",
    "Alias",
    "Op",
    "OutOfMemoryError",
    "RemovableHandle",
    "Size",
    "Tensor",
    "ViewScatter",
    "backward",
    "check_changeable",
    "check_writable",
    "detect_anomaly",
    "enable_grad",
    "forget_base",
    "grad",
    "in_place",
    "inference_mode",
    "is_grad_enabled",
    "is_inference_mode_enabled",
    "module_path",
    "no_grad",
    "rebase",
    "set_grad_enabled",
    "state",
    "user_line",
    "wrap",
]

show(__name__)
