"""What the tests share: sample data, PyTorch if it is installed, and the ops' registry."""

from __future__ import annotations

import importlib.util
from collections import Counter
from typing import Any

import numpy as np
import pytest

from minitensor.tensor import Tensor, wrap


class Rand:
    """Sample tensors for an op, the same in every run. Floats are `dtype` and require grad."""

    def __init__(self, dtype: Any = np.float64, seed: int = 0) -> None:
        self.dtype = np.dtype(dtype)
        self.noise = np.random.RandomState(seed)

    def _float(self, values: Any, requires_grad: bool = True) -> Tensor:
        t = wrap(np.asarray(values, self.dtype))
        t._requires_grad = requires_grad
        return t

    def __call__(self, *shape: int) -> Tensor:
        """Normal numbers."""
        return self._float(self.noise.randn(*shape) if shape else self.noise.randn())

    def constant(self, *shape: int) -> Tensor:
        """Normal numbers that need no gradient."""
        return self._float(self.noise.randn(*shape) if shape else self.noise.randn(), False)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Numbers between `low` and `high`."""
        return self._float(self.noise.uniform(low, high, shape or None))

    def positive(self, *shape: int) -> Tensor:
        """Numbers between 0.5 and 2."""
        return self.uniform(0.5, 2.0, *shape)

    def distinct(self, *shape: int) -> Tensor:
        """Numbers at least 0.1 apart and half that from 0, shuffled: no ties, no kinks near."""
        count = int(np.prod(shape))
        values = (np.arange(count) - count // 2 + 0.5) * 0.1
        return self._float(self.noise.permutation(values).reshape(shape))

    def integers(self, low: int, high: int, *shape: int, dtype: Any = np.int64) -> Tensor:
        """Integers in [low, high)."""
        return wrap(np.asarray(self.noise.randint(low, high, shape or None), dtype))

    def bools(self, *shape: int, p: float = 0.5) -> Tensor:
        """True with probability `p`."""
        return wrap(np.asarray(self.noise.rand(*shape) < p))


@pytest.fixture
def rand() -> Rand:
    return Rand()


# What was checked, for a line at the end of the run.
CHECKED: Counter[str] = Counter()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    from conftest import CHECKED as counted  # pytest's own copy of this module counts nothing

    if counted:
        told = ", ".join(f"{count} {what}" for what, count in counted.items())
        terminalreporter.write_line(f"registry: {told}")


def needs_torch(test: Any) -> Any:
    """Mark a test that compares with PyTorch: chosen by `-m torch`, skipped without PyTorch."""
    missing = importlib.util.find_spec("torch") is None
    skip = pytest.mark.skipif(missing, reason="PyTorch is not installed (extra: torch)")
    return pytest.mark.torch(skip(test))
