"""Masks: the causal mask is recognised and nothing else is; two masks merge into one."""

from __future__ import annotations

import math

import numpy as np
import pytest

import minitensor as mt
from minitensor import Tensor
from minitensor.core import wrap
from minitensor.nn import masks

N, H, L, S = 2, 3, 4, 4


def future(size: int) -> Tensor:
    """True above the diagonal."""
    return wrap(np.triu(np.ones((size, size), np.bool_), 1))


def test_the_causal_mask_is_recognised_in_numbers_and_booleans() -> None:
    for mask in (masks.causal_mask(4), masks.causal_mask(4, dtype=mt.float64), future(4)):
        assert masks.is_causal_mask(mask)
        assert masks.is_causal_mask(mask, 4)


def test_no_other_mask_is_taken_for_causal() -> None:
    leaky = masks.causal_mask(4)
    leaky[0, 1] = 0.0
    for mask in (
        None,
        leaky,
        masks.causal_mask(4).transpose(0, 1),
        future(4).logical_not(),
        future(4)[:3],
        future(4).unsqueeze(0),
        future(4).to(mt.uint8),
        masks.causal_mask(4).requires_grad_(),
    ):
        assert not masks.is_causal_mask(mask)
    assert not masks.is_causal_mask(future(4), 5)


def test_a_mask_of_integers_is_refused() -> None:
    with pytest.raises(RuntimeError, match="boolean or floating point, not uint8"):
        masks.additive(future(4).to(mt.uint8), mt.float32)
    with pytest.raises(RuntimeError, match="boolean or floating point"):
        masks.merge_masks(future(4).to(mt.uint8), None, H, mt.float32)


@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize("numbers", [None, mt.float32])
def test_two_boolean_masks_block_what_either_blocks(per_head: bool, numbers: object) -> None:
    rng = np.random.RandomState(0)
    blocked = rng.rand(*((N * H, L, S) if per_head else (L, S))) < 0.4
    padding = rng.rand(N, S) < 0.4
    merged = masks.merge_masks(wrap(blocked), wrap(padding), H, numbers)  # type: ignore[arg-type]
    assert merged is not None
    either = (blocked.reshape(N, H, L, S) if per_head else blocked) | padding[:, None, None]
    either = np.broadcast_to(either, (N, H, L, S))
    found = np.broadcast_to(merged.numpy(), (N, H, L, S))
    expected = ~either if numbers is None else np.where(either, -math.inf, 0)
    np.testing.assert_array_equal(found, expected)
    assert merged.dtype == (numbers or mt.bool)


def test_numbers_are_added_and_keep_their_type() -> None:
    bias = mt.randn(L, S, dtype=mt.float64)
    padding = wrap(np.eye(N, S, dtype=np.bool_))
    merged = masks.merge_masks(bias, padding, H)
    assert merged is not None
    assert merged.dtype == mt.float64
    expected = bias.numpy() + np.where(padding.numpy(), -math.inf, 0)[:, None, None]
    np.testing.assert_array_equal(merged.numpy(), expected)


def test_one_mask_alone_and_none() -> None:
    assert masks.merge_masks(None, None, H) is None
    assert masks.merge_masks(None, None, H, mt.float32) is None
    bias = mt.randn(L, S)
    assert masks.merge_masks(bias, None, H) is bias
    allowed = masks.merge_masks(None, wrap(np.eye(N, S, dtype=np.bool_)), H)
    assert allowed is not None
    np.testing.assert_array_equal(allowed.numpy(), ~np.eye(N, S, dtype=np.bool_)[:, None, None])
