"""One direction of a recurrent layer over all steps, forward and backward, without a Python loop.

The product of all inputs with their weights is one large matrix product (`kernels.matmul`); so are,
after the backward walk, the gradients of both weights and of the inputs. What is left depends on
the step before, and is one parallel kernel: at each step the small product of the states with the
recurrent weights, accumulated onto the gates, and one pass of the activations over each row.

Sequences do not depend on each other, so each task takes some of them through all steps, without a
barrier: task i of n has sequences i, i + n, i + 2n and so on, which shares sequences of unequal
lengths evenly. The recurrent weights are packed once, in the order in which the microkernel reads
them, with whole panels of NR columns; the arrays that it writes have rows of whole panels too.
Bound by the multiply-add units if there are some ten sequences for each thread, otherwise by
reading the weights from cache at each step.

The rows of all steps are those of a packed sequence: step t has rows starts[t] to starts[t + 1],
one for each sequence that is longer than t, and the longest sequences come first. States have a row
for each sequence, and stay as they are where a sequence has ended, or in reverse has not begun.

Every element is one sum in order of k, whatever the number of tasks.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np

from .. import memory
from .gemm import KC, NR_BYTES, pack
from .jit import COMPILED, get_num_threads, jit
from .math import sigmoid, tanh
from .matmul import PARALLEL, matmul
from .microkernel import microkernel
from .parallel import (
    NativeFunction,
    ParallelKernel,
    address,
    array_at,
    call_native,
    integers_at,
    unpacked,
)
from .simd import MR, itemsize_of

# The recurrent product


def _accumulate(
    exemplar: Any, rows: int, cols: int, k: int, a: int, a_row: int, panels: int, c: int, c_row: int
) -> None:
    """C += A B, with B packed in panels and the rows of A contiguous; C has whole panels."""
    size = itemsize_of(exemplar)
    k_blocks, row_blocks = -(-k // KC), -(-rows // MR)
    for j in range(0, cols * size, NR_BYTES):
        for block in range(k_blocks):
            start = k * block // k_blocks
            depth = k * (block + 1) // k_blocks - start
            panel = panels + j * k + start * NR_BYTES
            for i in range(row_blocks):
                top = rows * i // row_blocks
                height = rows * (i + 1) // row_blocks - top
                target = c + top * c_row + j
                microkernel(
                    exemplar, height, 2, depth, a + top * a_row + start * size, a_row, size, panel,
                    NR_BYTES, target, c_row, target, c_row,
                )  # fmt: skip


def _accumulate_by_numpy(
    exemplar: Any, rows: int, cols: int, k: int, a: int, a_row: int, panels: int, c: int, c_row: int
) -> None:
    """Do the work of `_accumulate` if nothing is compiled."""

    def matrix(address: int, width: int, row: int) -> np.ndarray:
        span = (rows - 1) * row + width * exemplar.itemsize
        content: Any = (ctypes.c_char * span).from_address(int(address))
        strides = (row, exemplar.itemsize)
        return np.ndarray((rows, width), exemplar.dtype, content, strides=strides)

    nr = NR_BYTES // exemplar.itemsize
    b = array_at(exemplar, panels, (-(-cols // nr), k, nr))
    out = matrix(c, cols, c_row)
    out += matrix(a, k, a_row) @ b.transpose(1, 0, 2).reshape(k, -1)[:, :cols]


_ACCUMULATE = NativeFunction(_accumulate if COMPILED else _accumulate_by_numpy, 8)


def _pack(arguments: Any, exemplar: Any, task: int, tasks: int) -> None:
    """Pack one task's share of the panels of B."""
    s = unpacked(arguments)
    nr = NR_BYTES // itemsize_of(exemplar)
    count = -(-s.cols // nr)
    for p in range(count * task // tasks, count * (task + 1) // tasks):
        width = min(nr, s.cols - p * nr)
        panel = s.panels + p * s.k * NR_BYTES
        column = s.b + p * nr * s.b_col
        pack(exemplar, panel, NR_BYTES, column, s.b_row, s.b_col, s.k, width)


_run_pack = ParallelKernel(_pack, "panels b b_row b_col k cols")


def _width(cols: int, dtype: np.dtype[Any]) -> int:
    """Return the number of columns of whole panels."""
    nr = NR_BYTES // dtype.itemsize
    return int(-(-cols // nr) * nr)


def _packed(b: np.ndarray) -> np.ndarray:
    """Return a matrix (K, N) packed in panels, with further columns of any values."""
    k, cols = b.shape
    nr = NR_BYTES // b.itemsize
    panels = memory.empty((-(-cols // nr), k, nr), b.dtype)
    if COMPILED:
        tasks = get_num_threads() if b.size > PARALLEL // 8 else 1
        _run_pack(b.dtype, tasks, address(panels), address(b), *b.strides, k, cols)
    else:
        for p, panel in enumerate(panels):
            part = b[:, p * nr : (p + 1) * nr]
            panel[:, : part.shape[1]] = part
    return panels


# The kernels. Loops over one row write one array each, so that LLVM vectorises them.


@jit
def _step(s, starts, k):  # type: ignore[no-untyped-def]
    """Return the first row of step k of the walk and their number, and those of the step before.

    Of the latter those that have a step before this one, at most the rows of this one.
    """
    t = s.steps - 1 - k if s.reverse != 0 else k
    first, n = starts[t], starts[t + 1] - starts[t]
    if k == 0:
        return first, n, first, first - first
    before = t + 1 if s.reverse != 0 else t - 1
    return first, n, starts[before], starts[before + 1] - starts[before]


@jit
def _product(s, exemplar, task, tasks, n, cols, k, a, a_row, c, c_row):  # type: ignore[no-untyped-def]
    """C += A B on a task's sequences, of n; B is (k, cols)."""
    if task < n:
        rows = (n - task + tasks - 1) // tasks
        of, to = a + task * a_row, c + task * c_row
        more = of, tasks * a_row, s.panels, to, tasks * c_row
        call_native(s.accumulate, exemplar, (rows, cols, k, *more))


def _rnn(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    s = unpacked(arguments)
    width = s.width
    starts = integers_at(s.starts, s.steps + 1)
    row_bytes = width * s.itemsize
    for k in range(s.steps):
        first, n, _, _ = _step(s, starts, k)
        to = s.gates + first * s.gates_row
        _product(s, exemplar, task, tasks, n, width, width, s.h, row_bytes, to, s.gates_row)
        for r in range(task, n, tasks):
            z = array_at(exemplar, s.gates + (first + r) * s.gates_row, (width,))
            y = array_at(exemplar, s.y + (first + r) * row_bytes, (width,))
            h = array_at(exemplar, s.h + r * row_bytes, (width,))
            zero = z.dtype.type(0)
            if s.relu != 0:
                for j in range(width):
                    y[j] = zero if z[j] < zero else z[j]  # NaN stays
            else:
                for j in range(width):
                    y[j] = tanh(z[j])
            for j in range(width):
                h[j] = y[j]


def _rnn_backward(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    s = unpacked(arguments)
    width = s.width
    starts = integers_at(s.starts, s.steps + 1)
    row_bytes = width * s.itemsize
    for k in range(s.steps - 1, -1, -1):
        first, n, _, _ = _step(s, starts, k)
        for r in range(task, n, tasks):
            y = array_at(exemplar, s.y + (first + r) * row_bytes, (width,))
            dy = array_at(exemplar, s.dy + (first + r) * row_bytes, (width,))
            dz = array_at(exemplar, s.dgates + (first + r) * s.gates_row, (width,))
            dh = array_at(exemplar, s.dh + r * s.dh_row, (width,))
            zero, one = y.dtype.type(0), y.dtype.type(1)
            for j in range(width):
                dz[j] = dh[j] + dy[j]
            if s.relu != 0:
                for j in range(width):
                    dz[j] = zero if y[j] <= zero else dz[j]
            else:
                for j in range(width):
                    dz[j] *= one - y[j] * y[j]
            for j in range(width):
                dh[j] = zero
        of = s.dgates + first * s.gates_row
        _product(s, exemplar, task, tasks, n, width, width, of, s.gates_row, s.dh, s.dh_row)


def _lstm(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    s = unpacked(arguments)
    width = s.width
    starts = integers_at(s.starts, s.steps + 1)
    row_bytes = width * s.itemsize
    for k in range(s.steps):
        first, n, _, _ = _step(s, starts, k)
        to = s.gates + first * s.gates_row
        _product(s, exemplar, task, tasks, n, 4 * width, width, s.h, row_bytes, to, s.gates_row)
        for r in range(task, n, tasks):
            gates = s.gates + (first + r) * s.gates_row
            i_f = array_at(exemplar, gates, (2 * width,))
            i, f = i_f[:width], i_f[width:]
            g = array_at(exemplar, gates + 2 * row_bytes, (width,))
            o = array_at(exemplar, gates + 3 * row_bytes, (width,))
            c = array_at(exemplar, s.c + r * row_bytes, (width,))
            c_kept = array_at(exemplar, s.cells + (first + r) * row_bytes, (width,))
            y = array_at(exemplar, s.y + (first + r) * row_bytes, (width,))
            h = array_at(exemplar, s.h + r * row_bytes, (width,))
            for j in range(2 * width):
                i_f[j] = sigmoid(i_f[j])
            for j in range(width):
                g[j] = tanh(g[j])
            for j in range(width):
                o[j] = sigmoid(o[j])
            for j in range(width):
                c[j] = f[j] * c[j] + i[j] * g[j]
            for j in range(width):
                c_kept[j] = c[j]
            for j in range(width):
                y[j] = o[j] * tanh(c[j])
            for j in range(width):
                h[j] = y[j]


def _lstm_backward(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    s = unpacked(arguments)
    width = s.width
    starts = integers_at(s.starts, s.steps + 1)
    row_bytes = width * s.itemsize
    for k in range(s.steps - 1, -1, -1):
        first, n, before, continued = _step(s, starts, k)
        for r in range(task, n, tasks):
            gates = s.gates + (first + r) * s.gates_row
            i = array_at(exemplar, gates, (width,))
            f = array_at(exemplar, gates + row_bytes, (width,))
            g = array_at(exemplar, gates + 2 * row_bytes, (width,))
            o = array_at(exemplar, gates + 3 * row_bytes, (width,))
            dgates = s.dgates + (first + r) * s.gates_row
            di = array_at(exemplar, dgates, (width,))
            df = array_at(exemplar, dgates + row_bytes, (width,))
            dg = array_at(exemplar, dgates + 2 * row_bytes, (width,))
            do = array_at(exemplar, dgates + 3 * row_bytes, (width,))
            c = array_at(exemplar, s.cells + (first + r) * row_bytes, (width,))
            c_place = s.c0 + r * row_bytes
            if r < continued:
                c_place = s.cells + (before + r) * row_bytes
            c_before = array_at(exemplar, c_place, (width,))
            dy = array_at(exemplar, s.dy + (first + r) * row_bytes, (width,))
            dh = array_at(exemplar, s.dh + r * s.dh_row, (width,))
            dc = array_at(exemplar, s.dc + r * row_bytes, (width,))
            zero, one = c.dtype.type(0), c.dtype.type(1)
            for j in range(width):
                dh[j] += dy[j]
            for j in range(width):
                do[j] = tanh(c[j])
            for j in range(width):
                dc[j] += dh[j] * o[j] * (one - do[j] * do[j])
            for j in range(width):
                do[j] *= dh[j] * o[j] * (one - o[j])
            for j in range(width):
                di[j] = dc[j] * g[j] * i[j] * (one - i[j])
            for j in range(width):
                df[j] = dc[j] * c_before[j] * f[j] * (one - f[j])
            for j in range(width):
                dg[j] = dc[j] * i[j] * (one - g[j] * g[j])
            for j in range(width):
                dc[j] *= f[j]
            for j in range(width):
                dh[j] = zero
        of = s.dgates + first * s.gates_row
        _product(s, exemplar, task, tasks, n, width, 4 * width, of, s.gates_row, s.dh, s.dh_row)


def _gru(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    s = unpacked(arguments)
    width = s.width
    starts = integers_at(s.starts, s.steps + 1)
    row_bytes = width * s.itemsize
    bias = array_at(exemplar, s.bias, (3 * width,))
    for k in range(s.steps):
        first, n, _, _ = _step(s, starts, k)
        for r in range(task, n, tasks):
            recurrent = array_at(exemplar, s.workspace + r * s.gates_row, (3 * width,))
            for j in range(3 * width):
                recurrent[j] = bias[j]
        to = s.workspace
        _product(s, exemplar, task, tasks, n, 3 * width, width, s.h, row_bytes, to, s.gates_row)
        for r in range(task, n, tasks):
            gates = s.gates + (first + r) * s.gates_row
            recurrent = s.workspace + r * s.gates_row
            r_z_h = array_at(exemplar, recurrent, (2 * width,))
            product = array_at(exemplar, recurrent + 2 * row_bytes, (width,))
            r_z = array_at(exemplar, gates, (2 * width,))
            reset, z = r_z[:width], r_z[width:]
            c = array_at(exemplar, gates + 2 * row_bytes, (width,))
            kept = array_at(exemplar, s.products + (first + r) * row_bytes, (width,))
            y = array_at(exemplar, s.y + (first + r) * row_bytes, (width,))
            h = array_at(exemplar, s.h + r * row_bytes, (width,))
            one = c.dtype.type(1)
            for j in range(2 * width):
                r_z[j] = sigmoid(r_z[j] + r_z_h[j])
            for j in range(width):
                kept[j] = product[j]
            for j in range(width):
                c[j] = tanh(c[j] + reset[j] * kept[j])
            for j in range(width):
                y[j] = (one - z[j]) * c[j] + z[j] * h[j]
            for j in range(width):
                h[j] = y[j]


def _gru_backward(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    s = unpacked(arguments)
    width = s.width
    starts = integers_at(s.starts, s.steps + 1)
    row_bytes = width * s.itemsize
    for k in range(s.steps - 1, -1, -1):
        first, n, before, continued = _step(s, starts, k)
        for r in range(task, n, tasks):
            gates = s.gates + (first + r) * s.gates_row
            reset = array_at(exemplar, gates, (width,))
            z = array_at(exemplar, gates + row_bytes, (width,))
            c = array_at(exemplar, gates + 2 * row_bytes, (width,))
            dx = s.dgates + (first + r) * s.gates_row
            dreset = array_at(exemplar, dx, (width,))
            dz = array_at(exemplar, dx + row_bytes, (width,))
            dc = array_at(exemplar, dx + 2 * row_bytes, (width,))
            recurrent = s.drecurrent + (first + r) * s.gates_row
            dreset_h = array_at(exemplar, recurrent, (width,))
            dz_h = array_at(exemplar, recurrent + row_bytes, (width,))
            dproduct = array_at(exemplar, recurrent + 2 * row_bytes, (width,))
            product = array_at(exemplar, s.products + (first + r) * row_bytes, (width,))
            h_place = s.h0 + r * row_bytes
            if r < continued:
                h_place = s.y + (before + r) * row_bytes
            h_before = array_at(exemplar, h_place, (width,))
            dy = array_at(exemplar, s.dy + (first + r) * row_bytes, (width,))
            dh = array_at(exemplar, s.dh + r * s.dh_row, (width,))
            one = c.dtype.type(1)
            for j in range(width):
                dh[j] += dy[j]
            for j in range(width):
                dc[j] = dh[j] * (one - z[j]) * (one - c[j] * c[j])
            for j in range(width):
                dz[j] = dh[j] * (h_before[j] - c[j]) * z[j] * (one - z[j])
            for j in range(width):
                dproduct[j] = dc[j] * reset[j]
            for j in range(width):
                dreset[j] = dproduct[j] * product[j] * (one - reset[j])
            for j in range(width):
                dreset_h[j] = dreset[j]
            for j in range(width):
                dz_h[j] = dz[j]
            for j in range(width):
                dh[j] *= z[j]
        of = s.drecurrent + first * s.gates_row
        _product(s, exemplar, task, tasks, n, width, 3 * width, of, s.gates_row, s.dh, s.dh_row)


_FORWARD = "accumulate panels starts steps reverse width itemsize gates gates_row y h"
_BACKWARD = (
    "accumulate panels starts steps reverse width itemsize gates dgates gates_row y dy dh dh_row"
)
_run_rnn = ParallelKernel(_rnn, f"{_FORWARD} relu", fastmath=True)
_run_rnn_backward = ParallelKernel(_rnn_backward, f"{_BACKWARD} relu", fastmath=True)
_run_lstm = ParallelKernel(_lstm, f"{_FORWARD} cells c", fastmath=True)
_run_lstm_backward = ParallelKernel(_lstm_backward, f"{_BACKWARD} cells c0 dc", fastmath=True)
_run_gru = ParallelKernel(_gru, f"{_FORWARD} products bias workspace", fastmath=True)
_run_gru_backward = ParallelKernel(
    _gru_backward, f"{_BACKWARD} products h0 drecurrent", fastmath=True
)


class Walk:
    """The order in which a layer goes through the steps, and the rows of each.

    - sizes: the number of sequences of each step, which never grows.
    - reverse: go from the last step to the first.
    """

    def __init__(self, sizes: tuple[int, ...], reverse: bool) -> None:
        self.sizes, self.reverse = sizes, reverse
        self.starts = np.zeros(len(sizes) + 1, np.int64)
        np.cumsum(sizes, out=self.starts[1:])
        self.rows = int(self.starts[-1])

    def before(self, y: np.ndarray, h0: np.ndarray) -> np.ndarray:
        """Return the state before each row: y (R, H) of the step before, or h0 (N, H)."""
        if len(self.sizes) == 1:
            return h0[: self.rows]
        out = memory.empty(y.shape, y.dtype)
        order = range(len(self.sizes))[:: -1 if self.reverse else 1]
        last, known = 0, 0  # the first row of the step before, and its number of sequences
        for t in order:
            start, n = int(self.starts[t]), self.sizes[t]
            both = min(n, known)
            out[start : start + both] = y[last : last + both]
            out[start + both : start + n] = h0[both:n]
            last, known = start, n
        return out

    def run(self, kernel: ParallelKernel, b: np.ndarray, width: int, *arguments: Any) -> None:
        """Run a kernel whose recurrent product is with the matrix `b`."""
        panels = _packed(b)
        n = self.sizes[0]
        tasks = min(get_num_threads(), n) if self.rows * b.size >= PARALLEL else 1
        kernel(
            b.dtype,
            tasks,
            _ACCUMULATE.address(b.dtype),
            address(panels),
            address(self.starts),
            len(self.sizes),
            self.reverse,
            width,
            b.itemsize,
            *(address(a) if isinstance(a, np.ndarray) else a for a in arguments),
        )


walk_of = functools.lru_cache(256)(Walk)  # made once for each way


def _gates(x: np.ndarray, w_ih: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """Return x w_ihᵀ + bias with columns of whole panels."""
    gates = memory.empty((len(x), _width(len(w_ih), x.dtype)), x.dtype)
    matmul(x, w_ih.T, gates[:, : len(w_ih)], bias)
    return gates


def _padded(h: np.ndarray) -> np.ndarray:
    """Return a copy with columns of whole panels."""
    out = np.empty((len(h), _width(h.shape[1], h.dtype)), h.dtype)
    out[:, : h.shape[1]] = h
    return out


def rnn(
    x: np.ndarray, h0: np.ndarray, w_ih: np.ndarray, w_hh: np.ndarray, bias: np.ndarray | None,
    walk: Walk, relu: bool,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Return y (R, H) and the last states (N, H), of x (R, I) and h0 (N, H)."""
    gates, h = _gates(x, w_ih, bias), h0.copy()
    y = memory.empty((len(x), h.shape[1]), x.dtype)
    walk.run(_run_rnn, w_hh.T, h.shape[1], gates, gates.strides[0], y, h, relu)
    return y, h


def rnn_backward(
    dy: np.ndarray, dh: np.ndarray, y: np.ndarray, w_hh: np.ndarray, walk: Walk, relu: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradients of the gates (R, H) and of h0 (N, H), from those of y and h."""
    width = y.shape[1]
    dgates = memory.empty(y.shape, y.dtype)
    dh0 = _padded(dh)
    walk.run(
        _run_rnn_backward, w_hh, width, dgates, dgates, dgates.strides[0], y, dy, dh0,
        dh0.strides[0], relu,
    )  # fmt: skip
    return dgates, dh0[:, :width]


def lstm(
    x: np.ndarray, h0: np.ndarray, c0: np.ndarray, w_ih: np.ndarray, w_hh: np.ndarray,
    bias: np.ndarray | None, walk: Walk,
) -> tuple[np.ndarray, ...]:  # fmt: skip
    """Return y (R, H), the last h and c (N, H), the gates, and all cell states (R, H)."""
    gates, h, c = _gates(x, w_ih, bias), h0.copy(), c0.copy()
    width = h.shape[1]
    y, cells = (memory.empty((len(x), width), x.dtype) for _ in range(2))
    walk.run(_run_lstm, w_hh.T, width, gates, gates.strides[0], y, h, cells, c)
    return y, h, c, gates, cells


def lstm_backward(
    dy: np.ndarray, dh: np.ndarray, dc: np.ndarray, y: np.ndarray, gates: np.ndarray,
    cells: np.ndarray, c0: np.ndarray, w_hh: np.ndarray, walk: Walk,
) -> tuple[np.ndarray, ...]:  # fmt: skip
    """Return the gradients of the gates (R, 4H), of h0 and of c0, from those of y, h and c."""
    width = y.shape[1]
    dgates = memory.empty(gates.shape, gates.dtype)
    dh0, dc0 = _padded(dh), dc.copy()
    walk.run(
        _run_lstm_backward, w_hh, width, gates, dgates, gates.strides[0], y, dy, dh0,
        dh0.strides[0], cells, c0, dc0,
    )  # fmt: skip
    return dgates[:, : 4 * width], dh0[:, :width], dc0


def gru(
    x: np.ndarray, h0: np.ndarray, w_ih: np.ndarray, w_hh: np.ndarray, b_ih: np.ndarray | None,
    b_hh: np.ndarray | None, walk: Walk,
) -> tuple[np.ndarray, ...]:  # fmt: skip
    """Return y (R, H), the last h (N, H), the gates, and n's part h w_hhᵀ + b_hh (R, H)."""
    gates, h = _gates(x, w_ih, b_ih), h0.copy()
    width = h.shape[1]
    y, products = (memory.empty((len(x), width), x.dtype) for _ in range(2))
    bias = np.zeros(3 * width, x.dtype) if b_hh is None else np.ascontiguousarray(b_hh)
    workspace = np.empty((len(h), gates.shape[1]), x.dtype)
    walk.run(_run_gru, w_hh.T, width, gates, gates.strides[0], y, h, products, bias, workspace)
    return y, h, gates, products


def gru_backward(
    dy: np.ndarray, dh: np.ndarray, y: np.ndarray, gates: np.ndarray, products: np.ndarray,
    h0: np.ndarray, w_hh: np.ndarray, walk: Walk,
) -> tuple[np.ndarray, ...]:  # fmt: skip
    """Return the gradients of x w_ihᵀ, of h w_hhᵀ, both (R, 3H), and of h0."""
    width = y.shape[1]
    dgates, drecurrent = (memory.empty(gates.shape, gates.dtype) for _ in range(2))
    dh0 = _padded(dh)
    walk.run(
        _run_gru_backward, w_hh, width, gates, dgates, gates.strides[0], y, dy, dh0,
        dh0.strides[0], products, h0, drecurrent,
    )  # fmt: skip
    return dgates[:, : 3 * width], drecurrent[:, : 3 * width], dh0[:, :width]
