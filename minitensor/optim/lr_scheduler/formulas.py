"""Schedules with a formula for the rate of step t."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..optimizer import Optimizer
from .scheduler import LRScheduler, check_optimizer, per_group


class LambdaLR(LRScheduler):
    """Set the rate to base * lr_lambda(t).

    - `lr_lambda`: a function of the step, or a list with one for each group.

    Raises TypeError for one that cannot be called, ValueError for another number of them.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_epoch: int = -1,
    ) -> None:
        check_optimizer(optimizer)
        self.lr_lambdas = per_group("lr_lambda", lr_lambda, optimizer)
        for function in self.lr_lambdas:
            if not callable(function):
                kind = type(function).__name__
                raise TypeError(f"lr_lambda should be a function, but got {kind}")
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Compute the rate of each group at step `last_epoch`."""
        self._warn_outside_step()
        pairs = zip(self.base_lrs, self.lr_lambdas, strict=True)
        return [base * factor(self.last_epoch) for base, factor in pairs]

    def state_dict(self) -> dict[str, Any]:
        """Return all attributes but the optimizer, and but functions; callable objects give theirs.

        For each of `lr_lambdas` there is None, or the attributes of a callable object.
        """
        functions = [None if hasattr(f, "__code__") else dict(vars(f)) for f in self.lr_lambdas]
        return {**super().state_dict(), "lr_lambdas": functions}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a state dict, with the functions that this schedule was built with."""
        functions = self.lr_lambdas
        super().load_state_dict(state_dict)
        for function, state in zip(functions, self.lr_lambdas, strict=True):
            if state is not None:
                vars(function).update(state)
        self.lr_lambdas = functions


class MultiplicativeLR(LambdaLR):
    """Multiply the rate by lr_lambda(t) at each step t > 0; arguments and errors as in LambdaLR."""

    def get_lr(self) -> list[float]:
        """Compute the rate of each group at step `last_epoch`."""
        self._warn_outside_step()
        if self._is_initial:
            return self._now()
        pairs = zip(self._now(), self.lr_lambdas, strict=True)
        return [rate * factor(self.last_epoch) for rate, factor in pairs]


class _FactorLR(LRScheduler):
    """A schedule base * factor(t), which multiplies the rate by factor(t) / factor(t - 1).

    The quotient is a formula of its own, `_change`: it has PyTorch's rounding, and no 0 / 0.
    """

    def _factor(self, t: int) -> float:
        """Return the factor of step t."""
        raise NotImplementedError

    def _change(self, t: int) -> float:
        """Return the quotient of the factors of steps t and t - 1."""
        raise NotImplementedError

    def get_lr(self) -> list[float]:
        """Compute the rate of each group at step `last_epoch`."""
        self._warn_outside_step()
        change = self._change(self.last_epoch)
        return [rate * change for rate in self._now()]

    def _get_closed_form_lr(self) -> list[float]:
        factor = self._factor(self.last_epoch)
        return [base * factor for base in self.base_lrs]


class StepLR(_FactorLR):
    """Lower the rate every `step_size` steps: base * gamma^floor(t / step_size).

    - `step_size`: the number of steps between changes.
    - `gamma`: the factor of each change (default 0.1).
    """

    def __init__(
        self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)

    def _factor(self, t: int) -> float:
        return self.gamma ** (t // self.step_size)

    def _change(self, t: int) -> float:
        return self.gamma if t > 0 and t % self.step_size == 0 else 1.0


class MultiStepLR(_FactorLR):
    """Lower the rate at given steps: base * gamma^(number of milestones <= t).

    - `milestones`: the steps; one that occurs twice counts twice.
    - `gamma`: the factor of each change (default 0.1).
    """

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: Iterable[int],
        gamma: float = 0.1,
        last_epoch: int = -1,
    ) -> None:
        self.milestones, self.gamma = Counter(milestones), gamma
        super().__init__(optimizer, last_epoch)

    def _factor(self, t: int) -> float:
        return self.gamma ** bisect_right(sorted(self.milestones.elements()), t)

    def _change(self, t: int) -> float:
        return self.gamma ** self.milestones[t]


class ConstantLR(_FactorLR):
    """Use base * factor for the first `total_iters` steps, then base.

    - `factor`: between 0 and 1 (default 1/3); ValueError for others.
    - `total_iters`: the number of steps (default 5).
    """

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

    def _factor(self, t: int) -> float:
        return self.factor + (t >= self.total_iters) * (1 - self.factor)

    def _change(self, t: int) -> float:
        if t == 0:
            return self.factor
        return 1.0 / self.factor if t == self.total_iters else 1.0

    def get_lr(self) -> list[float]:
        """Compute the rate of each group at step `last_epoch`."""
        if self.factor == 0 and self.last_epoch == self.total_iters > 0:
            return list(self.base_lrs)  # no factor leads back from a rate of 0
        return super().get_lr()


class LinearLR(_FactorLR):
    """Move along a line from base * start_factor to base * end_factor, such as for a warm-up.

    base * (start_factor + (end_factor - start_factor) * min(t / total_iters, 1))

    - `start_factor`: in (0, 1] (default 1/3).
    - `end_factor`: in [0, 1] (default 1).
    - `total_iters`: the number of steps (default 5).

    Raises ValueError for a factor out of range.
    """

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

    def _factor(self, t: int) -> float:
        rise = self.end_factor - self.start_factor
        return self.start_factor + rise * min(self.total_iters, t) / self.total_iters

    def _change(self, t: int) -> float:
        if t == 0:
            return self.start_factor
        if self._is_initial or t > self.total_iters:
            return 1.0
        rise = self.end_factor - self.start_factor
        return 1.0 + rise / (self.total_iters * self.start_factor + (t - 1) * rise)


