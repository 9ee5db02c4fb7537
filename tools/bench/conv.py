"""Topic `conv`: convolutions that begin Transformers, and what else is in models of images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .measure import HERE, Figure, compared, library
from .plan import Convolution, Plan

TARGET = 0.5  # of PyTorch's speed


def measure_conv(plan: Plan, against: Sequence[str]) -> Iterator[Figure]:
    """Measure convolutions forward, with the gradients of weight and bias, and with all.

    The first layer of a model needs no gradient of its input; the others do.
    """
    against = [side for side in against if side == "torch"]
    for conv in plan.convolutions:
        products = {"forward": 1, "gradients of the weight": 2, "all gradients": 3}
        for part, count in products.items():
            if part == "all gradients" and conv.first:
                continue
            sides = {side: convolution_call(library(side), conv, part) for side in (HERE, *against)}
            yield compared(
                plan, "conv", f"{conv.name}, {part}", sides,
                flops=count * conv.flops, target=TARGET if conv.judged else None,
            )  # fmt: skip


def convolution_call(lib: Any, conv: Convolution, part: str) -> Callable[[], Any]:
    """Return a call of the convolution, with the gradients that `part` names."""
    noise = np.random.RandomState(0)
    x, w, b = (
        lib.from_numpy(noise.standard_normal(shape).astype(np.float32))
        for shape in (conv.input, conv.weight, conv.weight[:1])
    )
    options = dict(stride=conv.stride, padding=conv.padding, groups=conv.groups)
    function = getattr(lib, f"conv{len(conv.weight) - 2}d")

    def forward() -> None:
        with lib.no_grad():
            function(x, w, b, **options)

    if part == "forward":
        return forward
    wanted = [t.requires_grad_() for t in ((x, w, b) if part == "all gradients" else (w, b))]
    shape = tuple(function(x, w, b, **options).shape)
    dy = lib.from_numpy(noise.standard_normal(shape).astype(np.float32))
    return lambda: lib.autograd.grad(function(x, w, b, **options), wanted, dy)
