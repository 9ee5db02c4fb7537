"""The picture as SVG, light and dark in one file."""

from __future__ import annotations

import html
from collections.abc import Container

from . import cards
from .cards import Cell, Rect, Table, Text, Wires, clean, placed
from .layers import Span
from .layout import Plan, loop_of, plan, title_of
from .model import Graph
from .palette import BACK, DARK, FONT, FRAME, INK, PAPER
from .picture import Face, LabelledEdge, Picture, picture
from .scene import Scene

EDGE = 24.0  # around the picture
ROUND = 5.0  # corners
DASHES = {"dashed": "6 3", "dotted": "1.5 2.5"}


SVG = "http://www.w3.org/2000/svg"


def draw(scene: Scene, graph: Graph, overlay: str | None = None) -> bytes:
    """Return the picture as SVG. ValueError for an overlay that is unknown or not measured."""
    shown = picture(scene, graph, overlay)
    head, found = cards.heading(shown), settled(shown)
    tables, (wide, high) = cards.faces(shown), cards.size(head)
    top = EDGE + high + 8
    wide, high = max(found.width, wide) + 2 * EDGE, found.height + top + EDGE
    parts = [
        f'<svg xmlns="{SVG}" width="{wide:.0f}" height="{high:.0f}" '
        f'viewBox="0 0 {wide:.0f} {high:.0f}" font-family="{FONT}" font-size="10">',
        f"<style>{style()}</style>",
        _shape("rect", width="100%", height="100%", fill=PAPER),
        *_paint(head, EDGE, EDGE),
        f'<g transform="translate({EDGE:.0f},{top:.0f})">',
    ]
    for key in shown.opened:
        card, classes, fill = shown.cluster(key)
        frame = _rect(found.rects[key], 8, fill, FRAME, 2.5 if card.count > 1 else 1)
        parts += [_group(f"box:{key}", classes, card.tooltip), frame, "</g>"]
    for edge in shown.edges:
        parts += _edge(found, edge, shown)
    for key in shown.loops:
        parts += _loop(found, key, shown)
    for key in shown.opened:
        x, y, _, _ = found.rects[title_of(key)]
        parts.append(f'<g id="{_escaped(title_of(key))}" class="title">')
        parts += [*_paint(cards.header(shown.page.card(key).forward), x, y), "</g>"]
    for key, face in shown.faces.items():
        x, y, _, _ = found.rects[key]
        parts += [_group(f"box:{key}", face.classes, face.card.tooltip)]
        parts += [*_paint(tables[key], x, y), "</g>"]
    for junction in shown.junctions:
        x, y, w, _ = found.rects[junction.id]
        kind, colour = ("backward", BACK) if junction.backward else ("forward", INK)
        known = {"id": _escaped(junction.id), "class": f"junction {kind}", "fill": colour}
        parts.append(_shape("circle", cx=x + w / 2, cy=y + w / 2, r=w / 2, **known))
    return "\n".join([*parts, "</g>", "</svg>", ""]).encode()


def style() -> str:
    """Return the stylesheet, which exchanges every colour for its partner in dark mode."""
    dark = "".join(
        f'[fill="{light}"]{{fill:{dark}}}[stroke="{light}"]{{stroke:{dark}}}'
        for light, dark in DARK.items()
    )
    return (
        "svg{color-scheme:light dark}.edge:hover path{stroke-width:4}"
        f"@media (prefers-color-scheme:dark){{{dark}}}"
    )


def settled(shown: Picture) -> Plan:
    """Lay out a picture; ports whose order means nothing get the one in which edges arrive."""
    free = {key: face for key, face in shown.faces.items() if face.free}
    found = layout(shown, cards.faces(shown), free)
    if not free:
        return found
    for key, face in free.items():
        edges = [edge for edge in shown.edges if edge.target == key and edge.port is not None]
        edges.sort(key=lambda edge: found.routes[f"{edge.id}:lower"][-2][0])
        face.ports = [face.ports[edge.port or 0] for edge in edges]
        for port, edge in enumerate(edges):
            edge.port = port
    return layout(shown, cards.faces(shown))


