"""Convolution, pooling and interpolation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..emit import Emitter, Tensor, is_float
from .shape import repeated
from .table import translates


def _batched(g: Emitter, x: Tensor, dims: int) -> tuple[Any, bool]:
    """Return images with a batch in front, and whether they had one."""
    batched = x.ndim == dims + 2
    return (x if batched else g.unsqueeze(x, 0)), batched


@translates("Conv1d", "Conv2d")
def conv(
    g: Emitter,
    x: Tensor,
    w: Tensor,
    b: Tensor | None,
    *,
    stride: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    dilation: tuple[int, ...],
    groups: int,
) -> str:
    """The products of filters with windows; an image without a batch gets one."""
    if not is_float(x.dtype):
        raise g.error("ONNX has convolutions of floats alone")
    images, batched = _batched(g, x, w.ndim - 2)
    y: str = g.op(
        "Conv",
        images,
        w,
        b,
        kernel_shape=list(w.shape[2:]),
        strides=list(stride),
        pads=[before for before, _ in padding] + [after for _, after in padding],
        dilations=list(dilation),
        group=groups,
    )
    return y if batched else g.squeeze(y, 0)


@translates("MaxPool1d", "MaxPool2d")
def max_pool(
    g: Emitter,
    input: Tensor,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
    return_indices: bool,
) -> Any:
    """The largest in each window, and where it is among the numbers of its channel."""
    dims = 1 if g.call.op == "MaxPool1d" else 2
    images, batched = _batched(g, input, dims)
    found = g.op(
        "MaxPool",
        images,
        outputs=1 + return_indices,
        **_window(dims, kernel_size, stride, padding, ceil_mode),
        dilations=repeated(dilation, dims),
    )
    made = found if return_indices else [found]
    if return_indices:  # ONNX counts through all images
        plane = g.op("ReduceProd", g.op("Shape", images, start=2), keepdims=0)
        made = [made[0], g.op("Mod", made[1], plane)]
    return made if batched else [g.squeeze(each, 0) for each in made]


def _window(
    dims: int, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool
) -> dict[str, Any]:
    """Return the attributes of a pool."""
    size = repeated(kernel_size, dims)
    return {
        "kernel_shape": size,
        "strides": size if stride is None or stride == () else repeated(stride, dims),
        "pads": repeated(padding, dims) * 2,
        "ceil_mode": int(ceil_mode),
    }


@translates("AvgPool1d", "AvgPool2d")
def avg_pool(
    g: Emitter,
    input: Tensor,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None = None,
) -> str:
    """The mean of each window."""
    dims = 1 if g.call.op == "AvgPool1d" else 2
    images, batched = _batched(g, input, dims)
    include = count_include_pad or divisor_override is not None
    how = _window(dims, kernel_size, stride, padding, ceil_mode)
    y = g.op("AveragePool", images, count_include_pad=int(include), **how)
    if divisor_override is not None:
        factor = math.prod(how["kernel_shape"]) / divisor_override
        y = g.op("Mul", y, g.constant(factor, input.dtype))
    return y if batched else g.squeeze(y, 0)


def _taps(g: Emitter, taps: Any) -> tuple[Any, ...]:
    """Return the places that are read, and their weights, if they are the same in all runs."""
    if not isinstance(taps, tuple) or not all(hasattr(t, "weight") for t in taps):
        raise g.error("what it reads depends on the size of the image: let that keep its size")
    return taps


@translates("Resample")
def resample(g: Emitter, x: Tensor, *, taps: Any) -> str:
    """Sums with weights along the last axes, one after the other: products with matrices."""
    y = g.name(x)
    for axis, t in enumerate(_taps(g, taps), start=x.ndim - len(taps)):
        matrix = np.zeros((t.size, len(t.count)), x.dtype)
        for made, (places, weights, count) in enumerate(
            zip(t.index, t.weight, t.count, strict=True)
        ):
            np.add.at(matrix, (places[:count], made), weights[:count])
        order = [*(d for d in range(x.ndim) if d != axis), axis]
        y = g.op("MatMul", g.transpose(y, order), g.constant(matrix, x.dtype))
        y = g.transpose(y, np.argsort(order).tolist())
    return y


def _windows(g: Emitter, x: Tensor, taps: Any) -> tuple[str, np.ndarray]:
    """Return the numbers of each window as a last axis, and their places in a channel."""
    rows = np.zeros((1, 1), np.int64)
    for t in _taps(g, taps):  # a window with fewer numbers has its first one several times
        short = np.arange(t.index.shape[1]) >= t.count[:, None]
        index = np.where(short, t.index[:, :1], t.index)
        rows = rows[:, None, :, None] * t.size + index[None, :, None, :]
        rows = rows.reshape(rows.shape[0] * rows.shape[1], -1)
    flat = g.op("Reshape", x, g.constant([0] * (x.ndim - len(taps)) + [-1]))
    return g.op("Gather", flat, g.constant(rows), axis=x.ndim - len(taps)), rows


@translates("MaxPool")
def adaptive_max_pool(g: Emitter, x: Tensor, *, taps: Any) -> str:
    """The largest of windows of several sizes."""
    numbers, _ = _windows(g, x, taps)
    return g.reshape(g.op("ReduceMax", numbers, g.constant([-1]), keepdims=0), g.outs[0].shape)


@translates("MaxPoolIndices")
def adaptive_max_pool_indices(g: Emitter, x: Tensor, *, taps: Any) -> str:
    """The places of the largest of windows."""
    numbers, places = _windows(g, x, taps)
    best = g.op("ArgMax", numbers, axis=-1, keepdims=0)
    starts = g.constant(np.arange(len(places)) * places.shape[1])
    found = g.op("Gather", g.constant(places.reshape(-1)), g.op("Add", best, starts))
    return g.reshape(found, g.outs[0].shape)


@translates("Im2col")
def im2col(g: Emitter, x: Tensor, *, windows: Any) -> str:
    """The windows of images as columns: (N, C, H, W) -> (N, C * U * V, windows)."""
    image, kernel, stride, padding, dilation = windows
    if not all(isinstance(n, int) for n in image):
        raise g.error("the windows depend on the size of the image: let that keep its size")
    before, after = zip(*padding, strict=True)
    y = g.op("Pad", x, g.constant([0, 0, *before, 0, 0, *after]), g.constant(0, x.dtype))
    for axis, n, k, s, ends, d in zip(
        (2, 4), image, kernel, stride, padding, dilation, strict=True
    ):
        count = (n + sum(ends) - d * (k - 1) - 1) // s + 1
        places = np.arange(k)[:, None] * d + np.arange(count) * s
        y = g.op("Gather", y, g.constant(places), axis=axis)
    y = g.op("Transpose", y, perm=[0, 1, 2, 4, 3, 5])
    return g.op("Reshape", y, g.constant([0, *(int(n) for n in g.outs[0].shape[1:])]))


@translates("Col2im")
def col2im(g: Emitter, x: Tensor, *, windows: Any) -> str:
    """The sums of columns where their windows overlap: `im2col`, transposed."""
    image, kernel, stride, padding, dilation = windows
    before, after = zip(*padding, strict=True)
    return g.op(
        "Col2Im",
        x,
        g.sizes(image),
        g.constant(kernel),
        strides=list(stride),
        pads=[*before, *after],
        dilations=list(dilation),
    )
