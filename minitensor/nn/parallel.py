"""Models on several devices or processes: `DistributedDataParallel`, and PyTorch's DataParallel."""

from __future__ import annotations

from typing import Any

from ..distributed.parallel import DistributedDataParallel
from ..names import show
from .module import Module

__all__ = ["DataParallel", "DistributedDataParallel", "data_parallel"]


class DataParallel(Module):
    """Calls `module`, as PyTorch's does without GPUs; names of parameters begin with "module."."""

    def __init__(
        self, module: Module, device_ids: Any = None, output_device: Any = None, dim: int = 0
    ) -> None:
        super().__init__()
        self.module = module
        self.device_ids: list[int] = []

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """Return `module(*inputs, **kwargs)`."""
        return self.module(*inputs, **kwargs)


def data_parallel(module: Module, inputs: Any, *args: Any, **kwargs: Any) -> Any:
    """Return `module(*inputs)`."""
    return module(*inputs) if isinstance(inputs, tuple) else module(inputs)


show(__name__)
