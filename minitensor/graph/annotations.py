"""A person's own numbers and texts for boxes, ops and tensors: an overlay, and lines of text."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping

from .model import Graph
from .overlays import OVERLAYS


def annotate(graph: Graph, notes: Mapping[str, float | str], name: str) -> None:
    """Note a number or a text for modules, ops and tensors of a graph, by path or id.

    Numbers become the overlay `name`; texts are written in the boxes. What is there already under
    the name is kept, unless it is given again. ValueError for a name that an overlay has, for a
    path or id that is not there, and for what is neither a finite number nor a text.
    """
    if not name or name in OVERLAYS:
        raise ValueError(f"annotate: give the notes a name of their own, not {name!r}")
    known = {group.path: key for key, group in reversed(graph.groups.items())}
    for table in (graph.groups, graph.nodes, graph.values):
        known |= {key: key for key in table}
    kept: dict[str, float | str] = {}
    for place, note in notes.items():
        if place not in known:
            near = difflib.get_close_matches(place, known, 3, 0.4)
            hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise ValueError(f"annotate: no module, op or tensor is called {place!r}{hint}")
        if not isinstance(note, str):
            note = _number(place, note)
        kept[known[place]] = note
    graph.annotations.setdefault(name, {}).update(kept)


def _number(place: str, note: object) -> float:
    """A plain number, which JSON can keep, of a number or a tensor or array with one."""
    item = getattr(note, "item", None)
    number = item() if callable(item) else note
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        raise ValueError(f"annotate: {place!r} has {note!r}; give a finite number or a text")
    return number


def texts(graph: Graph, keys: Iterable[str]) -> list[str]:
    """Return the texts that were noted for something, or all that a box stands for, in lines."""
    keys = list(keys)
    found = []
    for name, notes in graph.annotations.items():
        given = {key: note for key in keys if isinstance(note := notes.get(key), str)}
        if len(set(given.values())) == 1 and len(given) == len(keys):
            found.append(f"{name}: {next(iter(given.values()))}")
        else:
            found += [f"{name} of {key}: {note}" for key, note in given.items()]
    return found
