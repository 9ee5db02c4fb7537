"""The files that `torch.save` writes: a zip archive, or what came before it.

    zip      name/data.pkl: the object, in which each tensor names a storage; name/data/0, 1, ...:
             the bytes of the storages, not compressed; name/byteorder: little or big
    before   pickles, one after the other: a magic number, the version, the machine, the object, the
             names of the storages; then each storage: the number of its elements, its bytes

No storage is made before its size is known to be within the file, and none is copied.
"""

from __future__ import annotations

import io
import struct
import sys
import zipfile
import zlib
from typing import IO, Any, Literal

import numpy as np

from ..files import shown
from .machine import Machine
from .values import STORAGES, WIDTHS, Name, Storage

_BEGIN = 15  # bytes: a pickle of a number by which these files are known
_LOCAL = struct.Struct("<4s22xHH")  # of a zip's entry: signature, lengths of name and extra field
_PROTOCOL = 1001


def read_pytorch(file: IO[bytes], size: int) -> Any:
    """Return the object in a file of `size` bytes; ValueError if it is damaged, or not data."""
    file.seek(0)
    return _read_old(file, size) if file.read(1) == b"\x80" else _Archive(file, size).object()


class _Storages:
    """The storages that a pickle names, each made at its first mention."""

    def __init__(self, size: int, swapped: bool) -> None:
        self.left, self.swapped = size, swapped
        self.found: dict[str, Storage] = {}

    def storage(self, what: Any) -> Storage:
        """Return the storage of ("storage", type, key, device, number of elements)."""
        # Files of the old kind have None in the sixth place, which was for views.
        if not isinstance(what, tuple) or len(what) not in (5, 6) or what[0] != "storage":
            raise ValueError("its pickle refers to something outside of it that is no storage")
        type_, key, _, count = what[1:5]
        if not isinstance(type_, Name) or type_.name not in STORAGES or not isinstance(key, str):
            raise ValueError("its pickle is damaged: a storage has no type or name")
        if type(count) is not int or not 0 <= count < 2**63 or what[5:] not in ((), (None,)):
            raise ValueError(f"its storage {shown(key)} has no size")
        wanted = STORAGES[type_.name]
        length = count * WIDTHS[wanted]
        known = self.found.get(key)
        if known is None:
            self.left -= length
            if self.left < 0:
                raise ValueError(
                    f"its storage {shown(key)} of {length} bytes is larger than the file"
                )
            known = self.found[key] = Storage(np.empty(length, np.uint8), wanted, self.swapped)
        elif known.type != wanted or known.raw.size != length:
            raise ValueError(f"its storage {shown(key)} has two types or sizes")
        return known


class _Archive:
    """A zip archive of PyTorch's, checked as far as it is read."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.file, self.size = file, size
        try:
            infos = zipfile.ZipFile(file).infolist()
        except (zipfile.BadZipFile, NotImplementedError, struct.error, OverflowError):
            raise ValueError("it is a pickle in a zip archive, damaged or incomplete") from None
        self.entries = {info.filename: info for info in infos}
        if len(self.entries) != len(infos):
            names = [info.filename for info in infos]
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"its entry {shown(twice)} occurs twice")
        pickles = [n for n in self.entries if n.count("/") == 1 and n.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError("it is a zip archive, but not one of PyTorch's: it has no data.pkl")
        self.root = pickles[0].removesuffix("data.pkl")
        if f"{self.root}constants.pkl" in self.entries:
            raise ValueError("it is a TorchScript program; save the state_dict() of the model")

    def object(self) -> Any:
        """Return the object in the archive."""
        order = self._bytes("byteorder") if f"{self.root}byteorder" in self.entries else b"little"
        if order not in (b"little", b"big"):
            raise ValueError(f"its byteorder is {shown(order)}, expected little or big")
        storages = _Storages(self.size, swapped=order.decode() != sys.byteorder)
        program = self._bytes("data.pkl")
        result = Machine(io.BytesIO(program), len(program), storages.storage).run()
        for key, storage in storages.found.items():
            self._read(f"data/{key}", storage.raw)
            storage.fill()
        return result

    def _find(self, name: str) -> tuple[zipfile.ZipInfo, int]:
        """Return an entry and where its bytes begin; ValueError if they are not there as such."""
        info = self.entries.get(self.root + name)
        if info is None:
            raise ValueError(f"it has no entry {shown(name)}")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise ValueError(f"its entry {shown(name)} is compressed, as PyTorch never writes it")
        self.file.seek(info.header_offset)
        header = self.file.read(_LOCAL.size)
        if len(header) < _LOCAL.size or header[:4] != b"PK\3\4":
            raise ValueError(f"its entry {shown(name)} is not where the archive says")
        _, *lengths = _LOCAL.unpack(header)
        begin = info.header_offset + _LOCAL.size + sum(lengths)
        if info.file_size != info.compress_size or begin + info.file_size > self.size:
            raise ValueError(f"its entry {shown(name)} is incomplete")
        return info, begin

    def _read(self, name: str, into: np.ndarray) -> None:
        """Fill an array with the bytes of an entry."""
        info, begin = self._find(name)
        if info.file_size != into.size:
            raise ValueError(
                f"its entry {shown(name)} has {info.file_size} bytes, the tensors need {into.size}"
            )
        self.file.seek(begin)
        if into.size and self.file.readinto(into) != into.size:  # type: ignore[attr-defined]
            raise ValueError(f"its entry {shown(name)} is incomplete")
        if zlib.crc32(into.data) != info.CRC:
            raise ValueError(f"its entry {shown(name)} is damaged: its checksum is another")

    def _bytes(self, name: str) -> bytes:
        """Return the bytes of a small entry."""
        found = np.empty(min(self._find(name)[0].file_size, self.size), np.uint8)
        self._read(name, found)
        return found.tobytes()


def _read_old(file: IO[bytes], size: int) -> Any:
    """Return the object in a file as PyTorch wrote it before version 1.6."""

    def read(storages: _Storages | None = None) -> Any:
        def none(what: Any) -> Storage:
            raise ValueError("its pickle is damaged: a storage is where none should be")

        make = none if storages is None else storages.storage
        return Machine(file, size - file.tell(), make).run()

    file.seek(_BEGIN)
    if read() != _PROTOCOL:
        raise ValueError("it is of a version of PyTorch's files that is not known")
    machine = read()
    if not isinstance(machine, dict) or type(machine.get("little_endian")) is not bool:
        raise ValueError("it does not say on which kind of machine it was written")
    order: Literal["little", "big"] = "little" if machine["little_endian"] else "big"
    storages = _Storages(size, swapped=order != sys.byteorder)
    result = read(storages)
    keys = read()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ValueError("its pickle is damaged: it lists no storages")
    if sorted(keys) != sorted(storages.found):
        raise ValueError("it lists other storages than its tensors need")
    for key in keys:
        storage = storages.found[key]
        count = storage.raw.size // WIDTHS[storage.type]
        number = file.read(8)
        if int.from_bytes(number, order) != count:
            raise ValueError(f"its storage {shown(key)} has another size than its tensors need")
        if storage.raw.size and file.readinto(storage.raw) != storage.raw.size:  # type: ignore[attr-defined]
            raise ValueError(f"it is incomplete: its storage {shown(key)} is not all there")
        storage.fill()
    return result
