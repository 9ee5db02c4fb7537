"""Convolution in one and two dimensions, and the windows that it is a matrix product of."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...core import Op, Tensor
from ...kernels import conv as kernel
from ...kernels import windows as im2col
from ..checks import check_tensors
from ..places import places
from ..samples import Rand, Samples, strided
from .fold import Im2col, check_positive, sizes_of

Padding = tuple[tuple[int, int], ...]  # before and after, along each dimension


def padding_of(
    op: str,
    padding: Any,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> Padding:
    """Return the padding before and after, of numbers, "valid" or "same"; RuntimeError."""
    if not isinstance(padding, str):
        sizes = sizes_of(op, "padding", padding, len(kernel_size))
        check_positive(op, 0, padding=sizes)
        return tuple((n, n) for n in sizes)
    if padding == "valid":
        return ((0, 0),) * len(kernel_size)
    if padding != "same":
        raise RuntimeError(f"{op}: Invalid padding string: {padding!r}, use 'same' or 'valid'")
    if max(stride) > 1:
        raise RuntimeError(f"{op}: padding='same' is not supported for strided convolutions")
    total = [d * (k - 1) for k, d in zip(kernel_size, dilation, strict=True)]
    return tuple((n // 2, n - n // 2) for n in total)


@functools.lru_cache(256)
def _windows(
    shape: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Padding,
    dilation: Sequence[int],
) -> im2col.Windows:
    """Return the windows of one or two dimensions, one as the columns of images of one row."""
    ones, none = (1,) * (2 - len(kernel_size)), ((0, 0),) * (2 - len(kernel_size))
    return im2col.Windows(
        (*ones, *shape), (*ones, *kernel_size), (*ones, *stride), (*none, *padding),
        (*ones, *dilation),
    )  # fmt: skip


def _shapes(
    x: tuple[int, ...], w: tuple[int, ...], windows: im2col.Windows
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of input and weight as images (N, C, H, W) and filters (F, C, U, V)."""
    channels = 1 - len(w)
    images = (math.prod(x[:channels]), x[channels], *windows.image)
    return images, (*w[:2], *windows.kernel)


