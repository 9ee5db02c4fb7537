"""Optimizer: what all optimisers share, and what to subclass for one of your own."""

from __future__ import annotations

import copy
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..autograd import enable_grad
from ..core import Tensor, wrap

required: Any = object()  # as a default: every group must set this


class Optimizer:
    """Changes parameters by their gradients, group by group.

    `params` is an iterable of tensors, of (name, tensor) pairs, or of dicts with the key "params"
    and settings of that group; `defaults` are the settings of groups that say nothing else.
    A subclass defines `step`, keeps what it remembers of a parameter p in `self.state[p]`, and
    finds the settings in `self.param_groups`.

    Raises ValueError for no parameters, for one in two groups, and for one that is no leaf;
    TypeError for what is no tensor.
    """

    def __init__(self, params: Any, defaults: dict[str, Any] | None = None) -> None:
        self.defaults = defaults or {}
        self.state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        self.param_groups: list[dict[str, Any]] = []
        if isinstance(params, Tensor):
            raise TypeError(
                "params argument given to the optimizer should be an iterable of Tensors or dicts, "
                "but got a Tensor"
            )
        groups = list(params)
        if not groups:
            raise ValueError("optimizer got an empty parameter list")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for number, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {number}")
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
        return "\n".join([*lines, ")"])

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with settings of their own; what is not set takes the defaults."""
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group)}")
        group = dict(param_group)
        params = group["params"]
        if isinstance(params, set):
            raise TypeError(
                "optimizer parameters need to be organized in ordered collections, but the "
                "ordering of tensors in sets will change between runs. Please use a list instead."
            )
        params = [params] if isinstance(params, Tensor) else list(params)
        if params and isinstance(params[0], tuple):
            group["param_names"] = [name for name, _ in params]
            params = [p for _, p in params]
        for p in params:
            if not isinstance(p, Tensor):
                raise TypeError(
                    f"optimizer can only optimize Tensors, but one of the params is {type(p)}"
                )
            if not p.is_leaf:
                raise ValueError("can't optimize a non-leaf Tensor")
        for key, value in self.defaults.items():
            if group.setdefault(key, value) is required:
                raise ValueError(f"parameter group didn't specify a value of {key}")
        if len(set(params)) != len(params):
            warnings.warn(
                "optimizer contains a parameter group with duplicate parameters: they are updated "
                "more than once in each step",
                stacklevel=3,
            )
        known = {p for other in self.param_groups for p in other["params"]}
        if not known.isdisjoint(params):
            raise ValueError("some parameters appear in more than one parameter group")
        group["params"] = params
        self.param_groups.append(group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or set them to zero."""
        for group in self.param_groups:
            for p in group["params"]:
                if set_to_none:
                    p._grad = None
                elif p._grad is not None:
                    p._grad = p._grad.detach()
                    p._grad._array[...] = 0
                    p._grad._bump()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters; a `closure` computes the loss and its gradients first."""
        raise NotImplementedError(f"{type(self).__name__} defines no step")

    def state_dict(self) -> dict[str, Any]:
        """What it remembers and its settings, with parameters numbered in order."""
        number: dict[Tensor, int] = {}
        for group in self.param_groups:
            for p in group["params"]:
                number.setdefault(p, len(number))
        groups = [{**g, "params": [number[p] for p in g["params"]]} for g in self.param_groups]
        state = {number.get(key, key): value for key, value in self.state.items()}  # type: ignore[call-overload]
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a `state_dict` of an optimiser of parameters of the same number and order.

        Raises ValueError if the groups differ. What is remembered is copied, and takes the type of
        the parameter.
        """
        saved = state_dict["param_groups"]
        if len(saved) != len(self.param_groups):
            raise ValueError("loaded state dict has a different number of parameter groups")
        if any(
            len(new["params"]) != len(old["params"])
            for new, old in zip(saved, self.param_groups, strict=True)
        ):
            raise ValueError(
                "loaded state dict contains a parameter group that doesn't match the size of "
                "optimizer's group"
            )
        owner = {
            number: p
            for new, old in zip(saved, self.param_groups, strict=True)
            for number, p in zip(new["params"], old["params"], strict=True)
        }
        self.state = defaultdict(dict)
        for key, value in state_dict["state"].items():
            p = owner.get(key)
            self.state[key if p is None else p] = _copied(value, p)
        for new, old in zip(saved, self.param_groups, strict=True):
            params = old["params"]
            old.clear()
            old.update(copy.deepcopy({k: v for k, v in new.items() if k != "params"}))
            old["params"] = params
            for key, value in self.defaults.items():
                old.setdefault(key, value)


def _copied(value: Any, p: Tensor | None, key: Any = None) -> Any:
    """A copy, with tensors in the type of their parameter; a count of steps keeps its own."""
    if isinstance(value, Tensor):
        kind = p.dtype if p is not None and p.is_floating_point() and key != "step" else value.dtype
        return wrap(value._array.astype(kind, order="C"))
    if isinstance(value, dict):
        return {k: _copied(v, p, k) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(v, p) for v in value)
    return copy.deepcopy(value)


def run_closure(closure: Callable[[], Any] | None) -> Any:
    """The loss that a closure computes with gradients on; None without one."""
    if closure is None:
        return None
    with enable_grad():
        return closure()


def with_gradients(group: dict[str, Any]) -> Iterator[tuple[Tensor, np.ndarray]]:
    """The parameters of a group that have a gradient, each with the array of it."""
    for p in group["params"]:
        if p.grad is not None:
            yield p, p.grad._array


def by_type(
    group: dict[str, Any],
) -> dict[np.dtype[Any], tuple[list[Tensor], list[np.ndarray]]]:
    """For each type the parameters of a group that have a gradient, and the arrays of these."""
    found: dict[np.dtype[Any], tuple[list[Tensor], list[np.ndarray]]] = {}
    for p in group["params"]:
        if p._grad is not None:
            params, grads = found.setdefault(p._array.dtype, ([], []))
            params.append(p)
            grads.append(p._grad._array)
    return found


def check(**settings: float) -> None:
    """ValueError for a negative setting."""
    for name, value in settings.items():
        if not value >= 0:
            raise ValueError(f"Invalid {name} value: {value}, it must be at least 0")
