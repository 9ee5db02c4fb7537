"""Products of matrices. Both factors have one type; leading dimensions, (*), broadcast."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core import Op, Tensor, state, wrap
from ..kernels import matmul as kernel
from .checks import check_one_dtype, check_tensors
from .places import at, places
from .samples import Rand, Samples


def rows_of(x: Any) -> Any:
    """Return an array or tensor with its leading dimensions merged into one."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _sum(total: np.ndarray | None, a: Tensor, b: Tensor) -> Tensor:
    """Return a b, added to `total` in place if that is given and has its shape."""
    if total is not None:
        lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        if total.shape == (*lead, a.shape[-2], b.shape[-1]):
            return wrap(state.quietly(kernel.matmul, a._array, b._array, total, None, True))
    return a @ b


class Matmul(Op):
    """y = a b: (*, M, K), (*, K, N) -> (*, M, N).  da = dy bᵀ, db = aᵀ dy.

    A one-dimensional a is a row, b a column, and that dimension is dropped from the result.
    """

    native = True
    one_type = True
    out = "same"
    operators = ("__matmul__", "__rmatmul__")
    broadcasts = True
    fresh = True
    adds = True

    @staticmethod
    def call(input: Tensor, other: Tensor) -> Tensor:
        if not isinstance(input, Tensor) or not isinstance(other, Tensor):
            check_tensors("matmul", input=input, other=other)
        return Matmul.apply(input, other)

    def forward(ctx, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        if a.dtype is not b.dtype or a.dtype.kind != "f":
            check_one_dtype(a, b)
        needs_a, needs_b = ctx.needs_input_grad
        ctx.save(a if needs_b else None, b if needs_a else None, a.ndim, b.ndim)
        if a.ndim > 1 and b.ndim > 1:
            return kernel.matmul(a, b)
        if not a.ndim or not b.ndim:
            raise RuntimeError(
                f"both arguments need at least 1 dimension, but they have {a.ndim} and {b.ndim}"
            )
        if a.shape[-1] != b.shape[-2 if b.ndim > 1 else -1]:
            raise RuntimeError(f"inner dimensions differ: {a.shape} @ {b.shape}")
        y = kernel.matmul(a if a.ndim > 1 else a[None], b if b.ndim > 1 else b[:, None])
        if b.ndim == 1:
            y = y[..., 0]
        return y if a.ndim > 1 else y[..., 0] if b.ndim == 1 else y[..., 0, :]

    def backward(ctx, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b, dims_a, dims_b = ctx.saved
        if dims_b == 1:
            dy = dy.unsqueeze(-1)
        if dims_a == 1:
            dy = dy.unsqueeze(-2)
        da = db = None
        if b is not None:
            b = b if dims_b > 1 else b.unsqueeze(-1)
            da = _sum(ctx.sums.get(0), dy, b.transpose(-2, -1))
            da = da if dims_a > 1 else da.squeeze(-2)
        if a is not None:
            a = a if dims_a > 1 else a.unsqueeze(0)
            if dims_b <= 2 < dims_a:  # the same b for all rows of the stack: one product, no sum
                a, dy = rows_of(a), rows_of(dy)
            db = _sum(ctx.sums.get(1), a.transpose(-2, -1), dy)
            db = db if dims_b > 1 else db.squeeze(-1)
        return da, db

    @staticmethod
    def cell(a: np.ndarray, b: np.ndarray) -> str:
        letters = places(max(a.ndim, b.ndim) - (a.ndim == 1 or b.ndim == 1))
        column = [letters.pop()] if b.ndim > 1 else []
        row = [letters.pop()] if a.ndim > 1 else []
        of_a = [*letters[len(letters) - max(a.ndim - 2, 0) :], *row, ":"]
        of_b = [*letters[len(letters) - max(b.ndim - 2, 0) :], ":", *column]
        return f"sum({at('a', of_a)} * {at('b', of_b)})"

    @staticmethod
    def flops(args: Sequence[Any], kwargs: Any, outs: Sequence[Tensor]) -> int:
        return 2 * outs[0].numel() * args[0].size(-1)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2, 3), rand(3, 4)
        yield rand(3), rand(3)
        yield rand(3), rand(3, 4)
        yield rand(2, 3), rand(3)
        yield rand(2, 5, 3), rand(3)
        yield rand(3), rand(2, 3, 4)
        yield rand(2, 5, 3), rand(3, 4)
        yield rand(5, 3), rand(2, 3, 4)
        yield rand(2, 1, 2, 3), rand(3, 3, 4)
        yield rand(2, 0), rand(0, 3)
        yield rand(0, 3), rand(3, 2)
        yield rand.integers(-9, 9, 2, 3), rand.integers(-9, 9, 3, 2)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 3), rand(4, 3)
        yield rand(), rand(3)
        yield rand(3), rand(4)
        yield rand(2, 3), rand(2)
        yield rand(2, 3, 4), rand(5, 4, 2)
        yield rand(2, 3), rand.integers(0, 9, 3, 2)
        yield rand.bools(2, 3), rand.bools(3, 2)
        yield rand(2, 3), 2.0
