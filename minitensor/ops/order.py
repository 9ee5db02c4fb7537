"""The largest and smallest elements along a dimension, with their indices.

The gradient of a value goes to the element it came from; indices are int64 and have none. NaN
counts as larger than every number.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, overload

import numpy as np

from ..core import Op, Tensor, wrap
from . import return_types
from .checks import axis_of, check_length, check_tensors, numpy_names
from .index import taken
from .places import along, at, places, reduced
from .reduce import Amax, Amin
from .samples import Rand, Samples
from .select import Maximum, Minimum
from .shape import shaped


class _Choice(Op, abstract=True):
    """Values chosen from x along `dim` and their indices; the gradient goes to the chosen."""

    def choose(ctx, x: np.ndarray, indices: np.ndarray, dim: int, keepdim: bool = True) -> Any:
        """Return the values at `indices`, which have as many dimensions as x, and the indices."""
        values = taken(x, indices, dim)
        ctx.save(indices, x.shape, dim)
        if keepdim:
            return values, indices
        return np.asarray(values.squeeze(dim)), np.asarray(indices.squeeze(dim))

    def backward(ctx, dy: Tensor, _: Tensor | None) -> Tensor:
        indices, shape, dim = ctx.saved
        dy = dy.reshape(indices.shape)
        return wrap(np.zeros(shape, dy._array.dtype)).scatter(dim, indices, dy)


def _scalar_as_row(op: type[Op], x: Tensor, *args: Any) -> Any:
    """Apply an op that needs a dimension: a scalar is given one, which the results lose."""
    if x._array.ndim:
        return op.apply(x, *args)
    return tuple(shaped(y, ()) for y in op.apply(x.reshape(1), *args))


class _ExtremeAlong(_Choice, abstract=True):
    """The first of the largest or smallest along `dim`, of all, or of two tensors."""

    whole: Any  # the op for all elements
    two: Any  # the op for two tensors
    named: Any  # the type of the result along a dimension
    arg: Any  # NumPy's function for the indices

    @classmethod
    def choose_by(cls, input: Tensor, dim: Any, keepdim: bool, other: Tensor | None) -> Any:
        """Return the result of a call: of two tensors, of all elements or along a dimension."""
        if not isinstance(input, Tensor):
            check_tensors(cls.op_name, input=input)
        dim = dim if other is None else other
        if isinstance(dim, Tensor):
            return cls.two.call(input, dim)
        if dim is None:
            if input._array.size == 0:
                raise RuntimeError(
                    f"{cls.op_name}: no elements in shape {tuple(input.shape)}: give a dim"
                )
            return cls.whole.call(input)
        dim = axis_of(cls.op_name, input, dim)
        check_length(cls.op_name, input, dim)
        return cls.named(*_scalar_as_row(cls, input, dim, keepdim))

    def forward(ctx, x: np.ndarray, dim: int, keepdim: bool) -> Any:
        return ctx.choose(x, ctx.arg(x, dim, keepdims=True), dim, keepdim)

    @classmethod
    def cell(cls, x: np.ndarray, dim: int, keepdim: bool) -> tuple[str, str]:
        over = reduced("x", x.ndim, [dim], keepdim)
        which = f"{cls.arg.__name__}({over})" if x.shape[dim] > 1 else "0"
        return f"{cls.op_name}({over})", which

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand.distinct(2, 3), 1
        yield rand.distinct(2, 3), 0, True
        yield rand.distinct(2, 3, 4), dict(dim=-2)
        yield rand.integers(0, 3, 4, 5), 1
        yield rand.bools(2, 3), 1
        yield rand(), 0

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 3), 2
        yield rand(0, 3), 0
        yield (rand(0, 3),)


class Max(_ExtremeAlong):
    """max(x, dim): the largest along `dim` and the index of the first: (*) -> (*), (*) without it.

    max(x) is the largest of all, with the gradient shared by equals; max(x, y) is `maximum`.
    """

    out = "cast"
    whole, two, named, arg = Amax, Maximum, return_types.max, staticmethod(np.argmax)

    @overload
    @staticmethod
    def call(
        input: Tensor, dim: Tensor | None = None, *, other: Tensor | None = None
    ) -> Tensor: ...
    @overload
    @staticmethod
    def call(input: Tensor, dim: int, keepdim: bool = False) -> return_types.max: ...
    @staticmethod
    @numpy_names
    def call(
        input: Tensor,
        dim: int | Tensor | None = None,
        keepdim: bool = False,
        *,
        other: Tensor | None = None,
    ) -> Any:
        return Max.choose_by(input, dim, keepdim, other)


class Min(_ExtremeAlong):
    """min(x, dim): the smallest along `dim` and the index of the first: (*) -> (*), (*) without it.

    min(x) is the smallest of all, with the gradient shared by equals; min(x, y) is `minimum`.
    """

    out = "cast"
    whole, two, named, arg = Amin, Minimum, return_types.min, staticmethod(np.argmin)

    @overload
    @staticmethod
    def call(
        input: Tensor, dim: Tensor | None = None, *, other: Tensor | None = None
    ) -> Tensor: ...
    @overload
    @staticmethod
    def call(input: Tensor, dim: int, keepdim: bool = False) -> return_types.min: ...
    @staticmethod
    @numpy_names
    def call(
        input: Tensor,
        dim: int | Tensor | None = None,
        keepdim: bool = False,
        *,
        other: Tensor | None = None,
    ) -> Any:
        return Min.choose_by(input, dim, keepdim, other)


class _Arg(Op, abstract=True):
    """The index of the largest or the smallest, the first of equals."""

    out = "same"
    differentiable = False

    @classmethod
    def default_call(cls) -> Callable[..., Any]:
        op_name, apply = cls.op_name, cls.apply

        @numpy_names
        def call(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
            if not isinstance(input, Tensor):
                check_tensors(op_name, input=input)
            if dim is not None:
                dim = axis_of(op_name, input, dim)
                check_length(op_name, input, dim)
            elif input._array.size == 0:
                raise IndexError(
                    f"{op_name}: no elements in shape {tuple(input.shape)}: give a dim"
                )
            return apply(input, dim if input._array.ndim else None, keepdim)

        return call

    @classmethod
    def cell(cls, x: np.ndarray, dim: int | None, keepdim: bool) -> str:
        if (x.size if dim is None else x.shape[dim]) == 1:
            return "0"
        axes = range(x.ndim) if dim is None else [dim]
        return f"{cls.op_name}({reduced('x', x.ndim, axes, keepdim)})"

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield (rand.distinct(2, 3),)
        yield rand.distinct(2, 3), 1
        yield rand.distinct(2, 3), None, True
        yield rand.distinct(2, 3), dict(dim=-2, keepdim=True)
        yield rand.integers(0, 3, 4, 5), 1
        yield rand(), 0
        yield rand(0, 3), 1

    @staticmethod
    def errors(rand: Rand) -> Samples:
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


def _order(x: np.ndarray, dim: int, descending: bool) -> np.ndarray:
    """Return the indices that sort x; equal elements keep their order."""
    if not descending:
        return x.argsort(dim, kind="stable")
    back = (*(slice(None),) * (dim % x.ndim), slice(None, None, -1))
    return (x.shape[dim] - 1 - x[back].argsort(dim, kind="stable"))[back]


def sorted_at(
    number: str | int, x: np.ndarray, dim: int, over: str, descending: bool = False
) -> tuple[str, str]:
    """Return the cells of the value and of the index that are at a place in order."""
    value = f"sort({over})[{f'-1 - {number}' if descending else number}]"
    which = f"argsort({'-' if descending else ''}{over})[{number}]"
    return value, which if x.shape[dim] > 1 else "0"


_FEW = 64  # numbers that are sorted sooner than parted


class Topk(_Choice):
    """The k largest elements along `dim`, or the smallest, and their indices: (*) -> (*), (*).

    dx = dy at the indices. In order, also if not `sorted`. RuntimeError if there are fewer than k.
    """

    out = "cast"

    @staticmethod
    @numpy_names
    def call(
        input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
    ) -> return_types.topk:
        dim = axis_of("topk", input, dim)
        length = input._array.shape[dim] if input._array.ndim else 1
        k = operator.index(k)
        if not 0 <= k <= length:
            raise RuntimeError(
                f"topk: k = {k} is out of range for dimension {dim} of {tuple(input.shape)}"
            )
        k = int(k) if input._array.ndim else 1  # of a 0-dim tensor itself, also for k = 0
        return return_types.topk(*_scalar_as_row(Topk, input, k, dim, largest))

    def forward(ctx, x: np.ndarray, k: int, dim: int, largest: bool) -> Any:
        length = x.shape[dim]
        if length <= _FEW:
            order = _order(x, dim, largest)
            of_first = (slice(None),) * dim + (slice(k),)
            return ctx.choose(x, np.ascontiguousarray(order[of_first]), dim)
        places = x.swapaxes(dim, -1)
        if 0 < k < length:
            split = length - k if largest else k - 1
            found = places.argpartition(split)
            found = found[..., split:] if largest else found[..., :k]
            found.sort()
        else:
            found = np.broadcast_to(np.arange(k), (*places.shape[:-1], k))
        order = _order(taken(places, found, -1), -1, largest)
        found = taken(found, order, -1)
        return ctx.choose(x, np.ascontiguousarray(found.swapaxes(dim, -1)), dim)

    @staticmethod
    def cell(x: np.ndarray, k: int, dim: int, largest: bool) -> tuple[str, str]:
        over = at("x", along(x.ndim, [dim]))
        return sorted_at(places(x.ndim)[dim], x, dim, over, descending=largest)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand.distinct(2, 5), 2
        yield rand.distinct(4, 3), 2, 0, False
        yield rand.distinct(2, 5), dict(k=5, largest=True)
        yield rand.distinct(2, 5), 0
        yield rand(), 1
        yield rand(), 0

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 3), 4
        yield rand(2, 3), 1, 2
