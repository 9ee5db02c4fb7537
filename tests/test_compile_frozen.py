"""`compile(..., options={"freezing": True})`: weights that are laid out once, for use alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minitensor as mt
from minitensor import nn
from minitensor.kernels.jit import COMPILED
from minitensor.replay import calls_of

FREEZING = {"freezing": True}
pytestmark = pytest.mark.skipif(not COMPILED, reason="nothing is compiled without kernels")


class Net(nn.Module):
    """A product alone, one with an activation, and one with a weight that is computed."""

    def __init__(self, dtype: Any = mt.float32) -> None:
        super().__init__()
        self.first = nn.Linear(24, 40, dtype=dtype)
        self.wide = nn.Linear(40, 72, dtype=dtype)
        self.last = nn.Linear(72, 24, bias=False, dtype=dtype)
        self.scale = nn.Parameter(mt.rand(24, 24, dtype=dtype))

    def forward(self, x: Any) -> Any:
        y = self.last(nn.functional.gelu(self.wide(self.first(x))))
        return nn.functional.linear(y, self.scale * 2)


def frozen(compiled: Any) -> list[int]:
    """Return how many weights each plan reads from panels."""
    return [len(plan.layouts) for entry in calls_of(compiled).entries for plan in entry.plans]


def same(compiled: Any, model: Any, *shape: int, calls: int = 4) -> None:
    """Compare a few calls; a product of some rows sums in another order than by its panels."""
    for _ in range(calls):
        x = mt.randn(*shape, dtype=model.scale.dtype)
        rtol = 1e-12 if x.dtype == mt.float64 else 2e-5
        mt.testing.assert_close(compiled(x), model(x), rtol=rtol, atol=rtol)


@pytest.mark.parametrize("dtype", [mt.float32, mt.float64])
@pytest.mark.parametrize("shape", [(8, 24), (1, 31, 24), (2, 3, 4, 24), (256, 24)])
@mt.no_grad()
def test_results_are_the_same(shape: tuple[int, ...], dtype: Any) -> None:
    model = Net(dtype)
    compiled = mt.compile(model, options=FREEZING)
    same(compiled, model, *shape)
    assert frozen(compiled) == [3]


@pytest.mark.parametrize("shape", [(1, 24), (7, 24), (257, 24)])
@mt.no_grad()
def test_a_product_of_few_or_many_rows_reads_the_weight_itself(shape: tuple[int, ...]) -> None:
    model = Net()
    compiled = mt.compile(model, options=FREEZING)
    same(compiled, model, *shape)
    assert frozen(compiled) == [0]


def test_nothing_is_frozen_unless_it_is_said_and_no_gradient_is_recorded() -> None:
    model = Net()
    for options in (None, {}, {"freezing": False}, FREEZING):
        compiled = mt.compile(model, options=options)
        same(compiled, model, 16, 24)
        assert frozen(compiled) == [0]
    plain = mt.compile(model)
    with mt.inference_mode():
        same(plain, model, 16, 24)
    assert frozen(plain) == [0]


CHANGES: list[Callable[[Any, Any], Any]] = [
    lambda model, saved: model.first.weight.mul_(2),
    lambda model, saved: model.last.weight[3:5].zero_(),
    lambda model, saved: model.load_state_dict(saved),
    lambda model, saved: setattr(model.wide.weight, "data", model.wide.weight * 3),
    lambda model, saved: setattr(model.wide, "weight", nn.Parameter(mt.rand(72, 40))),
    lambda model, saved: nn.init.zeros_(model.last.weight),
]


@pytest.mark.parametrize("number", range(len(CHANGES)))
@mt.no_grad()
def test_a_change_is_noticed(number: int) -> None:
    model, saved = Net(), Net().state_dict()
    compiled = mt.compile(model, options=FREEZING)
    for _ in range(3):
        same(compiled, model, 16, 24)
        CHANGES[number](model, saved)
        saved = copy.deepcopy(Net().state_dict())
    same(compiled, model, 16, 24)
    assert frozen(compiled)[-1] == 3


def test_training_between_uses_is_noticed() -> None:
    model = Net()
    compiled = mt.compile(model, options=FREEZING)
    optimizer = mt.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(6):  # more often than kinds of calls are kept
        with mt.inference_mode():
            same(compiled, model, 16, 24, calls=2)
        compiled(mt.randn(16, 24)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert not any(entry.reason for entry in calls_of(compiled).entries)


@mt.no_grad()
def test_plans_share_the_panels() -> None:
    model = Net()
    compiled = mt.compile(model, options=FREEZING)
    for rows in (8, 16, 32):
        same(compiled, model, rows, 24)
    plans = [plan for entry in calls_of(compiled).entries for plan in entry.plans]
    assert len({id(layout) for plan in plans for layout in plan.layouts}) == 3


@mt.no_grad()
def test_a_weight_that_the_call_changes_is_read_as_it_is() -> None:
    weight, x = mt.rand(40, 24), mt.randn(16, 24)

    def f(x: Any) -> Any:
        y = nn.functional.linear(x, weight)
        weight.mul_(1.5)
        return y

    compiled = mt.compile(f, options=FREEZING)
    for _ in range(5):
        expected = nn.functional.linear(x, weight)
        np.testing.assert_array_equal(compiled(x), expected)
    assert frozen(compiled) == [0]


@mt.no_grad()
def test_in_place_decorated_and_copied() -> None:
    model, plain = Net(), Net()
    plain.load_state_dict(model.state_dict())
    twin = copy.deepcopy(mt.compile(model, options=FREEZING))
    same(twin, plain, 16, 24)
    assert frozen(twin) == [3]
    model.compile(options=FREEZING)
    same(model, plain, 16, 24)
    f = mt.compile(options=FREEZING)(plain.forward)
    for _ in range(3):
        f(mt.randn(16, 24))
    assert frozen(f) == [3]


def test_options_are_a_dictionary() -> None:
    with pytest.raises(TypeError, match="options must be a dict, got list"):
        mt.compile(Net(), options=["freezing"])


@mt.no_grad()
def test_explain_says_what_they_take(capsys: pytest.CaptureFixture[str]) -> None:
    compiled = mt.compile(Net(), explain=True, options=FREEZING)
    for _ in range(3):
        compiled(mt.randn(16, 24))
    (plan,) = calls_of(compiled).entries[0].plans
    size = sum(layout.panels.nbytes for layout in plan.layouts)  # in whole vectors
    assert size >= (24 * 40 + 40 * 72 + 72 * 24) * 4
    assert f"weights laid out once {size / 1000:.3g} kB" in capsys.readouterr().out
