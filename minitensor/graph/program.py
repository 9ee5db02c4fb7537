"""A function with its arguments, as it is traced, and a copy of both with other sizes."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..core import Tensor
from ..nn import Module
from ..optim import Optimizer
from .copies import Memo, copied, resized
from .model import Graph
from .reach import Reach, Variable
from .settings import Settings
from .sized import Sizes, is_size, rebuilt


class Program:
    """A function with its arguments.

    In its `with` block, the variables in which the function finds objects hold others, its
    `twins`, and get back what they held after it: also what the function has put into them.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        inputs: tuple[Any, ...],
        options: Mapping[str, Any],
        twins: Iterable[tuple[Variable, Any]] = (),
    ) -> None:
        self.function = function
        self.inputs = inputs
        self.options = options
        self._twins = list(twins)
        self._before: list[Any] = []

    def __enter__(self) -> Program:
        self._before = [variable.get() for variable, _ in self._twins]
        for variable, twin in self._twins:
            variable.set(twin)
        return self

    def __exit__(self, *exception: object) -> None:
        for (variable, _), x in zip(self._twins, self._before, strict=True):
            variable.set(x)

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

    def plain(self) -> Program | None:
        """Return the program whose trace `tell` needs, if this one is another form of it."""
        return None

    def tell(self, graph: Graph, plain: Graph) -> None:
        """Add to the trace of this program what that of the other tells."""

    def run(self) -> Any:
        """Call the function."""
        return self.function(*self.inputs, **self.options)

    def bound(self) -> inspect.BoundArguments:
        """Return the arguments by the function's names for them.

        TypeError if they do not fit, ValueError for a builtin without a signature.
        """
        called = self.function.forward if isinstance(self.function, Module) else self.function
        return inspect.signature(called).bind(*self.inputs, **self.options)

    @functools.cached_property
    def reach(self) -> Reach:
        """All that the function gets at: its arguments, and what its code finds elsewhere."""
        return Reach({"": self.function, **self.bound().arguments})

    def modules(self) -> list[tuple[str, Module]]:
        """Return the modules that it uses, with their paths."""
        return self.reach.modules()

    def copies(self, changed: Iterable[Any]) -> bool:
        """Return True if the tensors and optimizers that a run has changed can be copied."""
        try:
            return all(map(self.reach.has, changed))
        except (TypeError, ValueError):  # a builtin without a signature
            return False

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
        memo: Memo = {}

        def resize(t: Tensor, shape: Sequence[int]) -> Tensor:
            if id(t) not in memo:
                memo[id(t)] = resized(t, tuple(shapes(t, list(shape))), least)
            made: Tensor = memo[id(t)]
            return made

        def leaf(x: Any, path: str) -> Any:
            if isinstance(x, Tensor):
                return resize(x, x.shape)
            return sizes.get(path, x) if is_size(x) else copied(x, memo)

        for t, shape in settings.shapes(sizes):
            resize(t, [n if n is not None else now for n, now in zip(shape, t.shape, strict=True)])
        for _, x in self.reach.objects.values():
            if isinstance(x, Tensor):
                resize(x, x.shape)
            elif isinstance(x, Optimizer):
                for p, state in x.state.items():
                    for t in state.values():
                        if isinstance(t, Tensor) and t.shape == p.shape:
                            memo[id(t)] = resized(t, tuple(resize(p, p.shape).shape), least)
        for module, _ in settings.modules:
            memo[id(module)] = object.__new__(type(module))
        for module, found in settings.modules:
            twin = memo[id(module)]
            for name, x in module.__dict__.items():
                if name != "_registered_hooks":
                    twin.__dict__[name] = copied(x, memo)
            settings.vary(module, found, twin, sizes)
        counts = {settings.sizes[path]: sizes.get(path, 0) for path in settings.growing}
        for layers in reversed(settings.lists):  # those inside a layer that is repeated first
            inside = memo[id(layers)]._modules
            for number in range(len(layers), counts.get(len(layers), 0)):
                inside[str(number)] = copy.deepcopy(inside[str(len(layers) - 1)])
        bound = self.bound()
        for name, argument in bound.arguments.items():
            bound.arguments[name] = rebuilt(argument, name, leaf)
        function = copied(self.function, memo)
        twins = [(each, copied(each.get(), memo)) for each in self.reach.variables]
        return type(self)(function, bound.args, bound.kwargs, twins)

    def copy(self) -> Program:
        """Return a copy that shares nothing with this program that may change."""
        return self.varied(Settings(), {}, lambda t, shape: list(t.shape), lambda most: most + 1)
