"""Views: tensors that show the memory of another, their base.

When that memory is changed in place, through the base or through another view, the base gets a new
history and the history of every view is stale. A view therefore remembers its view functions, the
ops that make it from the base; when its edge is next needed, they run again on the changed base.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..core import Op, Tensor, state
from .checkpoint import Frame
from .grad_mode import enable_grad, observe
from .hooks import move_retained


class ViewMeta:
    """Relates a view to the base whose memory it shows.

    `functions` are the view functions as a linked list, the last one outermost: (those before it,
    (op, arguments after the first, keyword arguments, number of the output)). `creation` names
    the circumstance that forbids changes with gradients, one of `_UNCHANGEABLE`, or "". `version`
    is that of the memory when the view's edge was made.
    """

    __slots__ = ("base", "creation", "functions", "version")

    def __init__(
        self, base: Tensor, functions: tuple[Any, ...], creation: str, version: int
    ) -> None:
        self.base = base
        self.functions = functions
        self.creation = creation
        self.version = version

    def refresh(self, view: Tensor) -> None:
        """Rebuild the history of `view` if its memory was changed in place since it was made."""
        base = self.base
        if not (base._requires_grad or (self.creation and view._edge is not None)):
            return
        box = view._version_box
        if box is None or box[0] == self.version:
            return
        check_view(view, "is used after its base or another view of its base was modified inplace")
        before = view._edge
        # These ops do not belong to a checkpoint: its second run may not need them.
        with observe(without=Frame), enable_grad():
            again = made_again(view, base)
        self.version = box[0]
        view._edge, view._requires_grad = again._edge, again._requires_grad
        move_retained(view, before)


def _link_views(
    cls: type[Op], args: Sequence[Any], kwargs: Mapping[str, Any], outs: Sequence[Tensor]
) -> None:
    """Tie the outputs of a view op to the base whose memory they show."""
    base: Tensor = args[0]
    array, known, box = base._array, base._view, base._version_box
    before: tuple[Any, ...] = ()
    creation = "" if state.grad else "no_grad"
    if known is not None:
        base, before, creation = known.base, known.functions, known.creation or creation
    version = 0 if box is None else box[0]
    for number, out in enumerate(outs):
        shown = out._array
        owner = shown.base
        shares = owner is array or owner is array.base is not None or shown is array
        if shares or not shown.size or np.may_share_memory(shown, array):  # else it is a copy
            functions = before, (cls, args[1:], kwargs, number)
            out._view = ViewMeta(base, functions, creation, version)
            out._version_box = box


Op.link_views = classmethod(_link_views)


def replay(functions: tuple[Any, ...], base: Tensor, relaxed: bool = False) -> Tensor:
    """Return the view that `functions` make from `base`.

    With `relaxed`, copies stand in where the layout of `base` does not allow a view.
    """
    steps = []
    while functions:
        functions, step = functions
        steps.append(step)
    for op, rest, kwargs, number in reversed(steps):
        made = ((relaxed and op.relaxed) or op).apply(base, *rest, **kwargs)
        base = made[number] if type(made) is tuple else made
    return base


def made_again(view: Tensor, base: Tensor) -> Tensor:
    """Return `view` made from its base again; RuntimeError if it would show other memory."""
    assert view._view is not None
    functions = view._view.functions
    if not (base._relaid or view._relaid):
        return replay(functions, base)
    try:
        made = replay(functions, base)
    except (RuntimeError, IndexError):
        made = None
    if made is None or not view.is_set_to(made):
        raise RuntimeError(
            f"a view of shape {tuple(view.shape)} was made before its base was laid out anew in "
            "place (t_, transpose_, squeeze_, .data = ...), and changed after: its history is "
            "lost. Make the view again after such a change"
        )
    return made


def forget_base(view: Tensor) -> Tensor:
    """Make `view`, the only reference to its base, a tensor of its own, and return it."""
    view._view = None
    return view


# The circumstances in which a view has no history that could be rebuilt, by `ViewMeta.creation`.
_UNCHANGEABLE = {
    "no_grad": "It was created in no_grad mode, so it is not known whether gradients are to flow "
    "through the change. Create the view outside of no_grad mode, or change it inside",
    "function": "It was created inside a custom Function (or because an input was returned as it "
    "is), whose backward the change would override. Clone the output of the custom Function",
}


def check_view(t: Tensor, event: str) -> None:
    """Raise RuntimeError if `t` is a view that must not be changed while recording."""
    if t._view is not None and t._view.creation:
        edge = t._edge
        what = "A view" if edge is None else f"Output {edge[1]} of {edge[0].name()}, a view"
        raise RuntimeError(
            f"{what} of shape {tuple(t.shape)}, {event}. {_UNCHANGEABLE[t._view.creation]}."
        )
