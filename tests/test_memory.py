"""The buffer pool: buffers come back when their last view dies, not before; it stays bounded."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from minitensor import memory

LARGE = memory.SMALLEST


@pytest.fixture(autouse=True)
def _clean() -> None:
    """Nothing that earlier tests left behind returns its buffers during a test."""
    gc.collect()
    memory.release()


def test_a_buffer_is_used_again_only_when_all_views_are_dead() -> None:
    a = memory.empty((LARGE // 4,), np.float32)
    address = a.ctypes.data
    view = a[5:]
    del a
    b = memory.empty((LARGE // 4,), np.float32)
    assert b.ctypes.data != address
    view[:] = 1
    del view
    c = memory.empty((LARGE // 8,), np.float64)
    assert c.ctypes.data == address


def test_results_are_what_was_asked_for() -> None:
    for shape in [(), (0,), (3, 5), (1000, 1001), (2, 0, 3)]:
        for dtype in (np.float32, np.float64, np.int64, np.bool_):
            a = memory.empty(shape, dtype)
            assert a.shape == shape
            assert a.dtype == dtype
            assert a.flags.c_contiguous
            assert a.nbytes < LARGE or a.ctypes.data % 64 == 0
            assert a.flags.writeable
            assert not memory.zeros(shape, dtype).any()


def test_what_lasts_is_not_of_the_pool() -> None:
    before = memory.stats()
    for shape in [(), (0, 3), (LARGE, 2)]:
        a = memory.lasting_zeros(shape, np.float32)
        assert a.shape == shape
        assert a.ctypes.data % 64 == 0
        assert not a.any()
    assert memory.stats() == before


def test_size_classes_waste_little() -> None:
    for count in (LARGE, LARGE + 1, 3 * LARGE - 1, 123_456_789):
        number = memory._size_class(count)
        size = memory._size(number)
        assert count <= size <= count * 1.125 + 1
        assert memory._size_class(size) == number
        assert memory._size_class(size + 1) == number + 1


def test_stats_and_limit() -> None:
    before = memory.stats()
    a = memory.empty((4 * LARGE,), np.uint8)
    b = memory.empty((4 * LARGE,), np.uint8)
    assert memory.stats().used - before.used == 8 * LARGE
    del a, b
    assert memory.stats().idle - before.idle == 8 * LARGE
    limit = before.limit
    try:
        memory.set_limit(5 * LARGE)
        assert memory.stats().idle <= 5 * LARGE
        kept = [memory.empty((n * LARGE,), np.uint8) for n in range(1, 9)]
        del kept
        memory.empty((9 * LARGE,), np.uint8)
        assert memory.stats().idle <= 9 * LARGE
        with pytest.raises(ValueError, match="number of bytes"):
            memory.set_limit(-1)
    finally:
        memory.set_limit(limit)


def test_the_last_buffer_back_goes_first() -> None:
    first, second = (memory.empty((LARGE,), np.uint8) for _ in range(2))
    address = first.ctypes.data
    del second, first
    assert memory.empty((LARGE,), np.uint8).ctypes.data == address


def test_a_larger_buffer_serves_before_a_new_one() -> None:
    a = memory.empty((2 * LARGE,), np.uint8)
    address, misses = a.ctypes.data, memory.stats().misses
    del a
    b = memory.empty((LARGE,), np.uint8)
    assert b.ctypes.data == address
    assert memory.stats().misses == misses
    del b
    assert memory.empty((2 * LARGE,), np.uint8).ctypes.data == address
    d = memory.empty((16 * LARGE,), np.uint8)
    address = d.ctypes.data
    del d
    assert memory.empty((4 * LARGE,), np.uint8).ctypes.data != address  # too large


def test_what_waits_longest_is_let_go_when_more_waits_than_was_ever_in_use() -> None:
    used = memory.stats().used
    for n in range(4, 40, 4):  # one at a time, each too large for those before
        memory.empty((n * LARGE,), np.uint8)
        assert memory.stats().idle <= (used + n * LARGE) + n * LARGE  # in use at most; the last
    address = memory.empty((36 * LARGE,), np.uint8).ctypes.data
    misses = memory.stats().misses
    assert memory.empty((36 * LARGE,), np.uint8).ctypes.data == address
    assert memory.stats().misses == misses


def test_idle_buffers_are_given_back_before_an_allocation_fails() -> None:
    """A process that may use 1.5 GiB holds 1 GiB idle and asks for 1 GiB in another size."""
    program = """
import resource, sys
import numpy as np
import minitensor as mt
from minitensor import memory

space = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (space + (3 << 29), -1))
if resource.getrlimit(resource.RLIMIT_AS)[0] < 0:  # as in an emulator
    sys.exit(77)
held = [memory.empty((1 << 26,), np.uint8) for _ in range(16)]
del held
assert memory.stats().idle >= 1 << 30
x = memory.empty((1 << 30,), np.uint8)
assert memory.stats().idle == 0
del x
held = [memory.empty((1 << 26,), np.uint8) for _ in range(16)]
del held
a = mt.zeros(1 << 14, 1, dtype=mt.int16)
b = mt.zeros(1, 1 << 15, dtype=mt.int16).expand(1 << 14, 1 << 15)
assert (a + b).nbytes == 1 << 30  # what NumPy allocates itself
try:
    mt.zeros(1 << 16, 1) + mt.zeros(1 << 16)
except mt.OutOfMemoryError as error:
    assert isinstance(error, MemoryError) and isinstance(error, RuntimeError)
    assert str(error).startswith("add: ")
    assert "(65536, 1), (65536,)" in str(error), error
else:
    raise AssertionError("it should not fit")
"""
    if not Path("/proc/self/statm").exists():
        pytest.skip("how much memory a process uses is not known here")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    if done.returncode == 77:
        pytest.skip("memory cannot be limited here")
    assert done.returncode == 0, done.stderr


def test_threads_never_share_a_buffer() -> None:
    wrong = []

    def work(mark: int) -> None:
        for n in range(300):
            a = memory.empty((LARGE << n % (2 * mark),), np.uint8)  # some of the pool, some new
            a[:64] = mark
            a[-1] = mark
            if not (a[:64] == mark).all() or a[-1] != mark:
                wrong.append(mark)

    limit = memory.stats().limit
    memory.set_limit(LARGE)
    try:
        threads = [threading.Thread(target=work, args=(n,)) for n in range(1, 4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        memory.set_limit(limit)
    assert not wrong
    memory.release()
    assert memory.stats().idle == 0
