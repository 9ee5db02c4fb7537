"""Rules: which ops become which, and how they are found.

A rule is a line of the table in `table`: two expressions in classes of ops, what is found and what
it becomes, as in

    Rule("dropout + add", "Add(r, Dropout(x, p, key))", "DropoutAdd(x, r, p=p, key=key)")

A name stands for a value, a number or a setting, whatever it is; a name that comes twice is the
same both times. `a | b` is found as a or as b, and `(name := a)` names the value of a. `op(...)[1]`
is the second result of an op. An op is found by its class and arguments, those of sums and products
in any order, and in its usual form: `_usual` says which spellings are one. Copies are overlooked.

What lies between must have no other use, and is computed no more. A condition, a function of the
`Match`, looks at shapes and numbers, and can name what the rule becomes.
"""

from __future__ import annotations

import ast
import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..core import OPS, Tensor
from ..recording import Ref, Value
from .graph import Call, Graph

_COMMUTE = {"Add", "Mul", "Maximum", "Minimum"}
_TRUE_OR_FALSE = {"All", "LogicalNot", "LogicalOr"}  # results of ops that rules make


@dataclass
class Match:
    """The meaning of the names of a rule; `result` is the value of all that is found."""

    graph: Graph
    names: dict[str, Any] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)  # those found, the last one first
    read: list[Tensor] = field(default_factory=list)  # leaves whose numbers the condition looked at

    def __getitem__(self, name: str) -> Any:
        return self.names.get(name)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a value; () for what is not one."""
        x = self.names.get(name)
        return tuple(self.graph.values[x.number].shape) if isinstance(x, Ref) else ()

    def dtype(self, name: str) -> Any:
        """Return the type of a value."""
        x = self.names.get(name)
        return self.graph.values[x.number].dtype if isinstance(x, Ref) else None

    def constant(self, name: str) -> np.ndarray | None:
        """Return the array of a value that is the same in each call; None for others."""
        x = self.names.get(name)
        return self.graph.constant(x.number, self.read) if isinstance(x, Ref) else None

    def number(self, name: str, default: float | None = None) -> float | None:
        """Return a number, also if it is the only one in a constant; None for what is none."""
        x = self.names.get(name, default)
        if isinstance(x, Ref) and np.prod(self.shape(name)) == 1:
            array = self.constant(name)
            x = None if array is None else float(array.reshape(()))
        return float(x) if isinstance(x, int | float | np.ndarray) else None

    def set(self, **names: Any) -> bool:
        """Give names to what the rule becomes; return True."""
        self.names.update(names)
        return True


@dataclass(frozen=True)
class Rule:
    """A line of the table: what is found, what it becomes, and on which condition."""

    name: str
    found: str
    becomes: str
    where: Callable[[Match], object] = lambda match: True


@dataclass
class Fired:
    """An application of a rule, and the line of the user's code whose op it replaced."""

    rule: str
    line: str


@functools.cache
def _parsed(text: str) -> Any:
    return ast.parse(text, mode="eval").body


def rewrite(graph: Graph, rules: Sequence[Rule]) -> list[Fired]:
    """Apply rules, each wherever it can, in their order; return what was applied."""
    fired: list[Fired] = []
    usual = functools.cache(functools.partial(_usual, graph))
    found = _Finder(graph, usual)
    for rule in rules:
        for call in graph.calls[::-1]:  # so that the longest is found
            match = found.match(rule, call)
            if match is not None:
                fired.append(Fired(rule.name, call.line))
                _replace(rule, graph, match)
                found = _Finder(graph, usual)
    return fired


