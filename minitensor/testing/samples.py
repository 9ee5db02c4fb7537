"""Samples to try every op of the registry on, and PyTorch's function for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..core import Op, Tensor, wrap


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


def samples(op: type[Op], dtype: Any = np.float64) -> list[tuple[list[Any], dict[str, Any]]]:
    """The op's samples as (positional, keyword) arguments."""
    found = []
    for sample in op.samples(Rand(dtype)):
        args = list(sample)
        kwargs = args.pop() if args and isinstance(args[-1], dict) else {}
        found.append((args, kwargs))
    return found


def leaves(x: Any) -> list[Tensor]:
    """The tensors in nested arguments, in order."""
    if isinstance(x, Tensor):
        return [x]
    if isinstance(x, dict):
        x = list(x.values())
    return [t for y in x for t in leaves(y)] if isinstance(x, list | tuple) else []


def replaced(x: Any, new: Iterator[Tensor]) -> Any:
    """Nested arguments with the tensors of `new`, in order, in place of theirs."""
    if isinstance(x, Tensor):
        return next(new)
    if isinstance(x, dict):
        return {key: replaced(value, new) for key, value in x.items()}
    return type(x)(replaced(y, new) for y in x) if type(x) in (list, tuple) else x


def oracle(op: type[Op]) -> Callable[..., Any] | None:
    """PyTorch's function for the op."""
    import torch

    if op.torch_name is None:
        return None
    if op.torch_name:
        found: Any = torch
        for part in op.torch_name.removeprefix("torch.").split("."):
            found = getattr(found, part)
        return found
    for space in (torch, torch.nn.functional, torch.Tensor):
        found = getattr(space, op.op_name, None)
        if callable(found):
            return found
    raise AssertionError(f"PyTorch has no {op.op_name}: give {op.__name__} an oracle, or None")


def to_torch(x: Any) -> Any:
    """Nested arguments with PyTorch's tensors and types in place of ours."""
    import torch

    if isinstance(x, Tensor):
        t = torch.from_numpy(np.array(x._array))
        return t.requires_grad_(True) if x.requires_grad else t
    if isinstance(x, np.dtype):
        return getattr(torch, x.name)
    if isinstance(x, dict):
        return {key: to_torch(value) for key, value in x.items()}
    return type(x)(to_torch(y) for y in x) if type(x) in (list, tuple) else x
