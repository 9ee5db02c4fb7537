"""Guards: what a recorded call read besides its arguments, watched for changes.

The code of a function reads globals, variables of enclosing functions, defaults, and attributes of
modules, classes and other objects. Each is noted with where it was found; before a plan is used,
all are looked up again, in one pass of compiled code. An equal number is as good as the same one;
of everything else it must be the same object, and its own attributes and elements are watched too.

Attributes of an object, but for modules, count only if the code names them that was reached so far:
an object may hold much that nobody reads, or that only its user counts with.
"""

from __future__ import annotations

import operator
import pickle
import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain, count
from pathlib import Path
from types import BuiltinMethodType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from ..core import Tensor
from ..errors import PACKAGE, is_library
from ..nn.module import Module

_PLAIN = (int, float, complex, str, bytes, bool, type(None))
_MISSING = object()
_MODULE = Module.__mro__
_DEPTH = 20  # of attributes and elements
_MOST_BYTES = 1 << 16  # of a NumPy array whose numbers are watched
_OPTIM = f"{Module.__module__.partition('.')[0]}.optim."
_PYTHON = str(Path(operator.__file__).parent)
# Of classes, those that have no part in a call, or run only if the class is called in it.
_OF_CLASSES = {"__dict__", "__weakref__", "__doc__", "__module__", "__annotations__", "__slots__"}
_OF_CLASSES |= {"__dataclass_fields__", "__dataclass_params__", "__match_args__"}
_OF_CLASSES |= {"__init__", "__repr__", "__reduce__", "__getstate__", "__setstate__", "__del__"}
_UNWATCHED = {"_made_with", "_compiled", "_parameters", "_buffers", "_modules", "__builtins__"}
_UNWATCHED |= {"_non_persistent_buffers_set"}
# Read attributes by any name
_ANY_NAME = {"getattr", "vars", "__dict__", "asdict", "astuple", "getmembers", "__getattribute__"}
_ANY_NAME |= {"copy", "deepcopy", "replace", "__getstate__"}


class _Reads:
    """Values as `get(where, key)` found them, each with a name."""

    def __init__(
        self, get: Callable[[Any, Any], Any], same: Callable[[Any, Any], Any] = operator.is_
    ) -> None:
        self.get, self.same = get, same
        self.where: list[Any] = []
        self.keys: list[Any] = []
        self.names: list[str] = []
        self.values: list[Any] = []

    def add(self, where: Any, key: Any, name: str) -> Any:
        """Note what is found now, and return it."""
        self.where.append(where)
        self.keys.append(key)
        self.names.append(name)
        self.values.append(self._now(where, key))
        return self.values[-1]

    def hold(self) -> bool:
        """Return True if each is the same."""
        return all(map(self.same, map(self.get, self.where, self.keys), self.values))

    def changed(self) -> str:
        """Return the name of one that is neither the same nor an equal number, or ""."""
        for number, (where, key) in enumerate(zip(self.where, self.keys, strict=True)):
            now = self._now(where, key)
            if not _same(now, self.values[number]):
                return self.names[number]
            self.values[number] = now
        return ""

    def _now(self, where: Any, key: Any) -> Any:
        try:
            return self.get(where, key)
        except (KeyError, AttributeError, ValueError):  # the last of an empty cell
            return _MISSING


