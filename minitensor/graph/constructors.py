"""The code of constructors, read over settings without running it.

A constructor computes sizes from its arguments: `self.qkv = nn.Linear(E, 3 * E)`. `Reader` follows
its code and keeps each result as a `Sized`, which can be asked for its value at other settings.
Nothing runs but arithmetic and the making of tensors for their shapes. What cannot be followed is
`UNKNOWN`, never a guess.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import copy
import dataclasses
import functools
import inspect
import itertools
import operator
import sys
import textwrap
from collections import OrderedDict, namedtuple
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import numpy as np

from ..core import Tensor, wrap
from ..nn import Buffer, Module, ModuleDict, ModuleList, Parameter, Sequential
from .sized import (
    UNKNOWN,
    Given,
    Lost,
    Made,
    Readable,
    Sized,
    is_config,
    is_setting,
    known,
    lift,
    settings_of,
    value_now,
)

_DEEPEST = 30  # calls inside calls
_LONGEST = 10_000  # turns of a loop


@dataclasses.dataclass(frozen=True, eq=False)
class _Local(Readable):
    """A function or lambda inside another."""

    code: ast.FunctionDef | ast.Lambda
    frame: _Frame


@dataclasses.dataclass(frozen=True, eq=False)
class _Method(Readable):
    """A function, found on an object or by `super()`."""

    owner: Any
    function: Any
    kind: type  # the class that defines it


@dataclasses.dataclass(frozen=True, eq=False)
class _Super(Readable):
    owner: Made
    after: type


@dataclasses.dataclass(eq=False)
class _Frame:
    """The variables of a function that is read."""

    names: dict[str, Any]
    outer: Callable[[str], Any]  # of the closure, the globals and the builtins
    kind: type | None = None  # the class that defines it
    owner: Any = None  # its first argument
    result: Any = None


# Functions that may be computed

_LIFTED = {abs, bool, divmod, float, int, max, min, pow, round, str, sum, repr, hash, complex}
_EAGER = {dict, enumerate, list, set, frozenset, sorted, tuple, zip, reversed, any, all, iter}
_TENSORS_OF_NN = ("minitensor.nn.functional", "minitensor.nn.init", "minitensor.nn.multi_head")
_SAME_SHAPE = ("tril", "triu")
_NO_SHAPE = ("zeros", "ones", "empty", "full", "rand", "randn")  # their values do not matter


def _blank(*shape: Any, **options: Any) -> Tensor:
    """Return a tensor of a shape that takes no memory."""
    sizes = options.get("size", shape)
    flat = sizes[0] if sizes and isinstance(sizes[0], tuple | list) else sizes
    return wrap(np.broadcast_to(np.float32(0), tuple(n for n in flat if type(n) is int)))


def _tensor_function(f: Any) -> Callable[..., Any] | None:
    """Return a function of this library or NumPy in the form in which it may run; else None."""
    name, where = getattr(f, "__name__", ""), getattr(f, "__module__", "") or ""
    if isinstance(f, np.ufunc) or where.partition(".")[0] == "numpy":
        return f if callable(f) else None
    owner = getattr(f, "__self__", None)
    if isinstance(owner, type):  # Op.call
        where = owner.__module__
    if where.partition(".")[0] != "minitensor" or isinstance(f, type):
        return None
    if where.startswith("minitensor.nn") and where not in _TENSORS_OF_NN:
        return None  # it may make modules: its code is read
    if name in _SAME_SHAPE:
        return lambda x, *_, **__: x
    if name in _NO_SHAPE:
        return _blank if name != "full" else lambda shape, *_, **__: _blank(shape)
    return f if callable(f) else None


# Reading


@functools.cache
def _code_of(function: FunctionType) -> ast.FunctionDef | ast.Lambda | None:
    """Return the code of a function, or None if it is not to be found."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError, IndentationError):
        return None
    found = tree.body[0] if tree.body else None
    return found if isinstance(found, ast.FunctionDef) else None


