"""The microkernel of the matrix product, and two kernels of a matrix with a few vectors.

The microkernel multiplies MR rows of A by NR columns of B, two vectors' width, and holds that tile
of C in registers while k runs: a rank-1 update loads a row of B, broadcasts one element of each row
of A and issues MR x 2 fused multiply-adds. With bfloat16 an update has rank 2: elements come in
pairs, the units of `kernels.formats`. So many independent sums hide the latency of the
multiply-add, and the loop runs at the peak of the core. `dotxf` and `axpyf` read a matrix once, at
the speed of memory.

The names are those of BLIS: F. Van Zee, R. van de Geijn, "BLIS: A Framework for Rapidly
Instantiating BLAS Functionality", ACM Transactions on Mathematical Software 41(3), 2015.

All are Numba intrinsics over addresses and strides in bytes; see `kernels.simd`.
"""

from __future__ import annotations

import functools
from typing import Any

from llvmlite import ir

from .formats import Format, emit_multiply_add, format_of
from .jit import cgutils, intrinsic, types
from .simd import (
    I64,
    MR,
    VECTOR_BYTES,
    element_type,
    emit_broadcast,
    emit_call,
    emit_choice,
    emit_fma,
    emit_load,
    emit_loop,
    emit_prefetch,
    emit_store,
    integer,
    lanes_of,
)

# mypy: allow-untyped-calls

_LONG = 64  # units of k from which prefetching a tile of C pays
_AHEAD = 2048  # bytes of B that are asked for before they are needed


@intrinsic
def microkernel(
    context: Any, exemplar: Any, rows: Any, vectors: Any, k: Any, a: Any, a_row: Any, a_col: Any,
    b: Any, b_row: Any, c: Any, c_row: Any, addend: Any, addend_row: Any,
) -> Any:  # fmt: skip
    """C = A B, or A B + P if its address `addend` is not 0: (rows, k), (k, vectors * lanes).

    For at most MR rows and 2 vectors, and k of at least 1. A and B consist of units, which k
    counts. A has any strides; rows of B, C and P are contiguous, `b_row`, `c_row` and `addend_row`
    apart. P may be C, or one row for all with `addend_row` 0. Each element is one sum in order of
    k, whatever the size of the tile.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        form = format_of(signature.args[0])
        rows, vectors, *rest = args[1:]
        wide = builder.icmp_signed("==", vectors, integer(2))
        choice = builder.add(rows, builder.select(wide, integer(MR), integer(0)))
        cases = {
            height + MR * (count - 1): (_microkernel, form, height, count)
            for count in (1, 2)
            for height in range(1, MR + 1)
        }
        emit_choice(builder, choice, rest, cases)
        return context.get_dummy_value()

    return types.void(exemplar, *[types.int64] * 12), generate


def _microkernel(
    form: Format, rows: int, vectors: int, builder: Any, k: Any, a: Any, a_row: Any, a_col: Any,
    b: Any, b_row: Any, c: Any, c_row: Any, addend: Any, addend_row: Any,
) -> None:  # fmt: skip
    lanes = lanes_of(form.element)
    vector, units = ir.VectorType(form.element, lanes), ir.VectorType(form.unit, lanes)
    cells = [(r, v) for r in range(rows) for v in range(vectors)]
    row_offsets = [integer(0)]
    for _ in range(1, rows):
        row_offsets.append(builder.add(row_offsets[-1], a_row))

    def addresses_in(start: Any, stride: Any) -> list[Any]:
        starts = [builder.add(start, builder.mul(stride, integer(r))) for r in range(rows)]
        return [builder.add(starts[r], integer(v * VECTOR_BYTES)) for r, v in cells]

    targets = addresses_in(c, c_row)
    with builder.if_then(builder.icmp_signed(">", k, integer(_LONG))):
        for target in targets:  # C comes from far while the loop runs
            emit_prefetch(builder, target, write=True)
    zero = ir.Constant(vector, None)
    with emit_loop(builder, k, a, b, *[zero] * len(cells)) as ((at_a, at_b, *sums), following):
        b_value = [
            emit_load(builder, units, builder.add(at_b, integer(v * VECTOR_BYTES)))
            for v in range(vectors)
        ]
        for v in range(vectors):  # where a weight comes from far (`kernels.panels`)
            emit_prefetch(builder, builder.add(at_b, integer(_AHEAD + v * VECTOR_BYTES)))
        a_value = [
            emit_broadcast(builder, emit_load(builder, form.unit, builder.add(at_a, offset)), lanes)
            for offset in row_offsets
        ]
        totals = [
            emit_multiply_add(builder, form, a_value[r], b_value[v], x)
            for (r, v), x in zip(cells, sums, strict=True)
        ]
        following += [builder.add(at_a, a_col), builder.add(at_b, b_row), *totals]

    with builder.if_else(builder.icmp_signed("!=", addend, integer(0))) as (adding, storing):
        with adding:  # all loads, then all stores: a load may not overtake a store before it
            sources = addresses_in(addend, addend_row)
            added = [
                builder.fadd(emit_load(builder, vector, source), total)
                for source, total in zip(sources, totals, strict=True)
            ]
            for target, total in zip(targets, added, strict=True):
                emit_store(builder, total, target)
        with storing:
            for target, total in zip(targets, totals, strict=True):
                emit_store(builder, total, target)


# Level 1f: several rows at a time with one vector


@intrinsic
def dotxf(
    context: Any, exemplar: Any, cols: Any, rows: Any, k: Any, b: Any, b_col: Any, x: Any,
    x_row: Any, y: Any, y_row: Any, add: Any,
) -> Any:  # fmt: skip
    """y[i, j] = sum over k of x[i, k] b[k, j], or y[i, j] += with `add`.

    For `rows` rows i, 1, 2 or 4, and `cols` columns j, 1 or 4. The columns of B and the rows of x
    and y are contiguous. Each element is the same sum, whatever the number of rows and columns.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        element = element_type(signature.args[0])
        cols, rows, *rest = args[1:]
        cases = {
            8 * wide + high: (_dotxf, element, wide, high) for wide in (1, 4) for high in (1, 2, 4)
        }
        emit_choice(builder, builder.add(builder.mul(cols, integer(8)), rows), rest, cases)
        return context.get_dummy_value()

    return types.void(exemplar, *[types.int64] * 10), generate


