"""Repetition of elements: `expand`, without a copy, and `repeat_interleave`."""

from __future__ import annotations

from operator import index as as_int
from typing import Any

import numpy as np

from ..core import Op, Tensor, wrap
from .checks import ints, normal_dim
from .composite import composite
from .samples import Rand, Samples
from .shape import Reshape


class Expand(Op):
    """y = x with dimensions of length 1 repeated and new ones first: (*) -> `size`.

    -1 keeps a length.  dx = the sum of dy over the repetitions. All are the same memory, so the
    result must not be changed in place.
    """

    namespaces = "tensor"
    view = True
    broadcasts = True
    moves = ("x",)

    @staticmethod
    def call(input: Tensor, *sizes: Any, size: Any = None, implicit: bool = False) -> Tensor:
        return Expand.apply(input, size=ints(sizes, size))

    def forward(ctx, x: np.ndarray, *, size: tuple[int, ...]) -> np.ndarray:
        new = len(size) - x.ndim
        if new < 0:
            raise RuntimeError(
                f"the number of sizes provided ({len(size)}) must be greater or equal to the "
                f"number of dimensions in the tensor ({x.ndim})"
            )
        shape = list(size)
        for d, n in enumerate(size):
            if n < -1 or (n == -1 and d < new):
                raise RuntimeError(
                    f"a length of {n} isn't allowed in a leading, non-existing dimension {d}"
                )
            if d >= new:
                have = x.shape[d - new]
                if n == -1:
                    shape[d] = have
                elif have not in (1, n):
                    raise RuntimeError(
                        f"The expanded size of the tensor ({n}) must match the existing size "
                        f"({have}) at non-singleton dimension {d}. Target sizes: {list(size)}. "
                        f"Tensor sizes: {list(x.shape)}"
                    )
        if x.shape == tuple(shape):
            return x[...]
        if x.flags.c_contiguous:  # quicker than a call of NumPy's function
            steps = zip(shape[new:], x.shape, x.strides, strict=True)
            strides = [step if n == have else 0 for n, have, step in steps]
            return np.ndarray(shape, x.dtype, x, 0, [0] * new + strides)
        y = np.broadcast_to(x, shape)
        y.flags.writeable = x.flags.writeable  # strides decide whether it may be written to
        return y

    def backward(ctx, dy: Tensor) -> Tensor:
        return dy

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2, 1), (2, 3)
        yield rand(3), 2, -1
        yield rand(2, 1), (4, -1, 3)
        yield rand(), (2,)
        yield rand(2, 3), (2, 3)
        yield rand(1, 3), (0, 3)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 3), (2, 4)
        yield rand(2, 3), (3,)
        yield rand(2, 3), (-1, 2, 3)


@composite(
    samples=lambda rand: [
        (rand(2, 3), 2),
        (rand(2, 3), 2, 1),
        (rand(3, 2), rand.integers(0, 3, 3), 0),
        (rand.integers(0, 3, 4),),
    ],
    errors=lambda rand: [
        (rand(2, 3), -1),
        (rand(2, 3), rand.integers(1, 2, 3), 0),
        (rand(2, 3), 2, 2),
    ],
)
def repeat_interleave(
    input: Tensor, repeats: Any = None, dim: int | None = None, *, output_size: Any = None
) -> Tensor:
    """Return each slice along `dim` repeated next to itself, by one number or a tensor of counts.

    (a, b) -> (r * a, b) for dim 0; without `dim`, the elements of the flattened tensor. dx = the
    sums of dy over the copies. Given counts alone, index i appears counts[i] times.
    """
    if repeats is None:
        return wrap(np.repeat(np.arange(input._array.size), input._array))
    if dim is None:
        input, dim = Reshape.apply(input, shape=(input._array.size,)), 0
    dim = normal_dim(dim, input._array.ndim)
    size = input._array.shape[dim]
    counts = repeats._array if isinstance(repeats, Tensor) else np.asarray(as_int(repeats))
    if counts.ndim > 1 or counts.size not in (1, size):
        raise RuntimeError(
            "repeat_interleave: repeats must be a number or have the size of the input along "
            f"dim {dim}: {list(counts.shape)} for {size}"
        )
    if (counts < 0).any():
        raise RuntimeError("repeat_interleave: repeats can not be negative")
    return input.index_select(dim, wrap(np.repeat(np.arange(size), counts)))
