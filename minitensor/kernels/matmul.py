"""The matrix product C = A B of stacks of matrices: (*, M, K), (*, K, N) -> (*, M, N).

`kernels.gemm` multiplies two matrices on one thread. Here the stack is brought to at most two
dimensions, and threads share its matrices, or a grid over each C if there are few. A stack of A
with one B is one tall matrix, and a column of C is computed as a row of C^T = B^T A^T. All that
follows from shapes and strides alone is kept, so that a call on small matrices costs little more
than its arithmetic.
"""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np

from .. import memory
from .gemm import EPILOGUE, GEMM, GEMM_ROUNDED, NR_BYTES, WORKSPACE_BYTES, Workspace, few_rows
from .jit import COMPILED, get_num_threads
from .parallel import (
    ARRAY_HEADER,
    NativeFunction,
    ParallelKernel,
    address,
    call_native,
    integers_at,
    recording,
    unpacked,
)
from .precision import rounds, setting
from .simd import MR, itemsize_of

PARALLEL = 1 << 19  # multiply-adds from which a second thread pays
ROUNDS = 32  # rows and columns of C from which it pays to round A and B to bfloat16
ROWS_OF_A_READ = 8  # rows of A whose multiply-adds take as long as reading B from memory


def _gemm_stack(arguments: Any, exemplar: Any, task: int, tasks: int) -> None:
    """Compute one task's part of a two-dimensional stack of products."""
    s = unpacked(arguments)
    size = itemsize_of(exemplar)
    nr = NR_BYTES // size
    count = s.outer * s.inner
    b_panels = -(-s.n // nr)
    # Of a long stack each task takes whole matrices. Otherwise every matrix is cut into a grid with
    # one cell for each task: the cheapest grid. To pack a panel of A takes as long as a tile of
    # the product, to pack one of B as long as three. No cell of many rows gets few, which would be
    # added up in another order.
    down = across = 1
    if count % tasks != 0 and count < 8 * tasks:
        best = math.inf
        few = few_rows(size, s.a_col, s.b_row, s.b_col)
        least = few + 1 if s.m > few else 1
        for d in range(1, tasks + 1):
            if tasks % d == 0 and (d == 1 or s.m // d >= least):
                high, wide = s.m / (MR * d), -(-b_panels // (tasks // d))
                cost = high * wide + high + 3 * wide
                if cost < best:
                    best, down, across = cost, d, tasks // d
    workspace = s.workspace + task * WORKSPACE_BYTES
    has_epilogue = s.bias != 0 or s.row_sums != 0 or s.epilogue != 0
    epilogue = workspace + EPILOGUE if has_epilogue else 0
    cells = count * down * across
    for cell in range(cells * task // tasks, cells * (task + 1) // tasks):
        item, part = cell // (down * across), cell % (down * across)
        o, i = item // s.inner, item % s.inner
        y, x = part // across, part % across
        top, bottom = s.m * y // down, s.m * (y + 1) // down
        left, right = b_panels * x // across * nr, b_panels * (x + 1) // across * nr
        right = s.n if right > s.n else right
        if epilogue != 0:
            given = integers_at(epilogue, 4)
            given[0] = s.bias + left * size if s.bias != 0 else 0
            given[1] = s.row_sums + top * size if s.row_sums != 0 and left == 0 else 0
            given[2] = s.epilogue
            given[3] = s.epilogue_state
        call_native(
            s.gemm, exemplar,
            (
                bottom - top, right - left, s.k,
                s.a + o * s.a_outer + i * s.a_inner + top * s.a_row, s.a_row, s.a_col,
                s.b + o * s.b_outer + i * s.b_inner + left * s.b_col, s.b_row, s.b_col,
                s.c + o * s.c_outer + i * s.c_inner + top * s.c_row + left * size, s.c_row,
                epilogue, s.accumulate, workspace,
            ),
        )  # fmt: skip


run_stack = ParallelKernel(
    _gemm_stack,
    """gemm c a b bias row_sums epilogue epilogue_state workspace outer inner m n k
    c_outer c_inner c_row a_outer a_inner a_row a_col b_outer b_inner b_row b_col accumulate""",
)
WORKSPACE = Workspace()


def _gemm_small(
    exemplar: Any, gemm: int, a: int, b: int, c: int, bias: int, workspace: int
) -> None:
    """C = A B + bias, of matrices at the addresses of NumPy's array objects; bias may be 0.

    An object holds the address of its elements, its number of dimensions, and the addresses of its
    shape and strides.
    """
    epilogue = 0
    if bias != 0:
        epilogue = workspace + EPILOGUE
        given = integers_at(epilogue, 4)
        given[0] = integers_at(bias + ARRAY_HEADER, 1)[0]
        given[1] = given[2] = given[3] = 0
    x, y = integers_at(a + ARRAY_HEADER, 4), integers_at(b + ARRAY_HEADER, 4)
    z = integers_at(c + ARRAY_HEADER, 4)
    a_shape, c_shape = integers_at(x[2], 2), integers_at(z[2], 2)
    a_strides, b_strides = integers_at(x[3], 2), integers_at(y[3], 2)
    call_native(
        gemm, exemplar,
        (
            c_shape[0], c_shape[1], a_shape[1], x[0], a_strides[0], a_strides[1],
            y[0], b_strides[0], b_strides[1], z[0], integers_at(z[3], 2)[0],
            epilogue, 0, workspace,
        ),
    )  # fmt: skip


_SMALL = NativeFunction(_gemm_small, 6)


def matmul(
    a: np.ndarray,
    b: np.ndarray,
    out: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    accumulate: bool = False,
    row_sums: np.ndarray | None = None,
    epilogue: tuple[int, int] | None = None,
) -> np.ndarray:
    """Return a @ b, stacked along leading dimensions: (*, M, K), (*, K, N) -> (*, M, N).

    - Leading dimensions broadcast. Strides are arbitrary; all arrays have one dtype. NumPy computes
      dtypes other than float32 and float64.
    - out: where to put the result; with `accumulate` the product is added to it.
    - bias (N,): added to every row; not together with `accumulate`.
    - row_sums (M,), contiguous: is filled with the sums of the rows of the matrix a.
    - epilogue: the addresses of a function and of its state. The function, a `NativeFunction` of
      five integers (state, block, row_stride, rows, cols), is called for every finished block of
      the result, which is contiguous and has no leading dimensions; K is at least 1.

    Raises ValueError if the shapes do not fit.
    """
    dtype = a.dtype
    if dtype.char not in "fd" or not COMPILED:
        return _by_numpy(a, b, out, bias, accumulate, row_sums)
    plain = out is None and row_sums is None and epilogue is None
    if plain and a.ndim == b.ndim == 2 and not setting.asked and recording.calls is None:
        (m, k), (rows, n) = a.shape, b.shape
        small = 0 < (m if m > ROWS_OF_A_READ else ROWS_OF_A_READ) * k * n < PARALLEL
        if small and m and n > 1 and k == rows and (bias is None or bias.flags.c_contiguous):
            if not WORKSPACE.size:
                WORKSPACE.grow(WORKSPACE_BYTES)
            out, start = np.empty((m, n), dtype), 0 if bias is None else id(bias)
            gemm, place = GEMM.address(dtype), WORKSPACE.address
            _SMALL.run(dtype, gemm, id(a), id(b), id(out), start, place)
            return out
    out_layout = None if out is None else (out.shape, out.strides)
    key = dtype.char, a.shape, a.strides, b.shape, b.strides, out_layout, accumulate
    layout = _layouts.get(key)
    if layout is None:
        if len(_layouts) >= MOST_LAYOUTS:
            _layouts.clear()
        layout = _layouts[key] = _layout(a, b, out, accumulate)
    shape, pooled, parallel, swapped, pays, packed = layout
    if not packed:
        return _in_several_calls(a, b, out, bias, accumulate, row_sums)
    if out is None:
        pooled = pooled or recording.calls is not None
        out = memory.empty(shape, dtype) if pooled else np.empty(shape, dtype)
    if row_sums is not None:
        row, col = a.strides[-2:]
        if not (shape[-2] > 1 < shape[-1] and row == dtype.itemsize < col):
            row_sums[...] = a.sum(-1)
            recording.miss()
            row_sums = None
    if bias is not None:
        bias = np.repeat(bias, swapped) if swapped else np.ascontiguousarray(bias)
    left, right = (b, a) if swapped else (a, b)
    function, state = epilogue or _NO_EPILOGUE
    tasks = get_num_threads() if parallel else 1
    if WORKSPACE.size < tasks * WORKSPACE_BYTES:
        WORKSPACE.grow(tasks * WORKSPACE_BYTES)
    addresses = _pack_addresses(
        (GEMM_ROUNDED if pays and setting.asked and rounds() else GEMM).address(dtype),
        address(out),
        address(left),
        address(right),
        0 if bias is None else address(bias),
        0 if row_sums is None else address(row_sums),
        function,
        state,
        WORKSPACE.address,
    )
    run_stack.run_packed(dtype, tasks, addresses + packed)
    return out


def gemm_address(dtype: np.dtype[Any], m: int, n: int) -> int:
    """Return the address of the product for one thread, which rounds if it is set and pays."""
    pays = dtype.char == "f" and min(m, n) >= ROUNDS
    return (GEMM_ROUNDED if pays and setting.asked and rounds() else GEMM).address(dtype)


Layout = tuple[tuple[int, ...], bool, bool, int, bool, bytes]
_NO_EPILOGUE = 0, 0
_layouts: dict[Any, Layout] = {}
MOST_LAYOUTS = 4096
_pack_addresses, _pack_layout = struct.Struct("=9q").pack, struct.Struct("=17q").pack


def _layout(a: np.ndarray, b: np.ndarray, out: np.ndarray | None, accumulate: bool) -> Layout:
    """Return all that follows from shapes and strides; ValueError if the shapes do not fit.

    These are the result's shape, True if the pool has memory for it, True if several threads pay,
    the number of rows of A if C^T = B^T A^T is computed (else 0), True if it pays to round to
    bfloat16, and the kernel's packed arguments but for addresses, empty if one call of the kernel
    does not suffice.
    """
    shape = _result_shape(a, b, out)
    (*lead, m, n), k = shape, a.shape[-1]
    if out is None:
        out = np.empty(shape, a.dtype)  # for its strides
    work = out.size * k
    c_row, c_col = out.strides[-2:]
    if not work or (c_col != a.itemsize and n > 1):
        return shape, True, False, 0, False, b""
    a_row, a_col = a.strides[-2:]
    b_row, b_col = b.strides[-2:]
    outer = inner = _ONE
    if lead:
        dims = _dimensions((*lead, m), out, a, b)
        if len(dims) > 1 and dims[-2][3] == dims[-1][3] == 0 and not a.flags.c_contiguous:
            return shape, True, False, 0, False, b""
        m, c_row, a_row, _ = dims.pop() if dims and dims[-1][3] == 0 else _ONE
        if len(dims) > 2:
            return shape, True, False, 0, False, b""
        if dims:
            inner = dims.pop()
        if dims:
            outer = dims.pop()
    swapped = n == 1 and c_row == a.itemsize  # a column of C is a row of C^T
    if swapped:
        m, n = n, m
        a_row, a_col, b_row, b_col = b_col, b_row, a_col, a_row
        outer, inner = ((x[0], x[1], x[3], x[2]) for x in (outer, inner))
    outer_count, c_outer, a_outer, b_outer = outer
    inner_count, c_inner, a_inner, b_inner = inner
    packed = _pack_layout(
        outer_count, inner_count, m, n, k,
        c_outer, c_inner, c_row,
        a_outer, a_inner, a_row, a_col,
        b_outer, b_inner, b_row, b_col,
        accumulate,
    )  # fmt: skip
    work = max(work, work // m * ROWS_OF_A_READ)
    pooled = out.nbytes >= memory.SMALLEST
    pays = a.dtype.char == "f" and min(m, n) >= ROUNDS
    return shape, pooled, work >= PARALLEL, n if swapped else 0, pays, packed


def _in_several_calls(
    a: np.ndarray,
    b: np.ndarray,
    out: np.ndarray | None,
    bias: np.ndarray | None,
    accumulate: bool,
    row_sums: np.ndarray | None,
) -> np.ndarray:
    """Multiply matrices that need a copy, several calls of the kernel, or none."""
    shape = _result_shape(a, b, out)
    if not math.prod(shape) * a.shape[-1]:
        return _by_numpy(a, b, out, bias, accumulate, row_sums)
    if out is None:
        out = memory.empty(shape, a.dtype)
    if out.strides[-1] != a.itemsize and shape[-1] > 1:
        total = np.ascontiguousarray(out) if accumulate else None
        out[...] = matmul(a, b, total, bias, accumulate, row_sums)
        recording.miss()
        return out
    dims = _dimensions(shape[:-1], out, a, b)
    if dims[-2][3] == dims[-1][3] == 0 and not a.flags.c_contiguous:
        # One tall matrix instead of a stack with one B, which is then packed once.
        return matmul(np.ascontiguousarray(a), b, out, bias, accumulate)
    for i in range(shape[0]):
        x, y = (z[i * (len(z) > 1)] if z.ndim == out.ndim else z for z in (a, b))
        matmul(x, y, out[i], bias, accumulate)
    return out


def _by_numpy(
    a: np.ndarray,
    b: np.ndarray,
    out: np.ndarray | None,
    bias: np.ndarray | None,
    accumulate: bool,
    row_sums: np.ndarray | None,
) -> np.ndarray:
    """Multiply by NumPy, float16 in float32."""
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
    recording.miss()
    if row_sums is not None:
        row_sums[...] = a.sum(-1)
    return out


def _result_shape(a: np.ndarray, b: np.ndarray, out: np.ndarray | None) -> tuple[int, ...]:
    """Return the shape of the product; ValueError if the factors or `out` do not fit."""
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
    """Merge leading dimensions and rows; return (length, strides of C, A and B) of each."""
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
