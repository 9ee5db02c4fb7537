"""Dropout under the names of the package itself."""

from __future__ import annotations

from ...core import Op, Tensor, attach
from ..dropout import Dropout
from ..samples import Rand, Samples


class PlainDropout(Op):
    """`nn.functional.dropout` with RuntimeError for p outside [0, 1]: (*) -> (*)."""

    op_name = "dropout"
    namespaces = "torch"
    torch_name = "torch.dropout"

    @staticmethod
    def call(input: Tensor, p: float, train: bool) -> Tensor:
        try:
            return Dropout.call(input, p, train)
        except ValueError as error:
            raise RuntimeError(str(error)) from None

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2, 3), 0.5, False
        yield rand(2, 3), 1.0, True

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 3), 1.1, True


def _dropout_(input: Tensor, p: float, train: bool) -> Tensor:
    """`dropout`, in place."""
    return Dropout.call(input, p, train, inplace=True)


attach("torch", "dropout_", _dropout_)
