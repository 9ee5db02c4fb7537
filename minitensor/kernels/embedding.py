"""Sum rows into the places an index names: the gradient of an embedding.

    out (V, E): out[v, e] = sum of values[n, e] over the n with rows[n] == v
    rows (N): in [0, V);  values (N, E)

A token may occur anywhere, so a thread owns columns: 128 of them at a time (512 bytes of float32),
for all n in order. No two threads meet, and the order of every sum, hence its last bit, is the same
on any number of them. Bound by memory: one write of `out`, one read of `values`, N reads and writes
of rows of `out` that mostly sit in cache.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from .jit import jit

_COLUMNS = 128  # a thread's share of a row
_ROWS = 64  # rows zeroed at a time


@jit(parallel=True)
def sum_rows(rows: np.ndarray, values: np.ndarray, out: np.ndarray) -> None:
    """Fill `out` (V, E), uninitialised, with the sums of `values` (N, E) by `rows` (N)."""
    height, width = out.shape
    for block in prange((height + _ROWS - 1) // _ROWS):
        out[block * _ROWS : min(height, (block + 1) * _ROWS)] = 0
    for block in prange((width + _COLUMNS - 1) // _COLUMNS):
        start = block * _COLUMNS
        stop = min(width, start + _COLUMNS)
        for n in range(rows.shape[0]):
            row = rows[n]
            for e in range(start, stop):
                out[row, e] += values[n, e]
