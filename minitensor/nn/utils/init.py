"""Build a module without drawing initial values."""

from __future__ import annotations

from typing import Any, TypeVar

from ..init import skipping
from ..module import Module

M = TypeVar("M", bound=Module)


def skip_init(module_cls: type[M], *args: Any, **kwargs: Any) -> M:
    """Build `module_cls(*args, **kwargs)` whose random weights are left uninitialised.

    Use it where a state dict is loaded next: drawing millions of numbers takes seconds. Unlike in
    PyTorch the class needs no parameter `device`. Raises RuntimeError if it is not a module.
    """
    if not (isinstance(module_cls, type) and issubclass(module_cls, Module)):
        raise RuntimeError(f"Expected a Module; got {module_cls}")
    with skipping():
        return module_cls(*args, **kwargs)
