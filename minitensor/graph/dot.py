"""A scene as a picture by Graphviz: DOT, and what `dot`, or the library inside pygraphviz, makes.

A box is an HTML table: forward at its left, backward at its right, between them what is saved.
"""

from __future__ import annotations

import warnings
from html import escape
from typing import Any

import graphviz

from . import plain, svg
from .look import (
    Card,
    Half,
    Joint,
    Page,
    Wire,
    cluster_style,
    cluster_tooltip,
    common,
    heading,
    page,
    parents,
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

INSTALL = "`apt install graphviz` or `pip install 'minitensor[graph]'`"


def source(scene: Scene, graph: Graph, overlay: str | None = None) -> str:
    """The picture as DOT, the same bytes each time. ValueError for an unknown overlay."""
    return str(_digraph(scene, graph, overlay).source)


def render(scene: Scene, graph: Graph, format: str, overlay: str | None = None) -> bytes:
    """The picture as "svg", "png" or "pdf".

    Drawn by the program `dot`; without it by pygraphviz; without that too, "svg" has the plainer
    layout of `minitensor.graph.plain`, and the others raise RuntimeError. ValueError for another
    format or an unknown overlay.
    """
    if format not in ("svg", "png", "pdf"):
        raise ValueError(f"format must be svg, png or pdf, not {format!r}")
    digraph = _digraph(scene, graph, overlay)
    try:
        drawn: bytes = digraph.pipe(format=format, quiet=True)
    except graphviz.ExecutableNotFound:
        try:
            from pygraphviz import AGraph  # type: ignore[import-untyped]
        except ImportError:
            return _without_graphviz(scene, graph, format, overlay)
        drawn = AGraph(string=digraph.source).draw(format=format, prog="dot")
    return svg.finish(drawn) if format == "svg" else drawn


def _without_graphviz(scene: Scene, graph: Graph, format: str, overlay: str | None) -> bytes:
    if format != "svg":
        raise RuntimeError(f"drawing a {format} takes Graphviz: {INSTALL}")
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            f"without Graphviz the picture is laid out more plainly; to install it: {INSTALL}",
            stacklevel=3,
        )
    return plain.draw(scene, graph, overlay)


_warned = False


def _digraph(scene: Scene, graph: Graph, overlay: str | None) -> Any:
    shown = page(scene, graph, overlay)
    digraph = graphviz.Digraph(
        graph_attr={
            "bgcolor": PAPER,
            "fontname": FONT,
            "fontcolor": INK,
            "label": _title(shown),
            "labelloc": "t",
            "labeljust": "l",
            "nodesep": "0.3",
            "ranksep": "0.16" if scene.level == "arch" else "0.3",  # one page
            "pad": "0.25",
            "outputorder": "nodesfirst",
            "tooltip": shown.title,
            "id": "graph",
            "class": f"graph {scene.level}",
        },
        node_attr={"shape": "plain", "fontname": FONT, "fontsize": "11", "fontcolor": INK},
        edge_attr={
            "fontname": FONT,
            "fontsize": "10",
            "fontcolor": INK,
            "color": INK,
            "arrowsize": "0.7",
        },
    )
    names = {key: f"n{count}" for count, key in enumerate(scene.visible)}
    names |= {key: f"r{count}" for count, key in enumerate(shown.rules)}
    names |= {joint.id: f"j{count}" for count, joint in enumerate(shown.joints)}
    clusters = _clusters(digraph, names, shown, scene, graph)
    around = parents(shown, scene)
    joints = {joint.id: joint.parent for joint in shown.joints}
    trunks = [wire for wire in shown.wires if {wire.source, wire.target} & set(joints)]
    for wire in shown.wires:
        home = common(around, wire.source, wire.target) or scene.tree.root
        _edge(digraph, clusters[home], names, shown, wire)
        if wire.backward or wire.target not in joints:
            continue
        for other in trunks:  # the way back of what enters here stands right of it
            if other.backward and other.target == wire.source and other.source in joints:
                inner = joints[wire.target]
                if joints[other.source] == inner:
                    _side_by_side(clusters[home], _label(wire), _label(other))
                    _side_by_side(clusters[inner], names[wire.target], names[other.source])
    for key, cluster in reversed(clusters.items()):  # a cluster is copied when it is added
        parent = scene.tree.boxes[key].parent
        if parent is not None:
            clusters[parent].subgraph(cluster)
    for above, below in _entrances(around, shown):
        digraph.edge(above, f"{names[below]}h", style="invis", weight="6")
    return digraph


