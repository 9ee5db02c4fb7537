"""A caching allocator for the memory of results: large buffers are reused.

The system returns large blocks as fresh pages of zeros, which costs more than filling them. So a
large result is a view of a loan, itself a view of a pooled buffer. All views of the result keep the
loan alive, and when it dies the buffer returns to its free list. There is a free list for each size
class; the buffer freed last, which may still be in the processor's caches, is reused first. If a
class has no free buffer, one of a larger class serves. Small results are allocated by NumPy.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Stats", "release", "set_limit", "stats"]

SMALLEST = 1 << 18  # bytes; smaller results are cheap to allocate
_LINE = 64  # bytes of a cache line
# Below may be the heap of a Python whose code has a fixed address, as Debian's.
ABOVE = 1 << 32
_BITS = 3  # 8 size classes for each power of 2: at most 1/8 of a buffer is wasted
_REACH = 1 << _BITS  # larger classes that may serve a result: up to twice its size

_lock = threading.Lock()  # for the numbers below; pop and append of free lists are atomic
_free: list[list[_Buffer]] = [[] for _ in range(64 << _BITS)]
_limit = 4 << 30
_total = _peak = 0  # bytes of all buffers, and the most that were in use
_hits = _misses = 0


class _Buffer(np.ndarray):
    """A buffer of the pool."""

    home: list[_Buffer] | deque[_Buffer]  # its free list
    start: int  # offset of its first whole cache line
    since: int  # the number of misses when it was last freed
    lent: int  # in an arena: its clock when this buffer was last lent
    count: int  # and for how many bytes at most, at that time
    loans: int  # and how often in all


_NOWHERE: deque[_Buffer] = deque(maxlen=0)  # the free list of a buffer that nobody waits for


class _Loan(np.ndarray):
    """A view of a buffer that returns it to its free list when it dies."""

    __slots__ = ()

    def __del__(self) -> None:
        buffer = self.base
        if type(buffer) is _Buffer:
            buffer.since = _misses
            buffer.home.append(buffer)


def is_loan(array: np.ndarray) -> bool:
    """Return True for the array that has a buffer of the pool until it dies."""
    return type(array) is _Loan


@dataclass(frozen=True)
class Stats:
    """The pool's buffers in use, free ones and limit in bytes; how often one was reused or not."""

    used: int
    idle: int
    limit: int
    hits: int
    misses: int


def empty(shape: Any, dtype: Any) -> np.ndarray:
    """Return an uninitialised C-contiguous array."""
    global _hits
    dtype = np.dtype(dtype)
    count = (shape if isinstance(shape, int) else math.prod(shape)) * dtype.itemsize
    if _arena is not None and _arena.thread == threading.get_ident():
        return _arena.empty(shape, dtype, int(count))
    if count < SMALLEST:
        return np.empty(shape, dtype)
    number = _size_class(int(count))
    try:
        buffer = _free[number].pop()
        _hits += 1
    except IndexError:
        buffer = _from_larger_class(number)
    # Vector loads and stores are fastest if they do not straddle cache lines.
    return np.ndarray(shape, dtype, buffer.view(_Loan), buffer.start)


def empty_like(x: np.ndarray) -> np.ndarray:
    """Return an uninitialised C-contiguous array of x's shape and dtype."""
    return empty(x.shape, x.dtype)


def zeros(shape: Any, dtype: Any) -> np.ndarray:
    """Return a C-contiguous array of zeros."""
    out = empty(shape, dtype)
    out.fill(0)
    return out


