"""Expressions of scalars, as in a first lesson on backpropagation."""

from __future__ import annotations

from collections.abc import Callable

import minitensor as mt
from minitensor import Tensor


def expression(a: Tensor, b: Tensor) -> Tensor:
    c = a + b
    d = a * b + b**3
    c = c + c + 1
    c = c + 1 + c + (-a)
    d = d + d * 2 + (b + a).relu()
    d = d + 3 * d + (b - a).relu()
    e = c - d
    f = e**2
    g = f / 2.0
    g = g + 10.0 / f
    return g


def example() -> tuple[Callable[..., Tensor], dict[str, Tensor], dict[str, int]]:
    a = mt.tensor(-4.0, requires_grad=True)
    b = mt.tensor(2.0, requires_grad=True)
    return expression, {"a": a, "b": b}, {}
