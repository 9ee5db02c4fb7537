"""Public classes and functions of nn, optim and data have the signatures of PyTorch's.

The same parameters in the same order, of the same kind, with the same defaults; so have the public
methods that both have. Intended differences are listed here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, get_overloads

import pytest
from conftest import needs_torch
from ours import OURS

import minitensor
from minitensor import data, nn, optim

Parameter = inspect.Parameter

# Our namespaces, and the names of PyTorch's.
SPACES: dict[str, tuple[Any, str]] = {
    "nn": (nn, "torch.nn"),
    "nn.init": (nn.init, "torch.nn.init"),
    "nn.utils": (nn.utils, "torch.nn.utils"),
    "nn.utils.rnn": (nn.utils.rnn, "torch.nn.utils.rnn"),
    "optim": (optim, "torch.optim"),
    "optim.lr_scheduler": (optim.lr_scheduler, "torch.optim.lr_scheduler"),
    "data": (data, "torch.utils.data"),
}
# Parameters of PyTorch's that ours leave out.
LEFT_OUT: dict[str, set[str]] = {
    "nn.Hardtanh": {"min_value", "max_value"},  # deprecated there
}
# Parameters of ours, all with defaults, that PyTorch's do not have.
ADDED: dict[str, set[str]] = {
    "data.Sampler": {"data_source"},  # PyTorch had it
}
# Parameters whose default differs: ours is None or an empty dict, where theirs is a global or none.
DEFAULTS = {"data.random_split": "generator", "optim.Optimizer": "defaults"}


def names(space: str) -> list[str]:
    """The public classes and functions of a namespace."""
    module = SPACES[space][0]
    return [name for name in module.__all__ if callable(getattr(module, name))]


def pairs(space: str) -> Iterator[tuple[str, Any, Any]]:
    """Each class, function and method of a namespace that both have: its name, ours, theirs."""
    own, path = SPACES[space]
    other = import_module(path)
    for name in names(space):
        full = f"{space}.{name}"
        if name in OURS.get(f"minitensor.{space}", ()):
            continue
        assert hasattr(other, name), f"{path} has no {name}: list it in tests/ours.py"
        mine, theirs = getattr(own, name), getattr(other, name)
        yield full, mine, theirs
        for method, function in (
            inspect.getmembers(mine, inspect.isroutine) if inspect.isclass(mine) else ()
        ):
            inherited = issubclass(mine, minitensor.Tensor) and hasattr(minitensor.Tensor, method)
            if not method.startswith("_") and hasattr(theirs, method) and not inherited:
                yield f"{full}.{method}", function, getattr(theirs, method)


def signature_of(function: Callable[..., Any]) -> dict[str, Parameter]:
    """The parameters; those of the first overload where a class takes `*args, **kwargs`."""
    init = getattr(function, "__init__", None)
    overloads = (
        get_overloads(init) if inspect.isclass(function) and inspect.isfunction(init) else []
    )
    parameters = dict(inspect.signature(overloads[0] if overloads else function).parameters)
    return {name: p for name, p in parameters.items() if not (overloads and name == "self")}


def described(
    name: str, function: Callable[..., Any], less: dict[str, set[str]]
) -> list[tuple[str, str, Any]]:
    """The name, kind and default of each parameter but `less`; a default's identity is ignored."""
    found = []
    for p in signature_of(function).values():
        if p.kind == Parameter.VAR_KEYWORD or p.name in less.get(name, ()):
            continue
        if p.kind == Parameter.VAR_POSITIONAL and name.endswith(".state_dict"):
            continue  # deprecated there
        default: Any = p.default
        if DEFAULTS.get(name) == p.name:
            default = "differs"
        elif default is not Parameter.empty and callable(default):
            default = "a function"
        found.append((p.name, p.kind.name, default))
    return found


@needs_torch
@pytest.mark.parametrize("space", SPACES)
def test_signatures_are_pytorchs(space: str) -> None:
    differing = {}
    for name, mine, theirs in pairs(space):
        own, other = described(name, mine, ADDED), described(name, theirs, LEFT_OUT)
        if own != other:
            differing[name] = own, other
    assert not differing


@needs_torch
def test_every_listed_difference_exists() -> None:
    """A difference that is gone must leave the lists."""
    known = {name: (mine, theirs) for space in SPACES for name, mine, theirs in pairs(space)}
    for place, listed in ((0, ADDED), (1, LEFT_OUT)):
        for name, parameters in listed.items():
            has, has_not = (
                inspect.signature(known[name][i]).parameters for i in (place, 1 - place)
            )
            assert parameters <= set(has), name
            assert not parameters & set(has_not), name
            if place == 0:
                assert all(has[p].default is not Parameter.empty for p in parameters), name
