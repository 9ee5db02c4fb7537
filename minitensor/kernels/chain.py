"""Chains of elementwise operations in one pass: a machine that runs a list of instructions.

    y = silu(a) * b + c      silu r0 a;  mul r1 r0 b;  add y r1 c

The result is worked off in blocks of 4 KB. For each block the machine runs all instructions, one
after the other. They read and write the caller's arrays or registers, blocks of memory that stay in
the first-level cache: so each array goes through memory once, whatever the number of operations,
and no result in between exists. Nothing is compiled for a chain. Arithmetic is a loop of the
machine, rounded as NumPy rounds it; for functions it calls the code that `kernels.special` and
`kernels.activation` run on whole arrays. So a chain has the bits of its operations one by one,
except for exp, expm1, log and log1p in float64, which NumPy computes on whole arrays.

An operand that is not of the result's shape (N elements) is read as x[i // inner % count]: a row
has inner = 1, a column count = N / inner, one number count = 1. Its gradient is summed in the same
pass, in float64, for each task alone; `_finish` adds those of the tasks.

A machine that works on blocks is the idea of numexpr (D. Cooke, F. Alted and others). Bound by
memory for a few instructions of arithmetic, otherwise by functions; an instruction of arithmetic on
1,024 floats takes some 60 ns.
"""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import memory
from . import activation, special
from .dropout import keep_threshold, key_words, random_word
from .gemm import Workspace
from .jit import get_num_threads, jit
from .parallel import (
    NativeFunction,
    ParallelKernel,
    address,
    address_of_bytes,
    array_at,
    call_native,
    integers_at,
    recording,
    tasks_for,
    unpacked,
)

BLOCK_BYTES = 1 << 12  # of a register
SERIAL = 1 << 15  # elements, for each instruction, up to which other threads do not pay
_REGISTERS = 32  # for which there is always memory: it then stays where it is
_ROW = 5  # integers of an instruction: its code, the place of the result and of three operands

_ARITHMETIC = "add sub mul div maximum minimum lt le eq neg abs sign sqrt reciprocal where copy"
_CODES = {name: code for code, name in enumerate(_ARITHMETIC.split())}
_ADD, _SUB, _MUL, _DIV, _MAXIMUM, _MINIMUM, _LT, _LE, _EQ = range(9)
_NEG, _ABS, _SIGN, _SQRT, _RECIPROCAL, _WHERE, _COPY = range(9, 16)
_CALL, _LOAD, _LOAD_MASK, _FILL, _SUM, _ZERO, _DROPOUT = range(16, 23)

_FUNCTIONS: dict[str, NativeFunction] = {
    **special.FUNCTIONS,
    **activation.FUNCTIONS,
    **{f"{kind}_backward": f for kind, f in activation.DERIVATIVES.items()},
}
NAMES = frozenset(_CODES) | frozenset(_FUNCTIONS)  # of all instructions

_GIVEN = ("input", "constant")  # nodes that are no instructions
_u32 = np.uint32

Layout = tuple[int, int]  # inner, count


@jit(fastmath=False)
def _load(out, x, start, inner, count):  # type: ignore[no-untyped-def]
    """out[i] = x[(start + i) // inner % count]."""
    done, place, left = 0, start // inner % count, inner - start % inner
    while done < out.size:
        if inner == 1:
            run = min(out.size - done, count - place)
            to, what = out[done : done + run], x[place : place + run]
            for i in range(to.size):
                to[i] = what[i]
            place = 0
        else:
            run = min(out.size - done, left)
            to, number = out[done : done + run], out.dtype.type(x[place])
            for i in range(to.size):
                to[i] = number
            left, place = inner, (place + 1 if place + 1 < count else 0)
        done += run


@jit
def _sum(total, x, start, inner, count):  # type: ignore[no-untyped-def]
    """total[(start + i) // inner % count] += x[i]."""
    done, place, left = 0, start // inner % count, inner - start % inner
    while done < x.size:
        if inner == 1:
            run = min(x.size - done, count - place)
            to, what = total[place : place + run], x[done : done + run]
            for i in range(to.size):
                to[i] += what[i]
            place = 0
        else:
            run = min(x.size - done, left)
            what, added = x[done : done + run], 0.0
            for i in range(what.size):
                added += np.float64(what[i])
            total[place] += added
            left, place = inner, (place + 1 if place + 1 < count else 0)
        done += run


@jit(fastmath=False)
def _place(s, addresses, slot, start, scratch, itemsize):  # type: ignore[no-untyped-def]
    """Return the address of a block: in an array of the caller's, or a register."""
    if slot < s.slots:
        return addresses[slot] + start * itemsize
    return scratch + (slot - s.slots) * BLOCK_BYTES


