"""Lines of source code around the one that ran an op, read once from the files that are there."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

AROUND = 3  # lines before the line, and after it


class Sources:
    """The files that source lines name, as far as they can be read."""

    def __init__(self) -> None:
        self._shown: dict[str, str] = {}
        self._files: dict[str, tuple[str, list[str]] | None] = {}

    def shown(self, source: str) -> str:
        """Return "folder/file.py:12" for "/home/me/folder/file.py:12", unless another is that."""
        if not os.path.isabs(source):
            return source
        path = Path(source)
        with contextlib.suppress(ValueError):
            return path.relative_to(os.getcwd()).as_posix()
        short = "/".join(path.parts[-2:])
        return short if self._shown.setdefault(short, source) == source else source

    def around(self, source: str, code: str) -> tuple[str, int, int, list[str]] | None:
        """Return the path, the line, the first line shown and those shown, of "file.py:12".

        None if there is no such file, or if its line is no longer `code`.
        """
        name, _, digits = source.rpartition(":")
        if not digits.isdecimal() or not name:
            return None
        if name not in self._files:
            self._files[name] = _read(name)
        found, line = self._files[name], int(digits)
        if found is None or not 0 < line <= len(found[1]) or found[1][line - 1].strip() != code:
            return None
        first = max(1, line - AROUND)
        return found[0], line, first, found[1][first - 1 : line + AROUND]


def _read(name: str) -> tuple[str, list[str]] | None:
    """A file's path and lines: named from the working folder, or from where Python found it."""
    for folder in (os.getcwd(), *sys.path, str(Path(__file__).parents[2])):
        path = Path(folder) / name
        try:
            if path.is_file():
                return path.resolve().as_posix(), path.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError):
            continue
    return None
