"""Tensor: an n-dimensional array that remembers the op that made it.

A Tensor wraps a NumPy array and adds what reverse-mode differentiation needs: whether a gradient is
wanted, where it came from (`grad_fn`), and a version counter shared by all views of one memory, by
which a change to a saved value is caught. It knows no op: each op attaches its own methods.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, SupportsIndex, overload

import numpy as np

from ..dtype import get_default_dtype

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..attached import Attached  # what the ops attach
    from ..dtype import DType
    from .op import Op

else:
    Attached = object

Edge = tuple["Op", int]  # the op that made a tensor, and which of its outputs the tensor is


class Tensor(Attached):
    """An n-dimensional array with a gradient; made by `minitensor.tensor`, `zeros`, `randn`, ..."""

    # Most tensors never change these, so they live on the class until they do.
    _array: np.ndarray
    _requires_grad: bool = False
    _grad: Tensor | None = None
    _edge: Edge | None = None  # None for a leaf
    _version_box: list[int] | None  # shared with views; None marks an inference tensor
    _base: Tensor | None = None  # the tensor whose memory a view shows
    _replay: tuple[Any, ...] = ()  # (that of the view's source, the step that made the view of it)
    _seen: int = 0  # the version at which a view's _edge was made
    _relaid: bool = False  # whether `_array` was replaced by one of another layout or memory
    _made: str = ""  # why a view cannot be changed with gradients; see `autograd.op.check_view`
    _hooks: dict[int, Callable[..., Any]] | None = None  # of a leaf; others keep theirs on the op
    _post_hooks: dict[int, Callable[..., Any]] | None = None

    def __init__(self, *data: Any) -> None:
        """`Tensor(2, 3)`: uninitialised float32 of that shape; `Tensor([1, 2])`: those values."""
        if len(data) == 1 and not isinstance(data[0], int):
            source = data[0]._array if isinstance(data[0], Tensor) else data[0]
            self._array = np.array(source, dtype=get_default_dtype())
        else:
            self._array = np.empty(data or (0,), get_default_dtype())
        self._version_box = [0]

    # What it is

    @property
    def shape(self) -> Size:
        """The length of each dimension."""
        return Size(self._array.shape)

    @property
    def dtype(self) -> DType:
        """The type of the elements, a `numpy.dtype`."""
        return self._array.dtype

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return self._array.ndim

    @property
    def itemsize(self) -> int:
        """Bytes per element."""
        return self._array.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self._array.nbytes

    @overload
    def size(self, dim: None = None) -> Size: ...
    @overload
    def size(self, dim: int) -> int: ...
    def size(self, dim: int | None = None) -> Size | int:
        """The shape, or the length of dimension `dim`; IndexError if there is no such dimension."""
        if dim is None:
            return self.shape
        if not -self.ndim <= dim < max(self.ndim, 1):
            raise IndexError(
                f"size: dimension {dim} is out of range for a tensor of {self.ndim} dimensions"
            )
        return self._array.shape[dim]

    def dim(self) -> int:
        """The number of dimensions."""
        return self._array.ndim

    def numel(self) -> int:
        """The number of elements."""
        return self._array.size

    nelement = numel

    def element_size(self) -> int:
        """Bytes per element."""
        return self._array.itemsize

    @overload
    def stride(self, dim: None = None) -> tuple[int, ...]: ...
    @overload
    def stride(self, dim: int) -> int: ...
    def stride(self, dim: int | None = None) -> tuple[int, ...] | int:
        """Elements to skip in memory for one step along each dimension, or along `dim`."""
        strides = tuple(s // self._array.itemsize for s in self._array.strides)
        return strides if dim is None else strides[dim]

    def data_ptr(self) -> int:
        """The address of the first element."""
        return self._array.ctypes.data

    def is_contiguous(self) -> bool:
        """Whether the elements lie in memory in row-major order without gaps."""
        return self._array.flags.c_contiguous

    def is_floating_point(self) -> bool:
        """Whether the elements are float16, float32 or float64."""
        return self._array.dtype.kind == "f"

    def item(self) -> int | float | bool:
        """The only element as a Python number; RuntimeError if there is not exactly one."""
        if self._array.size != 1:
            raise RuntimeError(
                f"a Tensor with {self._array.size} elements cannot be converted to Scalar: "
                f"its shape is {tuple(self._array.shape)}"
            )
        return self._array.item()

    def tolist(self) -> Any:
        """The elements as nested Python lists, or a number for a 0-dim tensor."""
        return self._array.tolist()

    def numpy(self, *, force: bool = False) -> np.ndarray:
        """The array itself, sharing memory; RuntimeError if it requires grad, unless `force`."""
        if self.requires_grad and not force:
            raise RuntimeError(
                "Can't call numpy() on Tensor that requires grad. "
                "Use tensor.detach().numpy() instead."
            )
        return self._array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.numpy()
        if dtype is not None and array.dtype != dtype:
            return array.astype(dtype)
        return array.copy() if copy else array

    __array_priority__ = 1000  # array + tensor asks the tensor

    def __len__(self) -> int:
        if self._array.ndim == 0:
            raise TypeError("len() of a 0-d tensor")
        return self._array.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if self._array.ndim == 0:
            raise TypeError("iteration over a 0-d tensor")
        return iter(self.unbind(0))

    def __bool__(self) -> bool:
        if self._array.size != 1:
            word = "no values" if self._array.size == 0 else "more than one value"
            raise RuntimeError(f"Boolean value of Tensor with {word} is ambiguous")
        return bool(self._array.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self._array.dtype.kind not in "iub" or self._array.size != 1:
            raise TypeError("only integer tensors of a single element can be converted to an index")
        return int(self._array.item())

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        from ..formatting import tensor_repr  # only who prints pays for the printer

        return tensor_repr(self)

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self._array.ndim == 0 else object.__format__(self, spec)

    # What differentiation needs to know of it

    @property
    def requires_grad(self) -> bool:
        """Whether operations on this tensor are recorded for the backward pass."""
        return self._requires_grad or (self._base is not None and self._base._requires_grad)

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Ask for (or stop) gradients of a leaf; RuntimeError for a type that has none."""
        if requires_grad and self._array.dtype.kind != "f":
            raise RuntimeError(
                "only Tensors of floating point dtype can require gradients, "
                f"not {self._array.dtype}"
            )
        if not requires_grad and not self.is_leaf:
            raise RuntimeError(
                "you can only change requires_grad flags of leaf variables. "
                "If you want to use a computed variable in a subgraph that doesn't require "
                "differentiation use var_no_grad = var.detach()."
            )
        self._requires_grad = requires_grad
        return self

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded op made this tensor: the user did, or it needs no gradient."""
        return not self.requires_grad or self.edge() is None

    def edge(self) -> Edge | None:
        """The op output this tensor is, or None for a leaf.

        A view whose memory was changed in place since gets its history rebuilt from its base;
        RuntimeError if it is of a kind for which that is not possible.
        """
        base = self._base
        if base is not None and (base._requires_grad or (self._made and self._edge is not None)):
            box = self._version_box
            if box is not None and box[0] != self._seen:
                self._rebuild_history(base)
        return self._edge

    @property
    def grad_fn(self) -> Op | None:
        """The op that made this tensor; None for a leaf."""
        edge = self.edge()
        return None if edge is None else edge[0]

    @property
    def output_nr(self) -> int:
        """Which output of `grad_fn` this tensor is."""
        edge = self.edge()
        return 0 if edge is None else edge[1]

    @property
    def grad(self) -> Tensor | None:
        """The gradient that `backward` accumulated here; None until then. Same shape and dtype."""
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            if not isinstance(value, Tensor):
                raise TypeError(
                    f"assigned grad expected to be a Tensor or None but got {type(value)}"
                )
            if value._array.shape != self._array.shape:
                raise RuntimeError(
                    f"assigned grad has data of a different size: {tuple(value.shape)}, "
                    f"the tensor is {tuple(self.shape)}"
                )
            if value._array.dtype != self._array.dtype:
                raise RuntimeError(
                    f"assigned grad has data of a different type: {value.dtype}, "
                    f"the tensor is {self.dtype}"
                )
        self._grad = value

    @property
    def _version(self) -> int:
        """How often the memory was changed in place."""
        if self._version_box is None:
            raise RuntimeError("Inference tensors do not track version counter.")
        return self._version_box[0]

    def is_inference(self) -> bool:
        """Whether it was made in `inference_mode`, and so can never be part of a graph."""
        return self._version_box is None

    def _bump(self) -> None:
        """Note a change in place."""
        if self._version_box is not None:
            self._version_box[0] += 1

    @property
    def data(self) -> Tensor:
        """The same memory without history, and with a version counter of its own."""
        return wrap(self._array)

    @data.setter
    def data(self, value: Tensor) -> None:
        self._array = value._array
        self._relaid = True

    def detach(self) -> Tensor:
        """The same memory without history; changes in place are still noticed here."""
        out = wrap(self._array)
        out._version_box = self._version_box
        return out

    def detach_(self) -> Tensor:
        """Drop this tensor's history: it becomes a leaf that needs no gradient."""
        if self._base is not None:
            raise RuntimeError("Can't detach views in-place. Use detach() instead.")
        self._edge = None
        self._requires_grad = False
        return self

    def is_set_to(self, other: Tensor) -> bool:
        """Whether both show the same memory in the same way."""
        a, b = self._array, other._array
        return a.ctypes.data == b.ctypes.data and a.shape == b.shape and a.strides == b.strides

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if not self.is_leaf:
            raise RuntimeError(
                "Only Tensors created explicitly by the user (graph leaves) support the deepcopy "
                "protocol at the moment; use x.detach().clone() for a copy of a computed tensor."
            )
        if id(self) in memo:
            return memo[id(self)]
        out = wrap(self._array.copy(), type(self))
        out._requires_grad = self.requires_grad
        if self._grad is not None:
            out._grad = wrap(self._grad._array.copy())
        memo[id(self)] = out
        return out

    def __reduce__(self) -> Any:
        return (_rebuild, (type(self), self._array, self._requires_grad))


class Size(tuple[int, ...]):
    """A shape: a tuple that can count its elements."""

    __slots__ = ()

    def numel(self) -> int:
        """The product of the lengths."""
        count = 1
        for length in self:
            count *= length
        return count

    def __repr__(self) -> str:
        return f"minitensor.Size({list(self)})"

    @overload
    def __getitem__(self, index: SupportsIndex) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Size: ...
    def __getitem__(self, index: Any) -> int | Size:
        found = tuple.__getitem__(self, index)
        return Size(found) if isinstance(index, slice) else found


def wrap(array: np.ndarray, kind: type[Tensor] = Tensor) -> Any:
    """A leaf tensor over `array`, without a copy."""
    out = object.__new__(kind)
    out._array = array
    out._version_box = [0]
    return out


def _rebuild(kind: type[Tensor], array: np.ndarray, requires_grad: bool) -> Tensor:
    out = wrap(array, kind)
    out._requires_grad = requires_grad
    return out
