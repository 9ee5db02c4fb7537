"""The decoder of `models.transformer` for writing alone: one token of each row at a time.

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
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import minitensor as mt
from minitensor import Tensor, nn
from minitensor.core.observe import state as thread
from minitensor.kernels import norm as kernel
from minitensor.kernels.decoding import attend
from minitensor.kernels.linear import linear_activation
from minitensor.kernels.matmul import matmul
from minitensor.kernels.program import Program

if TYPE_CHECKING:
    from .transformer import DecoderLayer, Transformer

LEAST = 32  # places of a cache
Keep = Callable[..., np.ndarray]  # `Program.keep`


def can_fuse(model: Transformer) -> bool:
    """Return True if the decoder computes what is fused here, and nobody watches its modules."""
    layers: Any = getattr(model.decoder, "layers", ())
    parameters = (model.tgt_embedding.weight, *model.decoder.parameters())
    arrays = [parameter.detach().numpy() for parameter in parameters]
    return (
        not model.training
        and not observed()
        and model.tgt_positions is not None
        and model.config.norm in ("layer", "rms")
        and model.config.d_model > 1
        and len(layers) > 0
        and not any(layer.self_attn.keep_weights for layer in layers)
        and not any(module._registered_hooks for module in model.decoder.modules())
        and all(a.dtype.char in "fd" and a.dtype == arrays[0].dtype for a in arrays)
        and all(a.flags.c_contiguous for a in arrays)
    )


def observed() -> bool:
    """Return True if something else than `inference_mode` sees the ops that run."""
    return len(thread.observers) > mt.is_inference_mode_enabled()


class FusedDecoder:
    """The decoder's layers for rows that attend to a memory (N, S, E), with what they have read.

    `padding` (N, S) is True where the memory is padding. The arrays of the parameters are used as
    they are, so later changes in place count here too.
    """

    def __init__(self, model: Transformer, memory: Tensor, padding: Tensor | None) -> None:
        self.model: Any = model
        self.layers: list[FusedLayer] = []
        self.norm_first = model.config.norm_first
        self.table = model.tgt_embedding.weight.detach().numpy()
        memory_NSE = np.ascontiguousarray(memory.numpy())
        self.rows, source_length, width = memory_NSE.shape
        self.scale = self.table.dtype.type(math.sqrt(width))
        self.positions = self.table[:0]  # of the first positions, as many as were needed
        layers: Any = model.decoder.layers
        for layer in layers:
            self.layers.append(FusedLayer(layer, memory_NSE))
        norms = [norm for layer in layers for norm in (layer.norm1, layer.norm2, layer.norm3)]
        self.norms = [Norm(norm) for norm in (*norms, model.decoder.norm)]
        self.memory_length = np.array([source_length])
        self.memory_bias = None  # (N, S)
        if padding is not None:
            self.memory_bias = np.where(padding.numpy(), -np.inf, 0).astype(memory_NSE.dtype)
        self.sources = np.arange(self.rows)  # of each row, its row of the memory
        self.slots = np.empty((self.rows, 0), np.int64)  # of each row at each position
        self.length = np.zeros(1, np.int64)  # how much is read
        self.input = np.empty((self.rows, width), memory_NSE.dtype)
        self.program, self.output = Program(), self.input

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
        """Read a token of each row (N,): the decoder's output (N, E), valid until the next call.

        IndexError for a token outside the vocabulary, or a position never learned.
        """
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
                self.output = self.compute(self.program.keep)
        self.length += 1
        return self.output

    def embed(self, tokens: np.ndarray) -> None:
        """Set the input to the embedded tokens, as `Transformer.embed` does."""
        if tokens.min(initial=0) < 0:
            raise IndexError(f"token {tokens.min()} is outside of the vocabulary")
        np.multiply(self.table.take(tokens, 0), self.scale, out=self.input)
        place = self.position
        if place == len(self.positions):
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
        """Run all layers on the input (N, E); a norm is one pass with the sum before it."""
        x_NE = self.input
        norms = iter(self.norms)
        y_NE = next(norms)(keep, x_NE)[0] if self.norm_first else x_NE
        for layer in self.layers:
            for sublayer in (layer.attend, layer.attend_memory, layer.feed_forward):
                y_NE, total_NE = next(norms)(keep, sublayer(keep, y_NE, self), x_NE)
                x_NE = total_NE if self.norm_first else y_NE
        return y_NE if self.norm_first else next(norms)(keep, x_NE)[0]


class Norm:
    """A layer norm or RMS norm."""

    def __init__(self, norm: Any) -> None:
        self.centre = isinstance(norm, nn.LayerNorm)
        self.weight = norm.weight.detach().numpy()
        self.bias = norm.bias.detach().numpy() if self.centre else np.zeros_like(self.weight)
        self.eps = float(np.finfo(self.weight.dtype).eps if norm.eps is None else norm.eps)

    def __call__(
        self, keep: Keep, x: np.ndarray, residual: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the norm of residual + x, and the sum."""
        y_NE, total_NE, stats = kernel.norm(
            self.centre, x, 1, self.weight, self.bias, self.eps, residual
        )
        keep(y_NE, total_NE, stats)
        return y_NE, total_NE