@jit(fastmath=False)
def _execute(exemplar, s, code, row, start, size, task, scratch):  # type: ignore[no-untyped-def]
    """Run one instruction on the block of `size` elements from `start` on.

    A slot is the number of an array in `addresses` or, after those, of a register. The operands of
    arithmetic are slots. Others are followed by:

    - call: a slot, a second one or -1, the address of the function, which works in place.
    - load, load mask, sum: a slot, inner, count; zero: nothing, inner, count.
    - fill: the number of a constant.
    - dropout: a slot, where a key's two words are in `addresses`, the number of a constant.
    """
    at = row * _ROW
    what, slot = code[at], code[at + 1]
    first, second, third = code[at + 2], code[at + 3], code[at + 4]
    addresses = integers_at(s.addresses, s.slots)
    itemsize = array_at(exemplar, scratch, (1,)).itemsize
    if what == _ZERO:
        total = array_at(np.float64, addresses[slot] + task * third * 8, (third,))
        for i in range(third):
            total[i] = 0.0
        return
    if what == _SUM:
        x = array_at(exemplar, _place(s, addresses, first, start, scratch, itemsize), (size,))
        total = array_at(np.float64, addresses[slot] + task * third * 8, (third,))
        _sum(total, x, start, second, third)
        return
    place = _place(s, addresses, slot, start, scratch, itemsize)
    out = array_at(exemplar, place, (size,))
    if what == _LOAD:
        _load(out, array_at(exemplar, addresses[first], (third,)), start, second, third)
        return
    if what == _LOAD_MASK:
        _load(out, array_at(np.uint8, addresses[first], (third,)), start, second, third)
        return
    if what == _FILL:
        number = out.dtype.type(array_at(np.float64, addresses[s.constants], (first + 1,))[first])
        for i in range(size):
            out[i] = number
        return
    a = array_at(exemplar, _place(s, addresses, first, start, scratch, itemsize), (size,))
    if what == _CALL:
        if first != slot:
            for i in range(size):
                out[i] = a[i]
        if second < 0:
            call_native(third, exemplar, (size, place))
        else:
            other = _place(s, addresses, second, start, scratch, itemsize)
            call_native(third, exemplar, (size, place, other))
        return
    zero, one = out.dtype.type(0), out.dtype.type(1)
    if what == _DROPOUT:
        settings = array_at(np.float64, addresses[s.constants], (third + 2,))
        scale, threshold = out.dtype.type(settings[third]), _u32(settings[third + 1])
        keys = integers_at(s.addresses, second + 2)
        key0, key1 = _u32(keys[second] + start), _u32(keys[second + 1])
        for i in range(size):
            out[i] = a[i] * (scale if random_word(key0, key1, _u32(i)) >= threshold else zero)
        return
    b = array_at(exemplar, _place(s, addresses, second, start, scratch, itemsize), (size,))
    if what == _ADD:
        for i in range(size):
            out[i] = a[i] + b[i]
    elif what == _SUB:
        for i in range(size):
            out[i] = a[i] - b[i]
    elif what == _MUL:
        for i in range(size):
            out[i] = a[i] * b[i]
    elif what == _DIV:
        for i in range(size):
            out[i] = a[i] / b[i]
    elif what == _MAXIMUM:
        for i in range(size):
            out[i] = a[i] if a[i] >= b[i] or a[i] != a[i] else b[i]
    elif what == _MINIMUM:
        for i in range(size):
            out[i] = a[i] if a[i] <= b[i] or a[i] != a[i] else b[i]
    elif what == _LT:
        for i in range(size):
            out[i] = one if a[i] < b[i] else zero
    elif what == _LE:
        for i in range(size):
            out[i] = one if a[i] <= b[i] else zero
    elif what == _EQ:
        for i in range(size):
            out[i] = one if a[i] == b[i] else zero
    elif what == _NEG:
        for i in range(size):
            out[i] = -a[i]
    elif what == _ABS:
        for i in range(size):
            out[i] = abs(a[i])
    elif what == _SIGN:
        for i in range(size):
            out[i] = (one if a[i] > zero else zero) - (one if a[i] < zero else zero)
    elif what == _SQRT:
        for i in range(size):
            out[i] = np.sqrt(a[i])
    elif what == _RECIPROCAL:
        for i in range(size):
            out[i] = one / a[i]
    elif what == _WHERE:
        c = array_at(exemplar, _place(s, addresses, third, start, scratch, itemsize), (size,))
        for i in range(size):
            out[i] = b[i] if a[i] != zero else c[i]
    else:
        for i in range(size):
            out[i] = a[i]


