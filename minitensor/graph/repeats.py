"""Equal siblings, which can be drawn once.

A `ForwardGraph` is the forward graph as a tree of items. Its nodes are numbered in the order of
that tree, so an item, and any row of siblings, is a span of numbers. Two spans of equal content are
fed equally if each input comes from the same node in its span, is a weight of its own, or comes
from outside in one of four ways, which are the kinds of `Feed`.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import NamedTuple

from .model import Graph, Node

OWN = ("parameter", "buffer", "constant")  # kinds of values that each member may have its own of
_CANDIDATES = 8  # periods that are tried for each sibling


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
    lo: int = 0  # its nodes are `ForwardGraph.order[lo:hi]`
    hi: int = 0
    key: bytes = b""  # equal for items of equal content, however they are wired

    @property
    def is_op(self) -> bool:
        """True for one op, False for a module that has several."""
        return self.node is not None

    @property
    def ran(self) -> Node | None:
        """Its node, or a backward node whose forward node was not recorded."""
        return self.node or next(iter(self.backward), None)


class Reader(NamedTuple):
    """An input of a node, by the node's number; -1 is the caller, who reads the outputs."""

    number: int
    slot: int


class Feed(NamedTuple):
    """The origin of an input of a member, compared with that of the next member."""

    kind: str  # inside, same, own, chain, port (of one op), lockstep (with another repeat)
    node: int = 0  # of a chain: the number in the previous member; lockstep: of that repeat's first
    port: int = 0  # of a chain: its output; of ports: the step from one member to the next


Feeds = dict[tuple[int, int], Feed]  # by node in the member, and input
Profile = dict[tuple[int, int], list[tuple[str, str]]]  # readers, by node in the member and output


@dataclass
class Repeat:
    """Siblings `first`, `first + 1`, ...: `count` members of `period` items each."""

    first: int
    period: int
    count: int
    lo: int  # number of the first node of the first member
    size: int  # nodes of a member
    feeds: Feeds
    shared: bool

    def copies(self, number: int) -> range:
        """Return the nodes that a node of the first member is in all members."""
        return range(number, self.lo + self.count * self.size, self.size)

    def fan(self, number: int, slot: int) -> int:
        """Return how many members read what an input of a node of the first member reads."""
        return self.count if self.feeds[number - self.lo, slot].kind in ("same", "port") else 1


class ForwardGraph:
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
        self.numbers = {node.id: number for number, node in enumerate(self.order)}
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
        """Return the number of the node that made a value, -1 if none did."""
        producer = self.graph.values[value].producer
        return -1 if producer is None else self.numbers.get(producer, -1)

    def _key(self, item: Item) -> bytes:
        """Return a hash of the item's content, but not of the origin of its inputs."""
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

    def repeats(self, siblings: list[Item]) -> list[Repeat]:
        """Return the rows of equal siblings."""
        return _Search(self, siblings).find()

    def gradients(self, number: int) -> set[int]:
        """Return the inputs of a node for which its backward node gives a gradient."""
        return {self._gives[v].slot for rule in self._backward[number] for v in rule.outputs}

    def inner_gradients(self, number: int, lo: int, hi: int) -> list[tuple[int, int]]:
        """Return the gradients from inside a span that the backward node of a node reads."""
        given = (self._gives.get(v) for rule in self._backward[number] for v in rule.inputs)
        return sorted((n - lo, slot) for n, slot in filter(None, given) if lo <= n < hi)


def preorder(root: Item) -> list[Item]:
    """Return the item and all that is in it, outer before inner, in the order they ran."""
    found, waiting = [], [root]
    while waiting:
        item = waiting.pop()
        found.append(item)
        waiting.extend(reversed(item.children))
    return found


