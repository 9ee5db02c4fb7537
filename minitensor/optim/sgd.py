"""SGD: gradient descent with momentum."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from .. import memory
from ..core import wrap
from ..kernels import adam as kernel
from ..kernels import multi_tensor
from .optimizer import Optimizer, by_type, check, run_closure


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
        self._multi: defaultdict[Any, Any] = defaultdict(
            multi_tensor.MultiTensor
        )  # by group and dtype

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; returns the loss of `closure`."""
        loss = run_closure(closure)
        for number, group in enumerate(self.param_groups):
            momentum = group["momentum"]
            for dtype, (params, grads) in by_type(group).items():
                buffers, new = [], []
                for p in params if momentum else ():
                    state = self.state[p]
                    buffer = state.get("momentum_buffer")
                    new.append(1.0 if buffer is None else 1.0 - group["dampening"])
                    if buffer is None:
                        buffer = state["momentum_buffer"] = wrap(
                            memory.lasting_zeros(p.shape, p.dtype)
                        )
                    buffers.append(buffer._array)
                kernel.sgd(
                    self._multi[number, dtype],
                    dtype,
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
                for p in params:
                    p._bump()
        return loss