def _clusters(
    digraph: Any, names: dict[str, str], shown: Page, scene: Scene, graph: Graph
) -> dict[str, Any]:
    """A cluster for each open box, with its title, closed boxes and joints: the root is all."""
    columns = _columns(shown)
    clusters = {scene.tree.root: digraph}
    begun = {scene.tree.root}
    for key in scene.visible:  # an open box comes before what is in it
        parent = scene.tree.boxes[key].parent
        if parent is None:
            continue
        if key in scene.open:
            clusters[key] = graphviz.Digraph(f"cluster_{names[key]}")
            clusters[key].attr(**_cluster(scene, graph, key))
            clusters[key].node(f"{names[key]}h", _header(scene, graph, key))
        else:
            _node(clusters[parent], names[key], shown.cards[key], columns)
        if parent not in begun:  # the first in a box stands below the title
            begun.add(parent)
            end = f"{names[key]}h" if key in scene.open else names[key]
            digraph.edge(f"{names[parent]}h", end, style="invis", weight="4")
    for key, parent in shown.rules.items():
        _node(clusters[parent], names[key], shown.cards[key], columns)
    for joint in shown.joints:
        _joint(clusters[joint.parent], names[joint.id], joint)
    return clusters


def _entrances(around: dict[str, str | None], shown: Page) -> dict[tuple[str, str], None]:
    """The text of an edge into an open box, and that box: its title stands below."""
    found: dict[tuple[str, str], None] = {}
    for wire in shown.wires:
        if wire.backward:
            continue
        home, key = common(around, wire.source, wire.target), around[wire.target]
        while key is not None and key != home:
            found[_label(wire), key] = None
            key = around[key]
    return found


def _text(text: str, size: int = 11, colour: str = INK, bold: bool = False) -> str:
    inner = f"<B>{escape(text, quote=False)}</B>" if bold else escape(text, quote=False)
    return f'<FONT POINT-SIZE="{size}" COLOR="{colour}">{inner}</FONT>'


def _tip(lines: list[str]) -> str:
    return r"\n".join(graphviz.escape(line) for line in lines)


def _title(shown: Page) -> str:
    rows = [f'<TR><TD ALIGN="LEFT">{_text(shown.title, 16, bold=True)}</TD></TR>']
    if shown.facts:
        rows.append(f'<TR><TD ALIGN="LEFT">{_text(shown.facts, 11, QUIET)}</TD></TR>')
    for note in shown.notes:
        rows.append(f'<TR><TD ALIGN="LEFT">{_text(note, 10, QUIET)}</TD></TR>')
    if shown.ramp is not None:
        what, low, high = shown.ramp
        steps = "".join(f'<TD BGCOLOR="{heat}" WIDTH="22">&nbsp;</TD>' for heat in HEAT)
        rows.append(
            f'<TR><TD ALIGN="LEFT"><TABLE BORDER="0" CELLSPACING="0" CELLPADDING="2"><TR>'
            f"<TD>{_text(f'{what}:  {low}', 10)}  </TD>{steps}<TD>  {_text(high, 10)}</TD>"
            "</TR></TABLE></TD></TR>"
        )
    lines = [
        "\n".join(
            f'<TD>{_mark(mark)}</TD><TD ALIGN="LEFT">{_text(says + "    ", 10, QUIET)}</TD>'
            for mark, says in row
        )
        for row in shown.legend_rows
    ]
    if lines:
        rows.append(
            '<TR><TD ALIGN="LEFT"><TABLE BORDER="0" CELLSPACING="3" CELLPADDING="1">'
            f"{''.join(f'<TR>{line}</TR>' for line in lines)}</TABLE></TD></TR>"
        )
    return f'<<TABLE BORDER="0" CELLSPACING="0" CELLPADDING="3">{"".join(rows)}</TABLE>>'


