"""Products, and running sums and products along one dimension."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from ...core import Op, Tensor, wrap
from ...dtype import FLOATING, as_dtype, int64
from ...kernels import parallel
from .. import return_types
from ..checks import axis_of, check_floating, check_tensors, numpy_names
from ..convert import cast
from ..gather import as_row
from ..index import grid, taken
from ..join import Cat
from ..places import PLACE, along, at, reduced
from ..reduce import expand_reduced
from ..samples import Rand, Samples
from ..select import Where
from ..shape import shaped


def _accumulating(x: Tensor, dtype: Any) -> Tensor:
    check_tensors("a running sum or product", input=x)
    if dtype is not None:
        return cast(x, as_dtype(dtype))
    return x if x._array.dtype.kind in FLOATING else cast(x, int64)


def _along(x: np.ndarray, dim: int, f: Any) -> np.ndarray:
    """Return a running sum or product, float32 in float64; a scalar counts as one element."""
    wide = np.float64 if x.dtype.kind in FLOATING else x.dtype
    found = f.accumulate(x if x.ndim else x.reshape(1), dim, wide).astype(x.dtype, "C")
    return found if x.ndim else found.reshape(())


def _so_far(word: str, ndim: int, dim: int) -> str:
    """Return the cell of a running sum or product: "sum(x[:j + 1])"."""
    return f"{word}({at('x', along(ndim, [dim], f':{PLACE[dim % ndim]} + 1' if ndim else ''))})"


class Cumsum(Op):
    """y_i = x_0 + ... + x_i along `dim`: (*) -> (*).  dx_i = dy_i + ... + dy_n.

    In the type `dtype`; without it bool and integers are added in int64.
    """

    out = "dtype"
    inplace = True

    @staticmethod
    @numpy_names
    def call(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
        return Cumsum.apply(_accumulating(input, dtype), axis_of("cumsum", input, dim))

    def forward(ctx, x: np.ndarray, dim: int) -> np.ndarray:
        ctx.save(dim)
        return _along(x, dim, np.add)

    @staticmethod
    def cell(x: np.ndarray, dim: int) -> str:
        return _so_far("sum", x.ndim, dim)

    def backward(ctx, dy: Tensor) -> Tensor:
        (dim,) = ctx.saved
        return dy.flip(dim).cumsum(dim).flip(dim)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(3, 4), 0
        yield rand(3, 4), -1
        yield rand(), 0
        yield rand(0, 3), 0
        yield rand.bools(5), 0
        yield rand.integers(0, 200, 2, 3, dtype=np.uint8), 1
        yield rand(3), 0, dict(dtype=np.dtype(np.float64))

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 3), 2


class Cumprod(Op):
    """y_i = x_0 * ... * x_i along `dim`: (*) -> (*).  dx_i = sum over j >= i of dy_j * y_j / x_i.

    In the type `dtype`; without it bool and integers are multiplied in int64.
    """

    out = "dtype"
    inplace = True

    @staticmethod
    @numpy_names
    def call(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
        return Cumprod.apply(_accumulating(input, dtype), axis_of("cumprod", input, dim))

    def forward(ctx, x: np.ndarray, dim: int) -> np.ndarray:
        y = _along(x, dim, np.multiply)
        ctx.save(x, y, dim)
        return y

    @staticmethod
    def cell(x: np.ndarray, dim: int) -> str:
        return _so_far("prod", x.ndim, dim)

    def backward(ctx, dy: Tensor) -> Tensor:
        x, y, dim = ctx.saved
        parallel.recording.miss()  # what is computed depends on the numbers
        if x._array.all():
            return (dy * y).flip(dim).cumsum(dim).flip(dim) / x
        if x._array.ndim == 0:
            return dy
        # Without division: dx_i is the product before i times a sum of products after it.
        length = x._array.shape[dim]
        columns = []
        for i in range(length):
            after = dy.narrow(dim, i, 1)
            if i + 1 < length:
                products = x.narrow(dim, i + 1, length - i - 1).cumprod(dim)
                rest = dy.narrow(dim, i + 1, length - i - 1) * products
                after = after + rest.sum(dim, keepdim=True)
            columns.append(x.narrow(dim, 0, i).prod(dim, keepdim=True) * after if i else after)
        return Cat.call(columns, dim)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(3, 4), 0
        yield rand(3, 4), -1
        yield rand(), 0
        yield rand.integers(1, 4, 2, 3), 1
        yield _with_zeros(rand), 1
        yield rand(0, 3), 0

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 3), 2


def _with_zeros(rand: Any) -> Tensor:
    """Return a sample with rows of no, one and two zeros."""
    x = rand.positive(3, 4)
    x._array[1, 2] = x._array[2, 0] = x._array[2, 3] = 0
    return x


class Prod(Op):
    """y = the product over all elements or along `dim`: (*) -> (*) without it.

    dx_i = dy * the product of the other elements. In the type `dtype`; without it bool and integers
    are multiplied in int64.
    """

    out = "dtype"

    @staticmethod
    @numpy_names
    def call(
        input: Tensor, dim: int | None = None, keepdim: bool = False, *, dtype: Any = None
    ) -> Tensor:
        input = _accumulating(input, dtype)
        if dim is None:
            return Prod.apply(input, None, False)
        return Prod.apply(input, axis_of("prod", input, dim), keepdim)

    def forward(ctx, x: np.ndarray, dim: int | None, keepdim: bool) -> np.ndarray:
        row, axis = (x, dim) if dim is not None and x.ndim else (x.reshape(-1), 0)
        y = np.asarray(row.prod(axis, x.dtype, keepdims=keepdim and x.ndim > 0))
        ctx.save(x, y, dim)
        return y

    @staticmethod
    def cell(x: np.ndarray, dim: int | None, keepdim: bool) -> str:
        axes = range(x.ndim) if dim is None else [dim]
        return f"prod({reduced('x', x.ndim, axes, keepdim)})"

    def backward(ctx, dy: Tensor) -> Tensor:
        x, y, dim = ctx.saved
        shape = x._array.shape
        if not shape:
            return dy
        if dim is None:
            return _of_product(dy, x.reshape(-1), y, 0).reshape(shape)
        return _of_product(dy, x, y, dim)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield (rand(2, 3),)
        yield rand(2, 3), 1
        yield rand(2, 3), 0, True
        yield (rand(),)
        yield rand(), 0
        yield (_with_zeros(rand),)
        yield _with_zeros(rand), 1
        yield rand.constant(0, 3), 0
        yield (rand.bools(5),)
        yield rand.integers(1, 4, 2, 3, dtype=np.int32), 1
        yield rand(3), dict(dtype=np.dtype(np.float64))

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 3), 2
        yield rand(2, 3), (0, 1)


def _of_product(dy: Tensor, x: Tensor, y: Tensor, dim: int) -> Tensor:
    """Return the gradient of x from that of its product y along `dim`."""
    shape = x._array.shape
    dy = expand_reduced(dy, shape, (dim,))
    parallel.recording.miss()  # what is computed depends on the numbers
    if x._array.all():
        return dy * expand_reduced(y, shape, (dim,)) / x
    return dy * _before(x, dim) * _before(x.flip(dim), dim).flip(dim)


def _before(x: Tensor, dim: int) -> Tensor:
    """Return the product of the elements before each along `dim`."""
    length = x._array.shape[dim]
    one = wrap(np.ones_like(x._array.take([0], dim)))
    products = x.narrow(dim, 0, length - 1).cumprod(dim)
    return Cat.call([one, products], dim)


class Logcumsumexp(Op):
    """y_i = ln(exp(x_0) + ... + exp(x_i)) along `dim`, without overflow: (*) -> (*).

    dx_i = the sum over j >= i of dy_j * exp(x_i - y_j). NotImplementedError for integers.
    """

    out = "same"
    fused = True

    @staticmethod
    @numpy_names
    def call(input: Tensor, dim: int) -> Tensor:
        check_floating("logcumsumexp", input)
        axis = axis_of("logcumsumexp", input, dim)
        return shaped(Logcumsumexp.apply(as_row(input), axis), input._array.shape)

    def forward(ctx, x: np.ndarray, dim: int) -> np.ndarray:
        y = np.logaddexp.accumulate(x, dim)
        ctx.save(x, y, dim)
        return y

    @staticmethod
    def cell(x: np.ndarray, dim: int) -> str:
        return f"log({_so_far('sum(exp', x.ndim, dim)}))"

    def backward(ctx, dy: np.ndarray) -> np.ndarray:
        # From the end, total_i = dy_i + total_(i + 1) * exp(y_i - y_(i + 1)), of which no
        # exponential is above 1.
        x, y, g = (np.moveaxis(a, ctx.saved[2], -1) for a in (*ctx.saved[:2], dy))
        total = np.array(g)
        for i in range(x.shape[-1] - 2, -1, -1):
            falls = np.where(np.isneginf(y[..., i]), 0, np.exp(y[..., i] - y[..., i + 1]))
            total[..., i] += total[..., i + 1] * falls
        dx = total * np.where(np.isneginf(x), 0, np.exp(x - y))
        return np.ascontiguousarray(np.moveaxis(dx, -1, ctx.saved[2]))

    @staticmethod
    def decomposition(x: Tensor, dim: int) -> Tensor:
        last = x.movedim(dim, -1)
        later = wrap(np.triu(np.ones((x._array.shape[dim],) * 2, np.bool_), 1))
        return Where.apply(later, -math.inf, last.unsqueeze(-2)).logsumexp(-1).movedim(-1, dim)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(3, 4), 0
        yield rand(3, 4), -1
        yield rand(), 0
        x = rand.constant(3)
        x._array[:2] = -np.inf
        yield x, 0

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 3), 2
        yield rand.integers(0, 3, 3), 0


class _RunningExtreme(Op, abstract=True):
    """The largest or smallest up to each element along `dim`, and the index of the last of it."""

    out = "same"
    extreme: ClassVar[np.ufunc]

    @classmethod
    def run(cls, input: Tensor, dim: int) -> Any:
        """Return the two results of a call."""
        dim = axis_of(cls.op_name, input, dim)
        found = cls.apply(as_row(input), dim)
        return found if input._array.ndim else tuple(shaped(t, ()) for t in found)

    def forward(ctx, x: np.ndarray, dim: int) -> tuple[np.ndarray, np.ndarray]:
        here = x == ctx.extreme.accumulate(x, dim)
        if x.dtype.kind in FLOATING:
            here |= x != x  # NaN stays
        indices = np.maximum.accumulate(here * grid(x.shape)[dim], dim)
        ctx.save(indices, x.shape, dim)
        return taken(x, indices, dim), indices

    @classmethod
    def cell(cls, x: np.ndarray, dim: int) -> tuple[str, str]:
        so_far = at("x", along(x.ndim, [dim], f":{PLACE[dim]} + 1"))
        found = f"{cls.extreme.__name__[:3]}({so_far})"
        return found, f"last({so_far} == {found}) if {PLACE[dim]} else 0"

    def backward(ctx, dy: Tensor, _: Tensor | None) -> Tensor:
        indices, shape, dim = ctx.saved
        zeros = wrap(np.zeros(shape, dy._array.dtype))
        return zeros.scatter_add(dim, indices, dy)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand.distinct(3, 4), 0
        yield rand.distinct(3, 4), -1
        yield rand.integers(0, 3, 9), 0
        yield rand.bools(5), 0
        yield rand(), 0
        yield rand.constant(0, 3), 0

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 3), 2


class Cummax(_RunningExtreme):
    """The largest up to each element along `dim`, and the index of the last: (*) -> (*), (*).

    The gradient of a value goes to the element it came from.
    """

    extreme = np.maximum

    @staticmethod
    @numpy_names
    def call(input: Tensor, dim: int) -> return_types.cummax:
        return return_types.cummax(*Cummax.run(input, dim))


class Cummin(_RunningExtreme):
    """The smallest up to each element along `dim`, and the index of the last: (*) -> (*), (*).

    The gradient of a value goes to the element it came from.
    """

    extreme = np.minimum

    @staticmethod
    @numpy_names
    def call(input: Tensor, dim: int) -> return_types.cummin:
        return return_types.cummin(*Cummin.run(input, dim))
