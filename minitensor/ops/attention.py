"""Attention: for each query a mixture of the values, weighted by how well their keys match it.

Dimensions: N batch, H heads, L queries, S keys and values, K width of a query and a key, V width
of a value, E = H * K.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import memory, random
from ..core import Op, Tensor, wrap
from ..dtype import FLOATING
from ..kernels import attention as kernel
from .checks import check_one_float_dtype, check_probability, check_tensors
from .dropout import Dropout, kept
from .places import at, places
from .samples import Rand, Samples, strided


class ScaledDotProductAttention(Op):
    """y = dropout(p) v, p = softmax(scale * q kᵀ + mask), without keeping the (N, H, L, S) weights.

    query, key, value and mask: (*, L, K), (*, S, K), (*, S, V), (*, L, S) -> (*, L, V). Leading
    dimensions, such as (N, H), and those of the mask broadcast. In a bool mask True
    allows attention; numbers are added to the scores. `is_causal` allows query i the keys up to
    i, on top of the mask. A query that may attend to nothing gets zeros. `scale` is 1 / sqrt(K) by
    default. `enable_gqa` repeats the heads of key and value to as many as query has. Dropout is
    applied in training and evaluation alike, if `dropout_p` is not 0.

    With g = dropout(dy vᵀ) by the same mask and ds = p * (g - sum(g * p)), the gradient of the
    scores: dq = scale * ds k, dk = scale * dsᵀ q, dv = dropout(p)ᵀ dy. Forward saves the log-sum-
    exp of each row of scores, from which backward computes p again.

    RuntimeError for types or shapes that do not fit and for `dropout_p` outside [0, 1].

    A. Vaswani and others, "Attention is all you need", 2017; T. Dao and others, "FlashAttention:
    fast and memory-efficient exact attention with IO-awareness", 2022.
    """

    native = True
    namespaces = "functional"
    fused = fresh = True
    saves = ("q", "k", "v", "output", "row maximum and 1/sum", "mask as a bias")

    @staticmethod
    def call(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if not _fit(query, key, value):
            _check_qkv(query, key, value)
            if not (enable_gqa and _grouped(query, key, value)):
                if enable_gqa:
                    key, value = _repeated(key, query), _repeated(value, query)
                query, key, value = _broadcast(query, key, value)
        width = query._array.shape[-1]
        if attn_mask is not None:
            check_tensors(_NAME, attn_mask=attn_mask)
            lead = query._array.shape[:-1]
            _check_mask(_NAME, attn_mask, query.dtype, (*lead, key._array.shape[-2]))
            if is_causal and len(lead) != 3:  # PyTorch has a kernel for four dimensions alone
                raise RuntimeError(
                    f"{_NAME}: attn_mask and is_causal exclude each other, except for (N, H, L, E)"
                )
        size = math.prod(query._array.shape[:-1]) * key._array.shape[-2]
        settings = _settings(_NAME, width, size, dropout_p, is_causal, scale)
        op = ScaledDotProductAttention
        run = op.apply if _can_fuse(attn_mask, width, settings) else op.decomposition
        return run(query, key, value, attn_mask, *settings)

    def forward(
        ctx,
        q: np.ndarray,
        k: np.ndarray,
        v: np.ndarray,
        mask: np.ndarray | None,
        causal: bool,
        scale: float,
        p: float,
        seed: int | None,
    ) -> np.ndarray:
        shape = (*q.shape[:-1], v.shape[-1])
        if 0 in shape or k.shape[-2] == 0:
            ctx.save(q, k, v, None, None, None, None)
            return np.zeros(shape, q.dtype)
        settings = (causal, scale, p, seed or 0)
        bias = None if mask is None else _bias(mask, (*q.shape[:-1], k.shape[-2]), q.dtype)
        arrays = (q, k, v) if q.ndim == 4 else (_stacked(q), _stacked(k), _stacked(v))
        out = _like(arrays[0], shape[-1])
        statistics = kernel.attention(out, arrays, bias, *settings)
        y = out if q.ndim == 4 and out.dtype == q.dtype else _given(out, shape, q.dtype)
        ctx.save(q, k, v, y if y.dtype == out.dtype else out, statistics, bias, settings)
        return y

    @staticmethod
    def cell(
        q: np.ndarray,
        k: np.ndarray,
        v: np.ndarray,
        mask: np.ndarray | None,
        causal: bool,
        scale: float,
        p: float,
        seed: int | None,
    ) -> str:
        *lead, row, last = places(q.ndim)
        of_keys = list(lead)
        if q.shape[:-2] != k.shape[:-2]:
            of_keys[-1] += f" // {q.shape[-3] // k.shape[-3]}"
        return _mixture(
            lambda keys: at("k", [*of_keys, keys, ":"]),
            at("q", [*lead, row, ":"]),
            lambda keys: at("v", [*of_keys, keys, last]),
            [*lead, row],
            mask,
            causal,
            p,
        )

    @staticmethod
    def hidden(q: np.ndarray, k: np.ndarray, *rest: Any) -> dict[str, np.ndarray]:
        *_, p, seed = rest
        return kept((*q.shape[:-1], k.shape[-2]), p, seed)

    def backward(ctx, dy: np.ndarray) -> tuple[np.ndarray, ...]:
        *given, out, statistics, bias, settings = ctx.saved
        if settings is None:
            return tuple(np.zeros_like(x) for x in given)
        arrays = [_stacked(x) for x in given]
        grads = [_like(x, x.shape[-1]) for x in arrays]
        kernel.attention_backward(
            grads, _stacked(dy), _stacked(out), statistics, arrays, bias, *settings
        )
        return tuple(_given(dx, x.shape, x.dtype) for dx, x in zip(grads, given, strict=True))

    @staticmethod
    def flops(args: Sequence[Any], kwargs: Any, outs: Sequence[Tensor]) -> int:
        q, k, v = args[:3]
        return 2 * math.prod(q.shape[:-1]) * k.size(-2) * (q.size(-1) + v.size(-1))

    @staticmethod
    def backward_flops(
        args: Sequence[Any], kwargs: Any, outs: Sequence[Tensor], needs: Sequence[bool]
    ) -> int:
        q, k, v = args[:3]  # the scores again, dq and dk; the weights' gradient and dv
        return 2 * math.prod(q.shape[:-1]) * k.size(-2) * (3 * q.size(-1) + 2 * v.size(-1))

    @staticmethod
    def decomposition(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None,
        causal: bool,
        scale: float,
        p: float,
        seed: int | None,
    ) -> Tensor:
        if q.shape[:-2] != k.shape[:-2]:
            k, v = _repeated(k, q), _repeated(v, q)
        scores = (q * scale) @ k.transpose(-2, -1)
        if 0 in scores.shape:
            return scores @ v
        if causal:
            future = wrap(~np.tri(*scores.shape[-2:], dtype=np.bool_))
            scores = scores.masked_fill(future, -math.inf)
        if mask is not None:
            scores = (
                scores + mask if mask.is_floating_point() else scores.masked_fill(~mask, -math.inf)
            )
        if mask is None:
            weights = scores.softmax(-1)
        else:  # a query may have nothing to attend to
            alone = scores.detach().amax(-1, keepdim=True) == -math.inf
            weights = scores.masked_fill(alone, 0.0).softmax(-1).masked_fill(alone, 0.0)
        if p > 0:
            weights = Dropout.call(weights, p) if seed is None else Dropout.apply(weights, p, seed)
        return weights @ v

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2, 3, 4, 5), rand(2, 3, 6, 5), rand(2, 3, 6, 7)
        yield rand(4, 5), rand(6, 5), rand(6, 7), dict(is_causal=True)
        yield rand(3, 4, 5), rand(3, 3, 5), rand(3, 3, 5), dict(is_causal=True, scale=0.3)
        yield strided(rand(3, 2, 5, 4)), strided(rand(3, 2, 6, 4)), rand(2, 3, 6, 4)
        yield rand(2, 1, 4, 5), rand(3, 6, 5), rand(2, 3, 6, 5), rand.bools(2, 1, 1, 6)
        yield rand(2, 3, 4, 5), rand(2, 3, 6, 5), rand(2, 3, 6, 5), rand.constant(4, 6), 0.0, True
        yield rand(2, 4, 3, 5), rand(2, 2, 6, 5), rand(2, 2, 6, 5), dict(enable_gqa=True)
        yield rand(2, 4, 3, 5), rand(2, 2, 6, 5), rand(1, 1, 6, 5), dict(enable_gqa=True)
        yield rand(2, 2, 3, 4, 5), rand(2, 2, 3, 6, 5), rand(2, 2, 3, 6, 5), rand.bools(2, 3, 1, 6)
        yield rand(2, 4, 5), rand(2, 0, 5), rand(2, 0, 5)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        q = rand(2, 3, 4, 5)
        yield rand(4), rand(4), rand(4)
        yield q, rand(2, 3, 4, 6), q
        yield q, rand(3, 3, 4, 5), q
        yield q, q.float(), q
        yield (rand.integers(0, 5, 4, 5),) * 3
        yield q, q, q, rand.bools(4, 5)
        yield q, q, q, rand.bools(4)
        yield q, q, q, rand.bools(1, 1, 1, 4, 4)
        yield q, q, q, rand.integers(0, 2, 4, 4)
        yield q, q, q, None, 1.5
        yield q, rand(2, 1, 4, 5), q, rand.bools(7, 1, 4, 4)
        yield q, rand(2, 2, 4, 5), rand(2, 2, 4, 5), dict(enable_gqa=True)
        yield q, None, q


class PackedAttention(Op):
    """y = `scaled_dot_product_attention` of `num_heads` heads, from a packed projection.

    (N, L, 3E) -> (N, L, E): qkv holds queries, keys and values side by side, E = H * K numbers
    each, head by head; with `kv` (N, S, 2E), keys and values, it holds queries alone, (N, L, E).
    The result has the heads side by side too, so nothing is transposed or copied between two
    projections. Mask, dropout and scale are as in `scaled_dot_product_attention`, for (N, H, L, S).

    dqkv (N, L, 3E) is dq, dk and dv side by side, each as there, or with `kv` dq (N, L, E) and
    dkv (N, S, 2E); backward writes them in place.

    RuntimeError for types, shapes and masks that do not fit.
    """

    native = True
    namespaces = "functional"
    fused = fresh = True
    saves = ("qkv", "kv", "", "output", "row maximum and 1/sum", "mask as a bias")
    torch_name = None

    @staticmethod
    def call(
        qkv: Tensor,
        num_heads: int,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        kv: Tensor | None = None,
    ) -> Tensor:
        width = _check_packed(qkv, kv, num_heads)
        n, rows, _ = qkv._array.shape
        cols = rows if kv is None else kv._array.shape[1]
        if attn_mask is not None:
            _check_mask("packed_attention", attn_mask, qkv.dtype, (n, num_heads, rows, cols))
        size = n * num_heads * rows * cols
        settings = _settings("packed_attention", width, size, dropout_p, is_causal, scale)
        op = PackedAttention
        run = op.apply if _can_fuse(attn_mask, width, settings) else op.decomposition
        return run(qkv, kv, attn_mask, num_heads, *settings)

    def forward(
        ctx,
        qkv: np.ndarray,
        kv: np.ndarray | None,
        mask: np.ndarray | None,
        heads: int,
        causal: bool,
        scale: float,
        p: float,
        seed: int | None,
    ) -> np.ndarray:
        n, rows, width = qkv.shape
        width //= 3 if kv is None else 1
        cols = rows if kv is None else kv.shape[1]
        out = _in_order(qkv, width)
        if out.size == 0 or cols == 0:
            ctx.save(qkv, kv, heads, None, None, None, None)
            out.fill(0)
            return out
        settings = (causal, scale, p, seed or 0)
        bias = None if mask is None else _bias(mask, (n, heads, rows, cols), qkv.dtype)
        whole = out
        parts = _heads(whole, 1, heads)[0]
        statistics = kernel.attention(parts, _qkv(qkv, kv, heads), bias, *settings)
        ctx.save(qkv, kv, heads, whole, statistics, bias, settings)
        return whole.astype(out.dtype, copy=False)

    @staticmethod
    def cell(
        qkv: np.ndarray,
        kv: np.ndarray | None,
        mask: np.ndarray | None,
        heads: int,
        causal: bool,
        scale: float,
        p: float,
        seed: int | None,
    ) -> str:
        width = qkv.shape[2] // (3 if kv is None else 1)  # of all heads
        one = width // heads
        source, first = ("qkv", width) if kv is None else ("kv", 0)
        head = f"l // {one}"

        def part(begin: int) -> str:  # the cells of the head among the columns
            start = f"{head} * {one}" + (f" + {begin}" if begin else "")
            return f"{start}:{head} * {one} + {begin + one}"

        return _mixture(
            lambda keys: f"{source}[i, {keys}, {part(first)}]",
            f"qkv[i, j, {part(0)}]",
            lambda keys: f"{source}[i, {keys}, l + {first + width}]",
            ["i", head, "j"],
            mask,
            causal,
            p,
        )

    @staticmethod
    def hidden(
        qkv: np.ndarray, kv: np.ndarray | None, mask: np.ndarray | None, heads: int, *rest: Any
    ) -> dict[str, np.ndarray]:
        *_, p, seed = rest
        rows, cols = qkv.shape[1], (qkv if kv is None else kv).shape[1]
        return kept((len(qkv), heads, rows, cols), p, seed)

    def backward(ctx, dy: np.ndarray) -> tuple[np.ndarray | None, ...]:
        qkv, kv, heads, out, statistics, bias, settings = ctx.saved
        given = (qkv,) if kv is None else (qkv, kv)
        if settings is None:
            return tuple(np.zeros_like(x) for x in given)
        grads = [_in_order(x, x.shape[-1]) for x in given]
        kernel.attention_backward(
            _qkv(grads[0], None if kv is None else grads[1], heads),
            _heads(dy, 1, heads)[0],
            _heads(out, 1, heads)[0],
            statistics,
            _qkv(qkv, kv, heads),
            bias,
            *settings,
        )
        return tuple(dx.astype(qkv.dtype, copy=False) for dx in grads)

    @staticmethod
    def flops(args: Sequence[Any], kwargs: Any, outs: Sequence[Tensor]) -> int:
        return 4 * outs[0].numel() * (args[0] if args[1] is None else args[1]).size(1)

    @staticmethod
    def backward_flops(
        args: Sequence[Any], kwargs: Any, outs: Sequence[Tensor], needs: Sequence[bool]
    ) -> int:
        return 10 * outs[0].numel() * (args[0] if args[1] is None else args[1]).size(1)

    @staticmethod
    def decomposition(
        qkv: Tensor,
        kv: Tensor | None,
        mask: Tensor | None,
        num_heads: int,
        causal: bool,
        scale: float,
        p: float,
        seed: int | None,
    ) -> Tensor:
        parts = qkv.chunk(3, -1) if kv is None else (qkv, *kv.chunk(2, -1))
        sizes = (num_heads, parts[0].size(-1) // num_heads)
        q, k, v = (x.unflatten(-1, sizes).transpose(1, 2) for x in parts)
        heads = ScaledDotProductAttention.decomposition(q, k, v, mask, causal, scale, p, seed)
        return heads.transpose(1, 2).flatten(2)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2, 4, 18), 2
        yield rand(2, 4, 12), 2, dict(kv=rand(2, 5, 24))
        yield rand(4, 2, 18).transpose(0, 1), 3, dict(is_causal=True, scale=0.3)
        yield rand(2, 4, 12), 2, rand.bools(2, 1, 1, 5), dict(kv=rand(2, 5, 24), is_causal=True)
        yield rand(2, 4, 6), 2, rand.constant(2, 2, 4, 4)
        yield rand(2, 6, 4).transpose(1, 2), 1, rand.bools(4, 4)
        yield rand(2, 4, 6), 2, dict(kv=rand(2, 0, 12))
        yield rand(2, 0, 6), 2
        yield rand(0, 4, 6), 2, rand.bools(4, 4)


def _mixture(
    keys_at: Callable[[str], str],
    query: str,
    values_at: Callable[[str], str],
    place: list[str],
    mask: np.ndarray | None,
    causal: bool,
    p: float,
) -> str:
    """Return the cell of attention; `place` is the place of the query in (..., L) of the weights.

    `keys_at` and `values_at` give the cells of the keys and values that are selected.
    """
    span = f":{place[-1]} + 1" if causal else ":"
    keys, bias, allowed = span, "", ""
    if mask is not None:
        own = [
            "0" if n == 1 else letter
            for n, letter in zip(mask.shape[:-1], place[len(place) + 1 - mask.ndim :], strict=True)
        ]
        truths = mask.dtype == np.bool_
        hidden = ~mask if truths else np.isneginf(mask)
        hides, test = truths or bool(hidden.any()), "" if truths else " > -inf"
        if mask.shape[-1] == 1:  # for all keys alike
            allowed = f"{at('mask', [*own, '0'])}{test}" if hides else ""
        elif hides:
            keys = f"{at('mask', [*own, span])}{test}"
        if mask.shape[-1] > 1 and not truths and mask[~hidden].any():
            bias = f" + {at('mask', [*own, keys])}"
    weights = f"softmax(scale * ({keys_at(keys)} @ {query}){bias})"
    if p:
        found = at("kept", [*place, span])
        both = found if keys == span else f"({keys}) & {found}"
        y = f"{weights}[{at('kept', [*place, keys])}] @ {values_at(both)} / (1 - p)"
    else:
        y = f"{weights} @ {values_at(keys)}"
    return f"{y} if {allowed} else 0" if allowed else y


_NAME = "scaled_dot_product_attention"


def _settings(
    name: str, width: int, size: int, p: float, causal: bool, scale: float | None
) -> tuple[bool, float, float, int | None]:
    """Return causal, scale, p and the key of dropout, None where nothing is drawn."""
    if scale is None:
        scale = 1 / math.sqrt(width) if width else 1.0
    if type(p) is float and p == 0.0:
        return bool(causal), scale, p, None
    check_probability(name, p, RuntimeError)
    draws = 0 < p < 1 and not random.uses_torch_dropout()
    return bool(causal), scale, p, random.default_generator.key(size) if draws else None


def _can_fuse(mask: Tensor | None, width: int, settings: tuple[Any, ...]) -> bool:
    """Return True if the kernel applies: no gradient of the mask, none of PyTorch's dropout."""
    _, _, p, seed = settings
    return (
        width > 0 and (p == 0 or seed is not None) and not (mask is not None and mask.requires_grad)
    )


