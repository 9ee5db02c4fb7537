"""Multi-head attention. A. Vaswani et al., "Attention Is All You Need", 2017.

Dimensions: N batch, L queries, S keys and values, E model width, H heads, K head width (E = H*K).
"""

from __future__ import annotations

import math
from typing import Any

from ..core import Tensor, module_path
from ..creation import empty, zeros
from ..dtype import DType
from ..ops.join import Cat
from ..random import uses_torch_dropout
from . import functional as F
from . import init
from .linear import NonDynamicallyQuantizableLinear
from .module import Module
from .parameter import Parameter


class MultiheadAttention(Module):
    """Each of `num_heads` heads mixes the values by how well their keys match each query.

    head = softmax(q @ k.T / sqrt(K) + mask) @ v with q, k, v projections of query, key and value;
    the heads' outputs side by side are projected once more.

    `in_proj_weight` (3E, E) holds the three projections, unless keys or values have another width
    (`kdim`, `vdim`): then there are `q_proj_weight`, `k_proj_weight` and `v_proj_weight`.
    `add_bias_kv` adds a learnt key and value, `add_zero_attn` one of zeros.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if embed_dim <= 0 or num_heads <= 0:
            raise ValueError(
                "embed_dim and num_heads must be greater than 0, "
                f"got embed_dim={embed_dim} and num_heads={num_heads} instead"
            )
        if embed_dim % num_heads:
            raise AssertionError(
                "embed_dim must be divisible by num_heads, "
                f"got embed_dim={embed_dim} and num_heads={num_heads}"
            )
        self.embed_dim = embed_dim
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self._qkv_same_embed_dim = self.kdim == self.vdim == embed_dim
        self.num_heads = num_heads
        self.dropout = dropout
        self.batch_first = batch_first
        self.head_dim = embed_dim // num_heads
        self.add_zero_attn = add_zero_attn
        shapes: dict[str, tuple[int, ...]] = {}
        if self._qkv_same_embed_dim:
            shapes["in_proj_weight"] = (3 * embed_dim, embed_dim)
        else:
            shapes["q_proj_weight"] = (embed_dim, embed_dim)
            shapes["k_proj_weight"] = (embed_dim, self.kdim)
            shapes["v_proj_weight"] = (embed_dim, self.vdim)
        if bias:
            shapes["in_proj_bias"] = (3 * embed_dim,)
        if add_bias_kv:
            shapes["bias_k"] = shapes["bias_v"] = (1, 1, embed_dim)
        for name in _PARAMETERS:
            self.register_parameter(name, None)
            if name in shapes:
                setattr(self, name, Parameter(empty(shapes[name], device=device, dtype=dtype)))
        self.out_proj = NonDynamicallyQuantizableLinear(
            embed_dim, embed_dim, bias=bias, device=device, dtype=dtype
        )
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        for name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
            if self._parameters[name] is not None:
                init.xavier_uniform_(getattr(self, name))
        if self.in_proj_bias is not None:
            init.zeros_(self.in_proj_bias)
            init.zeros_(self.out_proj.bias)
        for name in ("bias_k", "bias_v"):
            if self._parameters[name] is not None:
                init.xavier_normal_(getattr(self, name))

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """The output in the shape of `query`, and the attention weights or None.

        query (L, N, E), key (S, N, kdim), value (S, N, vdim), N first if `batch_first`, or without
        N. `key_padding_mask` (N, S) and `attn_mask` (L, S) or (N*H, L, S): True blocks a position,
        numbers are added to the scores. `is_causal` promises that `attn_mask` blocks the future and
        nothing else. Weights (N, L, S) are averaged over the heads, or (N, H, L, S) if not
        `average_attn_weights`; without `need_weights` they are never formed, which is faster.

        Raises AssertionError for shapes that do not fit and masks of another type, RuntimeError
        for an `attn_mask` of the wrong size.
        """
        return multi_head_attention_forward(
            query,
            key,
            value,
            self.embed_dim,
            self.num_heads,
            self.in_proj_weight,
            self.in_proj_bias,
            self.bias_k,
            self.bias_v,
            self.add_zero_attn,
            self.dropout,
            self.out_proj.weight,
            self.out_proj.bias,
            self.training,
            key_padding_mask,
            need_weights,
            attn_mask,
            not self._qkv_same_embed_dim,
            self.q_proj_weight,
            self.k_proj_weight,
            self.v_proj_weight,
            average_attn_weights=average_attn_weights,
            is_causal=is_causal,
            batch_first=self.batch_first,
        )


# In the order of the state dict.
_PARAMETERS = (
    "in_proj_weight",
    "q_proj_weight",
    "k_proj_weight",
    "v_proj_weight",
    "in_proj_bias",
    "bias_k",
    "bias_v",
)


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
    """What `MultiheadAttention` computes, with its parameters as arguments.

    `static_k` and `static_v` (N*H, S, K) take the place of the projected keys and values.
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
    # No mask knows of the keys added here: everybody may attend to them.
    extra = int(bias_k is not None and bias_v is not None)
    if static_k is not None:
        extra = static_k.shape[1] - keys
    extra += int(add_zero_attn)
    causal = is_causal and not need_weights and not extra
    numbers = query.dtype if need_weights else None
    mask = _merged(None if causal else attn_mask, key_padding_mask, num_heads, extra, numbers)
    dropout = dropout_p if training else 0.0
    as_given = static_k is None and static_v is None and not extra
    if as_given and not need_weights and len(projected) < 3:
        kv = projected[1] if len(projected) == 2 else None
        out = F.packed_attention(projected[0], num_heads, mask, dropout, causal, kv=kv)
        weight = None
    else:
        q, k, v = _separated(projected)
        if bias_k is not None and bias_v is not None:
            k = Cat.call([k, bias_k.expand(n, 1, -1)], 1)
            v = Cat.call([v, bias_v.expand(n, 1, -1)], 1)
        q, k, v = (x.unflatten(-1, (num_heads, -1)).transpose(1, 2) for x in (q, k, v))
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

    # PyTorch's sequences come first in memory: its dropout draws for them in that order.
    sequence_first = not batch_first or uses_torch_dropout()
    out = F.linear(out.transpose(0, 1) if sequence_first else out, out_proj_weight, out_proj_bias)
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
    """softmax(q @ k.T / sqrt(K) + mask) @ v (N, H, L, K), and the weights (N, H, L, S) if needed.

    `mask` broadcasts to (N, H, L, S): numbers to add or, without `need_weights`, also True where
    attention is allowed.
    """
    if not need_weights:
        out_NHLK = F.scaled_dot_product_attention(
            q_NHLK, k_NHSK, v_NHSK, mask, dropout_p, is_causal
        )
        return out_NHLK, None
    score_NHLS = (q_NHLK * math.sqrt(1 / q_NHLK.shape[-1])) @ k_NHSK.transpose(-2, -1)
    if mask is not None:
        score_NHLS = score_NHLS + mask
    weight_NHLS = score_NHLS.softmax(-1)
    if dropout_p > 0:
        weight_NHLS = F.dropout(weight_NHLS, dropout_p)
    return weight_NHLS @ v_NHSK, weight_NHLS


