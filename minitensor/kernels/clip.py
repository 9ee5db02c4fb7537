"""For gradients: the sum of squares of many arrays, many arrays times a number, and zeros.

The squares of each chunk are summed in float64, and the sums of the chunks in order: the result
does not depend on the number of threads. Bound by memory: 4 bytes for each float32 element to sum
its square, 8 to scale it, 4 to clear it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .jit import jit
from .multi_tensor import CHUNK, SIZES, MultiTensor, chunk_range
from .parallel import ParallelKernel, address, array_at, records, unpacked


@jit
def _chunk_squares(x: Any) -> float:
    total = 0.0
    for i in range(len(x)):
        total += np.float64(x[i]) * np.float64(x[i])
    return total


def _squares(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    for k, s in enumerate(records(arguments, unpacked(arguments).count)):
        x, sums = array_at(exemplar, s.x, (s.length,)), array_at(np.float64, s.sums, (s.chunks,))
        start, stop = chunk_range(s, task, tasks)
        for a in range(start, stop, CHUNK):
            # An array's last chunk may be partial; adding k keeps the indices distinct.
            sums[(s.start + a) // CHUNK + k] = _chunk_squares(x[a : min(a + CHUNK, s.length)])


@jit
def _scale_chunk(x: Any, factor: Any) -> None:
    for i in range(len(x)):
        x[i] *= factor


def _scale(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    for s in records(arguments, unpacked(arguments).count):
        x = array_at(exemplar, s.x, (s.length,))
        start, stop = chunk_range(s, task, tasks)
        for a in range(start, stop, CHUNK):
            _scale_chunk(x[a : min(a + CHUNK, s.length)], x.dtype.type(s.factor))


@jit
def _zero_chunk(x: Any) -> None:
    zero = x.dtype.type(0)
    for i in range(len(x)):
        x[i] = zero


def _zero(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    for s in records(arguments, unpacked(arguments).count):
        x = array_at(exemplar, s.x, (s.length,))
        start, stop = chunk_range(s, task, tasks)
        for a in range(start, stop, CHUNK):
            _zero_chunk(x[a : min(a + CHUNK, s.length)])


_run_squares = ParallelKernel(_squares, f"{SIZES} x sums chunks")
_run_scale = ParallelKernel(_scale, f"{SIZES} x", "factor")
_run_zero = ParallelKernel(_zero, f"{SIZES} x")


def sum_of_squares(dtype: np.dtype[Any], arrays: list[np.ndarray]) -> float:
    """Return the sum of the squares of all elements of `arrays`, read as `dtype`."""
    sums = np.zeros(sum(a.size for a in arrays) // CHUNK + len(arrays))
    MultiTensor().run(_run_squares, dtype, dict(x=arrays), {}, sums=address(sums), chunks=len(sums))
    return float(sums.sum())


def scale(dtype: np.dtype[Any], arrays: list[np.ndarray], factor: float) -> None:
    """Multiply all elements of `arrays` by `factor` in place, in `dtype`."""
    MultiTensor().run(_run_scale, dtype, {}, dict(x=arrays), factor=factor)


def zero(dtype: np.dtype[Any], arrays: list[np.ndarray]) -> None:
    """Set all elements of `arrays`, all of `dtype`, to 0 in place."""
    if dtype.char in "fd":
        MultiTensor().run(_run_zero, dtype, {}, dict(x=arrays))
    else:
        for array in arrays:
            array[...] = 0
