"""exp, expm1, log, log1p, softplus, erf and erfc of every element of an array.

Each is one pass that threads share, bound by the arithmetic: some twenty to forty vector
instructions for each 8 or 16 elements in float32. In float64 softplus, erf and
erfc call the C library, the others are NumPy's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import memory
from .dropout import mapped
from .math import erf as erf_of
from .math import exp as exp_of
from .math import expm1 as expm1_of
from .math import log as log_of
from .math import log1p as log1p_of
from .tasks import Part, array_at


def _exp(like, size, at):  # type: ignore[no-untyped-def]
    y = array_at(like, at, (size,))
    for i in range(size):
        y[i] = exp_of(y[i])


def _log(like, size, at):  # type: ignore[no-untyped-def]
    y = array_at(like, at, (size,))
    for i in range(size):
        y[i] = log_of(y[i])


def _expm1(like, size, at):  # type: ignore[no-untyped-def]
    y = array_at(like, at, (size,))
    for i in range(size):
        y[i] = expm1_of(y[i])


def _log1p(like, size, at):  # type: ignore[no-untyped-def]
    y = array_at(like, at, (size,))
    for i in range(size):
        y[i] = log1p_of(y[i])


def _softplus(like, size, at):  # type: ignore[no-untyped-def]
    y = array_at(like, at, (size,))
    zero = y.dtype.type(0)
    for i in range(size):
        y[i] = (zero if y[i] < zero else y[i]) + log1p_of(exp_of(-abs(y[i])))


def _erf(like, size, at):  # type: ignore[no-untyped-def]
    y = array_at(like, at, (size,))
    for i in range(size):
        y[i] = erf_of(y[i])


def _erfc(like, size, at):  # type: ignore[no-untyped-def]
    y = array_at(like, at, (size,))
    for i in range(size):
        y[i] = math.erfc(np.float64(y[i]))  # the C library's is within an ulp in float64 only


_PARTS = {f: Part(f, 2, {"contract"}) for f in (_exp, _expm1, _log, _log1p, _softplus, _erf, _erfc)}


def exp(x: np.ndarray) -> np.ndarray:
    """e^x for each element of `x`, in its shape and type."""
    return _each(_exp, x)


def expm1(x: np.ndarray) -> np.ndarray:
    """e^x - 1, accurate near 0, of each element of `x`."""
    return _each(_expm1, x)


def log(x: np.ndarray) -> np.ndarray:
    """The natural logarithm of each element of `x`, in its shape and type."""
    return _each(_log, x)


def log1p(x: np.ndarray) -> np.ndarray:
    """ln(1 + x), accurate near 0, of each element of `x`."""
    return _each(_log1p, x)


def softplus(x: np.ndarray) -> np.ndarray:
    """ln(1 + e^x), without overflow, of each element of `x`."""
    return _each(_softplus, x)


def erf(x: np.ndarray) -> np.ndarray:
    """The error function of each element of `x`, in its shape and type."""
    return _each(_erf, x)


def erfc(x: np.ndarray) -> np.ndarray:
    """1 - erf(x), accurate where erf(x) is close to 1, of each element of `x`."""
    return _each(_erfc, x)


def _each(function: Callable[..., None], x: np.ndarray) -> np.ndarray:
    x = np.asarray(x)  # NumPy makes numbers of 0-dim arrays
    if x.dtype == np.float64 and function in _IN_NUMPY:
        return _IN_NUMPY[function](x, out=memory.empty(x.shape, x.dtype))
    dtype = np.dtype(np.float32) if x.itemsize == 2 else x.dtype
    if not x.flags.c_contiguous:  # the result has the order of x in memory, as NumPy's
        order = sorted(range(x.ndim), key=lambda d: -abs(x.strides[d]))
        y = mapped(_PARTS[function].address(dtype), x.transpose(order), None, 0.0, 0)
        return y.transpose(np.argsort(order))
    return mapped(_PARTS[function].address(dtype), x, None, 0.0, 0)


_IN_NUMPY: dict[Any, np.ufunc] = {  # vector code in float64 too
    _exp: np.exp,
    _expm1: np.expm1,
    _log: np.log,
    _log1p: np.log1p,
}
