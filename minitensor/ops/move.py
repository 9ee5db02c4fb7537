"""Copies, whole or of the triangles of matrices."""

from __future__ import annotations

import functools
from collections.abc import Callable
from operator import index as as_int
from typing import Any

import numpy as np

from .. import memory
from ..core import Op, Tensor
from .composite import composite
from .samples import Rand, Samples, strided


class Clone(Op):
    """y = a copy of x in memory of its own, row-major: (*) -> (*).  dx = dy."""

    moves = ("x",)

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
    def samples(rand: Rand) -> Samples:
        yield (rand(2, 3),)
        yield (rand(),)


@composite(namespaces="tensor", samples=lambda rand: [(rand(2, 3),), (strided(rand(2, 3)),)])
def contiguous(input: Tensor, *, memory_format: Any = None) -> Tensor:
    """y = x itself if it is row-major without gaps, else a copy: (*) -> (*).  dx = dy."""
    return input if input._array.flags.c_contiguous else Clone.apply(input)


_FEW = 4096  # numbers; the masks of smaller matrices are kept


@functools.lru_cache(maxsize=256)
def _triangle(part: Any, rows: int, cols: int, diagonal: int) -> np.ndarray:
    """Return True where `part` leaves the numbers of a matrix."""
    mask: np.ndarray = part(np.ones((rows, cols), np.bool_), diagonal)
    return mask


class _Triangle(Op, abstract=True):
    """The part of each matrix on one side of a diagonal, zeros on the other."""

    out = "same"
    inplace = True
    moves = ("x",)

    @classmethod
    def default_call(cls) -> Callable[..., Any]:
        apply = cls.apply

        def call(input: Tensor, diagonal: int = 0) -> Tensor:
            return apply(input, diagonal)

        return call

    def keep(ctx, part: Any, x: np.ndarray, diagonal: int) -> np.ndarray:
        """Return the part that `np.tril` or `np.triu` leaves."""
        if x.ndim < 2:
            raise RuntimeError("input tensor must have at least 2 dimensions")
        ctx.save(diagonal)
        if x.size > _FEW:
            kept: np.ndarray = part(x, as_int(diagonal))
            return kept
        mask = _triangle(part, x.shape[-2], x.shape[-1], as_int(diagonal))
        return np.where(mask, x, np.zeros((), x.dtype))

    def backward(ctx, dy: Tensor) -> Tensor:
        return type(ctx).apply(dy, *ctx.saved)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield (rand(3, 4),)
        yield rand(2, 3, 3), -1
        yield rand(2, 3, 3), 1
        yield (rand.bools(3, 3),)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield (rand(3),)


class Tril(_Triangle):
    """y = matrices with zeros above diagonal number `diagonal`: (*, a, b) -> (*, a, b).

    dx = tril(dy).
    """

    def forward(ctx, x: np.ndarray, diagonal: int) -> np.ndarray:
        return ctx.keep(np.tril, x, diagonal)


class Triu(_Triangle):
    """y = matrices with zeros below diagonal number `diagonal`: (*, a, b) -> (*, a, b).

    dx = triu(dy).
    """

    def forward(ctx, x: np.ndarray, diagonal: int) -> np.ndarray:
        return ctx.keep(np.triu, x, diagonal)
