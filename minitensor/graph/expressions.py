"""Expressions of Python, read over values that may depend on settings.

Nothing runs but arithmetic, and functions of the library that make tensors for their shapes.
"""

from __future__ import annotations

import ast
import dataclasses
import itertools
import operator
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..core import Tensor
from ..nn import ModuleList, Sequential
from .sized import (
    UNKNOWN,
    Given,
    Lost,
    Made,
    Readable,
    Sized,
    known,
    lift,
    settings_of,
    value_now,
)

LONGEST = 10_000  # turns of a loop


@dataclasses.dataclass(frozen=True, eq=False)
class Local(Readable):
    """A function or lambda inside another."""

    code: ast.FunctionDef | ast.Lambda
    frame: Frame


@dataclasses.dataclass(frozen=True, eq=False)
class Method(Readable):
    """A function, found on an object or by `super()`."""

    owner: Any
    function: Any
    kind: type  # the class that defines it


@dataclasses.dataclass(frozen=True, eq=False)
class Super(Readable):
    """The `super()` of an object, which looks in the bases after a class."""

    owner: Made
    after: type


@dataclasses.dataclass(eq=False)
class Frame:
    """The variables of a function that is read."""

    names: dict[str, Any]
    outer: Callable[[str], Any]  # of the closure, the globals and the builtins
    kind: type | None = None  # the class that defines it
    owner: Any = None  # its first argument
    result: Any = None


