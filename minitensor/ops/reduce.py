"""Reductions: from a tensor of shape (*) to one without, or with length 1 in, the dimensions `dim`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd import Op
from ..dtype import as_dtype
from ..tensor import Tensor
from .convert import Samples, cast

Dims = int | tuple[int, ...] | list[int] | None


def axes_of(name: str, x: Tensor, dim: Any) -> tuple[int, ...]:
    """The dimensions `dim` names, counted from 0, in order; all for None or ().

    IndexError for one that is not there, RuntimeError for one named twice.
    """
    ndim = x._array.ndim
    if dim is None:
        return tuple(range(ndim))
    if isinstance(dim, int):
        return (axis_of(name, x, dim),)[:ndim]
    if not isinstance(dim, tuple | list):
        raise TypeError(f"{name}: dim must be an int or a tuple of ints, got {type(dim).__name__}")
    if not dim:
        return tuple(range(ndim))
    axes = sorted(axis_of(name, x, d) for d in dim)
    for a, b in zip(axes, axes[1:], strict=False):
        if a == b:
            raise RuntimeError(f"{name}: dim {a} appears multiple times in the list of dims")
    return tuple(axes) if ndim else ()


def axis_of(name: str, x: Tensor, dim: Any) -> int:
    """The dimension `dim` counted from 0; IndexError if it is not there. A 0-dim tensor has one, 0."""
    ndim = max(x._array.ndim, 1)
    try:
        dim = dim.__index__()
    except AttributeError:
        raise TypeError(f"{name}: dim must be an int, got {type(dim).__name__}") from None
    if not -ndim <= dim < ndim:
        raise IndexError(
            f"{name}: dimension {dim} is out of range for shape {tuple(x.shape)} "
            f"(expected {-ndim} to {ndim - 1})"
        )
    return dim % ndim


def kept(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    """`shape` with length 1 in `axes`."""
    return tuple(1 if i in axes else n for i, n in enumerate(shape))


def spread(y: Tensor, shape: tuple[int, ...], axes: tuple[int, ...]) -> Tensor:
    """A reduced tensor, or its gradient, expanded back to `shape`."""
    return y.reshape(kept(shape, axes)).expand(shape)


def accumulating(x: Tensor, dtype: Any) -> Tensor:
    """`x` in the type its sum has: `dtype`, or int64 for bool and integers."""
    if dtype is not None:
        return cast(x, as_dtype(dtype))
    return x if x._array.dtype.kind == "f" else cast(x, np.dtype(np.int64))


class Sum(Op):
    """y = the sum over `dim`: (*) -> (*) without them.  dx = dy, expanded."""

    @staticmethod
    def call(
        input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None
    ) -> Tensor:
        input = accumulating(input, dtype)
        return Sum.apply(input, axes_of("sum", input, dim), keepdim)

    def forward(ctx, x: np.ndarray, axes: tuple[int, ...], keepdim: bool) -> Any:
        ctx.save(x.shape, axes)
        return x.sum(axes, keepdims=keepdim)

    def backward(ctx, dy: Tensor) -> Tensor:
        return spread(dy, *ctx.saved)

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield (rand(2, 3),)
        yield rand(2, 3), 1
        yield rand(2, 3, 4), (0, -1)
        yield rand(2, 3, 4), [1], True
        yield rand(2, 3), dict(dim=-2, keepdim=True)
        yield rand(), 0
        yield rand(0, 3), 0
        yield (rand.bools(5),)
        yield rand.integers(0, 200, 2, 3, dtype=np.uint8), 1
        yield rand(2, 3), None, True
        yield rand(3), dict(dtype=np.dtype(np.float64))

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand(2, 3), 2
        yield rand(2, 3), (0, 0)
        yield rand(2, 3), 0.5


class Mean(Op):
    """y = the mean over `dim`: (*) -> (*) without them.  dx = dy / n, expanded. RuntimeError for integers."""

    @staticmethod
    def call(
        input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None
    ) -> Tensor:
        if dtype is not None:
            input = cast(input, as_dtype(dtype))
        if input._array.dtype.kind != "f":
            raise RuntimeError(
                f"mean: the input must be of a floating point type, got {input._array.dtype}: "
                "use .float() or dtype="
            )
        return Mean.apply(input, axes_of("mean", input, dim), keepdim)

    def forward(ctx, x: np.ndarray, axes: tuple[int, ...], keepdim: bool) -> Any:
        ctx.save(x.shape, axes)
        total = x.sum(axes, keepdims=keepdim)
        return total / total.dtype.type(x.size / total.size if total.size else 1)

    def backward(ctx, dy: Tensor) -> Tensor:
        shape, axes = ctx.saved
        count = int(np.prod([shape[i] for i in axes], dtype=np.int64))
        return spread(dy / float(count), shape, axes)

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield (rand(2, 3),)
        yield rand(2, 3), 1
        yield rand(2, 3, 4), (0, -1)
        yield rand(2, 3, 4), [1], True
        yield rand(), 0
        yield rand.integers(0, 5, 3), dict(dtype=np.dtype(np.float32))

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand(2, 3), 2
        yield (rand.integers(0, 5, 3),)


class _Extreme(Op, abstract=True):
    """The largest or smallest value over `dim`."""

    def backward(ctx, dy: Tensor) -> Tensor:
        x, y, axes = ctx.saved
        best = cast(x == spread(y, x._array.shape, axes), dy._array.dtype)
        count = best.sum(axes, keepdim=True)
        return best * (spread(dy, x._array.shape, axes) / count)

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield (rand.distinct(2, 3),)
        yield rand.distinct(2, 3), 1
        yield rand.distinct(2, 3, 4), (0, -1), True
        yield rand.integers(0, 9, 2, 3), 0
        yield (rand(),)

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand(2, 3), 2
        yield rand(0, 3), 0


def _check_not_empty(name: str, x: Tensor, axes: tuple[int, ...]) -> None:
    for axis in axes:
        if x._array.ndim and x._array.shape[axis] == 0:
            raise IndexError(f"{name}: dimension {axis} to reduce has length 0: {tuple(x.shape)}")


class Amax(_Extreme):
    """y = the largest over `dim`: (*) -> (*) without them.  dx = dy at the largest, shared evenly if several."""

    @staticmethod
    def call(input: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
        axes = axes_of("amax", input, dim)
        _check_not_empty("amax", input, axes)
        return Amax.apply(input, axes, keepdim)

    def forward(ctx, x: np.ndarray, axes: tuple[int, ...], keepdim: bool) -> Any:
        y = x.max(axes, keepdims=keepdim)
        ctx.save(x, y, axes)
        return y


class Amin(_Extreme):
    """y = the smallest over `dim`: (*) -> (*) without them.  dx = dy at the smallest, shared evenly if several."""

    @staticmethod
    def call(input: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
        axes = axes_of("amin", input, dim)
        _check_not_empty("amin", input, axes)
        return Amin.apply(input, axes, keepdim)

    def forward(ctx, x: np.ndarray, axes: tuple[int, ...], keepdim: bool) -> Any:
        y = x.min(axes, keepdims=keepdim)
        ctx.save(x, y, axes)
        return y
