"""A graph in every form it can be shown or kept in: one painter for each format."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ..serialize import atomic_write
from . import dot, html, printing, svg, text
from .fold import fold
from .model import Graph
from .scene import Scene
from .view import View


def render(
    graph: Graph,
    format: str,
    view: View,
    marks: Mapping[str, str] | None = None,
    notes: Iterable[str] = (),
) -> bytes:
    """Return the graph in one of `FORMATS`, with a warning if a coarser level had to be chosen.

    `marks` are written on the boxes of nodes, `notes` under the title. ValueError for an unknown
    format or overlay, and for a box that is not there; RuntimeError for what needs Graphviz.
    """
    if format in TEXTS:
        return TEXTS[format](graph, view).encode()
    if format not in PICTURES:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, not {format!r}")
    scene = view.scene(fold(graph, view.fold, view.asked), graph)
    scene.marks.update(marks or {})
    scene.notes.extend(notes)
    if scene.coarser:
        warnings.warn(scene.coarser, stacklevel=3)
    return PICTURES[format](scene, graph, view.overlay)


def _summary(graph: Graph, view: View) -> str:
    return text.summary(graph, fold(graph, view.fold)) + "\n"


def _source(scene: Scene, graph: Graph, overlay: str | None) -> bytes:
    return dot.source(scene, graph, overlay).encode()


def _printed(format: str) -> Callable[[Scene, Graph, str | None], bytes]:
    return lambda scene, graph, overlay: printing.printed(svg.draw(scene, graph, overlay), format)


PICTURES: dict[str, Callable[[Scene, Graph, str | None], bytes]] = {
    "svg": svg.draw,
    "png": _printed("png"),
    "pdf": _printed("pdf"),
    "dot": _source,
}
TEXTS: dict[str, Callable[[Graph, View], str]] = {
    "json": lambda graph, view: graph.to_json(),
    "html": lambda graph, view: html.page(graph, fold(graph, view.fold), view),
    "txt": _summary,
}
FORMATS = (*PICTURES, *TEXTS)


def format_of(path: str | os.PathLike[str]) -> str:
    """Return the format that the end of a file name means; ValueError if it means none."""
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
