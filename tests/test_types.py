"""The types of the public names, as mypy and pyright find them in scripts of a user's."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = Path("tests/typing")
CHECKERS = {
    # As a user runs it, not with the settings of this repository.
    "mypy": ("--strict", "--config-file", os.devnull, "--follow-imports", "silent"),
    "pyright": (),
}


@pytest.fixture(params=CHECKERS)
def checker(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed (extra: dev)")
    return name


def complaints(checker: str, script: str) -> dict[int, str]:
    """Return the errors that a checker reports for a script, by line number."""
    command = [sys.executable, "-m", checker, *CHECKERS[checker], str(SCRIPTS / script)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found = re.findall(rf"{script}:(\d+)(?::\d+)?(?: -|:) error: (.*)", done.stdout)
    return {int(line): message for line, message in found}


def test_every_result_has_its_exact_type(checker: str) -> None:
    assert complaints(checker, "user_script.py") == {}


def test_every_misspelt_name_is_an_error(checker: str) -> None:
    lines = (ROOT / SCRIPTS / "misspelt.py").read_text().splitlines()
    first = next(i for i, line in enumerate(lines, 1) if line.startswith("def mistakes")) + 1
    found = complaints(checker, "misspelt.py")
    wrong = set(range(first, len(lines) + 1))
    assert len(wrong) > 50
    assert {lines[i - 1].strip() for i in wrong - set(found)} == set()
    assert set(found) <= wrong


def test_the_script_runs() -> None:
    subprocess.run(
        [sys.executable, "-W", "error", ROOT / SCRIPTS / "user_script.py"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )
