"""BERT for use alone: the function of `bert.Bert` without gradients, by fewer and fused kernels.

`models.bert` says plainly what BERT computes, with three projections of attention, heads that are
split and joined, and a sum before each normalisation. For a single sentence these little steps take
as long as some of the products. Here a layer is seven kernels.

Dimensions are named as in `models.bert`; rows are M = N * L.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

import minitensor as mt
from minitensor import Tensor, nn
from minitensor.kernels.attention import attention

from .fused import Linear, Norm, Watch, kept

if TYPE_CHECKING:
    from .bert import Bert, Layer

# The names that `kernels.activation` has for some of `bert_files.ACTIVATIONS`
KINDS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}


class FusedBert:
    """Tokens (N, L) -> a vector for each (N, L, E), with the weights of `model` in evaluation.

    Changes of the weights count here too, if `Watch` notices them.
    """

    def __init__(self, model: Bert) -> None:
        self.model: Any = model
        self.watch = Watch(model.encoder.parameters())
        self.layers = self.make_layers()

    def make_layers(self) -> list[FusedLayer]:
        """Return the layers as the model has them now."""
        name = self.model.config.hidden_act
        kind = KINDS.get(name, name)
        return [FusedLayer(layer, kind) for layer in self.model.encoder.layer]

    @mt.no_grad()
    def __call__(self, input_ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Encode tokens (N, L) of the first segment; `mask` (N, L) is True at tokens.

        All are tokens if it is None. Raises IndexError for a token outside the vocabulary and for
        more tokens than positions.
        """
        if self.watch.changed():
            self.layers = self.make_layers()
        x_NLE = self.model.embeddings(input_ids, None).numpy()
        bias_N11L = None
        if mask is not None:
            bias_N11L = np.where(mask.numpy()[:, None, None], 0, -np.inf).astype(x_NLE.dtype)
        for layer in self.layers if x_NLE.size else ():
            x_NLE = layer(x_NLE, bias_N11L)
        return mt.from_numpy(x_NLE)


class FusedLayer:
    """A layer with an activation of `kernels.activation`: (N, L, E) -> (N, L, E)."""

    def __init__(self, layer: Layer | Any, activation: str) -> None:
        own = layer.attention.self
        self.nhead = own.nhead
        self.projection = joined(own.query, own.key, own.value)
        self.attention_output = joined(layer.attention.output.dense)
        self.attention_norm = Norm(layer.attention.output.LayerNorm)
        self.wide, self.activation = joined(layer.intermediate.dense), activation
        self.narrow, self.norm = joined(layer.output.dense), Norm(layer.output.LayerNorm)

    def __call__(self, x: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
        """Attend with `bias` (N, 1, 1, L) on the scores, then run the feed-forward network."""
        N, L, E = x.shape
        x_ME = x.reshape(N * L, E)
        qkv = self.projection(kept, x_ME).reshape(N, L, 3, self.nhead, -1)
        heads_NLHK = np.empty((N, L, self.nhead, qkv.shape[4]), x.dtype)
        attention(
            heads_NLHK.transpose(0, 2, 1, 3), tuple(qkv.transpose(2, 0, 3, 1, 4)), bias,
            False, 1 / math.sqrt(qkv.shape[4]), 0.0, 0,
        )  # fmt: skip
        attended_ME = self.attention_output(kept, heads_NLHK.reshape(N * L, E))
        x_ME, _ = self.attention_norm(kept, attended_ME, x_ME)
        hidden_MF = self.wide.activated(kept, x_ME, self.activation)
        y_ME, _ = self.norm(kept, self.narrow(kept, hidden_MF), x_ME)
        return y_ME.reshape(N, L, E)


def joined(*modules: nn.Linear | Any) -> Linear:
    """Return linear modules of one input as one, without a copy of a single one."""
    arrays = [(module.weight._array, module.bias._array) for module in modules]
    if len(arrays) == 1:
        return Linear(*arrays[0])
    weights, biases = zip(*arrays, strict=True)
    return Linear(np.concatenate(weights), np.concatenate(biases))
