"""Copies that move elements or leave some out: flips, padding, diagonals and windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ... import memory
from ...core import Op, Tensor, wrap
from ..checks import SEQUENCE, check_tensors, ints, normal_dim, normal_dims
from ..composite import composite
from ..places import PLACE, along, at
from ..samples import Rand, Samples

_ALL, _BACK = slice(None), slice(None, None, -1)


class Flip(Op):
    """y = x in reverse order along each of `dims`: (*) -> (*).  dx = flip(dy)."""

    moves = ("x",)

    @staticmethod
    def call(input: Tensor, *order: Any, dims: Any = None) -> Tensor:
        if not order and dims is None:
            raise TypeError("flip: missing the dims to reverse")
        return Flip.apply(input, dims=ints(order, dims))

    def forward(ctx, x: np.ndarray, *, dims: tuple[int, ...]) -> np.ndarray:
        ctx.save(dims)
        dims = normal_dims(dims, x.ndim)
        y = memory.empty_like(x)
        y[...] = x[tuple([_BACK if d in dims else _ALL for d in range(x.ndim)])]
        return y

    def backward(ctx, dy: Tensor) -> Tensor:
        return Flip.apply(dy, dims=ctx.saved[0])

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2, 3), (0,)
        yield rand(2, 3), (0, -1)
        yield rand(), (0,)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 3), (0, 0)
        yield rand(2, 3), (2,)
        yield rand(), (1,)


@composite(samples=lambda rand: [(rand(2, 3),)], errors=lambda rand: [(rand(3),)])
def fliplr(input: Tensor) -> Tensor:
    """y = x with its columns in reverse order: (M, N, *) -> (M, N, *)."""
    if input._array.ndim < 2:
        raise RuntimeError(f"fliplr: Input must be >= 2-d, got shape {tuple(input.shape)}")
    return Flip.call(input, 1)


@composite(samples=lambda rand: [(rand(2, 3),)], errors=lambda rand: [(rand(),)])
def flipud(input: Tensor) -> Tensor:
    """y = x with its rows in reverse order: (M, *) -> (M, *)."""
    if not input._array.ndim:
        raise RuntimeError("flipud: Input must be >= 1-d, got a 0-dim tensor")
    return Flip.call(input, 0)


class Rot90(Op):
    """y = x turned by `k` quarters from the first of `dims` to the second: (a, b) -> (b, a).

    dx = dy turned back.
    """

    moves = ("x",)

    @staticmethod
    def call(input: Tensor, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor:
        check_tensors("rot90", input=input)
        ndim = input._array.ndim
        if len(dims) != 2:
            raise RuntimeError(
                f"rot90: expected total rotation dims == 2, but got dims = {len(dims)}"
            )
        if ndim < 2:
            raise RuntimeError(f"rot90: expected total dims >= 2, but got {ndim}")
        a, b = normal_dim(dims[0], ndim), normal_dim(dims[1], ndim)
        if a == b:
            raise RuntimeError(f"rot90: expected rotation dims to be different, got {tuple(dims)}")
        return Rot90.apply(input, k % 4, a, b)

    def forward(ctx, x: np.ndarray, k: int, a: int, b: int) -> np.ndarray:
        ctx.save(k, a, b)
        turned, back = x.swapaxes(a, b) if k % 2 else x, _reversed(k, a, b)
        y = memory.empty_like(turned)
        y[...] = turned[tuple([_BACK if d in back else _ALL for d in range(x.ndim)])]
        return y

    def backward(ctx, dy: Tensor) -> Tensor:
        k, a, b = ctx.saved
        return Rot90.apply(dy, -k % 4, a, b)

    @staticmethod
    def decomposition(x: Tensor, k: int, a: int, b: int) -> Tensor:
        turned = x.transpose(a, b) if k % 2 else x
        flips = _reversed(k, a, b)
        return Flip.apply(turned, dims=flips) if flips else turned.clone()

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield from ((rand(2, 3), k) for k in range(-1, 4))
        yield rand(2, 3, 4), 1, (1, 2)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield (rand(3),)
        yield rand(2, 3), 1, (0, 0)
        yield rand(2, 3), 1, (0,)


def _reversed(k: int, a: int, b: int) -> tuple[int, ...]:
    """Return the dims that a turn by k quarters reverses, once an odd one has swapped a and b."""
    return ((), (a,), (a, b), (b,))[k]


class Roll(Op):
    """y = x shifted by `shifts` along `dims`, the last elements to the front: (*) -> (*).

    dx = dy shifted back. Without dims, along the flattened tensor.
    """

    moves = ("x",)

    @staticmethod
    def call(
        input: Tensor, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None
    ) -> Tensor:
        check_tensors("roll", input=input)
        return Roll.apply(input, shifts, dims)

    def forward(ctx, x: np.ndarray, shifts: Any, dims: Any) -> np.ndarray:
        shifts = ints(tuple(shifts) if isinstance(shifts, SEQUENCE) else (shifts,))
        given = () if dims is None else dims if isinstance(dims, SEQUENCE) else (dims,)
        if len(shifts) != (len(given) or 1):
            raise RuntimeError(
                f"shifts and dimensions must align. shifts: {len(shifts)}, dims: {len(given)}"
            )
        ctx.save(tuple(-s for s in shifts), tuple(given) or None)
        if not given:
            return _rolled(x.reshape(-1), shifts[0], 0).reshape(x.shape)
        if not x.ndim:
            raise IndexError(f"Dimension specified as {given[0]} but tensor has no dimensions")
        y = x
        for shift, d in zip(shifts, given, strict=True):
            y = _rolled(y, shift, normal_dim(d, x.ndim))
        return y

    def backward(ctx, dy: Tensor) -> Tensor:
        return Roll.apply(dy, *ctx.saved)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2, 3), 1
        yield rand(2, 3), -1, 1
        yield rand(2, 3), (1, 2), (0, 1)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 3), (1, 2)
        yield rand(2, 3), 1, (0, 1)
        yield rand(2, 3), 1, 2
        yield rand(), 1, 0


def _rolled(x: np.ndarray, shift: int, dim: int) -> np.ndarray:
    """Return x shifted along `dim`: what `np.roll` does, in less time for a small array."""
    y = memory.empty_like(x)
    cut, before = shift % max(x.shape[dim], 1), (slice(None),) * dim
    y[(*before, slice(cut, None))] = x[(*before, slice(x.shape[dim] - cut))]
    y[(*before, slice(cut))] = x[(*before, slice(x.shape[dim] - cut, None))]
    return y


class ConstantPad(Op):
    """y = x with `value` around it: `pad` has two lengths for each dimension, negative ones crop.

    dx = the part of dy that x fills.
    """

    op_name = "constant_pad_nd"
    namespaces = ""
    torch_name = None
    moves = ("x",)

    def forward(
        ctx, x: np.ndarray, *, pad: tuple[tuple[int, int], ...], value: float = 0
    ) -> np.ndarray:
        shape = tuple(n + a + b for n, (a, b) in zip(x.shape, pad, strict=True))
        if min(shape, default=0) < 0:
            raise RuntimeError(
                f"cutting {pad} off {tuple(x.shape)} leaves the negative shape {shape}"
            )
        ctx.save(tuple((-a, -b) for a, b in pad))
        y = memory.empty(shape, x.dtype)
        y.fill(value)
        to = tuple(slice(max(a, 0), n - max(b, 0)) for n, (a, b) in zip(shape, pad, strict=True))
        of = tuple(
            slice(max(-a, 0), n - max(-b, 0)) for n, (a, b) in zip(x.shape, pad, strict=True)
        )
        y[to] = x[of]
        return y

    def backward(ctx, dy: Tensor) -> Tensor:
        return ConstantPad.apply(dy, pad=ctx.saved[0])

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2, 3), dict(pad=((0, 1), (2, -1)), value=1.5)


@composite(
    namespaces="functional",
    samples=lambda rand: [
        (rand(2, 3), (1, 2)),
        (rand(2, 3), (1, -1, 0, 2), dict(value=2.0)),
        (rand(1, 2, 4), (2, 1), "reflect"),
        (rand(1, 2, 3), (1, 2), "replicate"),
        (rand(1, 2, 3, 3), (1, 2, 0, 1), "circular"),
        (rand.bools(2, 3), (1, 1), dict(value=True)),
        *(
            (rand(1, 2, 6), lengths, mode)
            for lengths in ((-2, -1), (-2, 2), (1, -4))
            for mode in ("reflect", "replicate", "circular")
        ),
    ],
    errors=lambda rand: [
        (rand(2, 3), (1,)),
        (rand(2, 3), (-2, -2)),
        (rand(2, 3), (1, 1, 1, 1, 1, 1)),
        (rand(2, 3), (3, 1), "reflect"),
        (rand(2, 3), (-2, -1), "reflect"),
        (rand(2, 3), (1, 1, 1, 1), "reflect"),
        (rand(2, 3), (1, 1), "mirror"),
        (rand(1, 2, 3), (1, 1), "reflect", 1.0),
    ],
)
def pad(input: Tensor, pad: Any, mode: str = "constant", value: float | None = None) -> Tensor:
    """y = x with more around it: (a, b) -> (a + 2, b + 1) for `pad` (0, 1, 1, 1).

    `pad` holds the lengths before and after, of the last dimension, then of those before it, and
    negative ones crop. mode: "constant" puts `value` there, 0 by default; "reflect" mirrors at the
    border of x, "replicate" repeats it, "circular" wraps around what is not cropped.
    """
    pad = ints(tuple(pad))
    shape = input._array.shape
    if len(pad) % 2:
        raise RuntimeError(f"pad: Padding length must be divisible by 2, got {list(pad)}")
    if len(pad) > 2 * len(shape):
        raise RuntimeError(
            "pad: Padding length should be less than or equal to two times the input dimension "
            f"but got padding length {len(pad)} and input of dimension {len(shape)}"
        )
    pairs = ((0, 0),) * (len(shape) - len(pad) // 2) + tuple(
        zip(pad[-2::-2], pad[::-2], strict=True)
    )
    if mode == "constant":
        return ConstantPad.apply(input, pad=pairs, value=0 if value is None else value)
    how = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}.get(mode)
    if how is None:
        raise NotImplementedError(f"pad: Unrecognised padding mode {mode}")
    if value is not None:
        raise RuntimeError(f'pad: Padding mode "{mode}" doesn\'t take in value argument')
    if len(shape) - len(pad) // 2 not in (1, 2):
        raise NotImplementedError(
            f"pad: mode {mode} leaves the first one or two dimensions alone, so "
            f"{len(pad)} lengths are not supported for a {len(shape)}D input tensor"
        )
    for dim, (a, b) in enumerate(pairs):
        if not a and not b:
            continue
        own = np.arange(shape[dim])
        before, after = max(a, 0), max(b, 0)
        left = slice(before - a, len(own) + before + b)  # of what is padded; the rest is cropped
        if mode == "circular":  # wraps around what is not cropped
            own, left = own[before - a : max(len(own) - (after - b), 0)], slice(None)
        n = len(own)
        most = {"reflect": n - 1, "circular": n}.get(mode)
        if shape[dim] + a + b < (mode != "circular") or (n == 0 < before + after):
            raise RuntimeError(
                f"pad: ({a}, {b}) leaves nothing of dimension {dim} of input {list(shape)}"
            )
        if most is not None and max(before, after) > most:
            raise RuntimeError(
                f"pad: Padding size should be at most {most} for mode {mode}, but got "
                f"({a}, {b}) at dimension {dim} of input {list(shape)}"
            )
        index = np.pad(own, (before, after), mode=how)  # type: ignore[call-overload]
        input = input.index_select(dim, wrap(index[left]))
    return input


class Diagonal(Op):
    """y = the diagonal `offset` above the main one of dims `dim1` and `dim2`: (a, b) -> (n).

    It is the last dimension of y.  dx = zeros with dy on the diagonal.
    """

    view = True
    moves = ("x",)

    @staticmethod
    def call(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
        return Diagonal.apply(input, offset, dim1, dim2)

    def forward(ctx, x: np.ndarray, offset: int, dim1: int, dim2: int) -> np.ndarray:
        a, b = normal_dim(dim1, x.ndim), normal_dim(dim2, x.ndim)
        if a == b:
            raise RuntimeError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
        ctx.save(x.shape, offset, a, b)
        y = x.diagonal(offset, a, b)
        y.flags.writeable = x.flags.writeable
        return y

    def backward(ctx, dy: Tensor) -> Tensor:
        shape, offset, a, b = ctx.saved
        return DiagonalScatter.apply(dy, shape=shape, offset=offset, dim1=a, dim2=b)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield (rand(3, 3),)
        yield rand(3, 4), 1
        yield rand(3, 4), -2
        yield rand(2, 3, 4), 0, 2, 1
        yield rand(2, 2), 5

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield (rand(3),)
        yield rand(3, 3), 0, 1, 1


class DiagonalScatter(Op):
    """y = zeros of `shape` with x on a diagonal, the gradient of `diagonal`.  dx = diagonal(dy)."""

    op_name = "diagonal_backward"
    namespaces = ""
    torch_name = None
    moves = ("x",)

    def forward(
        ctx, x: np.ndarray, *, shape: tuple[int, ...], offset: int, dim1: int, dim2: int
    ) -> np.ndarray:
        ctx.save(offset, dim1, dim2)
        y = memory.zeros(shape, x.dtype)
        diagonal = y.diagonal(offset, dim1, dim2)
        diagonal.flags.writeable = True
        diagonal[...] = x
        return y

    def backward(ctx, dy: Tensor) -> Tensor:
        return Diagonal.apply(dy, *ctx.saved)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2), dict(shape=(3, 3), offset=1, dim1=0, dim2=1)


@composite(
    samples=lambda rand: [(rand(2, 3),), (rand(2, 3), 1, 0, 2), (rand(3), -2)],
    errors=lambda rand: [(rand(2, 3), 0, 1, 1), (rand(2, 3), 0, 0, 3)],
)
def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Matrices with the last dimension of x on a diagonal: (*, n) -> (*, n, n) for offset 0.

    `offset` is how far above the main diagonal; `dim1` and `dim2` are the dims of the matrices.
    """
    have = input._array.shape
    a, b = normal_dim(dim1, len(have) + 1), normal_dim(dim2, len(have) + 1)
    if a == b:
        raise RuntimeError(f"diag_embed: dimensions cannot be identical {dim1}, {dim2}")
    shape = list(have[:-1])
    for d in sorted((a, b)):
        shape.insert(d, have[-1] + abs(offset))
    return DiagonalScatter.apply(input, shape=tuple(shape), offset=offset, dim1=a, dim2=b)