def _project(
    query: Tensor, key: Tensor, value: Tensor, weights: tuple[Any, ...], bias: Tensor | None
) -> tuple[Tensor, ...]:
    """q, k and v by the three weights, or by one (3E, E), in as few products as the inputs allow.

    All three together, (*, 3E), of one input; queries and the other two, (*, 2E), of two; or apart.
    """
    if len(weights) == 1 and key is value:
        if query is key:
            return (F.linear(query, *weights, bias),)
        return F.in_projection_packed(query, key, *weights, bias)
    weights = weights if len(weights) == 3 else weights[0].chunk(3)
    biases = (None, None, None) if bias is None else bias.chunk(3)
    inputs = zip((query, key, value), weights, biases, strict=True)
    return tuple(F.linear(*each) for each in inputs)


def _separated(projected: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """q, k and v, from what `_project` returns."""
    if len(projected) == 1:
        return projected[0].chunk(3, -1)
    return (projected[0], *projected[1].chunk(2, -1)) if len(projected) == 2 else projected


def _merged(
    attn_mask: Tensor | None,
    key_padding_mask: Tensor | None,
    num_heads: int,
    extra: int,
    numbers: DType | None,
) -> Tensor | None:
    """Both masks as one that broadcasts to (N, H, L, S + extra): True where attention is allowed.

    Numbers to add if one of the masks has numbers, or if asked for them by their type.
    """
    masks = []
    if attn_mask is not None:
        each = attn_mask.dim() == 3
        masks.append(attn_mask.unflatten(0, (-1, num_heads)) if each else attn_mask)
    if key_padding_mask is not None:
        masks.append(key_padding_mask.unsqueeze(1).unsqueeze(1))
    if extra:
        masks = [F.pad(mask, (0, extra)) for mask in masks]
    for mask in masks:
        if mask.is_floating_point():
            numbers = mask.dtype
    if numbers is not None:
        masks = [
            mask
            if mask.is_floating_point()
            else zeros(mask.shape, dtype=numbers).masked_fill(mask, -math.inf)
            for mask in masks
        ]
    if len(masks) < 2:
        found = masks[0] if masks else None
    else:
        found = masks[0] | masks[1] if numbers is None else masks[0] + masks[1]
    return found.logical_not() if found is not None and numbers is None else found


def _error(kind: type[Exception], message: str) -> Exception:
    """An error that says which module of a model it is about."""
    path = module_path()
    return kind(f"{message}, in {path}" if path else message)


def _check(query: Tensor, key: Tensor, value: Tensor, embed_dim: int, num_heads: int) -> None:
    """AssertionError for inputs that do not fit each other."""
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
    """AssertionError for masks of another type, RuntimeError for an `attn_mask` of another size."""
    for name, mask in (("attn_mask", attn_mask), ("key_padding_mask", key_padding_mask)):
        if mask is not None and mask.dtype.kind not in "bf":
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
