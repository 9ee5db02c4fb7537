"""Vector code that LLVM does not find by itself, written out for the matrix product.

Building blocks that a jitted kernel calls like functions (Numba intrinsics). Addresses and strides are
integers, in bytes; the first argument is any array or pointer, for its element type alone.

- `tile` is where all the time goes: it multiplies a few rows of A by one or two vectors' width of B and
  holds that tile of C in registers while k runs. A step of k loads the row of B, then multiplies it by
  one element of each row of A. With ROWS x 2 sums in flight the multiply-add units never wait for each
  other, so the loop runs at the peak of the core.
- `copy` and `copy_transposed` lay out what `tile` reads, so that it finds it in order.

The vector width and the height of a tile follow the processor: 64 bytes and 32 registers with AVX-512, 32
and 16 with AVX2, else 16 bytes. MINITENSOR_SIMD=avx512, avx2 or sse chooses by hand.
"""

from __future__ import annotations

import os
import platform
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_SHAPES = {"avx512": (64, 12), "avx2": (32, 6), "sse": (16, 6), "neon": (16, 12)}


def _choose() -> str:
    """The widest vectors this processor has, or those asked for."""
    if chosen := os.environ.get("MINITENSOR_SIMD"):
        if chosen not in _SHAPES:
            raise ValueError(f"MINITENSOR_SIMD={chosen}: choose one of {', '.join(_SHAPES)}")
        return chosen
    if platform.machine().lower() in ("arm64", "aarch64"):
        return "neon"
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return "avx512"
    return "avx2" if features.get("avx2") and features.get("fma") else "sse"


SIMD = _choose()
VECTOR_BYTES, ROWS = _SHAPES[SIMD]  # ROWS: the most rows of C in one tile

_I64 = ir.IntType(64)


def _element(like: Any) -> Any:
    return {types.float32: ir.FloatType(), types.float64: ir.DoubleType()}[like.dtype]


def _lanes(element: Any) -> int:
    return VECTOR_BYTES // (4 if isinstance(element, ir.FloatType) else 8)


def _load(builder: Any, kind: Any, address: Any) -> Any:
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=1)


def _store(builder: Any, value: Any, address: Any) -> None:
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=1)


def _number(value: int) -> Any:
    return ir.Constant(_I64, value)


def _splat(builder: Any, value: Any, lanes: int) -> Any:
    vector = ir.VectorType(value.type, lanes)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.IntType(32)(0))
    return builder.shuffle_vector(
        one,
        ir.Constant(vector, ir.Undefined),
        ir.Constant(ir.VectorType(ir.IntType(32), lanes), None),
    )


# The tile


