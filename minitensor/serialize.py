"""Checkpoints: nested dicts, lists, numbers and tensors in one safetensors file.

The tensors are stored under their path in the object ("model.encoder.weight"), so that any reader
of safetensors sees a plain state dict; the nesting is stored as JSON in the metadata.
Nothing is ever unpickled: reading a file from elsewhere runs no code. The whole header is checked
before a tensor is made, and no tensor is larger than the bytes in the file.

    8 bytes: the length of the header | the header, JSON | the bytes of the tensors, without gaps
    {"__metadata__": {key: text}, name: {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}

Source: https://github.com/huggingface/safetensors, section "Format".
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from typing import IO, Any, NamedTuple, TypeGuard

import numpy as np
import safetensors.numpy

from .core import Tensor, wrap
from .devices import check_device
from .dtype import TYPES, bfloat16, dtype, is_dtype
from .files import DEPTH, atomic_write, parse_json, shown

__all__ = ["CheckpointError", "atomic_write", "load", "load_file", "save", "save_file"]

# Keys of the metadata that are not the caller's.
_TREE = "structure"
_TIES = "ties"
_METADATA = "__metadata__"

_HEADER_MOST = 100_000_000  # bytes; the format allows no more
_DIMS_MOST = 64
_BITS_MOST = 14_000  # of an integer in JSON: some 4,200 digits, which Python reads
_TYPES = {
    "F16": "float16", "F32": "float32", "F64": "float64", "I8": "int8", "I16": "int16",
    "I32": "int32", "I64": "int64", "U8": "uint8", "BOOL": "bool", "BF16": "uint16",
}  # fmt: skip


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written or read; the message says which file and why."""


def save_file(
    tensors: Mapping[str, Tensor | np.ndarray], f: Any, metadata: Mapping[str, str] | None = None
) -> None:
    """Write named tensors, and texts about them, to the path `f` or a file open for writing bytes.

    Tensors that share all their memory are stored once, under the first name. Raises TypeError and
    ValueError for names, tensors and texts that no file can hold, CheckpointError if the file
    cannot be written.
    """
    texts = dict(metadata or {})
    for key, text in texts.items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise TypeError(f"save_file: the metadata {shown(key)} is not a text under a text")
        _check_text("the metadata key", key)
        _check_text("the metadata", text)
        if key in (_TREE, _TIES):
            raise ValueError(f"save_file: the metadata key {key!r} is taken: choose another")
    _write(tensors, f, texts)


def _write(tensors: Mapping[str, Any], f: Any, texts: dict[str, str]) -> None:
    arrays: dict[str, np.ndarray] = {}
    ties: dict[str, str] = {}
    known: dict[Any, str] = {}
    for name, t in tensors.items():
        array = _storable(name, t)
        layout = (array.ctypes.data, array.shape, array.strides, array.dtype)
        if array.size and known.setdefault(layout, name) != name:
            ties[name] = known[layout]
        else:
            arrays[name] = np.ascontiguousarray(array).reshape(array.shape)
    if ties:
        texts[_TIES] = json.dumps(ties)
    data = safetensors.numpy.save(arrays, texts or None)
    length = int.from_bytes(data[:8], "little")
    if length > _HEADER_MOST:
        raise ValueError(
            f"save_file: names and texts take {length} bytes, at most {_HEADER_MOST} do"
        )
    if hasattr(f, "write"):
        f.write(data)
        return
    try:
        with atomic_write(f) as file:
            file.write(data)
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"cannot write {os.fspath(f)}: {reason}") from error


def _storable(name: Any, t: Any) -> np.ndarray:
    """Return the array of a tensor to store; TypeError or ValueError if a file cannot hold it."""
    if not isinstance(name, str):
        raise TypeError(f"save_file: the name of a tensor must be a string, not {shown(name)}")
    _check_text("the name", name)
    if name == _METADATA:
        raise ValueError(f"save_file: no tensor can be named {name!r}: choose another name")
    if not isinstance(t, Tensor | np.ndarray | np.generic):
        raise TypeError(f"save_file: {shown(name)} is a {type(t).__name__}, expected a tensor")
    array = t._array if isinstance(t, Tensor) else np.asarray(t)
    if not is_dtype(array.dtype):
        raise TypeError(f"save_file: cannot save {shown(name)}, an array of {array.dtype}")
    return array


