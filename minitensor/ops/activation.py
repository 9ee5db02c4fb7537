"""Activations of transformers and recurrent networks, element by element: (*) -> (*).

They run in kernels, forward and backward. With `inplace=True` the result replaces the argument.
Integers raise NotImplementedError, except in relu, which returns integers, and in sigmoid and tanh,
which return floats.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd.inplace import in_place
from ..core import NAMESPACES, Op, Tensor, attach
from ..dtype import FLOATING
from ..kernels import activation as kernel
from .checks import check_floating, check_tensors
from .convert import promote
from .elementwise import ZERO
from .samples import Rand, Samples, strided

_FEW = 1 << 10  # elements up to which NumPy is done before a kernel has begun


def run(op: type[Op], input: Tensor, inplace: bool, *settings: Any) -> Tensor:
    """Apply `op`, in place if asked; NotImplementedError or RuntimeError for other types."""
    if not isinstance(input, Tensor):
        check_tensors(op.op_name, input=input)
    kind = input._array.dtype.kind
    if kind not in FLOATING and op.op_name not in ("relu", "hardtanh"):
        check_floating(op.op_name, input)
    if kind == "b":
        raise RuntimeError(f"{op.op_name}: bool inputs are not supported")
    if inplace:
        return in_place(op.op_name, input, lambda x: op.apply(x, *settings))
    return op.apply(input, *settings)


class _Activation(Op, abstract=True):
    """An activation with no settings but `inplace`."""

    namespaces = "functional"

    @classmethod
    def default_call(cls) -> Callable[..., Any]:
        def call(input: Tensor, inplace: bool = False) -> Tensor:
            return run(cls, input, inplace)

        return call

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield (rand.distinct(3, 4),)
        yield (strided(rand.distinct(3, 4)),)
        yield (rand(),)
        yield (rand(0, 3),)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield (rand.bools(3),)
        yield (None,)


class Relu(_Activation):
    """y = max(x, 0): (*) -> (*).  dx = dy where x > 0, else 0."""

    native = True
    namespaces = "torch tensor functional"
    inplace = True
    cell = "max(x, 0)"
    plain = True

    def forward(ctx, x: np.ndarray) -> np.ndarray:
        if x.size <= _FEW or x.dtype.kind not in FLOATING:
            y = np.where(x < ZERO[x.dtype], ZERO[x.dtype], x)  # NaN and -0 stay
        else:
            y = kernel.activate("relu", x)
        ctx.save(y)
        return y

    def backward(ctx, dy: Any) -> Any:
        (y,) = ctx.saved
        if ctx.on_arrays:
            return kernel.differentiate("relu", y, dy)
        return ReluBackward.apply(dy, y)


class ReluBackward(Op):
    """The gradient of x from y = relu(x): dx = dy where y > 0, else 0: (*), (*) -> (*)."""

    native = True
    namespaces = ""
    torch_name = None
    cell = "dy if y > 0 else 0"

    def forward(ctx, dy: np.ndarray, y: np.ndarray) -> np.ndarray:
        ctx.save(y)
        return kernel.differentiate("relu", y, dy)

    def backward(ctx, g: Tensor) -> Tensor:
        (y,) = ctx.saved
        return ReluBackward.apply(g, y)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(3, 4), rand.constant(3, 4)


class _Squash(Op, abstract=True):
    """sigmoid or tanh: its derivative is a polynomial in y."""

    out = "cast"
    inplace = True
    namespaces = "torch tensor functional"
    plain = True

    @classmethod
    def default_call(cls) -> Callable[..., Any]:
        apply = cls.apply

        def call(input: Tensor) -> Tensor:
            if not isinstance(input, Tensor) or input._array.dtype.kind not in FLOATING:
                (input,) = promote(input, floating=True)
            return apply(input)

        return call

    samples = _Activation.samples


class Sigmoid(_Squash):
    """y = 1 / (1 + exp(-x)): (*) -> (*).  dx = dy * y * (1 - y)."""

    cell = "1 / (1 + exp(-x))"

    def forward(ctx, x: np.ndarray) -> np.ndarray:
        y = kernel.activate("sigmoid", x)
        ctx.save(y)
        return y

    def backward(ctx, dy: Any) -> Any:
        (y,) = ctx.saved
        if ctx.on_arrays:
            return kernel.differentiate("sigmoid", y, dy)
        return SigmoidBackward.apply(dy, y)


class SigmoidBackward(Op):
    """The gradient of x from y = sigmoid(x): dx = dy * y * (1 - y): (*), (*) -> (*)."""

    native = True
    namespaces = ""
    torch_name = None
    fused = True
    cell = "dy * y * (1 - y)"

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
    def samples(rand: Rand) -> Samples:
        yield rand(3, 4), rand(3, 4)


class Tanh(_Squash):
    """y = tanh(x): (*) -> (*).  dx = dy * (1 - y^2)."""

    cell = "tanh(x)"

    def forward(ctx, x: np.ndarray) -> np.ndarray:
        y = kernel.activate("tanh", x)
        ctx.save(y)
        return y

    def backward(ctx, dy: Any) -> Any:
        (y,) = ctx.saved
        if ctx.on_arrays:
            return kernel.differentiate("tanh", y, dy)
        return TanhBackward.apply(dy, y)


class TanhBackward(Op):
    """The gradient of x from y = tanh(x): dx = dy * (1 - y^2): (*), (*) -> (*)."""

    native = True
    namespaces = ""
    torch_name = None
    fused = True
    cell = "dy * (1 - y ** 2)"

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

    native = True
    fused = True
    cell = "x / (1 + exp(-x))"

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

    native = True
    namespaces = "functional"
    fused = True

    @staticmethod
    def call(input: Tensor, *, approximate: str = "none") -> Tensor:
        if approximate not in ("none", "tanh"):
            raise RuntimeError(f"gelu: approximate must be 'none' or 'tanh', got {approximate!r}")
        return run(Gelu, input, False, approximate)

    def forward(ctx, x: np.ndarray, approximate: str) -> np.ndarray:
        kind = "gelu_tanh" if approximate == "tanh" else "gelu"
        ctx.save(x, kind)
        return kernel.activate(kind, x)

    @staticmethod
    def cell(x: np.ndarray, approximate: str) -> str:
        if approximate == "tanh":
            return "x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x ** 3))) / 2"
        return "x * (1 + erf(x / sqrt(2))) / 2"

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
    def samples(rand: Rand) -> Samples:
        yield (rand(3, 4),)
        yield rand(3, 4), dict(approximate="tanh")
        yield (strided(rand(3, 4)),)
        yield (rand(0, 3),)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(3), dict(approximate="sigmoid")
        yield (rand.integers(0, 5, 3),)


def register_in_place(*names: str) -> None:
    """Register the functions with a trailing underscore, such as `relu_`."""
    for name in names:
        function = functools.partial(NAMESPACES["functional"][name], inplace=True)
        for space in ("functional", "torch"):
            if name in NAMESPACES[space]:
                attach(space, f"{name}_", function)


register_in_place("relu")
for _name in ("sigmoid", "tanh"):
    attach("torch", f"{_name}_", getattr(Tensor, f"{_name}_"))
