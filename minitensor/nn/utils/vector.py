"""Parameters as one vector, and back."""

from __future__ import annotations

from collections.abc import Iterable

from ...core import Tensor
from ...ops.join import Cat


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All parameters one after the other, flattened: (total,)."""
    return Cat.call([parameter.reshape(-1) for parameter in parameters])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Let the parameters show the parts of `vec` (total,) in turn; TypeError if it is no tensor."""
    if not isinstance(vec, Tensor):
        raise TypeError(f"expected Tensor, but got: {type(vec).__name__}")
    start = 0
    for parameter in parameters:
        end = start + parameter.numel()
        parameter.data = vec[start:end].view(parameter.shape)
        start = end
