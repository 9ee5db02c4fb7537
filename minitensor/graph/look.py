"""What a picture says, whoever draws it: the texts of boxes and edges, and where they join."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from .kinds import fused, kind, same_name
from .model import Graph, Node, Value
from .overlay import Heat, heats, marked, number, seconds
from .palette import BACK, HEAT, HEAT_INK, INK, LOOKS, SHADES, SKIP
from .scene import Box, Edge, Scene

WIDTH = 38  # characters after which attributes go on in the next line


@dataclass
class Half:
    """The forward or the backward half of a box: a title, and lines under it."""

    title: str
    path: str = ""
    lines: list[str] = field(default_factory=list)


@dataclass
class Card:
    """A closed box, ready to be drawn."""

    id: str  # of the box
    kind: str  # a key of LOOKS
    forward: Half
    fused: bool = False
    count: int = 1
    ports: list[str] = field(default_factory=list)  # inputs with a place of their own, in order
    backward: Half | None = None
    saved: list[str] = field(default_factory=list)  # what goes from forward to backward
    heat: Heat | None = None
    tooltip: list[str] = field(default_factory=list)

    @property
    def classes(self) -> str:
        """For the stylesheet: "box norm fused"."""
        marks = [("fused", self.fused), ("folded", self.count > 1), ("backward", self.backward)]
        return " ".join(["box", self.kind, *(mark for mark, on in marks if on)])

    @property
    def colours(self) -> tuple[str, str]:
        """Of the forward half: its fill, and the ink of its texts."""
        if self.heat is None:
            return LOOKS[self.kind].fill, INK
        return HEAT[self.heat.step], HEAT_INK[self.heat.step]


@dataclass
class Wire:
    """An edge, ready to be drawn."""

    id: str
    edge: Edge
    source: str  # what it is drawn between: boxes, or joints
    target: str
    name: str  # what the code calls the tensor, or ""
    shape: str
    remark: str = ""  # "to all 6"
    port: int | None = None  # which of the target's ports it ends in
    tooltip: list[str] = field(default_factory=list)

    @property
    def backward(self) -> bool:
        """Whether it carries a gradient, up the right side."""
        return self.edge.direction == "backward"

    @property
    def ends(self) -> tuple[str, str]:
        """What it is drawn between, the upper one first."""
        return (self.target, self.source) if self.backward else (self.source, self.target)

    @property
    def colour(self) -> str:
        """Of the line and of the shape written on it."""
        return BACK if self.backward else SKIP if self.edge.skip else INK

    @property
    def classes(self) -> str:
        """For the stylesheet: "edge forward skip"."""
        edge = self.edge
        marks = [("skip", edge.skip), ("fan", edge.fan > 1)]
        return " ".join(["edge", edge.direction, *(mark for mark, on in marks if on)])


@dataclass
class Joint:
    """Where a tensor goes into an open box in which several read it, or their gradients meet."""

    id: str
    parent: str
    backward: bool


@dataclass
class Page:
    """A scene, ready to be drawn: closed boxes, edges, and what stands around them."""

    title: str
    facts: str
    cards: dict[str, Card]
    wires: list[Wire]
    joints: list[Joint]
    rules: dict[str, str]  # cards of the backward of an open box: in which box each is
    legend: list[tuple[str, str]]  # what a mark is, as a key of LOOKS or a word; what it means
    notes: list[str] = field(default_factory=list)  # for the reader
    ramp: tuple[str, str, str] | None = None  # of the overlay: what it shows, least, most

    @property
    def legend_rows(self) -> list[list[tuple[str, str]]]:
        """The legend in lines of five."""
        return [self.legend[at : at + 5] for at in range(0, len(self.legend), 5)]


def page(scene: Scene, graph: Graph, overlay: str | None = None) -> Page:
    """Everything a picture of `scene` says. ValueError for an overlay unknown or not measured."""
    boxes = scene.tree.boxes
    closed = [boxes[key] for key in scene.visible if key not in scene.open]
    wires = [_wire(number, edge, scene, graph) for number, edge in enumerate(scene.edges)]
    arriving: dict[str, list[Wire]] = defaultdict(list)
    for wire in wires:
        if not wire.backward:
            arriving[wire.edge.target].append(wire)
    both = _differentiated(scene)
    cards = {box.id: _card(box, scene, graph, arriving[box.id], box.id in both) for box in closed}
    rules: dict[str, str] = {}
    for wire in wires:  # an open fused op has a backward of its own, which is not open
        for end in ("source", "target"):
            key = getattr(wire, end)
            if key in scene.open:
                card = _rule(boxes[key], scene, graph)
                cards[card.id], rules[card.id] = card, key
                setattr(wire, end, card.id)
    ramp = None
    if overlay is not None:
        told, ramp = heats(closed, scene, graph, overlay)
        for key, heat in told.items():
            cards[key].heat = heat
    for key, heat in marked(closed, scene, graph).items() if scene.marks else ():
        cards[key].heat = heat
    facts = _facts(boxes[scene.tree.root], scene, graph)
    legend = _legend(cards, wires, scene)
    notes = [line for note in (*graph.notes, *scene.notes) for line in textwrap.wrap(note, 110)]
    shown = Page(graph.name, facts, cards, wires, [], rules, legend, notes, ramp)
    shown.wires, shown.joints = _join(shown, scene, graph)
    return shown


def _facts(root: Box, scene: Scene, graph: Graph) -> str:
    """The line under the title: the sizes that have names, and what the whole costs."""
    sizes = ", ".join(f"{name}={size}" for name, size in graph.dims.items())
    costs = [
        (root.parameter_count, "", "parameters"),
        (root.flops, "FLOP", "forward"),
        (root.backward_flops if scene.backward else 0, "FLOP", "backward"),
        (root.activation_bytes, "B", "activations"),
        (root.saved_bytes, "B", "saved"),
    ]
    facts = [f"{number(amount, unit)} {what}" for amount, unit, what in costs if amount]
    return "  \N{MIDDLE DOT}  ".join([sizes, *facts] if sizes else facts)


def parents(shown: Page, scene: Scene) -> dict[str, str | None]:
    """The box around each thing in a picture."""
    found = {key: scene.tree.boxes[key].parent for key in scene.visible}
    return found | shown.rules | {joint.id: joint.parent for joint in shown.joints}


def common(around: dict[str, str | None], one: str, other: str) -> str | None:
    """The innermost box around both; `around` tells the box around each."""
    boxes, key = set(), around[one]
    while key is not None:
        boxes.add(key)
        key = around[key]
    key = around[other]
    while key not in boxes and key is not None:
        key = around[key]
    return key


def _join(shown: Page, scene: Scene, graph: Graph) -> tuple[list[Wire], list[Joint]]:
    """Let what several boxes inside an open box read go into it once, and their gradients out."""
    wires = shown.wires
    around: dict[str, list[str]] = {}  # the open boxes that something is in, the outermost first
    for key, parent in parents(shown, scene).items():
        around[key] = [] if parent is None else [*around[parent], parent]
    alike: dict[tuple[str, str, bool], list[Wire]] = defaultdict(list)
    for wire in wires:
        value = graph.values[wire.edge.value]
        outer = wire.target if wire.backward else wire.source
        alike[outer, (wire.backward and value.of) or value.id, wire.backward].append(wire)
    drawn, joints = list(wires), []
    for (outer, _, backward), group in alike.items():
        inside: dict[str, list[Wire]] = defaultdict(list)
        for wire in group:
            for key in around[wire.source if backward else wire.target]:
                if key not in around[outer]:
                    inside[key].append(wire)
        tops: dict[str, str] = {}  # of a wire: the joint it hangs on
        for key, members in inside.items():  # an outer box comes before those in it
            depth = len(around[key]) + 1
            paths = [around[w.source if backward else w.target] for w in members]
            into = {path[depth] if len(path) > depth else "" for path in paths}
            if len(members) < 2 or (len(into) == 1 and "" not in into):  # all go on together
                continue
            first = members[0]
            joint = Joint(f"joint:{key}:{first.id}", key, backward)
            joints.append(joint)
            top = tops.get(first.id, outer)
            ends = (joint.id, top) if backward else (top, joint.id)
            edge = replace(first.edge, skip=False, ports=[])
            drawn.append(
                replace(
                    first,
                    id=f"{joint.id}:way",
                    edge=edge,
                    source=ends[0],
                    target=ends[1],
                    port=None,
                )
            )
            for wire in members:
                tops[wire.id] = joint.id
                if backward:
                    wire.target = joint.id
                else:
                    wire.source = joint.id
                if not wire.edge.skip:
                    wire.name = ""
    return drawn, joints


def width(text: str, size: float, bold: bool = False) -> float:
    """About how wide a text is in Helvetica, in points, rather too wide than too narrow."""
    narrow, wide = sum(map(text.count, "ijltfI.,:;|!'()[] -")), sum(map(text.count, "mwMW%@"))
    capital = sum(c.isupper() for c in text) - sum(map(text.count, "IMW"))
    plain = len(text) - narrow - wide - capital
    em = 0.33 * narrow + 0.9 * wide + 0.7 * capital + 0.57 * plain
    return size * em * (1.06 if bold else 1)


def heading(box: Box) -> str:
    """The title of a box: "EncoderLayer x6"."""
    return f"{box.label} x{box.count}" if box.count > 1 else box.label


def place(box: Box, scene: Scene, graph: Graph) -> str:
    """Where a box is, as far as the boxes around it do not say: "layers.0-5, own weights"."""
    path = box.path
    if box.parent is not None:
        around = scene.tree.boxes[box.parent]
        for known in (
            around.path,
            graph.groups[around.id].path if around.id in graph.groups else "",
        ):
            path = "" if path == known else path.removeprefix(f"{known}." if known else "")
    path = "" if path == box.label else path
    return ", ".join(part for part in (path, box.weights) if part)


def _wrap(parts: Iterable[str]) -> list[str]:
    return textwrap.wrap(", ".join(parts), WIDTH, break_long_words=False, break_on_hyphens=False)


def _differentiated(scene: Scene) -> set[str]:
    """The boxes that have a backward pass, or in which there is one, if it is to be drawn."""
    found: set[str] = set()
    for box in scene.tree.boxes.values() if scene.backward else ():
        if box.backward:
            found.update([box.id], scene.tree.around(box.id))
    return found


def _card(box: Box, scene: Scene, graph: Graph, arriving: list[Wire], differentiated: bool) -> Card:
    """The card of a closed box; gives the wires that arrive their ports."""
    node = graph.nodes[box.node] if box.node else None
    half = Half(heading(box), place(box, scene, graph))
    overview = scene.level == "arch"  # has room for what things are, not for how they are set
    if not overview:
        half.lines += _settings(box, node, graph)
    if box.parameter_count and (overview or box.kind == "module" or box.count > 1):
        each = " each" if box.count > 1 else ""
        half.lines.append(f"{number(box.parameter_count)} parameters{each}")
    if box.kind in ("input", "output"):
        value = graph.values[box.value]
        half.lines.append(f"{value.label} {value.dtype}")
    card = Card(box.id, kind(box, graph), half, fused(box, graph), box.count)
    card.tooltip = _box_tooltip(box, node, graph)
    if card.kind not in ("elementwise", "output") and len(arriving) > 1:
        names = node.input_names if node else []
        places = {key: number for number, key in enumerate(scene.visible)}
        arriving.sort(  # a module has no order of its own: as they come, they cross less
            key=lambda wire: (
                min((names.index(p) for p in wire.edge.ports if p in names), default=0),
                places[wire.edge.source] if node is None else 0,
            )
        )
        for port, wire in enumerate(arriving):
            wire.port = port
            card.ports.append(", ".join(wire.edge.ports) or wire.name)
    if differentiated:
        card.backward = _backward_half(box, graph)
        if scene.saved:
            card.saved = _saved(box, node, graph)
    return card


def _settings(box: Box, node: Node | None, graph: Graph) -> list[str]:
    """The op of a module, what it is set to, and the weights of a box."""
    lines = []
    if node is not None:
        if not same_name(node.op, box.label):
            lines.append(node.op)
        lines += _wrap(
            f"{name}={format(value, '.4g') if isinstance(value, float) else value}"
            for name, value in node.attributes.items()
        )
    elif box.kind == "module" and box.id in graph.groups and graph.groups[box.id].settings:
        lines += _wrap([graph.groups[box.id].settings])
    weights = ((key.rpartition(":")[2], graph.values[key].label) for key in box.parameters)
    inside = f"{box.path}."  # a weight of another module, shared with it, goes by its whole path
    return lines + [f"{path.removeprefix(inside)} {label}" for path, label in weights]


def _backward_half(box: Box, graph: Graph) -> Half:
    half = Half(f"{box.label} backward")
    if box.kind == "op":
        for key in box.backward:
            for out in graph.nodes[key].outputs:
                of = graph.values.get(graph.values[out].of or "")
                if of is not None and of.kind == "parameter":
                    half.lines.append(f"{_name(of, graph)}.grad {of.label}")
    elif box.parameter_count:
        half.lines.append(f"{number(box.parameter_count)} gradients of parameters")
    if box.backward_flops:
        half.lines.append(number(box.backward_flops, "FLOP"))
    return half


def _rule(box: Box, scene: Scene, graph: Graph) -> Card:
    """The backward of an open box as a card inside it."""
    half = _backward_half(box, graph)
    if scene.saved and box.node is not None:
        half.lines += [f"reads {text}" for text in _saved(box, graph.nodes[box.node], graph)]
    return Card(f"{box.id}:backward", "backward", half, tooltip=[half.title, box.path])


def _saved(box: Box, node: Node | None, graph: Graph) -> list[str]:
    if node is not None:
        values = [graph.values[key] for key in node.saved]
        return [f"{_named(value, graph)} {number(value.nbytes, 'B')}" for value in values]
    return [f"{number(box.saved_bytes, 'B')} saved"] if box.saved_bytes else []


def _named(value: Value, graph: Graph) -> str:
    return f"{_name(value, graph)} {value.label}".strip()


def _name(value: Value, graph: Graph) -> str:
    """What the code calls a tensor; a weight goes by the last part of its path."""
    if value.kind == "parameter":
        return value.id.rpartition(":")[2].rpartition(".")[2]
    of = graph.values.get(value.of or "")
    return value.name or (f"{of.name}.grad" if of is not None and of.name else "")


def _wire(count: int, edge: Edge, scene: Scene, graph: Graph) -> Wire:
    value = graph.values[edge.value]
    remark = ""
    if edge.fan > 1:
        remark = f"from all {edge.fan}" if edge.direction == "backward" else f"to all {edge.fan}"
    tooltip = [
        value.id,
        f"{value.label} = {value.shape} {value.dtype}, {number(value.nbytes, 'B')}",
    ]
    if len(value.names) > 1:
        tooltip.append("also called " + ", ".join(value.names[1:]))
    if value.stats:
        tooltip.append(", ".join(f"{key} {amount:.4g}" for key, amount in value.stats.items()))
    if value.grad_norm is not None:
        tooltip.append(f"norm of its gradient {value.grad_norm:.4g}")
    return Wire(
        f"edge:{count}",
        edge,
        edge.source,
        edge.target,
        _name(value, graph),
        value.label,
        remark,
        tooltip=tooltip,
    )


def _box_tooltip(box: Box, node: Node | None, graph: Graph) -> list[str]:
    lines = [f"{heading(box)} {box.path}".strip()]
    outputs = node.outputs if node else [box.id] if box.id in graph.values else []
    for key in outputs:
        value = graph.values[key]
        lines.append(f"{value.label} = {value.shape} {value.dtype}, {number(value.nbytes, 'B')}")
    if box.flops:
        lines.append(f"{number(box.flops, 'FLOP')} forward")
    if box.backward_flops:
        lines.append(f"{number(box.backward_flops, 'FLOP')} backward")
    if box.kind == "module" and box.activation_bytes:
        lines.append(f"{number(box.activation_bytes, 'B')} activations")
    if box.saved_bytes:
        lines.append(f"{number(box.saved_bytes, 'B')} saved for backward")
    if node is not None and node.seconds is not None:
        lines.append(seconds(node.seconds))
    if node is not None and node.source:
        lines += [node.source, node.code.strip()]
    return lines


def cluster_tooltip(box: Box, graph: Graph) -> list[str]:
    """The tooltip of an open box."""
    return _box_tooltip(box, graph.nodes[box.node] if box.node else None, graph)


def cluster_style(key: str, scene: Scene) -> tuple[str, str]:
    """The classes of an open box for the stylesheet, and its fill, which tells how deep it is."""
    box, depth = scene.tree.boxes[key], len(scene.tree.around(key)) - 1
    folded = " folded" if box.count > 1 else ""
    return f"cluster depth{depth} {box.kind}{folded}", SHADES[depth % len(SHADES)]


def _legend(cards: dict[str, Card], wires: list[Wire], scene: Scene) -> list[tuple[str, str]]:
    kinds = {card.kind for card in cards.values()}
    legend = [
        (key, look.says)
        for key, look in LOOKS.items()
        if key in kinds and key not in ("input", "output")
    ]
    if any(card.fused for card in cards.values()):
        legend.append(("fused", "fused: several ops in one kernel"))
    if any(scene.tree.boxes[key].count > 1 for key in scene.visible):
        legend.append(("folded", "that many equal ones, drawn once"))
    if any(wire.edge.skip for wire in wires):
        legend.append(("skip", "skips what lies between"))
    if any(wire.edge.fan > 1 for wire in wires):
        legend.append(("fan", "the same tensor to each of them"))
    if any(wire.backward for wire in wires):
        legend.append(("gradient", "gradient"))
    if any(card.saved for card in cards.values()):
        legend.append(("saved", "kept for backward"))
    return legend
