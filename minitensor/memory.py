"""Where results get their memory: a pool of large buffers that are used again.

The system hands out large blocks as fresh pages of zeros, which costs more than filling them. So a
large result is made over a loan of a buffer: a view that all views of the result keep alive, and
that gives the buffer back when it dies. Free buffers wait in a stack for each class of sizes, and
the one that came back last, which the caches may still hold, goes first; without one of its class a
result takes a larger one. Small results come from NumPy as always.
"""

from __future__ import annotations

import contextlib
import math
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

from .names import show

__all__ = ["Stats", "release", "set_limit", "stats"]
show(__name__)

SMALLEST = 1 << 18  # bytes; smaller results are cheap to allocate
_LINE = 64  # bytes of a cache line
_BITS = 3  # 8 size classes for each doubling: at most 1/8 of a buffer is wasted
_REACH = 1 << _BITS  # classes above its own that may serve a result: up to twice its size

_lock = threading.Lock()  # for what follows; stacks need none, their methods are atomic
_free: list[list[_Buffer]] = [[] for _ in range(64 << _BITS)]
_limit = 4 << 30
_total = _peak = 0  # bytes of all buffers, and of those in use, at most
_hits = _misses = 0


class _Buffer(np.ndarray):
    """Memory of the pool."""

    home: list[_Buffer]  # where it waits while it is free
    start: int  # where in it a cache line begins
    since: int  # the number of misses when it last came back


class _Loan(np.ndarray):
    """A view of a buffer, which gives it back when it dies."""

    __slots__ = ()

    def __del__(self) -> None:
        buffer = self.base
        if type(buffer) is _Buffer:
            buffer.since = _misses
            buffer.home.append(buffer)


@dataclass(frozen=True)
class Stats:
    """What the pool holds, in bytes, and how often it could serve."""

    used: int
    idle: int
    limit: int
    hits: int
    misses: int


def empty(shape: Any, dtype: Any) -> np.ndarray:
    """An uninitialised C-contiguous array."""
    global _hits
    dtype = np.dtype(dtype)
    count = (shape if isinstance(shape, int) else math.prod(shape)) * dtype.itemsize
    if count < SMALLEST:
        return np.empty(shape, dtype)
    number = _size_class(int(count))
    try:
        buffer = _free[number].pop()
        _hits += 1
    except IndexError:
        buffer = _other(number)
    # Vector loads and stores are fastest where they meet whole cache lines.
    return np.ndarray(shape, dtype, buffer.view(_Loan), buffer.start)


def empty_like(x: np.ndarray) -> np.ndarray:
    """An uninitialised C-contiguous array of x's shape and type."""
    return empty(x.shape, x.dtype)


def zeros(shape: Any, dtype: Any) -> np.ndarray:
    """A C-contiguous array of zeros."""
    out = empty(shape, dtype)
    out.fill(0)
    return out


def lasting_zeros(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """As `zeros`, but never of the pool: for what stays, and would keep a larger buffer from it."""
    room = np.zeros(math.prod(shape) * np.dtype(dtype).itemsize + _LINE, np.uint8)
    return np.ndarray(shape, dtype, room, -room.ctypes.data % _LINE)


def _size_class(count: int) -> int:
    """The number of the class of buffers that serve `count` bytes."""
    shift = (count - 1).bit_length() - _BITS - 1
    return (shift << _BITS) + ((count - 1) >> shift)


def _size(number: int) -> int:
    """The bytes of a buffer of a class."""
    shift = (number >> _BITS) - 1
    return (number - (shift << _BITS) + 1) << shift


def _other(number: int) -> _Buffer:
    """A buffer for a class that has none: of the next larger one that has, or a new one."""
    global _hits
    for buffers in _free[number + 1 : number + 1 + _REACH]:
        try:
            buffer = buffers.pop()
        except IndexError:
            continue
        _hits += 1
        return buffer
    return _new(number)


def _new(number: int) -> _Buffer:
    """A new buffer, after which the pool holds no more than it should."""
    global _total, _peak, _misses
    size = _size(number)
    with _lock:
        _misses += 1
        used = _total - _idle() + size
        _peak = max(_peak, used)
        _shrink(min(_limit - size, _peak))
        try:
            buffer = _Buffer((size + _LINE,), np.uint8)
        except MemoryError:  # what waits here may be what is missing there
            _shrink(0)
            buffer = _Buffer((size + _LINE,), np.uint8)
        buffer.home = _free[number]
        buffer.start = -buffer.ctypes.data % _LINE
        _total += size
        return buffer


def _idle() -> int:
    """The bytes of all free buffers."""
    return sum(_size(number) * len(buffers) for number, buffers in enumerate(_free) if buffers)


def _shrink(target: int) -> None:
    """Let go of the free buffers that wait longest until at most `target` bytes are left."""
    global _total
    idle = _idle()
    while idle > max(target, 0):
        # The bottom of a stack has waited longest there; other threads may take it meanwhile.
        waiting = [(b.since, n) for n, buffers in enumerate(_free) for b in buffers[:1]]
        if not waiting:
            return
        number = min(waiting)[1]
        with contextlib.suppress(IndexError):
            _free[number].pop(0)
            _total -= _size(number)
        idle -= _size(number)


def set_limit(count: int) -> None:
    """Keep at most `count` bytes of free buffers (4 GiB by default); ValueError if negative."""
    global _limit
    if count < 0:
        raise ValueError(f"set_limit: the limit is a number of bytes, got {count}")
    with _lock:
        _limit = count
        _shrink(count)


def stats() -> Stats:
    """What the pool holds now."""
    with _lock:
        idle = _idle()
        return Stats(_total - idle, idle, _limit, _hits, _misses)


def release() -> None:
    """Give all free buffers back to the system."""
    global _peak
    with _lock:
        _shrink(0)
        _peak = _total
