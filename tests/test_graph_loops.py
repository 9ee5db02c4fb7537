"""Loops, calls of one module, sources and updates: each is the box that says so."""

from __future__ import annotations

import re

from edges import count
from foreign import gradient_penalty, recurrent_loop, siamese, training_step

import minitensor as mt
from minitensor import nn
from minitensor.graph import svg, trace
from minitensor.graph.fold import fold
from minitensor.graph.page import Page
from minitensor.graph.palette import BACK
from minitensor.graph.scene import Box, Tree
from minitensor.graph.view import view
from models.transformer import Transformer, TransformerConfig


def kind(tree: Tree, name: str) -> list[Box]:
    return [box for box in tree.boxes.values() if box.kind == name]


def test_a_loop_that_counts_its_turns_is_one_box() -> None:
    inward, onward = nn.Linear(4, 8), nn.Linear(8, 8)

    def run(x: mt.Tensor) -> mt.Tensor:
        h, states = mt.zeros(2, 8), []
        for t in range(x.shape[1]):
            h = (inward(x[:, t]) + onward(h)).tanh()
            states.append(h)
        return mt.stack(states, 1)

    tree = fold(trace(run, mt.randn(2, 7, 4), backward=True))
    (loop,) = (box for box in kind(tree, "run") if box.count > 1)
    assert (loop.count, loop.shared, loop.carried) == (7, True, ["tanh:0"])
    (first,) = kind(tree, "source")
    assert (first.label, first.parent) == ("h", "")  # it enters the first turn alone
    into = [link for link in tree.links if link.target == "stack" and link.direction == "forward"]
    assert [link.fan for link in into] == [7]


def test_what_comes_back_through_a_loop_is_an_arrow_of_the_gradients() -> None:
    model, inputs, _ = recurrent_loop.example()
    graph = trace(model, **inputs, backward=True)
    tree = fold(graph)
    page = Page(graph, tree)
    (loop,) = (box for box in tree.boxes.values() if box.carried)
    assert [label.name for label in page.loop(loop)] == ["h, 7 times", "h.grad, 6 times"]
    assert [label.name for label in page.loop(loop, backward=False)] == ["h, 7 times"]
    hidden = tree.boxes["rnn.h2h"]
    (rule,) = (graph.nodes[key] for key in hidden.backward)
    assert len(rule.outputs) == 2, "of a turn that gives h.grad, as all do but the first"
    for level, arrows in (("full", 2), ("op", 1)):
        picture = svg.draw(view(tree, graph, level), graph).decode()
        (drawn,) = re.findall('<g id="[^"]*" class="edge loop">.*?</g>', picture, re.DOTALL)
        assert drawn.count('fill="none"') == arrows
        assert drawn.count(">h.grad, 6 times<") == arrows - 1
        assert (f'stroke="{BACK}"' in drawn) is (arrows == 2)


def test_a_first_turn_with_less_to_differentiate_is_a_turn() -> None:
    inward, onward = nn.Linear(4, 8), nn.Linear(8, 8)

    def run(x: mt.Tensor) -> mt.Tensor:
        h, states = mt.zeros(2, 8), []
        for t in range(x.shape[1]):
            gate = (inward(x[:, t]) + onward(h)).sigmoid()
            h = gate * h + (1 - gate) * h.exp().tanh()
            states.append(h)
        return mt.stack(states, 1)

    for backward in (False, True):
        graph = trace(run, mt.randn(2, 6, 4), backward=backward)
        (loop,) = (box for box in fold(graph).boxes.values() if box.count > 1)
        assert (loop.count, len(loop.children)) == (6, 11)
        assert count(graph).sound


def test_turns_that_differ_stay_unfolded() -> None:
    def run(x: mt.Tensor) -> mt.Tensor:
        h = x[:, 0]
        for t in (1, 2, 4):
            h = (h * x[:, t]).tanh()
        return h

    tree = fold(trace(run, mt.randn(2, 5)))
    assert sorted(box.count for box in tree.boxes.values())[-1] == 2  # turns 1 and 2
    c = fold(trace(lambda a, b: (a + b) + (a + b), mt.randn(2), mt.randn(2)))
    assert all(box.count == 1 for box in c.boxes.values())


