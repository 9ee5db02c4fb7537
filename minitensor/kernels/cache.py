"""The cache folder of compiled kernels: one file for each, verified before it is used.

A file is code that will run, so only this user may write in the folder, and nobody else may be able
to replace it. If that does not hold, or the disk is full, nothing is cached. The folder is
MINITENSOR_CACHE, or `minitensor` in the user's cache folder, or `minitensor-<user>` in the
temporary folder.

A file begins with a digest of the rest. A line of JSON follows with all facts that the code depends
on, whose digest is the file's name; a file with other facts is ignored. Files are written under
another name and then renamed, so they are complete or absent, and of two processes that write one
at once, one wins.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Facts = dict[str, str]

FORMAT = b"minitensor kernel 1\n"
KEPT, DRAFT = ".kernel", ".draft"
DAY = 24 * 60 * 60
DAYS = {KEPT: 30, DRAFT: 1}  # days after which an unused file is deleted

_promised = False  # a notice said that kernels are kept
_BODY = len(FORMAT) + hashlib.sha256().digest_size


@functools.cache
def folder() -> tuple[Path | None, str]:
    """Return the cache folder, or None and the reason why there is none."""
    why = ""
    try:
        for path in _places():
            try:
                return _private(path), ""
            except OSError as error:
                why = why or _told(error)
    except OSError as error:  # there is no temporary folder
        why = why or _told(error)
    return None, why


def _places() -> Iterator[Path]:
    if chosen := os.environ.get("MINITENSOR_CACHE"):
        yield Path(chosen)
        return
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA", "")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if os.path.isabs(base):  # a user without a home has "~/.cache"
        yield Path(base) / "minitensor"
    yield Path(tempfile.gettempdir()) / f"minitensor-{_user()}"


def _private(path: Path) -> Path:
    """Return the real path of a folder, made if missing; OSError if others could write in it.

    As ssh does for keys, also check that nobody else can replace one of its parent folders.
    """
    path = Path(os.path.abspath(path))
    for missing in reversed([p for p in (path, *path.parents) if not os.path.lexists(p)]):
        with contextlib.suppress(FileExistsError):  # another process was faster
            missing.mkdir(mode=0o700)
    path = Path(os.path.realpath(path.parent)) / path.name
    info = path.lstat()
    if not stat.S_ISDIR(info.st_mode):
        raise OSError(f"{path} is not a folder")  # but perhaps a link to one
    if os.name == "posix":
        if info.st_uid != _user():
            raise OSError(f"{path} belongs to another user")
        if _open_to_others(info):
            raise OSError(f"{path} can be written by other users (chmod go-w closes it)")
        for parent in path.parents:
            info = parent.lstat()
            shared = _open_to_others(info) and not info.st_mode & stat.S_ISVTX
            if shared or info.st_uid not in (0, _user()):
                raise OSError(f"{path} can be exchanged by other users, who can write {parent}")
    return path


def _user() -> int:
    return os.geteuid() if os.name == "posix" else 0


def _open_to_others(info: os.stat_result) -> bool:
    return bool(info.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def read(facts: Facts) -> tuple[dict[str, Any], bytes] | None:
    """Return the header and the body cached for these facts; None without a valid file."""
    place, _ = folder()
    if place is None:
        return None
    # Do not follow a link, and do not wait for the other end of a pipe.
    flags = ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "O_BINARY")
    how = os.O_RDONLY | sum(getattr(os, flag, 0) for flag in flags)
    try:
        with open(os.open(place / _name(facts), how), "rb") as file:
            info = os.fstat(file.fileno())
            ours = os.name != "posix" or (info.st_uid == _user() and not _open_to_others(info))
            if not ours or not stat.S_ISREG(info.st_mode):
                return None
            data = file.read()
            if time.time() - info.st_mtime > DAY and os.utime in os.supports_fd:
                with contextlib.suppress(OSError):  # a read-only disk
                    os.utime(file.fileno())  # marks it as used
    except OSError:
        return None
    if data[:_BODY] != FORMAT + hashlib.sha256(data[_BODY:]).digest():
        return None
    line, _, body = data[_BODY:].partition(b"\n")
    header = json.loads(line)
    return (header, body) if header["facts"] == facts else None


def write(facts: Facts, header: dict[str, Any], body: bytes) -> None:
    """Cache a header and a body for these facts, if possible.

    The first call also deletes files that have not been used for long.
    """
    global _promised
    place, _ = folder()
    if place is None:
        return
    data = json.dumps({"facts": facts, **header}).encode() + b"\n" + body
    try:
        draft = _draft(place, FORMAT + hashlib.sha256(data).digest() + data)
        try:
            os.replace(draft, place / _name(facts))
        except OSError:
            os.unlink(draft)
            raise
    except OSError as error:
        if _promised:
            _promised = False
            _say(f"kernels are no longer kept: {_told(error)}")
    else:
        _sweep(place)


def announce() -> None:
    """Announce compilation on stderr, with the cache folder or why nothing is kept."""
    global _promised
    place, why = folder()
    if place:
        try:
            os.unlink(_draft(place, bytes(1 << 18)))  # is there space?
        except OSError as error:
            why = _told(error)
    _promised = not why
    _say(f"compiling kernels, {f'which are not kept: {why}' if why else f'once; kept in {place}'}")


def _say(line: str) -> None:
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):  # it is closed
            print(f"minitensor: {line}", file=sys.stderr, flush=True)


def _name(facts: Facts) -> str:
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    name = re.sub(r"[^0-9A-Za-z_.]", "", ".".join(facts["function"].split(".")[-2:]))
    return f"{name[-60:]}-{digest[:32]}{KEPT}"


def _draft(place: Path, data: bytes) -> str:
    """Write a new file with this content in the folder and return its name; none if that fails."""
    number, name = tempfile.mkstemp(DRAFT, "", place)
    try:
        with open(number, "wb") as file:
            file.write(data)
    except BaseException:
        os.unlink(name)
        raise
    return name


@functools.cache
def _sweep(place: Path) -> None:
    now = time.time()
    with contextlib.suppress(OSError), os.scandir(place) as entries:
        for entry in entries:
            days = DAYS.get(os.path.splitext(entry.name)[1])
            with contextlib.suppress(OSError):  # another process was faster
                if days and now - entry.stat(follow_symlinks=False).st_mtime > days * DAY:
                    os.unlink(entry.path)


def _told(error: OSError) -> str:
    place = f" ({error.filename})" if error.filename else ""
    return f"{error.strerror}{place}" if error.strerror else str(error)
