"""Normalisation layers: LayerNorm, RMSNorm, BatchNorm1d."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ..core import Tensor
from ..creation import empty, ones, tensor, zeros
from ..devices import DeviceLike
from ..dtype import DTypeLike
from . import functional as F
from . import init
from .module import Module
from .parameter import Parameter


def _as_shape(normalized_shape: int | Sequence[int]) -> tuple[int, ...]:
    if isinstance(normalized_shape, int | np.integer):
        return (int(normalized_shape),)
    return tuple(normalized_shape)


class LayerNorm(Module):
    """Normalise over the last dimensions: y = (x - mean) / sqrt(var + eps) * weight + bias.

    Shapes: (*, *normalized_shape) -> the same; weight and bias have `normalized_shape`. The
    variance is the biased one, the mean of (x - mean)^2.

    - `normalized_shape`: the sizes of the dimensions to normalise over, or one size for the last.
    - `eps`: keeps the root away from 0 (default 1e-5).
    - `elementwise_affine`: learn weight and bias, which start at 1 and 0; without it both are None.
    - `bias`: learn a bias, if `elementwise_affine`.
    - `device`, `dtype`: of the parameters.

    J. L. Ba, J. R. Kiros, G. E. Hinton, "Layer Normalization", 2016.
    """

    weight: Parameter  # None if there is none; typed as PyTorch's is
    bias: Parameter  # None if there is none; typed as PyTorch's is

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: DeviceLike = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__()
        self.normalized_shape = _as_shape(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        self.register_parameter("weight", None)
        self.register_parameter("bias", None)
        if elementwise_affine:
            self.weight = Parameter(empty(self.normalized_shape, device=device, dtype=dtype))
            if bias:
                self.bias = Parameter(empty(self.normalized_shape, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the weight to 1 and the bias to 0."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise the input: (*, *normalized_shape) -> the same."""
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Return the settings."""
        return (
            f"{self.normalized_shape}, eps={self.eps}, "
            f"elementwise_affine={self.elementwise_affine}, bias={self.bias is not None}"
        )


class RMSNorm(Module):
    """Divide by the root mean square over the last dimensions.

    y = x / sqrt(mean(x^2) + eps) * weight

    Shapes: (*, *normalized_shape) -> the same; weight has `normalized_shape`.

    - `normalized_shape`: the sizes of the dimensions of the mean, or one size for the last.
    - `eps`: keeps the root away from 0; None is the machine epsilon of the input's type.
    - `elementwise_affine`: learn a weight, which starts at 1; without it `weight` is None.
    - `device`, `dtype`: of the weight.

    B. Zhang, R. Sennrich, "Root Mean Square Layer Normalization", 2019.
    """

    weight: Parameter  # None if there is none; typed as PyTorch's is

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: DeviceLike = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__()
        self.normalized_shape = _as_shape(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        self.register_parameter("weight", None)
        if elementwise_affine:
            self.weight = Parameter(empty(self.normalized_shape, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the weight to 1."""
        if self.weight is not None:
            init.ones_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the input: (*, *normalized_shape) -> the same."""
        return F.rms_norm(x, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        """Return the settings."""
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
        )


class _BatchNorm(Module):
    """Batch norm for inputs of `dims` dimensions."""

    dims: ClassVar[tuple[int, ...]]
    weight: Parameter  # None if there is none; typed as PyTorch's is
    bias: Parameter  # None if there is none; typed as PyTorch's is
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: DeviceLike = None,
        dtype: DTypeLike | None = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        factory: Any = {"device": device, "dtype": dtype}
        self.register_parameter("weight", None)
        self.register_parameter("bias", None)
        if affine:
            self.weight = Parameter(empty(num_features, **factory))
            if bias:
                self.bias = Parameter(empty(num_features, **factory))
        track = track_running_stats
        self.register_buffer("running_mean", zeros(num_features, **factory) if track else None)
        self.register_buffer("running_var", ones(num_features, **factory) if track else None)
        self.register_buffer("num_batches_tracked", tensor(0) if track else None)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Set the averages back to mean 0 and variance 1."""
        for buffer, value in (
            (self.running_mean, 0),
            (self.running_var, 1),
            (self.num_batches_tracked, 0),
        ):
            if buffer is not None:
                init.constant_(buffer, value)

    def reset_parameters(self) -> None:
        """Set the averages back, the weight to 1 and the bias to 0."""
        self.reset_running_stats()
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise each channel; ValueError for another number of dimensions."""
        if input.dim() not in self.dims:
            expected = " or ".join(f"{n}D" for n in self.dims)
            raise ValueError(f"expected {expected} input (got {input.dim()}D input)")
        momentum = 0.0 if self.momentum is None else self.momentum
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:
                momentum = 1.0 / self.num_batches_tracked.item()
        tracked = not self.training or self.track_running_stats
        return F.batch_norm(
            input,
            self.running_mean if tracked else None,
            self.running_var if tracked else None,
            self.weight,
            self.bias,
            self.training or self.running_mean is None,
            momentum,
            self.eps,
        )

    def extra_repr(self) -> str:
        """Return the settings."""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )


class BatchNorm1d(_BatchNorm):
    """Normalise each channel over the batch: y = (x - mean) / sqrt(var + eps) * weight + bias.

    Shapes: (N, C) or (N, C, L) -> the same; weight and bias (C,).

    While training, mean and biased variance are those of the batch, and running averages of the
    mean and the unbiased variance are kept as buffers: new = (1 - momentum) * old + momentum *
    batch's. In evaluation mode the averages are used.

    - `num_features`: C, the number of channels.
    - `eps`: keeps the root away from 0 (default 1e-5).
    - `momentum`: the share of the latest batch in the averages (default 0.1); None weighs all
      batches equally.
    - `affine`: learn weight and bias, which start at 1 and 0; without it both are None.
    - `track_running_stats`: keep the averages; without them, evaluation uses the batch too.
    - `device`, `dtype`: of the parameters and the averages.
    - `bias`: learn a bias, if `affine`.

    S. Ioffe, C. Szegedy, "Batch Normalization", 2015.
    """

    dims = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Normalise each channel over the batch: y = (x - mean) / sqrt(var + eps) * weight + bias.

    Shapes: (N, C, H, W) -> the same; weight and bias (C,). Everything else is as in `BatchNorm1d`.
    """

    dims = (4,)


