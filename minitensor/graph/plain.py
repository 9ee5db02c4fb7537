"""The picture without Graphviz: the same texts, colours and borders on our own layout, as SVG."""

from __future__ import annotations

from html import escape
from itertools import pairwise

from .layout import Plan, Span, plan
from .model import Graph
from .page import Label
from .palette import (
    BACK,
    BACK_FILL,
    FONT,
    FRAME,
    INK,
    LOOKS,
    PAPER,
    QUIET,
    RAMP,
    RAMP_INK,
    SKIP,
    Look,
)
from .picture import Face, LabelledEdge, Picture, picture, width
from .scene import Scene
from .svg import style

LINE, EDGE = 14.0, 24.0  # height of a line of text; around the picture


def draw(scene: Scene, graph: Graph, overlay: str | None = None) -> bytes:
    """The picture as SVG, without any program. ValueError for an unknown overlay."""
    shown = picture(scene, graph, overlay)
    found = layout(shown)
    rows = shown.legend_rows
    top = 2 * EDGE + (LINE + 4) * (1 + len(rows) + (shown.scale is not None)) + 8
    top += LINE * len(shown.notes)
    wide = max(
        found.width,
        width(shown.title, 16, True),
        width(shown.facts, 11),
        *(width(note, 10) for note in shown.notes),
        *(sum(46 + width(says, 10) for _, says in row) for row in rows),
        sum(width(text, 10) for text in _ends(shown)) + 60 + 20 * len(RAMP),
    )
    wide, high = wide + 2 * EDGE, found.height + top + EDGE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide:.0f}" height="{high:.0f}" '
        f'viewBox="0 0 {wide:.0f} {high:.0f}" font-family="{FONT}" font-size="10">',
        f"<style>{style()}</style>",
        f'<rect width="100%" height="100%" fill="{PAPER}"/>',
        *_head(shown),
        f'<g transform="translate({EDGE:.0f},{top:.0f})">',
    ]
    for key in shown.opened:
        parts += _open(found, shown, key)
    for edge in shown.edges:
        parts += _edge(found, edge, shown)
    parts += [_open_title(found, shown, key) for key in shown.opened]
    columns = _columns(shown)
    for key, face in shown.faces.items():
        parts += _face(found, face, columns[key])
    for junction in shown.junctions:
        x, y, w, _ = found.rects[junction.id]
        kind, colour = ("backward", BACK) if junction.backward else ("forward", INK)
        parts.append(
            f'<circle id="{escape(junction.id)}" class="junction {kind}" cx="{x + w / 2:.1f}" '
            f'cy="{y + w / 2:.1f}" r="{w / 2:.1f}" fill="{colour}"/>'
        )
    return "\n".join([*parts, "</g>", "</svg>", ""]).encode()


def layout(shown: Picture) -> Plan:
    """Lay out everything below the head of the picture."""
    sizes: dict[str, tuple[float, float]] = {}
    ends: dict[str, dict[str, float]] = {}
    columns = _columns(shown)
    for key, face in shown.faces.items():
        sizes[key] = (sum(columns[key]), _height(face))
        ends[key] = {}
    for edge in shown.edges:
        for piece, key in zip(("upper", "lower"), edge.ends, strict=True):
            if key in shown.faces:
                touch = _touch(shown.faces[key], columns[key], edge)
                ends[key][f"{edge.id}:{piece}"] = touch
        rows = edge.label.rows
        sizes[f"{edge.id}:text"] = (max(width(t, 10, True) for t in rows) + 8, 13.0 * len(rows))
    for junction in shown.junctions:
        sizes[junction.id] = (10.0, 10.0) if junction.backward else (6.0, 6.0)
    titles = {key: _title(shown, key) for key in (shown.scene.tree.root, *shown.opened)}
    return plan(shown, sizes, ends, titles)


