"""Topic `recurrent`: LSTM, GRU and RNN, forward alone and both ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .measure import HERE, Figure, compared, geometric_mean, library
from .plan import Plan

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def measure_recurrent(plan: Plan, against: Sequence[str]) -> Iterator[Figure]:
    """Measure one layer whose input is as wide as its state, over a batch (S, N) of sequences.

    Two products are counted forward and four backward.
    """
    against = [side for side in against if side == "torch"]
    steps, batch = plan.recurrent_batch
    figures = []
    for width in plan.recurrent_widths:
        for name, gates in GATES.items():
            for both in (False, True):
                sides = {
                    side: layer_call(library(side), name, (steps, batch, width), both)
                    for side in (HERE, *against)
                }
                flops = 2.0 * steps * batch * 2 * gates * width**2
                figure = compared(
                    plan, "recurrent",
                    f"{name} H={width} S={steps} N={batch} {'both ways' if both else 'forward'}",
                    sides, flops=3 * flops if both else flops, target=1.0,
                )  # fmt: skip
                figures.append(figure)
                yield figure
    yield from geometric_mean("recurrent", figures, 1.0)


def layer_call(lib: Any, name: str, shape: tuple[int, ...], both: bool) -> Callable[[], Any]:
    """Return a call of a layer on (S, N, H), with the gradients of all if `both`."""
    noise = np.random.RandomState(0)
    x, dy = (lib.from_numpy(noise.standard_normal(shape).astype(np.float32)) for _ in range(2))
    layer = getattr(lib.nn, name)(shape[-1], shape[-1])
    inputs = [x.requires_grad_(), *layer.parameters()]

    def forward() -> None:
        with lib.no_grad():
            layer(x)

    def step() -> None:
        lib.autograd.grad(layer(x)[0], inputs, dy)

    return step if both else forward
