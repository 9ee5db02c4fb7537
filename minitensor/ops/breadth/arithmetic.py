"""Division with rounding, and its remainders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...core import Op, Tensor
from ..arithmetic import Div, check_divisor
from ..checks import axis_of, check_tensors
from ..elementwise import Binary, binary, zero_grad_like
from ..join import Cat
from ..places import PLACE, along, at, places
from ..samples import Rand, Samples
from .move import ConstantPad


def _checked(f: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Return f with RuntimeError for an integer divided by 0."""

    def divide(a: Any, b: Any) -> Any:
        check_divisor(a, b)
        return f(a, b)

    return divide


def _quotients(rand: Rand) -> Samples:
    yield rand.constant(2, 3), rand.constant(3)
    yield rand.constant(2, 3), 0.3
    yield rand.constant(2, 3), 0
    yield rand.integers(-9, 9, 2, 3), -4
    yield rand.integers(-9, 9, 2, 3), 2.5


def _remainders(rand: Rand) -> Samples:
    yield from Binary.samples(rand)
    yield rand.distinct(2, 3), -0.35
    yield rand.integers(-9, 9, 2, 3), rand.integers(1, 5, 3)


def _by_zero(rand: Rand) -> Samples:
    yield from Binary.errors(rand)
    yield rand.integers(1, 3, 3), 0


def _times_quotient(dy: Tensor, a: Tensor, b: Tensor, rounding_mode: str) -> Tensor:
    return -dy * Div.call(a, b, rounding_mode=rounding_mode)


# fmt: off
binary("floor_divide", _checked(np.floor_divide), zero_grad_like, zero_grad_like,
       "y = floor(a / b).  da = db = 0. RuntimeError for an integer divided by 0.",
       operators=("__floordiv__", "__rfloordiv__"), samples=_quotients)
binary("remainder", _checked(np.remainder),
       lambda dy: dy, lambda dy, a, b: _times_quotient(dy, a, b, "floor"),
       "y = a - b * floor(a / b), of b's sign.  da = dy, db = -dy * floor(a / b).\n\n"
       "RuntimeError for an integer modulo 0.",
       operators=("__mod__", "__rmod__"), errors=_by_zero,
       samples=lambda rand: [*_remainders(rand), (7, rand.integers(-5, 0, 3))])
binary("fmod", _checked(np.fmod),
       lambda dy: dy, lambda dy, a, b: _times_quotient(dy, a, b, "trunc"),
       "y = a - b * trunc(a / b), of a's sign.  da = dy, db = -dy * trunc(a / b).\n\n"
       "RuntimeError for an integer modulo 0.",
       samples=_remainders, errors=_by_zero)
# fmt: on


class Diff(Op):
    """y_i = x_(i + 1) - x_i along `dim`, `n` times: (*, l) -> (*, l - n).

    dx_i = dy_(i - 1) - dy_i. `prepend` and `append` are joined to x first. Of bool it is where
    elements differ.
    """

    out = "cast"

    @staticmethod
    def call(
        input: Tensor,
        n: int = 1,
        dim: int = -1,
        prepend: Tensor | None = None,
        append: Tensor | None = None,
    ) -> Tensor:
        check_tensors("diff", input=input)
        if not input._array.ndim:
            raise RuntimeError("diff: expects input to be at least one-dimensional")
        if n < 0:
            raise RuntimeError(f"diff: order must be non-negative but got {n}")
        dim = axis_of("diff", input, dim)
        parts = [t for t in (prepend, input, append) if t is not None]
        y = Cat.call(parts, dim) if len(parts) > 1 else input.clone() if n == 0 else input
        for _ in range(min(n, y._array.shape[dim])):
            y = Diff.apply(y, dim)
        return y

    def forward(ctx, x: np.ndarray, dim: int) -> np.ndarray:
        ctx.save(dim, x.ndim)
        before = (slice(None),) * dim
        later, earlier = x[(*before, slice(1, None))], x[(*before, slice(-1))]
        return later ^ earlier if x.dtype.kind == "b" else later - earlier

    @staticmethod
    def cell(x: np.ndarray, dim: int) -> str:
        later = at("x", along(x.ndim, [dim], f"{PLACE[dim]} + 1"))
        here = at("x", places(x.ndim))
        if x.dtype.kind == "b":
            return f"{later} != {here}"
        return f"({later} - {here}) % 256" if x.dtype.kind == "u" else f"{later} - {here}"

    def backward(ctx, dy: Tensor) -> Tensor:
        dim, ndim = ctx.saved
        before, after = (
            tuple([pair if d == dim else (0, 0) for d in range(ndim)]) for pair in ((1, 0), (0, 1))
        )
        return ConstantPad.apply(dy, pad=before) - ConstantPad.apply(dy, pad=after)

    @staticmethod
    def decomposition(x: Tensor, dim: int) -> Tensor:
        length = x._array.shape[dim] - 1
        later, earlier = x.narrow(dim, 1, length), x.narrow(dim, 0, length)
        return later ^ earlier if x._array.dtype.kind == "b" else later - earlier

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield (rand(2, 4),)
        yield rand(4, 2), 2, 0
        yield rand(3), dict(n=0)
        yield rand(2, 2), 1, -1, rand(2, 1), rand(2, 2)
        yield (rand.bools(5),)
        yield (rand.integers(0, 255, 4, dtype=np.uint8),)
        yield rand(2), 3

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield (rand(),)
        yield rand(3), -1
        yield rand(3), 1, 1
