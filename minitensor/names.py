"""The names that a module shows: those of `dir` and <tab>, and the nearest to a misspelt one."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import MappingProxyType
from typing import Any

_NO_OPS: Mapping[str, Any] = MappingProxyType({})
_BEYOND: list[str] = []
_library = "minitensor"


def call_library(name: str) -> None:
    """Print types under this name: "torch", while code that was written for PyTorch runs."""
    global _library
    _library = name


def spelt(name: str) -> str:
    """Return a name as it is printed: "minitensor.Size"."""
    return f"{_library}.{name}"


def prints_as_pytorch() -> bool:
    """Return True while types are printed under PyTorch's name."""
    return _library != "minitensor"


def look_beyond(module: str) -> None:
    """Ask another module for names that a module lacks; it is imported when first asked.

    It has two functions: `find(module, name)` returns what it has of that name or None, and
    `listed(module)` the names it has.
    """
    _BEYOND.append(module)


def show(module: str, names: Sequence[str] | None = None, ops: Mapping[str, Any] = _NO_OPS) -> None:
    """Limit `dir` of a module to `names` and `ops`, and suggest the nearest to a misspelt name.

    Without `names`, they are its `__all__`, or the public names that it defines itself. `ops` are
    those of a namespace, also later ones (`core.publish`). A name of `names` that the module does
    not have yet is its submodule, imported when first asked for.
    """
    namespace = vars(sys.modules[module])
    if names is None:
        own = [n for n, v in namespace.items() if getattr(v, "__module__", None) == module]
        names = namespace.get("__all__", [n for n in own if not n.startswith("_")])

    def shown() -> list[str]:
        beyond = (import_module(other).listed(module) for other in _BEYOND)
        return sorted({*names, *ops}.union(*beyond))

    def missing(name: str) -> Any:
        if name in names:
            return import_module(f"{module}.{name}")
        if name.startswith("__"):  # Python asks, as for the __path__ of each `from module import`
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        for other in _BEYOND:
            if (found := import_module(other).find(module, name)) is not None:
                return namespace.setdefault(name, found)
        from difflib import get_close_matches  # only who misspells pays for the import

        near = get_close_matches(name, shown(), 1)
        hint = f": did you mean {near[0]!r}?" if near else ""
        # Without `obj`, Python does not add a suggestion of its own.
        raise AttributeError(
            f"module {module!r} has no attribute {name!r}{hint}", name=name, obj=None
        )

    namespace.update(__getattr__=missing, __dir__=shown)
