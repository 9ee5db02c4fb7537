"""Function: an op of the user's own, written as in PyTorch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from time import perf_counter
from typing import Any, ClassVar

from ..core import Node, Tensor, state, wrap
from ..core.node import clock, edge_for
from ..core.saved import NOTHING, Origin, SavedTensors, origin_of
from ..dtype import FLOATING
from .grad_mode import no_grad
from .inplace import check_writable, rebase
from .views import ViewMeta, check_view


class Function(Node):
    """An op of your own: static `forward(ctx, *args)` and `backward(ctx, *grads)`, as in PyTorch.

    `forward` gets and returns tensors and is not recorded. With a static
    `setup_context(ctx, inputs, output)`, `forward` takes no ctx. Call it by `apply`.
    """

    broadcasts = True

    _to_save: tuple[Tensor | None, ...] = ()
    _dirty: tuple[Tensor, ...] = ()
    _constant: tuple[Tensor, ...] = ()

    forward: ClassVar[Callable[..., Any]]
    backward: ClassVar[Callable[..., Any]]

    def __init_subclass__(cls) -> None:
        cls.op_name = cls.__name__

    def name(self) -> str:
        """Return PyTorch's name of the node, such as "CubeBackward"."""
        return f"{type(self).__name__}Backward"

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep tensors for `backward`, where `ctx.saved_tensors` gives them back."""
        self._to_save = tensors

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """The tensors that `save_for_backward` kept."""
        return self._unpack().tensors(self)

    def mark_dirty(self, *tensors: Tensor) -> None:
        """Declare the arguments that `forward` changed in place, all of which it has to return."""
        self._dirty = tensors

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """Declare outputs that have no gradient."""
        self._constant = tensors

    def set_materialize_grads(self, value: bool) -> None:
        """Give `backward` zeros (the default) or None for an output that has no gradient."""
        self.materialize = value

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Run `forward` and record it if a gradient may be asked for."""
        node = cls()
        recording = state.grad and any(isinstance(a, Tensor) and a.requires_grad for a in args)
        node.edges = [edge_for(a) if recording and isinstance(a, Tensor) else None for a in args]
        start = perf_counter()
        with no_grad():
            if hasattr(cls, "setup_context"):
                result = cls.forward(*args, **kwargs)
                cls.setup_context(node, args, result)
            else:
                result = cls.forward(node, *args, **kwargs)
        node.seconds = perf_counter() - start
        single = not isinstance(result, tuple)
        results = (result,) if single else result
        if any(all(d is not r for r in results) for d in node._dirty):
            raise RuntimeError(
                "Some elements marked as dirty during the forward method were not returned as "
                "output. The inputs that are modified inplace must all be outputs of the Function: "
                f"{node.name()} has to return them."
            )
        node.sequence_nr = next(clock)  # lower than those of the nodes that depend on it
        several = len(results) > 1
        outs = [
            node._output(number, r, args, recording, several) if isinstance(r, Tensor) else r
            for number, r in enumerate(results)
        ]
        tensors = [o for o in outs if isinstance(o, Tensor)]
        if recording:
            node.output_meta = tuple(
                (o._array.shape, o._array.dtype) if isinstance(o, Tensor) else ((), None)
                for o in outs
            )
            node._saved = node._settle_saved(args, results)
        for name in ("_to_save", "_dirty", "_constant"):  # their tensors may point at this node
            node.__dict__.pop(name, None)
        for observer in state.observers:
            observer.ran(node, args, kwargs, tensors)
        return outs[0] if single else tuple(outs)

    def _settle_saved(self, args: tuple[Any, ...], results: tuple[Any, ...]) -> SavedTensors:
        """Return the saved tensors, each with the argument or result that it is identical to."""
        if not self._to_save:
            return NOTHING
        origins: list[Origin | None] = []
        for t in self._to_save:
            source = next((number for number, r in enumerate(results) if r is t), None)
            if source is None:
                source = next((e for a, e in zip(args, self.edges, strict=True) if a is t), None)
            origins.append(origin_of(t, source) if isinstance(t, Tensor) else None)
        values = (t._array if isinstance(t, Tensor) else t for t in self._to_save)
        return SavedTensors(tuple(values), origins)

    def _output(
        self, number: int, r: Tensor, args: tuple[Any, ...], recording: bool, several: bool
    ) -> Tensor:
        """Return `r`, which `forward` returned as result `number`, as an output of this node.

        An argument that `forward` changed is the output itself; one that it returns as it is, and a
        view made inside, become views that may not be changed later.
        """
        dirty = any(r is d for d in self._dirty)
        given = any(r is a for a in args)
        constant = any(r is c for c in self._constant) or r._array.dtype.kind not in FLOATING
        if dirty and recording:
            check_writable(type(self).__name__, r)
        if dirty:
            r._bump()
        if not recording or constant:
            if r.requires_grad:
                return r.detach() if given or r._view is None else r
            return _returned(r) if given and not dirty else r
        if dirty and r._view is not None and several:
            raise RuntimeError(
                f"{self.name()}: a Function that modifies a view inplace cannot return more than "
                "one Tensor, as only one of them can be the history of the view's base"
            )
        if dirty:
            check_view(r, f"was modified inplace by {self.name()}")
            out = wrap(r._array)
            out._edge, out._requires_grad = (self, number), True
            rebase(r, out)
            return r
        if given:
            out = _returned(r)
        elif r._view is not None:
            out = _as_view(r, r._view.base, r._view.functions)
        else:
            out = r if r._edge is None else r.detach()
        out._edge, out._requires_grad = (self, number), True
        return out

    def gradients(self, grads: list[Tensor | None]) -> tuple[Any, ...]:
        """Run the user's static backward rule."""
        if len(grads) > 1 and self.materialize:
            grads = self._materialized(grads)
        found = type(self).backward(self, *grads)
        found = found if isinstance(found, tuple) else (found,)
        if len(found) < len(self.edges):
            raise RuntimeError(
                f"function {self.name()} returned an incorrect number of gradients "
                f"(expected {len(self.edges)}, got {len(found)})"
            )
        return found


def _returned(argument: Tensor) -> Tensor:
    """Return another tensor for an argument that a Function returns as it is: a view of it."""
    out = wrap(argument._array)
    out._version_box = argument._version_box
    return _as_view(out, argument if argument._view is None else argument._view.base, ())


def _as_view(out: Tensor, base: Tensor, functions: tuple[Any, ...]) -> Tensor:
    """Make `out` a view that a Function made: one that cannot be changed with gradients."""
    version = out._version_box[0] if out._version_box else 0
    out._view = ViewMeta(base, functions, "function", version)
    return out


class _Once(Function):
    """y = x, which cannot be differentiated: it raises."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return wrap(x._array)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        raise RuntimeError(
            "trying to differentiate twice a function that was marked with @once_differentiable"
        )


def once_differentiable(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a Function's `backward` that cannot be differentiated itself.

    A second derivative through it raises RuntimeError.
    """

    @functools.wraps(function)
    def backward(ctx: Any, *grads: Any) -> Any:
        wanted = state.grad and any(isinstance(g, Tensor) and g.requires_grad for g in grads)
        with no_grad():
            found = function(ctx, *grads)
        if not wanted:
            return found
        single = not isinstance(found, tuple)
        guarded = [
            _Once.apply(g.detach().requires_grad_()) if isinstance(g, Tensor) else g
            for g in ((found,) if single else found)
        ]
        return guarded[0] if single else tuple(guarded)

    return backward
