"""Multi-head attention as a module.

Dimensions: N batch, L queries, S keys and values, E model width, H heads, K head width (E = H*K).
"""

from __future__ import annotations

from typing import Any

from ..core import Tensor
from ..creation import empty
from ..dtype import DTypeLike
from . import functional as F
from . import init
from .linear import NonDynamicallyQuantizableLinear
from .module import Module
from .parameter import Parameter


class MultiheadAttention(Module):
    """Apply multi-head attention: out_proj(concat(head_1, ..., head_H)).

    head_h = dropout(softmax(q @ k.T / sqrt(K) + mask)) @ v, where q (N, L, K), k (N, S, K) and
    v (N, S, K) are head h's columns of the projections query @ w_q.T + b_q, key @ w_k.T + b_k and
    value @ w_v.T + b_v.

    - `embed_dim`: E, the width of queries and of the output.
    - `num_heads`: H; E must be divisible by it.
    - `dropout`: the probability of dropping an attention weight while training.
    - `bias`: the four projections have biases.
    - `add_bias_kv`: append a learned key and value (`bias_k` and `bias_v`, (1, 1, E)).
    - `add_zero_attn`: append a key and a value of zeros.
    - `kdim`, `vdim`: the widths of keys and values, E by default.
    - `batch_first`: tensors are (N, L, E) instead of (L, N, E).
    - `device`, `dtype`: of the parameters.

    `in_proj_weight` (3E, E) holds w_q, w_k and w_v one below the other; if `kdim` or `vdim` is not
    E, they are `q_proj_weight` (E, E), `k_proj_weight` (E, kdim) and `v_proj_weight` (E, vdim).
    They start by Xavier's rule, `in_proj_bias` (3E,) and the bias of `out_proj` at 0.

    Raises ValueError for sizes that are not positive, AssertionError if H does not divide E.

    A. Vaswani et al., "Attention Is All You Need", 2017, section 3.2.
    """

    # In the order of the state dict; those that are not used are None, typed as PyTorch's are.
    in_proj_weight: Parameter
    q_proj_weight: Parameter
    k_proj_weight: Parameter
    v_proj_weight: Parameter
    in_proj_bias: Parameter
    bias_k: Parameter | None
    bias_v: Parameter | None

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
        dtype: DTypeLike | None = None,
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
        for name in (
            "in_proj_weight",
            "q_proj_weight",
            "k_proj_weight",
            "v_proj_weight",
            "in_proj_bias",
            "bias_k",
            "bias_v",
        ):
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
        """Return the output, in the shape of `query`, and the attention weights or None.

        - `query` (L, N, E), `key` (S, N, kdim), `value` (S, N, vdim), or N first with
          `batch_first`, or all three without N.
        - `key_padding_mask` (N, S): blocks keys for every query. In both masks True blocks a
          position, and numbers are added to the scores.
        - `need_weights`: return the weights; without them the scores are never stored, and
          everything is faster.
        - `attn_mask` (L, S) or (N*H, L, S): blocks keys for each query.
        - `average_attn_weights`: return the weights averaged over the heads, (N, L, S), instead of
          (N, H, L, S).
        - `is_causal`: promises that `attn_mask` is the causal mask, so that it need not be read.

        The heads give a query that may attend to nothing NaN with `need_weights`, zeros without.

        Raises AssertionError for shapes that do not fit and masks of another type, RuntimeError
        for an `attn_mask` of the wrong shape, and for `is_causal` without one.
        """
        return F.multi_head_attention_forward(
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
