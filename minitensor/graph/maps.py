"""Attention maps: the weights that a softmax gives to what a matrix product then sums up."""

from __future__ import annotations

from collections import defaultdict

from .model import RETURNED, Graph, Node
from .scene import Tree

PASSING = ("dropout", "masked_fill", "to", "contiguous", RETURNED)  # they leave a map what it is


def attention_maps(graph: Graph, tree: Tree) -> dict[str, str]:
    """Return the attention map of each box that makes one, if its numbers were kept.

    These are the op itself and the boxes around it, out to the first module.
    """
    readers: dict[str, list[Node]] = defaultdict(list)
    for node in graph.nodes.values():
        if node.direction == "forward":
            for key in node.inputs[:1]:
                readers[key].append(node)

    def weighs(key: str) -> bool:
        for node in readers[key]:
            if node.op in ("matmul", "einsum", "bmm"):
                return True
            if node.op in PASSING and weighs(node.outputs[0]):
                return True
        return False

    found: dict[str, str] = {}
    for box in tree.boxes.values():
        maker = graph.nodes[box.node] if box.node is not None else None
        if maker is None or maker.op != "softmax":
            continue
        value = graph.values[maker.outputs[0]]
        if value.data is None or len(value.shape) < 2 or not weighs(value.id):
            continue
        for key in (box.id, *tree.ancestors(box.id)):
            if key == tree.root:
                break
            found.setdefault(key, value.id)
            if tree.boxes[key].kind == "module":
                break
    return found