def _usual(graph: Graph, call: Call) -> tuple[str, list[Any], dict[str, Any]]:
    """Return the name and arguments of a call in the form in which rules write it.

    Dimensions count from the last, as in Transpose(x, -2, -1); every reshape is a View, and what
    divides by a number a Mul.
    """
    name = "Detach" if call.op is None else call.op.__name__
    args, kwargs = list(call.args), dict(call.kwargs)
    ndim = len(graph.values[args[0].number].shape) if args and isinstance(args[0], Ref) else 0
    if name == "Reshape":
        name = "View"
    elif name == "Permute":
        moved = [i for i, dim in enumerate(kwargs["dims"]) if i != dim]
        if len(moved) == 2:
            return "Transpose", [args[0], moved[0] - ndim, moved[1] - ndim], {}
    elif name == "Transpose":
        args[1:] = sorted(dim - ndim if dim >= 0 else dim for dim in args[1:])
    elif name in {"Mean", "Amax"}:
        args[1] = tuple([axis - ndim for axis in args[1]])
    elif name == "Unbind":
        args[1] -= ndim if args[1] >= 0 else 0
    elif name in {"Softmax", "SplitWithSizes", "Cat"}:
        kwargs["dim"] -= ndim if kwargs["dim"] >= 0 else 0
    elif name == "GetItem":
        while kwargs["key"] and kwargs["key"][-1] in (..., slice(None)):  # those change nothing
            kwargs["key"] = kwargs["key"][:-1]
    elif name == "Div" and type(args[1]) in (int, float) and args[1] and not kwargs:
        name, args[1] = "Mul", 1 / args[1]
    elif name == "Square" or (name == "Mul" and args[0] == args[1]):
        name, args = "Pow", [args[0], 2.0]
    elif name == "Pow" and args[1] in (0.5, -0.5):
        name, args = "Sqrt" if args[1] > 0 else "Rsqrt", args[:1]
    return name, args, kwargs


class _Finder:
    """Finds the expressions of rules in a graph, from the last op back."""

    def __init__(self, graph: Graph, usual: Callable[[Call], Any]) -> None:
        self.graph, self.users, self._usual = graph, graph.users(), usual
        self.made = {number: call for call in graph.calls for number in call.outs}

    def match(self, rule: Rule, call: Call) -> Match | None:
        """Return the first match of a rule whose last op is `call`, None if there is none."""
        if self.made.get(call.outs[0]) is not call:  # another rule took it away
            return None
        pattern = _parsed(rule.found)
        if self._usual(call)[0] not in _roots(pattern):
            return None
        start = Match(self.graph, {"result": Ref(call.outs[0])})
        for match in self._fits(pattern, start["result"], start, call.grad):
            if self._alone(match) and rule.where(match):
                return match
        return None

    def _alone(self, match: Match) -> bool:
        """Return True if only ops that were found use what lies between."""
        used = Counter(n for call in match.calls for n in call.reads)
        return all(self.users[n] == used[n] for call in match.calls[1:] for n in call.outs)

    def _call(self, pattern: ast.Call, call: Call, match: Match, grad: bool) -> Iterator[Match]:
        """Yield the matches in which a call is found as `pattern`."""
        name, args, kwargs = self._usual(call)
        if name != pattern.func.id or call.grad != grad:  # type: ignore[attr-defined]
            return
        known = {k.arg: k.value for k in pattern.keywords if k.arg is not None}
        if not known.keys() >= kwargs.keys() or len(pattern.args) > len(args):
            return
        if any(x is not None for x in args[len(pattern.args) :]):
            return
        calls = match.calls if call in match.calls else [*match.calls, call]
        for order in [args, args[::-1]] if name in _COMMUTE else [args]:
            parts = [*zip(pattern.args, order, strict=False)]
            parts += [(part, kwargs.get(key)) for key, part in known.items()]
            yield from self._all(parts, Match(self.graph, match.names, calls), grad)

    def _all(self, parts: Sequence[Any], match: Match, grad: bool) -> Iterator[Match]:
        if not parts:
            yield match
            return
        part, x = parts[0]
        for found in self._fits(part, x, match, grad):
            yield from self._all(parts[1:], found, grad)

    def _fits(self, part: ast.expr, x: Any, match: Match, grad: bool) -> Iterator[Match]:
        """Yield the matches in which an argument is found as part of a pattern."""
        if isinstance(part, ast.BinOp):
            yield from self._fits(part.left, x, match, grad)
            yield from self._fits(part.right, x, match, grad)
        elif isinstance(part, ast.Name):
            if part.id == "_" or (part.id in match.names and _same(match.names[part.id], x)):
                yield match
            elif part.id not in match.names:
                yield Match(self.graph, {**match.names, part.id: x}, match.calls)
        elif isinstance(part, ast.NamedExpr):
            for found in self._fits(part.value, x, match, grad):
                yield from self._fits(part.target, x, found, grad)
        elif isinstance(part, ast.Call | ast.Subscript):
            output = 0
            if isinstance(part, ast.Subscript):
                output, part = ast.literal_eval(part.slice), part.value
            call = self.made.get(x.number) if isinstance(x, Ref) else None
            if call is None or call.outs[output : output + 1] != (x.number,):
                return
            assert isinstance(part, ast.Call)
            if call.op is not None and call.op.__name__ == "Clone":
                copied = Match(self.graph, match.names, [*match.calls, call])
                yield from self._fits(part, call.args[0], copied, grad)
            yield from self._call(part, call, match, grad)
        elif _same(_literal(part), x):
            yield match


