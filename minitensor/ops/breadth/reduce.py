"""Further reductions over `dim`: log-sum-exp, truth and counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...core import Op, Tensor
from ...kernels import special
from ..checks import Dims, axes_of, check_floating, numpy_names
from ..composite import composite
from ..convert import promote
from ..places import reduced
from ..reduce import add_up, expand_reduced
from ..samples import Rand, Samples
from ..select import Where


class Logsumexp(Op):
    """y = ln(sum of exp(x)) over `dim`, without overflow: (*) -> (*) without them.

    dx = dy * exp(x - y). A row all -inf gives -inf.
    """

    out = "cast"

    @staticmethod
    @numpy_names
    def call(input: Tensor, dim: Dims, keepdim: bool = False) -> Tensor:
        (input,) = promote(input, floating=True)
        return Logsumexp.apply(input, axes_of("logsumexp", input, dim), keepdim)

    def forward(ctx, x: np.ndarray, axes: tuple[int, ...], keepdim: bool) -> np.ndarray:
        largest = x.max(axes, keepdims=True, initial=-np.inf)
        largest = np.where(np.isfinite(largest), largest, x.dtype.type(0))
        y = special.log(add_up(special.exp(x - largest), axes, True)) + largest
        y = y if keepdim else np.squeeze(y, axes)
        ctx.save(x, y, axes)
        return y

    @staticmethod
    def cell(x: np.ndarray, axes: tuple[int, ...], keepdim: bool) -> str:
        return f"log(sum(exp({reduced('x', x.ndim, axes, keepdim)})))"

    def backward(ctx, dy: Tensor) -> Tensor:
        x, y, axes = ctx.saved
        shape = x._array.shape
        return expand_reduced(dy, shape, axes) * (x - expand_reduced(y, shape, axes)).exp()

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2, 3), 1
        yield rand(2, 3), (0, 1), True
        yield rand(2, 3, 4), -2
        yield rand(), 0
        yield rand.integers(0, 5, 2, 3), 1
        x = rand.constant(2, 3)
        x._array[0] = -np.inf
        yield x, 1

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 3), 2


@composite(
    samples=lambda rand: [(rand(3, 4),), (rand.integers(0, 5, 2, 2, dtype=np.int32),)],
    errors=lambda rand: [(rand(3),), (rand(2, 2, 2),), (rand.bools(2, 2),)],
)
def trace(input: Tensor) -> Tensor:
    """Return the sum of the diagonal of a matrix: (M, N) -> ()."""
    if input._array.ndim != 2:
        raise RuntimeError(f"trace: expected a matrix, but got tensor with dim {input.ndim}")
    if input._array.dtype.kind == "b":
        raise NotImplementedError("trace: not implemented for bool")
    return input.diagonal().sum()


def _with_nan(rand: Rand) -> Samples:
    yield rand(3, 4), 1
    x = rand.constant(3, 4)
    x._array[0, 1] = np.nan
    x._array[2] = np.nan
    yield (x,)
    yield x, 1
    yield x, (0, 1), True
    yield x, dict(dim=0, keepdim=True)


@composite(samples=_with_nan, errors=lambda rand: [(rand(2, 3), 2)])
@numpy_names
def nansum(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """y = the sum over `dim` of the elements that are not NaN: (*) -> (*) without them."""
    return Where.call(input.isnan(), 0, input).sum(dim, keepdim, dtype=dtype)


@composite(samples=_with_nan, errors=lambda rand: [(rand.integers(0, 3, 3),)])
@numpy_names
def nanmean(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """y = the mean over `dim` of the elements that are not NaN: (*) -> (*) without them.

    NaN where there is none; RuntimeError for integers.
    """
    check_floating("nanmean", input, RuntimeError)
    count = (~input.isnan()).sum(dim, keepdim)
    return nansum(input, dim, keepdim, dtype=dtype) / count


class _Truth(Op, abstract=True):
    """Truth of elements over `dim`: an element that is not 0 is true."""

    out = "same"
    differentiable = False

    @classmethod
    def default_call(cls) -> Callable[..., Any]:
        op_name, apply = cls.op_name, cls.apply

        @numpy_names
        def call(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
            return apply(input, axes_of(op_name, input, dim), keepdim)

        return call

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield (rand.bools(2, 3),)
        yield rand.bools(2, 3), 1
        yield rand.bools(2, 3, 4, p=0.1), (0, 1), True
        yield rand.integers(0, 2, 2, 3), -1
        yield rand.integers(0, 2, 2, 3, dtype=np.uint8), -1
        yield (rand(2, 3),)
        yield rand.bools(0, 3), 0

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand.bools(2, 3), 2


class Any_(_Truth):
    """y = True if an element over `dim` is not 0: (*) -> (*) without `dim`, bool or uint8."""

    op_name = "any"

    def forward(ctx, x: np.ndarray, axes: tuple[int, ...], keepdim: bool) -> np.ndarray:
        return np.asarray(x.any(axes, keepdims=keepdim)).astype(_truth_type(x))

    @staticmethod
    def cell(x: np.ndarray, axes: tuple[int, ...], keepdim: bool) -> str:
        return f"any({reduced('x', x.ndim, axes, keepdim)})"


class All(_Truth):
    """y = True if no element over `dim` is 0: (*) -> (*) without `dim`, bool or uint8."""

    def forward(ctx, x: np.ndarray, axes: tuple[int, ...], keepdim: bool) -> np.ndarray:
        return np.asarray(x.all(axes, keepdims=keepdim)).astype(_truth_type(x))

    @staticmethod
    def cell(x: np.ndarray, axes: tuple[int, ...], keepdim: bool) -> str:
        return f"all({reduced('x', x.ndim, axes, keepdim)})"


def _truth_type(x: np.ndarray) -> Any:
    return np.uint8 if x.dtype == np.uint8 else np.bool_


class CountNonzero(Op):
    """y = the number of elements over `dim` that are not 0: (*) -> (*) without `dim`, int64."""

    differentiable = False

    @staticmethod
    @numpy_names
    def call(input: Tensor, dim: Dims = None) -> Tensor:
        return CountNonzero.apply(input, axes_of("count_nonzero", input, dim))

    def forward(ctx, x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
        return np.asarray(np.count_nonzero(x, axes), np.int64)

    @staticmethod
    def cell(x: np.ndarray, axes: tuple[int, ...]) -> str:
        return f"sum({reduced('x', x.ndim, axes)} != 0)"

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield (rand.integers(0, 2, 2, 3),)
        yield rand.bools(2, 3), 1
        yield rand(2, 3), (0, 1)