class Reader:
    """Reads constructors, and keeps what must hold for other settings."""

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}  # of the settings that were met
        self.guards: list[tuple[Sized, Any]] = []  # what decided a branch or a loop, and how
        self.divided: set[tuple[str, str]] = set()  # settings, and those that divide them
        self.modules: dict[int, Made] = {}  # that were given, by the id() of their arguments
        self._depth = 0
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
            given = {}
            for key, each in list(bound.items())[1:]:
                given[key] = self.given(each, f"{path}.{key}" if path else key)
            signature = inspect.signature(type(x).__init__)
            again = inspect.BoundArguments(signature, OrderedDict({"self": x, **given}))  # type: ignore[arg-type]
            again.arguments = {next(iter(bound)): x, **given}
            self.modules[id(made_with)] = Made(type(x), again.args[1:], again.kwargs)
        return self.modules[id(made_with)]

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
        return Given(x, path) if is_config(x) else x

    def attributes(self, made: Made) -> dict[str, Any]:
        """Return the attributes that a constructor gives its object, as far as they are known."""
        if made.attributes is None:
            made.attributes = {}
            with contextlib.suppress(Exception):  # what was read until then is known
                self._construct(made)
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
                self.call(_Method(made, post, kind), [], {})
            return
        init, where = _method(kind, "__init__")
        if isinstance(init, FunctionType):
            self.call(_Method(made, init, where), made.args, made.options)

    def _members(self, made: Made) -> Iterator[tuple[str, Any]]:
        """Yield the names and modules of a container."""
        given = list(made.args)
        if isinstance(given[0] if given else None, dict):
            yield from given[0].items()
        elif issubclass(made.kind, Sequential):
            yield from ((str(i), each) for i, each in enumerate(given))
        elif given:
            items = self._items(given[0])
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
        if isinstance(f, _Local):
            return self._run_local(f, args, options)
        if isinstance(f, _Method):
            return self._run(f.function, [f.owner, *args], options, f.kind, f.owner)
        if f is UNKNOWN or isinstance(f, Sized | Made | Given):
            return UNKNOWN
        if isinstance(f, functools.partial):
            return self.call(f.func, [*f.args, *args], {**f.keywords, **options})
        if f is functools.partial and args and isinstance(args[0], type | FunctionType):
            return functools.partial(args[0], *args[1:], **options)
        if f in (copy.deepcopy, copy.copy) and args:
            return args[0]
        if f in (Parameter, Buffer):
            return args[0] if args else UNKNOWN
        special = _SPECIAL.get(f) if isinstance(f, BuiltinFunctionType | type) else None
        if special is not None:
            return special(self, args, options)
        if _hashable(f) and f in _LIFTED:
            return lift(f, *args, **options)
        if _hashable(f) and f in _EAGER:
            items = [self._items(a) if not isinstance(a, dict) else a for a in args]
            made = _attempt(f, items, options)
            return list(made) if isinstance(made, Iterator) else made
        if getattr(f, "__module__", None) in ("math", "operator", "_operator"):
            return lift(f, *args, **options)
        if getattr(f, "__module__", None) == "itertools" or f is itertools.chain.from_iterable:
            return _attempt(lambda *a: list(f(*a, **options)), [self._items(a) for a in args], {})
        if isinstance(f, type):
            if issubclass(f, Module) or _is_user(f):
                return Made(f, args, options)
            return _attempt(f, args, options) if f in (OrderedDict, slice) else UNKNOWN
        name = getattr(f, "__name__", "")
        owner = getattr(f, "__self__", None)
        if type(owner) in (str, list, dict, tuple, set, OrderedDict):
            found = _attempt(f, args, options)
            return list(found) if name in ("keys", "values", "items") else found
        tensors = _tensor_function(f)
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
        bound.apply_defaults()
        return bound.arguments

    def _run(
        self, f: Any, args: Sequence[Any], options: Mapping[str, Any], kind: type | None, owner: Any
    ) -> Any:
        """Read a function of Python with its arguments."""
        if isinstance(owner, Made) and issubclass(owner.kind, Module):
            found = _MODULE_METHODS.get(getattr(f, "__name__", ""))
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
                    return cells[name].cell_contents
                except ValueError:
                    return UNKNOWN
            return f.__globals__.get(name, getattr(builtins, name, UNKNOWN))

        frame = _Frame(self._bind(f, args, options), outer, kind, owner)
        assert isinstance(code, ast.FunctionDef)
        self._block(code.body, frame)
        return frame.result

    def _run_local(self, f: _Local, args: Sequence[Any], options: Mapping[str, Any]) -> Any:
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
                names[name] = self._value(default, outer)

        def look(name: str) -> Any:
            return outer.names[name] if name in outer.names else outer.outer(name)

        frame = _Frame(names, look, outer.kind, outer.owner)
        if isinstance(f.code, ast.Lambda):
            return self._value(f.code.body, frame)
        self._block(f.code.body, frame)
        return frame.result

    # Statements

    def _block(self, body: Sequence[ast.stmt], frame: _Frame) -> bool:
        """Read statements; return True if they left the function or a loop."""
        return any(self._statement(each, frame) for each in body)

    def _statement(self, node: ast.stmt, frame: _Frame) -> bool:
        match node:
            case ast.Expr(value):
                self._value(value, frame)
            case ast.Assign(targets, value):
                found = self._value(value, frame)
                for target in targets:
                    self._assign(target, found, frame)
            case ast.AnnAssign(target, _, value):
                if value is not None:
                    self._assign(target, self._value(value, frame), frame)
            case ast.AugAssign(target, op, value):
                read: Any = copy.copy(target)
                read.ctx = ast.Load()
                now, more = self._value(read, frame), self._value(value, frame)
                self._assign(target, self._operate(op, now, more), frame)
            case ast.If(test, body, orelse):
                chosen = self._truth(self._value(test, frame))
                if chosen is UNKNOWN:
                    self._forget([*body, *orelse], frame)
                else:
                    return self._block(body if chosen else orelse, frame)
            case ast.For(target, each, body, orelse):
                return self._loop(target, each, body, orelse, frame)
            case ast.While(test, body):
                for _ in range(_LONGEST):
                    chosen = self._truth(self._value(test, frame))
                    if chosen is UNKNOWN:
                        self._forget(body, frame)
                        break
                    if not chosen or self._block(body, frame):
                        break
                return False
            case ast.With(items, body):
                for item in items:
                    if item.optional_vars is not None:
                        self._assign(item.optional_vars, UNKNOWN, frame)
                return self._block(body, frame)
            case ast.Try(body, _, orelse, final):
                return self._block([*body, *orelse, *final], frame)
            case ast.Return(value):
                frame.result = None if value is None else self._value(value, frame)
                return True
            case ast.Assert(test):
                self._truth(self._value(test, frame))
            case ast.FunctionDef(name):
                plain = not node.decorator_list
                frame.names[name] = _Local(node, frame) if plain else UNKNOWN
            case ast.Raise():
                raise Lost("it raises")
            case ast.Pass() | ast.Global() | ast.Nonlocal():
                pass
            case ast.Continue() | ast.Break():
                frame.names["*loop"] = isinstance(node, ast.Break)
                return True
            case ast.Import(names) | ast.ImportFrom(_, names):
                self._import(node, names, frame)
            case _:
                self._forget([node], frame)
        return False

    def _import(self, node: Any, names: list[ast.alias], frame: _Frame) -> None:
        """Bind names that a function imports, if they are loaded already."""
        for alias in names:
            found: Any = UNKNOWN
            if isinstance(node, ast.Import):
                found = sys.modules.get(alias.name, UNKNOWN) if alias.asname else UNKNOWN
                found = sys.modules.get(alias.name.partition(".")[0], found)
            elif not node.level and node.module in sys.modules:
                found = getattr(sys.modules[node.module], alias.name, UNKNOWN)
            frame.names[alias.asname or alias.name.partition(".")[0]] = found

    def _loop(
        self,
        target: ast.expr,
        each: ast.expr,
        body: list[ast.stmt],
        orelse: list[ast.stmt],
        frame: _Frame,
    ) -> bool:
        items = self._items(self._value(each, frame), quietly=True)
        if items is UNKNOWN:
            self._forget([ast.Assign([target], ast.Constant(None)), *body], frame)
            return False
        for item in items:
            self._assign(target, item, frame)
            if self._block(body, frame):
                ended = frame.names.pop("*loop", None)
                if ended is None:
                    return True  # a return
                if ended:
                    return False
        return self._block(orelse, frame)

    def _forget(self, body: Sequence[ast.stmt], frame: _Frame) -> None:
        """Pass over statements that may have run or not: what they set is not known."""
        for node in (each for stmt in body for each in ast.walk(stmt)):
            if isinstance(node, ast.Return | ast.Yield | ast.YieldFrom):
                raise Lost("it may return")
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = self._value(node.func.value, frame, quietly=True)
                if node.func.attr in _CHANGING:
                    if isinstance(owner, Made):
                        owner.attributes = AllUnknown()
                    elif isinstance(owner, list | dict):
                        raise Lost("it may change")
            context = getattr(node, "ctx", None)
            if isinstance(context, ast.Store | ast.Del) and isinstance(node, ast.Name):
                frame.names[node.id] = UNKNOWN
            elif isinstance(context, ast.Store) and isinstance(node, ast.Attribute):
                owner = self._value(node.value, frame, quietly=True)
                if isinstance(owner, Made):
                    self.attributes(owner)[node.attr] = UNKNOWN
            elif isinstance(node, ast.FunctionDef):
                frame.names[node.name] = UNKNOWN

    def _assign(self, target: ast.expr, found: Any, frame: _Frame) -> None:
        match target:
            case ast.Name(name):
                frame.names[name] = found
            case ast.Attribute(value, name):
                owner = self._value(value, frame)
                if isinstance(owner, Made):
                    self.attributes(owner)[name] = found
            case ast.Tuple(parts) | ast.List(parts):
                items = self._items(found, quietly=True)
                stars = [i for i, part in enumerate(parts) if isinstance(part, ast.Starred)]
                if items is not UNKNOWN and stars and len(items) >= len(parts) - 1:
                    start, after = stars[0], len(parts) - stars[0] - 1
                    stop = len(items) - after
                    items = [*items[:start], items[start:stop], *items[stop:]]
                if items is UNKNOWN:
                    first = found if isinstance(found, Sized) else None
                    items = [
                        UNKNOWN if first is None else lift(operator.getitem, first, i)
                        for i in range(len(parts))
                    ]
                if len(items) != len(parts):
                    raise Lost("it does not unpack")
                for part, item in zip(parts, items, strict=True):
                    inner = part.value if isinstance(part, ast.Starred) else part
                    self._assign(inner, item, frame)
            case ast.Subscript(value, index):
                owner, key = self._value(value, frame), self._value(index, frame)
                if isinstance(owner, dict | list) and isinstance(key, str | int):
                    _attempt(operator.setitem, [owner, key, found], {})

    # Expressions

    def _truth(self, x: Any) -> Any:
        """Return whether `x` is true now, and keep that it must be so; UNKNOWN if not known."""
        if isinstance(x, Made | Given | _Local | _Method):
            return True
        if isinstance(x, Sized):
            now = value_now(x)
            if now is UNKNOWN or isinstance(now, Tensor | np.ndarray):
                return UNKNOWN
            truth = bool(now)
            if x.of:
                self.guards.append((lift(bool, x), truth))
            return truth
        if x is UNKNOWN or isinstance(x, Tensor | np.ndarray):
            return UNKNOWN
        return bool(x)

    def _items(self, x: Any, quietly: bool = False) -> Any:
        """Return a list of what is in `x`; Lost, or UNKNOWN if `quietly`, if it is not known."""
        if isinstance(x, Made) and issubclass(x.kind, ModuleList | Sequential):
            return list(self.attributes(x).values())
        if isinstance(x, Given) and type(x.x) not in (str,):
            return UNKNOWN if quietly else self._lose()
        if isinstance(x, Sized) or x is UNKNOWN or isinstance(x, Made | _Local | _Method):
            return UNKNOWN if quietly else self._lose()
        if isinstance(x, range) and len(x) > _LONGEST:
            return UNKNOWN if quietly else self._lose()
        if isinstance(x, list | tuple | dict | set | range | str | Mapping):
            return list(x)
        return UNKNOWN if quietly else self._lose()

    def _lose(self) -> Any:
        raise Lost("it is not known what is in it")

    def _operate(self, op: ast.operator, a: Any, b: Any) -> Any:
        if type(op) not in _BINARY:
            return UNKNOWN
        if isinstance(a, list | tuple) and isinstance(op, ast.Add) and isinstance(b, list | tuple):
            return _attempt(operator.add, [a, b], {})
        if isinstance(op, ast.Mult) and isinstance(a, list | tuple) and isinstance(b, Sized):
            return _attempt(operator.mul, [a, self.counted(b)], {})
        if isinstance(op, ast.FloorDiv | ast.Mod | ast.Div):
            self.divided.update(itertools.product(settings_of(a), settings_of(b)))
        return lift(_BINARY[type(op)], a, b)

    def counted(self, x: Any) -> int:
        """Return how many there are now, and keep that it must be so many."""
        if isinstance(x, Sized):
            now = value_now(x)
            if not isinstance(now, int):
                raise Lost("it is not known how many")
            self.guards.append((x, now))
            return now
        if not isinstance(x, int):
            raise Lost("it is not known how many")
        return x

    def _value(self, node: ast.expr, frame: _Frame, quietly: bool = False) -> Any:
        """Return the value of an expression."""
        try:
            return self._evaluate(node, frame)
        except Lost:
            if quietly:
                return UNKNOWN
            raise

    def _evaluate(self, node: ast.expr, frame: _Frame) -> Any:
        match node:
            case ast.Constant(value):
                return value
            case ast.Name(name):
                return frame.names[name] if name in frame.names else frame.outer(name)
            case ast.Attribute(value, name):
                return self._attribute(self._evaluate(value, frame), name)
            case ast.BinOp(left, op, right):
                a, b = self._evaluate(left, frame), self._evaluate(right, frame)
                return self._operate(op, a, b)
            case ast.UnaryOp(op, operand):
                x = self._evaluate(operand, frame)
                if isinstance(op, ast.Not):
                    truth = self._truth(x)
                    return truth if truth is UNKNOWN else not truth
                return lift(_UNARY[type(op)], x)
            case ast.BoolOp(op, values):
                found: Any = UNKNOWN
                for each in values:
                    found = self._evaluate(each, frame)
                    truth = self._truth(found)
                    if truth is UNKNOWN:
                        return UNKNOWN
                    if truth is isinstance(op, ast.Or):
                        break
                return found
            case ast.IfExp(test, body, orelse):
                chosen = self._truth(self._evaluate(test, frame))
                if chosen is UNKNOWN:
                    return UNKNOWN
                return self._evaluate(body if chosen else orelse, frame)
            case ast.Compare(left, ops, rights):
                return self._compare(left, ops, rights, frame)
            case ast.Call(function, args, keywords):
                return self._evaluate_call(function, args, keywords, frame)
            case ast.Tuple(parts):
                return tuple(self._spread(parts, frame))
            case ast.List(parts):
                return list(self._spread(parts, frame))
            case ast.Set(parts):
                return set(self._spread(parts, frame))
            case ast.Dict(keys, values):
                made: dict[Any, Any] = {}
                for key, each in zip(keys, values, strict=True):
                    one = self._evaluate(each, frame)
                    if key is not None:
                        made[_key(self._evaluate(key, frame))] = one
                    elif isinstance(one, dict):
                        made.update(one)
                    else:
                        raise Lost("it is not known what is in it")
                return made
            case ast.Subscript(value, index):
                return self._item(self._evaluate(value, frame), self._evaluate(index, frame))
            case ast.Slice(lower, upper, step):
                ends = [
                    None if n is None else self._evaluate(n, frame) for n in (lower, upper, step)
                ]
                return slice(*ends) if known(ends) else UNKNOWN
            case ast.ListComp(element, loops) | ast.GeneratorExp(element, loops):
                return [self._evaluate(element, inner) for inner in self._turns(loops, frame)]
            case ast.DictComp(key, value, loops):
                turns = self._turns(loops, frame)
                return {_key(self._evaluate(key, i)): self._evaluate(value, i) for i in turns}
            case ast.Lambda():
                return _Local(node, frame)
            case ast.JoinedStr(values):
                texts = [self._evaluate(each, frame) for each in values]
                return lift(lambda *parts: "".join(map(str, parts)), *texts)
            case ast.FormattedValue(value, conversion, form):
                shown = self._evaluate(value, frame)
                return shown if conversion == -1 and form is None else UNKNOWN
            case ast.NamedExpr(target, value):
                found = self._evaluate(value, frame)
                self._assign(target, found, frame)
                return found
        return UNKNOWN

    def _turns(self, loops: list[ast.comprehension], frame: _Frame) -> Iterator[_Frame]:
        """Yield the variables of each turn of a comprehension."""
        if not loops:
            yield frame
            return

        def look(name: str) -> Any:
            return frame.names[name] if name in frame.names else frame.outer(name)

        first, *rest = loops
        for item in self._items(self._evaluate(first.iter, frame)):
            inner = _Frame({}, look, frame.kind, frame.owner)
            self._assign(first.target, item, inner)
            truths = [self._truth(self._evaluate(test, inner)) for test in first.ifs]
            if UNKNOWN in truths:
                raise Lost("it is not known how many")
            if all(truths):
                yield from self._turns(rest, inner)

    def _spread(self, parts: list[ast.expr], frame: _Frame) -> Iterator[Any]:
        for part in parts:
            if isinstance(part, ast.Starred):
                yield from self._items(self._evaluate(part.value, frame))
            else:
                yield self._evaluate(part, frame)

    def _compare(
        self, left: ast.expr, ops: list[ast.cmpop], rights: list[ast.expr], frame: _Frame
    ) -> Any:
        found: Any = True
        a = self._evaluate(left, frame)
        for op, right in zip(ops, rights, strict=True):
            b = self._evaluate(right, frame)
            if isinstance(op, ast.Is | ast.IsNot) and (
                isinstance(a, Made | Given | Sized) or isinstance(b, Made | Given | Sized)
            ):
                same = a is b
                found = same if isinstance(op, ast.Is) else not same
            else:
                found = lift(_COMPARE[type(op)], a, b)
            if len(ops) > 1:
                truth = self._truth(found)
                if truth is UNKNOWN or not truth:
                    return truth
            a = b
        return found

    def _evaluate_call(
        self, function: ast.expr, args: list[ast.expr], keywords: list[ast.keyword], frame: _Frame
    ) -> Any:
        if isinstance(function, ast.Name) and function.id == "super":
            kind = frame.kind if not args else self._evaluate(args[0], frame)
            owner = frame.owner if len(args) < 2 else self._evaluate(args[1], frame)
            if isinstance(owner, Made) and isinstance(kind, type):
                return _Super(owner, kind)
            return UNKNOWN
        f = self._evaluate(function, frame)
        given = list(self._spread(args, frame))
        options: dict[str, Any] = {}
        for keyword in keywords:
            value = self._evaluate(keyword.value, frame)
            if keyword.arg is not None:
                options[keyword.arg] = value
            elif isinstance(value, dict):
                options.update(value)
            else:
                return UNKNOWN
        return self.call(f, given, options)

    def _item(self, x: Any, key: Any) -> Any:
        if isinstance(x, Made):
            found = self.attributes(x)
            if issubclass(x.kind, ModuleList | Sequential) and isinstance(key, int):
                items = list(found.values())
                return items[key] if -len(items) <= key < len(items) else UNKNOWN
            return found.get(key, UNKNOWN) if isinstance(key, str) else UNKNOWN
        if isinstance(x, list | tuple | dict) and not isinstance(key, Sized):
            return _attempt(operator.getitem, [x, key], {}) if known(key) else UNKNOWN
        if isinstance(x, list | tuple | dict) and not known(x):
            now = value_now(key)
            return UNKNOWN if now is UNKNOWN else _attempt(operator.getitem, [x, now], {})
        return UNKNOWN if isinstance(x, Given) else lift(operator.getitem, x, key)

    def _attribute(self, x: Any, name: str) -> Any:
        if isinstance(x, Given):
            return self._field(x, name)
        if isinstance(x, Made | _Super):
            owner = x if isinstance(x, Made) else x.owner
            if isinstance(x, Made):
                found = self.attributes(x)
                if name in found:
                    return found[name]
                if name == "__class__":
                    return x.kind
            f, kind = _method(owner.kind, name, None if isinstance(x, Made) else x.after)
            if isinstance(f, property):
                return self.call(_Method(owner, f.fget, kind), [], {})
            if isinstance(f, staticmethod):
                return f.__func__
            if isinstance(f, classmethod):
                return functools.partial(f.__func__, owner.kind)
            if callable(f) and not isinstance(f, type):
                return _Method(owner, f, kind)
            return UNKNOWN if f is None else f
        if isinstance(x, Sized):
            now = value_now(x)
            if isinstance(now, Tensor) and callable(getattr(now, name, None)):
                if name.endswith("_") and not name.endswith("__"):
                    return functools.partial(_itself_of, x)
                return functools.partial(_tensor_method, x, name)
            return lift(getattr, x, name)
        if x is UNKNOWN or isinstance(x, _Local | _Method):
            return UNKNOWN
        try:
            return getattr(x, name)
        except AttributeError:
            return UNKNOWN

    def _field(self, x: Given, name: str) -> Any:
        """Return a field, property or method of a config."""
        f, kind = _method(type(x.x), name)
        if isinstance(f, property):
            return self.call(_Method(x, f.fget, kind), [], {})
        if isinstance(f, functools.cached_property):
            return self.call(_Method(x, f.func, kind), [], {})
        fields = vars(x.x)
        if name in fields:
            return self.given(fields[name], f"{x.path}.{name}" if x.path else name)
        if isinstance(f, FunctionType):
            return _Method(x, f, kind)
        return UNKNOWN if f is None else f


