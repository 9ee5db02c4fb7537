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
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from .items import Item, Items, preorder
from .model import Graph, Node, Value
from .turns import NUMBER, numbers

OWN = ("parameter", "buffer", "constant")  # kinds of values that each member may have its own of
_CANDIDATES = 8  # periods that are tried for each sibling
_INDEXING = ("getitem", "setitem", "select", "narrow")  # ops in which a loop counts its turns


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
Steps = dict[int, list[int]]  # by node in the member: by how much its numbers grow each turn
Made = tuple[int, int, int]  # node in the member, its rule (-1 forward, else backward), output
Profile = dict[Made, list[tuple[str, str]]]  # readers


@dataclass
class Repeat:
    """Siblings `first`, `first + 1`, ...: `count` members of `period` items each."""

    first: int
    period: int
    count: int
    lo: int  # number of the first node of the first member
    size: int  # nodes of a member
    feeds: Feeds
    steps: Steps  # of those nodes whose attributes count the turns
    shared: bool  # all members have the same weights
    loop: bool  # no member has weights of its own
    pale: bool  # the first member has less of a backward pass: what enters it has no gradient

    def copies(self, number: int) -> range:
        """Return the nodes that a node of the first member is in all members."""
        return range(number, self.lo + self.count * self.size, self.size)

    def without(self, alone: set[int]) -> list[Repeat]:
        """Return the repeats that are left between members that stand alone."""
        parts, start = [], 0
        for end in sorted({*alone, self.count}):
            if end - start > 1:
                first, lo = self.first + start * self.period, self.lo + start * self.size
                pale = self.pale and not start
                parts.append(replace(self, first=first, count=end - start, lo=lo, pale=pale))
            start = end + 1
        return parts

    def fan(self, number: int, slot: int) -> int:
        """Return how many members read what an input of a node of the first member reads."""
        return self.count if self.feeds[number - self.lo, slot].kind in ("same", "port") else 1


