"""The threads that kernels run on: started once, asleep when there is nothing to do.

A kernel's work is cut into tasks. `share` publishes them; the calling thread and its helpers take
one after the other until none is left, and the caller waits for those that helpers have begun. So
a helper that comes late, or not at all, takes nothing and delays nobody, which is what makes this
safe: on a machine with other work a helper may wait long for a processor; in a forked process
there are none; at exit they have gone. All of these cost speed alone.

Helpers are Python's threads, but each calls compiled code once and stays there, without the
interpreter's lock. Between two kernels a helper looks for work for a few microseconds, then sleeps:
looking is quick where kernels follow each other, but takes time from whoever else could compute.
Locks of Python's own, of which C has the use too, are what they sleep on; they exist wherever
Python does.

Threads meet in an array of words, each changed by atomic operations alone, which are sequentially
consistent: they happen in one order that all threads agree on, and what was written before one is
seen after it. Then:

- WORK holds the number of the round, and below it how many of its tasks nobody has taken. Who takes
  one swaps in a word with one less, if the word is still the one it had read before it read the
  round's FUNCTION, SETTINGS, TASKS and HELPERS. Those change only after the last task was taken,
  and a word with tasks left never comes again: so what was read belongs together.
- UNFINISHED counts down what is not done. A round ends when it is 0, and only then begins the next.
- Nobody oversleeps. Who goes to sleep says so (ASLEEP), then looks for work once more; who has work
  publishes it, then looks who is asleep. One of the two comes first, and the other sees it. Who
  turns ASLEEP from 1 to 0 decides: the sleeper itself, who then stays awake, or another thread,
  which then opens the lock, so the sleeper may wait for that.
- BUSY gives the helpers to one caller at a time. Another one does all of its tasks itself.

After a fork the child makes new helpers when it first needs them. Whatever state the old words were
copied in, nobody looks at them again.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import platform
import threading
import time
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import extending
from numba.core import cgutils

from .jit import COMPILED, get_num_threads, jit, native

types: Any = numba.types
intrinsic: Any = extending.intrinsic  # callers leave the first parameter, the context, out

# Where the words are, in bytes. What different threads write at a time has lines of its own.
_LINE = 128  # bytes: a cache line, or the pair of lines that some processors fetch
BUSY, STOP, LOOKS, ACQUIRE, RELEASE = (8 * i for i in range(5))
WORK, FUNCTION, SETTINGS, TASKS, HELPERS = (_LINE + 8 * i for i in range(5))
UNFINISHED = 2 * _LINE
SLEEPERS = 3 * _LINE  # a line for the caller, then one for each helper
ASLEEP, LOCK = 0, 8

_TASK_BITS = 24  # of WORK; the rest counts rounds
_LEFT = (1 << _TASK_BITS) - 1
MOST_TASKS = _LEFT

SPIN = float(os.environ.get("MINITENSOR_SPIN", "30e-6"))  # seconds


# Atomic operations on the word at an address


def _pointer(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, ir.IntType(64).as_pointer())


@intrinsic
def load(context, address):  # type: ignore[no-untyped-def]
    """The word at an address."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load_atomic(_pointer(builder, args[0]), "seq_cst", 8)

    return types.int64(types.int64), generate


@intrinsic
def store(context, address, value):  # type: ignore[no-untyped-def]
    """Set the word at an address."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store_atomic(args[1], _pointer(builder, args[0]), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def add(context, address, value):  # type: ignore[no-untyped-def]
    """Add to the word at an address; returns what it was."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", _pointer(builder, args[0]), args[1], "seq_cst")

    return types.int64(types.int64, types.int64), generate


