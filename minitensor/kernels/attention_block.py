"""A block of queries and its tiles of scores: what attention's forward and backward share.

`kernels.attention` describes the algorithm and the arguments `s`.
"""

from __future__ import annotations

import numpy as np

from .dropout import DROPOUT_ARGUMENTS
from .jit import jit
from .pack import transpose
from .parallel import array_at, call_native
from .simd import VECTOR_BYTES
from .softmax_tile import STATS, WORD, tile_mask

# Addresses and what a call may choose, then all that follows from layouts: strides are in bytes.
# `height` queries by `depth` keys are a tile; the places are those in a task's workspace.
ARRAYS = ("o", "q", "k", "v", "bias", "do", "dq", "dk", "dv")
PLACES = ("spans", "columns", "q_turned", "do_turned", "t", "g", "mask", "gemm_workspace")
INTEGERS = (
    f"{' '.join(ARRAYS)} stats gemm find_spans make_mask workspace {DROPOUT_ARGUMENTS} "
    + " ".join(f"{x}_n {x}_h {x}_row" for x in ARRAYS)
    + " batch heads group rows cols width value_width causal blocks height depth columns_row "
    + "splits dq_split "
    + " ".join(f"{x}_place" for x in PLACES)
    + " workspace_bytes"
)
FLOATS = "scale keep_scale"

_u32 = np.uint32


@jit
def stats_of(s, head, block):  # type: ignore[no-untyped-def]
    """Return the address of the stats of a block of queries."""
    return s.stats + (head * s.blocks + block) * STATS * s.columns_row


@jit
def find_spans(s, exemplar, spans, place, n, h):  # type: ignore[no-untyped-def]
    """Set the spans of all blocks of a head, unless its mask is that of the head before."""
    made_for, bias = spans[s.blocks], s.bias + n * s.bias_n + h * s.bias_h
    if made_for[0] == bias:
        return
    made_for[0], made_for[1] = bias, -1
    if s.bias != 0:
        call_native(s.find_spans, exemplar, (
            place + s.spans_place, s.rows, s.height, s.cols, s.causal, bias, s.bias_row,
        ))  # fmt: skip
        return
    for block in range(s.blocks):
        spans[block, 0], spans[block, 1], spans[block, 2] = 0, s.cols, s.cols
        if s.causal != 0:
            first = block * s.height
            spans[block, 1] = min(first + 1, s.cols)
            spans[block, 2] = min(first + s.height, s.rows, s.cols)


@jit
def turn(s, exemplar, to, x, x_row, rows, width, scale):  # type: ignore[no-untyped-def]
    """Put scale * X^T at `to`, (width, rows), of which a row takes the height of a tile."""
    y = array_at(exemplar, to, (width * s.height,))
    transpose(exemplar, to, s.height * y.itemsize, x, x_row, rows, width)
    factor = y.dtype.type(scale)
    for i in range(y.size):
        y[i] *= factor


@jit(fastmath=False)
def multiply_keys(s, exemplar, to, x, y, y_row, cols, width, vectors, workspace):  # type: ignore[no-untyped-def]
    """Put Y X^T at `to`, a tile, of X^T from `turn` and `cols` rows of Y: keys or values."""
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


@jit
def mask_keys(s, exemplar, spans, place, n, h, block, rows, start, cols, vectors):  # type: ignore[no-untyped-def]
    """Mask the tile of a block's queries and `cols` keys from `start`."""
    size = array_at(exemplar, place, (1,)).itemsize
    fold = VECTOR_BYTES // size if s.height == 1 else 1  # keys in a row of the tile
    high, row = -(-cols // fold), s.height * size * fold
    skip = min(max(spans[block, 1] - start, 0), cols) // fold
    if skip == high:
        return
    t, mask, tile = place + s.t_place, place + s.mask_place, block * s.cols + start
    if spans[s.blocks, 1] != tile:
        spans[s.blocks, 1] = tile
        first = block * s.height
        bias, seen = 0, s.cols
        if s.bias != 0:
            bias = s.bias + n * s.bias_n + h * s.bias_h + first * s.bias_row + start * size
        if s.causal != 0:
            seen = first - start
        call_native(s.make_mask, exemplar, (
            mask, s.height, bias, s.bias_row, rows, skip * fold, cols, high * fold, seen,
        ))  # fmt: skip
    tile_mask(exemplar, (vectors, high - skip, t + skip * row, row, mask + skip * row))


@jit
def set_words(s, columns, n, h, first, start):  # type: ignore[no-untyped-def]
    """Set the indices of dropout for each query, or lane, in the first row of a tile."""
    index = s.key0 + ((n * s.heads + h) * s.rows + first) * s.cols + start
    step = 1 if s.height == 1 else s.cols
    words = array_at(_u32, columns + (WORD - STATS) * s.columns_row, (s.columns_row // 4,))
    for i in range(words.size):
        words[i] = _u32(index + i * step)


@jit
def zero_rows(exemplar, x, x_row, rows, width):  # type: ignore[no-untyped-def]
    """Set rows to 0."""
    for i in range(rows):
        row = array_at(exemplar, x + i * x_row, (width,))
        for j in range(width):
            row[j] = 0
