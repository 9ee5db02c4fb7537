"""The thread pool of kernels: helper threads, started once, that spin briefly and then sleep.

A kernel's work is cut into tasks. `run_parallel` publishes them; the calling thread and its helpers
take one after another until none is left, then the caller waits for those that helpers have begun.
A helper that comes late, or never, has taken nothing, so nobody waits for it. Missing helpers cost
speed alone: on a busy machine, in a forked process, at exit, or if the system allows no more
threads.

Helpers are Python threads, but each calls compiled code once and stays there, without the GIL.
After a kernel it spins for a tenth of a millisecond, which bridges most gaps between kernels, then
sleeps on a lock of Python's own kind, which exists on every system. Spinning for longer gains
little on an idle machine and takes time from other processes on a busy one. The caller spins for
longer before it sleeps: the tasks it waits for are running, and a sleeper might not get its
processor back at once.

Threads meet in an array of words that are read and written by atomic operations alone. These are
sequentially consistent: all threads see one order of them, and whatever was written before one can
be read after it, including the arrays of a kernel. Therefore:

- No task is lost or done twice. WORK holds the number of the round and, in its lowest bits, the
  number of tasks not taken. A thread takes one by compare-and-swap to a word with one less, if WORK
  is still what it was before FUNCTION, ARGUMENTS, TASKS and HELPERS were read. These change only
  after the last task is taken, and a word with tasks left never recurs, so what was read belongs to
  that round.
- A round ends when UNFINISHED, the number of tasks not done, is 0. Only then can the next begin.
- No wake-up is lost. A thread that goes to sleep sets ASLEEP, then looks for work once more; a
  thread with work publishes it, then looks for sleepers: whichever comes second sees the other. The
  thread that swaps ASLEEP from 1 to 0 decides: the sleeper itself, which then stays awake, or
  another thread, which then releases the lock that the sleeper waits for.
- The helpers serve one caller at a time, the one that set BUSY. Another does all its tasks itself.

A forked child has no helpers and makes a pool of its own at first need. It never reads the words it
inherits, whatever was going on when they were copied.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import os
import platform
import threading
import time
from typing import Any

import numpy as np
from llvmlite import ir

from .calls import caller, emit_call
from .jit import cgutils, get_num_threads, intrinsic, jit, most_threads, types
from .objectcode import native

# mypy: allow-untyped-calls

SPIN = 1e-4  # seconds for which a helper spins before it sleeps
_PATIENCE = 10  # a caller spins for so many times as long until helpers are done

# Offsets of the words in bytes. Words that different threads write are on cache lines of their own.
_LINE = 128  # bytes of a cache line, or of two, where the processor fetches pairs
_BUSY, _STOP, _SPINS, _ACQUIRE, _RELEASE = range(0, 40, 8)
_WORK, _FUNCTION, _ARGUMENTS, _TASKS, _HELPERS = range(_LINE, _LINE + 40, 8)
_UNFINISHED = 2 * _LINE
_SLEEPERS = 3 * _LINE  # a line for the caller, then one for each helper:
_ASLEEP, _LOCK = 0, 8

_ROUND = 24  # the bits of _WORK below the number of the round
_LEFT = (1 << _ROUND) - 1


# Atomic operations


def _word(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, ir.IntType(64).as_pointer())


@intrinsic
def _load(context, address):  # type: ignore[no-untyped-def]
    """Return the word at an address."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load_atomic(_word(builder, args[0]), "seq_cst", 8)

    return types.int64(types.int64), generate


@intrinsic
def _store(context, address, value):  # type: ignore[no-untyped-def]
    """Set the word at an address."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store_atomic(args[1], _word(builder, args[0]), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def _add(context, address, value):  # type: ignore[no-untyped-def]
    """Add to the word at an address and return its old value."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", _word(builder, args[0]), args[1], "seq_cst")

    return types.int64(types.int64, types.int64), generate


@intrinsic
def _swap(context, address, old, new):  # type: ignore[no-untyped-def]
    """Set the word at an address to `new` if it is `old`; return True if it was."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        found = builder.cmpxchg(_word(builder, args[0]), *args[1:], "seq_cst")
        return builder.extract_value(found, 1)

    return types.boolean(*[types.int64] * 3), generate


# Other instructions, and calls by address


@intrinsic
def _pause(context):  # type: ignore[no-untyped-def]
    """Tell the processor that this loop spins."""

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


def _call(builder: Any, address: Any, *args: Any) -> None:
    """Call the function at an address and ignore its result."""
    kind = ir.FunctionType(ir.VoidType(), [x.type for x in args])
    builder.call(builder.inttoptr(address, kind.as_pointer()), args)


def _pointer(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, ir.IntType(8).as_pointer())


@intrinsic
def _call_kernel(context, function, arguments, task, tasks):  # type: ignore[no-untyped-def]
    """Call the kernel at an address with the arguments at an address."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit_call(builder, args[0], [args[1], ir.IntType(64)(0), *args[2:]])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), generate


