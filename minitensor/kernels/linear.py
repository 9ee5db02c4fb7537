"""A linear map with an activation and dropout of its result, in the store of the product.

    z = x w^T + b        y = dropout(f(z))

The product calls `_finish` for every block of z that it has finished, while the block is in the
first-level cache: f and dropout cost no pass over memory. Only what the derivative needs is kept: y
for relu, where f works in place, else z too. The product bounds it; see `kernels.matmul`.
"""

from __future__ import annotations

import struct
from collections import namedtuple
from typing import Any

import numpy as np

from .. import memory
from .activation import PARTS, activate
from .dropout import drop, drop_settings
from .jit import COMPILED
from .matmul import matmul
from .simd import copy, load, size_of
from .tasks import Part, address, array_at, call_part, integers_at

Drops = namedtuple("Drops", "key0 key1 threshold keep_scale")


def _finish(like: Any, settings: int, place: int, row: int, rows: int, cols: int) -> None:
    """The rows of a block of z at `place` become y, there or as far into the array y."""
    size = size_of(like)
    numbers = integers_at(settings, 7)
    z, y, function, drops = numbers[0], numbers[1], numbers[2], numbers[3]
    to = y + (place - z)
    if y != z:
        copy(like, to, row, place, row, rows, cols)
    dropout = Drops(numbers[4], numbers[5], numbers[6], load(like, settings + 56))
    for i in range(rows):
        call_part(function, like, (cols, to + i * row))
        if drops != 0:
            drop(dropout, array_at(like, to + i * row, (cols,)), (to + i * row - y) // size)


_PART = Part(_finish, 5)


def linear_activation(
    x: np.ndarray, w: np.ndarray, bias: np.ndarray | None, kind: str, p: float, key: int
) -> tuple[np.ndarray, np.ndarray]:
    """(*, E), (F, E), (F) -> y and what `differentiate` wants with it: y for relu, else z: (*, F).

    `kind`, `p` and `key` are those of `activate`.
    """
    shape = (*x.shape[:-1], len(w))
    rows = x.reshape(-1, x.shape[-1])
    z = memory.empty((len(rows), len(w)), x.dtype)
    y = z if kind == "relu" else memory.empty(z.shape, x.dtype)
    if x.dtype.char in "fd" and COMPILED:
        function = PARTS[kind][0].address(x.dtype)
        settings = struct.pack("=7q", address(z), address(y), function, *drop_settings(p, key))
        settings += struct.pack(f"={x.dtype.char}", 1 / (1 - p))
        record = np.frombuffer(settings, np.uint8)
        matmul(rows, w.T, z, bias, then=(_PART.address(x.dtype), address(record)))
    else:
        matmul(rows, w.T, z, bias)
        y[...] = activate(kind, z, None, p, key)
    return y.reshape(shape), z.reshape(shape)
