"""Packing: copies of blocks of A and B in the order in which the microkernel reads them.

`copy(exemplar, to, to_row, source, source_row, rows, cols)` copies (rows, cols) elements as they
are; rows are contiguous on both sides. `pack_across` and `pack_along` do the same but round to the
units of `kernels.formats`, the former where k is the row, the latter where k runs along rows, and
`pack_transposed` makes rows of columns in registers. A last unit that is not full is filled up with
0. `column_sums` adds up the rows of a block while it is in cache. All are Numba intrinsics over
addresses and strides in bytes; see `kernels.simd`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from .formats import (
    Format,
    emit_bfloat16,
    emit_pairs,
    emit_units,
    format_of,
    plain_format_of,
)
from .jit import cgutils, intrinsic, overload, types
from .parallel import array_at
from .simd import (
    I64,
    MR,
    VECTOR_BYTES,
    element_type,
    emit_broadcast,
    emit_call,
    emit_load,
    emit_store,
    integer,
    itemsize_of,
    lanes_of,
    load,
    store,
)

# mypy: allow-untyped-calls


def _copier(form_of: Callable[[Any], Format], across: bool) -> Any:
    """Return the intrinsic that copies rows of elements to rows of units of a format.

    A unit is made of neighbours in a row, or with `across` in a column.
    """

    @intrinsic
    def copier(
        context: Any, exemplar: Any, to: Any, to_row: Any, source: Any, source_row: Any, rows: Any,
        cols: Any,
    ) -> Any:  # fmt: skip
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            form = form_of(signature.args[0])
            emit_call(builder, args[1:], _copy, form, form.depth if across else 1)
            return context.get_dummy_value()

        return types.void(exemplar, *[types.int64] * 6), generate

    return copier


copy = _copier(plain_format_of, across=False)
pack_along = _copier(format_of, across=False)
pack_across = _copier(format_of, across=True)


def _copy(
    form: Format, across: int, builder: Any, to: Any, to_row: Any, source: Any, source_row: Any,
    rows: Any, cols: Any,
) -> None:  # fmt: skip
    """Copy rows of elements to rows of units, each made of `across` rows or of neighbours."""
    size = VECTOR_BYTES // lanes_of(form.element)
    to_size = size // (form.depth // across)
    zero, one = integer(0), integer(1)
    units = builder.sdiv(builder.add(rows, integer(across - 1)), integer(across))

    def by(width: int) -> None:
        """Emit copies of `width` elements; the last one of a row overlaps the one before it."""
        vector = ir.VectorType(form.element, width)
        last = builder.sub(cols, integer(width))
        with cgutils.for_range(builder, units, intp=I64) as loop:
            row = builder.mul(loop.index, integer(across))
            start = builder.add(source, builder.mul(row, source_row))
            target = builder.add(to, builder.mul(loop.index, to_row))
            if across > 1:
                full = builder.icmp_signed("<", builder.add(row, one), rows)
                second = builder.select(full, builder.add(start, source_row), start)
                mask = builder.sext(full, ir.IntType(32))
                mask = emit_broadcast(builder, mask, width)

            def copied(col: Any) -> None:
                at = builder.mul(col, integer(size))
                value = emit_load(builder, vector, builder.add(start, at))
                if across > 1:
                    next_value = emit_load(builder, vector, builder.add(second, at))
                    value = emit_pairs(builder, value, next_value, mask)
                elif form.depth > 1:
                    value = emit_bfloat16(builder, value)
                place = builder.mul(col, integer(to_size))
                emit_store(builder, value, builder.add(target, place))

            with cgutils.for_range_slice(builder, zero, last, integer(width), I64) as (col, _):
                copied(col)
            copied(last)
            if to_size < size:
                end = builder.add(target, builder.mul(cols, integer(to_size)))
                emit_store(builder, ir.IntType(8 * to_size)(0), end)

    def choose(width: int) -> None:
        if width == 1:
            by(1)
            return
        with builder.if_else(builder.icmp_signed(">=", cols, integer(width))) as (then, other):
            with then:
                by(width)
            with other:
                choose(width // 2)

    choose(lanes_of(form.element))


@intrinsic
def pack_elements(context: Any, exemplar: Any, to: Any, first: Any, second: Any) -> Any:
    """Write one unit of the elements at two addresses; 0 for `second` means there is none."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        form = format_of(signature.args[0])
        _, to, first, second = args
        one = ir.VectorType(form.element, 1)
        value = emit_load(builder, one, first)
        if form.depth > 1:
            full = builder.icmp_signed("!=", second, integer(0))
            next_value = emit_load(builder, one, builder.select(full, second, first))
            mask = emit_broadcast(builder, builder.sext(full, ir.IntType(32)), 1)
            value = emit_pairs(builder, value, next_value, mask)
        emit_store(builder, value, to)
        return context.get_dummy_value()

    return types.void(exemplar, *[types.int64] * 3), generate


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """Transpose a square block in registers by swapping ever larger off-diagonal blocks."""
    count = len(rows)
    step = 1
    while step < count:
        low, high = [], []
        for lane in range(count):
            if lane & step:
                low.append(lane - step + count)
                high.append(lane + count)
            else:
                low.append(lane)
                high.append(lane + step)
        masks = [ir.Constant(ir.VectorType(ir.IntType(32), count), picks) for picks in (low, high)]
        new = list(rows)
        for i in range(count):
            if not i & step:
                for place, mask in ((i, masks[0]), (i + step, masks[1])):
                    new[place] = builder.shuffle_vector(rows[i], rows[i + step], mask)
        rows = new
        step *= 2
    return rows