def layout(shown: Picture, tables: dict[str, Table], free: Container[str] = ()) -> Plan:
    """Lay out everything below the head of the picture, closed boxes as `tables`.

    At the boxes of `free` edges arrive in the middle.
    """
    sizes = {key: cards.size(table) for key, table in tables.items()}
    ports = {key: _ports(table) for key, table in tables.items()}
    ends = {key: {"": known["f"]} for key, known in ports.items()}
    for edge in shown.edges:
        for piece, key in zip(("upper", "lower"), edge.ends, strict=True):
            known = key not in free or edge.backward or piece == "upper"
            if key in tables and known:
                ends[key][f"{edge.id}:{piece}"] = ports[key][_port(shown.faces[key], edge)]
        sizes[f"{edge.id}:text"] = cards.size(cards.edge(edge))
    for junction in shown.junctions:
        sizes[junction.id] = (10.0, 10.0) if junction.backward else (6.0, 6.0)
    for key in shown.opened:
        sizes[title_of(key)] = cards.size(cards.header(shown.page.card(key).forward))
    for key, labels in shown.loops.items():
        sizes[loop_of(key)] = cards.size(cards.loop(labels))
    return plan(shown, sizes, ends)


def _ports(table: Table) -> dict[str, float]:
    """The middle of each port of a card, from its left."""
    cells = [(cell, x + w / 2) for cell, (x, _, w, _) in placed(table, 0, 0)]
    return {cell.port: at for cell, at in cells if isinstance(cell, Cell) and cell.port}


def _port(face: Face, edge: LabelledEdge) -> str:
    """The port of a box at which an edge touches it."""
    leaves = edge.given and edge.edge.source == face.card.id
    if face.backward and (edge.backward or leaves):
        return "b"
    if edge.edge.target == face.card.id == edge.target and edge.port is not None:
        return f"p{edge.port}"
    return "f"


def _escaped(text: str) -> str:
    return html.escape(clean(text))


def _shape(name: str, /, **attributes: str | float) -> str:
    """An element without content; underscores in names are written as dashes."""
    known = "".join(
        f' {key.replace("_", "-")}="{f"{value:.1f}" if isinstance(value, float) else value}"'
        for key, value in attributes.items()
        if value != ""
    )
    return f"<{name}{known}/>"


def _rect(rect: Rect, rx: int, fill: str, stroke: str, border: float, dashes: str = "") -> str:
    x, y, w, h = rect
    half = border / 2 if stroke else 0.0
    place = {"x": x + half, "y": y + half, "width": w - 2 * half, "height": h - 2 * half}
    line = {"stroke": stroke, "stroke_dasharray": dashes, "fill": fill or "none"}
    return _shape("rect", **place, rx=rx, stroke_width=border if stroke else "", **line)


def _group(id: str, classes: str, tooltip: list[str]) -> str:
    title = "\n".join(map(_escaped, tooltip))
    return f'<g id="{_escaped(id)}" class="{classes}"><title>{title}</title>'


# Cards


def _paint(table: Table, x: float, y: float) -> list[str]:
    parts = []
    for item, rect in placed(table, x, y):
        if isinstance(item, Cell):
            parts += _cell(item, rect)
        elif item.border:
            rx = 8 if item.style == "rounded" else 0
            dashes = DASHES.get(item.style, "")
            parts.append(_rect(rect, rx, item.fill, item.colour, item.border, dashes))
    return parts


def _cell(cell: Cell, rect: Rect) -> list[str]:
    x, y, w, h = rect
    lines = {"L": f"M{x + cell.border / 2:.1f},{y:.1f}v{h:.1f}"}
    lines["R"] = f"M{x + w - cell.border / 2:.1f},{y:.1f}v{h:.1f}"
    lines["B"] = f"M{x:.1f},{y + h:.1f}h{w:.1f}"
    parts = [
        _shape("path", d=lines[side], stroke=cell.colour, stroke_width=cell.border)
        for side in cell.sides
    ]
    if cell.fill:
        parts.append(_rect(rect, 0, cell.fill, cell.colour, cell.border))
    if isinstance(cell.content, Wires):
        parts += _wires(cell.content, rect)
    elif not isinstance(cell.content, Table):
        top = y + (h - sum(map(cards.height, cell.content))) / 2
        for line in cell.content:
            top += cards.height(line)
            at, anchor = (x, "start") if cell.left else (x + w / 2, "middle")
            parts += _text(at, top - cards.height(line) / 4, line, anchor)
    return parts


