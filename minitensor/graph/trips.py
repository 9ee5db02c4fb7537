"""Trips of numbers through Python and NumPy: which tensors may depend on what left the graph.

`x.item()`, `x.tolist()` and `x.numpy()` leave the graph, `mt.tensor(numbers)` comes back. An array
over the same memory, and a number or list that is the very object that left, certainly came from
there. What else may have is found by following the variables, statement by statement, in the
user's functions: what a statement assigns or changes may depend on all that it reads.
"""

from __future__ import annotations

import ast
import functools
import linecache
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import FrameType, ModuleType
from typing import Any

import numpy as np

from ..array import Array
from ..core import Tensor
from ..errors import is_library
from ..nn import Module
from .describe import memory_of
from .frames import is_own, users
from .model import Node
from .nodes import Nodes

_LEAVING = {
    getattr(Array, method).__code__: op
    for op, methods in {
        "item": ("item", "__float__", "__int__", "__index__"),
        "tolist": ("tolist",),
        "numpy": ("numpy", "__array__"),
    }.items()
    for method in methods
}
# Functions whose result has the numbers of their arguments, not only their shape.
RETURNING = {"tensor", "as_tensor", "asarray", "from_numpy", "scalar_tensor", "full", "full_like"}
RETURNING |= {"new_tensor", "new_full", "arange", "linspace", "Tensor"}
RETURNING |= {f"{kind}Tensor" for kind in ("Bool", "Byte", "Char", "Short", "Int", "Long")}
RETURNING |= {f"{kind}Tensor" for kind in ("Half", "Float", "Double")}
OPERANDS = {"a", "b", "w", "min", "max", "value", "key"}  # of ops: numbers that may be data
Reached = dict[int, bool]  # by the number of a departure: True if that is certain


@dataclass
class _Departure:
    node: Node
    tensor: Tensor
    known: str | None
    result: Any
    value: str = ""  # what left, once something depends on it


@dataclass
class _Statement:
    """The names that a statement reads, assigns, and calls methods of or assigns parts of."""

    reads: set[str] = field(default_factory=set)
    assigns: set[str] = field(default_factory=set)
    changes: set[str] = field(default_factory=set)
    numbers: set[float] = field(default_factory=set)  # those that are written in it


class _Running:
    """A function of the user's that runs."""

    def __init__(self) -> None:
        self.names: dict[str, set[int]] = {}  # the departures that a variable may depend on
        self.statement = _Statement()
        self.found: set[int] = set()  # those that the statement that runs may depend on


