"""Schedules that run others: SequentialLR and ChainedScheduler."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from ..optimizer import Optimizer
from .plateau import ReduceLROnPlateau
from .scheduler import LRScheduler, set_value


class _Group(LRScheduler):
    """A schedule that runs several schedules of one optimizer."""

    def _adopt(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None) -> None:
        """Keep the schedules; TypeError or ValueError if they cannot be run together."""
        name = type(self).__name__
        if not schedulers:
            raise ValueError(f"{name} expects at least one schedule, got none")
        for number, scheduler in enumerate(schedulers):
            if not hasattr(scheduler, "optimizer"):
                kind = type(scheduler).__name__
                raise TypeError(f"{name}: schedule {number} has no optimizer, it is of type {kind}")
            if isinstance(scheduler, ReduceLROnPlateau):
                raise ValueError(f"{name} does not support ReduceLROnPlateau: it needs a measure")
            if scheduler.optimizer is not (optimizer or schedulers[0].optimizer):
                raise ValueError(f"{name} expects all schedules to belong to the same optimizer")
        self._schedulers = schedulers
        self.optimizer = schedulers[0].optimizer

    def state_dict(self) -> dict[str, Any]:
        """Return all attributes but the optimizer, with the states of the schedules."""
        state = super().state_dict()
        state["_schedulers"] = [s.state_dict() for s in self._schedulers]
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a state dict. The rates themselves are in the optimizer's."""
        super().load_state_dict({k: v for k, v in state_dict.items() if k != "_schedulers"})
        for scheduler, state in zip(self._schedulers, state_dict["_schedulers"], strict=True):
            scheduler.load_state_dict(state)


class SequentialLR(_Group):
    """Run schedules one after the other: `step()` is a step of one of them, and takes no epoch.

    - `schedulers`: the schedules, built for this optimizer.
    - `milestones`: the steps at which the second, the third, ... begin with their step 0.
    - `last_epoch`: the step to resume after; loading a state is simpler.

    Raises ValueError for schedules of another optimizer, for a ReduceLROnPlateau, and unless there
    is one milestone fewer than schedules; TypeError for objects that are not schedules.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: Sequence[LRScheduler],
        milestones: Sequence[int],
        last_epoch: int = -1,
    ) -> None:
        self._adopt(schedulers, optimizer)
        if len(milestones) != len(schedulers) - 1:
            raise ValueError(
                "SequentialLR expects one more schedule than milestones, got "
                f"{len(schedulers)} and {len(milestones)}"
            )
        self._milestones = milestones
        self.last_epoch = last_epoch + 1
        # Every schedule took its step 0 when it was built. Undo that, and repeat only the first's.
        for group in optimizer.param_groups:
            set_value(group, "lr", group["initial_lr"])
        _undo(self._schedulers)
        first = self._schedulers[bisect_right(self._milestones, 0)]
        first._initial_step()
        self._last_lr = first.get_last_lr()

    def step(self) -> None:  # type: ignore[override]
        """Set the rates of the next step."""
        self.last_epoch += 1
        number = bisect_right(self._milestones, self.last_epoch)
        current = self._schedulers[number]
        if number and self._milestones[number - 1] == self.last_epoch:
            current._update_lr(0)
        else:
            current.step()
        self._last_lr = current.get_last_lr()


def _undo(schedulers: Sequence[LRScheduler]) -> None:
    """Undo one step of schedules, and of those inside them."""
    for scheduler in schedulers:
        if isinstance(scheduler, _Group):
            _undo(scheduler._schedulers)
        else:
            scheduler.last_epoch -= 1


class ChainedScheduler(_Group):
    """Run several schedules at once: each step is a step of each, so that their factors multiply.

    A schedule that sets the rate, such as `LambdaLR`, discards the factors of those before it.
    `step()` takes no epoch.

    - `schedulers`: the schedules, all of one optimizer.
    - `optimizer`: that optimizer, the first schedule's by default.

    Raises as SequentialLR does.
    """

    def __init__(
        self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None
    ) -> None:
        self._adopt(schedulers, optimizer)
        self._last_lr = self._now()

    def step(self) -> None:  # type: ignore[override]
        """Set the rates of the next step."""
        for scheduler in self._schedulers:
            scheduler.step()
        self._last_lr = self._now()
