"""Convolution layers."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from ..core import Tensor
from ..creation import empty
from ..devices import DeviceLike
from ..dtype import DTypeLike
from ..ops.breadth.conv import padding_of
from . import functional as F
from . import init
from .module import Module
from .parameter import Parameter

_PADS = ("zeros", "reflect", "replicate", "circular")


def _each(sizes: Any, dims: int) -> tuple[int, ...]:
    """Return one size for each dimension."""
    return tuple(sizes) if isinstance(sizes, (tuple, list)) else (sizes,) * dims


class _Convolution(Module):
    """A convolution of one or of two dimensions."""

    dims: ClassVar[int]
    weight: Parameter
    bias: Parameter  # None if there is none; typed as PyTorch's is

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: DeviceLike = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__()
        name, dims = type(self).__name__, self.dims
        if groups <= 0:
            raise ValueError(f"{name}: groups must be a positive integer, got {groups}")
        for word, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if channels % groups:
                raise ValueError(f"{name}: {word}={channels} must be divisible by groups={groups}")
        if isinstance(padding, str) and padding not in ("same", "valid"):
            raise ValueError(
                f"{name}: padding must be a number, 'same' or 'valid', not {padding!r}"
            )
        if padding_mode not in _PADS:
            raise ValueError(
                f"{name}: padding_mode must be one of {', '.join(_PADS)}, not {padding_mode!r}"
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = _each(kernel_size, dims)
        self.stride = _each(stride, dims)
        if padding == "same" and max(self.stride) > 1:
            raise ValueError(f"{name}: padding='same' is not supported for strided convolutions")
        self.padding = padding if isinstance(padding, str) else _each(padding, dims)
        self.dilation = _each(dilation, dims)
        self.groups = groups
        self.padding_mode = padding_mode
        factory: Any = {"device": device, "dtype": dtype}
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        self.weight = Parameter(empty(shape, **factory))
        self.register_parameter("bias", None)
        if bias:
            self.bias = Parameter(empty(out_channels, **factory))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias uniformly from +-1/sqrt(the weights that make one number)."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        fan_in = math.prod(self.weight.shape[1:])
        if self.bias is not None and fan_in:
            init.uniform_(self.bias, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))

    def forward(self, input: Tensor) -> Tensor:
        """Convolve the input with the weight."""
        function = F.conv1d if self.dims == 1 else F.conv2d
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            input, padding = F.pad(input, self._border(), self.padding_mode), 0
        return function(
            input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups
        )

    def _border(self) -> tuple[int, ...]:
        """Return the padding as `F.pad` takes it: before and after, of the last dimension first."""
        pairs = padding_of(
            type(self).__name__, self.padding, self.kernel_size, self.stride, self.dilation
        )
        return tuple(n for pair in reversed(pairs) for n in pair)

    def extra_repr(self) -> str:
        """Return the settings, those that have other values than by default."""
        ones = (1,) * self.dims
        text = (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}"
        )
        if self.padding != (0,) * self.dims:
            text += f", padding={self.padding}"
        if self.dilation != ones:
            text += f", dilation={self.dilation}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        if self.padding_mode != "zeros":
            text += f", padding_mode={self.padding_mode}"
        return text


class Conv1d(_Convolution):
    """Apply learned filters at every place of sequences: y = conv1d(x, weight) + bias.

    Shapes: (N, C, L) -> (N, F, (L + 2 padding - dilation (K - 1) - 1) // stride + 1), or both
    without N; weight (F, C / groups, K) and bias (F) start uniform in +-1/sqrt(C / groups * K).

    - `in_channels`, `out_channels`: C and F.
    - `kernel_size`, `stride`, `dilation`: K, the step from one window to the next, and the step
      from one number in a window to the next; each an int or a tuple of one.
    - `padding`: how far the input is continued at each end; "valid" is 0, "same" as far as it takes
      to keep the length.
    - `groups`: each of so many parts of the filters sees its own part of the channels.
    - `bias`: add a bias (default True); without one `bias` is None.
    - `padding_mode`: continue the input by "zeros", "reflect", "replicate" or "circular".
    - `device`, `dtype`: of the parameters.

    ValueError for settings that do not fit.
    """

    dims = 1


class Conv2d(_Convolution):
    """Apply learned filters at every place of images: y = conv2d(x, weight) + bias.

    Shapes: (N, C, H, W) -> (N, F, H', W'), or both without N; weight (F, C / groups, U, V) and
    bias (F) start uniform in +-1/sqrt(C / groups * U * V).

    Arguments, and each size of the result, are those of `Conv1d`; each may be one number, or one
    for height and width. A layer that cuts images in patches has `stride` equal to `kernel_size`.
    """

    dims = 2


class Unfold(Module):
    """Gather the windows of images as columns: (N, C, H, W) -> (N, C * size of a window, windows).

    - `kernel_size`, `dilation`, `padding`, `stride`: of the windows, as in `Conv2d`.
    """

    def __init__(
        self, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.padding = padding
        self.stride = stride

    def forward(self, input: Tensor) -> Tensor:
        """Return the windows as columns."""
        return F.unfold(input, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        """Return the settings."""
        return (
            f"kernel_size={self.kernel_size}, dilation={self.dilation}, padding={self.padding}, "
            f"stride={self.stride}"
        )


class Fold(Module):
    """Sum columns where `Unfold` has them from: (N, C * size of a window, windows) -> (N, C, H, W).

    - `output_size`: (H, W), or one number for both.
    - `kernel_size`, `dilation`, `padding`, `stride`: of the windows, as in `Conv2d`.
    """

    def __init__(
        self,
        output_size: Any,
        kernel_size: Any,
        dilation: Any = 1,
        padding: Any = 0,
        stride: Any = 1,
    ) -> None:
        super().__init__()
        self.output_size = output_size
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.padding = padding
        self.stride = stride

    def forward(self, input: Tensor) -> Tensor:
        """Return the sums of the columns."""
        return F.fold(
            input, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride
        )

    def extra_repr(self) -> str:
        """Return the settings."""
        return (
            f"output_size={self.output_size}, kernel_size={self.kernel_size}, "
            f"dilation={self.dilation}, padding={self.padding}, stride={self.stride}"
        )
