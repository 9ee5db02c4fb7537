"""Cases of values, gradients and arguments for tests/test_compile.py."""

from __future__ import annotations

from collections import namedtuple
from functools import partial
from typing import Any

import numpy as np
from both import ANY, case

import minitensor as mt
from minitensor import nn
from minitensor.nn import functional as F

Pair = namedtuple("Pair", "first second")


class Net(nn.Module):
    """A network of a few layers."""

    def __init__(self, p: float = 0.2, dtype: Any = mt.float32) -> None:
        super().__init__()
        self.first = nn.Linear(8, 16, dtype=dtype)
        self.norm = nn.LayerNorm(16, dtype=dtype)
        self.drop = nn.Dropout(p)
        self.last = nn.Linear(16, 4, dtype=dtype)

    def forward(self, x: Any) -> Any:
        return self.last(self.drop(F.gelu(self.norm(self.first(x)))))


def grads(model: Any) -> list[Any]:
    return [None if p.grad is None else p.grad.clone() for p in model.parameters()]


def steps(model: Any, count: int = 5, loss: Any = None, batch: int = 6) -> list[Any]:
    """Train a few steps on new data each; return losses, gradients and weights."""
    seen: list[Any] = []
    optimizer = mt.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(count):
        x, y = mt.randn(batch, 8), mt.randint(0, 4, (batch,))
        out = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        out.backward()
        seen += [out.detach(), grads(model)]
        optimizer.step()
    return [*seen, *model.parameters()]


@case()
def training(compile: Any) -> Any:
    return steps(compile(Net()))


@case()
def training_in_float64(compile: Any) -> Any:
    model = Net(dtype=mt.float64)
    c = compile(model)
    seen = []
    for _ in range(5):
        x = mt.randn(6, 8, dtype=mt.float64)
        c(x).square().mean().backward()
        seen.append(grads(model))
    return seen


@case()
def the_whole_step_is_a_function(compile: Any) -> Any:
    model = Net()

    @compile
    def loss(x: Any, y: Any) -> Any:
        return F.cross_entropy(model(x), y)

    seen = []
    for _ in range(5):
        out = loss(mt.randn(6, 8), mt.randint(0, 4, (6,)))
        out.backward()
        seen += [out.detach(), grads(model)]
    return seen


@case()
def gradients_add_up(compile: Any) -> Any:
    model = Net()
    c = compile(model)
    seen = []
    for n in range(9):
        c(mt.randn(3, 8)).sum().backward()
        seen.append(grads(model))
        if n == 3:
            model.zero_grad(set_to_none=False)
        if n == 6:
            model.zero_grad(set_to_none=True)
    return seen


@case()
def gradients_kept_from_step_to_step(compile: Any) -> Any:
    model = Net(0.0)
    c = compile(model)
    kept = []
    for _ in range(5):
        model.zero_grad()
        x = mt.randn(3, 8, requires_grad=True)
        c(x).sum().backward()
        kept += [p.grad for p in model.parameters()] + [x.grad]
    return kept


@case()
def outputs_kept(compile: Any) -> Any:
    model = Net()
    c = compile(model)
    with mt.no_grad():
        return [c(mt.randn(5, 8)) for _ in range(6)]


@case()
def large_outputs_kept(compile: Any) -> Any:
    f = compile(lambda x, y: (x @ y, (x + y).relu(), F.softmax(x, -1)))
    kept = []
    for _ in range(4):
        x, y = mt.randn(300, 300, requires_grad=True), mt.randn(300, 300)
        outs = f(x, y)
        sum(o.sum() for o in outs).backward()
        kept.append((outs, x.grad))
    return kept


@case()
def outputs_changed_in_place(compile: Any) -> Any:
    f = compile(lambda x: (x * 2).relu())
    seen = []
    for _ in range(5):
        y = f(mt.randn(4, 4))
        y.add_(1)
        seen.append(y)
        seen.append(f(mt.randn(4, 4)))
    return seen


@case()
def outputs_changed_in_place_before_backward(compile: Any) -> Any:
    f = compile(lambda x: (x * x) + 1)
    seen = []
    for _ in range(5):
        x = mt.randn(4, 4, requires_grad=True)
        y = f(x)
        y.mul_(3)
        y.sum().backward()
        seen += [y, x.grad]
    return seen


