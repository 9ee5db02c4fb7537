"""The graph as a text: a tree of modules and ops, equal neighbours folded, with what each costs."""

from __future__ import annotations

from collections.abc import Iterator

from .model import Graph
from .numbers import number
from .scene import Box, Tree

_ENDS = ("input", "output")
_RIGHT = 2  # columns from here on are numbers


def summary(graph: Graph, tree: Tree, depth: int | None = None) -> str:
    """Return a table of what is in the graph: output shapes, parameters, FLOPs and bytes.

    A row that stands for several equal neighbours, "x6", shows the numbers of one of them. FLOPs
    are those of matrix products, activations what the ops make, saved what is kept for the backward
    pass (weights not counted). `depth` is how many levels of modules to open; None opens all.
    """
    root = tree.boxes[tree.root]
    made = _outputs(tree)
    order = {value: place for place, value in enumerate(graph.values)}
    rows = [["", "output", "parameters", "FLOPs forward", "FLOPs backward", "activations", "saved"]]
    for box, branch, name in _rows(graph, tree, depth):
        values = sorted(made.get(box.id, ()), key=order.__getitem__)
        values = [box.value] if box.kind in _ENDS else values
        shapes = " ".join(graph.values[v].label for v in values)
        rows.append([branch + name, shapes, *_numbers(box)])
    rows.append(["total", "", *_numbers(root)])
    kept = [i for i in range(len(rows[0])) if i < _RIGHT or any(row[i] for row in rows[1:])]
    widths = [max(len(row[i]) for row in rows) for i in kept]
    lines = [
        "  ".join(
            row[i].rjust(width) if i >= _RIGHT else row[i].ljust(width)
            for i, width in zip(kept, widths, strict=True)
        ).rstrip()
        for row in rows
    ]
    rule = "-" * max(map(len, lines))
    sizes = ", ".join(f"{name} = {size}" for name, size in graph.dims.items())
    head = f"{graph.name}: {sizes}" if sizes else graph.name
    return "\n".join([head, rule, lines[0], rule, *lines[1:-1], rule, lines[-1], *graph.notes])


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
        if inner is box or (inner.kind == "run" and inner.count == 1):
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
    if box.count == 1:
        return name
    return f"{name} x{box.count}" + (f" ({box.weights})" if box.weights else "")


def _numbers(box: Box) -> list[str]:
    """The columns of numbers; nothing for 0."""
    counts = (box.parameter_count, box.flops, box.backward_flops)
    sizes = (box.activation_bytes, box.saved_bytes)
    written = [*map(number, counts), *(number(size, "B") for size in sizes)]
    return [text if amount else "" for amount, text in zip(counts + sizes, written, strict=True)]


def _outputs(tree: Tree) -> dict[str, set[str]]:
    """The values that leave each box."""
    found: dict[str, set[str]] = {}
    for link in tree.links:
        if link.direction == "backward":
            continue
        reached = {link.target, *tree.ancestors(link.target)}
        for place in (link.source, *tree.ancestors(link.source)):
            if place not in reached:
                found.setdefault(place, set()).add(link.value)
    return found


def brief(graph: Graph, tree: Tree) -> str:
    """Return at most ten lines: sizes, inputs and outputs, ops, costs, and where to see more."""
    root = tree.boxes[tree.root]
    forward = [n for n in graph.nodes.values() if n.inside is None and n.direction == "forward"]
    backward = sum(n.inside is None and n.direction == "backward" for n in graph.nodes.values())
    sizes = ", ".join(f"{name}={size}" for name, size in graph.dims.items())
    counts = [f"{len(forward)} forward", f"{backward} backward" * bool(backward)]
    flops = [
        f"{number(amount, 'FLOP')} {way}"
        for amount, way in ((root.flops, "forward"), (root.backward_flops, "backward"))
        if amount
    ]
    memory = [
        f"{number(size, 'B')} {what}"
        for size, what in ((root.activation_bytes, "of activations"), (root.saved_bytes, "saved"))
        if size
    ]
    rows = {
        "sizes": sizes,
        "inputs": _ends_of(graph, graph.inputs),
        "outputs": _ends_of(graph, graph.outputs),
        "ops": ", ".join(filter(None, counts)),
        "parameters": number(root.parameter_count) if root.parameter_count else "",
        "products": ", ".join(flops),
        "memory": ", ".join(memory),
        "more": '.summary(), .save("graph.svg" or "graph.html"), .find("softmax"), .diff(g)',
    }
    lines = [f"  {title:<10}  {told}" for title, told in rows.items() if told]
    return "\n".join([f"Graph of {graph.name}", *lines])


def _ends_of(graph: Graph, keys: list[str], most: int = 4) -> str:
    values = [graph.values[key] for key in keys]
    shown = [f"{value.name} {value.label} {value.dtype}".strip() for value in values[:most]]
    return ", ".join([*shown, *[f"{len(values) - most} more"] * (len(values) > most)])
