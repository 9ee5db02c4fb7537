"""Activations and their derivatives, with dropout of their results in the same pass.

    y = dropout(f(x))        dx = dropout(dy) * f'(x)

Each f and f' is a native function: a loop that works in place on a chunk of an array in the
first-level cache, compiled alone at its first use and vectorised by LLVM with the polynomials of
`kernels.math`. One parallel kernel calls them all (`dropout.map_elements` forward, `_differentiate`
backward). The derivative is computed from x again, or from y where that suffices.

gelu(x) = max(x, 0) - |x| Q(|x|) with Q the upper tail of the normal distribution, and its tanh
approximation uses (1 + tanh(u)) / 2 = sigmoid(2 u): neither cancels where it is small. relu is
bound by memory, the others by some 20 to 50 vector instructions for each 8 or 16 elements.

D. Hendrycks, K. Gimpel, "Gaussian Error Linear Units (GELUs)", 2016; S. Elfwing, E. Uchibe,
K. Doya, "Sigmoid-Weighted Linear Units for Neural Network Function Approximation", 2017 (silu).
"""

from __future__ import annotations

import math

import numpy as np

from .. import memory
from .dropout import (
    CHUNK,
    DROPOUT_ARGUMENTS,
    SERIAL,
    dropout_arguments,
    dropout_in_place,
    map_elements,
    map_few,
    prefetch_chunk,
)
from .math import normal_tail, sigmoid, sigmoids, tanh, times_sigmoid
from .parallel import (
    NativeFunction,
    ParallelKernel,
    address,
    array_at,
    call_native,
    compute_dtype,
    contiguous,
    tasks_for,
    unpacked,
)

_DENSITY = 1 / math.sqrt(2 * math.pi)  # of the normal distribution at 0
_SCALE = 2 * math.sqrt(2 / math.pi)  # gelu by tanh is x sigmoid(_SCALE (x + _CUBE x^3))
_CUBE = 0.044715
_FAR = 40.0  # from here on Q is 0, in float64 too


# Functions y = f(y) and derivatives dx = dx * f'(x), on `size` elements at addresses


def _relu(exemplar, size, y_address):  # type: ignore[no-untyped-def]
    y = array_at(exemplar, y_address, (size,))
    zero = y.dtype.type(0)
    for i in range(size):
        y[i] = zero if y[i] < zero else y[i]  # NaN and -0 stay


def _relu_backward(exemplar, size, dx_address, y_address):  # type: ignore[no-untyped-def]
    dx, y = array_at(exemplar, dx_address, (size,)), array_at(exemplar, y_address, (size,))
    zero = y.dtype.type(0)
    for i in range(size):
        dx[i] = zero if y[i] <= zero else dx[i]


def _sigmoid(exemplar, size, y_address):  # type: ignore[no-untyped-def]
    y = array_at(exemplar, y_address, (size,))
    for i in range(size):
        y[i] = sigmoid(y[i])


def _sigmoid_backward(exemplar, size, dx_address, y_address):  # type: ignore[no-untyped-def]
    dx, y = array_at(exemplar, dx_address, (size,)), array_at(exemplar, y_address, (size,))
    one = y.dtype.type(1)
    for i in range(size):
        dx[i] *= y[i] * (one - y[i])


def _tanh(exemplar, size, y_address):  # type: ignore[no-untyped-def]
    y = array_at(exemplar, y_address, (size,))
    for i in range(size):
        y[i] = tanh(y[i])


def _tanh_backward(exemplar, size, dx_address, y_address):  # type: ignore[no-untyped-def]
    dx, y = array_at(exemplar, dx_address, (size,)), array_at(exemplar, y_address, (size,))
    one = y.dtype.type(1)
    for i in range(size):
        dx[i] *= one - y[i] * y[i]


def _silu(exemplar, size, y_address):  # type: ignore[no-untyped-def]
    y = array_at(exemplar, y_address, (size,))
    for i in range(size):
        y[i] = times_sigmoid(y[i], y[i])


def _silu_backward(exemplar, size, dx_address, x_address):  # type: ignore[no-untyped-def]
    dx, x = array_at(exemplar, dx_address, (size,)), array_at(exemplar, x_address, (size,))
    one = x.dtype.type(1)
    for i in range(size):
        s, rest = sigmoids(x[i])
        dx[i] *= s * (one + x[i] * rest)


def _softplus_backward(exemplar, size, dx_address, x_address):  # type: ignore[no-untyped-def]
    dx, x = array_at(exemplar, dx_address, (size,)), array_at(exemplar, x_address, (size,))
    for i in range(size):
        dx[i] *= sigmoids(x[i])[0]


def _logsigmoid_backward(exemplar, size, dx_address, x_address):  # type: ignore[no-untyped-def]
    dx, x = array_at(exemplar, dx_address, (size,)), array_at(exemplar, x_address, (size,))
    for i in range(size):
        dx[i] *= sigmoids(x[i])[1]


def _gelu(exemplar, size, y_address):  # type: ignore[no-untyped-def]
    y = array_at(exemplar, y_address, (size,))
    zero, far = y.dtype.type(0), y.dtype.type(_FAR)
    for i in range(size):
        a = abs(y[i])
        a = far if a > far else a
        tail, _ = normal_tail(a)
        y[i] = (zero if y[i] < zero else y[i]) - a * tail


