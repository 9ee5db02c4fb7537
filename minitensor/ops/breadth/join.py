"""Tensors side by side and one below the other; parts between indices."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from ... import memory
from ...core import NAMESPACES, Op, Tensor, wrap
from ...dtype import result_dtype
from ..checks import SEQUENCE, check_tensors, normal_dim
from ..composite import composite
from ..join import Cat, SplitWithSizes, Stack, _tensors
from ..samples import Rand, Samples
from ..shape import Reshape, Unsqueeze
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
    return Cat.call([t if t._array.ndim > 1 else _as_row(t) for t in found])


def _as_row(t: Tensor) -> Tensor:
    """Return a vector, or a number, as a matrix of one row."""
    return Unsqueeze.apply(t, 0) if t._array.ndim else Reshape.apply(t, shape=(1, 1))


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
    if not tensors:
        raise RuntimeError("column_stack: expected a non-empty list of tensors")
    columns = []
    for t in _tensors("column_stack", tensors):
        ndim = t._array.ndim
        columns.append(t if ndim > 1 else Unsqueeze.apply(t, 1) if ndim else _as_row(t))
    return Cat.call(columns, 1)


@composite(
    out="cast",
    namespaces="torch",
    samples=lambda rand: [([rand(2), rand(2)],), ([rand(2, 3), rand(2, 3, 2)],)],
)
def dstack(tensors: Any) -> Tensor:
    """Return the tensors one behind the other: along dim 2, matrices as (M, N, 1)."""
    deep = []
    for t in _tensors("dstack", tensors):
        ndim = t._array.ndim
        if ndim < 2:
            t = Reshape.apply(t, shape=(1, t._array.size, 1))
        deep.append(Unsqueeze.apply(t, 2) if ndim == 2 else t)
    return Cat.call(deep, 2)


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


class CartesianProd(Op):
    """All pairs, triples, ... of elements, the last changing first: (a), (b) -> (ab, 2).

    The gradient of an element is the sum of dy where it is.
    """

    namespaces = "torch"
    moves = ("xs",)

    @staticmethod
    def call(*tensors: Any) -> Tensor:
        found = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], SEQUENCE) else tensors
        check_tensors("cartesian_prod", **{f"tensor {i}": t for i, t in enumerate(found)})
        if any(t._array.ndim != 1 for t in found):
            raise RuntimeError("cartesian_prod: Expect a 1D vector")
        if len({t._array.dtype for t in found}) > 1:
            raise RuntimeError("cartesian_prod: expected all tensors to have the same dtype")
        return found[0] if len(found) == 1 else CartesianProd.apply(*found)

    def forward(ctx, *xs: np.ndarray) -> np.ndarray:
        shape = tuple([x.size for x in xs])
        ctx.save(shape)
        y = memory.empty((*shape, len(xs)), xs[0].dtype)
        for d, x in enumerate(xs):
            y[..., d] = x.reshape(-1, *[1] * (len(xs) - d - 1))
        return y.reshape(-1, len(xs))

    def backward(ctx, dy: Tensor) -> tuple[Tensor, ...]:
        (shape,) = ctx.saved
        grids = dy.reshape(*shape, len(shape)).unbind(-1)
        return tuple(
            [grid.sum([e for e in range(len(shape)) if e != d]) for d, grid in enumerate(grids)]
        )

    @staticmethod
    def decomposition(*xs: Tensor) -> Tensor:
        grids = NAMESPACES["torch"]["meshgrid"](*xs, indexing="ij")
        return Stack.call([grid.reshape(-1) for grid in grids], 1)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2), rand(3)
        yield rand(2), rand(3), rand(2)
        yield (rand(3),)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 2), rand(3)
        yield rand(2), rand.integers(0, 3, 3)


class BlockDiag(Op):
    """A matrix with the tensors along its diagonal, vectors as rows, zeros elsewhere.

    (a, b), (c, d), ... -> (a + c, b + d), in their common type. The gradients are the parts of dy.
    """

    namespaces = "torch"
    moves = ("xs",)

    @staticmethod
    def call(*tensors: Any) -> Tensor:
        check_tensors("block_diag", **{f"tensor {i}": t for i, t in enumerate(tensors)})
        if any(t._array.ndim > 2 for t in tensors):
            raise RuntimeError("block_diag: Input tensors must have 2 or fewer dimensions")
        return BlockDiag.apply(*tensors)

    def forward(ctx, *xs: np.ndarray) -> np.ndarray:
        blocks = [x if x.ndim == 2 else x.reshape(1, -1) for x in xs or (_NOTHING,)]
        rows, cols = 0, 0
        keys = []
        for block in blocks:
            below, right = rows + block.shape[0], cols + block.shape[1]
            keys.append((slice(rows, below), slice(cols, right)))
            rows, cols = below, right
        ctx.save(tuple(keys), tuple([x.shape for x in xs]))
        dtype = blocks[0].dtype
        if any(block.dtype != dtype for block in blocks):
            dtype = result_dtype(*blocks)
        y = memory.zeros((rows, cols), dtype)
        for key, block in zip(keys, blocks, strict=True):
            y[key] = block
        return y

    def backward(ctx, dy: Tensor) -> tuple[Tensor, ...]:
        keys, shapes = ctx.saved
        parts = zip(keys, shapes, strict=True)
        return tuple([dy[key] if len(s) == 2 else dy[key].reshape(s) for key, s in parts])

    @staticmethod
    def decomposition(*xs: Tensor) -> Tensor:
        blocks = [x if x._array.ndim == 2 else x.reshape(1, -1) for x in xs or (wrap(_NOTHING),)]
        widths = [0, *itertools.accumulate(block._array.shape[1] for block in blocks)]
        rows = [
            ConstantPad.apply(block, pad=((0, 0), (start, widths[-1] - end)))
            for block, (start, end) in zip(blocks, itertools.pairwise(widths), strict=True)
        ]
        return Cat.call(rows)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2, 3), rand(1, 2)
        yield rand(2), rand(), rand(2, 2)
        yield rand(2), rand.integers(0, 5, 2, 2)
        yield ()

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield (rand(2, 2, 2),)


_NOTHING = np.zeros((1, 0), np.float32)  # a block of no columns
