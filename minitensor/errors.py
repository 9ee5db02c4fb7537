"""Errors that say where: the op, the shapes it was given, and the module it ran in."""

from __future__ import annotations

import functools
import itertools
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PACKAGE = str(Path(__file__).parent) + os.sep
_ABOVE = tuple(f"{PACKAGE}{name}{os.sep}" for name in ("models", "tools"))


@functools.cache
def is_library(file: str) -> bool:
    """Return True if a source file is the library's own; its models and tools are code above it."""
    return file.startswith(PACKAGE) and not file.startswith(_ABOVE)


class Running(threading.local):
    """The modules that are running, in each thread for itself."""

    modules: tuple[Any, ...] = ()  # the modules whose forward is running, outermost first


running = Running()


def module_path(modules: Sequence[Any] | None = None) -> str:
    """Return the path of the innermost of the running modules, such as "decoder.layers.0.linear1".

    It is the one in the outermost of them, without what `compile` puts around modules. Those of
    another time may be given instead.
    """
    modules = running.modules if modules is None else modules
    names = []
    for parent, child in itertools.pairwise(modules):
        path = next((name for name, module in parent.named_modules() if module is child), None)
        names.append(type(child).__name__ if path is None else path)
    path = ".".join(name for name in names if name != "_orig_mod")
    return path or "".join(type(module).__name__ for module in modules[-1:])


class OutOfMemoryError(MemoryError, RuntimeError):
    """Memory for the result of an op could not be had, not even after the pool was emptied."""


# The errors of a rule that are raised again with the op, the shapes and the module in them.
EXPLAINED = RuntimeError, ValueError, IndexError, TypeError, AttributeError, MemoryError


def no_tensor(op: str, error: AttributeError) -> TypeError | None:
    """Return what to raise for an attribute of a tensor that was looked up on something else."""
    if not isinstance(error.obj, int | float | str | list | tuple | dict | None):
        return None
    return TypeError(f"{op}: expected a Tensor, got {type(error.obj).__name__}")


def explain(op: str, error: Exception, args: Sequence[Any]) -> Exception:
    """Return the same error with the op, the shapes of its arguments and the module in it."""
    if getattr(error, "_explained", False):
        return error
    if isinstance(error, AttributeError):
        error = no_tensor(op, error) or error
    message = str(error)
    if not message.startswith(f"{op}: "):
        message = f"{op}: {message}"
    shapes = [tuple(a._array.shape) for a in args if hasattr(a, "_array")]
    if shapes and not any(str(shape) in message for shape in shapes):
        message += f" (shapes {', '.join(map(str, shapes))})"
    if path := module_path():
        first, stop, advice = message.partition(". ")
        message = f"{first} in {path}{stop}{advice}"
    kind = RuntimeError if type(error) is ValueError else type(error)
    if isinstance(error, MemoryError):
        kind = OutOfMemoryError
    try:
        explained = kind(message)
    except Exception:
        return error
    explained._explained = True  # type: ignore[attr-defined]
    return explained
