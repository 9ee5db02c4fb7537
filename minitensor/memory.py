"""Where results get their memory: a pool of large buffers that are used again.

The system hands out large blocks as fresh pages of zeros, which costs more than filling them. So a
large result is a view of a buffer that the pool keeps hold of too. The reference count of a buffer
tells whether any result still lives in it: a buffer that only the pool holds is free the moment its
last view dies, with nothing to give back. Small results come from NumPy as always.
"""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

SMALLEST = 1 << 18  # bytes; smaller results are cheap to allocate
_LINE = 64  # bytes of a cache line
_STEPS = 8  # size classes for each doubling: at most 1/8 of a buffer is wasted
_ALONE = 3  # references to a buffer that only the pool holds: the list, a name, and the question

_lock = threading.Lock()
_buffers: dict[int, list[np.ndarray]] = {}  # by size in bytes
_limit = 4 << 30
_hits = _misses = 0


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
    dtype = np.dtype(dtype)
    count = dtype.itemsize
    for length in shape if isinstance(shape, tuple | list) else (shape,):
        count *= length
    if count < SMALLEST:
        return np.empty(shape, dtype)
    buffer = _buffer(_size_class(count))
    # Vector loads and stores are fastest where they meet whole cache lines.
    return np.ndarray(shape, dtype, buffer, -buffer.__array_interface__["data"][0] % _LINE)


def empty_like(x: np.ndarray) -> np.ndarray:
    """An uninitialised C-contiguous array of x's shape and type."""
    return empty(x.shape, x.dtype)


def zeros(shape: Any, dtype: Any) -> np.ndarray:
    """A C-contiguous array of zeros."""
    out = empty(shape, dtype)
    out.fill(0)
    return out


def _size_class(count: int) -> int:
    """The size of the buffers that serve `count` bytes."""
    step = (1 << (count - 1).bit_length()) // (2 * _STEPS)
    return -(-count // step) * step


def _buffer(size: int) -> np.ndarray:
    """A free buffer of `size` bytes, or a new one."""
    global _hits, _misses
    with _lock:
        buffers = _buffers.setdefault(size, [])
        for buffer in buffers:
            if sys.getrefcount(buffer) == _ALONE:
                _hits += 1
                return buffer
        _misses += 1
        _shrink(_limit - size)
        buffer = np.empty(size + _LINE, np.uint8)
        buffers.append(buffer)
        return buffer


def _shrink(target: int) -> None:
    """Let go of free buffers until no more than `target` bytes of them are left."""
    idle = sum(size * sum(map(_is_idle, buffers)) for size, buffers in _buffers.items())
    for size in sorted(_buffers):
        if idle <= max(target, 0):
            return
        kept = []
        for buffer in _buffers[size]:
            if idle > max(target, 0) and sys.getrefcount(buffer) == _ALONE:
                idle -= size
            else:
                kept.append(buffer)
        _buffers[size][:] = kept


def _is_idle(buffer: np.ndarray) -> bool:
    return sys.getrefcount(buffer) == _ALONE + 1  # and the argument on its way here


def owns_alone(array: np.ndarray) -> bool:
    """Whether no other array shows the memory of `array`: it owns it, or has a buffer to itself."""
    base = array.base
    if base is None:
        return True
    if type(base) is not np.ndarray or base.base is not None:
        return False
    with _lock:
        pooled = any(base is buffer for buffer in _buffers.get(base.nbytes - _LINE, ()))
    # The list, the array's own, and the two names here and in the call below.
    return pooled and sys.getrefcount(base) == _ALONE + 1


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
        used = idle = 0
        for size, buffers in _buffers.items():
            free = sum(map(_is_idle, buffers))
            idle += size * free
            used += size * (len(buffers) - free)
        return Stats(used, idle, _limit, _hits, _misses)


def release() -> None:
    """Give all free buffers back to the system."""
    with _lock:
        _shrink(0)
