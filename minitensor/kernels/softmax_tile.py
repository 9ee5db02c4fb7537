"""Softmax down the columns of a tile of scores, forward and backward: the passes of attention.

A tile has the keys in rows and the queries in columns. So a vector holds neighbouring queries,
whose maxima and sums stay in registers while a loop runs down the keys: nothing is added up across
a vector, and no columns are left over, as they are padded to whole vectors. Scores T are multiples
of ln 2, and their exponentials powers of 2.

    tile_mask       T = T + M, or -inf where M is
    tile_max        top = max(top, max over keys of T)
    tile_exp        T = 2^(T - top), total = total * 2^(last - top) + sum over keys of T;
                    then T = kept(T), last = top
    tile_gradient   E = 2^(T - top), G = E * total * (kept(G) - delta); then T = kept(E) * factor

All but T, G and the mask M belong to columns. Dropout keeps an element if `random_word`
(`kernels.dropout`) of its index does: the index is the column's word, and `word_step` more from
row to row. A column with NaN among its scores becomes NaN. Bound by arithmetic: some 12 operations
for an exponential, 15 for a random word.

Two passes are over rows of any width: `scale_rows` multiplies each by a factor of its own, and
`dot_rows` gives the sums of the rows of X * Y.

They are called from functions without fast mathematics, which would cancel the shift in 2^x.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir

from .dropout import M1, M2, M3, random_word
from .jit import cgutils, emitted, types
from .parallel import array_at
from .simd import (
    I64,
    VECTOR_BYTES,
    element_type,
    emit_broadcast,
    emit_call,
    emit_fma,
    emit_load,
    emit_loop,
    emit_store,
    integer,
    lanes_of,
)

# mypy: allow-untyped-calls

_I32 = ir.IntType(32)
_TOGETHER = 4  # vectors whose loops run side by side, to overlap their latencies

# For each column: two rows `stats`, which backward gets from forward, with the reciprocals of the
# sums; then rows `columns`: forward, the maximum that the sums so far refer to and what the last
# pass multiplied them by; backward, delta and TOTAL with dropout.
TOP, TOTAL, LAST, CHANGE, WORD = range(5)
DELTA, FACTOR = LAST, CHANGE
STATS, COLUMNS = 2, 3

# 2^r for |r| <= 1/2: least squares of the relative error in float32, Taylor's in float64.
_SINGLE = (
    1.000000072, 6.931469671e-1, 2.402211972e-1, 5.550713274e-2, 9.675541334e-3, 1.327647198e-3,
)  # fmt: skip
_DOUBLE = tuple(math.log(2) ** n / math.factorial(n) for n in range(14))


def _emit_power_of_two(builder: Any, x: Any) -> Any:
    """Emit 2^x for x <= 0, or NaN: of n + r, with n the nearest integer, 2^r times 2^n.

    The shift, added, leaves n and the bias of exponents in the lowest bits.
    """
    vector = x.type
    lanes = vector.count
    single = isinstance(vector.element, ir.FloatType)
    bits, mantissa, bias = (_I32, 23, 127) if single else (I64, 52, 1023)

    def constant(value: float) -> Any:
        return ir.Constant(vector, [value] * lanes)

    whole = ir.VectorType(bits, lanes)
    shift, least = constant(3 * 2.0 ** (mantissa - 1) + bias), constant(-bias)
    x = builder.select(builder.fcmp_ordered("<", x, least), least, x)
    shifted = builder.fadd(x, shift)
    r = builder.fsub(x, builder.fsub(shifted, shift))
    *rest, y = map(constant, _SINGLE if single else _DOUBLE)
    for coefficient in reversed(rest):
        y = emit_fma(builder, y, r, coefficient)
    exponent = builder.shl(builder.bitcast(shifted, whole), ir.Constant(whole, [mantissa] * lanes))
    return builder.fmul(y, builder.bitcast(exponent, vector))


class _Dropout:
    """Emits which elements of a tile dropout keeps, from a word for each column."""

    def __init__(self, builder: Any, element: Any, step: Any, key1: Any, threshold: Any) -> None:
        self._builder, self._lanes = builder, lanes_of(element)
        self._size = VECTOR_BYTES // self._lanes
        self._step, self._key1, self._threshold = (
            emit_broadcast(builder, builder.trunc(x, _I32), self._lanes)
            for x in (step, key1, threshold)
        )

    def words(self, row: Any, first: Any, offsets: list[Any]) -> list[Any]:
        """Emit the load of the words of the first row, 4 bytes for each element."""
        start = self._builder.add(row, self._builder.sdiv(first, integer(self._size // 4)))
        offsets = [integer(offset.constant * 4 // self._size) for offset in offsets]
        return _emit_loads(self._builder, ir.VectorType(_I32, self._lanes), start, offsets)

    def next(self, words: list[Any]) -> list[Any]:
        """Emit the words of the next row."""
        return [self._builder.add(word, self._step) for word in words]

    def kept(self, word: Any) -> Any:
        """Emit `random_word(word, key1, 0) >= threshold`."""
        x = self._times(self._mixed(word, 17), M1)
        x = self._times(self._mixed(self._builder.add(x, self._key1), 11), M2)
        x = self._mixed(self._times(self._mixed(x, 15), M3), 14)
        return self._builder.icmp_unsigned(">=", x, self._threshold)

    def _mixed(self, x: Any, shift: int) -> Any:
        shifted = self._builder.lshr(x, ir.Constant(x.type, [shift] * self._lanes))
        return self._builder.xor(x, shifted)

    def _times(self, x: Any, factor: Any) -> Any:
        return self._builder.mul(x, ir.Constant(x.type, [int(factor)] * self._lanes))


def _emit_groups(builder: Any, vectors: Any, body: Callable[[Any, list[Any]], None]) -> None:
    """Emit loops over the columns, `body(offset of a group, offsets of its vectors in it)`."""
    many = builder.mul(builder.sdiv(vectors, integer(_TOGETHER)), integer(_TOGETHER))
    for group, start, stop in ((_TOGETHER, integer(0), many), (1, many, vectors)):
        with cgutils.for_range_slice(builder, start, stop, integer(group), I64) as (v, _):
            body(
                builder.mul(v, integer(VECTOR_BYTES)),
                [integer(VECTOR_BYTES * i) for i in range(group)],
            )


def _emit_loads(builder: Any, kind: Any, start: Any, offsets: list[Any]) -> list[Any]:
    return [emit_load(builder, kind, builder.add(start, offset)) for offset in offsets]


def _emit_rows(builder: Any, stats: Any, columns: Any, columns_row: Any) -> list[Any]:
    """Emit the addresses of the rows that hold a number for each column."""
    return [
        builder.add(start, builder.mul(columns_row, integer(row)))
        for start, count in ((stats, STATS), (columns, COLUMNS))
        for row in range(count)
    ]


def _emit_stores(builder: Any, values: list[Any], start: Any, offsets: list[Any]) -> None:
    for value, offset in zip(values, offsets, strict=True):
        emit_store(builder, value, builder.add(start, offset))


def _tile_mask(
    element: Any, builder: Any, vectors: Any, keys: Any, t: Any, row: Any, mask: Any
) -> None:  # fmt: skip
    vector = ir.VectorType(element, lanes_of(element))
    hidden = ir.Constant(vector, [-math.inf] * vector.count)

    def group(first: Any, offsets: list[Any]) -> None:
        starts = [builder.add(x, first) for x in (t, mask)]
        with emit_loop(builder, keys, *starts) as ((at, at_mask), following):
            following += [builder.add(x, row) for x in (at, at_mask)]
            scores = _emit_loads(builder, vector, at, offsets)
            addends = _emit_loads(builder, vector, at_mask, offsets)
            sums = [
                builder.select(builder.fcmp_ordered("==", y, hidden), y, builder.fadd(x, y))
                for x, y in zip(scores, addends, strict=True)
            ]
            _emit_stores(builder, sums, at, offsets)

    _emit_groups(builder, vectors, group)


def _tile_max(
    element: Any, builder: Any, vectors: Any, keys: Any, t: Any, row: Any, top: Any
) -> None:  # fmt: skip
    vector = ir.VectorType(element, lanes_of(element))

    def group(first: Any, offsets: list[Any]) -> None:
        start = builder.add(top, first)
        most = _emit_loads(builder, vector, start, offsets)
        with emit_loop(builder, keys, builder.add(t, first), *most) as ((at, *most), following):
            scores = _emit_loads(builder, vector, at, offsets)
            following += [builder.add(at, row)] + [
                builder.select(builder.fcmp_ordered(">", x, m), x, m)
                for x, m in zip(scores, most, strict=True)
            ]
        _emit_stores(builder, following[1:], start, offsets)

    _emit_groups(builder, vectors, group)


def _tile_exp(
    element: Any, drops: bool, builder: Any, vectors: Any, keys: Any, t: Any, row: Any,
    stats: Any, columns: Any, columns_row: Any, word_step: Any, key1: Any, threshold: Any,
) -> None:  # fmt: skip
    vector = ir.VectorType(element, lanes_of(element))
    zero = ir.Constant(vector, None)
    column = _emit_rows(builder, stats, columns, columns_row)
    dropout = _Dropout(builder, element, word_step, key1, threshold)

    def group(first: Any, offsets: list[Any]) -> None:
        count = len(offsets)
        starts = [builder.add(x, first) for x in column]
        top, before, last = (
            _emit_loads(builder, vector, starts[which], offsets) for which in (TOP, TOTAL, LAST)
        )
        changes = [
            _emit_power_of_two(builder, builder.fsub(x, m)) for x, m in zip(last, top, strict=True)
        ]
        before = [builder.fmul(x, change) for x, change in zip(before, changes, strict=True)]
        words = dropout.words(column[WORD], first, offsets) if drops else []
        carried = [builder.add(t, first), *before, *words]
        with emit_loop(builder, keys, *carried) as ((at, *rest), following):
            totals, words = rest[:count], rest[count:]
            scores = _emit_loads(builder, vector, at, offsets)
            powers = [
                _emit_power_of_two(builder, builder.fsub(x, m))
                for x, m in zip(scores, top, strict=True)
            ]
            following.append(builder.add(at, row))
            following += [builder.fadd(a, b) for a, b in zip(totals, powers, strict=True)]
            following += dropout.next(words)
            if drops:
                powers = [
                    builder.select(dropout.kept(word), x, zero)
                    for word, x in zip(words, powers, strict=True)
                ]
            _emit_stores(builder, powers, at, offsets)
        for which, values in ((TOTAL, following[1 : 1 + count]), (LAST, top), (CHANGE, changes)):
            _emit_stores(builder, values, starts[which], offsets)

    _emit_groups(builder, vectors, group)


def _tile_gradient(
    element: Any, drops: bool, builder: Any, vectors: Any, keys: Any, t: Any, row: Any, g: Any,
    stats: Any, columns: Any, columns_row: Any, word_step: Any, key1: Any, threshold: Any,
) -> None:  # fmt: skip
    vector = ir.VectorType(element, lanes_of(element))
    zero = ir.Constant(vector, None)
    column = _emit_rows(builder, stats, columns, columns_row)
    dropout = _Dropout(builder, element, word_step, key1, threshold)

    def group(first: Any, offsets: list[Any]) -> None:
        top, total, factor, delta = (
            _emit_loads(builder, vector, builder.add(column[which], first), offsets)
            for which in (TOP, TOTAL, FACTOR, DELTA)
        )
        words = dropout.words(column[WORD], first, offsets) if drops else []
        carried = [builder.add(t, first), builder.add(g, first), *words]
        with emit_loop(builder, keys, *carried) as ((at_t, at_g, *words), following):
            following += [builder.add(at_t, row), builder.add(at_g, row), *dropout.next(words)]
            scores = _emit_loads(builder, vector, at_t, offsets)
            grads = _emit_loads(builder, vector, at_g, offsets)
            for i, offset in enumerate(offsets):
                power = _emit_power_of_two(builder, builder.fsub(scores[i], top[i]))
                share = weight = builder.fmul(power, total[i])
                grad = grads[i]
                if drops:
                    keep = dropout.kept(words[i])
                    weight = builder.select(keep, builder.fmul(power, factor[i]), zero)
                    grad = builder.select(keep, grad, zero)
                grad = builder.fmul(share, builder.fsub(grad, delta[i]))
                emit_store(builder, weight, builder.add(at_t, offset))
                emit_store(builder, grad, builder.add(at_g, offset))

    _emit_groups(builder, vectors, group)


def _emit_along(
    element: Any, builder: Any, width: Any, body: Callable[[Any, Any], None]
) -> None:  # fmt: skip
    """Emit loops along `width` elements, `body(type, offset)`: of vectors, then of elements."""
    vector = ir.VectorType(element, lanes_of(element))
    size = VECTOR_BYTES // vector.count
    end = builder.mul(width, integer(size))
    whole = builder.mul(builder.sdiv(end, integer(VECTOR_BYTES)), integer(VECTOR_BYTES))
    for kind, start, stop, step in (
        (vector, integer(0), whole, VECTOR_BYTES), (element, whole, end, size),
    ):  # fmt: skip
        with cgutils.for_range_slice(builder, start, stop, integer(step), I64) as (at, _):
            body(kind, at)


def _scale_rows(
    element: Any, builder: Any, rows: Any, width: Any, x: Any, x_row: Any, factors: Any
) -> None:  # fmt: skip
    lanes = lanes_of(element)
    with emit_loop(builder, rows, x, factors) as ((row, at_factor), following):
        factor = emit_load(builder, element, at_factor)
        factors_of = {element: factor, "vector": emit_broadcast(builder, factor, lanes)}

        def scale(kind: Any, offset: Any) -> None:
            at = builder.add(row, offset)
            by = factors_of[element if kind is element else "vector"]
            emit_store(builder, builder.fmul(emit_load(builder, kind, at), by), at)

        _emit_along(element, builder, width, scale)
        size = integer(VECTOR_BYTES // lanes)
        following += [builder.add(row, x_row), builder.add(at_factor, size)]


def _dot_rows(
    element: Any, builder: Any, rows: Any, width: Any, x: Any, x_row: Any, y: Any, y_row: Any,
    to: Any,
) -> None:  # fmt: skip
    lanes = lanes_of(element)
    vector = ir.VectorType(element, lanes)
    kind = ir.FunctionType(element, [element, vector])
    name = f"llvm.vector.reduce.fadd.v{lanes}f{VECTOR_BYTES * 8 // lanes}"
    add_lanes = cgutils.get_or_insert_function(builder.module, kind, name)
    slots = {kind: cgutils.alloca_once(builder, kind) for kind in (vector, element)}
    with emit_loop(builder, rows, x, y, to) as ((row, y_at, at), following):
        for kind, slot in slots.items():
            builder.store(ir.Constant(kind, None if kind is vector else 0.0), slot)

        def multiply(kind: Any, offset: Any) -> None:
            a, b = (emit_load(builder, kind, builder.add(start, offset)) for start in (row, y_at))
            slot = slots[kind]
            builder.store(emit_fma(builder, a, b, builder.load(slot)), slot)

        _emit_along(element, builder, width, multiply)
        sums = [builder.load(slots[kind]) for kind in (element, vector)]
        emit_store(builder, builder.call(add_lanes, sums, fastmath=("reassoc",)), at)
        size = integer(VECTOR_BYTES // lanes)
        following += [builder.add(row, x_row), builder.add(y_at, y_row), builder.add(at, size)]


# The passes, as Python. Their integers come in one tuple:
# - the numbers of vectors and of keys, the address of T and the bytes from row to row,
# - of the gradient, the address of G; of the mask, its address,
# - where they use them, the addresses of `stats` and `columns`, and the bytes from row to row,
# - where dropout may apply, its word_step, key1 and threshold, and 1 if it does.
# Those of rows: the numbers of rows and columns, then addresses with the bytes from row to row.


def tile_mask(exemplar: Any, integers: tuple[int, ...]) -> None:
    """Add the mask to the scores, and hide those for which it is -inf, NaN or not."""
    vectors, keys, t, row, mask = integers
    x, y = (_view(exemplar, vectors, start, keys, row) for start in (t, mask))
    x[...] = np.where(y == -np.inf, y, x + y)


def tile_max(exemplar: Any, integers: tuple[int, ...]) -> None:
    """Raise TOP, at the address `top`, to the largest score of each column."""
    vectors, keys, t, row, top = integers
    x = _view(exemplar, vectors, t, keys, row)
    (most,) = _view(exemplar, vectors, top, 1, vectors * VECTOR_BYTES)
    np.maximum(most, x.max(0, where=~np.isnan(x), initial=-np.inf), out=most)


@np.errstate(all="ignore")  # columns past the last query hold anything
def tile_exp(exemplar: Any, integers: tuple[int, ...]) -> None:
    """Turn scores into 2^(T - TOP), not divided by their sums, after dropout; add to TOTAL."""
    vectors, keys, t, row, stats, columns, columns_row, *dropout = integers
    x = _view(exemplar, vectors, t, keys, row)
    column = _columns(exemplar, vectors, stats, columns, columns_row)
    x[...] = np.exp2(x - column[TOP])
    column[CHANGE][...] = np.exp2(column[LAST] - column[TOP])
    column[LAST][...] = column[TOP]
    column[TOTAL][...] = column[TOTAL] * column[CHANGE] + x.sum(0)
    x *= _kept(column, keys, *dropout)


def tile_gradient(exemplar: Any, integers: tuple[int, ...]) -> None:
    """Turn scores into weights after dropout, and G, the gradient of those, into the scores'."""
    vectors, keys, t, row, g, stats, columns, columns_row, *dropout = integers
    x, y = (_view(exemplar, vectors, start, keys, row) for start in (t, g))
    column = _columns(exemplar, vectors, stats, columns, columns_row)
    kept = _kept(column, keys, *dropout)
    power = np.exp2(x - column[TOP])
    y[...] = power * column[TOTAL] * (kept * y - column[DELTA])
    x[...] = power * column[FACTOR if dropout[-1] else TOTAL] * kept


