"""Dropout: what is kept, how it depends on key and position, and what PyTorch would draw."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from conftest import needs_torch

import minitensor as mt
from minitensor import random
from minitensor.autograd.gradcheck import gradcheck, gradgradcheck
from minitensor.core import wrap
from minitensor.kernels import dropout as kernel
from minitensor.kernels.jit import COMPILED, get_num_threads, set_num_threads
from minitensor.ops.dropout import Dropout
from minitensor.testing import Rand

F = mt.nn.functional


def kept(n: int, p: float, key: int) -> np.ndarray:
    """(n,) 1.0 where kept."""
    return (kernel.dropout(np.ones(n, np.float32), p, key) != 0).astype(np.float64)


N = 1 << 20 if COMPILED else 1 << 12
KEYS = (0, 1, 2, 3, 2**40, 2**63 - 1)


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.9])
def test_share_kept(p: float) -> None:
    deviation = np.sqrt(p * (1 - p) / N)
    for key in KEYS:
        assert abs(kept(N, p, key).mean() - (1 - p)) < 4.5 * deviation


def test_neighbours_are_independent() -> None:
    p = 0.3
    for key in KEYS:
        x = (kept(N, p, key) - (1 - p)) / np.sqrt(p * (1 - p))
        for lag in (1, 2, 3, 4, 8, 16, 32, 64, 100, 256, 512, 1000, N // 16):
            assert abs(x[:-lag] @ x[lag:]) / np.sqrt(N - lag) < 4.5, (key, lag)


def test_keys_are_independent() -> None:
    p = 0.3
    x = [(kept(N, p, key) - (1 - p)) / np.sqrt(p * (1 - p)) for key in KEYS]
    for i in range(len(KEYS)):
        for j in range(i):
            assert abs(x[i] @ x[j]) / np.sqrt(N) < 4.5
            assert abs(x[i][1:] @ x[j][:-1]) / np.sqrt(N) < 4.5


def test_patterns_of_eight_are_equally_frequent() -> None:
    for key in KEYS:
        bits = kept(N, 0.5, key).reshape(-1, 8)
        counts = np.bincount((bits @ (1 << np.arange(8))).astype(np.int64), minlength=256)
        mean = N / 8 / 256
        chi_square = ((counts - mean) ** 2 / mean).sum()
        assert abs(chi_square - 255) < 4.5 * np.sqrt(2 * 255)


def test_one_position_over_many_keys() -> None:
    p, keys = 0.2, 4000 if COMPILED else 400
    table = np.array([kept(32, p, key) for key in range(keys)])
    deviation = np.sqrt(p * (1 - p) / keys)
    assert (abs(table.mean(0) - (1 - p)) < 4.5 * deviation).all()
    z = (table - (1 - p)) / np.sqrt(p * (1 - p))
    correlation = (z.T @ z / np.sqrt(keys))[np.triu_indices(32, 1)]
    assert abs(correlation).max() < 4.5


def test_same_on_any_number_of_threads() -> None:
    x = np.random.RandomState(0).standard_normal(100_003).astype(np.float32)
    before = get_num_threads()
    try:
        set_num_threads(1)
        one = kernel.dropout(x, 0.3, 5)
    finally:
        set_num_threads(before)
    np.testing.assert_array_equal(one, kernel.dropout(x, 0.3, 5))
    part = 40_000  # chunks shared between threads continue the same stream
    np.testing.assert_array_equal(one[:part], kernel.dropout(x[:part], 0.3, 5))


def test_layout_and_type_do_not_matter() -> None:
    x = np.random.RandomState(0).standard_normal((40, 60))
    expected = kernel.dropout(x, 0.4, 9)
    np.testing.assert_array_equal(kernel.dropout(np.asfortranarray(x), 0.4, 9), expected)
    for dtype, tolerance in ((np.float32, 1e-6), (np.float16, 1e-3)):
        y = kernel.dropout(x.astype(dtype), 0.4, 9)
        assert y.dtype == dtype
        np.testing.assert_allclose(y, expected, rtol=tolerance, atol=tolerance)


def test_values() -> None:
    x = np.random.RandomState(0).standard_normal(1000)
    y = kernel.dropout(x, 0.25, 3)
    assert set(np.unique(y != 0)) == {False, True}
    np.testing.assert_allclose(y[y != 0], x[y != 0] / 0.75, rtol=1e-15)


def test_gradient_is_the_same_mask(rand: Rand) -> None:
    x = rand(50, 7)
    y = F.dropout(x, 0.4)
    y.backward(mt.ones(50, 7, dtype=mt.float64))
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy() * x.detach().numpy(), y.detach().numpy())


def test_gradcheck_with_a_key(rand: Rand) -> None:
    def function(x: Any) -> Any:
        return Dropout.apply(x, 0.4, 77)

    assert gradcheck(function, [rand(3, 5)])
    assert gradgradcheck(function, [rand(3, 5)])


def test_seed_and_key(rand: Rand) -> None:
    x = rand.constant(100)
    mt.manual_seed(1)
    first, second = F.dropout(x), F.dropout(x)
    mt.manual_seed(1)
    assert (F.dropout(x) == first).all()
    assert (first != second).any()


def test_keys_are_words_of_the_stream() -> None:
    generator = random.Generator().manual_seed(9)
    keys = [generator.key() for _ in range(3)]
    generator.manual_seed(9)
    assert keys == [int(word) >> 1 for word in generator.words64(3)]
    assert generator.clone_state().key() == generator.key()


def test_what_returns_its_input(rand: Rand) -> None:
    x = rand(3, 4)
    assert F.dropout(x, 0.0) is x
    assert F.dropout(x, training=False) is x
    assert mt.dropout(x, 0.5, False) is x
    assert (F.dropout(x, 1.0) == 0).all()


def test_in_place() -> None:
    x = mt.ones(100)
    mt.manual_seed(3)
    y = F.dropout(mt.ones(100), 0.5)
    mt.manual_seed(3)
    assert F.dropout(x, 0.5, inplace=True) is x
    assert (x == y).all()
    mt.manual_seed(3)
    assert (mt.dropout_(mt.ones(100), 0.5, True) == y).all()


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_impossible_probabilities(p: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        F.dropout(mt.ones(2), p)
    with pytest.raises(RuntimeError, match="between 0 and 1"):
        mt.dropout(mt.ones(2), p, True)


# PyTorch's own stream


@pytest.fixture
def exact() -> Iterator[None]:
    random.exact_dropout(True)
    yield
    random.exact_dropout(False)


@needs_torch
@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_exact_mode_is_pytorch(dtype: str) -> None:
    import torch

    for shape in ((5,), (3, 4), (2, 3, 5), (40, 50)):
        a = np.random.RandomState(0).standard_normal(shape).astype(dtype)
        for turned in (False, True):
            mt.manual_seed(7)
            torch.manual_seed(7)
            x, t = wrap(a.T if turned else a), torch.from_numpy(a.T if turned else a)
            for p in (0.1, 0.5):
                mine = F.dropout(x, p).numpy()
                np.testing.assert_array_equal(mine, torch.nn.functional.dropout(t, p).numpy())


@needs_torch
@pytest.mark.usefixtures("exact")
def test_exact_mode_in_attention() -> None:
    import torch

    a = np.random.RandomState(0).standard_normal((3, 2, 2, 5, 4)).astype(np.float32)
    mt.manual_seed(7)
    torch.manual_seed(7)
    mine = F.scaled_dot_product_attention(*map(wrap, a), dropout_p=0.3)  # type: ignore[misc]
    theirs = torch.nn.functional.scaled_dot_product_attention(*torch.from_numpy(a), dropout_p=0.3)  # type: ignore[misc]
    np.testing.assert_allclose(mine.numpy(), theirs.numpy(), rtol=1e-5, atol=1e-6)


def attention_to_itself(x: mt.Tensor) -> mt.Tensor:
    return F.scaled_dot_product_attention(x, x, x, dropout_p=0.3)


OPS_THAT_DROP = {
    "dropout": lambda x: F.dropout(x, 0.3),
    "linear": lambda x: F.linear_activation(x, mt.ones(6, 8), p=0.3),
    "dropout_add": lambda x: F.dropout_add(x, x, 0.3),
    "dropout_add_layer_norm": lambda x: F.dropout_add_layer_norm(x, x, (8,), p=0.3),
    "attention": lambda x: attention_to_itself(x.unflatten(-1, (2, 4)).transpose(1, 2)),
    "embedding": lambda x: F.embedding_positions(
        x.abs().long(), mt.ones(9, 8), mt.ones(30, 8), p=0.3
    ).flatten(1, 2),
}


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
@pytest.mark.parametrize("name", OPS_THAT_DROP)
def test_parts_of_a_batch_drop_what_the_whole_batch_drops(name: str, compiled: bool) -> None:
    op = OPS_THAT_DROP[name]
    x_NLE = mt.randn(5, 7, 8, generator=random.Generator().manual_seed(2)).clamp(-2, 2)
    if name == "embedding":
        x_NLE = x_NLE[..., 0]
    found = []
    for first, rows in (0, 5), (0, 2), (2, 1), (3, 2):
        run = mt.compile(op) if compiled else op
        with random.part_of_batch(first, rows):
            for _ in range(3 if compiled else 1):  # recorded, traced, replayed
                mt.manual_seed(4)
                out = run(x_NLE[first : first + rows])
        found.append(out)
    whole, *parts = found
    mt.testing.assert_close(mt.cat(parts), whole)
    mt.manual_seed(4)
    assert not mt.equal(op(x_NLE[2:3]), whole[2:3])
