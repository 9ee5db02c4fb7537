"""Positions of tokens: added to the embeddings, sinusoidal or learned, or rotating q and k.

Sources:
- Vaswani et al., "Attention Is All You Need", 2017, arXiv:1706.03762: sinusoids (3.5).
- Gehring et al., "Convolutional Sequence to Sequence Learning", 2017, arXiv:1705.03122: learned.
- Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021,
  arXiv:2104.09864: rotary positions.

A tensor's name ends in its dimensions: N batch, H heads, L length, E model width, K width of a head
(or half of E, the number of frequencies).
"""

# ruff: noqa: RET504 - a result gets its name before it is returned, so that its shape is checked

from __future__ import annotations

from typing import TYPE_CHECKING

import minitensor as mt
from minitensor import Tensor, nn

if TYPE_CHECKING:
    from .config import TransformerConfig


class SinusoidalPositions(nn.Module):
    """PE[p, 2i] = sin(p / 10000^(2i / E)), PE[p, 2i + 1] = cos(same): length L -> (L, E)."""

    table: Tensor

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.d_model = d_model
        self.register_buffer("table", self.compute(64), persistent=False)

    def compute(self, length: int) -> Tensor:
        """Compute the table of the first `length` positions, (L, E)."""
        position_L1 = mt.arange(length, dtype=mt.float32).unsqueeze(1)
        rate_K = 10000 ** (-mt.arange(0, self.d_model, 2, dtype=mt.float32) / self.d_model)
        angle_LK = position_L1 * rate_K
        pairs = mt.stack([angle_LK.sin(), angle_LK.cos()], dim=2)
        return pairs.flatten(1)[:, : self.d_model]

    def forward(self, length: int, start: int = 0) -> Tensor:
        """Return the table of `length` positions from `start`, extended if it ends before."""
        end = start + length
        if end > self.table.shape[0]:
            self.table = self.compute(2 * end).to(self.table.dtype)
        return self.table[start:end]


class LearnedPositions(nn.Module):
    """One learned vector for each of `max_length` positions: length L -> (L, E)."""

    def __init__(self, max_length: int, d_model: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(mt.zeros(max_length, d_model))

    def forward(self, length: int, start: int = 0) -> Tensor:
        """Return the vectors of `length` positions from `start`; IndexError if there are fewer."""
        end = start + length
        if end > self.weight.shape[0]:
            raise IndexError(
                f"the sequence has {end} tokens, but this model learned only "
                f"{self.weight.shape[0]} positions: shorten it, or build the model with "
                f"max_length={end}"
            )
        return self.weight[start:end]


class RotaryPositions(nn.Module):
    """Rotate each pair of coordinates of q or k by an angle proportional to its position.

        y[i] = x[i] cos(p r_i) - x[i + K/2] sin(p r_i)    r_i = base^(-2i / K), i < K/2
        y[i + K/2] = x[i + K/2] cos(p r_i) + x[i] sin(p r_i)

    Shapes: (N, H, L, K) -> the same. The product of a rotated q and a rotated k depends on the
    distance of their positions p alone, so attention sees relative positions, with no parameter.

    Coordinate i is paired with i + K/2, as in the weights that Hugging Face distributes
    (`rotate_half`). The paper pairs 2i with 2i + 1: the same model, with the coordinates of each
    head in another order.

    - `head_dim`: K, the width of a head; ValueError if it is odd.
    - `base`: the longest wavelength is about 2 pi base (default 10000; LLaMA 3 has 500000).
    - `length`: the positions that are known at first; for a longer text, more are computed.
    """

    def __init__(self, head_dim: int, base: float = 10000.0, length: int = 64) -> None:
        super().__init__()
        if head_dim % 2:
            raise ValueError(f"rotary positions need heads of even width, not {head_dim}")
        self.head_dim = head_dim
        self.base = base
        self.cos, self.sin = self.compute(length, mt.float32)

    def compute(self, length: int, dtype: mt.dtype) -> tuple[Tensor, Tensor]:
        """Compute cos and signed sin of the first `length` positions, (L, K) each."""
        with mt.inference_mode(False), mt.no_grad():  # the tables outlive the mode of this call
            position_L1 = mt.arange(length, dtype=mt.float64).unsqueeze(1)
            exponent = -mt.arange(0, self.head_dim, 2, dtype=mt.float64) / self.head_dim
            angle = position_L1 * self.base**exponent
            cos_LK = mt.cat([angle.cos(), angle.cos()], dim=1)
            sin_LK = mt.cat([-angle.sin(), angle.sin()], dim=1)
            return cos_LK.to(dtype), sin_LK.to(dtype)

    def forward(self, x: Tensor, start: int | Tensor = 0) -> Tensor:
        """Rotate `x` (N, H, L, K), whose first position is `start`, or `start[n]` in row n (N,).

        A position below 0, as of the padding in front of a short row, counts as 0.
        """
        x_NHLK = x
        length = x_NHLK.shape[2]
        end = length + (start if isinstance(start, int) else max(int(start.max()), 0))
        if end > self.cos.shape[0] or self.cos.dtype != x_NHLK.dtype:
            self.cos, self.sin = self.compute(max(2 * end, 64), x_NHLK.dtype)
        if isinstance(start, int):
            cos, sin = self.cos[start:end], self.sin[start:end]  # (L, K)
        else:
            position_NL = (start.unsqueeze(1) + mt.arange(length)).clamp(min=0)
            cos, sin = (table[position_NL].unsqueeze(1) for table in (self.cos, self.sin))
        # Rolled by K/2, each coordinate's partner is in its place; `sin` has its sign.
        y_NHLK = x_NHLK * cos + x_NHLK.roll(self.head_dim // 2, -1) * sin
        return y_NHLK


def make_positions(config: TransformerConfig) -> nn.Module | None:
    """Return the position embedding that the config names; None if nothing is added."""
    if config.positions == "learned":
        return LearnedPositions(config.max_length, config.d_model)
    if config.positions == "sinusoidal":
        return SinusoidalPositions(config.d_model)
    return None
