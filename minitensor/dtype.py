"""The element types, and PyTorch's rules for the type of a result of several.

Inside the library a type is a `numpy.dtype`; `x.dtype` and `minitensor.float32` are objects of the
class `dtype`, which equal it. NumPy's bfloat16 comes from the package `ml_dtypes`, which is
imported when it is first used. Types fall into three categories, bool < integer < float. Operands
with dimensions decide before 0-dim tensors, and those before Python numbers; a lower-priority
operand changes the result only when its category is higher.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .names import prints_as_pytorch, spelt

float16 = np.dtype(np.float16)
float32 = np.dtype(np.float32)
float64 = np.dtype(np.float64)
int8 = np.dtype(np.int8)
int16 = np.dtype(np.int16)
int32 = np.dtype(np.int32)
int64 = np.dtype(np.int64)
uint8 = np.dtype(np.uint8)
bool_ = np.dtype(np.bool_)

DTYPES = (float16, float32, float64, int8, int16, int32, int64, uint8, bool_)  # and bfloat16
NAMES = (*(d.name for d in DTYPES), "bfloat16")
DType = np.dtype[Any]

# The kinds of floating types: NumPy calls those of other packages V, of which only bfloat16 is
# admitted. `dtype.kind in FLOATING` asks for a float; with two bytes, it is in half precision.
FLOATING = "fV"
_CATEGORY = {"b": 0, "i": 1, "u": 1, "f": 2, "V": 2}
_default = float32


class dtype:  # PyTorch's name
    """The type of the elements of a tensor; each type is one object.

    It equals NumPy's type, which `dtype` is, and NumPy takes it for that: `np.zeros(3, x.dtype)`.
    Attributes that PyTorch's types do not have are those of NumPy's: `x.dtype.kind`.
    """

    __slots__ = ("dtype", "is_floating_point", "is_signed", "itemsize", "kind", "name")
    is_complex = False

    name: str
    kind: str
    itemsize: int  # bytes of an element
    is_floating_point: bool
    is_signed: bool
    dtype: DType  # of bfloat16 only from its first use on

    def __new__(cls, *args: Any) -> Any:
        """Raise TypeError: there are no others."""
        raise TypeError("cannot create 'minitensor.dtype' instances")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # Python's own questions
            raise AttributeError(f"no attribute {name!r}")
        if name != "dtype":
            return getattr(self.dtype, name)
        try:
            import ml_dtypes
        except ImportError:
            hint = "bfloat16 needs ml_dtypes: pip install 'minitensor[bfloat16]'"
            raise ImportError(hint) from None
        self.dtype = np.dtype(ml_dtypes.bfloat16)
        return self.dtype

    def __eq__(self, other: object) -> bool:
        if self is other or isinstance(other, dtype):
            return self is other
        try:
            return bool(self.dtype == other)
        except ImportError:
            return False

    def __hash__(self) -> int:
        try:
            return hash(self.dtype)
        except ImportError:
            return hash(self.name)

    def __reduce__(self) -> Any:
        return as_public, (self.name,)

    def __str__(self) -> str:
        return repr(self) if prints_as_pytorch() else self.name

    def __repr__(self) -> str:
        return spelt(self.name)


DTypeLike = dtype | DType


def _made(name: str, kind: str, itemsize: int) -> dtype:
    new: dtype = object.__new__(dtype)
    new.name, new.kind, new.itemsize = name, kind, itemsize
    new.is_floating_point = kind in FLOATING
    new.is_signed = kind in "i" + FLOATING
    if kind != "V":
        new.dtype = np.dtype(name)
    return new


class _Public(dict[DType, Any]):
    """The object of each of NumPy's types; one that tensors cannot have stands for itself."""

    def __missing__(self, found: DType) -> Any:
        if found.name != "bfloat16":
            return found
        self[found] = bfloat16
        return bfloat16


bfloat16 = _made("bfloat16", "V", 2)
PUBLIC = _Public({d: _made(d.name, d.kind, d.itemsize) for d in DTYPES})
TYPES = {d.name: d for d in (*PUBLIC.values(), bfloat16)}  # by name


def as_public(of: Any) -> dtype:
    """Return the object of a type: of a name, a type of NumPy's or itself; errors as `as_dtype`."""
    return TYPES[of] if isinstance(of, str) and of in TYPES else PUBLIC[as_dtype(of)]


def get_default_dtype() -> DType:
    """Return the type of Python floats and of new tensors: float32 unless changed."""
    return _default


def set_default_dtype(dtype: Any) -> None:
    """Set the default float type; raises TypeError for a type that is not floating point."""
    global _default
    dtype = as_dtype(dtype)
    if dtype.kind not in FLOATING:
        raise TypeError(f"only floating-point types are supported as the default type, got {dtype}")
    _default = dtype


def as_dtype(of: Any) -> DType:
    """Return the `numpy.dtype` of a name or type; Python's int is int64, float is float64.

    TypeError for one that is none, ImportError for bfloat16 without the package that has it.
    """
    if isinstance(of, dtype):
        return of.dtype
    try:
        found = bfloat16.dtype if isinstance(of, str) and of == "bfloat16" else np.dtype(of)
    except TypeError as error:
        raise TypeError(f"not a data type: {of!r}") from error
    if not is_dtype(found):
        raise TypeError(f"unsupported data type {found}; choose one of {', '.join(NAMES)}")
    return found


def is_dtype(found: DType) -> bool:
    """Return True if tensors may have a NumPy type."""
    return found in DTYPES or found.name == "bfloat16"


def promote_types(a: DType, b: DType) -> DType:
    """Return the smallest type for both, by category first: int64 with float32 is float32."""
    if _CATEGORY[a.kind] != _CATEGORY[b.kind]:
        return a if _CATEGORY[a.kind] > _CATEGORY[b.kind] else b
    if a != b and a.itemsize == b.itemsize == 2 and a.kind in FLOATING:
        return float32  # holds the range of bfloat16 and the digits of float16
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
        x = getattr(x, "_array", x)
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


def can_cast(source: DTypeLike, target: DTypeLike) -> bool:
    """Return True if an in-place op may store `source` in `target`: never down a category."""
    return _CATEGORY[source.kind] <= _CATEGORY[target.kind]


def finfo_of(dtype: DType) -> Any:
    """Return NumPy's limits of a floating type."""
    if dtype.kind != "V":
        return np.finfo(dtype)
    import ml_dtypes

    return ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]


class finfo:  # PyTorch's name
    """The limits of a floating type, the default one if none is given; TypeError for another."""

    def __init__(self, dtype: Any = None) -> None:
        dtype = get_default_dtype() if dtype is None else as_dtype(dtype)
        if dtype.kind not in FLOATING:
            raise TypeError(f"finfo: expected a floating point type, got {dtype}; see iinfo")
        info = finfo_of(dtype)
        self.dtype: str = dtype.name
        self.bits = int(info.bits)
        self.min, self.max = float(info.min), float(info.max)
        self.eps = float(info.eps)  # the step from 1 to the next number
        self.tiny = self.smallest_normal = float(info.tiny)
        self.resolution = 10.0**-info.precision  # of its decimal digits

    def __repr__(self) -> str:
        names = ("resolution", "min", "max", "eps", "smallest_normal", "tiny")
        shown = ", ".join(f"{name}={getattr(self, name):g}" for name in names)
        return f"finfo({shown}, dtype={self.dtype})"


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

    def __repr__(self) -> str:
        return f"iinfo(min={self.min}, max={self.max}, dtype={self.dtype})"
