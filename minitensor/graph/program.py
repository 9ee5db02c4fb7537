"""What is traced: a function with its arguments, and a copy of both with other sizes."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from types import CellType, FunctionType
from typing import Any

import numpy as np

from ..core import Tensor, wrap
from ..nn import Buffer, Module, Parameter
from . import settings

Sizes = Mapping[str, int]  # of settings in the varied run, by their paths


class Program:
    """A function with its arguments."""

    def __init__(
        self, function: Callable[..., Any], inputs: tuple[Any, ...], options: Mapping[str, Any]
    ) -> None:
        self.function = function
        self.inputs = inputs
        self.options = options

    @property
    def module(self) -> Module | None:
        """The module that it calls, or of which it calls a method."""
        owner = getattr(self.function, "__self__", self.function)
        return owner if isinstance(owner, Module) else None

    @property
    def name(self) -> str:
        """The name of the graph: "Transformer", "Transformer.encode", "loss"."""
        kind = type(self.function if self.module is None else self.module).__name__
        if self.function is self.module:
            return kind
        name = str(getattr(self.function, "__name__", kind))
        return f"{kind}.{name}" if self.module is not None else name.strip("<>")

    def run(self) -> Any:
        """Call the function."""
        return self.function(*self.inputs, **self.options)

    def bound(self) -> inspect.BoundArguments:
        """The arguments by the function's names for them.

        TypeError if they do not fit, ValueError for a builtin without a signature.
        """
        called = self.function.forward if isinstance(self.function, Module) else self.function
        return inspect.signature(called).bind(*self.inputs, **self.options)

    def known(self) -> dict[str, Any]:
        """The variables of a plain function that it takes from around it: modules, tensors, ..."""
        if not isinstance(self.function, FunctionType):
            return {}
        found = inspect.getclosurevars(self.function)
        return {**found.globals, **found.nonlocals}

    def modules(self) -> list[tuple[str, Module]]:
        """The modules that it uses, with their paths."""
        if self.module is not None:
            return [("", self.module)]
        given = {**self.known(), **self.bound().arguments}
        return [(name, x) for name, x in given.items() if isinstance(x, Module)]

    def settings(self) -> dict[str, int]:
        """The whole numbers it was given and its modules were made with, by their paths."""
        found: dict[str, int] = {}
        for name, x in self.bound().arguments.items():
            found.update(settings.numbers_in(x, name))
        for path, module in self.modules():
            found.update(settings.settings(module, path))
        return found

    def axes(self, sizes: Sizes) -> Iterator[tuple[Tensor, list[int]]]:
        """The weights of its modules with their sizes in the varied run."""
        for path, module in self.modules():
            for inner, scope in settings.scopes(module, path, sizes):
                yield from settings.axes_of(inner, scope)

    def varied(self, sizes: Sizes, shapes: Callable[[Tensor, list[int]], list[int]]) -> Program:
        """A copy with other sizes, which shares nothing that it could change with this program.

        `shapes` gives the new shape of a tensor, of which `sizes` alone give the second argument.
        """
        memo: dict[int, Any] = {}  # what deepcopy puts in the place of each object

        def resize(t: Tensor, shape: list[int]) -> Tensor:
            if id(t) not in memo:
                memo[id(t)] = _resized(t, tuple(shapes(t, shape)))
            return memo[id(t)]

        for t, shape in self.axes(sizes):
            resize(t, shape)
        scopes = []
        for path, module in self.modules():
            for inner, scope in settings.scopes(module, path, sizes):
                scopes.append((inner, scope))
                for x in inner.__dict__.values():
                    if isinstance(x, Tensor):
                        resize(x, list(x.shape))

        def copied(x: Any, name: str) -> Any:
            if isinstance(x, Tensor):
                return resize(x, list(x.shape))
            if isinstance(x, int) and not isinstance(x, bool):
                return sizes.get(name, x)
            if type(x) in (tuple, list):
                return type(x)(copied(value, f"{name}[{i}]") for i, value in enumerate(x))
            if type(x) is dict:
                return {key: copied(value, f"{name}.{key}") for key, value in x.items()}
            return copy.deepcopy(x, memo)

        bound = self.bound()
        for name, x in bound.arguments.items():
            bound.arguments[name] = copied(x, name)
        function = self._copied_function(copied)
        for module, scope in scopes:
            twin = memo.get(id(module))
            if twin is not None:
                settings.vary(twin, scope)
                twin.__dict__.pop("_registered_hooks", None)
        return Program(function, bound.args, bound.kwargs)

    def _copied_function(self, copied: Callable[[Any, str], Any]) -> Callable[..., Any]:
        if self.module is not None:
            made = copied(self.module, "")
            return made if self.function is self.module else getattr(made, self.function.__name__)
        function = self.function
        if not isinstance(function, FunctionType):
            return function
        plain = (Module, Tensor, list, dict, set)
        made = {name: copied(x, name) for name, x in self.known().items() if isinstance(x, plain)}
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        copy_ = FunctionType(
            function.__code__,
            {**function.__globals__, **made},
            function.__name__,
            function.__defaults__,
            tuple(CellType(made[name]) if name in made else cell for name, cell in cells),
        )
        copy_.__kwdefaults__ = function.__kwdefaults__
        return copy_


def _resized(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A leaf of another shape with the values of `x` over again; a causal mask stays one."""
    array = x._array
    if shape == array.shape:
        array = array.copy()  # the run may change it
    elif array.ndim == 2 and np.array_equal(array, _by_diagonal(array, array.shape)):
        array = _by_diagonal(array, shape)
    else:
        array = np.resize(array, shape)
    kind = next((kind for kind in (Parameter, Buffer) if isinstance(x, kind)), Tensor)
    out: Tensor = wrap(array, kind)
    out._requires_grad = x.requires_grad
    return out


def _by_diagonal(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A matrix with the first element of each diagonal of `array` all along that diagonal."""
    if not array.size or array.shape[0] != array.shape[1]:
        return array[:0, :0]
    last = len(array) - 1
    offset = np.clip(np.arange(shape[1]) - np.arange(shape[0])[:, None], -last, last)
    return array[np.clip(-offset, 0, None), np.clip(offset, 0, None)]
