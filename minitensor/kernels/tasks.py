"""Kernels as functions for C, whose tasks a pool of threads runs by their address.

So a kernel is compiled once, for one thread, and no loop over threads is compiled with it: Numba's
own, for a function with `parallel=True`, costs seconds each time.

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
from types import SimpleNamespace
from typing import Any

import numba
import numpy as np
from numba import extending

from .jit import COMPILED, FASTMATH, native
from .pool import alone, share
from .simd import call_native

types: Any = numba.types
intrinsic: Any = extending.intrinsic  # callers leave the first parameter, the context, out
overload: Any = extending.overload
carray: Any = numba.carray  # type: ignore[attr-defined]


class Tasks:
    """A kernel `function(settings, like, task, tasks)` that does one of `tasks` shares of its work.

    `integers` and `floats` name the settings, separated by spaces. To call it, give the element
    type, how many tasks to run at a time, and the settings in order.

    With `fastmath` its loops may be in `function` itself, which compiles faster than if they are in
    a jitted function that it calls.
    """

    def __init__(
        self, function: Callable[..., None], integers: str, floats: str = "", fastmath: bool = False
    ) -> None:
        self._function, self._fastmath = function, FASTMATH if fastmath else False
        names, more = integers.split(), floats.split()
        self._pack = struct.Struct(f"={len(names)}q{len(more)}d").pack
        self.record = np.dtype([(n, np.int64) for n in names] + [(n, np.float64) for n in more])
        self._addresses: dict[Any, int] = {}

    def __call__(self, dtype: np.dtype[Any], tasks: int, *settings: Any) -> None:
        """Run the kernel for float32 or float64."""
        self.packed(dtype, tasks, self._pack(*settings))

    def packed(self, dtype: np.dtype[Any], tasks: int, settings: bytes) -> None:
        """Run the kernel with settings that are packed already."""
        self._run(dtype, tasks, settings, id(settings) + _BYTES)

    def run(self, dtype: np.dtype[Any], tasks: int, records: np.ndarray) -> None:
        """Run the kernel with an array of `record`; `records` gives it all of them."""
        self._run(dtype, tasks, records, address(records))

    def _run(self, dtype: np.dtype[Any], tasks: int, packed: Any, place: int) -> None:
        if not COMPILED:
            for task in range(tasks):
                self._function(np.frombuffer(packed, self.record), _LIKE[dtype.char], task, tasks)
            return
        function = self._addresses.get(dtype)
        if function is None:
            pointers = (types.CPointer(numba.from_dtype(d)) for d in (self.record, dtype))
            signature = types.void(*pointers, types.int64, types.int64)
            function = native(self._function, signature, self._fastmath)
            self._addresses[dtype] = function
        if tasks == 1:
            alone(function, place)
        else:
            share(function, place, tasks)


class Part:
    """A function `part(like, *integers)` that kernels call by its address, with `call_part`.

    It is compiled alone and when it is first asked for, however many kernels call it.
    """

    def __init__(self, function: Callable[..., None], integers: int, fastmath: Any = False) -> None:
        self._function, self._integers, self._fastmath = function, integers, fastmath
        self._addresses: dict[Any, int] = {}

    def address(self, dtype: np.dtype[Any]) -> int:
        """Where it is, for float32 or float64."""
        found = self._addresses.get(dtype)
        if found is None:
            if COMPILED:
                pointer = types.CPointer(numba.from_dtype(dtype))
                signature = types.void(pointer, *[types.int64] * self._integers)
                found = native(self._function, signature, self._fastmath)
            else:
                found = id(self)
                _uncompiled[found] = self._function
            self._addresses[dtype] = found
        return found


_uncompiled: dict[int, Callable[..., None]] = {}
_LIKE = {char: np.empty(1, char) for char in "fd"}
_INTEGER = np.empty(1, np.int64)
_BYTES = bytes.__basicsize__ - 1  # where a bytes object has its bytes


# What a kernel unpacks its arguments with, and calls parts with


def call_part(address: int, like: Any, integers: tuple[int, ...]) -> None:
    """Call the part at `address`, for the type of the array `like`."""
    _uncompiled[int(address)](like, *integers)


@overload(call_part)
def _call_part(address, like, integers):  # type: ignore[no-untyped-def]
    return lambda address, like, integers: call_native(address, like, integers)


def unpacked(settings: Any) -> Any:
    """The settings, as attributes."""
    return SimpleNamespace(**{name: settings[name][0] for name in settings.dtype.names})


@overload(unpacked)
def _unpacked(settings):  # type: ignore[no-untyped-def]
    return lambda settings: carray(settings, (1,))[0]


def records(settings: Any, count: int) -> Any:
    """The first `count` records of what a kernel was run with."""
    return settings.view(np.recarray)[:count]


@overload(records)
def _records(settings, count):  # type: ignore[no-untyped-def]
    return lambda settings, count: carray(settings, (count,))


def array_at(like: Any, address: int, shape: tuple[int, ...]) -> Any:
    """The C-contiguous array at an address, of the type of `like` or of a type like np.float64."""
    dtype = np.dtype(like) if isinstance(like, type) else like.dtype
    content: Any = (ctypes.c_char * (math.prod(shape) * dtype.itemsize)).from_address(int(address))
    return np.ndarray(shape, dtype, content)


@overload(array_at)
def _array_at(like, address, shape):  # type: ignore[no-untyped-def]
    return lambda like, address, shape: carray(_pointer_at(like, address), shape)


def integers_at(address: int, count: int) -> Any:
    """The array (count,) of int64 at an address."""
    return array_at(_INTEGER, address, (count,))


@overload(integers_at)
def _integers_at(address, count):  # type: ignore[no-untyped-def]
    return lambda address, count: carray(_integer_at(address), (count,))


@intrinsic
def _integer_at(context, address):  # type: ignore[no-untyped-def]
    """An address as a pointer to int64."""
    pointer = types.CPointer(types.int64)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(pointer))

    return pointer(types.int64), generate


@intrinsic
def _pointer_at(context, like, address):  # type: ignore[no-untyped-def]
    """An address as a pointer of the kind of `like`, or to elements of that type."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[1], context.get_value_type(signature.return_type))

    pointer = types.CPointer(like.dtype) if isinstance(like, types.NumberClass) else like
    return pointer(like, types.int64), generate


def address(x: np.ndarray) -> int:
    """Where the elements of an array begin."""
    return _POINTER.from_address(id(x) + _ARRAY).value or 0  # a tenth of the time of x.ctypes.data


_POINTER, _ARRAY = ctypes.c_void_p, object.__basicsize__  # an array object begins with its address
