"""Cases of what changes from call to call, and of what cannot be repeated, for test_compile.py."""

from __future__ import annotations

import functools
import math
import random
import time
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
from both import ANY, case
from compile_cases import Net, grads, steps

import minitensor as mt
from minitensor import nn
from minitensor.autograd import checkpoint
from minitensor.nn import functional as F

scale = 1.0
table: dict[str, float] = {"a": 1.0}
COUNT = 0
LOG: list[int] = []
settings: Any = ModuleType("settings")  # as if imported
settings.inner = ModuleType("inner")


def _set(name: str, value: Any) -> None:
    globals()[name] = value


@dataclass
class Config:
    """Settings."""

    scale: float = 1.0
    kinds: list[str] = field(default_factory=lambda: ["relu"])


# Parameters and buffers


@case()
def parameters_replaced(compile: Any) -> Any:
    model = Net(0.0)
    c = compile(model)
    seen = []
    for n in range(12):
        if n == 3:
            model.first.weight.data = mt.randn(16, 8)
        if n == 6:
            model.load_state_dict({k: v * 2 for k, v in model.state_dict().items()})
        if n == 9:
            model.last = nn.Linear(16, 4)
        y = c(mt.randn(3, 8))
        y.sum().backward()
        seen += [y, grads(model)]
        model.zero_grad()
    return seen


@case()
def parameters_changed_in_place(compile: Any) -> Any:
    model = Net(0.0)
    c = compile(model)
    seen = []
    for _ in range(6):
        seen.append(c(mt.ones(3, 8)))
        with mt.no_grad():
            for p in model.parameters():
                p.add_(0.1).mul_(0.9)
                p[0] = 0.25
                p.data.add_(0.01)
    return seen


