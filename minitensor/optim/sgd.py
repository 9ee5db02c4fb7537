"""SGD: stochastic gradient descent with momentum."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import memory
from ..core import Tensor, wrap
from ..kernels import adam as kernel
from .optimizer import Group, Params, RuleOptimizer, check


class SGD(RuleOptimizer):
    """Step against the gradient, p -= lr * g, or with momentum against its running sum.

    b = momentum * b + (1 - dampening) * g;  p -= lr * b. The first b is g.

    - `params`: tensors, (name, tensor) pairs or groups; see `Optimizer`.
    - `lr`: the learning rate (default 0.001).
    - `momentum`: the share of the old sum; 0 keeps none.
    - `dampening`: the share of a new gradient that the sum leaves out.
    - `weight_decay`: an L2 penalty, g + weight_decay * p instead of g.
    - `nesterov`: step by g + momentum * b instead of b.
    - `maximize`: ascend instead of descending.
    - `foreach`, `fused`: accepted for PyTorch's sake, without effect.
    - `differentiable`: not there; RuntimeError if True.

    Raises ValueError for a negative setting, and for `nesterov` without momentum or with dampening.

    I. Sutskever et al., "On the Importance of Initialization and Momentum in Deep Learning", 2013.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
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
                foreach=foreach,
                differentiable=differentiable,
                fused=fused,
            ),
        )

    def _update(
        self, group: Group, params: list[Tensor], grads: list[np.ndarray], records: Any
    ) -> None:
        momentum = group["momentum"]
        buffers, new = [], []
        for p in params if momentum else ():
            state = self.state[p]
            buffer = state.get("momentum_buffer")
            new.append(1.0 if buffer is None else 1.0 - group["dampening"])
            if buffer is None:
                buffer = wrap(memory.lasting_zeros(p.shape, p._array.dtype))
                state["momentum_buffer"] = buffer
            buffers.append(buffer._array)
        kernel.sgd(
            records,
            params[0]._array.dtype,
            [p._array for p in params],
            grads,
            buffers,
            new,
            lr=float(group["lr"]),
            momentum=momentum,
            l2=group["weight_decay"],
            nesterov=group["nesterov"],
            sign=-1.0 if group["maximize"] else 1.0,
        )
