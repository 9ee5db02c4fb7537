"""The words of a picture: headlines, settings, saved tensors, overlays, as a person reads them."""

from __future__ import annotations

import contextlib
import functools
from typing import Any

import numpy as np
import pytest

import minitensor as mt
import minitensor.nn.functional as F
from minitensor.core import OPS
from minitensor.graph import Graph, trace
from minitensor.graph.fold import fold
from minitensor.graph.headlines import LONGEST, Headlines, statement
from minitensor.graph.model import Node
from minitensor.testing.samples import samples
from tests.foreign import bert, llama, nano_gpt, recurrent_loop, sampling, siamese


def headline(graph: Graph) -> str:
    return Headlines(graph).of(n for n in graph.nodes.values() if n.direction == "forward")


# Headlines


def test_ops_of_one_line_are_called_as_that_line() -> None:
    def masked(tokens: mt.Tensor) -> list[mt.Tensor]:
        mask = (tokens == 0).unsqueeze(1)
        return [mask]

    assert headline(trace(masked, mt.zeros(2, 3))) == "mask = (tokens == 0).unsqueeze(1)"


def test_a_long_line_keeps_its_function_and_loses_its_arguments() -> None:
    def step(logits: mt.Tensor, targets: mt.Tensor) -> list[mt.Tensor]:
        loss = F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1))
        return [loss]

    graph = trace(step, mt.randn(2, 3, 5), mt.zeros(2, 3, dtype=mt.int64))
    assert headline(graph) == "loss = cross_entropy(...)"


def test_ops_that_make_several_tensors_are_called_by_all_of_them() -> None:
    def angles(positions: mt.Tensor, rates: mt.Tensor) -> tuple[mt.Tensor, mt.Tensor]:
        turns = positions.unsqueeze(1) * rates
        cos = turns.cos()
        sin = turns.sin()
        return cos, sin

    assert headline(trace(angles, mt.randn(7), mt.randn(4))) == "cos, sin"


def test_ops_of_a_function_are_called_by_it() -> None:
    graph = trace(lambda x: (x * 2).tanh(), mt.randn(3))
    for node in graph.nodes.values():
        node.function = "apply_rotary"
    assert headline(graph) == "apply_rotary"


def test_no_line_is_claimed_that_did_more_or_made_something_else() -> None:
    def forward(x: mt.Tensor) -> list[mt.Tensor]:
        y = x.exp() + x.sin() * x.cos()
        return [y]

    graph = trace(forward, mt.randn(3))
    assert headline(graph) == "y = x.exp() + x.sin() * x.cos()"
    last = list(graph.nodes.values())[-2:]
    assert Headlines(graph).of(last) == "y", "the line ran other ops as well"
    assert headline(trace(lambda x: (x * 2).tanh(), mt.randn(3))) == "", "the line is this one"


def test_a_headline_is_short_or_missing_but_never_cut() -> None:
    def of(code: str, op: str = "add", *names: str) -> str:
        return statement(Node("a", op, "", [], [], code=code), names)

    assert of("return self.scale * (x - mean)") == "scale * (x - mean)"
    assert of("x += F.relu(self.weight)", "add", "x") == "x += relu(weight)"
    assert of("x = other(y)", "add", "z") == "", "the line makes another tensor"
    assert of("loss = F.cross_entropy(", "cross_entropy", "loss") == "", "a part of a line"
    assert of("return model(x)", "linear") == "", "the model ran more than this op"
    long = "x = x.view(batch, length, heads, width).transpose(1, 2).contiguous()"
    assert of(long, "transpose", "x") == "", "41 characters even without arguments"
    assert len(of("very = " + "long + " * 4 + "long", "add", "very")) <= LONGEST


@pytest.mark.parametrize(
    ("program", "label"),
    [
        (nano_gpt, "loss = cross_entropy(...)"),
        (bert, "loss = loss_fct(...)"),
        (llama, "apply_rotary_emb"),
        (recurrent_loop, "h = step(...)"),
        (siamese, "z / z.norm(dim=-1, keepdim=True)"),
        (sampling, "idx"),
    ],
)
def test_a_box_of_several_ops_has_a_headline(program: Any, label: str) -> None:
    model, inputs, _ = program.example()
    boxes = fold(trace(model, *inputs.values())).boxes.values()
    assert label in [box.label for box in boxes if box.kind == "run"]


# Saved tensors


def test_every_op_names_what_it_makes_for_its_backward_pass() -> None:
    nameless = set()
    for name, op in OPS.items():
        for args, kwargs in samples(op, np.float32):
            with contextlib.suppress(ValueError, RuntimeError):  # no tensor, nothing to save
                graph = trace(functools.partial(op.call, **kwargs), *args, backward=True)
                values = graph.values.values()
                nameless |= {name for v in values if v.kind == "saved" and not v.names}
    assert not nameless, "name these in the class attribute `saves` of the op"
