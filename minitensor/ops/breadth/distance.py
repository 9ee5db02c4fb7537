"""Distances and angles between vectors, and the losses made of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...autograd import no_grad
from ...core import Op, Tensor
from ..checks import check_tensors, normal_dim, reduction_of
from ..composite import composite
from ..elementwise import promote_operands
from ..loss import reduced as reduced_loss
from ..places import reduced
from ..reduce import add_up
from ..samples import Rand, Samples
from ..select import Where
from .repeat import broadcast_tensors


class CosineSimilarity(Op):
    """y = sum(x1 * x2) / (|x1| * |x2|) along `dim`, each norm at least `eps`: (*), (*) -> (*).

    dx1 = dy * (x2 / |x2| - y * x1 / |x1|) / |x1|, also for a norm that is raised to `eps`.
    RuntimeError for integers.
    """

    namespaces = "torch functional"
    fused = True
    saves = (
        *("x1", "x2", "x1 / |x1|", "x2 / |x2|", "|x1|", "|x2|"),
        *("|x1| or eps", "|x2| or eps", "the cosine"),
    )

    @staticmethod
    def call(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
        check_tensors("cosine_similarity", x1=x1, x2=x2)
        a, b = promote_operands(x1, x2)
        if a._array.shape != b._array.shape:
            a, b = broadcast_tensors(a, b)
        if not a.is_floating_point():
            raise RuntimeError(f"cosine_similarity: expected floats, got {a.dtype}")
        return CosineSimilarity.apply(a, b, dim=normal_dim(dim, a._array.ndim), eps=eps)

    def forward(ctx, a: np.ndarray, b: np.ndarray, *, dim: int, eps: float) -> np.ndarray:
        axes = (dim,) if a.ndim else ()
        norm_a, norm_b = (np.sqrt(add_up(x * x, axes, True)) for x in (a, b))
        most_a, most_b = np.maximum(norm_a, eps), np.maximum(norm_b, eps)
        unit_a, unit_b = a / most_a, b / most_b
        y = add_up(unit_a * unit_b, axes, True)
        ctx.save(a, b, unit_a, unit_b, norm_a, norm_b, most_a, most_b, y)
        return y.reshape(a.shape[:dim] + a.shape[dim + 1 :])

    @staticmethod
    def cell(a: np.ndarray, b: np.ndarray, *, dim: int, eps: float) -> str:
        over_a, over_b = (reduced(name, a.ndim, [dim]) for name in "ab")
        if not a.ndim:
            return "a * b / (max(abs(a), eps) * max(abs(b), eps))"
        norms = [f"max(sqrt(sum({over} ** 2)), eps)" for over in (over_a, over_b)]
        return f"sum({over_a} * {over_b}) / ({norms[0]} * {norms[1]})"

    def backward(ctx, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        a, b, unit_a, unit_b, norm_a, norm_b, most_a, most_b, y = ctx.saved
        dy = dy.reshape(y.shape)

        def gradient(x: np.ndarray, norm: np.ndarray, most: np.ndarray, other: Any) -> Any:
            own = x / np.where(norm == 0, 1, norm)
            return dy * (other - y * own) / most

        return gradient(a, norm_a, most_a, unit_b), gradient(b, norm_b, most_b, unit_a)

    @staticmethod
    def decomposition(a: Tensor, b: Tensor, *, dim: int, eps: float) -> Tensor:
        norms = [x.norm(2, dim, keepdim=True).clone() for x in (a, b)]
        with no_grad():  # a norm that is raised to eps passes its gradient on
            for norm in norms:
                norm.clamp_min_(eps)
        return (a / norms[0] * (b / norms[1])).sum(dim)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(3, 4), rand(3, 4)
        yield rand(2, 1, 4), rand(3, 4), dict(dim=-1)
        yield rand(4), rand(4), dict(dim=0, eps=1e-6)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(3, 4), rand(3, 5)
        yield rand.integers(0, 5, 3, 4), rand.integers(0, 5, 3, 4)
        yield rand(3), rand(3)


@composite(
    namespaces="torch functional",
    samples=lambda rand: [
        (rand(3, 4), rand(3, 4)),
        (rand(2, 1, 4), rand(3, 4), 1.0),
        (rand(4), rand(4), dict(p=3.0, eps=1e-3, keepdim=True)),
    ],
    errors=lambda rand: [(rand(3, 4), rand(3, 5))],
)
def pairwise_distance(
    x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Tensor:
    """y = |x1 - x2 + eps|_p along the last dimension: (*, D), (*, D) -> (*)."""
    return (x1 - x2 + eps).norm(p, -1, keepdim)


def _triplet_samples(rand: Rand) -> Samples:
    yield rand(3, 4), rand(3, 4), rand(3, 4)
    yield rand(3, 4), rand(3, 4), rand(3, 4), dict(margin=0.5, p=1.0, reduction="none")
    yield rand(3, 4), rand(3, 4), rand(3, 4), dict(swap=True, reduction="sum")


@composite(
    namespaces="functional",
    torch_name="nn.functional.triplet_margin_loss",
    samples=_triplet_samples,
    errors=lambda rand: [
        (rand(3, 4), rand(3, 4), rand(3, 4), dict(margin=0.0)),
        (rand(3, 4), rand(3, 4), rand(4)),
    ],
)
def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2,
    eps: float = 1e-6,
    swap: bool = False,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """y = max(d(anchor, positive) - d(anchor, negative) + margin, 0): three (N, D) -> () or (N).

    d is `pairwise_distance`. With `swap`, d(positive, negative) counts if it is less than
    d(anchor, negative): V. Balntas and others, "Learning shallow convolutional feature descriptors
    with triplet losses", 2016. ValueError unless `margin` is positive.
    """
    reduction = reduction_of(size_average, reduce, reduction)
    if margin <= 0:
        raise ValueError(f"triplet_margin_loss: margin must be greater than 0, got {margin}")
    if not anchor.ndim == positive.ndim == negative.ndim:
        raise RuntimeError(
            "triplet_margin_loss: the three must have as many dimensions, got shapes "
            f"{tuple(anchor.shape)}, {tuple(positive.shape)} and {tuple(negative.shape)}"
        )
    near = pairwise_distance(anchor, positive, p, eps)
    far = pairwise_distance(anchor, negative, p, eps)
    if swap:
        far = far.minimum(pairwise_distance(positive, negative, p, eps))
    return reduced_loss((near - far + margin).clamp_min(0.0), reduction)


def _cosine_samples(rand: Rand) -> Samples:
    target = rand.integers(0, 2, 3) * 2 - 1
    yield rand(3, 4), rand(3, 4), target
    yield rand(3, 4), rand(3, 4), target, dict(margin=-0.5, reduction="none")
    yield rand(4), rand(4), target[0], dict(reduction="sum")


@composite(
    namespaces="functional",
    torch_name="nn.functional.cosine_embedding_loss",
    samples=_cosine_samples,
    errors=lambda rand: [
        (rand(3, 4), rand(3, 4), rand(3, 4)),
        (rand(3, 4), rand(3, 5), rand(3)),
    ],
)
def cosine_embedding_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """1 - cos where the target is 1, max(cos - margin, 0) where -1: (N, D), (N, D), (N) -> ().

    cos is the cosine of input1 and input2; with reduction "none" the result is (N).
    """
    reduction = reduction_of(size_average, reduce, reduction)
    if not target.ndim + 1 == input1.ndim == input2.ndim or target.ndim > 1:
        raise RuntimeError(
            "cosine_embedding_loss: expected (N, D), (N, D), (N) or (D), (D), (), got "
            f"{tuple(input1.shape)}, {tuple(input2.shape)} and {tuple(target.shape)}"
        )
    squares = [(x * x).sum(-1) + 1e-12 for x in (input1, input2)]
    cos = (input1 * input2).sum(-1) / (squares[0] * squares[1]).sqrt()
    apart = (cos - margin).clamp_min(0.0)
    loss = Where.call(target == 1, 1 - cos, 0.0) + Where.call(target == -1, apart, 0.0)
    return reduced_loss(loss, reduction)
