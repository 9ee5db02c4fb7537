"""Memory shared with other libraries, without a copy: DLPack and Python's buffers.

A write on either side shows on the other. Whoever holds the memory keeps it alive: an array that is
made here has the other's object as its base, and what is handed out holds the array, so that the
pool gets a buffer back only once both sides are done with it.

DLPack says of bfloat16 what NumPy does not know, so its numbers cross as 16-bit integers, and the
type in the description, a capsule, is changed.

Source: https://dmlc.github.io/dlpack/latest/c_api.html.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from .core import Tensor, attach, wrap
from .devices import check_device
from .dtype import as_dtype

__all__ = ["from_dlpack", "frombuffer"]

_UINT, _BFLOAT = 1, 4  # codes of types
# Where a capsule's struct has the code of the type: after the address of the data, the device and
# the number of dimensions; the versioned struct begins with 32 bytes of its own.
_CODE = {b"dltensor": 20, b"dltensor_versioned": 32 + 20}


def from_dlpack(ext_tensor: Any, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """Return a tensor that shares the memory of an array of any library that has `__dlpack__`.

    - `device`: the CPU.
    - `copy`: copy the memory (True), or never (False: BufferError if it must be).

    Memory that the other says may not be written (arrays of JAX) gives a tensor that cannot be
    changed in place.
    Raises TypeError for what has no `__dlpack__` or is of a type that tensors do not have,
    BufferError for what its library does not export, such as a tensor that requires a gradient.
    """
    if device is not None:
        check_device(device)
    if not hasattr(ext_tensor, "__dlpack__"):
        raise TypeError(
            f"from_dlpack: expected an object with __dlpack__, got {type(ext_tensor).__name__}"
        )
    array = _imported(ext_tensor, copy)
    return _tensor("from_dlpack", array.copy() if copy and not array.flags.writeable else array)


def frombuffer(
    buffer: Any, *, dtype: Any, count: int = -1, offset: int = 0, requires_grad: bool = False
) -> Tensor:
    """Return a 1-dim tensor over the memory of `bytearray`, `memoryview`, `array.array`, ...: (n,).

    - `dtype`: the type of the numbers in it.
    - `count`: how many to take, all by default.
    - `offset`: the bytes to skip.

    Memory that may not be written, such as `bytes`, gives a tensor that cannot be changed in place.
    Raises ValueError for what is no buffer or too short.
    """
    kind = as_dtype(dtype)
    try:
        size = memoryview(buffer).nbytes
    except TypeError:
        raise ValueError("object does not implement Python buffer protocol.") from None
    if size == 0 or count == 0:
        raise ValueError(f"both buffer length ({size}) and count ({count}) must not be 0")
    if not 0 <= offset < size:
        raise ValueError(
            f"offset ({offset} bytes) must be non-negative and no greater than buffer length "
            f"({size} bytes) minus 1"
        )
    if count < 0 and (size - offset) % kind.itemsize:
        raise ValueError(
            f"buffer length ({size - offset} bytes) after offset ({offset} bytes) must be a "
            f"multiple of element size ({kind.itemsize})"
        )
    if count * kind.itemsize > size - offset:
        raise ValueError(
            f"requested buffer length ({count} * {kind.itemsize} bytes) after offset ({offset} "
            f"bytes) must not be greater than actual buffer length ({size} bytes)"
        )
    found = _tensor("frombuffer", np.frombuffer(buffer, kind, max(count, -1), offset))
    return found.requires_grad_() if requires_grad else found


def shared_array(x: Any) -> np.ndarray:
    """Return an array over the memory of a NumPy array or one of another library."""
    return _imported(x, None) if _is_bfloat16(x) else np.asarray(x)


def _tensor(name: str, array: np.ndarray) -> Tensor:
    as_dtype(array.dtype)  # TypeError for others
    if any(s < 0 for s in array.strides):
        raise ValueError(f"{name}: a stride is negative, which tensors do not support; pass a copy")
    made: Tensor = wrap(array)
    return made


def _imported(x: Any, copy: bool | None) -> np.ndarray:
    """Return an array over the memory that an object exports by DLPack."""
    how: Any = {} if copy is None else {"copy": copy}
    if not _is_bfloat16(x):
        return np.from_dlpack(x, **how)
    kind = as_dtype("bfloat16")
    try:
        capsule = x.__dlpack__(max_version=(1, 0), **how)
    except TypeError:  # from before there were versions
        capsule = x.__dlpack__()
    _change_type(capsule, _BFLOAT, _UINT)
    return np.from_dlpack(_Capsule(capsule)).view(kind)


def _is_bfloat16(x: Any) -> bool:
    return not isinstance(x, np.ndarray) and str(getattr(x, "dtype", "")).endswith("bfloat16")


class _Capsule:
    """An object with `__dlpack__` that exports a capsule made before."""

    def __init__(self, capsule: Any) -> None:
        self.capsule = capsule

    def __dlpack__(self, **how: Any) -> Any:
        return self.capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0  # the CPU


def _change_type(capsule: Any, before: int, after: int) -> None:
    """Change the code of the type in a capsule that nobody has used yet."""
    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype = ctypes.c_char_p
    api.PyCapsule_GetName.argtypes = [ctypes.py_object]
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    name = api.PyCapsule_GetName(capsule)
    begin = api.PyCapsule_GetPointer(capsule, name)
    code = ctypes.c_uint8.from_address(begin + _CODE[name])
    if code.value != before:
        raise BufferError(f"a DLPack capsule of type code {code.value}, expected {before}")
    code.value = after


def __dlpack__(
    self: Tensor,
    *,
    stream: Any = None,
    max_version: tuple[int, int] | None = None,
    dl_device: tuple[int, int] | None = None,
    copy: bool | None = None,
) -> Any:
    """Return a capsule by which another library shares the memory; see `from_dlpack`.

    BufferError if the tensor requires a gradient.
    """
    if self.requires_grad:
        raise BufferError("Can't export tensors that require gradient, use tensor.detach()")
    array = self._array
    plain = array.dtype.name != "bfloat16"
    exported = array if plain else array.view(np.uint16)
    capsule = exported.__dlpack__(
        stream=None if stream == -1 else stream,
        max_version=max_version,
        dl_device=dl_device,
        copy=copy,
    )
    if not plain:
        _change_type(capsule, _UINT, _BFLOAT)
    return capsule


def __dlpack_device__(self: Tensor) -> tuple[int, int]:
    """Return the kind of device in DLPack's numbers, and its number: (1, 0), the CPU."""
    return 1, 0


for _method in (__dlpack__, __dlpack_device__):
    attach("tensor", _method.__name__, _method)
