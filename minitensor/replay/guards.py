"""Guards: what a recorded call read besides its arguments, watched for changes.

The code of a function reads globals, variables of enclosing functions, and attributes of modules
and other objects. Each is noted with the dictionary it was found in; before a plan is used, all are
looked up again. An equal number is as good as the same one; of everything else it must be the same
object, and its own attributes and elements are watched too.
"""

from __future__ import annotations

import sys
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from ..core import Tensor
from ..errors import is_library
from ..nn.module import Module

_PLAIN = (int, float, complex, str, bytes, bool, type(None))
_MISSING = object()
_DEPTH = 8  # of attributes and elements
_UNWATCHED = {"_made_with", "_compiled", "_parameters", "_buffers", "_modules", "__builtins__"}


class Guards:
    """What a call reads, as it is now.

    `leaves` has, by the id() of its array, the name of each tensor that was found.
    """

    def __init__(self) -> None:
        self.leaves: dict[int, str] = {}
        self.hooked = ""  # the name of a module with hooks
        self._entries: list[tuple[Any, Any, Any, str]] = []  # where, key, value, name
        self._tensors: list[tuple[Tensor, Any, bool, str]] = []
        self._contents: list[tuple[Any, list[Any], str]] = []
        self._keys: list[tuple[dict[Any, Any], list[Any], str]] = []
        self._seen: dict[int, Any] = {}
        self._globals: set[tuple[int, str]] = set()

    def watch(self, x: Any, name: str, depth: int = 0) -> None:
        """Watch an object, with what it has."""
        if isinstance(x, _PLAIN) or id(x) in self._seen or depth > _DEPTH:
            return
        if isinstance(x, ModuleType | type | np.ndarray | np.dtype):
            return
        self._seen[id(x)] = x
        if isinstance(x, Tensor):
            self.leaves[id(x._array)] = name
            self._tensors.append((x, x._array, x._requires_grad, name))
        elif isinstance(x, list | tuple | set | frozenset):
            if isinstance(x, list | set):
                self._contents.append((x, list(x), name))
            for number, each in enumerate(x):
                self.watch(each, f"{name}[{number}]", depth + 1)
        elif isinstance(x, dict):
            self._keys.append((x, list(x), name))
            for key in x:
                self._entry(x, key, f"{name}[{key!r}]", depth)
        elif isinstance(x, FunctionType):
            if is_library(x.__code__.co_filename):
                return
            for free, cell in zip(x.__code__.co_freevars, x.__closure__ or (), strict=True):
                self._entry(cell, None, free, depth)
            self.globals(x.__code__, x.__globals__)
        elif isinstance(x, MethodType):
            self.watch(x.__self__, name, depth)
            self.watch(x.__func__, name, depth)
        elif isinstance(x, Module):
            if x._registered_hooks is not None:
                self.hooked = self.hooked or name
            for members in (x._parameters, x._buffers, x._modules):
                self._keys.append((members, list(members), name))
                for key in members:
                    self._entry(members, key, f"{name}.{key}", depth)
            self._attributes(x, name, depth)
        elif type(getattr(x, "__dict__", None)) is dict and not is_library(_file(type(x))):
            self._attributes(x, name, depth)

    def _attributes(self, x: Any, name: str, depth: int) -> None:
        attributes = vars(x)
        self._keys.append((attributes, list(attributes), name))
        for key in attributes:
            if key not in _UNWATCHED:
                self._entry(attributes, key, f"{name}.{key}", depth)

    def _entry(self, where: Any, key: Any, name: str, depth: int) -> None:
        value = _look_up(where, key)
        self._entries.append((where, key, value, name))
        self.watch(value, name, depth + 1)

    def globals(self, code: CodeType, names: dict[str, Any]) -> None:
        """Watch the globals that a function reads."""
        for name in code.co_names:
            if name in names and (id(names), name) not in self._globals:
                self._globals.add((id(names), name))
                self._entry(names, name, name, 0)
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                self.globals(constant, names)

    def numbers(self, tensors: list[Tensor]) -> None:
        """Watch the numbers of tensors: they must not be changed in place."""
        for x in tensors:
            if x._version_box is not None:
                self._contents.append((x._version_box, list(x._version_box), "a mask"))

    def changed(self) -> str:
        """Return the name of something that is not as it was, or ""."""
        for where, key, value, name in self._entries:
            now = where.get(key, _MISSING) if type(where) is dict else _look_up(where, key)
            if now is not value and not (type(now) is type(value) and _equal(now, value)):
                return name
        for x, array, requires_grad, name in self._tensors:
            if x._array is not array or x._requires_grad is not requires_grad:
                return name
        for dictionary, keys, name in self._keys:
            if list(dictionary) != keys:
                return name
        for x, before, name in self._contents:
            if len(x) != len(before) or not all(map(_same, x, before)):
                return name
        return ""


def _same(a: Any, b: Any) -> bool:
    return a is b or (type(a) is type(b) and _equal(a, b))


def _equal(a: Any, b: Any) -> bool:
    return isinstance(a, _PLAIN) and bool(a == b)


def _look_up(where: Any, key: Any) -> Any:
    """Return an entry of a dictionary, or the content of a cell."""
    if isinstance(where, dict):
        return where.get(key, _MISSING)
    try:
        return where.cell_contents
    except ValueError:
        return _MISSING


def _file(kind: type) -> str:
    return getattr(sys.modules.get(kind.__module__), "__file__", None) or ""