@case()
def parameters_frozen_and_thawed(compile: Any) -> Any:
    model = Net(0.0)
    c = compile(model)
    seen = []
    for n in range(9):
        model.first.weight.requires_grad_(n // 3 != 1)
        y = c(mt.randn(3, 8))
        y.sum().backward()
        seen += [y, grads(model)]
        model.zero_grad()
    return seen


@case()
def everything_frozen(compile: Any) -> Any:
    model = Net(0.0)
    c = compile(model)
    seen = []
    for n in range(9):
        model.requires_grad_(n // 3 != 1)
        y = c(mt.randn(3, 8))
        seen += [y]
    return seen


@case(error=1e-6)
def train_and_eval(compile: Any) -> Any:
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))
    c = compile(model)
    seen = []
    for n in range(12):
        (c.train if n // 3 % 2 == 0 else c.eval)()
        y = c(mt.randn(5, 8))
        y.sum().backward()
        seen += [y, grads(model), {k: v.clone() for k, v in model.state_dict().items()}]
    return seen


@case()
def train_and_eval_of_the_module_itself(compile: Any) -> Any:
    model = Net(0.5)
    c = compile(model)
    seen = []
    for n in range(12):
        model.train(n // 3 % 2 == 0)
        seen.append(c(mt.randn(5, 8)))
        model.drop.p = 0.5 if n < 6 else 0.1
    return seen


@case(error=1e-6)
def buffers_of_batch_norm(compile: Any) -> Any:
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    c = compile(model)
    seen = []
    for _ in range(6):
        y = c(mt.randn(2, 2, 6, 6))
        y.square().sum().backward()
        seen += [y, grads(model), {k: v.clone() for k, v in model.state_dict().items()}]
    return seen


@case(ANY)
def buffer_counts(compile: Any) -> Any:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.count: Any
            self.last: Any
            self.register_buffer("count", mt.zeros(()))
            self.register_buffer("last", mt.zeros(3))

        def forward(self, x: Any) -> Any:
            self.count += 1
            self.last.copy_(x.detach())
            return x * self.count

    model = Counter()
    c = compile(model)
    return [(c(mt.randn(3)), model.count.clone(), model.last.clone()) for _ in range(6)]


@case(ANY)
def buffer_is_replaced(compile: Any) -> Any:
    class Average(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean: Any
            self.register_buffer("mean", mt.zeros(3))

        def forward(self, x: Any) -> Any:
            self.mean = self.mean * 0.9 + x.detach() * 0.1
            return x - self.mean

    model = Average()
    c = compile(model)
    return [(c(mt.randn(3)), model.mean.clone()) for _ in range(6)]


@case()
def module_added(compile: Any) -> Any:
    model = nn.Sequential(nn.Linear(4, 4))
    c = compile(model)
    seen = []
    for n in range(9):
        seen.append(c(mt.randn(2, 4)))
        if n == 3:
            model.append(nn.ReLU())
        if n == 6:
            model[0] = nn.Linear(4, 3)
    return seen


@case()
def tied_weights(compile: Any) -> Any:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(7, 5)
            self.out = nn.Linear(5, 7, bias=False)
            self.out.weight = self.embedding.weight

        def forward(self, x: Any) -> Any:
            return self.out(self.embedding(x).tanh())

    model = Tied()
    c = compile(model)
    seen = []
    for n in range(8):
        F.cross_entropy(c(mt.randint(0, 7, (6,))), mt.randint(0, 7, (6,))).backward()
        seen.append(grads(model))
        if n == 4:
            model.out.weight = nn.Parameter(mt.randn(7, 5))
    return seen


# Attributes, globals, closures


@case()
def attributes_change(compile: Any) -> Any:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = 1.0
            self.config = Config()
            self.act = F.relu
            self.sizes = [1, 2]

        def forward(self, x: Any) -> Any:
            y = self.act(x) * self.scale * self.config.scale * len(self.sizes)
            return y + 1 if "gelu" in self.config.kinds else y

    seen = []
    for change in range(6):
        model = Scaled()
        c = compile(model)
        for n in range(7):
            seen.append(c(mt.randn(3)))
            if n == 3:
                if change == 0:
                    model.scale = 3.0
                elif change == 1:
                    model.config.scale = 0.5
                elif change == 2:
                    model.config.kinds.append("gelu")
                elif change == 3:
                    model.act = F.silu
                elif change == 4:
                    model.sizes.append(3)
                else:
                    model.config = Config(7.0)
    return seen


@case()
def attribute_is_new(compile: Any) -> Any:
    class Maybe(nn.Module):
        def forward(self, x: Any) -> Any:
            return x * getattr(self, "factor", 1.0)

    model = Maybe()
    c = compile(model)
    seen = []
    for n in range(9):
        seen.append(c(mt.randn(3)))
        if n == 3:
            model.factor = 2.0
        if n == 6:
            del model.factor
    return seen


@case()
def class_attribute_changes(compile: Any) -> Any:
    class Scaled(nn.Module):
        factor = 2.0

        def forward(self, x: Any) -> Any:
            return x * self.factor + type(self).factor

    c = compile(Scaled())
    seen = []
    for n in range(9):
        seen.append(c(mt.randn(3)))
        if n == 3:
            Scaled.factor = 5.0
        if n == 6:
            Scaled.forward = lambda self, x: x - 1  # type: ignore[method-assign]
    return seen


@case()
def property_and_class_of_settings(compile: Any) -> Any:
    class Settings:
        rate = 2.0

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self._rate = 1.5

        @property
        def rate(self) -> float:
            return self._rate * Settings.rate

        def forward(self, x: Any) -> Any:
            return x * self.rate

    model = Scaled()
    c = compile(model)
    seen = []
    for n in range(9):
        seen.append(c(mt.randn(3)))
        if n == 3:
            model._rate = 5.0
        if n == 6:
            Settings.rate = 3.0
    return seen


@case()
def slots_change(compile: Any) -> Any:
    class Slotted:
        __slots__ = ("rate",)

        def __init__(self) -> None:
            self.rate = 2.0

    settings = Slotted()
    c = compile(lambda x: x * settings.rate)
    seen = []
    for n in range(8):
        seen.append(c(mt.randn(3)))
        if n == 3:
            settings.rate = 7.0
    return seen


@case()
def global_changes(compile: Any) -> Any:
    _set("scale", 1.0)
    table["a"] = 1.0

    def helper(x: Any) -> Any:
        return x * scale

    c = compile(lambda x: helper(x) + table["a"])
    seen = []
    for n in range(12):
        seen.append(c(mt.randn(3)))
        if n == 3:
            _set("scale", 2.0)
        if n == 6:
            table["a"] = 5.0
        if n == 9:
            table["b"] = 5.0
    return seen


@case()
def global_tensor_changes(compile: Any) -> Any:
    _set("scale", mt.ones(3))
    c = compile(lambda x: x * scale)
    seen = []
    for n in range(12):
        seen.append(c(mt.randn(3)))
        if n == 3:
            _set("scale", mt.randn(3))
        if n == 6:
            scale.add_(1)  # type: ignore[attr-defined]
        if n == 9:
            scale.data = mt.zeros(3)  # type: ignore[attr-defined]
    return seen


@case()
def closure_changes(compile: Any) -> Any:
    factor: Any = 2.0
    weights = [mt.randn(3), mt.randn(3)]

    def f(x: Any) -> Any:
        return sum(x * w for w in weights) * factor

    c = compile(f)
    seen = []
    for n in range(12):
        seen.append(c(mt.randn(3)))
        if n == 3:
            factor = 7.0
        if n == 6:
            weights.append(mt.randn(3))
        if n == 9:
            weights[0] = mt.randn(3)
    return seen


@case()
def defaults_change(compile: Any) -> Any:
    def f(x: Any, by: float = 2.0, *, options: Any = {"more": 1.0}) -> Any:  # noqa: B006
        return x * by + options["more"]

    c = compile(f)
    seen = []
    for n in range(12):
        seen.append(c(mt.randn(3)))
        if n == 3:
            f.__defaults__ = (5.0,)
        if n == 7:
            (f.__kwdefaults__ or {})["options"]["more"] = 2.0
    return seen


@case()
def function_behind_a_decorator_changes(compile: Any) -> Any:
    state = {"by": 2.0}

    def wrapped(g: Any) -> Any:
        @functools.wraps(g)
        def h(*args: Any) -> Any:
            return g(*args) * state["by"]

        return h

    @compile
    @wrapped
    def f(x: Any) -> Any:
        return x + 1

    seen = []
    for n in range(8):
        seen.append(f(mt.randn(3)))
        if n == 3:
            state["by"] = 3.0
    return seen


@case()
def attribute_of_an_imported_module_changes(compile: Any) -> Any:
    settings.scale = 2.0
    settings.inner.scale = 1.0
    c = compile(lambda x: x * settings.scale + settings.inner.scale)
    seen = []
    for n in range(9):
        seen.append(c(mt.randn(3)))
        if n == 3:
            settings.scale = 4.0
        if n == 6:
            settings.inner.scale = 7.0
    return seen


@case()
def settings_of_the_library_change(compile: Any) -> Any:
    c = compile(lambda x: mt.ones(3, 3) + x)
    seen = []
    for n in range(12):
        mt.set_default_dtype(mt.float64 if n // 3 % 2 else mt.float32)
        seen.append(c(mt.ones(3, 3, dtype=mt.float32)))
    mt.set_default_dtype(mt.float32)
    return seen


@case()
def modes_of_gradients(compile: Any) -> Any:
    model = Net(0.0)
    c = compile(model)
    seen = []
    for n in range(16):
        x = mt.randn(3, 8, requires_grad=True)
        if n % 4 == 1:
            with mt.no_grad():
                y = c(x)
        elif n % 4 == 2:
            with mt.inference_mode():
                y = c(x)
        else:
            y = c(x)
        seen += [y, y.is_inference()]
        if y.requires_grad:
            y.sum().backward()
            seen.append(x.grad)
    return seen


@case(ANY)
def modes_inside(compile: Any) -> Any:
    model = Net(0.0)

    @compile
    def f(x: Any) -> Any:
        with mt.no_grad():
            a = model.first(x)
        b = model.first(x)
        with mt.set_grad_enabled(False):
            target = a.softmax(-1)
            with mt.enable_grad():
                c = (b * 2).sum()
        return (b - target).square().sum() + c

    seen = []
    for _ in range(6):
        x = mt.randn(3, 8, requires_grad=True)
        y = f(x)
        y.backward()
        seen += [y, x.grad, grads(model)]
    return seen


@case()
def blocks_of_autocast_and_inference(compile: Any) -> Any:
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))
    c = compile(model)
    seen = []
    for n in range(12):
        x = mt.randn(64, 64, requires_grad=True)
        rounded = mt.autocast("cpu", dtype=mt.bfloat16, enabled=n % 4 == 1)
        with rounded, mt.inference_mode(n % 3 == 2):
            y = c(x)
        seen += [y, y.is_inference()]
        if y.requires_grad:
            y.float().sum().backward()
            seen += [x.grad, grads(model)]
            model.zero_grad()
    return seen


@case("Autocast watches a block in it")
def autocast_inside_and_outside(compile: Any) -> Any:
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))
    c = compile(model)

    @compile
    def inside(x: Any) -> Any:
        with mt.autocast("cpu", dtype=mt.bfloat16):
            return model(x).float()

    seen = []
    for n in range(9):
        x = mt.randn(64, 64, requires_grad=True)
        with mt.autocast("cpu", dtype=mt.bfloat16, enabled=n % 3 == 1):
            y = c(x)
            z = inside(x)
        (y.float().sum() + z.sum()).backward()
        seen += [y.float(), z, x.grad, grads(model)]
        model.zero_grad()
    return seen


