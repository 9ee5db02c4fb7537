"""Making tensors: from data, from a rule, like another tensor.

Sizes are given as `zeros(2, 3)`, `zeros((2, 3))` or `zeros(size=(2, 3))`. Every function takes
`dtype` (by default that of its data, or the default float type), `device` (the CPU) and
`requires_grad`.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from . import memory
from .autograd import is_inference_mode_enabled, taking_out
from .core import Size, Tensor, attach, state, wrap
from .devices import check_device
from .dtype import (
    FLOATING,
    NAMES,
    DType,
    DTypeLike,
    as_dtype,
    bfloat16,
    bool_,
    float32,
    get_default_dtype,
    int64,
    is_dtype,
    promote_types,
    scalar_dtype,
)
from .sharing import frombuffer, shared_array

__all__ = [
    "BFloat16Tensor",
    "BoolTensor",
    "ByteTensor",
    "CharTensor",
    "DoubleTensor",
    "FloatTensor",
    "HalfTensor",
    "IntTensor",
    "LongTensor",
    "ShortTensor",
    "arange",
    "as_tensor",
    "asarray",
    "empty",
    "empty_like",
    "eye",
    "from_numpy",
    "full",
    "full_like",
    "linspace",
    "ones",
    "ones_like",
    "scalar_tensor",
    "tensor",
    "tril_indices",
    "triu_indices",
    "zeros",
    "zeros_like",
]


_F = TypeVar("_F", bound=Callable[..., Any])


def method(function: _F) -> _F:
    """Attach the function to Tensor as a method."""
    attach("tensor", function.__name__, function)
    return function


def writing(rule: str) -> Callable[[_F], _F]:
    """Give the function an argument `out`; the rule is one of `taking_out`."""
    return lambda function: taking_out(function, rule)


def made(array: np.ndarray, device: Any, requires_grad: bool) -> Tensor:
    """Return a leaf over `array`."""
    if device is not None:
        check_device(device)
    out: Tensor = wrap(array)
    if requires_grad:
        out.requires_grad_()
    if is_inference_mode_enabled():
        out._version_box = None
    return out


def lengths(name: str, size: tuple[Any, ...], named: Any = None) -> tuple[int, ...]:
    """Return the lengths in `zeros(2, 3)`, `zeros((2, 3))` or `zeros(size=(2, 3))`."""
    given: Any = size
    if named is not None:
        given = named
    elif len(size) == 1 and isinstance(size[0], Sequence):
        given = size[0]
    elif not size:
        raise TypeError(f"{name}: missing the size")
    try:
        shape = tuple(map(operator.index, given))
    except TypeError:
        raise TypeError(f"{name}: expected integers as the size, got {given!r}") from None
    if any(length < 0 for length in shape):
        raise RuntimeError(f"{name}: a dimension cannot be negative: {shape}")
    return shape


def float_dtype(dtype: Any) -> DType:
    return get_default_dtype() if dtype is None else as_dtype(dtype)


# From data


_NUMBERS = {bool, int, float}


def _dtypes(data: Any) -> set[DType]:
    """Return the types of the numbers in nested sequences."""
    kinds = set(map(type, data))
    if kinds <= _NUMBERS:
        return {scalar_dtype(kind()) for kind in kinds}
    found: set[DType] = set()
    for x in data:
        if isinstance(x, list | tuple | range):
            found |= _dtypes(x)
        elif isinstance(x, Tensor):
            found.add(x._array.dtype)
        elif isinstance(x, np.ndarray | np.generic):
            found.add(x.dtype)
        elif isinstance(x, bool | int | float):
            found.add(scalar_dtype(x))
        elif isinstance(x, str | bytes):
            raise ValueError(f"tensor: cannot make a tensor of {type(x).__name__}")
        else:
            raise RuntimeError(f"tensor: could not infer the dtype of {type(x).__name__}")
    return found


def _plain(data: Any) -> Any:
    """Return nested sequences with numbers in place of the tensors in them."""
    if isinstance(data, Tensor):
        if data.numel() != 1:
            raise ValueError(
                "tensor: only one element tensors can be converted to Python scalars, not one of "
                f"shape {tuple(data.shape)}; use stack for tensors of more"
            )
        return data.item()
    if isinstance(data, list | tuple) and not set(map(type, data)) <= _NUMBERS:
        return [_plain(x) for x in data]
    return data


def _array(data: Any, dtype: Any) -> np.ndarray:
    """Return a new array of the values of `data`, in `dtype` or the type they have."""
    wanted = None if dtype is None else as_dtype(dtype)
    if isinstance(data, Tensor):
        return np.array(data._array, wanted)
    if isinstance(data, str | bytes):
        raise TypeError(f"tensor: cannot make a tensor of {type(data).__name__}")
    if isinstance(data, list | tuple | range):
        found = _dtypes(data)
        data = _plain(data)
        own = functools.reduce(promote_types, found) if found else get_default_dtype()
    elif isinstance(data, bool | int | float) and not isinstance(data, np.generic):
        own = scalar_dtype(data)
    elif hasattr(data, "__array__"):
        data = _known(shared_array(data))
        own = data.dtype
    elif isinstance(data, Sequence):
        return _array(list(data), dtype)
    else:
        raise RuntimeError(f"tensor: could not infer the dtype of {type(data).__name__}")
    kind = own if wanted is None else wanted
    try:
        return state.quietly(functools.partial(np.array, data, kind, order="C"))
    except OverflowError as error:
        if kind.kind == "u" and own.kind == "i":  # negative numbers wrap around
            wide = np.array(data, own)
            if np.abs(wide).max() <= np.iinfo(kind).max:
                return wide.astype(kind)
        how = ValueError if kind == int64 else RuntimeError
        raise how(f"tensor: a value does not fit in {kind}: {error}") from None
    except ValueError:
        raise ValueError("tensor: expected sequences of equal lengths in each dimension") from None


def _known(array: np.ndarray) -> np.ndarray:
    """Return `array`; TypeError or ValueError if a tensor cannot have its type or strides."""
    if not is_dtype(array.dtype):
        raise TypeError(
            f"cannot make a tensor of a NumPy array of {array.dtype}; the types are "
            f"{', '.join(NAMES)}"
        )
    if any(s < 0 for s in array.strides):
        raise ValueError(
            "a stride of the NumPy array is negative, which tensors do not support; "
            "pass a copy: array.copy()"
        )
    return array


def tensor(
    data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Return a new tensor of a number, nested sequences of numbers, or an array (which is copied).

    ValueError for sequences of unequal lengths, TypeError or RuntimeError for data that is not
    numeric.
    """
    return made(_array(data, dtype), device, requires_grad)


