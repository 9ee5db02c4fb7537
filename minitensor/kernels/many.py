"""Kernels over many arrays in one call: all parameters of a model, all gradients.

A kernel has one record for each array, or for each set of arrays that belong together such as a
parameter and its gradient: their addresses, their size, and settings. What there is to do is cut
into chunks that begin at fixed places of each array, and the tasks get equal numbers of elements in
whole chunks: results do not depend on the number of tasks.
"""

from __future__ import annotations

from operator import is_
from typing import Any

import numpy as np

from .jit import get_num_threads, jit
from .tasks import Tasks, address

CHUNK = 1 << 14  # elements: 64 KB of each float32 array
SERIAL = 2 * CHUNK  # up to here a second thread is not worth waking

SIZES = "count length start total"  # the integers that every record has, for `share`


@jit
def share(row: Any, task: int, tasks: int) -> tuple[int, int]:
    """Chunks begin in `range(start, stop, CHUNK)`: those of a record's arrays that a task does."""
    first = row.total * task // tasks - row.start
    last = row.total * (task + 1) // tasks - row.start
    return max(0, (first + CHUNK - 1) // CHUNK * CHUNK), min(row.length, last)


class Many:
    """The records of many arrays for a kernel, kept from call to call.

    The address of an array that will be changed again is looked up only if the array is another.
    """

    def __init__(self) -> None:
        self._records: Any = np.empty(0)

    def __reduce__(self) -> Any:
        return Many, ()  # a copy has other arrays

    def run(
        self,
        kernel: Tasks,
        dtype: np.dtype[Any],
        read: dict[str, list[np.ndarray]],
        changed: dict[str, list[np.ndarray]],
        **settings: Any,
    ) -> None:
        """Run `kernel` over arrays and settings, by the names that its records have for them.

        The arrays of one list belong to one record each, and have the same number of elements in
        all lists; what is not contiguous or of another type than `dtype` is copied, and float16 is
        computed in float32. A setting is a number, or one for each record. What is `changed` is
        expected to be the same arrays in the next call. Raises RuntimeError if sizes differ.
        """
        if dtype == np.float16:
            dtype = np.dtype(np.float32)
        columns = {**changed, **read}
        count = len(next(iter(columns.values())))
        if len(self._records) != count or self._records.dtype is not kernel.record:
            self._records = np.zeros(count, kernel.record)
            self._sizes: list[int] = []
            self._kept: dict[str, list[np.ndarray]] = {}
        copies: list[tuple[np.ndarray, np.ndarray, bool]] = []  # which live till the kernel is done
        for number, (name, arrays) in enumerate(columns.items()):
            kept = self._kept.get(name)
            if kept is not None and all(map(is_, kept, arrays)):
                continue
            self._measure(arrays, number == 0)
            flat = [
                a if a.flags.c_contiguous and a.dtype is dtype else np.array(a, dtype, order="C")
                for a in arrays
            ]
            self._records[name] = [address(a) if a.size else 0 for a in flat]
            back = name in changed
            copied = [(a, f, back) for a, f in zip(arrays, flat, strict=True) if a is not f]
            copies += copied
            if copied:
                self._kept.pop(name, None)
            elif back:
                self._kept[name] = arrays
        for name, value in settings.items():
            self._records[name] = value
        shared = self._distinct and sum(self._sizes) > SERIAL
        kernel.run(dtype, get_num_threads() if shared else 1, self._records)
        for array, copy, back in copies:
            if back:
                array[...] = copy

    def _measure(self, arrays: list[np.ndarray], first: bool) -> None:
        """Note the sizes of the first list of arrays; RuntimeError where another has others."""
        if first:  # an array that is there twice is changed twice, in order
            self._distinct = len(set(map(id, arrays))) == len(arrays)
        sizes = [a.size for a in arrays]
        if sizes == self._sizes:
            return
        if not first:
            number = next(n for n, size in enumerate(sizes) if size != self._sizes[n])
            raise RuntimeError(
                f"array {number} has {sizes[number]} elements, but what it belongs to has "
                f"{self._sizes[number]}"
            )
        self._sizes = sizes
        self._kept.clear()
        self._records["count"] = len(sizes)
        self._records["length"] = sizes
        self._records["start"] = np.cumsum(sizes) - sizes
        self._records["total"] = sum(sizes)
