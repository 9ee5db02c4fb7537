"""The table of rules, in the order in which they are tried, and their conditions."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..core import wrap
from ..ops.rotary import RotaryEmbedding
from ..recording import Ref
from .graph import Graph
from .rules import Match, Rule


def _drops(match: Match, none: Any = 0) -> bool:
    """Name `p` and `key`: no dropout if none was found."""
    return match.set(p=match["p"] or 0.0, key=match["key"] or none)


def _activates(match: Match) -> bool:
    """Return True unless it is half of a gated unit, silu(x w) * (x v): that becomes a chain."""
    users = {getattr(c.op, "__name__", "") for c in match.graph.calls if match["result"] in c.args}
    return not (match["gate"] and users == {"Mul"}) and _drops(match)


def _adds(match: Match) -> bool:
    """Return True if what is added has the shape and type of what it is added to."""
    alike = match.shape("x") == match.shape("r") and match.dtype("x") == match.dtype("r")
    return alike and _drops(match)


# RMS norm

_MEAN = "Add(Mean(Pow(x, 2.0), (-1,), True), eps)"
_INVERSE = f"Rsqrt({_MEAN}) | Reciprocal(Sqrt({_MEAN})) | Div(1.0, Sqrt({_MEAN}))"
_NORM = f"(Mul(x, {_INVERSE}) | Div(x, Sqrt({_MEAN})))"


def _rms(match: Match) -> bool:
    """Return True for a weight of the last dimension, or none."""
    w, eps = match["w"], match.number("eps")
    fits = match.shape("w") == match.shape("x")[-1:] and match.dtype("w") == match.dtype("x")
    return eps is not None and (w is None or fits) and match.set(w=w, eps=eps)


# Rotary positions: each pair (a, b) of numbers of x becomes (a cos - b sin, b cos + a sin)

_A, _B = (
    f"({name} := Unbind(View(x, shape=_), _)[{n}] | SplitWithSizes(x, sizes=_, dim=_)[{n}]"
    " | GetItem(x, key=_))"
    for n, name in enumerate("ab")
)
_TURNED = f"Sub(Mul({_A}, c), Mul({_B}, s)), Add(Mul(a, s), Mul(b, c))"


def _turns(match: Match, back: bool = False) -> bool:
    """Return True if pairs of x are turned, and name if they are neighbours or of both halves.

    People index, split or unbind and then stack or join them: a trial on random numbers tells.
    """
    graph, refs = match.graph, [match[name] for name in "xcs"]
    if not all(isinstance(ref, Ref) and ref.number not in graph.requires for ref in refs[1:]):
        return False
    calls = [call for call in graph.calls if call in match.calls]
    noise, values = np.random.RandomState(0), {r.number: graph.values[r.number] for r in refs}
    given = {n: wrap(noise.standard_normal(v.shape).astype(v.dtype)) for n, v in values.items()}
    (y,) = Graph(graph.values, calls, list(given), [match["result"].number]).run(given)
    x, cos, sin = (given[ref.number] for ref in refs)
    for neighbours in (True, False):
        try:
            turned = RotaryEmbedding.call(x, cos, -sin if back else sin, neighbours)
        except RuntimeError:
            continue
        if turned.shape == y.shape and np.allclose(turned, y, 1e-4, 1e-5):
            return match.set(neighbours=neighbours)
    return False


# Attention: the forms of scores (..., L, S), of a mask m on them, and of their softmax

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
    """Return the expression of attention; the weights of rows masked as a whole may be set to 0."""
    alone = f"Eq(Amax(Detach({scores}) | {scores}, (-1,), True), low)"
    filled = f"MaskedFill(Softmax(MaskedFill({scores}, {alone}, z1), dim=-1), {alone}, z2)"
    weights = f"(Softmax({scores}, dim=-1) | {filled})"
    return f"Matmul(Dropout({weights}, p, key) | {weights}, v)"


def _fused(mask: str, causal: bool = False, q: str = "q") -> str:
    return f"ScaledDotProductAttention({q}, k, v, {mask}, {causal}, scale, p, key)"


def _attends(match: Match) -> bool:
    """Return True for queries, keys and values that fit; name `scale`, `p` and `key`."""
    q, k, v = (match.shape(name) for name in "qkv")
    c, d = match.number("c", 1.0), match.number("d", 1.0)
    fits = len(q) >= 2 and q[:-2] == k[:-2] == v[:-2] and q[-1:] == k[-1:] and k[-2] == v[-2]
    zeros = match.number("z1", 0.0) == match.number("z2", 0.0) == 0
    if not (fits and q[-1] and zeros and d) or c is None or match["low"] not in (None, -math.inf):
        return False
    return match.set(scale=match.names.get("scale", c / d)) and _drops(match, None)


def _masks(match: Match) -> bool:
    """Return True if the mask makes the scores no larger, and needs no gradient."""
    m, full = match.shape("m"), (*match.shape("q")[:-1], *match.shape("k")[-2:-1])
    if not _attends(match) or len(m) < 2 or match["m"].number in match.graph.requires:
        return False
    fits = all(a in (1, b) for a, b in zip(m[::-1], full[::-1], strict=False))
    return len(m) <= len(full) and fits


def _adds_mask(match: Match) -> bool:
    return _masks(match) and match.dtype("m") == match.dtype("q")


def _fills(match: Match, finite: bool = False) -> bool:
    """Return True for scores that are masked by -inf, or by a finite number that is as good."""
    f = match.number("f")
    if f is None or f > _NEVER or (f > -math.inf) != finite or (finite and match["low"]):
        return False
    return _masks(match)


def _causal(match: Match, hidden: Callable[[np.ndarray], np.ndarray] = lambda m: m) -> bool:
    """Return True for a mask that is the same in each call, and hides just what is later."""
    m = match.constant("m") if _masks(match) else None
    f = match.number("f", -math.inf)
    if m is None or m.size != math.prod(m.shape[-2:]) or f is None or f > _NEVER:
        return False
    later = ~np.tri(match.shape("q")[-2], match.shape("k")[-2], dtype=np.bool_)
    return np.array_equal(hidden(m).reshape(m.shape[-2:]), later)


def _hidden(m: np.ndarray) -> np.ndarray:
    """Return where a mask that is added hides scores; nowhere if it changes others."""
    hides = m <= _NEVER
    return hides if not m[~hides].any() else np.zeros_like(hides)


def _blocked(m: np.ndarray) -> np.ndarray:
    """Return where a mask of `scaled_dot_product_attention` hides scores."""
    return ~m if m.dtype == np.bool_ else _hidden(m)


# Heads of a packed projection


def _packed(*parts: str) -> str:
    """Return the expression of attention whose heads are put side by side again."""
    q, k, v = (f"({name} := {part})" for name, part in zip("qkv", parts, strict=True))
    attention = f"ScaledDotProductAttention({q}, {k}, {v}, m, causal, scale, p, key)"
    return f"View(Transpose({attention}, -3, -2), shape=_)"


_HEADS = "Transpose(View({}, shape=_), -3, -2)"
_PARTS = {
    "packed projection": _HEADS.format("SplitWithSizes(x, sizes=_, dim=-1)[{}]"),
    "packed projection split by heads": (
        "SplitWithSizes(Transpose(View(x, shape=_), -3, -2), sizes=_, dim=-3)[{}]"
    ),
    "packed projection unbound": "Unbind(Permute(View(x, shape=_), dims=(2, 0, 3, 1, 4)), -5)[{}]",
    "packed projection indexed": (
        "GetItem(Permute(View(x, shape=_), dims=(2, 0, 3, 1, 4)), key=({},))"
    ),
}
_KV = [_HEADS.format(f"SplitWithSizes(kv, sizes=_, dim=-1)[{i}]") for i in (0, 1)]


def _is_packed(match: Match) -> bool:
    """Return True if q, k and v are the heads (N, H, L, K) of thirds of x, or k and v of kv."""
    q, k, v, x = (match.shape(name) for name in "qkvx")
    if len(x) != 3 or len(q) != 4 or q[0] != x[0] or q[2] != x[1] or k != v or q[:2] != k[:2]:
        return False
    width, kv = q[1] * q[3], match.shape("kv")
    fits = kv == (x[0], k[2], 2 * width) and x[2] == width if kv else x[2] == 3 * width
    joined = match.shape("result") == (*x[:2], width)
    return fits and joined and match.set(heads=q[1], kv=match["kv"])


def _cut(match: Match) -> bool:
    """Return True if the weights of two products are the first and the other rows of `w`."""
    width = match.shape("w")[-1]
    cuts = (slice(None, width),), (slice(width, None),)
    fits = match.shape("w") == (3 * width, width) and (match["first"], match["rest"]) == cuts
    return fits and match.set(b=match["b"])


def _repeated(name: str) -> str:
    wide = f"Expand(GetItem({name}, key=at) | Unsqueeze({name}, dim), size=_)"
    return f"View((wide_{name} := {wide}), shape=_)"


def _repeats(match: Match, dim: int) -> bool:
    """Return True if each head of k and v, along the dimension before `dim`, is repeated."""
    q, k, v = match.shape("q"), match.shape("k"), match.shape("v")
    if len(q) != 4 or len(k) != 4 or k[:3] != v[:3] or q[1] % k[dim - 1]:
        return False
    wide = (*k[:dim], q[1] // k[dim - 1])
    return (
        match["at"] in (None, (*[slice(None)] * dim, None))
        and match["dim"] in (None, dim, dim - 5)
        and match.shape("wide_k")[: dim + 1] == match.shape("wide_v")[: dim + 1] == wide
    )


# Embedding and loss

_EMBEDDING = "Embedding(t, w, padding_idx=pad, scale_grad_by_freq=False)"
_EMBEDDED = f"Add(Mul({_EMBEDDING}, c) | {_EMBEDDING}, {{}})"
_PLACED = "Embedding(places, pos, padding_idx=None, scale_grad_by_freq=False)"


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
        found = places is not None and places.shape[-1:] == (places.size,) == length
        if not found or not np.array_equal(np.ravel(places), np.arange(*length)):  # type: ignore[arg-type]
            return False
    elif match["cut"] is not None:
        starts = [slice(None, *length), slice(0, *length)]
        if match["cut"][:-1] != (slice(None),) * lead or match["cut"][-1] not in starts:
            return False
    elif table[:1] != length:
        return False
    if match.shape("result") != (*tokens, w[1]) or table[0] < length[0]:
        return False
    return match.set(table=table, scale=c) and _drops(match, None)


MANY = 1 << 25  # logits, from which on memory counts: to compute them in parts takes longer


def _parts(match: Match) -> bool:
    """Return True for many scores (N, C) of class indices; name the shape of their input."""
    w, t = match.shape("w"), match.shape("t")
    fits = len(t) == 1 and match.shape("z") == (t[0], w[0]) and t[0] * w[0] >= MANY
    return fits and match.dtype("w").char in "fd" and match.set(rows=(t[0], w[1]))


def _only_copied(match: Match) -> bool:
    """Return True if x is the result of an op, of which only the copy is used."""
    number = match["x"].number
    made = any(number in call.outs for call in match.graph.calls)
    return made and match.graph.users()[number] == 1


RULES = [
    *[
        Rule(
            f"linear + {kind}",
            f"Dropout({activation}, p, key) | {activation}",
            f"LinearActivation(x, w, b, kind='{kind}', p=p, key=key)",
            _activates,
        )
        for kind, activation in (
            ("relu", "Relu(Linear(x, w, b))"),
            ("gelu", "Gelu(Linear(x, w, b), 'none')"),
            ("gelu_tanh", "Gelu(Linear(x, w, b), 'tanh')"),
            ("silu", "Silu((gate := Linear(x, w, b)))"),
        )
    ],
    Rule("RMS norm", f"Mul({_NORM}, w)", "RmsNorm(x, w, dims=1, eps=eps)", _rms),
    Rule("RMS norm without weight", _NORM, "RmsNorm(x, w, dims=1, eps=eps)", _rms),
    Rule(
        "add + layer norm",
        "LayerNorm(Add(r, Dropout(x, p, key)) | Add(r, x), w, b, dims=dims, eps=eps)",
        "DropoutAddLayerNorm(x, r, w, b, dims=dims, eps=eps, p=p, key=key)",
        _adds,
    ),
    Rule("dropout + add", "Add(r, Dropout(x, p, key))", "DropoutAdd(x, r, p=p, key=key)", _adds),
    Rule(
        "rotary positions",
        f"View(Stack({_TURNED}, dim=_), shape=_) | Cat({_TURNED}, dim=_)"
        f" | Add(Mul(x, c), Mul(Cat(Neg({_B}), {_A}, dim=_), s))",
        "RotaryEmbedding(x, c, s, neighbours)",
        _turns,
    ),
    Rule(
        "rotary positions, turned back",
        f"Cat(Add(Mul({_A}, c), Mul({_B}, s)), Add(Mul(a, Neg(s)), Mul(b, c)), dim=_)",
        "RotaryEmbedding(x, c, Neg(s), neighbours)",
        partial(_turns, back=True),
    ),
    Rule("attention", _attention(_SCORES), _fused("None"), _attends),
    *[
        Rule(f"attention, {mask}", found, _fused("None", causal=True), partial(_causal, **hidden))
        for mask, found, hidden in (
            ("scores filled where later", _attention(_FILLED), {}),
            ("scores kept where not later", _attention(_CHOSEN), {"hidden": np.logical_not}),
            ("causal mask added", _attention(_ADDED), {"hidden": _hidden}),
            ("mask is causal", _fused("m"), {"hidden": _blocked}),
        )
    ],
    *[
        Rule(f"attention, {mask} -inf", _attention(found), _fused(allowed), _fills)
        for mask, found, allowed in (
            ("scores filled with", _FILLED, "LogicalNot(m)"),
            ("scores kept or", _CHOSEN, "m"),
        )
    ],
    *[  # a row that is masked as a whole has equal weights: its query becomes 0, and all is allowed
        Rule(
            f"attention, {mask} -1e9",
            _attention(found),
            _fused(f"LogicalOr({allowed}, {alone})", q=f"MaskedFill(q, {alone}, 0.0)"),
            partial(_fills, finite=True),
        )
        for mask, found, allowed, alone in (
            ("scores filled with", _FILLED, "LogicalNot(m)", "All(m, (-1,), True)"),
            ("scores kept or", _CHOSEN, "m", "All(LogicalNot(m), (-1,), True)"),
        )
    ],
    Rule("attention, mask added", _attention(_ADDED), _fused("m"), _adds_mask),
    *[
        Rule(
            f"attention, heads of keys and values repeated{when}",
            f"ScaledDotProductAttention(q, {form.format(_repeated('k'))},"
            f" {form.format(_repeated('v'))}, m, causal, scale, p, key)",
            f"ScaledDotProductAttention(q, {form.format('k')}, {form.format('v')},"
            " m, causal, scale, p, key)",
            partial(_repeats, dim=dim),
        )
        for when, form, dim in (("", "{}", 2), (", then transposed", "Transpose({}, -3, -2)", 3))
    ],
    *[
        Rule(
            f"attention, {kind}",
            found,
            "PackedAttention(x, kv, m, heads, causal, scale, p, key)",
            _is_packed,
        )
        for kind, found in (
            *((kind, _packed(*map(part.format, range(3)))) for kind, part in _PARTS.items()),
            ("packed keys and values", _packed(_HEADS.format("x"), *_KV)),
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
    ),
    *[
        Rule(
            f"embedding + positions{kind}",
            f"Dropout({_EMBEDDED.format(added)}, p, key) | {_EMBEDDED.format(added)}",
            f"EmbeddingPositions(t, w, {table}, scale=scale, p=p, key=key, padding_idx=pad)",
            partial(_positions, lead=int(table != "pos")),
        )
        for kind, added, table in (
            (" of an embedding", _PLACED, "pos"),
            (" cut from a table", "GetItem(pos, key=cut)", "pos"),
            (" cut from a batch of one", "GetItem(pos, key=cut)", "View(pos, shape=table)"),
            ("", "pos", "pos"),
            (" as a batch of one", "pos", "View(pos, shape=table)"),
        )
    ],
    Rule(
        "linear + cross entropy",
        "CrossEntropy((z := View(Linear(x, w, b), shape=_)) | (z := Linear(x, w, b)), t, cw,"
        " ignore_index=ignored, reduction=how, label_smoothing=smooth)",
        "LinearCrossEntropy(View(x, shape=rows), w, b, t, cw,"
        " ignore_index=ignored, reduction=how, label_smoothing=smooth)",
        _parts,
    ),
    Rule(
        "heads joined, copied",
        "View(Clone(Transpose(x, -3, -2)), shape=shape)",
        "Reshape(Transpose(x, -3, -2), shape=shape)",
        _only_copied,
    ),
]
