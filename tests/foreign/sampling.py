"""Writing with a small language model: by sampling, and greedily by way of NumPy."""

from __future__ import annotations

import numpy as np

import minitensor as mt
import minitensor.nn.functional as F
from minitensor import Tensor, nn


class Bigram(nn.Module):
    def __init__(self, vocab_size: int = 19, n_embd: int = 14) -> None:
        super().__init__()
        self.token_embedding_table = nn.Embedding(vocab_size, n_embd)
        self.proj = nn.Linear(n_embd, n_embd)
        self.lm_head = nn.Linear(n_embd, vocab_size)

    def forward(self, idx: Tensor) -> Tensor:
        x = self.token_embedding_table(idx)
        context = mt.cumsum(x, dim=1) / mt.arange(1, idx.shape[1] + 1)[None, :, None]
        return self.lm_head(mt.tanh(self.proj(context)))

    @mt.no_grad()
    def generate(
        self,
        idx: Tensor,
        max_new_tokens: int = 3,
        temperature: float = 0.8,
        top_k: int | None = 5,
    ) -> Tensor:
        for _ in range(max_new_tokens):
            logits = self(idx)
            logits = logits[:, -1, :] / temperature
            if top_k is not None:
                v, _ = mt.topk(logits, min(top_k, logits.size(-1)))
                logits = mt.where(logits < v[:, [-1]], mt.tensor(float("-inf")), logits)
            probs = F.softmax(logits, dim=-1)
            idx_next = mt.multinomial(probs, num_samples=1)
            idx = mt.cat((idx, idx_next), dim=1)
        return idx


def greedy(model: Bigram, idx: Tensor, steps: int = 3) -> Tensor:
    """Choose the likeliest token, with NumPy, and stop at token 0."""
    model.eval()
    for _ in range(steps):
        with mt.no_grad():
            logits = model(idx)[:, -1]
        probs = np.exp(logits.numpy())
        choice = probs.argmax(-1)
        idx = mt.cat([idx, mt.tensor(choice[:, None])], dim=1)
        if logits[0].argmax().item() == 0:
            break
    return idx


def example() -> tuple[object, dict[str, Tensor], dict[str, int]]:
    model = Bigram()
    sizes = {"B": 3, "vocab_size": 19, "n_embd": 14}
    return model.generate, {"idx": mt.randint(0, 19, (3, 4))}, sizes


def example_greedy() -> tuple[object, dict[str, object], dict[str, int]]:
    inputs = {"model": Bigram(), "idx": mt.randint(0, 19, (3, 4))}
    return greedy, inputs, {"B": 3, "vocab_size": 19, "n_embd": 14}
