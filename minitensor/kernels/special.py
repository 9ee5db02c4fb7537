"""exp, expm1, log, log1p, softplus, erf, erfc and erfinv of every element of an array.

One pass over memory, shared by threads, which is bound by arithmetic: some 20 to 40 vector
instructions for each 8 or 16 elements in float32 (`kernels.math`). In float64 softplus, erf and
erfc call the C library, and NumPy computes the others.
"""

from __future__ import annotations

import math

import numpy as np

from .. import memory
from .dropout import CHUNK, map_elements, map_few
from .math import erf as erf_of
from .math import exp as exp_of
from .math import expm1 as expm1_of
from .math import log as log_of
from .math import log1p as log1p_of
from .parallel import NativeFunction, array_at, compute_dtype


def _exp(exemplar, size, y_address):  # type: ignore[no-untyped-def]
    y = array_at(exemplar, y_address, (size,))
    for i in range(size):
        y[i] = exp_of(y[i])


def _log(exemplar, size, y_address):  # type: ignore[no-untyped-def]
    y = array_at(exemplar, y_address, (size,))
    for i in range(size):
        y[i] = log_of(y[i])


def _expm1(exemplar, size, y_address):  # type: ignore[no-untyped-def]
    y = array_at(exemplar, y_address, (size,))
    for i in range(size):
        y[i] = expm1_of(y[i])


def _log1p(exemplar, size, y_address):  # type: ignore[no-untyped-def]
    y = array_at(exemplar, y_address, (size,))
    for i in range(size):
        y[i] = log1p_of(y[i])


def _softplus(exemplar, size, y_address):  # type: ignore[no-untyped-def]
    y = array_at(exemplar, y_address, (size,))
    zero = y.dtype.type(0)
    for i in range(size):
        y[i] = (zero if y[i] < zero else y[i]) + log1p_of(exp_of(-abs(y[i])))


def _erf(exemplar, size, y_address):  # type: ignore[no-untyped-def]
    y = array_at(exemplar, y_address, (size,))
    for i in range(size):
        y[i] = erf_of(y[i])


def _erfc(exemplar, size, y_address):  # type: ignore[no-untyped-def]
    y = array_at(exemplar, y_address, (size,))
    for i in range(size):
        y[i] = math.erfc(np.float64(y[i]))  # the C library is within 1 ulp in float64 only


def _erfinv(exemplar, size, y_address):  # type: ignore[no-untyped-def]
    """Newton's method in float64: on erf(y), which loses no digits near 0, or on log(erfc(y)),
    almost a parabola, from S. Winitzki's approximation (2008)."""
    y = array_at(exemplar, y_address, (size,))
    half, z = math.sqrt(math.pi) / 2, 0.0
    for i in range(size):
        a: float = abs(np.float64(y[i]))
        if a < 0.5:
            z = a * half
            for _ in range(6):
                z -= (math.erf(z) - a) * half * math.exp(z * z)
        elif a < 1:
            log = math.log((1 - a) * (1 + a))
            middle = 2 / (math.pi * 0.147) + log / 2
            z = math.sqrt(math.sqrt(middle * middle - log / 0.147) - middle)
            for _ in range(4):
                rest = math.erfc(z)
                z += (math.log(rest) - math.log(1 - a)) * rest * half * math.exp(z * z)
        else:
            z = math.inf if a == 1 else math.nan
        y[i] = math.copysign(z, y[i])


FUNCTIONS = {
    f.__name__[1:]: NativeFunction(f, 2, {"contract"})
    for f in (_exp, _expm1, _log, _log1p, _softplus, _erf, _erfc, _erfinv)
}


def exp(x: np.ndarray) -> np.ndarray:
    """Return e^x of each element of `x`, in its shape and dtype."""
    return _map("exp", x)


def expm1(x: np.ndarray) -> np.ndarray:
    """Return e^x - 1, accurate near 0, of each element of `x`."""
    return _map("expm1", x)


def log(x: np.ndarray) -> np.ndarray:
    """Return the natural logarithm of each element of `x`, in its shape and dtype."""
    return _map("log", x)


def log1p(x: np.ndarray) -> np.ndarray:
    """Return ln(1 + x), accurate near 0, of each element of `x`."""
    return _map("log1p", x)


def softplus(x: np.ndarray) -> np.ndarray:
    """Return ln(1 + e^x), without overflow, of each element of `x`."""
    return _map("softplus", x)


def erf(x: np.ndarray) -> np.ndarray:
    """Return the error function of each element of `x`, in its shape and dtype."""
    return _map("erf", x)


def erfc(x: np.ndarray) -> np.ndarray:
    """Return 1 - erf(x), accurate where erf(x) is close to 1, of each element of `x`."""
    return _map("erfc", x)


def erfinv(x: np.ndarray) -> np.ndarray:
    """Return y with erf(y) = x of each element of `x`: infinite at -1 and 1, NaN outside."""
    return _map("erfinv", x)


def _map(function: str, x: np.ndarray) -> np.ndarray:
    x = np.asarray(x)  # NumPy may return a scalar for a 0-dim array
    if x.dtype == np.float64 and function in IN_NUMPY:
        return IN_NUMPY[function](x, out=memory.empty(x.shape, x.dtype))
    contiguous = x.flags.c_contiguous
    if x.size <= CHUNK and contiguous and x.itemsize > 2:
        return map_few(FUNCTIONS[function], x)
    native = FUNCTIONS[function].address(compute_dtype(x))
    if contiguous:
        return map_elements(native, x, None, 0.0, 0)
    order = sorted(range(x.ndim), key=lambda d: -abs(x.strides[d]))  # kept, as NumPy keeps it
    return map_elements(native, x.transpose(order), None, 0.0, 0).transpose(np.argsort(order))


IN_NUMPY: dict[str, np.ufunc] = {  # vector code in float64 too
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
}
