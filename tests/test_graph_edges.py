"""Every recorded edge is in the picture, or folded into a box that says so; none is invented."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import edges
import pytest
from edges import count
from foreign import gradient_penalty, recurrent_loop
from test_graph_fold import traced as small
from test_graph_fold import transformer
from test_graph_promises import model, traced

import minitensor as mt
from minitensor import autograd
from minitensor.graph import trace
from minitensor.graph.fold import fold
from minitensor.graph.model import Graph, Value
from minitensor.graph.page import Page
from minitensor.graph.scene import Link
from minitensor.graph.view import view

pytestmark = pytest.mark.pages

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


def test_a_gradient_between_turns_counts_only_if_an_arrow_of_the_loop_says_so() -> None:
    model, inputs, _ = recurrent_loop.example()
    graph = trace(model, **inputs, backward=True)
    tree = fold(graph)
    (loop,) = (box for box in tree.boxes.values() if box.carried)
    scene = view(tree, graph, "full")
    assert edges.Counter(graph, tree, scene).count().sound
    loop.returned = []
    missing = edges.Counter(graph, tree, scene).count().missing
    assert len(missing) == 6, "one from each turn but the first"
    assert all(line.startswith("rnn.h2h -> rnn/tanh") for line in missing)
    loop.carried = ["rnn/stack:0"]
    assert len(edges.Counter(graph, tree, scene).count().missing) == 12


# Gradients that the program gives to begin with


def _given(x: mt.Tensor, v: mt.Tensor) -> mt.Tensor:
    (g,) = autograd.grad((x * x).exp(), x, v, create_graph=True)
    return (g**2).sum()


def _made(x: mt.Tensor, v: mt.Tensor) -> mt.Tensor:
    (g,) = autograd.grad((x * x).exp(), x, v.tanh(), create_graph=True)
    return (g**2).sum()


def _ones(x: mt.Tensor, v: mt.Tensor) -> mt.Tensor:
    y = (x * v).exp()
    (g,) = autograd.grad(y, x, mt.ones_like(y), create_graph=True)
    return (g**2).sum()


def _from_outside(x: mt.Tensor, v: mt.Tensor) -> mt.Tensor:
    (g,) = autograd.grad((x * v).exp(), x, OUTSIDE)
    return (g**2).sum()


def _of_two(x: mt.Tensor, v: mt.Tensor) -> mt.Tensor:
    y = (x * x).exp()
    (g,) = autograd.grad([y, y.sin()], x, [v, mt.ones(3)], create_graph=True)
    return (g**2).sum()


def _of_backward(x: mt.Tensor, v: mt.Tensor) -> mt.Tensor:
    (x * x).exp().backward(v)
    assert x.grad is not None
    return x.grad.sum()


def _again(x: mt.Tensor, v: mt.Tensor) -> mt.Tensor:
    (g,) = autograd.grad((x * x).exp(), x, v, create_graph=True)
    (h,) = autograd.grad(g, x, v * 2, create_graph=True)
    return h.sum()


OUTSIDE = mt.ones(3)
GIVEN = [_given, _made, _ones, _from_outside, _of_two, _of_backward, _again]


@pytest.mark.parametrize("program", GIVEN)
def test_a_gradient_handed_in_is_drawn_from_where_it_comes(program: Any) -> None:
    graph = trace(program, mt.rand(3, requires_grad=True), mt.rand(3))
    found = count(graph)
    assert found.sound, (found.missing, found.invented)
    begins = [link for link in fold(graph).links if link.direction == "backward"]
    firsts = {graph.values[link.value].id for link in begins} - {
        value.id for value in graph.values.values() if value.kind == "gradient"
    }
    assert len(firsts) >= 1, "the gradient it begins with"
    lost = Graph.from_json(graph.to_json())
    node = next(n for n in lost.nodes.values() if set(n.inputs) & firsts and n.of)
    key = f"{node.id}:in0"
    lost.values[key] = Value(key, "gradient", (3,), "float32", 12, ("3",), of="exp:0")
    node.inputs = [key if value in firsts else value for value in node.inputs]
    assert any("from nowhere" in line for line in count(lost).missing), "and the count sees it"


def test_amounts_of_a_box_are_those_of_every_node_in_it() -> None:
    program, inputs, _ = gradient_penalty.example()
    graph = trace(program, *inputs.values(), backward=True, stats=True)
    page = Page(graph, fold(graph))
    whole = [node for node in graph.nodes.values() if node.inside is None]  # it has what is inside
    flops = sum(node.flops for node in whole)
    assert page.amounts("flops", True).total("") == flops
    box = page.tree.boxes[""]
    assert box.flops + box.backward_flops == flops
    made = [graph.values[key] for node in whole for key in node.outputs]
    nbytes = sum(value.nbytes for value in made if value.views is None)
    assert page.amounts("bytes", True).total("") == nbytes
