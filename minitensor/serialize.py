"""Checkpoints: nested dicts, lists, numbers and tensors in one safetensors file.

The tensors are stored under their path in the object ("model.encoder.weight"), so that any reader
of safetensors sees a plain state dict; how they hang together is told by JSON in the metadata.
Nothing is ever unpickled: reading a file from elsewhere runs no code.

A file is replaced only when the new one is complete and on the disk. Whatever goes wrong before,
the old one stays.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from .devices import check_device
from .dtype import DTYPES, as_dtype
from .tensor import Tensor, wrap

# What the metadata says beyond the caller's own.
_TREE = "structure"
_TIES = "ties"


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written or read; the message says which file and why."""


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[Any]:
    """A file to write; at the end of the block it takes the place of `path`, complete and on disk.

    `mode` is "wb" or "w" (UTF-8). If the block raises, `path` stays as it was.
    """
    target = Path(path)
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(draft, mode.replace("w", "x"), encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, target)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def save_file(tensors: dict[str, Tensor], f: Any, metadata: dict[str, str] | None = None) -> None:
    """Write named tensors, and texts about them, to the path `f` or a file open for writing bytes.

    Tensors that share all their memory are stored once, under the first name. Raises
    CheckpointError if the file cannot be written.
    """
    arrays: dict[str, np.ndarray] = {}
    ties: dict[str, str] = {}
    known: dict[Any, str] = {}
    for name, t in tensors.items():
        array = t._array
        layout = (array.ctypes.data, array.shape, array.strides, array.dtype)
        if array.size and known.setdefault(layout, name) != name:
            ties[name] = known[layout]
        else:
            arrays[name] = np.ascontiguousarray(array).reshape(array.shape)
    texts = {**(metadata or {}), **({_TIES: json.dumps(ties)} if ties else {})}
    data = safetensors.numpy.save(arrays, texts or None)
    if hasattr(f, "write"):
        f.write(data)
        return
    try:
        with atomic_write(f) as file:
            file.write(data)
    except OSError as error:
        raise CheckpointError(f"cannot write {os.fspath(f)}: {error.strerror}") from error


def load_file(f: Any) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the texts in any safetensors file: a path, or a file open for reading bytes.

    Names that were tied come back as one tensor. Raises CheckpointError for a file that is missing,
    incomplete or something else.
    """
    name = _name(f)
    try:
        data = f.read() if hasattr(f, "read") else Path(f).read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read {name}: {error.strerror}") from error
    try:
        arrays = safetensors.numpy.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        texts = header.pop("__metadata__", {})
        tensors = {key: wrap(arrays[key]) for key in header}
        ties = json.loads(texts.pop(_TIES, "{}"))
        tensors |= {alias: tensors[first] for alias, first in ties.items()}
    except Exception as error:
        raise CheckpointError(f"cannot read {name}: {_complaint(data, error)}") from error
    return tensors, texts


def save(obj: Any, f: Any) -> None:
    """Write `obj` to the path `f`, or to a file open for writing bytes.

    It may consist of dicts, lists, tuples, tensors, arrays, dtypes, numbers, strings, bools and
    None. A tensor that occurs twice, or shares all its memory with another, is stored once and
    comes back as one. Raises TypeError for anything else, saying where it is; CheckpointError if
    the file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    tree = json.dumps(_encode(obj, (), tensors))
    save_file(tensors, f, {_TREE: tree})


def load(f: Any, map_location: Any = None, *, weights_only: bool = True) -> Any:
    """What `save` wrote to the path `f`, or to a file open for reading bytes.

    Of another safetensors file: its tensors by name. `map_location` may only be the CPU, and
    `weights_only` makes no difference: there is never code in a file. Raises CheckpointError for
    a file that is missing, incomplete or something else.
    """
    if map_location is not None and not callable(map_location):
        check_device(map_location)
    tensors, texts = load_file(f)
    if _TREE not in texts:
        return tensors
    try:
        return _decode(json.loads(texts[_TREE]), tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"cannot read {_name(f)}: its structure is damaged: {error}"
        ) from error


def _name(f: Any) -> str:
    return str(getattr(f, "name", "the file")) if hasattr(f, "read") else os.fspath(f)


def _complaint(data: bytes, error: Exception) -> str:
    """Why `data` is no safetensors file."""
    if data[:2] == b"PK" or data[:1] == b"\x80":
        return (
            "it is a pickle, which could run any code; write the state dict with "
            "safetensors.torch.save_file instead"
        )
    begun = len(data) < 9 or data[8:9] == b"{"
    if begun and len(data) < 8 + int.from_bytes(data[:8].ljust(8, b"\0"), "little") + 1:
        return f"it is incomplete, only {len(data)} bytes of it are there"
    if begun and "incomplete" in str(error):
        return (
            f"it is incomplete or has been added to: its {len(data)} bytes are not those announced"
        )
    return f"it is not a safetensors file ({error})"


def _encode(x: Any, path: tuple[str, ...], tensors: dict[str, Tensor]) -> Any:
    """JSON for `x`: numbers, strings and lists are themselves, the rest a dict of one tag.

    The tensors in it are collected under their names.
    """
    if isinstance(x, Tensor):
        stored = {"tensor": _store(x, path, tensors)}
        return {**stored, "requires_grad": True} if x.requires_grad else stored
    if isinstance(x, np.ndarray):
        return {"array": _store(wrap(x), path, tensors)}
    if isinstance(x, np.generic):
        x = x.item()
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
    if isinstance(x, np.dtype):
        return {"dtype": x.name}
    where = f" at {'.'.join(path)}" if path else ""
    raise TypeError(
        f"save: cannot save a {type(x).__name__}{where}: only dicts, lists, tuples, tensors, "
        "arrays, numbers, strings and None"
    )


def _store(t: Tensor, path: tuple[str, ...], tensors: dict[str, Tensor]) -> str:
    """The name that `t` is stored under."""
    name = wanted = ".".join(path) or "tensor"
    if t.dtype not in DTYPES:
        raise TypeError(f"save: cannot save an array of {t.dtype} at {name}")
    number = 2
    while name in tensors or name == "__metadata__":
        name = f"{wanted}.{number}"
        number += 1
    tensors[name] = t
    return name


def _decode(x: Any, tensors: dict[str, Tensor]) -> Any:
    """The object that JSON stands for."""
    if isinstance(x, list):
        return [_decode(y, tensors) for y in x]
    if not isinstance(x, dict):
        return x
    if "tensor" in x:
        found = tensors[x["tensor"]]
        return found.requires_grad_() if x.get("requires_grad") else found
    if "array" in x:
        return tensors[x["array"]]._array
    if "dict" in x:
        return {key: _decode(y, tensors) for key, y in x["dict"].items()}
    if "pairs" in x:
        return {_decode(key, tensors): _decode(y, tensors) for key, y in x["pairs"]}
    if "tuple" in x:
        return tuple(_decode(y, tensors) for y in x["tuple"])
    if "dtype" in x:
        return as_dtype(x["dtype"])
    raise ValueError(f"unknown tag {next(iter(x), None)!r}")
