"""A word about a rank that is killed: MPI ends the job then, but does not say which rank it was.

The ranks on a machine hold connections to a small process, which runs this file. A connection that
ends without a farewell is a process that was killed. That process is in a session of its own, so it
is not killed with the others, and it ends with the last of them.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any

READY = FAREWELL = b"."
TOGETHER = 0.01  # seconds within which all processes of a machine end that MPI ends
LONGEST = 60  # characters of a temporary folder, as addresses of sockets have 100
PATIENCE = 60.0  # seconds until all ranks are connected


class Watched:
    """The connection of a rank."""

    def __init__(self, local: Any, rank: int, size: int) -> None:
        """Connect this rank; `local` is the communicator of the ranks on this machine."""
        self._pid = os.getpid()
        if not hasattr(socket, "AF_UNIX"):  # on Windows MPI's own message has to do
            return
        folder = address = ""
        if local.Get_rank() == 0:
            place = None if len(tempfile.gettempdir()) < LONGEST else "/tmp"
            folder = tempfile.mkdtemp(prefix="minitensor-", dir=place)
            address = os.path.join(folder, "ranks")
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(address)
                listener.listen(local.Get_size())
                _start(listener, local.Get_size(), size)
        address = local.bcast(address)
        self._connection = socket.socket(socket.AF_UNIX)
        with contextlib.suppress(OSError):  # then this machine's ranks are not watched
            self._connection.connect(address)
            self._connection.sendall(f"{rank} {self._pid}\n".encode())
            self._connection.settimeout(PATIENCE)
            self._connection.recv(1)  # it is watched now
        os.register_at_fork(after_in_child=self._connection.close)  # which is not the rank
        local.Barrier()
        if folder:
            shutil.rmtree(folder)

    def farewell(self) -> None:
        """Say that this rank is about to end."""
        if os.getpid() == self._pid and hasattr(self, "_connection"):
            with contextlib.suppress(OSError):  # another has said it, which is enough
                self._connection.send(FAREWELL)


def _start(listener: socket.socket, local: int, size: int) -> None:
    """Start the process that watches, with a listening socket that it inherits."""
    process = subprocess.Popen(
        [sys.executable, "-IS", __file__, str(listener.fileno()), str(local), str(size)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[listener.fileno()],
        start_new_session=True,
    )
    process.returncode = 0  # nobody waits for it


def main() -> None:
    """Watch the ranks of this machine, and name the first that is killed."""
    number, local, size = map(int, sys.argv[1:])
    ranks: dict[socket.socket, tuple[int, int]] = {}
    with socket.socket(fileno=number) as listener, selectors.DefaultSelector() as selector:
        listener.settimeout(PATIENCE)
        for _ in range(local):
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                return
            words = connection.makefile("rb", buffering=0).readline().split()
            ranks[connection] = int(words[0]), int(words[1])
            selector.register(connection, selectors.EVENT_READ)
        for connection in ranks:
            connection.send(READY)
        said, ended = _events(selector, None)
        if said:  # a rank ends as it should, or has told its error itself
            return
        if 1 < local < size:  # is it MPI, for a rank on another machine?
            time.sleep(TOGETHER)
            if len(ended) + len(_events(selector, 0)[1]) == local:
                return
        rank, pid = ranks[ended[0]]
        host = socket.gethostname()
        sys.stderr.write(
            f"rank {rank} of {size} failed: process {pid} on {host} was killed or crashed\n"
        )


def _events(selector: selectors.BaseSelector, timeout: float | None) -> tuple[bool, list[Any]]:
    """Return whether a rank said farewell, and the connections that ended, the first one first."""
    said, ended = False, []
    for key, _ in selector.select(timeout):
        if key.fileobj.recv(64):  # type: ignore[union-attr]
            said = True
        else:
            selector.unregister(key.fileobj)
            ended.append(key.fileobj)
    return said, ended


if __name__ == "__main__":
    main()
