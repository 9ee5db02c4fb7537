"""Attention's masks by blocks: what no query of a block sees is left out, with the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
from test_attention import forward, normal, run

import minitensor as mt
from minitensor.core import wrap
from minitensor.kernels import attention as kernel
from minitensor.ops.attention import ScaledDotProductAttention

F = mt.nn.functional


def masks_of_blocks(rows: int, cols: int) -> dict[str, np.ndarray]:
    """True where attention is allowed: masks that hide blocks of keys from blocks of queries."""
    i, j = np.arange(rows)[:, None], np.arange(cols)
    lengths = np.array([cols - 70, 3])
    return {
        "triangle": i >= j,
        "window": (i >= j) & (i - j < 20),
        "padding after": (j < lengths[:, None])[:, None, None],
        "padding before": (j >= lengths[:, None])[:, None, None],
        "padded triangle": (i >= j) & (j < lengths[:, None, None])[:, None],
        "a block in the middle": (j > 64) & (j < 192) & (i >= 0),
        "one key": (j == 129) & (i >= 0),
        "late queries alone": (i >= 140) & (j >= 0),
        "another for each head": np.stack([i >= j, i >= 2 * j, j < 100 + 0 * i]),
    }


@pytest.mark.parametrize(
    ("name", "causal"),
    [
        *((name, False) for name in masks_of_blocks(1, 1)),
        ("window", True),
        ("padding before", True),
    ],
)
def test_keys_that_a_block_does_not_see_are_left_out(
    name: str, causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the numbers of the composition, with one tile of keys or several, and in parts."""
    rows, cols = 200, 210
    arrays = [normal(2, 3, n, 4, seed=n) for n in (rows, cols, cols)]
    dy, allowed = normal(2, 3, rows, 4, seed=9), masks_of_blocks(rows, cols)[name]
    given = (causal, 0.3, 0.1, 77)
    reference = ScaledDotProductAttention.decomposition
    expected = run(reference, arrays, dy, wrap, wrap(allowed), *given)
    for tile, part in ((1 << 18, 512), (1 << 16, 64)):
        monkeypatch.setattr(kernel, "_TILE", tile)
        monkeypatch.setattr(kernel, "_SPLIT_KEYS", part)
        monkeypatch.setattr(kernel, "_layouts", {})
        for mask in (allowed, np.where(allowed, 0.0, -np.inf)):
            found = run(ScaledDotProductAttention.apply, arrays, dy, wrap, wrap(mask), *given)
            for mine, theirs in zip(found, expected, strict=True):
                np.testing.assert_allclose(mine, theirs, atol=1e-12)


@pytest.mark.parametrize("infinite", [False, True])
def test_a_triangular_mask_is_causality(infinite: bool) -> None:
    """To the last bit, and two queries see one key, and two of equal weight."""
    allowed = np.tri(200, dtype=np.bool_)
    mask = np.where(allowed, 0, -np.inf).astype(np.float32) if infinite else allowed
    arrays = [normal(1, 2, 200, 16, dtype=np.float32, seed=i) for i in range(3)]
    dy = normal(1, 2, 200, 16, dtype=np.float32, seed=9)
    found = run(F.scaled_dot_product_attention, arrays, dy, wrap, wrap(mask))
    causal = run(F.scaled_dot_product_attention, arrays, dy, wrap, is_causal=True)
    for mine, theirs in zip(found, causal, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    q, v = mt.zeros(1, 1, 2, 3), mt.tensor([[[[1.0], [3.0]]]])
    y = F.scaled_dot_product_attention(q, q, v, wrap(mask[:2, :2]))
    assert y.flatten().tolist() == [1.0, 2.0]


@pytest.mark.parametrize("hidden", [5, 100])
def test_a_hidden_key_may_be_anything(hidden: int) -> None:
    q, k = normal(1, 1, 9, 8), normal(1, 1, 150, 8, seed=1)
    mask = np.arange(150)[None] != hidden
    expected = forward(q, k, k, np.where(mask, 0, -np.inf)[None, None], False, 1.0, 0.0, 0)
    broken = k.copy()
    broken[0, 0, hidden] = np.nan
    found = forward(q, broken, k, np.where(mask, 0, -np.inf)[None, None], False, 1.0, 0.0, 0)
    np.testing.assert_array_equal(found, expected)
