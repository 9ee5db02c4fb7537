"""The picture without Graphviz: the same texts, colours and borders on our own layout, as SVG."""

from __future__ import annotations

from html import escape
from itertools import pairwise

from .layout import Plan, Span, plan
from .look import (
    Card,
    Half,
    Page,
    Wire,
    cluster_style,
    cluster_tooltip,
    heading,
    page,
    place,
    width,
)
from .model import Graph
from .palette import (
    BACK,
    BACK_FILL,
    FONT,
    FRAME,
    HEAT,
    HEAT_INK,
    INK,
    LOOKS,
    PAPER,
    QUIET,
    SKIP,
    Look,
)
from .scene import Scene
from .svg import style

LINE, EDGE = 14.0, 24.0  # height of a line of text; around the picture


def draw(scene: Scene, graph: Graph, overlay: str | None = None) -> bytes:
    """The picture as SVG, without any program. ValueError for an unknown overlay."""
    shown = page(scene, graph, overlay)
    found = layout(scene, graph, shown)
    rows = shown.legend_rows
    top = 2 * EDGE + (LINE + 4) * (1 + len(rows) + (shown.ramp is not None)) + 8
    top += LINE * len(shown.notes)
    wide = max(
        found.width,
        width(shown.title, 16, True),
        width(shown.facts, 11),
        *(width(note, 10) for note in shown.notes),
        *(sum(46 + width(says, 10) for _, says in row) for row in rows),
        width(" ".join(shown.ramp or ()), 10) + 40 + 20 * len(HEAT) if shown.ramp else 0.0,
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
    opened = [key for key in scene.visible if key in scene.open and key != scene.tree.root]
    for key in opened:
        parts += _open(found, scene, graph, key)
    for wire in shown.wires:
        parts += _wire(found, wire, shown)
    parts += [_open_title(found, scene, graph, key) for key in opened]
    columns = _columns(shown)
    for key, card in shown.cards.items():
        parts += _card(found, card, columns[key])
    for joint in shown.joints:
        x, y, w, _ = found.rects[joint.id]
        kind, colour = ("backward", BACK) if joint.backward else ("forward", INK)
        parts.append(
            f'<circle id="{escape(joint.id)}" class="joint {kind}" cx="{x + w / 2:.1f}" '
            f'cy="{y + w / 2:.1f}" r="{w / 2:.1f}" fill="{colour}"/>'
        )
    return "\n".join([*parts, "</g>", "</svg>", ""]).encode()


def layout(scene: Scene, graph: Graph, shown: Page) -> Plan:
    """Where everything is, below the head of the picture."""
    sizes: dict[str, tuple[float, float]] = {}
    ends: dict[str, dict[str, float]] = {}
    columns = _columns(shown)
    for key, card in shown.cards.items():
        sizes[key] = (sum(columns[key]), _height(card))
        ends[key] = {}
    for wire in shown.wires:
        for piece, key in zip(("upper", "lower"), wire.ends, strict=True):
            if key in shown.cards:
                touch = _touch(shown.cards[key], columns[key], wire)
                ends[key][f"{wire.id}:{piece}"] = touch
    for wire in shown.wires:
        lines = _texts(wire)
        sizes[f"{wire.id}:text"] = (max(width(t, 10, True) for t in lines) + 8, 13.0 * len(lines))
    for joint in shown.joints:
        sizes[joint.id] = (10.0, 10.0) if joint.backward else (6.0, 6.0)
    titles = {key: _title(scene, graph, key) for key in scene.visible if key in scene.open}
    return plan(shown, scene, sizes, ends, titles)


def _touch(card: Card, halves: tuple[float, float, float], wire: Wire) -> float:
    """Where an edge touches a card, from its left."""
    if wire.backward and card.backward:
        return halves[0] + halves[1] + halves[2] / 2
    if wire.edge.target == card.id and wire.target == card.id and wire.port is not None:
        return halves[0] * (wire.port + 0.5) / len(card.ports)
    return halves[0] / 2


def _title(scene: Scene, graph: Graph, key: str) -> str:
    box = scene.tree.boxes[key]
    return "  ".join(text for text in (heading(box), place(box, scene, graph)) if text)


def _texts(wire: Wire) -> list[str]:
    return [text for text in (wire.name, wire.shape, wire.remark) if text]


def _lines(half: Half) -> list[str]:
    return [line for line in (half.path, *half.lines) if line]


def _columns(shown: Page) -> dict[str, tuple[float, float, float]]:
    """The widths of every card; with two halves they are all alike, so that edges run straight."""
    found = {key: _halves(card) for key, card in shown.cards.items()}
    pairs = [halves for key, halves in found.items() if shown.cards[key].backward]
    if pairs:
        alike = tuple(max(column) for column in zip(*pairs, strict=True))
        for key, card in shown.cards.items():
            if card.backward:
                found[key] = (alike[0], alike[1], alike[2])
    return found


def _halves(card: Card) -> tuple[float, float, float]:
    """The widths of the forward half, of what is saved and of the backward half."""

    def half(one: Half, more: list[str]) -> float:
        lines = (width(line, 10, True) for line in [*_lines(one), *more])
        return max(width(one.title, 12, True), *lines, 0.0) + 24

    members = sum(width(text, 8) + 6 for text, _ in card.heat.members) if card.heat else 0.0
    forward = max(
        half(card.forward, [card.heat.text] if card.heat else []),
        members + 16,
        len(card.ports) * max((width(port, 9) + 10 for port in card.ports), default=0.0),
    )
    if card.backward is None:
        return forward, 0.0, 0.0
    between = max((width(text, 9) for text in card.saved), default=0.0) + 20
    return forward, between, half(card.backward, [])


def _height(card: Card) -> float:
    heat = 0 if card.heat is None else 2 if card.heat.members else 1
    forward = LINE * (1 + len(_lines(card.forward)) + heat + bool(card.ports))
    back = LINE * (1 + len(_lines(card.backward))) if card.backward else 0.0
    return max(forward, back, 16.0 * len(card.saved)) + 14


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


def _head(shown: Page) -> list[str]:
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
    if shown.ramp is not None:
        y += LINE + 4
        what, low, high = shown.ramp
        text = f"{what}:  {low}"
        x = EDGE + width(text, 10) + 8
        parts.append(_text(EDGE, y, text, 10, INK, at="start"))
        for step, colour in enumerate(HEAT):
            parts.append(
                f'<rect x="{x + 20 * step:.1f}" y="{y - 9:.1f}" width="20" height="11" '
                f'fill="{colour}"/>'
            )
        parts.append(_text(x + 20 * len(HEAT) + 8, y, high, 10, INK, at="start"))
    return parts


def _group(id: str, classes: str, tooltip: list[str]) -> str:
    title = escape("\n".join(tooltip))
    return f'<g id="{escape(id)}" class="{classes}"><title>{title}</title>'


def _open(found: Plan, scene: Scene, graph: Graph, key: str) -> list[str]:
    x, y, w, h = found.rects[key]
    box = scene.tree.boxes[key]
    classes, fill = cluster_style(key, scene)
    return [
        _group(f"box:{key}", classes, cluster_tooltip(box, graph)),
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" rx="8" fill="{fill}" '
        f'stroke="{FRAME}" stroke-width="{2.5 if box.count > 1 else 1}"/>',
        "</g>",
    ]


def _open_title(found: Plan, scene: Scene, graph: Graph, key: str) -> str:
    """Written over the edges, which seem to pass behind it."""
    x, y, _, _ = found.rects[key]
    text = _text(x + 12, y + 17, _title(scene, graph, key), 12, INK, True, "start")
    _, halo = cluster_style(key, scene)
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


def _wire(found: Plan, wire: Wire, shown: Page) -> list[str]:
    edge, colour = wire.edge, wire.colour
    parts = [_group(wire.id, wire.classes, wire.tooltip)]
    for piece in ("upper", "lower"):
        parts.append(
            f'<path d="{_path(found.routes[f"{wire.id}:{piece}"])}" fill="none" '
            f'stroke="{colour}" stroke-width="{2.2 if edge.skip else 1}"/>'
        )
    head = "upper" if wire.backward else "lower"
    if wire.backward or wire.target in shown.cards:
        spans = found.routes[f"{wire.id}:{head}"]
        x, y, turn = (spans[0][0], spans[0][1], 1) if wire.backward else (*spans[-1][::2], -1)
        fill = PAPER if edge.skip else colour
        for shift in range(2 if edge.fan > 1 else 1):
            at = y + turn * 6 * shift
            parts.append(
                f'<path d="M{x:.1f},{at:.1f}l-3.2,{7 * turn}l6.4,0z" fill="{fill}" '
                f'stroke="{colour}"/>'
            )
    x, y, w, _ = found.rects[f"{wire.id}:text"]
    for line, text in enumerate(_texts(wire)):
        named = bool(wire.name) and line == 0
        ink = INK if named else QUIET if text == wire.remark else colour
        parts.append(_text(x + w / 2, y + 10 + 13 * line, text, 10, ink, named))
    return [*parts, "</g>"]


def _frame(x: float, y: float, w: float, h: float, look: Look, fill: str) -> str:
    dashes = {"dashed": ' stroke-dasharray="6 3"', "dotted": ' stroke-dasharray="1.5 2.5"'}
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" '
        f'rx="{8 if look.style == "rounded" else 0}" fill="{fill}" stroke="{look.line}" '
        f'stroke-width="{look.border}"{dashes.get(look.style, "")}/>'
    )


