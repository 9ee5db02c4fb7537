"""Copies of objects, which share nothing with them that may change, and of tensors resized."""

from __future__ import annotations

import copy
import functools
from collections import OrderedDict
from collections.abc import Callable
from types import MethodType, ModuleType
from typing import Any

import numpy as np

from ..core import Tensor, wrap
from ..nn import Buffer, Module, Parameter
from ..random import default_generator
from .reach import is_users_module

_ATOMS = (int, float, complex, bool, str, bytes, type(None))
Memo = dict[int, Any]  # what stands in a copy in the place of each object, by its id()


class _Absent:
    """Stands in a copy for what cannot be copied, and says so when it is used."""

    def __init__(self, x: Any, why: str) -> None:
        object.__setattr__(self, "_says", f"a {type(x).__name__} cannot be copied: {why}")

    def _use(self, *args: Any, **options: Any) -> Any:
        raise RuntimeError(object.__getattribute__(self, "_says"))

    def __getattribute__(self, name: str) -> Any:
        return _Absent if name == "__class__" else object.__getattribute__(self, "_use")()

    __setattr__ = __call__ = __iter__ = __next__ = __enter__ = __exit__ = _use
    __len__ = __getitem__ = __setitem__ = __bool__ = _use


def copied(x: Any, memo: Memo) -> Any:
    """Return a deep copy; a lock is shared, and what cannot be copied must not be used."""
    kind = type(x)
    if kind in _ATOMS:
        return x
    if id(x) in memo:
        return memo[id(x)]
    if kind in (dict, OrderedDict):
        made: dict[Any, Any] = kind()
        memo[id(x)] = made
        made.update((copied(key, memo), copied(each, memo)) for key, each in x.items())
        return made
    if kind is list:
        memo[id(x)] = items = []
        items += [copied(each, memo) for each in x]
        return items
    if kind is tuple:
        both = [(each, copied(each, memo)) for each in x]
        return tuple(twin for _, twin in both) if any(a is not b for a, b in both) else x
    if _is_plain(kind):
        memo[id(x)] = twin = object.__new__(kind)
        twin.__dict__.update((key, copied(each, memo)) for key, each in x.__dict__.items())
        return twin
    if kind is MethodType:
        return MethodType(x.__func__, copied(x.__self__, memo))
    if kind is functools.partial:
        options = {key: copied(each, memo) for key, each in x.keywords.items()}
        return kind(copied(x.func, memo), *copied(x.args, memo), **options)
    if _is_shared(x):
        return x
    try:
        return copy.deepcopy(x, memo)
    except Exception as error:
        return _Absent(x, " ".join(str(error).split()))


def _is_shared(x: Any) -> bool:
    """Return True for what a copy may share: locks, signs, and functions of installed packages."""
    kind = type(x)
    if kind in (object, ModuleType) or kind.__module__ in ("_thread", "threading"):
        return True
    foreign = callable(x) and not isinstance(x, Module)
    return x is default_generator or (foreign and not is_users_module(kind.__module__))


_CLASS = 1 << 9  # the flag of types that a class statement makes, Py_TPFLAGS_HEAPTYPE


def _is_plain(kind: type) -> bool:
    """Return True for a class of objects that are their attributes and nothing else."""
    if kind.__dictoffset__ == 0 or issubclass(kind, type) or kind.__module__ == "builtins":
        return False
    if not kind.__flags__ & _CLASS:  # a type of an extension, such as NumPy's ufunc
        return False
    usual = ("__new__", "__reduce__", "__reduce_ex__", "__getstate__")
    changed = any(getattr(kind, name) is not getattr(object, name) for name in usual)
    special = any(hasattr(kind, name) for name in ("__deepcopy__", "__setstate__", "__slots__"))
    return not changed and not special


def resized(x: Tensor, shape: tuple[int, ...], least: Callable[[int], int]) -> Tensor:
    """Return a leaf of another shape with the values of `x` repeated; a causal mask stays one."""
    array = x._array
    if shape == array.shape:
        array = array.copy()  # the run may change it
    elif array.ndim == 2 and np.array_equal(array, _by_diagonal(array, array.shape)):
        array = _by_diagonal(array, shape)
    else:
        array = np.resize(array, shape)
    if array.dtype.kind in "iu" and array.size:  # tokens, inside a vocabulary that may be smaller
        most = least(int(array.max()))
        array = np.where(array < most, array, 1 + array % max(most - 1, 1))  # 0 may be padding
    kind = next((kind for kind in (Parameter, Buffer) if isinstance(x, kind)), Tensor)
    out: Tensor = wrap(array, kind)
    out._requires_grad = x.requires_grad
    return out


def _by_diagonal(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return a matrix with the first element of each diagonal of `array` all along it."""
    if not array.size or array.shape[0] != array.shape[1]:
        return array[:0, :0]
    last = len(array) - 1
    offset = np.clip(np.arange(shape[1]) - np.arange(shape[0])[:, None], -last, last)
    return array[np.clip(-offset, 0, None), np.clip(offset, 0, None)]
