"""Pooling: means and maxima of windows of the last one or two dimensions."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from ...core import Tensor
from ...kernels import resample as kernel
from ..checks import SEQUENCE, check_floating, check_tensors
from ..composite import composite
from ..samples import strided
from .fold import sizes_of
from .resample import MaxPool, MaxPoolIndices, Resample, window

# Windows


@functools.lru_cache(maxsize=256)
def _mean_window(
    n: int, kernel_size: int, stride: int, padding: int, ceil: bool, include: bool, divisor: float
) -> kernel.Taps:
    """Return the taps of a mean: over `divisor`, or unless that is 0 over the numbers in it."""
    taps = window(n, kernel_size, stride, padding, 1, ceil)
    count: Any = taps.count
    if divisor:
        count = np.full(len(count), divisor)
    elif include:
        start = np.arange(len(count)) * stride - padding
        count = np.minimum(start + kernel_size, n + padding) - start
    weight = np.broadcast_to(1 / count[:, None], taps.index.shape)
    return dataclasses.replace(taps, weight=np.ascontiguousarray(weight))


@functools.lru_cache(maxsize=256)
def adaptive_window(n: int, count: int) -> kernel.Taps:
    """Return the taps of `count` windows that share a dimension of n evenly."""
    i = np.arange(count)
    return kernel.windows(i * n // max(count, 1), -(-(i + 1) * n // max(count, 1)), 1, n)


def _check(op: str, input: Tensor, dims: int, error: type[Exception] = RuntimeError) -> Any:
    """Return the last dimensions of a tensor of floats, batched or not."""
    check_tensors(op, input=input)
    shape = input._array.shape
    if len(shape) not in (dims + 1, dims + 2):
        raise (error if len(shape) <= dims else RuntimeError)(
            f"{op}: expected {dims + 1} dimensions (channels, {'length' if dims == 1 else 'height'}"
            f"{'' if dims == 1 else ', width'}), or {dims + 2} with a batch, got shape {shape}"
        )
    if 0 in shape[-dims - 1 :]:
        raise RuntimeError(f"{op}: only the batch may be empty, got shape {shape}")
    check_floating(op, input)
    return shape[-dims:]


def _pool_taps(
    op: str,
    shape: tuple[int, ...],
    sizes: tuple[Any, Any, Any],
    dilation: Any,
    ceil: bool,
    mean: tuple[bool, int | None] | None = None,
) -> tuple[kernel.Taps, ...]:
    """Return the taps of windows of `sizes`, of the mean with its settings or of the maximum."""
    dims = len(shape)
    kernel_size, stride, padding = sizes
    size = sizes_of(op, "kernel_size", kernel_size, dims)
    step = size if stride is None or stride == () else sizes_of(op, "stride", stride, dims)
    pad, gap = sizes_of(op, "padding", padding, dims), sizes_of(op, "dilation", dilation, dims)
    return _fitted_taps(op, shape, size, step, pad, gap, bool(ceil), mean)


@functools.lru_cache(maxsize=256)
def _fitted_taps(
    op: str,
    shape: tuple[int, ...],
    size: tuple[int, ...],
    step: tuple[int, ...],
    pad: tuple[int, ...],
    gap: tuple[int, ...],
    ceil: bool,
    mean: tuple[bool, int | None] | None,
) -> tuple[kernel.Taps, ...]:
    """Check sizes of windows as PyTorch does, and return the taps along each dimension."""
    for name, values in (("kernel_size", size), ("stride", step), ("dilation", gap)):
        if min(values) < 1:
            raise RuntimeError(f"{op}: {name} must be greater than zero, got {values}")
    include, divisor = mean or (True, None)
    if divisor == 0:
        raise RuntimeError(f"{op}: divisor must be not zero")
    if any(not 0 <= p <= (d * (k - 1) + 1) // 2 for p, k, d in zip(pad, size, gap, strict=True)):
        raise RuntimeError(
            f"{op}: padding must be from 0 to half of the kernel size, got padding={pad} with "
            f"kernel_size={size}"
        )
    taps: list[kernel.Taps] = []
    for n, k, s, p, d in zip(shape, size, step, pad, gap, strict=True):
        if mean is None:
            taps.append(window(n, k, s, p, d, ceil))
        else:
            share = 0 if divisor is None else 1 if taps else divisor
            taps.append(_mean_window(n, k, s, p, ceil, include, share))
    if not all(len(t.count) for t in taps):
        raise RuntimeError(f"{op}: no window of {size} fits in {tuple(shape)} with padding {pad}")
    return tuple(taps)


def _max_pool(
    input: Tensor, dims: int, sizes: Any, dilation: Any, ceil_mode: bool, return_indices: bool
) -> Any:
    op = f"max_pool{dims}d"
    shape = _check(op, input, dims)
    return _maximum(input, _pool_taps(op, shape, sizes, dilation, ceil_mode), return_indices)


def _maximum(input: Tensor, taps: tuple[kernel.Taps, ...], return_indices: bool) -> Any:
    y = MaxPool.apply(input, taps=taps)
    return (y, MaxPoolIndices.apply(input, taps=taps)) if return_indices else y


def _avg_pool(
    input: Tensor, dims: int, sizes: Any, ceil_mode: bool, include: bool, divisor: int | None
) -> Tensor:
    op = f"avg_pool{dims}d"
    shape = _check(op, input, dims, RuntimeError if dims == 1 else IndexError)
    return Resample.apply(
        input, taps=_pool_taps(op, shape, sizes, 1, ceil_mode, (include, divisor))
    )


def _adaptive_taps(op: str, input: Tensor, dims: int, output_size: Any) -> tuple[kernel.Taps, ...]:
    """Return the taps of adaptive pooling to `output_size`, None keeping a size."""
    shape = _check(op, input, dims)
    given = tuple(output_size) if isinstance(output_size, SEQUENCE) else (output_size,) * dims
    if len(given) != dims:
        raise RuntimeError(f"{op}: output_size must be {dims} sizes, got {output_size}")
    if dims > 1:
        given = tuple(n if o is None else o for o, n in zip(given, shape, strict=True))
    out = sizes_of(op, "output_size", given, dims)
    if min(out) < 0:
        raise RuntimeError(f"{op}: output_size must not be negative, got {output_size}")
    return tuple(adaptive_window(n, o) for n, o in zip(shape, out, strict=True))


# The functions

_POOL_ERRORS: Any = lambda rand, *shape: [  # noqa: E731
    (rand(*shape), 0),
    (rand(*shape), 2, 0),
    (rand(*shape), 9),
    (rand(*shape), 2, 1, 2),
    (rand(*shape), 2, 1, -1),
    (rand(*shape), 1.5),
    (rand(*shape), (2, 2, 2)),
    (rand(1, 1, *shape), 2),
]


@composite(
    namespaces="functional",
    torch_name="nn.functional.max_pool1d",
    samples=lambda rand: [
        (rand.distinct(2, 3, 7), 3),
        (rand.distinct(3, 7), 3, 2, 1),
        (rand.distinct(2, 3, 8), 2, 3, dict(dilation=2, ceil_mode=True)),
        (rand.distinct(2, 3, 7), (2,), dict(return_indices=True)),
    ],
    errors=lambda rand: [*_POOL_ERRORS(rand, 3, 5), (rand.integers(0, 5, 1, 3, 5), 2)],
)
def max_pool1d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """y = the largest number in each window: (N, C, L) -> (N, C, M).

    M = (L + 2 padding - dilation (K - 1) - 1) // stride + 1 for windows of `kernel_size` K.
    N may be missing. `stride` is K by default, `dilation` the step from one number in a window to
    the next. With `ceil_mode` a last window may reach beyond the end; with `return_indices`, the
    places of the numbers are returned too. Of equals the first gets the gradient.
    RuntimeError for sizes that do not fit, NotImplementedError for integers.
    """
    sizes = kernel_size, stride, padding
    return _max_pool(input, 1, sizes, dilation, ceil_mode, return_indices)


@composite(
    namespaces="functional",
    torch_name="nn.functional.max_pool2d",
    samples=lambda rand: [
        (rand.distinct(2, 2, 4, 6), 2),
        (rand.distinct(2, 5, 6), (3, 2), (2, 1), 1),
        (strided(rand.distinct(2, 1, 6, 5)), 2, 2, dict(dilation=(2, 1), ceil_mode=True)),
        (rand.distinct(1, 2, 5, 5), 3, 1, dict(return_indices=True)),
        (rand(0, 2, 5, 5), 3),
    ],
    errors=lambda rand: [*_POOL_ERRORS(rand, 3, 5, 5), (rand(3, 0, 5), 1)],
)
def max_pool2d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """y = the largest number in each window: (N, C, H, W) -> (N, C, H', W').

    As `max_pool1d`, with one number or one for each dimension; indices count H and W as one.
    """
    sizes = kernel_size, stride, padding
    return _max_pool(input, 2, sizes, dilation, ceil_mode, return_indices)


@composite(
    namespaces="functional",
    torch_name="nn.functional.avg_pool1d",
    samples=lambda rand: [
        (rand(2, 3, 7), 3),
        (rand(3, 7), 3, 2, 1),
        (rand(2, 3, 8), 3, 2, 1, True, False),
    ],
    errors=lambda rand: _POOL_ERRORS(rand, 3, 5),
)
def avg_pool1d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """y = the mean of each window: (N, C, L) -> (N, C, (L + 2 padding - K) // stride + 1).

    N may be missing. `stride` is the kernel size K by default; the padding is of zeros, which the
    mean counts unless `count_include_pad` is False. With `ceil_mode` a last window may reach beyond
    the end. RuntimeError for sizes that do not fit, NotImplementedError for integers.
    """
    sizes = kernel_size, stride, padding
    return _avg_pool(input, 1, sizes, ceil_mode, count_include_pad, None)


@composite(
    namespaces="functional",
    torch_name="nn.functional.avg_pool2d",
    samples=lambda rand: [
        (rand(2, 2, 4, 6), 2),
        (rand(2, 5, 6), (3, 2), (2, 1), 1),
        (strided(rand(2, 1, 6, 5)), 3, 2, 1, True, False),
        (rand(2, 2, 5, 5), 3, 2, 1, True, True),
        (rand(1, 2, 5, 5), 3, dict(divisor_override=-2)),
        (rand(0, 2, 5, 5), 3),
    ],
    errors=lambda rand: [
        *_POOL_ERRORS(rand, 3, 5, 5),
        (rand(5, 5), 2),
        (rand(3, 5, 5), 2, dict(divisor_override=0)),
    ],
)
def avg_pool2d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """y = the mean of each window: (N, C, H, W) -> (N, C, H', W').

    As `avg_pool1d`, with one number or one for each dimension. `divisor_override` is what the sums
    are divided by instead of their counts.
    """
    sizes = kernel_size, stride, padding
    return _avg_pool(input, 2, sizes, ceil_mode, count_include_pad, divisor_override)


@composite(
    namespaces="functional",
    torch_name="nn.functional.adaptive_avg_pool1d",
    samples=lambda rand: [(rand(2, 3, 7), 3), (rand(3, 4), (6,))],
    errors=lambda rand: [(rand(2, 3, 4), None), (rand(4), 2), (rand(2, 3, 4), -1)],
)
def adaptive_avg_pool1d(input: Tensor, output_size: Any) -> Tensor:
    """y = means of `output_size` windows that share the length evenly: (N, C, L) -> (N, C, M)."""
    taps = _adaptive_taps("adaptive_avg_pool1d", input, 1, output_size)
    return Resample.apply(input, taps=taps)


@composite(
    namespaces="functional",
    torch_name="nn.functional.adaptive_avg_pool2d",
    samples=lambda rand: [
        (rand(2, 3, 5, 7), (2, 3)),
        (rand(3, 5, 4), (None, 1)),
        (rand(1, 2, 2, 3), 4),
    ],
    errors=lambda rand: [
        (rand(4, 4), 2),
        (rand(1, 4, 4), (2,)),
        (rand(1, 4, 4), -1),
        (rand(1, 1, 0, 4), 2),
        (rand.integers(0, 5, 1, 4, 4), 2),
    ],
)
def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """y = means of windows that share height and width evenly: (N, C, H, W) -> (N, C, H', W').

    `output_size` is (H', W') or one number for both; None keeps a size.
    """
    taps = _adaptive_taps("adaptive_avg_pool2d", input, 2, output_size)
    return Resample.apply(input, taps=taps)


@composite(
    namespaces="functional",
    torch_name="nn.functional.adaptive_max_pool1d",
    samples=lambda rand: [
        (rand.distinct(2, 3, 7), 3),
        (rand.distinct(3, 4), (6,), dict(return_indices=True)),
    ],
    errors=lambda rand: [(rand(4), 2), (rand(2, 3, 4), -1)],
)
def adaptive_max_pool1d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """y = the largest of `output_size` windows that share the length evenly, as `max_pool1d`."""
    taps = _adaptive_taps("adaptive_max_pool1d", input, 1, output_size)
    return _maximum(input, taps, return_indices)


@composite(
    namespaces="functional",
    torch_name="nn.functional.adaptive_max_pool2d",
    samples=lambda rand: [
        (rand.distinct(2, 1, 5, 7), (2, 3)),
        (rand.distinct(1, 5, 4), (None, 1), dict(return_indices=True)),
    ],
    errors=lambda rand: [(rand(4, 4), 2), (rand(1, 4, 4), (2,)), (rand.bools(1, 4, 4), 2)],
)
def adaptive_max_pool2d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """y = the largest of windows that share height and width evenly, as `max_pool2d`."""
    taps = _adaptive_taps("adaptive_max_pool2d", input, 2, output_size)
    return _maximum(input, taps, return_indices)
