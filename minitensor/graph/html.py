"""The graph as one HTML page that opens from the file system and never asks the network.

The page holds the folded tree, the tensors and ops behind it, and `explorer/`: a script that lays
each open box out on its own, so that opening one touches only it and the boxes around it.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterable
from dataclasses import asdict, fields
from html import escape
from pathlib import Path
from typing import Any

from .kinds import kind
from .model import Graph, Group, Node, Value
from .overlay import OVERLAYS
from .palette import DARK, LOOKS
from .scene import Box, Link, Tree
from .view import LEVELS, view

SCRIPTS = ("data.js", "layout.js", "draw.js", "panel.js", "app.js")  # each needs those before it
HERE = Path(__file__).parent / "explorer"


def page(
    graph: Graph,
    tree: Tree,
    level: str = "block",
    overlay: str | None = None,
    expand: Iterable[str] = (),
    collapse: Iterable[str] = (),
) -> str:
    """One HTML page showing `graph` as `tree` folds it, at first at `level` with `overlay`.

    A level is one of "arch", "block", "op" and "full", an overlay one of "flops", "bytes", "time",
    "gradnorm" and "nan"; `expand` and `collapse` open and close boxes of that level. ValueError for
    another, and for a box that is not there.
    """
    if level not in LEVELS:
        raise ValueError(f"level {level!r} is none of {', '.join(LEVELS)}")
    if overlay is not None and overlay not in OVERLAYS:
        raise ValueError(f"overlay {overlay!r} is none of {', '.join(OVERLAYS)}")
    data = _data(graph, tree)
    data["levels"][level]["open"] = sorted(view(tree, graph, level, expand, collapse).open)
    parts = {
        "title": escape(graph.name or "graph"),
        "css": _read("explorer.css") + _colors(),
        "license": _read("dagre.LICENSE.txt"),
        "dagre": re.sub(r"//# sourceMappingURL=.*", "", _read("dagre.min.js")),
        "script": "\n".join(_read(name) for name in SCRIPTS),
        "data": _json({**data, "level": level, "overlay": overlay}),
    }
    return re.sub(r"<!-- (\w+) -->", lambda found: parts[found[1]], _read("template.html"))


def _read(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _colors() -> str:
    """Boxes in the colours of the other pictures."""
    rules = []
    for name, look in LOOKS.items():
        line, fill = (f"light-dark({c}, {DARK.get(c, c)})" for c in (look.line, look.fill))
        rules.append(
            f".look-{name} {{ stroke: {line}; }} .look-{name} .outline {{ fill: {fill}; }}"
        )
    return "\n".join(rules)


def _json(data: Any) -> str:
    """JSON that may stand in a script element: no "<" can end it or open a comment."""
    text = json.dumps(_plain(data), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c")


def _plain(data: Any) -> Any:
    """The same of what JSON knows: an infinity or NaN becomes its name, the unknown its repr."""
    if isinstance(data, dict):
        return {str(key): _plain(entry) for key, entry in data.items()}
    if isinstance(data, (list, tuple)):
        return [_plain(entry) for entry in data]
    if data is None or isinstance(data, (bool, int, str)):
        return data
    if isinstance(data, float):
        return float(f"{data:.6g}") if math.isfinite(data) else str(data)
    return repr(data)


def _data(graph: Graph, tree: Tree) -> dict[str, Any]:
    """What the page needs: boxes and links, and the nodes and values they speak of."""
    nodes = [
        graph.nodes[name]
        for box in tree.boxes.values()
        for name in dict.fromkeys([*([box.node] if box.node else []), *box.backward])
        if name in graph.nodes
    ]
    wanted = {name for node in nodes for name in (*node.inputs, *node.outputs, *node.saved)}
    wanted.update(link.value for link in tree.links)
    wanted.update(name for box in tree.boxes.values() for name in (box.id, *box.parameters))
    wanted |= {graph.values[name].of or "" for name in wanted if name in graph.values}
    groups = {name: graph.groups[name] for name in tree.boxes if name in graph.groups}
    levels = {name: view(tree, graph, level=name) for name in LEVELS}
    return {
        "name": graph.name,
        "dims": graph.dims,
        "notes": graph.notes,
        "root": tree.root,
        "levels": {
            name: {"open": sorted(scene.open), "backward": scene.backward, "notes": scene.notes}
            for name, scene in levels.items()
        },
        "settings": {name: group.settings for name, group in groups.items()},
        "given": {name: _given(group) for name, group in groups.items()},
        "measured": _measures(graph, tree),
        "looks": {name: asdict(look) for name, look in LOOKS.items()},
        "look": {name: kind(box, graph) for name, box in tree.boxes.items()},
        "boxes": _table(Box, list(tree.boxes.values())),
        "links": _table(Link, tree.links),
        "nodes": _table(Node, list({node.id: node for node in nodes}.values())),
        "values": _table(Value, [value for name, value in graph.values.items() if name in wanted]),
    }


def _given(group: Group) -> dict[str, str]:
    """What a module calls each tensor that it was called with."""
    names: dict[str, list[str]] = {}
    for value, name in zip(group.inputs, group.input_names, strict=True):
        names.setdefault(value, []).append(name)
    return {value: ", ".join(known) for value, known in names.items()}


def _table(kind: type[Any], rows: list[Any]) -> dict[str, Any]:
    """Records with each field's name written once, and without the fields that all leave empty."""
    empty: tuple[Any, ...] = (None, 0, [], {})  # "" is not: it is the id of the whole
    names = [f.name for f in fields(kind) if any(getattr(row, f.name) not in empty for row in rows)]
    return {"fields": names, "rows": [[getattr(row, name) for name in names] for row in rows]}


