"""Activations as modules; each calls the function of the same name in nn.functional.

Those with `inplace` write the result into the input's memory if it is True.
"""

from __future__ import annotations

from ..core import Tensor
from ..creation import full
from ..devices import DeviceLike
from ..dtype import DTypeLike
from . import functional as F
from .module import Module
from .parameter import Parameter


class _InPlace(Module):
    """An activation whose only setting is `inplace`."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def extra_repr(self) -> str:
        """Return `inplace` if it is set."""
        return "inplace=True" if self.inplace else ""


class _AlongDim(Module):
    """An activation along the dimension `dim`."""

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def extra_repr(self) -> str:
        """Return the dimension."""
        return f"dim={self.dim}"


class ReLU(_InPlace):
    """Apply the rectifier: y = max(x, 0), (*) -> (*)."""

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)."""
        return F.relu(input, inplace=self.inplace)


class ReLU6(_InPlace):
    """Apply the rectifier cut at 6: y = min(max(x, 0), 6), (*) -> (*)."""

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)."""
        return F.relu6(input, inplace=self.inplace)


class SiLU(_InPlace):
    """Apply the sigmoid linear unit: y = x * sigmoid(x), (*) -> (*).

    S. Elfwing et al., "Sigmoid-Weighted Linear Units for Neural Network Function Approximation in
    Reinforcement Learning", 2017.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)."""
        return F.silu(input, inplace=self.inplace)


class Mish(_InPlace):
    """Apply Mish: y = x * tanh(softplus(x)), (*) -> (*).

    D. Misra, "Mish: A Self Regularized Non-Monotonic Neural Activation Function", 2019.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)."""
        return F.mish(input, inplace=self.inplace)


class Hardsigmoid(_InPlace):
    """Apply a sigmoid of three lines: y = min(max(x + 3, 0), 6) / 6, (*) -> (*)."""

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)."""
        return F.hardsigmoid(input, self.inplace)


class Hardswish(_InPlace):
    """Apply SiLU with a sigmoid of three lines: y = x * min(max(x + 3, 0), 6) / 6, (*) -> (*).

    A. Howard et al., "Searching for MobileNetV3", 2019.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)."""
        return F.hardswish(input, self.inplace)


class SELU(_InPlace):
    """Apply the scaled ELU: y = s * (x if x > 0 else a * (exp(x) - 1)), (*) -> (*).

    s = 1.0507 and a = 1.6733 (rounded) keep mean 0 and variance 1 from layer to layer.

    G. Klambauer et al., "Self-Normalizing Neural Networks", 2017.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)."""
        return F.selu(input, inplace=self.inplace)


class Tanh(Module):
    """Apply the hyperbolic tangent: y = tanh(x), (*) -> (*)."""

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)."""
        return input.tanh()


class Sigmoid(Module):
    """Apply the logistic function: y = 1 / (1 + exp(-x)), (*) -> (*)."""

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)."""
        return input.sigmoid()


class LogSigmoid(Module):
    """Apply the logarithm of the sigmoid: y = log(1 / (1 + exp(-x))), (*) -> (*)."""

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)."""
        return F.logsigmoid(input)


class Softsign(Module):
    """Apply y = x / (1 + |x|), (*) -> (*)."""

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)."""
        return F.softsign(input)


class Tanhshrink(Module):
    """Apply y = x - tanh(x), (*) -> (*)."""

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)."""
        return F.tanhshrink(input)


class _Shrink(Module):
    """An activation that is 0 between -lambd and lambd."""

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def extra_repr(self) -> str:
        """Return the bound."""
        return str(self.lambd)


class Hardshrink(_Shrink):
    """Set small values to 0: y = x if |x| > lambd else 0, (*) -> (*).

    - `lambd`: the bound (default 0.5).
    """

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)."""
        return F.hardshrink(input, self.lambd)


class Softshrink(_Shrink):
    """Move values towards 0 by lambd, and no further, (*) -> (*).

    - `lambd`: the distance, not negative (default 0.5).
    """

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)."""
        return F.softshrink(input, self.lambd)


class Softmax(_AlongDim):
    """Turn scores into probabilities: y = exp(x) / sum(exp(x)) along `dim`, (*) -> (*).

    - `dim`: the dimension along which the result sums to 1. None chooses it by the number of
      dimensions, as PyTorch does, and warns.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)."""
        return F.softmax(input, self.dim)


class LogSoftmax(_AlongDim):
    """Turn scores into log-probabilities: y = x - log(sum(exp(x))) along `dim`, (*) -> (*).

    - `dim`: the dimension of the sum. None chooses it as in Softmax.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)."""
        return F.log_softmax(input, self.dim)


class Softmin(_AlongDim):
    """Turn distances into probabilities: y = softmax(-x) along `dim`, (*) -> (*).

    - `dim`: the dimension along which the result sums to 1. None chooses it as in Softmax.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)."""
        return F.softmin(input, self.dim)