class Guards:
    """Notes of what a call reads, as it is now.

    `leaves` has, by the id() of its array, the name of each tensor that was found, and it.
    """

    def __init__(self) -> None:
        self.leaves: dict[int, tuple[str, Tensor]] = {}
        self.hooked = ""  # the name of a module with hooks
        self._items, self._attributes = _Reads(operator.getitem), _Reads(getattr)
        self._sizes = _Reads(operator.length_hint, operator.eq)
        self._ordered: list[Any] = []  # containers of which the elements count, and those
        self._elements: list[Any] = []
        self._iterators: list[tuple[Any, Any, str]] = []
        self._generators: list[tuple[Any, bytes, str]] = []
        self._arrays: list[tuple[np.ndarray, bytes, str]] = []
        self._seen: dict[Any, Any] = {}  # by id(), what is watched
        self._named = {"forward"}  # what the code names
        self._waiting: list[tuple[Any, ...]] = []  # attributes that no code has named
        self.watch(np.random.mtrand._rand, "np.random")  # type: ignore[attr-defined]

    # What is watched

    def watch(self, x: Any, name: str, depth: int = 0) -> None:
        """Watch an object, with what it has."""
        if isinstance(x, _PLAIN) or id(x) in self._seen or depth > _DEPTH:
            return
        if isinstance(x, ModuleType | np.dtype):
            return
        self._seen[id(x)] = x
        if isinstance(x, Tensor):
            self.leaves.setdefault(id(x._array), (name, x))
            self._attributes.add(x, "_array", name)
            self._attributes.add(x, "_requires_grad", name)
        elif isinstance(x, type):
            self._class(x, name, depth)
        elif isinstance(x, list | tuple | set | frozenset | deque):
            if isinstance(x, list | set | deque):
                self._content(x, name)
            for number, each in enumerate(x):
                if not isinstance(each, _PLAIN):
                    self.watch(each, f"{name}[{number}]", depth + 1)
            self._own(x, name, depth)
        elif isinstance(x, dict):
            self._content(x, name)
            for key in x:
                self._read(self._items, x, key, f"{name}[{key!r}]", depth)
            self._own(x, name, depth)
        elif isinstance(x, FunctionType):
            if is_library(x.__code__.co_filename):
                self.watch(getattr(x, "__wrapped__", None), name, depth)  # if it is compiled
                self._members(vars(x), vars(x), name, depth)
                return
            for free, cell in zip(x.__code__.co_freevars, x.__closure__ or (), strict=True):
                self._read(self._attributes, cell, "cell_contents", free, depth)
            for key in ("__defaults__", "__kwdefaults__", "__code__"):
                self._read(self._attributes, x, key, f"{name}.{key}", depth)
            self._members(vars(x), vars(x), name, depth)
            self._content(vars(x), name)
            self.code(x.__code__, x.__globals__)
        elif isinstance(x, partial):
            self.watch((x.func, x.args, x.keywords), name, depth)
        elif isinstance(x, Iterator) and type(x).__module__ in ("builtins", "itertools"):
            self._iterators.append((x, _position(x), name))
        elif isinstance(x, np.random.Generator | np.random.RandomState):
            self._generators.append((x, _numbers_ahead(x), name))
        elif isinstance(x, np.ndarray):
            if x.nbytes <= _MOST_BYTES and not x.dtype.hasobject:
                self._arrays.append((x, x.tobytes(), name))
        elif isinstance(x, weakref.ref):
            self.watch(x(), name, depth)
        elif isinstance(x, BuiltinMethodType):
            self.watch(x.__self__, name, depth)
        elif isinstance(x, MethodType):
            self.watch((x.__self__, x.__func__), name, depth)
        elif isinstance(x, property | staticmethod | classmethod):
            self.watch(x.fget if isinstance(x, property) else x.__func__, name, depth)
        elif isinstance(x, Module):
            if x._registered_hooks is not None:
                self.hooked = self.hooked or name
            for members in (x._parameters, x._buffers, x._modules):
                self._content(members, name)
                self._members(members, members, name, depth, whole=True)
            whole = any(is_library(_file(k)) and k not in _MODULE for k in type(x).__mro__)
            self._content(vars(x), name, ordered=False)
            self._members(vars(x), vars(x), name, depth, whole)
            self._class(type(x), name, depth, whole=whole)
        elif not is_library(_file(type(x))) or type(x).__module__.startswith(_OPTIM):
            self._attributes.add(x, "__class__", name)
            if type(getattr(x, "__dict__", None)) is dict:
                self._content(vars(x), name)
                self._members(vars(x), vars(x), name, depth)
            self._class(type(x), name, depth, x)

    def _own(self, x: Any, name: str, depth: int) -> None:
        """Watch the attributes of a list or dictionary of the user's own kind."""
        if type(getattr(x, "__dict__", None)) is dict:
            self._content(vars(x), name)
            self._members(vars(x), vars(x), name, depth)

    def _read(self, reads: _Reads, where: Any, key: Any, name: str, depth: int) -> None:
        self.watch(reads.add(where, key, name), name, depth + 1)

    def _content(self, x: Any, name: str, ordered: bool = True) -> None:
        """Watch how many elements a container has, and which; of a dictionary its keys."""
        self._sizes.add(x, 0, name)
        if ordered and x:
            self._ordered.append(x)
            self._elements += x

    def _members(
        self, where: Any, keys: Iterable[str], name: str, depth: int, whole: bool = False
    ) -> None:
        """Watch attributes; unless `whole`, all but modules wait until code names them."""
        waiting = []
        for key in keys:
            if key in _UNWATCHED or key in _OF_CLASSES:
                continue
            named = key in self._named or "getattr" in self._named or key == "training"
            if whole or named or key[:2] == "__" or isinstance(where.get(key), Module):
                self._read(self._items, where, key, f"{name}.{key}", depth)
            else:
                waiting.append(key)
        if waiting:
            self._waiting.append((where, waiting, name, depth))

    def _class(self, kind: type, name: str, depth: int, x: Any = None, whole: bool = False) -> None:
        """Watch the attributes of a user's class and of those that it is derived from.

        Those of an instance `x` that are in slots are watched too.
        """
        for each in kind.__mro__:
            if _is_foreign(_file(each)) or each.__module__ == "builtins":
                continue
            if (id(each), "") not in self._seen:
                self._seen[id(each), ""] = each
                self._content(vars(each), each.__name__, ordered=False)
                self._members(vars(each), vars(each), each.__name__, depth, whole)
            slots = vars(each).get("__slots__", ())
            for key in (slots,) if isinstance(slots, str) else slots:
                if x is not None and key not in _OF_CLASSES:
                    self._read(self._attributes, x, key, f"{name}.{key}", depth)

    # What code names

    def code(self, code: CodeType, names: dict[str, Any]) -> None:
        """Watch what the code of a function reads, whose globals are `names`."""
        if code in self._seen:
            return
        self._seen[code] = code
        self._named |= _named(code)
        self._globals(code, names)
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                self.code(constant, names)

    def _globals(self, code: CodeType, names: dict[str, Any]) -> None:
        """Watch the globals that code names, and what it names of the user's modules."""
        for name in code.co_names:
            if name in names:
                value = names[name]
                if (id(names), name) not in self._seen:
                    self._seen[id(names), name] = names
                    self._read(self._items, names, name, name, 0)
                users = isinstance(value, ModuleType) and not _is_foreign(
                    vars(value).get("__file__")
                )
                if users and (code, id(value)) not in self._seen:
                    self._seen[code, id(value)] = value
                    self._globals(code, vars(value))

    def settle(self) -> None:
        """Watch the attributes that code names which was reached after their object."""
        count = -1
        while count != len(self._named):
            count = len(self._named)
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                self._members(*each)

    def reach(self, functions: Mapping[CodeType, tuple[dict[str, Any], Any]]) -> bool:
        """Watch what functions read that have run; return False if all of it was watched.

        Of each, `functions` has the globals and what it found in variables of enclosing functions.
        """
        before = len(self._items.values), len(self._attributes.values)
        for code, (names, free) in functions.items():
            if code not in self._seen:
                self.watch(free, code.co_name)
                self.code(code, names)
        self.settle()
        return before != (len(self._items.values), len(self._attributes.values))

    def numbers(self, tensors: list[Tensor]) -> None:
        """Watch the numbers of tensors: they must not be changed in place."""
        for x in tensors:
            if x._version_box is not None:
                self._content(x._version_box, "a mask")

    # What has changed

    def drawn(self) -> str:
        """Return the name of a generator of NumPy from which numbers were drawn, or ""."""
        return next((n for x, before, n in self._generators if _numbers_ahead(x) != before), "")

    def changed(self) -> str:
        """Return the name of something that is not as it was, or ""."""
        try:
            if (
                self._items.hold()
                and self._attributes.hold()
                and self._sizes.hold()
                and all(map(operator.is_, chain.from_iterable(self._ordered), self._elements))
                and all(_position(x) == position for x, position, _ in self._iterators)
                and all(x.tobytes() == before for x, before, _ in self._arrays)
            ):
                return ""
        except (KeyError, AttributeError, ValueError):  # something is missing
            pass
        changed = self._items.changed() or self._attributes.changed() or self._sizes.changed()
        at = 0
        for x in () if changed else self._ordered:
            before = self._elements[at : at + len(x)]
            if not all(map(_same, x, before)):
                places = zip(self._sizes.where, self._sizes.names, strict=True)
                return next(name for where, name in places if where is x)
            self._elements[at : at + len(x)] = x
            at += len(x)
        iterators = (name for x, before, name in self._iterators if _position(x) != before)
        arrays = (name for x, before, name in self._arrays if x.tobytes() != before)
        return changed or next(chain(iterators, arrays), "")


