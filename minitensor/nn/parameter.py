"""Parameter and Buffer: the tensors that a module owns."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core import Tensor
from ..dtype import get_default_dtype


def _adopt(made: Tensor, data: Tensor | None) -> None:
    """Let `made` show the memory of `data`; of no elements if there is none."""
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
    """A tensor that a module registers as its own when assigned to one of its attributes.

    Shares the memory of `data`, and requires grad also when made inside `no_grad`.
    """

    def __init__(self, data: Tensor | None = None, requires_grad: bool = True) -> None:
        _adopt(self, data)
        self.requires_grad_(requires_grad)

    def __repr__(self) -> str:
        return "Parameter containing:\n" + super().__repr__()

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copied = super().__deepcopy__(memo)
        copied._grad = None  # the copy starts afresh, as PyTorch's does
        return copied


class Buffer(Tensor):
    """A tensor that a module registers as a buffer when assigned to one of its attributes.

    `persistent` says whether it belongs to the module's state dict. Shares the memory of `data`.
    """

    def __init__(self, data: Tensor | None = None, *, persistent: bool = True) -> None:
        _adopt(self, data)
        self.persistent = persistent
