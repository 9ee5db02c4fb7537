"""The table of rules, in the order in which they are tried."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..creation import arange, full, ones
from ..nn import functional as F
from ..onnx.record import Ref
from .rules import Match, Rule
from .table_llama import LLAMA

Where = Callable[[Match], object]


def _one_shape(match: Match) -> bool:
    """Return True if what is added has the shape and type of what it is added to."""
    return match.shape("x") == match.shape("r") and match.dtype("x") == match.dtype("r")


def _activates(match: Match) -> bool:
    """Return True unless it is half of a gated unit, silu(x w) * (x v): a chain has all of that."""
    users = [c for c in match.graph.calls if match["result"] in c.args]
    if "Silu" in {c.op.__name__ for c in match.calls} and {"Mul"} == {getattr(c.op, "__name__", "") for c in users}:
        return False
    return match.set(p=match["p"] or 0.0, key=match["key"] or 0)


# Normalization


def _rms(match: Match) -> bool:
    """Return True for the root of the mean over the last dimension, with a weight for each of it."""
    width, eps = match.shape("x")[-1:], match.number("eps")
    if eps is None or (match["w"] is not None and match.shape("w") != width):
        return False
    if match["w"] is not None and match.dtype("w") != match.dtype("x"):
        return False
    return match.set(w=match["w"], eps=eps)


_SQUARE = "Add(Mean(Pow(x, 2.0), (-1,), True), eps)"
_RMS = (
    f"(Mul(x, Rsqrt({_SQUARE}) | Reciprocal(Sqrt({_SQUARE})) | Div(1.0, Sqrt({_SQUARE})))"
    f" | Div(x, Sqrt({_SQUARE})))"
)


# Attention: the forms of scores (..., L, S), of a mask on them, and of their softmax

_KT = "Transpose(k, -2, -1)"
_SCORES = (
    f"(Mul(Matmul(q, {_KT}), c) | Div(Matmul(q, {_KT}), d) | Matmul(Mul(q, c), {_KT})"
    f" | Matmul(q, Transpose(Mul(k, c), -2, -1)) | Matmul(q, {_KT}))"
)
_FILLED = f"MaskedFill({_SCORES}, m, f)"
_CHOSEN = f"Where(m, {_SCORES}, f)"
_ADDED = f"Add({_SCORES}, m)"
_NEVER = -1e9  # no score is as low: what is masked by it has the weight 0


def _attention(scores: str) -> str:
    """Return the expression of attention; rows masked as a whole may be set to 0."""
    alone = f"Eq(Amax(Detach({scores}) | {scores}, (-1,), True), low)"
    filled = f"MaskedFill(Softmax(MaskedFill({scores}, {alone}, z1), dim=-1), {alone}, z2)"
    weights = f"(Softmax({scores}, dim=-1) | {filled})"
    return f"Matmul(Dropout({weights}, p, key) | {weights}, v)"


def _attends(match: Match) -> bool:
    """Return True for queries, keys and values that fit; name `scale`, `p` and `key`."""
    q, k, v = (match.shape(name) for name in "qkv")
    c, d = match.number("c", 1.0), match.number("d", 1.0)
    fits = len(q) >= 2 and q[:-2] == k[:-2] == v[:-2] and q[-1:] == k[-1:] and k[-2] == v[-2]
    if not fits or not q[-1] or c is None or not d or match["low"] not in (None, -math.inf):
        return False
    if match.number("z1", 0.0) != 0 or match.number("z2", 0.0) != 0:
        return False
    scale = match.names.get("scale", c / d)
    return match.set(scale=scale, p=match["p"] or 0.0, key=match["key"])


def _masks(match: Match) -> bool:
    """Return True for a mask of no more dimensions than the scores, which needs no gradient."""
    q, k, m = match.shape("q"), match.shape("k"), match.shape("m")
    if not _attends(match) or len(m) < 2 or match["m"].number in match.graph.requires:
        return False
    full = (*q[:-1], k[-2])
    return len(m) <= len(full) and all(
        a in (1, b) for a, b in zip(m[::-1], full[::-1], strict=False)
    )


def _low(match: Match) -> float | None:
    """Return the number that hides a score, None if it is not low enough to."""
    f = match.number("f")
    return f if f is not None and f <= _NEVER else None


def _causal(hidden: Callable[[np.ndarray], np.ndarray]) -> Where:
    """Return a condition: the mask is the same in each call, and hides all that is later."""

    def check(match: Match) -> bool:
        m = match.constant("m") if _masks(match) else None
        if m is None or m.size != math.prod(m.shape[-2:]):
            return False
        if match["f"] is not None and _low(match) is None:
            return False
        size = (match.shape("q")[-2], match.shape("k")[-2])
        return np.array_equal(hidden(m).reshape(m.shape[-2:]), ~np.tri(*size, dtype=np.bool_))

    return check


def _hidden(bias: np.ndarray) -> np.ndarray:
    """Return where numbers that are added to scores hide them; nowhere if others are not 0."""
    hides = bias <= _NEVER
    return hides if not bias[~hides].any() else np.zeros_like(hides)


def _infinite(match: Match) -> bool:
    return _low(match) == -math.inf and _masks(match)


def _finite(match: Match) -> bool:
    return _low(match) is not None and match["low"] is None and _masks(match)


def _bias(match: Match) -> bool:
    return _masks(match) and match.dtype("m") == match.dtype("q")


def _sdpa(mask: str, causal: bool = False, q: str = "q") -> str:
    return f"ScaledDotProductAttention({q}, k, v, {mask}, {causal}, scale, p, key)"


# Heads of a packed projection


def _heads(packed: str, name: str) -> str:
    return f"({name} := Transpose(View({packed}, shape=_), -3, -2))"


def _packed(qkv: tuple[str, str, str]) -> str:
    q, k, v = (_heads(x, name) for x, name in zip(qkv, "qkv", strict=True))
    attention = f"ScaledDotProductAttention({q}, {k}, {v}, m, causal, scale, p, key)"
    return f"View(Transpose({attention}, -3, -2), shape=_)"


_SPLIT = "SplitWithSizes({}, sizes=_, dim=-1)[{}]"
_BY_HEADS = "SplitWithSizes(Transpose(View(x, shape=_), -3, -2), sizes=_, dim=-3)[{}]"
_FIVE = "Permute(View(x, shape=_), dims=(2, 0, 3, 1, 4))"


def _is_packed(match: Match) -> bool:
    """Return True if q, k and v are the heads (N, H, L, K) of thirds of x, or k and v of kv."""
    q, k, v, x = (match.shape(name) for name in "qkvx")
    if len(x) != 3 or len(q) != 4 or q[0] != x[0] or q[2] != x[1] or k != v or q[:2] != k[:2]:
        return False
    width = q[1] * q[3]
    kv = match.shape("kv")
    if x[2] != (width if kv else 3 * width) or match.shape("result") != (*x[:2], width):
        return False
    if kv and kv != (x[0], k[2], 2 * width):
        return False
    return match.set(heads=q[1], kv=match["kv"])


def _cut(match: Match) -> bool:
    """Return True if the weights of two products are the first and the other rows of `w`."""
    width = match.shape("w")[-1]
    cuts = (slice(None, width),), (slice(width, None),)
    fits = match.shape("w") == (3 * width, width) and (match["first"], match["rest"]) == cuts
    return fits and match.set(b=match["b"])


def _repeats(match: Match, dim: int) -> bool:
    """Return True if k and v repeat each head of `few` and `fews`, `dim` - 1, side by side."""
    q, k, v = match.shape("q"), match.shape("few"), match.shape("fews")
    if len(q) != 4 or len(k) != 4 or k[:3] != v[:3] or q[1] % k[dim - 1]:
        return False
    if match["at"] not in (None, (*[slice(None)] * dim, None)):
        return False
    times = (*k[:dim], q[1] // k[dim - 1])
    return match["dim"] in (None, dim, dim - 5) and match.shape("five")[: dim + 1] == times


# Embedding and loss


def _positions(match: Match, lead: int = 0) -> bool:
    """Return True if each sequence gets the same rows of a table, with `lead` dimensions before."""
    tokens, positions, w = match.shape("t"), match.shape("pos"), match.shape("w")
    length, table, c = tokens[-1:], positions[lead:], match.number("c", 1.0)
    if c is None or len(table) != 2 or table[1:] != w[1:] or positions[:lead] != (1,) * lead:
        return False
    if match.dtype("pos") != match.dtype("w") or match.dtype("w").char not in "fd":
        return False
    if match["places"] is not None:  # of an embedding: 0, 1, ... in their order
        places = match.constant("places")
        if places is None or places.shape[-1:] != (places.size,):
            return False
        if not np.array_equal(places.reshape(-1), np.arange(*length)):
            return False
    elif match["cut"] is not None:
        starts = [slice(None, *length), slice(0, *length)]
        if match["cut"][:-1] != (slice(None),) * lead or match["cut"][-1] not in starts:
            return False
    elif table[:1] != length:
        return False
    if match.shape("result") != (*tokens, w[1]) or table[0] < length[0]:
        return False
    return match.set(table=table, scale=c, p=match["p"] or 0.0, key=match["key"])


_MANY = 1 << 20  # logits; fewer are not worth computing them in parts


def _scores(match: Match) -> bool:
    """Return True for scores (N, C) of class indices; name their shape."""
    x, w, t = match.shape("x"), match.shape("w"), match.shape("t")
    if len(t) != 1 or math.prod(x[:-1]) != t[0]:
        return False
    many = t[0] * w[0] >= _MANY
    return many and match.shape("z") == (t[0], w[0]) and match.set(rows=(t[0], w[1]))


def _linear(activation: Callable[..., Any]) -> Callable[[Any], tuple[Any, ...]]:
    return lambda rand: (
        lambda x, w, b: F.dropout(activation(F.linear(x, w, b)), 0.3),
        rand(2, 5, 3), rand(4, 3), rand(4),
    )  # fmt: skip


def _mixed(
    mask: Callable[..., Any], given: Callable[[Any], tuple[Any, ...]] = lambda rand: ()
) -> Callable[[Any], tuple[Any, ...]]:
    """Return a sample: attention with a mask on its scores."""

    def attention(q: Any, k: Any, v: Any, *given: Any) -> Any:
        scores = mask(q @ k.transpose(-2, -1) / math.sqrt(q.size(-1)), *given)
        return F.dropout(scores.softmax(-1), 0.3) @ v

    return lambda rand: (
        attention, rand(2, 3, 4, 5), rand(2, 3, 4, 5), rand(2, 3, 4, 5), *given(rand)
    )  # fmt: skip


def _masked(mask: Callable[[], Any]) -> Callable[[Any], tuple[Any, ...]]:
    return lambda rand: (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, mask()),
        rand(2, 3, 4, 5), rand(2, 3, 4, 5), rand(2, 3, 4, 5),
    )  # fmt: skip


def _keys(rand: Any) -> tuple[Any, ...]:
    """Return a mask of keys, never of all."""
    return (rand.integers(0, 4, 2, 1, 1, 4) > rand.integers(0, 1, 2, 1, 1, 4),)


def _projected(rand: Any, cross: bool = False) -> tuple[Any, ...]:
    """Return a sample: attention of the heads of a packed projection."""

    def split(x: Any, kv: Any = None) -> Any:
        parts = x.split(6, -1) if kv is None else (x, *kv.chunk(2, -1))
        q, k, v = (each.view(*each.shape[:2], 2, 3).transpose(1, 2) for each in parts)
        y = F.scaled_dot_product_attention(q, k, v, None, 0.3)
        return y.transpose(1, 2).contiguous().view(*y.shape[:1], -1, 6)

    return (split, rand(2, 4, 6), rand(2, 5, 12)) if cross else (split, rand(2, 4, 18))


def _by_heads(rand: Any) -> tuple[Any, ...]:
    """Return a sample: the same, split after the heads."""

    def split(x: Any) -> Any:
        q, k, v = x.unflatten(-1, (6, 3)).transpose(1, 2).split(2, dim=1)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    return split, rand(2, 4, 18)


def _pictures(rand: Any, unbinds: bool = False) -> tuple[Any, ...]:
    """Return a sample: the same, as vision transformers are written."""

    def five(x: Any) -> Any:
        qkv = x.reshape(2, 4, 3, 2, 3).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0) if unbinds else (qkv[0], qkv[1], qkv[2])
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(2, 4, 6)

    return five, rand(2, 4, 18)


def _shared(rand: Any, late: bool = False) -> tuple[Any, ...]:
    """Return a sample: each head of keys and values for two of queries."""

    def repeated(x: Any) -> Any:
        a, b, c, d = x.shape
        if late:
            return x[:, :, :, None, :].expand(a, b, c, 2, d).reshape(a, b, 4, d).transpose(1, 2)
        return x[:, :, None, :, :].expand(a, b, 2, c, d).reshape(a, 4, c, d)

    few = (2, 5, 2, 3) if late else (2, 2, 5, 3)
    return (
        lambda q, k, v: F.scaled_dot_product_attention(q, repeated(k), repeated(v)),
        rand(2, 4, 5, 3), rand(*few), rand(*few),
    )  # fmt: skip


def _embedded(position: Callable[..., Any], p: float = 0.3) -> Callable[[Any], tuple[Any, ...]]:
    return lambda rand: (
        lambda t, w, pos: F.dropout(F.embedding(t, w) * math.sqrt(4) + position(pos), p),
        rand.integers(0, 5, 2, 3), rand(5, 4), rand(3, 4),
    )  # fmt: skip


_EMBEDDING = "Embedding(t, w, padding_idx=pad, scale_grad_by_freq=False)"
_REPEATED = "View({five} := Expand(GetItem({few}, key=at) | Unsqueeze({few}, dim), size=_), shape=_)"

RULES = [
    *[
        Rule(
            f"linear + {kind}",
            f"Dropout({op}(Linear(x, w, b){also}), p, key) | {op}(Linear(x, w, b){also})",
            f"LinearActivation(x, w, b, kind='{kind}', p=p, key=key)",
            _activates,
            _linear(activation),
        )
        for op, kind, also, activation in (
            ("Relu", "relu", "", F.relu),
            ("Gelu", "gelu", ", 'none'", F.gelu),
            ("Gelu", "gelu_tanh", ", 'tanh'", partial(F.gelu, approximate="tanh")),
            ("Silu", "silu", "", F.silu),
        )
    ],
    Rule(
        "RMS norm",
        f"Mul({_RMS}, w)",
        "RmsNorm(x, w, dims=1, eps=eps)",
        lambda match: isinstance(match["w"], Ref) and _rms(match),
        lambda rand: (
            lambda x, w: x * (x.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt() * w,
            rand(2, 5, 3), rand(3),
        ),
    ),
    Rule(
        "RMS norm without weight",
        _RMS,
        "RmsNorm(x, w, dims=1, eps=eps)",
        _rms,
        lambda rand: (lambda x: x / ((x * x).mean(-1, True) + 1e-6).sqrt(), rand(2, 5, 3)),
    ),
    Rule(
        "add + layer norm",
        "LayerNorm(Add(r, Dropout(x, p, key)) | Add(r, x), w, b, dims=dims, eps=eps)",
        "DropoutAddLayerNorm(x, r, w, b, dims=dims, eps=eps, p=p, key=key)",
        lambda match: _one_shape(match) and match.set(p=match["p"] or 0.0, key=match["key"] or 0),
        lambda rand: (
            lambda x, r, w, b: F.layer_norm(r + F.dropout(x, 0.3), (3,), w, b),
            rand(2, 5, 3), rand(2, 5, 3), rand(3), rand(3),
        ),
    ),
    Rule(
        "dropout + add",
        "Add(r, Dropout(x, p, key))",
        "DropoutAdd(x, r, p=p, key=key)",
        _one_shape,
        lambda rand: (lambda x, r: r + F.dropout(x, 0.3), rand(2, 5), rand(2, 5)),
    ),
    Rule(
        "attention",
        _attention(_SCORES),
        _sdpa("None"),
        _attends,
        _mixed(lambda s: s),
    ),
    Rule(
        "attention, scores filled where later",
        _attention(_FILLED),
        _sdpa("None", causal=True),
        _causal(lambda m: m),
        _mixed(lambda s: s.masked_fill(ones(4, 4).tril() == 0, -math.inf)),
    ),
    Rule(
        "attention, scores kept where not later",
        _attention(_CHOSEN),
        _sdpa("None", causal=True),
        _causal(np.logical_not),
        _mixed(lambda s: s.where(ones(4, 4).bool().tril(), -1e9)),
    ),
    Rule(
        "attention, causal mask added",
        _attention(_ADDED),
        _sdpa("None", causal=True),
        _causal(_hidden),
        _mixed(lambda s: s + full((4, 4), -math.inf, dtype=s.dtype).triu(1)),
    ),
    Rule(
        "attention, scores filled with -inf",
        _attention(_FILLED),
        _sdpa("LogicalNot(m)"),
        _infinite,
        _mixed(lambda s, m: s.masked_fill(m == 0, -math.inf), _keys),
    ),
    Rule(
        "attention, scores kept or -inf",
        _attention(_CHOSEN),
        _sdpa("m"),
        _infinite,
        _mixed(lambda s, m: s.where(m, -math.inf), _keys),
    ),
    Rule(
        "attention, scores filled with -1e9",
        _attention(_FILLED),
        _sdpa(
            "LogicalOr(LogicalNot(m), All(m, (-1,), True))",
            q="MaskedFill(q, All(m, (-1,), True), 0.0)",
        ),
        _finite,
        _mixed(lambda s, m: s.masked_fill(~m, -1e9), lambda rand: (rand.bools(2, 1, 4, 4, p=0.3),)),
    ),
    Rule(
        "attention, scores kept or -1e9",
        _attention(_CHOSEN),
        _sdpa(
            "LogicalOr(m, All(LogicalNot(m), (-1,), True))",
            q="MaskedFill(q, All(LogicalNot(m), (-1,), True), 0.0)",
        ),
        _finite,
        _mixed(lambda s, m: s.where(m, -1e9), lambda rand: (rand.bools(2, 1, 4, 4, p=0.3),)),
    ),
    Rule(
        "attention, mask added",
        _attention(_ADDED),
        _sdpa("m"),
        _bias,
        _mixed(lambda s, m: s + m, lambda rand: (rand.constant(2, 1, 1, 4),)),
    ),
    *[
        Rule(
            "attention, mask is causal",
            "ScaledDotProductAttention(q, k, v, m, False, scale, p, key)",
            "ScaledDotProductAttention(q, k, v, None, True, scale, p, key)",
            _causal(hidden),
            _masked(mask),
        )
        for hidden, mask in (
            (np.logical_not, lambda: ones(4, 4).bool().tril()),
            (_hidden, lambda: full((4, 4), -math.inf).triu(1)),
        )
    ],
    *[
        Rule(
            f"attention, heads of keys and values repeated{kind}",
            f"ScaledDotProductAttention(q, {before}{_REPEATED.format(five='five', few='few')}{after},"
            f" {before}{_REPEATED.format(five='fives', few='fews')}{after}, m, causal, scale, p, key)",
            f"ScaledDotProductAttention(q, {before}few{after}, {before}fews{after},"
            " m, causal, scale, p, key)",
            partial(_repeats, dim=dim),
            partial(_shared, late=kind != ""),
        )
        for kind, before, after, dim in (
            ("", "", "", 2),
            (", then transposed", "Transpose(", ", -3, -2)", 3),
        )
    ],
    *[
        Rule(
            f"attention, {kind}",
            _packed(parts),
            "PackedAttention(x, kv, m, heads, causal, scale, p, key)",
            _is_packed,
            sample,
        )
        for kind, parts, sample in (
            ("packed projection", tuple([_SPLIT.format("x", i) for i in range(3)]), _projected),
            (
                "keys and values packed",
                ("x", _SPLIT.format("kv", 0), _SPLIT.format("kv", 1)),
                lambda rand: _projected(rand, cross=True),
            ),
        )
    ],
    *[
        Rule(
            f"attention, packed projection {kind}",
            "View(Transpose(ScaledDotProductAttention("
            + ", ".join([f"({name} := {part.format(i)})" for i, name in enumerate("qkv")])
            + ", m, causal, scale, p, key), -3, -2), shape=_)",
            "PackedAttention(x, kv, m, heads, causal, scale, p, key)",
            _is_packed,
            sample,
        )
        for kind, part, sample in (
            ("split by heads", _BY_HEADS, _by_heads),
            ("unbound", f"Unbind({_FIVE}, 0)[{{}}]", lambda rand: _pictures(rand, unbinds=True)),
            ("indexed", f"GetItem({_FIVE}, key=({{}},))", _pictures),
        )
    ],
    Rule(
        "attention, one weight of projections",
        "PackedAttention(Linear(x, GetItem(w, key=first), GetItem(b, key=first) | None),"
        " Linear(y, GetItem(w, key=rest), GetItem(b, key=rest) | None),"
        " m, heads, causal, scale, p, key)",
        "PackedAttention(InProjectionPacked(x, y, w, b)[0], InProjectionPacked(x, y, w, b)[1],"
        " m, heads, causal, scale, p, key)",
        _cut,
        lambda rand: (
            lambda x, y, w, b: F.packed_attention(
                F.linear(x, w[:4], b[:4]), 2, kv=F.linear(y, w[4:], b[4:])
            ),
            rand(2, 5, 4), rand(2, 3, 4), rand(12, 4), rand(12),
        ),
    ),
    *[
        Rule(
            f"embedding + positions{kind}",
            f"Dropout({total.format(added)}, p, key) | {total.format(added)}",
            f"EmbeddingPositions(t, w, {table}, scale=scale, p=p, key=key, padding_idx=pad)",
            partial(_positions, lead=int("View" in table)),
            _embedded(sample),
        )
        for total in [f"Add(Mul({_EMBEDDING}, c) | {_EMBEDDING}, {{}})"]
        for kind, added, table, sample in (
            (
                " of an embedding",
                "Embedding(places, pos, padding_idx=None, scale_grad_by_freq=False)",
                "pos",
                lambda pos: F.embedding(arange(3), pos),
            ),
            (" cut from a table", "GetItem(pos, key=cut)", "pos", lambda pos: pos[:3]),
            (
                " cut from a batch of one",
                "GetItem(pos, key=cut)",
                "View(pos, shape=table)",
                lambda pos: pos.view(1, 3, 4).clone()[:, :3],
            ),
            ("", "pos", "pos", lambda pos: pos),
            (" as a batch of one", "pos", "View(pos, shape=table)", lambda pos: pos.view(1, 3, 4)),
        )
    ],
    Rule(
        "linear + cross entropy",
        "CrossEntropy((z := View(Linear(x, w, b), shape=_)) | (z := Linear(x, w, b)), t, cw,"
        " ignore_index=ignored, reduction=how, label_smoothing=smooth)",
        "LinearCrossEntropy(View(x, shape=rows), w, b, t, cw,"
        " ignore_index=ignored, reduction=how, label_smoothing=smooth)",
        _scores,
        lambda rand: (
            lambda x, w, t: F.cross_entropy(F.linear(x, w).view(-1, 2048), t.view(-1)),
            rand(2, 256, 3), rand(2048, 3), rand.integers(0, 2048, 2, 256),
        ),
    ),
    *LLAMA,
]
