"""Loops, calls of one module, sources and updates: each is the box that says so."""

from __future__ import annotations

import re

import edges
from edges import count
from foreign import gradient_penalty, recurrent_loop, siamese, training_step

import minitensor as mt
from minitensor import nn
from minitensor.graph import svg, trace, write
from minitensor.graph.details import Details
from minitensor.graph.fold import fold
from minitensor.graph.members import Members
from minitensor.graph.numbers import number
from minitensor.graph.page import Page
from minitensor.graph.palette import BACK
from minitensor.graph.picture import picture
from minitensor.graph.scene import Box, Tree
from minitensor.graph.view import View, view
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


def test_numbers_that_differ_from_turn_to_turn_are_told_from_the_least_to_the_most() -> None:
    model, inputs, _ = recurrent_loop.example()
    graph = trace(model, **inputs, backward=True)
    tree = fold(graph)
    page = Page(graph, tree)
    (loop,) = (box for box in tree.boxes.values() if box.carried)
    rules = [
        n for n in graph.nodes.values() if n.direction == "backward" and n.group[:5] == "rnn.h"
    ]
    assert sorted(rule.flops for rule in rules) == [2400] + 6 * [4800]
    assert "matrix products: 3.84 kFLOP forward, 5.28-7.68 kFLOP backward" in page.costs(loop)
    assert "matrix products: 2.4-4.8 kFLOP" in page.card("rnn.h2h").backward.lines  # type: ignore
    whole = dict(Details(page).box(loop)[0][2])["matrix products"]
    assert whole == f"{number(7 * 3840 + 5280 + 6 * 7680, 'FLOP')} in 7"
    table = graph.summary()
    row = next(line for line in table.splitlines() if "h2h" in line)
    assert row.split()[-8:-4] == ["2.4", "k", "2.4-4.8", "k"]
    assert "the first is that of the first turn" in table
    assert "the first turn" not in trace(model, **inputs).summary()
    assert tree.boxes[""].backward_flops == sum(node.flops for node in graph.nodes.values()) - (
        tree.boxes[""].flops
    )


def test_a_gradient_of_a_turn_is_named_for_what_it_is_the_gradient_of() -> None:
    model, inputs, _ = recurrent_loop.example()
    graph = trace(model, **inputs, backward=True)
    members = Members(Details(Page(graph, fold(graph))))
    for key, (_, keys) in members.homes.items():
        of = {graph.values[one].of for one in keys}
        kinds = {graph.values[one].kind for one in (key, *keys)}
        assert len(kinds) == 1
        assert kinds != {"gradient"} or len(of) in (1, 7)
        assert len({graph.values[one].shape for one in (key, *keys)}) == 1


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


class Loop(nn.Module):
    """A cell in a loop over some order of the turns, inside a method that runs all of it."""

    def __init__(self, back: bool) -> None:
        super().__init__()
        self.cell = nn.GRUCell(4, 4)
        self.back = back

    def run(self, x: mt.Tensor, mask: mt.Tensor) -> mt.Tensor:
        h = mt.zeros(2, 4)
        states = [h] * x.shape[1]
        turns = range(x.shape[1])
        for t in reversed(turns) if self.back else turns:
            h = mt.where(mask[:, t, None], self.cell(x[:, t], h), h)
            states[t] = h
        return mt.stack(states, 1)

    def forward(self, x: mt.Tensor) -> mt.Tensor:
        return self.run(x, x.sum(-1) > 0)


def test_a_loop_that_counts_down_is_one_box_too() -> None:
    graph = trace(Loop(back=True), mt.randn(2, 6, 4), backward=True)
    tree = fold(graph)
    (loop,) = (box for box in tree.boxes.values() if box.count > 1)
    assert (loop.count, loop.kind) == (6, "run")
    page = Page(graph, tree)
    inside = [key for key, box in tree.boxes.items() if box.node and loop.id in tree.chain(key)]
    ranges = [page.arguments(tree.boxes[key])[1] for key in inside]
    assert [found for found in ranges if found] == [["t = 5-0"], ["t = 5-0"]]
    assert count(graph).sound


