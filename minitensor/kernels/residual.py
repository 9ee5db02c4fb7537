"""Dropout and a residual sum in one pass: y = residual + dropout(x).

Elementwise over flattened arrays, which threads share in equal parts, with the mask of
`kernels.dropout`. Bound by memory, two reads and one write, or by the random number generator if x
and residual are in cache.
"""

from __future__ import annotations

import numpy as np

from .. import memory
from .dropout import DROPOUT_ARGUMENTS, dropout_arguments, random_word
from .jit import jit
from .parallel import (
    ParallelKernel,
    address,
    array_at,
    contiguous,
    recording,
    tasks_for,
    unpacked,
)

_u32 = np.uint32


@jit
def dropout_add_in_row(s, x, start, residual, out):  # type: ignore[no-untyped-def]
    """out = residual + dropout(x), all 1-D; x[0] is element `start` of the whole array."""
    keep_scale, zero = x.dtype.type(s.keep_scale), x.dtype.type(0)
    key0, key1, threshold = _u32(s.key0 + start), _u32(s.key1), _u32(s.threshold)
    if s.drops != 0:
        for i in range(x.size):
            factor = keep_scale if random_word(key0, key1, _u32(i)) >= threshold else zero
            out[i] = residual[i] + x[i] * factor
    else:
        for i in range(x.size):
            out[i] = residual[i] + x[i]


def _dropout_add(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    """Do one task's elements."""
    s = unpacked(arguments)
    start, stop = s.size * task // tasks, s.size * (task + 1) // tasks
    x, residual = array_at(exemplar, s.x, (s.size,)), array_at(exemplar, s.residual, (s.size,))
    out = array_at(exemplar, s.out, (s.size,))
    dropout_add_in_row(s, x[start:stop], start, residual[start:stop], out[start:stop])


_run = ParallelKernel(_dropout_add, f"x residual out size {DROPOUT_ARGUMENTS}", "keep_scale")


def dropout_add(
    x: np.ndarray,
    residual: np.ndarray,
    p: float = 0.0,
    key: int = 0,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Return residual + dropout(x), for two arrays (*) of one shape and dtype; p in [0, 1).

    `out`, contiguous and of that shape and dtype float32 or float64, may be one of the two.
    """
    x_packed, residual_packed = contiguous(x), contiguous(residual)
    y = memory.empty(x.shape, x_packed.dtype) if out is None else out
    arrays = address(x_packed), address(residual_packed), address(y)
    _run(y.dtype, tasks_for(y.size), *arrays, y.size, *dropout_arguments(p, key), 1 / (1 - p))
    return y if y.dtype == x.dtype else y.astype(x.dtype)


def add(a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Return a + b, for two arrays (*) of one shape and dtype, by all threads if they are large."""
    large = a.nbytes >= memory.SMALLEST or recording.calls is not None
    if large and a.flags.c_contiguous and b.flags.c_contiguous and a.dtype.char in "fd":
        return dropout_add(a, b, out=out)
    return np.asarray(np.add(a, b, out))
