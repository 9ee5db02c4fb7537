"""Files: atomic writes, and JSON parsing with limits.

A file is replaced only when the new one is complete and on the disk. If anything goes wrong before,
the old one stays.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import reprlib
import secrets
import stat
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# The deepest nesting that is saved or read. Files in good faith need less, and a function that
# recurses into each level stays within Python's recursion limit.
DEPTH = 64
_CONTAINERS = (list, dict)

_DRAFT = re.compile(r"\.minitensor-([0-9a-f]{8})-[0-9a-f]{8}\.tmp")
_DAY = 24 * 3600.0

_repr = reprlib.Repr()
_repr.maxlevel, _repr.maxdict, _repr.maxstring, _repr.maxother = 2, 3, 50, 50
_repr.maxlist = _repr.maxtuple = 3


def shown(value: Any) -> str:
    """Return the `repr` of a value for a message, in one line of at most 60 characters."""
    text = " ".join(_repr.repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def parse_json(text: str | bytes, depth: int = DEPTH) -> Any:
    """Return the value of a JSON text.

    Raises ValueError, with a short message, for a text that is not JSON or that readers may
    understand differently: a key that occurs twice, values nested deeper than `depth` levels, an
    integer of thousands of digits.
    """
    try:
        text = text if isinstance(text, str) else text.decode()
        value = json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError(f"it is nested deeper than {depth} levels") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8") from None
    except ValueError as error:
        if "int_max_str_digits" in str(error):
            raise ValueError("it has an integer of thousands of digits") from None
        raise
    level = [value]
    for _ in range(depth):
        level = [
            y
            for x in level
            if type(x) in _CONTAINERS
            for y in (x if type(x) is list else x.values())
            if type(y) in _CONTAINERS
        ]
        if not level:
            return value
    raise ValueError(f"it is nested deeper than {depth} levels")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dict of the pairs of a JSON object; ValueError for a key that occurs twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {shown(key)} occurs twice")
            seen.add(key)
    return found


class Keys:
    """The keys that a file gives to dicts: they can be chosen so that all have one hash.

    A dict then looks through all of them for each. Texts, and numbers of 60 bits, are safe.
    """

    MOST = 1000  # of one hash

    def __init__(self) -> None:
        self.alike: Counter[int] = Counter()

    def check(self, key: Any) -> Any:
        """Return a key; ValueError if too many were alike."""
        if isinstance(key, tuple | frozenset) or (type(key) is int and key.bit_length() > 60):
            number = hash(key)
            self.alike[number] += 1
            if self.alike[number] > self.MOST:
                raise ValueError("too many of its keys are alike")
        return key


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[Any]:
    """Open a file to write in a `with` block; at its end the file replaces `path`, flushed to disk.

    - `path`: the file to replace. A symbolic link is followed. Permissions are kept, and the owner
      where the system allows it. A device, a pipe or /dev/stdout is written to directly.
    - `mode`: "wb", or "w" for UTF-8 text, whose lines end in "\\n" on every system.

    If the block raises, `path` stays as it was. The unfinished file has a temporary name and a
    lock: the next write into the folder recognises the file of a process that was killed by its
    missing lock, and deletes it.
    """
    how: Any = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    number = _descriptor(os.fspath(path))
    if number is not None:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()  # keeps the order of what was printed before
        with os.fdopen(os.dup(number), mode, **how) as file:
            yield file
        return
    try:
        old = os.stat(path)
    except FileNotFoundError:
        old = None
    if old is not None and not stat.S_ISREG(old.st_mode):
        with open(path, mode, **how) as file:
            yield file
        return
    target = Path(os.path.realpath(path))
    _sweep(target.parent)
    draft, number = _open_draft(target.parent, 0o666 if old is None else 0o600)
    try:
        with os.fdopen(number, mode, **how) as file:
            yield file
            file.flush()
            if old is not None:
                _make_like(number, old)
            os.fsync(number)
            if fcntl is None:
                file.close()  # Windows cannot replace an open file
            _replace(draft, target)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _replace(draft: Path, target: Path) -> None:
    """Give a file the name of another, which it replaces.

    Windows refuses that while a program has the other open, as a virus scanner has for a moment.
    """
    for _ in range(20 if fcntl is None else 0):
        with contextlib.suppress(PermissionError):
            os.replace(draft, target)
            return
        time.sleep(0.05)
    os.replace(draft, target)


def _descriptor(path: str) -> int | None:
    """Return the file descriptor that a path such as /dev/stdout or /dev/fd/1 means, else None."""
    own = {"/dev/fd", f"/proc/{os.getpid()}/fd"}
    for _ in range(20):
        folder, name = os.path.split(path)
        if re.fullmatch("[0-9]{1,9}", name) and os.path.realpath(folder) in own:
            return int(name)
        if not os.path.islink(path):
            return None
        path = os.path.join(folder, os.readlink(path))
    return None


def _host() -> str:
    """Return eight digits that identify this machine."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _open_draft(folder: Path, mode: int) -> tuple[Path, int]:
    """Create a temporary file, locked until it is closed; return its path and descriptor."""
    while True:
        draft = folder / f".minitensor-{_host()}-{secrets.token_hex(4)}.tmp"
        number = os.open(
            draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode
        )
        _lock(number, wait=True)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(draft), os.fstat(number)):
                return draft, number
        os.close(number)  # another process deleted it before it was locked


def _lock(number: int, wait: bool) -> bool:
    """Lock an open file; return True if that was possible."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(number, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:  # locked by another process, or not supported by the file system
        return False
    return True


def _sweep(folder: Path) -> None:
    """Delete the temporary files in a folder that processes left behind when they were killed.

    Such a file has no lock. A file of another machine must also be a day old, as not every network
    file system shares locks between machines. On Windows, where an open file cannot be deleted, any
    must be a day old.
    """
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            found = _DRAFT.fullmatch(entry.name)
            if not found or not entry.is_file(follow_symlinks=False):
                continue
            foreign = found[1] != _host()
            with contextlib.suppress(OSError):
                if fcntl is None:
                    if time.time() - entry.stat().st_mtime > _DAY:
                        os.unlink(entry.path)
                    continue
                number = os.open(entry.path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
                try:
                    info = os.fstat(number)
                    mine = not hasattr(os, "geteuid") or info.st_uid == os.geteuid()
                    old = time.time() - info.st_mtime > _DAY
                    if mine and (old or not foreign) and _lock(number, wait=False):
                        os.unlink(entry.path)
                finally:
                    os.close(number)


def _make_like(number: int, old: os.stat_result) -> None:
    """Give an open file the permissions of another and, where the system allows it, its owner."""
    if not hasattr(os, "fchown"):
        return
    new = os.fstat(number)
    if (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid):
        with contextlib.suppress(PermissionError):
            os.fchown(number, old.st_uid, old.st_gid)
    os.fchmod(number, stat.S_IMODE(old.st_mode))
