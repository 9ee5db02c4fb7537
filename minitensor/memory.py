"""Where results get their memory.

Every array that an op or a kernel returns is asked for here, so that one place decides how buffers
are found and reused.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def empty(shape: Any, dtype: Any) -> np.ndarray:
    """An uninitialised C-contiguous array."""
    return np.empty(shape, dtype)


def empty_like(x: np.ndarray) -> np.ndarray:
    """An uninitialised C-contiguous array of x's shape and type."""
    return np.empty(x.shape, x.dtype)


def zeros(shape: Any, dtype: Any) -> np.ndarray:
    """A C-contiguous array of zeros."""
    return np.zeros(shape, dtype)
