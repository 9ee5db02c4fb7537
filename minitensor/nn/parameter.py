"""Parameter and Buffer: the tensors that a module owns."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core import Tensor
from ..dtype import get_default_dtype


def _adopt(made: Tensor, data: Tensor | None) -> None:
    """Make `made` share the memory of `data`; without data it has no elements."""
    if data is None:
        made._array = np.empty(0, get_default_dtype())
    elif isinstance(data, Tensor):
        made._array = data._array
    else:
        raise TypeError(
            f"{type(made).__name__}: expected a Tensor, got {type(data).__name__}; "
            "make one with minitensor.tensor(...)"
        )
    made._version_box = [0]


class Parameter(Tensor):
    """A tensor that is learned: assigned to an attribute of a module, it becomes its parameter.

    - `data`: the tensor whose memory it shares.
    - `requires_grad`: as for any tensor (default True); it holds inside `no_grad` too.

    Raises TypeError if `data` is not a tensor.
    """

    def __init__(self, data: Tensor | None = None, requires_grad: bool = True) -> None:
        _adopt(self, data)
        self.requires_grad_(requires_grad)

    def __repr__(self) -> str:
        return "Parameter containing:\n" + super().__repr__()

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copied = super().__deepcopy__(memo)
        copied._grad = None  # PyTorch's copy has no gradient either
        return copied


class Buffer(Tensor):
    """A tensor that is not learned: assigned to an attribute of a module, it becomes its buffer.

    - `data`: the tensor whose memory it shares.
    - `persistent`: the buffer is part of the module's state dict (default True).

    Raises TypeError if `data` is not a tensor.
    """

    def __init__(self, data: Tensor | None = None, *, persistent: bool = True) -> None:
        _adopt(self, data)
        self.persistent = persistent
