"""Scaled dot product attention, forward and backward, without an array of shape (N, H, L, S).

For each of the N * H heads, with a bias of any numbers (-inf where attention is forbidden):

    T = scale * Q K^T + bias    P = softmax(T)    P' = dropout(P)    O = P' V

    D = rowsum(dO * O)    dV = P'^T dO    dT = P' * (dO V^T) - P * D
    dQ = scale * dT K    dK = scale * dT^T Q

As in FlashAttention, the scores never go to memory. They are computed in tiles, of at most 128
queries by as many keys as make 256 KB, which stay in the second-level cache:

    for each block of queries
        for each block of keys
            T^T = K (scale * Q^T)
            forward: P unnormalised, by the largest score so far; O = O * what that changes + P V
            backward: P, and dT from G^T = V (scale * dO^T); add to dV, dK and dQ

Forward keeps each row's maximum and the reciprocal of its sum of exponentials (together they are
FlashAttention's log-sum-exp), from which backward recomputes P: cheaper than to write and read it.

A tile is T^T, keys in rows: Q^T and dO^T, turned and scaled once for a block of queries, are then
the right factors of all products that would need K^T and V^T, and in the softmax a vector holds
neighbouring queries (`kernels.softmax_tile`). A single query has its keys folded into the lanes
instead. The products are `kernels.gemm`, called by its address. Bound by them, and by memory while
S is some tens: Q, K, V are read, O is written; backward reads O and dO too, writes dQ, dK, dV.

Scores are held as multiples of ln 2, so that their exponentials are powers of 2. A row where all is
forbidden is 0 and has no gradient. With `causal`, row i attends to the columns up to i, and columns
that no row of a block attends to are not computed.

T. Dao, D. Fu, S. Ermon, A. Rudra, C. Ré, "FlashAttention: Fast and Memory-Efficient Exact Attention
with IO-Awareness", 2022; T. Dao, "FlashAttention-2: Faster Attention with Better Parallelism and
Work Partitioning", 2023 (the D above is theirs).

Forward, threads share the blocks of queries; backward, the heads of K, whose dK and dV are summed
over blocks in order, of all heads of Q that share them. Few heads are shared in parts of their
keys, as many as follow from the shape, whose dQ are added up at the end. So results do not depend
on the number of threads.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import memory
from .dropout import DROPOUT_ARGUMENTS, dropout_arguments
from .gemm import GEMM, GEMM_ROUNDED, NR_BYTES, WORKSPACE_BYTES, Workspace
from .jit import get_num_threads, jit
from .matmul import MOST_LAYOUTS, PARALLEL
from .pack import transpose
from .parallel import ParallelKernel, address, array_at, call_native, unpacked
from .precision import rounds, setting
from .simd import VECTOR_BYTES
from .softmax_tile import (
    COLUMNS,
    DELTA,
    FACTOR,
    TOP,
    TOTAL,
    WORD,
    tile_exp,
    tile_gradient,
    tile_max,
)

_ROUNDS = 64  # rows, columns and widths from which it pays to round to bfloat16: all are packed
_TILE = 1 << 18  # bytes of a tile of scores
_MOST_QUERIES = 128  # of a tile
_FEW_HEADS = 8  # with fewer, backward takes the keys in parts, each with a dQ of its own
_SPLIT_KEYS = 512  # of a part, at least
_LOG2E = 1.4426950408889634

_u32 = np.uint32

# Addresses and what a call may choose, then all that follows from layouts: strides are in bytes.
# `height` queries by `depth` keys are a tile; the places are those in a task's workspace.
_ARRAYS = ("o", "q", "k", "v", "bias", "do", "dq", "dk", "dv")
_PLACES = ("columns", "q_turned", "do_turned", "t", "g", "gemm_workspace")
_INTEGERS = (
    f"{' '.join(_ARRAYS)} stats gemm workspace {DROPOUT_ARGUMENTS} "
    + " ".join(f"{x}_n {x}_h {x}_row" for x in _ARRAYS)
    + " batch heads group rows cols width value_width causal height depth columns_row "
    + "splits dq_split "
    + " ".join(f"{x}_place" for x in _PLACES)
    + " workspace_bytes"
)
_FLOATS = "scale keep_scale"


@jit
def _visible(s, row):  # type: ignore[no-untyped-def]
    """Return the number of columns that a row attends to."""
    return min(s.cols, row + 1) if s.causal != 0 else s.cols


@jit
def _turn(s, exemplar, to, x, x_row, rows, width, scale):  # type: ignore[no-untyped-def]
    """Put scale * X^T at `to`, (width, rows), of which a row takes the height of a tile."""
    y = array_at(exemplar, to, (width * s.height,))
    transpose(exemplar, to, s.height * y.itemsize, x, x_row, rows, width)
    factor = y.dtype.type(scale)
    for i in range(y.size):
        y[i] *= factor


@jit
def _set_words(s, columns, n, h, first, start):  # type: ignore[no-untyped-def]
    """Set the indices of dropout for each query, or lane, in the first row of a tile."""
    index = s.key0 + ((n * s.heads + h) * s.rows + first) * s.cols + start
    step = 1 if s.height == 1 else s.cols
    words = array_at(_u32, columns + WORD * s.columns_row, (s.columns_row // 4,))
    for i in range(words.size):
        words[i] = _u32(index + i * step)


@jit(fastmath=False)
def _multiply_keys(s, exemplar, to, x, y, y_row, cols, width, vectors, workspace):  # type: ignore[no-untyped-def]
    """Put Y X^T at `to`, a tile, of X^T from `_turn` and `cols` rows of Y: keys or values."""
    size = array_at(exemplar, to, (1,)).itemsize
    row = s.height * size
    if s.height == 1:
        call_native(s.gemm, exemplar, (
            1, cols, width, x, row, size, y, size, y_row, to, row, 0, 0, workspace,
        ))  # fmt: skip
    else:
        call_native(s.gemm, exemplar, (
            cols, vectors * (VECTOR_BYTES // size), width, y, y_row, size, x, row, size, to, row,
            0, 0, workspace,
        ))  # fmt: skip


@jit(fastmath=False)  # the same bits forward and backward
def _mask(s, exemplar, place, n, h, first, rows, start, cols):  # type: ignore[no-untyped-def]
    """Add the bias to the tile of rows from `first` and columns from `start`, and hide columns."""
    t = array_at(exemplar, place + s.t_place, (s.depth, s.height))
    size, number = t.itemsize, t.dtype.type
    log2e, hidden = number(_LOG2E), number(-np.inf)
    if s.bias != 0:
        bias = s.bias + n * s.bias_n + h * s.bias_h + first * s.bias_row + start * size
        if s.bias_row == 0 or s.height == 1:
            b = array_at(exemplar, bias, (cols,))
            for j in range(cols):
                x, same = t[j, :rows], b[j] * log2e
                for i in range(rows):
                    x[i] += same
        else:
            turned = array_at(exemplar, place + s.g_place, (s.depth, s.height))
            transpose(exemplar, place + s.g_place, s.height * size, bias, s.bias_row, rows, cols)
            for j in range(cols):
                x, y = t[j, :rows], turned[j, :rows]
                for i in range(rows):
                    x[i] += y[i] * log2e
    if s.causal != 0:
        for j in range(max(first + 1 - start, 0), cols):
            x = t[j, : start + j - first]
            for i in range(x.size):
                x[i] = hidden
    if s.height == 1:  # the lanes left over
        for j in range(cols, -(-cols * size // VECTOR_BYTES) * (VECTOR_BYTES // size)):
            t[j, 0] = hidden


@jit
def _share_maximum(column):  # type: ignore[no-untyped-def]
    """Set the maximum of every column, of one query, to that of all."""
    most = column[TOP, 0]
    for i in range(column.shape[1]):
        most = column[TOP, i] if column[TOP, i] > most else most
    for i in range(column.shape[1]):
        column[TOP, i] = most


@jit
def _rescale(s, exemplar, o, column, rows):  # type: ignore[no-untyped-def]
    """Bring O and the sum so far (FACTOR) from the maximum before (DELTA) to the new one."""
    for i in range(column.shape[1]):
        change = np.exp2(column[DELTA, i] - column[TOP, i])
        column[DELTA, i] = change
        column[FACTOR, i] *= change
    for i in range(rows):
        x = array_at(exemplar, o + i * s.o_row, (s.value_width,))
        change = column[DELTA, i]
        for j in range(x.size):
            x[j] *= change


@jit
def _finish(s, exemplar, o, column, head, first, rows):  # type: ignore[no-untyped-def]
    """Divide O by the sums, and store the stats of the rows."""
    stats = array_at(exemplar, s.stats + 2 * column.itemsize * s.rows * head, (2, s.rows))
    zero, one = column.dtype.type(0), column.dtype.type(1)
    if s.height == 1:
        total = zero
        for i in range(column.shape[1]):
            total += column[FACTOR, i]
        column[FACTOR, 0] = total
    for i in range(rows):
        total = column[FACTOR, i]
        factor = zero if total == zero else one / total
        stats[0, first + i], stats[1, first + i] = column[TOP, i], factor
        factor *= column.dtype.type(s.keep_scale)
        x = array_at(exemplar, o + i * s.o_row, (s.value_width,))
        for j in range(x.size):
            x[j] *= factor


@jit
def _begin_backward(s, exemplar, o, do, column, head, first, rows):  # type: ignore[no-untyped-def]
    """Set a block's columns, but for the words."""
    stats = array_at(exemplar, s.stats + 2 * column.itemsize * s.rows * head, (2, s.rows))
    scale, keep_scale = column.dtype.type(s.scale), column.dtype.type(s.keep_scale)
    for i in range(rows):
        a = array_at(exemplar, o + i * s.o_row, (s.value_width,))
        b = array_at(exemplar, do + i * s.do_row, (s.value_width,))
        total = column.dtype.type(0)
        for j in range(a.size):
            total += a[j] * b[j]
        factor = stats[1, first + i]
        column[TOP, i], column[TOTAL, i] = stats[0, first + i], factor
        column[FACTOR, i], column[DELTA, i] = factor * keep_scale, total * scale
    if s.height == 1:
        for i in range(1, column.shape[1]):
            for which in (TOP, TOTAL, FACTOR, DELTA):
                column[which, i] = column[which, 0]


