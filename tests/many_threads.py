"""Kernels cut all their work into parts for the threads, however little it is.

Most machines of tests have few cores, and most tests little work, which one thread does alone. With
this, a matrix of three columns is shared by seven threads as one of three thousand is elsewhere:

    NUMBA_NUM_THREADS=7 python -m pytest -p many_threads ...
    NUMBA_NUM_THREADS=7 python tests/many_threads.py

The latter runs every op on its samples, forward and backward, and products of many shapes, on
several numbers of threads, and tells how many kernels were shared by all: results have the same
bits on any number.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
import pkgutil
from collections import Counter
from typing import Any

import numpy as np

import minitensor as mt
import minitensor.kernels
from minitensor.core import OPS, wrap
from minitensor.kernels.jit import most_threads
from minitensor.kernels.matmul import matmul
from minitensor.testing import leaves, samples
from minitensor.testing.op import _as_type
from minitensor.testing.samples import replaced


def cut_all_work() -> None:
    """Take away the sizes from which several threads pay."""
    for found in pkgutil.iter_modules(minitensor.kernels.__path__):
        module = importlib.import_module(f"minitensor.kernels.{found.name}")
        for name, value in {"SERIAL": 0, "PARALLEL": 1, "_PARALLEL": 1}.items():
            if hasattr(module, name):
                setattr(module, name, value)
        for function in vars(module).values():
            if inspect.isfunction(function) and "serial" in inspect.signature(function).parameters:
                function.__defaults__ = (0,)


def bits(call: Any, args: list[Any], kwargs: dict[str, Any], dtype: Any) -> list[bytes]:
    """Return the bytes of an op's results and gradients, with float64 as `dtype`."""
    tensors = [_as_type(t, dtype) for t in leaves([args, kwargs])]
    a, k = replaced([args, kwargs], iter(tensors))
    mt.manual_seed(0)
    noise = np.random.RandomState(0)
    found = leaves([call(*a, **k)])
    for out in found:
        if out.requires_grad and out.dtype.is_floating_point:
            dy = noise.standard_normal(out.shape).astype(out._array.dtype)
            out.backward(wrap(dy), retain_graph=True)
    found += [t.grad for t in tensors if t.grad is not None]
    return [t._array.tobytes() for t in found]


def check_ops(counts: list[int]) -> int:
    """Return how many samples of ops were compared; AssertionError if threads change a bit."""
    count = 0
    for name, op in sorted(OPS.items()):
        for number, (args, kwargs) in enumerate(samples(op)):
            for dtype in (np.float64, np.float32):
                found = []
                for threads in counts:
                    mt.set_num_threads(threads)
                    found.append(bits(op.call, args, kwargs, dtype))
                same = [x == found[0] for x in found]
                assert all(same), (name, number, np.dtype(dtype).name, counts, same)
                count += 1
    return count


def check_products(counts: list[int]) -> int:
    """Return how many products were compared: with NumPy's, and bit by bit on all threads."""
    noise = np.random.RandomState(0)
    count = 0
    sizes = [1, 2, 3, 7, 13, 16, 17, 20], [1, 2, 5, 17, 33, 40], [1, 2, 5, 300]
    for m, n, k in itertools.product(*sizes):
        dtype: Any
        for dtype, stack in itertools.product((np.float32, np.float64), ((), (3,))):
            a, b = (noise.standard_normal((*stack, *x)).astype(dtype) for x in ((m, k), (k, n)))
            bias = noise.standard_normal(n).astype(dtype)
            bound = 4 * (k + 2) * np.finfo(dtype).eps * np.sqrt(k)
            expected = a.astype(np.float64) @ b
            total = a.sum(-1, dtype=np.float64)
            for x, y in itertools.product((a, _turned(a)), (b, _turned(b))):
                found = []
                for threads in counts:
                    mt.set_num_threads(threads)
                    plain, biased, more = matmul(x, y), matmul(x, y, bias=bias), a @ b
                    matmul(x, y, more, accumulate=True)
                    results = [plain - expected, biased - bias - expected, more - 2 * expected]
                    if not stack:
                        sums = np.full(m, np.nan, dtype)
                        again = matmul(x, y, row_sums=sums)
                        results += [again - expected, sums - total]
                    errors = [float(np.abs(r).max()) for r in results]
                    assert max(errors) <= bound, (m, n, k, stack, dtype, threads, errors)
                    found.append((plain.tobytes(), biased.tobytes(), more.tobytes()))
                assert len(set(found)) == 1, (m, n, k, stack, x.strides, y.strides, counts)
                count += 1
    return count


def _turned(x: np.ndarray) -> np.ndarray:
    """Return a copy whose rows lie in columns."""
    return np.ascontiguousarray(x.swapaxes(-1, -2)).swapaxes(-1, -2)


def count_shared() -> Counter[int]:
    """Return a counter of the kernels that are run from now on, by the number of their tasks."""
    tasks_of: Counter[int] = Counter()
    parallel = importlib.import_module("minitensor.kernels.parallel")
    run_parallel = parallel.run_parallel

    def counted(function: int, arguments: int, tasks: int) -> None:
        tasks_of[tasks] += 1
        run_parallel(function, arguments, tasks)

    vars(parallel)["run_parallel"] = counted
    return tasks_of


cut_all_work()
if __name__ == "__main__":
    counts = sorted({1, 2, 3, most_threads()})
    tasks_of = count_shared()
    print(f"{check_products(counts)} products have the same bits on {counts} threads")
    print(f"{check_ops(counts)} samples of ops have the same bits on {counts} threads")
    print(f"{tasks_of[most_threads()]} kernels shared by {most_threads()} threads")