def _measures(graph: Graph, tree: Tree) -> dict[str, dict[str, list[float]]]:
    """What was measured in a box, for each of the equal ones that it stands for.

    Seconds add up over what is in a box; of gradient norms and shares of NaN the largest counts.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for op in tree.boxes.values():
        if op.node is None:
            continue
        chain = _chain(tree, op)
        copies = [_measure(graph, op, renaming) for renaming in _renamings(chain)]
        # What runs in a fused op is measured for itself: the op has counted for those around it.
        fused = next(i for i, box in enumerate(chain) if box.node)
        counts = chain if chain[fused] is op else chain[fused + 1 :]
        for quantity in ("time", "gradnorm", "nan"):
            values = [copy[quantity] for copy in copies if quantity in copy]
            if len(values) < len(copies):
                continue
            for box in counts:
                across = math.prod(max(1, len(b.members)) for b in _chain(tree, box))
                size = len(values) // across
                parts = [values[i * size : (i + 1) * size] for i in range(across)]
                join = sum if quantity == "time" else max
                before = found.setdefault(box.id, {}).get(quantity, [0.0] * across)
                after = [join([old, *part]) for old, part in zip(before, parts, strict=True)]
                found[box.id][quantity] = after
    return found


def _chain(tree: Tree, box: Box) -> list[Box]:
    """The boxes around a box and it itself, from the root down."""
    return [*(tree.boxes[key] for key in reversed(tree.around(box.id))), box]


def _renamings(chain: list[Box]) -> list[list[tuple[str, str]]]:
    """For each copy of a box, what turns ids of the one drawn into its own, inner folds first."""
    folds = [[(box.id, member) for member in box.members or [box.id]] for box in chain]
    return [list(reversed(choice)) for choice in itertools.product(*folds)]


def _rename(name: str, renaming: list[tuple[str, str]]) -> str:
    for old, new in renaming:
        if old != new and name.startswith(old) and name[len(old) : len(old) + 1] in ("", *"./:#"):
            name = new + name[len(old) :]
    return name


def _measure(graph: Graph, box: Box, renaming: list[tuple[str, str]]) -> dict[str, float]:
    names = [name for name in (box.node, *box.backward) if name]
    nodes = [graph.nodes.get(_rename(name, renaming)) for name in names]
    known = [node for node in nodes if node is not None]
    made = [name for node in known if node.direction == "forward" for name in node.outputs]
    weights = [_rename(name.partition(":")[2], renaming) for name in box.parameters]
    made += [f"parameter:{name}" for name in weights]
    values = [graph.values[name] for name in made if name in graph.values]
    seconds = [node.seconds for node in known if node.seconds is not None]
    norms = [value.grad_norm for value in values if value.grad_norm is not None]
    shares = [value.stats["nan"] for value in values if value.stats and "nan" in value.stats]
    found = {}
    if seconds:
        found["time"] = sum(seconds)
    if norms:
        found["gradnorm"] = max(norms)
    if shares:
        found["nan"] = max(shares)
    return found
