"""Distributions: samples, probabilities, entropies and gradients, by formula and by PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from conftest import needs_torch

import minitensor as mt
from minitensor.distributions import Bernoulli, Categorical, Distribution, Normal, kl_divergence

noise = np.random.RandomState(0)
LOGITS = noise.standard_normal((2, 3, 4))
RATES = noise.uniform(0.05, 0.95, (2, 3))
CLASSES = noise.randint(0, 4, (5, 2, 3))
BITS = noise.randint(0, 2, (5, 2, 3)).astype(np.float64)

# How to make each from a library and its parameters, the parameters, and values to score.
KINDS: dict[str, tuple[Callable[..., Any], list[np.ndarray], np.ndarray]] = {
    "Categorical by logits": (lambda d, x: d.Categorical(logits=x), [LOGITS], CLASSES),
    "Categorical by probs": (lambda d, x: d.Categorical(x), [np.exp(LOGITS)], CLASSES),
    "Categorical of one": (lambda d, x: d.Categorical(x), [np.array([0.3, 0.0, 0.7])], CLASSES % 2),
    "Normal": (
        lambda d, m, s: d.Normal(m, s),
        [LOGITS[..., 0], RATES],
        noise.standard_normal((5, 2, 3)),
    ),
    "Normal of numbers": (lambda d: d.Normal(1, 0.5), [], np.array([0.5, 2.0], np.float32)),
    "Normal, broadcast": (lambda d, m: d.Normal(m, 2.0), [LOGITS[..., 0]], np.zeros(3)),
    "Bernoulli by logits": (lambda d, x: d.Bernoulli(logits=x), [LOGITS[..., 0]], BITS),
    "Bernoulli by probs": (lambda d, x: d.Bernoulli(probs=x), [RATES], BITS),
    "Bernoulli of a number": (lambda d: d.Bernoulli(0.3), [], np.array([0.0, 1.0], np.float32)),
}
PROPERTIES = ("mean", "mode", "variance", "stddev", "probs", "logits", "batch_shape", "event_shape")


def asked(torch: Any, distributions: ModuleType, name: str) -> list[Any]:
    """All that a distribution answers, and the gradients of its parameters."""
    make, arrays, values = KINDS[name]
    given = [torch.tensor(x, requires_grad=True) for x in arrays]
    made = make(distributions, *given)
    scores, entropy = made.log_prob(torch.tensor(values)), made.entropy()
    answers = [getattr(made, p) for p in PROPERTIES if hasattr(made, p)]
    answers += [scores, entropy, made.perplexity(), repr(made)]
    torch.manual_seed(5)
    answers += [made.sample(), made.sample((6,)), made.sample((2, 3))]
    if made.has_rsample:
        answers += [made.rsample((3,)), made.cdf(torch.tensor(values)), made.icdf(scores.sigmoid())]
    if made.has_enumerate_support:
        answers += [made.enumerate_support(), made.enumerate_support(False)]
    larger = made.expand((2, *made.batch_shape))
    answers += [larger.batch_shape, larger.entropy(), larger.sample((2,)), repr(larger)]
    other = make(distributions, *[x.detach() * 0.9 for x in given])
    divergence = distributions.kl_divergence(made, other)
    answers += [divergence]
    if given:
        loss = scores.sum() + (entropy * entropy).sum() + divergence.exp().sum()
        if made.has_rsample:
            loss = loss + (made.rsample() ** 2).sum()
        loss.backward()
        answers += [x.grad for x in given]
    return answers


@needs_torch
@pytest.mark.parametrize("name", KINDS)
def test_answers_as_pytorch(name: str) -> None:
    import torch

    mine = asked(mt, mt.distributions, name)
    theirs = asked(torch, torch.distributions, name)
    for number, (a, b) in enumerate(zip(mine, theirs, strict=True)):
        if isinstance(b, torch.Tensor):
            assert a.dtype.name == str(b.dtype).removeprefix("torch."), number
            assert tuple(a.shape) == tuple(b.shape), number
            values = b.detach().numpy()
            np.testing.assert_allclose(a.detach().numpy(), values, 2e-6, 2e-6, err_msg=f"{number}")
        elif isinstance(b, str):
            assert a.replace("minitensor", "torch") == b
        else:
            assert tuple(a) == tuple(b)


IMPOSSIBLE: list[Callable[[Any, Any], Any]] = [
    lambda torch, d: d.Normal(0.0, -1.0),
    lambda torch, d: d.Normal(math.nan, 1.0),
    lambda torch, d: d.Normal("0", 1.0),
    lambda torch, d: d.Normal(torch.zeros(3), torch.ones(2)),
    lambda torch, d: d.Normal(torch.zeros(2), 1.0).log_prob(torch.zeros(3)),
    lambda torch, d: d.Normal(0.0, 1.0).log_prob(2.0),
    lambda torch, d: d.Categorical(),
    lambda torch, d: d.Categorical(torch.ones(2), torch.ones(2)),
    lambda torch, d: d.Categorical(torch.tensor(1.0)),
    lambda torch, d: d.Categorical(torch.tensor([-1.0, 2.0])),
    lambda torch, d: d.Categorical(torch.zeros(3)),
    lambda torch, d: d.Categorical(logits=torch.tensor([math.nan, 1.0])),
    lambda torch, d: d.Categorical(torch.ones(3)).log_prob(torch.tensor(3)),
    lambda torch, d: d.Categorical(torch.ones(3)).rsample(),
    lambda torch, d: d.Bernoulli(0.3, logits=0.3),
    lambda torch, d: d.Bernoulli(2.0),
    lambda torch, d: d.Bernoulli(0.5).log_prob(torch.tensor(0.3)),
    lambda torch, d: d.Bernoulli(0.5).cdf(torch.tensor(0.3)),
    lambda torch, d: d.kl_divergence(d.Normal(0.0, 1.0), d.Bernoulli(0.5)),
    lambda torch, d: d.Distribution.set_default_validate_args(3),
]
EXPECTED = [ValueError] * 3 + [RuntimeError] + [ValueError] * 9 + [NotImplementedError]
EXPECTED += [ValueError] * 3 + [NotImplementedError] * 2 + [ValueError]


@pytest.mark.parametrize("number", range(len(IMPOSSIBLE)))
def test_what_is_impossible_is_refused(number: int) -> None:
    with pytest.raises(EXPECTED[number]):
        IMPOSSIBLE[number](mt, mt.distributions)


@needs_torch
@pytest.mark.parametrize("number", range(len(IMPOSSIBLE)))
def test_pytorch_refuses_it_too(number: int) -> None:
    import torch

    with pytest.raises(EXPECTED[number]):
        IMPOSSIBLE[number](torch, torch.distributions)


def test_arguments_are_not_checked_on_request() -> None:
    assert Normal(0.0, 1.0, validate_args=False).log_prob(mt.tensor(math.nan)).isnan()
    checked = Distribution._validate_args
    try:
        Distribution.set_default_validate_args(False)
        assert Categorical(mt.zeros(3)).probs.isnan().all()
    finally:
        Distribution.set_default_validate_args(checked)


def test_a_policy_learns_what_is_rewarded() -> None:
    """REINFORCE: the rewarded action becomes likely."""
    mt.manual_seed(0)
    logits = mt.zeros(3, requires_grad=True)
    optimizer = mt.optim.Adam([logits], lr=0.2)
    for _ in range(60):
        policy = Categorical(logits=logits)
        action = policy.sample((16,))
        loss = -(policy.log_prob(action) * (action == 2)).mean() - 0.01 * policy.entropy()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert Categorical(logits=logits).probs[2] > 0.9


def test_entropies_and_divergences_by_formula() -> None:
    fair = Categorical(mt.ones(4))
    assert fair.entropy().item() == pytest.approx(math.log(4))
    assert fair.perplexity().item() == pytest.approx(4)
    biased = Categorical(mt.tensor([0.5, 0.5, 0.0, 0.0]))
    assert kl_divergence(biased, fair).item() == pytest.approx(math.log(2))
    assert kl_divergence(fair, biased).item() == math.inf
    assert kl_divergence(Normal(1.0, 1.0), Normal(0.0, 1.0)).item() == pytest.approx(0.5)
    assert kl_divergence(Bernoulli(0.5), Bernoulli(0.25)).item() == pytest.approx(
        0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    )
    assert Normal(0.0, 2.0).log_prob(mt.tensor(2.0)).item() == pytest.approx(
        -0.5 - math.log(2 * math.sqrt(2 * math.pi))
    )
