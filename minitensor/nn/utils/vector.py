"""Parameters as one vector, and back again."""

from __future__ import annotations

from collections.abc import Iterable

from ...core import Tensor
from ...ops.join import Cat


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """Concatenate all parameters, flattened, into a vector (number of all elements,)."""
    return Cat.call([parameter.reshape(-1) for parameter in parameters])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Set the data of the parameters to consecutive parts of `vec` (number of all elements,).

    The parameters share memory with the vector. Raises TypeError if it is not a tensor.
    """
    if not isinstance(vec, Tensor):
        raise TypeError(f"expected Tensor, but got: {type(vec).__name__}")
    start = 0
    for parameter in parameters:
        end = start + parameter.numel()
        parameter.data = vec[start:end].view(parameter.shape)
        start = end
