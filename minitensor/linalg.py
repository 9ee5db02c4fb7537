"""Norms of vectors and matrices, with the names of `torch.linalg`.

Imported when it is first asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .core import Tensor
from .dtype import as_dtype, promote_types
from .names import show
from .ops.breadth.moments import Norm
from .ops.checks import check_floating, check_tensors, normal_dims

__all__ = ["matrix_norm", "norm", "vector_norm"]

Order = float | str | None


def _check(name: str, x: Tensor, dtype: Any) -> None:
    """Raise RuntimeError for a tensor of integers, and for a `dtype` that would lose digits."""
    check_tensors(name, input=x)
    check_floating(name, x, RuntimeError)
    if dtype is not None and promote_types(as_dtype(dtype), x._array.dtype) != as_dtype(dtype):
        raise RuntimeError(f"{name}: {x.dtype} would lose digits as {dtype}: convert with .to()")


def vector_norm(
    x: Tensor,
    ord: float = 2,
    dim: int | Sequence[int] | None = None,
    keepdim: bool = False,
    *,
    dtype: Any = None,
) -> Tensor:
    """Return (the sum of |x|^ord)^(1/ord) over `dim`, or over all: (*) -> (*).

    `ord` inf is the largest |x|, -inf the smallest, 0 the number of x that are not 0. RuntimeError
    for integers.
    """
    if not isinstance(ord, int | float):
        raise TypeError(f"vector_norm: ord must be a number, got {ord!r}")
    _check("vector_norm", x, dtype)
    return Norm.call(x, ord, dim, keepdim, dtype=dtype)


def matrix_norm(
    A: Tensor,
    ord: Order = "fro",
    dim: Sequence[int] = (-2, -1),
    keepdim: bool = False,
    *,
    dtype: Any = None,
) -> Tensor:
    """Return a norm of the matrices in the two dimensions `dim`: (*, M, N) -> (*).

    - `ord` "fro": the root of the sum of squares.
    - inf and -inf: the largest and the smallest sum of |A| over a row; 1 and -1: over a column.

    The orders that need singular values, 2, -2 and "nuc", raise NotImplementedError.
    """
    _check("matrix_norm", A, dtype)
    if A.ndim < 2:
        raise RuntimeError(f"matrix_norm: expected (*, M, N), got shape {tuple(A.shape)}")
    if len(dim) != 2:
        raise RuntimeError(f"matrix_norm: dim must be two dimensions, got {tuple(dim)}")
    row, column = normal_dims(tuple(dim), A.ndim)
    if ord == "fro":
        return Norm.call(A, 2.0, (row, column), keepdim, dtype=dtype)
    if ord in ("nuc", 2, -2):
        raise NotImplementedError(f"matrix_norm: ord {ord!r} needs singular values")
    if ord not in (1, -1, float("inf"), float("-inf")):
        raise RuntimeError(f"matrix_norm: there is no order {ord!r}")
    first, second = (row, column) if abs(float(ord)) == 1 else (column, row)
    sums = Norm.call(A, 1.0, first, True, dtype=dtype)
    y = sums.amax(second, True) if float(ord) > 0 else sums.amin(second, True)
    return y if keepdim else y.squeeze((row, column))


def norm(
    A: Tensor,
    ord: Order = None,
    dim: int | Sequence[int] | None = None,
    keepdim: bool = False,
    *,
    dtype: Any = None,
) -> Tensor:
    """Return the vector norm over one `dim`, the matrix norm over two: (*) -> (*).

    Without `ord` it is the root of the sum of squares over `dim`, or over all; with `ord` alone, A
    must be a vector or a matrix.
    """
    dims = (dim,) if isinstance(dim, int) else dim
    if dims is not None and len(dims) not in (1, 2):
        raise RuntimeError(f"linalg.norm: dim must be one or two dimensions, got {tuple(dims)}")
    if ord is None:
        return vector_norm(A, 2, dims, keepdim, dtype=dtype)
    if dims is None:
        if A.ndim not in (1, 2):
            raise RuntimeError(
                "linalg.norm: if ord is given and dim is not, expected a vector or a matrix, got "
                f"shape {tuple(A.shape)}"
            )
        dims = tuple(range(A.ndim))
    if len(dims) == 1 and not isinstance(ord, str):
        return vector_norm(A, ord, dims, keepdim, dtype=dtype)
    return matrix_norm(A, ord, dims, keepdim, dtype=dtype)


show(__name__)
