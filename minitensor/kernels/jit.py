"""How kernels are compiled: lazily, once, and kept on disk.

Compiled code is cached in directories named after a digest of the kernel file and of those whose
helpers it uses, because Numba's own cache does not notice a change in another file.
MINITENSOR_CACHE names another place for them. Whoever has to wait for the compiler is told so, on
stderr.

Numba is imported here when the first kernel file is, which takes longer than all else.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

# Everything but nnan and ninf: masks are -inf, and NaN has to come through.
FASTMATH = {"nsz", "arcp", "contract", "afn", "reassoc"}

COMPILED = not int(os.environ.get("NUMBA_DISABLE_JIT") or 0)  # else kernels run as Python


@functools.cache
def _numba() -> Any:
    """Numba, whose first work on a kernel will be announced."""
    import numba
    from numba.core import event

    class Announcer(event.Listener):
        def on_start(self, event: Any) -> None:
            if not _announced and event.data["module"].startswith("minitensor"):
                _announce()

        def on_end(self, event: Any) -> None:
            pass

    listen: Any = event.register
    listen("numba:run_pass", Announcer())  # of the compiler: none runs on what is cached
    return numba


_announced = False


def _announce() -> None:
    global _announced
    _announced = True
    folder = _cache_directory("jit")
    where = f"once; kept in {Path(folder).parent}" if folder else "which no directory can keep"
    print(f"minitensor: compiling kernels, {where}", file=sys.stderr, flush=True)


@functools.cache
def _sources(name: str) -> frozenset[str]:
    """A kernel file and all kernel files whose helpers it uses, by name."""
    text = (Path(__file__).parent / f"{name}.py").read_text()
    used = set(re.findall(r"^from \.(\w+) import", text, re.MULTILINE))
    for names in re.findall(r"^from \. import (.+)$", text, re.MULTILINE):
        used |= {n.split()[0] for n in names.split(",")}
    return frozenset({name}.union(*map(_sources, used)))


@functools.cache
def _cache_directory(name: str) -> str:
    """A writable directory for this version of kernel file `name`; "" if there is none."""
    digest = hashlib.sha256(os.environ.get("MINITENSOR_SIMD", "").encode())
    for source in sorted(_sources(name)):
        digest.update((Path(__file__).parent / f"{source}.py").read_bytes())
    if chosen := os.environ.get("MINITENSOR_CACHE"):
        root = Path(chosen)
    elif sys.platform == "win32":
        root = Path(os.environ.get("LOCALAPPDATA", tempfile.gettempdir())) / "minitensor"
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minitensor"
    user = os.getuid() if hasattr(os, "getuid") else 0
    for place in (root, Path(tempfile.gettempdir()) / f"minitensor-{user}"):
        folder = place / f"{name}-{digest.hexdigest()[:16]}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                return str(folder)
        except OSError:
            continue
    return ""


def jit(function: Callable[..., Any] | None = None, *, fastmath: bool = True) -> Any:
    """Compile `function` on its first call. Options as in `numba.njit`; x / 0 is inf."""
    if function is None:
        return lambda f: jit(f, fastmath=fastmath)
    if not COMPILED:
        return np.errstate(all="ignore")(function)  # compiled code warns of no -inf - -inf either
    with _cached(function) as cache:
        return _numba().njit(
            cache=cache,
            fastmath=FASTMATH if fastmath else False,
            error_model="numpy",
            nogil=True,
            no_cfunc_wrapper=True,  # `native` makes what C calls
        )(function)


def native(function: Callable[..., Any], signature: Any, fastmath: Any = False) -> int:
    """Compile `function` now, for C, and return its address; keep `function` to keep the code.

    What calls it through the address is compiled without compiling it again.
    """
    with _cached(function) as cache:
        options: Any = {"error_model": "numpy", "fastmath": fastmath}
        made = _numba().cfunc(signature, cache=cache, **options)(function)
    function.__dict__.setdefault("native", []).append(made)
    return int(made.address)


@contextlib.contextmanager
def _cached(function: Callable[..., Any]) -> Iterator[bool]:
    """Inside, `function` is declared so that its code is kept; yields whether it can be."""
    folder = _cache_directory(Path(function.__code__.co_filename).stem)
    config = _numba().config
    before = config.CACHE_DIR
    config.CACHE_DIR = folder
    try:
        yield bool(folder)
    finally:
        config.CACHE_DIR = before


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
    """How many threads kernels run on: at first, as many as there are cores for this process.

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
    """How many cores' time a container gets; it would be stopped for a while if it took more."""
    try:
        most, period = _CPU_MAX.read_text().split()
        return max(1, math.ceil(int(most) / int(period)))
    except (OSError, ValueError):  # there is no such file, or it says "max"
        return sys.maxsize