class PolynomialLR(_FactorLR):
    """Lower the rate to 0 in `total_iters` steps: base * (1 - min(t / total_iters, 1))^power.

    - `total_iters`: the number of steps (default 5).
    - `power`: the exponent (default 1).
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_iters: int = 5,
        power: float = 1.0,
        last_epoch: int = -1,
    ) -> None:
        self.total_iters, self.power = total_iters, power
        super().__init__(optimizer, last_epoch)

    def _factor(self, t: int) -> float:
        return (1.0 - min(self.total_iters, t) / self.total_iters) ** self.power

    def _change(self, t: int) -> float:
        end = self.total_iters
        if self._is_initial or t > end:
            return 1.0
        return float(((1.0 - t / end) / (1.0 - (t - 1) / end)) ** self.power)


class ExponentialLR(_FactorLR):
    """Multiply the rate by `gamma` at every step: base * gamma^t."""

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def _factor(self, t: int) -> float:
        return float(self.gamma**t)

    def _change(self, t: int) -> float:
        return 1.0 if self._is_initial else self.gamma


class CosineAnnealingLR(LRScheduler):
    """Fall from base to eta_min along half a cosine wave in T_max steps, and rise again.

    eta_min + (base - eta_min) * (1 + cos(pi * t / T_max)) / 2

    - `T_max`: the number of steps of half a wave.
    - `eta_min`: the lowest rate (default 0).

    I. Loshchilov, F. Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017.
    """

    def __init__(
        self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Compute the rate of each group at step `last_epoch`."""
        self._warn_outside_step()
        t, end, low = self.last_epoch, self.T_max, self.eta_min
        if self._is_initial:
            return self._now()
        if (t - 1 - end) % (2 * end) == 0:  # one step after the lowest rate: no factor leads up
            rise = 1 - math.cos(math.pi / end)
            pairs = zip(self._now(), self.base_lrs, strict=True)
            return [rate + (base - low) * rise / 2 for rate, base in pairs]
        factor = (1 + math.cos(math.pi * t / end)) / (1 + math.cos(math.pi * (t - 1) / end))
        return [factor * (rate - low) + low for rate in self._now()]

    def _get_closed_form_lr(self) -> list[float]:
        wave = 1 + math.cos(math.pi * self.last_epoch / self.T_max)
        return [self.eta_min + (base - self.eta_min) * wave / 2 for base in self.base_lrs]


class CosineAnnealingWarmRestarts(LRScheduler):
    """Fall from base to eta_min along half a cosine wave, again and again.

    eta_min + (base - eta_min) * (1 + cos(pi * T_cur / T_i)) / 2, where T_cur counts the steps since
    the last restart and T_i is the length of this wave.

    - `T_0`: the number of steps of the first wave.
    - `T_mult`: each further wave has this many times the steps of the one before (default 1).
    - `eta_min`: the lowest rate (default 0).

    Raises ValueError unless T_0 and T_mult are positive integers and eta_min a number. Source: as
    for CosineAnnealingLR.
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
        if not isinstance(eta_min, int | float):
            raise ValueError(f"Expected float or int eta_min, but got {eta_min}")
        self.T_0, self.T_mult, self.eta_min = T_0, T_mult, eta_min
        self.T_i = T_0
        self.T_cur: float = last_epoch
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Compute the rates at this place of the wave."""
        self._warn_outside_step()
        wave = 1 + math.cos(math.pi * self.T_cur / self.T_i)
        return [self.eta_min + (base - self.eta_min) * wave / 2 for base in self.base_lrs]

    def step(self, epoch: float | None = None) -> None:
        """Set the rates of the next step, or of `epoch`, which may have a fraction.

        Raises ValueError for a negative one.
        """
        if epoch is None and self.last_epoch < 0:
            epoch = 0
        if epoch is None:
            epoch = self.last_epoch + 1
            self.T_cur += 1
            if self.T_cur >= self.T_i:
                self.T_cur %= self.T_i
                self.T_i *= self.T_mult
        elif epoch < 0:
            raise ValueError(f"Expected non-negative epoch, but got {epoch}")
        elif epoch < self.T_0:
            self.T_i, self.T_cur = self.T_0, epoch
        elif self.T_mult == 1:
            self.T_cur = epoch % self.T_0
        else:  # the n waves before this one have T_0 * (1 + T_mult + ... + T_mult^(n - 1)) steps
            more = self.T_mult - 1
            n = int(math.log(epoch / self.T_0 * more + 1, self.T_mult))
            self.T_cur = epoch - self.T_0 * (self.T_mult**n - 1) / more
            self.T_i = self.T_0 * self.T_mult**n
        self.last_epoch = math.floor(epoch)
        with self._within_step():
            self._set(self.get_lr())


class InverseSqrtLR(LRScheduler):
    """Warm up along a line, then fall with the root of the step, as for the first Transformer.

    factor * d_model^-0.5 * min(s^-0.5, s * warmup_steps^-1.5), s = t + 1. The rate that the
    optimizer was built with has no effect.

    - `d_model`: the width of the model.
    - `warmup_steps`: the number of steps in which the rate rises (default 4000).
    - `factor`: scales all rates (default 1).

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
        """Compute the rate of each group at step `last_epoch`."""
        self._warn_outside_step()
        s = self.last_epoch + 1
        rate = self.factor * self.d_model**-0.5 * min(s**-0.5, s * self.warmup_steps**-1.5)
        return [rate] * len(self.base_lrs)
