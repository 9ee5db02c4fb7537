"""Indexing: `x[...]` to read and to write, as PyTorch does it.

An index is taken in two steps. Integers, slices, None and Ellipsis give a view (`GetItem`).
Tensors, lists and masks then pick elements of that view into a copy (`Index`), and its gradient
adds up what was picked twice (`IndexSum`). Changing elements is `IndexPut`.
"""

from __future__ import annotations

import functools
import math
from operator import index as as_int
from typing import Any

import numpy as np

from .. import memory
from ..core import Op, Tensor, wrap
from ..errors import explain
from ..kernels import embedding as kernels
from .checks import SEQUENCE, check_tensors
from .places import PLACE, at, places, unraveled
from .samples import Rand, Samples

Key = tuple[Any, ...]
_ALL = slice(None)


def _as_tuple(index: Any) -> tuple[Any, ...]:
    """Return the index as a tuple, also of a short list that holds more than numbers."""
    if type(index) is tuple:
        return index
    if (
        isinstance(index, list)
        and len(index) < 32
        and any(
            i is None or i is Ellipsis or isinstance(i, (Tensor, list, tuple, slice)) for i in index
        )
    ):
        return tuple(index)
    return (index,)


def _index_array(item: Any) -> np.ndarray:
    """Return an index item as an array of integers or a mask; IndexError if it is neither."""
    array = item._array if isinstance(item, Tensor) else np.asarray(item)
    if not isinstance(item, Tensor):
        if array.size == 0 or (isinstance(item, np.ndarray) and array.dtype.kind in "iuf"):
            array = array.astype(np.int64)
        elif array.dtype.kind == "O":
            array = np.asarray([as_int(i) for i in item])
    elif array.dtype == np.uint8:
        array = array.astype(np.bool_)
    scalar = array.ndim == 0 and array.dtype.kind == "i"  # stands for a number, whatever its type
    if array.dtype not in (np.int64, np.int32, np.bool_) and not scalar:
        raise IndexError("tensors used as indices must be long, int, byte or bool tensors")
    return array


def parse(index: Any, shape: tuple[int, ...]) -> tuple[Key, list[Any]]:
    """Return an index for a tensor of `shape` as a basic key for NumPy, and picks from that view.

    The picks are an item for each leading dimension of the view: a tensor, or None for all of it;
    trailing dimensions may be missing. There are none if the index is basic.
    """
    items: list[Any] = []
    taken = 0  # dimensions of the tensor that the items use up
    for item in _as_tuple(index):
        kind = type(item)
        if kind is int or kind is slice:
            taken += 1
        elif item is None or item is Ellipsis or kind is bool:
            pass
        elif isinstance(item, (np.bool_, float, complex, str)):
            raise IndexError(
                "only integers, slices (`:`), ellipsis (`...`), None and long or byte Variables "
                f"are valid indices (got {kind.__name__})"
            )
        elif isinstance(item, np.integer):
            item = int(item)
            taken += 1
        else:
            array = _index_array(item)
            if array.ndim == 0 and array.dtype.kind == "b":
                item = bool(item)
            elif array.ndim == 0:
                item = int(item)
                taken += 1
            else:
                item = item if isinstance(item, Tensor) and item._array is array else wrap(array)
                taken += array.ndim if array.dtype.kind == "b" else 1
        items.append(item)
    if taken > len(shape):
        if not shape:
            raise IndexError(
                "invalid index of a 0-dim tensor. Use `tensor.item()` to convert it to a number"
            )
        raise IndexError(f"too many indices for tensor of dimension {len(shape)}")

    key: list[Any] = []
    picks: list[Any] = []
    source = target = 0  # the next dimension of the tensor, and of the view
    filled = False
    for item in items:
        kind = type(item)
        if kind is int:
            if not -shape[source] <= item < shape[source]:
                raise IndexError(
                    f"index {item} is out of bounds for dimension {source} "
                    f"with size {shape[source]}"
                )
            key.append(item)
            source += 1
        elif kind is slice:
            if item.step is not None and item.step <= 0:
                if item.step == 0:
                    raise ValueError("slice step cannot be zero")
                raise ValueError("step must be greater than zero; reverse with .flip(dim)")
            key.append(item)
            source += 1
            target += 1
        elif item is Ellipsis:
            if not filled:
                skipped = len(shape) - taken
                key += [_ALL] * skipped
                source += skipped
                target += skipped
                filled = True
        elif item is None:
            key.append(None)
            target += 1
        else:
            picks += [None] * (target - len(picks))
            if kind is bool:
                key.append(None)
                picks.append(wrap(np.zeros(int(item), np.int64)))
                target += 1
                continue
            array = item._array
            mask = array.dtype.kind == "b"
            if mask and array.shape != shape[source : source + array.ndim]:
                raise IndexError(
                    f"The shape of the mask {list(array.shape)} at index 0 does not match the "
                    f"shape of the indexed tensor {list(shape)} at index {source}"
                )
            dims = array.ndim if mask else 1
            key += [_ALL] * dims
            picks.append(item)
            picks += [...] * (dims - 1)
            source += dims
            target += dims
    return (*key, ...), [p for p in picks if p is not ...]


