"""Places in sorted sequences, counts in bins, and runs of equal elements."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...core import Tensor, wrap
from ...dtype import int32
from ..checks import axis_of
from ..composite import composite, register
from ..convert import as_tensor


@composite(
    out="same",
    namespaces="torch",
    samples=lambda rand: [
        (_boundaries(rand, 5), rand.constant(2, 3)),
        (_boundaries(rand, 5), rand.constant(2, 3), dict(right=True, out_int32=True)),
        (_boundaries(rand, 2, 5), rand.constant(2, 3)),
        (rand.integers(0, 2, 4).cumsum(0), rand.integers(0, 4, 3), dict(side="right")),
        (_boundaries(rand, 5), 0.5),
    ],
    errors=lambda rand: [
        (rand.constant(2, 3), rand.constant(3, 3)),
        (rand.constant(3), rand.constant(3), dict(side="middle")),
        (rand.constant(3), rand.constant(3), dict(side="left", right=True)),
    ],
)
def searchsorted(
    sorted_sequence: Tensor,
    input: Any,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    """y = the first place i with input <= sequence[i], or < if `right`: (*, N), (*, M) -> (*, M).

    A sequence of one dimension serves all of `input`. `sorter` holds the indices that sort the
    sequence along its last dimension. int64, or int32 on request.
    """
    if side not in (None, "left", "right"):
        raise RuntimeError(f"searchsorted: side can only be 'left' or 'right' but got {side}")
    if side == "left" and right:
        raise RuntimeError("searchsorted: side is 'left' and right is True, which contradict")
    how: Any = "right" if right or side == "right" else "left"
    sequence, x = sorted_sequence._array, as_tensor(input)._array
    if sorter is not None:
        sequence = np.take_along_axis(sequence, sorter._array, -1)
    if sequence.ndim > 1 and sequence.shape[:-1] != x.shape[:-1]:
        raise RuntimeError(
            "searchsorted: boundaries tensor should be 1 dimension or the first N-1 dimensions of "
            f"boundaries tensor and input value tensor must match, got {sequence.shape}, {x.shape}"
        )
    found = np.empty(x.shape, np.int64)
    if sequence.ndim == 1:
        found[...] = np.searchsorted(sequence, x, how)
    else:
        for place in np.ndindex(x.shape[:-1]):
            found[place] = np.searchsorted(sequence[place], x[place], how)
    return wrap(found.astype(int32) if out_int32 else found)


def _boundaries(rand: Any, *shape: int) -> Tensor:
    return rand.constant(*shape).sort().values


@composite(
    out="same",
    namespaces="torch",
    samples=lambda rand: [
        (rand.constant(2, 3), _boundaries(rand, 5)),
        (rand.constant(3), _boundaries(rand, 5), dict(right=True)),
        (rand.integers(0, 9, 3), wrap(np.array([1, 3, 5]))),
    ],
    errors=lambda rand: [(rand.constant(3), rand.constant(2, 3))],
)
def bucketize(
    input: Any, boundaries: Tensor, *, out_int32: bool = False, right: bool = False
) -> Tensor:
    """y = the number of the bin between `boundaries`: boundaries[y - 1] < x <= boundaries[y].

    (*), (N) -> (*). With `right` the bins are closed on the left.
    """
    if boundaries._array.ndim != 1:
        raise RuntimeError(
            f"bucketize: boundaries tensor must be 1 dimension, but got dim({boundaries.ndim})"
        )
    return searchsorted(boundaries, input, out_int32=out_int32, right=right)


@composite(
    out="same",
    samples=lambda rand: [
        (rand.constant(9),),
        (rand.constant(3, 4), 4, -1, 1),
        (rand.constant(5), dict(bins=3, min=-1, max=2)),
        (wrap(np.ones(3, rand.dtype)), 4),
    ],
    errors=lambda rand: [(rand.constant(3), 0), (rand.constant(3), 3, 2, 1)],
)
def histc(input: Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
    """Return the number of elements in each of `bins` equal parts of min to max: (*) -> (bins).

    From the smallest to the largest element if both are 0. Elements outside do not count.
    """
    x = input._array
    if bins <= 0:
        raise RuntimeError(f"histc: bins must be > 0, got {bins}")
    if min == max and x.size:
        min, max = float(x.min()), float(x.max())
    if min == max:
        min, max = min - 1, max + 1
    if min > max:
        raise RuntimeError("histc: max must be larger than min")
    return wrap(np.histogram(x, bins, (min, max))[0].astype(x.dtype))


@register
def unique_consecutive(
    input: Tensor,
    return_inverse: bool = False,
    return_counts: bool = False,
    dim: int | None = None,
) -> Any:
    """Return one of each run of equal elements, or of equal slices along `dim`.

    Returns the tensor, or a tuple: `return_inverse` adds the number of the run of each element,
    `return_counts` the length of each run, both int64.
    """
    x = input._array.reshape(-1) if dim is None else input._array
    axis = 0 if dim is None else axis_of("unique_consecutive", input, dim)
    rows = np.moveaxis(x, axis, 0)
    flat = rows.reshape(len(rows), math.prod(rows.shape[1:]))
    begins = np.ones(len(rows), np.bool_)
    begins[1:] = (flat[1:] != flat[:-1]).any(1)
    starts = begins.nonzero()[0]
    inverse = np.cumsum(begins) - 1
    found = [wrap(np.ascontiguousarray(np.moveaxis(rows[starts], 0, axis)))]
    if return_inverse:
        found.append(wrap(inverse.reshape(input._array.shape) if dim is None else inverse))
    if return_counts:
        found.append(wrap(np.diff(starts, append=len(rows))))
    return tuple(found) if len(found) > 1 else found[0]
