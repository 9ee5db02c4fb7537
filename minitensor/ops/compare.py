"""Comparisons and the bits of masks, element by element; arguments broadcast against each other.

Comparisons give bool tensors; none of these ops has a gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..core import Tensor, attach
from ..dtype import FLOATING
from .checks import check_tensors
from .elementwise import Binary, Unary, binary, evaluate, promote_operands, unary
from .samples import Rand, Samples


class Comparison(Binary, abstract=True):
    """A relation of a tensor a and b, as bool: (*), (*) -> (*)."""

    @classmethod
    def default_call(cls) -> Callable[..., Any]:
        op_name, apply = cls.op_name, cls.apply
        if cls.tensors_only:
            return super().default_call()

        def call(input: Tensor, other: Any) -> Tensor:
            if not isinstance(input, Tensor):
                check_tensors(op_name, input=input)
            return apply(*promote_operands(input, other))

        return call

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand.integers(0, 3, 2, 3), rand.integers(0, 3, 3)
        yield rand.integers(0, 3, 2, 3), 1
        yield rand.integers(0, 3, 2, 3), 0.5
        yield rand(2, 3), rand(3)
        yield rand.bools(3), rand.integers(0, 2, 2, 3)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 3), rand(4)
        yield rand(2, 3), None


def comparison(name: str, f: np.ufunc, formula: str, **attributes: Any) -> type[Any]:
    """Register the relation y = f(a, b), of bool, and return its class."""
    options = {"base": Comparison, "dtype": np.bool_} | attributes
    return binary(name, f, None, None, formula, **options)


# fmt: off
Eq = comparison("eq", np.equal, "y = (a == b).")
Ne = comparison("ne", np.not_equal, "y = (a != b).", aliases=("not_equal",))
comparison("lt", np.less, "y = (a < b).", aliases=("less",), operators=("__lt__",))
comparison("le", np.less_equal, "y = (a <= b).",
           aliases=("less_equal",), operators=("__le__",))
comparison("gt", np.greater, "y = (a > b).", aliases=("greater",), operators=("__gt__",))
comparison("ge", np.greater_equal, "y = (a >= b).",
           aliases=("greater_equal",), operators=("__ge__",))
# fmt: on


def _equality(call: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Tensor, other: Any) -> Any:
        if not isinstance(other, Tensor | np.ndarray | int | float | np.generic):
            return NotImplemented  # Python then compares identities: `x == None` is False
        return call(self, other)

    return method


for _name, _op in (("__eq__", Eq), ("__ne__", Ne)):
    attach("tensor", _name, _equality(_op.call))


# Bits


class _Bitwise(Binary, abstract=True):
    """Bits of integers, or truth values of bools; NotImplementedError for floats."""

    @classmethod
    def default_call(cls) -> Callable[..., Any]:
        op_name, apply = cls.op_name, cls.apply

        def call(input: Any, other: Any) -> Tensor:
            if not isinstance(input, Tensor) and not isinstance(other, Tensor):
                check_tensors(op_name, input=input)
            a, b = promote_operands(input, other)
            for x in (a, b):
                if isinstance(x, Tensor) and x._array.dtype.kind in FLOATING:
                    raise NotImplementedError(
                        f"{op_name}: only for bool and integer tensors, got {x._array.dtype}"
                    )
            return apply(a, b)

        return call

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand.bools(2, 3), rand.bools(3)
        yield rand.integers(0, 9, 2, 3), rand.integers(0, 9, 3, dtype=np.int32)
        yield rand.integers(0, 9, 2, 3), 3
        yield rand.integers(0, 9, 2, 3), rand.bools(3)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(3), rand(3)


class _Shift(_Bitwise, abstract=True):
    """Bits of integers moved to the left or right; those that leave the type are lost."""

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand.integers(-9, 9, 2, 3), rand.integers(0, 5, 3)
        yield rand.integers(-9, 9, 2, 3), 2


def _inverted(x: np.ndarray) -> Any:
    if x.dtype.kind in FLOATING:
        raise TypeError(f"~ is only for bool and integer tensors, got {x.dtype}")
    return evaluate(np.invert, x)


class Test(Unary, abstract=True):
    """A property of x, as bool: (*) -> (*)."""

    @staticmethod
    def samples(rand: Rand) -> Samples:
        x = rand(2, 3)
        x._array[0] = 0, float("inf"), float("nan")
        yield (x,)
        yield (rand.integers(0, 2, 3),)
        yield (rand.bools(3),)


# fmt: off
binary("bitwise_and", np.bitwise_and, None, None, "y = a & b.",
       base=_Bitwise, operators=("__and__", "__rand__"))
binary("bitwise_or", np.bitwise_or, None, None, "y = a | b.",
       base=_Bitwise, operators=("__or__", "__ror__"))
binary("bitwise_xor", np.bitwise_xor, None, None, "y = a ^ b.",
       base=_Bitwise, operators=("__xor__", "__rxor__"))
binary("bitwise_left_shift", np.left_shift, None, None, "y = a * 2 ** b.",
       base=_Shift, operators=("__lshift__", "__rlshift__"))
binary("bitwise_right_shift", np.right_shift, None, None, "y = floor(a / 2 ** b).",
       base=_Shift, operators=("__rshift__", "__rrshift__"))
unary("bitwise_not", _inverted, None,
      "y = ~x, all bits of an integer inverted, or a bool.  TypeError for floats.",
      floating=False, out="same", operators=("__invert__",),
      samples=lambda rand: [(rand.bools(2, 3),), (rand.integers(-5, 5, 2, 3),)])
unary("logical_not", np.logical_not, None, "y = (x == 0).",
      base=Test, dtype=np.bool_, floating=False)
# fmt: on