class GetItem(Op):
    """y = x[key]: integers, slices, None and Ellipsis give a view, tensors and masks then a copy.

    dx = zeros with dy at the key.
    """

    op_name = "getitem"
    namespaces = ""
    operators = ("__getitem__",)
    torch_name = "Tensor.__getitem__"
    view = True
    moves = ("x",)

    @staticmethod
    def call(input: Tensor, index: Any) -> Tensor:
        kind, length = type(index), len(input._array) if input._array.ndim else 0
        one = kind is int and -length <= index < length
        if one or (kind is slice and length and index.step is None):  # the usual cases
            return GetItem.apply(input, key=(index, ...))
        try:
            key, picks = parse(index, input._array.shape)
        except IndexError as error:
            raise explain("getitem", error, (input,)) from error
        if not picks:
            return GetItem.apply(input, key=key)
        if not is_all(key):
            input = GetItem.apply(input, key=key)
        return Index.apply(input, *picks)

    def forward(ctx, x: np.ndarray, *, key: Key) -> np.ndarray:
        ctx.save(x.shape, key)
        return x[key]

    def backward(ctx, dy: Tensor) -> Tensor:
        shape, key = ctx.saved
        return PutItem.apply(dy, shape=shape, key=key)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(3, 4), (slice(1, None), 2)
        yield rand(3, 4), (None, Ellipsis, slice(0, 4, 2))
        yield rand(3, 4), 1
        yield rand(), ()
        yield rand(3, 4), rand.integers(-3, 3, 2, 2)
        yield rand(3, 4), (slice(1, None), [1, 1, 0])
        yield rand(3, 4, 2), (1, slice(None), [1, 0, 1])
        yield rand(3, 4, 2), ([0, 2, 0], slice(1, 3), [1, 0, 1])
        yield rand(3, 4), rand.bools(3, 4)
        yield rand(2, 3, 4), (slice(None), rand.bools(3), None, 2)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(3, 4), 3
        yield rand(3, 4), (0, -5)
        yield rand(3, 4), (0, 0, 0)
        yield rand(3, 4), [0, 3]
        yield rand(3, 4), slice(None, None, -1)
        yield rand(3, 4), 1.0
        yield rand(3, 4), rand(2)
        yield rand(3, 4), rand.bools(4)
        yield rand(3, 4), ([0, 1], [0, 1, 2])


class PutItem(Op):
    """y = zeros of `shape` with x at `key`, the gradient of a basic index.  dx = dy[key]."""

    op_name = "getitem_backward"
    namespaces = ""
    torch_name = None
    moves = ("x",)

    def forward(ctx, x: np.ndarray, *, shape: tuple[int, ...], key: Key) -> np.ndarray:
        ctx.save(key)
        y = memory.zeros(shape, x.dtype)
        y[key] = x
        return y

    def backward(ctx, dy: Tensor) -> Tensor:
        return GetItem.apply(dy, key=ctx.saved[0])

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2), dict(shape=(3, 4), key=(slice(1, None), 2, ...))


def is_all(key: Key) -> bool:
    """Return True if a basic key selects the whole tensor as it is."""
    return all(k is ... or (type(k) is slice and k == _ALL) for k in key)


def array_key(indices: tuple[np.ndarray | None, ...]) -> Key:
    """Return the key for NumPy of indices where None means all of a dimension."""
    return tuple(_ALL if i is None else i for i in indices)


def in_range(index: np.ndarray, low: int, high: int) -> bool:
    """Return True if all integers are in [low, high)."""
    # Where the extremes are is found sooner than the extremes of a small array.
    return not index.size or (
        index.item(index.argmin()) >= low and index.item(index.argmax()) < high
    )


