"""Losses, with PyTorch's signatures: of an input and a target, reduced to a number by default.

`reduction` is "mean" over the elements, "sum", or "none"; `size_average` and `reduce` are its old
spellings. ValueError for another word.
"""

from __future__ import annotations

import warnings

from ..core import Op, Tensor
from .checks import reduction_of
from .samples import Rand, Samples


def reduced(loss: Tensor, reduction: str) -> Tensor:
    """Return the loss of each element, their sum or their mean."""
    if reduction == "none":
        return loss
    return loss.sum() if reduction == "sum" else loss.mean()


def _difference(name: str, input: Tensor, target: Tensor) -> Tensor:
    """Return input - target; warn if one is broadcast, which is rarely intended."""
    if input.shape != target.shape:
        warnings.warn(
            f"{name}: the target's shape {tuple(target.shape)} differs from the input's "
            f"{tuple(input.shape)}: one is broadcast, which is likely not meant.",
            stacklevel=3,
        )
    return input - target


class _Distance(Op, abstract=True):
    """A loss of input - target alone."""

    namespaces = "functional"

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2, 3), rand(2, 3)
        yield rand(2, 3), rand(2, 3), dict(reduction="none")
        yield rand(2, 3), rand.integers(0, 3, 2, 3), dict(reduction="sum")

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 3), rand(2, 3), dict(reduction="all")


class MseLoss(_Distance):
    """(input - target)^2: (*), (*) -> () or (*)."""

    torch_name = "nn.functional.mse_loss"

    @staticmethod
    def call(
        input: Tensor,
        target: Tensor,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> Tensor:
        reduction = reduction_of(size_average, reduce, reduction)
        return reduced(_difference("mse_loss", input, target).square(), reduction)
