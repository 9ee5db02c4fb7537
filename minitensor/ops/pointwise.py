"""Functions of each element alone: (*) -> (*). Integers become floats where the result is one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..core import Tensor
from ..kernels import special
from .elementwise import Binary, Unary, evaluate, zero_grad_like
from .samples import Rand, Samples

# Exponentials and logarithms


class Exp(Unary):
    """y = exp(x): (*) -> (*).  dx = dy * y."""

    floating = True

    def forward(ctx, x: np.ndarray) -> Any:
        y = special.exp(x)
        ctx.save(y)
        return y

    def backward(ctx, dy: Tensor) -> Tensor:
        (y,) = ctx.saved
        return dy * y


class Exp2(Unary):
    """y = 2^x: (*) -> (*).  dx = dy * y * ln(2)."""

    floating = True

    def forward(ctx, x: np.ndarray) -> Any:
        y = evaluate(np.exp2, x)
        ctx.save(y)
        return y

    def backward(ctx, dy: Tensor) -> Tensor:
        (y,) = ctx.saved
        return dy * y * math.log(2)


class Expm1(Unary):
    """y = exp(x) - 1, accurate near 0: (*) -> (*).  dx = dy * (y + 1)."""

    floating = True

    def forward(ctx, x: np.ndarray) -> Any:
        y = special.expm1(x)
        ctx.save(y)
        return y

    def backward(ctx, dy: Tensor) -> Tensor:
        (y,) = ctx.saved
        return dy * (y + 1.0)


class Log(Unary):
    """y = ln(x): (*) -> (*).  dx = dy / x."""

    floating = True

    def forward(ctx, x: np.ndarray) -> Any:
        ctx.save(x)
        return special.log(x)

    def backward(ctx, dy: Tensor) -> Tensor:
        (x,) = ctx.saved
        return dy / x


class Log2(Unary):
    """y = log2(x): (*) -> (*).  dx = dy / (x * ln(2))."""

    floating = True

    def forward(ctx, x: np.ndarray) -> Any:
        ctx.save(x)
        return evaluate(np.log2, x)

    def backward(ctx, dy: Tensor) -> Tensor:
        (x,) = ctx.saved
        return dy / (x * math.log(2))


class Log10(Unary):
    """y = log10(x): (*) -> (*).  dx = dy / (x * ln(10))."""

    floating = True

    def forward(ctx, x: np.ndarray) -> Any:
        ctx.save(x)
        return evaluate(np.log10, x)

    def backward(ctx, dy: Tensor) -> Tensor:
        (x,) = ctx.saved
        return dy / (x * math.log(10))


class Log1p(Unary):
    """y = ln(1 + x), accurate near 0: (*) -> (*).  dx = dy / (1 + x)."""

    floating = True

    def forward(ctx, x: np.ndarray) -> Any:
        ctx.save(x)
        return special.log1p(x)

    def backward(ctx, dy: Tensor) -> Tensor:
        (x,) = ctx.saved
        return dy / (x + 1.0)


class Logaddexp(Binary):
    """y = ln(exp(a) + exp(b)): (*), (*) -> (*).  da = dy / (1 + exp(b - a)), db likewise."""

    inplace = False
    floating = True

    def forward(ctx, a: Any, b: Any) -> Any:
        ctx.save(a, b)
        return evaluate(np.logaddexp, a, b)

    def backward(ctx, dy: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved
        return dy / ((b - a).exp() + 1.0), dy / ((a - b).exp() + 1.0)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2, 3), rand(3)


# Roots


class Sqrt(Unary):
    """y = the square root of x: (*) -> (*).  dx = dy / (2 * y), infinite at 0."""

    floating = True

    def forward(ctx, x: np.ndarray) -> Any:
        y = evaluate(np.sqrt, x)
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


# Trigonometry


class Sin(Unary):
    """y = sin(x), x in radians: (*) -> (*).  dx = dy * cos(x)."""

    floating = True

    def forward(ctx, x: np.ndarray) -> Any:
        ctx.save(x)
        return evaluate(np.sin, x)

    def backward(ctx, dy: Tensor) -> Tensor:
        (x,) = ctx.saved
        return dy * x.cos()


class Cos(Unary):
    """y = cos(x), x in radians: (*) -> (*).  dx = -dy * sin(x)."""

    floating = True

    def forward(ctx, x: np.ndarray) -> Any:
        ctx.save(x)
        return evaluate(np.cos, x)

    def backward(ctx, dy: Tensor) -> Tensor:
        (x,) = ctx.saved
        return -dy * x.sin()


class Tan(Unary):
    """y = tan(x), x in radians: (*) -> (*).  dx = dy * (1 + y^2)."""

    floating = True

    def forward(ctx, x: np.ndarray) -> Any:
        y = evaluate(np.tan, x)
        ctx.save(y)
        return y

    def backward(ctx, dy: Tensor) -> Tensor:
        (y,) = ctx.saved
        return dy * (y * y + 1.0)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield (rand.uniform(-1.2, 1.2, 2, 3),)


class _Inside(Unary, abstract=True):
    """A function defined from -1 to 1."""

    floating = True

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield (rand.uniform(-0.9, 0.9, 2, 3),)


class Asin(_Inside):
    """y = the angle from -pi/2 to pi/2 whose sine is x: (*) -> (*).  dx = dy / sqrt(1 - x^2)."""

    aliases = ("arcsin",)

    def forward(ctx, x: np.ndarray) -> Any:
        ctx.save(x)
        return evaluate(np.arcsin, x)

    def backward(ctx, dy: Tensor) -> Tensor:
        (x,) = ctx.saved
        return dy * (1.0 - x * x).rsqrt()


class Acos(_Inside):
    """y = the angle from 0 to pi whose cosine is x: (*) -> (*).  dx = -dy / sqrt(1 - x^2)."""

    aliases = ("arccos",)

    def forward(ctx, x: np.ndarray) -> Any:
        ctx.save(x)
        return evaluate(np.arccos, x)

    def backward(ctx, dy: Tensor) -> Tensor:
        (x,) = ctx.saved
        return -dy * (1.0 - x * x).rsqrt()


class Atan(Unary):
    """y = the angle from -pi/2 to pi/2 whose tangent is x: (*) -> (*).  dx = dy / (1 + x^2)."""

    aliases = ("arctan",)
    floating = True

    def forward(ctx, x: np.ndarray) -> Any:
        ctx.save(x)
        return evaluate(np.arctan, x)

    def backward(ctx, dy: Tensor) -> Tensor:
        (x,) = ctx.saved
        return dy / (x * x + 1.0)


class Atan2(Binary):
    """y = the angle of the point (b, a): (*), (*) -> (*).  da, db = dy * (b, -a) / (a^2 + b^2).

    The gradients are 0 at the origin.
    """

    aliases = ("arctan2",)
    floating = True

    def forward(ctx, a: Any, b: Any) -> Any:
        ctx.save(a, b)
        return evaluate(np.arctan2, a, b)

    def backward(ctx, dy: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved
        square = a * a + b * b
        scaled = (dy / square).masked_fill(square == 0, 0.0)
        return scaled * b, -scaled * a

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2, 3), rand(3)
        yield rand.integers(-3, 3, 2, 3), rand(3)


class Sinh(Unary):
    """y = (exp(x) - exp(-x)) / 2: (*) -> (*).  dx = dy * cosh(x)."""

    floating = True

    def forward(ctx, x: np.ndarray) -> Any:
        ctx.save(x)
        return evaluate(np.sinh, x)

    def backward(ctx, dy: Tensor) -> Tensor:
        (x,) = ctx.saved
        return dy * x.cosh()


class Cosh(Unary):
    """y = (exp(x) + exp(-x)) / 2: (*) -> (*).  dx = dy * sinh(x)."""

    floating = True

    def forward(ctx, x: np.ndarray) -> Any:
        ctx.save(x)
        return evaluate(np.cosh, x)

    def backward(ctx, dy: Tensor) -> Tensor:
        (x,) = ctx.saved
        return dy * x.sinh()


# The error function


class Erf(Unary):
    """y = 2/sqrt(pi) times the integral of exp(-t^2) from 0 to x: (*) -> (*).

    dx = dy * 2/sqrt(pi) * exp(-x^2).
    """

    floating = True

    def forward(ctx, x: np.ndarray) -> Any:
        ctx.save(x)
        return special.erf(x)

    def backward(ctx, dy: Tensor) -> Tensor:
        (x,) = ctx.saved
        return dy * ((-x * x).exp() * (2 / math.sqrt(math.pi)))


class Erfc(Unary):
    """y = 1 - erf(x), accurate for large x: (*) -> (*).  dx = -dy * 2/sqrt(pi) * exp(-x^2)."""

    floating = True

    def forward(ctx, x: np.ndarray) -> Any:
        ctx.save(x)
        return special.erfc(x)

    def backward(ctx, dy: Tensor) -> Tensor:
        (x,) = ctx.saved
        return dy * ((-x * x).exp() * (-2 / math.sqrt(math.pi)))


class Erfinv(_Inside):
    """y with erf(y) = x, infinite at -1 and 1: (*) -> (*).  dx = dy * sqrt(pi)/2 * exp(y^2)."""

    def forward(ctx, x: np.ndarray) -> Any:
        y = _erfinv(x.astype(np.float64)).astype(x.dtype)
        ctx.save(y)
        return y

    def backward(ctx, dy: Tensor) -> Tensor:
        (y,) = ctx.saved
        return dy * ((y * y).exp() * (math.sqrt(math.pi) / 2))


def _erfinv(x: np.ndarray) -> np.ndarray:
    """Newton's method on log(erfc(y)), almost a parabola, from Winitzki's approximation (2008)."""
    a = np.abs(x)
    tail = 1 - a
    log = np.log(tail * (1 + a))
    half = 2 / (math.pi * 0.147) + log / 2
    y = np.sqrt(np.sqrt(half * half - log / 0.147) - half)
    for _ in range(4):
        rest = special.erfc(y)
        slope = -2 / math.sqrt(math.pi) * np.exp(-y * y) / rest
        y = y - (np.log(rest) - np.log(tail)) / slope
    y = np.where(a < 0.5, _small_erfinv(a), np.where(a == 1, np.inf, y))
    return np.copysign(y, x)


def _small_erfinv(a: np.ndarray) -> np.ndarray:
    """Newton's method on erf(y), which loses nothing near 0."""
    y = a * (math.sqrt(math.pi) / 2)
    for _ in range(6):
        y = y - (special.erf(y) - a) * (math.sqrt(math.pi) / 2) * np.exp(y * y)
    return y


