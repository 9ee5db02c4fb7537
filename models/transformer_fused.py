"""The Transformer for writing alone: sources at once, then one token of each row at a time.

`models.transformer` says plainly what a decoder computes. For a token that is some forty products
and norms of a few thousand numbers, and Python takes longer to call them than they take. Here they
are called once, on arrays, and recorded as a `Program`: the next tokens are one call of compiled
code. It is recorded again when the number of rows changes or the cache is full.

Keys and values stay where they were written. Rows that leave the batch, change places or begin
alike change their `slots` alone (see `kernels.decoding`), and all beginnings of a beam read the
keys and values of one source.

Dimensions are named as in `models.transformer`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from minitensor import nn
from minitensor.kernels import linear as kernel
from minitensor.kernels.decoding import attend
from minitensor.kernels.program import Program

from .fused import (
    Attention,
    FeedForward,
    Keep,
    Linear,
    Norm,
    Watch,
    kept,
    modules_of,
    observed,
    parameters_of,
    run,
)

LEAST = 32  # places of a cache


def can_fuse(model: Any, *parts: Any) -> bool:
    """Return True if parts of a model compute what is fused here, and nobody watches them."""
    modules = modules_of(*parts)
    arrays = [p._array for p in parameters_of(modules)]
    return (
        not model.training
        and not observed()
        and model.tgt_positions is not None  # nor rotary ones
        and model.config.norm in ("layer", "rms")
        and not any(module._registered_hooks for module in modules)
        and not any(getattr(module, "keep_weights", False) for module in modules)
        and all(a.dtype.char in "fd" and a.dtype == arrays[0].dtype for a in arrays)
        and all(a.flags.c_contiguous for a in arrays)
    )


def can_fuse_decoder(model: Any) -> bool:
    """Return True if `FusedDecoder` computes what the decoder and the output do."""
    return (
        model.config.d_model > 1
        and len(model.decoder.layers) > 0
        and type(model.output) is nn.Linear
        and can_fuse(model, *decoder_parts(model))
    )


def decoder_parts(model: Any) -> list[Any]:
    """Return the modules whose parameters `FusedDecoder` reads."""
    return [model.tgt_embedding, model.tgt_positions, model.decoder, model.output]


def linear(module: Any, **settings: Any) -> Linear:
    """Return a linear module as kernels."""
    return Linear(module.weight._array, module.bias._array, **settings)


def encode(model: Any, x: np.ndarray, padding: np.ndarray | None) -> np.ndarray:
    """Run embedded sources (N, S, E) through the encoder; `padding` (N, S) is True at padding."""
    N, S, E = x.shape
    if not x.size:
        return x
    bias_N11S = None
    if padding is not None:
        bias_N11S = np.where(padding, -np.inf, 0).astype(x.dtype)[:, None, None]
    sublayers: list[Any] = []
    norms: list[Norm] = []
    for layer in model.encoder.layers:
        own = layer.self_attn
        projection = Linear(own.in_proj_weight._array, own.in_proj_bias._array, repeated=False)
        output = linear(own.out_proj, repeated=False)
        wide, narrow = (linear(part, repeated=False) for part in (layer.linear1, layer.linear2))
        attention = Attention(projection, output, own.nhead)
        sublayers.append(partial(attention, texts=N, bias=bias_N11S))
        sublayers.append(partial(FeedForward(wide, layer.activation, narrow), kept))
        norms += Norm(layer.norm1), Norm(layer.norm2)
    norms.append(Norm(model.encoder.norm))
    y_ME = run(kept, x.reshape(N * S, E), sublayers, norms, model.config.norm_first)
    return y_ME.reshape(N, S, E)


class FusedDecoder:
    """The decoder's layers for rows that attend to a memory (N, S, E), with what they have read.

    `padding` (N, S) is True where the memory is padding. Later changes of the parameters count here
    too, if `fused.Watch` notices them.
    """

    def __init__(self, model: Any, memory: np.ndarray, padding: np.ndarray | None) -> None:
        self.model = model
        self.watch = Watch(parameters_of(modules_of(*decoder_parts(model))))
        self.norm_first = model.config.norm_first
        self.rows, source_length, width = memory.shape
        self.layers = [FusedLayer(layer, memory) for layer in model.decoder.layers]
        self.read()
        self.memory_length = np.array([source_length])
        self.memory_bias = None  # (N, S)
        if padding is not None:
            self.memory_bias = np.where(padding, -np.inf, 0).astype(memory.dtype)
        self.sources = np.arange(self.rows)  # of each row, its row of the memory
        self.slots = np.empty((self.rows, 0), np.int64)  # of each row at each position
        self.length = np.zeros(1, np.int64)  # how much is read
        self.input = np.empty((self.rows, width), memory.dtype)
        self.hidden = self.input

    def read(self) -> None:
        """Read the parameters as the model has them now."""
        layers, norm = self.model.decoder.layers, self.model.decoder.norm
        for fused, layer in zip(self.layers, layers, strict=True):
            fused.read(layer)
        norms = [norm for layer in layers for norm in (layer.norm1, layer.norm2, layer.norm3)]
        self.norms = [Norm(each) for each in (*norms, norm)]
        self.table = self.model.tgt_embedding.weight._array
        self.positions = self.table[:0]  # of the first positions, as many as were needed
        self.output = linear(self.model.output)
        self.program = Program()

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order; a row may be repeated."""
        slots, sources = self.slots[rows], self.sources[rows]
        if len(rows) == self.rows:  # where the program looks for them
            self.slots[...], self.sources[...] = slots, sources
            return
        self.program, self.rows = Program(), len(rows)
        self.slots, self.sources = slots, sources
        self.input = np.empty((self.rows, self.input.shape[1]), self.input.dtype)
        self.reserve()

    def advance(self, tokens: np.ndarray) -> np.ndarray:
        """Read tokens of each row (N, L): logits of the token after them (N, V).

        IndexError for a token outside the vocabulary, or a position never learned.
        """
        if self.watch.changed():
            self.read()
        for token_N in tokens.T:
            self.advance_once(token_N)
        return self.output(kept, self.hidden)

    def advance_once(self, tokens: np.ndarray) -> None:
        """Read a token of each row (N,), and set the decoder's output (N, E)."""
        self.embed(tokens)
        if self.position == self.slots.shape[1]:
            more = max(LEAST, 2 * self.slots.shape[1]) - self.slots.shape[1]
            self.slots = np.pad(self.slots, ((0, 0), (0, more)))
            self.program = Program()
            self.reserve()
        self.slots[:, self.position] = np.arange(self.rows)
        if self.program.ready:
            self.program.run()
        else:
            self.program = Program()
            with self.program.recorded():
                self.hidden = self.compute(self.program.keep)
        self.length += 1

    def embed(self, tokens: np.ndarray) -> None:
        """Set the input to the embedded tokens, as `Transformer.embed` does."""
        if tokens.min(initial=0) < 0:
            raise IndexError(f"token {tokens.min()} is outside of the vocabulary")
        scale = self.table.dtype.type(math.sqrt(self.input.shape[1]))
        np.multiply(self.table.take(tokens, 0), scale, out=self.input)
        place = self.position
        if place >= len(self.positions):
            more, most = max(LEAST, 2 * place), self.model.config.position_limit
            if most is not None:
                more = max(min(more, most), place + 1)
            self.positions = self.model.tgt_positions(more).detach().numpy()
        self.input += self.positions[place]

    def reserve(self) -> None:
        """Make room in the caches for as many rows and places as there are slots."""
        for layer in self.layers:
            layer.reserve(*self.slots.shape)

    @property
    def position(self) -> int:
        """The position of the next token."""
        return int(self.length[0])

    def keys_and_values(self) -> list[np.ndarray]:
        """Return those of each layer for what each row has read, (N, L, 2E)."""
        length = self.position
        slots = self.slots[:, :length]
        return [
            layer.kv[slots, :, :, np.arange(length)].reshape(*slots.shape, -1)
            for layer in self.layers
        ]

    def compute(self, keep: Keep) -> np.ndarray:
        """Run all layers on the input (N, E)."""
        sublayers: list[Any] = []
        for layer in self.layers:
            sublayers.append(partial(layer.attend, keep, self))
            sublayers.append(partial(layer.attend_memory, keep, self))
            sublayers.append(partial(layer.feed_forward, keep))
        return run(keep, self.input, sublayers, self.norms, self.norm_first)


