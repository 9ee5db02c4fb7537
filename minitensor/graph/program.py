"""A function with its arguments, as it is traced, and a copy of both with other sizes."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from types import CellType, FunctionType
from typing import Any

import numpy as np

from ..core import Tensor, wrap
from ..nn import Buffer, Module, Parameter
from .settings import Scope, Vary, is_size, leaves, rebuilt, scopes


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
        """The name of the graph, "Transformer", "Transformer.encode", "loss"."""
        kind = type(self.function if self.module is None else self.module).__name__
        if self.function is self.module:
            return kind
        name = str(getattr(self.function, "__name__", kind))
        return f"{kind}.{name}" if self.module is not None else name.strip("<>")

    def run(self) -> Any:
        """Call the function."""
        return self.function(*self.inputs, **self.options)

    def bound(self) -> inspect.BoundArguments:
        """Return the arguments by the function's names for them.

        TypeError if they do not fit, ValueError for a builtin without a signature.
        """
        called = self.function.forward if isinstance(self.function, Module) else self.function
        return inspect.signature(called).bind(*self.inputs, **self.options)

    def known(self) -> dict[str, Any]:
        """Return the global and closed-over variables of a plain function."""
        if not isinstance(self.function, FunctionType):
            return {}
        found = inspect.getclosurevars(self.function)
        return {**found.globals, **found.nonlocals}

    def modules(self) -> list[tuple[str, Module]]:
        """Return the modules that it uses, with their paths."""
        if self.module is not None:
            return [("", self.module)]
        given = {**self.known(), **self.bound().arguments}
        return [(name, x) for name, x in given.items() if isinstance(x, Module)]

    def scopes(self, vary: Vary) -> list[tuple[Module, Scope]]:
        """Return its modules, outer before inner, with the numbers that each was made with."""
        return [found for path, module in self.modules() for found in scopes(module, path, vary)]

    def settings(self) -> tuple[dict[str, int], list[tuple[Tensor, list[str | None]]]]:
        """Return its settings, and the weights with the setting that each axis is, or None.

        Settings are the whole numbers that it was given and that its modules were made with.
        """
        found = {
            path: x
            for name, argument in self.bound().arguments.items()
            for path, x in leaves(argument, name)
            if is_size(x)
        }
        marks: dict[int, str] = {}  # sizes that no product or quotient of them has

        def mark(path: str, size: int) -> int:
            found[path] = size
            marks[1_000_000 + len(marks)] = path
            return 1_000_000 + len(marks) - 1

        axes = [each for module, scope in self.scopes(mark) for each in scope.axes(module)]
        return found, [(t, [marks.get(n) for n in shape]) for t, shape in axes]

    def varied(
        self, vary: Vary, shapes: Callable[[Tensor, list[int]], list[int]], least: int
    ) -> Program:
        """Return a copy with other sizes that shares nothing with this program that may change.

        `vary` gives the new value of a setting, `shapes` the new shape of a tensor, which by the
        settings alone is its second argument. Tokens are made smaller than `least`, if it is not 0.
        """
        memo: dict[int, Any] = {}  # what deepcopy puts in the place of each object

        def resize(t: Tensor, shape: Sequence[int]) -> Tensor:
            if id(t) not in memo:
                memo[id(t)] = _resized(t, tuple(shapes(t, list(shape))), least)
            made: Tensor = memo[id(t)]
            return made

        def leaf(x: Any, path: str) -> Any:
            if isinstance(x, Tensor):
                return resize(x, x.shape)
            return vary(path, x) if is_size(x) else copy.deepcopy(x, memo)

        scopes = self.scopes(vary)
        for module, scope in scopes:
            for t, shape in scope.axes(module):
                resize(t, shape)
        for module, _ in scopes:
            for x in module.__dict__.values():
                if isinstance(x, Tensor):
                    resize(x, x.shape)
        bound = self.bound()
        for name, argument in bound.arguments.items():
            bound.arguments[name] = rebuilt(argument, name, leaf)
        function = self._copied_function(leaf)
        for module, scope in scopes:
            twin = memo.get(id(module))
            if twin is not None:
                scope.vary(twin)
                twin.__dict__.pop("_registered_hooks", None)
        return Program(function, bound.args, bound.kwargs)

    def copy(self) -> Program:
        """Return a copy that shares nothing with this program that may change."""
        return self.varied(lambda path, size: size, lambda t, shape: list(t.shape), 0)

    def _copied_function(self, leaf: Callable[[Any, str], Any]) -> Callable[..., Any]:
        function = self.function
        if self.module is not None:
            module: Module = leaf(self.module, "")
            return module if function is self.module else getattr(module, function.__name__)
        if not isinstance(function, FunctionType):
            return function
        made = {
            name: rebuilt(x, name, leaf)
            for name, x in self.known().items()
            if isinstance(x, Module | Tensor | list | dict | set)
        }
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        twin = FunctionType(
            function.__code__,
            {**function.__globals__, **made},
            function.__name__,
            function.__defaults__,
            tuple(CellType(made[name]) if name in made else cell for name, cell in cells),
        )
        twin.__kwdefaults__ = function.__kwdefaults__
        return twin


def _resized(x: Tensor, shape: tuple[int, ...], least: int) -> Tensor:
    """Return a leaf of another shape with the values of `x` repeated; a causal mask stays one."""
    array = x._array
    if shape == array.shape:
        array = array.copy()  # the run may change it
    elif array.ndim == 2 and np.array_equal(array, _by_diagonal(array, array.shape)):
        array = _by_diagonal(array, shape)
    else:
        array = np.resize(array, shape)
    if least and array.dtype.kind in "iu":  # tokens, inside a vocabulary that may be smaller
        array %= least
    kind = next((kind for kind in (Parameter, Buffer) if isinstance(x, kind)), Tensor)
    out: Tensor = wrap(array, kind)
    out._requires_grad = x.requires_grad
    return out


def _by_diagonal(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return a matrix with the first element of each diagonal of `array` all along it."""
    if not array.size or array.shape[0] != array.shape[1]:
        return array[:0, :0]
    last = len(array) - 1
    offset = np.clip(np.arange(shape[1]) - np.arange(shape[0])[:, None], -last, last)
    return array[np.clip(-offset, 0, None), np.clip(offset, 0, None)]
