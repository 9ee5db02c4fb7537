"""Products of matrices of all sizes against NumPy: for the widest vectors, or those asked for.

    MINITENSOR_SIMD=avx2 python tests/sizes.py        # every size from 1 to 70 in each dimension
    MINITENSOR_SIMD=sse python tests/sizes.py 7       # every seventh

    MINITENSOR_SIMD=sse+bf16 python tests/sizes.py    # rounded to bfloat16, too

Both factors lie in larger arrays, in rows or in columns, at changing offsets, with and without a
bias, and the result is added to one that was there before; with a bias, B is also packed in panels
beforehand. Products rounded to bfloat16 have the same bits for all vectors, in hardware and in
software, so their checksums are equal. Only ARM's instruction sums otherwise; there the errors
alone are compared.
"""

from __future__ import annotations

import itertools
import sys
import zlib
from typing import Any

import numpy as np

from minitensor.kernels.matmul import matmul
from minitensor.kernels.panels import Panels
from minitensor.kernels.precision import rounding
from minitensor.kernels.simd import BFLOAT16, SIMD

MOST = 70
ROOM = 8  # rows and columns around


def placed(x: np.ndarray, columns: bool, offset: int) -> np.ndarray:
    """A copy of `x` somewhere in a larger array of NaN."""
    shape = tuple(n + ROOM for n in x.shape)
    padded = np.full(shape[::-1], np.nan, x.dtype).T if columns else np.full(shape, np.nan, x.dtype)
    part = padded[offset : offset + x.shape[0], offset : offset + x.shape[1]]
    part[...] = x
    return part


def rounded(x: np.ndarray) -> np.ndarray:
    """The nearest bfloat16 of each float32, half to even, as float32."""
    bits = x.view(np.uint32)
    upper = bits + (0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
    return np.where(np.isnan(x), x, upper.astype(np.uint32).view(np.float32))


def check(dtype: Any, step: int, rounds: bool = False) -> tuple[int, int]:
    """Return the number of products compared and their checksum; AssertionError for a wrong one."""
    noise = np.random.RandomState(0)
    lengths = range(1, MOST + 1)
    count = checksum = 0
    for m, k in itertools.product(lengths, lengths):
        if (m + k) % step:
            continue
        a = noise.uniform(-1, 1, (m, k)).astype(dtype)
        b = noise.uniform(-1, 1, (k, MOST)).astype(dtype)
        bias = noise.uniform(-1, 1, MOST).astype(dtype)
        before = noise.uniform(-1, 1, (m, MOST)).astype(dtype)
        expected = (rounded(a) if rounds else a).astype(np.float64) @ (rounded(b) if rounds else b)
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
                packed = Panels(y.T).product(a, bias[:n])
                assert np.abs(packed - found).max() <= bound, (SIMD, dtype, rounds, m, k, n)
                assert not rounds or packed.tobytes() == found.tobytes()
            else:
                out = placed(before[:, :n], False, kind % ROOM)
                found, extra = matmul(x, y, out, accumulate=True), before[:, :n]
            error = np.abs(found - (expected[:, :n] + extra)).max()
            assert error <= bound, (SIMD, dtype, rounds, m, k, n, error)
            count += 1
            checksum = zlib.crc32(found.tobytes(), checksum)
    return count, checksum


if __name__ == "__main__":
    every = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    for dtype in (np.float32, np.float64):
        count, _ = check(dtype, every)
        print(f"{SIMD} {dtype.__name__}: {count} products, sizes 1 to {MOST}, equal NumPy's")
    if BFLOAT16:
        module = vars(sys.modules[matmul.__module__])
        module["ROUNDS"] = 1  # small ones too,
        module["_layouts"].clear()  # also of shapes that were multiplied before
        with rounding(True):
            count, checksum = check(np.float32, every, rounds=True)
        print(f"{SIMD} bfloat16: {count} products equal NumPy's, checksum {checksum}")
