"""The graph as one HTML page that opens from the file system and never asks the network.

The page holds the page model as JSON and `explorer/`: a script that opens and closes boxes, lays
each open box out on its own and paints. All texts, numbers and colours come from here. Panels and
search keys, half of the data, stand below the script, so that the first picture does not wait for
them; the script reads them when somebody first asks.
"""

from __future__ import annotations

import functools
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

from .details import Details, Section
from .find import FIELDS, keys
from .held import held
from .lift import Lifted
from .maps import attention_maps
from .members import Members, Own
from .model import Graph, Value
from .numbers import number
from .overlays import CHANGES, Amounts, overlay_named, overlays_of
from .page import MARKS, Page
from .palette import DARK, FRAME, INK, LOOKS, QUIET, RAMP, RAMP_INK, SHADES, SKIP
from .scene import Box, Link, Tree
from .sources import Sources
from .told import every, told
from .view import LEVELS, View

SCRIPTS = (  # each needs those before it
    "model.js",
    "members.js",
    "find.js",
    "layers.js",
    "beside.js",
    "layout.js",
    "draw.js",
    "camera.js",
    "show.js",
    "minimap.js",
    "save.js",
    "panel.js",
    "legend.js",
    "outline.js",
    "address.js",
    "bookmarks.js",
    "pointer.js",
    "search.js",
    "frames.js",
    "app.js",
)
OF_NUMBERS = ("numbers.js", "formulas.js", "cells.js", "heat.js", "where.js")  # before the last
OF_CHAPTERS = ("walk.js",)  # after the last
HERE = Path(__file__).parent / "explorer"
DATA, DETAILS, NUMBERS = "<!-- data -->", "<!-- details -->", "<!-- numbers -->"
CHANGED = "changed"  # the name of the overlay that `marks` make
BASES = (*LEVELS, "none", "all")  # what is open to begin with: a level, no box, or every box


def page(
    graph: Graph,
    tree: Tree,
    view: View | None = None,
    marks: Mapping[str, str] | None = None,
    notes: Iterable[str] = (),
) -> str:
    """Return one HTML page showing `graph` as `tree` folds it, at first as `view` says.

    `marks` tell what became of nodes in a comparison ("added", "moved", "changed", "removed",
    "same"): boxes are coloured by them, as by an overlay. `notes` join those of the graph.
    ValueError for an unknown overlay, and for a box that is not there.
    """
    view = view or View()
    if view.overlay is not None:
        overlay_named(view.overlay, graph)
    data = page_model(graph, tree, view, marks, notes)
    details, numbers = data.pop("details"), data.pop("numbers")
    empty = shell(graph.name or "graph", numbers != "null", bool(graph.chapters))
    parts = {DATA: as_json(data), DETAILS: as_script(details), NUMBERS: as_script(numbers)}
    for place, part in parts.items():
        empty = empty.replace(place, part)
    return empty


def shell(title: str, numbers: bool, chapters: bool = False) -> str:
    """Return a page without its data, which stand where `DATA`, `DETAILS` and `NUMBERS` are.

    Only with `numbers` has it the scripts that show them, with `chapters` those of a walkthrough.
    """
    numbers = numbers or chapters
    scripts = (*SCRIPTS[:-1], *(OF_NUMBERS if numbers else ()), SCRIPTS[-1])
    scripts += OF_CHAPTERS if chapters else ()
    script = f'<script id="numbers" type="application/json">{NUMBERS}</script>'
    styles = ("explorer.css", *(["heat.css"] * numbers), *(["walk.css"] * chapters))
    parts = {
        "title": escape(title),
        "css": "".join(map(_read, styles)) + _colors(),
        "script": "\n".join(_read(name) for name in scripts),
        "data": DATA,
        "details": DETAILS,
        "numbers": script if numbers else "",
    }
    return filled("template.html", parts)


def filled(template: str, parts: Mapping[str, str]) -> str:
    """Return a template of explorer/ with parts in the places that bear their names."""
    return re.sub(r"<!-- (\w+) -->", lambda found: parts[found[1]], _read(template))


