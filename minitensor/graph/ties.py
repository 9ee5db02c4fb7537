"""Which axes must have one size: those that an op adds, multiplies or contracts with each other.

Only what an op demands ties two axes, never that their sizes happen to be equal. An op that is not
known here ties nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator

import numpy as np

from ..core import OPS
from .model import Graph, Node, Value

# The axes of what an op reads, by its own names, and of what it makes; * stands for any that lead.
_CONTRACTED: dict[str, tuple[dict[str, str], str]] = {
    "linear": ({"x": "*i", "w": "oi", "b": "o"}, "*o"),
    "linear_activation": ({"x": "*i", "w": "oi", "b": "o"}, "*o"),
    "matmul": ({"a": "*mk", "b": "*kn"}, "*mn"),
    "addmm": ({"x": "*mn", "a": "mk", "b": "kn"}, "mn"),
    "baddbmm": ({"x": "*mn", "a": "*mk", "b": "*kn"}, "*mn"),
    "embedding": ({"input": "*", "weight": "ve"}, "*e"),
    "embedding_positions": ({"input": "*l", "weight": "ve", "positions": "le"}, "*le"),
    "scaled_dot_product_attention": ({"q": "*le", "k": "*se", "v": "*sv", "mask": "*ls"}, "*lv"),
    "packed_attention": ({"qkv": "nlp", "kv": "nsq"}, "nle"),
    "in_projection_packed": ({"query": "*li", "memory": "*si", "w": "oi", "b": "o"}, "*lp *sq"),
    "cross_entropy": ({"x": "nc", "target": "n"}, ""),
}
# Ops that move axes, or whose results have other sizes: equal sizes mean nothing there.
_SAME_ENDS = ("reshape", "view", "squeeze", "unsqueeze", "expand")
_REDUCTIONS = "sum mean amax amin logsumexp any all count_nonzero var std norm max min prod"
_MOVES = """transpose permute getitem getitem_backward index index_backward index_put index_select
    gather scatter scatter_add cat stack split_with_sizes unbind repeat diagonal diagonal_backward
    unfold fold constant_pad_nd argmax argmin sort topk median median_of_all bincount"""
_NOT_BY_PLACE = {*_CONTRACTED, *_SAME_ENDS, *_REDUCTIONS.split(), *_MOVES.split()}

Axis = tuple[str, int]  # of a value, by its id


class Ties:
    """Sets of axes, and of anything else that is joined to them."""

    def __init__(self, graph: Graph) -> None:
        self._parents: dict[Hashable, Hashable] = {}
        self._graph = graph
        known = {op.op_name for op in OPS.values()}
        for node in graph.nodes.values():
            if node.op in known and node.of is None:  # not the backward of an op as a whole
                for a, b in self._pairs(node):
                    if self._size(a) == self._size(b) > 1:
                        self.join(a, b)

        for value in graph.values.values():  # a gradient has the axes of what it is of
            of = graph.values.get(value.of or "")
            if of is not None and of.shape == value.shape:
                for axis in range(len(value.shape)):
                    self.join((value.id, axis), (of.id, axis))

    def find(self, x: Hashable) -> Hashable:
        """The representative of the set that `x` is in."""
        while (parent := self._parents.get(x, x)) != x:
            self._parents[x] = self._parents.get(parent, parent)
            x = parent
        return x

    def join(self, a: Hashable, b: Hashable) -> None:
        """Make the sets of `a` and `b` one."""
        self._parents[self.find(a)] = self.find(b)

    def _size(self, axis: Axis) -> int:
        return self._graph.values[axis[0]].shape[axis[1]]

    def _pairs(self, node: Node) -> Iterator[tuple[Axis, Axis]]:
        """Pairs of axes that an op ties."""
        inputs, outputs = (
            [self._graph.values[v] for v in vs] for vs in (node.inputs, node.outputs)
        )
        if not inputs or not outputs:
            return
        first, out = inputs[0], outputs[0]
        if node.op in _CONTRACTED:
            yield from _contracted(node, inputs, outputs)
        elif node.op in ("cat", "stack", "split_with_sizes", "unbind"):
            several, one = (inputs, out) if node.op in ("cat", "stack") else (outputs, first)
            dim = node.attributes.get("dim", 0) % len(one.shape)
            for part, axis in itertools.product(several, range(len(one.shape))):
                if axis != dim:
                    lost = len(part.shape) < len(one.shape) and axis > dim
                    yield (one.id, axis), (part.id, axis - lost)
        elif node.op in _SAME_ENDS:
            yield from _same_ends(node.op, first, out)
        elif node.op in _NOT_BY_PLACE:
            for axis, source in enumerate(_sources(node, first)):
                if source is not None and axis < len(out.shape):
                    yield (out.id, axis), (first.id, source)
        elif _broadcast(inputs) == out.shape:
            for value, axis in ((v, a) for v in inputs for a in range(-len(v.shape), 0)):
                yield (value.id, axis % len(value.shape)), (out.id, axis % len(out.shape))


def _broadcast(values: list[Value]) -> tuple[int, ...] | None:
    try:
        return np.broadcast_shapes(*(value.shape for value in values))
    except ValueError:
        return None


def _contracted(
    node: Node, inputs: list[Value], outputs: list[Value]
) -> Iterator[tuple[Axis, Axis]]:
    """The axes that have one letter in what is written of an op."""
    read, made = _CONTRACTED[node.op]
    named: dict[str, Axis] = {}
    written = [read.get(name, "") for name in node.input_names] + made.split()
    for letters, value in zip(written, [*inputs, *outputs], strict=False):
        fixed = letters.removeprefix("*")
        lead = len(value.shape) - len(fixed)
        if not letters or lead < 0 or (lead and letters == fixed):
            continue
        names = [*map(str, range(-lead, 0)), *fixed]
        for axis, name in enumerate(names):
            if value.shape[axis] > 1:
                yield (
                    named.setdefault(f"{name}{value.shape[axis]}", (value.id, axis)),
                    (value.id, axis),
                )


def _same_ends(node_op: str, first: Value, out: Value) -> Iterator[tuple[Axis, Axis]]:
    """The axes before and after those that an op splits, merges, adds or takes away."""
    shapes = first.shape, out.shape
    shorter = min(map(len, shapes))
    before = next((i for i in range(shorter) if shapes[0][i] != shapes[1][i]), shorter)
    if node_op == "expand":  # it adds axes in front
        before = 0
    rest = shorter - before
    after = next((i for i in range(rest) if shapes[0][-1 - i] != shapes[1][-1 - i]), rest)
    for axis in range(before):
        yield (first.id, axis), (out.id, axis)
    for axis in range(1, after + 1):
        yield (first.id, len(shapes[0]) - axis), (out.id, len(shapes[1]) - axis)


def _sources(node: Node, first: Value) -> list[int | None]:
    """For each axis of the output, the axis of the first input that it is."""
    count, known = len(first.shape), node.attributes
    order: list[int | None] = list(range(count))
    if node.op == "transpose":
        a, b = known["dim0"] % count, known["dim1"] % count
        order[a], order[b] = order[b], order[a]
    elif node.op == "permute":
        order = [dim % count for dim in known["dims"]]
    elif node.op in _REDUCTIONS.split():
        over = known.get("axes", known.get("dim"))
        axes = {dim % count for dim in ([over] if isinstance(over, int) else over or ())}
        kept = known.get("keepdim")
        order = [None if i in axes else i for i in range(count) if kept or i not in axes]
    elif node.op == "getitem":
        left, order = iter(range(count)), []
        for item in known.get("key", ()):
            if item == "None":
                order.append(None)
            elif isinstance(item, str):
                source = next(left)
                order.append(source if item == ":" else None)
            else:
                next(left)
        order += left
    else:
        order = []
    return order


def used_inputs(graph: Graph) -> set[str]:
    """The inputs from which an output, or a gradient, is reached."""
    wanted = set(graph.outputs)
    for node in reversed(graph.nodes.values()):
        if node.direction == "backward" or not wanted.isdisjoint(node.outputs):
            wanted.update(node.inputs)
    return wanted
