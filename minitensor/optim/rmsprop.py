"""RMSprop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..core import wrap
from .optimizer import Optimizer, check, run_closure, with_gradients


class RMSprop(Optimizer):
    """Steps of `lr` against the gradient over the root of the running mean of its square.

    `alpha` is the share of the old mean, `eps` is added to the root, `weight_decay` an L2 penalty;
    `momentum` sums the steps up, `centered` subtracts the squared mean gradient from the mean
    square, `maximize` goes with the gradient.

    T. Tieleman, G. Hinton, Lecture 6.5 of "Neural Networks for Machine Learning", 2012; centered as
    in A. Graves, "Generating Sequences With Recurrent Neural Networks", 2013.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
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
                maximize=maximize,
            ),
        )

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; returns the loss of `closure`."""
        loss = run_closure(closure)
        for group in self.param_groups:
            alpha = group["alpha"]
            for p, g in with_gradients(group):
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
                d = -g if group["maximize"] else g
                if group["weight_decay"]:
                    d = d + group["weight_decay"] * x
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
                p._bump()
        return loss
