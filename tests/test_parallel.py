"""Parallel kernels: every task is done, compiled or not; addresses; the number of threads."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minitensor.core import OPS
from minitensor.kernels.parallel import address

PROGRAM = """
import numpy as np

from minitensor.kernels.parallel import ParallelKernel, address, array_at, unpacked


def add_rows(arguments, exemplar, task, tasks):
    s = unpacked(arguments)
    x, y = array_at(exemplar, s.x, (s.rows, s.cols)), array_at(exemplar, s.y, (s.rows,))
    scale = x.dtype.type(s.scale)
    for row in range(s.rows * task // tasks, s.rows * (task + 1) // tasks):
        for col in range(s.cols):
            y[row] += scale * x[row, col]


kernel = ParallelKernel(add_rows, "x y rows cols", "scale")
for dtype in (np.float32, np.float64):
    for tasks in (1, 2, 5):
        x, y = np.arange(28, dtype=dtype).reshape(7, 4), np.ones(7, dtype)
        kernel(x.dtype, tasks, address(x), address(y), 7, 4, 0.5)
        np.testing.assert_array_equal(y, 1 + 0.5 * x.sum(1))
"""


@pytest.mark.parametrize("compiled", [True, False])
def test_every_task_does_its_share(compiled: bool, tmp_path: Any) -> None:
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "0" if compiled else "1"}
    run = subprocess.run(
        [sys.executable, str(file)], env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


def test_results_have_the_same_bits_on_any_number_of_threads() -> None:
    """Of products of many shapes and of all ops, with however little work cut for seven threads."""
    run = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("many_threads.py"))],
        env={**os.environ, "NUMBA_NUM_THREADS": "7"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    found = re.findall(r"^(\d+) (products|samples|kernels)", run.stdout, re.MULTILINE)
    counts = {what: int(count) for count, what in found}
    assert counts["products"] >= 3000, run.stdout
    assert counts["samples"] >= 2 * len(OPS), run.stdout
    assert counts["kernels"] >= counts["products"] + counts["samples"] // 2, run.stdout


def test_address() -> None:
    x = np.zeros((3, 4, 5), np.float32)
    fixed = np.broadcast_to(x[0, 0, 0], (2, 3))  # not writeable
    for a in (x, x[1:, 2], x.transpose(2, 0, 1), x[:, ::2], fixed):
        assert address(a) == a.ctypes.data


@pytest.mark.parametrize(
    ("quota", "asked", "threads"),
    [
        ("150000 100000", None, 2),
        ("1000 100000", None, 1),
        ("6400000 100000", None, 8),
        ("max 100000", None, 8),
        (None, None, 8),
        ("150000 100000", "8", 8),
    ],
)
def test_a_container_has_as_many_threads_as_its_quota_is_cores(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quota: Any, asked: Any, threads: int
) -> None:
    """Unless the user asked for another number."""
    jit = importlib.import_module("minitensor.kernels.jit")
    monkeypatch.setattr(jit, "_threads", 0)
    monkeypatch.setattr(jit, "_CPU_MAX", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(8), raising=False)
    jit.most_threads.cache_clear()
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    if quota is not None:
        (tmp_path / "cpu.max").write_text(f"{quota}\n")
    if asked is not None:
        monkeypatch.setenv("NUMBA_NUM_THREADS", asked)
    assert jit.get_num_threads() == threads
    jit.most_threads.cache_clear()
