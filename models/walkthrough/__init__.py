"""One training iteration of each model, step by step: the chapters that a page tells.

Each of `gpt`, `transformer`, `attention`, `bert` and `recurrent` has a function `walkthrough` that
returns a graph with chapters; `modules` makes the chapters of any other program.
"""

from __future__ import annotations

from minitensor.graph import Graph, write
from minitensor.graph.told import every
from minitensor.graph.view import View

MOST = 2_000_000  # bytes of a page
FIRST, LEAST = (
    1 << 13,
    1 << 5,
)  # numbers of a tensor, from which it is sampled if a page is too large
SHOWN = 64  # times as many are kept of a tensor that a chapter shows


def page(graph: Graph) -> bytes:
    """Return the page of a graph with chapters; large tensors are sampled so that it fits."""
    content = write.render(graph, "html", View("arch"))
    shown = {key for chapter in every(graph.chapters) for key in chapter.values}
    most = FIRST
    while len(content) > MOST and most >= LEAST:
        for key, value in graph.values.items():
            if value.data is not None:
                value.data = value.data.sampled(most * SHOWN if key in shown else most)
        content = write.render(graph, "html", View("arch"))
        most //= 4
    return content
