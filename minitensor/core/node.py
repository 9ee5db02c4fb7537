"""Node: one run of an op, as the backward pass sees it.

A node holds what the derivative of this run needs: the saved tensors, and for each input an edge
to the node that made it. Tensors point at nodes and nodes at earlier nodes, never the other way,
so reference counts free a graph as soon as its last tensor is gone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from .saved import FREED, NOTHING, SavedTensors
from .tensor import Tensor, wrap

clock = itertools.count()  # gives the sequence numbers


class Node:
    """One run of an op: a node of the graph.

    Ops are nodes (`core.op.Op`), so are the user's own (`autograd.Function`) and changes through a
    view (`autograd.inplace.ViewScatter`). Each says in `gradients` how it is differentiated.
    """

    op_name: ClassVar[str] = ""
    broadcasts: ClassVar[bool] = False  # gradients are summed to the shapes of the inputs
    fresh: ClassVar[bool] = False  # the backward rule returns arrays that nothing else refers to
    adds: ClassVar[bool] = False  # it adds gradients to the arrays in `sums`, and returns those
    saves: ClassVar[tuple[str, ...]] = ()  # names of the saved values, for those made by the rule
    materialize: bool = True  # `gradients` gets zeros, not None, for an unused output

    # For each argument of the run: (node, number of its output) or, for a leaf, the tensor itself;
    # None if no gradient goes there.
    edges: Sequence[Any] = ()
    sequence_nr: int = 0  # higher than that of every node this one depends on
    output_meta: Sequence[tuple[tuple[int, ...], Any]] = ()  # shape and dtype of each output
    seconds: float = 0.0  # the time of its last rule, measured for observers
    sums: Mapping[int, np.ndarray] = {}  # for the rule, by argument; see `backward`
    hooks: Callable[[list[Tensor | None]], None] | None = None  # may replace output gradients
    _saved: Any = NOTHING  # SavedTensors; while the forward rule runs, a tuple
    _inputs: SavedTensors | None = None  # of a fused op: its arguments

    def gradients(self, grads: list[Tensor | None]) -> tuple[Any, ...]:
        """Return the gradient of each input, or None, given that of each output.

        The tensors in `grads` are borrowed: they may be returned, but not written in.
        """
        raise NotImplementedError

    def name(self) -> str:
        """Return PyTorch's name of the node, such as "SoftmaxBackward0"."""
        return f"{type(self).__name__}Backward0"

    def __repr__(self) -> str:
        return f"<{self.name()}>"

    @property
    def recorded(self) -> bool:
        """True if the run is part of a graph."""
        return bool(self.output_meta)

    @property
    def needs_input_grad(self) -> tuple[bool, ...]:
        """For each positional argument, True if its gradient is wanted; known in `forward`."""
        return tuple([edge is not None for edge in self.edges])

    def free(self) -> None:
        """Free the saved tensors, after the backward pass has visited this node.

        A node that saved only settings can be visited again, as in PyTorch.
        """
        if self._saved is not NOTHING and self._saved.operands():
            self._saved = FREED
        self._inputs = None

    def _unpack(self) -> SavedTensors:
        """Return the saved tensors; RuntimeError if they were freed or changed in place."""
        saved: SavedTensors = self._saved.unpack()
        if saved is FREED:
            raise RuntimeError(
                f"Trying to backward through the graph a second time (or directly access saved "
                f"tensors after they have already been freed): the backward pass has visited "
                f"{self.name()} already. Specify retain_graph=True if you need to backward through "
                "the graph a second time."
            )
        saved.check(self)
        return saved

    def _materialized(self, grads: list[Tensor | None]) -> list[Tensor | None]:
        """Return `grads` with zeros for those that are None."""
        return [
            wrap(np.zeros(*meta)) if g is None and meta[1] is not None else g
            for g, meta in zip(grads, self.output_meta, strict=True)
        ]


def edge_for(t: Tensor) -> Any:
    """Return where the gradient of `t` goes: an edge, the leaf itself, or None for nowhere."""
    if t._view is None:
        return (t._edge or t) if t._requires_grad else None
    if not t.requires_grad:
        return None
    edge = t.edge()
    if edge is None and not t._requires_grad:
        # A view made under no_grad requires grad as its base does, but its gradient goes nowhere.
        return t.detach()
    return t if edge is None else edge