def _tile_function(module: Any, element: Any, rows: int, vectors: int) -> Any:
    """A function for tiles of `rows` rows and `vectors` vectors."""
    name = f"minitensor_tile_{element}_{rows}_{vectors}"
    if name in module.globals:
        return module.globals[name]
    lanes = _lanes(element)
    vector = ir.VectorType(element, lanes)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [_I64] * 9), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    k, a, a_row, a_col, b, b_row, c, c_row, add = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    fma = cgutils.get_or_insert_function(
        module,
        ir.FunctionType(vector, [vector] * 3),
        f"llvm.fmuladd.v{lanes}f{32 if isinstance(element, ir.FloatType) else 64}",
    )
    loop, done = function.append_basic_block("loop"), function.append_basic_block("done")
    entry = builder.block
    starts = [a]
    for _ in range(1, rows):
        starts.append(builder.add(starts[-1], a_row))
    offsets = [builder.sub(s, a) for s in starts]
    builder.cbranch(builder.icmp_signed(">", k, _number(0)), loop, done)

    builder.position_at_end(loop)
    left = builder.phi(_I64)
    here_a, here_b = builder.phi(_I64), builder.phi(_I64)
    sums = [[builder.phi(vector) for _ in range(vectors)] for _ in range(rows)]
    row_b = [
        _load(builder, vector, builder.add(here_b, _number(v * VECTOR_BYTES)))
        for v in range(vectors)
    ]
    new = []
    for r in range(rows):
        x = _splat(builder, _load(builder, element, builder.add(here_a, offsets[r])), lanes)
        new.append([builder.call(fma, [x, row_b[v], sums[r][v]]) for v in range(vectors)])
    next_left = builder.sub(left, _number(1))
    next_a, next_b = builder.add(here_a, a_col), builder.add(here_b, b_row)
    builder.cbranch(builder.icmp_signed(">", next_left, _number(0)), loop, done)
    for phi, first, following in (
        (left, k, next_left),
        (here_a, a, next_a),
        (here_b, b, next_b),
        *(
            (sums[r][v], ir.Constant(vector, None), new[r][v])
            for r in range(rows)
            for v in range(vectors)
        ),
    ):
        phi.add_incoming(first, entry)
        phi.add_incoming(following, loop)

    builder.position_at_end(done)
    totals = []
    for r in range(rows):
        totals.append([])
        for v in range(vectors):
            total = builder.phi(vector)
            total.add_incoming(ir.Constant(vector, None), entry)
            total.add_incoming(new[r][v], loop)
            totals[-1].append(total)
    adding, storing = function.append_basic_block("adding"), function.append_basic_block("storing")
    builder.cbranch(builder.icmp_signed("!=", add, _number(0)), adding, storing)
    for block in (adding, storing):
        builder.position_at_end(block)
        place = c
        for r in range(rows):
            for v in range(vectors):
                at = builder.add(place, _number(v * VECTOR_BYTES))
                value = totals[r][v]
                if block is adding:
                    value = builder.fadd(_load(builder, vector, at), value)
                _store(builder, value, at)
            place = builder.add(place, c_row)
        builder.ret_void()
    return function


@intrinsic
def tile(
    context: Any,
    like: Any,
    rows: Any,
    vectors: Any,
    k: Any,
    a: Any,
    a_row: Any,
    a_col: Any,
    b: Any,
    b_row: Any,
    c: Any,
    c_row: Any,
    add: Any,
) -> Any:
    """C = A B, or C += A B if `add`: (rows, k) by (k, vectors * lanes), rows at most ROWS, vectors 1 or 2.

    A has any strides; rows of B and C are contiguous, `b_row` and `c_row` apart. Each element is one sum
    in order of k, whatever the tile around it.
    """
    signature = types.void(like, *[types.int64] * 11)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        element = _element(signature.args[0])
        rows, vectors, *rest = args[1:]
        end = builder.append_basic_block("end")
        never = builder.append_basic_block("never")
        wide = builder.icmp_signed("==", vectors, _number(2))
        choice = builder.add(rows, builder.select(wide, _number(ROWS), _number(0)))
        switch = builder.switch(choice, never)
        for count in (1, 2):
            for height in range(1, ROWS + 1):
                case = builder.append_basic_block("case")
                switch.add_case(_number(height + ROWS * (count - 1)), case)
                with builder.goto_block(case):
                    builder.call(_tile_function(builder.module, element, height, count), rest)
                    builder.branch(end)
        builder.position_at_end(never)
        builder.unreachable()
        builder.position_at_end(end)
        return context.get_dummy_value()

    return signature, generate


# Layout


