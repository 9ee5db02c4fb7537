"""Whatever a compiled call reads besides its arguments is noticed when it changes."""

from __future__ import annotations

import collections
import contextvars
import datetime
import itertools
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from both import ANY, check

import minitensor as mt
from minitensor import nn
from minitensor.nn import functional as F
from minitensor.nn.utils.rnn import pack_padded_sequence

CASES: dict[str, Callable[[Any], Any]] = {}
CALLS = 5
SETTING = contextvars.ContextVar("SETTING", default=0)


def case(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Add a function that uses what it is given as `compile`, and returns what it has seen."""
    CASES[function.__name__] = function
    return function


# Numbers of a tensor as an index, a bound, a size or a setting

USES: dict[str, Callable[[Any, Any], Any]] = {
    "index": lambda x, t: x[t] * 2,
    "slice": lambda x, t: x[:t].sum(),
    "step of a slice": lambda x, t: x[:, t + 1 :] * 2,
    "largest": lambda x, t: x[x[:, t].argmax()],
    "select": lambda x, t: x.select(0, t) * 2,
    "narrow": lambda x, t: x.narrow(0, t, 1) * 2,
    "transpose": lambda x, t: x.transpose(0, t - t + 1) * 1,
    "unsqueeze": lambda x, t: x.unsqueeze(t - t) * 2,
    "sum": lambda x, t: x.sum(dim=t % 2),
    "pad": lambda x, t: F.pad(x, (t, 1)),
    "repeat": lambda x, t: x.repeat(t + 1, 1),
    "topk": lambda x, t: x.flatten().topk(t + 1)[0],
    "add": lambda x, t: mt.add(x, x, alpha=t),
    "eps": lambda x, t: F.layer_norm(x, (4,), eps=t + 1.0),
    "diagonal": lambda x, t: x.diagonal(t) * 2,
    "tril": lambda x, t: x.tril(t),
    "length": lambda x, t: x.sum() / len((x > t).nonzero()),
    "chosen": lambda x, t: x.sum() / x[x > t].shape[0],
    "equal": lambda x, t: x * 2 if mt.equal(t, t * 0) else x * 3,
    "allclose": lambda x, t: x * 2 if mt.allclose(t * 1.0, mt.zeros(())) else x * 3,
    "in": lambda x, t: x * 2 if 2 in t.view(1) else x * 3,
    "is_nonzero": lambda x, t: x * 2 if mt.is_nonzero(t) else x * 3,
    "text": lambda x, t: x * len(f"{10**t}"),
    "shown": lambda x, t: x * len(str(10**t)),
}


@pytest.mark.parametrize("name", USES)
def test_a_tensor_is_used_as_a_number(name: str) -> None:
    function = USES[name]
    compiled = mt.compile(function)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for n in (0, 1, 2, 1, 0, 2):
            x = mt.arange(16.0).view(4, 4)
            expected = function(x, mt.tensor(n))
            found = compiled(x, mt.tensor(n))
            assert found.shape == expected.shape
            assert mt.equal(found, expected), n


@case
def a_buffer_as_an_index(compile: Any) -> Any:
    class Counting(nn.Module):
        step: Any

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("step", mt.tensor(0))
            self.table = nn.Parameter(mt.arange(8.0))

        def forward(self, x: Any) -> Any:
            self.step.add_(1)
            return x * self.table[self.step]

    f = compile(Counting())
    return [f(mt.ones(1)).item() for _ in range(CALLS)]


@case
def a_cumulative_average_of_batches(compile: Any) -> Any:
    norm = nn.BatchNorm1d(1, momentum=None)
    f = compile(norm)
    for n in range(CALLS):
        f(mt.tensor([[0.0], [2.0 * n]]))
    return norm.running_mean.tolist()


@case
def lengths_of_a_packed_sequence(compile: Any) -> Any:
    mt.manual_seed(0)
    gru = nn.GRU(3, 4, batch_first=True)
    f, x = compile(gru), mt.randn(3, 5, 3)
    lengths = [5, 2, 2], [5, 2, 2], [5, 2, 2], [5, 3, 1], [4, 4, 1]
    packed = [pack_padded_sequence(x, mt.tensor(each), batch_first=True) for each in lengths]
    return [f(each)[0].data.tolist() for each in packed]


# Gradients and other things that tensors have


@case
def gradients_that_the_call_clears(compile: Any) -> Any:
    layer = nn.Linear(1, 1)
    optimizer = mt.optim.SGD(layer.parameters(), 0.1)

    @compile
    def loss(x: Any) -> Any:
        optimizer.zero_grad()
        return layer(x).sum()

    seen = []
    for _ in range(CALLS):
        loss(mt.ones(1, 1)).backward()
        seen.append(layer.weight.grad.item())
    return seen


@case
def a_gradient_that_is_there_or_not(compile: Any) -> Any:
    w = nn.Parameter(mt.ones(1))
    f = compile(lambda x: (x * w).sum() * (1 if w.grad is None else 10))
    seen = []
    for _ in range(CALLS):
        loss = f(mt.ones(1))
        seen.append(loss.item())
        loss.backward()
    return seen


@case
def a_leaf_or_a_result(compile: Any) -> Any:
    f, w = compile(lambda x: x * (2 if x.is_leaf else 3)), mt.ones(1, requires_grad=True)
    return [f(x).item() for x in (w, w * 1, w, w * 1)]


@case
def bounds_that_learn(compile: Any) -> Any:
    f = compile(lambda x, low: x.clamp(min=low))
    seen = []
    for _ in range(CALLS):
        x, low = mt.zeros(2, requires_grad=True), mt.ones(2, requires_grad=True)
        f(x, low).sum().backward()
        seen += [x.grad.tolist(), low.grad.tolist()]
    return seen


@case
def gradients_of_products_with_a_zero(compile: Any) -> Any:
    seen = []
    for f in (compile(lambda x: x.prod()), compile(lambda x: x.cumprod(0).sum())):
        for numbers in ([1.0, 2], [1.0, 2], [1.0, 2], [0.0, 2]):
            x = mt.tensor(numbers, requires_grad=True)
            f(x).backward()
            seen.append(x.grad.tolist())
    return seen


@case
def gradients_of_the_larger_of_nan(compile: Any) -> Any:
    seen = []
    for op in (mt.maximum, mt.minimum):
        f = compile(lambda a, b, op=op: op(a, b) * 2)
        for _ in range(CALLS):
            a = mt.tensor([1.0, 2, 3, float("nan"), 5], requires_grad=True)
            b = mt.tensor([1.0, 3, 2, 4, float("nan")], requires_grad=True)
            f(a, b).sum().backward()
            seen += [a.grad.tolist(), b.grad.tolist()]
    return seen


# Optimizers, schedules, settings


@case
def a_learning_rate(compile: Any) -> Any:
    optimizer = mt.optim.SGD([nn.Parameter(mt.ones(1))], lr=1.0)
    schedule = mt.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    f = compile(lambda x: x * optimizer.param_groups[0]["lr"])
    seen = []
    for _ in range(CALLS):
        seen.append(f(mt.ones(1)).item())
        optimizer.step()
        schedule.step()
    return seen


@case
def a_schedule_that_the_call_moves(compile: Any) -> Any:
    optimizer = mt.optim.SGD([nn.Parameter(mt.ones(1))], lr=1.0)
    schedule = mt.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)

    @compile
    def f(x: Any) -> Any:
        schedule.step()
        return x * 2

    for _ in range(CALLS):
        optimizer.step()
        f(mt.ones(1))
    return optimizer.param_groups[0]["lr"]


@case
def a_context_variable_and_the_time(compile: Any) -> Any:
    days: set[Any] = set()

    @compile
    def g(x: Any) -> Any:
        days.add(datetime.datetime.now())
        return x * 1

    f = compile(lambda x: x * SETTING.get())
    seen = []
    for n in range(CALLS):
        SETTING.set(n)
        seen.append(f(mt.ones(1)).item())
        g(mt.ones(1))
    return seen, len(days)


@case
def a_warning_of_the_call(compile: Any) -> Any:
    @compile
    def f(x: Any) -> Any:
        warnings.warn("seen", stacklevel=1)
        return x * 2

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(CALLS):
            f(mt.ones(1))
    return sum(str(each.message) == "seen" for each in caught)


# Containers, arrays, iterators, other objects


@case
def containers_of_other_kinds_as_arguments(compile: Any) -> Any:
    class Numbers(list[float]):
        pass

    by_name, by_place = compile(lambda x, d: x * d["s"]), compile(lambda x, d: x * d[0])
    x, seen = mt.ones(1), []
    for n in range(CALLS):
        seen.append(by_name(x, collections.OrderedDict(s=float(n))).item())
        seen.append(by_name(x, collections.defaultdict(int, s=n)).item())
        seen += [by_place(x, each).item() for each in (mt.Size([n]), Numbers([n]), np.array([n]))]
    return seen


@case
def an_array_of_numpy(compile: Any) -> Any:
    numbers, counts = np.zeros(2), np.zeros(1)
    f = compile(lambda x: x * float(numbers[0]))

    @compile
    def g(x: Any) -> Any:
        counts[0] += 1
        return x * 2

    seen = []
    for n in range(CALLS):
        numbers[0] = n
        seen.append(f(mt.ones(1)).item())
        g(mt.ones(1))
    return seen, counts.tolist()


@case
def iterators(compile: Any) -> Any:
    def forever() -> Any:
        n = 0
        while True:
            yield n
            n += 1

    kinds = [forever(), (n for n in range(9)), zip(range(9)), map(int, "012345678")]
    kinds += [
        itertools.cycle([1, 2]),
        itertools.chain([1], range(9)),
        itertools.count(),
        iter([*range(9)]),
    ]
    seen = []
    for each in kinds:
        f = compile(lambda x, each=each: (next(each), x * 2)[0])
        g = compile(lambda x, each=each: x * (v[0] if isinstance(v := next(each), tuple) else v))
        seen += [[f(mt.ones(1)) for _ in range(2)], [g(mt.ones(1)).item() for _ in range(CALLS)]]
    return seen


@case
def objects_that_are_reached_in_other_ways(compile: Any) -> Any:
    class Settings(dict[str, float]):
        scale = 0.0

    class Old:
        factor = 1.0

    class New:
        factor = 2.0

    settings, table, object = Settings(), {"s": 0}, Old()
    get, reference = table.get, weakref.ref(object)
    log: list[int] = []
    append = log.append
    fs = [
        compile(lambda x: x * settings.scale),
        compile(lambda x: x * get("s", 0)),
        compile(lambda x: x * object.factor),
        compile(lambda x: x * reference().factor),  # type: ignore[union-attr]
        compile(lambda x: append(1) or x * 2),
    ]
    seen = []
    for n in range(CALLS):
        settings.scale = table["s"] = n
        object.__class__ = New if n > 2 else Old  # type: ignore[assignment]
        seen += [f(mt.ones(1)).item() for f in fs]
    return seen, len(log)


@case
def attributes_of_the_compiled_function(compile: Any) -> Any:
    @compile
    def f(x: Any) -> Any:
        f.calls += 1
        return x * f.scale

    f.calls, seen = 0, []
    for n in range(CALLS):
        f.scale = float(n)
        seen.append((f(mt.ones(1)).item(), f.calls))
    return seen


@case
def the_compiled_module_as_the_module(compile: Any) -> Any:
    class Scaled(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Linear(2, 2), nn.Dropout(0.5))
            self.scale = 1.0

        def forward(self, x: Any) -> Any:
            return super().forward(x) * self.scale

    mt.manual_seed(0)
    module = Scaled()
    f = compile(module)
    f.training = False
    f[1].training = False
    seen = [len(f), [type(each).__name__ for each in f], module.training]
    for n in range(CALLS):
        f.scale = float(n)
        seen.append((f(mt.ones(1, 2)).tolist(), module.scale))
    f.extra = nn.Linear(1, 1)
    seen.append([name for name, _ in module.named_parameters()])
    del f.extra
    return [*seen, hasattr(module, "extra")]


@pytest.mark.parametrize("name", CASES)
def test_equals_the_uncompiled_program(name: str) -> None:
    check(CASES[name], ANY)
