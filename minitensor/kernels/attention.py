"""Scaled dot product attention, forward and backward, without an array of shape (N, H, L, S).

For each of the N * H heads, with a bias of any numbers (-inf where attention is forbidden):

    T = scale * Q K^T + bias    P = softmax(T)    P' = dropout(P)    O = P' V

    D = rowsum(dO * O)    dV = P'^T dO    dT = P' * (dO V^T) - P * D
    dQ = scale * dT K    dK = scale * dT^T Q

A thread works on a block of a head's rows at a time. Their scores, up to _MOST_ROWS by S numbers
and backward twice that, stay in its second-level cache. The products are those of
`kernels.matmul`, on addresses. Of the scores, each row's maximum and the sum of its exponentials
are kept for the backward pass, which computes P again; that costs less than writing and reading it.
A row where nothing is allowed is 0 and has no gradient. With `causal`, row i sees the columns up to
i, and what no row of a block sees is not computed. Scores are held as multiples of ln 2, so that
their exponentials are powers of 2.

What bounds it: the passes over rows while S is some tens, then the products.

Forward, threads share the blocks; backward, the heads, whose dK and dV are summed over blocks in
order. The result does not depend on the number of threads.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload, register_jitable

from .. import memory
from .dropout import keep_threshold, key_words, random_word
from .jit import COMPILED, get_num_threads, jit
from .matmul import PARALLEL, PRODUCT, SCRATCH
from .simd import ROWS, VECTOR_BYTES, call_native
from .softmax import float_of, ordinal
from .tasks import Tasks, address, array_at, unpacked

_BLOCK = 1 << 19  # bytes of a block of scores
_MOST_ROWS = 128
_LOG2E = 1.4426950408889634

_u32 = np.uint32

# Of each array, the address and three strides in bytes.
_ARRAYS = ("o", "q", "k", "v", "bias", "do", "dq", "dk", "dv")
_INTEGERS = (
    " ".join(f"{x} {x}_n {x}_h {x}_row" for x in _ARRAYS)
    + """
    statistics batch heads rows cols width value_width causal drops key0 key1 threshold
    product height pitch room own"""
)
_FLOATS = "scale keep_scale"


# Powers of 2

_SHIFT = np.float32(3 * 2.0**22 + 127)  # added to n, leaves n + 127 in the lowest bits
_LOWEST = np.float32(-127)  # 2^-127 and less is 0
_MANTISSA = np.int32(23)
_P0 = np.float32(1.000000072e00)
_P1 = np.float32(6.931469671e-01)
_P2 = np.float32(2.402211972e-01)
_P3 = np.float32(5.550713274e-02)
_P4 = np.float32(9.675541334e-03)
_P5 = np.float32(1.327647198e-03)


def power_of_two(x: Any) -> Any:
    """2^x for x <= 0, or NaN."""
    return np.exp2(x)


def _power_of_two_single(x: Any) -> Any:
    c = _LOWEST if x < _LOWEST else x
    shifted = np.float32(c + _SHIFT)
    r = c - (shifted - _SHIFT)
    y = ((((_P5 * r + _P4) * r + _P3) * r + _P2) * r + _P1) * r + _P0
    return y * np.int32(shifted.view(np.int32) << _MANTISSA).view(np.float32)


# Without `reassoc`, which would undo the shift.
@overload(power_of_two, jit_options={"fastmath": {"nsz", "contract"}, "error_model": "numpy"})
def _choose_power_of_two(x: Any) -> Any:
    return _power_of_two_single if x == types.float32 else power_of_two


# Passes over a block: rows `first` to `last` of head (n, h), in the rows of a tile. Each pass is a
# loop of its own over all rows: what one row's maximum, exponentials and sum wait for, those of
# the next do not.


@jit
def _stop(s, row):  # type: ignore[no-untyped-def]
    """How many columns a row sees."""
    return min(s.cols, row + 1) if s.causal != 0 else s.cols


@jit
def _whole(s, row, itemsize):  # type: ignore[no-untyped-def]
    """The same in whole vectors."""
    lanes = VECTOR_BYTES // itemsize
    return -(-_stop(s, row) // lanes) * lanes


@jit
def _statistics(s, like, itemsize, n, h, first, last):  # type: ignore[no-untyped-def]
    """Of each row, the largest score and 1 / the sum of the exponentials."""
    row = (n * s.heads + h) * s.rows + first
    return array_at(like, s.statistics + 2 * itemsize * row, (last - first, 2))


@register_jitable(fastmath={"nsz"})  # to the bit the same number forward and backward
def _score(product: Any, scale: Any, bias: Any) -> Any:
    return product * scale + bias


@jit
def _weigh(s, like, t, n, h, first, last):  # type: ignore[no-untyped-def]
    """Products become P'. Right of what a row sees is anything."""
    number = t.dtype.type
    scale, log2e, zero, one = number(s.scale * _LOG2E), number(_LOG2E), number(0), number(1)
    lowest = ordinal(number(-np.inf))
    found = _statistics(s, like, t.itemsize, n, h, first, last)
    bias = s.bias + n * s.bias_n + h * s.bias_h
    for row in range(first, last):
        x = t[row - first, : _stop(s, row)]
        most = lowest
        if s.bias != 0:
            b = array_at(like, bias + row * s.bias_row, (s.cols,))
            for j in range(x.size):
                x[j] = _score(x[j], scale, b[j] * log2e)
                order = ordinal(x[j])
                most = order if order > most else most
        else:
            for j in range(x.size):
                x[j] *= scale
                order = ordinal(x[j])
                most = order if order > most else most
        found[row - first, 0] = zero if most == lowest else float_of(most)
    for row in range(first, last):
        x = t[row - first, : _whole(s, row, t.itemsize)]
        top = found[row - first, 0]
        for j in range(x.size):
            x[j] = power_of_two(x[j] - top)
    key1, threshold, keep_scale = _u32(s.key1), _u32(s.threshold), number(s.keep_scale)
    for row in range(first, last):
        x = t[row - first, : _stop(s, row)]
        total = zero
        for j in range(x.size):
            total += x[j]
        factor = zero if total == zero else one / total
        found[row - first, 1] = factor
        if s.drops != 0:
            factor *= keep_scale
            key0 = _u32(s.key0 + ((n * s.heads + h) * s.rows + row) * s.cols)
            for j in range(x.size):
                x[j] *= factor if random_word(key0, key1, _u32(j)) >= threshold else zero
        else:
            for j in range(x.size):
                x[j] *= factor


