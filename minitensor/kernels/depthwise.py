"""A convolution with one or two filters for each group, as in depthwise convolutions.

    y[f] = bias[f] + sum over (c, u, v) of w[f, c, u, v] columns[(c, u, v)]

There is too little to do for a product. Rows of the columns are rows of a copy of the image
(`kernels.windows`), so a tile of y, 4 rows by 2 vectors, is summed in registers from vectors that
are read where they are. Threads share the groups of all images. Bound by reading the first-level
cache, once for each multiply-add.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from .gemm import NR_BYTES, WORKSPACE_BYTES
from .jit import intrinsic, jit, types
from .pack import copy
from .parallel import ParallelKernel, unpacked
from .simd import (
    I64,
    VECTOR_BYTES,
    element_type,
    emit_broadcast,
    emit_choice,
    emit_fma,
    emit_load,
    emit_loop,
    emit_store,
    integer,
    itemsize_of,
    lanes_of,
)

# mypy: allow-untyped-calls

SHAPE = "images groups channels filters"
PRODUCT = f"gemm workspace blocks offsets {SHAPE} taps rows cols wide plane is_columns x"


@intrinsic
def _weigh(
    context: Any, exemplar: Any, rows: Any, vectors: Any, k: Any, offsets: Any, x: Any, x_row: Any,
    w: Any, y: Any, y_row: Any, bias: Any,
) -> Any:  # fmt: skip
    """y[r] = bias + sum over k of w[k] (the row at x + r * x_row + offsets[k]).

    For `rows` rows r, 4 or 1, of `vectors` vectors, 2 or 1; all but the offsets are addresses.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        element = element_type(signature.args[0])
        choice = builder.add(builder.mul(args[1], integer(2)), args[2])
        cases = {
            2 * high + count: (_emit_weigh, element, high, count)
            for high in (1, 4)
            for count in (1, 2)
        }
        emit_choice(builder, choice, args[3:], cases)
        return context.get_dummy_value()

    return types.void(exemplar, *[types.int64] * 10), generate


def _emit_weigh(
    element: Any, rows: int, vectors: int, builder: Any, k: Any, offsets: Any, x: Any, x_row: Any,
    w: Any, y: Any, y_row: Any, bias: Any,
) -> None:  # fmt: skip
    lanes = lanes_of(element)
    vector = ir.VectorType(element, lanes)
    cells = [(r, v) for r in range(rows) for v in range(vectors)]

    def place(start: Any, row: Any, r: int, v: int) -> Any:
        start = builder.add(start, builder.mul(row, integer(r)))
        return builder.add(start, integer(v * VECTOR_BYTES))

    first = emit_broadcast(builder, emit_load(builder, element, bias), lanes)
    with emit_loop(builder, k, offsets, w, *[first] * len(cells)) as (carried, following):
        offset, at, *sums = carried
        start = builder.add(x, emit_load(builder, I64, offset))
        weight = emit_broadcast(builder, emit_load(builder, element, at), lanes)
        following += [
            builder.add(offset, integer(8)),
            builder.add(at, integer(VECTOR_BYTES // lanes)),
        ]
        for (r, v), total in zip(cells, sums, strict=True):
            value = emit_load(builder, vector, place(start, x_row, r, v))
            following.append(emit_fma(builder, value, weight, total))
    for (r, v), total in zip(cells, following[2:], strict=True):
        emit_store(builder, total, place(y, y_row, r, v))


@jit
def _weigh_rows(s, exemplar, rows, cols, x, x_row, w, y, y_row, bias, tile):  # type: ignore[no-untyped-def]
    """Compute rows of y, of at least a vector unless `tile` is used, which has room for 4."""
    size = itemsize_of(exemplar)
    lanes = VECTOR_BYTES // size
    depth = s.channels * s.taps
    i = 0
    while i < rows:
        high = 4 if rows - i >= 4 else 1
        j = 0
        while j < cols:
            vectors = 2 if cols - j >= 2 * lanes else 1
            at = max(min(j, cols - vectors * lanes), 0)  # the last may overlap the one before it
            to, to_row = y + i * y_row + at * size, y_row
            if cols < lanes:
                to, to_row = tile, VECTOR_BYTES
            of = x + i * x_row + at * size
            _weigh(exemplar, high, vectors, depth, s.offsets, of, x_row, w, to, to_row, bias)
            if cols < lanes:
                copy(exemplar, y + i * y_row, y_row, tile, VECTOR_BYTES, high, cols)
            j += vectors * lanes
        i += high


def _depthwise(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    """Compute one task's groups of images."""
    s = unpacked(arguments)
    size = itemsize_of(exemplar)
    places, depth = s.rows * s.cols, s.channels * s.taps
    units = s.images * s.groups
    for unit in range(units * task // tasks, units * (task + 1) // tasks):
        for f in range(s.filters):
            filter_ = unit % s.groups * s.filters + f
            x = s.x + unit * s.channels * s.plane * size
            y = s.y + (unit * s.filters + f) * places * size
            w, bias = s.w + filter_ * depth * size, s.bias + filter_ * size
            row, rows, cols, done = s.wide * size, s.rows, s.cols, 0
            tile = s.workspace + task * WORKSPACE_BYTES
            if rows == 1 and cols >= 4 * NR_BYTES // size:  # pieces of a row, as rows
                rows, cols = cols * size // NR_BYTES, NR_BYTES // size
                _weigh_rows(s, exemplar, rows, cols, x, NR_BYTES, w, y, NR_BYTES, bias, tile)
                # What is left overlaps the last piece, to be a vector at least.
                done = min(rows * cols, s.cols - NR_BYTES // size)
                rows, cols = 1, s.cols - done
            x, y = x + done * size, y + done * size
            _weigh_rows(s, exemplar, rows, cols, x, row, w, y, s.cols * size, bias, tile)


run_depthwise = ParallelKernel(_depthwise, f"{PRODUCT} w bias y")
