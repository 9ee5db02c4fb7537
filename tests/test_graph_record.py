"""Recording beyond one forward pass: passes over passes, trips, updates, names."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import edges
import numpy as np
import pytest

import minitensor as mt
import minitensor.nn.functional as F
from minitensor import graph, nn
from minitensor.autograd import grad
from minitensor.graph import Graph
from minitensor.graph.fold import fold
from minitensor.graph.page import Page
from minitensor.graph.picture import picture
from minitensor.graph.trace import TIMED_RUNS
from minitensor.graph.trips import Trips
from minitensor.graph.view import view
from models import gpt

# Gradients of gradients


@pytest.fixture(scope="module")
def penalty() -> Graph:
    """The gradient's norm, and the backward pass of that."""

    def norm(x: mt.Tensor) -> mt.Tensor:
        y = (x**3 + x.exp() * x).sum()
        (g,) = grad(y, x, create_graph=True)
        return (g**2).sum()

    return graph.trace(norm, mt.randn(3, requires_grad=True), backward=True)


def test_every_op_of_a_pass_is_backward_and_those_of_a_rule_are_inside_its_node(
    penalty: Graph,
) -> None:
    for node in penalty.nodes.values():
        if ":backward" in node.id:
            assert node.direction == "backward"
            assert (node.inside is None) == (node.of is not None)
    assert penalty.nodes["pow:backward/mul.1:backward"].of == "pow:backward/mul.1"
    assert penalty.nodes["exp:backward.1"].of == "exp"
    assert penalty.nodes["pow.1"].direction == "forward"
    assert penalty.nodes["pow.1"].inputs == [penalty.nodes["add.2"].outputs[0]]


def test_sums_of_gradients_are_ops_of_the_pass_with_create_graph(penalty: Graph) -> None:
    total = penalty.values["add.2:0"]
    assert (total.kind, total.of, total.names) == ("gradient", "input:x", ["g"])
    assert penalty.nodes["add.2"].direction == "backward"
    assert penalty.nodes["add.2:backward"].of == "add.2"


def test_every_input_of_every_op_was_made_before_it_or_is_a_source(penalty: Graph) -> None:
    made = {v for v, value in penalty.values.items() if value.producer is None}
    for node in penalty.nodes.values():
        assert made.issuperset(v for v in node.inputs if penalty.values[v].producer != node.id)
        made.update(node.outputs)
        made.update(node.saved)
    for value in penalty.values.values():
        if value.producer is None and value.kind == "gradient":  # a seed, or a sum of those read
            assert value.id.rpartition(":")[2].startswith("in")


def test_the_last_value_inside_a_backward_node_tells_which_output_it_is(penalty: Graph) -> None:
    for node in penalty.nodes.values():
        inside = [n for n in penalty.nodes.values() if n.inside == node.id]
        if inside:
            last = {penalty.values[v].of for n in inside for v in n.outputs}
            assert last.issuperset(node.outputs)
    inner = penalty.nodes["mul:backward/mul.1:backward/mul"]
    outer = penalty.nodes["mul:backward/mul.1:backward"]
    assert set(inner.inputs) == set(outer.inputs)


# What runs no op


def test_functions_without_an_op_are_nodes_without_a_gradient() -> None:
    def sample(logits: mt.Tensor) -> mt.Tensor:
        chosen = mt.multinomial(logits.softmax(-1), 1)
        return F.one_hot(chosen, 5) * logits.detach()

    g = graph.trace(sample, mt.rand(3, 5, requires_grad=True))
    assert [n.op for n in g.nodes.values() if not n.gradient] == [
        "multinomial",
        "one_hot",
        "detach",
    ]
    assert g.nodes["multinomial"].inputs == ["softmax:0"]
    assert g.nodes["multinomial"].attributes == {"num_samples": 1}
    assert g.values["multinomial:0"].names == ["chosen"]
    assert g.nodes["one_hot"].inputs == ["multinomial:0"]
    assert g.nodes["detach"].inputs == ["input:logits"]
    assert g.nodes["mul"].inputs == ["to:0", "detach:0"]


def test_an_op_without_a_derivative_passes_no_gradient_on() -> None:
    g = graph.trace(lambda x: x.argmax(-1), mt.rand(3, 5))
    assert not g.nodes["argmax"].gradient


def test_a_result_that_nothing_reads_is_no_node() -> None:
    def run(x: mt.Tensor) -> mt.Tensor:
        x.detach()
        assert x.sum().item() > 0
        return x * 2

    assert [n.op for n in graph.trace(run, mt.ones(3)).nodes.values()] == ["sum", "mul"]


def test_constants_tell_the_call_that_made_them_and_the_variable_they_are_in() -> None:
    def run(x: mt.Tensor) -> mt.Tensor:
        positions = mt.arange(3)
        mask = mt.full((3, 3), float("-inf")).triu(1)
        noise = mt.empty(3).normal_()
        return x + positions + mask + noise + mt.zeros_like(x) + mt.tensor([[[1.0]]] * 9)

    g = graph.trace(run, mt.rand(9, 3, 3))
    found = {v.origin: v.name for v in g.values.values() if v.kind == "constant"}
    assert found == {
        "arange(3)": "positions",
        "full((3, 3), -inf)": "",
        "normal_()": "noise",
        "zeros_like(x)": "",
        "tensor(...)": "",
    }


