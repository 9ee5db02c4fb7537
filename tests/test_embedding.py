"""Embedding with positions and dropout, beside the ops it is made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minitensor as mt
from minitensor.autograd.gradcheck import gradcheck, gradgradcheck
from minitensor.core import Tensor, wrap
from minitensor.kernels import embedding as kernel
from minitensor.ops.embedding import EmbeddingPositions
from minitensor.testing import Rand

F = mt.nn.functional
V, E = 11, 20


def values(*shape: int, dtype: Any = np.float32, seed: int = 0) -> np.ndarray:
    return np.asarray(np.random.RandomState(seed).standard_normal(shape), dtype)


def tokens(*shape: int, dtype: Any = np.int64) -> np.ndarray:
    return np.asarray(np.random.RandomState(5).randint(0, V, shape), dtype)


def composed(
    input: Tensor,
    weight: Tensor,
    positions: Tensor,
    scale: float = 1.0,
    p: float = 0.0,
    training: bool = True,
    padding_idx: int | None = None,
) -> Tensor:
    total = F.embedding(input, weight, padding_idx) * scale + positions[: input.shape[-1]]
    return F.dropout(total, p, training)


SHAPES = [(3, 5), (4,), (2, 2, 7), (0, 5), (3, 0), (70, 7)]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_is_the_composition(shape: tuple[int, ...], p: float, dtype: str) -> None:
    """In value and gradients; the same elements are dropped, and the generator goes on alike."""
    tolerance = {"float16": 4e-2, "float32": 1e-5, "float64": 1e-12}[dtype]
    settings: Any
    for settings in (dict(scale=3.0, p=p, padding_idx=-2), dict(p=p, training=False)):
        found = []
        for function in (composed, F.embedding_positions):
            mt.manual_seed(1)
            weight = wrap(values(V, E, dtype=dtype)).requires_grad_()
            positions = wrap(values(9, E, dtype=dtype, seed=1)).requires_grad_()
            y = function(wrap(tokens(*shape)), weight, positions, **settings)
            y.backward(wrap(values(*shape, E, dtype=dtype, seed=2)))
            assert weight.grad is not None
            assert positions.grad is not None
            found.append([t._array for t in (y, weight.grad, positions.grad, mt.rand(2))])
        for mine, other in zip(*found, strict=True):
            assert mine.dtype == other.dtype
            np.testing.assert_allclose(mine, other, rtol=tolerance, atol=tolerance)
        if "padding_idx" in settings:
            assert not found[1][1][V - 2].any()


def test_drops_what_pytorch_drops() -> None:
    found = []
    mt.random.exact_dropout()
    try:
        for function in (composed, F.embedding_positions):
            mt.manual_seed(1)
            args = wrap(tokens(3, 5)), wrap(values(V, E)), wrap(values(9, E, seed=1))
            found.append(function(*args, p=0.5)._array)
    finally:
        mt.random.exact_dropout(False)
    one, other = found
    np.testing.assert_array_equal(one, other)


def test_gradients_with_a_key(rand: Rand) -> None:
    def function(weight: Any, positions: Any) -> Any:
        settings = dict(scale=2.0, p=0.4, key=77, padding_idx=None)
        return EmbeddingPositions.apply(input, weight, positions, **settings)

    input = rand.integers(0, 5, 2, 3)
    inputs = [rand(5, 4), rand(4, 4)]
    assert gradcheck(function, inputs)
    assert gradgradcheck(function, inputs)


def test_gradients_that_are_not_wanted() -> None:
    weight, positions = wrap(values(V, E)), wrap(values(9, E)).requires_grad_()
    F.embedding_positions(wrap(tokens(3, 5)), weight, positions).sum().backward()
    assert weight.grad is None
    assert positions.grad is not None
    np.testing.assert_allclose(positions.grad._array[:5], 3)
    np.testing.assert_array_equal(positions.grad._array[5:], 0)


def test_types_and_layouts_of_the_arguments() -> None:
    weight, positions = values(E, V).T, values(E, 12, seed=1).T[::2]
    expected = weight[tokens(3, 5)] + positions[:5]
    for dtype in (np.int64, np.int32):
        for input in (tokens(3, 5, dtype=dtype), np.asfortranarray(tokens(3, 5, dtype=dtype))):
            y = F.embedding_positions(wrap(input), wrap(weight), wrap(positions))
            np.testing.assert_allclose(y._array, expected, rtol=1e-6)
    mixed = F.embedding_positions(wrap(tokens(3, 5)), wrap(weight), wrap(positions.astype(float)))
    assert mixed.dtype == mt.float64


def test_sums_on_any_number_of_threads() -> None:
    places, rows = tokens(600), values(600, 70)
    before, found = mt.get_num_threads(), []
    try:
        for threads in (1, before):
            mt.set_num_threads(threads)
            out = np.full((V, 70), np.nan, np.float32)
            kernel.sum_rows(places, rows, out, 3, 0.5, 0.2, 9)
            table, positions = values(V, 70), values(6, 70, seed=1)
            y = kernel.embed(places.reshape(100, 6), table, positions, 2.0, 0.2, 9)
            found.append((out, y))
    finally:
        mt.set_num_threads(before)
    for one, many in zip(*found, strict=True):
        np.testing.assert_array_equal(one, many)


def test_rows_are_copied_bit_for_bit_on_any_number_of_threads() -> None:
    table = np.array([[-0.0, np.nan] * 35, [np.inf, 1e-45] * 35], np.float32)
    places = tokens(600) % 2
    before = mt.get_num_threads()
    try:
        for threads in (1, before):
            mt.set_num_threads(threads)
            for index in (places, places.astype(np.int32), places.reshape(20, 30).T):
                found = kernel.rows_at(index, np.asfortranarray(table))
                assert found.tobytes() == table[index].tobytes()
    finally:
        mt.set_num_threads(before)


def test_a_gradient_has_zeros_where_no_token_is_and_sums_where_one_repeats() -> None:
    weight = mt.zeros(5, 2, requires_grad=True)
    dy = mt.tensor([[1.0, 2], [3, 4], [5, 6], [7, 8]])
    F.embedding(mt.tensor([4, 1, 4, 2]), weight, 2).backward(dy)
    assert weight.grad is not None
    assert weight.grad.tolist() == [[0, 0], [3, 4], [0, 0], [0, 0], [6, 8]]


def test_errors() -> None:
    input, weight, positions = wrap(tokens(3, 5)), wrap(values(V, E)), wrap(values(9, E))
    with pytest.raises(IndexError, match=r"5 tokens.*only 4 positions"):
        F.embedding_positions(input, weight, positions[:4])
    with pytest.raises(IndexError, match="out of bounds"):
        F.embedding_positions(input + V, weight, positions)
    with pytest.raises(RuntimeError, match=r"\(3, 5\), \(11, 20\) and \(9, 3\)"):
        F.embedding_positions(input, weight, positions[:, :3])
    with pytest.raises(RuntimeError, match=r"input \(\*, L\)"):
        F.embedding_positions(input[0, 0], weight, positions)
    with pytest.raises(RuntimeError, match="scalar types: Long, Int"):
        F.embedding_positions(weight, weight, positions)
    with pytest.raises(AssertionError, match="padding_idx"):
        F.embedding_positions(input, weight, positions, padding_idx=V)
    with pytest.raises(ValueError, match="between 0 and 1"):
        F.embedding_positions(input, weight, positions, p=-0.1)
