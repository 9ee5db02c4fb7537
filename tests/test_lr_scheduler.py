"""Schedules against PyTorch's, step by step."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from conftest import needs_torch

import minitensor
from minitensor import optim
from minitensor.optim import lr_scheduler


def halved(step: int) -> float:
    return 0.5**step


def warmup(step: int) -> float:
    return min((step + 1) / 5, 1.0)


CASES: list[tuple[str, dict[str, Any]]] = [
    ("LambdaLR", dict(lr_lambda=halved)),
    ("LambdaLR", dict(lr_lambda=[halved, warmup])),
    ("StepLR", dict(step_size=7)),
    ("StepLR", dict(step_size=3, gamma=0.5)),
    ("MultiStepLR", dict(milestones=[3, 11, 11], gamma=0.5)),
    ("ConstantLR", dict()),
    ("ConstantLR", dict(factor=0.5, total_iters=8)),
    ("LinearLR", dict()),
    ("LinearLR", dict(start_factor=0.01, end_factor=0.7, total_iters=11)),
    ("PolynomialLR", dict(total_iters=12, power=2.0)),
    ("ExponentialLR", dict(gamma=0.9)),
    ("CosineAnnealingLR", dict(T_max=13)),
    ("CosineAnnealingLR", dict(T_max=5, eta_min=0.01)),
    ("CosineAnnealingWarmRestarts", dict(T_0=6)),
    ("CosineAnnealingWarmRestarts", dict(T_0=4, T_mult=2, eta_min=0.01)),
    ("OneCycleLR", dict(max_lr=0.7, total_steps=40)),
    ("OneCycleLR", dict(max_lr=[0.7, 0.1], epochs=8, steps_per_epoch=5, anneal_strategy="linear")),
    ("OneCycleLR", dict(max_lr=0.7, total_steps=40, three_phase=True, pct_start=0.4)),
    ("OneCycleLR", dict(max_lr=0.7, total_steps=40, cycle_momentum=False, div_factor=3.0)),
]
STEPS = 40


def optimizer(library: Any, name: str = "AdamW") -> Any:
    """An optimiser of two groups."""
    a, b = (library.zeros(2, requires_grad=True) for _ in range(2))
    if name == "SGD":
        return library.optim.SGD([dict(params=[a]), dict(params=[b], lr=0.3)], lr=0.1, momentum=0.9)
    return getattr(library.optim, name)([dict(params=[a]), dict(params=[b], lr=0.3)], lr=0.1)


def settings(o: Any) -> list[Any]:
    return [(g["lr"], g.get("momentum", 0), *g.get("betas", ())) for g in o.param_groups]


def both(name: str, kwargs: dict[str, Any], which: str = "AdamW") -> tuple[Any, Any, Any, Any]:
    import torch

    mine, theirs = optimizer(minitensor, which), optimizer(torch, which)
    return (
        mine,
        theirs,
        getattr(lr_scheduler, name)(mine, **kwargs),
        getattr(torch.optim.lr_scheduler, name)(theirs, **kwargs),
    )


@needs_torch
@pytest.mark.parametrize("which", ["AdamW", "SGD"])
@pytest.mark.parametrize(("name", "kwargs"), CASES)
def test_step_by_step(name: str, kwargs: dict[str, Any], which: str) -> None:
    mine, theirs, schedule, other = both(name, kwargs, which)
    for _ in range(STEPS):
        assert settings(mine) == settings(theirs)
        assert schedule.get_last_lr() == other.get_last_lr()
        assert schedule.last_epoch == other.last_epoch
        theirs.step()
        schedule.step()
        other.step()


MAKERS: dict[str, Any] = {
    "lambda": lambda s, o: s.LambdaLR(o, halved),
    "multiplicative": lambda s, o: s.MultiplicativeLR(o, lambda t: 0.9 + 0.01 * (t % 5)),
    "multiplicatives": lambda s, o: s.MultiplicativeLR(o, [warmup, lambda t: 0.97]),
    "step": lambda s, o: s.StepLR(o, 3, 0.1),
    "steps": lambda s, o: s.StepLR(o, 5, 0.7),
    "milestones": lambda s, o: s.MultiStepLR(o, [2, 7, 7, 11], 0.5),
    "constant": lambda s, o: s.ConstantLR(o, 0.3, 6),
    "linear": lambda s, o: s.LinearLR(o, 0.1, 0.9, 7),
    "polynomial": lambda s, o: s.PolynomialLR(o, 15, 2.0),
    "exponential": lambda s, o: s.ExponentialLR(o, 0.9),
    "cosine": lambda s, o: s.CosineAnnealingLR(o, 6, 0.01),
    "restarts": lambda s, o: s.CosineAnnealingWarmRestarts(o, 4, 2, 0.001),
    "cycle": lambda s, o: s.OneCycleLR(o, 0.7, 60),
    "sequence": lambda s, o: s.SequentialLR(
        o, [s.LinearLR(o, 0.1, 1.0, 4), s.ExponentialLR(o, 0.9), s.StepLR(o, 2)], [4, 9]
    ),
    "chain": lambda s, o: s.ChainedScheduler([s.LinearLR(o, 0.5), s.StepLR(o, 4)], o),
    "plateau": lambda s, o: s.ReduceLROnPlateau(o, patience=2, factor=0.5),
}


@needs_torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(60))
def test_schedules_multiply_and_rates_set_by_hand_stay(seed: int) -> None:
    """One to four schedules on one optimiser, and rates set in between: PyTorch's bits."""
    import torch

    noise = np.random.RandomState(seed)
    chosen = list(noise.choice(list(MAKERS), noise.randint(1, 5)))
    mine, theirs = optimizer(minitensor), optimizer(torch)
    own = [MAKERS[name](lr_scheduler, mine) for name in chosen]
    other = [MAKERS[name](torch.optim.lr_scheduler, theirs) for name in chosen]
    for _ in range(30):
        assert settings(mine) == settings(theirs), chosen
        if noise.rand() < 0.1:
            rate = float(noise.rand())
            for o in (mine, theirs):
                o.param_groups[len(chosen) % 2]["lr"] = rate
        for name, a, b in zip(chosen, own, other, strict=True):
            measure = (float(noise.rand()),) if name == "plateau" else ()
            a.step(*measure)
            b.step(*measure)
            assert a.get_last_lr() == b.get_last_lr(), chosen