class GLU(_AlongDim):
    """Gate one half of the input by the other: y = a * sigmoid(b), (*, 2D) -> (*, D).

    - `dim`: the dimension that is cut into the halves a and b (default -1).

    Y. Dauphin et al., "Language Modeling with Gated Convolutional Networks", 2016.
    """

    dim: int

    def __init__(self, dim: int = -1) -> None:
        super().__init__(dim)

    def forward(self, input: Tensor) -> Tensor:
        """(*, 2D) -> (*, D)."""
        return F.glu(input, self.dim)


class GELU(Module):
    """Apply the Gaussian error linear unit: y = x * P(X <= x), X standard normal, (*) -> (*).

    - `approximate`: "none" for the exact formula, "tanh" for
      0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3))).

    D. Hendrycks, K. Gimpel, "Gaussian Error Linear Units", 2016.
    """

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = approximate

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)."""
        return F.gelu(input, approximate=self.approximate)

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"approximate={self.approximate!r}"


class _Exponential(Module):
    """An activation that nears -alpha for x -> -inf."""

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha = alpha
        self.inplace = inplace

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"alpha={self.alpha}" + (", inplace=True" if self.inplace else "")


class ELU(_Exponential):
    """Apply the exponential linear unit: y = x if x > 0 else alpha * (exp(x) - 1), (*) -> (*).

    - `alpha`: minus the limit for x -> -inf (default 1).
    - `inplace`: overwrite the input.

    D.-A. Clevert, T. Unterthiner, S. Hochreiter, "Fast and Accurate Deep Network Learning by
    Exponential Linear Units (ELUs)", 2015.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)."""
        return F.elu(input, self.alpha, self.inplace)


class CELU(_Exponential):
    """Apply an ELU whose slope at 0 is 1: y = x if x > 0 else alpha * (exp(x / alpha) - 1).

    Shapes: (*) -> (*).

    - `alpha`: minus the limit for x -> -inf (default 1).
    - `inplace`: overwrite the input.

    J. T. Barron, "Continuously Differentiable Exponential Linear Units", 2017.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)."""
        return F.celu(input, self.alpha, self.inplace)


class LeakyReLU(Module):
    """Apply the rectifier with a small slope below 0: y = x if x > 0 else negative_slope * x.

    Shapes: (*) -> (*).

    - `negative_slope`: the slope below 0 (default 0.01).
    - `inplace`: overwrite the input.
    """

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__()
        self.negative_slope = negative_slope
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)."""
        return F.leaky_relu(input, self.negative_slope, self.inplace)

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"negative_slope={self.negative_slope}" + (", inplace=True" if self.inplace else "")


class Hardtanh(Module):
    """Limit values to an interval: y = min(max(x, min_val), max_val), (*) -> (*).

    - `min_val`, `max_val`: the ends of the interval (default -1 and 1).
    - `inplace`: overwrite the input.

    Raises AssertionError unless min_val < max_val.
    """

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
        """Return the settings."""
        inplace = ", inplace=True" if self.inplace else ""
        return f"min_val={self.min_val}, max_val={self.max_val}{inplace}"


class Threshold(Module):
    """Replace small values: y = x if x > threshold else value, (*) -> (*).

    - `inplace`: overwrite the input.
    """

    def __init__(self, threshold: float, value: float, inplace: bool = False) -> None:
        super().__init__()
        self.threshold = threshold
        self.value = value
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)."""
        return F.threshold(input, self.threshold, self.value, self.inplace)

    def extra_repr(self) -> str:
        """Return the settings."""
        inplace = ", inplace=True" if self.inplace else ""
        return f"threshold={self.threshold}, value={self.value}{inplace}"


class Softplus(Module):
    """Apply a smooth rectifier: y = log(1 + exp(beta * x)) / beta, (*) -> (*).

    - `beta`: the sharpness of the bend at 0 (default 1).
    - `threshold`: y = x where beta * x > threshold (default 20).
    """

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta = beta
        self.threshold = threshold

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)."""
        return F.softplus(input, self.beta, self.threshold)

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"beta={self.beta}, threshold={self.threshold}"


class PReLU(Module):
    """Apply the rectifier with a learned slope below 0: y = x if x > 0 else weight * x.

    Shapes: (N, C, *) -> (N, C, *); weight (num_parameters,).

    - `num_parameters`: 1 slope for all channels (the default), or C, one for each.
    - `init`: the initial slope.
    - `device`, `dtype`: of the weight.

    K. He et al., "Delving Deep into Rectifiers", 2015.
    """

    def __init__(
        self,
        num_parameters: int = 1,
        init: float = 0.25,
        device: DeviceLike = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__()
        self.num_parameters = num_parameters
        self.init = init
        self.weight = Parameter(full((num_parameters,), float(init), device=device, dtype=dtype))

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, *) -> (N, C, *)."""
        return F.prelu(input, self.weight)

    def extra_repr(self) -> str:
        """Return the number of slopes."""
        return f"num_parameters={self.num_parameters}"
