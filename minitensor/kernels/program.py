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
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from .jit import COMPILED, get_num_threads
from .matmul import WORKSPACE
from .parallel import address, recording
from .pool import run_program
from .precision import rounds


class Program:
    """Kernels to run one after another."""

    def __init__(self) -> None:
        self._calls = np.empty((0, 3), np.int64)
        self._kept: list[Any] = []
        self._made_with: tuple[int, bool, Any] | None = None

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Record the kernels that this thread calls."""
        calls: list[tuple[int, int, int, Any, Any]] = []
        recording.calls = calls
        try:
            yield
        finally:
            recording.calls = None
        self._calls = np.array([call[:3] for call in calls if call[0]], np.int64)
        self._kept += [call[3] for call in calls]
        self._made_with = get_num_threads(), rounds(), WORKSPACE.memory

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

    def run(self) -> None:
        """Run the kernels again."""
        run_program(address(self._calls), len(self._calls))
