"""Every op in the registry on its own samples: gradients, references, PyTorch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import CHECKED, Rand, needs_torch

import minitensor  # noqa: F401  # registers the ops
from minitensor import nn  # noqa: F401
from minitensor.autograd import OPS, Op
from minitensor.gradcheck import gradcheck, gradgradcheck
from minitensor.tensor import Tensor, wrap
from tools.samples import INTERNAL, leaves, oracle, samples, to_torch

CASES = sorted(name for name in OPS if name not in INTERNAL)


def replaced(x: Any, new: Any) -> Any:
    """`x` with its tensors replaced in order by those of the iterator `new`."""
    if isinstance(x, Tensor):
        return next(new)
    if isinstance(x, dict):
        return {key: replaced(value, new) for key, value in x.items()}
    if type(x) in (list, tuple):
        return type(x)(replaced(y, new) for y in x)
    return x


def outputs(result: Any) -> list[Tensor]:
    return (
        leaves(list(result) if isinstance(result, tuple) else result)
        if not isinstance(result, Tensor)
        else [result]
    )


def closed(
    op: type[Op], args: list[Any], kwargs: dict[str, Any]
) -> tuple[Callable[..., Any], list[Tensor]]:
    """The call as a function of its differentiable tensors."""
    wanted = [t for t in leaves([args, kwargs]) if t.requires_grad]

    def function(*tensors: Tensor) -> Any:
        given = iter(tensors)
        every = iter([next(given) if t.requires_grad else t for t in leaves([args, kwargs])])
        a, k = replaced([args, kwargs], every)
        return tuple(outputs(op.call(*a, **k)))

    return function, wanted


@pytest.mark.parametrize("name", CASES)
def test_has_samples_and_documentation(name: str) -> None:
    op = OPS[name]
    assert samples(op), f"{name} yields no samples"
    CHECKED["ops"] += 1
    CHECKED["samples"] += len(samples(op))
    assert op.__doc__, f"{name} has no docstring"
    assert op.__doc__ != Op.__doc__, f"{name} has no docstring"
    if op.fused:
        assert op.reference is not None, f"{name} is fused and has no reference"


@pytest.mark.parametrize("name", CASES)
def test_gradcheck(name: str) -> None:
    op = OPS[name]
    for args, kwargs in samples(op):
        function, wanted = closed(op, args, kwargs)
        if not wanted or not op.differentiable:
            continue
        if any(o.requires_grad for o in function(*wanted)):
            assert gradcheck(function, wanted)
            CHECKED["gradchecks"] += 1


@pytest.mark.parametrize("name", CASES)
def test_gradgradcheck(name: str) -> None:
    op = OPS[name]
    for args, kwargs in samples(op):
        function, wanted = closed(op, args, kwargs)
        if not wanted or not op.differentiable:
            continue
        if any(o.requires_grad for o in function(*wanted)):
            assert gradgradcheck(function, wanted, fast_mode=True)
            CHECKED["second-order checks"] += 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", sorted(n for n in CASES if OPS[n].reference is not None))
def test_equals_reference(name: str, dtype: str) -> None:
    """A kernel and the composition it stands for agree, in value and in gradient."""
    op = OPS[name]
    tolerance = 1e-10 if dtype == "float64" else 2e-5
    for args, kwargs in samples(op, dtype):
        seen: list[Any] = []

        def spy(*a: Any, _seen: list[Any] = seen, _apply: Any = op.apply, **k: Any) -> Any:
            _seen.append((a, k))
            return _apply(*a, **k)

        op.apply = spy  # type: ignore[method-assign]
        try:
            op.call(*args, **kwargs)
        finally:
            del op.apply  # type: ignore[misc]
        assert seen or not op.fused, f"{name}.call does not reach {name}.apply"
        for a, k in seen:
            own, reference = [], []
            for result, function in ((own, op.apply), (reference, op.reference)):
                tensors = [
                    wrap(t._array.copy()).requires_grad_(t.requires_grad)
                    for t in leaves([list(a), k])
                ]
                aa, kk = replaced([list(a), k], iter(tensors))
                outs = outputs(function(*aa, **kk))
                result.extend(o._array for o in outs)
                noise = np.random.RandomState(3)
                for out in outs:
                    if out.requires_grad:
                        dy = noise.standard_normal(out.shape)
                        out.backward(wrap(np.asarray(dy, out.dtype)), retain_graph=True)
                result.extend(
                    (np.zeros(t.shape) if t.grad is None else t.grad._array)
                    for t in tensors
                    if t.requires_grad
                )
            for mine, theirs in zip(own, reference, strict=True):
                assert mine.shape == theirs.shape
                np.testing.assert_allclose(mine, theirs, rtol=tolerance, atol=tolerance)


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
    tolerance = dict(rtol=1e-9, atol=1e-9) if dtype == "float64" else dict(rtol=2e-4, atol=2e-5)
    for args, kwargs in samples(op, dtype):
        other_args, other_kwargs = to_torch(args), to_torch(kwargs)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = torch_leaves([theirs(*other_args, **other_kwargs)])
        found = outputs(op.call(*args, **kwargs))
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
