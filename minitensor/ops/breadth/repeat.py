"""Broadcasting by other names, grids, and repetitions of the whole tensor."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import memory
from ...core import Op, Size, Tensor, attach
from ..checks import SEQUENCE, ints
from ..composite import composite
from ..repeat import Expand
from ..samples import Rand, Samples
from ..shape import View


@composite(namespaces="tensor", samples=lambda rand: [(rand(2, 1), rand.constant(2, 3))])
def expand_as(input: Tensor, other: Tensor) -> Tensor:
    """`expand` to the shape of `other`."""
    return Expand.apply(input, size=other._array.shape)


@composite(samples=lambda rand: [(rand(2, 1), (2, 3))])
def broadcast_to(input: Tensor, size: Any) -> Tensor:
    """`expand` to `size`."""
    return Expand.apply(input, size=ints(tuple(size)))


@composite(
    namespaces="torch",
    samples=lambda rand: [(rand(2, 1), rand(3))],
    errors=lambda rand: [(rand(2), rand(3))],
)
def broadcast_tensors(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return all tensors expanded to the shape they broadcast to."""
    try:
        shape = np.broadcast_shapes(*(t._array.shape for t in tensors))
    except ValueError:
        raise RuntimeError(
            f"broadcast_tensors: the shapes {[tuple(t.shape) for t in tensors]} do not "
            "broadcast: lengths must be equal or 1, counted from the last dimension"
        ) from None
    return tuple(Expand.apply(t, size=shape) for t in tensors)


def broadcast_shapes(*shapes: Any) -> Size:
    """Return the shape that tensors of these shapes broadcast to; RuntimeError for none."""
    try:
        return Size(np.broadcast_shapes(*(s if isinstance(s, int) else tuple(s) for s in shapes)))
    except ValueError:
        raise RuntimeError(
            f"broadcast_shapes: Shape mismatch: objects cannot be broadcast to a single shape: "
            f"{', '.join(map(str, shapes))}"
        ) from None


attach("torch", "broadcast_shapes", broadcast_shapes)


@composite(
    namespaces="torch",
    samples=lambda rand: [
        (rand(2), rand(3), dict(indexing="ij")),
        (rand(2), rand(3), rand(4), dict(indexing="xy")),
    ],
    errors=lambda rand: [
        (rand(2), rand(2, 3), dict(indexing="ij")),
        (rand(2), rand(3), dict(indexing="ab")),
    ],
)
def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple[Tensor, ...]:
    """Coordinates of a grid: (a), (b), ... -> (a, b, ...) each; "xy" swaps the first two dims."""
    if len(tensors) == 1 and isinstance(tensors[0], SEQUENCE):
        tensors = tuple(tensors[0])
    if indexing not in ("ij", "xy"):
        raise RuntimeError(f'meshgrid: indexing must be "ij" or "xy", got {indexing!r}')
    if len({t._array.dtype for t in tensors}) > 1:
        raise RuntimeError("meshgrid: expected all tensors to have the same dtype")
    for t in tensors:
        if t._array.ndim > 1:
            raise RuntimeError(
                f"meshgrid: Expected 0D or 1D tensors, but got one of shape {tuple(t.shape)}"
            )
    count = len(tensors)
    places = list(range(count))
    if indexing == "xy" and count > 1:
        places[:2] = 1, 0
    shape = [1] * count
    for place, t in zip(places, tensors, strict=True):
        shape[place] = t._array.size
    grids = []
    for place, t in zip(places, tensors, strict=True):
        if place < count - 1:
            t = View.apply(t, shape=(-1, *[1] * (count - place - 1)))
        grids.append(Expand.apply(t, size=tuple(shape)))
    return tuple(grids)


class Repeat(Op):
    """y = x repeated along each dimension, new ones first: (a, b) -> (r a, s b).

    dx = the sum of dy over the copies.
    """

    namespaces = "tensor"
    moves = ("x",)

    @staticmethod
    def call(input: Tensor, *counts: Any, repeats: Any = None) -> Tensor:
        return Repeat.apply(input, repeats=ints(counts, repeats))

    def forward(ctx, x: np.ndarray, *, repeats: tuple[int, ...]) -> np.ndarray:
        new = len(repeats) - x.ndim
        if new < 0:
            raise RuntimeError(
                "Number of dimensions of repeat dims can not be smaller than number of dimensions "
                f"of tensor: {repeats} for shape {tuple(x.shape)}"
            )
        if min(repeats, default=0) < 0:
            raise RuntimeError(f"repeats must not be negative, got {repeats}")
        shape = (1,) * new + x.shape
        # (r0, s0, r1, s1, ...): each repetition a dimension before the one it repeats
        pairs = tuple(n for pair in zip(repeats, shape, strict=True) for n in pair)
        ctx.save(x.shape, pairs)
        y = memory.empty([r * n for r, n in zip(repeats, shape, strict=True)], x.dtype)
        y.reshape(pairs)[...] = x.reshape([n for pair in shape for n in (1, pair)])
        return y

    def backward(ctx, dy: Tensor) -> Tensor:
        shape, pairs = ctx.saved
        if not pairs:
            return dy
        return dy.reshape(pairs).sum(dim=tuple(range(0, len(pairs), 2))).reshape(shape)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2, 3), 2, 1
        yield rand(2), (3, 2)
        yield rand(2, 3), 0, 1
        yield rand(), (2,)
        yield rand(), ()

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 3), 2
        yield rand(2, 3), 2, -1


@composite(samples=lambda rand: [(rand(2, 3), (2,)), (rand(2, 3), (2, 1, 2))])
def tile(input: Tensor, *counts: Any, dims: Any = None) -> Tensor:
    """`repeat`, with missing first counts as 1: (a, b) with 2 -> (a, 2b)."""
    repeats = ints(counts, dims)
    return Repeat.apply(input, repeats=(1,) * (input._array.ndim - len(repeats)) + repeats)
