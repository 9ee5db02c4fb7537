"""Pictures of a graph: what every one must show, and that nothing in them overlaps or is cut."""

from __future__ import annotations

import builtins
import re
import struct
import xml.etree.ElementTree as ET
from collections.abc import Callable
from itertools import combinations
from typing import Any

import graphviz
import pytest
from work import growth

import minitensor as mt
from minitensor import nn
from minitensor.graph import cards, dot, layout, printing, svg, trace, write
from minitensor.graph import picture as pictures
from minitensor.graph.fold import fold
from minitensor.graph.model import Graph, Group, Node, Value
from minitensor.graph.numbers import number, seconds
from minitensor.graph.palette import DARK, RAMP
from minitensor.graph.scene import Box, Edge, Scene, Tree
from minitensor.graph.view import View, view
from models.transformer import Transformer, TransformerConfig

pytestmark = pytest.mark.pages

SVG = "{http://www.w3.org/2000/svg}"
DIMS = {"N": 2, "M": 7, "M_target": 5, "E": 16, "nhead": 4, "F": 34, "vocab_size": 13}


@pytest.fixture(scope="module")
def graph() -> Graph:
    mt.manual_seed(0)
    config = TransformerConfig(
        11, 13, d_model=16, nhead=4, dim_feedforward=34, num_encoder_layers=2, num_decoder_layers=2
    )
    src, tgt = mt.randint(3, 11, (2, 7)), mt.randint(3, 13, (2, 5))
    graph = trace(Transformer(config), src, tgt, backward=True, stats=True)
    names = {size: name for name, size in DIMS.items()}
    for value in graph.values.values():  # no matter here how axes get their names
        value.dims = tuple(names.get(size, str(size)) for size in value.shape)
    return graph


def picture(graph: Graph, level: str = "full", **options: Any) -> Scene:
    return view(fold(graph), graph, level, **options)


def texts(drawn: bytes) -> list[str]:
    return ["".join(text.itertext()) for text in ET.fromstring(drawn).iter(f"{SVG}text")]


Draw = Callable[..., bytes]


def drawings() -> list[Any]:
    by_dot = pytest.param(by_graphviz, marks=pytest.mark.pages("dot"), id="dot")
    return [by_dot, pytest.param(svg.draw, id="svg")]


def by_graphviz(scene: Scene, graph: Graph, overlay: str | None = None) -> bytes:
    drawn: bytes = graphviz.Source(dot.source(scene, graph, overlay)).pipe(format="svg", quiet=True)
    return drawn


@pytest.mark.parametrize("level", ["arch", "block", "op", "full"])
@pytest.mark.parametrize("draw", drawings())
def test_every_edge_shows_its_whole_shape(draw: Draw, level: str, graph: Graph) -> None:
    scene = picture(graph, level)
    shown = texts(draw(scene, graph))
    assert any(edge.direction == "backward" for edge in scene.edges) == (level == "full")
    for edge in scene.edges:
        shape = graph.values[edge.value].label
        wanted = sum(graph.values[e.value].label == shape for e in scene.edges)
        assert sum(text.strip() == shape for text in shown) >= wanted, shape


@pytest.mark.parametrize("draw", drawings())
def test_saved_tensors_are_shown_with_their_bytes(draw: Draw, graph: Graph) -> None:
    scene = picture(graph)
    shown = " ".join(texts(draw(scene, graph)))
    saved = [text for card in pictures.picture(scene, graph).faces.values() for text in card.saved]
    assert saved
    for text in saved:
        assert re.search(r"\d k?B$", text)
        assert text in shown


@pytest.mark.parametrize("draw", drawings())
def test_two_drawings_have_the_same_bytes(draw: Draw, graph: Graph) -> None:
    first = draw(picture(graph), graph)
    again = Graph.from_json(graph.to_json())
    assert draw(picture(again), again) == first
    assert dot.source(picture(again), again) == dot.source(picture(graph), graph)


def test_the_source_sets_no_size(graph: Graph) -> None:
    assert not re.search(r"[\s\[]size=", dot.source(picture(graph), graph))


def test_everything_has_an_id_a_class_and_a_tooltip(graph: Graph) -> None:
    scene = picture(graph)
    root = ET.fromstring(svg.draw(scene, graph))
    groups = {group.get("id"): group for group in root.iter(f"{SVG}g")}
    for key in scene.visible:
        if key == scene.tree.root:
            continue
        group = groups[f"box:{key}"]
        assert group.get("class")
        assert group.findtext(f"{SVG}title")
    tooltips = "\n".join(group.findtext(f"{SVG}title") or "" for group in groups.values())
    assert "models/transformer.py:" in tooltips
    for edge in scene.edges:
        assert edge.value in tooltips


