"""The matrix product C = A B on one thread, (M, K) by (K, N): float32, float64, or bfloat16 panels.

The loops are those of GotoBLAS and BLIS around a microkernel (`kernels.microkernel`):

    for each block of NC columns of C
        for each block of at most KC of K
            pack KC x NC of B into micropanels of NR columns   (second-level cache)
            for each MR rows of A
                pack MR x KC of A, if it lies in columns; several at a time
                for each NR columns: the microkernel updates MR x NR of C in registers
                in the last block of K: the epilogue, on MR x NC of C in cache

A micropanel of A stays in the first-level cache while it is used. Rows of A are read where they
are, unless they are so far apart that they share a set of that cache. Columns of A are packed, as
neighbours in k would lie on different pages; several micropanels together, as neighbouring ones lie
in the same cache lines. A and B may have any strides. Little matrices are read where they are, and
so is B for a single row of C, and for a few rows if its columns are contiguous, or if it lies in
micropanels already (`kernels.panels`). Bound by the multiply-add units if M, N and K are some tens
or more, and by memory if M or N is near 1. On a Xeon whose core multiplies and adds 205 GFLOP/s at
most, the microkernel alone reaches 170 and a product of some hundreds each way 150 to 165: packing
A takes up to 7 % of the time, packing B 4 %.

`_gemm` is compiled for each number format (`kernels.formats`). With bfloat16 it takes KC pairs of
K at a time, A and B are always packed, which rounds them, and `row_sums` are those of A as it is.

Every element of C is the sum of its KC blocks in order, each summed in order of k. It depends
neither on the number of threads nor on the rows and columns computed with it, except that a few
rows of float32 or float64 are summed in another order, which is the same for 1 to 8.

K. Goto, R. van de Geijn, "Anatomy of High-Performance Matrix Multiplication", ACM Transactions on
Mathematical Software 34(3), 2008. F. Van Zee, R. van de Geijn, "BLIS: A Framework for Rapidly
Instantiating BLAS Functionality", ACM Transactions on Mathematical Software 41(3), 2015.
"""

from __future__ import annotations

import ctypes
import threading
from typing import Any, ClassVar

import numpy as np

from .formats import Rounded, depth_of
from .jit import COMPILED, jit
from .microkernel import axpyf, dotxf, microkernel
from .pack import (
    column_sums,
    copy,
    pack_across,
    pack_along,
    pack_elements,
    pack_transposed,
)
from .parallel import NativeFunction, address, call_native, integers_at
from .simd import MR, VECTOR_BYTES, itemsize_of, load, store

NR_BYTES = 2 * VECTOR_BYTES  # of the NR columns of the microkernel's tile
NC_BYTES = 16 * NR_BYTES  # the block of B takes 512 KB with AVX-512, 256 with AVX2, else 128
KC = 256
IN_PANELS = -1  # in place of the stride of B's rows: B is in micropanels, whole rows of K each
_UNPACKED_ROWS = 2 * MR  # with at most so many rows of A, packing B does not pay
_UNPACKED_CLOSE = 8 * MR, 2048  # nor with so many if rows of B are at most so many bytes apart
_UNPACKED_BYTES = 16384  # nor if B has at most so many bytes
_PANELS = 8  # micropanels of A that are packed together
_SLAB = 8  # rows of B or A^T copied at a time: as many cache lines as may share a set
_ALIAS = 4096  # bytes between addresses that share a set of the first-level cache
_DOT_ROWS = 16  # with at most so many rows of A, B^T is read in place, row by row

