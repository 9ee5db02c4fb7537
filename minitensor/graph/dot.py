"""A picture by Graphviz: DOT, and what `dot`, or the library inside pygraphviz, makes.

A box is an HTML table: forward at its left, backward at its right, between them what is saved.
"""

from __future__ import annotations

import warnings
from html import escape
from typing import Any

import graphviz

from . import cards, plain, svg
from .cards import HEAD, Cell, Table, Text, Wires
from .model import Graph
from .palette import BACK, FONT, FRAME, INK, LOOKS, PAPER
from .picture import Face, Junction, LabelledEdge, Picture, common, picture
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
            "label": _label(cards.heading(shown)),
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
    scene, page, tables = shown.scene, shown.page, cards.faces(shown)
    clusters = {scene.tree.root: digraph}
    begun = {scene.tree.root}
    for key in scene.visible:  # an open box comes before what is in it
        parent = scene.tree.boxes[key].parent
        if parent is None:
            continue
        if key in scene.open:
            clusters[key] = graphviz.Digraph(f"cluster_{names[key]}")
            clusters[key].attr(**_cluster(shown, key))
            # A node: edges take no notice of a cluster's own label.
            clusters[key].node(f"{names[key]}h", _label(cards.header(page.card(key).forward)))
        else:
            _node(clusters[parent], names[key], shown.faces[key], tables[key])
        if parent not in begun:  # the first in a box stands below the title
            begun.add(parent)
            end = f"{names[key]}h" if key in scene.open else names[key]
            digraph.edge(f"{names[parent]}h", end, style="invis", weight="4")
    for key, parent in shown.rules.items():
        _node(clusters[parent], names[key], shown.faces[key], tables[key])
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


def _label(table: Table) -> str:
    """A table as an HTML-like label."""
    return f"<{_table(table)}>"


def _table(table: Table) -> str:
    attributes = _attributes(
        BORDER=table.border,
        CELLBORDER=0,
        CELLSPACING=table.spacing,
        CELLPADDING=table.pad,
        COLOR=table.colour,
        BGCOLOR=table.fill,
        STYLE=table.style,
    )
    rows = "\n".join(f"<TR>{''.join(map(_cell, row))}</TR>" for row in table.rows)
    return f"<TABLE{attributes}>{rows}</TABLE>"


def _cell(cell: Cell) -> str:
    attributes = _attributes(
        PORT=cell.port,
        ALIGN="LEFT" if cell.left else "",
        CELLPADDING="" if cell.pad is None else cell.pad,
        WIDTH=cell.width or "",
        BGCOLOR=cell.fill,
        BORDER=cell.border or "",
        SIDES=cell.sides,
        COLOR=cell.colour,
    )
    content = cell.content
    if isinstance(content, Table):
        inner = _table(content)
    elif isinstance(content, Wires):
        inner = _wires(content, cell.width - 12) if content.texts else ""
    else:
        inner = "<BR/>".join(map(_text, content))
    return f"<TD{attributes}>{inner}</TD>"


def _attributes(**known: str | int) -> str:
    return "".join(f' {name}="{value}"' for name, value in known.items() if value != "")


def _text(line: Text) -> str:
    text = escape(line.text, quote=False)
    inner = f"<B>{text}</B>" if line.bold else text
    font = f'<FONT POINT-SIZE="{line.size}" COLOR="{line.colour}">{inner}</FONT>'
    # The tallest text of a line makes its height.
    return font + (_text(Text(" ", line.room, line.colour)) if line.room else "")


def _wires(wires: Wires, wide: int) -> str:
    """Dashed lines with arrowheads in a column that stands half a row lower, at their ends."""
    head = f'<TD ROWSPAN="2">{_text(Text(HEAD, 10, BACK))}</TD>'
    line = (
        f'<TD ROWSPAN="2" SIDES="B" BORDER="1" STYLE="DASHED" COLOR="{BACK}" '
        f'WIDTH="{wide}" HEIGHT="16">{{}}</TD>'
    )
    first, *others = [line.format(_text(Text(text, 9))) for text in wires.texts]
    rows = [f"{first}<TD></TD>", *(cell for other in others for cell in (head, other)), head]
    rows.append("<TD></TD>")
    cells = "".join(f"<TR>{row}</TR>" for row in rows)
    return f'<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="1">{cells}</TABLE>'


def _tip(lines: list[str]) -> str:
    return r"\n".join(graphviz.escape(line) for line in lines)


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


def _junction(cluster: Any, name: str, junction: Junction) -> None:
    attributes = {"shape": "point", "color": INK, "fillcolor": INK, "width": "0.07"}
    label, tooltip = "", "the same tensor to each"
    if junction.backward:  # gradients meet, and are added
        attributes = {"shape": "circle", "margin": "0", "color": BACK, "width": "0.2"}
        attributes["fixedsize"] = "true"
        label, tooltip = f"<{_text(Text('+', 11, BACK, bold=True))}>", "sum"
    attributes["class"] = f"junction {'backward' if junction.backward else 'forward'}"
    cluster.node(name, label, id=junction.id, tooltip=tooltip, **attributes)


def _node(digraph: Any, name: str, face: Face, table: Table) -> None:
    look, card = LOOKS[face.kind], face.card
    attributes = {"id": f"box:{card.id}", "class": face.classes, "tooltip": _tip(card.tooltip)}
    if face.kind in ("input", "output"):
        table = cards.half(face.forward)
        attributes |= {"shape": "ellipse", "style": "filled", "margin": "0"}
        attributes |= {"fillcolor": look.fill, "color": look.line, "penwidth": str(look.border)}
    digraph.node(name, _label(table), **attributes)


def _edge(
    digraph: Any, cluster: Any, names: dict[str, str], shown: Picture, edge: LabelledEdge
) -> None:
    """An edge in two pieces, and between them its text: a node, for which dot makes room."""
    text, colour, skip = _text_name(edge), edge.colour, edge.edge.skip
    cluster.node(
        text,
        _label(cards.edge(edge)),
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
