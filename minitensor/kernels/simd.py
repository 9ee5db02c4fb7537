"""Vector code that LLVM does not find by itself, written out for the matrix product.

Building blocks that a jitted kernel calls like functions (Numba intrinsics). Addresses and strides
are integers, in bytes; the first argument is any array or pointer, for its element type alone.

- `tile` is where all the time goes: it multiplies a few rows of A by one or two vectors' width of B
  and holds that tile of C in registers while k runs. A step of k loads the row of B, then
  multiplies it by one element of each row of A. With ROWS x 2 sums in flight the multiply-add units
  never wait for each other, so the loop runs at the peak of the core.
- `dots` and `combine` are for a single row or column: they read a matrix once, at memory speed.
- `copy` and `copy_transposed` lay out what `tile` reads, so that it finds it in order.

The vector width and the height of a tile follow the processor: 64 bytes and 32 registers with
AVX-512, 32 and 16 with AVX2, else 16 bytes. MINITENSOR_SIMD=avx512, avx2 or sse chooses by hand.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import extending, types
from numba.core import cgutils

# mypy: allow-untyped-calls

intrinsic: Any = extending.intrinsic  # callers leave the first parameter, the context, out

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


def _call(builder: Any, args: Any, body: Any, *settings: Any) -> None:
    """Call a function of integers, made of `body(*settings, builder, *args)` the first time.

    Code that is called and not repeated at each place takes less time to compile.
    """
    module = builder.module
    name = "_".join(("minitensor", body.__name__, *map(str, settings)))
    function = module.globals.get(name)
    if function is None:
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), [_I64] * len(args)), name)
        function.linkage = "internal"
        function.attributes.add("noinline")
        inside = ir.IRBuilder(function.append_basic_block())
        body(*settings, inside, *function.args)
        inside.ret_void()
    builder.call(function, args)


def _fma(builder: Any, x: Any, y: Any, z: Any) -> Any:
    """x * y + z: rounded once, or where the processor cannot, twice, but in all code the same."""
    if SIMD == "sse":
        return builder.fadd(builder.fmul(x, y), z)
    kind = x.type
    name = f"v{kind.count}" if isinstance(kind, ir.VectorType) else ""
    element = kind.element if name else kind
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(kind, [kind] * 3),
        f"llvm.fma.{name}f{32 if isinstance(element, ir.FloatType) else 64}",
    )
    return builder.call(function, [x, y, z])


@contextlib.contextmanager
def _loop(builder: Any, count: Any, *carried: Any) -> Iterator[tuple[list[Any], list[Any]]]:
    """A loop `count` times, at least once. Yields the carried values, and a list for the next ones.

    After the block that list holds the last ones.
    """
    before = builder.block
    body, after = builder.append_basic_block("loop"), builder.append_basic_block("after")
    builder.branch(body)
    builder.position_at_end(body)
    phis = [builder.phi(x.type) for x in (count, *carried)]
    following: list[Any] = []
    yield phis[1:], following
    left = builder.sub(phis[0], _number(1))
    builder.cbranch(builder.icmp_signed(">", left, _number(0)), body, after)
    for phi, first, then in zip(phis, (count, *carried), (left, *following), strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(then, builder.block)
    builder.position_at_end(after)


# The tile


@intrinsic
def tile(
    context: Any, like: Any, rows: Any, vectors: Any, k: Any, a: Any, a_row: Any, a_col: Any,
    b: Any, b_row: Any, c: Any, c_row: Any, plus: Any, plus_row: Any,
) -> Any:  # fmt: skip
    """C = A B, or A B + P if its address `plus` is not 0: (rows, k) by (k, vectors * lanes).

    At most ROWS rows and 2 vectors. A has any strides; rows of B, C and P are contiguous, `b_row`,
    `c_row` and `plus_row` apart; P may be C, or one row with `plus_row` 0; k is at least 1. Each
    element is one sum in order of k, whatever the tile around it.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        element = _element(signature.args[0])
        rows, vectors, *rest = args[1:]
        end, never = builder.append_basic_block("end"), builder.append_basic_block("never")
        wide = builder.icmp_signed("==", vectors, _number(2))
        choice = builder.add(rows, builder.select(wide, _number(ROWS), _number(0)))
        switch = builder.switch(choice, never)
        for count in (1, 2):
            for height in range(1, ROWS + 1):
                case = builder.append_basic_block("case")
                switch.add_case(_number(height + ROWS * (count - 1)), case)
                with builder.goto_block(case):
                    _call(builder, rest, _tile, element, height, count)
                    builder.branch(end)
        builder.position_at_end(never)
        builder.unreachable()
        builder.position_at_end(end)
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * 12), generate


