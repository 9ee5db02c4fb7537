"""Elements chosen by a mask, and the indices of those that are not zero."""

from __future__ import annotations

from typing import Literal, overload

import numpy as np

from ...core import Op, Tensor, wrap
from ..index import Index
from ..samples import Rand, Samples
from .repeat import BroadcastTensors


class MaskedSelect(Op):
    """The elements where `mask` (broadcast) is True, in one dimension: (*), (*) -> (n)."""

    @staticmethod
    def call(input: Tensor, mask: Tensor) -> Tensor:
        if mask._array.dtype.kind != "b":
            raise RuntimeError(f"masked_select: expected BoolTensor for mask, got {mask.dtype}")
        if input._array.shape != mask._array.shape:
            input, mask = BroadcastTensors.call(input, mask)
        if input._array.ndim == 0:
            input, mask = input.reshape(1), mask.reshape(1)
        return Index.apply(input, mask)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(3, 4), rand.bools(3, 4)
        yield rand(3, 1), rand.bools(4)
        yield rand(), rand.bools(3)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(3, 4), rand(3, 4)
        yield rand(3, 4), rand.bools(3)


class Nonzero(Op):
    """The indices of elements that are not 0: (*) -> (n, dims), or a vector for each dimension."""

    @overload
    @staticmethod
    def call(input: Tensor, *, as_tuple: Literal[False] = False) -> Tensor: ...
    @overload
    @staticmethod
    def call(input: Tensor, *, as_tuple: Literal[True]) -> tuple[Tensor, ...]: ...
    @staticmethod
    def call(input: Tensor, *, as_tuple: bool = False) -> Tensor | tuple[Tensor, ...]:
        array = input._array
        if as_tuple:
            return tuple(wrap(i) for i in np.atleast_1d(array).nonzero())
        if array.ndim == 0:
            return wrap(np.zeros((int(array != 0), 0), np.int64))
        return wrap(np.argwhere(array))

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield (rand.bools(3, 4),)
        yield rand.integers(0, 2, 3, 4), dict(as_tuple=True)
        yield (rand.bools(),)
        yield rand.integers(0, 2), dict(as_tuple=True)


class Argwhere(Op):
    """The indices of the elements that are not zero: (*) -> (n, dims)."""

    @staticmethod
    def call(input: Tensor) -> Tensor:
        return Nonzero.call(input)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield (rand.bools(3, 4),)
