"""Sorting, medians, both extremes at once, counts and unique elements."""

from __future__ import annotations

from operator import index as as_int
from typing import Any, overload

import numpy as np

from ...core import Op, Tensor, wrap
from ...dtype import FLOATING
from .. import return_types
from ..checks import axes_of, axis_of, check_length, numpy_names
from ..composite import composite, register
from ..gather import Gather, as_row
from ..index import grid, taken
from ..order import _Choice, _order, _scalar_as_row, sorted_at
from ..places import along, at, places, reduced
from ..reduce import Amax, Amin, check_extremes, least, most, share_among_ties
from ..samples import Rand, Samples
from ..shape import shaped


class Aminmax(Op):
    """The smallest and the largest over all or along `dim`: (*) -> (*), (*) without it.

    dx = dy where each is, shared by equals.
    """

    out = "cast"

    @staticmethod
    @numpy_names
    def call(
        input: Tensor, *, dim: int | None = None, keepdim: bool = False
    ) -> return_types.aminmax:
        axes = axes_of("aminmax", input, dim)
        check_extremes("aminmax", input, axes, dim is None)
        return return_types.aminmax(*Aminmax.apply(input, axes, keepdim))

    def forward(ctx, x: np.ndarray, axes: tuple[int, ...], keepdim: bool) -> Any:
        low = np.asarray(least(x, axes, keepdims=keepdim))
        high = np.asarray(most(x, axes, keepdims=keepdim))
        ctx.save(x, low, high, axes)
        return low, high

    @staticmethod
    def cell(x: np.ndarray, axes: tuple[int, ...], keepdim: bool) -> tuple[str, str]:
        over = reduced("x", x.ndim, axes, keepdim)
        return f"min({over})", f"max({over})"

    def backward(ctx, dlow: Tensor, dhigh: Tensor) -> Tensor:
        x, low, high, axes = ctx.saved
        return share_among_ties(dlow, x, low, axes) + share_among_ties(dhigh, x, high, axes)

    @staticmethod
    def decomposition(x: Tensor, axes: tuple[int, ...], keepdim: bool) -> tuple[Tensor, Tensor]:
        return Amin.apply(x, axes, keepdim), Amax.apply(x, axes, keepdim)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield (rand.distinct(2, 3),)
        yield rand.distinct(2, 3), dict(dim=1, keepdim=True)
        yield (rand(),)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 3), dict(dim=2)
        yield (rand(0, 3),)


class Sort(_Choice):
    """The elements in order along `dim` and their indices: (*) -> (*), (*).

    dx = dy at the indices. Equal elements keep their order, also when not asked to by `stable`.
    """

    out = "cast"

    @staticmethod
    @numpy_names
    def call(
        input: Tensor, dim: int = -1, descending: bool = False, *, stable: bool | None = None
    ) -> return_types.sort:
        return return_types.sort(
            *_scalar_as_row(Sort, input, axis_of("sort", input, dim), descending)
        )

    def forward(ctx, x: np.ndarray, dim: int, descending: bool) -> Any:
        return ctx.choose(x, np.ascontiguousarray(_order(x, dim, descending)), dim)

    @staticmethod
    def cell(x: np.ndarray, dim: int, descending: bool) -> tuple[str, str]:
        return sorted_at(places(x.ndim)[dim], x, dim, at("x", along(x.ndim, [dim])), descending)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield (rand.distinct(2, 5),)
        yield rand.distinct(2, 5), 0, True
        yield rand.integers(0, 4, 3, 6), dict(dim=1, stable=True)
        yield rand.integers(0, 4, 3, 6), dict(dim=1, stable=True, descending=True)
        yield (rand(),)
        yield rand(0, 3), 0

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 3), 2


@composite(samples=lambda rand: [(rand.distinct(2, 5),), (rand.distinct(2, 5), 0, True)])
@numpy_names
def argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
    """Return the indices that sort the elements along `dim`: (*) -> (*), int64; see `sort`."""
    return Sort.call(input, dim, descending).indices


class Median(_Choice):
    """median(x, dim): the middle element along `dim`, the lower of two, and its index.

    (*) -> (*), (*) without it. median(x) is that of all, with the gradient shared by equals. NaN if
    there is one.
    """

    out = "cast"

    @overload
    @staticmethod
    def call(input: Tensor, dim: None = None) -> Tensor: ...
    @overload
    @staticmethod
    def call(input: Tensor, dim: int, keepdim: bool = False) -> return_types.median: ...
    @staticmethod
    @numpy_names
    def call(
        input: Tensor, dim: int | None = None, keepdim: bool = False
    ) -> Tensor | return_types.median:
        if dim is None:
            return MedianOfAll.apply(input)
        dim = axis_of("median", input, dim)
        check_length("median", input, dim)
        return return_types.median(*_scalar_as_row(Median, input, dim, keepdim))

    def forward(ctx, x: np.ndarray, dim: int, keepdim: bool) -> Any:
        return ctx.choose(x, _middle(x, dim), dim, keepdim)

    @staticmethod
    def cell(x: np.ndarray, dim: int, keepdim: bool) -> tuple[str, str]:
        over = reduced("x", x.ndim, [dim], keepdim)
        return sorted_at((x.shape[dim] - 1) // 2, x, dim, over)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield (rand.distinct(2, 3),)
        yield rand.distinct(2, 4), 1
        yield rand.distinct(3, 4), 0, True
        yield rand.constant(), 0

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 3), 2


