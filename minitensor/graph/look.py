"""What a picture says and how it looks, whoever draws it: colours, borders, texts, measures."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from ..autograd import OPS
from .model import Graph, Group, Node, Value
from .scene import Box, Edge, Scene

FONT = "Helvetica,Arial,sans-serif"
WIDTH = 38  # characters after which attributes go on in the next line

# Every colour of the pictures: in light mode and print, and what takes its place in dark mode.
PAPER, INK, QUIET = "#fffffe", "#1b1b1f", "#5c5c66"
SHADES = ("#f6f7fa", "#eceff5", "#e2e7f0", "#d8dfeb")  # of open boxes, by depth
FRAME, BACK, BACK_FILL, SKIP = "#8b93a3", "#d55e00", "#fdeee4", "#0072b2"
HEAT = ("#fff7e6", "#feebc4", "#fdd49e", "#fdbb74", "#f78f4b", "#d9541e", "#9c2a06")
HEAT_INK = ("#1b1b1e",) * 5 + ("#fffffd",) * 2  # legible on it
DARK = {
    PAPER: "#15171c",
    INK: "#f0f0f4",
    QUIET: "#b0b3bd",
    **dict(zip(SHADES, ("#1c1f26", "#232832", "#2b313d", "#333b49"), strict=True)),
    FRAME: "#7d8798",
    BACK: "#ff9147",
    BACK_FILL: "#42220e",
    **dict(
        zip(
            HEAT,
            ("#2b2013", "#462c12", "#663a10", "#8c4a0f", "#bd661a", "#f0923c", "#ffc98a"),
            strict=True,
        )
    ),
    HEAT_INK[0]: "#f0f0f5",
    HEAT_INK[-1]: "#1b1b1c",
}


@dataclass(frozen=True)
class Look:
    """How boxes of one kind look; the border tells them apart where the colour does not."""

    line: str
    fill: str
    border: int = 1
    style: str = "solid"  # or rounded, dashed, dotted
    bars: bool = False  # upright bars at both sides
    says: str = ""  # in the legend


LOOKS = {
    "module": Look("#3d4450", "#fafbfc", 2, "rounded", says="module"),
    "run": Look("#3d4451", "#fafbfd", 2, "dashed", says="several ops"),
    "input": Look("#1b1b1d", "#fffffc", says="input"),
    "output": Look("#1b1b1a", "#fffffb", 2, says="output"),
    "product": Look("#0072b3", "#dcebf8", 2, says="matrix product"),
    "norm": Look("#009e73", "#daf1e9", bars=True, says="norm"),
    "activation": Look("#b87a00", "#fdeecb", 1, "rounded", says="activation"),
    "elementwise": Look("#968a00", "#fbf7c9", 1, "rounded", says="elementwise"),
    "reduction": Look("#a8568a", "#f8e6f0", 1, says="reduction"),
    "random": Look("#a8568b", "#f8e7f0", 1, "dotted", says="random"),
    "lookup": Look("#2a86bd", "#e4f4fd", 1, "rounded", says="table lookup"),
    "shape": Look("#7f7f88", "#f7f7f7", 1, "dashed", says="shape only"),
    "loss": Look("#d55e01", "#fde3d1", 3, says="loss"),
    "other": Look("#55555e", "#f2f2f3", 1, says="other op"),
}
for _look, _line, _fill in zip(
    LOOKS.values(),
    (
        "#a9b3c4 #a9b3c3 #f0f0f3 #f0f0f2 #5cb3ec #33c79a #f0b23c #d8cc3a #dd8fc0 #dd8fc1 #7cc4f0 "
        "#9a9aa3 #ff9148 #b5b5bd"
    ).split(),
    (
        "#1d2129 #1d212a #15171d #15171e #12334a #0f3a2e #46330a #3c390c #43243a #43243b #16364a "
        "#24262b #522611 #2b2c31"
    ).split(),
    strict=True,
):
    DARK |= {_look.line: _line, _look.fill: _fill}

# The file an op lives in names its family.
KINDS = {
    "matmul": "product",
    "linear": "product",
    "attention": "product",
    "einsum": "product",
    "norm": "norm",
    "moments": "reduction",
    "reduce": "reduction",
    "scan": "reduction",
    "order": "reduction",
    "activation": "activation",
    "softmax": "activation",
    "arithmetic": "elementwise",
    "pointwise": "elementwise",
    "select": "elementwise",
    "compare": "elementwise",
    "convert": "elementwise",
    "residual": "elementwise",
    "dropout": "random",
    "embedding": "lookup",
    "shape": "shape",
    "move": "shape",
    "join": "shape",
    "repeat": "shape",
    "index": "shape",
    "gather": "shape",
    "loss": "loss",
    "cross_entropy": "loss",
}
_OPS = {name.strip("_").lower(): op for name, op in OPS.items()}


def kind(box: Box, graph: Graph) -> str:
    """Which of LOOKS a box has."""
    if box.kind != "op":
        return box.kind
    name = graph.nodes[box.node].op if box.node else box.label
    op = _OPS.get(name.replace("_", "").lower())
    if op is None:
        return "other"
    if "norm" in name:
        return "norm"
    return KINDS.get(op.__module__.rpartition(".")[2], "other")


def fused(box: Box, graph: Graph) -> bool:
    """Whether a box is one op that does the work of several."""
    if box.node is None or box.kind != "op":
        return False
    op = _OPS.get(graph.nodes[box.node].op.replace("_", "").lower())
    return op is not None and op.reference is not None


def number(value: float, unit: str = "", step: int = 1000) -> str:
    """A number in three digits: 3152384 -> "3.15 M", with a unit "3.15 MB"."""
    prefixes = ("", "k", "M", "G", "T", "P")
    power = 0
    while abs(value) >= 999.5 and power < len(prefixes) - 1:
        value, power = value / step, power + 1
    digits = f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return f"{digits} {prefixes[power]}{unit}".rstrip()


def seconds(value: float) -> str:
    """A duration in three digits: 0.00123 -> "1.23 ms"."""
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("\N{MICRO SIGN}s", 1e6)):
        if value * scale >= 1 or unit == "\N{MICRO SIGN}s":
            break
    return f"{value * scale:.3g} {unit}"


@dataclass
class Half:
    """The forward or the backward half of a box: a title, and lines under it."""

    title: str
    path: str = ""
    lines: list[str] = field(default_factory=list)


@dataclass
class Heat:
    """What an overlay says of a box: a number, its step on the ramp, and those of its members."""

    text: str
    step: int
    members: list[tuple[str, int]] = field(default_factory=list)


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
    def classes(self) -> str:
        """For the stylesheet: "edge forward skip"."""
        edge = self.edge
        marks = [("skip", edge.skip), ("fan", edge.fan > 1)]
        return " ".join(["edge", edge.direction, *(mark for mark, on in marks if on)])


@dataclass
class Joint:
    """Where a tensor that several boxes in an open box read goes into it, or their gradients meet."""

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
    legend: list[tuple[str, str]]  # what a mark is, as a key of LOOKS or a word; what it means
    ramp: tuple[str, str, str] | None = None  # of the overlay: what it shows, least, most


def page(scene: Scene, graph: Graph, overlay: str | None = None) -> Page:
    """Everything a picture of `scene` says. ValueError for an overlay that does not exist."""
    boxes = scene.tree.boxes
    closed = [boxes[key] for key in scene.visible if key not in scene.open]
    wires = [_wire(number, edge, scene, graph) for number, edge in enumerate(scene.edges)]
    arriving: dict[str, list[Wire]] = defaultdict(list)
    for wire in wires:
        if not wire.backward:
            arriving[wire.edge.target].append(wire)
    cards = {box.id: _card(box, scene, graph, arriving[box.id]) for box in closed}
    ramp = None
    if overlay is not None:
        heats, ramp = _heats(closed, scene, graph, overlay)
        for key, heat in heats.items():
            cards[key].heat = heat
    root = boxes[scene.tree.root]
    facts = [", ".join(f"{name}={size}" for name, size in graph.dims.items())]
    facts.append(f"{number(root.parameter_count)} parameters" if root.parameter_count else "")
    facts.append(f"{number(root.flops, 'FLOP')} forward" if root.flops else "")
    if scene.backward and root.backward_flops:
        facts.append(f"{number(root.backward_flops, 'FLOP')} backward")
    facts.append(
        f"{number(root.activation_bytes, 'B')} activations" if root.activation_bytes else ""
    )
    facts.append(f"{number(root.saved_bytes, 'B')} saved" if root.saved_bytes else "")
    text = "  \N{MIDDLE DOT}  ".join(fact for fact in facts if fact)
    legend = _legend(cards, wires, scene)
    drawn, joints = _join(wires, scene, graph)
    return Page(graph.name, text, cards, drawn, joints, legend, ramp)


def _join(wires: list[Wire], scene: Scene, graph: Graph) -> tuple[list[Wire], list[Joint]]:
    """Let what several boxes inside an open box read go into it once, and their gradients out."""
    boxes = scene.tree.boxes
    around: dict[str, list[str]] = {}  # the open boxes that something is in, the outermost first
    for key in scene.visible:
        parent = boxes[key].parent
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
            spread = {around[w.source if backward else w.target][len(around[key]) + 1 :][:1] == []
                      or around[w.source if backward else w.target][len(around[key]) + 1]
                      for w in members}
            if len(members) < 2 or (len(spread) == 1 and True not in spread):
                continue
            first = members[0]
            joint = Joint(f"joint:{key}:{first.id}", key, backward)
            joints.append(joint)
            top = tops.get(first.id, outer)
            ends = (joint.id, top) if backward else (top, joint.id)
            edge = replace(first.edge, skip=False, ports=[])
            drawn.append(replace(first, id=f"{joint.id}:way", edge=edge, source=ends[0],
                                 target=ends[1], port=None))
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
    """Where a box stands, as far as the boxes around it do not say it: "layers.0-5, own weights"."""
    path = box.path
    if box.parent is not None:
        around = scene.tree.boxes[box.parent]
        for known in (around.path, graph.groups[around.id].path if around.id in graph.groups else ""):
            path = "" if path == known else path.removeprefix(f"{known}." if known else "")
    if box.count > 1:
        weights = "shared weights" if box.shared else "own weights" if box.parameter_count else ""
        path = ", ".join(part for part in (path, weights) if part)
    return path


def _wrap(parts: Iterable[str]) -> list[str]:
    return textwrap.wrap(", ".join(parts), WIDTH, break_long_words=False, break_on_hyphens=False)


def _parameter(value: Value) -> str:
    return f"{value.id.rpartition(':')[2].rpartition('.')[2]} {value.label}"


def _card(box: Box, scene: Scene, graph: Graph, arriving: list[Wire]) -> Card:
    """The card of a closed box; gives the wires that arrive their ports."""
    node = graph.nodes[box.node] if box.node else None
    half = Half(heading(box), place(box, scene, graph))
    if node is not None:
        half.lines += _wrap(
            f"{name}={format(value, '.4g') if isinstance(value, float) else value}"
            for name, value in node.attributes.items()
        )
    elif box.kind == "module" and box.id in graph.groups and graph.groups[box.id].settings:
        half.lines += _wrap([graph.groups[box.id].settings])
    half.lines += [_parameter(graph.values[key]) for key in box.parameters]
    if box.parameter_count and (box.kind == "module" or box.count > 1):
        each = " each" if box.count > 1 else ""
        half.lines.append(f"{number(box.parameter_count)} parameters{each}")
    if box.kind in ("input", "output"):
        value = graph.values[box.id.removeprefix("output:")]
        half.lines.append(f"{value.label} {value.dtype}")
    card = Card(box.id, kind(box, graph), half, fused(box, graph), box.count)
    card.tooltip = _box_tooltip(box, node, graph)
    if card.kind not in ("elementwise", "output") and len(arriving) > 1:
        names = node.input_names if node else []
        arriving.sort(
            key=lambda wire: min((names.index(p) for p in wire.edge.ports if p in names), default=0)
        )
        for port, wire in enumerate(arriving):
            wire.port = port
            card.ports.append(", ".join(wire.edge.ports) or wire.name)
    if scene.backward and box.backward:
        card.backward = _backward_half(box, graph)
        if scene.saved:
            card.saved = _saved(box, node, graph)
    return card


def _backward_half(box: Box, graph: Graph) -> Half:
    half = Half(f"{box.label} backward")
    if box.kind == "op":
        for key in box.backward:
            for out in graph.nodes[key].outputs:
                of = graph.values.get(graph.values[out].of or "")
                if of is not None and of.kind == "parameter":
                    name, _, shape = _parameter(of).partition(" ")
                    half.lines.append(f"{name}.grad {shape}")
    elif box.parameter_count:
        half.lines.append(f"{number(box.parameter_count)} gradients of parameters")
    if box.backward_flops:
        half.lines.append(number(box.backward_flops, "FLOP"))
    return half


def _saved(box: Box, node: Node | None, graph: Graph) -> list[str]:
    if node is not None:
        values = [graph.values[key] for key in node.saved]
        return [
            f"{_value_name(value, graph)} {value.label} {number(value.nbytes, 'B')}".strip()
            for value in values
        ]
    return [f"{number(box.saved_bytes, 'B')} saved"] if box.saved_bytes else []


def _value_name(value: Value, graph: Graph) -> str:
    if value.kind == "parameter":
        return value.id.rpartition(":")[2].rpartition(".")[2]
    of = graph.values.get(value.of or "")
    return value.name or (f"{of.name}.grad" if of is not None and of.name else "")


def _wire(count: int, edge: Edge, scene: Scene, graph: Graph) -> Wire:
    value = graph.values[edge.value]
    remark = ""
    if edge.fan > 1:
        remark = f"from all {edge.fan}" if edge.direction == "backward" else f"to all {edge.fan}"
    tooltip = [value.id, f"{value.label} = {value.shape} {value.dtype}, {number(value.nbytes, 'B')}"]
    if len(value.names) > 1:
        tooltip.append("also called " + ", ".join(value.names[1:]))
    if value.stats:
        tooltip.append(", ".join(f"{key} {number:.4g}" for key, number in value.stats.items()))
    if value.grad_norm is not None:
        tooltip.append(f"norm of its gradient {value.grad_norm:.4g}")
    return Wire(
        f"edge:{count}",
        edge,
        edge.source,
        edge.target,
        _value_name(value, graph),
        value.label,
        remark,
        tooltip=tooltip,
    )


def _box_tooltip(box: Box, node: Node | None, graph: Graph) -> list[str]:
    lines = [f"{heading(box)} {box.path}".strip()]
    outputs = node.outputs if node else [box.id] if box.id in graph.values else []
    for key in outputs:
        value = graph.values[key]
        lines.append(
            f"{value.label} = {value.shape} {value.dtype}, {number(value.nbytes, 'B')}"
        )
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
        legend.append(("folded", "x6: six equal ones, drawn once"))
    if any(wire.edge.skip for wire in wires):
        legend.append(("skip", "skips what lies between"))
    if any(wire.edge.fan > 1 for wire in wires):
        legend.append(("fan", "the same tensor to each of them"))
    if any(wire.backward for wire in wires):
        legend.append(("backward", "gradient"))
    if any(card.saved for card in cards.values()):
        legend.append(("saved", "kept for backward"))
    return legend


# Overlays: what is shown, how one number comes of a box's nodes, and how it is written.
OVERLAYS = {
    "flops": "FLOPs",
    "bytes": "bytes of activations",
    "time": "time",
    "gradnorm": "norm of the gradient",
    "nan": "share of NaN",
}


def _heats(
    closed: list[Box], scene: Scene, graph: Graph, overlay: str
) -> tuple[dict[str, Heat], tuple[str, str, str] | None]:
    """What the overlay says of each box, and the ends of its ramp; boxes it is silent on lack."""
    if overlay not in OVERLAYS:
        raise ValueError(f"overlay must be one of {', '.join(OVERLAYS)}, not {overlay!r}")
    inner = _nodes_by_group(graph)
    found: dict[str, list[float]] = {}
    for box in closed:
        members = box.members or [box.id]
        if box.kind in ("input", "output"):
            continue
        amounts = []
        for member in members:
            nodes = [graph.nodes[member]] if member in graph.nodes else inner.get(member, [])
            amounts.append(_amount(nodes, graph, overlay, scene.backward))
        if not amounts or all(amount is None for amount in amounts):
            continue
        found[box.id] = [amount or 0.0 for amount in amounts]
    everything = [amount for amounts in found.values() for amount in amounts]
    if not everything:
        return {}, None
    low, high = min(everything), max(everything)
    heats = {}
    for key, amounts in found.items():
        worst = max(amounts)
        heat = Heat(_written(worst, overlay), _step(worst, low, high, overlay))
        if len(amounts) > 1:
            heat.members = [(_written(a, overlay), _step(a, low, high, overlay)) for a in amounts]
        heats[key] = heat
    return heats, (OVERLAYS[overlay], _written(low, overlay), _written(high, overlay))


def _nodes_by_group(graph: Graph) -> dict[str, list[Node]]:
    """The nodes of each group and of the groups in it; the inside of a fused op is in its number."""
    inner: dict[str, list[Node]] = defaultdict(list)
    for node in graph.nodes.values():
        if node.inside is not None:
            continue
        group: Group | None = graph.groups.get(node.group)
        while group is not None:
            inner[group.id].append(node)
            group = graph.groups.get(group.parent) if group.parent is not None else None
    return inner


def _amount(nodes: list[Node], graph: Graph, overlay: str, backward: bool) -> float | None:
    """One number for some nodes; None where there is nothing to tell."""
    nodes = [node for node in nodes if backward or node.direction == "forward"]
    made = [graph.values[key] for node in nodes for key in node.outputs]
    if overlay == "flops":
        return float(sum(node.flops for node in nodes)) if nodes else None
    if overlay == "bytes":
        return float(sum(value.nbytes for value in made if value.views is None)) if made else None
    if overlay == "time":
        known = [node.seconds for node in nodes if node.seconds is not None]
        return sum(known) if known else None
    if overlay == "gradnorm":
        return max((v.grad_norm for v in made if v.grad_norm is not None), default=None)
    return max((v.stats["nan"] for v in made if v.stats and "nan" in v.stats), default=None)


def _written(amount: float, overlay: str) -> str:
    if overlay == "flops":
        return number(amount, "FLOP")
    if overlay == "bytes":
        return number(amount, "B")
    if overlay == "time":
        return seconds(amount)
    if overlay == "nan":
        return f"{amount:.3g} NaN" if amount else "no NaN"
    return f"{amount:.3g}"


def _step(amount: float, low: float, high: float, overlay: str) -> int:
    """The step on the ramp: by size, norms by their logarithm; any NaN at all is seen."""
    last = len(HEAT) - 1
    if overlay == "nan":
        return last if amount else 0
    if overlay == "gradnorm" and 0 < low < high:
        return round(last * _ratio(amount, low, high))
    return round(last * amount / high) if high else 0


def _ratio(amount: float, low: float, high: float) -> float:
    import math

    return math.log(amount / low) / math.log(high / low)
