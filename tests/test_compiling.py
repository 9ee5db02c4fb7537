"""Numba after a kernel was compiled: as it was, for functions that are not kernels."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

from minitensor.kernels.jit import COMPILED, jit
from minitensor.kernels.objectcode import native

if not COMPILED:
    pytest.skip("nothing is compiled", allow_module_level=True)

import numba


@jit
def _cut(x: Any, most: Any) -> Any:
    return min(x, most)


def _cut_all(x, n):  # type: ignore[no-untyped-def]
    for i in range(n):
        x[i] = _cut(x[i], np.float32(2))


@numba.njit
def _python_calls_it(x: Any) -> Any:
    return x + 1


def _call_it(x, n):  # type: ignore[no-untyped-def]
    for i in range(n):
        x[i] = _python_calls_it(x[i])


def test_functions_of_numba_work_after_a_kernel_was_compiled() -> None:
    """Also if they call the same functions as the kernel, which were only translated for it."""
    usual = numba.core.registry.cpu_target.target_context.codegen()
    assert native(_cut_all, [np.dtype(np.float32)], 1)
    assert numba.core.registry.cpu_target.target_context.codegen() is usual

    @numba.njit
    def least(x: Any) -> Any:
        return min(x[0], x[1])

    assert least(np.array([3, 2], np.float32)) == 2


def test_a_function_for_python_is_refused_in_a_kernel() -> None:
    """Numba would go on to call it from Python, where kernels have no code for that."""
    with pytest.raises(NotImplementedError, match=r"decorated with minitensor.kernels.jit.jit"):
        native(_call_it, [np.dtype(np.float32)], 1)
    assert _python_calls_it(np.float32(1)) == 2
    assert gc.isenabled()
