"""Expressions to compare with PyTorch, for names whose arguments no family of calls has.

Each line of `agree_expressions.txt` is evaluated in both libraries, with `torch` for the library,
`nn`, `F`, `optim`, `S` (schedulers) and `data` for its parts, and the functions of `Maker`.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np


class Maker:
    """Tensors of one library, the same in both, and helpers for modules and optimizers."""

    def __init__(self, library: Any) -> None:
        self.torch = library
        self.noise = np.random.RandomState(0)
        self.leaves: list[Any] = []

    def f(self, *shape: int) -> Any:
        """A float32 tensor that requires grad."""
        values = np.asarray(self.noise.standard_normal(shape), np.float32)
        self.leaves.append(self.torch.from_numpy(values).requires_grad_())
        return self.leaves[-1]

    def c(self, *shape: int) -> Any:
        """A float32 tensor that does not."""
        return self.torch.from_numpy(np.asarray(self.noise.standard_normal(shape), np.float32))

    def u(self, *shape: int) -> Any:
        """Numbers between 0.05 and 0.95 that require grad."""
        values = np.asarray(self.noise.uniform(0.05, 0.95, shape), np.float32)
        self.leaves.append(self.torch.from_numpy(values).requires_grad_())
        return self.leaves[-1]

    def i(self, high: int, *shape: int) -> Any:
        """Integers below `high`."""
        return self.torch.from_numpy(np.asarray(self.noise.randint(0, high, shape)))

    def b(self, *shape: int) -> Any:
        """True and False."""
        return self.torch.from_numpy(np.asarray(self.noise.rand(*shape) < 0.5))

    def run(self, module: Any, *args: Any, **kwargs: Any) -> list[Any]:
        """The results of a module, its keys, text, and the gradients of its parameters."""
        result = module(*args, **kwargs)
        outs = [y for y in _flat(result) if hasattr(y, "requires_grad") and y.requires_grad]
        parameters = list(module.parameters())
        if outs and parameters:
            sum((y * y.detach().cos()).sum() for y in outs).backward(retain_graph=True)
        grads = [p.grad for p in parameters]
        for leaf in self.leaves:
            leaf.grad = None
        return [result, repr(module), *module.state_dict(), grads]

    def optimize(self, make: Any, steps: int = 4) -> list[Any]:
        """The parameters and rates after some steps of what `make(parameters)` returns."""
        parameters = [self.f(3, 2), self.f(4)]
        self.leaves.clear()
        made = make(parameters)
        optimizer = getattr(made, "optimizer", made)
        seen: list[Any] = []
        for _ in range(steps):
            optimizer.zero_grad()
            (parameters[0].sin().sum() + (parameters[1] ** 2).sum()).backward()
            optimizer.step()
            if made is not optimizer:
                made.step(1.0) if type(made).__name__ == "ReduceLROnPlateau" else made.step()
            seen += [g["lr"] for g in optimizer.param_groups]
        return [[p.detach().clone() for p in parameters], seen]

    def tried(self, function: Any) -> Any:
        """The result, or the name of the class that is raised."""
        try:
            return function()
        except Exception as error:
            return type(error).__name__


def _flat(x: Any) -> list[Any]:
    return [y for z in x for y in _flat(z)] if isinstance(x, list | tuple) else [x]


def evaluate(expression: str, library: Any) -> tuple[Any, list[Any]]:
    """Return the value of an expression in a library, and the leaves that it made."""
    library.manual_seed(0)
    maker = Maker(library)
    scope = {n: getattr(maker, n) for n in ("f", "c", "u", "i", "b", "run", "optimize", "tried")}
    spaces = dict(
        torch=library,
        nn=library.nn,
        F=library.nn.functional,
        optim=library.optim,
        S=library.optim.lr_scheduler,
        data=library.data if hasattr(library, "memory") else library.utils.data,
        np=np,
        math=math,
        copy=copy,
        itertools=itertools,
        OrderedDict=OrderedDict,
    )
    return eval(expression, {**spaces, **scope}), maker.leaves


def evaluate_layer(
    library: Any, make: Any, arrays: tuple[np.ndarray, ...]
) -> tuple[Any, list[Any]]:
    """Return what `make(nn)` does with the arrays in a library, and the leaves."""
    library.manual_seed(0)
    maker = Maker(library)
    for array in arrays:
        t = library.from_numpy(array.copy())
        maker.leaves.append(t.requires_grad_(array.dtype.kind == "f"))
    return maker.run(make(library.nn), *maker.leaves), maker.leaves


_LINES = Path(__file__).with_suffix(".txt").read_text().replace("\n  ", " ").splitlines()
EXPRESSIONS = [line for line in _LINES if line and line[0] != "#"]
