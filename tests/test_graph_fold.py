"""Folding and views: what is equal becomes one box, what is not does not, no tensor gets lost."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from work import growth

import minitensor as mt
import minitensor.nn.functional as F
from minitensor import nn
from minitensor.graph import trace
from minitensor.graph.fold import WIDEST, fold
from minitensor.graph.model import Graph, Group, Node, Value
from minitensor.graph.scene import PAGE, Box, Edge, Link, Scene, Tree
from minitensor.graph.view import LEVELS, LIMIT, view
from models.transformer import Transformer, TransformerConfig

pytestmark = pytest.mark.pages


class Builder:
    """Writes a graph by hand: `op` adds a node and returns its first output."""

    def __init__(self, *inputs: str) -> None:
        self.graph = Graph("program", groups={"": Group("", "", "Program", None)})
        for name in inputs:
            self.value(f"input:{name}", "input", names=[name])
            self.graph.inputs.append(f"input:{name}")

    def value(self, key: str, kind: str, dims: tuple[str, ...] = ("N", "E"), **more: Any) -> str:
        shape = tuple({"N": 2, "E": 3, "2*E": 6}[dim] for dim in dims)
        size = 4 * shape[0] * shape[1]
        self.graph.values[key] = Value(key, kind, shape, "float32", size, dims, **more)
        return key

    def group(self, path: str, kind: str, parent: str = "") -> str:
        self.graph.groups[path] = Group(path, path, kind, parent)
        return path

    def weight(self, group: str) -> str:
        key = self.value(f"parameter:{group}.weight", "parameter")
        self.graph.groups[group].parameters.append(key)
        return key

    def op(
        self,
        op: str,
        *inputs: str,
        group: str = "",
        ports: int = 1,
        dims: tuple[str, ...] = ("N", "E"),
        **more: Any,
    ) -> str:
        same = sum(node.op == op and node.group == group for node in self.graph.nodes.values())
        key = f"{group}/{op}.{same}"
        outputs = [
            self.value(f"{key}:{port}", "activation", dims, producer=key, port=port)
            for port in range(ports)
        ]
        self.graph.nodes[key] = Node(key, op, group, list(inputs), outputs, **more)
        return outputs[0]

    def layer(self, path: str, x: str, parent: str = "", **more: Any) -> str:
        """norm(x + linear(x)), each in a module of its own."""
        self.group(path, "Layer", parent)
        linear, norm = (self.group(f"{path}.{n}", n.title(), path) for n in ("linear", "norm"))
        y = self.op("linear", x, self.weight(linear), group=linear, **more)
        y = self.op("add", y, x, group=path)
        return self.op("norm", y, self.weight(norm), group=norm)

    def done(self, *outputs: str) -> Graph:
        self.graph.outputs = list(outputs)
        return self.graph


def labelled(tree: Tree, label: str) -> list[Box]:
    return [box for box in tree.boxes.values() if box.label == label]


def links(tree: Tree, direction: str = "forward") -> set[tuple[str, str, str]]:
    return {(x.source, x.target, x.value) for x in tree.links if x.direction == direction}


def closed(scene: Scene) -> list[str]:
    return [box for box in scene.visible if box not in scene.open]


def check(graph: Graph, tree: Tree) -> None:
    """Assert what holds for any graph, at every level."""
    for box in tree.boxes.values():
        assert len(box.children) <= WIDEST
        assert all(tree.boxes[child].parent == box.id for child in box.children)
        assert (box.parent is None) == (box.id == tree.root)
        assert box.count == 1 or (len(box.members) == box.count and box.members[0] == box.id)
    for link in tree.links:
        assert link.source in tree.boxes
        assert link.target in tree.boxes
        value = graph.values[link.value]
        assert len(value.dims) == len(value.shape)
    for level in LEVELS:
        scene = view(tree, graph, level, backward=True)
        assert len(scene.visible) == len(set(scene.visible)) <= LIMIT
        for key in scene.open - set(scene.visible):  # ops put together, without a frame
            assert key.startswith("ops:")
            assert set(tree.ancestors(key)) <= scene.open
        for edge in scene.edges:
            assert {edge.source, edge.target} <= set(scene.visible)
            value = graph.values[edge.value]
            assert len(value.dims) == len(value.shape)


# Folding, by hand


def stack(count: int, odd: int | None = None, **change: Any) -> Graph:
    build = Builder("x")
    y = "input:x"
    for i in range(count):
        y = build.layer(f"layers.{i}", y, **(change if i == odd else {}))
    return build.done(y)


def test_equal_layers_are_one_box() -> None:
    graph = stack(6)
    tree = fold(graph)
    check(graph, tree)
    (layer,) = labelled(tree, "Layer")
    assert (layer.count, layer.path, layer.shared) == (6, "layers.0-5", False)
    assert layer.members == [f"layers.{i}" for i in range(6)]
    assert layer.parameter_count == 12
    assert tree.boxes[""].parameter_count == 72
    linear, add, norm = "layers.0.linear", "layers.0/add.0", "layers.0.norm"
    assert links(tree) == {
        ("input:x", linear, "input:x"),
        ("input:x", add, "input:x"),
        (linear, add, "layers.0.linear/linear.0:0"),
        (add, norm, "layers.0/add.0:0"),
        (norm, "output:layers.5.norm/norm.0:0", "layers.5.norm/norm.0:0"),
    }


@pytest.mark.parametrize("change", [{"attributes": {"p": 0.1}}, {"dims": ("N", "2*E")}])
def test_a_layer_that_differs_stays_alone(change: dict[str, Any]) -> None:
    tree = fold(stack(6, odd=2, **change))
    found = [(box.count, box.path) for box in labelled(tree, "Layer")]
    assert found == [(2, "layers.0-1"), (1, "layers.2"), (3, "layers.3-5")]


def test_a_layer_wired_otherwise_stays_alone() -> None:
    build = Builder("x")
    y = "input:x"
    for i in range(4):
        path = build.group(f"layers.{i}", "Layer")
        a = build.op("a", y, group=path)
        b = build.op("b", a, group=path)
        y = build.op("sub", *((a, b) if i != 1 else (b, a)), group=path)
    found = [(box.count, box.path) for box in labelled(fold(build.done(y)), "Layer")]
    assert found == [(1, "layers.0"), (1, "layers.1"), (2, "layers.2-3")]


def test_a_layer_that_others_read_ends_the_row() -> None:
    build = Builder("x")
    outputs = ["input:x"]
    for i in range(6):
        outputs.append(build.layer(f"layers.{i}", outputs[-1]))
    graph = build.done(build.op("add", outputs[-1], outputs[3]))
    tree = fold(graph)
    assert [box.count for box in labelled(tree, "Layer")] == [3, 3]
    check(graph, tree)


def test_what_reads_every_layer_reads_the_fold() -> None:
    build = Builder("x")
    outputs = ["input:x"]
    for i in range(6):
        outputs.append(build.layer(f"layers.{i}", outputs[-1]))
    last = build.op("head", outputs[-1])
    graph = build.done(last, build.op("stack", *outputs[1:], input_names=["xs"] * 6))
    tree = fold(graph)
    assert [box.count for box in labelled(tree, "Layer")] == [6]
    given = {link.target: link.fan for link in tree.links if link.source == "layers.0.norm"}
    assert given == {"/head.0": 1, "/stack.0": 6}


def test_one_layer_called_often_is_shared() -> None:
    build = Builder("x")
    weight = build.value("parameter:w", "parameter")
    y = "input:x"
    for i in range(3):
        group = build.group(f"layer#{i}", "Linear")
        build.graph.groups[group].parameters.append(weight)
        y = build.op("linear", y, weight, group=group)
    (box,) = labelled(fold(build.done(y)), "Linear")
    assert (box.count, box.shared, box.parameters) == (3, True, [weight])


def test_what_all_read_is_one_link() -> None:
    build = Builder("x", "memory")
    y = "input:x"
    for i in range(4):
        group = build.group(f"layers.{i}", "Layer")
        y = build.op("add", build.op("mul", y, "input:memory", group=group), y, group=group)
    tree = fold(build.done(y))
    fans = {link.source: link.fan for link in tree.links}
    assert fans["input:memory"] == 4
    assert fans["input:x"] == 1


def heads(reverse: bool = False) -> Graph:
    """Return what `split` gives, each through two rows of ops, joined again."""
    build = Builder("x")
    first = build.op("split", "input:x", ports=8)
    parts = [first.replace(":0", f":{port}") for port in range(8)]
    scores = [build.op("exp", build.op("neg", part)) for part in parts]
    total = build.op("norm", "input:x")
    ends = [build.op("mul", score, total, input_names=["a", "b"]) for score in scores]
    ends = ends[::-1] if reverse else ends
    return build.done(build.op("cat", *ends, input_names=["xs"] * 8))


def test_parallel_heads_fold() -> None:
    graph = heads()
    tree = fold(graph)
    check(graph, tree)
    (run,) = (box for box in tree.boxes.values() if box.kind == "run")
    assert (run.label, run.count, run.children) == ("neg, exp", 8, ["/neg.0", "/exp.0"])
    assert [box.count for box in labelled(tree, "mul")] == [8]
    fans = {(link.source, link.target): link.fan for link in tree.links}
    assert fans["/split.0", "/neg.0"] == 8  # one for each
    assert fans["/exp.0", "/mul.0"] == 1  # the i-th to the i-th
    assert fans["/norm.0", "/mul.0"] == 8
    assert fans["/mul.0", "/cat.0"] == 8


def test_heads_joined_out_of_order_do_not_fold() -> None:
    assert all(box.count == 1 for box in fold(heads(reverse=True)).boxes.values())


def test_q_k_and_v_stay_apart() -> None:
    build = Builder("x")
    q, k, v = (
        build.op("linear", "input:x", build.weight(build.group(name, "Linear")), group=name)
        for name in "qkv"
    )
    graph = build.done(build.op("attention", q, k, v, input_names=["q", "k", "v"]))
    tree = fold(graph)
    assert [box.path for box in labelled(tree, "Linear")] == ["q", "k", "v"]
    assert [link.port for link in tree.links if link.target == "/attention.0"] == ["q", "k", "v"]


def test_the_longest_period_wins() -> None:
    build = Builder("x")
    y = "input:x"
    for op in "aabaabaab":
        y = build.op(op, y)
    tree = fold(build.done(y))
    (run,) = (box for box in tree.boxes.values() if box.kind == "run")
    assert run.count == 3
    assert [tree.boxes[child].label for child in run.children] in (["a", "a", "b"], ["a", "b"])


def chain(count: int, op: Callable[[int], str]) -> Graph:
    build = Builder("x")
    nodes = build.graph.nodes
    y = "input:x"
    for i in range(count):
        key = f"/{op(i)}.{i}"
        nodes[key] = Node(key, op(i), "", [y], [f"{key}:0"])
        y = build.value(f"{key}:0", "activation", producer=key)
    return build.done(y)


@pytest.mark.parametrize("op", [lambda i: ("mul", "add")[i % 2], lambda i: f"op{i}"])
def test_the_work_of_folding_is_linear(op: Callable[[int], str]) -> None:
    """Twice as many ops are twice the work, not four times as much."""
    assert growth(fold, chain(1000, op), chain(2000, op)) < 2.6


def test_a_long_loop_is_folded() -> None:
    graph = chain(10_000, lambda i: ("mul", "add")[i % 2])
    tree = fold(graph)
    (run,) = (box for box in tree.boxes.values() if box.kind == "run")
    assert (run.label, run.count) == ("mul, add", 5000)
    check(graph, tree)


def test_a_long_chain_of_different_ops_can_be_drawn() -> None:
    graph = chain(10_000, lambda i: f"op{i}")
    tree = fold(graph)
    check(graph, tree)
    rows = [box.label for box in tree.boxes.values() if box.parent == "" and box.kind == "run"]
    assert rows[0].startswith("ops 1-")
    assert rows[-1].endswith("-10000")
    assert "more than 400" in view(tree, graph, "op").coarser


def test_what_nothing_reads_is_drawn_too() -> None:
    build = Builder("x", "mask", "unread")
    build.op("equal", build.op("triu", "input:mask"))
    graph = build.done(build.op("exp", "input:x"))
    tree = fold(graph)
    check(graph, tree)
    assert links(tree) == {
        ("input:mask", "/triu.0", "input:mask"),
        ("/triu.0", "/equal.0", "/triu.0:0"),
        ("input:x", "/exp.0", "input:x"),
        ("/exp.0", "output:/exp.0:0", "/exp.0:0"),
    }
    assert view(tree, graph).notes == ["unread is not drawn: no op reads it."]


def test_a_fused_op_is_linked_closed_and_open() -> None:
    build = Builder("x", "y")
    fused = build.op("attention", "input:x", "input:y", input_names=["q", "k"])
    node = fused.removesuffix(":0")
    scores = build.op("matmul", "input:x", "input:y", input_names=["a", "b"], inside=node)
    build.graph.values[build.op("softmax", scores, inside=node)].of = fused
    graph = build.done(build.op("exp", fused))
    tree = fold(graph)
    check(graph, tree)
    assert tree.boxes[node].height == 0
    assert not tree.boxes[node].opens

    def edges(scene: Scene) -> list[tuple[str, str, str, list[str]]]:
        return [(e.source, e.target, e.value, e.ports) for e in scene.edges]

    assert edges(view(tree, graph, "op"))[:3] == [
        ("input:x", node, "input:x", ["q"]),
        ("input:y", node, "input:y", ["k"]),
        (node, "/exp.0", fused, []),
    ]
    assert edges(view(tree, graph, "op", expand="attention"))[:4] == [
        ("input:x", "/matmul.0", "input:x", ["q"]),
        ("input:y", "/matmul.0", "input:y", ["k"]),
        ("/matmul.0", "/softmax.0", scores, []),
        ("/softmax.0", "/exp.0", fused, []),
    ]


# Views


def test_names_open_and_close_boxes() -> None:
    graph = stack(3)
    tree = fold(graph)
    assert "layers.0" in view(tree, graph, "arch", expand="layers.2.linear").open
    assert "layers.0" in view(tree, graph, "arch", expand=["Lay*"]).open
    assert "layers.0" not in view(tree, graph, "op", collapse="layers.0-2").open
    assert view(tree, graph, "op", expand="*", collapse="*").open == {""}
    with pytest.raises(ValueError, match=r"no box is called 'Layr'; did you mean 'Layer'"):
        view(tree, graph, expand="Layr")
    with pytest.raises(ValueError, match="arch, block, op, full"):
        view(tree, graph, "ops")


def test_a_residual_is_marked() -> None:
    graph = stack(3)
    edges = view(fold(graph), graph, "op").edges
    assert [(e.source, e.target) for e in edges if e.skip] == [("input:x", "layers.0/add.0")]


# Real models


def transformer(layers: int = 2, **config: Any) -> Transformer:
    mt.manual_seed(0)
    return Transformer(TransformerConfig(11, 11, 16, 2, layers, layers, 32, **config))


def traced(model: Transformer, masks: bool = False, **options: Any) -> Graph:
    src, tgt = mt.full((2, 7), 3), mt.full((2, 5), 4)
    if masks:
        options["tgt_mask"] = Transformer.generate_square_subsequent_mask(5)
        for name, tokens in (("src", src), ("tgt", tgt), ("memory", src)):
            options[f"{name}_key_padding_mask"] = tokens == 0
    return trace(model, src, tgt, **options)


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("norm_first", [False, True])
def test_the_transformer_fits_a_page(norm_first: bool, masks: bool) -> None:
    graph = traced(transformer(6, norm_first=norm_first), masks, backward=True)
    tree = fold(graph)
    check(graph, tree)
    scene = view(tree, graph, "arch")
    assert len(closed(scene)) <= PAGE
    folded = {tree.boxes[b].label: tree.boxes[b] for b in closed(scene) if tree.boxes[b].count > 1}
    assert {label: (box.count, box.path) for label, box in folded.items()} == {
        "EncoderLayer": (6, "encoder.layers.0-5"),
        "DecoderLayer": (6, "decoder.layers.0-5"),
    }
    (memory,) = (e for e in scene.edges if "memory" in e.ports)
    assert (memory.source, memory.target) == ("encoder.norm", "decoder.layers.0")
    assert memory.fan == 6
    edges = view(tree, graph, collapse="decoder").edges
    (whole,) = (e for e in edges if "memory" in e.ports and e.target == "decoder")
    assert whole.fan == 1
    (embed, _) = labelled(tree, "embed")
    assert embed.children == ["src_embedding", "mul", "src_positions", "ops:add"]
    back = view(tree, graph, "arch", backward=True).edges
    (gradient,) = (e for e in back if e.direction == "backward" and e.target == "encoder.norm")
    assert (gradient.source, gradient.fan) == ("decoder.layers.0", 6)


def test_the_levels_of_the_transformer() -> None:
    graph = traced(transformer(), backward=True)
    tree = fold(graph)
    scenes = {level: view(tree, graph, level) for level in LEVELS}
    shown = {level: set(closed(scene)) for level, scene in scenes.items()}
    assert "encoder.layers.0" in shown["arch"]
    assert {"encoder.layers.0.self_attn", "encoder.layers.0.norm1"} <= shown["block"]
    assert "encoder.layers.0.self_attn/softmax" in shown["op"]
    assert shown["full"] == shown["op"]
    assert [scene.backward for scene in scenes.values()] == [False, False, False, True]
    for level in ("block", "op", "full"):  # at arch the layer is closed: both go in as one edge
        skips = {(e.source, e.target) for e in scenes[level].edges if e.skip}
        assert ("encoder.layers.0.norm1", "encoder.layers.0/add.1") in skips
    (entry,) = (e for e in scenes["arch"].edges if e.target == "encoder.layers.0")
    assert entry.ports == ["src"]  # as the layer calls it


def test_every_forward_edge_has_its_gradient() -> None:
    graph = traced(transformer(norm_first=True), backward=True)
    tree = fold(graph)
    forward = {
        (s, t)
        for s, t, _ in links(tree)
        if not s.startswith(("input:", "buffer:", "src_pos", "tgt_pos"))  # not differentiable
    }
    assert {(t, s) for s, t, _ in links(tree, "backward")} == forward


def change_dropout(model: Transformer) -> None:
    layer: Any = model.encoder
    layer.layers[2].dropout = nn.Dropout(0.3)


def change_width(model: Transformer) -> None:
    layer: Any = model.encoder
    layer.layers[2].linear1 = nn.Linear(16, 48)
    layer.layers[2].linear2 = nn.Linear(48, 16)


@pytest.mark.parametrize("change", [change_dropout, change_width])
def test_a_changed_encoder_layer_stays_alone(change: Callable[[Transformer], None]) -> None:
    model = transformer(6)
    change(model)
    tree = fold(traced(model))
    found = [(box.count, box.path) for box in labelled(tree, "EncoderLayer")]
    names = ["encoder.layers.0-1", "encoder.layers.2", "encoder.layers.3-5"]
    assert found == list(zip([2, 1, 3], names, strict=True))
    assert [box.count for box in labelled(tree, "DecoderLayer")] == [6]


def test_two_runs_fold_equally() -> None:
    def run() -> list[Any]:
        graph = traced(transformer(), masks=True, backward=True)
        tree = fold(graph)
        edges: list[Edge] = [e for level in LEVELS for e in view(tree, graph, level).edges]
        boxes: list[Box] = list(tree.boxes.values())
        found: list[Link | Box | Edge] = [*tree.links, *boxes, *edges]
        return [dataclasses.asdict(each) for each in found]

    assert run() == run()


def test_a_loop_over_heads_folds() -> None:
    def attend(q: mt.Tensor, k: mt.Tensor, v: mt.Tensor) -> mt.Tensor:
        rows = zip(q.chunk(4, -1), k.chunk(4, -1), v.chunk(4, -1), strict=True)
        return mt.cat([F.softmax(a @ b.transpose(1, 2), -1) @ c for a, b, c in rows], -1)

    graph = trace(attend, *(mt.randn(2, 5, 8) for _ in range(3)))
    tree = fold(graph)
    check(graph, tree)
    (run,) = (box for box in tree.boxes.values() if box.kind == "run")
    assert (run.count, len(run.children)) == (4, 4)


def test_what_enters_the_first_layer_need_not_want_a_gradient() -> None:
    model = nn.Transformer(16, 2, 6, 6, 32, batch_first=True)
    graph = trace(model, mt.randn(2, 7, 16), mt.randn(2, 5, 16), backward=True)
    tree = fold(graph)
    check(graph, tree)
    assert [box.count for box in tree.boxes.values() if box.kind == "module"] == [
        1,
        1,
        6,
        1,
        1,
        6,
        1,
        1,
    ]
    assert not any(
        link.target in graph.inputs for link in tree.links if link.direction != "forward"
    )


def test_a_recurrent_loop_folds() -> None:
    inward, onward = nn.Linear(4, 8), nn.Linear(8, 8)

    def run(x: mt.Tensor) -> mt.Tensor:
        h, states = mt.zeros(2, 8), []
        for step in x.unbind(1):
            h = (inward(step) + onward(h)).tanh()
            states.append(h)
        return mt.stack(states, 1)

    graph = trace(run, mt.randn(2, 12, 4), backward=True)
    tree = fold(graph)
    check(graph, tree)
    (loop,) = (box for box in tree.boxes.values() if box.kind == "run")
    assert loop.label == "h = (inward(step) + onward(h)).tanh()"
    assert (loop.count, loop.shared, loop.carried) == (12, True, ["tanh:0"])


def test_numbers_add_up() -> None:
    graph = traced(transformer(), backward=True)
    tree = fold(graph)
    root, layer = tree.boxes[""], tree.boxes["encoder.layers.0"]
    assert root.parameter_count == sum(p.numel() for p in transformer().parameters())
    nodes = [node for node in graph.nodes.values() if node.inside is None]
    assert root.flops == sum(node.flops for node in nodes if node.direction == "forward")
    assert root.backward_flops == sum(node.flops for node in nodes if node.direction == "backward")
    stack = tree.boxes["encoder"]
    norm = tree.boxes["encoder.norm"]
    assert stack.flops == 2 * layer.flops + norm.flops
    assert stack.activation_bytes == 2 * layer.activation_bytes + norm.activation_bytes
    attention = tree.boxes["encoder.layers.0.self_attn"]
    parts = [tree.boxes[child].saved_bytes for child in attention.children]
    assert max(parts) < attention.saved_bytes < sum(parts)  # what two ops save counts once


def test_a_gradient_that_the_program_goes_on_with_is_linked() -> None:
    def penalty(x: mt.Tensor) -> mt.Tensor:
        (slope,) = mt.autograd.grad(x.tanh().sum(), x, create_graph=True)
        return slope.square().sum()

    graph = trace(penalty, mt.randn(2, 3).requires_grad_(), backward=True)
    tree = fold(graph)
    check(graph, tree)
    assert links(tree, "onward") == {("tanh", "square", "tanh:backward:0")}
    assert ("square", "tanh", "square:backward:0") in links(tree, "backward")
    assert all(box.node for box in tree.boxes.values() if box.kind == "op")
    assert tree.boxes["tanh"].backward == [
        "tanh:backward",
        "tanh:backward/tanh_backward:backward",
        "tanh:backward.1",
    ]
    assert view(tree, graph, "arch").backward  # the program itself runs it


def test_without_folding_every_layer_is_a_box() -> None:
    graph = traced(transformer(), False, backward=True)
    tree = fold(graph, equal=False)
    check(graph, tree)
    assert len(labelled(tree, "EncoderLayer")) == len(labelled(tree, "DecoderLayer")) == 2
    assert all(box.count == 1 for box in tree.boxes.values())
