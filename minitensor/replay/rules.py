"""Rules: which ops become which, and how they are found.

A rule is a line of the table in `table`: two expressions in classes of ops, what is found and what
it becomes, as in

    Rule("dropout + add", "Add(r, Dropout(x, p, key))", "DropoutAdd(x, r, p=p, key=key)")

A name stands for a value, a number or a setting, whatever it is; a name that comes twice is the
same both times. An op is found by its class and arguments, those of sums and products in any order.
What lies between must have no other use, and is computed no more. A condition, a function of the
`Match`, looks at shapes and numbers.
"""

from __future__ import annotations

import ast
import functools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..core import OPS
from ..onnx.record import Ref, Value
from .graph import Call, Graph

_COMMUTE = {"Add", "Mul", "Maximum", "Minimum"}


@dataclass
class Match:
    """What the names of a rule stand for."""

    graph: Graph
    names: dict[str, Any] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)  # those found, the last one first

    def __getitem__(self, name: str) -> Any:
        return self.names[name]

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Return the shape of a value; None for what is not one."""
        x = self.names[name]
        return tuple(self.graph.values[x.number].shape) if isinstance(x, Ref) else None

    def dtype(self, name: str) -> Any:
        """Return the type of a value."""
        return self.graph.values[self.names[name].number].dtype

    def constant(self, name: str) -> np.ndarray | None:
        """Return the array of a value that is the same in each call; None for others."""
        x = self.names[name]
        return self.graph.constant(x.number) if isinstance(x, Ref) else None

    def set(self, **names: Any) -> bool:
        """Give names to what the rule becomes; return True."""
        self.names.update(names)
        return True


@dataclass(frozen=True)
class Rule:
    """What is found, what it becomes, and on which condition.

    `sample` is a function of `rand`, a `minitensor.ops.samples.Rand`: a function and its arguments
    which the rule applies to, for its test.
    """

    name: str
    found: str
    becomes: str
    where: Callable[[Match], bool] = lambda match: True
    sample: Callable[[Any], tuple[Any, ...]] | None = None

    @functools.cached_property
    def pattern(self) -> ast.Call:
        """The expression that is found."""
        return _parsed(self.found)

    @functools.cached_property
    def result(self) -> ast.Call:
        """The expression that it becomes."""
        return _parsed(self.becomes)


@dataclass
class Fired:
    """An application of a rule: where, and to what."""

    rule: str
    line: str
    ops: list[str]


def _parsed(text: str) -> Any:
    return ast.parse(text, mode="eval").body


def rewrite(graph: Graph, rules: Sequence[Rule]) -> list[Fired]:
    """Apply rules, each wherever it can, in their order; return what was applied."""
    fired: list[Fired] = []
    for rule in rules:
        again = True
        while again:
            again = False
            made, users = _makers(graph), graph.users()
            for call in list(graph.calls):
                match = _find(rule, graph, call, made, users)
                if match is None:
                    continue
                ops = [c.op.__name__ for c in reversed(match.calls)]
                fired.append(Fired(rule.name, call.line, ops))
                _replace(rule, graph, match)
                again = True
                made, users = _makers(graph), graph.users()
            again = False
    return fired


def _makers(graph: Graph) -> dict[int, Call]:
    return {number: call for call in graph.calls for number in call.outs}


def _find(
    rule: Rule, graph: Graph, call: Call, made: dict[int, Call], users: Counter[int]
) -> Match | None:
    """Return a match of a rule whose last op is `call`."""
    if call.op is None or call.op.__name__ != rule.pattern.func.id or call not in graph.calls:  # type: ignore[attr-defined]
        return None
    match = _Finder(graph, made, users, call).calls(rule.pattern, call, Match(graph))
    return match if match is not None and rule.where(match) else None


class _Finder:
    """Finds the expression of a rule, from the last op back."""

    def __init__(
        self, graph: Graph, made: dict[int, Call], users: Counter[int], root: Call
    ) -> None:
        self.graph, self.made, self.users, self.root = graph, made, users, root

    def calls(self, pattern: ast.Call, call: Call, match: Match) -> Match | None:
        """Return the match with `call` found as `pattern`; None if it is not that."""
        if call.op is None or call.op.__name__ != pattern.func.id or call.grad != self.root.grad:  # type: ignore[attr-defined]
            return None
        if call in match.calls:
            return None
        given = list(call.args)
        orders = [given]
        if call.op.__name__ in _COMMUTE and len(given) == 2:
            orders.append(given[::-1])
        for order in orders:
            here: Match | None = Match(match.graph, dict(match.names), [*match.calls, call])
            if len(pattern.args) > len(order):
                continue
            for part, x in zip(pattern.args, order, strict=False):
                here = here and self.fits(part, x, here)
            for x in order[len(pattern.args) :]:
                here = here if x is None else None
            known = {k.arg: k.value for k in pattern.keywords if k.arg is not None}
            if not known.keys() >= call.kwargs.keys():
                return None
            for name, part in known.items():
                here = here and self.fits(part, call.kwargs.get(name), here)
            if here is not None:
                return here
        return None

    def fits(self, part: ast.expr, x: Any, match: Match) -> Match | None:
        """Return the match with an argument found as part of a pattern."""
        if isinstance(part, ast.Name):
            if part.id == "_":
                return match
            if part.id in match.names:
                return match if _same(match.names[part.id], x) else None
            match.names[part.id] = x
            return match
        output = 0
        if isinstance(part, ast.Subscript):
            assert isinstance(part.slice, ast.Constant)
            assert isinstance(part.slice.value, int)
            output, part = part.slice.value, part.value
        if isinstance(part, ast.Call):
            if not isinstance(x, Ref) or x.number not in self.made:
                return None
            call = self.made[x.number]
            if call.outs[output] != x.number or call is self.root:
                return None
            if len(call.outs) == 1 and self.users[x.number] != 1:
                return None
            return self.calls(part, call, match)
        value = ast.literal_eval(part)
        return match if type(x) is type(value) and x == value else None


def _same(a: Any, b: Any) -> bool:
    return a == b


def _replace(rule: Rule, graph: Graph, match: Match) -> None:
    """Put what the rule becomes in the place of what it found."""
    root = match.calls[0]
    at = next(n for n, call in enumerate(graph.calls) if call is root)
    new: list[Call] = []

    def build(part: ast.expr, outs: tuple[int, ...] | None) -> Any:
        if isinstance(part, ast.Name):
            return match.names[part.id]
        if isinstance(part, ast.Call):
            assert isinstance(part.func, ast.Name)
            args = tuple([build(a, None) for a in part.args])
            kwargs = {k.arg: build(k.value, None) for k in part.keywords if k.arg is not None}
            if outs is None:
                graph.values.append(Value(None, (), None))
                outs = (len(graph.values) - 1,)
            call = Call(OPS[part.func.id], args, kwargs, outs, root.grad, root.line, rule.name)
            new.append(call)
            return Ref(outs[0])
        return ast.literal_eval(part)

    build(rule.result, root.outs)
    graph.calls[at : at + 1] = new
    gone = {id(call) for call in match.calls[1:]}
    still = graph.users()
    graph.calls = [
        call
        for call in graph.calls
        if id(call) not in gone or any(still[number] for number in call.outs)
    ]
