"""The matrix product C = A B, (M, K) by (K, N), also for stacks of matrices; float32 and float64.

A and B may have any strides, so a transpose is no work. C is cut into blocks of COLS columns, and each
block's products are summed over stretches of at most DEPTH of K, so that a stretch of B, laid out in
panels of two vectors' width, stays in the second-level cache while strips of ROWS rows of A, which stay
in the first-level cache, run over it. The innermost piece, a strip times a panel, is `simd.tile`.
Little matrices skip the layout. Threads share the stack, or a grid over C.

What bounds it: the multiply-add units, if K and M are some tens or more; memory, if M or N is near 1.

Every element of C is the sum of its stretches in order of k, each summed in order of k: the result
depends on neither the number of threads nor on the rows and columns computed beside it.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba
import numpy as np

from .. import memory
from .jit import get_num_threads, jit, native
from .simd import (
    ROWS,
    VECTOR_BYTES,
    call_native,
    copy,
    copy_transposed,
    load,
    size_of,
    store,
    tile,
)

PANEL = 2 * VECTOR_BYTES  # bytes of a row of a panel of B, the width of a tile
DEPTH = 256  # the longest stretch of K
COLS = 8 * PANEL  # bytes of a row of a block of B
DIRECT_ROWS = 2 * ROWS  # with no more rows than this, laying out B does not pay
DIRECT_BYTES = 16384  # nor if B is no bigger than this
PARALLEL = 1 << 18  # multiply-adds worth a second thread

# Bytes of a thread's working memory: a strip of A (of the wider type), an unfinished tile; then B.
_STRIP = ROWS * (DEPTH * 8 + VECTOR_BYTES)
_FIXED = _STRIP + ROWS * PANEL


def _product(
    like: Any, m: int, n: int, k: int,
    a: int, a_row: int, a_col: int,
    b: int, b_row: int, b_col: int,
    c: int, c_row: int,
    bias: int, add: int, scratch: int,
) -> None:  # fmt: skip
    """One product on one thread: C = A B, plus C if `add`, else plus `bias` (an address, 0 for none)."""
    size = size_of(like)
    width, lanes = PANEL // size, VECTOR_BYTES // size
    block = COLS // size
    stretches = -(-k // DEPTH)
    strips = -(-m // ROWS)
    direct = b_col == size and (m <= DIRECT_ROWS or n * k * size <= DIRECT_BYTES)
    edge = scratch + _STRIP
    panels = scratch + _FIXED
    for left in range(0, n, block):
        cols = min(block, n - left)
        for s in range(stretches):
            start = k * s // stretches
            depth = k * (s + 1) // stretches - start
            block_b = b + start * b_row + left * b_col
            for j in range(0, cols, width):
                if not direct or cols - j < width:
                    panel = panels + j * size * DEPTH
                    _lay_out(
                        like, panel, block_b + j * b_col, b_row, b_col, depth, min(width, cols - j)
                    )
            for i in range(strips):
                top = m * i // strips
                rows = m * (i + 1) // strips - top
                strip, row, col = a + top * a_row + start * a_col, a_row, a_col
                if cols > 2 * width:
                    if a_col == size:
                        copy(like, scratch, DEPTH * size + VECTOR_BYTES, strip, row, rows, depth)
                        strip, row = scratch, DEPTH * size + VECTOR_BYTES
                    elif a_row == size:
                        copy(like, scratch, ROWS * size, strip, col, depth, rows)
                        strip, col = scratch, ROWS * size
                for j in range(0, cols, width):
                    w = min(width, cols - j)
                    panel, panel_row = panels + j * size * DEPTH, PANEL
                    if direct and w == width:
                        panel, panel_row = block_b + j * b_col, b_row
                    place = c + top * c_row + (left + j) * size
                    more = 1 if s > 0 else add
                    if more == 0 and bias != 0:
                        copy(like, place, c_row, bias + (left + j) * size, 0, rows, w)
                        more = 1
                    vectors = 1 if w <= lanes else 2
                    whole = w == vectors * lanes
                    target, target_row = (place, c_row) if whole else (edge, PANEL)
                    if more == 1 and not whole:
                        copy(like, edge, PANEL, place, c_row, rows, w)
                    tile(
                        like,
                        rows,
                        vectors,
                        depth,
                        strip,
                        row,
                        col,
                        panel,
                        panel_row,
                        target,
                        target_row,
                        more,
                    )
                    if not whole:
                        copy(like, place, c_row, edge, PANEL, rows, w)


@jit
def _lay_out(like: Any, to: int, source: int, row: int, col: int, rows: int, cols: int) -> None:
    """Copy (rows, cols) elements of B to a panel; what is right of them is set to zero."""
    size = size_of(like)
    if cols * size < PANEL:
        for i in range(to, to + rows * PANEL, size):
            store(like, 0.0, i)
    if col == size:
        copy(like, to, PANEL, source, row, rows, cols)
    elif row == size and rows * size >= VECTOR_BYTES:
        copy_transposed(like, to, PANEL, source, col, rows, cols)
    else:
        for k in range(rows):
            for j in range(cols):
                store(like, load(like, source + k * row + j * col), to + k * PANEL + j * size)


@functools.cache
def _native(dtype: Any) -> int:
    """The address of `_product` for a type."""
    like = numba.types.CPointer(numba.from_dtype(dtype))
    return native(_product, numba.types.void(like, *[numba.types.int64] * 14))


@jit(parallel=True)
def _stack(
    product: int, c: Any, a: Any, b: Any, bias: Any, scratch: Any, shape: Any,
    c_strides: Any, a_strides: Any, b_strides: Any, has_bias: bool, add: bool, tasks: int, own: int,
) -> None:  # fmt: skip
    """The products of a two-dimensional stack of matrices. Arrays show first elements alone."""
    outer, inner, m, n, k = shape
    c0, a0, b0, bias0 = c.ctypes.data, a.ctypes.data, b.ctypes.data, bias.ctypes.data
    scratch0 = (scratch.ctypes.data + VECTOR_BYTES - 1) // VECTOR_BYTES * VECTOR_BYTES
    size = a.itemsize
    count = outer * inner
    strips, panels = -(-m // ROWS), -(-n * size // PANEL)
    # A long stack is shared out whole; else every matrix is cut into a grid of as many pieces as there
    # are tasks, the cheapest one: that counts products, and copies of A and B.
    down = across = 1
    if count % tasks != 0 and count < 8 * tasks:
        best = math.inf
        for d in range(1, tasks + 1):
            if tasks % d == 0:
                high, wide = -(-strips // d), -(-panels // (tasks // d))
                cost = high * wide + high / 8 + wide / 3
                if cost < best:
                    best, down, across = cost, d, tasks // d
    pieces = count * down * across
    for task in numba.prange(tasks):
        for piece in range(pieces * task // tasks, pieces * (task + 1) // tasks):
            item, part = piece // (down * across), piece % (down * across)
            o, i = item // inner, item % inner
            y, x = part // across, part % across
            top = m * (strips * y // down) // strips
            bottom = m * (strips * (y + 1) // down) // strips
            left = min(n, panels * x // across * (PANEL // size))
            right = min(n, panels * (x + 1) // across * (PANEL // size))
            call_native(
                product, c,
                (
                    bottom - top, right - left, k,
                    a0 + o * a_strides[0] + i * a_strides[1] + top * a_strides[2],
                    a_strides[2], a_strides[3],
                    b0 + o * b_strides[0] + i * b_strides[1] + left * b_strides[3],
                    b_strides[2], b_strides[3],
                    c0 + o * c_strides[0] + i * c_strides[1] + top * c_strides[2] + left * size,
                    c_strides[2],
                    bias0 + left * size if has_bias else 0, np.int64(add), scratch0 + task * own,
                ),
            )  # fmt: skip


def matmul(
    a: np.ndarray,
    b: np.ndarray,
    out: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    accumulate: bool = False,
) -> np.ndarray:
    """The product of matrices, stacked along leading dimensions: (*, M, K), (*, K, N) -> (*, M, N).

    Leading dimensions broadcast. `bias`, (N,), is added to every row; with `accumulate` the product is
    added to `out` instead. Any strides, one type for all. Types other than float32 and float64 are left
    to NumPy. Raises ValueError if the shapes do not fit.
    """
    m, k = a.shape[-2:]
    n = b.shape[-1]
    if b.shape[-2] != k:
        raise ValueError(f"inner dimensions differ: {a.shape} @ {b.shape}")
    lead = a.shape[:-2]
    if lead != b.shape[:-2]:
        lead = np.broadcast_shapes(lead, b.shape[:-2])
    shape = (*lead, m, n)
    if out is None:
        out = memory.empty(shape, a.dtype)
    elif out.shape != shape:
        raise ValueError(f"the product has shape {shape}, out has {out.shape}")
    if out.size == 0:
        return out
    if k == 0 or a.dtype.char not in "fd" or numba.config.DISABLE_JIT:
        _plain(a, b, out, bias, accumulate)
        return out
    if n > 1 and out.strides[-1] != out.itemsize:
        whole = np.ascontiguousarray(out) if accumulate else None
        out[...] = matmul(a, b, whole, bias, accumulate)
        return out

    outer, inner = (1, 0, 0, 0), (1, 0, 0, 0)
    if lead:
        dims = _dimensions(lead, out, a, b)
        # Rows that all meet the same B are one taller matrix.
        if dims and dims[-1][1:] == (m * out.strides[-2], m * a.strides[-2], 0):
            m *= dims.pop()[0]
        if len(dims) > 2:
            for i in range(lead[0]):
                parts = [x[i * (len(x) > 1)] if x.ndim == out.ndim else x for x in (a, b)]
                matmul(*parts, out[i], bias, accumulate)
            return out
        if dims:
            inner = dims.pop()
        if dims:
            outer = dims.pop()
    tasks = get_num_threads() if outer[0] * inner[0] * m * n * k >= PARALLEL else 1
    own = _FIXED + DEPTH * min(COLS, -(-n * a.itemsize // PANEL) * PANEL)
    scratch = memory.empty(tasks * own + VECTOR_BYTES, np.uint8)
    _stack(
        _native(a.dtype),
        _first(out),
        _first(a),
        _first(b),
        scratch if bias is None else _first(np.ascontiguousarray(bias)),
        scratch,
        (outer[0], inner[0], m, n, k),
        (outer[1], inner[1], out.strides[-2]),
        (outer[2], inner[2], *a.strides[-2:]),
        (outer[3], inner[3], *b.strides[-2:]),
        bias is not None,
        accumulate,
        tasks,
        own,
    )
    return out


def _plain(
    a: np.ndarray, b: np.ndarray, out: np.ndarray, bias: np.ndarray | None, accumulate: bool
) -> None:
    """`matmul` by NumPy; float16 is summed in float32."""
    dtype = np.dtype(np.float32) if a.dtype == np.float16 else a.dtype
    product = np.matmul(a.astype(dtype, copy=False), b.astype(dtype, copy=False))
    if bias is not None:
        product += bias
    if accumulate:
        product += out
    out[...] = product


def _dimensions(lead: tuple[int, ...], *arrays: np.ndarray) -> list[tuple[int, ...]]:
    """The leading dimensions, as few as they can be: of each, length and stride in each array."""
    dims: list[tuple[int, ...]] = []
    for i, length in enumerate(lead):
        if length == 1:
            continue
        strides = []
        for x in arrays:
            j = i - len(lead) + x.ndim - 2
            strides.append(0 if j < 0 or x.shape[j] == 1 else x.strides[j])
        if dims and all(s == length * t for s, t in zip(dims[-1][1:], strides, strict=True)):
            length *= dims.pop()[0]
        dims.append((length, *strides))
    return dims


class _Alias:
    """Memory as something that may be written to: compiled code has another version if not."""

    def __init__(self, x: np.ndarray) -> None:
        interface = x.__array_interface__
        self.__array_interface__ = {**interface, "data": (interface["data"][0], False)}


def _first(x: np.ndarray) -> np.ndarray:
    """The first element as an array, whose type is the same whatever the dimensions and strides of x."""
    first = x[(0,) * (x.ndim - 1)][:1]
    return first if first.flags.writeable else np.asarray(_Alias(first))
