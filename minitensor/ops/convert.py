"""Conversions of element type: `x.to(...)`, promotion of operands; plain public functions."""

from __future__ import annotations

from typing import Any, overload

import numpy as np

from ..core import Op, Tensor, attach, wrap
from ..devices import CPU, DeviceError, check_device
from ..devices import device as Device
from ..dtype import (
    FLOATING,
    PUBLIC,
    DType,
    as_dtype,
    bool_,
    float16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    result_dtype,
    uint8,
)
from ..dtype import dtype as Dtype
from ..dtype import get_default_dtype as default_dtype
from ..dtype import promote_types as promoted
from ..names import spelt
from .composite import register
from .samples import Rand, Samples


class ToCopy(Op):
    """y = x in another type, floats truncated to integers: (*) -> (*).  dx = dy in x's own type."""

    op_name = "to"
    namespaces = ""
    torch_name = "Tensor.to"
    takes_half = True

    def forward(ctx, x: np.ndarray, dtype: DType) -> np.ndarray:
        return x.astype(dtype)

    @staticmethod
    def cell(x: np.ndarray, dtype: DType) -> str:
        return {"f": "x", "V": "x", "b": "x != 0", "u": "trunc(x) % 256"}.get(
            dtype.kind, "trunc(x)"
        )

    def backward(ctx, dy: Tensor) -> Tensor:
        return dy  # the backward pass returns every gradient in the type of its tensor

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2, 3), np.dtype(np.float64)
        yield rand(2, 3), np.dtype(np.int64)
        yield rand.integers(-3, 3, 2, 3), np.dtype(np.float32)


def cast(x: Tensor, dtype: DType) -> Tensor:
    """Return `x` itself if it has type `dtype`, else a converted copy."""
    return x if x._array.dtype == dtype else ToCopy.apply(x, dtype)


def as_tensor(x: Any) -> Tensor:
    """Return a tensor of a tensor, an array or a number; TypeError for anything else."""
    if isinstance(x, Tensor):
        return x
    if isinstance(x, np.ndarray):
        return wrap(x)
    if isinstance(x, int | float | np.number | np.bool_):
        return wrap(np.asarray(x, result_dtype(x)))
    raise TypeError(f"expected a Tensor or a number, got {type(x).__name__}")


def fitted(x: Any, dtype: DType) -> Any:
    """Return an operand in `dtype`: a tensor of it, or a Python number that does not change it.

    Integers that `dtype` cannot hold wrap around, as in an array.
    """
    if isinstance(x, Tensor | np.ndarray):
        return cast(as_tensor(x), dtype)
    if not isinstance(x, int | float | np.number | np.bool_):
        raise TypeError(f"expected a Tensor or a number, got {type(x).__name__}")
    if dtype.kind in FLOATING:
        return float(x)
    return np.asarray(x).astype(dtype).item()


def promote(*operands: Any, floating: bool = False) -> tuple[Any, ...]:
    """Return operands in the type of their result, a float if `floating`; numbers stay numbers."""
    for x in operands:
        if not isinstance(x, Tensor | np.ndarray | int | float | np.number | np.bool_):
            raise TypeError(f"expected a Tensor or a number, got {type(x).__name__}")
    dtype = result_dtype(*operands)
    if floating and dtype.kind not in FLOATING:
        dtype = default_dtype()
    return tuple(fitted(x, dtype) for x in operands)


@register
def is_floating_point(input: Tensor) -> bool:
    """Return True if the elements are float16, bfloat16, float32 or float64."""
    return input.is_floating_point()


@register
def detach(input: Tensor) -> Tensor:
    """Return the same memory without history."""
    return input.detach()


@register
def is_inference(input: Tensor) -> bool:
    """Return True for a tensor of `inference_mode`."""
    return input.is_inference()


@register
def is_signed(input: Tensor) -> bool:
    """Return True if the type has negative numbers."""
    return input.is_signed()


@register
def is_complex(input: Tensor) -> bool:
    """Return False: there are no complex tensors."""
    return False


@register
def numel(input: Tensor) -> int:
    """Return the number of elements."""
    return input.numel()


@register
def is_nonzero(input: Tensor) -> bool:
    """Return True if the only element is not 0; RuntimeError unless there is exactly one."""
    return bool(input)


def is_tensor(obj: Any) -> bool:
    """Return True if `obj` is a Tensor."""
    return isinstance(obj, Tensor)


def result_type(tensor1: Any, tensor2: Any) -> Dtype:
    """Return the type of the result of an operation on two tensors or numbers."""
    return PUBLIC[result_dtype(tensor1, tensor2)]


def promote_types(type1: Any, type2: Any) -> Dtype:
    """Return the smallest type for both, by category first: int64 with float32 is float32."""
    return PUBLIC[promoted(as_dtype(type1), as_dtype(type2))]


