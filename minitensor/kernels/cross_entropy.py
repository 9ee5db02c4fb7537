"""Cross entropy of logits with class indices, and its gradient, in one pass.

For a row x (cols) with target t, class weights w and label smoothing e, the target distribution is
a = (1 - e) * w[t] at t plus e / cols * w[c] at every c, A = sum(a), and

    loss = -sum(a * log_softmax(x))        dx = A * softmax(x) - a

A row whose target is `ignore` has a loss and a gradient of 0. The pass that sums exp(x - max) for
the loss keeps the exponentials, and a last sweep makes them the gradient while the row is still in
cache: one exp for each logit, and no second pass over the logits for the backward. Bound by exp and
by memory.

A row is worked on by one thread: results do not depend on the number of threads.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import prange

from ..memory import empty
from .jit import jit
from .math import exp
from .softmax import BLOCK, SERIAL, as_rows, log_softmax_of, row_max


@jit
def _survey(target: Any, weight: Any, ignore: int) -> tuple[float, int]:
    """The sum of the weights of the targets but `ignore`, and where one is out of range, or -1."""
    total = 0.0
    for i in range(target.shape[0]):
        t = target[i]
        if t == ignore:
            continue
        if t < 0 or t >= weight.shape[0]:
            return total, i
        total += weight[t]
    return total, -1


@jit
def _rows(
    x: Any, target: Any, weight: Any, ignore: int, smoothing: float, scale: float, loss: Any,
    dx: Any, block: int, step: int,
) -> None:  # fmt: skip
    kind = x.dtype.type
    zero = kind(0)
    cols = x.shape[1]
    spread = kind(smoothing / cols)
    share = zero  # of A, from the smoothing
    if smoothing:
        for j in range(cols):
            share += spread * weight[j]
    wanted = dx.shape[0] > 0
    for i in range(block * step, min(x.shape[0], (block + 1) * step)):
        row, t = x[i], target[i]
        if t == ignore:
            loss[i] = zero
            if wanted:
                dx[i, :] = zero
            continue
        top = row_max(row)
        total = zero
        if wanted:
            out = dx[i]
            for j in range(cols):
                e = exp(row[j] - top)
                out[j] = e
                total += e
        else:
            for j in range(cols):
                total += exp(row[j] - top)
        log_total = math.log(total)
        peak = kind(1 - smoothing) * weight[t]
        result = -peak * log_softmax_of(row[t], top, log_total)
        if smoothing:
            smooth = zero
            for j in range(cols):
                smooth += weight[j] * log_softmax_of(row[j], top, log_total)
            result -= spread * smooth
        loss[i] = result
        if wanted:
            out = dx[i]
            factor = kind(scale)
            part = factor * (peak + share) / total
            if smoothing:
                for j in range(cols):
                    out[j] = out[j] * part - factor * spread * weight[j]
            else:
                for j in range(cols):
                    out[j] *= part
            out[t] -= factor * peak


@jit(parallel=True)
def _cross_entropy(
    x: Any, target: Any, weight: Any, ignore: int, smoothing: float, scale: float, loss: Any,
    dx: Any,
) -> None:  # fmt: skip
    rows = x.shape[0]
    if x.size <= SERIAL:
        # As an int64, like the blocks below, so that the function is compiled once.
        _rows(x, target, weight, ignore, smoothing, scale, loss, dx, np.int64(0), rows)
    else:
        step = max(1, BLOCK // x.shape[1])
        for block in prange((rows + step - 1) // step):
            _rows(x, target, weight, ignore, smoothing, scale, loss, dx, np.int64(block), step)


def class_weights(weight: np.ndarray | None, cols: int, dtype: Any) -> np.ndarray:
    """The weights (cols) as the kernels take them: ones where none are given."""
    return np.ones(cols, dtype) if weight is None else np.ascontiguousarray(weight, dtype)


def survey(target: np.ndarray, weight: np.ndarray, ignore: int) -> float:
    """The sum of the weights (cols) of the targets (rows) that are not `ignore`.

    IndexError if such a target is not in [0, cols).
    """
    total, wrong = _survey(target, weight, ignore)
    if wrong >= 0:
        raise IndexError(
            f"target {target[wrong]} is out of bounds: there are {len(weight)} classes, and "
            f"ignore_index is {ignore}"
        )
    return total


def cross_entropy(
    x: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None,
    ignore: int,
    smoothing: float,
    mean: bool,
    want_gradient: bool,
) -> tuple[np.ndarray, float, np.ndarray | None]:
    """Each row's loss, the divisor of a mean, and the gradient: (rows), number, (rows, cols).

    The logits are (rows, cols), the targets (rows), the class weights (cols) or None for ones. The
    divisor is the sum of the targets' weights. The gradient is of the summed loss by x, divided
    by the divisor if `mean` is set; None unless wanted. IndexError for a target that is neither
    `ignore` nor in [0, cols).
    """
    logits = as_rows(x, -1)
    rows, cols = logits.shape
    target = np.ascontiguousarray(target, np.int64)
    w = class_weights(weight, cols, logits.dtype)
    total = survey(target, w, ignore)
    scale = (1 / total if total else math.nan) if mean else 1.0
    loss = empty(rows, logits.dtype)
    dx = empty((rows if want_gradient else 0, cols), logits.dtype)
    if logits.size:
        _cross_entropy(logits, target, w, ignore, smoothing, scale, loss, dx)
    return loss, total, dx if want_gradient else None
