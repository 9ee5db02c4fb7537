"""Parallel kernels and native functions: compiled code that is called by its address.

A parallel kernel is compiled once, for one thread, to a native function that does one task: a part
of the work. The pool of threads (`kernels.pool`) calls it for every task. Numba's `parallel=True`
would compile a loop over threads with each kernel, which costs seconds each time.

    sum_rows = ParallelKernel(_sum_rows, "x y rows cols", "scale")

    def _sum_rows(arguments, exemplar, task, tasks):
        s = unpacked(arguments)                         # s.x, s.rows, s.scale, ...
        x = array_at(exemplar, s.x, (s.rows, s.cols))   # of the dtype the kernel is compiled for
        for row in range(s.rows * task // tasks, s.rows * (task + 1) // tasks): ...

    sum_rows(x.dtype, tasks, address(x), address(y), *x.shape, 0.5)

A kernel sees no Python objects. Arrays are passed by address, and the caller keeps them alive. The
`exemplar` of native code is an array, or a null pointer, of which only the dtype matters. With
NUMBA_DISABLE_JIT=1 kernels run as Python, and each helper here has an equal in Python.
"""

from __future__ import annotations

import ctypes
import math
import struct
import sys
import threading
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from .calls import caller, emit_call
from .jit import (
    COMPILED,
    FASTMATH,
    arrayobj,
    cgutils,
    emitted,
    get_num_threads,
    types,
)
from .objectcode import native
from .pool import run_parallel, run_serial


class ParallelKernel:
    """A kernel made of `function(arguments, exemplar, task, tasks)`, which does task `task`.

    - integers, floats: the names of the kernel's arguments, separated by spaces.
    - fastmath: compile the loops in `function` itself with FASTMATH. That is faster than to compile
      a jitted function which holds them.

    A call gives the dtype to compute in, float32 or float64, the number of tasks, and the arguments
    in order.
    """

    def __init__(
        self, function: Callable[..., None], integers: str, floats: str = "", fastmath: bool = False
    ) -> None:
        self._function, self._fastmath = function, FASTMATH if fastmath else False
        names, more = integers.split(), floats.split()
        self._pack = struct.Struct(f"={len(names)}q{len(more)}d").pack
        self.record = np.dtype([(n, np.int64) for n in names] + [(n, np.float64) for n in more])
        self._addresses: dict[Any, int] = {}

    def __call__(self, dtype: np.dtype[Any], tasks: int, *arguments: Any) -> None:
        """Run all tasks of the kernel; TypeError for another number of arguments."""
        try:
            packed = self._pack(*arguments)
        except struct.error as error:
            raise TypeError(
                f"{self._function.__module__}.{self._function.__name__} takes "
                f"{', '.join(self.record.fields or ())}, not {arguments}: {error}"
            ) from error
        self._run(dtype, tasks, packed, address_of_bytes(packed))

    def run_packed(self, dtype: np.dtype[Any], tasks: int, arguments: bytes) -> None:
        """Run all tasks with arguments that are packed already."""
        self._run(dtype, tasks, arguments, address_of_bytes(arguments))

    def run_records(self, dtype: np.dtype[Any], tasks: int, arguments: np.ndarray) -> None:
        """Run all tasks with an array of `record`, which the kernel reads with `records`."""
        self._run(dtype, tasks, arguments, address(arguments))

    def _run(self, dtype: np.dtype[Any], tasks: int, packed: Any, arguments: int) -> None:
        if not COMPILED:
            for task in range(tasks):
                record = np.frombuffer(packed, self.record)
                self._function(record, _EXEMPLARS[dtype.char], task, tasks)
            return
        function = self._addresses.get(dtype)
        if function is None:
            function = native(self._function, [self.record, dtype], 2, self._fastmath)
            self._addresses[dtype] = function
        if tasks == 1:
            run_serial(function, arguments)
        else:
            run_parallel(function, arguments, tasks)
        if recording.calls is not None:
            recording.calls.append((function, arguments, tasks, packed, self.record))