def _touch(face: Face, halves: tuple[float, float, float], edge: LabelledEdge) -> float:
    """The point where an edge touches a box, measured from its left."""
    if edge.backward and face.backward:
        return halves[0] + halves[1] + halves[2] / 2
    if edge.edge.target == face.card.id == edge.target and edge.port is not None:
        return halves[0] * (edge.port + 0.5) / len(face.ports)
    return halves[0] / 2


def _title(shown: Picture, key: str) -> str:
    label = shown.page.card(key).forward
    return "  ".join(text for text in (label.title, label.place) if text)


def _ends(shown: Picture) -> tuple[str, str, str]:
    """The title of the overlay, the least and the largest amount."""
    return (shown.scale.overlay.title, *shown.scale.ends) if shown.scale else ("", "", "")


def _columns(shown: Picture) -> dict[str, tuple[float, float, float]]:
    """The widths of every box; those with two halves are all alike, so that edges run straight."""
    found = {key: _halves(face) for key, face in shown.faces.items()}
    pairs = [halves for key, halves in found.items() if shown.faces[key].backward]
    if pairs:
        alike = tuple(max(column) for column in zip(*pairs, strict=True))
        for key, face in shown.faces.items():
            if face.backward:
                found[key] = (alike[0], alike[1], alike[2])
    return found


def _halves(face: Face) -> tuple[float, float, float]:
    """The widths of the forward half, of what is saved and of the backward half."""

    def half(one: Label, more: list[str]) -> float:
        lines = (width(line, 10, True) for line in [*one.rows, *more])
        return max(width(one.title, 12, True), *lines, 0.0) + 24

    instances = sum(width(text, 8) + 6 for text, _ in face.heat.instances) if face.heat else 0.0
    forward = max(
        half(face.forward, [face.heat.text] if face.heat else []),
        instances + 16,
        len(face.ports) * max((width(port, 9) + 10 for port in face.ports), default=0.0),
    )
    if face.backward is None:
        return forward, 0.0, 0.0
    between = max((width(text, 9) for text in face.saved), default=0.0) + 20
    return forward, between, half(face.backward, [])


def _height(face: Face) -> float:
    heat = 0 if face.heat is None else 2 if face.heat.instances else 1
    forward = LINE * (1 + len(face.forward.rows) + heat + bool(face.ports))
    back = LINE * (1 + len(face.backward.rows)) if face.backward else 0.0
    return max(forward, back, 16.0 * len(face.saved)) + 14


def _text(
    x: float, y: float, text: str, size: float, colour: str, bold: bool = False, at: str = "middle"
) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" text-anchor="{at}" '
        f'fill="{colour}"{weight}>{escape(text)}</text>'
    )


def _mark(x: float, y: float, mark: str) -> str:
    """The sample of a mark that the legend shows."""
    if mark in LOOKS:
        return _frame(x, y - 10, 22, 12, LOOKS[mark], LOOKS[mark].fill)
    if mark == "fused":
        other = LOOKS["other"]
        inner = Look(other.line, other.fill)
        return _frame(x, y - 10, 22, 12, other, other.fill) + _frame(
            x + 3, y - 7, 16, 6, inner, "none"
        )
    if mark == "folded":
        return _text(x + 11, y, "xN", 10, INK, True)
    colour = SKIP if mark == "skip" else INK if mark == "fan" else BACK
    dashes = ' stroke-dasharray="4 3"' if mark == "saved" else ""
    stroke = 2.2 if mark == "skip" else 1
    return (
        f'<path d="M{x:.1f},{y - 4:.1f}h22" stroke="{colour}" stroke-width="{stroke}"{dashes}/>'
        f'<path d="M{x + 22:.1f},{y - 4:.1f}l-7,-3l0,6z" stroke="{colour}" '
        f'fill="{PAPER if mark == "skip" else colour}"/>'
    )


