"""One open box laid out: items in layers, the arcs between them downwards.

Layers by longest path, crossings reduced by barycentres and exchanges, places by least squares
(after Sugiyama, Tagawa and Toda, "Methods for Visual Understanding of Hierarchical System
Structures", 1981). An arc that closes a ring goes up at the right, below and above all else.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

GAP, LANE = 18.0, 10.0  # between boxes side by side; between an edge and what it passes
HEAD, TURN, STUB = 9.0, 9.0, 6.0  # room for an arrowhead, for a turn, and before a bend
SWEEPS = 8

Size = tuple[float, float]
Span = tuple[float, float, float]  # of a route: x, and from which y to which it goes straight


@dataclass
class Arc:
    """A piece of an edge inside one box, and where it touches its ends, from their left."""

    id: str
    upper: str
    lower: str
    start: float
    end: float
    below: float = 0.0  # how far above the bottom of `upper` it starts
    above: float = 0.0  # how far below the top of `lower` it ends
    weight: float = 1.0  # how much it should be straight
    head: float = 0.0  # how long its arrowhead is
    up: bool = False  # the arrowhead is at the upper end
    pull: float | None = None  # to where in `lower` it draws what it comes from, if not to its end


@dataclass
class Roles:
    """The items of a box that are no boxes or texts."""

    title: str = ""  # stands in the first layer, beside the entrances
    entrances: set[str] = field(default_factory=set)  # points on the upper border
    exits: set[str] = field(default_factory=set)  # points on the lower border
    aside: set[str] = field(default_factory=set)  # points that are reached from the left border
    tall: set[str] = field(default_factory=set)  # open boxes: whatever is beside has the same top


@dataclass
class Arranged:
    """A box laid out: its size, where things are in it, and the way of each arc."""

    width: float
    height: float
    at: dict[str, Size]
    routes: dict[str, list[Span]]


@dataclass
class Link:
    """A step of an arc from one layer to the next, and where it touches, from their left."""

    upper: str
    lower: str
    start: float
    end: float
    weight: float
    pull: float  # to where in `lower` it draws `upper`: a stream stays in the middle of its boxes
    head: float  # room for an arrowhead


def arrange(sizes: dict[str, Size], arcs: list[Arc], roles: Roles) -> Arranged:
    """Lay out items; those that no arc joins stand side by side, each group in its own layers."""
    parts = []
    for group in _groups(sizes, arcs, roles):
        inside = {key: sizes[key] for key in sizes if key in group}
        parts.append(_Layers(inside, [arc for arc in arcs if arc.upper in group], roles))
    high = max((part.height for part in parts), default=0.0)
    found = Arranged(0.0, high, {}, {})
    for part in parts:
        left = found.width + (2 * GAP if found.width and part.width else 0.0)
        down = 0.0 if part is parts[0] else (high - part.height) / 2
        border = dict.fromkeys(roles.entrances, 0.0) | dict.fromkeys(roles.exits, high)
        for key, (x, y) in part.at.items():
            found.at[key] = (x + left, border.get(key, y + down))
        for arc in part.arcs:
            spans = [(x + left, y + down, to + down) for x, y, to in part.routes[arc.id]]
            x, y, to = spans[0]
            spans[0] = (x, border.get(arc.upper, y), to)
            x, y, to = spans[-1]
            spans[-1] = (x, y, border.get(arc.lower, to))
            found.routes[arc.id] = spans
        found.width = left + part.width
    return found


def _groups(sizes: dict[str, Size], arcs: list[Arc], roles: Roles) -> list[set[str]]:
    """Items that arcs join, in the order of their first; the title is with the first of them."""
    joined: dict[str, list[str]] = defaultdict(list)
    for arc in arcs:
        joined[arc.upper].append(arc.lower)
        joined[arc.lower].append(arc.upper)
    groups: list[set[str]] = []
    single = {key for key in sizes if key not in joined and key != roles.title}
    seen = set(single)
    for key in sizes:
        if key in single and not any(group is single for group in groups):
            groups.append(single)
        if key in seen or key == roles.title:
            continue
        group, waiting = {key}, [key]
        while waiting:
            for other in joined[waiting.pop()]:
                if other not in group:
                    group.add(other)
                    waiting.append(other)
        seen |= group
        groups.append(group)
    if roles.title:
        groups = groups or [set()]
        groups[0].add(roles.title)
    return groups


class _Layers:
    """Items that arcs join, in layers; `order` numbers them from the top."""

    def __init__(self, sizes: dict[str, Size], arcs: list[Arc], roles: Roles) -> None:
        self.sizes, self.arcs, self.roles = sizes, arcs, roles
        self.order = self._order()
        self.back = [self.order[arc.upper] > self.order[arc.lower] for arc in arcs]
        self.level = self._levels()
        self.layers: list[list[str]] = [[] for _ in range(max(self.level.values(), default=-1) + 1)]
        for key in self.order:
            if key != roles.title:
                self.layers[self.level[key]].append(key)
        self.wide = {key: size[0] for key, size in sizes.items()}
        self.lanes: set[str] = set()
        self.returning: set[str] = set()  # the dummies of arcs that close a ring
        self.chains = [self._chain(number) for number in range(len(arcs))]
        self.above: dict[str, list[Link]] = defaultdict(list)
        self.below: dict[str, list[Link]] = defaultdict(list)
        self._link()
        self._sort()
        self.x = self._columns()
        self._straighten()
        self._return()
        if roles.title in sizes:
            self._entitle()
        self._place()

    # Layers

    def _order(self) -> dict[str, int]:
        """A number for each item, smaller above; a ring is cut where the first of its items is."""
        waiting = dict.fromkeys(self.sizes, 0)
        below = defaultdict(list)
        for arc in self.arcs:
            waiting[arc.lower] += 1
            below[arc.upper].append(arc.lower)
        ready, found = deque(key for key in self.sizes if not waiting[key]), dict[str, int]()
        rest = iter(self.sizes)
        while len(found) < len(self.sizes):
            key = ready.popleft() if ready else next(key for key in rest if key not in found)
            if key in found:
                continue
            found[key] = len(found)
            for other in below[key]:
                waiting[other] -= 1
                if waiting[other] == 0:
                    ready.append(other)
        return found

    def _levels(self) -> dict[str, int]:
        """The layer of each item, by the longest way from the top."""
        roles, after, before = self.roles, defaultdict(list), defaultdict(list)
        for arc, back in zip(self.arcs, self.back, strict=True):
            if not back:
                after[arc.upper].append(arc.lower)
                before[arc.lower].append(arc.upper)
        border = roles.entrances | {roles.title}
        least = int(any(key in border for key in self.sizes))
        level: dict[str, int] = {}
        for key in self.order:
            above = max((level[one] + 1 for one in before[key]), default=least)
            level[key] = 0 if key in border else max(above, least)
        lonely = [key for key in self.order if not after[key] and not before[key]]
        lonely = [key for key in lonely if key not in border]
        if len(lonely) == len(self.sizes) - len(border & self.sizes.keys()):  # in rows
            across = max(4, round(len(lonely) ** 0.5))
            level |= {key: least + at // across for at, key in enumerate(lonely)}
        deepest = max((level[key] for key in level if key not in roles.exits), default=-1)
        level |= {key: deepest + 1 for key in roles.exits if key in level}
        for key in reversed(list(self.order)):  # what nothing leads to goes down to its reader
            if not before[key] and after[key] and key not in border:
                level[key] = min(level[other] for other in after[key]) - 1
        return level

    def _chain(self, number: int) -> list[str]:
        """An arc as its ends with a dummy in each layer between, or beside it if it goes up."""
        arc, level = self.arcs[number], self.level
        if not self.back[number]:
            dummies = [f"<{number}>{at}" for at in range(level[arc.upper] + 1, level[arc.lower])]
            between = range(level[arc.upper] + 1, level[arc.lower])
        else:
            between = range(level[arc.lower], level[arc.upper] + 1)
            dummies = [f"<{number}>{at}" for at in between]
            self.returning.update(dummies)
        for at, dummy in zip(between, dummies, strict=True):
            self.layers[at].append(dummy)
            self.level[dummy] = at
            self.wide[dummy] = 2.0
        self.lanes.update(dummies)
        return dummies if self.back[number] else [arc.upper, *dummies, arc.lower]

    def _link(self) -> None:
        for arc, chain in zip(self.arcs, self.chains, strict=True):
            for one, other in pairwise(chain):
                start = 1.0 if one in self.lanes else arc.start
                end = 1.0 if other in self.lanes else arc.end
                lanes = (one in self.lanes) + (other in self.lanes)
                known = one in self.sizes and one not in self.roles.aside
                pull = end if arc.pull is None or other != arc.lower or not known else arc.pull
                weight = max(arc.weight, (1.0, 2.0, 8.0)[lanes])
                pointed = one == arc.upper if arc.up else other == arc.lower
                link = Link(one, other, start, end, weight, pull, arc.head * pointed)
                self.above[other].append(link)
                self.below[one].append(link)

    # Orders

    def _sort(self) -> None:
        """Order each layer so that few links cross: by barycentres, then by exchanges."""
        best, fewest = [list(layer) for layer in self.layers], self._crossings()
        x = dict.fromkeys(self.wide, 0.0)
        for layer in self.layers:
            self._spread(layer, x, [0.0] * len(layer))
        for sweep in range(2 * SWEEPS):
            if not fewest:
                break
            down = sweep % 2 == 0
            for layer in self.layers if down else reversed(self.layers):
                wanted = {}
                for key in layer:
                    links = self.above[key] if down else self.below[key]
                    wanted[key] = self._mean(key, links, x, down, ordering=True)[0]
                layer.sort(key=lambda key: self._rank(key, wanted[key] + self.wide[key] / 2))
                self._spread(layer, x, [wanted[key] for key in layer])
            if (found := self._crossings()) < fewest:
                best, fewest = [list(layer) for layer in self.layers], found
        self.layers = best
        if fewest:
            self._exchange()

    def _rank(self, key: str, wanted: float) -> tuple[int, float]:
        """The place of an item in its layer: arcs that go up are at the right."""
        return int(key in self.returning), wanted

    def _mean(
        self,
        key: str,
        links: Iterable[Link],
        x: dict[str, float],
        down: bool,
        ordering: bool = False,
    ) -> tuple[float, float]:
        """The place that an item would like to have by its neighbours, and how much."""
        total = weight = 0.0
        for link in links:
            shift = link.start - (link.end if ordering else link.pull)
            at = x[link.upper] + shift if down else x[link.lower] - shift
            total += link.weight * at
            weight += link.weight
        return (total / weight, weight) if weight else (x[key], 0.0)

    def _room(self, one: str, other: str) -> float:
        """The room from the left side of an item to that of the next."""
        lane = one in self.lanes or other in self.lanes
        return self.wide[one] + (LANE if lane else GAP)

    def _spread(
        self,
        layer: list[str],
        x: dict[str, float],
        wanted: list[float],
        weights: list[float] | None = None,
    ) -> None:
        room = [self._room(one, other) for one, other in pairwise(layer)]
        x.update(zip(layer, _apart(wanted, room, weights or [1.0] * len(layer)), strict=True))

    def _crossings(self) -> int:
        """The number of links that cross."""
        return sum(_inversions(self._ends(upper, lower)) for upper, lower in pairwise(self.layers))

    def _ends(
        self, upper: list[str], lower: list[str]
    ) -> list[tuple[tuple[int, float], tuple[int, float]]]:
        place = {key: at for at, key in enumerate(lower)}
        return [
            ((at, link.start), (place[link.lower], link.end))
            for at, key in enumerate(upper)
            for link in self.below[key]
        ]

    def _exchange(self) -> None:
        """Exchange neighbours in a layer as long as fewer links cross then."""
        place = {key: at for layer in self.layers for at, key in enumerate(layer)}

        def crossed(one: str, other: str) -> int:
            """The number of links of two neighbours that cross, `one` at the left."""
            count = 0
            for a in self.above[one]:
                for b in self.above[other]:
                    count += (place[a.upper], a.start) > (place[b.upper], b.start)
            for a in self.below[one]:
                for b in self.below[other]:
                    count += (place[a.lower], a.end) > (place[b.lower], b.end)
            return count

        for _ in range(SWEEPS):
            better = False
            for layer in self.layers:
                for at in range(len(layer) - 1):
                    one, other = layer[at], layer[at + 1]
                    if self._rank(one, 0) != self._rank(other, 0):
                        continue
                    if crossed(one, other) > crossed(other, one):
                        layer[at], layer[at + 1] = other, one
                        place[one], place[other] = at + 1, at
                        better = True
            if not better:
                break

    # Columns

    def _columns(self) -> dict[str, float]:
        """The left side of everything: each as near to its neighbours as the others let it."""
        x = dict.fromkeys(self.wide, 0.0)
        for layer in self.layers:
            self._spread(layer, x, [0.0] * len(layer))
        for sweep in range(3 * SWEEPS):
            down, both = sweep % 2 == 0, sweep >= 2 * SWEEPS
            for layer in self.layers if down else reversed(self.layers):
                wanted, weights = [], []
                for key in layer:
                    at, weight = self._mean(key, self.above[key], x, True)
                    if both or not down or not weight:
                        other, more = self._mean(key, self.below[key], x, False)
                        if both and weight + more:
                            at = (at * weight + other * more) / (weight + more)
                        elif more:
                            at = other
                        weight = weight + more if both else more or weight
                    wanted.append(at)
                    weights.append(weight or 0.01)
                self._spread(layer, x, wanted, weights)
        return x

    def _straighten(self) -> None:
        """Move what hangs together straight sideways as one, if that makes a bend straight.

        Least squares spread a bend over all links of a chain: one bend is better than many.
        """
        x = self.x
        block = {key: [key] for key in x}  # what is straight above and below each other
        links = [link for layer in self.layers for key in layer for link in self.below[key]]
        place = {key: (layer, at) for layer in self.layers for at, key in enumerate(layer)}

        def bend(link: Link) -> float:
            return x[link.upper] + link.start - x[link.lower] - link.pull

        def join(link: Link) -> None:
            one, other = block[link.upper], block[link.lower]
            if one is not other:
                one, other = (one, other) if len(one) >= len(other) else (other, one)
                one += other
                block.update(dict.fromkeys(other, one))

        def move(keys: list[str], by: float) -> bool:
            """Move a block, if there is room and other links bend by no more than this gains."""
            cost = 0.0
            for key in keys:
                layer, at = place[key]
                for one, other in pairwise(layer[max(at - 1, 0) : at + 2]):
                    shift = (other == key) - (one == key)
                    if block[one] is not block[other]:
                        gap = x[other] - x[one] + shift * by
                        if gap < self._room(one, other) - 0.001:
                            return False
                for link in (*self.above[key], *self.below[key]):
                    if block[link.upper] is not block[link.lower]:
                        now = bend(link)
                        cost += link.weight * (
                            abs(now + (by if link.upper == key else -by)) - abs(now)
                        )
            if cost > 0.01:
                return False
            for key in keys:
                x[key] += by
            return True

        for link in links:
            if abs(bend(link)) < 0.01:
                join(link)
        for _ in range(3):
            bent = [link for link in links if block[link.upper] is not block[link.lower]]
            for link in sorted(bent, key=lambda link: (-link.weight, abs(bend(link)))):
                by = bend(link)
                one, other = block[link.upper], block[link.lower]
                if one is not other and (abs(by) < 0.01 or move(other, by) or move(one, -by)):
                    join(link)

    def _return(self) -> None:
        """Let arcs that go up stand right beside what they pass: nothing else draws them there."""
        right = [
            max(
                (self.x[key] + self.wide[key] for key in layer if key not in self.returning),
                default=None,
            )
            for layer in self.layers
        ]
        chains = [chain for chain, back in zip(self.chains, self.back, strict=True) if back]
        for chain in sorted(chains, key=len):  # shorter ones inside longer ones
            passed = [right[self.level[key]] for key in chain]
            at = max((x for x in passed if x is not None), default=0.0) + LANE
            for key in chain:
                self.x[key] = at
                right[self.level[key]] = at + self.wide[key]

    def _entitle(self) -> None:
        """Place the title at the left of what enters, or between, or at the right if it must."""
        x, title = self.x, self.roles.title
        wide = self.wide[title]
        others = [key for key in x if key != title]
        left = min((x[key] for key in others), default=0.0)
        right = max((x[key] + self.wide[key] for key in others), default=0.0)
        entering = sorted(x[key] for key in self.layers[0])
        gaps = [(before + LANE, after - LANE - wide) for before, after in pairwise(entering)]
        places = [(0.0, at) for at, last in gaps if at <= last]
        if entering:
            places.append((max(0.0, entering[-1] + LANE + wide - right), entering[-1] + LANE))
        places = [(more + 3 * GAP, at) for more, at in places]  # people look for it at the left
        first = min(left, entering[0] - LANE - wide) if entering else left
        x[title] = min([(left - first, first), *places])[1]

    # Places

    def _place(self) -> None:
        """Fix all places and ways."""
        x, level, sizes = self.x, self.level, self.sizes
        left = min(x.values(), default=0.0)
        bottoms, tops = self._rows()
        self.height = bottoms[-1] if bottoms else 0.0
        if len(bottoms) - 1 in {under for _, under in self._turns()}:
            self.height += 2 * TURN
        self.width = max((x[key] + self.wide[key] for key in x), default=0.0) - left
        beside = {number for number, layer in enumerate(self.layers) if self.roles.tall & {*layer}}
        points = self._points(x)
        self.at = {}
        for key, (_, high) in sizes.items():
            top, bottom = tops[level[key]], bottoms[level[key]]
            y = top if level[key] in beside else (top + bottom - high) / 2
            self.at[key] = (x[key] - left, bottom + points[key] if key in points else y)
        self.routes = {}
        for arc, chain, back in zip(self.arcs, self.chains, self.back, strict=True):
            (a, b), (c, d) = self.at[arc.upper], self.at[arc.lower]
            begin, end = b + sizes[arc.upper][1] - arc.below, d + arc.above
            inner = [
                (x[key] - left + 1.0, tops[level[key]], bottoms[level[key]])
                for key in chain
                if key in self.lanes
            ]
            if back:
                lane, low = inner[0][0], bottoms[level[arc.upper]] + TURN
                high = tops[level[arc.lower]] - HEAD - TURN
                spans = [(a + arc.start, begin, low), (lane, low, high), (c + arc.end, high, end)]
            else:
                until = max(bottoms[level[arc.upper]], begin)
                until = begin + STUB if arc.upper in points else until
                spans = [(a + arc.start, begin, until), *inner]
                spans.append((c + arc.end, tops[level[arc.lower]], end))
            self.routes[arc.id] = spans

    def _points(self, x: dict[str, float]) -> dict[str, float]:
        """The distance below its layer of each point that is reached from the left."""
        found = {}
        for layer in self.layers:
            points = [key for key in layer if key in self.roles.aside]
            for count, key in enumerate(sorted(points, key=x.__getitem__, reverse=True)):
                found[key] = STUB * (count + 1)
        return found

    def _rows(self) -> tuple[list[float], list[float]]:
        """The bottom and the top of each layer: closer where the links between are straight."""
        turns = self._turns()
        above, under = ({turn[end] for turn in turns} for end in (0, 1))
        y = HEAD + 2 * TURN if 0 in above else 0.0
        tops, bottoms = [], []
        for number, layer in enumerate(self.layers):
            tops.append(y)
            high = [self.sizes[key][1] for key in layer if key in self.sizes]
            if number == 0 and self.roles.title in self.sizes:
                high.append(self.sizes[self.roles.title][1])
            y += max(high, default=0.0)
            bottoms.append(y)
            last = number + 1 == len(self.layers)
            links = [link for key in layer for link in self.below[key]]
            bend = max((abs(self._shift(link)) for link in links), default=0.0)
            room = (8.0 if links else 4.0) if bend < 0.5 else min(26.0, 13.0 + bend / 12)
            points = sum(key in self.roles.aside for key in layer)
            room += (
                max((link.head for link in links), default=0.0)
                + STUB * points
                + (STUB + HEAD) * bool(points)
            )
            if number in under:
                room += 2 * TURN
            if number + 1 in above:
                room += HEAD + TURN
            y += 0.0 if last else room
        return bottoms, tops

    def _turns(self) -> list[tuple[int, int]]:
        """For each arc that goes up: above and below which layer it turns."""
        return [
            (self.level[arc.lower], self.level[arc.upper])
            for arc, back in zip(self.arcs, self.back, strict=True)
            if back
        ]

    def _shift(self, link: Link) -> float:
        return self.x[link.upper] + link.start - self.x[link.lower] - link.end


def _inversions(ends: list[tuple[tuple[int, float], tuple[int, float]]]) -> int:
    """The number of pairs of links that cross."""
    seen: list[tuple[int, float]] = []
    count = 0
    for _, lower in sorted(ends):
        count += len(seen) - bisect_right(seen, lower)
        insort(seen, lower)
    return count


def _apart(wanted: list[float], room: list[float], weights: list[float]) -> list[float]:
    """Places as near to the wanted ones, in weighted squares, as leaves each the room it needs."""
    blocks: list[tuple[float, float, int]] = []  # isotonic regression: those that push share a mean
    offset, offsets = 0.0, []
    for want, need, weight in zip(wanted, [*room, 0.0], weights, strict=False):
        offsets.append(offset)
        mean, total, size = want - offset, weight, 1
        while blocks and blocks[-1][0] > mean:
            before, more, count = blocks.pop()
            mean = (before * more + mean * total) / (more + total)
            total, size = more + total, count + size
        blocks.append((mean, total, size))
        offset += need
    means = [mean for mean, _, size in blocks for _ in range(size)]
    return [mean + offset for mean, offset in zip(means, offsets, strict=True)]
