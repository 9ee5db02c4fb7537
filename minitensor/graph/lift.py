"""Links lifted to the boxes that they cross: each box that opens has a small graph of its own.

A link between two leaves shows in every open box it crosses: where its ends part, and from there
down to each of them. So the edges of all folding states are few, and known beforehand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

from .model import Graph
from .scene import Link, Tree


@dataclass
class Lifted:
    """One tensor, and its gradients, between two boxes inside one box, or from or to its border."""

    container: str
    upper: str | None  # None for the border: the tensor comes from outside
    lower: str | None
    tensor: str
    forward: list[Link] = field(default_factory=list)
    backward: list[Link] = field(default_factory=list)
    skip: bool = False  # a residual: another way leads past it, through other boxes


class Lifting:
    """All links of a tree, lifted."""

    def __init__(self, tree: Tree, graph: Graph) -> None:
        self.tree = tree
        self.graph = graph
        self.edges: dict[str, dict[tuple[str | None, str | None, str], Lifted]] = {}
        self._parts: dict[int, list[Lifted]] = {}  # of a link: the edges it shows as
        for link in tree.links:
            self._parts[id(link)] = self._lift(link)
        place = {key: number for number, key in enumerate(tree.boxes)}
        for inside in self.edges.values():
            _mark_skips(list(inside.values()), place)

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


def tensor_of(link: Link, graph: Graph) -> str:
    """Return the tensor of a link: of a gradient, the one that it is the gradient of."""
    return (link.direction == "backward" and graph.values[link.value].of) or link.value


def is_to_update(link: Link, tree: Tree, graph: Graph) -> bool:
    """Return True for a gradient that an update reads: those between two boxes are one edge."""
    node = graph.nodes.get(tree.boxes[link.target].node or "")
    return link.direction == "onward" and node is not None and node.direction == "update"


def given_as(graph: Graph, link: Link, target: str) -> list[str]:
    """Return what a box calls a tensor: a module that is given it twice, "key" and "value"."""
    group = graph.groups.get(target) if target != link.target else None
    names = zip(group.inputs, group.input_names, strict=True) if group else ()
    given = [name for value, name in names if value == link.value]
    return given or [link.port] if link.port else given


def _mark_skips(edges: list[Lifted], place: dict[str, int]) -> None:
    """Mark edges beside which a longer way leads from the upper to the lower end."""
    ends = []  # of each edge: what it joins; each tensor has a place of its own on the border
    for edge in edges:
        upper, lower = edge.upper or f"\nin {edge.tensor}", edge.lower or f"\nout {edge.tensor}"
        ends.append((upper, lower))
    first, last = -1, len(place)
    order = sorted(
        {end for pair in ends for end in pair},
        key=lambda end: place.get(end, first if end.startswith("\nin") else last),
    )
    number = {end: at for at, end in enumerate(order)}
    following: dict[str, list[tuple[Lifted, str]]] = {}
    for edge, (upper, lower) in zip(edges, ends, strict=True):
        if edge.forward and number[upper] < number[lower]:  # else it closes a ring
            following.setdefault(upper, []).append((edge, lower))
    reached = dict.fromkeys(order, 0)  # boxes as bits
    for end in reversed(order):
        beyond = 0
        for _, lower in following.get(end, ()):
            beyond |= reached[lower]
        for edge, lower in following.get(end, ()):
            edge.skip = bool(beyond >> number[lower] & 1)
            reached[end] |= 1 << number[lower]
        reached[end] |= beyond