SCALE = mt.full((3,), 2.0)


def test_weights_of_closures_globals_and_dicts_have_their_names() -> None:
    weight = mt.rand(3, 3, requires_grad=True)
    more = {"bias": mt.rand(3, requires_grad=True)}

    def run(x: mt.Tensor) -> mt.Tensor:
        return (x @ weight + more["bias"]) * SCALE

    g = graph.trace(run, mt.rand(2, 3))
    assert {"parameter:weight", "parameter:bias", "constant:SCALE"} < set(g.values)


# Functions of the user's


def test_ops_know_the_function_of_the_users_that_ran_them() -> None:
    def rotate(x: mt.Tensor) -> mt.Tensor:
        return x.cos() * 2

    class Layer(nn.Module):
        def attend(self, x: mt.Tensor) -> mt.Tensor:
            return rotate(x).softmax(-1)

        def forward(self, x: mt.Tensor) -> mt.Tensor:
            return self.attend(rotate(rotate(x))) + 1

    for traced in (Layer(), lambda x: Layer()(x)):
        nodes = graph.trace(traced, mt.rand(2, 3)).nodes.values()
        assert [n.function for n in nodes] == [
            *["rotate"] * 2, *["rotate#2"] * 2, *["rotate#3"] * 2, "attend", "",
        ]  # fmt: skip
    assert {n.function for n in graph.trace(rotate, mt.rand(2)).nodes.values()} == {""}


# A training step


def test_a_training_step_updates_each_weight_by_its_gradient() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    optimizer = mt.optim.Adam(model.parameters(), lr=0.1)

    def step(x: mt.Tensor) -> mt.Tensor:
        for _ in range(2):
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        return loss

    g = graph.trace(step, mt.rand(2, 3))
    updates = [n for n in g.nodes.values() if n.op == "Adam"]
    assert len(updates) == 8
    first = updates[0]
    assert first.direction == "update"
    assert first.input_names == ["param", "grad"]
    assert first.inputs == ["parameter:model.0.weight", "clip_grad_norm_:0"]
    assert first.attributes["lr"] == 0.1
    new = g.values[first.outputs[0]]
    assert (new.of, new.names) == ("parameter:model.0.weight", ["model.0.weight"])
    clip = g.nodes["clip_grad_norm_"]
    assert (clip.direction, clip.gradient, len(clip.outputs)) == ("update", False, 5)
    assert [g.values[v].of for v in clip.inputs] == [g.values[v].of for v in clip.outputs[:4]]
    assert clip.inputs[0] == "model.0/linear:backward:1"
    second = next(n for n in g.nodes.values() if n.op == "linear" and n.group == "model.0#2")
    assert second.inputs[1:] == ["Adam:0", "Adam.1:0"]
    assert updates[4].inputs == ["Adam:0", "clip_grad_norm_.1:0"]


def test_an_update_by_hand_is_one_of_the_weight() -> None:
    w = mt.rand(4, 1, requires_grad=True)

    def train(x: mt.Tensor, y: mt.Tensor) -> mt.Tensor:
        loss = F.mse_loss(x @ w, y)
        loss.backward()
        with mt.no_grad():
            w.sub_(0.1 * w.grad)  # type: ignore[operator]
        return loss

    g = graph.trace(train, mt.rand(5, 4), mt.rand(5, 1))
    (updated,) = [n for n in g.nodes.values() if n.direction == "update"]
    (value,) = [g.values[v] for v in updated.outputs]
    assert (updated.op, value.kind, value.of) == ("sub", "parameter", "parameter:w")
    assert (value.names, g.weight(value.id)) == (["w"], "parameter:w")
    page = Page(g, fold(g))
    assert page.card(updated.id).kind == "update"
    assert "-> w" in page.card(updated.id).forward.lines
    assert page.tree.boxes[""].parameter_count == 4


def test_a_buffer_that_changes_says_so_where_its_last_change_is() -> None:
    g = graph.trace(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), mt.rand(5, 3))
    page = Page(g, fold(g))
    said = {key: page.card(key).forward.lines for key in page.tree.boxes}
    changed = {line for lines in said.values() for line in lines if line.startswith("->")}
    assert changed == {"-> running_mean", "-> running_var", "-> num_batches_tracked"}
    first = next(n for n in g.nodes.values() if "buffer:1.running_mean" in n.inputs)
    assert not any(line.startswith("->") for line in said[first.id])


