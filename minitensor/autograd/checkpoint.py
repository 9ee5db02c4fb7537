"""Checkpoints: save nothing in the forward pass, and recompute it for the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..core import Node, Observer, Tensor
from ..core.saved import SavedTensors, origin_of
from ..random import default_generator
from .grad_mode import enable_grad, observe


class Frame(Observer):
    """Sees the ops of one checkpointed call: drops their saved tensors, and recomputes on demand.

    `again` repeats the call. `inputs` are the tensors among its arguments, which must not change
    in place before that.
    """

    def __init__(self, again: Callable[[], Any], inputs: SavedTensors) -> None:
        self.again = again
        self.inputs = inputs
        self.count = 0
        self.made: list[tuple[SavedTensors, SavedTensors | None]] | None = None
        self.collecting = False

    def ran(
        self, node: Node, args: Sequence[Any], kwargs: Mapping[str, Any], outs: Sequence[Tensor]
    ) -> None:
        """Drop the saved tensors of an op of the call; while recomputing, collect them."""
        if not node.recorded:
            return
        if self.collecting:
            assert self.made is not None
            self.made.append((node._saved, node._inputs))
            return
        if any(type(value) is np.ndarray for value in node._saved.values):
            node._saved = Recomputed(self, self.count, 0)
        if node._inputs is not None:
            node._inputs = Recomputed(self, self.count, 1)
        self.count += 1

    def saved_by(self, number: int) -> tuple[SavedTensors, SavedTensors | None]:
        """Return the saved tensors of op `number` of the call and, if it is fused, its inputs."""
        if self.made is None:
            self.inputs.check("checkpoint")
            self.made = []
            self.collecting = True
            try:
                with observe(self, without=Frame), enable_grad():
                    self.again()
            finally:
                self.collecting = False
            if len(self.made) != self.count:
                raise RuntimeError(
                    "checkpoint: another number of ops ran when the function was computed again "
                    f"({len(self.made)} instead of {self.count}); it must do the same both times"
                )
        return self.made[number]


class Recomputed(SavedTensors):
    """Stands for the saved tensors (`which` 0) or inputs (1) of op `number` of a checkpoint."""

    __slots__ = ("frame", "number", "which")

    def __init__(self, frame: Frame, number: int, which: int) -> None:
        super().__init__((), ())
        self.frame = frame
        self.number = number
        self.which = which

    def unpack(self) -> SavedTensors:
        """Return the saved tensors of a second run of the call."""
        saved = self.frame.saved_by(self.number)[self.which]
        assert saved is not None
        return saved

    def operands(self) -> bool:
        """Return True: it stands for arrays."""
        return True


def checkpoint(
    function: Callable[..., Any],
    *args: Any,
    use_reentrant: bool = False,
    preserve_rng_state: bool = True,
    **kwargs: Any,
) -> Any:
    """Call `function` without saving its tensors; its backward pass calls it again to get them.

    Saves memory for the price of a second forward pass, with the same random numbers unless
    `preserve_rng_state` is False. `use_reentrant` is accepted and makes no difference.
    """
    start = default_generator.get_state() if preserve_rng_state else None

    def again() -> None:
        if start is None:
            function(*args, **kwargs)
            return
        now = default_generator.get_state()
        default_generator.set_state(start)
        try:
            function(*args, **kwargs)
        finally:
            default_generator.set_state(now)

    tensors = [a for a in args if isinstance(a, Tensor)]
    inputs = SavedTensors(tuple(t._array for t in tensors), [origin_of(t, None) for t in tensors])
    with observe(Frame(again, inputs), without=Frame):
        return function(*args, **kwargs)
