"""Which tensors go between the leaves of a folded graph, forward and backward.

What is drawn once is linked as its first member is: the others read alike, which is what folding
verified. A tensor from one member to the next is not drawn; what enters a run goes to the first,
and what leaves it comes from whichever member gives it.
"""

from __future__ import annotations

import math
from collections.abc import Container

from .model import Graph, Node
from .repeats import Run, Skeleton, preorder
from .scene import Link


class Linker:
    """Finds the links between the leaves that are drawn, which are `boxes`.

    `stands_in` has the node that is drawn in place of each, `around` the runs each is drawn in.
    """

    def __init__(
        self,
        graph: Graph,
        skeleton: Skeleton,
        boxes: Container[str],
        stands_in: list[int],
        around: list[list[Run]],
    ) -> None:
        self.graph = graph
        self.skeleton = skeleton
        self.stands_in = stands_in
        self.around = around
        self.box = {item.lo: item for item in preorder(skeleton.root) if item.is_op}
        self.ends = dict.fromkeys(v for v in graph.inputs if v in boxes)
        self.rules = self._rules()
        self.found: list[Link] = []
        self.inner_outputs: dict[int, list[tuple[int, int] | None]] = {}

    def links(self) -> list[Link]:
        """Forward links in the order of the ops that read, then backward ones."""
        for number in self._drawn():
            self._forward(number)
        for value in dict.fromkeys(self.graph.outputs):
            source = self._source(value)
            if source is not None:
                self.found.append(Link(source[0], f"output:{value}", value))
        self._backward()
        return self.found

    def instances(self) -> dict[str, list[str]]:
        """The nodes that each drawn node stands for, in the order they ran, itself first."""
        found: dict[str, list[str]] = {}
        for number, node in enumerate(self.skeleton.order):
            drawn = self.skeleton.order[self._drawn_as(number)]
            found.setdefault(drawn.id, []).append(node.id)
        return found

    def _drawn(self) -> list[int]:
        """The numbers of the nodes that are drawn, and not stood for by others."""
        return [n for n, drawn in enumerate(self.stands_in) if n == drawn]

    def _drawn_as(self, number: int) -> int:
        """The number of the node that is drawn for a node."""
        while (drawn := self.stands_in[number]) != number:
            number = drawn
        return number

    def _fan(self, number: int, slot: int) -> int:
        return math.prod(run.fan(number, slot) for run in self.around[number])

    def _forward(self, number: int) -> None:
        """The links to a node; to a fused one, only those that nothing inside it stands for."""
        node, item = self.skeleton.order[number], self.box[number]
        inner = self.skeleton.order[number + 1 : item.hi]
        covered = {value for other in inner for value in other.inputs}
        links: dict[tuple[str, str], tuple[Link, set[str]]] = {}
        for slot, value in enumerate(node.inputs):
            source = self._source(value) if value not in covered else None
            if source is None:
                continue
            if source in links and value not in links[source][1]:
                link, seen = links[source]  # what another member gives
                seen.add(value)
                link.fan = len(seen)
                continue
            link = Link(source[0], item.id, value, port=self._port(node, slot))
            link.fan = self._fan(number, slot)
            self.found.append(link)
            links.setdefault(source, (link, {value}))

    def _port(self, node: Node, slot: int) -> str:
        """What the outermost op that reads an input calls it: a fused op is drawn closed, too."""
        value = node.inputs[slot]
        while (outer := self.graph.nodes.get(node.inside or "")) and value in outer.inputs:
            node, slot = outer, outer.inputs.index(value)
        names = node.input_names
        return names[slot] if slot < len(names) else ""

    def _source(self, value: str) -> tuple[str, str] | None:
        """The leaf that gives a value, and what to call the value if members give several."""
        number = self.skeleton.made_at(value)
        if number < 0:
            rule = self.rules.get(self.graph.values[value].producer or "")
            if rule is not None:  # a gradient that the program goes on with
                return rule[2], value
            return (value, value) if value in self.ends else None
        number, port = self._drawn_as(number), self.graph.values[value].port
        while self.box[number].children:
            inner = self._inner_outputs(number)[port]
            if inner is None:
                break
            number, port = inner
            number = self._drawn_as(number)
        return self.box[number].id, f"{number}:{port}"

    def _inner_outputs(self, number: int) -> list[tuple[int, int] | None]:
        """For each output of a fused op, the node and output inside that stands for it."""
        if number in self.inner_outputs:
            return self.inner_outputs[number]
        values, order = self.graph.values, self.skeleton.order
        inside = range(number + 1, self.box[number].hi)
        read = {value for n in inside for value in order[n].inputs}
        last = [
            (n, port, values[value].shape)
            for n in inside
            if order[n].inside == order[number].id
            for port, value in enumerate(order[n].outputs)
            if value not in read
        ]
        chosen: list[tuple[int, int] | None] = []
        for value in order[number].outputs:
            fitting = [each for each in last if each[2] == values[value].shape]
            if fitting:
                last.remove(fitting[0])
            chosen.append(fitting[0][:2] if fitting else None)
        self.inner_outputs[number] = chosen
        return chosen

    def _backward(self) -> None:
        """Links of gradients, from what gives them to what reads them."""
        graph = self.graph
        readers: dict[str, list[str]] = {}  # the boxes that read a gradient
        for rule, (_, _, box) in self.rules.items():
            for value in graph.nodes[rule].inputs:
                readers.setdefault(value, []).append(box)
        for seed in graph.values.values():
            if seed.kind == "gradient" and seed.producer is None and seed.of in graph.outputs:
                self._gradients(f"output:{seed.of}", [seed.id], -1, readers)
        for rule, (number, drawn, box) in self.rules.items():
            if number == drawn:
                self._gradients(box, graph.nodes[rule].outputs, number, readers)

    def _rules(self) -> dict[str, tuple[int, int, str]]:
        """By backward node: its forward node's number, that of the one drawn for it, the box."""
        rules = {}
        for item in preorder(self.skeleton.root):
            for rule in item.backward:
                if item.is_op:
                    drawn = self._drawn_as(item.lo)
                    rules[rule.id] = item.lo, drawn, self.box[drawn].id
                else:
                    rules[rule.id] = -1, -1, item.id
        return rules

    def _gradients(
        self, source: str, values: list[str], number: int, readers: dict[str, list[str]]
    ) -> None:
        """The links of the gradients that a box gives; `number` is its forward node, or -1."""
        links: dict[tuple[str, str], tuple[Link, set[str]]] = {}
        for value in values:
            of = self.graph.values[value].of or ""
            read = self.skeleton.order[number].inputs if number >= 0 else []
            fan = self._fan(number, read.index(of)) if of in read else 1
            origin = self._source(of) if of in self.graph.values else None
            ends = [of] if of in self.ends else []
            for target in dict.fromkeys(readers.get(value, []) + ends):
                key = target, origin[1] if origin else value
                if key in links:
                    link, seen = links[key]
                    seen.add(value)
                    link.fan = len(seen)
                    continue
                link = Link(source, target, value, "backward", fan=fan)
                self.found.append(link)
                links[key] = link, {value}
