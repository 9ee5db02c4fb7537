"""Indexing: `x[...]` to read and to write, as PyTorch does it.

An index is taken in two steps. Integers, slices, None and Ellipsis give a view (`GetItem`); tensors,
lists and masks then pick elements from that view into a copy (`Index`), whose gradient adds up what
was picked twice.
"""

from __future__ import annotations

from operator import index as as_int
from typing import Any

import numpy as np

from .. import memory
from ..autograd import Op
from ..tensor import Tensor, wrap
from .shape import Samples

Key = tuple[Any, ...]
_ALL = slice(None)


def _as_tuple(index: Any) -> tuple[Any, ...]:
    """The index as a tuple: a short list that holds anything but numbers is one too."""
    if type(index) is tuple:
        return index
    if (
        isinstance(index, list)
        and len(index) < 32
        and any(
            i is None or i is Ellipsis or isinstance(i, Tensor | list | tuple | slice)
            for i in index
        )
    ):
        return tuple(index)
    return (index,)


def _index_array(item: Any) -> np.ndarray:
    """The array of integers or the mask that an index item stands for; IndexError if it is neither."""
    array = item._array if isinstance(item, Tensor) else np.asarray(item)
    if not isinstance(item, Tensor):
        if array.size == 0 or (isinstance(item, np.ndarray) and array.dtype.kind in "iuf"):
            array = array.astype(np.int64)
        elif array.dtype.kind == "O":
            array = np.asarray([as_int(i) for i in item])
    elif array.dtype == np.uint8:
        array = array.astype(np.bool_)
    if array.dtype not in (np.int64, np.int32, np.bool_):
        raise IndexError("tensors used as indices must be long, int, byte or bool tensors")
    return array


def parse(index: Any, shape: tuple[int, ...]) -> tuple[Key, list[Any]]:
    """An index for a tensor of `shape` as a basic key for NumPy, and what then picks from the view.

    The second part has an item for each leading dimension of the view: a tensor, or None for all of
    it; trailing dimensions may be missing. It is empty if the index is basic.
    """
    items: list[Any] = []
    taken = 0  # dimensions of the tensor that the items use up
    for item in _as_tuple(index):
        kind = type(item)
        if kind is int:
            taken += 1
        elif kind is slice:
            if item.step is not None and item.step <= 0:
                if item.step == 0:
                    raise ValueError("slice step cannot be zero")
                raise ValueError("step must be greater than zero: reverse with .flip(dim)")
            taken += 1
        elif item is None or item is Ellipsis or kind is bool:
            pass
        elif isinstance(item, np.bool_ | float | complex | str):
            raise IndexError(
                "only integers, slices (`:`), ellipsis (`...`), None and long or byte Variables are "
                f"valid indices (got {kind.__name__})"
            )
        elif isinstance(item, np.integer):
            item = int(item)
            taken += 1
        else:
            array = _index_array(item)
            if array.ndim == 0 and array.dtype.kind == "b":
                item = bool(array)
            elif array.ndim == 0:
                item = int(array)
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
                    f"index {item} is out of bounds for dimension {source} with size {shape[source]}"
                )
            key.append(item)
            source += 1
        elif kind is slice:
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
                    f"The shape of the mask {list(array.shape)} at index 0 does not match the shape "
                    f"of the indexed tensor {list(shape)} at index {source}"
                )
            dims = array.ndim if mask else 1
            key += [_ALL] * dims
            picks.append(item)
            picks += [...] * (dims - 1)
            source += dims
            target += dims
    return (*key, ...), [p for p in picks if p is not ...]


class GetItem(Op):
    """x[key] for integers, slices, None and Ellipsis: a view."""

    spaces = ""
    oracle = None
    view = True

    def forward(ctx, x: np.ndarray, *, key: Key) -> np.ndarray:
        ctx.save(x.shape, key)
        return x[key]

    def backward(ctx, dy: Tensor) -> Tensor:
        shape, key = ctx.saved
        return PutItem.apply(dy, shape=shape, key=key)

    @staticmethod
    def call(input: Tensor, index: Any) -> Tensor:
        key, picks = parse(index, input._array.shape)
        if picks:
            raise NotImplementedError
        return GetItem.apply(input, key=key)

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand(3, 4), (slice(1, None), 2)
        yield rand(3, 4), (None, Ellipsis, slice(0, 4, 2))


Tensor.__getitem__ = GetItem.call  # type: ignore[method-assign]


class PutItem(Op):
    """Zeros of `shape` with x at `key`: the gradient of a basic index."""

    spaces = ""
    oracle = None

    def forward(ctx, x: np.ndarray, *, shape: tuple[int, ...], key: Key) -> np.ndarray:
        ctx.save(key)
        y = memory.zeros(shape, x.dtype)
        y[key] = x
        return y

    def backward(ctx, dy: Tensor) -> Tensor:
        return GetItem.apply(dy, key=ctx.saved[0])

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand(2), dict(shape=(3, 4), key=(slice(1, None), 2, ...))