def test_weights_count_once_however_often_they_are_updated() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
    optimizer = mt.optim.SGD(model.parameters(), lr=0.1)

    def train(x: mt.Tensor, y: mt.Tensor) -> mt.Tensor:
        for _ in range(3):
            optimizer.zero_grad()
            loss = F.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
        return loss

    g = graph.trace(train, mt.rand(5, 4), mt.rand(5, 1))
    page = Page(g, fold(g))
    assert page.tree.boxes[""].parameter_count == 25
    turns = next(box for box in page.tree.boxes.values() if box.count > 1)
    assert (turns.parameter_count, turns.shared, len(turns.carried)) == (25, True, 4)
    assert {label.name for label in page.loop(turns)} == {"weight, 2 times", "bias, 2 times"}
    for box in ("model", "model#3"):
        backward = page.card(box).backward
        assert backward is not None
        assert "25 gradients of parameters" in backward.lines
    edges = [e for e in view(page.tree, g, "arch").edges if e.target == "model#3"]
    updated = [e for e in edges if g.values[e.value].kind == "parameter"]
    assert {page.edge(g.values[e.value], False).name for e in updated} == {"weight", "bias"}
    assert {port for e in updated for port in e.ports} == {"weight", "bias"}
    drawn = picture(view(page.tree, g, "arch"), g).edges
    assert not any(e.given for e in drawn if g.values[e.edge.value].kind == "parameter")


def test_gradients_that_add_up_are_summed_where_an_optimizer_reads_them() -> None:
    weight = mt.rand(3, requires_grad=True)
    optimizer = mt.optim.SGD([weight], lr=0.1)

    def step(x: mt.Tensor) -> mt.Tensor:
        (x * weight).sum().backward()
        (x + weight).sum().backward()
        optimizer.step()
        return weight

    g = graph.trace(step, mt.rand(3))
    assert g.nodes["SGD"].inputs == ["parameter:weight", "accumulate_grad:0"]
    assert g.nodes["accumulate_grad"].inputs == ["mul:backward:1", "add:backward:1"]
    assert g.values["accumulate_grad:0"].of == "parameter:weight"


def test_a_weight_that_two_losses_use_is_updated_by_one_sum_in_one_step() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1))
    optimizer = mt.optim.Adam(model.parameters())

    def step(real: mt.Tensor, fake: mt.Tensor) -> mt.Tensor:
        optimizer.zero_grad()
        loss = model(real).mean() - model(fake).mean()
        loss.backward()
        optimizer.step()
        return loss

    g = graph.trace(step, mt.rand(5, 4), mt.rand(5, 4))
    tree = fold(g)
    page = Page(g, tree)
    steps = [box for box in tree.boxes.values() if box.kind == "update" and box.children]
    assert [(box.label, len(box.children)) for box in steps] == [("optimizer.step", 4)]
    assert not any("accumulate_grad" in box.label for box in tree.boxes.values())
    backward = [page.card(f"model.0{call}").backward for call in ("", "#2")]
    said = [label.lines[:2] for label in backward if label is not None]
    assert sorted(said) == [
        ["weight.grad (3, 4)", "bias.grad (3)"],
        ["weight.grad (3, 4), sum of 2", "bias.grad (3), sum of 2"],
    ]
    assert edges.count(g).sound


def test_an_optimizer_written_with_ops_updates_too() -> None:
    class Plain(mt.optim.Optimizer):
        def step(self, closure: Any = None) -> None:
            with mt.no_grad():
                for p in self.param_groups[0]["params"]:
                    p.sub_(0.1 * p.grad)

    weight = mt.rand(3, requires_grad=True)
    optimizer = Plain([weight])

    def step(x: mt.Tensor) -> mt.Tensor:
        (x * weight).sum().backward()
        optimizer.step()
        return weight * 1

    g = graph.trace(step, mt.rand(3))
    update = [n for n in g.nodes.values() if n.direction == "update"]
    assert [n.op for n in update] == ["mul", "sub"]
    assert update[0].inputs == ["mul:backward:1"]
    assert g.values[update[1].outputs[0]].of == "parameter:weight"
    last = list(g.nodes.values())[-1]
    assert last.inputs == update[1].outputs


# Modules


def test_modules_called_by_forward_keep_their_box() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 3)

        def forward(self, x: mt.Tensor) -> mt.Tensor:
            return self.inner.forward(self.inner(x))

    g = graph.trace(Outer(), mt.rand(2, 3))
    assert [n.group for n in g.nodes.values()] == ["inner", "inner#2"]
    assert g.groups["inner#2"].inputs == ["inner/linear:0"]
    assert g.groups["inner#2"].parent == ""
    again = graph.trace(Outer().forward, mt.rand(2, 3))
    assert list(again.groups) == list(g.groups)


def test_modules_in_no_other_have_the_name_of_their_variable_or_list() -> None:
    class Plain:
        def __init__(self) -> None:
            self.head = nn.Linear(3, 3)

        def run(self, x: mt.Tensor) -> mt.Tensor:
            return self.head(x)

    layers, plain, single = [nn.Linear(3, 3), nn.Linear(3, 3)], Plain(), nn.Tanh()

    def run(x: mt.Tensor) -> mt.Tensor:
        for layer in layers:
            x = layer(x)
        return single(plain.run(nn.ReLU()(x)))

    g = graph.trace(run, mt.rand(2, 3))
    assert [n.group for n in g.nodes.values()] == ["layers.0", "layers.1", "ReLU", "head", "single"]
    assert "parameter:layers.1.weight" in g.values


