"""Elements along one dimension, by number, by range or by a tensor of indices."""

from __future__ import annotations

from operator import index as as_int
from typing import Any

import numpy as np

from .. import memory
from ..core import NAMESPACES, Op, Tensor, wrap
from .checks import check_tensors, normal_dim
from .composite import composite
from .index import IndexSum, Key, PutItem, check_range, grid, take
from .places import PLACE, along, at, places
from .samples import Rand, Samples
from .shape import shaped


@composite(
    samples=lambda rand: [(rand(2, 3), 0, 1), (rand(2, 3), -1, -2)],
    errors=lambda rand: [(rand(2, 3), 0, 2), (rand(2, 3), 2, 0), (rand(), 0, 0)],
)
def select(input: Tensor, dim: int, index: Any) -> Tensor:
    """y = slice number `index` along `dim`, without that dimension: (a, b) -> (b) for dim 0."""
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


@composite(
    samples=lambda rand: [(rand(4, 3), 0, 1, 2), (rand(2, 4), 1, -2, 2), (rand(2, 4), 1, 4, 0)],
    errors=lambda rand: [
        (rand(2, 4), 1, 2, 3),
        (rand(2, 4), 1, -5, 1),
        (rand(2, 4), 1, 0, -1),
        (rand(), 0, 0, 1),
    ],
)
def narrow(input: Tensor, dim: int, start: Any, length: int) -> Tensor:
    """y = `length` elements along `dim` from `start` on: (a, b) -> (length, b) for dim 0."""
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


# A vector of indices


def index_vector(op: str, index: Tensor, *types: Any) -> Tensor:
    """Return the index as a vector of integers; IndexError or RuntimeError if it is not one."""
    if not isinstance(index, Tensor):
        check_tensors(op, index=index)
    array, types = index._array, types or (np.int64, np.int32)
    if array.ndim > 1:
        raise IndexError(f"{op}: Index is supposed to be a vector, got shape {tuple(array.shape)}")
    if array.dtype not in types:
        expected = " or ".join(np.dtype(t).name for t in types)
        raise RuntimeError(f"{op}: Expected dtype {expected} for index, got {array.dtype}")
    return index if array.ndim else wrap(array.reshape(1))


def as_row(t: Tensor) -> Tensor:
    """Return a 0-dim tensor as a vector of one element, any other as it is."""
    if not isinstance(t, Tensor):
        check_tensors("an op with an index", argument=t)
    return t if t._array.ndim else t.reshape(1)


class IndexSelect(Op):
    """y = the slices of x along `dim` at `index`: (a, b), (n) -> (n, b) for dim 0.

    dx = dy, added at the indices.
    """

    out = "same"

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

    @staticmethod
    def cell(x: np.ndarray, index: np.ndarray, *, dim: int) -> str:
        return at("x", along(x.ndim, [dim], f"index[{PLACE[dim % x.ndim]}]"))

    def backward(ctx, dy: Tensor) -> Tensor:
        index, shape, dim = ctx.saved
        return IndexSum.apply(dy, *(None,) * dim, index, shape=shape)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(3, 4), 0, rand.integers(0, 3, 5)
        yield rand(3, 4), -1, rand.integers(0, 4, 2, dtype=np.int32)
        yield rand(), 0, wrap(np.array([0]))

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(3, 4), 0, rand.integers(3, 5, 2)
        yield rand(3, 4), 0, rand.integers(-2, 0, 2)
        yield rand(3, 4), 2, rand.integers(0, 3, 2)
        yield rand(3, 4), 0, rand.integers(0, 3, 2, 2)
        yield rand(3, 4), 0, rand(2)
        yield rand(), 0, rand.integers(0, 1, 2)


# One index for each element of the result


def key_along(
    index: np.ndarray, shape: tuple[int, ...], dim: int, fits: tuple[tuple[int, ...], ...] = ()
) -> Key:
    """Return NumPy's key of the elements at `index` along `dim`, at their own places elsewhere.

    RuntimeError if the index has other dimensions than `shape`, or is larger than it in one of the
    other dimensions, or than one of `fits` in any.
    """
    if index.dtype.kind != "i" or index.itemsize < 4:
        raise RuntimeError(f"Expected dtype int32/int64 for index, got {index.dtype}")
    if {index.ndim, *map(len, fits)} != {len(shape)}:
        raise RuntimeError(
            "index, input and src must have the same number of dimensions, got shapes "
            f"{tuple(index.shape)}, {tuple(shape)}{''.join(f' and {f}' for f in fits)}"
        )
    for d, n in enumerate(index.shape):
        if (n > shape[d] and d != dim and index.size) or (fits and n > min(f[d] for f in fits)):
            raise RuntimeError(
                f"Size does not match at dimension {d} expected index {list(index.shape)} to be "
                f"no larger than self {list(shape)} apart from dimension {dim}"
                f"{''.join(f' and than src {list(f)}' for f in fits)}"
            )
    check_range(index, shape[dim], dim, RuntimeError)
    key = grid(index.shape)
    return (*key[:dim], index, *key[dim + 1 :])


