"""Residual sums: dropout of a sub-layer's output, added to its input, and the norm of both."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import random
from ..core import Op, Tensor
from ..kernels import norm as kernel
from ..kernels import residual as residuals
from .checks import check_floating, check_parameter_dtypes, check_probability
from .dropout import Dropout, kept
from .norm import LayerNorm, layer_norm_cell, normalized_dims
from .places import LOOPS, at, places, row
from .samples import Rand, Samples, strided


def _check(name: str, input: Tensor, residual: Tensor, p: float) -> None:
    """Check the arguments that both ops have."""
    check_probability(name, p)
    x, r = input._array, residual._array
    if x.shape != r.shape or x.dtype != r.dtype:
        raise RuntimeError(
            f"{name}: input and residual must have one shape and type, but they are "
            f"{tuple(x.shape)} {x.dtype} and {tuple(r.shape)} {r.dtype}. Expand or convert one."
        )
    check_floating(name, input)


def _composed(p: float) -> bool:
    """Return True if dropout must be composed of other ops: no kernel computes it."""
    return p == 1 or (p > 0 and random.uses_torch_dropout())


class DropoutAdd(Op):
    """y = residual + dropout(input), of one shape: (*), (*) -> (*), in one pass.

    dinput = dropout(dy), dresidual = dy. The mask is that of `dropout`. RuntimeError for different
    shapes or types, ValueError for p outside [0, 1].
    """

    native = True
    namespaces = "functional"
    torch_name = None
    cell = "residual + x / (1 - p) if kept else residual"

    @staticmethod
    def call(input: Tensor, residual: Tensor, p: float = 0.0, training: bool = True) -> Tensor:
        _check("dropout_add", input, residual, p)
        if not training or p == 0 or input._array.size == 0 or _composed(p):
            return residual + Dropout.call(input, p, training)
        key = random.default_generator.key(input._array.size)
        return DropoutAdd.apply(input, residual, p=p, key=key)

    def forward(ctx, x: np.ndarray, residual: np.ndarray, *, p: float, key: int) -> np.ndarray:
        ctx.save(p, key)
        return residuals.dropout_add(x, residual, p, key)

    @staticmethod
    def hidden(x: np.ndarray, residual: np.ndarray, *, p: float, key: int) -> dict[str, np.ndarray]:
        return kept(x.shape, p, key)

    def backward(ctx, dy: Tensor) -> tuple[Tensor | None, Tensor]:
        p, key = ctx.saved
        return Dropout.apply(dy, p, key) if ctx.needs_input_grad[0] else None, dy

    @staticmethod
    def decomposition(input: Tensor, residual: Tensor, *, p: float, key: int) -> Tensor:
        return residual + Dropout.apply(input, p, key)

    @staticmethod
    def samples(rand: Rand) -> Samples:  # only those without random numbers
        yield rand(2, 3), rand(2, 3)
        yield strided(rand(3, 2)), rand(2, 3), 0.5, False
        yield rand(2, 3), rand(2, 3), 1.0
        yield rand(0, 3), rand(0, 3), 0.5


class DropoutAddLayerNorm(Op):
    """y = layer_norm(residual + dropout(input)): (*, D), (*, D), (D), (D) -> (*, D), in one pass.

    Weight and bias are last. It is the end of each sub-layer of a post-norm Transformer. With dx
    the gradient of the sum, as in `layer_norm`: dresidual = dx, dinput = dropout(dx); dweight and
    dbias as there. The mask is that of `dropout`. RuntimeError for different shapes or types,
    ValueError for p outside [0, 1].
    """

    native = True
    namespaces = "functional"
    torch_name = None
    fused = True
    saves = ("x + residual", "", "weight", "mean, 1/std, scale")

    @staticmethod
    def call(
        input: Tensor,
        residual: Tensor,
        normalized_shape: Any,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        p: float = 0.0,
        eps: float = 1e-5,
        training: bool = True,
    ) -> Tensor:
        name = "dropout_add_layer_norm"
        _check(name, input, residual, p)
        dims = normalized_dims(name, input, normalized_shape, weight=weight, bias=bias)
        check_parameter_dtypes(name, input, weight, bias)
        if not training or input._array.size == 0:
            p = 0.0
        if _composed(p):
            total = residual + Dropout.call(input, p)
            return LayerNorm.call(total, normalized_shape, weight, bias, eps)
        key = random.default_generator.key(input._array.size) if p else 0
        return DropoutAddLayerNorm.apply(
            input, residual, weight, bias, dims=dims, eps=eps, p=p, key=key
        )

    def forward(
        ctx,
        x: np.ndarray,
        residual: np.ndarray,
        weight: np.ndarray | None,
        bias: np.ndarray | None,
        *,
        dims: int,
        eps: float,
        p: float,
        key: int,
    ) -> np.ndarray:
        y, total, stats = kernel.norm(True, x, dims, weight, bias, eps, residual, p, key)
        ctx.save(total, dims, weight, stats, p, key)
        return y

    @staticmethod
    def cell(
        x: np.ndarray,
        residual: np.ndarray,
        weight: np.ndarray | None,
        bias: np.ndarray | None,
        *,
        dims: int,
        eps: float,
        p: float,
        key: int,
    ) -> str:
        if not p:
            over = f"{row('residual', x.ndim, dims)} + {row('x', x.ndim, dims)}"
            return layer_norm_cell("residual + x", over, weight, bias)
        own = [*places(x.ndim)[: x.ndim - dims], *LOOPS[:dims]]
        total = "{0} + {1} / (1 - p) if {2} else {0}"
        over = total.format(at("residual", own), at("x", own), at("kept", own))
        for name, length in zip(LOOPS, x.shape[-dims:], strict=False):
            over += f" for {name} in range({length})"
        here = f"({total.format('residual', 'x', 'kept')})"
        return layer_norm_cell(here, over, weight, bias)

    @staticmethod
    def hidden(
        x: np.ndarray, *rest: np.ndarray | None, p: float, key: int, **_: Any
    ) -> dict[str, np.ndarray]:
        return kept(x.shape, p, key)

    def backward(ctx, dy: np.ndarray) -> tuple[np.ndarray, ...]:
        dresidual, dx, dweight, dbias = kernel.norm_backward(True, dy, *ctx.saved)
        return dx, dresidual, dweight, dbias

    @staticmethod
    def decomposition(
        x: Tensor,
        residual: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        *,
        dims: int,
        eps: float,
        p: float,
        key: int,
    ) -> Tensor:
        total = residual + (Dropout.apply(x, p, key) if p else x)
        return LayerNorm.apply(total, weight, bias, dims=dims, eps=eps)

    @staticmethod
    def samples(rand: Rand) -> Samples:  # only those without random numbers
        yield rand(2, 3, 4), rand(2, 3, 4), (4,), rand(4), rand(4)
        yield rand(2, 3, 4), rand(2, 3, 4), (3, 4), rand(3, 4), None, 0.0, 1e-3
        yield strided(rand(4, 3)), rand(3, 4), [4], None, rand(4)
        yield rand(3, 4), strided(rand(4, 3)), (4,), None, None, 0.5, dict(training=False)
        yield rand(0, 4), rand(0, 4), (4,), rand(4), rand(4), 0.5
