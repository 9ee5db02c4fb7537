"""The graph as one HTML page that opens from the file system and never asks the network.

The page holds the page model as JSON and `explorer/`: a script that opens and closes boxes, lays
each open box out on its own and paints. All texts, numbers and colours come from here.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

from .details import Details
from .find import FIELDS, keys
from .lift import Lifted
from .model import Graph, Value
from .numbers import number
from .overlays import OVERLAYS, Amounts, overlay_named
from .page import MARKS, Label, Page
from .palette import DARK, LOOKS, RAMP, RAMP_INK
from .scene import Link, Tree
from .view import LEVELS, View

SCRIPTS = ("model.js", "layout.js", "draw.js", "panel.js", "app.js")  # each needs those before it
HERE = Path(__file__).parent / "explorer"
BASES = (*LEVELS, "none", "all")  # what is open to begin with: a level, no box, or every box


def page(graph: Graph, tree: Tree, view: View | None = None) -> str:
    """Return one HTML page showing `graph` as `tree` folds it, at first as `view` says.

    ValueError for an unknown overlay, and for a box that is not there.
    """
    view = view or View()
    if view.overlay is not None:
        overlay_named(view.overlay)
    parts = {
        "title": escape(graph.name or "graph"),
        "css": _read("explorer.css") + _colors(),
        "license": _read("dagre.LICENSE.txt"),
        "dagre": re.sub(r"//# sourceMappingURL=.*", "", _read("dagre.min.js")),
        "script": "\n".join(_read(name) for name in SCRIPTS),
        "data": _json(page_model(graph, tree, view)),
    }
    return re.sub(r"<!-- (\w+) -->", lambda found: parts[found[1]], _read("template.html"))


def _read(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _colors() -> str:
    """Boxes and ramps in the colours of the other pictures."""

    def both(color: str) -> str:
        return f"light-dark({color}, {DARK.get(color, color)})"

    rules = [
        f".look-{name} {{ stroke: {both(look.line)}; }} "
        f".look-{name} .outline {{ fill: {both(look.fill)}; }}"
        for name, look in LOOKS.items()
    ]
    for step, (fill, ink) in enumerate(zip(RAMP, RAMP_INK, strict=True)):
        rules.append(
            f".step-{step} {{ --step: {both(fill)}; --step-ink: {both(ink)}; }}",
        )
    return "\n".join(rules)


def _json(data: Any) -> str:
    """JSON that may stand in a script element: no "<" can end it or open a comment."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c")


def page_model(graph: Graph, tree: Tree, view: View) -> dict[str, Any]:
    """Return the page model as JSON knows it; boxes, tensors and links refer by number."""
    model = Page(graph, tree)
    details = Details(model)
    boxes = {key: number for number, key in enumerate(tree.boxes)}
    used = _used(details)
    values = {key: number for number, key in enumerate(k for k in graph.values if k in used)}
    numbers = _Numbers(boxes, values, {id(link): at for at, link in enumerate(tree.links)})
    levels = {}
    for name in LEVELS:
        other = replace(view, level=name, expand=(), collapse=()) if name != view.level else view
        scene = replace(other, backward=None).scene(tree, graph)
        levels[name] = {
            "open": [boxes[key] for key in scene.visible if key in scene.open],
            "backward": scene.backward,
            "notes": scene.notes,
        }
    return {
        "name": graph.name,
        "notes": graph.notes,
        "looks": {name: _look(name) for name in LOOKS},
        "marks": MARKS,
        "bases": BASES,
        "levels": levels,
        "level": view.level,
        "overlay": view.overlay,
        "backward": view.backward,
        "fields": FIELDS,
        "overlays": {key: _overlay(model, key, boxes) for key in OVERLAYS},
        "boxes": _table(_box(model, details, key, numbers) for key in boxes),
        "tensors": _table(_tensor(details, graph.values[key], numbers) for key in values),
        "links": [numbers.link(link) for link in tree.links],
    }


def _used(details: Details) -> set[str]:
    """The tensors that the page speaks of."""
    graph, tree = details.graph, details.tree
    used = {key for node in details.box_of for n in [graph.nodes[node]] for key in n.inputs}
    used |= {key for node in details.box_of for n in [graph.nodes[node]] for key in n.outputs}
    used |= {key for node in details.box_of for key in graph.nodes[node].saved}
    used |= {link.value for link in tree.links}
    used |= {key for box in tree.boxes.values() for key in (box.value, *box.parameters)}
    return used | {graph.values[key].of or "" for key in used if key in graph.values}


class _Numbers:
    """The numbers by which the JSON refers to boxes, tensors and links."""

    def __init__(
        self, boxes: dict[str, int], values: dict[str, int], links: dict[int, int]
    ) -> None:
        self.boxes = boxes
        self.values = values
        self.links = links

    def link(self, link: Link) -> list[int]:
        """Return its ends, its tensor, and 1 if it is of the backward pass."""
        ends = self.boxes[link.source], self.boxes[link.target]
        return [*ends, self.values[link.value], int(link.direction == "backward")]

    def section(self, section: list[Any]) -> list[Any]:
        """Return a section of a panel with numbers in place of ids; None is not on the page."""
        title, kind, rows = section
        if kind == "tensors":
            rows = [[name, self.values[key]] for name, key in rows if key in self.values]
        if kind == "boxes":
            rows = [self.boxes[key] for key in rows]
        return [title, kind, rows]


