"""Arguments and results: what a plan depends on of the one, and how it makes the other."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from typing import Any

import numpy as np

from ..core import Tensor
from ..recording import Ref, mapped
from .addresses import NotReplayable

_PLAIN = (int, float, complex, str, bytes, bool, type(None), type(Ellipsis))


def arguments(args: Any, kwargs: Any) -> tuple[Any, list[Tensor]]:
    """Return what a plan depends on of the arguments, and the tensors among them, each once."""
    tensors: list[Tensor] = []
    kind = _kind((args, kwargs), tensors)
    arrays = [id(t._array) for t in tensors]
    if len({*arrays}) == len(arrays):
        return kind, tensors
    each = [id(t) for t in tensors]
    shared = tuple(map(arrays.index, arrays)), tuple(map(each.index, each))
    return (kind, shared), list(dict(zip(each, tensors, strict=True)).values())


def _kind(x: Any, tensors: list[Tensor]) -> Any:
    kind = type(x)
    if kind is tuple or kind is list:
        return kind, tuple([_kind(each, tensors) for each in x])
    if isinstance(x, Tensor):
        tensors.append(x)
        array, grad = x._array, x._requires_grad if x._view is None else x.requires_grad
        counts = x._version_box is not None  # no tensor of inference_mode
        return kind, array.shape, array.strides, array.dtype, grad, counts
    if isinstance(x, float | complex):
        return kind, repr(x)  # 0.0 is not -0.0, and NaN is NaN
    if isinstance(x, tuple | list):
        return kind, tuple([_kind(each, tensors) for each in x])
    if isinstance(x, dict):
        return kind, tuple(x), tuple([_kind(each, tensors) for each in x.values()])
    if isinstance(x, np.ndarray):
        return kind, x.shape, x.dtype, x.tobytes() if not x.dtype.hasobject else object()
    return (kind, x) if isinstance(x, _PLAIN) else (kind, id(x))


def containers(x: Any) -> Iterator[Any]:
    """Yield the lists and dictionaries in a value, and it itself."""
    if isinstance(x, list | dict):
        yield x
    if isinstance(x, tuple | list | dict):
        for each in x.values() if isinstance(x, dict) else x:
            yield from containers(each)


def form(x: Any, tensors: list[Tensor], given: Container[int] = ()) -> Any:
    """Return a result with a Ref for each tensor, which are collected.

    NotReplayable if it has other objects, or containers that are `given`, by their id().
    """
    if any(id(each) in given for each in containers(x)):
        raise NotReplayable("it returns a list or dictionary of its arguments")

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
