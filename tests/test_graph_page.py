"""The page model: pictures and the HTML page say the same words and numbers, made once."""

from __future__ import annotations

import json
import math
import re
import subprocess
import xml.etree.ElementTree as ET
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from conftest import program

import minitensor as mt
from minitensor import nn
from minitensor.core import OPS
from minitensor.graph import Graph, svg, trace
from minitensor.graph.details import Details
from minitensor.graph.find import find_in
from minitensor.graph.fold import fold
from minitensor.graph.html import BASES, HERE, page_model
from minitensor.graph.kinds import KINDS, OTHER, family, fused
from minitensor.graph.numbers import number
from minitensor.graph.overlays import BARS, OVERLAYS, Amounts, Overlay, Work, register, works
from minitensor.graph.page import Page
from minitensor.graph.palette import LOOKS, RAMP
from minitensor.graph.picture import Picture, picture
from minitensor.graph.sources import Sources
from minitensor.graph.view import LEVELS, Options, View
from models.transformer import Transformer, TransformerConfig
from tools.graph import main

pytestmark = pytest.mark.pages

SVG = "{http://www.w3.org/2000/svg}"


def transformer() -> Graph:
    mt.manual_seed(0)
    config = TransformerConfig(
        11, 13, d_model=16, nhead=2, dim_feedforward=34, num_encoder_layers=3, num_decoder_layers=2
    )
    tokens = mt.randint(3, 11, (2, 7)), mt.randint(3, 13, (2, 5))
    return trace(Transformer(config), *tokens, backward=True, decompose=True, stats=True)


def attention() -> Graph:
    layer = nn.MultiheadAttention(4, 2, batch_first=True)

    def attend(x: mt.Tensor, memory: mt.Tensor) -> mt.Tensor:
        return layer(x, memory, memory, need_weights=False)[0]

    x, memory = mt.randn(2, 3, 4), mt.randn(2, 5, 4)
    return trace(attend, x, memory, decompose=True, backward=True, stats=True)


def repeated() -> Graph:
    def chain(x: mt.Tensor) -> mt.Tensor:
        for _ in range(30):
            x = (x * 2).tanh()
        return x

    return trace(chain, mt.rand(3, requires_grad=True), backward=True, stats=True)


def encoder() -> Graph:
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    stack = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
    return trace(stack, mt.randn(2, 3, 4), backward=True, stats=True)


GRAPHS = {f.__name__: f for f in (transformer, attention, repeated, encoder)}


@pytest.fixture(scope="module")
def graphs() -> dict[str, Graph]:
    return {name: make() for name, make in GRAPHS.items()}