_literal, _written = functools.cache(ast.literal_eval), functools.cache(ast.dump)


@functools.cache
def _roots(part: ast.expr) -> set[str]:
    """Return the names of the ops that an expression may be the result of."""
    if isinstance(part, ast.BinOp):
        return _roots(part.left) | _roots(part.right)
    if isinstance(part, ast.NamedExpr | ast.Subscript):
        return _roots(part.value)
    return {part.func.id, "Clone"} if isinstance(part, ast.Call) else set()  # type: ignore[attr-defined]


def _same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and bool(a == b)


def _replace(rule: Rule, graph: Graph, match: Match) -> None:
    """Put what the rule becomes in the place of what it found."""
    root = match.calls[0]
    running = zip(*[call.modules for call in match.calls], strict=False)
    same = itertools.takewhile(lambda modules: len(set(map(id, modules))) == 1, running)
    modules = tuple([together[0] for together in same])
    new: list[Call] = []
    made: dict[str, tuple[int, ...]] = {}  # by what is written twice

    def build(part: ast.expr, outs: tuple[int, ...] = ()) -> Any:
        if isinstance(part, ast.Name):
            return match.names[part.id]
        output = 0
        if isinstance(part, ast.Subscript):
            output, part = ast.literal_eval(part.slice), part.value
        if not isinstance(part, ast.Call):
            return ast.literal_eval(part)
        if _written(part) not in made:
            assert isinstance(part.func, ast.Name)
            op = OPS[part.func.id]
            args = tuple([build(a) for a in part.args])
            kwargs = {k.arg: build(k.value) for k in part.keywords if k.arg is not None}
            outs = outs or _new_values(graph, op, args, kwargs)
            new.append(Call(op, args, kwargs, outs, root.grad, root.line, modules, rule.name))
            made[_written(part)] = outs
        return Ref(made[_written(part)][output])

    build(_parsed(rule.becomes), root.outs)
    at = graph.calls.index(root)
    graph.calls[at : at + 1] = new
    graph.without_unused()
    graph.read += match.read


_SHAPES: dict[str, Callable[..., Any]] = {  # of the results of ops that rules make, if not alike
    "View": lambda x, shape: shape,
    "Transpose": lambda x, a, b: np.swapaxes(np.broadcast_to(0, x.shape), a, b).shape,
    "All": lambda m, dims, keep: (*m.shape[:-1], 1),
    "InProjectionPacked": lambda x, y, w, b: [
        (*x.shape[:-1], w.shape[0] // 3),
        (*y.shape[:-1], w.shape[0] * 2 // 3),
    ],
}


def _new_values(
    graph: Graph, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[int, ...]:
    """Return the numbers of new values, the results of an op."""
    given = [graph.values[x.number] if isinstance(x, Ref) else x for x in args]
    like = [x for x in given if isinstance(x, Value)]
    if op.__name__ in _SHAPES:
        shapes = _SHAPES[op.__name__](*given, **kwargs)
    else:
        shapes = np.broadcast_shapes(*[x.shape for x in like])
    shapes = shapes if isinstance(shapes, list) else [shapes]
    dtype = np.dtype(bool) if op.__name__ in _TRUE_OR_FALSE else like[0].dtype
    graph.values += [Value(None, tuple(shape), dtype) for shape in shapes]
    return tuple(range(len(graph.values) - len(shapes), len(graph.values)))
