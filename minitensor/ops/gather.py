"""Picking and changing elements along one dimension: by number, range, or a tensor of indices."""

from __future__ import annotations

from operator import index as as_int
from typing import Any

import numpy as np

from .. import memory
from ..core import Op, Tensor, wrap
from .convert import fitted
from .index import IndexPut, IndexSum, Key, PutItem, check_range, take
from .shape import Samples, normal_dim, shaped


class Select(Op):
    """The slice number `index` along `dim`, without that dimension: (a, b) -> (b) for dim 0."""

    @staticmethod
    def call(input: Tensor, dim: int, index: Any) -> Tensor:
        shape = input._array.shape
        if not shape:
            raise IndexError("select: cannot be applied to a 0-dim tensor")
        dim, index = normal_dim(dim, len(shape)), as_int(index)
        if not -shape[dim] <= index < shape[dim]:
            raise IndexError(
                f"select: index {index} out of range for tensor of size {list(shape)} "
                f"at dimension {dim}"
            )
        return input[(*(slice(None),) * dim, index)]

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand(2, 3), 0, 1
        yield rand(2, 3), -1, -2

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand(2, 3), 0, 2
        yield rand(2, 3), 2, 0
        yield rand(), 0, 0


class Narrow(Op):
    """`length` elements from `start` on along `dim`."""

    @staticmethod
    def call(input: Tensor, dim: int, start: Any, length: int) -> Tensor:
        shape = input._array.shape
        if not shape:
            raise RuntimeError("narrow: cannot be applied to a 0-dim tensor")
        if isinstance(start, Tensor) and (start._array.ndim or start._array.dtype.kind not in "iu"):
            raise RuntimeError(
                f"narrow: start must be a number or a 0-dim tensor of integers, got {start.dtype} "
                f"{tuple(start.shape)}"
            )
        dim, start = normal_dim(dim, len(shape)), as_int(start)
        size = shape[dim]
        if length < 0:
            raise RuntimeError(f"narrow: length must be non-negative, got {length}")
        if not -size <= start <= size:
            raise IndexError(
                f"narrow: start out of range (expected to be in range of [{-size}, {size}], "
                f"but got {start})"
            )
        start += size if start < 0 else 0
        if start + length > size:
            raise RuntimeError(
                f"narrow: start ({start}) + length ({length}) exceeds dimension size ({size})"
            )
        return input[(*(slice(None),) * dim, slice(start, start + length))]

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand(4, 3), 0, 1, 2
        yield rand(2, 4), 1, -2, 2
        yield rand(2, 4), 1, 4, 0

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand(2, 4), 1, 2, 3
        yield rand(2, 4), 1, -5, 1
        yield rand(2, 4), 1, 0, -1
        yield rand(), 0, 0, 1


# A vector of indices


def index_vector(op: str, index: Tensor, *types: Any) -> Tensor:
    """The index as a vector of integers; IndexError or RuntimeError if it is none."""
    array, types = index._array, types or (np.int64, np.int32)
    if array.ndim > 1:
        raise IndexError(f"{op}: Index is supposed to be a vector, got shape {tuple(array.shape)}")
    if array.dtype not in types:
        expected = " or ".join(np.dtype(t).name for t in types)
        raise RuntimeError(f"{op}: Expected dtype {expected} for index, got {array.dtype}")
    return index if array.ndim else wrap(array.reshape(1))


def as_row(t: Tensor) -> Tensor:
    """A 0-dim tensor as one of one element in one dimension; any other as it is."""
    return t if t._array.ndim else t.reshape(1)


