"""A character model with a loop over time: a cell, states in a list, stacked at the end."""

from __future__ import annotations

from typing import Any

import minitensor as mt
from minitensor import Tensor, nn


class MyRNN(nn.Module):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.i2h = nn.Linear(input_size, hidden_size)
        self.h2h = nn.Linear(hidden_size, hidden_size, bias=False)

    def step(self, xt: Tensor, h: Tensor) -> Tensor:
        return mt.tanh(self.i2h(xt) + self.h2h(h))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        batch, seq, _ = x.shape
        h = mt.zeros(batch, self.hidden_size)
        outputs = []
        for t in range(seq):
            h = self.step(x[:, t], h)
            outputs.append(h)
        return mt.stack(outputs, dim=1), h


class CharModel(nn.Module):
    def __init__(self, vocab: int = 17, embed: int = 12, hidden: int = 20) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, embed)
        self.rnn = MyRNN(embed, hidden)
        self.head = nn.Linear(hidden, vocab)

    def forward(self, text: Tensor) -> Tensor:
        out, _ = self.rnn(self.embed(text))
        return self.head(out)


def example() -> tuple[nn.Module, dict[str, Any], dict[str, int]]:
    sizes = {"batch": 3, "seq": 7, "vocab": 17, "embed": 12, "hidden": 20}
    return CharModel(), {"text": mt.randint(0, 17, (3, 7))}, sizes