def _mark(mark: str) -> str:
    """The sample of a mark that the legend shows."""
    if mark in LOOKS:
        return _frame(LOOKS[mark], "&nbsp;&nbsp;&nbsp;&nbsp;", LOOKS[mark].fill)
    if mark == "fused":
        return _frame(LOOKS["other"], "&nbsp;&nbsp;&nbsp;", LOOKS["other"].fill, double=True)
    if mark == "folded":
        return _text("xN", 10, bold=True)
    if mark == "skip":
        return _text("\N{EM DASH}\N{WHITE RIGHT-POINTING SMALL TRIANGLE}", 12, SKIP, bold=True)
    if mark == "fan":
        return _text("\N{EM DASH}" + 2 * "\N{BLACK RIGHT-POINTING SMALL TRIANGLE}", 12)
    if mark == "gradient":
        return _text("\N{BLACK UP-POINTING TRIANGLE}", 10, BACK)
    return _text("- - \N{BLACK RIGHT-POINTING SMALL TRIANGLE}", 10, BACK, bold=True)


def _cluster(scene: Scene, graph: Graph, key: str) -> dict[str, str]:
    box = scene.tree.boxes[key]
    classes, fill = cluster_style(key, scene)
    return {
        "label": "",
        "margin": "10",
        "style": "rounded,filled",
        "fillcolor": fill,
        "color": FRAME,
        "penwidth": "2.5" if box.count > 1 else "1",
        "id": f"box:{key}",
        "class": classes,
        "tooltip": _tip(cluster_tooltip(box, graph)),
    }


def _header(scene: Scene, graph: Graph, key: str) -> str:
    """The title of an open box. It is a node: of a cluster's own label, edges take no notice."""
    box = scene.tree.boxes[key]
    where = place(box, scene, graph)
    cells = f"<TD>{_text(heading(box), 12, bold=True)}</TD>"
    if where:
        cells += f"<TD>{_text(where, 10, QUIET)}</TD>"
    return f'<<TABLE BORDER="0" CELLSPACING="0" CELLPADDING="4"><TR>{cells}</TR></TABLE>>'


def _joint(cluster: Any, name: str, joint: Joint) -> None:
    if joint.backward:  # gradients meet, and are added
        cluster.node(
            name,
            f"<{_text('+', 11, BACK, bold=True)}>",
            shape="circle",
            margin="0",
            color=BACK,
            width="0.2",
            fixedsize="true",
            id=joint.id,
            tooltip="sum",
            **{"class": "joint backward"},
        )
    else:
        cluster.node(
            name,
            "",
            shape="point",
            color=INK,
            fillcolor=INK,
            width="0.07",
            id=joint.id,
            tooltip="the same tensor to each",
            **{"class": "joint forward"},
        )


def _columns(shown: Page) -> tuple[int, int, int]:
    """Widths of forward, saved and backward, equal in all boxes: so edges run straight in both."""
    pairs = [card for card in shown.cards.values() if card.backward]
    return (
        max((_half_width(card.forward) for card in pairs), default=0),
        max((int(width(text, 9)) + 16 for card in pairs for text in card.saved), default=0),
        max((_half_width(card.backward) for card in pairs if card.backward), default=0),
    )


def _half_width(half: Half) -> int:
    lines = [half.path, *half.lines]
    return int(max(width(half.title, 12, bold=True), *(width(line, 10) for line in lines))) + 24


