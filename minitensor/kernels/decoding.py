"""Kernels for writing token by token: attention of one query to a cache, and the likeliest tokens.

A cache has slots, each with keys and values (2, H, S, K). For row n of a batch and its head h:

    o[n, h] = sum over s of p[s] value[slot[n, s], h, s]
    p = softmax over s of (scale * q[n, h] key[slot[n, s], h, s] + bias[slot[n, 0], s])

`slot` says where the key and value of a row's position are, so rows that leave the batch, change
places or begin alike, as in beam search, cost no copy: only slots change. In self-attention the
kernel first puts a row's new key and value in their place. It is bound by reading keys and values
once, each run of positions with one slot by one product (`kernels.gemm`).

`most_probable` reads each row of logits from cache three times: for the maximum, for the sum of
exponentials, and for the largest, where it looks into those blocks alone whose maximum is among the
largest so far.
"""

from __future__ import annotations

import math

import numpy as np

from .gemm import GEMM, WORKSPACE_BYTES, Workspace
from .jit import get_num_threads, jit
from .math import exp
from .parallel import (
    ParallelKernel,
    address,
    array_at,
    call_native,
    contiguous,
    integers_at,
    recording,
    tasks_for,
    unpacked,
)
from .simd import itemsize_of
from .softmax import log_softmax_of, row_max

_PARALLEL = 1 << 16  # keys and values, in numbers, from which a second thread pays
_BLOCK = 64  # numbers of a row that LLVM's vector loops take at a time


@jit
def _softmax(x, bias, biased, scale, stop):  # type: ignore[no-untyped-def]
    """Turn products into weights, in place: those up to `stop`; the others become 0."""
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for j in range(stop, x.size):
        x[j] = -np.inf
    for j in range(x.size):
        x[j] *= scale
    if biased:
        for j in range(stop):
            x[j] += bias[j]
    top = row_max(x)
    if top == -np.inf:
        top = zero
    for j in range(x.size):
        x[j] = exp(x[j] - top)
    total = zero
    for j in range(x.size):
        total += x[j]
    factor = zero if total == zero else one / total
    for j in range(x.size):
        x[j] *= factor


@jit
def _run_end(slots, step, start, stop):  # type: ignore[no-untyped-def]
    """Return the end of the run of positions from `start` that are in one slot."""
    end = stop if step == 0 else start + 1
    while end < stop and slots[end] == slots[start]:
        end += 1
    return end


@jit
def _multiply(s, exemplar, head, slots, stop, scores, values, one, workspace):  # type: ignore[no-untyped-def]
    """Multiply a query by the keys, or with `values` the scores by the values.

    `head` is the address of a head's keys or values in slot 0, and `one` that of the query or of
    the result.
    """
    size = itemsize_of(exemplar)
    place, start = s.width * size, 0
    while start < stop:
        end = _run_end(slots, s.slots_step, start, stop)
        slot = slots[start * s.slots_step]
        b = head + (2 * s.heads * slot * s.capacity + start) * place
        x = scores + start * size
        if values:
            shape, y = (1, s.width, end - start), one
            a, b_row, b_col = x, place, size
        else:
            shape, y = (1, end - start, s.width), x
            a, b_row, b_col = one, size, place
        rows, cols, depth = shape
        add = values and start > 0
        numbers = rows, cols, depth, a, 0, size, b, b_row, b_col, y, 0, 0, add, workspace
        call_native(s.gemm, exemplar, numbers)
        start = end


