"""Layer norm and RMS norm over the last dimensions, and their gradients.

With x seen as (rows, cols), each row by itself:

    layer norm   mean = sum(x) / cols, rstd = 1 / sqrt(sum((x - mean)^2) / cols + eps)
    RMS norm     mean = 0,             rstd = 1 / sqrt(sum(x^2) / cols + eps)

    n = (x - mean) * rstd              y = n * weight + bias
    g = dy * weight                    dx = rstd * (g - sum(g) / cols - n * sum(g * n) / cols)
    dweight = sum of dy * n over rows  dbias = sum of dy over rows

where the RMS norm's dx lacks the term of sum(g). With a residual, x = residual + dropout(input) is
computed in the same pass and written too, for the backward pass, which returns both dx and
dropout(dx).

The variance takes two passes over the row, mean first, so it does not cancel as mean(x^2) - mean^2
does. If it comes out very small or large, or small beside mean^2, the row is done again: scaled by
a power of 2, so that no square overflows or underflows, and with the mean corrected by that of the
deviations.

A row stays in the first-level cache between its passes: forward reads x and writes y, backward
reads x and dy and writes dx, and both are bound by memory. The sums over rows are made in chunks of
rows that depend on the shape alone and are added in order: results do not depend on the number of
threads.

J. Ba, J. Kiros, G. Hinton, "Layer Normalization", 2016; B. Zhang, R. Sennrich, "Root Mean Square
Layer Normalization", 2019.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from ..memory import empty
from .dropout import DROPOUT_ARGUMENTS, dropout_arguments, random_word
from .jit import jit
from .objectcode import ADDRESSES
from .parallel import ParallelKernel, address, array_at, contiguous, tasks_for, unpacked
from .residual import dropout_add_in_row

_CHUNKS = 32  # the most partial sums of the parameters' gradients
_LEAST_ROWS = 16  # in a chunk
_u32 = np.uint32


@jit(fastmath=False)
def _power_of_two_under_one_over(x: Any, most: int) -> Any:
    """Return 2^n, for a float64 x >= 0: x 2^n is from 1/2 to 1, unless n would exceed +-`most`.

    n is read from the bits of x, and written to those of the result.
    """
    n: Any = 1022 - (np.float64(x).view(np.int64) >> 52)
    return np.int64((1023 + min(most, max(-most, n))) << 52).view(np.float64)


@jit(fastmath=False)
def _rescaled_stats(row: Any, centre: bool, eps: float) -> Any:
    """Return (mean, rstd, scale) of row * scale, for a power of 2 that keeps squares in range."""
    number = row.dtype.type
    zero, one, cols = number(0), number(1), number(row.size)
    root = math.sqrt(max(eps, 0.0))
    largest = root
    for j in range(row.size):
        largest = max(largest, abs(np.float64(row[j])))
    most = 126 if row.itemsize == 4 else 1022
    scale = number(_power_of_two_under_one_over(largest, most))
    mean = zero
    if centre:
        for _ in range(2):
            more = zero
            for j in range(row.size):
                more += row[j] * scale - mean
            mean += more / cols
    square = zero
    for j in range(row.size):
        square += (row[j] * scale - mean) * (row[j] * scale - mean)
    if square == 0:  # the variance is eps alone
        return mean / scale, one / np.sqrt(number(eps)), one
    root *= np.float64(scale)
    return mean, one / np.sqrt(square / cols + number(root * root)), scale


@jit(fastmath=False)
def _rescaled_forward(row, mean, rstd, scale, weight, bias, out):  # type: ignore[no-untyped-def]
    """Normalise a row by its `_rescaled_stats`."""
    for j in range(row.size):
        out[j] = (row[j] * scale - mean) * rstd * weight[j] + bias[j]


@jit(fastmath=False)
def _rescaled_backward(  # type: ignore[no-untyped-def]
    row, mean, rstd, scale, weight, grad, centre, out, dweight, dbias
):
    """Compute the gradients of a scaled row; rstd * scale alone may overflow."""
    zero, cols = row.dtype.type(0), row.dtype.type(row.size)
    total, product = zero, zero
    for j in range(row.size):
        n = (row[j] * scale - mean) * rstd
        if centre:
            total += grad[j] * weight[j]
        product += grad[j] * weight[j] * n
        dweight[j] += grad[j] * n
        dbias[j] += grad[j]
    for j in range(row.size):
        n = (row[j] * scale - mean) * rstd
        out[j] = (grad[j] * weight[j] - total / cols - n * (product / cols)) * rstd * scale


@jit
def _forward_rows(s, x, residual, total, weight, bias, y, stats, first, last):  # type: ignore[no-untyped-def]
    zero, one, cols = x.dtype.type(0), x.dtype.type(1), x.dtype.type(x.shape[1])
    eps = x.dtype.type(s.eps)
    single = x.itemsize == 4
    least = x.dtype.type(2.0**-100 if single else 2.0**-900)
    most, sharp = one / least, x.dtype.type(2.0**-10)
    for i in range(first, last):
        if s.residual != 0:
            dropout_add_in_row(s, x[i], i * s.cols, residual[i], total[i])
        row, out = total[i], y[i]
        mean, scale = zero, one
        if s.centre != 0:
            for j in range(row.size):
                mean += row[j]
            mean /= cols
        square = zero
        for j in range(row.size):
            square += (row[j] - mean) * (row[j] - mean)
        variance = square / cols + eps
        rstd = one / np.sqrt(variance)
        if not (least < variance < most and mean * mean * sharp < variance):
            mean, rstd, scale = _rescaled_stats(row, s.centre != 0, s.eps)
            _rescaled_forward(row, mean, rstd, scale, weight, bias, out)
        else:
            for j in range(row.size):
                out[j] = (row[j] - mean) * rstd * weight[j] + bias[j]
        stats[0, i], stats[1, i], stats[2, i] = mean, rstd, scale


def _forward(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    """Do one task's rows."""
    s = unpacked(arguments)
    shape = s.rows, s.cols
    x = array_at(exemplar, s.x, shape)
    y = array_at(exemplar, s.y, shape)
    stats = array_at(exemplar, s.stats, (3, s.rows))
    residual, total = array_at(exemplar, s.residual, shape), array_at(exemplar, s.total, shape)
    weight, bias = array_at(exemplar, s.weight, (s.cols,)), array_at(exemplar, s.bias, (s.cols,))
    first, last = s.rows * task // tasks, s.rows * (task + 1) // tasks
    _forward_rows(s, x, residual, total, weight, bias, y, stats, first, last)