@jit
def _zero_rows(s, exemplar, dq, rows):  # type: ignore[no-untyped-def]
    """Set dQ of queries that attend to none of a part of the keys."""
    for i in range(rows):
        x = array_at(exemplar, dq + i * s.dq_row, (s.width,))
        for j in range(x.size):
            x[j] = 0


# The kernels


def _forward(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    """Do one task's blocks of queries."""
    s = unpacked(arguments)
    place = s.workspace + task * s.workspace_bytes
    columns, q_turned, t = place + s.columns_place, place + s.q_turned_place, place + s.t_place
    workspace = place + s.gemm_workspace_place
    size = array_at(exemplar, t, (1,)).itemsize
    column = array_at(exemplar, columns, (COLUMNS, s.columns_row // size))
    key_row, lanes = s.height * size, VECTOR_BYTES // size
    t_row = key_row if s.height > 1 else VECTOR_BYTES
    blocks = -(-s.rows // s.height)
    items = s.batch * s.heads * blocks
    zero, lowest = column.dtype.type(0), np.finfo(column.dtype).min  # -inf - -inf would be NaN
    for item in range(items * task // tasks, items * (task + 1) // tasks):
        head, turn = item // blocks, item % blocks
        # The first, the last, the second: causal blocks grow, and threads get some of each.
        block = turn // 2 if turn % 2 == 0 else blocks - 1 - turn // 2
        n, h = head // s.heads, head % s.heads
        first = block * s.height
        rows = min(s.height, s.rows - first)
        visible, vectors = _visible(s, first + rows - 1), -(-rows // lanes)
        q = s.q + n * s.q_n + h * s.q_h + first * s.q_row
        o = s.o + n * s.o_n + h * s.o_h + first * s.o_row
        k, v = s.k + n * s.k_n + h // s.group * s.k_h, s.v + n * s.v_n + h // s.group * s.v_h
        _turn(s, exemplar, q_turned, q, s.q_row, rows, s.width, s.scale * _LOG2E)
        for i in range(column.shape[1]):
            column[TOP, i] = lowest
        for start in range(0, visible, s.depth):
            cols = min(s.depth, visible - start)
            _multiply_keys(
                s, exemplar, t, q_turned, k + start * s.k_row, s.k_row, cols, s.width, vectors,
                workspace,
            )  # fmt: skip
            _mask(s, exemplar, place, n, h, first, rows, start, cols)
            high, step = (cols, 1) if s.height > 1 else (-(-cols // lanes), lanes)
            if s.drops != 0:
                _set_words(s, columns, n, h, first, start)
            tile_max(column, (vectors, high, t, t_row, columns, s.columns_row))
            if s.height == 1:
                _share_maximum(column)
            if start > 0:
                _rescale(s, exemplar, o, column, rows)
            tile_exp(column, (
                vectors, high, t, t_row, columns, s.columns_row, s.drops, step, s.key1, s.threshold,
            ))  # fmt: skip
            for i in range(column.shape[1]):
                before = column[FACTOR, i] if start > 0 else zero
                column[FACTOR, i] = before + column[TOTAL, i]
                column[DELTA, i] = column[TOP, i]
            call_native(s.gemm, exemplar, (
                rows, s.value_width, cols, t, size, key_row, v + start * s.v_row, s.v_row, size,
                o, s.o_row, 0, 1 if start > 0 else 0, workspace,
            ))  # fmt: skip
        _finish(s, exemplar, o, column, head, first, rows)


def _backward(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    """Do one task's heads, or parts of the keys of heads."""
    s = unpacked(arguments)
    place = s.workspace + task * s.workspace_bytes
    columns, t, g = place + s.columns_place, place + s.t_place, place + s.g_place
    q_turned, do_turned = place + s.q_turned_place, place + s.do_turned_place
    workspace = place + s.gemm_workspace_place
    size = array_at(exemplar, t, (1,)).itemsize
    column = array_at(exemplar, columns, (COLUMNS, s.columns_row // size))
    key_row, lanes = s.height * size, VECTOR_BYTES // size
    t_row = key_row if s.height > 1 else VECTOR_BYTES
    blocks = -(-s.rows // s.height)
    shared, tiles = s.heads // s.group, -(-s.cols // s.depth)
    items = s.batch * shared * s.splits
    for item in range(items * task // tasks, items * (task + 1) // tasks):
        head, turn = item // s.splits, item % s.splits
        split = turn // 2 if turn % 2 == 0 else s.splits - 1 - turn // 2
        begin = s.depth * (tiles * split // s.splits)
        end = min(s.depth * (tiles * (split + 1) // s.splits), s.cols)
        n, of_group = head // shared, head % shared
        k, v = s.k + n * s.k_n + of_group * s.k_h, s.v + n * s.v_n + of_group * s.v_h
        dk, dv = s.dk + n * s.dk_n + of_group * s.dk_h, s.dv + n * s.dv_n + of_group * s.dv_h
        for part in range(s.group * blocks):
            # The last block covers the most columns; all others add to it.
            h, block = of_group * s.group + part % s.group, blocks - 1 - part // s.group
            add = 1 if part > 0 else 0
            first = block * s.height
            rows = min(s.height, s.rows - first)
            visible, vectors = min(end, _visible(s, first + rows - 1)), -(-rows // lanes)
            q = s.q + n * s.q_n + h * s.q_h + first * s.q_row
            o = s.o + n * s.o_n + h * s.o_h + first * s.o_row
            do = s.do + n * s.do_n + h * s.do_h + first * s.do_row
            dq = s.dq + n * s.dq_n + h * s.dq_h + first * s.dq_row + split * s.dq_split
            if visible <= begin:
                _zero_rows(s, exemplar, dq, rows)
                continue
            _turn(s, exemplar, q_turned, q, s.q_row, rows, s.width, s.scale * _LOG2E)
            _turn(s, exemplar, do_turned, do, s.do_row, rows, s.value_width, s.scale * s.keep_scale)
            _begin_backward(s, exemplar, o, do, column, n * s.heads + h, first, rows)
            for start in range(begin, visible, s.depth):
                if s.drops != 0:
                    _set_words(s, columns, n, h, first, start)
                cols = min(s.depth, visible - start)
                k_rows, v_rows = k + start * s.k_row, v + start * s.v_row
                dk_rows, dv_rows = dk + start * s.dk_row, dv + start * s.dv_row
                _multiply_keys(
                    s, exemplar, t, q_turned, k_rows, s.k_row, cols, s.width, vectors, workspace
                )
                _mask(s, exemplar, place, n, h, first, rows, start, cols)
                _multiply_keys(
                    s, exemplar, g, do_turned, v_rows, s.v_row, cols, s.value_width, vectors,
                    workspace,
                )  # fmt: skip
                high, step = (cols, 1) if s.height > 1 else (-(-cols // lanes), lanes)
                tile_gradient(column, (
                    vectors, high, t, t_row, g, columns, s.columns_row,
                    s.drops, step, s.key1, s.threshold,
                ))  # fmt: skip
                call_native(s.gemm, exemplar, (
                    cols, s.value_width, rows, t, key_row, size, do, s.do_row, size,
                    dv_rows, s.dv_row, 0, add, workspace,
                ))  # fmt: skip
                call_native(s.gemm, exemplar, (
                    cols, s.width, rows, g, key_row, size, q, s.q_row, size,
                    dk_rows, s.dk_row, 0, add, workspace,
                ))  # fmt: skip
                call_native(s.gemm, exemplar, (
                    rows, s.width, cols, g, size, key_row, k_rows, s.k_row, size,
                    dq, s.dq_row, 0, 1 if start > begin else 0, workspace,
                ))  # fmt: skip


_run_forward = ParallelKernel(_forward, _INTEGERS, _FLOATS)
_run_backward = ParallelKernel(_backward, _INTEGERS, _FLOATS)


def attention(
    out: np.ndarray,
    qkv: Sequence[np.ndarray],
    bias: np.ndarray | None,
    causal: bool,
    scale: float,
    p: float,
    key: int,
) -> np.ndarray:
    """Compute `out` (N, H, L, V) of q (N, H, L, K), k (N, G, S, K) and v (N, G, S, V).

    G divides H: each head of k and v is that of H / G heads of q, one after the other.
    `bias` (N or 1, H or 1, L or 1, S) is added to the scaled scores; `p` and `key` are those of
    dropout. All arrays are of one dtype, float32 or float64, and have any strides, but the rows of
    `out` are contiguous. No length may be 0.

    Returns the stats (N, H, 2, L) for `attention_backward`: each row's maximum, as a multiple of
    ln 2, and the reciprocal of its sum of exponentials.
    """
    stats = memory.empty((*out.shape[:2], 2, out.shape[2]), out.dtype)
    _run(_run_forward, (out, *qkv), stats, bias, (), causal, scale, p, key)
    return stats


def attention_backward(
    grads: Sequence[np.ndarray],
    dout: np.ndarray,
    out: np.ndarray,
    stats: np.ndarray,
    qkv: Sequence[np.ndarray],
    bias: np.ndarray | None,
    causal: bool,
    scale: float,
    p: float,
    key: int,
) -> None:
    """Compute the gradients of q, k and v into `grads`, given that of `out`.

    `stats` is the result of `attention`. The rows of `grads` are contiguous.
    """
    rest = qkv[1].shape[2] - dout.shape[2]
    if causal and rest > 0:  # columns that no row attends to
        for dx in grads[1:]:
            dx[:, :, -rest:] = 0
    batch, shared, cols, _ = qkv[1].shape
    splits = min(-(-_FEW_HEADS // (batch * shared)), cols // _SPLIT_KEYS)
    dq, *of_keys = grads
    parts = memory.empty((splits, *dq.shape), dq.dtype) if splits > 1 else dq
    more = (_contiguous_rows(dout), parts, *of_keys)
    _run(_run_backward, (out, *qkv), stats, bias, more, causal, scale, p, key)
    if splits > 1:
        np.add.reduce(parts, 0, out=dq)


def _run(
    kernel: ParallelKernel,
    given: Sequence[np.ndarray],
    stats: np.ndarray,
    bias: np.ndarray | None,
    grads: Sequence[np.ndarray],
    causal: bool,
    scale: float,
    p: float,
    key: int,
) -> None:
    """Run `_run_forward` (without `grads`) or `_run_backward`."""
    given = [_contiguous_rows(x) for x in given]
    bias = None if bias is None else _contiguous_rows(bias)
    dtype = stats.dtype
    arrays = (*given, bias, *(grads or _NO_GRADS))
    key_of_layout = (
        dtype.char, causal, scale, p,
        *[None if x is None else (x.shape, x.strides) for x in arrays],
    )  # fmt: skip
    layout = _layouts.get(key_of_layout)
    if layout is None:
        if len(_layouts) >= MOST_LAYOUTS:
            _layouts.clear()
        layout = _layouts[key_of_layout] = _layout(arrays, causal, scale, p)
    parallel, pays, workspace_bytes, packed = layout
    gemm = GEMM_ROUNDED if pays and setting.asked and rounds() else GEMM
    tasks = get_num_threads() if parallel else 1
    if _workspace.size < tasks * workspace_bytes:
        _workspace.grow(tasks * workspace_bytes)
    addresses = _pack_addresses(
        *[0 if x is None else address(x) for x in arrays],
        address(stats), gemm.address(dtype), _workspace.address, *dropout_arguments(p, key),
    )  # fmt: skip
    kernel.run_packed(dtype, tasks, addresses + packed)


_NO_GRADS = (None,) * 4
_layouts: dict[Any, tuple[bool, bool, int, bytes]] = {}
_pack_addresses, _pack_layout = struct.Struct("=16q").pack, struct.Struct("=47q2d").pack


def _layout(
    arrays: Sequence[np.ndarray | None], causal: bool, scale: float, p: float
) -> tuple[bool, bool, int, bytes]:
    """Return all that follows from the layouts of `_ARRAYS`, None where one is missing.

    These are True if several threads pay, True if rounding to bfloat16 pays, the size of a task's
    workspace in bytes, and the kernel's packed arguments but for addresses.
    """
    _, q, _, v, _, _, dq, *_ = arrays
    splits, dq_split = (1, 0) if dq is None or dq.ndim == 4 else (len(dq), dq.strides[0])
    assert q is not None
    assert v is not None
    size = q.itemsize
    (batch, heads, rows, width), (cols, value_width) = q.shape, v.shape[2:]
    strides: list[int] = []
    for name, x in zip(_ARRAYS, arrays, strict=True):
        steps = (0, 0, 0) if x is None else x.strides[-4:-1]
        if name == "bias" and x is not None:
            steps = tuple(0 if n == 1 else s for n, s in zip(x.shape[:3], steps, strict=True))
        strides += steps
    lanes = VECTOR_BYTES // size
    # Queries evenly in blocks, of whole tiles of the product; keys as many as make a tile.
    blocks = -(-rows // _MOST_QUERIES)
    unit = NR_BYTES // size if rows > lanes else lanes
    height = -(-rows // (blocks * unit)) * unit if rows > 1 else 1
    depth = min(-(-cols // lanes), _TILE // (height * VECTOR_BYTES)) * lanes
    columns_row = max(height * size, VECTOR_BYTES)
    tile = depth * height * size
    sizes = (COLUMNS * columns_row, width * height * size, value_width * height * size, tile, tile)
    places, workspace_bytes = [], 0
    for part in (*sizes, WORKSPACE_BYTES):
        places.append(workspace_bytes)
        workspace_bytes += -(-part // VECTOR_BYTES) * VECTOR_BYTES
    multiplications = batch * heads * rows * cols * (width + value_width)
    shape = (batch, heads, heads // v.shape[1], rows, cols, width, value_width)
    rest = (
        causal, height, depth, columns_row, splits, dq_split, *places, workspace_bytes,
        scale, 1 / (1 - p),
    )  # fmt: skip
    pays = size == 4 and min(rows, cols, width, value_width) >= _ROUNDS
    packed = _pack_layout(*strides, *shape, *rest)
    return multiplications >= PARALLEL, pays, workspace_bytes, packed


_workspace = Workspace()


def _contiguous_rows(x: np.ndarray) -> np.ndarray:
    """Return x, or a copy if its rows are not contiguous."""
    return x if x.strides[-1] == x.itemsize or x.shape[-1] == 1 else np.ascontiguousarray(x)
