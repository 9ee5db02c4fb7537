"""Sums and maxima of a few places along dimensions, which pooling and interpolation consist of."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np

from ...core import Op, Tensor
from ...kernels import resample as kernel
from ..places import LOOPS, at
from ..places import places as letters_of
from ..samples import Rand, Samples

_NAMES = "abc"  # of the taps of each dimension, in formulas


class Resample(Op):
    """y = a sum of some places along each of the last dimensions, with weights: (*, n) -> (*, m).

    Means of windows and interpolation are such sums.  dx = dy, resampled by the transposed taps.
    """

    namespaces = ""
    torch_name = None

    def forward(ctx, x: np.ndarray, *, taps: tuple[kernel.Taps, ...]) -> np.ndarray:
        ctx.save(taps)
        return kernel.resample(x, taps)

    def backward(ctx, dy: Tensor) -> Tensor:
        return Resample.apply(dy, taps=tuple(t.transposed() for t in ctx.saved[0]))

    @staticmethod
    def cell(x: np.ndarray, *, taps: tuple[kernel.Taps, ...]) -> str:
        weights, read, loops = _formula(x.ndim, taps)
        return f"sum({' * '.join([*weights, read])}{loops})"

    @staticmethod
    def hidden(x: np.ndarray, *, taps: tuple[kernel.Taps, ...]) -> dict[str, np.ndarray]:
        return _hidden(taps)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(1, 4, 3), dict(taps=(window(4, 3, 2, 1), window(3, 2, 1, 0)))


def _formula(ndim: int, taps: Sequence[kernel.Taps]) -> tuple[list[str], str, str]:
    """Return the weights of a cell, the cell of x that they go with, and the loops over taps."""
    letters = letters_of(ndim)
    of, weights, loops = [*letters], [], ""
    for n, k, axis in zip(_NAMES, LOOPS, range(-len(taps), 0), strict=False):
        i = letters[axis]
        weights.append(f"{n}[{i}, {k}]")
        of[axis] = f"at_{n}[{i}, {k}]"
        loops += f" for {k} in range(count_{n}[{i}])"
    return weights, at("x", of), loops


def _hidden(taps: Sequence[kernel.Taps]) -> dict[str, np.ndarray]:
    """Return what `_formula` names."""
    found: dict[str, np.ndarray] = {}
    for n, t in zip(_NAMES, taps, strict=False):
        found |= {n: t.weight, f"at_{n}": t.index, f"count_{n}": t.count}
    return found


def _as_rows(
    x: np.ndarray, taps: Sequence[kernel.Taps]
) -> tuple[np.ndarray, kernel.Taps, kernel.Taps]:
    """Return x and its taps with two dimensions to take the maximum over."""
    if len(taps) == 2:
        return x, taps[0], taps[1]
    return x[..., None, :], window(1, 1, 1, 0), taps[0]


class MaxPool(Op):
    """y = the largest number in each window of the last dimensions: (*, n) -> (*, m).

    Of equals the first counts; NaN is the largest.  dx = dy where the largest is.
    """

    namespaces = ""
    torch_name = None
    saves = ("places of the largest",)

    def forward(ctx, x: np.ndarray, *, taps: tuple[kernel.Taps, ...]) -> np.ndarray:
        y, found = kernel.window_max(*_as_rows(x, taps))
        ctx.save(found.reshape(*x.shape[: -len(taps)], _size(y.shape, 2)), x.shape, len(taps))
        return y.reshape(*x.shape[: -len(taps)], *(len(t.count) for t in taps))

    def backward(ctx, dy: Tensor) -> Tensor:
        found, shape, dims = ctx.saved
        dy = dy.flatten(-dims)
        return PutMaxima.apply(dy, found, size=_size(shape, dims)).reshape(shape)

    @staticmethod
    def cell(x: np.ndarray, *, taps: tuple[kernel.Taps, ...]) -> str:
        _, read, loops = _formula(x.ndim, taps)
        return f"max({read}{loops})"

    @staticmethod
    def hidden(x: np.ndarray, *, taps: tuple[kernel.Taps, ...]) -> dict[str, np.ndarray]:
        return _hidden(taps)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand.distinct(1, 4, 3), dict(taps=(window(4, 3, 2, 1), window(3, 2, 1, 0)))
        yield rand.distinct(2, 5), dict(taps=(window(5, 3, 2, 1),))


def _size(shape: Sequence[int], dims: int) -> int:
    return math.prod(shape[-dims:])


class MaxPoolIndices(Op):
    """y = where the largest number of each window is, in the last dimensions as one."""

    namespaces = ""
    torch_name = None
    differentiable = False

    def forward(ctx, x: np.ndarray, *, taps: tuple[kernel.Taps, ...]) -> np.ndarray:
        _, found = kernel.window_max(*_as_rows(x, taps))
        return found.reshape(*x.shape[: -len(taps)], *(len(t.count) for t in taps))

    @staticmethod
    def cell(x: np.ndarray, *, taps: tuple[kernel.Taps, ...]) -> str:
        _, read, loops = _formula(x.ndim, taps)
        most, letters = f"argmax({read}{loops})", letters_of(x.ndim)
        if len(taps) == 1:
            return f"at_a[{letters[-1]}, {most}]"
        i, j = letters[-2:]
        row, col = f"at_a[{i}, {most} // count_b[{j}]]", f"at_b[{j}, {most} % count_b[{j}]]"
        return f"{row} * {x.shape[-1]} + {col}"

    @staticmethod
    def hidden(x: np.ndarray, *, taps: tuple[kernel.Taps, ...]) -> dict[str, np.ndarray]:
        return _hidden(taps)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand.distinct(1, 4, 3), dict(taps=(window(4, 3, 2, 1), window(3, 2, 1, 0)))
        yield rand.distinct(2, 5), dict(taps=(window(5, 3, 2, 1),))


class PutMaxima(Op):
    """y = zeros with x added at `places`, the gradient of `max_pool`: (*, m), (*, m) -> (*, n).

    dx = dy at the places.
    """

    namespaces = ""
    torch_name = None

    def forward(ctx, x: np.ndarray, places: np.ndarray, *, size: int) -> np.ndarray:
        ctx.save(places)
        return kernel.put(x, places, size)

    def backward(ctx, dy: Tensor) -> Tensor:
        return dy.gather(-1, ctx.saved[0])

    @staticmethod
    def cell(x: np.ndarray, places: np.ndarray, *, size: int) -> str:
        *lead, last = letters_of(x.ndim)
        of, where = at("x", [*lead, "k"]), at("places", [*lead, "k"])
        return f"sum({of} for k in range({x.shape[-1]}) if {where} == {last})"

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2, 3), rand.integers(0, 5, 2, 3), dict(size=5)


@functools.lru_cache(maxsize=256)
def window(
    n: int, kernel_size: int, stride: int, padding: int, dilation: int = 1, ceil: bool = False
) -> kernel.Taps:
    """Return the taps of windows along a dimension of n; less than 1 if none fits."""
    extent = dilation * (kernel_size - 1) + 1
    count = (n + 2 * padding - extent + (stride - 1 if ceil else 0)) // stride + 1
    if ceil and (count - 1) * stride >= n + padding:
        count -= 1  # the last one would begin in the padding
    start = np.arange(max(count, 0)) * stride - padding
    first = np.where(start < 0, start + -(start // dilation) * dilation, start)
    return kernel.windows(first, np.minimum(start + extent, n), dilation, n)