def _middle(x: np.ndarray, dim: int) -> np.ndarray:
    """Return the index of the lower median along `dim`, or of the first NaN; x.ndim dimensions."""
    order = x.argsort(dim, kind="stable")
    middle = order.take([(x.shape[dim] - 1) // 2], dim)
    if x.dtype.kind not in FLOATING:
        return middle
    missing = np.isnan(x)
    if not missing.any():
        return middle
    first = missing.argmax(dim, keepdims=True)
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

    @staticmethod
    def cell(x: np.ndarray) -> str:
        every = reduced("x", x.ndim, range(x.ndim))
        return f"sort({every})[{(x.size - 1) // 2}]" if x.size else "nan"

    def backward(ctx, dy: Tensor) -> Tensor:
        x, y = ctx.saved
        return share_among_ties(dy, x, y, tuple(range(x._array.ndim)))

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield (rand.distinct(2, 3),)
        yield (rand.integers(0, 5, 7),)


class Kthvalue(_Choice):
    """The k-th smallest element along `dim`, counted from 1, and its index: (*) -> (*), (*).

    dx = dy at the index.
    """

    out = "same"

    @staticmethod
    @numpy_names
    def call(input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> return_types.kthvalue:
        axis, k = axis_of("kthvalue", input, dim), as_int(k)
        length = input._array.shape[axis] if input._array.ndim else 1
        if not 1 <= k <= length:
            raise RuntimeError(
                f"kthvalue: selected number k out of range for dimension {dim}: {k} of {length}"
            )
        return return_types.kthvalue(*_scalar_as_row(Kthvalue, input, k, axis, keepdim))

    def forward(ctx, x: np.ndarray, k: int, dim: int, keepdim: bool) -> Any:
        order = x.argsort(dim, kind="stable")
        return ctx.choose(x, order.take([k - 1], dim), dim, keepdim)

    @staticmethod
    def cell(x: np.ndarray, k: int, dim: int, keepdim: bool) -> tuple[str, str]:
        return sorted_at(k - 1, x, dim, reduced("x", x.ndim, [dim], keepdim))

    @staticmethod
    def decomposition(x: Tensor, k: int, dim: int, keepdim: bool) -> tuple[Tensor, Tensor]:
        values, indices = (t.narrow(dim, k - 1, 1) for t in Sort.apply(x, dim, False))
        return (values, indices) if keepdim else (values.squeeze(dim), indices.squeeze(dim))

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand.distinct(2, 5), 2
        yield rand.distinct(4, 3), 3, 0, True
        yield rand(), 1

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 3), 4
        yield rand(2, 3), 0
        yield rand(2, 3), 1, 2


@composite(
    out="same",
    samples=lambda rand: [
        (wrap(np.array([[3, 1, 3, 1, 2], [0, 5, 5, 5, 0]])),),
        (rand.distinct(4, 3), 0, True),
        (rand(), 0),
    ],
    errors=lambda rand: [(rand(2, 3), 2), (rand(2, 0),)],
)
@numpy_names
def mode(input: Tensor, dim: int = -1, keepdim: bool = False) -> return_types.mode:
    """The most frequent element along `dim`, the smallest of several, and the index of its last.

    (*) -> (*), (*) without `dim`.
    """
    axis = axis_of("mode", input, dim)
    check_length("mode", input, axis)
    row = as_row(input)
    x = row._array.swapaxes(axis, -1)
    order = x.argsort(-1, kind="stable")
    ordered = taken(x, order, -1)
    place = grid(ordered.shape)[-1]
    begins = np.zeros(ordered.shape, np.int64)  # of the run of equals at each place
    np.multiply(ordered[..., 1:] != ordered[..., :-1], place[..., 1:], begins[..., 1:])
    counts = place - np.maximum.accumulate(begins, -1)
    best = taken(order, counts.argmax(-1, keepdims=True), -1)
    indices = wrap(np.ascontiguousarray(best.swapaxes(axis, -1)))
    found = Gather.apply(row, indices, dim=axis)
    if not input._array.ndim:
        return return_types.mode(shaped(found, ()), shaped(indices, ()))
    if not keepdim:
        found, indices = found.squeeze(axis), wrap(indices._array.squeeze(axis))
    return return_types.mode(found, indices)


_WAYS = ("linear", "lower", "higher", "midpoint", "nearest")


def _quantiles(rand: Rand) -> Samples:
    for way in _WAYS:
        yield rand.distinct(3, 4), 0.3, 1, dict(interpolation=way)
    yield rand.distinct(3, 4), wrap(np.array([0.0, 0.4, 1.0], rand.dtype)), 0
    yield rand.distinct(3, 4), wrap(np.array([0.2, 0.9], rand.dtype)), None, True
    yield rand.distinct(3, 4), 0.5
    y = rand.constant(2, 3)
    y._array[0, 1] = np.nan
    yield y, 0.5, 1


@composite(
    out="same",
    samples=_quantiles,
    errors=lambda rand: [
        (rand(3), 1.5),
        (rand(3), rand.constant(2, 2)),
        (rand.integers(0, 3, 3), 0.5),
        (rand(3), 0.5, 0, False, dict(interpolation="cubic")),
        (rand(0), 0.5),
    ],
)
@numpy_names
def quantile(
    input: Tensor,
    q: Any,
    dim: int | None = None,
    keepdim: bool = False,
    *,
    interpolation: str = "linear",
) -> Tensor:
    """The value below which the part `q`, from 0 to 1, of the elements along `dim` lies.

    (*) -> (*) without `dim`; for a q of shape (n), (n, *). Between two elements it is on the line
    between them, or what `interpolation` says: "lower", "higher", "midpoint", "nearest". NaN where
    there is one. dx = dy at the elements that it is made of.
    """
    if interpolation not in _WAYS:
        raise RuntimeError(f"quantile: interpolation must be one of {_WAYS}, got {interpolation}")
    parts = q._array if isinstance(q, Tensor) else np.asarray(q, input._array.dtype)
    dtype = input._array.dtype
    if dtype.kind not in FLOATING or parts.dtype != dtype or parts.ndim > 1:
        raise RuntimeError(
            "quantile: expected floats and a q of their type, of at most one dimension, got "
            f"{input.dtype} and {parts.dtype}, {parts.ndim}-dim"
        )
    if not input._array.size or not ((parts >= 0) & (parts <= 1)).all():
        raise RuntimeError("quantile: expected elements, and q in the range [0, 1]")
    x = input.reshape(-1) if dim is None else as_row(input)
    axis = 0 if dim is None else axis_of("quantile", input, dim)
    last = Sort.call(x.movedim(axis, -1)).values
    rank = parts.reshape(-1) * (last._array.shape[-1] - 1)
    whole = np.rint(rank) if interpolation == "nearest" else np.floor(rank)
    low = whole if interpolation != "higher" else np.ceil(rank)
    found = last.index_select(-1, wrap(low.astype(np.int64)))
    if interpolation in ("linear", "midpoint"):
        above = last.index_select(-1, wrap(np.ceil(rank).astype(np.int64)))
        weight = rank - whole if interpolation == "linear" else np.full_like(rank, 0.5)
        found = found.lerp(above, wrap(weight))
    nan = wrap(np.isnan(last._array).any(-1, keepdims=True))
    found = found.masked_fill(nan, float("nan")).movedim(-1, 0)
    if keepdim:
        shape = (1,) * input._array.ndim if dim is None else None
        found = found.unsqueeze(axis + 1) if shape is None else found.reshape(-1, *shape)
    return found if parts.ndim else found.squeeze(0)


class Bincount(Op):
    """y_i = the number of times i is in x, or the sum of its weights: (N), (N) -> (M).

    M is the largest element plus 1, at least `minlength`. RuntimeError for negative elements, more
    than one dimension, or floats.
    """

    differentiable = False
    takes_half = True  # weights that are not float32 are added in float64

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
    def cell(x: np.ndarray, weights: np.ndarray | None, minlength: int) -> str:
        return "sum(x[:] == i)" if weights is None else "sum(weights[x[:] == i])"

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield (rand.integers(0, 5, 9),)
        yield rand.integers(0, 5, 9), None, 8
        yield rand.integers(0, 5, 9), rand.constant(9)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield (rand.integers(0, 5, 2, 3),)
        yield (rand.integers(-5, -1, 3),)


@register
def unique(
    input: Tensor,
    sorted: bool = True,
    return_inverse: bool = False,
    return_counts: bool = False,
    dim: int | None = None,
) -> Tensor | tuple[Tensor, ...]:
    """Return the distinct elements, or slices along `dim`, in order, also if not `sorted`.

    Returns the tensor, or a tuple: `return_inverse` adds the index of each element of `input` among
    them, `return_counts` the number of each, both int64.
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