def _check_text(what: str, text: str) -> None:
    """Raise ValueError for a text with half of a surrogate pair, which UTF-8 cannot encode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"save_file: {what} {shown(text)} is not Unicode text") from None


# Reading


class _Entry(NamedTuple):
    """The place of a tensor in a file."""

    name: str
    kind: str
    shape: tuple[int, ...]
    begin: int  # of its bytes
    end: int


def load_file(f: Any) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and texts of a safetensors file: a path, or a file open to read bytes.

    Names that were tied come back as one tensor. Without the package `ml_dtypes` numbers of type
    bfloat16 come as float32, which holds them all. It takes as much memory as the file is long, and
    twice that for such numbers. Raises
    CheckpointError for a file that is missing, incomplete or something else.
    """
    name = _name(f)
    try:
        with _opened(f) as (file, size):
            entries, texts = _read_header(file, size)
            tensors = {entry.name: wrap(_read_array(file, entry)) for entry in entries}
    except OSError as error:
        raise CheckpointError(f"cannot read {name}: {error.strerror or error}") from error
    except ValueError as error:
        raise CheckpointError(f"cannot read {name}: {error}") from error
    return _tie(name, tensors, texts), texts


@contextlib.contextmanager
def _opened(f: Any) -> Iterator[tuple[IO[bytes], int]]:
    """A file to read from the beginning, and its length in bytes."""
    if not hasattr(f, "read"):
        with open(f, "rb") as file:
            info = os.fstat(file.fileno())
            if stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode):
                raise ValueError("it is a device")
            if stat.S_ISREG(info.st_mode):
                yield file, info.st_size
                return
            data = file.read()  # of a pipe
    else:
        data = f.read()
        if not isinstance(data, bytes | bytearray):
            raise TypeError("load: expected a path, or a file open for reading bytes")
    yield io.BytesIO(data), len(data)


def _read_header(file: IO[bytes], size: int) -> tuple[list[_Entry], dict[str, str]]:
    """Parse the header of a file of `size` bytes; ValueError if it is not as it should be."""
    begin = file.read(12)
    length = int.from_bytes(begin[:8].ljust(8, b"\0"), "little")
    _check_kind(begin, length, size)
    file.seek(8)
    try:
        header = parse_json(file.read(length))
        if not isinstance(header, dict):
            raise ValueError(f"it is {shown(header)}")
    except ValueError as error:
        raise ValueError(f"it is not a safetensors file: its header: {error}") from None
    texts = header.pop(_METADATA, {})
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise ValueError(f"its {_METADATA} must be texts under their keys, not {shown(texts)}")
    end = 8 + length
    entries = []
    for name, record in header.items():
        try:
            entries.append(_entry(name, record, end))
        except ValueError as error:
            raise ValueError(f"its tensor {shown(name)} {error}") from None
    for entry in sorted(entries, key=lambda entry: (entry.begin, entry.end)):
        if entry.begin != end:
            raise ValueError(
                f"its tensor {shown(entry.name)} begins at byte {entry.begin}, expected {end}: "
                "the tensors must follow one another"
            )
        end = entry.end
    if end != size:
        raise ValueError(
            f"it is incomplete or has been added to: it has {size} bytes, and its header announces "
            f"{end}"
        )
    return entries, texts


def _check_kind(begin: bytes, length: int, size: int) -> None:
    """Raise ValueError unless a file that begins so can be safetensors; its header has `length`."""
    # The length of a header can have any low bytes, those of a pickle too; its high bytes are 0.
    begun = begin[8:9] == b"{" if size > 8 else not any(begin[4:8])
    if not begun and (begin[:2] == b"PK" or (begin[:1] == b"\x80" and begin[1:2] < b"\x06")):
        raise ValueError(
            "it is a pickle, which could run any code; write the state dict with "
            "safetensors.torch.save_file instead"
        )
    if not begun or length > _HEADER_MOST:
        raise ValueError("it is not a safetensors file: it does not begin as one")
    if size < 9 or size < 8 + length:
        raise ValueError(f"it is incomplete, only {size} bytes of it are there")


