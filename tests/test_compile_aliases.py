"""Tensors that share memory or change, in `compile`: all is as without it, replayed or not."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minitensor as mt
from minitensor import nn
from minitensor.nn import functional as F

CALLS = 5
FREEZING = {"freezing": True}
CASES: dict[str, Callable[[Any], Any]] = {}
REPLAYED: set[str] = set()


def case(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Add a function that uses what it is given as `compile`, and returns what it has seen."""
    CASES[function.__name__] = function
    return function


def replayed(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Add one that must be replayed, and not only run as it is."""
    REPLAYED.add(function.__name__)
    return case(function)


def plain(function: Any, **settings: Any) -> Any:
    return function


class Summing(nn.Module):
    """Adds what it is given to a buffer."""

    total: Any

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", mt.zeros(3))


# Memory that arguments share with each other and with what the function has by itself


@case
def an_argument_that_the_function_has_too(compile: Any) -> Any:
    seen = []
    for order in ("-w--", "ww-v-", "v--w-"):  # another tensor, that one, a view of it
        w = mt.ones(4)
        f = compile(lambda a, w=w: a * 2 + w)
        for n, which in enumerate(order):
            a = {"-": mt.full((4,), float(n)), "w": w, "v": w[:]}[which]
            seen.append(f(a).tolist())
    return seen


@case
def a_frozen_weight_as_an_argument(compile: Any) -> Any:
    w, x = mt.ones(16, 32), mt.ones(12, 32)
    f = compile(lambda x, a: F.linear(x, a).sum() + F.linear(x, w).sum(), options=FREEZING)
    with mt.no_grad():
        return [f(x, a).item() for a in (mt.zeros(16, 32), w, mt.zeros(16, 32), mt.zeros(16, 32))]


@case
def an_argument_changes_that_another_shows(compile: Any) -> Any:
    f = compile(lambda a, b: a.mul_(2) + b)
    seen = []
    for n in range(CALLS):
        a = mt.ones(3)
        seen.append(f(a, a[:] if n == CALLS - 1 else mt.ones(3)).tolist())
    return seen


@case
def an_argument_changes_that_the_function_shows(compile: Any) -> Any:
    w = mt.ones(3)

    def double(a: Any) -> Any:
        a.mul_(2)
        return a + w

    f = compile(double)
    return [(f(a).tolist(), w.tolist()) for a in (mt.ones(3), mt.ones(3), mt.ones(3), w, w[:])]


@case
def a_buffer_changes_that_an_argument_shows(compile: Any) -> Any:
    class Module(Summing):
        def forward(self, x: Any) -> Any:
            self.total.add_(x)
            return self.total + x

    module, norm = Module(), nn.BatchNorm1d(3)
    f, g = compile(module), compile(lambda x, y: norm(x) + y)
    seen = []
    for n in range(CALLS):
        last = n == CALLS - 1
        seen.append(f(module.total[:] if last else mt.ones(3)).tolist())
        seen.append(g(mt.randn(4, 3), norm.running_mean if last else mt.ones(3)).tolist())
    return seen


@case
def two_tensors_over_one_buffer(compile: Any) -> Any:
    content = bytearray(12)
    a, b = (mt.from_numpy(np.frombuffer(content, np.float32)) for _ in range(2))

    def add(x: Any) -> Any:
        a.add_(x)
        return b * 1

    f = compile(add)
    return [f(mt.ones(3)).tolist() for _ in range(CALLS)]


@case
def one_of_two_cannot_be_written(compile: Any) -> Any:
    def add(a: Any, b: Any) -> Any:
        a.add_(1)
        b.add_(1)
        return a + b

    f = compile(add)
    seen: list[Any] = []
    for n in range(CALLS):
        array, b = np.zeros(3, np.float32), mt.zeros(3)
        array.setflags(write=n < 3)
        try:
            f(mt.from_numpy(array), b)
        except RuntimeError as error:
            seen.append(str(error))
        seen.append(b.tolist())
    return seen


# Changes that no op makes


@case
def numbers_are_initialised(compile: Any) -> Any:
    b = mt.zeros(3)

    def f(x: Any) -> Any:
        nn.init.ones_(b)
        y = x * 2
        nn.init.constant_(y, 3.0)
        return x + b + y.apply_(lambda number: number + 1)

    compiled = compile(f)
    seen = []
    for n in range(CALLS):
        b.zero_()
        seen.append((compiled(mt.full((3,), float(n))).tolist(), b.tolist()))
    return seen


@case
def a_state_is_loaded(compile: Any) -> Any:
    model = nn.Linear(2, 2)
    state = {name: mt.ones(x.shape) for name, x in model.state_dict().items()}

    def f(x: Any) -> Any:
        model.load_state_dict(state)
        return model(x)

    compiled = compile(f)
    seen = []
    for _ in range(CALLS):
        nn.init.zeros_(model.weight)
        seen.append(compiled(mt.ones(1, 2)).tolist())
    return seen


@case
def an_optimizer_steps(compile: Any) -> Any:
    model = nn.Linear(2, 2)
    optimizer = mt.optim.SGD(model.parameters(), 0.1)

    def f(x: Any) -> Any:
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        return x * 2

    compiled = compile(f)
    seen = []
    for _ in range(CALLS):
        for p in model.parameters():
            p.grad = mt.ones_like(p)
        compiled(mt.ones(2))
        seen.append([(p.grad.tolist(), p.tolist()) for p in model.parameters()])
    return seen


@case
def a_gradient_is_set(compile: Any) -> Any:
    p = nn.Parameter(mt.ones(3))

    def f(x: Any) -> Any:
        p.grad = x * 2
        return x * 3

    compiled = compile(f)
    seen = []
    for _ in range(CALLS):
        p.grad = None
        compiled(mt.ones(3))
        seen.append(p.grad is None)
    return seen


# Shapes, histories and versions


@case
def shapes_change_in_place(compile: Any) -> Any:
    seen = []
    for name, args in (("t_", ()), ("unsqueeze_", (0,)), ("squeeze_", ()), ("resize_", (1, 2))):

        def of_argument(x: Any, name: str = name, args: Any = args) -> Any:
            getattr(x, name)(*args)
            return x * 2

        def of_result(x: Any, name: str = name, args: Any = args) -> Any:
            y = x + 1
            getattr(y, name)(*args)
            return y * 2

        for f in (compile(of_argument), compile(of_result)):
            for _ in range(CALLS):
                x = mt.zeros(2, 3)
                y = f(x)
                seen.append((name, tuple(x.shape), tuple(y.shape), y.tolist()))
    return seen


@case
def a_history_is_dropped_in_place(compile: Any) -> Any:
    def f(x: Any) -> Any:
        x.detach_()
        return x * 2

    compiled = compile(f)
    seen = []
    for _ in range(CALLS):
        x = mt.zeros(2, requires_grad=True) * 2
        compiled(x)
        seen.append(x.requires_grad)
    return seen


@case
def a_history_comes_with_the_second_change(compile: Any) -> Any:
    w = mt.ones(3, requires_grad=True)

    def f(x: Any) -> Any:
        x.mul_(2)
        x.mul_(w)
        return x.sum()

    compiled = compile(f)
    seen = []
    for _ in range(CALLS):
        x = mt.ones(3)
        compiled(x)
        seen.append(x.requires_grad)
    return seen


@case
def versions_count_all_changes(compile: Any) -> Any:
    def f(x: Any) -> None:
        x.add_(1)
        x.mul_(2)

    compiled = compile(f)
    seen = []
    for _ in range(CALLS):
        x = mt.ones(3)
        compiled(x)
        seen.append((x._version, x.tolist()))
    return seen


@case
def a_tensor_of_inference_mode_changes(compile: Any) -> Any:
    f = compile(lambda a: a.add_(1) * 1)
    seen: list[Any] = [f(mt.ones(2)).tolist() for _ in range(CALLS)]
    with mt.inference_mode():
        a = mt.ones(2) * 1
    try:
        f(a)
    except RuntimeError as error:
        seen.append(str(error))
    return seen


# Results


@case
def a_changed_argument_is_returned(compile: Any) -> Any:
    out = mt.zeros(3)
    f, g = compile(lambda x: x.mul_(2)), compile(lambda x: mt.mul(x, 2, out=out))
    seen: list[Any] = []
    for n in range(CALLS):
        x = mt.full((3,), float(n))
        y, z = f(x), g(x)
        y.add_(1)
        seen.append((y is x, x.tolist(), z is out, out.tolist()))
    return seen


@case
def a_changed_buffer_is_returned(compile: Any) -> Any:
    class Module(Summing):
        def forward(self, x: Any) -> Any:
            self.total.add_(x)
            return self.total, self.total.detach(), x * 2

    module = Module()
    f = compile(module)
    results = [f(mt.ones(3)) for _ in range(CALLS)]
    return [(a is module.total, b is module.total, a.tolist(), b.tolist()) for a, b, _ in results]


@case
def a_changed_parameter_is_returned(compile: Any) -> Any:
    p = nn.Parameter(mt.ones(3))
    f = compile(lambda x: p.mul_(x))
    seen = []
    for _ in range(CALLS):
        with mt.no_grad():
            y = f(mt.full((3,), 2.0))
        seen.append((y is p, y.requires_grad, y.tolist()))
    return seen


@case
def aliases_of_an_argument(compile: Any) -> Any:
    f = compile(lambda x: (x.detach(), x.data, x * 2))
    seen = []
    for grad in (False, True):
        for _ in range(CALLS):
            x = mt.ones(3, requires_grad=grad)
            with mt.no_grad():
                detached, data, _ = f(x)
            data.add_(1)
            version = x._version
            detached.add_(1)
            seen.append((detached is x, detached.requires_grad, version, x._version, x.tolist()))
    return seen


@case
def aliases_of_a_parameter(compile: Any) -> Any:
    p = nn.Parameter(mt.ones(3))
    seen = []
    for f in (
        lambda x: (x * p, p.detach()),
        lambda x: (x * p.detach(), p),
        lambda x: (x * p, p.data),
    ):
        compiled = compile(f)
        for grad in (False, True):
            for _ in range(CALLS):
                with mt.set_grad_enabled(grad):
                    _, alias = compiled(mt.ones(3))
                seen.append((alias is p, alias.requires_grad))
    return seen


@case
def aliases_of_a_result(compile: Any) -> Any:
    def f(x: Any) -> Any:
        y = x * 2
        return y, y.detach(), y

    compiled = compile(f)
    seen: list[Any] = []
    for _ in range(CALLS):
        first, alias, again = compiled(mt.ones(3))
        alias.requires_grad_()
        seen.append((first.requires_grad, first is alias, first is again))
        first.add_(1)
        seen.append((alias.tolist(), alias._version))
    return seen


@case
def a_result_and_its_view(compile: Any) -> Any:
    def f(x: Any) -> Any:
        y = x * 2
        return y, y[0]

    compiled = compile(f)
    seen = []
    for change in ("base", "view", "none"):
        for _ in range(CALLS):
            x = mt.ones(2, 2, requires_grad=True)
            base, view = compiled(x)
            if change == "base":
                base.mul_(3)
            elif change == "view":
                view.mul_(3)
            (2 * view.sum() + base.sum()).backward()
            seen.append((x.grad.tolist(), view._base is base))
    return seen


@replayed
def views_of_what_is_there(compile: Any) -> Any:
    w = mt.zeros(2, 3)
    f = compile(lambda x, y: (w[1], x[0], y[1].detach(), x * 3))
    seen = []
    for grad in (False, True):
        for _ in range(CALLS):
            x, y = mt.ones(2, 3, requires_grad=grad) * 1, mt.ones(2, 3)
            mine, first, second, product = f(x, y)
            mine.add_(1)
            first.mul_(2)
            second.add_(3)
            if grad:
                (x.sum() + product.sum()).backward()
            bases = mine._base is w, first._base is x, second._base is None
            seen.append((w.tolist(), x.tolist(), y.tolist(), bases, first.requires_grad))
    return seen


@replayed
def views_of_what_changes(compile: Any) -> Any:
    k = mt.zeros(3)

    def f(x: Any, out: Any) -> Any:
        k.add_(x)
        out.copy_(x * 2)
        return k[:2], x.mul_(2)[1:], out, out.view(-1)

    compiled = compile(f)
    kept = []
    seen = []
    for _ in range(CALLS):
        x, out = mt.ones(3), mt.zeros(3)
        results = compiled(x, out)
        results[1].add_(5)
        results[3].add_(1)
        kept.append(results[0])
        seen.append((x.tolist(), x._version, out.tolist(), results[2] is out))
    return [seen, [t.tolist() for t in kept]]


@replayed
def views_of_one_base(compile: Any) -> Any:
    def f(x: Any) -> Any:
        y = x * 2
        return y[0], y[:, 0]

    compiled = compile(f)
    seen = []
    for _ in range(CALLS):
        x = mt.ones(2, 2, requires_grad=True)
        row, column = compiled(x)
        row.mul_(3)
        column.sum().backward()
        seen.append((x.grad.tolist(), row._base is column._base))
    return seen


@replayed
def versions_of_results(compile: Any) -> Any:
    f = compile(lambda x: (x * 2).clamp_(0, 1).add_(1))
    return [f(mt.ones(2))._version for _ in range(CALLS)]


@replayed
def a_result_twice(compile: Any) -> Any:
    def f(x: Any) -> Any:
        y = (x * 2).detach()
        return y, y

    compiled = compile(f)
    seen = []
    for _ in range(CALLS):
        one, other = compiled(mt.ones(1, requires_grad=True))
        one.requires_grad_()
        seen.append((one is other, other.requires_grad))
    return seen


@replayed
def tensors_are_swapped(compile: Any) -> Any:
    a, b, last = mt.zeros(1), mt.ones(1), mt.zeros(1)

    def f(x: Any) -> Any:
        t = a.clone()
        a.copy_(b)
        b.copy_(t)
        y = x - last
        last.copy_(x)
        return y

    compiled = compile(f)
    return [(compiled(mt.full((1,), float(n))).item(), a.item(), b.item()) for n in range(CALLS)]


@case
def changes_by_data_have_another_version(compile: Any) -> Any:
    b = mt.ones(3)
    f = compile(lambda x: b.data.add_(x).sum())
    seen = []
    for _ in range(CALLS):
        w = mt.ones(3, requires_grad=True)
        y = (w * b).sum()
        f(mt.ones(3))
        y.backward()
        seen.append((b._version, w.grad.tolist()))
    return seen


@case
def two_arguments_over_one_array(compile: Any) -> Any:
    f, g = compile(lambda a, b: (a, b)), compile(lambda a, b: (a.mul_(1.0), b * 1)[0])
    seen = []
    for _ in range(CALLS):
        x = mt.ones(2)
        alias, data = x.detach(), x.data
        one, other = f(x, alias)
        again = g(x, data)
        seen.append((one is x, other is alias, again is x, x._version, data._version))
    return seen


@case
def containers_change(compile: Any) -> Any:
    def f(batch: Any, past: Any) -> Any:
        batch["made"] = batch["x"] * 2
        past.append(batch["made"])
        return batch

    functions = compile(f), compile(lambda x, past: (x * 2, past))
    seen = []
    for _ in range(CALLS):
        batch: dict[str, Any] = {"x": mt.ones(1)}
        past: list[Any] = []
        result = functions[0](batch, past)
        seen.append(
            (list(batch), result is batch, len(past), functions[1](batch["x"], past)[1] is past)
        )
    return seen


@replayed
def a_compiled_function_in_another(compile: Any) -> Any:
    w = mt.ones(3)
    inner = compile(lambda x: x * w)
    outer = compile(lambda x: inner(x) + 1)
    seen = []
    for n in range(CALLS):
        seen.append(outer(mt.ones(3)).tolist())
        if n == 3:
            w = mt.zeros(3)
    return seen


@replayed
def attributes_that_nobody_reads(compile: Any) -> Any:
    class Module(nn.Module):
        scale = 2.0
        step = 0
        last: Any = None

        def forward(self, x: Any) -> Any:
            return x * self.scale

    module = Module()
    f = compile(module)
    seen = []
    for n in range(2 * CALLS):
        module.step += 1
        module.last = mt.ones(1)
        if n == CALLS:
            module.scale = 3.0
        seen.append(f(mt.ones(2)).tolist())
    return seen


# Frozen weights


@case
def frozen_weights_without_versions(compile: Any) -> Any:
    with mt.inference_mode():
        w, x = mt.ones(16, 32) * 1, mt.ones(12, 32)
        f = compile(lambda x: F.linear(x, w).sum(), options=FREEZING)
        seen = []
        for _ in range(CALLS):
            seen.append(f(x).item())
            w.mul_(2)
    return seen


@case
def frozen_weights_that_come_back(compile: Any) -> Any:
    model, x = nn.Linear(32, 16, bias=False), mt.ones(12, 32)
    a, b = mt.ones(16, 32), mt.zeros(16, 32)
    f = compile(model, options=FREEZING)
    seen = []
    with mt.no_grad():
        for n in range(8):
            model.weight.data = b if n // 2 % 2 else a
            seen.append(f(x).sum().item())
            if n == 3:
                a.mul_(3)
    return seen


# Changes in place that carry a history with them


def _with_gradients(compile: Any, function: Callable[..., Any]) -> Any:
    f = compile(function)
    seen: list[Any] = []
    for n in range(CALLS):
        x = mt.tensor([1.0 + n, 2.0, 3.0], requires_grad=True)
        y = mt.tensor([0.5, 0.6, 0.7 + n], requires_grad=True)
        outs = f(x, y)
        mt.autograd.backward(outs, [mt.ones_like(out) for out in outs])
        seen.append([(t.tolist(), t._version) for t in outs])
        seen.append([None if t.grad is None else t.grad.tolist() for t in (x, y)])
    return seen


@replayed
def a_product_that_is_changed(compile: Any) -> Any:
    def function(x: Any, y: Any) -> Any:
        product = x[:, None] @ y[None]
        product.relu_()
        return (product,)

    return _with_gradients(compile, function)


@case
def a_detached_view_that_is_changed_by_what_has_a_gradient(compile: Any) -> Any:
    def function(x: Any, y: Any) -> Any:
        doubled = x * 2
        doubled.detach().add_(y)
        return doubled, doubled * 3, doubled[0]

    return _with_gradients(compile, function)


@case
def data_that_is_changed_by_what_has_a_gradient(compile: Any) -> Any:
    def function(x: Any, y: Any) -> Any:
        doubled = x * 2
        doubled.data.detach().lerp_(y, 0.3)
        return (*doubled.unbind(0), doubled)

    return _with_gradients(compile, function)


@case
def an_argument_that_is_changed_by_what_has_a_gradient(compile: Any) -> Any:
    def function(x: Any, y: Any) -> Any:
        x.detach().mul_(y)
        return (x * 1,)

    return _with_gradients(compile, function)


@case
def a_detached_view_that_becomes_a_leaf(compile: Any) -> Any:
    def function(x: Any, y: Any) -> Any:
        return ((x * 2).detach().requires_grad_() * y,)

    return _with_gradients(compile, function)


@pytest.mark.parametrize("name", CASES)
def test_equals_the_uncompiled_program(name: str) -> None:
    seen = []
    for compile in (plain, mt.compile):
        mt.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("error" if name in REPLAYED else "ignore")
            seen.append(CASES[name](compile))
    assert seen[0] == seen[1]
