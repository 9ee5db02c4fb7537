"""Convolution as matrix products of the weight with windows of the input, made block by block.

    y = w columns        dw = the sum over images of dy columnsᵀ        dx = scatter(wᵀ dy)

The columns (`kernels.windows`) are never there as a whole, which would take as many times the
memory of x as a window has places. `_multiply` copies a block of them, as large as the second-level
cache allows, and multiplies it at once; so does `_weight_gradient`. Where windows do not overlap,
the copy of x that the columns are made from is the columns. With one or two filters for each group
there is no product (`kernels.depthwise`). The gradient of the input is a convolution of dy with the
turned weight if the stride is 1, and otherwise the sum of the columns wᵀ dy where they are from,
some channels at a time.

Threads share the places of y, the rows of the columns, or the channels of dx, and never a sum: a
result is the same bits on any number of them. Bound by the multiply-add units with some tens of
filters, otherwise by copying the columns.
"""

from __future__ import annotations

import math

import numpy as np

from .. import memory
from .depthwise import PRODUCT, SHAPE, run_depthwise
from .gemm import KC, WORKSPACE_BYTES
from .jit import COMPILED, get_num_threads, jit
from .matmul import PARALLEL, WORKSPACE, gemm_address
from .pack import copy
from .parallel import (
    ParallelKernel,
    address,
    array_at,
    call_native,
    contiguous,
    integers_at,
    unpacked,
)
from .simd import itemsize_of
from .windows import WINDOWS, Windows, gather, layout_of, scatter, scatter_channel, split