@intrinsic
def swap(context, address, old, new):  # type: ignore[no-untyped-def]
    """Set the word at an address to `new` if it is `old`; returns whether it was."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        found = builder.cmpxchg(_pointer(builder, args[0]), *args[1:], "seq_cst", "seq_cst")
        return builder.extract_value(found, 1)

    return types.boolean(*[types.int64] * 3), generate


# What else compiled code needs of the processor and of Python

@intrinsic
def pause(context):  # type: ignore[no-untyped-def]
    """Tell the processor that a loop waits for another thread."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        machine, number = platform.machine().lower(), ir.IntType(32)
        name, given = "", []
        if machine in ("x86_64", "amd64"):
            name = "llvm.x86.sse2.pause"
        elif machine in ("arm64", "aarch64"):
            name, given = "llvm.aarch64.isb", [number(15)]  # its "yield" does nothing
        if name:
            kind = ir.FunctionType(ir.VoidType(), [number] * len(given))
            builder.call(cgutils.get_or_insert_function(builder.module, kind, name), given)
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def call_kernel(context, function, settings, task, tasks):  # type: ignore[no-untyped-def]
    """Call the kernel at the address `function` with the settings at an address."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        number, pointer = ir.IntType(64), ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, pointer, number, number])
        code = builder.inttoptr(args[0], kind.as_pointer())
        builder.call(code, [builder.inttoptr(args[1], pointer), pointer(None), *args[2:]])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), generate


@intrinsic
def call_lock(context, function, lock, flag):  # type: ignore[no-untyped-def]
    """Call PyThread_acquire_lock(lock, flag) or PyThread_release_lock(lock), by its address."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        number, pointer = ir.IntType(32), ir.IntType(8).as_pointer()
        kind = ir.FunctionType(number, [pointer, number])
        code = builder.inttoptr(args[0], kind.as_pointer())
        builder.call(code, [builder.inttoptr(args[1], pointer), builder.trunc(args[2], number)])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), generate


# The pool, in compiled code: `pool` is the address of its words, `me` that of a sleeper's


@jit
def _is_work(pool: int, number: int) -> bool:
    """Whether there is a task that helper `number` may take, or an end to its service."""
    return (load(pool + WORK) & _LEFT != 0 and number < load(pool + HELPERS)) or load(
        pool + STOP
    ) != 0


@jit
def _work_off(pool: int, number: int) -> int:
    """Take tasks and do them until none is left; returns how many are then still being done."""
    done = 0
    while True:
        work = load(pool + WORK)
        left = work & _LEFT
        if left == 0 or number >= load(pool + HELPERS):
            break
        function, settings = load(pool + FUNCTION), load(pool + SETTINGS)
        tasks = load(pool + TASKS)
        if swap(pool + WORK, work, work - 1):
            call_kernel(function, settings, tasks - left, tasks)
            done += 1
    # Till here the round could not end, so all that was done was of one round.
    return add(pool + UNFINISHED, -done) - done if done != 0 else -1


@jit
def _sleep(pool: int, me: int) -> None:
    """Sleep till another thread opens the lock."""
    call_lock(load(pool + ACQUIRE), load(me + LOCK), 1)


@jit
def _wake(pool: int, me: int) -> None:
    """Wake a sleeper, if it is asleep."""
    if load(me + ASLEEP) != 0 and swap(me + ASLEEP, 1, 0):
        call_lock(load(pool + RELEASE), load(me + LOCK), 0)


def _help(pool: int, number: int) -> None:
    """Be helper `number`, until the pool stops."""
    me = pool + SLEEPERS + (1 + number) * _LINE
    while load(pool + STOP) == 0:
        if _work_off(pool, number) == 0:
            _wake(pool, pool + SLEEPERS)
        looks = load(pool + LOOKS)
        while looks > 0 and not _is_work(pool, number):
            pause()
            looks -= 1
        if looks == 0:
            store(me + ASLEEP, 1)
            if not _is_work(pool, number) or not swap(me + ASLEEP, 1, 0):
                _sleep(pool, me)


@jit
def _share(pool: int, function: int, settings: int, tasks: int, helpers: int) -> None:
    """Have all tasks of a kernel done, by this thread and helpers."""
    if not swap(pool + BUSY, 0, 1):
        for task in range(tasks):
            call_kernel(function, settings, task, tasks)
        return
    store(pool + FUNCTION, function)
    store(pool + SETTINGS, settings)
    store(pool + TASKS, tasks)
    store(pool + HELPERS, helpers)
    store(pool + UNFINISHED, tasks)
    store(pool + WORK, ((load(pool + WORK) >> _TASK_BITS) + 1) << _TASK_BITS | tasks)
    me = pool + SLEEPERS
    for number in range(min(helpers, tasks - 1)):
        _wake(pool, me + (1 + number) * _LINE)
    _work_off(pool, -1)
    looks = load(pool + LOOKS)
    while load(pool + UNFINISHED) != 0:
        pause()
        looks -= 1
        if looks < 0:
            store(me + ASLEEP, 1)
            if load(pool + UNFINISHED) != 0 or not swap(me + ASLEEP, 1, 0):
                _sleep(pool, me)
    store(pool + BUSY, 0)


