"""One view of a graph, ready to be painted: labels of boxes and edges, ports, junctions, legend."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from dataclasses import dataclass, field, replace

from .model import Graph
from .overlays import Heat, Scale, overlay_named
from .page import DOT, MARKS, Card, EdgeLabel, Label, Page
from .palette import BACK, INK, LOOKS, PAPER, RAMP, RAMP_INK, SHADES, SKIP
from .scene import Box, Edge, Scene

LINE = 100  # characters, of what stands above a picture


@dataclass
class Face:
    """A closed box as a view shows it."""

    card: Card
    forward: Label
    ports: list[str] = field(default_factory=list)  # inputs with a place of their own, in order
    free: bool = False  # the order of its ports means nothing: it has no signature
    backward: Label | None = None
    saved: list[str] = field(default_factory=list)  # what goes from forward to backward
    heat: Heat | None = None
    nograd: bool = False  # an op that passes data on without gradient
    without_amount: bool = False  # an overlay is on, and says nothing of the box

    @property
    def kind(self) -> str:
        """Return the key of its look in LOOKS."""
        return self.card.kind

    @property
    def classes(self) -> str:
        """Return its classes for the stylesheet: "box norm fused"."""
        marks = [("fused", self.card.fused), ("folded", self.card.count > 1)]
        marks += [("backward", self.backward is not None), ("nograd", self.nograd)]
        return " ".join(["box", self.kind, *(mark for mark, on in marks if on)])

    @property
    def colours(self) -> tuple[str, str]:
        """Return the fill of the forward half, and the ink of its texts."""
        if self.heat is None:
            return PAPER if self.without_amount else LOOKS[self.kind].fill, INK
        return RAMP[self.heat.step], RAMP_INK[self.heat.step]


@dataclass
class LabelledEdge:
    """An edge with its text, between the boxes or junctions that it is drawn between."""

    id: str
    edge: Edge
    source: str
    target: str
    label: EdgeLabel
    port: int | None = None  # which of the target's ports it ends in
    tooltip: list[str] = field(default_factory=list)
    nograd: bool = False  # no gradient goes back along it
    given: bool = False  # the program goes on with a gradient: it comes from a backward half

    @property
    def backward(self) -> bool:
        """Return True if it carries a gradient, up the right side."""
        return self.edge.direction == "backward"

    @property
    def ends(self) -> tuple[str, str]:
        """Return the boxes or junctions at its ends, the upper one first."""
        return (self.target, self.source) if self.backward else (self.source, self.target)

    @property
    def colour(self) -> str:
        """Return the colour of the line and of the shape written on it."""
        return BACK if self.backward or self.given else SKIP if self.edge.skip else INK

    @property
    def classes(self) -> str:
        """Return its classes for the stylesheet: "edge forward skip"."""
        edge = self.edge
        marks = [("skip", edge.skip), ("fan", edge.shared), ("nograd", self.nograd)]
        return " ".join(["edge", edge.direction, *(mark for mark, on in marks if on)])


@dataclass
class Junction:
    """A point in an open box where a tensor splits for several readers, or gradients add up."""

    id: str
    parent: str
    backward: bool


@dataclass
class Picture:
    """A view, ready to be painted: closed and open boxes, edges, and what stands around them."""

    scene: Scene
    page: Page
    faces: dict[str, Face]
    edges: list[LabelledEdge]
    junctions: list[Junction]
    rules: dict[str, str]  # faces of the backward of an open box: in which box each is
    legend: list[tuple[str, str]]  # a mark, as a key of LOOKS or MARKS; what it means
    notes: list[str]
    scale: Scale | None = None  # of the overlay
    loops: dict[str, list[EdgeLabel]] = field(default_factory=dict)  # boxes with an arrow back

    @property
    def title(self) -> str:
        """Return the name of the graph."""
        return self.page.graph.name

    @property
    def facts(self) -> list[str]:
        """Return the lines under the title."""
        first, *others = self.page.facts(self.scene.backward).split(DOT)
        lines = [first]
        for fact in others:
            if len(lines[-1]) + len(DOT) + len(fact) > LINE:
                lines.append(fact)
            else:
                lines[-1] += DOT + fact
        return [line for line in lines if line]

    @property
    def parents(self) -> dict[str, str | None]:
        """Return the box around each thing in the picture."""
        shown, tree = set(self.scene.visible), self.scene.tree
        found = {
            key: next((outer for outer in tree.ancestors(key) if outer in shown), None)
            for key in self.scene.visible
        }
        return found | self.rules | {each.id: each.parent for each in self.junctions}

    @property
    def opened(self) -> list[str]:
        """Return the open boxes but the root, outer before inner."""
        root = self.scene.tree.root
        return [key for key in self.scene.visible if key in self.scene.open and key != root]

    def cluster(self, key: str) -> tuple[Card, str, str]:
        """Return the card of an open box, its classes, and its fill, which tells its depth."""
        card, opened = self.page.card(key), set(self.opened)
        depth = sum(outer in opened for outer in self.scene.tree.ancestors(key))
        folded = " folded" if card.count > 1 else ""
        return card, f"cluster depth{depth} {card.kind}{folded}", SHADES[depth % len(SHADES)]


def picture(scene: Scene, graph: Graph, overlay: str | None = None) -> Picture:
    """Return all that a painter needs. ValueError for an overlay unknown or not measured."""
    page = Page(graph, scene.tree)
    wires = [wire for edge in scene.edges for wire in _wires(edge, scene)]
    edges = [_edge(number, edge, page) for number, edge in enumerate(wires)]
    arriving: dict[str, list[LabelledEdge]] = defaultdict(list)
    for edge in edges:
        if not edge.backward:
            arriving[edge.target].append(edge)
    closed = [key for key in scene.visible if key not in scene.open]
    faces = {key: _face(scene.tree.boxes[key], scene, page, arriving[key]) for key in closed}
    rules: dict[str, str] = {}
    for edge in edges:  # an open fused op has a backward of its own, which is not open
        for end in ("source", "target"):
            key = getattr(edge, end)
            if key in scene.open:
                face = _rule(scene.tree.boxes[key], page)
                faces[face.card.id], rules[face.card.id] = face, key
                setattr(edge, end, face.card.id)
    scale = _colour(faces, scene, page, overlay)
    found = [*graph.notes, *scene.notes]
    if scale is not None and all(face.without_amount for face in faces.values()):
        found.append(f"{scale.title}: known only of boxes that are open here; close them.")
    notes = [line for note in found for line in textwrap.wrap(note, LINE)]
    legend = _legend(faces, edges, scene)
    boxes = [scene.tree.boxes[key] for key in scene.visible]
    loops = {
        box.id: page.loop(box, scene.backward)
        for box in boxes
        if box.carried and box.parent is not None
    }
    shown = Picture(scene, page, faces, edges, [], rules, legend, notes, scale, loops)
    _join(shown)
    return shown


def _colour(faces: dict[str, Face], scene: Scene, page: Page, overlay: str | None) -> Scale | None:
    """Give boxes what an overlay and a comparison say of them; the scale of the overlay."""
    scale = None
    if overlay is not None:
        amounts = page.amounts(overlay, scene.backward)
        scale = page.scale(overlay, scene.backward, scene.level)
        if not amounts.of:
            raise ValueError(overlay_named(overlay, page.graph).missing)
        for key, face in faces.items():
            face.heat = amounts.heat(key, scale)
            face.without_amount = face.heat is None
    for key, heat in page.marks(scene.marks).items() if scene.marks else ():
        if key in faces:
            faces[key].heat = heat
    return scale


def common(parents: dict[str, str | None], one: str, other: str) -> str | None:
    """Return the innermost box around both."""
    boxes, key = set(), parents[one]
    while key is not None:
        boxes.add(key)
        key = parents[key]
    key = parents[other]
    while key not in boxes and key is not None:
        key = parents[key]
    return key


def _join(shown: Picture) -> None:
    """Let what several boxes inside an open box read go into it once, and their gradients out."""
    outer_boxes: dict[str, list[str]] = {}  # of each thing, the outermost first
    for key, parent in shown.parents.items():
        outer_boxes[key] = [] if parent is None else [*outer_boxes[parent], parent]
    alike: dict[tuple[str, str, bool], list[LabelledEdge]] = defaultdict(list)
    for edge in shown.edges:
        value = shown.page.graph.values[edge.edge.value]
        outer = edge.target if edge.backward else edge.source
        alike[outer, (edge.backward and value.of) or value.id, edge.backward].append(edge)
    for (outer, _, backward), edges in alike.items():
        inside: dict[str, list[LabelledEdge]] = defaultdict(list)
        for edge in edges:
            for key in outer_boxes[edge.ends[1]]:
                if key not in outer_boxes[outer]:
                    inside[key].append(edge)
        tops: dict[str, str] = {}  # of an edge: the junction it hangs on
        for key, group in inside.items():  # an outer box comes before those in it
            depth = len(outer_boxes[key]) + 1
            paths = [outer_boxes[edge.ends[1]] for edge in group]
            into = {path[depth] if len(path) > depth else "" for path in paths}
            if len(group) < 2 or (len(into) == 1 and "" not in into):  # all go on together
                continue
            first = group[0]
            junction = Junction(f"junction:{key}:{first.id}", key, backward)
            shown.junctions.append(junction)
            top = tops.get(first.id, outer)
            source, target = (junction.id, top) if backward else (top, junction.id)
            way = replace(first.edge, skip=False, ports=[])
            trunk = replace(first, edge=way, source=source, target=target, port=None)
            if backward:
                terms = len({edge.edge.value for edge in group})
                value = shown.page.graph.values[first.edge.value]
                trunk.label = shown.page.edge(value, True, _fan(first.edge, shown.page), terms)
            shown.edges.append(replace(trunk, id=f"{junction.id}:way"))
            for edge in group:
                tops[edge.id] = junction.id
                if backward:
                    edge.target = junction.id
                else:
                    edge.source = junction.id
                if not edge.edge.skip:
                    edge.label = replace(edge.label, name="")


def _face(box: Box, scene: Scene, page: Page, arriving: list[LabelledEdge]) -> Face:
    """The face of a closed box; gives the edges that arrive their ports."""
    card, node = page.card(box.id), page.graph.nodes[box.node] if box.node else None
    face = Face(card, card.brief if scene.level == "arch" else card.forward)
    face.nograd = node is not None and not node.gradient
    if page.ported(card) and len(arriving) > 1:
        names = page.signature(box)
        known = {name: place for place, name in enumerate(names)}
        given = {edge.id: page.parameters(box, edge.edge.ports) for edge in arriving}
        arriving.sort(key=lambda edge: min((known.get(p, 0) for p in given[edge.id]), default=0))
        own = [edge.label.name for edge in arriving]
        words = [", ".join(given[edge.id]) or edge.label.name for edge in arriving]
        words = page.told_apart(words, own)
        if all(words) or (names and any(words)):  # a place without a word tells nothing
            face.ports = words
            for port, edge in enumerate(arriving):
                edge.port = port
        face.free = not names
    if scene.backward and card.backward is not None:
        face.backward, face.saved = card.backward, [text for text, _ in card.saved]
    return face


def _rule(box: Box, page: Page) -> Face:
    """The backward of an open box, as a closed box inside it."""
    outer = page.card(box.id)
    label = outer.backward or Label(f"{box.label} backward")
    label = replace(label, lines=[*label.lines, *(f"reads {text}" for text, _ in outer.saved)])
    tooltip = [label.title, box.path]
    return Face(Card(f"{box.id}:backward", "backward", label, label, tooltip=tooltip), label)


def _wires(edge: Edge, scene: Scene) -> list[Edge]:
    """An edge for each input of an op that a tensor is: `c + c` has two wires."""
    op = scene.tree.boxes[edge.target].node is not None and edge.target not in scene.open
    if not op or edge.direction == "backward" or len(edge.ports) < 2 or edge.tensors > 1:
        return [edge]
    return [replace(edge, ports=[port]) for port in edge.ports]


def _edge(number: int, edge: Edge, page: Page) -> LabelledEdge:
    value = page.graph.values[edge.value]
    backward = edge.direction == "backward"
    label = page.edge(value, backward, _fan(edge, page), edge.terms, edge.tensors)
    found = LabelledEdge(f"edge:{number}", edge, edge.source, edge.target, label)
    found.given = not found.backward and value.kind == "gradient"
    found.tooltip, found.nograd = page.tooltip(value), _without_gradient(edge, page)
    return found


def _fan(edge: Edge, page: Page) -> str:
    return page.fan(edge.fan, edge.fanned, edge.direction == "backward")


def _without_gradient(edge: Edge, page: Page) -> bool:
    """Return True for a tensor that comes from an op without gradient, or goes to one."""
    graph = page.graph
    ends = [graph.values[edge.value].producer, page.tree.boxes[edge.target].node]
    return any(key in graph.nodes and not graph.nodes[key].gradient for key in ends if key)


def _legend(
    faces: dict[str, Face], edges: list[LabelledEdge], scene: Scene
) -> list[tuple[str, str]]:
    kinds = {face.kind for face in faces.values()}
    shown = {
        "fused": any(face.card.fused for face in faces.values()),
        "folded": any(scene.tree.boxes[key].count > 1 for key in scene.visible),
        "skip": any(edge.edge.skip for edge in edges),
        "fan": any(edge.edge.shared for edge in edges),
        "gradient": any(edge.backward for edge in edges),
        "saved": any(face.saved for face in faces.values()),
    }
    colours = [(key, look.says) for key, look in LOOKS.items() if look.says and key in kinds]
    return colours + [(mark, says) for mark, says in MARKS.items() if shown[mark]]
