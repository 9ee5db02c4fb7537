"""Every recorded edge is in the picture, or folded into a box that says so; none is invented."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import edges
import pytest
from test_graph_fold import traced as small
from test_graph_fold import transformer
from test_graph_promises import model, traced

import minitensor as mt
from minitensor.graph import trace
from minitensor.graph.fold import fold
from minitensor.graph.model import Graph
from minitensor.graph.scene import Link
from minitensor.graph.view import view

FOREIGN = sorted(p.stem for p in (Path(__file__).parent / "foreign").glob("[a-z]*.py"))
INCLUDED = ["attention", "bert", "gpt", "recurrent", "vit"]
PROGRAMS = [f"models.{name}" for name in INCLUDED] + [f"foreign.{name}" for name in FOREIGN]


def recorded(program: str, backward: bool, decompose: bool) -> Graph:
    """Trace an example; without a backward pass where there is nothing to differentiate."""
    mt.manual_seed(0)
    function, inputs, _ = importlib.import_module(program).example()
    try:
        return trace(function, **inputs, backward=backward, decompose=decompose)
    except ValueError as error:
        if "requires grad" not in str(error):
            raise
        return trace(function, **inputs, decompose=decompose)


def check(graph: Graph) -> None:
    for equal in (True, False):
        for decompose in (False, True):
            found = edges.count(graph, equal, decompose)
            assert found.sound, found
            assert found.recorded > 0


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("program", PROGRAMS)
def test_no_edge_is_missing_and_none_is_invented(program: str, backward: bool) -> None:
    for decompose in (False, True):
        check(recorded(program, backward, decompose))


def test_every_edge_of_the_transformer_is_drawn_or_folded() -> None:
    check(traced(model(), backward=True, decompose=True))
    check(small(transformer(norm_first=True), masks=True, backward=True))


def slopes(x: mt.Tensor) -> mt.Tensor:
    """A loss with a gradient in it, of a chain in which a tensor is used twice."""
    h = x.tanh()
    (slope,) = mt.autograd.grad((h * h).sum(), x, create_graph=True)
    return slope.square().sum() + h.sum()


def twice(x: mt.Tensor) -> mt.Tensor:
    c = x * 2
    c = c + c
    return (c @ c.T).exp()


@pytest.mark.parametrize("function", [slopes, twice])
def test_gradients_of_gradients_and_tensors_read_twice(function: Callable[..., Any]) -> None:
    check(trace(function, mt.randn(2, 3).requires_grad_(), backward=True))


def test_the_count_sees_what_is_missing_and_what_is_invented() -> None:
    graph = trace(twice, mt.randn(2, 3))
    tree = fold(graph)
    removed = tree.links.pop(0)
    scene = view(tree, graph, "full")
    found = edges.Counter(graph, tree, scene).count()
    assert found.missing == ["input:x -> mul: input:x"]
    tree.links.append(removed)
    tree.links.append(Link("mul", "exp", "mul:0"))
    found = edges.Counter(graph, tree, view(tree, graph, "full")).count()
    assert found.invented == ["mul -> exp: mul:0"]
    assert not found.missing
