"""Attention masks: build the causal mask, recognise it, and merge two masks into one.

A mask is boolean, True where attention is blocked, or floating point, added to the scores.
Dimensions: N batch, H heads, L queries, S keys.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..core import Tensor
from ..creation import full, zeros
from ..dtype import FLOATING, DTypeLike


def causal_mask(size: int, device: Any = None, dtype: DTypeLike | None = None) -> Tensor:
    """Return the mask (size, size) that blocks the future: -inf above the diagonal, else 0."""
    return full((size, size), -math.inf, device=device, dtype=dtype).triu(1)


def is_causal_mask(mask: Tensor | None, size: int | None = None) -> bool:
    """Return True if `mask` is the causal mask, in booleans or numbers, and needs no gradient.

    With `size`, its shape must be (size, size). Attention need not read such a mask, and computes
    only half of the scores.
    """
    if mask is None or mask.dim() != 2 or mask.requires_grad:
        return False
    rows, cols = mask.shape
    if rows != cols or size not in (None, rows) or mask.dtype.kind not in "b" + FLOATING:
        return False
    future = np.triu(np.ones((rows, cols), np.bool_), 1)
    expected = np.where(future, -np.inf, 0) if mask.is_floating_point() else future
    return np.array_equal(mask._array, expected)


def additive(mask: Tensor, dtype: DTypeLike) -> Tensor:
    """Return a boolean mask as 0 and -inf of type `dtype`; a floating point mask as it is.

    Raises RuntimeError for a mask of another type.
    """
    if mask.is_floating_point():
        return mask
    if mask.dtype.kind != "b":
        raise RuntimeError(f"a mask must be boolean or floating point, not {mask.dtype}")
    return zeros(mask.shape, dtype=dtype).masked_fill(mask, -math.inf)


def merge_masks(
    attn_mask: Tensor | None,
    key_padding_mask: Tensor | None,
    num_heads: int,
    dtype: DTypeLike | None = None,
) -> Tensor | None:
    """Merge both masks into one that broadcasts to (N, H, L, S), as the attention ops take it.

    - `attn_mask`: (L, S) or (N*H, L, S).
    - `key_padding_mask`: (N, S).
    - `dtype`: return numbers of this type, to be added to the scores. If it is None, numbers are
      returned only if one of the masks has numbers; two boolean masks give a boolean mask that is
      True where attention is *allowed*.

    Returns None if there is no mask. Raises RuntimeError for a mask of another type.
    """
    masks = []
    if attn_mask is not None:
        per_head = attn_mask.dim() == 3
        masks.append(attn_mask.unflatten(0, (-1, num_heads)) if per_head else attn_mask)
    if key_padding_mask is not None:
        masks.append(key_padding_mask.unsqueeze(1).unsqueeze(1))
    for mask in masks:
        if mask.is_floating_point():
            dtype = mask.dtype
    if dtype is not None:
        masks = [additive(mask, dtype) for mask in masks]
    if not masks:
        return None
    merged = masks[0]
    if len(masks) == 2:
        merged = masks[0] | masks[1] if dtype is None else masks[0] + masks[1]
    return merged.logical_not() if dtype is None else merged
