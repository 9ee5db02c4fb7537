"""Named results of ops that return values and indices, as in `torch.return_types`."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..core import Tensor
from ..names import spelt


class max(NamedTuple):
    """The largest values along a dimension and the index of the first of each."""

    values: Tensor
    indices: Tensor


class min(NamedTuple):
    """The smallest values along a dimension and the index of the first of each."""

    values: Tensor
    indices: Tensor


class sort(NamedTuple):
    """The values in order along a dimension and the indices they had."""

    values: Tensor
    indices: Tensor


class topk(NamedTuple):
    """The k largest or smallest values along a dimension and their indices."""

    values: Tensor
    indices: Tensor


class median(NamedTuple):
    """The medians along a dimension and their indices."""

    values: Tensor
    indices: Tensor


class aminmax(NamedTuple):
    """The smallest and the largest values."""

    min: Tensor
    max: Tensor


class cummax(NamedTuple):
    """The largest values so far and the index of the last of each."""

    values: Tensor
    indices: Tensor


class cummin(NamedTuple):
    """The smallest values so far and the index of the last of each."""

    values: Tensor
    indices: Tensor


class kthvalue(NamedTuple):
    """The k-th smallest values along a dimension and their indices."""

    values: Tensor
    indices: Tensor


class mode(NamedTuple):
    """The most frequent values along a dimension and the index of one of each."""

    values: Tensor
    indices: Tensor


def _printed(self: Any) -> str:
    """Return one field to a line."""
    parts = ",\n".join(f"{field}={x!r}" for field, x in zip(self._fields, self, strict=True))
    return f"{spelt('return_types')}.{type(self).__name__}(\n{parts})"


for _type in (max, min, sort, topk, median, aminmax, cummax, cummin, kthvalue, mode):
    setattr(_type, "__repr__", _printed)
