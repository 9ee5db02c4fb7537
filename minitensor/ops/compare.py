"""Comparing and choosing, element by element; arguments broadcast against each other.

Comparisons and logic give bool tensors without a gradient. The rest picks one of its arguments for
each element, and the gradient goes where the value came from.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd import Op
from ..dtype import result_dtype
from ..tensor import Tensor
from .convert import Samples, as_tensor, cast
from .elementwise import Unary, pair


class Comparison(Op, abstract=True):
    """y = whether a and b are in a relation, as bool: (*), (*) -> (*)."""

    inplace = True
    differentiable = False
    broadcasts = True

    @classmethod
    def front(cls) -> Callable[..., Any]:
        apply = cls.apply

        @functools.wraps(cls.forward)
        def call(input: Any, other: Any) -> Tensor:
            return apply(*pair(input, other))

        call.__name__ = call.__qualname__ = cls.title
        call.__doc__ = cls.__doc__
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
        return np.equal(a, b)


class Ne(Comparison):
    """y = (a != b): (*), (*) -> (*), bool."""

    aliases = ("not_equal",)

    def forward(ctx, a: Any, b: Any) -> Any:
        return np.not_equal(a, b)


class Lt(Comparison):
    """y = (a < b): (*), (*) -> (*), bool."""

    operators = ("__lt__",)
    aliases = ("less",)

    def forward(ctx, a: Any, b: Any) -> Any:
        return np.less(a, b)


class Le(Comparison):
    """y = (a <= b): (*), (*) -> (*), bool."""

    operators = ("__le__",)
    aliases = ("less_equal",)

    def forward(ctx, a: Any, b: Any) -> Any:
        return np.less_equal(a, b)


class Gt(Comparison):
    """y = (a > b): (*), (*) -> (*), bool."""

    operators = ("__gt__",)
    aliases = ("greater",)

    def forward(ctx, a: Any, b: Any) -> Any:
        return np.greater(a, b)


class Ge(Comparison):
    """y = (a >= b): (*), (*) -> (*), bool."""

    operators = ("__ge__",)
    aliases = ("greater_equal",)

    def forward(ctx, a: Any, b: Any) -> Any:
        return np.greater_equal(a, b)


def _equality(call: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Tensor, other: Any) -> Any:
        if not isinstance(other, Tensor | np.ndarray | int | float | np.generic):
            return NotImplemented  # Python then compares identities: `x == None` is False
        return call(self, other)

    return method


Tensor.__eq__ = _equality(Eq.call)  # type: ignore[method-assign, assignment]
Tensor.__ne__ = _equality(Ne.call)  # type: ignore[method-assign, assignment]


class Where(Op):
    """y = a where `condition` is True, else b: (*), (*), (*) -> (*).  da = dy there, db elsewhere.

    With the condition alone, the indices where it is True, one tensor for each dimension.
    """

    broadcasts = True
    spaces = "torch"

    @staticmethod
    def call(condition: Tensor, input: Any = None, other: Any = None) -> Any:
        if input is None and other is None:
            return condition.nonzero(as_tuple=True)
        if not isinstance(condition, Tensor):
            raise TypeError(f"where: condition must be a Tensor, got {type(condition).__name__}")
        if condition._array.dtype.kind != "b":
            raise RuntimeError(
                f"where: expected condition to be a bool tensor, got {condition._array.dtype}"
            )
        if isinstance(input, Tensor) or isinstance(other, Tensor):
            return Where.apply(condition, *pair(input, other))
        dtype = result_dtype(input, other)
        return Where.apply(condition, cast(as_tensor(input), dtype), cast(as_tensor(other), dtype))

    def forward(ctx, condition: np.ndarray, a: Any, b: Any) -> Any:
        ctx.save(condition)
        # A number would decide the type of the result together with the array's.
        return np.where(
            condition, *(x if isinstance(x, np.ndarray) else _like(x, a, b) for x in (a, b))
        )

    def backward(ctx, dy: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        (condition,) = ctx.saved
        _, needs_a, needs_b = ctx.needs_input_grad
        return (
            None,
            Where.apply(condition, dy, 0.0) if needs_a else None,
            Where.apply(condition, 0.0, dy) if needs_b else None,
        )

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand.bools(2, 3), rand(2, 3), rand(2, 3)
        yield rand.bools(2, 1), rand(3), rand()
        yield rand.bools(2, 3), rand(2, 1), 2.0
        yield rand.bools(2, 3), 0, rand(3)
        yield rand.bools(2, 3), 1, 2
        yield rand.bools(2, 3), rand.integers(0, 5, 3), 2.5

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand.bools(2, 3), rand(2, 3), rand(4)
        yield rand.integers(0, 2, 3), rand(3), rand(3)


def _like(number: Any, *operands: Any) -> np.ndarray:
    """A number as a 0-dim array in the type of the array among `operands`."""
    dtype = next(x.dtype for x in operands if isinstance(x, np.ndarray))
    return np.asarray(number, dtype)


def _tensor_where(self: Tensor, condition: Tensor, other: Any) -> Tensor:
    """This tensor where `condition` is True, else `other`."""
    return Where.call(condition, self, other)


Tensor.where = _tensor_where  # type: ignore[attr-defined]


class MaskedFill(Op):
    """y = value where `mask` is True, else x: (*), (*) -> (*), in x's type.

    dx = dy where the mask is False; a tensor value gets the sum of the rest. RuntimeError unless the
    mask is bool and the value a number or a 0-dim tensor that x's type can hold.
    """

    inplace = True
    broadcasts = True

    @staticmethod
    def call(input: Tensor, mask: Tensor, value: Any) -> Tensor:
        if not isinstance(mask, Tensor):
            raise TypeError(f"masked_fill: mask must be a Tensor, got {type(mask).__name__}")
        if mask._array.dtype.kind != "b":
            raise RuntimeError(
                f"masked_fill only supports boolean masks, got a mask of type {mask._array.dtype}"
            )
        dtype = input._array.dtype
        if isinstance(value, Tensor):
            if value._array.ndim:
                raise RuntimeError(
                    "masked_fill only supports a number or a 0-dim tensor as value, got a tensor "
                    f"of shape {tuple(value.shape)}"
                )
            value = cast(value, dtype)
        else:
            value = filling(value, dtype)
        return MaskedFill.apply(input, mask, value)

    def forward(ctx, x: np.ndarray, mask: np.ndarray, value: Any) -> Any:
        ctx.save(mask)
        return np.where(mask, value, x)

    def backward(ctx, dy: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        (mask,) = ctx.saved
        needs_x, _, needs_value = ctx.needs_input_grad
        dx = MaskedFill.call(dy, mask, 0.0) if needs_x else None
        return dx, None, Where.apply(mask, dy, 0.0) if needs_value else None

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand(2, 3), rand.bools(2, 3), -1.5
        yield rand(2, 3), rand.bools(3), 2
        yield rand(2, 1, 3), rand.bools(4, 1), rand()
        yield rand(), rand.bools(3), 0.0
        yield rand.integers(0, 5, 2, 3), rand.bools(2, 3), 2.5

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand(2, 3), rand.integers(0, 2, 2, 3), 1.0
        yield rand(2, 3), rand.bools(2, 3), rand(1)
        yield rand.integers(0, 5, 3), rand.bools(3), float("-inf")
        yield rand(2, 3), rand.bools(4), 1.0


def filling(value: Any, dtype: Any) -> np.ndarray:
    """A number as a 0-dim array of `dtype`; RuntimeError if it cannot be held there."""
    if not isinstance(value, int | float | np.number | np.bool_):
        raise TypeError(f"expected a Tensor or a number as value, got {type(value).__name__}")
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        low = (
            -limits.max if dtype.kind == "u" else limits.min
        )  # unsigned types wrap negative numbers
        if not low <= value <= limits.max:  # NaN and infinities too
            raise RuntimeError(f"value {value} cannot be converted to {dtype} without overflow")
        value = int(value)
    elif dtype.kind == "f" and np.isfinite(value) and abs(value) > np.finfo(dtype).max:
        raise RuntimeError(f"value {value} cannot be converted to {dtype} without overflow")
    return np.asarray(value).astype(dtype)


class _Extremum(Op, abstract=True):
    """The larger or the smaller of a and b."""

    broadcasts = True

    @classmethod
    def front(cls) -> Callable[..., Any]:
        title, apply = cls.title, cls.apply

        def call(input: Tensor, other: Tensor) -> Tensor:
            for x in (input, other):
                if not isinstance(x, Tensor):
                    raise TypeError(
                        f"{title}: expected a Tensor, got {type(x).__name__}: see clamp"
                    )
            return apply(*pair(input, other))

        call.__name__ = call.__qualname__ = title
        call.__doc__ = cls.__doc__
        return call

    def backward(ctx, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b = ctx.saved
        first = a > b if ctx.title == "maximum" else a < b
        tie = a == b
        half = dy * 0.5
        needs_a, needs_b = ctx.needs_input_grad
        da = Where.apply(first, dy, Where.apply(tie, half, 0.0)) if needs_a else None
        db = Where.apply(first, 0.0, Where.apply(tie, half, dy)) if needs_b else None
        return da, db

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand(2, 3), rand(3)
        yield rand(2, 3), rand.constant(2, 1)
        yield rand.integers(0, 5, 3), rand.constant(3)

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand(2, 3), 1.0
        yield rand(2, 3), rand(4)


class Maximum(_Extremum):
    """y = the larger of a and b: (*), (*) -> (*).  The gradient goes to the larger, half to each if equal."""

    def forward(ctx, a: np.ndarray, b: np.ndarray) -> Any:
        ctx.save(a, b)
        return np.maximum(a, b)


class Minimum(_Extremum):
    """y = the smaller of a and b: (*), (*) -> (*).  The gradient goes to the smaller, half to each if equal."""

    def forward(ctx, a: np.ndarray, b: np.ndarray) -> Any:
        ctx.save(a, b)
        return np.minimum(a, b)


class _Logical(Comparison, abstract=True):
    """A relation of truth values: what is not 0 is true."""

    @classmethod
    def front(cls) -> Callable[..., Any]:
        title, apply = cls.title, cls.apply

        def call(input: Tensor, other: Tensor) -> Tensor:
            for x in (input, other):
                if not isinstance(x, Tensor):
                    raise TypeError(f"{title}: expected a Tensor, got {type(x).__name__}")
            return apply(*pair(input, other))

        call.__name__ = call.__qualname__ = title
        call.__doc__ = cls.__doc__
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
        return np.logical_and(a, b)


class LogicalOr(_Logical):
    """y = whether a or b is not 0: (*), (*) -> (*), bool."""

    def forward(ctx, a: Any, b: Any) -> Any:
        return np.logical_or(a, b)


class LogicalXor(_Logical):
    """y = whether just one of a and b is not 0: (*), (*) -> (*), bool."""

    def forward(ctx, a: Any, b: Any) -> Any:
        return np.logical_xor(a, b)


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
        return np.logical_not(x)


class Isnan(_Test):
    """y = whether x is NaN: (*) -> (*), bool."""

    def forward(ctx, x: np.ndarray) -> Any:
        return np.isnan(x)


class Isinf(_Test):
    """y = whether x is infinite: (*) -> (*), bool."""

    def forward(ctx, x: np.ndarray) -> Any:
        return np.isinf(x)


class Isfinite(_Test):
    """y = whether x is neither infinite nor NaN: (*) -> (*), bool."""

    def forward(ctx, x: np.ndarray) -> Any:
        return np.isfinite(x)


class _Bitwise(Comparison, abstract=True):
    """Bits of integers, or truth values of bools; NotImplementedError for floats."""

    @classmethod
    def front(cls) -> Callable[..., Any]:
        title, apply = cls.title, cls.apply

        def call(input: Any, other: Any) -> Tensor:
            a, b = pair(input, other)
            for x in (a, b):
                if isinstance(x, Tensor) and x._array.dtype.kind == "f":
                    raise NotImplementedError(
                        f"{title}: only for bool and integer tensors, got {x._array.dtype}"
                    )
            return apply(a, b)

        call.__name__ = call.__qualname__ = title
        call.__doc__ = cls.__doc__
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
        return np.bitwise_and(a, b)


class BitwiseOr(_Bitwise):
    """y = a | b: (*), (*) -> (*)."""

    operators = ("__or__", "__ror__")

    def forward(ctx, a: Any, b: Any) -> Any:
        return np.bitwise_or(a, b)


class BitwiseXor(_Bitwise):
    """y = a ^ b: (*), (*) -> (*)."""

    operators = ("__xor__", "__rxor__")

    def forward(ctx, a: Any, b: Any) -> Any:
        return np.bitwise_xor(a, b)


class BitwiseNot(Unary):
    """y = ~x, the bits of integers or the truth values of bools turned: (*) -> (*). TypeError for floats."""

    operators = ("__invert__",)
    differentiable = False

    def forward(ctx, x: np.ndarray) -> Any:
        if x.dtype.kind == "f":
            raise TypeError(f"~ is only for bool and integer tensors, got {x.dtype}")
        return np.invert(x)

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield (rand.bools(2, 3),)
        yield (rand.integers(-5, 5, 2, 3),)
