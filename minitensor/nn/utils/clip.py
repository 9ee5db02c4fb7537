"""Gradient clipping.

R. Pascanu, T. Mikolov, Y. Bengio, "On the Difficulty of Training Recurrent Neural Networks", 2013.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from ...autograd.inplace import overwritten
from ...core import Tensor, wrap
from ...kernels import clip as kernel


def _gradients(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    """Return the gradients of those that have one."""
    tensors = [parameters] if isinstance(parameters, Tensor) else parameters
    return [t._grad for t in tensors if t._grad is not None]


def _norm(array: np.ndarray, order: float) -> float:
    """Return the norm of an array as one vector; 0 without elements."""
    return float(np.linalg.norm(array.reshape(-1), order)) if array.size else 0.0


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scale all gradients in place by min(1, max_norm / (norm + 1e-6)); return the norm, ().

    The norm is that of all gradients as one vector.

    - `parameters`: a tensor or tensors; those without a gradient are ignored.
    - `max_norm`: the largest norm allowed.
    - `norm_type`: the order of the norm (default 2); may be math.inf.
    - `error_if_nonfinite`: raise RuntimeError for a norm that is NaN or infinite.
    - `foreach`: accepted for PyTorch's sake, without effect.
    """
    grads = _gradients(parameters)
    if not grads:
        return wrap(np.zeros((), np.float32))
    by_type: dict[np.dtype[Any], list[np.ndarray]] = {}
    for g in grads:
        by_type.setdefault(g._array.dtype, []).append(g._array)
    if norm_type == 2:
        total = math.sqrt(sum(kernel.sum_of_squares(*item) for item in by_type.items()))
    else:
        total = _norm(np.array([_norm(g._array, norm_type) for g in grads]), norm_type)
    if error_if_nonfinite and not math.isfinite(total):
        raise RuntimeError(
            f"The total norm of order {norm_type} for gradients from `parameters` is non-finite, "
            "so it cannot be clipped. With `error_if_nonfinite=False` the gradients are scaled by "
            "it anyway."
        )
    factor = max_norm / (total + 1e-6)
    if not factor >= 1:  # also for NaN, which must not go unnoticed
        for dtype, arrays in by_type.items():
            kernel.scale(dtype, arrays, factor)
        for g in grads:
            overwritten(g)
    return wrap(np.asarray(total, grads[0].dtype))


def clip_grad_value_(
    parameters: Tensor | Iterable[Tensor], clip_value: float, foreach: bool | None = None
) -> None:
    """Limit every element of the gradients to [-clip_value, clip_value], in place.

    - `parameters`: a tensor or tensors; those without a gradient are ignored.
    - `foreach`: accepted for PyTorch's sake, without effect.
    """
    for g in _gradients(parameters):
        np.clip(g._array, -clip_value, clip_value, out=g._array)
        overwritten(g)
