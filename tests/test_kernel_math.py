"""The polynomials that kernels call in their loops, against the C library in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minitensor.kernels import math as kernel
from minitensor.kernels.jit import FASTMATH, compiler


def _loop(function: Any) -> Callable[[Any, Any], None]:
    @compiler().njit(fastmath=FASTMATH, error_model="numpy")
    def loop(x: Any, y: Any) -> None:
        for i in range(x.size):
            y[i] = function(x[i])

    return loop


FUNCTIONS: dict[str, tuple[Any, Callable[[float], float], float, float]] = {
    "exp": (_loop(kernel.exp), math.exp, -86.0, 88.7),
    "log": (_loop(kernel.log), math.log, 1e-30, 1e30),
    "tanh": (_loop(kernel.tanh), math.tanh, -12.0, 12.0),
    "erf": (_loop(kernel.erf), math.erf, -5.0, 5.0),
    "sigmoid": (_loop(kernel.sigmoid), lambda x: 1 / (1 + math.exp(-x)), -80.0, 80.0),
}


def run(name: str, x: Any, dtype: Any) -> np.ndarray:
    x = np.asarray(x, dtype)
    y = np.empty_like(x)
    with np.errstate(all="ignore"):  # where nothing is compiled
        FUNCTIONS[name][0](x, y)
    return y


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 3e-7), (np.float64, 1e-15)])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_accuracy(name: str, dtype: Any, tolerance: float) -> None:
    _, exact, low, high = FUNCTIONS[name]
    tiny = 10.0 ** -np.arange(1, 30)
    x = np.concatenate([np.linspace(low, high, 3001), np.linspace(-0.8, 0.8, 3001), tiny, -tiny])
    x = x[(x >= low) & (x <= high)].astype(dtype)
    expected = np.array([exact(v) for v in x.tolist()])
    np.testing.assert_allclose(run(name, x, dtype), expected, rtol=tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("exp", [0, np.inf, np.nan, 1, 0, np.inf]),
        ("log", [np.nan, np.inf, np.nan, -np.inf, np.nan, math.log(2000)]),
        ("tanh", [-1, 1, np.nan, 0, -1, 1]),
        ("erf", [-1, 1, np.nan, 0, -1, 1]),
        ("sigmoid", [0, 1, np.nan, 0.5, 0, 1]),
    ],
)
def test_limits(name: str, expected: list[float], dtype: Any) -> None:
    found = run(name, [-np.inf, np.inf, np.nan, 0, -2000, 2000], dtype)
    np.testing.assert_array_equal(found, np.array(expected, dtype))


@pytest.mark.parametrize("name", ["exp", "sigmoid"])
def test_subnormal_results_are_kept(name: str) -> None:
    x = np.linspace(-104, -86, 1001, dtype=np.float32)
    expected = np.exp(x.astype(np.float64)).astype(np.float32)
    np.testing.assert_allclose(run(name, x, np.float32), expected, rtol=2e-7, atol=1.5e-45)


def test_exp_reaches_the_largest_number() -> None:
    y = run("exp", [88.72, 88.73], np.float32)
    assert np.isfinite(y[0])
    assert y[1] == np.inf


@pytest.mark.parametrize("name", ["tanh", "erf"])
def test_odd(name: str) -> None:
    x = np.linspace(0, 6, 1001)
    y, negative = run(name, x, np.float32), run(name, -x, np.float32)
    np.testing.assert_array_equal(y, -negative)
    np.testing.assert_array_equal(np.signbit(y), ~np.signbit(negative))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_position_in_the_loop_does_not_matter(name: str) -> None:
    """The vector code and the remainder of a loop compute the same."""
    x = np.random.RandomState(0).standard_normal(67)
    whole = run(name, x, np.float32)
    single = [run(name, x[i : i + 1], np.float32)[0] for i in range(67)]
    np.testing.assert_array_equal(whole, single)
