"""The rules for rotary positions: each fires where it may alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minitensor as mt
from minitensor.core import Tensor
from minitensor.ops.samples import Rand
from minitensor.replay import calls_of

pytestmark = pytest.mark.compiled


def compiled(function: Callable[..., Any], *args: Any) -> tuple[Any, list[str], list[str]]:
    """Return the result of a third, replayed call, the rules that fired, and the ops left."""
    function(*args)  # compiles kernels
    call = mt.compile(function)
    for _ in range(3):
        result = call(*args)
    (entry,) = calls_of(call).entries
    assert not entry.reason
    ops = [c.op.__name__ for c in entry.graph.calls if c.op is not None]
    return result, [fired.rule for fired in entry.fired], ops


@pytest.mark.parametrize(
    "norm",
    [
        lambda x, w: w * (x * (x.pow(2).mean(-1, keepdim=True) + 1e-5).rsqrt()),
        lambda x, w: x / mt.sqrt((x * x).mean(2, keepdim=True) + 1e-6) * w,
        lambda x, w: w * ((x.square().mean(dim=-1, keepdim=True) + 1e-6).pow(-0.5) * x),
    ],
)
def test_forms_of_the_rms_norm(norm: Any) -> None:
    rand = Rand()
    y, _, ops = compiled(norm, x := rand(2, 3, 8), w := rand(8))
    assert ops == ["RmsNorm"]
    np.testing.assert_allclose(y.detach(), norm(x, w).detach(), 1e-12)


def even_and_odd(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x[..., ::2], x[..., 1::2]
    return mt.stack((cos * a - sin * b, cos * b + sin * a), dim=-1).flatten(-2)


def halves(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
    return mt.cat((a * cos - b * sin, a * sin + cos * b), dim=-1)


@pytest.mark.parametrize("turn", [even_and_odd, halves])
def test_forms_of_rotary_positions(turn: Any) -> None:
    rand = Rand()
    args = rand(2, 3, 5, 8), rand.constant(5, 4), rand.constant(5, 4)
    y, fired, ops = compiled(turn, *args)
    assert len(fired) == 1
    assert ops[-1] == "RotaryEmbedding"
    assert not {"Mul", "Add", "Sub", "Cat", "Stack"} & set(ops)
    np.testing.assert_allclose(y.detach(), turn(*args).detach(), 1e-12)


REFUSED: dict[str, Any] = {
    "another axis": lambda x, w, c: x * (x.pow(2).mean(1, keepdim=True) + 1e-5).rsqrt() * w,
    "another tensor": lambda x, w, c: x.exp() * (x.pow(2).mean(-1, keepdim=True) + 1.0).rsqrt() * w,
    "the mirror image": lambda x, w, c: halves(x.flip(-1), c, c) + mt.cat(
        (x[..., :4] * c - x[..., 4:] * c, x[..., :4] * c - x[..., 4:] * c), -1
    ),
    "the same half": lambda x, w, c: mt.cat(
        (x[..., :4] * c - x[..., :4] * c, x[..., :4] * c + x[..., :4] * c), -1
    ),
    "another half negated": lambda x, w, c: (
        x * w + mt.cat((-x[..., :4], x[..., 4:]), -1) * w
    ),
    "unequal parts": lambda x, w, c: x * w + mt.cat((-x[..., 3:], x[..., :3]), -1) * w,
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_norm_or_rotation_stays(name: str) -> None:
    rand, function = Rand(), REFUSED[name]
    args = rand(2, 3, 8), rand.constant(8), rand.constant(3, 4)
    y, _, ops = compiled(function, *args)
    assert ops.count("RotaryEmbedding") == ("halves" in function.__code__.co_names)
    assert ops.count("RmsNorm") == 0
    np.testing.assert_allclose(y.detach(), function(*args).detach(), 1e-12)


def test_a_rotation_by_angles_that_learn_stays() -> None:
    rand = Rand()
    _, fired, _ = compiled(halves, rand(2, 3, 5, 8), rand(5, 4), rand(5, 4))
    assert not fired
