"""Views: which edges are residuals, and which boxes names open and close."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

import minitensor as mt
from minitensor import nn
from minitensor.graph import Graph, trace
from minitensor.graph.fold import fold
from minitensor.graph.view import view
from models.transformer import Transformer, TransformerConfig


def residuals(graph: Graph, level: str = "op", **options: Any) -> list[tuple[str, str]]:
    edges = view(fold(graph), graph, level, **options).edges
    return [(e.source, e.target) for e in edges if e.skip and e.direction == "forward"]


def model(name: str) -> Graph:
    mt.manual_seed(0)
    if name.startswith("transformer"):
        sizes = TransformerConfig(11, 11, 16, 2, 2, 2, 32, norm_first="pre" in name)
        tokens = mt.full((2, 7), 3), mt.full((2, 5), 4)
        return trace(Transformer(sizes), *tokens, decompose="opened" in name)
    program, inputs, *_ = importlib.import_module(f"models.{name}").example()
    return trace(program, *(inputs.values() if isinstance(inputs, dict) else inputs))


ENCODER, DECODER = "encoder.layers.0", "decoder.layers.0"


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("transformer", 5),
        ("transformer pre", 5),
        ("transformer opened", 5),
        ("gpt", 2),
        ("bert", 2),
        ("vit", 2),
        ("attention", 0),
        ("recurrent", 0),
    ],
)
def test_the_residuals_of_the_models_are_marked_and_no_other_edge(name: str, wanted: int) -> None:
    found = residuals(model(name))
    assert len(found) == wanted, found
    if name == "transformer":
        assert found == [
            ("dropout", f"{ENCODER}/add"),
            (f"{ENCODER}.norm1", f"{ENCODER}/add.1"),
            ("dropout#2", f"{DECODER}/add"),
            (f"{DECODER}.norm1", f"{DECODER}/add.1"),
            (f"{DECODER}.norm2", f"{DECODER}/add.2"),
        ]


def test_a_residual_goes_past_a_layer_to_a_sum() -> None:
    linear = nn.Linear(3, 3)

    def wires(program: Any) -> list[tuple[str, str]]:
        return residuals(trace(program, mt.randn(2, 3)))

    to_sum = [("input:x", "add")]
    assert wires(lambda x: x + linear(x)) == to_sum
    assert wires(lambda x: linear(x).tanh() + x) == to_sum
    assert wires(lambda x: x + x @ mt.ones(3, 3)) == to_sum
    assert wires(lambda x: x * linear(x)) == [], "a gate is no residual"
    assert wires(lambda x: x + 2 * x) == [], "nothing is skipped but a factor"
    assert wires(lambda x: x / (x + linear(x * 0.5)).norm()) == to_sum
    assert wires(lambda x: linear(x) + linear(x)) == []


def test_what_a_closed_box_adds_inside_is_no_residual_outside() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x: mt.Tensor) -> mt.Tensor:
            return x + self.linear(x).tanh()

    graph = trace(nn.Sequential(Block(), nn.Tanh()), mt.randn(2, 3))
    assert residuals(graph, "op") == [("input:input", "0/add")]
    assert residuals(graph, "op", collapse="0") == []


def test_an_option_that_there_is_none_of_is_told_with_one_of_about_its_name() -> None:
    graph = trace(lambda x: x.exp(), mt.rand(2))
    wrong: Any = {"expnd": "a"}
    with pytest.raises(TypeError, match="save has no option 'expnd': did you mean expand\\?"):
        graph.save("never.svg", **wrong)
    wrong = {"colour": "red"}
    with pytest.raises(TypeError, match="show has no option 'colour': they are expand, collapse"):
        graph.show(**wrong)
