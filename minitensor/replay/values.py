"""Arguments and results: what a plan depends on of the one, and how it makes the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..core import Tensor
from ..recording import Ref, mapped
from .plan import NotReplayable

_PLAIN = (int, float, complex, str, bytes, bool, type(None), type(Ellipsis))


def signature(x: Any, tensors: dict[int, Tensor]) -> Any:
    """Return what a plan depends on of the arguments; collect the tensors among them, by id()."""
    kind = type(x)
    if kind is tuple or kind is list:
        return kind, tuple([signature(each, tensors) for each in x])
    if isinstance(x, Tensor):
        number = len(tensors)
        if tensors.setdefault(id(x), x) is x and len(tensors) == number:  # it came before
            number = list(tensors).index(id(x))
        array = x._array
        return kind, array.shape, array.strides, array.dtype, x.requires_grad, number
    if kind is dict:
        return dict, tuple(x), tuple([signature(each, tensors) for each in x.values()])
    if isinstance(x, float | complex):
        return kind, repr(x)  # 0.0 is not -0.0, and NaN is NaN
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return kind, tuple([signature(each, tensors) for each in x])
    return (kind, x) if isinstance(x, _PLAIN) else (kind, id(x))


def shared(tensors: list[Tensor]) -> Any:
    """Return which tensors have one array; None if each has its own."""
    arrays = [id(t._array) for t in tensors]
    return tuple(map(arrays.index, arrays)) if len({*arrays}) < len(arrays) else None


def form(x: Any, tensors: list[Tensor]) -> Any:
    """Return a result with a Ref for each tensor, which are collected."""

    def formed(x: Any) -> Any:
        if isinstance(x, Tensor):
            tensors.append(x)
            return Ref(len(tensors) - 1)
        if not isinstance(x, _PLAIN):
            raise NotReplayable(f"it returns a {type(x).__name__}, which may hold anything")
        return x

    return mapped(x, formed)


def formed(form: Any, tensors: Sequence[Tensor]) -> Any:
    """Return a result of this form, with these tensors."""
    return mapped(form, lambda x: tensors[x.number] if isinstance(x, Ref) else x)
