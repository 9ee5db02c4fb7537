"""The work of a call, counted: the same on a busy machine as on an idle one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def lines_run(function: Callable[..., Any], *args: Any) -> int:
    """Return the number of lines of Python run in `function(*args)`, each iteration counted."""
    count = 0

    def see(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        if event == "line":
            count += 1
        return see

    before = sys.gettrace()
    sys.settrace(see)
    try:
        function(*args)
    finally:
        sys.settrace(before)
    return count


def growth(function: Callable[..., Any], small: Any, twice: Any) -> float:
    """Return the factor by which work grows with twice the size: 2 if linear, 4 if quadratic."""
    return lines_run(function, twice) / lines_run(function, small)
