"""Tensors between the leaves of a folded graph, forward and backward.

A repeat is linked as its first member is: the others read alike, as folding has verified. A tensor
from one member to the next is not drawn; an input of the repeat goes to the first member, and an
output comes from the member that makes it.
"""

from __future__ import annotations

import math
from collections.abc import Container

from .model import Graph, Node
from .repeats import ForwardGraph, Repeat, preorder
from .scene import Link

_Links = dict[tuple[str, str], tuple[Link, set[str]]]  # those to one box, with their values


class Linker:
    """Finds the links between the leaves that are drawn, which are `boxes`.

    `representative` has the node that is drawn in place of each, `enclosing` the repeats it is in.
    """

    def __init__(
        self,
        graph: Graph,
        forward: ForwardGraph,
        boxes: Container[str],
        representative: list[int],
        enclosing: list[list[Repeat]],
    ) -> None:
        self.graph = graph
        self.forward = forward
        self.representative = representative
        self.enclosing = enclosing
        self.box = {item.lo: item for item in preorder(forward.root) if item.is_op}
        self.ends = dict.fromkeys(v for v in graph.inputs if v in boxes)
        self.backward_nodes = self._find_backward_nodes()
        self.found: list[Link] = []
        self.inner_outputs: dict[int, list[tuple[int, int] | None]] = {}

    def links(self) -> list[Link]:
        """Return forward links in the order of the ops that read, then backward ones."""
        for number in self._drawn():
            self._link_inputs(number)
        for value in dict.fromkeys(self.graph.outputs):
            source = self._source(value)
            if source is not None:
                self.found.append(Link(source[0], f"output:{value}", value))
        self._backward()
        return self.found

    def instances(self) -> dict[str, list[str]]:
        """Return the nodes that each drawn node represents, in the order they ran, itself first."""
        found: dict[str, list[str]] = {}
        for number, node in enumerate(self.forward.order):
            drawn = self.forward.order[self._drawn_as(number)]
            found.setdefault(drawn.id, []).append(node.id)
        return found

    def _drawn(self) -> list[int]:
        """Return the numbers of the nodes that are drawn."""
        return [n for n, drawn in enumerate(self.representative) if n == drawn]

    def _drawn_as(self, number: int) -> int:
        """Return the number of the node that is drawn for a node."""
        while (drawn := self.representative[number]) != number:
            number = drawn
        return number

    def _fan(self, number: int, slot: int) -> int:
        return math.prod(repeat.fan(number, slot) for repeat in self.enclosing[number])

    def _link_inputs(self, number: int) -> None:
        """Link the inputs of a node; of an opened one, only those that nothing inside it reads."""
        node, item = self.forward.order[number], self.box[number]
        inner = self.forward.order[number + 1 : item.hi]
        covered = {value for other in inner for value in other.inputs}
        links: _Links = {}
        for slot, value in enumerate(node.inputs):
            source = self._source(value) if value not in covered else None
            if source is None:
                continue
            fan = self._fan(number, slot)
            link = Link(source[0], item.id, value, port=self._port(node, slot), fan=fan)
            self._add(links, source, link)

    def _add(self, links: _Links, key: tuple[str, str], link: Link) -> None:
        """Add a link, or count its value as one more of a link from another member."""
        known, seen = links.setdefault(key, (link, set()))
        if known is link or link.value in seen:
            self.found.append(link)
        else:
            known.fan = len(seen) + 1
        seen.add(link.value)

    def _port(self, node: Node, slot: int) -> str:
        """Return the name that the outermost op has for an input: it may be drawn closed."""
        value = node.inputs[slot]
        while (outer := self.graph.nodes.get(node.inside or "")) and value in outer.inputs:
            node, slot = outer, outer.inputs.index(value)
        names = node.input_names
        return names[slot] if slot < len(names) else ""

    def _source(self, value: str) -> tuple[str, str] | None:
        """Return the leaf that gives a value, and a key that is one for all members."""
        number = self.forward.made_at(value)
        if number < 0:
            node = self.backward_nodes.get(self.graph.values[value].producer or "")
            if node is not None:  # a gradient that the program goes on with
                return node[2], value
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
        """Return, for each output of an opened op, the node and output inside that equals it."""
        if number in self.inner_outputs:
            return self.inner_outputs[number]
        values, order = self.graph.values, self.forward.order
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
        """Link gradients, from the boxes that give them to those that read them."""
        graph = self.graph
        readers: dict[str, list[str]] = {}  # the boxes that read a gradient
        for node, (_, _, box) in self.backward_nodes.items():
            for value in graph.nodes[node].inputs:
                readers.setdefault(value, []).append(box)
        for seed in graph.values.values():
            if seed.kind == "gradient" and seed.producer is None and seed.of in graph.outputs:
                self._gradients(f"output:{seed.of}", [seed.id], -1, readers)
        for node, (number, drawn, box) in self.backward_nodes.items():
            if number == drawn:
                self._gradients(box, graph.nodes[node].outputs, number, readers)

    def _find_backward_nodes(self) -> dict[str, tuple[int, int, str]]:
        """Return by backward node: its forward node's number, its representative's, the box."""
        found = {}
        for item in preorder(self.forward.root):
            for node in item.backward:
                if item.is_op:
                    drawn = self._drawn_as(item.lo)
                    found[node.id] = item.lo, drawn, self.box[drawn].id
                else:
                    found[node.id] = -1, -1, item.id
        return found

    def _gradients(
        self, source: str, values: list[str], number: int, readers: dict[str, list[str]]
    ) -> None:
        """Link the gradients that a box gives; `number` is its forward node, or -1."""
        links: _Links = {}
        for value in values:
            of = self.graph.values[value].of or ""
            read = self.forward.order[number].inputs if number >= 0 else []
            fan = self._fan(number, read.index(of)) if of in read else 1
            origin = self._source(of) if of in self.graph.values else None
            ends = [of] if of in self.ends else []
            for target in dict.fromkeys(readers.get(value, []) + ends):
                key = target, origin[1] if origin else value
                self._add(links, key, Link(source, target, value, "backward", fan=fan))
