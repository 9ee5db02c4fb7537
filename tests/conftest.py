"""What the tests share: sample data, PyTorch if it is installed, and the ops' registry."""

from __future__ import annotations

import importlib.util
from collections import Counter
from typing import Any

import pytest

from minitensor.testing import Rand


@pytest.fixture
def rand() -> Rand:
    return Rand()


# What was checked, for a line at the end of the run.
CHECKED: Counter[str] = Counter()


def pytest_sessionfinish(session: Any) -> None:
    """Hand over what a worker counted."""
    if hasattr(session.config, "workeroutput"):
        from conftest import CHECKED as counted  # pytest's own copy of this module counts nothing

        session.config.workeroutput["checked"] = dict(counted)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    from conftest import CHECKED as counted

    counted.update(getattr(node, "workeroutput", {}).get("checked", {}))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    from conftest import CHECKED as counted

    if counted:
        told = ", ".join(f"{count} {what}" for what, count in counted.items())
        terminalreporter.write_line(f"registry: {told}")


def needs_torch(test: Any) -> Any:
    """Mark a test that compares with PyTorch: chosen by `-m torch`, skipped without PyTorch."""
    missing = importlib.util.find_spec("torch") is None
    skip = pytest.mark.skipif(missing, reason="PyTorch is not installed (extra: torch)")
    return pytest.mark.torch(skip(test))
