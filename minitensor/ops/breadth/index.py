"""Elements chosen by a mask, and the indices of those that are not zero."""

from __future__ import annotations

from typing import Literal, overload

import numpy as np

from ...core import Tensor, wrap
from ..composite import composite
from ..index import Index
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
