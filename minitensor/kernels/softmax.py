"""softmax and log_softmax along one dimension, and their gradients.

With m = max(x) and s = sum(exp(x - m)):

    softmax       y = exp(x - m) / s      dx = y * (dy - sum(dy * y))
    log_softmax   l = x - m - log(s)      dx = dl - exp(l) * sum(dl)

The dimension is moved to the end and the array seen as (rows, cols). Threads share blocks of rows,
which depend on the shape alone, so results do not depend on the number of threads.

The passes are those of the textbook: maximum, exponentials, sum, scaling. They need no fusion as in
the online softmax (M. Milakov, N. Gimelshein, 2018), because a block of rows stays in the
first-level cache: x is read from memory once and y written once. A wide row is done by itself.
Narrow rows go through each pass together with the others of their block, so that the latencies of
their maxima and sums overlap, and the exponentials are one long loop. Forward is bound by exp while
the array is in cache and by memory beyond, backward by memory.

Exponentials are summed in float64 and multiplied by 1 / s in two parts: a float32 result is within
2 ulp, however long the row. A row without a finite maximum (all -inf, or with +inf or NaN) becomes
NaN throughout.

Maxima are taken of the floats' bits, mapped to integers in the same order as in a radix sort (M.
Herf, "Radix Tricks", 2001).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..memory import empty
from .jit import jit, overload, types
from .math import exp
from .parallel import (
    ParallelKernel,
    address,
    array_at,
    contiguous,
    recording,
    tasks_for,
    unpacked,
)

_BLOCK = 1 << 11  # elements of a block, unless a row has more
_WIDE = 128  # elements from which a row is done by itself

_NOT_SIGN_32, _NOT_SIGN_64 = np.int32(0x7FFFFFFF), np.int64(0x7FFFFFFFFFFFFFFF)
_ZERO_32, _ZERO_64 = np.int32(0), np.int64(0)


def ordinal(x: Any) -> Any:
    """Return a float's bits as an integer of the same order, with NaN above +inf.

    LLVM vectorises a maximum of integers only: float comparisons that respect NaN cannot be
    reordered.
    """
    return _ordinal_32(x) if x.dtype == np.float32 else _ordinal_64(x)


def _ordinal_32(x: Any) -> Any:
    bits = np.float32(x).view(np.int32)
    return np.int32(bits ^ (_NOT_SIGN_32 if bits < _ZERO_32 else _ZERO_32))


def _ordinal_64(x: Any) -> Any:
    bits = np.float64(x).view(np.int64)
    return np.int64(bits ^ (_NOT_SIGN_64 if bits < _ZERO_64 else _ZERO_64))


@overload(ordinal)
def _choose_ordinal(x: Any) -> Callable[[Any], Any]:
    return _ordinal_32 if x == types.float32 else _ordinal_64


def float_of(order: Any) -> Any:
    """Return the float with this `ordinal`."""
    return _float_of_32(order) if order.dtype == np.int32 else _float_of_64(order)


def _float_of_32(order: Any) -> Any:
    return np.int32(order ^ (_NOT_SIGN_32 if order < _ZERO_32 else _ZERO_32)).view(np.float32)


def _float_of_64(order: Any) -> Any:
    return np.int64(order ^ (_NOT_SIGN_64 if order < _ZERO_64 else _ZERO_64)).view(np.float64)


@overload(float_of)
def _choose_float_of(order: Any) -> Callable[[Any], Any]:
    return _float_of_32 if order == types.int32 else _float_of_64


@jit
def row_max(row: Any) -> Any:
    """Return the largest element of a 1-D array, not empty; NaN if it holds a positive NaN."""
    top = ordinal(row[0])
    for j in range(row.shape[0]):
        order = ordinal(row[j])
        top = order if order > top else top
    return float_of(top)


@jit(fastmath={"contract"})
def log_softmax_of(x: Any, top: Any, log_total: Any) -> Any:
    """Return x - top - log_total, in this order: top + log_total would round where top is large."""
    return (x - top) - log_total


@jit(fastmath=False)
def reciprocal(total: Any, number: Any) -> Any:
    """Return 1 / total, of a float64, as an unevaluated sum of two numbers of type `number`."""
    exact = 1 / total
    high = number(exact)
    return high, number(exact - np.float64(high))


@jit(fastmath={"contract"})
def divide(e: Any, high: Any, low: Any) -> Any:
    """Return e / total from `reciprocal(total)`: no division, and about one rounding."""
    return e * high + e * low


@jit
def _wide_rows(x, y, log, first, last):  # type: ignore[no-untyped-def]
    for i in range(first, last):
        row, out = x[i], y[i]
        top = row_max(row)
        for j in range(row.size):
            out[j] = exp(row[j] - top)
        total = 0.0
        for j in range(row.size):
            total += np.float64(out[j])
        if log:
            log_total = x.dtype.type(math.log(total))
            for j in range(row.size):
                out[j] = log_softmax_of(row[j], top, log_total)
        else:
            high, low = reciprocal(total, x.dtype.type)
            for j in range(row.size):
                out[j] = divide(out[j], high, low)


@jit
def _narrow_rows(x, y, flat, tops, totals, log):  # type: ignore[no-untyped-def]
    for i in range(x.shape[0]):
        tops[i] = row_max(x[i])
    for i in range(x.shape[0]):
        row, out, top = x[i], y[i], tops[i]
        for j in range(row.size):
            out[j] = row[j] - top
    for k in range(flat.size):  # y, as one row
        flat[k] = exp(flat[k])
    for i in range(x.shape[0]):
        out, total = y[i], 0.0
        for j in range(out.size):
            total += np.float64(out[j])
        if log:
            totals[i] = math.log(total)
        else:
            totals[i], tops[i] = reciprocal(total, x.dtype.type)
    for i in range(x.shape[0]):
        row, out, top, total = x[i], y[i], tops[i], totals[i]
        if log:
            for j in range(row.size):
                out[j] = log_softmax_of(row[j], top, total)
        else:
            for j in range(row.size):
                out[j] = divide(out[j], total, top)


def _forward(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    """Do one task's blocks of rows."""
    s = unpacked(arguments)
    x, y = array_at(exemplar, s.x, (s.rows, s.cols)), array_at(exemplar, s.y, (s.rows, s.cols))
    workspace = array_at(exemplar, s.workspace, (tasks, 2, s.step))[task]
    for block in range(s.blocks * task // tasks, s.blocks * (task + 1) // tasks):
        first = block * s.step
        last = min(s.rows, first + s.step)
        if s.cols >= _WIDE:
            _wide_rows(x, y, s.log != 0, first, last)
        else:
            flat = array_at(exemplar, s.y, (last * s.cols,))[first * s.cols :]
            top, total = workspace[0], workspace[1]
            _narrow_rows(x[first:last], y[first:last], flat, top, total, s.log != 0)


@jit
def _backward_rows(y, dy, dx, flat, exponential, totals, log):  # type: ignore[no-untyped-def]
    zero = y.dtype.type(0)
    if log:
        for k in range(flat.size):
            exponential[k] = exp(flat[k])
        for i in range(y.shape[0]):
            grad, total = dy[i], zero
            for j in range(grad.size):
                total += grad[j]
            totals[i] = total
        for i in range(y.shape[0]):
            grad, out, total = dy[i], dx[i], totals[i]
            for j in range(grad.size):
                out[j] = grad[j] - out[j] * total
    else:
        for i in range(y.shape[0]):
            row, grad, total = y[i], dy[i], zero
            for j in range(row.size):
                total += grad[j] * row[j]
            totals[i] = total
        for i in range(y.shape[0]):
            row, grad, out, total = y[i], dy[i], dx[i], totals[i]
            for j in range(row.size):
                out[j] = row[j] * (grad[j] - total)


def _backward(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    """Do one task's blocks of rows."""
    s = unpacked(arguments)
    y, dy = array_at(exemplar, s.x, (s.rows, s.cols)), array_at(exemplar, s.dy, (s.rows, s.cols))
    dx = array_at(exemplar, s.y, (s.rows, s.cols))
    totals = array_at(exemplar, s.workspace, (tasks, 2, s.step))[task, 0]
    for block in range(s.blocks * task // tasks, s.blocks * (task + 1) // tasks):
        first = block * s.step
        last = min(s.rows, first + s.step)
        part = slice(first, last)
        flat = array_at(exemplar, s.x, (last * s.cols,))[first * s.cols :]
        exponential = array_at(exemplar, s.y, (last * s.cols,))[first * s.cols :]
        _backward_rows(y[part], dy[part], dx[part], flat, exponential, totals, s.log != 0)


_ARGUMENTS = "x dy y workspace rows cols step blocks log"
_run_forward = ParallelKernel(_forward, _ARGUMENTS)
_run_backward = ParallelKernel(_backward, _ARGUMENTS)


def _run(kernel: ParallelKernel, x: np.ndarray, dy: np.ndarray, log: bool) -> np.ndarray:
    """Run a kernel on the rows of `x` and `dy`, both contiguous, and return its result."""
    y = empty(x.shape, x.dtype)
    if y.size:
        cols = y.shape[-1]
        rows, step = y.size // cols, max(1, _BLOCK // cols)
        tasks = tasks_for(y.size)
        workspace = empty((tasks, 2, step), y.dtype)
        arrays = address(x), address(dy), address(y), address(workspace)
        kernel(y.dtype, tasks, *arrays, rows, cols, step, -(-rows // step), log)
    return y


def _with_last(x: np.ndarray, dim: int) -> np.ndarray:
    """Return x with `dim` last, contiguous; float16 becomes float32."""
    return contiguous(x if dim in (-1, x.ndim - 1) else x.swapaxes(dim, -1))


def _restored(y: np.ndarray, x: np.ndarray, dim: int) -> np.ndarray:
    """Return y, made of `_with_last(x, dim)`, in the shape and dtype of x."""
    if y.dtype == x.dtype and dim in (-1, x.ndim - 1):
        return y
    out = empty(x.shape, x.dtype)
    out.swapaxes(dim, -1)[...] = y
    recording.miss()
    return out


def softmax(x: np.ndarray, dim: int = -1, log: bool = False) -> np.ndarray:
    """Return exp(x) / sum(exp(x)) along `dim`, or its logarithm: (*) -> (*), in x's dtype."""
    rows = _with_last(x, dim)
    return _restored(_run(_run_forward, rows, rows, log), x, dim)


def softmax_backward(y: np.ndarray, dy: np.ndarray, dim: int = -1, log: bool = False) -> np.ndarray:
    """Return the gradient of x from y = softmax(x, dim, log) and its gradient: (*), (*) -> (*)."""
    return _restored(_run(_run_backward, _with_last(y, dim), _with_last(dy, dim), log), y, dim)
