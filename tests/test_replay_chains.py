"""`compile`'s rule for chains: which ops become one, and that nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minitensor as mt
import minitensor.nn.functional as F
from minitensor.core import Tensor, wrap
from minitensor.kernels.jit import COMPILED
from minitensor.ops.chain import Chain
from minitensor.replay.chains import MOST, fuse_chains
from minitensor.replay.compiled import Compiled
from minitensor.replay.graph import Graph
from minitensor.replay.record import CallRecording

pytestmark = pytest.mark.compiled


def recorded(function: Callable[..., Any], *inputs: Tensor) -> tuple[Graph, list[Tensor]]:
    """Return the graph of a call and its results."""
    recording = CallRecording({})
    for number, t in enumerate(inputs):
        recording.add_input(t, f"input {number}")
    with recording:
        outs = function(*inputs)
    outs = list(outs) if isinstance(outs, tuple) else [outs]
    return recording.graph(outs), outs


def fused(function: Callable[..., Any], *inputs: Tensor) -> list[str]:
    """Return the names of the ops after the rule; check that their results have the same bits."""
    mt.manual_seed(3)
    graph, outs = recorded(function, *inputs)
    graph = fuse_chains(graph)
    mt.manual_seed(3)
    keys = [mt.random.default_generator.key(size) for size in graph.keys]
    tensors = dict(zip(graph.inputs, inputs, strict=True))
    found = graph.run(tensors, keys)
    for mine, other in zip(found, outs, strict=True):
        np.testing.assert_array_equal(mine._array, other._array)
    return [call.op.op_name for call in graph.calls]


def steps(function: Callable[..., Any], *inputs: Tensor) -> list[str]:
    """Return the names of the steps of the only chain."""
    (call,) = [c for c in fuse_chains(recorded(function, *inputs)[0]).calls if c.op is Chain]
    return [step[0] for step in call.kwargs["program"].steps]


def tensor(*shape: int, dtype: Any = np.float32) -> Tensor:
    return wrap(np.random.RandomState(sum(shape)).standard_normal(shape).astype(dtype))


X, Y, ROW, COLUMN = tensor(5, 7), tensor(5, 7) * 2.0, tensor(7), tensor(5, 1)


def test_elementwise_ops_become_one() -> None:
    assert fused(lambda x, y, row: F.silu(x) * y + row, X, Y, ROW) == ["chain"]
    assert fused(lambda x, y, c: (x - c) / (y.abs() + 1.5), X, Y, COLUMN) == ["chain"]


def test_values_that_are_used_twice_are_computed_once() -> None:
    def gelu(x: Tensor) -> Tensor:
        return 0.5 * x * (1 + mt.tanh(0.79788 * (x + 0.044715 * x**3)))

    assert fused(gelu, X) == ["chain"]
    assert sorted(steps(gelu, X)) == sorted(["Mul"] * 4 + ["Add"] * 2 + ["Pow", "Tanh"])


def test_one_op_is_a_chain_if_no_kernel_computes_it() -> None:
    assert fused(lambda x, y: x * y, X, Y) == ["chain"]
    assert fused(lambda x: F.silu(x), X) == ["silu"]
    assert fused(lambda x, y: F.silu((x * y).sum(0)), X, Y) == ["chain", "sum", "silu"]


def test_a_result_that_others_use_earlier_ends_a_group() -> None:
    def function(x: Tensor, y: Tensor) -> Tensor:
        h = (x * y).tanh()
        return h.sum(0, keepdim=True) + h * 2.0 - x

    assert fused(function, X, Y) == ["chain", "sum", "chain"]
    assert fused(lambda x, y: ((x * y).tanh(), x * y), X, Y) == ["chain"] * 2


def test_a_result_that_others_use_later_is_one_of_the_chain() -> None:
    def cell(f: Tensor, c: Tensor, o: Tensor) -> tuple[Tensor, Tensor]:
        for _ in range(3):
            c = f.sigmoid() * c + 0.1
            h = o.sigmoid() * c.tanh()
            f = h.cumsum(1)
        return h, c

    assert fused(cell, X, Y, X * 0.5) == ["chain", "cumsum", "chain", "cumsum", "chain"]

    def returned(x: Tensor) -> tuple[Tensor, Tensor]:
        h = (x * 2.0).exp()
        return h, (h + 1.0).log()

    assert fused(returned, X) == ["chain"]


def test_other_shapes_and_types_are_left_out() -> None:
    assert fused(lambda row, x: row.exp() * 2.0 + x, ROW, X) == ["chain"] * 2
    three = tensor(4, 1, 7)
    assert fused(lambda x, t: (x.reshape(1, 5, 7) * t).exp() + t, X, three)[-3:] == [
        "mul", "chain", "add",
    ]  # (4, 1, 7) is no row or column of (4, 5, 7)  # fmt: skip
    whole = wrap(np.arange(35).reshape(5, 7))
    assert fused(lambda x, n: (x + n).exp() * 2.0, X, whole)[-1] == "chain"
    assert fused(lambda n: (n + 1) * 2, whole) == ["add", "mul"]


def test_what_would_have_other_bits_is_left_out() -> None:
    x = tensor(5, 7, dtype=np.float64)
    assert fused(lambda x: x.exp() * 2.0 + 1.0, x) == ["exp", "chain"]
    assert fused(lambda x: (x * 2.0).sin() + 1.0, X) == ["chain", "sin", "chain"]
    assert fused(lambda x: (x * x + 1.0) ** 2.5, X) == ["chain", "pow"]
    assert fused(lambda x: (x * x + 1.0) ** 0.5, X) == ["chain"]


def test_masks_and_dropout() -> None:
    mask = wrap(np.arange(35).reshape(5, 7) % 3 == 0)

    def function(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        return mt.where(mask, F.dropout((x * 2.0).relu(), 0.4), y).clamp(min=0.1)

    assert fused(function, X, Y, mask) == ["chain"]


def test_a_chain_stays_of_one_mode() -> None:
    def function(x: Tensor) -> Tensor:
        with mt.no_grad():
            y = x * 2.0 + 1.0
        return y.tanh() * x

    assert fused(function, X) == ["chain", "chain"]


def test_a_long_chain_is_cut() -> None:
    def function(x: Tensor) -> Tensor:
        for _ in range(2 * MOST):
            x = x * 1.01
        return x

    assert fused(function, X) == ["chain", "chain"]


def random_function(seed: int) -> Callable[..., tuple[Tensor, ...]]:
    """Return a function of ops with several users, with sums between them."""

    def function(*inputs: Tensor) -> tuple[Tensor, ...]:
        choose = np.random.RandomState(seed)
        made = list(inputs)
        for _ in range(25):
            a, b = (made[-1 - min(int(choose.geometric(0.4)), len(made) - 1)] for _ in range(2))
            kind = choose.randint(6)
            made.append(
                a + b if kind == 0 else a * 0.5 - b if kind == 1 else a.tanh() if kind == 2
                else F.gelu(a) if kind == 3 else a - a.sum(1, keepdim=True) * 0.01 if kind == 4
                else a.maximum(b)
            )  # fmt: skip
        return tuple(made[-2:])

    return function


@pytest.mark.parametrize("seed", range(20))
def test_random_graphs(seed: int) -> None:
    inputs = [tensor(6, 9) * scale for scale in (1.0, 0.7, -1.3)]
    assert "chain" in fused(random_function(seed), *inputs)


@pytest.mark.parametrize("seed", range(8))
def test_gradients_of_random_graphs(seed: int) -> None:
    function = random_function(seed)
    leaves = [(tensor(6, 9, dtype=np.float64) * s).requires_grad_() for s in (1.0, 0.7, -1.3)]
    graph, outs = recorded(function, *leaves)
    graph = fuse_chains(graph)
    again = [t.detach().requires_grad_() for t in leaves]
    found = graph.run(dict(zip(graph.inputs, again, strict=True)), ())
    for results, inputs in ((outs, leaves), (found, again)):
        mt.autograd.backward(results, [t.detach() for t in results])
        assert any(t.grad is not None for t in inputs)
    for one, other in zip(leaves, again, strict=True):
        assert (one.grad is None) == (other.grad is None)
        if one.grad is not None and other.grad is not None:
            np.testing.assert_allclose(one.grad._array, other.grad._array, rtol=1e-12, atol=1e-12)


@pytest.mark.skipif(not COMPILED, reason="only compiled kernels are replayed")
@pytest.mark.parametrize("shape", [(4, 6), (300, 257)])
def test_chains_are_replayed_in_kernels_alone(shape: tuple[int, ...]) -> None:
    """With broadcast inputs, dropout and two results, whose gradients are summed."""

    def function(x: Tensor, gate: Tensor, row: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
        h = F.silu(gate) * x + row
        h = F.dropout(h, 0.25)
        return h, mt.maximum(h * column, x).tanh()

    compiled = Compiled(function)
    noise = np.random.RandomState(0)
    shapes = [shape, shape, shape[-1:], (shape[0], 1)]
    for number in range(5):
        numbers = [noise.standard_normal(s).astype(np.float32) for s in shapes]
        dys = [wrap(noise.standard_normal(shape).astype(np.float32)) for _ in range(2)]
        found = []
        for call in (function, compiled):
            leaves = [wrap(a.copy()).requires_grad_() for a in numbers]
            mt.manual_seed(number)
            outs = call(*leaves)
            mt.autograd.backward(outs, dys)
            found.append([*outs, *(t.grad for t in leaves)])
        for place, (one, other) in enumerate(zip(*found, strict=True)):
            if place < 4:  # results, and gradients that are not summed
                np.testing.assert_array_equal(one._array, other._array)
            else:
                np.testing.assert_allclose(one._array, other._array, rtol=1e-4, atol=1e-4)
    (entry,) = compiled.entries
    assert not entry.reason
    (plan,) = entry.plans
    assert plan.backward is not None
    assert (plan.forward.steps, plan.backward.steps) == (0, 0)