@needs_torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(40))
def test_sequences_and_chains_of_all_kinds(seed: int) -> None:
    """Two to four schedules in a SequentialLR or a ChainedScheduler; a state in the middle."""
    import torch

    noise = np.random.RandomState(seed)
    left_out = {"plateau", "cycle", "chain" if seed % 2 else "plateau", "sequence"}
    known = [name for name in MAKERS if name not in left_out]
    chosen = list(noise.choice(known, noise.randint(2, 5)))
    milestones = sorted(noise.choice(np.arange(1, 20), len(chosen) - 1, False).tolist())

    def build(library: Any) -> Any:
        o, kinds = optimizer(library), library.optim.lr_scheduler
        parts = [MAKERS[name](kinds, o) for name in chosen]
        if seed % 2:
            return o, kinds.SequentialLR(o, parts, milestones)
        return o, kinds.ChainedScheduler(parts)

    (mine, own), (theirs, other), (again, fresh) = map(build, (minitensor, torch, minitensor))
    for step in range(30):
        assert settings(mine) == settings(theirs), (chosen, milestones, step)
        assert own.get_last_lr() == other.get_last_lr()
        own.step()
        other.step()
        if step == 12:
            fresh.load_state_dict(own.state_dict())
            again.load_state_dict(mine.state_dict())
        elif step > 12:
            fresh.step()
            assert settings(again) == settings(mine)


def test_two_schedules_from_a_half() -> None:
    """0.5, then 0.45, 0.405, and 0.9^3 / 2 times the tenth of the third step."""
    o = optimizer(minitensor)
    o.param_groups[0]["lr"] = 0.5
    both_ = lr_scheduler.StepLR(o, 3, 0.1), lr_scheduler.ExponentialLR(o, 0.9)
    rates = []
    for _ in range(3):
        for schedule in both_:
            schedule.step()
        rates.append(o.param_groups[0]["lr"])
    np.testing.assert_allclose(rates, [0.45, 0.405, 0.03645], rtol=1e-12)


