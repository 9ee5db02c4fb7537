"""Which siblings are equal, and so can be drawn once.

A `Skeleton` is the forward graph as a tree of items. Its nodes are numbered in the order of that
tree, so an item, and any row of siblings, is a span of numbers. Two spans of equal content are
*wired* equally if each input comes from the same place in its span, is a weight of its own, or
comes from outside in one of four ways, which are the kinds of `Wire`.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import NamedTuple

from .model import Graph, Node

OWN = ("parameter", "buffer", "constant")  # kinds of values that each member may have its own of
_CANDIDATES = 8  # periods that are tried at each place


@dataclass
class Item:
    """A module call or an op, before anything is folded."""

    id: str
    group: str | None  # the module it is; of an op, if it is all there is in that module
    node: Node | None
    parameters: list[str]
    settings: str = ""
    children: list[Item] = field(default_factory=list)
    backward: list[Node] = field(default_factory=list)
    lo: int = 0  # its nodes are `Skeleton.order[lo:hi]`
    hi: int = 0
    key: bytes = b""  # equal for items of equal content, however they are wired

    @property
    def is_op(self) -> bool:
        """Whether it is one op, and not a module that has several."""
        return self.node is not None

    @property
    def runs(self) -> Node | None:
        """Its node; of a backward rule whose forward op was not recorded, that rule."""
        return self.node or next(iter(self.backward), None)


class Reader(NamedTuple):
    """An input of a node, by the node's number; -1 stands for who called the program."""

    number: int
    slot: int


class Wire(NamedTuple):
    """Where an input of a member comes from, told by where that of the next member does."""

    kind: str  # inside, same, own, chain, port (of one op), lockstep (with another run)
    place: int = 0  # of a chain: the node in the previous member; lockstep: where that run begins
    port: int = 0  # of a chain: its output; of ports: the step from one member to the next


@dataclass
class Run:
    """Siblings `first`, `first + 1`, ...: `count` members of `period` items each."""

    first: int
    period: int
    count: int
    lo: int  # number of the first node of the first member
    size: int  # nodes of a member
    wires: dict[tuple[int, int], Wire]  # by node in the member, and input
    shared: bool

    def fan(self, number: int, slot: int) -> int:
        """How many members read what this input of a node of the first member reads."""
        return self.count if self.wires[number - self.lo, slot].kind in ("same", "port") else 1


class Skeleton:
    """The forward nodes of a graph in the order of its tree, with who made and who reads what."""

    def __init__(self, graph: Graph, root: Item) -> None:
        self.graph = graph
        self.root = root
        self.order: list[Node] = []
        items = preorder(root)
        for item in items:
            item.lo = len(self.order)
            if item.node is not None:
                self.order.append(item.node)
        self.place = {node.id: number for number, node in enumerate(self.order)}
        self.readers: dict[str, list[Reader]] = {}
        for number, node in enumerate(self.order):
            for slot, value in enumerate(node.inputs):
                self.readers.setdefault(value, []).append(Reader(number, slot))
        for slot, value in enumerate(graph.outputs):
            self.readers.setdefault(value, []).append(Reader(-1, slot))
        self._backward: list[list[Node]] = [[]] * len(self.order)
        for item in reversed(items):
            item.hi = item.children[-1].hi if item.children else item.lo + item.is_op
            if item.is_op:
                self._backward[item.lo] = item.backward
            item.key = self._key(item)
        self._gives: dict[str, Reader] = {}  # of a gradient: the input it is the gradient of
        for number, node in enumerate(self.order):
            slots = {value: slot for slot, value in enumerate(node.inputs)}
            for rule in self._backward[number]:
                for value in rule.outputs:
                    slot = slots.get(graph.values[value].of or "", -1)
                    self._gives[value] = Reader(number, slot)

    def made_at(self, value: str) -> int:
        """The number of the node that made a value, -1 if none did."""
        producer = self.graph.values[value].producer
        return -1 if producer is None else self.place.get(producer, -1)

    def _key(self, item: Item) -> bytes:
        """A hash of what the item is, but not of where its inputs come from."""
        values, node = self.graph.values, item.node
        content: list[object] = [item.settings, [child.key.hex() for child in item.children]]
        if item.group is not None:
            content.append(self.graph.groups[item.group].kind)
        if node is None:
            content += [rule.id for rule in item.backward]  # of no forward op: equal to nothing
        else:
            shapes = [
                [values[v].dims, values[v].shape, values[v].dtype]
                for v in (*node.inputs, *node.outputs)
            ]
            content += [node.op, node.attributes, node.direction, node.input_names]
            content += [shapes, len(node.inputs), len(node.saved)]
            content += [[rule.op, rule.attributes] for rule in item.backward]
        text = json.dumps(content, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).digest()

    def runs(self, siblings: list[Item]) -> list[Run]:
        """Rows of equal siblings: what `_Search` finds, less what others read unequally."""
        return _Search(self, siblings).find()

    def gradients(self, number: int) -> set[int]:
        """The inputs of a node for which its backward gives a gradient."""
        return {self._gives[v].slot for rule in self._backward[number] for v in rule.outputs}

    def inner_gradients(self, number: int, lo: int, hi: int) -> list[tuple[int, int]]:
        """Which gradients from inside a span the backward of a node reads."""
        given = (self._gives.get(v) for rule in self._backward[number] for v in rule.inputs)
        return sorted((n - lo, slot) for n, slot in filter(None, given) if lo <= n < hi)


