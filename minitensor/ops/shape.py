"""Views: ops that show the same memory in another shape. Nothing is copied, except where said.

Their gradient rules are views too. `dim` counts from the end when negative.
"""

from __future__ import annotations

import itertools
from operator import index as as_int
from typing import Any

import numpy as np

from ..autograd import Op
from ..tensor import Tensor

Samples = Any  # an iterator of argument tuples


def normal_dim(dim: Any, ndim: int) -> int:
    """`dim` counted from the front; IndexError if there is no such dimension."""
    size = max(ndim, 1)
    if not -size <= dim < size:
        raise IndexError(
            f"Dimension out of range (expected to be in range of "
            f"[{-size}, {size - 1}], but got {dim})"
        )
    return as_int(dim) % size


def normal_dims(dims: Any, ndim: int) -> tuple[int, ...]:
    """Each of `dims` (or the one) counted from the front; RuntimeError if one appears twice."""
    found = tuple(
        normal_dim(d, ndim) for d in (dims if isinstance(dims, tuple | list) else (dims,))
    )
    if len(set(found)) != len(found):
        raise RuntimeError(f"a dim appears multiple times in the list of dims {tuple(dims)}")
    return found


def ints(given: tuple[Any, ...], named: Any = None) -> tuple[int, ...]:
    """The integers of `f(2, 3)`, `f((2, 3))` or `f(name=(2, 3))`; TypeError for anything else."""
    if named is not None:
        given = named
    elif len(given) == 1 and isinstance(given[0], tuple | list):
        given = given[0]
    try:
        return tuple(map(as_int, given))
    except TypeError:
        raise TypeError(f"expected integers, got {given!r}") from None


def strided(x: Tensor) -> Tensor:
    """The leaf `x` with its first two dimensions swapped in place: a sample without row-major order."""
    x._array = x._array.swapaxes(0, 1)
    return x


def full_shape(shape: tuple[int, ...], numel: int) -> tuple[int, ...]:
    """`shape` with its one -1 worked out; RuntimeError if it cannot hold `numel` elements."""
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


class View(Op):
    """The elements of x, row by row, in another shape, one length of which may be -1: (*) -> `size`.

    RuntimeError if that needs a copy, as after most transpositions: `reshape` then makes one.
    """

    spaces = "tensor"
    view = True

    @staticmethod
    def call(input: Tensor, *sizes: Any, size: Any = None) -> Tensor:
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
    def samples(rand: Any) -> Samples:
        yield rand(2, 6), 3, -1
        yield rand(2, 6), (2, 3, 2)
        yield rand(1), ()
        yield rand(0, 3), 3, 0
        yield strided(rand(2, 3, 4)), 3, 2, 2, 2

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand(2, 3), 5
        yield rand(2, 3), 4, -1
        yield rand(2, 3), -1, -1
        yield rand(2, 3), -2, 3
        yield rand(0, 3), 0, -1
        yield rand(2, 3), 2.0, 3
        yield (rand(2, 3),)


class Reshape(Op):
    """`view` where the memory allows it, else a copy: (*) -> `shape`."""

    view = True

    @staticmethod
    def call(input: Tensor, *sizes: Any, shape: Any = None) -> Tensor:
        return Reshape.apply(input, shape=ints(sizes, shape))

    def forward(ctx, x: np.ndarray, *, shape: tuple[int, ...]) -> np.ndarray:
        ctx.save(x.shape)
        return x.reshape(full_shape(shape, x.size))

    def backward(ctx, dy: Tensor) -> Tensor:
        return dy.reshape(ctx.saved[0])

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand(2, 6), (3, -1)
        yield strided(rand(2, 3, 4)), (6, 4)
        yield rand(), (1, 1)

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand(2, 3), (5,)
        yield rand(2, 3), (2.0, 3)


class ViewAs(Op):
    """`view` in the shape of `other`: (*), (o) -> (o)."""

    spaces = "tensor"

    @staticmethod
    def call(input: Tensor, other: Tensor) -> Tensor:
        return View.apply(input, shape=other._array.shape)

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand(2, 3), rand.constant(6)


class ReshapeAs(Op):
    """`reshape` to the shape of `other`: (*), (o) -> (o)."""

    spaces = "tensor"

    @staticmethod
    def call(input: Tensor, other: Tensor) -> Tensor:
        return Reshape.apply(input, shape=other._array.shape)

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand(2, 3), rand.constant(6)


