"""The recorded graph as a tree of boxes: equal neighbours as one.

Heights, on which the levels rest: an op has 0, whatever its reference has inside; a module 1 more
than the highest box in it; a `run`, which only puts boxes together, that of the highest box in it.
So attention, linear and norm have 0 or 1, and a layer made of them has 2.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from .headlines import Headlines
from .items import Item, Items, preorder
from .links import Linker
from .model import ASSIGNING, Graph, Value
from .repeats import OWN, ForwardGraph, Repeat
from .scene import PAGE, Box, Tree

WIDEST = 60  # boxes in a box; more are put together by the row
ROW = 45  # boxes in such a row, a few more or less


def fold(graph: Graph, equal: bool = True, asked: Iterable[str] = ()) -> Tree:
    """The boxes of a graph and the links between its leaves, `equal` neighbours standing as one.

    Equal means verified: the same ops, attributes, shapes and order, wired equally inside, and fed
    from outside by the same tensor, each by the one before it, or each by its own of equal ones.
    What is `asked` for by its id or path, but would not be drawn, stands beside its equals.
    """
    forward = ForwardGraph(graph, Items(graph))
    folder = _Folder(graph, forward, equal)
    folder.asked = list(asked)
    folder.make_boxes()
    folder.gather_calls()
    folder.join_small()
    folder.add_sources()
    folder.fit_page()
    folder.split_wide()
    folder.count_up()
    boxes = folder.in_order()
    linker = Linker(graph, forward, boxes, folder.representative, folder.enclosing)
    return Tree("", boxes, linker.links(), linker.instances())


@dataclass
class _Totals:
    """Sums over an item and all inside it."""

    flops: int = 0
    backward_flops: int = 0
    activation_bytes: int = 0
    parameters: set[str] = field(default_factory=set)
    saved: set[str] = field(default_factory=set)

    def add(self, other: _Totals) -> None:
        """Add another item, whose tensors count once if both have them."""
        self.flops += other.flops
        self.backward_flops += other.backward_flops
        self.activation_bytes += other.activation_bytes
        self.parameters |= other.parameters
        self.saved |= other.saved


class _Folder:
    """Makes the boxes."""

    def __init__(self, graph: Graph, forward: ForwardGraph, equal: bool) -> None:
        self.graph = graph
        self.forward = forward
        self.headlines = Headlines(graph)
        self.passes: dict[str, int] = {}  # by node: how many backward nodes had run
        self.begins: dict[str, int] = {}  # of a row: the number of its first box
        self.equal = equal  # whether equal neighbours are to stand as one
        self.asked: list[str] = []  # what is drawn by itself all the same
        self.boxes: dict[str, Box] = {}
        self.items: dict[str, list[Item]] = {}  # what a box stands for: one member of it
        self.all_items: dict[str, list[Item]] = {}  # all its members
        self.repeat_boxes: dict[tuple[int, int, int], str] = {}
        self.representative = list(range(len(forward.order)))  # the node drawn in place of each
        self.enclosing: list[list[Repeat]] = [
            [] for _ in forward.order
        ]  # the repeats each node is in

    def make_boxes(self) -> None:
        """Make boxes for inputs, outputs, and each item that no equal neighbour represents."""
        root = self._add(self.forward.root, None)
        self._add_ends("input", self.graph.inputs)
        waiting = [(self.forward.root, root)]
        while waiting:
            item, box = waiting.pop()
            waiting += self._add_row(item.children, box)
        self._add_ends("output", self.graph.outputs)
        self._count_turns()
        self._complete()
        self.in_order()

    def _add_row(self, row: list[Item], parent: Box) -> list[tuple[Item, Box]]:
        """Add boxes for siblings; return the items to fold inside, with their boxes."""
        repeats = self.forward.repeats(row) if self.equal else []
        if self.asked:
            repeats = [p for each in repeats for p in each.without(self._alone(each, row))]
        starts, found, index = {repeat.first: repeat for repeat in repeats}, [], 0
        while index < len(row):
            repeat = starts.get(index)
            if repeat is None:
                found.append((row[index], self._add(row[index], parent)))
                index += 1
                continue
            members = row[index : index + repeat.count * repeat.period]
            found += self._add_repeat(repeat, members, parent)
            index += len(members)
        return found

    def _add(self, item: Item, parent: Box | None) -> Box:
        box = Box(
            item.id,
            item.kind,
            self._name(item),
            parent.id if parent else None,
            path=self._path(item),
            node=item.node.id if item.node else None,
            call=item.call,
            function_call=item.function_call or item.call,
            backward=[node.id for node in item.backward],
            parameters=item.parameters,
            opens=not (item.is_op and item.children) and item.label not in ASSIGNING,
        )
        return self._put(box, parent, [item], [item])

    def _put(self, box: Box, parent: Box | None, items: list[Item], every: list[Item]) -> Box:
        self.boxes[box.id] = box
        self.items[box.id], self.all_items[box.id] = items, every
        if parent:
            parent.children.append(box.id)
        return box

    def _alone(self, repeat: Repeat, row: list[Item]) -> set[int]:
        """Return the members, but for the first, that were asked for, or something in them."""
        found = set()
        for at in range(1, repeat.count):
            start = repeat.first + at * repeat.period
            for item in row[start : start + repeat.period]:
                ids = {f"run:{item.id}", *(inner.id for inner in preorder(item))}
                within = tuple(f"{item.id}{sign}" for sign in "./")
                if any(name in ids or name.startswith(within) for name in self.asked):
                    found.add(at)
        return found

    def _add_repeat(
        self, repeat: Repeat, members: list[Item], parent: Box
    ) -> list[tuple[Item, Box]]:
        """Add one box for a repeat; return the items to fold inside, with their boxes."""
        first, firsts = members[: repeat.period], members[:: repeat.period]
        if repeat.period == 1:
            box = self._add(first[0], parent)
            box.members = [item.id for item in firsts]
            box.path = _span([self._path(item) for item in firsts])
        else:
            around = self._functions(first) & self._functions(members[repeat.period :])
            label = self._said(parent, first, around) or _joined(map(self._name, first))
            stem = "run:"
            while f"{stem}{first[0].id}" in self.boxes:  # a loop that begins with a loop
                stem += "run:"
            box = Box(f"{stem}{first[0].id}", "run", label, parent.id)
            box.path = parent.path
            box.members = [f"{stem}{item.id}" for item in firsts]
            self._put(box, parent, first, [])
        self.all_items[box.id] = members
        box.count, box.shared = repeat.count, repeat.shared
        if repeat.loop:
            box.carried, box.returned = self._carried(repeat)
            box.returns = repeat.count - repeat.pale
        self.repeat_boxes[repeat.lo, repeat.size, repeat.count] = box.id
        for number in range(repeat.lo, repeat.lo + repeat.size):
            self.enclosing[number].append(repeat)
            for copy in repeat.copies(number)[1:]:
                self.representative[copy] = number
        return [(first[0], box)] if repeat.period == 1 else self._add_row(first, box)

    def _count_turns(self) -> None:
        """Note by how much the numbers in attributes grow from turn to turn of the loops."""
        for key, box in self.boxes.items():
            number = self.items[key][0].lo if box.node is not None else 0
            for repeat in self.enclosing[number] if box.node is not None else ():
                growth = repeat.steps.get(number - repeat.lo)
                if growth is not None:
                    box.turns.append((repeat.count, growth))

    def _complete(self) -> None:
        """Show the backward of the second turn for ops of the first, which is drawn, with less."""
        for key, box in self.boxes.items():
            number = self.items[key][0].lo if box.node is not None else 0
            if box.node is not None and (whole := number + self._shift(number)) != number:
                box.whole = self.forward.order[whole].id
                box.backward = [node.id for node in self.forward.backward[whole]]

    def _shift(self, number: int, size: int = 0) -> int:
        """Return how many nodes after a drawn one, or a row, the same is with all gradients."""
        return sum(each.size for each in self.enclosing[number] if each.pale and each.size >= size)

    def _carried(self, repeat: Repeat) -> tuple[list[str], list[str]]:
        """Return what the first member of a loop makes for the next one, and gets back for it."""
        values, order = self.graph.values, self.forward.order
        member = self.forward.backward[repeat.lo : repeat.lo + repeat.size]
        read = {value for rules in member for rule in rules for value in rule.inputs}
        given: dict[str, str] = {}
        found: dict[str, None] = {}
        for (reader, slot), feed in repeat.feeds.items():
            if feed.kind == "chain":
                made = order[repeat.lo + feed.node].outputs
                value = next(v for v in made if values[v].port == feed.port)
                found[value] = None
                gradient = self.forward.gradient_of(repeat.lo + repeat.size + reader, slot)
                if gradient in read:  # that of a weight goes to its update
                    given.setdefault(value, gradient)
        return list(found), list(given.values())

    def _headline(self, parent: Box, items: list[Item], labels: Iterable[str]) -> str:
        """Return a label for several boxes: what the code says of their ops, if it does."""
        return self._said(parent, items) or _joined(labels)

    def _said(self, parent: Box, items: list[Item], around: Iterable[str] = ()) -> str:
        """Return what the code says of items, but not a function of the user's that goes on."""
        ops = [item.node for one in items for item in preorder(one) if item.node is not None]
        modules = any(item.group is not None for item in items)
        names = (self.graph.calls[call].name for call in around)
        return self.headlines.of(ops, modules, self._function(parent), *names) if items else ""

    def _functions(self, items: list[Item]) -> set[str]:
        """Return the calls of functions that ran the ops of items, keys of `Graph.calls`."""
        nodes = (item.node for one in items for item in preorder(one))
        calls = {f"{node.group}/{node.function}" for node in nodes if node is not None}
        return calls & self.graph.calls.keys()

    def _function(self, box: Box) -> str:
        """Return the function of the user's that a box is, or is in, up to the next module."""
        while box.kind != "module" and not self._is_function(box):
            box = self.boxes[box.parent or ""]
        return box.label if box.kind == "run" else ""

    def _is_function(self, box: Box) -> bool:
        items = self.items[box.id]
        return box.kind == "run" and len(items) == 1 and items[0].kind == "run"

    def _path(self, item: Item) -> str:
        """Return the path of the module that an item is, or runs in."""
        within = item
        while item.group is None and item.ran is None:
            item = item.children[0]
        group = item.group if item.group is not None else item.ran.group if item.ran else ""
        if item is not within and item.group is not None:  # a function that called a module
            group = self.graph.groups[group].parent or ""
        return self.graph.groups[group].path if group in self.graph.groups else ""

    def _name(self, item: Item) -> str:
        """Return the label of a box: a module's class, or the name of another op."""
        if item.group is None and item.call:
            return self.graph.calls[item.call].name
        if item.group is None:
            return item.ran.op if item.ran is not None else item.label
        group = self.graph.groups.get(item.group or "")
        return group.kind if group else self.graph.name

    def _add_ends(self, kind: str, values: list[str]) -> None:
        used = {value for node in self.graph.nodes.values() for value in node.inputs}
        used.update(self.graph.outputs)
        ends = [v for v in dict.fromkeys(values) if kind == "output" or v in used]
        for value in ends:
            name = self.graph.values[value].name
            label = name or (kind if kind == "output" else value.removeprefix("input:"))
            box = Box(f"output:{value}" if kind == "output" else value, kind, label, "")
            self._put(box, self.boxes[""], [], [])

    def in_order(self) -> dict[str, Box]:
        """Sort the boxes, outer before inner, in the order they ran, and set their heights."""
        ordered: dict[str, Box] = {}
        waiting = [""]
        while waiting:
            box = self.boxes[waiting.pop()]
            ordered[box.id] = box
            waiting.extend(reversed(box.children))
        for box in reversed(ordered.values()):
            below = max((self.boxes[child].height for child in box.children), default=-1)
            if box.kind == "module":
                box.height = below + 1
            elif box.kind != "op" and box.children:
                box.height = below
        self.boxes = ordered
        return ordered

    def gather_calls(self) -> None:
        """Put the calls of a module with weights, in different places of a box, into one box."""
        groups = self.graph.groups
        for parent in list(self.boxes.values()):
            calls: dict[str, list[Box]] = {}
            for box in map(self.boxes.__getitem__, parent.children):
                if box.id in groups and any(i.parameters for i in preorder(self.items[box.id][0])):
                    calls.setdefault(groups[box.id].path, []).append(box)
            for path, row in calls.items():
                if len(row) > 1:
                    before = list(parent.children)
                    joined = self._join(parent, row, groups[row[0].id].kind, "calls")
                    joined.path, joined.shared = path, True
                    parent.children = [
                        joined.id if key == row[0].id else key
                        for key in before
                        if key == row[0].id or key not in joined.children
                    ]

    def add_sources(self) -> None:
        """Add buffers and constants, each before its first reader, in the box around them all."""
        values = self.graph.values
        read: dict[str, list[str]] = {}  # by value: the nodes, forward or backward
        for node in self.graph.nodes.values():
            for key in node.inputs:
                read.setdefault(key, []).append(node.id)
        for value in values.values():
            if value.kind not in ("buffer", "constant") or value.id in self.boxes:
                continue
            items = [self.forward.item_of[key] for key in read.get(value.id, ())]
            found = [i for i in items if not i.is_op or self.representative[i.lo] == i.lo]
            if not found:  # only what others stand for reads it
                continue
            chains = [self._around(item, value.id) for item in found]
            shared = set.intersection(*(set(chain[:-1]) for chain in chains))
            level = self._reach(chains[0][: len(shared)], value)  # they begin each chain
            parent = self.boxes[chains[0][level]]
            label = value.name.rpartition(".")[2] or value.origin or value.kind
            box = Box(value.id, "source", label, parent.id, path=parent.path)
            before = min(parent.children.index(chain[level + 1]) for chain in chains)
            self._put(box, parent, [], [])
            parent.children.insert(before, parent.children.pop())

    def _reach(self, around: list[str], value: Value) -> int:
        """Return the place of the box for a source: not deeper than the code that made it.

        But what each member of a fold has of its own stands in it.
        """
        groups, inside = self.graph.groups, set[str]()
        group, function = value.group, value.function
        while group is not None and value.group is not None:
            inside.add(group)
            while function:
                inside.add(f"{group}/{function}()" if group else f"{function}()")
                call = self.graph.call(group, function)
                function = call.function if call is not None else ""
            found = groups.get(group)
            group, function = (found.parent, found.function) if found else (None, "")
        last = len(around) - 1
        for at, key in enumerate(around[1:], 1):
            box = self.boxes[key]
            ran = {re.sub(r"\(\)#\d+$", "()", key), *(box.children if box.kind == "calls" else ())}
            runs = key in groups or box.kind == "calls" or self._is_function(box)
            if value.group is not None and runs and not ran & inside:
                last = at - 1
                break
        folds = [at for at, key in enumerate(around) if self.boxes[key].count > 1]
        return max([last, *folds])

    def _around(self, item: Item, value: str) -> list[str]:
        """Return the boxes around the box of an item, the outermost first, then itself.

        A source that not every member of a repeat has of its own is outside: these boxes end with
        that of the repeat then.
        """
        found = [item.id]
        while (parent := self.boxes[found[-1]].parent) is not None:
            found.append(parent)
        chain = found[::-1]
        for repeat in self.enclosing[item.lo] if item.is_op else ():
            slots = enumerate(self.forward.order[item.lo].inputs)
            feeds = {repeat.feeds[item.lo - repeat.lo, at].kind for at, v in slots if v == value}
            if feeds - {"own"}:
                box = self.repeat_boxes[repeat.lo, repeat.size, repeat.count]
                return chain[: chain.index(box) + 1]
        return chain

    def join_small(self) -> None:
        """Join rows of ops without weights, which would crowd the modules beside them.

        So do masks become one box, their inputs another, and positions one with the embedding that
        adds them.
        """
        for box in list(self.boxes.values()):
            if box.height >= (1 if box.kind == "run" else 2):
                self._regroup(box, self._is_mask, 3)
                self._regroup(box, self._pass, 2)
                self._join_sources(box)

    def _is_mask(self, box: Box) -> bool:
        """Return True for an input that only ops without weights read."""
        readers = self.forward.readers.get(box.id, ()) if box.kind == "input" else ()
        nodes = (self.forward.order[reader.number] for reader in readers if reader.number >= 0)
        found = [self.forward.item_of[node.id].parameters for node in nodes]
        return bool(found) and not any(found)

    def _is_plain(self, box: Box) -> bool:
        """Return True for ops without weights, other than a function of the user's."""
        return (
            box.kind in ("op", "run")
            and box.height == 0
            and not box.parameters
            and (bool(box.call) or not self._is_function(box))
            and all(self._is_plain(self.boxes[child]) for child in box.children)
        )

    def _pass(self, box: Box) -> tuple[bool, int]:
        """Return whether ops are plain, and how many backward passes had run before."""
        plain = self._is_plain(box)
        return plain, self._passes_before(box) if plain else 0

    def _line(self, box: Box) -> tuple[bool, str]:
        """Return whether ops are plain, and the line that ran them."""
        ran = _first(self.items[box.id][0]).ran if self._is_plain(box) else None
        return ran is not None and bool(ran.source), ran.source if ran else ""

    def _passes_before(self, box: Box) -> int:
        if not self.passes:
            count = 0
            for node in self.graph.nodes.values():
                count += node.direction == "backward"
                self.passes[node.id] = count
        ran = _first(self.items[box.id][0]).ran
        return self.passes[ran.id] if ran else 0

    def _regroup(
        self, parent: Box, wanted: Callable[[Box], bool | tuple[bool, object]], least: int
    ) -> None:
        """Put each row of at least so many wanted children, alike in `wanted`, into a box."""
        children = [self.boxes[child] for child in parent.children]
        parent.children = []
        for fits, group in itertools.groupby(children, wanted):
            row = list(group)
            if (fits[0] if isinstance(fits, tuple) else fits) and len(row) >= least:
                self._join(parent, row)
            else:
                parent.children += [box.id for box in row]

    def _join(self, parent: Box, row: list[Box], label: str = "", kind: str = "run") -> Box:
        items = [item for box in row for item in self.all_items[box.id]]
        label = label or self._headline(parent, items, [box.label for box in row])
        stem = "ops" if kind == "run" else kind
        key = f"{stem}:{row[0].id}"
        while key in self.boxes:  # a row of a row
            key = f"{stem}:{key}"
        joined = Box(key, kind, label, parent.id, [box.id for box in row])
        joined.path = parent.path
        joined.height = max(box.height for box in row)
        for box in row:
            box.parent = joined.id
        return self._put(joined, parent, items, items)

    def _join_sources(self, parent: Box) -> None:
        """Join an op that reads only weights and tables with the next one, if no other reads it."""
        children = parent.children
        parent.children = []
        while children:
            box, *children = children
            pair = [self.boxes[box], *(self.boxes[child] for child in children[:1])]
            if len(pair) == 2 and self._feeds_alone(*pair):
                self._join(parent, pair)
                children = children[1:]
            else:
                parent.children.append(box)

    def _feeds_alone(self, box: Box, following: Box) -> bool:
        """Return True if a box reads only what is there already, for the next one alone."""
        if not all(each.kind in ("op", "module") for each in (box, following)):
            return False
        if box.height > 1 or following.height or not self.items[box.id][0].hi:
            return False
        readers, order = self.forward.readers, self.forward.order
        one, two = self.items[box.id][0], self.items[following.id][0]
        left: list[int] = []  # who reads what leaves the first
        for node in order[one.lo : one.hi]:
            inputs = (v for v in node.inputs if not one.lo <= self.forward.made_at(v) < one.hi)
            if any(self.graph.values[v].kind not in OWN for v in inputs):
                return False
            read = [r.number for value in node.outputs for r in readers.get(value, [])]
            left += [number for number in read if not one.lo <= number < one.hi]
        return bool(left) and all(two.lo <= number < two.hi for number in left)

    def fit_page(self) -> None:
        """Put what the outermost box has too much of for a page together: ops by their lines."""
        root = self.boxes[""]
        if len(root.children) > PAGE:
            self._regroup(root, self._line, 2)
        if len(root.children) > PAGE:
            children = [self.boxes[child] for child in root.children]
            rows = [list(row) for _, row in itertools.groupby(children, self._side)]
            ends = [row for row in rows if self._side(row[0]) != "op"]
            crowded = sum(map(len, ends)) > PAGE // 2
            room = max(PAGE - (len(ends) if crowded else sum(map(len, ends))), len(rows))
            ops = len(children) - sum(map(len, ends))
            root.children = []
            for row in rows:
                side = self._side(row[0])
                if side != "op" and (not crowded or len(row) == 1):
                    root.children += [box.id for box in row]
                elif side != "op":
                    self._join(root, row, f"{side}s 1-{len(row)}")
                else:
                    first = 1
                    for part in self._cut(row, max(1, len(row) * room // ops)):
                        last, plain = first + len(part) - 1, all(map(self._is_plain, part))
                        if len(part) > 1:
                            said = self._said(
                                root, [i for box in part for i in self.all_items[box.id]]
                            )
                            label = said or (f"ops {first}-{last}" if plain else "")
                            self.begins[self._join(root, part, label).id] = first
                        else:
                            root.children.append(part[0].id)
                        first = last + 1

    def _cut(self, row: list[Box], count: int) -> list[list[Box]]:
        """Cut a row into parts of about equal length, where functions, lines or variables end."""
        reach = len(row) // count // 6
        cuts = [0]
        for number in range(1, count):
            ideal = len(row) * number // count
            places = range(max(cuts[-1] + 1, ideal - reach), min(len(row), ideal + reach + 1))
            if places:
                cuts.append(max(places, key=lambda at: (self._border(row, at), -abs(at - ideal))))
        return [row[start:end] for start, end in itertools.pairwise([*cuts, len(row)])]

    def _border(self, row: list[Box], at: int) -> int:
        """Return how much of a border there is before a place in a row."""
        if not (self._is_plain(row[at - 1]) and self._is_plain(row[at])):
            return 3
        last, first = self.all_items[row[at - 1].id][-1], self.items[row[at].id][0]
        one, two = _last(last).ran, _first(first).ran
        if one is None or two is None or one.function != two.function:
            return 3
        if one.source != two.source:
            return 2
        return int(any(self.graph.values[value].names for value in one.outputs))

    def split_wide(self) -> None:
        """Put the children of a box that has too many together by the row, and rows of rows."""
        held: dict[str, int] = {}  # how many children a row has, and the rows in it
        for box in list(self.boxes.values()):
            while len(box.children) > WIDEST:
                children = [self.boxes[child] for child in box.children]
                box.children = []
                for kind, row in itertools.groupby(children, self._side):
                    self._split(box, kind, list(row), held)

    def _side(self, box: Box) -> str:
        """Return input or output for a box of such boxes only, else op."""
        while box.children and box.kind == "run":
            box = self.boxes[box.children[0]]
        return box.kind if box.kind in ("input", "output") else "op"

    def _split(self, parent: Box, kind: str, row: list[Box], held: dict[str, int]) -> None:
        if len(row) <= WIDEST // 3:
            parent.children += [box.id for box in row]
            return
        first = self.begins.get(parent.id, 1)
        for part in self._cut(row, math.ceil(len(row) / ROW)):
            last = first - 1 + sum(held.get(box.id, 1) for box in part)
            said = self._said(parent, [item for box in part for item in self.all_items[box.id]])
            joined = self._join(parent, part, said or f"{kind}s {first}-{last}")
            held[joined.id] = last - first + 1
            first = last + 1

    def count_up(self) -> None:
        """Fill in the numbers of each box: those of one member, with all members of inner boxes."""
        totals: dict[tuple[int, str], _Totals] = {}
        spans: dict[tuple[int, int], _Totals] = {}
        items = preorder(self.forward.root)
        for item in reversed(items):
            total = totals[item.lo, item.id] = spans[item.lo, item.hi] = self._own(item)
            for child in item.children if not item.is_op else []:
                total.add(totals[child.lo, child.id])
        for box in self.boxes.values():
            total, most, row = _Totals(), _Totals(), self.items[box.id]
            size = row[-1].hi - row[0].lo if row else 0
            shift = self._shift(row[0].lo, size) if size else 0
            for item in row:
                own = totals[item.lo, item.id]
                total.add(own)
                most.add(spans[item.lo + shift, item.hi + shift] if shift else own)
            sizes = (math.prod(self.graph.values[v].shape) for v in total.parameters)
            box.parameter_count = sum(sizes)
            box.flops, box.activation_bytes = total.flops, total.activation_bytes
            box.backward_flops, box.saved_bytes = most.backward_flops, self._nbytes(most.saved)
            box.least = total.backward_flops, self._nbytes(total.saved)

    def _nbytes(self, values: Iterable[str]) -> int:
        return sum(self.graph.values[value].nbytes for value in values)

    def _own(self, item: Item) -> _Totals:
        """Return the numbers of an item itself, without those inside it."""
        values, node = self.graph.values, item.node
        total = _Totals(parameters=set(item.parameters))
        total.backward_flops = sum(node.flops for node in item.backward)
        if node is not None:
            total.flops = node.flops
            made = (values[v] for v in node.outputs)
            total.activation_bytes = sum(value.nbytes for value in made if not value.views)
            bases = map(self._base, node.saved)
            total.saved = {v for v in bases if values[v].kind not in ("parameter", "buffer")}
        return total

    def _base(self, value: str) -> str:
        """Return the value whose memory a value shows."""
        while (shown := self.graph.values[value].views) is not None:
            value = shown
        return value


def _first(item: Item) -> Item:
    """Return the op that an item begins with."""
    while not item.is_op and item.children:
        item = item.children[0]
    return item


def _last(item: Item) -> Item:
    """Return the op that an item ends with."""
    while not item.is_op and item.children:
        item = item.children[-1]
    return item


def _joined(labels: Iterable[str]) -> str:
    """Return a label for several boxes: all of theirs if few, else the ends and a count."""
    names = list(labels)
    if len(names) > 4:
        return f"{names[0]} to {names[-1]}, {len(names)} ops"
    return ", ".join(dict.fromkeys(names))


def _span(paths: list[str]) -> str:
    """Return one path for members: "layers.0-5.norm" for "layers.0.norm" to "layers.5.norm"."""
    first, last = (re.split(r"([.#])", paths[end]) for end in (0, -1))
    if len(first) != len(last):
        return paths[0]
    between = "-" if all(part.isdigit() for part in set(first) ^ set(last)) else " to "
    parts = (a if a == b else a + between + b for a, b in zip(first, last, strict=True))
    return "".join(parts)
