"""Gradients that accumulate inside the product that makes them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minitensor as mt
import minitensor.nn.functional as F
from minitensor import Tensor
from minitensor.core import state

products = importlib.import_module("minitensor.ops.linear").products
Loss = Callable[[Tensor, Tensor], Tensor]
LOSSES: dict[str, Loss] = {
    "linear": lambda x, w: (F.linear(x, w) * x.sum()).sum(),
    "linear with an activation": lambda x, w: F.linear_activation(x, w, None, "gelu").sum(),
    "matmul": lambda x, w: (x @ w.t()).square().sum(),
    "matmul from the left": lambda x, w: (w @ x[0].t()).square().sum(),
    "used twice": lambda x, w: (F.linear(x, w) * F.linear(x + 1, w)).sum(),
    "tied to an embedding": lambda x, w: (
        F.linear(F.embedding(mt.tensor([0, 3, 3]), w), w).square().sum() + F.linear(x, w).sum()
    ),
    "beside another op": lambda x, w: (w * w).sum() + F.linear(x, w).sum() + (w * 3).sum(),
    "packed": lambda x, w: sum(
        (y.square().sum() for y in F.in_projection_packed(x, x * 2, w)), mt.zeros(())
    ),
}
X, W = (np.random.RandomState(k).standard_normal(s) for k, s in ((0, (2, 4, 5)), (1, (6, 5))))


def leaf(dtype: str = "float64") -> Tensor:
    return mt.tensor(W, dtype=getattr(mt, dtype), requires_grad=True)


def input_like(w: Tensor) -> Tensor:
    return mt.tensor(X, dtype=w.dtype)


def alone(loss: Loss, dtype: str = "float64") -> np.ndarray:
    """The gradient of one pass."""
    w = leaf(dtype)
    loss(input_like(w), w).backward()
    return np.array(w.grad.numpy())


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("name", LOSSES)
def test_passes_add_up(name: str, dtype: str) -> None:
    once, w = alone(LOSSES[name], dtype).astype(float), leaf(dtype)
    for _ in range(3):
        LOSSES[name](input_like(w), w).backward()
    tolerance = {"float64": 1e-12, "float32": 1e-5, "float16": 1e-2}[dtype]
    np.testing.assert_allclose(w.grad.numpy(), 3 * once, tolerance, tolerance * abs(once).max())


@pytest.mark.parametrize("name", LOSSES)
def test_the_second_pass_adds_to_the_same_array(name: str) -> None:
    w = leaf()
    LOSSES[name](input_like(w), w).backward()
    grad = w._grad
    assert grad is not None
    array, version = grad._array, grad._version
    LOSSES[name](input_like(w), w).backward()
    assert w._grad is grad
    assert grad._array is array
    assert grad._version == version + 1


def outs_of(monkeypatch: pytest.MonkeyPatch, run: Callable[[], Any]) -> list[np.ndarray]:
    """The arrays that products added to."""
    given: list[np.ndarray] = []
    matmul = products.matmul

    def watched(a: Any, b: Any, out: Any = None, bias: Any = None, accumulate: bool = False,
                *rest: Any, **more: Any) -> Any:  # fmt: skip
        if accumulate:
            given.append(out)
        return matmul(a, b, out, bias, accumulate, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(products, "matmul", watched)
        run()
    return given


def test_a_product_adds_to_a_gradient_that_nobody_has(monkeypatch: pytest.MonkeyPatch) -> None:
    w, x = leaf(), input_like(leaf())
    step = lambda: F.linear(x, w).sum().backward()  # noqa: E731
    assert outs_of(monkeypatch, step) == []
    (array,) = outs_of(monkeypatch, step)
    assert w._grad is not None
    assert array is w._grad._array
    kept = w.grad  # from now on somebody may use it in a graph
    assert outs_of(monkeypatch, step) == []
    np.testing.assert_allclose(w.grad.numpy(), 3 * alone(lambda x, w: F.linear(x, w).sum()))
    assert w.grad is kept


def test_a_product_adds_to_the_sum_for_an_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three projections of one tensor: the gradient is one array, to which two products add."""
    w, x = leaf(), mt.tensor(X, requires_grad=True)
    h = x * 1
    y = F.linear(h, w) + F.linear(h, w) + F.linear(h, w)
    given = outs_of(monkeypatch, lambda: y.sum().backward())
    assert len(given) == 4  # two for w, two for h
    np.testing.assert_allclose(x.grad.numpy(), np.broadcast_to(3 * W.sum(0), X.shape))


