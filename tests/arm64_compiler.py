"""Kernels for ARM, compiled by Numba on this machine for the tests that `tests/arm64.sh` emulates.

Numba and LLVM are some 20 times slower under emulation. So this has an interpreter of the machine
itself, which ARM64_COMPILER names, translate each kernel to ARM's object code, and loads that where
Numba would have compiled it:

    python -m pytest -p arm64_compiler ...
    python tests/arm64_compiler.py SCRIPT [arguments]

The emulated process tells which processor LLVM is to compile for. The instructions are those that
Numba makes there.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import os
import pickle
import platform
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import llvmlite.binding

llvm: Any = llvmlite.binding
TRIPLE = "aarch64-unknown-linux-gnu"


def serve() -> None:
    """Compile what comes in at stdin, and write the object code to stdout."""
    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    cpu, features, dot = pickle.load(requests)
    platform.machine = lambda: "aarch64"
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    llvm.get_process_triple = lambda: TRIPLE
    llvm.get_host_cpu_name = lambda: cpu
    llvm.get_host_cpu_features = lambda: features
    llvm.Target.from_default_triple = lambda: llvm.Target.from_triple(TRIPLE)

    import numba

    vars(importlib.import_module("minitensor.kernels.simd"))["DOT"] = dot
    from minitensor.kernels.compiling import compile_to_object_code
    from minitensor.kernels.jit import compiler

    while True:
        try:
            function, pointers, integers, options, pointer = pickle.load(requests)
        except EOFError:
            return
        compiler()
        make = pointer or numba.types.CPointer
        kinds = [make(numba.from_dtype(dtype)) for dtype in pointers]
        kinds += [numba.types.int64] * integers
        made = compile_to_object_code(function, kinds, options)
        pickle.dump((made.code, made.symbol, made.needs, made.movable), replies)
        replies.flush()


@functools.cache
def _server(process: int) -> Any:
    """Return the process that compiles for this one, which has the number `process`."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("QEMU", "LD_"))}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    server = subprocess.Popen(
        [os.environ["ARM64_COMPILER"], __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    )
    dot = importlib.import_module("minitensor.kernels.simd").DOT
    _ask(server, (llvm.get_host_cpu_name(), llvm.get_host_cpu_features(), dot))
    atexit.register(lambda: os.getpid() == process and server.communicate())
    return server


def _ask(server: Any, question: Any) -> None:
    pickle.dump(question, server.stdin)
    server.stdin.flush()


def compile_elsewhere(
    facts: Any, function: Any, pointers: Any, integers: int, options: Any, pointer: Any = None
) -> int:
    """Do what `compile_and_keep` does; let Numba do it here for code that is this process's.

    So it does for functions of tests, too.
    """
    if facts and function.__module__.startswith("minitensor."):
        server = _server(os.getpid())
        _ask(server, (function, pointers, integers, options, pointer))
        code, symbol, needs, movable = pickle.load(server.stdout)
        if movable and objectcode._known(needs):
            objectcode.write(facts, {"symbol": symbol, "needs": needs}, code)
            return objectcode.load_code(code, symbol)
    return compile_here(facts, function, pointers, integers, options, pointer)


if __name__ == "__main__" and not sys.argv[1:]:
    serve()
elif os.environ.get("ARM64_COMPILER"):
    # Not `from minitensor.kernels import objectcode`, which gives a stand-in for the module.
    objectcode: Any = importlib.import_module("minitensor.kernels.objectcode")
    compile_here = objectcode.compile_and_keep
    objectcode.compile_and_keep = compile_elsewhere
if sys.argv[1:] and __name__ == "__main__":
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
