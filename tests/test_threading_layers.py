"""The kernels' own threads beside those of a user's Numba function, on any threading layer."""

from __future__ import annotations

import importlib
import os
from typing import Any

import numpy as np
import pytest

import minitensor as mt
from minitensor.kernels.jit import COMPILED


@pytest.mark.skipif(not COMPILED, reason="NUMBA_DISABLE_JIT is set")
def test_a_parallel_function_of_a_user_and_kernels_take_turns() -> None:
    """Under the layer that NUMBA_THREADING_LAYER names, or else the first that there is."""
    numba: Any = importlib.import_module("numba")

    @numba.njit(parallel=True)
    def squares(x: Any) -> Any:
        y = np.empty_like(x)
        for i in numba.prange(x.size):
            y[i] = x[i] * x[i]
        return y

    x = np.random.RandomState(0).standard_normal((300, 500)).astype(np.float32)
    expected = mt.softmax(mt.from_numpy(x), -1).numpy()
    for _ in range(20):
        try:
            found = squares(x.reshape(-1))
        except ValueError as error:  # what Numba raises for a layer that is not installed
            pytest.skip(str(error).splitlines()[0])
        np.testing.assert_array_equal(found.reshape(x.shape), x * x)
        np.testing.assert_array_equal(mt.softmax(mt.from_numpy(x), -1).numpy(), expected)
    asked = os.environ.get("NUMBA_THREADING_LAYER", "default")
    assert asked in ("default", numba.threading_layer())
