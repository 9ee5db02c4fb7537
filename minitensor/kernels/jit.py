"""How kernels are compiled: lazily, once, and kept on disk.

Whoever has to wait for the compiler is told so, on stderr. Numba is imported here when the first
kernel file is, which takes longer than all else.
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

# Everything but nnan and ninf: masks are -inf, and NaN has to come through.
FASTMATH = {"nsz", "arcp", "contract", "afn", "reassoc"}

COMPILED = not int(os.environ.get("NUMBA_DISABLE_JIT") or 0)  # else kernels run as Python


@functools.cache
def _numba() -> Any:
    import numba

    return numba


def jit(function: Callable[..., Any] | None = None, *, fastmath: bool = True) -> Any:
    """Compile `function` on its first call. Options as in `numba.njit`; x / 0 is inf."""
    if function is None:
        return lambda f: jit(f, fastmath=fastmath)
    if not COMPILED:
        return np.errstate(all="ignore")(function)  # compiled code warns of no -inf - -inf either
    from .objectcode import Overloads

    options: Any = {
        "fastmath": FASTMATH if fastmath else False,
        "error_model": "numpy",
        "nogil": True,
        "no_cfunc_wrapper": True,  # `native` makes what C calls
    }
    made = _numba().njit(**options)(function)
    made._cache = Overloads(function, options)
    return made


def native(function: Callable[..., Any], signature: Any, fastmath: Any = False) -> int:
    """Compile `function` now, for C, and return its address; keep `function` to keep the code.

    What calls it through the address is compiled without compiling it again.
    """
    from .objectcode import facts, keep, load

    options: Any = {"error_model": "numpy", "fastmath": fastmath}
    depends = facts(function, signature, options)
    found = load(depends)
    if not found:
        made = _numba().cfunc(signature, **options)(function)
        function.__dict__.setdefault("native", []).append(made)
        keep(depends, made)
        found = int(made.address)
    return found


def set_num_threads(count: int) -> None:
    """Run kernels on `count` threads, at least 1 and at most the cores; ValueError otherwise."""
    global _threads
    most = _numba().config.NUMBA_NUM_THREADS
    if not 1 <= count <= most:
        raise ValueError(
            f"set_num_threads: expected 1 to {most} threads on this machine, got {count}"
        )
    _threads = count


def get_num_threads() -> int:
    """Return the number of threads of kernels: at first, that of the cores for this process.

    NUMBA_NUM_THREADS in the environment sets another number to begin with.
    """
    global _threads
    if not _threads:
        _threads = int(_numba().config.NUMBA_NUM_THREADS)  # no more than it may run on
        if "NUMBA_NUM_THREADS" not in os.environ:
            _threads = min(_threads, _quota())
    return _threads


_threads = 0  # not known yet
_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")  # of Linux: microseconds of computing in how many


def _quota() -> int:
    """Return the number of cores whose time a container gets, past which it is stopped."""
    try:
        most, period = _CPU_MAX.read_text().split()
        return max(1, math.ceil(int(most) / int(period)))
    except (OSError, ValueError):  # there is no such file, or it says "max"
        return sys.maxsize
