"""Distances between vectors as modules."""

from __future__ import annotations

from ..core import Tensor
from . import functional as F
from .module import Module


class CosineSimilarity(Module):
    """Compare directions: y = sum(x1 * x2) / (|x1| * |x2|), (*, D, *) and (*, D, *) -> (*, *).

    - `dim`: the dimension D (default 1).
    - `eps`: the least norm (default 1e-8).
    """

    def __init__(self, dim: int = 1, eps: float = 1e-8) -> None:
        super().__init__()
        self.dim = dim
        self.eps = eps

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        """(*, D, *) and (*, D, *) -> (*, *)."""
        return F.cosine_similarity(x1, x2, self.dim, self.eps)


class PairwiseDistance(Module):
    """Measure the distance of vectors: y = |x1 - x2 + eps|_p, (N, D) and (N, D) -> (N).

    - `p`: the norm (default 2).
    - `eps`: keeps the gradient finite where both are equal (default 1e-6).
    - `keepdim`: return (N, 1).
    """

    def __init__(self, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> None:
        super().__init__()
        self.norm = p
        self.eps = eps
        self.keepdim = keepdim

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        """(N, D) and (N, D) -> (N), or (N, 1)."""
        return F.pairwise_distance(x1, x2, self.norm, self.eps, self.keepdim)