def get_default_dtype() -> Dtype:
    """Return the type of Python floats and of new tensors: float32 unless changed."""
    return PUBLIC[default_dtype()]


attach("torch", "is_tensor", is_tensor)
attach("torch", "result_type", result_type)
attach("torch", "promote_types", promote_types)
attach("torch", "get_default_dtype", get_default_dtype)


# The methods of a tensor


def _to(
    self: Tensor,
    target: Any = None,
    *rest: Any,
    dtype: Any = None,
    device: Any = None,
    other: Tensor | None = None,
    non_blocking: bool = False,
    copy: bool = False,
    memory_format: Any = None,
) -> Tensor:
    """Return this tensor as `to(dtype)`, `to(device, dtype)` or `to(other)`.

    It is the tensor itself if nothing changes, unless `copy` is set. RuntimeError for a device that
    is not the CPU.
    """
    if target is None or isinstance(target, str | Device):
        device = device if target is None else target
        dtype, *flags = rest or (dtype,)
    elif isinstance(target, Tensor):
        other, flags = target, list(rest)
    else:
        dtype, flags = target, list(rest)
    if device is not None:
        check_device(device)
    if other is not None:
        dtype = other._array.dtype
    elif dtype is not None:
        dtype = as_dtype(dtype)
    if dtype is not None and dtype != self._array.dtype:
        return ToCopy.apply(self, dtype)
    return self.clone() if copy or flags[1:] == [True] else self


_TYPE_NAMES = {
    "float16": "HalfTensor",
    "bfloat16": "BFloat16Tensor",
    "float32": "FloatTensor",
    "float64": "DoubleTensor",
    "int8": "CharTensor",
    "int16": "ShortTensor",
    "int32": "IntTensor",
    "int64": "LongTensor",
    "uint8": "ByteTensor",
    "bool": "BoolTensor",
}
_TYPES_BY_NAME = {name: dtype for dtype, name in _TYPE_NAMES.items()}


@overload
def _type(self: Tensor) -> str: ...
@overload
def _type(self: Tensor, dtype: Any, non_blocking: bool = False) -> Tensor: ...
def _type(self: Tensor, dtype: Any = None, non_blocking: bool = False) -> Any:
    """Return the name of the type, such as "minitensor.FloatTensor", or the tensor in a type.

    A type is a dtype, such a name, or the class of that name.
    """
    if dtype is None:
        return spelt(_TYPE_NAMES[self._array.dtype.name])
    name = dtype if isinstance(dtype, str) else getattr(dtype, "__name__", "")
    found = _TYPES_BY_NAME.get(name.rpartition(".")[2])
    return cast(self, as_dtype(dtype if found is None else found))


def _converter(name: str, dtype: DType | str) -> Any:
    def method(self: Tensor, memory_format: Any = None) -> Tensor:
        return cast(self, as_dtype(dtype) if isinstance(dtype, str) else dtype)

    method.__name__ = name
    method.__doc__ = f"Return this tensor as {dtype}; itself if it has that type."
    return method


def _type_as(self: Tensor, other: Tensor) -> Tensor:
    """Return this tensor in the type of `other`."""
    return cast(self, other._array.dtype)


def _cpu(self: Tensor, device: Any = None) -> Tensor:
    """Return this tensor, which is on the CPU already."""
    return self


def _cuda(self: Tensor, device: Any = None, non_blocking: bool = False) -> Tensor:
    """Raise DeviceError, a RuntimeError: there is only the CPU."""
    raise DeviceError("minitensor has only the CPU: a tensor cannot be moved to cuda")


_CONVERTERS: dict[str, DType | str] = {
    "half": float16,
    "bfloat16": "bfloat16",  # looked up when used
    "float": float32,
    "double": float64,
    "char": int8,
    "short": int16,
    "int": int32,
    "long": int64,
    "byte": uint8,
    "bool": bool_,
}


def _get_device(self: Tensor) -> int:
    """Return -1, the number of the CPU."""
    return -1


def _never(what: str) -> property:
    return property(lambda self: False, doc=f"False: {what}.")


_METHODS: dict[str, Any] = {
    "to": _to,
    "type": _type,
    "type_as": _type_as,
    "cpu": _cpu,
    "cuda": _cuda,
    "device": property(lambda self: CPU, doc="The device, always the CPU."),
    "pin_memory": _cpu,
    "get_device": _get_device,
    "is_cpu": property(lambda self: True, doc="True: there is only the CPU."),
    **{name: _never("there is only the CPU") for name in ("is_cuda", "is_mps", "is_meta")},
    **{
        name: _never("all tensors are dense and of plain numbers")
        for name in ("is_nested", "is_quantized", "is_sparse")
    },
    **{name: _converter(name, dtype) for name, dtype in _CONVERTERS.items()},
}
for _name, _value in _METHODS.items():
    attach("tensor", _name, _value)
