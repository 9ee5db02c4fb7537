"""Sample tensors to try ops on: the `rand` that `Op.samples` and `Op.errors` are called with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..core import Tensor, wrap

Samples = Iterator[tuple[Any, ...]]  # positional arguments; a dict at the end gives keywords


class Rand:
    """A source of sample tensors, the same in every run.

    Floats have the type `dtype` and require grad, except those of `constant`.
    """

    def __init__(self, dtype: Any = np.float64, seed: int = 0) -> None:
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.noise: np.random.RandomState = np.random.RandomState(seed)

    def _float(self, values: Any, requires_grad: bool = True) -> Tensor:
        t: Tensor = wrap(np.asarray(values, self.dtype))
        t._requires_grad = requires_grad
        return t

    def __call__(self, *shape: int) -> Tensor:
        """Normal numbers."""
        return self._float(self.noise.randn(*shape) if shape else self.noise.randn())

    def constant(self, *shape: int) -> Tensor:
        """Normal numbers that do not require grad."""
        return self._float(self.noise.randn(*shape) if shape else self.noise.randn(), False)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Numbers between `low` and `high`."""
        return self._float(self.noise.uniform(low, high, shape or None))

    def positive(self, *shape: int) -> Tensor:
        """Numbers between 0.5 and 2, for functions such as the logarithm."""
        return self.uniform(0.5, 2.0, *shape)

    def distinct(self, *shape: int) -> Tensor:
        """Shuffled numbers at least 0.1 apart and 0.05 from 0, so far from ties and kinks."""
        count = int(np.prod(shape))
        values = (np.arange(count) - count // 2 + 0.5) * 0.1
        return self._float(self.noise.permutation(values).reshape(shape))

    def integers(self, low: int, high: int, *shape: int, dtype: Any = np.int64) -> Tensor:
        """Integers in [low, high)."""
        made: Tensor = wrap(np.asarray(self.noise.randint(low, high, shape or None), dtype))
        return made

    def bools(self, *shape: int, p: float = 0.5) -> Tensor:
        """True with probability `p`."""
        made: Tensor = wrap(np.asarray(self.noise.rand(*shape) < p))
        return made


def strided(x: Tensor) -> Tensor:
    """Return the leaf `x` with its first two dimensions swapped: not contiguous."""
    x._array = x._array.swapaxes(0, 1)
    return x
