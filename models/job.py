"""End a long job when that is asked for, where nothing is lost; keep its folder for it alone."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from .command import InputError, Stopped


class Interrupt:
    """Notes that a job was asked to end, so that it can do so where nothing is lost.

    A second signal changes nothing: what ends a process is often sent twice, to it and to its
    group, and must not keep it from saving.
    """

    def __init__(self) -> None:
        self.signal = 0

    def note(self, number: int, frame: FrameType | None) -> None:
        """Called by the system."""
        if not self.signal:
            self.signal = number
            with contextlib.suppress(OSError):  # `print` may have been interrupted
                os.write(2, b"\nsaving before the end ...\n")

    def check(self) -> None:
        """Raise Stopped if the job was asked to end."""
        if self.signal:
            raise Stopped(self.signal)


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """A block that has `folder` to itself; InputError if another process is in one like it.

    The lock is the system's and lies on the folder: it leaves no file, and ends with the process,
    however that ends. On a file system without locks a warning says so.
    """
    try:
        number = _open(folder)
    except OSError as error:
        raise InputError(f"cannot read {folder}: {error.strerror or error}") from error
    try:
        _lock(number)
    except BlockingIOError as error:
        os.close(number)
        raise InputError(
            f"another run is going on in {folder}: wait for its end, or choose another folder"
        ) from error
    except OSError as error:
        print(
            f"warning: {folder} cannot be locked ({error.strerror or error}): "
            "start no second run there",
            file=sys.stderr,
        )
    try:
        yield
    finally:
        os.close(number)


if sys.platform == "win32":
    import msvcrt

    def _open(folder: Path) -> int:
        """A file in the folder, for folders cannot be locked; it goes when it is closed."""
        return os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_TEMPORARY)

    def _lock(number: int) -> None:
        try:
            msvcrt.locking(number, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError(*error.args) from error

else:
    import fcntl

    def _open(folder: Path) -> int:
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY)

    def _lock(number: int) -> None:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
