"""PNG and PDF: the same picture as the SVG, whose shapes Graphviz paints where they stand.

Graphviz draws anything in a graph's `_background`, in the language of its format xdot; it lays out
nothing here.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from itertools import pairwise

import graphviz

from .palette import PAPER
from .svg import SVG

INSTALL = "`apt install graphviz` or `pip install 'minitensor[graph]'`"
FONT = "Helvetica"
CURVE = 0.5523  # of a quarter of a circle: how far off the control points lie

Point = tuple[float, float]


def printed(svg: bytes, format: str) -> bytes:
    """Return one of our SVG pictures as "png" or "pdf".

    Painted by Graphviz's program, without it by pygraphviz; without that too, RuntimeError.
    """
    source = _source(svg)
    try:
        drawn: bytes = graphviz.Source(source, engine="neato").pipe(
            format=format, neato_no_op=2, quiet=True
        )
    except graphviz.ExecutableNotFound:
        try:
            from pygraphviz import AGraph  # type: ignore[import-untyped]
        except ImportError as error:
            raise RuntimeError(f"drawing a {format} takes Graphviz: {INSTALL}") from error
        drawn = AGraph(string=source).draw(format=format, prog="nop2")
    return drawn


def _source(svg: bytes) -> str:
    """A graph without nodes but for two corners, and all shapes as its background."""
    root = ET.fromstring(svg)
    _, _, wide, high = map(float, root.get("viewBox", "").split())
    shapes = (shape.replace('"', '\\"') for shape in _shapes(root, {}, (0.0, 0.0), high))
    drawn = '" +\n"'.join(shapes)  # in pieces: a string in DOT has at most 16,384 characters
    corner = 'shape=point style=invis width=0 height=0 label=""'
    return (
        f'graph {{ graph [pad=0 margin=0 bgcolor="{PAPER}" bb="0,0,{wide:g},{high:g}"\n'
        f'_background="{drawn}"]\n'
        f'a [{corner} pos="0,0"]\nb [{corner} pos="{wide:g},{high:g}"] }}\n'
    )


def _shapes(element: ET.Element, given: dict[str, str], at: Point, high: float) -> Iterator[str]:
    """The shapes in an element; `given` has the attributes of those around it."""
    for child in element:
        known = {**given, **child.attrib}
        name = child.tag.removeprefix(f"{{{SVG}}}")
        if name == "g":
            known = {key: known[key] for key in known.keys() - {"transform", "id", "class"}}
            move = re.match(r"translate\((.*),(.*)\)", child.get("transform", ""))
            x, y = (float(move[1]), float(move[2])) if move else (0.0, 0.0)
            yield from _shapes(child, known, (at[0] + x, at[1] + y), high)
        elif name == "text":
            yield _text("".join(child.itertext()), known, at, high)
        elif name in _WAYS and known.get("width") != "100%":
            yield from _painted(_WAYS[name](known), known, at, high)


def _text(text: str, known: dict[str, str], at: Point, high: float) -> str:
    # A quote after a backslash would end the attribute: a joiner of no width keeps them apart.
    text = text.replace('\\"', '\\\N{WORD JOINER}"')
    rise = 0.2 * float(known["font-size"])  # by so much Graphviz lifts what it writes
    x, y = at[0] + float(known["x"]), high - at[1] - float(known["y"]) - rise
    bold = int(known.get("font-weight") == "bold")
    side = {"start": -1, "middle": 0, "end": 1}[known.get("text-anchor", "start")]
    size = len(text.encode())
    return (
        f"{_named('c', known['fill'])}F {known['font-size']} {len(FONT)} -{FONT} t {bold} "
        f"T {x:.2f} {y:.2f} {side} 0 {size} -{text} "
    )


def _painted(
    ways: list[list[Point]], known: dict[str, str], at: Point, high: float
) -> Iterator[str]:
    """Ways of Bezier curves, filled and drawn as an SVG would."""
    fill, line = known.get("fill", "none"), known.get("stroke", "none")
    if line != "none":
        yield _named("c", line)
        wide = float(known.get("stroke-width") or 1)
        dashes = known.get("stroke-dasharray", "")
        dots = bool(dashes) and float(dashes.split()[0]) < 2
        yield _named("S", "dotted" if dots else "dashed" if dashes else "solid")
        yield _named("S", f"setlinewidth({wide:g})")
    else:
        yield _named("c", fill)
        yield _named("S", "setlinewidth(0)")
    if fill != "none":
        yield _named("C", fill)
    for way in ways:
        if len(way) > 1:
            points = " ".join(f"{x + at[0]:.2f} {high - y - at[1]:.2f}" for x, y in way)
            yield f"{'B' if fill == 'none' else 'b'} {len(way)} {points} "


def _named(kind: str, text: str) -> str:
    return f"{kind} {len(text)} -{text} "


def _rect(known: dict[str, str]) -> list[list[Point]]:
    x, y, w, h = (float(known[key]) for key in ("x", "y", "width", "height"))
    r = min(float(known.get("rx") or 0), w / 2, h / 2)
    k = r * (1 - CURVE)
    corners = [
        ((x + r, y), (x + w - r, y), (x + w - k, y), (x + w, y + k)),
        ((x + w, y + r), (x + w, y + h - r), (x + w, y + h - k), (x + w - k, y + h)),
        ((x + w - r, y + h), (x + r, y + h), (x + k, y + h), (x, y + h - k)),
        ((x, y + h - r), (x, y + r), (x, y + k), (x + k, y)),
    ]
    way: list[Point] = [corners[0][0]]
    for at, (start, end, one, two) in enumerate(corners):
        way += [start, end, end, one, two, corners[(at + 1) % 4][0]]
    return [way]


def _circle(known: dict[str, str]) -> list[list[Point]]:
    x, y, r = (float(known[key]) for key in ("cx", "cy", "r"))
    box = {"x": x - r, "y": y - r, "width": 2 * r, "height": 2 * r, "rx": r}
    return _rect({key: str(value) for key, value in box.items()})


def _path(known: dict[str, str]) -> list[list[Point]]:
    """Each part of a path as Bezier curves: M, L and C, with l, h, v, z."""
    ways: list[list[Point]] = []
    for step, rest in re.findall(r"([MLClhvz])([^MLClhvz]*)", known["d"]):
        n = [float(number) for number in re.findall(r"-?[\d.]+", rest)]
        if step == "M":
            ways.append([(n[0], n[1])])
            continue
        x, y = ways[-1][-1]
        match step:
            case "C":
                ways[-1] += [(n[0], n[1]), (n[2], n[3]), (n[4], n[5])]
                continue
            case "L":
                ends = [(n[0], n[1])]
            case "l":
                ends = []
                for dx, dy in zip(n[::2], n[1::2], strict=True):
                    x, y = x + dx, y + dy
                    ends.append((x, y))
            case "h":
                ends = [(x + n[0], y)]
            case "v":
                ends = [(x, y + n[0])]
            case _:
                ends = [ways[-1][0]]
        ways[-1] += _lined([ways[-1][-1], *ends])[1:]
    return ways


def _lined(points: list[Point]) -> list[Point]:
    """A line through points as Bezier curves."""
    way = [points[0]]
    for before, after in pairwise(points):
        way += [before, after, after]
    return way


_WAYS = {"rect": _rect, "circle": _circle, "path": _path}
