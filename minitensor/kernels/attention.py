"""Scaled dot product attention, forward and backward, without an array of shape (N, H, L, S).

For each of the N * H heads, with a bias of any numbers (-inf where attention is forbidden):

    T = scale * Q K^T + bias    P = softmax(T)    P' = dropout(P)    O = P' V

    dV = P'^T dO    dP = dropout(dO V^T)    dT = P * (dP - rowsum(P * dP))
    dQ = scale * dT K    dK = scale * dT^T Q

A thread works on a block of a head's rows at a time. Their scores, up to _MOST_ROWS by S numbers
and backward twice that, stay in its second-level cache. The products are those of
`kernels.matmul`, on addresses. The forward pass keeps two numbers for each row, max(T) and
1 / sum(exp(T - max(T))); from them the backward pass computes P again, which costs less than
writing and reading it. A row where nothing is allowed is 0 and has no gradient. With `causal`,
row i sees the columns up to i, and what no row of a block sees is not computed.

What bounds it: the passes over rows while S is some tens, then the products.

Forward, threads share the blocks; backward, the heads, whose dK and dV are summed over blocks in
order. The result does not depend on the number of threads.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np
from numba import prange

from .. import memory
from .dropout import keep_threshold, key_words, random_word
from .jit import COMPILED, get_num_threads, jit
from .math import exp
from .matmul import PARALLEL, SCRATCH, addresses
from .simd import ROWS, VECTOR_BYTES, call_native
from .softmax import row_max

_BLOCK = 1 << 17  # bytes of a block of scores
_MOST_ROWS = 128

_u32 = np.uint32


# The passes over the rows of a block. Each runs over all rows before the next begins: one row's
# maximum, exponentials and sum wait for each other, those of several rows do not.


@jit
def _score(t, bias, scale):  # type: ignore[no-untyped-def]
    """A row of products becomes scores; returns the largest, or 0 if all are -inf."""
    if bias.size > 0:
        for j in range(t.size):
            t[j] = t[j] * scale + bias[j]
    else:
        for j in range(t.size):
            t[j] *= scale
    top = row_max(t)
    return scale - scale if top == -np.inf else top


@jit
def _exponentiate(t, top):  # type: ignore[no-untyped-def]
    for j in range(t.size):
        t[j] = exp(t[j] - top)


@jit
def _normalise(t, base, dropout):  # type: ignore[no-untyped-def]
    """Exponentials become weights after dropout; returns 1 / their sum, or 0 if that is 0."""
    key0, key1, threshold, keep_scale = dropout
    zero = keep_scale - keep_scale
    total = zero
    for j in range(t.size):
        total += t[j]
    inverse = zero if total == zero else (keep_scale / keep_scale) / total
    factor = keep_scale * inverse
    if threshold == _u32(0):
        for j in range(t.size):
            t[j] *= factor
    else:
        key0 = _u32(key0 + _u32(base))
        for j in range(t.size):
            t[j] *= factor if random_word(key0, key1, _u32(j)) >= threshold else zero
    return inverse


@jit
def _weigh_again(t, bias, scale, top, inverse, base, dropout):  # type: ignore[no-untyped-def]
    """A row of products becomes P, with a minus sign where dropout dropped it."""
    key0, key1, threshold, _ = dropout
    if bias.size > 0:
        for j in range(t.size):
            t[j] = exp(t[j] * scale + bias[j] - top) * inverse
    else:
        for j in range(t.size):
            t[j] = exp(t[j] * scale - top) * inverse
    if threshold != _u32(0):
        key0 = _u32(key0 + _u32(base))
        for j in range(t.size):
            t[j] = t[j] if random_word(key0, key1, _u32(j)) >= threshold else -t[j]


@jit
def _differentiate(t, g, scale, keep_scale):  # type: ignore[no-untyped-def]
    """A row of t from `_weigh_again` becomes P', and of g = dO V^T scale * dT."""
    zero = keep_scale - keep_scale
    total = zero
    for j in range(t.size):
        total += max(t[j], zero) * g[j]
    total *= keep_scale
    for j in range(t.size):
        kept = max(t[j], zero) * keep_scale
        g[j] = (kept * g[j] - abs(t[j]) * total) * scale
        t[j] = kept


