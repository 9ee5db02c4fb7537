"""Comparisons, logic and bits, element by element; arguments broadcast against each other.

Comparisons and logic give bool tensors; none of these has a gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..core import Op, Tensor, attach
from .convert import Samples, as_tensor, register
from .elementwise import Unary, evaluate, pair


def check_tensors(name: str, *operands: Any) -> None:
    """TypeError unless all are tensors."""
    for x in operands:
        if not isinstance(x, Tensor):
            raise TypeError(f"{name}: expected a Tensor, got {type(x).__name__}")


class Comparison(Op, abstract=True):
    """y = whether a and b are in a relation, as bool: (*), (*) -> (*)."""

    inplace = True
    differentiable = False
    broadcasts = True

    @classmethod
    def default_call(cls) -> Callable[..., Any]:
        apply = cls.apply

        def call(input: Any, other: Any) -> Tensor:
            return apply(*pair(input, other))

        return call

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand.integers(0, 3, 2, 3), rand.integers(0, 3, 3)
        yield rand.integers(0, 3, 2, 3), 1
        yield rand.integers(0, 3, 2, 3), 0.5
        yield rand(2, 3), rand(3)
        yield rand.bools(3), rand.integers(0, 2, 2, 3)

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand(2, 3), rand(4)
        yield rand(2, 3), None


class Eq(Comparison):
    """y = (a == b): (*), (*) -> (*), bool."""

    def forward(ctx, a: Any, b: Any) -> Any:
        return evaluate(np.equal, a, b, dtype=np.bool_)


class Ne(Comparison):
    """y = (a != b): (*), (*) -> (*), bool."""

    aliases = ("not_equal",)

    def forward(ctx, a: Any, b: Any) -> Any:
        return evaluate(np.not_equal, a, b, dtype=np.bool_)


class Lt(Comparison):
    """y = (a < b): (*), (*) -> (*), bool."""

    operators = ("__lt__",)
    aliases = ("less",)

    def forward(ctx, a: Any, b: Any) -> Any:
        return evaluate(np.less, a, b, dtype=np.bool_)


class Le(Comparison):
    """y = (a <= b): (*), (*) -> (*), bool."""

    operators = ("__le__",)
    aliases = ("less_equal",)

    def forward(ctx, a: Any, b: Any) -> Any:
        return evaluate(np.less_equal, a, b, dtype=np.bool_)


class Gt(Comparison):
    """y = (a > b): (*), (*) -> (*), bool."""

    operators = ("__gt__",)
    aliases = ("greater",)

    def forward(ctx, a: Any, b: Any) -> Any:
        return evaluate(np.greater, a, b, dtype=np.bool_)


class Ge(Comparison):
    """y = (a >= b): (*), (*) -> (*), bool."""

    operators = ("__ge__",)
    aliases = ("greater_equal",)

    def forward(ctx, a: Any, b: Any) -> Any:
        return evaluate(np.greater_equal, a, b, dtype=np.bool_)


def _equality(call: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Tensor, other: Any) -> Any:
        if not isinstance(other, Tensor | np.ndarray | int | float | np.generic):
            return NotImplemented  # Python then compares identities: `x == None` is False
        return call(self, other)

    return method


attach("tensor", "__eq__", _equality(Eq.call))
attach("tensor", "__ne__", _equality(Ne.call))


class _Logical(Comparison, abstract=True):
    """A relation of truth values: what is not 0 is true."""

    @classmethod
    def default_call(cls) -> Callable[..., Any]:
        title, apply = cls.op_name, cls.apply

        def call(input: Tensor, other: Tensor) -> Tensor:
            check_tensors(title, input, other)
            return apply(*pair(input, other))

        return call

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand.bools(2, 3), rand.bools(3)
        yield rand.integers(0, 2, 2, 3), rand(3)

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand.bools(3), True


class LogicalAnd(_Logical):
    """y = whether a and b are both not 0: (*), (*) -> (*), bool."""

    def forward(ctx, a: Any, b: Any) -> Any:
        return evaluate(np.logical_and, a, b, dtype=np.bool_)


class LogicalOr(_Logical):
    """y = whether a or b is not 0: (*), (*) -> (*), bool."""

    def forward(ctx, a: Any, b: Any) -> Any:
        return evaluate(np.logical_or, a, b, dtype=np.bool_)


class LogicalXor(_Logical):
    """y = whether just one of a and b is not 0: (*), (*) -> (*), bool."""

    def forward(ctx, a: Any, b: Any) -> Any:
        return evaluate(np.logical_xor, a, b, dtype=np.bool_)


class _Test(Unary, abstract=True):
    """y = whether x is something, as bool."""

    inplace = False
    differentiable = False

    @staticmethod
    def samples(rand: Any) -> Samples:
        x = rand(2, 3)
        x._array[0] = 0, float("inf"), float("nan")
        yield (x,)
        yield (rand.integers(0, 2, 3),)
        yield (rand.bools(3),)


class LogicalNot(_Test):
    """y = whether x is 0: (*) -> (*), bool."""

    inplace = True

    def forward(ctx, x: np.ndarray) -> Any:
        return evaluate(np.logical_not, x, dtype=np.bool_)


class Isnan(_Test):
    """y = whether x is NaN: (*) -> (*), bool."""

    def forward(ctx, x: np.ndarray) -> Any:
        return evaluate(np.isnan, x, dtype=np.bool_)


class Isinf(_Test):
    """y = whether x is infinite: (*) -> (*), bool."""

    def forward(ctx, x: np.ndarray) -> Any:
        return evaluate(np.isinf, x, dtype=np.bool_)


class Isfinite(_Test):
    """y = whether x is neither infinite nor NaN: (*) -> (*), bool."""

    def forward(ctx, x: np.ndarray) -> Any:
        return evaluate(np.isfinite, x, dtype=np.bool_)


class _Bitwise(Comparison, abstract=True):
    """Bits of integers, or truth values of bools; NotImplementedError for floats."""

    @classmethod
    def default_call(cls) -> Callable[..., Any]:
        title, apply = cls.op_name, cls.apply

        def call(input: Any, other: Any) -> Tensor:
            a, b = pair(input, other)
            for x in (a, b):
                if isinstance(x, Tensor) and x._array.dtype.kind == "f":
                    raise NotImplementedError(
                        f"{title}: only for bool and integer tensors, got {x._array.dtype}"
                    )
            return apply(a, b)

        return call

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand.bools(2, 3), rand.bools(3)
        yield rand.integers(0, 9, 2, 3), rand.integers(0, 9, 3, dtype=np.int32)
        yield rand.integers(0, 9, 2, 3), 3
        yield rand.integers(0, 9, 2, 3), rand.bools(3)

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand(3), rand(3)


class BitwiseAnd(_Bitwise):
    """y = a & b: (*), (*) -> (*)."""

    operators = ("__and__", "__rand__")

    def forward(ctx, a: Any, b: Any) -> Any:
        return evaluate(np.bitwise_and, a, b)


class BitwiseOr(_Bitwise):
    """y = a | b: (*), (*) -> (*)."""

    operators = ("__or__", "__ror__")

    def forward(ctx, a: Any, b: Any) -> Any:
        return evaluate(np.bitwise_or, a, b)


class BitwiseXor(_Bitwise):
    """y = a ^ b: (*), (*) -> (*)."""

    operators = ("__xor__", "__rxor__")

    def forward(ctx, a: Any, b: Any) -> Any:
        return evaluate(np.bitwise_xor, a, b)


class BitwiseNot(Unary):
    """y = ~x, all bits of an integer turned, or a bool: (*) -> (*). TypeError for floats."""

    operators = ("__invert__",)
    differentiable = False

    def forward(ctx, x: np.ndarray) -> Any:
        if x.dtype.kind == "f":
            raise TypeError(f"~ is only for bool and integer tensors, got {x.dtype}")
        return evaluate(np.invert, x)

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield (rand.bools(2, 3),)
        yield (rand.integers(-5, 5, 2, 3),)


class Isin(Op):
    """y = whether x is among `test_elements`, or is not if `invert`: (*), (*) -> (*), bool."""

    namespaces = "torch"
    differentiable = False

    @staticmethod
    def call(
        elements: Any, test_elements: Any, *, assume_unique: bool = False, invert: bool = False
    ) -> Tensor:
        return Isin.apply(as_tensor(elements), as_tensor(test_elements), invert)

    def forward(ctx, x: np.ndarray, those: np.ndarray, invert: bool) -> Any:
        return np.isin(x, those, invert=invert)

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand.integers(0, 9, 2, 3), rand.integers(0, 9, 4)
        yield rand.integers(0, 3, 2, 3), 1
        yield rand.integers(0, 9, 2, 3), rand.integers(0, 9, 4), dict(invert=True)


# Closeness


class Isclose(Op):
    """y = whether |a - b| <= atol + rtol * |b|: (*), (*) -> (*), bool.

    NaN equals NaN if `equal_nan`. RuntimeError if the types differ.
    """

    differentiable = False
    broadcasts = True

    @staticmethod
    def call(
        input: Tensor,
        other: Tensor,
        rtol: float = 1e-05,
        atol: float = 1e-08,
        equal_nan: bool = False,
    ) -> Tensor:
        check_tensors("isclose", input, other)
        if input._array.dtype != other._array.dtype:
            raise RuntimeError(
                f"isclose: the types differ: {input._array.dtype} and {other._array.dtype}"
            )
        return Isclose.apply(input, other, rtol, atol, equal_nan)

    def forward(
        ctx, a: np.ndarray, b: np.ndarray, rtol: float, atol: float, equal_nan: bool
    ) -> Any:
        if a.dtype.kind == "b":
            return a == b
        # In float64, where integers do not overflow.
        return np.isclose(a.astype(np.float64), b.astype(np.float64), rtol, atol, equal_nan)

    @staticmethod
    def samples(rand: Any) -> Samples:
        x = rand.constant(2, 3)
        yield x, x.detach()
        yield x, rand.constant(3), dict(atol=0.5)
        yield x, rand.constant(2, 3), dict(rtol=0.5, atol=0.0)
        yield rand.integers(0, 9, 3), rand.integers(0, 9, 3), 0.5

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand(3), rand.integers(0, 3, 3)
        yield rand(3), 1.0
        yield rand(3), rand(4)


@register
def allclose(
    input: Tensor,
    other: Tensor,
    rtol: float = 1e-05,
    atol: float = 1e-08,
    equal_nan: bool = False,
) -> bool:
    """Whether |input - other| <= atol + rtol * |other| for all elements; NaN as in `isclose`."""
    return bool(Isclose.call(input, other, rtol, atol, equal_nan)._array.all())


@register
def equal(input: Tensor, other: Tensor) -> bool:
    """Whether both have the same shape and the same elements."""
    check_tensors("equal", input, other)
    return input._array.shape == other._array.shape and bool(Eq.call(input, other)._array.all())
