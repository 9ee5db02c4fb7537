"""Scaled dot product attention, forward and backward, without an array of shape (N, H, L, S).

For each of the N * H heads, with a bias of any numbers (-inf where attention is forbidden):

    T = scale * Q K^T + bias    P = softmax(T)    P' = dropout(P)    O = P' V

    D = rowsum(dO * O)    dV = P'^T dO    dT = P' * (dO V^T) - P * D
    dQ = scale * dT K    dK = scale * dT^T Q

As in FlashAttention, the scores never go to memory. Forward keeps each row's maximum and the
reciprocal of its sum of exponentials (together they are FlashAttention's log-sum-exp), from which
backward recomputes P: cheaper than writing and reading it. Unlike there, a block is some rows of T
by all S columns, at most 128 rows and about 512 KB, which stays in the second-level cache, so the
softmax takes its passes over whole rows and needs no online rescaling. The products are
`kernels.gemm`, called by its address. Memory is read for Q, K, V (K and V once for each block, from
cache unless they are large) and written for O; backward also reads O and dO and writes dQ, dK and
dV. Bound by the passes over rows while S is some tens, then by the products.

Scores are held as multiples of ln 2, so that their exponentials are powers of 2. A row where all is
forbidden is 0 and has no gradient. With `causal`, row i attends to the columns up to i, and columns
that no row of a block attends to are not computed.

T. Dao, D. Fu, S. Ermon, A. Rudra, C. Ré, "FlashAttention: Fast and Memory-Efficient Exact Attention
with IO-Awareness", 2022; T. Dao, "FlashAttention-2: Faster Attention with Better Parallelism and
Work Partitioning", 2023 (the D above is theirs).

Forward, threads share the blocks; backward, the heads, whose dK and dV are summed over blocks in
order. Results do not depend on the number of threads.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload, register_jitable

from .. import memory
from .dropout import DROPOUT_ARGUMENTS, dropout_arguments, random_word
from .gemm import GEMM, GEMM_ROUNDED, WORKSPACE_BYTES, Workspace
from .jit import get_num_threads, jit
from .matmul import MOST_LAYOUTS, PARALLEL
from .parallel import ParallelKernel, address, array_at, call_native, unpacked
from .precision import rounds, setting
from .simd import MR, VECTOR_BYTES
from .softmax import float_of, ordinal

_BLOCK = 1 << 19  # bytes of a block of scores
_ROUNDS = 64  # rows, columns and width from which it pays to round to bfloat16: all are packed then
_MOST_ROWS = 128
_LOG2E = 1.4426950408889634

_u32 = np.uint32

# Addresses and what a call may choose, then all that follows from layouts: strides are in bytes.
_ARRAYS = ("o", "q", "k", "v", "bias", "do", "dq", "dk", "dv")
_INTEGERS = (
    f"{' '.join(_ARRAYS)} stats gemm workspace {DROPOUT_ARGUMENTS} "
    + " ".join(f"{x}_n {x}_h {x}_row" for x in _ARRAYS)
    + " batch heads rows cols width value_width causal height row_length workspace_bytes"
)
_FLOATS = "scale keep_scale"


# Powers of 2

_SHIFT = np.float32(3 * 2.0**22 + 127)  # added to n, leaves n + 127 in the lowest bits
_LOWEST = np.float32(-127)  # 2^x is 0 from here down
_MANTISSA = np.int32(23)
_P0 = np.float32(1.000000072e00)
_P1 = np.float32(6.931469671e-01)
_P2 = np.float32(2.402211972e-01)
_P3 = np.float32(5.550713274e-02)
_P4 = np.float32(9.675541334e-03)
_P5 = np.float32(1.327647198e-03)


def power_of_two(x: Any) -> Any:
    """Return 2^x for x <= 0, or NaN."""
    return np.exp2(x)


def _power_of_two_single(x: Any) -> Any:
    c = _LOWEST if x < _LOWEST else x
    shifted = np.float32(c + _SHIFT)
    r = c - (shifted - _SHIFT)
    y = ((((_P5 * r + _P4) * r + _P3) * r + _P2) * r + _P1) * r + _P0
    return y * np.int32(shifted.view(np.int32) << _MANTISSA).view(np.float32)


# Without `reassoc`, which would cancel the shift.
@overload(power_of_two, jit_options={"fastmath": {"nsz", "contract"}, "error_model": "numpy"})
def _choose_power_of_two(x: Any) -> Any:
    return _power_of_two_single if x == types.float32 else power_of_two


# Passes over a block: `t` holds rows `first` to `last` of head (n, h). Each pass is a loop of its
# own over all rows, so that the latencies of their maxima and sums overlap. Columns that a row does
# not attend to hold arbitrary values until `_zero_hidden`.


@jit
def _visible(s, row):  # type: ignore[no-untyped-def]
    """Return the number of columns that a row attends to."""
    return min(s.cols, row + 1) if s.causal != 0 else s.cols


@jit
def _visible_in_vectors(s, row, itemsize):  # type: ignore[no-untyped-def]
    """Return the same, rounded up to whole vectors."""
    lanes = VECTOR_BYTES // itemsize
    return -(-_visible(s, row) // lanes) * lanes


@jit
def _block_stats(s, exemplar, itemsize, n, h, first, last):  # type: ignore[no-untyped-def]
    """Return (maximum, 1 / sum of exponentials) of each row."""
    row = (n * s.heads + h) * s.rows + first
    return array_at(exemplar, s.stats + 2 * itemsize * row, (last - first, 2))


@register_jitable(fastmath={"nsz"})  # the same bits forward and backward
def _score(product: Any, scale: Any, bias: Any) -> Any:
    return product * scale + bias


@jit
def _softmax_rows(s, exemplar, t, n, h, first, last):  # type: ignore[no-untyped-def]
    """Turn Q K^T into P' in place, and store the stats of its rows."""
    number = t.dtype.type
    scale, log2e, zero, one = number(s.scale * _LOG2E), number(_LOG2E), number(0), number(1)
    lowest = ordinal(number(-np.inf))
    found = _block_stats(s, exemplar, t.itemsize, n, h, first, last)
    bias = s.bias + n * s.bias_n + h * s.bias_h
    for row in range(first, last):
        x = t[row - first, : _visible(s, row)]
        most = lowest
        if s.bias != 0:
            b = array_at(exemplar, bias + row * s.bias_row, (s.cols,))
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
        x = t[row - first, : _visible_in_vectors(s, row, t.itemsize)]
        top = found[row - first, 0]
        for j in range(x.size):
            x[j] = power_of_two(x[j] - top)
    key1, threshold, keep_scale = _u32(s.key1), _u32(s.threshold), number(s.keep_scale)
    for row in range(first, last):
        x = t[row - first, : _visible(s, row)]
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
def _recompute_softmax(s, exemplar, t, n, h, first, last):  # type: ignore[no-untyped-def]
    """Turn Q K^T into P in place, given the stats of its rows."""
    number = t.dtype.type
    scale, log2e = number(s.scale * _LOG2E), number(_LOG2E)
    found = _block_stats(s, exemplar, t.itemsize, n, h, first, last)
    bias = s.bias + n * s.bias_n + h * s.bias_h
    for row in range(first, last):
        top, factor = found[row - first, 0], found[row - first, 1]
        if s.bias != 0:
            x = t[row - first, : _visible(s, row)]
            b = array_at(exemplar, bias + row * s.bias_row, (s.cols,))
            for j in range(x.size):
                x[j] = power_of_two(_score(x[j], scale, b[j] * log2e) - top) * factor
        else:
            x = t[row - first, : _visible_in_vectors(s, row, t.itemsize)]
            for j in range(x.size):
                x[j] = power_of_two(_score(x[j], scale, number(0)) - top) * factor


