"""erf and erfc of every element of an array.

Each is one pass over flat arrays, bound by the arithmetic: about twenty operations per element in
float32, a call of the C library in float64.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import memory
from .jit import jit
from .math import erf as erf_of


@jit
def _erf(x: np.ndarray, y: np.ndarray) -> None:
    for i in range(x.size):
        y[i] = erf_of(x[i])


@jit
def _erfc(x: np.ndarray, y: np.ndarray) -> None:
    for i in range(x.size):
        y[i] = math.erfc(x[i])


def erf(x: np.ndarray) -> np.ndarray:
    """The error function of each element of `x`, in its shape and type."""
    return _each(_erf, x)


def erfc(x: np.ndarray) -> np.ndarray:
    """1 - erf(x), accurate where erf(x) is close to 1, of each element of `x`."""
    return _each(_erfc, x)


def _each(kernel: Any, x: np.ndarray) -> np.ndarray:
    if x.dtype == np.float16:
        return _each(kernel, x.astype(np.float32)).astype(np.float16)
    y = memory.empty(x.shape, x.dtype)
    kernel(np.ascontiguousarray(x).reshape(-1), y.reshape(-1))
    return y
