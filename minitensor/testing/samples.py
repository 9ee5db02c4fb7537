"""Samples to try every op of the registry on, and PyTorch's function for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..core import Op, Tensor
from ..dtype import dtype
from ..ops.samples import Rand
from ..rounding import widened


def samples(op: type[Op], dtype: Any = np.float64) -> list[tuple[list[Any], dict[str, Any]]]:
    """Return the op's samples as (positional, keyword) arguments."""
    found = []
    for sample in op.samples(Rand(dtype)):
        args = list(sample)
        kwargs = args.pop() if args and isinstance(args[-1], dict) else {}
        found.append((args, kwargs))
    return found


def leaves(x: Any) -> list[Tensor]:
    """Return the tensors in nested arguments, in order."""
    if isinstance(x, Tensor):
        return [x]
    if isinstance(x, dict):
        x = list(x.values())
    return [t for y in x for t in leaves(y)] if isinstance(x, list | tuple) else []


def replaced(x: Any, new: Iterator[Tensor]) -> Any:
    """Return nested arguments with their tensors replaced by those of `new`, in order."""
    if isinstance(x, Tensor):
        return next(new)
    if isinstance(x, dict):
        return {key: replaced(value, new) for key, value in x.items()}
    return type(x)(replaced(y, new) for y in x) if type(x) in (list, tuple) else x


def oracle(op: type[Op]) -> Callable[..., Any] | None:
    """Return PyTorch's function for the op; None if it has none."""
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
    raise AssertionError(f"PyTorch has no {op.op_name}: set {op.__name__}.torch_name, or None")


def to_torch(x: Any) -> Any:
    """Return nested arguments with PyTorch's tensors and types in place of ours."""
    import torch

    if isinstance(x, Tensor):
        t = torch.from_numpy(np.array(widened(x._array))).to(getattr(torch, x.dtype.name))
        return t.requires_grad_(True) if x.requires_grad else t
    if isinstance(x, np.dtype | dtype):
        return getattr(torch, x.name)
    if isinstance(x, dict):
        return {key: to_torch(value) for key, value in x.items()}
    return type(x)(to_torch(y) for y in x) if type(x) in (list, tuple) else x