def _entry(name: str, record: Any, start: int) -> _Entry:
    """Parse a header's entry of a tensor whose data starts at a byte; ValueError if wrong."""
    if not isinstance(record, dict):
        raise ValueError(f"has no type and shape, but {shown(record)}")
    kind, shape, offsets = record.get("dtype"), record.get("shape"), record.get("data_offsets")
    if not isinstance(kind, str) or kind not in _TYPES:
        raise ValueError(f"is of type {shown(kind)}, which minitensor does not have")
    if not _is_sizes(shape) or len(shape) > _DIMS_MOST:
        raise ValueError(f"has the shape {shown(shape)}, expected at most {_DIMS_MOST} sizes")
    if not _is_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"has the data_offsets {shown(offsets)}, expected begin and end")
    width = np.dtype(_TYPES[kind]).itemsize
    if math.prod(size for size in shape if size) * width >= 2**63:  # NumPy wants it of empty ones
        raise ValueError(f"has the shape {shown(shape)}, which is too large")
    if math.prod(shape) * width != offsets[1] - offsets[0]:
        raise ValueError(
            f"of type {kind} and shape {shown(tuple(shape))} needs "
            f"{math.prod(shape) * width} bytes, the header gives it {offsets[1] - offsets[0]}"
        )
    return _Entry(name, kind, tuple(shape), start + offsets[0], start + offsets[1])


def _is_sizes(x: Any) -> TypeGuard[list[int]]:
    return isinstance(x, list) and all(type(size) is int and 0 <= size < 2**63 for size in x)


def _read_array(file: IO[bytes], entry: _Entry) -> np.ndarray:
    """Return the array of a tensor in a file."""
    found = np.empty(entry.shape, _TYPES[entry.kind])
    file.seek(entry.begin)
    got = file.readinto(found.reshape(-1).view(np.uint8)) if found.size else 0  # type: ignore[attr-defined]
    if got != found.nbytes:
        raise ValueError(f"its tensor {shown(entry.name)} is incomplete")
    if entry.kind == "BF16":
        try:
            return found.view(bfloat16.dtype)
        except ImportError:  # its bits are the upper half of a float32
            return (found.astype(np.uint32) << 16).view(np.float32)
    if entry.kind == "BOOL" and (found.view(np.uint8) > 1).any():
        raise ValueError(
            f"its tensor {shown(entry.name)} of type BOOL has bytes that are not 0 or 1"
        )
    return found


def _tie(name: str, tensors: dict[str, Tensor], texts: dict[str, str]) -> dict[str, Tensor]:
    """Return `tensors` with an entry for each alias; the text that lists them is removed."""
    try:
        ties = parse_json(texts.pop(_TIES, "{}"))
        if not isinstance(ties, dict):
            raise ValueError(f"they are {shown(ties)}")
        for alias, first in ties.items():
            if alias in tensors or not isinstance(first, str) or first not in tensors:
                raise ValueError(f"{shown(alias)} cannot be another name of {shown(first)}")
    except ValueError as error:
        raise CheckpointError(f"cannot read {name}: its ties are damaged: {error}") from error
    return tensors | {alias: tensors[first] for alias, first in ties.items()}


# Objects


