"""The op that made the first NaN or infinity is found, on the way forth or back, and its module."""

from __future__ import annotations

import math
from typing import Any

import pytest

import minitensor as mt
from minitensor import Tensor, nn
from minitensor.autograd.nonfinite import find_nonfinite
from minitensor.core import state


class Block(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(mt.tensor([0.0, -1.0, 4.0]))
        self.function = function

    def forward(self) -> Tensor:
        return self.function(self.weight)


class Model(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(lambda w: w * 2), Block(function)])

    def forward(self) -> Tensor:
        return self.blocks[0]().sum() + self.blocks[1]().sum()


def found(function: Any, after: Any = lambda loss: loss) -> str:
    model = Model(function)
    report = find_nonfinite(dict(model.named_parameters()), lambda: after(model()))
    assert not state.observers
    return report


@pytest.mark.parametrize(
    ("function", "report"),
    [
        (lambda w: w.log(), "log in blocks.1 made the first nan"),
        (lambda w: (w * 1e30).exp() * 0, "exp in blocks.1 made the first inf"),
        (lambda w: w.abs().sqrt(), "the backward of sqrt in blocks.1 made the first inf"),
        (lambda w: (1 / w).clamp(max=1), "div in blocks.1 made the first inf"),
        (
            lambda w: (lambda y: y * 3e38 + y * 3e38)(w * 1e-30),
            "the gradients of what mul in blocks.1 gave add up to the first inf",
        ),
        (
            lambda w: w[:1] * 3e38 + w[:1] * 3e38,
            "the gradients of blocks.1.weight add up to inf",
        ),
    ],
)
def test_the_first_op_that_made_it_is_named(function: Any, report: str) -> None:
    assert report in found(function)


def test_an_op_outside_all_modules_is_named() -> None:
    assert found(lambda w: w, lambda loss: (loss - 99).log()) == (
        "log (in no module) made the first nan"
    )


def test_a_weight_that_was_bad_before_is_named() -> None:
    model = Model(lambda w: w)
    with mt.no_grad():
        model.blocks[1].weight[0] = math.inf  # type: ignore[operator]
    report = find_nonfinite(dict(model.named_parameters()), model)
    assert report == "the update before made blocks.1.weight inf"


def test_a_change_through_a_view_on_the_way_is_no_obstacle() -> None:
    def change(w: Tensor) -> Tensor:
        y = w * 1
        y[0] = w[1] * 2
        return y / mt.tensor([0.0, 1.0, 1.0])

    assert found(change) == "div in blocks.1 made the first inf"


def test_a_mask_is_infinite_on_purpose() -> None:
    def attend(w: Tensor) -> Tensor:
        scores = w + mt.full((3, 3), -math.inf).triu(1)
        scores = scores.masked_fill(mt.eye(3) == 2, -math.inf)
        return scores.softmax(-1) @ (w / mt.tensor([0.0, 1.0, 1.0]))

    assert "div in blocks.1 made the first nan" in found(attend)


def test_softmax_of_nothing_but_minus_infinity_is_named() -> None:
    report = found(lambda w: w.masked_fill(w < 99, -math.inf).softmax(-1))
    assert report == "softmax in blocks.1 made the first nan"


def test_a_norm_too_large_for_its_type_is_told() -> None:
    report = found(lambda w: w[:2] * 2.9e38)
    assert report == "the norm of all gradients is too large for their type"
