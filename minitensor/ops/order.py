"""The largest, the smallest and the order of elements along a dimension, with their indices.

The gradient of a value goes to the element it came from; indices are int64 and have none. NaN
counts as larger than every number.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any

import numpy as np

from ..core import Op, Tensor, wrap
from .convert import Samples, register
from .reduce import Amax, Amin, axis_of, numpy_names, share_evenly
from .select import Maximum, Minimum
from .shape import shaped


def _named(name: str, *fields: str) -> Callable[..., Any]:
    """A type of named results, which prints one to a line."""

    def __repr__(self: Any) -> str:
        parts = ",\n".join(f"{f}={x!r}" for f, x in zip(fields, self, strict=True))
        return f"minitensor.return_types.{name}(\n{parts})"

    base = collections.namedtuple(name, fields)  # type: ignore[misc]
    return type(name, (base,), {"__slots__": (), "__repr__": __repr__})


_Max = _named("max", "values", "indices")
_Min = _named("min", "values", "indices")
_Sort = _named("sort", "values", "indices")
_Topk = _named("topk", "values", "indices")
_Median = _named("median", "values", "indices")
_Aminmax = _named("aminmax", "min", "max")


class _Choice(Op, abstract=True):
    """Values of x along `dim` and their indices, both (*) with another length there, or none."""

    def choose(ctx, x: np.ndarray, indices: np.ndarray, dim: int, keepdim: bool = True) -> Any:
        """The values at `indices`, which have the dimensions of x."""
        values = np.take_along_axis(x, indices, dim)
        ctx.save(indices, x.shape, dim)
        if keepdim:
            return values, indices
        return np.asarray(values.squeeze(dim)), np.asarray(indices.squeeze(dim))

    def backward(ctx, dy: Tensor, _: Tensor | None) -> Tensor:
        indices, shape, dim = ctx.saved
        dy = dy.reshape(indices.shape)
        return wrap(np.zeros(shape, dy._array.dtype)).scatter(dim, indices, dy)


def _scalar_as_row(op: type[Op], x: Tensor, *args: Any) -> Any:
    """Apply an op that needs a dimension; a scalar is given one, and the results lose it."""
    if x._array.ndim:
        return op.apply(x, *args)
    return tuple(shaped(y, ()) for y in op.apply(x.reshape(1), *args))


def _check_length(name: str, x: Tensor, dim: int) -> None:
    if x._array.ndim and x._array.shape[dim] == 0:
        raise IndexError(f"{name}: dimension {dim} has length 0 in {tuple(x.shape)}")


class _ExtremeAlong(_Choice, abstract=True):
    """The first of the largest or smallest along `dim`, of all, or of two tensors."""

    whole: Any
    two: Any
    named: Any
    arg: Any

    @classmethod
    def default_call(cls) -> Callable[..., Any]:
        title, named, whole, two = cls.op_name, cls.named, cls.whole, cls.two

        @numpy_names
        def call(
            input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Any = None
        ) -> Any:
            dim = dim if other is None else other
            if isinstance(dim, Tensor):
                return two.call(input, dim)
            if dim is None:
                if input._array.size == 0:
                    raise RuntimeError(
                        f"{title}: no elements in shape {tuple(input.shape)}: give a dim"
                    )
                return whole.call(input)
            dim = axis_of(title, input, dim)
            _check_length(title, input, dim)
            return named(*_scalar_as_row(cls, input, dim, keepdim))

        return call

    def forward(ctx, x: np.ndarray, dim: int, keepdim: bool) -> Any:
        return ctx.choose(x, np.expand_dims(ctx.arg(x, dim), dim), dim, keepdim)

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand.distinct(2, 3), 1
        yield rand.distinct(2, 3), 0, True
        yield rand.distinct(2, 3, 4), dict(dim=-2)
        yield rand.integers(0, 3, 4, 5), 1
        yield rand.bools(2, 3), 1
        yield rand(), 0

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand(2, 3), 2
        yield rand(0, 3), 0
        yield (rand(0, 3),)


class Max(_ExtremeAlong):
    """max(x, dim): the largest along `dim` and the index of the first: (*) -> (*), (*) without it.

    max(x) is the largest of all, with the gradient shared by equals; max(x, y) is `maximum`.
    """

    whole, two, named, arg = Amax, Maximum, _Max, staticmethod(np.argmax)


class Min(_ExtremeAlong):
    """min(x, dim): the smallest along `dim` and the index of the first: (*) -> (*), (*) without it.

    min(x) is the smallest of all, with the gradient shared by equals; min(x, y) is `minimum`.
    """

    whole, two, named, arg = Amin, Minimum, _Min, staticmethod(np.argmin)


class Aminmax(Op):
    """The smallest and the largest over all or along `dim`: (*) -> (*), (*) without it."""

    @staticmethod
    @numpy_names
    def call(input: Tensor, *, dim: int | None = None, keepdim: bool = False) -> Any:
        dims = () if dim is None else dim
        return _Aminmax(Amin.call(input, dims, keepdim), Amax.call(input, dims, keepdim))

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield (rand.distinct(2, 3),)
        yield rand.distinct(2, 3), dict(dim=1, keepdim=True)


class _Arg(Op, abstract=True):
    """The index of the first extreme."""

    differentiable = False

    @classmethod
    def default_call(cls) -> Callable[..., Any]:
        title, apply = cls.op_name, cls.apply

        @numpy_names
        def call(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
            if dim is not None:
                dim = axis_of(title, input, dim)
                _check_length(title, input, dim)
            elif input._array.size == 0:
                raise IndexError(f"{title}: no elements in shape {tuple(input.shape)}: give a dim")
            return apply(input, dim if input._array.ndim else None, keepdim)

        return call

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield (rand.distinct(2, 3),)
        yield rand.distinct(2, 3), 1
        yield rand.distinct(2, 3), None, True
        yield rand.distinct(2, 3), dict(dim=-2, keepdim=True)
        yield rand.integers(0, 3, 4, 5), 1
        yield rand(), 0
        yield rand(0, 3), 1

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand(2, 3), 2
        yield rand(0, 3), 0
        yield (rand(0, 3),)


class Argmax(_Arg):
    """y = the index of the first of the largest, of all or along `dim`, int64: (*) -> (*)."""

    def forward(ctx, x: np.ndarray, dim: int | None, keepdim: bool) -> np.ndarray:
        return np.asarray(np.argmax(x, dim, keepdims=keepdim), np.int64)


class Argmin(_Arg):
    """y = the index of the first of the smallest, of all or along `dim`, int64: (*) -> (*)."""

    def forward(ctx, x: np.ndarray, dim: int | None, keepdim: bool) -> np.ndarray:
        return np.asarray(np.argmin(x, dim, keepdims=keepdim), np.int64)


# Sorting


def _order(x: np.ndarray, dim: int, descending: bool) -> np.ndarray:
    """The indices that sort x, equal elements in the order they have."""
    if not descending:
        return np.argsort(x, dim, kind="stable")
    backwards = np.argsort(np.flip(x, dim), dim, kind="stable")
    return np.flip(x.shape[dim] - 1 - backwards, dim)


class Sort(_Choice):
    """The elements in order along `dim` and their indices: (*) -> (*), (*).

    Equal elements keep their order, also when not asked to by `stable`.
    """

    @staticmethod
    @numpy_names
    def call(input: Tensor, dim: int = -1, descending: bool = False, *, stable: Any = None) -> Any:
        return _Sort(*_scalar_as_row(Sort, input, axis_of("sort", input, dim), descending))

    def forward(ctx, x: np.ndarray, dim: int, descending: bool) -> Any:
        return ctx.choose(x, np.ascontiguousarray(_order(x, dim, descending)), dim)

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield (rand.distinct(2, 5),)
        yield rand.distinct(2, 5), 0, True
        yield rand.integers(0, 4, 3, 6), dict(dim=1, stable=True)
        yield rand.integers(0, 4, 3, 6), dict(dim=1, stable=True, descending=True)
        yield (rand(),)
        yield rand(0, 3), 0

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand(2, 3), 2


class Argsort(Op):
    """The indices that put the elements in order along `dim`: (*) -> (*), int64; as in `sort`."""

    @staticmethod
    @numpy_names
    def call(
        input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False
    ) -> Tensor:
        return Sort.call(input, dim, descending).indices

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield (rand.distinct(2, 5),)
        yield rand.distinct(2, 5), 0, True


class Topk(_Choice):
    """The k largest elements along `dim`, or the smallest, and their indices: (*) -> (*), (*).

    In order, also if not `sorted`. RuntimeError if there are fewer than k.
    """

    @staticmethod
    @numpy_names
    def call(
        input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
    ) -> Any:
        dim = axis_of("topk", input, dim)
        length = input._array.shape[dim] if input._array.ndim else 1
        if not 0 <= k <= length:
            raise RuntimeError(
                f"topk: k = {k} is out of range for dimension {dim} of {tuple(input.shape)}"
            )
        k = int(k) if input._array.ndim else 1  # of a 0-dim tensor itself, also for k = 0
        return _Topk(*_scalar_as_row(Topk, input, k, dim, largest))

    def forward(ctx, x: np.ndarray, k: int, dim: int, largest: bool) -> Any:
        length = x.shape[dim]
        places = np.moveaxis(x, dim, -1)
        if 0 < k < length:
            split = length - k if largest else k - 1
            found = np.argpartition(places, split)
            found = np.sort(found[..., split:] if largest else found[..., :k])
        else:
            found = np.broadcast_to(np.arange(k), (*places.shape[:-1], k))
        order = _order(np.take_along_axis(places, found, -1), -1, largest)
        found = np.take_along_axis(found, order, -1)
        return ctx.choose(x, np.ascontiguousarray(np.moveaxis(found, -1, dim)), dim)

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand.distinct(2, 5), 2
        yield rand.distinct(4, 3), 2, 0, False
        yield rand.distinct(2, 5), dict(k=5, largest=True)
        yield rand.distinct(2, 5), 0
        yield rand(), 1
        yield rand(), 0

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand(2, 3), 4
        yield rand(2, 3), 1, 2


class Median(_Choice):
    """median(x, dim): the middle element along `dim`, the lower of two, and its index.

    (*) -> (*), (*) without it. median(x) is that of all, with the gradient shared by equals. NaN if
    there is one.
    """

    @staticmethod
    @numpy_names
    def call(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
        if dim is None:
            return MedianOfAll.apply(input)
        dim = axis_of("median", input, dim)
        _check_length("median", input, dim)
        return _Median(*_scalar_as_row(Median, input, dim, keepdim))

    def forward(ctx, x: np.ndarray, dim: int, keepdim: bool) -> Any:
        return ctx.choose(x, _middle(x, dim), dim, keepdim)

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield (rand.distinct(2, 3),)
        yield rand.distinct(2, 4), 1
        yield rand.distinct(3, 4), 0, True
        yield rand.constant(), 0

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand(2, 3), 2


def _middle(x: np.ndarray, dim: int) -> np.ndarray:
    """The index of the lower median along `dim`, or of the first NaN; x.ndim dimensions."""
    order = np.argsort(x, dim, kind="stable")
    middle = np.take(order, [(x.shape[dim] - 1) // 2], dim)
    if x.dtype.kind != "f":
        return middle
    missing = np.isnan(x)
    first = np.expand_dims(np.argmax(missing, dim), dim)
    return np.where(missing.any(dim, keepdims=True), first, middle)


class MedianOfAll(Op):
    """The lower median of all: (*) -> ().  dx = dy there, shared by equals. NaN if empty."""

    namespaces = ""
    torch_name = "median"

    def forward(ctx, x: np.ndarray) -> np.ndarray:
        flat = x.reshape(-1)
        y = np.asarray(flat[_middle(flat, 0)[0]] if x.size else x.dtype.type(np.nan))
        ctx.save(x, y)
        return y

    def backward(ctx, dy: Tensor) -> Tensor:
        x, y = ctx.saved
        return share_evenly(dy, x, y, tuple(range(x._array.ndim)))

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield (rand.distinct(2, 3),)
        yield (rand.integers(0, 5, 7),)


class Bincount(Op):
    """y_i = how often i is in x, or the sum of the weights where it is: (N), (N) -> (M).

    M is the largest element plus 1, at least `minlength`. RuntimeError for negative elements, more
    than one dimension, or floats.
    """

    differentiable = False

    @staticmethod
    def call(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
        return Bincount.apply(input, weights, minlength)

    def forward(ctx, x: np.ndarray, weights: np.ndarray | None, minlength: int) -> np.ndarray:
        if x.ndim != 1 or x.dtype.kind not in "iu" or (x.size and x.min() < 0):
            raise RuntimeError("expected one dimension of integers that are not negative")
        counts = np.bincount(x, weights, minlength)
        if weights is None or weights.dtype != np.float32:
            return counts
        return counts.astype(np.float32)

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield (rand.integers(0, 5, 9),)
        yield rand.integers(0, 5, 9), None, 8
        yield rand.integers(0, 5, 9), rand.constant(9)

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield (rand.integers(0, 5, 2, 3),)
        yield (rand.integers(-5, -1, 3),)


@register
def unique(
    input: Tensor,
    sorted: bool = True,
    return_inverse: bool = False,
    return_counts: bool = False,
    dim: int | None = None,
) -> Any:
    """The different elements in order, or slices along `dim`; with where each went, and how often.

    Returns the tensor, or a tuple with those asked for: which of the unique elements each element
    of `input` is, and how many there are of each, both int64. They are in order also if not
    `sorted`.
    """
    if dim is not None and not input._array.ndim:
        raise IndexError(f"unique: dimension {dim} of a tensor that has no dimensions")
    values, inverse, counts = np.unique(
        input._array,
        return_inverse=True,
        return_counts=True,
        axis=None if dim is None else axis_of("unique", input, dim),
        equal_nan=False,
    )
    found = [values]
    if return_inverse:
        found.append(inverse)
    if return_counts:
        found.append(counts)
    outs = tuple(wrap(x) for x in found)
    return outs if len(outs) > 1 else outs[0]
