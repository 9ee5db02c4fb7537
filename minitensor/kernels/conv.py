"""Convolution as matrix products of the weight with windows of the input, gathered in columns.

    cols[(c, u, v), p] = x[c, i * stride + u * dilation - pad, j * stride + v * dilation - pad]

with p = (i, j) a place of the output, (u, v) one in the window, and 0 outside of x. `gather` makes
the columns and `scatter` is its transpose, the sum of columns where they are from. For each image

    y = w cols        dcols = wᵀ dy, dx = scatter(dcols)        dw = the sum of dy colsᵀ

Columns are made for as many images at a time as fit in a cache, and again for the backward pass.
Windows of one element without padding, as in a 1x1 convolution, are the input itself.

Threads share the channels of the images, and a channel of dx is summed by one thread in the order
of (u, v), so that a result is the same bits on any number of them. Bound by memory; the products
around them by the multiply-add units.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .. import memory
from .jit import jit
from .matmul import matmul
from .parallel import ParallelKernel, address, array_at, contiguous, tasks_for, unpacked

Pair = tuple[int, ...]
_CHUNK = 1 << 19  # elements of the columns made at a time, if that is more than one image's


class Windows(NamedTuple):
    """The places of a window on images (H, W): along each dimension its size, step and padding."""

    image: Pair
    kernel: Pair
    stride: Pair
    padding: tuple[Pair, ...]  # before and after, along each
    dilation: Pair

    @property
    def out(self) -> Pair:
        """The number of windows along each dimension; less than 1 if none fits."""
        rows, cols = (
            (n + a + b - d * (k - 1) - 1) // s + 1 for n, k, s, (a, b), d in zip(*self, strict=True)
        )
        return rows, cols

    @property
    def trivial(self) -> bool:
        """True if the columns are the images themselves."""
        return self.kernel == self.stride == (1, 1) and not any(self.padding[0] + self.padding[1])

    def numbers(self) -> tuple[int, ...]:
        """Return the numbers that the kernels take."""
        (top, _), (left, _) = self.padding
        steps = (*self.stride, top, left, *self.dilation)
        return (*self.image, *self.kernel, *steps, *self.out)


def _gather(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    """Fill one task's channels of the columns."""
    s = unpacked(arguments)
    size, places = s.kernel_rows * s.kernel_cols, s.rows * s.cols
    for unit in range(s.units * task // tasks, s.units * (task + 1) // tasks):
        x = array_at(exemplar, s.x + unit * s.height * s.width * s.itemsize, (s.height, s.width))
        n, c = unit // s.channels, unit % s.channels
        for u in range(s.kernel_rows):
            for v in range(s.kernel_cols):
                at = s.columns + n * s.image_step + (c * size + u * s.kernel_cols + v) * s.row_step
                out = array_at(exemplar, at, (places,))
                zero = out.dtype.type(0)
                left = v * s.dilation_cols - s.left
                first = min(max(-(left // s.stride_cols), 0), s.cols)
                last = max(min((s.width - 1 - left) // s.stride_cols + 1, s.cols), first)
                for i in range(s.rows):
                    row = i * s.stride_rows + u * s.dilation_rows - s.top
                    to = out[i * s.cols : (i + 1) * s.cols]
                    if row < 0 or row >= s.height:
                        for j in range(s.cols):
                            to[j] = zero
                        continue
                    for j in range(first):
                        to[j] = zero
                    for j in range(last, s.cols):
                        to[j] = zero
                    to, of = to[first:last], x[row, first * s.stride_cols + left :]
                    if s.stride_cols == 1:
                        for j in range(to.size):
                            to[j] = of[j]
                    else:
                        for j in range(to.size):
                            to[j] = of[j * s.stride_cols]


def _scatter(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    """Sum one task's channels of the columns."""
    s = unpacked(arguments)
    size, places = s.kernel_rows * s.kernel_cols, s.rows * s.cols
    for unit in range(s.units * task // tasks, s.units * (task + 1) // tasks):
        x = array_at(exemplar, s.x + unit * s.height * s.width * s.itemsize, (s.height, s.width))
        n, c = unit // s.channels, unit % s.channels
        zero = x.dtype.type(0)
        for row in range(s.height):
            for j in range(s.width):
                x[row, j] = zero
        for u in range(s.kernel_rows):
            for v in range(s.kernel_cols):
                at = s.columns + n * s.image_step + (c * size + u * s.kernel_cols + v) * s.row_step
                columns = array_at(exemplar, at, (places,))
                left = v * s.dilation_cols - s.left
                first = min(max(-(left // s.stride_cols), 0), s.cols)
                last = max(min((s.width - 1 - left) // s.stride_cols + 1, s.cols), first)
                for i in range(s.rows):
                    row = i * s.stride_rows + u * s.dilation_rows - s.top
                    if row < 0 or row >= s.height:
                        continue
                    of = columns[i * s.cols + first : i * s.cols + last]
                    to = x[row, first * s.stride_cols + left :]
                    if s.stride_cols == 1:
                        for j in range(of.size):
                            to[j] += of[j]
                    else:
                        for j in range(of.size):
                            to[j * s.stride_cols] += of[j]


_FORWARD, _OF_IMAGE, _OF_WEIGHT = range(3)


@jit
def _slide(s, what, image, windows, weight):  # type: ignore[no-untyped-def]
    """Add to windows (rows, cols), to the image (H, W) or to the weight (U, V) what is of them."""
    step = s.stride_cols
    for u in range(s.kernel_rows):
        for v in range(s.kernel_cols):
            w, total = weight[u, v], weight.dtype.type(0)
            left = v * s.dilation_cols - s.left
            first = min(max(-(left // step), 0), s.cols)
            last = max(min((s.width - 1 - left) // step + 1, s.cols), first)
            for i in range(s.rows):
                row = i * s.stride_rows + u * s.dilation_rows - s.top
                if row < 0 or row >= s.height:
                    continue
                x, y = image[row, first * step + left :], windows[i, first:last]
                if what == _FORWARD:
                    if step == 1:
                        for j in range(y.size):
                            y[j] += w * x[j]
                    else:
                        for j in range(y.size):
                            y[j] += w * x[j * step]
                elif what == _OF_IMAGE:
                    if step == 1:
                        for j in range(y.size):
                            x[j] += w * y[j]
                    else:
                        for j in range(y.size):
                            x[j * step] += w * y[j]
                elif step == 1:
                    for j in range(y.size):
                        total += y[j] * x[j]
                else:
                    for j in range(y.size):
                        total += y[j] * x[j * step]
            if what == _OF_WEIGHT:
                weight[u, v] += total


def _by_channel(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    """Do one task's channels, each with filters of its own and with all images."""
    s = unpacked(arguments)
    x = array_at(exemplar, s.x, (s.images, s.channels, s.height, s.width))
    y = array_at(exemplar, s.y, (s.images, s.channels, s.filters, s.rows, s.cols))
    weight = array_at(exemplar, s.w, (s.channels, s.filters, s.kernel_rows, s.kernel_cols))
    for c in range(s.channels * task // tasks, s.channels * (task + 1) // tasks):
        for n in range(s.images):
            for f in range(s.filters):
                _slide(s, s.what, x[n, c], y[n, c, f], weight[c, f])


_WINDOWS = """height width kernel_rows kernel_cols stride_rows stride_cols top left dilation_rows
    dilation_cols rows cols"""
_run_by_channel = ParallelKernel(_by_channel, f"x y w what images channels filters {_WINDOWS}")
_ARGUMENTS = f"x columns units channels itemsize image_step row_step {_WINDOWS}"
_run_gather = ParallelKernel(_gather, _ARGUMENTS, fastmath=True)
_run_scatter = ParallelKernel(_scatter, _ARGUMENTS, fastmath=True)


def _run(kernel: ParallelKernel, x: np.ndarray, columns: np.ndarray, windows: Windows) -> None:
    if columns.size or x.size:
        kernel(
            x.dtype, tasks_for(columns.size), address(x), address(columns), len(x) * x.shape[1],
            x.shape[1], x.itemsize, *columns.strides[:2], *windows.numbers(),
        )  # fmt: skip


def _run_each(what: int, x: np.ndarray, y: np.ndarray, w: np.ndarray, windows: Windows) -> None:
    if x.size and y.size and w.size:
        images, channels = x.shape[:2]
        _run_by_channel(
            x.dtype, min(tasks_for(y.size), channels), address(x), address(y), address(w), what,
            images, channels, len(w) // channels, *windows.numbers(),
        )  # fmt: skip


def gather(x: np.ndarray, windows: Windows, columns: np.ndarray | None = None) -> np.ndarray:
    """Return the columns of contiguous x (N, C, H, W): (N, C * size of a window, windows).

    `columns` is where to put them; it may have any strides but for its last dimension, contiguous.
    """
    if columns is None:
        columns = memory.empty(_columns_shape(x, windows), x.dtype)
    given = {np.dtype(np.int64): np.float64, np.dtype(np.int32): np.float32}.get(x.dtype, x.dtype)
    _run(_run_gather, x.view(given), columns.view(given), windows)
    return columns


def scatter(columns: np.ndarray, windows: Windows, x: np.ndarray) -> np.ndarray:
    """Set contiguous x (N, C, H, W) to the sums of columns, and return it."""
    _run(_run_scatter, x, columns, windows)
    return x


def _columns_shape(x: np.ndarray, windows: Windows) -> tuple[int, int, int]:
    (u, v), (rows, cols) = windows.kernel, windows.out
    return len(x), x.shape[1] * u * v, rows * cols


def _computed(x: np.ndarray) -> np.ndarray:
    """Return x as it is computed: contiguous, halves in float32, all integers in int64."""
    return np.ascontiguousarray(x, np.int64) if x.dtype.kind in "iu" else contiguous(x)


class _Columns:
    """Memory for the columns of as many of the images x as are handled at a time."""

    def __init__(self, x: np.ndarray, windows: Windows, groups: int) -> None:
        self.windows, self.groups = windows, groups
        count, self.rows, self.places = _columns_shape(x, windows)
        step = max(min(_CHUNK // max(self.rows * self.places, 1), count), 1)
        self.parts = [slice(i, i + step) for i in range(0, count, step)]
        self._memory: Any = None
        if not windows.trivial:
            self._memory = memory.empty((self.rows, step, self.places), x.dtype)

    def of(self, x: np.ndarray) -> np.ndarray:
        """Return memory for the columns of a part: (images, rows, places)."""
        if self._memory is None:
            return x.reshape(len(x), self.rows, self.places)
        whole: np.ndarray = self._memory
        if len(x) < whole.shape[1]:  # the last part
            whole = whole.reshape(-1)[: self.rows * len(x) * self.places]
        return whole.reshape(self.rows, len(x), self.places).swapaxes(0, 1)

    def by_group(self, columns: np.ndarray) -> np.ndarray:
        """Return columns, or an output, with the groups apart: (images, groups, ..., places)."""
        n, rows, places = columns.shape
        return columns.reshape(n, self.groups, rows // self.groups, places)


def convolve(
    x: np.ndarray, w: np.ndarray, b: np.ndarray | None, windows: Windows, groups: int
) -> np.ndarray:
    """Return the convolution: (N, C, H, W), (F, C / groups, U, V), (F) -> (N, F, rows, cols)."""
    dtype = x.dtype
    x, w = _computed(x), _computed(w)
    y = memory.empty((len(x), len(w), *windows.out), x.dtype)
    if b is not None:
        y[...] = b[:, None, None]
    if 1 < groups == x.shape[1] and x.dtype.kind == "f":
        if b is None:
            y.fill(0)
        _run_each(_FORWARD, x, y, w, windows)
        return y.astype(dtype, copy=False)
    columns = _Columns(x, windows, groups)
    matrices = w.reshape(groups, len(w) // groups, columns.rows // groups)
    for part in columns.parts:
        made = columns.of(x[part])
        if not windows.trivial:
            gather(x[part], windows, made)
        out = y[part].reshape(len(made), groups, len(w) // groups, columns.places)
        matmul(matrices, columns.by_group(made), out, accumulate=b is not None)
    return y.astype(dtype, copy=False)


def convolve_backward(
    dy: np.ndarray,
    x: np.ndarray | None,
    w: np.ndarray | None,
    windows: Windows,
    groups: int,
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return dx and dw, of these shapes, for dy (N, F, windows).

    dx is None without w, dw without x.
    """
    dtype = dy.dtype
    dy = contiguous(dy)
    by_channel = 1 < groups == shapes[0][1]
    make = memory.zeros if by_channel else memory.empty
    dx = None if w is None else make(shapes[0], dy.dtype)
    dw = None if x is None else memory.zeros(shapes[1], dy.dtype)
    like = contiguous(x) if x is not None else dx
    assert like is not None
    if by_channel:
        if dw is not None:
            _run_each(_OF_WEIGHT, like, dy, dw, windows)
        if dx is not None and w is not None:
            _run_each(_OF_IMAGE, dx, dy, contiguous(w), windows)
        return tuple(None if g is None else g.astype(dtype, copy=False) for g in (dx, dw))  # type: ignore[return-value]
    columns = _Columns(like, windows, groups)
    rows, features = columns.rows // groups, shapes[1][0] // groups
    matrices = None
    if w is not None:
        matrices = contiguous(w).reshape(groups, features, rows).swapaxes(1, 2)
    for part in columns.parts:
        if dw is not None:
            made = columns.of(like[part])
            if not windows.trivial:
                gather(like[part], windows, made)
            # The places of all images side by side: a copy unless there is one image.
            count = len(made) * columns.places
            left = dy[part].swapaxes(0, 1).reshape(groups, features, count)
            right = made.swapaxes(0, 1).reshape(groups, rows, count).swapaxes(1, 2)
            matmul(left, right, dw.reshape(groups, features, rows), accumulate=True)
        if dx is not None:
            made = columns.of(dx[part])
            matmul(matrices, columns.by_group(dy[part]), columns.by_group(made))  # type: ignore[arg-type]
            if not windows.trivial:
                scatter(made, windows, dx[part])
    return tuple(None if g is None else g.astype(dtype, copy=False) for g in (dx, dw))  # type: ignore[return-value]
