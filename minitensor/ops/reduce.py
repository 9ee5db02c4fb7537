"""Reductions: from a tensor of shape (*) to one without the dimensions `dim`.

`dim` is a dimension, several, or None for all. `keepdim` keeps them with length 1. NumPy's names
`axis` and `keepdims` are understood too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..core import Op, Tensor
from ..dtype import FLOATING, as_dtype, int64
from .checks import Dims, axes_of, check_floating, check_length, numpy_names
from .convert import cast
from .places import reduced
from .samples import Rand, Samples

# On small arrays quicker than their methods.
_add: Any = np.add.reduce
most: Any = np.maximum.reduce
least: Any = np.minimum.reduce
_BLOCK = 64  # rows that are added one after the other


def expand_reduced(y: Tensor, shape: tuple[int, ...], axes: tuple[int, ...]) -> Tensor:
    """Expand a reduced tensor, or its gradient, back to `shape`."""
    kept = tuple(1 if i in axes else n for i, n in enumerate(shape))
    return (y if y._array.shape == kept else y.reshape(kept)).expand(shape)


def count_of(shape: tuple[int, ...], axes: tuple[int, ...]) -> int:
    """Return the number of elements that are reduced to one."""
    return math.prod([shape[i] for i in axes])


def add_up(x: np.ndarray, axes: tuple[int, ...], keepdim: bool = False) -> np.ndarray:
    """Return the sum over `axes`, with a rounding error that grows slowly with their length.

    NumPy sums pairwise along the last dimension but one by one along the others, which are summed
    in blocks here.
    """
    last = axes[-1] if axes else -1
    if x.size <= _BLOCK or last == x.ndim - 1 or last - axes[0] >= len(axes):
        return _add(x, axes, x.dtype, keepdims=keepdim)
    count = count_of(x.shape, axes)
    if count <= _BLOCK or not x.flags.c_contiguous:
        return _add(x, axes, x.dtype, keepdims=keepdim)
    shape = [1 if i in axes else n for i, n in enumerate(x.shape) if keepdim or i not in axes]
    rows = x.reshape(math.prod(x.shape[: axes[0]]), count, -1)
    while count > _BLOCK:
        whole = count - count % _BLOCK
        blocks = rows[:, :whole].reshape(len(rows), -1, _BLOCK, rows.shape[2])
        sums = _add(blocks, 2, x.dtype)
        rows = np.concatenate([sums, rows[:, whole:]], 1) if whole < count else sums
        count = rows.shape[1]
    return _add(rows, 1, x.dtype).reshape(shape)


def average(x: np.ndarray, axes: tuple[int, ...], keepdim: bool = False) -> np.ndarray:
    """Return the mean over `axes`; NaN for no elements."""
    return np.true_divide(add_up(x, axes, keepdim), count_of(x.shape, axes), dtype=x.dtype)


class Sum(Op):
    """y = the sum over `dim`: (*) -> (*) without them.  dx = dy, expanded.

    In the type `dtype`; without it bool and integers are added in int64.
    """

    out = "dtype"

    @staticmethod
    @numpy_names
    def call(
        input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None
    ) -> Tensor:
        axes = axes_of("sum", input, dim)
        if dtype is not None:
            input = cast(input, as_dtype(dtype))
        elif input._array.dtype.kind not in FLOATING:
            input = cast(input, int64)
        return Sum.apply(input, axes, keepdim)

    def forward(ctx, x: np.ndarray, axes: tuple[int, ...], keepdim: bool) -> np.ndarray:
        ctx.save(x.shape, axes)
        return add_up(x, axes, keepdim)

    @staticmethod
    def cell(x: np.ndarray, axes: tuple[int, ...], keepdim: bool) -> str:
        return f"sum({reduced('x', x.ndim, axes, keepdim)})"

    def backward(ctx, dy: Tensor) -> Tensor:
        return expand_reduced(dy, *ctx.saved)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield (rand(2, 3),)
        yield rand(2, 3), 1
        yield rand(2, 3, 4), (0, -1)
        yield rand(2, 3, 4), [1], True
        yield rand(2, 3), dict(dim=-2, keepdim=True)
        yield rand(2, 3), dict(axis=0, keepdims=True)
        yield rand(), 0
        yield rand(0, 3), 0
        yield (rand.bools(5),)
        yield rand.integers(0, 200, 2, 3, dtype=np.uint8), 1
        yield rand(2, 3), None, True
        yield rand(3), dict(dtype=np.dtype(np.float64))
        yield rand.constant(2, 200, 3), 1
        yield rand.constant(5, 30, 3), (0, 1), True

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 3), 2
        yield rand(2, 3), (0, 0)
        yield rand(2, 3), 0.5


class Mean(Op):
    """y = the mean over `dim`: (*) -> (*) without them.  dx = dy / n, expanded.

    RuntimeError for integers, unless `dtype` makes them floats.
    """

    out = "dtype"

    @staticmethod
    @numpy_names
    def call(
        input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None
    ) -> Tensor:
        if dtype is not None:
            input = cast(input, as_dtype(dtype))
        check_floating("mean", input, RuntimeError)
        return Mean.apply(input, axes_of("mean", input, dim), keepdim)

    def forward(ctx, x: np.ndarray, axes: tuple[int, ...], keepdim: bool) -> np.ndarray:
        ctx.save(x.shape, axes)
        return average(x, axes, keepdim)

    @staticmethod
    def cell(x: np.ndarray, axes: tuple[int, ...], keepdim: bool) -> str:
        return f"mean({reduced('x', x.ndim, axes, keepdim)})"

    def backward(ctx, dy: Tensor) -> Tensor:
        shape, axes = ctx.saved
        return expand_reduced(dy, shape, axes) / float(count_of(shape, axes))

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield (rand(2, 3),)
        yield rand(2, 3), 1
        yield rand(2, 3, 4), (0, -1)
        yield rand(2, 3, 4), [1], True
        yield rand(), 0
        yield rand.constant(0, 3), 0
        yield rand.integers(0, 5, 3), dict(dtype=np.dtype(np.float32))

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 3), 2
        yield (rand.integers(0, 5, 3),)


# The largest and the smallest


def share_among_ties(dy: Tensor, x: Tensor, y: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return the gradient of x for a y chosen from it: dy there, shared evenly by ties."""
    shape = x._array.shape
    chosen = cast(x == expand_reduced(y, shape, axes), dy._array.dtype)
    return chosen * (expand_reduced(dy, shape, axes) / chosen.sum(axes, keepdim=True))


