"""Kernels for writing token by token: attention to a cache, and the likeliest tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minitensor.kernels import decoding as kernel


def softmax(x: np.ndarray) -> np.ndarray:
    """Return the softmax of a row, zeros for a row of -inf."""
    e = np.exp(x - (x.max() if x.max() > -np.inf else 0))
    return e / (e.sum() or 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("appends", [True, False])
def test_one_query_attends_to_the_slots_of_its_row(dtype: Any, appends: bool) -> None:
    noise: Any = np.random.RandomState(0)
    rows, heads, width, capacity, length = 3, 2, 5, 7, 4
    slots = noise.randint(0, 4, (rows, capacity))
    slots[:, length] = [2, 0, 3]
    cache = noise.randn(4, 2, heads, capacity, width).astype(dtype)
    q, new = (noise.randn(rows, n * heads * width).astype(dtype) for n in (1, 2))
    stop = length + appends
    bias = np.where(noise.rand(4, capacity) < 0.3, -np.inf, noise.randn(4, capacity)).astype(dtype)
    bias[slots[1, 0], :stop] = -np.inf  # attends to nothing
    before = cache.copy()
    y = kernel.attend(q, cache, slots, np.array([length]), new if appends else None, bias)
    if appends:
        before[slots[:, length], :, :, length] = new.reshape(rows, 2, heads, width)
    np.testing.assert_array_equal(cache, before)
    for n in range(rows):
        kv = before[slots[n, :stop], :, :, range(stop)]
        for h in range(heads):
            own = slice(h * width, (h + 1) * width)
            scores = kv[:, 0, h] @ q[n, own] / np.sqrt(width) + bias[slots[n, 0], :stop]
            expected = softmax(scores) @ kv[:, 1, h]
            np.testing.assert_allclose(y[n, own], expected, rtol=1e-4, atol=1e-5)


def test_rows_that_share_a_slot_read_the_same_keys() -> None:
    noise = np.random.RandomState(0)
    cache, q = noise.randn(2, 2, 2, 9, 4), noise.randn(3, 8)
    sources, length = np.array([1, 0, 1]), np.array([9])
    y = kernel.attend(q, cache, sources, length)
    apart = kernel.attend(q, cache[sources], np.arange(3), length)
    np.testing.assert_array_equal(y, apart)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("cols", "count"), [(1, 1), (5, 5), (63, 8), (200, 8), (1000, 100)])
def test_the_most_probable_tokens_come_in_order(dtype: Any, cols: int, count: int) -> None:
    x = np.random.RandomState(0).randn(4, cols).astype(dtype) * 5
    best, places = kernel.most_probable(x, count)
    exact = x.astype(np.float64)
    exact -= np.log(np.exp(exact).sum(-1, keepdims=True))
    order = np.argsort(-exact, -1, kind="stable")[:, :count]
    np.testing.assert_array_equal(places, order)
    np.testing.assert_allclose(best, np.take_along_axis(exact, order, -1), rtol=1e-5, atol=1e-5)


def test_of_equally_probable_tokens_the_first_comes_first_and_each_once() -> None:
    x = np.full((1, 130), -np.inf, np.float32)
    x[0, [90, 128]] = 1.0
    best, places = kernel.most_probable(x, 4)
    assert places.tolist() == [[90, 128, 0, 1]]
    np.testing.assert_allclose(best[0], [-np.log(2), -np.log(2), -np.inf, -np.inf], rtol=1e-6)


def test_large_scores_keep_their_digits() -> None:
    best, _ = kernel.most_probable(np.array([[1e4, 1e4, 1e4 - 64]], np.float32), 2)
    np.testing.assert_allclose(best[0], -np.log(2), rtol=1e-6)
