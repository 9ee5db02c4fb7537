"""Attention backward: dQ, dK and dV, from O and the stats of forward. See `kernels.attention`."""

from __future__ import annotations

import numpy as np

from .attention_block import (
    FLOATS,
    INTEGERS,
    find_spans,
    mask_keys,
    multiply_keys,
    set_words,
    stats_of,
    turn,
    zero_rows,
)
from .attention_mask import LOG2E, SPANS
from .jit import jit
from .parallel import ParallelKernel, array_at, call_native, unpacked
from .simd import VECTOR_BYTES
from .softmax_tile import DELTA, FACTOR, STATS, TOTAL, dot_rows, tile_gradient

_i64 = np.int64


@jit
def _begin(s, exemplar, total, columns, rows, o, do):  # type: ignore[no-untyped-def]
    """Set a block's columns, but for the words."""
    delta = array_at(exemplar, columns + (DELTA - STATS) * s.columns_row, (total.size,))
    factor = array_at(exemplar, columns + (FACTOR - STATS) * s.columns_row, (total.size,))
    scale, keep_scale = total.dtype.type(s.scale), total.dtype.type(s.keep_scale)
    to = columns + (DELTA - STATS) * s.columns_row
    dot_rows(exemplar, (rows, s.value_width, o, s.o_row, do, s.do_row, to))
    for i in range(total.size):
        if s.height == 1 and i > 0:
            delta[i] = delta[0]
        else:
            delta[i] *= scale
        factor[i] = total[i] * keep_scale


def _backward(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    """Do one task's heads, or parts of the keys of heads."""
    s = unpacked(arguments)
    place = s.workspace + task * s.workspace_bytes
    columns, t, g = place + s.columns_place, place + s.t_place, place + s.g_place
    q_turned, do_turned = place + s.q_turned_place, place + s.do_turned_place
    workspace = place + s.gemm_workspace_place
    size = array_at(exemplar, t, (1,)).itemsize
    key_row, lanes = s.height * size, VECTOR_BYTES // size
    t_row = key_row if s.height > 1 else VECTOR_BYTES
    spans = array_at(_i64, place + s.spans_place, (s.blocks + 1, SPANS))
    spans[s.blocks, 0] = -1
    shared, tiles = s.heads // s.group, -(-s.cols // s.depth)
    items = s.batch * shared * s.splits
    for item in range(items * task // tasks, items * (task + 1) // tasks):
        head, at = item // s.splits, item % s.splits
        split = at // 2 if at % 2 == 0 else s.splits - 1 - at // 2
        left = s.depth * (tiles * split // s.splits)
        right = min(s.depth * (tiles * (split + 1) // s.splits), s.cols)
        n, of_group = head // shared, head % shared
        k, v = s.k + n * s.k_n + of_group * s.k_h, s.v + n * s.v_n + of_group * s.v_h
        dk, dv = s.dk + n * s.dk_n + of_group * s.dk_h, s.dv + n * s.dv_n + of_group * s.dv_h
        partial = s.causal != 0 or s.bias != 0  # blocks may see some of the keys
        if partial:
            zero_rows(exemplar, dk + left * s.dk_row, s.dk_row, right - left, s.width)
            zero_rows(exemplar, dv + left * s.dv_row, s.dv_row, right - left, s.value_width)
        for part in range(s.group * s.blocks):
            h, block = of_group * s.group + part % s.group, part // s.group
            find_spans(s, exemplar, spans, place, n, h)
            begin, end = max(left, spans[block, 0]), min(right, spans[block, 2])
            add = 1 if partial or part > 0 else 0
            first = block * s.height
            rows = min(s.height, s.rows - first)
            vectors, stats = -(-rows // lanes), stats_of(s, n * s.heads + h, block)
            total = array_at(exemplar, stats + TOTAL * s.columns_row, (s.columns_row // size,))
            q = s.q + n * s.q_n + h * s.q_h + first * s.q_row
            o = s.o + n * s.o_n + h * s.o_h + first * s.o_row
            do = s.do + n * s.do_n + h * s.do_h + first * s.do_row
            dq = s.dq + n * s.dq_n + h * s.dq_h + first * s.dq_row + split * s.dq_split
            if begin >= end:
                zero_rows(exemplar, dq, s.dq_row, rows, s.width)
                continue
            turn(s, exemplar, q_turned, q, s.q_row, rows, s.width, s.scale * LOG2E)
            turn(s, exemplar, do_turned, do, s.do_row, rows, s.value_width, s.scale * s.keep_scale)
            _begin(s, exemplar, total, columns, rows, o, do)
            for start in range(begin, end, s.depth):
                if s.drops != 0:
                    set_words(s, columns, n, h, first, start)
                cols = min(s.depth, end - start)
                k_rows, v_rows = k + start * s.k_row, v + start * s.v_row
                dk_rows, dv_rows = dk + start * s.dk_row, dv + start * s.dv_row
                multiply_keys(
                    s, exemplar, t, q_turned, k_rows, s.k_row, cols, s.width, vectors, workspace
                )
                mask_keys(s, exemplar, spans, place, n, h, block, rows, start, cols, vectors)
                multiply_keys(
                    s, exemplar, g, do_turned, v_rows, s.v_row, cols, s.value_width, vectors,
                    workspace,
                )  # fmt: skip
                high, step = (cols, 1) if s.height > 1 else (-(-cols // lanes), lanes)
                tile_gradient(exemplar, (
                    vectors, high, t, t_row, g, stats, columns, s.columns_row,
                    step, s.key1, s.threshold, s.drops,
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


run_backward = ParallelKernel(_backward, INTEGERS, FLOATS)
