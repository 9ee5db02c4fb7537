"""Arithmetic, element by element; arguments broadcast against each other."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core import Tensor, attach
from ..dtype import FLOATING
from .checks import in_new_order
from .composite import composite, register
from .elementwise import (
    Binary,
    dtype_of,
    evaluate,
    is_float,
    pooled,
    promote_floats,
    promote_operands,
    unary,
    zero_grad_like,
)
from .samples import Rand, Samples

_add, _subtract, _multiply = pooled(np.add), pooled(np.subtract), pooled(np.multiply)
_divide, _pow = pooled(np.true_divide), pooled(np.power)


def _check_alpha(name: str, input: Any, other: Any, alpha: float) -> None:
    if not isinstance(alpha, int) and not is_float(input) and not is_float(other):
        raise RuntimeError(
            f"{name}: for integral input tensors, alpha must be an integer, got {alpha}"
        )


class Add(Binary):
    """y = a + alpha * b: (*), (*) -> (*).  da = dy, db = alpha * dy."""

    operators = ("__add__", "__radd__")
    cell = "a + b"

    @staticmethod
    def call(input: Any, other: Any, *deprecated: Tensor, alpha: float = 1) -> Tensor:
        if deprecated:
            other, alpha = in_new_order("add", 1, other, *deprecated)
        if alpha != 1:
            _check_alpha("add", input, other, alpha)
            other = other * alpha
        a, b = promote_operands(input, other)
        return Add.apply(a, b)

    def forward(ctx, a: Any, b: Any) -> Any:
        return _add(a, b)

    def backward(ctx, dy: Tensor) -> tuple[Tensor, Tensor]:
        return dy, dy

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield from Binary.samples(rand)
        yield rand(2, 1), rand(1, 3), dict(alpha=2.0)


class Sub(Binary):
    """y = a - alpha * b: (*), (*) -> (*).  da = dy, db = -alpha * dy. RuntimeError for bool."""

    operators = ("__sub__", "__rsub__")
    aliases = ("subtract",)
    cell = "a - b"
    plain = True

    @staticmethod
    def call(input: Any, other: Any, *deprecated: Tensor, alpha: float = 1) -> Tensor:
        if deprecated:
            other, alpha = in_new_order("sub", 1, other, *deprecated)
        if alpha != 1:
            _check_alpha("sub", input, other, alpha)
            other = other * alpha
        for x in (input, other):
            if isinstance(x, bool) or (isinstance(x, Tensor) and x._array.dtype.kind == "b"):
                raise RuntimeError(
                    "sub: subtraction, the `-` operator, with a bool tensor is not supported. "
                    "To invert a mask use `~` or logical_not(); to compare two, `^`."
                )
        a, b = promote_operands(input, other)
        return Sub.apply(a, b)

    def forward(ctx, a: Any, b: Any) -> Any:
        return _subtract(a, b)

    def backward(ctx, dy: Tensor) -> tuple[Tensor, Tensor | None]:
        return dy, -dy if ctx.needs_input_grad[1] else None

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield from Binary.samples(rand)
        yield rand(2, 1), rand(1, 3), dict(alpha=2.0)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield from Binary.errors(rand)
        yield rand.bools(3), rand.bools(3)
        yield rand(3), rand.bools(3)


@composite(
    namespaces="torch",
    samples=lambda rand: [(rand(2, 3), 1.5), (rand(3), rand(2, 1), dict(alpha=2.0))],
    errors=lambda rand: [(rand.bools(3), rand.bools(3))],
)
def rsub(input: Tensor, other: Any, *, alpha: float = 1) -> Tensor:
    """y = b - alpha * a: (*), (*) -> (*)."""
    return Sub.call(other, input, alpha=alpha)


class Mul(Binary):
    """y = a * b: (*), (*) -> (*).  da = dy * b, db = dy * a."""

    operators = ("__mul__", "__rmul__")
    aliases = ("multiply",)
    cell = "a * b"
    plain = True

    def forward(ctx, a: Any, b: Any) -> Any:
        to_a, to_b = ctx.edges
        ctx.save(None if to_b is None else a, None if to_a is None else b)
        return _multiply(a, b)

    def backward(ctx, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b = ctx.saved
        times = _multiply if ctx.on_arrays else Mul.apply
        return None if b is None else times(dy, b), None if a is None else times(dy, a)


class Div(Binary):
    """y = a / b: (*), (*) -> (*); `rounding_mode` "floor" or "trunc" rounds it, None does not.

    da = dy / b, db = -dy * y / b; zeros when rounding. Integers are divided as floats unless
    rounded; then RuntimeError for division by 0.
    """

    operators = ("__truediv__", "__rtruediv__")
    aliases = ("divide", "true_divide")

    @staticmethod
    def call(input: Any, other: Any, *, rounding_mode: str | None = None) -> Tensor:
        if rounding_mode is None:
            a, b = promote_floats(input, other)
            return Div.apply(a, b)
        if rounding_mode not in ("floor", "trunc"):
            raise RuntimeError(
                f"div: expected rounding_mode to be None, 'trunc' or 'floor', got {rounding_mode!r}"
            )
        return Div.apply(*promote_operands(input, other), rounding_mode=rounding_mode)

    def forward(ctx, a: Any, b: Any, rounding_mode: str | None = None) -> Any:
        ctx.save(a if ctx.needs_input_grad[1] else None, b, rounding_mode)
        if rounding_mode is None:
            ctx.plain = True
            return _divide(a, b)
        check_divisor(a, b)
        return np.floor_divide(a, b) if rounding_mode == "floor" else _truncated(a, b)

    @staticmethod
    def cell(a: Any, b: Any, rounding_mode: str | None = None) -> str:
        return "a / b" if rounding_mode is None else f"{rounding_mode}(a / b)"

    def backward(ctx, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b, rounding_mode = ctx.saved
        if rounding_mode is not None:
            return zero_grad_like(dy), zero_grad_like(dy)
        da = dy / b
        return da, None if a is None else -(da * (a / b))

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield from Binary.samples(rand)
        yield 2.0, rand.positive(2, 3)
        yield rand.constant(2, 3), rand.constant(3), dict(rounding_mode="floor")
        yield rand.constant(2, 3), 0.3, dict(rounding_mode="trunc")
        yield rand.integers(-9, 9, 2, 3), rand.integers(1, 4, 3), dict(rounding_mode="trunc")
        yield rand.integers(-9, 9, 2, 3), -4, dict(rounding_mode="floor")
        yield rand.integers(-9, 9, 2, 3), rand.integers(1, 4, 3)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield from Binary.errors(rand)
        yield rand(3), rand(3), dict(rounding_mode="up")
        yield rand.integers(1, 3, 3), 0, dict(rounding_mode="floor")


def check_divisor(a: Any, b: Any) -> None:
    """Raise NotImplementedError for bool, RuntimeError for an integer divided by 0."""
    kind = dtype_of(a).kind
    if kind == "b":
        raise NotImplementedError("not implemented for bool tensors")
    if kind not in FLOATING and not np.all(b):
        raise RuntimeError("ZeroDivisionError: integer division by zero")


def _truncated(a: Any, b: Any) -> Any:
    if dtype_of(a).kind in FLOATING:
        return np.trunc(np.true_divide(a, b))
    quotient = np.floor_divide(a, b)
    return quotient + ((np.fmod(a, b) != 0) & (np.less(a, 0) != np.less(b, 0)))


@register
def positive(input: Tensor) -> Tensor:
    """Return the tensor itself, as `+x`; RuntimeError for bool."""
    if input._array.dtype.kind == "b":
        raise RuntimeError("positive: the `+` operator, on a bool tensor is not supported")
    return input


attach("tensor", "__pos__", positive)


class Pow(Binary):
    """y = a ** b: (*), (*) -> (*); a or b may be a number.

    da = dy * b * a ** (b - 1), 0 where b = 0;  db = dy * y * log(a), 0 where a = 0 and b >= 0.
    RuntimeError for an integer to a negative integer number.
    """

    operators = ("__pow__", "__rpow__")

    @staticmethod
    def call(input: Any, exponent: Any) -> Tensor:
        a, b = promote_operands(input, exponent)
        if isinstance(b, int) and b < 0 and not is_float(a):
            raise RuntimeError("pow: integers to negative integer powers are not allowed")
        return Pow.apply(a, b)

    def forward(ctx, a: Any, b: Any) -> Any:
        ctx.plain = type(b) is float and b != 0
        y = _power(a, b if isinstance(a, np.ndarray) else np.ascontiguousarray(b).reshape(b.shape))
        ctx.save(a, b, y if ctx.needs_input_grad[1] else None)
        return y

    @staticmethod
    def cell(a: Any, b: Any) -> str:
        if not isinstance(b, np.ndarray):
            return "a ** b" if b else "1"
        power = "a ** b" if b.dtype.kind in FLOATING else "trunc(a ** b)"  # 2 ** -1 is 0
        return f"1 if b == 0 else {power}" if not b.all() else power

    def backward(ctx, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b, y = ctx.saved
        da = db = None
        if ctx.needs_input_grad[0]:
            if isinstance(b, Tensor):
                da = (dy * (b * a ** (b - 1.0))).masked_fill(b == 0, 0.0)
            else:
                power = _power if ctx.on_arrays else pow
                da = zero_grad_like(dy) if b == 0 else dy * (power(a, b - 1) * b)
        if y is not None:
            flat = b >= 0
            if isinstance(a, Tensor):
                flat = flat & (a == 0)
                db = (dy * (y * a.log())).masked_fill(flat, 0.0)
            elif a == 0:
                db = (dy * (y * -float("inf"))).masked_fill(flat, 0.0)
            else:
                db = dy * (y * (float(np.log(a)) if a > 0 else float("nan")))
        return da, db

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand.positive(2, 3), rand(3)
        yield rand.positive(2, 1), rand(1, 3)
        for exponent in (0, 1, 2, 3, 0.5, -1, -2.5):
            yield rand.positive(2, 3), exponent
        yield rand(2, 3), 3
        yield rand(2, 3), rand.integers(0, 4, 3)
        yield 2.5, rand(2, 3)
        yield rand.integers(-4, 5, 2, 3), 3
        yield rand.integers(-4, 5, 2, 3), rand.integers(0, 3, 3)
        yield rand.integers(1, 5, 2, 3), 0.5

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield from Binary.errors(rand)
        yield rand.integers(1, 3, 3), -1


def _power(a: Any, b: Any) -> Any:
    if not isinstance(b, np.ndarray):
        if b == 2:
            return _multiply(a, a)
        if b == 3:
            return _multiply(_multiply(a, a), a)
        if b == 0.5:
            return evaluate(np.sqrt, a)
        if b == -0.5:
            return evaluate(np.reciprocal, evaluate(np.sqrt, a))
    elif b.dtype.kind not in FLOATING and (b < 0).any():
        # Of the integers only 1 and -1 have an integer inverse; the rest round to 0.
        unit = np.where(np.equal(a, 1), 1, np.where(np.equal(a, -1), 1 - 2 * (b & 1), 0))
        return np.where(b < 0, unit, np.power(a, np.maximum(b, 0))).astype(b.dtype)
    if dtype_of(a).kind == "b":
        return np.logical_or(a, np.logical_not(b))
    return _pow(a, b)


def _negative(x: np.ndarray) -> Any:
    if x.dtype.kind == "b":
        raise RuntimeError(
            "negation, the `-` operator, on a bool tensor is not supported. "
            "To invert a mask use `~` or logical_not()."
        )
    return evaluate(np.negative, x)


def _square(x: np.ndarray) -> Any:
    x = x.astype(np.int64) if x.dtype.kind == "b" else x
    return _multiply(x, x)


def _absolute(x: np.ndarray) -> Any:
    if x.dtype.kind == "b":
        raise NotImplementedError("not implemented for bool tensors")
    return evaluate(np.abs, x)


def _sign(x: np.ndarray) -> Any:
    if x.dtype.kind == "b":
        return x.copy()
    return np.greater(x, 0).astype(x.dtype) - np.less(x, 0)  # 0 of NaN


def _signed(rand: Rand) -> Samples:
    yield (rand.distinct(2, 3),)
    yield (rand.integers(-3, 3, 4),)


def _bools(rand: Rand) -> Samples:
    yield (rand.bools(3),)


# fmt: off
unary("neg", _negative, lambda dy: -dy, "y = -x.  dx = -dy. RuntimeError for bool.",
      floating=False, operators=("__neg__",), out="same", aliases=("negative",), errors=_bools)
unary("abs", _absolute, lambda dy, x: dy * x.sign(), "y = abs(x).  dx = dy * sign(x), 0 at 0.",
      floating=False, out="same", operators=("__abs__",), aliases=("absolute",),
      samples=_signed, errors=_bools)
unary("sign", _sign, zero_grad_like, "y = -1, 0 or 1, x's sign.  dx = 0.",
      floating=False, out="same", aliases=("sgn",), cell="sign(x)",
      samples=lambda rand: [*_signed(rand), (rand.bools(4),)])
unary("square", _square, lambda dy, x: dy * (x * 2.0), "y = x * x.  dx = 2 * dy * x.",
      floating=False)
unary("reciprocal", np.reciprocal, lambda dy, y: -dy * (y * y), "y = 1 / x.  dx = -dy * y * y.")
# fmt: on
