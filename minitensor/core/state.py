"""What each thread decides for itself: the gradient modes; and where it is, for messages."""

from __future__ import annotations

import contextlib
import contextvars
import copy
import functools
import itertools
import os
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .tensor import Tensor

if TYPE_CHECKING:
    from ..autograd.checkpoint import Frame


_PACKAGE = str(Path(__file__).parent.parent) + os.sep
_ABOVE = tuple(f"{_PACKAGE}{name}{os.sep}" for name in ("models", "tools"))


class State(threading.local):
    """What each thread decides for itself."""

    grad = True  # record ops for the backward pass
    inference = False
    anomaly = False
    frame: Frame | None = None  # the checkpoint whose ops are running
    recorder: Any = None  # sees every op as it runs
    watched = False  # whether any of these four has to know of every op
    depth = 0  # of backward passes that run inside one another
    modules: tuple[Any, ...] = ()  # the modules whose forward is running, outermost first

    def __init__(self) -> None:
        # In it NumPy gives inf and NaN without a warning; np.errstate takes ten times longer.
        quiet = contextvars.copy_context()
        quiet.run(np.seterr, all="ignore")
        self.quietly = quiet.run

    def set(self, **values: Any) -> None:
        """Give attributes new values."""
        self.__dict__.update(values)
        self.watched = (
            self.inference or self.anomaly or self.frame is not None or self.recorder is not None
        )

    def modes(self) -> dict[str, Any]:
        """All of it that another thread can take over by `set`."""
        kept = ("grad", "inference", "anomaly", "frame", "recorder", "modules")
        return {name: getattr(self, name) for name in kept}


state = State()


# Gradient modes


class Mode(contextlib.ContextDecorator):
    """A block, or a decorated function, in which some of `state` has other values."""

    def __init__(self, **values: bool) -> None:
        self._values = values
        self._before: list[dict[str, bool]] = []

    def _recreate_cm(self) -> Mode:
        fresh = copy.copy(self)  # a decorated function may run in several threads at once
        fresh._before = []
        return fresh

    def __enter__(self) -> Mode:
        self._before.append({key: getattr(state, key) for key in self._values})
        state.set(**self._values)
        return self

    def __exit__(self, *exception: object) -> None:
        state.set(**self._before.pop())


class no_grad(Mode):
    """Do not record ops: results need no gradient."""

    def __init__(self) -> None:
        super().__init__(grad=False)


class enable_grad(Mode):
    """Record ops, also inside `no_grad`."""

    def __init__(self) -> None:
        super().__init__(grad=True)


class set_grad_enabled(Mode):
    """Record ops or not, from here on or for a `with` block."""

    def __init__(self, mode: bool) -> None:
        before = state.grad
        super().__init__(grad=bool(mode))
        state.grad = bool(mode)
        self._outer = before

    def __enter__(self) -> set_grad_enabled:
        self._before.append({"grad": self._outer})
        state.grad = self._values["grad"]
        return self


class inference_mode(Mode):
    """Like `no_grad`, and what is made inside can never become part of a graph."""

    def __init__(self, mode: bool = True) -> None:
        super().__init__(**({"grad": False, "inference": True} if mode else {"inference": False}))


class detect_anomaly(Mode):
    """Find the op that made the first NaN: `backward` raises, naming the op and its source line."""

    def __init__(self, mode: bool = True) -> None:
        super().__init__(anomaly=mode)


def is_grad_enabled() -> bool:
    """Whether ops are being recorded."""
    return state.grad


def is_inference_mode_enabled() -> bool:
    """Whether `inference_mode` is on."""
    return state.inference


# Where we are, for messages


def module_path() -> str:
    """The path of the running module from the outermost one, such as "decoder.layers.0.linear1"."""
    names = []
    modules = state.modules
    for parent, child in itertools.pairwise(modules):
        path = next((name for name, module in parent.named_modules() if module is child), None)
        names.append(type(child).__name__ if path is None else path)
    return ".".join(names) if names else (type(modules[0]).__name__ if modules else "")


@functools.cache
def is_library(file: str) -> bool:
    """Return whether a source file is the library's own; its models and tools are code above it."""
    return file.startswith(_PACKAGE) and not file.startswith(_ABOVE)


def user_line() -> str:
    """The innermost running line outside this package, as "file:line: source"."""
    frame = sys._getframe(1)
    while frame.f_back is not None and is_library(frame.f_code.co_filename):
        frame = frame.f_back
    found = traceback.extract_stack(frame, limit=1)[0]
    return f"{found.filename}:{found.lineno}: {found.line}"


class OutOfMemoryError(MemoryError, RuntimeError):
    """Memory for the result of an op could not be had, not even after the pool was emptied."""


def explain(op: str, error: Exception, args: Sequence[Any]) -> Exception:
    """The same error, saying which op, which shapes and which module."""
    message = str(error)
    if getattr(error, "_explained", False):
        return error
    if not message.startswith(f"{op}: "):
        message = f"{op}: {message}"
    shapes = [tuple(a._array.shape) for a in args if isinstance(a, Tensor)]
    if shapes and not any(str(shape) in message for shape in shapes):
        message += f" (shapes {', '.join(map(str, shapes))})"
    if path := module_path():
        told, stop, advice = message.partition(". ")
        message = f"{told} in {path}{stop}{advice}"
    kind = RuntimeError if type(error) is ValueError else type(error)
    if isinstance(error, MemoryError):
        kind = OutOfMemoryError
    try:
        explained = kind(message)
    except Exception:
        return error
    explained._explained = True  # type: ignore[attr-defined]
    return explained
