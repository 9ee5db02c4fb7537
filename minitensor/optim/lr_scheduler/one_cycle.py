"""OneCycleLR."""

from __future__ import annotations

import math
from typing import Any, Literal

from ..optimizer import Optimizer
from .scheduler import LRScheduler, check_momentum, check_optimizer, per_group, set_momentum


class OneCycleLR(LRScheduler):
    """Raise the rate from start to max_lr, then lower it to start / final_div_factor.

    start = max_lr / div_factor. Momentum, or beta1, moves the other way at the same time.

    - `max_lr`: the highest rate; one for all groups or a list.
    - `total_steps`: the number of steps; or it is `epochs` * `steps_per_epoch`.
    - `pct_start`: the share of the steps in which the rate rises (default 0.3).
    - `anneal_strategy`: "cos" moves along half a cosine wave, "linear" along a line.
    - `cycle_momentum`: move momentum, or beta1, between `max_momentum` and `base_momentum`; each
      may be a list.
    - `div_factor`, `final_div_factor`: give the start and the end (default 25 and 10000).
    - `three_phase`: fall to start in as many steps as the rate rises, and to the end in the rest.

    Raises ValueError for arguments out of range, for an optimizer without momentum and beta1 if
    `cycle_momentum`, and for a step after the last.

    L. Smith, N. Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large
    Learning Rates", 2019.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | list[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: Literal["cos", "linear"] = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.85,
        max_momentum: float | list[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        check_optimizer(optimizer)
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ValueError(
                    "You must define either total_steps OR (epochs AND steps_per_epoch)"
                )
            if not all(isinstance(n, int) and n > 0 for n in (epochs, steps_per_epoch)):
                raise ValueError(
                    f"Expected positive integers, but got {epochs} epochs and {steps_per_epoch} "
                    "steps_per_epoch"
                )
            total_steps = epochs * steps_per_epoch
        if total_steps <= 0 or not isinstance(total_steps, int):
            raise ValueError(f"Expected positive integer total_steps, but got {total_steps}")
        if not 0 <= pct_start <= 1 or not isinstance(pct_start, float):
            raise ValueError(f"Expected float between 0 and 1 pct_start, but got {pct_start}")
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(
                f"anneal_strategy must be one of 'cos' or 'linear', instead got {anneal_strategy}"
            )
        self.optimizer = optimizer
        self.total_steps = total_steps
        self._anneal_func_type = anneal_strategy
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            self.use_beta1 = check_momentum(optimizer)
        up = float(pct_start * total_steps)
        ends: list[tuple[float, str, str]] = [(up - 1, "max_lr", "base_momentum")]
        if three_phase:
            ends.append((float(2 * pct_start * total_steps) - 2, "initial_lr", "max_momentum"))
        ends.append((total_steps - 1, "min_lr", "max_momentum"))
        rate, momentum = "initial_lr", "max_momentum"
        self._schedule_phases: list[dict[str, Any]] = []
        for end, next_rate, next_momentum in ends:
            phase = dict(
                end_step=end,
                start_lr=rate,
                end_lr=next_rate,
                start_momentum=momentum,
                end_momentum=next_momentum,
            )
            self._schedule_phases.append(phase)
            rate, momentum = next_rate, next_momentum
        if last_epoch == -1:
            for group, top, low, high in zip(
                optimizer.param_groups,
                per_group("max_lr", max_lr, optimizer),
                per_group("base_momentum", base_momentum, optimizer),
                per_group("max_momentum", max_momentum, optimizer),
                strict=True,
            ):
                group["initial_lr"] = top / div_factor
                group["max_lr"] = top
                group["min_lr"] = group["initial_lr"] / final_div_factor
                if cycle_momentum:
                    set_momentum(group, high)
                    group["max_momentum"], group["base_momentum"] = high, low
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Compute the rates, and set the momenta. ValueError after the last step."""
        self._warn_outside_step()
        t = self.last_epoch
        if t > self.total_steps:
            raise ValueError(
                f"Tried to step {t} times. The specified number of total steps is "
                f"{self.total_steps}"
            )
        began = 0.0
        for phase in self._schedule_phases:
            end = phase["end_step"]
            if t <= end or phase is self._schedule_phases[-1]:
                break
            began = end
        part = (t - began) / (end - began)
        groups = self.optimizer.param_groups
        for group in groups if self.cycle_momentum else ():
            start, stop = group[phase["start_momentum"]], group[phase["end_momentum"]]
            set_momentum(group, self._anneal_func(start, stop, part))
        return [self._anneal_func(g[phase["start_lr"]], g[phase["end_lr"]], part) for g in groups]

    def _anneal_func(self, start: float, end: float, part: float) -> float:
        """Interpolate: `start` at part 0, `end` at part 1."""
        if self._anneal_func_type == "cos":
            return end + (start - end) / 2.0 * (math.cos(math.pi * part) + 1)
        return (end - start) * part + start