def _check_packed(qkv: Tensor, kv: Tensor | None, heads: int) -> int:
    """Return the width of a head; RuntimeError unless types and shapes fit."""
    if kv is None:
        check_one_float_dtype("packed_attention", qkv=qkv)
        parts, fits = 3, qkv.ndim == 3
    else:
        check_one_float_dtype("packed_attention", qkv=qkv, kv=kv)
        parts, fits = 1, qkv.ndim == kv.ndim == 3
        if fits:
            a, b = qkv._array.shape, kv._array.shape
            fits = a[0] == b[0] and b[2] == 2 * a[2]
    if not fits:
        raise RuntimeError(
            "packed_attention: expected qkv (N, L, 3E), or queries (N, L, E) and kv (N, S, 2E), "
            f"got {tuple(qkv.shape)}" + (f" and {tuple(kv.shape)}" if kv is not None else "")
        )
    width = qkv._array.shape[2]
    if heads < 1 or width % (parts * heads):
        raise RuntimeError(
            f"packed_attention: the width {width} of qkv is no multiple of "
            f"{'3 * ' if parts == 3 else ''}num_heads = {parts * heads}"
        )
    return width // (parts * heads)


def _fit(query: Any, key: Any, value: Any) -> bool:
    """Return True for tensors (N, H, ...) that fit as they are: a quick test of the usual case."""
    if not (isinstance(query, Tensor) and isinstance(key, Tensor) and isinstance(value, Tensor)):
        return False
    q, k, v = query._array, key._array, value._array
    a, b, c = q.shape, k.shape, v.shape
    return (
        len(a) == 4
        and a[:2] == b[:2]
        and a[3:] == b[3:]
        and b[:3] == c[:3]
        and q.dtype == k.dtype == v.dtype
        and q.dtype.kind in FLOATING
    )


