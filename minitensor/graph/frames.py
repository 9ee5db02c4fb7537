"""Python frames: the user's line, and the names that variables give to tensors."""

from __future__ import annotations

import functools
import linecache
import os
import re
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType

from ..core import Tensor
from ..errors import is_library
from ..nn import Module
from .model import Value

_PACKAGE = str(Path(__file__).parent.parent) + os.sep
_NN = _PACKAGE + "nn" + os.sep
_STDLIB = sysconfig.get_path("stdlib") + os.sep
_INSTALLED = tuple(sysconfig.get_path(name) + os.sep for name in ("purelib", "platlib"))
_DIMENSIONS = re.compile(r"_(?=\d*[A-Z])[A-Z0-9]+$")  # at the end of a name, as in scores_NHLS
CALL = Module.__call__.__code__


def named_tensors(frame: FrameType) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in a function's variables with the names the graph gives them."""
    for name, value in frame.f_locals.items():
        if name.startswith(("_", ".")) or name in ("self", "args", "kwargs"):
            continue
        if isinstance(value, Tensor):
            yield _DIMENSIONS.sub("", name), value
        elif type(value) in (list, tuple) and len(value) <= 64:
            for number, element in enumerate(value):
                if isinstance(element, Tensor):
                    yield f"{_DIMENSIONS.sub('', name)}[{number}]", element


def user_frame() -> tuple[FrameType, FrameType | None]:
    """Return the innermost running frame outside the library, and that of `nn` it called."""
    frame = sys._getframe(2)
    inner = None
    while frame.f_back is not None and is_library(frame.f_code.co_filename):
        if inner is None and frame.f_code.co_filename.startswith(_NN) and frame.f_code is not CALL:
            inner = frame
        frame = frame.f_back
    return frame, inner


class VariableNames:
    """Notes the names that variables of running functions give to recorded tensors."""

    def __init__(self, tensors: Mapping[int, str], values: Mapping[str, Value]) -> None:
        self._tensors = tensors  # ids of values by the id() of their tensors
        self._values = values

    def note(self, frame: FrameType, within: str = "") -> None:
        """Note the names in one function, of values whose id begins with `within`."""
        for name, t in named_tensors(frame):
            key = self._tensors.get(id(t))
            if key is not None and key.startswith(within):
                names = self._values[key].names
                if name not in names:
                    names.append(name)

    def note_all(self, frame: FrameType | None, outside: FrameType) -> None:
        """Note the names in all running functions inside `outside`, callers first."""
        frames = []
        while frame is not None and frame is not outside:
            if is_users(frame.f_code.co_filename):
                frames.append(frame)
            frame = frame.f_back
        for running in reversed(frames):
            self.note(running)


@functools.cache
def is_users(file: str) -> bool:
    """Return whether a file belongs neither to this library nor to Python's."""
    python = file.startswith((_STDLIB, "<frozen")) and not file.startswith(_INSTALLED)
    return not python and not is_library(file)


def line_of(frame: FrameType) -> tuple[str, str]:
    """Return the line that a function is at, as "file:line", and its text."""
    file, number = frame.f_code.co_filename, frame.f_lineno
    return f"{_short(file)}:{number}", linecache.getline(file, number).strip()


@functools.cache
def _short(file: str) -> str:
    """Return a file's name from the working folder, or from where Python found it."""
    for folder in (
        os.getcwd(),
        *sorted(sys.path, key=len, reverse=True),
        str(Path(_PACKAGE).parent),
    ):
        if folder and file.startswith(folder.rstrip(os.sep) + os.sep):
            return file[len(folder.rstrip(os.sep)) + 1 :].replace(os.sep, "/")
    return os.path.basename(file)
