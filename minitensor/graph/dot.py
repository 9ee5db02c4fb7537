"""The picture as DOT, for Graphviz to lay out.

A box is an HTML table: forward at its left, backward at its right, between them what is saved.
"""

from __future__ import annotations

from html import escape
from typing import Any

import graphviz

from . import cards
from .cards import HEAD, SPACE, Cell, Table, Text, Wires, clean
from .model import Graph
from .page import EdgeLabel
from .palette import BACK, FONT, FRAME, INK, LOOKS, PAPER
from .picture import Junction, LabelledEdge, Picture, common, picture
from .scene import Scene


def source(scene: Scene, graph: Graph, overlay: str | None = None) -> str:
    """Return the picture as DOT, the same bytes each time. ValueError for an unknown overlay."""
    return str(_Drawing(picture(scene, graph, overlay)).whole.source)


class _Drawing:
    """A picture as a graph of Graphviz; an open box is a cluster, and the root is all of it."""

    def __init__(self, shown: Picture) -> None:
        self.shown, self.scene, self.parents = shown, shown.scene, shown.parents
        self.tables = cards.faces(shown)
        self.names = {key: f"n{count}" for count, key in enumerate(self.scene.visible)}
        self.names |= {key: f"r{count}" for count, key in enumerate(shown.rules)}
        self.names |= {each.id: f"j{count}" for count, each in enumerate(shown.junctions)}
        self.whole = graphviz.Digraph(
            graph_attr={
                "bgcolor": PAPER,
                "fontname": FONT,
                "fontcolor": INK,
                "label": _label(cards.heading(shown)),
                "labelloc": "t",
                "labeljust": "l",
                "nodesep": "0.3",
                "ranksep": "0.16" if self.scene.level == "arch" else "0.3",  # one page
                "pad": "0.25",
                "outputorder": "nodesfirst",
                "tooltip": _tip([shown.title]),
                "id": "graph",
                "class": f"graph {self.scene.level}",
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
        self.clusters: dict[str | None, Any] = {self.scene.tree.root: self.whole}
        self._boxes()
        for edge in shown.edges:
            self._edge(edge)
        for box, labels in shown.loops.items():
            self._loop(box, labels)
        self._pairs()
        for key, cluster in reversed(self.clusters.items()):  # is copied when it is added
            if key is not None and self.parents[key] is not None:
                self.clusters[self.parents[key]].subgraph(cluster)
        self._entrances()

    def _boxes(self) -> None:
        begun = {self.scene.tree.root}
        for key in self.scene.visible[1:]:  # an open box comes before what is in it
            parent, name = self.parents[key] or "", self.names[key]
            if key in self.scene.open:
                header = cards.header(self.shown.page.card(key).forward)
                self.clusters[key] = graphviz.Digraph(f"cluster_{name}")
                self.clusters[key].attr(**self._cluster(key))
                name = f"{name}h"  # a node: edges take no notice of a cluster's own label
                self.clusters[key].node(name, _label(header))
            else:
                self._node(key, parent)
            if parent not in begun:  # the first in a box stands below the title
                begun.add(parent)
                self.whole.edge(f"{self.names[parent]}h", name, style="invis", weight="4")
        for key, parent in self.shown.rules.items():
            self._node(key, parent)
        for junction in self.shown.junctions:
            self._junction(junction)

    def _cluster(self, key: str) -> dict[str, str]:
        card, classes, fill = self.shown.cluster(key)
        return {
            "label": "",
            "margin": "10",
            "style": "rounded,filled",
            "fillcolor": fill,
            "color": FRAME,
            "penwidth": "2.5" if card.count > 1 else "1",
            "id": _plain(f"box:{key}"),
            "class": classes,
            "tooltip": _tip(card.tooltip),
        }

    def _node(self, key: str, parent: str) -> None:
        face, table = self.shown.faces[key], self.tables[key]
        look, card = LOOKS[face.kind], face.card
        attributes = {
            "id": _plain(f"box:{card.id}"),
            "class": face.classes,
            "tooltip": _tip(card.tooltip),
        }
        if face.kind in ("input", "output"):
            table = cards.half(face.forward)
            attributes |= {"shape": "ellipse", "style": "filled", "margin": "0"}
            attributes |= {"fillcolor": look.fill, "color": look.line, "penwidth": str(look.border)}
        self.clusters[parent].node(self.names[key], _label(table), **attributes)

    def _junction(self, junction: Junction) -> None:
        attributes = {"shape": "point", "color": INK, "fillcolor": INK, "width": "0.07"}
        label, tooltip = "", "the same tensor to each"
        if junction.backward:  # gradients meet, and are added
            attributes = {"shape": "circle", "margin": "0", "color": BACK, "width": "0.2"}
            attributes["fixedsize"] = "true"
            label, tooltip = f"<{_text(Text('+', 11, BACK, bold=True))}>", "sum"
        attributes["class"] = f"junction {'backward' if junction.backward else 'forward'}"
        attributes |= {"id": _plain(junction.id), "tooltip": tooltip}
        self.clusters[junction.parent].node(self.names[junction.id], label, **attributes)

    def _home(self, edge: LabelledEdge) -> str:
        return common(self.parents, edge.source, edge.target) or self.scene.tree.root

    def _edge(self, edge: LabelledEdge) -> None:
        """An edge in two pieces, and between them its text: a node, for which dot makes room."""
        text, skip, tooltip = _text_name(edge), edge.edge.skip, _tip(edge.tooltip)
        marks = {"id": f"{edge.id}:text", "class": f"text {edge.classes}", "tooltip": tooltip}
        self.clusters[self._home(edge)].node(text, _label(cards.edge(edge)), **marks)
        attributes = {
            "class": edge.classes,
            "tooltip": tooltip,
            "color": edge.colour,
            "weight": "1" if skip else "8" if edge.backward else "16",
            "penwidth": "2.2" if skip else "1",
            "style": "dotted" if edge.nograd else "solid",
        }
        head = "normalnormal" if edge.edge.shared else "empty" if skip else "normal"
        if edge.backward:  # drawn from bottom to top: dot ranks it like the forward edge it mirrors
            tail = self._end(edge.target, "b", "se" if skip else "s")
            end = self._end(edge.source, "b", "ne" if skip else "n")
            upper = {"dir": "back", "arrowtail": "vee" if head == "normal" else head}
            lower = {"dir": "none"}
        else:
            tail = self._end(edge.source, "b" if edge.given else "f", "sw" if skip else "s")
            end = self._end(edge.target, "f" if edge.port is None else f"p{edge.port}", "n")
            upper = {"dir": "none"}
            lower = {"arrowhead": head if edge.target in self.shown.faces else "none"}
        self.whole.edge(tail, f"{text}:n", id=f"{edge.id}:upper", **attributes, **upper)
        self.whole.edge(f"{text}:s", end, id=f"{edge.id}:lower", **attributes, **lower)

    def _loop(self, key: str, labels: list[EdgeLabel]) -> None:
        """The arrow back of a loop; that of an open box at its title."""
        name = self.names[key] + "h" * (key in self.scene.open)
        for back in sorted({label.backward for label in labels}):
            label = _label(cards.loop([label for label in labels if label.backward == back]))
            look = {"class": "edge loop", "color": BACK if back else INK}
            self.whole.edge(name, name, label, **look)

    def _end(self, key: str, port: str, side: str) -> str:
        """The end of an edge at a box: at a half of it, or at one of its ports."""
        face, name = self.shown.faces.get(key), self.names[key]
        if face is None or face.kind in ("input", "output"):
            return name
        return f"{name}:{'f' if port == 'b' and face.backward is None else port}:{side}"

    def _pairs(self) -> None:
        """Place the gradients that leave a box by a junction to the right of its tensors."""
        inner = {junction.id: junction.parent for junction in self.shown.junctions}
        back = {
            (edge.target, inner[edge.source]): edge
            for edge in self.shown.edges
            if edge.backward and edge.source in inner
        }
        for edge in self.shown.edges:
            other = back.get((edge.source, inner.get(edge.target, "")))
            if edge.backward or other is None:
                continue
            pairs = {
                self._home(edge): (_text_name(edge), _text_name(other)),
                inner[edge.target]: (self.names[edge.target], self.names[other.source]),
            }
            for key, pair in pairs.items():
                with self.clusters[key].subgraph(graph_attr={"rank": "same"}) as row:
                    row.edge(*pair, style="invis")

    def _entrances(self) -> None:
        """Let the title of an open box stand below the texts of the edges that go into it."""
        found: dict[tuple[str, str], None] = {}
        for edge in self.shown.edges:
            home, key = self._home(edge), self.parents[edge.target]
            while not edge.backward and key is not None and key != home:
                found[_text_name(edge), key] = None
                key = self.parents[key]
        for text, key in found:
            self.whole.edge(text, f"{self.names[key]}h", style="invis", weight="6")


def _text_name(edge: LabelledEdge) -> str:
    return f"text_{edge.id}".replace(":", "_")


def _tip(lines: list[str]) -> str:
    return graphviz.nohtml(r"\n".join(map(_plain, lines)))


def _plain(text: str) -> str:
    """A text that Graphviz takes as it stands, not for HTML or with escapes in it."""
    return graphviz.escape(clean(text).replace("&", "&amp;")) if text else SPACE


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
    text = escape(line.text or SPACE, quote=False)
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