def _check_qkv(query: Tensor, key: Tensor, value: Tensor) -> None:
    """Raise RuntimeError unless types and shapes fit."""
    check_one_float_dtype(_NAME, query=query, key=key, value=value)
    q, k, v = query._array, key._array, value._array
    wrong = ""
    if min(q.ndim, k.ndim, v.ndim) < 2:
        wrong = "expected (..., length, width)"
    elif q.shape[-1] != k.shape[-1]:
        wrong = "query and key differ in width (the last)"
    elif k.shape[-2] != v.shape[-2]:
        wrong = "key and value differ in length (the last but one)"
    if wrong:
        raise RuntimeError(f"{_NAME}: {wrong}: query {q.shape}, key {k.shape}, value {v.shape}")


def _check_mask(name: str, mask: Tensor, dtype: Any, full: tuple[int, ...]) -> None:
    """Raise RuntimeError or IndexError unless the mask broadcasts to `full`, (..., L, S)."""
    if mask.dtype not in (np.bool_, np.float32, dtype):
        raise RuntimeError(
            f"{name}: expected attn_mask to be bool or float or of query's type {dtype}, "
            f"got {mask.dtype}"
        )
    shape = mask._array.shape
    if len(shape) < 2:
        raise IndexError(f"{name}: expected attn_mask (..., L, S), got {shape}")
    fits = len(shape) <= len(full) and all(
        x in (1, y) for x, y in zip(reversed(shape), reversed(full), strict=False)
    )
    if not fits:
        raise RuntimeError(f"{name}: attn_mask {shape} does not broadcast to (..., L, S) {full}")


