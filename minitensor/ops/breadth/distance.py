"""Distances and angles between vectors, and the losses made of them."""

from __future__ import annotations

from ...autograd import no_grad
from ...core import Tensor
from ..checks import reduction_of
from ..composite import composite
from ..convert import promote
from ..loss import reduced
from ..samples import Rand, Samples
from ..select import Where
from .repeat import broadcast_tensors


@composite(
    namespaces="torch functional",
    samples=lambda rand: [
        (rand(3, 4), rand(3, 4)),
        (rand(2, 1, 4), rand(3, 4), dict(dim=-1)),
        (rand(4), rand(4), dict(dim=0, eps=1e-6)),
    ],
    errors=lambda rand: [
        (rand(3, 4), rand(3, 5)),
        (rand.integers(0, 5, 3, 4), rand.integers(0, 5, 3, 4)),
        (rand(3), rand(3)),
    ],
)
def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """y = sum(x1 * x2) / (|x1| * |x2|) along `dim`, each norm at least `eps`: (*), (*) -> (*).

    RuntimeError for integers.
    """
    a, b = broadcast_tensors(*promote(x1, x2))
    if not a.is_floating_point():
        raise RuntimeError(f"cosine_similarity: expected floats, got {a.dtype}")
    norms = [x.norm(2, dim, keepdim=True).clone() for x in (a, b)]
    with no_grad():  # a norm that is raised to eps passes its gradient on
        for norm in norms:
            norm.clamp_min_(eps)
    return (a / norms[0] * (b / norms[1])).sum(dim)


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
    return reduced((near - far + margin).clamp_min(0.0), reduction)


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
    return reduced(loss, reduction)
