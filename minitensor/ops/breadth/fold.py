"""The windows of images as columns of a matrix, and back: `unfold` and `fold`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import index as as_int
from typing import Any

import numpy as np

from ... import memory
from ...core import Op, Tensor, attach
from ...kernels import parallel
from ...kernels import windows as kernel
from ..checks import SEQUENCE, check_floating, check_tensors
from ..places import places
from ..samples import Rand, Samples


def sizes_of(op: str, name: str, given: Any, dims: int) -> tuple[int, ...]:
    """Return one size for each dimension, of an int or a sequence; else TypeError, RuntimeError."""
    if type(given) is int:  # the usual case
        return (given,) * dims
    try:
        found = tuple(map(as_int, given if isinstance(given, SEQUENCE) else (given,)))
    except TypeError:
        raise TypeError(f"{op}: {name} must be an int or a tuple of ints, not {given!r}") from None
    if len(found) not in (1, dims):
        raise RuntimeError(
            f"{op}: expected {name} to be a single integer value or a list of {dims} values to "
            f"match the convolution dimensions, but got {name}={list(found)}"
        )
    return found * dims if len(found) == 1 else found


def check_positive(op: str, minimum: int = 1, **sizes: Sequence[int]) -> None:
    """Raise RuntimeError for sizes below `minimum`, 1 or 0."""
    for name, values in sizes.items():
        if min(values) < minimum:
            what = "non-positive" if minimum else "negative"
            raise RuntimeError(f"{op}: {what} {name} is not supported, got {tuple(values)}")


class Im2col(Op):
    """y = the windows of images as columns: (N, C, H, W) -> (N, C * size of a window, windows).

    dx = the sum of dy where the numbers are from.
    """

    namespaces = ""
    torch_name = None
    moves = ("x",)
    takes_half = False  # the kernel does not

    def forward(ctx, x: np.ndarray, *, windows: kernel.Windows) -> np.ndarray:
        ctx.save(windows)
        return kernel.gather(parallel.contiguous(x), windows)

    def backward(ctx, dy: Tensor) -> Tensor:
        return Col2im.apply(dy, windows=ctx.saved[0])

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2, 2, 4, 3), _sample()


class Col2im(Op):
    """y = the sum of columns where they are in images, the gradient of `im2col`: dx = im2col(dy).

    (N, C * size of a window, windows) -> (N, C, H, W).
    """

    namespaces = ""
    torch_name = None

    def forward(ctx, x: np.ndarray, *, windows: kernel.Windows) -> np.ndarray:
        ctx.save(windows)
        columns = parallel.contiguous(x)
        channels = x.shape[1] // math.prod(windows.kernel)
        images = memory.empty((len(x), channels, *windows.image), columns.dtype)
        return kernel.scatter(columns, windows, images)

    @staticmethod
    def cell(x: np.ndarray, *, windows: kernel.Windows) -> str:
        i, j, *place = places(4)
        window, inside = [], []
        for axis, tap in enumerate("kh"):
            start = (
                f"({place[axis]} + {windows.padding[axis][0]} - {tap} * {windows.dilation[axis]})"
            )
            step, count = windows.stride[axis], windows.out[axis]
            window.append(f"{start} // {step}")
            inside.append(f"({start} % {step} == 0) & ({start} >= 0) & ({start} < {step * count})")
        u, v = windows.kernel
        column = (
            f"x[{i}, ({j} * {u} + k) * {v} + h, ({window[0]}) * {windows.out[1]} + {window[1]}]"
        )
        loops = f"for k in range({u}) for h in range({v})"
        return f"sum({column} {loops} if {' & '.join(inside)})"

    def backward(ctx, dy: Tensor) -> Tensor:
        return Im2col.apply(dy, windows=ctx.saved[0])

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2, 8, 9), _sample()


def _sample() -> dict[str, Any]:
    return dict(windows=kernel.Windows((4, 3), (2, 2), (2, 1), ((1, 1), (0, 1)), (1, 1)))


def _unfolded(
    op: str, image: Sequence[int], kernel_size: Any, dilation: Any, padding: Any, stride: Any
) -> kernel.Windows:
    """Return the windows of `unfold` and `fold`; RuntimeError unless one fits."""
    given = dict(kernel_size=kernel_size, dilation=dilation, padding=padding, stride=stride)
    pairs = {}
    for name, value in given.items():
        pairs[name] = sizes_of(op, name, value, 2)
        check_positive(op, int(name != "padding"), **{name: pairs[name]})
    pad = tuple((n, n) for n in pairs["padding"])
    size, step, gap = pairs["kernel_size"], pairs["stride"], pairs["dilation"]
    windows = kernel.Windows(tuple(image), size, step, pad, gap)
    if min(windows.out) < 1:
        raise RuntimeError(
            f"{op}: no window of {size} fits in {tuple(image)} with padding {pairs['padding']} "
            f"and dilation {gap}"
        )
    return windows


def unfold(
    input: Tensor, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Tensor:
    """y = the windows of images as columns: (N, C, H, W) -> (N, C * U * V, windows).

    `kernel_size` is (U, V) or one number for both, as are the others; N may be missing. Within a
    column, channels come first, then rows. RuntimeError for sizes that do not fit.
    """
    check_tensors("unfold", input=input)
    shape = input._array.shape
    if len(shape) not in (3, 4):
        raise (IndexError if len(shape) < 3 else RuntimeError)(
            f"unfold: expected (channels, height, width), or a batch of them, got shape {shape}"
        )
    if 0 in shape[-3:]:
        raise RuntimeError(f"unfold: only the batch may be empty, got shape {shape}")
    check_floating("unfold", input)
    windows = _unfolded("unfold", shape[-2:], kernel_size, dilation, padding, stride)
    if len(shape) == 4:
        return Im2col.apply(input, windows=windows)
    return Im2col.apply(input.unsqueeze(0), windows=windows).squeeze(0)


def fold(
    input: Tensor,
    output_size: Any,
    kernel_size: Any,
    dilation: Any = 1,
    padding: Any = 0,
    stride: Any = 1,
) -> Tensor:
    """y = the sums of columns where `unfold` has them from.

    (N, C * U * V, windows) -> (N, C, H, W) for a `kernel_size` of (U, V); N may be missing.
    `output_size` is (H, W) or one number for both. RuntimeError for sizes that do not fit.
    """
    check_tensors("fold", input=input)
    shape, image = tuple(input.shape), sizes_of("fold", "output_size", output_size, 2)
    if len(shape) not in (2, 3) or 0 in shape[-2:]:
        raise RuntimeError(
            f"fold: expected (channels * size of a window, windows), or a batch, got shape {shape}"
        )
    windows = _unfolded("fold", image, kernel_size, dilation, padding, stride)
    rows, count = math.prod(windows.kernel), math.prod(windows.out)
    if shape[-2] % rows or shape[-1] != count:
        raise RuntimeError(
            f"fold: windows of {windows.kernel} in {image} make columns (channels * {rows}, "
            f"{count}), the input has shape {shape}"
        )
    check_floating("fold", input)
    if len(shape) == 3:
        return Col2im.apply(input, windows=windows)
    return Col2im.apply(input.unsqueeze(0), windows=windows).squeeze(0)


for _function in (unfold, fold):
    attach("functional", _function.__name__, _function)