_BLOCK = 480  # places of a block: KC rows of it take half of a second-level cache
_PITCH = (_BLOCK * 8 // 64 + 2) * 64  # at most so many bytes from one row of a block to the next
_DEPTHWISE = 2  # filters for each group up to which there is no product
_SCATTERED = 1 << 17  # elements of the columns that are scattered at a time


@jit
def _fill(s, exemplar, image, block, pitch, k, depth, i, high, j, wide):  # type: ignore[no-untyped-def]
    """Copy rows k to k + depth of the columns, at the places (high, wide) from (i, j) on."""
    size = itemsize_of(exemplar)
    offsets = integers_at(s.offsets, k + depth)
    first = image + (i * s.wide + j) * size
    if wide == s.wide:  # rows of the image are neighbours
        wide, high = wide * high, 1
    for row in range(depth):
        of = first + offsets[k + row]
        copy(exemplar, block + row * pitch, wide * size, of, s.wide * size, high, wide)


@jit
def _pitch(places, size):  # type: ignore[no-untyped-def]
    """Return the bytes between rows of a block: an odd number of lines, to use all cache sets."""
    return ((places * size + 63) // 64 | 1) * 64


def _multiply(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    """Compute one task's places of y, those of an image in blocks of (block_rows, block_cols)."""
    s = unpacked(arguments)
    size = itemsize_of(exemplar)
    places, depth = s.rows * s.cols, s.channels * s.taps
    down, across = -(-s.rows // s.block_rows), -(-s.cols // s.block_cols)
    workspace, block = s.workspace + task * WORKSPACE_BYTES, s.blocks + task * KC * _PITCH
    bias = array_at(exemplar, s.bias, (s.groups * s.filters,))
    units = s.images * down * across
    for unit in range(units * task // tasks, units * (task + 1) // tasks):
        n, i = unit // (down * across), unit // across % down * s.block_rows
        j = unit % across * s.block_cols
        high, wide = min(s.block_rows, s.rows - i), min(s.block_cols, s.cols - j)
        count, place = high * wide, i * s.cols + j
        pitch = _pitch(count, size)
        for g in range(s.groups):
            first = n * s.groups + g
            image = s.x + first * s.channels * s.plane * size
            y = s.y + (first * s.filters * places + place) * size
            w = s.w + g * s.filters * depth * size
            if s.bias != 0:
                for f in range(s.filters):
                    row = array_at(exemplar, y + f * places * size, (count,))
                    for p in range(count):
                        row[p] = bias[g * s.filters + f]
            at = 0
            while at < depth:
                here = depth - at
                b, b_row = image + place * size, places * size
                if s.is_columns == 0:
                    here = min(here, KC)
                    b, b_row = block, pitch
                    _fill(s, exemplar, image, block, pitch, at, here, i, high, j, wide)
                call_native(
                    s.gemm, exemplar,
                    (
                        s.filters, count, here, w + at * size, depth * size, size,
                        b, b_row, size, y, places * size, 0,
                        1 if at > 0 or s.bias != 0 else 0, workspace,
                    ),
                )  # fmt: skip
                at += here


def _weight_gradient(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    """Sum one task's columns of dw over all images, and its part of db."""
    s = unpacked(arguments)
    size = itemsize_of(exemplar)
    places, depth, all_filters = s.rows * s.cols, s.channels * s.taps, s.groups * s.filters
    workspace, block = s.workspace + task * WORKSPACE_BYTES, s.blocks + task * KC * _PITCH
    parts = -(-depth // s.part)
    units = s.groups * parts
    for unit in range(units * task // tasks, units * (task + 1) // tasks):
        g, at = unit // parts, unit % parts * s.part
        here = min(s.part, depth - at)
        dw = s.dw + (g * s.filters * depth + at) * size
        for n in range(s.images):
            first = n * s.groups + g
            image = s.x + first * s.channels * s.plane * size
            for i in range(0, s.rows, s.block_rows):
                for j in range(0, s.cols, s.block_cols):
                    high, wide = min(s.block_rows, s.rows - i), min(s.block_cols, s.cols - j)
                    count, place = high * wide, i * s.cols + j
                    row = places * size
                    b, pitch = image + at * row + place * size, row
                    if s.is_columns == 0:
                        b, pitch = block, _pitch(count, size)
                        _fill(s, exemplar, image, block, pitch, at, here, i, high, j, wide)
                    call_native(
                        s.gemm, exemplar,
                        (
                            s.filters, here, count,
                            s.dy + (first * s.filters * places + place) * size, places * size, size,
                            b, size, pitch, dw, depth * size, 0,
                            1 if n > 0 or place > 0 else 0, workspace,
                        ),
                    )  # fmt: skip
    if s.db == 0:
        return
    db = array_at(exemplar, s.db, (all_filters,))
    for f in range(all_filters * task // tasks, all_filters * (task + 1) // tasks):
        total = db.dtype.type(0)
        for n in range(s.images):
            dy = array_at(exemplar, s.dy + (n * all_filters + f) * places * size, (places,))
            for p in range(places):
                total += dy[p]
        db[f] = total


def _image_gradient(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    """Compute one task's channels of dx, `part` at a time: the columns wᵀ dy, and their sums."""
    s = unpacked(arguments)
    size = itemsize_of(exemplar)
    taps, places = s.kernel_rows * s.kernel_cols, s.rows * s.cols
    workspace = s.workspace + task * WORKSPACE_BYTES
    block = s.blocks + task * s.part * taps * places * size
    parts = -(-s.channels // s.part)
    units = s.images * s.groups * parts
    for unit in range(units * task // tasks, units * (task + 1) // tasks):
        first, c = unit // parts, unit % parts * s.part
        channels = min(s.part, s.channels - c)
        w = s.w + (first % s.groups * s.filters * s.channels + c) * taps * size
        call_native(
            s.gemm, exemplar,
            (
                channels * taps, places, s.filters, w, size, s.channels * taps * size,
                s.dy + first * s.filters * places * size, places * size, size,
                block, places * size, 0, 0, workspace,
            ),
        )  # fmt: skip
        for k in range(channels):
            at = s.dx + (first * s.channels + c + k) * s.height * s.width * size
            x = array_at(exemplar, at, (s.height, s.width))
            columns = array_at(exemplar, block + k * taps * places * size, (taps, places))
            scatter_channel(s, columns, x)


_run_multiply = ParallelKernel(_multiply, f"{PRODUCT} w bias y block_rows block_cols")
_run_weight_gradient = ParallelKernel(
    _weight_gradient, f"{PRODUCT} dy dw db block_rows block_cols part", fastmath=True
)
_run_image_gradient = ParallelKernel(
    _image_gradient, f"gemm workspace blocks part {SHAPE} w dy dx {WINDOWS}", fastmath=True
)


class _Product:
    """The copy of x (N, C, H, W), memory and numbers that products of a convolution share."""

    def __init__(
        self, x: np.ndarray, filters: int, windows: Windows, groups: int, work: int
    ) -> None:
        images, channels = len(x), x.shape[1] // groups
        layout = layout_of(windows, channels, x.itemsize)
        self.tasks = get_num_threads() if work >= PARALLEL else 1
        self.out, self.depth = windows.out, layout.offsets.size
        self.depthwise = filters <= _DEPTHWISE * groups
        keep = layout.is_image and not self.depthwise
        self.image = x if keep else split(x, windows, layout)
        workspace = WORKSPACE.of(self.tasks)
        narrow = min(self.depth, math.prod(windows.out))
        bytes_ = 0 if layout.is_columns else self.tasks * KC * _PITCH
        self.blocks = memory.empty(bytes_, np.uint8)
        self.arguments = (
            gemm_address(x.dtype, filters // groups, narrow), workspace,
            address(self.blocks), address(layout.offsets), images, groups, channels,
            filters // groups, math.prod(windows.kernel), *windows.out, layout.wide, layout.plane,
            layout.is_columns, address(self.image),
        )  # fmt: skip

    def block(self, parts: int) -> tuple[int, int]:
        """Return the height and width of the blocks of y: whole rows, or parts of one.

        So many that `parts` times their number can be shared evenly, unless they are small.
        """
        rows, cols = self.out
        count = -(-rows // max(_BLOCK // cols, 1)) * -(-cols // _BLOCK)
        if rows * cols > 64 * self.tasks:
            while count * parts % self.tasks:
                count += 1
        if rows >= count:
            return -(-rows // count), cols
        return 1, min(-(-cols * rows // (count * 32)) * 32, cols)


def convolve(
    x: np.ndarray, w: np.ndarray, b: np.ndarray | None, windows: Windows, groups: int
) -> np.ndarray:
    """Return the convolution: (N, C, H, W), (F, C / groups, U, V), (F) -> (N, F, rows, cols)."""
    dtype = x.dtype
    if not COMPILED or dtype.kind in "iu" or not x.size:
        places, depth = math.prod(windows.out), math.prod(w.shape[1:])
        columns = gather(x, windows).reshape(len(x), groups, depth, places)
        y = w.reshape(groups, len(w) // groups, depth) @ columns
        y = y.reshape(len(x), len(w), *windows.out)
        return (y if b is None else y + b[:, None, None]).astype(dtype, copy=False)
    x, w = contiguous(x), contiguous(w)
    y = memory.empty((len(x), len(w), *windows.out), x.dtype)
    product = _Product(x, len(w), windows, groups, y.size * math.prod(w.shape[1:]))
    if product.depthwise:
        bias = np.zeros(len(w), x.dtype) if b is None else contiguous(b)
        tasks = min(product.tasks, len(x) * groups)
        run_depthwise(x.dtype, tasks, *product.arguments, address(w), address(bias), address(y))
    else:
        b = None if b is None else contiguous(b)
        _run_multiply(
            x.dtype, product.tasks, *product.arguments, address(w),
            0 if b is None else address(b), address(y), *product.block(len(x)),
        )  # fmt: skip
    return y.astype(dtype, copy=False)


def convolve_backward(
    dy: np.ndarray,
    x: np.ndarray | None,
    w: np.ndarray | None,
    windows: Windows,
    groups: int,
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    needs_bias: bool,
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Return dx and dw, of these shapes, and db, for dy (N, F, windows).

    dx is None without w, dw without x, db unless it is asked for.
    """
    dtype, dy = dy.dtype, contiguous(dy)
    dx = None if w is None else _dx(dy, contiguous(w), windows, groups, shapes[0])
    dw = db = None
    if x is not None:
        dw = memory.empty(shapes[1], dy.dtype)
        db = np.empty(dy.shape[1], dy.dtype) if needs_bias else None
        _set_dw(dy, contiguous(x), windows, groups, dw, db)
    elif needs_bias:
        db = dy.sum(2).sum(0)
    return tuple(None if g is None else g.astype(dtype, copy=False) for g in (dx, dw, db))  # type: ignore[return-value]


def _set_dw(
    dy: np.ndarray, x: np.ndarray, windows: Windows, groups: int, dw: np.ndarray,
    db: np.ndarray | None,
) -> None:  # fmt: skip
    """Set the gradients of the weight and of the bias, if there is one."""
    filters = dy.shape[1]
    if not COMPILED or not x.size:
        depth = math.prod(dw.shape[1:])
        columns = gather(x, windows).reshape(len(x), groups, depth, dy.shape[2])
        split = dy.reshape(len(x), groups, filters // groups, dy.shape[2])
        dw[...] = (split @ columns.swapaxes(2, 3)).sum(0).reshape(dw.shape)
        if db is not None:
            db[...] = dy.sum(2).sum(0)
        return
    product = _Product(x, filters, windows, groups, dy.size * math.prod(dw.shape[1:]))
    parts = -(-product.depth // KC)
    while groups * parts % product.tasks:
        parts += 1
    _run_weight_gradient(
        x.dtype, product.tasks, *product.arguments, address(dy), address(dw),
        0 if db is None else address(db), *product.block(0), -(-product.depth // parts),
    )  # fmt: skip


def _dx(
    dy: np.ndarray, w: np.ndarray, windows: Windows, groups: int, shape: tuple[int, ...]
) -> np.ndarray:
    """Return the gradient of x, of this shape."""
    images, filters, places = dy.shape
    channels, split = shape[1] // groups, (groups, filters // groups, shape[1] // groups, -1)
    if not COMPILED or not dy.size:
        columns = w.reshape(*split[:2], -1).swapaxes(1, 2) @ dy.reshape(images, *split[:2], places)
        columns = columns.reshape(images, shape[1] * math.prod(w.shape[2:]), places)
        return scatter(columns, windows, memory.empty(shape, dy.dtype))
    if windows.stride == (1, 1):
        # By groups, the taps of each filter and channel from the last to the first.
        turned = w.reshape(split)[..., ::-1].swapaxes(1, 2)
        turned = np.ascontiguousarray(turned).reshape(shape[1], filters // groups, *w.shape[2:])
        image = dy.reshape(images, filters, *windows.out)
        return convolve(image, turned, None, windows.turned(), groups)
    taps = math.prod(w.shape[2:])
    part = max(min(_SCATTERED // (taps * places), channels), 1)
    dx = memory.empty(shape, dy.dtype)
    tasks = get_num_threads() if dy.size * channels * taps >= PARALLEL else 1
    blocks = memory.empty(tasks * part * taps * places, dy.dtype)
    _run_image_gradient(
        dy.dtype, tasks, gemm_address(dy.dtype, part * taps, places), WORKSPACE.of(tasks),
        address(blocks), part, images, groups, channels, filters // groups, address(w),
        address(dy), address(dx), *windows.numbers(),
    )  # fmt: skip
    return dx