@intrinsic
def copy(
    context: Any,
    like: Any,
    to: Any,
    to_row: Any,
    source: Any,
    source_row: Any,
    rows: Any,
    cols: Any,
) -> Any:
    """Copy (rows, cols) elements, contiguous along cols on both sides."""
    signature = types.void(like, *[types.int64] * 6)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        element = _element(signature.args[0])
        to, to_row, source, source_row, rows, cols = args[1:]
        size = VECTOR_BYTES // _lanes(element)

        def by(width: int) -> None:
            """Copy in steps of `width`; the last step overlaps the one before it."""
            vector = ir.VectorType(element, width)
            last = builder.mul(builder.sub(cols, _number(width)), _number(size))
            with cgutils.for_range(builder, rows, intp=_I64) as loop:
                start = builder.add(source, builder.mul(loop.index, source_row))
                target = builder.add(to, builder.mul(loop.index, to_row))
                with cgutils.for_range_slice(
                    builder, _number(0), last, _number(width * size), _I64
                ) as (at, _):
                    _store(
                        builder,
                        _load(builder, vector, builder.add(start, at)),
                        builder.add(target, at),
                    )
                _store(
                    builder,
                    _load(builder, vector, builder.add(start, last)),
                    builder.add(target, last),
                )

        def choose(width: int) -> None:
            if width == 1:
                by(1)
                return
            with builder.if_else(builder.icmp_signed(">=", cols, _number(width))) as (then, other):
                with then:
                    by(width)
                with other:
                    choose(width // 2)

        choose(_lanes(element))
        return context.get_dummy_value()

    return signature, generate


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """The transpose of a square block of registers: swap ever larger off-diagonal blocks."""
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
def copy_transposed(
    context: Any,
    like: Any,
    to: Any,
    to_row: Any,
    source: Any,
    source_col: Any,
    rows: Any,
    cols: Any,
) -> Any:
    """Copy (rows, cols) elements that lie contiguous along rows to a place contiguous along cols.

    Takes at least as many rows as a vector has lanes, and writes up to a multiple of the lanes in every
    row (any values).
    """
    signature = types.void(like, *[types.int64] * 6)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        element = _element(signature.args[0])
        lanes = _lanes(element)
        size = VECTOR_BYTES // lanes
        vector = ir.VectorType(element, lanes)
        to, to_row, source, source_col, rows, cols = args[1:]

        def smaller(x: Any, y: Any) -> Any:
            return builder.select(builder.icmp_signed("<", x, y), x, y)

        last_row = builder.sub(rows, _number(lanes))
        last_col = builder.sub(cols, _number(1))
        step = _number(lanes)
        with cgutils.for_range_slice(builder, _number(0), cols, step, _I64) as (col, _):
            with cgutils.for_range_slice(builder, _number(0), rows, step, _I64) as (some_row, _):
                row = smaller(some_row, last_row)
                start = builder.add(source, builder.mul(row, _number(size)))
                block = []
                for lane in range(lanes):
                    at = smaller(builder.add(col, _number(lane)), last_col)
                    block.append(
                        _load(builder, vector, builder.add(start, builder.mul(at, source_col)))
                    )
                target = builder.add(
                    builder.add(to, builder.mul(row, to_row)), builder.mul(col, _number(size))
                )
                for lane, value in enumerate(_transposed(builder, block)):
                    _store(builder, value, builder.add(target, builder.mul(_number(lane), to_row)))
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def size_of(context: Any, like: Any) -> Any:
    """Bytes per element."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _number(VECTOR_BYTES // _lanes(_element(signature.args[0])))

    return types.int64(like), generate


@intrinsic
def load(context: Any, like: Any, address: Any) -> Any:
    """The element at `address`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _load(builder, _element(signature.args[0]), args[1])

    return like.dtype(like, types.int64), generate


@intrinsic
def store(context: Any, like: Any, value: Any, address: Any) -> Any:
    """Put `value` at `address`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _store(builder, args[1], args[2])
        return context.get_dummy_value()

    return types.void(like, like.dtype, types.int64), generate


@intrinsic
def call_native(context: Any, address: Any, like: Any, numbers: Any) -> Any:
    """Call the function at `address` (see `jit.native`) with a null pointer and the integers `numbers`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = context.get_value_type(types.CPointer(signature.args[1].dtype))
        rest = [
            context.cast(builder, x, t, types.int64)
            for x, t in zip(cgutils.unpack_tuple(builder, args[2]), signature.args[2], strict=True)
        ]
        kind = ir.FunctionType(ir.VoidType(), [pointer] + [_I64] * len(rest))
        function = builder.inttoptr(args[0], kind.as_pointer())
        builder.call(function, [pointer(None), *rest])
        return context.get_dummy_value()

    return types.void(types.int64, like, numbers), generate
