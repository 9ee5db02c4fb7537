"""The same module twice, ours and PyTorch's, and how they are compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import minitensor
from minitensor import nn
from minitensor.core import Tensor, wrap


def twins(make: Callable[[Any], Any], seed: int = 0) -> tuple[Any, Any]:
    """Return `make(nn)` and `make(torch.nn)`, made from one seed; their states must be equal."""
    import torch

    minitensor.manual_seed(seed)
    torch.manual_seed(seed)
    mine, theirs = make(nn), make(torch.nn)
    assert_same_state(mine, theirs)
    assert repr(mine) == repr(theirs)
    return mine, theirs


def assert_same_state(mine: Any, theirs: Any, tolerance: float = 1e-6) -> None:
    """Same keys in the same order, same shapes, types and values."""
    own, other = mine.state_dict(), theirs.state_dict()
    assert list(own) == list(other)
    for key, value in own.items():
        assert tuple(value.shape) == tuple(other[key].shape), key
        assert value.dtype.name == str(other[key].dtype).removeprefix("torch."), key
        np.testing.assert_allclose(
            value.numpy(), other[key].numpy(), rtol=tolerance, atol=tolerance, err_msg=key
        )


def pair(x: Any) -> tuple[Any, Any]:
    """An array as a tensor of each library, float ones with gradient; anything else as it is."""
    import torch

    if isinstance(x, list | tuple):
        found = [pair(y) for y in x]
        return [a for a, _ in found], [b for _, b in found]
    if isinstance(x, dict):
        found = [pair(y) for y in x.values()]
        return dict(zip(x, [a for a, _ in found], strict=True)), dict(
            zip(x, [b for _, b in found], strict=True)
        )
    if not isinstance(x, np.ndarray):
        return x, x
    differentiable = x.dtype.kind == "f"
    return (
        wrap(x.copy()).requires_grad_(differentiable),
        torch.from_numpy(x.copy()).requires_grad_(differentiable),
    )


def assert_same(
    mine: Any, theirs: Any, *args: Any, tolerance: float = 2e-5, **kwargs: Any
) -> tuple[Any, Any]:
    """Both called with the same arrays give the same values and the same gradients everywhere."""
    import torch

    own_args, other_args = pair(list(args))
    own_kwargs, other_kwargs = pair(kwargs)
    out, expected = mine(*own_args, **own_kwargs), theirs(*other_args, **other_kwargs)
    outs, expecteds = (list(x) if isinstance(x, tuple) else [x] for x in (out, expected))
    assert len(outs) == len(expecteds)
    noise = np.random.RandomState(5)
    for a, b in zip(outs, expecteds, strict=True):
        assert (a is None) == (b is None)
        if a is None:
            continue
        assert tuple(a.shape) == tuple(b.shape)
        assert a.dtype.name == str(b.dtype).removeprefix("torch.")
        assert a.requires_grad == b.requires_grad
        close(a, b, tolerance, "output")
        if a.requires_grad:
            dy = np.asarray(noise.standard_normal(a.shape), a.dtype)
            a.backward(wrap(dy), retain_graph=True)
            b.backward(torch.from_numpy(dy), retain_graph=True)
    for a, b in zip(
        _tensors([own_args, own_kwargs]), _tensors([other_args, other_kwargs]), strict=True
    ):
        same_grad(a, b, tolerance, "argument")
    if isinstance(mine, nn.Module):
        for (name, a), (_, b) in zip(
            mine.named_parameters(), theirs.named_parameters(), strict=True
        ):
            same_grad(a, b, tolerance, name)
    return out, expected


def _tensors(x: Any) -> list[Any]:
    if isinstance(x, dict):
        x = list(x.values())
    if isinstance(x, list | tuple):
        return [t for y in x for t in _tensors(y)]
    return [x] if hasattr(x, "requires_grad") else []


def same_grad(a: Any, b: Any, tolerance: float, name: str) -> None:
    """Both have the same gradient, or none."""
    assert (a.grad is None) == (b.grad is None), name
    if a.grad is not None:
        close(a.grad, b.grad, tolerance, f"gradient of {name}")


def close(a: Tensor, b: Any, tolerance: float, name: str = "") -> None:
    """The same values; NaN is equal to NaN."""
    np.testing.assert_allclose(
        a.detach().numpy(), b.detach().numpy(), rtol=tolerance, atol=tolerance, err_msg=name
    )
