"""The chapters of a walkthrough as JSON: what a page tells, with the code that it shows beside it.

- `chapters`: those of the graph. `at` stands for `source`: of its code the number, and the first
  and last line that are lit; null if there is none to show.
- `code`: pieces of code, each its file's name, the number of its first line, and its lines.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from .model import Chapter, Graph
from .sources import Sources


def told(graph: Graph, sources: Sources) -> dict[str, Any] | None:
    """Return the chapters of a graph, None if it has none."""
    if not graph.chapters:
        return None
    code: dict[tuple[str, int], tuple[int, list[str]]] = {}  # by file and line: number and lines

    def at(chapter: Chapter) -> list[int] | None:
        if (found := sources.whole(chapter.source, chapter.code)) is None:
            return None
        name, first_lit, last_lit, first, lines = found
        number, _ = code.setdefault((name, first), (len(code), lines))
        return [number, first_lit, last_lit]

    def plain(chapter: Chapter) -> dict[str, Any]:
        entry = asdict(chapter)
        del entry["code"]
        entry |= {"at": at(chapter), "inner": [plain(inner) for inner in chapter.inner]}
        return {name: part for name, part in entry.items() if part}

    chapters = [plain(chapter) for chapter in graph.chapters]
    pieces = [[name, first, lines] for (name, first), (_, lines) in code.items()]
    return {"chapters": chapters, "code": pieces}


def every(chapters: list[Chapter]) -> Iterator[Chapter]:
    """Yield chapters and those inside them, in the order they are told."""
    for chapter in chapters:
        yield chapter
        yield from every(chapter.inner)