def test_a_function_around_a_loop_does_not_name_its_turns() -> None:
    for back in (False, True):
        tree = fold(trace(Loop(back), mt.randn(2, 6, 4)))
        (loop,) = (box for box in tree.boxes.values() if box.count > 1)
        assert "run" not in loop.label
    model, inputs, _ = recurrent_loop.example()
    (loop,) = (box for box in fold(trace(model, **inputs)).boxes.values() if box.count > 1)
    assert loop.label == "h = step(...)", "a call in each turn"


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


def test_a_source_stands_in_the_code_that_made_it() -> None:
    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))

        def scaled(self, x: mt.Tensor, by: mt.Tensor) -> mt.Tensor:
            return (x * by).tanh() * mt.ones(3)

        def forward(self, z: mt.Tensor) -> mt.Tensor:
            by = mt.rand(3)
            return self.scaled(self.layers(z), by).exp()

    model = Inner()

    def step(x: mt.Tensor) -> mt.Tensor:
        z = mt.randn(2, 3)
        return model(z) + x

    tree = fold(trace(step, mt.randn(2, 3)))
    parents = {box.label: box.parent for box in kind(tree, "source")}
    assert parents == {"z": "", "by": "model", "ones(3)": "model/scaled()"}
    for level in ("arch", "block", "op"):
        edges = view(tree, trace(step, mt.randn(2, 3)), level).edges
        (source,) = (box.id for box in kind(tree, "source") if box.label == "z")
        assert any(edge.source == source for edge in edges), level


def test_a_function_around_one_module_is_no_box_and_names_nothing_inside_it() -> None:
    mt.manual_seed(0)
    sizes = TransformerConfig(11, 11, 16, 2, dim_feedforward=32)
    tree = fold(trace(Transformer(sizes), mt.full((2, 7), 3), mt.full((2, 5), 4)))
    assert tree.boxes["encoder.layers.0.self_attn"].parent == "encoder.layers.0/sublayer()"
    functions = [box.label for box in kind(tree, "run") if box.id.endswith("()")]
    assert functions.count("feed_forward") == 2
    assert functions.count("sublayer") == 5  # each around several modules
    step, inputs, _ = gradient_penalty.example()
    tree = fold(trace(step, *inputs.values(), backward=True))
    assert [box.label for box in kind(tree, "run")].count("gradient_penalty") == 1
    inside = [tree.boxes[key].label for key in tree.boxes["gradient_penalty()"].children]
    line = "((gradients.norm(...) - 1) ** 2).mean()"
    assert inside == ["interpolates", "ones_like(scores)", "Critic", line]


def test_a_call_outside_of_the_box_of_calls_says_that_it_shares_its_weights() -> None:
    step, inputs, _ = gradient_penalty.example()
    graph = trace(step, *inputs.values(), backward=True)
    page = Page(graph, fold(graph))
    places = {box.id: page.place(box) for box in page.tree.boxes.values()}
    assert places["calls:critic"] == "critic, 2 of 3 calls, weights shared"
    assert places["critic#2"] == "call 2 of 3, weights shared"
    assert places["critic#3"] == "critic, call 3 of 3, weights shared"