class AllUnknown(dict[str, Any]):
    """The attributes of an object that may have been changed."""

    def get(self, key: str, default: Any = None) -> Any:
        """Return UNKNOWN."""
        return UNKNOWN

    def __contains__(self, key: object) -> bool:
        return False

    def values(self) -> Any:
        """Raise Lost."""
        raise Lost("it may have been changed")


def _itself_of(x: Sized, *args: Any, **options: Any) -> Sized:
    return x


def _tensor_method(x: Sized, name: str, *args: Any, **options: Any) -> Any:
    return getattr(x, name)(*args, **options)


def _attempt(f: Any, args: Sequence[Any], options: Mapping[str, Any]) -> Any:
    try:
        return f(*args, **options)
    except Exception as error:
        raise Lost(str(error)) from error


def _key(x: Any) -> Any:
    if isinstance(x, Sized) or not _hashable(x) or x is UNKNOWN:
        raise Lost("a key is not known")
    return x


def _hashable(x: Any) -> bool:
    try:
        hash(x)
    except TypeError:
        return False
    return True


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


# What builtin functions and methods of modules do to values that may depend on settings


def _range(reader: Reader, args: list[Any], options: Any) -> Any:
    return range(*map(reader.counted, args))


def _isinstance(reader: Reader, args: list[Any], options: Any) -> Any:
    x, kinds = args
    if isinstance(x, Made):
        return _attempt(issubclass, [x.kind, kinds], {})
    if isinstance(x, Given):
        return _attempt(isinstance, [x.x, kinds], {})
    now = value_now(x)
    return UNKNOWN if now is UNKNOWN else _attempt(isinstance, [now, kinds], {})