class IndexSelect(Op):
    """The slices of x along `dim` that `index` names: (a, b), (n) -> (n, b) for dim 0."""

    @staticmethod
    def call(input: Tensor, dim: int, index: Tensor) -> Tensor:
        vector = index_vector("index_select", index)
        if input._array.ndim == 0:
            dim = normal_dim(dim, 0)
            if vector._array.size != 1:
                raise RuntimeError(
                    "index_select: Index to scalar can have only 1 value, got "
                    f"{vector._array.size} values"
                )
            return shaped(IndexSelect.apply(input.reshape(1), vector, dim=dim), ())
        return IndexSelect.apply(input, vector, dim=dim)

    def forward(ctx, x: np.ndarray, index: np.ndarray, *, dim: int) -> np.ndarray:
        dim = normal_dim(dim, x.ndim)
        check_range(index, x.shape[dim], dim, IndexError)
        ctx.save(index, x.shape, dim)
        return take(x, index, dim)

    def backward(ctx, dy: Tensor) -> Tensor:
        index, shape, dim = ctx.saved
        return IndexSum.apply(dy, *(None,) * dim, index, shape=shape)

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand(3, 4), 0, rand.integers(0, 3, 5)
        yield rand(3, 4), -1, rand.integers(0, 4, 2, dtype=np.int32)
        yield rand(), 0, wrap(np.array([0]))

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand(3, 4), 0, rand.integers(3, 5, 2)
        yield rand(3, 4), 0, rand.integers(-2, 0, 2)
        yield rand(3, 4), 2, rand.integers(0, 3, 2)
        yield rand(3, 4), 0, rand.integers(0, 3, 2, 2)
        yield rand(3, 4), 0, rand(2)
        yield rand(), 0, rand.integers(0, 1, 2)


class IndexAdd(Op):
    """x plus `alpha` times the slices of `source` at `index` along `dim`; they may meet."""

    inplace = True

    @staticmethod
    def call(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1) -> Tensor:
        index = index_vector("index_add", index)
        shape = input._array.shape
        dim = normal_dim(dim, len(shape))
        if source._array.dtype != input._array.dtype:
            raise RuntimeError(
                f"index_add: self ({input._array.dtype}) and source ({source._array.dtype}) must "
                "have the same scalar type"
            )
        count = index._array.size
        if source._array.ndim == 0 and count != 1 and len(shape) < 2:
            raise IndexError(f"index_add: a 0-dim source has one slice, the index names {count}")
        expected = (*shape[:dim], count, *shape[dim + 1 :]) if shape else ()
        if source._array.shape != expected:
            raise RuntimeError(
                f"index_add: source has shape {tuple(source.shape)}, but {count} "
                f"slices along dim {dim} of {tuple(shape)} have {expected}"
            )
        row = shape or (1,)
        check_range(index._array, row[dim], dim, RuntimeError if len(row) > 1 else IndexError)
        total = IndexSum.apply(as_row(source), *(None,) * dim, index, shape=row)
        return input + (total if alpha == 1 else total * alpha).reshape(shape)

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand(3, 4), 0, rand.integers(0, 3, 5), rand(5, 4)
        yield rand(3, 4), -1, rand.integers(0, 4, 2), rand(3, 2), dict(alpha=2)
        yield rand.integers(0, 9, 3), 0, rand.integers(0, 3, 5), rand.integers(0, 9, 5)
        yield rand(), 0, rand.integers(0, 1), rand()

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand(3), 0, rand.integers(3, 4, 2), rand(2)
        yield rand(), 0, rand.integers(0, 1, 1), rand(1)
        yield rand(3, 4), 0, rand.integers(0, 3, 2), rand(2, 3)
        yield rand(3, 4), 0, rand.integers(0, 3, 2), rand(1, 4)
        yield rand(3, 4), 0, rand.integers(3, 4, 2), rand(2, 4)
        yield rand(3, 4), 0, rand.integers(0, 3, 2), rand.integers(0, 3, 2, 4)