@case(ANY)
def precision_of_products(compile: Any) -> Any:
    layer = nn.Linear(128, 128)
    c = compile(layer)
    seen = []
    for n in range(9):
        mt.set_float32_matmul_precision("medium" if n % 3 == 1 else "highest")
        x = mt.randn(128, 128)
        y = c(x)
        y.sum().backward()
        seen += [y, grads(layer)]
        layer.zero_grad()
    mt.set_float32_matmul_precision("highest")
    return seen


# What cannot be repeated


@case("reads a tensor's numbers")
def number_is_read(compile: Any) -> Any:
    c = compile(lambda x: x / x.max().item())
    return [c(mt.rand(3)) for _ in range(5)]


@case("reads a tensor's numbers")
def condition_on_numbers(compile: Any) -> Any:
    @compile
    def f(x: Any) -> Any:
        if x.sum() > 0:
            return x * 2
        return x - 1

    return [f(mt.randn(3)) for _ in range(9)]


@case(ANY)
def a_size_that_follows_the_numbers_and_broadcasts(compile: Any) -> Any:
    f = compile(lambda x: mt.diag_embed(x.masked_select(x > 0)))
    return [f(mt.tensor(each)) for each in ([1.0, 2, 3], [4.0, -5, -6], [7.0, 8, -9], [1.0, 2, 3])]


