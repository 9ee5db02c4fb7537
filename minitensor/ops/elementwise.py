"""What ops on each element share: how operands meet, and where results go.

Such an op takes tensors of any shape (*) and numbers, and returns one of the broadcast shape (*).
Types meet by PyTorch's rules (`minitensor.dtype`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import memory
from ..core import Op, Tensor, wrap
from .convert import promote
from .samples import Rand, Samples

ndarray = np.ndarray
_SMALL = memory.SMALLEST // 16  # elements; no array of fewer is as large as that
_FLOATS = (float, int)  # numbers that leave a floating tensor its type


def promote_operands(a: Any, b: Any) -> tuple[Any, Any]:
    """Two operands in the type of their result; numbers stay numbers."""
    if isinstance(a, Tensor):
        if isinstance(b, Tensor):
            if a._array.dtype == b._array.dtype:
                return a, b
        elif type(b) in _FLOATS and a._array.dtype.kind == "f":
            return a, float(b)
    elif type(a) in _FLOATS and isinstance(b, Tensor) and b._array.dtype.kind == "f":
        return float(a), b
    return promote(a, b)


def promote_floats(a: Any, b: Any) -> tuple[Any, Any]:
    """Two operands in the floating type of their result."""
    a, b = promote_operands(a, b)
    x = a if isinstance(a, Tensor) else b
    return (a, b) if x._array.dtype.kind == "f" else promote(a, b, floating=True)


def evaluate(f: Callable[..., Any], *operands: Any, dtype: Any = None) -> Any:
    """f of arrays and numbers, a large result in memory from the pool.

    The result has the type of the operands unless `dtype` says another.
    """
    for x in operands:
        if type(x) is ndarray and x.size > _SMALL and x.nbytes >= memory.SMALLEST:
            return _evaluate_large(f, operands, x.dtype if dtype is None else dtype)
    return f(*operands)


def _evaluate_large(f: Callable[..., Any], operands: Sequence[Any], dtype: Any) -> Any:
    if any(type(x) is ndarray and not x.flags.c_contiguous for x in operands if np.size(x) > 1):
        return f(*operands)  # NumPy gives the result the order of its operands
    shape = np.broadcast_shapes(*(np.shape(x) for x in operands))
    return f(*operands, out=memory.empty(shape, dtype))


def is_float(x: Any) -> bool:
    """Whether `x` is a floating tensor."""
    return isinstance(x, Tensor) and x._array.dtype.kind == "f"


def dtype_of(x: Any) -> Any:
    """The type of an operand inside `forward`: an array's, or the one a number has."""
    return x.dtype if isinstance(x, np.ndarray) else np.dtype(type(x))


def zero_grad_like(dy: Tensor) -> Tensor:
    """A gradient of zeros, of a function that is flat between its jumps."""
    return wrap(np.zeros_like(dy._array))


class Unary(Op, abstract=True):
    """y = f(x), element by element."""

    inplace = True
    floating = False  # whether integers are made floats first

    @classmethod
    def default_call(cls) -> Callable[..., Any]:
        apply, title, floating = cls.apply, cls.op_name, cls.floating

        def call(input: Tensor) -> Tensor:
            if not isinstance(input, Tensor):
                raise TypeError(f"{title}: expected a Tensor, got {type(input).__name__}")
            if floating and input._array.dtype.kind != "f":
                input = promote(input, floating=True)[0]
            return apply(input)

        return call

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield (rand.positive(2, 3),)
        yield (rand.positive(),)
        yield (rand.positive(0, 3),)


class Binary(Op, abstract=True):
    """y = f(a, b), element by element, after promotion to a common type."""

    broadcasts = True
    inplace = True
    floating = False  # whether integers are made floats first

    @classmethod
    def default_call(cls) -> Callable[..., Any]:
        apply, meet = cls.apply, promote_floats if cls.floating else promote_operands

        def call(input: Any, other: Any) -> Tensor:
            return apply(*meet(input, other))

        return call

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand.distinct(2, 3), rand.positive(2, 3)
        yield rand.distinct(2, 3), rand.positive(3)
        yield rand.distinct(2, 1), rand.positive(1, 3)
        yield rand.distinct(3, 2), rand.positive()
        yield rand.distinct(2, 3), 1.5
        yield rand.integers(-4, 5, 2, 3), 2.5
        yield rand.constant(0, 3), rand.positive(3)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 3), rand(4)
        yield rand(2, 3), None
        yield rand(2, 3), [1.0, 2.0, 3.0]
