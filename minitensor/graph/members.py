"""The members of folded boxes: the names and numbers of each of what is drawn once for several.

A box inside folds stands for as many instances as the counts of those folds multiplied, in the
order they ran. All are equal in structure, so that an instance differs in names and numbers alone.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from .details import Details
from .model import Node
from .overlays import overlays_of
from .scene import Box

DATA = "data"  # the fact that is a line of its box: "data 0.31 | grad -2"


@dataclass
class Own:
    """The instances of a box or tensor: their ids, and the facts that each has of its own."""

    ids: list[str]
    facts: dict[str, list[str]] = field(default_factory=dict)  # by name: the text of each


class Members:
    """The instances of all boxes and tensors of a page."""

    def __init__(self, details: Details) -> None:
        self.details, self.page, self.graph = details, details.page, details.graph
        self.tree = details.tree
        self.counts: dict[str, int] = {}  # of each box: how many instances it stands for
        self.leaves: dict[str, Box] = {}  # of each box: the first op in it that has instances
        self.homes: dict[str, tuple[str, list[str]]] = {}  # of each tensor: a box, and its ids
        for box in self.tree.boxes.values():
            outer = self.counts[box.parent] if box.parent is not None else 1
            self.counts[box.id] = outer * box.count
        for box in self.tree.boxes.values():
            if box.node is not None and len(self.tree.nodes(box)) == self.counts[box.id]:
                for around in [box.id, *self.tree.ancestors(box.id)]:
                    self.leaves.setdefault(around, box)
        self._rules: dict[str, list[Node]] = defaultdict(list)
        for node in self.graph.nodes.values():
            if node.of is not None:
                self._rules[node.of].append(node)
        for box in self.tree.boxes.values():
            if self.counts[box.id] > 1 and self.leaves.get(box.id) is box:
                self._find_tensors(box)

    def _find_tensors(self, box: Box) -> None:
        """Note which tensors of the other instances stand where those of the drawn one do."""
        each = [self._places(self.graph.nodes[key]) for key in self.tree.nodes(box)]
        drawn = self._places(self.graph.nodes[box.whole]) if box.whole else each[0]
        for place, key in drawn.items():
            keys = [known[place] for known in each if place in known]
            if len(keys) == len(each) and len(set(keys)) > 1:  # a first turn may have no gradient
                self.homes.setdefault(key, (box.id, keys))

    def _places(self, node: Node) -> dict[tuple[int, str, int, bool], str]:
        """Return what an op and its backward make, read of their own and keep, each by its place.

        A gradient goes by the input it is of, and what is kept by the input that it was.
        """
        values, found = self.graph.values, dict[tuple[int, str, int, bool], str]()
        slots = {key: slot for slot, key in reversed(list(enumerate(node.inputs)))}
        for at, run in enumerate([node, *self._rules[node.id]]):
            for name in ("outputs", "inputs", "saved"):
                for port, key in enumerate(getattr(run, name)):
                    slot = slots.get((values[key].of or "") if at and name == "outputs" else key)
                    if name == "outputs" or values[key].kind in ("parameter", "buffer", "saved"):
                        place = at, name, port if slot is None else slot, slot is None
                        found.setdefault(place, key)
        return found

    def names(self, box: Box) -> list[str]:
        """Return the text that names each member of a folded box: "h.3 of h.0-11"."""
        paths = self.box(box).facts.get("path", [])
        paths = paths[:: len(paths) // box.count or 1][: box.count]
        if len(set(paths)) == box.count and not box.carried:
            return [f"{path} of {box.path}" for path in paths]
        word = "turn " if box.carried else ""
        return [f"{word}{at + 1} of {box.count}" for at in range(box.count)]

    def box(self, box: Box) -> Own:
        """Return the instances of a box."""
        count = self.counts[box.id]
        leaf = self.leaves.get(box.id)
        if leaf is None or count < 2:
            return Own([box.id])
        nodes = self.tree.nodes(leaf)[:: self.counts[leaf.id] // count]
        steps = self._steps(self.graph.nodes[nodes[0]].group, box.id)
        if box.node is not None and steps is None:
            ids = nodes
        elif steps is not None:
            ids = [self._around(self.graph.nodes[node].group, steps) for node in nodes]
        else:
            ids = [f"{box.id}#{at + 1}" if at else box.id for at in range(count)]
        return Own(ids, self._box_facts(box, ids))

    def _steps(self, group: str | None, outer: str) -> int | None:
        """The number of steps from a group out to another, None if it is not in it."""
        steps = 0
        while group is not None and group != outer:
            group, steps = self.graph.groups[group].parent, steps + 1
        return None if group is None else steps

    def _around(self, group: str, steps: int) -> str:
        for _ in range(steps):
            group = self.graph.groups[group].parent or ""
        return group

    def _box_facts(self, box: Box, ids: list[str]) -> dict[str, list[str]]:
        groups, nodes = self.graph.groups, self.graph.nodes
        inner = [
            key if key in groups else nodes[key].group
            for key in ids
            if key in nodes or key in groups
        ]
        facts = {"path": [groups[key].path for key in inner if key in groups]}
        for key, overlay in overlays_of(self.graph).items():
            if key == "flops":  # those of equal ones are equal
                continue
            known = self.page.amounts(key, False)
            facts[known.title] = [overlay.text(amount) for amount in known.of.get(box.id, [])]
        facts[DATA] = self.page.scalars(box)
        return {name: texts for name, texts in facts.items() if len(texts) == len(ids)}

    def tensor(self, key: str) -> tuple[str, Own] | None:
        """Return the box whose instances a tensor has, and these; None if there is but one."""
        if key not in self.homes:
            return None
        home, keys = self.homes[key]
        values = [self.graph.values[one] for one in keys]
        each = [dict(self.details.tensor(value)[0][2]) for value in values]
        for facts, value in zip(each, values, strict=True):
            facts["tooltip"] = "\n".join(self.page.tooltip(value)[1:])
        names = dict.fromkeys(name for facts in each for name in facts)
        columns = {name: [facts.get(name, "") for facts in each] for name in names}
        return home, Own(keys, {n: texts for n, texts in columns.items() if len(set(texts)) > 1})

    @property
    def folds(self) -> list[Box]:
        """Return the folded boxes whose members are known."""
        return [box for box in self.tree.boxes.values() if box.count > 1 and box.id in self.leaves]
