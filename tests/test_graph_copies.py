"""A program that is traced with names runs again on copies: no run reaches the user's objects."""

from __future__ import annotations

import collections
import functools
import random
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from foreign import training_step

import minitensor as mt
import minitensor.nn.functional as F
from minitensor import Tensor, graph, nn, optim


def bits(x: Any) -> Any:
    """All of an object's numbers, to compare before and after."""
    if isinstance(x, Tensor):
        return x.numpy(force=True).tobytes(), bits(x.grad), x._version
    if isinstance(x, dict):
        return [bits(each) for each in x.values()]
    if isinstance(x, list | tuple):
        return [bits(each) for each in x]
    if isinstance(x, nn.Module):
        return bits(x.state_dict(keep_vars=True)), bits(list(x.parameters()))
    if isinstance(x, optim.Optimizer):
        return bits(list(x.state.values())), [
            {key: value for key, value in group.items() if key != "params"}
            for group in x.param_groups
        ]
    if isinstance(x, mt.Generator):
        return x.get_state().tobytes()
    return bits(x()) if callable(x) else x


def random_states() -> Any:
    words: Any = np.random.get_state(legacy=True)
    words = words[1]
    return mt.get_rng_state().tobytes(), random.getstate(), np.asarray(words).tobytes()


Step = Callable[[Tensor, Tensor], Tensor]
Made = tuple[Step, list[Any]]  # a training step, and all that it changes


class Net(nn.Module):
    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(features)
        self.out = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        random.random()
        np.random.rand()
        return self.out(F.dropout(self.norm(x), 0.2, self.training))


def by_closure() -> Made:
    model = Net(10, 6)
    optimizer = optim.Adam(model.parameters())
    scheduler = optim.lr_scheduler.StepLR(optimizer, 2)
    generator, losses, count = mt.Generator(), list[float](), 0

    def step(x: Tensor, y: Tensor) -> Tensor:
        nonlocal count
        count += 1
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x + mt.randn(x.shape, generator=generator)), y)
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
        return loss

    return step, [model, optimizer, generator, losses, scheduler.state_dict, lambda: count]


class Trainer:
    """Holds all that a step changes, and what cannot be copied and is not used."""

    steps = 0

    def __init__(self) -> None:
        self.model = Net(10, 6)
        self.optimizer = optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.unused = (n for n in range(3))
        self.measure = np.exp  # an object of an extension, with a dictionary
        self.losses: list[float] = []

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self.model(x), y)

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        type(self).steps += 1
        loss = self.loss(x, y)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=False)
        self.losses.append(float(self.measure(loss.item())))
        return loss


def by_method() -> Made:
    trainer = Trainer()
    changed = [trainer.model, trainer.optimizer, trainer.losses, lambda: Trainer.steps]
    return trainer.step, changed


WORLD: dict[str, Any] = {}


def forward(x: Tensor) -> Tensor:
    WORLD["count"] += 1
    return WORLD["model"](x)


def global_step(x: Tensor, y: Tensor) -> Tensor:
    global last_loss
    loss = F.cross_entropy(forward(x), y)
    loss.backward()
    WORLD["optimizer"].step()
    last_loss = loss.item()
    return loss


last_loss = 0.0


def by_globals() -> Made:
    model = Net(10, 6)
    WORLD.update(model=model, optimizer=optim.AdamW(model.parameters()), count=0)
    return global_step, [model, WORLD["optimizer"], lambda: WORLD["count"], lambda: last_loss]


def by_weights() -> Made:
    weight = nn.Parameter(mt.randn(6, 10))

    def step(x: Tensor, y: Tensor) -> Tensor:
        loss = F.cross_entropy(F.linear(x, weight), y)
        loss.backward()
        with mt.no_grad():
            assert weight.grad is not None
            weight.sub_(0.1 * weight.grad)
        return loss

    return step, [weight]


class Kept:
    model: nn.Module
    losses: tuple[list[float], ...]


def kept_step(x: Tensor, y: Tensor, calls: list[int] = [], *, more: Any = {}) -> Tensor:  # noqa: B006
    calls.append(more.setdefault("count", 0))
    more["count"] += 1
    loss = F.cross_entropy(Kept.model(x), y)
    loss.backward()
    more["optimizer"].step()
    Kept.losses[0].append(loss.item())
    return loss


