"""Hooks: functions of the user's that run before, after and going back through a module."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from ..autograd import Function, RemovableHandle
from ..core import Tensor, state

Hooks = dict[str, dict[int, Any]]  # by kind ("forward", "backward", ...), in the order they run
Hook = Callable[..., Any]


class Hooked:
    """The part of a Module that registers hooks."""

    forward: Callable[..., Any]
    _registered_hooks: Hooks | None = None  # None until the first is registered

    def _register(self, kind: str, hook: Any, prepend: bool = False) -> RemovableHandle:
        if self._registered_hooks is None:
            self._registered_hooks = {}
        of_kind = self._registered_hooks.setdefault(kind, {})
        before = list(of_kind)
        handle = RemovableHandle(of_kind, hook)
        if prepend:
            for number in before:  # move the others behind the new one
                of_kind[number] = of_kind.pop(number)
        return handle

    def register_forward_pre_hook(
        self, hook: Hook, *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call `hook(module, args)` before `forward`; a result other than None replaces `args`.

        - `prepend`: run it before the hooks that are registered already.
        - `with_kwargs`: call `hook(module, args, kwargs)`, which returns None or (args, kwargs).
        """
        return self._register("forward_pre", (hook, with_kwargs), prepend)

    def register_forward_hook(
        self,
        hook: Hook,
        *,
        prepend: bool = False,
        with_kwargs: bool = False,
        always_call: bool = False,
    ) -> RemovableHandle:
        """Call `hook(module, args, output)` after `forward`; a result replaces the output.

        - `prepend`: run it before the hooks that are registered already.
        - `with_kwargs`: call `hook(module, args, kwargs, output)`.
        - `always_call`: call it also if `forward` raises; an error of its own is only a warning.
        """
        return self._register("forward", (hook, with_kwargs, always_call), prepend)

    def register_full_backward_pre_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """Call `hook(module, grad_output)` going back; a result replaces `grad_output`."""
        return self._register("backward_pre", hook, prepend)

    def register_full_backward_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """Call `hook(module, grad_input, grad_output)`; a result replaces `grad_input`.

        The hook runs once the gradients of the inputs are known.
        """
        return self._register("backward", hook, prepend)

    def register_state_dict_pre_hook(self, hook: Hook) -> RemovableHandle:
        """Call `hook(module, prefix, keep_vars)` before `state_dict`."""
        return self._register("state_dict_pre", hook)

    def register_state_dict_post_hook(self, hook: Hook) -> RemovableHandle:
        """Call `hook(module, state_dict, prefix, {})` after `state_dict`, to change it in place."""
        return self._register("state_dict_post", hook)

    def register_load_state_dict_pre_hook(self, hook: Hook) -> RemovableHandle:
        """Call `hook(module, state_dict, prefix, {}, strict, missing, unexpected, errors)`.

        It runs before the module's own tensors are loaded.
        """
        return self._register("load_state_dict_pre", hook)

    def register_load_state_dict_post_hook(self, hook: Hook) -> RemovableHandle:
        """Call `hook(module, incompatible_keys)` after loading, to change its lists in place."""
        return self._register("load_state_dict_post", hook)


