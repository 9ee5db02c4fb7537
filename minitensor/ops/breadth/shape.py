"""Shapes taken from another tensor, all elements in one dimension, NumPy's `swapaxes`."""

from __future__ import annotations

from ...core import Tensor
from ..composite import composite, register
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
