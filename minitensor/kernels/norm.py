"""Layer norm and RMS norm over the last dimensions, and their gradients.

With x seen as (rows, cols), each row by itself:

    layer norm   mean = sum(x) / cols, rstd = 1 / sqrt(sum((x - mean)^2) / cols + eps)
    RMS norm     mean = 0,             rstd = 1 / sqrt(sum(x^2) / cols + eps)

    n = (x - mean) * rstd              y = n * weight + bias
    g = dy * weight                    dx = rstd * (g - sum(g) / cols - n * sum(g * n) / cols)
    dweight = sum of dy * n over rows  dbias = sum of dy over rows

where the RMS norm's dx lacks the term of sum(g). Both run through the same code, also when x is
first made, as residual + dropout(input): then x is written too, for the backward pass, which gives
dx and dropout(dx) together.

A row whose squares overflow or vanish, or whose mean is large beside its deviations, is told by its
variance. It is taken again with care: times a power of 2, and with its mean corrected.

A row stays in the first level cache between its passes, so both directions are bound by memory. The
sums over rows are made in chunks of rows that depend on the shape alone, and the chunks are added
in order: results do not depend on the number of threads.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..memory import empty
from .dropout import DROPS, contiguous, drop_settings, random_word
from .jit import get_num_threads, jit
from .residual import SERIAL, drop_and_add
from .tasks import Tasks, address, array_at, unpacked

_CHUNKS = 32  # at most so many partial sums of the parameters' gradients
_LEAST_ROWS = 16  # in a chunk
_u32 = np.uint32


@jit(fastmath=False)
def _careful(row: Any, centre: bool, eps: float) -> Any:
    """(mean, 1 / standard deviation, scale) of row * scale, a power of 2 that keeps all in range.

    The mean is of the scaled row, and corrected by that of the deviations from it.
    """
    number = row.dtype.type
    zero, one, cols = number(0), number(1), number(row.size)
    root = math.sqrt(max(eps, 0.0))
    largest = root
    for j in range(row.size):
        largest = max(largest, abs(np.float64(row[j])))
    most = 126 if row.itemsize == 4 else 1022
    scale = number(math.ldexp(1.0, min(most, max(-most, -math.frexp(largest)[1]))))
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
    if square == 0:  # only eps counts
        return mean / scale, one / np.sqrt(number(eps)), one
    root *= np.float64(scale)
    return mean, one / np.sqrt(square / cols + number(root * root)), scale


@jit(fastmath=False)
def _normalise(row, mean, rstd, scale, weight, bias, out):  # type: ignore[no-untyped-def]
    """A row's result, given what `_careful` made of it."""
    for j in range(row.size):
        out[j] = (row[j] * scale - mean) * rstd * weight[j] + bias[j]


@jit(fastmath=False)
def _differentiate(  # type: ignore[no-untyped-def]
    row, mean, rstd, scale, weight, grad, centre, out, dweight, dbias
):
    """The gradients of a scaled row; rstd * scale may be out of range where they are not."""
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
            drop_and_add(s, x[i], i * s.cols, residual[i], total[i])
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
            mean, rstd, scale = _careful(row, s.centre != 0, s.eps)
            _normalise(row, mean, rstd, scale, weight, bias, out)
        else:
            for j in range(row.size):
                out[j] = (row[j] - mean) * rstd * weight[j] + bias[j]
        stats[0, i], stats[1, i], stats[2, i] = mean, rstd, scale


def _forward(settings, like, task, tasks):  # type: ignore[no-untyped-def]
    """One task's share of the rows."""
    s = unpacked(settings)
    shape = s.rows, s.cols
    x, y, stats = (
        array_at(like, s.x, shape),
        array_at(like, s.y, shape),
        array_at(like, s.stats, (3, s.rows)),
    )
    residual, total = array_at(like, s.residual, shape), array_at(like, s.total, shape)
    weight, bias = array_at(like, s.weight, (s.cols,)), array_at(like, s.bias, (s.cols,))
    first, last = s.rows * task // tasks, s.rows * (task + 1) // tasks
    _forward_rows(s, x, residual, total, weight, bias, y, stats, first, last)


