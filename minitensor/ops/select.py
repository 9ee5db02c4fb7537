"""Choice of one argument for each element; arguments broadcast against each other.

The gradient goes to the argument that the value came from.
"""

from __future__ import annotations

from typing import Any, overload

import numpy as np

from ..core import Op, Tensor, attach
from ..dtype import FLOATING, finfo_of, result_dtype
from .checks import check_tensors
from .convert import as_tensor, cast
from .elementwise import Binary, binary, evaluate, is_float, promote_operands
from .samples import Rand, Samples


class Where(Op):
    """y = a where `condition` is True, else b: (*), (*), (*) -> (*).  da = dy there, db elsewhere.

    With the condition alone, the indices where it is True, one tensor for each dimension.
    """

    out = "same"
    broadcasts = True
    namespaces = "torch"
    cell = "a if condition else b"

    @overload
    @staticmethod
    def call(condition: Tensor, input: Any, other: Any) -> Tensor: ...
    @overload
    @staticmethod
    def call(condition: Tensor) -> tuple[Tensor, ...]: ...
    @staticmethod
    def call(
        condition: Tensor, input: Any = None, other: Any = None
    ) -> Tensor | tuple[Tensor, ...]:
        if input is None and other is None:
            return condition.nonzero(as_tuple=True)
        if not isinstance(condition, Tensor):
            raise TypeError(f"where: condition must be a Tensor, got {type(condition).__name__}")
        if condition._array.dtype == np.uint8:  # what masks were before there was bool
            condition = condition.bool()
        if condition._array.dtype.kind != "b":
            raise RuntimeError(
                f"where: expected condition to be a bool tensor, got {condition._array.dtype}"
            )
        if isinstance(input, Tensor) or isinstance(other, Tensor):
            return Where.apply(condition, *promote_operands(input, other))
        dtype = result_dtype(input, other)
        return Where.apply(condition, cast(as_tensor(input), dtype), cast(as_tensor(other), dtype))

    def forward(ctx, condition: np.ndarray, a: Any, b: Any) -> Any:
        ctx.save(condition)
        # A number would decide the type of the result together with the array's.
        if not isinstance(a, np.ndarray):
            a = np.asarray(a, b.dtype)
        elif not isinstance(b, np.ndarray):
            b = np.asarray(b, a.dtype)
        return np.where(condition, a, b)

    def backward(ctx, dy: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        (condition,) = ctx.saved
        _, needs_a, needs_b = ctx.needs_input_grad
        return (
            None,
            Where.apply(condition, dy, 0.0) if needs_a else None,
            Where.apply(condition, 0.0, dy) if needs_b else None,
        )

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand.bools(2, 3), rand(2, 3), rand(2, 3)
        yield rand.bools(2, 1), rand(3), rand()
        yield rand.bools(2, 3), rand(2, 1), 2.0
        yield rand.bools(2, 3), 0, rand(3)
        yield rand.bools(2, 3), 1, 2
        yield rand.bools(2, 3), rand.integers(0, 5, 3), 2.5

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand.bools(2, 3), rand(2, 3), rand(4)
        yield rand.integers(0, 2, 3), rand(3), rand(3)


def _tensor_where(self: Tensor, condition: Tensor, other: Any) -> Tensor:
    """Return this tensor where `condition` is True, else `other`."""
    return Where.call(condition, self, other)


attach("tensor", "where", _tensor_where)


class MaskedFill(Op):
    """y = value where `mask` is True, else x: (*), (*) -> (*), in x's type.

    dx = dy where the mask is False; a tensor value gets the sum of the rest. RuntimeError unless
    the mask is bool and the value a number or a 0-dim tensor that x's type can hold.
    """

    inplace = True
    broadcasts = True
    cell = "value if mask else x"

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
    def samples(rand: Rand) -> Samples:
        yield rand(2, 3), rand.bools(2, 3), -1.5
        yield rand(2, 3), rand.bools(3), 2
        yield rand(2, 1, 3), rand.bools(4, 1), rand()
        yield rand(), rand.bools(3), 0.0
        yield rand.integers(0, 5, 2, 3), rand.bools(2, 3), 2.5

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 3), rand.integers(0, 2, 2, 3), 1.0
        yield rand(2, 3), rand.bools(2, 3), rand(1)
        yield rand.integers(0, 5, 3), rand.bools(3), float("-inf")
        yield rand(2, 3), rand.bools(4), 1.0


