"""Dropout and a residual sum in one pass: y = residual + dropout(x).

Element by element over flattened arrays, which threads share in equal parts; what is dropped is
what `kernels.dropout` would drop. Bound by memory, or by the random function where x and residual
are in cache.
"""

from __future__ import annotations

import numpy as np

from .. import memory
from .dropout import DROPS, contiguous, drop_settings, random_word
from .jit import get_num_threads, jit
from .tasks import Tasks, address, array_at, unpacked

SERIAL = 1 << 14  # elements up to which waking other threads costs more than it saves

_u32 = np.uint32


@jit
def drop_and_add(s, x, start, residual, out):  # type: ignore[no-untyped-def]
    """out = residual + dropout(x), where x starts at position `start` of an array; all 1-D."""
    keep_scale, zero = x.dtype.type(s.keep_scale), x.dtype.type(0)
    key0, key1, threshold = _u32(s.key0 + start), _u32(s.key1), _u32(s.threshold)
    if s.drops != 0:
        for i in range(x.size):
            factor = keep_scale if random_word(key0, key1, _u32(i)) >= threshold else zero
            out[i] = residual[i] + x[i] * factor
    else:
        for i in range(x.size):
            out[i] = residual[i] + x[i]


def _dropout_add(settings, like, task, tasks):  # type: ignore[no-untyped-def]
    """One task's share of the elements."""
    s = unpacked(settings)
    start, stop = s.size * task // tasks, s.size * (task + 1) // tasks
    x, residual = array_at(like, s.x, (s.size,)), array_at(like, s.residual, (s.size,))
    out = array_at(like, s.out, (s.size,))
    drop_and_add(s, x[start:stop], start, residual[start:stop], out[start:stop])


_run = Tasks(_dropout_add, f"x residual out size {DROPS}", "keep_scale")


def dropout_add(
    x: np.ndarray,
    residual: np.ndarray,
    p: float = 0.0,
    key: int = 0,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """residual + dropout(x), for two arrays (*) of one shape and type; p in [0, 1).

    `out` is contiguous and of that shape and type, float32 or float64; it may be one of the two.
    """
    x_packed, residual_packed = contiguous(x), contiguous(residual)
    y = memory.empty(x.shape, x_packed.dtype) if out is None else out
    tasks = get_num_threads() if y.size > SERIAL else 1
    arrays = address(x_packed), address(residual_packed), address(y)
    _run(y.dtype, tasks, *arrays, y.size, *drop_settings(p, key), 1 / (1 - p))
    return y if y.dtype == x.dtype else y.astype(x.dtype)
