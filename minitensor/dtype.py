"""The element types, and PyTorch's rules for the type of a result of several.

A dtype is a `numpy.dtype`. Types fall into three categories, bool < integer < float. Operands with
dimensions decide before 0-dim tensors, and those before Python numbers; a lower-priority operand
changes the result only when its category is higher.
"""

from __future__ import annotations

from typing import Any

import numpy as np

float16 = np.dtype(np.float16)
float32 = np.dtype(np.float32)
float64 = np.dtype(np.float64)
int8 = np.dtype(np.int8)
int16 = np.dtype(np.int16)
int32 = np.dtype(np.int32)
int64 = np.dtype(np.int64)
uint8 = np.dtype(np.uint8)
bool_ = np.dtype(np.bool_)

DTYPES = (float16, float32, float64, int8, int16, int32, int64, uint8, bool_)
DType = np.dtype[Any]
dtype = np.dtype  # PyTorch's name of the class

_CATEGORY = {"b": 0, "i": 1, "u": 1, "f": 2}
_default = float32


def get_default_dtype() -> DType:
    """Return the type of Python floats and of new tensors: float32 unless changed."""
    return _default


def set_default_dtype(dtype: Any) -> None:
    """Set the default float type; raises TypeError for a type that is not floating point."""
    global _default
    dtype = as_dtype(dtype)
    if dtype.kind != "f":
        raise TypeError(f"only floating-point types are supported as the default type, got {dtype}")
    _default = dtype


def as_dtype(dtype: Any) -> DType:
    """Return the `numpy.dtype` of a name or type; Python's int is int64, float is float64."""
    try:
        found: DType = np.dtype(dtype)
    except TypeError as error:
        raise TypeError(f"not a data type: {dtype!r}") from error
    if found not in DTYPES:
        raise TypeError(
            f"unsupported data type {found}; choose one of {', '.join(d.name for d in DTYPES)}"
        )
    return found


def promote_types(a: DType, b: DType) -> DType:
    """Return the smallest type for both, by category first: int64 with float32 is float32."""
    if _CATEGORY[a.kind] != _CATEGORY[b.kind]:
        return a if _CATEGORY[a.kind] > _CATEGORY[b.kind] else b
    return np.promote_types(a, b)


def scalar_dtype(value: Any) -> DType:
    """Return the type of a Python number on its own: bool, int64 or the default float type."""
    if isinstance(value, bool | np.bool_):
        return bool_
    if isinstance(value, int | np.integer):
        return int64
    return _default


def result_dtype(*operands: Any) -> DType:
    """Return the type of the result of an elementwise op on arrays, tensors and numbers."""
    levels: list[DType | None] = [None, None, None]  # dimensioned, 0-dim, number
    for x in operands:
        dtype = getattr(x, "dtype", None)
        if dtype is None or isinstance(x, np.generic):
            level, dtype = 2, scalar_dtype(x)
        else:
            level = 0 if x.ndim else 1
        known = levels[level]
        levels[level] = dtype if known is None else promote_types(known, dtype)
    result = None
    for dtype in levels:
        if dtype is None:
            continue
        if result is None:
            result = dtype
        elif _CATEGORY[dtype.kind] > _CATEGORY[result.kind]:
            # A number of a higher category brings the default type of that category, not its own.
            result = dtype
    assert result is not None
    return result


def can_cast(source: DType, target: DType) -> bool:
    """Return True if an in-place op may store `source` in `target`: never down a category."""
    return _CATEGORY[source.kind] <= _CATEGORY[target.kind]


class finfo:  # PyTorch's name
    """The limits of a floating type, the default one if none is given; TypeError for another."""

    def __init__(self, dtype: Any = None) -> None:
        dtype = get_default_dtype() if dtype is None else as_dtype(dtype)
        if dtype.kind != "f":
            raise TypeError(f"finfo: expected a floating point type, got {dtype}; see iinfo")
        info = np.finfo(dtype)
        self.dtype: str = dtype.name
        self.bits = int(info.bits)
        self.min, self.max = float(info.min), float(info.max)
        self.eps = float(info.eps)  # the step from 1 to the next number
        self.tiny = self.smallest_normal = float(info.tiny)
        self.resolution = 10.0**-info.precision  # of its decimal digits


class iinfo:  # PyTorch's name
    """The limits of an integer type; TypeError for another."""

    def __init__(self, dtype: Any) -> None:
        dtype = as_dtype(dtype)
        if dtype.kind not in "iu":
            raise TypeError(f"iinfo: expected an integer type, got {dtype}; see finfo")
        info = np.iinfo(dtype)
        self.dtype: str = dtype.name
        self.bits = int(info.bits)
        self.min, self.max = int(info.min), int(info.max)
