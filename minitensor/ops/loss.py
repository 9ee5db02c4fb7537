"""Losses, with PyTorch's signatures: of an input and a target, reduced to a number by default.

`reduction` is "mean" over the elements, "sum", or "none"; `size_average` and `reduce` are its old
spellings. ValueError for another word.
"""

from __future__ import annotations

import warnings
from typing import Any

from ..core import Tensor
from .checks import reduction_of
from .composite import composite
from .elementwise import promote_operands


def reduced(loss: Tensor, reduction: str) -> Tensor:
    """Return the loss of each element, their sum or their mean."""
    if reduction == "none":
        return loss
    return loss.sum() if reduction == "sum" else loss.mean()


def difference(name: str, input: Tensor, target: Tensor) -> Tensor:
    """Return input - target; warn if one is broadcast, which is rarely intended."""
    if input._array.shape != target._array.shape:
        warnings.warn(
            f"{name}: the target's shape {tuple(target.shape)} differs from the input's "
            f"{tuple(input.shape)}: one is broadcast, which is likely not meant.",
            stacklevel=3,
        )
    one, two = promote_operands(input, target)  # also bool, which has no difference of its own
    return one - two


DISTANCE: dict[str, Any] = dict(  # attributes of a loss that depends on input - target only
    namespaces="functional",
    samples=lambda rand: [
        (rand(2, 3), rand(2, 3)),
        (rand(2, 3), rand(2, 3), dict(reduction="none")),
        (rand(2, 3), rand.integers(0, 3, 2, 3), dict(reduction="sum")),
    ],
    errors=lambda rand: [(rand(2, 3), rand(2, 3), dict(reduction="all"))],
)


@composite(torch_name="nn.functional.mse_loss", **DISTANCE)
def mse_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """y = (input - target)^2: (*), (*) -> () or (*).  dinput = 2 * dy * (input - target)."""
    reduction = reduction_of(size_average, reduce, reduction)
    return reduced(difference("mse_loss", input, target).square(), reduction)
