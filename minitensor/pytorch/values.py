"""The names that a pickle of PyTorch may use, and what they make here.

The memory of tensors is told apart from the tensors: a `Storage` is a run of bytes in the file, and
each tensor shows part of one, by an offset and strides. Tensors that shared memory share it again.
"""

from __future__ import annotations

import argparse
import math
import re
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core import Size, Tensor, wrap
from ..devices import device
from ..dtype import as_dtype, as_public, dtype
from ..files import shown

_DIMS_MOST = 64
_TYPES = {
    "Float": "float32", "Double": "float64", "Half": "float16", "BFloat16": "bfloat16",
    "Long": "int64", "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8",
    "Bool": "bool",
}  # fmt: skip
STORAGES = {f"torch.{name}Storage": type_ for name, type_ in _TYPES.items()}
STORAGES["torch.storage.UntypedStorage"] = "uint8"
WIDTHS = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8, "bool": 1, "uint8": 1,
          "int8": 1, "int16": 2, "int32": 4, "int64": 8}  # fmt: skip
# What has a name in PyTorch's files and nothing here that it could be.
_LACKING = {
    "_rebuild_sparse_tensor": "a sparse tensor",
    "_rebuild_qtensor": "a quantized tensor",
    "_rebuild_meta_tensor_no_storage": "a tensor without data",
    "_rebuild_nested_tensor": "a nested tensor",
    "_rebuild_wrapper_subclass": "a tensor of another class",
    "complex": "a complex number",
}


@dataclass(frozen=True)
class Name:
    """A function or class that a pickle names, one of the tables below."""

    name: str


class Storage:
    """The memory of tensors: bytes, which the file's reader fills once they are known.

    - `raw`: the bytes.
    - `swapped`: numbers of more than one byte are stored in the other order.
    """

    def __init__(self, raw: np.ndarray, type_: str, swapped: bool) -> None:
        self.raw, self.type, self.swapped = raw, type_, swapped
        self._arrays: dict[str, np.ndarray] = {}

    def array(self, type_: str) -> np.ndarray:
        """Return the elements, of a type; their values are right after `fill`."""
        if type_ not in self._arrays:
            width = WIDTHS[type_]
            if self.raw.size % width:
                raise ValueError(f"it has {self.raw.size} bytes as numbers of {type_}")
            try:
                found = self.raw.view(as_dtype(type_))
            except (ImportError, TypeError):  # no ml_dtypes: float32 holds all of bfloat16
                found = np.empty(self.raw.size // width, np.float32)
            self._arrays[type_] = found
        return self._arrays[type_]

    def fill(self) -> None:
        """Finish the arrays, now that `raw` is read; ValueError for bytes that are no bool."""
        if self.swapped and (width := WIDTHS[self.type]) > 1:
            self.raw.view(f"u{width}").byteswap(inplace=True)
        for type_, found in self._arrays.items():
            if type_ == "bool" and (self.raw > 1).any():
                raise ValueError("it has a tensor of type bool with bytes that are not 0 or 1")
            if type_ == "bfloat16" and found.dtype == np.float32:
                np.left_shift(self.raw.view(np.uint16), np.uint32(16), out=found.view(np.uint32))


def kind(x: Any) -> str:
    """Return what a value is, in words."""
    return x.name if isinstance(x, Name) else f"a {type(x).__name__}"


def named(name: str) -> Any:
    """Return what a pickle's name stands for; ValueError for one that is not data."""
    name = name.replace("__builtin__.", "builtins.").replace("numpy.core.", "numpy._core.")
    name = name.replace("torch.cuda.", "torch.")  # of old files
    package, _, last = name.rpartition(".")
    if package == "torch" and last in WIDTHS:
        return as_public(last)
    if name in CALLS or name in STORAGES or name in _MARKERS:
        return Name(name)
    text = shown(name)[1:-1]
    if last in _LACKING and package in ("torch._utils", "builtins"):
        raise ValueError(f"it holds {_LACKING[last]} ({text}), which minitensor does not have")
    if package == "torch" and re.fullmatch(r"[a-z]+\d\w*|\w+Storage", last):
        raise ValueError(f"it holds numbers of type {text}, which minitensor does not have")
    if package.startswith(("torch.nn.modules.", "torch.nn.parallel.")):
        raise ValueError(
            f"it is a whole module, as it asks for {text}: only code can make one; save its "
            "state_dict() in PyTorch instead"
        )
    raise ValueError(
        f"it asks for {text}, which is not data; nothing was run: if you trust the file, load it "
        "in PyTorch and save the state_dict() of its models, and plain values"
    )


# Calls


def _is_sizes(x: Any) -> bool:
    return isinstance(x, tuple) and all(type(n) is int and 0 <= n < 2**63 for n in x)


def _wrong(name: str, arguments: Any) -> ValueError:
    kinds = ", ".join(map(kind, arguments[:9]))
    return ValueError(f"its pickle is damaged: it calls {name} with ({kinds})")


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, grad: Any, type_: str) -> Tensor:
    """Return a tensor over a part of a storage; ValueError for a part that is not there."""
    if not isinstance(storage, Storage) or type(grad) is not bool:
        raise ValueError("its pickle is damaged: a tensor has no storage")
    array = storage.array(type_)
    good = _is_sizes(size) and _is_sizes(stride) and _is_sizes((offset,))
    if not good or len(size) != len(stride) or len(size) > _DIMS_MOST:
        raise ValueError(
            f"it has a tensor of shape {_shown(size)} with strides {_shown(stride)} from element "
            f"{_shown(offset)}"
        )
    empty = 0 in size
    last = -1 if empty else offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if last >= array.size:
        raise ValueError(
            f"it has a tensor of shape {_shown(size)} that reaches to element {last} of a storage "
            f"of {array.size}"
        )
    if math.prod(n for n in size if n) * array.itemsize >= 2**63:
        raise ValueError(f"it has a tensor of shape {_shown(size)}, which is too large")
    if grad and type_ not in ("float16", "bfloat16", "float32", "float64"):
        raise ValueError(f"it has a tensor of {type_} that requires a gradient")
    if empty:
        found = np.empty(size, array.dtype)
    else:
        strides = [s * array.itemsize if n > 1 else 0 for n, s in zip(size, stride, strict=True)]
        if array.flags.c_contiguous and math.prod(size) and _follow(size, stride):
            found = array[offset : offset + math.prod(size)].reshape(size)
        else:
            found = np.ndarray(size, array.dtype, array, offset * array.itemsize, strides)
    made: Tensor = wrap(found)
    return made.requires_grad_() if grad else made


