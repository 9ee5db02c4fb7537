"""Tensors between the leaves of a folded graph, forward and backward.

A repeat is linked as its first member is: the others read alike, as folding has verified. A tensor
from one member to the next is not drawn; an input of the repeat goes to the first member, and an
output comes from the member that makes it.
"""

from __future__ import annotations

import math
from collections.abc import Container

from .items import preorder
from .model import Graph, Node
from .repeats import ForwardGraph, Repeat
from .scene import Link

_Links = dict[tuple[str, str], tuple[Link, set[str]]]  # those to one box, with their tensors


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
        self.ends = [value for value in graph.values if value in boxes]  # inputs and sources
        self.backward_nodes = self._find_backward_nodes()
        nodes = (graph.nodes[key] for key in self.backward_nodes)
        self.backward_gives = {v for node in nodes for v in node.outputs if node.inside is None}
        self.terms: dict[str, list[str]] = {}  # of a gradient of an opened op: those inside it
        for value in graph.values.values():
            if value.term is not None:
                self.terms.setdefault(value.term, []).append(value.id)
        self.inner_reads: dict[str, set[str]] = {}  # of the backward node of an opened op
        for node in graph.nodes.values():
            if node.of is not None and node.inside is not None:
                self.inner_reads.setdefault(node.inside, set()).update(node.inputs)
        self.found: list[Link] = []
        self.inside = self._find_inner_outputs()

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

    def _fan(self, number: int, slot: int) -> tuple[int, str]:
        """Return how many instances read what a node does, and "apart" if each reads its own."""
        around = self.enclosing[number]
        apart = any(each.feeds[number - each.lo, slot].kind == "port" for each in around)
        return math.prod(each.fan(number, slot) for each in around), "apart" if apart else ""

    def _link_inputs(self, number: int) -> None:
        """Link the inputs of a node; of an opened one, only those that nothing inside it reads."""
        node, item = self.forward.order[number], self.box[number]
        inner = self.forward.order[number + 1 : item.hi]
        covered = {value for other in inner for value in other.inputs}
        links: _Links = {}
        for slot, value in enumerate(node.inputs):
            if value in covered:
                continue
            alike, port = self._alike(number, slot), self._port(node, slot)
            fan = self._fan(number, slot) if len(alike) == 1 else (1, "")
            for each in alike:
                for source in self._sources(each):
                    direction = "onward" if self._is_gradient(each) else "forward"
                    link = Link(source[0], item.id, each, direction, port, *fan)
                    self._add(links, source, link)

    def _is_gradient(self, value: str) -> bool:
        """Return True for what a backward node made, or something inside one."""
        producer = self.graph.nodes.get(self.graph.values[value].producer or "")
        return producer is not None and producer.direction == "backward"

    def _alike(self, number: int, slot: int) -> list[str]:
        """Return what all members of repeats read at an input, if the first does not tell.

        Gradients of weights come from wherever the weights are, and the outputs of an opened op
        from different ops inside it.
        """
        value = self.forward.order[number].inputs[slot]
        numbers, gradient = [number], self._is_gradient(value)
        for repeat in reversed(self.enclosing[number]):  # from the inside out
            port = repeat.feeds[number - repeat.lo, slot].kind == "port"
            if gradient or (port and value in self.inside):
                shifts = [copy - number for copy in repeat.copies(number)]
                numbers = [n + shift for shift in shifts for n in numbers]
        return [self.forward.order[n].inputs[slot] for n in numbers]

    def _add(self, links: _Links, key: tuple[str, str], link: Link, tensor: str = "") -> None:
        """Add a link, or count its tensor as one more of a link from another member."""
        known, seen = links.setdefault(key, (link, set()))
        tensor = tensor or link.value
        if known is link or tensor in seen:
            self.found.append(link)
        else:
            known.fan, known.fanned = len(seen) + 1, "made"
            number = self.forward.made_at(link.value)
            if number >= 0 and number == self._drawn_as(number):  # a loop may fill a list backward
                known.value = link.value
        seen.add(tensor)

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
        while (inner := self.inside.get(self.forward.order[number].outputs[port])) is not None:
            number = self._drawn_as(self.forward.made_at(inner))
            port = self.graph.values[inner].port
        return self.box[number].id, f"{number}:{port}"

    def _sources(self, value: str) -> list[tuple[str, str]]:
        """Return the same for each term inside an opened op of which a gradient is the sum."""
        inner = [self.graph.values[term].producer or "" for term in self.terms.get(value, [])]
        if inner:
            return [(self.backward_nodes[node][2], value) for node in inner]
        source = self._source(value)
        return [] if source is None else [source]

    def _backward(self) -> None:
        """Link gradients, from the boxes that give them to those that read them."""
        graph = self.graph
        readers: dict[str, list[str]] = {}  # the boxes that read a gradient
        for node, (_, _, box) in self.backward_nodes.items():
            for value in self._read(graph.nodes[node]):
                readers.setdefault(value, []).append(box)
        self._handed_in()
        passes = (graph.nodes[node] for node in self.backward_nodes)
        for value in dict.fromkeys(v for node in passes if not node.inside for v in node.inputs):
            seed = graph.values[value]
            if seed.kind == "gradient" and seed.producer is None and seed.of in graph.outputs:
                self._gradients(f"output:{seed.of}", [seed.id], -1, readers)
        for node, (number, drawn, box) in self.backward_nodes.items():
            if number == self._whole(drawn):
                self._gradients(box, graph.nodes[node].outputs, drawn, readers)

    def _read(self, node: Node) -> list[str]:
        """Return what a backward node reads; of an opened op, what nothing inside it reads."""
        inner = self.inner_reads.get(node.id, ())
        return [value for value in node.inputs if value not in inner]

    def _whole(self, drawn: int) -> int:
        """Return the node whose backward stands for that of a drawn one, which may have less."""
        around = self.enclosing[drawn] if drawn >= 0 else ()
        return drawn + sum(each.size for each in around if each.pale)

    def _is_of_other(self, gradient: str) -> bool:
        """Return True for a gradient that a turn reads whose backward is not drawn."""
        of = self.graph.values[gradient].of
        number = self.forward.made_at(of) if of in self.graph.values else -1
        return number >= 0 and number != self._whole(self._drawn_as(number))

    def _goes_back(self, drawn: int, slot: int) -> bool:
        """Return True for the gradient of what came from the turn before: an arrow of the loop."""
        around = (each for each in self.enclosing[drawn] if each.pale)
        return any(each.feeds[drawn - each.lo, slot].kind == "chain" for each in around)

    def _handed_in(self) -> None:
        """Link what a backward reads and no op keeps for it: gradients that the program gives."""
        known = {(link.source, link.target) for link in self.found}
        given: dict[tuple[str, str, str], None] = {}
        for key, (number, drawn, box) in self.backward_nodes.items():
            node = self.graph.nodes[key]
            kept = self._kept(node)
            for value in self._read(node) if number == self._whole(drawn) else ():
                producer = self.graph.values[value].producer
                source = None if producer in self.backward_nodes else self._source(value)
                if source is not None and value not in kept and (source[0], box) not in known:
                    given[source[0], box, value] = None
        self.found += [Link(*each, "backward") for each in given if each[0] != each[1]]

    def _kept(self, node: Node) -> set[str]:
        """Return what the ops keep that a backward node, or what runs in one, belongs to."""
        kept: set[str] = set()
        outer: Node | None = node
        while outer is not None and outer.direction == "backward":
            outer = self.graph.nodes.get(outer.of or outer.inside or "")
            kept.update(outer.saved if outer is not None else ())
        return kept

    def _find_inner_outputs(self) -> dict[str, str]:
        """Return, for outputs of opened ops, the value inside that equals them."""
        found = {}
        for value in self.graph.values.values():
            node = self.graph.nodes.get(value.producer or "")
            whole = self.graph.values.get(value.of or "")
            opened = node and whole and node.inside is not None and node.inside == whole.producer
            if whole and opened and whole.kind != "gradient":
                found[whole.id] = value.id
        return found

    def _find_backward_nodes(self) -> dict[str, tuple[int, int, str]]:
        """Return by backward node, and what ran in one: the number of the op it belongs to.

        Besides this number, -1 for none, the one that is drawn for it, and the box.
        """
        found = {}
        for node in self.graph.nodes.values():
            if node.direction == "backward":
                item = self.forward.item_of[node.id]
                drawn = self._drawn_as(item.lo) if item.is_op else -1
                box = self.box[drawn].id if item.is_op else item.id
                found[node.id] = item.lo if item.is_op else -1, drawn, box
        return found

    def _gradients(
        self, source: str, values: list[str], number: int, readers: dict[str, list[str]]
    ) -> None:
        """Link the gradients that a box gives; `number` is its drawn forward node, or -1."""
        links: _Links = {}
        given = [self.graph.values[v].term or v for v in values if v not in self.terms]
        for value in sorted(given, key=self._is_of_other):
            of = self.graph.values[value].of or ""
            if of in self.backward_gives and self.graph.values[value].kind != "gradient":
                continue  # the last value inside, which equals a gradient that the whole gives
            read = self.forward.order[self._whole(number)].inputs if number >= 0 else []
            if of in read and self._goes_back(number, read.index(of)):
                continue
            slot = read.index(of) if of in read else -1
            alike = self._gradients_alike(number, slot, value)
            fan = self._fan(number, slot) if slot >= 0 and len(alike) == 1 else (1, "")
            for each in alike:
                of = self.graph.values[each].of or ""
                origin = self._source(of) if of in self.graph.values else None
                ends = [of] if of in self.ends else []
                targets = dict.fromkeys(readers.get(each, []) + ends)
                targets.pop(source, None)  # what runs inside a backward node is not drawn
                for target in targets:
                    key = target, origin[1] if origin else each
                    self._add(links, key, Link(source, target, each, "backward", "", *fan), of)

    def _gradients_alike(self, number: int, slot: int, gradient: str) -> list[str]:
        """Return what all members of repeats give for an input, if the first does not tell.

        The gradients of the outputs of an opened op go to different ops inside it.
        """
        if slot < 0 or self.forward.order[number].inputs[slot] not in self.inside:
            return [gradient]
        numbers = [number]
        for repeat in reversed(self.enclosing[number]):  # from the inside out
            if repeat.feeds[number - repeat.lo, slot].kind == "port":
                shifts = [copy - number for copy in repeat.copies(number)]
                numbers = [n + shift for shift in shifts for n in numbers]
        given = (self.forward.gradient_of(n, slot) for n in numbers[1:])
        return [gradient, *(each for each in given if each is not None)]