def test_a_gradient_in_use_by_the_graph_is_not_changed_on_the_way() -> None:
    w, x = leaf(), input_like(leaf())
    F.linear(x, w).sum().backward()
    first = w.grad.numpy().copy()
    assert w.grad is not None
    loss = (w * w.grad).sum() + F.linear(w.grad, w).sum() + F.linear(x, w).sum()
    loss.backward()
    expected = first + first + first.sum(0) + first
    np.testing.assert_allclose(w.grad.numpy(), expected)


def test_a_gradient_given_to_backward_is_not_changed_on_the_way() -> None:
    w, x = leaf(), input_like(leaf())
    F.linear(x, w).sum().backward()
    first = w.grad.numpy().copy()
    mt.autograd.backward([F.linear(x, w).sum(), w * 2], [mt.ones((), dtype=mt.float64), w.grad])
    np.testing.assert_allclose(w.grad.numpy(), 4 * first)


def test_hooks_see_the_gradient_of_their_pass_alone() -> None:
    w, x, seen = leaf(), input_like(leaf()), []
    F.linear(x, w).sum().backward()
    w.register_hook(lambda g: seen.append(g.numpy().copy()))
    w.register_post_accumulate_grad_hook(lambda t: seen.append(t.grad.numpy().copy()))
    F.linear(x, w).sum().backward()
    once = alone(lambda x, w: F.linear(x, w).sum())
    np.testing.assert_allclose(seen[0], once)
    np.testing.assert_allclose(seen[1], 2 * once)


def test_no_grad_is_touched_where_gradients_are_asked_for() -> None:
    w, x = leaf(), input_like(leaf())
    F.linear(x, w).sum().backward()
    once = alone(lambda x, w: F.linear(x, w).sum())
    (g,) = mt.autograd.grad((F.linear(x, w) + F.linear(x, w)).sum(), [w])
    np.testing.assert_allclose(g.numpy(), 2 * once)
    np.testing.assert_allclose(w.grad.numpy(), once)


def test_a_leaf_that_was_frozen_keeps_its_gradient() -> None:
    w, x = leaf(), mt.tensor(X, requires_grad=True)
    F.linear(x, w).sum().backward()
    loss = F.linear(x, w).sum()
    w.requires_grad_(False)
    loss.backward()
    np.testing.assert_allclose(w.grad.numpy(), alone(lambda x, w: F.linear(x, w).sum()))


@pytest.mark.parametrize("create_graph", [False, True])
def test_a_graph_can_be_run_twice(create_graph: bool) -> None:
    w, x = leaf(), input_like(leaf())
    F.linear(x, w).sum().backward()
    loss = F.linear(x, w).square().sum()
    loss.backward(retain_graph=True, create_graph=create_graph)
    loss.backward()
    once = alone(lambda x, w: F.linear(x, w).sum())
    square = alone(lambda x, w: F.linear(x, w).square().sum())
    np.testing.assert_allclose(w.grad.detach().numpy(), once + 2 * square)
    assert state.grad


def test_a_gradient_in_another_layout_and_anomalies() -> None:
    base = mt.tensor(W.T.copy(), requires_grad=True)
    w = base.detach().t().requires_grad_()  # its gradient lies in memory as it does
    x = input_like(w)
    F.linear(x, w).sum().backward()
    with mt.autograd.detect_anomaly():
        F.linear(x, w).sum().backward()
    F.linear(x, w).sum().backward()
    assert w._grad is not None
    assert w._grad._array.strides == w._array.strides
    np.testing.assert_allclose(w.grad.numpy(), 3 * alone(lambda x, w: F.linear(x, w).sum()))


def test_a_shared_gradient_gets_both_sums() -> None:
    a, b, x = leaf(), leaf(), input_like(leaf())
    a.grad = mt.zeros(6, 5, dtype=mt.float64)
    b.grad = a.grad
    (F.linear(x, a) + F.linear(x, b)).sum().backward()
    np.testing.assert_allclose(a.grad.numpy(), 2 * alone(lambda x, w: F.linear(x, w).sum()))


def test_a_large_gradient_is_added_by_all_threads() -> None:
    w = mt.zeros(600, 200, requires_grad=True)
    for _ in range(3):
        (w * 2).sum().backward()
    assert (w.grad == 6).all()
