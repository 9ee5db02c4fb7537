"""Checks of arguments that several ops share. `op` is the name that the error begins with."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from operator import index as as_int
from typing import Any, TypeVar

import numpy as np

from ..core import Tensor
from ..dtype import FLOATING

Dims = int | Sequence[int] | None  # one dimension, several, or all
SEQUENCE = (tuple, list)
_Call = TypeVar("_Call", bound=Callable[..., Any])


# Types


def check_tensors(op: str, **arguments: Any) -> None:
    """Raise TypeError for an argument that is not a tensor."""
    for name, x in arguments.items():
        if not isinstance(x, Tensor):
            raise TypeError(f"{op}: {name} must be a Tensor, not {type(x).__name__}")


def in_new_order(op: str, count: int, factor: Any, *tensors: Any) -> tuple[Any, ...]:
    """Return (*tensors, factor), for an old call with the factor first.

    TypeError unless the factor is a number, and `count` tensors follow it.
    """
    if isinstance(factor, Tensor) or len(tensors) != count:
        raise TypeError(f"{op}: too many arguments")
    check_tensors(op, **{f"tensor {number}": x for number, x in enumerate(tensors, 1)})
    return (*tensors, factor)


def check_ndim(op: str, ndim: int, **arguments: Any) -> None:
    """Raise TypeError for an argument that is not a tensor, RuntimeError without `ndim` dims."""
    for name, x in arguments.items():
        if not isinstance(x, Tensor):
            check_tensors(op, **{name: x})
        if x._array.ndim != ndim:
            raise RuntimeError(
                f"{op}: {name} must have {ndim} dimensions, its shape is {tuple(x.shape)}"
            )


def check_floating(op: str, x: Tensor, error: type[Exception] = NotImplementedError) -> None:
    """Raise `error` unless the elements are floating-point numbers; TypeError without a tensor."""
    if not isinstance(x, Tensor):
        check_tensors(op, input=x)
    if x._array.dtype.kind not in FLOATING:
        raise error(f"{op}: not implemented for {x.dtype}, only for floats: convert with .float()")


def check_one_float_dtype(op: str, **arguments: Any) -> None:
    """Raise TypeError unless all are tensors, RuntimeError unless all have one floating type."""
    check_tensors(op, **arguments)
    types = {x._array.dtype: None for x in arguments.values()}
    first = next(iter(types))
    if len(types) > 1:
        names = ", ".join(str(x._array.dtype) for x in arguments.values())
        raise RuntimeError(f"{op}: expected one type for all, got {names}")
    if first.kind not in FLOATING:
        raise RuntimeError(f"{op}: expected floats, got {first}")


def check_one_dtype(first: np.ndarray, *others: np.ndarray) -> None:
    """Raise RuntimeError for factors of more than one type, NotImplementedError for bool."""
    dtype = first.dtype
    for x in others:
        if x.dtype != dtype:
            names = ", ".join(str(x.dtype) for x in (first, *others))
            raise RuntimeError(f"expected one dtype, got {names}: convert with .to()")
    if dtype.kind == "b":
        raise NotImplementedError("bool has no product: convert with .to()")


def check_parameter_dtypes(op: str, input: Tensor, *parameters: Tensor | None) -> None:
    """Raise RuntimeError if a parameter differs in type; float32 goes with a float16 input."""
    dtype = input._array.dtype
    for p in parameters:
        if p is not None and p._array.dtype != dtype and (dtype.itemsize, p.itemsize) != (2, 4):
            raise RuntimeError(
                f"{op}: the input is {input.dtype} and a parameter {p.dtype}: convert one"
            )


def check_probability(op: str, p: float, error: type[Exception] = ValueError) -> None:
    """Raise `error` unless 0 <= p <= 1."""
    if not 0 <= p <= 1:
        raise error(f"{op}: dropout probability has to be between 0 and 1, but got {p}")


# Dimensions


def normal_dim(dim: Any, ndim: int) -> int:
    """Return `dim` counted from the front; IndexError for a missing dimension."""
    if type(dim) is int and -ndim <= dim < ndim:  # the usual case
        return dim if dim >= 0 else dim + ndim
    size = max(ndim, 1)
    if isinstance(dim, Tensor):  # an unsigned one cannot be compared with a negative number
        dim = as_int(dim)
    if not -size <= dim < size:
        raise IndexError(
            f"Dimension out of range (expected to be in range of "
            f"[{-size}, {size - 1}], but got {dim})"
        )
    return as_int(dim) % size


def normal_dims(dims: Any, ndim: int) -> tuple[int, ...]:
    """Return `dims` counted from the front; RuntimeError if one appears twice."""
    if not isinstance(dims, SEQUENCE):
        return (normal_dim(dims, ndim),)
    found = tuple([normal_dim(d, ndim) for d in dims])
    if len(set(found)) != len(found):
        raise RuntimeError(f"a dim appears multiple times in the list of dims {tuple(dims)}")
    return found


def axis_of(op: str, x: Tensor, dim: Any) -> int:
    """Return dimension `dim` of `x` counted from 0, 0 of a scalar; IndexError if it is missing."""
    if type(dim) is not int and not hasattr(dim, "__index__"):
        raise TypeError(f"{op}: dim must be an int, got {type(dim).__name__}")
    if not isinstance(x, Tensor):
        check_tensors(op, input=x)
    try:
        return normal_dim(dim, x._array.ndim)
    except IndexError as error:
        raise IndexError(f"{op}: {error} for shape {tuple(x.shape)}") from None


def axes_of(op: str, x: Tensor, dim: Any) -> tuple[int, ...]:
    """Return the dimensions that `dim` names, counted from 0, in order; all for None or ().

    IndexError for a missing dimension, RuntimeError for one named twice.
    """
    if not isinstance(x, Tensor):
        check_tensors(op, input=x)
    ndim = x._array.ndim
    if type(dim) is int and -ndim <= dim < ndim:  # the usual case
        return (dim % ndim,)
    if dim is None or (isinstance(dim, SEQUENCE) and not dim):
        return tuple(range(ndim))
    axes = sorted(axis_of(op, x, d) for d in (dim if isinstance(dim, SEQUENCE) else (dim,)))
    for a, b in itertools.pairwise(axes):
        if a == b:
            raise RuntimeError(f"{op}: dim {a} appears multiple times in the list of dims")
    return tuple(axes[:ndim])


def check_length(op: str, x: Tensor, dim: int) -> None:
    """Raise IndexError if dimension `dim` has length 0."""
    if x._array.ndim and x._array.shape[dim] == 0:
        raise IndexError(f"{op}: dimension {dim} to reduce has length 0 in {tuple(x.shape)}")


def numpy_names(call: _Call) -> _Call:
    """Let a reduction take `axis` for `dim` and `keepdims` for `keepdim`."""

    @functools.wraps(call)
    def named(*args: Any, **kwargs: Any) -> Any:
        if kwargs:
            for name, ours in (("axis", "dim"), ("keepdims", "keepdim")):
                if name in kwargs:
                    kwargs[ours] = kwargs.pop(name)
        return call(*args, **kwargs)

    return named  # type: ignore[return-value]


# Sizes


def ints(given: tuple[Any, ...], named: Any = None) -> tuple[int, ...]:
    """Return the integers of `f(2, 3)`, `f((2, 3))` or `f(name=(2, 3))`; TypeError for others."""
    found: Any = given if named is None else named
    if len(given) == 1 and isinstance(given[0], SEQUENCE):
        found = given[0]
    try:
        return tuple(map(as_int, found))
    except TypeError:
        raise TypeError(f"expected integers, got {found!r}") from None


def full_shape(shape: tuple[int, ...], numel: int) -> tuple[int, ...]:
    """Return `shape` with its -1 inferred; RuntimeError if it cannot hold `numel` elements."""
    if math.prod(shape) == numel and (not shape or min(shape) >= 0):  # the usual case
        return shape
    known, unknown = 1, None
    for i, n in enumerate(shape):
        if n >= 0:
            known *= n
        elif n < -1:
            raise RuntimeError(f"invalid shape dimension {n} at index {i} of shape {list(shape)}")
        elif unknown is not None:
            raise RuntimeError(f"only one dimension can be inferred, not two in {list(shape)}")
        else:
            unknown = i
    if unknown is not None:
        if known == 0 and numel == 0:
            raise RuntimeError(
                f"cannot reshape tensor of 0 elements into shape {list(shape)} because the "
                "unspecified dimension size -1 can be any value and is ambiguous"
            )
        if known and numel % known == 0:
            return (*shape[:unknown], numel // known, *shape[unknown + 1 :])
    elif known == numel:
        return shape
    raise RuntimeError(f"shape '{list(shape)}' is invalid for input of size {numel}")


# Losses


def reduction_of(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    """Return the reduction of a loss; the old `size_average` and `reduce` win where given."""
    if size_average is not None or reduce is not None:
        summed = size_average is not None and not size_average
        reduction = "none" if reduce is not None and not reduce else "sum" if summed else "mean"
    if reduction not in ("none", "mean", "sum", "batchmean"):
        raise ValueError(f"{reduction} is not a valid value for reduction: mean, sum or none")
    return reduction
