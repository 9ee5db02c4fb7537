"""Collation: turn a list of items into a batch, by stacking or by padding."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np

from ..core import Tensor, wrap
from ..creation import as_tensor, full, tensor
from ..dtype import float64, is_dtype
from ..ops.join import Cat, Stack


def default_collate(batch: Sequence[Any]) -> Any:
    """Stack N items: tensors or arrays (*) -> (N, *), numbers -> (N,); strings stay a list.

    The fields of dicts, named tuples and sequences are stacked separately; a tuple becomes a list.
    Raises RuntimeError for tensors or sequences of unequal sizes, TypeError for items of another
    type.
    """
    first = batch[0]
    if isinstance(first, Tensor):
        return Stack.call(list(batch), 0)
    if isinstance(first, np.ndarray):
        return Stack.call([as_tensor(x) for x in batch], 0)
    if isinstance(first, np.generic):
        return tensor(list(batch))
    if isinstance(first, float):
        return tensor(list(batch), dtype=float64)
    if isinstance(first, int):
        return tensor(list(batch))
    if isinstance(first, str | bytes):
        return batch
    if isinstance(first, Mapping):
        fields = {key: default_collate([item[key] for item in batch]) for key in first}
        if isinstance(first, MutableMapping):
            out = copy.copy(first)
            out.update(fields)
            return out
        return type(first)(fields)  # type: ignore[call-arg]
    if isinstance(first, Sequence):
        if any(len(item) != len(first) for item in batch):
            raise RuntimeError("each element in list of batch should be of equal size")
        columns = [default_collate(column) for column in zip(*batch, strict=True)]
        return type(first)(*columns) if hasattr(first, "_fields") else columns
    raise TypeError(
        "default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; "
        f"found {type(first).__name__}"
    )


def default_convert(data: Any) -> Any:
    """Return one item with its arrays, also inside containers, as tensors."""
    if isinstance(data, np.ndarray | np.generic) and (
        data.dtype.kind in "biuf" or is_dtype(data.dtype)
    ):
        return as_tensor(data)
    if isinstance(data, Mapping):
        return type(data)({key: default_convert(x) for key, x in data.items()})  # type: ignore[call-arg]
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*map(default_convert, data))
    if isinstance(data, list | tuple):
        return [default_convert(x) for x in data]
    return data


def pad_sequence(
    sequences: Iterable[Tensor],
    batch_first: bool = False,
    padding_value: float = 0.0,
    padding_side: str = "right",
) -> Tensor:
    """Pad N tensors (L_i, *) to the longest and stack them: (L, N, *).

    - `batch_first`: return (N, L, *).
    - `padding_value`: the number to pad with (default 0).
    - `padding_side`: "right" (the default) or "left".

    Raises RuntimeError for an empty list, for sizes other than the first that differ, and for
    another `padding_side`.
    """
    items = list(sequences)
    if not items:
        raise RuntimeError("pad_sequence: expected a non-empty list of Tensors")
    if padding_side not in ("left", "right"):
        raise RuntimeError(f"pad_sequence: padding_side is 'left' or 'right', got {padding_side!r}")
    longest = max(t.size(0) for t in items)
    if not any(t.requires_grad for t in items):
        rest = tuple(items[0].shape[1:])
        out = np.full((len(items), longest, *rest), padding_value, items[0].dtype)
        for row, t in zip(out, items, strict=True):
            if tuple(t.shape[1:]) != rest:
                raise RuntimeError(
                    f"pad_sequence: the sizes after the first differ: {rest}, {tuple(t.shape[1:])}"
                )
            start = longest - t.size(0) if padding_side == "left" else 0
            row[start : start + t.size(0)] = t._array
        return wrap(out if batch_first else np.ascontiguousarray(out.swapaxes(0, 1)))
    rows = []
    for t in items:
        filler = full((longest - t.size(0), *t.shape[1:]), padding_value, dtype=t.dtype)
        rows.append(Cat.call([filler, t] if padding_side == "left" else [t, filler], 0))
    return Stack.call(rows, 0 if batch_first else 1)


class PadCollate:
    """Collate items that are tuples of token sequences, such as (source, target).

    A sequence is a list of integers or a tensor (L_i,). Each place in the tuples gives one batch
    (N, L), padded on the right to the longest.

    - `padding_value`: the token to pad with (default 0).
    """

    def __init__(self, padding_value: int = 0) -> None:
        self.padding_value = padding_value

    def __call__(self, batch: Sequence[tuple[Any, ...]]) -> tuple[Tensor, ...]:
        """Return the padded batches, one for each place in the tuples."""
        return tuple(
            pad_sequence([as_tensor(x) for x in column], True, self.padding_value)
            for column in zip(*batch, strict=True)
        )