def _dotxf(
    element: Any, cols: int, rows: int, builder: Any, k: Any, b: Any, b_col: Any, x: Any,
    x_row: Any, y: Any, y_row: Any, add: Any,
) -> None:  # fmt: skip
    lanes = lanes_of(element)
    size = VECTOR_BYTES // lanes
    vector = ir.VectorType(element, lanes)
    row_kind = ir.VectorType(element, cols)
    x_rows = [builder.add(x, builder.mul(x_row, integer(i))) for i in range(rows)]
    b_cols = [builder.add(b, builder.mul(b_col, integer(j))) for j in range(cols)]
    zero = ir.Constant(vector, None)
    slots = [[cgutils.alloca_once_value(builder, zero) for _ in b_cols] for _ in x_rows]
    start, step, end = integer(0), integer(VECTOR_BYTES), builder.mul(k, integer(size))
    whole = builder.mul(builder.sdiv(k, integer(lanes)), step)
    following = builder.mul(b_col, integer(cols))

    with cgutils.for_range_slice(builder, start, whole, step, I64) as (at, _):
        if cols > 1:  # the next columns, as they come from far
            for col in b_cols:
                emit_prefetch(builder, builder.add(builder.add(col, following), at))
        x_values = [emit_load(builder, vector, builder.add(row, at)) for row in x_rows]
        for j, col in enumerate(b_cols):
            b_value = emit_load(builder, vector, builder.add(col, at))
            for x_value, row_slots in zip(x_values, slots, strict=True):
                total = emit_fma(builder, b_value, x_value, builder.load(row_slots[j]))
                builder.store(total, row_slots[j])
    sums = []
    for row_slots in slots:
        total = _emit_sums(builder, [builder.load(slot) for slot in row_slots])
        sums.append(cgutils.alloca_once_value(builder, total))
        builder.store(total, sums[-1])
    with cgutils.for_range_slice(builder, whole, end, integer(size), I64) as (at, _):
        b_values = ir.Constant(row_kind, ir.Undefined)
        for j, col in enumerate(b_cols):
            b_value = emit_load(builder, element, builder.add(col, at))
            b_values = builder.insert_element(b_values, b_value, ir.IntType(32)(j))
        for row, total in zip(x_rows, sums, strict=True):
            x_value = emit_load(builder, element, builder.add(row, at))
            x_values = emit_broadcast(builder, x_value, cols)
            builder.store(emit_fma(builder, b_values, x_values, builder.load(total)), total)
    for i, total in enumerate(sums):
        target = builder.add(y, builder.mul(y_row, integer(i)))
        with builder.if_then(builder.icmp_signed("!=", add, integer(0))):
            before = emit_load(builder, row_kind, target)
            builder.store(builder.fadd(before, builder.load(total)), total)
        emit_store(builder, builder.load(total), target)


