"""Functions of each element, of one tensor or of several that are broadcast."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..emit import Emitter, Tensor, is_float
from .table import TRANSLATIONS, translates

# One tensor


def _unary(kind: str) -> Callable[..., str]:
    return lambda g, x: g.op(kind, x)


TRANSLATIONS.update({
    op: _unary(kind)
    for op, kind in {
        "Neg": "Neg", "Abs": "Abs",
        "Reciprocal": "Reciprocal", "Exp": "Exp", "Log": "Log", "Sqrt": "Sqrt", "Sin": "Sin",
        "Cos": "Cos", "Tan": "Tan", "Asin": "Asin", "Acos": "Acos", "Atan": "Atan",
        "Sinh": "Sinh", "Cosh": "Cosh", "Asinh": "Asinh", "Acosh": "Acosh", "Atanh": "Atanh",
         "Erf": "Erf", "Relu": "Relu", "Sigmoid": "Sigmoid",
        "Tanh": "Tanh",
    }.items()
})  # fmt: skip


def _of_floats(kind: str) -> Callable[..., str]:
    """Return the translation of a test that no integer passes."""

    def translate(g: Emitter, x: Tensor) -> str:
        return g.op(kind, x) if is_float(x.dtype) else g.op("Not", g.op("Equal", x, x))

    return translate


TRANSLATIONS.update(Isnan=_of_floats("IsNaN"), Isinf=_of_floats("IsInf"))


@translates("Alias", "Clone")
def alias(g: Emitter, x: Tensor) -> str:
    """The same tensor."""
    return g.name(x)


@translates("Sign")
def sign(g: Emitter, x: Tensor) -> str:
    """-1, 0 or 1."""
    return g.name(x) if x.dtype.kind == "b" else g.op("Sign", x)


@translates("Square")
def square(g: Emitter, x: Tensor) -> str:
    """x * x."""
    return g.op("Mul", x, x)


@translates("Rsqrt")
def rsqrt(g: Emitter, x: Tensor) -> str:
    """1 / sqrt(x)."""
    return g.op("Reciprocal", g.op("Sqrt", x))


@translates("Exp2")
def exp2(g: Emitter, x: Tensor) -> str:
    """2 ** x."""
    return g.op("Pow", g.constant(2, x.dtype), x)


@translates("Expm1")
def expm1(g: Emitter, x: Tensor) -> str:
    """exp(x) - 1, as 2 exp(x / 2) sinh(x / 2), which keeps its digits near 0."""
    half = g.op("Mul", x, g.constant(0.5, x.dtype))
    twice = g.op("Mul", g.op("Exp", half), g.constant(2, x.dtype))
    return g.op("Mul", twice, g.op("Sinh", half))


@translates("Log1p")
def log1p(g: Emitter, x: Tensor) -> str:
    """log(1 + x)."""
    return g.op("Log", g.op("Add", x, g.constant(1, x.dtype)))


def _logarithm(base: float) -> Callable[..., str]:
    return lambda g, x: g.op("Mul", g.op("Log", x), g.constant(1 / math.log(base), x.dtype))


TRANSLATIONS.update(Log2=_logarithm(2), Log10=_logarithm(10))


@translates("Erfc")
def erfc(g: Emitter, x: Tensor) -> str:
    """1 - erf(x)."""
    return g.op("Sub", g.constant(1, x.dtype), g.op("Erf", x))


def _rounding(kind: str) -> Callable[..., str]:
    return lambda g, x: g.op(kind, x) if is_float(x.dtype) else g.name(x)


TRANSLATIONS.update(Floor=_rounding("Floor"), Ceil=_rounding("Ceil"))


@translates("Trunc")
def trunc(g: Emitter, x: Tensor) -> str:
    """The integer part: sign(x) * floor(|x|)."""
    if not is_float(x.dtype):
        return g.name(x)
    return g.op("Mul", g.op("Sign", x), g.op("Floor", g.op("Abs", x)))


@translates("Frac")
def frac(g: Emitter, x: Tensor) -> str:
    """x - trunc(x)."""
    return g.op("Sub", x, trunc(g, x))


@translates("Round")
def round_(g: Emitter, x: Tensor, decimals: int = 0) -> str:
    """The nearest number with so many decimals, the even one of two."""
    if not is_float(x.dtype):
        return g.name(x)
    if not decimals:
        return g.op("Round", x)
    scale = g.constant(10.0**decimals, x.dtype)
    return g.op("Div", g.op("Round", g.op("Mul", x, scale)), scale)


@translates("Isfinite")
def isfinite(g: Emitter, x: Tensor) -> str:
    """Not infinite and not NaN."""
    if not is_float(x.dtype):
        return g.op("Equal", x, x)
    return g.op("Not", g.op("Or", g.op("IsNaN", x), g.op("IsInf", x)))


@translates("NanToNum")
def nan_to_num(g: Emitter, x: Tensor, nan: float, posinf: Any, neginf: Any) -> str:
    """x with numbers for NaN and the infinities."""
    if not is_float(x.dtype):
        return g.name(x)
    most = float(np.finfo(x.dtype).max)
    y = g.op("Where", g.op("IsNaN", x), g.scalar(nan, x.dtype), x)
    above = g.op("IsInf", x, detect_negative=0)
    y = g.op("Where", above, g.scalar(most if posinf is None else posinf, x.dtype), y)
    below = g.op("IsInf", x, detect_positive=0)
    return g.op("Where", below, g.scalar(-most if neginf is None else neginf, x.dtype), y)


@translates("ToCopy")
def to(g: Emitter, x: Tensor, dtype: Any) -> str:
    """x in another type."""
    return g.cast(x, g.outs[0].dtype)


# Two tensors, or a tensor and a number


def _binary(kind: str) -> Callable[..., str]:
    def translate(g: Emitter, a: Any, b: Any) -> str:
        dtype = g.outs[0].dtype
        return g.op(kind, g.operand(a, dtype), g.operand(b, dtype))

    return translate


def _bool(numbers: str, truths: str) -> Callable[..., str]:
    """Return the translation of an op that is another one on truths."""

    def translate(g: Emitter, a: Any, b: Any) -> str:
        dtype = g.outs[0].dtype
        kind = truths if dtype.kind == "b" else numbers
        return g.op(kind, g.operand(a, dtype), g.operand(b, dtype))

    return translate


TRANSLATIONS.update(
    Add=_bool("Add", "Or"),
    Sub=_binary("Sub"),
    Mul=_bool("Mul", "And"),
    Pow=_binary("Pow"),
    Maximum=_bool("Max", "Or"),
    Minimum=_bool("Min", "And"),
    BitwiseAnd=_bool("BitwiseAnd", "And"),
    BitwiseOr=_bool("BitwiseOr", "Or"),
    BitwiseXor=_bool("BitwiseXor", "Xor"),
)


@translates("BitwiseNot")
def bitwise_not(g: Emitter, x: Tensor) -> str:
    """~x."""
    return g.op("Not" if x.dtype.kind == "b" else "BitwiseNot", x)


def _operands(g: Emitter, a: Any, b: Any) -> tuple[str, str]:
    dtype = g.outs[0].dtype
    return g.operand(a, dtype), g.operand(b, dtype)


@translates("Div")
def div(g: Emitter, a: Any, b: Any, rounding_mode: str | None = None) -> str:
    """a / b, rounded down or towards 0 if asked for."""
    if rounding_mode == "floor":
        return floor_divide(g, a, b)
    quotient = g.op("Div", *_operands(g, a, b))  # of integers, it is rounded towards 0
    if rounding_mode is None:
        return quotient
    return trunc(g, Tensor(quotient, g.outs[0].shape, g.outs[0].dtype))


@translates("FloorDivide")
def floor_divide(g: Emitter, a: Any, b: Any) -> str:
    """floor(a / b)."""
    one, two = _operands(g, a, b)
    quotient = g.op("Div", one, two)
    if is_float(g.outs[0].dtype):
        return g.op("Floor", quotient)
    rest = g.op("Sub", one, g.op("Mul", quotient, two))
    zero = g.constant(0, g.outs[0].dtype)
    signs = g.op("Xor", g.op("Less", rest, zero), g.op("Less", two, zero))
    down = g.op("And", g.op("Not", g.op("Equal", rest, zero)), signs)
    return g.op("Sub", quotient, g.cast(down, g.outs[0].dtype, np.dtype(bool)))


@translates("Remainder")
def remainder(g: Emitter, a: Any, b: Any) -> str:
    """a - floor(a / b) * b, with the sign of b."""
    one, two = _operands(g, a, b)
    if not is_float(g.outs[0].dtype):
        return g.op("Mod", one, two)
    return g.op("Sub", one, g.op("Mul", g.op("Floor", g.op("Div", one, two)), two))


@translates("Fmod")
def fmod(g: Emitter, a: Any, b: Any) -> str:
    """a - trunc(a / b) * b, with the sign of a."""
    return g.op("Mod", *_operands(g, a, b), fmod=1)


@translates("Logaddexp")
def logaddexp(g: Emitter, a: Any, b: Any) -> str:
    """log(exp(a) + exp(b)) = max + log(1 + exp(-|a - b|))."""
    one, two = _operands(g, a, b)
    distance = g.op("Neg", g.op("Abs", g.op("Sub", one, two)))
    more = g.op("Log", g.op("Add", g.op("Exp", distance), g.constant(1, g.outs[0].dtype)))
    return g.op("Add", g.op("Max", one, two), more)


@translates("Atan2")
def atan2(g: Emitter, a: Any, b: Any) -> str:
    """The angle of the point (b, a)."""
    y, x = _operands(g, a, b)
    dtype = g.outs[0].dtype
    zero, pi, right = (g.constant(n, dtype) for n in (0, math.pi, math.pi / 2))
    below = g.op("Less", y, zero)
    turned = g.op("Where", below, g.op("Neg", pi), pi)
    angle = g.op("Atan", g.op("Div", y, x))
    angle = g.op("Where", g.op("Less", x, zero), g.op("Add", angle, turned), angle)
    upright = g.op("Where", below, g.op("Neg", right), right)
    upright = g.op("Where", g.op("Equal", y, zero), zero, upright)
    return g.op("Where", g.op("Equal", x, zero), upright, angle)


@translates("Copysign")
def copysign(g: Emitter, a: Any, b: Any) -> str:
    """|a| with the sign of b, which a zero has too."""
    one, two = _operands(g, a, b)
    zero, unit = (g.constant(n, g.outs[0].dtype) for n in (0, 1))
    below = g.op("Or", g.op("Less", two, zero), g.op("Less", g.op("Div", unit, two), zero))
    size = g.op("Abs", one)
    return g.op("Where", below, g.op("Neg", size), size)


@translates("BitwiseLeftShift")
def left_shift(g: Emitter, a: Any, b: Any) -> str:
    """a * 2 ** b; ONNX shifts unsigned integers alone."""
    one, two = _operands(g, a, b)
    return g.op("Mul", one, g.op("Pow", g.constant(2, g.outs[0].dtype), two))


@translates("BitwiseRightShift")
def right_shift(g: Emitter, a: Any, b: Any) -> str:
    """floor(a / 2 ** b)."""
    out = g.outs[0]
    one, two = _operands(g, a, b)
    power = g.op("Pow", g.constant(2, out.dtype), two)
    return floor_divide(g, *(Tensor(name, out.shape, out.dtype) for name in (one, power)))


# Comparisons


def _compare(kind: str, negated: bool = False) -> Callable[..., str]:
    def translate(g: Emitter, a: Any, b: Any) -> str:
        dtype = g.common(a, b)
        if dtype.kind == "b" and kind != "Equal":
            dtype = np.dtype(np.int32)
        found: str = g.op(kind, g.operand(a, dtype), g.operand(b, dtype))
        return g.op("Not", found) if negated else found

    return translate


TRANSLATIONS.update(
    Eq=_compare("Equal"),
    Ne=_compare("Equal", negated=True),
    Lt=_compare("Less"),
    Le=_compare("LessOrEqual"),
    Gt=_compare("Greater"),
    Ge=_compare("GreaterOrEqual"),
)


def true(g: Emitter, x: Any) -> str:
    """Return x as truths: True where it is not 0."""
    return g.operand(x, np.dtype(bool))


def _logical(kind: str) -> Callable[..., str]:
    return lambda g, *args: g.op(kind, *(true(g, x) for x in args))


TRANSLATIONS.update(
    LogicalNot=_logical("Not"),
    LogicalAnd=_logical("And"),
    LogicalOr=_logical("Or"),
    LogicalXor=_logical("Xor"),
)


@translates("Isclose")
def isclose(g: Emitter, a: Tensor, b: Tensor, rtol: float, atol: float, equal_nan: bool) -> str:
    """|a - b| <= atol + rtol * |b|, or equal."""
    dtype = np.dtype(np.float64) if not is_float(a.dtype) else a.dtype
    one, two = g.cast(a, dtype), g.cast(b, dtype)
    bound = g.op("Mul", g.op("Abs", two), g.constant(rtol, dtype))
    bound = g.op("Add", bound, g.constant(atol, dtype))
    near = g.op("LessOrEqual", g.op("Abs", g.op("Sub", one, two)), bound)
    finite = g.op("Not", g.op("IsInf", two))
    near = g.op("Or", g.op("Equal", one, two), g.op("And", near, finite))
    if equal_nan:
        near = g.op("Or", near, g.op("And", g.op("IsNaN", one), g.op("IsNaN", two)))
    return near


@translates("Isin")
def isin(g: Emitter, x: Tensor, those: Tensor, invert: bool) -> str:
    """True where x is one of those."""
    dtype = g.common(x, those)
    one = g.unsqueeze(g.cast(x, dtype), x.ndim)
    every = g.op("Reshape", g.cast(those, dtype), g.constant([-1]))
    hits = g.cast(g.op("Equal", one, every), np.int64, np.dtype(bool))
    count = g.op("ReduceSum", hits, g.constant([x.ndim]), keepdims=0)
    found: str = g.op("Greater", count, g.constant(0))
    return g.op("Not", found) if invert else found


# Choices


@translates("Where")
def where(g: Emitter, condition: Tensor, a: Any, b: Any) -> str:
    """a where the condition is True, else b."""
    return g.op("Where", condition, *_operands(g, a, b))


@translates("MaskedFill")
def masked_fill(g: Emitter, x: Tensor, mask: Tensor, value: Any) -> str:
    """The value where the mask is True, else x."""
    return g.op("Where", mask, g.operand(value, x.dtype), x)


@translates("Clamp")
def clamp(g: Emitter, x: Tensor, min: Any, max: Any) -> str:
    """x, not below min and not above max."""
    dtype = g.outs[0].dtype
    y = g.cast(x, dtype)
    y = y if min is None else g.op("Max", y, g.operand(min, dtype))
    return y if max is None else g.op("Min", y, g.operand(max, dtype))


@translates("Lerp")
def lerp(g: Emitter, a: Tensor, b: Tensor, w: Any) -> str:
    """a + w * (b - a)."""
    return g.op("Add", a, g.op("Mul", g.operand(w, a.dtype), g.op("Sub", b, a)))


# Activations


@translates("Gelu")
def gelu(g: Emitter, x: Tensor, approximate: str) -> str:
    """x * P(x), P of the normal distribution; ONNX has it from opset 20 on."""
    if g.opset >= 20:
        return g.op("Gelu", x, approximate=approximate)

    def c(number: float) -> str:
        return g.constant(number, x.dtype)

    if approximate == "tanh":
        cube = g.op("Mul", g.op("Mul", g.op("Mul", x, x), x), c(0.044715))
        inner = g.op("Mul", g.op("Add", x, cube), c(math.sqrt(2 / math.pi)))
        share = g.op("Add", g.op("Tanh", inner), c(1))
    else:
        share = g.op("Add", g.op("Erf", g.op("Mul", x, c(math.sqrt(0.5)))), c(1))
    return g.op("Mul", g.op("Mul", x, share), c(0.5))


@translates("Elu")
def elu(g: Emitter, x: Tensor, alpha: float) -> str:
    """x, or alpha * (exp(x) - 1) below 0."""
    return g.op("Elu", x, alpha=float(alpha))


@translates("LeakyRelu")
def leaky_relu(g: Emitter, x: Tensor, slope: float) -> str:
    """x, or slope * x below 0."""
    return g.op("LeakyRelu", x, alpha=float(slope))


@translates("Hardtanh")
def hardtanh(g: Emitter, x: Tensor, low: float, high: float) -> str:
    """x between two bounds."""
    return g.op("Clip", x, g.scalar(low, x.dtype), g.scalar(high, x.dtype))


@translates("Softplus")
def softplus(g: Emitter, x: Tensor, beta: float, threshold: float) -> str:
    """log(1 + exp(beta * x)) / beta, or x where beta * x is above the threshold."""
    scaled = g.op("Mul", x, g.scalar(float(beta), x.dtype))
    smooth = g.op("Div", g.op("Softplus", scaled), g.scalar(float(beta), x.dtype))
    return g.op("Where", g.op("Greater", scaled, g.scalar(float(threshold), x.dtype)), x, smooth)


@translates("Logsigmoid")
def logsigmoid(g: Emitter, x: Tensor) -> str:
    """-log(1 + exp(-x))."""
    return g.op("Neg", g.op("Softplus", g.op("Neg", x)))


@translates("BinaryCrossEntropy")
def binary_cross_entropy(g: Emitter, x: Tensor, t: Tensor) -> str:
    """-(t * log(x) + (1 - t) * log(1 - x)), each logarithm at least -100."""
    one, least = g.constant(1, x.dtype), g.constant(-100, x.dtype)
    log = g.op("Max", g.op("Log", x), least)
    other = g.op("Max", g.op("Log", g.op("Sub", one, x)), least)
    both = g.op("Add", g.op("Mul", t, log), g.op("Mul", g.op("Sub", one, t), other))
    return g.op("Neg", both)
