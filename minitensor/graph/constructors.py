"""The code of constructors, read over settings without running it.

A constructor computes sizes from its arguments: `self.qkv = nn.Linear(E, 3 * E)`. `Reader` follows
its code and keeps each result as a `Sized`, which can be asked for its value at other settings.
What cannot be followed is `UNKNOWN`, never a guess.
"""

from __future__ import annotations

import ast
import builtins
import copy
import dataclasses
import functools
import inspect
import itertools
import textwrap
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

from ..core import Tensor
from ..nn import Buffer, Module, ModuleDict, ModuleList, Parameter, Sequential
from .expressions import Frame, Local, Method, Super, attempt, hashable
from .functions import EAGER, LIFTED, MODULE_METHODS, SPECIAL, tensor_function
from .sized import (
    UNKNOWN,
    AllUnknown,
    Given,
    Lost,
    Made,
    Sized,
    is_config,
    is_setting,
    lift,
    value_now,
)
from .statements import Statements

_DEEPEST = 30  # calls inside calls


class Reader(Statements):
    """Reads constructors, and keeps what must hold for other settings."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[str, int] = {}  # of the settings that were met
        self.modules: dict[int, Made] = {}  # that were given, by the id() of their arguments
        self.classes: dict[str, type] = {}  # of the modules whose arguments were read, by path
        self.lost: dict[type, str] = {}  # why a constructor could not be followed to its end
        self._depth = 0
        self._copies: dict[int, tuple[Any, Any]] = {}  # of the user's containers, with these
        self._settings: dict[str, Sized] = {}

    def setting(self, path: str, size: int) -> Sized:
        """Return the setting at a path."""
        if path not in self._settings:
            self.sizes[path] = size
            self._settings[path] = Sized(lambda sizes: sizes.get(path, size), frozenset([path]))
        return self._settings[path]

    def module(self, x: Module, path: str) -> Made:
        """Return a module that was given as an argument, made with settings of its own."""
        made_with = x.__dict__.get("_made_with")
        if made_with is None:
            return Made(type(x), [], {}, AllUnknown())
        if id(made_with) not in self.modules:
            args, options = made_with
            try:
                bound = self._bind(type(x).__init__, [x, *args], options)
            except Lost:  # a module without its arguments, such as one made by __new__
                return Made(type(x), [], {}, AllUnknown())
            self.classes[path], given = type(x), {}
            for key, each in list(bound.items())[1:]:
                given[key] = self.given(each, f"{path}.{key}" if path else key)
            signature = inspect.signature(type(x).__init__)
            again = inspect.BoundArguments(signature, OrderedDict({"self": x, **given}))  # type: ignore[arg-type]
            again.arguments = {next(iter(bound)): x, **given}
            self.modules[id(made_with)] = Made(type(x), again.args[1:], again.kwargs)
        return self.modules[id(made_with)]

    def argument(self, setting: str) -> tuple[type, str] | None:
        """Return the class that a setting was given to, and its argument: "config.n_head"."""
        path = setting
        while path:
            path = path.rpartition(".")[0]
            if path in self.classes:
                return self.classes[path], setting.removeprefix(f"{path}.")
        return None  # it was given to no module

    def given(self, x: Any, path: str) -> Any:
        """Return an argument whose whole numbers are settings; of objects, when they are read."""
        if is_setting(x, path):
            return self.setting(path, x)
        if type(x) in (tuple, list):
            return type(x)(self.given(each, f"{path}[{i}]") for i, each in enumerate(x))
        if type(x) in (dict, OrderedDict):
            return {key: self.given(each, f"{path}.{key}") for key, each in x.items()}
        if isinstance(x, Module):
            return self.module(x, path)
        return Given(x, path) if is_config(x) else self._theirs(x)

    def _theirs(self, x: Any) -> Any:
        """Return an object; of a container a copy, since the code that is read may change it."""
        kind = type(x)
        if kind is tuple:
            parts = [self._theirs(each) for each in x]
            return tuple(parts) if any(a is not b for a, b in zip(parts, x, strict=True)) else x
        if kind not in (list, dict, set, OrderedDict):
            return x
        if id(x) not in self._copies:
            made: Any = kind()
            self._copies[id(x)] = x, made
            if kind is list:
                made.extend(map(self._theirs, x))
            else:
                made.update(x if kind is set else ((k, self._theirs(v)) for k, v in x.items()))
        return self._copies[id(x)][1]

    def attributes(self, made: Made) -> dict[str, Any]:
        """Return the attributes that a constructor gives its object, as far as they are known."""
        if made.attributes is None:
            made.attributes = {}
            try:
                self._construct(made)
            except Exception as error:  # what was read until then is known
                self.lost.setdefault(made.kind, str(error))
        return made.attributes

    def _construct(self, made: Made) -> None:
        kind, attributes = made.kind, made.attributes
        assert attributes is not None
        if issubclass(kind, Sequential | ModuleList | ModuleDict) and _is_ours(kind.__init__):
            for name, each in self._members(made):
                attributes[name] = each
            return
        if dataclasses.is_dataclass(kind) and not _is_written(kind.__init__):
            bound = self._bind(kind.__init__, [made, *made.args], made.options)
            attributes.update({k: v for k, v in bound.items() if v is not made})
            post = getattr(kind, "__post_init__", None)
            if post is not None:
                self.call(Method(made, post, kind), [], {})
            return
        init, where = _method(kind, "__init__")
        if isinstance(init, FunctionType):
            self.call(Method(made, init, where), made.args, made.options)

    def _members(self, made: Made) -> Iterator[tuple[str, Any]]:
        """Yield the names and modules of a container."""
        given = list(made.args)
        if isinstance(given[0] if given else None, dict):
            yield from given[0].items()
        elif issubclass(made.kind, Sequential):
            yield from ((str(i), each) for i, each in enumerate(given))
        elif given:
            items = self.items(given[0])
            if issubclass(made.kind, ModuleDict):
                yield from (each for each in items)
            else:
                yield from ((str(i), each) for i, each in enumerate(items))

    # Calls

    def call(self, f: Any, args: Sequence[Any], options: Mapping[str, Any]) -> Any:
        """Return what a call returns, as far as it can be followed."""
        if self._depth >= _DEEPEST:
            raise Lost("too deep")
        self._depth += 1
        try:
            return self._call(f, list(args), dict(options))
        finally:
            self._depth -= 1

    def _call(self, f: Any, args: list[Any], options: dict[str, Any]) -> Any:
        if isinstance(f, Local):
            return self._run_local(f, args, options)
        if isinstance(f, Method):
            return self._run(f.function, [f.owner, *args], options, f.kind, f.owner)
        if f is UNKNOWN or isinstance(f, Sized | Made | Given):
            return UNKNOWN
        if isinstance(f, functools.partial):
            given = map(self._theirs, f.args)
            more = {key: self._theirs(each) for key, each in f.keywords.items()}
            return self.call(f.func, [*given, *args], {**more, **options})
        if f is functools.partial and args and isinstance(args[0], type | FunctionType):
            return functools.partial(args[0], *args[1:], **options)
        if f in (copy.deepcopy, copy.copy) and args:
            return args[0]
        if f in (Parameter, Buffer):
            return args[0] if args else UNKNOWN
        special = SPECIAL.get(f) if isinstance(f, BuiltinFunctionType | type) else None
        if special is not None:
            return special(self, args, options)
        if hashable(f) and f in LIFTED:
            return lift(f, *args, **options)
        if hashable(f) and f in EAGER:
            items = [self.items(a) if not isinstance(a, dict) else a for a in args]
            made = attempt(f, items, options)
            return list(made) if isinstance(made, Iterator) else made
        if getattr(f, "__module__", None) in ("math", "operator", "_operator"):
            return lift(f, *args, **options)
        if getattr(f, "__module__", None) == "itertools" or f is itertools.chain.from_iterable:
            return attempt(lambda *a: list(f(*a, **options)), [self.items(a) for a in args], {})
        if isinstance(f, type):
            if issubclass(f, Module) or _is_user(f):
                return Made(f, args, options)
            return attempt(f, args, options) if f in (OrderedDict, slice) else UNKNOWN
        name = getattr(f, "__name__", "")
        owner = getattr(f, "__self__", None)
        if type(owner) in (str, list, dict, tuple, set, OrderedDict):
            found = attempt(f, args, options)
            return list(found) if name in ("keys", "values", "items") else found
        tensors = tensor_function(f)
        if tensors is not None:
            if name.endswith("_") and not name.endswith("__"):  # in place: init.normal_(weight)
                return args[0] if args else UNKNOWN
            return lift(tensors, *args, lazy=True, **options)
        if isinstance(f, MethodType) and isinstance(f.__func__, FunctionType):
            return self._run(f.__func__, [f.__self__, *args], options, None, f.__self__)
        if isinstance(f, FunctionType):
            return self._run(f, args, options, None, args[0] if args else None)
        return UNKNOWN

    def _bind(self, f: Any, args: Sequence[Any], options: Mapping[str, Any]) -> dict[str, Any]:
        try:
            bound = inspect.signature(f).bind(*args, **options)
        except (TypeError, ValueError) as error:
            raise Lost(str(error)) from error
        given = dict(bound.arguments)
        bound.apply_defaults()
        return {k: x if k in given else self._theirs(x) for k, x in bound.arguments.items()}

    def _run(
        self, f: Any, args: Sequence[Any], options: Mapping[str, Any], kind: type | None, owner: Any
    ) -> Any:
        """Read a function of Python with its arguments."""
        if isinstance(owner, Made) and issubclass(owner.kind, Module):
            found = MODULE_METHODS.get(getattr(f, "__name__", ""))
            if found is not None and _is_ours(f):
                return found(self, owner, list(args[1:]), dict(options))
            if kind is not None and kind in Module.__mro__:
                return UNKNOWN  # named_parameters(), state_dict()
        f = inspect.unwrap(f) if isinstance(f, FunctionType) else f
        code = _code_of(f) if isinstance(f, FunctionType) else None
        if code is None or inspect.isgeneratorfunction(f) or inspect.iscoroutinefunction(f):
            return UNKNOWN
        cells = dict(zip(f.__code__.co_freevars, f.__closure__ or (), strict=True))
        if kind is None and "__class__" in cells:
            kind = cells["__class__"].cell_contents

        def outer(name: str) -> Any:
            if name in cells:
                try:
                    return self._theirs(cells[name].cell_contents)
                except ValueError:
                    return UNKNOWN
            return self._theirs(f.__globals__.get(name, getattr(builtins, name, UNKNOWN)))

        frame = Frame(self._bind(f, args, options), outer, kind, owner)
        self.block(code.body, frame)
        return frame.result

    def _run_local(self, f: Local, args: Sequence[Any], options: Mapping[str, Any]) -> Any:
        """Read a function or lambda inside another."""
        given, outer = f.code.args, f.frame
        if given.vararg or given.kwarg or given.posonlyargs:
            return UNKNOWN
        names = dict(zip([a.arg for a in given.args], args, strict=False)) | dict(options)
        defaults = dict(zip([a.arg for a in given.args][::-1], given.defaults[::-1], strict=False))
        defaults |= {
            a.arg: d for a, d in zip(given.kwonlyargs, given.kw_defaults, strict=True) if d
        }
        for name, default in defaults.items():
            if name not in names:
                names[name] = self.value(default, outer)

        def look(name: str) -> Any:
            return outer.names[name] if name in outer.names else outer.outer(name)

        frame = Frame(names, look, outer.kind, outer.owner)
        if isinstance(f.code, ast.Lambda):
            return self.value(f.code.body, frame)
        self.block(f.code.body, frame)
        return frame.result

    # Attributes

    def attribute(self, x: Any, name: str) -> Any:
        """Return an attribute of a value: of an object that is made, what its constructor sets."""
        if isinstance(x, Given):
            return self._field(x, name)
        if isinstance(x, Made | Super):
            owner = x if isinstance(x, Made) else x.owner
            if isinstance(x, Made):
                found = self.attributes(x)
                if name in found:
                    return found[name]
                if name == "__class__":
                    return x.kind
            f, kind = _method(owner.kind, name, None if isinstance(x, Made) else x.after)
            if isinstance(f, property):
                return self.call(Method(owner, f.fget, kind), [], {})
            if isinstance(f, staticmethod):
                return f.__func__
            if isinstance(f, classmethod):
                return functools.partial(f.__func__, owner.kind)
            if callable(f) and not isinstance(f, type):
                return Method(owner, f, kind)
            return UNKNOWN if f is None else self._theirs(f)
        if isinstance(x, Sized):
            now = value_now(x)
            if isinstance(now, Tensor) and callable(getattr(now, name, None)):
                if name.endswith("_") and not name.endswith("__"):
                    return functools.partial(_itself_of, x)
                return functools.partial(_tensor_method, x, name)
            return lift(getattr, x, name)
        if x is UNKNOWN or isinstance(x, Local | Method):
            return UNKNOWN
        try:
            return self._theirs(getattr(x, name))
        except AttributeError:
            return UNKNOWN

    def _field(self, x: Given, name: str) -> Any:
        """Return a field, property or method of a config."""
        f, kind = _method(type(x.x), name)
        if isinstance(f, property):
            return self.call(Method(x, f.fget, kind), [], {})
        if isinstance(f, functools.cached_property):
            return self.call(Method(x, f.func, kind), [], {})
        fields = vars(x.x)
        if name in fields:
            return self.given(fields[name], f"{x.path}.{name}" if x.path else name)
        if isinstance(f, FunctionType):
            return Method(x, f, kind)
        return UNKNOWN if f is None else self._theirs(f)


# Functions and classes


@functools.cache
def _code_of(function: FunctionType) -> ast.FunctionDef | None:
    """Return the code of a function, or None if it is not to be found."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError, IndentationError):
        return None
    found = tree.body[0] if tree.body else None
    return found if isinstance(found, ast.FunctionDef) else None


def _itself_of(x: Sized, *args: Any, **options: Any) -> Sized:
    return x


def _tensor_method(x: Sized, name: str, *args: Any, **options: Any) -> Any:
    return getattr(x, name)(*args, **options)


def _method(kind: type, name: str, after: type | None = None) -> tuple[Any, type]:
    """Return what a class, or those `after` one of its bases, define by a name, and where."""
    bases = kind.__mro__
    if after is not None and after in bases:
        bases = bases[bases.index(after) + 1 :]
    for base in bases:
        if name in base.__dict__:
            return base.__dict__[name], base
    return None, kind


def _is_ours(f: Any) -> bool:
    return str(getattr(f, "__module__", "")).startswith("minitensor.")


def _is_written(f: Any) -> bool:
    return isinstance(f, FunctionType) and _code_of(f) is not None


def _is_user(kind: type) -> bool:
    """Return True for a class of the user's own, whose constructor can be read."""
    init, _ = _method(kind, "__init__")
    plain = type(kind) is type and not issubclass(kind, BaseException)
    return plain and (dataclasses.is_dataclass(kind) or isinstance(init, FunctionType))