def _call(
    op: type[Any],
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> Tensor:
    """Check the arguments of a convolution as PyTorch does, and run it."""
    name = op.op_name
    check_tensors(name, input=input, weight=weight, **({} if bias is None else {"bias": bias}))
    x, w, b = input._array, weight._array, None if bias is None else bias._array
    for other, t in (("weight", w), ("bias", b)):
        if t is not None and t.dtype != x.dtype:
            raise RuntimeError(
                f"{name}: Input type ({input.dtype}) and {other} type ({t.dtype}) should be the "
                "same: convert one with .to()"
            )
    if x.dtype.kind == "b":
        raise NotImplementedError(f"{name}: not implemented for bool: convert with .to()")
    stride, padding, dilation = (
        tuple(given) if isinstance(given, list) else given for given in (stride, padding, dilation)
    )
    settings = _settings(
        name, x.shape, w.shape, None if b is None else b.shape, stride, padding, dilation, groups
    )
    return op.apply(input, weight, bias, **settings)  # type: ignore[no-any-return]


@functools.lru_cache(256, typed=True)
def _settings(
    name: str,
    shape: tuple[int, ...],
    weights: tuple[int, ...],
    bias: tuple[int, ...] | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> dict[str, Any]:
    """Return the settings as the op takes them; RuntimeError if they or shapes do not fit."""
    dims = 1 if name == "conv1d" else 2
    if len(shape) not in (dims + 1, dims + 2):
        raise RuntimeError(
            f"{name}: Expected {dims + 1}D (unbatched) or {dims + 2}D (batched) input to {name}, "
            f"but got input of size: {list(shape)}"
        )
    if len(weights) != dims + 2:
        raise RuntimeError(
            f"{name}: the weight must have {dims + 2} dimensions (out, in / groups, "
            f"{'length' if dims == 1 else 'height, width'}), its shape is {weights}"
        )
    if groups < 1:
        raise RuntimeError(f"{name}: non-positive groups is not supported, got {groups}")
    size = weights[2:]
    stride, dilation = (
        sizes_of(name, word, given, dims)
        for word, given in (("stride", stride), ("dilation", dilation))
    )
    check_positive(name, stride=stride, dilation=dilation)
    padding = padding_of(name, padding, size, stride, dilation)
    given = f"{name}: Given groups={groups}, weight of size {list(weights)}"
    if weights[0] < groups or weights[0] % groups:
        raise RuntimeError(f"{given}: expected its first dimension to be divisible by {groups}")
    if shape[-dims - 1] != weights[1] * groups:
        raise RuntimeError(
            f"{given}, expected input{list(shape)} to have {weights[1] * groups} channels, but got "
            f"{shape[-dims - 1]} channels instead"
        )
    if bias is not None and bias != weights[:1]:
        raise RuntimeError(
            f"{given}, expected bias to be 1-dimensional with {weights[0]} elements, but got bias "
            f"of size {list(bias)} instead"
        )
    padded = [n + a + b for n, (a, b) in zip(shape[-dims:], padding, strict=True)]
    whole = [d * (k - 1) + 1 for k, d in zip(size, dilation, strict=True)]
    if min(size) < 1 or any(n < k for n, k in zip(padded, whole, strict=True)):
        raise RuntimeError(
            f"{name}: Calculated padded input size per channel: {tuple(padded)}. Kernel size: "
            f"{tuple(whole)}. Kernel size can't be greater than actual input size, nor 0"
        )
    if 0 in shape[-dims:]:
        raise RuntimeError(
            f"{name}: Only zero batch or zero channel inputs are supported, but got {list(shape)}"
        )
    return dict(stride=stride, padding=padding, dilation=dilation, groups=groups)


class _Convolution(Op, abstract=True):
    """A convolution of as many dimensions as the weight has beyond two."""

    namespaces = "torch functional"
    fused = True
    fresh = True

    def forward(
        ctx,
        x: np.ndarray,
        w: np.ndarray,
        b: np.ndarray | None,
        *,
        stride: tuple[int, ...],
        padding: Padding,
        dilation: tuple[int, ...],
        groups: int,
    ) -> np.ndarray:
        dims = w.ndim - 2
        windows = _windows(x.shape[-dims:], w.shape[2:], stride, padding, dilation)
        needs_x, needs_w, _ = ctx.needs_input_grad
        ctx.save(x if needs_w else None, w if needs_x else None, x.shape, w.shape, windows, groups)
        images, filters = _shapes(x.shape, w.shape, windows)
        y = kernel.convolve(x.reshape(images), w.reshape(filters), b, windows, groups)
        return y.reshape(*x.shape[: -dims - 1], len(w), *windows.out[-dims:])

    def backward(ctx, dy: np.ndarray) -> tuple[np.ndarray | None, ...]:
        x, w, x_shape, w_shape, windows, groups = ctx.saved
        images, filters = _shapes(x_shape, w_shape, windows)
        dy = dy.reshape(images[0], w_shape[0], math.prod(windows.out))
        x, w = None if x is None else x.reshape(images), None if w is None else w.reshape(filters)
        dx, dw, db = kernel.convolve_backward(
            dy, x, w, windows, groups, (images, filters), ctx.needs_input_grad[2]
        )
        return (
            None if dx is None else dx.reshape(x_shape),
            None if dw is None else dw.reshape(w_shape),
            db,
        )

    @staticmethod
    def cell(
        x: np.ndarray,
        w: np.ndarray,
        b: np.ndarray | None,
        *,
        stride: tuple[int, ...],
        padding: Padding,
        dilation: tuple[int, ...],
        groups: int,
    ) -> str:
        dims = w.ndim - 2
        *lead, filter_ = (letters := places(x.ndim))[:-dims]
        channels = ":"
        if groups > 1:
            count = w.shape[1]
            first = f"{filter_} // {len(w) // groups} * {count}"
            channels = f"{first} : {first} + {count}"
        taps, of, loops, inside = [], [], [], []
        for axis in range(dims):
            tap, size = "kh"[axis], x.shape[axis - dims]
            place = letters[axis - dims]
            place = place if stride[axis] == 1 else f"{place} * {stride[axis]}"
            step = tap if dilation[axis] == 1 else f"{tap} * {dilation[axis]}"
            before = f" - {padding[axis][0]}" if padding[axis][0] else ""
            at = f"{place} + {step}{before}"
            taps.append(tap)
            of.append(at)
            loops.append(f" for {tap} in range({w.shape[2 + axis]})")
            if any(padding[axis]):
                inside.append(f"({at} >= 0) & ({at} < {size})")
        product = (
            f"sum(w[{', '.join([filter_, ':', *taps])}] * x[{', '.join([*lead, channels, *of])}])"
        )
        only = f" if {' & '.join(inside)}" if inside else ""
        total = f"sum({product}{''.join(loops)}{only})"
        return total if b is None else f"{total} + b[{filter_}]"

    @staticmethod
    def flops(args: Sequence[Any], kwargs: Any, outs: Sequence[Tensor]) -> int:
        return 2 * outs[0].numel() * math.prod(args[1].shape[1:])

    @staticmethod
    def backward_flops(
        args: Sequence[Any], kwargs: Any, outs: Sequence[Tensor], needs: Sequence[bool]
    ) -> int:
        return sum(needs[:2]) * _Convolution.flops(args, kwargs, outs)  # dx and dw: each as much

    @staticmethod
    def decomposition(
        x: Tensor,
        w: Tensor,
        b: Tensor | None,
        *,
        stride: tuple[int, ...],
        padding: Padding,
        dilation: tuple[int, ...],
        groups: int,
    ) -> Tensor:
        dims = w.ndim - 2
        shape, features, size = tuple(x.shape), w.shape[0], math.prod(w.shape[1:])
        windows = _windows(shape[-dims:], tuple(w.shape[2:]), stride, padding, dilation)
        images, _ = _shapes(shape, tuple(w.shape), windows)
        columns = Im2col.apply(x.reshape(images), windows=windows)
        columns = columns.reshape(images[0], groups, size, math.prod(windows.out))
        y = w.reshape(groups, features // groups, size) @ columns
        y = y.reshape(*shape[: -dims - 1], features, *windows.out[-dims:])
        return y if b is None else y + b.reshape(features, *[1] * dims)


class Conv1d(_Convolution):
    """y[f, i] = sum over (c, u) of w[f, c, u] x[c, i * stride + u * dilation - padding] + b[f].

    (N, C, L), (F, C / groups, U), (F) -> (N, F, (L + 2 padding - dilation (U - 1) - 1) // stride +
    1); without N in both, too. x counts as 0 outside. With `groups`, each of as many parts of the
    F filters sees its own part of the channels. `padding` may be "valid", none, or "same", which
    keeps the length. `bias` may be None.  dx is the sum of wᵀ dy over windows, dw that of dy times
    windows, db = the sum of dy. RuntimeError for shapes or types that do not fit.
    """

    @staticmethod
    def call(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor:
        return _call(Conv1d, input, weight, bias, stride, padding, dilation, groups)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2, 3, 7), rand(4, 3, 3), rand(4), 2, 1
        yield rand(3, 6), rand(2, 3, 2), None, dict(padding="same", dilation=2)
        yield rand(2, 4, 6), rand(4, 2, 3), rand(4), dict(stride=(3,), groups=2)
        yield rand(2, 3, 5), rand(4, 3, 1), rand(4)
        yield rand(0, 2, 5), rand(3, 2, 3), rand(3)
        yield rand.constant(2, 3, 5), rand(4, 3, 3), rand(4)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 4, 5), rand(4, 3, 3)
        yield rand(2, 2, 3, 5), rand(4, 3, 3)
        yield rand(2, 3, 5), rand(4, 3, 3, 3)
        yield rand(2, 3, 5), rand(4, 3, 6)
        yield rand(2, 3, 5), rand(4, 3, 3), rand(3)
        yield rand(2, 3, 5), rand(4, 3, 3), None, 0
        yield rand(2, 3, 5), rand(4, 3, 3), None, 2, "same"
        yield rand(2, 3, 5), rand(4, 3, 3), None, 1, -1
        yield rand(2, 3, 5), rand(4, 3, 3), None, 1, "full"
        yield rand(2, 3, 5), rand(4, 3, 3), None, dict(dilation=0)
        yield rand(2, 3, 5), rand(4, 3, 3), None, dict(groups=3)
        yield rand(2, 3, 5), rand(4, 3, 3), None, dict(groups=0)
        yield rand(2, 3, 5), rand(4, 3, 3), None, dict(stride=(1, 1))
        yield rand(2, 3, 5), rand(4, 3, 3), None, dict(stride=1.5)
        yield rand(2, 3, 5), rand.integers(0, 5, 4, 3, 3)


class Conv2d(_Convolution):
    """y[f, i, j] = sum over (c, u, v) of w[f, c, u, v] x[c, i + u, j + v] + b[f].

    (N, C, H, W), (F, C / groups, U, V), (F) -> (N, F, H', W'); without N in both, too. Options
    are those of `conv1d`, one number or one for each dimension, and so is each size of the result.
    RuntimeError for shapes or types that do not fit.
    """

    @staticmethod
    def call(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor:
        return _call(Conv2d, input, weight, bias, stride, padding, dilation, groups)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2, 3, 5, 4), rand(4, 3, 3, 2), rand(4), (2, 1), (1, 0)
        yield rand(2, 1, 4, 6), rand(3, 1, 2, 2), rand(3), 2
        yield rand(2, 5, 6), rand(2, 2, 2, 3), None, dict(padding="same", dilation=(2, 1))
        yield rand(2, 4, 4, 4), rand(4, 1, 3, 3), rand(4), dict(padding=1, groups=4)
        yield rand(1, 4, 4, 3), rand(4, 2, 3, 2), None, dict(padding=2, groups=2, dilation=2)
        yield rand(2, 3, 2, 2), rand(4, 3, 1, 1), rand(4)
        yield rand(0, 2, 3, 3), rand(3, 2, 2, 2), rand(3)
        yield strided(rand(3, 2, 4, 4)), rand(4, 3, 2, 2), rand(4)
        yield rand.integers(0, 5, 1, 2, 3, 3), rand.integers(-5, 5, 2, 2, 2, 2)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 4, 5, 5), rand(4, 3, 3, 3)
        yield rand(5, 5), rand(4, 3, 3, 3)
        yield rand(2, 3, 5, 5), rand(4, 3, 3, 6)
        yield rand(2, 3, 0, 5), rand(4, 3, 3, 3), None, 1, 2
        yield rand(2, 3, 5, 5), rand(4, 3, 3, 3), rand(4, 1)
        yield rand(2, 3, 5, 5), rand(4, 3, 3, 3), None, dict(padding=(1, 1, 1))
        yield rand(2, 3, 5, 5), rand(0, 3, 3, 3)
        yield rand.bools(2, 3, 5, 5), rand.bools(4, 3, 3, 3)
