"""Activations, element by element: (*) -> (*).

Those that transformers and recurrent networks live on run in kernels, both ways. With
`inplace=True` the result replaces the argument. Integers raise NotImplementedError, but for the
piecewise linear relu, hardtanh and relu6, which return integers, and sigmoid and tanh, which return
floats.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd.inplace import in_place
from ..core import NAMESPACES, Op, Tensor, attach
from ..kernels import activation as kernel
from ..kernels import special
from .convert import Samples, promote
from .shape import strided

_FEW = 1 << 10  # elements up to which NumPy is done before a kernel has begun


def _run(op: type[Op], input: Tensor, inplace: bool, *settings: Any) -> Tensor:
    """`op` on a tensor of a type it can take."""
    if not isinstance(input, Tensor):
        raise TypeError(f"{op.op_name}: expected a Tensor, got {type(input).__name__}")
    if input._array.dtype.kind != "f" and op not in (Relu, Hardtanh):
        raise NotImplementedError(
            f"{op.op_name}: not implemented for {input.dtype}, only for floats"
        )
    if input._array.dtype.kind == "b":
        raise RuntimeError(f"{op.op_name}: bool inputs are not supported")
    if inplace:
        return in_place(op.op_name, input, lambda x: op.apply(x, *settings))
    return op.apply(input, *settings)


class _Activation(Op, abstract=True):
    """An activation with no settings but `inplace`."""

    namespaces = "functional"

    @classmethod
    def default_call(cls) -> Callable[..., Any]:
        @functools.wraps(cls.forward)
        def call(input: Tensor, inplace: bool = False) -> Tensor:
            return _run(cls, input, inplace)

        call.__name__ = call.__qualname__ = cls.op_name
        call.__doc__ = cls.__doc__
        return call

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield (rand.distinct(3, 4),)
        yield (strided(rand.distinct(3, 4)),)
        yield (rand(),)
        yield (rand(0, 3),)

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield (rand.bools(3),)
        yield (None,)


class Relu(_Activation):
    """y = max(x, 0): (*) -> (*).  dx = dy where x > 0, else 0."""

    namespaces = "torch tensor functional"
    inplace = True

    def forward(ctx, x: np.ndarray) -> np.ndarray:
        if x.size <= _FEW or x.dtype.kind != "f":
            y = np.where(x < 0, x.dtype.type(0), x)  # NaN and -0 stay
        else:
            y = kernel.activate("relu", x)
        ctx.save(y)
        return y

    def backward(ctx, dy: Tensor) -> Tensor:
        (y,) = ctx.saved
        return ReluBackward.apply(dy, y)


class ReluBackward(Op):
    """The gradient of x from y = relu(x): dx = dy where y > 0, else 0: (*), (*) -> (*)."""

    namespaces = ""
    torch_name = None

    def forward(ctx, dy: np.ndarray, y: np.ndarray) -> np.ndarray:
        ctx.save(y)
        return kernel.differentiate("relu", y, dy)

    def backward(ctx, g: Tensor) -> Tensor:
        (y,) = ctx.saved
        return ReluBackward.apply(g, y)

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand(3, 4), rand.constant(3, 4)


class _Squash(Op, abstract=True):
    """sigmoid or tanh: its derivative is a polynomial in y."""

    inplace = True
    namespaces = "torch tensor functional"

    @classmethod
    def default_call(cls) -> Callable[..., Any]:
        apply = cls.apply

        @functools.wraps(cls.forward)
        def call(input: Tensor) -> Tensor:
            return apply(*promote(input, floating=True))

        call.__name__ = call.__qualname__ = cls.op_name
        call.__doc__ = cls.__doc__
        return call

    samples = _Activation.samples


class Sigmoid(_Squash):
    """y = 1 / (1 + exp(-x)): (*) -> (*).  dx = dy * y * (1 - y)."""

    def forward(ctx, x: np.ndarray) -> np.ndarray:
        y = kernel.activate("sigmoid", x)
        ctx.save(y)
        return y

    def backward(ctx, dy: Tensor) -> Tensor:
        (y,) = ctx.saved
        return SigmoidBackward.apply(dy, y)


class SigmoidBackward(Op):
    """The gradient of x from y = sigmoid(x): dx = dy * y * (1 - y): (*), (*) -> (*)."""

    namespaces = ""
    torch_name = None
    fused = True

    def forward(ctx, dy: np.ndarray, y: np.ndarray) -> np.ndarray:
        ctx.save(dy, y)
        return kernel.differentiate("sigmoid", y, dy)

    def backward(ctx, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        dy, y = ctx.saved
        return kernel.differentiate("sigmoid", y, g), g * dy * (1 - 2 * y)

    @staticmethod
    def decomposition(dy: Tensor, y: Tensor) -> Tensor:
        return dy * y * (1 - y)

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand(3, 4), rand(3, 4)


class Tanh(_Squash):
    """y = tanh(x): (*) -> (*).  dx = dy * (1 - y^2)."""

    def forward(ctx, x: np.ndarray) -> np.ndarray:
        y = kernel.activate("tanh", x)
        ctx.save(y)
        return y

    def backward(ctx, dy: Tensor) -> Tensor:
        (y,) = ctx.saved
        return TanhBackward.apply(dy, y)


class TanhBackward(Op):
    """The gradient of x from y = tanh(x): dx = dy * (1 - y^2): (*), (*) -> (*)."""

    namespaces = ""
    torch_name = None
    fused = True

    def forward(ctx, dy: np.ndarray, y: np.ndarray) -> np.ndarray:
        ctx.save(dy, y)
        return kernel.differentiate("tanh", y, dy)

    def backward(ctx, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        dy, y = ctx.saved
        return kernel.differentiate("tanh", y, g), -2 * g * dy * y

    @staticmethod
    def decomposition(dy: Tensor, y: Tensor) -> Tensor:
        return dy * (1 - y * y)

    samples = SigmoidBackward.samples


class Silu(_Activation):
    """y = x * sigmoid(x): (*) -> (*).  dx = dy * s * (1 + x * (1 - s)), s = sigmoid(x).

    Also called swish; S. Elfwing, E. Uchibe, K. Doya, "Sigmoid-weighted linear units", 2017.
    """

    fused = True

    def forward(ctx, x: np.ndarray) -> np.ndarray:
        ctx.save(x)
        return kernel.activate("silu", x)

    def backward(ctx, dy: np.ndarray) -> np.ndarray:
        (x,) = ctx.saved
        return kernel.differentiate("silu", x, dy)

    @staticmethod
    def decomposition(x: Tensor) -> Tensor:
        return x * x.sigmoid()


class Gelu(Op):
    """y = x * P(x), P the normal distribution's cumulative function: (*) -> (*).

    P(x) = (1 + erf(x / sqrt(2))) / 2 and dx = dy * (P(x) + x * P'(x)); with approximate="tanh",
    P(x) = (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2. D. Hendrycks, K. Gimpel, "Gaussian
    error linear units", 2016. RuntimeError for another `approximate`.
    """

    namespaces = "functional"
    fused = True

    @staticmethod
    def call(input: Tensor, *, approximate: str = "none") -> Tensor:
        if approximate not in ("none", "tanh"):
            raise RuntimeError(f"gelu: approximate must be 'none' or 'tanh', got {approximate!r}")
        return _run(Gelu, input, False, approximate)

    def forward(ctx, x: np.ndarray, approximate: str) -> np.ndarray:
        kind = "gelu_tanh" if approximate == "tanh" else "gelu"
        ctx.save(x, kind)
        return kernel.activate(kind, x)

    def backward(ctx, dy: np.ndarray) -> np.ndarray:
        x, kind = ctx.saved
        return kernel.differentiate(kind, x, dy)

    @staticmethod
    def decomposition(x: Tensor, approximate: str) -> Tensor:
        if approximate == "tanh":
            inner = (x + x * x * x * 0.044715) * math.sqrt(2 / math.pi)
            return x * (inner.tanh() + 1) * 0.5
        return x * ((x * math.sqrt(0.5)).erf() + 1) * 0.5

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield (rand(3, 4),)
        yield rand(3, 4), dict(approximate="tanh")
        yield (strided(rand(3, 4)),)
        yield (rand(0, 3),)

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand(3), dict(approximate="sigmoid")
        yield (rand.integers(0, 5, 3),)


class Elu(Op):
    """y = x where x > 0, else alpha * (exp(x) - 1): (*) -> (*).  dx = dy, or dy * alpha * exp(x).

    D.-A. Clevert, T. Unterthiner, S. Hochreiter, "Exponential linear units", 2015.
    """

    namespaces = "functional"

    @staticmethod
    def call(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
        return _run(Elu, input, inplace, alpha)

    def forward(ctx, x: np.ndarray, alpha: float) -> Any:
        ctx.save(x, alpha)
        return np.where(x > 0, x, alpha * special.expm1(x))

    def backward(ctx, dy: Tensor) -> Tensor:
        x, alpha = ctx.saved
        negative = -(-x).relu()  # min(x, 0): no overflow where x is large
        return dy.where(x > 0, dy * negative.exp() * alpha)

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield (rand.distinct(3, 4),)
        yield rand.distinct(3, 4), 0.5
        yield (rand(),)

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield (rand.integers(0, 5, 3),)


class Selu(Op):
    """y = scale * elu(x, alpha), which keeps mean 0 and variance 1: (*) -> (*).

    G. Klambauer, T. Unterthiner, A. Mayr, S. Hochreiter, "Self-normalizing neural networks", 2017.
    """

    namespaces = "torch functional"

    @staticmethod
    def call(input: Tensor, inplace: bool = False) -> Tensor:
        if inplace:
            return in_place("selu", input, Selu.call)
        return Elu.call(input, 1.6732632423543772) * 1.0507009873554805

    samples = _Activation.samples
    errors = _Activation.errors


class LeakyRelu(Op):
    """y = x where x > 0, else negative_slope * x: (*) -> (*)."""

    namespaces = "functional"

    @staticmethod
    def call(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
        return _run(LeakyRelu, input, inplace, negative_slope)

    def forward(ctx, x: np.ndarray, slope: float) -> Any:
        ctx.save(x, slope)
        return np.where(x > 0, x, x * slope)

    def backward(ctx, dy: Tensor) -> Tensor:
        x, slope = ctx.saved
        return dy.where(x > 0, dy * slope)

    samples = Elu.samples
    errors = Elu.errors


class Prelu(Op):
    """y = x where x > 0, else weight * x: (N, C, *), (C,) or (1,) -> (N, C, *).

    K. He and others, "Delving deep into rectifiers", 2015. RuntimeError for another number of
    weights, or other types.
    """

    namespaces = "torch tensor functional"

    @staticmethod
    def call(input: Tensor, weight: Tensor) -> Tensor:
        if input.dtype != weight.dtype:
            raise RuntimeError(f"prelu: types differ: input {input.dtype}, weight {weight.dtype}")
        if weight.ndim > 1:
            raise RuntimeError(
                f"prelu: expected a weight of 0 or 1 dimensions, got shape {tuple(weight.shape)}"
            )
        if weight.numel() != 1:
            channels = input.shape[1] if input.ndim > 1 else 1
            if weight.numel() != channels:
                raise RuntimeError(
                    f"prelu: {weight.numel()} weights for {channels} channels: input has shape "
                    f"{tuple(input.shape)}"
                )
            weight = weight.reshape(-1, *[1] * (input.ndim - 2))
        elif weight.ndim > input.ndim:
            weight = weight.reshape(())
        return input.where(input > 0, input * weight)

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand.distinct(2, 3, 4), rand(3)
        yield rand.distinct(2, 3), rand(3)
        yield rand.distinct(4), rand(1)
        yield rand(), rand(1)

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand(2, 3), rand(4)
        yield rand(2, 3), rand(3, 1)
        yield rand.integers(0, 5, 2, 3), rand(3)


class Hardtanh(Op):
    """y = min(max(x, min_val), max_val): (*) -> (*).  dx = dy strictly between, else 0.

    ValueError if `min_val` is above `max_val`.
    """

    namespaces = "functional"

    @staticmethod
    def call(
        input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
    ) -> Tensor:
        if min_val > max_val:
            raise ValueError(f"hardtanh: min_val {min_val} is greater than max_val {max_val}")
        return _run(Hardtanh, input, inplace, min_val, max_val)

    def forward(ctx, x: np.ndarray, low: float, high: float) -> Any:
        ctx.save(x, low, high)
        return np.clip(x, x.dtype.type(low), x.dtype.type(high))

    def backward(ctx, dy: Tensor) -> Tensor:
        x, low, high = ctx.saved
        return dy.masked_fill((x <= low) | (x >= high), 0.0)

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield (rand.distinct(7, 4),)
        yield rand.distinct(3, 4), -0.22, 0.41
        yield (rand.integers(-3, 4, 3),)

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand(3), 1.0, -1.0
        yield (rand.bools(3),)


class Relu6(Op):
    """y = min(max(x, 0), 6): (*) -> (*)."""

    namespaces = "functional"

    @staticmethod
    def call(input: Tensor, inplace: bool = False) -> Tensor:
        return Hardtanh.call(input, 0, 6, inplace)

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield (rand.distinct(3, 50),)


class Glu(Op):
    """y = a * sigmoid(b), a and b the halves of x along `dim`: (*, 2 n, *) -> (*, n, *).

    Y. Dauphin and others, "Language modeling with gated convolutional networks", 2016. RuntimeError
    for an odd length.
    """

    namespaces = "functional"

    @staticmethod
    def call(input: Tensor, dim: int = -1) -> Tensor:
        if input.ndim == 0:
            raise RuntimeError("glu: a 0-dim tensor has no halves")
        if not input.is_floating_point():
            raise NotImplementedError(f"glu: not implemented for {input.dtype}, only for floats")
        if input.size(dim) % 2:
            raise RuntimeError(
                f"glu: halving dimension must be even, but dimension {dim} is of size "
                f"{input.size(dim)}"
            )
        a, b = input.chunk(2, dim)
        return a * b.sigmoid()

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield (rand(3, 4),)
        yield rand(2, 4, 3), 1

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield (rand(3),)
        yield (rand(),)
        yield rand(4), 3
        yield (rand.integers(0, 5, 4),)


class Softplus(Op):
    """y = log(1 + exp(beta * x)) / beta, and x itself where beta * x > threshold: (*) -> (*).

    dx = dy * sigmoid(beta * x).
    """

    namespaces = "functional"

    @staticmethod
    def call(input: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
        return _run(Softplus, input, False, beta, threshold)

    def forward(ctx, x: np.ndarray, beta: float, threshold: float) -> Any:
        ctx.save(x, beta, threshold)
        scaled = x * beta
        return np.where(scaled > threshold, x, special.softplus(scaled) / beta)

    def backward(ctx, dy: Tensor) -> Tensor:
        x, beta, threshold = ctx.saved
        scaled = x * beta
        return dy.where(scaled > threshold, dy * scaled.sigmoid())

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield (rand(3, 4),)
        yield rand.distinct(3, 4), 3, 1
        yield (rand(),)

    errors = Elu.errors


class Logsigmoid(Op):
    """y = log(sigmoid(x)): (*) -> (*).  dx = dy * sigmoid(-x)."""

    namespaces = "functional"

    @staticmethod
    def call(input: Tensor) -> Tensor:
        return _run(Logsigmoid, input, False)

    def forward(ctx, x: np.ndarray) -> Any:
        ctx.save(x)
        return -special.softplus(-x)

    def backward(ctx, dy: Tensor) -> Tensor:
        (x,) = ctx.saved
        return dy * (-x).sigmoid()

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield (rand(3, 4),)
        yield (rand(),)

    errors = Elu.errors


class Mish(Op):
    """y = x * tanh(softplus(x)): (*) -> (*).  D. Misra, "Mish", 2019."""

    namespaces = "functional"

    @staticmethod
    def call(input: Tensor, inplace: bool = False) -> Tensor:
        if inplace:
            return in_place("mish", input, Mish.call)
        return input * Softplus.call(input).tanh()

    samples = Logsigmoid.samples
    errors = Elu.errors


# The functions with a trailing underscore

for _name in ("relu", "selu", "elu", "leaky_relu", "hardtanh"):
    _call = functools.partial(NAMESPACES["functional"][_name], inplace=True)
    attach("functional", f"{_name}_", _call)
    if _name in NAMESPACES["torch"]:
        attach("torch", f"{_name}_", _call)
for _name in ("sigmoid", "tanh"):
    attach("torch", f"{_name}_", getattr(Tensor, f"{_name}_"))
