"""Checkpoints: nested dicts, lists, numbers and tensors in one safetensors file.

The tensors are stored under their path in the object ("model.encoder.weight"), so that any reader
of safetensors sees a plain state dict; the nesting is stored as JSON in the metadata
(`structure`). Files of PyTorch's are read and written too (`pytorch`), and weights in several files
(`shards`). Reading a file from elsewhere runs no code: nothing is ever unpickled. The whole header
is checked before a tensor is made, and no tensor is larger than the bytes in the file.

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
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeGuard

import numpy as np
import safetensors.numpy

from .core import Tensor, wrap
from .devices import check_device
from .dtype import bfloat16, is_dtype
from .files import DEPTH, atomic_write, parse_json, shown
from .shards import INDEX, read_index, remove_others, split
from .structure import decode, encode

__all__ = [
    "CheckpointError",
    "atomic_write",
    "find_weights",
    "load",
    "load_file",
    "save",
    "save_file",
]

# Keys of the metadata that are not the caller's.
_TREE = "structure"
_TIES = "ties"
_METADATA = "__metadata__"

# A zip archive; an empty one; a file of PyTorch's as it was before version 1.6.
_PYTORCH = (b"PK\3\4", b"PK\5\6", b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.")
_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")  # that people give to files of PyTorch's
_HEADER_MOST = 100_000_000  # bytes; the format allows no more
_DIMS_MOST = 64
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


def _write(
    tensors: Mapping[str, Any], f: Any, texts: dict[str, str], most: float = math.inf
) -> None:
    """Write tensors and texts to a file, or to several of at most `most` bytes and their index."""
    arrays, ties = _distinct(tensors)
    if ties:
        texts[_TIES] = json.dumps(ties)
    if sum(array.nbytes for array in arrays.values()) <= most:
        _put(arrays, f, texts)
        if most < math.inf:
            remove_others(Path(f), ())
        return
    path, parts = Path(f), split(arrays, most)
    weight_map, written = {}, []
    for number, part in enumerate(parts, 1):
        name = f"{path.stem}-{number:05}-of-{len(parts):05}{path.suffix}"
        weight_map.update(dict.fromkeys(part, name))
        written.append(name)
        _put(part, path.with_name(name), {"format": "pt"})
    size = sum(array.nbytes for array in arrays.values())
    index = {"metadata": {"total_size": size, **texts}, "weight_map": weight_map}
    with _written(path.with_name(path.name + INDEX)) as file:
        file.write(json.dumps(index, indent=2).encode())
    path.unlink(missing_ok=True)
    remove_others(path, written)


def _put(arrays: dict[str, np.ndarray], f: Any, texts: dict[str, str]) -> None:
    """Write one safetensors file."""
    data = safetensors.numpy.save(arrays, texts or None)
    length = int.from_bytes(data[:8], "little")
    if length > _HEADER_MOST:
        raise ValueError(
            f"save_file: names and texts take {length} bytes, at most {_HEADER_MOST} do"
        )
    with _written(f) as file:
        file.write(data)


def _distinct(tensors: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the arrays to store by name, and the further names of those that occur twice."""
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
    return arrays, ties