def _follow(size: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """Return True if the elements lie one after the other."""
    expected = 1
    for n, s in zip(size[::-1], stride[::-1], strict=True):
        if n > 1 and s != expected:
            return False
        expected *= n
    return True


def _shown(x: Any) -> str:
    return shown(x) if isinstance(x, tuple | int | str) else kind(x)


def _tensor_v2(machine: Any, arguments: tuple[Any, ...]) -> Tensor:
    if len(arguments) not in (6, 7) or not isinstance(arguments[0], Storage):
        raise _wrong("_rebuild_tensor_v2", arguments)
    if len(arguments) == 7 and arguments[6]:
        raise ValueError("it holds a conjugate or negated view, which minitensor does not have")
    storage, offset, size, stride, grad = arguments[:5]
    return _tensor(storage, offset, size, stride, grad, storage.type)


def _tensor_v1(machine: Any, arguments: tuple[Any, ...]) -> Tensor:
    if len(arguments) != 4 or not isinstance(arguments[0], Storage):
        raise _wrong("_rebuild_tensor", arguments)
    storage, offset, size, stride = arguments
    return _tensor(storage, offset, size, stride, False, storage.type)


def _tensor_v3(machine: Any, arguments: tuple[Any, ...]) -> Tensor:
    """The tensor of a type that has no storage of its own, or none that PyTorch names."""
    if len(arguments) not in (7, 8) or not isinstance(arguments[6], np.dtype | dtype):
        raise _wrong("_rebuild_tensor_v3", arguments)
    storage, offset, size, stride, grad = arguments[:5]
    return _tensor(storage, offset, size, stride, grad, arguments[6].name)


def _parameter(machine: Any, arguments: tuple[Any, ...]) -> Tensor:
    """A tensor that requires a gradient or not; attributes that were given to it are left out."""
    if len(arguments) not in (3, 4) or not isinstance(arguments[0], Tensor):
        raise _wrong("_rebuild_parameter", arguments)
    data, grad = arguments[:2]
    if type(grad) is not bool or (grad and not data.is_floating_point()):
        raise _wrong("_rebuild_parameter", arguments)
    made: Tensor = wrap(data._array)
    return made.requires_grad_(grad)


def _with_attributes(machine: Any, arguments: tuple[Any, ...]) -> Any:
    """A tensor, without the attributes that were given to it."""
    if len(arguments) != 4 or not isinstance(arguments[0], Name):
        raise _wrong("_rebuild_from_type_v2", arguments)
    function, type_, inner, _ = arguments
    if type_ not in (Name("torch.Tensor"), Name("torch.nn.parameter.Parameter")):
        raise ValueError(f"it holds a tensor of the class {kind(type_)}")
    if function.name not in _REBUILD or not isinstance(inner, tuple):
        raise _wrong("_rebuild_from_type_v2", arguments)
    return CALLS[function.name](machine, inner)


def _dict_of(make: Any) -> Callable[[Any, tuple[Any, ...]], Any]:
    def made(machine: Any, arguments: tuple[Any, ...]) -> Any:
        found = make()
        if not arguments:
            return found
        given = arguments[0]
        if make is Counter and type(given) is dict and len(arguments) == 1:
            found.update(given)
            return found
        if type(given) is not list or len(arguments) != 1:
            raise _wrong(make.__name__, arguments)
        for pair in given:  # as Python 2 wrote them
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                raise _wrong(make.__name__, arguments)
            found[machine.key(pair[0])] = pair[1]
        return found

    return made


def _set_of(make: Any) -> Callable[[Any, tuple[Any, ...]], Any]:
    def made(machine: Any, arguments: tuple[Any, ...]) -> Any:
        if len(arguments) != 1 or not isinstance(arguments[0], list | tuple):
            raise _wrong(make.__name__, arguments)
        return make(map(machine.key, arguments[0]))

    return made


def _bytes(machine: Any, arguments: tuple[Any, ...]) -> bytes:
    if len(arguments) == 2 and isinstance(arguments[0], str) and arguments[1] == "latin1":
        return arguments[0].encode("latin1")
    raise _wrong("_codecs.encode", arguments)


def _bytearray(machine: Any, arguments: tuple[Any, ...]) -> bytearray:
    if arguments and (len(arguments) > 1 or not isinstance(arguments[0], bytes)):
        raise _wrong("bytearray", arguments)
    return bytearray(*arguments)


def _size(machine: Any, arguments: tuple[Any, ...]) -> Size:
    if len(arguments) != 1 or not _is_sizes(arguments[0]):
        raise _wrong("torch.Size", arguments)
    return Size(arguments[0])


def _device(machine: Any, arguments: tuple[Any, ...]) -> device:
    good = 1 <= len(arguments) <= 2 and isinstance(arguments[0], str) and len(arguments[0]) < 50
    if not good or (len(arguments) == 2 and type(arguments[1]) not in (int, type(None))):
        raise _wrong("torch.device", arguments)
    try:
        return device(*arguments)
    except RuntimeError as error:
        raise ValueError(str(error)) from None


def _namespace(machine: Any, arguments: tuple[Any, ...]) -> argparse.Namespace:
    if arguments:
        raise _wrong("argparse.Namespace", arguments)
    return argparse.Namespace()


# NumPy


def _numpy_type(machine: Any, arguments: tuple[Any, ...]) -> np.dtype[Any]:
    name = arguments[0] if arguments else None
    if not isinstance(name, str) or not re.fullmatch("[<|=]?(b1|[iu][1248]|f[248])", name):
        raise ValueError(f"it holds a NumPy array of the type {_shown(name)}")
    return np.dtype(name)


def _numpy_array(machine: Any, arguments: tuple[Any, ...]) -> np.ndarray:
    if len(arguments) != 3 or arguments[0] != Name("numpy.ndarray"):
        raise _wrong("numpy._core.multiarray._reconstruct", arguments)
    return np.empty(0, np.int8)  # the values follow, for `set_array_state`


def _numpy_scalar(machine: Any, arguments: tuple[Any, ...]) -> Any:
    good = len(arguments) == 2 and isinstance(arguments[0], np.dtype)
    if not good or type(arguments[1]) is not bytes or len(arguments[1]) != arguments[0].itemsize:
        raise _wrong("numpy._core.multiarray.scalar", arguments)
    return np.frombuffer(arguments[1], arguments[0])[0]


def set_array_state(array: np.ndarray, state: Any) -> None:
    """Give an array of NumPy its shape, type, order and bytes; ValueError if they do not fit."""
    good = isinstance(state, tuple) and len(state) == 5 and _is_sizes(state[1])
    if not good or not isinstance(state[2], np.dtype) or type(state[4]) is not bytes:
        raise ValueError("its pickle is damaged: it has a NumPy array without values")
    _, shape, type_, fortran, data = state
    size = math.prod(shape) * type_.itemsize
    large = math.prod(n for n in shape if n) * type_.itemsize >= 2**63
    if len(shape) > _DIMS_MOST or large or size != len(data) or array.size:
        raise ValueError(f"it has a NumPy array of shape {shown(shape)} with {len(data)} bytes")
    values: Any = (1, shape, type_, fortran is True, data)
    array.__setstate__(values)


_REBUILD: dict[str, Callable[[Any, tuple[Any, ...]], Any]] = {
    "torch._utils._rebuild_tensor": _tensor_v1,
    "torch._utils._rebuild_tensor_v2": _tensor_v2,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
}
# The functions and classes that a pickle may call: of the machine and the arguments.
CALLS: dict[str, Callable[[Any, tuple[Any, ...]], Any]] = {
    **_REBUILD,
    "torch._tensor._rebuild_from_type_v2": _with_attributes,
    "torch.Size": _size,
    "torch.device": _device,
    "collections.OrderedDict": _dict_of(OrderedDict),
    "collections.Counter": _dict_of(Counter),
    "builtins.set": _set_of(set),
    "builtins.frozenset": _set_of(frozenset),
    "builtins.bytearray": _bytearray,
    "_codecs.encode": _bytes,
    "argparse.Namespace": _namespace,
    "numpy.dtype": _numpy_type,
    "numpy._core.multiarray._reconstruct": _numpy_array,
    "numpy._core.multiarray.scalar": _numpy_scalar,
}
# Those that it may name alone, as an argument.
_MARKERS = {"torch.Tensor", "torch.nn.parameter.Parameter", "numpy.ndarray"}