@jit
def _weigh_again(s, like, t, n, h, first, last):  # type: ignore[no-untyped-def]
    """Products become P. Right of what a row sees is anything."""
    number = t.dtype.type
    scale, log2e = number(s.scale * _LOG2E), number(_LOG2E)
    found = _statistics(s, like, t.itemsize, n, h, first, last)
    bias = s.bias + n * s.bias_n + h * s.bias_h
    for row in range(first, last):
        top, factor = found[row - first, 0], found[row - first, 1]
        if s.bias != 0:
            x = t[row - first, : _stop(s, row)]
            b = array_at(like, bias + row * s.bias_row, (s.cols,))
            for j in range(x.size):
                x[j] = power_of_two(_score(x[j], scale, b[j] * log2e) - top) * factor
        else:
            x = t[row - first, : _whole(s, row, t.itemsize)]
            for j in range(x.size):
                x[j] = power_of_two(_score(x[j], scale, number(0)) - top) * factor


@jit
def _differentiate(s, like, t, g, n, h, first, last):  # type: ignore[no-untyped-def]
    """P and g = dO V^T become P' and scale * dT."""
    number = t.dtype.type
    scale, keep_scale, zero = number(s.scale), number(s.keep_scale), number(0)
    key1, threshold = _u32(s.key1), _u32(s.threshold)
    o, do = s.o + n * s.o_n + h * s.o_h, s.do + n * s.do_n + h * s.do_h
    for row in range(first, last):
        a = array_at(like, o + row * s.o_row, (s.value_width,))
        b = array_at(like, do + row * s.do_row, (s.value_width,))
        total = zero
        for j in range(a.size):
            total += a[j] * b[j]
        t[row - first, t.shape[1] - 1] = total  # in the margin
    for row in range(first, last):
        x, y = t[row - first, : _stop(s, row)], g[row - first, : _stop(s, row)]
        total = t[row - first, t.shape[1] - 1]
        if s.drops != 0:
            key0 = _u32(s.key0 + ((n * s.heads + h) * s.rows + row) * s.cols)
            for j in range(x.size):
                keep = keep_scale if random_word(key0, key1, _u32(j)) >= threshold else zero
                y[j] = x[j] * (keep * y[j] - total) * scale
                x[j] *= keep
        else:
            for j in range(x.size):
                y[j] = x[j] * (y[j] - total) * scale


@jit
def _clear(s, t, first, last):  # type: ignore[no-untyped-def]
    """Zeros right of what a row sees, as far as the last row sees."""
    for row in range(first, last):
        x = t[row - first, _stop(s, row) : _stop(s, last - 1)]
        for j in range(x.size):
            x[j] = 0