def _attend(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    """Do one task's heads of all rows."""
    s = unpacked(arguments)
    all_scores = array_at(exemplar, s.scores, (tasks, s.padded))
    size = all_scores.itemsize
    scores, workspace = s.scores + task * s.padded * size, s.workspace + task * s.workspace_bytes
    place = s.width * size
    head, side = s.capacity * place, s.heads * s.capacity * place
    length = integers_at(s.length, 1)[0]
    stop = length + 1 if s.new != 0 else length
    x = all_scores[task, : -(-stop // _BLOCK) * _BLOCK]
    scale = x.dtype.type(s.scale)
    for pair in range(s.rows * s.heads * task // tasks, s.rows * s.heads * (task + 1) // tasks):
        n, h = pair // s.heads, pair % s.heads
        slots = integers_at(s.slots + 8 * n * s.slots_row, stop if s.slots_step != 0 else 1)
        keys = s.cache + h * head
        if s.new != 0:
            for part in range(2):
                source = s.new + n * s.new_row + (part * s.heads + h) * place
                to = keys + (2 * slots[length] + part) * side + length * place
                fresh, kept = (
                    array_at(exemplar, source, (s.width,)),
                    array_at(exemplar, to, (s.width,)),
                )
                for i in range(s.width):
                    kept[i] = fresh[i]
        q, y = s.q + n * s.q_row + h * place, s.y + pair * place
        bias = array_at(exemplar, s.bias + slots[0] * s.capacity * size, (stop,))
        _multiply(s, exemplar, keys, slots, stop, scores, False, q, workspace)
        _softmax(x, bias, s.bias != 0, scale, stop)
        _multiply(s, exemplar, keys + side, slots, stop, scores, True, y, workspace)


_run_attend = ParallelKernel(
    _attend,
    """gemm workspace workspace_bytes scores y q q_row new new_row cache bias length slots slots_row
    slots_step rows heads width capacity padded""",
    "scale",
    fastmath=True,
)
_workspace = Workspace()


def attend(
    q: np.ndarray,
    cache: np.ndarray,
    slots: np.ndarray,
    length: np.ndarray,
    new: np.ndarray | None = None,
    bias: np.ndarray | None = None,
) -> np.ndarray:
    """Return what one query of each row attends to in a cache: (N, E) -> (N, E), E = H * K.

    - cache (slots, 2, H, capacity, K): keys and values.
    - slots: of each row at each position, (N, capacity), or at all, (N,); int64.
    - length (1,): the number of positions in the cache, int64, read when the kernel runs.
    - new (N, 2E): a key and a value for each row, to put at position `length` and attend to too.
    - bias (slots, capacity): added to the scores of a slot's positions.

    Rows of `q` and `new` are contiguous, and the other arrays as a whole. A row whose scores are
    all -inf gets 0.
    """
    rows, width = q.shape
    heads, capacity = cache.shape[2:4]
    y = np.empty((rows, width), q.dtype)
    tasks = get_num_threads() if rows * capacity * width >= _PARALLEL else 1
    padded = -(-capacity // _BLOCK) * _BLOCK
    scores = np.empty((tasks, padded), q.dtype)
    if _workspace.size < tasks * WORKSPACE_BYTES:
        _workspace.grow(tasks * WORKSPACE_BYTES)
    recording.keep(scores, _workspace.memory)
    _run_attend(
        q.dtype, tasks, GEMM.address(q.dtype), _workspace.address, WORKSPACE_BYTES,
        address(scores), address(y), address(q), q.strides[0],
        *((0, 0) if new is None else (address(new), new.strides[0])),
        address(cache), 0 if bias is None else address(bias), address(length), address(slots),
        slots.strides[0] // 8, slots.ndim - 1, rows, heads, width // heads, capacity, padded,
        math.sqrt(heads / width),
    )  # fmt: skip
    return y


@jit
def _insert(best, places, x, place):  # type: ignore[no-untyped-def]
    """Put x in its order among the largest so far; of equals the first comes first."""
    i = min(place, best.size - 1)
    while i > 0 and best[i - 1] < x:
        best[i], places[i] = best[i - 1], places[i - 1]
        i -= 1
    best[i], places[i] = x, place


@jit
def _search(x, best, places):  # type: ignore[no-untyped-def]
    """Find the largest elements of x and their places."""
    last = best.size - 1
    for left in range(0, x.size, _BLOCK):
        right = min(left + _BLOCK, x.size)
        if left <= last or not row_max(x[left:right]) <= best[last]:
            for j in range(left, right):
                if j <= last or x[j] > best[last]:
                    _insert(best, places, x[j], j)


@jit
def _log_sum(x, top):  # type: ignore[no-untyped-def]
    """Return the logarithm of the sum of exp(x - top)."""
    total = 0.0
    for left in range(0, x.size, _BLOCK):
        part = x.dtype.type(0)
        for j in range(left, min(left + _BLOCK, x.size)):
            part += exp(x[j] - top)
        total += part
    return x.dtype.type(math.log(total))


def _most_probable(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    """Do one task's rows."""
    s = unpacked(arguments)
    x = array_at(exemplar, s.x, (s.rows, s.cols))
    best = array_at(exemplar, s.best, (s.rows, s.count))
    places = integers_at(s.places, s.rows * s.count)
    for n in range(s.rows * task // tasks, s.rows * (task + 1) // tasks):
        _search(x[n], best[n], places[n * s.count : (n + 1) * s.count])
        top = best[n, 0]
        log_total = _log_sum(x[n], top)
        for i in range(s.count):
            best[n, i] = log_softmax_of(best[n, i], top, log_total)


_run_most_probable = ParallelKernel(_most_probable, "x best places rows cols count", fastmath=True)


def most_probable(x: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the `count` largest of log_softmax(x) in each row, largest first, and their places.

    (N, V) -> (N, count), (N, count), with count from 1 to V. Of equals the first comes first.
    """
    packed = contiguous(x)
    rows, cols = packed.shape
    best, places = np.empty((rows, count), packed.dtype), np.empty((rows, count), np.int64)
    arrays = address(packed), address(best), address(places)
    _run_most_probable(packed.dtype, tasks_for(packed.size), *arrays, rows, cols, count)
    return best, places
