"""Division with rounding, and its remainders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...core import Tensor
from ..arithmetic import Div, check_divisor
from ..elementwise import Binary, binary, zero_grad_like
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
