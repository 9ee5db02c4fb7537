"""Concatenation of tensors, and its inverse: each is the derivative of the other."""

from __future__ import annotations

from operator import index as as_int
from typing import Any

import numpy as np

from .. import memory
from ..core import Op, Tensor
from ..dtype import result_dtype
from .checks import SEQUENCE, ints, normal_dim
from .composite import composite
from .samples import Rand, Samples, strided


def _tensors(op: str, tensors: Any) -> tuple[Tensor, ...]:
    """Return the tensors of a list; TypeError for anything else."""
    if not isinstance(tensors, SEQUENCE):
        raise TypeError(f"{op}: expected a tuple or list of tensors, got {type(tensors).__name__}")
    for i, t in enumerate(tensors):
        if not isinstance(t, Tensor):
            raise TypeError(f"{op}: expected Tensor as element {i}, but got {type(t).__name__}")
    return tuple(tensors)


class Cat(Op):
    """y = the tensors one after the other along `dim`: (a, *), (b, *) -> (a + b, *) for dim 0.

    In their common type. The gradients are the parts of dy.
    """

    out = "cast"
    aliases = ("concat", "concatenate")
    namespaces = "torch"
    moves = ("xs",)

    @staticmethod
    def call(tensors: Any, dim: int = 0, *, axis: int | None = None) -> Tensor:
        found = _tensors("cat", tensors)
        if not found:
            raise ValueError("cat: expected a non-empty list of tensors")
        if len({t._array.ndim for t in found}) > 1:  # an empty vector goes with everything
            found = tuple(t for t in found if t._array.shape != (0,))
        return Cat.apply(*found, dim=dim if axis is None else axis)

    def forward(ctx, *xs: np.ndarray, dim: int) -> np.ndarray:
        first = xs[0]
        ndim, dtype = first.ndim, first.dtype
        if ndim == 0:
            raise RuntimeError("zero-dimensional tensors cannot be concatenated: use stack")
        dim = normal_dim(dim, ndim)
        sizes = []
        for x in xs:
            if x.ndim != ndim:
                raise RuntimeError(
                    f"Tensors must have same number of dimensions: got {ndim} and {x.ndim}"
                )
            if x.dtype != dtype:
                dtype = result_dtype(*xs)
            sizes.append(x.shape[dim])
        ctx.save(tuple(sizes), dim)
        shape = (*first.shape[:dim], sum(sizes), *first.shape[dim + 1 :])
        try:
            return np.concatenate(xs, dim, out=memory.empty(shape, dtype), casting="unsafe")
        except ValueError:
            raise RuntimeError(
                f"Sizes of tensors must match except in dimension {dim}: got "
                f"{', '.join(str(tuple(x.shape)) for x in xs)}"
            ) from None

    def backward(ctx, dy: Tensor) -> tuple[Tensor, ...]:
        sizes, dim = ctx.saved
        parts: tuple[Tensor, ...] = SplitWithSizes.apply(dy, sizes=sizes, dim=dim)
        return parts

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield ([rand(2, 3), rand(1, 3)],)
        yield [rand(2, 3), rand(2, 1), rand(2, 0)], 1
        yield [rand(2, 3), strided(rand(2, 2))], -1
        yield ([rand(2, 3), rand.constant(0)],)
        yield ([rand(3), rand.integers(0, 5, 2)],)
        yield ([rand.integers(0, 5, 2), rand.bools(2)],)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield ([],)
        yield (rand(2, 3),)
        yield ([rand(2, 3), rand(2, 2)],)
        yield ([rand(2, 3), rand(3)],)
        yield ([rand(), rand()],)
        yield [rand(2, 3), rand(2, 3)], 2
        yield ([rand(2), 1.0],)


class Stack(Op):
    """y = tensors of one shape along a new dimension `dim`: n of (*) -> (n, *) for dim 0.

    The gradients are the slices of dy.
    """

    out = "cast"
    namespaces = "torch"
    moves = ("xs",)

    @staticmethod
    def call(tensors: Any, dim: int = 0) -> Tensor:
        found = _tensors("stack", tensors)
        if not found:
            raise RuntimeError("stack: expects a non-empty list of tensors")
        return Stack.apply(*found, dim=dim)

    def forward(ctx, *xs: np.ndarray, dim: int) -> np.ndarray:
        first = xs[0]
        dim = normal_dim(dim, first.ndim + 1)
        for i, x in enumerate(xs):
            if x.shape != first.shape:
                raise RuntimeError(
                    f"expects each tensor to be equal size, but got {tuple(first.shape)} at "
                    f"entry 0 and {tuple(x.shape)} at entry {i}"
                )
        ctx.save(dim)
        dtype = first.dtype
        if any(x.dtype != dtype for x in xs):
            dtype = result_dtype(*xs)
        out = memory.empty((*first.shape[:dim], len(xs), *first.shape[dim:]), dtype)
        key = (*(slice(None),) * dim, None)
        return np.concatenate([x[key] for x in xs], dim, out=out, casting="unsafe")

    def backward(ctx, dy: Tensor) -> tuple[Tensor, ...]:
        parts: tuple[Tensor, ...] = Unbind.apply(dy, *ctx.saved)
        return parts

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield ([rand(2, 3), rand(2, 3)],)
        yield [rand(2, 3), rand(2, 3)], 1
        yield [rand(2, 3), strided(rand(3, 2))], -1
        yield ([rand(), rand(), rand.integers(0, 5)],)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield ([],)
        yield ([rand(2), rand(3)],)
        yield [rand(2), rand(2)], 2


