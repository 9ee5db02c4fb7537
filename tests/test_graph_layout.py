"""The built-in layout: nothing on top of anything else, branches side by side, any name at all."""

from __future__ import annotations

import importlib
import warnings
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import crossings
import graphviz
import pytest
from test_graph_html import chromium
from test_graph_pictures import picture, synthetic, texts

import minitensor as mt
from minitensor import nn
from minitensor.graph import cards, dot, layers, layout, printing, svg, trace
from minitensor.graph import picture as pictures
from minitensor.graph.fold import fold
from minitensor.graph.model import Graph
from minitensor.graph.scene import Edge, Scene
from minitensor.graph.view import LEVELS, view
from models.transformer import Transformer, TransformerConfig

pytestmark = pytest.mark.pages

__all__ = ["chromium"]  # the fixture

FOREIGN = sorted(
    file.stem
    for file in (Path(__file__).parent / "foreign").glob("*.py")
    if not file.stem.startswith("_")
)
PROGRAMS = [f"models.{name}" for name in ("attention", "bert", "gpt", "recurrent", "vit")]
PROGRAMS += [f"foreign.{name}" for name in FOREIGN]


@pytest.fixture(scope="module")
def recorded() -> dict[str, Graph]:
    return {}


def of_program(name: str, recorded: dict[str, Graph]) -> Graph:
    """The graph of a program, with its backward pass if it has one and fused ops decomposed."""
    if name not in recorded:
        function, inputs, _ = importlib.import_module(name).example()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                recorded[name] = trace(function, backward=True, decompose=True, **inputs)
            except ValueError:  # nothing in it requires grad
                recorded[name] = trace(function, **inputs)
    return recorded[name]


@pytest.fixture(scope="module")
def transformer() -> Graph:
    mt.manual_seed(0)
    config = TransformerConfig(
        11, 13, d_model=16, nhead=4, dim_feedforward=34,
        num_encoder_layers=2, num_decoder_layers=2,
    )  # fmt: skip
    src, tgt = mt.randint(3, 11, (2, 7)), mt.randint(3, 13, (2, 5))
    return trace(Transformer(config), src, tgt, backward=True, decompose=True)


def check(graph: Graph, level: str, folded: bool = True, **options: Any) -> crossings.Drawn:
    """Draw a level and look for all that no picture may have."""
    shown = crossings.read(svg.draw(view(fold(graph, folded), graph, level, **options), graph))
    assert shown.through == []
    assert shown.along == []
    assert shown.overlaps == []
    assert shown.outside == []
    return shown


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("level", LEVELS)
def test_no_edge_runs_on_a_frame_or_through_a_box_title_or_text(
    level: str, name: str, recorded: dict[str, Graph]
) -> None:
    check(of_program(name, recorded), level)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("options", [{}, {"decompose": True}, {"folded": False}], ids=str)
def test_neither_does_one_in_a_transformer(
    options: dict[str, Any], level: str, transformer: Graph
) -> None:
    check(transformer, level, **options)


def plan_of(graph: Graph, level: str) -> tuple[layout.Plan, pictures.Picture]:
    shown = pictures.picture(picture(graph, level), graph)
    return svg.settled(shown), shown


@pytest.mark.parametrize("level", LEVELS)
def test_the_encoder_stands_beside_the_decoder(level: str, transformer: Graph) -> None:
    """Their tops are at the same height, the encoder at the left, the memory goes across."""
    plan, shown = plan_of(transformer, level)
    (x, y, w, _), (u, v, _, _) = plan.rects["encoder"], plan.rects["decoder"]
    assert x + w < u
    assert y == v
    memory = [
        edge
        for edge in shown.edges
        if not edge.backward and edge.source.startswith("encoder") and edge.edge.fan > 1
    ]
    assert memory
    for edge in memory:
        left, top, wide, high = plan.rects[f"{edge.id}:text"]
        assert x + w < left < left + wide < u
        assert y < top < top + high < max(r[1] + r[3] for r in plan.rects.values())


