"""Variances and norms: reductions over the dimensions `dim`, as in `reduce`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ...core import Op, Tensor, wrap
from ...dtype import as_dtype, float32, float64
from ..checks import Dims, axes_of, check_floating, numpy_names
from ..composite import composite
from ..convert import cast, promote
from ..places import reduced
from ..reduce import Mean, add_up, average, count_of, expand_reduced, share_among_ties
from ..samples import Rand, Samples


class _Moment(Op, abstract=True):
    """Variance, its root, and either with the mean: one signature, `dim` may be `unbiased`."""

    mean = False  # True if the mean is a second result

    @classmethod
    def default_call(cls) -> Callable[..., Any]:
        op_name, apply = cls.op_name, cls.apply

        @numpy_names
        def call(
            input: Tensor,
            dim: Dims | bool = None,
            unbiased: bool | None = None,
            keepdim: bool = False,
            *,
            correction: float | None = None,
        ) -> Any:
            if isinstance(dim, bool):
                dim, unbiased = None, dim
            check_floating(op_name, input, RuntimeError)
            if correction is None:
                correction = 0 if unbiased is False else 1
            return apply(input, axes_of(op_name, input, dim), correction, keepdim)

        for function in (call, inspect.unwrap(call)):  # from Python 3.14 on they share none
            function.__annotations__["return"] = "tuple[Tensor, Tensor]" if cls.mean else "Tensor"
        return call

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield (rand(2, 3),)
        yield rand(2, 3), 1
        yield rand(2, 3), False
        yield rand(2, 3, 4), (0, -1), True, True
        yield rand(2, 3), dict(dim=0, correction=0, keepdim=True)
        yield rand(2, 3), 1, False

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 3), 2
        yield (rand.integers(0, 5, 3),)


def _variance(
    x: np.ndarray, axes: tuple[int, ...], correction: float, keepdim: bool, root: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return the variance, or its square root, and the mean, which keeps the dimensions."""
    mean = average(x, axes, True)
    deviation = x - mean
    freedom = max(count_of(x.shape, axes) - correction, 0)  # degrees of freedom
    total = add_up(deviation * deviation, axes, keepdim)
    y = np.asarray(np.true_divide(total, freedom, dtype=x.dtype, order="C"))
    if y.size and x.dtype == float32:
        least, most = y.item(y.argmin()), y.item(y.argmax())  # NaN if there is one
        if not (least > 2.0**-100 and most < math.inf):  # squares overflowed or underflowed
            y, _ = _variance(x.astype(float64), axes, correction, keepdim, root)
            return y.astype(float32), mean
    return np.asarray(np.sqrt(y)) if root else y, mean


def _variance_backward(dy: Tensor, x: Tensor, axes: tuple[int, ...], correction: float) -> Tensor:
    """Return the gradient of x from that of its variance."""
    shape = x._array.shape
    freedom = count_of(shape, axes) - correction
    deviation = x - x.mean(axes, keepdim=True)
    scale = 2.0 / freedom if freedom > 0 else math.nan
    return expand_reduced(dy, shape, axes) * (deviation * scale)


def _deviation_backward(
    dy: Tensor, x: Tensor, y: Tensor, axes: tuple[int, ...], correction: float
) -> Tensor:
    """Return the gradient of x from that of y, the root of its variance."""
    dvar = (dy / (y * 2.0)).masked_fill(y == 0, 0.0)
    return _variance_backward(dvar, x, axes, correction)


