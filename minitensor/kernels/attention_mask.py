"""The mask of a block of queries in attention (`kernels.attention`): a bias, causality or both.

`find_spans` tells which keys a block sees, so that the others are not computed, and from which on
something has to be added. `make_mask` makes what is added to a tile of scores: keys in rows, as
multiples of ln 2. Both are compiled once, for forward and backward, and called by their addresses.
Bound by reading the bias: once for all heads that share it.
"""

from __future__ import annotations

import numpy as np

from .jit import jit
from .pack import transpose
from .parallel import NativeFunction, array_at, integers_at

LOG2E = 1.4426950408889634
SPANS = 3  # of a block: the first key it sees, the first that is masked for some, the last + 1
_CHUNK = 64  # keys that are found hidden or not together


@jit
def _all_are(exemplar, x, x_row, rows, start, stop, value):  # type: ignore[no-untyped-def]
    """Return True if columns `start` to `stop` of some rows hold nothing but `value`."""
    for i in range(rows):
        row, others = array_at(exemplar, x + i * x_row, (stop,)), 0
        for j in range(start, stop):
            others += row[j] != value
        if others > 0:
            return False
    return True


def _find_spans(exemplar, spans, rows, height, cols, causal, bias, bias_row):  # type: ignore[no-untyped-def]
    """Set SPANS numbers for each block of `height` of some rows of the bias."""
    found = integers_at(spans, -(-rows // height) * SPANS)
    for block in range(found.size // SPANS):
        first = block * height
        count = 1 if bias_row == 0 else min(height, rows - first)
        begin, plain, end = 0, cols, cols
        if causal != 0:
            plain, end = min(first + 1, cols), min(first + height, rows, cols)
        x = bias + first * bias_row
        while end > 0:
            chunk = (end - 1) // _CHUNK * _CHUNK
            if not _all_are(exemplar, x, bias_row, count, chunk, end, -np.inf):
                break
            end = chunk
        while begin < end:
            chunk = min(begin + _CHUNK, end)
            if not _all_are(exemplar, x, bias_row, count, begin, chunk, -np.inf):
                break
            begin = chunk
        most, plain = min(plain, end), begin
        while plain < most:
            chunk = min(plain + _CHUNK, most)
            if not _all_are(exemplar, x, bias_row, count, plain, chunk, 0.0):
                break
            plain = chunk
        at = block * SPANS
        found[at], found[at + 1], found[at + 2] = begin, plain, end


def _make_mask(exemplar, to, height, bias, bias_row, rows, skip, cols, depth, seen):  # type: ignore[no-untyped-def]
    """Make the mask of `rows` queries and of keys from `skip` to `cols`, and hide those to `depth`.

    `bias` is that of the first query and the first key, or 0; `seen` is the last key that the first
    query sees, and every query sees one more.
    """
    mask = array_at(exemplar, to, (depth, height))
    row, log2e, hidden = height * mask.itemsize, mask.dtype.type(LOG2E), mask.dtype.type(-np.inf)
    turned = bias != 0 and bias_row != 0
    if turned:
        transpose(
            exemplar, to + skip * row, row, bias + skip * mask.itemsize, bias_row, rows, cols - skip
        )
    for j in range(skip, depth):
        same = mask.dtype.type(0)
        if j >= cols:
            same = hidden
        elif bias != 0 and not turned:
            same = array_at(exemplar, bias, (cols,))[j] * log2e
        for i in range(height):
            value = mask[j, i] * log2e if turned else same
            mask[j, i] = hidden if j > seen + i else value


FIND_SPANS, MAKE_MASK = NativeFunction(_find_spans, 7), NativeFunction(_make_mask, 9)
