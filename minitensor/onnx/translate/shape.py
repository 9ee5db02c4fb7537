"""Shapes, joins, and elements moved to other places."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..emit import Emitter, Tensor
from ..sizes import Size
from .table import translates

INT64_MIN = -(2**63)


@translates("View", "Reshape")
def reshape(g: Emitter, x: Tensor, *, shape: Any) -> str:
    """The same elements in another shape."""
    return g.reshape(x, g.outs[0].shape, x.shape)


@translates("Transpose")
def transpose(g: Emitter, x: Tensor, dim0: int, dim1: int) -> str:
    """Two axes swapped."""
    order = list(range(x.ndim))
    if order:
        order[dim0], order[dim1] = order[dim1], order[dim0]
    return g.op("Transpose", x, perm=order) if order else g.name(x)


@translates("Permute")
def permute(g: Emitter, x: Tensor, *, dims: tuple[int, ...]) -> str:
    """The axes in another order."""
    if not dims:
        return g.name(x)
    return g.op("Transpose", x, perm=[d % x.ndim for d in dims])


@translates("Squeeze")
def squeeze(g: Emitter, x: Tensor, dim: Any) -> str:
    """Axes of size 1 left out."""
    given = range(x.ndim) if dim is None else dim if isinstance(dim, tuple) else (dim,)
    axes = [d % x.ndim for d in given if x.ndim and x.shape[d] == 1]
    return g.squeeze(x, *axes) if axes else g.name(x)


@translates("Unsqueeze")
def unsqueeze(g: Emitter, x: Tensor, dim: int) -> str:
    """One more axis, of size 1."""
    return g.unsqueeze(x, dim % (x.ndim + 1))


@translates("Expand")
def expand(g: Emitter, x: Tensor, *, size: Any) -> str:
    """Axes of size 1 repeated to other sizes."""
    return broadcast(g, x, g.outs[0].shape)


def broadcast(g: Emitter, x: Tensor, shape: tuple[Any, ...]) -> str:
    """Return x broadcast to a shape."""
    before = (1,) * (len(shape) - x.ndim) + tuple(x.shape)
    sizes = [1 if n == m else n for n, m in zip(shape, before, strict=True)]
    if all(n == 1 for n in sizes) and len(shape) == x.ndim:
        return g.name(x)
    return g.op("Expand", x, g.sizes(sizes))


@translates("Copy")
def copy(g: Emitter, x: Tensor, src: Tensor) -> str:
    """The source, in the shape and type of x."""
    source = Tensor(g.cast(src, x.dtype), src.shape, x.dtype)
    return broadcast(g, source, g.outs[0].shape)


@translates("Repeat")
def repeat(g: Emitter, x: Tensor, *, repeats: tuple[Any, ...]) -> str:
    """All repeated along each axis."""
    x_long = g.unsqueeze(x, *range(len(repeats) - x.ndim))
    return g.op("Tile", x_long, g.sizes(repeats)) if repeats else g.name(x)


@translates("Cat")
def cat(g: Emitter, *xs: Tensor, dim: int) -> str:
    """Tensors one after the other along an axis."""
    dtype, ndim = g.outs[0].dtype, g.outs[0].ndim
    parts = [x for x in xs if x.ndim == ndim]  # an empty vector is left out, as PyTorch does
    axis = dim + bool(xs[0].lengths) if dim >= 0 else dim + ndim
    return g.op("Concat", *(g.cast(x, dtype) for x in parts), axis=axis)


@translates("Stack")
def stack(g: Emitter, *xs: Tensor, dim: int) -> str:
    """Tensors along a new axis."""
    out = g.outs[0]
    axis = dim % out.ndim
    parts = [g.unsqueeze(g.cast(x, out.dtype), axis) for x in xs]
    return g.op("Concat", *parts, axis=axis)


@translates("SplitWithSizes")
def split(g: Emitter, x: Tensor, *, sizes: tuple[Any, ...], dim: int) -> list[str]:
    """Parts of given sizes along an axis."""
    parts = [out.shape[dim] for out in g.outs]
    made = g.op("Split", x, g.sizes(parts), axis=dim, outputs=len(parts))
    return [made] if len(parts) == 1 else made


@translates("Unbind")
def unbind(g: Emitter, x: Tensor, dim: int) -> list[str]:
    """The slices along an axis."""
    return [g.op("Gather", x, g.constant(i), axis=dim) for i in range(len(g.outs))]


@translates("Flip")
def flip(g: Emitter, x: Tensor, *, dims: tuple[int, ...]) -> str:
    """Axes reversed."""
    if not x.ndim or not dims:
        return g.name(x)
    count = len(dims)
    ends = (g.constant([n] * count) for n in (-1, INT64_MIN))
    return g.op("Slice", x, *ends, g.constant(dims), g.constant([-1] * count))


@translates("Roll")
def roll(g: Emitter, x: Tensor, shifts: Any, dims: Any) -> str:
    """Elements shifted along axes, those that leave one end coming in at the other."""
    shifts = shifts if isinstance(shifts, tuple) else (shifts,)
    axes: Any = dims if isinstance(dims, tuple) else () if dims is None else (dims,)
    shape: tuple[Any, ...] = x.shape
    y = g.name(x)
    if not axes:
        y, axes, shape = g.op("Reshape", x, g.constant([-1])), (0,), (None,)
        if all(isinstance(n, int) for n in x.shape):
            shape = (int(np.prod(x.shape)),)
    for shift, axis in zip(shifts, axes, strict=True):
        n = shape[axis]
        if isinstance(n, int) and isinstance(shift, int):
            shift %= max(n, 1)
        if not isinstance(shift, int | Size):
            raise g.error("the shift follows from sizes in a way that is not known")
        if shift != 0:
            parts = g.slice(y, axis, -shift, None), g.slice(y, axis, None, -shift)
            y = g.op("Concat", *parts, axis=axis % len(shape))
    return y if dims not in (None, ()) else g.reshape(y, x.shape)


@translates("ConstantPad")
def constant_pad(g: Emitter, x: Tensor, *, pad: tuple[Any, ...], value: float = 0) -> str:
    """A constant put around, or parts cut off where lengths are negative."""
    lengths = [before for before, _ in pad] + [after for _, after in pad]
    return g.op("Pad", x, g.sizes(lengths), g.scalar(value, x.dtype), mode="constant")


@translates("Diagonal")
def diagonal(g: Emitter, x: Tensor, offset: int, dim1: int, dim2: int) -> str:
    """A diagonal of the matrices in two axes, as the last axis."""
    return _diagonal(g, x, offset, dim1, dim2, g.outs[0].shape[-1])


def _diagonal(g: Emitter, x: Tensor, offset: int, dim1: int, dim2: int, length: Any) -> str:
    rest = [d for d in range(x.ndim) if d not in (dim1 % x.ndim, dim2 % x.ndim)]
    lead = [x.shape[d] for d in rest]
    rows, columns = x.shape[dim1], x.shape[dim2]
    y = g.transpose(x, [*rest, dim1 % x.ndim, dim2 % x.ndim])
    flat = g.reshape(y, [*lead, -1]) if all(isinstance(n, int) for n in lead) else g.op(
        "Reshape", y, g.sizes([*[0] * len(lead), -1]))  # fmt: skip
    start: Any = offset
    if offset < 0:
        start = -offset * columns if isinstance(columns, int) else None
    if start is None or not isinstance(rows, int | Size):
        raise g.error("a diagonal below the main one needs a fixed number of columns")
    step = g.op("Add", g.scalar(columns), g.constant(1))
    places = g.op("Add", g.op("Mul", g.range(length), step), g.constant(start))
    return g.op("Gather", flat, places, axis=len(lead))


def repeated(given: Any, count: int) -> list[int]:
    """Return one number for each of some axes: those given, or one for all."""
    numbers = list(given) if isinstance(given, tuple) else [given]
    return numbers * count if len(numbers) == 1 else numbers


def numbered(g: Emitter, shape: tuple[Any, ...]) -> Tensor:
    """Return the numbers of the elements of a tensor of a shape, in that shape."""
    end = g.op("ReduceProd", g.sizes(shape), keepdims=0)
    numbers = g.op("Range", g.constant(0), end, g.constant(1))
    return Tensor(g.reshape(numbers, shape), shape, np.dtype(np.int64))


def scattered(g: Emitter, x: Tensor, places: str) -> str:
    """Return zeros, in the shape of the result, with x at places: numbers of its elements."""
    shape = g.outs[0].shape
    zeros = g.op("Expand", g.constant(0, x.dtype), g.op("ReduceProd", g.sizes(shape)))
    flat = (g.op("Reshape", each, g.constant([-1])) for each in (places, x))
    return g.reshape(g.op("ScatterElements", zeros, *flat, axis=0), shape)


@translates("DiagonalScatter")
def diagonal_scatter(
    g: Emitter, x: Tensor, *, shape: Any, offset: int, dim1: int, dim2: int
) -> str:
    """Zeros with x on a diagonal."""
    places = numbered(g, g.outs[0].shape)
    length = x.shape[-1]
    return scattered(g, x, _diagonal(g, places, offset, dim1, dim2, length))


@translates("Unfold")
def unfold(g: Emitter, x: Tensor, dimension: int, size: int, step: int) -> str:
    """Windows along an axis; what is in each is the last axis."""
    if not x.ndim:
        return g.reshape(x, g.outs[0].shape)
    axis = dimension % x.ndim
    starts = g.op("Mul", g.range(g.outs[0].shape[axis]), g.constant(step))
    places = g.op("Add", g.unsqueeze(starts, 1), g.constant(np.arange(size)))
    windows = g.op("Gather", x, places, axis=axis)
    order = [d for d in range(x.ndim + 1) if d != axis + 1]
    return g.transpose(windows, [*order, axis + 1])


@translates("Tril", "Triu")
def tril(g: Emitter, x: Tensor, diagonal: Any) -> str:
    """The part of matrices below or above a diagonal, zeros elsewhere."""
    upper = int(g.call.op == "Triu")
    if x.dtype.kind == "b":  # onnxruntime has it for numbers alone
        numbers = g.op("Trilu", g.cast(x, np.int64), g.scalar(diagonal), upper=upper)
        return g.cast(numbers, bool, np.dtype(np.int64))
    return g.op("Trilu", x, g.scalar(diagonal), upper=upper)