# By one of these an object shows NumPy its memory.
_ARRAYS = ("__array__", "__array_interface__", "__array_struct__")


def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """Return a tensor of `data`: a tensor as it is, or one that shares an array's memory.

    The array may be of another library, if that shares memory with NumPy.
    """
    if device is not None:
        check_device(device)
    if isinstance(data, Tensor):
        return data if dtype is None else data.to(as_dtype(dtype))
    if any(hasattr(data, name) for name in _ARRAYS):
        array = _known(shared_array(data))
        return made(
            array if dtype is None else array.astype(as_dtype(dtype), copy=False), None, False
        )
    return tensor(data, dtype=dtype)


def asarray(
    obj: Any,
    *,
    dtype: Any = None,
    device: Any = None,
    copy: bool | None = None,
    requires_grad: bool | None = None,
) -> Tensor:
    """Return a tensor of `obj`, over its memory if it has any: `as_tensor`, and buffers too.

    - `obj`: a tensor, array or number, sequences of numbers, or a buffer of numbers of `dtype`.
    - `copy`: copy the memory (True), or never (False: ValueError if it must be).
    - `requires_grad`: by default that of `obj`.
    """
    if isinstance(obj, bytes | bytearray | memoryview) or hasattr(obj, "typecode"):
        own = found = frombuffer(obj, dtype=float_dtype(dtype))
    elif isinstance(obj, Tensor) or any(hasattr(obj, name) for name in _ARRAYS):
        own, found = as_tensor(obj), as_tensor(obj, dtype, device)
    elif copy is False:
        raise ValueError("can't alias arbitrary sequence into a tensor.")
    else:
        return tensor(obj, dtype=dtype, device=device, requires_grad=bool(requires_grad))
    if copy is False and own.dtype != found.dtype:
        raise ValueError(f"can't alias tensor with dtype {own.dtype} into dtype {found.dtype}.")
    if copy and own.dtype == found.dtype:
        found = found.clone()
    if requires_grad is not None and requires_grad != found.requires_grad:
        found = found.detach().requires_grad_(requires_grad)
    return found


