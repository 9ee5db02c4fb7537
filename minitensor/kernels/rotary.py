"""Rotary position embedding: pairs of numbers turned by angles, forward and backward.

    y1 = x1 cos1 - x2 sin1        dx1 = dy1 cos1 + dy2 sin2
    y2 = x2 cos2 + x1 sin2        dx2 = dy2 cos2 - dy1 sin1

A pair is two neighbours in a row, or a number of its first half and the one of its second half.
With one angle for a pair, cos1 is cos2 and sin1 is sin2, and backward turns by the opposite angle.
One pass over x in the order of memory, whose rows threads share; bound by memory.

J. Su and others, "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021.
"""

from __future__ import annotations

import math

import numpy as np

from .. import memory
from .jit import jit
from .parallel import ParallelKernel, address, array_at, tasks_for, unpacked

_DIMS = 3  # leading dimensions of the kernel


@jit
def _turn_neighbours(x, cos, sin, sign, y):  # type: ignore[no-untyped-def]
    """Turn the pairs of neighbours of a row: (K), (K / 2), (K / 2) -> (K)."""
    for i in range(cos.size):
        a, b, s = x[2 * i], x[2 * i + 1], sin[i] * sign
        y[2 * i] = a * cos[i] - b * s
        y[2 * i + 1] = b * cos[i] + a * s


@jit
def _turn_halves(a, b, cos1, cos2, sin1, sin2, sign, y1, y2):  # type: ignore[no-untyped-def]
    """Turn the pairs of two halves, all (K / 2)."""
    for i in range(a.size):
        y1[i] = a[i] * cos1[i] - b[i] * sin1[i] * sign
        y2[i] = b[i] * cos2[i] + a[i] * sin2[i] * sign


def _rotate(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    """Do one task's rows."""
    s = unpacked(arguments)
    half = s.cols // 2
    rows = s.n0 * s.n1 * s.n2
    first = rows * task // tasks
    i, j, k = first // (s.n1 * s.n2), first // s.n2 % s.n1, first % s.n2 - 1
    for row in range(first, rows * (task + 1) // tasks):
        k += 1
        if k == s.n2:
            j, k = j + 1, 0
        if j == s.n1:
            i, j = i + 1, 0
        x = array_at(exemplar, s.x + i * s.x0 + j * s.x1 + k * s.x2, (s.cols,))
        y = array_at(exemplar, s.y + row * s.y_row, (s.cols,))
        sign = x.dtype.type(s.sign)
        at_cos = s.cos + i * s.cos0 + j * s.cos1 + k * s.cos2
        at_sin = s.sin + i * s.sin0 + j * s.sin1 + k * s.sin2
        cos, sin = array_at(exemplar, at_cos, (half,)), array_at(exemplar, at_sin, (half,))
        if s.interleaved != 0:
            _turn_neighbours(x, cos, sin, sign, y)
            continue
        cos2 = array_at(exemplar, at_cos + s.second, (half,))
        sin2 = array_at(exemplar, at_sin + s.second, (half,))
        if s.sign < 0:
            sin, sin2 = sin2, sin
        _turn_halves(x[:half], x[half:], cos, cos2, sin, sin2, sign, y[:half], y[half:])


_run = ParallelKernel(
    _rotate,
    "x y cos sin n0 n1 n2 cols x0 x1 x2 y_row cos0 cos1 cos2 sin0 sin1 sin2 second interleaved",
    "sign",
)


def rotate(
    x: np.ndarray, cos: np.ndarray, sin: np.ndarray, interleaved: bool, back: bool = False
) -> np.ndarray:
    """Return x (*, K) with its pairs turned, in the order of x in memory; or `back` for gradients.

    The leading dimensions of `cos` and `sin` broadcast to those of x. Their last one is K / 2, or K
    with an angle for each number, unless pairs are `interleaved`. All are float32 or float64.
    """
    lead, cols = x.shape[:-1], x.shape[-1]
    order = sorted(range(len(lead)), key=lambda axis: -abs(x.strides[axis]))
    y = memory.empty((*[lead[axis] for axis in order], cols), x.dtype)
    out = y.transpose(*np.argsort(order), len(lead)) if lead else y
    if not y.size:
        return out
    x = _contiguous_rows(x)
    angles = [_contiguous_rows(z) for z in (cos, sin)]
    arrays = [x, *[np.broadcast_to(z, (*lead, z.shape[-1])) for z in angles]]
    dims = _merged([(lead[axis], *[z.strides[axis] for z in arrays]) for axis in order])
    if len(dims) > _DIMS:  # no stride for each: all in one
        arrays = [np.ascontiguousarray(z.transpose(*order, len(lead))) for z in arrays]
        dims = [(math.prod(lead), *[z.strides[-2] for z in arrays])]
    dims = [(1, 0, 0, 0)] * (_DIMS - len(dims)) + dims
    numbers, of_x, of_cos, of_sin = zip(*dims, strict=True)
    second = cols // 2 * x.itemsize if angles[0].shape[-1] == cols else 0
    _run(
        x.dtype, tasks_for(y.size),
        address(arrays[0]), address(y), address(arrays[1]), address(arrays[2]),
        *numbers, cols, *of_x, cols * x.itemsize, *of_cos, *of_sin, second, interleaved,
        -1.0 if back else 1.0,
    )  # fmt: skip
    return out


def _merged(dims: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Merge neighbouring dimensions (length, strides) through which one stride leads."""
    found: list[tuple[int, ...]] = []
    for length, *steps in dims:
        if length == 1:
            continue
        if found and all(s == length * t for s, t in zip(found[-1][1:], steps, strict=True)):
            length *= found.pop()[0]
        found.append((length, *steps))
    return found


def _contiguous_rows(x: np.ndarray) -> np.ndarray:
    """Return x, or a copy if its rows are not contiguous."""
    return x if x.strides[-1] == x.itemsize or x.shape[-1] == 1 else np.ascontiguousarray(x)
