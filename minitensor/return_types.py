"""Named results of functions that return several tensors, as `torch.return_types` has them."""

from __future__ import annotations

from typing import Any, NamedTuple

from .core import Tensor


def _repr(result: Any) -> str:
    """Return the text of a result, one field to a line."""
    fields = ",\n".join(f"{name}={x!r}" for name, x in result._asdict().items())
    return f"{__name__}.{type(result).__name__}(\n{fields})"


class max(NamedTuple):
    """The largest elements along a dimension, and their indices (int64)."""

    values: Tensor
    indices: Tensor

    def __repr__(self) -> str:
        return _repr(self)


class min(NamedTuple):
    """The smallest elements along a dimension, and their indices (int64)."""

    values: Tensor
    indices: Tensor

    def __repr__(self) -> str:
        return _repr(self)


class sort(NamedTuple):
    """The elements in order, and their indices (int64)."""

    values: Tensor
    indices: Tensor

    def __repr__(self) -> str:
        return _repr(self)


class topk(NamedTuple):
    """The k largest or smallest elements, and their indices (int64)."""

    values: Tensor
    indices: Tensor

    def __repr__(self) -> str:
        return _repr(self)


class median(NamedTuple):
    """The middle elements along a dimension, and their indices (int64)."""

    values: Tensor
    indices: Tensor

    def __repr__(self) -> str:
        return _repr(self)


class aminmax(NamedTuple):
    """The smallest and the largest elements."""

    min: Tensor
    max: Tensor

    def __repr__(self) -> str:
        return _repr(self)
