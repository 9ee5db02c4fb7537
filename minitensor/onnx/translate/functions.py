"""Functions that compute with NumPy where there is no derivative, and are recorded as a whole.

`Recording` notes one call for each of `WHOLE`, with all arguments of the function; pools are among
them, as ONNX has them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..emit import Emitter, Tensor, is_float
from .elementwise import true
from .index import index_put
from .reduce import so_far
from .shape import broadcast
from .table import translates

WHOLE = (
    *("Nonzero", "OneHot", "TakeAlongDim", "IndexFill", "RepeatInterleave", "NllLoss"),
    *(
        "MaskedScatter",
        "Cummax",
        "Cummin",
        "Quantile",
        "MaxPool1d",
        "MaxPool2d",
        "AvgPool1d",
        "AvgPool2d",
    ),
)
BOOL = np.dtype(bool)


@translates("Nonzero")
def nonzero(g: Emitter, input: Tensor, as_tuple: bool) -> Any:
    """The places of the elements that are not 0."""
    rows = g.op("NonZero", true(g, input))
    if not as_tuple:
        places = g.op("Transpose", rows, perm=[1, 0])
        return places if input.ndim else g.slice(places, 1, 0, 0)
    return [g.op("Gather", rows, g.constant(axis), axis=0) for axis in range(len(g.outs))]


@translates("OneHot")
def one_hot(g: Emitter, input: Tensor, num_classes: int) -> str:
    """1 at the position that each number names, else 0."""
    if num_classes == -1:
        raise g.error("give num_classes, which otherwise depends on the numbers in the input")
    classes = g.range(num_classes)
    return g.cast(g.op("Equal", g.unsqueeze(input, input.ndim), classes), np.int64, BOOL)


@translates("TakeAlongDim")
def take_along_dim(g: Emitter, input: Tensor, indices: Tensor, dim: int | None) -> str:
    """`gather`, with input and indices broadcast in the other axes."""
    if dim is None:
        flat = (g.op("Reshape", x, g.constant([-1])) for x in (input, indices))
        return g.op("GatherElements", *flat, axis=0)
    dim %= input.ndim
    shape = g.outs[0].shape
    x = broadcast(g, input, (*shape[:dim], input.shape[dim], *shape[dim + 1 :]))
    return g.op("GatherElements", x, broadcast(g, indices, shape), axis=dim)


@translates("IndexFill")
def index_fill(g: Emitter, input: Tensor, dim: int, index: Tensor, value: Any) -> str:
    """x with a value in the slices along an axis."""
    if not input.ndim:
        return g.cast(g.operand(value, input.dtype), input.dtype, input.dtype)
    filling = Tensor(g.operand(value, input.dtype), (), input.dtype)
    return index_put(g, input, filling, *[None] * (dim % input.ndim), index)


@translates("MaskedScatter")
def masked_scatter(g: Emitter, input: Tensor, mask: Tensor, source: Tensor) -> str:
    """x with the first elements of the source, in order, where the mask is True."""
    shape = g.outs[0].shape
    flat = [g.op("Reshape", broadcast(g, each, shape), g.constant([-1])) for each in (input, mask)]
    places = g.op("Reshape", g.op("NonZero", flat[1]), g.constant([-1]))
    given = g.op("Reshape", source, g.constant([-1]))
    given = g.op("Slice", given, g.constant([0]), g.op("Shape", places))
    return g.reshape(g.op("ScatterElements", flat[0], places, given, axis=0), shape)


@translates("Cummax", "Cummin")
def cummax(g: Emitter, input: Tensor, dim: int) -> list[str]:
    """The extreme so far, and the place of the last such."""
    if not input.ndim:
        return [g.name(input), g.constant(0)]
    kind, dim = g.call.op.removeprefix("Cum").title(), dim % input.ndim
    dtype = input.dtype if input.dtype.kind != "b" else np.dtype(np.int32)
    lowest: Any = -np.inf if is_float(dtype) else np.iinfo(dtype).min
    highest: Any = np.inf if is_float(dtype) else np.iinfo(dtype).max
    matrix = so_far(g, Tensor(g.cast(input, dtype), input.shape, dtype), dim,
                    lowest if kind == "Max" else highest)  # fmt: skip
    value = g.op(f"Reduce{kind}", matrix, g.constant([dim + 1]), keepdims=0)
    place = g.op(f"Arg{kind}", matrix, axis=dim + 1, keepdims=0, select_last_index=1)
    return [g.cast(value, input.dtype, dtype), place]


@translates("RepeatInterleave")
def repeat_interleave(
    g: Emitter, input: Tensor, repeats: Any, dim: int | None, output_size: Any
) -> str:
    """Each slice along an axis repeated next to itself."""
    if not isinstance(repeats, int):
        raise g.error("the length of its result depends on the numbers in `repeats`")
    flat = g.op("Reshape", input, g.constant([-1])) if dim is None else g.name(input)
    axis = 0 if dim is None else dim % input.ndim
    if dim is None:
        count = math.prod(input.shape) if all(isinstance(n, int) for n in input.shape) else 0
        places = g.range(count) if count else g.op(
            "Range", g.constant(0), g.op("Size", input), g.constant(1)
        )  # fmt: skip
    else:
        places = g.range(input.shape[axis])
    each = g.op("Expand", g.unsqueeze(places, 1), g.constant([1, repeats]))
    return g.op("Gather", flat, g.op("Reshape", each, g.constant([-1])), axis=axis)


@translates("NllLoss")
def nll_loss(
    g: Emitter, input: Tensor, target: Tensor, weight: Tensor | None, size_average: Any,
    ignore_index: int, reduce: Any, reduction: str,
) -> str:  # fmt: skip
    """-w[t] * logp[t]; its mean is over the weights of the targets that count."""
    if size_average is not None or reduce is not None:
        raise g.error("say `reduction` in place of size_average and reduce")
    axis = min(input.ndim, 2) - 1
    ignored = g.op("Equal", target, g.constant(ignore_index, target.dtype))
    index = g.op("Where", ignored, g.constant(0, target.dtype), target)
    found = g.op("GatherElements", input, g.unsqueeze(index, axis), axis=axis)
    loss = g.op("Neg", g.squeeze(found, axis))
    zero = g.constant(0, input.dtype)
    weights = g.constant(1, input.dtype) if weight is None else g.op("Gather", weight, index)
    counted = g.op("Where", ignored, zero, weights)
    loss = g.op("Mul", g.op("Where", ignored, zero, loss), counted)
    if reduction == "none":
        return loss
    total = g.op("ReduceSum", loss, keepdims=0)
    if reduction == "sum":
        return total
    return g.op("Div", total, g.op("ReduceSum", counted, keepdims=0))
