"""Keeping gradients from exploding."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from ...core import Tensor, wrap
from ...kernels import clip as kernel


def _gradients(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    tensors = [parameters] if isinstance(parameters, Tensor) else parameters
    return [t._grad for t in tensors if t._grad is not None]


def _norm(array: np.ndarray, order: float) -> float:
    return float(np.linalg.norm(array.reshape(-1), order)) if array.size else 0.0


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scale all gradients so that their common norm is at most `max_norm`; returns what it was.

    The factor is max_norm / (norm + 1e-6), at most 1. RuntimeError for a norm that is no finite
    number if `error_if_nonfinite`. `foreach` is accepted and makes no difference.
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
    if not factor >= 1:  # or NaN, which has to be seen
        for dtype, arrays in by_type.items():
            kernel.scale(dtype, arrays, factor)
        for g in grads:
            g._bump()
    return wrap(np.asarray(total, grads[0].dtype))


def clip_grad_value_(
    parameters: Tensor | Iterable[Tensor], clip_value: float, foreach: bool | None = None
) -> None:
    """Limit every element of the gradients to [-clip_value, clip_value]."""
    for g in _gradients(parameters):
        np.clip(g._array, -clip_value, clip_value, out=g._array)
        g._bump()