class Gather(Op):
    """y[i][j] = x[index[i][j]][j] for dim 0: (*), (index) -> (index).  dx = scatter_add(dy)."""

    out = "same"

    @staticmethod
    def call(input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:
        found = Gather.apply(as_row(input), as_row(index), dim=dim)
        return shaped(found, index._array.shape)

    def forward(ctx, x: np.ndarray, index: np.ndarray, *, dim: int) -> np.ndarray:
        dim = normal_dim(dim, x.ndim)
        key = key_along(index, x.shape, dim)
        ctx.save(index, x.shape, dim)
        return x[key]

    @staticmethod
    def cell(x: np.ndarray, index: np.ndarray, *, dim: int) -> str:
        return at("x", along(x.ndim, [dim], at("index", places(x.ndim))))

    def backward(ctx, dy: Tensor) -> Tensor:
        index, shape, dim = ctx.saved
        zeros = wrap(memory.zeros(shape, dy._array.dtype))
        return ScatterAdd.apply(zeros, index, dy, dim=dim)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(3, 4), 0, rand.integers(0, 3, 2, 4)
        yield rand(3, 4), -1, rand.integers(0, 4, 2, 5)
        yield rand(2, 3, 4), 1, rand.integers(0, 3, 2, 3, 1)
        yield rand(), 0, rand.integers(0, 1)
        yield rand(), 0, rand.integers(0, 1, 1)
        yield rand(3), 0, rand.integers(0, 3)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(), 0, rand.integers(0, 1, 1, 1)
        yield rand(3, 4), 0, rand.integers(3, 4, 1, 1)
        yield rand(3, 4), 0, rand.integers(-1, 0, 1, 1)
        yield rand(3, 4), 0, rand.integers(0, 3, 1)
        yield rand(3, 4), 1, rand.integers(0, 3, 4, 1)
        yield rand(3, 4), 2, rand.integers(0, 3, 1, 1)
        yield rand(3, 4), 0, rand(1, 1)


_WORDS = {"add": "sum", "multiply": "prod"}  # of `scatter`, and of `scatter_reduce`


class Scatter(Op):
    """y = x with src, or a number, written: y[index[i][j]][j] = src[i][j] for dim 0.

    (*), (index), (index or larger) -> (*).  dx = dy, 0 where written; dsrc = gather(dy). Where the
    index names a place twice, the last element stays. With `reduce` "add" or "multiply" the
    elements are added to x or multiplied with it.
    """

    one_type = True
    out = "same"

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
        given = src = value if src is None else src
        if src is None:
            raise TypeError("scatter: expected a tensor as src, or a number as value, got neither")
        if not isinstance(src, Tensor):
            src = wrap(np.asarray(src, input._array.dtype))
        if reduce is not None:
            if reduce not in _WORDS:
                raise RuntimeError(
                    f"scatter: reduce argument must be either add or multiply, got {reduce}"
                )
            src = src if src._array.ndim else src.expand(index._array.shape)
            reduced: Tensor = NAMESPACES["torch"]["scatter_reduce"](
                input, dim, index, src, _WORDS[reduce]
            )
            return reduced
        if isinstance(given, Tensor):
            src = as_row(src)  # a number is one 0-dim tensor for all places
        found = Scatter.apply(as_row(input), as_row(index), src, dim=dim)
        return shaped(found, input._array.shape)

    def forward(ctx, x: np.ndarray, index: np.ndarray, src: np.ndarray, *, dim: int) -> np.ndarray:
        ctx.save(index, src.shape, dim)
        y = memory.empty_like(x)
        y[...] = x
        scatter(y, index, src, dim)
        return y

    @staticmethod
    def cell(x: np.ndarray, index: np.ndarray, src: np.ndarray, *, dim: int) -> str:
        here = f"{at('index', along(x.ndim, [dim]))} == {PLACE[dim % x.ndim]}"
        new = at("src", along(src.ndim, [dim], f"last({here})")) if src.ndim else "src"
        return f"{outside(index, x, dim)}{new} if any({here}) else x"

    def backward(ctx, dy: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        index, shape, dim = ctx.saved
        needs_x, _, needs_src = ctx.needs_input_grad
        zero = wrap(np.zeros((), dy._array.dtype))
        dx = Scatter.apply(dy, index, zero, dim=dim) if needs_x else None
        return dx, None, source_gradient(dy, index, shape, dim) if needs_src else None

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(3, 4), 0, wrap(np.array([[0, 2, 1, 1], [1, 0, 0, 2]])), rand(2, 4)
        yield rand(3, 4), 1, rand.integers(0, 4, 2, 1), 1.5
        yield rand(3, 4), -1, rand.integers(0, 4, 3, 2), dict(value=2)
        yield rand(), 0, rand.integers(0, 1), rand()
        index = rand.integers(0, 3, 5)
        yield rand.constant(3), 0, index, rand.constant(5), dict(reduce="add")
        yield rand.constant(3), 0, index, rand.constant(5), dict(reduce="multiply")
        yield rand.constant(3), 0, index, 1.5, dict(reduce="multiply")

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(3), 0, rand.integers(0, 3, 1), rand(1), dict(reduce="mean")
        yield rand(3, 4), 0, rand.integers(3, 4, 1, 1), rand(1, 1)
        yield rand(3, 4), 0, rand.integers(0, 3, 1, 2), rand(1, 1)
        yield rand(3, 4), 0, rand.integers(0, 3, 1, 5), 1.0
        yield rand(3, 4), 0, rand.integers(0, 3, 1), 1.0
        yield rand(3, 4), 0, rand.integers(0, 3, 1, 1), rand.integers(0, 3, 1, 1)


def outside(index: np.ndarray, x: np.ndarray, dim: int) -> str:
    """Return the beginning of a cell: beside an index smaller than x, that keeps its numbers."""
    sides = [
        f"({letter} >= {n})"
        for d, (letter, n) in enumerate(zip(PLACE, index.shape, strict=False))
        if d != dim % x.ndim and n < x.shape[d]
    ]
    return f"x if {' | '.join(sides)} else " if sides else ""


def scatter(x: np.ndarray, index: np.ndarray, src: np.ndarray, dim: int) -> None:
    """Write `src` (0-dim: everywhere) into x where `index` says along `dim`."""
    if src.dtype != x.dtype:
        raise RuntimeError(f"Expected self.dtype to be equal to src.dtype: {x.dtype}, {src.dtype}")
    dim = normal_dim(dim, x.ndim)
    key = key_along(index, x.shape, dim, (src.shape,) if src.ndim else ())
    x[key] = part_of(src, index.shape) if src.ndim else src


def part_of(src: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the elements of a source that an index of `shape` uses."""
    return src if src.shape == shape else src[tuple(map(slice, shape))]


def source_gradient(dy: Tensor, index: Tensor, shape: tuple[int, ...], dim: int) -> Tensor:
    """Return the gradient of a source of `shape`, of which the index may use only a part."""
    if not shape:
        return Gather.apply(dy, index, dim=dim).sum()
    found = Gather.apply(dy, index, dim=dim)
    if shape == index._array.shape:
        return found
    key = tuple(slice(0, n) for n in index._array.shape)
    return PutItem.apply(found, shape=shape, key=key)


class ScatterAdd(Op):
    """y = x with src added: y[index[i][j]][j] += src[i][j] for dim 0; indices may repeat.

    (*), (index), (index or larger) -> (*).  dx = dy, dsrc = gather(dy).
    """

    one_type = True
    out = "same"
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
        key = key_along(index, x.shape, dim, (src.shape,))
        ctx.save(index, src.shape, dim)
        y = memory.empty_like(x)
        y[...] = x
        np.add.at(y, key, part_of(src, index.shape))
        return y

    @staticmethod
    def cell(x: np.ndarray, index: np.ndarray, src: np.ndarray, *, dim: int) -> str:
        here = f"{at('index', along(x.ndim, [dim]))} == {PLACE[dim % x.ndim]}"
        return f"{outside(index, x, dim)}x + sum({at('src', along(src.ndim, [dim], here))})"

    def backward(ctx, dy: Tensor) -> tuple[Tensor, None, Tensor | None]:
        index, shape, dim = ctx.saved
        needs_src = ctx.needs_input_grad[2]
        return dy, None, source_gradient(dy, index, shape, dim) if needs_src else None

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(3, 4), 0, rand.integers(0, 3, 5, 4), rand(5, 4)
        yield rand(3, 4), -1, rand.integers(0, 4, 2, 2), rand(2, 2)
        yield rand.integers(0, 9, 3), 0, rand.integers(0, 3, 5), rand.integers(0, 9, 5)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(3, 4), 0, rand.integers(3, 4, 1, 1), rand(1, 1)
        yield rand(3, 4), 0, rand.integers(0, 3, 1, 1), rand.integers(0, 3, 1, 1)