def _gelu_backward(exemplar, size, dx_address, x_address):  # type: ignore[no-untyped-def]
    dx, x = array_at(exemplar, dx_address, (size,)), array_at(exemplar, x_address, (size,))
    number = x.dtype.type
    zero, one, density = number(0), number(1), number(_DENSITY)
    for i in range(size):
        tail, e = normal_tail(abs(x[i]))
        dx[i] *= (one - tail if x[i] >= zero else tail) + x[i] * density * e


def _gelu_tanh(exemplar, size, y_address):  # type: ignore[no-untyped-def]
    y = array_at(exemplar, y_address, (size,))
    scale, cube = y.dtype.type(_SCALE), y.dtype.type(_SCALE * _CUBE)
    for i in range(size):
        v = y[i]
        y[i] = times_sigmoid(v, v * (v * v * cube + scale))


def _gelu_tanh_backward(exemplar, size, dx_address, x_address):  # type: ignore[no-untyped-def]
    dx, x = array_at(exemplar, dx_address, (size,)), array_at(exemplar, x_address, (size,))
    number = x.dtype.type
    far = number(_FAR)
    scale, cube, triple = number(_SCALE), number(_SCALE * _CUBE), number(3 * _SCALE * _CUBE)
    for i in range(size):
        v = x[i]
        # A bounded v, so that the derivative of w does not overflow.
        v = far if v > far else (-far if v < -far else v)
        w = v * (v * v * cube + scale)
        s, rest = sigmoids(w)
        dx[i] *= s + v * s * rest * (scale + triple * v * v)


_FASTMATH = {"contract"}  # so that an element alone rounds as it does in a vector
FUNCTIONS = {
    kind: NativeFunction(function, 2, _FASTMATH)
    for kind, function in (
        ("relu", _relu),
        ("sigmoid", _sigmoid),
        ("tanh", _tanh),
        ("silu", _silu),
        ("gelu", _gelu),
        ("gelu_tanh", _gelu_tanh),
    )
}
DERIVATIVES = {
    kind: NativeFunction(function, 3, _FASTMATH)
    for kind, function in (
        ("relu", _relu_backward),
        ("sigmoid", _sigmoid_backward),
        ("tanh", _tanh_backward),
        ("silu", _silu_backward),
        ("gelu", _gelu_backward),
        ("gelu_tanh", _gelu_tanh_backward),
        ("softplus", _softplus_backward),  # which `kernels.special` has
        ("logsigmoid", _logsigmoid_backward),
    )
}


def _differentiate(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    """Do one task's chunks."""
    s = unpacked(arguments)
    dx_all, dy_all = array_at(exemplar, s.dx, (s.size,)), array_at(exemplar, s.dy, (s.size,))
    chunks = -(-s.size // CHUNK)
    for chunk in range(chunks * task // tasks, chunks * (task + 1) // tasks):
        start = chunk * CHUNK
        stop = min(s.size, start + CHUNK)
        dx, dy = dx_all[start:stop], dy_all[start:stop]
        for array in (s.dx, s.dy, s.z):
            prefetch_chunk(array + (start + CHUNK) * dx.itemsize, dx.itemsize)
        factor = dx.dtype.type(s.factor)
        for i in range(dx.size):
            dx[i] = dy[i] * factor
        if s.drops != 0:
            dropout_in_place(s, dx, start)
        offset = start * dx.itemsize
        call_native(s.function, dx, (dx.size, s.dx + offset, s.z + offset))


_run = ParallelKernel(
    _differentiate, f"dx dy z size function {DROPOUT_ARGUMENTS}", "factor keep_scale"
)


def activate(
    kind: str, x: np.ndarray, out: np.ndarray | None = None, p: float = 0.0, key: int = 0
) -> np.ndarray:
    """Return dropout(f(x), p, key): (*) -> (*).

    `out`, contiguous and of x's dtype float32 or float64, is where to put it; it may be x itself.
    """
    if x.size <= CHUNK and out is None and not p and x.itemsize > 2:
        return map_few(FUNCTIONS[kind], x)
    function = FUNCTIONS[kind].address(compute_dtype(x))
    return map_elements(function, x, out, p, key, SERIAL if kind != "relu" or p else 4 * SERIAL)


def differentiate(
    kind: str, z: np.ndarray, dy: np.ndarray, p: float = 0.0, key: int = 0
) -> np.ndarray:
    """Return dropout(dy, p, key) * f'(x): (*), (*) -> (*).

    z is y for relu, the result of `activate` with the same p and key; y before dropout for sigmoid
    and tanh; x for the others.
    """
    shape, dtype = z.shape, z.dtype
    z, dy = contiguous(z), contiguous(dy)
    if z.size <= CHUNK and not p and dtype == z.dtype == dy.dtype:
        dx = dy.copy()
        DERIVATIVES[kind].run(dtype, z.size, address(dx), address(z))
        return dx
    function = DERIVATIVES[kind].address(z.dtype)
    dx = memory.empty(shape, z.dtype)
    factor, keep_scale = 1.0, 1 / (1 - p)
    if p and kind == "relu":  # dropped elements are 0 in z
        factor, p = keep_scale, 0.0
    _run(
        z.dtype,
        tasks_for(z.size, SERIAL),
        *(address(dx), address(dy), address(z), z.size, function),
        *(*dropout_arguments(p, key), factor, keep_scale),
    )
    return dx if z.dtype == dtype else dx.astype(dtype)
