"""RMSprop."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core import Tensor, wrap
from .optimizer import Group, Params, RuleOptimizer, check, direction


class RMSprop(RuleOptimizer):
    """Divide each step by the root of a running mean of squared gradients.

    v = alpha * v + (1 - alpha) * g^2;  p -= lr * g / (sqrt(v) + eps)

    - `params`: tensors, (name, tensor) pairs or groups; see `Optimizer`.
    - `lr`: the learning rate (default 0.01).
    - `alpha`: the share of the old mean (default 0.99).
    - `eps`: keeps the divisor away from 0.
    - `weight_decay`: an L2 penalty, g + weight_decay * p instead of g.
    - `momentum`: step along a running sum of steps, b = momentum * b + g / (sqrt(v) + eps).
    - `centered`: divide by the root of a running variance, v - (running mean of g)^2.
    - `maximize`: ascend instead of descending.
    - `capturable`, `foreach`: accepted for PyTorch's sake, without effect.
    - `differentiable`: not there; RuntimeError if True.

    Raises ValueError for a negative setting.

    T. Tieleman, G. Hinton, Lecture 6.5 of "Neural Networks for Machine Learning", 2012; centered as
    in A. Graves, "Generating Sequences With Recurrent Neural Networks", 2013.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        check(lr=lr, eps=eps, momentum=momentum, weight_decay=weight_decay, alpha=alpha)
        super().__init__(
            params,
            dict(
                lr=lr,
                momentum=momentum,
                alpha=alpha,
                eps=eps,
                centered=centered,
                weight_decay=weight_decay,
                capturable=capturable,
                foreach=foreach,
                maximize=maximize,
                differentiable=differentiable,
            ),
        )

    def _update(
        self, group: Group, params: list[Tensor], grads: list[np.ndarray], records: Any
    ) -> None:
        alpha = group["alpha"]
        for p, g in zip(params, grads, strict=True):
            state = self.state[p]
            if not state:
                state["step"] = wrap(np.zeros((), np.float32))
                state["square_avg"] = wrap(np.zeros_like(p._array))
                if group["momentum"] > 0:
                    state["momentum_buffer"] = wrap(np.zeros_like(p._array))
                if group["centered"]:
                    state["grad_avg"] = wrap(np.zeros_like(p._array))
            state["step"]._array += 1
            x = p._array
            d = direction(group, p, g)
            square = state["square_avg"]._array
            square *= alpha
            square += (1 - alpha) * d * d
            if group["centered"]:
                mean = state["grad_avg"]._array
                mean += (1 - alpha) * (d - mean)
                square = square - mean * mean
            move = d / (np.sqrt(square) + group["eps"])
            if group["momentum"] > 0:
                buffer = state["momentum_buffer"]._array
                buffer *= group["momentum"]
                buffer += move
                move = buffer
            x -= float(group["lr"]) * move
