"""The critic of a Wasserstein GAN with its gradient penalty: a gradient inside the loss."""

from __future__ import annotations

from collections.abc import Callable

import minitensor as mt
from minitensor import Tensor, autograd, nn


class Critic(nn.Module):
    def __init__(self, features: int = 10, hidden: int = 16) -> None:
        super().__init__()
        self.fc1 = nn.Linear(features, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.fc3 = nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = mt.tanh(self.fc1(x))
        x = nn.functional.leaky_relu(self.fc2(x), 0.2)
        return self.fc3(x).squeeze(-1)


def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    alpha = mt.rand(real.size(0), 1)
    interpolates = (alpha * real + (1 - alpha) * fake).requires_grad_(True)
    scores = critic(interpolates)
    (gradients,) = autograd.grad(
        outputs=scores,
        inputs=interpolates,
        grad_outputs=mt.ones_like(scores),
        create_graph=True,
        retain_graph=True,
    )
    return ((gradients.norm(2, dim=1) - 1) ** 2).mean()


def make_loss(critic: nn.Module, weight: float = 10.0) -> Callable[[Tensor, Tensor], Tensor]:
    def critic_loss(real: Tensor, fake: Tensor) -> Tensor:
        wasserstein = critic(fake).mean() - critic(real).mean()
        loss = wasserstein + weight * gradient_penalty(critic, real, fake)
        loss.backward()
        return loss

    return critic_loss


def example() -> tuple[Callable[..., Tensor], dict[str, Tensor], dict[str, int]]:
    inputs = {"real": mt.randn(5, 10), "fake": mt.randn(5, 10)}
    return make_loss(Critic()), inputs, {"N": 5, "features": 10, "hidden": 16}
