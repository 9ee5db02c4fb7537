"""softmax and log_softmax along one dimension, and their gradients.

With m = max(x) and s = sum(exp(x - m)):

    softmax       y = exp(x - m) / s      dx = y * (dy - sum(dy * y))
    log_softmax   l = x - m - log(s)      dx = dl - exp(l) * sum(dl)

The dimension is brought to the end and the array seen as (rows, cols). A row is worked on by one
thread from its maximum to its last element, so a result does not depend on the number of threads.
Rows of a few thousand elements stay in cache between the passes; the forward kernels are bound by
exp as long as the whole array is in cache too and by memory beyond, the backward ones by memory.

A row without a finite maximum (all -inf, or with a +inf or a NaN in it) becomes NaN throughout.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import prange, types
from numba.extending import overload, register_jitable

from ..memory import empty
from .jit import jit
from .math import exp

SERIAL = 1 << 14  # elements up to which waking other threads costs more than it saves
BLOCK = 1 << 12  # elements that a thread takes at a time

_NOT_SIGN_32, _NOT_SIGN_64 = np.int32(0x7FFFFFFF), np.int64(0x7FFFFFFFFFFFFFFF)
_ZERO_32, _ZERO_64 = np.int32(0), np.int64(0)


def as_rows(x: np.ndarray, dim: int) -> np.ndarray:
    """(..., cols, ...) -> (rows, cols), contiguous, with `dim` last; float16 becomes float32."""
    last = x.swapaxes(dim, -1)
    cols = last.shape[-1]
    dtype = np.float32 if x.dtype == np.float16 else x.dtype
    return np.ascontiguousarray(last, dtype).reshape(last.size // max(cols, 1), cols)


def from_rows(rows: np.ndarray, like: np.ndarray, dim: int) -> np.ndarray:
    """(rows, cols) -> the shape and type of `like`, with cols at `dim`: undoes `as_rows`."""
    if rows.dtype == like.dtype and dim in (-1, like.ndim - 1):
        return rows.reshape(like.shape)
    out = empty(like.shape, like.dtype)
    last = out.swapaxes(dim, -1)
    last[...] = rows.reshape(last.shape)
    return out


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


@jit
def _forward_rows(x: Any, y: Any, log: bool, block: int, step: int) -> None:
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for i in range(block * step, min(x.shape[0], (block + 1) * step)):
        row, out = x[i], y[i]
        top = row_max(row)
        total = zero
        if log:
            for j in range(row.shape[0]):
                total += exp(row[j] - top)
            log_total = math.log(total)
            for j in range(row.shape[0]):
                out[j] = log_softmax_of(row[j], top, log_total)
        else:
            for j in range(row.shape[0]):
                e = exp(row[j] - top)
                out[j] = e
                total += e
            scale = one / total
            for j in range(row.shape[0]):
                out[j] *= scale


@jit
def _backward_rows(y: Any, dy: Any, dx: Any, log: bool, block: int, step: int) -> None:
    zero = y.dtype.type(0)
    for i in range(block * step, min(y.shape[0], (block + 1) * step)):
        row, grad, out = y[i], dy[i], dx[i]
        total = zero
        if log:
            for j in range(row.shape[0]):
                total += grad[j]
            for j in range(row.shape[0]):
                out[j] = grad[j] - exp(row[j]) * total
        else:
            for j in range(row.shape[0]):
                total += grad[j] * row[j]
            for j in range(row.shape[0]):
                out[j] = row[j] * (grad[j] - total)


@jit(parallel=True)
def _forward(x: Any, y: Any, log: bool) -> None:
    rows = x.shape[0]
    if x.size <= SERIAL:
        # As an int64, like the blocks below, so that the function is compiled once.
        _forward_rows(x, y, log, np.int64(0), rows)
    else:
        step = max(1, BLOCK // x.shape[1])
        for block in prange((rows + step - 1) // step):
            _forward_rows(x, y, log, np.int64(block), step)


@jit(parallel=True)
def _backward(y: Any, dy: Any, dx: Any, log: bool) -> None:
    rows = y.shape[0]
    if y.size <= SERIAL:
        # As an int64, like the blocks below, so that the function is compiled once.
        _backward_rows(y, dy, dx, log, np.int64(0), rows)
    else:
        step = max(1, BLOCK // y.shape[1])
        for block in prange((rows + step - 1) // step):
            _backward_rows(y, dy, dx, log, np.int64(block), step)


def softmax(x: np.ndarray, dim: int = -1, log: bool = False) -> np.ndarray:
    """exp(x) / sum(exp(x)) along `dim`, or its logarithm: (*) -> (*), in x's float type."""
    rows = as_rows(x, dim)
    y = empty(rows.shape, rows.dtype)
    if rows.size:
        _forward(rows, y, log)
    return from_rows(y, x, dim)


def softmax_backward(y: np.ndarray, dy: np.ndarray, dim: int = -1, log: bool = False) -> np.ndarray:
    """The gradient of x, given y = softmax(x, dim, log) and its gradient: (*), (*) -> (*)."""
    rows, grads = as_rows(y, dim), as_rows(dy, dim)
    dx = empty(rows.shape, rows.dtype)
    if rows.size:
        _backward(rows, grads, dx, log)
    return from_rows(dx, y, dim)