@intrinsic
def _call_acquire(context, function, lock):  # type: ignore[no-untyped-def]
    """Call PyThread_acquire_lock, at an address: wait for the lock and take it."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _call(builder, args[0], _pointer(builder, args[1]), ir.IntType(32)(1))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def _call_release(context, function, lock):  # type: ignore[no-untyped-def]
    """Call PyThread_release_lock, at an address."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _call(builder, args[0], _pointer(builder, args[1]))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


# Compiled code of the pool: `pool` is the address of the words, `me` of this thread's among them


@jit
def _run_parallel(pool: int, function: int, arguments: int, tasks: int, helpers: int) -> None:
    """Do all tasks on this thread and so many helpers."""
    if not _swap(pool + _BUSY, 0, 1):
        for task in range(tasks):
            _call_kernel(function, arguments, task, tasks)
        return
    _store(pool + _FUNCTION, function)
    _store(pool + _ARGUMENTS, arguments)
    _store(pool + _TASKS, tasks)
    _store(pool + _HELPERS, helpers)
    _store(pool + _UNFINISHED, tasks)
    _store(pool + _WORK, (((_load(pool + _WORK) >> _ROUND) + 1) << _ROUND) + tasks)
    me = pool + _SLEEPERS
    for number in range(min(helpers, tasks - 1)):
        _wake(pool, me + (1 + number) * _LINE)
    _do_tasks(pool, -1)
    spins = _PATIENCE * _load(pool + _SPINS)
    while _load(pool + _UNFINISHED) != 0:
        _pause()
        spins -= 1
        if spins < 0:
            _store(me + _ASLEEP, 1)
            if _load(pool + _UNFINISHED) != 0 or not _swap(me + _ASLEEP, 1, 0):
                _sleep(pool, me)  # perhaps woken late by a helper of an earlier round: check again
    _store(pool + _BUSY, 0)


@jit
def _run_program(pool: int, calls: int, count: int, helpers: int) -> None:
    """Run kernels one after another: `count` times a function, its arguments and its tasks."""
    for call in range(calls, calls + 24 * count, 24):
        function, arguments, tasks = _load(call), _load(call + 8), _load(call + 16)
        if tasks == 1:
            _call_kernel(function, arguments, 0, 1)
        else:
            _run_parallel(pool, function, arguments, tasks, helpers)


def _help(pool: int, number: int) -> None:
    """Run as helper `number` until the pool stops; a negative one spins once, to be timed."""
    me = pool + _SLEEPERS + (1 + number) * _LINE
    while _load(pool + _STOP) == 0:
        if _do_tasks(pool, number) == 0:
            _wake(pool, pool + _SLEEPERS)
        spins = _load(pool + _SPINS)
        while spins > 0 and not _is_work(pool, number):
            _pause()
            spins -= 1
        if number < 0:
            return
        if spins == 0:
            _store(me + _ASLEEP, 1)
            if not _is_work(pool, number) or not _swap(me + _ASLEEP, 1, 0):
                _sleep(pool, me)


@jit
def _is_work(pool: int, number: int) -> bool:
    """Return True if there is a task for helper `number`, or the pool stops."""
    left = _load(pool + _WORK) & _LEFT
    return (left != 0 and number < _load(pool + _HELPERS)) or _load(pool + _STOP) != 0


@jit
def _do_tasks(pool: int, number: int) -> int:
    """Do tasks until none is left; return how many are unfinished, or -1 if it did none."""
    done = 0
    while True:
        work = _load(pool + _WORK)
        left = work & _LEFT
        if left == 0 or number >= _load(pool + _HELPERS):
            break
        function, arguments = _load(pool + _FUNCTION), _load(pool + _ARGUMENTS)
        tasks = _load(pool + _TASKS)
        if _swap(pool + _WORK, work, work - 1):
            _call_kernel(function, arguments, tasks - left, tasks)
            done += 1
    # All of these tasks were of one round, which cannot end before this.
    return _add(pool + _UNFINISHED, -done) - done if done > 0 else -1


@jit
def _sleep(pool: int, me: int) -> None:
    _call_acquire(_load(pool + _ACQUIRE), _load(me + _LOCK))


@jit
def _wake(pool: int, me: int) -> None:
    if _load(me + _ASLEEP) != 0 and _swap(me + _ASLEEP, 1, 0):
        _call_release(_load(pool + _RELEASE), _load(me + _LOCK))


# The Python side of the pool


