"""Layer norm and RMS norm over the last dimensions, and their gradients.

With x seen as (rows, cols), each row by itself:

    layer norm   mean = sum(x) / cols, rstd = 1 / sqrt(sum((x - mean)^2) / cols + eps)
    RMS norm     mean = 0,             rstd = 1 / sqrt(sum(x^2) / cols + eps)

    n = (x - mean) * rstd              y = n * weight + bias
    g = dy * weight                    dx = rstd * (g - sum(g) / cols - n * sum(g * n) / cols)
    dweight = sum of dy * n over rows  dbias = sum of dy over rows

where the RMS norm's dx lacks the term of sum(g). Both run through the same code. A row stays in the
first level cache between its passes, so both directions are bound by memory. The sums over rows are
made in chunks of rows that depend on the shape alone, and the chunks are added in order: results do
not depend on the number of threads.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import prange

from ..memory import empty
from .jit import jit
from .softmax import BLOCK, SERIAL

_CHUNKS = 64  # at most so many partial sums of the parameters' gradients
_LEAST_ROWS = 16  # in a chunk


@jit
def _forward_rows(
    x: Any, weight: Any, bias: Any, eps: float, centre: bool, y: Any, mean: Any, rstd: Any,
    block: int, step: int,
) -> None:  # fmt: skip
    zero, one, cols = x.dtype.type(0), x.dtype.type(1), x.dtype.type(x.shape[1])
    for i in range(block * step, min(x.shape[0], (block + 1) * step)):
        row, out = x[i], y[i]
        middle = zero
        if centre:
            for j in range(row.shape[0]):
                middle += row[j]
            middle /= cols
        square = zero
        for j in range(row.shape[0]):
            square += (row[j] - middle) * (row[j] - middle)
        scale = one / np.sqrt(square / cols + x.dtype.type(eps))
        for j in range(row.shape[0]):
            out[j] = (row[j] - middle) * scale * weight[j] + bias[j]
        mean[i], rstd[i] = middle, scale


@jit
def _backward_chunk(
    dy: Any, x: Any, weight: Any, mean: Any, rstd: Any, centre: bool, dx: Any, parts: Any, c: int
) -> None:
    """Rows of chunk `c`: their dx, and their share of dweight and dbias in parts[c]."""
    rows, chunks = x.shape[0], parts.shape[0]
    zero, one = x.dtype.type(0), x.dtype.type(1)
    per_col = one / x.dtype.type(x.shape[1])
    dweight, dbias = parts[c, 0], parts[c, 1]
    dweight[:] = zero
    dbias[:] = zero
    for i in range(c * rows // chunks, (c + 1) * rows // chunks):
        row, grad, out = x[i], dy[i], dx[i]
        middle, scale = mean[i], rstd[i]
        total, product = zero, zero
        for j in range(row.shape[0]):
            n = (row[j] - middle) * scale
            g = grad[j] * weight[j]
            total += g
            product += g * n
            dweight[j] += grad[j] * n
            dbias[j] += grad[j]
        product *= per_col
        total = total * per_col if centre else zero
        for j in range(row.shape[0]):
            n = (row[j] - middle) * scale
            out[j] = (grad[j] * weight[j] - total - n * product) * scale


@jit(parallel=True)
def _forward(
    x: Any, weight: Any, bias: Any, eps: float, centre: bool, y: Any, mean: Any, rstd: Any
) -> None:
    rows = x.shape[0]
    if x.size <= SERIAL:
        # As an int64, like the blocks below, so that the function is compiled once.
        _forward_rows(x, weight, bias, eps, centre, y, mean, rstd, np.int64(0), rows)
    else:
        step = max(1, BLOCK // x.shape[1])
        for block in prange((rows + step - 1) // step):
            _forward_rows(x, weight, bias, eps, centre, y, mean, rstd, np.int64(block), step)


@jit(parallel=True)
def _backward(
    dy: Any, x: Any, weight: Any, mean: Any, rstd: Any, centre: bool, dx: Any, parts: Any
) -> None:
    if x.size <= SERIAL:
        for c in range(parts.shape[0]):
            _backward_chunk(dy, x, weight, mean, rstd, centre, dx, parts, c)
    else:
        for c in prange(parts.shape[0]):
            _backward_chunk(dy, x, weight, mean, rstd, centre, dx, parts, np.int64(c))


def _as_rows(x: np.ndarray, dims: int) -> np.ndarray:
    """(*, last `dims` dimensions) -> (rows, cols), contiguous; float16 becomes float32."""
    cols = math.prod(x.shape[x.ndim - dims :])
    dtype = np.float32 if x.dtype == np.float16 else x.dtype
    return np.ascontiguousarray(x, dtype).reshape(x.size // max(cols, 1), cols)


def _as_x(rows: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(rows, cols) in the shape and type of `x`."""
    return rows.reshape(x.shape) if rows.dtype == x.dtype else rows.reshape(x.shape).astype(x.dtype)


def _parameter(p: np.ndarray | None, default: float, like: np.ndarray) -> np.ndarray:
    """A weight or bias as (cols), in the type of `like` (rows, cols)."""
    if p is None:
        return np.full(like.shape[1], default, like.dtype)
    return np.ascontiguousarray(p, like.dtype).reshape(like.shape[1])


def norm(
    centre: bool,
    x: np.ndarray,
    dims: int,
    weight: np.ndarray | None,
    bias: np.ndarray | None,
    eps: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Layer norm (`centre`) or RMS norm over the last `dims` dimensions.

    x is (*, cols...), weight and bias are (cols...) or None for 1 and 0. Returns the result, in x's
    shape and type, and each row's mean (0 for the RMS norm) and 1 / standard deviation: (rows).
    """
    rows = _as_rows(x, dims)
    y, (mean, rstd) = empty(rows.shape, rows.dtype), empty((2, len(rows)), rows.dtype)
    if rows.size:
        w, b = _parameter(weight, 1, rows), _parameter(bias, 0, rows)
        _forward(rows, w, b, eps, centre, y, mean, rstd)
    return _as_x(y, x), mean, rstd


def norm_backward(
    centre: bool,
    dy: np.ndarray,
    x: np.ndarray,
    dims: int,
    weight: np.ndarray | None,
    mean: np.ndarray,
    rstd: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The gradients of x, weight and bias, given that of the result and what `norm` returned."""
    rows = _as_rows(x, dims)
    chunks = min(_CHUNKS, max(1, len(rows) // _LEAST_ROWS))
    dx, parts = empty(rows.shape, rows.dtype), np.zeros((chunks, 2, rows.shape[1]), rows.dtype)
    if rows.size:
        w = _parameter(weight, 1, rows)
        _backward(_as_rows(dy, dims), rows, w, mean, rstd, centre, dx, parts)
    dweight, dbias = parts.sum(0).reshape(2, *x.shape[x.ndim - dims :])
    return _as_x(dx, x), dweight, dbias
