"""A layered layout without Graphviz: each open box on its own, from the innermost out.

Layers by longest path, crossings reduced by barycentres, places by least squares (after Sugiyama,
Tagawa and Toda, "Methods for Visual Understanding of Hierarchical System Structures", 1981).
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field
from itertools import pairwise

from .picture import Picture, common

GAP, ROW, PAD, TITLE = 18.0, 26.0, 14.0, 26.0  # between columns, between layers, around, on top
SWEEPS = 6

Size = tuple[float, float]
Step = tuple[str, str, str]  # of a piece of an edge: a box it passes, and its ends in that
Neighbours = dict[str, list[tuple[str, float]]]  # of each item: others, how far it is right of them
Span = tuple[float, float, float]  # of a route: x, and from which y to which it goes straight


@dataclass
class Arc:
    """A piece of an edge inside one box, and where it touches its ends, from their left."""

    id: str
    upper: str
    lower: str
    start: float
    end: float


@dataclass
class Arranged:
    """A box laid out: its size, where things are in it, and the way of each arc."""

    width: float
    height: float
    at: dict[str, Size]
    routes: dict[str, list[Span]]


@dataclass
class Plan:
    """Places: x, y, width, height of boxes, texts and junctions; and the ways of edges."""

    width: float
    height: float
    rects: dict[str, tuple[float, float, float, float]]
    routes: dict[str, list[Span]] = field(default_factory=dict)


def arrange(sizes: dict[str, Size], arcs: list[Arc], last: set[str]) -> Arranged:
    """Lay out items in layers, arcs downwards; items of `last` in the lowest layer."""
    order = _order(sizes, arcs)
    chains, layers = _layers(sizes, arcs, order, last)
    wide = {key: size[0] for key, size in sizes.items()}
    above: Neighbours = defaultdict(list)
    below: Neighbours = defaultdict(list)
    ends = [  # where each arc touches the first of its chain, and the last
        (arc.start, arc.end) if chain[0] == arc.upper else (arc.end, arc.start)
        for arc, chain in zip(arcs, chains, strict=True)
    ]
    for chain, (start, end) in zip(chains, ends, strict=True):
        for key in chain[1:-1]:
            wide[key] = 6.0
        for one, other in pairwise(chain):
            shift = (start if one == chain[0] else 3.0) - (end if other == chain[-1] else 3.0)
            above[other].append((one, shift))
            below[one].append((other, -shift))
    x = _columns(layers, wide, above, below)
    left = min(x.values(), default=0.0)
    top, tops, bottoms = 0.0, [], []
    for layer in layers:
        tops.append(top)
        bottoms.append(top + max((sizes[key][1] for key in layer if key in sizes), default=0.0))
        top = bottoms[-1] + ROW
    level = {key: number for number, layer in enumerate(layers) for key in layer}
    at = {
        key: (x[key] - left, (tops[level[key]] + bottoms[level[key]] - size[1]) / 2)
        for key, size in sizes.items()
    }
    routes = {}
    for arc, chain, (start, end) in zip(arcs, chains, ends, strict=True):
        first, final = chain[0], chain[-1]
        spans = [(at[first][0] + start, at[first][1] + sizes[first][1], bottoms[level[first]])]
        spans += [(x[k] - left + 3.0, tops[level[k]], bottoms[level[k]]) for k in chain[1:-1]]
        spans.append((at[final][0] + end, tops[level[final]], at[final][1]))
        if first != arc.upper:  # it was turned round
            spans = [(x, until, since) for x, since, until in reversed(spans)]
        routes[arc.id] = spans
    right = max((x[key] + wide[key] for key in x), default=0.0) - left
    return Arranged(right, bottoms[-1] if bottoms else 0.0, at, routes)


def _order(sizes: dict[str, Size], arcs: list[Arc]) -> dict[str, int]:
    """A number for each item, smaller above; a ring is cut where the first of its items is."""
    waiting = dict.fromkeys(sizes, 0)
    below = defaultdict(list)
    for arc in arcs:
        waiting[arc.lower] += 1
        below[arc.upper].append(arc.lower)
    ready, found = deque(key for key in sizes if not waiting[key]), dict[str, int]()
    rest = iter(sizes)
    while len(found) < len(sizes):
        key = ready.popleft() if ready else next(key for key in rest if key not in found)
        if key in found:
            continue
        found[key] = len(found)
        for other in below[key]:
            waiting[other] -= 1
            if waiting[other] == 0:
                ready.append(other)
    return found


def _layers(
    sizes: dict[str, Size], arcs: list[Arc], order: dict[str, int], last: set[str]
) -> tuple[list[list[str]], list[list[str]]]:
    """Each arc as a chain with a dummy in every layer between, and all layers from the top."""
    pairs = [sorted((arc.upper, arc.lower), key=order.__getitem__) for arc in arcs]
    below, after = defaultdict(list), defaultdict(list)
    for one, other in pairs:
        below[one].append(other)
        after[other].append(one)
    level: dict[str, int] = {}
    for key in order:  # numbered from the top
        level[key] = max((level[one] + 1 for one in after[key]), default=0)
    deepest = max(level.values(), default=0)
    for key in last:
        level[key] = deepest
    for key in reversed(list(order)):  # what nothing leads to goes down to where it is read
        if not after[key] and below[key] and not key.startswith("<in>"):
            level[key] = min(level[other] for other in below[key]) - 1
    layers: list[list[str]] = [[] for _ in range(deepest + 1)]
    for key in order:
        layers[level[key]].append(key)
    chains = []
    for count, (one, other) in enumerate(pairs):
        dummies = [f"<dummy>{count}:{at}" for at in range(level[one] + 1, level[other])]
        for at, dummy in enumerate(dummies, level[one] + 1):
            layers[at].append(dummy)
        chains.append([one, *dummies, other])
    return chains, layers


def _columns(
    layers: list[list[str]], wide: dict[str, float], above: Neighbours, below: Neighbours
) -> dict[str, float]:
    """The left side of everything: each as near to its neighbours as the others let it.

    The first sweeps also put each layer in the order in which its items would like to stand.
    """
    x: dict[str, float] = {}
    for layer in layers:
        at = 0.0
        for key in layer:
            x[key] = at
            at += wide[key] + GAP
    for sweep in range(3 * SWEEPS):
        near = below if sweep % 2 else above
        for layer in reversed(layers) if sweep % 2 else layers:
            wanted = {}
            for key in layer:
                to = [x[other] + shift for other, shift in near[key]]
                wanted[key] = sum(to) / len(to) if to else x[key]
            if sweep < SWEEPS:
                layer.sort(key=lambda key: wanted[key] + wide[key] / 2)
            room = [wide[key] + GAP for key in layer]
            x.update(zip(layer, _apart([wanted[key] for key in layer], room), strict=True))
    return x


def _apart(wanted: list[float], room: list[float]) -> list[float]:
    """Places as near to the wanted ones, in squares, as leaves each the room it needs."""
    blocks: list[tuple[float, int]] = []  # isotonic regression: neighbours that push share a mean
    offset, offsets = 0.0, []
    for want, need in zip(wanted, room, strict=True):
        offsets.append(offset)
        mean, size = want - offset, 1
        while blocks and blocks[-1][0] > mean:
            before, count = blocks.pop()
            mean, size = (before * count + mean * size) / (count + size), count + size
        blocks.append((mean, size))
        offset += need
    means = [mean for mean, size in blocks for _ in range(size)]
    return [mean + offset for mean, offset in zip(means, offsets, strict=True)]


def plan(
    shown: Picture,
    sizes: dict[str, Size],
    ends: dict[str, dict[str, float]],
    titles: dict[str, float],
) -> Plan:
    """Return places for boxes, junctions, texts (of `sizes`) and open boxes (`titles` so wide).

    `ends` says where pieces of edges touch boxes, from their left; elsewhere it is the middle.
    """
    scene, parents = shown.scene, shown.parents
    root = scene.tree.root
    inside: dict[str, dict[str, Size]] = defaultdict(dict)
    for key, parent in parents.items():
        if parent is not None and key in sizes:
            inside[parent][key] = sizes[key]
    pieces: dict[str, list[Step]] = {}  # box, upper, lower: from the top down
    by_box: dict[str, list[Step]] = defaultdict(list)
    for edge in shown.edges:
        text = f"{edge.id}:text"
        home = common(parents, edge.source, edge.target) or root
        inside[home][text] = sizes[text]
        parents[text] = home
        upper, lower = edge.ends
        for piece, one, other in ((":upper", upper, text), (":lower", text, lower)):
            pieces[edge.id + piece] = _through(edge.id + piece, one, other, home, parents)
    for piece, steps in pieces.items():
        for box, one, other in steps:
            by_box[box].append((piece, one, other))
            for port in (one, other):
                if port.startswith(("<in>", "<out>")):
                    inside[box][port] = (2.0, 0.0)
    done: dict[str, Arranged] = {}
    for box in [key for key in reversed(scene.visible) if key in scene.open]:

        def touch(key: str, piece: str, side: str) -> float:
            if key in done:
                return done[key].at[f"<{side}>{piece}"][0] + 1.0 + PAD
            known = ends.get(key, {}).get(piece)
            return inside[box][key][0] / 2 if known is None else known  # noqa: B023

        arcs = [
            Arc(piece, one, other, touch(one, piece, "out"), touch(other, piece, "in"))
            for piece, one, other in by_box[box]
        ]
        last = {key for key in inside[box] if key.startswith("<out>")}
        done[box] = arrange(inside[box], arcs, last)
        parent = parents[box]
        if parent is not None:
            wide = max(done[box].width, titles[box])
            inside[parent][box] = (wide + 2 * PAD, done[box].height + TITLE + PAD + ROW)
    return _together(root, done, inside, pieces)


def _together(
    root: str,
    done: dict[str, Arranged],
    inside: dict[str, dict[str, Size]],
    pieces: dict[str, list[Step]],
) -> Plan:
    """Boxes laid out each on its own, as one plan."""
    found = Plan(done[root].width, done[root].height, {})
    corner = {root: (0.0, 0.0)}
    for box in reversed(done):  # an outer one was laid out after those in it
        left, top = corner[box]
        for key, (x, y) in done[box].at.items():
            if not key.startswith(("<in>", "<out>")):
                found.rects[key] = (left + x, top + y, *inside[box][key])
            if key in done:
                corner[key] = (left + x + PAD, top + y + TITLE + ROW / 2)
    for piece, steps in pieces.items():
        found.routes[piece] = [
            (x + corner[box][0], one + corner[box][1], other + corner[box][1])
            for box, _, _ in steps
            for x, one, other in done[box].routes[piece]
        ]
    return found


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
