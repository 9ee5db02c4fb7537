"""Embeddings: rows of a table by number."""

from __future__ import annotations

from operator import index as as_int
from typing import Any

import numpy as np

from .. import memory, random
from ..core import Op, Tensor, wrap
from ..kernels import embedding as kernel
from .checks import check_probability
from .dropout import Dropout, kept
from .index import check_range, sum_at, take
from .places import at, places, times
from .samples import Rand, Samples


class Embedding(Op):
    """y = weight[input], rows by number: (*), (V, E) -> (*, E).

    Row v of dweight is the sum of dy over the places where input is v, 0 for v = `padding_idx`.
    `scale_grad_by_freq` divides it by their number. Gradients are dense: `sparse` is accepted and
    makes no difference.
    """

    namespaces = "functional"
    torch_name = "nn.functional.embedding"
    fresh = True

    @staticmethod
    def call(
        input: Tensor,
        weight: Tensor,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> Tensor:
        if max_norm is not None:
            raise NotImplementedError(
                "embedding: max_norm changes the weight in forward, which is not implemented; "
                "renormalise it by hand under no_grad"
            )
        return Embedding.apply(
            input, weight, padding_idx=padding_idx, scale_grad_by_freq=scale_grad_by_freq
        )

    def forward(
        ctx,
        input: np.ndarray,
        weight: np.ndarray,
        *,
        padding_idx: int | None,
        scale_grad_by_freq: bool,
    ) -> np.ndarray:
        height = weight.shape[0]
        padding_idx = _check(input, weight, padding_idx)
        ctx.save(input, height, padding_idx, scale_grad_by_freq)
        if weight.dtype.char not in "fd":
            return take(weight, input, 0)
        return kernel.rows_at(input, weight)

    @staticmethod
    def cell(input: np.ndarray, weight: np.ndarray, **settings: Any) -> str:
        *place, last = places(input.ndim + 1)
        return f"weight[{at('input', place)}, {last}]"

    def backward(ctx, dy: Tensor) -> tuple[None, Tensor]:
        index, height, padding, by_frequency = ctx.saved
        if by_frequency:
            counts = np.bincount(index._array.reshape(-1), minlength=height)[index._array]
            dy = dy / wrap(counts[..., None].astype(dy._array.dtype))
        return None, EmbeddingBackward.apply(dy, index, height=height, padding=padding)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand.integers(0, 5, 2, 3), rand(5, 4)
        yield rand.integers(2, 5, 7), rand(5, 4), 1
        yield rand.integers(0, 4, 2, 3), rand(5, 4), -1
        yield rand.integers(0, 5), rand(5, 4)
        yield rand.integers(0, 5, 0), rand(5, 4)
        yield rand.integers(0, 5, 3, dtype=np.int32), rand(5, 130)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand.integers(5, 6, 2), rand(5, 4)
        yield rand.integers(-2, 0, 2), rand(5, 4)
        yield rand(2), rand(5, 4)
        yield rand.integers(0, 5, 2), rand(5)
        yield rand.integers(0, 5, 2), rand(5, 4), 5


def _check(input: np.ndarray, weight: np.ndarray, padding_idx: int | None) -> int | None:
    """Return `padding_idx` counted from 0; RuntimeError or IndexError unless all three fit."""
    if weight.ndim != 2:
        raise RuntimeError(f"'weight' must be 2-D, got shape {tuple(weight.shape)}")
    if input.dtype not in (np.int64, np.int32):
        raise RuntimeError(
            "Expected tensor for argument #1 'indices' to have one of the following scalar "
            f"types: Long, Int; but got {input.dtype} instead"
        )
    height = weight.shape[0]
    if padding_idx is not None:
        padding_idx = as_int(padding_idx)
        if not -height <= padding_idx < height:
            raise AssertionError(
                f"embedding: padding_idx {padding_idx} must be within num_embeddings {height}"
            )
        padding_idx %= height
    check_range(input, height, 0, IndexError)
    return padding_idx


class EmbeddingPositions(Op):
    """y = dropout(scale * weight[input] + positions), in one pass.

    (*, L), (V, E), (P, E) -> (*, L, E), P at least L: the input of a Transformer, where `scale` is
    sqrt(E). With g = dropout(dy): row v of dweight is scale times the sum of g
    over the tokens v, 0 for `padding_idx`; row l of dpositions the sum of g at position l. The mask
    is that of `dropout`. RuntimeError for shapes that do not fit, IndexError for a token outside
    the table and for a sequence longer than the positions, ValueError for p outside [0, 1].
    """

    namespaces = "functional"
    torch_name = None
    fused = True
    fresh = True

    @staticmethod
    def call(
        input: Tensor,
        weight: Tensor,
        positions: Tensor,
        scale: float = 1.0,
        p: float = 0.0,
        training: bool = True,
        padding_idx: int | None = None,
    ) -> Tensor:
        check_probability("embedding_positions", p)
        if not training or input._array.size == 0:
            p = 0.0
        dtype = weight._array.dtype
        fused = (
            dtype.char in "fd"
            and positions._array.dtype == dtype
            and not (p == 1 or (p > 0 and random.uses_torch_dropout()))
        )
        size = input._array.size * weight._array.shape[1]
        key = random.default_generator.key(size) if fused and p else None
        op = EmbeddingPositions
        run = op.apply if fused else op.decomposition
        return run(input, weight, positions, scale=scale, p=p, key=key, padding_idx=padding_idx)

    def forward(
        ctx,
        input: np.ndarray,
        weight: np.ndarray,
        positions: np.ndarray,
        *,
        scale: float,
        p: float,
        key: int | None,
        padding_idx: int | None,
    ) -> np.ndarray:
        padding_idx = _check(input, weight, padding_idx)
        _check_positions(input, weight, positions)
        ctx.save(input, weight.shape, positions.shape, scale, p, key or 0, padding_idx)
        return kernel.embed(input, weight, positions[: input.shape[-1]], scale, p, key or 0)

    @staticmethod
    def cell(
        input: np.ndarray, weight: np.ndarray, positions: np.ndarray, *, scale: float, **rest: Any
    ) -> str:
        *place, last = places(input.ndim + 1)
        row = times(scale, f"weight[{at('input', place)}, {last}]")
        total = f"{row} + positions[{place[-1]}, {last}]"
        return f"({total}) / (1 - p) if kept else 0" if rest["p"] else total

    @staticmethod
    def hidden(
        input: np.ndarray, weight: np.ndarray, *rest: Any, p: float, key: int | None, **_: Any
    ) -> dict[str, np.ndarray]:
        return kept((*input.shape, weight.shape[1]), p, key)

    def backward(ctx, dy: np.ndarray) -> tuple[np.ndarray | None, ...]:
        input, shape, positions, scale, p, key, padding = ctx.saved
        tokens = np.ascontiguousarray(input, np.int64).reshape(-1)
        values = np.ascontiguousarray(dy).reshape(-1, shape[1])
        dweight = dpositions = None
        if ctx.needs_input_grad[1]:
            dweight = memory.empty(shape, dy.dtype)
            skip = -1 if padding is None else padding
            kernel.sum_rows(tokens, values, dweight, skip, scale, p, key)
        if ctx.needs_input_grad[2]:
            dpositions = memory.empty(positions, dy.dtype)
            places = np.arange(tokens.size) % max(input.shape[-1], 1)
            kernel.sum_rows(places, values, dpositions, p=p, key=key)
        return None, dweight, dpositions

    @staticmethod
    def decomposition(
        input: Tensor,
        weight: Tensor,
        positions: Tensor,
        *,
        scale: float,
        p: float,
        key: int | None,
        padding_idx: int | None,
    ) -> Tensor:
        embedding = Embedding.call(input, weight, padding_idx) * scale
        _check_positions(input._array, weight._array, positions._array)
        sum = embedding + positions[: input.shape[-1]]
        return Dropout.call(sum, p) if key is None else Dropout.apply(sum, p, key)

    @staticmethod
    def samples(rand: Rand) -> Samples:  # only those without random numbers
        yield rand.integers(0, 5, 2, 3), rand(5, 4), rand(3, 4), 0.5
        yield rand.integers(0, 4, 2, 3), rand(5, 4), rand(7, 4), dict(padding_idx=-1)
        yield (
            rand.integers(0, 3, 3, dtype=np.int32),
            rand(3, 20),
            rand.constant(3, 20),
            2.0,
            0.5,
            False,
        )
        yield rand.integers(0, 5, 2, 0), rand(5, 4), rand(3, 4), 1.0, 0.5


def _check_positions(input: np.ndarray, weight: np.ndarray, positions: np.ndarray) -> None:
    """Raise RuntimeError or IndexError unless the positions fit the tokens and the weight."""
    if input.ndim == 0 or positions.ndim != 2 or positions.shape[1] != weight.shape[1]:
        raise RuntimeError(
            "embedding_positions: expected input (*, L), weight (V, E) and positions (L, E), got "
            f"{tuple(input.shape)}, {tuple(weight.shape)} and {tuple(positions.shape)}"
        )
    if positions.shape[0] < input.shape[-1]:
        raise IndexError(
            f"embedding_positions: the sequence has {input.shape[-1]} tokens, but there are only "
            f"{positions.shape[0]} positions. Shorten it, or give more positions."
        )


class EmbeddingBackward(Op):
    """y = the sums of the rows of dy by number, 0 for `padding`: (*, E), (*) -> (V, E)."""

    namespaces = ""
    torch_name = None

    def forward(
        ctx, dy: np.ndarray, index: np.ndarray, *, height: int, padding: int | None
    ) -> np.ndarray:
        ctx.save(index, padding)
        dw = sum_at(index.reshape(-1), dy.reshape(index.size, dy.shape[-1]), height)
        if padding is not None:
            dw[padding] = 0
        return dw

    @staticmethod
    def cell(dy: np.ndarray, index: np.ndarray, *, height: int, padding: int | None) -> str:
        every = at("index", [":"] * index.ndim)
        total = f"sum(dy[{every} == i, j])" if index.ndim else "dy[j] if index == i else 0"
        return total if padding is None else f"0 if i == padding else {total}"

    def backward(ctx, ddw: Tensor) -> Tensor:
        index, padding = ctx.saved
        found = Embedding.call(index, ddw)
        if padding is None:
            return found
        return found.masked_fill(wrap(index._array == padding)[..., None], 0)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(6, 4), rand.integers(0, 5, 6), dict(height=5, padding=None)
        yield rand(6, 4), rand.integers(0, 3, 6), dict(height=5, padding=1)