@jit
def _backward_rows(s, dy, x, weight, stats, dx, dropped, sums, first, last):  # type: ignore[no-untyped-def]
    """Compute the gradients of some rows, and their part of dweight and dbias: sums (2, cols)."""
    zero, one = x.dtype.type(0), x.dtype.type(1)
    per_col, keep_scale = one / x.dtype.type(x.shape[1]), x.dtype.type(s.keep_scale)
    key1, threshold = _u32(s.key1), _u32(s.threshold)
    dweight, dbias = sums[0], sums[1]
    for j in range(dweight.size):
        dweight[j] = dbias[j] = zero
    for i in range(first, last):
        row, grad, out = x[i], dy[i], dx[i]
        mean, rstd, scale = stats[0, i], stats[1, i], stats[2, i]
        if scale != one:
            _rescaled_backward(
                row, mean, rstd, scale, weight, grad, s.centre != 0, out, dweight, dbias
            )
            if s.drops != 0:
                other, key0 = dropped[i], _u32(s.key0 + i * s.cols)
                for j in range(row.size):
                    kept = random_word(key0, key1, _u32(j)) >= threshold
                    other[j] = out[j] * (keep_scale if kept else zero)
            continue
        total, product = zero, zero
        for j in range(row.size):
            n = (row[j] - mean) * rstd
            g = grad[j] * weight[j]
            total += g
            product += g * n
            dweight[j] += grad[j] * n
            dbias[j] += grad[j]
        product *= per_col
        total = total * per_col if s.centre != 0 else zero
        if s.drops != 0:
            other, key0 = dropped[i], _u32(s.key0 + i * s.cols)
            for j in range(row.size):
                n = (row[j] - mean) * rstd
                out[j] = (grad[j] * weight[j] - total - n * product) * rstd
                kept = random_word(key0, key1, _u32(j)) >= threshold
                other[j] = out[j] * (keep_scale if kept else zero)
        else:
            for j in range(row.size):
                n = (row[j] - mean) * rstd
                out[j] = (grad[j] * weight[j] - total - n * product) * rstd


