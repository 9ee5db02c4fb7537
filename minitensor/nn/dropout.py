"""Dropout."""

from __future__ import annotations

from ..core import Tensor
from . import functional as F
from .module import Module


class Dropout(Module):
    """Drop elements at random while training: y = 0 with probability p, else x / (1 - p).

    Shapes: (*) -> (*). In evaluation mode y = x.

    - `p`: the probability that an element is dropped (default 0.5).
    - `inplace`: overwrite the input.

    Raises ValueError unless 0 <= p <= 1.

    N. Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", 2014.
    """

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
        self.p = p
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)."""
        return F.dropout(input, self.p, self.training, self.inplace)

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"p={self.p}, inplace={self.inplace}"