def test_modules_of_any_name_are_told_apart() -> None:
    class Odd(nn.Module):
        def forward(self, x: mt.Tensor) -> mt.Tensor:
            for module in self.children():
                x = module(module(x))
            return x

    names = ["a", "a#2", "", "a.b", "<x> & y", "a b", "\x07", "\\"]
    model = Odd()
    for name in names:
        model._modules[name] = nn.Linear(3, 3)
    inner = nn.Sequential(nn.Linear(3, 3))
    inner._modules["b"] = inner._modules.pop("0")
    model._modules["a."] = inner
    g = graph.trace(model, mt.rand(2, 3))
    assert len({n.group for n in g.nodes.values()}) == len(g.nodes) == 18
    assert len({tuple(n.inputs[1:]) for n in g.nodes.values()}) == 9
    assert all(text.isprintable() for text in (*g.groups, *g.values, *g.nodes))
    assert [g.groups[n.group].path for n in g.nodes.values()][::2] == [
        "a", "'a#2'", "''", "'a.b'", "<x> & y", "a b", r"\x07", "\\", "'a.'.b",
    ]  # fmt: skip


# Inputs, outputs, and where a backward pass begins


@dataclasses.dataclass
class Batch:
    tokens: mt.Tensor
    mask: mt.Tensor


class Fields(NamedTuple):
    loss: mt.Tensor
    logits: mt.Tensor


class Output:
    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)


def test_outputs_and_inputs_in_any_container_have_their_own_names() -> None:
    weight = mt.rand(3, requires_grad=True)

    def run(batch: Batch, more: dict[str, mt.Tensor], how: str) -> Any:
        x = batch.tokens * batch.mask + more["shift"] * weight
        loss = x.sum()
        if how == "dict":
            return {"loss": loss, "logits": x, "all": [x + 1, (x + 2, {"deep": x + 3})]}
        return {"tuple": Fields(loss, x), "object": Output(loss=loss, logits=x, n=3)}[how]

    def trace(how: str) -> Graph:
        batch = Batch(mt.rand(3), mt.rand(3))
        return graph.trace(run, batch, {"shift": mt.rand(3)}, how, backward=True)

    g = trace("dict")
    assert [g.values[v].name for v in g.inputs] == ["batch.tokens", "batch.mask", "more[shift]"]
    assert [g.values[v].name for v in g.outputs] == [
        "loss", "logits", "all[0]", "all[1][0]", "all[1][1][deep]",
    ]  # fmt: skip
    for how in ("dict", "tuple", "object"):
        g = trace(how)
        assert [g.values[v].name for v in g.outputs[:2]] == ["loss", "logits"]
        assert (g.seed, g.notes) == ("loss", [])
        seeds = [v for v in g.values.values() if v.kind == "gradient" and v.producer is None]
        assert [v.of for v in seeds] == [g.outputs[0]]


def test_a_backward_pass_begins_at_the_only_scalar_or_at_the_output_one_asks_for() -> None:
    weight = mt.rand(3, requires_grad=True)

    def run(x: mt.Tensor) -> tuple[mt.Tensor, mt.Tensor]:
        logits = x * weight
        return logits, logits.square().mean()

    def seeds(g: Graph) -> list[str | None]:
        return [v.of for v in g.values.values() if v.kind == "gradient" and v.producer is None]

    g = graph.trace(run, mt.rand(3), backward=True)
    assert (g.seed, seeds(g), g.notes) == ("mean", ["mean:0"], [])
    for name in ("logits", "0", "[0]"):
        g = graph.trace(run, mt.rand(3), backward=name)
        assert seeds(g) == ["mul:0"]
    with pytest.raises(ValueError, match="'other' names no output of run"):
        graph.trace(run, mt.rand(3), backward="other")
    g = graph.trace(lambda x: (x * weight, x + weight), mt.rand(3), backward=True)
    assert seeds(g) == ["add:0", "mul:0"]
    assert g.seed == ""
    assert g.notes == [
        "backward: no output is a single loss, so it begins at [0], [1] with gradients of one"
    ]


def test_a_pass_of_the_programs_own_tells_what_it_began_from() -> None:
    weight = mt.rand(3, requires_grad=True)

    def step(x: mt.Tensor) -> mt.Tensor:
        error = (x * weight).sum()
        error.backward()
        return error

    assert graph.trace(step, mt.rand(3)).seed == "error"


def test_what_cannot_be_called_is_no_program() -> None:
    with pytest.raises(TypeError, match="trace: expected a function or a module to run, got int"):
        graph.trace(5)  # type: ignore[arg-type]