def test_a_constant_of_zero_ends() -> None:
    o = optimizer(minitensor)
    schedule = lr_scheduler.ConstantLR(o, 0.0, 2)
    rates = [o.param_groups[0]["lr"]]
    for _ in range(3):
        schedule.step()
        rates.append(o.param_groups[0]["lr"])
    assert rates == [0.0, 0.0, 0.1, 0.1]


@needs_torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "kwargs"), CASES)
def test_a_step_by_its_number(name: str, kwargs: dict[str, Any]) -> None:
    mine, theirs, schedule, other = both(name, kwargs)
    for step in (3, 4, 11, 0, 7):
        schedule.step(step)
        other.step(step)
        assert settings(mine) == settings(theirs)


@needs_torch
@pytest.mark.parametrize(("name", "kwargs"), CASES)
def test_continues_from_its_state(name: str, kwargs: dict[str, Any]) -> None:
    mine = optimizer(minitensor)
    schedule = getattr(lr_scheduler, name)(mine, **kwargs)
    for _ in range(9):
        schedule.step()
    fresh = optimizer(minitensor)
    other = getattr(lr_scheduler, name)(fresh, **kwargs)
    fresh.load_state_dict(mine.state_dict())
    other.load_state_dict(schedule.state_dict())
    for _ in range(20):
        assert settings(fresh) == settings(mine)
        schedule.step()
        other.step()


@needs_torch
def test_fractions_of_epochs() -> None:
    import warnings

    mine, theirs, schedule, other = both("CosineAnnealingWarmRestarts", dict(T_0=3, T_mult=2))
    for epoch in np.arange(0, 25, 0.25):
        schedule.step(epoch)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            other.step(epoch)
        np.testing.assert_allclose(settings(mine), settings(theirs), rtol=1e-9, atol=1e-15)


@needs_torch
@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("threshold_mode", ["rel", "abs"])
@pytest.mark.parametrize("extra", [dict(), dict(cooldown=3, min_lr=[0.01, 0.2], threshold=0.1)])
def test_plateau(mode: str, threshold_mode: str, extra: dict[str, Any]) -> None:
    kwargs = dict(mode=mode, threshold_mode=threshold_mode, patience=2, factor=0.5, **extra)
    mine, theirs, schedule, other = both("ReduceLROnPlateau", kwargs)
    fresh = lr_scheduler.ReduceLROnPlateau(optimizer(minitensor), **kwargs)
    noise = np.random.RandomState(0)
    for step in range(60):
        measure = float(noise.rand() + math.exp(-step / 20))
        schedule.step(minitensor.tensor(measure, dtype=minitensor.float64))
        other.step(measure)
        np.testing.assert_allclose(settings(mine), settings(theirs), rtol=1e-9)
        assert schedule.get_last_lr() == [g["lr"] for g in mine.param_groups]
        assert schedule.best == other.best
        if step == 30:
            fresh.load_state_dict(schedule.state_dict())
            fresh.optimizer.load_state_dict(mine.state_dict())
        elif step > 30:
            fresh.step(measure)
            assert fresh.get_last_lr() == schedule.get_last_lr()


@needs_torch
def test_one_after_another() -> None:
    import torch

    mine, theirs = optimizer(minitensor), optimizer(torch)

    def build(library: Any, o: Any) -> Any:
        kinds = library.optim.lr_scheduler
        parts = [
            kinds.LinearLR(o, start_factor=0.1, total_iters=4),
            kinds.CosineAnnealingLR(o, T_max=10, eta_min=0.01),
            kinds.ConstantLR(o, factor=0.2, total_iters=100),
        ]
        return kinds.SequentialLR(o, parts, milestones=[4, 14])

    schedule, other = build(minitensor, mine), build(torch, theirs)
    again = optimizer(minitensor)
    fresh = build(minitensor, again)
    for step in range(25):
        assert settings(mine) == settings(theirs)
        theirs.step()
        schedule.step()
        other.step()
        if step == 10:
            fresh.load_state_dict(schedule.state_dict())
            again.load_state_dict(mine.state_dict())
        elif step > 10:
            fresh.step()
            assert fresh.get_last_lr() == schedule.get_last_lr()