@case(ANY)
def numbers_read_in_other_ways(compile: Any) -> Any:
    fs = [
        lambda x: x * float(x[0]),
        lambda x: x * int(x[0] * 10),
        lambda x: x[x > 0],
        lambda x: mt.nonzero(x > 0),
        lambda x: x[: int((x > 0).sum())],
        lambda x: mt.tensor(x.tolist()) * 2,
        lambda x: mt.from_numpy(x.numpy() * 2) + x,
        lambda x: mt.tensor(np.asarray(x)) + 1,
        lambda x: x * (2 if x.any() else 1),
        lambda x: x + (x == x.max()).float(),
        lambda x: mt.unique(x),
        lambda x: x * len([1 for v in x if v > 0]),
        lambda x: x * max(x.tolist()),
        lambda x: x if mt.equal(x, x * 2) else x * 3,
        lambda x: x * (3 if mt.allclose(x, mt.zeros(4), atol=0.9) else 2),
        lambda x: x * float(f"{x[0].item():.2f}"),
        lambda x: x * (1 if x[0] in [0.5] else 2),
        lambda x: mt.tensor([x[0], x[1]]) * 2,
        lambda x: mt.tensor(x[0].item()) + x,
        lambda x: x.repeat_interleave(mt.tensor([1, 2, 1, 2])) * 2,
        lambda x: x.masked_select(x > 0),
        lambda x: mt.multinomial(x.abs(), 2),
        lambda x: x.sort().values[x.argmax().item()],
        lambda x: F.one_hot(x.abs().long().clamp(0, 3)),
        lambda x: x.clone().detach().numpy().sum() + x,
        lambda x: x.data * 2,
        lambda x: mt.where(x > 0)[0],
        lambda x: mt.arange(x.abs().argmax() + 1) * 2,
        lambda x: mt.linspace(0, x[0].item(), 3) * 2,
        lambda x: mt.full((2,), x[0].item()) * 2,
        lambda x: mt.full((2,), x[0]) * 2,
        lambda x: x.new_tensor([x[1]]) * 2,
        lambda x: mt.stack([mt.as_tensor(v) for v in x.tolist()]) * 2,
        lambda x: x * math.floor(x[0]) if x.numel() else x,
        lambda x: x ** round(float(abs(x[1]))),
        lambda x: x.clamp(min=x[0].item()),
        lambda x: x * hash(x[0].item()),
        lambda x: x * x.numpy()[0],
        lambda x: x * np.float32(x.numpy().mean()),
        lambda x: mt.tensor(memoryview(x.numpy()).tolist()) * 2,
    ]
    seen = []
    for number, f in enumerate(fs):
        c = compile(f)
        for _ in range(5):
            seen.append((number, c(mt.randn(4))))
    return seen


@case("differs each time")
def random_numbers_of_python(compile: Any) -> Any:
    c = compile(lambda x: x * random.random())
    return [c(mt.ones(3)) for _ in range(5)]


