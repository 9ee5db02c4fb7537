"""Op families, which determine a box's colour and border."""

from __future__ import annotations

from ..core import OPS, Op
from .model import ASSIGNING, RETURNED, Graph
from .scene import Box

# Of each kind, the families: each is named by the file that its ops live in.
FAMILIES = {
    "product": "matmul linear attention recurrent einsum conv",
    "norm": "norm",
    "reduction": "moments reduce scan order bins pool resample interpolate",
    "activation": "activation softmax",
    "elementwise": "arithmetic chain elementwise pointwise select compare convert residual rotary",
    "random": "dropout",
    "lookup": "embedding",
    # op has those of views
    "shape": "op views shape move join repeat index gather scatter assign fold",
    "loss": "loss cross_entropy linear_cross_entropy distance",
}
KINDS = {family: kind for kind, families in FAMILIES.items() for family in families.split()}
EXCEPTIONS = {"dropout_add_layer_norm": "norm"}
OTHER = "other"  # an op of the user's own


def _bare(name: str) -> str:
    return name.replace("_", "").lower()


_OPS = {_bare(name): op for name, op in OPS.items()}


def op_named(name: str) -> type[Op] | None:
    """Return the op of a name, None for one that is not registered."""
    return _OPS.get(_bare(name))


def same_name(one: str, other: str) -> bool:
    """Return True for two names of one op: LayerNorm is layer_norm."""
    return _bare(one) == _bare(other)


def family(op: type[Op]) -> str:
    """Return the kind of an op, by the file it lives in unless it is an exception there."""
    return EXCEPTIONS.get(op.op_name) or KINDS.get(op.__module__.rpartition(".")[2], OTHER)


def kind(box: Box, graph: Graph) -> str:
    """Return the look of a box, a key of LOOKS."""
    public = op_named(graph.calls[box.call].name) if box.call else None
    if public is not None and box.kind in ("op", "run"):
        return family(public)
    if box.call and graph.calls[box.call].name in ASSIGNING:
        return "shape"
    if box.kind != "op":
        return box.kind
    if box.node is not None and graph.nodes[box.node].direction == "update":
        return "update"
    if box.node is not None and graph.nodes[box.node].op == RETURNED:
        return "shape"
    op = op_named(graph.nodes[box.node].op if box.node else box.label)
    return OTHER if op is None else family(op)


def fused(box: Box, graph: Graph) -> bool:
    """Return True for one kernel that does what takes several ops of PyTorch."""
    if box.node is None or box.kind != "op":
        return False
    op = op_named(graph.nodes[box.node].op)
    return op is not None and op.fused and op.torch_name is None and bool(op.namespaces)