def scale_rows(exemplar: Any, integers: tuple[int, ...]) -> None:
    """Multiply each row of X by its factor; `factors` is the address of a vector."""
    rows, width, x, x_row, factors = integers
    y = _matrix(exemplar, x, rows, x_row, width)
    y *= array_at(exemplar, factors, (rows, 1))


def dot_rows(exemplar: Any, integers: tuple[int, ...]) -> None:
    """Put the sums of the rows of X * Y at `to`."""
    rows, width, x, x_row, y, y_row, to = integers
    product = _matrix(exemplar, x, rows, x_row, width) * _matrix(exemplar, y, rows, y_row, width)
    array_at(exemplar, to, (rows,))[...] = product.sum(1)


def _view(exemplar: Any, vectors: int, start: int, rows: int, row: int) -> Any:
    return _matrix(exemplar, start, rows, row, vectors * VECTOR_BYTES // exemplar.itemsize)


def _matrix(exemplar: Any, start: int, rows: int, row: int, width: int) -> Any:
    size = exemplar.itemsize
    content = array_at(exemplar, start, (max(rows - 1, 0) * row // size + width,))
    return np.ndarray((rows, width), exemplar.dtype, content, strides=(row, size))


def _columns(exemplar: Any, vectors: int, stats: int, columns: int, row: int) -> list[Any]:
    parts = ((stats, STATS), (columns, COLUMNS))
    return [x for start, count in parts for x in _view(exemplar, vectors, start, count, row)]


def _kept(column: Any, keys: int, step: int, key1: int, threshold: int, drops: int) -> Any:
    if not drops:
        return True
    words = column[WORD].view(np.uint32)[: column[TOP].size]
    index = words + np.arange(keys, dtype=np.uint32)[:, None] * np.uint32(step)
    return random_word(np.uint32(0), np.uint32(key1), index) >= threshold


def _compile(public: Callable[..., None], body: Callable[..., None], drops: bool = False) -> None:
    """Let kernels run what `body` emits for `public`: with `drops`, one of two forms."""

    @emitted(public)
    def emit(context, exemplar, integers):  # type: ignore[no-untyped-def]
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            values = [
                context.cast(builder, value, kind, types.int64)
                for value, kind in zip(
                    cgutils.unpack_tuple(builder, args[1]), signature.args[1], strict=True
                )
            ]
            element = element_type(signature.args[0])
            if not drops:
                emit_call(builder, values, body, element)
                return context.get_dummy_value()
            choice = builder.icmp_signed("!=", values.pop(), integer(0))
            with builder.if_else(choice) as branches:
                for form, branch in zip((True, False), branches, strict=True):
                    with branch:
                        emit_call(builder, values, body, element, form)
            return context.get_dummy_value()

        return types.void(exemplar, integers), generate


_compile(tile_mask, _tile_mask)
_compile(tile_max, _tile_max)
_compile(tile_exp, _tile_exp, drops=True)
_compile(tile_gradient, _tile_gradient, drops=True)
_compile(scale_rows, _scale_rows)
_compile(dot_rows, _dot_rows)