def _backward(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    """Do one task's chunks of rows."""
    s = unpacked(arguments)
    shape = s.rows, s.cols
    dy = array_at(exemplar, s.dy, shape)
    x = array_at(exemplar, s.x, shape)
    dx = array_at(exemplar, s.dx, shape)
    dropped = array_at(exemplar, s.dropped, shape)
    sums = array_at(exemplar, s.sums, (s.chunks, 2, s.cols))
    weight = array_at(exemplar, s.weight, (s.cols,))
    stats = array_at(exemplar, s.stats, (3, s.rows))
    for c in range(s.chunks * task // tasks, s.chunks * (task + 1) // tasks):
        first, last = c * s.rows // s.chunks, (c + 1) * s.rows // s.chunks
        _backward_rows(s, dy, x, weight, stats, dx, dropped, sums[c], first, last)


_run_forward = ParallelKernel(
    _forward,
    f"x residual total weight bias y stats rows cols centre {DROPOUT_ARGUMENTS}",
    "keep_scale eps",
)
_run_backward = ParallelKernel(
    _backward,
    f"dy x weight stats dx dropped sums rows cols chunks centre {DROPOUT_ARGUMENTS}",
    "keep_scale",
)


def _sum_chunks(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    """Add the sums of all chunks, in order."""
    s = unpacked(arguments)
    parts, total = (
        array_at(exemplar, s.parts, (s.count, s.size)),
        array_at(exemplar, s.total, (s.size,)),
    )
    for j in range(s.size):
        total[j] = parts[0, j]
    for i in range(1, s.count):
        for j in range(s.size):
            total[j] += parts[i, j]


_run_sum = ParallelKernel(_sum_chunks, "parts total count size")


def _rows_and_cols(x: np.ndarray, dims: int) -> tuple[int, int]:
    """Return the rows and columns of x, whose last `dims` dimensions are the columns."""
    cols = x.shape[-1] if dims == 1 else math.prod(x.shape[-dims:])
    return x.size // max(cols, 1), cols


def _parameter(p: np.ndarray | None, default: float, cols: int, dtype: np.dtype) -> np.ndarray:
    """Return a weight or bias, contiguous and of this dtype."""
    if p is None:
        return _constant(default, cols, dtype.char)
    return np.ascontiguousarray(p, dtype)


@functools.cache
def _constant(value: float, cols: int, char: str) -> np.ndarray:
    """Return an array that stays where it is, for calls that are replayed."""
    array = np.full(cols, value, char)
    ADDRESSES.add(address(array))
    return array


def norm(
    centre: bool,
    x: np.ndarray,
    dims: int,
    weight: np.ndarray | None,
    bias: np.ndarray | None,
    eps: float,
    residual: np.ndarray | None = None,
    p: float = 0.0,
    key: int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Layer norm (`centre`) or RMS norm over the last `dims` dimensions of x (*, cols...).

    - weight, bias: (cols...), or None for 1 and 0.
    - residual: of x's shape and dtype; if given, residual + dropout(x) is normalised, p in [0, 1).

    Returns the result, of x's shape and dtype; the array that was normalised, of x's shape; and
    the stats (3, rows): each scaled row's mean (0 for the RMS norm), its rstd, and its scale.
    """
    rows, cols = _rows_and_cols(x, dims)
    total = packed = contiguous(x)
    dtype = packed.dtype
    y, stats = empty(x.shape, dtype), empty((3, rows), dtype)
    other = None
    if residual is not None:
        other, total = contiguous(residual), empty(x.shape, dtype)
    if x.size:
        w, b = _parameter(weight, 1, cols, dtype), _parameter(bias, 0, cols, dtype)
        _run_forward(
            dtype, tasks_for(x.size),
            address(packed), 0 if other is None else address(other), address(total),
            address(w), address(b), address(y), address(stats),
            rows, cols, centre, *dropout_arguments(p, key), 1 / (1 - p), eps,
        )  # fmt: skip
    return y if dtype == x.dtype else y.astype(x.dtype), total, stats


def norm_backward(
    centre: bool,
    dy: np.ndarray,
    x: np.ndarray,
    dims: int,
    weight: np.ndarray | None,
    stats: np.ndarray,
    p: float = 0.0,
    key: int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the gradients of residual + dropout(x), of x, of weight and of bias.

    `dy` is the gradient of the result, `x` and `stats` are results of `norm`. Without dropout
    the first two gradients are one array.
    """
    rows, cols = _rows_and_cols(x, dims)
    packed, grads = contiguous(x), contiguous(dy)
    dtype = packed.dtype
    chunks = min(_CHUNKS, max(1, rows // _LEAST_ROWS))
    dx, sums = empty(x.shape, dtype), empty((chunks, 2, cols), dtype)
    dropped = empty(x.shape, dtype) if p else dx
    if x.size:
        w = _parameter(weight, 1, cols, dtype)
        _run_backward(
            dtype, tasks_for(x.size),
            address(grads), address(packed), address(w), address(stats),
            address(dx), address(dropped), address(sums),
            rows, cols, chunks, centre, *dropout_arguments(p, key), 1 / (1 - p),
        )  # fmt: skip
    else:
        sums.fill(0)
    total = sums[0]
    if chunks > 1:
        total = empty((2, cols), dtype)
        _run_sum(dtype, 1, address(sums), address(total), chunks, 2 * cols)
    dweight, dbias = total
    if dims > 1:
        dweight, dbias = dweight.reshape(x.shape[-dims:]), dbias.reshape(x.shape[-dims:])
    return dx, dropped, dweight, dbias