def from_numpy(ndarray: np.ndarray) -> Tensor:
    """Return a tensor that shares the memory of an array; TypeError for anything else."""
    if not isinstance(ndarray, np.ndarray):
        raise TypeError(f"from_numpy: expected np.ndarray (got {type(ndarray).__name__})")
    return made(_known(ndarray), None, False)


def scalar_tensor(
    s: float, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Return a 0-dim tensor of a number, of the default float type."""
    return made(_array(s, float_dtype(dtype)), device, requires_grad)


# From a rule


@writing("dtype")
def empty(
    *shape: Any,
    size: Any = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Return a tensor with uninitialised values."""
    where = lengths("empty", shape, size)
    return made(memory.empty(where, float_dtype(dtype)), device, requires_grad)


@writing("dtype")
def zeros(
    *shape: Any,
    size: Any = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Return a tensor of zeros."""
    where = lengths("zeros", shape, size)
    return made(memory.zeros(where, float_dtype(dtype)), device, requires_grad)


@writing("dtype")
def ones(
    *shape: Any,
    size: Any = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Return a tensor of ones."""
    where = lengths("ones", shape, size)
    return made(_filled(where, 1, float_dtype(dtype)), device, requires_grad)


def _filled(shape: tuple[int, ...], value: Any, dtype: DType) -> np.ndarray:
    array = memory.empty(shape, dtype)
    if dtype.kind == "u" and -np.iinfo(dtype).max <= value < 0:
        value = int(value) % (np.iinfo(dtype).max + 1)  # it wraps around
    try:
        array.fill(value)
    except OverflowError:
        raise RuntimeError(
            f"full: {value} cannot be converted to {dtype} without overflow"
        ) from None
    return array


@writing("dtype")
def full(
    size: Sequence[int],
    fill_value: Any,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Return a tensor of one value, by default of the type of that value."""
    if not isinstance(size, Sequence):
        raise TypeError(f"full: expected a tuple of ints as the size, got {type(size).__name__}")
    if isinstance(fill_value, Tensor):
        found = fill_value._array.dtype
        fill_value = fill_value.item()
    elif not isinstance(fill_value, int | float | np.generic):
        given = type(fill_value).__name__
        raise TypeError(f"full: expected a number as the value, got {given}")
    else:
        found = scalar_dtype(fill_value)
    kind = found if dtype is None else as_dtype(dtype)
    return made(_filled(lengths("full", (size,)), fill_value, kind), device, requires_grad)


@writing("dtype")
def eye(
    n: int,
    m: int | None = None,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Return ones on the diagonal, zeros elsewhere: (n, m), square without m."""
    if n < 0 or (m is not None and m < 0):
        raise RuntimeError(f"eye: the size must be at least 0, got {n if m is None else (n, m)}")
    return made(np.eye(n, m, dtype=float_dtype(dtype)), device, requires_grad)


def _number(x: Any) -> Any:
    return x.item() if isinstance(x, Tensor | np.generic) else x


@writing("dtype")
def arange(
    start: Any,
    end: Any = None,
    step: Any = 1,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Return start, start + step, ... before end; `arange(end)` starts at 0. Integers give int64.

    An integer type drops the fractions of start and step, int64 of end too, as PyTorch does.
    """
    if end is None:
        start, end = 0, start
    start, end, step = _number(start), _number(end), _number(step)
    whole = all(isinstance(x, int) for x in (start, end, step))
    kind = as_dtype(dtype) if dtype is not None else int64 if whole else get_default_dtype()
    if kind.kind == "b":
        raise NotImplementedError("arange: there is no arange of bool: compare one of numbers")
    if step == 0:
        raise RuntimeError("arange: step must be nonzero")
    if (end - start) * step < 0:
        raise RuntimeError(
            f"arange: steps of {step} do not lead from {start} to {end}: upper bound and lower "
            "bound inconsistent with step sign"
        )
    if whole:
        array = np.arange(start, end, step).astype(kind, copy=False)
        return made(array, device, requires_grad)
    if kind == np.int64:
        start, end, step = int(start), int(end), int(step)
        if step == 0:
            raise ValueError("arange: step must be nonzero, also without its fraction for int64")
    count = max(math.ceil((end - start) / step), 0)
    if kind.kind not in FLOATING:
        start, step = int(start), int(step)
    work = np.float64 if kind.kind in FLOATING else np.int64
    array = (start + step * np.arange(count, dtype=work)).astype(kind)
    return made(array, device, requires_grad)


@writing("dtype")
def linspace(
    start: Any,
    end: Any,
    steps: int,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Return `steps` evenly spaced numbers from start to end, both included: (steps,)."""
    start, end = _number(start), _number(end)
    if steps < 0:
        raise RuntimeError(f"linspace: number of steps must be non-negative, got {steps}")
    kind = float_dtype(dtype)
    work = kind if kind.kind in FLOATING else np.dtype(np.float64)
    first, last = work.type(start), work.type(end)
    step = (last - first) / work.type(max(steps - 1, 1))
    index = np.arange(steps).astype(work)
    # From both ends inwards, so that the last number is `end` exactly.
    array = np.where(index < steps // 2, first + step * index, last - step * index[::-1])
    if steps == 1:
        array[:] = first
    return made(array.astype(kind), device, requires_grad)


def _indices(rows: np.ndarray, columns: np.ndarray, dtype: Any, device: Any) -> Tensor:
    return made(np.stack([rows, columns]).astype(as_dtype(dtype)), device, False)


def _check_sizes(name: str, *sizes: int) -> None:
    """Raise RuntimeError for a negative size, TypeError for one that is no integer."""
    if min(map(operator.index, sizes)) < 0:
        raise RuntimeError(f"{name}: expected sizes of at least 0, got {sizes}")


def tril_indices(
    row: int, col: int, offset: int = 0, *, dtype: Any = int64, device: Any = None
) -> Tensor:
    """Return the indices of elements on and below a diagonal of a (row, col) matrix: (2, n).

    RuntimeError for a negative size.
    """
    _check_sizes("tril_indices", row, col)
    return _indices(*np.tril_indices(row, offset, col), dtype, device)


def triu_indices(
    row: int, col: int, offset: int = 0, *, dtype: Any = int64, device: Any = None
) -> Tensor:
    """Return the indices of elements on and above a diagonal of a (row, col) matrix: (2, n).

    RuntimeError for a negative size.
    """
    _check_sizes("triu_indices", row, col)
    return _indices(*np.triu_indices(row, offset, col), dtype, device)


# Like another tensor


@method
def new_tensor(
    self: Tensor, data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Return a new tensor of `data`, in this one's dtype unless `dtype` is given."""
    kind = self.dtype if dtype is None else dtype
    return tensor(data, dtype=kind, device=device, requires_grad=requires_grad)


@method
def new_full(
    self: Tensor,
    size: Sequence[int],
    fill_value: Any,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Return a tensor of one value, in this one's dtype unless `dtype` is given."""
    kind = self.dtype if dtype is None else dtype
    return full(size, fill_value, dtype=kind, device=device, requires_grad=requires_grad)


def full_like(
    input: Tensor,
    fill_value: Any,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    memory_format: Any = None,
) -> Tensor:
    """Return a tensor of one value, of the shape of `input`; in its dtype without `dtype`."""
    shape = tuple(input.shape)
    return new_full(
        input, shape, fill_value, dtype=dtype, device=device, requires_grad=requires_grad
    )


def _like(make: Callable[..., Tensor], values: str) -> Callable[..., Tensor]:
    """Attach `Tensor.new_<name>` for a function of sizes, and return its `<name>_like`."""

    def new(
        self: Tensor,
        *shape: Any,
        size: Any = None,
        dtype: Any = None,
        device: Any = None,
        requires_grad: bool = False,
    ) -> Tensor:
        kind = self.dtype if dtype is None else dtype
        return make(*shape, size=size, dtype=kind, device=device, requires_grad=requires_grad)

    def like(
        input: Tensor,
        *,
        dtype: Any = None,
        device: Any = None,
        requires_grad: bool = False,
        memory_format: Any = None,
    ) -> Tensor:
        shape = tuple(input.shape)
        return new(input, size=shape, dtype=dtype, device=device, requires_grad=requires_grad)

    new.__name__ = new.__qualname__ = f"new_{make.__name__}"
    new.__doc__ = f"`{make.__name__}`, in this tensor's dtype unless `dtype` is given."
    method(new)
    like.__name__ = like.__qualname__ = f"{make.__name__}_like"
    like.__doc__ = f"{values}, with the shape of `input`; in its dtype unless `dtype` is given."
    return like


zeros_like = _like(zeros, "Zeros")
ones_like = _like(ones, "Ones")
empty_like = _like(empty, "Uninitialised values")


# PyTorch's first constructors


def _legacy(name: str, data: tuple[Any, ...], dtype: DTypeLike | None) -> Tensor:
    """Return a tensor of a size, of nested sequences of numbers, or over another's memory."""
    source = data[0] if len(data) == 1 else None
    if isinstance(source, Tensor):
        if dtype is not None and source.dtype != dtype:
            raise TypeError(f"{name}: expected a tensor of {dtype}, got {source.dtype}")
        return source.detach()
    kind = get_default_dtype() if dtype is None else dtype
    if isinstance(source, Size):
        return empty(source, dtype=kind)
    if isinstance(source, Sequence | np.ndarray) and not isinstance(source, str):
        return tensor(source, dtype=kind)
    if len(data) == 1 and (isinstance(source, bool) or not hasattr(source, "__index__")):
        raise TypeError(f"{name}: data must be a sequence (got {type(source).__name__})")
    return empty(*(data or (0,)), dtype=kind)


@method
def __init__(self: Tensor, *data: Any) -> None:
    """`Tensor(2, 3)`: uninitialised values of that shape; `Tensor([1, 2])`: those values.

    `Tensor(tensor)` shares its memory. TypeError for a single number that is not an integer.
    """
    made = _legacy("Tensor", data, None)
    self._array, self._version_box = made._array, made._version_box


@method
def new(self: Tensor, *data: Any) -> Tensor:
    """`x.new(2, 3)`: uninitialised values in this tensor's dtype; `x.new([1, 2])`: those values."""
    return _legacy("new", data, self._array.dtype)


class TypedTensor(type):
    """The type of `FloatTensor` and its kin, which make tensors of one dtype and know theirs."""

    dtype: DTypeLike

    def __call__(cls, *data: Any) -> Tensor:
        """Return a tensor of a size, `FloatTensor(2, 3)`, or of values, `FloatTensor([1, 2])`."""
        return _legacy(cls.__name__, data, cls.dtype)

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, Tensor) and instance.dtype == cls.dtype


def _typed(name: str, dtype: DTypeLike) -> TypedTensor:
    doc = f"`{name}(2, 3)`: uninitialised {dtype} of that size; `{name}([1, 2])`: those values."
    return TypedTensor(name, (), {"__doc__": doc, "__module__": __name__, "dtype": dtype})


BoolTensor = _typed("BoolTensor", bool_)
ByteTensor = _typed("ByteTensor", np.dtype(np.uint8))
CharTensor = _typed("CharTensor", np.dtype(np.int8))
ShortTensor = _typed("ShortTensor", np.dtype(np.int16))
IntTensor = _typed("IntTensor", np.dtype(np.int32))
LongTensor = _typed("LongTensor", int64)
HalfTensor = _typed("HalfTensor", np.dtype(np.float16))
BFloat16Tensor = _typed("BFloat16Tensor", bfloat16)
FloatTensor = _typed("FloatTensor", float32)
DoubleTensor = _typed("DoubleTensor", np.dtype(np.float64))