class Recording(threading.local):
    """The calls of kernels that a thread records for a `kernels.program.Program`, if it does."""

    # Of each call: function, arguments, tasks, where the arguments are, and their names.
    calls: list[tuple[int, int, int, Any, Any]] | None = None

    def keep(self, *things: Any) -> None:
        """Keep what the next call has the address of, and its caller lets go."""
        if self.calls is not None:
            self.calls.append((0, 0, 0, things, None))

    def miss(self) -> None:
        """Note that something is computed here without a kernel, and so is not recorded."""
        if self.calls is not None:
            self.calls.append((0, 0, 0, None, None))


recording = Recording()


class NativeFunction:
    """A function `f(exemplar, *integers)` that kernels call by its address, with `call_native`.

    It takes `integers` integers, and is compiled once, at its first use, for all its callers.
    `pointer` makes the exemplar's Numba type of that of its dtype, by default a plain pointer.
    """

    def __init__(
        self,
        function: Callable[..., None],
        integers: int,
        fastmath: Any = False,
        pointer: Callable[[Any], Any] | None = None,
    ) -> None:
        self._function, self._integers, self._fastmath = function, integers, fastmath
        self._pointer = pointer
        self._addresses: dict[Any, int] = {}
        self._callables: dict[Any, Callable[..., Any]] = {}

    def run(self, dtype: np.dtype[Any], *integers: int) -> None:
        """Call it on this thread: for a small array, in a quarter of the time of a kernel."""
        call = self._callables.get(dtype)
        if call is None:
            if COMPILED:
                call = partial(caller(1 + self._integers), self.address(dtype), 0)
            else:
                call = partial(self._function, _EXEMPLARS[dtype.char])
            self._callables[dtype] = call
        call(*integers)

    def address(self, dtype: np.dtype[Any]) -> int:
        """Return the address of the code for float32 or float64."""
        found = self._addresses.get(dtype)
        if found is None:
            if COMPILED:
                found = native(
                    self._function, [dtype], self._integers, self._fastmath, self._pointer
                )
            else:
                found = id(self)
                _uncompiled[found] = self._function
            self._addresses[dtype] = found
        return found


