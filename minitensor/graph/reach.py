"""The objects that a function can get at, and the variables in which it finds them.

A function finds objects in its closure, in globals, in its arguments' defaults and in the
attributes of those; what it calls finds others. The globals of this library, of Python and of
installed packages are not followed.
"""

from __future__ import annotations

import functools
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from ..core import Tensor
from ..nn import Module
from .describe import memory_of
from .frames import is_own

_ABSENT = object()
_PLAIN = (int, float, complex, str, bytes, type(None), np.ndarray, np.generic, np.dtype, CodeType)


class Variable:
    """A place in which functions find an object: `table[name]`, an attribute, or a cell."""

    def __init__(self, table: Any, name: str) -> None:
        self.table, self.name = table, name

    def get(self) -> Any:
        """Return the object that is in it, or a sign that there is none."""
        if isinstance(self.table, CellType):
            try:
                return self.table.cell_contents
            except ValueError:  # it is empty
                return _ABSENT
        if isinstance(self.table, dict):
            return self.table.get(self.name, _ABSENT)
        if isinstance(self.table, FunctionType):
            return getattr(self.table, self.name)
        return vars(self.table).get(self.name, _ABSENT)

    def set(self, x: Any) -> None:
        """Put an object, or the sign that there is none, into it."""
        if isinstance(self.table, CellType):
            if x is not _ABSENT:
                self.table.cell_contents = x
        elif isinstance(self.table, dict):
            if x is not _ABSENT:
                self.table[self.name] = x
            else:
                self.table.pop(self.name, None)
        elif x is not _ABSENT:
            setattr(self.table, self.name, x)
        elif self.name in vars(self.table):
            delattr(self.table, self.name)


class Reach:
    """All that is reached from some objects.

    `objects` has them with the names that lead to them, `variables` the places that are not part of
    another object that is reached.
    """

    def __init__(self, starts: Mapping[str, Any]) -> None:
        self.objects: dict[int, tuple[str, Any]] = {}
        self.variables: list[Variable] = []
        self._seen: set[tuple[int, str]] = set()  # of variables
        stack = [*starts.items()][::-1]
        while stack:
            name, x = stack.pop()
            if not isinstance(x, _PLAIN) and id(x) not in self.objects:
                self.objects[id(x)] = name, x
                found = [each for each in self._inside(name, x) if not isinstance(each[1], _PLAIN)]
                stack += found[::-1]

    def modules(self) -> list[tuple[str, Module]]:
        """Return the modules with their names, those inside others left out."""
        found = [(name, x) for name, x in self.objects.values() if isinstance(x, Module)]
        inner = {id(child) for _, x in found for child in x.modules() if child is not x}
        return [(name, x) for name, x in found if id(x) not in inner]

    def has(self, x: Any) -> bool:
        """Return True for an object that is reached, and for a tensor in the memory of one."""
        if id(x) in self.objects or not isinstance(x, Tensor):
            return id(x) in self.objects
        tensors = (each for _, each in self.objects.values() if isinstance(each, Tensor))
        return id(memory_of(x._array)) in {id(memory_of(each._array)) for each in tensors}

    def _inside(self, name: str, x: Any) -> Iterator[tuple[str, Any]]:
        """Yield what one object leads to, with names."""
        if isinstance(x, FunctionType):
            yield from self._found_by(x)
        elif isinstance(x, MethodType):
            yield "", x.__self__
            yield "", x.__func__
        elif isinstance(x, functools.partial):
            yield from (("", each) for each in (x.func, x.args, x.keywords))
        elif isinstance(x, staticmethod | classmethod):
            yield "", x.__func__
        elif isinstance(x, property):
            yield from (("", f) for f in (x.fget, x.fset) if f is not None)
        elif isinstance(x, functools.cached_property):
            yield "", x.func
        elif isinstance(x, dict):
            yield from ((_joined(name, str(key)), each) for key, each in x.items())
            yield from (("", key) for key in x)
        elif isinstance(x, list | tuple | set | frozenset | deque):
            yield from ((_joined(name, str(i)), each) for i, each in enumerate(x))
        elif isinstance(x, type):
            yield from self._class(x)
        elif not isinstance(x, Tensor | ModuleType) and not _is_pythons(type(x)):
            yield "", type(x)
            for key, each in _attributes(x):
                inner = each.items() if key in ("_modules", "_parameters", "_buffers") else ()
                yield from ((_joined(name, k), one) for k, one in inner)
                yield _joined(name, key), each

    def _found_by(self, f: FunctionType) -> Iterator[tuple[str, Any]]:
        """Yield what a function's code finds: in its closure, globals, modules and defaults."""
        for name, cell in zip(f.__code__.co_freevars, f.__closure__ or (), strict=True):
            yield from self._variable(cell, name)
        for name in ("__defaults__", "__kwdefaults__"):
            yield from self._variable(f, name)
        yield "", vars(f)
        names = sorted(_names(f.__code__)) if is_own(f.__code__.co_filename) else ()
        for name in names:
            found = f.__globals__.get(name, _ABSENT)
            if isinstance(found, ModuleType) and is_users_module(found.__name__):
                for inner in set(names) & vars(found).keys():
                    yield from self._variable(vars(found), inner)
            yield from self._variable(f.__globals__, name)

    def _class(self, kind: type) -> Iterator[tuple[str, Any]]:
        """Yield what the classes of the user have in themselves, and their methods find."""
        for base in kind.__mro__:
            for name, x in list(vars(base).items()) if is_users_module(base.__module__) else ():
                if type(base) is not type or isinstance(x, type) or hasattr(x, "__get__"):
                    yield "", x
                elif not name.startswith("__"):
                    yield from self._variable(base, name)

    def _variable(self, table: Any, name: str) -> Iterator[tuple[str, Any]]:
        key = id(table), "" if isinstance(table, CellType) else name
        if key not in self._seen:
            self._seen.add(key)
            variable = Variable(table, name)
            self.variables.append(variable)
            if (x := variable.get()) is not _ABSENT:
                yield name, x


def _is_pythons(kind: type) -> bool:
    """Return True for a class of Python's own, unless its objects are made to hold others."""
    return (
        kind.__module__.partition(".")[0] in sys.stdlib_module_names
        and kind.__module__ != "__main__"
        and kind.__name__ not in ("SimpleNamespace", "Namespace")
    )


def is_users_module(module: str) -> bool:
    """Return True for a module of the user's, by its name."""
    if module.partition(".")[0] in sys.stdlib_module_names and module != "__main__":
        return False
    return is_own(getattr(sys.modules.get(module), "__file__", None) or "")


def _names(code: CodeType) -> set[str]:
    """Return the names of globals and attributes in a function's code, and in those inside it."""
    inner = (_names(each) for each in code.co_consts if isinstance(each, CodeType))
    return {*code.co_names}.union(*inner)


def _attributes(x: Any) -> Iterator[tuple[str, Any]]:
    own = getattr(x, "__dict__", None)  # an object may answer to every name
    yield from list(own.items()) if isinstance(own, dict) else []
    for kind in type(x).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if (found := getattr(x, name, _ABSENT)) is not _ABSENT:
                yield name, found


def _joined(name: str, inner: str) -> str:
    return f"{name}.{inner}" if name else inner