def _grouped(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Return True if the kernel can give each head of key and value to several of query."""
    (*lead, heads), k, v = query._array.shape[:-2], key._array.shape[:-2], value._array.shape[:-2]
    return k == v and [*k[:-1]] == lead and 0 < k[-1] < heads and heads % k[-1] == 0


def _repeated(x: Tensor, query: Tensor) -> Tensor:
    """Repeat each head (dimension -3) of x, up to as many as `query` has."""
    heads, wanted = x.size(-3), query.size(-3)
    if wanted % max(heads, 1):
        raise RuntimeError(
            f"{_NAME}: {heads} heads of key and value do not divide the {wanted} of query"
        )
    return x if heads == wanted else x.repeat_interleave(wanted // heads, -3)


def _broadcast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return the tensors expanded to the same leading dimensions."""
    leads = [x._array.shape[:-2] for x in tensors]
    if leads[0] == leads[1] == leads[2]:
        return tensors
    try:
        lead = np.broadcast_shapes(*leads)
    except ValueError:
        shapes = ", ".join(str(tuple(x.shape)) for x in tensors)
        raise RuntimeError(
            f"{_NAME}: the leading dimensions of query, key and value do not match: {shapes}"
        ) from None
    return tuple(x.expand(*lead, *x.shape[-2:]) for x in tensors)


# Arrays


def _stacked(x: np.ndarray) -> np.ndarray:
    """Reshape (..., length, width) to (N, H, length, width)."""
    if x.ndim == 4:
        return x
    return x.reshape(-1, *x.shape[-3:]) if x.ndim > 4 else x[(None,) * (4 - x.ndim)]


def _given(x: np.ndarray, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Undo `_stacked`."""
    return x.reshape(shape).astype(dtype, copy=False)


def _like(x: np.ndarray, width: int) -> np.ndarray:
    """Return an empty array (N, H, L, width), with its dimensions in the order of x's in memory."""
    n, h, rows, _ = x.shape
    if x.strides[1] < x.strides[2]:  # the heads side by side, as a projection leaves them
        return memory.empty((n, rows, h, width), x.dtype).transpose(0, 2, 1, 3)
    return memory.empty((n, h, rows, width), x.dtype)


def _in_order(x: np.ndarray, width: int) -> np.ndarray:
    """Return an empty array (N, L, width), with its dimensions in the order of x's in memory."""
    n, rows, _ = x.shape
    if x.strides[0] < x.strides[1]:
        return memory.empty((rows, n, width), x.dtype).transpose(1, 0, 2)
    return memory.empty((n, rows, width), x.dtype)


def _heads(x: np.ndarray, parts: int, heads: int) -> np.ndarray:
    """View (N, L, parts * E) as (parts, N, H, L, K)."""
    n, rows, width = x.shape
    return x.reshape(n, rows, parts, heads, width // (parts * heads)).transpose(2, 0, 3, 1, 4)


def _qkv(qkv: np.ndarray, kv: np.ndarray | None, heads: int) -> list[np.ndarray]:
    """Return queries, keys and values (N, H, length, K)."""
    if kv is None:
        return [*_heads(qkv, 3, heads)]
    q, kv = qkv, kv
    k, v = _heads(kv, 2, heads)
    return [_heads(q, 1, heads)[0], k, v]


def _bias(mask: np.ndarray, full: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return a mask as numbers to add, (N or 1, H or 1, L or 1, S), not expanded."""
    if len(full) > 4:
        mask = np.broadcast_to(mask, (*full[:-2], *mask.shape[-2:]))
        mask = mask.reshape(-1, *mask.shape[-3:])
    mask = mask[(None,) * (4 - mask.ndim)]
    for axis in range(3):
        if mask.strides[axis] == 0 and mask.shape[axis] > 1:  # expanded
            mask = mask[(slice(None),) * axis + (slice(1),)]
    if mask.shape[3] != full[-1]:
        mask = np.broadcast_to(mask, (*mask.shape[:3], full[-1]))
    if mask.dtype == np.bool_:
        return np.where(mask, dtype.type(0), dtype.type(-np.inf))
    return mask.astype(dtype, copy=False)
