"""Products under other names and conditions, and products added to a tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...core import Op, Tensor
from ...dtype import FLOATING
from ...kernels import matmul as kernel
from ..checks import check_ndim, check_one_dtype, check_tensors, normal_dim
from ..composite import composite
from ..elementwise import promote_operands
from ..matmul import Matmul
from ..places import PLACE, along, at, places, times
from ..samples import Rand, Samples
from ..shape import permuted
from .repeat import broadcast_tensors


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
    if input._array.shape[0] != mat2._array.shape[0]:
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

    one_type = True
    out = "same"
    broadcasts = True
    inplace = True

    def forward(
        ctx, x: np.ndarray, a: np.ndarray, b: np.ndarray, beta: float, alpha: float
    ) -> np.ndarray:
        check_one_dtype(x, a, b)
        shape = a.shape[:-1] if b.ndim == 1 else (*a.shape[:-1], b.shape[-1])
        if x.shape != shape and np.broadcast_shapes(x.shape, shape) != shape:
            raise RuntimeError(f"the shape {x.shape} of input cannot be expanded to {shape}")
        _, needs_a, needs_b = ctx.needs_input_grad[:3]
        ctx.save(a if needs_b else None, b if needs_a else None, beta, alpha)
        if x.dtype.kind not in FLOATING:
            beta, alpha = int(beta), int(alpha)
        if b.ndim == 1:
            if a.shape[1:] != b.shape:
                raise RuntimeError(f"inner dimensions differ: {a.shape} @ {b.shape}")
            y = kernel.matmul(a, b[:, None])[:, 0]
        elif beta == alpha == 1 and x.shape == shape[-1:]:
            return kernel.matmul(a, b, bias=x)
        else:
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
        da = None
        if b is not None:
            da = scaled.outer(b) if b._array.ndim == 1 else scaled @ b.transpose(-2, -1)
        return (
            None if not ctx.needs_input_grad[0] else dy if beta == 1 else dy * beta,
            da,
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
        if not isinstance(input, Tensor):
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
        if not isinstance(input, Tensor):
            check_tensors("baddbmm", input=input)
        check_ndim("baddbmm", 3, batch1=batch1, batch2=batch2)
        if batch1._array.shape[0] != batch2._array.shape[0]:
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


class Addmv(_AddProduct):
    """y = beta * x + alpha * a b: (M), (M, K), (K) -> (M); x may broadcast.

    dx = beta * dy, da = alpha * dy bᵀ, db = alpha * aᵀ dy.
    """

    @staticmethod
    def call(
        input: Tensor, mat: Tensor, vec: Tensor, *, beta: float = 1, alpha: float = 1
    ) -> Tensor:
        if not isinstance(input, Tensor):
            check_tensors("addmv", input=input)
        check_ndim("addmv", 2, mat=mat)
        check_ndim("addmv", 1, vec=vec)
        return Addmv.apply(input, mat, vec, beta, alpha)

    @staticmethod
    def decomposition(x: Tensor, a: Tensor, b: Tensor, beta: float, alpha: float) -> Tensor:
        product = Matmul.apply(a, b)
        scaled = product if alpha == 1 else product * alpha
        return (x if beta == 1 else x * beta) + scaled if beta else scaled

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2), rand(2, 3), rand(3)
        yield rand(), rand(2, 3), rand(3), dict(beta=0.5, alpha=2.0)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2), rand(3), rand(3)
        yield rand(3), rand(2, 3), rand(3)
        yield rand(2), rand(2, 3), rand(2)


@composite(
    out="same",
    samples=lambda rand: [
        (rand(3), rand(3)),
        (rand(2, 3), rand(4, 3)),
        (rand(2, 2, 3), rand(3)),
        (rand(), rand(2, 3)),
    ],
    errors=lambda rand: [(rand(2, 3), rand(3, 2))],
)
def inner(input: Tensor, other: Tensor) -> Tensor:
    """y = the products over the last dimension of both: (*, K), (o, K) -> (*, o)."""
    if not input._array.ndim or not other._array.ndim:
        return input * other
    if input._array.shape[-1] != other._array.shape[-1]:
        raise RuntimeError(
            "inner: the last dimension must match on both input tensors but got shapes "
            f"{tuple(input.shape)} and {tuple(other.shape)}"
        )
    if input._array.ndim <= 2 and other._array.ndim <= 2:
        return Matmul.call(input, other.t())
    return tensordot(input, other, ([-1], [-1]))


@composite(
    out="same",
    namespaces="torch",
    samples=lambda rand: [
        (rand(2, 3, 4), rand(3, 4, 5)),
        (rand(2, 3), rand(4), 0),
        (rand(2, 3, 4), rand(4, 2), ([2, 0], [0, 1])),
    ],
    errors=lambda rand: [(rand(2, 3), rand(4, 2), 1), (rand(2, 3), rand(2, 3), ([0], [0, 1]))],
)
def tensordot(a: Tensor, b: Tensor, dims: Any = 2) -> Tensor:
    """y = the products over `dims`: the last so many of a with the first of b, or the dims named.

    (*, d), (d, o) -> (*, o) for dims 1.
    """
    if isinstance(dims, int):
        dims = range(-dims, 0), range(dims)
    of_a, of_b = ([normal_dim(d, t.ndim) for d in ds] for ds, t in zip(dims, (a, b), strict=True))
    lengths = [[t._array.shape[d] for d in ds] for ds, t in ((of_a, a), (of_b, b))]
    if lengths[0] != lengths[1]:
        raise RuntimeError(
            f"tensordot: contracted dimensions need to match, but have sizes {lengths[0]} in the "
            f"first tensor and {lengths[1]} in the second"
        )
    free_a = [d for d in range(a.ndim) if d not in of_a]
    free_b = [d for d in range(b.ndim) if d not in of_b]
    count = math.prod(lengths[0])
    shape_a, shape_b = ([t._array.shape[d] for d in ds] for t, ds in ((a, free_a), (b, free_b)))
    left = permuted(a, free_a + of_a).reshape(math.prod(shape_a), count)
    right = permuted(b, of_b + free_b).reshape(count, math.prod(shape_b))
    return Matmul.call(left, right).reshape(shape_a + shape_b)


class Kron(Op):
    """y = every element of a times the whole of b, in blocks: (M, N), (P, Q) -> (M P, N Q).

    da = the sums of dy * b over the blocks, db = the sum of dy * a over the blocks.
    """

    out = "cast"

    @staticmethod
    def call(input: Tensor, other: Tensor) -> Tensor:
        check_tensors("kron", input=input, other=other)
        if bool(input._array.ndim) != bool(other._array.ndim):  # a scalar's type counts, too
            input, other = (t if t._array.ndim else t.reshape(1) for t in (input, other))
        return Kron.apply(*promote_operands(input, other))

    def forward(ctx, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        ctx.save(a, b)
        left, right = _in_blocks(a.shape, b.shape)
        product = a.reshape(left) * b.reshape(right)
        return product.reshape([n * m for n, m in zip(left[::2], right[1::2], strict=True)])

    @staticmethod
    def cell(a: np.ndarray, b: np.ndarray) -> str:
        left, right = _in_blocks(a.shape, b.shape)
        letters = places(len(left) // 2)
        blocks = [f"{i} // {n}" for i, n in zip(letters, right[1::2], strict=True)]
        inside = [f"{i} % {n}" for i, n in zip(letters, right[1::2], strict=True)]
        new_a, new_b = len(letters) - a.ndim, len(letters) - b.ndim
        return f"{at('a', blocks[new_a:])} * {at('b', inside[new_b:])}"

    def backward(ctx, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b = ctx.saved
        left, right = _in_blocks(a._array.shape, b._array.shape)
        dy = dy.reshape([n * m for n, m in zip(left, right, strict=True)])
        dims, (to_a, to_b) = range(len(left)), ctx.needs_input_grad
        da = (dy * b.reshape(right)).sum([d for d in dims if d % 2]) if to_a else None
        db = (dy * a.reshape(left)).sum([d for d in dims if not d % 2]) if to_b else None
        return (
            None if da is None else da.reshape(a._array.shape),
            None if db is None else db.reshape(b._array.shape),
        )

    @staticmethod
    def decomposition(a: Tensor, b: Tensor) -> Tensor:
        left, right = _in_blocks(a._array.shape, b._array.shape)
        product = a.reshape(left) * b.reshape(right)
        return product.reshape([n * m for n, m in zip(left[::2], right[1::2], strict=True)])

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2, 3), rand(2, 2)
        yield rand(3), rand(2, 1, 2)
        yield rand(), rand(2)


def _in_blocks(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """Return the shapes in which a and b broadcast to (a's length, b's length) for each axis."""
    ndim = max(len(a), len(b))
    a, b = ((1,) * (ndim - len(shape)) + shape for shape in (a, b))
    return [n for m in a for n in (m, 1)], [n for m in b for n in (1, m)]


class Cross(Op):
    """y = the cross products of vectors of length 3 along `dim`, the first such by default.

    (*), (*) -> (*).  da = b x dy, db = dy x a.
    """

    out = "same"

    @staticmethod
    def call(input: Tensor, other: Tensor, dim: int | None = None) -> Tensor:
        check_tensors("cross", input=input, other=other)
        shape = input._array.shape
        if dim is None and 3 not in shape:
            raise RuntimeError(f"cross: no dimension of size 3 in input {tuple(shape)}")
        axis = shape.index(3) if dim is None else normal_dim(dim, len(shape))
        if shape[axis] != 3 or other._array.shape[axis] != 3:
            raise RuntimeError(
                f"cross: inputs dimension {axis} must have length 3, got {tuple(shape)}"
            )
        a, b = promote_operands(input, other)
        if shape != other._array.shape:
            a, b = broadcast_tensors(a, b)
        return Cross.apply(a, b, axis - len(shape))

    def forward(ctx, a: np.ndarray, b: np.ndarray, dim: int) -> np.ndarray:
        ctx.save(a, b, dim)
        a1, a2, b1, b2 = (x.take(order, dim) for x in (a, b) for order in ((1, 2, 0), (2, 0, 1)))
        return a1 * b2 - a2 * b1

    @staticmethod
    def cell(a: np.ndarray, b: np.ndarray, dim: int) -> str:
        place = PLACE[a.ndim + dim]
        one, two = (along(a.ndim, [dim], f"({place} + {n}) % 3") for n in (1, 2))
        return f"{at('a', one)} * {at('b', two)} - {at('a', two)} * {at('b', one)}"

    def backward(ctx, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b, dim = ctx.saved
        to_a, to_b = ctx.needs_input_grad[:2]
        return Cross.apply(b, dy, dim) if to_a else None, Cross.apply(dy, a, dim) if to_b else None

    @staticmethod
    def decomposition(a: Tensor, b: Tensor, dim: int) -> Tensor:
        a1, a2, b1, b2 = (t.roll(-k, dim) for t in (a, b) for k in (1, 2))
        return a1 * b2 - a2 * b1

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2, 3), rand(2, 3), 1
        yield rand(3, 2), rand(3, 2), 0
        yield rand(3), rand(3)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 4), rand(2, 4), 1


@composite(
    namespaces="torch",
    samples=lambda rand: [
        (rand(2, 3), rand(4, 3)),
        (rand(2, 2, 3), rand(4, 3), 1.0),
        (rand(2, 3), rand(4, 3), float("inf")),
    ],
    errors=lambda rand: [
        (rand(3), rand(2, 3)),
        (rand(2, 3), rand(2, 4)),
        (rand(2, 3), rand(2, 3), -1.0),
    ],
)
def cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str | None = None) -> Tensor:
    """y = the p-norm of every row of a minus every row of b: (*, P, M), (*, R, M) -> (*, P, R).

    The gradient is 0 where the rows are equal. `compute_mode` has no effect.
    """
    if min(x1._array.ndim, x2._array.ndim) < 2 or x1._array.shape[-1] != x2._array.shape[-1]:
        raise RuntimeError(
            f"cdist: expected matrices with as many columns, got {tuple(x1.shape)} and "
            f"{tuple(x2.shape)}"
        )
    if p < 0:
        raise RuntimeError(f"cdist: only supports non-negative p values, got {p}")
    return (x1.unsqueeze(-2) - x2.unsqueeze(-3)).norm(p, -1)


@composite(samples=lambda rand: [(rand(2, 3), rand(2, 3)), (rand(2, 3), rand(3), 1)])
def dist(input: Tensor, other: Tensor, p: float = 2) -> Tensor:
    """y = the p-norm of a - b: (*), (*) -> ()."""
    return (input - other).norm(p)