@case()
def inputs_changed_between_calls(compile: Any) -> Any:
    f = compile(lambda x: F.gelu(x) * x)
    x = mt.randn(64, 64)
    seen = []
    for _ in range(5):
        seen.append(f(x))
        x.mul_(0.5).add_(1)
    return seen


@case()
def input_changed_before_backward_is_refused(compile: Any) -> Any:
    f = compile(lambda x: (x.exp() * x).sum())
    seen: list[Any] = []
    for n in range(6):
        leaf = mt.randn(4, 4, requires_grad=True)
        x = leaf * 1
        y = f(x)
        if n % 2:
            x.add_(1)
        try:
            y.backward()
            seen.append(leaf.grad)
        except RuntimeError as error:
            seen.append(type(error))
    return seen


@case()
def parameter_changed_before_backward_is_refused(compile: Any) -> Any:
    layer = nn.Linear(4, 4)
    f = compile(layer)
    seen: list[Any] = []
    for n in range(6):
        x = mt.randn(4, 4, requires_grad=True)
        y = f(x).sum()
        if n % 2:
            with mt.no_grad():
                layer.weight.mul_(2)
        try:
            y.backward()
            seen += [x.grad]
        except RuntimeError as error:
            seen.append(type(error))
    return seen


@case()
def unused_changes_before_backward(compile: Any) -> Any:
    layer = nn.Linear(4, 4)
    f = compile(lambda x, y: layer(x) + y)
    seen: list[Any] = []
    for _ in range(5):
        x, y = mt.randn(4, 4), mt.randn(4, 4)
        out = f(x, y).sum()
        with mt.no_grad():
            layer.bias.mul_(2)  # needed by no rule
            y.zero_()
        out.backward()
        seen += [out, layer.weight.grad.clone(), layer.bias.grad.clone()]
    return seen


# Results


@case()
def results_of_all_kinds(compile: Any) -> Any:
    def f(x: Any, y: Any) -> Any:
        return {"a": [x + y, (x * y, None)], "b": Pair(x.sum(), 3), "c": "text", "d": x - y}

    c = compile(f)
    return [c(mt.randn(3, 2), mt.randn(3, 2)) for _ in range(5)]


@case(ANY)
def result_is_an_input(compile: Any) -> Any:
    f = compile(lambda x, y: (x, y * 2, y))
    seen = []
    for _ in range(5):
        x, y = mt.randn(3), mt.randn(3, requires_grad=True)
        a, b, c = f(x, y)
        b.sum().backward()
        seen.append((a is x, c is y, a, b, c, y.grad))
    return seen


@case(ANY)
def result_is_a_view_of_an_input(compile: Any) -> Any:
    f = compile(lambda x: (x.view(-1), x.t(), x + 1))
    seen = []
    for _ in range(5):
        x = mt.randn(3, 4)
        a, b, c = f(x)
        a[0] = 7.0
        b[1, 1] = 8.0
        seen.append((x, a, b, c))
    return seen


@case(ANY)
def result_is_a_view_with_history(compile: Any) -> Any:
    f = compile(lambda x: x[1:])
    seen = []
    for _ in range(5):
        x = mt.randn(3, 4, requires_grad=True)
        (f(x) ** 2).sum().backward()
        seen.append(x.grad)
    return seen


@case(ANY)
def result_is_a_parameter(compile: Any) -> Any:
    layer = nn.Linear(3, 3)
    f = compile(lambda x: (layer(x), layer.weight, layer.bias.view(1, 3)))
    seen = []
    for _ in range(5):
        a, b, c = f(mt.randn(2, 3))
        (a.sum() + b.sum() + c.sum()).backward()
        seen.append((b is layer.weight, a, b, c, grads(layer)))
    return seen


@case(ANY)
def result_is_a_constant(compile: Any) -> Any:
    f = compile(lambda x: (mt.zeros(2, 2), x + mt.ones(2, 2), mt.arange(3)))
    seen = []
    for _ in range(5):
        a, b, c = f(mt.randn(2, 2))
        seen.append((a.clone(), b, c.clone()))
        a.add_(1)
        c.add_(1)
    return seen


@case(ANY)
def result_is_computed_from_constants(compile: Any) -> Any:
    f = compile(lambda x: (mt.arange(4.0) * 2, x + 1))
    seen = []
    for _ in range(5):
        a, b = f(mt.randn(4))
        seen.append((a.clone(), b))
        a.add_(1)
    return seen