@jit
def _backward_rows(s, dy, x, weight, stats, dx, dropped, sums, first, last):  # type: ignore[no-untyped-def]
    """The gradients of some rows, and what they add to those of weight and bias: sums (2, cols)."""
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
            _differentiate(row, mean, rstd, scale, weight, grad, s.centre != 0, out, dweight, dbias)
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


def _backward(settings, like, task, tasks):  # type: ignore[no-untyped-def]
    """One task's share of the chunks."""
    s = unpacked(settings)
    shape = s.rows, s.cols
    dy, x, dx = array_at(like, s.dy, shape), array_at(like, s.x, shape), array_at(like, s.dx, shape)
    dropped, sums = array_at(like, s.dropped, shape), array_at(like, s.sums, (s.chunks, 2, s.cols))
    weight, stats = array_at(like, s.weight, (s.cols,)), array_at(like, s.stats, (3, s.rows))
    for c in range(s.chunks * task // tasks, s.chunks * (task + 1) // tasks):
        first, last = c * s.rows // s.chunks, (c + 1) * s.rows // s.chunks
        _backward_rows(s, dy, x, weight, stats, dx, dropped, sums[c], first, last)


_run_forward = Tasks(
    _forward,
    f"x residual total weight bias y stats rows cols centre {DROPS}",
    "keep_scale eps",
)
_run_backward = Tasks(
    _backward,
    f"dy x weight stats dx dropped sums rows cols chunks centre {DROPS}",
    "keep_scale",
)


def _rows_and_cols(x: np.ndarray, dims: int) -> tuple[int, int]:
    """What x is seen as; its last `dims` dimensions are the columns."""
    cols = x.shape[-1] if dims == 1 else math.prod(x.shape[-dims:])
    return x.size // max(cols, 1), cols


def _parameter(p: np.ndarray | None, default: float, cols: int, dtype: np.dtype) -> np.ndarray:
    """A weight or bias, contiguous and of this type."""
    if p is None:
        return np.full(cols, default, dtype)
    return np.ascontiguousarray(p, dtype)


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
    """Layer norm (`centre`) or RMS norm over the last `dims` dimensions.

    x is (*, cols...), weight and bias are (cols...) or None for 1 and 0. With `residual`, of x's
    shape and type, what is normalised is residual + dropout(x), with p in [0, 1).

    Returns the result, of x's shape and type; what was normalised, of x's shape; and of each row
    times a scale the mean (0 for the RMS norm), 1 / standard deviation, and that scale: (3, rows).
    """
    rows, cols = _rows_and_cols(x, dims)
    total = packed = contiguous(x)
    dtype = packed.dtype
    y, stats = empty(x.shape, dtype), np.empty((3, rows), dtype)
    other = None
    if residual is not None:
        other, total = contiguous(residual), empty(x.shape, dtype)
    if x.size:
        w, b = _parameter(weight, 1, cols, dtype), _parameter(bias, 0, cols, dtype)
        _run_forward(
            dtype, get_num_threads() if x.size > SERIAL else 1,
            address(packed), 0 if other is None else address(other), address(total),
            address(w), address(b), address(y), address(stats),
            rows, cols, centre, *drop_settings(p, key), 1 / (1 - p), eps,
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
    """The gradients of what was normalised, of what was dropped from, and of weight and bias.

    Given that of the result, and what `norm` returned. The first two are one array where nothing
    was dropped.
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
            dtype, get_num_threads() if x.size > SERIAL else 1,
            address(grads), address(packed), address(w), address(stats),
            address(dx), address(dropped), address(sums),
            rows, cols, chunks, centre, *drop_settings(p, key), 1 / (1 - p),
        )  # fmt: skip
    else:
        sums.fill(0)
    dweight, dbias = sums[0] if chunks == 1 else np.add.reduce(sums, 0)
    if dims > 1:
        dweight, dbias = dweight.reshape(x.shape[-dims:]), dbias.reshape(x.shape[-dims:])
    return dx, dropped, dweight, dbias
