"""The linear map, and layers that only pass on or reshape their input."""

from __future__ import annotations

import math
from typing import Any

from ..core import Tensor
from ..creation import empty
from ..devices import DeviceLike
from ..dtype import DTypeLike
from . import functional as F
from . import init
from .module import Module
from .parameter import Parameter


class Identity(Module):
    """Return the input: y = x.

    The constructor accepts any arguments and ignores them, so that it can replace any layer.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input: Tensor) -> Tensor:
        """Return the input itself."""
        return input


class Linear(Module):
    """Apply a learned affine map: y = x @ weight.T + bias, (*, in_features) -> (*, out_features).

    weight (out_features, in_features) and bias (out_features,) start uniform in
    +-1/sqrt(in_features).

    - `in_features`, `out_features`: the widths of input and output.
    - `bias`: add a bias (default True); without one `bias` is None.
    - `device`, `dtype`: of the parameters.
    """

    weight: Parameter
    bias: Parameter  # None if there is none; typed as PyTorch's is

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: DeviceLike = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.weight = Parameter(empty(out_features, in_features, device=device, dtype=dtype))
        self.register_parameter("bias", None)
        if bias:
            self.bias = Parameter(empty(out_features, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias uniformly from +-1/sqrt(in_features)."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_features) if self.in_features > 0 else 0
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        """Apply the map: (*, in_features) -> (*, out_features)."""
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Return the settings."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}"
        )


class NonDynamicallyQuantizableLinear(Linear):
    """A Linear by the name of the output projection in PyTorch's attention."""


class Flatten(Module):
    """Merge a range of dimensions into one: (N, *) -> (N, product of *) by default.

    - `start_dim`, `end_dim`: the first and the last of them (default 1 and -1).
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, input: Tensor) -> Tensor:
        """Merge the dimensions."""
        return input.flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """Split one dimension into several: (*, A*B, *) -> (*, A, B, *).

    - `dim`: the dimension to split.
    - `unflattened_size`: the sizes it is split into; one may be -1, which is inferred.
    """

    def __init__(self, dim: int, unflattened_size: tuple[int, ...] | list[int]) -> None:
        super().__init__()
        self.dim = dim
        self.unflattened_size = unflattened_size

    def forward(self, input: Tensor) -> Tensor:
        """Split the dimension."""
        return input.unflatten(self.dim, self.unflattened_size)

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"
