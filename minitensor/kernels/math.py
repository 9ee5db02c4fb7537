"""Elementary functions for the loops of other kernels: exp, log, tanh, erf and more.

In float32 each is a polynomial in float32 arithmetic without branches or calls, so that LLVM turns
the loop around it into vector code. exp, log, tanh and erf are within 1 ulp of the exact value
(`tests/test_numerics.py` prints all errors). In float64 they are the C library's. All are right at
NaN, the infinities and signed zeros, and where the result is subnormal.

exp(x) = 2^n e^r with n = round(x / ln 2), |r| <= ln(2) / 2 and e^r - 1 = r + r^2 A(r). r takes ln 2
in two parts (W. Cody, W. Waite, "Software Manual for the Elementary Functions", 1980), and n is
rounded by adding 3 * 2^22, which leaves it in the lowest bits. 2^n comes in two factors: the first
keeps the product normal, the second may make it subnormal, rounding once. Subnormal results and
underflow are slow on some processors, so if the result is 0, as for all masked scores, both factors
are 0 and nothing underflows.

log(x) = n ln 2 + log(1 + f) with 1 + f from sqrt(1/2) to sqrt(2), and log(1 + f) = f + f^2 L(f).

tanh and erf are odd polynomials near 0, which keep the relative accuracy of x, and 1 minus a small
number beyond, with a = |x|. The tail Q of the normal distribution is e^(-x^2 / 2) times a quotient
of polynomials. Their coefficients are positive, so nothing cancels:

    tanh(a) = a + a^3 T(a^2), or 1 - 2 / (1 + e^2a)
    erf(a) = a + a E(a^2), or 1 - e^-(a + a S(a))
    Q(a) = e^(-a^2 / 2) P(a) / D(a)

tanh, Q and the sigmoids are bound by their division, one in 16 cycles for 64 bytes on Intel's
processors. There is one each, and as many multiply-adds as fit in that time.

All polynomials are minimax in the relative error of the result. They are compiled without
`reassoc`, which would merge the two steps of the range reduction, and without `nsz`, for the sign
of a zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .jit import jit, overload, types

_f32, _i32 = np.float32, np.int32

_ZERO, _HALF, _ONE, _TWO = _f32(0), _f32(0.5), _f32(1), _f32(2)
_INF, _NAN = _f32(np.inf), _f32(np.nan)
_SIGN, _MANTISSA, _BIT = _i32(-(2**31)), _i32(23), _i32(1)

_LOG2E = _f32(1.4426950408889634)
_LN2 = _f32(0.6931471805599453)
_LN2_HIGH = _f32(0.693359375)  # few bits, so that n * _LN2_HIGH is exact
_LN2_LOW = _f32(-2.12194440e-4)
_SHIFT = 3 * 2.0**22  # added to n, leaves n in the lowest bits
_BIASED = _f32(_SHIFT + 127)  # leaves the exponent bits of 2^n there
_TWICE_BIASED = _f32(_SHIFT + 254)  # leaves those of two factors of 2^n, added up
_LOWEST = _f32(-110)  # below, e^x and x e^x are 0
_ZERO_FACTORS = _f32(-176.2)  # rounds to n = -254, for which both factors are 0
_HIGHEST = _f32(89)  # e^x is inf above

_A0 = _f32(4.9999994e-01)
_A1 = _f32(1.66665167e-01)
_A2 = _f32(4.16681021e-02)
_A3 = _f32(8.36916547e-03)
_A4 = _f32(1.38380029e-03)

_L0 = _f32(-4.9999988e-01)
_L1 = _f32(3.33333373e-01)
_L2 = _f32(-2.50016391e-01)
_L3 = _f32(2.00012058e-01)
_L4 = _f32(-1.660669e-01)
_L5 = _f32(1.41961485e-01)
_L6 = _f32(-1.32805303e-01)
_L7 = _f32(1.28239334e-01)
_L8 = _f32(-7.4217923e-02)
_NORMAL = _f32(2.0**-126)  # the least of the normal numbers
_UP, _UP_EXPONENT = _f32(2.0**23), _f32(23)
_ROOT_HALF_BITS = _f32(math.sqrt(0.5)).view(_i32)

_QUARTER, _FOUR_EXPONENT = _f32(0.25), _i32(127 + 2)
_TINY = _f32(2.0**-60)  # log(1 + x) = x
_EXPM1_IS_EXP = _f32(40)  # from here on

_T0 = _f32(-3.33332956e-01)
_T1 = _f32(1.33323461e-01)
_T2 = _f32(-5.38798459e-02)
_T3 = _f32(2.14866716e-02)
_T4 = _f32(-7.94599205e-03)
_T5 = _f32(2.3011954e-03)
_T6 = _f32(-3.58381483e-04)
_TANH_NEAR = _f32(1)
_TANH_IS_ONE = _f32(10)

_E0 = _f32(1.28379151e-01)
_E1 = _f32(-3.76125038e-01)
_E2 = _f32(1.12819217e-01)
_E3 = _f32(-2.6770493e-02)
_E4 = _f32(4.99895914e-03)
_E5 = _f32(-6.02079963e-04)
_ERF_NEAR = _f32(0.9)
_ERF_IS_ONE = _f32(3.95)

_S0 = _f32(1.2852955e-01)
_S1 = _f32(6.3566637e-01)
_S2 = _f32(1.05330996e-01)
_S3 = _f32(-2.29347236e-02)
_S4 = _f32(3.22903367e-03)
_S5 = _f32(-2.15705863e-04)

_P0 = _f32(0.5)
_P1 = _f32(0.43568637)
_P2 = _f32(0.1813068)
_P3 = _f32(0.03998419)
_P4 = _f32(0.0040201936)
_D1 = _f32(1.6692577)
_D2 = _f32(1.1944844)
_D3 = _f32(0.46438045)
_D4 = _f32(0.10023288)
_D5 = _f32(0.010076988)
_TAIL_IS_ZERO = _f32(13.27)  # from here on: e^(-x^2 / 2) has the exponent bits of 0

_SCALE = _f32(2.0**-24)
_SCALED_BIASED = _f32(_SHIFT + 127 - 24)
_SIGMOID_IS_ZERO = _f32(-104)
_SIGMOID_IS_ONE = _f32(71.4)  # from here on: 2^-24 e^-x has the exponent bits of 0

_OPTIONS: Any = {"fastmath": {"contract"}, "error_model": "numpy", "forceinline": True}
_helper = jit(fastmath={"contract"}, forceinline=True)


def _jitted(public: Callable[..., Any]) -> Callable[[Callable[..., Any]], Any]:
    """Decorate the function that jitted code runs for `public` on float32; not on float64."""

    def decorate(single: Callable[..., Any]) -> Any:
        if single.__code__.co_argcount == 1:

            @overload(public, **_OPTIONS)
            def choose(x: Any) -> Any:
                return single if x == types.float32 else public
        else:

            @overload(public, **_OPTIONS)
            def choose_of_two(x: Any, w: Any) -> Any:
                return single if x == types.float32 else public

        return single

    return decorate


@_helper
def _bits(x: Any) -> Any:
    return np.float32(x).view(np.int32)


@_helper
def _exponent(bits: Any) -> Any:
    """Return the float32 with the lowest bits of an integer as its exponent."""
    return np.int32(bits << _MANTISSA).view(np.float32)


@_helper
def _with_sign(y: Any, x: Any) -> Any:
    """Return y, which is >= 0 or NaN, with the sign of x."""
    return np.int32(_bits(y) | np.int32(_bits(x) & _SIGN)).view(np.float32)


@_helper
def _reduced(x: Any, shift: Any) -> Any:
    """Return (bits, e^r - 1) with x = n ln 2 + r and n + shift in the lowest bits."""
    shifted = x * _LOG2E + shift
    n = shifted - shift
    high, low = x - n * _LN2_HIGH, n * _LN2_LOW  # high is exact
    r = high - low
    p = (((_A4 * r + _A3) * r + _A2) * r + _A1) * r + _A0
    return _bits(shifted), high + (p * (r * r) - low)


@_helper
def _exp_of(x: Any, biased: Any) -> Any:
    """Return e^x within some 2 ulp, more where x is large; times 2^(biased - _BIASED)."""
    shifted = x * _LOG2E + biased
    r = x - (shifted - biased) * _LN2
    p = ((((_A4 * r + _A3) * r + _A2) * r + _A1) * r + _A0) * (r * r) + r
    scale = _exponent(_bits(shifted))
    return p * scale + scale


@_helper
def _factors(x: Any) -> Any:
    """Return (p, s, t) with e^x = (p + 1) s t, where (p + 1) s is normal or 0."""
    c = _ZERO_FACTORS if x < _LOWEST else (_HIGHEST if x > _HIGHEST else x)
    bits, p = _reduced(c, _TWICE_BIASED)
    half = np.int32(bits >> _BIT)
    return p, _exponent(half), _exponent(np.int32(bits - half))


def exp(x: Any) -> Any:
    """Return e^x."""
    return np.exp(x)


@_jitted(exp)
def _exp(x: Any) -> Any:
    p, s, t = _factors(x)
    return (p + _ONE) * s * t


def log(x: Any) -> Any:
    """Return the natural logarithm."""
    return np.log(x)


@_helper
def _log_of(n: Any, f: Any) -> Any:
    """Return log(2^n (1 + f))."""
    p = (((_L8 * f + _L7) * f + _L6) * f + _L5) * f + _L4
    p = (((p * f + _L3) * f + _L2) * f + _L1) * f + _L0
    return n * _LN2 + (p * (f * f) + f)


@_jitted(log)
def _log(x: Any) -> Any:
    subnormal = x < _NORMAL
    bits = _bits(x * _UP if subnormal else x)
    k = np.int32(np.int32(bits - _ROOT_HALF_BITS) >> _MANTISSA)
    f = np.int32(bits - np.int32(k << _MANTISSA)).view(np.float32) - _ONE
    n = np.float32(k)
    y = _log_of(n - _UP_EXPONENT if subnormal else n, f)
    y = y if x < _INF else x
    return y if x > _ZERO else (-_INF if x == _ZERO else _NAN)


def log1p(x: Any) -> Any:
    """Return log(1 + x)."""
    return np.log1p(x)


@_jitted(log1p)
def _log1p(x: Any) -> Any:
    k = np.int32(np.int32(_bits(_ONE + x) - _ROOT_HALF_BITS) >> _MANTISSA)
    scale = _exponent(np.int32(_FOUR_EXPONENT - k))  # 4 / 2^k; 1 / 2^k may be subnormal
    f = (x * _QUARTER) * scale + (scale * _QUARTER - _ONE)
    y = _log_of(np.float32(k), f)
    y = x if abs(x) < _TINY else y
    y = y if x < _INF else x
    return y if x > -_ONE else (-_INF if x == -_ONE else _NAN)


def expm1(x: Any) -> Any:
    """Return e^x - 1."""
    return np.expm1(x)


@_jitted(expm1)
def _expm1(x: Any) -> Any:
    p, s, t = _factors(x)
    scale = s * t
    y = p * scale + (scale - _ONE)
    return _with_sign(abs(y) if x < _EXPM1_IS_EXP else (p + _ONE) * s * t, x)


def tanh(x: Any) -> Any:
    """Return the hyperbolic tangent."""
    return np.tanh(x)


@_jitted(tanh)
def _tanh(x: Any) -> Any:
    a = abs(x)
    z = a * a
    p = (((_T6 * z + _T5) * z + _T4) * z + _T3) * z + _T2
    p = (p * z + _T1) * z + _T0
    near = p * (z * a) + a
    c = _TANH_IS_ONE if a > _TANH_IS_ONE else a
    far = _ONE - _TWO / (_ONE + _exp_of(c + c, _BIASED))
    return _with_sign(near if a < _TANH_NEAR else far, x)


@_helper
def _erf_near(a: Any) -> Any:
    """Return the error function of a number in [0, _ERF_NEAR]."""
    z = a * a
    p = ((((_E5 * z + _E4) * z + _E3) * z + _E2) * z + _E1) * z + _E0
    return p * a + a


def erf(x: Any) -> Any:
    """Return the error function, 2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x."""
    return math.erf(x)


@_jitted(erf)
def _erf(x: Any) -> Any:
    a = abs(x)
    c = _ERF_IS_ONE if a > _ERF_IS_ONE else a
    s = ((((_S5 * c + _S4) * c + _S3) * c + _S2) * c + _S1) * c + _S0
    bits, p = _reduced(-(s * c + c), _BIASED)
    far = _ONE - (p + _ONE) * _exponent(bits)
    return _with_sign(_erf_near(a) if a < _ERF_NEAR else far, x)


def normal_tail(x: Any) -> Any:
    """Return Q(x), the normal distribution's upper tail, and e^(-x^2 / 2), for x >= 0."""
    return 0.5 * math.erfc(x * math.sqrt(0.5)), np.exp(-0.5 * x * x)


