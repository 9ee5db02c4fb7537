"""Programs: calls of kernels that are recorded once and run again, as one call of compiled code.

    program = Program()
    with program.recorded():
        h = program.keep(matmul(x, w), x, w)        # runs, as always
        y = program.keep(*norm(True, h, ...))
    x[...] = other
    program.run()                                   # y is new

A small kernel takes less time than Python needs to call it: most of that goes away. What runs again
are kernels alone, on the same memory. NumPy's work in between is not recorded, and whoever records
keeps the arrays that were read and made, for a program has only their addresses.

A program has a copy of the kernels' arguments, in words of 64 bits. `move` finds those that point
into an array, and `rekey` those made of a random key: both can then be others in each run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from .dropout import key_words
from .jit import COMPILED, get_num_threads
from .matmul import WORKSPACE
from .parallel import address, address_of_bytes, recording
from .pool import run_program
from .precision import rounds

Recorded = tuple[int, int, int, Any, Any]  # an item of `parallel.recording.calls`


class Program:
    """Kernels to run one after another."""

    def __init__(self) -> None:
        self._calls = np.empty((0, 3), np.int64)
        self._kept: list[Any] = []
        self._made_with: tuple[int, bool, Any] | None = None
        # Of all words that point into moved memory: where, into which, and how far from its start
        self._moved: tuple[np.ndarray, ...] = (np.empty(0, np.int64),) * 3
        self._moves = 0
        self._keyed: list[tuple[int, np.ndarray]] = []

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Record the kernels that this thread calls."""
        calls: list[Recorded] = []
        recording.calls = calls
        try:
            yield
        finally:
            recording.calls = None
        self.take(calls)
        self._made_with = get_num_threads(), rounds(), WORKSPACE.memory

    def take(self, calls: Sequence[Recorded], times: Sequence[int] = ()) -> None:
        """Take over recorded calls; `times`, one for each, say when they were made."""
        contents: list[bytes] = []
        rows: list[tuple[int, int, int]] = []  # function, its first word, tasks
        lies: dict[int, int] = {}  # by the address of bytes that were kept, their first word here
        size = 0

        def put(content: bytes) -> int:
            nonlocal size
            contents.append(content + bytes(-len(content) % 8))
            size += len(contents[-1])
            return (size - len(contents[-1])) // 8

        when: list[int] = []
        for number, (function, _, tasks, packed, _) in enumerate(calls):
            before = size
            if function:
                content = packed if isinstance(packed, bytes) else packed.tobytes()
                rows.append((function, put(content), tasks))
            else:
                self._kept.append(packed)
                lies |= {address_of_bytes(x): put(x) for x in packed if isinstance(x, bytes)}
            when += [times[number] if times else 0] * ((size - before) // 8)
        self._words = np.frombuffer(bytearray(b"".join(contents)), np.int64)
        self._when = np.array(when, np.int64)
        here = address(self._words)
        for old, first in lies.items():
            self._words[self._words == old] = here + 8 * first
        self._calls = np.array([(f, here + 8 * word, n) for f, word, n in rows], np.int64)

    def __len__(self) -> int:
        return len(self._calls)

    def move(self, start: int, size: int, since: int) -> None:
        """Let the `size` bytes at an address be elsewhere in each run, in calls `since` a time."""
        words = self._words
        inside = (words >= start) & (words < start + size) & (self._when >= since)
        at = np.flatnonzero(inside)
        found = at, np.full(len(at), self._moves), words[at] - start
        self._moved = tuple(map(np.append, self._moved, found))
        self._moves += 1

    def rekey(self, number: int, key: int) -> None:
        """Let a random key be key `number` of each run."""
        first, second = key_words(key)
        at = np.flatnonzero((self._words[:-1] == first) & (self._words[1:] == second))
        if len(at):
            self._keyed.append((number, at))

    def set(self, addresses: Sequence[int], keys: Sequence[int]) -> None:
        """Set where the moved memory lies now, in the order of calls of `move`, and the keys."""
        at, which, offsets = self._moved
        self._words[at] = np.array(addresses, np.int64)[which] + offsets
        for number, at in self._keyed:
            self._words[at], self._words[at + 1] = key_words(keys[number])

    def keep(self, array: np.ndarray, *others: np.ndarray) -> np.ndarray:
        """Keep arrays for as long as the program; return the first."""
        self._kept += array, *others
        return array

    @property
    def ready(self) -> bool:
        """True if the program can run: recorded by this thread, for as many, and as precise."""
        if not COMPILED or self._made_with is None:
            return False
        threads, rounded, memory = self._made_with
        now = get_num_threads(), rounds()
        return (threads, rounded) == now and memory is WORKSPACE.memory

    def run(self, first: int = 0, stop: int | None = None) -> None:
        """Run the kernels again, or those in range(first, stop)."""
        stop = len(self._calls) if stop is None else stop
        run_program(address(self._calls) + 24 * first, stop - first)