@contextlib.contextmanager
def _written(f: Any) -> Iterator[IO[bytes]]:
    """A file to write, which replaces the path `f` when it is complete, or `f` itself."""
    if hasattr(f, "write"):
        yield f
        return
    try:
        with atomic_write(f) as file:
            yield file
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

    The path may also be that of an index of several such files (`model.safetensors.index.json`), or
    of a folder that holds `model.safetensors` or that index. Names that were tied come back as one
    tensor. Without the package `ml_dtypes` numbers of type bfloat16 come as float32, which holds
    them all. It takes as much memory as the file is long, and twice that for such numbers. Raises
    CheckpointError for a file that is missing, incomplete or something else.
    """
    f = _in_folder(f)
    with _opened(f) as (file, size):
        return _read(file, size, f)


def find_weights(folder: str | os.PathLike[str]) -> Path:
    """Return the path of the weights in a folder, a file or an index; CheckpointError if none."""
    one = Path(folder) / "model.safetensors"
    several = one.with_name(one.name + INDEX)
    for path in (one, several):
        if path.is_file():
            return path
    raise CheckpointError(
        f"{os.fsdecode(folder)} has no {one.name}: nor has it an index of several, {several.name}"
    )


def _in_folder(f: Any) -> Any:
    """Return the file to read in a folder, or `f` itself."""
    _name(f)  # TypeError for what is no path
    return f if hasattr(f, "read") or not os.path.isdir(f) else find_weights(os.fsdecode(f))


def _read(file: IO[bytes], size: int, f: Any) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and texts of the file of `f`, open; ValueError if it is damaged."""
    file.seek(0)
    begin = file.read(8)
    file.seek(0)
    # The length of a header ends in bytes of 0.
    if begin[:1] == b"{" and any(begin[4:]):
        if hasattr(f, "read"):
            raise ValueError("it is an index of files beside it: load it by its path")
        if size > _HEADER_MOST:
            raise ValueError(f"it is not an index: it has {size} bytes")
        tensors, texts = read_index(file.read(), Path(os.fsdecode(f)).parent, _read_shard)
    else:
        tensors, texts = _read_one(file, size)
    return _tie(tensors, texts), texts


def _read_one(file: IO[bytes], size: int) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and texts of one safetensors file; ValueError if it is damaged."""
    entries, texts = _read_header(file, size)
    return {entry.name: wrap(_read_array(file, entry)) for entry in entries}, texts


def _read_shard(path: Path) -> dict[str, Tensor]:
    """Return the tensors in one of the files of an index."""
    with _open(path) as (file, size):
        if not file.read(16).startswith(_PYTORCH):
            return _read_one(file, size)[0]
        found = _read_pytorch(file, size)
        if isinstance(found, dict) and all(isinstance(t, Tensor) for t in found.values()):
            return found
        raise ValueError("it is not a state dict")


@contextlib.contextmanager
def _opened(f: Any) -> Iterator[tuple[IO[bytes], int]]:
    """A file to read from the beginning, and its length; what goes wrong is a CheckpointError."""
    try:
        with _open(f) as opened:
            yield opened
    except OSError as error:
        raise CheckpointError(f"cannot read {_name(f)}: {error.strerror or error}") from error
    except ValueError as error:
        raise CheckpointError(f"cannot read {_name(f)}: {error}") from error


@contextlib.contextmanager
def _open(f: Any) -> Iterator[tuple[IO[bytes], int]]:
    if isinstance(f, io.BufferedReader) and isinstance(f.raw, io.FileIO):
        info = os.fstat(f.fileno())
        if stat.S_ISREG(info.st_mode) and f.tell() == 0:
            yield f, info.st_size
            return
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
    file.seek(0)
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
        raise ValueError("it is a pickle: of those, minitensor.load reads the files of PyTorch's")
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


def _tie(tensors: dict[str, Tensor], texts: dict[str, str]) -> dict[str, Tensor]:
    """Return `tensors` with an entry for each alias; the text that lists them is removed."""
    try:
        ties = parse_json(texts.pop(_TIES, "{}"))
        if not isinstance(ties, dict):
            raise ValueError(f"they are {shown(ties)}")
        for alias, first in ties.items():
            if alias in tensors or not isinstance(first, str) or first not in tensors:
                raise ValueError(f"{shown(alias)} cannot be another name of {shown(first)}")
    except ValueError as error:
        raise ValueError(f"its ties are damaged: {error}") from None
    return tensors | {alias: tensors[first] for alias, first in ties.items()}


# Objects


def save(obj: Any, f: Any, *, max_shard_size: int | str | None = None) -> None:
    """Write `obj` to the path `f`, or to a file open for writing bytes.

    - `obj`: dicts, lists, tuples, sets, tensors, arrays, dtypes, devices, numbers, strings, bytes,
      None and `argparse.Namespace`, one in the other; a module or an optimizer stands for its
      `state_dict()`.
    - `f`: a name that ends in .pt, .pth, .bin or .ckpt gives a file that `torch.load` reads (arrays
      come back as tensors), any other name a safetensors file.
    - `max_shard_size`: the most bytes of a safetensors file, such as 2_000_000_000 or "2GB". More
      are written as `name-00001-of-00003.safetensors`, ..., with an index,
      `name.safetensors.index.json`, which `load` reads; files of an earlier such save are deleted.

    A tensor that occurs twice, or shares all its memory with another, is stored once and comes back
    as one (from .pt: as two that share it). Raises TypeError for anything else, saying where it is,
    ValueError for what nests too deep; CheckpointError if the file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    tree = encode(obj, (), tensors)
    suffix = Path(_name(f)).suffix
    if suffix not in _SUFFIXES:
        most = math.inf if max_shard_size is None else _bytes(max_shard_size)
        if most < math.inf and (hasattr(f, "write") or suffix != ".safetensors"):
            raise ValueError("save: max_shard_size asks for a path that ends in .safetensors")
        _write(tensors, f, {"format": "pt", _TREE: json.dumps(tree)}, most)
        return
    if max_shard_size is not None:
        raise ValueError(f"save: a {suffix} file is one: max_shard_size is for .safetensors")
    from .pytorch import write_pytorch  # here, as few need it

    arrays, ties = _distinct(tensors)
    with _written(f) as file:
        write_pytorch(tree, arrays, ties, file)


