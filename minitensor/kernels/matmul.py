"""The matrix product C = A B, (M, K) by (K, N), also for stacks of matrices; float32 and float64.

A and B may have any strides, so a transpose is no work. C is cut into blocks of COLS columns, and
each block's products are summed over stretches of at most DEPTH of K, so that a stretch of B, laid
out in panels of two vectors' width, stays in the second-level cache while strips of ROWS rows of A,
which stay in the first-level cache, run over it. The innermost piece, a strip times a panel, is
`simd.tile`. Little matrices skip the layout; a single row or column reads the matrix just once.
Threads share the stack, or a grid over C.

What bounds it: the multiply-add units if M, N and K are some tens or more; memory, if M or N is
near 1.

Every element of C is the sum of its stretches in order of k, each summed in order of k: the result
does not depend on the number of threads. Nor does it on the rows and columns computed beside it,
but for a single row or column, which is summed in another order.
"""

from __future__ import annotations

import math
import struct
import threading
from typing import Any

import numpy as np

from .. import memory
from .jit import COMPILED, get_num_threads, jit
from .simd import (
    ROWS,
    VECTOR_BYTES,
    add_rows,
    call_native,
    combine,
    copy,
    copy_transposed,
    dots,
    load,
    size_of,
    store,
    tile,
)
from .tasks import Part, Tasks, address, call_part, integers_at, unpacked

PANEL = 2 * VECTOR_BYTES  # bytes of a row of a panel of B, the width of a tile
DEPTH = 256  # the longest stretch of K
COLS = 8 * PANEL  # bytes of a row of a block of B
DIRECT_ROWS = 2 * ROWS  # with no more rows than this, laying out B does not pay
DIRECT_BYTES = 16384  # nor if B is no bigger than this
PARALLEL = 1 << 19  # multiply-adds worth a second thread