class FusedLayer:
    """A decoder layer, and its keys and values of the memory and of what was read."""

    def __init__(self, layer: DecoderLayer | Any, memory: np.ndarray) -> None:
        def arrays(*parameters: nn.Parameter) -> list[np.ndarray]:
            return [parameter.detach().numpy() for parameter in parameters]

        own, other, width = layer.self_attn, layer.multihead_attn, memory.shape[2]
        self.nhead = own.nhead
        self.projection = arrays(own.in_proj_weight, own.in_proj_bias)
        self.output = arrays(own.out_proj.weight, own.out_proj.bias)
        packed = arrays(other.in_proj_weight, other.in_proj_bias)
        self.query = [part[:width] for part in packed]
        self.memory_output = arrays(other.out_proj.weight, other.out_proj.bias)
        self.wide = arrays(layer.linear1.weight, layer.linear1.bias)
        self.narrow = arrays(layer.linear2.weight, layer.linear2.bias)
        self.activation = layer.activation
        weight, bias = (part[width:] for part in packed)
        kv = matmul(memory, weight.T, bias=bias)
        kv = kv.reshape(*kv.shape[:2], 2, self.nhead, -1).transpose(0, 2, 3, 1, 4)
        self.memory_kv = np.ascontiguousarray(kv)  # (N, 2, H, S, K)
        self.kv = self.memory_kv[:0]

    def reserve(self, rows: int, places: int) -> None:
        """Make room for so many rows and places."""
        slots, _, heads, before, width = self.kv.shape
        if rows > slots or places > before:
            old = self.kv
            self.kv = np.empty((max(rows, slots), 2, heads, places, width), old.dtype)
            if slots:
                self.kv[:slots, :, :, :before] = old

    def attend(self, keep: Keep, x: np.ndarray, decoder: FusedDecoder) -> np.ndarray:
        """Attend to what was read, and to the token itself."""
        width, (weight, bias) = x.shape[1], self.projection
        qkv = keep(matmul(x, weight.T, bias=bias))
        q_NE, kv = qkv[:, :width], qkv[:, width:]
        y_NE = attend(q_NE, self.kv, decoder.slots, decoder.length, kv)
        return self.project(keep, keep(y_NE), self.output)

    def attend_memory(self, keep: Keep, x: np.ndarray, decoder: FusedDecoder) -> np.ndarray:
        """Attend to the memory."""
        y_NE = attend(
            self.project(keep, x, self.query), self.memory_kv, decoder.sources,
            decoder.memory_length, None, decoder.memory_bias,
        )  # fmt: skip
        return self.project(keep, keep(y_NE), self.memory_output)

    def feed_forward(self, keep: Keep, x: np.ndarray, decoder: FusedDecoder) -> np.ndarray:
        """Run the feed-forward network."""
        weight, bias = self.wide
        hidden_NF = keep(*linear_activation(x, weight, bias, self.activation, 0.0, 0))
        return self.project(keep, hidden_NF, self.narrow)

    @staticmethod
    def project(keep: Keep, x: np.ndarray, parameters: Sequence[np.ndarray]) -> np.ndarray:
        """Return x w^T + b."""
        weight, bias = parameters
        return keep(matmul(x, weight.T, bias=bias))
