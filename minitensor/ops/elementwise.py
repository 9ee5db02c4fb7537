"""Ops that work on each element alone; arguments broadcast against each other.

Each takes tensors of any shape (*) and returns one of the broadcast shape (*). Types meet by PyTorch's
rules (`minitensor.dtype`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd import Op
from ..dtype import DType, get_default_dtype, result_dtype
from ..tensor import Tensor, wrap

Samples = Any  # an iterator of argument tuples


def as_tensor(x: Any) -> Tensor:
    """A tensor of `x`: itself, an array's or a Python number's."""
    if isinstance(x, Tensor):
        return x
    if isinstance(x, np.ndarray):
        return wrap(x)
    return wrap(np.asarray(x, result_dtype(x)))


def promote(*operands: Any) -> tuple[Any, ...]:
    """The operands in the type their result has; Python numbers stay numbers where that type is theirs."""
    dtype = result_dtype(*operands)
    return tuple(
        x if not isinstance(x, Tensor | np.ndarray) else as_tensor(x).to(dtype) for x in operands
    )


class Unary(Op, abstract=True):
    """y = f(x), element by element."""

    spaces = "torch tensor"
    inplace = True


class Binary(Op, abstract=True):
    """y = f(a, b), element by element, after promotion to a common type."""

    broadcasts = True

    @classmethod
    def front(cls) -> Callable[..., Any]:
        apply = cls.apply

        def call(input: Any, other: Any) -> Tensor:
            if type(input) is not type(other) or input._array.dtype != other._array.dtype:
                input, other = promote(input, other)
            return apply(input, other)

        return call


class To(Op):
    """x in another type: (*) -> (*). The gradient goes back in x's own type."""

    spaces = ""
    oracle = None

    def forward(ctx, x: np.ndarray, dtype: DType) -> np.ndarray:
        return x.astype(dtype)

    def backward(ctx, dy: Tensor) -> Tensor:
        return dy  # the engine returns every gradient in the type of its tensor

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand(2, 3), np.dtype(np.float64)


def _to(self: Tensor, dtype: DType) -> Tensor:
    return self if self._array.dtype == dtype else To.apply(self, dtype)


Tensor.to = _to  # type: ignore[attr-defined]


class Add(Binary):
    """y = a + alpha * b: (*), (*) -> (*).  da = dy, db = alpha * dy."""

    operators = ("__add__", "__radd__")
    inplace = True

    @staticmethod
    def call(input: Any, other: Any, *, alpha: float = 1) -> Tensor:
        if alpha != 1:
            other = other * alpha
        if type(input) is not type(other) or input._array.dtype != other._array.dtype:
            input, other = promote(input, other)
        return Add.apply(input, other)

    def forward(ctx, a: Any, b: Any) -> Any:
        return a + b

    def backward(ctx, dy: Tensor) -> tuple[Tensor, Tensor]:
        return dy, dy

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand(2, 3), rand(2, 3)
        yield rand(2, 3), rand(3)
        yield rand(2, 1), rand(1, 3), dict(alpha=2.0)
        yield rand(2, 3), 1.5

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand(2, 3), rand(4)


class Mul(Binary):
    """y = a * b: (*), (*) -> (*).  da = dy * b, db = dy * a."""

    operators = ("__mul__", "__rmul__")
    aliases = ("multiply",)
    inplace = True

    def forward(ctx, a: Any, b: Any) -> Any:
        needs_a, needs_b = ctx.needs_input_grad
        ctx.save(a if needs_b else None, b if needs_a else None)
        return a * b

    def backward(ctx, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b = ctx.saved
        return None if b is None else dy * b, None if a is None else dy * a

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand(2, 3), rand(2, 3)
        yield rand(2, 3), rand(3)
        yield rand(2, 3), 1.5


class Exp(Unary):
    """y = exp(x): (*) -> (*).  dx = dy * y."""

    def forward(ctx, x: np.ndarray) -> np.ndarray:
        y = np.exp(x)
        ctx.save(y)
        return y

    def backward(ctx, dy: Tensor) -> Tensor:
        (y,) = ctx.saved
        return dy * y

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield (rand(2, 3),)
        yield (rand(),)
