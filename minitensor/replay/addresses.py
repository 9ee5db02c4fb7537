"""Addresses: which of the numbers that kernels are given are some, and whose memory lies there."""

from __future__ import annotations

import bisect
import contextlib
import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..kernels.parallel import address
from ..memory import ABOVE, above

_HIGH = 1 << 56  # no address lies above: ARM has 48 bits of them, and 52 on demand


class NotReplayable(Exception):
    """A run cannot be replayed; the message says why."""


class Heap:
    """The memory below `ABOVE`, where numbers lie too: none of most Pythons.

    Of one whose code has a fixed address the heap lies there, with small arrays that NumPy makes.
    """

    GROWTH = 1 << 28  # bytes by which it may have grown and shrunk since it was looked at

    def __init__(self) -> None:
        self.start = min(id(None), ABOVE)  # of code and data, which lie before it
        with contextlib.suppress(OSError):
            for line in Path("/proc/self/maps").read_text("utf-8", "replace").splitlines():
                if line.endswith("[heap]"):
                    self.start = min(int(line.partition("-")[0], 16), ABOVE)
        self.end = self.start
        self._break: Callable[[int], int] | None = None
        if self.start < ABOVE:
            self.end = ABOVE
            with contextlib.suppress(AttributeError, OSError):
                self._break = ctypes.CDLL(None).sbrk
                self._break.restype = ctypes.c_void_p  # type: ignore[attr-defined]
                self.end = self.start

    def look(self) -> None:
        """Note how far it reaches."""
        if self._break is not None:
            self.end = min(max(self.end, self._break(0) + self.GROWTH), ABOVE)


HEAP = Heap()


def may_be_addresses(words: np.ndarray) -> np.ndarray:
    """Return which words may be addresses of arrays: all that are, and a few numbers."""
    in_heap = (words >= HEAP.start) & (words < HEAP.end)
    found: np.ndarray = in_heap | ((words >= ABOVE) & (words < _HIGH))
    return found


def raised(a: np.ndarray) -> np.ndarray:
    """Return an array, or a copy where no number of a kernel's arguments is taken for its address.

    So is all that moves in later runs.
    """
    if not a.nbytes or address(a) >= ABOVE:
        return a
    copy = above(a.nbytes).view(a.dtype).reshape(a.shape)
    copy[...] = a
    return copy


@dataclass(frozen=True)
class Place:
    """An array, by the memory that it lies in: a buffer of the arena or a movable array."""

    owner: Any  # the number of an input, or an array that owns its memory
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: Any
    time: int  # of the event


class Memory:
    """The owners of memory, by address."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ranges: list[tuple[int, int, Any]] = []

    def add(self, array: np.ndarray, owner: Any) -> None:
        """Note that the memory of an array is the owner's; NotReplayable if another's overlaps."""
        start, end = np.lib.array_utils.byte_bounds(array)
        at = bisect.bisect(self._starts, start)
        before = self._ranges[at - 1][1] if at else 0
        after = self._starts[at] if at < len(self._starts) else 1 << 62
        if start < before or end > after:
            raise NotReplayable("two of its inputs share memory")
        self._starts.insert(at, start)
        self._ranges.insert(at, (start, end, owner))

    def find(self, place: int) -> tuple[Any, int] | None:
        """Return the owner of an address, and the offset there."""
        at = bisect.bisect(self._starts, place) - 1
        if at < 0 or place >= self._ranges[at][1]:
            return None
        return self._ranges[at][2], place - self._starts[at]


def array_of(owner: np.ndarray, place: Place) -> np.ndarray:
    """Return the array at a place."""
    content = owner if owner.dtype == np.uint8 and owner.ndim == 1 else bytes_of(owner)
    return np.ndarray(place.shape, place.dtype, content, place.offset, place.strides)


def bytes_of(x: np.ndarray) -> np.ndarray:
    """Return the memory that an array lies in, lowest address first; whoever has it keeps x."""
    low, high = np.lib.array_utils.byte_bounds(x)
    content: Any = (ctypes.c_char * (high - low)).from_address(low)
    return np.frombuffer(content, np.uint8)
