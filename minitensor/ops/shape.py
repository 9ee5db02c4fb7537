"""The shape of a tensor: views of the same memory in other dimensions.

Only `reshape` and `flatten` may copy. The derivatives are views too: dx is dy in the shape of x. In
all ops, a negative `dim` counts from the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd import check_changeable, enable_grad, forget_base
from ..core import Op, Tensor, attach
from ..dtype import DType, as_dtype
from .checks import check_tensors, full_shape, ints, normal_dim, normal_dims
from .composite import composite
from .samples import Rand, Samples, strided


class View(Op):
    """y = the elements of x, row by row, in another shape; one length may be -1: (*) -> `size`.

    dx = dy in the shape of x. RuntimeError if that needs a copy, as after most transpositions:
    `reshape` makes one. `view(dtype)` gives the same bits as elements of another type, without a
    gradient.
    """

    namespaces = "tensor"
    view = True
    moves = ("x",)

    @staticmethod
    def call(input: Tensor, *sizes: Any, size: Any = None, dtype: Any = None) -> Tensor:
        if len(sizes) == 1 and not isinstance(sizes[0], (int, tuple, list)):
            dtype = dtype if hasattr(type(sizes[0]), "__index__") else sizes[0]
        if dtype is not None:
            return bits(input, as_dtype(dtype))
        if not sizes and size is None:
            raise TypeError("view: expected the lengths of the new shape")
        return View.apply(input, shape=ints(sizes, size))

    def forward(ctx, x: np.ndarray, *, shape: tuple[int, ...]) -> np.ndarray:
        ctx.save(x.shape)
        full = full_shape(shape, x.size)
        if x.flags.c_contiguous:
            return x.reshape(full)
        try:
            return x.reshape(full, copy=False)
        except ValueError:
            strides = [s // x.itemsize for s in x.strides]
            raise RuntimeError(
                "view size is not compatible with input tensor's size and stride (at least one "
                "dimension spans across two contiguous subspaces): "
                f"{tuple(x.shape)} with strides {tuple(strides)} as {full}. "
                "Use .reshape(...) instead."
            ) from None

    def backward(ctx, dy: Tensor) -> Tensor:
        return dy.reshape(ctx.saved[0])

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2, 6), 3, -1
        yield rand(2, 6), (2, 3, 2)
        yield rand(1), ()
        yield rand(0, 3), 3, 0
        yield strided(rand(2, 3, 4)), 3, 2, 2, 2

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 3), 5
        yield rand(2, 3), 4, -1
        yield rand(2, 3), -1, -1
        yield rand(2, 3), -2, 3
        yield rand(0, 3), 0, -1
        yield rand(2, 3), 2.0, 3
        yield (rand(2, 3),)


def bits(input: Tensor, dtype: DType) -> Tensor:
    """Return the same memory as elements of another type; the last length scales with its size.

    RuntimeError if that length or the strides do not allow it.
    """
    x = input._array
    if dtype.itemsize != x.itemsize:
        told = f"to view {x.dtype} as {dtype} (different element sizes)"
        if not x.ndim:
            raise RuntimeError(f"self.dim() cannot be 0 {told}")
        if x.strides[-1] != x.itemsize:
            raise RuntimeError(f"view: self.stride(-1) must be 1 {told}, got {input.stride(-1)}")
        if (x.shape[-1] * x.itemsize) % dtype.itemsize:
            raise RuntimeError(
                f"view: self.size(-1) must be divisible by {dtype.itemsize // x.itemsize} {told}, "
                f"got {x.shape[-1]}"
            )
        if any(stride % dtype.itemsize for stride in x.strides[:-1]):
            raise RuntimeError(f"view: the strides {input.stride()} must be divisible {told}")
    out = input.detach()  # it sees and counts the changes in place
    out._array = x.view(dtype)
    return out


class Reshape(Op):
    """y = `view` where the memory allows it, else a copy: (*) -> `shape`.  dx = dy, reshaped."""

    view = True
    moves = ("x",)

    @staticmethod
    def call(input: Tensor, *sizes: Any, shape: Any = None) -> Tensor:
        return Reshape.apply(input, shape=ints(sizes, shape))

    def forward(ctx, x: np.ndarray, *, shape: tuple[int, ...]) -> np.ndarray:
        ctx.save(x.shape)
        return x.reshape(full_shape(shape, x.size))

    def backward(ctx, dy: Tensor) -> Tensor:
        return dy.reshape(ctx.saved[0])

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2, 6), (3, -1)
        yield strided(rand(2, 3, 4)), (6, 4)
        yield rand(), (1, 1)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 3), (5,)
        yield rand(2, 3), (2.0, 3)


View.relaxed = Reshape


@composite(
    samples=lambda rand: [
        (rand(2, 3, 4),),
        (rand(2, 3, 4), 1),
        (rand(2, 3, 4), 0, 1),
        (rand(),),
        (rand(0, 3),),
    ],
    errors=lambda rand: [(rand(2, 3), 1, 0), (rand(2, 3), 2)],
)
def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Merge dimensions `start_dim` to `end_dim`: (a, b, c, d) -> (a, b * c, d) for 1 to 2."""
    shape = input._array.shape
    start, end = normal_dim(start_dim, len(shape)), normal_dim(end_dim, len(shape))
    if start > end:
        raise RuntimeError(
            f"flatten: start_dim {start_dim} cannot come after end_dim {end_dim} "
            f"in a tensor of {len(shape)} dimensions"
        )
    if start == end and shape:
        return input
    size = 1
    for n in shape[start : end + 1]:
        size *= n
    return Reshape.apply(input, shape=(*shape[:start], size, *shape[end + 1 :]))


