"""Losses of class scores: cross entropy, and the negative log-likelihood it is composed of."""

from __future__ import annotations

from operator import index as as_int
from typing import Any

import numpy as np

from ..core import Op, Tensor, wrap
from ..kernels import cross_entropy as kernel
from ..memory import empty_like, zeros
from .checks import check_floating, check_tensors, reduction_of
from .composite import composite
from .index import in_range, put_along, taken
from .loss import reduced
from .places import LOOPS, PLACE, at, times
from .samples import Rand, Samples, strided


def _expect_class_weights(name: str, shape: tuple[int, ...], weight: Tensor) -> None:
    """Raise RuntimeError unless there is a weight for each class of scores of a shape."""
    classes = shape[min(len(shape), 2) - 1]
    if weight._array.shape != (classes,):
        raise RuntimeError(
            f"{name}: weight needs one value for each of the {classes} classes, but its shape is "
            f"{tuple(weight.shape)}"
        )


def expect_smoothing(name: str, label_smoothing: float) -> None:
    """Raise RuntimeError unless a share is between 0 and 1."""
    if not 0 <= label_smoothing <= 1:
        raise RuntimeError(
            f"{name}: label_smoothing must be between 0.0 and 1.0, got {label_smoothing}"
        )


def expect_classes(
    name: str, input: Tensor, shape: tuple[int, ...], target: Tensor, weight: Tensor | None
) -> None:
    """Raise PyTorch's errors unless a target and weights fit scores of a shape, made of `input`."""
    check_floating(name, input)
    found = target._array.shape
    if target._array.dtype not in (np.int64, np.uint8):
        raise RuntimeError(
            f"{name}: expected target dtype int64 or uint8, but got {target.dtype}: use .long()"
        )
    if len(shape) == 1:
        if len(found) > 1 or target.numel() != 1:
            raise ValueError(
                f"{name}: for scores of shape (C,) = {shape} the target is one class index, but "
                f"its shape is {found}"
            )
    elif shape and shape[:1] != found[:1]:
        raise ValueError(
            f"{name}: expected input batch_size ({shape[0]}) to match target batch_size "
            f"({found[0] if found else 0})"
        )
    elif not shape or found != shape[:1] + shape[2:]:
        raise RuntimeError(
            f"{name}: for scores of shape (N, C, ...) = {shape} the target should have shape "
            f"(N, ...) = {shape[:1] + shape[2:]}, but it has {found}"
        )
    if weight is not None:
        _expect_class_weights(name, shape, weight)
        if weight.dtype != input.dtype:
            raise RuntimeError(
                f"{name}: the scores are {input.dtype} and weight is {weight.dtype}: convert one"
            )


def row_letter(reduction: str) -> str:
    """Return the letter that counts the rows in a cell of the loss."""
    return "i" if reduction == "none" else "k"


def loss_cell(
    row: str,
    chosen: str,
    target: np.ndarray,
    weight: np.ndarray | None,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
) -> str:
    """Return the cell of the loss of scores: of all scores of a row, and of its target's."""
    n = row_letter(reduction)
    share = 1 - label_smoothing
    if weight is None:
        loss = f"logsumexp({row})"
        loss += f" - {times(share, chosen)}" if share else ""
        loss += f" - {label_smoothing} * mean({row})" if label_smoothing else ""
    else:
        parts = [
            times(share, f"weight[target[{n}]] * (logsumexp({row}) - {chosen})"),
            times(label_smoothing, f"mean(weight[:] * (logsumexp({row}) - {row}))"),
        ]
        shares = (share, label_smoothing)
        loss = " + ".join(p for p, s in zip(parts, shares, strict=True) if s)
    ignores = bool((target == ignore_index).any())
    if reduction == "none":
        return f"0 if target[i] == ignore_index else {loss}" if ignores else loss
    items = f" for k in range({len(target)})"
    items += f" if target[k] != {ignore_index}" if ignores else ""
    if reduction == "sum" or weight is None:
        return f"{reduction}({loss}{items})"
    return f"sum({loss}{items}) / sum(weight[target[k]]{items})"


