"""For each rule of `compile` a function that it applies to, and arguments of that."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import minitensor as mt
from minitensor import Tensor
from minitensor.nn import functional as F
from minitensor.ops.samples import Rand

Sample = Callable[[Rand], tuple[Any, ...]]


def linear(activation: Callable[[Tensor], Tensor], rand: Rand) -> tuple[Any, ...]:
    def function(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return F.dropout(activation(F.linear(x, w, b)), 0.3)

    return function, rand(2, 5, 3), rand(4, 3), rand(4)


def mixed(mask: Callable[..., Tensor], given: Sample = lambda rand: ()) -> Sample:
    """Attention with a mask on its scores."""

    def attention(q: Tensor, k: Tensor, v: Tensor, *given: Tensor) -> Tensor:
        scores = mask(q @ k.transpose(-2, -1) / math.sqrt(q.size(-1)), *given)
        return F.dropout(scores.softmax(-1), 0.3) @ v

    return lambda rand: (attention, *[rand(2, 3, 4, 5) for _ in "qkv"], *given(rand))


def keys(rand: Rand) -> tuple[Any, ...]:
    """A mask of keys, never of all."""
    return (mt.tensor([[True, True, False, True], [True, False, False, False]]).view(2, 1, 1, 4),)


def rows(rand: Rand) -> tuple[Any, ...]:
    """A mask that hides some rows as a whole."""
    return (rand.bools(2, 1, 4, 4, p=0.3),)


def causal(rand: Rand) -> tuple[Any, ...]:
    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        added = mt.full((4, 4), -math.inf).triu(1)
        y = F.scaled_dot_product_attention(q, k, v, mt.ones(4, 4).bool().tril())
        return y + F.scaled_dot_product_attention(q, k, v, added)

    return attention, *[rand(2, 3, 4, 5) for _ in "qkv"]


def joined(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, None, 0.3).transpose(1, 2).flatten(2)


def projected(rand: Rand) -> tuple[Any, ...]:
    def split(x: Tensor) -> Tensor:
        return joined(*[y.view(2, 4, 2, 3).transpose(1, 2) for y in x.split(6, -1)])

    return split, rand(2, 4, 18)


def crossed(rand: Rand) -> tuple[Any, ...]:
    def split(x: Tensor, kv: Tensor) -> Tensor:
        parts = x, *kv.chunk(2, -1)
        return joined(*[y.unflatten(2, (2, 3)).permute(0, 2, 1, 3) for y in parts])

    return split, rand(2, 4, 6), rand(2, 5, 12)


def by_heads(rand: Rand) -> tuple[Any, ...]:
    def split(x: Tensor) -> Tensor:
        return joined(*x.unflatten(-1, (6, 3)).transpose(1, 2).split(2, dim=1))

    return split, rand(2, 4, 18)


def five(rand: Rand, unbinds: bool) -> tuple[Any, ...]:
    def split(x: Tensor) -> Tensor:
        qkv = x.reshape(2, 4, 3, 2, 3).permute(2, 0, 3, 1, 4)
        return joined(*(qkv.unbind(0) if unbinds else (qkv[0], qkv[1], qkv[2])))

    return split, rand(2, 4, 18)


def one_weight(rand: Rand) -> tuple[Any, ...]:
    def function(x: Tensor, y: Tensor, w: Tensor, b: Tensor) -> Tensor:
        kv = F.linear(y, w[4:], b[4:])
        return F.packed_attention(F.linear(x, w[:4], b[:4]), 2, kv=kv)

    return function, rand(2, 5, 4), rand(2, 3, 4), rand(12, 4), rand(12)


def repeated(rand: Rand, late: bool) -> tuple[Any, ...]:
    """Each head of keys and values for two of queries."""

    def repeat(x: Tensor) -> Tensor:
        a, b, c, d = x.shape
        if late:
            return x[:, :, :, None, :].expand(a, b, c, 2, d).reshape(a, b, 4, d).transpose(1, 2)
        return x.unsqueeze(2).expand(a, b, 2, c, d).reshape(a, 4, c, d)

    few = (2, 5, 2, 3) if late else (2, 2, 5, 3)
    return (
        lambda q, k, v: F.scaled_dot_product_attention(q, repeat(k), repeat(v)),
        rand(2, 4, 5, 3), rand(*few), rand(*few),
    )  # fmt: skip


def neighbours(rand: Rand) -> tuple[Any, ...]:
    def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        a, b = x.reshape(*x.shape[:-1], -1, 2).unbind(-1)
        return mt.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)

    return turn, rand(2, 5, 3, 8), rand.constant(5, 1, 4), rand.constant(5, 1, 4)


def turned_back(rand: Rand) -> tuple[Any, ...]:
    def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        a, b = x.chunk(2, 3)
        return mt.cat((a * cos + b * sin, a * (-sin) + b * cos), 3)

    return turn, rand(2, 3, 5, 8), rand.constant(5, 4), rand.constant(5, 4)


def embedded(position: Callable[[Tensor], Tensor]) -> Sample:
    def function(t: Tensor, w: Tensor, pos: Tensor) -> Tensor:
        return F.dropout(F.embedding(t, w) * 2.0 + position(pos), 0.3)

    return lambda rand: (function, rand.integers(0, 5, 2, 3), rand(5, 4), rand(3, 4))


def logits(rand: Rand) -> tuple[Any, ...]:
    def loss(x: Tensor, w: Tensor, t: Tensor) -> Tensor:
        return F.cross_entropy(F.linear(x, w).view(-1, 2048), t.view(-1))

    return loss, rand(2, 256, 3), rand(2048, 3), rand.integers(0, 2048, 2, 256)


SAMPLES: dict[str, Sample] = {
    "linear + relu": partial(linear, F.relu),
    "linear + gelu": partial(linear, F.gelu),
    "linear + gelu_tanh": partial(linear, partial(F.gelu, approximate="tanh")),
    "linear + silu": partial(linear, F.silu),
    "RMS norm": lambda rand: (
        lambda x, w: x * (x.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt() * w,
        rand(2, 5, 3), rand(3),
    ),
    "RMS norm without weight": lambda rand: (
        lambda x: x / ((x * x).mean(-1, True) + 1e-6).sqrt(), rand(2, 5, 3)
    ),
    "add + layer norm": lambda rand: (
        lambda x, r, w, b: F.layer_norm(r + F.dropout(x, 0.3), (3,), w, b),
        rand(2, 5, 3), rand(2, 5, 3), rand(3), rand(3),
    ),
    "dropout + add": lambda rand: (lambda x, r: r + F.dropout(x, 0.3), rand(2, 5), rand(2, 5)),
    "rotary positions": neighbours,
    "rotary positions, turned back": turned_back,
    "attention": mixed(lambda s: s),
    "attention, scores filled where later": mixed(
        lambda s: s.masked_fill(mt.ones(4, 4).tril() == 0, -math.inf)
    ),
    "attention, scores kept where not later": mixed(
        lambda s: s.where(mt.ones(4, 4).bool().tril(), -1e9)
    ),
    "attention, causal mask added": mixed(
        lambda s: s + mt.full((4, 4), -math.inf, dtype=s.dtype).triu(1)
    ),
    "attention, mask is causal": causal,
    "attention, scores filled with -inf": mixed(
        lambda s, m: s.masked_fill(m == 0, -math.inf), keys
    ),
    "attention, scores kept or -inf": mixed(lambda s, m: s.where(m, -math.inf), keys),
    "attention, scores filled with -1e9": mixed(lambda s, m: s.masked_fill(~m, -1e9), rows),
    "attention, scores kept or -1e9": mixed(lambda s, m: s.where(m, -1e9), rows),
    "attention, mask added": mixed(lambda s, m: s + m, lambda rand: (rand.constant(2, 1, 1, 4),)),
    "attention, heads of keys and values repeated": partial(repeated, late=False),
    "attention, heads of keys and values repeated, then transposed": partial(repeated, late=True),
    "attention, packed projection": projected,
    "attention, packed projection split by heads": by_heads,
    "attention, packed projection unbound": partial(five, unbinds=True),
    "attention, packed projection indexed": partial(five, unbinds=False),
    "attention, packed keys and values": crossed,
    "attention, one weight of projections": one_weight,
    "embedding + positions of an embedding": embedded(lambda p: F.embedding(mt.arange(3), p)),
    "embedding + positions cut from a table": embedded(lambda p: p[:3]),
    "embedding + positions cut from a batch of one": embedded(lambda p: p.view(1, 3, 4)[:, :3]),
    "embedding + positions": embedded(lambda p: p),
    "embedding + positions as a batch of one": embedded(lambda p: p.view(1, 3, 4)),
    "linear + cross entropy": logits,
    "heads joined, copied": lambda rand: (
        lambda x: x.exp().transpose(1, 2).contiguous().view(2, 4, 6), rand(2, 3, 4, 2)
    ),
}  # fmt: skip