def _tile(
    element: Any, rows: int, vectors: int, builder: Any, k: Any, a: Any, a_row: Any, a_col: Any,
    b: Any, b_row: Any, c: Any, c_row: Any, plus: Any, plus_row: Any,
) -> None:  # fmt: skip
    lanes = _lanes(element)
    vector = ir.VectorType(element, lanes)
    places = [(r, v) for r in range(rows) for v in range(vectors)]
    down = [_number(0)]
    for _ in range(1, rows):
        down.append(builder.add(down[-1], a_row))
    zero = ir.Constant(vector, None)
    with _loop(builder, k, a, b, *[zero] * len(places)) as ((at_a, at_b, *sums), following):
        of_b = [
            _load(builder, vector, builder.add(at_b, _number(v * VECTOR_BYTES)))
            for v in range(vectors)
        ]
        of_a = [
            _splat(builder, _load(builder, element, builder.add(at_a, offset)), lanes)
            for offset in down
        ]
        totals = [
            _fma(builder, of_a[r], of_b[v], x) for (r, v), x in zip(places, sums, strict=True)
        ]
        following += [builder.add(at_a, a_col), builder.add(at_b, b_row), *totals]

    def places_in(start: Any, pitch: Any) -> list[Any]:
        starts = [builder.add(start, builder.mul(pitch, _number(r))) for r in range(rows)]
        return [builder.add(starts[r], _number(v * VECTOR_BYTES)) for r, v in places]

    to = places_in(c, c_row)
    with builder.if_else(builder.icmp_signed("!=", plus, _number(0))) as (adding, storing):
        with adding:
            for source, place, total in zip(places_in(plus, plus_row), to, totals, strict=True):
                _store(builder, builder.fadd(_load(builder, vector, source), total), place)
        with storing:
            for place, total in zip(to, totals, strict=True):
                _store(builder, total, place)


# Vectors


@intrinsic
def dots(
    context: Any, like: Any, count: Any, k: Any, a: Any, a_row: Any, x: Any, y: Any, add: Any
) -> Any:
    """y[r] = the sum over k of a[r, k] x[k], or += if `add`, for `count` rows, 4 or 1.

    Rows of A, x and y are contiguous.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        element = _element(signature.args[0])
        four = builder.icmp_signed("==", args[1], _number(4))
        with builder.if_else(four) as branches:
            for rows, branch in zip((4, 1), branches, strict=True):
                with branch:
                    _call(builder, args[2:], _dots, element, rows)
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * 7), generate


def _dots(
    element: Any, rows: int, builder: Any, k: Any, a: Any, a_row: Any, x: Any, y: Any, add: Any
) -> None:
    lanes = _lanes(element)
    size = VECTOR_BYTES // lanes
    vector = ir.VectorType(element, lanes)
    down = [builder.mul(a_row, _number(r)) for r in range(rows)]
    slots = [cgutils.alloca_once_value(builder, ir.Constant(vector, None)) for _ in range(rows)]
    zero, step, end = _number(0), _number(VECTOR_BYTES), builder.mul(k, _number(size))
    whole = builder.mul(builder.sdiv(k, _number(lanes)), step)
    with cgutils.for_range_slice(builder, zero, whole, step, _I64) as (at, _):
        of_x = _load(builder, vector, builder.add(x, at))
        for r, slot in enumerate(slots):
            of_a = _load(builder, vector, builder.add(builder.add(a, down[r]), at))
            builder.store(_fma(builder, of_a, of_x, builder.load(slot)), slot)
    for r in range(rows):
        total = builder.load(slots[r])
        width = lanes
        while width > 1:
            width //= 2
            picks = [list(range(start, start + width)) for start in (0, width)]
            kind = ir.VectorType(ir.IntType(32), width)
            halves = [builder.shuffle_vector(total, total, ir.Constant(kind, p)) for p in picks]
            total = builder.fadd(*halves)
        single = builder.extract_element(total, ir.IntType(32)(0))
        slot = cgutils.alloca_once_value(builder, single)
        with cgutils.for_range_slice(builder, whole, end, _number(size), _I64) as (at, _):
            of_a = _load(builder, element, builder.add(builder.add(a, down[r]), at))
            of_x = _load(builder, element, builder.add(x, at))
            builder.store(_fma(builder, of_a, of_x, builder.load(slot)), slot)
        place = builder.add(y, _number(r * size))
        with builder.if_then(builder.icmp_signed("!=", add, _number(0))):
            builder.store(builder.fadd(_load(builder, element, place), builder.load(slot)), slot)
        _store(builder, builder.load(slot), place)


@intrinsic
def combine(
    context: Any, like: Any, count: Any, n: Any, x: Any, x_step: Any, b: Any, b_row: Any,
    y: Any, add: Any,
) -> Any:  # fmt: skip
    """y[j] = the sum over r of x[r] b[r, j], or += if `add`, for `count` rows, 8 or 1, of length n.

    Rows of B and y are contiguous.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        element = _element(signature.args[0])
        eight = builder.icmp_signed("==", args[1], _number(8))
        with builder.if_else(eight) as branches:
            for rows, branch in zip((8, 1), branches, strict=True):
                with branch:
                    _call(builder, args[2:], _combine, element, rows)
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * 8), generate


