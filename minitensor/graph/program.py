"""What was traced: a function with its arguments, which can be made again with other sizes."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import CellType, FunctionType
from typing import Any

import numpy as np

from ..core import Tensor, wrap
from ..nn import Module


@dataclass(frozen=True)
class Site:
    """A place that a size comes from: an axis of an input, or a number something was made with."""

    where: str  # "src", "config.nhead"
    axis: int | None  # None for a number
    size: int

    def __str__(self) -> str:
        return self.where if self.axis is None else f"axis {self.axis} of {self.where}"

    def is_called(self, name: str) -> bool:
        """Whether the program itself gives this number that name."""
        last = self.where.rpartition(".")[2]
        return self.axis is None and (last == name or last.endswith(f"_{name}"))


Size = Callable[[Site], int]  # what a site's size becomes


class _Fixed(Exception):
    """Something that cannot be made again with other sizes."""


class Program:
    """A function with its arguments: it can be run, and made again with other sizes."""

    def __init__(
        self, function: Callable[..., Any], inputs: tuple[Any, ...], options: Mapping[str, Any]
    ) -> None:
        self.function = function
        self.inputs = inputs
        self.options = options
        self._changes: dict[Module, list[tuple[str, str, Any]]] = {}
        self._remade_tensors: dict[int, Tensor] = {}  # one that is given twice stays one

    @property
    def module(self) -> Module | None:
        """The module that it calls, or of which it calls a method."""
        owner = getattr(self.function, "__self__", self.function)
        return owner if isinstance(owner, Module) else None

    @property
    def name(self) -> str:
        """What to call it: "Transformer", "Transformer.encode", "loss"."""
        kind = type(self.function if self.module is None else self.module).__name__
        if self.function is self.module:
            return kind
        name = str(getattr(self.function, "__name__", kind))
        return f"{kind}.{name}" if self.module is not None else name.strip("<>")

    def run(self) -> Any:
        """What the function returns."""
        return self.function(*self.inputs, **self.options)

    def bound(self) -> inspect.BoundArguments:
        """The arguments by the function's names for them.

        TypeError if they do not fit, ValueError for a builtin that does not tell.
        """
        called = self.function.forward if isinstance(self.function, Module) else self.function
        return inspect.signature(called).bind(*self.inputs, **self.options)

    def sites(self) -> list[Site]:
        """Every place of it that a size comes from."""
        found: list[Site] = []

        def look(site: Site) -> int:
            found.append(site)
            return site.size

        try:
            self._remade_function(look)
        except _Fixed:
            found.clear()
        self._remade_arguments(look)
        return list(dict.fromkeys(found))

    def remade(self, size: Size) -> Program:
        """The same program with other sizes; a module is made anew, its weights are others."""
        try:
            function = self._remade_function(size)
        except _Fixed:
            function = self.function
        bound = self._remade_arguments(size)
        return Program(function, bound.args, bound.kwargs)

    def _remade_function(self, size: Size) -> Callable[..., Any]:
        if self.module is None:
            return self._remade_closure(size)
        made = self._remade_module(self.module, "", size)
        return made if self.function is self.module else getattr(made, self.function.__name__)

    def _remade_closure(self, size: Size) -> Callable[..., Any]:
        """A plain function with copies of the modules that it refers to, such as a loss."""
        function = self.function
        if not isinstance(function, FunctionType):
            return function
        known = inspect.getclosurevars(function)
        names = {**known.globals, **known.nonlocals}
        made = {
            n: self._remade_module(m, n, size) for n, m in names.items() if isinstance(m, Module)
        }
        if not made:
            return function
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        copy = FunctionType(
            function.__code__,
            {**function.__globals__, **made},
            function.__name__,
            function.__defaults__,
            tuple(CellType(made[name]) if name in made else cell for name, cell in cells),
        )
        copy.__kwdefaults__ = function.__kwdefaults__
        return copy

    def _remade_arguments(self, size: Size) -> inspect.BoundArguments:
        self._remade_tensors = {}
        bound = self.bound()
        for name, x in bound.arguments.items():
            bound.arguments[name] = self._remade(x, name, size)
        return bound

    def _remade(self, x: Any, where: str, size: Size) -> Any:
        """`x` with the size of each of its sites replaced."""
        if isinstance(x, Tensor):
            if id(x) not in self._remade_tensors:
                shape = tuple(size(Site(where, axis, n)) for axis, n in enumerate(x.shape))
                same = shape == tuple(x.shape)
                self._remade_tensors[id(x)] = x if same else _resized(x, shape)
            return self._remade_tensors[id(x)]
        if isinstance(x, Module):
            return self._remade_module(x, where, size)
        if isinstance(x, int) and not isinstance(x, bool):
            return size(Site(where, None, x))
        if dataclasses.is_dataclass(x) and not isinstance(x, type):
            fields = {f.name: getattr(x, f.name) for f in dataclasses.fields(x) if f.init}
            changed = {k: self._remade(v, _join(where, k), size) for k, v in fields.items()}
            return dataclasses.replace(x, **changed)
        if type(x) in (tuple, list):
            return type(x)(self._remade(v, f"{where}[{i}]", size) for i, v in enumerate(x))
        if isinstance(x, dict):
            return {k: self._remade(v, f"{where}[{k}]", size) for k, v in x.items()}
        return x

    def _remade_module(self, module: Module, where: str, size: Size) -> Module:
        """A module of the same class, made with other numbers, in the same mode and settings."""
        made_with = module.__dict__.get("_made_with")
        if made_with is None:
            raise _Fixed
        args, options = made_with

        def make(size: Size) -> Module:
            bound = inspect.signature(type(module).__init__).bind(None, *args, **options)
            bound.apply_defaults()
            for name, x in list(bound.arguments.items())[1:]:
                bound.arguments[name] = self._remade(x, _join(where, name), size)
            return type(module)(*bound.args[1:], **bound.kwargs)

        if module not in self._changes:
            self._changes[module] = _changes(make(lambda site: site.size), module)
        made = make(size)
        copies = dict(made.named_modules())
        for path, key, value in self._changes[module]:
            if path in copies:
                copies[path].__dict__[key] = value
        dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), None)
        return made if dtype is None else made.to(dtype)


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _changes(made: Module, module: Module) -> list[tuple[str, str, Any]]:
    """What was set on a module, and those in it, since it was made: (path, attribute, value)."""
    then = dict(made.named_modules())
    return [
        (path, key, value)
        for path, now in module.named_modules()
        for key, value in now.__dict__.items()
        if isinstance(value, bool | str | float)
        and path in then
        and then[path].__dict__.get(key) != value
    ]


def _resized(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A tensor of another shape with the values of `x` over again; a causal mask stays one."""
    array = x._array
    if array.ndim == 2 and array.size and array.shape[0] == array.shape[1]:
        rows, cols = (np.arange(n) for n in shape)
        last = len(array) - 1
        offset = np.clip(cols[None] - rows[:, None], -last, last)
        band = array[np.clip(-offset, 0, None), np.clip(offset, 0, None)]
        whole = np.subtract.outer(np.arange(last + 1), np.arange(last + 1))
        if np.array_equal(array, array[np.clip(whole, 0, None), np.clip(-whole, 0, None)]):
            return wrap(band)
    out = wrap(np.resize(array, shape))
    if x.requires_grad:
        out.requires_grad_()
    return out
