"""Sums, means, extremes and orders along axes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..emit import Emitter, Tensor
from .elementwise import true
from .table import TRANSLATIONS, translates

BOOL = np.dtype(bool)


def reduced(g: Emitter, kind: str, x: Any, axes: tuple[int, ...], keepdim: bool) -> str:
    """Return x reduced over axes; over none, x itself."""
    if not axes:
        return g.name(x)
    return g.op(kind, x, g.constant(axes), keepdims=int(keepdim))


def _plain(kind: str) -> Callable[..., str]:
    return lambda g, x, axes, keepdim: reduced(g, kind, x, axes, keepdim)


def _extreme(kind: str) -> Callable[..., str]:
    def translate(g: Emitter, x: Tensor, axes: tuple[int, ...], keepdim: bool) -> str:
        if x.dtype.kind != "b":
            return reduced(g, kind, x, axes, keepdim)
        found = reduced(g, kind, g.cast(x, np.int32), axes, keepdim)
        return g.cast(found, bool, np.dtype(np.int32))

    return translate


TRANSLATIONS.update(
    Sum=_plain("ReduceSum"),
    Logsumexp=_plain("ReduceLogSumExp"),
    Amax=_extreme("ReduceMax"),
    Amin=_extreme("ReduceMin"),
)


@translates("Mean")
def mean(g: Emitter, x: Tensor, axes: tuple[int, ...], keepdim: bool) -> str:
    """The sum divided by the count; NaN for no elements."""
    if 0 not in x.shape:
        return reduced(g, "ReduceMean", x, axes, keepdim)
    return g.op("Div", reduced(g, "ReduceSum", x, axes, keepdim), count_of(g, x, axes))


@translates("Any_")
def any_(g: Emitter, x: Tensor, axes: tuple[int, ...], keepdim: bool) -> str:
    """True if one is not 0."""
    count = reduced(g, "ReduceSum", g.cast(true(g, x), np.int64, BOOL), axes, keepdim)
    return g.cast(g.op("Greater", count, g.constant(0)), g.outs[0].dtype, BOOL)


@translates("All")
def all_(g: Emitter, x: Tensor, axes: tuple[int, ...], keepdim: bool) -> str:
    """True if none is 0."""
    zeros = g.cast(g.op("Not", true(g, x)), np.int64, BOOL)
    none = g.op("Equal", reduced(g, "ReduceSum", zeros, axes, keepdim), g.constant(0))
    return g.cast(none, g.outs[0].dtype, BOOL)


@translates("CountNonzero")
def count_nonzero(g: Emitter, x: Tensor, axes: tuple[int, ...]) -> str:
    """The number of those that are not 0."""
    return reduced(g, "ReduceSum", g.cast(true(g, x), np.int64, BOOL), axes, False)


def count_of(g: Emitter, x: Tensor, axes: tuple[int, ...]) -> str:
    """Return the number of elements along axes, in the type of x."""
    sizes = [x.shape[axis] for axis in axes]
    known = math.prod(n for n in sizes if isinstance(n, int))
    count = g.constant(known, x.dtype)
    for n in sizes:
        if not isinstance(n, int):
            count = g.op("Mul", count, g.scalar(n, x.dtype))
    return count


@translates("Var")
def var(g: Emitter, x: Tensor, axes: tuple[int, ...], correction: float, keepdim: bool) -> str:
    """The mean of the squares of the deviations, corrected for the degrees of freedom."""
    deviation = g.op("Sub", x, reduced(g, "ReduceMean", x, axes, True))
    total = reduced(g, "ReduceSum", g.op("Mul", deviation, deviation), axes, keepdim)
    freedom = count_of(g, x, axes)
    if correction:
        freedom = g.op("Sub", freedom, g.scalar(correction, x.dtype))
        freedom = g.op("Max", freedom, g.constant(0, x.dtype))
    return g.op("Div", total, freedom)


@translates("Std")
def std(g: Emitter, x: Tensor, axes: tuple[int, ...], correction: float, keepdim: bool) -> str:
    """The square root of the variance."""
    return g.op("Sqrt", var(g, x, axes, correction, keepdim))


@translates("Norm")
def norm(g: Emitter, x: Tensor, p: float, axes: tuple[int, ...], keepdim: bool) -> str:
    """(the sum of |x|^p)^(1/p)."""
    p = float(p)  # a recording has the infinities as numbers
    if p in (1, 2):
        return reduced(g, f"ReduceL{int(p)}", x, axes, keepdim)
    if math.isinf(p):
        return reduced(g, "ReduceMax" if p > 0 else "ReduceMin", g.op("Abs", x), axes, keepdim)
    if p == 0:
        return reduced(g, "ReduceSum", g.cast(true(g, x), x.dtype, BOOL), axes, keepdim)
    powers = g.op("Pow", g.op("Abs", x), g.constant(p, x.dtype))
    total = reduced(g, "ReduceSum", powers, axes, keepdim)
    return g.op("Pow", total, g.constant(1 / p, x.dtype))


# Along one axis


@translates("Max", "Min")
def max_(g: Emitter, x: Tensor, dim: int, keepdim: bool) -> list[str]:
    """The extreme along an axis, and its place."""
    kind = "Max" if g.call.op == "Max" else "Min"
    x = _comparable(g, x)
    value = g.op(f"Reduce{kind}", x, g.constant([dim]), keepdims=int(keepdim))
    place = g.op(f"Arg{kind}", x, axis=dim, keepdims=int(keepdim))
    return [g.cast(value, g.outs[0].dtype, x.dtype), place]


def _comparable(g: Emitter, x: Tensor) -> Tensor:
    """Return x in a type that has an order in ONNX."""
    if x.dtype.kind != "b":
        return x
    return Tensor(g.cast(x, np.int32), x.shape, np.dtype(np.int32))


@translates("Argmax", "Argmin")
def argmax(g: Emitter, x: Tensor, dim: int | None, keepdim: bool) -> str:
    """The place of the extreme along an axis, or in the flattened tensor."""
    kind, x = ("ArgMax" if g.call.op == "Argmax" else "ArgMin"), _comparable(g, x)
    if dim is not None and x.ndim:
        return g.op(kind, x, axis=dim, keepdims=int(keepdim))
    place = g.op(kind, g.op("Reshape", x, g.constant([-1])), axis=0, keepdims=0)
    return g.reshape(place, g.outs[0].shape) if g.outs[0].ndim else place


@translates("Topk")
def topk(g: Emitter, x: Tensor, k: Any, dim: int, largest: bool) -> list[str]:
    """The k largest or smallest along an axis, in order, and their places."""
    return g.op("TopK", x, g.size(k), axis=dim, largest=int(largest), outputs=2)


@translates("Sort")
def sort(g: Emitter, x: Tensor, dim: int, descending: bool) -> list[str]:
    """All along an axis, in order, and their places."""
    return g.op("TopK", x, g.size(x.shape[dim]), axis=dim, largest=int(descending), outputs=2)


@translates("Median")
def median(g: Emitter, x: Tensor, dim: int, keepdim: bool) -> list[str]:
    """The middle one along an axis, the lower of two, and its place."""
    return _middle(g, x, g.size(x.shape[dim]), dim, keepdim)


def _middle(g: Emitter, x: Any, count: str, dim: int, keepdim: bool) -> list[str]:
    both = g.op("TopK", x, count, axis=dim, largest=0, outputs=2)
    middle = g.op("Div", g.op("Sub", count, g.constant([1])), g.constant([2]))
    found = [g.op("Gather", each, middle, axis=dim) for each in both]
    return found if keepdim else [g.squeeze(each, dim) for each in found]


@translates("MedianOfAll")
def median_of_all(g: Emitter, x: Tensor) -> str:
    """The middle one of all."""
    count = g.unsqueeze(g.op("Size", x), 0)
    return _middle(g, g.op("Reshape", x, g.constant([-1])), count, 0, False)[0]


@translates("Cumsum")
def cumsum(g: Emitter, x: Tensor, dim: int) -> str:
    """The sum of all so far."""
    if not x.ndim:
        return g.name(x)
    return g.op("CumSum", x, g.constant(dim))


def so_far(g: Emitter, x: Tensor, dim: int, beyond: Any) -> str:
    """Return x with each slice along an axis as a matrix, whose row i has a number after column i.

    The rows are the axis, the columns the one after it.
    """
    places = g.range(x.shape[dim])
    inside = g.op("LessOrEqual", places, g.unsqueeze(places, 1))  # (n, n): [i, j] is j <= i
    inside = g.unsqueeze(inside, *range(2, x.ndim - dim + 1))
    return g.op("Where", inside, g.unsqueeze(x, dim), g.constant(beyond, x.dtype))


@translates("Cumprod")
def cumprod(g: Emitter, x: Tensor, dim: int) -> str:
    """The product of all so far."""
    if not x.ndim:
        return g.name(x)
    dim %= x.ndim
    return g.op("ReduceProd", so_far(g, x, dim, 1), g.constant([dim + 1]), keepdims=0)


@translates("Prod")
def prod(g: Emitter, x: Tensor, dim: int | None, keepdim: bool) -> str:
    """The product of all or along an axis."""
    if not x.ndim:
        return g.name(x)
    if dim is None:
        return g.op("ReduceProd", x, keepdims=0)
    return g.op("ReduceProd", x, g.constant([dim]), keepdims=int(keepdim))
