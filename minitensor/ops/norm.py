"""Normalisation of the last dimensions: layer norm and RMS norm."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core import Op, Tensor
from ..kernels import norm as kernel
from .checks import check_floating, check_parameter_dtypes, check_tensors
from .convert import cast
from .places import row
from .samples import Rand, Samples, strided


def normalized_dims(
    name: str, input: Tensor, normalized_shape: Any, **parameters: Tensor | None
) -> int:
    """Return len(normalized_shape); RuntimeError unless it fits the input and the parameters."""
    if not isinstance(normalized_shape, tuple | list):
        raise TypeError(
            f"{name}: normalized_shape must be a tuple of ints, not "
            f"{type(normalized_shape).__name__}"
        )
    shape, dims = tuple(normalized_shape), len(normalized_shape)
    if not dims:
        raise RuntimeError(f"{name}: normalized_shape must have at least one dimension, got ()")
    if not isinstance(input, Tensor):
        check_tensors(name, input=input)
    if input._array.shape[-dims:] != shape:
        raise RuntimeError(
            f"{name}: the input must end in the dimensions normalized_shape={shape}, but its shape "
            f"is {tuple(input.shape)}"
        )
    check_floating(name, input)
    for which, p in parameters.items():
        if p is None:
            continue
        if not isinstance(p, Tensor):
            check_tensors(name, **{which: p})
        if p._array.shape != shape:
            raise RuntimeError(
                f"{name}: {which} has shape {tuple(p.shape)}, expected normalized_shape={shape}"
            )
    return dims


def layer_norm_cell(x: str, over: str, weight: Any, bias: Any) -> str:
    """Return the cell of a layer norm of the formula x over the vector `over`."""
    y = f"({x} - mean({over})) / sqrt(var({over}) + eps)"
    y = y if weight is None else f"{y} * weight"
    return y if bias is None else f"{y} + bias"


class LayerNorm(Op):
    """y = (x - mean) / sqrt(var + eps) * weight + bias: (*, D), (D), (D) -> (*, D).

    Mean and biased variance are over the last dimensions, D standing for one or more; weight and
    bias may be None. With n = (x - mean) / std and g = dy * weight:
    dx = (g - mean(g) - n * mean(g * n)) / std, dweight = sum(dy * n), dbias = sum(dy).
    Ba, Kiros, Hinton, "Layer Normalization", 2016.
    """

    native = True
    namespaces = "torch functional"
    fused = True
    saves = ("x", "", "weight", "mean, 1/std, scale")
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
        check_parameter_dtypes("layer_norm", input, weight, bias)
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

    @staticmethod
    def cell(
        x: np.ndarray,
        weight: np.ndarray | None,
        bias: np.ndarray | None,
        *,
        dims: int,
        eps: float,
    ) -> str:
        return layer_norm_cell("x", row("x", x.ndim, dims), weight, bias)

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
    def samples(rand: Rand) -> Samples:
        yield rand(2, 3, 4), (4,), rand(4), rand(4)
        yield rand(2, 3, 4), (3, 4), rand(3, 4), rand(3, 4), 1e-3
        yield strided(rand(3, 4)), [3], rand(3)
        yield rand(3, 4), (4,), None, rand(4)
        yield rand(4), (4,)
        yield rand(0, 4), (4,), rand(4)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 3), (4,)
        yield rand(2, 3), 3
        yield rand(2, 3), ()
        yield rand(2, 3), (3,), rand(2)
        yield rand.integers(0, 5, 2, 3), (3,)


class RmsNorm(Op):
    """y = x / sqrt(mean(x^2) + eps) * weight over the last dimensions: (*, D), (D) -> (*, D).

    The weight may be None, D standing for one or more dimensions; eps is by default the machine
    epsilon of x's type. With n = x / rms and g = dy * weight: dx = (g - n * mean(g * n)) / rms,
    dweight = sum(dy * n). Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019.
    """

    native = True
    namespaces = "torch functional"
    fused = True
    saves = ("x", "", "weight", "1/rms, scale")
    fresh = True

    @staticmethod
    def call(
        input: Tensor,
        normalized_shape: Any,
        weight: Tensor | None = None,
        eps: float | None = None,
    ) -> Tensor:
        dims = normalized_dims("rms_norm", input, normalized_shape, weight=weight)
        if eps is None:  # that of the type that computes
            eps = float(np.finfo(np.result_type(input._array.dtype, np.float32)).eps)
        weight = None if weight is None else cast(weight, input._array.dtype)
        return RmsNorm.apply(input, weight, dims=dims, eps=eps)

    def forward(
        ctx, x: np.ndarray, weight: np.ndarray | None, *, dims: int, eps: float
    ) -> np.ndarray:
        y, _, stats = kernel.norm(False, x, dims, weight, None, eps)
        ctx.save(x, dims, weight, stats)
        return y

    @staticmethod
    def cell(x: np.ndarray, weight: np.ndarray | None, *, dims: int, eps: float) -> str:
        y = f"x / sqrt(mean({row('x', x.ndim, dims)} ** 2) + eps)"
        return y if weight is None else f"{y} * weight"

    def backward(ctx, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        dx, _, dweight, _ = kernel.norm_backward(False, dy, *ctx.saved)
        return dx, dweight

    @staticmethod
    def decomposition(x: Tensor, weight: Tensor | None, *, dims: int, eps: float) -> Tensor:
        last = tuple(range(-dims, 0))
        y = x * (x.square().mean(last, keepdim=True) + eps).rsqrt()
        return y if weight is None else y * weight

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2, 3, 4), (4,), rand(4)
        yield rand(2, 3, 4), (3, 4), rand(3, 4), 1e-3
        yield strided(rand(3, 4)), [3]
        yield rand(0, 4), (4,), rand(4)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 3), (4,)
        yield rand(2, 3), ()
        yield rand(2, 3), (3,), rand(2)
        yield rand.integers(0, 5, 2, 3), (3,)
