"""One whole step of training: zero_grad, forward, loss, backward, clip, step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import minitensor as mt
import minitensor.nn.functional as F
from minitensor import Tensor, nn, optim


class Net(nn.Module):
    def __init__(self, features: int = 10, hidden: int = 18, classes: int = 6) -> None:
        super().__init__()
        self.fc1 = nn.Linear(features, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.fc2 = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.fc1(x)))
        return self.fc2(F.dropout(x, 0.2, self.training))


def make_step(model: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    optimizer = optim.AdamW(model.parameters(), lr=1e-3)
    criterion = nn.CrossEntropyLoss()

    def train_step(inputs: Tensor, labels: Tensor) -> Tensor:
        optimizer.zero_grad()
        outputs = model(inputs)
        loss = criterion(outputs, labels)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    return train_step


def example() -> tuple[Callable[..., Tensor], dict[str, Any], dict[str, int]]:
    inputs = {"inputs": mt.randn(4, 10), "labels": mt.randint(0, 6, (4,))}
    return make_step(Net()), inputs, {"N": 4, "features": 10, "hidden": 18, "classes": 6}
