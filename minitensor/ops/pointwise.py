"""Functions of each element alone: (*) -> (*). Integers are made floats where the result is one."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..tensor import Tensor
from .elementwise import Unary


class Exp(Unary):
    """y = exp(x): (*) -> (*).  dx = dy * y."""

    floating = True

    def forward(ctx, x: np.ndarray) -> Any:
        y = np.exp(x)
        ctx.save(y)
        return y

    def backward(ctx, dy: Tensor) -> Tensor:
        (y,) = ctx.saved
        return dy * y


class Log(Unary):
    """y = ln(x): (*) -> (*).  dx = dy / x."""

    floating = True

    def forward(ctx, x: np.ndarray) -> Any:
        ctx.save(x)
        return np.log(x)

    def backward(ctx, dy: Tensor) -> Tensor:
        (x,) = ctx.saved
        return dy / x


class Sqrt(Unary):
    """y = the square root of x: (*) -> (*).  dx = dy / (2 * y), infinite at 0."""

    floating = True

    def forward(ctx, x: np.ndarray) -> Any:
        y = np.sqrt(x)
        ctx.save(y)
        return y

    def backward(ctx, dy: Tensor) -> Tensor:
        (y,) = ctx.saved
        return dy / (y * 2.0)


class Rsqrt(Unary):
    """y = 1 / sqrt(x): (*) -> (*).  dx = -dy * y^3 / 2."""

    floating = True

    def forward(ctx, x: np.ndarray) -> Any:
        y = np.reciprocal(np.sqrt(x))
        ctx.save(y)
        return y

    def backward(ctx, dy: Tensor) -> Tensor:
        (y,) = ctx.saved
        return dy * (y**3 * -0.5)
