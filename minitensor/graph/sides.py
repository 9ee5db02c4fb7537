"""Two graphs side by side on one HTML page: a page of each in a frame, linked, and the changes.

The script of `html.py` is in the page once; the frames get it with a graph's data each, and speak
by messages. What is selected or opened on one side is on the other too.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from . import html
from .fold import fold
from .model import Graph
from .scene import Tree
from .view import View

Pair = tuple[str | None, str | None]  # of a node on the left, and the one that it is on the right
Rows = list[tuple[str, str, Pair]]  # a name, a text, the nodes


def sides(
    graphs: Sequence[Graph],
    marks: Sequence[Mapping[str, str]],
    pairs: Iterable[Pair],
    changes: Mapping[str, Rows],
    counts: str,
    view: View,
) -> str:
    """Return the page of two graphs.

    `marks` are what became of the nodes of each, `pairs` nodes that are the same one, and `changes`
    is the list beside them, by kind. ValueError for an overlay or box that is not there.
    """
    trees = [fold(graph, view.fold) for graph in graphs]
    boxes = [_boxes(tree) for tree in trees]
    known = list(pairs)
    shown: list[dict[str, Any]] = [
        {
            "name": graph.name,
            "model": html.page_model(graph, tree, view, mark),
            "partners": _partners(trees, boxes, known, side),
        }
        for side, (graph, tree, mark) in enumerate(zip(graphs, trees, marks, strict=True))
    ]
    numbers = any(side["model"]["numbers"] != "null" for side in shown)
    title = " \N{RIGHTWARDS ARROW} ".join(graph.name for graph in graphs)
    data = {
        "title": title,
        "counts": counts,
        "places": [html.DATA, html.DETAILS, html.NUMBERS],
        "shell": html.shell("difference", numbers),
        "sides": shown,
        "changes": [[kind, rows] for kind, rows in changes.items() if rows],
    }
    return html.filled("diff.html", {"title": escape(title), "data": html.as_json(data)})


def _boxes(tree: Tree) -> dict[str, str]:
    """Return the box of each node, also of those that another one stands for."""
    found = {}
    for box in tree.boxes.values():
        found.update(dict.fromkeys(tree.nodes(box), box.id))
    return found


def _partners(
    trees: Sequence[Tree], boxes: Sequence[dict[str, str]], pairs: list[Pair], side: int
) -> dict[str, str | None]:
    """Return the box on the other side for each box whose id is not the same there, or None."""
    here, there = trees[side], trees[1 - side]
    found: dict[str, str | None] = {}
    for pair in pairs:
        own, other = pair[side], pair[1 - side]
        if own is not None and other is not None and own in boxes[side]:
            found.setdefault(boxes[side][own], boxes[1 - side].get(other))
    for box in here.boxes:
        if box not in found:
            found[box] = box if box in there.boxes else None
    for box in here.boxes:  # of what is not there, that around it
        outer = itertools.chain([box], here.ancestors(box))
        found[box] = next((found[key] for key in outer if found[key] is not None), None)
    return {box: other for box, other in found.items() if other != box}
