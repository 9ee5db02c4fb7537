"""Lines of source code around the one that ran an op, read once from the files that are there."""

from __future__ import annotations

import ast
import contextlib
import os
import sys
from pathlib import Path

AROUND = 3  # lines before the line, and after it
LONGEST = 60  # lines of a class that is shown whole


class Sources:
    """The files that source lines name, as far as they can be read."""

    def __init__(self) -> None:
        self._shown: dict[str, str] = {}
        self._files: dict[str, tuple[str, list[str]] | None] = {}
        self._trees: dict[str, ast.Module] = {}

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
        if (place := self._place(source, code)) is None:
            return None
        path, line, lines = place
        first = max(1, line - AROUND)
        return path, line, first, lines[first - 1 : line + AROUND]

    def whole(self, source: str, code: str) -> tuple[str, int, int, int, list[str]] | None:
        """Return what stands around a line: its class, or its function if that is too long.

        The name of the file, the first and last line of the statement, the first line of what is
        around it, and the lines of that. None as in `around`.
        """
        if (place := self._place(source, code)) is None:
            return None
        path, line, lines = place
        if path not in self._trees:
            try:
                self._trees[path] = ast.parse("\n".join(lines))
            except SyntaxError:
                self._trees[path] = ast.Module([], [])
        around = [
            node
            for node in ast.walk(self._trees[path])
            if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or 0)
        ]
        kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        homes = [node for node in around if isinstance(node, kinds)]
        short = [node for node in homes if (node.end_lineno or 0) - node.lineno < LONGEST]
        first, last = max(1, line - AROUND), min(len(lines), line + AROUND)
        for home in (short or homes[-1:])[:1]:
            first, last = home.lineno, home.end_lineno or last
        simple = [node for node in around if not hasattr(node, "body")]
        lit = (simple[-1].lineno, simple[-1].end_lineno or line) if simple else (line, line)
        return self.shown(source).rpartition(":")[0], *lit, first, lines[first - 1 : last]

    def _place(self, source: str, code: str) -> tuple[str, int, list[str]] | None:
        """Return the path, the line and all lines of a file, if the line is `code` still."""
        name, _, digits = source.rpartition(":")
        if not digits.isdecimal() or not name:
            return None
        if name not in self._files:
            self._files[name] = _read(name)
        found, line = self._files[name], int(digits)
        if found is None or not 0 < line <= len(found[1]) or found[1][line - 1].strip() != code:
            return None
        return found[0], line, found[1]


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
