"""Sums and maxima of a few places along dimensions: pooling and interpolation.

    resample     y[i] = sum over t < count[i] of weight[i, t] x[index[i, t]], along one dimension
    window_max   y[i, j] = max over t, u of x[rows[i, t], cols[j, u]], over two dimensions

A mean, or a linear or cubic interpolation, over several dimensions is one over each in turn. Its
gradient is the same sum with `transposed` taps, hence in an order that no number of threads
changes. Threads share what is outside the dimensions. Bound by memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .. import memory
from .parallel import (
    ParallelKernel,
    address,
    array_at,
    contiguous,
    integers_at,
    tasks_for,
    unpacked,
)


@dataclass(frozen=True, eq=False)
class Taps:
    """The places, of `size`, that are read for each place that is made: `count` of each row."""

    size: int
    index: np.ndarray  # (made, most taps), int64
    weight: np.ndarray  # (made, most taps), float64
    count: np.ndarray  # (made), int64

    def transposed(self) -> Taps:
        """Return the taps of the gradient: for each place that is read, those made of it."""
        used = np.arange(self.index.shape[1]) < self.count[:, None]
        made, _ = np.nonzero(used)
        read, weight = self.index[used], self.weight[used]
        order = np.argsort(read, kind="stable")
        made, read, weight = made[order], read[order], weight[order]
        count = np.bincount(read, minlength=self.size)
        place = np.arange(len(read)) - (np.cumsum(count) - count)[read]
        index = np.zeros((self.size, count.max(initial=0)), np.int64)
        weights = np.zeros(index.shape)
        index[read, place], weights[read, place] = made, weight
        return Taps(len(self.count), index, weights, count)


def windows(first: np.ndarray, last: np.ndarray, step: int, size: int) -> Taps:
    """Return the taps of the mean of first, first + step, ... below `last`, both (made,)."""
    count = np.maximum(-((first - last) // step), 0)
    index = first[:, None] + step * np.arange(count.max(initial=0))
    weight = np.broadcast_to(1 / np.maximum(count, 1)[:, None], index.shape)
    return Taps(size, np.ascontiguousarray(index, np.int64), np.ascontiguousarray(weight), count)


def _resample(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    """Make one task's share of the rows (outer, made)."""
    s = unpacked(arguments)
    index, count = integers_at(s.index, s.made * s.taps), integers_at(s.count, s.made)
    weight = array_at(exemplar, s.weight, (s.made * s.taps,))
    x = array_at(exemplar, s.x, (s.outer, s.size, s.inner))
    y = array_at(exemplar, s.y, (s.outer, s.made, s.inner))
    zero = y.dtype.type(0)
    rows = s.outer * s.made
    for row in range(rows * task // tasks, rows * (task + 1) // tasks):
        o, i = row // s.made, row % s.made
        of, to = x[o], y[o, i]
        if s.inner == 1:
            total = zero
            for t in range(i * s.taps, i * s.taps + count[i]):
                total += weight[t] * of[index[t], 0]
            to[0] = total
            continue
        for j in range(s.inner):
            to[j] = zero
        for t in range(i * s.taps, i * s.taps + count[i]):
            w, from_ = weight[t], of[index[t]]
            for j in range(s.inner):
                to[j] += w * from_[j]


def _window_max(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    """Find the maxima of one task's share of the images."""
    s = unpacked(arguments)
    rows = integers_at(s.rows, s.high * s.row_taps)
    row_count = integers_at(s.row_count, s.high)
    cols, col_count = integers_at(s.cols, s.wide * s.col_taps), integers_at(s.col_count, s.wide)
    x = array_at(exemplar, s.x, (s.images, s.height, s.width))
    y = array_at(exemplar, s.y, (s.images, s.high, s.wide))
    places = integers_at(s.places, s.images * s.high * s.wide)
    for n in range(s.images * task // tasks, s.images * (task + 1) // tasks):
        image = x[n]
        for i in range(s.high):
            for j in range(s.wide):
                row, col = rows[i * s.row_taps], cols[j * s.col_taps]
                most, at = image[row, col], row * s.width + col
                for t in range(i * s.row_taps, i * s.row_taps + row_count[i]):
                    of, start = image[rows[t]], rows[t] * s.width
                    for u in range(j * s.col_taps, j * s.col_taps + col_count[j]):
                        value = of[cols[u]]
                        if value > most or value != value:  # or NaN
                            most, at = value, start + cols[u]
                y[n, i, j] = most
                places[(n * s.high + i) * s.wide + j] = at


def _put(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    """Add one task's share of the images where their numbers are from."""
    s = unpacked(arguments)
    places = integers_at(s.places, s.images * s.count)
    dy = array_at(exemplar, s.dy, (s.images * s.count,))
    dx = array_at(exemplar, s.dx, (s.images, s.size))
    zero = dx.dtype.type(0)
    for n in range(s.images * task // tasks, s.images * (task + 1) // tasks):
        image = dx[n]
        for j in range(s.size):
            image[j] = zero
        for i in range(n * s.count, (n + 1) * s.count):
            if 0 <= places[i] < s.size:
                image[places[i]] += dy[i]


_run_resample = ParallelKernel(
    _resample, "x y index weight count outer size made inner taps", fastmath=True
)
_run_max = ParallelKernel(
    _window_max,
    """x y places rows row_count cols col_count images height width high wide row_taps
    col_taps""",
)
_run_put = ParallelKernel(_put, "dy places dx images count size")


def resample(x: np.ndarray, taps: tuple[Taps, ...]) -> np.ndarray:
    """Return x (*, sizes) with each of its last dimensions resampled: (*, made).

    Bytes are computed in float32, and cut off.
    """
    y = contiguous(x.astype(np.float32) if x.dtype == np.uint8 else x)
    for number, t in enumerate(reversed(taps), 1):
        shape, axis = y.shape, y.ndim - number
        made, most = t.index.shape
        out = memory.empty((*shape[:axis], made, *shape[axis + 1 :]), y.dtype)
        weight = t.weight.astype(y.dtype, copy=False)
        if out.size:
            outer, inner = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
            arrays = y, out, t.index, weight, t.count
            work = out.size + y.size
            _run_resample(
                y.dtype, tasks_for(work), *map(address, arrays), outer, t.size, made, inner, most
            )
        y = out
    return y.astype(x.dtype, copy=False)


def window_max(x: np.ndarray, rows: Taps, cols: Taps) -> tuple[np.ndarray, np.ndarray]:
    """Return the maxima of windows of x (*, H, W), and their places in it, H and W as one.

    NaN is the largest; of equals the first counts, of NaNs the last. No window is empty.
    """
    packed = contiguous(x)
    shape = (*x.shape[:-2], len(rows.count), len(cols.count))
    y, places = memory.empty(shape, packed.dtype), memory.empty(shape, np.int64)
    if y.size:
        arrays = packed, y, places, rows.index, rows.count, cols.index, cols.count
        images = y.size // (shape[-2] * shape[-1])
        _run_max(
            y.dtype, tasks_for(x.size), *map(address, arrays), images, *x.shape[-2:], *shape[-2:],
            rows.index.shape[1], cols.index.shape[1],
        )  # fmt: skip
    return y.astype(x.dtype, copy=False), places


def put(dy: np.ndarray, places: np.ndarray, size: int) -> np.ndarray:
    """Return the gradient of `window_max`: the sums of dy at places, (*, made) -> (*, size).

    What is at no place of the `size` is left out.
    """
    packed = contiguous(dy)
    dx = memory.empty((*dy.shape[:-1], size), packed.dtype)
    if dx.size:
        arrays = packed, places, dx
        _run_put(
            dx.dtype, tasks_for(dx.size), *map(address, arrays), dx.size // size, dy.shape[-1], size
        )
    return dx.astype(dy.dtype, copy=False)