def _run_chain(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    """Do one task's blocks; the first `once` instructions, for all blocks, before them."""
    s = unpacked(arguments)
    code = integers_at(s.code, s.rows * _ROW)
    scratch = s.scratch + task * s.scratch_bytes
    most = BLOCK_BYTES // array_at(exemplar, scratch, (1,)).itemsize  # elements of a block
    for row in range(s.once):
        _execute(exemplar, s, code, row, 0, most, task, scratch)
    blocks = -(-s.size // most)
    for block in range(blocks * task // tasks, blocks * (task + 1) // tasks):
        start = block * most
        size = min(s.size - start, most)
        for row in range(s.once, s.rows):
            _execute(exemplar, s, code, row, start, size, task, scratch)


def _finish(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    """out = the sum of so many parts, arrays of float64."""
    s = unpacked(arguments)
    out = array_at(exemplar, s.out, (s.count,))
    parts = array_at(np.float64, s.parts, (s.number, s.count))
    for i in range(s.count):
        total = 0.0
        for part in range(s.number):
            total += parts[part, i]
        out[i] = total


_chain = ParallelKernel(
    _run_chain, "code rows once addresses slots constants size scratch scratch_bytes"
)
_add_parts = ParallelKernel(_finish, "out parts count number")
SCRATCH = Workspace()  # for registers


@dataclass(frozen=True)
class Code:
    """Instructions for arrays of one type: what `assemble` makes and `run` runs.

    - dtype, size: of the results, float32 or float64, and the number of elements.
    - rows: the instructions (rows, _ROW); the first `once` of them run before the blocks.
    - constants: those of the instructions, in float64.
    - registers: how many there are.
    - reads: the numbers of the inputs that are read.
    - sums: the layouts that results are summed to, by the numbers of the results.
    """

    dtype: np.dtype[Any]
    size: int
    rows: np.ndarray
    once: int
    constants: np.ndarray
    registers: int
    reads: frozenset[int]
    sums: dict[int, Layout]


def layout_of(shape: Sequence[int], result: Sequence[int]) -> Layout | None:
    """Return inner and count of an operand of `shape` in a result; None if there are none.

    There are if the dimensions that are not broadcast are neighbours.
    """
    padded = (1,) * (len(result) - len(shape)) + tuple(shape)
    pairs = [(n, m) for n, m in zip(padded, result, strict=True) if m != 1]
    own = [i for i, (n, m) in enumerate(pairs) if n == m]
    if not own:
        return max(math.prod(result), 1), 1
    if own[-1] - own[0] >= len(own):
        return None
    inner = math.prod([m for _, m in pairs[own[-1] + 1 :]])
    return inner, math.prod([pairs[i][0] for i in own])


def _operands(node: tuple[Any, ...]) -> list[int]:
    return [x for x in node[1:] if type(x) is int]


def assemble(
    nodes: Sequence[tuple[Any, ...]],
    results: Sequence[int],
    dtype: np.dtype[Any],
    size: int,
    layouts: Sequence[Layout],
    masks: Sequence[bool],
    sums: Sequence[Layout | None],
) -> Code:
    """Return the instructions that compute results of `size` elements.

    - nodes: in an order in which they can be computed, each ("input", number), ("constant", value),
      ("dropout", number of a node, (p, number of a random key)) or (name of an instruction,
      *numbers of earlier nodes).
    - results: numbers of nodes; of an input only a sum.
    - layouts, masks: of the inputs; True for one of bool, whose True becomes 1.
    - sums: for each result, the layout that it is to be summed to, or None.
    """
    wanted = set(results)
    last: dict[int, int] = {}  # where a node is needed last
    for number in range(len(nodes) - 1, -1, -1):
        if number in wanted and nodes[number][0] not in _GIVEN:
            for operand in _operands(nodes[number]):
                wanted.add(operand)
                last.setdefault(operand, number)
    inputs = len(layouts)
    slots = inputs + 1 + len(results)  # of the caller's arrays; the constants' is after the inputs
    written = {r: inputs + 1 + i for i, r in enumerate(results) if sums[i] is None}
    places: dict[int, int] = {}  # the slots of nodes
    constants: list[float] = []
    before: list[tuple[int, ...]] = []
    rows: list[tuple[int, ...]] = []
    free: list[int] = []
    registers = 0

    def register() -> int:
        nonlocal registers
        if free:
            return free.pop()
        registers += 1
        return slots + registers - 1

    def load(number: int) -> tuple[int, ...]:
        """Give an input a register; return the instruction that fills it."""
        places[number] = out = register()
        of = nodes[number][1]
        return _LOAD_MASK if masks[of] else _LOAD, out, of, *layouts[of]

    lasting = set()  # what is the same in all blocks
    for number in sorted(wanted):
        kind, value = nodes[number][:2]
        if kind == "constant":
            places[number] = register()
            before.append((_FILL, places[number], len(constants), 0, 0))
            constants.append(value)
            lasting.add(number)
        elif kind == "input" and layouts[value][1] == 1 < size:
            before.append(load(number))
            lasting.add(number)
    for i, layout in enumerate(sums):
        if layout is not None:
            before.append((_ZERO, inputs + 1 + i, 0, *layout))
    for number in sorted(wanted - lasting):
        name, operands = nodes[number][0], _operands(nodes[number])
        dying = {x for x in operands if last.get(x) == number and x not in lasting}
        if name == "input":
            dying = set()
            (of,) = operands
            if masks[of] or layouts[of] != (1, size):
                rows.append(load(number))
            else:
                places[number] = of
        else:
            read = [places[x] for x in operands]
            first = operands[0]
            if number in written:
                out = written[number]
            elif (
                name in _FUNCTIONS
                and first in dying
                and read[0] >= slots
                and operands.count(first) == 1
            ):
                out = read[0]  # in place
                dying.discard(first)
            else:
                out = register()
            places[number] = out
            if name in _FUNCTIONS:
                called = _FUNCTIONS[name].address(dtype)
                rows.append((_CALL, out, read[0], read[1] if len(read) > 1 else -1, called))
            elif name == "dropout":
                p, key = nodes[number][2]
                rows.append((_DROPOUT, out, read[0], slots + 2 * key, len(constants)))
                constants += 1 / (1 - p), keep_threshold(p)
            else:
                rows.append((_CODES[name], out, *read, *[out] * (3 - len(read))))
        for i, (result, layout) in enumerate(zip(results, sums, strict=True)):
            if result == number and layout is not None:
                rows.append((_SUM, inputs + 1 + i, places[number], *layout))
        if number not in last:
            dying.add(number)
        free += [places[x] for x in dying if places[x] >= slots]
    return Code(
        dtype,
        size,
        np.array(before + rows, np.int64).reshape(-1, _ROW),
        len(before),
        np.array(constants),
        registers,
        frozenset(nodes[n][1] for n in wanted if nodes[n][0] == "input"),
        {i: layout for i, layout in enumerate(sums) if layout is not None},
    )


def run(
    code: Code,
    inputs: Sequence[np.ndarray],
    shapes: Sequence[tuple[int, ...]],
    keys: Sequence[int] = (),
) -> list[np.ndarray]:
    """Run the instructions on arrays, with random keys; return the results, of these shapes.

    No result may share memory with an input, also if the call is run again with other arrays.
    """
    dtype, size = code.dtype, code.size
    read = {n: x for n, x in enumerate(inputs) if n in code.reads}
    read |= {n: x.copy() for n, x in read.items() if not x.flags.c_contiguous}
    outs = [memory.empty(shape, dtype) for shape in shapes]
    tasks = tasks_for(size * len(code.rows), SERIAL)
    written = outs
    if code.sums:
        written = list(outs)
        for number, (_, count) in code.sums.items():
            written[number] = memory.empty((tasks, count), np.float64)
    given = [address(read[n]) if n in read else 0 for n in range(len(inputs))]
    arrays = [*given, address(code.constants), *map(address, written)]
    words = arrays if not keys else [*arrays, *[word for key in keys for word in key_words(key)]]
    addresses = _packing(len(words))(*words)
    scratch_bytes = max(code.registers, _REGISTERS) * BLOCK_BYTES
    if SCRATCH.size < tasks * scratch_bytes:
        SCRATCH.grow(get_num_threads() * scratch_bytes)
    recording.keep(code.rows, code.constants, addresses)
    _chain(
        dtype,
        tasks,
        *(address(code.rows), len(code.rows), code.once),
        *(address_of_bytes(addresses), len(arrays), len(inputs)),
        *(size, SCRATCH.address, scratch_bytes),
    )
    for number, (_, count) in code.sums.items():
        parts = written[number]
        _add_parts(dtype, 1, address(outs[number]), address(parts), count, tasks)
    return outs


@functools.cache
def _packing(count: int) -> Callable[..., bytes]:
    return struct.Struct(f"={count}q").pack