def test_dark_mode_has_a_partner_for_every_colour(graph: Graph) -> None:
    drawn = svg.draw(picture(graph), graph).decode()
    assert "prefers-color-scheme:dark" in drawn
    body = drawn.split("</style>")[1]
    used = set(re.findall(r'(?:fill|stroke)="([^"]+)"', body)) - {"none", "transparent"}
    assert used <= set(DARK)


def synthetic(count: int = 1, **box: Any) -> tuple[Scene, Graph]:
    """`count` ops in a row between an input and an output."""
    graph = Graph("a < b & c", groups={"": Group("", "", "M", None)})
    tree = Tree("", {"": Box("", "module", "M", None)}, [])
    edges, before = [], "input:x"
    graph.values[before] = Value(before, "input", (2,), "float32", 8, ("<N>",), ["x & y"])
    tree.boxes[before] = Box(before, "input", "x", "")
    for at in range(count):
        node = Node(f"op{at}", "relu", "", [], [f"op{at}:0"], attributes={"how": "a<b>&c"})
        graph.nodes[node.id] = node
        value = Value(f"{node.id}:0", "activation", (2,), "float32", 8, ("<N>",), ['"q" < 1'])
        graph.values[value.id] = value
        tree.boxes[node.id] = Box(node.id, "op", "relu", "", node=node.id, **box)
        edges.append(Edge(before, node.id, "input:x" if at == 0 else f"op{at - 1}:0"))
        before = node.id
    children = [key for key in tree.boxes if key]
    tree.boxes[""].children = children
    return Scene(tree, "op", {""}, ["", *children], edges), graph


@pytest.mark.parametrize("draw", drawings())
def test_texts_are_escaped(draw: Draw) -> None:
    shown = texts(draw(*synthetic(2)))
    for text in ("a < b & c", "how=a<b>&c", "x & y", "(<N>)", '"q" < 1'):
        assert text in [one.strip() for one in shown]


def rectangles(graph: Graph, scene: Scene) -> tuple[layout.Plan, Scene]:
    shown = pictures.picture(scene, graph)
    return svg.layout(shown, cards.faces(shown)), scene


@pytest.mark.parametrize("level", ["arch", "block", "op", "full"])
def test_nothing_overlaps_in_the_own_layout(level: str, graph: Graph) -> None:
    plan, scene = rectangles(graph, picture(graph, level))
    around = {key: scene.tree.boxes[key].parent for key in scene.visible}
    for one, other in combinations(plan.rects, 2):
        (x, y, w, h), (u, v, a, b) = plan.rects[one], plan.rects[other]
        apart = x + w <= u or u + a <= x or y + h <= v or v + b <= y
        within = u <= x and v <= y and x + w <= u + a and y + h <= v + b
        around_it = x <= u and y <= v and u + a <= x + w and v + b <= y + h
        assert apart or (within and other in scene.open) or (around_it and one in scene.open)
    for key, box in around.items():
        if box in plan.rects:
            (x, y, w, h), (u, v, a, b) = plan.rects[key], plan.rects[box]
            assert u <= x <= x + w <= u + a
            assert v <= y <= y + h <= v + b


@pytest.mark.parametrize("level", ["arch", "full"])
def test_the_own_layout_crosses_no_closed_box(level: str, graph: Graph) -> None:
    plan, scene = rectangles(graph, picture(graph, level))
    closed = [plan.rects[key] for key in plan.rects if key not in scene.open]
    for route in plan.routes.values():
        for x, top, bottom in route:
            for u, v, a, b in closed:
                assert not (u < x < u + a and max(top, v) + 0.01 < min(bottom, v + b) - 0.01)


def test_no_text_is_cut_in_the_own_layout(graph: Graph) -> None:
    root = ET.fromstring(svg.draw(picture(graph), graph))
    wide, high = map(float, root.get("viewBox", "").split()[2:])

    def check(element: ET.Element, x: float, y: float) -> None:
        move = re.match(r"translate\((.*),(.*)\)", element.get("transform", ""))
        x, y = (x + float(move[1]), y + float(move[2])) if move else (x, y)
        if element.tag == f"{SVG}text":
            size = cards.width("".join(element.itertext()), float(element.get("font-size", 10)))
            left = (
                x
                + float(element.get("x", 0))
                - (size / 2 if element.get("text-anchor") == "middle" else 0)
            )
            assert 0 <= left <= left + size <= wide, element.text
            assert 0 < y + float(element.get("y", 0)) < high
        for child in element:
            check(child, x, y)

    check(root, 0.0, 0.0)