@pytest.mark.parametrize("level", ["arch", "block", "op"])
def test_the_forward_pass_of_a_transformer_crosses_nothing_but_its_memory(
    level: str, transformer: Graph
) -> None:
    found = crossings.crossing(check(transformer, level))
    assert len(found) <= 1, found


def test_a_stream_of_boxes_is_straight(transformer: Graph) -> None:
    plan, _ = plan_of(transformer, "block")
    middles = [
        x + w / 2
        for key, (x, _, w, _) in plan.rects.items()
        if key.startswith("encoder.layers.0.") and not key.endswith((":text", ":title"))
    ]
    assert len(middles) >= 4
    assert max(middles) - min(middles) < 30


def test_a_page_of_the_coarsest_level_is_legible_on_paper(transformer: Graph) -> None:
    """On A4, 595 by 842 points, its texts of 10 points are 6 points high or more."""
    shown = crossings.read(svg.draw(picture(transformer, "arch"), transformer))
    assert min(595 / shown.width, 842 / shown.height) * 10 >= 6


def test_forward_goes_down_the_left_and_backward_up_the_right(transformer: Graph) -> None:
    plan, shown = plan_of(transformer, "full")
    for key, face in shown.faces.items():
        if face.backward is None:
            continue
        left, _, wide, _ = plan.rects[key]
        for edge in shown.edges:
            if key in (edge.source, edge.target):
                up = edge.ends.index(key)
                spans = plan.routes[f"{edge.id}:{('upper', 'lower')[up]}"]
                at = spans[0 if up == 0 else -1][0]
                assert (at > left + wide / 2) == edge.backward


def test_an_opened_fused_op_keeps_its_two_columns() -> None:
    """The backward of each op inside it stands at the right of that op."""
    mt.manual_seed(0)
    model = nn.Transformer(16, 4, 2, 2, 34, batch_first=True)
    graph = trace(model, mt.rand(2, 7, 16), mt.rand(2, 5, 16), backward=True, decompose=True)
    shown = pictures.picture(picture(graph, "full", decompose=True), graph)
    assert not shown.rules
    tree = shown.scene.tree.boxes
    inner = [key for key in shown.faces if shown.parents[key] and tree[key].node is not None]
    inner = [key for key in inner if tree[shown.parents[key] or ""].node is not None]
    assert len(inner) > 50
    bare = {key for key in inner if shown.faces[key].backward is None}
    assert not bare
    found = crossings.read(svg.draw(shown.scene, graph))
    assert found.through == found.along == found.overlaps == found.outside == []


def test_the_backward_of_an_opened_op_that_is_not_opened_stands_beside_its_ops() -> None:
    """With create_graph the pass itself is ops: it is one box, half way down."""

    def penalty(q: mt.Tensor) -> mt.Tensor:
        out = mt.nn.functional.scaled_dot_product_attention(q, q, q).sum()
        (slope,) = mt.autograd.grad(out, q, create_graph=True)
        return slope.square().sum()

    graph = trace(penalty, mt.randn(1, 3, 4).requires_grad_(), decompose=True)
    shown = pictures.picture(picture(graph, "full", decompose=True), graph)
    plan = svg.settled(shown)
    assert shown.rules
    for rule, box in shown.rules.items():
        left, top, _, high = plan.rects[rule]
        inside = [
            plan.rects[key] for key in shown.faces if shown.parents[key] == box and key != rule
        ]
        assert all(x + w < left for x, _, w, _ in inside)
        _, y, _, h = plan.rects[box]
        assert abs(top + high / 2 - y - h / 2) < h / 4


# Loops and rings


