"""Elements at places: indices, slices and masks."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..emit import INT64_MAX, Emitter, Tensor, is_float
from .shape import broadcast, numbered, scattered
from .table import translates


@translates("GetItem")
def getitem(g: Emitter, x: Tensor, *, key: tuple[Any, ...]) -> str:
    """x[key]: integers, slices, None and Ellipsis."""
    taken = sum(k is not None and k is not Ellipsis for k in key)
    items: list[Any] = []
    for k in key:
        items += [slice(None)] * (x.ndim - taken) if k is Ellipsis else [k]
    items += [slice(None)] * (x.ndim - sum(k is not None for k in items))
    begins, ends, steps, axes, out, more = [], [], [], [], [], []
    axis = place = 0
    if x.shape == g.outs[0].shape and all(isinstance(k, slice) and not k.start for k in items):
        return g.name(x)  # a table that ends where it is needed
    for k in items:
        if k is None:
            more.append(place)
            place += 1
            continue
        if isinstance(k, slice):
            if k != slice(None):
                begins.append(0 if k.start is None else k.start)
                ends.append(INT64_MAX if k.stop is None else k.stop)
                steps.append(k.step or 1)
                axes.append(axis)
            place += 1
        else:
            out.append((axis, k))
        axis += 1
    y = g.name(x)
    if axes:
        given = [g.sizes(begins), g.sizes(ends), g.constant(axes)]
        y = g.op("Slice", y, *given, *([g.constant(steps)] if set(steps) != {1} else []))
    for axis, k in reversed(out):
        y = g.op("Gather", y, g.scalar(k), axis=axis)
    return g.unsqueeze(y, *more)


def _places(g: Emitter, x: Tensor, indices: tuple[Any, ...]) -> tuple[dict[int, Any], int]:
    """Return the index of each picked axis as int64, with its number of axes; and the front.

    The front is the axis of the result where those of the picks begin.
    """
    found: dict[int, Any] = {}
    given = [number for number, i in enumerate(indices) if i is not None]
    axis = 0
    for i in indices:
        if i is None:
            axis += 1
        elif i.dtype.kind == "b":
            rows = g.op("NonZero", i)
            for number in range(i.ndim):
                found[axis] = g.op("Gather", rows, g.constant(number), axis=0), 1
                axis += 1
        else:
            found[axis] = g.cast(i, np.int64), i.ndim
            axis += 1
    together = given[-1] - given[0] == len(given) - 1
    return found, min(found) if together else 0


def _picked(g: Emitter, x: Tensor, found: dict[int, Any]) -> tuple[str, list[int], int]:
    """Return indices for GatherND, the order of x's axes with those picked first, and the rank."""
    order = [*found, *(d for d in range(x.ndim) if d not in found)]
    rank = max(ndim for _, ndim in found.values())
    zeros = [g.op("Mul", name, g.constant(0)) for name, _ in found.values()]
    parts = []
    for number, (name, _) in enumerate(found.values()):
        for other, zero in enumerate(zeros):
            name = g.op("Add", name, zero) if other != number else name
        parts.append(g.unsqueeze(name, -1))
    return (g.op("Concat", *parts, axis=-1) if len(parts) > 1 else parts[0]), order, rank


@translates("Index")
def index(g: Emitter, x: Tensor, *indices: Any) -> str:
    """x[indices], a tensor of integers, a mask or None for each leading axis."""
    found, front = _places(g, x, indices)
    if len(found) == 1:
        ((axis, (name, _)),) = found.items()
        return g.op("Gather", x, name, axis=axis)
    where, order, rank = _picked(g, x, found)
    y = g.op("GatherND", g.transpose(x, order), where)
    ndim = rank + x.ndim - len(found)
    back = [*range(rank, rank + front), *range(rank), *range(rank + front, ndim)]
    return g.transpose(y, back)


@translates("PutItem")
def put_item(g: Emitter, x: Tensor, *, shape: Any, key: tuple[Any, ...]) -> str:
    """Zeros of a shape with x at a key."""
    return scattered(g, x, getitem(g, numbered(g, g.outs[0].shape), key=key))


@translates("IndexSum")
def index_sum(g: Emitter, x: Tensor, *indices: Any, shape: Any) -> str:
    """Zeros of a shape with x added at the indices."""
    zeros = g.op("Expand", g.constant(0, x.dtype), g.sizes(g.outs[0].shape))
    return index_put(g, Tensor(zeros, g.outs[0].shape, x.dtype), x, *indices, reduction="add")


