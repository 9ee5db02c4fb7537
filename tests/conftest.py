"""Shared by the tests: sample data, PyTorch if it is installed, and the ops' registry."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from minitensor.testing import Rand


@pytest.fixture
def rand() -> Rand:
    return Rand()


@pytest.fixture
def tiny_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make `demo.main` train a tiny model on a few numbers for an epoch; return its folder."""
    from minitensor.models import demo, pairs
    from minitensor.models.number_words import Split
    from minitensor.models.pairs import TranslationSettings

    split = Split([*range(20, 80), *range(84, 90)], [80, 81], [82, 83])
    for module in (demo, pairs):
        monkeypatch.setattr(module, "split_numbers", lambda: split)
    monkeypatch.setattr(
        demo, "TranslationSettings", lambda: TranslationSettings(d_model=16, nhead=2, epochs=1)
    )
    monkeypatch.setattr(sys, "argv", ["demo", "79", "--out", str(tmp_path)])
    return tmp_path


# Counts of the checks made and the tests left out, printed at the end of the run.
CHECKED: Counter[str] = Counter()
LEFT_OUT: Counter[str] = Counter()
GROUPS = {
    "torch": "compare with PyTorch (make compare)",
    "faults": "damage files, kill processes and fill disks (make faults)",
    "wheel": "build and install the package (make wheel)",
}


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    from conftest import LEFT_OUT as counted  # pytest's own copy of this module counts nothing

    for item in items:
        if item.config.getoption("markexpr"):  # by -m, and not by -k
            counted.update(mark for mark in GROUPS if item.get_closest_marker(mark))


def pytest_sessionfinish(session: Any) -> None:
    """Hand over what a worker counted."""
    if hasattr(session.config, "workeroutput"):
        from conftest import CHECKED, LEFT_OUT

        session.config.workeroutput.update(checked=dict(CHECKED), left_out=dict(LEFT_OUT))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    from conftest import CHECKED, LEFT_OUT

    output = getattr(node, "workeroutput", {})
    CHECKED.update(output.get("checked", {}))
    LEFT_OUT.clear()
    LEFT_OUT.update(output.get("left_out", {}))  # each worker leaves out the same


def pytest_terminal_summary(terminalreporter: Any) -> None:
    from conftest import CHECKED, LEFT_OUT

    if CHECKED:
        counts = ", ".join(f"{count} {what}" for what, count in CHECKED.items())
        terminalreporter.write_line(f"registry: {counts}")
    if LEFT_OUT:
        counts = ", ".join(f"{count:,} that {GROUPS[mark]}" for mark, count in LEFT_OUT.items())
        terminalreporter.write_line(f"tests not run here: {counts}")


def needs_torch(test: Any) -> Any:
    """Mark a test that compares with PyTorch: chosen by `-m torch`, skipped without PyTorch."""
    missing = importlib.util.find_spec("torch") is None
    skip = pytest.mark.skipif(missing, reason="PyTorch is not installed (extra: torch)")
    return pytest.mark.torch(skip(test))
