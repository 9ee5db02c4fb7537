"""The Transformer and its layers. A. Vaswani et al., "Attention Is All You Need", 2017.

Dimensions: N batch, S source length, L target length, E model width (`d_model`), H heads. Sequences
are (S, N, E), or (N, S, E) with `batch_first`, or (S, E) without a batch.

Masks: `mask` (L, S) or (N*H, L, S) says which positions a position may not attend to,
`key_padding_mask` (N, S) which positions nobody may; True blocks, numbers are added to the scores.
`is_causal` promises that the mask blocks the future and nothing else, which is computed faster;
None finds out.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..core import Tensor
from ..creation import full
from . import functional as F
from . import init
from .attention import MultiheadAttention
from .container import ModuleList
from .dropout import Dropout
from .linear import Linear
from .module import Module
from .norm import LayerNorm

Activation = str | Callable[[Tensor], Tensor]


class Transformer(Module):
    """An encoder, and a decoder that attends to what the encoder returns.

    Every parameter with more than one dimension starts by Xavier's rule.
    """

    def __init__(
        self,
        d_model: int = 512,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = F.relu,
        custom_encoder: Any = None,
        custom_decoder: Any = None,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        made = {"device": device, "dtype": dtype}
        layer = (
            d_model,
            nhead,
            dim_feedforward,
            dropout,
            activation,
            layer_norm_eps,
            batch_first,
            norm_first,
            bias,
        )
        if custom_encoder is not None:
            self.encoder = custom_encoder
        else:
            encoder_layer = TransformerEncoderLayer(*layer, **made)
            norm = LayerNorm(d_model, layer_norm_eps, bias=bias, **made)
            self.encoder = TransformerEncoder(encoder_layer, num_encoder_layers, norm)
        if custom_decoder is not None:
            self.decoder = custom_decoder
        else:
            decoder_layer = TransformerDecoderLayer(*layer, **made)
            norm = LayerNorm(d_model, layer_norm_eps, bias=bias, **made)
            self.decoder = TransformerDecoder(decoder_layer, num_decoder_layers, norm)
        self._reset_parameters()
        self.d_model = d_model
        self.nhead = nhead
        self.batch_first = batch_first

    def _reset_parameters(self) -> None:
        for parameter in self.parameters():
            if parameter.dim() > 1:
                init.xavier_uniform_(parameter)

    def forward(
        self,
        src: Tensor,
        tgt: Tensor,
        src_mask: Tensor | None = None,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """src (S, N, E) and tgt (L, N, E) -> (L, N, E). RuntimeError for N or E that differ."""
        batch = 0 if self.batch_first else 1
        if src.dim() == 3 and src.shape[batch] != tgt.shape[batch]:
            raise RuntimeError(
                "the batch number of src and tgt must be equal, got "
                f"{src.shape[batch]} and {tgt.shape[batch]}"
            )
        if src.shape[-1] != self.d_model or tgt.shape[-1] != self.d_model:
            raise RuntimeError(
                f"the feature number of src and tgt must be equal to d_model ({self.d_model}), got "
                f"{src.shape[-1]} and {tgt.shape[-1]}"
            )
        memory = self.encoder(
            src,
            mask=src_mask,
            src_key_padding_mask=src_key_padding_mask,
            is_causal=src_is_causal,
        )
        return self.decoder(
            tgt,
            memory,
            tgt_mask=tgt_mask,
            memory_mask=memory_mask,
            tgt_key_padding_mask=tgt_key_padding_mask,
            memory_key_padding_mask=memory_key_padding_mask,
            tgt_is_causal=tgt_is_causal,
            memory_is_causal=memory_is_causal,
        )

    @staticmethod
    def generate_square_subsequent_mask(sz: int, device: Any = None, dtype: Any = None) -> Tensor:
        """The mask (sz, sz) that blocks the future: -inf above the diagonal, 0 elsewhere."""
        return full((sz, sz), -math.inf, device=device, dtype=dtype).triu(1)


class TransformerEncoder(Module):
    """`num_layers` copies of a layer, one after the other, and a final norm if there is one.

    The copies start equal. `enable_nested_tensor` and `mask_check` are accepted and not needed.
    """

    def __init__(
        self,
        encoder_layer: Module,
        num_layers: int,
        norm: Module | None = None,
        enable_nested_tensor: bool = True,
        mask_check: bool = True,
    ) -> None:
        super().__init__()
        self.layers = _copies(encoder_layer, num_layers)
        self.num_layers = num_layers
        self.norm = norm

    def forward(
        self,
        src: Tensor,
        mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool | None = None,
    ) -> Tensor:
        """(S, N, E) -> (S, N, E)."""
        is_causal = _is_causal(mask, is_causal)
        for layer in self.layers:
            src = layer(
                src,
                src_mask=mask,
                is_causal=is_causal,
                src_key_padding_mask=src_key_padding_mask,
            )
        return src if self.norm is None else self.norm(src)


class TransformerDecoder(Module):
    """`num_layers` copies of a layer, one after the other, and a final norm if there is one.

    The copies start equal.
    """

    def __init__(self, decoder_layer: Module, num_layers: int, norm: Module | None = None) -> None:
        super().__init__()
        self.layers = _copies(decoder_layer, num_layers)
        self.num_layers = num_layers
        self.norm = norm

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """tgt (L, N, E) and memory (S, N, E) -> (L, N, E)."""
        tgt_is_causal = _is_causal(tgt_mask, tgt_is_causal)
        for layer in self.layers:
            tgt = layer(
                tgt,
                memory,
                tgt_mask=tgt_mask,
                memory_mask=memory_mask,
                tgt_key_padding_mask=tgt_key_padding_mask,
                memory_key_padding_mask=memory_key_padding_mask,
                tgt_is_causal=tgt_is_causal,
                memory_is_causal=memory_is_causal,
            )
        return tgt if self.norm is None else self.norm(tgt)


class _Layer(Module):
    """What the layers of encoder and decoder share: a block, and what goes around it.

    Steps that somebody replaced, or watches with hooks, run one by one; plain ones are fused.
    """

    linear1: Module
    linear2: Module
    dropout: Module
    activation: Callable[[Tensor], Tensor]
    norm_first: bool

    def _sublayer(
        self,
        x: Tensor,
        norm: Module,
        block: Callable[..., Tensor],
        inner: Callable[..., Tensor],
        dropout: Module,
        *masks: Any,
    ) -> Tensor:
        """norm(x + block(x)) or, if `norm_first`, x + block(norm(x)); block is dropout(inner)."""
        before = norm(x) if self.norm_first else x
        if block.__module__ != __name__ or not _is_plain(
            dropout, Dropout
        ):  # a subclass has its own
            x = x + block(before, *masks)
            return x if self.norm_first else norm(x)
        out = inner(before, *masks)
        p, training = dropout.p, dropout.training
        if not self.norm_first and _is_plain(norm, LayerNorm) and norm.training == training:
            return norm(out, x, p)
        x = F.dropout_add(out, x, p, training)
        return x if self.norm_first else norm(x)

    def _attend(
        self,
        attention: Module,
        x: Tensor,
        memory: Tensor,
        attn_mask: Tensor | None,
        key_padding_mask: Tensor | None,
        is_causal: bool,
    ) -> Tensor:
        out, _ = attention(
            x,
            memory,
            memory,
            attn_mask=attn_mask,
            key_padding_mask=key_padding_mask,
            need_weights=False,
            is_causal=is_causal,
        )
        return out

    def _feed_forward(self, x: Tensor) -> Tensor:
        """linear2(dropout(activation(linear1(x))))."""
        linear, dropout = self.linear1, self.dropout
        name = _FUSED.get(self.activation)
        plain = _is_plain(linear, Linear) and _is_plain(dropout, Dropout)
        if name is not None and plain and linear.training == dropout.training:
            return self.linear2(linear(x, name, dropout.p))
        return self.linear2(dropout(self.activation(linear(x))))


class TransformerEncoderLayer(_Layer):
    """Self-attention and a feed-forward network, each with dropout, a residual sum and a norm.

    x = norm(x + f(x)) for both or, if `norm_first`, x = x + f(norm(x)).
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = F.relu,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        made = {"device": device, "dtype": dtype}
        self.self_attn = MultiheadAttention(
            d_model, nhead, dropout, bias=bias, batch_first=batch_first, **made
        )
        self.linear1 = Linear(d_model, dim_feedforward, bias=bias, **made)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias=bias, **made)
        self.norm_first = norm_first
        self.norm1 = LayerNorm(d_model, layer_norm_eps, bias=bias, **made)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, bias=bias, **made)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)
        self.activation = _function(activation)

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """(S, N, E) -> (S, N, E)."""
        masks = (src_mask, src_key_padding_mask, is_causal)
        x = self._sublayer(
            src, self.norm1, self._sa_block, self._self_attention, self.dropout1, *masks
        )
        return self._sublayer(x, self.norm2, self._ff_block, self._feed_forward, self.dropout2)

    def _sa_block(
        self,
        x: Tensor,
        attn_mask: Tensor | None,
        key_padding_mask: Tensor | None,
        is_causal: bool = False,
    ) -> Tensor:
        return self.dropout1(self._self_attention(x, attn_mask, key_padding_mask, is_causal))

    def _self_attention(self, x: Tensor, *masks: Any) -> Tensor:
        return self._attend(self.self_attn, x, x, *masks)

    def _ff_block(self, x: Tensor) -> Tensor:
        return self.dropout2(self._feed_forward(x))