@composite(
    out="same",
    samples=lambda rand: [(rand(3),), (rand(3), -1), (rand(3, 4),), (rand(3, 4), 1)],
    errors=lambda rand: [(rand(2, 2, 2),)],
)
def diag(input: Tensor, diagonal: int = 0) -> Tensor:
    """Return a square matrix with a vector on its diagonal, or the diagonal of a matrix."""
    ndim = input._array.ndim
    if ndim not in (1, 2):
        raise RuntimeError(f"diag: Supports 1D or 2D tensors. Got {ndim}D")
    if ndim == 1:
        return diag_embed(input, diagonal)
    return Diagonal.call(input, diagonal).clone()


class Unfold(Op):
    """y = windows of length `size` every `step` along `dimension`, as a new last dimension.

    (a, b) -> (a, (b - size) // step + 1, size) for dimension 1. Windows may overlap.  dx = the sum
    of dy over the windows.
    """

    namespaces = "tensor"
    torch_name = "Tensor.unfold"
    view = True
    moves = ("x",)

    @staticmethod
    def call(input: Tensor, dimension: int, size: int, step: int) -> Tensor:
        return Unfold.apply(input, dimension, size, step)

    def forward(ctx, x: np.ndarray, dimension: int, size: int, step: int) -> np.ndarray:
        dim = normal_dim(dimension, x.ndim)
        ctx.save(x.shape, dim, size, step)
        length = x.shape[dim] if x.ndim else 1
        if not 0 <= size <= length:
            raise RuntimeError(
                f"maximum size for tensor at dimension {dim} is {length} but size is {size}"
            )
        if step <= 0:
            raise RuntimeError(f"step is {step} but must be > 0")
        if not x.ndim:  # its only window
            return x.reshape(1)[:size]
        shape = (*x.shape[:dim], (length - size) // step + 1, *x.shape[dim + 1 :], size)
        stride = x.strides[dim]
        strides = (*x.strides[:dim], stride * step, *x.strides[dim + 1 :], stride)
        if x.flags.c_contiguous and x.size:  # quicker than NumPy's function
            return np.ndarray(shape, x.dtype, x, 0, strides)
        return np.lib.stride_tricks.as_strided(x, shape, strides)

    def backward(ctx, dy: Tensor) -> Tensor:
        shape, dim, size, step = ctx.saved
        return Fold.apply(dy, shape=shape, dim=dim, size=size, step=step)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2, 5), 1, 2, 1
        yield rand(5, 2), 0, 2, 3
        yield rand(), 0, 1, 1

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(), 0, 2, 1
        yield rand(2, 4), 1, 5, 1
        yield rand(2, 4), 1, 2, 0
        yield rand(2, 4), 2, 2, 1


