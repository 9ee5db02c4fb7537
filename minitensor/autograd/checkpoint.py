"""Checkpoints: save nothing in the forward pass, compute it again when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..core.op import Op
from ..core.saved import SavedTensors
from ..core.state import enable_grad, state
from ..core.tensor import Tensor
from ..random import default_generator


class Frame:
    """The ops of one checkpointed call: what they saved is thrown away and made again on demand."""

    def __init__(self, again: Callable[[], Any], inputs: SavedTensors) -> None:
        self.again = again
        self.inputs = inputs  # the tensors among the arguments, which must not have changed since
        self.count = 0
        self.made: list[tuple[SavedTensors, SavedTensors | None]] | None = None
        self.collecting = False

    def add(self, node: Op) -> None:
        """Take note of an op of the call, and of what it saved only while computing again."""
        if self.collecting:
            assert self.made is not None
            self.made.append((node._saved, node._inputs))
            return
        if any(type(value) is np.ndarray for value in node._saved.values):
            node._saved = Packed(self, self.count, 0)
        if node._inputs is not None:
            node._inputs = Packed(self, self.count, 1)
        self.count += 1

    def open(self, number: int) -> tuple[SavedTensors, SavedTensors | None]:
        """What op `number` of the call saved, and its inputs if it is fused."""
        if self.made is None:
            self.inputs.check("checkpoint")
            self.made = []
            self.collecting = True
            before = state.frame
            state.set(frame=self)
            try:
                with enable_grad():
                    self.again()
            finally:
                state.set(frame=before)
                self.collecting = False
            if len(self.made) != self.count:
                raise RuntimeError(
                    "checkpoint: another number of ops ran when the function was computed again "
                    f"({len(self.made)} instead of {self.count}); it must do the same both times"
                )
        return self.made[number]


class Packed(SavedTensors):
    """Stands for what op `number` of a checkpoint saved (`which` 0) or was given (1)."""

    __slots__ = ("frame", "number", "which")

    def __init__(self, frame: Frame, number: int, which: int) -> None:
        super().__init__((), None)
        self.frame = frame
        self.number = number
        self.which = which

    def open(self) -> SavedTensors:
        """The bag, from a second run of the call."""
        bag = self.frame.open(self.number)[self.which]
        assert bag is not None
        return bag


def checkpoint(
    function: Callable[..., Any],
    *args: Any,
    use_reentrant: bool = False,
    preserve_rng_state: bool = True,
    **kwargs: Any,
) -> Any:
    """Call `function` and keep nothing for its backward, which computes it again.

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

    before = state.frame
    tensors = [a for a in args if isinstance(a, Tensor)]
    state.set(frame=Frame(again, SavedTensors.of_tensors(tensors)))
    try:
        return function(*args, **kwargs)
    finally:
        state.set(frame=before)