class _Search:
    """The search for repeats in one row of siblings."""

    def __init__(self, forward: ForwardGraph, siblings: list[Item]) -> None:
        self.forward = forward
        self.siblings = siblings
        self.starts = [item.lo for item in siblings]
        self.keys = [item.key for item in siblings]
        self.owner: dict[int, tuple[Repeat, int]] = {}  # of a folded sibling: its repeat and member

    def find(self) -> list[Repeat]:
        """Return all repeats of this row, none overlapping another, in order."""
        later: dict[bytes, int] = {}
        following = [0] * len(self.keys)  # the next sibling of equal content
        for index in range(len(self.keys) - 1, -1, -1):
            following[index] = later.get(self.keys[index], 0)
            later[self.keys[index]] = index
        found, index = [], 0
        while index < len(self.keys):
            repeat = self._longest(index, following)
            if repeat is None:
                index += 1
                continue
            found.append(repeat)
            for offset in range(repeat.period * repeat.count):
                self.owner[index + offset] = repeat, offset // repeat.period
            index += repeat.period * repeat.count
        while any(not self._is_sound(repeat) for repeat in found):
            found = [repeat for repeat in found if self._is_sound(repeat)]
            kept = {repeat.first for repeat in found}
            self.owner = {i: own for i, own in self.owner.items() if own[0].first in kept}
        return found

    def _longest(self, index: int, following: list[int]) -> Repeat | None:
        """Return the repeat from a sibling on that takes in most of them, of a few periods."""
        best, start = None, index
        for _ in range(_CANDIDATES):
            start = following[start]
            if not start or 2 * start - index > len(self.keys):
                break
            if best and start < index + best.count * best.period:
                continue  # the same repeat, in larger steps
            repeat = self._repeat(index, start - index)
            if repeat and (best is None or repeat.count * repeat.period > best.count * best.period):
                best = repeat
        return best

    def _repeat(self, first: int, period: int) -> Repeat | None:
        """Return the repeat of this period, as far as its members are equal."""
        keys, siblings = self.keys, self.siblings
        lo = siblings[first].lo
        size = siblings[first + period].lo - lo
        feeds: Feeds | None = None
        count, start = 1, first + period
        profile: Profile = {}
        while (
            keys[start : start + period] == keys[first : first + period]
            and siblings[start + period - 1].hi == lo + (count + 1) * size
        ):
            here = lo + (count - 1) * size
            found = self._feeds(here, size, count - 1)
            if found is None or (feeds is not None and found != feeds):
                break
            if feeds is None:
                profile = self._profile(here, size, 2 * size)
            elif self._profile(here, size, 2 * size) != profile:
                break
            feeds, count, start = found, count + 1, start + period
        if feeds is None:
            return None
        last = self._profile(lo + (count - 1) * size, size, size)
        for feed in feeds.values():  # others may read more of the end of a chain
            at = feed.node, feed.port
            if feed.kind == "chain" and set(profile[at]) <= set(last[at]):
                last[at] = profile[at]
        count -= last != profile
        if count < 2:
            return None
        values, order = self.forward.graph.values, self.forward.order
        weights = {
            feed.kind
            for (number, slot), feed in feeds.items()
            if values[order[lo + number].inputs[slot]].kind == "parameter"
        }
        return Repeat(first, period, count, lo, size, feeds, weights == {"same"})

    def _feeds(self, here: int, size: int, member: int) -> Feeds | None:
        """Return the feeds of the member from `here` on and the next one; None if unequal."""
        forward, values = self.forward, self.forward.graph.values
        there, end = here + size, here + 2 * size
        feeds: Feeds = {}
        for number in range(here, there):
            one, two = forward.order[number], forward.order[number + size]
            chained = set()
            for slot, (a, b) in enumerate(zip(one.inputs, two.inputs, strict=True)):
                made_a, made_b = forward.made_at(a), forward.made_at(b)
                port_a, port_b = values[a].port, values[b].port
                if here <= made_a < there or there <= made_b < end:
                    if made_b - made_a != size or port_a != port_b:
                        return None
                    feed = Feed("inside")
                elif here <= made_b < there:
                    feed = Feed("chain", made_b - here, port_b)
                    chained.add(slot)
                elif a == b:
                    feed = Feed("same")
                elif values[a].kind == values[b].kind and values[a].kind in OWN:
                    feed = Feed("own")
                elif made_a == made_b >= 0:
                    feed = Feed("port", 0, port_b - port_a)
                else:
                    repeat, index = self._member(made_a)
                    other, following = self._member(made_b)
                    if (
                        repeat is None
                        or repeat is not other
                        or (index, following) != (member, member + 1)
                        or made_b - made_a != repeat.size
                        or port_a != port_b
                    ):
                        return None
                    feed = Feed("lockstep", repeat.first)
                feeds[number - here, slot] = feed
            inner = forward.inner_gradients(number, here, there)
            if inner != forward.inner_gradients(number + size, there, end):
                return None
            missing = forward.gradients(number) ^ forward.gradients(number + size)
            if missing and (member or not missing <= chained):
                return None  # what enters the first member may not need a gradient
        return feeds

    def _sibling(self, number: int) -> int:
        """Return the sibling that a node is in, -1 if it is in none."""
        index = bisect_right(self.starts, number) - 1
        return index if index >= 0 and number < self.siblings[index].hi else -1

    def _member(self, number: int) -> tuple[Repeat | None, int]:
        """Return the repeat, and the member of it, that a node is in."""
        return self.owner.get(self._sibling(number), (None, 0))

    def _outside(self, value: str, lo: int, hi: int) -> list[Reader]:
        """Return the readers of a value outside a span of nodes."""
        return [r for r in self.forward.readers.get(value, ()) if not lo <= r.number < hi]

    def _port(self, reader: Reader) -> tuple[str, str]:
        """Return the op that reads, and its name for that input: for `cat`, the same for all."""
        if reader.number < 0:
            return "", ""
        node = self.forward.order[reader.number]
        named = reader.slot < len(node.input_names)
        return node.op, node.input_names[reader.slot] if named else str(reader.slot)

    def _profile(self, here: int, size: int, past: int) -> Profile:
        """Return the readers of each output of a member outside the first `past` nodes from it."""
        return {
            (number, port): sorted(map(self._port, self._outside(value, here, here + past)))
            for number, node in enumerate(self.forward.order[here : here + size])
            for port, value in enumerate(node.outputs)
        }

    def _is_sound(self, repeat: Repeat) -> bool:
        """Return True if one op reads all members, or a member of another repeat reads each."""
        order = self.forward.order
        locked = {feed.node for feed in repeat.feeds.values() if feed.kind == "lockstep"}
        if any(first not in self.owner for first in locked):
            return False
        hi = repeat.lo + repeat.count * repeat.size
        chained = {(feed.node, feed.port) for feed in repeat.feeds.values() if feed.kind == "chain"}
        for number, port in self._profile(repeat.lo, repeat.size, repeat.size):
            readers = [
                self._outside(order[copy].outputs[port], repeat.lo, hi)
                for copy in repeat.copies(repeat.lo + number)
            ]
            if (number, port) in chained:  # others may read the last one, too
                alike = {self._port(reader) for reader in readers[0]}
                readers[-1] = [r for r in readers[-1] if self._port(r) in alike]
            if len(set(map(len, readers))) > 1:
                return False
            if not all(map(self._in_turn, zip(*readers, strict=True))):
                return False
        return True

    def _in_turn(self, readers: tuple[Reader, ...]) -> bool:
        """Return True for equal readers: the inputs of one `cat` in turn, or one in each member."""
        first, second = readers[0], readers[min(1, len(readers) - 1)]
        if any(self._port(reader) != self._port(first) for reader in readers):
            return False
        if first.number == second.number:
            step = second.slot - first.slot
            in_turn = (Reader(first.number, first.slot + i * step) for i in range(len(readers)))
            return step >= 0 and all(map(Reader.__eq__, readers, in_turn))
        if all(self._sibling(reader.number) < 0 for reader in readers):
            return all(reader.slot == first.slot for reader in readers)
        repeat = self._member(first.number)[0]
        return repeat is not None and all(
            self._member(reader.number)[1] == i
            and reader == (first.number + i * repeat.size, first.slot)
            for i, reader in enumerate(readers)
        )