def lasting_zeros(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return `zeros` outside of the pool: a long-lived array would hold a larger buffer."""
    storage = np.zeros(math.prod(shape) * np.dtype(dtype).itemsize + _LINE, np.uint8)
    return np.ndarray(shape, dtype, storage, -storage.ctypes.data % _LINE)


def above(size: int) -> np.ndarray:
    """Return `size` uninitialised bytes above `ABOVE`, where no number is taken for an address."""
    made = np.empty(size, np.uint8)
    return made if made.ctypes.data >= ABOVE else np.frombuffer(mmap.mmap(-1, size), np.uint8)


class Arena:
    """Buffers of its own for a run that is to be repeated: `with arena.entered():`.

    Meanwhile all that this thread asks the pool for, however small, comes from here, and is noted
    in `made`. A repeated run is given its results' places again: those in `given`, in order.
    """

    def __init__(self) -> None:
        self.buffers: list[_Buffer] = []
        self.thread = 0
        self.clock = 0  # set by the user of the arena
        self.made: list[tuple[_Buffer, tuple[int, ...], Any]] = []
        self.given: Iterator[np.ndarray] = iter(())
        self._free: dict[int, list[_Buffer]] = {}

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Serve this thread; RuntimeError if another one is served."""
        global _arena
        with _lock:
            if _arena is not None:
                raise RuntimeError("memory: another arena is in use")
            _arena, self.thread = self, threading.get_ident()
        self.given = iter(())  # what an interrupted run was given and did not ask for
        self.made.clear()
        try:
            yield
        finally:
            _arena = None

    def empty(self, shape: Any, dtype: Any, count: int) -> np.ndarray:
        """Return an uninitialised C-contiguous array of `count` bytes."""
        again = next(self.given, None)
        if again is not None:
            if again.nbytes == count:
                return again.view(dtype).reshape(shape)
            self.given = iter(())  # it is another run after all
            return np.empty(shape, dtype)
        number = _size_class(max(count, _LINE))
        for near in range(number, number + _REACH):
            if self._free.get(near):
                buffer = self._free[near].pop()
                break
        else:
            buffer = above(_size(number) + _LINE).view(_Buffer)
            buffer.home = self._free.setdefault(number, [])
            buffer.start, buffer.lent, buffer.loans = -buffer.ctypes.data % _LINE, -1, 0
            self.buffers.append(buffer)
        before = buffer.count if buffer.lent == self.clock else 0
        buffer.lent, buffer.count = self.clock, max(count, before)
        buffer.loans += 1
        out = np.ndarray(shape, dtype, buffer.view(_Loan), buffer.start)
        self.made.append((buffer, out.shape, dtype))
        return out

    def give_away(self, buffer: _Buffer) -> bool:
        """Do without a buffer that has only been lent once, and is; return whether it is so."""
        given = buffer.loans == 1 and not any(b is buffer for b in buffer.home)
        if given:
            self.buffers = [b for b in self.buffers if b is not buffer]
            buffer.home = _NOWHERE
        return given

    @property
    def size(self) -> int:
        """The bytes of all buffers."""
        return sum(buffer.nbytes for buffer in self.buffers)


_arena: Arena | None = None


def _size_class(count: int) -> int:
    """Return the size class of `count` bytes."""
    shift = (count - 1).bit_length() - _BITS - 1
    return (shift << _BITS) + ((count - 1) >> shift)


def _size(number: int) -> int:
    """Return the bytes of a buffer of a size class."""
    shift = (number >> _BITS) - 1
    return (number - (shift << _BITS) + 1) << shift


def _from_larger_class(number: int) -> _Buffer:
    """Return a free buffer of the next larger class that has one, or a new buffer."""
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
    """Return a new buffer, after freeing others to stay within the limit."""
    global _total, _peak, _misses
    size = _size(number)
    with _lock:
        _misses += 1
        used = _total - _idle() + size
        _peak = max(_peak, used)
        _shrink(min(_limit - size, _peak))
        try:
            buffer = _Buffer((size + _LINE,), np.uint8)
        except MemoryError:  # the free buffers may be enough
            _shrink(0)
            buffer = _Buffer((size + _LINE,), np.uint8)
        buffer.home = _free[number]
        buffer.start = -buffer.ctypes.data % _LINE
        _total += size
        return buffer


def _idle() -> int:
    """Return the bytes of all free buffers."""
    return sum(_size(number) * len(buffers) for number, buffers in enumerate(_free) if buffers)


def _shrink(target: int) -> None:
    """Drop the free buffers that were unused longest until at most `target` bytes are left."""
    global _total
    idle = _idle()
    while idle > max(target, 0):
        # The first of a free list was unused longest in it; other threads may take it meanwhile.
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
    """Return the present figures of the pool."""
    with _lock:
        idle = _idle()
        return Stats(_total - idle, idle, _limit, _hits, _misses)


def release() -> None:
    """Return all free buffers to the system."""
    global _peak
    with _lock:
        _shrink(0)
        _peak = _total