class SplitWithSizes(Op):
    """Consecutive parts along `dim`: (a + b, *) -> (a, *), (b, *) for `split_sizes` a, b and dim 0.

    dx = cat(dys).
    """

    view = True
    moves = ("x",)

    @staticmethod
    def call(input: Tensor, split_sizes: Any, dim: int = 0) -> tuple[Tensor, ...]:
        return SplitWithSizes.apply(input, sizes=ints(tuple(split_sizes)), dim=dim)

    def forward(ctx, x: np.ndarray, *, sizes: tuple[int, ...], dim: int) -> tuple[np.ndarray, ...]:
        if x.ndim == 0:
            raise RuntimeError("expects at least a 1-dimensional tensor")
        dim = normal_dim(dim, x.ndim)
        if min(sizes, default=0) < 0 or sum(sizes) != x.shape[dim]:
            raise RuntimeError(
                f"split_with_sizes expects split_sizes to sum exactly to {x.shape[dim]} (input "
                f"tensor's size at dimension {dim}), but got split_sizes={list(sizes)}"
            )
        ctx.save(dim)
        before, start, parts = (slice(None),) * dim, 0, []
        for n in sizes:
            parts.append(x[(*before, slice(start, start + n))])
            start += n
        return tuple(parts)

    def backward(ctx, *dys: Tensor) -> Tensor:
        return Cat.apply(*dys, dim=ctx.saved[0])

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(5, 2), (2, 3)
        yield rand(2, 5), (0, 2, 3), -1

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(5), (2, 2)
        yield rand(5), (6, -1)
        yield rand(5), (5,), 1


class Unbind(Op):
    """The slices along `dim`, without it: (a, b) -> a tensors (b) for dim 0.  dx = stack(dys)."""

    view = True
    moves = ("x",)

    @staticmethod
    def call(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
        return Unbind.apply(input, dim)

    def forward(ctx, x: np.ndarray, dim: int) -> tuple[np.ndarray, ...]:
        if x.ndim == 0:
            raise IndexError(f"Dimension specified as {dim} but tensor has no dimensions")
        dim = normal_dim(dim, x.ndim)
        ctx.save(dim)
        before: tuple[Any, ...] = (slice(None),) * dim
        return tuple(x[(*before, i, ...)] for i in range(x.shape[dim]))

    def backward(ctx, *dys: Tensor) -> Tensor:
        return Stack.apply(*dys, dim=ctx.saved[0])

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield (rand(2, 3),)
        yield rand(2, 3), -1
        yield (rand(3),)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield (rand(),)
        yield rand(2), 1


@composite(
    samples=lambda rand: [
        (rand(5, 2), 2),
        (rand(2, 4), 2, 1),
        (rand(2, 4), [1, 3], -1),
        (rand(0, 2), 0),
        (rand(0, 2), 3),
    ],
    errors=lambda rand: [(rand(5), 0), (rand(5), -1), (rand(5), 2, 1), (rand(), 2)],
)
def split(tensor: Tensor, split_size_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Parts of one length along `dim`, the last may be shorter, or of the lengths in a list."""
    if isinstance(split_size_or_sections, SEQUENCE):
        return SplitWithSizes.call(tensor, split_size_or_sections, dim)
    shape = tensor._array.shape
    if not shape:
        raise RuntimeError("split: expects at least a 1-dimensional tensor")
    size, total = as_int(split_size_or_sections), shape[normal_dim(dim, len(shape))]
    if size < 0 or (size == 0 and total):
        raise RuntimeError(
            f"split: expects a positive split_size, got {size} for a dimension of size {total}"
        )
    whole, rest = divmod(total, size) if size else (0, 0)
    sizes = (size,) * whole + ((rest,) if rest or not whole else ())
    return SplitWithSizes.apply(tensor, sizes=sizes, dim=dim)


@composite(
    samples=lambda rand: [(rand(2, 6), 3, -1), (rand(5), 4), (rand(0, 2), 3)],
    errors=lambda rand: [(rand(5), 0), (rand(), 2)],
)
def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most `chunks` parts along `dim`, all of one length, the last may be shorter."""
    shape = input._array.shape
    if not shape:
        raise RuntimeError("chunk: expects at least a 1-dimensional tensor")
    if chunks < 1:
        raise RuntimeError(f"chunk: expects `chunks` to be greater than 0, got: {chunks}")
    total = shape[normal_dim(dim, len(shape))]
    if total == 0:
        return SplitWithSizes.apply(input, sizes=(0,) * chunks, dim=dim)
    return split(input, -(-total // chunks), dim)
