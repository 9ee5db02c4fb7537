"""`torch.nn.parallel`: models on several devices, of which there are none."""

from __future__ import annotations

from typing import Any

from ..names import show
from ..nn import Module
from .distributed import NO_GROUP

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


class DistributedDataParallel(Module):
    """A model of a group of processes. Raises ValueError, as there is no group."""

    def __init__(self, module: Module, *args: Any, **kwargs: Any) -> None:
        raise ValueError(NO_GROUP)


def data_parallel(module: Module, inputs: Any, *args: Any, **kwargs: Any) -> Any:
    """Return `module(*inputs)`."""
    return module(*inputs) if isinstance(inputs, tuple) else module(inputs)


show(__name__)
