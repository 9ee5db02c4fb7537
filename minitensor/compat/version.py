"""The version that code compares: of the PyTorch whose names and numbers minitensor has."""

from __future__ import annotations

import re
import sys
from typing import Any

from ..names import show

__all__ = ["cuda", "debug", "git_version", "hip", "xpu"]


class TorchVersion(str):
    """A version as text that compares with others by its numbers: "2.13.0" > "2.5", > (2, 5)."""

    of_minitensor = ""

    def _numbers(self, other: Any) -> tuple[list[int], list[int]]:
        parts = other if isinstance(other, tuple | list) else _release(str(other))
        theirs = [int(part) for part in parts]
        ours = _release(self)
        length = max(len(ours), len(theirs))  # "2.13" is "2.13.0"
        return tuple(n + [0] * (length - len(n)) for n in (ours, theirs))  # type: ignore[return-value]

    def __lt__(self, other: Any) -> bool:
        ours, theirs = self._numbers(other)
        return ours < theirs

    def __le__(self, other: Any) -> bool:
        ours, theirs = self._numbers(other)
        return ours <= theirs

    def __gt__(self, other: Any) -> bool:
        return not self <= other

    def __ge__(self, other: Any) -> bool:
        return not self < other

    def __eq__(self, other: object) -> bool:
        return str(self) == other

    __hash__ = str.__hash__


def _release(text: str) -> list[int]:
    """Return the numbers of "2.13.0+cpu": [2, 13, 0]; none of what is not a version."""
    found = re.match(r"v?(\d+(?:\.\d+)*)", text)
    return [int(part) for part in found[1].split(".")] if found else []


_minitensor = vars(sys.modules[__name__.partition(".")[0]])["__version__"]
VERSION = TorchVersion(f"2.13.0+minitensor.{_minitensor}")
VERSION.of_minitensor = _minitensor

__version__ = VERSION
git_version = "Unknown"
debug = False
cuda = hip = xpu = None

show(__name__)
