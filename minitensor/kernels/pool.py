"""The threads that kernels run on: started once, and asleep when there is nothing to do.

A kernel's work is cut into tasks. `share` publishes them; the calling thread and its helpers take
one after the other until none is left, then the caller waits for those that helpers have begun. A
helper that comes late, or not at all, has taken nothing and keeps nobody waiting. So helpers cost
no more than speed where they are missing: on a machine with other work, in a forked process, at
exit, or where the system allows no more threads.

Helpers are Python's threads, but each calls compiled code once and stays there, without the
interpreter's lock. Between two kernels it looks for work for a tenth of a millisecond, which
bridges most gaps between kernels; then it sleeps, on a lock of the kind that Python's own threads
use on every system. Looking for longer gains little on an idle machine, and takes time from whoever
else could compute, who takes it back when there is work. The caller looks for longer before it
sleeps: what it waits for is being done, and it might not get its processor back at once.

Threads meet in an array of words that are read and written by atomic operations alone. These are
sequentially consistent: all threads agree on one order of them, and what was written before one is
there to be read after it, the arrays of a kernel too. Therefore:

- No task is lost or done twice. WORK holds the number of the round and, below it, how many of its
  tasks nobody has taken. To take one is to swap in a word with one less, if WORK still is what it
  was before FUNCTION, SETTINGS, TASKS and HELPERS were read. They change only after the last task
  was taken, and a word with tasks left never comes again, so what was read was of that round.
- A round ends when UNFINISHED, the tasks that are not done, is 0, and only then begins the next.
- Nobody oversleeps. Who goes to sleep sets ASLEEP, then looks for work once more; who has work
  publishes it, then looks who is asleep: whichever comes second sees the other. Whoever turns
  ASLEEP from 1 to 0 decides: the sleeper, who then stays awake, or another thread, which then opens
  the lock that the sleeper waits for.
- The helpers serve one caller at a time: who sets BUSY. Another one does all its tasks itself.

A forked child has no helpers and makes its own when it first needs them. Nobody there looks at the
words that it inherits, whatever was going on when they were copied.
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

import numba
import numpy as np
from llvmlite import ir
from numba import extending
from numba.core import cgutils

from .jit import get_num_threads, jit, native

# mypy: allow-untyped-calls

config: Any = numba.config  # type: ignore[attr-defined]
types: Any = numba.types
intrinsic: Any = extending.intrinsic  # callers leave the first parameter, the context, out

SPIN = 1e-4  # seconds for which a helper looks for work before it sleeps
_PATIENCE = 10  # for so many times as long a caller looks if helpers are done

# Where the words are, in bytes. What different threads write at a time is in lines of its own.
_LINE = 128  # bytes of a cache line, or of two, where the processor fetches pairs
_BUSY, _STOP, _LOOKS, _ACQUIRE, _RELEASE = range(0, 40, 8)
_WORK, _FUNCTION, _SETTINGS, _TASKS, _HELPERS = range(_LINE, _LINE + 40, 8)
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
    """The word at an address."""

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
    """Add to the word at an address; returns what it was before."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", _word(builder, args[0]), args[1], "seq_cst")

    return types.int64(types.int64, types.int64), generate