def _frame(look: Look, content: str, fill: str, double: bool = False) -> str:
    """`content` in the border of its kind."""
    style = "" if look.style == "solid" else f' STYLE="{look.style}"'
    if look.bars:
        content = (
            '<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="0"><TR>'
            f'<TD BORDER="5" SIDES="LR" COLOR="{look.line}">{content}</TD></TR></TABLE>'
        )
    if double:
        content = (
            f'<TABLE BORDER="1" COLOR="{look.line}" CELLBORDER="0" CELLSPACING="0" '
            f'CELLPADDING="0"{style}><TR><TD>{content}</TD></TR></TABLE>'
        )
    return (
        f'<TABLE BORDER="{look.border}" COLOR="{look.line}" BGCOLOR="{fill}"{style} '
        f'CELLBORDER="0" CELLSPACING="0" CELLPADDING="{3 if double else 0}">'
        f"<TR><TD>{content}</TD></TR></TABLE>"
    )


def _half(half: Half, ports: str = "", extra: str = "", ink: str = INK) -> str:
    texts = [_text(half.title, 12, ink, bold=True)]
    air = _text(" ", 13, ink)  # the tallest text of a line makes its height
    texts += [_text(line, 10, ink) + air for line in (half.path, *half.lines) if line]
    return (
        '<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="4">'
        f'{ports}<TR><TD CELLPADDING="6">{"<BR/>".join(texts)}</TD></TR>{extra}</TABLE>'
    )


def _saved(texts: list[str], wide: int) -> str:
    """Dashed lines to the right, each under the text of what goes along it.

    The column of arrowheads stands half a row lower, so that each is at the end of its line.
    """
    head = _text("\N{BLACK RIGHT-POINTING SMALL TRIANGLE}", 10, BACK)
    line = (
        f'<TD ROWSPAN="2" SIDES="B" BORDER="1" STYLE="DASHED" COLOR="{BACK}" '
        f'WIDTH="{wide - 12}" HEIGHT="16">{{}}</TD>'
    )
    cells = [f"<TR>{line.format(texts[0])}<TD></TD></TR>"]
    for text in texts[1:]:
        cells.append(f'<TR><TD ROWSPAN="2">{head}</TD></TR>')
        cells.append(f"<TR>{line.format(text)}</TR>")
    cells.append(f'<TR><TD ROWSPAN="2">{head}</TD></TR><TR><TD></TD></TR>')
    return (
        f'<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="1">{"".join(cells)}</TABLE>'
    )


def _node(digraph: Any, name: str, card: Card, columns: tuple[int, int, int]) -> None:
    look = LOOKS[card.kind]
    attributes = {"id": f"box:{card.id}", "class": card.classes, "tooltip": _tip(card.tooltip)}
    if card.kind in ("input", "output"):
        digraph.node(
            name,
            f"<{_half(card.forward)}>",
            shape="ellipse",
            style="filled",
            fillcolor=look.fill,
            color=look.line,
            penwidth=str(look.border),
            margin="0",
            **attributes,
        )
        return
    fill, ink = card.colours
    inner = _half(card.forward, _ports(card, ink), _heat(card, ink), ink)
    forward = _frame(look, inner, fill, card.fused)
    row = f'<TD PORT="f">{forward}</TD>'
    if card.backward is not None:
        row = f'<TD PORT="f" WIDTH="{columns[0]}">{forward}</TD>'
        texts = [_text(text, 9) for text in card.saved]
        between = _saved(texts, columns[1]) if texts else ""
        back = Look(BACK, BACK_FILL, style=look.style)
        row += f'<TD WIDTH="{max(columns[1], 16)}">{between}</TD>'
        right = _frame(back, _half(card.backward), BACK_FILL)
        row += f'<TD PORT="b" WIDTH="{columns[2]}">{right}</TD>'
    digraph.node(
        name,
        '<<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="0">'
        f"<TR>{row}</TR></TABLE>>",
        **attributes,
    )