def test_an_output_without_a_name_goes_by_the_function_that_made_it() -> None:
    weight = mt.rand(3, 4, requires_grad=True)

    def run(x: mt.Tensor, y: mt.Tensor) -> tuple[mt.Tensor, mt.Tensor]:
        logits = x @ weight
        return logits, F.mse_loss(logits, y)

    g = graph.trace(run, mt.rand(2, 3), mt.rand(2, 4), backward=True)
    page = Page(g, fold(g))
    assert g.seed == "mse_loss"
    first = next(v for v in g.values.values() if v.kind == "gradient" and v.producer is None)
    assert page.name(first) == "d mse_loss"


def test_a_parameter_called_function_is_no_argument_of_trace() -> None:
    def run(function: mt.Tensor, stats: int = 1) -> mt.Tensor:
        return function * stats

    g = graph.trace(functools.partial(run, stats=3), function=mt.rand(3))
    assert g.inputs == ["input:function"]
    assert g.nodes["mul"].attributes == {"b": 3.0}


# Times


def test_times_are_medians_of_runs_of_copies_and_nothing_is_touched() -> None:
    runs = []

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.norm = nn.Linear(3, 3), nn.BatchNorm1d(3)
            self.calls = 0

        def forward(self, x: mt.Tensor) -> mt.Tensor:
            self.calls += 1
            runs.append(self)
            return F.dropout(self.norm(self.linear(x)), 0.5)

    model = Counting()
    mt.manual_seed(3)
    plain = Counting()
    plain.load_state_dict(model.state_dict())
    x = mt.rand(4, 3)
    mt.manual_seed(5)
    g = graph.trace(model, x, stats=True, backward=True)
    after = mt.rand(3)
    assert g.timed_runs == TIMED_RUNS
    assert runs == [model]  # a copy puts itself into a list of its own
    assert model.calls == 1
    assert all(p.grad is None for p in model.parameters())
    assert all(n.seconds is not None for n in g.nodes.values())
    mt.manual_seed(5)
    plain(x)
    assert mt.equal(after, mt.rand(3))
    for name, t in plain.state_dict().items():
        assert mt.equal(t, model.state_dict()[name])


def test_a_program_that_cannot_run_again_is_timed_once_and_says_so() -> None:
    weight = mt.rand(3, requires_grad=True)
    optimizer = mt.optim.SGD([weight], lr=0.1)
    batches = (mt.rand(3) for _ in range(9))
    runs = []

    def step(x: mt.Tensor) -> mt.Tensor:
        runs.append(0)
        loss = (x * weight * next(batches)).sum()
        loss.backward()
        optimizer.step()
        return loss

    g = graph.trace(step, mt.rand(3), stats=True)
    assert len(runs) == g.timed_runs == 1
    assert g.notes == [
        "time: of one run, in which kernels may be compiled: a generator cannot be copied: cannot "
        "pickle 'generator' object"
    ]


# Trips through Python and NumPy


def trips(g: Graph) -> list[tuple[str, list[str], list[str]]]:
    return [(n.op, n.input_names, n.inputs) for n in g.nodes.values() if not n.gradient]


def test_an_array_over_the_same_memory_certainly_came_from_there() -> None:
    g = graph.trace(lambda x: mt.from_numpy(x.numpy()[1:]) * 2, mt.rand(3))
    assert trips(g) == [
        ("numpy", ["x"], ["input:x"]),
        ("from_numpy", ["ndarray"], ["numpy:0"]),
    ]
    assert g.nodes["mul"].inputs == ["from_numpy:0"]


def test_objects_that_answer_to_every_name_are_read_past() -> None:
    class Library:
        __slots__ = ()

        def __getattr__(self, name: str) -> Callable[[], float]:
            return lambda: 2.0

    library = Library()

    def f(x: mt.Tensor) -> mt.Tensor:
        largest = x.max().item()
        return x * largest + library.two()

    assert trips(graph.trace(f, mt.tensor([1.5, 2.5]))) == [("item", ["x"], ["amax:0"])]


def test_a_number_that_an_op_reads_certainly_came_from_there() -> None:
    g = graph.trace(lambda x: x / x.max().item(), mt.tensor([1.5, 2.5]))
    assert trips(g) == [("item", ["x"], ["amax:0"])]
    assert (g.nodes["div"].inputs, g.nodes["div"].attributes) == (["input:x", "item:0"], {})


def damped(x: mt.Tensor) -> mt.Tensor:
    largest = x.max()
    w = 1 / (1 + largest.item())
    return x * 2 + x * w


def damped_in_one_line(x: mt.Tensor) -> mt.Tensor:
    return x * 2 + x * (1 / (1 + x.max().item()))


def damped_by_a_function(x: mt.Tensor) -> mt.Tensor:
    def by(x: mt.Tensor, w: float) -> mt.Tensor:
        return x * 2 + x.clamp(min=w)

    return by(x, float(x.max()) / 7)


class DampedByAnAttribute(nn.Module):
    def measure(self, x: mt.Tensor) -> None:
        self.w = x.max().item() / 7

    def forward(self, x: mt.Tensor) -> mt.Tensor:
        self.measure(x)
        return x * 2 + x.masked_fill(x > 1, self.w)