# Rounding


class _Rounding(Unary, abstract=True):
    """A whole number near x; integers stay as they are. The derivative is 0."""

    def backward(ctx, dy: Tensor) -> Tensor:
        return zero_grad_like(dy)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield (rand.distinct(3, 4),)
        yield (rand.integers(-3, 4, 3),)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield (rand.bools(3),)


def _rounded(f: np.ufunc, x: np.ndarray) -> Any:
    if x.dtype.kind == "b":
        raise NotImplementedError("not implemented for bool tensors")
    return evaluate(f, x) if x.dtype.kind == "f" else x.copy()


class Floor(_Rounding):
    """y = the largest whole number not above x: (*) -> (*).  dx = 0."""

    def forward(ctx, x: np.ndarray) -> Any:
        return _rounded(np.floor, x)


class Ceil(_Rounding):
    """y = the smallest whole number not below x: (*) -> (*).  dx = 0."""

    def forward(ctx, x: np.ndarray) -> Any:
        return _rounded(np.ceil, x)


class Trunc(_Rounding):
    """y = x without its fraction: (*) -> (*).  dx = 0."""

    aliases = ("fix",)

    def forward(ctx, x: np.ndarray) -> Any:
        return _rounded(np.trunc, x)


class Round(_Rounding):
    """y = the whole number nearest to x, the even one of two: (*) -> (*).  dx = 0.

    `decimals` digits after the point are kept; a negative number rounds to tens, hundreds, ...
    """

    @staticmethod
    def call(input: Tensor, *, decimals: int = 0) -> Tensor:
        return Round.apply(input, decimals=decimals)

    def forward(ctx, x: np.ndarray, decimals: int = 0) -> Any:
        if decimals == 0 or x.dtype.kind != "f":
            return _rounded(np.rint, x)
        scale = x.dtype.type(10.0 ** abs(decimals))
        return np.rint(x * scale) / scale if decimals > 0 else np.rint(x / scale) * scale

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield from _Rounding.samples(rand)
        yield rand(3, 4), dict(decimals=1)
        yield rand.uniform(-300, 300, 5), dict(decimals=-2)


class Frac(Unary):
    """y = x - trunc(x): (*) -> (*).  dx = dy."""

    def forward(ctx, x: np.ndarray) -> Any:
        if x.dtype.kind != "f":
            raise NotImplementedError(f"not implemented for {x.dtype}")
        return x - np.trunc(x)

    def backward(ctx, dy: Tensor) -> Tensor:
        return dy

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield (rand.distinct(2, 3),)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield (rand.integers(0, 3, 3),)