@intrinsic
def _swap(context, address, old, new):  # type: ignore[no-untyped-def]
    """Set the word at an address to `new` if it is `old`; returns whether it was."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        found = builder.cmpxchg(_word(builder, args[0]), *args[1:], "seq_cst")
        return builder.extract_value(found, 1)

    return types.boolean(*[types.int64] * 3), generate


# What else compiled code asks of the processor and of others' code


@intrinsic
def _pause(context):  # type: ignore[no-untyped-def]
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


def _call(builder: Any, address: Any, *args: Any) -> None:
    """Call the function at an address, and leave what it returns."""
    kind = ir.FunctionType(ir.VoidType(), [x.type for x in args])
    builder.call(builder.inttoptr(address, kind.as_pointer()), args)


def _pointer(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, ir.IntType(8).as_pointer())


@intrinsic
def _call_kernel(context, function, settings, task, tasks):  # type: ignore[no-untyped-def]
    """Call the kernel at an address with the settings at an address."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        nothing = ir.IntType(8).as_pointer()(None)
        _call(builder, args[0], _pointer(builder, args[1]), nothing, *args[2:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), generate


@intrinsic
def _call_acquire(context, function, lock):  # type: ignore[no-untyped-def]
    """Call PyThread_acquire_lock, at an address: wait till the lock is open, and close it."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _call(builder, args[0], _pointer(builder, args[1]), ir.IntType(32)(1))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def _call_release(context, function, lock):  # type: ignore[no-untyped-def]
    """Call PyThread_release_lock, at an address: open the lock."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _call(builder, args[0], _pointer(builder, args[1]))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


# The pool in compiled code: `pool` is the address of the words, `me` that of a sleeper's


@jit
def alone(function: int, settings: int) -> None:
    """Run the kernel at an address, with the settings at an address, as one task."""
    _call_kernel(function, settings, 0, 1)


@jit
def _share(pool: int, function: int, settings: int, tasks: int, helpers: int) -> None:
    """Have all tasks done, by this thread and as many helpers."""
    if not _swap(pool + _BUSY, 0, 1):
        for task in range(tasks):
            _call_kernel(function, settings, task, tasks)
        return
    _store(pool + _FUNCTION, function)
    _store(pool + _SETTINGS, settings)
    _store(pool + _TASKS, tasks)
    _store(pool + _HELPERS, helpers)
    _store(pool + _UNFINISHED, tasks)
    _store(pool + _WORK, (((_load(pool + _WORK) >> _ROUND) + 1) << _ROUND) + tasks)
    me = pool + _SLEEPERS
    for number in range(min(helpers, tasks - 1)):
        _wake(pool, me + (1 + number) * _LINE)
    _work_off(pool, -1)
    looks = _PATIENCE * _load(pool + _LOOKS)
    while _load(pool + _UNFINISHED) != 0:
        _pause()
        looks -= 1
        if looks < 0:
            _store(me + _ASLEEP, 1)
            if _load(pool + _UNFINISHED) != 0 or not _swap(me + _ASLEEP, 1, 0):
                _sleep(pool, me)  # a helper of an earlier round may have waked it: look again
    _store(pool + _BUSY, 0)


def _help(pool: int, number: int) -> None:
    """Be helper `number` until the pool stops; or if it is negative, only look for work."""
    me = pool + _SLEEPERS + (1 + number) * _LINE
    while _load(pool + _STOP) == 0:
        if _work_off(pool, number) == 0:
            _wake(pool, pool + _SLEEPERS)
        looks = _load(pool + _LOOKS)
        while looks > 0 and not _is_work(pool, number):
            _pause()
            looks -= 1
        if number < 0:
            return
        if looks == 0:
            _store(me + _ASLEEP, 1)
            if not _is_work(pool, number) or not _swap(me + _ASLEEP, 1, 0):
                _sleep(pool, me)


@jit
def _is_work(pool: int, number: int) -> bool:
    """Return whether there is a task for helper `number`, or the pool stops."""
    left = _load(pool + _WORK) & _LEFT
    return (left != 0 and number < _load(pool + _HELPERS)) or _load(pool + _STOP) != 0


@jit
def _work_off(pool: int, number: int) -> int:
    """Do tasks until none is left to take; returns how many others are doing, -1 if it did none."""
    done = 0
    while True:
        work = _load(pool + _WORK)
        left = work & _LEFT
        if left == 0 or number >= _load(pool + _HELPERS):
            break
        function, settings = _load(pool + _FUNCTION), _load(pool + _SETTINGS)
        tasks = _load(pool + _TASKS)
        if _swap(pool + _WORK, work, work - 1):
            _call_kernel(function, settings, tasks - left, tasks)
            done += 1
    # What is done was all of one round, which cannot end before this.
    return _add(pool + _UNFINISHED, -done) - done if done > 0 else -1


@jit
def _sleep(pool: int, me: int) -> None:
    _call_acquire(_load(pool + _ACQUIRE), _load(me + _LOCK))


@jit
def _wake(pool: int, me: int) -> None:
    if _load(me + _ASLEEP) != 0 and _swap(me + _ASLEEP, 1, 0):
        _call_release(_load(pool + _RELEASE), _load(me + _LOCK))


# The pool in Python


@functools.cache  # compiled once: a forked child has it too
def _helper() -> Any:
    """`_help` for Python, called without the interpreter's lock."""
    number = ctypes.c_int64
    return ctypes.CFUNCTYPE(None, number, number)(native(_help, types.void(*[types.int64] * 2)))


def _function(name: str, result: Any, *arguments: Any) -> Any:
    """A function that Python has for C."""
    found = ctypes.pythonapi[name]
    found.restype, found.argtypes = result, arguments
    return found


_allocate = _function("PyThread_allocate_lock", ctypes.c_void_p)
_acquire = _function("PyThread_acquire_lock", ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
_release = _function("PyThread_release_lock", None, ctypes.c_void_p)


class Pool:
    """The words, and the helpers that share them."""

    def __init__(self) -> None:
        self._words = np.zeros(_SLEEPERS + (2 + config.NUMBA_NUM_THREADS) * _LINE, np.uint8)
        self.place = -(-self._words.ctypes.data // _LINE) * _LINE
        self._set(_ACQUIRE, ctypes.cast(_acquire, ctypes.c_void_p).value or 0)
        self._set(_RELEASE, ctypes.cast(_release, ctypes.c_void_p).value or 0)
        self._add_sleeper(0)
        self._help = _helper()
        self._set(_LOOKS, self._count_looks(SPIN))
        self._threads: list[threading.Thread] = []
        self.helpers = 0

    def grow(self, helpers: int) -> None:
        """Start helpers until there are so many, or as many as the system allows."""
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
        """Have the helpers go, and wait till they have."""
        self._set(_STOP, 1)
        for number in range(1, 1 + self.helpers):  # nobody will close these locks again
            _release(self._get(_SLEEPERS + number * _LINE + _LOCK))
        for thread in self._threads:
            thread.join()

    def _get(self, word: int) -> int:
        return ctypes.c_int64.from_address(self.place + word).value

    def _set(self, word: int, value: int) -> None:
        ctypes.c_int64.from_address(self.place + word).value = value

    def _add_sleeper(self, number: int) -> None:
        lock = _allocate()
        _acquire(lock, 1)  # it is open to begin with
        self._set(_SLEEPERS + number * _LINE + _LOCK, lock)

    def _count_looks(self, seconds: float) -> int:
        """Return how often one can look for work in that time."""
        count, best = 1000, float("inf")
        self._set(_LOOKS, count)
        for _ in range(5):
            start = time.perf_counter()
            self._help(self.place, -1)
            best = min(best, time.perf_counter() - start)
        return int(count * seconds / best) + 1


_lock = threading.Lock()  # for the pool itself
_pool: Pool | None = None


def share(function: int, settings: int, tasks: int) -> None:
    """Run the kernel at an address, with the settings at an address, on several threads."""
    pool = _pool or _make()
    helpers = get_num_threads() - 1
    if helpers > pool.helpers:
        pool.grow(helpers)
    _share(pool.place, function, settings, tasks, helpers)


def _make() -> Pool:
    global _pool
    with _lock:
        if _pool is None:
            _pool = Pool()
            # Compiled code must not vanish while a helper still runs it.
            atexit.register(_pool.stop)
        return _pool


def _forget() -> None:
    """In a forked child: only the thread that forked is left, perhaps not the one with the lock."""
    global _pool, _lock
    if _pool is not None:
        atexit.unregister(_pool.stop)
    _pool, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