@case(ANY)
def results_share_memory(compile: Any) -> Any:
    def f(x: Any) -> Any:
        y = x * 2
        return y, y.view(-1), y[0]

    c = compile(f)
    seen = []
    for _ in range(5):
        a, b, d = c(mt.randn(3, 4))
        d.add_(1)
        seen.append((a, b, d))
    return seen


@case()
def same_result_twice(compile: Any) -> Any:
    def f(x: Any) -> Any:
        y = x * x
        return y, y

    c = compile(f)
    seen = []
    for _ in range(5):
        x = mt.randn(3, requires_grad=True)
        a, b = c(x)
        (a.sum() + 2 * b.sum()).backward()
        seen.append((a, b, x.grad))
    return seen


@case(ANY)
def same_result_twice_is_one_tensor(compile: Any) -> Any:
    def f(x: Any) -> Any:
        y = x * x
        return y, y

    c = compile(f)
    seen: list[Any] = []
    for _ in range(5):
        a, b = c(mt.randn(3))
        seen.append(a is b)
        a.add_(1)
        seen.append((a, b))
    return seen


@case()
def some_results_are_used(compile: Any) -> Any:
    model = Net(0.0)
    f = compile(lambda x: (model(x), model.first(x), x.exp()))
    seen = []
    for n in range(9):
        x = mt.randn(3, 8, requires_grad=True)
        outs = f(x)
        outs[n % 3].sum().backward()
        seen += [x.grad, grads(model)]
        model.zero_grad()
    return seen


@case()
def results_are_unused(compile: Any) -> Any:
    model = Net()
    f = compile(model)
    seen = []
    for n in range(9):
        out = f(mt.randn(3, 8))
        seen.append(out.detach())
        if n % 4 == 3:
            out.sum().backward()
            seen.append(grads(model))
        del out
    return seen


@case()
def one_result_of_a_chain_is_used(compile: Any) -> Any:
    def f(a: Any, b: Any) -> Any:
        h = (a * 2).relu()
        return h, h * 1.5 + b

    c = compile(f)
    seen = []
    for n in range(6):
        a, b = (mt.randn(4, 5, requires_grad=True) for _ in range(2))
        out = c(a, b)[n % 2 and n > 3]  # of the second too, once there is a plan for the first
        found = mt.autograd.grad(out.sum(), [a, b], create_graph=n == 5, allow_unused=True)
        seen += [out, *found]
    return seen


@case()
def some_results_need_no_gradient(compile: Any) -> Any:
    def f(x: Any, w: Any) -> Any:
        y = x @ w
        return y, y.detach() * 2, y.argmax(-1), x * 2

    c = compile(f)
    seen = []
    for _ in range(5):
        w = mt.randn(4, 4, requires_grad=True)
        outs = c(mt.randn(3, 4), w)
        (outs[0] * outs[1]).sum().backward()
        seen += [outs, w.grad]
    return seen


@case()
def nothing_is_returned(compile: Any) -> Any:
    f = compile(lambda x: None)
    return [f(mt.randn(2)) for _ in range(5)] + [compile(lambda x: x + 1)(mt.ones(2))] * 0


# Arguments


@case(ANY)
def same_tensor_twice(compile: Any) -> Any:
    f = compile(lambda x, y: (x * y + x).sum())
    seen = []
    for _ in range(5):
        x, y = mt.randn(4, requires_grad=True), mt.randn(4, requires_grad=True)
        f(x, x).backward()
        f(x, y).backward()
        seen += [x.grad, y.grad]
    return seen


@case(ANY)
def tensor_and_its_detached_alias(compile: Any) -> Any:
    f = compile(lambda x, y: (x * y + x).sum())
    seen = []
    for _ in range(5):
        x = mt.randn(4, requires_grad=True)
        f(x, x.detach()).backward()
        f(x.detach(), x).backward()
        seen += [x.grad]
    return seen


@case(ANY)
def arguments_overlap(compile: Any) -> Any:
    f = compile(lambda x, y: x * y)
    seen = []
    for _ in range(5):
        x = mt.randn(5)
        seen += [f(x[:4], x[1:]), f(x[:3], x[:3])]
    return seen


@case(ANY)
def arguments_overlap_after_they_did_not(compile: Any) -> Any:
    f = compile(lambda x, y: (x * y, x + y))
    seen = []
    for n in range(6):
        x = mt.randn(8)
        seen.append(f(x[:4], x[4:]) if n < 3 else f(x[:4], x[2:6]))
    return seen


