"""Scaled dot product attention, forward and backward, without an array of shape (N, H, L, S).

For each of the N * H heads, with a bias of any numbers (-inf where attention is forbidden):

    T = scale * Q K^T + bias    P = softmax(T)    P' = dropout(P)    O = P' V

    dV = P'^T dO    dP = dropout(dO V^T)    dT = P * (dP - rowsum(P * dP))
    dQ = scale * dT K    dK = scale * dT^T Q

A thread works on a block of a head's rows at a time. Their scores, up to _MOST_ROWS by S numbers
and backward twice that, stay in its second-level cache. The products are those of
`kernels.matmul`, on addresses. Nothing is kept for the backward pass, which computes P again; that
costs less than writing and reading it. A row where nothing is allowed is 0 and has no gradient.
With `causal`, row i sees the columns up to i, and what no row of a block sees is not computed.

What bounds it: the passes over rows while S is some tens, then the products.

Forward, threads share the blocks; backward, the heads, whose dK and dV are summed over blocks in
order. The result does not depend on the number of threads.
"""

from __future__ import annotations

import ctypes
import threading
from typing import Any

import numpy as np
from numba import prange

from .. import memory
from .dropout import keep_threshold, key_words, random_word
from .jit import COMPILED, get_num_threads, jit
from .math import exp
from .matmul import PARALLEL, SCRATCH, addresses
from .matmul import _first as first
from .simd import ROWS, VECTOR_BYTES, call_native
from .softmax import float_of, ordinal

_BLOCK = 1 << 19  # bytes of a block of scores
_MOST_ROWS = 128

_u32 = np.uint32


# Passes over a block: the rows of `t` that belong to rows `first` to `last` of a head. Each is a
# loop of its own over all rows: what one row's maximum, exponentials and sum wait for, those of
# the next do not.


@jit
def _stop(row, cols, causal):  # type: ignore[no-untyped-def]
    """How many columns a row sees."""
    return min(cols, row + 1) if causal else cols


