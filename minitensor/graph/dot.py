"""A picture by Graphviz: DOT, and what `dot`, or the library inside pygraphviz, makes.

A box is an HTML table: forward at its left, backward at its right, between them what is saved.
"""

from __future__ import annotations

import warnings
from html import escape
from typing import Any

import graphviz

from . import plain, svg
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
from .picture import Face, Junction, LabelledEdge, Picture, common, picture, width
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
    shown = picture(scene, graph, overlay)
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
    names |= {junction.id: f"j{count}" for count, junction in enumerate(shown.junctions)}
    clusters = _clusters(digraph, names, shown)
    parents = shown.parents
    inner = {junction.id: junction.parent for junction in shown.junctions}
    trunks = [edge for edge in shown.edges if {edge.source, edge.target} & set(inner)]
    for edge in shown.edges:
        home = common(parents, edge.source, edge.target) or scene.tree.root
        _edge(digraph, clusters[home], names, shown, edge)
        if edge.backward or edge.target not in inner:
            continue
        for other in trunks:  # place its gradient to the right of it
            if other.backward and other.target == edge.source and other.source in inner:
                box = inner[edge.target]
                if inner[other.source] == box:
                    _side_by_side(clusters[home], _text_name(edge), _text_name(other))
                    _side_by_side(clusters[box], names[edge.target], names[other.source])
    for key, cluster in reversed(clusters.items()):  # a cluster is copied when it is added
        parent = scene.tree.boxes[key].parent
        if parent is not None:
            clusters[parent].subgraph(cluster)
    for above, below in _entrances(parents, shown):
        digraph.edge(above, f"{names[below]}h", style="invis", weight="6")
    return digraph


def _clusters(digraph: Any, names: dict[str, str], shown: Picture) -> dict[str, Any]:
    """A cluster for each open box, with its title, closed boxes, junctions: the root is all."""
    scene, columns = shown.scene, _columns(shown)
    clusters = {scene.tree.root: digraph}
    begun = {scene.tree.root}
    for key in scene.visible:  # an open box comes before what is in it
        parent = scene.tree.boxes[key].parent
        if parent is None:
            continue
        if key in scene.open:
            clusters[key] = graphviz.Digraph(f"cluster_{names[key]}")
            clusters[key].attr(**_cluster(shown, key))
            clusters[key].node(f"{names[key]}h", _header(shown, key))
        else:
            _node(clusters[parent], names[key], shown.faces[key], columns)
        if parent not in begun:  # the first in a box stands below the title
            begun.add(parent)
            end = f"{names[key]}h" if key in scene.open else names[key]
            digraph.edge(f"{names[parent]}h", end, style="invis", weight="4")
    for key, parent in shown.rules.items():
        _node(clusters[parent], names[key], shown.faces[key], columns)
    for junction in shown.junctions:
        _junction(clusters[junction.parent], names[junction.id], junction)
    return clusters


def _entrances(parents: dict[str, str | None], shown: Picture) -> dict[tuple[str, str], None]:
    """The text of an edge into an open box, and that box: its title stands below."""
    found: dict[tuple[str, str], None] = {}
    for edge in shown.edges:
        if edge.backward:
            continue
        home, key = common(parents, edge.source, edge.target), parents[edge.target]
        while key is not None and key != home:
            found[_text_name(edge), key] = None
            key = parents[key]
    return found


def _text(text: str, size: int = 11, colour: str = INK, bold: bool = False) -> str:
    inner = f"<B>{escape(text, quote=False)}</B>" if bold else escape(text, quote=False)
    return f'<FONT POINT-SIZE="{size}" COLOR="{colour}">{inner}</FONT>'


def _tip(lines: list[str]) -> str:
    return r"\n".join(graphviz.escape(line) for line in lines)


def _title(shown: Picture) -> str:
    rows = [f'<TR><TD ALIGN="LEFT">{_text(shown.title, 16, bold=True)}</TD></TR>']
    if shown.facts:
        rows.append(f'<TR><TD ALIGN="LEFT">{_text(shown.facts, 11, QUIET)}</TD></TR>')
    for note in shown.notes:
        rows.append(f'<TR><TD ALIGN="LEFT">{_text(note, 10, QUIET)}</TD></TR>')
    if shown.scale is not None:
        what, (low, high) = shown.scale.overlay.title, shown.scale.ends
        steps = "".join(f'<TD BGCOLOR="{heat}" WIDTH="22">&nbsp;</TD>' for heat in RAMP)
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


