"""Further reductions over `dim`: log-sum-exp, truth and counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...core import Op, Tensor, wrap
from ...dtype import FLOATING, as_dtype, int64
from ...kernels import special
from ..checks import Dims, axes_of, check_floating, check_tensors, numpy_names
from ..composite import composite
from ..convert import cast, promote
from ..elementwise import ZERO
from ..places import LOOPS, PLACE, at, reduced
from ..reduce import Sum, add_up, expand_reduced
from ..samples import Rand, Samples
from ..select import Where
from .move import DiagonalScatter


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


class Trace(Op):
    """y = the sum of the diagonal of a matrix: (M, N) -> ().  dx = dy on the diagonal.

    Integers are added in int64.
    """

    @staticmethod
    def call(input: Tensor) -> Tensor:
        check_tensors("trace", input=input)
        if input._array.ndim != 2:
            raise RuntimeError(f"trace: expected a matrix, but got tensor with dim {input.ndim}")
        if input._array.dtype.kind == "b":
            raise NotImplementedError("trace: not implemented for bool")
        return Trace.apply(input)

    def forward(ctx, x: np.ndarray) -> Any:
        ctx.save(x.shape)
        dtype = x.dtype if x.dtype.kind in FLOATING else np.int64
        return np.add.reduce(x.diagonal(), 0, dtype)

    @staticmethod
    def cell(x: np.ndarray) -> str:
        return f"sum(x[k, k] for k in range({min(x.shape)}))"

    def backward(ctx, dy: Tensor) -> Tensor:
        (shape,) = ctx.saved
        along = dy.expand(min(shape))
        return DiagonalScatter.apply(along, shape=shape, offset=0, dim1=0, dim2=1)

    @staticmethod
    def decomposition(x: Tensor) -> Tensor:
        return x.diagonal().sum()

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield (rand(3, 4),)
        yield (rand.integers(0, 5, 2, 2, dtype=np.int32),)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield (rand(3),)
        yield (rand(2, 2, 2),)
        yield (rand.bools(2, 2),)


class Nansum(Op):
    """y = the sum over `dim` of the elements that are not NaN: (*) -> (*) without them.

    dx = dy where x is not NaN. In the type `dtype`; without it bool and integers are added in
    int64.
    """

    saves = ("NaN",)

    @staticmethod
    @numpy_names
    def call(
        input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None
    ) -> Tensor:
        axes = axes_of("nansum", input, dim)
        if dtype is not None:
            input = cast(input, as_dtype(dtype))
        elif input._array.dtype.kind not in FLOATING:
            input = cast(input, int64)
        return Nansum.apply(input, axes, keepdim)

    def forward(ctx, x: np.ndarray, axes: tuple[int, ...], keepdim: bool) -> np.ndarray:
        missing = np.asarray(np.isnan(x))
        ctx.save(missing, axes)
        return add_up(np.where(missing, ZERO[x.dtype], x), axes, keepdim)

    @staticmethod
    def cell(x: np.ndarray, axes: tuple[int, ...], keepdim: bool) -> str:
        if x.dtype.kind not in FLOATING:
            return Sum.cell(x, axes, keepdim)
        letters, names = iter(PLACE), iter(LOOPS)
        place, loops = [], ""
        for axis, n in enumerate(x.shape):
            letter = next(letters) if keepdim or axis not in axes else ""
            place.append(next(names) if axis in axes else letter)
            loops += f" for {place[-1]} in range({n})" if axis in axes else ""
        of = at("x", place)
        return f"sum({of}{loops} if {of} == {of})" if loops else f"{of} if {of} == {of} else 0"

    def backward(ctx, dy: Tensor) -> Tensor:
        missing, axes = ctx.saved
        return expand_reduced(dy, missing._array.shape, axes).masked_fill(missing, 0.0)

    @staticmethod
    def decomposition(x: Tensor, axes: tuple[int, ...], keepdim: bool) -> Tensor:
        return Where.call(x.isnan(), 0, x).sum(axes, keepdim)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(3, 4), 1
        x = rand.constant(3, 4)
        x._array[0, 1] = np.nan
        x._array[2] = np.nan
        yield (x,)
        yield x, 1
        yield x, (0, 1), True
        yield x, dict(dim=0, keepdim=True)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 3), 2


@composite(samples=Nansum.samples, errors=lambda rand: [(rand.integers(0, 3, 3),)])
@numpy_names
def nanmean(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """y = the mean over `dim` of the elements that are not NaN: (*) -> (*) without them.

    NaN where there is none; RuntimeError for integers.
    """
    check_floating("nanmean", input, RuntimeError)
    there, axes = ~np.isnan(input._array), axes_of("nanmean", input, dim)
    count = wrap(np.asarray(there.sum(axes, np.int64, keepdims=keepdim)))
    return Nansum.call(input, dim, keepdim, dtype=dtype) / count


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
