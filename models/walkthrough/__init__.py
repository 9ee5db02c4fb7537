"""One training iteration of each model, step by step: the chapters that a page tells.

Each of `gpt`, `transformer`, `attention`, `bert` and `recurrent` has a function `walkthrough` that
returns a graph with chapters; `modules` makes the chapters of any other program.
"""

from __future__ import annotations

from minitensor.graph import Graph, write
from minitensor.graph.told import every
from minitensor.graph.values import fit
from minitensor.graph.view import View

LIMIT = 1 << 20  # bytes of the numbers on a page, before it is known how large it is
MOST = 2_000_000  # bytes of a page
SHOWN = 64  # times as many numbers are kept of a tensor that a chapter shows


def page(graph: Graph) -> bytes:
    """Return the page of a graph with chapters; large tensors are sampled so that it fits."""
    fit(graph, LIMIT)
    content = write.render(graph, "html", View("arch"))
    shown = {key for chapter in every(graph.chapters) for key in chapter.values}
    held = {key: value.data for key, value in graph.values.items() if value.data is not None}
    most = max((data.array.size for data in held.values()), default=0)
    while len(content) > MOST and most > 1:
        room = sum(data.array.nbytes for data in held.values()) - (len(content) - MOST) * 3 // 4
        sampled = held
        while most > 1 and sum(data.array.nbytes for data in sampled.values()) > room:
            most = most * 2 // 3
            sampled = {
                key: data.sampled(most * SHOWN if key in shown else most)
                for key, data in held.items()
            }
        held = sampled
        for key, data in held.items():
            graph.values[key].data = data
        fit(graph, LIMIT)
        content = write.render(graph, "html", View("arch"))
    return content
