"""The whole numbers that modules were made with, and the sizes in a module that follow from them.

A module remembers the arguments of its constructor. The constructor does not run again to find out
what depends on them: its code is read for numbers and arithmetic, such as `3 * d_model`. A size in
the module is an argument or a result of that value. If it may be several it is not certain.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import functools
import inspect
import operator
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..core import Tensor
from ..nn import Embedding, Linear, Module

# What the layers call the axes of their weights, where values alone leave it open.
_AXES: dict[type[Module], dict[str, tuple[str, ...]]] = {
    Linear: {"weight": ("out_features", "in_features"), "bias": ("out_features",)},
    Embedding: {"weight": ("num_embeddings", "embedding_dim")},
}

_OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.floordiv,
    ast.FloorDiv: operator.floordiv,
}


@dataclass(frozen=True)
class Scope:
    """The numbers that a constructor was given, and those that it writes or computes.

    Each has a name, or "", its size now, and its size in the varied run.
    """

    given: tuple[tuple[str, int, int], ...] = ()
    made: tuple[tuple[str, int, int], ...] = ()

    def varied(self, size: int, name: str = "") -> int:
        """The size in the varied run of what has `size` now, and a `name` if that is known.

        The same size if it does not certainly follow from one of the numbers.
        """
        all_ = [(_last(path), m, n) for path, m, n in (*self.given, *self.made)]
        called = {n for known, m, n in all_ if m == size and known == name}
        found = {n for _, m, n in all_ if m == size}
        if name and len(called) == 1:
            return called.pop()
        return found.pop() if len(found) == 1 else size


Given = dict[int, tuple[str, Scope | None]]  # modules that were arguments: path and maker


def numbers_in(x: Any, where: str) -> Iterator[tuple[str, int]]:
    """The whole numbers above 1 in an argument, each with its path, such as "config.nhead"."""
    if isinstance(x, int) and not isinstance(x, bool):
        if x > 1:
            yield where, x
    elif isinstance(x, dict):
        for key, value in x.items():
            yield from numbers_in(value, f"{where}.{key}")
    elif dataclasses.is_dataclass(x) and not isinstance(x, type):
        for field in dataclasses.fields(x):
            yield from numbers_in(getattr(x, field.name), f"{where}.{field.name}")
    elif type(x) in (tuple, list):
        for number, value in enumerate(x):
            yield from numbers_in(value, f"{where}[{number}]")


def scopes(
    module: Module, where: str, sizes: Mapping[str, int] | None = None
) -> list[tuple[Module, Scope]]:
    """The modules in `module` with the numbers that each was made with.

    `sizes` gives numbers that the outermost module was made with, by their paths, other values in
    the varied run.
    """
    sizes = sizes or {}
    found: list[tuple[Module, Scope]] = []
    seen: set[int] = set()

    def visit(module: Module, where: str, maker: Scope | None, given: Given) -> None:
        if id(module) in seen:
            return
        seen.add(id(module))
        made_with = module.__dict__.get("_made_with")
        where, maker = given.get(id(made_with), (where, maker))
        scope = maker
        if made_with is not None:
            arguments = {_join(where, k): x for k, x in _arguments(module, made_with).items()}
            known = [number for path, x in arguments.items() for number in numbers_in(x, path)]
            numbers = tuple(
                (path, n, maker.varied(n, _last(path)) if maker else sizes.get(path, n))
                for path, n in known
            )
            if numbers:
                named = tuple((_last(path), *two) for path, *two in numbers)
                kind: Any = type(module)
                scope = Scope(numbers, _computed(kind, named))
            given = dict(given)
            for path, x in arguments.items():
                given.update((key, (place, maker)) for key, place in _modules_in(x, path))
        found.append((module, scope or Scope(())))
        for name, child in module.named_children():
            visit(child, _join(where, name), scope, given)

    visit(module, where, None, {})
    return found


def settings(module: Module, where: str) -> dict[str, int]:
    """The numbers that a module, and those it was given, were made with, by their paths."""
    found: dict[str, int] = {}

    class Seen(dict[str, int]):
        def get(self, path: str, default: Any = None) -> Any:
            found[path] = default
            return default

    scopes(module, where, Seen({"": 0}))
    return found


def axes_of(module: Module, scope: Scope) -> Iterator[tuple[Tensor, list[int]]]:
    """The parameters and buffers of a module itself with their sizes in the varied run."""
    known = next((names for kind, names in _AXES.items() if isinstance(module, kind)), {})
    for name, t in (*module._parameters.items(), *module._buffers.items()):
        if t is not None:
            called = known.get(name, ("",) * t.ndim)
            yield t, [scope.varied(n, a) for n, a in zip(t._array.shape, called, strict=True)]


def vary(module: Module, scope: Scope) -> None:
    """Give the numbers among the attributes of a module their sizes in the varied run."""
    layers = {len(list(child.children())) for child in module.children()}  # counts, not sizes
    for name, x in module.__dict__.items():
        if not name.startswith("_") and not (isinstance(x, int) and x in layers):
            module.__dict__[name] = _varied(x, name, scope)


def _varied(x: Any, name: str, scope: Scope) -> Any:
    if isinstance(x, int) and not isinstance(x, bool):
        return scope.varied(x, name) if x > 1 else x
    if type(x) in (tuple, list):
        return type(x)(_varied(value, name, scope) for value in x)
    if isinstance(x, dict):
        x.update({key: _varied(value, str(key), scope) for key, value in x.items()})
    elif dataclasses.is_dataclass(x) and not isinstance(x, type):
        for field in dataclasses.fields(x):  # also of a frozen one: it is a copy
            value = _varied(getattr(x, field.name), field.name, scope)
            object.__setattr__(x, field.name, value)
    return x


def _arguments(module: Module, made_with: tuple[Any, Any]) -> dict[str, Any]:
    """The arguments of the constructor of a module, by name."""
    args, options = made_with
    bound = inspect.signature(type(module).__init__).bind(module, *args, **options)
    bound.apply_defaults()
    return dict(list(bound.arguments.items())[1:])


def _modules_in(x: Any, where: str) -> Iterator[tuple[int, str]]:
    """The modules in an argument, by the identity of what they and their copies were made with."""
    if isinstance(x, Module):
        if "_made_with" in x.__dict__:
            yield id(x.__dict__["_made_with"]), where
    elif isinstance(x, tuple | list):
        for number, value in enumerate(x):
            yield from _modules_in(value, f"{where}[{number}]")
    elif isinstance(x, dict):
        for key, value in x.items():
            yield from _modules_in(value, f"{where}.{key}")


@functools.cache
def _constructors(kind: type) -> list[ast.AST]:
    """The code of a class's constructors, its base's first, where the source can be had."""
    found: list[ast.AST] = []
    for base in reversed(kind.__mro__[: kind.__mro__.index(Module)]):
        with contextlib.suppress(OSError, TypeError, KeyError, SyntaxError):
            source = inspect.getsource(base.__dict__["__init__"])
            found.append(ast.parse(textwrap.dedent(source)))
    return found


@functools.lru_cache(maxsize=1024)
def _computed(
    kind: Any, given: tuple[tuple[str, int, int], ...]
) -> tuple[tuple[str, int, int], ...]:
    """What the numbers and the arithmetic in a class's constructors come to, now and varied."""
    now, varied = ({name: two[run] for name, *two in given} for run in (0, 1))
    found: dict[tuple[str, int, int], None] = {}

    def add(node: ast.AST, name: str = "") -> None:
        one, two = _value(node, now), _value(node, varied)
        if one is not None and two is not None:
            found[name, one, two] = None
            if name:
                now.setdefault(name, one)
                varied.setdefault(name, two)

    for node in (node for tree in _constructors(kind) for node in ast.walk(tree)):
        if isinstance(node, ast.BinOp | ast.Constant):
            add(node)
        elif isinstance(node, ast.Assign):
            for target, value in _assigned(node):
                add(value, getattr(target, "attr", getattr(target, "id", "")))
    return tuple(found)


def _assigned(node: ast.Assign) -> Iterator[tuple[ast.AST, ast.AST]]:
    """The targets of an assignment with their values."""
    for target in node.targets:
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            yield from zip(target.elts, node.value.elts, strict=False)
        else:
            yield target, node.value


def _value(node: ast.AST, numbers: Mapping[str, int]) -> int | None:
    """The value of an expression of whole numbers, if it is one."""
    if isinstance(node, ast.Constant):
        return node.value if type(node.value) is int else None
    if isinstance(node, ast.Name | ast.Attribute):  # d_model, config.d_model, self.d_model
        return numbers.get(node.id if isinstance(node, ast.Name) else node.attr)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _value(node.left, numbers), _value(node.right, numbers)
        with contextlib.suppress(ArithmeticError):
            if left is not None and right is not None:
                return int(_OPERATORS[type(node.op)](left, right))
    return None


def _last(path: str) -> str:
    return path.rpartition(".")[2]


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
