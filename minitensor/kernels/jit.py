"""How kernels are compiled: lazily, once, and kept on disk.

Compiled code is cached in a directory named after a digest of all kernel sources, because Numba's
own cache does not notice a change in another file: a kernel that uses a helper of its neighbour
is compiled again when either changes. MINITENSOR_CACHE names another place for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba
import numpy as np

# Everything but nnan and ninf: masks are -inf, and NaN has to come through.
FASTMATH = {"nsz", "arcp", "contract", "afn", "reassoc"}


def _cache_directory() -> str:
    """A writable directory for this version of the kernels."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    digest.update(os.environ.get("MINITENSOR_SIMD", "").encode())
    if chosen := os.environ.get("MINITENSOR_CACHE"):
        root = Path(chosen)
    elif sys.platform == "win32":
        root = Path(os.environ.get("LOCALAPPDATA", tempfile.gettempdir())) / "minitensor"
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minitensor"
    for place in (
        root,
        Path(tempfile.gettempdir()) / f"minitensor-{os.getuid() if hasattr(os, 'getuid') else 0}",
    ):
        folder = place / digest.hexdigest()[:16]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                return str(folder)
        except OSError:
            continue
    return ""


_CACHE = _cache_directory()


def jit(
    function: Callable[..., Any] | None = None, *, parallel: bool = False, fastmath: bool = True
) -> Any:
    """Compile `function` on its first call. Options as in `numba.njit`; x / 0 is inf."""
    if function is None:
        return lambda f: jit(f, parallel=parallel, fastmath=fastmath)
    if numba.config.DISABLE_JIT:
        return np.errstate(all="ignore")(function)  # compiled code warns of no -inf - -inf either
    with _cached() as cache:
        return numba.njit(
            cache=cache,
            parallel=parallel,
            fastmath=FASTMATH if fastmath else False,
            error_model="numpy",
            nogil=True,
        )(function)


def native(function: Callable[..., Any], signature: Any) -> int:
    """Compile `function` now, for C, and return its address; keep `function` to keep the code.

    What calls it through the address is compiled without compiling it again.
    """
    with _cached() as cache:
        made = numba.cfunc(signature, cache=cache)(function)
    function.__dict__.setdefault("native", []).append(made)
    return int(made.address)


@contextlib.contextmanager
def _cached() -> Iterator[bool]:
    """Functions declared inside keep their code in our directory; yields whether there is one."""
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = _CACHE
    try:
        yield bool(_CACHE)
    finally:
        numba.config.CACHE_DIR = before


def set_num_threads(count: int) -> None:
    """Run kernels on `count` threads, at least 1 and at most the cores; ValueError otherwise."""
    most = numba.config.NUMBA_NUM_THREADS
    if not 1 <= count <= most:
        raise ValueError(
            f"set_num_threads: expected 1 to {most} threads on this machine, got {count}"
        )
    numba.set_num_threads(count)


def get_num_threads() -> int:
    """How many threads kernels run on."""
    return int(numba.get_num_threads())
