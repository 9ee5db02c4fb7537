"""Linear and cross entropy in one, for scores that are too many to keep: those of a vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index as as_int
from typing import Any

import numpy as np

from ..core import Op, Tensor
from ..kernels import linear_cross_entropy as kernel
from .checks import check_one_dtype, check_tensors, reduction_of
from .cross_entropy import CrossEntropy, expect_classes, expect_smoothing, loss_cell, row_letter
from .linear import Linear
from .samples import Rand, Samples, strided


class LinearCrossEntropy(Op):
    """Cross entropy of scores x wᵀ + b with class indices: (N, E), (C, E), (C), (N) -> () or (N).

    As `linear` and `cross_entropy` in turn, but the scores (N, C) never exist as a whole: they are
    computed in chunks of rows, and so are their gradients. Memory grows with N and with C, not with
    their product. One item is (E), (C, E), () -> (); a weight (C, *, E) and a bias (C, *) give
    scores (N, C, *), and a target of their shape holds probabilities: those two are computed whole.

    With dz the gradient of the scores z: dx = dz w, dw = dzᵀ x, db = the sum of dz. They are
    computed in forward, except with reduction "none", and given away: a second backward pass
    computes them again. `options`, which ask PyTorch for chunks, are accepted and not used.

    RuntimeError for shapes that do not fit, and for an `ignore_index` beside probabilities;
    IndexError for a target that is neither a class nor `ignore_index`, -100 by default.
    """

    namespaces = "functional"
    torch_name = "nn.functional.linear_cross_entropy"
    fused = True
    fresh = True
    one_type = True
    saves = ("x", "w", "b", "target", "weight", "dx", "dw", "db")
    given = False  # the gradients made in forward were given away

    @staticmethod
    def call(
        input: Tensor,
        linear_weight: Tensor,
        target: Tensor,
        *,
        linear_bias: Tensor | None = None,
        weight: Tensor | None = None,
        reduction: str = "mean",
        ignore_index: int | None = None,
        label_smoothing: float = 0.0,
        options: object = None,
    ) -> Tensor:
        name = "linear_cross_entropy"
        check_tensors(name, input=input, linear_weight=linear_weight, target=target)
        x, w = input._array.shape, linear_weight._array.shape
        if len(x) not in (1, 2) or len(w) < 2 or x[-1] != w[-1] or (len(x) == 1 and len(w) > 2):
            raise RuntimeError(
                f"{name}: expected input (N, E) or (E) and linear_weight (C, E), or (C, *, E) for "
                f"an input (N, E), got {x} and {w}"
            )
        if linear_bias is not None and linear_bias._array.shape != w[:-1]:
            raise RuntimeError(
                f"{name}: linear_bias should have shape {w[:-1]}, one for each score, but it has "
                f"{linear_bias._array.shape}"
            )
        shape = (*x[:-1], *w[:-1])  # of the scores
        soft = target._array.shape == shape
        if soft and ignore_index is not None:
            raise RuntimeError(f"{name}: ignore_index has no meaning for a target of probabilities")
        ignore_index = -100 if ignore_index is None else as_int(ignore_index)
        if soft or len(w) > 2:
            b = None if linear_bias is None else linear_bias.flatten()
            scores = Linear.call(input, linear_weight.reshape(-1, w[-1]), b).reshape(shape)
            return CrossEntropy.call(
                scores, target, weight, None, ignore_index, None, reduction, label_smoothing
            )
        reduction = reduction_of(None, None, reduction)
        expect_smoothing(name, label_smoothing)
        expect_classes(name, input, shape, target, weight)
        single = len(x) == 1
        loss = LinearCrossEntropy.apply(
            input.unsqueeze(0) if single else input,
            linear_weight,
            linear_bias,
            target.reshape(1) if single else target,
            weight,
            ignore_index=ignore_index,
            reduction=reduction,
            label_smoothing=float(label_smoothing),
        )
        return loss.reshape(()) if single else loss

    def forward(
        ctx,
        x: np.ndarray,
        w: np.ndarray,
        b: np.ndarray | None,
        target: np.ndarray,
        weight: np.ndarray | None,
        *,
        ignore_index: int,
        reduction: str,
        label_smoothing: float,
    ) -> Any:
        check_one_dtype(*(a for a in (x, w, b) if a is not None))
        settings = ignore_index, label_smoothing, reduction == "mean"
        ahead = ctx.needs_input_grad[:3] if reduction != "none" else (False, False, False)
        loss, total, grads = kernel.linear_cross_entropy(x, w, b, target, weight, ahead, *settings)
        ctx.save(x, w, b, target, weight, *grads, settings)
        if reduction == "none":
            return loss
        whole = loss.sum()
        return np.asarray(whole if reduction == "sum" else whole / total, x.dtype)

    @staticmethod
    def cell(
        x: np.ndarray,
        w: np.ndarray,
        b: np.ndarray | None,
        target: np.ndarray,
        weight: np.ndarray | None,
        *,
        ignore_index: int,
        reduction: str,
        label_smoothing: float,
    ) -> str:
        n = row_letter(reduction)
        row, chosen = f"w[:, :] @ x[{n}, :]", f"w[target[{n}], :] @ x[{n}, :]"
        if b is not None:
            row, chosen = f"({row} + b[:])", f"({chosen} + b[target[{n}]])"
        return loss_cell(row, chosen, target, weight, ignore_index, reduction, label_smoothing)

    def backward(ctx, dy: np.ndarray) -> tuple[np.ndarray | None, ...]:
        x, w, b, target, weight, *grads, settings = ctx.saved
        if ctx.given or dy.ndim:
            ignore, smoothing, mean = settings
            needs, dloss = ctx.needs_input_grad[:3], np.broadcast_to(dy, len(x))
            _, _, again = kernel.linear_cross_entropy(
                x, w, b, target, weight, needs, ignore, smoothing, mean, dloss
            )
            return again
        ctx.given = True
        for grad in grads:
            if grad is not None and dy != 1:
                grad *= dy
        return tuple(grads)

    @staticmethod
    def flops(args: Sequence[Any], kwargs: Any, outs: Sequence[Tensor]) -> int:
        return 2 * args[0].numel() * args[1].size(0)

    @staticmethod
    def backward_flops(
        args: Sequence[Any], kwargs: Any, outs: Sequence[Tensor], needs: Sequence[bool]
    ) -> int:
        return sum(needs[:2]) * LinearCrossEntropy.flops(args, kwargs, outs)  # dx and dw

    @staticmethod
    def decomposition(
        x: Tensor,
        w: Tensor,
        b: Tensor | None,
        target: Tensor,
        weight: Tensor | None,
        **settings: Any,
    ) -> Tensor:
        return CrossEntropy.apply(Linear.apply(x, w, b), target, weight, **settings)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        t, weight = rand.integers(0, 4, 3), rand.constant(4).square()
        yield rand(3, 2), rand(4, 2), t
        yield rand(3, 2), rand(4, 2), t, dict(linear_bias=rand(4), label_smoothing=0.1)
        yield rand(3, 2), rand(4, 2), t, dict(linear_bias=rand(4), weight=weight, reduction="sum")
        yield rand(3, 2), rand(4, 2), t, dict(weight=weight, label_smoothing=0.2, ignore_index=1)
        yield rand(3, 2), rand(4, 2), t, dict(reduction="none", linear_bias=rand(4), ignore_index=2)
        yield rand(2), rand(4, 2), rand.integers(0, 4), dict(linear_bias=rand(4), reduction="none")
        yield strided(rand(2, 3)), rand(4, 2), t, dict(label_smoothing=1.0)
        yield rand(0, 2), rand(4, 2), rand.integers(0, 4, 0), dict(reduction="sum")
        yield rand.constant(3, 2), rand(4, 2), t, dict(linear_bias=rand.constant(4))
        yield rand(3, 2), rand.constant(4, 2), t, dict(linear_bias=rand(4))

    @staticmethod
    def errors(rand: Rand) -> Samples:
        t = rand.integers(0, 4, 3)
        yield rand(3, 2), rand(4, 2), rand.integers(4, 5, 3)
        yield rand(3, 2), rand(4, 2), rand.integers(-1, 0, 3)
        yield rand(3, 2), rand(4, 3), t
        yield rand(3, 2), rand(2), t
        yield rand(3, 1, 2), rand(4, 2), t
        yield rand(2), rand(4, 5, 2), rand.integers(0, 4, 5)
        yield rand(3, 2), rand(4, 2), t, dict(linear_bias=rand(3))
        yield rand(3, 2), rand(4, 2), t, dict(weight=rand.constant(3))
        yield rand(3, 2), rand(4, 2), t, dict(label_smoothing=1.5)
        yield rand(3, 2), rand(4, 2), t, dict(reduction="all")
        yield rand(3, 2), rand(4, 2), rand.integers(0, 4, 2)
        yield rand(3, 2), rand(4, 2), rand.constant(3)
        yield rand(3, 2), rand(4, 2), rand.uniform(0, 1, 3, 4), dict(ignore_index=1)
        yield rand(3, 2), rand.integers(0, 5, 4, 2), t