@pytest.mark.parametrize(
    "function", [damped, damped_in_one_line, damped_by_a_function, DampedByAnAttribute()]
)
def test_an_op_may_depend_on_the_numbers_that_its_number_was_computed_from(function: Any) -> None:
    g = graph.trace(function, mt.tensor([1.5, 2.5]))
    assert ("item", ["x"], ["amax:0"]) in trips(g)
    read = [n.op for n in g.nodes.values() if "may depend on" in n.input_names]
    assert read in (["mul"], ["clamp"], ["masked_fill"])
    assert g.nodes["mul"].inputs == ["input:x"]  # a number that is written there depends on nothing


def test_a_number_in_an_index_may_depend_on_what_it_was_computed_from() -> None:
    def f(x: mt.Tensor) -> mt.Tensor:
        best = int(x.argmax())
        return x[(best + 1) % 3] + x[0] * best

    g = graph.trace(f, mt.tensor([1.5, 3.5, 2.5]))
    assert g.nodes["getitem"].input_names == ["x", "may depend on"]
    assert g.nodes["getitem.1"].input_names == ["x"]


def test_a_number_that_the_library_makes_depends_on_nothing() -> None:
    def f(q: mt.Tensor) -> mt.Tensor:
        return q.max().item() * F.scaled_dot_product_attention(q, q, q)

    g = graph.trace(f, mt.rand(2, 3, 5))
    assert g.nodes["scaled_dot_product_attention"].input_names == ["q", "k", "v"]


def test_only_the_users_files_are_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compilers in installed packages run many lines, in which no number of the user's is."""
    followed: list[str] = []
    line = Trips._line

    def seen(self: Trips, frame: Any, event: str, result: Any) -> Any:
        followed.append(frame.f_code.co_filename)
        return line(self, frame, event, result)

    monkeypatch.setattr(Trips, "_line", seen)

    def f(x: mt.Tensor) -> mt.Tensor:
        largest = x.max().item()
        np.array2string(np.ones(3))
        return x * largest

    graph.trace(f, mt.tensor([1.5, 2.5]))
    assert set(followed) == {__file__}


def test_a_copy_may_depend_on_what_its_statement_read() -> None:
    def run(x: mt.Tensor) -> mt.Tensor:
        a = np.exp(x.numpy())
        other = (x + 1).numpy() * 2
        a = a + 1
        assert other.size
        return mt.tensor(a) * mt.ones(3)

    g = graph.trace(run, mt.rand(3))
    assert trips(g) == [
        ("numpy", ["x"], ["input:x"]),
        ("tensor", ["may depend on"], ["numpy:0"]),
    ]


def test_a_loop_that_writes_shows_the_model_once_per_token_with_the_tokens_flowing_in() -> None:
    model = nn.Sequential(nn.Embedding(7, 5), nn.Linear(5, 7))

    def choose(logits: mt.Tensor) -> int:
        return int(logits[0, -1].argmax())

    def write(prompt: list[int]) -> mt.Tensor:
        tokens = list(prompt)
        for _ in range(3):
            token = choose(model(mt.tensor([tokens])))
            tokens.append(token)
        return mt.tensor(tokens)

    def last_only(start: mt.Tensor) -> mt.Tensor:
        token = start
        for _ in range(3):
            chosen = model(token)[:, -1].argmax(-1)
            rows = []
            for number in chosen.tolist():
                rows.append([number])
            token = mt.tensor(rows)
        return token

    g = graph.trace(write, [3, 4])
    assert [key for key in g.groups if key.endswith("0") or "0#" in key] == [
        "model.0", "model.0#2", "model.0#3",
    ]  # fmt: skip
    read = [n.inputs for n in g.nodes.values() if n.op == "tensor"]
    assert read == [["item:0"], ["item:0", "item.1:0"], ["item:0", "item.1:0", "item.2:0"]]
    assert [n.inputs for n in g.nodes.values() if n.op == "embedding"][1][0] == "tensor:0"
    g = graph.trace(last_only, mt.tensor([[3], [4]]))
    read = [n.inputs for n in g.nodes.values() if n.op == "tensor"]
    assert read == [["tolist:0"], ["tolist.1:0"], ["tolist.2:0"]]
    found = [g.values[n.inputs[0]].producer for n in g.nodes.values() if n.op == "embedding"]
    assert found == [None, "tensor", "tensor.1"]


def test_a_number_that_never_left_depends_on_nothing() -> None:
    def run(x: mt.Tensor) -> mt.Tensor:
        size = int(x.sum())
        other = [3.0, 4.0]
        y = mt.tensor(other)
        assert size >= 0
        return x * y

    g = graph.trace(run, mt.rand(2))
    assert trips(g) == []
    assert g.values["constant:y"].origin == "tensor([3.0, 4.0])"
    assert sys.gettrace() is None


# Programs in a style of their own


