"""Interpolation: sequences, images and volumes in another size."""

from __future__ import annotations

import functools
import math
from operator import index as as_int
from typing import Any

import numpy as np

from ...core import Tensor
from ...kernels import resample as kernel
from ..checks import SEQUENCE, check_floating
from ..composite import composite
from ..samples import strided
from .pool import adaptive_window
from .resample import Resample

_CUBIC = -0.75  # the slope of the cubic kernel at 1, as PyTorch has it
_MODES = {"nearest": 0, "nearest-exact": 0, "area": 0, "linear": 3, "bilinear": 4, "trilinear": 5}
_MODES["bicubic"] = 4  # the number of dimensions that a mode is for, 0 for any


@functools.lru_cache(maxsize=256)
def _taps(
    mode: str, n: int, out: int, scale: float | None, align: bool, dtype: np.dtype[Any]
) -> kernel.Taps:
    """Return the taps of `out` places along a dimension of n, computed in `dtype` as PyTorch does.

    `scale` is the factor that was given, which out / n is rounded from.
    """
    number: Any = np.float64 if dtype == np.float64 else np.float32
    place = np.arange(out).astype(number)
    step = number(1 / scale) if scale else number(n) / number(out)
    half = number(0.5)
    if align:
        at = place * (number(n - 1) / number(out - 1) if out > 1 else number(0))
    else:
        at = step * (place + half) - half
    if mode.startswith("nearest"):
        at = place * step if mode == "nearest" else np.maximum(at, 0) + half
        index = np.floor(at.astype(np.float32)).astype(np.int64)
        index = np.minimum(index, n - 1)[:, None]
        return kernel.Taps(n, index, np.ones((out, 1)), np.ones(out, np.int64))
    if mode != "bicubic":
        at = place if n == out else np.maximum(at, 0)
    first = np.minimum(np.floor(at).astype(np.int64), n - 1)
    t = np.clip(at - first.astype(number), 0, 1)
    if mode == "bicubic":
        index = np.clip(first[:, None] + np.arange(-1, 3), 0, n - 1)
        weight = np.stack([_far(t + 1), _near(t), _near(1 - t), _far(2 - t)], 1)
    else:
        index = np.stack([first, np.minimum(first + 1, n - 1)], 1)
        weight = np.stack([1 - t, t], 1)
    used = weight != 0
    order = np.argsort(~used, axis=1, kind="stable")
    index, weight = (np.take_along_axis(x, order, 1) for x in (index, weight))
    return kernel.Taps(n, index, weight.astype(np.float64), used.sum(1))


def _near(t: Any) -> Any:
    """Return the cubic kernel at distances from 0 to 1."""
    return ((_CUBIC + 2) * t - (_CUBIC + 3)) * t * t + 1


def _far(t: Any) -> Any:
    """Return the cubic kernel at distances from 1 to 2."""
    return ((_CUBIC * t - 5 * _CUBIC) * t + 8 * _CUBIC) * t - 4 * _CUBIC