def _same(a: Any, b: Any) -> bool:
    return a is b or (type(a) is type(b) and _equal(a, b))


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, float | complex):
        return repr(a) == repr(b)  # 0.0 is not -0.0, and NaN is NaN
    return isinstance(a, _PLAIN) and bool(a == b)


def _named(code: CodeType) -> set[str]:
    """Return what code may name: attributes, globals, and texts such as "scale"."""
    names = set(code.co_names)
    constants = list(code.co_consts)
    for x in constants:
        if isinstance(x, str):
            names.update(x.split("."))  # for `operator.attrgetter`
        elif isinstance(x, tuple):
            constants += x
    return names | {"getattr"} if names & _ANY_NAME else names


def _position(x: Any) -> Any:
    """Return what changes when an iterator is asked for its next element."""
    if isinstance(x, count):
        return x.__reduce__()
    left = operator.length_hint(x, -1)
    return object() if left < 0 else left  # of others nothing tells: they count as advanced


def _numbers_ahead(x: Any) -> bytes:
    """Return the state of a generator of NumPy, as bytes."""
    random = isinstance(x, np.random.RandomState)
    return pickle.dumps(x.get_state(legacy=False) if random else x.bit_generator.state)


def _is_foreign(file: str | None) -> bool:
    """Return True for a source file of this library, of Python or of an installed package.

    The models that come with this library are none, wherever it is installed.
    """
    file = file or ""
    if file.startswith(PACKAGE):
        return is_library(file)
    return "site-packages" in file or file.startswith(_PYTHON)


def _file(kind: type) -> str:
    return getattr(sys.modules.get(kind.__module__), "__file__", None) or ""
