"""Function: ops of the user's own."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ..tensor import Tensor, wrap
from .op import Op, check_writable, clock
from .saved import NOTHING, Bag, edge_for
from .state import no_grad, state, user_line


class Function(Op, abstract=True):
    """An op of your own: static `forward(ctx, *args)` and `backward(ctx, *grads)`, as in PyTorch.

    `forward` gets and returns tensors and is not recorded. With a static
    `setup_context(ctx, inputs, output)`, `forward` takes no ctx. Call it by `apply`.
    """

    _to_save: tuple[Tensor | None, ...] = ()
    _dirty: tuple[Tensor, ...] = ()
    _constant: tuple[Tensor, ...] = ()

    def __init_subclass__(cls, abstract: bool = False) -> None:
        cls.title = cls.__name__
        cls.view = cls.fused = False

    def name(self) -> str:
        """PyTorch's name of the node."""
        return f"{type(self).__name__}Backward"

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep tensors for `backward`, where `ctx.saved_tensors` gives them back."""
        self._to_save = tensors

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """What `save_for_backward` kept."""
        return self._bag().tensors(self)

    def mark_dirty(self, *tensors: Tensor) -> None:
        """Say which arguments `forward` changed in place and returns."""
        self._dirty = tensors

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """Say which outputs have no gradient."""
        self._constant = tensors

    def set_materialize_grads(self, value: bool) -> None:
        """Whether `backward` gets zeros (the default) or None for an output nobody used."""
        self.materialize = value

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Run `forward` and record it if a gradient may be asked for."""
        node = cls()
        recording = state.grad and any(isinstance(a, Tensor) and a.requires_grad for a in args)
        node.edges = [edge_for(a) if recording and isinstance(a, Tensor) else None for a in args]
        with no_grad():
            if hasattr(cls, "setup_context"):
                result = cls.forward(*args, **kwargs)
                cls.setup_context(node, args, result)
            else:
                result = cls.forward(node, *args, **kwargs)
        single = not isinstance(result, tuple)
        outs = []
        for r in (result,) if single else result:
            if isinstance(r, Tensor) and any(r is d for d in node._dirty):
                check_writable(cls.title, r)
                r._bump()
            elif isinstance(r, Tensor) and (r._edge is not None or any(r is a for a in args)):
                r = wrap(r._array)
            outs.append(r)
        tensors = [o for o in outs if isinstance(o, Tensor)]
        if recording:
            node.order = next(clock)
            node.metas = tuple(
                (o._array.shape, o._array.dtype) if isinstance(o, Tensor) else ((), None)
                for o in outs
            )
            constant = [c._array for c in node._constant]
            for number, out in enumerate(outs):
                if not isinstance(out, Tensor) or any(out._array is c for c in constant):
                    continue
                if out._array.dtype.kind == "f":
                    out._edge = (node, number)
                    out._requires_grad = True
            values = tuple(t._array if isinstance(t, Tensor) else t for t in node._to_save)
            arrays = [a._array if isinstance(a, Tensor) else a for a in args]
            node._saved = Bag.of(values, args, arrays, node.edges, tensors) if values else NOTHING
            if state.frame is not None:
                state.frame.add(node)
            if state.anomaly:
                node.line = user_line()
        for name in ("_to_save", "_dirty", "_constant"):  # their tensors may point at this node
            node.__dict__.pop(name, None)
        if state.recorder is not None:
            state.recorder.op(node, args, kwargs, tensors)
        return outs[0] if single else tuple(outs)

    def gradients(self, *grads: Any) -> Any:
        """Run the user's static backward rule."""
        found = type(self).backward(self, *grads)
        found = found if isinstance(found, tuple) else (found,)
        if len(found) < len(self.edges):
            raise RuntimeError(
                f"function {self.name()} returned an incorrect number of gradients "
                f"(expected {len(self.edges)}, got {len(found)})"
            )
        return found


def once_differentiable(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a Function's `backward` that cannot be differentiated itself."""

    @functools.wraps(function)
    def backward(ctx: Any, *grads: Any) -> Any:
        wanted = state.grad and any(isinstance(g, Tensor) and g.requires_grad for g in grads)
        with no_grad():
            found = function(ctx, *grads)
        if wanted:
            raise RuntimeError(
                "trying to differentiate twice a function that was marked with @once_differentiable"
            )
        return found

    return backward
