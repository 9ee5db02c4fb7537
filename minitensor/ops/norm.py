"""Normalisation: layer and RMS norm of the last dimensions, batch norm of channels, unit length."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..autograd import no_grad
from ..core import Op, Tensor
from ..kernels import norm as kernel
from .convert import Samples, cast
from .shape import strided


def normalized_dims(
    name: str, input: Tensor, normalized_shape: Any, **parameters: Tensor | None
) -> int:
    """How many dimensions `normalized_shape` has, once it fits the input and the parameters."""
    if not isinstance(normalized_shape, tuple | list):
        raise TypeError(
            f"{name}: normalized_shape must be a tuple of ints, not "
            f"{type(normalized_shape).__name__}"
        )
    shape, dims = tuple(normalized_shape), len(normalized_shape)
    if not dims:
        raise RuntimeError(f"{name}: normalized_shape must have at least one dimension, got ()")
    if input._array.shape[-dims:] != shape:
        raise RuntimeError(
            f"{name}: the input must end in the dimensions normalized_shape={shape}, but its shape "
            f"is {tuple(input.shape)}"
        )
    if input._array.dtype.kind != "f":
        raise NotImplementedError(f"{name}: not implemented for {input.dtype}: use .float()")
    for which, p in parameters.items():
        if p is not None and p._array.shape != shape:
            raise RuntimeError(
                f"{name}: {which} has shape {tuple(p.shape)}, expected normalized_shape={shape}"
            )
    return dims


def check_types(name: str, input: Tensor, *parameters: Tensor | None) -> None:
    """RuntimeError if a parameter has another type than the input, but for float32 with float16."""
    dtype = input._array.dtype
    for p in parameters:
        if p is not None and p._array.dtype != dtype and (dtype.itemsize, p.itemsize) != (2, 4):
            raise RuntimeError(
                f"{name}: the input is {input.dtype} and a parameter {p.dtype}: convert one"
            )


class LayerNorm(Op):
    """y = (x - mean) / sqrt(var + eps) * weight + bias over the last dimensions: (*, D) -> (*, D).

    Weight and bias are (D) or None, D standing for one or more dimensions; the variance is the
    biased one. With n = (x - mean) / std and g = dy * weight: dx = (g - mean(g) - n * mean(g * n))
    / std, dweight = sum(dy * n), dbias = sum(dy). Ba, Kiros, Hinton, "Layer Normalization", 2016.
    """

    namespaces = "torch functional"
    fused = True
    fresh = True

    @staticmethod
    def call(
        input: Tensor,
        normalized_shape: Any,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
    ) -> Tensor:
        dims = normalized_dims("layer_norm", input, normalized_shape, weight=weight, bias=bias)
        check_types("layer_norm", input, weight, bias)
        return LayerNorm.apply(input, weight, bias, dims=dims, eps=eps)

    def forward(
        ctx,
        x: np.ndarray,
        weight: np.ndarray | None,
        bias: np.ndarray | None,
        *,
        dims: int,
        eps: float,
    ) -> np.ndarray:
        y, _, stats = kernel.norm(True, x, dims, weight, bias, eps)
        ctx.save(x, dims, weight, stats)
        return y

    def backward(ctx, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        dx, _, dweight, dbias = kernel.norm_backward(True, dy, *ctx.saved)
        return dx, dweight, dbias

    @staticmethod
    def decomposition(
        x: Tensor, weight: Tensor | None, bias: Tensor | None, *, dims: int, eps: float
    ) -> Tensor:
        last = tuple(range(-dims, 0))
        centred = x - x.mean(last, keepdim=True)
        y = centred * (centred.square().mean(last, keepdim=True) + eps).rsqrt()
        y = y if weight is None else y * weight
        return y if bias is None else y + bias

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand(2, 3, 4), (4,), rand(4), rand(4)
        yield rand(2, 3, 4), (3, 4), rand(3, 4), rand(3, 4), 1e-3
        yield strided(rand(3, 4)), [3], rand(3)
        yield rand(3, 4), (4,), None, rand(4)
        yield rand(4), (4,)
        yield rand(0, 4), (4,), rand(4)

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand(2, 3), (4,)
        yield rand(2, 3), 3
        yield rand(2, 3), ()
        yield rand(2, 3), (3,), rand(2)
        yield rand.integers(0, 5, 2, 3), (3,)


class RmsNorm(Op):
    """y = x / sqrt(mean(x^2) + eps) * weight over the last dimensions: (*, D) -> (*, D).

    Weight is (D) or None, D standing for one or more dimensions; eps is by default the machine
    epsilon of x's type. With n = x / rms and g = dy * weight: dx = (g - n * mean(g * n)) / rms,
    dweight = sum(dy * n). Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019.
    """

    namespaces = "torch functional"
    fused = True
    fresh = True

    @staticmethod
    def call(
        input: Tensor,
        normalized_shape: Any,
        weight: Tensor | None = None,
        eps: float | None = None,
    ) -> Tensor:
        dims = normalized_dims("rms_norm", input, normalized_shape, weight=weight)
        eps = float(np.finfo(input.dtype).eps) if eps is None else eps
        weight = None if weight is None else cast(weight, input.dtype)
        return RmsNorm.apply(input, weight, dims=dims, eps=eps)

    def forward(
        ctx, x: np.ndarray, weight: np.ndarray | None, *, dims: int, eps: float
    ) -> np.ndarray:
        y, _, stats = kernel.norm(False, x, dims, weight, None, eps)
        ctx.save(x, dims, weight, stats)
        return y

    def backward(ctx, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        dx, _, dweight, _ = kernel.norm_backward(False, dy, *ctx.saved)
        return dx, dweight

    @staticmethod
    def decomposition(x: Tensor, weight: Tensor | None, *, dims: int, eps: float) -> Tensor:
        last = tuple(range(-dims, 0))
        y = x * (x.square().mean(last, keepdim=True) + eps).rsqrt()
        return y if weight is None else y * weight

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand(2, 3, 4), (4,), rand(4)
        yield rand(2, 3, 4), (3, 4), rand(3, 4), 1e-3
        yield strided(rand(3, 4)), [3]
        yield rand(0, 4), (4,), rand(4)

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand(2, 3), (4,)
        yield rand(2, 3), ()
        yield rand(2, 3), (3,), rand(2)
        yield rand.integers(0, 5, 2, 3), (3,)


class BatchNorm(Op):
    """y = (x - mean) / sqrt(var + eps) * weight + bias for each channel: (N, C, *) -> (N, C, *).

    The statistics are those of the batch when `training`, and then also enter the running ones in
    place, new = (1 - momentum) * old + momentum * batch, with the unbiased variance; otherwise they
    are the running ones. All four vectors are (C) or None. ValueError for a batch of one value in
    each channel. Ioffe and Szegedy, "Batch Normalization", 2015.
    """

    namespaces = "functional"
    torch_name = "nn.functional.batch_norm"

    @staticmethod
    def call(
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if input.ndim < 2:
            raise RuntimeError(f"batch_norm: expected (N, C, ...), got shape {tuple(input.shape)}")
        if not input.is_floating_point():
            raise NotImplementedError(f"batch_norm: not implemented for {input.dtype}")
        shape, channels = tuple(input.shape), input.shape[1]
        vectors = dict(running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
        for name, vector in vectors.items():
            if vector is not None and vector.numel() != channels:
                raise RuntimeError(
                    f"batch_norm: {name} should contain {channels} elements, not {vector.numel()}"
                )

        def across(vector: Tensor) -> Tensor:
            return vector.reshape(channels, *[1] * (len(shape) - 2))

        if training:
            count = math.prod(shape) // max(channels, 1)
            if count <= 1:
                raise ValueError(
                    f"batch_norm: expected more than 1 value per channel when training, got {shape}"
                )
            rows = input.transpose(0, 1).reshape(channels, count)
            if running_mean is not None and running_var is not None:
                with no_grad():
                    mean = rows.mean(1)
                    var = (rows - mean.unsqueeze(1)).square().sum(1) / (count - 1)
                    running_mean.mul_(1 - momentum).add_(mean, alpha=momentum)
                    running_var.mul_(1 - momentum).add_(var, alpha=momentum)
            y = LayerNorm.call(rows, (count,), eps=eps)
            y = y.reshape(channels, shape[0], *shape[2:]).transpose(0, 1).contiguous()
        elif running_mean is None or running_var is None:
            raise RuntimeError("batch_norm: in evaluation the running mean and variance are needed")
        else:
            y = (input - across(running_mean)) * (across(running_var) + eps).rsqrt()
        y = y if weight is None else y * across(weight)
        return y if bias is None else y + across(bias)

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand(4, 3), rand.constant(3), rand.constant(3).square(), rand(3), rand(3)
        yield rand(4, 3), None, None, rand(3), rand(3), True
        yield rand(2, 3, 4), None, None, None, rand(3), dict(training=True, eps=1e-3)

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand(1, 3), None, None, dict(training=True)
        yield rand(2, 3), None, None
        yield rand(2, 3), rand.constant(2), rand.constant(2)
        yield rand(3), rand.constant(3), rand.constant(3)


class Normalize(Op):
    """y = x / max(|x|_p, eps), with the norm along `dim`: (*) -> (*)."""

    namespaces = "functional"

    @staticmethod
    def call(input: Tensor, p: float = 2.0, dim: Any = 1, eps: float = 1e-12) -> Tensor:
        return input / input.norm(p, dim, keepdim=True).clamp_min(eps)

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield (rand(3, 4),)
        yield rand(3, 4), 1.0, -1
        yield rand(2, 3, 2), dict(dim=(0, 2))
        yield strided(rand(3, 4)), dict(p=3.0, dim=0)
