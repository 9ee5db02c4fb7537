"""BERT for use alone: the function of `bert.Bert` without gradients, by fewer and fused kernels.

`models.bert` says plainly what BERT computes, with three projections of attention, heads that are
split and joined, and a sum before each normalisation. For a single sentence these little steps take
as long as some of the products. Here a layer is seven kernels.

Dimensions are named as in `models.bert`; the tokens of all texts are M = N * L.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

import minitensor as mt
from minitensor import Tensor, nn

from .fused import Attention, FeedForward, Linear, Norm, Watch, kept, run

if TYPE_CHECKING:
    from .bert import Bert

# The names that `kernels.activation` has for some of `bert_files.ACTIVATIONS`
KINDS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}


class FusedBert:
    """Tokens (N, L) -> a vector for each (N, L, E), with the weights of `model` in evaluation.

    Changes of the weights count here too, if `Watch` notices them.
    """

    def __init__(self, model: Bert) -> None:
        self.model: Any = model
        self.watch = Watch(model.encoder.parameters())
        self.read()

    def read(self) -> None:
        """Read the layers as the model has them now."""
        config = self.model.config
        kind = KINDS.get(config.hidden_act, config.hidden_act)
        self.layers: list[tuple[Attention, FeedForward]] = []
        self.norms: list[Norm] = []
        for layer in self.model.encoder.layer:
            own, output = layer.attention.self, layer.attention.output
            projection = joined(own.query, own.key, own.value)
            attention = Attention(projection, joined(output.dense), own.nhead)
            wide, narrow = joined(layer.intermediate.dense), joined(layer.output.dense)
            self.layers.append((attention, FeedForward(wide, kind, narrow)))
            self.norms += Norm(output.LayerNorm), Norm(layer.output.LayerNorm)

    @mt.no_grad()
    def __call__(self, input_ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Encode tokens (N, L) of the first segment; `mask` (N, L) is True at tokens.

        All are tokens if it is None. Raises IndexError for a token outside the vocabulary and for
        more tokens than positions.
        """
        if self.watch.changed():
            self.read()
        x_NLE = self.model.embeddings(input_ids, None).numpy()
        if not x_NLE.size:
            return mt.from_numpy(x_NLE)
        N, L, E = x_NLE.shape
        bias_N11L = None
        if mask is not None:
            bias_N11L = np.where(mask.numpy()[:, None, None], 0, -np.inf).astype(x_NLE.dtype)
        sublayers: list[Any] = []
        for attention, feed_forward in self.layers:
            sublayers.append(partial(attention, texts=N, bias=bias_N11L))
            sublayers.append(partial(feed_forward, kept))
        y_ME = run(kept, x_NLE.reshape(N * L, E), sublayers, self.norms, norm_first=False)
        return mt.from_numpy(y_ME.reshape(N, L, E))


def joined(*modules: nn.Linear | Any) -> Linear:
    """Return linear modules of one input as one, without a copy of a single one."""
    arrays = [(module.weight._array, module.bias._array) for module in modules]
    if len(arrays) == 1:
        return Linear(*arrays[0])
    weights, biases = zip(*arrays, strict=True)
    return Linear(np.concatenate(weights), np.concatenate(biases))
