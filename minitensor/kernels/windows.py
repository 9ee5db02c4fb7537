"""The windows of a convolution on images: their places, and the columns that they are.

    columns[(c, u, v), (i, j)] = x[c, row, col]
    row = i * stride + u * dilation - pad        col = j * stride + v * dilation - pad

with (i, j) a place of the output, (u, v) one in the window, and 0 outside of x. `split` copies x
with its padding, taken apart by the steps: rows i and i + stride of x become neighbours. Each row
of the columns then consists of rows of that copy as they are, at an offset that depends on
(c, u, v) alone. `gather` makes all columns, and `scatter` is its transpose, the sum of columns
where they are from; a channel is summed by one thread in the order of (u, v). Bound by memory.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np

from .. import memory
from .jit import jit
from .parallel import ParallelKernel, address, array_at, tasks_for, unpacked
from .simd import itemsize_of, load

Pair = tuple[int, ...]


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
        return _out(self)

    @property
    def reach(self) -> Pair:
        """The distance of the first and the last place of a window along each dimension."""
        (u, v), (down, right) = self.kernel, self.dilation
        return (u - 1) * down, (v - 1) * right

    def numbers(self) -> tuple[int, ...]:
        """Return the numbers that `scatter` takes."""
        (top, _), (left, _) = self.padding
        steps = (*self.stride, top, left, *self.dilation)
        return (*self.image, *self.kernel, *steps, *self.out)

    def turned(self) -> Windows:
        """Return the windows on dy that see a place of x from the other side; the stride is 1."""
        padding = tuple(
            (far - before, n - out + before)
            for far, n, out, (before, _) in zip(
                self.reach, self.image, self.out, self.padding, strict=True
            )
        )
        return Windows(self.out, self.kernel, (1, 1), padding, self.dilation)


@functools.lru_cache(256)
def _out(windows: Windows) -> Pair:
    rows, cols = (
        (n + a + b - d * (k - 1) - 1) // s + 1 for n, k, s, (a, b), d in zip(*windows, strict=True)
    )
    return rows, cols


class Layout(NamedTuple):
    """A channel of x as `split` takes it apart: (phases, phases, high, wide), `plane` elements.

    Element (a, b, r, q) is x[r * stride + a - pad, q * stride + b - pad]. `offsets`, in bytes, are
    where the rows of the columns begin, for all channels of a group. `is_columns` is True if the
    copy is the columns, `is_image` if it is x itself.
    """

    phase_rows: int
    phase_cols: int
    high: int
    wide: int
    plane: int
    offsets: np.ndarray
    is_columns: bool
    is_image: bool


@functools.lru_cache(256)
def layout_of(windows: Windows, channels: int, itemsize: int) -> Layout:
    """Return the layout of images for groups of so many channels."""
    (rows, cols), (down, across) = windows.out, windows.stride
    far, right = windows.reach
    phases = min(down, far + 1), min(across, right + 1)
    high, wide = rows + far // down, cols + right // across
    plane = math.prod(phases) * high * wide
    c, u, v = np.ogrid[:channels, : windows.kernel[0], : windows.kernel[1]]
    u, v = u * windows.dilation[0], v * windows.dilation[1]
    place = (u % down * phases[1] + v % across) * high * wide + u // down * wide + v // across
    offsets = ((c * plane + place) * itemsize).astype(np.int64).ravel()
    # Windows that do not overlap, without gaps: each has a phase of its own, in their order.
    is_columns = (high, wide) == windows.out and phases == windows.kernel
    is_image = windows.kernel == windows.stride == (1, 1) and not any(map(any, windows.padding))
    return Layout(*phases, high, wide, plane, offsets, is_columns, is_image)


def _split(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    """Copy one task's channels of x with their padding, taken apart by the steps."""
    s = unpacked(arguments)
    size = itemsize_of(exemplar)
    plane = s.phase_rows * s.phase_cols * s.high * s.wide
    step = s.stride_cols
    for unit in range(s.units * task // tasks, s.units * (task + 1) // tasks):
        x = s.x + unit * s.height * s.width * size
        shape = s.phase_rows, s.phase_cols, s.high, s.wide
        out = array_at(exemplar, s.out + unit * plane * size, shape)
        zero = out.dtype.type(0)
        for a in range(s.phase_rows):
            for b in range(s.phase_cols):
                left = b - s.left
                first = min(max(-(left // step), 0), s.wide)
                last = max(min((s.width - 1 - left) // step + 1, s.wide), first)
                for r in range(s.high):
                    row = r * s.stride_rows + a - s.top
                    to = out[a, b, r]
                    inside = 0 <= row < s.height
                    for q in range(first if inside else s.wide):
                        to[q] = zero
                    if not inside:
                        continue
                    for q in range(last, s.wide):
                        to[q] = zero
                    of = x + (row * s.width + left) * size
                    if step == 1:
                        for q in range(first, last):
                            to[q] = load(exemplar, of + q * size)
                    else:
                        for q in range(first, last):
                            to[q] = load(exemplar, of + q * step * size)


def _scatter(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    """Sum one task's channels of the columns where they are from."""
    s = unpacked(arguments)
    x = array_at(exemplar, s.x, (s.units, s.height, s.width))
    shape = s.units, s.kernel_rows * s.kernel_cols, s.rows * s.cols
    columns = array_at(exemplar, s.columns, shape)
    for unit in range(s.units * task // tasks, s.units * (task + 1) // tasks):
        scatter_channel(s, columns[unit], x[unit])


@jit
def scatter_channel(s, columns, x):  # type: ignore[no-untyped-def]
    """Sum the columns (U * V, windows) of one channel x (H, W) where they are from."""
    zero = x.dtype.type(0)
    for row in range(s.height):
        for j in range(s.width):
            x[row, j] = zero
    for u in range(s.kernel_rows):
        for v in range(s.kernel_cols):
            left = v * s.dilation_cols - s.left
            first = min(max(-(left // s.stride_cols), 0), s.cols)
            last = max(min((s.width - 1 - left) // s.stride_cols + 1, s.cols), first)
            for i in range(s.rows):
                row = i * s.stride_rows + u * s.dilation_rows - s.top
                if row < 0 or row >= s.height:
                    continue
                of = columns[u * s.kernel_cols + v, i * s.cols + first : i * s.cols + last]
                to = x[row, first * s.stride_cols + left :]
                if s.stride_cols == 1:
                    for j in range(of.size):
                        to[j] += of[j]
                else:
                    for j in range(of.size):
                        to[j * s.stride_cols] += of[j]


WINDOWS = """height width kernel_rows kernel_cols stride_rows stride_cols top left dilation_rows
    dilation_cols rows cols"""
_run_split = ParallelKernel(
    _split,
    "x out units height width stride_rows stride_cols top left phase_rows phase_cols high wide",
)
_run_scatter = ParallelKernel(_scatter, f"x columns units {WINDOWS}", fastmath=True)


def split(x: np.ndarray, windows: Windows, layout: Layout) -> np.ndarray:
    """Return contiguous x (N, C, H, W) taken apart, flat, with memory to read beyond its end."""
    units = len(x) * x.shape[1]
    out = memory.empty(units * layout.plane + 64, x.dtype)
    _run_split(
        x.dtype, tasks_for(out.size), address(x), address(out), units, *windows.image,
        *windows.stride, windows.padding[0][0], windows.padding[1][0], *layout[:4],
    )  # fmt: skip
    return out


def gather(x: np.ndarray, windows: Windows) -> np.ndarray:
    """Return the columns of x (N, C, H, W): (N, C * size of a window, windows)."""
    (down, right), (rows, cols) = windows.dilation, windows.out
    padded = np.pad(x, ((0, 0), (0, 0), *windows.padding)) if any(map(any, windows.padding)) else x
    n, c, h, w = padded.strides
    strides = n, c, h * down, w * right, h * windows.stride[0], w * windows.stride[1]
    shape = *x.shape[:2], *windows.kernel, rows, cols
    seen = np.lib.stride_tricks.as_strided(padded, shape, strides)
    return seen.reshape(len(x), x.shape[1] * math.prod(windows.kernel), rows * cols)


def scatter(columns: np.ndarray, windows: Windows, x: np.ndarray) -> np.ndarray:
    """Set contiguous x (N, C, H, W) to the sums of contiguous columns, and return it."""
    if columns.size or x.size:
        _run_scatter(
            x.dtype, tasks_for(columns.size), address(x), address(columns), len(x) * x.shape[1],
            *windows.numbers(),
        )  # fmt: skip
    return x