def test_no_name_of_a_methods_object_is_taken_for_granted() -> None:
    class Inner(nn.Module):
        def __init__(s) -> None:
            super().__init__()
            s.l = nn.Linear(3, 3)

        def forward(s, x: mt.Tensor) -> mt.Tensor:
            return s.l(x)

    class Outer(nn.Module):
        def __init__(this) -> None:
            super().__init__()
            this.a = Inner()
            this.shift = [mt.ones(3)]

        def helper(*this: Any) -> mt.Tensor:
            return this[0].a(this[1]) * 2 + this[0].shift[0]

        def forward(this, x: mt.Tensor) -> mt.Tensor:
            return this.helper(this.a.forward(x))

    class Descent(mt.optim.SGD):
        def step(me, closure: Any = None) -> Any:  # type: ignore[override]
            return super().step(closure)

    model = Outer()
    g = graph.trace(model, mt.rand(2, 3))
    assert {group.id: group.parent for group in g.groups.values() if group.id} == {
        "a": "", "a.l": "a", "a#2": "", "a.l#2": "a#2",
    }  # fmt: skip
    assert [n.function for n in g.nodes.values()] == ["", "", "helper", "helper"]
    assert "constant:shift[0]" in g.values

    def train(x: mt.Tensor) -> mt.Tensor:
        loss = model(x).sum()
        loss.backward()
        Descent(model.parameters(), lr=0.1).step()
        return loss

    updated = [n.op for n in graph.trace(train, mt.rand(2, 3)).nodes.values()]
    assert updated.count("Descent") == 2


def test_a_function_called_forward_is_no_call_of_the_module_that_it_is_given() -> None:
    def forward(model: nn.Module, x: mt.Tensor) -> mt.Tensor:
        return model(x) * 2

    g = graph.trace(lambda x: forward(nn.Linear(3, 3), x), mt.rand(2, 3))
    assert [group.path for group in g.groups.values()] == ["", "model"]


def test_a_traced_method_is_the_whole_and_each_call_of_its_module_a_group() -> None:
    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x: mt.Tensor) -> mt.Tensor:
            return self.linear(x).tanh()

        def unroll(self, x: mt.Tensor) -> mt.Tensor:
            for _ in range(3):
                x = self(x)
            return x

    g = graph.trace(Cell().unroll, mt.rand(2, 3))
    assert g.groups[""].kind == "function"
    calls = [group for group in g.groups.values() if group.path == "Cell"]
    assert [(c.id, c.parent, c.kind, c.input_names) for c in calls] == [
        (key, "", "Cell", ["x"]) for key in ("Cell", "Cell#2", "Cell#3")
    ]
    assert {"parameter:linear.weight", "parameter:linear.bias"} < set(g.values)
    assert g.groups["linear#2"].parent == "Cell#2"
    assert graph.trace(Cell().forward, mt.rand(2, 3)).groups[""].kind == "Cell"


def test_the_variables_of_a_results_parts_come_before_the_names_of_its_fields() -> None:
    def f(x: mt.Tensor) -> tuple[mt.Tensor, ...]:
        weights, experts = mt.topk(x, 2)
        ordered = mt.sort(weights)
        return ordered.values * 2, ordered.indices, experts

    g = graph.trace(f, mt.rand(3, 4))
    assert [g.values[v].names for v in g.nodes["topk"].outputs] == [["weights"], ["experts"]]
    assert [g.values[v].names for v in g.nodes["sort"].outputs] == [["values"], ["indices"]]


def test_no_variable_outside_what_is_traced_gives_a_name() -> None:
    inputs = [mt.rand(3, requires_grad=True)]
    assert inputs
    g = graph.trace(lambda x: (x * x).sum(), *inputs, backward=True)
    assert g.values["input:x"].names == ["x"]


def test_the_box_of_a_modules_calls_has_the_modules_words_for_what_it_is_given() -> None:
    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wte, self.head = nn.Embedding(7, 4), nn.Linear(4, 7)

        def forward(self, idx: mt.Tensor) -> mt.Tensor:
            return self.head(self.wte(idx)) + 1

        def generate(self, idx: mt.Tensor) -> mt.Tensor:
            for _ in range(2):
                idx = mt.cat((idx, self(idx)[:, -1:].argmax(-1)), dim=1)
            return idx

    g = graph.trace(Decoder().generate, mt.randint(0, 7, (2, 5)))
    tree = fold(g)
    scene = view(tree, g, "arch")
    ports = [port for edge in scene.edges if "Decoder" in edge.target for port in edge.ports]
    assert set(ports) == {"idx"}


def test_outputs_go_by_the_variable_that_was_returned() -> None:
    class Model(nn.Module):
        def forward(self, x: mt.Tensor) -> tuple[mt.Tensor, mt.Tensor]:
            def criterion(y: mt.Tensor) -> mt.Tensor:
                value = (y * y).sum()
                assert value.dim() == 0
                return value

            logits = x.exp()
            loss = criterion(logits)
            return logits, loss

    g = graph.trace(Model(), mt.rand(3, requires_grad=True), backward=True)
    assert [g.values[v].name for v in g.outputs] == ["logits", "loss"]
    assert g.seed == "loss"