def with_gaps(compile: Any, size: int) -> Any:
    f = compile(lambda x, w: F.gelu(x @ w) + x)
    seen = []
    for _ in range(5):
        x = mt.randn(size, size, requires_grad=True)
        w = mt.randn(2 * size, 2 * size, requires_grad=True)
        y = f(x.t(), w[::2, 1::2])
        y.sum().backward()
        seen += [y, x.grad, w.grad]
    return seen


@case()
def arguments_are_not_contiguous(compile: Any) -> Any:
    return with_gaps(compile, 20)


@case(error=1e-6)  # they are copied: products of so few rows add up in another order then
def small_arguments_are_not_contiguous(compile: Any) -> Any:
    return with_gaps(compile, 6)


@case()
def argument_is_expanded(compile: Any) -> Any:
    f = compile(lambda x: (x * 2).sum(0))
    seen = []
    for _ in range(5):
        x = mt.randn(1, 4, requires_grad=True)
        y = f(x.expand(3, 4))
        y.sum().backward()
        seen += [y, x.grad]
    return seen


@case()
def argument_with_a_gap_before_it(compile: Any) -> Any:
    f = compile(lambda x: x.cumsum(-1) + 1)
    seen = []
    for n in range(8):
        base = mt.randn(100)
        seen.append(f(base[n : n + 10]))
    return seen


@case()
def zero_dimensional(compile: Any) -> Any:
    f = compile(lambda x, y: (x * y).exp() + x)
    seen = []
    for _ in range(5):
        x, y = mt.randn((), requires_grad=True), mt.randn(())
        z = f(x, y)
        z.backward()
        seen += [z, x.grad]
    return seen


@case()
def empty(compile: Any) -> Any:
    layer = nn.Linear(3, 2)
    f = compile(lambda x: (F.relu(layer(x)), x.sum(), x * 2))
    seen = []
    for n in range(8):
        x = mt.randn(n % 2 * 2, 3, requires_grad=True)
        outs = f(x)
        sum(o.sum() for o in outs).backward()
        seen += [outs, x.grad, grads(layer)]
    return seen


@case()
def integers_and_bools(compile: Any) -> Any:
    def f(i: Any, b: Any, x: Any) -> Any:
        return (
            i * 2 + 1,
            b & (i > 1),
            x.masked_fill(b, 0.0),
            mt.where(b, x, -x),
            i.sum(),
            x[:, 0] > 0,
        )

    c = compile(f)
    return [c(mt.randint(0, 5, (3, 4)), mt.rand(3, 4) > 0.5, mt.randn(3, 4)) for _ in range(5)]