def _head(shown: Picture) -> list[str]:
    y = EDGE + 4
    parts = [_text(EDGE, y, shown.title, 16, INK, True, "start")]
    y += LINE + 4
    parts.append(_text(EDGE, y, shown.facts, 11, QUIET, at="start"))
    for note in shown.notes:
        y += LINE
        parts.append(_text(EDGE, y, note, 10, QUIET, at="start"))
    for row in shown.legend_rows:
        x, y = EDGE, y + LINE + 4
        for mark, says in row:
            parts += [_mark(x, y, mark), _text(x + 28, y, says, 10, QUIET, at="start")]
            x += 46 + width(says, 10)
    if shown.scale is not None:
        y += LINE + 4
        what, low, high = _ends(shown)
        text = f"{what}:  {low}"
        x = EDGE + width(text, 10) + 8
        parts.append(_text(EDGE, y, text, 10, INK, at="start"))
        for step, colour in enumerate(RAMP):
            parts.append(
                f'<rect x="{x + 20 * step:.1f}" y="{y - 9:.1f}" width="20" height="11" '
                f'fill="{colour}"/>'
            )
        parts.append(_text(x + 20 * len(RAMP) + 8, y, high, 10, INK, at="start"))
    return parts


def _group(id: str, classes: str, tooltip: list[str]) -> str:
    title = escape("\n".join(tooltip))
    return f'<g id="{escape(id)}" class="{classes}"><title>{title}</title>'


def _open(found: Plan, shown: Picture, key: str) -> list[str]:
    x, y, w, h = found.rects[key]
    card, classes, fill = shown.cluster(key)
    return [
        _group(f"box:{key}", classes, card.tooltip),
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" rx="8" fill="{fill}" '
        f'stroke="{FRAME}" stroke-width="{2.5 if card.count > 1 else 1}"/>',
        "</g>",
    ]


def _open_title(found: Plan, shown: Picture, key: str) -> str:
    """Written over the edges, which seem to pass behind it."""
    x, y, _, _ = found.rects[key]
    text = _text(x + 12, y + 17, _title(shown, key), 12, INK, True, "start")
    halo = shown.cluster(key)[2]
    return f'<g stroke="{halo}" stroke-width="5" paint-order="stroke">{text}</g>'


def _path(spans: list[Span]) -> str:
    """Straight along each span, and in a bend from one to the next."""
    x, y, to = spans[0]
    steps = [f"M{x:.1f},{y:.1f}L{x:.1f},{to:.1f}"]
    for (x, _, y), (other, start, end) in pairwise(spans):
        middle = (y + start) / 2
        if x == other:
            steps.append(f"L{other:.1f},{start:.1f}")
        else:
            steps.append(f"C{x:.1f},{middle:.1f} {other:.1f},{middle:.1f} {other:.1f},{start:.1f}")
        steps.append(f"L{other:.1f},{end:.1f}")
    return "".join(steps)


def _edge(found: Plan, edge: LabelledEdge, shown: Picture) -> list[str]:
    skip, colour, label = edge.edge.skip, edge.colour, edge.label
    parts = [_group(edge.id, edge.classes, edge.tooltip)]
    for piece in ("upper", "lower"):
        parts.append(
            f'<path d="{_path(found.routes[f"{edge.id}:{piece}"])}" fill="none" '
            f'stroke="{colour}" stroke-width="{2.2 if skip else 1}"/>'
        )
    head = "upper" if edge.backward else "lower"
    if edge.backward or edge.target in shown.faces:
        spans = found.routes[f"{edge.id}:{head}"]
        x, y, turn = (spans[0][0], spans[0][1], 1) if edge.backward else (*spans[-1][::2], -1)
        fill = PAPER if skip else colour
        for shift in range(2 if edge.edge.fan > 1 else 1):
            at = y + turn * 6 * shift
            parts.append(
                f'<path d="M{x:.1f},{at:.1f}l-3.2,{7 * turn}l6.4,0z" fill="{fill}" '
                f'stroke="{colour}"/>'
            )
    x, y, w, _ = found.rects[f"{edge.id}:text"]
    for line, text in enumerate(label.rows):
        named = bool(label.name) and line == 0
        ink = INK if named else QUIET if text == label.remark else colour
        parts.append(_text(x + w / 2, y + 10 + 13 * line, text, 10, ink, named))
    return [*parts, "</g>"]


