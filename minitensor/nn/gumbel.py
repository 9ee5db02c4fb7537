"""Samples of categories that pass gradients on."""

from __future__ import annotations

import warnings

from ..core import Tensor
from ..creation import empty_like, zeros_like


def gumbel_softmax(
    logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1
) -> Tensor:
    """Draw from the categories of `logits`, relaxed: (*) -> (*), sums along `dim` are 1.

    y = softmax((logits + g) / tau), g of the Gumbel distribution. With `hard` the result is 1 at
    the largest y and 0 elsewhere, with the gradient of y. `eps` has no effect.

    E. Jang, S. Gu, B. Poole, "Categorical Reparameterization with Gumbel-Softmax", 2016.
    """
    if eps != 1e-10:
        warnings.warn("`eps` parameter is deprecated and has no effect.", stacklevel=2)
    noise = -empty_like(logits).exponential_().log()
    y = ((logits + noise) / tau).softmax(dim)
    if not hard:
        return y
    chosen = y.max(dim, keepdim=True)[1]
    return zeros_like(logits).scatter_(dim, chosen, 1.0) - y.detach() + y