class TransformerDecoderLayer(_Layer):
    """Self-attention, attention to the memory and a feed-forward network.

    Each with dropout, a residual sum and a norm: x = norm(x + f(x)) or, if `norm_first`,
    x = x + f(norm(x)).
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = F.relu,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        made = {"device": device, "dtype": dtype}
        self.self_attn = MultiheadAttention(
            d_model, nhead, dropout, bias=bias, batch_first=batch_first, **made
        )
        self.multihead_attn = MultiheadAttention(
            d_model, nhead, dropout, bias=bias, batch_first=batch_first, **made
        )
        self.linear1 = Linear(d_model, dim_feedforward, bias=bias, **made)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias=bias, **made)
        self.norm_first = norm_first
        self.norm1 = LayerNorm(d_model, layer_norm_eps, bias=bias, **made)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, bias=bias, **made)
        self.norm3 = LayerNorm(d_model, layer_norm_eps, bias=bias, **made)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)
        self.dropout3 = Dropout(dropout)
        self.activation = _function(activation)

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """tgt (L, N, E) and memory (S, N, E) -> (L, N, E)."""
        own = (tgt_mask, tgt_key_padding_mask, tgt_is_causal)
        other = (memory_mask, memory_key_padding_mask, memory_is_causal)
        x = self._sublayer(
            tgt, self.norm1, self._sa_block, self._self_attention, self.dropout1, *own
        )
        x = self._sublayer(
            x, self.norm2, self._mha_block, self._cross_attention, self.dropout2, memory, *other
        )
        return self._sublayer(x, self.norm3, self._ff_block, self._feed_forward, self.dropout3)

    def _sa_block(
        self,
        x: Tensor,
        attn_mask: Tensor | None,
        key_padding_mask: Tensor | None,
        is_causal: bool = False,
    ) -> Tensor:
        return self.dropout1(self._self_attention(x, attn_mask, key_padding_mask, is_causal))

    def _self_attention(self, x: Tensor, *masks: Any) -> Tensor:
        return self._attend(self.self_attn, x, x, *masks)

    def _mha_block(
        self,
        x: Tensor,
        mem: Tensor,
        attn_mask: Tensor | None,
        key_padding_mask: Tensor | None,
        is_causal: bool = False,
    ) -> Tensor:
        return self.dropout2(self._cross_attention(x, mem, attn_mask, key_padding_mask, is_causal))

    def _cross_attention(self, x: Tensor, mem: Tensor, *masks: Any) -> Tensor:
        return self._attend(self.multihead_attn, x, mem, *masks)

    def _ff_block(self, x: Tensor) -> Tensor:
        return self.dropout3(self._feed_forward(x))


_FUSED: dict[Any, str] = {F.relu: "relu", F.gelu: "gelu", F.silu: "silu"}


def _is_plain(module: Module, kind: type[Module]) -> bool:
    """Whether `module` is of this very class and nobody hooked into it."""
    return type(module) is kind and not module._registered_hooks


def _copies(module: Module, count: int) -> ModuleList:
    return ModuleList(copy.deepcopy(module) for _ in range(count))


def _function(activation: Activation) -> Callable[[Tensor], Tensor]:
    """The function that an activation is given by; RuntimeError for an unknown name."""
    if not isinstance(activation, str):
        return activation
    if activation not in ("relu", "gelu"):
        raise RuntimeError(f"activation should be relu/gelu, not {activation}")
    return getattr(F, activation)


def _is_causal(mask: Tensor | None, is_causal: bool | None) -> bool:
    """Whether `mask` blocks the future and nothing else: as told or, if None, as it looks."""
    if is_causal is not None:
        return is_causal
    if mask is None or mask.dim() != 2 or mask.shape[0] != mask.shape[1] or mask.requires_grad:
        return False
    future = np.triu(np.ones(mask.shape, np.bool_), 1)
    if mask.dtype.kind == "f":
        return np.array_equal(mask._array, np.where(future, -np.inf, 0))
    return np.array_equal(mask._array, future)
