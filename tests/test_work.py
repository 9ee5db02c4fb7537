"""Tests count work instead of measuring time: what they say must not depend on the machine."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from work import growth, lines_run

CLOCKS = {"perf_counter", "perf_counter_ns", "process_time", "thread_time", "timeit", "time_ns"}
FILES = sorted(Path(__file__).parent.glob("test_*.py"))


def linear(count: int) -> int:
    return sum(i for i in range(count))


def quadratic(count: int) -> int:
    total = 0
    for i in range(count):
        for j in range(count):
            total += i * j
    return total


def test_growth_is_that_of_the_work() -> None:
    assert lines_run(linear, 10) < lines_run(linear, 20)
    assert growth(linear, 100, 200) == pytest.approx(2, rel=0.1)
    assert growth(quadratic, 100, 200) == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize("file", FILES, ids=lambda p: p.stem)
def test_no_test_reads_a_clock(file: Path) -> None:
    """`time.monotonic` is left, for the end of a wait."""
    for function in ast.walk(ast.parse(file.read_text())):
        if isinstance(function, ast.FunctionDef) and function.name.startswith("test_"):
            names = {n.attr for n in ast.walk(function) if isinstance(n, ast.Attribute)}
            names |= {n.id for n in ast.walk(function) if isinstance(n, ast.Name)}
            assert not names & CLOCKS, f"{file.name}: {function.name} reads a clock"
