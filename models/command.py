"""Shared by all command lines: errors in one sentence, signals, exit codes, missing packages.

A command raises InputError for a fault that the user can mend, and Stopped when a signal asks it to
end; `exit_code` turns both into a line on standard error and an exit code.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from minitensor.serialize import CheckpointError

# The packages of the extra `demo`, which the library itself does not need.
OPTIONAL = ("num2words", "tqdm", "matplotlib", "tokenizers", "sacrebleu")
PACKAGES = {"sklearn": "scikit-learn"}  # that have another name than the module
# Signals that ask a program to end: Ctrl-C, `kill`, and a terminal that closes (Windows: SIGBREAK).
_ENDING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
ENDING = [getattr(signal, name) for name in _ENDING if name in dir(signal)]


class InputError(Exception):
    """Something the user gave cannot be used; the message is a sentence for them."""


FAULTS = (InputError, CheckpointError, OSError)  # that a sentence explains


def sentence(fault: BaseException) -> str:
    """Return what one of FAULTS says."""
    if isinstance(fault, OSError):
        place = f"{fault.filename}: " if fault.filename else ""
        return f"{place}{fault.strerror or fault}"
    return str(fault)


class Stopped(KeyboardInterrupt):
    """Raised when a signal asks the program to end; `number` is the number of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def require(module: str) -> Any:
    """Import an optional module; if it is missing, InputError says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        package = PACKAGES.get(name, name)
        others = [name for name in OPTIONAL if importlib.util.find_spec(name) is None]
        wanted = " ".join(dict.fromkeys([package, *others]))
        raise InputError(
            f"{package} is not installed: install it with {python()} -m pip install {wanted}"
        ) from error


def python() -> str:
    """Return the name of the running Python as one types it in this shell and folder."""
    running = Path(sys.executable)
    for name in ("python", "python3"):
        found = shutil.which(name)
        if found and Path(found) == running:
            return name
    inside = running.is_relative_to(Path.cwd())
    name = str(running.relative_to(Path.cwd()) if inside else running)
    return subprocess.list2cmdline([name]) if os.name == "nt" else shlex.quote(name)


def program(module: str) -> str:
    """Return the running command as one types it: an installed script, or Python with `module`."""
    script = Path(sys.argv[0]).stem
    return script if script.startswith("minitensor-") else f"{python()} -m {module}"


@contextlib.contextmanager
def handling(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Send the signals of ENDING to `handler` within the block, if this is the main thread.

    A program started with nohup keeps ignoring that its terminal was closed.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        ignored = {
            n for n in ENDING if n != signal.SIGINT and signal.getsignal(n) is signal.SIG_IGN
        }
        before = {n: signal.signal(n, handler) for n in ENDING if n not in ignored}
    try:
        yield
    finally:
        for number, handled in before.items():
            signal.signal(number, handled)


def stop(number: int, frame: FrameType | None) -> None:
    """Handle a signal by raising Stopped at the running line."""
    raise Stopped(number)


def exit_code(run: Callable[[], int], failure: int = 1) -> int:
    """Run a command and return its exit code: `failure`, after a sentence, for an InputError.

    Characters that the encoding of standard output lacks, as on Windows, are printed as escapes.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with handling(stop):
            return run()
    except FAULTS as fault:
        print(f"error: {sentence(fault)}", file=sys.stderr)
        return failure
    except KeyboardInterrupt as stopped:
        print("interrupted", file=sys.stderr)
        return 128 + getattr(stopped, "number", signal.SIGINT)
