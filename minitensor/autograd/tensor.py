"""Methods of Tensor that users of PyTorch expect and the backward pass does not need."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core import Node, Tensor, attach, wrap
from ..dtype import get_default_dtype


def __init__(self: Tensor, *data: Any) -> None:
    """`Tensor(2, 3)`: uninitialised float32 of that shape; `Tensor([1, 2])`: those values."""
    if len(data) == 1 and not isinstance(data[0], int):
        source = data[0]._array if isinstance(data[0], Tensor) else data[0]
        self._array = np.array(source, dtype=get_default_dtype())
    else:
        self._array = np.empty(data or (0,), get_default_dtype())
    self._version_box = [0]


def _get_data(self: Tensor) -> Tensor:
    """The same memory without history, and with a version counter of its own."""
    return wrap(self._array)


def _set_data(self: Tensor, value: Tensor) -> None:
    self._array = value._array
    self._relaid = True


def is_inference(self: Tensor) -> bool:
    """Return True for a tensor of `inference_mode`, which can never be part of a graph."""
    return self._version_box is None


def _output_nr(self: Tensor) -> int:
    """The number of this tensor among the outputs of `grad_fn`."""
    edge = self.edge()
    return 0 if edge is None else edge[1]


def detach_(self: Tensor) -> Tensor:
    """Drop this tensor's history: it becomes a leaf that needs no gradient."""
    if self._view is not None:
        raise RuntimeError("Can't detach views in-place. Use detach() instead.")
    self._edge = None
    self._requires_grad = False
    return self


def __deepcopy__(self: Tensor, memo: dict[int, Any]) -> Tensor:
    if not self.is_leaf:
        raise RuntimeError(
            "Only Tensors created explicitly by the user (graph leaves) support the deepcopy "
            "protocol at the moment; use x.detach().clone() for a copy of a computed tensor."
        )
    if id(self) in memo:
        return memo[id(self)]
    out = wrap(self._array.copy(), type(self))
    out._requires_grad = self.requires_grad
    if self._grad is not None:
        out._grad = wrap(self._grad._array.copy())
    memo[id(self)] = out
    return out


def __reduce__(self: Tensor) -> Any:
    return (_rebuild, (type(self), self._array, self._requires_grad))


def _rebuild(kind: type[Tensor], array: np.ndarray, requires_grad: bool) -> Tensor:
    out = wrap(array, kind)
    out._requires_grad = requires_grad
    return out


for _method in (__init__, is_inference, detach_, __deepcopy__, __reduce__):
    attach("tensor", _method.__name__, _method)
attach("tensor", "data", property(_get_data, _set_data))
attach("tensor", "output_nr", property(_output_nr))


# PyTorch's attributes of a `grad_fn`


class AccumulateGrad:
    """Stands for a leaf in `next_functions`, as in PyTorch."""

    def __init__(self, variable: Tensor) -> None:
        self.variable = variable

    def name(self) -> str:
        """Return PyTorch's name of it."""
        return "AccumulateGrad"

    def __repr__(self) -> str:
        return "<AccumulateGrad>"


def _next_functions(self: Node) -> tuple[tuple[Any, int], ...]:
    """Return the nodes that the gradient goes to, each with the number of its output."""
    return tuple(
        (AccumulateGrad(e), 0) if isinstance(e, Tensor) else (None, 0) if e is None else e
        for e in self.edges
    )


Node.next_functions = property(_next_functions)  # type: ignore[attr-defined]
