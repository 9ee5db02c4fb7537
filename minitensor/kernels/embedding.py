"""Rows of a table by number, with positions and dropout, and sums of rows: the gradient of that.

    y (rows, E): y[i] = dropout(scale * weight[tokens[i]] + positions[i mod L])
    dweight (V, E): dweight[v] = scale * sum of dropout(dy)[i] over the i with tokens[i] == v

with weight (V, E), tokens (rows) in [0, V) and positions (L, E); the gradient of the positions is a
sum of rows too. Forward, threads share the rows. Backward a token may occur anywhere, so a thread
owns columns, for all rows in order: no two threads meet, and the order of every sum, hence its last
bit, is the same on any number of them. Bound by memory: one pass over y or dy, one write of
dweight, and rows of the table that mostly sit in cache.
"""

from __future__ import annotations

import numpy as np

from .. import memory
from .dropout import DROPS, contiguous, drop, drop_settings, random_word
from .jit import get_num_threads, jit
from .tasks import Tasks, address, array_at, integers_at, unpacked

_SERIAL = 1 << 14  # elements up to which waking other threads costs more than it saves
_LINE = 16  # columns that stay together

_u32 = np.uint32


@jit
def _gather_rows(s, tokens, weight, positions, y, first, last):  # type: ignore[no-untyped-def]
    scale = y.dtype.type(s.scale)
    for i in range(first, last):
        row, position, out = weight[tokens[i]], positions[i % s.length], y[i]
        for j in range(out.size):
            out[j] = row[j] * scale + position[j]
        if s.drops != 0:
            drop(s, out, i * s.cols)


def _gather(settings, like, task, tasks):  # type: ignore[no-untyped-def]
    """One task's share of the rows."""
    s = unpacked(settings)
    weight, y = array_at(like, s.weight, (s.height, s.cols)), array_at(like, s.y, (s.rows, s.cols))
    positions = array_at(like, s.positions, (s.length, s.cols))
    # The integers have an address only, so their bits come as floats first.
    tokens = integers_at(s.tokens, s.rows)
    first, last = s.rows * task // tasks, s.rows * (task + 1) // tasks
    _gather_rows(s, tokens, weight, positions, y, first, last)


@jit
def _sum_columns(s, places, values, out, first, last):  # type: ignore[no-untyped-def]
    number = out.dtype.type
    scale, zero = number(s.scale), number(0)
    kept = number(s.keep_scale) * scale
    key1, threshold = _u32(s.key1), _u32(s.threshold)
    for v in range(out.shape[0]):
        total = out[v, first:last]
        for j in range(total.size):
            total[j] = zero
    for i in range(places.size):
        if places[i] == s.skip:
            continue
        total, row = out[places[i], first:last], values[i, first:last]
        if s.drops != 0:
            key0 = _u32(s.key0 + i * s.cols + first)
            for j in range(total.size):
                total[j] += row[j] * (
                    kept if random_word(key0, key1, _u32(j)) >= threshold else zero
                )
        else:
            for j in range(total.size):
                total[j] += row[j] * scale


def _sum(settings, like, task, tasks):  # type: ignore[no-untyped-def]
    """One task's share of the columns."""
    s = unpacked(settings)
    values, out = (
        array_at(like, s.values, (s.rows, s.cols)),
        array_at(like, s.out, (s.height, s.cols)),
    )
    places = integers_at(s.places, s.rows)
    lines = -(-s.cols // _LINE)
    first, last = lines * task // tasks * _LINE, lines * (task + 1) // tasks * _LINE
    _sum_columns(s, places, values, out, first, min(last, s.cols))


_run_gather = Tasks(
    _gather,
    f"tokens weight positions y rows height length cols {DROPS}",
    "scale keep_scale",
)
_run_sum = Tasks(_sum, f"places values out rows height cols skip {DROPS}", "scale keep_scale")


def embed(
    tokens: np.ndarray, weight: np.ndarray, positions: np.ndarray, scale: float, p: float, key: int
) -> np.ndarray:
    """dropout(scale * weight[tokens] + positions): (*, L), (V, E), (L, E) -> (*, L, E).

    For float32 or float64 of one type, tokens in [0, V), and p in [0, 1).
    """
    tokens = np.ascontiguousarray(tokens, np.int64)
    weight, positions = contiguous(weight), contiguous(positions)
    y = memory.empty((*tokens.shape, weight.shape[1]), weight.dtype)
    if y.size:
        tasks = get_num_threads() if y.size > _SERIAL else 1
        arrays = address(tokens), address(weight), address(positions), address(y)
        shape = tokens.size, len(weight), len(positions), weight.shape[1]
        drops = drop_settings(p, key)
        _run_gather(y.dtype, tasks, *arrays, *shape, *drops, scale, 1 / (1 - p))
    return y


def sum_rows(
    places: np.ndarray,
    values: np.ndarray,
    out: np.ndarray,
    skip: int = -1,
    scale: float = 1.0,
    p: float = 0.0,
    key: int = 0,
) -> None:
    """Fill `out` (V, E), uninitialised, with the sums of scale * dropout(values) by place.

    Row i of `values` (N, E) is added to row places[i] (N) of `out`, in [0, V), unless that is
    `skip`. All are contiguous, places are int64.
    """
    if out.size:
        count = max(out.size, values.size)
        tasks = min(get_num_threads(), -(-out.shape[1] // _LINE)) if count > _SERIAL else 1
        arrays = address(places), address(values), address(out)
        drops = drop_settings(p, key)
        _run_sum(
            out.dtype, tasks, *arrays, places.size, *out.shape, skip, *drops, scale, 1 / (1 - p)
        )
