"""PyTorch's `torch.autograd` on top of `minitensor.core`: grad, Function, checkpoint, gradcheck."""

from ..core import (
    RemovableHandle,
    backward,
    detect_anomaly,
    enable_grad,
    grad,
    inference_mode,
    no_grad,
    set_grad_enabled,
)
from ..names import show
from .checkpoint import checkpoint
from .function import Function, once_differentiable
from .gradcheck import gradcheck, gradgradcheck

__all__ = [
    "Function",
    "RemovableHandle",
    "backward",
    "checkpoint",
    "detect_anomaly",
    "enable_grad",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "inference_mode",
    "no_grad",
    "once_differentiable",
    "set_grad_enabled",
]

show(__name__)
