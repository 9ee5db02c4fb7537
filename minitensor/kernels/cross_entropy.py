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

from ..memory import empty
from .dropout import contiguous
from .jit import get_num_threads, jit
from .math import exp
from .softmax import SERIAL, log_softmax_of, row_max
from .tasks import Tasks, address, array_at, integers_at, unpacked


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


def _cross_entropy(settings, like, task, tasks):  # type: ignore[no-untyped-def]
    """One task's share of the rows."""
    s = unpacked(settings)
    x, dx = array_at(like, s.x, (s.rows, s.cols)), array_at(like, s.dx, (s.rows, s.cols))
    weight, loss = array_at(like, s.weight, (s.cols,)), array_at(like, s.loss, (s.rows,))
    target = integers_at(s.target, s.rows)
    number = x.dtype.type
    zero, factor = number(0), number(s.scale)
    spread = number(s.smoothing / s.cols)
    share = zero  # of A, from the smoothing
    if s.smoothing != 0:
        for j in range(weight.size):
            share += spread * weight[j]
    for i in range(s.rows * task // tasks, s.rows * (task + 1) // tasks):
        row, t, out = x[i], target[i], dx[i]
        if t == s.ignore:
            loss[i] = zero
            if s.dx != 0:
                for j in range(row.size):
                    out[j] = zero
            continue
        top = row_max(row)
        total = zero
        if s.dx != 0:
            for j in range(row.size):
                e = exp(row[j] - top)
                out[j] = e
                total += e
        else:
            for j in range(row.size):
                total += exp(row[j] - top)
        log_total = math.log(total)
        peak = number(1 - s.smoothing) * weight[t]
        result = -peak * log_softmax_of(row[t], top, log_total)
        if s.smoothing != 0:
            smooth = zero
            for j in range(row.size):
                smooth += weight[j] * log_softmax_of(row[j], top, log_total)
            result -= spread * smooth
        loss[i] = result
        if s.dx != 0:
            part = factor * (peak + share) / total
            even = factor * spread
            for j in range(row.size):
                out[j] = out[j] * part - even * weight[j]
            out[t] -= factor * peak


_run = Tasks(
    _cross_entropy, "x target weight loss dx rows cols ignore", "smoothing scale", fastmath=True
)


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
    logits = contiguous(x)
    rows, cols = logits.shape
    target = np.ascontiguousarray(target, np.int64)
    w = class_weights(weight, cols, logits.dtype)
    total = survey(target, w, ignore)
    scale = (1 / total if total else math.nan) if mean else 1.0
    loss = empty(rows, logits.dtype)
    dx = empty(logits.shape, logits.dtype) if want_gradient else None
    if logits.size:
        arrays = address(logits), address(target), address(w), address(loss)
        settings = 0 if dx is None else address(dx), rows, cols, ignore, smoothing, scale
        tasks = get_num_threads() if logits.size > SERIAL else 1
        _run(logits.dtype, tasks, *arrays, *settings)
    return loss, total, dx