@functools.cache  # compiled once: a forked child inherits it
def _helper() -> Any:
    """Return `_help` as a ctypes function, which is called without the GIL."""
    number, place = ctypes.c_int64, ctypes.c_void_p
    made = ctypes.CFUNCTYPE(ctypes.c_int, place, place, number, number)(native(_help, [], 2))
    result, error = place(), place()  # which are not used
    return functools.partial(made, ctypes.addressof(result), ctypes.addressof(error))


def _function(name: str, result: Any, *arguments: Any) -> Any:
    """Return a function of Python's C API."""
    found = ctypes.pythonapi[name]
    found.restype, found.argtypes = result, arguments
    return found


_allocate = _function("PyThread_allocate_lock", ctypes.c_void_p)
_acquire = _function("PyThread_acquire_lock", ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
_release = _function("PyThread_release_lock", None, ctypes.c_void_p)


class Pool:
    """The words of a pool, and its helper threads."""

    def __init__(self) -> None:
        self._words = np.zeros(_SLEEPERS + (2 + most_threads()) * _LINE, np.uint8)
        self.place = -(-self._words.ctypes.data // _LINE) * _LINE
        self._set(_ACQUIRE, ctypes.cast(_acquire, ctypes.c_void_p).value or 0)
        self._set(_RELEASE, ctypes.cast(_release, ctypes.c_void_p).value or 0)
        self._add_sleeper(0)
        self._help = _helper()
        self.run = native(_run_parallel, [], 5)
        self._set(_SPINS, self._count_spins(SPIN))
        self._threads: list[threading.Thread] = []
        self.helpers = 0

    def grow(self, helpers: int) -> None:
        """Start helpers until there are so many, or no more are allowed by the system."""
        with _lock:
            for number in range(self.helpers, helpers):
                self._add_sleeper(1 + number)
                thread = threading.Thread(
                    target=self._help,
                    args=(self.place, number),
                    name=f"minitensor-{1 + number}",
                    daemon=True,
                )
                with contextlib.suppress(RuntimeError):
                    thread.start()
                    self._threads.append(thread)
            self.helpers = max(self.helpers, helpers)

    def stop(self) -> None:
        """Stop the helpers and wait for their threads to end."""
        self._set(_STOP, 1)
        for number in range(1, 1 + self.helpers):  # nobody will take these locks again
            _release(self._get(_SLEEPERS + number * _LINE + _LOCK))
        for thread in self._threads:
            thread.join()

    def _get(self, word: int) -> int:
        return ctypes.c_int64.from_address(self.place + word).value

    def _set(self, word: int, value: int) -> None:
        ctypes.c_int64.from_address(self.place + word).value = value

    def _add_sleeper(self, number: int) -> None:
        lock = _allocate()
        _acquire(lock, 1)  # a new lock is open
        self._set(_SLEEPERS + number * _LINE + _LOCK, lock)

    def _count_spins(self, seconds: float) -> int:
        """Return the number of spins that take so many seconds."""
        count, best = 1000, float("inf")
        self._set(_SPINS, count)
        for _ in range(5):
            start = time.perf_counter()
            self._help(self.place, -1)
            best = min(best, time.perf_counter() - start)
        return int(count * seconds / best) + 1


_call_four, _call_five = caller(4), caller(5)
_lock = threading.Lock()  # guards `_pool` and its threads
_pool: Pool | None = None


def run_serial(function: int, arguments: int) -> None:
    """Run the kernel at an address, with the arguments at an address, as one task."""
    _call_four(function, arguments, 0, 0, 1)


def run_parallel(function: int, arguments: int, tasks: int) -> None:
    """Run the kernel at an address, with the arguments at an address, on several threads."""
    pool, helpers = _ready()
    _call_five(pool.run, pool.place, function, arguments, tasks, helpers)


def run_program(calls: int, count: int) -> None:
    """Run `count` kernels, whose functions, arguments and tasks are at an address, in order."""
    pool, helpers = _ready()
    _call_four(_program(), pool.place, calls, count, helpers)


@functools.cache
def _program() -> int:
    return native(_run_program, [], 4)


def _ready() -> tuple[Pool, int]:
    """Return the pool, and the number of helpers that serve a caller now."""
    pool = _pool or _make()
    helpers = get_num_threads() - 1
    if helpers > pool.helpers:
        pool.grow(helpers)
    return pool, helpers


def _make() -> Pool:
    global _pool
    with _lock:
        if _pool is None:
            _pool = Pool()
            # Compiled code must not be unloaded while a helper still runs it.
            atexit.register(_pool.stop)
        return _pool


def _forget() -> None:
    """Drop the pool in a forked child, which has no other threads, perhaps not the lock's owner."""
    global _pool, _lock
    if _pool is not None:
        atexit.unregister(_pool.stop)
    _pool, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
