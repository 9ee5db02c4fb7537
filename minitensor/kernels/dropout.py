"""Dropout: y = keep * x / (1 - p), where keep(key, index) is a random function, not a stored mask.

Whether an element is kept follows from a 64-bit key and the element's position alone, so the
backward pass computes the same mask again, any number of threads finds the same one, and a kernel
that fuses dropout with something else asks `random_word` for it. Positions count modulo 2^32.

The function mixes the position with both halves of the key by three rounds of xor-shift and
multiply in 32-bit words: some fifteen vector instructions for 8 or 16 elements, about what the
memory traffic takes. The constants are those of C. Wellons' "triple32" (Hash Prospector, 2018).

The kernel works in pieces that stay in the first-level cache, and applies a function to each before
it drops elements: `mapped` is every activation too, with dropout or without.
"""

from __future__ import annotations

import numpy as np

from .. import memory
from .jit import get_num_threads, jit
from .tasks import Tasks, address, array_at, call_part, unpacked

PIECE = 1 << 11  # elements
SERIAL = 1 << 15  # elements up to which other threads do not pay
_u32 = np.uint32
_M1, _M2, _M3 = _u32(0xED5AD4BB), _u32(0xAC4C1B51), _u32(0x31848BAB)
_11, _14, _15, _17 = _u32(11), _u32(14), _u32(15), _u32(17)


def key_words(key: int) -> tuple[int, int]:
    """Two 32-bit words of a 64-bit key, unrelated for neighbouring keys (splitmix64)."""
    z = (key + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    z ^= z >> 31
    return z >> 32, z & 0xFFFFFFFF


def keep_threshold(p: float) -> int:
    """A random word below this means "drop", for a probability p in [0, 1)."""
    return min(round(p * 2**32), 0xFFFFFFFF)


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
def drop(s, y, start):  # type: ignore[no-untyped-def]
    """Dropout of y in place, which begins with element `start` of the whole."""
    scale, zero = y.dtype.type(s.keep_scale), y.dtype.type(0)
    key0, key1, threshold = _u32(s.key0 + start), _u32(s.key1), _u32(s.threshold)
    for i in range(y.size):
        y[i] *= scale if random_word(key0, key1, _u32(i)) >= threshold else zero


def _map(settings, like, task, tasks):  # type: ignore[no-untyped-def]
    """One task's share of the pieces: a copy, the function in place, dropout in place."""
    s = unpacked(settings)
    x_all, y_all = array_at(like, s.x, (s.size,)), array_at(like, s.y, (s.size,))
    pieces = -(-s.size // PIECE)
    for piece in range(pieces * task // tasks, pieces * (task + 1) // tasks):
        start = piece * PIECE
        stop = min(s.size, start + PIECE)
        x, y = x_all[start:stop], y_all[start:stop]
        if s.x != s.y:
            for i in range(y.size):
                y[i] = x[i]
        if s.function != 0:
            call_part(s.function, y, (y.size, s.y + start * y.itemsize))
        if s.drops != 0:
            drop(s, y, start)


DROPS = "drops key0 key1 threshold"  # the settings of `drop`, and "keep_scale"
_run = Tasks(_map, f"x y size function {DROPS}", "keep_scale")


def drop_settings(p: float, key: int) -> tuple[int, int, int, int]:
    """The settings DROPS."""
    return (1, *key_words(key), keep_threshold(p)) if p else (0, 0, 0, 0)


def mapped(
    function: int, x: np.ndarray, out: np.ndarray | None, p: float, key: int, serial: int = SERIAL
) -> np.ndarray:
    """dropout(f(x), p, key), where f works in place and is at the address `function`, or 0.

    `out` is contiguous and of the type of x, which is then float32 or float64, or x itself. Above
    `serial` elements threads share the work.
    """
    packed = contiguous(x)
    y = memory.empty(x.shape, packed.dtype) if out is None else out
    tasks = get_num_threads() if x.size > serial else 1
    drops = drop_settings(p, key)
    _run(
        *(y.dtype, tasks, address(packed), address(y), y.size, function, *drops, 1 / (1 - p)),
    )
    return y if y.dtype == x.dtype else y.astype(x.dtype)


def dropout(x: np.ndarray, p: float, key: int) -> np.ndarray:
    """x (*) times 0 with probability p, else times 1 / (1 - p); p in [0, 1)."""
    return mapped(0, x, None, p, key)


def contiguous(x: np.ndarray) -> np.ndarray:
    """x, or a contiguous copy; float16 becomes float32."""
    if x.itemsize == 2:
        return x.astype(np.float32, "C")
    return x if x.flags.c_contiguous else np.ascontiguousarray(x)