def test_modules_know_the_function_that_called_them() -> None:
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.i2h, self.h2h = nn.Linear(3, 3), nn.Linear(3, 3)

        def step(self, x: mt.Tensor, h: mt.Tensor) -> mt.Tensor:
            return (self.i2h(x) + self.h2h(h)).tanh()

        def forward(self, x: mt.Tensor) -> mt.Tensor:
            return self.step(x, self.step(x, self.i2h(x)))

    g = graph.trace(Loop(), mt.rand(2, 3))
    assert [group.function for group in g.groups.values() if group.id] == [
        "", "step", "step", "step#2", "step#2",
    ]  # fmt: skip


def test_attention_whose_mask_is_causal_says_so() -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    mask = nn.Transformer.generate_square_subsequent_mask(5)

    def causal(**options: Any) -> list[bool]:
        g = graph.trace(
            lambda x: attention(x, x, x, need_weights=False, **options)[0], mt.rand(2, 5, 8)
        )
        return [n.attributes["causal"] for n in g.nodes.values() if "attention" in n.op]

    assert causal(attn_mask=mask, is_causal=True) == [True]
    assert causal(attn_mask=mask) == [True]
    assert causal(attn_mask=mask.isinf()) == [True]
    assert causal(attn_mask=mask.T) == [False]
    assert causal() == [False]
    program, inputs, _ = gpt.example()
    given: dict[str, Any] = dict(inputs)
    nodes = graph.trace(program, **given).nodes.values()
    assert {n.attributes["causal"] for n in nodes if "attention" in n.op} == {True}


def test_times_of_equal_layers_have_no_compilation_in_them(monkeypatch: Any) -> None:
    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x: mt.Tensor) -> mt.Tensor:
            return self.linear(x).tanh()

    runs: list[Any] = []

    def record(*args: Any, **options: Any) -> Any:
        recorder = original(*args, **options)
        for node in recorder.graph.nodes.values():
            node.seconds = 1.0 if runs else 1000.0  # the first run compiles
        runs.append(recorder)
        return recorder

    tracing = sys.modules["minitensor.graph.trace"]
    original = tracing._record  # type: ignore[attr-defined]
    monkeypatch.setattr(tracing, "_record", record)
    g = graph.trace(nn.Sequential(*(Layer() for _ in range(3))), mt.rand(2, 3), stats=True)
    assert len(runs) == TIMED_RUNS + 1
    assert {n.seconds for n in g.nodes.values()} == {1.0}


def test_modules_that_return_their_input_are_drawn() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.drop = nn.Linear(3, 3), nn.Dropout(0.0)

        def forward(self, x: mt.Tensor) -> mt.Tensor:
            return x + self.drop(self.linear(x))

    def boxes(model: nn.Module) -> list[tuple[str, str, int]]:
        g = graph.trace(model, mt.rand(2, 3))
        assert g.notes == []
        found = fold(g).boxes.values()
        return [(box.label, box.path, box.count) for box in found if box.kind != "input"]

    blocks = [Block() for _ in range(3)]
    assert boxes(nn.Sequential(nn.Identity(), *blocks))[1:6] == [
        ("Identity", "0", 1), ("Block", "1-3", 3), ("Linear", "1.linear", 1),
        ("Dropout", "1.drop", 1), ("add", "1", 1),
    ]  # fmt: skip
    blocks[1].drop.p = 0.5
    assert [box[2] for box in boxes(nn.Sequential(*blocks)) if box[0] == "Block"] == [1, 1, 1]
    g = graph.trace(nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5).eval()), mt.rand(2, 3))
    assert Page(g, fold(g)).card("1").forward.rows == ["1", "p=0.5: returns its input"]


def test_what_goes_past_a_module_that_returns_its_input_stays_apart() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.0)

        def forward(self, x: mt.Tensor) -> mt.Tensor:
            return x * self.drop(x) + self.drop.forward(x)

    x = mt.rand(2, 3).requires_grad_()
    g = graph.trace(Both(), x, backward=True)
    assert g.nodes["mul"].inputs == ["input:x", "drop/identity:0"]
    assert g.notes == []
    assert [n.op for n in g.nodes.values()].count("identity") == 2  # and its backward
    Both()(x).sum().backward()
    with mt.no_grad():
        assert graph.trace(lambda x: Both()(x), x).outputs


def test_a_returned_input_can_be_changed_in_place_as_without_a_trace() -> None:
    drop = nn.Dropout(0.0)

    def changed(x: mt.Tensor) -> mt.Tensor:
        y = x * 1
        h = drop(y)
        h += 1
        return (h * y).sum()

    slopes = []
    for run in (changed, lambda x: graph.trace(changed, x, backward=True) and changed(x)):
        x = mt.tensor([1.0, 2.0], requires_grad=True)
        run(x).backward()
        assert x.grad is not None
        slopes.append(x.grad.tolist())
    assert slopes[0] == slopes[1]
