"""softmax and log_softmax along one dimension, and their gradients.

With m = max(x) and s = sum(exp(x - m)):

    softmax       y = exp(x - m) / s      dx = y * (dy - sum(dy * y))
    log_softmax   l = x - m - log(s)      dx = dl - exp(l) * sum(dl)

The dimension is brought to the end and the array seen as (rows, cols). Threads share blocks of
rows, which depend on the shape alone, so a result does not depend on the number of threads.

A wide row goes from its maximum to its last element by itself. Narrow rows go through each pass
together with the others of a block: what one row's maximum and sum wait for, those of the next do
not, and the exponentials of all are one long loop. A block stays in the first-level cache. The
forward kernels are bound by exp as long as the whole array is in cache too and by memory beyond,
the backward ones by memory.

Exponentials are added up in float64, which costs little beside them, and multiplied by 1 / s in two
parts: a float32 result is within 2 ulp, however long the row.

A row without a finite maximum (all -inf, or with a +inf or a NaN in it) becomes NaN throughout.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload, register_jitable

from ..memory import empty
from .dropout import contiguous
from .jit import get_num_threads, jit
from .math import exp
from .tasks import Tasks, address, array_at, unpacked

SERIAL = 1 << 14  # elements up to which waking other threads costs more than it saves
_BLOCK = 1 << 11  # elements of a block, if a row has no more
_WIDE = 128  # elements from which a row goes alone

_NOT_SIGN_32, _NOT_SIGN_64 = np.int32(0x7FFFFFFF), np.int64(0x7FFFFFFFFFFFFFFF)
_ZERO_32, _ZERO_64 = np.int32(0), np.int64(0)


def ordinal(x: Any) -> Any:
    """A float's bits as an integer that compares as the float does; its NaN is above +inf.

    A loop for a maximum becomes vector code on these only: float comparisons that respect NaN may
    not be reordered.
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
    """The float that has this `ordinal`."""
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
    """The largest element of a 1-D array that is not empty; NaN if it holds a NaN without sign."""
    top = ordinal(row[0])
    for j in range(row.shape[0]):
        order = ordinal(row[j])
        top = order if order > top else top
    return float_of(top)


@register_jitable(fastmath={"contract"})
def log_softmax_of(x: Any, top: Any, log_total: Any) -> Any:
    """x - top - log_total, in this order: top + log_total is top alone where top is large."""
    return (x - top) - log_total


@register_jitable
def inverse_of(total: Any, number: Any) -> Any:
    """1 / total, of a float64, as a sum of two numbers of the type `number`."""
    exact = 1 / total
    high = number(exact)
    return high, number(exact - np.float64(high))


@register_jitable(fastmath={"contract"})
def share_of(e: Any, high: Any, low: Any) -> Any:
    """e / total, given `inverse_of(total)`: rounded about once, and no division."""
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
            high, low = inverse_of(total, x.dtype.type)
            for j in range(row.size):
                out[j] = share_of(out[j], high, low)


@jit
def _narrow_rows(x, y, tops, totals, log):  # type: ignore[no-untyped-def]
    for i in range(x.shape[0]):
        tops[i] = row_max(x[i])
    for i in range(x.shape[0]):
        row, out, top = x[i], y[i], tops[i]
        for j in range(row.size):
            out[j] = row[j] - top
    flat = y.reshape(y.size)
    for k in range(flat.size):
        flat[k] = exp(flat[k])
    for i in range(x.shape[0]):
        out, total = y[i], 0.0
        for j in range(out.size):
            total += np.float64(out[j])
        if log:
            totals[i] = math.log(total)
        else:
            totals[i], tops[i] = inverse_of(total, x.dtype.type)
    for i in range(x.shape[0]):
        row, out, top, total = x[i], y[i], tops[i], totals[i]
        if log:
            for j in range(row.size):
                out[j] = log_softmax_of(row[j], top, total)
        else:
            for j in range(row.size):
                out[j] = share_of(out[j], total, top)


