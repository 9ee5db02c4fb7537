"""Cross entropy of logits with class indices, and its gradient, in one pass.

For a row x (cols) with target t, class weights w and label smoothing e, the target distribution is
a = (1 - e) * w[t] at t plus e / cols * w[c] at every c, A = sum(a), and

    loss = -sum(a * log_softmax(x))        dx = A * softmax(x) - a

A row whose target is `ignore` has a loss and a gradient of 0. The gradient is made in the forward
pass: the exponentials that are summed for the loss are stored in dx, and scaled to the gradient
while the row is in cache. So each logit is read from memory once and costs one exp, and backward
has only to multiply by the gradient of the loss. Bound by exp and by memory. dx may be x itself:
what the loss needs of a row is read before.

Each row is computed by one thread: results do not depend on the number of threads.

C. Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", 2016 (smoothing).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..memory import empty
from .math import exp
from .parallel import (
    ParallelKernel,
    address,
    array_at,
    contiguous,
    integers_at,
    tasks_for,
    unpacked,
)
from .softmax import log_softmax_of, row_max


def _sum_target_weights(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    """Store the sum of the targets' weights, and the index of a target out of range or -1."""
    s = unpacked(arguments)
    target, weight = integers_at(s.target, s.rows), array_at(exemplar, s.weight, (s.cols,))
    found = array_at(np.float64, s.found, (2,))
    found[0], found[1] = 0.0, -1.0
    for i in range(s.rows):
        t = target[i]
        if t != s.ignore:
            if t < 0 or t >= s.cols:
                found[1] = i
                break
            found[0] += weight[t]


def _cross_entropy(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    """Do one task's rows."""
    s = unpacked(arguments)
    x, dx = array_at(exemplar, s.x, (s.rows, s.cols)), array_at(exemplar, s.dx, (s.rows, s.cols))
    weight, loss = array_at(exemplar, s.weight, (s.cols,)), array_at(exemplar, s.loss, (s.rows,))
    target = integers_at(s.target, s.rows)
    number = x.dtype.type
    zero, factor = number(0), number(s.scale)
    spread = number(s.smoothing / s.cols)
    smoothing_total = zero  # the part of A that smoothing adds
    if s.smoothing != 0:
        for j in range(weight.size):
            smoothing_total += spread * weight[j]
    for i in range(s.rows * task // tasks, s.rows * (task + 1) // tasks):
        row, t, out = x[i], target[i], dx[i]
        if t == s.ignore:
            loss[i] = zero
            if s.dx != 0:
                for j in range(row.size):
                    out[j] = zero
            continue
        top = row_max(row)
        chosen, smooth, total = row[t], zero, zero
        if s.smoothing != 0:
            for j in range(row.size):
                smooth += weight[j] * (row[j] - top)
        if s.dx == s.x:  # one array in the loop: of two that overlap LLVM makes no vectors
            for j in range(row.size):
                e = exp(out[j] - top)
                out[j] = e
                total += e
        elif s.dx != 0:
            for j in range(row.size):
                e = exp(row[j] - top)
                out[j] = e
                total += e
        else:
            for j in range(row.size):
                total += exp(row[j] - top)
        log_total = math.log(total)
        peak = number(1 - s.smoothing) * weight[t]
        result = -peak * log_softmax_of(chosen, top, log_total)
        if s.smoothing != 0:
            result -= spread * smooth - smoothing_total * log_total
        loss[i] = result
        if s.dx != 0:
            softmax_scale = factor * (peak + smoothing_total) / total
            even = factor * spread
            for j in range(row.size):
                out[j] = out[j] * softmax_scale - even * weight[j]
            out[t] -= factor * peak


_run = ParallelKernel(
    _cross_entropy, "x target weight loss dx rows cols ignore", "smoothing scale", fastmath=True
)
_run_sum_target_weights = ParallelKernel(
    _sum_target_weights, "target weight found rows cols ignore"
)


def class_weights(weight: np.ndarray | None, cols: int, dtype: Any) -> np.ndarray:
    """Return the weights (cols) as the kernel takes them: ones by default."""
    return np.ones(cols, dtype) if weight is None else np.ascontiguousarray(weight, dtype)


def sum_target_weights(target: np.ndarray, weight: np.ndarray, ignore: int) -> float:
    """Return the sum of the weights (cols) of the targets (rows) that are not `ignore`.

    Raises IndexError if such a target is not in [0, cols).
    """
    target = np.ascontiguousarray(target, np.int64)
    found = np.empty(2)
    arrays = address(target), address(weight), address(found)
    _run_sum_target_weights(weight.dtype, 1, *arrays, len(target), len(weight), ignore)
    total, wrong = float(found[0]), int(found[1])
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
    """Return each row's loss (rows), the divisor of a mean, and the gradient (rows, cols).

    - x: the logits (rows, cols).
    - target: class indices (rows) in [0, cols), or `ignore`; IndexError otherwise.
    - weight: class weights (cols), or None for ones.
    - smoothing: the share of the target distribution that is uniform, in [0, 1].

    The divisor is the sum of the targets' weights. The gradient, None unless `want_gradient`, is
    that of the summed loss by x, divided by the divisor if `mean` is set.
    """
    logits = contiguous(x)
    rows, cols = logits.shape
    target = np.ascontiguousarray(target, np.int64)
    w = class_weights(weight, cols, logits.dtype)
    total = sum_target_weights(target, w, ignore)
    loss = empty(rows, logits.dtype)
    dx = empty(logits.shape, logits.dtype) if want_gradient else None
    cross_entropy_into(loss, dx, logits, target, w, ignore, smoothing, total if mean else 1.0)
    return loss, total, dx


def cross_entropy_into(
    loss: np.ndarray,
    dx: np.ndarray | None,
    x: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray,
    ignore: int,
    smoothing: float,
    divisor: float,
) -> None:
    """Fill each row's loss (rows) and, unless it is None, the gradient (rows, cols), divided.

    Arrays are contiguous and checked, `target` int64; dx may be x.
    """
    if x.size:
        arrays = address(x), address(target), address(weight), address(loss)
        scale = 1 / divisor if divisor else math.nan
        numbers = 0 if dx is None else address(dx), *x.shape, ignore, smoothing, scale
        _run(x.dtype, tasks_for(x.size), *arrays, *numbers)
