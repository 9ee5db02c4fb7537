"""Tensors side by side and one below the other; parts between indices."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from ...core import NAMESPACES, Tensor, wrap
from ..checks import SEQUENCE, normal_dim
from ..composite import composite
from ..join import Cat, SplitWithSizes, Stack, _tensors
from ..shape import Reshape
from .move import ConstantPad


@composite(
    out="cast",
    namespaces="torch",
    samples=lambda rand: [([rand(2), rand(3)],), ([rand(2, 1), rand(2, 3)],), ([rand(), rand()],)],
)
def hstack(tensors: Any) -> Tensor:
    """Return the tensors side by side: along dim 1, or dim 0 for vectors."""
    if not tensors:
        raise RuntimeError("hstack: expected a non-empty list of tensors")
    found = [
        t if t._array.ndim else Reshape.apply(t, shape=(1,)) for t in _tensors("hstack", tensors)
    ]
    return Cat.call(found, 0 if found[0]._array.ndim == 1 else 1)


@composite(
    out="cast",
    namespaces="torch",
    samples=lambda rand: [([rand(3), rand(2, 3)],), ([rand(), rand()],)],
)
def vstack(tensors: Any) -> Tensor:
    """Return the tensors one below the other: along dim 0, vectors as rows."""
    if not tensors:
        raise RuntimeError("vstack: expected a non-empty list of tensors")
    found = _tensors("vstack", tensors)
    return Cat.call([t if t._array.ndim > 1 else Reshape.apply(t, shape=(1, -1)) for t in found])


@composite(
    samples=lambda rand: [(rand(5, 2), 3), (rand(2, 5), (1, 3), 1), (rand(2, 5), (3, 1, 7), 1)],
    errors=lambda rand: [(rand(5), 0), (rand(), 2)],
)
def tensor_split(input: Tensor, indices_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """So many parts along `dim`, the first ones longer by one; or parts between indices."""
    shape = input._array.shape
    if not shape:
        raise RuntimeError("tensor_split: expects at least a 1-dimensional tensor")
    total = shape[normal_dim(dim, len(shape))]
    if isinstance(indices_or_sections, Tensor):
        indices_or_sections = indices_or_sections.tolist()
    if isinstance(indices_or_sections, int):
        if indices_or_sections < 1:
            raise RuntimeError(
                f"tensor_split: number of sections must be larger than 0, got {indices_or_sections}"
            )
        length, longer = divmod(total, indices_or_sections)
        sizes = [length + (i < longer) for i in range(indices_or_sections)]
        return SplitWithSizes.apply(input, sizes=tuple(sizes), dim=dim)
    bounds = [0, *(len(range(total)[:i]) for i in indices_or_sections), total]
    return tuple(
        input[(*(slice(None),) * normal_dim(dim, len(shape)), slice(a, max(a, b)))]
        for a, b in itertools.pairwise(bounds)
    )


def _at_least(ndim: int) -> Any:
    """Return the function of tensors that gives each at least `ndim` dimensions."""

    def function(*tensors: Any) -> Any:
        if len(tensors) == 1 and isinstance(tensors[0], SEQUENCE):
            return tuple(map(function, tensors[0]))
        return function_of_one(tensors[0]) if len(tensors) == 1 else tuple(map(function, tensors))

    def function_of_one(x: Tensor) -> Tensor:
        shape = x._array.shape
        if ndim == 3 and len(shape) in (1, 2):
            return x.reshape((1, *shape, 1) if len(shape) == 1 else (*shape, 1))
        return x.reshape((1,) * (ndim - len(shape)) + shape) if len(shape) < ndim else x

    function.__name__ = function.__qualname__ = f"atleast_{ndim}d"
    function.__doc__ = f"Return each tensor with at least {ndim} dimensions, new ones of length 1."
    return composite(
        namespaces="torch",
        samples=lambda rand: [(rand(),), (rand(3),), (rand(2, 3), rand()), ([rand(2), rand()],)],
    )(function)


for _ndim in (1, 2, 3):
    _at_least(_ndim)


@composite(
    out="cast",
    namespaces="torch",
    samples=lambda rand: [([rand(2), rand(2, 3), rand(2, 1)],), ([rand(), rand()],)],
    errors=lambda rand: [([rand(2), rand(3)],)],
)
def column_stack(tensors: Any) -> Tensor:
    """Return the tensors side by side, vectors as columns: (M), (M, N) -> (M, 1 + N)."""
    found = _tensors("column_stack", tensors)
    return hstack([t if t._array.ndim > 1 else t.reshape(-1, 1) for t in found])


@composite(
    out="cast",
    namespaces="torch",
    samples=lambda rand: [([rand(2), rand(2)],), ([rand(2, 3), rand(2, 3, 2)],)],
)
def dstack(tensors: Any) -> Tensor:
    """Return the tensors one behind the other: along dim 2, matrices as (M, N, 1)."""
    deep = NAMESPACES["torch"]["atleast_3d"]
    return Cat.call([deep(t) for t in _tensors("dstack", tensors)], 2)


def _splitting(name: str, least: int, dim: int) -> None:
    """Register `tensor_split` along one dimension of tensors that have it, as hsplit and vsplit."""

    def function(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
        axis = 0 if input._array.ndim == 1 else dim
        if input._array.ndim < least:
            raise RuntimeError(f"{name}: requires a tensor with at least {least} dimension(s)")
        length = input._array.shape[axis]
        if isinstance(indices_or_sections, int) and length % max(indices_or_sections, 1):
            raise RuntimeError(
                f"{name}: attempting to split along dimension {axis}, but the size of the "
                f"dimension {length} is not divisible by the split_size {indices_or_sections}!"
            )
        return tensor_split(input, indices_or_sections, axis)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"`tensor_split` along dim {dim}, into equal parts or between indices."
    composite(
        samples=lambda rand: [(rand(4, 6), 2), (rand(4, 6), [1, 3])],
        errors=lambda rand: [(rand(5, 5), 2), (rand(), 1)],
    )(function)


_splitting("hsplit", 1, 1)
_splitting("vsplit", 2, 0)


@composite(
    namespaces="torch",
    samples=lambda rand: [(rand(2), rand(3)), (rand(2), rand(3), rand(2)), (rand(3),)],
    errors=lambda rand: [(rand(2, 2), rand(3))],
)
def cartesian_prod(*tensors: Any) -> Tensor:
    """Return all pairs, triples, ... of elements, the last changing first: (a), (b) -> (ab, 2)."""
    found = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], SEQUENCE) else tensors
    if any(t._array.ndim != 1 for t in found):
        raise RuntimeError("cartesian_prod: Expect a 1D vector")
    if len(found) == 1:
        return found[0]
    grids = NAMESPACES["torch"]["meshgrid"](*found, indexing="ij")
    return Stack.call([grid.reshape(-1) for grid in grids], 1)


@composite(
    namespaces="torch",
    samples=lambda rand: [(rand(2, 3), rand(1, 2)), (rand(2), rand(), rand(2, 2)), ()],
    errors=lambda rand: [(rand(2, 2, 2),)],
)
def block_diag(*tensors: Any) -> Tensor:
    """Return a matrix with the tensors along its diagonal, vectors as rows, zeros elsewhere."""
    if any(t._array.ndim > 2 for t in tensors):
        raise RuntimeError("block_diag: Input tensors must have 2 or fewer dimensions")
    blocks = [t.reshape(1, -1) if t._array.ndim < 2 else t for t in tensors or (wrap(_NOTHING),)]
    widths = [0, *itertools.accumulate(block._array.shape[1] for block in blocks)]
    rows = [
        ConstantPad.apply(block, pad=((0, 0), (start, widths[-1] - end)))
        for block, (start, end) in zip(blocks, itertools.pairwise(widths), strict=True)
    ]
    return Cat.call(rows)


_NOTHING = np.zeros((1, 0), np.float32)
