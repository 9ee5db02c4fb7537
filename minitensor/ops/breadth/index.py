"""Elements chosen by a mask, and the indices of those that are not zero."""

from __future__ import annotations

import math
from typing import Literal, overload

import numpy as np

from ... import memory
from ...core import Op, Tensor, wrap
from ..checks import check_tensors
from ..composite import composite
from ..gather import as_row
from ..index import Index, IndexSum, PutItem
from ..places import at, places, unraveled
from ..samples import Rand, Samples
from .repeat import broadcast_tensors


@composite(
    out="same",
    samples=lambda rand: [
        (rand(3, 4), rand.bools(3, 4)),
        (rand(3, 1), rand.bools(4)),
        (rand(), rand.bools(3)),
    ],
    errors=lambda rand: [(rand(3, 4), rand(3, 4)), (rand(3, 4), rand.bools(3))],
)
def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """Return the elements where `mask` (broadcast) is True, in one dimension: (*), (*) -> (n)."""
    if mask._array.dtype.kind != "b":
        raise RuntimeError(f"masked_select: expected BoolTensor for mask, got {mask.dtype}")
    if input._array.shape != mask._array.shape:
        input, mask = broadcast_tensors(input, mask)
    if input._array.ndim == 0:
        input, mask = input.reshape(1), mask.reshape(1)
    return Index.apply(input, mask)


class MaskedScatter(Op):
    """y = x with the first elements of `source`, in order, where `mask` is True.

    (*), (*), (n) -> (*): x and mask broadcast, n at least the number of True.  dx = dy, 0 where
    replaced; dsource = dy there.
    """

    inplace = True
    one_type = True

    @staticmethod
    def call(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
        check_tensors("masked_scatter", input=input, mask=mask, source=source)
        if mask._array.dtype.kind != "b":
            raise RuntimeError(f"masked_scatter: expected BoolTensor for mask, got {mask.dtype}")
        if source._array.dtype != input._array.dtype:
            raise RuntimeError(
                "masked_scatter: expected self and source to have same dtypes but got "
                f"{input.dtype} and {source.dtype}"
            )
        if input._array.shape != mask._array.shape:
            input, mask = broadcast_tensors(input, mask)
        return MaskedScatter.apply(input, mask, source)

    def forward(ctx, x: np.ndarray, mask: np.ndarray, source: np.ndarray) -> np.ndarray:
        count = int(np.count_nonzero(mask))
        if count > source.size:
            raise RuntimeError(f"the mask has {count} True, the source {source.size} elements")
        ctx.save(mask, source.shape, count)
        y = memory.empty_like(x)
        y[...] = x
        y[mask] = source.reshape(-1)[:count]
        return y

    @staticmethod
    def cell(x: np.ndarray, mask: np.ndarray, source: np.ndarray) -> str:
        return f"{at('source', unraveled('place', source.shape))} if place >= 0 else x"

    @staticmethod
    def hidden(x: np.ndarray, mask: np.ndarray, source: np.ndarray) -> dict[str, np.ndarray]:
        return {"place": mask.cumsum().reshape(mask.shape) * mask - 1}

    def backward(ctx, dy: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        mask, shape, count = ctx.saved
        to_x, _, to_source = ctx.needs_input_grad
        dx = dy.masked_fill(mask, 0.0) if to_x else None
        if not to_source:
            return dx, None, None
        picked, key = Index.apply(as_row(dy), as_row(mask)), (slice(count),)
        return dx, None, PutItem.apply(picked, shape=(math.prod(shape),), key=key).reshape(shape)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(3, 4), rand.bools(3, 4), rand(12)
        yield rand(3, 4), rand.bools(4), rand(4, 3)
        yield rand(4), rand.bools(3, 1), rand(12)
        yield rand(), rand.bools(), rand(2)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(3), rand(3), rand(3)
        yield rand(3), rand.bools(3, p=1.0), rand(2)
        yield rand(3), rand.bools(3), rand.integers(0, 3, 3)
        yield rand(3), rand.bools(4), rand(4)


class Take(Op):
    """y = the elements of x, seen as one row, at `index`: (*), (index) -> (index).

    dx = dy, added at the indices.
    """

    out = "same"

    @staticmethod
    def call(input: Tensor, index: Tensor) -> Tensor:
        check_tensors("take", input=input, index=index)
        if index._array.dtype != np.int64:
            raise RuntimeError(f"take: expected a long tensor for index, but got {index.dtype}")
        return Take.apply(input, index)

    def forward(ctx, x: np.ndarray, index: np.ndarray) -> np.ndarray:
        ctx.save(index, x.shape)
        return x.take(index)

    @staticmethod
    def cell(x: np.ndarray, index: np.ndarray) -> str:
        place = at("index", places(index.ndim))
        return at("x", unraveled(f"{place} % {x.size}", x.shape))

    def backward(ctx, dy: Tensor) -> Tensor:
        index, shape = ctx.saved
        return IndexSum.apply(dy, index, shape=(math.prod(shape),)).reshape(shape)

    @staticmethod
    def decomposition(x: Tensor, index: Tensor) -> Tensor:
        return Index.apply(x.reshape(-1), index)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(3, 4), rand.integers(-12, 12, 2, 3)
        yield rand(3), rand.integers(0, 3)
        yield rand(), rand.integers(0, 1, 2)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(3), rand.integers(3, 5, 2)
        yield rand(3), rand.integers(0, 3, 2, dtype=np.int32)


@overload
def nonzero(input: Tensor, *, as_tuple: Literal[False] = False) -> Tensor: ...
@overload
def nonzero(input: Tensor, *, as_tuple: Literal[True]) -> tuple[Tensor, ...]: ...
@composite(
    out="same",
    samples=lambda rand: [
        (rand.bools(3, 4),),
        (rand.integers(0, 2, 3, 4), dict(as_tuple=True)),
        (rand.bools(),),
        (rand.integers(0, 2), dict(as_tuple=True)),
    ],
)
def nonzero(input: Tensor, *, as_tuple: bool = False) -> Tensor | tuple[Tensor, ...]:
    """Return the indices of nonzero elements: (*) -> (n, dims), or a vector for each dimension."""
    array = input._array
    if as_tuple:
        return tuple(wrap(i) for i in np.atleast_1d(array).nonzero())
    if array.ndim == 0:
        return wrap(np.zeros((int(array != 0), 0), np.int64))
    return wrap(np.argwhere(array))


@composite(samples=lambda rand: [(rand.bools(3, 4),)])
def argwhere(input: Tensor) -> Tensor:
    """Return the indices of the elements that are not zero: (*) -> (n, dims)."""
    return nonzero(input)
