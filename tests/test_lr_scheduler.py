"""Schedules against PyTorch's, step by step."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
from conftest import needs_torch

import minitensor
from minitensor import optim
from minitensor.optim import lr_scheduler

# Most tests are of the rates alone, and step no optimiser.
pytestmark = pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")


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
    ("CyclicLR", dict(base_lr=0.01, max_lr=0.5, step_size_up=7)),
    ("CyclicLR", dict(base_lr=[0.01, 0.1], max_lr=0.5, step_size_up=3, step_size_down=5)),
    ("CyclicLR", dict(base_lr=0.01, max_lr=0.5, step_size_up=4, mode="triangular2")),
    ("CyclicLR", dict(base_lr=0.01, max_lr=0.5, step_size_up=4, mode="exp_range", gamma=0.97)),
    ("CyclicLR", dict(base_lr=0.1, max_lr=0.5, step_size_up=4, scale_fn=halved)),
    ("CyclicLR", dict(base_lr=0.1, max_lr=0.5, step_size_up=4, cycle_momentum=False)),
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
    "cyclic": lambda s, o: s.CyclicLR(o, 0.01, 0.2, 3, mode="triangular2"),
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
    left_out = {"plateau", "cycle", "cyclic", "chain" if seed % 2 else "plateau", "sequence"}
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
s.CyclicLR(o, 0.1, 0.2, mode="x")
s.CyclicLR(o, [0.1], 0.2)
s.CyclicLR(plain, 0.1, 0.2)
s.CyclicLR(3, 0.1, 0.2)
s.CosineAnnealingWarmRestarts(o, 3, eta_min="x")
s.OneCycleLR(o, 0.1, epochs=-2, steps_per_epoch=-2)
s.OneCycleLR(o, 0.1, epochs=2.0, steps_per_epoch=2)
s.SequentialLR(o, [s.StepLR(o, 1)], []).step(3)
s.ChainedScheduler([s.StepLR(o, 1)]).step(3)
s.LRScheduler(o)
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


STATES = {
    **MAKERS,
    "cyclic object": lambda s, o: s.CyclicLR(o, 0.01, 0.2, 3, scale_fn=Power(0.9)),
    "lambda object": lambda s, o: s.LambdaLR(o, [Power(0.9), halved]),
}


class Power:
    def __init__(self, base: float) -> None:
        self.base = base

    def __call__(self, x: float) -> float:
        return float(self.base**x)


def kinds(state: Any) -> Any:
    """The types in a state, by key."""
    if isinstance(state, dict):
        return type(state), {key: kinds(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state), [kinds(value) for value in state]
    return type(state)


@needs_torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", STATES)
def test_states_are_those_of_pytorch_and_load_both_ways(name: str) -> None:
    import torch

    build = STATES[name]

    def start() -> tuple[Any, Any, Any, Any]:
        mine, theirs = optimizer(minitensor), optimizer(torch)
        other = build(torch.optim.lr_scheduler, theirs)
        return mine, theirs, build(lr_scheduler, mine), other

    mine, theirs, own, other = start()
    measures = [1.0, 0.9, 0.95, 0.95, 0.95, 0.95, 0.95, 0.95, 0.2, 0.3, 0.3, 0.3, 0.3]

    def advance(step: int, *schedules: Any) -> None:
        for schedule in schedules:
            schedule.step(*[measures[step]] if name == "plateau" else [])

    for step in range(7):
        advance(step, own, other)
    ours, state = own.state_dict(), other.state_dict()
    assert kinds(ours) == kinds(state)
    assert ours == state
    mine_again, theirs_again, own_again, other_again = start()
    own_again.load_state_dict(state)
    other_again.load_state_dict(ours)
    mine_again.load_state_dict(theirs.state_dict())
    theirs_again.load_state_dict(mine.state_dict())
    for step in range(7, 13):
        advance(step, own, own_again, other_again)
        assert settings(mine_again) == settings(theirs_again) == settings(mine)
        assert own_again.get_last_lr() == other_again.get_last_lr() == own.get_last_lr()


ARGUMENTS: dict[str, list[Any]] = dict(
    LambdaLR=[halved],
    MultiplicativeLR=[halved],
    StepLR=[3, 0.1],
    MultiStepLR=[[2, 7, 7, 11], 0.5],
    ConstantLR=[0.3, 6],
    LinearLR=[0.1, 0.9, 7],
    PolynomialLR=[15, 2.0],
    ExponentialLR=[0.9],
    CosineAnnealingLR=[6, 0.01],
    CosineAnnealingWarmRestarts=[4, 2, 0.001],
    OneCycleLR=[0.7, 60],
    CyclicLR=[0.01, 0.2, 3],
)


@needs_torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ARGUMENTS)
def test_resuming_by_number_is_as_in_pytorch(name: str) -> None:
    """last_epoch=6 on an optimiser that was loaded: rates, momenta and the steps that follow."""
    import torch

    results = []
    for library in (minitensor, torch):
        kind = getattr(library.optim.lr_scheduler, name)
        o, again = optimizer(library), optimizer(library)
        schedule = kind(o, *ARGUMENTS[name])
        for _ in range(6):
            schedule.step()
        again.load_state_dict(o.state_dict())
        schedule = kind(again, *ARGUMENTS[name], last_epoch=6)
        found = [(settings(again), schedule.get_last_lr())]
        for _ in range(12):
            schedule.step()
            found.append((settings(again), schedule.get_last_lr()))
        results.append(found)
    assert results[0] == results[1]


CLOSED: dict[str, list[Any]] = {
    "StepLR": [3],
    "MultiStepLR": [[2, 5]],
    "ConstantLR": [],
    "LinearLR": [],
    "PolynomialLR": [],
    "ExponentialLR": [0.9],
    "CosineAnnealingLR": [5],
}


def test_closed_forms_are_where_pytorch_has_them() -> None:
    for name in lr_scheduler.__all__:
        closed = hasattr(getattr(lr_scheduler, name), "_get_closed_form_lr")
        assert closed == (name in CLOSED), name


@pytest.mark.filterwarnings("ignore:The epoch parameter")
@pytest.mark.parametrize(("name", "expected"), [("StepLR", 0.5), ("ExponentialLR", 0.45)])
def test_a_step_by_its_number_forgets_a_rate_set_by_hand(name: str, expected: float) -> None:
    """The closed form starts from the first rate; the next step from the rate there is."""
    p = minitensor.zeros(2, requires_grad=True)
    o = optim.SGD([p], lr=0.5)
    schedule = getattr(lr_scheduler, name)(o, *CLOSED[name])
    o.param_groups[0]["lr"] = 7.0
    schedule.step(1)
    assert o.param_groups[0]["lr"] == pytest.approx(expected)


def test_a_rate_that_is_a_tensor_is_changed_in_place() -> None:
    rate = minitensor.tensor(0.5, dtype=minitensor.float64)
    o = optim.SGD([minitensor.zeros(2, requires_grad=True)], lr=rate)
    schedule: Any = lr_scheduler.StepLR(o, 1, 0.5)
    assert schedule.base_lrs[0] is not rate
    schedule.step()
    assert o.param_groups[0]["lr"] is rate
    assert rate.item() == 0.25
    last = schedule.get_last_lr()[0]
    last.zero_()
    assert rate.item() == 0.25


def warned(*calls: Any) -> list[str]:
    """The beginnings of the warnings of calls."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for call in calls:
            call()
    assert all(each.filename == __file__ for each in found)
    return [str(each.message).split()[0] for each in found]


