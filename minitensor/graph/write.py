"""A graph in every form it can be shown or kept in."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..serialize import atomic_write
from . import dot, html, text
from .fold import fold as folded
from .model import Graph
from .view import view

FORMATS = ("svg", "png", "pdf", "dot", "json", "html", "txt")


def render(
    graph: Graph,
    format: str,
    level: str = "block",
    expand: Iterable[str] = (),
    collapse: Iterable[str] = (),
    overlay: str | None = None,
    backward: bool | None = None,
    decompose: bool = False,
    fold: bool = True,
    marks: Mapping[str, str] | None = None,
    notes: Iterable[str] = (),
) -> tuple[bytes, str]:
    """The graph in one of `FORMATS`; and why a coarser level was chosen, if one was.

    `json` is the whole graph, `txt` its summary; the page holds all levels and opens at `level`.
    `marks` are written on the boxes of nodes, `notes` under the title.
    ValueError for an unknown format, level or overlay, and for a box that is not there.
    """
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, not {format!r}")
    if format == "json":
        return graph.to_json().encode(), ""
    tree = folded(graph, fold)
    if format == "txt":
        return f"{text.summary(graph, tree)}\n".encode(), ""
    if format == "html":
        return html.page(graph, tree, level, overlay, expand, collapse).encode(), ""
    scene = view(tree, graph, level, expand, collapse, backward, decompose)
    scene.marks.update(marks or {})
    scene.notes.extend(notes)
    if format == "dot":
        return dot.source(scene, graph, overlay).encode(), scene.coarser
    return dot.render(scene, graph, format, overlay), scene.coarser


def format_of(path: str | os.PathLike[str]) -> str:
    """The format that the end of a file name means; ValueError if it means none."""
    suffix = Path(path).suffix.removeprefix(".").lower()
    if suffix not in FORMATS:
        raise ValueError(f"{path}: the name must end in one of .{', .'.join(FORMATS)}")
    return suffix


def store(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file, whole or not at all; OSError that names it if that cannot be."""
    try:
        with atomic_write(path) as file:
            file.write(content)
    except OSError as error:
        raise type(error)(f"cannot write {path}: {error.strerror or error}") from error