@translates("IndexPut")
def index_put(g: Emitter, x: Tensor, values: Tensor, *indices: Any, reduction: str = "none") -> str:
    """x with values at x[indices], or added there."""
    if (
        reduction == "none"
        and len(indices) == 1
        and indices[0].dtype.kind == "b"
        and not values.ndim
    ):
        more = range(indices[0].ndim, x.ndim)
        return g.op("Where", g.unsqueeze(indices[0], *more), g.cast(values, x.dtype), x)
    found, front = _places(g, x, indices)
    where, order, rank = _picked(g, x, found)
    turned = g.transpose(x, order)
    rest = len(order) - len(found)
    shape = g.op("Shape", where, start=0, end=rank)
    if rest:
        shape = g.op("Concat", shape, g.op("Shape", turned, start=len(found)), axis=0)
    updates: Any = values
    if front and values.ndim > rest - front:  # the axes before the picks come after them
        missing = rank + rest - values.ndim
        updates = g.unsqueeze(values, *range(missing))
        places = [*range(front, front + rank), *range(front), *range(front + rank, rank + rest)]
        updates = g.transpose(updates, places)
    y = g.op("ScatterND", turned, where, g.op("Expand", updates, shape), reduction=reduction)
    back = [order.index(d) for d in range(x.ndim)]
    return g.transpose(y, back)


@translates("IndexSelect")
def index_select(g: Emitter, x: Tensor, index: Tensor, *, dim: int) -> str:
    """The slices of x at indices along an axis."""
    return g.op("Gather", x, index, axis=dim)


@translates("Embedding")
def embedding(g: Emitter, input: Tensor, weight: Tensor, **options: Any) -> str:
    """The rows of the weight at the indices."""
    return g.op("Gather", weight, input, axis=0)


@translates("Gather")
def gather(g: Emitter, x: Tensor, index: Tensor, *, dim: int) -> str:
    """x[index[i, j], j], for an index along axis 0."""
    return g.op("GatherElements", x, index, axis=dim)


def _source(g: Emitter, x: Tensor, index: Tensor, src: Tensor) -> str:
    """Return the part of the source that the index has places for."""
    if not src.ndim:
        return broadcast(g, src, index.shape)
    source = g.cast(src, x.dtype)
    if src.shape == index.shape:
        return source
    every = g.constant(list(range(src.ndim)))
    return g.op("Slice", source, g.constant([0] * src.ndim), g.shape(index), every)


@translates("Scatter", "ScatterAdd")
def scatter(g: Emitter, x: Tensor, index: Tensor, src: Tensor, *, dim: int) -> str:
    """x with the source put, or added, at the places of the index along an axis."""
    how = "add" if g.call.op == "ScatterAdd" else "none"
    return g.op("ScatterElements", x, index, _source(g, x, index, src), axis=dim, reduction=how)


@translates("ScatterReduction")
def scatter_reduction(
    g: Emitter, x: Tensor, index: Tensor, src: Tensor, *, dim: int, reduce: str, include_self: bool
) -> str:
    """x with the source reduced into it at the places of the index, with x or without."""
    y, how = g.name(x), {"prod": "mul", "amax": "max", "amin": "min"}[reduce]
    if not include_self:
        floats, least = is_float(x.dtype), reduce == "amax"
        ends = (-np.inf, np.inf) if floats else (np.iinfo(x.dtype).min, np.iinfo(x.dtype).max)
        start = 1 if reduce == "prod" else ends[0] if least else ends[1]
        fill = Tensor(g.constant(start, x.dtype), (), x.dtype)
        y = g.op("ScatterElements", y, index, broadcast(g, fill, index.shape), axis=dim)
    given = _source(g, x, index, src)
    return g.op("ScatterElements", y, index, given, axis=dim, reduction=how)


@translates("ViewScatter")
def view_scatter(g: Emitter, base: Tensor, new: Tensor, places: Tensor) -> str:
    """The base with new elements at places, numbers in the flattened base."""
    flat = [g.op("Reshape", x, g.constant([-1])) for x in (base, places, new)]
    return g.reshape(g.op("ScatterElements", *flat, axis=0), base.shape)