def _cluster(shown: Picture, key: str) -> dict[str, str]:
    card, classes, fill = shown.cluster(key)
    return {
        "label": "",
        "margin": "10",
        "style": "rounded,filled",
        "fillcolor": fill,
        "color": FRAME,
        "penwidth": "2.5" if card.count > 1 else "1",
        "id": f"box:{key}",
        "class": classes,
        "tooltip": _tip(card.tooltip),
    }


def _header(shown: Picture, key: str) -> str:
    """The title of an open box, as a node: edges take no notice of a cluster's own label."""
    label = shown.page.card(key).forward
    cells = f"<TD>{_text(label.title, 12, bold=True)}</TD>"
    if label.place:
        cells += f"<TD>{_text(label.place, 10, QUIET)}</TD>"
    return f'<<TABLE BORDER="0" CELLSPACING="0" CELLPADDING="4"><TR>{cells}</TR></TABLE>>'


def _junction(cluster: Any, name: str, junction: Junction) -> None:
    attributes = {"shape": "point", "color": INK, "fillcolor": INK, "width": "0.07"}
    label, tooltip = "", "the same tensor to each"
    if junction.backward:  # gradients meet, and are added
        attributes = {"shape": "circle", "margin": "0", "color": BACK, "width": "0.2"}
        attributes["fixedsize"] = "true"
        label, tooltip = f"<{_text('+', 11, BACK, bold=True)}>", "sum"
    attributes["class"] = f"junction {'backward' if junction.backward else 'forward'}"
    cluster.node(name, label, id=junction.id, tooltip=tooltip, **attributes)


def _columns(shown: Picture) -> tuple[int, int, int]:
    """Widths of forward, saved and backward, equal in all boxes: so edges run straight in both."""
    pairs = [face for face in shown.faces.values() if face.backward]
    return (
        max((_half_width(face.forward) for face in pairs), default=0),
        max((int(width(text, 9)) + 16 for face in pairs for text in face.saved), default=0),
        max((_half_width(face.backward) for face in pairs if face.backward), default=0),
    )


def _half_width(label: Label) -> int:
    lines = (width(line, 10) for line in label.rows)
    return int(max(width(label.title, 12, bold=True), *lines, 0)) + 24


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


def _half(label: Label, ports: str = "", extra: str = "", ink: str = INK) -> str:
    texts = [_text(label.title, 12, ink, bold=True)]
    air = _text(" ", 13, ink)  # the tallest text of a line makes its height
    texts += [_text(line, 10, ink) + air for line in label.rows]
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


def _node(digraph: Any, name: str, face: Face, columns: tuple[int, int, int]) -> None:
    look = LOOKS[face.kind]
    card = face.card
    attributes = {"id": f"box:{card.id}", "class": face.classes, "tooltip": _tip(card.tooltip)}
    if face.kind in ("input", "output"):
        digraph.node(
            name,
            f"<{_half(face.forward)}>",
            shape="ellipse",
            style="filled",
            fillcolor=look.fill,
            color=look.line,
            penwidth=str(look.border),
            margin="0",
            **attributes,
        )
        return
    fill, ink = face.colours
    inner = _half(face.forward, _ports(face, ink), _heat(face, ink), ink)
    forward = _frame(look, inner, fill, card.fused)
    row = f'<TD PORT="f">{forward}</TD>'
    if face.backward is not None:
        row = f'<TD PORT="f" WIDTH="{columns[0]}">{forward}</TD>'
        texts = [_text(text, 9) for text in face.saved]
        between = _saved(texts, columns[1]) if texts else ""
        back = Look(BACK, BACK_FILL, style=look.style)
        row += f'<TD WIDTH="{max(columns[1], 16)}">{between}</TD>'
        right = _frame(back, _half(face.backward), BACK_FILL)
        row += f'<TD PORT="b" WIDTH="{columns[2]}">{right}</TD>'
    digraph.node(
        name,
        '<<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="0">'
        f"<TR>{row}</TR></TABLE>>",
        **attributes,
    )


