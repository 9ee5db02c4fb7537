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
from typing import Any

READY = FAREWELL = b"."
LONGEST = 60  # characters of a temporary folder, as addresses of sockets have 100
PATIENCE = 60.0  # seconds until all ranks are connected


class Watched:
    """The connection of a rank."""

    def __init__(self, local: Any, rank: int, size: int) -> None:
        """Connect this rank; `local` is the communicator of the ranks on this machine."""
        self._pid = os.getpid()
        if not hasattr(socket, "AF_UNIX"):  # on Windows MPI's own message has to do
            return
        address = ""
        with contextlib.suppress(OSError):  # then this machine's ranks are not watched
            if local.Get_rank() == 0:
                address = _start(local.Get_size(), size)
        address = local.bcast(address)
        with contextlib.suppress(OSError):
            if address:
                self._connection = socket.socket(socket.AF_UNIX)
                os.register_at_fork(after_in_child=self._connection.close)  # which is not the rank
                self._connection.connect(address)
                self._connection.sendall(f"{rank} {self._pid}\n".encode())
                self._connection.settimeout(PATIENCE)
                self._connection.recv(1)  # it is watched now
        local.Barrier()

    def farewell(self) -> None:
        """Say that this rank is about to end."""
        if os.getpid() == self._pid and hasattr(self, "_connection"):
            with contextlib.suppress(OSError):  # another has said it, which is enough
                self._connection.send(FAREWELL)


def _start(local: int, size: int) -> str:
    """Start the process that watches `local` ranks; returns the address at which it listens.

    It inherits the socket, and removes the folder of the address.
    """
    place = None if len(tempfile.gettempdir()) < LONGEST else "/tmp"
    folder = tempfile.mkdtemp(prefix="minitensor-", dir=place)
    address = os.path.join(folder, "ranks")
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(address)
            listener.listen(local)
            number = listener.fileno()
            process = subprocess.Popen(
                [sys.executable, "-IS", __file__, folder, str(number), str(local), str(size)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[number],
                start_new_session=True,
            )
    except OSError:
        shutil.rmtree(folder)
        raise
    process.returncode = 0  # nobody waits for it
    return address


def main() -> None:
    """Watch the ranks of this machine, and name the first that is killed."""
    folder, (number, local, size) = sys.argv[1], map(int, sys.argv[2:])
    ranks: dict[socket.socket, tuple[int, int]] = {}
    with socket.socket(fileno=number) as listener, selectors.DefaultSelector() as selector:
        listener.settimeout(PATIENCE)
        try:
            for _ in range(local):
                connection, _ = listener.accept()
                words = connection.makefile("rb", buffering=0).readline().split()
                ranks[connection] = int(words[0]), int(words[1])
                selector.register(connection, selectors.EVENT_READ)
        except TimeoutError:
            return
        finally:
            shutil.rmtree(folder)
        for connection in ranks:
            with contextlib.suppress(OSError):  # killed already
                connection.send(READY)
        keys = [key for key, _ in selector.select()]
    ended: list[Any] = [key.fileobj for key in keys if not key.fileobj.recv(64)]  # type: ignore[union-attr]
    if len(ended) < len(keys):  # a rank ends as it should, or has told its error itself
        return
    rank, pid = ranks[ended[0]]
    # For a rank on another machine MPI ends all ranks on this one.
    doubt = ", or was ended by MPI" if local < size else ""
    sys.stderr.write(
        f"rank {rank} of {size} failed: process {pid} on {socket.gethostname()} was killed or "
        f"crashed{doubt}\n"
    )


if __name__ == "__main__":
    main()
