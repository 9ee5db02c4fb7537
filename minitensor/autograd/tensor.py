"""Methods of Tensor that users of PyTorch expect and the backward pass does not need."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core import Tensor, attach, wrap
from ..dtype import is_dtype


def __array_wrap__(
    self: Tensor, array: np.ndarray, context: Any = None, return_scalar: bool = False
) -> Tensor:
    """Return what a NumPy function made of tensors as a tensor; truth values as uint8."""
    array = np.asarray(array)
    if not is_dtype(array.dtype):
        raise TypeError(f"a NumPy function made {array.dtype}, which no tensor has")
    return wrap(array.astype(np.uint8) if array.dtype.kind == "b" else array)


def __contains__(self: Tensor, element: Any) -> bool:
    """Return True if an element equals `element`, a number or a tensor that broadcasts."""
    if not isinstance(element, Tensor | int | float | np.number):
        raise RuntimeError(
            "Tensor.__contains__ only supports Tensor or scalar, but you passed in a "
            f"{type(element)}."
        )
    return bool((self == element).any())


def __reversed__(self: Tensor) -> Tensor:
    """Return the elements along the first dimension in reverse order."""
    return self.flip(0) if self.ndim else self


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


for _method in (
    __array_wrap__,
    __contains__,
    __deepcopy__,
    __reduce__,
    __reversed__,
    detach_,
    is_inference,
):
    attach("tensor", _method.__name__, _method)
attach("tensor", "data", property(_get_data, _set_data))
attach("tensor", "output_nr", property(_output_nr))