@case(ANY)
def chance_of_all_kinds(compile: Any) -> Any:
    rng, theirs = np.random.RandomState(3), random.Random(3)
    new = np.random.default_rng(3)
    own = mt.Generator().manual_seed(7)
    fs = [
        lambda x: x * np.random.rand(),
        lambda x: x * mt.tensor(np.random.randn(3), dtype=mt.float32),
        lambda x: x * rng.rand(),
        lambda x: x * new.random(),
        lambda x: x * theirs.random(),
        lambda x: x * random.choice([1, 2, 3, 4]),
        lambda x: x * random.randint(0, 9),
        lambda x: x + mt.rand(3),
        lambda x: x + mt.randn_like(x),
        lambda x: x + mt.zeros(3).uniform_(),
        lambda x: x + mt.empty(3).normal_(generator=own),
        lambda x: x[mt.randperm(3)],
        lambda x: mt.bernoulli(x.sigmoid()),
        lambda x: F.dropout(x, 0.5),
        lambda x: F.dropout(x, random.choice([0.1, 0.9])),
        lambda x: F.dropout(x, 0.5) if random.random() < 0.5 else x,
        lambda x: F.gumbel_softmax(x),
        lambda x: F.dropout(x, 0.5) + mt.rand(3),
    ]
    seen = []
    for number, f in enumerate(fs):
        c = compile(f)
        for _ in range(6):
            seen.append((number, c(mt.ones(3))))
    return seen


@case()
def dropout_of_all_kinds(compile: Any) -> Any:
    fs = [
        lambda x: F.dropout(x, 0.5),
        lambda x: F.dropout(x, 0.5) * F.dropout(x, 0.1),
        lambda x: F.dropout(x, 0.0) + F.dropout(x, 0.5, training=False),
        lambda x: F.dropout(x, 1.0),
        lambda x: x + F.dropout(x.relu(), 0.3),
        lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.3),
    ]
    seen = []
    for f in fs:
        c = compile(f)
        for _ in range(6):
            x = mt.ones(2, 4, 8, requires_grad=True)
            y = c(x)
            y.sum().backward()
            seen += [y, x.grad, mt.rand(1)]
    return seen


