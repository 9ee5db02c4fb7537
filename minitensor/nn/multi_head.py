"""multi_head_attention_forward: multi-head attention with its parameters as arguments.

Dimensions: N batch, L queries, S keys and values, E model width, H heads, K head width (E = H*K).
"""

from __future__ import annotations

import math
from typing import Any

from ..core import Tensor, module_path
from ..creation import zeros
from ..dtype import FLOATING
from ..ops.attention import PackedAttention, ScaledDotProductAttention
from ..ops.dropout import Dropout
from ..ops.join import Cat
from ..ops.linear import InProjectionPacked, Linear
from ..random import uses_torch_dropout
from .masks import merge_masks


def multi_head_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
    *,
    batch_first: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Compute `MultiheadAttention`, whose parameters are arguments here.

    - `query` (L, N, E), `key` (S, N, kdim), `value` (S, N, vdim); N first with `batch_first`, which
      PyTorch's function does not have; or without N.
    - `embed_dim_to_check`: E, which `query` must have.
    - `in_proj_weight` (3E, E) or, with `use_separate_proj_weight`, the three `*_proj_weight`.
    - `bias_k`, `bias_v` (1, 1, E): one more key and value; `add_zero_attn` adds one of zeros.
    - `static_k`, `static_v` (N*H, S, K): take the place of the projected keys and values.
    - `dropout_p` has an effect only with `training`.
    - the masks, `need_weights`, `average_attn_weights` and `is_causal`: as in
      `MultiheadAttention.forward`.

    Returns the output, in the shape of `query`, and the attention weights or None. Raises the
    errors of `MultiheadAttention.forward`.
    """
    _check(query, key, value, embed_dim_to_check, num_heads)
    if is_causal and attn_mask is None:
        raise _error(
            RuntimeError,
            "Need attn_mask if specifying the is_causal hint. You may use the Transformer module "
            "method `generate_square_subsequent_mask` to create this mask",
        )
    is_batched = query.dim() == 3
    batch_first = is_batched and batch_first
    if not is_batched and key_padding_mask is not None:
        key_padding_mask = key_padding_mask.unsqueeze(0)
    sequence, batch = (1, 0) if batch_first else (0, 1)
    n = query.shape[batch] if is_batched else 1
    length, keys = query.shape[sequence], key.shape[sequence]
    _check_masks(attn_mask, key_padding_mask, n, num_heads, length, keys)

    weights = (
        (q_proj_weight, k_proj_weight, v_proj_weight)
        if use_separate_proj_weight
        else (in_proj_weight,)
    )
    projected = tuple(
        x if batch_first else x.transpose(0, 1) if is_batched else x.unsqueeze(0)
        for x in _project(query, key, value, weights, in_proj_bias)
    )
    # The masks do not cover the keys added here: every query may attend to them.
    extra = int(bias_k is not None and bias_v is not None)
    if static_k is not None:
        extra = static_k.shape[1] - keys
    extra += int(add_zero_attn)
    causal = is_causal and not need_weights and not extra
    mask = merge_masks(
        None if causal else _widened(attn_mask, extra),
        _widened(key_padding_mask, extra),
        num_heads,
        query.dtype if need_weights else None,
    )
    dropout = dropout_p if training else 0.0
    only_projected = static_k is None and static_v is None and not extra
    if only_projected and not need_weights and len(projected) < 3:
        kv = projected[1] if len(projected) == 2 else None
        out = PackedAttention.call(projected[0], num_heads, mask, dropout, causal, kv=kv)
        weight = None
    else:
        q, k, v = _in_heads(projected, num_heads)
        if bias_k is not None and bias_v is not None:
            more = _in_heads((bias_k.expand(n, 1, -1), bias_v.expand(n, 1, -1)), num_heads, (1, 1))
            k, v = (Cat.call([x, y], 2) for x, y in zip((k, v), more, strict=True))
        if static_k is not None:
            k = static_k.unflatten(0, (n, num_heads))
        if static_v is not None:
            v = static_v.unflatten(0, (n, num_heads))
        if add_zero_attn:
            k, v = (
                Cat.call([x, zeros(n, num_heads, 1, x.shape[-1], dtype=x.dtype)], 2) for x in (k, v)
            )
        out, weight = _attend(q, k, v, mask, dropout, causal, need_weights)
        out = out.transpose(1, 2).flatten(2)

    # PyTorch lays sequences out first in memory, and its dropout draws in that order.
    sequence_first = not batch_first or uses_torch_dropout()
    out = Linear.call(
        out.transpose(0, 1) if sequence_first else out, out_proj_weight, out_proj_bias
    )
    if weight is not None and average_attn_weights:
        weight = weight.mean(1)
    if not is_batched:
        return out.flatten(0, 1), None if weight is None else weight.squeeze(0)
    return out.transpose(0, 1) if batch_first and sequence_first else out, weight


def _attend(
    q_NHLK: Tensor,
    k_NHSK: Tensor,
    v_NHSK: Tensor,
    mask: Tensor | None,
    dropout_p: float,
    is_causal: bool,
    need_weights: bool,
) -> tuple[Tensor, Tensor | None]:
    """Return dropout(softmax(q @ k.T / sqrt(K) + mask)) @ v, and the weights (N, H, L, S) or None.

    `mask` broadcasts to (N, H, L, S); with `need_weights` it must hold numbers.
    """
    if not need_weights:
        out_NHLK = ScaledDotProductAttention.call(
            q_NHLK, k_NHSK, v_NHSK, mask, dropout_p, is_causal
        )
        return out_NHLK, None
    score_NHLS = (q_NHLK * math.sqrt(1 / q_NHLK.shape[-1])) @ k_NHSK.transpose(-2, -1)
    if mask is not None:
        score_NHLS = score_NHLS + mask
    weight_NHLS = score_NHLS.softmax(-1)
    if dropout_p > 0:
        weight_NHLS = Dropout.call(weight_NHLS, dropout_p)
    return weight_NHLS @ v_NHSK, weight_NHLS


def _project(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    weights: tuple[Any, ...],
    bias: Tensor | None,
) -> tuple[Tensor, ...]:
    """Project to q, k and v with as few products as the inputs allow.

    `weights` is (in_proj_weight,) or the three separate ones. Returns one tensor (*, 3E) if query,
    key and value are the same tensor; two, (*, E) and (*, 2E), if only key and value are; else
    three.
    """
    if len(weights) == 1 and key is value:
        if query is key:
            return (Linear.call(query, *weights, bias),)
        return InProjectionPacked.call(query, key, *weights, bias)
    weights = weights if len(weights) == 3 else weights[0].chunk(3)
    biases = (None, None, None) if bias is None else bias.chunk(3)
    inputs = zip((query, key, value), weights, biases, strict=True)
    return tuple(Linear.call(*each) for each in inputs)


def _in_heads(
    projected: tuple[Tensor, ...], num_heads: int, parts: tuple[int, ...] = ()
) -> tuple[Tensor, ...]:
    """Split the result of `_project` into q, k and v (N, H, length, K).

    `parts` says how many each tensor holds, side by side.
    """
    found: list[Tensor] = []
    for x, count in zip(projected, parts or _PARTS[len(projected)], strict=True):
        if count == 1:
            found.append(x.unflatten(-1, (num_heads, -1)).transpose(1, 2))
        else:
            found += x.unflatten(-1, (count, num_heads, -1)).permute(2, 0, 3, 1, 4).unbind()
    return tuple(found)


_PARTS = {1: (3,), 2: (1, 2), 3: (1, 1, 1)}


def _widened(mask: Tensor | None, extra: int) -> Tensor | None:
    """Append `extra` columns to a mask, which block nothing."""
    if mask is None or not extra:
        return mask
    return Cat.call([mask, zeros(*mask.shape[:-1], extra, dtype=mask.dtype)], -1)


def _error(kind: type[Exception], message: str) -> Exception:
    """Make an error that names the module it is about by its path in the model."""
    path = module_path()
    return kind(f"{message}, in {path}" if path else message)


def _check(query: Tensor, key: Tensor, value: Tensor, embed_dim: int, num_heads: int) -> None:
    """Raise AssertionError for inputs whose shapes do not fit each other."""
    if query.dim() not in (2, 3):
        raise _error(
            AssertionError,
            f"query should be unbatched 2D or batched 3D tensor but received {query.dim()}-D query "
            "tensor",
        )
    if key.dim() != query.dim() or value.dim() != query.dim():
        raise _error(
            AssertionError,
            f"For {'batched' if query.dim() == 3 else 'unbatched'} ({query.dim()}-D) `query`, "
            f"expected `key` and `value` to be {query.dim()}-D but found {key.dim()}-D and "
            f"{value.dim()}-D tensors respectively",
        )
    if query.shape[-1] != embed_dim:
        raise _error(
            AssertionError,
            f"was expecting embedding dimension of {embed_dim}, but got {query.shape[-1]}",
        )
    if embed_dim % num_heads:
        raise _error(
            AssertionError, f"embed_dim {embed_dim} not divisible by num_heads {num_heads}"
        )
    if key.shape[:-1] != value.shape[:-1]:
        raise _error(
            AssertionError,
            f"key shape {tuple(key.shape)} does not match value shape {tuple(value.shape)}",
        )


def _check_masks(
    attn_mask: Tensor | None,
    key_padding_mask: Tensor | None,
    n: int,
    num_heads: int,
    length: int,
    keys: int,
) -> None:
    """Raise AssertionError for the type, RuntimeError for the shape of a mask."""
    for name, mask in (("attn_mask", attn_mask), ("key_padding_mask", key_padding_mask)):
        if mask is not None and mask.dtype.kind not in "b" + FLOATING:
            raise _error(
                AssertionError,
                f"only bool and floating types of {name} are supported, not {mask.dtype}",
            )
    if attn_mask is not None:
        if attn_mask.dim() not in (2, 3):
            raise _error(
                AssertionError,
                f"expected `attn_mask` to be `None`, 2-D or 3-D but found {attn_mask.dim()}-D",
            )
        expected = (length, keys) if attn_mask.dim() == 2 else (n * num_heads, length, keys)
        if attn_mask.shape != expected:
            raise _error(
                RuntimeError,
                f"The shape of the {attn_mask.dim()}D attn_mask is {tuple(attn_mask.shape)}, but "
                f"should be {expected}",
            )
    if key_padding_mask is not None and key_padding_mask.shape != (n, keys):
        raise _error(
            AssertionError,
            f"expected `key_padding_mask` of shape {(n, keys)} but found "
            f"{tuple(key_padding_mask.shape)}",
        )
