"""The compiler: record a call once, rewrite its ops, and replay it without Python.

    model = minitensor.compile(model)       # or @minitensor.compile, or model.compile()
    loss = model(x, y)
    loss.backward()

How it works, in the order of the files:

1. `record`. The first call with arguments of some kind (shapes, types, modes) runs as it is. An
   observer records its ops and what each was given; a profiling hook notes the user's functions
   that ran, and what would make the next call differ: numbers read from a tensor, clocks, NumPy.
2. `guards`. What those functions read besides the arguments - globals, attributes, settings of
   modules - is remembered, and looked up before each later call. If something differs, the call is
   recorded anew; if it differs again and again, it runs as it is from then on, and this is told.
3. `graph`. The recording becomes a list of ops on numbered values.
4. `rules`. Rules, the lines of `table`, replace groups of ops by fused ones: each is an expression
   that is found and one that it becomes. `chains` makes one op of neighbouring elementwise ops.
5. `plan`. The second call runs the new list of ops, and notes every call of a kernel with the
   addresses that it reads and writes, in an arena of memory; `addresses` tells them from numbers.
   The same is done with the first backward pass. From the third call on those kernels run again,
   one after another in compiled code: no tensor is made, no name looked up, no memory asked for.
6. `replayed` makes a call of it: random numbers, results, the node of the graph that stands for the
   whole call, and the cases in which the ops must run again one by one (a second derivative, a
   second backward pass). `targets` are what a call changes in place, and `frozen` weights that stay
   as they are.
7. `compiled` ties these together: the kinds of arguments, and the reasons to run a call as it is.

What cannot be repeated runs as it is, and a warning says why, once. `explain=True` prints what was
recorded, which rules applied and where, and what memory the plan needs (`explain`, `left`); a graph
of a compiled function draws the ops that are replayed (`traced`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from ..nn.module import Module
from .compiled import Compiled


class OptimizedModule(Module):
    """A module whose calls are compiled; its attributes are those of the module, `_orig_mod`."""

    _orig_mod: Any

    def __init__(self, module: Module, **settings: Any) -> None:
        super().__init__()
        self._orig_mod = module
        if getattr(module, "compiles_inside", False):
            module.compile(**settings)
            self.__dict__["_calls"] = module
        else:
            self.__dict__["_calls"] = compiled_calls(module, **settings)
        self.__dict__["training"] = module.training

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the module."""
        return self._calls(*args, **kwargs)

    def train(self, mode: bool = True) -> Any:
        """Set the mode of the module."""
        self.__dict__["training"] = mode
        self._orig_mod.train(mode)
        return self

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("_orig_mod"), name)

    def __setattr__(self, name: str, value: Any) -> None:
        if "_calls" not in self.__dict__ or hasattr(Module, name):
            super().__setattr__(name, value)
        if "_calls" in self.__dict__ and (name == "training" or not hasattr(Module, name)):
            setattr(self._orig_mod, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._orig_mod, name)

    def __len__(self) -> int:
        return len(self._orig_mod)

    def __getitem__(self, index: Any) -> Any:
        return self._orig_mod[index]

    def __iter__(self) -> Any:
        return iter(self._orig_mod)


def compiled_calls(
    function: Callable[..., Any],
    explain: bool = False,
    options: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Compiled:
    """Return what calls a function as `compile` says."""
    if options is not None and not isinstance(options, Mapping):
        raise TypeError(f"compile: options must be a dict, got {type(options).__name__}")
    return Compiled(function, explain, bool((options or {}).get("freezing", False)))


def compile(model: Any = None, *, explain: bool = False, **settings: Any) -> Any:
    """Return a function or module that computes the same, faster from its third call on.

    - `model`: a function, which may also be decorated, or a module: the module returned has the
      same parameters, and is `model` but for its calls.
    - `explain`: print what was recorded and how it was rewritten.
    - `settings`: PyTorch's. `options={"freezing": True}` is for a model that is only used: calls
      that record no gradient read weights of linear layers from a copy that is laid out once. What
      changes weights is noticed, but not what NumPy or `.data` write into them. Others, such as
      `mode` and `dynamic`, make no difference.

    The first call with arguments of new shapes, types or modes runs as it is. What cannot be
    repeated, as it depends on the numbers in a tensor, runs so always: a warning says why, once.
    TypeError for something that cannot be called, or options that are no dictionary.
    """
    if model is None:

        def fn(model: Any) -> Any:
            return compile(model, explain=explain, **settings)

        return fn
    if isinstance(model, Module):
        return OptimizedModule(model, explain=explain, **settings)
    if not callable(model):
        raise TypeError(f"compile: expected a function or a module, got {type(model).__name__}")
    calls = compiled_calls(model, explain, **settings)

    @functools.wraps(model)
    def compiled(*args: Any, **kwargs: Any) -> Any:
        return calls(*args, **kwargs)

    compiled._calls = calls  # type: ignore[attr-defined]
    return compiled


def calls_of(compiled: Callable[..., Any]) -> Compiled:
    """Return the record of a compiled function's or module's calls."""
    calls: Compiled = vars(compiled)["_calls"]
    return calls