class IndexFill(Op):
    """x with `value` in the slices along `dim` that `index` names."""

    inplace = True

    @staticmethod
    def call(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
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
        # Each slice once: what fills it twice counts once in the gradient of the value.
        places = wrap(np.unique(index._array % max(shape[dim], 1)))
        filled = IndexPut.apply(as_row(input), value, *(None,) * dim, places)
        return shaped(filled, input._array.shape)

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand(3, 4), 0, rand.integers(-3, 3, 2), 1.5
        yield rand(3, 4), 1, rand.integers(0, 4, 2), rand()
        yield rand(3, 4), 0, wrap(np.array([0, 2, 0])), rand()
        yield rand(), 0, wrap(np.array([0, 0])), rand()

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand(3, 4), 0, rand.integers(3, 4, 2), 1.0
        yield rand(3, 4), 0, rand.integers(0, 3, 2), rand(1)
        yield rand(), 0, rand.integers(1, 2, 1), 1.0
        yield rand(3), 0, rand.integers(0, 3, 2, dtype=np.int32), 1.0


class IndexCopy(Op):
    """x with the slices along `dim` that `index` names replaced by those of `source`."""

    inplace = True

    @staticmethod
    def call(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
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

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand(3, 4), 1, wrap(np.array([2, 0])), rand(3, 2)
        yield rand(), 0, rand.integers(0, 1), rand()
        yield rand(), 0, rand.integers(0, 1, 1), rand(1)
        yield rand(3), 0, rand.integers(0, 3, 1), rand()

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand(3), 0, wrap(np.array([-1])), rand(1)
        yield rand(3), 0, rand.integers(0, 3, 2, dtype=np.int32), rand(2)
        yield rand(), 0, rand.integers(0, 1, 2), rand()
        yield rand(3, 4), 0, rand.integers(0, 3, 1), rand()
        yield rand(3, 4), 0, rand.integers(0, 3, 1), rand(4)
        yield rand(3, 4), 0, rand.integers(3, 4, 1), rand(1, 4)


# One index for each element of the result


def along(
    index: np.ndarray, shape: tuple[int, ...], dim: int, fits: tuple[tuple[int, ...], ...] = ()
) -> Key:
    """The key of the elements at `index` along `dim`, and where they are in the other dimensions.

    RuntimeError if the index has other dimensions than `shape`, or is larger than it in one of the
    other dimensions, or than one of `fits` in any.
    """
    if index.dtype not in (np.int64, np.int32):
        raise RuntimeError(f"Expected dtype int32/int64 for index, got {index.dtype}")
    if index.ndim != len(shape) or any(len(f) != len(shape) for f in fits):
        raise RuntimeError(
            "index, input and src must have the same number of dimensions, got shapes "
            f"{tuple(index.shape)}, {tuple(shape)}{''.join(f' and {f}' for f in fits)}"
        )
    for d, n in enumerate(index.shape):
        if (d != dim and n > shape[d] and index.size) or any(n > f[d] for f in fits):
            raise RuntimeError(
                f"Size does not match at dimension {d} expected index {list(index.shape)} to be "
                f"no larger than self {list(shape)} apart from dimension {dim}"
                f"{''.join(f' and than src {list(f)}' for f in fits)}"
            )
    check_range(index, shape[dim], dim, RuntimeError)
    count = index.ndim
    return tuple(
        index if d == dim else np.arange(n).reshape((1,) * d + (n,) + (1,) * (count - d - 1))
        for d, n in enumerate(index.shape)
    )


class Gather(Op):
    """y[i][j] = x[index[i][j]][j] for dim 0 of a matrix: (*), (index) -> (index)."""

    @staticmethod
    def call(input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:
        found = Gather.apply(as_row(input), as_row(index), dim=dim)
        return shaped(found, index._array.shape)

    def forward(ctx, x: np.ndarray, index: np.ndarray, *, dim: int) -> np.ndarray:
        dim = normal_dim(dim, x.ndim)
        key = along(index, x.shape, dim)
        ctx.save(index, x.shape, dim)
        return x[key]

    def backward(ctx, dy: Tensor) -> Tensor:
        index, shape, dim = ctx.saved
        zeros = wrap(memory.zeros(shape, dy._array.dtype))
        return ScatterAdd.apply(zeros, index, dy, dim=dim)

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand(3, 4), 0, rand.integers(0, 3, 2, 4)
        yield rand(3, 4), -1, rand.integers(0, 4, 2, 5)
        yield rand(2, 3, 4), 1, rand.integers(0, 3, 2, 3, 1)
        yield rand(), 0, rand.integers(0, 1)
        yield rand(), 0, rand.integers(0, 1, 1)
        yield rand(3), 0, rand.integers(0, 3)

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand(), 0, rand.integers(0, 1, 1, 1)
        yield rand(3, 4), 0, rand.integers(3, 4, 1, 1)
        yield rand(3, 4), 0, rand.integers(-1, 0, 1, 1)
        yield rand(3, 4), 0, rand.integers(0, 3, 1)
        yield rand(3, 4), 1, rand.integers(0, 3, 4, 1)
        yield rand(3, 4), 2, rand.integers(0, 3, 1, 1)
        yield rand(3, 4), 0, rand(1, 1)


class TakeAlongDim(Op):
    """`gather` where index and input broadcast in the other dimensions; flattened without `dim`.

    With `dim`, -1 is the last along it, as in `x[index]`.
    """

    @staticmethod
    def call(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
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
            shape = list(np.broadcast_shapes(tuple(own), tuple(other)))
        except ValueError:
            raise RuntimeError(
                f"take_along_dim: input {tuple(input.shape)} and indices {tuple(indices.shape)} "
                f"do not broadcast apart from dimension {dim}"
            ) from None
        shape[dim] = lengths[0]
        input = input.expand(shape)
        check_range(indices._array, lengths[0], dim, RuntimeError, -lengths[0])
        if indices._array.size and indices._array.min() < 0:
            indices = wrap(indices._array % lengths[0])
        shape[dim] = lengths[1]
        return Gather.apply(input, indices.expand(shape), dim=dim)

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand(3, 4), rand.integers(0, 4, 3, 1), 1
        yield rand(3, 4), rand.integers(0, 3, 2, 1), 0
        yield rand(3, 4), rand.integers(0, 12, 5)
        yield rand(3, 4), rand.integers(-3, 3, 2, 4), 0

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand(3), rand.integers(0, 3, 2, dtype=np.int32), 0
        yield rand(3), wrap(np.array([-1]))
        yield rand(), rand.integers(0, 1), 0
        yield rand(3, 4), rand.integers(0, 4, 2, 1), 1
        yield rand(3, 4), rand.integers(0, 4, 2), 1


class Scatter(Op):
    """x with the elements of src, or a number, at y[index[i][j]][j] for dim 0: `gather` undone.

    Where the index names a place twice, the last element stays.
    """

    @staticmethod
    def call(
        input: Tensor,
        dim: int,
        index: Tensor,
        src: Any = None,
        *,
        value: Any = None,
        reduce: Any = None,
    ) -> Tensor:
        if reduce is not None:
            raise NotImplementedError("scatter: reduce is not implemented; scatter_add adds")
        given = src = value if src is None else src
        if not isinstance(src, Tensor):
            src = wrap(np.asarray(src, input._array.dtype))
        if isinstance(given, Tensor):
            src = as_row(src)  # of a number, the 0-dim tensor stands for all places
        found = Scatter.apply(as_row(input), as_row(index), src, dim=dim)
        return shaped(found, input._array.shape)

    def forward(ctx, x: np.ndarray, index: np.ndarray, src: np.ndarray, *, dim: int) -> np.ndarray:
        ctx.save(index, src.shape, dim)
        y = memory.empty_like(x)
        y[...] = x
        scatter(y, index, src, dim)
        return y

    def backward(ctx, dy: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        index, shape, dim = ctx.saved
        needs_x, _, needs_src = ctx.needs_input_grad
        zero = wrap(np.zeros((), dy._array.dtype))
        dx = Scatter.apply(dy, index, zero, dim=dim) if needs_x else None
        return dx, None, _source_gradient(dy, index, shape, dim) if needs_src else None

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand(3, 4), 0, wrap(np.array([[0, 2, 1, 1], [1, 0, 0, 2]])), rand(2, 4)
        yield rand(3, 4), 1, rand.integers(0, 4, 2, 1), 1.5
        yield rand(3, 4), -1, rand.integers(0, 4, 3, 2), dict(value=2)
        yield rand(), 0, rand.integers(0, 1), rand()

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand(3, 4), 0, rand.integers(3, 4, 1, 1), rand(1, 1)
        yield rand(3, 4), 0, rand.integers(0, 3, 1, 2), rand(1, 1)
        yield rand(3, 4), 0, rand.integers(0, 3, 1, 5), 1.0
        yield rand(3, 4), 0, rand.integers(0, 3, 1), 1.0
        yield rand(3, 4), 0, rand.integers(0, 3, 1, 1), rand.integers(0, 3, 1, 1)


def scatter(x: np.ndarray, index: np.ndarray, src: np.ndarray, dim: int) -> None:
    """Write `src` (0-dim: everywhere) into x where `index` says along `dim`."""
    if src.dtype != x.dtype:
        raise RuntimeError(f"Expected self.dtype to be equal to src.dtype: {x.dtype}, {src.dtype}")
    dim = normal_dim(dim, x.ndim)
    key = along(index, x.shape, dim, (src.shape,) if src.ndim else ())
    x[key] = src[tuple(map(slice, index.shape))] if src.ndim else src


def _source_gradient(dy: Tensor, index: Tensor, shape: tuple[int, ...], dim: int) -> Tensor:
    """The gradient of scatter's source: of `shape`, of which the index may use only a part."""
    if not shape:
        return Gather.apply(dy, index, dim=dim).sum()
    found = Gather.apply(dy, index, dim=dim)
    if shape == index._array.shape:
        return found
    key = tuple(slice(0, n) for n in index._array.shape)
    return PutItem.apply(found, shape=shape, key=key)


class ScatterAdd(Op):
    """x plus the elements of src at y[index[i][j]][j] for dim 0; they may meet."""

    inplace = True

    @staticmethod
    def call(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
        found = ScatterAdd.apply(as_row(input), as_row(index), as_row(src), dim=dim)
        return shaped(found, input._array.shape)

    def forward(ctx, x: np.ndarray, index: np.ndarray, src: np.ndarray, *, dim: int) -> np.ndarray:
        if src.dtype != x.dtype:
            raise RuntimeError(
                f"Expected self.dtype to be equal to src.dtype: {x.dtype}, {src.dtype}"
            )
        dim = normal_dim(dim, x.ndim)
        key = along(index, x.shape, dim, (src.shape,))
        ctx.save(index, src.shape, dim)
        y = memory.empty_like(x)
        y[...] = x
        np.add.at(y, key, src[tuple(map(slice, index.shape))])
        return y

    def backward(ctx, dy: Tensor) -> tuple[Tensor, None, Tensor | None]:
        index, shape, dim = ctx.saved
        needs_src = ctx.needs_input_grad[2]
        return dy, None, _source_gradient(dy, index, shape, dim) if needs_src else None

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand(3, 4), 0, rand.integers(0, 3, 5, 4), rand(5, 4)
        yield rand(3, 4), -1, rand.integers(0, 4, 2, 2), rand(2, 2)
        yield rand.integers(0, 9, 3), 0, rand.integers(0, 3, 5), rand.integers(0, 9, 5)

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand(3, 4), 0, rand.integers(3, 4, 1, 1), rand(1, 1)
        yield rand(3, 4), 0, rand.integers(0, 3, 1, 1), rand.integers(0, 3, 1, 1)