def check_range(
    index: np.ndarray, size: int, dim: int, kind: type[Exception], low: int = 0
) -> None:
    """Raise `kind` if `index` has a value outside [low, size)."""
    if not in_range(index, low, size):
        wrong = index[(index < low) | (index >= size)].flat[0]
        raise kind(f"index {wrong} is out of bounds for dimension {dim} with size {size}")


def take(x: np.ndarray, index: np.ndarray, dim: int) -> np.ndarray:
    """Return x's slices along `dim` at `index`, which must be in range."""
    out = memory.empty((*x.shape[:dim], *index.shape, *x.shape[dim + 1 :]), x.dtype)
    return x.take(index, dim, out, "wrap")


def taken(x: np.ndarray, indices: np.ndarray, dim: int) -> np.ndarray:
    """Return x at `indices` along `dim`, in range, and at their own places elsewhere.

    `np.take_along_axis` does the same; its checks take longer than a small array does.
    """
    key = list(grid(indices.shape))
    key[dim] = indices
    return x[tuple(key)]


def put_along(x: np.ndarray, indices: np.ndarray, values: np.ndarray, dim: int) -> None:
    """Write `values` (broadcast) into x where `taken` would read."""
    key = list(grid(indices.shape))
    key[dim] = indices
    x[tuple(key)] = values


