"""Schedules: the learning rate of each parameter group, step by step.

A schedule sets the rate of step 0 when it is built, and the next one with each `step()`, to be
called after the optimiser's. Most multiply the rate that the group has, as PyTorch's do: several
schedules on one optimiser take part in it together, and so does a rate that is set by hand.
`LambdaLR`, `CosineAnnealingWarmRestarts`, `OneCycleLR` and `InverseSqrtLR` set the rate instead.
"""

from __future__ import annotations

import copy
import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .optimizer import Optimizer


class LRScheduler:
    """A schedule; a subclass gives the rates of a step in `get_lr`.

    `base_lrs` are the rates that the optimiser was built with. To resume, give the `last_epoch`
    reached, or load a state.
    """

    _is_initial = False  # whether the step is the one that the constructor takes

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        _check_optimizer(optimizer)
        self.optimizer = optimizer
        for number, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise KeyError(
                    f"param 'initial_lr' is not specified in param_groups[{number}] when resuming: "
                    "load the optimizer's state first"
                )
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._initial_step()

    def get_lr(self) -> list[float]:
        """The rate of each group at step `last_epoch`, where `_now` is that of the step before.

        Users want `get_last_lr`.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no get_lr")

    def get_last_lr(self) -> list[float]:
        """The rate of each group, as this schedule set it."""
        return self._last_lr

    def step(self, epoch: int | None = None) -> None:
        """Set the rates of the next step, or of step `epoch`, as if no other schedule had run."""
        self._update(epoch)

    def _initial_step(self) -> None:
        self._is_initial = True
        try:
            self.step()
        finally:
            del self._is_initial

    def _update(self, epoch: int | None = None) -> None:
        """Go to the next step, or to step `epoch`."""
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        self._set(self.get_lr() if epoch is None else self._closed_form())

    def _closed_form(self) -> list[float]:
        """The rates of step `last_epoch` by a formula in the step alone, if there is one."""
        return self.get_lr()

    def _now(self, factor: float | None = None) -> list[float]:
        """The rate that each group has, times a factor."""
        rates = [group["lr"] for group in self.optimizer.param_groups]
        return rates if factor is None else [rate * factor for rate in rates]

    def _base(self, factor: float) -> list[float]:
        """The rate that each group was built with, times a factor."""
        return [base * factor for base in self.base_lrs]

    def _set(self, rates: Sequence[float]) -> None:
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self._last_lr = list(rates)

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimiser."""
        return {key: value for key, value in self.__dict__.items() if key != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a `state_dict`. The rate itself is in the optimiser's state."""
        self.__dict__.update(copy.deepcopy(state_dict))


_LRScheduler = LRScheduler  # its name in older code


def _check_optimizer(optimizer: Any) -> None:
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")


def _per_group(name: str, value: Any, optimizer: Optimizer) -> list[Any]:
    """One value for each group, from one for all or a list of them."""
    count = len(optimizer.param_groups)
    if not isinstance(value, list | tuple):
        return [value] * count
    if len(value) != count:
        raise ValueError(f"expected {count} values of {name}, one for each group, got {len(value)}")
    return list(value)


class LambdaLR(LRScheduler):
    """base * lr_lambda(step); one function, or one for each group."""

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_epoch: int = -1,
    ) -> None:
        _check_optimizer(optimizer)
        self.lr_lambdas = _per_group("lr_lambda", lr_lambda, optimizer)
        for function in self.lr_lambdas:
            if not callable(function):
                kind = type(function).__name__
                raise TypeError(f"lr_lambda should be a function, but got {kind}")
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The rate of each group at step `last_epoch`."""
        pairs = zip(self.base_lrs, self.lr_lambdas, strict=True)
        return [base * factor(self.last_epoch) for base, factor in pairs]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimiser; of functions only the attributes of callable objects."""
        functions = [None if hasattr(f, "__code__") else dict(vars(f)) for f in self.lr_lambdas]
        return {**super().state_dict(), "lr_lambdas": functions}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a `state_dict`, with the functions that this schedule was built with."""
        functions = self.lr_lambdas
        super().load_state_dict(state_dict)
        for function, state in zip(functions, self.lr_lambdas, strict=True):
            if state is not None:
                vars(function).update(state)
        self.lr_lambdas = functions


class MultiplicativeLR(LambdaLR):
    """At each step the rate times lr_lambda(step); one function, or one for each group."""

    def get_lr(self) -> list[float]:
        """The rate of each group at step `last_epoch`."""
        if self._is_initial:
            return self._now()
        pairs = zip(self._now(), self.lr_lambdas, strict=True)
        return [rate * factor(self.last_epoch) for rate, factor in pairs]


class StepLR(LRScheduler):
    """base * gamma^floor(t / step_size)."""

    def __init__(
        self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The rate of each group at step `last_epoch`."""
        due = self.last_epoch > 0 and self.last_epoch % self.step_size == 0
        return self._now(self.gamma if due else None)

    def _closed_form(self) -> list[float]:
        return self._base(self.gamma ** (self.last_epoch // self.step_size))


class MultiStepLR(LRScheduler):
    """base * gamma^(how many of `milestones` have been reached)."""

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: Iterable[int],
        gamma: float = 0.1,
        last_epoch: int = -1,
    ) -> None:
        self.milestones, self.gamma = sorted(milestones), gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The rate of each group at step `last_epoch`."""
        count = self.milestones.count(self.last_epoch)
        return self._now(self.gamma**count if count else None)

    def _closed_form(self) -> list[float]:
        return self._base(self.gamma ** bisect_right(self.milestones, self.last_epoch))


class ConstantLR(LRScheduler):
    """base * factor for `total_iters` steps, then base."""

    def __init__(
        self,
        optimizer: Optimizer,
        factor: float = 1.0 / 3,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        if not 0 <= factor <= 1:
            raise ValueError(f"factor must be between 0 and 1, got {factor}")
        self.factor, self.total_iters = factor, total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The rate of each group at step `last_epoch`."""
        if self.last_epoch == 0:
            return self._now(self.factor)
        if self.last_epoch != self.total_iters:
            return self._now()
        # No factor leads back from a rate of 0.
        return self._now(1.0 / self.factor) if self.factor else list(self.base_lrs)

    def _closed_form(self) -> list[float]:
        over = self.last_epoch >= self.total_iters
        return self._base(self.factor + over * (1 - self.factor))


class LinearLR(LRScheduler):
    """From base * start_factor to base * end_factor in `total_iters` equal steps: a warm-up."""

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        if not 0 < start_factor <= 1:
            raise ValueError(f"start_factor must be in (0, 1], got {start_factor}")
        if not 0 <= end_factor <= 1:
            raise ValueError(f"end_factor must be in [0, 1], got {end_factor}")
        self.start_factor, self.end_factor = start_factor, end_factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The rate of each group at step `last_epoch`."""
        if self.last_epoch == 0:
            return self._now(self.start_factor)
        if self._is_initial or self.last_epoch > self.total_iters:
            return self._now()
        rise = self.end_factor - self.start_factor
        before = self.total_iters * self.start_factor + (self.last_epoch - 1) * rise
        return self._now(1.0 + rise / before)

    def _closed_form(self) -> list[float]:
        rise = self.end_factor - self.start_factor
        done = min(self.total_iters, self.last_epoch)
        return self._base(self.start_factor + rise * done / self.total_iters)


class PolynomialLR(LRScheduler):
    """base * (1 - t / total_iters)^power, 0 from then on."""

    def __init__(
        self,
        optimizer: Optimizer,
        total_iters: int = 5,
        power: float = 1.0,
        last_epoch: int = -1,
    ) -> None:
        self.total_iters, self.power = total_iters, power
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The rate of each group at step `last_epoch`."""
        t, end = self.last_epoch, self.total_iters
        if self._is_initial or t > end:
            return self._now()
        return self._now(((1.0 - t / end) / (1.0 - (t - 1) / end)) ** self.power)

    def _closed_form(self) -> list[float]:
        left = 1.0 - min(self.total_iters, self.last_epoch) / self.total_iters
        return self._base(left**self.power)


class ExponentialLR(LRScheduler):
    """base * gamma^t."""

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The rate of each group at step `last_epoch`."""
        return self._now(None if self._is_initial else self.gamma)

    def _closed_form(self) -> list[float]:
        return self._base(self.gamma**self.last_epoch)


class CosineAnnealingLR(LRScheduler):
    """From base to eta_min along half a cosine wave in T_max steps, and back in the next T_max.

    I. Loshchilov, F. Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017.
    """

    def __init__(
        self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The rate of each group at step `last_epoch`."""
        t, end, low = self.last_epoch, self.T_max, self.eta_min
        if self._is_initial:
            return self._now()
        if (t - 1 - end) % (2 * end) == 0:  # one step up from the lowest rate, by no factor
            rise = 1 - math.cos(math.pi / end)
            pairs = zip(self._now(), self.base_lrs, strict=True)
            return [rate + (base - low) * rise / 2 for rate, base in pairs]
        factor = (1 + math.cos(math.pi * t / end)) / (1 + math.cos(math.pi * (t - 1) / end))
        return [factor * (rate - low) + low for rate in self._now()]

    def _closed_form(self) -> list[float]:
        wave = 1 + math.cos(math.pi * self.last_epoch / self.T_max)
        return [self.eta_min + (base - self.eta_min) * wave / 2 for base in self.base_lrs]


class CosineAnnealingWarmRestarts(LRScheduler):
    """From base to eta_min along half a cosine wave, again and again.

    The first takes T_0 steps, each further one T_mult times as many as the one before. `step` takes
    fractions of epochs too. Source: as CosineAnnealingLR.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        T_0: int,
        T_mult: int = 1,
        eta_min: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        if T_0 <= 0 or not isinstance(T_0, int):
            raise ValueError(f"Expected positive integer T_0, but got {T_0}")
        if T_mult < 1 or not isinstance(T_mult, int):
            raise ValueError(f"Expected integer T_mult >= 1, but got {T_mult}")
        self.T_0, self.T_mult, self.eta_min = T_0, T_mult, eta_min
        self.T_i = T_0  # the length of this wave
        self.T_cur: float = last_epoch  # the steps since it began
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The rate of each group in this wave."""
        wave = 1 + math.cos(math.pi * self.T_cur / self.T_i)
        return [self.eta_min + (base - self.eta_min) * wave / 2 for base in self.base_lrs]

    def step(self, epoch: float | None = None) -> None:
        """Set the rates of the next step, or of step `epoch`, which may be a fraction."""
        if epoch is None and self.last_epoch < 0:
            epoch = 0
        if epoch is None:
            self.last_epoch += 1
            self.T_cur += 1
        else:
            if epoch < 0:
                raise ValueError(f"Expected non-negative epoch, but got {epoch}")
            self.last_epoch = math.floor(epoch)
            self.T_i, self.T_cur = self.T_0, epoch
        while self.T_cur >= self.T_i:
            self.T_cur -= self.T_i
            self.T_i *= self.T_mult
        self._set(self.get_lr())


class InverseSqrtLR(LRScheduler):
    """factor * d_model^-0.5 * min(t^-0.5, t * warmup_steps^-1.5), with t counted from 1.

    It rises linearly for `warmup_steps`, then falls with the root of the step. The rate that the
    optimiser was built with plays no part.

    A. Vaswani et al., "Attention Is All You Need", 2017, section 5.3.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        d_model: int,
        warmup_steps: int = 4000,
        factor: float = 1.0,
        last_epoch: int = -1,
    ) -> None:
        self.d_model, self.warmup_steps, self.factor = d_model, warmup_steps, factor
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The rate of each group at step `last_epoch`."""
        t = self.last_epoch + 1
        rate = self.factor * self.d_model**-0.5 * min(t**-0.5, t * self.warmup_steps**-1.5)
        return [rate] * len(self.base_lrs)


class OneCycleLR(LRScheduler):
    """Up from max_lr / div_factor to max_lr, then down to the start divided by final_div_factor.

    The way up takes the part `pct_start` of `total_steps` (or epochs * steps_per_epoch); with
    `three_phase` as much again leads back down to the start, and the rest to the end.
    Momentum, or beta1, goes the other way between `max_momentum` and `base_momentum`.

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
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.85,
        max_momentum: float | list[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        _check_optimizer(optimizer)
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
        # Where each phase ends, and what it leads to: a rate, and a momentum.
        up = pct_start * total_steps
        self.phases: list[tuple[float, str, str]] = [(up - 1, "max_lr", "base_momentum")]
        if three_phase:
            self.phases.append((2 * up - 2, "initial_lr", "max_momentum"))
        self.phases.append((total_steps - 1, "min_lr", "max_momentum"))
        if last_epoch == -1:
            for group, top, low, high in zip(
                optimizer.param_groups,
                _per_group("max_lr", max_lr, optimizer),
                _per_group("base_momentum", base_momentum, optimizer),
                _per_group("max_momentum", max_momentum, optimizer),
                strict=True,
            ):
                group["initial_lr"] = top / div_factor
                group["max_lr"] = top
                group["min_lr"] = group["initial_lr"] / final_div_factor
                if cycle_momentum:
                    group["max_momentum"], group["base_momentum"] = high, low
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The rate of each group now, and its momentum. ValueError after the last step."""
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
        if self.anneal_strategy == "cos":
            return end + (start - end) * (1 + math.cos(math.pi * part)) / 2
        return start + (end - start) * part


class ReduceLROnPlateau(LRScheduler):
    """Multiplies the rate by `factor` when a measure has not improved for `patience` steps.

    `step(measure)`: a smaller one is better with mode "min", a larger one with "max". What counts
    as better is better by `threshold`, of the best so far ("rel") or as such ("abs"). After a
    reduction nothing counts for `cooldown` steps. The rate stays above `min_lr`, and changes of
    less than `eps` are not made.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | list[float] = 0.0,
        eps: float = 1e-8,
    ) -> None:
        _check_optimizer(optimizer)
        if factor >= 1.0:
            raise ValueError(f"factor must be below 1.0, got {factor}")
        if mode not in ("min", "max"):
            raise ValueError(f"mode must be 'min' or 'max', got {mode!r}")
        if threshold_mode not in ("rel", "abs"):
            raise ValueError(f"threshold_mode must be 'rel' or 'abs', got {threshold_mode!r}")
        self.optimizer = optimizer
        self.mode, self.factor, self.patience = mode, factor, patience
        self.threshold, self.threshold_mode = threshold, threshold_mode
        self.cooldown, self.eps = cooldown, eps
        self.min_lrs = _per_group("min_lr", min_lr, optimizer)
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = self.cooldown_counter = self.last_epoch = 0
        self._last_lr = [group["lr"] for group in optimizer.param_groups]

    def is_better(self, measure: float) -> bool:
        """Whether a measure is better than the best so far, by the threshold."""
        sign = -1 if self.mode == "min" else 1
        if self.threshold_mode == "rel":
            limit = self.best * (1 + sign * self.threshold)
        else:
            limit = self.best + sign * self.threshold
        return sign * measure > sign * limit

    def step(self, metrics: Any, epoch: int | None = None) -> None:
        """Note the measure, a number or a 0-dim tensor, and lower the rates if it is time."""
        measure = float(metrics)
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        if self.is_better(measure):
            self.best, self.num_bad_epochs = measure, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        rates = [group["lr"] for group in self.optimizer.param_groups]
        if self.num_bad_epochs > self.patience:
            lower = [max(r * self.factor, low) for r, low in zip(rates, self.min_lrs, strict=True)]
            rates = [
                new if old - new > self.eps else old for old, new in zip(rates, lower, strict=True)
            ]
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
        self._set(rates)


class _Group(LRScheduler):
    """Several schedules of one optimiser, run by this one."""

    def _check(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None) -> None:
        name = type(self).__name__
        if not schedulers:
            raise ValueError(f"{name} expects at least one schedule, got none")
        for number, scheduler in enumerate(schedulers):
            if not isinstance(scheduler, LRScheduler):
                kind = type(scheduler).__name__
                raise TypeError(f"{name}: schedule {number} is no schedule, but of type {kind}")
            if isinstance(scheduler, ReduceLROnPlateau):
                raise ValueError(f"{name} does not support ReduceLROnPlateau: it needs a measure")
            if scheduler.optimizer is not (optimizer or schedulers[0].optimizer):
                raise ValueError(f"{name} expects all schedules to belong to the same optimizer")
        self._schedulers = list(schedulers)
        self.optimizer = schedulers[0].optimizer

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimiser, with the states of the schedules."""
        state = super().state_dict()
        state["_schedulers"] = [s.state_dict() for s in self._schedulers]
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a `state_dict`."""
        super().load_state_dict({k: v for k, v in state_dict.items() if k != "_schedulers"})
        for scheduler, state in zip(self._schedulers, state_dict["_schedulers"], strict=True):
            scheduler.load_state_dict(state)


class SequentialLR(_Group):
    """One schedule after the other: number i + 1 begins, at its step 0, at step `milestones[i]`."""

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: Sequence[LRScheduler],
        milestones: Sequence[int],
        last_epoch: int = -1,
    ) -> None:
        self._check(schedulers, optimizer)
        if len(milestones) != len(schedulers) - 1:
            raise ValueError(
                "SequentialLR expects one more schedule than milestones, got "
                f"{len(schedulers)} and {len(milestones)}"
            )
        self._milestones = list(milestones)
        self.last_epoch = last_epoch + 1
        # All have taken their first step: those are undone, and the first schedule takes it again.
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"]
        _undo(self._schedulers)
        first = self._schedulers[bisect_right(self._milestones, 0)]
        first._initial_step()
        self._last_lr = first.get_last_lr()

    def step(self, epoch: int | None = None) -> None:
        """Set the rates of the next step; ValueError for another one, which cannot be chosen."""
        if epoch is not None:
            raise ValueError("SequentialLR: step() takes no epoch; it goes to the next one")
        self.last_epoch += 1
        number = bisect_right(self._milestones, self.last_epoch)
        current = self._schedulers[number]
        if number and self._milestones[number - 1] == self.last_epoch:
            current._update(0)
        else:
            current.step()
        self._last_lr = current.get_last_lr()


def _undo(schedulers: Sequence[LRScheduler]) -> None:
    """Put schedules, and those inside them, before the step they have taken."""
    for scheduler in schedulers:
        if isinstance(scheduler, _Group):
            _undo(scheduler._schedulers)
        else:
            scheduler.last_epoch -= 1


class ChainedScheduler(_Group):
    """Several schedules at once: each step is one of each, in turn, so that their factors multiply.

    Those of which each sets the rate, such as `LambdaLR`, undo what came before them.
    """

    def __init__(
        self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None
    ) -> None:
        self._check(schedulers, optimizer)
        self._last_lr = self._now()

    def step(self, epoch: int | None = None) -> None:
        """Set the rates of the next step; ValueError for another one, which cannot be chosen."""
        if epoch is not None:
            raise ValueError("ChainedScheduler: step() takes no epoch; it goes to the next one")
        for scheduler in self._schedulers:
            scheduler.step()
        self._last_lr = self._now()