def _mean_backward(dmean: Tensor, x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return the gradient of x from that of its mean."""
    shape = x._array.shape
    return expand_reduced(dmean, shape, axes) / float(count_of(shape, axes))


def _squares(x: np.ndarray, axes: tuple[int, ...], correction: float, keepdim: bool) -> str:
    """Return the cell of a variance."""
    over = reduced("x", x.ndim, axes, keepdim)
    freedom = max(count_of(x.shape, axes) - correction, 0)
    return f"sum(({over} - mean({over})) ** 2) / {freedom}"


class Var(_Moment):
    """y = the sum of (x - mean)^2 / (n - correction) over `dim`: (*) -> (*) without them.

    dx = dy * 2 * (x - mean) / (n - correction). The correction is 1, or 0 if not `unbiased`.
    RuntimeError for integers.
    """

    out = "cast"

    def forward(
        ctx, x: np.ndarray, axes: tuple[int, ...], correction: float, keepdim: bool
    ) -> np.ndarray:
        ctx.save(x, axes, correction)
        return _variance(x, axes, correction, keepdim)[0]

    @staticmethod
    def cell(x: np.ndarray, axes: tuple[int, ...], correction: float, keepdim: bool) -> str:
        return _squares(x, axes, correction, keepdim)

    def backward(ctx, dy: Tensor) -> Tensor:
        return _variance_backward(dy, *ctx.saved)


class Std(_Moment):
    """y = the square root of the variance over `dim`: (*) -> (*) without them.

    dx = dy * (x - mean) / (n - correction) / y, and 0 where y is 0. The correction is 1, or 0 if
    not `unbiased`. RuntimeError for integers.
    """

    out = "cast"

    def forward(
        ctx, x: np.ndarray, axes: tuple[int, ...], correction: float, keepdim: bool
    ) -> np.ndarray:
        y, _ = _variance(x, axes, correction, keepdim, root=True)
        ctx.save(x, y, axes, correction)
        return y

    @staticmethod
    def cell(x: np.ndarray, axes: tuple[int, ...], correction: float, keepdim: bool) -> str:
        return f"sqrt({_squares(x, axes, correction, keepdim)})"

    def backward(ctx, dy: Tensor) -> Tensor:
        return _deviation_backward(dy, *ctx.saved)


class VarMean(_Moment):
    """The variance, as `var` gives it, and the mean over `dim`: (*) -> (*), (*) without them.

    dx = what `var` and `mean` give.
    """

    namespaces = "torch"
    mean = True

    def forward(
        ctx, x: np.ndarray, axes: tuple[int, ...], correction: float, keepdim: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        ctx.save(x, axes, correction)
        y, mean = _variance(x, axes, correction, keepdim)
        return y, mean.reshape(y.shape)

    @staticmethod
    def cell(
        x: np.ndarray, axes: tuple[int, ...], correction: float, keepdim: bool
    ) -> tuple[str, str]:
        over = reduced("x", x.ndim, axes, keepdim)
        return _squares(x, axes, correction, keepdim), f"mean({over})"

    @staticmethod
    def decomposition(
        x: Tensor, axes: tuple[int, ...], correction: float, keepdim: bool
    ) -> tuple[Tensor, Tensor]:
        return Var.apply(x, axes, correction, keepdim), Mean.apply(x, axes, keepdim)

    def backward(ctx, dy: Tensor, dmean: Tensor) -> Tensor:
        x, axes, correction = ctx.saved
        return _variance_backward(dy, x, axes, correction) + _mean_backward(dmean, x, axes)


class StdMean(_Moment):
    """The deviation, as `std` gives it, and the mean over `dim`: (*) -> (*), (*) without them.

    dx = what `std` and `mean` give.
    """

    namespaces = "torch"
    mean = True

    def forward(
        ctx, x: np.ndarray, axes: tuple[int, ...], correction: float, keepdim: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        y, mean = _variance(x, axes, correction, keepdim, root=True)
        ctx.save(x, y, axes, correction)
        return y, mean.reshape(y.shape)

    @staticmethod
    def cell(
        x: np.ndarray, axes: tuple[int, ...], correction: float, keepdim: bool
    ) -> tuple[str, str]:
        over = reduced("x", x.ndim, axes, keepdim)
        return f"sqrt({_squares(x, axes, correction, keepdim)})", f"mean({over})"

    @staticmethod
    def decomposition(
        x: Tensor, axes: tuple[int, ...], correction: float, keepdim: bool
    ) -> tuple[Tensor, Tensor]:
        return Std.apply(x, axes, correction, keepdim), Mean.apply(x, axes, keepdim)

    def backward(ctx, dy: Tensor, dmean: Tensor) -> Tensor:
        x, y, axes, correction = ctx.saved
        of_y = _deviation_backward(dy, x, y, axes, correction)
        return of_y + _mean_backward(dmean, x, axes)


class Norm(Op):
    """y = (the sum of |x|^p)^(1/p) over `dim`: (*) -> (*) without them; "fro" is p = 2.

    p = inf is the largest |x|, -inf the smallest, 0 the number of x that are not 0.
    dx = dy * x * |x|^(p - 2) / y^(p - 1), and 0 where y is 0; for the infinities as in `amax`.
    RuntimeError for integers.
    """

    out = "same"

    @staticmethod
    @numpy_names
    def call(
        input: Tensor,
        p: float | str | None = "fro",
        dim: Dims = None,
        keepdim: bool = False,
        dtype: Any = None,
    ) -> Tensor:
        if dtype is not None:
            input = cast(input, as_dtype(dtype))
        check_floating("norm", input, RuntimeError)
        if p == "nuc":
            raise NotImplementedError("norm: the nuclear norm is not implemented")
        order = 2.0 if p is None or p == "fro" else float(p)
        return Norm.apply(input, order, axes_of("norm", input, dim), keepdim)

    def forward(ctx, x: np.ndarray, p: float, axes: tuple[int, ...], keepdim: bool) -> np.ndarray:
        if math.isinf(p):
            a = np.abs(x)
            y = a.max(axes, keepdims=keepdim) if p > 0 else a.min(axes, keepdims=keepdim)
        elif p == 0:
            y = add_up((x != 0).astype(x.dtype), axes, keepdim)
        elif p == 1:
            y = add_up(np.abs(x), axes, keepdim)
        elif p == 2:
            y = np.sqrt(add_up(x * x, axes, keepdim))
        else:
            y = np.power(add_up(np.power(np.abs(x), p), axes, keepdim), 1 / p)
        y = np.asarray(y, x.dtype)
        ctx.save(x, y, p, axes)
        return y

    @staticmethod
    def cell(x: np.ndarray, p: float, axes: tuple[int, ...], keepdim: bool) -> str:
        over = reduced("x", x.ndim, axes, keepdim)
        if p == 0:
            return f"sum({over} != 0)"
        if p == 2:
            return f"sqrt(sum({over} ** 2))"
        if math.isinf(p):
            return f"{'max' if p > 0 else 'min'}(abs({over}))"
        return f"sum(abs({over}))" if p == 1 else f"sum(abs({over}) ** p) ** (1 / p)"

    def backward(ctx, dy: Tensor) -> Tensor:
        x, y, p, axes = ctx.saved
        shape = x._array.shape
        if p == 0:
            return x * 0.0
        if math.isinf(p):
            return x.sign() * share_among_ties(dy, x.abs(), y, axes)
        dy = expand_reduced(dy, shape, axes)
        if p == 1:
            return x.sign() * dy
        flat = expand_reduced(y, shape, axes) == 0
        if p == 2:
            return x * (dy / expand_reduced(y, shape, axes)).masked_fill(flat, 0.0)
        if p < 1:
            flat = flat | (x == 0)
        ratio = (x.abs() / expand_reduced(y, shape, axes)) ** (p - 1)
        return (x.sign() * ratio * dy).masked_fill(flat, 0.0)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield (rand(2, 3),)
        yield rand(2, 3), 2, 1
        yield rand.distinct(2, 3), 1, 0, True
        yield rand(2, 3), float("inf"), 1
        yield rand(2, 3), -float("inf")
        yield rand.distinct(2, 3), 3
        yield rand.distinct(2, 3), 1.5, (0,)
        yield rand.distinct(2, 3), 0.5, 1
        yield rand.constant(2, 3), 0, 1
        yield rand(2, 3), dict(p="fro", dim=-1)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield (rand.integers(0, 5, 3),)
        yield rand(2, 3), 2, 2


@composite(
    samples=lambda rand: [
        (rand(3, 4),),
        (rand(5),),
        (rand(2, 4), dict(correction=0, fweights=wrap(np.array([1, 2, 1, 3])))),
        (rand(2, 4), dict(aweights=rand.positive(4).detach())),
    ],
    errors=lambda rand: [(rand(2, 2, 2),)],
)
def cov(
    input: Tensor,
    *,
    correction: int = 1,
    fweights: Tensor | None = None,
    aweights: Tensor | None = None,
) -> Tensor:
    """y = the covariances of the rows of x, variables of N observations: (M, N) -> (M, M).

    `fweights` counts each observation so often, `aweights` are relative weights. (N) -> ().
    """
    if input._array.ndim > 2:
        raise RuntimeError(f"cov: expected at most two dimensions, got {input.ndim}")
    x = input if input._array.ndim == 2 else input.reshape(1, -1)
    (x,) = promote(x, floating=True)
    if fweights is None and aweights is None:
        count = x._array.shape[1]
        centered = x - x.sum(1, keepdim=True) / count
        y = centered @ centered.T / max(count - correction, 0)
        return y if input._array.ndim == 2 else y.squeeze()
    weights = [w.to(x._array.dtype) for w in (fweights, aweights) if w is not None]
    weight = math.prod(weights, start=wrap(np.ones(x._array.shape[1], x._array.dtype)))
    total = weight.sum()
    lost = (weight * weights[-1]).sum() / total if aweights is not None else 1
    centered = x - (x * weight).sum(1, keepdim=True) / total
    y = (centered * weight) @ centered.T / (total - lost * correction).clamp(min=0)
    return y if input._array.ndim == 2 else y.squeeze()


@composite(samples=lambda rand: [(rand(3, 4),), (rand(5),)], errors=lambda rand: [(rand(2, 2, 2),)])
def corrcoef(input: Tensor) -> Tensor:
    """y = the correlations of the rows of x, within [-1, 1]: (M, N) -> (M, M), (N) -> ()."""
    y = cov(input)
    if not y._array.ndim:
        return y / y
    deviation = y.diagonal().sqrt()
    return (y / deviation.unsqueeze(1) / deviation).clamp(-1, 1)