def _table(rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Records with each field's name written once, and without the fields that all leave empty."""
    rows = list(rows)
    names = [name for name in (rows[0] if rows else ()) if any(row[name] for row in rows)]
    return {"fields": names, "rows": [[row[name] or 0 for name in names] for row in rows]}


def _look(name: str) -> dict[str, Any]:
    look = LOOKS[name]
    return {"border": look.border, "style": look.style, "bars": look.bars, "says": look.says}


def _label(label: Label | None) -> list[Any] | None:
    return [label.title, label.rows] if label else None


def _box(model: Page, details: Details, key: str, numbers: _Numbers) -> dict[str, Any]:
    box, card = model.tree.boxes[key], model.card(key)
    spoken = [box.kind, card.forward.title, box.path]
    spoken += [f"{len(box.children)} inside"] if box.children else []
    sections = (numbers.section(section) for section in details.box(box))
    edges = model.lifting.inside(key)
    crowds = Counter(edge.lower for edge in edges if edge.forward)
    crowded = {key for key, count in crowds.items() if key is not None and count > 1}
    return {
        "id": key,
        "children": [numbers.boxes[child] for child in box.children],
        "kind": box.kind,
        "look": card.kind,
        "fused": int(card.fused),
        "stacked": int(card.count > 1),
        "label": box.label,
        "path": box.path if box.path != box.label else "",
        "title": card.forward.title,
        "place": card.forward.place,
        "lines": card.forward.rows,
        "brief": card.brief.rows if card.brief.rows != card.forward.rows else 0,
        "backward": _label(card.backward),
        "saved": [[text, numbers.values.get(value or "", -1)] for text, value in card.saved],
        "tensor": numbers.values.get(box.value, -1) + 1 if box.kind in ("input", "output") else 0,
        "edges": [_edge(model, edge, numbers, edge.lower in crowded) for edge in edges],
        "spoken": ", ".join(filter(None, spoken)),
        "panel": [section for section in sections if section[2]],
        "keys": ["\n".join(names) for names in details.box_keys(box)],
    }


def _edge(model: Page, edge: Lifted, numbers: _Numbers, crowded: bool) -> list[Any]:
    """The ends (0 for the border, else a box), the tensor, skip, and what each side says."""
    upper, lower = (0 if end is None else numbers.boxes[end] for end in (edge.upper, edge.lower))
    tensor = numbers.values[edge.tensor]
    sides = [_side(model, edge, links, numbers, crowded) for links in (edge.forward, edge.backward)]
    return [upper, lower, tensor, int(edge.skip), *sides]


def _side(model: Page, edge: Lifted, links: list[Link], numbers: _Numbers, crowded: bool) -> Any:
    """The links of one side of an edge, its name, shape and remark; and its name at a port."""
    if not links:
        return 0
    backward = links[0].direction == "backward"
    value = model.graph.values[links[0].value]
    lower = edge.lower or edge.container
    fan = max(model.lifting.multiplicity(link, lower) for link in links)
    terms = len({link.value for link in links}) if backward else 1
    label = model.edge(value, backward, fan, terms)
    port = ""
    if crowded and not backward and edge.lower and model.ported(model.card(edge.lower)):
        names = ", ".join(model.ports(links, edge.lower))
        if names and names != label.name:
            port = f"{label.name} \N{RIGHTWARDS ARROW} {names}".strip()
    found = [[numbers.links[id(link)] for link in links], label.name, label.shape]
    return [*found, label.remark, port] if label.remark or port else found


def _tensor(details: Details, value: Value, numbers: _Numbers) -> dict[str, Any]:
    model, boxes = details.page, numbers.boxes
    sections = (numbers.section(section) for section in details.tensor(value))
    return {
        "id": value.id,
        "title": f"{model.name(value) or value.kind} {value.label}",
        "name": model.name(value),
        "shape": value.label,
        "size": number(value.nbytes, "B"),
        "tooltip": "\n".join(model.tooltip(value)[1:]),
        "gradient": int(value.kind == "gradient"),
        "made": list(dict.fromkeys(boxes[key] for key in details.makers[value.id])),
        "read": list(dict.fromkeys(boxes[key] for key in details.readers[value.id])),
        "panel": [section for section in sections if section[2]],
        "keys": ["\n".join(names) for names in keys(details.graph, value)],
    }


def _overlay(model: Page, key: str, boxes: dict[str, int]) -> dict[str, Any]:
    """Title, what to do if nothing is known, and the heat of boxes, without backward and with."""
    overlay = OVERLAYS[key]
    both = [model.amounts(key, backward) for backward in (False, True)]
    if not both[1].of:
        return {"title": overlay.title, "missing": overlay.missing}
    passes = [_heats(model, amounts, boxes, bool(n)) for n, amounts in enumerate(both)]
    return {
        "title": overlay.title,
        "logarithmic": overlay.logarithmic,
        "passes": passes if both[0].of != both[1].of else passes[:1],
    }


def _heats(model: Page, amounts: Amounts, boxes: dict[str, int], backward: bool) -> dict[str, Any]:
    """The ends of the ramp at each of `BASES`; of boxes a text, steps at each, and instances."""
    scales = [model.scale(amounts.overlay.key, backward, base) for base in BASES]
    text, heats = amounts.overlay.text, {}

    def steps(amount: float) -> str:
        return "".join(str(scale.step(amount)) for scale in scales)

    for box in amounts.of:
        bars = [[text(amount), steps(amount)] for amount in amounts.bars(box)]
        said = [amounts.text(box), steps(amounts.total(box))]
        heats[boxes[box]] = [*said, bars] if bars else said
    return {"ends": [scale.ends for scale in scales], "heats": heats}