@jit
def _weigh(t, first, last, cols, causal, bias, scale):  # type: ignore[no-untyped-def]
    """Products become P. Right of what a row sees is anything."""
    lowest = ordinal(t.dtype.type(-np.inf))
    zero, one = t.dtype.type(0), t.dtype.type(1)
    free = t.shape[1] - 1  # a column of the margin, for the maxima
    for row in range(first, last):
        x = t[row - first, : _stop(row, cols, causal)]
        most = lowest
        if bias.size > 0:
            b = bias[min(row, bias.shape[0] - 1)]
            for j in range(x.size):
                x[j] = x[j] * scale + b[j]
                order = ordinal(x[j])
                most = order if order > most else most
        else:
            for j in range(x.size):
                x[j] *= scale
                order = ordinal(x[j])
                most = order if order > most else most
        t[row - first, free] = zero if most == lowest else float_of(most)
    lanes = VECTOR_BYTES // t.itemsize
    for row in range(first, last):
        x = t[row - first, : -(-_stop(row, cols, causal) // lanes) * lanes]  # whole vectors
        top = t[row - first, free]
        for j in range(x.size):
            x[j] = exp(x[j] - top)
    for row in range(first, last):
        x = t[row - first, : _stop(row, cols, causal)]
        total = zero
        for j in range(x.size):
            total += x[j]
        factor = zero if total == zero else one / total
        for j in range(x.size):
            x[j] *= factor


@jit
def _drop(t, first, last, cols, causal, head_start, dropout, kept, dropped):  # type: ignore[no-untyped-def]
    """Multiply by `kept` or `dropped`."""
    key0, key1, threshold = dropout
    for row in range(first, last):
        x = t[row - first, : _stop(row, cols, causal)]
        key = _u32(key0 + _u32(head_start + row * cols))
        for j in range(x.size):
            x[j] *= kept if random_word(key, key1, _u32(j)) >= threshold else dropped


@jit
def _differentiate(t, g, first, last, cols, causal, scale, keep_scale):  # type: ignore[no-untyped-def]
    """P, with a minus sign where dropped, and g = dO V^T become P' and scale * dT."""
    zero = t.dtype.type(0)
    for row in range(first, last):
        stop = _stop(row, cols, causal)
        x, y = t[row - first, :stop], g[row - first, :stop]
        total = zero
        for j in range(x.size):
            total += max(x[j], zero) * y[j]
        total *= keep_scale
        for j in range(x.size):
            weight = max(x[j], zero) * keep_scale
            y[j] = (weight * y[j] - abs(x[j]) * total) * scale
            x[j] = weight


@jit
def _clear(t, first, last, cols, causal, seen):  # type: ignore[no-untyped-def]
    """Zeros right of what a row sees, up to column `seen`."""
    if causal:
        for row in range(first, last):
            x = t[row - first, _stop(row, cols, causal) : seen]
            for j in range(x.size):
                x[j] = 0


@jit
def _bias_of(bias, n, h):  # type: ignore[no-untyped-def]
    """The bias of a head, (L or 1, S); empty if there is none."""
    return bias[min(n, bias.shape[0] - 1), min(h, bias.shape[1] - 1)]


@jit
def _forward(  # type: ignore[no-untyped-def]
    q, k, v, out, product, strides, shape, causal, scale, keep_scale, dropout,
    bias, room, height, pitch, task, tasks,
):  # fmt: skip
    """One task's share of the blocks."""
    q0, k0, v0, out0 = q.ctypes.data, k.ctypes.data, v.ctypes.data, out.ctypes.data
    q_n, q_h, q_row, k_n, k_h, k_row, v_n, v_h, v_row, out_n, out_h, out_row = strides
    batch, heads, rows, cols, width, value_width = shape
    t = room[task, : height * pitch].reshape(height, pitch)
    t0, work = t.ctypes.data, room[task, height * pitch :].ctypes.data
    size, t_row = t.itemsize, t.strides[0]
    blocks = -(-rows // height)
    items = batch * heads * blocks
    for item in range(items * task // tasks, items * (task + 1) // tasks):
        head, block = item // blocks, item % blocks
        n, h = head // heads, head % heads
        first, last = rows * block // blocks, rows * (block + 1) // blocks
        seen = _stop(last - 1, cols, causal)
        q1, k1 = q0 + n * q_n + h * q_h + first * q_row, k0 + n * k_n + h * k_h
        v1, out1 = v0 + n * v_n + h * v_h, out0 + n * out_n + h * out_h + first * out_row
        call_native(product, t, (
            last - first, seen, width, q1, q_row, size, k1, size, k_row, t0, t_row, 0, 0, work
        ))  # fmt: skip
        _weigh(t, first, last, cols, causal, _bias_of(bias, n, h), scale)
        if dropout[2] > _u32(0):
            start = head * rows * cols
            _drop(t, first, last, cols, causal, start, dropout, keep_scale, scale - scale)
        _clear(t, first, last, cols, causal, seen)
        call_native(product, t, (
            last - first, value_width, seen, t0, t_row, size, v1, v_row, size, out1, out_row,
            0, 0, work,
        ))  # fmt: skip


@jit
def _backward(  # type: ignore[no-untyped-def]
    dout, q, k, v, dq, dk, dv, product, strides, shape, causal, scale, keep_scale, dropout,
    bias, room, height, pitch, task, tasks,
):  # fmt: skip
    """One task's share of the heads."""
    do0, q0, k0, v0 = dout.ctypes.data, q.ctypes.data, k.ctypes.data, v.ctypes.data
    dq0, dk0, dv0 = dq.ctypes.data, dk.ctypes.data, dv.ctypes.data
    do_n, do_h, do_row, q_n, q_h, q_row, k_n, k_h, k_row, v_n, v_h, v_row = strides[:12]
    dq_n, dq_h, dq_row, dk_n, dk_h, dk_row, dv_n, dv_h, dv_row = strides[12:]
    batch, heads, rows, cols, width, value_width = shape
    t = room[task, : height * pitch].reshape(height, pitch)
    g = room[task, height * pitch : 2 * height * pitch].reshape(height, pitch)
    t0, g0, work = t.ctypes.data, g.ctypes.data, room[task, 2 * height * pitch :].ctypes.data
    size, t_row = t.itemsize, t.strides[0]
    blocks = -(-rows // height)
    items = batch * heads
    for head in range(items * task // tasks, items * (task + 1) // tasks):
        n, h = head // heads, head % heads
        k1, v1 = k0 + n * k_n + h * k_h, v0 + n * v_n + h * v_h
        dk1, dv1 = dk0 + n * dk_n + h * dk_h, dv0 + n * dv_n + h * dv_h
        add = 0  # the first block sees the most columns, and all later blocks add to it
        for block in range(blocks - 1, -1, -1):
            first, last = rows * block // blocks, rows * (block + 1) // blocks
            count, seen = last - first, _stop(last - 1, cols, causal)
            do1 = do0 + n * do_n + h * do_h + first * do_row
            q1 = q0 + n * q_n + h * q_h + first * q_row
            dq1 = dq0 + n * dq_n + h * dq_h + first * dq_row
            call_native(product, t, (
                count, seen, width, q1, q_row, size, k1, size, k_row, t0, t_row, 0, 0, work
            ))  # fmt: skip
            call_native(product, t, (
                count, seen, value_width, do1, do_row, size, v1, size, v_row, g0, t_row, 0, 0, work
            ))  # fmt: skip
            _weigh(t, first, last, cols, causal, _bias_of(bias, n, h), scale)
            if dropout[2] > _u32(0):
                start, one = head * rows * cols, keep_scale / keep_scale
                _drop(t, first, last, cols, causal, start, dropout, one, -one)
            _differentiate(t, g, first, last, cols, causal, scale, keep_scale)
            _clear(t, first, last, cols, causal, seen)
            _clear(g, first, last, cols, causal, seen)
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
    q, k, v, out, product, strides, shape, causal, scale, keep_scale, dropout,
    bias, room, height, pitch, tasks,
):  # fmt: skip
    for task in prange(tasks):
        _forward(
            q, k, v, out, product, strides, shape, causal, scale, keep_scale, dropout,
            bias, room, height, pitch, task, tasks,
        )  # fmt: skip


@jit(parallel=True)
def _backward_parallel(  # type: ignore[no-untyped-def]
    dout, q, k, v, dq, dk, dv, product, strides, shape, causal, scale, keep_scale, dropout,
    bias, room, height, pitch, tasks,
):  # fmt: skip
    for task in prange(tasks):
        _backward(
            dout, q, k, v, dq, dk, dv, product, strides, shape, causal, scale, keep_scale, dropout,
            bias, room, height, pitch, task, tasks,
        )  # fmt: skip


def _run(one: Any, many: Any, tasks: int, *given: Any) -> None:
    """Share the work between `tasks` threads."""
    if tasks == 1:
        one(*given, 0, 1)
    else:
        many(*given, tasks)


def attention(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    bias: np.ndarray | None,
    causal: bool,
    scale: float,
    p: float,
    key: int,
) -> np.ndarray:
    """q (N, H, L, K), k (N, H, S, K), v (N, H, S, V) -> (N, H, L, V).

    `bias` (N or 1, H or 1, L or 1, S) is added to the scaled scores; `p` and `key` are those of
    dropout. All of one type, float32 or float64. The result has its dimensions in q's order in
    memory. No length may be 0.
    """
    out = _like(q, v.shape[-1])
    q, k, v = _unit_stride(q), _unit_stride(k), _unit_stride(v)
    arrays = (q, k, v, out)
    tasks, *settings = _settings(arrays, q, v, bias, causal, scale, p, key, 1)
    _run(_forward, _forward_parallel, tasks, *map(first, arrays), *settings)
    return out


def attention_backward(
    dout: np.ndarray,
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    bias: np.ndarray | None,
    causal: bool,
    scale: float,
    p: float,
    key: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The gradients of q, k and v, given that of the result of `attention`."""
    dq, dk, dv = (_like(x, x.shape[-1]) for x in (q, k, v))
    rest = k.shape[2] - q.shape[2]
    if causal and rest > 0:  # what no row sees
        dk[:, :, -rest:] = 0
        dv[:, :, -rest:] = 0
    dout, q, k, v = (_unit_stride(x) for x in (dout, q, k, v))
    arrays = (dout, q, k, v, dq, dk, dv)
    tasks, *settings = _settings(arrays, q, v, bias, causal, scale, p, key, 2)
    _run(_backward, _backward_parallel, tasks, *map(first, arrays), *settings)
    return dq, dk, dv


def _settings(
    arrays: tuple[np.ndarray, ...],
    q: np.ndarray,
    v: np.ndarray,
    bias: np.ndarray | None,
    causal: bool,
    scale: float,
    p: float,
    key: int,
    tiles: int,
) -> tuple[Any, ...]:
    """How many tasks, and the arguments after the arrays, with working memory for `tiles`."""
    (batch, heads, rows, width), (cols, value_width) = q.shape, v.shape[2:]
    number, size = q.dtype.type, q.itemsize
    lanes = VECTOR_BYTES // size
    pitch = (cols + lanes - 1) // lanes * lanes + lanes  # the margin makes it no power of 2
    height = max(ROWS, min(_MOST_ROWS, rows, _BLOCK // (pitch * size)))
    work = batch * heads * rows * cols * (width + value_width)
    tasks = get_num_threads() if work >= PARALLEL else 1
    return (
        tasks,
        addresses(q.dtype)[0] if COMPILED else 0,
        tuple([stride for x in arrays for stride in x.strides[:3]]),
        (batch, heads, rows, cols, width, value_width),
        causal,
        number(scale),
        number(1 / (1 - p)),
        (*key_words(key), keep_threshold(p)) if p else _NO_DROPOUT,
        np.empty((1, 1, 1, 0), q.dtype) if bias is None else np.ascontiguousarray(bias),
        _room.take(tasks, tiles * height * pitch + SCRATCH // size, q.dtype),
        height,
        pitch,
    )


_NO_DROPOUT = (_u32(0), _u32(0), _u32(0))


class _Room(threading.local):
    """Working memory of a calling thread, for the threads that help it."""

    def __init__(self) -> None:
        self.bytes = np.empty(0, np.uint8)

    def take(self, tasks: int, count: int, dtype: np.dtype[Any]) -> np.ndarray:
        """`count` numbers for each task, the first where a vector may start."""
        size = tasks * count * dtype.itemsize
        if self.bytes.size < size:
            block = np.empty(size + VECTOR_BYTES, np.uint8)
            self.bytes = block[-block.ctypes.data % VECTOR_BYTES :]
        return self.bytes[:size].view(dtype).reshape(tasks, count)


_room = _Room()


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
