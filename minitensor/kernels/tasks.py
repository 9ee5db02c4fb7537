"""Kernels as functions for C, which one small compiled loop shares out between threads.

A function compiled with `parallel=True` costs seconds: all that it calls is optimised again inside
its loop over threads. Here a kernel is compiled once, as a function for C, and a loop that knows
only its address runs it; that loop is compiled once for all kernels. So it pays for big kernels.

    sum_rows = Tasks(_sum_rows, "x y rows cols", "scale")

    def _sum_rows(settings, like, task, tasks):
        s = unpacked(settings)                          # s.x, s.rows, s.scale, ...
        x = array_at(like, s.x, (s.rows, s.cols))       # of the type the kernel runs for
        for row in range(s.rows * task // tasks, s.rows * (task + 1) // tasks): ...

    sum_rows(x.dtype, tasks, address(x), address(y), *x.shape, 0.5)

The kernel sees no Python objects: arrays are addresses, and whoever calls keeps them alive.
"""

from __future__ import annotations

import ctypes
import math
import struct
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import extending, prange

from .jit import COMPILED, jit, native

types: Any = numba.types
intrinsic: Any = extending.intrinsic  # callers leave the first parameter, the context, out
overload: Any = extending.overload
carray: Any = numba.carray  # type: ignore[attr-defined]


class Tasks:
    """A kernel `function(settings, like, task, tasks)` that does one of `tasks` shares of its work.

    `integers` and `floats` name the settings, separated by spaces. To call it, give the element
    type, how many tasks to run at a time, and the settings in order.
    """

    def __init__(self, function: Callable[..., None], integers: str, floats: str = "") -> None:
        self._function = function
        names, more = integers.split(), floats.split()
        self._pack = struct.Struct(f"={len(names)}q{len(more)}d").pack
        self._record = np.dtype([(n, np.int64) for n in names] + [(n, np.float64) for n in more])
        self._addresses: dict[Any, int] = {}

    def __call__(self, dtype: np.dtype[Any], tasks: int, *settings: Any) -> None:
        """Run the kernel for float32 or float64."""
        record = np.frombuffer(self._pack(*settings), self._record)
        like = _LIKE[dtype.char]
        if not COMPILED:
            for task in range(tasks):
                self._function(record, like, task, tasks)
            return
        address = self._addresses.get(dtype)
        if address is None:
            pointers = (types.CPointer(numba.from_dtype(d)) for d in (self._record, dtype))
            signature = types.void(*pointers, types.int64, types.int64)
            address = self._addresses[dtype] = native(self._function, signature)
        _share(address, record, like, tasks)


_LIKE = {char: np.empty(1, char) for char in "fd"}


@jit(parallel=True)
def _share(function: int, settings: Any, like: Any, tasks: int) -> None:
    if tasks == 1:
        _call_native(function, settings, like, 0, 1)
    else:
        for task in prange(tasks):
            _call_native(function, settings, like, task, tasks)


@intrinsic
def _call_native(context, function, settings, like, task, tasks):  # type: ignore[no-untyped-def]
    """Call the kernel at the address `function`, with the first record of `settings`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        record, element = (
            context.get_value_type(types.CPointer(kind.dtype)) for kind in signature.args[1:3]
        )
        number = ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), [record, element, number, number])
        code = builder.inttoptr(args[0], kind.as_pointer())
        data = context.make_array(signature.args[1])(context, builder, args[1]).data
        builder.call(code, [builder.bitcast(data, record), element(None), args[3], args[4]])
        return context.get_dummy_value()

    number = types.int64
    return types.void(number, settings, like, number, number), generate


# What a kernel unpacks its arguments with


def unpacked(settings: Any) -> Any:
    """The settings, as attributes."""
    return settings.view(np.recarray)[0]


@overload(unpacked)
def _unpacked(settings):  # type: ignore[no-untyped-def]
    return lambda settings: carray(settings, (1,))[0]


def array_at(like: Any, address: int, shape: tuple[int, ...]) -> Any:
    """The C-contiguous array at an address."""
    content: Any = (ctypes.c_char * (math.prod(shape) * like.itemsize)).from_address(int(address))
    return np.ndarray(shape, like.dtype, content)


@overload(array_at)
def _array_at(like, address, shape):  # type: ignore[no-untyped-def]
    return lambda like, address, shape: carray(_pointer_at(like, address), shape)


@intrinsic
def _pointer_at(context, like, address):  # type: ignore[no-untyped-def]
    """An address as a pointer of the kind of `like`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[1], context.get_value_type(signature.return_type))

    return like(like, types.int64), generate


def address(x: np.ndarray) -> int:
    """Where the first element of an array is, which must have one."""
    return _address(x[_FIRST[x.ndim]])


@jit
def _address(x: Any) -> int:
    return x.ctypes.data  # ten times as fast as from Python


_FIRST = [(0,) * (ndim - 1) + (slice(1),) for ndim in range(65)]
