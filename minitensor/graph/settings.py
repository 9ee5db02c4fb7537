"""The whole numbers that modules were made with, and the sizes in a module that follow from them.

A module remembers the arguments of its constructor. The constructor does not run again to find out
what depends on them: its code is read for numbers and arithmetic, such as `3 * d_model`. A size in
the module is an argument or a result of that value. If it may be several it is not certain.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import dataclasses
import functools
import inspect
import operator
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

from ..core import Tensor
from ..nn import Embedding, Linear, Module

Number = tuple[str, int, int]  # a name, or "", with the size now and in the varied run
Vary = Callable[[str, int], int]  # the size in the varied run of the setting at a path

# The names of the axes of weights, where values alone leave it open.
_AXES: dict[type[Module], dict[str, tuple[str, ...]]] = {
    Linear: {"weight": ("out_features", "in_features"), "bias": ("out_features",)},
    Embedding: {"weight": ("num_embeddings", "embedding_dim")},
}

_OPERATORS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.floordiv,
    ast.FloorDiv: operator.floordiv,
}


@dataclasses.dataclass(frozen=True)
class Scope:
    """The numbers that a constructor was given, and those that it writes or computes."""

    numbers: tuple[Number, ...] = ()

    def varied(self, size: int, name: str = "") -> int:
        """Return the size in the varied run of what has `size` now, and a `name` if it is known.

        It stays if it does not certainly follow from one of the numbers.
        """
        fitting = [number for number in self.numbers if number[1] == size]
        called = {then for known, _, then in fitting if known == name}
        found = called if name and len(called) == 1 else {then for *_, then in fitting}
        return found.pop() if len(found) == 1 else size

    def axes(self, module: Module) -> Iterator[tuple[Tensor, list[int]]]:
        """Yield the parameters and buffers of a module with their sizes in the varied run."""
        known = next((names for kind, names in _AXES.items() if isinstance(module, kind)), {})
        for name, t in (*module._parameters.items(), *module._buffers.items()):
            if t is not None:
                names = known.get(name, ("",) * t.ndim)
                yield t, [self.varied(n, a) for n, a in zip(t._array.shape, names, strict=True)]

    def vary(self, module: Module) -> None:
        """Give the numbers among the attributes of a module their sizes in the varied run."""
        counts = {len(list(child.children())) for child in module.children()}  # of layers

        def leaf(x: Any, path: str) -> Any:
            return self.varied(x, last(path)) if is_size(x) else x

        for name, x in module.__dict__.items():
            if not name.startswith("_") and not (isinstance(x, int) and x in counts):
                module.__dict__[name] = rebuilt(x, name, leaf)


def is_size(x: Any) -> bool:
    """Return True for a whole number above 1."""
    return isinstance(x, int) and not isinstance(x, bool) and x > 1


def scopes(module: Module, where: str, vary: Vary) -> list[tuple[Module, Scope]]:
    """Return the modules in `module` with the numbers that each was made with.

    `vary` gives the outermost module's settings, and those of modules it was given, other values.
    """
    found: dict[int, tuple[Module, Scope]] = {}

    def visit(
        module: Module, where: str, maker: Scope | None, given: dict[int, tuple[str, Scope | None]]
    ) -> None:
        if id(module) in found:
            return
        made_with = module.__dict__.get("_made_with")
        where, maker = given.get(id(made_with), (where, maker))
        scope = maker
        if made_with is not None:
            args, options = made_with
            bound = inspect.signature(type(module).__init__).bind(module, *args, **options)
            bound.apply_defaults()
            numbers: list[Number] = []
            given = dict(given)
            for key, argument in list(bound.arguments.items())[1:]:
                for path, x in leaves(argument, f"{where}.{key}" if where else key):
                    if is_size(x):
                        name = last(path)
                        then = maker.varied(x, name) if maker else vary(path, x)
                        numbers.append((name, x, then))
                    elif isinstance(x, Module) and "_made_with" in x.__dict__:
                        given[id(x.__dict__["_made_with"])] = path, maker  # copies share it
            if numbers:
                kind: Any = type(module)
                scope = Scope((*numbers, *_computed(kind, tuple(numbers))))
        found[id(module)] = module, scope or Scope()
        for name, child in module.named_children():
            visit(child, f"{where}.{name}" if where else name, scope, given)

    visit(module, where, None, {})
    return list(found.values())


@functools.cache
def _constructors(kind: Any) -> list[ast.AST]:
    """Return the code of a class's constructors, its base's first, where the source is found."""
    found: list[ast.AST] = []
    for base in reversed(kind.__mro__[: kind.__mro__.index(Module)]):
        with contextlib.suppress(OSError, TypeError, KeyError, SyntaxError):
            source = inspect.getsource(base.__dict__["__init__"])
            found += ast.walk(ast.parse(textwrap.dedent(source)))
    return [node for node in found if isinstance(node, ast.Assign | ast.BinOp | ast.Constant)]


@functools.lru_cache(maxsize=1024)
def _computed(kind: Any, given: tuple[Number, ...]) -> tuple[Number, ...]:
    """Return the values of the numbers and the arithmetic in a class's constructors."""
    runs: list[dict[str, int]] = [{name: two[run] for name, *two in given} for run in (0, 1)]
    found: dict[Number, None] = {}
    for node in _constructors(kind):
        names: list[Any] = node.targets if isinstance(node, ast.Assign) else []
        for name in [getattr(x, "attr", getattr(x, "id", "")) for x in names] or [""]:
            now, then = (_value(node, run) for run in runs)
            if now is not None and then is not None:
                found[name, now, then] = None
                if name:
                    runs[0].setdefault(name, now)
                    runs[1].setdefault(name, then)
    return tuple(found)