class Trips:
    """Follows numbers from where they leave the graph to where tensors are made of them."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._left: list[_Departure] = []
        self._running: dict[FrameType, _Running] = {}
        self._objects: defaultdict[int, set[int]] = defaultdict(set)  # of lists, dicts, arrays
        self._follows = False

    def returns(self, frame: FrameType, result: Any) -> None:
        """Note that a function returns: one by which numbers leave the graph?"""
        op, user = _LEAVING.get(frame.f_code), frame.f_back
        if op is None or user is None or is_library(user.f_code.co_filename):
            return
        t = frame.f_locals["self"]
        node = self._nodes.here(op, frame)
        node.gradient = False
        self._follow(user)
        number = len(self._left)
        self._left.append(_Departure(node, t, self._nodes.values.known(t), result))
        self._objects[id(result)].add(number)
        if (running := self._at(user)) is not None:
            running.found.add(number)

    def reach(self, data: Any, frame: FrameType | None) -> Reached:
        """Return the departures that `data`, with which `frame` makes a tensor, depends on."""
        if not self._left or frame is None or is_library(frame.f_code.co_filename):
            return {}
        running = self._at(frame)
        found = dict.fromkeys(sorted(running.found if running else range(len(self._left))), False)
        inside = list(_inside(data))
        for x in inside:
            found |= {n: found.get(n, False) for n in sorted(self._objects.get(id(x), ()))}
        arrays = {id(memory_of(x)) for x in inside if isinstance(x, np.ndarray)}
        for number, left in enumerate(self._left):
            shared = isinstance(left.result, np.ndarray) and id(memory_of(left.result)) in arrays
            if shared or any(x is left.result and _unique(x) for x in inside):
                found[number] = True
        certain = {self._left[n].known or n: n for n, sure in found.items() if sure}
        if isinstance(data, np.ndarray) and certain:  # the memory tells all
            return dict.fromkeys(certain.values(), True)
        return found

    def read(self, node: Node, name: str, reached: Reached) -> None:
        """Note departures as inputs of a node, called `name` if it certainly depends on them."""
        values = self._nodes.values
        for number, certain in reached.items():
            left = self._left[number]
            if not left.value:
                self._nodes.read(left.node, "x", left.known or values.of(left.tensor))
                self._nodes.enter(left.node)
                out = left.tensor.__class__.__new__(Tensor)  # stands for the numbers that left
                out._array, out._version_box = left.tensor._array.view(), [0]
                left.value = self._nodes.made(left.node, out)
                values.graph.values[left.value].views = None
            self._nodes.read(node, name if certain else "may depend on", left.value)

    def given(self, name: str, argument: Any, frame: FrameType) -> Reached:
        """Return the departures that an op's argument `name`, without tensors, depends on.

        They are those whose very object it has in it, and those that numbers in it may depend on.
        """
        numbers = [x for x in _inside(argument) if _is_number(x)] if self._left else []
        if found := self._same(numbers):
            return dict.fromkeys(found, True)
        may = {n for x in numbers if _unique(x) for n in self._objects.get(id(x), ())}
        for x in numbers if name in OPERANDS and not may else ():
            may |= self._handed_on(x, frame)
        return dict.fromkeys(sorted(may), False)

    def _same(self, inside: list[Any]) -> list[int]:
        """Return the departures that are themselves among some objects."""
        return [
            number
            for number, left in enumerate(self._left)
            if any(x is left.result and _unique(x) for x in inside)
        ]

    def _handed_on(self, x: float, frame: FrameType) -> set[int]:
        """Return the departures that a number may depend on, if the user's statement gave it.

        The statement calls a function of the library then, which has the number as an argument,
        and may have converted it.
        """
        called, user = frame, frame.f_back
        while user is not None and is_library(user.f_code.co_filename):
            called, user = user, user.f_back
        running = self._running.get(user) if user is not None else None
        if user is None or running is None:
            return set()
        given = [
            g
            for value in called.f_locals.values()
            for g in _inside(value)
            if _is_number(g) and (g is x or np.float32(g) == np.float32(x))
        ]
        for g in given:
            known = self._objects.get(id(g), set()).union(self._same([g])) if _unique(g) else ()
            if known:
                return set(known)
        if not given or any(abs(g) in running.statement.numbers for g in given):
            return set()
        for name in running.statement.reads - running.statement.assigns:
            if any(_value(user, name) is g for g in given):
                return running.names.get(name, set())
        return running.found

    # Following the variables

    def _follow(self, frame: FrameType) -> None:
        """Begin to follow the statements of the functions that run."""
        if self._follows or sys.gettrace() is not None:  # a debugger: all may depend on all
            return
        self._follows = True
        sys.settrace(self._called)
        for running in users(frame):
            code = running.f_code
            if not code.co_name.startswith("<") and _is_followed(code.co_filename):
                running.f_trace = self._line
                self._running[running] = _Running()
                self._begin(running)

    def finish(self) -> None:
        """Follow no more."""
        if self._follows:
            sys.settrace(None)
            for frame in self._running:
                frame.f_trace = None

    def _at(self, frame: FrameType | None) -> _Running | None:
        """Return the innermost function that is followed."""
        while frame is not None and frame not in self._running:
            frame = frame.f_back
        return self._running[frame] if frame is not None else None

    def _called(self, frame: FrameType, event: str, result: Any) -> Any:
        code = frame.f_code
        if code.co_name.startswith("<") or not _is_followed(code.co_filename):
            return None
        if frame not in self._running:
            caller = self._at(frame.f_back)
            self._running[frame] = running = _Running()
            for name, x in frame.f_locals.items():
                if caller is not None and caller.found and _carries(x):
                    running.names[name] = set(caller.found)
        return self._line

    def _line(self, frame: FrameType, event: str, result: Any) -> Any:
        if event in ("line", "return"):
            self._end(frame)
        if event == "line":
            self._begin(frame)
        elif event == "return" and _carries(result) and result is not None:
            caller = self._at(frame.f_back)
            if caller is not None:
                caller.found |= self._running[frame].found
        return self._line

    def _begin(self, frame: FrameType) -> None:
        """Begin a statement: what it makes may depend on all that it reads."""
        running = self._running[frame]
        running.statement = _statement(frame.f_code.co_filename, frame.f_lineno)
        running.found = set()
        for name in running.statement.reads:
            around = [self._running[f] for f in users(frame) if f in self._running]
            running.found |= next((r.names[name] for r in around if name in r.names), set())
            for x in _inside(_value(frame, name)):
                running.found |= self._objects.get(id(x), set())

    def _end(self, frame: FrameType) -> None:
        """End a statement: what it has assigned or changed may depend on what it has read."""
        running = self._running[frame]
        statement, found = running.statement, running.found
        for name in statement.assigns | statement.changes:
            x = _value(frame, name)
            if not _carries(x):
                running.names.pop(name, None)
                continue
            before = running.names.get(name, set()) if name in statement.changes else set()
            running.names[name] = before | found
            number = _is_number(x) and _unique(x)
            if found and (number or isinstance(x, list | dict | set | np.ndarray)):
                self._objects[id(x)] |= found
                self._nodes.values.kept.append(x)


def _carries(x: Any) -> bool:
    """Return True if numbers may be in an object that the graph does not follow itself."""
    return not isinstance(x, Tensor | Module | ModuleType) and not callable(x)


def _is_followed(file: str) -> bool:
    """Return True for the user's own code: packages, compilers among them, are not followed."""
    return is_own(file) and bool(_statements(file))