class Expressions:
    """Reads expressions, and keeps what must hold for other settings.

    A subclass reads calls and attributes.
    """

    def __init__(self) -> None:
        self.guards: list[tuple[Sized, Any]] = []  # what decided a branch or a loop, and how
        self.divided: set[tuple[str, str]] = set()  # settings, and those that divide them

    def call(self, f: Any, args: Sequence[Any], options: Mapping[str, Any]) -> Any:
        """Return what a call returns, as far as it can be followed."""
        raise NotImplementedError

    def attribute(self, x: Any, name: str) -> Any:
        """Return an attribute of a value."""
        raise NotImplementedError

    def attributes(self, made: Made) -> dict[str, Any]:
        """Return the attributes that a constructor gives its object, as far as they are known."""
        raise NotImplementedError

    def truth(self, x: Any) -> Any:
        """Return whether `x` is true now, and keep that it must be so; UNKNOWN if not known."""
        if isinstance(x, Made | Given | Local | Method):
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

    def items(self, x: Any, quietly: bool = False) -> Any:
        """Return a list of what is in `x`; Lost, or UNKNOWN if `quietly`, if it is not known."""
        if isinstance(x, Made) and issubclass(x.kind, ModuleList | Sequential):
            return list(self.attributes(x).values())
        if isinstance(x, Given) and type(x.x) not in (str,):
            return UNKNOWN if quietly else self._lose()
        if isinstance(x, Sized) or x is UNKNOWN or isinstance(x, Made | Local | Method):
            return UNKNOWN if quietly else self._lose()
        if isinstance(x, range) and len(x) > LONGEST:
            return UNKNOWN if quietly else self._lose()
        if isinstance(x, list | tuple | dict | set | range | str | Mapping):
            return list(x)
        return UNKNOWN if quietly else self._lose()

    def _lose(self) -> Any:
        raise Lost("it is not known what is in it")

    def operate(self, op: ast.operator, a: Any, b: Any) -> Any:
        """Return the result of a binary operator."""
        if type(op) not in _BINARY:
            return UNKNOWN
        if isinstance(a, list | tuple) and isinstance(op, ast.Add) and isinstance(b, list | tuple):
            return attempt(operator.add, [a, b], {})
        if isinstance(op, ast.Mult) and isinstance(a, list | tuple) and isinstance(b, Sized | int):
            return attempt(operator.mul, [a, self.counted(b)], {})
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

    def value(self, node: ast.expr, frame: Frame, quietly: bool = False) -> Any:
        """Return the value of an expression."""
        try:
            return self._evaluate(node, frame)
        except Lost:
            if quietly:
                return UNKNOWN
            raise

    def _evaluate(self, node: ast.expr, frame: Frame) -> Any:
        match node:
            case ast.Constant(value):
                return value
            case ast.Name(name):
                return frame.names[name] if name in frame.names else frame.outer(name)
            case ast.Attribute(value, name):
                return self.attribute(self._evaluate(value, frame), name)
            case ast.BinOp(left, op, right):
                a, b = self._evaluate(left, frame), self._evaluate(right, frame)
                return self.operate(op, a, b)
            case ast.UnaryOp(op, operand):
                x = self._evaluate(operand, frame)
                if isinstance(op, ast.Not):
                    truth = self.truth(x)
                    return truth if truth is UNKNOWN else not truth
                return lift(_UNARY[type(op)], x)
            case ast.BoolOp(op, values):
                found: Any = UNKNOWN
                for each in values:
                    found = self._evaluate(each, frame)
                    truth = self.truth(found)
                    if truth is UNKNOWN:
                        return UNKNOWN
                    if truth is isinstance(op, ast.Or):
                        break
                return found
            case ast.IfExp(test, body, orelse):
                chosen = self.truth(self._evaluate(test, frame))
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
                return self.item(self._evaluate(value, frame), self._evaluate(index, frame))
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
                return Local(node, frame)
            case ast.JoinedStr(values):
                texts = [self._evaluate(each, frame) for each in values]
                return lift(lambda *parts: "".join(map(str, parts)), *texts)
            case ast.FormattedValue(value, conversion, form):
                shown = self._evaluate(value, frame)
                return shown if conversion == -1 and form is None else UNKNOWN
            case ast.NamedExpr(target, value):
                found = self._evaluate(value, frame)
                self.assign(target, found, frame)
                return found
        return UNKNOWN

    def _turns(self, loops: list[ast.comprehension], frame: Frame) -> Iterator[Frame]:
        """Yield the variables of each turn of a comprehension."""
        if not loops:
            yield frame
            return

        def look(name: str) -> Any:
            return frame.names[name] if name in frame.names else frame.outer(name)

        first, *rest = loops
        for item in self.items(self._evaluate(first.iter, frame)):
            inner = Frame({}, look, frame.kind, frame.owner)
            self.assign(first.target, item, inner)
            truths = [self.truth(self._evaluate(test, inner)) for test in first.ifs]
            if UNKNOWN in truths:
                raise Lost("it is not known how many")
            if all(truths):
                yield from self._turns(rest, inner)

    def _spread(self, parts: list[ast.expr], frame: Frame) -> Iterator[Any]:
        for part in parts:
            if isinstance(part, ast.Starred):
                yield from self.items(self._evaluate(part.value, frame))
            else:
                yield self._evaluate(part, frame)

    def _compare(
        self, left: ast.expr, ops: list[ast.cmpop], rights: list[ast.expr], frame: Frame
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
                truth = self.truth(found)
                if truth is UNKNOWN or not truth:
                    return truth
            a = b
        return found

    def _evaluate_call(
        self, function: ast.expr, args: list[ast.expr], keywords: list[ast.keyword], frame: Frame
    ) -> Any:
        if isinstance(function, ast.Name) and function.id == "super":
            kind = frame.kind if not args else self._evaluate(args[0], frame)
            owner = frame.owner if len(args) < 2 else self._evaluate(args[1], frame)
            if isinstance(owner, Made) and isinstance(kind, type):
                return Super(owner, kind)
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

    def assign(self, target: ast.expr, found: Any, frame: Frame) -> None:
        """Assign what was found to a variable, an attribute, an element or several of them."""
        match target:
            case ast.Name(name):
                frame.names[name] = found
            case ast.Attribute(value, name):
                owner = self.value(value, frame)
                if isinstance(owner, Made):
                    self.attributes(owner)[name] = found
            case ast.Tuple(parts) | ast.List(parts):
                items = self.items(found, quietly=True)
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
                    self.assign(inner, item, frame)
            case ast.Subscript(value, index):
                owner, key = self.value(value, frame), self.value(index, frame)
                if type(owner) in (dict, list, OrderedDict) and isinstance(key, str | int):
                    attempt(operator.setitem, [owner, key, found], {})

    def item(self, x: Any, key: Any) -> Any:
        """Return `x[key]`."""
        if isinstance(x, Made):
            found = self.attributes(x)
            if issubclass(x.kind, ModuleList | Sequential) and isinstance(key, int):
                items = list(found.values())
                return items[key] if -len(items) <= key < len(items) else UNKNOWN
            return found.get(key, UNKNOWN) if isinstance(key, str) else UNKNOWN
        if isinstance(x, list | tuple | dict) and not isinstance(key, Sized):
            return attempt(operator.getitem, [x, key], {}) if known(key) else UNKNOWN
        if isinstance(x, list | tuple | dict) and not known(x):
            now = value_now(key)
            return UNKNOWN if now is UNKNOWN else attempt(operator.getitem, [x, now], {})
        return UNKNOWN if isinstance(x, Given) else lift(operator.getitem, x, key)


def attempt(f: Any, args: Sequence[Any], options: Mapping[str, Any]) -> Any:
    """Return `f(*args, **options)`; Lost if that raises an error."""
    try:
        return f(*args, **options)
    except Exception as error:
        raise Lost(str(error)) from error


def hashable(x: Any) -> bool:
    """Return True for what may be a key."""
    try:
        hash(x)
    except TypeError:
        return False
    return True


def _key(x: Any) -> Any:
    if isinstance(x, Sized) or not hashable(x) or x is UNKNOWN:
        raise Lost("a key is not known")
    return x


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
