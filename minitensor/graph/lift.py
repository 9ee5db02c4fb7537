"""Links lifted to the boxes that they cross: each box that opens has a small graph of its own.

A link between two leaves shows in every open box it crosses: where its ends part, and from there
down to each of them. So the edges of all folding states are few, and known beforehand.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise

from .model import Graph
from .scene import Link, Tree

SUMS = ("add", "dropout_add", "dropout_add_layer_norm")  # ops that end a residual


@dataclass
class Lifted:
    """One tensor, and its gradients, between two boxes inside one box, or from or to its border."""

    container: str
    upper: str | None  # None for the border: the tensor comes from outside
    lower: str | None
    tensor: str
    forward: list[Link] = field(default_factory=list)
    backward: list[Link] = field(default_factory=list)
    skip: bool = False  # a residual: it goes past what is added to it


class Lifting:
    """All links of a tree, lifted."""

    def __init__(self, tree: Tree, graph: Graph) -> None:
        self.tree = tree
        self.graph = graph
        self.edges: dict[str, dict[tuple[str | None, str | None, str], Lifted]] = {}
        self._parts: dict[int, list[Lifted]] = {}  # of a link: the edges it shows as
        for link in tree.links:
            self._parts[id(link)] = self._lift(link)
        residuals = _residuals(tree, graph)
        place = {key: number for number, key in enumerate(tree.boxes)}
        for inside in self.edges.values():
            _mark_skips(list(inside.values()), residuals, place)

    def _lift(self, link: Link) -> list[Lifted]:
        upper, lower, common = self._chains(link)
        if len(upper) == common or len(lower) == common:  # one end is in the other
            return []
        steps: list[tuple[str, str | None, str | None]]
        steps = [(upper[common - 1], upper[common], lower[common])]
        steps += [(box, inner, None) for box, inner in pairwise(upper[common:])]
        steps += [(box, None, inner) for box, inner in pairwise(lower[common:])]
        found = []
        tensor = tensor_of(link, self.graph)
        one = "" if is_to_update(link, self.tree, self.graph) else tensor
        for container, start, end in steps:
            edges = self.edges.setdefault(container, {})
            key = start, end, one
            edge = edges.setdefault(key, Lifted(container, start, end, tensor))
            (edge.backward if link.direction == "backward" else edge.forward).append(link)
            found.append(edge)
        return found

    def _chains(self, link: Link) -> tuple[tuple[str, ...], tuple[str, ...], int]:
        """The boxes around the upper and the lower end, outermost first; how many they share."""
        upper, lower = self.tree.chain(link.source), self.tree.chain(link.target)
        if link.direction == "backward":  # a gradient runs against its tensor
            upper, lower = lower, upper
        common = 0
        for one, other in zip(upper, lower, strict=False):
            if one != other:
                break
            common += 1
        return upper, lower, common

    def inside(self, box: str) -> list[Lifted]:
        """Return the edges inside a box."""
        return list(self.edges.get(box, {}).values())

    def skips(self, link: Link, opened: set[str]) -> bool:
        """Return True for a link that is a residual in one of the open boxes."""
        return any(part.skip for part in self._parts[id(link)] if part.container in opened)

    def multiplicity(self, link: Link, lower: str) -> int:
        """Return how many instances a link goes to, or comes from, if it is drawn to `lower`."""
        if link.fan == 1:
            return 1
        above, below, common = self._chains(link)
        if lower in below:
            below = below[: below.index(lower) + 1]
        counts = (self.tree.boxes[box].count for box in [*above[common:], *below[common:]])
        return min(link.fan, math.prod(counts))

    def times(self, edge: Lifted, link: Link) -> int:
        """Return the same for one of the boxes that a link crosses; in a loop, a turn makes one."""
        if link.fanned == "made" and edge.upper is not None:
            above = self._chains(link)[0]
            inner = above[above.index(edge.upper) :]
            if all(self.tree.boxes[box].count == 1 for box in inner):
                return 1
        return self.multiplicity(link, edge.lower or edge.container)


def tensor_of(link: Link, graph: Graph) -> str:
    """Return the tensor of a link: of a gradient, the one that it is the gradient of."""
    return (link.direction == "backward" and graph.values[link.value].of) or link.value


def is_to_update(link: Link, tree: Tree, graph: Graph) -> bool:
    """Return True for a gradient that an update reads: those between two boxes are one edge."""
    node = graph.nodes.get(tree.boxes[link.target].node or "")
    return link.direction == "onward" and node is not None and node.direction == "update"


def given_as(graph: Graph, tree: Tree, link: Link, target: str) -> list[str]:
    """Return what a box calls a tensor: a module that is given it twice, "key" and "value".

    In a box of the calls of a module, it is the call that reads the tensor whose word counts.
    """
    chain = tree.chain(link.target) if target in tree.boxes else ()
    inside = chain[chain.index(target) :] if target in chain else (target,)
    if len(inside) > 1 and tree.boxes[target].kind == "calls":
        target = inside[1]
    weight = graph.weight(link.value)
    if weight != link.value and target != link.target:  # it was updated before
        return [weight.rpartition(":")[2].rpartition(".")[2]]
    group = graph.groups.get(target) if target != link.target else None
    names = zip(group.inputs, group.input_names, strict=True) if group else ()
    given = [name for value, name in names if value == link.value]
    return given or [link.port] if link.port else given


def _residuals(tree: Tree, graph: Graph) -> set[int]:
    """Return the links, by identity, that bring to a sum what the rest of it was made from.

    The way on which it was made leads through weights or a matrix product: the tensor goes past a
    layer. In x + 2 * x nothing does.
    """
    boxes, links = tree.boxes, [link for link in tree.links if link.direction == "forward"]
    readers = Counter(link.value for link in links)
    into: dict[str, list[Link]] = defaultdict(list)
    for link in links:
        into[link.target].append(link)
    sums = {
        key: given
        for key, given in into.items()
        if (node := graph.nodes.get(boxes[key].node or "")) and node.op.rstrip("_") in SUMS
    }
    forked = (v for given in sums.values() for v in (link.value for link in given))
    number = {value: at for at, value in enumerate(dict.fromkeys(forked)) if readers[value] > 1}
    made = dict.fromkeys(boxes, 0)  # as bits: from which of these tensors a box makes its own
    past = dict.fromkeys(boxes, 0)  # the same, as far as there is a layer on the way
    found: set[int] = set()
    when = {key: at for at, key in enumerate(graph.nodes)}
    for key in sorted(into, key=lambda key: when.get(boxes[key].node or "", -1)):
        box, given = boxes[key], into[key]
        for link in given if key in sums else ():
            others = (past[other.source] for other in given if other.value != link.value)
            at = number.get(link.value)
            if at is not None and any(other >> at & 1 for other in others):
                found.add(id(link))
        for link in given:
            own = 1 << number[link.value] if link.value in number else 0
            made[key] |= made[link.source] | own
            past[key] |= past[link.source]
        if box.parameter_count or box.flops:
            past[key] = made[key]
    return found


def _mark_skips(edges: list[Lifted], residuals: set[int], place: dict[str, int]) -> None:
    """Mark edges of residuals, beside which their tensor goes a longer way to the lower end."""
    marked = [e for e in edges if any(id(link) in residuals for link in e.forward)]
    if not marked:
        return
    ends = {}  # of each edge: what it joins; each tensor has a place of its own on the border
    for edge in edges:
        upper, lower = edge.upper or f"\nin {edge.tensor}", edge.lower or f"\nout {edge.tensor}"
        ends[id(edge)] = upper, lower
    first, last = -1, len(place)
    order = sorted(
        {end for pair in ends.values() for end in pair},
        key=lambda end: place.get(end, first if end.startswith("\nin") else last),
    )
    number = {end: at for at, end in enumerate(order)}
    following: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for edge in edges:
        upper, lower = ends[id(edge)]
        if edge.forward and number[upper] < number[lower]:  # else it closes a ring
            following[upper].append((edge.tensor, lower))
    reached: dict[str, int] = {}  # boxes as bits
    for end in reversed(order):
        reached[end] = 1 << number[end]
        for _, lower in following[end]:
            reached[end] |= reached[lower]
    for edge in marked:
        upper, lower = ends[id(edge)]
        ways = [way for tensor, way in following[upper] if tensor == edge.tensor and way != lower]
        edge.skip = any(reached[way] >> number[lower] & 1 for way in ways)
