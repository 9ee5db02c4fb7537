"""Shapes taken from another tensor, all elements in one dimension, NumPy's `swapaxes`."""

from __future__ import annotations

from ...core import Op, Tensor
from ..convert import register
from ..samples import Rand, Samples
from ..shape import Reshape, Transpose, View


class ViewAs(Op):
    """`view` in the shape of `other`: (*), (o) -> (o)."""

    namespaces = "tensor"

    @staticmethod
    def call(input: Tensor, other: Tensor) -> Tensor:
        return View.apply(input, shape=other._array.shape)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2, 3), rand.constant(6)


class ReshapeAs(Op):
    """`reshape` to the shape of `other`: (*), (o) -> (o)."""

    namespaces = "tensor"

    @staticmethod
    def call(input: Tensor, other: Tensor) -> Tensor:
        return Reshape.apply(input, shape=other._array.shape)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2, 3), rand.constant(6)


class Ravel(Op):
    """All elements in one dimension: (*) -> (n)."""

    @staticmethod
    def call(input: Tensor) -> Tensor:
        return Reshape.apply(input, shape=(-1,) if input._array.size else (0,))

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield (rand(2, 3),)
        yield (rand(0, 3),)


@register
def swapaxes(input: Tensor, axis0: int, axis1: int) -> Tensor:
    """`transpose` by NumPy's names: dimensions `axis0` and `axis1` swapped."""
    return Transpose.apply(input, axis0, axis1)
