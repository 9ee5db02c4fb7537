"""Embedding lookup with positions and dropout, and its gradient: a sum of rows by index.

    y (rows, E): y[i] = dropout(scale * weight[tokens[i]] + positions[i mod L])
    dweight (V, E): dweight[v] = scale * sum of dropout(dy)[i] over the i with tokens[i] == v

with weight (V, E), tokens (rows) in [0, V) and positions (L, E); the gradient of the positions is a
sum of rows too. Forward, threads share the rows. Backward, they share the columns, as a token may
occur in any row: each thread adds up its columns of all rows in order, so no two threads write to
one place, and a result is the same bits on any number of them. The rows of dweight that no token
has are set to zeros by threads that share them. Bound by memory: one pass over y or dy, one write
of dweight, and rows of the table that are mostly in cache.
"""

from __future__ import annotations

import numpy as np

from .. import memory
from .dropout import DROPOUT_ARGUMENTS, dropout_arguments, dropout_in_place, random_word
from .jit import jit
from .parallel import (
    ParallelKernel,
    address,
    array_at,
    contiguous,
    integers_at,
    tasks_for,
    unpacked,
)

_LINE = 16  # columns that one task sums together: a cache line of float32

_u32 = np.uint32


@jit
def _gather_rows(s, tokens, weight, positions, y, first, last):  # type: ignore[no-untyped-def]
    scale = y.dtype.type(s.scale)
    if s.positions == 0:
        for i in range(first, last):
            row, out = weight[tokens[i]], y[i]
            for j in range(out.size):
                out[j] = row[j]
        return
    for i in range(first, last):
        row, position, out = weight[tokens[i]], positions[i % s.length], y[i]
        for j in range(out.size):
            out[j] = row[j] * scale + position[j]
        if s.drops != 0:
            dropout_in_place(s, out, i * s.cols)


def _gather(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    """Do one task's rows."""
    s = unpacked(arguments)
    weight = array_at(exemplar, s.weight, (s.height, s.cols))
    y = array_at(exemplar, s.y, (s.rows, s.cols))
    positions = array_at(exemplar, s.positions, (s.length, s.cols))
    tokens = integers_at(s.tokens, s.rows)
    first, last = s.rows * task // tasks, s.rows * (task + 1) // tasks
    _gather_rows(s, tokens, weight, positions, y, first, last)


@jit
def _sum_columns(s, indices, firsts, values, out, first, last):  # type: ignore[no-untyped-def]
    number = out.dtype.type
    scale, zero = number(s.scale), number(0)
    kept = number(s.keep_scale) * scale
    key1, threshold = _u32(s.key1), _u32(s.threshold)
    for i in range(indices.size):
        if indices[i] == s.skip:
            continue
        total, row = out[indices[i], first:last], values[i, first:last]
        if firsts[indices[i]] == i:
            for j in range(total.size):
                total[j] = zero
        if s.drops != 0:
            key0 = _u32(s.key0 + i * s.cols + first)
            for j in range(total.size):
                total[j] += row[j] * (
                    kept if random_word(key0, key1, _u32(j)) >= threshold else zero
                )
        else:
            for j in range(total.size):
                total[j] += row[j] * scale


@jit
def _clear_rows(firsts, out, first, last):  # type: ignore[no-untyped-def]
    """Set those of some rows to zeros that no value is added to."""
    zero = out.dtype.type(0)
    for v in range(first, last):
        if firsts[v] < 0:  # row by row: the C library is half as fast on stretches of megabytes
            row = out[v]
            for j in range(row.size):
                row[j] = zero


def _sum(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    """Do one task's columns, and its part of the rows that remain."""
    s = unpacked(arguments)
    values = array_at(exemplar, s.values, (s.rows, s.cols))
    out = array_at(exemplar, s.out, (s.height, s.cols))
    indices, firsts = integers_at(s.indices, s.rows), integers_at(s.firsts, s.height)
    lines = -(-s.cols // _LINE)
    first, last = lines * task // tasks * _LINE, lines * (task + 1) // tasks * _LINE
    _clear_rows(firsts, out, s.height * task // tasks, s.height * (task + 1) // tasks)
    _sum_columns(s, indices, firsts, values, out, first, min(last, s.cols))


_run_gather = ParallelKernel(
    _gather,
    f"tokens weight positions y rows height length cols {DROPOUT_ARGUMENTS}",
    "scale keep_scale",
)
_run_sum = ParallelKernel(
    _sum, f"indices firsts values out rows height cols skip {DROPOUT_ARGUMENTS}", "scale keep_scale"
)


def embed(
    tokens: np.ndarray, weight: np.ndarray, positions: np.ndarray, scale: float, p: float, key: int
) -> np.ndarray:
    """Return dropout(scale * weight[tokens] + positions): (*, L), (V, E), (L, E) -> (*, L, E).

    The floats are all float32 or all float64; tokens are in [0, V) and p in [0, 1).
    """
    tokens = np.ascontiguousarray(tokens, np.int64)
    weight, positions = contiguous(weight), contiguous(positions)
    y = memory.empty((*tokens.shape, weight.shape[1]), weight.dtype)
    if y.size:
        arrays = address(tokens), address(weight), address(positions), address(y)
        shape = tokens.size, len(weight), len(positions), weight.shape[1]
        drops = dropout_arguments(p, key)
        _run_gather(y.dtype, tasks_for(y.size), *arrays, *shape, *drops, scale, 1 / (1 - p))
    return y


def rows_at(tokens: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return weight[tokens]: (*), (V, E) -> (*, E), for float32 or float64 and tokens in [0, V)."""
    y = memory.empty((*tokens.shape, weight.shape[1]), weight.dtype)
    tokens, weight = np.ascontiguousarray(tokens, np.int64), contiguous(weight)
    if y.size:
        arrays = address(tokens), address(weight), 0, address(y)
        numbers = tokens.size, len(weight), 1, weight.shape[1], *dropout_arguments(0.0, 0)
        _run_gather(y.dtype, tasks_for(y.size), *arrays, *numbers, 1.0, 1.0)
    return y


def sum_rows(
    indices: np.ndarray,
    values: np.ndarray,
    out: np.ndarray,
    skip: int = -1,
    scale: float = 1.0,
    p: float = 0.0,
    key: int = 0,
) -> None:
    """Set `out` (V, E), which may be uninitialised, to the sums of rows of scale * dropout(values).

    Row i of `values` (N, E) is added to row indices[i] of `out`, in [0, V), unless that is `skip`.
    All arrays are contiguous, `indices` (N) is int64.
    """
    if out.size:
        firsts = np.full(len(out), -1)  # where each index occurs first
        firsts[indices[::-1]] = np.arange(indices.size - 1, -1, -1)  # the last of these stays
        if skip >= 0:
            firsts[skip] = -1
        tasks = min(tasks_for(max(out.size, values.size)), -(-out.shape[1] // _LINE))
        arrays = address(indices), address(firsts), address(values), address(out)
        drops = dropout_arguments(p, key)
        _run_sum(
            out.dtype, tasks, *arrays, indices.size, *out.shape, skip, *drops, scale, 1 / (1 - p)
        )
