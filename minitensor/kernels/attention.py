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
The kernels are in `kernels.attention_forward` and `attention_backward`, what they share is in
`attention_block` and `attention_mask`.

A tile is T^T, keys in rows: Q^T and dO^T, turned and scaled once for a block of queries, are then
the right factors of all products that would need K^T and V^T, and in the softmax a vector holds
neighbouring queries (`kernels.softmax_tile`). A single query has its keys folded into the lanes
instead. The products are `kernels.gemm`, called by its address. Bound by them, and by memory while
S is some tens: Q, K, V are read, O is written; backward reads O and dO too, writes dQ, dK, dV.

Scores are held as multiples of ln 2, so that their exponentials are powers of 2. A row where all is
forbidden is 0 and has no gradient. With `causal`, row i attends to the columns up to i.

A bias is looked through once for the heads that share it. Keys before the first and after the last
that some query of a block attends to are not computed, and nothing is added where the bias is 0: a
mask of the future or of padding costs what `causal` does. What is added otherwise, `causal` too, is
made as a tile, which serves the heads that follow if it is their only one.

T. Dao, D. Fu, S. Ermon, A. Rudra, C. Ré, "FlashAttention: Fast and Memory-Efficient Exact Attention
with IO-Awareness", 2022; T. Dao, "FlashAttention-2: Faster Attention with Better Parallelism and
Work Partitioning", 2023 (the D above is theirs).

Forward, threads share the blocks of queries; backward, the heads of K, whose dK and dV are summed
over blocks in order, of all heads of Q that share them. Few heads are shared in parts of their
keys, as many as follow from the shape, whose dQ are added up at the end. So results do not depend
on the number of threads.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import memory
from .attention_backward import run_backward
from .attention_block import ARRAYS, INTEGERS
from .attention_forward import run_forward
from .attention_mask import FIND_SPANS, MAKE_MASK, SPANS
from .dropout import DROPOUT_ARGUMENTS, dropout_arguments
from .gemm import GEMM, GEMM_ROUNDED, NR_BYTES, WORKSPACE_BYTES, Workspace
from .jit import get_num_threads
from .matmul import MOST_LAYOUTS, PARALLEL
from .parallel import ParallelKernel, address, recording
from .precision import rounds, setting
from .simd import VECTOR_BYTES
from .softmax_tile import COLUMNS, STATS