def test_a_loop_has_an_arrow_back_beside_its_box() -> None:
    scene, graph = synthetic(2)
    box = scene.tree.boxes["op0"]
    box.count, box.carried = 7, ["op0:0"]
    found = crossings.read(svg.draw(scene, graph))
    assert found.through == found.along == found.overlaps == found.outside == []
    way = found.edges["op0:loop"].ways[0]
    left, top, _, bottom = found.boxes["box:op0"]
    assert way[0][0] == way[-1][0] == pytest.approx(left, abs=0.6)  # from box to box
    assert top < way[-1][1] < way[0][1] < bottom  # upwards
    assert '"q" < 1, 7 times' in [text.strip() for text in texts(svg.draw(scene, graph))]
    assert "7 times" in dot.source(scene, graph)


def test_an_edge_that_closes_a_ring_goes_back_up_beside_everything() -> None:
    scene, graph = synthetic(3)
    scene.edges.append(Edge("op2", "op0", "op2:0"))
    found = crossings.read(svg.draw(scene, graph))
    assert found.through == found.along == found.overlaps == found.outside == []
    ring = found.edges[f"edge:{len(scene.edges) - 1}"]
    end = ring.ways[-1][-1]
    left, top, right, _ = found.boxes["box:op0"]
    assert left < end[0] < right
    assert end[1] == pytest.approx(top, abs=0.6)  # it comes in at the top, from above
    assert ring.ways[-1][-2][1] < top


def test_an_edge_without_gradient_is_dotted() -> None:
    scene, graph = synthetic(3)
    graph.nodes["op1"].gradient = False
    graph.values["op1:0"].producer = "op1"
    root = ET.fromstring(svg.draw(scene, graph))
    dotted = {
        group.get("id")
        for group in root.iter(f"{crossings.SVG}g")
        if "nograd" in group.get("class", "").split()
    }
    assert dotted == {"box:op1", "edge:1", "edge:2"}  # to the op, and from it
    for group in root.iter(f"{crossings.SVG}g"):
        if (group.get("id") or "").startswith("edge:"):
            dashed = [p.get("stroke-dasharray") for p in group.iter(f"{crossings.SVG}path")]
            assert any(dashed) == (group.get("id") in dotted)
    assert dot.source(scene, graph).count("style=dotted") == 4


def test_adding_a_tensor_to_itself_takes_two_wires() -> None:
    graph = trace(lambda c: c + c, mt.ones(3))
    shown = pictures.picture(picture(graph, "op"), graph)
    wires = [edge for edge in shown.edges if edge.target == "add"]
    assert [edge.edge.ports for edge in wires] == [["a"], ["b"]]
    check(graph, "op")


# Layers


def test_boxes_that_nothing_joins_stand_in_rows() -> None:
    sizes = {f"box{at}": (40.0, 20.0) for at in range(100)}
    found = layers.arrange(sizes, [], layers.Roles())
    assert found.width < 700
    assert found.height < 500
    assert len(set(found.at.values())) == 100


def test_the_layout_of_four_hundred_boxes_takes_little_work() -> None:
    """Each link is looked at a limited number of times."""
    sizes = {f"box{at}": (40.0, 20.0) for at in range(400)}
    names = list(sizes)
    arcs = [
        layers.Arc(f"{at}-{step}", names[at], names[at + step], 20, 20)
        for at in range(400)
        for step in (1, 2, 7)
        if at + step < 400
    ]
    part = layers._Layers(sizes, arcs, layers.Roles())
    assert part.height > 0
    assert len(part.layers) == 400


# Names


NAMES = [
    "<a> <b>", "", "\\", "<lambda> <map>", '"', "'", "a\nb\tc", "\x00\x07\x1b\x7f",
    "\U0001f600 \U00010348",
    "x" * 300, "\u05d0\u05d1\u05d2 \u0627\u0644\u0639", 'a\\"b', "\\N \\G", "]]>", "&amp;",
    "\ud800", "e\u0301\u200b", "--", "\u202eabc",
]  # fmt: skip