# A thread's workspace, in bytes: micropanels of A (of the wider type), MR rows of A to be summed, a
# tile of C that is partly outside of C, the block of B, the sums, and the epilogue's arguments.
_A_ROW_PAD = VECTOR_BYTES
_A_PANEL = MR * (KC * 8 + _A_ROW_PAD)
_SUMMED = _PANELS * _A_PANEL
_TILE = _SUMMED + MR * KC * 8 + VECTOR_BYTES
_B = _TILE + MR * NR_BYTES
_ROW_SUMS = _B + KC * NC_BYTES
EPILOGUE = _ROW_SUMS + MR * 8 + VECTOR_BYTES
WORKSPACE_BYTES = -(-(EPILOGUE + 4 * 8) // VECTOR_BYTES) * VECTOR_BYTES


def _gemm(
    exemplar: Any, m: int, n: int, k: int,
    a: int, a_row: int, a_col: int,
    b: int, b_row: int, b_col: int,
    c: int, c_row: int,
    epilogue: int, accumulate: int, workspace: int,
) -> None:  # fmt: skip
    """C = A B, or C += A B with `accumulate`; rows of C are contiguous.

    With `b_row` IN_PANELS, `b` is the address of B's micropanels, of rows of units NR_BYTES apart,
    and `b_col` the bytes of a micropanel for each of its NR columns; `n` counts from a micropanel.

    `workspace` is the address of WORKSPACE_BYTES bytes, aligned to a vector. `epilogue` is 0 or the
    address of four addresses, each of which may be 0:

    - a bias to add to every row of C, unless `accumulate` is set;
    - the place for the sums of the rows of A, whose columns are then contiguous;
    - a native function `f(exemplar, state, block, row_stride, rows, cols)` to call for every
      finished block of C while it is in cache;
    - that function's `state`.
    """
    if m == 0 or n == 0:  # a task without a share of C
        return
    size = itemsize_of(exemplar)
    bias = row_sums = function = state = 0
    if epilogue != 0:
        given = integers_at(epilogue, 4)
        bias, row_sums, function, state = given[0], given[1], given[2], given[3]
    unit = depth_of(exemplar)  # elements in k
    in_panels = b_row == IN_PANELS
    if unit == 1 and row_sums == 0 and m <= few_rows(size, a_col, b_row, b_col):
        if bias != 0 and accumulate == 0:
            copy(exemplar, c, c_row, bias, 0, m, n)
            accumulate = 1
        if b_row == size and a_col == size:
            _dots(exemplar, m, n, k, a, a_row, b, b_col, c, c_row, accumulate)
        else:
            _gemv(exemplar, n, k, a, a_col, b, b_row, c, accumulate)
        if function != 0:
            call_native(function, exemplar, (state, c, c_row, m, n))
        return
    nr, lanes, nc = NR_BYTES // size, VECTOR_BYTES // size, NC_BYTES // size
    units = -(-k // unit)
    k_blocks = -(-units // KC)
    height = -(-m // -(-m // MR))  # of micropanels of A
    aliases = a_row % _ALIAS == 0
    b_panel_bytes = KC * NR_BYTES
    few = m <= _UNPACKED_ROWS or (m <= _UNPACKED_CLOSE[0] and b_row <= _UNPACKED_CLOSE[1])
    unpacked_b = unit == 1 and b_col == size and (few or n * k * size <= _UNPACKED_BYTES)
    tile, packed_b = workspace + _TILE, workspace + _B
    for left in range(0, n, nc):
        cols = nc if n - left > nc else n - left
        sums_rows = row_sums != 0 and left == 0
        packed_a = unit > 1 or sums_rows or (cols > 2 * nr and (a_row == size or aliases))
        for block in range(k_blocks):
            start = unit * (units * block // k_blocks)
            depth = min(k, unit * (units * (block + 1) // k_blocks)) - start
            steps = -(-depth // unit)
            b_block = b + start * b_row + left * b_col
            first = cols // nr if unpacked_b else 0  # panel of B that is packed
            if in_panels:
                b_block = b + start // unit * NR_BYTES + left * b_col
            else:
                pack_panels(
                    exemplar, packed_b + first * b_panel_bytes, NR_BYTES, b_panel_bytes,
                    b_block + first * nr * b_col, b_row, b_col, depth,
                    cols - first * nr, nr, -(-cols // nr) - first,
                )  # fmt: skip
            for top in range(0, m, height):
                rows = height if m - top > height else m - top
                a_block = a + top * a_row + start * a_col
                a_panel, row, col = a_block, a_row, a_col
                if packed_a:
                    row, col = size, MR * size
                    if a_col == size:
                        row, col = KC * size + _A_ROW_PAD, size
                    i = top // height % _PANELS
                    a_panel = workspace + i * _A_PANEL
                    if a_col == size:
                        pack_along(exemplar, a_panel, row, a_block, a_row, rows, depth)
                    elif i == 0:
                        some = -(-(m - top) // height)
                        some = some if some < _PANELS else _PANELS
                        pack_panels(
                            exemplar, a_panel, col, _A_PANEL, a_block, a_col, a_row, depth,
                            m - top, height, some,
                        )  # fmt: skip
                if sums_rows:
                    total, summed = workspace + _ROW_SUMS, a_panel
                    if unit > 1:  # not what is rounded
                        summed = workspace + _SUMMED
                        copy(exemplar, summed, MR * size, a_block, a_col, depth, rows)
                    column_sums(exemplar, depth, summed, total)
                    for r in range(0, rows * size, size):
                        target = row_sums + top * size + r
                        before = load(exemplar, target) if block > 0 else 0.0
                        store(exemplar, before + load(exemplar, total + r), target)
                for j in range(0, cols, nr):
                    width = nr if cols - j > nr else cols - j
                    b_panel, b_panel_row = packed_b + j // nr * b_panel_bytes, NR_BYTES
                    if in_panels:
                        b_panel = b_block + j * b_col
                    elif unpacked_b and width == nr:
                        b_panel, b_panel_row = b_block + j * b_col, b_row
                    target = c + top * c_row + (left + j) * size
                    addend, addend_row = 0, 0
                    if block > 0 or accumulate != 0:
                        addend, addend_row = target, c_row
                    elif bias != 0:
                        addend = bias + (left + j) * size
                    vectors = 1 if width <= lanes else 2
                    whole = width == vectors * lanes
                    out, out_row = (target, c_row) if whole else (tile, NR_BYTES)
                    if addend != 0 and not whole:
                        copy(exemplar, tile, NR_BYTES, addend, addend_row, rows, width)
                        addend, addend_row = tile, NR_BYTES
                    microkernel(
                        exemplar, rows, vectors, steps, a_panel, row, col, b_panel, b_panel_row,
                        out, out_row, addend, addend_row,
                    )  # fmt: skip
                    if not whole:
                        copy(exemplar, target, c_row, tile, NR_BYTES, rows, width)
                if function != 0 and block == k_blocks - 1:
                    done = c + top * c_row + left * size
                    call_native(function, exemplar, (state, done, c_row, rows, cols))


@jit
def few_rows(size: int, a_col: int, b_row: int, b_col: int) -> int:
    """Return up to how many rows of A are added up in another order than more rows are.

    B is read where it is, then. `size` is that of an element, the rest the strides of A and B.
    """
    if b_row == size and a_col == size:
        return _DOT_ROWS
    return 1 if b_col == size and b_row != IN_PANELS else 0


@jit
def pack_panels(
    exemplar: Any, to: int, to_row: int, to_panel: int, source: int, row: int, col: int,
    rows: int, cols: int, width: int, panels: int,
) -> None:  # fmt: skip
    """Pack (rows, cols) elements of B, or of A^T, to panels of `width` columns, the last of fewer.

    Only the first `panels` are packed. There is room for whole vectors after a panel. Rows of whole
    vectors are copied if there are so many columns: the next row covers what is too much.
    """
    size, unit = itemsize_of(exemplar), depth_of(exemplar)
    vectors = -(-width * size // VECTOR_BYTES) * VECTOR_BYTES // size
    slab = _SLAB if col == size else rows
    for k in range(0, rows, slab):
        count = slab if rows - k > slab else rows - k
        for p in range(panels):
            rest = cols - p * width
            some = width if rest > width else rest
            if col == size and rest > vectors:
                some = vectors
            pack(
                exemplar, to + p * to_panel + k // unit * to_row, to_row,
                source + k * row + p * width * col, row, col, count, some,
            )  # fmt: skip


@jit
def pack(
    exemplar: Any, panel: int, panel_row: int, b: int, row: int, col: int, rows: int, cols: int
) -> None:  # fmt: skip
    """Pack (rows, cols) elements of B, or of A^T, to rows of units; others have any values.

    Rows of a panel have to be whole vectors, unless the rows of B are contiguous.
    """
    size, unit = itemsize_of(exemplar), depth_of(exemplar)
    if col == size:
        pack_across(exemplar, panel, panel_row, b, row, rows, cols)
        return
    first = 0
    if row == size and rows * size >= unit * VECTOR_BYTES:
        first = rows - rows % unit
        pack_transposed(exemplar, panel, panel_row, b, col, first, cols)
    for k in range(first, rows, unit):
        for j in range(cols):
            element = b + k * row + j * col
            second = element + row if k + 1 < rows else 0
            pack_elements(exemplar, panel + k // unit * panel_row + j * size, element, second)


@jit(fastmath=False)  # every sum in the order given
def _gemv(
    exemplar: Any, n: int, k: int, x: int, x_step: int, b: int, b_row: int, y: int, accumulate: int
) -> None:  # fmt: skip
    """A row y = x B, or y += x B; the rows of B are contiguous."""
    i = 0
    while i < k:
        count = 8 if k - i >= 8 else 1
        add = 1 if i > 0 else accumulate
        axpyf(exemplar, count, n, x + i * x_step, x_step, b + i * b_row, b_row, y, add)
        i += count


@jit(fastmath=False)
def _dots(
    exemplar: Any, m: int, n: int, k: int,
    x: int, x_row: int,
    b: int, b_col: int,
    y: int, y_row: int, accumulate: int,
) -> None:  # fmt: skip
    """A few rows Y = X B, or Y += X B; the rows of X and the columns of B are contiguous."""
    size = itemsize_of(exemplar)
    j = 0
    while j < n:
        cols = 4 if n - j >= 4 else 1
        i = 0
        while i < m:
            rows = 4 if m - i >= 4 else 2 if m - i >= 2 else 1
            at = y + i * y_row + j * size
            dotxf(
                exemplar, cols, rows, k, b + j * b_col, b_col, x + i * x_row, x_row, at, y_row,
                accumulate,
            )  # fmt: skip
            i += rows
        j += cols


def _gemm_by_numpy(
    exemplar: Any, m: int, n: int, k: int,
    a: int, a_row: int, a_col: int,
    b: int, b_row: int, b_col: int,
    c: int, c_row: int,
    epilogue: int, accumulate: int, workspace: int,
) -> None:  # fmt: skip
    """Do the work of `_gemm` without an epilogue, if nothing is compiled."""

    def matrix(address: int, rows: int, cols: int, row: int, col: int) -> np.ndarray:
        span = (rows - 1) * row + (cols - 1) * col + exemplar.itemsize
        content: Any = (ctypes.c_char * span).from_address(int(address))
        return np.ndarray((rows, cols), exemplar.dtype, content, strides=(row, col))

    out = matrix(c, m, n, c_row, exemplar.itemsize)
    product = matrix(a, m, k, a_row, a_col) @ matrix(b, k, n, b_row, b_col)
    out[...] = product + (out if accumulate else 0)


GEMM = NativeFunction(_gemm if COMPILED else _gemm_by_numpy, 14)
GEMM_ROUNDED = NativeFunction(_gemm, 14, pointer=Rounded)


class Workspace(threading.local):
    """Memory that a calling thread keeps from call to call, for its tasks on all threads.

    `size` bytes begin at `address`, which is aligned to a vector.
    """

    every: ClassVar[list[Workspace]] = []
    size = address = 0
    memory: Any = None

    def __init__(self) -> None:  # which each thread calls
        if self not in self.every:
            self.every.append(self)

    def of(self, tasks: int) -> int:
        """Return the address of WORKSPACE_BYTES for each task, one after the other."""
        if self.size < tasks * WORKSPACE_BYTES:
            self.grow(tasks * WORKSPACE_BYTES)
        return self.address

    def grow(self, size: int) -> None:
        """Replace the memory by `size` bytes."""
        self.memory = np.zeros(size + VECTOR_BYTES, np.uint8)
        self.address = -(-address(self.memory) // VECTOR_BYTES) * VECTOR_BYTES
        self.size = size
