"""Dropout with a counter-based random number generator, and elementwise functions before it.

    y = mask * f(x) / (1 - p),  mask = random_word(key, index) >= p 2^32

The random word is a function of a 64-bit key and of the element's index alone. So no mask is
stored: the backward pass computes it again, its value does not depend on the number of threads, and
any kernel may fuse dropout. Indices count modulo 2^32. That random numbers come from a counter is
the idea of J. Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011. Their
Philox4x32 takes ten rounds of 64-bit products; this is cheaper, the 32-bit hash "triple32" of
C. Wellons' Hash Prospector (2018) with half of the key added before each of its first two rounds:
some fifteen vector instructions for 8 or 16 elements. The key is mixed as in SplitMix64 (G. Steele,
D. Lea, C. Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014).

The kernel works in chunks that stay in the first-level cache: it copies one, applies f in place,
then dropout in place, while the next chunk is fetched. It is every activation too, with dropout or
without (`map_elements`). Bound by memory, one read and one write, or by f.
"""

from __future__ import annotations

import numpy as np

from .. import memory
from .jit import jit
from .parallel import (
    NativeFunction,
    ParallelKernel,
    address,
    array_at,
    call_native,
    contiguous,
    tasks_for,
    unpacked,
)
from .simd import prefetch

CHUNK = 1 << 8  # elements
SERIAL = 1 << 15  # elements up to which other threads do not pay
_u32 = np.uint32
M1, M2, M3 = _u32(0xED5AD4BB), _u32(0xAC4C1B51), _u32(0x31848BAB)
_11, _14, _15, _17 = _u32(11), _u32(14), _u32(15), _u32(17)


def key_words(key: int) -> tuple[int, int]:
    """Return two 32-bit words of a 64-bit key, unrelated for neighbouring keys (SplitMix64)."""
    z = (key + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    z ^= z >> 31
    return z >> 32, z & 0xFFFFFFFF


def shift_key(key: int, n: int) -> int:
    """Return the key whose word of index i is the word of index n + i of `key`.

    That is `key_words` backwards, of its words with n added to the first.
    """
    first, second = key_words(key)
    z = (first + n & 0xFFFFFFFF) << 32 | second
    z ^= z >> 31 ^ z >> 62
    z = z * pow(0x94D049BB133111EB, -1, 2**64) & 0xFFFFFFFFFFFFFFFF
    z ^= z >> 27 ^ z >> 54
    z = z * pow(0xBF58476D1CE4E5B9, -1, 2**64) & 0xFFFFFFFFFFFFFFFF
    z ^= z >> 30 ^ z >> 60
    return z - 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF


def keep_threshold(p: float) -> int:
    """Return the least random word that keeps an element, for a probability p in [0, 1)."""
    threshold = min(round(p * 2**32), 0xFFFFFFFF)
    THRESHOLDS.add(threshold)
    return threshold


THRESHOLDS: set[int] = set()  # those that kernels were given


@jit
def random_word(key0: np.uint32, key1: np.uint32, index: np.uint32) -> np.uint32:
    """Return 32 random bits, a function of the two words of the key and of the index.

    `random_word(key0 + n, key1, i)` is `random_word(key0, key1, n + i)`.
    """
    x = _u32(index + key0)  # every step cast: Numba widens, and LLVM must see 32 bits
    x = _u32((x ^ (x >> _17)) * M1)
    x = _u32(x + key1)
    x = _u32((x ^ (x >> _11)) * M2)
    x = _u32((x ^ (x >> _15)) * M3)
    return _u32(x ^ (x >> _14))


@jit
def dropout_in_place(s, y, start):  # type: ignore[no-untyped-def]
    """Apply dropout to y in place; y[0] is element `start` of the whole array."""
    scale, zero = y.dtype.type(s.keep_scale), y.dtype.type(0)
    key0, key1, threshold = _u32(s.key0 + start), _u32(s.key1), _u32(s.threshold)
    for i in range(y.size):
        y[i] *= scale if random_word(key0, key1, _u32(i)) >= threshold else zero


@jit
def prefetch_chunk(address: int, itemsize: int) -> None:
    """Hint that the chunk at an address is needed soon."""
    for line in range(address, address + CHUNK * itemsize, 64):
        prefetch(line)


def _map(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    """Do one task's chunks: copy, apply the function in place, then dropout in place."""
    s = unpacked(arguments)
    x_all, y_all = array_at(exemplar, s.x, (s.size,)), array_at(exemplar, s.y, (s.size,))
    chunks = -(-s.size // CHUNK)
    for chunk in range(chunks * task // tasks, chunks * (task + 1) // tasks):
        start = chunk * CHUNK
        stop = min(s.size, start + CHUNK)
        x, y = x_all[start:stop], y_all[start:stop]
        prefetch_chunk(s.x + (start + CHUNK) * y.itemsize, y.itemsize)
        prefetch_chunk(s.y + (start + CHUNK) * y.itemsize, y.itemsize)
        if s.x != s.y:
            for i in range(y.size):
                y[i] = x[i]
        if s.function != 0:
            call_native(s.function, y, (y.size, s.y + start * y.itemsize))
        if s.drops != 0:
            dropout_in_place(s, y, start)


DROPOUT_ARGUMENTS = "drops key0 key1 threshold"  # of kernels with dropout, and "keep_scale"
_run = ParallelKernel(_map, f"x y size function {DROPOUT_ARGUMENTS}", "keep_scale")


def dropout_arguments(p: float, key: int) -> tuple[int, int, int, int]:
    """Return the values of DROPOUT_ARGUMENTS."""
    return (1, *key_words(key), keep_threshold(p)) if p else (0, 0, 0, 0)


def map_elements(
    function: int, x: np.ndarray, out: np.ndarray | None, p: float, key: int, serial: int = SERIAL
) -> np.ndarray:
    """Return dropout(f(x), p, key): (*) -> (*).

    `function` is the address of f, a `NativeFunction` of (size, address) that works in place, or 0
    for the identity. `out` is contiguous and of the dtype of x, then float32 or float64, or x
    itself. Above `serial` elements threads share the work.
    """
    packed = contiguous(x)
    y = memory.empty(x.shape, packed.dtype) if out is None else out
    tasks = tasks_for(x.size, serial)
    drops = dropout_arguments(p, key)
    _run(y.dtype, tasks, address(packed), address(y), y.size, function, *drops, 1 / (1 - p))
    return y if y.dtype == x.dtype else y.astype(x.dtype)


def map_few(function: NativeFunction, x: np.ndarray) -> np.ndarray:
    """Return f(x) of at most a chunk of float32 or float64: `map_elements` for a small array."""
    y = x.copy()
    function.run(y.dtype, y.size, address(y))
    return y


def dropout(x: np.ndarray, p: float, key: int) -> np.ndarray:
    """Return x (*) times 0 with probability p, otherwise times 1 / (1 - p); p in [0, 1)."""
    return map_elements(0, x, None, p, key)
