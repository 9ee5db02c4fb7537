"""The buffer pool: buffers come back when their last view dies, not before; it stays bounded."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from minitensor import memory

LARGE = memory.SMALLEST


@pytest.fixture(autouse=True)
def _clean() -> None:
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


def test_size_classes_waste_little() -> None:
    for count in (LARGE, LARGE + 1, 3 * LARGE - 1, 123_456_789):
        size = memory._size_class(count)
        assert count <= size <= count * 1.125 + 1
        assert memory._size_class(size) == size


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


def test_owns_alone() -> None:
    a = memory.empty((LARGE,), np.float32)
    assert memory.owns_alone(a)
    view = a[1:]
    assert not memory.owns_alone(a)
    del view
    assert memory.owns_alone(a)
    small = np.zeros(3)
    assert memory.owns_alone(small)
    assert not memory.owns_alone(small[1:])
    outside = np.zeros(LARGE)
    assert not memory.owns_alone(outside[:])


def test_threads_never_share_a_buffer() -> None:
    wrong = []

    def work(mark: int) -> None:
        for _ in range(300):
            a = memory.empty((LARGE,), np.uint8)
            a[:64] = mark
            a[-1] = mark
            if not (a[:64] == mark).all() or a[-1] != mark:
                wrong.append(mark)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