def records(table: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows as dicts; a field that is left out is empty in all of them."""
    return [defaultdict(list, zip(table["fields"], row, strict=True)) for row in table["rows"]]


def said_by_page(model: dict[str, Any], view: View, backward: bool) -> set[str]:
    """Every text that the page paints in the picture, as its JSON has them."""
    boxes, at = records(model["boxes"]), BASES.index(view.level)
    opened = {0, *model["levels"][view.level]["open"]}
    heats: dict[int, list[Any]] = {}
    if view.overlay:
        passes = model["overlays"][view.overlay]["passes"]
        heats = passes[min(int(backward), len(passes) - 1)]["heats"]
    found: set[str] = set()
    waiting = list(boxes[0]["children"])
    for edge in boxes[0]["edges"]:
        found |= said_by_edge(edge, opened, backward)
    while waiting:
        key = waiting.pop()
        box = boxes[key]
        found.add(box["title"])
        if key in opened:
            found.update([box["place"]] if box["place"] else [])
            waiting += box["children"] or []
            for edge in box["edges"]:
                found |= said_by_edge(edge, opened, backward)
        else:
            rows = box["lines"] if view.level != "arch" else box["brief"] or box["lines"]
            found.update(rows or [])
            if key in heats:
                text, steps, *bars = heats[key]
                assert 0 <= int(steps[at]) < len(RAMP)
                found.update([text, *(bar for each in bars for bar, _ in each)])
        if backward and box["backward"] and (key not in opened or box["kind"] == "op"):
            title, rows, _ = box["backward"]
            found.update([title, *rows, *(text for text, _ in box["saved"] or [])])
    return found - {""}


def said_by_edge(edge: list[Any], opened: set[int], backward: bool) -> set[str]:
    _, lower, _, _, *sides = edge
    found: set[str] = set()
    for side in sides[: 1 + backward]:
        if side and lower:  # at the border below, the page writes nothing
            _, name, shape, remark, port = [*side, "", ""][:5]
            written = name if lower in opened else port or name
            found |= {shape, remark, *written.split(" \N{RIGHTWARDS ARROW} ")}
    return {text.removeprefix("\N{RIGHTWARDS ARROW} ") for text in found}


def said_by_svg(svg: bytes, shown: Picture) -> set[str]:
    """Every text in the picture but those of loops and its head, from the title to the ramp."""
    texts = ["".join(text.itertext()) for text in ET.fromstring(svg).iter(f"{SVG}text")]
    head = [shown.title, *shown.facts, *shown.notes, *(says for _, says in shown.legend)]
    for label in (label for labels in shown.loops.values() for label in labels):
        head += [label.name, label.shape, label.remark]  # the arrow back of a loop
    if shown.scale is not None:
        low, high = shown.scale.ends
        head += [high, f"{shown.scale.title}: {low}"]
    left = Counter(re.sub(r"\s+", " ", text).strip() for text in texts)
    left -= Counter(re.sub(r"\s+", " ", text).strip() for text in head)
    found = {text for text in left if re.search(r"[\w(]", text)} - {"xN"}  # no arrowheads
    return {text.removeprefix("reads ") for text in found}


@pytest.mark.parametrize("overlay", [None, "flops", "bytes", "time", "gradnorm", "nan"])
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", GRAPHS)
def test_picture_and_page_say_the_same(
    name: str,
    level: str,
    overlay: str | None,
    graphs: dict[str, Graph],
) -> None:
    graph = graphs[name]
    tree, view = fold(graph), View(level, overlay=overlay)
    scene = view.scene(tree, graph)
    if overlay == "flops" and name == "repeated":  # there is no product in it
        assert "passes" not in page_model(graph, tree, view)["overlays"]["flops"]
        with pytest.raises(ValueError, match="the graph knows no matrix products"):
            svg.draw(scene, graph, overlay)
        return
    shown = picture(scene, graph, overlay)
    mine = said_by_svg(svg.draw(scene, graph, overlay), shown)
    page = said_by_page(page_model(graph, tree, view), view, scene.backward)
    bare = {shown.page.card(key).forward.title for key in scene.open - {*scene.visible}}
    assert mine | bare == page | bare  # the page has a frame there, by which to close it
    assert mine <= page


def test_type_checkers_know_the_options_of_a_view() -> None:
    options = {field.name: field.type for field in fields(View) if field.name != "level"}
    assert {name: hint.__forward_arg__ for name, hint in Options.__annotations__.items()} == options


# Overlays


def test_the_sum_of_equal_layers_is_written_out(graphs: dict[str, Graph]) -> None:
    graph = graphs["transformer"]
    page = Page(graph, fold(graph))
    flops = page.amounts("flops", False)
    layer = page.tree.boxes["encoder.layers.0"]
    one, three = number(layer.flops, "FLOP"), number(3 * layer.flops, "FLOP")
    assert flops.text(layer.id) == f"{three} = 3 x {one}"
    both = page.amounts("flops", True)
    whole = number(3 * (layer.flops + layer.backward_flops), "FLOP")
    assert both.text(layer.id).startswith(f"{whole} = 3 x ")
    inner = f"{layer.id}.linear1"
    assert flops.total(inner) == 3 * page.tree.boxes[inner].flops


@pytest.mark.parametrize("backward", [False, True])
def test_a_box_has_what_the_boxes_in_it_have(graphs: dict[str, Graph], backward: bool) -> None:
    for graph in graphs.values():
        page = Page(graph, fold(graph))
        for key in ("flops", "bytes", "time"):
            amounts = page.amounts(key, backward)
            for box in page.tree.boxes.values():
                inside = [amounts.total(child) for child in box.children if child in amounts.of]
                if inside and box.kind != "op":
                    assert amounts.total(box.id) == pytest.approx(sum(inside))


def test_every_instance_of_a_repeated_block_has_its_own_amount(graphs: dict[str, Graph]) -> None:
    graph = graphs["repeated"]
    tree = fold(graph)
    times = Amounts(tree, OVERLAYS["time"], works(graph, tree, False))
    ops = [node for node in graph.nodes.values() if node.direction == "forward"]
    box = next(box for box in tree.boxes.values() if box.count == 30)
    assert len(ops) == 60
    pairs = [(a.seconds or 0) + (b.seconds or 0) for a, b in zip(ops[::2], ops[1::2], strict=True)]
    assert times.of[box.id] == pytest.approx(pairs)
    assert len(times.bars(box.id)) == BARS, "at most so many bars fit"


def test_the_ramp_of_a_level_spans_what_the_level_shows(graphs: dict[str, Graph]) -> None:
    graph = graphs["transformer"]
    page = Page(graph, fold(graph))
    for level in LEVELS:
        scene = View(level).scene(page.tree, graph)
        amounts, scale = page.amounts("flops", False), page.scale("flops", False, level)
        closed = [key for key in scene.visible if key not in scene.open and key in amounts.of]
        assert scale.high == max(map(amounts.total, closed))
        steps = {scale.step(amounts.total(key)) for key in closed}
        assert max(steps) == len(RAMP) - 1
    assert page.scale("flops", False, "none").step(float("nan")) == len(RAMP) - 1


@pytest.fixture
def new_overlay() -> Iterator[str]:
    @register
    class Elements(Overlay):
        """The number of elements that ops make."""

        key, title = "elements", "elements of activations"

        def amount(self, work: Work) -> float | None:
            return sum(math.prod(value.shape) for value in work.made) or None

    yield Elements.key
    del OVERLAYS[Elements.key]


def test_a_new_overlay_is_one_class(
    new_overlay: str, graphs: dict[str, Graph], tmp_path: Path
) -> None:
    graph = graphs["transformer"]
    graph.save(tmp_path / "t.svg", "arch", overlay=new_overlay)
    assert "elements of activations" in (tmp_path / "t.svg").read_text()
    model = page_model(graph, fold(graph), View(overlay=new_overlay))
    assert model["overlays"][new_overlay]["title"] == "elements of activations"
    assert "passes" in model["overlays"][new_overlay]
    register(type(OVERLAYS[new_overlay]))  # as in a notebook whose cell runs twice

    class Other(Overlay):
        key = new_overlay

    with pytest.raises(ValueError, match="key of its own"):
        register(Other)


MODULE = """
import minitensor as mt
from minitensor.graph.overlays import Overlay, register

@register
class Inputs(Overlay):
    key, title = "inputs", "tensors read"

    def amount(self, work):
        return len(work.forward.inputs) if work.forward else None

def program():
    return (mt.ones(2, 3) + mt.ones(2, 3)).exp()
"""


def test_the_command_line_knows_the_overlays_of_the_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "counting.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    out = tmp_path / "x.svg"
    assert main(["counting:program", "--overlay", "heat", "-o", str(out)]) == 2
    assert "'heat' is none of flops, bytes, time, gradnorm, nan, inputs" in capsys.readouterr().err
    assert not out.exists()
    assert main(["counting:program", "--overlay", "inputs", "-o", str(out)]) == 0
    assert "tensors read" in out.read_text()
    del OVERLAYS["inputs"]


# Kinds


def test_every_family_of_ops_has_a_kind() -> None:
    families = {op.__module__ for op in OPS.values() if op.__module__.startswith("minitensor.")}
    unknown = sorted(f for f in families if f.rpartition(".")[2] not in KINDS)
    assert not unknown, "add these families to minitensor/graph/kinds.py"
    assert set(map(family, OPS.values())) - {OTHER} <= set(LOOKS)
    assert family(OPS["DropoutAddLayerNorm"]) == "norm"
    assert family(OPS["Norm"]) == "reduction", "a vector's norm normalizes nothing"


def test_only_several_ops_in_one_kernel_are_fused() -> None:
    def marked(function: Callable[..., Any], *inputs: mt.Tensor) -> set[str]:
        graph = trace(function, *inputs)
        boxes = fold(graph).boxes.values()
        return {graph.nodes[b.node].op for b in boxes if b.node and fused(b, graph)}

    x = mt.rand(2, 3)
    assert not marked(lambda x: x.softmax(-1).log_softmax(-1), x)
    assert not marked(lambda x: nn.functional.gelu(nn.functional.layer_norm(x, (3,))), x)
    assert not marked(nn.functional.linear, x, mt.rand(4, 3))
    activated = marked(
        lambda x, w: nn.functional.linear_activation(x, w, mt.zeros(4)), x, mt.rand(4, 3)
    )
    assert activated == {"linear_activation"}
    assert marked(lambda x: nn.functional.packed_attention(x, 1), mt.rand(2, 3, 6)) == {
        "packed_attention"
    }


# The page's own logic, in node


def run_js(graph: Graph, script: str, view: View | None = None) -> Any:
    """The result of a script that uses what model.js and members.js in explorer/ define."""
    model = page_model(graph, fold(graph), view or View())
    code = "".join((HERE / f"{n}.js").read_text("utf-8") for n in ("model", "members", "find"))
    result = f"console.log(JSON.stringify((() => {{{script}}})()));"
    known = f"const raw = {json.dumps(model)};\nconst rawDetails = () => raw.details;"
    code = f"{known}\n{code}\n{result}"
    done = subprocess.run(
        [str(program("node")), "-"], input=code, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


OPEN = "state.open = new Set(openOf(state.base)); state.backward = raw.levels[state.base].backward;"
SAID = f"""
{OPEN}
const found = new Set();
for (const box of [root, ...visible()]) {{
  const back = backwardOf(box);
  if (box !== root) found.add(box.title);
  if (isOpen(box)) {{
    if (box !== root) found.add(box.place || "");
    for (const edge of box.edges) {{
      if (edge.to === OUT) continue;
      for (const side of state.backward ? SIDES : ["forward"])
        for (const line of edgeLines(edge, side) ?? [])
          line.text.split(/(?:^| )\u2192 /).forEach((text) => found.add(text));
    }}
  }} else {{
    linesOf(box).forEach((text) => found.add(text));
    const heat = heatOf(box);
    if (heat) [heat.text, ...heat.bars.map((bar) => bar.text)].forEach((text) => found.add(text));
  }}
  if (back && box !== root && (!isOpen(box) || box.kind === "op"))
    [back[0], ...back[1], ...box.saved.map(([text]) => text)].forEach((text) => found.add(text));
}}
found.delete("");
return [...found];
"""


@pytest.mark.pages("node")
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", GRAPHS)
def test_the_script_chooses_the_same_texts(name: str, level: str, graphs: dict[str, Graph]) -> None:
    graph, view = graphs[name], View(level, overlay="time")
    tree = fold(graph)
    said = run_js(graph, f"state.overlay = 'time'; {SAID}", view)
    backward = view.scene(tree, graph).backward
    assert set(said) == said_by_page(page_model(graph, tree, view), view, backward)


@pytest.mark.pages("node")
def test_the_script_opens_what_a_level_opens(graphs: dict[str, Graph]) -> None:
    graph = graphs["transformer"]
    tree = fold(graph)
    for level in LEVELS:
        scene = View(level).scene(tree, graph)
        shown = run_js(graph, f"{OPEN} return visible().map((box) => box.id);", View(level))
        bare = scene.open - {*scene.visible}  # the page has frames there, by which to close them
        assert [key for key in shown if key not in bare] == scene.visible[1:]
    every = run_js(graph, f"state.base = 'all'; {OPEN.split(';')[0]}; return visible().length;")
    assert every == len(tree.boxes) - 1
    none = run_js(graph, "state.base = 'none'; return visible().map((box) => box.id);")
    assert none == tree.boxes[""].children
    hidden = "return visibleAround(boxById.get('encoder.layers.0.linear1')).id;"
    assert run_js(graph, hidden) == "encoder"


@pytest.mark.pages("node")
@pytest.mark.parametrize("name", GRAPHS)
def test_panels_are_read_when_they_are_asked_for_and_whole(
    name: str, graphs: dict[str, Graph]
) -> None:
    graph = graphs[name]
    model = run_js(
        graph,
        """
        const before = details;
        const panels = [boxes, tensors].map((things) => things.map(panelOf));
        const ids = [boxes, tensors].map((things) => things.map((thing) => thing.id));
        return { before, panels, ids };
        """,
    )
    assert model["before"] is None, "the picture needs none of them"
    known = Details(Page(graph, fold(graph)))
    boxes, tensors = ({key: at for at, key in enumerate(ids)} for ids in model["ids"])
    for key, panel in zip(boxes, model["panels"][0], strict=True):
        assert panel == numbered(known.box(known.tree.boxes[key]), boxes, tensors)
    for key, panel in zip(tensors, model["panels"][1], strict=True):
        assert panel == numbered(known.tensor(graph.values[key]), boxes, tensors)


def numbered(
    sections: list[Any], boxes: dict[str, int], tensors: dict[str, int]
) -> list[list[Any]]:
    """Sections of a panel with the page's numbers in place of ids."""
    found = []
    for title, kind, rows in sections:
        if kind == "tensors":
            rows = [[name, tensors[key]] for name, key in rows if key in tensors]
        elif kind == "boxes":
            rows = [boxes[key] for key in rows]
        found += [[title, kind, rows]] if rows else []
    return found


@pytest.mark.pages("node")
@pytest.mark.parametrize(
    "query", ["softmax", "op:layer_norm", "path:decoder shape:16", "LINEAR path:encoder", "memory"]
)
def test_the_page_finds_what_the_graph_finds(query: str, graphs: dict[str, Graph]) -> None:
    graph = graphs["transformer"]
    tree = fold(graph)
    hits = run_js(graph, f"return find({json.dumps(query)}).map((hit) => hit.target.id);")
    assert hits
    boxes = {box.node: key for key, box in tree.boxes.items() if box.node}
    named = [boxes.get(thing.id, thing.id) for thing in find_in(graph, query)]
    found = set(named)
    assert {hit for hit in hits if hit in boxes.values() or hit not in tree.boxes} <= found
    drawn = {tree.boxes[key].node for key in boxes.values()}
    assert {boxes[n.id] for n in find_in(graph, query) if n.id in drawn} <= set(hits)
    assert run_js(graph, "return [find('op:'), find(' ')];") == [[], []]


@pytest.mark.pages("node")
def test_the_script_follows_a_tensor_to_what_it_comes_from(graphs: dict[str, Graph]) -> None:
    script = """
    const found = follow(boxById.get("encoder.layers.0.linear2"), WAY);
    return [...found.boxes].map((box) => box.id);
    """
    graph = graphs["transformer"]
    up = run_js(graph, script.replace("WAY", "'up'"))
    down = run_js(graph, script.replace("WAY", "'down'"))
    assert "input:src" in up
    assert "input:tgt" not in up
    assert any(key.startswith("output:") for key in down)
    assert "input:src" not in down


@pytest.mark.parametrize("query", ["re:soft.*max", "op:re:^soft", "/soft.*max/"])
def test_a_regular_expression_finds_what_its_text_does(
    query: str, graphs: dict[str, Graph]
) -> None:
    graph = graphs["transformer"]
    found = {thing.id for thing in find_in(graph, query)}
    softmax = {node.id for node in graph.nodes.values() if node.op == "softmax"}
    assert softmax
    assert softmax <= found


def test_a_source_line_is_shown_without_the_way_to_it() -> None:
    sources = Sources()
    assert sources.shown("models/gpt.py:3") == "models/gpt.py:3"
    assert sources.shown(str(Path.cwd() / "models" / "gpt.py") + ":3") == "models/gpt.py:3"
    one, other = (f"/home/{who}/lab/net.py:7" for who in ("me", "you"))
    assert sources.shown(one) == sources.shown(one) == "lab/net.py:7"
    assert sources.shown(other) == other, "one name is of one line"


@pytest.mark.pages("node")
def test_what_the_backward_pass_alone_has_is_drawn_with_it_alone() -> None:
    def slopes(x: mt.Tensor) -> mt.Tensor:
        h = x.tanh()
        (slope,) = mt.autograd.grad((h * h).sum(), x, create_graph=True)
        return slope.square().sum() + h.sum()

    def picked(x: mt.Tensor, at: mt.Tensor) -> mt.Tensor:
        return -x.gather(1, at[:, None]).squeeze(1)

    x = mt.randn(3, 4, requires_grad=True)
    opened = "state.open = new Set(openOf('full'));"
    shown = "return visible().map((box) => box.id);"
    graph = trace(picked, x, mt.tensor([0, 1, 2]), backward=True)
    late = {box.id for box in fold(graph).boxes.values() if box.kind == "source"}
    assert len(late) == 1, "the zeros that the gradient of gather is written into"
    with_it = run_js(graph, f"{opened} state.backward = true; {shown}", View("full"))
    alone = run_js(graph, f"{opened} state.backward = false; {shown}", View("full"))
    assert set(with_it) - set(alone) == late
    graph = trace(slopes, x, backward=True)
    alone = run_js(graph, f"{opened} state.backward = false; {shown}", View("full"))
    assert alone == View("full", backward=False).scene(fold(graph), graph).visible[1:]
