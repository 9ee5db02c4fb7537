"""An opened fused op: the ops of its decomposition, each with its own backward."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from edges import count

import minitensor as mt
from minitensor import autograd
from minitensor.graph import trace
from minitensor.graph.fold import fold
from minitensor.graph.model import Graph, Node, Value
from minitensor.graph.picture import picture
from minitensor.graph.view import OPENED, view
from minitensor.nn import functional as F

Program = Callable[..., mt.Tensor]


def normal(*shape: int) -> mt.Tensor:
    return mt.randn(*shape).requires_grad_()


def programs() -> Iterator[tuple[str, Program, list[tuple[int, ...]]]]:
    """Programs of one fused op, and the shapes that they are given."""
    attention = F.scaled_dot_product_attention
    cube, wide, row = (1, 3, 4), (3, 4), (4,)
    yield "attention", lambda q, k, v: attention(q, k, v), [cube, cube, cube]
    yield "attention to itself", lambda x: attention(x, x, x, is_causal=True), [cube]
    yield "attention with dropout", lambda q, k: attention(q, k, k, dropout_p=0.5), [cube, cube]
    yield "linear", F.linear, [(2, 4), wide, (3,)]
    yield "layer_norm", lambda x, w, b: F.layer_norm(x, (4,), w, b), [wide, row, row]
    yield "linear_activation", F.linear_activation, [(2, 4), wide, (3,)]


PROGRAMS = {name: (function, shapes) for name, function, shapes in programs()}
every = pytest.mark.parametrize("name", PROGRAMS)


def recorded(name: str, decompose: bool = True) -> Graph:
    function, shapes = PROGRAMS[name]
    mt.manual_seed(0)
    given = [normal(*shape) for shape in shapes]
    names = "xyz"[: len(given)]

    def loss(x: mt.Tensor, y: mt.Tensor | None = None, z: mt.Tensor | None = None) -> mt.Tensor:
        out = function(*(t for t in (x, y, z) if t is not None))
        return (out * out).sum()

    inputs: dict[str, Any] = dict(zip(names, given, strict=True))
    return trace(loss, backward=True, decompose=decompose, values=True, **inputs)


def fused(graph: Graph) -> Node:
    """Return the op that was opened."""
    (found,) = {n.inside for n in graph.nodes.values() if n.direction == "forward" and n.inside}
    return graph.nodes[found]


def terms(graph: Graph) -> dict[str, list[Value]]:
    """Return, for each gradient of an opened op, those inside whose sum it is."""
    found: dict[str, list[Value]] = defaultdict(list)
    for value in graph.values.values():
        if value.term is not None:
            found[value.term].append(value)
    return found


@every
def test_each_op_inside_has_a_backward_half_and_gradients_run_between_them(name: str) -> None:
    graph = recorded(name)
    op = fused(graph)
    inner = [n.id for n in graph.nodes.values() if n.inside == op.id]
    rules = [n for n in graph.nodes.values() if n.of is not None and n.inside is not None]
    assert {rule.of for rule in rules} == set(inner)
    assert {rule.inside for rule in rules} == {f"{op.id}:backward"}
    scene = view(fold(graph), graph, "full", decompose=True)
    shown = picture(scene, graph)
    assert not shown.rules
    assert all(shown.faces[key].backward is not None for key in inner)
    gradients = [edge.edge for edge in shown.edges if edge.backward]
    assert {edge.source for edge in gradients} >= set(inner)
    assert {edge.target for edge in gradients} >= set(inner)
    assert not {op.id} & {end for edge in gradients for end in (edge.source, edge.target)}
    assert all(
        count(graph, equal, opened).sound for equal in (True, False) for opened in (False, True)
    )
    assert OPENED in scene.notes
    closed = view(fold(graph), graph, "full")
    assert OPENED not in closed.notes


@every
def test_the_last_gradients_inside_are_those_of_the_op(name: str) -> None:
    graph = recorded(name)
    op, inner = fused(graph), terms(graph)
    whole = graph.nodes[f"{op.id}:backward"]
    assert set(whole.outputs) == set(inner)
    assert whole.outputs
    for key, parts in inner.items():
        value = graph.values[key]
        assert value.data is not None
        assert {part.of for part in parts} == {value.of}
        total = sum(part.data.array.astype(np.float64) for part in parts if part.data is not None)
        np.testing.assert_allclose(total, value.data.array, rtol=1e-5, atol=1e-5)


@every
def test_all_else_is_what_it_is_closed(name: str) -> None:
    opened, closed = recorded(name), recorded(name, decompose=False)
    for key, node in closed.nodes.items():
        assert replace(opened.nodes[key], origins=None) == replace(node, origins=None)
    for key, value in closed.values.items():
        assert opened.values[key].saved_by == value.saved_by
        if value.data is not None:
            other = opened.values[key].data
            assert other is not None
            np.testing.assert_array_equal(other.array, value.data.array)
    boxes = fold(opened).boxes
    for key, box in fold(closed).boxes.items():
        other_box = boxes[key]
        assert other_box.backward_flops == box.backward_flops
        assert other_box.saved_bytes == box.saved_bytes
        assert other_box.flops == box.flops


@every
def test_it_survives_json_and_draws_no_random_number(name: str) -> None:
    after = []
    for decompose in (True, False):
        graph = recorded(name, decompose)
        after.append(mt.rand(1).item())
        assert Graph.from_json(graph.to_json()).to_json() == graph.to_json()
    assert after[0] == after[1]


def test_gradients_of_the_program_are_untouched() -> None:
    weight, x = normal(3, 4), mt.ones(2, 4)
    F.linear(x, weight).sum().backward()
    assert weight.grad is not None
    expected = weight.grad.numpy().copy()

    def step(x: mt.Tensor) -> mt.Tensor:
        weight.grad = None
        loss = F.linear(x, weight).sum()
        loss.backward()
        return loss

    trace(step, x, decompose=True)
    np.testing.assert_array_equal(weight.grad.numpy(), expected)


def test_a_second_pass_is_opened_too() -> None:
    def twice(x: mt.Tensor, w: mt.Tensor) -> mt.Tensor:
        loss = F.linear(x, w).sum()
        autograd.grad(loss, w, retain_graph=True)
        return autograd.grad(loss, w)[0]

    graph = trace(twice, normal(2, 4), normal(3, 4), decompose=True)
    outer = {n.inside for n in graph.nodes.values() if n.of is not None and n.inside is not None}
    assert outer == {"linear:backward", "linear:backward.1"}
    assert all(count(graph, equal, True).sound for equal in (True, False))


def test_a_pass_that_can_be_differentiated_stays_one_box() -> None:
    def slope(q: mt.Tensor) -> mt.Tensor:
        out = F.scaled_dot_product_attention(q, q, q).sum()
        return autograd.grad(out, q, create_graph=True)[0].square().sum()

    graph = trace(slope, normal(1, 3, 4), decompose=True)
    assert not terms(graph)
    assert all(count(graph, equal, True).sound for equal in (True, False))