def by_defaults_and_a_class() -> Made:
    Kept.model, Kept.losses = Net(10, 6), ([],)
    calls, more = list[int](), {"optimizer": optim.RMSprop(Kept.model.parameters())}
    kept_step.__defaults__, kept_step.__kwdefaults__ = (calls,), {"more": more}
    return kept_step, [Kept.model, Kept.losses, calls, more]


def by_a_partial() -> Made:
    model = Net(10, 6)
    step = functools.partial(Trainer.step, trainer := Trainer())
    trainer.model = model
    trainer.loss = lambda x, y: F.cross_entropy(model(x), y)  # type: ignore[method-assign]
    trainer.optimizer = optim.Adagrad(  # type: ignore[assignment]
        model.parameters()
    )
    return step, [model, trainer.losses, trainer.optimizer]


@pytest.mark.parametrize(
    "make", [by_closure, by_method, by_globals, by_weights, by_defaults_and_a_class, by_a_partial]
)
def test_a_training_step_gets_its_names_and_is_taken_once(make: Callable[[], Made]) -> None:
    found = []
    for traced in (True, False):
        mt.manual_seed(0)
        random.seed(0)
        np.random.seed(0)
        Trainer.steps = 0
        step, changed = make()
        x, y = mt.randn(4, 10), mt.randint(0, 6, (4,))
        if traced:
            g = graph.trace(step, x, y, dims={"N": 4, "D": 10, "C": 6})
            assert not g.notes
            made = {v for node in g.nodes.values() for v in node.outputs}
            assert {n for v in made for n in g.values[v].dims} <= {"N", "D", "C", "1"}
        else:
            step(x, y)
        found.append((list(map(bits, changed)), bits(x), bits(y), random_states()))
    assert found[0] == found[1]  # bit for bit what the step alone does


def test_a_program_changes_what_cannot_be_found() -> None:
    model = Net(10, 6)
    hidden = types.MappingProxyType({"model": model})  # a container that is not looked into

    def step(x: Tensor) -> Tensor:
        loss = hidden["model"](x).sum()
        loss.backward()
        return loss

    with pytest.warns(UserWarning, match="dims: ") as warned:
        g = graph.trace(step, mt.randn(4, 10), dims={"x": "N D"})
    assert [str(w.message) for w in warned] == g.notes
    assert len(g.notes) == 1
    assert "it changes tensors that cannot be copied" in g.notes[0]


MADE: dict[str, list[int]] = {"widths": []}


def test_a_constructor_that_is_read_changes_no_container() -> None:
    seen: list[int] = []

    class Kept(nn.Module):
        names: list[str] = []
        counts: dict[str, int] = collections.Counter()

        def __init__(self, width: int, calls: list[int] = [0], /) -> None:  # noqa: B006
            super().__init__()
            seen.append(width)
            calls[0] += 1
            self.names.append("kept")
            self.counts["kept"] += 1
            MADE["widths"].append(width)
            self.out = nn.Linear(width, 3 * width)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(x)

    model = Kept(8)
    g = graph.trace(model, mt.randn(5, 8), dims={"N": 5, "E": 8})
    assert g.values[g.outputs[0]].label == "(N, 3*E)"
    default = Kept.__init__.__defaults__
    assert (seen, MADE, Kept.names, default) == ([8], {"widths": [8]}, ["kept"], ([1],))
    assert Kept.counts == {"kept": 1}


def test_an_error_in_a_copy_leaves_the_variables_as_they_were() -> None:
    model, calls = Net(10, 6), list[int]()

    def step(x: Tensor) -> Tensor:
        calls.append(len(x))
        if x.shape != (4, 10):
            raise ValueError("only four")
        return model(x)

    before = step.__closure__
    with pytest.warns(UserWarning, match="only four"):
        graph.trace(step, mt.randn(4, 10), dims={"x": "N D"})
    assert calls == [4]
    assert step.__closure__ == before
    assert [cell.cell_contents for cell in before or ()] == [calls, model]


def test_the_foreign_step_is_timed_on_copies() -> None:
    step, inputs, _ = training_step.example()
    g = graph.trace(step, **inputs, stats=True)
    assert g.timed_runs > 1
