"""Activations and their derivatives, over flattened arrays, in chunks that threads share.

One loop for each kind, chosen outside the loop, so that LLVM vectorises it with the polynomials of
`kernels.math`. The tanh kind of gelu is written with (1 + tanh(u)) / 2 = sigmoid(2 u), which keeps
its digits where it is small. relu is bound by memory, the others by some 20 to 50 vector
instructions for each 8 or 16 elements. The derivative is computed again from x, or from y where y
says it all.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from .. import memory
from .jit import jit
from .math import erf, exp, sigmoid, tanh

RELU, SIGMOID, TANH, SILU, GELU, GELU_TANH = range(6)
_CHUNK = 1 << 14  # elements

_SQRT_HALF = math.sqrt(0.5)
_DENSITY = 1 / math.sqrt(2 * math.pi)  # of the normal distribution at 0
_TANH_SCALE = math.sqrt(2 / math.pi)
_TANH_CUBE = 0.044715


@jit
def _activate(kind, x, y):  # type: ignore[no-untyped-def]
    number = x.dtype.type
    half, one = number(0.5), number(1)
    if kind == RELU:
        zero = number(0)
        for i in range(x.size):
            y[i] = zero if x[i] <= zero else x[i]  # NaN stays
    elif kind == SIGMOID:
        for i in range(x.size):
            y[i] = sigmoid(x[i])
    elif kind == TANH:
        for i in range(x.size):
            y[i] = tanh(x[i])
    elif kind == SILU:
        for i in range(x.size):
            y[i] = x[i] * sigmoid(x[i])
    elif kind == GELU:
        factor = number(_SQRT_HALF)
        for i in range(x.size):
            y[i] = half * x[i] * (one + erf(x[i] * factor))
    else:
        scale, cube = number(2 * _TANH_SCALE), number(_TANH_CUBE)
        for i in range(x.size):
            v = x[i]
            y[i] = v * sigmoid(scale * (v + cube * v * v * v))


@jit
def _differentiate(kind, z, dy, dx):  # type: ignore[no-untyped-def]
    number = z.dtype.type
    half, one = number(0.5), number(1)
    if kind == RELU:
        zero = number(0)
        for i in range(z.size):
            dx[i] = zero if z[i] <= zero else dy[i]
    elif kind == SIGMOID:
        for i in range(z.size):
            dx[i] = dy[i] * z[i] * (one - z[i])
    elif kind == TANH:
        for i in range(z.size):
            dx[i] = dy[i] * (one - z[i] * z[i])
    elif kind == SILU:
        for i in range(z.size):
            s = sigmoid(z[i])
            dx[i] = dy[i] * s * (one + z[i] * (one - s))
    elif kind == GELU:
        factor, density = number(_SQRT_HALF), number(_DENSITY)
        for i in range(z.size):
            v = z[i]
            slope = half * (one + erf(v * factor)) + v * density * exp(-half * v * v)
            dx[i] = dy[i] * slope
    else:
        scale, cube, triple = number(2 * _TANH_SCALE), number(_TANH_CUBE), number(3 * _TANH_CUBE)
        for i in range(z.size):
            v = z[i]
            w = scale * (v + cube * v * v * v)
            e = exp(-abs(w))
            r = one / (one + e)
            s = r if w >= number(0) else e * r  # sigmoid(w), and e r^2 is its derivative
            dx[i] = dy[i] * (s + v * e * r * r * scale * (one + triple * v * v))


@jit(parallel=True)
def _activate_parallel(kind, x, y):  # type: ignore[no-untyped-def]
    for chunk in prange((x.size + _CHUNK - 1) // _CHUNK):
        part = slice(chunk * _CHUNK, (chunk + 1) * _CHUNK)
        _activate(kind, x[part], y[part])


@jit(parallel=True)
def _differentiate_parallel(kind, z, dy, dx):  # type: ignore[no-untyped-def]
    for chunk in prange((z.size + _CHUNK - 1) // _CHUNK):
        part = slice(chunk * _CHUNK, (chunk + 1) * _CHUNK)
        _differentiate(kind, z[part], dy[part], dx[part])


def activate(kind: int, x: np.ndarray) -> np.ndarray:
    """y = f(x): (*) -> (*)."""
    flat = flattened(x)
    y = memory.empty(x.shape, flat.dtype)
    run = _activate if x.size <= _CHUNK else _activate_parallel
    run(kind, flat, y.reshape(-1))
    return y.astype(x.dtype, copy=False)


def differentiate(kind: int, z: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """dx = dy * f'(x): (*), (*) -> (*), where z is y for relu, sigmoid and tanh, else x."""
    flat = flattened(z)
    dx = memory.empty(z.shape, flat.dtype)
    run = _differentiate if z.size <= _CHUNK else _differentiate_parallel
    run(kind, flat, flattened(dy), dx.reshape(-1))
    return dx.astype(z.dtype, copy=False)


def flattened(x: np.ndarray) -> np.ndarray:
    """(*) -> (n,), contiguous; float16 becomes float32."""
    return np.ascontiguousarray(x, np.float32 if x.dtype == np.float16 else x.dtype).reshape(-1)
