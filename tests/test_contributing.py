"""CONTRIBUTING.md is true: its counts are those of the code, and its examples work as written.

Each example under "## Worked examples" is applied to a copy of the repository, block by block: a
Python block that begins with the name of a file is that new file, a diff changes files, and the
lines of a shell block must run.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "CONTRIBUTING.md").read_text()
LONGEST = 1500  # lines of the reading path


def examples() -> dict[str, list[tuple[str, str]]]:
    """The blocks of each example, (language, text), by its heading."""
    part = GUIDE.split("\n## Worked examples\n")[1].split("\n## ")[0]
    found = {}
    for section in part.split("\n### ")[1:]:
        heading, _, body = section.partition("\n")
        found[heading] = re.findall(r"^```(\w+)\n(.*?)^```$", body, re.MULTILINE | re.DOTALL)
    return found


EXAMPLES = examples()


def patch(root: Path, diff: str) -> None:
    """Apply a diff whose hunks are found by their text alone."""
    file: Path | None = None
    hunks: list[tuple[Path | None, list[str], list[str]]] = []
    for line in diff.splitlines():
        if line.startswith("--- "):
            continue
        if line.startswith("+++ "):
            file = root / line.removeprefix("+++ ")
        elif line.startswith("@@"):
            hunks.append((file, [], []))
        else:
            _, old, new = hunks[-1]
            if line[:1] != "+":
                old.append(line[1:])
            if line[:1] != "-":
                new.append(line[1:])
    assert hunks, "a diff without hunks"
    for target, old, new in hunks:
        assert target is not None
        text, before = target.read_text(), "\n".join(old) + "\n"
        assert text.count(before) == 1, (
            f"an example of CONTRIBUTING.md quotes lines that {target.name} does not have, or more "
            f"than once; bring the example up to date:\n{before}"
        )
        target.write_text(text.replace(before, "\n".join(new) + "\n"))


def run(root: Path, line: str) -> None:
    command = shlex.split(line, comments=True)
    assert command[0] == "python"
    found = subprocess.run(
        [sys.executable, *command[1:]],
        cwd=root,
        env=dict(os.environ, PYTHONPATH=str(root)),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert found.returncode == 0, f"{line}\n{found.stdout}\n{found.stderr}"


@pytest.mark.guide
@pytest.mark.parametrize("heading", EXAMPLES)
def test_a_worked_example_works_as_it_is_written(heading: str, tmp_path: Path) -> None:
    for part in ("minitensor", "models", "tools", "tests"):
        # pytest's bytecode says where the file was that it is of
        ignored = shutil.ignore_patterns("*-pytest-*.pyc")
        shutil.copytree(ROOT / part, tmp_path / part, ignore=ignored)
    for part in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / part, tmp_path / part)
    blocks = EXAMPLES[heading]
    assert {"sh"} < {language for language, _ in blocks}, "an example adds something and runs it"
    for language, text in blocks:
        if language == "python":
            name = re.match(r"# ([\w/]+\.py)\n", text)
            assert name, f"a block that names no file:\n{text}"
            file = tmp_path / name[1]
            assert not file.exists()
            file.write_text(text)
        elif language == "diff":
            patch(tmp_path, text)
        else:
            assert language == "sh"
            for line in text.splitlines():
                run(tmp_path, line)


def test_the_tables_are_those_of_the_code() -> None:
    from tools.read import updated

    assert updated(GUIDE) == GUIDE, "stale tables: run python -m tools.read"


def test_the_core_and_the_transformer_can_be_read_in_an_evening() -> None:
    from tools.read import marked

    _, path, _ = marked(GUIDE, "path")
    stops = re.findall(r"^\| \d \|.*\| (\d+) \|$", path, re.MULTILINE)
    assert len(stops) == 7
    assert sum(map(int, stops)) < LONGEST