@_jitted(normal_tail)
def _normal_tail(x: Any) -> Any:
    a = x if x < _TAIL_IS_ZERO else _TAIL_IS_ZERO
    e = _exp_of(a * a * -_HALF, _BIASED)
    top = (((_P4 * a + _P3) * a + _P2) * a + _P1) * a + _P0
    bottom = ((((_D5 * a + _D4) * a + _D3) * a + _D2) * a + _D1) * a + _ONE
    return e * top / bottom, e


def sigmoid(x: Any) -> Any:
    """Return 1 / (1 + e^-x)."""
    e = np.exp(-abs(x))
    return 1 / (1 + e) if x >= 0 else e / (1 + e)


@_jitted(sigmoid)
def _sigmoid(x: Any) -> Any:
    p, s, t = _factors(-abs(x))
    m = (p + _ONE) * s
    negative = x < _ZERO
    return (m if negative else _ONE) / (_ONE + m * t) * (t if negative else _ONE)


def sigmoids(x: Any) -> Any:
    """Return sigmoid(x) and sigmoid(-x), which sum to 1: each has all its digits."""
    e = np.exp(-abs(x))
    large, small = 1 / (1 + e), e / (1 + e)
    return (large, small) if x >= 0 else (small, large)


@_jitted(sigmoids)
def _sigmoids(x: Any) -> Any:
    c = _SIGMOID_IS_ZERO if x < _SIGMOID_IS_ZERO else x
    c = _SIGMOID_IS_ONE if c > _SIGMOID_IS_ONE else c
    e = _exp_of(-c, _SCALED_BIASED)  # 2^-24 e^-x, which does not overflow
    q = _ONE / (_SCALE + e)
    return q * _SCALE, q * e


def times_sigmoid(x: Any, w: Any) -> Any:
    """Return x / (1 + e^-w), accurate even if 1 / (1 + e^-w) is subnormal."""
    return x * sigmoid(w)


@_jitted(times_sigmoid)
def _times_sigmoid(x: Any, w: Any) -> Any:
    p, s, t = _factors(-abs(w))
    negative = w < _ZERO
    y = ((x * p + x) * s if negative else x) / (_ONE + (p + _ONE) * s * t)
    return y * (t if negative else _ONE)