def named(name: str) -> tuple[Scene, Graph]:
    """A picture in which everything has the same name."""
    scene, graph = synthetic(2)
    graph.name, graph.notes = name, [name]
    for box in scene.tree.boxes.values():
        box.label = box.path = name
    for value in graph.values.values():
        value.names, value.dims = [name], (name,)
    for node in graph.nodes.values():
        node.attributes, node.code, node.input_names = {name: name}, name, [name]
    return scene, graph


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_any_name_is_drawn_whole(name: str) -> None:
    scene, graph = named(name)
    painted = svg.draw(scene, graph)
    shown = texts(painted)
    for text in (name, f"({name})"):
        if text.strip():
            wanted = cards.clean(text).strip()
            assert any(wanted in one for one in shown), shown
    found = crossings.read(painted)
    assert found.through == found.overlaps == found.outside == []


@pytest.mark.pages("dot")
@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_graphviz_takes_any_name(name: str) -> None:
    scene, graph = named(name)
    for format, start in (("png", b"\x89PNG"), ("pdf", b"%PDF")):
        assert printing.printed(svg.draw(scene, graph), format).startswith(start)
    source = graphviz.Source(dot.source(scene, graph))
    assert ET.fromstring(source.pipe(format="svg", quiet=True)) is not None


OUTSIDE = """() => {  // the texts wider than the smallest frame around their middle
  const found = [], get = (root, what) => [...root.querySelectorAll(what)];
  const check = (text, frames) => {
    const a = text.getBBox(), [x, y] = [a.x + a.width / 2, a.y + a.height / 2];
    const around = frames.map((frame) => frame.getBBox())
      .filter((b) => b.x < x && x < b.x + b.width && b.y < y && y < b.y + b.height)
      .sort((one, other) => one.width - other.width);
    if (around.length && (a.x < around[0].x || a.x + a.width > around[0].x + around[0].width))
      found.push(text.textContent);
  };
  for (const box of get(document, "g.box"))
    for (const text of get(box, "text")) check(text, get(box, "rect"));
  for (const title of get(document, "g.title")) {
    const box = document.getElementById("box:" + title.id.replace(/:title$/, ""));
    for (const text of get(title, "text")) check(text, get(box, "rect"));
  }
  return found;
}"""


@pytest.mark.parametrize("name", ["scalars", "siamese", "recurrent_loop", "vit"])
def test_texts_stay_in_their_frames_in_whatever_font_is_there(
    name: str, chromium: Any, tmp_path: Path
) -> None:
    function, inputs, _ = importlib.import_module(f"foreign.{name}").example()
    graph = trace(function, *inputs.values(), backward=True)
    page = chromium.new_page()
    for level in ("arch", "op", "full"):
        file = tmp_path / f"{level}.svg"
        graph.save(file, level)
        page.goto(file.as_uri())
        assert page.evaluate(OUTSIDE) == [], level
    page.close()


@pytest.mark.parametrize("turns", [1, 2, 6])
def test_an_arc_that_goes_up_stands_right_beside_what_it_passes(turns: int) -> None:
    sizes = {"calls": (1000.0, 200.0), "stack": (300.0, 50.0)}
    arcs = []
    for at in range(turns):
        left, right = 100.0 + 150 * at, 20.0 + 40 * at
        sizes |= {f"out {at}": (40.0, 20.0), f"h {at}": (40.0, 20.0)}
        arcs += [
            layers.Arc(f"1.{at}", "calls", f"out {at}", left, 20.0, weight=4.0),
            layers.Arc(f"2.{at}", f"out {at}", "stack", 20.0, right, weight=4.0),
            layers.Arc(f"3.{at}", "stack", f"h {at}", right, 20.0, weight=4.0),
            layers.Arc(f"4.{at}", f"h {at}", "calls", 20.0, left, weight=4.0),
        ]
    found = layers.arrange(sizes, arcs, layers.Roles())
    assert found.width == 1000.0 + turns * (layers.LANE + 2.0)