def test_the_own_layout_does_not_recurse() -> None:
    assert b"</svg>" in svg.draw(*synthetic(3000))


def test_the_work_of_the_own_layout_is_linear() -> None:
    """Twice as many boxes are twice the work, not four times as much."""
    assert growth(lambda pair: svg.draw(*pair), synthetic(300), synthetic(600)) < 2.6


def test_rings_are_laid_out_too() -> None:
    scene, graph = synthetic(3)
    scene.edges.append(Edge("op2", "op0", "op2:0"))
    assert b"</svg>" in svg.draw(scene, graph)


class Without:
    """Neither `dot`, nor the packages named, are there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
        real = builtins.__import__

        def find(name: str, *args: Any, **kwargs: Any) -> Any:
            if name in packages:
                raise ImportError(name)
            return real(name, *args, **kwargs)

        monkeypatch.setenv("PATH", "")
        monkeypatch.setattr(builtins, "__import__", find)


def test_svg_takes_no_program_and_prints_take_graphviz(
    monkeypatch: pytest.MonkeyPatch, graph: Graph
) -> None:
    Without(monkeypatch, "pygraphviz")
    assert b"</svg>" in write.render(graph, "svg", View("arch"))
    for format in ("png", "pdf"):
        with pytest.raises(RuntimeError, match="apt install graphviz"):
            write.render(graph, format, View("arch"))


def test_without_dot_pygraphviz_prints(monkeypatch: pytest.MonkeyPatch, graph: Graph) -> None:
    pytest.importorskip("pygraphviz")
    Without(monkeypatch)
    prints(graph)


@pytest.mark.pages("dot")
def test_png_and_pdf(graph: Graph) -> None:
    prints(graph)


def prints(graph: Graph) -> None:
    """Both prints have the size of the SVG, and a PDF has its texts."""
    drawn = svg.draw(picture(graph, "arch"), graph)
    wide, high = map(float, ET.fromstring(drawn).get("viewBox", "").split()[2:])
    png = printing.printed(drawn, "png")
    assert png.startswith(b"\x89PNG")
    assert struct.unpack(">II", png[16:24]) == pytest.approx((wide * 4 / 3, high * 4 / 3), abs=3)
    pdf = printing.printed(drawn, "pdf")
    assert pdf.startswith(b"%PDF")
    box = re.search(rb"/MediaBox \[ 0 0 (\S+) (\S+) \]", pdf)
    assert box is not None
    assert [float(side) for side in box.groups()] == pytest.approx([wide, high], abs=3)


def test_unknown_formats_and_overlays_are_refused(graph: Graph) -> None:
    with pytest.raises(ValueError, match=r"format must be one of svg, png, pdf, .* not 'gif'"):
        write.render(graph, "gif", View("arch"))
    with pytest.raises(ValueError, match="flops, bytes, time, gradnorm, nan, not 'heat'"):
        dot.source(picture(graph, "arch"), graph, "heat")


@pytest.mark.parametrize("overlay", ["flops", "bytes", "time", "gradnorm", "nan"])
@pytest.mark.parametrize("draw", drawings())
def test_overlays_tell_a_number_for_every_member(draw: Draw, overlay: str, graph: Graph) -> None:
    scene = picture(graph, "arch")
    shown = texts(draw(scene, graph, overlay))
    faces = pictures.picture(scene, graph, overlay).faces
    folded = [card for card in faces.values() if card.card.count > 1]
    assert folded
    for card in folded:
        assert card.heat is not None
        assert len(card.heat.instances) == card.card.count
        for text, step in card.heat.instances:
            assert 0 <= step < len(RAMP)
            assert text in [one.strip() for one in shown]


def test_what_was_not_measured_cannot_be_shown() -> None:
    with pytest.raises(ValueError, match=r"knows no time: record it with trace\(..., stats=True\)"):
        dot.source(*synthetic(2), "time")


def test_the_one_exploding_layer_stays_visible(graph: Graph) -> None:
    graph = Graph.from_json(graph.to_json())
    for value in graph.values.values():
        value.grad_norm = 1.0 if value.grad_norm is not None else None
    worst = next(
        value
        for value in graph.values.values()
        if value.id.startswith("encoder.layers.1") and value.grad_norm is not None
    )
    worst.grad_norm = float("inf")
    card = pictures.picture(picture(graph, "arch"), graph, "gradnorm").faces["encoder.layers.0"]
    assert card.heat is not None
    assert [text for text, _ in card.heat.instances] == ["1", "inf"]
    assert card.heat.instances[1][1] == len(RAMP) - 1 == card.heat.step


def test_folds_and_ports_are_named(graph: Graph) -> None:
    scene = picture(graph, "arch")
    faces = pictures.picture(scene, graph).faces
    assert faces["encoder.layers.0"].forward.title == "EncoderLayer x2"
    assert faces["encoder.layers.0"].forward.place == "layers.0-1, own weights"
    decoder = pictures.picture(picture(graph, "op"), graph).faces
    assert any(card.ports == ["input", "other"] for card in decoder.values())
    assert any(edge.label.remark == "to all 2" for edge in pictures.picture(scene, graph).edges)


def test_a_closed_module_shows_both_passes_and_what_is_saved_between(graph: Graph) -> None:
    scene = picture(graph, "full", collapse=["encoder", "decoder"])
    encoder = pictures.picture(scene, graph).faces["encoder"]
    assert encoder.backward is not None
    assert encoder.backward.title == "Encoder backward"
    assert encoder.saved == [f"{number(scene.tree.boxes['encoder'].saved_bytes, 'B')} saved"]
    forward = pictures.picture(picture(graph, "op"), graph).faces.values()
    assert all(card.backward is None and not card.saved for card in forward)


@pytest.mark.parametrize("draw", drawings())
def test_an_open_fused_op_keeps_its_backward(draw: Draw) -> None:
    """With create_graph it is not opened: it runs ops of its own."""
    attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def attend(x: mt.Tensor) -> mt.Tensor:
        out = attention(x, x, x, need_weights=False)[0].sum()
        return mt.autograd.grad(out, x, create_graph=True)[0]

    graph = trace(attend, mt.ones(1, 3, 4).requires_grad_(), decompose=True)
    scene = picture(graph, expand="*attention*")
    faces = pictures.picture(scene, graph).faces
    rules = [card for card in faces.values() if card.kind == "backward"]
    assert rules
    shown = texts(draw(scene, graph))
    for card in rules:
        assert card.forward.title in shown
    ends = {
        end for edge in pictures.picture(scene, graph).edges for end in (edge.source, edge.target)
    }
    junctions = {junction.id for junction in pictures.picture(scene, graph).junctions}
    assert ends <= set(faces) | junctions


def test_a_linear_layer_shows_its_parameters() -> None:
    graph = trace(nn.Linear(3, 5), mt.ones(2, 3))
    shown = texts(svg.draw(picture(graph, "op"), graph))
    assert "weight (5, 3)" in shown
    assert "bias (5)" in shown


def test_numbers_have_three_digits() -> None:
    assert [number(n, "B") for n in (0, 56, 999, 1000, 1234, 999_999, 3_152_384)] == [
        "0 B", "56 B", "999 B", "1 kB", "1.23 kB", "1 MB", "3.15 MB"
    ]  # fmt: skip
    assert number(44_140_544) == "44.1 M"
    assert [seconds(s) for s in (2.5, 0.00123, 4.2e-6)] == ["2.5 s", "1.23 ms", "4.2 µs"]


def test_a_shared_weight_goes_by_its_whole_path() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding(11, 4)
            self.head = nn.Linear(4, 11, bias=False)
            self.head.weight = self.tokens.weight

        def forward(self, x: mt.Tensor) -> mt.Tensor:
            return self.head(self.tokens(x))

    source = write.render(trace(Tied(), mt.zeros(2, dtype=mt.int64)), "dot", View()).decode()
    assert ">weight (11, 4)<" in source
    assert ">tokens.weight (11, 4)<" in source


def test_titles_have_the_room_that_the_widest_usual_font_takes() -> None:
    measured = {  # of 100 points in bold DejaVu Sans, by a browser
        "expected = (probs * arange(13)).sum(-1)": 2306,
        "MultiheadAttention": 1099,
        "entropy = -(logp.exp() * logp).sum(-1)": 2151,
    }
    for text, wide in measured.items():
        assert wide <= cards.width(text, 100, bold=True) <= 1.1 * wide


def test_a_line_too_long_for_a_box_is_cut_and_whole_in_its_tooltip() -> None:
    name = "an_argument_" * 8
    scene, graph = synthetic(path=name)
    shown = pictures.picture(scene, graph)
    face = shown.faces["op0"]
    drawn = texts(svg.draw(scene, graph))
    assert name[:59] + "\N{HORIZONTAL ELLIPSIS}" in drawn
    assert name not in drawn
    assert any(name in line for line in face.card.tooltip)
