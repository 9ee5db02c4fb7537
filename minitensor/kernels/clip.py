"""The sum of squares of many arrays, and many arrays times a number: clipping of gradients.

Each chunk adds its squares up in float64, and the sums of the chunks are added in order: the result
does not depend on the number of threads. Bound by memory: 4 bytes for each float32 element of the
sum, 8 to scale it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .jit import jit
from .many import CHUNK, SIZES, Many, share
from .tasks import Tasks, address, array_at, records, unpacked


@jit
def _chunk_squares(x: Any) -> float:
    total = 0.0
    for i in range(len(x)):
        total += np.float64(x[i]) * np.float64(x[i])
    return total


def _squares(settings, like, task, tasks):  # type: ignore[no-untyped-def]
    for k, s in enumerate(records(settings, unpacked(settings).count)):
        x, sums = array_at(like, s.x, (s.length,)), array_at(np.float64, s.sums, (s.chunks,))
        start, stop = share(s, task, tasks)
        for a in range(start, stop, CHUNK):
            # One more for each array, so that no two chunks have the same number.
            sums[(s.start + a) // CHUNK + k] = _chunk_squares(x[a : min(a + CHUNK, s.length)])


@jit
def _scale_chunk(x: Any, factor: Any) -> None:
    for i in range(len(x)):
        x[i] *= factor


def _scale(settings, like, task, tasks):  # type: ignore[no-untyped-def]
    for s in records(settings, unpacked(settings).count):
        x = array_at(like, s.x, (s.length,))
        start, stop = share(s, task, tasks)
        for a in range(start, stop, CHUNK):
            _scale_chunk(x[a : min(a + CHUNK, s.length)], x.dtype.type(s.factor))


_run_squares = Tasks(_squares, f"{SIZES} x sums chunks")
_run_scale = Tasks(_scale, f"{SIZES} x", "factor")


def sum_of_squares(dtype: np.dtype[Any], arrays: list[np.ndarray]) -> float:
    """The sum of the squares of all elements of `arrays`, taken in the type `dtype`."""
    sums = np.zeros(sum(a.size for a in arrays) // CHUNK + len(arrays))
    Many().run(_run_squares, dtype, dict(x=arrays), {}, sums=address(sums), chunks=len(sums))
    return float(sums.sum())


def scale(dtype: np.dtype[Any], arrays: list[np.ndarray], factor: float) -> None:
    """Multiply all elements of `arrays` by `factor` in place, in the type `dtype`."""
    Many().run(_run_scale, dtype, {}, dict(x=arrays), factor=factor)
