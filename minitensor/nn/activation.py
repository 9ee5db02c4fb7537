"""Activations as modules; each calls the function of nn.functional that its formula names."""

from __future__ import annotations

from typing import Any

from ..core import Tensor
from ..creation import full
from . import functional as F
from .module import Module
from .parameter import Parameter


class _InPlace(Module):
    """An activation whose only setting is whether it overwrites its input."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def extra_repr(self) -> str:
        """Whether it works in place."""
        return "inplace=True" if self.inplace else ""


class _AlongDim(Module):
    """An activation along one dimension."""

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def extra_repr(self) -> str:
        """The dimension."""
        return f"dim={self.dim}"


class ReLU(_InPlace):
    """y = max(x, 0): (*) -> (*)."""

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)."""
        return F.relu(input, inplace=self.inplace)


class ReLU6(_InPlace):
    """y = min(max(x, 0), 6): (*) -> (*)."""

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)."""
        return F.relu6(input, inplace=self.inplace)


class SiLU(_InPlace):
    """y = x * sigmoid(x): (*) -> (*)."""

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)."""
        return F.silu(input, inplace=self.inplace)


class Mish(_InPlace):
    """y = x * tanh(softplus(x)): (*) -> (*)."""

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)."""
        return F.mish(input, inplace=self.inplace)


class SELU(_InPlace):
    """y = s * (x if x > 0 else a * (exp(x) - 1)) with fixed s and a: (*) -> (*)."""

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)."""
        return F.selu(input, inplace=self.inplace)


class Tanh(Module):
    """y = tanh(x): (*) -> (*)."""

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)."""
        return input.tanh()


class Sigmoid(Module):
    """y = 1 / (1 + exp(-x)): (*) -> (*)."""

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)."""
        return input.sigmoid()


class LogSigmoid(Module):
    """y = log(sigmoid(x)): (*) -> (*)."""

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)."""
        return F.logsigmoid(input)


class Softmax(_AlongDim):
    """y = exp(x) / sum(exp(x)) along `dim`: (*) -> (*)."""

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)."""
        return F.softmax(input, self.dim)


class LogSoftmax(_AlongDim):
    """y = x - log(sum(exp(x))) along `dim`: (*) -> (*)."""

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)."""
        return F.log_softmax(input, self.dim)


class GLU(_AlongDim):
    """y = a * sigmoid(b), where a and b are the halves of x along `dim`: (*, 2d) -> (*, d)."""

    dim: int

    def __init__(self, dim: int = -1) -> None:
        super().__init__(dim)

    def forward(self, input: Tensor) -> Tensor:
        """(*, 2d) -> (*, d)."""
        return F.glu(input, self.dim)


class GELU(Module):
    """y = x * P(X <= x), X standard normal: (*) -> (*). `approximate` is "none" or "tanh".

    D. Hendrycks, K. Gimpel, "Gaussian Error Linear Units", 2016.
    """

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = approximate

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)."""
        return F.gelu(input, approximate=self.approximate)

    def extra_repr(self) -> str:
        """Which formula."""
        return f"approximate={self.approximate!r}"


class ELU(Module):
    """y = x if x > 0 else alpha * (exp(x) - 1): (*) -> (*)."""

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha = alpha
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)."""
        return F.elu(input, self.alpha, self.inplace)

    def extra_repr(self) -> str:
        """The settings."""
        return f"alpha={self.alpha}" + (", inplace=True" if self.inplace else "")


class LeakyReLU(Module):
    """y = x if x > 0 else negative_slope * x: (*) -> (*)."""

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__()
        self.negative_slope = negative_slope
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)."""
        return F.leaky_relu(input, self.negative_slope, self.inplace)

    def extra_repr(self) -> str:
        """The settings."""
        return f"negative_slope={self.negative_slope}" + (", inplace=True" if self.inplace else "")


class Hardtanh(Module):
    """y = min(max(x, min_val), max_val): (*) -> (*)."""

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        if min_val >= max_val:
            raise AssertionError("max_val must be larger than min_val")
        self.min_val = min_val
        self.max_val = max_val
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)."""
        return F.hardtanh(input, self.min_val, self.max_val, self.inplace)

    def extra_repr(self) -> str:
        """The settings."""
        inplace = ", inplace=True" if self.inplace else ""
        return f"min_val={self.min_val}, max_val={self.max_val}{inplace}"


class Softplus(Module):
    """y = log(1 + exp(beta * x)) / beta, or x where beta * x > threshold: (*) -> (*)."""

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta = beta
        self.threshold = threshold

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)."""
        return F.softplus(input, self.beta, self.threshold)

    def extra_repr(self) -> str:
        """The settings."""
        return f"beta={self.beta}, threshold={self.threshold}"


class PReLU(Module):
    """y = x if x > 0 else weight * x: (N, C, *) -> (N, C, *).

    weight (num_parameters,) is learnt: one for all, or one for each of the C channels.
    """

    def __init__(
        self, num_parameters: int = 1, init: float = 0.25, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        self.num_parameters = num_parameters
        self.init = init
        self.weight = Parameter(full((num_parameters,), float(init), device=device, dtype=dtype))

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, *) -> (N, C, *)."""
        return F.prelu(input, self.weight)

    def extra_repr(self) -> str:
        """The number of parameters."""
        return f"num_parameters={self.num_parameters}"
