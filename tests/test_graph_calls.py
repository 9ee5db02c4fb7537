"""Public functions of several ops, or of an op of another name, are drawn under their own names."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest

import minitensor as mt
import minitensor.nn.functional as F
from minitensor import nn
from minitensor.graph import trace
from minitensor.graph.fold import fold
from minitensor.graph.model import Graph
from minitensor.graph.page import Page
from minitensor.graph.scene import Box
from minitensor.graph.view import view


def called(graph: Graph) -> dict[str, Box]:
    """The boxes of public functions, by label."""
    return {box.label: box for box in fold(graph).boxes.values() if box.call}


def ops(graph: Graph, box: Box) -> list[str]:
    boxes = fold(graph).boxes
    return [graph.nodes[boxes[key].node or ""].op for key in box.children]


@pytest.mark.parametrize(
    ("function", "label", "inside", "text"),
    [
        (lambda x: mt.einsum("ij,kj->ik", x, x), "einsum", 2, "ij,kj->ik"),
        (lambda x: x.chunk(3, dim=-1), "chunk", 0, "3, dim=-1"),
        (lambda x: mt.tensor_split(x, 2), "tensor_split", 0, "2"),
        (lambda x: x.split(2, 1)[0], "split", 0, "2, dim=1"),
        (lambda x: mt.addcmul(x, x, x), "addcmul", 2, ""),
        (lambda x: F.normalize(x), "normalize", 3, ""),
        (lambda x: F.mse_loss(x, x * 2), "mse_loss", 3, ""),
        (lambda x: mt.vstack((x, x)), "vstack", 0, ""),
        (lambda x: x.flatten(), "flatten", 0, ""),
    ],
)
def test_a_public_function_is_one_box_with_its_arguments(
    function: Callable[[mt.Tensor], Any], label: str, inside: int, text: str
) -> None:
    graph = trace(lambda x: function(x * 1), mt.randn(4, 6))
    box = called(graph)[label]
    page = Page(graph, fold(graph))
    assert len(box.children) == inside
    assert ", ".join(page.called(box)) == text
    assert text in " ".join([*page.card(box.id).forward.rows])


def changed(change: Callable[[mt.Tensor, mt.Tensor], Any]) -> Callable[..., mt.Tensor]:
    def run(x: mt.Tensor, v: mt.Tensor) -> mt.Tensor:
        y = x * 1
        change(y, v)
        return y * 2

    return run


@pytest.mark.parametrize(
    ("change", "label", "text"),
    [
        (lambda y, v: y.__setitem__((slice(None), 0), 0.5), "setitem", "[:, 0] = 0.5"),
        (lambda y, v: y.__setitem__(slice(1, None), v), "setitem", "[1:]"),
        (lambda y, v: y.__setitem__(y < 0, -float("inf")), "setitem", "[indices] = -inf"),
        (lambda y, v: y[0].fill_(2), "fill_", "value=2"),
        (lambda y, v: y.zero_(), "zero_", ""),
        (lambda y, v: y[1:].copy_(v), "copy_", ""),
    ],
)
def test_a_change_of_elements_is_one_box_and_its_number_no_other(
    change: Callable[[mt.Tensor, mt.Tensor], Any], label: str, text: str
) -> None:
    leaf = mt.randn(3, 4, requires_grad=True)
    graph = trace(changed(change), leaf, mt.randn(2, 4), backward=True)
    tree = fold(graph)
    page, box = Page(graph, tree), called(graph)[label]
    assert ", ".join(page.called(box)) == text
    assert page.card(box.id).kind == "shape"
    for level in ("op", "full"):
        shown = [tree.boxes[key] for key in view(tree, graph, level).visible]
        assert box.id in [each.id for each in shown]
        assert not any(each.parent == box.id for each in shown)
        assert level == "full" or not any(each.label == "constant" for each in shown)


def test_a_constant_that_a_backward_alone_reads_is_drawn_with_it_alone() -> None:
    def pick(x: mt.Tensor, t: mt.Tensor) -> mt.Tensor:
        return -x.gather(1, t)

    inputs = mt.randn(3, 4, requires_grad=True), mt.tensor([[0], [1], [2]])
    graph = trace(pick, *inputs, backward=True)
    tree = fold(graph)
    sources = [box.id for box in tree.boxes.values() if box.kind == "source"]
    assert sources == ["constant:1"]
    assert not {*sources} & {*view(tree, graph, "op").visible}
    assert {*sources} <= {*view(tree, graph, "full").visible}


def test_functions_of_one_op_of_the_same_name_have_no_call() -> None:
    graph = trace(lambda x: mt.where(x > 0, F.softmax(x, -1), x.contiguous()), mt.randn(2, 3))
    assert not graph.calls


def test_foreign_models_show_what_their_code_calls() -> None:
    function, inputs, _ = importlib.import_module("foreign.vit").example()
    graph = trace(function, **inputs)
    tree = fold(graph)
    boxes = [box for box in tree.boxes.values() if box.call]
    assert [box.label for box in boxes] == ["chunk", "einsum", "einsum"]
    page = Page(graph, tree)
    assert [page.called(box) for box in boxes] == [
        ["3", "dim=-1"], ["bhid,bhjd->bhij"], ["bhij,bhjd->bhid"],
    ]  # fmt: skip
    assert ops(graph, boxes[1]) == ["permute", "matmul"]
    scene = view(tree, graph, "op")
    assert boxes[1].id in scene.open
    assert boxes[1].id not in view(tree, graph, "block").open
    function, inputs, sizes = importlib.import_module("foreign.nano_gpt").example()
    graph = trace(function, **inputs, dims=sizes)
    page = Page(graph, fold(graph))
    boxes = [box for box in page.tree.boxes.values() if box.label == "split"]
    assert [page.called(box) for box in boxes] == [["C", "dim=2"]]


def test_layers_with_other_equations_are_not_equal() -> None:
    def layers(x: mt.Tensor, *equations: str) -> mt.Tensor:
        for equation in equations:
            x = mt.einsum(equation, x, x)
        return x

    def counts(*equations: str) -> list[int]:
        graph = trace(lambda x: layers(x, *equations), mt.randn(3, 3))
        return [box.count for box in fold(graph).boxes.values() if box.call]

    assert counts("ij,kj->ik", "ij,kj->ik") == [2]
    assert counts("ij,kj->ik", "ab,cb->ac") == [1, 1]


class Layer(nn.Module):
    def inner(self, x: mt.Tensor) -> mt.Tensor:
        return x.exp() * 2

    def outer(self, x: mt.Tensor) -> mt.Tensor:
        x = self.inner(x)
        return (x + 1).tanh().neg()

    def forward(self, x: mt.Tensor) -> mt.Tensor:
        return self.outer(x).sum() * 3


def test_a_function_is_inside_its_caller_also_if_it_runs_first() -> None:
    graph = trace(Layer(), mt.randn(3))
    tree = fold(graph)
    assert tree.boxes["inner()"].parent == "outer()"
    assert tree.boxes["outer()"].children == ["inner()", "add", "tanh", "neg"]
    again = type(graph).from_json(graph.to_json())
    assert again == graph
    assert fold(again).boxes == tree.boxes


def test_a_function_that_a_public_one_calls_is_inside_that_one() -> None:
    def scores(x: mt.Tensor) -> mt.Tensor:
        return mt.einsum("ij,kj->ik", x, x) / 2

    graph = trace(lambda x: scores(x).softmax(-1), mt.randn(2, 3))
    boxes = fold(graph).boxes
    assert boxes["einsum()"].parent == "scores()"
    assert {graph.function(n) for n in graph.nodes.values()} == {"scores", ""}
