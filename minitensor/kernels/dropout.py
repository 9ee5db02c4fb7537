"""Dropout: y = keep * x / (1 - p), where keep(key, index) is a random function, not a stored mask.

Whether an element is kept follows from a 64-bit key and the element's position alone, so the
backward pass computes the same mask again, any number of threads finds the same one, and a kernel
that fuses dropout with something else asks `random_word` for it. Positions count modulo 2^32.

The function mixes the position with both halves of the key by three rounds of xor-shift and
multiply in 32-bit words: some fifteen vector instructions for 8 or 16 elements, about what the
memory traffic takes. The constants are those of C. Wellons' "triple32" (Hash Prospector, 2018).
"""

from __future__ import annotations

import numpy as np
from numba import prange

from .. import memory
from .activation import flattened
from .jit import jit

_CHUNK = 1 << 15  # elements
_u32 = np.uint32
_M1, _M2, _M3 = _u32(0xED5AD4BB), _u32(0xAC4C1B51), _u32(0x31848BAB)
_11, _14, _15, _17 = _u32(11), _u32(14), _u32(15), _u32(17)


def key_words(key: int) -> tuple[np.uint32, np.uint32]:
    """Two 32-bit words of a 64-bit key, unrelated for neighbouring keys (splitmix64)."""
    z = (key + 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    z ^= z >> 31
    return _u32(z >> 32), _u32(z & 0xFFFFFFFF)


def keep_threshold(p: float) -> np.uint32:
    """A random word below this means "drop", for a probability p in [0, 1)."""
    return _u32(min(round(p * 2**32), 0xFFFFFFFF))


@jit
def random_word(key0: np.uint32, key1: np.uint32, index: np.uint32) -> np.uint32:
    """32 random bits that depend on the two words of the key and on the index.

    `random_word(key0 + n, key1, i)` is `random_word(key0, key1, n + i)`.
    """
    x = _u32(index + key0)  # every step cast: Numba widens, and LLVM must see 32 bits
    x = _u32((x ^ (x >> _17)) * _M1)
    x = _u32(x + key1)
    x = _u32((x ^ (x >> _11)) * _M2)
    x = _u32((x ^ (x >> _15)) * _M3)
    return _u32(x ^ (x >> _14))


@jit
def _dropout(x, y, start, stop, key0, key1, threshold, scale):  # type: ignore[no-untyped-def]
    x, y = x[start:stop], y[start:stop]  # loops from 0 vectorise better
    key0 = _u32(key0 + _u32(start))
    zero = x.dtype.type(0)
    for i in range(x.size):
        y[i] = x[i] * (scale if random_word(key0, key1, _u32(i)) >= threshold else zero)


@jit(parallel=True)
def _dropout_parallel(x, y, key0, key1, threshold, scale):  # type: ignore[no-untyped-def]
    for chunk in prange((x.size + _CHUNK - 1) // _CHUNK):
        start = chunk * _CHUNK
        _dropout(x, y, start, min(start + _CHUNK, x.size), key0, key1, threshold, scale)


def dropout(x: np.ndarray, p: float, key: int) -> np.ndarray:
    """x (*) times 0 with probability p, else times 1 / (1 - p); p in [0, 1)."""
    flat = flattened(x)
    y = memory.empty(x.shape, flat.dtype)
    settings = *key_words(key), keep_threshold(p), flat.dtype.type(1 / (1 - p))
    if x.size <= _CHUNK:
        _dropout(flat, y.reshape(-1), 0, x.size, *settings)
    else:
        _dropout_parallel(flat, y.reshape(-1), *settings)
    return y.astype(x.dtype, copy=False)
