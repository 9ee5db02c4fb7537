"""Adagrad."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..core import wrap
from .optimizer import Optimizer, check, run_closure, with_gradients


class Adagrad(Optimizer):
    """Steps of `lr` against the gradient over the root of the sum of all its squares so far.

    `lr_decay` shrinks the rate with each step, `initial_accumulator_value` starts the sum, `eps` is
    added to the root, `weight_decay` is an L2 penalty, `maximize` goes with the gradient.

    J. Duchi, E. Hazan, Y. Singer, "Adaptive Subgradient Methods for Online Learning and Stochastic
    Optimization", 2011.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
    ) -> None:
        check(lr=lr, lr_decay=lr_decay, weight_decay=weight_decay, eps=eps)
        check(initial_accumulator_value=initial_accumulator_value)
        super().__init__(
            params,
            dict(
                lr=lr,
                lr_decay=lr_decay,
                eps=eps,
                weight_decay=weight_decay,
                initial_accumulator_value=initial_accumulator_value,
                maximize=maximize,
            ),
        )
        for group in self.param_groups:
            for p in group["params"]:
                start = group["initial_accumulator_value"]
                self.state[p]["step"] = wrap(np.zeros((), np.float32))
                self.state[p]["sum"] = wrap(np.full_like(p._array, start))

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; returns the loss of `closure`."""
        loss = run_closure(closure)
        for group in self.param_groups:
            for p, g in with_gradients(group):
                state = self.state[p]
                d = -g if group["maximize"] else g
                if group["weight_decay"]:
                    d = d + group["weight_decay"] * p._array
                rate = float(group["lr"]) / (1 + state["step"].item() * group["lr_decay"])
                state["step"]._array += 1
                total = state["sum"]._array
                total += d * d
                array = p._array
                array -= rate * d / (np.sqrt(total) + group["eps"])
                p._bump()
        return loss