# The kernels


def _forward(settings, like, task, tasks):  # type: ignore[no-untyped-def]
    """One task's share of the blocks."""
    s = unpacked(settings)
    room = s.room + task * s.own
    t = array_at(like, room, (s.height, s.pitch))
    size, t_row = t.itemsize, t.strides[0]
    work = room + s.height * t_row
    blocks = -(-s.rows // s.height)
    items = s.batch * s.heads * blocks
    for item in range(items * task // tasks, items * (task + 1) // tasks):
        head, block = item // blocks, item % blocks
        n, h = head // s.heads, head % s.heads
        first, last = s.rows * block // blocks, s.rows * (block + 1) // blocks
        count, seen = last - first, _stop(s, last - 1)
        q, k = s.q + n * s.q_n + h * s.q_h + first * s.q_row, s.k + n * s.k_n + h * s.k_h
        v, o = s.v + n * s.v_n + h * s.v_h, s.o + n * s.o_n + h * s.o_h + first * s.o_row
        call_native(s.product, t, (
            count, seen, s.width, q, s.q_row, size, k, size, s.k_row, room, t_row, 0, 0, work
        ))  # fmt: skip
        _weigh(s, like, t, n, h, first, last)
        _clear(s, t, first, last)
        call_native(s.product, t, (
            count, s.value_width, seen, room, t_row, size, v, s.v_row, size, o, s.o_row,
            0, 0, work,
        ))  # fmt: skip


def _backward(settings, like, task, tasks):  # type: ignore[no-untyped-def]
    """One task's share of the heads."""
    s = unpacked(settings)
    room = s.room + task * s.own
    t = array_at(like, room, (s.height, s.pitch))
    size, t_row = t.itemsize, t.strides[0]
    g_room = room + s.height * t_row
    g = array_at(like, g_room, (s.height, s.pitch))
    work = g_room + s.height * t_row
    blocks = -(-s.rows // s.height)
    items = s.batch * s.heads
    for head in range(items * task // tasks, items * (task + 1) // tasks):
        n, h = head // s.heads, head % s.heads
        k, v = s.k + n * s.k_n + h * s.k_h, s.v + n * s.v_n + h * s.v_h
        dk, dv = s.dk + n * s.dk_n + h * s.dk_h, s.dv + n * s.dv_n + h * s.dv_h
        add = 0  # the first block sees the most columns, and all later blocks add to it
        for block in range(blocks - 1, -1, -1):
            first, last = s.rows * block // blocks, s.rows * (block + 1) // blocks
            count, seen = last - first, _stop(s, last - 1)
            do = s.do + n * s.do_n + h * s.do_h + first * s.do_row
            q = s.q + n * s.q_n + h * s.q_h + first * s.q_row
            dq = s.dq + n * s.dq_n + h * s.dq_h + first * s.dq_row
            call_native(s.product, t, (
                count, seen, s.width, q, s.q_row, size, k, size, s.k_row, room, t_row, 0, 0, work
            ))  # fmt: skip
            call_native(s.product, t, (
                count, seen, s.value_width, do, s.do_row, size, v, size, s.v_row, g_room, t_row,
                0, 0, work,
            ))  # fmt: skip
            _weigh_again(s, like, t, n, h, first, last)
            _differentiate(s, like, t, g, n, h, first, last)
            _clear(s, t, first, last)
            _clear(s, g, first, last)
            call_native(s.product, t, (
                seen, s.value_width, count, room, size, t_row, do, s.do_row, size, dv, s.dv_row,
                0, add, work,
            ))  # fmt: skip
            call_native(s.product, t, (
                seen, s.width, count, g_room, size, t_row, q, s.q_row, size, dk, s.dk_row,
                0, add, work,
            ))  # fmt: skip
            call_native(s.product, t, (
                count, s.width, seen, g_room, t_row, size, k, s.k_row, size, dq, s.dq_row,
                0, 0, work,
            ))  # fmt: skip
            add = 1


_run_forward = Tasks(_forward, _INTEGERS, _FLOATS)
_run_backward = Tasks(_backward, _INTEGERS, _FLOATS)


def attention(
    out: np.ndarray,
    qkv: Sequence[np.ndarray],
    bias: np.ndarray | None,
    causal: bool,
    scale: float,
    p: float,
    key: int,
) -> np.ndarray:
    """q (N, H, L, K), k (N, H, S, K) and v (N, H, S, V) -> `out` (N, H, L, V).

    `bias` (N or 1, H or 1, L or 1, S) is added to the scaled scores; `p` and `key` are those of
    dropout. All of one type, float32 or float64. Any strides, but the rows of `out` contiguous. No
    length may be 0. Returns what `attention_backward` needs to know of the scores.
    """
    statistics = memory.empty((*out.shape[:3], 2), out.dtype)
    _run(_run_forward, (out, *qkv), statistics, bias, (), causal, scale, p, key)
    return statistics


def attention_backward(
    grads: Sequence[np.ndarray],
    dout: np.ndarray,
    out: np.ndarray,
    statistics: np.ndarray,
    qkv: Sequence[np.ndarray],
    bias: np.ndarray | None,
    causal: bool,
    scale: float,
    p: float,
    key: int,
) -> None:
    """The gradients of q, k and v into `grads`, given that of `out`.

    `statistics` is what `attention` returned. The rows of `grads` are contiguous.
    """
    rest = qkv[1].shape[2] - dout.shape[2]
    if causal and rest > 0:  # what no row sees
        for dx in grads[1:]:
            dx[:, :, -rest:] = 0
    more = (_unit_stride(dout), *grads)
    _run(_run_backward, (out, *qkv), statistics, bias, more, causal, scale, p, key)


def _run(
    kernel: Tasks,
    given: Sequence[np.ndarray],
    statistics: np.ndarray,
    bias: np.ndarray | None,
    grads: Sequence[np.ndarray],
    causal: bool,
    scale: float,
    p: float,
    key: int,
) -> None:
    """Run `_run_forward` (without `grads`) or `_run_backward`."""
    given = [_unit_stride(x) for x in given]
    _, q, _, v = given
    dtype = q.dtype
    size = dtype.itemsize
    (batch, heads, rows, width), (cols, value_width) = q.shape, v.shape[2:]
    layout: list[int] = []
    for x in given:
        layout += (address(x), *x.strides[:3])
    if bias is None:
        layout += (0, 0, 0, 0)
    else:
        bias = _unit_stride(bias)
        layout.append(address(bias))
        layout += [
            0 if n == 1 else step for n, step in zip(bias.shape[:3], bias.strides, strict=False)
        ]
    for x in grads:
        layout += (address(x), *x.strides[:3])
    if not grads:
        layout += _NO_GRADS
    lanes = VECTOR_BYTES // size
    pitch = (cols + lanes - 1) // lanes * lanes + lanes  # the margin makes it no power of 2
    height = max(ROWS, min(_MOST_ROWS, rows, _BLOCK // (pitch * size)))
    own = (2 if grads else 1) * height * pitch * size + SCRATCH
    multiplications = batch * heads * rows * cols * (width + value_width)
    tasks = get_num_threads() if multiplications >= PARALLEL else 1
    shape = (batch, heads, rows, cols, width, value_width)
    kernel(
        *(dtype, tasks, *layout, address(statistics), *shape, causal),
        *((1, *key_words(key), keep_threshold(p)) if p else (0, 0, 0, 0)),
        *(PRODUCT.address(dtype) if COMPILED else 0, height, pitch, _room.take(tasks * own), own),
        *(scale, 1 / (1 - p)),
    )


_NO_GRADS = (0,) * 16


class _Room(threading.local):
    """Working memory of a calling thread, for the threads that help it."""

    size = 0

    def take(self, size: int) -> int:
        """The address of so many bytes, where a vector may start."""
        if self.size < size:
            self.memory = np.empty(size + VECTOR_BYTES, np.uint8)
            self.size = size
            self.start = -(-address(self.memory) // VECTOR_BYTES) * VECTOR_BYTES
        return self.start


_room = _Room()


def _product_by_numpy(_: int, like: np.ndarray, numbers: tuple[int, ...]) -> None:
    """The product on addresses, where nothing is compiled."""
    m, n, k, a, a_row, a_col, b, b_row, b_col, c, c_row, _, add, _ = numbers

    def matrix(address: int, rows: int, cols: int, row: int, col: int) -> np.ndarray:
        span = (rows - 1) * row + (cols - 1) * col + like.itemsize
        content: Any = (ctypes.c_char * span).from_address(int(address))
        return np.ndarray((rows, cols), like.dtype, content, strides=(row, col))

    out = matrix(c, m, n, c_row, like.itemsize)
    out[...] = matrix(a, m, k, a_row, a_col) @ matrix(b, k, n, b_row, b_col) + (out if add else 0)


if not COMPILED:
    call_native = _product_by_numpy


def _unit_stride(x: np.ndarray) -> np.ndarray:
    """x, or a copy if the elements of a row are not side by side."""
    return x if x.strides[-1] == x.itemsize or x.shape[-1] == 1 else np.ascontiguousarray(x)
