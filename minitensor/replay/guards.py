"""Guards: what a recorded call read besides its arguments, watched for changes.

The code of a function reads globals, variables of enclosing functions, defaults, and attributes of
modules, classes and other objects. Each is noted with where it was found; before a plan is used,
all are looked up again. An equal number is as good as the same one; of everything else it must be
the same object, and its own attributes and elements are watched too.
"""

from __future__ import annotations

import operator
import pickle
import sys
from collections import deque
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType, MappingProxyType, MethodType, ModuleType
from typing import Any

import numpy as np

from ..core import Tensor
from ..errors import is_library
from ..nn.module import Module

_PLAIN = (int, float, complex, str, bytes, bool, type(None))
_MISSING = object()
_DEPTH = 20  # of attributes and elements
_PYTHON = str(Path(operator.__file__).parent)
_OF_CLASSES = {"__dict__", "__weakref__", "__doc__", "__module__", "__annotations__", "__slots__"}
_OF_CLASSES |= {"_version", "__dataclass_fields__", "__dataclass_params__", "__match_args__"}
_UNWATCHED = {"_made_with", "_compiled", "_parameters", "_buffers", "_modules", "__builtins__"}


class Guards:
    """Notes of what a call reads, as it is now.

    `leaves` has, by the id() of its array, the name of each tensor that was found.
    """

    def __init__(self) -> None:
        self.leaves: dict[int, str] = {}
        self.hooked = ""  # the name of a module with hooks
        self._entries: list[tuple[Any, Any, Any, str]] = []  # where, key, value, name
        self._tensors: list[tuple[Tensor, Any, bool, str]] = []
        self._contents: list[tuple[Any, list[Any], str]] = []
        self._keys: list[tuple[Any, list[Any], str]] = []
        self._iterators: list[tuple[Any, Any, str]] = []
        self._seen: dict[int, Any] = {}
        self._generators: list[tuple[Any, bytes, str]] = []
        self.watch(np.random.mtrand._rand, "np.random")  # type: ignore[attr-defined]
        self._globals: set[tuple[int, str]] = set()

    def watch(self, x: Any, name: str, depth: int = 0) -> None:
        """Watch an object, with what it has."""
        if isinstance(x, _PLAIN) or id(x) in self._seen or depth > _DEPTH:
            return
        if isinstance(x, ModuleType | np.ndarray | np.dtype):
            return
        self._seen[id(x)] = x
        if isinstance(x, Tensor):
            self.leaves[id(x._array)] = name
            self._tensors.append((x, x._array, x._requires_grad, name))
        elif isinstance(x, type):
            self._class(x, name, depth)
        elif isinstance(x, list | tuple | set | frozenset | deque):
            if isinstance(x, list | set | deque):
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
                self._entry(cell, "cell_contents", free, depth)
            for key in ("__defaults__", "__kwdefaults__", "__code__"):
                self._entry(x, key, f"{name}.{key}", depth)
            self._attributes(x, name, depth)
            self.globals(x.__code__, x.__globals__)
        elif isinstance(x, partial):
            self.watch((x.func, x.args, x.keywords), name, depth)
        elif isinstance(x, Iterator) and type(x).__module__ in ("builtins", "itertools"):
            self._iterators.append((x, _position(x), name))
        elif isinstance(x, np.random.Generator | np.random.RandomState):
            self._generators.append((x, _numbers_ahead(x), name))
        elif isinstance(x, MethodType):
            self.watch((x.__self__, x.__func__), name, depth)
        elif isinstance(x, property | staticmethod | classmethod):
            self.watch(x.fget if isinstance(x, property) else x.__func__, name, depth)
        elif isinstance(x, Module):
            if x._registered_hooks is not None:
                self.hooked = self.hooked or name
            for members in (x._parameters, x._buffers, x._modules):
                self._keys.append((members, list(members), name))
                for key in members:
                    self._entry(members, key, f"{name}.{key}", depth)
            self._attributes(x, name, depth)
            self._class(type(x), name, depth)
        elif not is_library(_file(type(x))):
            if type(getattr(x, "__dict__", None)) is dict:
                self._attributes(x, name, depth)
            self._class(type(x), name, depth, x)

    def _class(self, kind: type, name: str, depth: int, x: Any = None) -> None:
        """Watch the attributes of a user's class and of those that it is derived from.

        Those of an instance `x` that are in slots are watched too.
        """
        for each in kind.__mro__:
            if _is_foreign(_file(each)) or each.__module__ == "builtins":
                continue
            if (id(each), "") not in self._globals:
                self._globals.add((id(each), ""))
                self._keys.append((vars(each), list(vars(each)), each.__name__))
                for key in vars(each):
                    if key not in _OF_CLASSES:
                        self._entry(vars(each), key, f"{each.__name__}.{key}", depth)
            slots = vars(each).get("__slots__", ())
            for key in (slots,) if isinstance(slots, str) else slots:
                if x is not None and key not in _OF_CLASSES:
                    self._entry(x, key, f"{name}.{key}", depth)

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
                self._of_module(names[name], name, code.co_names)
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                self.globals(constant, names)

    def _of_module(self, module: Any, name: str, names: tuple[str, ...]) -> None:
        """Watch the attributes of a user's module that a function names."""
        if isinstance(module, ModuleType) and not _is_foreign(module.__dict__.get("__file__")):
            for key in names:
                if key in vars(module) and (id(vars(module)), key) not in self._globals:
                    self._globals.add((id(vars(module)), key))
                    self._entry(vars(module), key, f"{name}.{key}", 0)
                    self._of_module(vars(module)[key], f"{name}.{key}", names)

    def numbers(self, tensors: list[Tensor]) -> None:
        """Watch the numbers of tensors: they must not be changed in place."""
        for x in tensors:
            if x._version_box is not None:
                self._contents.append((x._version_box, list(x._version_box), "a mask"))

    def drawn(self) -> str:
        """Return the name of a generator of NumPy from which numbers were drawn, or ""."""
        return next((n for x, before, n in self._generators if _numbers_ahead(x) != before), "")

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
        for x, position, name in self._iterators:
            if _position(x) != position:
                return name
        return ""


def _same(a: Any, b: Any) -> bool:
    return a is b or (type(a) is type(b) and _equal(a, b))


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, float | complex):
        return repr(a) == repr(b)  # 0.0 is not -0.0, and NaN is NaN
    return isinstance(a, _PLAIN) and bool(a == b)


def _look_up(where: Any, key: Any) -> Any:
    """Return an entry of a dictionary, or an attribute such as the content of a cell."""
    if isinstance(where, dict | MappingProxyType):
        return where.get(key, _MISSING)
    try:
        return getattr(where, key)
    except (AttributeError, ValueError):  # the latter of an empty cell
        return _MISSING


def _position(x: Any) -> Any:
    """Return what changes when an iterator is asked for its next element."""
    if hasattr(x, "gi_frame"):
        return x.gi_frame and x.gi_frame.f_lasti, x.gi_running
    return x.__reduce__() if type(x).__module__ == "itertools" else operator.length_hint(x, -1)


def _numbers_ahead(x: Any) -> bytes:
    """Return the state of a generator of NumPy, as bytes."""
    random = isinstance(x, np.random.RandomState)
    return pickle.dumps(x.get_state(legacy=False) if random else x.bit_generator.state)


def _is_foreign(file: str | None) -> bool:
    """Return True for a source file of this library, of Python or of an installed package."""
    file = file or ""
    return is_library(file) or "site-packages" in file or file.startswith(_PYTHON)


def _file(kind: type) -> str:
    return getattr(sys.modules.get(kind.__module__), "__file__", None) or ""