class GroupNorm(Module):
    """Normalise groups of channels of each sample: (N, C, *) -> the same.

    y = (x - mean) / sqrt(var + eps) * weight + bias, weight and bias (C,)

    - `num_groups`: the number of groups, which share the channels evenly.
    - `num_channels`: C.
    - `eps`: keeps the root away from 0 (default 1e-5).
    - `affine`: learn weight and bias, which start at 1 and 0; without it both are None.
    - `device`, `dtype`: of the parameters.
    - `bias`: learn a bias, if `affine`.

    Y. Wu, K. He, "Group Normalization", 2018.
    """

    weight: Parameter  # None if there is none; typed as PyTorch's is
    bias: Parameter  # None if there is none; typed as PyTorch's is

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: DeviceLike = None,
        dtype: DTypeLike | None = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if num_channels % num_groups:
            raise ValueError(
                f"GroupNorm: num_channels ({num_channels}) must be divisible by num_groups "
                f"({num_groups})"
            )
        self.num_groups = num_groups
        self.num_channels = num_channels
        self.eps = eps
        self.affine = affine
        self.register_parameter("weight", None)
        self.register_parameter("bias", None)
        if affine:
            self.weight = Parameter(empty(num_channels, device=device, dtype=dtype))
            if bias:
                self.bias = Parameter(empty(num_channels, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the weight to 1 and the bias to 0."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise the input: (N, C, *) -> the same."""
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Return the settings."""
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}"
        )
