"""Further functions of each element: exponentials, logarithms, trigonometry, rounding."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...core import Op, Tensor
from ...dtype import FLOATING
from ...kernels import special
from ..convert import promote
from ..elementwise import Unary, binary, evaluate, unary, zero_grad_like
from ..samples import Rand, Samples


def _atan2_rule(dy: Tensor, a: Tensor, b: Tensor, other: Tensor) -> Tensor:
    square = a * a + b * b
    return (dy / square).masked_fill(square == 0, 0.0) * other


# fmt: off
unary("exp2", np.exp2, lambda dy, y: dy * y * math.log(2), "y = 2 ** x.  dx = dy * y * ln(2).")
unary("expm1", lambda x: special.expm1(x), lambda dy, y: dy * (y + 1.0),
      "y = exp(x) - 1, accurate near 0.  dx = dy * (y + 1).")
unary("log2", np.log2, lambda dy, x: dy / (x * math.log(2)),
      "y = log2(x).  dx = dy / (x * ln(2)).")
unary("log10", np.log10, lambda dy, x: dy / (x * math.log(10)),
      "y = log10(x).  dx = dy / (x * ln(10)).")
unary("log1p", lambda x: special.log1p(x), lambda dy, x: dy / (x + 1.0),
      "y = ln(1 + x), accurate near 0.  dx = dy / (1 + x).")
binary("logaddexp", np.logaddexp,
       lambda dy, a, b: dy / ((b - a).exp() + 1.0), lambda dy, a, b: dy / ((a - b).exp() + 1.0),
       "y = ln(exp(a) + exp(b)).  da = dy / (1 + exp(b - a)), db likewise.",
       inplace=False, floating=True, tensors_only=True,
       samples=lambda rand: [(rand(2, 3), rand(3))])

unary("tan", np.tan, lambda dy, y: dy * (y * y + 1.0),
      "y = tan(x), x in radians.  dx = dy * (1 + y^2).", domain=(-1.2, 1.2))
unary("asin", np.arcsin, lambda dy, x: dy * (1.0 - x * x).rsqrt(),
      "y = the angle from -pi/2 to pi/2 whose sine is x.  dx = dy / sqrt(1 - x^2).",
      aliases=("arcsin",), cell="arcsin(x)", domain=(-0.9, 0.9))
unary("acos", np.arccos, lambda dy, x: -dy * (1.0 - x * x).rsqrt(),
      "y = the angle from 0 to pi whose cosine is x.  dx = -dy / sqrt(1 - x^2).",
      aliases=("arccos",), cell="arccos(x)", domain=(-0.9, 0.9))
unary("atan", np.arctan, lambda dy, x: dy / (x * x + 1.0),
      "y = the angle from -pi/2 to pi/2 whose tangent is x.  dx = dy / (1 + x^2).",
      aliases=("arctan",), cell="arctan(x)")
binary("atan2", np.arctan2,
       lambda dy, a, b: _atan2_rule(dy, a, b, b), lambda dy, a, b: _atan2_rule(dy, a, b, -a),
       "y = the angle of the point (b, a).  da, db = dy * (b, -a) / (a^2 + b^2), 0 at the origin.",
       aliases=("arctan2",), cell="arctan2(a, b)", floating=True, tensors_only=True,
       samples=lambda rand: [(rand(2, 3), rand(3)), (rand.integers(-3, 3, 2, 3), rand(3))])
unary("sinh", np.sinh, lambda dy, x: dy * x.cosh(),
      "y = (exp(x) - exp(-x)) / 2.  dx = dy * cosh(x).")
unary("cosh", np.cosh, lambda dy, x: dy * x.sinh(),
      "y = (exp(x) + exp(-x)) / 2.  dx = dy * sinh(x).")

unary("asinh", np.arcsinh, lambda dy, x: dy * (x * x + 1.0).rsqrt(),
      "y = the number whose hyperbolic sine is x.  dx = dy / sqrt(x^2 + 1).",
      aliases=("arcsinh",), cell="log(x + sqrt(x ** 2 + 1))")
unary("acosh", np.arccosh, lambda dy, x: dy * (x * x - 1.0).rsqrt(),
      "y = the number from 0 up whose hyperbolic cosine is x.  dx = dy / sqrt(x^2 - 1).",
      aliases=("arccosh",), cell="log(x + sqrt(x ** 2 - 1))", domain=(1.2, 3.0))
unary("atanh", np.arctanh, lambda dy, x: dy / (1.0 - x * x),
      "y = the number whose hyperbolic tangent is x.  dx = dy / (1 - x^2).",
      aliases=("arctanh",), cell="log((1 + x) / (1 - x)) / 2", domain=(-0.9, 0.9))
binary("copysign", np.copysign,
       lambda dy, a, b: dy * (a.sign().copysign(b) * a.sign()), zero_grad_like,
       "y = abs(a) with the sign of b.  da = dy, or -dy where the sign changed; db = 0.",
       cell="abs(a) if b >= 0 else -abs(a)", floating=True,
       samples=lambda rand: [(rand.distinct(2, 3), rand.distinct(3)), (rand.distinct(2, 3), -1.0),
                             (rand.integers(-3, 4, 3), rand.distinct(3))])

unary("erfc", lambda x: special.erfc(x),
      lambda dy, x: dy * ((-x * x).exp() * (-2 / math.sqrt(math.pi))),
      "y = 1 - erf(x), accurate for large x.  dx = -dy * 2/sqrt(pi) * exp(-x^2).")
unary("erfinv", lambda x: special.erfinv(x),
      lambda dy, y: dy * ((y * y).exp() * (math.sqrt(math.pi) / 2)),
      "y with erf(y) = x, infinite at -1 and 1.  dx = dy * sqrt(pi)/2 * exp(y^2).",
      cell="erfinv(x)", domain=(-0.9, 0.9))
# fmt: on


class Logit(Op):
    """y = ln(x / (1 - x)), the inverse of `sigmoid`: (*) -> (*); x is clamped to [eps, 1 - eps].

    dx = dy / (x * (1 - x)), 0 where x is clamped.
    """

    out = "cast"
    inplace = True

    @staticmethod
    def call(input: Tensor, eps: float | None = None) -> Tensor:
        (x,) = promote(input, floating=True)
        return Logit.apply(x, eps)

    def forward(ctx, x: np.ndarray, eps: float | None) -> np.ndarray:
        ctx.save(x, eps)
        if eps is not None:
            x = np.minimum(np.maximum(x, eps), 1 - eps)
        return special.log(x / (1 - x))

    @staticmethod
    def cell(x: np.ndarray, eps: float | None) -> str:
        within = "x" if eps is None else "min(max(x, eps), 1 - eps)"
        return f"log({within} / (1 - {within}))"

    def backward(ctx, dy: Tensor) -> Tensor:
        x, eps = ctx.saved
        dx = dy / (x * (1.0 - x))
        return dx if eps is None else dx.masked_fill((x < eps) | (x > 1 - eps), 0.0)

    @staticmethod
    def decomposition(x: Tensor, eps: float | None) -> Tensor:
        x = x if eps is None else x.clamp(eps, 1 - eps)
        return (x / (1.0 - x)).log()

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield (rand.uniform(0.1, 0.9, 2, 3),)
        yield rand.uniform(0.1, 0.9, 2, 3), 0.3
        yield rand.integers(0, 2, 3), 0.1


# Rounding


class _Rounding(Unary, abstract=True):
    """A whole number near x; integers stay as they are. The derivative is 0."""

    out = "same"

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
    return evaluate(f, x) if x.dtype.kind in FLOATING else x.copy()


def _fraction(x: np.ndarray) -> Any:
    if x.dtype.kind not in FLOATING:
        raise NotImplementedError(f"not implemented for {x.dtype}")
    return x - np.trunc(x)


# fmt: off
unary("floor", lambda x: _rounded(np.floor, x), zero_grad_like,
      "y = the largest whole number not above x.  dx = 0.",
      cell="floor(x)", base=_Rounding, floating=False)
unary("ceil", lambda x: _rounded(np.ceil, x), zero_grad_like,
      "y = the smallest whole number not below x.  dx = 0.",
      cell="ceil(x)", base=_Rounding, floating=False)
unary("trunc", lambda x: _rounded(np.trunc, x), zero_grad_like,
      "y = x without its fraction.  dx = 0.",
      cell="trunc(x)", base=_Rounding, floating=False, aliases=("fix",))
unary("frac", _fraction, lambda dy: dy, "y = x - trunc(x).  dx = dy.", floating=False, out="same",
      samples=lambda rand: [(rand.distinct(2, 3),)],
      errors=lambda rand: [(rand.integers(0, 3, 3),)])
# fmt: on


class Round(_Rounding):
    """y = the whole number nearest to x, the even one of two: (*) -> (*).  dx = 0.

    `decimals` digits after the point are kept; a negative number rounds to tens, hundreds, ...
    """

    @staticmethod
    def call(input: Tensor, *, decimals: int = 0) -> Tensor:
        return Round.apply(input, decimals=decimals)

    def forward(ctx, x: np.ndarray, decimals: int = 0) -> Any:
        if decimals == 0 or x.dtype.kind not in FLOATING:
            return _rounded(np.rint, x)
        scale = x.dtype.type(10.0 ** abs(decimals))
        return np.rint(x * scale) / scale if decimals > 0 else np.rint(x / scale) * scale

    @staticmethod
    def cell(x: np.ndarray, decimals: int = 0) -> str:
        if decimals == 0 or x.dtype.kind not in FLOATING:
            return "round(x)"
        scale = 10 ** abs(decimals)
        return f"round(x * {scale}) / {scale}" if decimals > 0 else f"round(x / {scale}) * {scale}"

    def backward(ctx, dy: Tensor) -> Tensor:
        return zero_grad_like(dy)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield from _Rounding.samples(rand)
        yield rand(3, 4), dict(decimals=1)
        yield rand.uniform(-300, 300, 5), dict(decimals=-2)
