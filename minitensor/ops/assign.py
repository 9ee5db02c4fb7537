"""Changes in place that write only what changes: `x[index] = value`, `copy_`, `fill_`, `scatter_`.

The other methods with a trailing underscore compute the whole result first (`autograd.inplace`). So
do these when an op is to be recorded; otherwise they write straight into memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd import check_writable
from ..autograd.inplace import in_place, overwritten
from ..core import Op, Tensor, attach, state, wrap
from ..dtype import DType
from ..errors import explain
from .convert import ToCopy, as_tensor, cast
from .gather import Scatter, scatter
from .index import GetItem, IndexPut, is_all, parse, put
from .samples import Rand, Samples
from .select import filling
from .shape import View


def change(
    name: str,
    target: Tensor,
    sources: tuple[Any, ...],
    compute: Callable[[Tensor], Tensor],
    write: Callable[[np.ndarray], None],
) -> Tensor:
    """Change `target` in place: by `compute` if it or `sources` are recorded, else by `write`."""
    if recorded(target, *sources):
        return in_place(name, target, compute)
    check_writable(name, target)
    write(target._array)
    target._bump()
    return target


def recorded(*tensors: Tensor) -> bool:
    """Return True if an op on these tensors becomes part of a graph or of a recording."""
    if any(observer.sees_writes for observer in state.observers):
        return True
    return state.grad and any(t.requires_grad for t in tensors)


NUMBERS = (int, float, np.number, np.bool_)


def number(op: str, value: Any, dtype: DType) -> Tensor:
    """Return a Python number as a 0-dim tensor of `dtype`, truncated if that is an integer type."""
    if not isinstance(value, NUMBERS):
        raise TypeError(f"{op}: expected a Tensor or a number, got {type(value).__name__}")
    try:
        return wrap(filling(value, dtype))
    except RuntimeError as error:
        raise RuntimeError(f"{op}: {error}") from None


class Copy(Op):
    """y = src, expanded to the shape of x and in its type: (*), (*) -> (*).  dx = 0, dsrc = dy."""

    namespaces = ""
    torch_name = None
    broadcasts = True

    def forward(ctx, x: np.ndarray, src: np.ndarray) -> np.ndarray:
        try:
            return np.broadcast_to(src.astype(x.dtype, copy=False), x.shape)
        except ValueError:
            raise RuntimeError(
                f"a tensor of shape {tuple(src.shape)} does not broadcast to the shape "
                f"{tuple(x.shape)} that it is to be copied to"
            ) from None

    @staticmethod
    def cell(x: np.ndarray, src: np.ndarray) -> str:
        return ToCopy.cell(src, x.dtype).replace("x", "src")

    def backward(ctx, dy: Tensor) -> tuple[Tensor | None, Tensor]:
        needs_x, _ = ctx.needs_input_grad
        return wrap(np.zeros_like(dy._array)) if needs_x else None, dy

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2, 3), rand(3)
        yield rand.constant(2, 3), rand(2, 1)


def assign(name: str, target: Tensor, src: Tensor) -> Tensor:
    """Replace the values of `target` by those of `src`, which is broadcast and converted."""

    def compute(t: Tensor) -> Tensor:
        # Through a view, the history of the base already loses the part that is replaced.
        return Copy.apply(t if target._base is None else t.detach(), src)

    def write(array: np.ndarray) -> None:
        if src._array.shape == array.shape or not src._array.shape:
            np.copyto(array, src._array, casting="unsafe")
        else:
            np.copyto(array, Copy().forward(array, src._array))

    return change(name, target, (src,), compute, write)


def _copy(self: Tensor, src: Any, non_blocking: bool = False) -> Tensor:
    """Take the values of `src`, broadcast to this shape and converted to this type."""
    if not isinstance(src, Tensor):
        src = number("copy_", src, self._array.dtype)
    return assign("copy", self, src)


def _fill(self: Tensor, value: Any) -> Tensor:
    """Set every element to `value`, a number or a 0-dim tensor."""
    if not isinstance(value, Tensor):
        value = number("fill_", value, self._array.dtype)
    elif value._array.ndim:
        raise RuntimeError(
            "fill_: only supports 0-dimension value tensor but got tensor with "
            f"{value._array.ndim} dimensions."
        )
    return assign("fill", self, value)


def _zero(self: Tensor) -> Tensor:
    """Set every element to 0."""
    return assign("zero", self, number("zero_", 0, self._array.dtype))


def _setitem(self: Tensor, index: Any, value: Any) -> None:
    """`x[index] = value`, where value is a number or a tensor that broadcasts to `x[index]`.

    Where an index names an element twice, the last value stays. Gradients flow to the value; the
    replaced elements get none.
    """
    try:
        _set(self, index, value)
    except (RuntimeError, IndexError) as error:
        raise explain("setitem", error, (self, value)) from error


def _set(self: Tensor, index: Any, value: Any) -> None:
    dtype = self._array.dtype
    key, picks = parse(index, self._array.shape)
    if not isinstance(value, Tensor):
        if not isinstance(value, NUMBERS):
            raise TypeError(f"can't assign a {type(value).__name__} to a Tensor: make it a tensor")
        value = number("setitem", value, dtype)
    elif picks and value._array.dtype != dtype:
        masked = len(picks) == 1 and picks[0]._array.dtype.kind == "b"
        if not masked or value._array.ndim:
            raise RuntimeError(
                "Index put requires the source and destination dtypes match, got "
                f"{dtype} for the destination and {value._array.dtype} for the source."
            )
        value = cast(value, dtype)
    shape = value._array.shape
    if shape and shape[0] == 1:  # leading dimensions of length 1 do not count
        first = next((d for d, n in enumerate(shape) if n != 1), len(shape))
        value = View.apply(value, shape=shape[first:])
    target = self
    if not is_all(key):
        if recorded(self, value):
            target = GetItem.apply(self, key=key)
        else:  # only the memory of the view is needed
            target = wrap(self._array[key])
            target._version_box = self._version_box
    if not picks:
        assign("setitem", target, value)
        return
    indices = tuple(None if p is None else p._array for p in picks)
    change(
        "setitem",
        target,
        (value,),
        lambda t: IndexPut.apply(t, value, *picks),
        lambda array: put(array, value._array, indices),
    )


def _scatter(
    self: Tensor,
    dim: int,
    index: Tensor,
    src: Any = None,
    *,
    value: Any = None,
    reduce: str | None = None,
) -> Tensor:
    """`scatter`, in place."""
    given = source = value if src is None else src

    def compute(t: Tensor) -> Tensor:
        return Scatter.call(t, dim, index, given, reduce=reduce)

    if reduce is not None or self._array.ndim == 0:
        return in_place("scatter", self, compute)
    if not isinstance(source, Tensor):
        source = number("scatter_", source, self._array.dtype)
    return change(
        "scatter",
        self,
        (source,),
        compute,
        lambda array: scatter(array, index._array, source._array, dim),
    )


def _fill_diagonal(self: Tensor, fill_value: float, wrap: bool = False) -> Tensor:
    """Set the elements whose indices are equal; with `wrap` a new diagonal begins below a square.

    RuntimeError for less than two dimensions, and for more of unequal lengths.
    """
    shape = self._array.shape
    if len(shape) < 2 or (len(shape) > 2 and len(set(shape)) > 1):
        raise RuntimeError(f"fill_diagonal_: expected a matrix or a cube, got {tuple(shape)}")
    value = number("fill_diagonal_", fill_value, self._array.dtype)
    mask = np.zeros(shape, np.bool_)
    np.fill_diagonal(mask, True, wrap)
    return change(
        "fill_diagonal",
        self,
        (),
        lambda t: t.masked_fill(as_tensor(mask), fill_value),
        lambda array: np.copyto(array, value._array, where=mask),
    )


def _apply(self: Tensor, callable: Callable[[Any], Any]) -> Tensor:
    """Replace each element by `callable` of it: a Python call each, so slow."""
    if self.requires_grad:
        raise TypeError("can't use apply_ on a tensor that requires grad: use x.detach().apply_()")
    check_writable("apply", self)
    found = np.array([callable(x) for x in self._array.reshape(-1).tolist()])
    self._array[...] = found.astype(self._array.dtype).reshape(self._array.shape)
    overwritten(self)
    return self


for _name, _method in {
    "apply_": _apply,
    "copy_": _copy,
    "fill_diagonal_": _fill_diagonal,
    "fill_": _fill,
    "zero_": _zero,
    "__setitem__": _setitem,
    "scatter_": _scatter,
}.items():
    attach("tensor", _name, _method)
