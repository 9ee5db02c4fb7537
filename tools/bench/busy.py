"""Topic `busy`: a training step while other processes compute."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import minitensor as mt
from minitensor.models.command import InputError

from .measure import HERE, Figure, cores, from_times
from .plan import Plan
from .training import PATH, title

TIMES_SHARE = 1.3  # the most time of a step, relative to its fair share of the cores

# Computes on one thread until its parent process ends.
OTHER = """
import os
parent = os.getppid()
print("0", flush=True)
while os.getppid() == parent:
    for _ in range(1000000):
        pass
"""


def measure_busy(plan: Plan, against: Sequence[str]) -> Iterator[Figure]:
    """Measure the first training step beside 0, 1, 2 and 4 other processes of one thread each.

    Each side is a process that waits during the other's turn. The fair share by thread is that of a
    scheduler which gives all computing threads equal time; by process, all processes get equal
    time, or as much as they can use.
    """
    step, counts = plan.steps[0], plan.others
    sides = [HERE, *(side for side in against if side == "torch")]
    times: dict[int, dict[str, list[float]]] = {n: {side: [] for side in sides} for n in counts}
    with contextlib.ExitStack() as stack:
        runs = {
            side: stack.enter_context(_process("-m", f"{__package__}.worker", "turns", settings))
            for side in sides
            for settings in (json.dumps(dict(side=side, step=asdict(step))),)
        }
        for run in runs.values():
            _answer(run)  # after the model is made and a first step done
        for turn in range(plan.rounds):
            first = turn % len(sides)
            for count in counts:
                with contextlib.ExitStack() as others:
                    for _ in range(count):
                        _answer(others.enter_context(_process("-c", OTHER)))
                    for side in sides[first:] + sides[:first]:
                        print(plan.turn, file=runs[side].stdin, flush=True)
                        times[count][side].append(_answer(runs[side]))
    alone = {side: statistics.median(times[counts[0]][side]) for side in sides}
    threads, available = mt.get_num_threads(), cores()
    for count in counts:
        name = f"{step.name} beside {count}" if count else title(step)
        figure = from_times("busy", name, times[count])
        yield figure
        if not count:
            continue
        longer = {side: seconds / alone[side] for side, seconds in figure.values.items()}
        yield Figure("busy", f"{name}: times alone", longer, "times")
        for by, share, target in (
            ("thread", share_by_thread(threads, count, available), TIMES_SHARE),
            ("process", share_by_process(threads, count, available), None),
        ):
            values = {side: x * share for side, x in longer.items()}
            yield Figure(
                "busy", f"{name}: times fair by {by} ({share:.0%})", values, "times",
                target=target, of_value=True,
            )  # fmt: skip


def share_by_thread(threads: int, others: int, cores: int) -> float:
    """Return the share of its speed that a process keeps if all threads get equal time."""
    return min(1.0, cores / (threads + others))


def share_by_process(threads: int, others: int, cores: int) -> float:
    """Return the same if all processes get equal time, but the others at most one core each."""
    return min(1.0, max(cores - others, cores / (1 + others)) / threads)


@contextlib.contextmanager
def _process(*arguments: str) -> Iterator[Any]:
    """Run a Python process until the end of the `with` block."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": PATH},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _answer(process: Any) -> Any:
    """Return the next JSON line of a process; InputError with its last error line if it ended."""
    line = process.stdout.readline()
    if not line:
        last = (process.stderr.read().strip().splitlines() or ["it ended"])[-1]
        raise InputError(f"a process of the benchmark failed: {last}")
    return json.loads(line)
