"""Elements written by index and reduced: `scatter_reduce`, and `scatter` with a `reduce`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import memory
from ...core import Op, Tensor, wrap
from ...dtype import FLOATING
from ..checks import normal_dim
from ..composite import composite
from ..gather import Gather, Scatter, ScatterAdd, as_row, key_along, outside, part_of
from ..index import PutItem
from ..places import PLACE, along, at
from ..samples import Rand, Samples
from ..select import Where
from ..shape import shaped

_FUNCTIONS = {"prod": np.multiply, "amax": np.maximum, "amin": np.minimum}
_REDUCTIONS = ("sum", "prod", "mean", "amax", "amin")


class ScatterReduction(Op):
    """y = x with src reduced into it: y[index[i][j]][j] = f(y[index[i][j]][j], src[i][j]), dim 0.

    f is a product ("prod"), or the largest ("amax") or smallest ("amin"), without x if not
    `include_self`. (*), (index), (index or larger) -> (*).  The gradient of an extreme is shared by
    equals, that of a product is dy times the other factors.
    """

    namespaces = ""
    torch_name = None

    def forward(
        ctx,
        x: np.ndarray,
        index: np.ndarray,
        src: np.ndarray,
        *,
        dim: int,
        reduce: str,
        include_self: bool,
    ) -> np.ndarray:
        if src.dtype != x.dtype:
            raise RuntimeError(
                f"Expected self.dtype to be equal to src.dtype: {x.dtype}, {src.dtype}"
            )
        dim = normal_dim(dim, x.ndim)
        key = key_along(index, x.shape, dim, (src.shape,))
        y = memory.empty_like(x)
        y[...] = x
        if not include_self:
            y[key] = _identity(reduce, x.dtype)
        _FUNCTIONS[reduce].at(y, key, part_of(src, index.shape))
        ctx.save(x, index, src, y, dim, reduce, include_self)
        return y

    @staticmethod
    def cell(
        x: np.ndarray,
        index: np.ndarray,
        src: np.ndarray,
        *,
        dim: int,
        reduce: str,
        include_self: bool,
    ) -> str:
        here = f"{at('index', along(x.ndim, [dim]))} == {PLACE[dim % x.ndim]}"
        chosen = at("src", along(src.ndim, [dim], here))
        new = f"prod({chosen})" if reduce == "prod" else f"{reduce[1:]}({chosen})"
        if include_self:
            new = f"x * {new}" if reduce == "prod" else f"{reduce[1:]}(x, {new})"
        return f"{outside(index, x, dim)}{new} if any({here}) else x"

    def backward(ctx, dy: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        x, index, src, y, dim, reduce, include_self = ctx.saved
        needs_x, _, needs_src = ctx.needs_input_grad
        used = src[tuple(slice(0, n) for n in index._array.shape)]
        rule = _product_gradients if reduce == "prod" else _extreme_gradients
        dx, of_used = rule(dy, x, index, used, y, dim, include_self)
        if not include_self:
            dx = Scatter.call(dx, dim, index, 0.0)
        if used._array.shape != src._array.shape:
            part = tuple(slice(0, n) for n in used._array.shape)
            of_used = PutItem.apply(of_used, shape=src._array.shape, key=part)
        return dx if needs_x else None, None, of_used if needs_src else None

    @staticmethod
    def samples(rand: Rand) -> Samples:
        index = wrap(np.array([[0, 2, 1, 1], [1, 2, 1, 2]]))
        for reduce in _FUNCTIONS:
            for include_self in (True, False):
                settings = dict(dim=0, reduce=reduce, include_self=include_self)
                yield rand(3, 4), index, rand(2, 4), settings
        yield rand(3, 4), index, rand(3, 5), dict(dim=0, reduce="prod", include_self=True)
        equal = wrap(np.ones(3, rand.dtype))
        yield equal, wrap(np.array([0, 0, 1])), equal, settings


def _identity(reduce: str, dtype: Any) -> Any:
    """Return the number that leaves others as they are in a reduction."""
    if reduce == "prod":
        return 1
    if dtype.kind == "b":
        return reduce == "amin"
    if dtype.kind in FLOATING:
        return -np.inf if reduce == "amax" else np.inf
    return np.iinfo(dtype).min if reduce == "amax" else np.iinfo(dtype).max


def _extreme_gradients(
    dy: Tensor, x: Tensor, index: Tensor, src: Tensor, y: Tensor, dim: int, include_self: bool
) -> tuple[Tensor, Tensor]:
    """Return the gradients of x and of src: dy where they are chosen, shared by equals."""
    of_x = (x == y).to(dy._array.dtype)
    of_src = (src == Gather.apply(y, index, dim=dim)).to(dy._array.dtype)
    if not include_self:
        of_x = Scatter.call(of_x, dim, index, 0.0)
    count = ScatterAdd.apply(of_x, index, of_src, dim=dim)
    share = Where.apply(count == 0, 0.0, dy / count)
    untouched = dy if not include_self else share * of_x  # where the index is, dx becomes 0
    return untouched, Gather.apply(share, index, dim=dim) * of_src


def _product_gradients(
    dy: Tensor, x: Tensor, index: Tensor, src: Tensor, y: Tensor, dim: int, include_self: bool
) -> tuple[Tensor, Tensor]:
    """Return the gradients of x and of src: dy times the product of the other factors."""

    def product(base: Tensor, factors: Tensor) -> Tensor:
        return ScatterReduction.apply(
            base, index, factors, dim=dim, reduce="prod", include_self=include_self
        )

    one = x.masked_fill(x == 0, 1.0)
    dx = dy * product(one, src) / one if include_self else dy
    zero = src == 0
    zeros = wrap(np.zeros(x._array.shape, np.int64))
    count = Gather.apply(ScatterAdd.apply(zeros, index, zero.long(), dim=dim), index, dim=dim)
    single = zero & (count == 1)
    others = Gather.apply(dy * product(x, src.masked_fill(single, 1.0)), index, dim=dim)
    divided = Gather.apply(dy * y, index, dim=dim) / src.masked_fill(zero, 1.0)
    return dx, Where.apply(single, others, divided)


@composite(
    out="same",
    inplace=True,
    samples=lambda rand: (
        [
            (
                rand(3, 4),
                0,
                wrap(np.array([[0, 2, 1, 1], [1, 2, 1, 2]])),
                rand(2, 4),
                reduce,
                dict(include_self=include_self),
            )
            for reduce in _REDUCTIONS
            for include_self in (True, False)
        ]
        + [
            (rand.integers(0, 9, 3), 0, rand.integers(0, 3, 5), rand.integers(0, 9, 5), reduce)
            for reduce in _REDUCTIONS
        ]
        + [(rand(), 0, rand.integers(0, 1), rand(), "prod")]
    ),
    errors=lambda rand: [
        (rand(3, 4), 0, rand.integers(3, 4, 1, 1), rand(1, 1), "amax"),
        (rand(3, 4), 0, rand.integers(0, 3, 1, 1), rand.integers(0, 3, 1, 1), "sum"),
        (rand(3), 0, rand.integers(0, 3, 1), rand(1), "median"),
        (rand(3), 1, rand.integers(0, 3, 1), rand(1), "prod"),
    ],
)
def scatter_reduce(
    input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """y = x with src reduced into it at `index` along `dim`: (*), (index), (index) -> (*).

    y[index[i][j]][j] is, for dim 0, the reduction of the src[i][j] that go there: their "sum",
    "prod", "mean", "amax" or "amin", together with x there if `include_self`. Elsewhere y = x.
    """
    if reduce not in _REDUCTIONS:
        raise RuntimeError(
            "scatter_reduce: reduce argument must be either sum, prod, mean, amax or amin, "
            f"got {reduce}"
        )
    x, places, given = as_row(input), as_row(index), as_row(src)
    if reduce in _FUNCTIONS:
        found = ScatterReduction.apply(
            x, places, given, dim=dim, reduce=reduce, include_self=include_self
        )
        return shaped(found, input._array.shape)
    base = x if include_self else Scatter.call(x, dim, places, 0)
    found = ScatterAdd.apply(base, places, given, dim=dim)
    if reduce == "mean":
        start = (np.ones if include_self else np.zeros)(x._array.shape, x._array.dtype)
        one = wrap(np.ones(given._array.shape, x._array.dtype))
        count = ScatterAdd.apply(wrap(start), places, one, dim=dim).clamp(min=1)
        found = found.div(count, rounding_mode=None if x.is_floating_point() else "floor")
    return shaped(found, input._array.shape)
