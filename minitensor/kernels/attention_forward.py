"""Attention forward: O and the stats, block of queries by block. See `kernels.attention`."""

from __future__ import annotations

import numpy as np

from .attention_block import (
    FLOATS,
    INTEGERS,
    find_spans,
    mask_keys,
    multiply_keys,
    scale_rows,
    set_words,
    stats_of,
    turn,
    zero_rows,
)
from .attention_mask import LOG2E, SPANS
from .jit import jit
from .parallel import ParallelKernel, array_at, call_native, unpacked
from .simd import VECTOR_BYTES
from .softmax_tile import CHANGE, LAST, STATS, TOP, TOTAL, tile_exp, tile_max

_i64 = np.int64


@jit
def _begin(top, total, last):  # type: ignore[no-untyped-def]
    """Set maxima and sums to those of no keys."""
    for i in range(top.size):
        top[i] = last[i] = np.finfo(top.dtype).min  # -inf - -inf would be NaN
        total[i] = 0


@jit
def _share_maximum(top):  # type: ignore[no-untyped-def]
    """Set the maximum of every column, of one query, to that of all."""
    most = top[0]
    for i in range(top.size):
        most = top[i] if top[i] > most else most
    for i in range(top.size):
        top[i] = most


@jit
def _finish(s, total, factors):  # type: ignore[no-untyped-def]
    """Replace the sums by their reciprocals, and set the factors that rows of O get."""
    zero, one, keep_scale = total.dtype.type(0), total.dtype.type(1), total.dtype.type(s.keep_scale)
    if s.height == 1:
        all_lanes = zero
        for i in range(total.size):
            all_lanes += total[i]
        for i in range(total.size):
            total[i] = all_lanes
    for i in range(total.size):
        total[i] = zero if total[i] == zero else one / total[i]
        factors[i] = total[i] * keep_scale


def _forward(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    """Do one task's blocks of queries."""
    s = unpacked(arguments)
    place = s.workspace + task * s.workspace_bytes
    columns, q_turned, t = place + s.columns_place, place + s.q_turned_place, place + s.t_place
    workspace = place + s.gemm_workspace_place
    size = array_at(exemplar, t, (1,)).itemsize
    key_row, lanes = s.height * size, VECTOR_BYTES // size
    t_row, width = key_row if s.height > 1 else VECTOR_BYTES, s.columns_row // size
    last = array_at(exemplar, columns + (LAST - STATS) * s.columns_row, (width,))
    factors = array_at(exemplar, columns + (CHANGE - STATS) * s.columns_row, (width,))
    spans = array_at(_i64, place + s.spans_place, (s.blocks + 1, SPANS))
    spans[s.blocks, 0] = -1
    items = s.batch * s.heads * s.blocks
    for item in range(items * task // tasks, items * (task + 1) // tasks):
        head, at = item // s.blocks, item % s.blocks
        # The first, the last, the second: causal blocks grow, and threads get some of each.
        block = at // 2 if at % 2 == 0 else s.blocks - 1 - at // 2
        n, h = head // s.heads, head % s.heads
        find_spans(s, exemplar, spans, place, n, h)
        begin, end = spans[block, 0], spans[block, 2]
        first = block * s.height
        rows = min(s.height, s.rows - first)
        vectors, stats = -(-rows // lanes), stats_of(s, head, block)
        top = array_at(exemplar, stats + TOP * s.columns_row, (width,))
        total = array_at(exemplar, stats + TOTAL * s.columns_row, (width,))
        q = s.q + n * s.q_n + h * s.q_h + first * s.q_row
        o = s.o + n * s.o_n + h * s.o_h + first * s.o_row
        k, v = s.k + n * s.k_n + h // s.group * s.k_h, s.v + n * s.v_n + h // s.group * s.v_h
        turn(s, exemplar, q_turned, q, s.q_row, rows, s.width, s.scale * LOG2E)
        _begin(top, total, last)
        if begin >= end:
            zero_rows(exemplar, o, s.o_row, rows, s.value_width)
        for start in range(begin, end, s.depth):
            cols = min(s.depth, end - start)
            multiply_keys(
                s, exemplar, t, q_turned, k + start * s.k_row, s.k_row, cols, s.width, vectors,
                workspace,
            )  # fmt: skip
            mask_keys(s, exemplar, spans, place, n, h, block, rows, start, cols, vectors)
            high, step = (cols, 1) if s.height > 1 else (-(-cols // lanes), lanes)
            if s.drops != 0:
                set_words(s, columns, n, h, first, start)
            tile_max(exemplar, (vectors, high, t, t_row, stats))
            if s.height == 1:
                _share_maximum(top)
            tile_exp(exemplar, (
                vectors, high, t, t_row, stats, columns, s.columns_row,
                step, s.key1, s.threshold, s.drops,
            ))  # fmt: skip
            if start > begin:
                scale_rows(exemplar, o, s.o_row, rows, s.value_width, factors)
            call_native(s.gemm, exemplar, (
                rows, s.value_width, cols, t, size, key_row, v + start * s.v_row, s.v_row, size,
                o, s.o_row, 0, 1 if start > begin else 0, workspace,
            ))  # fmt: skip
        _finish(s, total, factors)
        scale_rows(exemplar, o, s.o_row, rows, s.value_width, factors)
        for i in range(rows if s.height > 1 else width, width):  # of no query
            top[i] = total[i] = 0


run_forward = ParallelKernel(_forward, INTEGERS, FLOATS)