def _ports(card: Card, ink: str) -> str:
    """The row on top of a box with a place for each input."""
    cells = "".join(
        f'<TD PORT="p{port}" BORDER="1" SIDES="B{"L" if port else ""}" '
        f'COLOR="{LOOKS[card.kind].line}">{_text(text, 9, ink)}</TD>'
        for port, text in enumerate(card.ports)
    )
    if not cells:
        return ""
    return (
        '<TR><TD CELLPADDING="0"><TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="2">'
        f"<TR>{cells}</TR></TABLE></TD></TR>"
    )


def _heat(card: Card, ink: str) -> str:
    """What an overlay says of a box, and of each of its members."""
    if card.heat is None:
        return ""
    row = f"<TR><TD>{_text(card.heat.text, 11, ink, bold=True)}</TD></TR>"
    strip = "".join(
        f'<TD BGCOLOR="{HEAT[step]}">{_text(text, 8, HEAT_INK[step])}</TD>'
        for text, step in card.heat.members
    )
    if not strip:
        return row
    return (
        f'{row}<TR><TD><TABLE BORDER="0" CELLBORDER="1" COLOR="{LOOKS[card.kind].line}" '
        f'CELLSPACING="0" CELLPADDING="2"><TR>{strip}</TR></TABLE></TD></TR>'
    )


def _edge(digraph: Any, cluster: Any, names: dict[str, str], shown: Page, wire: Wire) -> None:
    """An edge in two pieces, and between them its text: a node, for which dot makes room."""
    edge, label, colour = wire.edge, _label(wire), wire.colour
    texts = [_text(wire.name, 10, bold=True)] if wire.name else []
    texts.append(_text(wire.shape, 10, colour))
    if wire.remark:
        texts.append(_text(wire.remark, 10, QUIET))
    cluster.node(
        label,
        '<<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="2"><TR><TD>'
        f"{'<BR/>'.join(texts)}</TD></TR></TABLE>>",
        id=f"{wire.id}:text",
        tooltip=_tip(wire.tooltip),
        **{"class": f"text {wire.classes}"},
    )
    attributes = {
        "class": wire.classes,
        "tooltip": _tip(wire.tooltip),
        "color": colour,
        "weight": "1" if edge.skip else "8" if wire.backward else "16",
        "penwidth": "2.2" if edge.skip else "1",
    }
    head = "normalnormal" if edge.fan > 1 else "empty" if edge.skip else "normal"
    if wire.backward:  # drawn from bottom to top: dot ranks it like the forward edge it mirrors
        tail = _end(names, shown, wire.target, "b", "se" if edge.skip else "s")
        end = _end(names, shown, wire.source, "b", "ne" if edge.skip else "n")
        upper = {"dir": "back", "arrowtail": "vee" if head == "normal" else head}
        lower = {"dir": "none"}
    else:
        tail = _end(names, shown, wire.source, "f", "sw" if edge.skip else "s")
        port = "f" if wire.port is None else f"p{wire.port}"
        end = _end(names, shown, wire.target, port, "n")
        upper = {"dir": "none"}
        lower = {"arrowhead": head if wire.target in shown.cards else "none"}
    digraph.edge(tail, f"{label}:n", id=f"{wire.id}:upper", **attributes, **upper)
    digraph.edge(f"{label}:s", end, id=f"{wire.id}:lower", **attributes, **lower)


def _side_by_side(cluster: Any, left: str, right: str) -> None:
    with cluster.subgraph(graph_attr={"rank": "same"}) as row:
        row.edge(left, right, style="invis")


def _label(wire: Wire) -> str:
    return f"text_{wire.id}".replace(":", "_")


def _end(names: dict[str, str], shown: Page, key: str, port: str, side: str) -> str:
    """Where an edge touches a box: a half of it, or one of its ports."""
    card = shown.cards.get(key)
    if card is None or card.kind in ("input", "output"):
        return names[key]
    if port == "b" and card.backward is None:
        port = "f"
    return f"{names[key]}:{port}:{side}"