def save(obj: Any, f: Any) -> None:
    """Write `obj` to the path `f`, or to a file open for writing bytes.

    It may consist of dicts, lists, tuples, tensors, arrays, dtypes, numbers, strings, bools and
    None. A tensor that occurs twice, or shares all its memory with another, is stored once and
    comes back as one. Raises TypeError for anything else, saying where it is, ValueError for what
    nests too deep; CheckpointError if the file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    tree = json.dumps(_encode(obj, (), tensors))
    _write(tensors, f, {_TREE: tree})


def load(f: Any, map_location: Any = None, *, weights_only: bool = True) -> Any:
    """Return the object that `save` wrote to the path `f`, or to a file open for reading bytes.

    Any other safetensors file gives a dict of its tensors by name. `map_location` may only be the
    CPU, and `weights_only` makes no difference: a file never holds code. Raises CheckpointError for
    a file that is missing, incomplete or of another format.
    """
    if map_location is not None and not callable(map_location):
        check_device(map_location)
    tensors, texts = load_file(f)
    if _TREE not in texts:
        return tensors
    try:
        return _decode(parse_json(texts[_TREE], 3 * DEPTH), tensors)
    except (TypeError, ValueError) as error:  # TypeError: a list as a key
        raise CheckpointError(
            f"cannot read {_name(f)}: its structure is damaged: {error}"
        ) from error


def _name(f: Any) -> str:
    return str(getattr(f, "name", "the file")) if hasattr(f, "read") else os.fsdecode(f)


def _encode(x: Any, path: tuple[str, ...], tensors: dict[str, Tensor]) -> Any:
    """Return JSON for `x`: numbers, strings and lists as they are, the rest a dict of one tag.

    The tensors in it are collected under their names.
    """
    if len(path) > DEPTH:
        raise ValueError(f"save: nested deeper than {DEPTH} levels{_at(path)}")
    if isinstance(x, Tensor):
        stored = {"tensor": _store(x, path, tensors)}
        return {**stored, "requires_grad": True} if x.requires_grad else stored
    if isinstance(x, np.ndarray):
        return {"array": _store(wrap(x), path, tensors)}
    if isinstance(x, np.generic):
        x = x.item()
    if isinstance(x, int) and x.bit_length() > _BITS_MOST:
        raise ValueError(
            f"save: an integer of {x.bit_length()} bits{_at(path)}, at most {_BITS_MOST}"
        )
    if x is None or isinstance(x, bool | int | float | str):
        return x
    if isinstance(x, dict):
        values = [_encode(y, (*path, str(key)), tensors) for key, y in x.items()]
        if all(type(key) is str for key in x):
            return {"dict": dict(zip(x, values, strict=True))}
        keys = [_encode(key, (*path, "key"), tensors) for key in x]
        return {"pairs": list(zip(keys, values, strict=True))}
    if isinstance(x, list | tuple):
        items = [_encode(y, (*path, str(number)), tensors) for number, y in enumerate(x)]
        return items if isinstance(x, list) else {"tuple": items}
    if isinstance(x, np.dtype | dtype):
        return {"dtype": x.name}
    raise TypeError(
        f"save: cannot save a {type(x).__name__}{_at(path)}: only dicts, lists, tuples, tensors, "
        "arrays, numbers, strings and None"
    )


def _at(path: tuple[str, ...]) -> str:
    """Return a place in an object, in words."""
    return f" at {shown('.'.join(path))[1:-1]}" if path else ""


def _store(t: Tensor, path: tuple[str, ...], tensors: dict[str, Tensor]) -> str:
    """Return the name that `t` is stored under."""
    name = wanted = ".".join(path).encode("utf-8", "backslashreplace").decode() or "tensor"
    if not is_dtype(t._array.dtype):
        raise TypeError(f"save: cannot save an array of {t.dtype} at {shown(name)}")
    number = 2
    while name in tensors or name == _METADATA:
        name = f"{wanted}.{number}"
        number += 1
    tensors[name] = t
    return name


def _decode(x: Any, tensors: dict[str, Tensor]) -> Any:
    """Return the object that JSON stands for; ValueError if it stands for none."""
    if isinstance(x, list):
        return [_decode(y, tensors) for y in x]
    if not isinstance(x, dict):
        return x
    tag, value = next(iter(x.items()), (None, None))
    more = {"requires_grad": True} if tag == "tensor" and len(x) > 1 else {}
    wanted = {"tensor": str, "array": str, "dict": dict, "pairs": list, "tuple": list, "dtype": str}
    if tag not in wanted or x != {tag: value, **more}:
        raise ValueError(f"unknown tag {shown(x)}")
    if not isinstance(value, wanted[tag]):
        raise ValueError(f"{tag} is {shown(value)}, expected a {wanted[tag].__name__}")
    if tag in ("tensor", "array"):
        if value not in tensors:
            raise ValueError(f"there is no tensor {shown(value)}")
        found = tensors[value]
        if more and not found.is_floating_point():
            raise ValueError(f"the tensor {shown(value)} of {found.dtype} requires no gradient")
        return found._array if tag == "array" else found.requires_grad_() if more else found
    if tag == "dict":
        return {key: _decode(y, tensors) for key, y in value.items()}
    if tag == "pairs":
        if not all(isinstance(pair, list) and len(pair) == 2 for pair in value):
            raise ValueError("pairs are not all of two")
        return {_decode(key, tensors): _decode(y, tensors) for key, y in value}
    if tag == "tuple":
        return tuple(_decode(y, tensors) for y in value)
    if value not in TYPES:
        raise ValueError(f"there is no type {shown(value)}")
    return TYPES[value]
