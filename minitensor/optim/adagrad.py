"""Adagrad."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core import Tensor, wrap
from .optimizer import Group, Params, RuleOptimizer, check, direction


class Adagrad(RuleOptimizer):
    """Divide each step by the root of the sum of all squared gradients so far.

    sum += g^2;  p -= lr / (1 + t * lr_decay) * g / (sqrt(sum) + eps), for steps t = 0, 1, ...

    - `params`: tensors, (name, tensor) pairs or groups; see `Optimizer`.
    - `lr`: the learning rate (default 0.01); `lr_decay` lowers it from step to step.
    - `weight_decay`: an L2 penalty, g + weight_decay * p instead of g.
    - `initial_accumulator_value`: the sum before the first step.
    - `eps`: keeps the divisor away from 0.
    - `maximize`: ascend instead of descending.
    - `foreach`, `fused`: accepted for PyTorch's sake, without effect.
    - `differentiable`: not there; RuntimeError if True.

    Raises ValueError for a negative setting.

    J. Duchi, E. Hazan, Y. Singer, "Adaptive Subgradient Methods for Online Learning and Stochastic
    Optimization", 2011.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
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
                foreach=foreach,
                maximize=maximize,
                differentiable=differentiable,
                fused=fused,
            ),
        )
        for group in self.param_groups:
            for p in group["params"]:
                start = group["initial_accumulator_value"]
                self.state[p]["step"] = wrap(np.zeros((), np.float32))
                self.state[p]["sum"] = wrap(np.full_like(p._array, start))

    def _update(
        self, group: Group, params: list[Tensor], grads: list[np.ndarray], records: Any
    ) -> None:
        for p, g in zip(params, grads, strict=True):
            state = self.state[p]
            d = direction(group, p, g)
            rate = float(group["lr"]) / (1 + state["step"].item() * group["lr_decay"])
            state["step"]._array += 1
            total = state["sum"]._array
            total += d * d
            array = p._array
            array -= rate * d / (np.sqrt(total) + group["eps"])
