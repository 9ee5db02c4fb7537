"""Products of matrices of all sizes against NumPy: for the widest vectors, or those asked for.

    MINITENSOR_SIMD=avx2 python tests/sizes.py      # every size from 1 to 70 in each dimension
    MINITENSOR_SIMD=sse python tests/sizes.py 7     # every seventh

Both factors lie in larger arrays, in rows or in columns, at changing offsets, with and without a
bias, and the result is added to one that was there before.
"""

from __future__ import annotations

import itertools
import sys
from typing import Any

import numpy as np

from minitensor.kernels.matmul import matmul
from minitensor.kernels.simd import SIMD

MOST = 70
ROOM = 8  # rows and columns around


def placed(x: np.ndarray, columns: bool, offset: int) -> np.ndarray:
    """A copy of `x` somewhere in a larger array of NaN."""
    shape = tuple(n + ROOM for n in x.shape)
    padded = np.full(shape[::-1], np.nan, x.dtype).T if columns else np.full(shape, np.nan, x.dtype)
    part = padded[offset : offset + x.shape[0], offset : offset + x.shape[1]]
    part[...] = x
    return part


def check(dtype: Any, step: int) -> int:
    """Return the number of products compared; AssertionError for a wrong one."""
    noise = np.random.RandomState(0)
    lengths = range(1, MOST + 1)
    count = 0
    for m, k in itertools.product(lengths, lengths):
        if (m + k) % step:
            continue
        a = noise.uniform(-1, 1, (m, k)).astype(dtype)
        b = noise.uniform(-1, 1, (k, MOST)).astype(dtype)
        bias = noise.uniform(-1, 1, MOST).astype(dtype)
        before = noise.uniform(-1, 1, (m, MOST)).astype(dtype)
        expected = a.astype(np.float64) @ b
        bound = (k + 2) * np.finfo(dtype).eps
        for n in lengths:
            kind = m + 3 * k + n
            x = placed(a, kind % 2 == 0, kind % ROOM)
            y = placed(b[:, :n], kind // 2 % 2 == 0, kind // 3 % ROOM)
            extra: Any
            if kind % 3 == 0:
                found, extra = matmul(x, y), 0.0
            elif kind % 3 == 1:
                found, extra = matmul(x, y, bias=bias[:n]), bias[:n]
            else:
                out = placed(before[:, :n], False, kind % ROOM)
                found, extra = matmul(x, y, out, accumulate=True), before[:, :n]
            error = np.abs(found - (expected[:, :n] + extra)).max()
            assert error <= bound, (SIMD, dtype, m, k, n, error)
            count += 1
    return count


if __name__ == "__main__":
    every = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    for dtype in (np.float32, np.float64):
        count = check(dtype, every)
        print(f"{SIMD} {dtype.__name__}: {count} products, sizes 1 to {MOST}, equal NumPy's")