def _is_number(x: Any) -> bool:
    single = isinstance(x, int | float | np.number) or (isinstance(x, np.ndarray) and not x.ndim)
    return single and not isinstance(x, bool)


def _unique(x: Any) -> bool:
    """Return True for an object that is no other's: Python has small integers once for all."""
    return not isinstance(x, bool) and not (isinstance(x, int) and -6 < x < 257)


def _inside(x: Any, depth: int = 4) -> Iterator[Any]:
    """Yield an object and those in it."""
    if isinstance(x, list | tuple | set) and depth and len(x) <= 4096:
        for inner in x:
            yield from _inside(inner, depth - 1)
    elif isinstance(x, dict) and depth:
        yield from _inside(list(x.values()), depth)
    if not isinstance(x, tuple):
        yield x


def _value(frame: FrameType, path: str) -> Any:
    """Return the object that a name or a path of attributes has in a function, or None."""
    first, *rest = path.split(".")
    x = frame.f_locals.get(first, frame.f_globals.get(first))
    for name in rest:
        held = getattr(x, "__dict__", None)  # with __slots__ and __getattr__ it may be anything
        x = held.get(name) if isinstance(held, Mapping) else None
    return x


def _statement(file: str, line: int) -> _Statement:
    return _statements(file).get(line, _Statement())


@functools.cache
def _statements(file: str) -> dict[int, _Statement]:
    """Return the statements of a file by their lines; those on one line are taken together."""
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except SyntaxError:
        return {}
    found: dict[int, _Statement] = defaultdict(_Statement)
    for node in ast.walk(tree):
        if not isinstance(node, ast.stmt) or isinstance(node, ast.FunctionDef | ast.ClassDef):
            continue
        body = getattr(node, "body", None) or getattr(node, "cases", None)
        last = body[0].lineno - 1 if body and hasattr(body[0], "lineno") else node.end_lineno
        statement = _Statement()
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.stmt):
                _collect(child, statement)
        if isinstance(node, ast.AugAssign):
            statement.reads |= {_path(node.target)}
        for line in range(node.lineno, max(last or 0, node.lineno) + 1):
            found[line].reads.update(statement.reads)
            found[line].assigns.update(statement.assigns)
            found[line].changes.update(statement.changes)
            found[line].numbers.update(statement.numbers)
    return dict(found)


def _collect(tree: ast.AST, into: _Statement) -> None:
    for node in ast.walk(tree):
        stored = isinstance(getattr(node, "ctx", None), ast.Store)
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
            into.numbers.add(node.value)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            into.changes.add(_path(node.func.value))
            into.reads.add(_path(node.func.value))
        elif isinstance(node, ast.Subscript) and stored:
            into.changes.add(_path(node.value))
        elif isinstance(node, ast.Name | ast.Attribute):
            (into.assigns if stored else into.reads).add(_path(node))
    for names in (into.reads, into.assigns, into.changes):
        names.discard("")


def _path(node: ast.AST) -> str:
    """Return "a" or "self.a.b" for a name or its attributes, "" for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        inner = _path(node.value)
        return f"{inner}.{node.attr}" if inner else ""
    return _path(node.value) if isinstance(node, ast.Subscript | ast.Starred) else ""