@case()
def integer_types(compile: Any) -> Any:
    f = compile(lambda x: (x + x, x * 3, x.sum(), x // 2))
    kinds = (mt.int8, mt.uint8, mt.int16, mt.int32, mt.int64)
    return [f(mt.randint(0, 50, (7,)).to(kind)) for _ in range(4) for kind in kinds]


@case(ANY, error=1e-2)
def half_precision(compile: Any) -> Any:
    seen = []
    for kind in (mt.float16, mt.bfloat16):
        layer = nn.Linear(8, 8).to(kind)
        f = compile(lambda x, layer=layer: F.layer_norm(F.gelu(layer(x)) + x, (8,)))
        for _ in range(4):
            x = mt.randn(3, 8).to(kind).requires_grad_()
            y = f(x)
            y.sum().backward()
            seen += [y.float(), x.grad.float(), [g.float() for g in grads(layer)]]
    return seen


@case()
def types_change_from_call_to_call(compile: Any) -> Any:
    f = compile(lambda x: x * 2 + x)
    kinds = (mt.float32, mt.float64, mt.int64, mt.float32, mt.int32)
    return [f((mt.randn(5) * 9).to(kinds[n % 5])) for n in range(20)]


@case()
def keyword_and_default_arguments(compile: Any) -> Any:
    def f(x: Any, *more: Any, scale: float = 2.0, bias: Any = None, **rest: Any) -> Any:
        y = x * scale
        for each in more:
            y = y + each
        for name in sorted(rest):
            y = y - rest[name]
        return y if bias is None else y + bias

    c = compile(f)
    seen = []
    for _ in range(4):
        x, y, z = mt.randn(3), mt.randn(3), mt.randn(3)
        seen += [
            c(x), c(x, y), c(x, y, z), c(x, scale=3.0), c(x, bias=y), c(x, a=y, b=z),
            c(x, b=y, a=z), c(bias=z, x=y),
        ]  # fmt: skip
    return seen


@case()
def nested_arguments(compile: Any) -> Any:
    def f(batch: Any, pair: Any) -> Any:
        return batch["x"] @ batch["rest"][0] + pair[1], pair[0] * batch["scale"]

    c = compile(f)
    seen = []
    for n in range(6):
        batch = {"x": mt.randn(3, 3), "rest": [mt.randn(3, 3)], "scale": 1 + n // 3}
        seen.append(c(batch, (mt.randn(3), mt.randn(3))))
    return seen


@case()
def named_tuple_argument(compile: Any) -> Any:
    c = compile(lambda p: p.first * p.second)
    return [c(Pair(mt.randn(3), mt.randn(3))) for _ in range(5)]


class Holder:
    def __init__(self, x: Any) -> None:
        self.x = x


@case(ANY)
def object_argument(compile: Any) -> Any:
    c = compile(lambda holder, y: holder.x * y)
    one = Holder(mt.ones(3))
    seen = []
    for n in range(6):
        seen.append(c(one, mt.randn(3)))
        seen.append(c(Holder(mt.randn(3)), mt.randn(3)))
        if n > 3:
            one.x = one.x + 1
    return seen


@case(ANY)
def numpy_argument(compile: Any) -> Any:
    c = compile(lambda a, y: mt.from_numpy(a) * y)
    a = np.ones(3, np.float32)
    seen = []
    for _ in range(6):
        seen.append(c(a, mt.randn(3)))
        a += 1
    return seen


@case(ANY)
def generator_argument(compile: Any) -> Any:
    c = compile(lambda xs: sum(x * 2 for x in xs))
    return [c(mt.randn(3) for _ in range(3)) for _ in range(5)]


@case(ANY)
def mutable_argument_is_changed(compile: Any) -> Any:
    def f(x: Any, log: list[Any]) -> Any:
        log.append(len(log))
        return x + 1

    c = compile(f)
    log: list[Any] = []
    return [c(mt.randn(2), log) for _ in range(5)] + [log]


@case(ANY)
def float_arguments_nan_and_zero(compile: Any) -> Any:
    c = compile(lambda x, s: x * s)
    seen = []
    for s in (0.0, -0.0, 1, True, 1.0, float("nan"), 0.0, -0.0, 1, True, 1.0, float("nan")) * 2:
        seen.append(c(mt.tensor([1, 2]), s))
        seen.append(c(mt.tensor([1.0, 2]), s))
    return seen


@case()
def methods_lambdas_partials(compile: Any) -> Any:
    class Thing:
        scale = 3.0

        def by(self, x: Any) -> Any:
            return x * self.scale

        @compile
        def decorated(self, x: Any) -> Any:
            return x + self.scale

        @staticmethod
        def plain(x: Any) -> Any:
            return x - 1

        def __call__(self, x: Any) -> Any:
            return x / self.scale

    t, u = Thing(), Thing()
    by, double, plain, call = (
        compile(t.by),
        compile(partial(mt.mul, 2.0) if False else partial(lambda s, x: x * s, 2.0)),
        compile(Thing.plain),
        compile(t),
    )
    seen = []
    for n in range(6):
        x = mt.randn(3)
        seen += [by(x), double(x), plain(x), call(x), t.decorated(x), u.decorated(x)]
        if n == 3:
            t.scale = 5.0
    return seen


@case()
def nested_compiled_functions(compile: Any) -> Any:
    inner = compile(lambda x: F.relu(x) * 2)
    model = compile(Net(0.0))
    outer = compile(lambda x: inner(model(x)).sum() + inner(x).sum())
    seen = []
    for _ in range(6):
        x = mt.randn(3, 8, requires_grad=True)
        y = outer(x)
        y.backward()
        seen += [y, x.grad, grads(model), inner(x)]
    return seen


@case()
def compiled_twice(compile: Any) -> Any:
    f = compile(compile(lambda x: x.exp() + 1))
    return [f(mt.randn(3)) for _ in range(6)]


@case()
def recursion(compile: Any) -> Any:
    @compile
    def f(x: Any, n: int) -> Any:
        return x if n == 0 else f(x * 2 + 1, n - 1) + x

    return [f(mt.randn(3), n) for _ in range(5) for n in (1, 3)]


@case(ANY)
def function_that_yields(compile: Any) -> Any:
    @compile
    def f(x: Any) -> Any:
        yield x + 1
        yield x * 2

    return [list(f(mt.randn(2))) for _ in range(5)]


# The backward pass


@case()
def two_forwards_before_one_backward(compile: Any) -> Any:
    model = Net()
    c = compile(model)
    seen = []
    for _ in range(6):
        x, y = mt.randn(3, 8, requires_grad=True), mt.randn(3, 8, requires_grad=True)
        (c(x) * c(y)).sum().backward()
        seen += [x.grad, y.grad, grads(model)]
    return seen


@case()
def applied_to_its_own_result(compile: Any) -> Any:
    w = mt.randn(4, 4, requires_grad=True)
    f = compile(lambda x: mt.tanh(x @ w))
    seen = []
    for _ in range(5):
        x = mt.randn(2, 4)
        for _ in range(4):
            x = f(x)
        x.sum().backward()
        seen += [x, w.grad.clone()]
    return seen


@case()
def four_forwards_backward_in_any_order(compile: Any) -> Any:
    model = Net()
    c = compile(model)
    seen = []
    for _ in range(4):
        xs = [mt.randn(3, 8, requires_grad=True) for _ in range(4)]
        ys = [c(x).sum() for x in xs]
        for n in (2, 0, 3, 1):
            ys[n].backward()
        seen += [ys, [x.grad for x in xs], grads(model)]
    return seen


@case()
def backward_twice_is_refused(compile: Any) -> Any:
    model = Net(0.0)
    c = compile(lambda x: model(x).sum())
    seen: list[Any] = []
    for _ in range(5):
        x = mt.randn(3, 8, requires_grad=True)
        y = c(x)
        y.backward()
        try:
            y.backward()
        except RuntimeError as error:
            seen += [type(error), "retain_graph=True" in str(error)]
        seen.append(x.grad)
    return seen


@case()
def retain_graph(compile: Any) -> Any:
    model = Net()
    c = compile(lambda x: model(x).square().sum())
    seen: list[Any] = []
    for n in range(6):
        x = mt.randn(3, 8, requires_grad=True)
        y = c(x)
        y.backward(retain_graph=True)
        seen += [x.grad.clone(), grads(model)]
        y.backward(retain_graph=n % 2 == 0)
        seen += [x.grad.clone(), grads(model)]
    return seen


@case()
def second_derivatives(compile: Any) -> Any:
    model = Net(0.0, mt.float64)
    c = compile(lambda x: model(x).square().sum())
    seen: list[Any] = []
    for _ in range(5):
        x = mt.randn(3, 8, dtype=mt.float64, requires_grad=True)
        (g,) = mt.autograd.grad(c(x), x, create_graph=True)
        g.square().sum().backward()
        seen += [g, x.grad, grads(model)]
    return seen


@case()
def second_derivatives_now_and_then(compile: Any) -> Any:
    w = mt.randn(4, 4, requires_grad=True)
    c = compile(lambda x: mt.tanh(x @ w).sum())
    seen: list[Any] = []
    for n in range(8):
        x = mt.randn(3, 4, requires_grad=True)
        y = c(x)
        if n % 3 == 2:
            (g,) = mt.autograd.grad(y, x, create_graph=True)
            g.square().sum().backward()
        else:
            y.backward()
        seen += [y, x.grad, w.grad.clone()]
    return seen


@case()
def grad_of_some_inputs(compile: Any) -> Any:
    c = compile(lambda x, y, z: (x * y).exp() @ z)
    seen: list[Any] = []
    for n in range(9):
        xs = [mt.randn(3, 3, requires_grad=True) for _ in range(3)]
        out = c(*xs).sum()
        which = [[0], [1, 2], [2, 0, 1]][n % 3]
        seen.append(mt.autograd.grad(out, [xs[k] for k in which]))
        seen.append([x.grad for x in xs])
    return seen


@case()
def inputs_require_gradients_or_not(compile: Any) -> Any:
    w = mt.randn(3, 3, requires_grad=True)
    c = compile(lambda x, y: (x @ w) * y)
    seen: list[Any] = []
    for n in range(12):
        x, y = mt.randn(3, 3, requires_grad=n % 2 == 0), mt.randn(3, 3, requires_grad=n % 3 == 0)
        out = c(x, y)
        out.sum().backward()
        seen += [out, x.grad, y.grad, w.grad.clone()]
    return seen


@case()
def gradient_given_in_other_layouts(compile: Any) -> Any:
    c = compile(lambda x: F.gelu(x) * 2)
    seen: list[Any] = []
    for n in range(8):
        x = mt.randn(4, 4, requires_grad=True)
        g = [mt.randn(4, 4), mt.randn(4, 4).t(), mt.randn(1, 4).expand(4, 4), mt.ones(())
             .expand(4, 4)][n % 4]  # fmt: skip
        c(x).backward(g)
        seen.append(x.grad)
    return seen


@case()
def gradient_is_written_over_after_backward(compile: Any) -> Any:
    c = compile(lambda x: x + 1)
    seen: list[Any] = []
    for _ in range(5):
        x, g = mt.randn(4, requires_grad=True), mt.ones(4)
        c(x).backward(g)
        x.grad.add_(1)
        seen += [x.grad, g]
    return seen


@case()
def tensor_hooks_on_inputs_and_results(compile: Any) -> Any:
    c = compile(lambda x: x.exp() * 2)
    seen: list[Any] = []
    for _ in range(5):
        x = mt.randn(3, requires_grad=True)
        h = x * 2
        h.register_hook(lambda g: g * 10)
        h.retain_grad()
        y = c(h)
        y.register_hook(lambda g: seen.append(g.clone()))  # noqa: B023
        y.retain_grad()
        y.sum().backward()
        seen += [x.grad, h.grad, y.grad]
    return seen


@case()
def hooks_on_parameters(compile: Any) -> Any:
    model = Net()
    log: list[Any] = []
    c = compile(model)
    seen = [steps(c, 3)]
    model.first.weight.register_hook(lambda g: log.append(g.clone()))
    model.last.weight.register_post_accumulate_grad_hook(lambda p: log.append(p.grad.clone()))
    return [*seen, steps(c, 4), log]


@case()
def large_network_on_two_threads(compile: Any) -> Any:
    model = nn.Sequential(nn.Linear(200, 300), nn.ReLU(), nn.LayerNorm(300), nn.Linear(300, 10))
    c = compile(model)
    seen: list[Any] = []
    for n in range(9):
        mt.set_num_threads(1 + n // 3 % 2)
        x = mt.randn(100, 200, requires_grad=True)
        y = c(x)
        y.square().sum().backward()
        seen += [y, x.grad, grads(model)]
        model.zero_grad()
    return seen


@case()
def threads_change_between_forward_and_backward(compile: Any) -> Any:
    model = nn.Sequential(nn.Linear(200, 300), nn.ReLU(), nn.LayerNorm(300), nn.Linear(300, 10))
    c = compile(model)
    seen: list[Any] = []
    for n in range(8):
        mt.set_num_threads(1 + n % 2)
        x = mt.randn(100, 200, requires_grad=True)
        y = c(x)
        mt.set_num_threads(2 - n % 2)
        y.square().sum().backward()
        seen += [y, x.grad]
    mt.set_num_threads(1)
    return seen


@case(error=1e-6)
def several_results_of_shapes_that_vary(compile: Any) -> Any:
    f = compile(lambda x: (F.group_norm(x.unsqueeze(-1), 4), x.std(1)))
    seen = []
    for n in (10, 2, 2, 10, 2, 10, 3, 3, 3):
        x = mt.randn(n, 16, requires_grad=True)
        a, b = f(x)
        (a.sum() + b.sum()).backward()
        seen += [a, b, x.grad]
    return seen


@case()
def results_without_gradients_beside_others(compile: Any) -> Any:
    def f(x: Any, y: Any) -> Any:
        h = x * y
        k = h.detach()
        e = k.exp()
        return h, k, e, h * e

    c = compile(f)
    seen = []
    for _ in range(4):
        x, y = mt.randn(5, requires_grad=True), mt.randn(5)
        outs = c(x, y)
        (outs[0].sum() + outs[3].sum()).backward()
        seen += [*outs, x.grad]
    return seen


@case()
def second_derivatives_by_a_table_that_the_call_changes(compile: Any) -> Any:
    table = mt.zeros(2)

    @compile
    def f(x: Any) -> Any:
        table.add_(1)
        return (x * table).square()

    seen = []
    for _ in range(5):
        x = mt.randn(2, requires_grad=True)
        (slope,) = mt.autograd.grad(f(x).sum(), [x], create_graph=True)
        slope.sum().backward()
        seen += [slope, x.grad, table.clone()]
    return seen