def _value(node: ast.AST, numbers: dict[str, int]) -> int | None:
    """Return the value of an expression of whole numbers, or None."""
    match node:
        case ast.Constant(int(number)) if not isinstance(number, bool):
            return number
        case ast.Name(name) | ast.Attribute(attr=name):  # d_model, config.d_model, self.d_model
            return numbers.get(name)
        case ast.BinOp(left, op, right) if type(op) in _OPERATORS:
            a, b = _value(left, numbers), _value(right, numbers)
            with contextlib.suppress(ArithmeticError):
                return None if a is None or b is None else _OPERATORS[type(op)](a, b)
        case ast.Assign(value=value):
            return _value(value, numbers)
    return None


# Nested arguments


def last(path: str) -> str:
    """Return the last name of a path."""
    return path.rpartition(".")[2]


def _inside(x: Any, where: str) -> list[tuple[Any, str, Any]] | None:
    """Return keys, paths and values of a dict, dataclass, tuple or list; None for anything else."""
    if type(x) is dict:
        return [(key, f"{where}.{key}", value) for key, value in x.items()]
    if dataclasses.is_dataclass(x) and not isinstance(x, type):
        names = [field.name for field in dataclasses.fields(x)]
        return [(name, f"{where}.{name}", getattr(x, name)) for name in names]
    if type(x) in (tuple, list):
        return [(i, f"{where}[{i}]", value) for i, value in enumerate(x)]
    return None


def leaves(x: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Yield what is in nested containers, with paths such as "config.nhead"."""
    inside = _inside(x, where)
    if inside is None:
        yield where, x
    for _, path, value in inside or ():
        yield from leaves(value, path)


def rebuilt(x: Any, where: str, leaf: Callable[[Any, str], Any]) -> Any:
    """Return a copy of nested containers with `leaf(x, path)` in place of what is in them."""
    inside = _inside(x, where)
    if inside is None:
        return leaf(x, where)
    made = [(key, rebuilt(value, path, leaf)) for key, path, value in inside]
    if isinstance(x, dict):
        return dict(made)
    if isinstance(x, tuple | list):
        return type(x)(value for _, value in made)
    twin = copy.copy(x)
    for name, value in made:
        object.__setattr__(twin, name, value)  # also of a frozen one
    return twin