@composite(
    namespaces="functional",
    torch_name="nn.functional.interpolate",
    samples=lambda rand: [
        (rand(2, 3, 4), 7),
        (rand(2, 2, 3, 4), dict(scale_factor=2)),
        (strided(rand(1, 2, 3, 5)), (5, 3), dict(mode="bilinear")),
        (rand(1, 2, 4, 5), dict(scale_factor=(1.7, 0.6), mode="bilinear")),
        (rand(1, 2, 4, 5), dict(size=(7, 1), mode="bilinear", align_corners=True)),
        (rand(2, 1, 5, 4), dict(scale_factor=1.5, mode="bicubic", recompute_scale_factor=True)),
        (rand(2, 1, 5), dict(size=9, mode="linear")),
        (rand(2, 1, 5, 4), dict(size=(2, 3), mode="area")),
        (rand(2, 1, 5, 4), dict(size=(3, 7), mode="nearest-exact")),
        (rand(1, 1, 3, 2, 4), dict(size=4, mode="trilinear")),
    ],
    errors=lambda rand: [
        (rand(2, 3, 4),),
        (rand(2, 3, 4), 3, 2.0),
        (rand(2, 3, 4), (3, 4)),
        (rand(2, 3, 4), 0),
        (rand(2, 3, 4), 3.5),
        (rand(2, 3, 4), 3, dict(mode="bilinear")),
        (rand(2, 3, 4), 3, dict(mode="cubic")),
        (rand(2, 3, 4), 3, dict(align_corners=False)),
        (rand(2, 3, 4), 3, dict(recompute_scale_factor=True)),
        (rand(3, 4), 3),
        (rand(2, 0, 4), 3),
        (rand.integers(0, 9, 2, 3, 4), 3),
    ],
)
def interpolate(
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """y = x in another size, along all but the first two dimensions: (N, C, *) -> (N, C, *).

    Of `size` and `scale_factor` one is given, a number or one for each dimension; a size is
    floor(n * factor). mode: "nearest" and "nearest-exact" copy a number, "area" takes the mean;
    "linear" (for one dimension), "bilinear" (two), "trilinear" (three) and "bicubic" (two) read
    between the numbers. With `align_corners` the first and last numbers of x and y are at the same
    places, otherwise the borders are. `recompute_scale_factor` uses the factor that the rounded
    size amounts to.

    NotImplementedError for `antialias`, for another number of dimensions, and for integers;
    ValueError for options that do not go together.
    """
    ndim = input.dim()
    if align_corners is not None and not mode.endswith(("linear", "cubic")):
        raise ValueError(
            "interpolate: align_corners can only be set with the interpolating modes linear, "
            "bilinear, bicubic and trilinear"
        )
    needed = _MODES.get(mode)
    if needed is None or not 3 <= ndim <= 5 or needed not in (0, ndim):
        modes = ", ".join(name for name, dims in _MODES.items() if dims in (0, ndim))
        raise NotImplementedError(
            f"interpolate: {ndim} dimensions have no mode {mode!r}; 3 to 5 dimensions have some: "
            f"{modes}"
        )
    sizes, factors = _sizes(tuple(input.shape[2:]), size, scale_factor)
    if recompute_scale_factor and size is not None:
        raise ValueError(
            "interpolate: recompute_scale_factor is not meaningful with an explicit size"
        )
    if antialias:
        raise NotImplementedError(
            "interpolate: antialias is not there; to shrink, take mode='area' or blur before"
        )
    if recompute_scale_factor:
        factors = (None,) * len(sizes)
    if min(*input.shape[1:], *(() if mode == "area" else sizes)) <= 0:
        raise RuntimeError(
            "interpolate: Input and output sizes should be greater than 0, but got input "
            f"{tuple(input.shape)} and output {sizes}"
        )
    if mode != "nearest" or input.dtype != np.uint8:
        check_floating("interpolate", input)
    if mode == "area":
        taps = [adaptive_window(n, out) for n, out in zip(input.shape[2:], sizes, strict=True)]
    else:
        taps = [
            _taps(mode, n, out, factor, bool(align_corners), input._array.dtype)
            for n, out, factor in zip(input.shape[2:], sizes, factors, strict=True)
        ]
    return Resample.apply(input, taps=tuple(taps))


def _sizes(
    shape: tuple[int, ...], size: Any, scale_factor: Any
) -> tuple[tuple[int, ...], tuple[float | None, ...]]:
    """Return the sizes to make of `shape`, and the factors that were given."""
    if (size is None) == (scale_factor is None):
        which = "either" if size is None else "only one of"
        raise ValueError(f"interpolate: {which} size or scale_factor should be defined")
    given = scale_factor if size is None else size
    each = tuple(given) if isinstance(given, SEQUENCE) else (given,) * len(shape)
    if len(each) != len(shape):
        raise ValueError(
            "interpolate: Input and output must have the same number of spatial dimensions, but "
            f"got input with spatial dimensions of {shape} and "
            f"{'scale_factor' if size is None else 'size'} {given}"
        )
    if size is not None:
        try:
            return tuple(map(as_int, each)), (None,) * len(shape)
        except TypeError:
            raise TypeError(f"interpolate: size must be ints, got {size!r}") from None
    factors = tuple(map(float, each))
    return tuple(math.floor(n * f) for n, f in zip(shape, factors, strict=True)), factors
