"""Axes that must have one size because an op demands it, never because they happen to be equal.

The shapes in an op's docstring, such as "(*, E), (F, E), (F) -> (*, F)", say which axes are one.
Ops whose arguments say where the axes go, such as `transpose`, follow below; others tie nothing.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Hashable, Iterator

from ..core import OPS
from .describe import argument_names
from .kinds import family
from .model import Graph, Node, Value

Axis = tuple[str, int]  # of a value, by its id

_SHAPE = r"\([A-Z0-9*, ]*\)"
_SHAPES = re.compile(rf"({_SHAPE}(?:, {_SHAPE})*) -> ({_SHAPE}(?:, {_SHAPE})*)")
_BY_OP = {op.op_name: op for op in OPS.values()}


@functools.cache
def shapes_of(op: str) -> tuple[dict[str, list[str]], list[list[str]]] | None:
    """Return the axes of an op's arguments, by name, and results, as its docstring writes them."""
    kind = _BY_OP.get(op)
    found = _SHAPES.search(" ".join((kind.__doc__ or "").split())) if kind else None
    if kind is None or found is None or family(kind) == "reduction":
        return None
    read, made = (
        [re.findall(r"[^,() ]+", shape) for shape in re.findall(_SHAPE, side)]
        for side in found.groups()
    )
    return dict(zip(argument_names(kind.forward), read, strict=False)), made


def named_axes(node: Node, inputs: list[Value], outputs: list[Value]) -> dict[Axis, str] | None:
    """Return a letter for each axis that a node's op reads and makes; None if they do not fit.

    Leading axes fit if they broadcast: heads of keys that several heads of queries share do not.
    """
    shapes = shapes_of(node.op)
    if shapes is None:
        return None
    read, made = shapes
    named: dict[Axis, str] = {}
    leading_sizes: dict[str, int] = {}
    written = [read.get(name) for name in node.input_names]
    for letters, value in zip([*written, *made], [*inputs, *outputs], strict=False):
        if letters is None:
            continue
        if "*" in letters:  # its axes count from its end
            star = letters.index("*")
            leading = [f"*{i}" for i in range(len(letters) - 1 - len(value.shape), 0)]
            for letter, size in zip(leading, value.shape[star:], strict=False):
                if size != 1 and leading_sizes.setdefault(letter, size) != size:
                    return None
            letters = [*letters[:star], *leading, *letters[star + 1 :]]
        if len(letters) != len(value.shape):
            return None
        named.update(((value.id, axis), letter) for axis, letter in enumerate(letters))
    return named


class Ties:
    """Sets of axes, and of anything else that is joined to them."""

    def __init__(self, graph: Graph) -> None:
        self._parents: dict[Hashable, Hashable] = {}
        self.multiples: set[Axis] = set()  # that an op makes so many times as large, such as 3E
        values = graph.values
        for node in graph.nodes.values():
            if node.op in _BY_OP and node.of is None:  # not the backward of an op as a whole
                inputs, outputs = ([values[v] for v in vs] for vs in (node.inputs, node.outputs))
                letters = (named_axes(node, inputs, outputs) or {}).items()
                self.multiples.update(a for a, letter in letters if letter[0] in "23456789")
                for (v, a), (w, b) in _pairs(node, inputs, outputs) if inputs and outputs else ():
                    if values[v].shape[a] == values[w].shape[b] > 1:
                        self.join((v, a), (w, b))
        for value in values.values():  # a gradient has the axes of what it is of
            of = values.get(value.of or "")
            if of is not None and of.shape == value.shape:
                for axis in range(len(value.shape)):
                    self.join((value.id, axis), (of.id, axis))

    def find(self, x: Hashable) -> Hashable:
        """Return the representative of the set that `x` is in."""
        while (parent := self._parents.get(x, x)) != x:
            self._parents[x] = self._parents.get(parent, parent)
            x = parent
        return x

    def join(self, a: Hashable, b: Hashable) -> None:
        """Make the sets of `a` and `b` one."""
        self._parents[self.find(a)] = self.find(b)


def _pairs(node: Node, inputs: list[Value], outputs: list[Value]) -> Iterator[tuple[Axis, Axis]]:
    """Yield pairs of axes that are one."""
    first, out = inputs[0], outputs[0]
    if shapes_of(node.op) is not None:
        same: dict[tuple[str, int], Axis] = {}
        sizes = {v.id: v.shape for v in (*inputs, *outputs)}
        for (value, axis), letter in (named_axes(node, inputs, outputs) or {}).items():
            if not letter[0].isdigit():  # 3E is no axis of another tensor
                yield same.setdefault((letter, sizes[value][axis]), (value, axis)), (value, axis)
    elif node.op in ("cat", "stack", "split_with_sizes", "unbind"):
        several, one = (inputs, out) if node.op in ("cat", "stack") else (outputs, first)
        dim = node.attributes.get("dim", 0) % len(one.shape)
        for part, axis in itertools.product(several, range(len(one.shape))):
            if axis != dim:
                lost = len(part.shape) < len(one.shape) and axis > dim
                yield (one.id, axis), (part.id, axis - lost)
    elif node.op in ("reshape", "view", "squeeze", "unsqueeze", "expand"):
        # The axes before and after those that it splits, merges, adds or takes away.
        for step in (1, -1) if node.op != "expand" else (-1,):
            ends = zip(_from(first, step), _from(out, step), strict=False)
            yield from itertools.takewhile(
                lambda pair: first.shape[pair[0][1]] == out.shape[pair[1][1]], ends
            )
    else:
        for axis, source in enumerate(_sources(node, len(first.shape))):
            if source is not None and axis < len(out.shape):
                yield (out.id, axis), (first.id, source)


def _from(value: Value, step: int) -> list[Axis]:
    """Return the axes of a value from its first or its last on."""
    return [(value.id, axis) for axis in range(len(value.shape))][::step]


def _sources(node: Node, count: int) -> list[int | None]:
    """Return, for each axis of the output, the axis of the first input that it is."""
    known, order = node.attributes, list[int | None](range(count))
    over = known.get("axes", known.get("dim"))
    if node.op == "transpose":
        a, b = known["dim0"] % count, known["dim1"] % count
        order[a], order[b] = order[b], order[a]
        return order
    if node.op == "permute":
        return [dim % count for dim in known["dims"]]
    if node.op == "getitem":
        left, order = iter(range(count)), []
        for item in known.get("key", ()):
            source = None if item == "None" else next(left)
            if isinstance(item, str):  # an integer takes its axis away
                order.append(source if item == ":" else None)
        return [*order, *left]
    if over is not None and family(_BY_OP[node.op]) == "reduction":
        axes = {dim % count for dim in ([over] if isinstance(over, int) else over)}
        kept = known.get("keepdim")
        return [None if i in axes else i for i in order if kept or i not in axes]
    return []


def used_inputs(graph: Graph) -> set[str]:
    """Return the inputs from which an output, or a gradient, is reached."""
    wanted = set(graph.outputs)
    for node in reversed(graph.nodes.values()):
        if node.direction == "backward" or not wanted.isdisjoint(node.outputs):
            wanted.update(node.inputs)
    return wanted
