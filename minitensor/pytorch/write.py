"""Writing the zip archives that `torch.load` reads, with `weights_only` too.

A pickle is written instruction by instruction; it names PyTorch's functions, which need not be
installed here.
"""

from __future__ import annotations

import pickle
import struct
import sys
import zipfile
from collections.abc import Mapping
from typing import IO, Any

import numpy as np

_ROOT = "archive"
_ALIGN = 64  # bytes, so that PyTorch can map a storage into memory
_STORAGES = {
    "float16": "HalfStorage", "float32": "FloatStorage", "float64": "DoubleStorage",
    "bfloat16": "BFloat16Storage", "int8": "CharStorage", "int16": "ShortStorage",
    "int32": "IntStorage", "int64": "LongStorage", "uint8": "ByteStorage", "bool": "BoolStorage",
}  # fmt: skip


def write_pytorch(
    tree: Any, arrays: Mapping[str, np.ndarray], ties: Mapping[str, str], file: IO[bytes]
) -> None:
    """Write an object, as `serialize` describes it, and its arrays to a file.

    - `tree`: numbers, texts, None and lists as they are, the rest a dict of one tag.
    - `arrays`: those of the tensors in it by name, contiguous.
    - `ties`: further names, for arrays that are there under another.
    """
    keys = {name: str(number) for number, name in enumerate(arrays)}
    keys.update({name: keys[first] for name, first in ties.items()})
    pickler = _Pickler({**arrays, **{name: arrays[first] for name, first in ties.items()}}, keys)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        entries: dict[str, bytes | np.ndarray] = {
            "data.pkl": pickler.pickle(tree),
            ".format_version": b"1",
            ".storage_alignment": str(_ALIGN).encode(),
            "byteorder": sys.byteorder.encode(),
            **{f"data/{keys[name]}": array for name, array in arrays.items()},
            "version": b"3\n",
        }
        for name, content in entries.items():
            info = zipfile.ZipInfo(f"{_ROOT}/{name}")
            data: Any = content
            if isinstance(content, np.ndarray):
                data = content.reshape(-1).view(np.uint8).data
                large = 20 if data.nbytes * 1.05 > zipfile.ZIP64_LIMIT else 0  # for its lengths
                gap = -(archive.start_dir + 30 + len(info.filename) + 4 + large) % _ALIGN
                info.extra = struct.pack("<2sH", b"FB", gap) + bytes(gap)
            info.file_size = len(data)
            with archive.open(info, "w") as entry:
                entry.write(data)


class _Pickler:
    """Writes a tree as a pickle of protocol 2, PyTorch's."""

    def __init__(self, arrays: Mapping[str, np.ndarray], keys: Mapping[str, str]) -> None:
        self.arrays, self.keys = arrays, keys
        self.parts: list[bytes] = []

    def pickle(self, tree: Any) -> bytes:
        self._value(tree)
        return b"".join([pickle.PROTO, b"\2", *self.parts, pickle.STOP])

    def _put(self, *parts: bytes) -> None:
        self.parts.extend(parts)

    def _name(self, module: str, name: str) -> None:
        self._put(pickle.GLOBAL, f"{module}\n{name}\n".encode())

    def _value(self, x: Any) -> None:
        """Write instructions that push a value."""
        if isinstance(x, dict):
            tag, value = next(iter(x.items()))
            getattr(self, f"_{tag}")(value, **dict(list(x.items())[1:]))
        elif isinstance(x, list):
            self._put(pickle.EMPTY_LIST, pickle.MARK)
            self._values(x)
            self._put(pickle.APPENDS)
        elif x is None or x is True or x is False:
            self._put({None: pickle.NONE, True: pickle.NEWTRUE, False: pickle.NEWFALSE}[x])
        elif isinstance(x, int):
            if -(2**31) <= x < 2**31:
                self._put(pickle.BININT, struct.pack("<i", x))
            else:
                data = x.to_bytes(x.bit_length() // 8 + 1, "little", signed=True)
                short = len(data) < 256
                self._put(pickle.LONG1 if short else pickle.LONG4)
                self._put(struct.pack("<B" if short else "<I", len(data)), data)
        elif isinstance(x, float):
            self._put(pickle.BINFLOAT, struct.pack(">d", x))
        else:
            data = x.encode("utf-8", "surrogatepass")
            self._put(pickle.BINUNICODE, struct.pack("<I", len(data)), data)

    def _values(self, xs: Any) -> None:
        for x in xs:
            self._value(x)

    def _dict(self, value: dict[str, Any]) -> None:
        self._pairs(value.items())

    def _pairs(self, value: Any) -> None:
        self._put(pickle.EMPTY_DICT, pickle.MARK)
        for pair in value:
            self._values(pair)
        self._put(pickle.SETITEMS)

    def _tuple(self, value: list[Any]) -> None:
        self._put(pickle.MARK)
        self._values(value)
        self._put(pickle.TUPLE)

    def _call(self, module: str, name: str, *arguments: Any) -> None:
        self._name(module, name)
        self._tuple(list(arguments))
        self._put(pickle.REDUCE)

    def _counter(self, value: dict[str, Any]) -> None:
        self._call("collections", "Counter", value)

    def _set(self, value: list[Any]) -> None:
        self._call("builtins", "set", value)

    def _bytes(self, value: str) -> None:
        self._call("_codecs", "encode", value, "latin1")

    def _device(self, value: str) -> None:
        self._call("torch", "device", value)

    def _namespace(self, value: dict[str, Any]) -> None:
        self._name("argparse", "Namespace")
        self._put(pickle.EMPTY_TUPLE, pickle.NEWOBJ)
        self._dict(value)
        self._put(pickle.BUILD)

    def _dtype(self, value: str) -> None:
        self._name("torch", value)

    def _array(self, value: str) -> None:
        self._tensor(value)

    def _tensor(self, value: str, requires_grad: bool = False) -> None:
        array = self.arrays[value]
        self._name("torch._utils", "_rebuild_tensor_v2")
        self._put(pickle.MARK, pickle.MARK)
        self._value("storage")
        self._name("torch", _STORAGES[array.dtype.name])
        self._values([self.keys[value], "cpu", array.size])
        self._put(pickle.TUPLE, pickle.BINPERSID)
        strides = [1]
        for size in array.shape[:0:-1]:
            strides.append(strides[-1] * max(size, 1))
        self._value(0)
        self._tuple(list(array.shape))
        self._tuple(strides[array.ndim - 1 :: -1] if array.ndim else [])
        self._value(requires_grad)
        self._call("collections", "OrderedDict")  # of hooks
        self._put(pickle.TUPLE, pickle.REDUCE)
