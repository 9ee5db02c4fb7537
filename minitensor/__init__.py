"""minitensor: a transformer you can read, see and really train.

The names are PyTorch's: `minitensor.tensor`, `minitensor.nn`, `minitensor.optim`,
`minitensor.autograd`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import autograd, ops  # noqa: F401
from .autograd import (
    SPACES,
)
from .tensor import Size, Tensor  # noqa: F401

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...


globals().update(SPACES["torch"])
