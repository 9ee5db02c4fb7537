"""A linear layer with its activation and dropout as the epilogue of the product.

    z = x w^T + b        y = dropout(f(z))

The product (`kernels.gemm`) calls `_epilogue` for every block of z that it has finished, while the
block is in cache: f and dropout cost no pass over memory. Only what the derivative needs is kept:
y for relu, where f works in place, otherwise z as well. Bound by the product.
"""

from __future__ import annotations

import math
import struct
from collections import namedtuple
from typing import Any

import numpy as np

from .. import memory
from .activation import FUNCTIONS, activate
from .dropout import dropout_arguments, dropout_in_place
from .jit import COMPILED
from .matmul import matmul
from .pack import copy
from .panels import Panels, panels_for
from .parallel import (
    NativeFunction,
    address,
    address_of_bytes,
    array_at,
    call_native,
    integers_at,
    recording,
)
from .simd import itemsize_of, load

DropoutArguments = namedtuple("DropoutArguments", "key0 key1 threshold keep_scale")


def _epilogue(exemplar: Any, state: int, block: int, row: int, rows: int, cols: int) -> None:
    """Turn the rows of a block of z into y, in place or at the same offset of the array y."""
    size = itemsize_of(exemplar)
    given = integers_at(state, 7)
    z, y, function, drops = given[0], given[1], given[2], given[3]
    out = y + (block - z)
    if y != z:
        copy(exemplar, out, row, block, row, rows, cols)
    arguments = DropoutArguments(given[4], given[5], given[6], load(exemplar, state + 56))
    for i in range(rows):
        call_native(function, exemplar, (cols, out + i * row))
        if drops != 0:
            y_row = array_at(exemplar, out + i * row, (cols,))
            dropout_in_place(arguments, y_row, (out + i * row - y) // size)


_STATE = {"f": "=7qf", "d": "=7qd"}
_EPILOGUE = NativeFunction(_epilogue, 5)


def linear(
    x: np.ndarray,
    w: np.ndarray | Panels,
    bias: np.ndarray | None = None,
    out: np.ndarray | None = None,
    epilogue: tuple[int, int] | None = None,
) -> np.ndarray:
    """Return x w^T + bias: (*, E), (F, E), (F) -> (*, F); `out` and `epilogue` as of `matmul`."""
    panels = w if isinstance(w, Panels) else panels_for(x, w)
    if panels is None:
        return matmul(x, w.T, out, bias, epilogue=epilogue)  # type: ignore[union-attr]
    if x.ndim == 2:
        return panels.product(x, bias, out, epilogue)
    rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    return panels.product(rows, bias, out, epilogue).reshape(*x.shape[:-1], len(w))


def linear_activation(
    x: np.ndarray,
    w: np.ndarray | Panels,
    bias: np.ndarray | None,
    kind: str,
    p: float,
    key: int,
    alone: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Return y and the argument of `differentiate`: (*, E), (F, E), (F) -> (*, F), (*, F).

    The latter is y for relu, otherwise z, or also y if it `alone` is wanted. `kind`, `p` and `key`
    are those of `activate`.
    """
    shape = (*x.shape[:-1], len(w))
    rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    z = memory.empty((len(rows), len(w)), x.dtype)
    y = z if kind == "relu" or alone else memory.empty(z.shape, x.dtype)
    if x.dtype.char in "fd" and COMPILED and x.size:
        function = FUNCTIONS[kind].address(x.dtype)
        given = address(z), address(y), function, *dropout_arguments(p, key)
        state = struct.pack(_STATE[x.dtype.char], *given, 1 / (1 - p))
        epilogue = _EPILOGUE.address(x.dtype), address_of_bytes(state)
        recording.keep(state)
        linear(rows, w, bias, z, epilogue)
    else:
        linear(rows, w, bias, z)
        y[...] = activate(kind, z, None, p, key)
    return y.reshape(shape), z.reshape(shape)