_uncompiled: dict[int, Callable[..., None]] = {}
_EXEMPLARS = {char: np.empty(1, char) for char in "fd"}
_INTEGER = np.empty(1, np.int64)
_FLOAT32, _WORD = np.dtype(np.float32), ctypes.sizeof(ctypes.c_size_t)
_BYTES_HEADER = bytes.__basicsize__ - 1  # where a bytes object has its bytes
ARRAY_HEADER = object.__basicsize__  # where an array object has the address of its elements
_MEMORY = (ctypes.c_size_t * (sys.maxsize // _WORD)).from_address(0)  # all of it, in words


SERIAL = 1 << 14  # elements up to which waking other threads costs more than it saves


def tasks_for(elements: int, serial: int = SERIAL) -> int:
    """Return the number of tasks for so many elements: one for each thread, or 1."""
    return get_num_threads() if elements > serial else 1


def address(x: np.ndarray) -> int:
    """Return the address of an array's elements, in a tenth of the time of x.ctypes.data."""
    return _MEMORY[(id(x) + ARRAY_HEADER) // _WORD]


def address_of_bytes(content: bytes) -> int:
    """Return the address of the first byte."""
    return id(content) + _BYTES_HEADER


def contiguous(x: np.ndarray) -> np.ndarray:
    """Return x, or a C-contiguous copy; float16 becomes float32, in which kernels compute it."""
    if x.itemsize == 2:
        return x.astype(np.float32, "C")
    return x if x.flags.c_contiguous else np.ascontiguousarray(x)


def compute_dtype(x: np.ndarray) -> Any:
    """Return the dtype that kernels compute x in: float32 for float16, otherwise its own."""
    return _FLOAT32 if x.itemsize == 2 else x.dtype


# Helpers for use in kernels, as Python and compiled


def call_native(address: int, exemplar: Any, integers: tuple[int, ...]) -> None:
    """Call the native function at an address, for the dtype of `exemplar`."""
    _uncompiled[int(address)](exemplar, *integers)


@emitted(call_native)
def _call_native(context, address, exemplar, integers):  # type: ignore[no-untyped-def]
    """Call it with a null pointer for the exemplar."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = context.get_value_type(types.CPointer(signature.args[1].dtype))
        values = zip(cgutils.unpack_tuple(builder, args[2]), signature.args[2], strict=True)
        rest = [context.cast(builder, value, kind, types.int64) for value, kind in values]
        emit_call(builder, args[0], [pointer(None), *rest])
        return context.get_dummy_value()

    return types.void(types.int64, exemplar, integers), generate


def unpacked(arguments: Any) -> Any:
    """Return a kernel's arguments as attributes."""
    return SimpleNamespace(**{name: arguments[name][0] for name in arguments.dtype.names})


@emitted(unpacked)
def _unpacked(context, arguments):  # type: ignore[no-untyped-def]
    """Return the record at a pointer."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return args[0]  # a record is passed by its address

    return arguments.dtype(arguments), generate


def records(arguments: Any, count: int) -> Any:
    """Return the first `count` records that a kernel was run with."""
    return arguments.view(np.recarray)[:count]


def array_at(exemplar: Any, address: int, shape: tuple[int, ...]) -> Any:
    """Return the C-contiguous array at an address; `exemplar` may be a type, as np.float64, too."""
    dtype = np.dtype(exemplar) if isinstance(exemplar, type) else exemplar.dtype
    content: Any = (ctypes.c_char * (math.prod(shape) * dtype.itemsize)).from_address(int(address))
    return np.ndarray(shape, dtype, content)


def integers_at(address: int, count: int) -> Any:
    """Return the array (count,) of int64 at an address."""
    return array_at(_INTEGER, address, (count,))


def _emit_array(context: Any, builder: Any, kind: Any, address: Any, shape: Any) -> Any:
    """Emit a C-contiguous array of Numba's type `kind`, at an address or pointer."""
    array = arrayobj.make_array(kind)(context, builder)
    element = context.get_data_type(kind.dtype)
    is_pointer = hasattr(address.type, "pointee")
    data = (builder.bitcast if is_pointer else builder.inttoptr)(address, element.as_pointer())
    is_record = isinstance(kind.dtype, types.Record)  # to ask LLVM for a size takes long
    size = cgutils.intp_t(kind.dtype.size if is_record else kind.dtype.bitwidth // 8)
    strides = [size]
    for length in reversed(shape[1:]):
        strides.insert(0, builder.mul(strides[0], length))
    arrayobj.populate_array(
        array, data=data, shape=shape, strides=strides, itemsize=size, meminfo=None
    )
    return array._getvalue()


@emitted(records)
def _records(context, arguments, count):  # type: ignore[no-untyped-def]
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _emit_array(context, builder, signature.return_type, args[0], [args[1]])

    return types.Array(arguments.dtype, 1, "C")(arguments, types.int64), generate


@emitted(array_at)
def _array_at(context, exemplar, address, shape):  # type: ignore[no-untyped-def]
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        values = zip(cgutils.unpack_tuple(builder, args[2]), signature.args[2], strict=True)
        lengths = [context.cast(builder, value, kind, types.intp) for value, kind in values]
        return _emit_array(context, builder, signature.return_type, args[1], lengths)

    kind = types.Array(exemplar.dtype, len(shape), "C")
    return kind(exemplar, types.int64, shape), generate


@emitted(integers_at)
def _integers_at(context, address, count):  # type: ignore[no-untyped-def]
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _emit_array(context, builder, signature.return_type, args[0], [args[1]])

    return types.Array(types.int64, 1, "C")(types.int64, types.int64), generate