def preorder(root: Item) -> list[Item]:
    """The item and all that is in it, outer before inner, in the order they ran."""
    found, waiting = [], [root]
    while waiting:
        item = waiting.pop()
        found.append(item)
        waiting.extend(reversed(item.children))
    return found


class _Search:
    """The search for runs in one row of siblings."""

    def __init__(self, skeleton: Skeleton, siblings: list[Item]) -> None:
        self.skeleton = skeleton
        self.siblings = siblings
        self.starts = [item.lo for item in siblings]
        self.keys = [item.key for item in siblings]
        self.owner: dict[int, tuple[Run, int]] = {}  # of a folded sibling: its run and member

    def find(self) -> list[Run]:
        """All runs of this row, none overlapping another, in order."""
        later: dict[bytes, int] = {}
        following = [0] * len(self.keys)  # the next sibling of equal content
        for index in range(len(self.keys) - 1, -1, -1):
            following[index] = later.get(self.keys[index], 0)
            later[self.keys[index]] = index
        found, index = [], 0
        while index < len(self.keys):
            run = self._longest(index, following)
            if run is None:
                index += 1
                continue
            found.append(run)
            for offset in range(run.period * run.count):
                self.owner[index + offset] = run, offset // run.period
            index += run.period * run.count
        while any(not self._is_sound(run) for run in found):
            found = [run for run in found if self._is_sound(run)]
            kept = {run.first for run in found}
            self.owner = {i: own for i, own in self.owner.items() if own[0].first in kept}
        return found

    def _longest(self, index: int, following: list[int]) -> Run | None:
        """The run from a sibling on that takes in most siblings, of those with few periods."""
        best, place = None, index
        for _ in range(_CANDIDATES):
            place = following[place]
            if not place or 2 * place - index > len(self.keys):
                break
            if best and place < index + best.count * best.period:
                continue  # the same run, in larger steps
            run = self._run(index, place - index)
            if run and (best is None or run.count * run.period > best.count * best.period):
                best = run
        return best

    def _run(self, first: int, period: int) -> Run | None:
        """The run of this period, as far as its members are equal."""
        keys, siblings = self.keys, self.siblings
        lo = siblings[first].lo
        size = siblings[first + period].lo - lo
        wires: list[Wire] | None = None
        count, place = 1, first + period
        profile: list[list[tuple[str, str]]] = []
        while (
            keys[place : place + period] == keys[first : first + period]
            and siblings[place + period - 1].hi == lo + (count + 1) * size
        ):
            here = lo + (count - 1) * size
            found = self._wires(here, size, count - 1)
            if found is None or (wires is not None and found != wires):
                break
            if wires is None:
                profile = self._profile(here, size, 2 * size)
            elif self._profile(here, size, 2 * size) != profile:
                break
            wires, count, place = found, count + 1, place + period
        if wires is None:
            return None
        chained = {(wire.place, wire.port) for wire in wires if wire.kind == "chain"}
        last = self._profile(lo + (count - 1) * size, size, size)
        if not self._agree(profile, last, lo, size, chained):
            count -= 1
        if count < 2:
            return None
        slots = (
            (number, slot)
            for number in range(size)
            for slot in range(len(self.skeleton.order[lo + number].inputs))
        )
        named = dict(zip(slots, wires, strict=True))
        weights = {
            wire.kind
            for (number, slot), wire in named.items()
            if self._kind(self.skeleton.order[lo + number].inputs[slot]) == "parameter"
        }
        return Run(first, period, count, lo, size, named, weights == {"same"})

    def _kind(self, value: str) -> str:
        return self.skeleton.graph.values[value].kind

    def _wires(self, here: int, size: int, member: int) -> list[Wire] | None:
        """How the member that begins at `here` and the next one are wired; None if not equally."""
        skeleton, values = self.skeleton, self.skeleton.graph.values
        there, end = here + size, here + 2 * size
        wires = []
        for number in range(here, there):
            one, two = skeleton.order[number], skeleton.order[number + size]
            for a, b in zip(one.inputs, two.inputs, strict=True):
                made_a, made_b = skeleton.made_at(a), skeleton.made_at(b)
                port_a, port_b = values[a].port, values[b].port
                if here <= made_a < there or there <= made_b < end:
                    if made_b - made_a != size or port_a != port_b:
                        return None
                    wires.append(Wire("inside"))
                elif here <= made_b < there:
                    wires.append(Wire("chain", made_b - here, port_b))
                elif a == b:
                    wires.append(Wire("same"))
                elif values[a].kind == values[b].kind and values[a].kind in OWN:
                    wires.append(Wire("own"))
                elif made_a == made_b >= 0:
                    wires.append(Wire("port", 0, port_b - port_a))
                else:
                    run, index = self._member(made_a)
                    other, following = self._member(made_b)
                    if (
                        run is None
                        or run is not other
                        or (index, following) != (member, member + 1)
                        or made_b - made_a != run.size
                        or port_a != port_b
                    ):
                        return None
                    wires.append(Wire("lockstep", run.first))
            inner = skeleton.inner_gradients(number, here, there)
            if inner != skeleton.inner_gradients(number + size, there, end):
                return None
            missing = skeleton.gradients(number) ^ skeleton.gradients(number + size)
            first = len(wires) - len(one.inputs)
            if any(member or wires[first + slot].kind != "chain" for slot in missing):
                return None  # what enters the first member may not need a gradient
        return wires

    def _sibling(self, number: int) -> int:
        """The sibling that a node is in, -1 if it is in none."""
        index = bisect_right(self.starts, number) - 1
        return index if index >= 0 and number < self.siblings[index].hi else -1

    def _member(self, number: int) -> tuple[Run | None, int]:
        """The run, and the member of it, that a node is in."""
        return self.owner.get(self._sibling(number), (None, 0))

    def _outside(self, value: str, lo: int, hi: int) -> list[Reader]:
        """The readers of a value that are not in a span of nodes."""
        return [r for r in self.skeleton.readers.get(value, ()) if not lo <= r.number < hi]

    def _port(self, reader: Reader) -> tuple[str, str]:
        """The op that reads, and what it calls that input: for `cat`, the same for all."""
        if reader.number < 0:
            return "", ""
        node = self.skeleton.order[reader.number]
        named = reader.slot < len(node.input_names)
        return node.op, node.input_names[reader.slot] if named else str(reader.slot)

    def _profile(self, here: int, size: int, past: int) -> list[list[tuple[str, str]]]:
        """What reads each value of a member, leaving out the first `past` nodes from it."""
        return [
            sorted(map(self._port, self._outside(value, here, here + past)))
            for node in self.skeleton.order[here : here + size]
            for value in node.outputs
        ]

    def _agree(
        self,
        profile: list[list[tuple[str, str]]],
        last: list[list[tuple[str, str]]],
        lo: int,
        size: int,
        chained: set[tuple[int, int]],
    ) -> bool:
        """Whether the last member is read like the others; of what they chain, others may read."""
        outputs = (
            (number, port)
            for number in range(size)
            for port in range(len(self.skeleton.order[lo + number].outputs))
        )
        pairs = zip(outputs, profile, last, strict=True)
        return all(set(a) <= set(b) if output in chained else a == b for output, a, b in pairs)

    def _is_sound(self, run: Run) -> bool:
        """Whether all members are read by one op, or each by its member of another run."""
        order = self.skeleton.order
        locked = {wire.place for wire in run.wires.values() if wire.kind == "lockstep"}
        if any(first not in self.owner for first in locked):
            return False
        hi = run.lo + run.count * run.size
        chained = {(w.place, w.port) for w in run.wires.values() if w.kind == "chain"}
        for number in range(run.size):
            for port in range(len(order[run.lo + number].outputs)):
                readers = [
                    self._outside(order[run.lo + number + i * run.size].outputs[port], run.lo, hi)
                    for i in range(run.count)
                ]
                if (number, port) in chained:  # others may read the last one besides
                    alike = {self._port(reader) for reader in readers[0]}
                    readers[-1] = [r for r in readers[-1] if self._port(r) in alike]
                if len({len(row) for row in readers}) > 1 or not all(
                    self._in_turn(row) for row in zip(*readers, strict=True)
                ):
                    return False
        return True

    def _in_turn(self, readers: tuple[Reader, ...]) -> bool:
        """Whether these read as equals: one `cat` its inputs in turn, or each i-th in member i."""
        first, second = readers[0], readers[min(1, len(readers) - 1)]
        if any(self._port(reader) != self._port(first) for reader in readers):
            return False
        if first.number == second.number:
            step = second.slot - first.slot
            in_turn = (Reader(first.number, first.slot + i * step) for i in range(len(readers)))
            return step >= 0 and all(map(Reader.__eq__, readers, in_turn))
        if all(self._sibling(reader.number) < 0 for reader in readers):
            return all(reader.slot == first.slot for reader in readers)
        run = self._member(first.number)[0]
        return run is not None and all(
            self._member(reader.number)[1] == i
            and reader == (first.number + i * run.size, first.slot)
            for i, reader in enumerate(readers)
        )
