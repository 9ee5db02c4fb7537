"""One kernel over many arrays, such as all parameters of a model: multi-tensor apply.

The kernel gets one record for each array, or for each set of arrays that belong together, as a
parameter and its gradient: their addresses, their size and numbers such as the learning rate. The
arrays are cut into chunks at fixed positions, and tasks take equal numbers of elements in whole
chunks: results do not depend on the number of threads. One call for all arrays is what NVIDIA's
Apex introduced as multi_tensor_apply, and PyTorch has as "foreach" and "fused" optimizers.
"""

from __future__ import annotations

from operator import is_
from typing import Any

import numpy as np

from .jit import jit
from .parallel import ParallelKernel, address, tasks_for

CHUNK = 1 << 14  # elements: 64 KB of each float32 array
SERIAL = 2 * CHUNK  # elements up to which waking a second thread costs more than it saves

SIZES = "count length start total"  # the integers that every record has, for `chunk_range`


@jit
def chunk_range(row: Any, task: int, tasks: int) -> tuple[int, int]:
    """Return (start, stop): a task does the chunks that begin in range(start, stop, CHUNK)."""
    first = row.total * task // tasks - row.start
    last = row.total * (task + 1) // tasks - row.start
    return max(0, (first + CHUNK - 1) // CHUNK * CHUNK), min(row.length, last)


class MultiTensor:
    """The records of many arrays for a kernel, kept from call to call.

    The addresses of arrays that the kernel changes are read again only if the arrays are others.
    """

    def __init__(self) -> None:
        self._records: Any = np.empty(0)

    def __reduce__(self) -> Any:
        return MultiTensor, ()  # a copy of an optimizer has other arrays

    def run(
        self,
        kernel: ParallelKernel,
        dtype: np.dtype[Any],
        read: dict[str, list[np.ndarray]],
        changed: dict[str, list[np.ndarray]],
        **numbers: Any,
    ) -> None:
        """Run `kernel` over arrays and numbers, given by the names of the fields of its record.

        - read, changed: a list of arrays for each field, one array for each record. The arrays of a
          record have equal numbers of elements, and those to change may be written; RuntimeError
          otherwise. Those that are not contiguous or not of `dtype` are copied and, if changed,
          copied back.
        - dtype: the dtype to compute in; float32 stands in for half precision.
        - numbers: a number, or one for each record, for each field.

        The changed arrays are expected to be the same in the next call.
        """
        if dtype.itemsize == 2:
            dtype = np.dtype(np.float32)
        columns = {**changed, **read}
        count = len(next(iter(columns.values())))
        if len(self._records) != count or self._records.dtype is not kernel.record:
            self._records = np.zeros(count, kernel.record)
            self._sizes: list[int] = []
            self._kept: dict[str, list[np.ndarray]] = {}
        copies: list[tuple[np.ndarray, np.ndarray, bool]] = []  # alive until the kernel is done
        for number, (name, arrays) in enumerate(columns.items()):
            kept = self._kept.get(name)
            if kept is not None and all(map(is_, kept, arrays)):
                continue
            self._measure(arrays, number == 0)
            if name in changed and not all(a.flags.writeable for a in arrays):
                raise RuntimeError("an array to be changed is of memory that may not be written")
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
        for name, value in numbers.items():
            self._records[name] = value
        tasks = tasks_for(sum(self._sizes), SERIAL) if self._distinct else 1
        kernel.run_records(dtype, tasks, self._records)
        for array, copy, back in copies:
            if back:
                array[...] = copy

    def _measure(self, arrays: list[np.ndarray], first: bool) -> None:
        """Note the sizes of the first list of arrays; RuntimeError if another list differs."""
        if first:  # an array that occurs twice is updated twice, in order
            self._distinct = len(set(map(id, arrays))) == len(arrays)
        sizes = [a.size for a in arrays]
        if sizes == self._sizes:
            return
        if not first:
            number = next(n for n, size in enumerate(sizes) if size != self._sizes[n])
            raise RuntimeError(
                f"array {number} has {sizes[number]} elements, but its counterpart has "
                f"{self._sizes[number]}"
            )
        self._sizes = sizes
        self._kept.clear()
        self._records["count"] = len(sizes)
        self._records["length"] = sizes
        self._records["start"] = np.cumsum(sizes) - sizes
        self._records["total"] = sum(sizes)
