"""What kind of op a box is, by which its colour and border go."""

from __future__ import annotations

from ..core import OPS
from .model import Graph
from .scene import Box

# The file an op lives in names its family.
KINDS = {
    "matmul": "product",
    "linear": "product",
    "attention": "product",
    "einsum": "product",
    "norm": "norm",
    "moments": "reduction",
    "reduce": "reduction",
    "scan": "reduction",
    "order": "reduction",
    "activation": "activation",
    "softmax": "activation",
    "arithmetic": "elementwise",
    "pointwise": "elementwise",
    "select": "elementwise",
    "compare": "elementwise",
    "convert": "elementwise",
    "residual": "elementwise",
    "dropout": "random",
    "embedding": "lookup",
    "shape": "shape",
    "move": "shape",
    "join": "shape",
    "repeat": "shape",
    "index": "shape",
    "gather": "shape",
    "assign": "shape",
    "loss": "loss",
    "cross_entropy": "loss",
}


def _bare(name: str) -> str:
    return name.replace("_", "").lower()


_OPS = {_bare(name): op for name, op in OPS.items()}


def same_name(one: str, other: str) -> bool:
    """Whether two names are one op: LayerNorm is layer_norm."""
    return _bare(one) == _bare(other)


def kind(box: Box, graph: Graph) -> str:
    """Which of LOOKS a box has."""
    if box.kind != "op":
        return box.kind
    name = graph.nodes[box.node].op if box.node else box.label
    op = _OPS.get(_bare(name))
    if op is None:
        return "other"
    if "norm" in name:
        return "norm"
    return KINDS.get(op.__module__.rpartition(".")[2], "other")


def fused(box: Box, graph: Graph) -> bool:
    """Whether a box is one op that does the work of several."""
    if box.node is None or box.kind != "op":
        return False
    op = _OPS.get(_bare(graph.nodes[box.node].op))
    return op is not None and op.decomposition is not None