def _bytes(size: int | str) -> int:
    """Return a number of bytes, given as such or as text; ValueError for anything else."""
    text = size.upper() if isinstance(size, str) else ""
    if found := re.fullmatch(r"(\d{1,9})\s*(|[KMGT]I?)B", text):
        base = 1024 if found[2].endswith("I") else 1000
        size = int(found[1]) * base ** " KMGT".index(found[2][:1] or " ")
    if type(size) is not int or size <= 0:
        raise ValueError(f'save: max_shard_size is {shown(size)}, expected bytes, such as "2GB"')
    return size


def load(
    f: Any, map_location: Any = None, *, weights_only: bool = True, mmap: bool | None = None
) -> Any:
    """Return the object that `save` wrote to the path `f`, or to a file open for reading bytes.

    - `f`: also a file of PyTorch's (`torch.save`), recognised by its content, whatever its name.
      Nothing in it is executed: what is not data (numbers, texts, containers, tensors, arrays,
      types) is refused by name. Any other safetensors file gives a dict of its tensors by name; so
      does the index of several, or a folder with `model.safetensors` or its index.
    - `map_location`: may only be the CPU, where all tensors come.
    - `weights_only`, `mmap`: accepted for PyTorch's sake, without effect.

    Raises CheckpointError for a file that is missing, incomplete, not data or of another format.
    """
    devices = map_location.values() if isinstance(map_location, dict) else [map_location]
    for where in devices:
        if not callable(where):
            check_device(where)
    f = _in_folder(f)
    with _opened(f) as (file, size):
        if file.read(16).startswith(_PYTORCH):
            return _read_pytorch(file, size)
        tensors, texts = _read(file, size, f)
        if _TREE not in texts:
            return tensors
        try:
            return decode(parse_json(texts[_TREE], 3 * DEPTH), tensors)
        except (TypeError, ValueError) as error:  # TypeError: a list as a key
            raise ValueError(f"its structure is damaged: {error}") from None


def _read_pytorch(file: IO[bytes], size: int) -> Any:
    from .pytorch import read_pytorch  # here, as few need it

    return read_pytorch(file, size)


def _name(f: Any) -> str:
    return str(getattr(f, "name", "the file")) if hasattr(f, "read") else os.fsdecode(f)