_ROUNDS = 64  # rows, columns and widths from which it pays to round to bfloat16: all are packed
_TILE = 1 << 18  # bytes of a tile of scores
_MOST_QUERIES = 128  # of a tile
_FEW_HEADS = 8  # with fewer, backward takes the keys in parts, each with a dQ of its own
_SPLIT_KEYS = 512  # of a part, at least


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

    Returns the stats for `attention_backward`: for each block of queries their maxima, as multiples
    of ln 2, and the reciprocals of their sums of exponentials.
    """
    batch, heads, rows, _ = out.shape
    blocks, _, columns_row = _cut(rows, out.itemsize)
    stats = memory.empty((batch, heads, blocks, STATS, columns_row // out.itemsize), out.dtype)
    _run(run_forward, (out, *qkv), stats, bias, (), causal, scale, p, key)
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
    batch, shared, cols, _ = qkv[1].shape
    splits = min(-(-_FEW_HEADS // (batch * shared)), cols // _SPLIT_KEYS)
    dq, *of_keys = grads
    parts = memory.empty((splits, *dq.shape), dq.dtype) if splits > 1 else dq
    more = (_contiguous_rows(dout), parts, *of_keys)
    _run(run_backward, (out, *qkv), stats, bias, more, causal, scale, p, key)
    if splits > 1:
        np.add.reduce(parts, 0, out=dq)
        recording.miss()


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
    """Run `run_forward` (without `grads`) or `run_backward`."""
    dtype = stats.dtype
    arrays = (*given, bias, *grads)
    places = [0 if x is None else address(x) for x in arrays]
    if not grads:
        places += _NO_GRADS
    key_of_layout = (
        dtype.char, causal, scale, p,
        *[None if x is None else (x.shape, x.strides) for x in arrays],
    )  # fmt: skip
    layout = _layouts.get(key_of_layout)
    if layout is None:
        plain = [_contiguous_rows(x) for x in given]
        plain_bias = None if bias is None else _contiguous_rows(bias)
        if plain_bias is not bias or any(x is not y for x, y in zip(plain, given, strict=True)):
            _run(kernel, plain, stats, plain_bias, grads, causal, scale, p, key)
            return
        if len(_layouts) >= MOST_LAYOUTS:
            _layouts.clear()
        layout = _layouts[key_of_layout] = _layout(arrays, causal, scale, p)
    parallel, pays, masked, workspace_bytes, packed = layout
    gemm = GEMM_ROUNDED if pays and setting.asked and rounds() else GEMM
    find_spans = 0 if bias is None else FIND_SPANS.address(dtype)
    make_mask = MAKE_MASK.address(dtype) if masked else 0
    tasks = get_num_threads() if parallel else 1
    if _workspace.size < tasks * workspace_bytes:
        _workspace.grow(tasks * workspace_bytes)
    addresses = _pack_addresses(
        *places, address(stats), gemm.address(dtype), find_spans, make_mask, _workspace.address,
        *dropout_arguments(p, key),
    )  # fmt: skip
    kernel.run_packed(dtype, tasks, addresses + packed)


_NO_GRADS = (0,) * 4
_layouts: dict[Any, tuple[bool, bool, bool, int, bytes]] = {}
_addresses = len(ARRAYS) + 5 + len(DROPOUT_ARGUMENTS.split())
_pack_addresses = struct.Struct(f"={_addresses}q").pack
_pack_layout = struct.Struct(f"={len(INTEGERS.split()) - _addresses}q2d").pack


@functools.cache
def _cut(rows: int, size: int) -> tuple[int, int, int]:
    """Return the blocks of so many queries, those in one, and the bytes of a number for each.

    Queries are evenly in blocks, of whole tiles of the product.
    """
    blocks = -(-rows // _MOST_QUERIES)
    unit = (NR_BYTES if rows * size > VECTOR_BYTES else VECTOR_BYTES) // size
    height = -(-rows // (blocks * unit)) * unit if rows > 1 else 1
    return -(-rows // height), height, max(height * size, VECTOR_BYTES)


def _layout(
    arrays: Sequence[np.ndarray | None], causal: bool, scale: float, p: float
) -> tuple[bool, bool, bool, int, bytes]:
    """Return all that follows from the layouts of `ARRAYS`, of which the last ones may be missing.

    These are True if several threads pay, if rounding to bfloat16 does, if tiles are masked, then
    the size of a task's workspace in bytes, and the packed arguments but for addresses.
    """
    arrays = [*arrays, *[None] * (len(ARRAYS) - len(arrays))]
    _, q, _, v, bias, _, dq, *_ = arrays
    splits, dq_split = (1, 0) if dq is None or dq.ndim == 4 else (len(dq), dq.strides[0])
    assert q is not None
    assert v is not None
    size = q.itemsize
    (batch, heads, rows, width), (cols, value_width) = q.shape, v.shape[2:]
    strides: list[int] = []
    for name, x in zip(ARRAYS, arrays, strict=True):
        steps = (0, 0, 0) if x is None else x.strides[-4:-1]
        if name == "bias" and x is not None:
            steps = tuple(0 if n == 1 else s for n, s in zip(x.shape[:3], steps, strict=True))
        strides += steps
    lanes = VECTOR_BYTES // size
    blocks, height, columns_row = _cut(rows, size)
    depth = min(-(-cols // lanes), _TILE // (height * VECTOR_BYTES)) * lanes  # keys of a tile
    tile = depth * height * size
    sizes = (
        (blocks + 1) * SPANS * 8, COLUMNS * columns_row, width * height * size,
        value_width * height * size, tile, tile, tile, WORKSPACE_BYTES,
    )  # fmt: skip
    places, workspace_bytes = [], 0
    for part in sizes:
        places.append(workspace_bytes)
        workspace_bytes += -(-part // VECTOR_BYTES) * VECTOR_BYTES
    multiplications = batch * heads * rows * cols * (width + value_width)
    shape = (batch, heads, heads // v.shape[1], rows, cols, width, value_width)
    rest = (
        causal, blocks, height, depth, columns_row, splits, dq_split, *places, workspace_bytes,
        scale, 1 / (1 - p),
    )  # fmt: skip
    masked = causal or bias is not None or rows == 1
    pays = size == 4 and min(rows, cols, width, value_width) >= _ROUNDS
    packed = _pack_layout(*strides, *shape, *rest)
    return multiplications >= PARALLEL, pays, masked, workspace_bytes, packed


_workspace = Workspace()


def _contiguous_rows(x: np.ndarray) -> np.ndarray:
    """Return x, or a copy if its rows are not contiguous."""
    return x if x.strides[-1] == x.itemsize or x.shape[-1] == 1 else np.ascontiguousarray(x)
