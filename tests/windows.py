"""A pytest plugin that takes away what Windows has not, and refuses what it refuses.

    PYTHONPATH=.:tests python -m pytest -p windows tests/test_files.py ...

minitensor, models and tools then see `os.name` "nt", `sys.platform` "win32", neither fcntl nor
owners nor permissions, no fork and few signals. A file that is open cannot be replaced or deleted,
a folder not be opened, and no symbolic link be made. All else, such as paths, is as on this system.
"""

from __future__ import annotations

import builtins
import errno
import importlib
import os
import signal
import sys
import types
from pathlib import Path
from typing import Any

# What others import must see the system as it is.
for _name in (
    *("asyncio", "multiprocessing", "pathlib", "shutil", "tempfile", "webbrowser"),
    *("graphviz", "numpy", "numba", "numba.core.registry"),
):
    importlib.import_module(_name)

OURS = ("minitensor", "models", "tools")
LACKS = ["chown", "fchown", "lchown", "fork", "forkpty", "register_at_fork", "killpg", "mkfifo"]
LACKS += ["getuid", "geteuid", "getgid", "getegid", "getgroups", "setuid", "seteuid", "setsid"]
LACKS += ["nice", "pread", "pwrite", "posix_fallocate", "sched_getaffinity", "statvfs", "uname"]
LACKS += ["O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK"]
if sys.version_info < (3, 13):
    LACKS += ["fchmod"]
SIGNALS = ("SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM")
MODULES = ("fcntl", "grp", "pwd", "resource", "termios")


class Seen(types.ModuleType):
    """A module as ours see it: without some names, and with others."""

    def __init__(self, module: Any, lacks: Any = (), **has: Any) -> None:
        super().__init__(module.__name__)
        self.__dict__.update(_module=module, _lacks=frozenset(lacks), **has)

    def __getattr__(self, name: str) -> Any:
        if name in self._lacks:
            raise AttributeError(f"module {self.__name__!r} of Windows has no attribute {name!r}")
        return getattr(self._module, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._module, name, value)

    def __dir__(self) -> list[str]:
        return [name for name in dir(self._module) if name not in self._lacks]


def is_open(path: Any) -> bool:
    """Return True if this process has a file open, or mapped into its memory."""
    if not os.path.isfile(path):
        return False
    info = os.stat(path)
    for number in os.listdir("/proc/self/fd"):
        try:
            if os.path.samestat(info, os.fstat(int(number))):
                return True
        except OSError:
            pass
    return f" {info.st_ino} " in Path("/proc/self/maps").read_text("utf-8")


def refused(path: Any) -> PermissionError:
    return PermissionError(errno.EACCES, "Access is denied", os.fspath(path))


def replace(source: Any, target: Any, **how: Any) -> None:
    for path in (source, target):
        if is_open(path):
            raise refused(path)
    os.replace(source, target, **how)


def rename(source: Any, target: Any, **how: Any) -> None:
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, "file exists", os.fspath(target))
    replace(source, target, **how)


def unlink(path: Any, **how: Any) -> None:
    if not how and is_open(path):
        raise refused(path)
    os.unlink(path, **how)


def open_file(path: Any, flags: int, *args: Any, **how: Any) -> int:
    if not how and os.path.isdir(path):
        raise refused(path)
    number = os.open(path, flags & ~O_TEMPORARY, *args, **how)
    if flags & O_TEMPORARY:
        TEMPORARY[number] = path
    return number


def close(number: int) -> None:
    os.close(number)
    if number in TEMPORARY:
        os.unlink(TEMPORARY.pop(number))


def symlink(*_: Any, **__: Any) -> None:
    raise OSError(1314, "A required privilege is not held by the client")


O_TEMPORARY = 1 << 30  # a file that is deleted when it is closed
TEMPORARY: dict[int, Any] = {}
LOCKED: dict[int, tuple[int, int]] = {}  # by descriptor, what file


def locking(number: int, mode: int, length: int) -> None:
    """Lock a file, as msvcrt does; closing unlocks it."""
    info = os.fstat(number)
    place = (info.st_dev, info.st_ino)
    for other, held in list(LOCKED.items()):
        try:
            now = os.fstat(other)
        except OSError:
            del LOCKED[other]
            continue
        if held == place == (now.st_dev, now.st_ino) and other != number:
            raise OSError(errno.EACCES, "Permission denied")
    LOCKED[number] = place


REFUSES = dict(open=open_file, close=close, replace=replace, rename=rename, symlink=symlink)
REFUSES |= dict(unlink=unlink, remove=unlink)
os_seen = Seen(os, LACKS, name="nt", O_BINARY=0, O_TEMPORARY=O_TEMPORARY, **REFUSES)
sys_seen = Seen(sys, (), platform="win32")
signal_seen = Seen(
    signal,
    [n for n in dir(signal) if n[:3] == "SIG" and n[3:4] != "_" and n not in SIGNALS],
    SIGBREAK=signal.SIGUSR1,
)
REPLACED: dict[str, Any] = {"os": os_seen, "sys": sys_seen, "signal": signal_seen}
REPLACED["msvcrt"] = types.SimpleNamespace(locking=locking, LK_NBLCK=2)
IMPORT = builtins.__import__


def imported(
    name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
) -> Any:
    """Import a module; for ours, those of Windows."""
    if not level and globals and str(globals.get("__name__")).partition(".")[0] in OURS:
        if name in MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        if name in REPLACED:
            return REPLACED[name]
    return IMPORT(name, globals, locals, fromlist, level)


builtins.__import__ = imported
for name in ("pathlib", "pathlib._local"):  # the latter since Python 3.13
    if name in sys.modules:
        sys.modules[name].os = Seen(os, **REFUSES)  # type: ignore[attr-defined]