def filling(value: Any, dtype: Any) -> np.ndarray:
    """Return a number as a 0-dim array of `dtype`; RuntimeError if `dtype` cannot hold it."""
    if type(value) is float and dtype.kind == "f" and (-1e4 < value < 1e4):  # the usual case
        return np.asarray(value, dtype)
    if not isinstance(value, int | float | np.number | np.bool_):
        raise TypeError(f"expected a Tensor or a number as value, got {type(value).__name__}")
    if dtype.kind in "iu":
        highest = int(np.iinfo(dtype).max)
        lowest = -highest - (dtype.kind == "i")  # unsigned types wrap negative numbers
        if not lowest <= value <= highest:  # NaN and the infinities fail too
            raise RuntimeError(f"value {value} cannot be converted to {dtype} without overflow")
        value = int(value)
    elif dtype.kind in FLOATING and float(finfo_of(dtype).max) < abs(float(value)) < np.inf:
        raise RuntimeError(f"value {value} cannot be converted to {dtype} without overflow")
    return np.asarray(value).astype(dtype)


class _Extremum(Binary, abstract=True):
    """The larger or the smaller of two tensors."""

    inplace = False
    tensors_only = True

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2, 3), rand(3)
        yield rand(2, 3), rand.constant(2, 1)
        yield rand.integers(0, 5, 3), rand.constant(3)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 3), 1.0
        yield rand(2, 3), rand(4)


def _unless(loses: Tensor, dy: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return dy, halved where a and b are equal, and 0 where an operand loses."""
    return Where.apply(loses, 0.0, Where.apply(a == b, dy * 0.5, dy))


# fmt: off
Maximum = binary("maximum", np.maximum,
                 lambda dy, a, b: _unless(a < b, dy, a, b),
                 lambda dy, a, b: _unless(b < a, dy, a, b),
                 "y = max(a, b).  The larger gets dy, each half if equal.", base=_Extremum)
Minimum = binary("minimum", np.minimum,
                 lambda dy, a, b: _unless(b < a, dy, a, b),
                 lambda dy, a, b: _unless(a < b, dy, a, b),
                 "y = min(a, b).  The smaller gets dy, each half if equal.", base=_Extremum)
# fmt: on


class Clamp(Op):
    """y = x, not below `min` and not above `max`: (*), (*), (*) -> (*); all `max` where min > max.

    dx = dy where min <= x <= max; tensors as bounds get dy where they decide. RuntimeError without
    any bound, TypeError for a number and a tensor as bounds.
    """

    out = "same"
    aliases = ("clip",)
    inplace = True
    broadcasts = True
    saves = ("x", "min", "max")

    @staticmethod
    def call(input: Tensor, min: Any = None, max: Any = None) -> Tensor:
        floats = (min is None or type(min) is float) and (max is None or type(max) is float)
        if floats and min is not max and is_float(input):  # the usual case
            return Clamp.apply(input, min, max)
        check_tensors("clamp", input=input)
        bounds = [b for b in (min, max) if b is not None]
        if not bounds:
            raise RuntimeError("clamp: at least one of 'min' or 'max' must not be None")
        if len({isinstance(b, Tensor) for b in bounds}) == 2:
            raise TypeError("clamp: min and max must both be numbers or both tensors")
        dtype = result_dtype(input, *bounds)
        input = cast(input, dtype)
        min, max = (
            cast(b, dtype) if isinstance(b, Tensor) else None if b is None else filling(b, dtype)
            for b in (min, max)
        )
        return Clamp.apply(input, min, max)

    def forward(ctx, x: np.ndarray, min: Any, max: Any) -> Any:
        ctx.save(x, min, max)
        if min is None:
            return evaluate(np.minimum, x, max)
        if max is None:
            return evaluate(np.maximum, x, min)
        return evaluate(np.minimum, evaluate(np.maximum, x, min), max)

    @staticmethod
    def cell(x: np.ndarray, min: Any, max: Any) -> str:
        raised = "x" if min is None else "max(x, min)"
        if max is None:
            return raised
        crossed = min is not None and np.greater(min, max).all()
        return "max" if crossed else f"min({raised}, max)"

    def backward(ctx, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, low, high = ctx.saved
        needs_x, needs_low, needs_high = ctx.needs_input_grad
        dx = dlow = dhigh = None
        if needs_x:
            inside = None if low is None else x >= low
            if high is not None:
                inside = x <= high if inside is None else inside & (x <= high)
            dx = Where.apply(inside, dy, 0.0)
        if needs_low:
            below = x < low
            dlow = Where.apply(below if high is None else below & (low < high), dy, 0.0)
        if needs_high:
            above = x > high
            dhigh = Where.apply(above if low is None else above | (high < low), dy, 0.0)
        return dx, dlow, dhigh

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2, 3), -0.5, 0.5
        yield rand(2, 3), dict(min=0)
        yield rand(2, 3), None, 0.3
        yield rand(2, 3), 0.5, -0.5
        yield rand(2, 3), rand(3), rand(2, 1)
        yield rand(2, 3), rand.constant(3)
        yield rand(2, 3), dict(max=rand())
        yield rand.integers(-5, 5, 6), -2, 2
        yield rand.integers(-5, 5, 6), 0.5
        yield rand.bools(4), 0, 1

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield (rand(3),)
        yield rand(3), rand(3), 1.0
        yield rand(3), rand(4)
        yield rand.integers(0, 9, 3, dtype=np.uint8), 0, 300
