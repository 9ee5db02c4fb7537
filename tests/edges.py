"""Counts the edges of a graph: those recorded, and what became of them in the picture.

An edge is a tensor on its way from the op that made it, or from an input or source, to an op that
reads it, or to the caller. This is counted from the recording alone, and compared with the links.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from minitensor.graph.fold import fold
from minitensor.graph.model import Graph, Node, Value
from minitensor.graph.scene import Box, Scene, Tree
from minitensor.graph.view import view


@dataclass
class Count:
    """The recorded edges by what became of them at `full`; those of weights are lines in boxes.

    `drawn` between two boxes; `saved`, for the backward of an op, on the wires inside its box;
    `folded` inside a closed box, or of a member of a fold that another member stands for. What goes
    from turn to turn of a loop is folded if an arrow of the loop says so, else missing.
    """

    recorded: int = 0
    drawn: int = 0
    saved: int = 0
    folded: int = 0
    missing: list[str] = field(default_factory=list)
    invented: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Return True if nothing is missing and nothing invented."""
        whole = self.drawn + self.saved + self.folded
        return not self.missing and not self.invented and self.recorded == whole


class Counter:
    def __init__(self, graph: Graph, tree: Tree, scene: Scene) -> None:
        self.graph, self.tree = graph, tree
        self.drawn_for = {n: drawn for drawn, all in tree.instances.items() for n in all}
        boxes = tree.boxes.values()
        self.box_of = {box.node: box.id for box in boxes if box.node is not None}
        self.whole = {box.whole or box.node for box in boxes}
        self.box_of |= {n: box.id for box in boxes if box.node is None for n in box.backward}
        shown = set(scene.visible)
        self.seen = {
            box: next(b for b in (box, *tree.ancestors(box)) if b in shown) for box in tree.boxes
        }
        self.edges = {(edge.source, edge.target) for edge in scene.edges}
        self.links = {(link.source, link.target, link.value) for link in tree.links}
        ends = ((source, tree.chain(target)) for source, target, _ in self.links)
        self.pairs = {(source, each) for source, chain in ends for each in chain}  # also of opened
        nodes = [n for n in graph.nodes.values() if n.direction == "backward" and not n.inside]
        self.firsts = {key for node in nodes for key in node.inputs}
        self.inside: dict[str, str] = {}  # of what an opened op makes: the same value inside it
        for value in graph.values.values():
            node, whole = graph.nodes.get(value.producer or ""), graph.values.get(value.of or "")
            if node and whole and node.inside and node.inside == whole.producer:
                self.inside[whole.id] = value.id
        self.terms: dict[str, list[Value]] = {}  # of a gradient of an opened op: those inside it
        for value in graph.values.values():
            if value.term is not None:
                self.terms.setdefault(value.term, []).append(value)
        self.ends: dict[tuple[str, str], set[str]] = {}  # of a tensor from a box: where it goes
        for link in tree.links:
            known = self.ends.setdefault((link.source, link.value), set())
            known.update([link.target, *tree.ancestors(link.target)])

    def op_of(self, node: Node) -> Node:
        """Return the op that a node belongs to: a backward node belongs to its forward op."""
        while node.direction == "backward":
            outer = node.of or node.inside
            if outer not in self.graph.nodes:
                return node
            node = self.graph.nodes[outer]
        return node

    def home(self, node: Node) -> str:
        """Return the box that a node is drawn in."""
        op = self.op_of(node)
        return self.box_of[self.drawn_for.get(op.id, op.id)]

    def first(self, node: Node | None) -> bool:
        """Return True unless another member of a fold is drawn for a node."""
        op = self.op_of(node) if node else None
        if node is not op is not None and op.id in self.drawn_for:
            return op.id in self.whole
        return op is None or self.drawn_for.get(op.id, op.id) == op.id

    def alike(self, value: Value) -> Value:
        """Return the gradient that a backward node gives for the last value inside it."""
        of = self.graph.values.get(value.of or "")
        inside = value.kind == "activation" and of is not None and of.kind == "gradient"
        return of if inside and of is not None else value

    def origin(self, value: Value) -> str | None:
        """Return the box that a tensor comes from, None for a weight or a first gradient."""
        if value.producer is not None:
            while value.kind != "gradient" and value.id in self.inside:
                value = self.graph.values[self.inside[value.id]]
            assert value.producer is not None
            return self.home(self.graph.nodes[value.producer])
        if value.kind == "gradient":  # the first of a pass, or a sum, whose terms have an edge each
            first = value.id in self.firsts and value.of in self.graph.outputs
            return f"output:{value.of}" if first else None
        return None if value.kind in ("parameter", "saved") else value.id

    def makers(self, value: Value) -> list[Node | None]:
        """Return the node that made a tensor; of a gradient of an opened op, those inside it."""
        made = self.terms.get(value.id, [value])
        return [self.graph.nodes.get(each.producer or "") for each in made]

    def given(self, value: Value) -> bool:
        """Return True for a first gradient that was handed in: 1 is for scalars alone."""
        first = value.kind == "gradient" and value.id in self.firsts and value.producer is None
        return first and value.of not in self.graph.outputs and math.prod(value.shape) != 1

    def fate(self, value: Value, origin: str, maker: Node | None, node: Node, read: str) -> str:
        """Return what became of an edge to a node, which reads `read`; "" if it is missing."""
        boxes, target = self.tree.boxes, self.home(node)
        if boxes[target].children and target in self.ends.get((origin, value.id), ()):
            return "drawn"  # to what is inside an opened op
        if (origin, target, value.id) in self.links:
            ends = self.seen[origin], self.seen[target]
            return "folded" if ends[0] == ends[1] else "drawn" if ends in self.edges else ""
        if origin == target:
            return "folded" if self.seen[origin] == origin or boxes[target].node else ""
        if node.direction == "backward" and self._saved(read, node):
            return "saved"
        if self.first(maker) and self.first(node):
            return ""
        around = [{box, *self.tree.ancestors(box)} for box in (origin, target) if box in boxes]
        folds = [boxes[box] for box in set.intersection(*around) if boxes[box].count > 1]
        if maker and not all(self.told(box, value, maker, node) for box in folds if box.carried):
            return ""
        return "folded" if folds or (origin, target) in self.pairs else ""

    def told(self, loop: Box, value: Value, maker: Node, reader: Node) -> bool:
        """Return True unless a tensor goes to another turn of a loop, and no arrow says so."""
        if self.turn(maker, loop) == self.turn(reader, loop):
            return True
        values = self.graph.values
        arrows = loop.returned if maker.direction == "backward" else loop.carried
        return any(self.place(value) == self.place(values[arrow]) for arrow in arrows)

    def turn(self, node: Node, loop: Box) -> int:
        """Return the turn of a loop that a node is in."""
        op = self.op_of(node)
        alike = self.tree.instances[self.drawn_for[op.id]]
        turns = math.prod(self.tree.boxes[box].count for box in self.tree.chain(loop.id))
        return alike.index(op.id) // (len(alike) // turns)

    def place(self, value: Value) -> tuple[str, int]:
        """Return where the tensor, or that of which it is the gradient, is made in a turn."""
        if value.kind == "gradient":
            value = self.graph.values[value.of or ""]
        return self.drawn_for.get(value.producer or "", ""), value.port

    def _saved(self, value: str, node: Node) -> bool:
        """Return True if an op that a node is in the backward of keeps a value."""
        outer: Node | None = node
        while outer is not None and outer.direction == "backward":
            outer = self.graph.nodes.get(outer.of or outer.inside or "")
            if outer is not None and value in outer.saved:
                return True
        return False

    def count(self) -> Count:
        """Return the count."""
        graph, found = self.graph, Count()
        known: set[tuple[str, str, str]] = set()
        for node in graph.nodes.values():
            for key in dict.fromkeys(node.inputs):
                value = self.alike(graph.values[key])
                origin = self.origin(value)
                if origin is None and self.given(value):
                    found.missing.append(f"{node.id} begins with a gradient from nowhere: {key}")
                for maker in self.makers(value) if origin is not None else ():
                    if value.id in self.terms and maker is not None:
                        origin = self.home(maker)
                    assert origin is not None
                    found.recorded += 1
                    known.add((origin, self.home(node), value.id))
                    fate = self.fate(value, origin, maker, node, key)
                    if fate:
                        setattr(found, fate, getattr(found, fate) + 1)
                    else:
                        found.missing.append(f"{origin} -> {node.id}: {key}")
        for key in dict.fromkeys(graph.outputs):
            origin = self.origin(graph.values[key])
            if origin is not None:
                found.recorded += 1
                known.add((origin, f"output:{key}", key))
                if (origin, f"output:{key}", key) in self.links:
                    found.drawn += 1
                else:
                    found.missing.append(f"{origin} -> output: {key}")
        for source, target, key in sorted(self.links - known):
            of, terms = graph.values[key].of, self.makers(graph.values[key])
            made = {self.home(node) for node in terms if node is not None}
            if target != of or of not in graph.inputs or source not in made:
                found.invented.append(f"{source} -> {target}: {key}")
        return found


def count(graph: Graph, equal: bool = True, decompose: bool = False) -> Count:
    """Return what became of the edges of a graph, with `equal` ones folded or not."""
    tree = fold(graph, equal)
    scene = view(tree, graph, "full", backward=True, decompose=decompose)
    return Counter(graph, tree, scene).count()