class FusedLayer:
    """A decoder layer, and its keys and values of the memory (N, S, E) and of what was read."""

    def __init__(self, layer: Any, memory: np.ndarray) -> None:
        other, (rows, length, width) = layer.multihead_attn, memory.shape
        weight, bias = (p._array[width:] for p in (other.in_proj_weight, other.in_proj_bias))
        kv = kernel.linear(memory.reshape(rows * length, width), weight, bias)
        kv = kv.reshape(rows, length, 2, other.nhead, -1).transpose(0, 2, 3, 1, 4)
        self.memory_kv = np.ascontiguousarray(kv)  # (N, 2, H, S, K)
        self.kv = self.memory_kv[:0]

    def read(self, layer: Any) -> None:
        """Read the parameters as the layer has them now."""
        own, other = layer.self_attn, layer.multihead_attn
        weight, bias = other.in_proj_weight._array, other.in_proj_bias._array
        self.projection = Linear(own.in_proj_weight._array, own.in_proj_bias._array)
        self.project = linear(own.out_proj)
        self.query = Linear(weight[: weight.shape[1]], bias[: weight.shape[1]])
        self.project_memory = linear(other.out_proj)
        self.feed_forward = FeedForward(
            linear(layer.linear1), layer.activation, linear(layer.linear2)
        )

    def reserve(self, rows: int, places: int) -> None:
        """Make room for so many rows and places."""
        slots, _, heads, before, width = self.kv.shape
        if rows > slots or places > before:
            old = self.kv
            self.kv = np.empty((max(rows, slots), 2, heads, places, width), old.dtype)
            if slots:
                self.kv[:slots, :, :, :before] = old

    def attend(self, keep: Keep, decoder: FusedDecoder, x: np.ndarray) -> np.ndarray:
        """Attend to what was read, and to the token itself."""
        qkv, width = self.projection(keep, x), x.shape[1]
        q_NE, kv = qkv[:, :width], qkv[:, width:]
        y_NE = attend(q_NE, self.kv, decoder.slots, decoder.length, kv)
        return self.project(keep, keep(y_NE))

    def attend_memory(self, keep: Keep, decoder: FusedDecoder, x: np.ndarray) -> np.ndarray:
        """Attend to the memory."""
        y_NE = attend(
            self.query(keep, x), self.memory_kv, decoder.sources, decoder.memory_length, None,
            decoder.memory_bias,
        )  # fmt: skip
        return self.project_memory(keep, keep(y_NE))
