"""Further losses: absolute and smooth distances, divergence, binary cross entropy."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...core import Op, Tensor
from ..checks import check_tensors, reduction_of
from ..composite import composite
from ..loss import DISTANCE, difference, reduced
from ..samples import Rand, Samples
from ..select import Where
from .activation import Logsigmoid


@composite(torch_name="nn.functional.l1_loss", **DISTANCE)
def l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """y = |input - target|: (*), (*) -> () or (*).  dinput = dy * sign(input - target)."""
    reduction = reduction_of(size_average, reduce, reduction)
    return reduced(difference("l1_loss", input, target).abs(), reduction)


class SmoothL1Loss(Op):
    """d^2 / (2 * beta) of d = |input - target| < beta, else d - beta / 2: (*), (*) -> () or (*).

    dinput = dy * (input - target) / beta, or dy * sign(input - target).
    """

    namespaces = "functional"
    torch_name = "nn.functional.smooth_l1_loss"
    cell = "d ** 2 * 0.5 / beta if abs(d) < beta else abs(d) - 0.5 * beta"

    @staticmethod
    def call(
        input: Tensor,
        target: Tensor,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        beta: float = 1.0,
    ) -> Tensor:
        reduction = reduction_of(size_average, reduce, reduction)
        if beta < 0:
            raise RuntimeError(f"smooth_l1_loss: beta must not be negative, got {beta}")
        d = difference("smooth_l1_loss", input, target)
        return reduced(SmoothL1Loss.apply(d, beta) if beta else d.abs(), reduction)

    def forward(ctx, d: np.ndarray, beta: float) -> np.ndarray:
        ctx.save(d, beta)
        a = np.abs(d)
        return np.where(a < beta, a * a * (0.5 / beta), a - 0.5 * beta)

    def backward(ctx, dy: Tensor) -> Tensor:
        d, beta = ctx.saved
        return dy * (d / beta).clamp(-1.0, 1.0)

    @staticmethod
    def decomposition(d: Tensor, beta: float) -> Tensor:
        d = d.abs()
        return Where.call(d < beta, d.square() * (0.5 / beta), d - 0.5 * beta)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(3, 4), rand(3, 4)
        yield rand(3, 4), rand(3, 4), dict(beta=0.5, reduction="none")
        yield rand(3, 4), rand(3, 4), dict(beta=0.0, reduction="sum")

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 3), rand(2, 3), dict(beta=-1.0)


class HuberLoss(Op):
    """d^2 / 2 of d = |input - target| < delta, else delta * (d - delta / 2): (*), (*) -> () or (*).

    dinput = dy * (input - target), within -delta and delta. P. Huber, "Robust estimation of a
    location parameter", 1964.
    """

    namespaces = "functional"
    torch_name = "nn.functional.huber_loss"
    cell = "d ** 2 * 0.5 if abs(d) < delta else (abs(d) - 0.5 * delta) * delta"

    @staticmethod
    def call(input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0) -> Tensor:
        if delta <= 0:
            raise RuntimeError(f"huber_loss: delta must be positive, got {delta}")
        loss = HuberLoss.apply(difference("huber_loss", input, target), delta)
        return reduced(loss, reduction_of(None, None, reduction))

    def forward(ctx, d: np.ndarray, delta: float) -> np.ndarray:
        ctx.save(d, delta)
        a = np.abs(d)
        return np.where(a < delta, a * a * 0.5, (a - 0.5 * delta) * delta)

    def backward(ctx, dy: Tensor) -> Tensor:
        d, delta = ctx.saved
        return dy * d.clamp(-delta, delta)

    @staticmethod
    def decomposition(d: Tensor, delta: float) -> Tensor:
        d = d.abs()
        return Where.call(d < delta, d.square() * 0.5, (d - 0.5 * delta) * delta)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(3, 4), rand(3, 4)
        yield rand(3, 4), rand(3, 4), dict(delta=0.5, reduction="none")

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 3), rand(2, 3), dict(delta=0.0)


def _kl_div_samples(rand: Rand) -> Samples:
    for reduction in ("mean", "sum", "batchmean", "none"):
        yield rand(2, 3), rand.uniform(0.1, 1, 2, 3), dict(reduction=reduction)
    yield rand(2, 3), rand(2, 3), dict(log_target=True, reduction="batchmean")
    yield rand(), rand.uniform(0.1, 1), dict(reduction="batchmean")


@composite(
    namespaces="functional",
    torch_name="nn.functional.kl_div",
    samples=_kl_div_samples,
    errors=lambda rand: [(rand(2, 3), rand.uniform(0, 1, 2, 3), dict(reduction="all"))],
)
def kl_div(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:
    """target * (log(target) - input), input being log-probabilities: (*), (*) -> () or (*).

    With `log_target` the target is log-probabilities too. A target of 0 has the loss 0. "mean"
    divides by the number of elements, "batchmean" by the length of the first dimension, as the
    divergence of distributions would have it.
    """
    reduction = reduction_of(size_average, reduce, reduction)
    check_tensors("kl_div", input=input, target=target)
    if log_target:
        loss = target.exp() * (target - input)
    else:
        loss = target * target.masked_fill(target == 0, 1.0).log() - target * input
    if reduction == "batchmean":
        return loss.sum() / (input.shape[0] if input._array.ndim else 1)
    return reduced(loss, reduction)


def _expect_same(name: str, input: Tensor, target: Tensor) -> None:
    if input.shape != target.shape:
        raise ValueError(
            f"{name}: the target's shape {tuple(target.shape)} must be the input's, "
            f"{tuple(input.shape)}"
        )
    if not target.is_floating_point():
        raise RuntimeError(f"{name}: the target must be of a floating type, got {target.dtype}")


class BinaryCrossEntropy(Op):
    """-(t * log(x) + (1 - t) * log(1 - x)) * weight for x, t in [0, 1]: (*), (*) -> () or (*).

    The logarithms are cut off at -100. dx = dy * (x - t) / max(x * (1 - x), 1e-12), dt = dy *
    (log(1 - x) - log(x)). RuntimeError for an input outside [0, 1].
    """

    namespaces = "functional"
    torch_name = "nn.functional.binary_cross_entropy"
    cell = "-(t * max(log(x), -100) + (1 - t) * max(log(1 - x), -100))"

    @staticmethod
    def call(
        input: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> Tensor:
        reduction = reduction_of(size_average, reduce, reduction)
        _expect_same("binary_cross_entropy", input, target)
        loss = BinaryCrossEntropy.apply(input, target)
        return reduced(loss if weight is None else loss * weight, reduction)

    def forward(ctx, x: np.ndarray, t: np.ndarray) -> Any:
        if not ((x >= 0) & (x <= 1)).all():
            raise RuntimeError("all elements of input should be between 0 and 1")
        ctx.save(x, t)
        return -(t * np.maximum(np.log(x), -100) + (1 - t) * np.maximum(np.log1p(-x), -100))

    def backward(ctx, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, t = ctx.saved
        wants_x, wants_t = ctx.needs_input_grad
        dx = dy * (x - t) / (x * (1 - x)).clamp(min=1e-12) if wants_x else None
        return dx, dy * ((1 - x).log() - x.log()) if wants_t else None

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand.uniform(0.1, 0.9, 2, 3), rand.uniform(0, 1, 2, 3)
        yield (
            rand.uniform(0.1, 0.9, 2, 3),
            rand.uniform(0, 1, 2, 3),
            rand.constant(3),
            dict(reduction="none"),
        )

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand.uniform(1, 2, 2, 3), rand.uniform(0, 1, 2, 3)
        yield rand.uniform(0, 1, 2, 3), rand.uniform(0, 1, 3)
        yield rand.uniform(0, 1, 2, 3), rand.integers(0, 2, 2, 3)


@composite(
    namespaces="functional",
    torch_name="nn.functional.binary_cross_entropy_with_logits",
    samples=lambda rand: [
        (rand(2, 3), rand.uniform(0, 1, 2, 3)),
        (rand(2, 3), rand.uniform(0, 1, 2, 3), rand.constant(3), dict(reduction="none")),
        (
            rand(2, 3),
            rand.uniform(0, 1, 2, 3),
            dict(reduction="sum", pos_weight=rand.constant(3)),
        ),
    ],
    errors=lambda rand: [(rand(2, 3), rand(3)), (rand(2, 3), rand.integers(0, 2, 2, 3))],
)
def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """-(pos_weight * t * log(s(x)) + (1 - t) * log(1 - s(x))) * weight: (*), (*) -> () or (*).

    s is the sigmoid; its logarithm is taken where large |x| do no harm.
    """
    reduction = reduction_of(size_average, reduce, reduction)
    _expect_same("binary_cross_entropy_with_logits", input, target)
    log_s = Logsigmoid.call(input)
    if pos_weight is not None:
        log_s = log_s * ((pos_weight - 1) * target + 1)
    loss = (1 - target) * input - log_s
    return reduced(loss if weight is None else loss * weight, reduction)