def check_extremes(op: str, x: Tensor, axes: tuple[int, ...], whole: bool) -> None:
    """Raise PyTorch's error where there is no extreme over `axes`, all of them if `whole`."""
    if x._array.size:
        return
    if whole:
        raise RuntimeError(f"{op}: no elements in shape {tuple(x.shape)}")
    for axis in axes:
        check_length(op, x, axis)


class _Extreme(Op, abstract=True):
    """The largest or smallest value over `dim`."""

    out = "same"

    @classmethod
    def default_call(cls) -> Callable[..., Any]:
        op_name, apply = cls.op_name, cls.apply

        @numpy_names
        def call(input: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
            axes = axes_of(op_name, input, dim)
            check_extremes(op_name, input, axes, dim in (None, (), []))
            return apply(input, axes, keepdim)

        return call

    def backward(ctx, dy: Tensor) -> Tensor:
        x, y, axes = ctx.saved
        return share_among_ties(dy, x, y, axes)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield (rand.distinct(2, 3),)
        yield rand.distinct(2, 3), 1
        yield rand.distinct(2, 3, 4), (0, -1), True
        yield rand.integers(0, 9, 2, 3), 0
        yield rand.bools(2, 3), 1
        yield (rand(),)
        yield rand.constant(0, 3), 1

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 3), 2
        yield rand(0, 3), 0


class Amax(_Extreme):
    """y = the largest over `dim`: (*) -> (*) without them.  dx = dy there, shared by equals."""

    def forward(ctx, x: np.ndarray, axes: tuple[int, ...], keepdim: bool) -> np.ndarray:
        y = np.asarray(most(x, axes, keepdims=keepdim))
        ctx.save(x, y, axes)
        return y

    @staticmethod
    def cell(x: np.ndarray, axes: tuple[int, ...], keepdim: bool) -> str:
        return f"max({reduced('x', x.ndim, axes, keepdim)})"


class Amin(_Extreme):
    """y = the smallest over `dim`: (*) -> (*) without them.  dx = dy there, shared by equals."""

    def forward(ctx, x: np.ndarray, axes: tuple[int, ...], keepdim: bool) -> np.ndarray:
        y = np.asarray(least(x, axes, keepdims=keepdim))
        ctx.save(x, y, axes)
        return y

    @staticmethod
    def cell(x: np.ndarray, axes: tuple[int, ...], keepdim: bool) -> str:
        return f"min({reduced('x', x.ndim, axes, keepdim)})"