def grid(shape: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """Return the places along each dimension, shaped to broadcast, as `np.ogrid` does."""
    return _kept_grid(shape) if math.prod(shape) <= _SMALL else _grid(shape)


def _grid(shape: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    count = len(shape)
    return tuple(
        [
            np.arange(n).reshape((1,) * d + (n,) + (1,) * (count - d - 1))
            for d, n in enumerate(shape)
        ]
    )


_SMALL = 4096  # elements; the grids of smaller arrays are kept
_kept_grid = functools.lru_cache(maxsize=256)(_grid)


def _picked(
    shape: tuple[int, ...], indices: tuple[np.ndarray | None, ...]
) -> tuple[dict[int, tuple[str, np.ndarray]], int]:
    """Return the name and the array that pick along each dimension, and the front of the picks.

    The front is the dimension of the result where those of the picks begin. A mask picks by
    vectors, "picked0" and so on, which are `_hidden`.
    """
    found: dict[int, tuple[str, np.ndarray]] = {}
    given = [number for number, index in enumerate(indices) if index is not None]
    dim = 0
    for number, index in enumerate(indices):
        if index is None:
            dim += 1
        elif index.dtype.kind == "b":
            for part in index.nonzero():
                found[dim] = f"picked{dim}", part
                dim += 1
        else:
            found[dim] = f"indices{number}", index
            dim += 1
    together = given[-1] - given[0] == len(given) - 1
    return found, min(found) if together else 0


def _hidden(
    x: np.ndarray, indices: tuple[np.ndarray | None, ...], shape: tuple[int, ...]
) -> dict[str, np.ndarray]:
    """Return the vectors by which masks pick."""
    found, _ = _picked(shape, indices)
    return {name: array for name, array in found.values() if name.startswith("picked")}


def _hits(shape: tuple[int, ...], picked: dict[int, tuple[str, np.ndarray]]) -> str:
    """Return the truths of the picks that are the present place: "indices0[:] == i"."""
    tests = []
    for dim, (name, array) in picked.items():
        every = at(name, [":"] * array.ndim)
        every = f"{every} % {shape[dim]}" if (array < 0).any() else every
        tests.append(f"{every} == {PLACE[dim]}")
    return tests[0] if len(tests) == 1 else " & ".join(f"({test})" for test in tests)


class Index(Op):
    """y = x[indices], an index or None for each leading dimension: (*), (index), ... -> (index, *).

    As in NumPy; integers are not among the indices, `GetItem` takes them.  dx = dy, added at the
    indices.
    """

    namespaces = ""
    torch_name = None

    def forward(ctx, x: np.ndarray, *indices: np.ndarray | None) -> np.ndarray:
        ctx.save(x.shape, *indices)
        (*before, last) = indices
        if last is not None and last.dtype.kind != "b" and all(i is None for i in before):
            check_range(last, x.shape[len(before)], len(before), IndexError, -x.shape[len(before)])
            return take(x, last, len(before))
        try:
            return x[array_key(indices)]
        except IndexError as error:
            raise IndexError(str(error).replace("axis", "dimension")) from None

    @staticmethod
    def cell(x: np.ndarray, *indices: np.ndarray | None) -> str:
        picked, front = _picked(x.shape, indices)
        ndim = max(array.ndim for _, array in picked.values())  # of the picks together
        letters = places(ndim + x.ndim - len(picked))
        own, rest = letters[front : front + ndim], iter(letters[:front] + letters[front + ndim :])
        return at(
            "x",
            [
                at(picked[d][0], own[ndim - picked[d][1].ndim :]) if d in picked else next(rest)
                for d in range(x.ndim)
            ],
        )

    @staticmethod
    def hidden(x: np.ndarray, *indices: np.ndarray | None) -> dict[str, np.ndarray]:
        return _hidden(x, indices, x.shape)

    def backward(ctx, dy: Tensor) -> Tensor:
        shape, *indices = ctx.saved
        return IndexSum.apply(dy, *indices, shape=shape)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(3, 4), None, rand.integers(-4, 4, 3)
        yield rand(3, 4), rand.integers(0, 3, 2, 1), rand.integers(0, 4, 3)


class IndexSum(Op):
    """y = zeros of `shape` with x added at the indices, the gradient of `Index`.  dx = dy there."""

    op_name = "index_backward"
    namespaces = ""
    torch_name = None

    def forward(
        ctx, x: np.ndarray, *indices: np.ndarray | None, shape: tuple[int, ...]
    ) -> np.ndarray:
        ctx.save(*indices)
        return summed_at(x, indices, shape)

    @staticmethod
    def cell(x: np.ndarray, *indices: np.ndarray | None, shape: tuple[int, ...]) -> str:
        picked, front = _picked(shape, indices)
        rest = [letter for d, letter in enumerate(places(len(shape))) if d not in picked]
        return f"sum({at('x', [*rest[:front], _hits(shape, picked), *rest[front:]])})"

    @staticmethod
    def hidden(
        x: np.ndarray, *indices: np.ndarray | None, shape: tuple[int, ...]
    ) -> dict[str, np.ndarray]:
        return _hidden(x, indices, shape)

    def backward(ctx, dy: Tensor) -> Tensor:
        return Index.apply(dy, *ctx.saved)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(3), rand.integers(0, 3, 3), rand.integers(-4, 4, 3), dict(shape=(3, 4))
        yield rand(3, 2), None, rand.integers(0, 3, 2), dict(shape=(3, 4))


def summed_at(
    x: np.ndarray, indices: tuple[np.ndarray | None, ...], shape: tuple[int, ...]
) -> np.ndarray:
    """Return zeros of `shape` with x added at the indices."""
    if (
        all(i is None or i.dtype.kind == "b" for i in indices)
        and sum(i is not None for i in indices) == 1
    ):
        y = memory.zeros(shape, x.dtype)  # a mask alone: nothing is picked twice
        y[array_key(indices)] = x
        return y
    if x.size <= _SMALL:
        y = memory.zeros(shape, x.dtype)
        np.add.at(y, array_key(indices), x)
        return y
    # With the picked dimensions in front, as one, this is a sum of rows.
    dims: list[int] = []
    arrays: list[np.ndarray] = []
    places: list[int] = []  # positions among the indices, to see whether they are neighbours
    dim = 0
    for place, i in enumerate(indices):
        if i is None:
            dim += 1
            continue
        places.append(place)
        for part in i.nonzero() if i.dtype.kind == "b" else (i,):
            arrays.append(part)
            dims.append(dim)
            dim += 1
    front = dims[0] if places[-1] - places[0] == len(places) - 1 else 0
    picked = np.broadcast_arrays(*arrays)
    rows = np.zeros(picked[0].shape, np.int64)
    for d, i in zip(dims, picked, strict=True):
        rows = rows * shape[d] + np.where(i < 0, i + shape[d], i)
    rest = [d for d in range(len(shape)) if d not in dims]
    width = [shape[d] for d in rest]
    x = np.moveaxis(x, range(front, front + rows.ndim), range(rows.ndim))
    y = sum_at(
        rows.reshape(-1),
        x.reshape(rows.size, math.prod(width)),
        math.prod(shape[d] for d in dims),
    ).reshape([shape[d] for d in dims] + width)
    return y if dims[0] == 0 and dims[-1] == len(dims) - 1 else y.transpose(np.argsort(dims + rest))


def sum_at(rows: np.ndarray, values: np.ndarray, height: int) -> np.ndarray:
    """Return (height, E): row v is the sum of the `values` (N, E) where `rows` (N) is v."""
    out = memory.empty((height, values.shape[1]), values.dtype)
    if values.dtype in (np.float32, np.float64):
        kernels.sum_rows(np.ascontiguousarray(rows, np.int64), np.ascontiguousarray(values), out)
    else:
        out.fill(0)
        np.add.at(out, rows, values)
    return out


class IndexPut(Op):
    """y = x with `values` (broadcast) at the indices, or added there: (*), (index, *) -> (*).

    dx = dy, 0 there; dvalues = dy there.
    """

    op_name = "index_put"
    inplace = True
    broadcasts = True

    @staticmethod
    def call(input: Tensor, indices: Any, values: Tensor, accumulate: bool = False) -> Tensor:
        if not isinstance(indices, SEQUENCE) or not all(isinstance(i, Tensor) for i in indices):
            raise TypeError("index_put: indices must be a tuple of Tensors")
        check_tensors("index_put", input=input, values=values)
        _, picks = parse(tuple(indices), input._array.shape)
        if values._array.dtype != input._array.dtype:
            raise RuntimeError(
                "Index put requires the source and destination dtypes match, got "
                f"{input._array.dtype} for the destination and {values._array.dtype} "
                "for the source."
            )
        if accumulate:
            chosen = Index.apply(input.detach(), *picks)
            return input + IndexSum.apply(
                values.expand(chosen._array.shape), *picks, shape=input._array.shape
            )
        return IndexPut.apply(input, values, *picks)

    def forward(ctx, x: np.ndarray, values: np.ndarray, *indices: np.ndarray | None) -> np.ndarray:
        ctx.save(*indices)
        y = memory.empty_like(x)
        y[...] = x
        put(y, values, indices)
        return y

    @staticmethod
    def cell(x: np.ndarray, values: np.ndarray, *indices: np.ndarray | None) -> str:
        picked, front = _picked(x.shape, indices)
        hits = _hits(x.shape, picked)
        mask = indices[0]
        if values.ndim == 0 and len(indices) == 1 and mask is not None and mask.dtype.kind == "b":
            return f"values if {at('indices0', places(mask.ndim))} else x"
        shape = np.broadcast_shapes(*(array.shape for _, array in picked.values()))
        last = unraveled(f"last({hits})", shape)  # of the picks in order
        rest = [letter for d, letter in enumerate(places(x.ndim)) if d not in picked]
        place = [*rest[:front], *last, *rest[front:]][-values.ndim :] if values.ndim else []
        place = ["0" if n == 1 else p for n, p in zip(values.shape, place, strict=True)]
        return f"{at('values', place)} if any({hits}) else x"

    @staticmethod
    def hidden(
        x: np.ndarray, values: np.ndarray, *indices: np.ndarray | None
    ) -> dict[str, np.ndarray]:
        return _hidden(x, indices, x.shape)

    def backward(ctx, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        indices = ctx.saved
        zero = wrap(np.zeros((), dy._array.dtype))
        needs_x, needs_values = ctx.needs_input_grad[:2]
        return (
            IndexPut.apply(dy, zero, *indices) if needs_x else None,
            Index.apply(dy, *indices) if needs_values else None,
        )

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(3, 4), (rand.integers(0, 3, 1),), rand(4)
        yield rand(3, 4), (rand.bools(3, 4),), rand()
        yield rand(3, 4), (wrap(np.array([0, 2])), wrap(np.array([1, 1]))), rand(2)
        yield rand(3, 4), (wrap(np.array([0, 0])),), rand(4), dict(accumulate=True)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(3, 4), (rand.integers(0, 3, 2),), rand(3, 4)
        yield rand(3, 4), (rand.integers(3, 5, 2),), rand(4)
        yield rand(3, 4), (rand.integers(0, 3, 2),), rand.integers(0, 3, 4)


def put(x: np.ndarray, values: Any, indices: tuple[np.ndarray | None, ...]) -> None:
    """Write `values` where the indices pick; RuntimeError if they do not broadcast to that."""
    key = array_key(indices)
    try:
        try:
            x[key] = values
        except ValueError:
            raise RuntimeError(
                f"shape mismatch: value tensor of shape {list(values.shape)} cannot be broadcast "
                f"to indexing result of shape {list(x[key].shape)}"
            ) from None
    except IndexError as error:
        raise IndexError(str(error).replace("axis", "dimension")) from None
