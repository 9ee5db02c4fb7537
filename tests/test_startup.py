"""The cost of an import and the notices of the compiler, in processes of their own."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from minitensor.kernels.jit import COMPILED

STEP = """
import minitensor as mt
layer = mt.nn.Linear(3, 2)
mt.nn.functional.relu(layer(mt.ones(4, 3))).sum().backward()
"""


def run(code: str, **environment: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )


def test_the_compiler_is_imported_for_the_first_kernel_that_is_not_kept(tmp_path: Path) -> None:
    """It takes longer than all else. LLVM is loaded for the first kernel."""
    code = """
import sys
import minitensor
import minitensor.autograd.gradcheck
from minitensor.kernels import softmax
assert "numba" not in sys.modules and "llvmlite" not in sys.modules
x = minitensor.zeros(3) + 1
assert "numba" not in sys.modules and "llvmlite" not in sys.modules
"""
    run(code)


def test_an_import_loads_no_more_than_a_training_script_needs() -> None:
    """The graph, tests, other formats and the like are there when they are asked for."""
    later = "compat distributions graph linalg models onnx pytorch testing tools"
    code = f"""
import sys
import minitensor
from minitensor import data, nn, optim
loaded = {{name.split(".")[1] for name in sys.modules if name.startswith("minitensor.")}}
assert not loaded & set({later.split()}), loaded
others = {{"graphviz", "torch", "asyncio", "email", "http", "multiprocessing", "unittest"}}
assert not others & set(sys.modules), others & set(sys.modules)
assert "graph" in dir(minitensor)
assert minitensor.graph.trace(nn.Linear(3, 2), minitensor.ones(1, 3)).nodes
"""
    run(code)


def test_a_misspelt_kernel_fails_at_import() -> None:
    kernels = importlib.import_module("minitensor.kernels")
    for name in ("sofmax", "__all__"):
        with pytest.raises(AttributeError, match=f"no attribute '{name}'"):
            getattr(kernels, name)
    with pytest.raises(ImportError, match="cannot import name 'sofmax'"):
        exec("from minitensor.kernels import sofmax")


KERNELS_OF_A_STEP = """
activation._relu_backward adam._adam cross_entropy._cross_entropy
cross_entropy._sum_target_weights dropout._map embedding._gather embedding._sum gemm._gemm
matmul._gemm_stack norm._backward norm._forward softmax._backward softmax._forward
"""
TRAIN = """
import sys
from minitensor.tools.bench.worker import first_step
first_step(dict(
    name="first", vocabulary=50, d_model=16, heads=2, layers=1, feedforward=32, batch=2, length=4
))
print(*sorted(name for name in ("llvmlite", "numba") if name in sys.modules))
"""


@pytest.mark.skipif(not COMPILED, reason="nothing is compiled")
def test_a_training_step_needs_few_kernels_and_a_second_start_no_compiler(tmp_path: Path) -> None:
    first, second = (run(TRAIN, MINITENSOR_CACHE=str(tmp_path)) for _ in range(2))
    assert first.stdout == "llvmlite numba\n"
    kept = sorted(file.name.split("-")[0] for file in tmp_path.iterdir())
    assert kept == sorted(KERNELS_OF_A_STEP.split())
    assert second.stdout == "llvmlite\n"
    assert second.stderr == ""


@pytest.mark.skipif(not COMPILED, reason="nothing is compiled")
def test_the_compiler_is_announced_once(tmp_path: Path) -> None:
    first, second = (run(STEP, MINITENSOR_CACHE=str(tmp_path)) for _ in range(2))
    assert first.stderr == f"minitensor: compiling kernels, once; kept in {tmp_path}\n"
    assert second.stderr == ""
    assert first.stdout == second.stdout == ""


@pytest.mark.skipif(not COMPILED, reason="nothing is compiled")
def test_the_users_own_compiled_functions_are_not_announced(tmp_path: Path) -> None:
    code = """
import numba
import minitensor.kernels.simd
numba.njit(lambda x: x + 1)(1)
"""
    assert run(code, MINITENSOR_CACHE=str(tmp_path)).stderr == ""


def test_uncompiled_kernels_announce_nothing(tmp_path: Path) -> None:
    done = run(STEP, MINITENSOR_CACHE=str(tmp_path), NUMBA_DISABLE_JIT="1")
    assert done.stderr == done.stdout == ""
