"""Recurrent layers, and packed sequences, which are kept padded in a file: (S, N, *).

ONNX has RNN, LSTM and GRU with the gates in another order, and takes the lengths of sequences.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..emit import Emitter, Tensor
from .table import translates

# Packed sequences


@translates("Pack")
def pack(g: Emitter, x: Tensor, lengths: Tensor, batch_first: bool) -> str:
    """The batch, step by step; its results know the lengths."""
    y = g.transpose(x, [1, 0, *range(2, x.ndim)]) if batch_first else g.name(x)
    g.outs[0].lengths = g.cast(lengths, np.int32)
    return y


@translates("Pad")
def pad(
    g: Emitter, data: Tensor, order: Tensor | None, batch_first: bool, value: float, length: Any
) -> list[str]:
    """The padded batch in its first order, and the lengths."""
    if not data.lengths:
        raise g.error("the packed sequence was not made by pack_padded_sequence")
    lengths = g.cast(data.lengths, np.int64, np.dtype(np.int32))
    longest = g.op("ReduceMax", lengths, keepdims=1) if length is None else g.size(length)
    y = g.op("Slice", data, g.constant([0]), longest, g.constant([0]))
    steps = g.op("Range", g.constant(0), g.op("Squeeze", longest), g.constant(1))
    ndim = g.outs[0].ndim
    inside = g.op("Less", g.unsqueeze(steps, 1), lengths)
    inside = g.unsqueeze(inside, *range(2, ndim))
    y = g.op("Where", inside, y, g.scalar(value, data.dtype))
    if batch_first:
        y = g.transpose(y, [1, 0, *range(2, ndim)])
    if order is None:
        return [y, lengths]
    axis = 0 if batch_first else 1
    return [g.op("Gather", y, order, axis=axis), g.op("Gather", lengths, order, axis=0)]


@translates("InvertPermutation")
def invert_permutation(g: Emitter, order: Tensor) -> str:
    """The place of each number in a permutation."""
    return g.op("TopK", order, g.shape(order), largest=0, axis=0, outputs=2)[1]


# Layers

_GATES = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}  # ONNX's, by their places here


def _weight(g: Emitter, w: Tensor, kind: str) -> str:
    """Return a weight with its gates in ONNX's order, behind an axis of directions."""
    order = _GATES[kind]
    if len(order) > 1:
        parts = g.op("Split", w, axis=0, outputs=len(order), num_outputs=len(order))
        return g.unsqueeze(g.op("Concat", *(parts[i] for i in order), axis=0), 0)
    return g.unsqueeze(w, 0)


def _layer(
    g: Emitter, kind: str, x: Tensor, states: tuple[Tensor, ...], weights: tuple[Any, ...],
    sizes: Any, reverse: bool, **attributes: Any,
) -> list[str]:  # fmt: skip
    """Return y and the last states of one direction of a layer."""
    if sizes is not None and not x.lengths:
        raise g.error("the packed sequence was not made by pack_padded_sequence")
    w_ih, w_hh, b_ih, b_hh = weights
    biases = None
    if b_ih is not None:
        both = [_weight(g, b, kind) for b in (b_ih, b_hh)]
        biases = g.op("Concat", *both, axis=1)
    h, *c = (g.unsqueeze(s, 0) for s in states)
    width = states[0].shape[-1]
    y, *ends = g.op(
        kind, x, _weight(g, w_ih, kind), _weight(g, w_hh, kind), biases, x.lengths or None, h, *c,
        outputs=1 + len(states), hidden_size=width,
        direction="reverse" if reverse else "forward", **attributes,
    )  # fmt: skip
    return [g.squeeze(y, 1), *(g.squeeze(end, 0) for end in ends)]


@translates("LstmLayer")
def lstm(g: Emitter, x: Tensor, h: Tensor, c: Tensor, *weights: Any, **how: Any) -> list[str]:
    """y, h, c."""
    return _layer(g, "LSTM", x, (h, c), weights, **how)


@translates("GruLayer")
def gru(g: Emitter, x: Tensor, h: Tensor, *weights: Any, **how: Any) -> list[str]:
    """y, h; the bias of the state's part of n stands inside the product with r."""
    return _layer(g, "GRU", x, (h,), weights, linear_before_reset=1, **how)


@translates("RnnLayer")
def rnn(g: Emitter, x: Tensor, h: Tensor, *weights: Any, relu: bool, **how: Any) -> list[str]:
    """y, h."""
    return _layer(g, "RNN", x, (h,), weights, activations=["Relu" if relu else "Tanh"], **how)
