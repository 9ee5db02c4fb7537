"""Optimizer: the base class of all optimizers, and of those a user writes."""

from __future__ import annotations

import copy
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, overload

import numpy as np

from ..autograd import enable_grad
from ..core import Tensor, wrap
from ..kernels import multi_tensor

T = TypeVar("T")
Params = Iterable[Tensor] | Iterable[tuple[str, Tensor]] | Iterable[dict[str, Any]]
Group = dict[str, Any]  # "params", a list of tensors, and the settings for them

required: Any = object()  # a default for settings that every group must give


class Optimizer:
    """Change parameters by their gradients, group by group.

    - `params`: tensors, (name, tensor) pairs, or groups: dicts with the key "params" and the
      settings of that group.
    - `defaults`: the settings of groups that do not set them.

    A subclass defines `step`, reads the settings in `self.param_groups`, and keeps what it needs to
    remember about a parameter p in the dict `self.state[p]`.

    Raises ValueError for no parameters, a parameter in two groups, or one that is not a leaf, and
    TypeError for parameters that are not tensors.
    """

    def __init__(self, params: Params, defaults: dict[str, Any] | None = None) -> None:
        self.defaults: dict[str, Any] = defaults or {}
        self.state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        self.param_groups: list[Group] = []
        if isinstance(params, Tensor):
            raise TypeError(
                "params argument given to the optimizer should be an iterable of Tensors or dicts, "
                "but got a Tensor"
            )
        groups: list[Any] = list(params)
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

    def add_param_group(self, param_group: Group) -> None:
        """Add a group: a dict with "params" and settings; the defaults complete it.

        Raises as the constructor does, and TypeError for a set, which has no order.
        """
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
        """Set the gradients of all parameters to None, or else to zeros."""
        for group in self.param_groups:
            for p in group["params"]:
                if set_to_none:
                    p._grad = None
                elif p._grad is not None:
                    p._grad = p._grad.detach()
                    p._grad._array[...] = 0
                    p._grad._bump()

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], T]) -> T: ...
    def step(self, closure: Callable[[], T] | None = None) -> T | None:
        """Update every parameter that has a gradient.

        - `closure`: called first; it computes the loss and its gradients. Its loss is returned.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no step")

    def state_dict(self) -> dict[str, Any]:
        """Return {"state": ..., "param_groups": ...} with numbers in place of the parameters.

        The state's tensors are those of the optimizer, not copies.
        """
        number: dict[Tensor, int] = {}
        for group in self.param_groups:
            for p in group["params"]:
                number.setdefault(p, len(number))
        groups = [{**g, "params": [number[p] for p in g["params"]]} for g in self.param_groups]
        state = {number.get(key, key): value for key, value in self.state.items()}  # type: ignore[call-overload]
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from the state dict of an optimizer with as many parameters, in the same order.

        The state is copied, and its tensors are converted to the types of their parameters. Raises
        ValueError if the number or the sizes of the groups differ.
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
    """Copy part of a state; tensors take their parameter's type, except counts of steps."""
    if isinstance(value, Tensor):
        typed = p if p is not None and p.is_floating_point() and key != "step" else value
        kind = typed._array.dtype
        return wrap(value._array.astype(kind, order="C"))
    if isinstance(value, dict):
        return {k: _copied(v, p, k) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(v, p) for v in value)
    return copy.deepcopy(value)


class RuleOptimizer(Optimizer):
    """An optimizer whose rule `_update` changes the parameters of one group and type."""

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        super().__init__(params, defaults)
        self._records: defaultdict[Any, multi_tensor.MultiTensor] = defaultdict(
            multi_tensor.MultiTensor
        )  # by group and type

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], T]) -> T: ...
    def step(self, closure: Callable[[], T] | None = None) -> T | None:
        """Update every parameter that has a gradient; see `Optimizer.step`."""
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        for number, group in enumerate(self.param_groups):
            for dtype, (params, grads) in _by_type(group).items():
                self._update(group, params, grads, self._records[number, dtype])
                for p in params:
                    p._bump()
        return loss

    def _update(
        self, group: Group, params: list[Tensor], grads: list[np.ndarray], records: Any
    ) -> None:
        """Update the parameters, which have one type, in place by the arrays of their gradients.

        `records` belongs to kernels over many arrays: the addresses they keep between steps.
        """
        raise NotImplementedError


def _by_type(group: Group) -> dict[np.dtype[Any], tuple[list[Tensor], list[np.ndarray]]]:
    """Return by type the parameters of a group that have a gradient, and its arrays."""
    found: dict[np.dtype[Any], tuple[list[Tensor], list[np.ndarray]]] = {}
    for p in group["params"]:
        if p._grad is not None:
            params, grads = found.setdefault(p._array.dtype, ([], []))
            params.append(p)
            grads.append(p._grad._array)
    return found


def direction(group: Group, p: Tensor, g: np.ndarray) -> np.ndarray:
    """Return the gradient to descend: `maximize` turns its sign, an L2 penalty adds decay * p."""
    d = -g if group["maximize"] else g
    return d + group["weight_decay"] * p._array if group["weight_decay"] else d


def check(**settings: float) -> None:
    """Raise ValueError for a negative setting."""
    for name, value in settings.items():
        if not value >= 0:
            raise ValueError(f"Invalid {name} value: {value}, it must be at least 0")