@intrinsic
def pack_transposed(
    context: Any, exemplar: Any, to: Any, to_row: Any, source: Any, source_col: Any, rows: Any,
    cols: Any,
) -> Any:  # fmt: skip
    """Pack (rows, cols) elements, whose columns are contiguous, to rows of units; k is the row.

    There are whole units, at least as many as a vector has lanes. Every row is written up to a
    multiple of the lanes, with arbitrary values past `cols`.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit_call(builder, args[1:], _pack_transposed, format_of(signature.args[0]))
        return context.get_dummy_value()

    return types.void(exemplar, *[types.int64] * 6), generate


def _pack_transposed(
    form: Format, builder: Any, to: Any, to_row: Any, source: Any, source_col: Any, rows: Any,
    cols: Any,
) -> None:  # fmt: skip
    lanes = lanes_of(form.element)
    size = VECTOR_BYTES // lanes

    def smaller(x: Any, y: Any) -> Any:
        return builder.select(builder.icmp_signed("<", x, y), x, y)

    units = builder.sdiv(rows, integer(form.depth))
    last_unit = builder.sub(units, integer(lanes))
    last_col = builder.sub(cols, integer(1))
    zero, step = integer(0), integer(lanes)
    with (
        cgutils.for_range_slice(builder, zero, cols, step, I64) as (col, _),
        cgutils.for_range_slice(builder, zero, units, step, I64) as (some_unit, _),
    ):
        unit = smaller(some_unit, last_unit)
        start = builder.add(source, builder.mul(unit, integer(size * form.depth)))
        block = []
        for lane in range(lanes):
            at = smaller(builder.add(col, integer(lane)), last_col)
            here = builder.add(start, builder.mul(at, source_col))
            block.append(emit_units(builder, form, here))
        target = builder.add(to, builder.mul(unit, to_row))
        target = builder.add(target, builder.mul(col, integer(size)))
        for lane, value in enumerate(_transposed(builder, block)):
            emit_store(builder, value, builder.add(target, builder.mul(integer(lane), to_row)))


def transpose(
    exemplar: Any, to: int, to_row: int, source: int, source_row: int, rows: int, cols: int
) -> None:
    """Copy X^T of (rows, cols) elements X to rows of whole vectors, `to_row` apart.

    X has contiguous rows. The last vector of a row may be filled with arbitrary values.
    """
    x = array_at(exemplar, source, ((rows - 1) * source_row // exemplar.itemsize + cols,))
    y = array_at(exemplar, to, ((cols - 1) * to_row // exemplar.itemsize + rows,))
    for i in range(rows):
        for j in range(cols):
            y[j * to_row // y.itemsize + i] = x[i * source_row // x.itemsize + j]


@overload(transpose)
def _transpose(exemplar, to, to_row, source, source_row, rows, cols):  # type: ignore[no-untyped-def]
    def compiled(exemplar, to, to_row, source, source_row, rows, cols):  # type: ignore[no-untyped-def]
        size = itemsize_of(exemplar)
        if rows > 1 and cols * size >= VECTOR_BYTES:
            pack_transposed(exemplar, to, to_row, source, source_row, cols, rows)
        else:
            for i in range(rows):
                for j in range(cols):
                    element = load(exemplar, source + i * source_row + j * size)
                    store(exemplar, element, to + j * to_row + i * size)

    return compiled


@intrinsic
def column_sums(context: Any, exemplar: Any, rows: Any, source: Any, y: Any) -> Any:
    """y[j] = sum over r of source[r, j]: (rows, MR) -> (MR), contiguous.

    Reads and writes whole vectors.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit_call(builder, args[1:], _column_sums, element_type(signature.args[0]))
        return context.get_dummy_value()

    return types.void(exemplar, *[types.int64] * 3), generate


def _column_sums(element: Any, builder: Any, rows: Any, source: Any, y: Any) -> None:
    lanes = lanes_of(element)
    row = MR * (VECTOR_BYTES // lanes)
    vector = ir.VectorType(element, lanes)
    places = range(0, row, VECTOR_BYTES)
    zero = ir.Constant(vector, None)
    four = builder.mul(builder.sdiv(rows, integer(4)), integer(4 * row))
    end = builder.mul(rows, integer(row))
    sums = [[cgutils.alloca_once_value(builder, zero) for _ in places] for _ in range(4)]
    for start, stop, count in ((integer(0), four, 4), (four, end, 1)):
        step = integer(count * row)
        with cgutils.for_range_slice(builder, start, stop, step, I64) as (at, _):
            for r in range(count):  # four independent sums hide the latency of addition
                for place, slot in zip(places, sums[r], strict=True):
                    here = builder.add(source, builder.add(at, integer(r * row + place)))
                    x = emit_load(builder, vector, here)
                    builder.store(builder.fadd(builder.load(slot), x), slot)
    for number, place in enumerate(places):
        a, b, c, d = (builder.load(sums[r][number]) for r in range(4))
        total = builder.fadd(builder.fadd(a, b), builder.fadd(c, d))
        emit_store(builder, total, builder.add(y, integer(place)))
