"""Watches code run and holds the names of its tensors to their shapes.

A local variable whose name ends in dimension letters, such as `score_NHLS`, must hold a tensor of
as many dimensions, a letter must mean one length in all names a frame holds at a time, and a 1
means length 1. `with watch(module) as seen:` raises LyingName at the first line that sees a lie,
and leaves what it saw in `seen`: (function, name) -> the set of shapes.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import numpy as np

from minitensor.core import Tensor

SUFFIX = re.compile(r"_([NLSEHKFVCIPGD1]+)$")
LETTERS = "NLSEHKFVCIPGD"
Seen = dict[tuple[str, str], set[tuple[int, ...]]]


class LyingName(AssertionError):
    """A tensor whose name says another shape than it has."""


def check(where: str, values: dict[str, Any], seen: Seen) -> None:
    """LyingName if suffixes of tensors among `values` contradict their shapes or each other."""
    lengths: dict[str, tuple[int, str]] = {}
    for name, value in values.items():
        if name in LETTERS and isinstance(value, int):
            lengths[name] = (value, name)
    for name, value in values.items():
        suffix = SUFFIX.search(name)
        if suffix is None or not isinstance(value, Tensor | np.ndarray):
            continue
        shape = tuple(value.shape)
        seen[where, name].add(shape)
        if len(suffix[1]) != len(shape):
            raise LyingName(f"{where}: {name} has shape {shape}")
        for letter, length in zip(suffix[1], shape, strict=True):
            known, other = lengths.setdefault(letter, (length, name)) if letter != "1" else (1, "1")
            if known != length:
                raise LyingName(
                    f"{where}: {name} has shape {shape}, but {letter} is {known} in {other}"
                )


@contextmanager
def watch(*modules: ModuleType) -> Iterator[Seen]:
    """Check the names in all functions of `modules`, or packages, while the block runs."""
    places = []
    for module in modules:
        file = Path(str(module.__file__))
        places.append(str(file.parent) if file.name == "__init__.py" else str(file))
    seen: Seen = defaultdict(set)

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(tuple(places)):
            return None
        if event != "call":
            check(frame.f_code.co_qualname, frame.f_locals, seen)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield seen
    finally:
        sys.settrace(before)
