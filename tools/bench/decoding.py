"""Topic `decode`: a Transformer writes, token by token, with a cache of keys and values."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

import minitensor as mt
from minitensor import Tensor
from minitensor.models.decoding import beam_search
from minitensor.models.transformer import Transformer

from ..compare import torch_twin
from .measure import HERE, Figure, Sides, from_times, load, take_turns
from .plan import Plan, Step

TARGET = 1.5


def measure_decode(plan: Plan, against: Sequence[str]) -> Iterator[Figure]:
    """Measure generation by the second step's model, greedy and with a beam.

    No token ends a sentence. PyTorch's side is greedy.
    """
    step = plan.steps[min(1, len(plan.steps) - 1)]
    mt.manual_seed(0)
    model = endless_model(step)
    source = step.data()[0]
    twin = torch_twin(model).eval() if "torch" in against else None
    for batch in plan.decode_batches:
        chosen = source[:batch]
        for beam in (1, plan.beam):
            sides: Sides = {HERE: partial(write, model, mt.from_numpy(chosen), step.length, beam)}
            if twin is not None:
                sides["torch"] = partial(generate, twin, model.config, chosen, step.length)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # PyTorch's nested tensors
                times = take_turns(sides, plan.rounds, plan.seconds, plan.pause)
            name = f"{step.name} N={len(chosen)} L={step.length}"
            figure = (
                from_times("decode", name, times, target=TARGET)
                if beam == 1
                else from_times("decode", f"{name} beam {beam}, PyTorch greedy", times)
            )
            figure.unit = "tokens/s"
            figure.values = {
                side: len(chosen) * step.length / seconds for side, seconds in figure.values.items()
            }
            yield figure


def endless_model(step: Step) -> Transformer:
    """Return the model of a step, with which no sentence ends."""
    model = Transformer(step.config()).eval()
    with mt.no_grad():
        model.output.bias[model.config.eos_id] = -math.inf
    return model


def write(model: Transformer, src: Tensor, max_length: int, beam: int) -> Any:
    """Generate target tokens for `src` (N, S), greedily with a beam of 1."""
    if beam == 1:
        return model.generate(src, max_length)
    prompts = [[model.config.bos_id]] * src.shape[0]
    return beam_search(model, prompts, model.start(src), max_length, beam)


def generate(twin: Any, config: Any, source: np.ndarray, max_length: int) -> Any:
    """Generate with the twin in PyTorch what `Transformer.generate` does: tokens (N, max_length).

    `torch.nn.Transformer` decodes without a cache. This is its decoder with one: keys and values
    are computed once for each token and for the memory, and written to their place in an array.
    """
    torch = load("torch")
    with torch.inference_mode():
        src = torch.from_numpy(source)
        padding = src == config.pad_id
        memory = twin.transformer.encoder(
            twin.embed(src, twin.src_embedding), src_key_padding_mask=padding
        )
        mask = ~padding[:, None, None] if padding.any() else None
        decoder = twin.transformer.decoder
        layers = [CachedLayer(layer, memory, mask, max_length) for layer in decoder.layers]
        token, written = torch.full((len(src), 1), config.bos_id), []
        for position in range(max_length):
            x = twin.tgt_embedding(token) * math.sqrt(config.d_model) + twin.positions[position]
            for layer in layers:
                x = layer(x, position, config.norm_first)
            hidden = decoder.norm(x)
            token = twin.output(hidden[:, -1]).argmax(-1, keepdim=True)
            written.append(token)
        return torch.cat(written, dim=1)


class CachedLayer:
    """A layer of PyTorch's decoder for one token of each row: (N, 1, E) -> (N, 1, E)."""

    def __init__(self, layer: Any, memory: Any, mask: Any, max_length: int) -> None:
        self.layer, self.mask, self.F = layer, mask, load("torch").nn.functional
        N, _, E = memory.shape
        self.heads = layer.self_attn.num_heads
        self.cache = memory.new_empty(2, N, self.heads, max_length, E // self.heads)
        other = layer.multihead_attn
        both = self.F.linear(memory, other.in_proj_weight[E:], other.in_proj_bias[E:])
        self.memory = [self.split(part).contiguous() for part in both.chunk(2, -1)]

    def __call__(self, x: Any, position: int, norm_first: bool) -> Any:
        """Read the token at a position."""
        layer = self.layer
        sublayers: list[tuple[Any, Callable[[Any], Any]]] = [
            (layer.norm1, lambda x: self.attend(x, position)),
            (layer.norm2, self.attend_memory),
            (layer.norm3, lambda x: layer.linear2(layer.activation(layer.linear1(x)))),
        ]
        for norm, inner in sublayers:
            x = x + inner(norm(x)) if norm_first else norm(x + inner(x))
        return x

    def attend(self, x: Any, position: int) -> Any:
        """Attend to the tokens up to this one."""
        own = self.layer.self_attn
        qkv = self.F.linear(x, own.in_proj_weight, own.in_proj_bias).chunk(3, -1)
        q, *new = map(self.split, qkv)
        for cache, part in zip(self.cache, new, strict=True):
            cache[:, :, position : position + 1] = part
        k, v = self.cache[:, :, :, : position + 1]
        y = self.F.scaled_dot_product_attention(q, k, v)
        return own.out_proj(y.transpose(1, 2).flatten(2))

    def attend_memory(self, x: Any) -> Any:
        """Attend to the memory."""
        other, E = self.layer.multihead_attn, x.shape[2]
        q = self.split(self.F.linear(x, other.in_proj_weight[:E], other.in_proj_bias[:E]))
        y = self.F.scaled_dot_product_attention(q, *self.memory, attn_mask=self.mask)
        return other.out_proj(y.transpose(1, 2).flatten(2))

    def split(self, x: Any) -> Any:
        """Split the heads: (N, L, E) -> (N, H, L, K)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