def test_inverse_square_root() -> None:
    """Against the formula in the paper, written out."""
    o = optimizer(minitensor)
    schedule = lr_scheduler.InverseSqrtLR(o, d_model=512, warmup_steps=10, factor=2.0)
    rates = []
    for step in range(1, 31):
        expected = 2 / math.sqrt(512) * min(1 / math.sqrt(step), step / (10 * math.sqrt(10)))
        np.testing.assert_allclose(schedule.get_last_lr(), [expected] * 2, rtol=1e-12)
        rates.append(o.param_groups[0]["lr"])
        schedule.step()
    assert int(np.argmax(rates)) == 9


def test_resuming_by_number() -> None:
    o = optimizer(minitensor)
    schedule = lr_scheduler.StepLR(o, 3)
    for _ in range(7):
        schedule.step()
    again = lr_scheduler.StepLR(o, 3, last_epoch=6)
    assert again.get_last_lr() == schedule.get_last_lr()
    with pytest.raises(KeyError, match="initial_lr"):
        lr_scheduler.StepLR(optimizer(minitensor), 3, last_epoch=6)


def test_a_schedule_of_ones_own() -> None:
    class Harmonic(lr_scheduler.LRScheduler):
        def get_lr(self) -> list[float]:
            return [base / (1 + self.last_epoch) for base in self.base_lrs]

    schedule = Harmonic(optimizer(minitensor))
    schedule.step()
    assert schedule.get_last_lr() == [0.05, 0.15]


def test_the_state_of_a_callable_object_is_kept() -> None:
    class Factor:
        def __init__(self, value: float) -> None:
            self.value = value

        def __call__(self, step: int) -> float:
            return self.value

    state = lr_scheduler.LambdaLR(optimizer(minitensor), [Factor(0.5), halved]).state_dict()
    assert state["lr_lambdas"] == [{"value": 0.5}, None]
    other = lr_scheduler.LambdaLR(optimizer(minitensor), [Factor(9.0), halved])
    other.load_state_dict(state)
    other.step()
    assert other.get_last_lr() == [0.05, 0.15]


ERRORS = """
s.StepLR(3, 1)
s.LambdaLR(o, [lambda t: 1.0])
s.LinearLR(o, start_factor=0)
s.LinearLR(o, end_factor=2)
s.ConstantLR(o, factor=-1)
s.CosineAnnealingWarmRestarts(o, T_0=0)
s.CosineAnnealingWarmRestarts(o, T_0=5, T_mult=0.5)
s.CosineAnnealingWarmRestarts(o, T_0=5).step(-2)
s.OneCycleLR(o, 0.1)
s.OneCycleLR(o, 0.1, total_steps=-3)
s.OneCycleLR(o, 0.1, total_steps=10, pct_start=3.0)
s.OneCycleLR(o, 0.1, total_steps=10, anneal_strategy="x")
s.OneCycleLR(plain, 0.1, total_steps=10)
s.OneCycleLR(o, 0.1, total_steps=2).step(4)
s.ReduceLROnPlateau(o, factor=1.5)
s.ReduceLROnPlateau(o, mode="x")
s.ReduceLROnPlateau(o, threshold_mode="x")
s.ReduceLROnPlateau(o, min_lr=[1.0])
s.SequentialLR(o, [], [])
s.SequentialLR(o, [s.StepLR(o, 1)], [3])
s.SequentialLR(o, [s.StepLR(plain, 1)], [])
s.SequentialLR(o, [s.ReduceLROnPlateau(o)], [])
s.SequentialLR(o, [3], [])
s.ChainedScheduler([])
s.ChainedScheduler([3], o)
s.ChainedScheduler([s.StepLR(o, 1), s.StepLR(plain, 1)])
s.ChainedScheduler([s.ReduceLROnPlateau(o)])
s.MultiplicativeLR(o, [lambda t: 1.0])
s.MultiplicativeLR(o, [3, 3])
""".strip().splitlines()


@needs_torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("line", ERRORS)
def test_errors(line: str) -> None:
    import torch

    def run(library: Any) -> None:
        names = dict(s=library.optim.lr_scheduler, o=optimizer(library))
        names["plain"] = optimizer(library, "Adagrad")
        eval(line, names)

    with pytest.raises(Exception) as expected:
        run(torch)
    with pytest.raises(expected.type):
        run(minitensor)


def test_the_names_are_there() -> None:
    assert optim.lr_scheduler is lr_scheduler
    assert lr_scheduler._LRScheduler is lr_scheduler.LRScheduler
