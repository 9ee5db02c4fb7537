"""A siamese network: one encoder called twice, a similarity, a contrastive loss in a dict."""

from __future__ import annotations

import minitensor as mt
import minitensor.nn.functional as F
from minitensor import Tensor, nn


class Encoder(nn.Module):
    def __init__(self, in_dim: int, hidden: int, out_dim: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(in_dim, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, out_dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        z = self.net(x)
        return z / z.norm(dim=-1, keepdim=True)


class Siamese(nn.Module):
    def __init__(self, in_dim: int = 10, hidden: int = 24, out_dim: int = 14) -> None:
        super().__init__()
        self.encoder = Encoder(in_dim, hidden, out_dim)
        self.temperature = nn.Parameter(mt.tensor(0.07))

    def forward(self, anchor: Tensor, positive: Tensor) -> dict[str, Tensor]:
        za = self.encoder(anchor)
        zb = self.encoder(positive)
        logits = za @ zb.T / self.temperature
        labels = mt.arange(len(anchor))
        loss = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
        return {"loss": loss, "similarity": (za * zb).sum(-1)}


def example() -> tuple[nn.Module, dict[str, Tensor], dict[str, int]]:
    inputs = {"anchor": mt.randn(6, 10), "positive": mt.randn(6, 10)}
    return Siamese(), inputs, {"N": 6, "in_dim": 10, "hidden": 24, "out_dim": 14}
