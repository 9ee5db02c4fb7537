"""Compiled kernels on plain arrays, which know nothing of Tensor; each opens with what it does.

`from ..kernels import name` imports the kernel file when it is first used, and Numba with it.
"""

from __future__ import annotations

import importlib
from typing import Any


class _Later:
    """A module that is imported when something in it is asked for."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        found = getattr(importlib.import_module(f".{self._name}", __name__), name)
        setattr(self, name, found)  # the next time it is found without this
        return found


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _Later(name)
