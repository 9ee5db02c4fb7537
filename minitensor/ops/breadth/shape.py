"""Shapes taken from another tensor or summed to, rows, NumPy's `swapaxes`, strides of one's own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...core import Op, Tensor, wrap
from ..checks import ints
from ..composite import composite, register
from ..index import IndexSum
from ..samples import Rand, Samples
from ..shape import Reshape, Transpose, View


@composite(namespaces="tensor", samples=lambda rand: [(rand(2, 3), rand.constant(6))])
def view_as(input: Tensor, other: Tensor) -> Tensor:
    """`view` in the shape of `other`: (*), (o) -> (o)."""
    return View.apply(input, shape=other._array.shape)


@composite(namespaces="tensor", samples=lambda rand: [(rand(2, 3), rand.constant(6))])
def reshape_as(input: Tensor, other: Tensor) -> Tensor:
    """`reshape` to the shape of `other`: (*), (o) -> (o)."""
    return Reshape.apply(input, shape=other._array.shape)


@composite(samples=lambda rand: [(rand(2, 3),), (rand(0, 3),)])
def ravel(input: Tensor) -> Tensor:
    """Return all elements in one dimension: (*) -> (n)."""
    return Reshape.apply(input, shape=(-1,) if input._array.size else (0,))


@register
def swapaxes(input: Tensor, axis0: int, axis1: int) -> Tensor:
    """`transpose` by NumPy's names: dimensions `axis0` and `axis1` swapped."""
    return Transpose.apply(input, axis0, axis1)


@composite(
    namespaces="tensor",
    samples=lambda rand: [(rand(2, 3), 3), (rand(2, 3), 2, 1), (rand(2, 3), ()), (rand(3), (3,))],
    errors=lambda rand: [(rand(2, 3), 2), (rand(3), 1, 3, 3)],
)
def sum_to_size(input: Tensor, *size: Any) -> Tensor:
    """y = x summed to a shape that broadcasts to its own, as a gradient is: (*) -> `size`."""
    shape, have = ints(size), input._array.shape
    extra = len(have) - len(shape)
    if extra < 0 or any(n not in (1, m) for n, m in zip(shape, have[extra:], strict=True)):
        raise RuntimeError(f"sum_to_size: {shape} does not broadcast to {tuple(have)}")
    dims = [d for d, n in enumerate(have) if d < extra or shape[d - extra] != n]
    if not dims:
        return input
    y = input.sum(dims, keepdim=extra == 0)
    return y if y._array.shape == shape else y.reshape(shape)


class AsStrided(Op):
    """y = the memory of x with other lengths and strides, in elements: (*) -> `size`.

    Places may be shown more than once: the gradient of each is the sum. RuntimeError for places
    outside of the memory, and for gradients of an x that is not contiguous.
    """

    view = True
    moves = ("x",)

    @staticmethod
    def call(
        input: Tensor,
        size: Sequence[int],
        stride: Sequence[int],
        storage_offset: int | None = None,
    ) -> Tensor:
        if len(size) != len(stride):
            raise RuntimeError("as_strided: mismatch in length of strides and shape")
        skip = 0 if storage_offset is None else storage_offset - input.storage_offset()
        if not input.is_contiguous() and input.requires_grad:
            raise RuntimeError("as_strided: has a gradient for contiguous tensors alone")
        return AsStrided.apply(input, size=tuple(size), stride=tuple(stride), skip=skip)

    def forward(
        ctx, x: np.ndarray, *, size: tuple[int, ...], stride: tuple[int, ...], skip: int
    ) -> np.ndarray:
        last = skip + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
        steps = zip(x.shape, x.strides, strict=True)
        used = 1 + sum((n - 1) * s // x.itemsize for n, s in steps) if x.size else 0
        if 0 not in size and not (skip >= 0 and last < used and min(stride, default=0) >= 0):
            raise RuntimeError(
                f"size {size} and stride {stride} from {skip} reach outside of {used} elements"
            )
        ctx.save(x.shape, size, stride, skip)
        strides = tuple([s * x.itemsize for s in stride])
        if x.flags.c_contiguous and x.size:  # quicker than NumPy's function
            return np.ndarray(size, x.dtype, x, skip * x.itemsize, strides)
        flat = np.lib.stride_tricks.as_strided(x, (used,), (x.itemsize,))
        return np.lib.stride_tricks.as_strided(flat[skip:], size, strides)

    def backward(ctx, dy: Tensor) -> Tensor:
        shape, size, stride, skip = ctx.saved
        places = np.full(size, skip)
        for d, (n, s) in enumerate(zip(size, stride, strict=True)):
            places += s * np.arange(n).reshape((-1,) + (1,) * (len(size) - d - 1))
        index = wrap(places.reshape(-1))
        return IndexSum.apply(dy.reshape(-1), index, shape=(math.prod(shape),)).reshape(shape)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(3, 4), (2, 3), (4, 1)
        yield rand(9), (3, 4), (2, 1), 1
        yield rand(6), (), (), 2

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(6), (2, 3), (1,)
        yield rand(6), (7,), (1,)
