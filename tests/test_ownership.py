"""Ownership: no gradient shares its array with another gradient or another tensor."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import minitensor as mt
from minitensor.core import OPS, Op
from minitensor.graph.describe import saved_arrays
from minitensor.testing import leaves, samples


def leaf(*values: float) -> mt.Tensor:
    return mt.tensor(values, dtype=mt.float32, requires_grad=True)


def assert_apart(*tensors: Any) -> None:
    for a, b in itertools.combinations(tensors, 2):
        assert a is not b
        assert not np.shares_memory(a._array, b._array)


@pytest.mark.parametrize("create_graph", [False, True])
def test_two_leaves_never_share_one_gradient(create_graph: bool) -> None:
    x, y, w = leaf(1, 2), leaf(3, 4), leaf(5, 6)
    ((x + y) * w).sum().backward(create_graph=create_graph)
    assert_apart(x.grad, y.grad, w.grad, x, y, w)
    with mt.no_grad():
        x.grad.add_(100)
    assert y.grad.tolist() == [5, 6]


@pytest.mark.parametrize("create_graph", [False, True])
def test_a_gradient_that_was_given_is_not_taken_over(create_graph: bool) -> None:
    x, g = leaf(1, 2), mt.tensor([3.0, 4.0])
    x.view(2).backward(g, create_graph=create_graph)
    assert_apart(x.grad, g)


def test_what_a_hook_keeps_is_not_taken_over() -> None:
    weight, kept = mt.randn(3, 2, requires_grad=True), []
    weight.register_hook(lambda g: kept.append(g))
    mt.nn.functional.linear(mt.randn(4, 2), weight).sum().backward()
    assert_apart(weight.grad, *kept)


def test_a_retained_gradient_is_a_copy() -> None:
    x = leaf(1, 2)
    y = x * 1
    z = y.view(2)
    y.retain_grad()
    z.retain_grad()
    z.backward(mt.ones(2))
    assert_apart(x.grad, y.grad, z.grad)


def test_accumulated_gradients_stay_apart() -> None:
    x, y = leaf(1, 2), leaf(3, 4)
    for _ in range(3):
        (x + y).sum().backward()
    assert_apart(x.grad, y.grad)
    assert x.grad.tolist() == y.grad.tolist() == [3, 3]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", sorted(name for name in OPS if OPS[name].fresh))
def test_a_fresh_rule_returns_arrays_of_its_own(
    name: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, checked = Op.gradients, []

    def watched(node: Any, grads: list[Any]) -> tuple[Any, ...]:
        known = [g._array for g in grads if g is not None]
        known += saved_arrays(node)
        found = run(node, grads)
        if getattr(node, "given", False):  # it keeps them no longer
            known = []
        if node.fresh:
            made = [d._array for d in found if d is not None]
            for number, array in enumerate(made):
                assert not any(np.shares_memory(array, a) for a in [*known, *made[:number]])
                checked.append(array)
        return found

    monkeypatch.setattr(Op, "gradients", watched)
    for args, kwargs in samples(OPS[name], dtype):
        outs = [o for o in leaves([OPS[name].call(*args, **kwargs)]) if o.requires_grad]
        if outs:
            mt.autograd.backward(outs, [mt.ones_like(o) for o in outs])
    assert checked


def test_the_weights_of_a_layer_take_over_what_its_rule_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So that a training step copies no large gradient."""
    made: list[Any] = []
    run = Op.gradients

    def watched(node: Any, grads: list[Any]) -> tuple[Any, ...]:
        found = run(node, grads)
        made.extend(d._array for d in found if d is not None)
        return found

    monkeypatch.setattr(Op, "gradients", watched)
    layer = mt.nn.Linear(3, 2)
    layer(mt.randn(4, 3)).sum().backward()
    for p in layer.parameters():
        assert any(p.grad._array is array for array in made)
