"""Adam and AdamW."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import memory
from ..core import Tensor, wrap
from ..kernels import adam as kernel
from .optimizer import Group, Params, RuleOptimizer, check


class Adam(RuleOptimizer):
    """Step by the running mean of the gradient over the root of its running mean square.

    m = beta1 * m + (1 - beta1) * g;  v = beta2 * v + (1 - beta2) * g^2;
    p -= lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps), for steps t = 1, 2, ...

    - `params`: tensors, (name, tensor) pairs or groups; see `Optimizer`.
    - `lr`: the learning rate, about the size of a step (default 0.001).
    - `betas`: the shares of the old in the two means (default 0.9 and 0.999).
    - `eps`: keeps the divisor away from 0.
    - `weight_decay`: an L2 penalty, g + weight_decay * p instead of g.
    - `amsgrad`: divide by the root of the largest v so far.
    - `maximize`: ascend instead of descending.
    - `decoupled_weight_decay`: decay as AdamW does.
    - `foreach`, `capturable`, `fused`: accepted for PyTorch's sake, without effect.
    - `differentiable`: not there; RuntimeError if True.

    Raises ValueError for a negative setting and for betas outside [0, 1).

    D. Kingma, J. Ba, "Adam: A Method for Stochastic Optimization", 2015.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        check(lr=lr, eps=eps, weight_decay=weight_decay)
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"Invalid betas: {betas}, they must be in [0, 1)")
        super().__init__(
            params,
            dict(
                lr=lr,
                betas=betas,
                eps=eps,
                weight_decay=weight_decay,
                amsgrad=amsgrad,
                maximize=maximize,
                foreach=foreach,
                capturable=capturable,
                differentiable=differentiable,
                fused=fused,
                decoupled_weight_decay=decoupled_weight_decay,
            ),
        )

    def _update(
        self, group: Group, params: list[Tensor], grads: list[np.ndarray], records: Any
    ) -> None:
        decoupled, amsgrad = group["decoupled_weight_decay"], group["amsgrad"]
        states = [self.state[p] for p in params]
        steps = []
        for p, state in zip(params, states, strict=True):
            if not state:
                self._start(p, state, amsgrad)
            count = state["step"]._array
            step = count.item() + 1
            count[...] = step  # ten times as fast as adding to an array of one element
            steps.append(step)
        kernel.adam(
            records,
            params[0]._array.dtype,
            [p._array for p in params],
            grads,
            [state["exp_avg"]._array for state in states],
            [state["exp_avg_sq"]._array for state in states],
            [state["max_exp_avg_sq"]._array for state in states] if amsgrad else None,
            steps,
            lr=float(group["lr"]),
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            eps=group["eps"],
            l2=0.0 if decoupled else group["weight_decay"],
            decay=group["weight_decay"] if decoupled else 0.0,
            sign=-1.0 if group["maximize"] else 1.0,
        )

    def _start(self, p: Tensor, state: dict[str, Any], amsgrad: bool) -> None:
        state["step"] = wrap(np.zeros((), np.float32))
        for name in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")[: 3 if amsgrad else 2]:
            state[name] = wrap(memory.lasting_zeros(p.shape, p._array.dtype))


class AdamW(Adam):
    """Adam with decoupled weight decay: each step begins with p -= lr * weight_decay * p.

    - `weight_decay`: the decay (default 0.01), which does not enter the means.
    - the other arguments and errors: as in Adam.

    I. Loshchilov, F. Hutter, "Decoupled Weight Decay Regularization", 2019.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            foreach=foreach,
            maximize=maximize,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            decoupled_weight_decay=True,
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:  # also in those of a loaded Adam
            group["decoupled_weight_decay"] = True
