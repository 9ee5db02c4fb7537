"""Array: the elements of a tensor and their layout in memory.

The part of Tensor that has nothing to do with gradients. All of it looks at one NumPy array.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self, SupportsIndex, overload

import numpy as np

from .dtype import FLOATING, PUBLIC, dtype
from .names import spelt


class Array:
    """An n-dimensional array in `_array`, with PyTorch's names for its properties."""

    _array: np.ndarray
    requires_grad: bool  # of the Tensor

    @property
    def shape(self) -> Size:
        """The length of each dimension."""
        return Size(self._array.shape)

    @property
    def dtype(self) -> dtype:
        """The type of the elements, equal to NumPy's."""
        return PUBLIC[self._array.dtype]

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
        """Return the shape, or the length of dimension `dim`; IndexError if there is none."""
        if dim is None:
            return self.shape
        if not -self.ndim <= dim < max(self.ndim, 1):
            raise IndexError(
                f"size: dimension {dim} is out of range for a tensor of {self.ndim} dimensions"
            )
        return self._array.shape[dim]

    def dim(self) -> int:
        """Return the number of dimensions."""
        return self._array.ndim

    ndimension = dim

    def numel(self) -> int:
        """Return the number of elements."""
        return self._array.size

    nelement = numel

    def element_size(self) -> int:
        """Return the bytes per element."""
        return self._array.itemsize

    @overload
    def stride(self, dim: None = None) -> tuple[int, ...]: ...
    @overload
    def stride(self, dim: int) -> int: ...
    def stride(self, dim: int | None = None) -> tuple[int, ...] | int:
        """Return the elements to skip for one step along each dimension, or along `dim`."""
        strides = tuple(s // self._array.itemsize for s in self._array.strides)
        return strides if dim is None else strides[dim]

    def data_ptr(self) -> int:
        """Return the address of the first element."""
        return self._array.ctypes.data

    def is_contiguous(self, memory_format: Any = None) -> bool:
        """Return True if the elements lie in memory in row-major order without gaps."""
        return self._array.flags.c_contiguous

    def is_floating_point(self) -> bool:
        """Return True if the elements are float16, bfloat16, float32 or float64."""
        return self._array.dtype.kind in FLOATING

    def storage_offset(self) -> int:
        """Return the number of elements in the storage before the first of this tensor."""
        return (self.data_ptr() - self.storage().data_ptr()) // self._array.itemsize

    def storage(self) -> Storage:
        """Return the memory that this tensor shows a part of, counted in elements."""
        return Storage(self._array, self._array.itemsize)

    def untyped_storage(self) -> Storage:
        """Return the memory that this tensor shows a part of, counted in bytes."""
        return Storage(self._array, 1)

    def is_signed(self) -> bool:
        """Return True if the type has negative numbers."""
        return self._array.dtype.kind not in "ub"

    def is_set_to(self, other: Array) -> bool:
        """Return True if both show the same memory in the same way."""
        a, b = self._array, other._array
        return a.ctypes.data == b.ctypes.data and a.shape == b.shape and a.strides == b.strides

    def item(self) -> int | float | bool:
        """Return the only element as a Python number; RuntimeError if there is not exactly one."""
        if self._array.size != 1:
            raise RuntimeError(
                f"a Tensor with {self._array.size} elements cannot be converted to Scalar: "
                f"its shape is {tuple(self._array.shape)}"
            )
        return self._array.item()

    def tolist(self) -> Any:
        """Return the elements as nested Python lists, or a number for a 0-dim tensor."""
        return self._array.tolist()

    def numpy(self, *, force: bool = False) -> np.ndarray:
        """Return the array itself, sharing memory; with `force` also if the tensor requires grad.

        RuntimeError if it requires grad otherwise.
        """
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

    def __iter__(self) -> Iterator[Self]:
        if self._array.ndim == 0:
            raise TypeError("iteration over a 0-d tensor")
        return iter(self.unbind(0))  # type: ignore[attr-defined]  # an op

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

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self._array.ndim == 0 else object.__format__(self, spec)


class Storage:
    """The memory that tensors share: of a tensor, its views and what was detached from it."""

    def __init__(self, array: np.ndarray, itemsize: int) -> None:
        while isinstance(array.base, np.ndarray):
            array = array.base
        self._array, self._itemsize = array, itemsize

    def data_ptr(self) -> int:
        """Return the address of the first byte."""
        return self._array.ctypes.data

    def nbytes(self) -> int:
        """Return the number of bytes."""
        return self._array.nbytes

    def size(self) -> int:
        """Return the number of elements, or of bytes if it is untyped."""
        return self._array.nbytes // self._itemsize

    __len__ = size


class Size(tuple[int, ...]):
    """A shape: a tuple that can count its elements."""

    __slots__ = ()

    def numel(self) -> int:
        """Return the product of the lengths."""
        count = 1
        for length in self:
            count *= length
        return count

    def __repr__(self) -> str:
        return f"{spelt('Size')}({list(self)})"

    @overload
    def __getitem__(self, index: SupportsIndex) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Size: ...
    def __getitem__(self, index: Any) -> int | Size:
        found = tuple.__getitem__(self, index)
        return Size(found) if isinstance(index, slice) else found
