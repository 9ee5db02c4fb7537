"""Names of `torch.autograd` beyond `minitensor.autograd`: `Variable`, `set_detect_anomaly`."""

from __future__ import annotations

from typing import Any

from ..autograd import detect_anomaly
from ..core import Tensor
from ..names import show

__all__ = ["Variable", "set_detect_anomaly"]


class _IsTensor(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, Tensor)


class Variable(metaclass=_IsTensor):
    """A tensor by its old name: `Variable(data)` is one on the same memory, without history."""

    def __new__(cls, data: Any = None, requires_grad: bool = False, volatile: bool = False) -> Any:
        """Return `data` detached, requiring a gradient if asked to."""
        made = data.detach()
        return made.requires_grad_() if requires_grad else made


class set_detect_anomaly:  # PyTorch's name
    """Look for NaN from now on or no longer; as a block, until its end."""

    _running: list[Any] = []

    def __init__(self, mode: bool, check_nan: bool = True) -> None:
        self.before = bool(self._running)
        self._set(mode)

    def _set(self, mode: bool) -> None:
        if mode and not self._running:
            block = detect_anomaly()
            block.__enter__()
            self._running.append(block)
        elif not mode and self._running:
            self._running.pop().__exit__(None, None, None)

    def __enter__(self) -> None:
        return None

    def __exit__(self, *args: object) -> None:
        self._set(self.before)


show(__name__)
