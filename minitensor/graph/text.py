"""The graph as a text: a tree of modules and ops, equal neighbours folded, with what each costs."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

from .model import Graph
from .numbers import number, products, span
from .scene import Box, Tree

_ENDS = ("input", "output", "source")
_RIGHT = 2  # columns from here on are numbers
WIDTH = 100  # characters of a line of words
NAME, SHAPES = 64, 40  # of a name and of shapes in the table, at most
PRODUCTS = "FLOPs are those of matrix products alone, 2 for a multiplication and an addition."
FOLDS = "A row xN has the numbers of one of the N, the total those of all."
TURNS = "Of two numbers in a row, the first is that of the first turn, the second of all others."


def summary(graph: Graph, tree: Tree, depth: int | None = None) -> str:
    """Return a table of what is in the graph: output shapes, parameters, FLOPs and bytes.

    A row that stands for several equal neighbours, "x6", shows the numbers of one of them. FLOPs
    are those of matrix products, activations what the ops make, saved what is kept for the backward
    pass (weights not counted). `depth` is how many levels of modules to open; None opens all. What
    is to be known of the numbers, and of axes without a name, stands below.
    """
    root = tree.boxes[tree.root]
    made = _outputs(tree)
    order = {value: place for place, value in enumerate(graph.values)}
    heads = ["", "output", "parameters", "FLOPs forward", "FLOPs backward", "activations", "saved"]
    rows = [heads]
    for box, branch, name in _rows(graph, tree, depth):
        values = sorted(made.get(box.id, ()), key=order.__getitem__)
        values = [box.value] if box.kind in _ENDS else values
        title = branch + name
        if len(title) > NAME:  # on a line of its own
            rows.append([title])
            title = ""
        rows.append([title, _shapes(graph.values[v].label for v in values), *_numbers(box)])
    rows.append(["total", "", *_numbers(root)])
    whole = [row for row in rows if len(row) > 1]
    kept = [i for i in range(len(heads)) if i < _RIGHT or any(row[i] for row in whole[1:])]
    widths = [max(len(row[i]) for row in whole) for i in kept]
    lines = [
        "  ".join(
            row[i].rjust(width) if i >= _RIGHT else row[i].ljust(width)
            for i, width in zip(kept[: len(row)], widths, strict=False)
        ).rstrip()
        for row in rows
    ]
    rule = "-" * max(map(len, lines))
    notes = [PRODUCTS] if root.flops or root.backward_flops else []
    notes += [FOLDS] if any(box.count > 1 for box in tree.boxes.values()) else []
    notes += [TURNS] if any("-" in text for row in rows for text in row[_RIGHT:]) else []
    told = [line for note in (*notes, *graph.notes) for line in _wrapped(note)]
    head = _wrapped(": ".join(filter(None, [graph.name, _sizes(graph)])))
    return "\n".join([*head, rule, lines[0], rule, *lines[1:-1], rule, lines[-1], rule, *told])


def _sizes(graph: Graph) -> str:
    return ", ".join(f"{name} = {size}" for name, size in graph.dims.items())


def _wrapped(text: str, indent: str = "  ") -> list[str]:
    """A text in lines, those after the first indented."""
    return textwrap.wrap(
        text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    ) or [""]


def _shapes(labels: Iterable[str]) -> str:
    """Shapes in a row, as many as there is room for: "(N, E) (N, E) and 4 more"."""
    row = list(labels)
    shown = len(row)
    while shown > 1 and len(" ".join(row[:shown])) > SHAPES:
        shown -= 1
    more = [f"and {len(row) - shown} more"] if shown < len(row) else []
    return " ".join([*row[:shown], *more])


def _rows(graph: Graph, tree: Tree, depth: int | None) -> Iterator[tuple[Box, str, str]]:
    """Each box with the branches left of it and its name, from top to bottom."""
    waiting = [(tree.boxes[tree.root], "", "", "", 0)]
    while waiting:
        box, lead, branch, base, level = waiting.pop()
        if level:
            yield box, lead + branch, _name(box, base)
        if not box.opens or (depth is not None and level >= depth):
            continue
        if box.id in graph.groups:
            base = graph.groups[box.id].path
        lead += {"": "", "├─ ": "│  ", "└─ ": "   "}[branch]
        children = _children(tree, box)
        for child in reversed(children):
            branch = ("└─ " if child is children[-1] else "├─ ") if level else ""
            waiting.append((child, lead, branch, base, level + 1))


def _children(tree: Tree, box: Box) -> list[Box]:
    """The boxes in a box; ops put together only to save room in pictures stand for themselves."""
    found, waiting = [], [box]
    while waiting:
        inner = waiting.pop()
        if inner is box or (inner.kind == "run" and inner.count == 1 and not inner.call):
            waiting.extend(tree.boxes[child] for child in reversed(inner.children))
        else:
            found.append(inner)
    return found


def _name(box: Box, base: str) -> str:
    """The path from the module around it and its kind: "layers.0-5: EncoderLayer x6"."""
    path = box.path.removeprefix(base).removeprefix(".") if base else box.path
    name = f"{path}: {box.label}" if path else box.label
    if box.kind in _ENDS:
        return name if name == box.kind else f"{name} ({box.kind})"
    if box.kind == "calls":
        shared = ", weights shared" if box.parameter_count else ""
        return f"{name} ({len(box.children)} calls{shared})"
    if box.count == 1:
        return name
    turns = "turns, " if box.carried else ""
    return f"{name} x{box.count}" + (f" ({turns}{box.weights})" if box.weights else "")


def _numbers(box: Box) -> list[str]:
    """The columns of numbers; nothing for 0."""
    backward, saved = box.least
    columns = [
        (box.parameter_count, box.parameter_count, ""),
        (box.flops, box.flops, ""),
        (backward, box.backward_flops, ""),
        (box.activation_bytes, box.activation_bytes, "B"),
        (saved, box.saved_bytes, "B"),
    ]
    return [span(low, high, unit) if high else "" for low, high, unit in columns]


def _outputs(tree: Tree) -> dict[str, set[str]]:
    """The values that the forward pass of each box puts out."""
    found: dict[str, set[str]] = {}
    for link in tree.links:
        if link.direction in ("backward", "onward"):
            continue
        reached = {link.target, *tree.ancestors(link.target)}
        for place in (link.source, *tree.ancestors(link.source)):
            if place not in reached:
                found.setdefault(place, set()).add(link.value)
    return found


def brief(graph: Graph, tree: Tree) -> str:
    """Return a few lines: sizes, inputs and outputs, ops, costs, and where to see more."""
    root = tree.boxes[tree.root]
    forward = [n for n in graph.nodes.values() if n.inside is None and n.direction == "forward"]
    backward = sum(n.inside is None and n.direction == "backward" for n in graph.nodes.values())
    counts = [f"{len(forward)} forward", f"{backward} backward" * bool(backward)]
    memory = [
        f"{number(size, 'B')} {what}"
        for size, what in ((root.activation_bytes, "of activations"), (root.saved_bytes, "saved"))
        if size
    ]
    rows = {
        "sizes": _sizes(graph),
        "inputs": _ends_of(graph, graph.inputs),
        "outputs": _ends_of(graph, graph.outputs),
        "ops": ", ".join(filter(None, counts)),
        "parameters": number(root.parameter_count) if root.parameter_count else "",
        "matrix products": products(root.flops, root.backward_flops).partition(": ")[2],
        "memory": ", ".join(memory),
        "more": '.summary(), .save("graph.svg" or "graph.html"), .find("softmax"), .diff(g)',
    }
    lines = [
        line
        for title, told in rows.items()
        if told
        for line in _wrapped(f"  {title:<15}  {told}", " " * 19)
    ]
    return "\n".join([f"Graph of {graph.name}", *lines])


def _ends_of(graph: Graph, keys: list[str], most: int = 4) -> str:
    values = [graph.values[key] for key in keys]
    shown = [f"{value.name} {value.label} {value.dtype}".strip() for value in values[:most]]
    return ", ".join([*shown, *[f"{len(values) - most} more"] * (len(values) > most)])