def _forward(settings, like, task, tasks):  # type: ignore[no-untyped-def]
    """One task's share of the blocks of rows."""
    s = unpacked(settings)
    x, y = array_at(like, s.x, (s.rows, s.cols)), array_at(like, s.y, (s.rows, s.cols))
    room = array_at(like, s.room, (tasks, 2, s.step))[task]
    for block in range(s.blocks * task // tasks, s.blocks * (task + 1) // tasks):
        first = block * s.step
        last = min(s.rows, first + s.step)
        if s.cols >= _WIDE:
            _wide_rows(x, y, s.log != 0, first, last)
        else:
            _narrow_rows(x[first:last], y[first:last], room[0], room[1], s.log != 0)


@jit
def _backward_rows(y, dy, dx, totals, log):  # type: ignore[no-untyped-def]
    zero = y.dtype.type(0)
    if log:
        flat, exponential = y.reshape(y.size), dx.reshape(dx.size)
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


def _backward(settings, like, task, tasks):  # type: ignore[no-untyped-def]
    """One task's share of the blocks of rows."""
    s = unpacked(settings)
    y, dy = array_at(like, s.x, (s.rows, s.cols)), array_at(like, s.dy, (s.rows, s.cols))
    dx = array_at(like, s.y, (s.rows, s.cols))
    totals = array_at(like, s.room, (tasks, 2, s.step))[task, 0]
    for block in range(s.blocks * task // tasks, s.blocks * (task + 1) // tasks):
        part = slice(block * s.step, min(s.rows, (block + 1) * s.step))
        _backward_rows(y[part], dy[part], dx[part], totals, s.log != 0)


_SETTINGS = "x dy y room rows cols step blocks log"
_run_forward, _run_backward = Tasks(_forward, _SETTINGS), Tasks(_backward, _SETTINGS)


def _run(kernel: Tasks, x: np.ndarray, dy: np.ndarray, log: bool) -> np.ndarray:
    """What a kernel makes of the rows of `x` and `dy`, both contiguous."""
    y = empty(x.shape, x.dtype)
    if y.size:
        cols = y.shape[-1]
        rows, step = y.size // cols, max(1, _BLOCK // cols)
        tasks = get_num_threads() if y.size > SERIAL else 1
        room = np.empty((tasks, 2, step), y.dtype)
        arrays = address(x), address(dy), address(y), address(room)
        kernel(y.dtype, tasks, *arrays, rows, cols, step, -(-rows // step), log)
    return y


def _with_last(x: np.ndarray, dim: int) -> np.ndarray:
    """x with `dim` last, contiguous; float16 becomes float32."""
    return contiguous(x if dim in (-1, x.ndim - 1) else x.swapaxes(dim, -1))


def _with_back(y: np.ndarray, like: np.ndarray, dim: int) -> np.ndarray:
    """Undoes `_with_last` for what was made of it: the shape and type are those of `like`."""
    if y.dtype == like.dtype and dim in (-1, like.ndim - 1):
        return y
    out = empty(like.shape, like.dtype)
    out.swapaxes(dim, -1)[...] = y
    return out


def softmax(x: np.ndarray, dim: int = -1, log: bool = False) -> np.ndarray:
    """exp(x) / sum(exp(x)) along `dim`, or its logarithm: (*) -> (*), in x's float type."""
    rows = _with_last(x, dim)
    return _with_back(_run(_run_forward, rows, rows, log), x, dim)


def softmax_backward(y: np.ndarray, dy: np.ndarray, dim: int = -1, log: bool = False) -> np.ndarray:
    """The gradient of x, given y = softmax(x, dim, log) and its gradient: (*), (*) -> (*)."""
    return _with_back(_run(_run_backward, _with_last(y, dim), _with_last(dy, dim), log), y, dim)