@jit
def _softmax_backward(s, exemplar, t, g, n, h, first, last):  # type: ignore[no-untyped-def]
    """Turn P into P' and g = dO V^T into scale * dT, in place."""
    number = t.dtype.type
    scale, keep_scale, zero = number(s.scale), number(s.keep_scale), number(0)
    key1, threshold = _u32(s.key1), _u32(s.threshold)
    o, do = s.o + n * s.o_n + h * s.o_h, s.do + n * s.do_n + h * s.do_h
    for row in range(first, last):
        a = array_at(exemplar, o + row * s.o_row, (s.value_width,))
        b = array_at(exemplar, do + row * s.do_row, (s.value_width,))
        total = zero
        for j in range(a.size):
            total += a[j] * b[j]
        t[row - first, t.shape[1] - 1] = total  # D, in the padding
    for row in range(first, last):
        x, y = t[row - first, : _visible(s, row)], g[row - first, : _visible(s, row)]
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
def _zero_hidden(s, t, first, last):  # type: ignore[no-untyped-def]
    """Set columns that a row does not attend to, but the last row does, to 0."""
    for row in range(first, last):
        x = t[row - first, _visible(s, row) : _visible(s, last - 1)]
        for j in range(x.size):
            x[j] = 0


# The kernels


def _forward(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    """Do one task's blocks of rows."""
    s = unpacked(arguments)
    t_address = s.workspace + task * s.workspace_bytes
    t = array_at(exemplar, t_address, (s.height, s.row_length))
    size, t_row = t.itemsize, t.strides[0]
    workspace = t_address + s.height * t_row
    blocks = -(-s.rows // s.height)
    items = s.batch * s.heads * blocks
    for item in range(items * task // tasks, items * (task + 1) // tasks):
        head, block = item // blocks, item % blocks
        n, h = head // s.heads, head % s.heads
        first, last = s.rows * block // blocks, s.rows * (block + 1) // blocks
        rows, cols = last - first, _visible(s, last - 1)
        q, k = s.q + n * s.q_n + h * s.q_h + first * s.q_row, s.k + n * s.k_n + h * s.k_h
        v, o = s.v + n * s.v_n + h * s.v_h, s.o + n * s.o_n + h * s.o_h + first * s.o_row
        call_native(s.gemm, t, (
            rows, cols, s.width, q, s.q_row, size, k, size, s.k_row, t_address, t_row,
            0, 0, workspace,
        ))  # fmt: skip
        _softmax_rows(s, exemplar, t, n, h, first, last)
        _zero_hidden(s, t, first, last)
        call_native(s.gemm, t, (
            rows, s.value_width, cols, t_address, t_row, size, v, s.v_row, size, o, s.o_row,
            0, 0, workspace,
        ))  # fmt: skip


def _backward(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    """Do one task's heads."""
    s = unpacked(arguments)
    t_address = s.workspace + task * s.workspace_bytes
    t = array_at(exemplar, t_address, (s.height, s.row_length))
    size, t_row = t.itemsize, t.strides[0]
    g_address = t_address + s.height * t_row
    g = array_at(exemplar, g_address, (s.height, s.row_length))
    workspace = g_address + s.height * t_row
    blocks = -(-s.rows // s.height)
    items = s.batch * s.heads
    for head in range(items * task // tasks, items * (task + 1) // tasks):
        n, h = head // s.heads, head % s.heads
        k, v = s.k + n * s.k_n + h * s.k_h, s.v + n * s.v_n + h * s.v_h
        dk, dv = s.dk + n * s.dk_n + h * s.dk_h, s.dv + n * s.dv_n + h * s.dv_h
        add = 0  # the first block covers the most columns; all later blocks add to it
        for block in range(blocks - 1, -1, -1):
            first, last = s.rows * block // blocks, s.rows * (block + 1) // blocks
            rows, cols = last - first, _visible(s, last - 1)
            do = s.do + n * s.do_n + h * s.do_h + first * s.do_row
            q = s.q + n * s.q_n + h * s.q_h + first * s.q_row
            dq = s.dq + n * s.dq_n + h * s.dq_h + first * s.dq_row
            call_native(s.gemm, t, (
                rows, cols, s.width, q, s.q_row, size, k, size, s.k_row, t_address, t_row,
                0, 0, workspace,
            ))  # fmt: skip
            call_native(s.gemm, t, (
                rows, cols, s.value_width, do, s.do_row, size, v, size, s.v_row, g_address, t_row,
                0, 0, workspace,
            ))  # fmt: skip
            _recompute_softmax(s, exemplar, t, n, h, first, last)
            _softmax_backward(s, exemplar, t, g, n, h, first, last)
            _zero_hidden(s, t, first, last)
            _zero_hidden(s, g, first, last)
            call_native(s.gemm, t, (
                cols, s.value_width, rows, t_address, size, t_row, do, s.do_row, size, dv, s.dv_row,
                0, add, workspace,
            ))  # fmt: skip
            call_native(s.gemm, t, (
                cols, s.width, rows, g_address, size, t_row, q, s.q_row, size, dk, s.dk_row,
                0, add, workspace,
            ))  # fmt: skip
            call_native(s.gemm, t, (
                rows, s.width, cols, g_address, t_row, size, k, s.k_row, size, dq, s.dq_row,
                0, 0, workspace,
            ))  # fmt: skip
            add = 1


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
    """Compute `out` (N, H, L, V) of q (N, H, L, K), k (N, H, S, K) and v (N, H, S, V).

    `bias` (N or 1, H or 1, L or 1, S) is added to the scaled scores; `p` and `key` are those of
    dropout. All arrays are of one dtype, float32 or float64, and have any strides, but the rows of
    `out` are contiguous. No length may be 0.

    Returns the stats (N, H, L, 2) for `attention_backward`: each row's maximum, as a multiple of
    ln 2, and the reciprocal of its sum of exponentials.
    """
    stats = memory.empty((*out.shape[:3], 2), out.dtype)
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
    more = (_contiguous_rows(dout), *grads)
    _run(_run_backward, (out, *qkv), stats, bias, more, causal, scale, p, key)


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
_pack_addresses, _pack_layout = struct.Struct("=16q").pack, struct.Struct("=37q2d").pack


def _layout(
    arrays: Sequence[np.ndarray | None], causal: bool, scale: float, p: float
) -> tuple[bool, bool, int, bytes]:
    """Return all that follows from the layouts of `_ARRAYS`, None where one is missing.

    These are True if several threads pay, True if rounding to bfloat16 pays, the size of a task's
    workspace in bytes, and the kernel's packed arguments but for addresses.
    """
    _, q, _, v, *_ = arrays
    assert q is not None
    assert v is not None
    size = q.itemsize
    (batch, heads, rows, width), (cols, value_width) = q.shape, v.shape[2:]
    strides: list[int] = []
    for name, x in zip(_ARRAYS, arrays, strict=True):
        steps = (0, 0, 0) if x is None else x.strides[:3]
        if name == "bias" and x is not None:
            steps = tuple(0 if n == 1 else s for n, s in zip(x.shape[:3], steps, strict=True))
        strides += steps
    lanes = VECTOR_BYTES // size
    # With padding: rows a power of 2 apart would collide in the cache.
    row_length = (cols + lanes - 1) // lanes * lanes + lanes
    height = max(MR, min(_MOST_ROWS, rows, _BLOCK // (row_length * size)))
    blocks = 1 if arrays[-1] is None else 2
    workspace_bytes = blocks * height * row_length * size + WORKSPACE_BYTES
    multiplications = batch * heads * rows * cols * (width + value_width)
    shape = (batch, heads, rows, cols, width, value_width)
    rest = (causal, height, row_length, workspace_bytes, scale, 1 / (1 - p))
    pays = size == 4 and min(rows, cols, width, value_width) >= _ROUNDS
    packed = _pack_layout(*strides, *shape, *rest)
    return multiplications >= PARALLEL, pays, workspace_bytes, packed


_workspace = Workspace()


def _contiguous_rows(x: np.ndarray) -> np.ndarray:
    """Return x, or a copy if its rows are not contiguous."""
    return x if x.strides[-1] == x.itemsize or x.shape[-1] == 1 else np.ascontiguousarray(x)