class CrossEntropy(Op):
    """Cross entropy of softmax(logits) with a target: (N, C, *), (N, *) -> () or (N, *).

    The target holds class indices, or probabilities in the shape of the logits. One item without
    a batch is (C), (). With weights w (C) and label_smoothing e, an item of class t has the loss
    -(1 - e) * w[t] * logp[t] - e / C * sum(w * logp), and 0 if t is `ignore_index`; the mean is
    over the weights of the targets that count, NaN if there are none. IndexError for another target
    outside [0, C).

    Without weights, dlogits = dloss * (p - (1 - e) * onehot(t) - e / C), p the softmax, computed
    in forward. C. Szegedy and others, "Rethinking the Inception architecture for computer vision",
    2016, for label smoothing.
    """

    namespaces = "functional"
    torch_name = "nn.functional.cross_entropy"
    fused = True
    saves = ("gradient of x, computed ahead",)

    @staticmethod
    def call(
        input: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        ignore_index: int = -100,
        reduce: bool | None = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> Tensor:
        reduction = reduction_of(size_average, reduce, reduction)
        expect_smoothing("cross_entropy", label_smoothing)
        check_tensors("cross_entropy", input=input, target=target)
        if input._array.shape == target._array.shape and input.ndim:
            return soft_cross_entropy(input, target, weight, reduction, label_smoothing)
        expect_classes("cross_entropy", input, input._array.shape, target, weight)
        x, t = input, target
        if input.ndim == 1:
            x, t = input.unsqueeze(0), target.reshape(1)
        elif input.ndim > 2:
            x, t = input.movedim(1, -1).reshape(target.numel(), -1), target.flatten()
        loss = CrossEntropy.apply(
            x,
            t,
            weight,
            ignore_index=as_int(ignore_index),
            reduction=reduction,
            label_smoothing=float(label_smoothing),
        )
        if reduction == "none" and input.ndim != 2:
            return loss.reshape(input.shape[:0] if input.ndim == 1 else target.shape)
        return loss

    def forward(
        ctx,
        x: np.ndarray,
        target: np.ndarray,
        weight: np.ndarray | None,
        *,
        ignore_index: int,
        reduction: str,
        label_smoothing: float,
    ) -> Any:
        loss, total, dx = kernel.cross_entropy(
            x,
            target,
            weight,
            ignore_index,
            label_smoothing,
            mean=reduction == "mean",
            want_gradient=ctx.needs_input_grad[0],
        )
        ctx.save(dx, reduction)
        if reduction == "none":
            return loss.astype(x.dtype, copy=False)
        whole = loss.sum()
        return np.asarray(whole if reduction == "sum" else whole / total, x.dtype)

    @staticmethod
    def cell(
        x: np.ndarray,
        target: np.ndarray,
        weight: np.ndarray | None,
        *,
        ignore_index: int,
        reduction: str,
        label_smoothing: float,
    ) -> str:
        n = row_letter(reduction)
        row, chosen = f"x[{n}, :]", f"x[{n}, target[{n}]]"
        return loss_cell(row, chosen, target, weight, ignore_index, reduction, label_smoothing)

    def backward(ctx, dy: np.ndarray) -> np.ndarray:
        dx, reduction = ctx.saved
        if reduction == "none":
            return np.multiply(dx, dy[:, None], out=empty_like(dx))
        return dx if dy == 1 else np.multiply(dx, dy, out=empty_like(dx))

    @staticmethod
    def decomposition(
        x: Tensor,
        target: Tensor,
        weight: Tensor | None,
        *,
        ignore_index: int,
        reduction: str,
        label_smoothing: float,
    ) -> Tensor:
        log_p = x.log_softmax(1)

        def nll(log_p: Tensor) -> Tensor:
            return NllLoss.call(log_p, target, weight, None, ignore_index, None, "none")

        loss = nll(log_p) * (1 - label_smoothing)
        if label_smoothing:
            smooth = log_p if weight is None else log_p * weight
            smooth = smooth.sum(1).masked_fill(target == ignore_index, 0.0)
            loss = loss - smooth * (label_smoothing / x.shape[1])
        if reduction != "mean":
            return reduced(loss, reduction)
        # The sum of the weights of the targets that count: their loss where every log_p is -1.
        weights = nll(wrap(np.full(x.shape, -1, x.dtype))).sum()
        return loss.sum() / weights

    @staticmethod
    def samples(rand: Rand) -> Samples:
        t = rand.integers(0, 4, 3)
        yield rand(3, 4), t
        yield rand(3, 4), t, dict(label_smoothing=0.1, reduction="sum")
        yield rand(3, 4), t, rand.constant(4).square(), dict(label_smoothing=0.2)
        yield rand(3, 4), t, rand.constant(4).square(), dict(reduction="none", ignore_index=1)
        yield rand(2, 4, 3), rand.integers(0, 4, 2, 3), dict(reduction="none")
        yield rand(2, 4, 2, 2), rand.integers(0, 4, 2, 2, 2), dict(ignore_index=2)
        yield rand(4), rand.integers(0, 4), dict(reduction="none")
        yield strided(rand(4, 3)), t, dict(label_smoothing=1.0)
        yield rand(0, 4), rand.integers(0, 4, 0), dict(reduction="sum")

    @staticmethod
    def errors(rand: Rand) -> Samples:
        t = rand.integers(0, 4, 3)
        yield rand(3, 4), rand.integers(4, 5, 3)
        yield rand(3, 4), rand.integers(-1, 0, 3)
        yield rand(3, 4), rand.integers(0, 4, 3, dtype=np.int32)
        yield rand(3, 4), rand.integers(0, 4, 2)
        yield rand(3, 4), rand.constant(3)
        yield rand(3, 4), rand.integers(0, 4, 3, 4)
        yield rand(4), rand.integers(0, 4, 2)
        yield rand(2, 4, 3), rand.integers(0, 4, 2, 2)
        yield rand(2, 4, 3), rand.integers(0, 4, 2)
        yield rand(3, 4), t, rand.constant(3)
        yield rand(3, 4), t, dict(reduction="all")
        yield rand(3, 4), t, dict(label_smoothing=1.5)
        yield rand.integers(0, 4, 3, 4), t


@composite(
    namespaces="",
    torch_name="nn.functional.cross_entropy",
    samples=lambda rand: [
        (rand(3, 4), rand.uniform(0, 1, 3, 4)),
        (rand(3, 4), rand.uniform(0, 1, 3, 4), rand.constant(4), dict(reduction="sum")),
        (
            rand(2, 4, 3),
            rand.uniform(0, 1, 2, 4, 3),
            rand.constant(4),
            dict(label_smoothing=0.1, reduction="none"),
        ),
        (rand(4), rand.uniform(0, 1, 4)),
    ],
    errors=lambda rand: [(rand(3, 4), rand.integers(0, 4, 3, 4))],
)
def soft_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross entropy of softmax(logits) with probabilities: (N, C, *), (N, C, *) -> () or (N, *).

    -sum(w * target * log_softmax(logits)) over the classes, with class weights w (C); with label
    smoothing e the target is (1 - e) * target + e / C. The mean is over N and *.
    """
    if not target.is_floating_point():
        raise RuntimeError(
            "cross_entropy: a target in the shape of the logits holds class probabilities and "
            f"must be of a floating type, got {target.dtype}"
        )
    dim = 0 if input.ndim == 1 else 1
    if label_smoothing:
        target = target * (1 - label_smoothing) + label_smoothing / input.shape[dim]
    log_p = input.log_softmax(dim)
    if weight is not None:
        _expect_class_weights("cross_entropy", input._array.shape, weight)
        log_p = log_p * weight.reshape(-1, *[1] * (input.ndim - dim - 1))
    return reduced(-(log_p * target).sum(dim), reduction)


class NllLoss(Op):
    """-w[t] * logp[t] for log-probabilities, class indices t: (N, C, *), (N, *) -> () or (N, *).

    As in `cross_entropy`, targets equal to `ignore_index` are left out, and the mean is over the
    weights of the others, NaN if there are none.  dlogp[t] = -w[t] * dloss.
    """

    namespaces = "functional"
    torch_name = "nn.functional.nll_loss"
    fused = True
    saves = ("", "classes", "left out", "weight")

    @staticmethod
    def call(
        input: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        ignore_index: int = -100,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> Tensor:
        reduction, ignore_index = (
            reduction_of(size_average, reduce, reduction),
            as_int(ignore_index),
        )
        check_tensors("nll_loss", input=input, target=target)
        expect_classes("nll_loss", input, input._array.shape, target, weight)
        return NllLoss.apply(input, target, weight, ignore_index=ignore_index, reduction=reduction)

    def forward(
        ctx,
        x: np.ndarray,
        target: np.ndarray,
        weight: np.ndarray | None,
        *,
        ignore_index: int,
        reduction: str,
    ) -> np.ndarray:
        dim = min(x.ndim, 2) - 1
        shape = (*x.shape[:dim], 1, *x.shape[dim + 1 :])
        classes = target.astype(np.int64, copy=False).reshape(shape)
        ignored = classes == ignore_index
        left_out = int(np.count_nonzero(ignored))
        index = np.where(ignored, 0, classes) if left_out else classes
        total: float = classes.size - left_out
        if weight is not None or not in_range(index, 0, x.shape[dim]):
            weights = kernel.class_weights(weight, x.shape[dim], np.float64)
            total = kernel.sum_target_weights(classes.reshape(-1), weights, ignore_index)
        loss = -taken(x, index, dim)
        if weight is not None:
            loss *= weight[index]
        if left_out:
            loss[ignored] = 0
        ctx.save(x.shape, index, ignored if left_out else None, weight, dim, total, reduction)
        if reduction == "none":
            return loss.reshape(shape[:dim] + shape[dim + 1 :])
        whole = np.asarray(np.add.reduce(loss.reshape(-1), 0))
        return whole if reduction == "sum" else np.true_divide(whole, total, dtype=x.dtype)

    @staticmethod
    def cell(
        x: np.ndarray,
        target: np.ndarray,
        weight: np.ndarray | None,
        *,
        ignore_index: int,
        reduction: str,
    ) -> str:
        dim, lengths = min(x.ndim, 2) - 1, target.shape if x.ndim > 1 else (1,) * target.ndim
        letters = [*(PLACE if reduction == "none" and x.ndim > 1 else LOOPS)[: len(lengths)]]
        one = ["0"] * target.ndim
        chosen = at("target", letters if x.ndim > 1 else one)
        place = [*letters[:dim], chosen, *letters[dim:]] if x.ndim > 1 else [chosen]
        loss = f"-{at('x', place)}" + (f" * weight[{chosen}]" if weight is not None else "")
        ignores = bool((target == ignore_index).any())
        if reduction == "none":
            return f"0 if {chosen} == {ignore_index} else {loss}" if ignores else loss
        items = "".join(f" for {k} in range({n})" for k, n in zip(letters, lengths, strict=True))
        items = items or " for k in range(1)"
        items += f" if {chosen} != {ignore_index}" if ignores else ""
        if reduction == "sum" or weight is None:
            return f"{reduction}({loss}{items})"
        return f"sum({loss}{items}) / sum(weight[{chosen}]{items})"

    def backward(ctx, dy: np.ndarray) -> np.ndarray:
        shape, index, ignored, weight, dim, total, reduction = ctx.saved
        given = -dy / dy.dtype.type(total) if reduction == "mean" else -dy
        given = given.reshape(index.shape) if reduction == "none" else given
        scaled = given if weight is None else given * weight[index]
        if ignored is not None:
            scaled = np.where(ignored, 0, scaled)
        dx = zeros(shape, dy.dtype)
        put_along(dx, index, scaled, dim)
        return dx

    @staticmethod
    def decomposition(
        x: Tensor, target: Tensor, weight: Tensor | None, *, ignore_index: int, reduction: str
    ) -> Tensor:
        dim = min(x.ndim, 2) - 1
        classes = target._array.astype(np.int64).reshape(x.shape[:dim] + x.shape[dim + 1 :])
        ignored = np.asarray(classes == ignore_index)
        index = wrap(np.where(ignored, 0, classes))
        loss = -x.gather(dim, index.unsqueeze(dim)).squeeze(dim)
        if weight is not None:
            loss = loss * weight[index]
        loss = loss.masked_fill(wrap(ignored), 0.0)
        if reduction != "mean":
            return reduced(loss, reduction)
        weights = kernel.class_weights(None if weight is None else weight._array, x.shape[dim], "d")
        return loss.sum() / kernel.sum_target_weights(classes.reshape(-1), weights, ignore_index)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        t = rand.integers(0, 4, 3)
        yield rand(3, 4), t
        yield rand(3, 4), t, rand.constant(4).square(), dict(ignore_index=2)
        yield rand(3, 4), t, dict(reduction="none", ignore_index=1)
        yield rand(2, 4, 3), rand.integers(0, 4, 2, 3), dict(reduction="sum")
        yield rand(4), rand.integers(0, 4)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        t = rand.integers(0, 4, 3)
        yield rand(3, 4), rand.integers(4, 5, 3)
        yield rand(3, 4), rand.integers(0, 4, 3, dtype=np.int32)
        yield rand(3, 4), rand.integers(0, 4, 2)
        yield rand(2, 4, 3), rand.integers(0, 4, 2, 2)
        yield rand(3, 4), t, rand.constant(3)
        yield rand(3, 4), t, dict(reduction="all")
