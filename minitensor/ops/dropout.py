"""Dropout: random elements are set to zero while training."""

from __future__ import annotations

import numpy as np

from .. import random
from ..autograd.inplace import in_place
from ..core import Op, Tensor, wrap
from ..kernels import dropout as kernel
from .checks import check_probability, check_tensors
from .samples import Rand, Samples


class Dropout(Op):
    """y = 0 with probability p, else x / (1 - p), for each element: (*) -> (*).

    dx = dy * mask / (1 - p), the same function of dy: the mask is drawn again from its key, not
    kept. Without `training`, and for p = 0, the input itself is returned. ValueError for p outside
    [0, 1].

    N. Srivastava and others, "Dropout: a simple way to prevent neural networks from overfitting",
    2014.
    """

    native = True
    namespaces = "functional"
    torch_name = "torch.nn.functional.dropout"
    cell = "x / (1 - p) if kept else 0"

    @staticmethod
    def call(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        check_probability("dropout", p)
        if not isinstance(input, Tensor):
            check_tensors("dropout", input=input)
        if not training or p == 0 or input._array.size == 0:
            return input
        return in_place("dropout", input, lambda x: _drop(x, p)) if inplace else _drop(input, p)

    def forward(ctx, x: np.ndarray, p: float, key: int) -> np.ndarray:
        ctx.save(p, key)
        return kernel.dropout(x, p, key)

    @staticmethod
    def hidden(x: np.ndarray, p: float, key: int) -> dict[str, np.ndarray]:
        return kept(x.shape, p, key)

    def backward(ctx, dy: Tensor) -> Tensor:
        p, key = ctx.saved
        return Dropout.apply(dy, p, key)

    @staticmethod
    def samples(rand: Rand) -> Samples:  # only those without random numbers
        yield rand(2, 3), 0.5, False
        yield rand(2, 3), 0.0
        yield rand(2, 3), 1.0
        yield rand(0, 3), 0.5

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 3), -0.1
        yield rand(2, 3), 1.1
        yield rand.integers(0, 5, 3), 0.5


def _drop(x: Tensor, p: float) -> Tensor:
    if p == 1:
        return x * 0.0
    if not x.is_floating_point():
        raise RuntimeError(f"dropout: expected a floating tensor, got {x.dtype}")
    if random.uses_torch_dropout():
        return x * wrap(exact_noise(x._array, p))
    return Dropout.apply(x, p, random.default_generator.key(x._array.size))


def kept(shape: tuple[int, ...], p: float, key: int | None) -> dict[str, np.ndarray]:
    """Return `Op.hidden` of a dropout: True for the elements that it keeps."""
    return {"kept": kernel.dropout(np.ones(shape), p, key or 0) != 0} if p else {}


def exact_noise(x: np.ndarray, p: float) -> np.ndarray:
    """Return the factors, 0 or 1 / (1 - p), that PyTorch would draw, in the order of memory."""
    keep = random.default_generator.bernoulli(x.size, 1 - p)
    noise = np.empty_like(x)
    order = sorted(range(x.ndim), key=lambda axis: -noise.strides[axis])
    by_memory = noise.transpose(order)
    by_memory[...] = keep.reshape(by_memory.shape)
    noise /= x.dtype.type(1 - p)
    return noise
