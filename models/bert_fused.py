"""BERT for use alone: the function of `bert.Bert` without gradients, by fewer and fused ops.

`models.bert` says plainly what BERT computes, with three projections of attention, heads that are
split and joined, and a sum before each normalisation. For a single sentence these little steps take
as long as some of the products. Here a layer is seven ops.

Dimensions are named as in `models.bert`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import minitensor as mt
import minitensor.nn.functional as F
from minitensor import Tensor, nn

from .bert_files import ACTIVATIONS

if TYPE_CHECKING:
    from .bert import Bert, Layer, Output, SelfAttention


class FusedBert:
    """Tokens (N, L) -> a vector for each (N, L, E), with the weights of `model` in evaluation.

    The projections of queries, keys and values become parts of one matrix, without a copy of their
    own, so later changes of the model's weights in place count here too.
    """

    def __init__(self, model: Bert) -> None:
        self.embeddings = model.embeddings
        self.layers = [FusedLayer(layer) for layer in model.encoder.layer]

    @mt.no_grad()
    def __call__(self, input_ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Encode tokens (N, L) of the first segment; `mask` (N, L) is True at tokens.

        All are tokens if it is None. Raises IndexError for a token outside the vocabulary and for
        more tokens than positions.
        """
        mask_N11L = None if mask is None else mask.unsqueeze(1).unsqueeze(2)
        x_NLE = self.embeddings(input_ids, None)
        for layer in self.layers:
            x_NLE = layer(x_NLE, mask_N11L)
        return x_NLE


class FusedLayer:
    """A layer: (N, L, E) -> (N, L, E)."""

    def __init__(self, layer: Layer | Any) -> None:
        attention = layer.attention.self
        self.nhead = attention.nhead
        self.weight, self.bias = pack_projections(attention)
        self.attention_output, self.output = layer.attention.output, layer.output
        self.wide, self.activation = layer.intermediate.dense, layer.intermediate.activation

    def __call__(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Attend where `mask` (N, 1, 1, L) is True, then run the feed-forward network."""
        x_NLE = x
        qkv = F.linear(x_NLE, self.weight, self.bias)
        x_NLE = finish(self.attention_output, F.packed_attention(qkv, self.nhead, mask), x_NLE)
        if self.activation is ACTIVATIONS["gelu"]:
            hidden_NLF = F.linear_activation(x_NLE, self.wide.weight, self.wide.bias, "gelu")
        else:
            hidden_NLF = self.activation(self.wide(x_NLE))
        return finish(self.output, hidden_NLF, x_NLE)


def pack_projections(attention: SelfAttention) -> tuple[Tensor, Tensor]:
    """Return one weight (3E, E) and bias (3E), of which the three projections become parts."""
    projections: list[nn.Linear] = [attention.query, attention.key, attention.value]
    with mt.no_grad():
        weight = mt.cat([projection.weight for projection in projections])
        bias = mt.cat([projection.bias for projection in projections])
    for part, projection in enumerate(projections):
        projection.weight.data = weight.chunk(3)[part]
        projection.bias.data = bias.chunk(3)[part]
    return weight, bias


def finish(output: Output, x: Tensor, residual: Tensor) -> Tensor:
    """Return norm(residual + x w^T + b), the end of a sub-layer."""
    norm = output.LayerNorm
    return F.dropout_add_layer_norm(
        output.dense(x), residual, norm.normalized_shape, norm.weight, norm.bias,
        p=0.0, eps=norm.eps, training=False,
    )  # fmt: skip