def _type(reader: Reader, args: list[Any], options: Any) -> Any:
    if len(args) == 1 and isinstance(args[0], Made):
        return args[0].kind
    if len(args) == 1 and isinstance(args[0], Given):
        return type(args[0].x)
    now = value_now(args[0]) if len(args) == 1 else UNKNOWN
    return UNKNOWN if now is UNKNOWN else type(now)


def _len(reader: Reader, args: list[Any], options: Any) -> Any:
    items = reader._items(args[0], quietly=True)
    return lift(len, args[0]) if items is UNKNOWN else len(items)


def _getattr(reader: Reader, args: list[Any], options: Any) -> Any:
    if not isinstance(args[1], str):
        return UNKNOWN
    found = reader._attribute(args[0], args[1])
    if found is UNKNOWN and len(args) > 2 and not isinstance(args[0], Made):
        present = isinstance(args[0], Given) and hasattr(args[0].x, args[1])
        return UNKNOWN if present or args[0] is UNKNOWN else args[2]
    return found


def _hasattr(reader: Reader, args: list[Any], options: Any) -> Any:
    if isinstance(args[0], Given) and isinstance(args[1], str):
        return hasattr(args[0].x, args[1])
    return UNKNOWN


def _setattr(reader: Reader, args: list[Any], options: Any) -> None:
    owner, name, value = args
    if isinstance(owner, Made):
        if not isinstance(name, str):
            raise Lost("it is not known which attribute")
        reader.attributes(owner)[name] = value