@composite(
    samples=lambda rand: [(rand(2, 6, 2), 1, (2, 3)), (rand(2, 6), -1, (-1, 2))],
    errors=lambda rand: [(rand(2, 6), 1, (4, 2)), (rand(2, 6), 2, (2, 3)), (rand(), 0, (1,))],
)
def unflatten(input: Tensor, dim: int, sizes: Any) -> Tensor:
    """Split dimension `dim` into several, one may be -1: (a, b * c, d) -> (a, b, c, d)."""
    shape = input._array.shape
    dim = normal_dim(dim, len(shape))
    if not shape:
        raise RuntimeError(f"unflatten: dimension {dim} of a tensor that has no dimensions")
    if len(sizes) == 0:
        raise RuntimeError("unflatten: sizes must be non-empty")
    try:
        new = full_shape(ints(tuple(sizes)), shape[dim])
    except RuntimeError:
        raise RuntimeError(
            f"unflatten: Provided sizes {list(sizes)} don't multiply up to the size of "
            f"dim {dim} ({shape[dim]}) in the input tensor"
        ) from None
    return View.apply(input, shape=(*shape[:dim], *new, *shape[dim + 1 :]))


class Transpose(Op):
    """y = x with two dimensions swapped: (a, b, c) -> (a, c, b) for 1 and 2.  dx likewise."""

    aliases = ("swapdims",)
    view = True
    moves = ("x",)

    @staticmethod
    def call(input: Tensor, dim0: int, dim1: int) -> Tensor:
        return Transpose.apply(input, dim0, dim1)

    def forward(ctx, x: np.ndarray, dim0: int, dim1: int) -> np.ndarray:
        a, b = normal_dim(dim0, x.ndim), normal_dim(dim1, x.ndim)
        ctx.save(a, b)
        return x.swapaxes(a, b) if x.ndim else x

    def backward(ctx, dy: Tensor) -> Tensor:
        a, b = ctx.saved
        return Transpose.apply(dy, a, b)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2, 3, 4), 1, 2
        yield rand(2, 3, 4), -1, 0
        yield rand(), 0, -1

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 3), 0, 2


class Permute(Op):
    """y = x with its dimensions in another order, y.shape[i] = x.shape[dims[i]].

    dx = dy in the inverse order.
    """

    view = True
    moves = ("x",)

    @staticmethod
    def call(input: Tensor, *order: Any, dims: Any = None) -> Tensor:
        return Permute.apply(input, dims=ints(order, dims))

    def forward(ctx, x: np.ndarray, *, dims: tuple[int, ...]) -> np.ndarray:
        if len(dims) != x.ndim:
            raise RuntimeError(f"{len(dims)} dims {dims} given for a tensor of {x.ndim} dimensions")
        order = normal_dims(dims, x.ndim)
        ctx.save(order)
        return x.transpose(order)

    def backward(ctx, dy: Tensor) -> Tensor:
        (order,) = ctx.saved
        inverse = [0] * len(order)
        for i, d in enumerate(order):
            inverse[d] = i
        return Permute.apply(dy, dims=tuple(inverse))

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2, 3, 4), (2, 0, 1)
        yield rand(2, 3, 4), (0, -1, 1)
        yield rand(), ()

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 3), (0,)
        yield rand(2, 3), (0, 0)
        yield rand(2, 3), (0, 2)


@composite(
    aliases=("moveaxis",),
    samples=lambda rand: [
        (rand(2, 3, 4), 0, -1),
        (rand(2, 3, 4, 5), (0, 1), (2, 0)),
        (rand(), 0, -1),
    ],
    errors=lambda rand: [
        (rand(2, 3), (0, 1), (1,)),
        (rand(2, 3), (0, 0), (1, 0)),
        (rand(2, 3), 0, 2),
    ],
)
def movedim(input: Tensor, source: Any, destination: Any) -> Tensor:
    """Move dimension `source` to position `destination`, the others stay in order; or lists."""
    ndim = input._array.ndim
    start, end = normal_dims(source, ndim), normal_dims(destination, ndim)
    if len(start) != len(end):
        raise RuntimeError(
            f"movedim: source {list(start)} should contain the same number of dims as "
            f"destination {list(end)}"
        )
    if not ndim:
        return Permute.apply(input, dims=())
    order = [d for d in range(ndim) if d not in start]
    for to, d in sorted(zip(end, start, strict=True)):
        order.insert(to, d)
    return Permute.apply(input, dims=tuple(order))


