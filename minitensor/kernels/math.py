"""exp, tanh, erf and sigmoid of one number, for use inside the loops of other kernels.

In float32 each is a polynomial in float32 arithmetic without branches or calls, so that LLVM turns
the loop around it into vector code; the relative error is below 2e-7. In float64 they are the C
library's. All are right at NaN and the infinities. A float32 exp below 2^-125 is 0, never a
subnormal number, which some processors compute slowly.

exp(x) is 2^n e^r with n = round(x / ln 2) and |r| <= ln(2) / 2, where e^r - 1 = r + r^2 A(r).
tanh and erf come from u(x) = e^x - 1, which keeps them accurate near 0:

    tanh|x| = -u(-2|x|) / (2 + u(-2|x|))
    erf|x| = -u(-|x| S(|x|)) with the smooth function S(x) = -log(erfc(x)) / x

The polynomials A and S are minimax in the error that they cause in the result.

They are compiled without `reassoc`, which would fold the two steps of the range reduction into one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload, register_jitable

_f32 = np.float32

_LOG2E = _f32(1.4426950408889634)
_LN2_HIGH = _f32(0.693359375)  # few bits, so that n * _LN2_HIGH is exact
_LN2_LOW = _f32(-2.12194440e-4)
_LOWEST = _f32(-86.9)  # exp is 0 below
_HIGHEST = _f32(88.722839)  # exp is inf above
_ZERO, _HALF, _ONE, _TWO, _INF = _f32(0), _f32(0.5), _f32(1), _f32(2), _f32(np.inf)
_BIAS, _MANTISSA = np.int32(127), np.int32(23)

_A0 = _f32(5.000000063e-01)
_A1 = _f32(1.666654205e-01)
_A2 = _f32(4.166627908e-02)
_A3 = _f32(8.366710660e-03)
_A4 = _f32(1.394666995e-03)

_S0 = _f32(1.128379172e00)
_S1 = _f32(6.366193823e-01)
_S2 = _f32(1.027778264e-01)
_S3 = _f32(-1.915304560e-02)
_S4 = _f32(-1.604343327e-04)
_S5 = _f32(1.667069522e-03)
_S6 = _f32(-6.328617518e-04)
_S7 = _f32(1.176487467e-04)
_S8 = _f32(-9.257154756e-06)
_ERF_IS_ONE = _f32(3.93)  # from here on

_OPTIONS: Any = {"fastmath": {"nsz", "contract"}, "error_model": "numpy"}
_helper = register_jitable(**_OPTIONS)


def _jitted(public: Callable[[Any], Any]) -> Callable[[Callable[[Any], Any]], Any]:
    """Decorates what jitted code runs for `public` on a float32; a float64 runs `public` itself."""

    def decorate(single: Callable[[Any], Any]) -> Any:
        @overload(public, jit_options=_OPTIONS)
        def choose(x: Any) -> Any:
            return single if x == types.float32 else public

        return single

    return decorate


@_helper
def _power_of_two(n: Any) -> Any:
    """2^n for a whole float32 n from -126 to 127."""
    return np.int32((np.int32(n) + _BIAS) << _MANTISSA).view(np.float32)


@_helper
def _reduced(x: Any) -> Any:
    """(n, e^r - 1) with x = n ln 2 + r; n is 0 for a NaN."""
    n = np.rint(x * _LOG2E)
    n = n if n == n else _ZERO
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    p = (((_A4 * r + _A3) * r + _A2) * r + _A1) * r + _A0
    return n, p * (r * r) + r


def exp(x: Any) -> Any:
    """e^x."""
    return np.exp(x)


@_jitted(exp)
def _exp(x: Any) -> Any:
    c = _LOWEST if x < _LOWEST else (_HIGHEST if x > _HIGHEST else x)
    n, p = _reduced(c)
    y = (p + _ONE) * _power_of_two(n - _ONE) * _TWO  # 2^n itself may be beyond float32
    return _ZERO if x < _LOWEST else (_INF if x > _HIGHEST else y)


@_helper
def _expm1_negative(x: Any) -> Any:
    """e^x - 1 of a float32 x <= 0."""
    n, p = _reduced(_LOWEST if x < _LOWEST else x)
    scale = _power_of_two(n)
    return p * scale + (scale - _ONE)


def tanh(x: Any) -> Any:
    """The hyperbolic tangent."""
    return np.tanh(x)


@_jitted(tanh)
def _tanh(x: Any) -> Any:
    u = _expm1_negative(-_TWO * abs(x))
    y = abs(u / (_TWO + u))
    return -y if x < _ZERO else y


def erf(x: Any) -> Any:
    """The error function, 2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x."""
    return math.erf(x)


@_jitted(erf)
def _erf(x: Any) -> Any:
    a = abs(x)
    a = _ERF_IS_ONE if a > _ERF_IS_ONE else a
    s = (((_S8 * a + _S7) * a + _S6) * a + _S5) * a + _S4
    s = (((s * a + _S3) * a + _S2) * a + _S1) * a + _S0
    y = abs(_expm1_negative(-a * s))
    return -y if x < _ZERO else y


def sigmoid(x: Any) -> Any:
    """1 / (1 + e^-x)."""
    e = np.exp(-abs(x))
    return 1 / (1 + e) if x >= 0 else e / (1 + e)


@_jitted(sigmoid)
def _sigmoid(x: Any) -> Any:
    e = exp(-abs(x))
    return (_ONE if x >= _ZERO else e) / (_ONE + e)
