"""Adam and AdamW."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import memory
from ..core import Tensor, wrap
from ..kernels import adam as kernel
from ..kernels import multi_tensor
from .optimizer import Optimizer, by_type, check, run_closure


class Adam(Optimizer):
    """Steps of about `lr`: the running mean of the gradient over the root of its mean square.

    `betas` are the shares of the old in the two means, `eps` is added to the root, `weight_decay`
    is an L2 penalty (unless `decoupled_weight_decay`), `amsgrad` divides by the largest mean square
    so far, `maximize` goes with the gradient. `foreach` and `fused` are accepted, and change
    nothing: there is one implementation.

    D. Kingma, J. Ba, "Adam: A Method for Stochastic Optimization", 2015.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
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
                decoupled_weight_decay=decoupled_weight_decay,
            ),
        )
        self._multi: defaultdict[Any, Any] = defaultdict(
            multi_tensor.MultiTensor
        )  # by group and dtype

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; returns the loss of `closure`."""
        loss = run_closure(closure)
        for number, group in enumerate(self.param_groups):
            decoupled, amsgrad = group["decoupled_weight_decay"], group["amsgrad"]
            for dtype, (params, grads) in by_type(group).items():
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
                    self._multi[number, dtype],
                    dtype,
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
                for p in params:
                    p._bump()
        return loss

    def _start(self, p: Tensor, state: dict[str, Any], amsgrad: bool) -> None:
        state["step"] = wrap(np.zeros((), np.float32))
        for name in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")[: 3 if amsgrad else 2]:
            state[name] = wrap(memory.lasting_zeros(p.shape, p.dtype))


class AdamW(Adam):
    """Adam with a weight decay apart from the gradient: each step takes lr * weight_decay off.

    I. Loshchilov, F. Hutter, "Decoupled Weight Decay Regularization", 2019.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            maximize=maximize,
            decoupled_weight_decay=True,
        )
