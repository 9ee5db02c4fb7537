"""Products under other names and conditions, and products added to a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...core import Op, Tensor
from ...kernels import matmul as kernel
from ..checks import check_ndim, check_one_dtype, check_tensors
from ..composite import composite
from ..matmul import Matmul
from ..places import times
from ..samples import Rand, Samples


@composite(
    out="same",
    samples=lambda rand: [(rand(2, 3), rand(3, 4))],
    errors=lambda rand: [(rand(2, 3), rand(3)), (rand(2, 3), rand(2, 3))],
)
def mm(input: Tensor, mat2: Tensor) -> Tensor:
    """Return the product of two matrices: (M, K), (K, N) -> (M, N)."""
    check_ndim("mm", 2, input=input, mat2=mat2)
    return Matmul.call(input, mat2)


@composite(
    out="same",
    samples=lambda rand: [(rand(2, 3, 4), rand(2, 4, 2))],
    errors=lambda rand: [(rand(2, 3), rand(3, 2)), (rand(2, 3, 4), rand(1, 4, 2))],
)
def bmm(input: Tensor, mat2: Tensor) -> Tensor:
    """Return the products of two stacks of matrices: (B, M, K), (B, K, N) -> (B, M, N)."""
    check_ndim("bmm", 3, input=input, mat2=mat2)
    if input.size(0) != mat2.size(0):
        raise RuntimeError(
            f"bmm: the stacks have different lengths: {tuple(input.shape)} @ "
            f"{tuple(mat2.shape)}; matmul would broadcast"
        )
    return Matmul.call(input, mat2)


@composite(
    out="same",
    samples=lambda rand: [(rand(2, 3), rand(3))],
    errors=lambda rand: [(rand(3), rand(3)), (rand(2, 3), rand(2))],
)
def mv(input: Tensor, vec: Tensor) -> Tensor:
    """Return the product of a matrix and a vector: (M, K), (K) -> (M)."""
    check_ndim("mv", 2, input=input)
    check_ndim("mv", 1, vec=vec)
    return Matmul.call(input, vec)


@composite(
    out="same",
    samples=lambda rand: [(rand(3), rand(3))],
    errors=lambda rand: [(rand(3, 3), rand(3, 3)), (rand(3), rand(2))],
)
def dot(input: Tensor, tensor: Tensor) -> Tensor:
    """Return the inner product of two vectors: (K), (K) -> ()."""
    check_ndim("dot", 1, input=input, tensor=tensor)
    return Matmul.call(input, tensor)


@composite(
    out="cast",
    aliases=("ger",),
    samples=lambda rand: [(rand(3), rand(2)), (rand.integers(0, 5, 3), rand(2))],
    errors=lambda rand: [(rand(3, 1), rand(2))],
)
def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """y[i, j] = a[i] b[j]: (M), (N) -> (M, N)."""
    check_ndim("outer", 1, input=input, vec2=vec2)
    return input.unsqueeze(1) * vec2


class _AddProduct(Op, abstract=True):
    """y = beta * x + alpha * a b.  dx = beta * dy, da = alpha * dy bᵀ, db = alpha * aᵀ dy."""

    out = "same"
    broadcasts = True
    inplace = True

    def forward(
        ctx, x: np.ndarray, a: np.ndarray, b: np.ndarray, beta: float, alpha: float
    ) -> np.ndarray:
        check_one_dtype(x, a, b)
        shape = (*a.shape[:-1], b.shape[-1])
        if np.broadcast_shapes(x.shape, shape) != shape:
            raise RuntimeError(f"the shape {x.shape} of input cannot be expanded to {shape}")
        _, needs_a, needs_b = ctx.needs_input_grad[:3]
        ctx.save(a if needs_b else None, b if needs_a else None, beta, alpha)
        if x.dtype.kind != "f":
            beta, alpha = int(beta), int(alpha)
        if beta == alpha == 1 and x.shape == shape[-1:]:
            return kernel.matmul(a, b, bias=x)
        y = kernel.matmul(a, b)
        if alpha != 1:
            y *= alpha
        if beta != 0:  # else not even a NaN of x counts
            y += x if beta == 1 else x * beta
        return y

    @staticmethod
    def cell(x: np.ndarray, a: np.ndarray, b: np.ndarray, beta: float, alpha: float) -> str:
        product = times(alpha, Matmul.cell(a, b))
        return f"{times(beta, 'x')} + {product}" if beta else product

    def backward(ctx, dy: Tensor) -> tuple[Tensor | None, ...]:
        a, b, beta, alpha = ctx.saved
        scaled = dy if alpha == 1 else dy * alpha
        return (
            None if not ctx.needs_input_grad[0] else dy if beta == 1 else dy * beta,
            None if b is None else scaled @ b.transpose(-2, -1),
            None if a is None else a.transpose(-2, -1) @ scaled,
        )

    @staticmethod
    def flops(args: Sequence[Any], kwargs: Any, outs: Sequence[Tensor]) -> int:
        return 2 * outs[0].numel() * args[1].size(-1)


class Addmm(_AddProduct):
    """y = beta * x + alpha * a b: (M, N), (M, K), (K, N) -> (M, N); x may broadcast.

    dx = beta * dy, da = alpha * dy bᵀ, db = alpha * aᵀ dy.
    """

    @staticmethod
    def call(
        input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1
    ) -> Tensor:
        check_tensors("addmm", input=input)
        check_ndim("addmm", 2, mat1=mat1, mat2=mat2)
        return Addmm.apply(input, mat1, mat2, beta, alpha)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2, 4), rand(2, 3), rand(3, 4)
        yield rand(4), rand(2, 3), rand(3, 4)
        yield rand(2, 1), rand(2, 3), rand(3, 4), dict(beta=2.0, alpha=0.5)
        yield rand(2, 4), rand(2, 3), rand(3, 4), dict(beta=0)
        yield rand(), rand(2, 0), rand(0, 4)
        yield tuple(rand.integers(0, 5, *s) for s in ((2, 2), (2, 3), (3, 2)))

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(3), rand(2, 3), rand(3, 4)
        yield rand(1, 2, 4), rand(2, 3), rand(3, 4)
        yield rand(4), rand(3), rand(3, 4)
        yield rand.integers(0, 5, 4), rand(2, 3), rand(3, 4)


class Baddbmm(_AddProduct):
    """y = beta * x + alpha * a b: (B, M, N), (B, M, K), (B, K, N) -> (B, M, N).

    dx = beta * dy, da = alpha * dy bᵀ, db = alpha * aᵀ dy.
    """

    @staticmethod
    def call(
        input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1
    ) -> Tensor:
        check_tensors("baddbmm", input=input)
        check_ndim("baddbmm", 3, batch1=batch1, batch2=batch2)
        if batch1.size(0) != batch2.size(0):
            raise RuntimeError(
                f"baddbmm: the stacks have different lengths: {tuple(batch1.shape)} @ "
                f"{tuple(batch2.shape)}"
            )
        return Baddbmm.apply(input, batch1, batch2, beta, alpha)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2, 3, 2), rand(2, 3, 4), rand(2, 4, 2)
        yield rand(2), rand(2, 3, 4), rand(2, 4, 2), dict(beta=0.5, alpha=2)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(3, 2, 2), rand(2, 2, 3), rand(2, 3, 2)
        yield rand(2), rand(2, 2, 3), rand(3, 3, 2)