def call(module: Hooked, hooks: Hooks, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run `module.forward(*args, **kwargs)` with all its hooks, and return the output."""
    ran: set[int] = set()
    result = None
    try:
        for hook, with_kwargs in list(hooks.get("forward_pre", {}).values()):
            changed = hook(module, args, kwargs) if with_kwargs else hook(module, args)
            if changed is None:
                continue
            if not with_kwargs:
                args = changed if isinstance(changed, tuple) else (changed,)
            elif isinstance(changed, tuple) and len(changed) == 2:
                args, kwargs = changed
            else:
                raise RuntimeError(
                    "forward pre-hook must return None or a tuple of (new_args, new_kwargs), "
                    f"but got {changed}."
                )
        backward = None
        if hooks.get("backward_pre") or hooks.get("backward"):
            backward = _Backward(module, hooks)
            args = backward.watch_inputs(args)
        result = module.forward(*args, **kwargs)
        for number, (hook, with_kwargs, _) in list(hooks.get("forward", {}).items()):
            ran.add(number)
            changed = (
                hook(module, args, kwargs, result) if with_kwargs else hook(module, args, result)
            )
            result = result if changed is None else changed
        return result if backward is None else backward.watch_outputs(result)
    except Exception:
        for number, (hook, with_kwargs, always) in list(hooks.get("forward", {}).items()):
            if not always or number in ran:
                continue
            try:
                hook(module, args, kwargs, result) if with_kwargs else hook(module, args, result)
            except Exception as error:
                warnings.warn(
                    f"{type(module).__name__}: a forward hook with always_call=True raised "
                    f"{error!r}, which gives way to the error that forward raised",
                    stacklevel=3,
                )
        raise


class _Watch(Function):
    """The identity; `seen(grads)` returns the gradients that the backward pass continues with."""

    @staticmethod
    def forward(ctx: Any, seen: Callable[..., Any], *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.seen = seen
        return tensors

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return (None, *ctx.seen(grads))


Grads = tuple[Any, ...]  # one for each positional argument or output; None where there is none


class _Backward:
    """The backward hooks of one call of a module.

    They run once the gradients of the inputs are known or, if no input has one, once those of the
    outputs are.
    """

    def __init__(self, module: Hooked, hooks: Hooks) -> None:
        self.module = module
        self.pre_hooks = list(hooks.get("backward_pre", {}).values())
        self.hooks = list(hooks.get("backward", {}).values())
        self.count_in = 0
        self.inputs: list[int] = []  # positions of the arguments that have a gradient
        self.outputs: list[int] = []
        self.grad_output: Grads | None = None

    def watch_inputs(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the arguments, passed through `_Watch` so that the hooks get their gradients."""
        self.count_in = len(args)
        args, self.inputs = _watched(args, self.got_inputs)
        return args

    def watch_outputs(self, result: Any) -> Any:
        """Return the output, passed through `_Watch` so that the hooks get its gradients."""
        single = not isinstance(result, tuple)
        results = (result,) if single else result
        self.count_out = len(results)
        results, self.outputs = _watched(results, self.got_outputs)
        return results[0] if single else results

    def got_outputs(self, grads: Grads) -> Sequence[Any]:
        """Run the hooks on the gradients of the outputs; return those to continue with."""
        grad_output = _spread(grads, self.outputs, self.count_out)
        for hook in self.pre_hooks:
            changed = hook(self.module, grad_output)
            if changed is not None:
                grad_output = _as_tuple(changed, self.count_out, "backward pre hook")
        self.grad_output = grad_output
        if not self.inputs:
            nothing = (None,) * self.count_in
            for hook in self.hooks:
                changed = hook(self.module, nothing, grad_output)
                if changed is not None and any(g is not None for g in changed):
                    raise RuntimeError(
                        "Backward hook for Modules where no input requires gradient should always "
                        "return None or None for all gradients."
                    )
            self.grad_output = None
        return [grad_output[i] for i in self.outputs]

    def got_inputs(self, grads: Grads) -> Sequence[Any]:
        """Run the hooks on the gradients of the inputs; return those to continue with."""
        if self.grad_output is None:
            raise RuntimeError(
                "Module backward hook for grad_input is called before the grad_output one. This "
                "happens because the gradient in your nn.Module flows to the Module's input "
                "without passing through the Module's output."
            )
        grad_input = _spread(grads, self.inputs, self.count_in)
        for hook in self.hooks:
            changed = hook(self.module, grad_input, self.grad_output)
            if changed is not None:
                grad_input = _as_tuple(changed, self.count_in, "backward hook")
        self.grad_output = None
        return [grad_input[i] for i in self.inputs]


def _watched(values: Grads, seen: Callable[..., Any]) -> tuple[Grads, list[int]]:
    """Pass the tensors that require grad through `_Watch`; return all, and their positions."""
    places = [i for i, v in enumerate(values) if isinstance(v, Tensor) and v.requires_grad]
    if not places or not state.grad:
        return values, []
    watched = list(values)
    for i, tensor in zip(places, _Watch.apply(seen, *(values[i] for i in places)), strict=True):
        watched[i] = tensor
    return tuple(watched), places


def _spread(grads: Grads, places: list[int], count: int) -> Grads:
    """Return `count` gradients: the given ones at their positions, None elsewhere."""
    full: list[Any] = [None] * count
    for i, g in zip(places, grads, strict=True):
        full[i] = g
    return tuple(full)


def _as_tuple(changed: Any, count: int, what: str) -> Grads:
    """Return the result of a hook as a tuple of `count` gradients, else raise RuntimeError."""
    grads = changed if isinstance(changed, tuple) else (changed,)
    if len(grads) != count:
        raise RuntimeError(f"{what}: got {len(grads)} gradients, but expected {count}")
    return grads