def _combine(
    element: Any, rows: int, builder: Any, n: Any, x: Any, x_step: Any, b: Any, b_row: Any,
    y: Any, add: Any,
) -> None:  # fmt: skip
    lanes = _lanes(element)
    size = VECTOR_BYTES // lanes
    down = [builder.mul(b_row, _number(r)) for r in range(rows)]
    factors = [
        _load(builder, element, builder.add(x, builder.mul(x_step, _number(r))))
        for r in range(rows)
    ]
    adding = builder.icmp_signed("!=", add, _number(0))
    end = builder.mul(n, _number(size))
    whole = builder.mul(builder.sdiv(n, _number(lanes)), _number(VECTOR_BYTES))
    for kind, start, stop, step in (
        (ir.VectorType(element, lanes), _number(0), whole, VECTOR_BYTES),
        (element, whole, end, size),
    ):
        spread = factors if kind is element else [_splat(builder, f, lanes) for f in factors]
        with cgutils.for_range_slice(builder, start, stop, _number(step), _I64) as (at, _):
            total = ir.Constant(kind, None if kind is not element else 0.0)
            for r in range(rows):
                of_b = _load(builder, kind, builder.add(builder.add(b, down[r]), at))
                total = _fma(builder, of_b, spread[r], total)
            place = builder.add(y, at)
            slot = cgutils.alloca_once_value(builder, total)
            builder.store(total, slot)
            with builder.if_then(adding):
                builder.store(builder.fadd(_load(builder, kind, place), total), slot)
            _store(builder, builder.load(slot), place)


# Layout


@intrinsic
def copy(
    context: Any, like: Any, to: Any, to_row: Any, source: Any, source_row: Any, rows: Any,
    cols: Any,
) -> Any:  # fmt: skip
    """Copy (rows, cols) elements, contiguous along cols on both sides."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        element = _element(signature.args[0])
        _call(builder, args[1:], _copy, element)
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * 6), generate


def _copy(
    element: Any, builder: Any, to: Any, to_row: Any, source: Any, source_row: Any, rows: Any,
    cols: Any,
) -> None:  # fmt: skip
    size = VECTOR_BYTES // _lanes(element)

    def by(width: int) -> None:
        """Copy in steps of `width`; the last step overlaps the one before it."""
        vector = ir.VectorType(element, width)
        last = builder.mul(builder.sub(cols, _number(width)), _number(size))
        step = _number(width * size)
        with cgutils.for_range(builder, rows, intp=_I64) as loop:
            start = builder.add(source, builder.mul(loop.index, source_row))
            target = builder.add(to, builder.mul(loop.index, to_row))
            with cgutils.for_range_slice(builder, _number(0), last, step, _I64) as (at, _):
                value = _load(builder, vector, builder.add(start, at))
                _store(builder, value, builder.add(target, at))
            value = _load(builder, vector, builder.add(start, last))
            _store(builder, value, builder.add(target, last))

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
    context: Any, like: Any, to: Any, to_row: Any, source: Any, source_col: Any, rows: Any,
    cols: Any,
) -> Any:  # fmt: skip
    """Copy (rows, cols) elements contiguous along rows to a place contiguous along cols.

    Takes at least as many rows as a vector has lanes, and writes up to a multiple of the lanes in
    every row (any values).
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        element = _element(signature.args[0])
        _call(builder, args[1:], _copy_transposed, element)
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * 6), generate


