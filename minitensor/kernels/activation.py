"""Activations and their derivatives, with dropout of their results in the same pass.

    y = dropout(f(x))        dx = dropout(dy) * f'(x)

Each f and each f' is a loop that works in place on a piece of an array in the first-level cache,
compiled alone and only when it is used; LLVM vectorises it with the polynomials of `kernels.math`.
One kernel for all (`dropout.mapped`, and `_differentiate` here) copies a piece, calls the function,
and drops elements of the piece.

gelu is max(x, 0) - |x| P(-|x|), P the normal distribution's, and its tanh kind is written with
(1 + tanh(u)) / 2 = sigmoid(2 u): both keep their digits where they are small. relu is bound by
memory, the others by some 20 to 50 vector instructions for each 8 or 16 elements. The derivative is
computed again from x, or from y where y says it all.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import memory
from .dropout import DROPS, PIECE, SERIAL, contiguous, drop, drop_settings, mapped
from .jit import get_num_threads
from .math import exp, normal_tail, sigmoid, tanh, times_sigmoid
from .tasks import Part, Tasks, address, array_at, call_part, unpacked

_DENSITY = 1 / math.sqrt(2 * math.pi)  # of the normal distribution at 0
_SCALE = 2 * math.sqrt(2 / math.pi)  # gelu by tanh is x sigmoid(_SCALE (x + _CUBE x^3))
_CUBE = 0.044715
_FAR = 40.0  # from here on the normal distribution is 1, also in float64


# Functions, y = f(y), and derivatives, dx = dx * f'(x), on `size` elements at addresses


def _relu(like, size, at):  # type: ignore[no-untyped-def]
    y = array_at(like, at, (size,))
    zero = y.dtype.type(0)
    for i in range(size):
        y[i] = zero if y[i] < zero else y[i]  # NaN and -0 stay


def _relu_slope(like, size, at, at_y):  # type: ignore[no-untyped-def]
    dx, y = array_at(like, at, (size,)), array_at(like, at_y, (size,))
    zero = y.dtype.type(0)
    for i in range(size):
        dx[i] = zero if y[i] <= zero else dx[i]


def _sigmoid(like, size, at):  # type: ignore[no-untyped-def]
    y = array_at(like, at, (size,))
    for i in range(size):
        y[i] = sigmoid(y[i])


def _sigmoid_slope(like, size, at, at_y):  # type: ignore[no-untyped-def]
    dx, y = array_at(like, at, (size,)), array_at(like, at_y, (size,))
    one = y.dtype.type(1)
    for i in range(size):
        dx[i] *= y[i] * (one - y[i])


def _tanh(like, size, at):  # type: ignore[no-untyped-def]
    y = array_at(like, at, (size,))
    for i in range(size):
        y[i] = tanh(y[i])


def _tanh_slope(like, size, at, at_y):  # type: ignore[no-untyped-def]
    dx, y = array_at(like, at, (size,)), array_at(like, at_y, (size,))
    one = y.dtype.type(1)
    for i in range(size):
        dx[i] *= one - y[i] * y[i]


def _silu(like, size, at):  # type: ignore[no-untyped-def]
    y = array_at(like, at, (size,))
    for i in range(size):
        y[i] = times_sigmoid(y[i], y[i])


def _silu_slope(like, size, at, at_x):  # type: ignore[no-untyped-def]
    dx, x = array_at(like, at, (size,)), array_at(like, at_x, (size,))
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for i in range(size):
        e = exp(-abs(x[i]))
        r = one / (one + e)
        s, rest = r if x[i] >= zero else e * r, e * r if x[i] >= zero else r  # sum to 1
        dx[i] *= s * (one + x[i] * rest)


def _gelu(like, size, at):  # type: ignore[no-untyped-def]
    y = array_at(like, at, (size,))
    zero, far = y.dtype.type(0), y.dtype.type(_FAR)
    for i in range(size):
        a = abs(y[i])
        a = far if a > far else a
        u, t, _ = normal_tail(a)
        y[i] = (y[i] if y[i] >= zero else zero) - a * u * t


def _gelu_slope(like, size, at, at_x):  # type: ignore[no-untyped-def]
    dx, x = array_at(like, at, (size,)), array_at(like, at_x, (size,))
    number = x.dtype.type
    zero, one, density = number(0), number(1), number(_DENSITY)
    for i in range(size):
        u, t, e = normal_tail(abs(x[i]))
        u *= t
        dx[i] *= (one - u if x[i] >= zero else u) + x[i] * density * e


def _gelu_tanh(like, size, at):  # type: ignore[no-untyped-def]
    y = array_at(like, at, (size,))
    scale, cube = y.dtype.type(_SCALE), y.dtype.type(_SCALE * _CUBE)
    for i in range(size):
        v = y[i]
        y[i] = times_sigmoid(v, v * (v * v * cube + scale))


def _gelu_tanh_slope(like, size, at, at_x):  # type: ignore[no-untyped-def]
    dx, x = array_at(like, at, (size,)), array_at(like, at_x, (size,))
    number = x.dtype.type
    zero, one, far = number(0), number(1), number(_FAR)
    scale, cube, triple = number(_SCALE), number(_SCALE * _CUBE), number(3 * _SCALE * _CUBE)
    for i in range(size):
        v = x[i]
        v = far if v > far else (-far if v < -far else v)  # no overflow of the slope of w
        w = v * (v * v * cube + scale)
        e = exp(-abs(w))
        r = one / (one + e)
        s = r if w >= zero else e * r  # sigmoid(w), and e r^2 is its derivative
        dx[i] *= s + v * e * r * r * (scale + triple * v * v)


_FASTMATH = {"contract"}  # an element alone gives what it gives within a vector
PARTS = {
    kind: (Part(function, 2, _FASTMATH), Part(slope, 3, _FASTMATH))
    for kind, function, slope in (
        ("relu", _relu, _relu_slope),
        ("sigmoid", _sigmoid, _sigmoid_slope),
        ("tanh", _tanh, _tanh_slope),
        ("silu", _silu, _silu_slope),
        ("gelu", _gelu, _gelu_slope),
        ("gelu_tanh", _gelu_tanh, _gelu_tanh_slope),
    )
}


def _differentiate(settings, like, task, tasks):  # type: ignore[no-untyped-def]
    """One task's share of the pieces."""
    s = unpacked(settings)
    dx_all, dy_all = array_at(like, s.dx, (s.size,)), array_at(like, s.dy, (s.size,))
    pieces = -(-s.size // PIECE)
    for piece in range(pieces * task // tasks, pieces * (task + 1) // tasks):
        start = piece * PIECE
        stop = min(s.size, start + PIECE)
        dx, dy = dx_all[start:stop], dy_all[start:stop]
        factor = dx.dtype.type(s.factor)
        for i in range(dx.size):
            dx[i] = dy[i] * factor
        if s.drops != 0:
            drop(s, dx, start)
        offset = start * dx.itemsize
        call_part(s.function, dx, (dx.size, s.dx + offset, s.z + offset))


_run = Tasks(_differentiate, f"dx dy z size function {DROPS}", "factor keep_scale")


def activate(
    kind: str, x: np.ndarray, out: np.ndarray | None = None, p: float = 0.0, key: int = 0
) -> np.ndarray:
    """y = dropout(f(x), p, key): (*) -> (*).

    `out` is where to put it, contiguous and in x's type, float32 or float64; it may be x itself.
    """
    function = PARTS[kind][0].address(_type(x))
    return mapped(function, x, out, p, key, SERIAL if kind != "relu" or p else 4 * SERIAL)


def differentiate(
    kind: str, z: np.ndarray, dy: np.ndarray, p: float = 0.0, key: int = 0
) -> np.ndarray:
    """dx = dropout(dy, p, key) * f'(x): (*), (*) -> (*).

    z is y for relu, as `activate` gave it with the same p and key; y before dropout for sigmoid and
    tanh; x for the others.
    """
    shape, dtype = z.shape, z.dtype
    z, dy = contiguous(z), contiguous(dy)
    function = PARTS[kind][1].address(z.dtype)
    dx = memory.empty(shape, z.dtype)
    factor, keep_scale = 1.0, 1 / (1 - p)
    if p and kind == "relu":  # what was dropped is 0 in z already
        factor, p = keep_scale, 0.0
    _run(
        z.dtype,
        get_num_threads() if z.size > SERIAL else 1,
        *(address(dx), address(dy), address(z), z.size, function),
        *(*drop_settings(p, key), factor, keep_scale),
    )
    return dx if z.dtype == dtype else dx.astype(dtype)


def _type(x: np.ndarray) -> Any:
    """The type that kernels compute x in."""
    return _SINGLE if x.itemsize == 2 else x.dtype


_SINGLE = np.dtype(np.float32)