@jit
def _bias_row(bias, n, h, row):  # type: ignore[no-untyped-def]
    """A row of a bias whose dimensions may be 1; empty if there is no bias."""
    a, b, c = bias.shape[:3]
    return bias[min(n, a - 1), min(h, b - 1), min(row, c - 1)]


@jit
def _forward(  # type: ignore[no-untyped-def]
    task, tasks, product, addresses, strides, shape, causal, scale, dropout,
    stats, bias, tiles, scratch,
):  # fmt: skip
    """One task's share of the blocks."""
    q0, k0, v0, out0 = addresses
    q_n, q_h, q_row, k_n, k_h, k_row, v_n, v_h, v_row, out_n, out_h, out_row = strides
    heads, rows, cols, width, value_width = shape
    t, work = tiles[task, 0], scratch[task].ctypes.data
    height, pitch = t.shape
    size = t.itemsize
    t0, t_row = t.ctypes.data, pitch * size
    blocks = -(-rows // height)
    items = stats.shape[0] * blocks
    for item in range(items * task // tasks, items * (task + 1) // tasks):
        head, block = item // blocks, item % blocks
        n, h = head // heads, head % heads
        top = rows * block // blocks
        count = rows * (block + 1) // blocks - top
        seen = min(cols, top + count) if causal else cols
        q1, k1 = q0 + n * q_n + h * q_h + top * q_row, k0 + n * k_n + h * k_h
        v1, out1 = v0 + n * v_n + h * v_h, out0 + n * out_n + h * out_h + top * out_row
        call_native(product, t, (
            count, seen, width, q1, q_row, size, k1, size, k_row, t0, t_row, 0, 0, work
        ))  # fmt: skip
        for i in range(count):
            row = top + i
            stop = min(cols, row + 1) if causal else cols
            stats[head, row, 0] = _score(t[i, :stop], _bias_row(bias, n, h, row)[:stop], scale)
        for i in range(count):
            stop = min(cols, top + i + 1) if causal else cols
            _exponentiate(t[i, :stop], stats[head, top + i, 0])
        for i in range(count):
            row = top + i
            stop = min(cols, row + 1) if causal else cols
            base = (head * rows + row) * cols
            stats[head, row, 1] = _normalise(t[i, :stop], base, dropout)
            for j in range(stop, seen):
                t[i, j] = 0
        call_native(product, t, (
            count, value_width, seen, t0, t_row, size, v1, v_row, size, out1, out_row, 0, 0, work
        ))  # fmt: skip


@jit
def _backward(  # type: ignore[no-untyped-def]
    task, tasks, product, addresses, strides, shape, causal, scale, dropout,
    stats, bias, tiles, scratch,
):  # fmt: skip
    """One task's share of the heads."""
    do0, q0, k0, v0, dq0, dk0, dv0 = addresses
    do_n, do_h, do_row, q_n, q_h, q_row, k_n, k_h, k_row, v_n, v_h, v_row = strides[:12]
    dq_n, dq_h, dq_row, dk_n, dk_h, dk_row, dv_n, dv_h, dv_row = strides[12:]
    heads, rows, cols, width, value_width = shape
    t, g, work = tiles[task, 0], tiles[task, 1], scratch[task].ctypes.data
    height, pitch = t.shape
    size = t.itemsize
    t0, g0, t_row = t.ctypes.data, g.ctypes.data, pitch * size
    blocks = -(-rows // height)
    items = stats.shape[0]
    for head in range(items * task // tasks, items * (task + 1) // tasks):
        n, h = head // heads, head % heads
        k1, v1 = k0 + n * k_n + h * k_h, v0 + n * v_n + h * v_h
        dk1, dv1 = dk0 + n * dk_n + h * dk_h, dv0 + n * dv_n + h * dv_h
        add = 0  # the first block sees the most columns, and all later blocks add to it
        for block in range(blocks - 1, -1, -1):
            top = rows * block // blocks
            count = rows * (block + 1) // blocks - top
            seen = min(cols, top + count) if causal else cols
            do1 = do0 + n * do_n + h * do_h + top * do_row
            q1 = q0 + n * q_n + h * q_h + top * q_row
            dq1 = dq0 + n * dq_n + h * dq_h + top * dq_row
            call_native(product, t, (
                count, seen, width, q1, q_row, size, k1, size, k_row, t0, t_row, 0, 0, work
            ))  # fmt: skip
            call_native(product, t, (
                count, seen, value_width, do1, do_row, size, v1, size, v_row, g0, t_row, 0, 0, work
            ))  # fmt: skip
            for i in range(count):
                row = top + i
                stop = min(cols, row + 1) if causal else cols
                _weigh_again(
                    t[i, :stop],
                    _bias_row(bias, n, h, row)[:stop],
                    scale,
                    stats[head, row, 0],
                    stats[head, row, 1],
                    (head * rows + row) * cols,
                    dropout,
                )
            for i in range(count):
                stop = min(cols, top + i + 1) if causal else cols
                _differentiate(t[i, :stop], g[i, :stop], scale, dropout[3])
                for j in range(stop, seen):
                    t[i, j] = g[i, j] = 0
            call_native(product, t, (
                seen, value_width, count, t0, size, t_row, do1, do_row, size, dv1, dv_row,
                0, add, work,
            ))  # fmt: skip
            call_native(product, t, (
                seen, width, count, g0, size, t_row, q1, q_row, size, dk1, dk_row, 0, add, work
            ))  # fmt: skip
            call_native(product, t, (
                count, width, seen, g0, t_row, size, k1, k_row, size, dq1, dq_row, 0, 0, work
            ))  # fmt: skip
            add = 1


@jit(parallel=True)
def _forward_parallel(  # type: ignore[no-untyped-def]
    tasks, product, addresses, strides, shape, causal, scale, dropout,
    stats, bias, tiles, scratch,
):  # fmt: skip
    for task in prange(tasks):
        _forward(
            task, tasks, product, addresses, strides, shape, causal, scale, dropout,
            stats, bias, tiles, scratch,
        )  # fmt: skip


@jit(parallel=True)
def _backward_parallel(  # type: ignore[no-untyped-def]
    tasks, product, addresses, strides, shape, causal, scale, dropout,
    stats, bias, tiles, scratch,
):  # fmt: skip
    for task in prange(tasks):
        _backward(
            task, tasks, product, addresses, strides, shape, causal, scale, dropout,
            stats, bias, tiles, scratch,
        )  # fmt: skip


def attention(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    bias: np.ndarray | None,
    causal: bool,
    scale: float,
    p: float,
    key: int,
) -> tuple[np.ndarray, np.ndarray]:
    """q (N, H, L, K), k (N, H, S, K), v (N, H, S, V) -> out (N, H, L, V), statistics (N * H, L, 2).

    `bias` (N or 1, H or 1, L or 1, S) is added to the scaled scores; `p` and `key` are those of
    dropout. All of one type, float32 or float64. The result has its dimensions in q's order in
    memory. No length may be 0.
    """
    heads, rows = q.shape[1:3]
    out = _like(q, v.shape[-1])
    stats = memory.empty((q.shape[0] * heads, rows, 2), q.dtype)
    q, k, v = _unit_stride(q), _unit_stride(k), _unit_stride(v)
    given = _given((q, k, v, out), q, k, v, stats, bias, causal, scale, p, key, 1)
    _run(_forward, _forward_parallel, *given)
    return out, stats


def attention_backward(
    dout: np.ndarray,
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    stats: np.ndarray,
    bias: np.ndarray | None,
    causal: bool,
    scale: float,
    p: float,
    key: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The gradients of q, k and v, given that of out and the statistics of `attention`."""
    dq, dk, dv = (_like(x, x.shape[-1]) for x in (q, k, v))
    rest = k.shape[2] - q.shape[2]
    if causal and rest > 0:  # what no row sees
        dk[:, :, -rest:] = 0
        dv[:, :, -rest:] = 0
    dout, q, k, v = (_unit_stride(x) for x in (dout, q, k, v))
    arrays = (dout, q, k, v, dq, dk, dv)
    given = _given(arrays, q, k, v, stats, bias, causal, scale, p, key, 2)
    _run(_backward, _backward_parallel, *given)
    return dq, dk, dv


def _run(one: Any, many: Any, tasks: int, *given: Any) -> None:
    """Share the work between `tasks` threads."""
    if tasks == 1:
        one(0, 1, *given)
    else:
        many(tasks, *given)


def _given(
    arrays: tuple[np.ndarray, ...],
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    stats: np.ndarray,
    bias: np.ndarray | None,
    causal: bool,
    scale: float,
    p: float,
    key: int,
    tiles: int,
) -> tuple[Any, ...]:
    """The arguments of `_forward` and `_backward` after the first, with their working memory."""
    (batch, heads, rows, width), (cols, value_width) = q.shape, v.shape[2:]
    number, size = q.dtype.type, q.itemsize
    if bias is None:
        bias = np.empty((1, 1, 1, 0), q.dtype)
    lanes = VECTOR_BYTES // size
    pitch = (cols + lanes - 1) // lanes * lanes + lanes  # no power of 2, which caches dislike
    height = max(ROWS, min(_MOST_ROWS, rows, _BLOCK // (pitch * size)))
    work = batch * heads * rows * cols * (width + value_width)
    tasks = get_num_threads() if work >= PARALLEL else 1
    return (
        tasks,
        addresses(q.dtype)[0] if COMPILED else 0,
        tuple(x.ctypes.data for x in arrays),
        tuple(stride for x in arrays for stride in x.strides[:3]),
        (heads, rows, cols, width, value_width),
        causal,
        number(scale),
        (*key_words(key), keep_threshold(p), number(1 / (1 - p))),
        stats,
        np.ascontiguousarray(bias),
        _aligned((tasks, tiles, height, pitch), q.dtype),
        _aligned((tasks, SCRATCH // VECTOR_BYTES, VECTOR_BYTES), np.dtype(np.uint8)),
    )


def _aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """Uninitialised memory that starts where a vector may."""
    count = math.prod(shape) * dtype.itemsize
    block = memory.empty(count + VECTOR_BYTES, np.uint8)
    start = -block.ctypes.data % VECTOR_BYTES
    return block[start : start + count].view(dtype).reshape(shape)


def _product_by_numpy(_: int, like: np.ndarray, numbers: tuple[int, ...]) -> None:
    """The product on addresses, where nothing is compiled."""
    m, n, k, a, a_row, a_col, b, b_row, b_col, c, c_row, _, add, _ = numbers

    def matrix(address: int, rows: int, cols: int, row: int, col: int) -> np.ndarray:
        span = (rows - 1) * row + (cols - 1) * col + like.itemsize
        content: Any = (ctypes.c_char * span).from_address(address)
        return np.ndarray((rows, cols), like.dtype, content, strides=(row, col))

    out = matrix(c, m, n, c_row, like.itemsize)
    out[...] = matrix(a, m, k, a_row, a_col) @ matrix(b, k, n, b_row, b_col) + (out if add else 0)


if not COMPILED:
    call_native = _product_by_numpy


def _like(x: np.ndarray, width: int) -> np.ndarray:
    """An array of shape (*, width) whose other dimensions lie in memory in the order of x's."""
    n, h, rows, _ = x.shape
    if x.strides[1] < x.strides[2]:  # the heads side by side, as a projection leaves them
        return memory.empty((n, rows, h, width), x.dtype).transpose(0, 2, 1, 3)
    return memory.empty((n, h, rows, width), x.dtype)


def _unit_stride(x: np.ndarray) -> np.ndarray:
    """x, or a copy if the elements of a row are not side by side."""
    return x if x.strides[-1] == x.itemsize or x.shape[-1] == 1 else np.ascontiguousarray(x)