class ForwardGraph:
    """The forward nodes of a graph in the order of its tree, with who made and who reads what.

    The updates of weights count as forward nodes here.
    """

    def __init__(self, graph: Graph, items_of: Items) -> None:
        self.graph = graph
        self.root = root = items_of.root
        self.item_of = items_of.of
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
        self.backward: list[list[Node]] = [[]] * len(self.order)
        for item in reversed(items):
            item.hi = item.children[-1].hi if item.children else item.lo + item.is_op
            if item.is_op:
                self.backward[item.lo] = item.backward
            item.key = self._key(item)
        self._gives: dict[str, Reader] = {}  # of a gradient: the input it is the gradient of
        for number, node in enumerate(self.order):
            slots = {value: slot for slot, value in enumerate(node.inputs)}
            for rule in self.backward[number]:
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
        content: list[object] = [item.settings, item.label]
        if item.call:
            call = self.graph.calls[item.call]
            content += [call.name, call.attributes if node is None else {}]
        content.append([child.key.hex() for child in item.children])
        if item.group is not None:
            content.append(self.graph.groups[item.group].kind)
        if node is None:
            content += [rule.id for rule in item.backward]  # of no forward op: equal to nothing
        else:
            shapes = [
                [values[v].dims, values[v].shape, values[v].dtype]
                for v in (*node.inputs, *node.outputs)
            ]
            attributes: Any = node.attributes
            if node.op in _INDEXING:
                attributes = NUMBER.sub("#", json.dumps(attributes, sort_keys=True))
            content += [node.op, attributes, node.direction, node.gradient, node.input_names]
            content += [shapes, len(node.inputs)]
        text = json.dumps(content, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).digest()

    def made(self, number: int) -> Iterator[tuple[int, int, str]]:
        """Yield what a node makes, and its backward: the rule, -1 forward, the output, the value.

        A gradient goes by the input it is of. Of gradients only those that ops read, or an
        optimizer.
        """
        for port, value in enumerate(self.order[number].outputs):
            yield -1, port, value
        for at, rule in enumerate(self.backward[number]):
            for value in rule.outputs:
                if value in self.readers:
                    slot = self._gives[value].slot
                    yield at, slot if slot >= 0 else -1 - rule.outputs.index(value), value

    def repeats(self, siblings: list[Item]) -> list[Repeat]:
        """Return the rows of equal siblings."""
        return _Search(self, siblings).find()

    def gradients(self, number: int) -> set[int]:
        """Return the inputs of a node for which its backward node gives a gradient."""
        return {self._gives[v].slot for rule in self.backward[number] for v in rule.outputs}

    def gradient_of(self, number: int, slot: int) -> str | None:
        """Return the gradient that the backward node of a node gives for an input, if it does."""
        given = (value for rule in self.backward[number] for value in rule.outputs)
        return next((value for value in given if self._gives[value].slot == slot), None)

    def inner_gradients(self, number: int, lo: int, hi: int) -> list[tuple[int, int]]:
        """Return the gradients from inside a span that the backward node of a node reads."""
        given = (self._gives.get(v) for rule in self.backward[number] for v in rule.inputs)
        return sorted((n - lo, slot) for n, slot in filter(None, given) if lo <= n < hi)


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
        steps: Steps = {}
        count, start = 1, first + period
        profile: Profile = {}
        pale = False
        while (
            keys[start : start + period] == keys[first : first + period]
            and siblings[start + period - 1].hi == lo + (count + 1) * size
        ):
            here = lo + (count - 1) * size
            found, growth = self._feeds(here, size, count - 1), self._steps(here, size)
            if found is None or (feeds is not None and (found, growth) != (feeds, steps)):
                break
            alike = self._equally_differentiated(here, size, found)
            if alike is None or not (alike or feeds is None):
                break
            steps = growth
            read = self._profile(here, size, 2 * size)
            if feeds is None:
                profile, pale = read, not alike
            elif pale and count == 2 and profile.items() <= read.items():
                profile = read
            elif read != profile:
                break
            feeds, count, start = found, count + 1, start + period
        if feeds is None:
            return None
        last = self._profile(lo + (count - 1) * size, size, size)
        if pale and count == 2:
            last = {at: last[at] for at in profile}
        for feed in feeds.values():  # others may read more of the end of a chain
            at = feed.node, -1, feed.port
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
        loop = weights <= {"same", "chain"}  # a weight that each turn updates is the same one
        shared = loop and bool(weights)
        return Repeat(first, period, count, lo, size, feeds, steps, shared, loop, pale)

    def _steps(self, here: int, size: int) -> Steps:
        """Return by how much the numbers in attributes grow from a member to the next one."""
        order, found = self.forward.order, {}
        for number in range(here, here + size):
            one, two = order[number].attributes, order[number + size].attributes
            if one != two:
                pairs = zip(numbers(one), numbers(two), strict=True)
                found[number - here] = [b - a for a, b in pairs]
        return found

    def _feeds(self, here: int, size: int, member: int) -> Feeds | None:
        """Return the feeds of the member from `here` on and the next one; None if unequal."""
        forward, values = self.forward, self.forward.graph.values
        there, end = here + size, here + 2 * size
        feeds: Feeds = {}
        begins: dict[tuple[int, int], str] = {}  # of a chain: what enters its first member
        for number in range(here, there):
            one, two = forward.order[number], forward.order[number + size]
            for slot, (a, b) in enumerate(zip(one.inputs, two.inputs, strict=True)):
                made_a, made_b = forward.made_at(a), forward.made_at(b)
                port_a, port_b = values[a].port, values[b].port
                if here <= made_a < there or there <= made_b < end:
                    if made_b - made_a != size or port_a != port_b:
                        return None
                    feed = Feed("inside")
                elif here <= made_b < there:
                    feed = Feed("chain", made_b - here, port_b)
                    if begins.setdefault((feed.node, feed.port), a) != a:
                        return None
                elif a == b:
                    feed = Feed("same")
                elif values[a].kind == values[b].kind and values[a].kind in OWN:
                    feed = Feed("own")
                elif "" != _weight_of(one, a, values) == _weight_of(two, b, values):
                    feed = Feed("own")  # the gradient of its own weight
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
        return feeds

    def _equally_differentiated(self, here: int, size: int, feeds: Feeds) -> bool | None:
        """Return whether two members keep and give the same for their backward pass.

        Besides True and False, for less in the one before because of what enters it alone, None
        for any other difference.
        """
        forward, alike = self.forward, True
        touched: set[int] = set()  # what is made from that which enters
        for number in range(size):
            one, two = here + number, here + number + size
            enters = set()
            for slot, value in enumerate(forward.order[one].inputs):
                feed, inside = feeds[number, slot], forward.made_at(value) - here
                if feed.kind == "chain" or (feed.kind == "inside" and inside in touched):
                    enters.add(slot)
                    touched.add(number)
            less = self._passed(one, here, size)
            more = self._passed(two, here + size, size)
            missing = forward.gradients(two) - forward.gradients(one)
            if less == more:
                continue
            alike = False
            subset = all(one <= two for one, two in zip(less, more, strict=True))
            if not (subset and enters and missing <= enters):
                return None
        return alike

    def _passed(self, number: int, lo: int, size: int) -> list[set[Any]]:
        """Return how much a node of a member keeps, and its backward nodes.

        Of these the ops, the inputs that they give gradients of, and what they read from inside.
        """
        forward = self.forward
        backward = enumerate(forward.backward[number])
        rules = {f"{at} {rule.op} {rule.attributes}" for at, rule in backward}
        inner = set(forward.inner_gradients(number, lo, lo + size))
        kept = set(range(len(forward.order[number].saved)))
        return [kept, rules, forward.gradients(number), inner]

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
            (number, rule, port): sorted(map(self._port, self._outside(value, here, here + past)))
            for number in range(size)
            for rule, port, value in self.forward.made(here + number)
        }

    def _is_sound(self, repeat: Repeat) -> bool:
        """Return True if one op reads all members, or a member of another repeat reads each."""
        locked = {feed.node for feed in repeat.feeds.values() if feed.kind == "lockstep"}
        if any(first not in self.owner for first in locked):
            return False
        hi = repeat.lo + repeat.count * repeat.size
        chained = {(feed.node, feed.port) for feed in repeat.feeds.values() if feed.kind == "chain"}
        made = [
            {
                (number, rule, port): value
                for number in range(repeat.size)
                for rule, port, value in self.forward.made(member + number)
            }
            for member in repeat.copies(repeat.lo)
        ]
        for at in made[-1].keys() - made[0].keys():  # the first has no such gradient
            if not all(self._updates(self._outside(m[at], repeat.lo, hi)) for m in made[1:]):
                return False
        for at in made[0]:
            number, rule, port = at
            readers = [self._outside(member[at], repeat.lo, hi) for member in made]
            if rule >= 0 and all(map(self._updates, readers)):
                continue  # each is the gradient of a weight
            if rule < 0 and (number, port) in chained:  # others may read the last one, too
                alike = {self._port(reader) for reader in readers[0]}
                readers[-1] = [r for r in readers[-1] if self._port(r) in alike]
            if len(set(map(len, readers))) > 1:
                return False
            ways = (-1, 1) if chained else (1,)  # a loop may fill a list from its end
            if not all(self._in_turn(each, ways) for each in zip(*readers, strict=True)):
                return False
        return True

    def _updates(self, readers: list[Reader]) -> bool:
        """Return True if an optimizer alone reads."""
        order = self.forward.order
        return all(r.number >= 0 and order[r.number].direction == "update" for r in readers)

    def _in_turn(self, readers: tuple[Reader, ...], ways: tuple[int, ...]) -> bool:
        """Return True for equal readers: the inputs of one `cat` in turn, or one in each member."""
        first, second = readers[0], readers[min(1, len(readers) - 1)]
        if any(self._port(reader) != self._port(first) for reader in readers):
            return False
        if first.number == second.number:
            step = second.slot - first.slot
            in_turn = (Reader(first.number, first.slot + i * step) for i in range(len(readers)))
            forth = step == 0 or step // abs(step) in ways
            return forth and all(map(Reader.__eq__, readers, in_turn))
        if all(self._sibling(reader.number) < 0 for reader in readers):
            return all(reader.slot == first.slot for reader in readers)
        repeat = self._member(first.number)[0]
        return repeat is not None and all(
            self._member(reader.number)[1] == i
            and reader == (first.number + i * repeat.size, first.slot)
            for i, reader in enumerate(readers)
        )


def _weight_of(node: Node, value: str, values: dict[str, Value]) -> str:
    """Return the name of the weight input of which an input is the gradient, "" for none."""
    of = values[value].of
    if values[value].kind != "gradient" or of not in node.inputs:
        return ""
    return node.input_names[node.inputs.index(of)] or "weight"