def order_warnings(t: Any) -> list[list[str]]:
    kinds = t.optim.lr_scheduler
    o = optimizer(t)
    o.step()  # before the schedule was built: does not count
    schedule = kinds.StepLR(o, 3)
    found = [warned(schedule.step, o.step, schedule.step)]
    schedule = kinds.StepLR(o, 3)  # a second schedule of this optimiser
    found.append(warned(schedule.step))
    o = optimizer(t)
    sequence = kinds.SequentialLR(o, [kinds.StepLR(o, 3), kinds.ExponentialLR(o, 0.9)], [3])
    found.append(warned(*[o.step, sequence.step] * 2))
    o = optimizer(t)
    schedule = kinds.StepLR(o, 3)
    o.step = lambda: None
    found.append(warned(o.step, schedule.step))
    o = optimizer(t)
    schedule = kinds.StepLR(o, 3)
    return [*found, warned(o.step, lambda: schedule.step(2))]


def test_steps_in_the_wrong_order_are_a_warning() -> None:
    overridden = warned(lambda: warnings.warn(lr_scheduler.scheduler.OVERRIDDEN, stacklevel=1))
    assert order_warnings(minitensor) == [["Detected"], [], [], overridden, ["The"]]


@needs_torch
def test_the_warnings_of_the_order_are_pytorchs() -> None:
    import torch

    ours, theirs = order_warnings(minitensor), order_warnings(torch)
    assert [len(each) for each in ours] == [len(each) for each in theirs]


def test_get_lr_by_hand_is_a_warning() -> None:
    schedule = lr_scheduler.StepLR(optimizer(minitensor), 3)
    with pytest.warns(UserWarning, match="get_last_lr"):
        schedule.get_lr()


def test_a_plateau_knows_groups_that_were_added() -> None:
    for low, known in ((0.02, True), ([0.02, 0.02], False)):
        o = optimizer(minitensor)
        schedule = lr_scheduler.ReduceLROnPlateau(o, patience=0, min_lr=low)
        o.add_param_group(dict(params=[minitensor.zeros(2, requires_grad=True)], lr=0.1))
        schedule.step(1.0)
        if known:
            schedule.step(1.0)
            assert [g["lr"] for g in o.param_groups] == pytest.approx([0.02, 0.03, 0.02])
        else:
            with pytest.raises(RuntimeError, match="3 groups"):
                schedule.step(1.0)


def test_the_names_are_there() -> None:
    assert optim.lr_scheduler is lr_scheduler
    assert lr_scheduler._LRScheduler is lr_scheduler.LRScheduler
