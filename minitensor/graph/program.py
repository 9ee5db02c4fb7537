"""A function with its arguments, as it is traced, and a copy of both with other sizes."""

from __future__ import annotations

import copy
import inspect
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from types import CellType, FunctionType
from typing import Any

import numpy as np

from ..core import Tensor, wrap
from ..nn import Buffer, Module, Parameter
from .settings import Settings
from .sized import Sizes, is_size, rebuilt


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

    @property
    def method(self) -> str:
        """The method of the module that it is, "" for the whole module."""
        name = str(getattr(self.function, "__name__", ""))
        whole = self.module is None or self.function is self.module
        return "" if whole or name in ("forward", "__call__") else name

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

    def settings(self) -> Settings:
        """Return its settings: numbers that it was given, and its modules were made with.

        TypeError or ValueError as from `bound`.
        """
        found = Settings()
        for name, argument in self.bound().arguments.items():
            found.add_argument(name, argument)
        for path, module in self.modules():
            found.add_module(module, path)
        return found

    def varied(
        self,
        settings: Settings,
        sizes: Sizes,
        shapes: Callable[[Tensor, list[int]], list[int]],
        least: Callable[[int], int],
    ) -> Program:
        """Return a copy with other sizes that shares nothing with this program that may change.

        `sizes` are those of the settings, `shapes` gives the new shape of a tensor, which by the
        settings alone is its second argument. Tokens are made smaller than `least` of the greatest.
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
            return sizes.get(path, x) if is_size(x) else _copied(x, memo)

        for t, shape in settings.shapes(sizes):
            resize(t, [n if n is not None else now for n, now in zip(shape, t.shape, strict=True)])
        for module, _ in settings.modules:
            memo[id(module)] = object.__new__(type(module))
        for module, found in settings.modules:
            twin = memo[id(module)]
            for name, x in module.__dict__.items():
                if name != "_registered_hooks":
                    twin.__dict__[name] = _copied(x, memo)
            settings.vary(module, found, twin, sizes)
        counts = {settings.sizes[path]: sizes.get(path, 0) for path in settings.growing()}
        for layers in settings.lists:
            inside = memo[id(layers)]._modules
            for number in range(len(layers), counts.get(len(layers), 0)):
                inside[str(number)] = copy.deepcopy(inside[str(len(layers) - 1)])
        bound = self.bound()
        for name, argument in bound.arguments.items():
            bound.arguments[name] = rebuilt(argument, name, leaf)
        return Program(self._copied_function(leaf), bound.args, bound.kwargs)

    def copy(self) -> Program:
        """Return a copy that shares nothing with this program that may change."""
        return self.varied(Settings(), {}, lambda t, shape: list(t.shape), lambda most: most + 1)

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


class _Absent:
    """Stands in a copy for what cannot be copied, and says so when it is used."""

    def __init__(self, x: Any, why: str) -> None:
        object.__setattr__(self, "_says", f"a {type(x).__name__} cannot be copied: {why}")

    def _use(self, *args: Any, **options: Any) -> Any:
        raise RuntimeError(object.__getattribute__(self, "_says"))

    def __getattribute__(self, name: str) -> Any:
        return _Absent if name == "__class__" else object.__getattribute__(self, "_use")()

    __setattr__ = __call__ = __iter__ = __next__ = __enter__ = __exit__ = _use
    __len__ = __getitem__ = __setitem__ = __bool__ = _use


def _copied(x: Any, memo: dict[int, Any]) -> Any:
    """Return a deep copy; a lock is shared, and what cannot be copied must not be used."""
    if isinstance(x, dict) and type(x) in (dict, OrderedDict):
        if id(x) not in memo:
            memo[id(x)] = made = type(x)()
            made.update((key, _copied(each, memo)) for key, each in x.items())
        return memo[id(x)]
    if type(x).__module__ in ("_thread", "threading"):
        return x
    try:
        return copy.deepcopy(x, memo)
    except Exception as error:
        return _Absent(x, " ".join(str(error).split()))


def _resized(x: Tensor, shape: tuple[int, ...], least: Callable[[int], int]) -> Tensor:
    """Return a leaf of another shape with the values of `x` repeated; a causal mask stays one."""
    array = x._array
    if shape == array.shape:
        array = array.copy()  # the run may change it
    elif array.ndim == 2 and np.array_equal(array, _by_diagonal(array, array.shape)):
        array = _by_diagonal(array, shape)
    else:
        array = np.resize(array, shape)
    if array.dtype.kind in "iu" and array.size:  # tokens, inside a vocabulary that may be smaller
        most = least(int(array.max()))
        array = np.where(array < most, array, 1 + array % max(most - 1, 1))  # 0 may be padding
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
