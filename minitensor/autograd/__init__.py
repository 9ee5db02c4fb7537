"""PyTorch's `torch.autograd` on top of `minitensor.core`: grad, Function, hooks, checkpoint, ...

- `gradients`: `backward` and `grad`, the two ways to run the backward pass.
- `grad_mode`: `no_grad` and its kin, `inference_mode`, and `observe` for observers of one's own.
- `hooks`: hooks on tensors, `retain_grad`.
- `views`, `inplace`, `out`: tensors that show one memory, and changes of it.
- `function`: ops of the user's own. `checkpoint`: computing again in place of saving.
- `anomaly`, `nonfinite`: the search for the first NaN. `gradcheck`: finite differences.
- `grad_fn`: what PyTorch's nodes can do besides.
- `tensor`: the part of Tensor that the backward pass does without.
"""

from ..names import show
from . import tensor  # noqa: F401  # attaches its methods
from .anomaly import detect_anomaly
from .checkpoint import checkpoint
from .function import Function, once_differentiable
from .grad_fn import AccumulateGrad
from .grad_mode import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    observe,
    set_grad_enabled,
)
from .gradcheck import gradcheck, gradgradcheck
from .gradients import backward, grad
from .hooks import RemovableHandle
from .inplace import ViewScatter, check_changeable, check_writable, in_place
from .out import taking_out
from .views import forget_base

__all__ = [
    "AccumulateGrad",
    "Function",
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
    "no_grad",
    "observe",
    "once_differentiable",
    "set_grad_enabled",
    "taking_out",
]

show(__name__)