def _copy_transposed(
    element: Any, builder: Any, to: Any, to_row: Any, source: Any, source_col: Any, rows: Any,
    cols: Any,
) -> None:  # fmt: skip
    lanes = _lanes(element)
    size = VECTOR_BYTES // lanes
    vector = ir.VectorType(element, lanes)

    def smaller(x: Any, y: Any) -> Any:
        return builder.select(builder.icmp_signed("<", x, y), x, y)

    last_row = builder.sub(rows, _number(lanes))
    last_col = builder.sub(cols, _number(1))
    zero, step = _number(0), _number(lanes)
    with (
        cgutils.for_range_slice(builder, zero, cols, step, _I64) as (col, _),
        cgutils.for_range_slice(builder, zero, rows, step, _I64) as (some_row, _),
    ):
        row = smaller(some_row, last_row)
        start = builder.add(source, builder.mul(row, _number(size)))
        block = []
        for lane in range(lanes):
            at = smaller(builder.add(col, _number(lane)), last_col)
            block.append(_load(builder, vector, builder.add(start, builder.mul(at, source_col))))
        target = builder.add(to, builder.mul(row, to_row))
        target = builder.add(target, builder.mul(col, _number(size)))
        for lane, value in enumerate(_transposed(builder, block)):
            _store(builder, value, builder.add(target, builder.mul(_number(lane), to_row)))


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
def add_rows(context: Any, like: Any, rows: Any, source: Any, y: Any) -> Any:
    """y[j] = the sum over r of source[r, j]: (rows, ROWS) -> (ROWS).

    All contiguous. Reads and writes up to the end of a vector.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _call(builder, args[1:], _add_rows, _element(signature.args[0]))
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * 3), generate


def _add_rows(element: Any, builder: Any, rows: Any, source: Any, y: Any) -> None:
    lanes = _lanes(element)
    row = ROWS * (VECTOR_BYTES // lanes)
    vector = ir.VectorType(element, lanes)
    places = range(0, row, VECTOR_BYTES)
    zero = ir.Constant(vector, None)
    four = builder.mul(builder.sdiv(rows, _number(4)), _number(4 * row))
    end = builder.mul(rows, _number(row))
    sums = [[cgutils.alloca_once_value(builder, zero) for _ in places] for _ in range(4)]
    for start, stop, count in ((_number(0), four, 4), (four, end, 1)):
        step = _number(count * row)
        with cgutils.for_range_slice(builder, start, stop, step, _I64) as (at, _):
            for r in range(count):  # four sums at a time: none waits for the one before it
                for place, slot in zip(places, sums[r], strict=True):
                    here = builder.add(source, builder.add(at, _number(r * row + place)))
                    x = _load(builder, vector, here)
                    builder.store(builder.fadd(builder.load(slot), x), slot)
    for number, place in enumerate(places):
        a, b, c, d = (builder.load(sums[r][number]) for r in range(4))
        total = builder.fadd(builder.fadd(a, b), builder.fadd(c, d))
        _store(builder, total, builder.add(y, _number(place)))


@intrinsic
def call_native(context: Any, address: Any, like: Any, numbers: Any) -> Any:
    """Call the function at `address`, of `jit.native`, with a null pointer and the `numbers`."""

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
