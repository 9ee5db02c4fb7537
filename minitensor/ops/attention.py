"""Attention: for each query a mixture of the values, by how well their keys match it.

Dimensions: N batch, H heads, L queries, S keys and values, K width of a query and a key, V width
of a value.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import random
from ..autograd import Op
from ..kernels import attention as kernel
from ..tensor import Tensor, wrap
from .convert import Samples
from .dropout import Dropout
from .shape import strided


class ScaledDotProductAttention(Op):
    """y = dropout(softmax(scale * q k^T + mask)) v, without keeping the (N, H, L, S) weights.

    query (N, H, L, K), key (N, H, S, K), value (N, H, S, V) -> (N, H, L, V), with any number of
    leading dimensions; they broadcast, and the mask broadcasts to (N, H, L, S). In a bool mask True
    allows attention; numbers are added to the scores. `is_causal` allows query i the keys up to
    i, on top of the mask. A query that may attend to nothing gets zeros. `scale` is 1 / sqrt(K) by
    default. `enable_gqa` repeats the heads of key and value to as many as query has. Dropout
    does not ask whether anything is in training.

    RuntimeError for types or shapes that do not fit and for `dropout_p` outside [0, 1].

    A. Vaswani and others, "Attention is all you need", 2017.
    """

    spaces = "functional"
    fused = True

    @staticmethod
    def call(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        _check(query, key, value, dropout_p)
        if enable_gqa:
            key, value = _repeated(key, query), _repeated(value, query)
        query, key, value = _broadcast(query, key, value)
        if attn_mask is not None:
            _check_mask(attn_mask, query, key)
        width = query.shape[-1]
        if scale is None:
            scale = 1 / math.sqrt(width) if width else 1.0
        exact = random.uses_torch_dropout()
        seed = random.default_generator.key() if 0 < dropout_p < 1 and not exact else None
        fused = (
            width > 0
            and (dropout_p == 0 or seed is not None)
            and not (attn_mask is not None and attn_mask.requires_grad)
        )
        op = ScaledDotProductAttention
        run = op.apply if fused else op.reference
        return run(query, key, value, attn_mask, bool(is_causal), scale, dropout_p, seed)

    def forward(
        ctx,
        q: np.ndarray,
        k: np.ndarray,
        v: np.ndarray,
        mask: np.ndarray | None,
        causal: bool,
        scale: float,
        p: float,
        seed: int | None,
    ) -> np.ndarray:
        shape = (*q.shape[:-1], v.shape[-1])
        if 0 in shape or k.shape[-2] == 0:
            ctx.save(q, k, v, None, None)
            return np.zeros(shape, q.dtype)
        settings = (causal, scale, p, seed or 0)
        bias = None if mask is None else _bias(mask, q, k)
        out = kernel.attention(_stacked(q), _stacked(k), _stacked(v), bias, *settings)
        ctx.save(q, k, v, bias, settings)
        return out.reshape(shape).astype(q.dtype, copy=False)

    def backward(ctx, dy: np.ndarray) -> tuple[np.ndarray, ...]:
        q, k, v, bias, settings = ctx.saved
        if settings is None:
            return tuple(np.zeros_like(x) for x in (q, k, v))
        found = kernel.attention_backward(
            _stacked(dy), _stacked(q), _stacked(k), _stacked(v), bias, *settings
        )
        return tuple(
            dx.reshape(x.shape).astype(x.dtype, copy=False)
            for dx, x in zip(found, (q, k, v), strict=True)
        )

    @staticmethod
    def reference(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None,
        causal: bool,
        scale: float,
        p: float,
        seed: int | None,
    ) -> Tensor:
        score = (q * scale) @ k.transpose(-2, -1)
        if 0 in score.shape:
            return score @ v
        if causal:
            score = score.masked_fill(wrap(~np.tri(*score.shape[-2:], dtype=np.bool_)), -math.inf)
        if mask is not None:
            score = (
                score + mask if mask.is_floating_point() else score.masked_fill(~mask, -math.inf)
            )
        alone = score.detach().amax(-1, keepdim=True) == -math.inf
        weight = score.masked_fill(alone, 0.0).softmax(-1).masked_fill(alone, 0.0)
        if p > 0:
            weight = Dropout.call(weight, p) if seed is None else Dropout.apply(weight, p, seed)
        return weight @ v

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand(2, 3, 4, 5), rand(2, 3, 6, 5), rand(2, 3, 6, 7)
        yield rand(4, 5), rand(6, 5), rand(6, 7), dict(is_causal=True)
        yield rand(3, 4, 5), rand(3, 3, 5), rand(3, 3, 5), dict(is_causal=True, scale=0.3)
        yield strided(rand(3, 2, 5, 4)), strided(rand(3, 2, 6, 4)), rand(2, 3, 6, 4)
        yield rand(2, 1, 4, 5), rand(3, 6, 5), rand(2, 3, 6, 5), rand.bools(2, 1, 1, 6)
        yield rand(2, 3, 4, 5), rand(2, 3, 6, 5), rand(2, 3, 6, 5), rand.constant(4, 6), 0.0, True
        yield rand(2, 4, 3, 5), rand(2, 2, 6, 5), rand(2, 2, 6, 5), dict(enable_gqa=True)
        yield rand(2, 2, 3, 4, 5), rand(2, 2, 3, 6, 5), rand(2, 2, 3, 6, 5), rand.bools(2, 3, 1, 6)
        yield rand(2, 4, 5), rand(2, 0, 5), rand(2, 0, 5)

    @staticmethod
    def errors(rand: Any) -> Samples:
        q = rand(2, 3, 4, 5)
        yield rand(4), rand(4), rand(4)
        yield q, rand(2, 3, 4, 6), q
        yield q, rand(3, 3, 4, 5), q
        yield q, q.float(), q
        yield (rand.integers(0, 5, 4, 5),) * 3
        yield q, q, q, rand.bools(4, 5)
        yield q, q, q, rand.bools(4)
        yield q, q, q, rand.bools(1, 1, 1, 4, 4)
        yield q, q, q, rand.integers(0, 2, 4, 4)
        yield q, q, q, None, 1.5
        yield q, rand(2, 1, 4, 5), q, rand.bools(7, 1, 4, 4)
        yield q, rand(2, 2, 4, 5), rand(2, 2, 4, 5), dict(enable_gqa=True)
        yield q, None, q


_NAME = "scaled_dot_product_attention"


def _check(query: Tensor, key: Tensor, value: Tensor, dropout_p: float) -> None:
    """Raise what is wrong with the types, the dimensions or the probability."""
    for name, x in (("query", query), ("key", key), ("value", value)):
        if not isinstance(x, Tensor):
            raise TypeError(f"{_NAME}: {name} must be a Tensor, not {type(x).__name__}")
    q, k, v = query._array, key._array, value._array
    if not q.dtype == k.dtype == v.dtype:
        raise RuntimeError(
            f"{_NAME}: expected one type for all, got {q.dtype}, {k.dtype}, {v.dtype}"
        )
    if q.dtype.kind != "f":
        raise RuntimeError(f"{_NAME}: expected floats, got {q.dtype}")
    wrong = ""
    if min(q.ndim, k.ndim, v.ndim) < 2:
        wrong = "expected (..., length, width)"
    elif q.shape[-1] != k.shape[-1]:
        wrong = "query and key differ in width (the last)"
    elif k.shape[-2] != v.shape[-2]:
        wrong = "key and value differ in length (the last but one)"
    if wrong:
        raise RuntimeError(f"{_NAME}: {wrong}: query {q.shape}, key {k.shape}, value {v.shape}")
    if not 0 <= dropout_p <= 1:
        raise RuntimeError(f"dropout probability has to be between 0 and 1, but got {dropout_p}")


def _check_mask(mask: Tensor, query: Tensor, key: Tensor) -> None:
    """Raise what is wrong with a mask."""
    if mask.dtype not in (np.bool_, np.float32, query.dtype):
        raise RuntimeError(
            f"{_NAME}: expected attn_mask to be bool or float or of query's type {query.dtype}, "
            f"got {mask.dtype}"
        )
    if mask.ndim < 2:
        raise IndexError(f"{_NAME}: expected attn_mask (..., L, S), got {tuple(mask.shape)}")
    full = (*query.shape[:-1], key.shape[-2])
    try:
        fits = np.broadcast_shapes(full, mask.shape) == full
    except ValueError:
        fits = False
    if not fits:
        raise RuntimeError(
            f"{_NAME}: attn_mask {tuple(mask.shape)} does not broadcast to (..., L, S) {full}"
        )


def _repeated(x: Tensor, query: Tensor) -> Tensor:
    """x with each head (dimension -3) repeated, so that there are as many as in `query`."""
    heads, wanted = x.size(-3), query.size(-3)
    if wanted % max(heads, 1):
        raise RuntimeError(
            f"{_NAME}: {heads} heads of key and value do not divide the {wanted} of query"
        )
    return x if heads == wanted else x.repeat_interleave(wanted // heads, -3)


def _broadcast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors with the same leading dimensions."""
    leads = [x._array.shape[:-2] for x in tensors]
    if leads[0] == leads[1] == leads[2]:
        return tensors
    try:
        lead = np.broadcast_shapes(*leads)
    except ValueError:
        shapes = ", ".join(str(tuple(x.shape)) for x in tensors)
        raise RuntimeError(
            f"{_NAME}: the leading dimensions of query, key and value do not match: {shapes}"
        ) from None
    return tuple(x.expand(*lead, *x.shape[-2:]) for x in tensors)


def _stacked(x: np.ndarray) -> np.ndarray:
    """(..., length, width) -> (N, H, length, width); float16 becomes float32."""
    if x.dtype == np.float16:
        x = x.astype(np.float32)
    if x.ndim > 4:
        return x.reshape(-1, *x.shape[-3:])
    return x[(None,) * (4 - x.ndim)]


def _bias(mask: np.ndarray, q: np.ndarray, k: np.ndarray) -> np.ndarray:
    """A mask as numbers to add, (N or 1, H or 1, L or 1, S), no larger than it need be."""
    if q.ndim > 4:
        mask = np.broadcast_to(mask, (*q.shape[:-2], *mask.shape[-2:]))
    mask = _stacked(mask)
    for axis in range(3):
        if mask.strides[axis] == 0:  # expanded
            mask = mask[(slice(None),) * axis + (slice(1),)]
    mask = np.broadcast_to(mask, (*mask.shape[:-1], k.shape[-2]))
    dtype = _stacked(q).dtype
    if mask.dtype == np.bool_:
        mask = np.where(mask, 0.0, -np.inf)
    return mask.astype(dtype, copy=False)