def test_one_module_called_twice_is_a_box_of_its_calls() -> None:
    model, inputs, _ = siamese.example()
    graph = trace(model, *inputs.values())
    tree = fold(graph)
    (calls,) = kind(tree, "calls")
    assert (calls.label, calls.children) == ("Encoder", ["encoder", "encoder#2"])
    for level, wanted in (("arch", False), ("block", False), ("op", True)):
        assert (calls.id in view(tree, graph, level).open) is wanted


def test_the_same_wire_twice_is_two_edges() -> None:
    graph = trace(lambda c: c + c, mt.randn(2))
    edges = view(fold(graph), graph, "op").edges
    assert [edge.ports for edge in edges if edge.target == "add"] == [["a"], ["b"]]


def test_a_training_step_has_three_phases_at_every_level() -> None:
    step, inputs, _ = training_step.example()
    graph = trace(step, *inputs.values())
    tree = fold(graph)
    (update,) = kind(tree, "update")
    assert update.label == "optimizer.step"
    for level in ("arch", "block", "op", "full"):
        scene = view(tree, graph, level)
        assert {edge.direction for edge in scene.edges} == {"forward", "backward", "onward"}
        assert (update.id in scene.open) is (level in ("op", "full"))
    onward = [edge for edge in view(tree, graph, "arch").edges if edge.direction == "onward"]
    assert [(edge.source, edge.tensors) for edge in onward] == [("model", 6)]


def test_what_each_member_has_of_its_own_is_inside_and_what_all_share_outside() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)
            self.register_buffer("scale", mt.ones(4))

        def forward(self, x: mt.Tensor, mask: mt.Tensor) -> mt.Tensor:
            scale: mt.Tensor = self.scale  # type: ignore[assignment]
            return self.linear(x) * scale + mask

    layers = nn.ModuleList([Scaled() for _ in range(3)])
    shared = mt.ones(4)

    def run(x: mt.Tensor) -> mt.Tensor:
        for layer in layers:
            x = layer(x, shared)
        return x

    tree = fold(trace(run, mt.randn(2, 4)))
    (layer,) = (box for box in tree.boxes.values() if box.count == 3)
    assert {box.label: box.parent for box in kind(tree, "source")} == {
        "scale": layer.id,
        "mask": "",
    }


def test_a_function_around_one_module_is_no_box_and_names_nothing_inside_it() -> None:
    mt.manual_seed(0)
    sizes = TransformerConfig(11, 11, 16, 2, dim_feedforward=32)
    tree = fold(trace(Transformer(sizes), mt.full((2, 7), 3), mt.full((2, 5), 4)))
    assert tree.boxes["encoder.layers.0.self_attn"].parent == "encoder.layers.0"
    functions = [box.label for box in kind(tree, "run") if box.id.endswith("()")]
    assert functions == ["feed_forward", "feed_forward"]
    step, inputs, _ = gradient_penalty.example()
    tree = fold(trace(step, *inputs.values(), backward=True))
    assert [box.label for box in kind(tree, "run")].count("gradient_penalty") == 1
    inside = [tree.boxes[key].label for key in tree.boxes["gradient_penalty()"].children]
    assert inside == ["interpolates", "Critic", "((gradients.norm(...) - 1) ** 2).mean()"]


def test_a_call_outside_of_the_box_of_calls_says_that_it_shares_its_weights() -> None:
    step, inputs, _ = gradient_penalty.example()
    graph = trace(step, *inputs.values(), backward=True)
    page = Page(graph, fold(graph))
    places = {box.id: page.place(box) for box in page.tree.boxes.values()}
    assert places["calls:critic"] == "critic, 2 of 3 calls, weights shared"
    assert places["critic#2"] == "call 2 of 3, weights shared"
    assert places["critic#3"] == "critic, call 3 of 3, weights shared"