def _frame(x: float, y: float, w: float, h: float, look: Look, fill: str) -> str:
    dashes = {"dashed": ' stroke-dasharray="6 3"', "dotted": ' stroke-dasharray="1.5 2.5"'}
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" '
        f'rx="{8 if look.style == "rounded" else 0}" fill="{fill}" stroke="{look.line}" '
        f'stroke-width="{look.border}"{dashes.get(look.style, "")}/>'
    )


def _face(found: Plan, face: Face, columns: tuple[float, float, float]) -> list[str]:
    card = face.card
    x, y, _, h = found.rects[card.id]
    forward, between, back = columns
    look, parts = LOOKS[card.kind], [_group(f"box:{card.id}", face.classes, card.tooltip)]
    fill, ink = face.colours
    if face.kind in ("input", "output"):
        look = Look(look.line, fill, border=look.border, style="rounded")
    parts.append(_frame(x, y, forward, h, look, fill))
    if card.fused:
        inner = Look(look.line, fill, style=look.style)
        parts.append(_frame(x + 3, y + 3, forward - 6, h - 6, inner, "none"))
    if look.bars:
        for side in (x + 5, x + forward - 10):
            parts.append(
                f'<rect x="{side:.1f}" y="{y + 5:.1f}" width="5" height="{h - 10:.1f}" '
                f'fill="{look.line}"/>'
            )
    cell = forward / len(face.ports) if face.ports else 0.0
    for port, text in enumerate(face.ports):
        parts.append(_text(x + cell * (port + 0.5), y + 14, text, 9, ink))
        parts.append(
            f'<path d="M{x + cell * port + 4:.1f},{y + 17:.1f}h{cell - 8:.1f}" '
            f'stroke="{look.line}"/>'
        )
    parts += _lines_at(x + forward / 2, y + (LINE if face.ports else 0.0), face.forward, ink)
    if face.heat is not None:
        line = y + h - 8 - (LINE if face.heat.instances else 0)
        parts.append(_text(x + forward / 2, line, face.heat.text, 11, ink, True))
        each = (forward - 16) / max(1, len(face.heat.instances))
        for count, (text, step) in enumerate(face.heat.instances):
            left = x + 8 + each * count
            parts.append(
                f'<rect x="{left:.1f}" y="{y + h - 17:.1f}" width="{each:.1f}" height="12" '
                f'fill="{RAMP[step]}" stroke="{look.line}"/>'
            )
            parts.append(_text(left + each / 2, y + h - 8, text, 8, RAMP_INK[step]))
    if face.backward is not None:
        left = x + forward
        for count, text in enumerate(face.saved):
            line = y + (h - 16 * len(face.saved)) / 2 + 16 * count + 13
            parts.append(_text(left + between / 2, line - 3, text, 9, INK))
            parts.append(
                f'<path d="M{left:.1f},{line:.1f}h{between - 6:.1f}" stroke="{BACK}" '
                'stroke-dasharray="4 3"/>'
            )
            parts.append(f'<path d="M{left + between:.1f},{line:.1f}l-6,-3l0,6z" fill="{BACK}"/>')
        right = Look(BACK, BACK_FILL, style=look.style)
        parts.append(_frame(left + between, y, back, h, right, BACK_FILL))
        parts += _lines_at(left + between + back / 2, y, face.backward, INK)
    return [*parts, "</g>"]


def _lines_at(x: float, y: float, label: Label, ink: str) -> list[str]:
    parts = [_text(x, y + 18, label.title, 12, ink, True)]
    return parts + [
        _text(x, y + 18 + LINE * (1 + count), line, 10, ink)
        for count, line in enumerate(label.rows)
    ]
