"""CyclicLR."""

from __future__ import annotations

import math
import types
from collections.abc import Callable
from typing import Any, Literal

from ..optimizer import Optimizer
from .scheduler import (
    LRScheduler,
    check_momentum,
    check_optimizer,
    per_group,
    set_momentum,
    set_value,
)


class CyclicLR(LRScheduler):
    """Raise the rate along a line from base_lr to max_lr and lower it again, over and over.

    base_lr + (max_lr - base_lr) * height * scale, where height rises from 0 to 1 and falls back to
    0. Momentum, or beta1, moves the other way at the same time.

    - `base_lr`, `max_lr`: the lowest and the highest rate; one for all groups or a list.
    - `step_size_up`, `step_size_down`: the steps of each half of a cycle; the second is the first
      if None.
    - `mode`: "triangular" has a scale of 1, "triangular2" halves it after each cycle, "exp_range"
      uses gamma^t.
    - `gamma`: for "exp_range".
    - `scale_fn`: a function that gives the scale, instead of `mode`.
    - `scale_mode`: "cycle" calls it with the number of the cycle, from 1, "iterations" with t.
    - `cycle_momentum`: move momentum, or beta1, between `max_momentum` and `base_momentum`; each
      may be a list.

    Raises ValueError for an unknown mode, and for an optimizer without momentum and beta1 if
    `cycle_momentum`.

    L. Smith, "Cyclical Learning Rates for Training Neural Networks", 2017.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        base_lr: float | list[float],
        max_lr: float | list[float],
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: Literal["triangular", "triangular2", "exp_range"] = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None,
        scale_mode: Literal["cycle", "iterations"] = "cycle",
        cycle_momentum: bool = True,
        base_momentum: float = 0.8,
        max_momentum: float = 0.9,
        last_epoch: int = -1,
    ) -> None:
        check_optimizer(optimizer)
        self.optimizer = optimizer
        base_lrs = per_group("base_lr", base_lr, optimizer)
        if last_epoch == -1:
            for rate, group in zip(base_lrs, optimizer.param_groups, strict=True):
                set_value(group, "lr", rate)
        self.max_lrs = per_group("max_lr", max_lr, optimizer)
        up = float(step_size_up)
        self.total_size = up + (up if step_size_down is None else float(step_size_down))
        self.step_ratio = up / self.total_size
        if mode not in ("triangular", "triangular2", "exp_range") and scale_fn is None:
            raise ValueError(f"mode must be triangular, triangular2 or exp_range, got {mode!r}")
        self.mode, self.gamma = mode, gamma
        self._scale_fn_custom = scale_fn
        self.scale_mode: str = scale_mode
        if scale_fn is None:
            self.scale_mode = "iterations" if mode == "exp_range" else "cycle"
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            self.use_beta1 = check_momentum(optimizer)
            self.base_momentums = per_group("base_momentum", base_momentum, optimizer)
            self.max_momentums = per_group("max_momentum", max_momentum, optimizer)
            if last_epoch == -1:
                momenta = zip(self.max_momentums, self.base_momentums, strict=True)
                for group, (high, low) in zip(optimizer.param_groups, momenta, strict=True):
                    set_momentum(group, high)
                    group["max_momentum"], group["base_momentum"] = high, low
        super().__init__(optimizer, last_epoch)
        self.base_lrs = base_lrs

    def scale_fn(self, x: float) -> float:
        """Return the scale of cycle or step `x`."""
        if self._scale_fn_custom is not None:
            return self._scale_fn_custom(x)
        if self.mode == "triangular2":
            return 1 / (2.0 ** (x - 1))
        return 1.0 if self.mode == "triangular" else float(self.gamma**x)

    def get_lr(self) -> list[float]:
        """Compute the rates, and set the momenta."""
        self._warn_outside_step()
        cycle = math.floor(1 + self.last_epoch / self.total_size)
        x = 1.0 + self.last_epoch / self.total_size - cycle
        rising = x <= self.step_ratio
        height = x / self.step_ratio if rising else (x - 1) / (self.step_ratio - 1)
        scale = self.scale_fn(cycle if self.scale_mode == "cycle" else self.last_epoch)
        if self.cycle_momentum:
            momenta = zip(self.max_momentums, self.base_momentums, strict=True)
            for group, (high, low) in zip(self.optimizer.param_groups, momenta, strict=True):
                set_momentum(group, high - (high - low) * height * scale)
        pairs = zip(self.base_lrs, self.max_lrs, strict=True)
        return [base + (top - base) * height * scale for base, top in pairs]

    def state_dict(self) -> dict[str, Any]:
        """Return all attributes but the optimizer and, of `scale_fn`, those of an object alone."""
        function = self._scale_fn_custom
        plain = function is None or isinstance(function, types.FunctionType)
        return {**super().state_dict(), "_scale_fn_custom": None if plain else dict(vars(function))}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a state dict, with the `scale_fn` that this schedule was built with."""
        function: Any = self._scale_fn_custom
        super().load_state_dict(state_dict)
        if self._scale_fn_custom is not None:
            vars(function).update(vars(self)["_scale_fn_custom"])
        self._scale_fn_custom = function
