"""The methods of a graph: drawing it, searching it, comparing it with another."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import Any, Unpack

from . import text, write
from .annotations import annotate as note_in
from .diff import Difference, difference
from .find import find_in
from .fold import fold as folded
from .model import Graph, Node, Value
from .view import Options, View, view_of
from .window import display, frame


def save(
    graph: Graph,
    path: str | os.PathLike[str],
    level: str | View = "block",
    **options: Unpack[Options],
) -> None:
    """Write the graph as the end of `path` says: .svg .png .pdf .dot .json .html or .txt.

    `level` is "arch" (one page), "block" (layers opened), "op", or "full" (op, with the backward
    pass and saved tensors), and `options` are those of `View`: expand, collapse, overlay,
    backward, decompose, fold. A `View` that is ready may stand in place of the level.

    Raises ValueError for an unknown format, level, overlay or box, OSError if the file cannot be
    written, RuntimeError for png and pdf without Graphviz. Warns if a coarser level had to be
    chosen.
    """
    format = write.format_of(path)
    write.store(path, write.render(graph, format, view_of(level, options)))


def summary(graph: Graph, depth: int | None = None) -> str:
    """Return a text: modules, down to `depth`, with shapes, parameters, FLOPs and bytes."""
    return text.summary(graph, folded(graph), depth)


def find(graph: Graph, query: str) -> list[Node | Value]:
    """Return the ops and tensors that match a query: "softmax", "path:decoder shape:nhead".

    A word matches an op by its name, its module's path or class, a tensor by its names in the
    code. `op:`, `path:` and `shape:` look there alone. All words must match.
    """
    return find_in(graph, query)


def diff(graph: Graph, other: Graph) -> Difference:
    """Compare with `other`: what it has that this graph has not, what it lacks, what moved."""
    return difference(graph, other)


def annotate(graph: Graph, notes: Mapping[str, float | str], *, name: str) -> None:
    """Add an overlay of your own, `name`: a number or text for boxes, by path or id.

        g.annotate({"layers.3": 0.7, "layers.4": "frozen"}, name="pruning")
        g.save("pruning.svg", overlay="pruning")

    Raises ValueError, with near names, for a path or id that the graph does not have.
    """
    note_in(graph, notes, name)


def brief(graph: Graph) -> str:
    """Return a short description in a few lines; `summary()` has every module."""
    return text.brief(graph, folded(graph))


def mimebundle(graph: Graph, include: Any = None, exclude: Any = None) -> dict[str, str]:
    """Return what a notebook shows: the page in a frame, else a picture, else a text."""
    shown = {"text/plain": summary(graph)}
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # that a level was too large is told, but never raised
        shown["image/svg+xml"] = write.render(graph, "svg", View()).decode()
    shown["text/html"] = frame(_page(graph, View()))
    return shown


def show(graph: Graph, level: str | View = "block", **options: Unpack[Options]) -> None:
    """Show the graph's page: in the browser, or in a notebook below the cell.

    `level` and `options` are those of `save`.
    """
    display(_page(graph, view_of(level, options, "show")), graph.name)


def _page(graph: Graph, view: View) -> str:
    return write.render(graph, "html", view).decode()


METHODS = {
    "save": save,
    "show": show,
    "annotate": annotate,
    "summary": summary,
    "find": find,
    "diff": diff,
    "__repr__": brief,
    "_repr_mimebundle_": mimebundle,
}
for name, function in METHODS.items():
    setattr(Graph, name, function)
