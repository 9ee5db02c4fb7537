"""Further activations: exponential, leaky, hard, shrinking and gated ones, softplus, softmin."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...autograd.inplace import in_place
from ...core import Op, Tensor, state, wrap
from ...kernels import activation, special
from ..activation import _Activation, register_in_place, run
from ..checks import check_floating, check_tensors, normal_dim
from ..composite import composite
from ..elementwise import ZERO
from ..join import Cat
from ..places import PLACE, along, at, places
from ..samples import Rand, Samples
from ..softmax import Softmax


class Elu(Op):
    """y = x where x > 0, else alpha * (exp(x) - 1): (*) -> (*).  dx = dy, or dy * alpha * exp(x).

    D.-A. Clevert, T. Unterthiner, S. Hochreiter, "Exponential linear units", 2015.
    """

    namespaces = "functional"
    cell = "x if x > 0 else alpha * (exp(x) - 1)"

    @staticmethod
    def call(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
        return run(Elu, input, inplace, alpha)

    def forward(ctx, x: np.ndarray, alpha: float) -> Any:
        ctx.save(x, alpha)
        y = special.expm1(x)
        if alpha != 1:
            y *= alpha
        np.copyto(y, x, where=x > ZERO[x.dtype])
        return y

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


_SCALE, _ALPHA = 1.0507009873554805, 1.6732632423543772  # of selu


class Selu(_Activation):
    """y = scale * elu(x, alpha), which keeps mean 0 and variance 1: (*) -> (*).

    dx = dy * scale, or dy * scale * alpha * exp(x). G. Klambauer, T. Unterthiner, A. Mayr,
    S. Hochreiter, "Self-normalizing neural networks", 2017.
    """

    namespaces = "torch functional"
    cell = f"{_SCALE} * (x if x > 0 else {_ALPHA} * (exp(x) - 1))"

    def forward(ctx, x: np.ndarray) -> Any:
        ctx.save(x)
        y = special.expm1(x)
        y *= _ALPHA
        np.copyto(y, x, where=x > ZERO[x.dtype])
        y *= _SCALE
        return y

    def backward(ctx, dy: Tensor) -> Tensor:
        (x,) = ctx.saved
        scaled = dy * _SCALE
        return scaled.where(x > 0, scaled * x.clamp_max(0.0).exp() * _ALPHA)

    @staticmethod
    def decomposition(x: Tensor) -> Tensor:
        return Elu.call(x, _ALPHA) * _SCALE


class Celu(Op):
    """y = x where x > 0, else alpha * (exp(x / alpha) - 1), whose slope at 0 is 1: (*) -> (*).

    dx = dy, or dy * exp(x / alpha). J. Barron, "Continuously differentiable exponential linear
    units", 2017. RuntimeError if `alpha` is 0.
    """

    namespaces = "torch functional"
    cell = "x if x > 0 else alpha * (exp(x / alpha) - 1)"

    @staticmethod
    def call(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
        check_floating("celu", input)
        if alpha == 0:
            raise RuntimeError("celu: alpha cannot be 0")
        return run(Celu, input, inplace, alpha)

    def forward(ctx, x: np.ndarray, alpha: float) -> Any:
        ctx.save(x, alpha)
        zero = ZERO[x.dtype]
        below = np.minimum(x, zero)
        y = special.expm1(below if alpha == 1 else below / alpha)
        if alpha != 1:
            y *= alpha
        np.copyto(y, x, where=x >= zero)
        return y

    def backward(ctx, dy: Tensor) -> Tensor:
        x, alpha = ctx.saved
        below = dy * alpha * (x.clamp_max(0.0) / alpha).exp() / alpha  # NaN for an infinite alpha
        return below.where(x <= 0, dy)

    @staticmethod
    def decomposition(x: Tensor, alpha: float) -> Tensor:
        return x.where(x >= 0, (x.clamp_max(0.0) / alpha).expm1() * alpha)

    samples = Elu.samples

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(3), 0.0
        yield (rand.integers(0, 5, 3),)


class LeakyRelu(Op):
    """y = x where x > 0, else negative_slope * x: (*) -> (*).  dx = dy, or negative_slope * dy.

    A. Maas, A. Hannun, A. Ng, "Rectifier nonlinearities improve neural network acoustic models",
    2013.
    """

    namespaces = "functional"
    cell = "x if x > 0 else slope * x"

    @staticmethod
    def call(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
        return run(LeakyRelu, input, inplace, negative_slope)

    def forward(ctx, x: np.ndarray, slope: float) -> Any:
        ctx.save(x, slope)
        return np.where(x > ZERO[x.dtype], x, x * slope)

    def backward(ctx, dy: Tensor) -> Tensor:
        x, slope = ctx.saved
        return dy.where(x > 0, dy * slope)

    samples = Elu.samples
    errors = Elu.errors


class Prelu(Op):
    """y = x where x > 0, else weight * x: (N, C, *), (C,) or (1,) -> (N, C, *).

    dx = dy, or weight * dy; dweight = the sum of x * dy where x is not positive. K. He and others,
    "Delving deep into rectifiers", 2015. RuntimeError for another number of weights, or other
    types.
    """

    namespaces = "torch tensor functional"

    @staticmethod
    def call(input: Tensor, weight: Tensor) -> Tensor:
        check_tensors("prelu", input=input, weight=weight)
        x, w = input._array, weight._array
        if x.dtype != w.dtype:
            raise RuntimeError(f"prelu: types differ: input {input.dtype}, weight {weight.dtype}")
        if w.ndim > 1:
            raise RuntimeError(
                f"prelu: expected a weight of 0 or 1 dimensions, got shape {tuple(w.shape)}"
            )
        channels = x.shape[1] if x.ndim > 1 else 1
        if w.size not in (1, channels):
            raise RuntimeError(
                f"prelu: {w.size} weights for {channels} channels: input has shape {tuple(x.shape)}"
            )
        return Prelu.apply(input, weight)

    def forward(ctx, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        w = weight.reshape(_per_channel(x.ndim, weight.size))
        ctx.save(x, weight)
        return np.where(x > ZERO[x.dtype], x, x * w)

    @staticmethod
    def cell(x: np.ndarray, weight: np.ndarray) -> str:
        of = at("weight", [PLACE[1] if weight.size > 1 else "0"] * weight.ndim)
        return f"x if x > 0 else {of} * x"

    def backward(ctx, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved
        shape = _per_channel(x.ndim, weight._array.size)
        positive = x > 0
        dx = dy.where(positive, dy * weight.reshape(shape)) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return dx, None
        given = (dy * x).masked_fill(positive, 0.0)
        summed = given.sum([d for d in range(x.ndim) if d != 1] if shape else None)
        return dx, summed.reshape(weight._array.shape)

    @staticmethod
    def decomposition(x: Tensor, weight: Tensor) -> Tensor:
        w = weight.reshape(_per_channel(x._array.ndim, weight._array.size))
        return x.where(x > 0, x * w)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand.distinct(2, 3, 4), rand(3)
        yield rand.distinct(2, 3), rand(3)
        yield rand.distinct(4), rand(1)
        yield rand.distinct(2, 3), rand()
        yield rand(), rand(1)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 3), rand(4)
        yield rand(2, 3), rand(3, 1)
        yield rand.integers(0, 5, 2, 3), rand(3)


def _per_channel(ndim: int, weights: int) -> tuple[int, ...]:
    """Return the shape in which weights broadcast: one for all, or one for each of dimension 1."""
    return () if weights == 1 else (weights,) + (1,) * (ndim - 2)


class Hardtanh(Op):
    """y = min(max(x, min_val), max_val): (*) -> (*).  dx = dy strictly between, else 0.

    ValueError if `min_val` is above `max_val`.
    """

    namespaces = "functional"
    cell = "min(max(x, low), high)"

    @staticmethod
    def call(
        input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
    ) -> Tensor:
        if min_val > max_val:
            raise ValueError(f"hardtanh: min_val {min_val} is greater than max_val {max_val}")
        return run(Hardtanh, input, inplace, min_val, max_val)

    def forward(ctx, x: np.ndarray, low: float, high: float) -> Any:
        ctx.save(x, low, high)
        return x.clip(x.dtype.type(low), x.dtype.type(high))

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


@composite(namespaces="functional", samples=lambda rand: [(rand.distinct(3, 50),)])
def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """y = min(max(x, 0), 6): (*) -> (*)."""
    return Hardtanh.call(input, 0, 6, inplace)


@composite(
    namespaces="functional",
    torch_name=None,  # whose derivative has a float32 1/6 in float64 too
    samples=lambda rand: [(rand.distinct(7, 12),), (rand(),)],
)
def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """y = min(max(x + 3, 0), 6) / 6: (*) -> (*).

    M. Courbariaux, Y. Bengio, J.-P. David, "BinaryConnect", 2015.
    """
    check_floating("hardsigmoid", input)
    if inplace:
        return in_place("hardsigmoid", input, hardsigmoid)
    return Hardtanh.call(input + 3.0, 0, 6) / 6.0


class Hardswish(_Activation):
    """y = x * min(max(x + 3, 0), 6) / 6: (*) -> (*).  dx = dy * (x / 3 + 1/2) between -3 and 3.

    A. Howard and others, "Searching for MobileNetV3", 2019.
    """

    cell = "x * min(max(x + 3, 0), 6) / 6"

    def forward(ctx, x: np.ndarray) -> Any:
        ctx.save(x)
        return x * np.minimum(np.maximum(x + 3, 0), 6) / 6

    def backward(ctx, dy: Tensor) -> Tensor:
        (x,) = ctx.saved
        inside = dy * (x / 3 + 0.5)
        return dy.where(x >= 3, inside.masked_fill(x <= -3, 0.0))

    @staticmethod
    def decomposition(x: Tensor) -> Tensor:
        return x * Hardtanh.call(x + 3.0, 0, 6) / 6.0

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield (rand.distinct(7, 12),)
        yield (rand(),)

    errors = Elu.errors


class Threshold(Op):
    """y = x where x > threshold, else value: (*) -> (*).  dx = dy where x > threshold, else 0."""

    namespaces = "torch functional"
    cell = "value if x <= threshold else x"

    @staticmethod
    def call(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
        check_tensors("threshold", input=input)
        if input._array.dtype.kind == "b":
            raise NotImplementedError("threshold: not implemented for bool tensors")
        if input._array.dtype.kind in "iu":
            threshold, value = int(threshold), int(value)
        if inplace:
            return in_place("threshold", input, lambda x: Threshold.apply(x, threshold, value))
        return Threshold.apply(input, threshold, value)

    def forward(ctx, x: np.ndarray, threshold: float, value: float) -> np.ndarray:
        ctx.save(x, threshold)
        return np.where(x <= threshold, np.asarray(value, x.dtype), x)

    def backward(ctx, dy: Tensor) -> Tensor:
        x, threshold = ctx.saved
        return dy.masked_fill(x <= threshold, 0.0)

    @staticmethod
    def decomposition(x: Tensor, threshold: float, value: float) -> Tensor:
        return x.masked_fill(x <= threshold, value)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand.distinct(3, 4), 0.1, 20.0
        yield rand(), 0.1, 0.2
        yield rand.integers(-3, 4, 5), 0, 7

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand.bools(3), 0, 1


class Hardshrink(Op):
    """y = x where |x| > lambd, else 0: (*) -> (*).  dx = dy there."""

    namespaces = "torch tensor functional"
    cell = "0 if abs(x) <= lambd else x"

    @staticmethod
    def call(input: Tensor, lambd: float = 0.5) -> Tensor:
        check_floating("hardshrink", input)
        return Hardshrink.apply(input, lambd)

    def forward(ctx, x: np.ndarray, lambd: float) -> Any:
        ctx.save(x, lambd)
        return np.where(np.abs(x) <= lambd, ZERO[x.dtype], x)

    def backward(ctx, dy: Tensor) -> Tensor:
        x, lambd = ctx.saved
        return dy.masked_fill(x.abs() <= lambd, 0.0)

    @staticmethod
    def decomposition(x: Tensor, lambd: float) -> Tensor:
        return x.masked_fill((x >= -lambd) & (x <= lambd), 0.0)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield (rand.distinct(3, 4),)
        yield rand.distinct(3, 4), 0.22
        yield rand(), -1.0

    errors = Elu.errors


class Softshrink(Op):
    """y = x moved towards 0 by lambd, and no further: (*) -> (*).  RuntimeError if lambd < 0.

    dx = dy where |x| > lambd, else 0.
    """

    namespaces = "functional"
    cell = "x - min(max(x, -lambd), lambd)"

    @staticmethod
    def call(input: Tensor, lambd: float = 0.5) -> Tensor:
        check_floating("softshrink", input)
        if lambd < 0:
            raise RuntimeError(f"softshrink: lambd must not be negative, got {lambd}")
        return Softshrink.apply(input, lambd)

    def forward(ctx, x: np.ndarray, lambd: float) -> Any:
        ctx.save(x, lambd)
        return x - np.minimum(np.maximum(x, -lambd), lambd)

    backward = Hardshrink.backward

    @staticmethod
    def decomposition(x: Tensor, lambd: float) -> Tensor:
        return x - x.clamp(-lambd, lambd)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield (rand.distinct(3, 4),)
        yield rand.distinct(3, 4), 0.22
        yield (rand(),)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(3), -1.0
        yield (rand.integers(0, 5, 3),)


@composite(
    namespaces="functional",
    samples=lambda rand: [(rand(3, 4),), (rand(),), (rand.integers(-3, 4, 3),)],
    errors=lambda rand: [(rand.bools(3),)],
)
def tanhshrink(input: Tensor) -> Tensor:
    """y = x - tanh(x): (*) -> (*)."""
    return input - input.tanh()


@composite(
    namespaces="functional",
    samples=lambda rand: [(rand.distinct(3, 4),), (rand(),), (rand.integers(-3, 4, 3),)],
    errors=lambda rand: [(rand.bools(3),)],
)
def softsign(input: Tensor) -> Tensor:
    """y = x / (1 + |x|): (*) -> (*)."""
    return input / (input.abs() + 1)


class Glu(Op):
    """y = a * sigmoid(b), a and b the halves of x along `dim`: (*, 2 n, *) -> (*, n, *).

    da = dy * s, db = dy * a * s * (1 - s) with s = sigmoid(b). Y. Dauphin and others, "Language
    modeling with gated convolutional networks", 2016. RuntimeError for an odd length.
    """

    namespaces = "functional"

    @staticmethod
    def call(input: Tensor, dim: int = -1) -> Tensor:
        check_floating("glu", input)
        shape = input._array.shape
        if not shape:
            raise RuntimeError("glu: a 0-dim tensor has no halves")
        axis = normal_dim(dim, len(shape))
        if shape[axis] % 2:
            raise RuntimeError(
                f"glu: halving dimension must be even, but dimension {dim} is of size {shape[axis]}"
            )
        return Glu.apply(input, axis)

    def forward(ctx, x: np.ndarray, dim: int) -> np.ndarray:
        ctx.save(x, dim)
        n, before = x.shape[dim] // 2, (slice(None),) * dim
        return x[(*before, slice(n))] * activation.activate("sigmoid", x[(*before, slice(n, None))])

    @staticmethod
    def cell(x: np.ndarray, dim: int) -> str:
        gate = at("x", along(x.ndim, [dim], f"{PLACE[dim]} + {x.shape[dim] // 2}"))
        return f"{at('x', places(x.ndim))} / (1 + exp(-{gate}))"

    def backward(ctx, dy: Tensor) -> Tensor:
        x, dim = ctx.saved
        a, b = x.chunk(2, dim)
        s = b.sigmoid()
        da = dy * s
        return Cat.call([da, da * a * (1.0 - s)], dim)

    @staticmethod
    def decomposition(x: Tensor, dim: int) -> Tensor:
        a, b = x.chunk(2, dim)
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
    cell = "x if beta * x > threshold else log(1 + exp(beta * x)) / beta"

    @staticmethod
    def call(input: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
        return run(Softplus, input, False, beta, threshold)

    def forward(ctx, x: np.ndarray, beta: float, threshold: float) -> Any:
        ctx.save(x, beta, threshold)
        if _is_plain(x.dtype, beta, threshold):
            return special.softplus(x)
        scaled = x if beta == 1 else x * beta
        return np.where(scaled > threshold, x, special.softplus(scaled) / beta)

    def backward(ctx, dy: Tensor) -> Tensor:
        x, beta, threshold = ctx.saved
        if _is_plain(x._array.dtype, beta, threshold):
            return _slope("softplus", x, dy)
        scaled = x * beta
        return dy.where(scaled > threshold, dy * scaled.sigmoid())

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield (rand(3, 4),)
        yield rand.distinct(3, 4), 3, 1
        yield (rand(),)

    errors = Elu.errors


def _slope(kind: str, x: Tensor, dy: Tensor) -> Tensor:
    """Return dy * sigmoid(x) for softplus, dy * sigmoid(-x) for logsigmoid, in one pass."""
    if state.grad or x._array.dtype != dy._array.dtype:
        return dy * (x if kind == "softplus" else -x).sigmoid()
    return wrap(state.quietly(activation.differentiate, kind, x._array, dy._array))


def _is_plain(dtype: np.dtype[Any], beta: float, threshold: float) -> bool:
    """Return True if neither argument matters: log(1 + exp(x)) rounds to x above 18 in float32."""
    return beta == 1 and threshold >= 18 and dtype.itemsize <= 4


class Logsigmoid(Op):
    """y = log(sigmoid(x)): (*) -> (*).  dx = dy * sigmoid(-x)."""

    namespaces = "functional"
    cell = "-log(1 + exp(-x))"

    @staticmethod
    def call(input: Tensor) -> Tensor:
        return run(Logsigmoid, input, False)

    def forward(ctx, x: np.ndarray) -> Any:
        ctx.save(x)
        return -special.softplus(-x)

    def backward(ctx, dy: Tensor) -> Tensor:
        (x,) = ctx.saved
        return _slope("logsigmoid", x, dy)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield (rand(3, 4),)
        yield (rand(),)

    errors = Elu.errors


class Mish(_Activation):
    """y = x * tanh(softplus(x)): (*) -> (*).  D. Misra, "Mish", 2019.

    dx = dy * (t + x * (1 - t^2) * sigmoid(x)) with t the hyperbolic tangent.
    """

    cell = "x * tanh(log(1 + exp(x)))"

    def forward(ctx, x: np.ndarray) -> Any:
        ctx.save(x)
        return x * activation.activate("tanh", special.softplus(x))

    def backward(ctx, dy: Tensor) -> Tensor:
        (x,) = ctx.saved
        t = Softplus.call(x).tanh()
        return dy * (t + x * (1.0 - t * t) * x.sigmoid())

    @staticmethod
    def decomposition(x: Tensor) -> Tensor:
        return x * Softplus.call(x).tanh()

    samples = Logsigmoid.samples
    errors = Elu.errors


@composite(namespaces="functional", samples=lambda rand: [(rand(3, 4), dict(dim=1))])
def softmin(input: Tensor, dim: int | None = None, dtype: Any = None) -> Tensor:
    """y = softmax(-x) along `dim`: (*) -> (*)."""
    return Softmax.call(-input if dtype is None else (-input).to(dtype), dim)


register_in_place("selu", "elu", "celu", "leaky_relu", "hardtanh", "threshold")
