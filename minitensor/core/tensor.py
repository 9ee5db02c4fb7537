"""Tensor: an array that remembers the op that made it.

A Tensor wraps a NumPy array and adds the state of reverse-mode differentiation: a flag that it
requires a gradient, the node and output that it came from (its edge), the accumulated gradient, and
a version counter, shared by all tensors over one memory, which reveals an in-place change of a
saved tensor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..array import Array
from ..dtype import FLOATING
from ..registry import takes_methods

if TYPE_CHECKING:
    from ..attached import Attached  # the methods that are attached from outside
    from ..autograd.hooks import LeafHooks
    from ..autograd.views import ViewMeta
    from .node import Node
else:
    Attached = object

Edge = tuple["Node", int]  # a node and the number of one of its outputs


@takes_methods
class Tensor(Array, Attached):
    """An n-dimensional array with a gradient; made by `minitensor.tensor`, `zeros`, `randn`, ...

    The class body holds only what differentiation needs. The rest of the methods come from three
    places: `Array` has shape, strides and values; each op attaches its own methods and operators
    when its class is defined (`x.exp()`: in `minitensor.ops.pointwise`); and every other
    method or property is put here by a call of `core.attach`.
    """

    # Most tensors never change these, so they live on the class until they do.
    _array: np.ndarray
    _requires_grad: bool = False
    _grad: Tensor | None = None
    _edge: Edge | None = None  # None for a leaf
    _version_box: list[int] | None  # shared by tensors over one memory; None: an inference tensor
    _view: ViewMeta | None = None  # of a tensor that shows the memory of another, its base
    _relaid: bool = False  # True once `_array` was replaced by another layout or memory
    _unread: bool = False  # of a leaf's `grad` that `backward` made, until someone has it
    _hooks: LeafHooks | None = None  # of a leaf; other tensors have theirs on the node

    __hash__ = object.__hash__  # not by value, though `==` compares elements

    @property
    def requires_grad(self) -> bool:
        """True if ops on this tensor are recorded for the backward pass."""
        return self._requires_grad or (self._view is not None and self._view.base._requires_grad)

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Ask for gradients of a leaf, or stop; RuntimeError for a type that has none."""
        if requires_grad and self._array.dtype.kind not in FLOATING:
            raise RuntimeError(
                "only Tensors of floating point dtype can require gradients, "
                f"not {self._array.dtype}"
            )
        if not requires_grad and not self.is_leaf:
            raise RuntimeError(
                "you can only change requires_grad flags of leaf variables. "
                "If you want to use a computed variable in a subgraph that doesn't require "
                "differentiation use var_no_grad = var.detach()."
            )
        self._requires_grad = requires_grad
        return self

    @property
    def grad(self) -> Tensor | None:
        """The gradient that `backward` accumulated here; None until then. Same shape and dtype."""
        if self._grad is not None:
            self._grad._unread = False
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            if not isinstance(value, Tensor):
                raise TypeError(
                    f"assigned grad expected to be a Tensor or None but got {type(value)}"
                )
            a, b = value._array, self._array
            for what, new, own in (("size", a.shape, b.shape), ("type", a.dtype, b.dtype)):
                if new != own:
                    raise RuntimeError(
                        f"assigned grad has data of a different {what}: {new}, the tensor is {own}"
                    )
        self._grad = value

    def edge(self) -> Edge | None:
        """Return the node that made this tensor and the number of the output; None for a leaf.

        A view whose memory was changed in place since gets its history rebuilt from its base;
        RuntimeError if it is of a kind for which that is not possible.
        """
        if self._view is not None:
            self._view.refresh(self)
        return self._edge

    @property
    def is_leaf(self) -> bool:
        """True if no recorded op made this tensor: the user did, or it needs no gradient."""
        return not self.requires_grad or self.edge() is None

    @property
    def grad_fn(self) -> Node | None:
        """The node of the graph that made this tensor; None for a leaf."""
        edge = self.edge()
        return None if edge is None else edge[0]

    @property
    def _base(self) -> Tensor | None:
        """The tensor whose memory a view shows."""
        return None if self._view is None else self._view.base

    @property
    def _version(self) -> int:
        """The number of times the memory was changed in place."""
        if self._version_box is None:
            raise RuntimeError("Inference tensors do not track version counter.")
        return self._version_box[0]

    def _bump(self) -> None:
        """Count a change in place."""
        if self._version_box is not None:
            self._version_box[0] += 1

    def detach(self) -> Tensor:
        """Return the same memory without history; changes in place are still noticed here."""
        out = wrap(self._array)
        out._version_box = self._version_box
        return out


def wrap(array: np.ndarray, kind: type[Tensor] = Tensor) -> Any:
    """Return a leaf tensor over `array`, without a copy."""
    out = object.__new__(kind)
    out._array = array
    out._version_box = [0]
    out._requires_grad = False  # its own attributes are quicker to read than those of the class
    out._edge = out._view = None
    return out
