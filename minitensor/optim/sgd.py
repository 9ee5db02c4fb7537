"""SGD: gradient descent with momentum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..kernels import adam as kernel
from ..tensor import wrap
from .optimizer import Optimizer, check, run_closure, with_gradients


class SGD(Optimizer):
    """Steps of `lr` against the gradient, or against its running sum with `momentum`.

    `dampening` is the part of a new gradient that the sum leaves out, `weight_decay` an L2 penalty,
    `nesterov` looks ahead along the momentum, `maximize` goes with the gradient. `foreach` and
    `fused` are accepted, and change nothing: there is one implementation.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
    ) -> None:
        check(lr=lr, momentum=momentum, weight_decay=weight_decay)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        super().__init__(
            params,
            dict(
                lr=lr,
                momentum=momentum,
                dampening=dampening,
                weight_decay=weight_decay,
                nesterov=nesterov,
                maximize=maximize,
            ),
        )

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; returns the loss of `closure`."""
        loss = run_closure(closure)
        for group in self.param_groups:
            momentum = group["momentum"]
            for p, g in with_gradients(group):
                state = self.state[p] if momentum else {}
                buffer = state.get("momentum_buffer")
                first = buffer is None
                if buffer is None:
                    buffer = wrap(np.zeros_like(p._array, order="C"))
                    state["momentum_buffer"] = buffer
                kernel.sgd(
                    p._array,
                    g,
                    buffer._array,
                    lr=float(group["lr"]),
                    momentum=momentum,
                    new=1.0 if first else 1.0 - group["dampening"],
                    l2=group["weight_decay"],
                    nesterov=group["nesterov"],
                    sign=-1.0 if group["maximize"] else 1.0,
                )
                p._bump()
        return loss