def _map(reader: Reader, args: list[Any], options: Any) -> Any:
    columns = [reader._items(a) for a in args[1:]]
    return [reader.call(args[0], row, {}) for row in zip(*columns, strict=False)]


_SPECIAL: dict[Any, Callable[[Reader, list[Any], Any], Any]] = {
    range: _range,
    isinstance: _isinstance,
    type: _type,
    len: _len,
    getattr: _getattr,
    hasattr: _hasattr,
    setattr: _setattr,
    map: _map,
    print: lambda reader, args, options: None,
    namedtuple: lambda reader, args, options: UNKNOWN,
}


def _register(reader: Reader, owner: Made, args: list[Any], options: dict[str, Any]) -> None:
    given = [*args, *options.values()]
    _setattr(reader, [owner, *given[:2]], {})


def _append(reader: Reader, owner: Made, args: list[Any], options: dict[str, Any]) -> Made:
    found = reader.attributes(owner)
    for each in args:
        found[str(len(found))] = each
    return owner


def _extend(reader: Reader, owner: Made, args: list[Any], options: dict[str, Any]) -> Made:
    return _append(reader, owner, reader._items(args[0]), {})


def _itself(reader: Reader, owner: Made, args: list[Any], options: dict[str, Any]) -> Made:
    return owner


_MODULE_METHODS: dict[str, Callable[[Reader, Made, list[Any], dict[str, Any]], Any]] = {
    "register_parameter": _register,
    "register_buffer": _register,
    "register_module": _register,
    "add_module": _register,
    "append": _append,
    "extend": _extend,
    **dict.fromkeys(
        ("apply", "eval", "train", "to", "requires_grad_", "float", "double", "half"), _itself
    ),
}
_CHANGING = {
    "append", "extend", "insert", "update", "pop", "add_module", "register_buffer",
    "register_parameter", "register_module", "setdefault", "__setattr__",
}  # fmt: skip
_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.MatMult: operator.matmul,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Invert: operator.invert,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
