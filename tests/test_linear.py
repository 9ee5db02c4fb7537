"""Linear maps with what follows them fused: the same bits as one op after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minitensor as mt
from minitensor import nn
from minitensor.kernels.matmul import matmul
from minitensor.nn import functional as F
from minitensor.ops.linear import LinearActivation

SHAPES = [((3, 5, 7), 9), ((1, 300), 300), ((2, 30, 16), 1), ((40, 24, 32), 300), ((7,), 4)]


def tensors(shape: tuple[int, ...], features: int, dtype: Any) -> list[mt.Tensor]:
    mt.manual_seed(1)
    shapes = (shape, (features, shape[-1]), (features,))
    return [mt.randn(*s, dtype=dtype, requires_grad=True) for s in shapes]


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu"])
@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize(("shape", "features"), SHAPES)
def test_fused_gives_the_bits_of_the_composition(
    activation: str, p: float, shape: tuple[int, ...], features: int
) -> None:
    args = tensors(shape, features, mt.float32)
    settings: Any = dict(kind=activation, p=p, key=77)
    fused = LinearActivation.apply(*args, **settings)
    composed = LinearActivation.decomposition(*args, **settings)
    assert np.array_equal(fused.detach().numpy(), composed.detach().numpy())
    assert fused.detach().numpy().any()
    g = mt.randn(*fused.shape)
    grads = (mt.autograd.grad(y, args, g) for y in (fused, composed))
    for a, b in zip(*grads, strict=True):
        assert a.numpy().any()
        assert np.array_equal(a.numpy(), b.numpy())


def test_the_same_on_any_number_of_threads() -> None:
    args = tensors((64, 24, 128), 512, mt.float32)

    def run() -> list[np.ndarray]:
        y = LinearActivation.apply(*args, kind="gelu", p=0.1, key=5)
        return [y.detach().numpy(), *(g.numpy() for g in mt.autograd.grad(y.sum(), args))]

    threads = mt.get_num_threads()
    try:
        mt.set_num_threads(1)
        alone = run()
    finally:
        mt.set_num_threads(threads)
    assert all(np.array_equal(a, b) for a, b in zip(alone, run(), strict=True))


def test_dropout_only_while_training() -> None:
    mt.manual_seed(0)
    layer, x = nn.Linear(6, 50), mt.randn(40, 6)
    y = F.linear_activation(x, layer.weight, layer.bias, "relu", 0.5)
    zeros = int((y == 0).sum().item())
    assert 0.65 * y.numel() < zeros < 0.85 * y.numel()  # half are negative, half of the rest drop
    y = F.linear_activation(x, layer.weight, layer.bias, "relu", 0.5, training=False)
    assert mt.equal(y, F.relu(layer(x)))


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu"])
@pytest.mark.parametrize("shape", [(3, 0), (2, 3, 0), (0, 4), (0, 2, 4)])
def test_no_features_or_no_rows(activation: str, shape: tuple[int, ...]) -> None:
    """Without features the result is the activation of the bias."""
    x, w, b = mt.randn(*shape), mt.randn(5, shape[-1]), mt.randn(5)
    x, w, b = (t.requires_grad_() for t in (x, w, b))
    y = F.linear_activation(x, w, b, activation)
    assert mt.equal(y, getattr(F, activation)(F.linear(x, w, b)))
    y.sum().backward()
    assert [t.grad.shape for t in (x, w, b)] == [x.shape, w.shape, b.shape]


def test_dropout_follows_the_seed_and_exact_dropout() -> None:
    x, w, b = tensors((40, 6), 50, mt.float32)
    mt.manual_seed(3)
    first = F.linear_activation(x, w, b, "relu", 0.2)
    mt.manual_seed(3)
    assert mt.equal(first, F.linear_activation(x, w, b, "relu", 0.2))
    assert not mt.equal(first, F.linear_activation(x, w, b, "relu", 0.2))


def test_the_gradient_of_a_bias_of_few_features() -> None:
    """The weight's gradient has two rows, of many products: a part for each thread is one row."""
    layer = mt.nn.Linear(16, 2)
    dy = np.random.RandomState(0).randn(40_000, 2).astype(np.float32)
    layer(mt.randn(len(dy), 16)).backward(mt.tensor(dy))
    np.testing.assert_allclose(layer.bias.grad.numpy(), dy.sum(0, dtype=np.float64), rtol=1e-3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows", [1, 2, 37, 1536])
@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (13, 40), (100, 300)])
def test_sums_of_rows_beside_a_product(dtype: Any, rows: int, shape: tuple[int, int]) -> None:
    rand = np.random.RandomState(0)
    dy, x = (rand.randn(rows, cols).astype(dtype) for cols in shape)
    for a in (dy.T, np.ascontiguousarray(dy.T), dy[::2].T):
        b = x[: a.shape[1]]
        sums = np.empty(len(a), dtype)
        assert np.array_equal(matmul(a, b, row_sums=sums), matmul(a, b))
        tolerance = 1e-4 if dtype == np.float32 else 1e-12
        assert np.allclose(sums, a.sum(-1, dtype=np.float64), rtol=tolerance, atol=tolerance)


def test_errors_say_what_is_wrong() -> None:
    x, w, b = tensors((3, 4), 5, mt.float32)
    with pytest.raises(ValueError, match="activation must be one of relu, gelu, gelu_tanh, silu"):
        F.linear_activation(x, w, b, "swish")
    with pytest.raises(ValueError, match="between 0 and 1"):
        F.linear_activation(x, w, b, "relu", 1.5)
    with pytest.raises(RuntimeError, match="the input has 4 features, the weight takes 3"):
        F.linear_activation(x, mt.zeros(5, 3), b)
