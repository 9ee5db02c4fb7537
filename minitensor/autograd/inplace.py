"""Changes in place: `x.mul_(2)`, `x += y`, `x[0] = y`, and the new history of the tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..core import Node, Op, Tensor, state, wrap
from ..core.node import clock, edge_for
from ..core.saved import SavedTensors, origin_of
from ..dtype import can_cast
from .grad_mode import is_inference_mode_enabled, no_grad
from .hooks import NodeHooks, move_retained
from .views import check_view, made_again, replay


def _in_place_method(cls: Any) -> Callable[..., Tensor]:
    """Return the method with a trailing underscore of an op."""

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return in_place(cls.op_name, self, lambda t: cls.call(t, *args, **kwargs))

    method.__name__ = f"{cls.op_name}_"
    method.__wrapped__ = cls.call  # type: ignore[attr-defined]
    method.__doc__ = f"`{cls.op_name}`, in place."
    return method


Op.in_place_method = staticmethod(_in_place_method)


def in_place(name: str, target: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
    """Replace the values of `target` by `compute(target)`, and its history by theirs.

    Raises RuntimeError on a leaf that requires grad (outside `no_grad`), when the result has
    another shape or a type of a higher category, and on an expanded target.
    """
    check_writable(name, target)
    array = target._array
    before = target
    if state.grad:  # an op may save the values that are about to be replaced
        before = wrap(array.copy())
        before._edge, before._requires_grad = target.edge(), target.requires_grad
        if before._edge is not None and target._view is not None:
            hooks = before._edge[0].hooks
            if isinstance(hooks, NodeHooks) and hooks.on_grad:
                # The gradient goes to the base, and not through the view that the hooks are on.
                before._edge = made_again(target, target._view.base)._edge
    for observer in state.observers:
        observer.writing(target, before)
    out = compute(before)
    if state.grad and out._requires_grad:
        check_view(target, f"is being modified inplace by {name}_")
    if out._array.shape != array.shape:
        raise RuntimeError(
            f"{name}_: output with shape {tuple(array.shape)} doesn't match the broadcast shape "
            f"{tuple(out._array.shape)}"
        )
    if out._array.dtype != array.dtype:
        if not can_cast(out._array.dtype, array.dtype):
            raise RuntimeError(
                f"{name}_: result type {out._array.dtype} can't be cast to the desired output type "
                f"{array.dtype}"
            )
        out = out.to(array.dtype)
    array[...] = out._array
    target._bump()
    if out._edge is not None:
        _move_saved(out._edge[0], out, target)
    rebase(target, out)
    for observer in state.observers:
        observer.wrote(target, out)
    return target


def overwritten(t: Tensor) -> None:
    """Count that something else than an op has written into `t`, and tell the observers."""
    t._bump()
    for observer in state.observers:
        observer.wrote(t, None)


def _move_saved(node: Node, out: Tensor, target: Tensor) -> None:
    """If `node` saved its output `out`, replace it by `target`, whose memory holds it now."""
    saved: SavedTensors = node._saved
    if not any(value is out._array for value in saved.values):
        return
    values, origins = list(saved.values), list(saved.origins)
    for number, origin in enumerate(origins):
        if values[number] is out._array:
            values[number] = target._array
            if origin is not None:
                origins[number] = origin_of(target, origin[0])
    node._saved = SavedTensors(tuple(values), origins)


def check_changeable(name: str, target: Tensor) -> None:
    """Raise RuntimeError if the history of `target` does not allow a change in place."""
    if state.grad and target.requires_grad:
        check_view(target, f"is being modified inplace by {name}_")
        root = target if target._view is None else target._view.base
        if root.is_leaf:
            what = "a leaf Variable" if root is target else "a view of a leaf Variable"
            raise RuntimeError(
                f"{name}_: {what} that requires grad is being used in an in-place operation. "
                "Use no_grad() to change a parameter by hand."
            )
    if target._version_box is None and not is_inference_mode_enabled():
        raise RuntimeError(
            f"{name}_: Inplace update to inference tensor outside InferenceMode is not allowed. "
            "You can make a clone to get a normal tensor before doing inplace update."
        )


def check_writable(name: str, target: Tensor) -> None:
    """Raise RuntimeError if the values of `target` may not be changed in place."""
    check_changeable(name, target)
    array = target._array
    if array.size and any(
        s == 0 and n > 1 for s, n in zip(array.strides, array.shape, strict=True)
    ):
        raise RuntimeError(
            f"{name}_: unsupported operation: more than one element of the written-to tensor "
            "refers to a single memory location. Please clone() the tensor before performing the "
            "operation."
        )
    if not array.flags.writeable:
        raise RuntimeError(
            f"{name}_: the tensor shows memory of another object, which may not be written: change "
            "a clone() of it instead"
        )


def rebase(target: Tensor, made: Tensor) -> None:
    """Give `target`, whose memory now holds the values of `made`, the history of `made`.

    If `target` is a view, its base takes part: there the values of the view are replaced.
    """
    if not state.grad:
        return
    if target._view is None:
        before = target._edge
        target._edge = made._edge
        target._requires_grad = made._requires_grad
        move_retained(target, before)
        return
    base = target._view.base
    if not (made._requires_grad or base._requires_grad):
        return
    if base._relaid:
        with no_grad():
            made_again(target, base)
    before = base._edge
    node = ViewScatter(target._view.functions, base, edge_for(base), made._edge)
    base._edge = (node, 0)
    base._requires_grad = True
    move_retained(base, before)


class ViewScatter(Node):
    """A base after a change through one of its views: PyTorch's CopySlices.

    y = base with the part that the view shows replaced by new.  dbase = dy outside that part,
    0 in it; dnew = the part of dy that the view shows.
    """

    op_name = "view_scatter"

    def __init__(self, functions: tuple[Any, ...], base: Tensor, to_base: Any, to_new: Any) -> None:
        self.functions = functions  # the view functions
        array = base._array
        # The axes from the largest stride to the smallest: a layout in which the view can be made.
        self.layout = sorted(range(array.ndim), key=lambda axis: -array.strides[axis])
        self.edges = (to_base, to_new)
        self.sequence_nr = next(clock)
        self.output_meta = ((array.shape, array.dtype),)

    def gradients(self, grads: list[Tensor | None]) -> tuple[Any, ...]:
        """Return the gradients of the base before and of the new values."""
        (dy,) = grads
        assert dy is not None
        part = replay(self.functions, dy, relaxed=True)
        shape = [dy._array.shape[axis] for axis in self.layout]
        array = np.empty(shape, dy._array.dtype).transpose(np.argsort(self.layout))
        array[...] = 1 if state.grad else dy._array
        outside = wrap(array)
        with no_grad():
            region = replay(self.functions, outside)
        region._array[...] = 0
        return dy * outside if state.grad else outside, part
