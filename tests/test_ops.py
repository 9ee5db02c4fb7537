"""Every op in the registry on its own samples: gradients, references, PyTorch."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from conftest import CHECKED, needs_torch

import minitensor  # noqa: F401  # registers the ops
from minitensor import nn  # noqa: F401
from minitensor.core import OPS, Op, wrap
from minitensor.graph.kinds import KINDS
from minitensor.testing import Rand, check_op, leaves, oracle, samples, to_torch

CASES = sorted(OPS)


@pytest.mark.parametrize("name", CASES)
def test_has_samples_and_documentation(name: str) -> None:
    op = OPS[name]
    assert samples(op), f"{name} yields no samples"
    CHECKED["ops"] += 1
    CHECKED["samples"] += len(samples(op))
    assert op.__doc__, f"{name} has no docstring"
    assert op.__doc__ != Op.__doc__, f"{name} has no docstring"
    if op.fused:
        assert op.decomposition is not None, f"{name} is fused and has no reference"


@pytest.mark.parametrize("name", CASES)
def test_forward_backward_second_derivative_and_reference(name: str) -> None:
    """Gradients by finite differences; a kernel and the composition it stands for agree."""
    op = OPS[name]
    done = check_op(op)
    assert done["forwards"] == len(samples(op))
    assert done["references"] or not op.fused
    CHECKED.update(done)


def test_every_op_of_the_library_has_a_kind() -> None:
    """The name of an op's file says its family, and so its colour in a picture."""
    for name, op in OPS.items():
        package, _, family = op.__module__.rpartition(".")
        if package.startswith("minitensor.ops"):
            assert family in KINDS, f"{name}: {op.__module__} has no entry in graph/kinds.py"


def torch_leaves(x: Any) -> list[Any]:
    import torch

    if isinstance(x, torch.Tensor):
        return [x]
    if isinstance(x, dict):
        x = list(x.values())
    return [t for y in x for t in torch_leaves(y)] if isinstance(x, list | tuple) else []


@needs_torch
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_equals_pytorch(name: str, dtype: str) -> None:
    op = OPS[name]
    theirs = oracle(op)
    if theirs is None:
        pytest.skip("PyTorch has no such op")
    CHECKED[f"ops compared with PyTorch in {dtype}"] += 1
    tolerance: Any = (
        dict(rtol=1e-9, atol=1e-9) if dtype == "float64" else dict(rtol=2e-4, atol=2e-5)
    )
    for args, kwargs in samples(op, dtype):
        other_args, other_kwargs = to_torch(args), to_torch(kwargs)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = torch_leaves([theirs(*other_args, **other_kwargs)])
        found = leaves([op.call(*args, **kwargs)])
        assert len(found) == len(expected)
        for mine, other in zip(found, expected, strict=True):
            assert tuple(mine.shape) == tuple(other.shape), f"{name}{args}{kwargs}"
            assert mine.dtype.name == str(other.dtype).removeprefix("torch."), (
                f"{name}{args}{kwargs}"
            )
            assert mine.requires_grad == other.requires_grad
            np.testing.assert_allclose(mine._array, other.detach().numpy(), **tolerance)
        noise = np.random.RandomState(3)
        for mine, other in zip(found, expected, strict=True):
            if mine.requires_grad:
                import torch

                dy = np.asarray(noise.standard_normal(mine.shape), mine.dtype)
                mine.backward(wrap(dy), retain_graph=True)
                other.backward(torch.from_numpy(dy), retain_graph=True)
        for mine, other in zip(
            leaves([args, kwargs]), torch_leaves([other_args, other_kwargs]), strict=True
        ):
            if other.grad is not None:
                assert mine.grad is not None
                assert mine.grad.dtype == mine.dtype
                np.testing.assert_allclose(mine.grad._array, other.grad.numpy(), **tolerance)


@needs_torch
@pytest.mark.parametrize("name", sorted(n for n in CASES if OPS[n].errors is not None))
def test_raises_what_pytorch_raises(name: str) -> None:
    op = OPS[name]
    theirs = oracle(op)
    assert theirs is not None
    assert op.errors is not None
    for sample in op.errors(Rand()):
        args = list(sample)
        kwargs = args.pop() if isinstance(args[-1], dict) else {}
        with pytest.raises(Exception) as expected:
            theirs(*to_torch(args), **to_torch(kwargs))
        with pytest.raises(expected.type):
            op.call(*args, **kwargs)