@jit
def alone(function: int, settings: int) -> None:
    """Run the kernel at an address, with the settings at an address, as one task."""
    call_kernel(function, settings, 0, 1)


@jit
def _look(pool: int, times: int) -> None:
    """Look for work that often; to measure how long it takes."""
    while times > 0 and not _is_work(pool, 0):
        pause()
        times -= 1


# The pool, in Python


class Pool:
    """Words, and the helpers that share them."""

    def __init__(self) -> None:
        most = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
        self._words = np.zeros(SLEEPERS + (most + 2) * _LINE, np.uint8)
        self.place = -(-self._words.ctypes.data // _LINE) * _LINE
        api = ctypes.pythonapi
        for place, function in (
            (ACQUIRE, api.PyThread_acquire_lock),
            (RELEASE, api.PyThread_release_lock),
        ):
            self._set(place, ctypes.cast(function, ctypes.c_void_p).value or 0)
        self._add_sleeper(0)
        times = 1000
        _look(self.place, 1)  # compiles
        spans = []
        for _ in range(5):
            start = time.perf_counter()
            _look(self.place, times)
            spans.append(time.perf_counter() - start)
        self._set(LOOKS, int(SPIN / min(spans) * times) + 1)
        work = native(_help, types.void(types.int64, types.int64))
        self._work = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)(work)
        self._threads: list[threading.Thread] = []
        self.helpers = 0

    def _set(self, offset: int, value: int) -> None:
        ctypes.c_int64.from_address(self.place + offset).value = value

    def _add_sleeper(self, number: int) -> None:
        allocate = ctypes.pythonapi.PyThread_allocate_lock
        allocate.restype = ctypes.c_void_p
        lock = allocate()
        acquire = ctypes.pythonapi.PyThread_acquire_lock
        acquire.argtypes = [ctypes.c_void_p, ctypes.c_int]
        acquire(lock, 1)  # which the first to sleep finds closed
        self._set(SLEEPERS + number * _LINE + LOCK, lock)

    def grow(self, helpers: int) -> None:
        """Have so many helpers, or as many as the system allows."""
        with _lock:
            for number in range(self.helpers, helpers):
                self._add_sleeper(1 + number)
                thread = threading.Thread(
                    target=self._work, args=(self.place, number), daemon=True,
                    name=f"minitensor-{number + 1}",
                )  # fmt: skip
                with contextlib.suppress(RuntimeError):
                    thread.start()
                    self._threads.append(thread)
            self.helpers = max(helpers, self.helpers)

    def stop(self) -> None:
        """Let the helpers go, and wait till they have: code must not vanish under them at exit."""
        self._set(STOP, 1)
        for number in range(len(self._threads)):
            _wake(self.place, self.place + SLEEPERS + (1 + number) * _LINE)
        for thread in self._threads:
            thread.join()


_pool: Pool | None = None
_lock = threading.Lock()


def share(function: int, settings: int, tasks: int) -> None:
    """Run the kernel at an address, with the settings at an address, as that many tasks."""
    pool = _pool or _start()
    helpers = get_num_threads() - 1
    if helpers > pool.helpers:
        pool.grow(helpers)
    _share(pool.place, function, settings, tasks, helpers)


def _start() -> Pool:
    global _pool
    with _lock:
        if _pool is None:
            _pool = Pool()
            atexit.register(_pool.stop)
        return _pool


def _forget() -> None:
    """After a fork, in the child: no thread but this one is left."""
    global _pool, _lock
    if _pool:
        atexit.unregister(_pool.stop)
    _pool, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
