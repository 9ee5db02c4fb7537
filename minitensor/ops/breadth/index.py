"""Elements chosen by a mask, and the indices of those that are not zero."""

from __future__ import annotations

from typing import Literal, overload

import numpy as np

from ...core import Tensor, wrap
from ..composite import composite
from ..gather import as_row
from ..index import Index, IndexPut
from ..shape import shaped
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


@composite(
    inplace=True,
    samples=lambda rand: [
        (rand(3, 4), rand.bools(3, 4), rand(12)),
        (rand(3, 4), rand.bools(4), rand(4, 3)),
        (rand(4), rand.bools(3, 1), rand(12)),
        (rand(), rand.bools(), rand(2)),
    ],
    errors=lambda rand: [
        (rand(3), rand(3), rand(3)),
        (rand(3), rand.bools(3, p=1.0), rand(2)),
        (rand(3), rand.bools(3), rand.integers(0, 3, 3)),
        (rand(3), rand.bools(4), rand(4)),
    ],
)
def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """y = x with the first elements of `source`, in order, where `mask` is True.

    (*), (*), (n) -> (*): x and mask broadcast, n at least the number of True.  dx = dy, 0 where
    replaced; dsource = dy there.
    """
    if mask._array.dtype.kind != "b":
        raise RuntimeError(f"masked_scatter: expected BoolTensor for mask, got {mask.dtype}")
    if source._array.dtype != input._array.dtype:
        raise RuntimeError(
            f"masked_scatter: expected self and source to have same dtypes but got {input.dtype} "
            f"and {source.dtype}"
        )
    if input._array.shape != mask._array.shape:
        input, mask = broadcast_tensors(input, mask)
    count = int(mask._array.sum())
    if count > source._array.size:
        raise RuntimeError(
            f"masked_scatter: the mask has {count} True, the source {source.numel()} elements"
        )
    shape = input._array.shape
    row, mask = as_row(input), as_row(mask)
    return shaped(IndexPut.apply(row, source.reshape(-1).narrow(0, 0, count), mask), shape)


@composite(
    out="same",
    samples=lambda rand: [
        (rand(3, 4), rand.integers(-12, 12, 2, 3)),
        (rand(3), rand.integers(0, 3)),
        (rand(), rand.integers(0, 1, 2)),
    ],
    errors=lambda rand: [
        (rand(3), rand.integers(3, 5, 2)),
        (rand(3), rand.integers(0, 3, 2, dtype=np.int32)),
    ],
)
def take(input: Tensor, index: Tensor) -> Tensor:
    """y = the elements of x, seen as one row, at `index`: (*), (index) -> (index)."""
    if index._array.dtype != np.int64:
        raise RuntimeError(f"take: expected a long tensor for index, but got {index.dtype}")
    return Index.apply(input.reshape(-1), index)


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
