"""Activations: the values at the edges, large arrays, types, and the forms with an underscore."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from conftest import needs_torch

import minitensor as mt
from minitensor.core import wrap
from minitensor.kernels import activation as kernel
from minitensor.kernels.dropout import dropout
from minitensor.kernels.jit import get_num_threads, set_num_threads
from minitensor.testing import Rand

F = mt.nn.functional

KINDS = ("relu", "sigmoid", "tanh", "silu", "gelu", "gelu_tanh")


@needs_torch
@pytest.mark.parametrize("name", KINDS)
def test_large_arrays_against_pytorch(name: str) -> None:
    """More than one piece, and shared among threads."""
    import torch

    kwargs = {"approximate": "tanh"} if name == "gelu_tanh" else {}
    noise = np.random.RandomState(0)
    a, d = (noise.standard_normal(150_001).astype(np.float32) * 4 for _ in range(2))
    x, t = wrap(a).requires_grad_(), torch.from_numpy(a.copy()).requires_grad_()
    function = name.removesuffix("_tanh")
    y, u = getattr(F, function)(x, **kwargs), getattr(torch.nn.functional, function)(t, **kwargs)
    y.backward(wrap(d))
    u.backward(torch.from_numpy(d))
    np.testing.assert_allclose(y.detach().numpy(), u.detach().numpy(), rtol=2e-5, atol=2e-6)
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), t.grad.numpy(), rtol=2e-5, atol=5e-5)


def both_ways(name: str, x: np.ndarray, p: float = 0.0) -> tuple[np.ndarray, ...]:
    """y with dropout, and the gradient of x for dy = x."""
    y = kernel.activate(name, x, p=p, key=7)
    z = y if name == "relu" else kernel.activate(name, x) if name in ("sigmoid", "tanh") else x
    return y, kernel.differentiate(name, z, x, p, 7)


@pytest.mark.parametrize("name", KINDS)
def test_same_on_any_number_of_threads(name: str) -> None:
    x = np.random.RandomState(0).standard_normal((2000, 75)).astype(np.float32)
    before = get_num_threads()
    try:
        set_num_threads(1)
        alone = both_ways(name, x, 0.2)
    finally:
        set_num_threads(before)
    for a, b in zip(alone, both_ways(name, x, 0.2), strict=True):
        np.testing.assert_array_equal(a, b)
    # A part alone gives what it gives within the whole.
    for a, b in zip(both_ways(name, x[:11]), both_ways(name, x), strict=True):
        np.testing.assert_array_equal(a, b[:11])


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("shape", [(5, 3), (3, 40, 30), (2, 3000), (4,), (0, 3)])
def test_with_dropout_in_one_pass(name: str, shape: tuple[int, ...]) -> None:
    """As the two one after the other, to the bit."""
    noise = np.random.RandomState(0)
    for dtype in (np.float32, np.float64):
        x = np.asarray(noise.standard_normal(shape), dtype)
        y, dx = both_ways(name, x, 0.3)
        plain = kernel.activate(name, x)
        np.testing.assert_array_equal(y, dropout(plain, 0.3, 7))
        z = plain if name in ("relu", "sigmoid", "tanh") else x
        separate = kernel.differentiate(name, z, dropout(x, 0.3, 7))
        np.testing.assert_array_equal(dx, separate)
        out = x.copy()
        assert kernel.activate(name, out, out, 0.3, 7) is out
        np.testing.assert_array_equal(out, y)


@pytest.mark.parametrize("name", KINDS)
def test_half_precision(name: str) -> None:
    x = np.linspace(-3, 3, 50).astype(np.float16).reshape(10, 5)
    whole = both_ways(name, x), both_ways(name, x.astype(np.float32))
    for y, exact in zip(*whole, strict=True):
        assert y.dtype == np.float16
        np.testing.assert_allclose(y, exact, atol=1e-2)


EVERY = (
    *("relu", "gelu", "silu", "sigmoid", "tanh", "elu", "selu", "leaky_relu", "hardtanh", "relu6"),
    *("softplus", "logsigmoid", "mish"),
)
EDGES = [-np.inf, -1000.0, -0.0, 0.0, 1000.0, np.inf, np.nan]


@needs_torch
@pytest.mark.parametrize("name", EVERY)
def test_edges_against_pytorch(name: str) -> None:
    import torch

    finite = EDGES[1:5]
    edges = finite if name == "gelu" else EDGES  # PyTorch's gelu of inf is NaN, or inf, by position
    x, t = mt.tensor(edges), torch.tensor(edges)
    y, u = getattr(F, name)(x), getattr(torch.nn.functional, name)(t)
    np.testing.assert_allclose(y.numpy(), u.numpy(), rtol=1e-6)
    # Where x is infinite the formulas of the gradient give NaN, each in its own way.
    x, t = (module.tensor(finite, requires_grad=True) for module in (mt, torch))
    getattr(F, name)(x).sum().backward()
    getattr(torch.nn.functional, name)(t).sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), t.grad.numpy(), rtol=1e-6)


def test_relu_is_flat_at_zero() -> None:
    x = mt.tensor([0.0, -0.0, 1e-30, -1e-30], requires_grad=True)
    F.relu(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 0, 1, 0]


def test_integers() -> None:
    x = mt.tensor([-2, 0, 3])
    assert F.relu(x).tolist() == [0, 0, 3]
    assert F.relu(x).dtype == mt.int64
    assert F.hardtanh(x).tolist() == [-1, 0, 1]
    assert F.sigmoid(x).dtype == mt.tanh(x).dtype == mt.float32
    np.testing.assert_allclose(mt.tanh(x).numpy(), np.tanh([-2, 0, 3]), rtol=1e-6)
    assert mt.sigmoid(mt.tensor([False])).tolist() == [0.5]
    with pytest.raises(NotImplementedError, match="gelu: not implemented for int64"):
        F.gelu(x)


def test_in_place(rand: Rand) -> None:
    forms: list[tuple[Any, Any]] = [
        (F.relu, lambda x: F.relu(x, inplace=True)),
        (F.relu, F.relu_),
        (F.relu, mt.relu_),
        (F.relu, lambda x: x.relu_()),
        (F.silu, lambda x: F.silu(x, inplace=True)),
        (F.elu, lambda x: F.elu(x, inplace=True)),
        (F.elu, F.elu_),
        (F.selu, F.selu_),
        (F.leaky_relu, F.leaky_relu_),
        (F.hardtanh, F.hardtanh_),
        (F.mish, lambda x: F.mish(x, inplace=True)),
        (F.relu6, lambda x: F.relu6(x, True)),
        (F.tanh, mt.tanh_),
        (F.sigmoid, lambda x: x.sigmoid_()),
    ]
    for plain, changing in forms:
        leaf = rand(4, 3)
        expected = plain(leaf * 1)
        expected.sum().backward()
        grad, leaf.grad = leaf.grad, None
        x = leaf * 1
        assert changing(x) is x
        x.sum().backward()
        np.testing.assert_allclose(x.detach().numpy(), expected.detach().numpy())
        np.testing.assert_allclose(leaf.grad.numpy(), grad.numpy())  # type: ignore[attr-defined]


def test_relu_keeps_its_result_alone(rand: Rand) -> None:
    """The argument of relu may be changed in place before the backward pass."""
    x = rand(5) * 1
    y = F.relu(x)
    x.mul_(-1)
    y.sum().backward()


def test_messages() -> None:
    with pytest.raises(RuntimeError, match="halving dimension must be even"):
        F.glu(mt.ones(2, 3))
    with pytest.raises(RuntimeError, match="4 weights for 3 channels"):
        F.prelu(mt.ones(2, 3), mt.ones(4))
    with pytest.raises(RuntimeError, match="'none' or 'tanh'"):
        F.gelu(mt.ones(2), approximate="erf")


def test_hard_and_shrinking_activations() -> None:
    x = mt.tensor([-4.0, -3.0, -0.4, 0.0, 0.4, 3.0, math.inf, math.nan])
    y = [0, 0, 2.6 / 6, 0.5, 3.4 / 6, 1, 1, math.nan]
    mt.testing.assert_close(F.hardsigmoid(x), mt.tensor(y), equal_nan=True)
    y = [0, 0, -0.4 * 2.6 / 6, 0, 0.4 * 3.4 / 6, 3, math.inf, math.nan]
    mt.testing.assert_close(F.hardswish(x), mt.tensor(y), equal_nan=True)
    y = [-4, -3, 0, 0, 0, 3, math.inf, math.nan]
    mt.testing.assert_close(F.hardshrink(x), mt.tensor(y), equal_nan=True)
    y = [-3.5, -2.5, 0, 0, 0, 2.5, math.inf, math.nan]
    mt.testing.assert_close(F.softshrink(x), mt.tensor(y), equal_nan=True)
    y = [9, 9, 9, 9, 0.4, 3, math.inf, math.nan]
    mt.testing.assert_close(F.threshold(x, 0.0, 9.0), mt.tensor(y), equal_nan=True)


def test_exponential_units_at_their_edges() -> None:
    x = mt.tensor([-math.inf, -2.0, 0.0, 2.0, math.inf], requires_grad=True)
    y = F.celu(x, 2.0)
    assert y.tolist() == pytest.approx([-2, 2 * math.expm1(-1), 0, 2, math.inf])
    y.sum().backward()
    assert x.grad.tolist() == pytest.approx([0, math.exp(-1), 1, 1, 1])
    assert F.softsign(mt.tensor([-3, 0, 1])).tolist() == [-0.75, 0, 0.5]


@needs_torch
@pytest.mark.parametrize("hard", [False, True])
def test_gumbel_softmax_draws_what_pytorch_draws(hard: bool) -> None:
    import torch

    logits = np.random.RandomState(0).standard_normal((3, 5)).astype(np.float32)
    x, t = wrap(logits).requires_grad_(), torch.from_numpy(logits.copy()).requires_grad_()
    mt.manual_seed(3)
    torch.manual_seed(3)
    y = F.gumbel_softmax(x, 0.7, hard, dim=0)
    u = torch.nn.functional.gumbel_softmax(t, 0.7, hard, dim=0)
    np.testing.assert_allclose(y.detach().numpy(), u.detach().numpy(), rtol=2e-5, atol=2e-6)
    (y * y[0]).sum().backward()
    (u * u[0]).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), t.grad.numpy(), rtol=2e-4, atol=2e-5)


def test_a_hard_gumbel_sample_is_one_hot() -> None:
    mt.manual_seed(0)
    y = F.gumbel_softmax(mt.randn(4, 6), hard=True)
    mt.testing.assert_close(y.sum(-1), mt.ones(4))
    assert set(y.round(decimals=5).flatten().tolist()) == {0, 1}


def test_softplus_is_its_argument_above_the_threshold() -> None:
    for dtype in (np.float16, np.float32, np.float64):
        x = mt.tensor(np.array([-30, 0, 17.9, 18.1, 19.9, 20.1, 60, np.inf], dtype))
        y = F.softplus(x.requires_grad_())
        assert y.dtype == x.dtype
        assert y.tolist()[5:] == x.tolist()[5:]
        assert F.softplus(x, threshold=18).tolist()[3:] == x.tolist()[3:]
        (dx,) = mt.autograd.grad(y.sum(), [x])
        assert dx.tolist()[5:] == [1, 1, 1]
        assert dx.tolist()[1] == 0.5
