"""LRScheduler: the base class of schedules."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ...core import Tensor
from ..optimizer import Optimizer

ORDER = (
    "Detected call of `lr_scheduler.step()` before `optimizer.step()`. Call them in the opposite "
    "order: otherwise the first rate of the schedule is skipped."
)
OVERRIDDEN = (
    "`optimizer.step()` was overridden after the schedule was built. Make sure to call "
    "`optimizer.step()` before `lr_scheduler.step()`."
)
EPOCH = (
    "The epoch parameter of `scheduler.step()` is deprecated: call `step()` for the next step. "
    "With an epoch, the rates are those of the closed form, where there is one."
)


class LRScheduler:
    """A schedule; a subclass returns the rates of a step from `get_lr`.

    - `optimizer`: the optimizer whose groups have the rates. Its rates at the time are `base_lrs`.
    - `last_epoch`: the step to resume after; the groups must then have "initial_lr", as those of a
      loaded optimizer have. Loading the schedule's own state is simpler.

    A subclass that can compute the rates of step `last_epoch` from the step alone, whatever other
    schedules did, says so in a method `_get_closed_form_lr`; `step(epoch)` uses it. A rate that is
    a 0-dim tensor is changed in place.

    Raises TypeError if `optimizer` is not an Optimizer, KeyError without "initial_lr".
    """

    _is_initial = False  # True during the step that the constructor takes
    _get_lr_called_within_step = False

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        check_optimizer(optimizer)
        self.optimizer = optimizer
        for number, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", _own(group["lr"]))
            elif "initial_lr" not in group:
                raise KeyError(
                    f"param 'initial_lr' is not specified in param_groups[{number}] when resuming: "
                    "load the optimizer's state first"
                )
        self.base_lrs: list[float] = [_own(group["initial_lr"]) for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        optimizer.watch_steps()
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
        """Set the rates of the next step; call it after the optimizer's step.

        - `epoch`: deprecated; set the rates of this step, as if no other schedule had run.
        """
        if self._step_count == 1:
            if not hasattr(self.optimizer.step, "counted"):
                warnings.warn(OVERRIDDEN, stacklevel=2)
            elif not self.optimizer.has_stepped:
                warnings.warn(ORDER, stacklevel=2)
        self._step_count += 1
        if epoch is not None:
            warnings.warn(EPOCH, stacklevel=2)
        self._update_lr(epoch)

    def _initial_step(self) -> None:
        self._step_count = 0
        self._is_initial = True
        try:
            self.step()
        finally:
            self._is_initial = False

    def _update_lr(self, epoch: int | None = None) -> None:
        """Set the rates of the next step, or of step `epoch`."""
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        closed_form = None if epoch is None else getattr(self, "_get_closed_form_lr", None)
        with self._within_step():
            rates = self.get_lr() if closed_form is None else closed_form()
        self._set(rates)

    @contextmanager
    def _within_step(self) -> Iterator[None]:
        self._get_lr_called_within_step = True
        try:
            yield
        finally:
            self._get_lr_called_within_step = False

    def _warn_outside_step(self) -> None:
        """Warn of a `get_lr` that a user called."""
        if not self._get_lr_called_within_step:
            warnings.warn(
                "get_lr() computes the next rates: to get the last ones, call get_last_lr()",
                stacklevel=3,
            )

    def _now(self) -> list[Any]:
        """Return the rate that each group has."""
        return [_own(group["lr"]) for group in self.optimizer.param_groups]

    def _set(self, rates: Sequence[Any]) -> None:
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            set_value(group, "lr", rate)
        self._last_lr = self._now()

    def state_dict(self) -> dict[str, Any]:
        """Return all attributes but the optimizer."""
        return {key: value for key, value in self.__dict__.items() if key != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a state dict, also one of PyTorch's schedule of the same name.

        The rates themselves are in the optimizer's state dict.
        """
        self.__dict__.update(copy.deepcopy(state_dict))


def check_optimizer(optimizer: Any) -> None:
    """Raise TypeError if it is not an Optimizer."""
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")


def per_group(name: str, value: Any, optimizer: Optimizer) -> list[Any]:
    """Return one value for each group from one for all, or a list; ValueError for its length."""
    count = len(optimizer.param_groups)
    if not isinstance(value, list | tuple):
        return [_own(value) for _ in range(count)]
    if len(value) != count:
        raise ValueError(f"expected {count} values of {name}, one for each group, got {len(value)}")
    return [_own(each) for each in value]


def set_value(group: dict[str, Any], key: str, value: Any) -> None:
    """Set a setting of a group; one that is a tensor is changed in place."""
    if isinstance(group[key], Tensor):
        group[key].fill_(float(value))
    else:
        group[key] = value


def set_momentum(group: dict[str, Any], value: float) -> None:
    """Set the momentum of a group, or its beta1."""
    if "betas" in group:
        group["betas"] = (value, *group["betas"][1:])
    else:
        group["momentum"] = value


def check_momentum(optimizer: Optimizer) -> bool:
    """Return True if it has beta1, False if it has momentum; ValueError if it has neither."""
    if not optimizer.defaults.keys() & {"momentum", "betas"}:
        raise ValueError(
            "optimizer must support momentum or beta1 with `cycle_momentum` option enabled"
        )
    return "betas" in optimizer.defaults


def _own(value: Any) -> Any:
    """Return a number, or a copy of a tensor, which others may change in place."""
    return value.clone() if isinstance(value, Tensor) else value
