"""Slices along a dimension added, filled and copied by index, and `take_along_dim`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...core import Op, Tensor, wrap
from ..checks import check_tensors, normal_dim
from ..composite import composite
from ..convert import fitted
from ..gather import Gather, IndexSelect, as_row, index_vector
from ..index import IndexPut, IndexSum, check_range, summed_at
from ..places import PLACE, along, at, times
from ..samples import Rand, Samples
from ..shape import shaped


class IndexAdd(Op):
    """y = x plus `alpha` times the slices of `source`, added at `index` along `dim`.

    (a, b), (n), (n, b) -> (a, b) for dim 0. Indices may repeat.  dx = dy, dsource = alpha * dy at
    the indices.
    """

    out = "same"
    inplace = True
    one_type = True

    @staticmethod
    def call(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1) -> Tensor:
        index = index_vector("index_add", index)
        check_tensors("index_add", input=input, source=source)
        shape, given = input._array.shape, source._array
        dim = normal_dim(dim, len(shape))
        if given.dtype != input._array.dtype:
            raise RuntimeError(
                f"index_add: self ({input._array.dtype}) and source ({given.dtype}) must "
                "have the same scalar type"
            )
        count = index._array.size
        if given.ndim == 0 and count != 1 and len(shape) < 2:
            raise IndexError(f"index_add: a 0-dim source has one slice, the index names {count}")
        expected = (*shape[:dim], count, *shape[dim + 1 :]) if shape else ()
        if given.shape != expected:
            raise RuntimeError(
                f"index_add: source has shape {tuple(given.shape)}, but {count} "
                f"slices along dim {dim} of {tuple(shape)} have {expected}"
            )
        error = RuntimeError if len(shape) > 1 else IndexError
        check_range(index._array, shape[dim] if shape else 1, dim, error)
        return shaped(IndexAdd.apply(as_row(input), index, as_row(source), dim, alpha), shape)

    def forward(
        ctx, x: np.ndarray, index: np.ndarray, source: np.ndarray, dim: int, alpha: float
    ) -> np.ndarray:
        ctx.save(index, dim, alpha)
        total = summed_at(source, (*(None,) * dim, index), x.shape)
        return x + (total if alpha == 1 else total * x.dtype.type(alpha))

    @staticmethod
    def cell(x: np.ndarray, index: np.ndarray, source: np.ndarray, dim: int, alpha: float) -> str:
        of = at("source", along(x.ndim, [dim], f"index[:] == {PLACE[dim]}"))
        return f"x + {times(alpha, f'sum({of})')}"

    def backward(ctx, dy: Tensor) -> tuple[Tensor, None, Tensor | None]:
        index, dim, alpha = ctx.saved
        if not ctx.needs_input_grad[2]:
            return dy, None, None
        picked = IndexSelect.apply(dy, index, dim=dim)
        return dy, None, picked if alpha == 1 else picked * alpha

    @staticmethod
    def decomposition(x: Tensor, index: Tensor, source: Tensor, dim: int, alpha: float) -> Tensor:
        total = IndexSum.apply(source, *(None,) * dim, index, shape=x._array.shape)
        return x + (total if alpha == 1 else total * alpha)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(3, 4), 0, rand.integers(0, 3, 5), rand(5, 4)
        yield rand(3, 4), -1, rand.integers(0, 4, 2), rand(3, 2), dict(alpha=2)
        yield rand.integers(0, 9, 3), 0, rand.integers(0, 3, 5), rand.integers(0, 9, 5)
        yield rand(), 0, rand.integers(0, 1), rand()

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(3), 0, rand.integers(3, 4, 2), rand(2)
        yield rand(), 0, rand.integers(0, 1, 1), rand(1)
        yield rand(3, 4), 0, rand.integers(0, 3, 2), rand(2, 3)
        yield rand(3, 4), 0, rand.integers(0, 3, 2), rand(1, 4)
        yield rand(3, 4), 0, rand.integers(3, 4, 2), rand(2, 4)
        yield rand(3, 4), 0, rand.integers(0, 3, 2), rand.integers(0, 3, 2, 4)


@composite(
    inplace=True,
    samples=lambda rand: [
        (rand(3, 4), 0, rand.integers(-3, 3, 2), 1.5),
        (rand(3, 4), 1, rand.integers(0, 4, 2), rand()),
        (rand(3, 4), 0, wrap(np.array([0, 2, 0])), rand()),
        (rand(), 0, wrap(np.array([0, 0])), rand()),
    ],
    errors=lambda rand: [
        (rand(3, 4), 0, rand.integers(3, 4, 2), 1.0),
        (rand(3, 4), 0, rand.integers(0, 3, 2), rand(1)),
        (rand(), 0, rand.integers(1, 2, 1), 1.0),
        (rand(3), 0, rand.integers(0, 3, 2, dtype=np.int32), 1.0),
    ],
)
def index_fill(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """y = x with `value` in the slices along `dim` that `index` names: (*), (n), () -> (*).

    dx = dy, 0 there; dvalue = the sum of dy there.
    """
    if index._array.dtype != np.int64:
        raise IndexError(f"index_fill: Expected dtype int64 for index, got {index.dtype}")
    index = index_vector("index_fill", index)
    if isinstance(value, Tensor) and value._array.ndim:
        raise RuntimeError(
            "index_fill: only supports a 0-dimensional value tensor, but got tensor with "
            f"{value._array.ndim} dimension(s)"
        )
    dtype = input._array.dtype
    value = fitted(value, dtype)
    value = value if isinstance(value, Tensor) else wrap(np.asarray(value, dtype))
    shape = input._array.shape or (1,)
    dim = normal_dim(dim, len(shape))
    check_range(index._array, shape[dim], dim, IndexError, -shape[dim])
    # Each slice once: one that is named twice counts once in the gradient of the value.
    named = np.zeros(shape[dim], np.bool_)
    named[index._array] = True
    filled = IndexPut.apply(as_row(input), value, *(None,) * dim, wrap(named))
    return shaped(filled, input._array.shape)


@composite(
    out="same",
    inplace=True,
    samples=lambda rand: [
        (rand(3, 4), 1, wrap(np.array([2, 0])), rand(3, 2)),
        (rand(), 0, rand.integers(0, 1), rand()),
        (rand(), 0, rand.integers(0, 1, 1), rand(1)),
        (rand(3), 0, rand.integers(0, 3, 1), rand()),
    ],
    errors=lambda rand: [
        (rand(3), 0, wrap(np.array([-1])), rand(1)),
        (rand(3), 0, rand.integers(0, 3, 2, dtype=np.int32), rand(2)),
        (rand(), 0, rand.integers(0, 1, 2), rand()),
        (rand(3, 4), 0, rand.integers(0, 3, 1), rand()),
        (rand(3, 4), 0, rand.integers(0, 3, 1), rand(4)),
        (rand(3, 4), 0, rand.integers(3, 4, 1), rand(1, 4)),
    ],
)
def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """y = x with the slices along `dim` that `index` names replaced by those of `source`.

    (a, b), (n), (n, b) -> (a, b) for dim 0.  dx = dy, 0 there; dsource = dy there.
    """
    index = index_vector("index_copy", index, np.int64)
    shape = input._array.shape
    dim, count = normal_dim(dim, len(shape)), index._array.size
    if source._array.ndim == 0 and count != 1:
        raise IndexError(f"index_copy: a 0-dim source has one slice, the index names {count}")
    if source._array.ndim != len(shape) and source._array.ndim and shape:
        raise IndexError(
            "index_copy: When source and destination are not scalars, their dimensionality "
            f"must match: {source._array.ndim} and {len(shape)}"
        )
    row, source = as_row(input), as_row(source)
    expected = (*shape[:dim], count, *shape[dim + 1 :])
    if source._array.shape != expected or source._array.dtype != input._array.dtype:
        raise RuntimeError(
            f"index_copy: expected a source of shape {expected} and type "
            f"{input._array.dtype}, got {tuple(source.shape)} and {source._array.dtype}"
        )
    check_range(index._array, row._array.shape[dim], dim, IndexError)
    if not shape and count > 1:  # the last one stays
        index, source = index[-1:], source[-1:]
    return shaped(IndexPut.apply(row, source, *(None,) * dim, index), shape)


@composite(
    out="same",
    samples=lambda rand: [
        (rand(3, 4), rand.integers(0, 4, 3, 1), 1),
        (rand(3, 4), rand.integers(0, 3, 2, 1), 0),
        (rand(3, 4), rand.integers(0, 12, 5)),
        (rand(3, 4), rand.integers(-3, 3, 2, 4), 0),
    ],
    errors=lambda rand: [
        (rand(3), rand.integers(0, 3, 2, dtype=np.int32), 0),
        (rand(3), wrap(np.array([-1]))),
        (rand(), rand.integers(0, 1), 0),
        (rand(3, 4), rand.integers(0, 4, 2, 1), 1),
        (rand(3, 4), rand.integers(0, 4, 2), 1),
    ],
)
def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """`gather` where index and input broadcast in the other dimensions; flattened without `dim`.

    With `dim`, -1 is the last along it, as in `x[index]`.
    """
    if dim is None:
        return Gather.call(input.reshape(-1), 0, indices.reshape(-1))
    ndim = input._array.ndim
    if indices._array.ndim != ndim:
        raise RuntimeError(
            "take_along_dim: input and indices should have the same number of dimensions, "
            f"but got {ndim} and {indices._array.ndim}"
        )
    if indices._array.dtype != np.int64:
        raise RuntimeError(
            f"take_along_dim: dtype of indices should be int64, got {indices._array.dtype}"
        )
    if ndim == 0:
        raise IndexError(f"take_along_dim: dimension {dim} of a 0-dim tensor")
    dim = normal_dim(dim, ndim)
    own, other = list(input._array.shape), list(indices._array.shape)
    lengths = own[dim], other[dim]
    own[dim] = other[dim] = 1
    try:
        shape = own if own == other else list(np.broadcast_shapes(tuple(own), tuple(other)))
    except ValueError:
        raise RuntimeError(
            f"take_along_dim: input {tuple(input.shape)} and indices {tuple(indices.shape)} "
            f"do not broadcast apart from dimension {dim}"
        ) from None
    check_range(indices._array, lengths[0], dim, RuntimeError, -lengths[0])
    if indices._array.size and indices._array.min() < 0:
        indices = wrap(indices._array % lengths[0])
    if own != shape:
        input = input.expand(*shape[:dim], lengths[0], *shape[dim + 1 :])
    if other != shape:
        indices = indices.expand(*shape[:dim], lengths[1], *shape[dim + 1 :])
    return Gather.apply(input, indices, dim=dim)
