"""Reads a picture back from its SVG and counts what is wrong in it, whoever painted it."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import combinations, pairwise

from minitensor.graph import cards

SVG = "{http://www.w3.org/2000/svg}"
NUMBER = r"-?\d+(?:\.\d+)?(?:e-?\d+)?"

Point = tuple[float, float]
Rect = tuple[float, float, float, float]  # left, top, right, bottom
Segment = tuple[Point, Point]


@dataclass
class Line:
    """An edge: its pieces as polylines."""

    id: str
    ways: list[list[Point]] = field(default_factory=list)

    @property
    def segments(self) -> Iterator[Segment]:
        for way in self.ways:
            yield from pairwise(way)


@dataclass
class Drawn:
    """The boxes, texts and edges of a picture, with their places."""

    width: float
    height: float
    boxes: dict[str, Rect] = field(default_factory=dict)  # closed ones
    frames: dict[str, Rect] = field(default_factory=dict)
    titles: dict[str, Rect] = field(default_factory=dict)
    labels: dict[str, Rect] = field(default_factory=dict)  # texts of edges
    edges: dict[str, Line] = field(default_factory=dict)

    @property
    def crossings(self) -> int:
        """Return how often edges cross; those that meet in an end do not."""
        return len(crossing(self))

    @property
    def length(self) -> float:
        """Return the length of all edges together."""
        return sum(math.dist(*part) for edge in self.edges.values() for part in edge.segments)

    @property
    def through(self) -> list[str]:
        """Return what edges run through: boxes, titles and texts of others, by name."""
        found = []
        ways = [
            (edge.id, way, around((x, y, x, y) for x, y in way))
            for edge in self.edges.values()
            for way in edge.ways
        ]
        for kind, rects in (("box", self.boxes), ("title", self.titles), ("label", self.labels)):
            for name, rect in rects.items():
                inner = shrunk(rect, 2.0)
                for edge, way, whole in ways:
                    own = kind == "label" and edge == name
                    if (
                        not own
                        and meet(whole, inner)
                        and any(cuts(p, inner) for p in pairwise(way))
                    ):
                        found.append(f"{edge} through {kind} {name}")
        return found

    @property
    def along(self) -> list[str]:
        """Return the edges that run on the frame of an open box."""
        return [
            f"{edge.id} along {name}"
            for name, (left, top, right, bottom) in self.frames.items()
            for edge in self.edges.values()
            if any(
                (abs(y - v) < 1 and min(abs(y - top), abs(y - bottom)) < 2.5
                 and min(max(x, u), right) - max(min(x, u), left) > 8)
                or (abs(x - u) < 1 and min(abs(x - left), abs(x - right)) < 2.5
                    and min(max(y, v), bottom) - max(min(y, v), top) > 8)
                for (x, y), (u, v) in edge.segments
            )
        ]  # fmt: skip

    @property
    def overlaps(self) -> list[str]:
        """Return the texts of edges and titles that lie on a box, a frame or each other."""
        texts = {**{f"label {k}": r for k, r in self.labels.items()},
                 **{f"title {k}": r for k, r in self.titles.items()}}  # fmt: skip
        found = [
            f"{a} on {b}"
            for a, b in combinations(texts, 2)
            if meet(shrunk(texts[a], 0.5), texts[b])
        ]
        for name, rect in texts.items():
            found += [f"{name} on box {box}" for box, other in self.boxes.items()
                      if meet(shrunk(rect, 0.5), other)]  # fmt: skip
            found += [f"{name} on frame {box}" for box, other in self.frames.items()
                      if meet(shrunk(rect, 0.5), other) and not within(rect, other)]  # fmt: skip
        return found

    @property
    def outside(self) -> list[str]:
        """Return what lies outside the picture."""
        page = (0.0, 0.0, self.width, self.height)
        everything = (self.boxes | self.frames | self.titles | self.labels).items()
        found = [name for name, rect in everything if not within(rect, page)]
        return found + [
            edge.id
            for edge in self.edges.values()
            if any(not within((*one, *one), page) for way in edge.ways for one in way)
        ]


def read(svg: bytes) -> Drawn:
    """Return what a picture of ours, or of Graphviz, shows."""
    root = ET.fromstring(svg)
    x, y, wide, high = map(float, root.get("viewBox", "").split())
    found = Drawn(wide, high)
    _visit(root, (-x, -y), found)
    return found


def _visit(element: ET.Element, origin: Point, found: Drawn) -> None:
    for child in element:
        if child.tag != f"{SVG}g":
            continue
        move = re.search(rf"translate\(({NUMBER})[ ,]+({NUMBER})\)", child.get("transform", ""))
        at = (origin[0] + float(move[1]), origin[1] + float(move[2])) if move else origin
        kinds, name = child.get("class", "").split(), child.get("id", "")
        name = re.sub(r":(upper|lower|text)$", "", name)
        if "edge" in kinds and "text" not in kinds:
            line = found.edges.setdefault(name, Line(name))
            line.ways += [
                way
                for path in child.iter(f"{SVG}path")
                if path.get("fill") == "none"
                for way in (flat(path.get("d", ""), at),)
            ]
        if "edge" in kinds or "text" in kinds:
            if (rect := texts(child, at)) is not None:
                found.labels[name] = rect
        elif "cluster" in kinds:
            found.frames[name] = shapes(child, at)
        elif "title" in kinds or (kinds == ["node"] and texts(child, at)):
            rect = texts(child, at)
            assert rect is not None
            found.titles[name] = rect
        elif "box" in kinds:
            found.boxes[name] = shapes(child, at)
        elif "junction" not in kinds:
            _visit(child, at, found)


def flat(way: str, origin: Point) -> list[Point]:
    """Return a path of absolute M, L and C as a polyline."""
    points: list[Point] = []
    for step, rest in re.findall(r"([MLC])([^MLC]*)", way):
        known = [float(number) for number in re.findall(NUMBER, rest)]
        ends = [(known[i] + origin[0], known[i + 1] + origin[1]) for i in range(0, len(known), 2)]
        if step != "C":
            points += ends
            continue
        for i in range(0, len(ends), 3):
            points += bezier(points[-1], *ends[i : i + 3])
    return points


def bezier(a: Point, b: Point, c: Point, d: Point) -> Iterable[Point]:
    for step in range(1, 9):
        t = step / 8
        weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
        yield (
            sum(w * p[0] for w, p in zip(weights, (a, b, c, d), strict=True)),
            sum(w * p[1] for w, p in zip(weights, (a, b, c, d), strict=True)),
        )


def texts(group: ET.Element, origin: Point) -> Rect | None:
    """Return the rectangle around the texts of a group."""
    rects = []
    for text in group.iter(f"{SVG}text"):
        size = float(text.get("font-size", 10))
        bold = text.get("font-weight") == "bold"
        wide = cards.width("".join(text.itertext()).strip(), size, bold) * 0.9
        x, y = float(text.get("x", 0)) + origin[0], float(text.get("y", 0)) + origin[1]
        left = x - wide * {"start": 0, "middle": 0.5, "end": 1}[text.get("text-anchor", "start")]
        rects.append((left, y - 0.72 * size, left + wide, y + 0.2 * size))
    return around(rects) if rects else None


def shapes(group: ET.Element, origin: Point) -> Rect:
    """Return the rectangle around the shapes of a group."""
    rects = []
    for shape in group.iter():
        known = {key: float(shape.get(key, 0)) for key in ("x", "y", "width", "height")} if (
            shape.tag == f"{SVG}rect") else {}  # fmt: skip
        if known:
            x, y = known["x"] + origin[0], known["y"] + origin[1]
            rects.append((x, y, x + known["width"], y + known["height"]))
        elif shape.tag in (f"{SVG}polygon", f"{SVG}polyline"):
            rects.append(
                around([(x, y, x, y) for x, y in _points(shape.get("points", ""), origin)])
            )
        elif shape.tag == f"{SVG}path" and not re.search("[a-z]", shape.get("d", "")):
            way = flat(shape.get("d", ""), origin)
            rects.append(around([(x, y, x, y) for x, y in way]))
        elif shape.tag == f"{SVG}ellipse":
            cx, cy, rx, ry = (float(shape.get(key, 0)) for key in ("cx", "cy", "rx", "ry"))
            cx, cy = cx + origin[0], cy + origin[1]
            rects.append((cx - rx, cy - ry, cx + rx, cy + ry))
    return around(rects)


def _points(text: str, origin: Point) -> list[Point]:
    known = [float(number) for number in re.findall(NUMBER, text)]
    return [(known[i] + origin[0], known[i + 1] + origin[1]) for i in range(0, len(known), 2)]


def around(rects: Iterable[Rect]) -> Rect:
    left, top, right, bottom = zip(*rects, strict=True)
    return min(left), min(top), max(right), max(bottom)


def shrunk(rect: Rect, by: float) -> Rect:
    left, top, right, bottom = rect
    return left + by, top + by, right - by, bottom - by


def within(rect: Rect, other: Rect) -> bool:
    (a, b, c, d), (left, top, right, bottom) = rect, other
    return left - 0.5 <= a and top - 0.5 <= b and c <= right + 0.5 and d <= bottom + 0.5


def meet(rect: Rect, other: Rect) -> bool:
    (a, b, c, d), (left, top, right, bottom) = rect, other
    return a <= right and left <= c and b <= bottom and top <= d


def cuts(part: Segment, rect: Rect) -> bool:
    """Return True if a segment has a point inside a rectangle."""
    (x, y), (u, v) = part
    left, top, right, bottom = rect
    if left >= right or top >= bottom:
        return False
    start, end = 0.0, 1.0
    for begin, way, low, high in ((x, u - x, left, right), (y, v - y, top, bottom)):
        if abs(way) < 1e-9:
            if not low < begin < high:
                return False
            continue
        near, far = sorted(((low - begin) / way, (high - begin) / way))
        start, end = max(start, near), min(end, far)
    return start < end


def crossing(picture: Drawn) -> list[tuple[str, str]]:
    """Return the pairs of edges that cross, a pair as often as it does."""
    cells: dict[tuple[int, int], list[tuple[str, Segment]]] = defaultdict(list)
    for edge in picture.edges.values():
        for part in edge.segments:
            (x, y), (u, v) = part
            for row in range(int(min(y, v) // 200), int(max(y, v) // 200) + 1):
                for column in range(int(min(x, u) // 200), int(max(x, u) // 200) + 1):
                    cells[column, row].append((edge.id, part))
    ends = {e.id: [p for way in e.ways for p in (way[0], way[-1])] for e in picture.edges.values()}
    found: dict[tuple[str, str, int, int], None] = {}
    for parts in cells.values():
        for (one, a), (other, b) in combinations(parts, 2):
            if one != other and (at := meeting(a, b)) is not None:
                first, second = sorted((one, other))
                mine, theirs = ends[one], ends[other]
                shared = any(
                    math.dist(p, q) < 1 and abs(p[0] - at[0]) < 2 for p in mine for q in theirs
                )
                if not shared and all(math.dist(at, end) > 6 for end in mine + theirs):
                    found[first, second, round(at[0] / 12), round(at[1] / 12)] = None
    return [(one, other) for one, other, _, _ in found]


def meeting(a: Segment, b: Segment) -> Point | None:
    """Return where two segments cross."""
    (x, y), (u, v) = a
    (p, q), (r, s) = b
    across = (u - x) * (s - q) - (v - y) * (r - p)
    if abs(across) < 1e-9:
        return None
    t = ((p - x) * (s - q) - (q - y) * (r - p)) / across
    k = ((p - x) * (v - y) - (q - y) * (u - x)) / across
    if 0 <= t <= 1 and 0 <= k <= 1:
        return x + t * (u - x), y + t * (v - y)
    return None
