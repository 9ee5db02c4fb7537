"""Optimizer: the base class of all optimizers, and of those a user writes."""

from __future__ import annotations

import copy
import functools
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, overload

import numpy as np

from ..autograd import RemovableHandle, enable_grad
from ..autograd.gradients import clear_gradients
from ..autograd.inplace import overwritten
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

    has_stepped: bool | None = None  # since a schedule asked, None if none did
    _stepping = False  # in a step, which may call that of the class above

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "step" in vars(cls):
            cls.step = _counted(cls.step)  # type: ignore[method-assign]

    def __init__(self, params: Params, defaults: dict[str, Any] | None = None) -> None:
        self._hooks: defaultdict[str, dict[int, Any]] = defaultdict(dict)
        self.defaults: dict[str, Any] = {} if defaults is None else defaults
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

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_hooks"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__dict__.setdefault("_hooks", defaultdict(dict))

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
        """Set the gradients of all parameters to None, or else to zeros, in one pass over all."""
        clear_gradients((p for group in self.param_groups for p in group["params"]), set_to_none)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], T]) -> T: ...
    def step(self, closure: Callable[[], T] | None = None) -> T | None:
        """Update every parameter that has a gradient.

        - `closure`: called first; it computes the loss and its gradients. Its loss is returned.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no step")

    def watch_steps(self) -> None:
        """Note from now on in `has_stepped` that `step` was called; a schedule asks for it."""
        self.has_stepped = bool(self.has_stepped)

    def register_step_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(optimizer, args, kwargs)` before each step, where `args` begin with `self`.

        A result replaces the arguments: (args, kwargs).
        """
        return RemovableHandle(self._hooks["step_pre"], hook)

    def register_step_post_hook(self, hook: Callable[..., None]) -> RemovableHandle:
        """Call `hook(optimizer, args, kwargs)` after each step."""
        return RemovableHandle(self._hooks["step_post"], hook)

    def register_state_dict_pre_hook(
        self, hook: Callable[[Optimizer], None], prepend: bool = False
    ) -> RemovableHandle:
        """Call `hook(optimizer)` before `state_dict`; with `prepend`, before the hooks so far."""
        return self._register("state_dict_pre", hook, prepend)

    def register_state_dict_post_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> RemovableHandle:
        """Call `hook(optimizer, state_dict)` after `state_dict`; a result replaces the dict."""
        return self._register("state_dict_post", hook, prepend)

    def register_load_state_dict_pre_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> RemovableHandle:
        """Call `hook(optimizer, state_dict)` before loading; a result is loaded instead."""
        return self._register("load_state_dict_pre", hook, prepend)

    def register_load_state_dict_post_hook(
        self, hook: Callable[[Optimizer], None], prepend: bool = False
    ) -> RemovableHandle:
        """Call `hook(optimizer)` after loading."""
        return self._register("load_state_dict_post", hook, prepend)

    def _register(self, kind: str, hook: Any, prepend: bool) -> RemovableHandle:
        hooks = self._hooks[kind]
        before = list(hooks)
        handle = RemovableHandle(hooks, hook)
        for number in before if prepend else ():  # move them behind the new one
            hooks[number] = hooks.pop(number)
        return handle

    def state_dict(self) -> dict[str, Any]:
        """Return {"state": ..., "param_groups": ...} with numbers in place of the parameters.

        The state's tensors are those of the optimizer, not copies. Keys and values are those of
        PyTorch's optimizer of the same name.
        """
        for hook in self._hooks["state_dict_pre"].values():
            hook(self)
        number: dict[Tensor, int] = {}
        for group in self.param_groups:
            for p in group["params"]:
                number.setdefault(p, len(number))
        groups = [
            {**{key: value for key, value in group.items() if key != "params"}, "params": numbers}
            for group in self.param_groups
            for numbers in [[number[p] for p in group["params"]]]
        ]
        state = {number.get(key, key): value for key, value in self.state.items()}  # type: ignore[call-overload]
        result: dict[str, Any] = {"state": state, "param_groups": groups}
        for hook in self._hooks["state_dict_post"].values():
            changed = hook(self, result)
            result = result if changed is None else changed
        return result

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from the state dict of an optimizer with as many parameters, in the same order.

        The state is copied, and its tensors, which may be PyTorch's, are converted to the types of
        their parameters. Raises ValueError if the number or the sizes of the groups differ.
        """
        state_dict = dict(state_dict)
        for hook in self._hooks["load_state_dict_pre"].values():
            changed = hook(self, state_dict)
            state_dict = state_dict if changed is None else changed
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
        state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        for key, value in state_dict["state"].items():
            p = owner.get(key)
            state[key if p is None else p] = _copied(value, p)
        groups = []
        for new, old in zip(saved, self.param_groups, strict=True):
            settings = _copied({k: v for k, v in new.items() if k != "params"}, None)
            if "param_names" in old:
                settings.setdefault("param_names", old["param_names"])
            groups.append({**self.defaults, **settings, "params": old["params"]})
        self.__setstate__({"state": state, "param_groups": groups})
        for hook in self._hooks["load_state_dict_post"].values():
            hook(self)


def _counted(step: Callable[..., Any]) -> Callable[..., Any]:
    """Return a `step` that runs the hooks, and notes for schedules that it was called."""

    @functools.wraps(step)
    def run(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
        if self.has_stepped is False:
            self.has_stepped = True
        if self._stepping:
            return step(self, *args, **kwargs)
        given: tuple[Any, ...] = (self, *args)
        for hook in self._hooks["step_pre"].values():
            changed = hook(self, given, kwargs)
            if changed is not None:
                if not (isinstance(changed, tuple) and len(changed) == 2):
                    raise RuntimeError(
                        "a hook before a step must return None or (args, kwargs), but got "
                        f"{changed}"
                    )
                given, kwargs = changed
        self._stepping = True
        try:
            result = step(*given, **kwargs)
        finally:
            del self._stepping
        for hook in self._hooks["step_post"].values():
            hook(self, given, kwargs)
        return result

    run.counted = True  # type: ignore[attr-defined]
    return run


def _copied(value: Any, p: Tensor | None, key: Any = None) -> Any:
    """Copy part of a state; tensors take their parameter's type, except counts of steps."""
    if hasattr(value, "__array__") and not isinstance(value, Tensor | np.ndarray | np.generic):
        value = wrap(np.asarray(value))  # a tensor of another library
    if isinstance(value, Tensor):
        typed = p if p is not None and p.is_floating_point() and key != "step" else value
        kind = typed._array.dtype
        return wrap(value._array.astype(kind, order="C"))
    if type(value) is dict:
        return {k: _copied(v, p, k) for k, v in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_copied(v, p) for v in value)
    return copy.deepcopy(value)


class RuleOptimizer(Optimizer):
    """An optimizer whose rule `_update` changes the parameters of one group and type.

    Of the settings, "foreach", "fused" and "capturable" are PyTorch's and have no effect.
    """

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        if defaults["differentiable"]:
            raise RuntimeError(f"{type(self).__name__}: steps cannot be differentiated here")
        if defaults.get("foreach") and defaults.get("fused"):
            raise RuntimeError(f"{type(self).__name__}: foreach and fused exclude each other")
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
                    overwritten(p)
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


def check(**settings: float | Tensor) -> None:
    """Raise ValueError for a negative setting, and for a tensor of more than one element."""
    for name, value in settings.items():
        if isinstance(value, Tensor) and value.numel() != 1:
            raise ValueError(f"{name} is a tensor of shape {tuple(value.shape)}, not a number")
        if not value >= 0:
            raise ValueError(f"Invalid {name} value: {value}, it must be at least 0")