def _read(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _colors() -> str:
    """Boxes and ramps in the colours of the other pictures."""

    def both(color: str) -> str:
        return f"light-dark({color}, {DARK.get(color, color)})"

    roles = {"ink": INK, "quiet": QUIET, "frame": FRAME, "skip": SKIP}
    rules = [f":root {{ --{name}: {both(color)}; }}" for name, color in roles.items()]
    rules += [f".depth-{depth} {{ fill: {both(fill)}; }}" for depth, fill in enumerate(SHADES)]
    rules += [
        f".look-{name} {{ stroke: {both(look.line)}; }} "
        f".look-{name} .outline {{ fill: {both(look.fill)}; }}"
        for name, look in LOOKS.items()
    ]
    for step, (fill, ink) in enumerate(zip(RAMP, RAMP_INK, strict=True)):
        rules.append(
            f".step-{step} {{ --step: {both(fill)}; --step-ink: {both(ink)}; }}",
        )
    return "\n".join(rules)


def as_json(data: Any) -> str:
    """Return JSON that may stand in a script element: no "<" can end it or open a comment."""
    return as_script(_dumped(data))


def as_script(text: str) -> str:
    """Return JSON as `as_json` does."""
    return text.replace("<", "\\u003c")


def _dumped(data: Any) -> str:
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def page_model(
    graph: Graph,
    tree: Tree,
    view: View,
    marks: Mapping[str, str] | None = None,
    notes: Iterable[str] = (),
) -> dict[str, Any]:
    """Return the page model as JSON has it; boxes, tensors and links refer by number.

    Two are texts of JSON themselves: "details", the panels and search keys of boxes and tensors,
    and "numbers", what tensors held.
    `marks` and `notes` are those of `page`.
    """
    return _Writer(Page(graph, tree)).whole(view, marks, notes)


def _table(rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Records with each field's name written once, and without the fields that all leave empty."""
    rows = list(rows)
    names = [name for name in (rows[0] if rows else ()) if any(row[name] for row in rows)]
    return {"fields": names, "rows": [[row[name] or 0 for name in names] for row in rows]}


def _start(texts: Sequence[str]) -> str:
    """The longest text that all begin with."""
    first, last = min(texts), max(texts)
    pairs = zip(first, last, strict=False)
    return first[: next((at for at, (a, b) in enumerate(pairs) if a != b), len(first))]


def _column(texts: Sequence[str]) -> list[str]:
    """Texts with what they begin and end with alike written once, before the rest of each."""
    before = _start(texts)
    rest = [text[len(before) :] for text in texts]
    after = _start([text[::-1] for text in rest])[::-1]
    return [before, after, *(text[: len(text) - len(after)] for text in rest)]


class _Writer:
    """A page as JSON, and the numbers by which it refers to boxes, tensors and links."""

    def __init__(self, page: Page) -> None:
        self.page, self.graph, self.tree = page, page.graph, page.tree
        self.details = Details(page)
        self.members = Members(self.details)
        self.sources = Sources()
        self.maps = attention_maps(self.graph, self.tree)
        self.snippets: dict[str, list[Any]] = {}  # by "file:line"
        self.frames: dict[tuple[Any, ...], int] = {}  # of panels: all but what differs
        self.folds = {box.id for box in self.members.folds}
        self.boxes = {key: number for number, key in enumerate(self.tree.boxes)}
        used = self._used()
        known = (key for key in self.graph.values if key in used)
        self.values = {key: number for number, key in enumerate(known)}
        self.links = {id(link): number for number, link in enumerate(self.tree.links)}

    def _used(self) -> set[str]:
        """The tensors that the page speaks of."""
        values, tree = self.graph.values, self.tree
        nodes = [self.graph.nodes[key] for key in self.details.box_of]
        used = {key for node in nodes for key in (*node.inputs, *node.outputs, *node.saved)}
        used |= {link.value for link in tree.links}
        used |= {key for box in tree.boxes.values() for key in (box.value, *box.parameters)}
        used |= {key for chapter in every(self.graph.chapters) for key in chapter.values}
        return used | {values[key].of or "" for key in used if key in values}

    def whole(
        self, view: View, marks: Mapping[str, str] | None, notes: Iterable[str]
    ) -> dict[str, Any]:
        """Return everything; the page is at first as `view` says."""
        graph, levels = self.graph, {}
        overlays = {key: self._overlay(key) for key in overlays_of(graph)}
        if marks is not None:
            overlays[CHANGED] = self._changes(marks)
        for name in LEVELS:
            own = view if name == view.level else replace(view, level=name, expand=(), collapse=())
            scene = replace(own, backward=None).boxes(self.tree, graph)
            levels[name] = {
                "open": [self.boxes[key] for key in self.tree.boxes if key in scene.open],
                "backward": scene.backward,
                "notes": scene.notes,
            }
        found = self.tree.boxes.values(), [graph.values[key] for key in self.values]
        boxes, tensors = _table(map(self._box, found[0])), _table(map(self._tensor, found[1]))
        details: dict[str, Any] = {
            "boxes": [[self._panel(self.details.box(b)), *self._keys(b)] for b in found[0]],
            "tensors": [[self._panel(self.details.tensor(v)), *self._keys(v)] for v in found[1]],
        }
        details["frames"] = list(self.frames)
        return {
            "name": graph.name,
            "figures": [self.page.facts(backward) for backward in (False, True)],
            "notes": [*graph.notes, *notes],
            "looks": {
                name: {key: getattr(look, key) for key in ("border", "style", "bars", "says")}
                for name, look in LOOKS.items()
            },
            "marks": MARKS,
            "bases": BASES,
            "levels": levels,
            "level": view.level,
            "overlay": view.overlay or (CHANGED if marks is not None else None),
            "backward": view.backward,
            "fields": FIELDS,
            "overlays": overlays,
            "sources": self.snippets,
            "walk": told(graph, self.sources),
            "boxes": boxes,
            "tensors": tensors,
            "links": [
                [
                    self.boxes[link.source],
                    self.boxes[link.target],
                    self.values[link.value],
                    int(link.direction == "backward"),
                ]
                for link in self.tree.links
            ],
            "details": _dumped(details),
            "numbers": _dumped(held(graph)),
        }

    def _panel(self, sections: list[Section]) -> list[Any]:
        """The number of a panel's frame, and what fills it, with numbers in place of ids.

        A frame has the titles and kinds of the sections, and the names in rows of pairs. Tensors
        that are not on the page are left out.
        """
        frame: list[Any] = []
        filling: list[Any] = []
        for title, kind, rows in sections:
            if kind == "tensors":
                rows = [[name, self.values[key]] for name, key in rows if key in self.values]
            if kind == "boxes":
                rows = [self.boxes[key] for key in rows]
            if kind == "source":
                rows = [self._snippet(*rows[:2]), *rows[1:]]
            if not rows:
                continue
            if kind in ("facts", "tensors"):
                frame.append((title, kind, tuple([name for name, _ in rows])))
                filling += [text for _, text in rows]
            else:
                frame.append((title, kind))
                filling.append(rows)
        return [self.frames.setdefault(tuple(frame), len(self.frames)), *filling]

    def _keys(self, thing: Box | Value) -> list[str]:
        """The names by which a box or tensor is found, for each of `FIELDS`."""
        if isinstance(thing, Box):
            known = self.details.box_keys(thing)
        else:
            known = keys(self.graph, thing)
        return ["\n".join(names) for names in known]

    def _snippet(self, source: str, code: str) -> str:
        """Keep the lines around a source line, if there are any; return what it is called."""
        name = self.sources.shown(source)
        if name not in self.snippets and (found := self.sources.around(source, code)):
            self.snippets[name] = list(found)
        return name

    def _box(self, box: Box) -> dict[str, Any]:
        card, edges = self.page.card(box.id), self._in_order(self.page.lifting.inside(box.id))
        spoken = [box.kind, card.forward.title, box.path]
        spoken += [f"{len(box.children)} inside"] if box.children else []
        crowds = Counter(edge.lower for edge in edges if edge.forward)
        back, value = card.backward, self.values.get(box.value, -1)
        own = self.members.box(box)
        nodes = self.tree.nodes(box)
        return {
            "id": box.id,
            "children": [self.boxes[child] for child in box.children],
            "kind": box.kind,
            "look": card.kind,
            "fused": int(card.fused),
            "count": card.count if card.count > 1 else 0,
            "names": self.members.names(box) if box.id in self.folds else 0,
            "own": self._own(own) if len(own.ids) > 1 else 0,
            "figures": [self.page.costs(box, backward) for backward in (False, True)],
            "nodes": _column(nodes) if nodes and nodes != own.ids else 0,
            "label": box.label,
            "path": box.path if box.path != box.label else "",
            "title": card.forward.title,
            "place": card.forward.place,
            "lines": card.forward.rows,
            "brief": card.brief.rows if card.brief.rows != card.forward.rows else 0,
            "backward": [back.title, back.rows, self.page.afar(box)] if back else None,
            "saved": [[text, self.values.get(key or "", -1)] for text, key in card.saved],
            "map": self.values.get(self.maps.get(box.id, ""), -1) + 1,
            "tensor": value + 1 if box.kind in ("input", "output") else 0,
            "loops": [[loop.name, loop.shape, int(loop.backward)] for loop in self.page.loop(box)],
            "late": int(box.id in self.late),
            "nograd": int(box.node is not None and not self.graph.nodes[box.node].gradient),
            "edges": [self._edge(edge, crowds[edge.lower] > 1) for edge in edges],
            "spoken": ", ".join(filter(None, spoken)),
        }

    @functools.cached_property
    def late(self) -> set[str]:
        """The boxes drawn with the backward pass alone: what only runs, or is read, there."""
        links = [link for link in self.tree.links if link.direction != "backward"]
        read = {link.source for link in links}
        onward = any(link.direction == "onward" for link in links)
        boxes = self.tree.boxes.values()
        rules = {box.id for box in boxes if box.kind == "op" and box.node is None}
        sources = {box.id for box in boxes if box.kind == "source" and box.id not in read}
        return sources if onward else sources | rules

    def _own(self, own: Own) -> list[Any]:
        """The ids of instances, and the facts in which they differ from what is drawn."""
        return [_column(own.ids), {name: _column(texts) for name, texts in own.facts.items()}]

    def _in_order(self, edges: list[Lifted]) -> list[Lifted]:
        """Edges, those to one op or module in the order of its signature."""
        found = list(edges)
        places: dict[str | None, list[int]] = {}
        for at, edge in enumerate(edges):
            places.setdefault(edge.lower, []).append(at)
        for lower, taken in places.items():
            if lower is None or len(taken) < 2:
                continue
            names = self.page.signature(self.tree.boxes[lower])
            ranks = {}
            for at in taken:
                ports = self.page.ports(edges[at].forward, lower)
                ranks[at] = min((names.index(p) for p in ports if p in names), default=0)
            for at, source in zip(taken, sorted(taken, key=ranks.__getitem__), strict=True):
                found[at] = edges[source]
        return found

    def _edge(self, edge: Lifted, crowded: bool) -> list[Any]:
        """The ends (0 for the border, else a box), the tensor, marks, and what each side says.

        The marks: 1 for a residual, and 2 for what goes to all members of a fold in it.
        """
        ends = (0 if end is None else self.boxes[end] for end in (edge.upper, edge.lower))
        marks = int(edge.skip) + 2 * any(link.fan > 1 for link in edge.forward)
        sides = (self._side(edge, links, crowded) for links in (edge.forward, edge.backward))
        return [*ends, self.values[edge.tensor], marks, *sides]

    def _side(self, edge: Lifted, links: list[Link], crowded: bool) -> Any:
        """The links of one side of an edge, its name, shape and remark; and its name at a port."""
        if not links:
            return 0
        page, backward = self.page, links[0].direction == "backward"
        value = self.graph.values[links[0].value]
        fans = [(page.lifting.times(edge, link), link.fanned) for link in links]
        fan = page.fan(*max(fans), backward)
        terms = len({link.value for link in links}) if backward else 1
        together = {link.value for link in links} if links[0].direction == "onward" else ()
        label, port = page.edge(value, backward, fan, terms, len(together)), ""
        if crowded and not backward and edge.lower and page.ported(page.card(edge.lower)):
            names = ", ".join(page.ports(links, edge.lower))
            if names and names != label.name:
                port = f"{label.name} \N{RIGHTWARDS ARROW} {names}".strip()
        found = [[self.links[id(link)] for link in links], label.name, label.shape]
        return [*found, label.remark, port] if label.remark or port else found

    def _tensor(self, value: Value) -> dict[str, Any]:
        page, details = self.page, self.details
        found = self.members.tensor(value.id)
        made, read = (
            list(dict.fromkeys(self.boxes[key] for key in boxes[value.id]))
            for boxes in (details.makers, details.readers)
        )
        return {
            "id": value.id,
            "title": f"{page.name(value) or value.kind} {value.label}",
            "name": page.name(value),
            "shape": value.label,
            "size": number(value.nbytes, "B"),
            "tooltip": "\n".join(page.tooltip(value)[1:]),
            "gradient": int(value.kind == "gradient"),
            "own": [self.boxes[found[0]], *self._own(found[1])] if found else 0,
            "made": made,
            "read": read,
        }

    def _overlay(self, key: str) -> dict[str, Any]:
        """Title, the remedy if nothing is known, and heats without the backward pass and with."""
        overlay = overlay_named(key, self.graph)
        both = [self.page.amounts(key, backward) for backward in (False, True)]
        if not both[1].of:
            return {"title": both[1].title, "missing": overlay.missing}
        differ = both if both[0].of != both[1].of else both[:1]
        return {
            "title": both[1].title,
            "logarithmic": overlay.logarithmic,
            "passes": [self._heats(amounts, backward) for backward, amounts in enumerate(differ)],
        }

    def _heats(self, amounts: Amounts, backward: int) -> dict[str, Any]:
        """The ends of the ramp at each of `BASES`; of boxes a text, steps at each, instances."""
        key, text = amounts.overlay.key, amounts.overlay.text
        scales = [self.page.scale(key, bool(backward), base) for base in BASES]
        heats: dict[int, list[Any]] = {}
        owns: dict[int, list[Any]] = {}  # of each instance, or once for all if they are alike

        def steps(amount: float) -> str:
            return "".join(str(scale.step(amount)) for scale in scales)

        for box in amounts.of:
            bars = [[text(amount), steps(amount)] for amount in amounts.bars(box)]
            said = [amounts.text(box), steps(amounts.total(box))]
            heats[self.boxes[box]] = [*said, bars] if bars else said
            if len(each := amounts.of[box]) > 1:
                differ = each if len(set(each)) > 1 else each[:1]
                owns[self.boxes[box]] = [[text(amount), steps(amount)] for amount in differ]
        return {"ends": [scale.ends for scale in scales], "heats": heats, "owns": owns}

    def _changes(self, marks: Mapping[str, str]) -> dict[str, Any]:
        """The fate of the boxes in a comparison, as an overlay with a step for each kind."""
        heats = {
            self.boxes[key]: [heat.text, str(heat.step) * len(BASES)]
            for key, heat in self.page.marks(marks).items()
        }
        known = {name: step for name, step in CHANGES.items() if name in marks.values()}
        return {
            "title": "what became of it",
            "steps": known,
            "passes": [{"ends": [["", ""]] * len(BASES), "heats": heats, "owns": {}}],
        }