def _ports(face: Face, ink: str) -> str:
    """The row on top of a box with a place for each input."""
    cells = "".join(
        f'<TD PORT="p{port}" BORDER="1" SIDES="B{"L" if port else ""}" '
        f'COLOR="{LOOKS[face.kind].line}">{_text(text, 9, ink)}</TD>'
        for port, text in enumerate(face.ports)
    )
    if not cells:
        return ""
    return (
        '<TR><TD CELLPADDING="0"><TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="2">'
        f"<TR>{cells}</TR></TABLE></TD></TR>"
    )


def _heat(face: Face, ink: str) -> str:
    """The rows that an overlay adds to a box: its amount, and a cell for each instance."""
    if face.heat is None:
        return ""
    row = f"<TR><TD>{_text(face.heat.text, 11, ink, bold=True)}</TD></TR>"
    strip = "".join(
        f'<TD BGCOLOR="{RAMP[step]}">{_text(text, 8, RAMP_INK[step])}</TD>'
        for text, step in face.heat.instances
    )
    if not strip:
        return row
    return (
        f'{row}<TR><TD><TABLE BORDER="0" CELLBORDER="1" COLOR="{LOOKS[face.kind].line}" '
        f'CELLSPACING="0" CELLPADDING="2"><TR>{strip}</TR></TABLE></TD></TR>'
    )


def _edge(
    digraph: Any, cluster: Any, names: dict[str, str], shown: Picture, edge: LabelledEdge
) -> None:
    """An edge in two pieces, and between them its text: a node, for which dot makes room."""
    label, text, colour, skip = edge.label, _text_name(edge), edge.colour, edge.edge.skip
    texts = [_text(label.name, 10, bold=True)] if label.name else []
    texts.append(_text(label.shape, 10, colour))
    if label.remark:
        texts.append(_text(label.remark, 10, QUIET))
    cluster.node(
        text,
        '<<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="2"><TR><TD>'
        f"{'<BR/>'.join(texts)}</TD></TR></TABLE>>",
        id=f"{edge.id}:text",
        tooltip=_tip(edge.tooltip),
        **{"class": f"text {edge.classes}"},
    )
    attributes = {
        "class": edge.classes,
        "tooltip": _tip(edge.tooltip),
        "color": colour,
        "weight": "1" if skip else "8" if edge.backward else "16",
        "penwidth": "2.2" if skip else "1",
    }
    head = "normalnormal" if edge.edge.fan > 1 else "empty" if skip else "normal"
    if edge.backward:  # drawn from bottom to top: dot ranks it like the forward edge it mirrors
        tail = _end(names, shown, edge.target, "b", "se" if skip else "s")
        end = _end(names, shown, edge.source, "b", "ne" if skip else "n")
        upper = {"dir": "back", "arrowtail": "vee" if head == "normal" else head}
        lower = {"dir": "none"}
    else:
        tail = _end(names, shown, edge.source, "f", "sw" if skip else "s")
        port = "f" if edge.port is None else f"p{edge.port}"
        end = _end(names, shown, edge.target, port, "n")
        upper = {"dir": "none"}
        lower = {"arrowhead": head if edge.target in shown.faces else "none"}
    digraph.edge(tail, f"{text}:n", id=f"{edge.id}:upper", **attributes, **upper)
    digraph.edge(f"{text}:s", end, id=f"{edge.id}:lower", **attributes, **lower)


def _side_by_side(cluster: Any, left: str, right: str) -> None:
    with cluster.subgraph(graph_attr={"rank": "same"}) as row:
        row.edge(left, right, style="invis")


def _text_name(edge: LabelledEdge) -> str:
    return f"text_{edge.id}".replace(":", "_")


def _end(names: dict[str, str], shown: Picture, key: str, port: str, side: str) -> str:
    """The end of an edge at a box: at a half of it, or at one of its ports."""
    face = shown.faces.get(key)
    if face is None or face.kind in ("input", "output"):
        return names[key]
    if port == "b" and face.backward is None:
        port = "f"
    return f"{names[key]}:{port}:{side}"
