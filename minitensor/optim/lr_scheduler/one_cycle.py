"""OneCycleLR."""

from __future__ import annotations

import math
from typing import Literal

from ..optimizer import Optimizer
from .scheduler import LRScheduler, check_optimizer, per_group


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
            total_steps = epochs * steps_per_epoch
        if total_steps <= 0 or not isinstance(total_steps, int):
            raise ValueError(f"Expected positive integer total_steps, but got {total_steps}")
        if not 0 <= pct_start <= 1 or not isinstance(pct_start, float):
            raise ValueError(f"Expected float between 0 and 1 pct_start, but got {pct_start}")
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(
                f"anneal_strategy must be one of 'cos' or 'linear', instead got {anneal_strategy}"
            )
        momentum = "betas" if "betas" in optimizer.defaults else "momentum"
        if cycle_momentum and momentum not in optimizer.defaults:
            raise ValueError(
                "optimizer must support momentum or beta1 with `cycle_momentum` option enabled"
            )
        self.total_steps = total_steps
        self.anneal_strategy = anneal_strategy
        self.cycle_momentum = cycle_momentum
        # For each phase, its last step and the group's keys of the rate and momentum it ends with.
        up = pct_start * total_steps
        self.phases: list[tuple[float, str, str]] = [(up - 1, "max_lr", "base_momentum")]
        if three_phase:
            self.phases.append((2 * up - 2, "initial_lr", "max_momentum"))
        self.phases.append((total_steps - 1, "min_lr", "max_momentum"))
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
                    group["max_momentum"], group["base_momentum"] = high, low
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Compute the rates, and set the momenta. ValueError after the last step."""
        t = self.last_epoch
        if t > self.total_steps:
            raise ValueError(
                f"Tried to step {t} times. The specified number of total steps is "
                f"{self.total_steps}"
            )
        began, rate, momentum = 0.0, "initial_lr", "max_momentum"
        for number, (end, next_rate, next_momentum) in enumerate(self.phases):
            if t <= end or number == len(self.phases) - 1:
                break
            began, rate, momentum = end, next_rate, next_momentum
        part = (t - began) / (end - began)
        for group in self.optimizer.param_groups if self.cycle_momentum else ():
            value = self._between(group[momentum], group[next_momentum], part)
            if "betas" in group:
                group["betas"] = (value, *group["betas"][1:])
            else:
                group["momentum"] = value
        return [self._between(g[rate], g[next_rate], part) for g in self.optimizer.param_groups]

    def _between(self, start: float, end: float, part: float) -> float:
        """Interpolate: `start` at part 0, `end` at part 1."""
        if self.anneal_strategy == "cos":
            return end + (start - end) * (1 + math.cos(math.pi * part)) / 2
        return start + (end - start) * part
