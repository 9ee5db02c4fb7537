"""softmax and its logarithm.

Both are primitives that save only their result, so x can be freed: their backward rules are ops on
the result and its gradient.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from ..core import Op, Tensor
from ..kernels import softmax as kernel
from .checks import axis_of
from .places import along, at, places
from .samples import Rand, Samples, strided
from .shape import shaped


def _apply(op: type[Op], input: Tensor, dim: int | None, dtype: Any) -> Tensor:
    """Apply `op` to a floating tensor of at least one dimension."""
    name = op.op_name
    if dim is None:
        dim = 0 if input.ndim in (0, 1, 3) else 1
        warnings.warn(
            f"{name}: no dim given, so PyTorch's deprecated choice was made: dim={dim} for shape "
            f"{tuple(input.shape)}. Say which one.",
            stacklevel=3,
        )
    dim = axis_of(name, input, dim)
    if dtype is not None:
        input = input.to(dtype)
    if not input.is_floating_point():
        raise NotImplementedError(
            f"{name}: not implemented for {input.dtype}: give a float tensor, or dtype=float32"
        )
    if input.ndim == 0:
        return shaped(op.apply(input.reshape(1), dim=0), ())
    return op.apply(input, dim=dim)


class _Softmax(Op, abstract=True):
    """Softmax or its logarithm."""

    out = "same"
    namespaces = "torch tensor functional"

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(3, 4), dict(dim=-1)
        yield rand(2, 3, 4), 1
        yield strided(rand(3, 4)), 0
        yield strided(rand(3, 4)), 1
        yield rand(), 0
        yield rand(0, 3), 1

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 3), 2
        yield rand.integers(0, 5, 2, 3), 1
        yield rand.bools(2, 3), 1


class _Gradient(Op, abstract=True):
    """The gradient of x from a result and its gradient."""

    namespaces = ""
    torch_name = None
    fused = True

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(3, 4), rand(3, 4), dict(dim=1)
        yield rand(2, 3, 2), rand(2, 3, 2), dict(dim=1)


class Softmax(_Softmax):
    """y = exp(x) / sum(exp(x)) along `dim`: (*) -> (*).  dx = y * (dy - sum(dy * y)).

    A row of -inf alone is NaN. `dtype` converts x first. NotImplementedError for integers.
    """

    native = True

    @staticmethod
    def call(input: Tensor, dim: int | None = None, dtype: Any = None) -> Tensor:
        return _apply(Softmax, input, dim, dtype)

    def forward(ctx, x: np.ndarray, *, dim: int) -> np.ndarray:
        y = kernel.softmax(x, dim)
        ctx.save(y, dim)
        return y

    def backward(ctx, dy: Tensor) -> Tensor:
        y, dim = ctx.saved
        return SoftmaxBackward.apply(dy, y, dim=dim)

    @staticmethod
    def cell(x: np.ndarray, *, dim: int) -> str:
        return f"exp({at('x', places(x.ndim))}) / sum(exp({at('x', along(x.ndim, [dim]))}))"

    @staticmethod
    def decomposition(x: Tensor, *, dim: int) -> Tensor:
        e = (x - x.amax(dim, keepdim=True)).exp()
        return e / e.sum(dim, keepdim=True)


class SoftmaxBackward(_Gradient):
    """The gradient of x from y = softmax(x): dx = y * (dy - sum(dy * y)): (*), (*) -> (*)."""

    native = True

    def forward(ctx, dy: np.ndarray, y: np.ndarray, *, dim: int) -> np.ndarray:
        ctx.save(dy, y, dim)
        return kernel.softmax_backward(y, dy, dim)

    @staticmethod
    def cell(dy: np.ndarray, y: np.ndarray, *, dim: int) -> str:
        over = along(y.ndim, [dim])
        return f"y * (dy - sum({at('dy', over)} * {at('y', over)}))"

    def backward(ctx, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        dy, y, dim = ctx.saved
        along = (dy * y).sum(dim, keepdims=True)
        across = (g * y).sum(dim, keepdims=True)
        return kernel.softmax_backward(y, g, dim), g * (dy - along) - dy * across

    @staticmethod
    def decomposition(dy: Tensor, y: Tensor, *, dim: int) -> Tensor:
        return y * (dy - (dy * y).sum(dim, keepdim=True))


class LogSoftmax(_Softmax):
    """y = x - log(sum(exp(x))) along `dim`: (*) -> (*).  dx = dy - exp(y) * sum(dy).

    A row of -inf alone is NaN. `dtype` converts x first. NotImplementedError for integers.
    """

    native = True

    @staticmethod
    def call(input: Tensor, dim: int | None = None, dtype: Any = None) -> Tensor:
        return _apply(LogSoftmax, input, dim, dtype)

    def forward(ctx, x: np.ndarray, *, dim: int) -> np.ndarray:
        y = kernel.softmax(x, dim, log=True)
        ctx.save(y, dim)
        return y

    @staticmethod
    def cell(x: np.ndarray, *, dim: int) -> str:
        return f"x - logsumexp({at('x', along(x.ndim, [dim]))})"

    def backward(ctx, dy: Tensor) -> Tensor:
        y, dim = ctx.saved
        return LogSoftmaxBackward.apply(dy, y, dim=dim)

    @staticmethod
    def decomposition(x: Tensor, *, dim: int) -> Tensor:
        shifted = x - x.amax(dim, keepdim=True)
        return shifted - shifted.exp().sum(dim, keepdim=True).log()


class LogSoftmaxBackward(_Gradient):
    """The gradient of x from y = log_softmax(x): dx = dy - exp(y) * sum(dy): (*), (*) -> (*)."""

    native = True

    def forward(ctx, dy: np.ndarray, y: np.ndarray, *, dim: int) -> np.ndarray:
        ctx.save(dy, y, dim)
        return kernel.softmax_backward(y, dy, dim, log=True)

    @staticmethod
    def cell(dy: np.ndarray, y: np.ndarray, *, dim: int) -> str:
        return f"dy - exp(y) * sum({at('dy', along(y.ndim, [dim]))})"

    def backward(ctx, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        dy, y, dim = ctx.saved
        share = g * np.exp(y)
        return g - share.sum(dim, keepdims=True), -share * dy.sum(dim, keepdims=True)

    @staticmethod
    def decomposition(dy: Tensor, y: Tensor, *, dim: int) -> Tensor:
        return dy - y.exp() * dy.sum(dim, keepdim=True)