class T(Op):
    """y = xᵀ of a matrix: (a, b) -> (b, a).  dx = dyᵀ. A vector or a scalar stays as it is."""

    op_name = "t"

    @staticmethod
    def call(input: Tensor) -> Tensor:
        if not isinstance(input, Tensor):
            check_tensors("t", input=input)
        ndim = input._array.ndim
        if ndim > 2:
            raise RuntimeError(
                f"t: expects a tensor with <= 2 dimensions, but self is {ndim}D: "
                f"{tuple(input.shape)}. Say which dimensions with .transpose(dim0, dim1)."
            )
        return Transpose.apply(input, 0, 1) if ndim == 2 else input

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield (rand(2, 3),)
        yield (rand(3),)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield (rand(2, 3, 4),)


def _reversed_dims(self: Tensor) -> Tensor:
    """Return the dimensions in reverse order: the transpose of a matrix."""
    return Permute.apply(self, dims=tuple(range(self._array.ndim))[::-1])


def _matrix_transpose(self: Tensor) -> Tensor:
    """Return the last two dimensions swapped; RuntimeError if there are not two."""
    if self._array.ndim < 2:
        raise RuntimeError(
            "tensor.mT is only supported on matrices or batches of matrices. "
            f"Got {self._array.ndim}-D tensor."
        )
    return Transpose.apply(self, -2, -1)


attach("tensor", "T", property(_reversed_dims))
attach("tensor", "mT", property(_matrix_transpose))
attach("tensor", "H", property(T.call))


class Squeeze(Op):
    """y = x without dimensions of length 1, or those among `dim`: (a, 1, b, 1) -> (a, b).

    dx = dy in the shape of x.
    """

    view = True
    moves = ("x",)

    @staticmethod
    def call(input: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
        return Squeeze.apply(input, dim)

    def forward(ctx, x: np.ndarray, dim: Any) -> np.ndarray:
        ctx.save(x.shape)
        dims = range(x.ndim) if dim is None else normal_dims(dim, x.ndim)
        return x.reshape([n for d, n in enumerate(x.shape) if n != 1 or d not in dims])

    def backward(ctx, dy: Tensor) -> Tensor:
        return View.apply(dy, shape=ctx.saved[0])

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield (rand(2, 1, 3, 1),)
        yield rand(2, 1, 3, 1), 1
        yield rand(2, 1, 3, 1), 0
        yield rand(2, 1, 3, 1), (-1, 1)
        yield rand(), 0

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 1), 2
        yield rand(2, 1), (1, 1)


class Unsqueeze(Op):
    """y = x with a dimension of length 1 inserted at `dim`: (a, b) -> (a, 1, b) for dim 1.

    dx = dy without it.
    """

    view = True
    moves = ("x",)

    @staticmethod
    def call(input: Tensor, dim: int) -> Tensor:
        return Unsqueeze.apply(input, dim)

    def forward(ctx, x: np.ndarray, dim: int) -> np.ndarray:
        dim = normal_dim(dim, x.ndim + 1)
        ctx.save(dim)
        key: tuple[Any, ...] = (slice(None),) * dim
        return x[*key, None]

    def backward(ctx, dy: Tensor) -> Tensor:
        return Squeeze.apply(dy, *ctx.saved)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2, 3), 1
        yield rand(2, 3), -1
        yield rand(), 0

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 3), 3


def permuted(t: Tensor, order: list[int]) -> Tensor:
    """Return a tensor with its dimensions in this order; itself if they are so already."""
    return t if order == list(range(len(order))) else t.permute(order)


def shaped(t: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return an op's result in `shape`, not as a view."""
    return t if t._array.shape == shape else forget_base(t.reshape(shape))


# In place: the shape and strides of the tensor change, its memory does not


def _in_place(op: type[Op]) -> Any:
    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        check_changeable(op.op_name, self)
        with enable_grad():  # under no_grad too, since the values and their history stay
            out = op.call(self, *args, **kwargs)
        if out is self:
            return self
        if not self.is_leaf:
            self._edge = out._edge
        self._array = out._array
        self._relaid = True
        self._bump()
        if self._view is not None:
            self._view = out._view
            self._view.version = self._version if self._version_box else 0
        return self

    method.__name__ = f"{op.op_name}_"
    method.__doc__ = f"`{op.op_name}`, in place: this tensor shows its memory in another shape."
    method.__wrapped__ = op.call  # type: ignore[attr-defined]  # the signature shown is its own
    return method


for _op in (Squeeze, Unsqueeze, Transpose, T):
    attach("tensor", f"{_op.op_name}_", _in_place(_op))