class Flatten(Op):
    """Dimensions `start_dim` to `end_dim` as one: (a, b, c, d) -> (a, b * c, d)."""

    @staticmethod
    def call(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
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

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield (rand(2, 3, 4),)
        yield rand(2, 3, 4), 1
        yield rand(2, 3, 4), 0, 1
        yield (rand(),)
        yield (rand(0, 3),)

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand(2, 3), 1, 0
        yield rand(2, 3), 2


class Ravel(Op):
    """All elements in one dimension: (*) -> (n)."""

    @staticmethod
    def call(input: Tensor) -> Tensor:
        return Reshape.apply(input, shape=(-1,) if input._array.size else (0,))

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield (rand(2, 3),)
        yield (rand(0, 3),)


class Unflatten(Op):
    """Dimension `dim` as several, one of which may be -1: (a, b * c, d) -> (a, b, c, d)."""

    @staticmethod
    def call(input: Tensor, dim: int, sizes: Any) -> Tensor:
        shape = input._array.shape
        dim = normal_dim(dim, len(shape))
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

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand(2, 6, 2), 1, (2, 3)
        yield rand(2, 6), -1, (-1, 2)

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand(2, 6), 1, (4, 2)
        yield rand(2, 6), 2, (2, 3)


class Transpose(Op):
    """Two dimensions swapped: (a, b, c) -> (a, c, b) for dims 1 and 2."""

    aliases = ("swapaxes", "swapdims")
    view = True

    def forward(ctx, x: np.ndarray, dim0: int, dim1: int) -> np.ndarray:
        a, b = normal_dim(dim0, x.ndim), normal_dim(dim1, x.ndim)
        ctx.save(a, b)
        return x.swapaxes(a, b) if x.ndim else x

    def backward(ctx, dy: Tensor) -> Tensor:
        a, b = ctx.saved
        return Transpose.apply(dy, a, b)

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand(2, 3, 4), 1, 2
        yield rand(2, 3, 4), -1, 0
        yield rand(), 0, -1

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand(2, 3), 0, 2


class Permute(Op):
    """The dimensions in another order, y.shape[i] = x.shape[dims[i]]."""

    view = True

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
    def samples(rand: Any) -> Samples:
        yield rand(2, 3, 4), (2, 0, 1)
        yield rand(2, 3, 4), (0, -1, 1)
        yield rand(), ()

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand(2, 3), (0,)
        yield rand(2, 3), (0, 0)
        yield rand(2, 3), (0, 2)


class Movedim(Op):
    """Dimension `source` moved to place `destination`, the others in order; one each or lists."""

    aliases = ("moveaxis",)

    @staticmethod
    def call(input: Tensor, source: Any, destination: Any) -> Tensor:
        ndim = input._array.ndim
        start, end = normal_dims(source, ndim), normal_dims(destination, ndim)
        if len(start) != len(end):
            raise RuntimeError(
                f"movedim: source {list(start)} should contain the same number of dims as "
                f"destination {list(end)}"
            )
        order = [d for d in range(ndim) if d not in start]
        for to, d in sorted(zip(end, start, strict=True)):
            order.insert(to, d)
        return Permute.apply(input, dims=tuple(order))

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand(2, 3, 4), 0, -1
        yield rand(2, 3, 4, 5), (0, 1), (2, 0)

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand(2, 3), (0, 1), (1,)
        yield rand(2, 3), (0, 0), (1, 0)
        yield rand(2, 3), 0, 2


class T(Op):
    """The transpose of a matrix: (a, b) -> (b, a). A vector or a number stays as it is."""

    title = "t"

    @staticmethod
    def call(input: Tensor) -> Tensor:
        ndim = input._array.ndim
        if ndim > 2:
            raise RuntimeError(
                f"t: expects a tensor with <= 2 dimensions, but self is {ndim}D: "
                f"{tuple(input.shape)}. Say which dimensions with .transpose(dim0, dim1)."
            )
        return Transpose.apply(input, 0, 1) if ndim == 2 else input

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield (rand(2, 3),)
        yield (rand(3),)

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield (rand(2, 3, 4),)


def _reversed_dims(self: Tensor) -> Tensor:
    """The dimensions in reverse order: the transpose of a matrix."""
    return Permute.apply(self, dims=tuple(range(self._array.ndim))[::-1])


def _matrix_transpose(self: Tensor) -> Tensor:
    """The last two dimensions swapped; RuntimeError if there are not two."""
    if self._array.ndim < 2:
        raise RuntimeError(
            "tensor.mT is only supported on matrices or batches of matrices. "
            f"Got {self._array.ndim}-D tensor."
        )
    return Transpose.apply(self, -2, -1)


Tensor.T = property(_reversed_dims)  # type: ignore[attr-defined]
Tensor.mT = property(_matrix_transpose)  # type: ignore[attr-defined]
Tensor.H = property(T.call)  # type: ignore[attr-defined]


class Squeeze(Op):
    """Without the dimensions of length 1, or those among `dim`: (a, 1, b, 1) -> (a, b)."""

    view = True

    def forward(ctx, x: np.ndarray, dim: Any = None) -> np.ndarray:
        ctx.save(x.shape)
        dims = range(x.ndim) if dim is None else normal_dims(dim, x.ndim)
        return x.reshape([n for d, n in enumerate(x.shape) if n != 1 or d not in dims])

    def backward(ctx, dy: Tensor) -> Tensor:
        return View.apply(dy, shape=ctx.saved[0])

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield (rand(2, 1, 3, 1),)
        yield rand(2, 1, 3, 1), 1
        yield rand(2, 1, 3, 1), 0
        yield rand(2, 1, 3, 1), (-1, 1)
        yield rand(), 0

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand(2, 1), 2
        yield rand(2, 1), (1, 1)


class Unsqueeze(Op):
    """With a dimension of length 1 put in at `dim`: (a, b) -> (a, 1, b) for dim 1."""

    view = True

    def forward(ctx, x: np.ndarray, dim: int) -> np.ndarray:
        dim = normal_dim(dim, x.ndim + 1)
        ctx.save(dim)
        return np.expand_dims(x, dim)

    def backward(ctx, dy: Tensor) -> Tensor:
        return Squeeze.apply(dy, *ctx.saved)

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand(2, 3), 1
        yield rand(2, 3), -1
        yield rand(), 0

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand(2, 3), 3


class Expand(Op):
    """Dimensions of length 1 repeated, and new ones in front; -1 keeps a length: (*) -> `size`.

    All repetitions are the same memory, so the result must not be changed in place.
    """

    spaces = "tensor"
    view = True
    broadcasts = True

    @staticmethod
    def call(input: Tensor, *sizes: Any, size: Any = None, implicit: bool = False) -> Tensor:
        return Expand.apply(input, size=ints(sizes, size))

    def forward(ctx, x: np.ndarray, *, size: tuple[int, ...]) -> np.ndarray:
        new = len(size) - x.ndim
        if new < 0:
            raise RuntimeError(
                f"the number of sizes provided ({len(size)}) must be greater or equal to the "
                f"number of dimensions in the tensor ({x.ndim})"
            )
        shape = list(size)
        for d, n in enumerate(size):
            if n < -1 or (n == -1 and d < new):
                raise RuntimeError(
                    f"a length of {n} isn't allowed in a leading, non-existing dimension {d}"
                )
            if d >= new:
                have = x.shape[d - new]
                if n == -1:
                    shape[d] = have
                elif have not in (1, n):
                    raise RuntimeError(
                        f"The expanded size of the tensor ({n}) must match the existing size "
                        f"({have}) at non-singleton dimension {d}. Target sizes: {list(size)}. "
                        f"Tensor sizes: {list(x.shape)}"
                    )
        y = np.broadcast_to(x, shape)
        y.flags.writeable = x.flags.writeable  # what may be written is decided by strides
        return y

    def backward(ctx, dy: Tensor) -> Tensor:
        return dy

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand(2, 1), (2, 3)
        yield rand(3), 2, -1
        yield rand(2, 1), (4, -1, 3)
        yield rand(), (2,)
        yield rand(2, 3), (2, 3)
        yield rand(1, 3), (0, 3)

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand(2, 3), (2, 4)
        yield rand(2, 3), (3,)
        yield rand(2, 3), (-1, 2, 3)


class ExpandAs(Op):
    """`expand` to the shape of `other`."""

    spaces = "tensor"

    @staticmethod
    def call(input: Tensor, other: Tensor) -> Tensor:
        return Expand.apply(input, size=other._array.shape)

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand(2, 1), rand.constant(2, 3)


class BroadcastTo(Op):
    """`expand` to `size`."""

    @staticmethod
    def call(input: Tensor, size: Any) -> Tensor:
        return Expand.apply(input, size=ints(tuple(size)))

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand(2, 1), (2, 3)


class BroadcastTensors(Op):
    """All tensors expanded to the shape they broadcast to."""

    spaces = "torch"

    @staticmethod
    def call(*tensors: Tensor) -> tuple[Tensor, ...]:
        try:
            shape = np.broadcast_shapes(*(t._array.shape for t in tensors))
        except ValueError:
            raise RuntimeError(
                f"broadcast_tensors: the shapes {[tuple(t.shape) for t in tensors]} do not "
                "broadcast: lengths must be equal or 1, counted from the last dimension"
            ) from None
        return tuple(Expand.apply(t, size=shape) for t in tensors)

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand(2, 1), rand(3)

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand(2), rand(3)


class Meshgrid(Op):
    """The coordinates of a grid: (a), (b), ... -> (a, b, ...) each; "xy" swaps the first two dims."""

    spaces = "torch"

    @staticmethod
    def call(*tensors: Any, indexing: str = "ij") -> tuple[Tensor, ...]:
        if len(tensors) == 1 and isinstance(tensors[0], tuple | list):
            tensors = tuple(tensors[0])
        if indexing not in ("ij", "xy"):
            raise RuntimeError(f'meshgrid: indexing must be "ij" or "xy", got {indexing!r}')
        for t in tensors:
            if t._array.ndim > 1:
                raise RuntimeError(
                    f"meshgrid: Expected 0D or 1D tensors, but got one of shape {tuple(t.shape)}"
                )
        count = len(tensors)
        places = list(range(count))
        if indexing == "xy" and count > 1:
            places[:2] = 1, 0
        shape = [1] * count
        for place, t in zip(places, tensors, strict=True):
            shape[place] = t._array.size
        grids = []
        for place, t in zip(places, tensors, strict=True):
            line = tuple(-1 if d == place else 1 for d in range(count))
            grids.append(Expand.apply(View.apply(t, shape=line), size=tuple(shape)))
        return tuple(grids)

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand(2), rand(3), dict(indexing="ij")
        yield rand(2), rand(3), rand(4), dict(indexing="xy")

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand(2), rand(2, 3), dict(indexing="ij")
        yield rand(2), rand(3), dict(indexing="ab")


class Unbind(Op):
    """The slices along `dim`, without it: (a, b) -> a tensors (b) for dim 0."""

    view = True

    def forward(ctx, x: np.ndarray, dim: int = 0) -> tuple[np.ndarray, ...]:
        if x.ndim == 0:
            raise IndexError(f"Dimension specified as {dim} but tensor has no dimensions")
        dim = normal_dim(dim, x.ndim)
        ctx.save(dim)
        before = (slice(None),) * dim
        return tuple(x[(*before, i, ...)] for i in range(x.shape[dim]))

    def backward(ctx, *dys: Tensor) -> Tensor:
        from .join import Stack

        return Stack.apply(*dys, dim=ctx.saved[0])

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield (rand(2, 3),)
        yield rand(2, 3), -1
        yield (rand(3),)

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield (rand(),)
        yield rand(2), 1


class SplitWithSizes(Op):
    """Consecutive parts of lengths `split_sizes` along `dim`."""

    view = True

    @staticmethod
    def call(input: Tensor, split_sizes: Any, dim: int = 0) -> tuple[Tensor, ...]:
        return SplitWithSizes.apply(input, sizes=ints(tuple(split_sizes)), dim=dim)

    def forward(ctx, x: np.ndarray, *, sizes: tuple[int, ...], dim: int) -> tuple[np.ndarray, ...]:
        if x.ndim == 0:
            raise RuntimeError("expects at least a 1-dimensional tensor")
        dim = normal_dim(dim, x.ndim)
        if min(sizes, default=0) < 0 or sum(sizes) != x.shape[dim]:
            raise RuntimeError(
                f"split_with_sizes expects split_sizes to sum exactly to {x.shape[dim]} (input "
                f"tensor's size at dimension {dim}), but got split_sizes={list(sizes)}"
            )
        ctx.save(dim)
        before, start, parts = (slice(None),) * dim, 0, []
        for n in sizes:
            parts.append(x[(*before, slice(start, start + n))])
            start += n
        return tuple(parts)

    def backward(ctx, *dys: Tensor) -> Tensor:
        from .join import Cat

        return Cat.apply(*dys, dim=ctx.saved[0])

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand(5, 2), (2, 3)
        yield rand(2, 5), (0, 2, 3), -1

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand(5), (2, 2)
        yield rand(5), (6, -1)
        yield rand(5), (5,), 1


class Split(Op):
    """Parts of length `split_size_or_sections` along `dim`, the last maybe shorter; or a list of lengths."""

    @staticmethod
    def call(tensor: Tensor, split_size_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
        if isinstance(split_size_or_sections, tuple | list):
            return SplitWithSizes.call(tensor, split_size_or_sections, dim)
        shape = tensor._array.shape
        if not shape:
            raise RuntimeError("split: expects at least a 1-dimensional tensor")
        size, total = as_int(split_size_or_sections), shape[normal_dim(dim, len(shape))]
        if size < 0 or (size == 0 and total):
            raise RuntimeError(
                f"split: expects a positive split_size, got {size} for a dimension of size {total}"
            )
        whole, rest = divmod(total, size) if size else (0, 0)
        sizes = (size,) * whole + ((rest,) if rest or not whole else ())
        return SplitWithSizes.apply(tensor, sizes=sizes, dim=dim)

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand(5, 2), 2
        yield rand(2, 4), 2, 1
        yield rand(2, 4), [1, 3], -1
        yield rand(0, 2), 0
        yield rand(0, 2), 3

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand(5), 0
        yield rand(5), -1
        yield rand(5), 2, 1
        yield rand(), 2


class Chunk(Op):
    """At most `chunks` parts along `dim`, all of one length but maybe the last."""

    @staticmethod
    def call(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
        shape = input._array.shape
        if not shape:
            raise RuntimeError("chunk: expects at least a 1-dimensional tensor")
        if chunks < 1:
            raise RuntimeError(f"chunk: expects `chunks` to be greater than 0, got: {chunks}")
        total = shape[normal_dim(dim, len(shape))]
        if total == 0:
            return SplitWithSizes.apply(input, sizes=(0,) * chunks, dim=dim)
        return Split.call(input, -(-total // chunks), dim)

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand(2, 6), 3, -1
        yield rand(5), 4
        yield rand(0, 2), 3

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand(5), 0
        yield rand(), 2


class TensorSplit(Op):
    """So many parts along `dim`, the first ones longer by one; or the parts between given indices."""

    @staticmethod
    def call(input: Tensor, indices_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
        shape = input._array.shape
        if not shape:
            raise RuntimeError("tensor_split: expects at least a 1-dimensional tensor")
        total = shape[normal_dim(dim, len(shape))]
        if isinstance(indices_or_sections, int):
            if indices_or_sections < 1:
                raise RuntimeError(
                    "tensor_split: number of sections must be larger than 0, "
                    f"got {indices_or_sections}"
                )
            length, longer = divmod(total, indices_or_sections)
            sizes = [length + (i < longer) for i in range(indices_or_sections)]
            return SplitWithSizes.apply(input, sizes=tuple(sizes), dim=dim)
        if isinstance(indices_or_sections, Tensor):
            indices_or_sections = indices_or_sections.tolist()
        bounds = [0, *indices_or_sections, total]
        return tuple(
            input[(*(slice(None),) * normal_dim(dim, len(shape)), slice(a, max(a, b)))]
            for a, b in itertools.pairwise(bounds)
        )

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield rand(5, 2), 3
        yield rand(2, 5), (1, 3), 1
        yield rand(2, 5), (3, 1, 7), 1

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield rand(5), 0
        yield rand(), 2


class Diagonal(Op):
    """The diagonal `offset` above the main one of dims `dim1` and `dim2`, as the last dimension."""

    view = True

    def forward(
        ctx, input: np.ndarray, offset: int = 0, dim1: int = 0, dim2: int = 1
    ) -> np.ndarray:
        x = input
        a, b = normal_dim(dim1, x.ndim), normal_dim(dim2, x.ndim)
        if a == b:
            raise RuntimeError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
        ctx.save(x.shape, offset, a, b)
        y = np.diagonal(x, offset, a, b)
        y.flags.writeable = x.flags.writeable
        return y

    def backward(ctx, dy: Tensor) -> Tensor:
        from .join import DiagonalScatter

        shape, offset, a, b = ctx.saved
        return DiagonalScatter.apply(dy, shape=shape, offset=offset, dim1=a, dim2=b)

    @staticmethod
    def samples(rand: Any) -> Samples:
        yield (rand(3, 3),)
        yield rand(3, 4), 1
        yield rand(3, 4), -2
        yield rand(2, 3, 4), 0, 2, 1
        yield rand(2, 2), 5

    @staticmethod
    def errors(rand: Any) -> Samples:
        yield (rand(3),)
        yield rand(3, 3), 0, 1, 1