def _card(found: Plan, card: Card, columns: tuple[float, float, float]) -> list[str]:
    x, y, _, h = found.rects[card.id]
    forward, between, back = columns
    look, parts = LOOKS[card.kind], [_group(f"box:{card.id}", card.classes, card.tooltip)]
    fill, ink = card.colours
    if card.kind in ("input", "output"):
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
    cell = forward / len(card.ports) if card.ports else 0.0
    for port, text in enumerate(card.ports):
        parts.append(_text(x + cell * (port + 0.5), y + 14, text, 9, ink))
        parts.append(
            f'<path d="M{x + cell * port + 4:.1f},{y + 17:.1f}h{cell - 8:.1f}" '
            f'stroke="{look.line}"/>'
        )
    parts += _lines_at(x + forward / 2, y + (LINE if card.ports else 0.0), card.forward, ink)
    if card.heat is not None:
        line = y + h - 8 - (LINE if card.heat.members else 0)
        parts.append(_text(x + forward / 2, line, card.heat.text, 11, ink, True))
        each = (forward - 16) / max(1, len(card.heat.members))
        for count, (text, step) in enumerate(card.heat.members):
            left = x + 8 + each * count
            parts.append(
                f'<rect x="{left:.1f}" y="{y + h - 17:.1f}" width="{each:.1f}" height="12" '
                f'fill="{HEAT[step]}" stroke="{look.line}"/>'
            )
            parts.append(_text(left + each / 2, y + h - 8, text, 8, HEAT_INK[step]))
    if card.backward is not None:
        left = x + forward
        for count, text in enumerate(card.saved):
            line = y + (h - 16 * len(card.saved)) / 2 + 16 * count + 13
            parts.append(_text(left + between / 2, line - 3, text, 9, INK))
            parts.append(
                f'<path d="M{left:.1f},{line:.1f}h{between - 6:.1f}" stroke="{BACK}" '
                'stroke-dasharray="4 3"/>'
            )
            parts.append(f'<path d="M{left + between:.1f},{line:.1f}l-6,-3l0,6z" fill="{BACK}"/>')
        right = Look(BACK, BACK_FILL, style=look.style)
        parts.append(_frame(left + between, y, back, h, right, BACK_FILL))
        parts += _lines_at(left + between + back / 2, y, card.backward, INK)
    return [*parts, "</g>"]


def _lines_at(x: float, y: float, half: Half, ink: str) -> list[str]:
    parts = [_text(x, y + 18, half.title, 12, ink, True)]
    return parts + [
        _text(x, y + 18 + LINE * (1 + count), line, 10, ink)
        for count, line in enumerate(_lines(half))
    ]