def test_ops_put_together_have_no_frame_that_repeats_what_is_in_it() -> None:
    prior, heat = mt.linspace(0.0, 1.0, 13), mt.tensor(0.7)

    def scores(logits: mt.Tensor, lengths: mt.Tensor, target: mt.Tensor) -> mt.Tensor:
        logits = logits / heat + prior
        mask = mt.arange(logits.size(1))[None, :] < lengths[:, None]
        logits = mt.where(mask, logits, mt.full_like(logits, -1e4))
        logp = logits.log_softmax(-1)
        nll = -logp.gather(1, target[:, None]).squeeze(1)
        entropy = -(logp.exp() * logp).sum(-1)
        return nll.mean() - 0.1 * entropy.mean()

    inputs = mt.randn(4, 13), mt.tensor([13, 7, 9, 5]), mt.tensor([1, 2, 3, 4])
    graph = trace(scores, *inputs)
    tree = fold(graph)
    assert "mask" in {tree.boxes[key].label for key in view(tree, graph, "arch").visible}
    scene = view(tree, graph, "op")
    frames = [key for key in scene.visible if key in scene.open]
    labels = [tree.boxes[key].label for key in frames]
    assert len(labels) == len(set(labels))
    for key in frames[1:]:
        inside = [box for box in tree.boxes.values() if box.parent == key and box.kind != "source"]
        assert len(inside) > 1
        assert tree.boxes[key].label != ", ".join(box.label for box in inside)
    ops = {node.id for node in graph.nodes.values()}
    assert ops == {tree.boxes[key].node for key in scene.visible} - {None}, "none of them lost"
    parents = picture(scene, graph).parents
    assert set(parents.values()) <= {None, *frames}
    bare = next(key for key in scene.open if key not in scene.visible)
    assert bare in view(tree, graph, "op", expand=bare).visible, "unless it is asked for"


def test_one_of_several_equal_ones_can_be_drawn_by_itself() -> None:
    mt.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.TransformerEncoder(layer, 6)
    graph = trace(model, mt.randn(2, 5, 8), backward=True)
    for name, counts in {
        "layers.3": [3, 1, 2],
        "layers.3.linear1": [3, 1, 2],
        "layers.1": [1, 1, 4],
        "layers.5": [5, 1],
        "layers.0": [6],
    }.items():
        tree = fold(graph, asked=[name])
        layers = [box for box in tree.boxes.values() if box.label == "TransformerEncoderLayer"]
        assert [box.count for box in layers] == counts
        scene = view(tree, graph, "arch", expand=name, backward=True)
        opened = [box.id for box in layers if box.id in scene.open]
        assert name[:8] in opened
        assert all(box.count == 1 or name == "layers.0" for box in layers if box.id in opened)
        drawn = write.render(graph, "svg", View("arch", expand=name))
        assert (b"TransformerEncoderLayer x3" in drawn) is (counts[0] == 3)
    loop, inputs, _ = recurrent_loop.example()
    graph = trace(loop, **inputs, backward=True)
    tree = fold(graph, asked=["rnn.h2h#4"])
    turns = [box.count for box in tree.boxes.values() if box.carried]
    assert turns == [3, 3]
    assert edges.Counter(graph, tree, view(tree, graph, "full")).count().sound


def test_a_loop_in_a_loop_is_a_box_in_a_box() -> None:
    inward, onward = nn.Linear(4, 4), nn.Linear(4, 4)

    def run(x: mt.Tensor) -> mt.Tensor:
        h = mt.zeros(2, 4)
        for i in range(3):
            for j in range(5):
                h = (inward(x[:, i, j]) + onward(h)).tanh()
            h = h.exp()
        return h

    graph = trace(run, mt.randn(2, 3, 5, 4), backward=True)
    tree = fold(graph)
    outer, inner = (box for box in tree.boxes.values() if box.count > 1)
    assert (outer.count, inner.count, inner.parent) == (3, 5, outer.id)
    page = Page(graph, tree)
    said = [[label.name for label in page.loop(box)] for box in (outer, inner)]
    assert said == [["h, 3 times", "h.grad, 2 times"], ["h, 5 times", "h.grad, 4 times"]]
    assert page.arguments(tree.boxes["getitem"])[1] == ["t = 0-2", "u = 0-4"]
    assert count(graph).sound
    assert len(tree.nodes(tree.boxes["tanh"])) == 15
