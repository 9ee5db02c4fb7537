"""Copies: ops that put elements together or move them, into new memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import memory
from ..autograd import Op
from ..dtype import result_dtype
from ..tensor import Tensor
from .shape import (
    Reshape,
    Samples,
    SplitWithSizes,
    Unbind,
    normal_dim,
    strided,
)

class Clone(Op):
    """A copy in memory of its own, row-major: (*) -> (*)."""

    @staticmethod
    def call(input: Tensor, *, memory_format: Any = None) -> Tensor:
        return Clone.apply(input)

    def forward(ctx, x: np.ndarray) -> np.ndarray:
        y = memory.empty_like(x)
        y[...] = x
        return y

    def backward(ctx, dy: Tensor) -> Tensor:
        return dy

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield (rand(2, 3),)
        yield (rand(),)


class Contiguous(Op):
    """The tensor itself if it is row-major without gaps, else a copy that is."""

    spaces = "tensor"

    @staticmethod
    def call(input: Tensor, *, memory_format: Any = None) -> Tensor:
        return input if input._array.flags.c_contiguous else Clone.apply(input)

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield (rand(2, 3),)
        yield (strided(rand(2, 3)),)


def _tensors(op: str, tensors: Any) -> tuple[Tensor, ...]:
    """The tensors of a list; TypeError if it is something else."""
    if not isinstance(tensors, tuple | list):
        raise TypeError(f"{op}: expected a tuple or list of tensors, got {type(tensors).__name__}")
    for i, t in enumerate(tensors):
        if not isinstance(t, Tensor):
            raise TypeError(f"{op}: expected Tensor as element {i}, but got {type(t).__name__}")
    return tuple(tensors)


class Cat(Op):
    """The tensors one after another along `dim`, in their common type: (a, *), (b, *) -> (a + b, *)."""

    aliases = ("concat", "concatenate")
    spaces = "torch"

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
        for i, x in enumerate(xs):
            if x.ndim == 0:
                raise RuntimeError(
                    f"zero-dimensional tensor (at position {i}) cannot be concatenated"
                )
        dim = normal_dim(dim, first.ndim)
        shape = list(first.shape)
        shape[dim] = 0
        dtype = first.dtype
        for i, x in enumerate(xs):
            have = list(x.shape)
            if len(have) == len(shape):
                shape[dim] += have[dim]
                have[dim] = shape[dim]
            if have != shape:
                raise RuntimeError(
                    f"the tensors must agree in every dimension but {dim}: expected "
                    f"{tuple(first.shape)} but got {tuple(x.shape)} for tensor number {i}"
                )
            if x.dtype != dtype:
                dtype = result_dtype(*xs)
        ctx.save(tuple(x.shape[dim] for x in xs), dim)
        return np.concatenate(xs, dim, out=memory.empty(shape, dtype), casting="unsafe")

    def backward(ctx, dy: Tensor) -> tuple[Tensor, ...]:
        sizes, dim = ctx.saved
        parts: tuple[Tensor, ...] = SplitWithSizes.apply(dy, sizes=sizes, dim=dim)
        return parts

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield ([rand(2, 3), rand(1, 3)],)
        yield [rand(2, 3), rand(2, 1), rand(2, 0)], 1
        yield [rand(2, 3), strided(rand(2, 2))], -1
        yield ([rand(2, 3), rand.constant(0)],)
        yield ([rand(3), rand.integers(0, 5, 2)],)
        yield ([rand.integers(0, 5, 2), rand.bools(2)],)

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield ([],)
        yield (rand(2, 3),)
        yield ([rand(2, 3), rand(2, 2)],)
        yield ([rand(2, 3), rand(3)],)
        yield ([rand(), rand()],)
        yield [rand(2, 3), rand(2, 3)], 2
        yield ([rand(2), 1.0],)


class Stack(Op):
    """The tensors, all of one shape, along a new dimension `dim`: n of (*) -> (n, *) for dim 0."""

    spaces = "torch"

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
        shape = (*first.shape[:dim], len(xs), *first.shape[dim:])
        out = memory.empty(shape, result_dtype(*xs))
        return np.stack(xs, dim, out=out, casting="unsafe")

    def backward(ctx, dy: Tensor) -> tuple[Tensor, ...]:
        parts: tuple[Tensor, ...] = Unbind.apply(dy, *ctx.saved)
        return parts

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield ([rand(2, 3), rand(2, 3)],)
        yield [rand(2, 3), rand(2, 3)], 1
        yield [rand(2, 3), strided(rand(3, 2))], -1
        yield ([rand(), rand(), rand.integers(0, 5)],)

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield ([],)
        yield ([rand(2), rand(3)],)
        yield [rand(2), rand(2)], 2


class Hstack(Op):
    """The tensors side by side: along dim 1, or dim 0 for vectors."""

    spaces = "torch"

    @staticmethod
    def call(tensors: Any) -> Tensor:
        found = [
            t if t._array.ndim else Reshape.apply(t, shape=(1,))
            for t in _tensors("hstack", tensors)
        ]
        return Cat.call(found, 0 if found and found[0]._array.ndim == 1 else 1)

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield ([rand(2), rand(3)],)
        yield ([rand(2, 1), rand(2, 3)],)
        yield ([rand(), rand()],)


class Vstack(Op):
    """The tensors one below the other: along dim 0, vectors as rows."""

    spaces = "torch"

    @staticmethod
    def call(tensors: Any) -> Tensor:
        found = _tensors("vstack", tensors)
        return Cat.call(
            [t if t._array.ndim > 1 else Reshape.apply(t, shape=(1, -1)) for t in found]
        )

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield ([rand(3), rand(2, 3)],)
        yield ([rand(), rand()],)
