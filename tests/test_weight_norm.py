"""Weight normalisation, by the hook and as a parametrization: PyTorch's keys, values, gradients."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import needs_torch

import minitensor as mt
from minitensor import nn

X = np.random.RandomState(0).standard_normal((5, 3)).astype(np.float32)


def hooked(nn: Any, layer: Any, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(layer, **options)


def parametrized(nn: Any, layer: Any, **options: Any) -> Any:
    return nn.utils.parametrizations.weight_norm(layer, **options)


def trained(torch: Any, wrap: Callable[..., Any], dim: int | None) -> list[Any]:
    """Keys, losses and values of a layer that is trained and then made a plain one."""
    torch.manual_seed(0)
    layer = wrap(torch.nn, torch.nn.Linear(3, 4), dim=dim)
    seen = [*layer.state_dict(), *(name for name, _ in layer.named_parameters()), repr(layer)]
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
    for _ in range(3):
        loss = (layer(torch.tensor(X)) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        seen += [loss.item(), *(p.grad.detach().numpy().copy() for p in layer.parameters())]
        optimizer.step()
    before = layer(torch.tensor(X))
    if wrap is hooked:
        torch.nn.utils.remove_weight_norm(layer)
    else:
        torch.nn.utils.parametrize.remove_parametrizations(layer, "weight")
    after = layer(torch.tensor(X))
    assert np.allclose(before.detach().numpy(), after.detach().numpy())
    return [*seen, *layer.state_dict(), repr(layer), after.detach().numpy()]


@needs_torch
@pytest.mark.parametrize("dim", [0, 1, None])
@pytest.mark.parametrize("wrap", [hooked, parametrized])
def test_trains_as_in_pytorch(wrap: Callable[..., Any], dim: int | None) -> None:
    import torch

    for mine, theirs in zip(trained(mt, wrap, dim), trained(torch, wrap, dim), strict=True):
        if isinstance(theirs, str):
            assert mine == theirs
        else:
            np.testing.assert_allclose(mine, theirs, 1e-5, 1e-6)


@pytest.mark.parametrize("wrap", [hooked, parametrized])
def test_the_weight_has_the_given_lengths(wrap: Callable[..., Any]) -> None:
    layer = nn.Linear(3, 4)
    plain = layer.weight.detach().clone()
    layer = wrap(nn, layer)
    mt.testing.assert_close(layer.weight.detach(), plain)
    g, v = (p for name, p in layer.named_parameters() if name != "bias")
    assert (g.shape, v.shape) == ((4, 1), (4, 3))
    with mt.no_grad():
        g.fill_(2.0)
    layer(mt.ones(3)).sum().backward()
    mt.testing.assert_close(layer.weight.detach().norm(dim=1), mt.full((4,), 2.0))
    assert mt.allclose((v.grad * v).sum(1), mt.zeros(4), atol=1e-6)  # the length has no effect


def test_state_dicts_of_the_hook_load_into_the_parametrization() -> None:
    old, new = hooked(nn, nn.Linear(3, 4)), parametrized(nn, nn.Linear(3, 4))
    new.load_state_dict(old.state_dict())
    mt.testing.assert_close(new(mt.ones(3)), old(mt.ones(3)))
    twin = copy.deepcopy(new)
    twin.weight = mt.ones(4, 3)  # written through to the originals of the copy alone
    mt.testing.assert_close(twin.weight, mt.ones(4, 3))
    assert not mt.allclose(new.weight, mt.ones(4, 3))


def test_what_cannot_be_is_refused() -> None:
    layer = hooked(nn, nn.Linear(3, 4))
    with pytest.raises(RuntimeError, match="two weight_norm"):
        hooked(nn, layer)
    with pytest.raises(ValueError, match="not found"):
        nn.utils.remove_weight_norm(nn.Linear(3, 4))
    with pytest.raises(ValueError, match="does not have a parameter"):
        parametrized(nn, nn.Linear(3, 4), name="scale")
    with pytest.raises(ValueError, match="does not have a parametrization"):
        nn.utils.parametrize.remove_parametrizations(nn.Linear(3, 4), "weight")
    with pytest.warns(FutureWarning, match="deprecated"):
        nn.utils.weight_norm(nn.Linear(3, 4))
    both = parametrized(nn, parametrized(nn, nn.Linear(3, 4)), name="bias")
    assert type(both).__mro__[1] is nn.Linear
    nn.utils.parametrize.remove_parametrizations(both, "weight")
    assert nn.utils.parametrize.is_parametrized(both, "bias")
    nn.utils.parametrize.remove_parametrizations(both, "bias")
    assert type(both) is nn.Linear
