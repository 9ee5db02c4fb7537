"""LRScheduler: the base class of schedules."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from ..optimizer import Optimizer


class LRScheduler:
    """A schedule; a subclass returns the rates of a step from `get_lr`.

    - `optimizer`: the optimizer whose groups have the rates. Its rates at the time are `base_lrs`.
    - `last_epoch`: the step to resume after; the groups must then have "initial_lr", as those of a
      loaded optimizer have. Loading the schedule's own state is simpler.

    Raises TypeError if `optimizer` is not an Optimizer, KeyError without "initial_lr".
    """

    _is_initial = False  # True during the step that the constructor takes

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        check_optimizer(optimizer)
        self.optimizer = optimizer
        for number, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise KeyError(
                    f"param 'initial_lr' is not specified in param_groups[{number}] when resuming: "
                    "load the optimizer's state first"
                )
        self.base_lrs: list[float] = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._initial_step()

    def get_lr(self) -> list[float]:
        """Compute the rate of each group at step `last_epoch`; users call `get_last_lr`.

        The groups still have the rates of the step before.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no get_lr")

    def get_last_lr(self) -> list[float]:
        """Return the rate of each group, as this schedule set it last."""
        return self._last_lr

    def step(self, epoch: int | None = None) -> None:
        """Set the rates of the next step, or of step `epoch` as if no other schedule had run."""
        self._update(epoch)

    def _initial_step(self) -> None:
        self._is_initial = True
        try:
            self.step()
        finally:
            del self._is_initial

    def _update(self, epoch: int | None = None) -> None:
        """Set the rates of the next step, or of step `epoch`."""
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        self._set(self.get_lr() if epoch is None else self._closed_form())

    def _closed_form(self) -> list[float]:
        """Compute the rates of step `last_epoch` from the step alone, if there is a formula."""
        return self.get_lr()

    def _now(self) -> list[float]:
        """Return the rate that each group has."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def _set(self, rates: Sequence[float]) -> None:
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self._last_lr = list(rates)

    def state_dict(self) -> dict[str, Any]:
        """Return all attributes but the optimizer."""
        return {key: value for key, value in self.__dict__.items() if key != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a state dict. The rates themselves are in the optimizer's."""
        self.__dict__.update(copy.deepcopy(state_dict))


def check_optimizer(optimizer: Any) -> None:
    """Raise TypeError if it is not an Optimizer."""
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")


def per_group(name: str, value: Any, optimizer: Optimizer) -> list[Any]:
    """Return one value for each group from one for all, or a list; ValueError for its length."""
    count = len(optimizer.param_groups)
    if not isinstance(value, list | tuple):
        return [value] * count
    if len(value) != count:
        raise ValueError(f"expected {count} values of {name}, one for each group, got {len(value)}")
    return list(value)
