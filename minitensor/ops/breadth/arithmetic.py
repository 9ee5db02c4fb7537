"""Division with rounding, and its remainders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...core import Tensor
from ..arithmetic import Div, check_divisor
from ..checks import axis_of
from ..composite import composite
from ..elementwise import Binary, binary, zero_grad_like
from ..join import Cat
from ..samples import Rand, Samples


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


@composite(
    out="cast",
    samples=lambda rand: [
        (rand(2, 4),),
        (rand(4, 2), 2, 0),
        (rand(3), dict(n=0)),
        (rand(2, 2), 1, -1, rand(2, 1), rand(2, 2)),
        (rand.bools(5),),
        (rand.integers(0, 255, 4, dtype=np.uint8),),
        (rand(2), 3),
    ],
    errors=lambda rand: [(rand(),), (rand(3), -1), (rand(3), 1, 1)],
)
def diff(
    input: Tensor,
    n: int = 1,
    dim: int = -1,
    prepend: Tensor | None = None,
    append: Tensor | None = None,
) -> Tensor:
    """y_i = x_(i + 1) - x_i along `dim`, `n` times: (*, l) -> (*, l - n).

    `prepend` and `append` are joined to x first. Of bool it is where elements differ.
    """
    if not input._array.ndim:
        raise RuntimeError("diff: expects input to be at least one-dimensional")
    if n < 0:
        raise RuntimeError(f"diff: order must be non-negative but got {n}")
    dim = axis_of("diff", input, dim)
    parts = [t for t in (prepend, input, append) if t is not None]
    y = Cat.call(parts, dim) if len(parts) > 1 else input.clone() if n == 0 else input
    for _ in range(min(n, y._array.shape[dim])):
        length = y._array.shape[dim] - 1
        later, earlier = y.narrow(dim, 1, length), y.narrow(dim, 0, length)
        y = later ^ earlier if y._array.dtype.kind == "b" else later - earlier
    return y