def _emit_sums(builder: Any, vectors: list[Any]) -> Any:
    """Emit the sums of the elements of each vector, as one vector.

    Each halves again and again, lower half plus upper half; several do so side by side in one.
    """
    width = vectors[0].type.count  # of a part, the elements left of one of the vectors
    while width > 1 or len(vectors) > 1:
        several = len(vectors) > 1
        pairs = list(zip(vectors[::2], vectors[1::2], strict=True)) if several else [vectors * 2]
        parts = (1 + several) * vectors[0].type.count // width
        halves = [0, width // 2] if width > 1 else [0]
        kind = ir.VectorType(ir.IntType(32), parts * max(width // 2, 1))
        picks = [
            ir.Constant(
                kind,
                [
                    part * width + half + i
                    for part in range(parts)
                    for i in range(max(width // 2, 1))
                ],
            )
            for half in halves
        ]
        vectors = [
            functools.reduce(builder.fadd, [builder.shuffle_vector(*pair, p) for p in picks])
            for pair in pairs
        ]
        width = max(width // 2, 1)
    return vectors[0]


@intrinsic
def axpyf(
    context: Any, exemplar: Any, count: Any, n: Any, x: Any, x_step: Any, b: Any, b_row: Any,
    y: Any, add: Any,
) -> Any:  # fmt: skip
    """y[j] = sum over r of x[r] b[r, j], or y[j] += with `add`, for `count` rows r, 8 or 1.

    The rows of B and y are contiguous.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        element = element_type(signature.args[0])
        eight = builder.icmp_signed("==", args[1], integer(8))
        with builder.if_else(eight) as branches:
            for rows, branch in zip((8, 1), branches, strict=True):
                with branch:
                    emit_call(builder, args[2:], _axpyf, element, rows)
        return context.get_dummy_value()

    return types.void(exemplar, *[types.int64] * 8), generate


def _axpyf(
    element: Any, rows: int, builder: Any, n: Any, x: Any, x_step: Any, b: Any, b_row: Any,
    y: Any, add: Any,
) -> None:  # fmt: skip
    lanes = lanes_of(element)
    size = VECTOR_BYTES // lanes
    row_offsets = [builder.mul(b_row, integer(r)) for r in range(rows)]
    factors = [
        emit_load(builder, element, builder.add(x, builder.mul(x_step, integer(r))))
        for r in range(rows)
    ]
    adding = builder.icmp_signed("!=", add, integer(0))
    end = builder.mul(n, integer(size))
    whole = builder.mul(builder.sdiv(n, integer(lanes)), integer(VECTOR_BYTES))
    for kind, start, stop, step in (
        (ir.VectorType(element, lanes), integer(0), whole, VECTOR_BYTES),
        (element, whole, end, size),
    ):
        spread_factors = (
            factors if kind is element else [emit_broadcast(builder, f, lanes) for f in factors]
        )
        with cgutils.for_range_slice(builder, start, stop, integer(step), I64) as (at, _):
            total = ir.Constant(kind, None if kind is not element else 0.0)
            for r in range(rows):
                b_value = emit_load(builder, kind, builder.add(builder.add(b, row_offsets[r]), at))
                total = emit_fma(builder, b_value, spread_factors[r], total)
            target = builder.add(y, at)
            slot = cgutils.alloca_once_value(builder, total)
            builder.store(total, slot)
            with builder.if_then(adding):
                builder.store(builder.fadd(emit_load(builder, kind, target), total), slot)
            emit_store(builder, builder.load(slot), target)