def _text(x: float, y: float, line: Text, anchor: str = "middle") -> list[str]:
    weight = ' font-weight="bold"' if line.bold else ""
    text = (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{line.size}" text-anchor="{anchor}" '
        f'fill="{line.colour}"{weight}>{_escaped(line.text)}</text>'
    )
    return [text] if line.text.strip() else []


def _wires(wires: Wires, rect: Rect) -> list[str]:
    x, y, w, h = rect
    parts = []
    for count, text in enumerate(wires.texts):
        at = y + (h - 16 * len(wires.texts)) / 2 + 16 * count + 13
        parts += _text(x + w / 2, at - 3, Text(text, 9))
        way = f"M{x:.1f},{at:.1f}h{w - 6:.1f}"
        parts.append(_shape("path", d=way, stroke=BACK, stroke_dasharray="4 3"))
        parts.append(_shape("path", d=f"M{x + w:.1f},{at:.1f}l-6,-3l0,6z", fill=BACK))
    return parts


# Edges


def _path(spans: list[Span]) -> str:
    """Straight along each span, and in a bend from one to the next, or round two corners."""
    x, y, to = spans[0]
    steps = [f"M{x:.1f},{y:.1f}"]
    for number, (other, start, end) in enumerate(spans[1:]):
        x, y, to = spans[number]
        if x == other:
            continue
        if to != start:
            middle = (to + start) / 2
            steps.append(f"L{x:.1f},{to:.1f}")
            steps.append(f"C{x:.1f},{middle:.1f} {other:.1f},{middle:.1f} {other:.1f},{start:.1f}")
            continue
        side = min(ROUND, abs(other - x) / 2) * (1 if other > x else -1)
        for at, far, turn in ((x, y, side), (other, end, -side)):
            high = min(ROUND, abs(far - to) / 2) * (1 if far > to else -1)
            corner = [f"{at:.1f},{to + high:.1f}", f"{at + turn:.1f},{to:.1f}"]
            one, two = corner if at == x else reversed(corner)
            steps.append(f"L{one}C{at:.1f},{to:.1f} {at:.1f},{to:.1f} {two}")
    x, _, to = spans[-1]
    return "".join([*steps, f"L{x:.1f},{to:.1f}"])


def _edge(found: Plan, edge: LabelledEdge, shown: Picture) -> list[str]:
    skip, colour = edge.edge.skip, edge.colour
    pieces = [found.routes[f"{edge.id}:{piece}"] for piece in ("upper", "lower")]
    stroke = {"stroke": colour, "stroke_width": 2.2 if skip else 1}
    stroke["stroke_dasharray"] = DASHES["dotted"] if edge.nograd else ""
    parts = [_group(edge.id, edge.classes, edge.tooltip)]
    parts += [_shape("path", d=_path(spans), fill="none", **stroke) for spans in pieces]
    if edge.backward or edge.target in shown.faces:
        (x, y, _), turn = pieces[0][0], 1
        if not edge.backward:
            (x, _, y), turn = pieces[1][-1], -1
        for shift in range(2 if edge.edge.shared else 1):
            head = f"M{x:.1f},{y + turn * 6 * shift:.1f}l-3.2,{7 * turn}l6.4,0z"
            parts.append(_shape("path", d=head, fill=PAPER if skip else colour, stroke=colour))
    x, y, _, _ = found.rects[f"{edge.id}:text"]
    return [*parts, *_paint(cards.edge(edge), x, y), "</g>"]


def _loop(found: Plan, key: str, shown: Picture) -> list[str]:
    """The arrows back of a loop, at the left of its box: up, and down that of a gradient."""
    name, labels = loop_of(key), shown.loops[key]
    parts = [_group(name, "edge loop", [", ".join(label.name for label in labels)])]
    for back in sorted({label.backward for label in labels}):
        route, colour = found.routes[f"{name}:back" if back else name], BACK if back else INK
        x, y, _ = route[0 if back else -1]
        parts.append(_shape("path", d=_path(route), fill="none", stroke=colour))
        head = f"M{x:.1f},{y:.1f}l-7,-3.2l0,6.4z"
        parts.append(_shape("path", d=head, fill=colour, stroke=colour))
    x, y, _, _ = found.rects[name]
    return [*parts, *_paint(cards.loop(labels), x, y), "</g>"]
