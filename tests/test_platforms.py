"""Differences of macOS and Windows: encodings, consoles, no fork, a checkout without links.

The plugin tests/windows.py runs the tests of files and jobs with what Windows lacks taken away
(`make windows`).
"""

from __future__ import annotations

import ast
import concurrent.futures
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import minitensor as mt
from minitensor import files, nn
from minitensor.models import command

ROOT = Path(__file__).parents[1]
SOURCES = [p for top in ("models", "tools") for p in (ROOT / top).rglob("*.py")]
SOURCES += (ROOT / "minitensor").rglob("*.py")


def opens_text(call: ast.Call) -> bool:
    """Return True for a call that opens a file as text without saying its encoding."""
    function = call.func
    said = [k.arg for k in call.keywords]
    if "encoding" in said or None in said:
        return False
    if isinstance(function, ast.Attribute) and function.attr in ("read_text", "write_text"):
        return len(call.args) < (1 if function.attr == "read_text" else 2)
    constants = [a.value if isinstance(a, ast.Constant) else None for a in call.args]
    if isinstance(function, ast.Name) and function.id == "open":
        return "b" not in str(constants[1:])
    mode = constants[0] if constants and isinstance(function, ast.Attribute) else None
    opens = isinstance(function, ast.Attribute) and function.attr == "open"
    return opens and isinstance(mode, str) and set(mode) <= set("rwax+t")


def test_every_text_file_has_an_encoding() -> None:
    """Windows has one of its own where none is named."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and opens_text(node)
    ]
    assert len(SOURCES) > 200
    assert not found


def test_no_two_files_differ_by_case_alone_or_have_names_that_windows_refuses() -> None:
    names = [p.relative_to(ROOT).as_posix() for p in SOURCES]
    names += [p.relative_to(ROOT).as_posix() for p in (ROOT / "tests").rglob("*") if p.is_file()]
    assert len({name.lower() for name in names}) == len(set(names))
    assert not [name for name in names if set(name) & set('<>:"|?*\\')]


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_what_the_console_cannot_show_is_printed_as_escapes(encoding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "models.attention"],
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0", "LC_ALL": "C"},
        capture_output=True,
        encoding=encoding,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert r"k\u1d40" in done.stdout  # a transposed matrix


def test_a_file_is_replaced_once_no_scanner_has_it_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals, replace = [3], os.replace
    waits: list[float] = []

    def refusing(source: Any, target: Any) -> None:
        if refusals[0]:
            refusals[0] -= 1
            raise PermissionError(13, "Access is denied", str(target))
        replace(source, target)

    monkeypatch.setattr(files, "fcntl", None)
    monkeypatch.setattr(os, "replace", refusing)
    monkeypatch.setattr(time, "sleep", waits.append)
    path = tmp_path / "x"
    path.write_text("old", "utf-8")
    with files.atomic_write(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert len(waits) == 3
    refusals[0] = 100
    with pytest.raises(PermissionError, match="Access is denied"), files.atomic_write(path) as file:
        file.write(b"newer")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["x"]


def test_drafts_are_swept_after_a_day_where_there_are_no_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "fcntl", None)
    drafts = [files._open_draft(tmp_path, 0o600) for _ in range(2)]
    for _, number in drafts:
        os.close(number)
    os.utime(drafts[0][0], (0, 0))
    with files.atomic_write(tmp_path / "x") as file:
        file.write(b"1")
    assert sorted(os.listdir(tmp_path)) == sorted([drafts[1][0].name, "x"])


def test_a_command_is_named_as_the_shell_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/opt/my python/python3")
    assert command.python() == "'/opt/my python/python3'"
    monkeypatch.setattr(command, "os", SimpleNamespace(name="nt"))
    assert command.python() == '"/opt/my python/python3"'


def learn(model: nn.Module, x: mt.Tensor) -> list[float]:
    """Three steps, run in another process."""
    optimizer = mt.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in range(3):
        loss = model(x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("method", sorted({"spawn", *multiprocessing.get_all_start_methods()}))
def test_a_process_that_is_started_anew_learns_the_same(method: str) -> None:
    """Windows and macOS spawn processes, Linux forks them, since Python 3.14 from a server."""
    mt.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1)), mt.randn(32, 8)
    context = multiprocessing.get_context(method)
    with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
        there = pool.submit(learn, model, x).result(timeout=60)
    assert there == learn(model, x)
