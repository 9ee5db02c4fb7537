"""Embeddings: rows of a table by number, and the numbers as rows of the identity."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd import Op
from ..tensor import Tensor, wrap
from .index import check_range, sum_at, take
from .shape import Samples


class Embedding(Op):
    """The rows of `weight` that `input` names: (*), (V, E) -> (*, E).

    The gradient of row `padding_idx` is 0. `scale_grad_by_freq` divides a row's gradient by how
    often it occurs in `input`. Gradients are dense: `sparse` is accepted and makes no difference.
    """

    spaces = "functional"
    oracle = "nn.functional.embedding"

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
        if weight.ndim != 2:
            raise RuntimeError(f"'weight' must be 2-D, got shape {tuple(weight.shape)}")
        if input.dtype not in (np.int64, np.int32):
            raise RuntimeError(
                "Expected tensor for argument #1 'indices' to have one of the following scalar "
                f"types: Long, Int; but got {input.dtype} instead"
            )
        height = weight.shape[0]
        if padding_idx is not None:
            if not -height <= padding_idx < height:
                raise AssertionError(
                    f"embedding: padding_idx {padding_idx} must be within num_embeddings {height}"
                )
            padding_idx %= height
        check_range(input, height, 0, IndexError)
        ctx.save(input, height, padding_idx, scale_grad_by_freq)
        return take(weight, input, 0)

    def backward(ctx, dy: Tensor) -> tuple[None, Tensor]:
        index, height, padding, by_frequency = ctx.saved
        if by_frequency:
            counts = np.bincount(index._array.reshape(-1), minlength=height)[index._array]
            dy = dy / wrap(counts[..., None].astype(dy._array.dtype))
        return None, EmbeddingBackward.apply(dy, index, height=height, padding=padding)

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand.integers(0, 5, 2, 3), rand(5, 4)
        yield rand.integers(2, 5, 7), rand(5, 4), 1
        yield rand.integers(0, 4, 2, 3), rand(5, 4), -1
        yield rand.integers(0, 5), rand(5, 4)
        yield rand.integers(0, 5, 0), rand(5, 4)
        yield rand.integers(0, 5, 3, dtype=np.int32), rand(5, 130)

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand.integers(5, 6, 2), rand(5, 4)
        yield rand.integers(-2, 0, 2), rand(5, 4)
        yield rand(2), rand(5, 4)
        yield rand.integers(0, 5, 2), rand(5)
        yield rand.integers(0, 5, 2), rand(5, 4), 5


class EmbeddingBackward(Op):
    """The sums of the rows of dy by number, 0 for `padding`: (*, E), (*) -> (V, E)."""

    spaces = ""
    oracle = None

    def forward(
        ctx, dy: np.ndarray, index: np.ndarray, *, height: int, padding: int | None
    ) -> np.ndarray:
        ctx.save(index, padding)
        dw = sum_at(index.reshape(-1), dy.reshape(index.size, dy.shape[-1]), height)
        if padding is not None:
            dw[padding] = 0
        return dw

    def backward(ctx, ddw: Tensor) -> Tensor:
        index, padding = ctx.saved
        found = Embedding.call(index, ddw)
        if padding is None:
            return found
        return found.masked_fill(wrap(index._array == padding)[..., None], 0)

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand(6, 4), rand.integers(0, 5, 6), dict(height=5, padding=None)
        yield rand(6, 4), rand.integers(0, 3, 6), dict(height=5, padding=1)


class OneHot(Op):
    """1 at the position that each number names, else 0: (*) -> (*, num_classes), int64.

    Without `num_classes`, one more than the largest number.
    """

    spaces = "functional"

    @staticmethod
    def call(tensor: Tensor, num_classes: int = -1) -> Tensor:
        array = tensor._array
        if array.dtype != np.int64:
            raise RuntimeError(
                f"one_hot: is only applicable to index tensor of type int64, got {array.dtype}"
            )
        if array.size == 0 and num_classes < 1:
            raise RuntimeError("one_hot: Can not infer total number of classes from empty tensor.")
        if array.size and array.min() < 0:
            raise RuntimeError(f"one_hot: Class values must be non-negative, got {array.min()}.")
        if num_classes == -1:
            num_classes = int(array.max()) + 1
        elif array.size and array.max() >= num_classes:
            raise RuntimeError(
                f"one_hot: Class values must be smaller than num_classes: {array.max()} is not "
                f"smaller than {num_classes}."
            )
        return wrap((array[..., None] == np.arange(num_classes)).astype(np.int64))

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield (rand.integers(0, 4, 2, 3),)
        yield rand.integers(0, 4, 2, 3), 5
        yield rand.integers(0, 4, 0), 5

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand.integers(2, 4, 3), 2
        yield (rand.integers(-3, 0, 3),)
        yield (rand(3),)
        yield (rand.integers(0, 1, 0),)