# Bytes of a thread's working memory: a strip of A (of the wider type), an unfinished tile, B, the
# sums of a strip, and what else there is to do.
_STRIP = ROWS * (DEPTH * 8 + VECTOR_BYTES)
_EDGE = ROWS * PANEL
_SUMS = _STRIP + _EDGE + DEPTH * COLS
_ALSO = _SUMS + ROWS * 8 + VECTOR_BYTES
SCRATCH = -(-(_ALSO + 4 * 8) // VECTOR_BYTES) * VECTOR_BYTES


def product(
    like: Any, m: int, n: int, k: int,
    a: int, a_row: int, a_col: int,
    b: int, b_row: int, b_col: int,
    c: int, c_row: int,
    also: int, add: int, scratch: int,
) -> None:  # fmt: skip
    """C = A B, plus C if `add`, on one thread.

    `also` is 0, or the address of four addresses, each 0 or: a row to add to every row of C (if not
    `add`); where to put the sums of the rows of A, whose columns are then contiguous; a function
    `then(like, its settings, place, row, rows, cols)` to call for every finished block of C while
    it is in the first-level cache; and its settings.

    Rows of C are contiguous. Other kernels call it too, at `PRODUCT.address`, with SCRATCH bytes of
    working memory, aligned to a vector.
    """
    size = size_of(like)
    bias = sums = then = settings = 0
    if also != 0:
        more = integers_at(also, 4)
        bias, sums, then, settings = more[0], more[1], more[2], more[3]
    if m == 1 and (b_col == size or (b_row == size and a_col == size)):
        if bias != 0 and add == 0:
            copy(like, c, c_row, bias, 0, 1, n)
            add = 1
        _row(like, n, k, a, a_col, b, b_row, b_col, c, add)
        if then != 0:
            call_native(then, like, (settings, c, c_row, 1, n))
        return
    width, lanes = PANEL // size, VECTOR_BYTES // size
    block = COLS // size
    stretches = -(-k // DEPTH)
    strips = -(-m // ROWS)
    direct = b_col == size and (m <= DIRECT_ROWS or n * k * size <= DIRECT_BYTES)
    edge = scratch + _STRIP
    panels = edge + _EDGE
    for left in range(0, n, block):
        cols = block if n - left > block else n - left
        for s in range(stretches):
            start = k * s // stretches
            depth = k * (s + 1) // stretches - start
            block_b = b + start * b_row + left * b_col
            for j in range(0, cols, width):
                w = width if cols - j > width else cols - j
                if not direct or w < width:
                    panel = panels + j * size * DEPTH
                    _lay_out(like, panel, block_b + j * b_col, b_row, b_col, depth, w)
            for i in range(strips):
                top = m * i // strips
                rows = m * (i + 1) // strips - top
                strip, row, col = a + top * a_row + start * a_col, a_row, a_col
                sum_up = sums != 0 and left == 0
                if cols > 2 * width or sum_up:
                    if a_col == size:
                        copy(like, scratch, DEPTH * size + VECTOR_BYTES, strip, row, rows, depth)
                        strip, row = scratch, DEPTH * size + VECTOR_BYTES
                    elif a_row == size:
                        copy(like, scratch, ROWS * size, strip, col, depth, rows)
                        strip, col = scratch, ROWS * size
                if sum_up:
                    total = scratch + _SUMS
                    add_rows(like, depth, scratch, total)
                    for r in range(0, rows * size, size):
                        place = sums + top * size + r
                        before = load(like, place) if s > 0 else 0.0
                        store(like, before + load(like, total + r), place)
                for j in range(0, cols, width):
                    w = width if cols - j > width else cols - j
                    panel, panel_row = panels + j * size * DEPTH, PANEL
                    if direct and w == width:
                        panel, panel_row = block_b + j * b_col, b_row
                    place = c + top * c_row + (left + j) * size
                    plus, plus_row = 0, 0
                    if s > 0 or add != 0:
                        plus, plus_row = place, c_row
                    elif bias != 0:
                        plus = bias + (left + j) * size
                    vectors = 1 if w <= lanes else 2
                    whole = w == vectors * lanes
                    target, target_row = (place, c_row) if whole else (edge, PANEL)
                    if plus != 0 and not whole:
                        copy(like, edge, PANEL, plus, plus_row, rows, w)
                        plus, plus_row = edge, PANEL
                    tile(
                        like, rows, vectors, depth, strip, row, col, panel, panel_row,
                        target, target_row, plus, plus_row,
                    )  # fmt: skip
                    if not whole:
                        copy(like, place, c_row, edge, PANEL, rows, w)
                if then != 0 and s == stretches - 1:
                    call_native(
                        then, like, (settings, c + top * c_row + left * size, c_row, rows, cols)
                    )


@jit
def _lay_out(like: Any, to: int, source: int, row: int, col: int, rows: int, cols: int) -> None:
    """Copy (rows, cols) elements of B to a panel; right of them stays what there was."""
    size = size_of(like)
    if col == size:
        copy(like, to, PANEL, source, row, rows, cols)
    elif row == size and rows * size >= VECTOR_BYTES:
        copy_transposed(like, to, PANEL, source, col, rows, cols)
    else:
        for k in range(rows):
            for j in range(cols):
                store(like, load(like, source + k * row + j * col), to + k * PANEL + j * size)


@jit(fastmath=False)  # every sum in the order given
def _row(
    like: Any, n: int, k: int, x: int, x_step: int, b: int, b_row: int, b_col: int, y: int, add: int
) -> None:
    """A row y = x B, plus y if `add`; columns of B and x, or rows of B are contiguous."""
    size = size_of(like)
    if b_col == size:
        i = 0
        while i < k:
            count = 8 if k - i >= 8 else 1
            more = 1 if i > 0 else add
            combine(like, count, n, x + i * x_step, x_step, b + i * b_row, b_row, y, more)
            i += count
    else:
        j = 0
        while j < n:
            count = 4 if n - j >= 4 else 1
            dots(like, count, k, b + j * b_col, b_col, x, y + j * size, add)
            j += count


def _share(settings: Any, like: Any, task: int, tasks: int) -> None:
    """What one of `tasks` does of a two-dimensional stack of products."""
    s = unpacked(settings)
    size = size_of(like)
    width = PANEL // size
    count = s.outer * s.inner
    strips, panels = -(-s.m // ROWS), -(-s.n // width)
    # A long stack is shared out whole; else every matrix is cut into a grid of as many pieces as
    # there are tasks, the cheapest one, counting products and the copies of A and B.
    down = across = 1
    if count % tasks != 0 and count < 8 * tasks:
        best = math.inf
        for d in range(1, tasks + 1):
            if tasks % d == 0:
                high, wide = -(-strips // d), -(-panels // (tasks // d))
                cost = high * wide + high / 8 + wide / 3
                if cost < best:
                    best, down, across = cost, d, tasks // d
    scratch = s.scratch + task * SCRATCH
    also = scratch + _ALSO if s.bias != 0 or s.sums != 0 or s.then != 0 else 0
    pieces = count * down * across
    for piece in range(pieces * task // tasks, pieces * (task + 1) // tasks):
        item, part = piece // (down * across), piece % (down * across)
        o, i = item // s.inner, item % s.inner
        y, x = part // across, part % across
        top, bottom = (
            s.m * (strips * y // down) // strips,
            s.m * (strips * (y + 1) // down) // strips,
        )
        left, right = panels * x // across * width, panels * (x + 1) // across * width
        right = s.n if right > s.n else right
        if also != 0:
            more = integers_at(also, 4)
            more[0] = s.bias + left * size if s.bias != 0 else 0
            more[1] = s.sums + top * size if s.sums != 0 and x == 0 else 0
            more[2] = s.then
            more[3] = s.then_settings
        call_native(
            s.multiply, like,
            (
                bottom - top, right - left, s.k,
                s.a + o * s.a_outer + i * s.a_inner + top * s.a_row, s.a_row, s.a_col,
                s.b + o * s.b_outer + i * s.b_inner + left * s.b_col, s.b_row, s.b_col,
                s.c + o * s.c_outer + i * s.c_inner + top * s.c_row + left * size, s.c_row,
                also, s.add, scratch,
            ),
        )  # fmt: skip


PRODUCT = Part(product, 14)
_run = Tasks(
    _share,
    """multiply c a b bias sums then then_settings scratch outer inner m n k
    c_outer c_inner c_row a_outer a_inner a_row a_col b_outer b_inner b_row b_col add""",
)


class _Scratch(threading.local):
    """Working memory of a calling thread, for the threads that help it."""

    tasks = 0
    address = 0

    def grow(self, tasks: int) -> None:
        self.memory = np.zeros(tasks * SCRATCH + VECTOR_BYTES, np.uint8)
        self.address = -(-self.memory.ctypes.data // VECTOR_BYTES) * VECTOR_BYTES
        self.tasks = tasks


_scratch = _Scratch()


def matmul(
    a: np.ndarray,
    b: np.ndarray,
    out: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    accumulate: bool = False,
    sums: np.ndarray | None = None,
    then: tuple[int, int] | None = None,
) -> np.ndarray:
    """The product of matrices, stacked along leading dimensions: (*, M, K), (*, K, N) -> (*, M, N).

    Leading dimensions broadcast. `bias`, (N,), is added to every row; with `accumulate` the product
    is added to `out` instead. `sums`, (M,) and contiguous, gets the sums of the rows of the matrix
    a. `then` is the address of a function (a `Part` with five integers: settings, and a place in
    the result, bytes from row to row, rows, columns) and of its settings: it is called for every
    finished block of a result that has no leading dimensions.

    Any strides, one type for all. Types other than float32 and float64 are left to NumPy. Raises
    ValueError if the shapes do not fit.
    """
    dtype = a.dtype
    if dtype.char not in "fd" or not COMPILED:
        return _plain(a, b, out, bias, accumulate, sums, then)
    laid = None if out is None else (out.shape, out.strides)
    key = dtype.char, a.shape, a.strides, b.shape, b.strides, laid, accumulate
    layout = _layouts.get(key)
    if layout is None:
        if len(_layouts) >= _MOST_LAYOUTS:
            _layouts.clear()
        layout = _layouts[key] = _layout(a, b, out, accumulate)
    shape, parallel, swapped, packed = layout
    if not packed:
        return _indirect(a, b, out, bias, accumulate, sums, then)
    if out is None:
        out = memory.empty(shape, dtype)
    if sums is not None:
        row, col = a.strides[-2:]
        if not (shape[-2] > 1 < shape[-1] and row == dtype.itemsize < col):
            sums[...] = a.sum(-1)
            sums = None
    if bias is not None:
        bias = np.repeat(bias, swapped) if swapped else np.ascontiguousarray(bias)
    left, right = (b, a) if swapped else (a, b)
    tasks = get_num_threads() if parallel else 1
    if _scratch.tasks < tasks:
        _scratch.grow(tasks)
    places = _PLACES(
        PRODUCT.address(dtype),
        address(out),
        address(left),
        address(right),
        0 if bias is None else address(bias),
        0 if sums is None else address(sums),
        *(then or (0, 0)),
        _scratch.address,
    )
    _run.packed(dtype, tasks, places + packed)
    return out


Layout = tuple[tuple[int, ...], bool, int, bytes]
_layouts: dict[Any, Layout] = {}
_MOST_LAYOUTS = 4096
_PLACES, _PACK = struct.Struct("=9q").pack, struct.Struct("=17q").pack


def _layout(a: np.ndarray, b: np.ndarray, out: np.ndarray | None, accumulate: bool) -> Layout:
    """The result's shape, whether several threads pay, the rows of A if C^T = B^T A^T is computed
    (else 0), and what the kernel has to know besides addresses: nothing if it takes several calls.

    ValueError if the shapes do not fit.
    """
    shape = _result_shape(a, b, out)
    (*lead, m, n), k = shape, a.shape[-1]
    if out is None:
        out = memory.empty(shape, a.dtype)  # any, laid out as results are
    work = out.size * k
    c_row, c_col = out.strides[-2:]
    if not work or (c_col != a.itemsize and n > 1):
        return shape, False, 0, b""
    a_row, a_col = a.strides[-2:]
    b_row, b_col = b.strides[-2:]
    outer = inner = _ONE
    if lead:
        dims = _dimensions((*lead, m), out, a, b)
        if len(dims) > 1 and dims[-2][3] == dims[-1][3] == 0 and not a.flags.c_contiguous:
            return shape, False, 0, b""
        m, c_row, a_row, _ = dims.pop() if dims and dims[-1][3] == 0 else _ONE
        if len(dims) > 2:
            return shape, False, 0, b""
        if dims:
            inner = dims.pop()
        if dims:
            outer = dims.pop()
    swapped = n == 1 and c_row == a.itemsize  # a column is a row
    if swapped:
        m, n = n, m
        a_row, a_col, b_row, b_col = b_col, b_row, a_col, a_row
        outer, inner = ((x[0], x[1], x[3], x[2]) for x in (outer, inner))
    many, c_outer, a_outer, b_outer = outer
    each, c_inner, a_inner, b_inner = inner
    packed = _PACK(
        many, each, m, n, k,
        c_outer, c_inner, c_row,
        a_outer, a_inner, a_row, a_col,
        b_outer, b_inner, b_row, b_col,
        accumulate,
    )  # fmt: skip
    return shape, work >= PARALLEL, n if swapped else 0, packed


def _indirect(
    a: np.ndarray,
    b: np.ndarray,
    out: np.ndarray | None,
    bias: np.ndarray | None,
    accumulate: bool,
    sums: np.ndarray | None,
    then: tuple[int, int] | None,
) -> np.ndarray:
    """`matmul` where it takes another layout, several calls, or no kernel."""
    shape = _result_shape(a, b, out)
    if not math.prod(shape) * a.shape[-1]:
        return _plain(a, b, out, bias, accumulate, sums, then)
    if out is None:
        out = memory.empty(shape, a.dtype)
    if out.strides[-1] != a.itemsize and shape[-1] > 1:
        whole = np.ascontiguousarray(out) if accumulate else None
        out[...] = matmul(a, b, whole, bias, accumulate, sums, then)
        return out
    dims = _dimensions(shape[:-1], out, a, b)
    if dims[-2][3] == dims[-1][3] == 0 and not a.flags.c_contiguous:
        # A stack that meets one B: as one tall matrix, B is laid out once.
        return matmul(np.ascontiguousarray(a), b, out, bias, accumulate)
    for i in range(shape[0]):
        x, y = (z[i * (len(z) > 1)] if z.ndim == out.ndim else z for z in (a, b))
        matmul(x, y, out[i], bias, accumulate)
    return out


def _plain(
    a: np.ndarray,
    b: np.ndarray,
    out: np.ndarray | None,
    bias: np.ndarray | None,
    accumulate: bool,
    sums: np.ndarray | None,
    then: tuple[int, int] | None,
) -> np.ndarray:
    """`matmul` by NumPy; float16 is summed in float32."""
    shape = _result_shape(a, b, out)
    if out is None:
        out = memory.empty(shape, a.dtype)
    dtype = np.dtype(np.float32) if a.dtype == np.float16 else a.dtype
    product = np.matmul(a.astype(dtype, copy=False), b.astype(dtype, copy=False))
    if bias is not None:
        product += bias
    if accumulate:
        product += out
    out[...] = product
    if sums is not None:
        sums[...] = a.sum(-1)
    if then is not None and out.size:
        call_part(then[0], out, (then[1], address(out), out.strides[0], *out.shape))
    return out


def _result_shape(a: np.ndarray, b: np.ndarray, out: np.ndarray | None) -> tuple[int, ...]:
    """The shape of the product; ValueError if the factors or `out` do not fit."""
    (m, k), (rows, n) = a.shape[-2:], b.shape[-2:]
    if rows != k:
        hint = f". Did you mean x @ w.{'mT' if b.ndim > 2 else 'T'}?" if n == k else ""
        raise ValueError(f"inner dimensions differ: {a.shape} @ {b.shape}{hint}")
    shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), m, n)
    if out is not None and out.shape != shape:
        raise ValueError(f"the product has shape {shape}, out has {out.shape}")
    return shape


_ONE: tuple[int, ...] = (1, 0, 0, 0)


def _dimensions(
    lengths: tuple[int, ...], c: np.ndarray, a: np.ndarray, b: np.ndarray
) -> list[tuple[int, ...]]:
    """The leading dimensions and the rows, merged: the length, and the strides of C, A and B."""
    dims: list[tuple[int, ...]] = []
    for i, length in enumerate(lengths, -len(lengths) - 1):
        if length == 1:
            continue
        steps = [0 if -i > x.ndim or x.shape[i] == 1 else x.strides[i] for x in (c, a, b)]
        if i == -2:
            steps[2] = 0
        if dims and all(s == length * t for s, t in zip(dims[-1][1:], steps, strict=True)):
            length *= dims.pop()[0]
        dims.append((length, *steps))
    return dims
