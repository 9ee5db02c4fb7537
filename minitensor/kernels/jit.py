"""Compilation of kernels by Numba at their first use, with a cache on disk; number of threads.

A one-line notice on stderr announces compilation. Numba is imported for the first kernel only, as
that takes longer than to import all of minitensor.
"""

from __future__ import annotations

import functools
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

# All but nnan and ninf: masks are -inf, and NaN has to propagate.
FASTMATH = {"nsz", "arcp", "contract", "afn", "reassoc"}

COMPILED = not int(os.environ.get("NUMBA_DISABLE_JIT") or 0)  # otherwise kernels run as Python


@functools.cache
def _numba() -> Any:
    import numba

    return numba


def jit(function: Callable[..., Any] | None = None, *, fastmath: bool = True) -> Any:
    """Return `function` compiled by Numba at its first call; in it, x / 0 is inf."""
    if function is None:
        return lambda f: jit(f, fastmath=fastmath)
    if not COMPILED:
        return np.errstate(all="ignore")(function)  # compiled code does not warn either
    from .objectcode import Overloads

    options: Any = {
        "fastmath": FASTMATH if fastmath else False,
        "error_model": "numpy",
        "nogil": True,
        "no_cfunc_wrapper": True,  # `native` compiles what is called by address
    }
    made = _numba().njit(**options)(function)
    made._cache = Overloads(function, options)
    return made


def native(function: Callable[..., Any], signature: Any, fastmath: Any = False) -> int:
    """Compile `function` now to native code with C's calling convention, and return its address.

    A function that calls it by address is compiled without compiling it again. The code lives as
    long as `function`.
    """
    from .objectcode import facts, keep, load, vectors_of
    from .simd import VECTOR_BYTES

    options: Any = {"error_model": "numpy", "fastmath": fastmath}
    depends = facts(function, signature, options)
    found = load(depends)
    if not found:
        with vectors_of(VECTOR_BYTES):
            made = _numba().cfunc(signature, **options)(function)
        function.__dict__.setdefault("native", []).append(made)
        keep(depends, made)
        found = int(made.address)
    return found


def set_num_threads(count: int) -> None:
    """Run kernels on `count` threads, from 1 to the number of cores; ValueError otherwise."""
    global _threads
    most = _numba().config.NUMBA_NUM_THREADS
    if not 1 <= count <= most:
        raise ValueError(
            f"set_num_threads: expected 1 to {most} threads on this machine, got {count}"
        )
    _threads = count


def get_num_threads() -> int:
    """Return the number of threads that kernels run on.

    By default that is the number of cores this process may use, or NUMBA_NUM_THREADS.
    """
    global _threads
    if not _threads:
        _threads = int(_numba().config.NUMBA_NUM_THREADS)  # the cores this process may run on
        if "NUMBA_NUM_THREADS" not in os.environ:
            _threads = min(_threads, _quota())
    return _threads


_threads = 0  # until it is known
_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")  # Linux: microseconds of computing per period


def _quota() -> int:
    """Return the number of cores that a container's quota of processor time amounts to."""
    try:
        most, period = _CPU_MAX.read_text().split()
        return max(1, math.ceil(int(most) / int(period)))
    except (OSError, ValueError):  # no such file, or no limit: "max"
        return sys.maxsize