class Fold(Op):
    """y = the sum of overlapping windows in a tensor of `shape`, the gradient of `unfold`.

    dx = unfold(dy).
    """

    namespaces = ""
    torch_name = None

    def forward(
        ctx, x: np.ndarray, *, shape: tuple[int, ...], dim: int, size: int, step: int
    ) -> np.ndarray:
        ctx.save(dim, size, step)
        y = memory.zeros(shape, x.dtype)
        if not shape:
            return np.asarray(x.sum())
        length = x.shape[dim] * step
        for i in range(size):
            y[(*(slice(None),) * dim, slice(i, i + length, step))] += x[..., i]
        return y

    @staticmethod
    def cell(x: np.ndarray, *, shape: tuple[int, ...], dim: int, size: int, step: int) -> str:
        if not shape:
            return "sum(x[:])"
        start = f"({PLACE[dim]} - k)"  # of the window whose element k is here
        windows = at("x", [*along(len(shape), [dim], f"{start} // {step}"), "k"])
        inside = f"({start} % {step} == 0) & ({start} >= 0) & ({start} < {x.shape[dim] * step})"
        return f"sum({windows} for k in range({size}) if {inside})"

    def backward(ctx, dy: Tensor) -> Tensor:
        return Unfold.apply(dy, *ctx.saved)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2, 4, 2), dict(shape=(2, 5), dim=1, size=2, step=1)
        yield rand(2, 2, 2), dict(shape=(6, 2), dim=0, size=2, step=3)
