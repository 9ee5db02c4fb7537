"""Places for everything in a picture: each open box on its own, from the innermost out.

A box and the arrow back of its loop, or two branches that stand side by side, are one item to the
layers of the box around them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from .layers import GAP, HEAD, LANE, STUB, TURN, Arc, Arranged, Roles, Size, Span, arrange
from .picture import LabelledEdge, Picture, common

SIDE, TOP, BOTTOM = 14.0, 5.0, 10.0  # around what is in an open box

Step = tuple[str, str, str]  # of a piece of an edge: a box it passes, and its ends in that


@dataclass
class Plan:
    """Places: x, y, width, height of boxes, texts, titles and junctions; and the ways of edges."""

    width: float
    height: float
    rects: dict[str, tuple[float, float, float, float]]
    routes: dict[str, list[Span]] = field(default_factory=dict)


@dataclass
class Unit:
    """Several items that are laid out as one."""

    size: Size
    at: dict[str, Size] = field(default_factory=dict)
    routes: dict[str, list[Span]] = field(default_factory=dict)


def title_of(key: str) -> str:
    """Return the key of the title of an open box in a plan."""
    return f"{key}:title"


def loop_of(key: str) -> str:
    """Return the key of the text, and of the way, of the arrow back of a loop."""
    return f"{key}:loop"


def plan(shown: Picture, sizes: dict[str, Size], ends: dict[str, dict[str, float]]) -> Plan:
    """Return places for boxes, junctions, titles and texts, all but open boxes of a size known.

    `ends` says where pieces of edges touch boxes, from their left, and where tensors leave them, as
    that of the piece ""; elsewhere it is the middle.
    """
    return _Plan(shown, sizes, ends).whole()


class _Plan:
    def __init__(
        self, shown: Picture, sizes: dict[str, Size], ends: dict[str, dict[str, float]]
    ) -> None:
        self.shown, self.sizes, self.ends = shown, sizes, ends
        self.root = shown.scene.tree.root
        self.edges = {edge.id: edge for edge in shown.edges}
        self.parents = shown.parents
        self.inside: dict[str, dict[str, Size]] = defaultdict(dict)
        self.pieces: dict[str, list[Step]] = {}  # from the top down
        self.steps: dict[str, list[Step]] = defaultdict(list)  # in a box: piece, upper, lower
        self.done: dict[str, Arranged] = {}
        self.outer: dict[str, Size] = {}  # of an open box
        self._cut()
        self.pairs = _beside(shown, self.steps, self.edges)
        self.aside: dict[str, set[str]] = defaultdict(set)  # by box: what enters at its left
        for pair in (pair for pairs in self.pairs.values() for pair in pairs):
            for edge in pair.edges:
                self._enter(pair, f"{edge.id}:lower")

    def _enter(self, pair: Pair, piece: str) -> None:
        """Let an edge come to its reader from the left: straight across boxes as high as theirs."""
        port, box = f"<in>{piece}", pair.right
        lower = next(other for _, one, other in self.steps[box] if one == port)
        while lower in self.shown.scene.open and self._alone(lower, box):
            step = (piece, port, lower)
            self.steps[box].remove(step)
            self.pieces[piece].remove((box, port, lower))
            del self.inside[box][port]
            box = lower
            lower = next(other for _, one, other in self.steps[box] if one == port)
        self.aside[box].add(port)
        pair.entered[piece] = box

    def _alone(self, key: str, box: str) -> bool:
        """Return True if nothing else in `box` can stand beside an item of it."""
        after: dict[str, dict[str, None]] = defaultdict(dict)
        before: dict[str, dict[str, None]] = defaultdict(dict)
        for _, one, other in self.steps[box]:
            after[one][other] = None
            before[other][one] = None
        known = _reached(after, [key]) | _reached(before, [key]) | {title_of(box)}
        return all(item in known for item in self.inside[box])

    def _cut(self) -> None:
        """Find the items of each box, and cut edges where they cross a border."""
        for key in self.shown.opened:
            self.inside[key][title_of(key)] = self.sizes[title_of(key)]
        for key, parent in self.parents.items():
            if parent is not None:
                self.inside[parent][key] = self.sizes.get(key, (0.0, 0.0))
        for edge in self.shown.edges:
            text = f"{edge.id}:text"
            home = common(self.parents, edge.source, edge.target) or self.root
            self.inside[home][text] = self.sizes[text]
            self.parents[text] = home
            upper, lower = edge.ends
            for piece, one, other in ((":upper", upper, text), (":lower", text, lower)):
                name = edge.id + piece
                self.pieces[name] = _through(name, one, other, home, self.parents)
        for piece, steps in self.pieces.items():
            for box, one, other in steps:
                self.steps[box].append((piece, one, other))
                for port in (one, other):
                    if port.startswith(("<in>", "<out>")):
                        self.inside[box][port] = (2.0, 0.0)

    def whole(self) -> Plan:
        """Lay out all boxes, and join them to one plan."""
        opened = [key for key in reversed(self.shown.scene.visible) if key in self.shown.scene.open]
        for box in opened:
            self.done[box] = found = self._box(box)
            self.outer[box] = (found.width + 2 * SIDE, found.height + TOP + BOTTOM)
            if box != self.root:
                self.inside[self.parents[box] or ""][box] = self.outer[box]
        return self._together()

    def _box(self, box: str) -> Arranged:
        items = self.inside[box]
        units: dict[str, Unit] = {}
        holders: dict[str, str] = {}
        for key in list(items):
            if loop_of(key) in self.sizes:
                _hold(items, units, holders, self._loop(key, items[key]), [key])
        for pair in self.pairs.get(box, []):
            unit = self._pair(pair, items, units, holders)
            members = [holders.get(key, key) for key in (pair.left, pair.right)]
            members += [f"{edge.id}:text" for edge in pair.edges]
            _hold(items, units, holders, unit, members)
        arcs = []
        for piece, one, other in self.steps[box]:
            (upper, x, y), (lower, u, v) = (_held(end, units, holders) for end in (one, other))
            if upper == lower:
                continue  # inside a pair
            start, end = self._touch(one, piece, "out"), self._touch(other, piece, "in")
            under = items[upper][1] - y - self._size(one)[1]
            edge = self.edges[piece.rpartition(":")[0]]
            weight = 1.0 if edge.edge.skip else 2.0 if edge.backward else 4.0
            pull = self.ends.get(other, {}).get("")
            pull = None if pull is None or edge.edge.skip or edge.backward else u + pull
            up = edge.backward and one in self.shown.faces
            down = not edge.backward and other in self.shown.faces
            head = (HEAD + 6 * edge.edge.shared) * (up or down)
            arc = Arc(piece, upper, lower, x + start, u + end, under, v, weight, head, up, pull)
            arcs.append(arc)
        roles = Roles(
            title_of(box) if title_of(box) in items else "",
            {key for key in items if key.startswith("<in>")} - self.aside[box],
            {key for key in items if key.startswith("<out>")},
            self.aside[box],
            {key for key in items if key in self.done or key in units},
        )
        found = arrange(items, arcs, roles)
        for name in reversed(units):  # outer ones were made after inner ones
            left, top = found.at.pop(name)
            unit = units[name]
            found.at |= {key: (left + x, top + y) for key, (x, y) in unit.at.items()}
            found.routes |= {
                key: [(left + x, top + y, top + to) for x, y, to in spans]
                for key, spans in unit.routes.items()
            }
        return found

    def _size(self, key: str) -> Size:
        if key in self.outer:
            return self.outer[key]
        return self.sizes.get(key, (2.0, 0.0))

    def _touch(self, key: str, piece: str, side: str) -> float:
        """The place at which a piece of an edge touches an item, from its left."""
        if key in self.done:
            return self.done[key].at[f"<{side}>{piece}"][0] + 1.0 + SIDE
        known = self.ends.get(key, {}).get(piece)
        return self._size(key)[0] / 2 if known is None else known

    def _loop(self, key: str, size: Size) -> Unit:
        """A box with the arrow from its bottom back to its top, which goes up at its left."""
        wide, high = self.sizes[loop_of(key)]
        tall = max(size[1], high + 2 * TURN)
        lane = wide + LANE / 2
        left = lane + LANE + 2 * TURN
        top = (tall - size[1]) / 2
        unit = Unit((left + size[0], tall), {key: (left, top)})
        unit.at[loop_of(key)] = (0.0, (tall - high) / 2)
        low, up = top + size[1] - 2 * TURN, top + 2 * TURN
        unit.routes[loop_of(key)] = [(left, low, low), (lane, low, up), (left, up, up)]
        lane, low, up = lane + LANE / 2, low - TURN, up + TURN  # of gradients
        unit.routes[f"{loop_of(key)}:back"] = [(left, low, low), (lane, low, up), (left, up, up)]
        return unit

    def _pair(
        self, pair: Pair, items: dict[str, Size], units: dict[str, Unit], holders: dict[str, str]
    ) -> Unit:
        """Two branches side by side, and between them what goes across."""
        one, other = (holders.get(key, key) for key in (pair.left, pair.right))
        shift = {
            key: units[holder].at[key] if holder != key else (0.0, 0.0)
            for key, holder in ((pair.left, one), (pair.right, other))
        }
        bottom = shift[pair.left][1] + self.outer[pair.left][1]
        lanes = []  # each edge, the x of its way out, and the y of its way in
        for edge in pair.edges:
            out = self._touch(pair.left, f"{edge.id}:upper", "out") + shift[pair.left][0]
            into = self._depth(pair, f"{edge.id}:lower") + shift[pair.right][1]
            lanes.append((edge, out, into))
        lanes.sort(key=lambda lane: (-lane[1], lane[0].id))
        x = items[one][0] + GAP
        # Each way leaves below the one nearer to the left branch; its text needs room on the way.
        turns = [bottom + TURN * (1 + at) for at in range(len(lanes))]
        need = [self.sizes[f"{edge.id}:text"][1] + 2 * TURN for edge, *_ in lanes]
        down = 0.0  # of the right branch
        for turn, room, (_, _, into) in zip(turns, need, lanes, strict=True):
            if abs(into + down - turn) < room:
                down = max(down, turn + room - into)
        unit = Unit((0.0, 0.0), {one: (0.0, 0.0)})
        for at, (turn, (edge, out, into)) in enumerate(zip(turns, lanes, strict=True)):
            wide, high = self.sizes[f"{edge.id}:text"]
            lane, into = x + wide / 2, into + down
            # Lanes at the left go across this one on their way in, the others on their way out.
            across = [*(lower + down for _, _, lower in lanes[:at]), *turns[at + 1 :]]
            y = _free(min(turn, into) + TURN, max(turn, into) - TURN - high, high, across)
            ends = (y + high, y) if into < turn else (y, y + high)
            unit.at[f"{edge.id}:text"] = (x, y)
            unit.routes[f"{edge.id}:upper"] = [(out, bottom, turn), (lane, turn, ends[0])]
            unit.routes[f"{edge.id}:lower"] = [(lane, ends[1], into)]
            x += wide + LANE
        x += GAP - LANE
        unit.at[other] = (x, down)
        lowest = max([items[one][1], *turns, down + items[other][1]])
        unit.size = (x + items[other][0], lowest + STUB * (lowest in turns))
        return unit

    def _depth(self, pair: Pair, piece: str) -> float:
        """The distance below the top of the right box at which a piece comes in."""
        box, port = pair.entered[piece], f"<in>{piece}"
        y = self.done[box].at[port][1] + TOP
        while box != pair.right:
            outer = self.parents[box] or ""
            y += self.done[outer].at[box][1] + TOP
            box = outer
        return y

    def _together(self) -> Plan:
        """Boxes laid out each on its own, as one plan."""
        root = self.done[self.root]
        found = Plan(root.width, root.height, {})
        corner = {self.root: (0.0, 0.0)}
        for box in reversed(self.done):  # an outer one was laid out after those in it
            left, top = corner[box]
            for key, (x, y) in self.done[box].at.items():
                if not key.startswith(("<in>", "<out>")):
                    size = self.outer.get(key) or self.sizes[key]
                    found.rects[key] = (left + x, top + y, *size)
                if key in self.done:
                    corner[key] = (left + x + SIDE, top + y + TOP)
        for box, (left, top) in corner.items():
            for key, spans in self.done[box].routes.items():
                if key not in self.pieces:  # an arrow back
                    found.routes[key] = [(left + x, top + y, top + to) for x, y, to in spans]
        for piece, steps in self.pieces.items():
            found.routes[piece] = [
                (x + corner[box][0], one + corner[box][1], other + corner[box][1])
                for box, _, _ in steps
                for x, one, other in self.done[box].routes[piece]
            ]
        return found


def _hold(
    items: dict[str, Size],
    units: dict[str, Unit],
    holders: dict[str, str],
    unit: Unit,
    members: Iterable[str],
) -> None:
    """Let a unit stand for its members."""
    first, *others = members
    name = f"<unit>{first}"
    units[name] = unit
    holders.update(dict.fromkeys([first, *others], name))
    known = list(items.items())
    items.clear()
    items.update((name, unit.size) if key == first else (key, size) for key, size in known)
    for key in others:
        del items[key]


def _held(key: str, units: dict[str, Unit], holders: dict[str, str]) -> tuple[str, float, float]:
    """The item that holds another, and where in it that is."""
    x = y = 0.0
    while key in holders:
        dx, dy = units[holders[key]].at[key]
        key, x, y = holders[key], x + dx, y + dy
    return key, x, y


def _free(least: float, most: float, high: float, lines: list[float]) -> float:
    """Return the place for a text nearest to the middle of a way that no line goes across."""
    middle = min(max((least + most) / 2, least), most)
    places = [
        middle,
        *(line + LANE / 2 for line in lines),
        *(line - LANE / 2 - high for line in lines),
    ]
    free = [
        y
        for y in places
        if least <= y <= most and not any(y - 1 < line < y + high + 1 for line in lines)
    ]
    return min(free, key=lambda y: abs(y - middle), default=middle)


def _through(
    piece: str, upper: str, lower: str, home: str, parents: dict[str, str | None]
) -> list[Step]:
    """A piece of an edge, cut where it crosses the border of a box."""
    out, into = [], []
    while (box := parents[upper]) is not None and box != home:
        out.append((box, upper, f"<out>{piece}"))
        upper = box
    while (box := parents[lower]) is not None and box != home:
        into.append((box, f"<in>{piece}", lower))
        lower = box
    return [*out, (home, upper, lower), *reversed(into)]


# Branches


@dataclass
class Pair:
    """Two open boxes that stand side by side, and what goes from the left one to the other."""

    left: str
    right: str
    edges: list[LabelledEdge]
    entered: dict[str, str] = field(default_factory=dict)  # by piece: in which box its way ends


def _beside(
    shown: Picture, steps: dict[str, list[Step]], edges: dict[str, LabelledEdge]
) -> dict[str, list[Pair]]:
    """Find open boxes that stand side by side: branches that join late, by the box around them.

    A branch joins another one late if what it brings is for all members of a stack, or for what
    lies further down in it, while something else comes in at its top: a memory, or a mask.
    """
    found: dict[str, list[Pair]] = {}
    for box in (shown.scene.tree.root, *shown.opened):
        after: dict[str, dict[str, None]] = defaultdict(dict)
        entering: dict[str, dict[str, tuple[str, LabelledEdge]]] = defaultdict(dict)
        upper = {piece: one for piece, one, _ in steps[box]}
        for piece, one, other in steps[box]:
            after[one][other] = None
            edge = edges[piece.rpartition(":")[0]]
            if other in shown.scene.open and not edge.backward:
                entering[other][piece] = upper.get(f"{edge.id}:upper", one), edge
        used: set[str] = set()
        for right, brought in entering.items():
            late = _late({piece: edge for piece, (_, edge) in brought.items()}, steps[right])
            sources = {piece: source for piece, (source, _) in brought.items()}
            for left in dict.fromkeys(sources[piece] for piece in late):
                mine = [piece for piece in brought if sources[piece] == left]
                alone = left in shown.scene.open and all(piece in late for piece in mine)
                if not alone or used & {left, right} or len(late) == len(brought):
                    continue
                texts = {
                    f"{edge.id}:text": edge
                    for edge in shown.edges
                    if f"{edge.id}:text" in after[left] and right in after[f"{edge.id}:text"]
                }
                ways = _reached(after, [k for k in after[left] if k not in texts])
                if right in ways or left in _reached(after, after[right]):
                    continue
                used |= {left, right}
                found.setdefault(box, []).append(Pair(left, right, list(texts.values())))
    return found


def _late(brought: dict[str, LabelledEdge], inner: list[Step]) -> set[str]:
    """The pieces that join late what comes into the same box, as `inner` leads on."""
    into = {one: other for _, one, other in inner if one.startswith("<in>")}
    after: dict[str, dict[str, None]] = defaultdict(dict)
    for _, one, other in inner:
        after[one][other] = None
    ends = {piece: into[f"<in>{piece}"] for piece in brought}
    below = {end: _reached(after, after[end]) for end in ends.values()}
    found = set()
    for piece, edge in brought.items():
        for other, rival in brought.items():
            further = ends[piece] in below[ends[other]] and ends[other] not in below[ends[piece]]
            if further or (edge.edge.shared and rival.edge.fan == 1):
                found.add(piece)
    return found


def _reached(after: dict[str, dict[str, None]], start: Iterable[str]) -> set[str]:
    """All that can be reached from some items, themselves included."""
    seen = set(start)
    waiting = list(seen)
    while waiting:
        for other in after.get(waiting.pop(), ()):
            if other not in seen:
                seen.add(other)
                waiting.append(other)
    return seen
