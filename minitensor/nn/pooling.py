"""Pooling layers, and those that change the size of images without parameters."""

from __future__ import annotations

from typing import Any, ClassVar

from ..core import Tensor
from . import functional as F
from .module import Module


class _MaxPool(Module):
    """The maximum of windows."""

    dims: ClassVar[int]

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.dilation = dilation
        self.return_indices = return_indices
        self.ceil_mode = ceil_mode

    def forward(self, input: Tensor) -> Any:
        """Return the maximum of each window, and its places if `return_indices`."""
        pool = F.max_pool1d if self.dims == 1 else F.max_pool2d
        return pool(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            ceil_mode=self.ceil_mode,
            return_indices=self.return_indices,
        )

    def extra_repr(self) -> str:
        """Return the settings."""
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class MaxPool1d(_MaxPool):
    """Take the largest number in each window: (N, C, L) -> (N, C, M), or both without N.

    M = (L + 2 padding - dilation (K - 1) - 1) // stride + 1

    - `kernel_size`: K, the numbers in a window.
    - `stride`: the step from one window to the next (default K).
    - `padding`: places of -inf at each end, at most half a window.
    - `dilation`: the step from one number in a window to the next.
    - `return_indices`: return the places of the numbers too.
    - `ceil_mode`: let a last window reach beyond the end.
    """

    dims = 1


class MaxPool2d(_MaxPool):
    """Take the largest number in each window: (N, C, H, W) -> (N, C, H', W'), or both without N.

    Arguments, and each size of the result, are those of `MaxPool1d`; each may be one number, or
    one for height and width. Indices count height and width as one dimension.
    """

    dims = 2


class _AvgPool(Module):
    """The mean of windows."""

    def __init__(
        self, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool, count_include_pad: bool
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool1d(_AvgPool):
    """Take the mean of each window: (N, C, L) -> (N, C, M), or both without N.

    M = (L + 2 padding - K) // stride + 1

    - `kernel_size`: K, the numbers in a window.
    - `stride`: the step from one window to the next (default K).
    - `padding`: zeros at each end, at most half a window.
    - `ceil_mode`: let a last window reach beyond the end.
    - `count_include_pad`: count the padding in the mean.
    """

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        step = None if stride is None else _single(stride)
        sizes = _single(kernel_size), step, _single(padding)
        super().__init__(*sizes, ceil_mode, count_include_pad)

    def forward(self, input: Tensor) -> Tensor:
        """Return the mean of each window."""
        sizes = self.kernel_size, self.stride, self.padding
        return F.avg_pool1d(input, *sizes, self.ceil_mode, self.count_include_pad)


def _single(size: Any) -> Any:
    """Return a size as a tuple."""
    return tuple(size) if isinstance(size, tuple | list) else (size,)


class AvgPool2d(_AvgPool):
    """Take the mean of each window: (N, C, H, W) -> (N, C, H', W'), or both without N.

    Arguments, and each size of the result, are those of `AvgPool1d`; each may be one number, or
    one for height and width.

    - `divisor_override`: divide the sums by this number instead of their counts.
    """

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad)
        self.divisor_override = divisor_override

    def forward(self, input: Tensor) -> Tensor:
        """Return the mean of each window."""
        sizes = self.kernel_size, self.stride, self.padding
        how = self.ceil_mode, self.count_include_pad, self.divisor_override
        return F.avg_pool2d(input, *sizes, *how)


class _AdaptivePool(Module):
    """Windows that share each dimension evenly."""

    def __init__(self, output_size: Any) -> None:
        super().__init__()
        self.output_size = output_size

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"output_size={self.output_size}"


class AdaptiveAvgPool1d(_AdaptivePool):
    """Take the means of M windows that share the length evenly: (N, C, L) -> (N, C, M).

    - `output_size`: M.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the mean of each window."""
        return F.adaptive_avg_pool1d(input, self.output_size)


class AdaptiveAvgPool2d(_AdaptivePool):
    """Take the means of windows that share height and width: (N, C, H, W) -> (N, C, H', W').

    - `output_size`: (H', W') or one number for both; None keeps a size.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the mean of each window."""
        return F.adaptive_avg_pool2d(input, self.output_size)


class _AdaptiveMaxPool(_AdaptivePool):
    """The maximum of windows that share each dimension evenly."""

    def __init__(self, output_size: Any, return_indices: bool = False) -> None:
        super().__init__(output_size)
        self.return_indices = return_indices


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """Take the largest numbers of M windows that share the length evenly: (N, C, L) -> (N, C, M).

    - `output_size`: M.
    - `return_indices`: return the places of the numbers too.
    """

    def forward(self, input: Tensor) -> Any:
        """Return the maximum of each window, and its places if `return_indices`."""
        return F.adaptive_max_pool1d(input, self.output_size, self.return_indices)


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """Take the largest numbers of windows that share height and width evenly.

    Shapes: (N, C, H, W) -> (N, C, H', W').

    - `output_size`: (H', W') or one number for both; None keeps a size.
    - `return_indices`: return the places of the numbers too, height and width counted as one.
    """

    def forward(self, input: Tensor) -> Any:
        """Return the maximum of each window, and its places if `return_indices`."""
        return F.adaptive_max_pool2d(input, self.output_size, self.return_indices)


class Upsample(Module):
    """Interpolate all but the first two dimensions in another size: (N, C, *) -> (N, C, *).

    - `size`, `scale_factor`: the size to make, or what to multiply it by; one of them, a number or
      one for each dimension.
    - `mode`: "nearest", "linear" (one dimension), "bilinear" or "bicubic" (two), "trilinear".
    - `align_corners`, `recompute_scale_factor`: as in `functional.interpolate`.
    """

    def __init__(
        self,
        size: Any = None,
        scale_factor: Any = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ) -> None:
        super().__init__()
        self.name = type(self).__name__
        self.size = size
        if isinstance(scale_factor, tuple):
            self.scale_factor: Any = tuple(map(float, scale_factor))
        else:
            self.scale_factor = float(scale_factor) if scale_factor else None
        self.mode = mode
        self.align_corners = align_corners
        self.recompute_scale_factor = recompute_scale_factor

    def forward(self, input: Tensor) -> Tensor:
        """Return the input in another size."""
        return F.interpolate(
            input,
            self.size,
            self.scale_factor,
            self.mode,
            self.align_corners,
            self.recompute_scale_factor,
        )

    def extra_repr(self) -> str:
        """Return the settings."""
        if self.scale_factor is not None:
            return f"scale_factor={self.scale_factor!r}, mode={self.mode!r}"
        return f"size={self.size!r}, mode={self.mode!r}"


class ZeroPad2d(Module):
    """Put zeros around images: (N, C, H, W) -> (N, C, top + H + bottom, left + W + right).

    - `padding`: (left, right, top, bottom), or one number for all; negative ones crop.
    """

    def __init__(self, padding: int | tuple[int, int, int, int]) -> None:
        super().__init__()
        self.padding = (padding,) * 4 if isinstance(padding, int) else tuple(padding)

    def forward(self, input: Tensor) -> Tensor:
        """Return the images with zeros around them."""
        return F.pad(input, self.padding)

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"{self.padding}"
