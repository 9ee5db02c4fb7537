"""Compiled kernels: from the cache (`kernels.cache`), without pickle, or made by Numba.

A kernel is called by its address, in the calling convention of Numba's functions (`kernels.calls`).
What comes from the cache is loaded without Numba's compiler, which takes long to start.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import json
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding
import numpy as np

from .cache import Facts, announce, read, write
from .calls import load_code, new_engine, working
from .compiling import compile_to_object_code
from .jit import compiler, core, options_of
from .simd import DOT

llvm: Any = llvmlite.binding
_BEGAN = time.time()
_HERE = Path(__file__).parent
_IMPORT = re.compile(
    r"^from (\.|minitensor\.kernels(?:\.|(?= )))(?:(\w+) import| ?import (.+)$)", re.MULTILINE
)
_SETTINGS = ["OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "BOUNDSCHECK", "DEBUGINFO"]
_SETTINGS += ["CPU_NAME", "CPU_FEATURES", "ENABLE_AVX"]  # of Numba, in the environment
_announced = False
ADDRESSES: set[int] = set()  # of all code that was asked for, and of constants: they stay


def native(
    function: Callable[..., Any],
    pointers: Sequence[np.dtype[Any]],
    integers: int,
    fastmath: Any = False,
    pointer: Callable[[Any], Any] | None = None,
) -> int:
    """Compile `function` of pointers to these dtypes and of int64 to code; return its address.

    `pointer` makes Numba's type of such a pointer of that of its dtype, if it is not a plain one.
    Functions that call it by address (`kernels.calls`) are compiled without compiling it again.
    """
    options = options_of(fastmath)
    kind = pointer.__name__ if pointer else ""
    with working:
        depends = facts(function, [*pointers, integers, kind], options)
        found = load(depends) or compile_and_keep(
            depends, function, pointers, integers, options, pointer
        )
    ADDRESSES.add(found)
    return found


def facts(function: Callable[..., Any], arguments: Sequence[Any], options: dict[str, Any]) -> Facts:
    """Return all facts that a function's code depends on, the cache key; empty if not known."""
    sources = _digest(Path(function.__code__.co_filename))
    if not sources or function.__closure__:
        return {}
    return {
        "function": f"{function.__module__}.{function.__qualname__}",
        "line": str(function.__code__.co_firstlineno),
        "arguments": str([str(kind) for kind in arguments]),
        "options": json.dumps(options, default=sorted, sort_keys=True),
        "sources": sources,
        **_surroundings(),
    }


def _surroundings() -> Facts:
    """Return the facts that all functions' code depends on."""
    settings = [os.environ.get(f"NUMBA_{name}") for name in _SETTINGS]
    simd = f"{os.environ.get('MINITENSOR_SIMD', '')} {DOT}"
    return {"settings": str(settings), "simd": simd, **_machine()}


@functools.cache
def _machine() -> Facts:
    compiler = importlib.util.find_spec("numba")  # which is not imported
    version = Path(compiler.origin or "").with_name("_version.py") if compiler else Path()
    features = ""
    with contextlib.suppress(RuntimeError):  # LLVM does not know
        features = llvm.get_host_cpu_features().flatten()
    return {
        "numba": hashlib.sha256(version.read_bytes()).hexdigest(),
        "llvmlite": llvmlite.__version__,
        "numpy": np.__version__,
        "python": sys.version,
        "system": f"{llvm.get_process_triple()} {platform.machine()}",
        "processor": f"{llvm.get_host_cpu_name()} {features}",
    }


@functools.cache
def _digest(file: Path) -> str:
    """Return a digest of a file and the kernel files it imports; "" if one changed since import."""
    digest = hashlib.sha256()
    try:
        for source in sorted(_sources(file)):
            content = _content(source)
            if not content:
                return ""  # it changed after it was imported
            digest.update(content)
    except OSError:
        return ""
    return digest.hexdigest()


@functools.cache
def _content(source: Path) -> bytes:
    """Return a digest of one file; empty if it changed since the start of this process."""
    times = source.stat()
    if max(times.st_mtime, times.st_ctime) > _BEGAN:
        return b""
    return hashlib.sha256(source.read_bytes()).digest()


def _sources(file: Path) -> set[Path]:
    found: set[Path] = set()
    left = [file]
    while left:
        source = left.pop()
        if source not in found:
            found.add(source)
            left += _imported(source)
    return found


@functools.cache
def _imported(source: Path) -> list[Path]:
    """Return the kernel files that a file imports."""
    found = []
    for place, name, names in _IMPORT.findall(source.read_text("utf-8", "replace")):
        folder = source.parent if place == "." else _HERE
        modules = [name] if name else [n.split()[0] for n in names.split(",")]
        found += [folder / f"{module}.py" for module in modules]
    return found


def load(facts: Facts) -> int:
    """Return the address of a function from the cache; 0 if there is none."""
    found = read(facts) if facts else None
    if found is None or not _known(found[0]["needs"]):
        return 0
    return load_code(found[1], found[0]["symbol"])


def compile_and_keep(
    facts: Facts,
    function: Callable[..., Any],
    pointers: Sequence[Any],
    integers: int,
    options: dict[str, Any],
    pointer: Callable[[Any], Any] | None = None,
) -> int:
    """Compile a function by Numba, cache it, and return its address."""
    global _announced
    if not _announced and str(function.__module__).startswith("minitensor"):
        _announced = True
        announce()
    numba = compiler()
    make = pointer or numba.types.CPointer
    kinds = [make(numba.from_dtype(dtype)) for dtype in pointers]
    kinds += [numba.types.int64] * integers
    made = compile_to_object_code(function, kinds, options)
    if facts and made.movable and _known(made.needs):
        write(facts, {"symbol": made.symbol, "needs": made.needs}, made.code)
    return load_code(made.code, made.symbol)


def _known(names: list[str]) -> bool:
    """Return True if all symbols exist; LLVM aborts the process if one does not."""
    if not all(map(llvm.address_of_symbol, names)):
        _load_symbols()
    return all(map(llvm.address_of_symbol, names))


@functools.cache
def _load_symbols() -> None:
    """Make the symbols of this process known to LLVM, and those of Numba."""
    new_engine("")
    compiler()
    core.runtime.rtsys.initialize(core.registry.cpu_target.target_context)
