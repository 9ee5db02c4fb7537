"""Long jobs: end them at a safe point when a signal asks for it, and lock their folder."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from .command import InputError


class Interrupt:
    """Remembers that a job was asked to end, so that it can end where nothing is lost.

    A second signal changes nothing: signals are often sent twice, to a process and to its group,
    and must not keep the process from saving.
    """

    def __init__(self, tells: bool = True) -> None:
        self.signal = 0
        self.tells = tells  # with a line on standard error

    def note(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal by remembering it."""
        if not self.signal:
            self.signal = number
            if not self.tells:
                return
            with contextlib.suppress(OSError):  # `print` may have been interrupted
                os.write(2, b"\nsaving before the end ...\n")


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Lock `folder` within the block; InputError if another process has locked it.

    The operating system locks the folder itself: no file is left behind, and the lock ends with
    the process. On a file system without locks, a warning is printed.
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
        """Open a file in the folder, since folders cannot be locked here; closing deletes it."""
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
