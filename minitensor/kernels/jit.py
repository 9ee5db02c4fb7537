"""Compilation of kernels by Numba at their first use, with a cache on disk; number of threads.

A one-line notice on stderr announces compilation. Numba is imported when a kernel has to be
compiled, as that takes longer than to import all of minitensor; kernels in the cache need it not.
Hence the decorators here, which are Numba's of the same names, note what to tell Numba later, and
return the function as it is.
"""

from __future__ import annotations

import functools
import math
import os
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

_F = TypeVar("_F", bound=Callable[..., Any])

# All but nnan and ninf: masks are -inf, and NaN has to propagate.
FASTMATH = {"nsz", "arcp", "contract", "afn", "reassoc"}

COMPILED = not int(os.environ.get("NUMBA_DISABLE_JIT") or 0)  # otherwise kernels run as Python

_untold: list[Callable[[], Any]] = []


def compiler() -> Any:
    """Return Numba, which knows all functions for kernels that were decorated so far."""
    import numba

    while _untold:
        _untold.pop()()
    return numba


class Later:
    """A module that is imported when something of it is asked for."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        from importlib import import_module

        found = getattr(import_module(self._name), name)
        setattr(self, name, found)  # later look-ups do not come here
        return found


types: Any = Later("numba.core.types")
cgutils: Any = Later("numba.core.cgutils")
arrayobj: Any = Later("numba.np.arrayobj")
templates: Any = Later("numba.core.typing.templates")
extending: Any = Later("numba.extending")
core: Any = Later("numba.core")


def jit(function: Callable[..., Any] | None = None, *, fastmath: Any = True, **options: Any) -> Any:
    """Let kernels call `function`, which is compiled with each of them; in it, x / 0 is inf."""
    if function is None:
        return lambda f: jit(f, fastmath=fastmath, **options)
    if not COMPILED:
        return np.errstate(all="ignore")(function)  # compiled code does not warn either
    overload(function, **(options_of(fastmath) | options))(lambda *args: function)
    return function


def options_of(fastmath: Any) -> dict[str, Any]:
    """Return the options of Numba for a function; True stands for `FASTMATH`."""
    chosen = FASTMATH if fastmath is True else fastmath
    return {
        "fastmath": chosen,
        "error_model": "numpy",
        "_nrt": False,  # no kernel makes an array
        "no_rewrites": True,  # nor computes with whole arrays, which Numba would rewrite as loops
        "no_cpython_wrapper": True,  # nor is called from Python
        "no_cfunc_wrapper": True,
    }


def overload(public: Callable[..., Any], **options: Any) -> Callable[[_F], _F]:
    """Decorate a function of types, which returns what kernels run for `public` on these types."""

    def decorate(choose: _F) -> _F:
        def tell() -> None:
            extending.overload(public, jit_options=options, strict=False)(choose)

        _untold.append(tell)
        return choose

    return decorate


def intrinsic(define: Callable[..., Any], public: Any = None) -> Any:
    """Decorate a function of the context and types, which emits the code of a call of it.

    It returns a signature and a function that emits the code. Callers leave the context out.
    """

    def tell() -> None:
        key = public or define
        template = templates.make_intrinsic_template(key, define, key.__name__)
        templates.infer(template)
        templates.infer_global(key, types.Function(template))

    _untold.append(tell)
    return define


def emitted(public: Callable[..., Any]) -> Callable[[Callable[..., Any]], Any]:
    """Decorate what an `intrinsic` is defined by, to be run by kernels for `public`."""
    return functools.partial(intrinsic, public=public)


def set_num_threads(count: int) -> None:
    """Run kernels on `count` threads, from 1 to the number of cores; ValueError otherwise."""
    global _threads, _asked
    most = most_threads()
    if not 1 <= count <= most:
        raise ValueError(
            f"set_num_threads: expected 1 to {most} threads on this machine, got {count}"
        )
    _threads, _asked = count, True


def get_num_threads() -> int:
    """Return the number of threads that kernels run on.

    By default that is the number of cores this process may use, or NUMBA_NUM_THREADS.
    """
    global _threads
    if not _threads:
        _threads = most_threads()
        if "NUMBA_NUM_THREADS" not in os.environ:
            _threads = min(_threads, _quota())
    return _threads


@functools.cache
def most_threads() -> int:
    """Return NUMBA_NUM_THREADS, or the number of cores this process may run on."""
    if asked := os.environ.get("NUMBA_NUM_THREADS"):
        return int(asked)
    return len(cores())


def cores() -> frozenset[int]:
    """Return the numbers of the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def share_cores(processes: Sequence[Collection[int]]) -> None:
    """Leave other processes on this machine their share, unless the number of threads was set.

    `processes` has, for this one and each other, the cores that it may run on.
    """
    global _threads
    if not _asked and "NUMBA_NUM_THREADS" not in os.environ:
        share = sum(1 / sum(core in each for each in processes) for core in cores())
        _threads = max(1, min(int(share + 1e-6), _quota() // len(processes)))


_threads = 0  # until it is known
_asked = False  # has the program set it?
_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")  # Linux: microseconds of computing per period


def _quota() -> int:
    """Return the number of cores that a container's quota of processor time amounts to."""
    try:
        most, period = _CPU_MAX.read_text("utf-8").split()
        return max(1, math.ceil(int(most) / int(period)))
    except (OSError, ValueError):  # no such file, or no limit: "max"
        return sys.maxsize
