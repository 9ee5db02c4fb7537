"""Grad modes: blocks, or decorated functions, in which ops are recorded or not."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from ..core import Node, Observer, Tensor, state


class Mode(contextlib.ContextDecorator):
    """A block, or a decorated function, in which some of `state` has other values."""

    def __init__(self, **values: Any) -> None:
        self._values = values
        self._before: list[dict[str, Any]] = []

    def _recreate_cm(self) -> Mode:
        fresh = object.__new__(type(self))  # a decorated function may run in several threads
        fresh.__dict__.update(self.__dict__, _before=[])
        return fresh

    def _changes(self) -> dict[str, Any]:
        """Return the values that hold inside, by the name of the attribute of `state`."""
        return self._values

    def __enter__(self) -> Mode:
        changes = self._changes()
        self._before.append({name: getattr(state, name) for name in changes})
        state.__dict__.update(changes)
        return self

    def __exit__(self, *exception: object) -> None:
        state.__dict__.update(self._before.pop())


class no_grad(Mode):
    """Do not record ops: results need no gradient."""

    def __init__(self) -> None:
        super().__init__(grad=False)


class enable_grad(Mode):
    """Record ops, also inside `no_grad`."""

    def __init__(self) -> None:
        super().__init__(grad=True)


class set_grad_enabled(Mode):
    """Record ops or not, from here on or for a `with` block."""

    def __init__(self, mode: bool) -> None:
        super().__init__(grad=bool(mode))
        self._outer = state.grad
        state.grad = bool(mode)

    def __enter__(self) -> set_grad_enabled:
        self._before.append({"grad": self._outer})
        state.grad = self._values["grad"]
        return self


def is_grad_enabled() -> bool:
    """Return True if ops are being recorded."""
    return state.grad


# Observers of the ops of a block


class observe(Mode):
    """Show `observer`, if given, the ops that run inside; hide them from the class `without`."""

    def __init__(
        self, observer: Observer | None = None, without: type[Observer] | tuple[()] = ()
    ) -> None:
        super().__init__()
        self._observer = () if observer is None else (observer,)
        self._without = without

    def _changes(self) -> dict[str, Any]:
        others = [o for o in state.observers if not isinstance(o, self._without)]
        return {"observers": (*self._observer, *others)}


class _Inference(Observer):
    """Turns the results of ops into inference tensors, except views of other tensors."""

    sees_whole = True

    def ran(
        self, node: Node, args: Sequence[Any], kwargs: Mapping[str, Any], outs: Sequence[Tensor]
    ) -> None:
        for out in outs:
            if out._view is None and not any(out is a for a in args):
                out._version_box = None


_INFERENCE = _Inference()


class inference_mode(observe):
    """Like `no_grad`; moreover, tensors made inside can never become part of a graph."""

    def __init__(self, mode: bool = True) -> None:
        super().__init__(_INFERENCE if mode else None, without=_Inference)
        self._mode = mode

    def _changes(self) -> dict[str, Any]:
        return super()._changes() | ({"grad": False} if self._mode else {})


def is_inference_mode_enabled() -> bool:
    """Return True inside `inference_mode`."""
    return _INFERENCE in state.observers