@case(ANY)
def exact_dropout(compile: Any) -> Any:
    model = Net(0.5)
    c = compile(model)
    seen = []
    for n in range(12):
        with mt.random.exact_dropout(n // 3 % 2 == 1):
            y = c(mt.ones(3, 8))
        seen += [y, mt.rand(1)]
    return seen


@case()
def generator_is_seeded_between_calls(compile: Any) -> Any:
    c = compile(lambda x: F.dropout(x, 0.5))
    seen = []
    for n in range(10):
        if n % 2:
            mt.manual_seed(n)
        state = mt.get_rng_state()
        seen.append(c(mt.ones(9)))
        mt.set_rng_state(state)
        seen.append(c(mt.ones(9)))
        with mt.random.fork_rng():
            seen.append(c(mt.ones(9)))
    return seen


@case(ANY)
def counters(compile: Any) -> Any:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.n = 0
            self.log: list[int] = []

        def forward(self, x: Any) -> Any:
            self.n += 1
            self.log.append(self.n)
            return x * self.n

    model = Model()
    c = compile(model)
    return [(c(mt.ones(2)), model.n, list(model.log)) for _ in range(9)]


@case(ANY)
def side_effects(compile: Any) -> Any:
    _set("COUNT", 0)
    LOG.clear()
    box: dict[str, Any] = {}
    kept: set[int] = set()
    total = [0]
    nonlocal_count = 0

    def count(x: Any) -> Any:
        global COUNT
        COUNT += 1
        return x + 1

    def log(x: Any) -> Any:
        LOG.append(len(LOG))
        return x + 1

    def keep(x: Any) -> Any:
        box["x"] = x * 2
        return x + 1

    def put(x: Any) -> Any:
        kept.add(len(kept))
        return x + 1

    def add(x: Any) -> Any:
        total[0] += 1
        return x + 1

    def outer(x: Any) -> Any:
        nonlocal nonlocal_count
        nonlocal_count += 1
        return x + 1

    def attribute(x: Any) -> Any:
        attribute.calls = getattr(attribute, "calls", 0) + 1  # type: ignore[attr-defined]
        return x + 1

    def popped(x: Any) -> Any:
        return x + stack.pop()

    def nexted(x: Any) -> Any:
        return x + next(numbers)

    stack = list(range(50))
    numbers = iter(range(50))
    seen = []
    for f in (count, log, keep, put, add, outer, attribute, popped, nexted):
        c = compile(f)
        for _ in range(6):
            y = c(mt.randn(2))
            seen.append((y, COUNT, list(LOG), dict(box), set(kept), list(total), nonlocal_count))
    return [*seen, attribute.calls]  # type: ignore[attr-defined]


@case(ANY)
def gradient_is_stored_away(compile: Any) -> Any:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin = nn.Linear(3, 3)

        def forward(self, x: Any) -> Any:
            self.hidden = self.lin(x)
            return self.hidden.relu()

    model = Model()
    c = compile(model)
    seen = []
    for _ in range(6):
        y = c(mt.randn(2, 3))
        (y.sum() + model.hidden.sum()).backward()
        seen += [y, model.hidden, grads(model)]
    return seen


@case(ANY)
def cache_of_a_model(compile: Any) -> Any:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cache: Any = None

        def forward(self, x: Any) -> Any:
            if self.cache is None or self.cache.shape != x.shape:
                self.cache = mt.ones(x.shape).cumsum(-1)
            return x * self.cache

    c = compile(Model())
    return [c(mt.randn(3 + n // 4)) for n in range(12)]


@case(ANY)
def memoized(compile: Any) -> Any:
    @functools.lru_cache
    def positions(n: int) -> Any:
        return mt.arange(n).float() / n

    c = compile(lambda x: x + positions(x.shape[0]))
    return [c(mt.randn(3 + n // 4)) for n in range(12)]


class _Printer:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, text: str) -> None:
        self.lines.append(text)

    def flush(self) -> None:
        pass


@case("print")
def printing(compile: Any) -> Any:
    out = _Printer()

    @compile
    def f(x: Any) -> Any:
        print("called", file=out)  # type: ignore[call-overload]
        return x + 1

    return [f(mt.ones(2)) for _ in range(5)] + [out.lines]


@case("differs each time")
def clock(compile: Any) -> Any:
    seen = []

    @compile
    def f(x: Any) -> Any:
        seen.append(time.perf_counter())
        return x + 1

    return [f(mt.ones(2)) for _ in range(5)] + [len(seen)]


@case(ANY)
def hooks_of_modules(compile: Any) -> Any:
    model = Net(0.0)
    c = compile(model)
    log: list[Any] = []
    seen = [steps(c, 3)]
    handles = [
        model.first.register_forward_hook(lambda m, x, y: log.append(y.detach())),
        model.norm.register_forward_pre_hook(lambda m, x: (x[0] * 2,)),
        model.last.register_full_backward_hook(lambda m, gx, gy: log.append(gy[0])),
    ]
    seen.append(steps(c, 3))
    for handle in handles:
        handle.remove()
    return [*seen, steps(c, 3), log]


@case(ANY)
def hooks_on_the_compiled_module(compile: Any) -> Any:
    model = Net(0.0)
    c = compile(model)
    log: list[Any] = []
    seen = [steps(c, 3)]
    handle = c.register_forward_hook(lambda m, x, y: y * 2)
    seen.append(steps(c, 4))
    handle.remove()
    return [*seen, steps(c, 3), log]


@case(ANY)
def hooks_on_tensors_inside(compile: Any) -> Any:
    log: list[Any] = []

    @compile
    def f(x: Any) -> Any:
        h = x * 2
        h.register_hook(lambda g: log.append(g.clone()))
        return h.exp()

    seen = []
    for _ in range(5):
        x = mt.randn(3, requires_grad=True)
        f(x).sum().backward()
        seen.append(x.grad)
    return [*seen, log]


@case(ANY)
def retain_grad_inside(compile: Any) -> Any:
    kept: list[Any] = []

    @compile
    def f(x: Any) -> Any:
        h = x * 2
        h.retain_grad()
        kept.append(h)
        return h.exp()

    seen = []
    for _ in range(5):
        x = mt.randn(3, requires_grad=True)
        f(x).sum().backward()
        seen.append(x.grad)
    return [*seen, [h.grad for h in kept]]


class Cube(mt.autograd.Function):
    """x ** 3."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        (x,) = ctx.saved_tensors
        return 3 * x**2 * dy


@case(ANY)
def function_of_the_user(compile: Any) -> Any:
    c = compile(lambda x: Cube.apply(x) + x)
    seen = []
    for _ in range(5):
        x = mt.randn(3, requires_grad=True)
        y = c(x)
        y.sum().backward()
        seen += [y, x.grad]
    return seen


@case(ANY)
def checkpointed(compile: Any) -> Any:
    model = Net(0.2)

    @compile
    def f(x: Any) -> Any:
        return checkpoint(model, x, use_reentrant=False).sum()

    inner = compile(model)
    seen = []
    for _ in range(6):
        x = mt.randn(3, 8, requires_grad=True)
        y = f(x) + checkpoint(inner, x, use_reentrant=False).sum()
        y.backward()
        seen += [y, x.grad, grads(model)]
    return seen


@case("Frame watches a block in it")
def checkpoints_with_changes_in_place(compile: Any) -> Any:
    def part(x: Any) -> Any:
        y = x * 2
        first = y[0]
        first.mul_(3)
        y.add_(1)
        y[1] = first * 2
        return (y * first).mul_(2).sum()

    c = compile(lambda x: checkpoint(part, x, use_reentrant=False))
    seen = []
    for _ in range(4):
        x = mt.randn(3, 4, requires_grad=True)
        y = c(x)
        y.backward()
        seen += [y, x.grad]
    return seen


@case()
def detached_inside(compile: Any) -> Any:
    w = mt.randn(3, requires_grad=True)
    fs = [
        lambda x: x * x.detach(),
        lambda x: (x * w).detach() * w + x,
        lambda x: x.exp().detach(),
        lambda x: x - (x - x.round()).detach(),
        lambda x: (x.detach() * w, (x * w).detach(), x.data * 2),
    ]
    seen = []
    for f in fs:
        c = compile(f)
        for _ in range(5):
            x = mt.randn(3, requires_grad=True)
            y = c(x)
            ys = [t for t in (y if isinstance(y, tuple) else (y,)) if t.requires_grad]
            if ys:
                sum(t.sum() for t in ys).backward()
            seen += [y, x.grad, None if w.grad is None else w.grad.clone()]
    return seen


@case(ANY)
def in_place_inside(compile: Any) -> Any:
    def temporaries(x: Any) -> Any:
        y = x * 2
        y.add_(1).mul_(x)
        return y.relu_()

    def views(x: Any) -> Any:
        y = x * 1
        y[0] = 0.0
        y[1:].mul_(2)
        y.view(-1)[2] = 5.0
        return y

    def view_first(x: Any) -> Any:
        y = x.clone()
        v = y[1]
        y.mul_(3)
        return v + y.sum()

    def of_input(x: Any) -> Any:
        x.add_(1)
        return x * 2

    def of_view_of_input(x: Any) -> Any:
        x[0].zero_()
        return x * 2

    def out_argument(x: Any) -> Any:
        out = mt.empty(x.shape)
        mt.add(x, 1, out=out)
        return out * 2

    def masked(x: Any) -> Any:
        y = x.clone()
        y[y > 0] = 0.0
        y.masked_fill_(y < -1, -1.0)
        return y

    def zeros(x: Any) -> Any:
        out = mt.zeros(x.shape)
        for i in range(x.shape[0]):
            out[i] = x[i] * i
        return out

    def saved(x: Any) -> Any:
        y = x.exp()
        z = y * 1
        z.add_(1)
        return y * z

    def scatter(x: Any) -> Any:
        return mt.zeros(4, 3).scatter_(0, mt.tensor([[1, 2, 0]]), x) + mt.ones(3).index_add_(
            0, mt.tensor([0, 1]), x[0, :2]
        )

    def copy(x: Any) -> Any:
        y = mt.empty_like(x)
        y.copy_(x)
        return y + 1

    seen = []
    for f in (
        temporaries, views, view_first, of_input, of_view_of_input, out_argument, masked, zeros,
        saved, scatter, copy,
    ):  # fmt: skip
        for grad in (False, True):
            if grad and f in (of_input, of_view_of_input, out_argument):
                continue
            c = compile(f)
            for _ in range(5):
                x = mt.randn(4, 3, requires_grad=grad)
                y = c(x)
                if grad:
                    y.sum().backward()
                seen += [f.__name__, x, y, x.grad]
    return seen


@case(ANY)
def input_with_history_changed_inside(compile: Any) -> Any:
    @compile
    def f(x: Any) -> Any:
        x.mul_(2)
        return x.exp()

    seen = []
    for _ in range(5):
        leaf = mt.randn(3, requires_grad=True)
        x = leaf * 1
        y = f(x)
        (y.sum() + x.sum()).backward()
        seen += [x, y, leaf.grad]
    return seen


@case(ANY)
def backward_inside(compile: Any) -> Any:
    w = mt.randn(3, requires_grad=True)

    @compile
    def f(x: Any) -> Any:
        y = (x * w).sum()
        y.backward()
        return y.detach()

    @compile
    def g(x: Any) -> Any:
        y = (x * w).exp().sum()
        (d,) = mt.autograd.grad(y, w, create_graph=True)
        return d.square().sum()

    seen = []
    for _ in range(5):
        seen += [f(mt.randn(3)), w.grad.clone()]
        z = g(mt.randn(3))
        z.backward()
        seen += [z, w.grad.clone()]
    return seen


@case(ANY)
def whole_training_step_inside(compile: Any) -> Any:
    model = Net(0.1)
    optimizer = mt.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    @compile
    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    seen = [step(mt.randn(3, 8), mt.randint(0, 4, (3,))) for _ in range(6)]
    return [*seen, *model.parameters()]


@case()
def constants_made_inside(compile: Any) -> Any:
    def f(x: Any) -> Any:
        n = x.shape[-1]
        mask = mt.ones(n, n).tril() == 0
        position = mt.arange(n)[None] + mt.zeros(1, n).long()
        y = (x @ x.mT).masked_fill(mask, float("-inf")).softmax(-1)
        return (
            y * mt.linspace(2, 3, n)
            + mt.tensor([2.0, 3.0, 4.0])
            + position
            + mt.eye(n)
            + mt.full((n,), 2.0)
        )

    c = compile(f)
    seen = []
    for _ in range(6):
        x = mt.randn(3, 3, requires_grad=True)
        y = c(x)
        y.sum().backward()
        seen += [y, x.grad]
    return seen


@case(ANY)
def tensor_made_from_a_list_that_changes(compile: Any) -> Any:
    numbers = [1.0, 2.0, 3.0]
    array = np.ones(3, np.float32)
    c = compile(lambda x: x * mt.tensor(numbers) + mt.from_numpy(array) + mt.tensor(array))
    seen = []
    for n in range(9):
        seen.append(c(mt.randn(3)))
        if n == 3:
            numbers[0] = 9.0
        if n == 6:
            array += 1
    return seen


@case(ANY)
def causal_masks(compile: Any) -> Any:
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
    mask = nn.Transformer.generate_square_subsequent_mask(5)
    c = compile(model)
    seen = []
    for n in range(12):
        x = mt.randn(2, 5, 8)
        if n == 6:
            mask = mask.clone()
        if n == 9:
            mask[0, 1] = 0.0
        seen.append(c(x, src_mask=mask))
        seen.append(c(x, src_mask=mask, is_causal=n < 9))
    return seen


@case("it sets data")
def data_is_replaced(compile: Any) -> Any:
    @compile
    def f(x: Any) -> Any:
        x.data = mt.tensor([5.0, 6.0])
        return x * 2

    seen = []
    for _ in range(4):
        x = mt.ones(2, requires_grad=True)
        seen += [f(x), x]
    return seen


@case(ANY)
def changes_in_place_of_what_is_detached(compile: Any) -> Any:
    def alias(x: Any) -> Any:
        y = x * 2
        y.detach().add_(1)
        return y

    def of_view(x: Any) -> Any:
        y = x * 2
        y.view(-1).detach().add_(1)
        return y * 3

    def view_of(x: Any) -> Any:
        y = x * 2
        y.detach()[0].add_(1)
        return y + 1

    def shows(x: Any) -> Any:
        y = x * 2
        row, whole, data = y[0].detach(), y.detach().view(-1), y.data[1]
        y.add_(1)
        return row + 1, whole * 2, data * 3

    def shows_another(x: Any) -> Any:
        y = x.detach() * 2
        row, whole = y[0].detach(), y.view(-1).detach()
        del y
        row.add_(1)
        return whole + x.sum()

    seen = []
    for f in (alias, of_view, view_of, shows, shows_another):
        for grad in (False, True):
            c = compile(f)
            for _ in range(5):
                y = c(mt.randn(4, 3, requires_grad=grad))
                seen += [f.__name__, y]
    return seen


@case("shares memory with one that is changed")
def a_buffer_shows_another_that_changes(compile: Any) -> Any:
    class Counts(nn.Module):
        table: Any
        flat: Any

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", mt.ones(2, 2))
            self.register_buffer("flat", self.table.view(-1).detach())

        def forward(self, x: Any) -> Any:
            self.flat.add_(1)
            return x * self.table

    model = Counts()
    c = compile(model)
    return [(c(mt.randn(2, 2)), model.flat.clone()) for _ in range(5)]
