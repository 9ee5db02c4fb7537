"""Further activations: exponential, leaky, hard and gated ones, softplus and softmin."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...core import Op, Tensor, in_place
from ...kernels import special
from ..activation import _Activation, register_in_place, run
from ..checks import check_floating
from ..samples import Rand, Samples
from ..softmax import Softmax


class Elu(Op):
    """y = x where x > 0, else alpha * (exp(x) - 1): (*) -> (*).  dx = dy, or dy * alpha * exp(x).

    D.-A. Clevert, T. Unterthiner, S. Hochreiter, "Exponential linear units", 2015.
    """

    namespaces = "functional"

    @staticmethod
    def call(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
        return run(Elu, input, inplace, alpha)

    def forward(ctx, x: np.ndarray, alpha: float) -> Any:
        ctx.save(x, alpha)
        return np.where(x > 0, x, alpha * special.expm1(x))

    def backward(ctx, dy: Tensor) -> Tensor:
        x, alpha = ctx.saved
        negative = -(-x).relu()  # min(x, 0): no overflow where x is large
        return dy.where(x > 0, dy * negative.exp() * alpha)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield (rand.distinct(3, 4),)
        yield rand.distinct(3, 4), 0.5
        yield (rand(),)

    @staticmethod
    def errors(rand: Rand) -> Samples:
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
    """y = x where x > 0, else negative_slope * x: (*) -> (*).  dx = dy, or negative_slope * dy.

    A. Maas, A. Hannun, A. Ng, "Rectifier nonlinearities improve neural network acoustic models",
    2013.
    """

    namespaces = "functional"

    @staticmethod
    def call(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
        return run(LeakyRelu, input, inplace, negative_slope)

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
    def samples(rand: Rand) -> Samples:
        yield rand.distinct(2, 3, 4), rand(3)
        yield rand.distinct(2, 3), rand(3)
        yield rand.distinct(4), rand(1)
        yield rand(), rand(1)

    @staticmethod
    def errors(rand: Rand) -> Samples:
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
        return run(Hardtanh, input, inplace, min_val, max_val)

    def forward(ctx, x: np.ndarray, low: float, high: float) -> Any:
        ctx.save(x, low, high)
        return np.clip(x, x.dtype.type(low), x.dtype.type(high))

    def backward(ctx, dy: Tensor) -> Tensor:
        x, low, high = ctx.saved
        return dy.masked_fill((x <= low) | (x >= high), 0.0)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield (rand.distinct(7, 4),)
        yield rand.distinct(3, 4), -0.22, 0.41
        yield (rand.integers(-3, 4, 3),)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(3), 1.0, -1.0
        yield (rand.bools(3),)


class Relu6(Op):
    """y = min(max(x, 0), 6): (*) -> (*)."""

    namespaces = "functional"

    @staticmethod
    def call(input: Tensor, inplace: bool = False) -> Tensor:
        return Hardtanh.call(input, 0, 6, inplace)

    @staticmethod
    def samples(rand: Rand) -> Samples:
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
        check_floating("glu", input)
        if input.size(dim) % 2:
            raise RuntimeError(
                f"glu: halving dimension must be even, but dimension {dim} is of size "
                f"{input.size(dim)}"
            )
        a, b = input.chunk(2, dim)
        return a * b.sigmoid()

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield (rand(3, 4),)
        yield rand(2, 4, 3), 1

    @staticmethod
    def errors(rand: Rand) -> Samples:
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
        return run(Softplus, input, False, beta, threshold)

    def forward(ctx, x: np.ndarray, beta: float, threshold: float) -> Any:
        ctx.save(x, beta, threshold)
        scaled = x * beta
        return np.where(scaled > threshold, x, special.softplus(scaled) / beta)

    def backward(ctx, dy: Tensor) -> Tensor:
        x, beta, threshold = ctx.saved
        scaled = x * beta
        return dy.where(scaled > threshold, dy * scaled.sigmoid())

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield (rand(3, 4),)
        yield rand.distinct(3, 4), 3, 1
        yield (rand(),)

    errors = Elu.errors


class Logsigmoid(Op):
    """y = log(sigmoid(x)): (*) -> (*).  dx = dy * sigmoid(-x)."""

    namespaces = "functional"

    @staticmethod
    def call(input: Tensor) -> Tensor:
        return run(Logsigmoid, input, False)

    def forward(ctx, x: np.ndarray) -> Any:
        ctx.save(x)
        return -special.softplus(-x)

    def backward(ctx, dy: Tensor) -> Tensor:
        (x,) = ctx.saved
        return dy * (-x).sigmoid()

    @staticmethod
    def samples(rand: Rand) -> Samples:
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


class Softmin(Op):
    """softmax(-x) along `dim`: (*) -> (*)."""

    namespaces = "functional"

    @staticmethod
    def call(input: Tensor, dim: int | None = None, dtype: Any = None) -> Tensor:
        return Softmax.call(-input if dtype is None else -input.to(dtype), dim)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(3, 4), dict(dim=1)


register_in_place("selu", "elu", "leaky_relu", "hardtanh")
