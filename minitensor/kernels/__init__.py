"""Compiled kernels on plain arrays, which know nothing of Tensor. Each file says what it computes.

`from ..kernels import softmax` does not import `kernels/softmax.py`, and with it Numba, until the
first use of something in it.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any


class _LazyModule:
    """A kernel file that is imported when one of its functions is asked for."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        found = getattr(importlib.import_module(self._name), name)
        setattr(self, name, found)  # later look-ups do not come here
        return found


if not TYPE_CHECKING:  # a type checker sees the files themselves

    def __getattr__(name: str) -> Any:
        path = f"{__name__}.{name}"
        if name.startswith("_") or importlib.util.find_spec(path) is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return _LazyModule(path)
