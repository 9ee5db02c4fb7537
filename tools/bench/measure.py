"""Sides measured in turns, the two roofs of the machine, and figures beside their targets.

The threads of OpenBLAS and of the OpenMP runtimes keep spinning for milliseconds after a call and
would slow down whoever comes next. So whenever another side begins it waits till no thread of the
process computes; then comes a call that is not timed, then a number of calls that are; and each
round begins with another side.
"""

from __future__ import annotations

import itertools
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import numba
import numpy as np

import minitensor as mt
from minitensor.kernels.simd import ROWS, SIMD, VECTOR_BYTES, tile
from minitensor.models.command import InputError

from ..compare import describe
from .plan import Plan

Sides = dict[str, Callable[[], Any]]
HERE = "here"


@dataclass
class Figure:
    """One thing measured: the median for each side, and what it is compared by.

    A ratio of times or speeds says how many times as fast it is here; one of bytes how many times
    as much memory it takes.
    """

    topic: str
    name: str
    values: dict[str, float] = field(default_factory=dict)  # by side
    unit: str = "s"  # or tokens/s, bytes, share, times
    ratios: dict[str, float] = field(default_factory=dict)  # by the other side
    flops: float = 0.0  # of a call
    bytes: float = 0.0  # that a call must at least read and write
    target: float | None = None  # of the ratio; of the value if `of_value`
    of_value: bool = False
    label: str = ""  # in the roofline plot

    @property
    def ratio(self) -> float | None:
        """Against the best of the other sides."""
        if not self.ratios:
            return None
        return (max if self.unit == "bytes" else min)(self.ratios.values())

    @property
    def gflops(self) -> float | None:
        """Here, in GFLOP/s."""
        return self.flops / self.values[HERE] / 1e9 if self.flops else None

    @property
    def gbytes(self) -> float | None:
        """Here, in GB/s."""
        return self.bytes / self.values[HERE] / 1e9 if self.bytes else None

    @property
    def at_most(self) -> bool:
        """Whether the target is an upper bound."""
        return self.unit == "bytes" or (self.unit in ("s", "times") and self.of_value)

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one, or with nothing to compare with."""
        value = self.values[HERE] if self.of_value else self.ratio
        if self.target is None or value is None:
            return None
        return value <= self.target if self.at_most else value >= self.target

    def to_json(self) -> dict[str, Any]:
        """All of it, for a file."""
        return asdict(self) | dict(
            ratio=self.ratio, gflops=self.gflops, gbytes=self.gbytes, met=self.met
        )


def settle(pause: float, most: float = 1.0) -> None:
    """Sleep until no thread of this process computes, looking every `pause` seconds."""
    end = time.perf_counter() + most
    while time.perf_counter() < end:
        before = time.process_time()
        time.sleep(pause)
        if time.process_time() - before < pause / 10:
            return


def take_turns(
    sides: Sides, rounds: int, seconds: float, pause: float, most: int = 1000
) -> dict[str, list[float]]:
    """Seconds per call of each side, for each round; a turn lasts about `seconds`."""
    counts = {}
    for side, call in sides.items():
        call()  # compiles
        start = time.perf_counter()
        call()
        counts[side] = min(max(int(seconds / (time.perf_counter() - start)), 1), most)
    names = list(sides)
    times: dict[str, list[float]] = {side: [] for side in sides}
    for turn in range(rounds):
        first = turn % len(names)
        for side in names[first:] + names[:first]:
            call, count = sides[side], counts[side]
            if pause:
                settle(pause)
            if count > 1:  # a long call is little disturbed
                call()
            start = time.perf_counter()
            for _ in itertools.repeat(None, count):
                call()
            times[side].append((time.perf_counter() - start) / count)
    return times


def compared(
    plan: Plan, topic: str, name: str, sides: Sides, small: bool = False, **more: Any
) -> Figure:
    """The figure of a call, timed on all sides. A `small` one needs no threads, and little time."""
    seconds, pause = (plan.seconds / 10, plan.pause / 10) if small else (plan.seconds, plan.pause)
    times = take_turns(sides, plan.rounds, seconds, pause)
    return from_times(topic, name, times, **more)


def from_times(topic: str, name: str, times: dict[str, list[float]], **more: Any) -> Figure:
    """The figure of the seconds of all rounds: medians, and medians of the rounds' ratios."""
    ratios = {
        side: statistics.median(t / h for t, h in zip(theirs, times[HERE], strict=True))
        for side, theirs in times.items()
        if side != HERE
    }
    values = {side: statistics.median(seconds) for side, seconds in times.items()}
    return Figure(topic, name, values, ratios=ratios, **more)


def geometric_mean(
    topic: str, figures: Iterable[Figure], target: float | None = None, name: str = ""
) -> list[Figure]:
    """A figure with the mean of the ratios; none where nothing was compared."""
    ratios = [figure.ratio for figure in figures if figure.ratio]
    if not ratios:
        return []
    return [
        Figure(
            topic,
            name or "geometric mean",
            ratios={"best": statistics.geometric_mean(ratios)},
            target=target,
        )
    ]


def library(side: str) -> Any:
    """The module of a side that has PyTorch's names."""
    if side == HERE:
        return mt
    import torch

    return torch


# The machine


@dataclass(frozen=True)
class Roofs:
    """What no kernel can exceed, as measured, on one thread and on all."""

    gflops_one: float
    gflops: float
    gbytes: float  # from memory, not from caches


@numba.njit(nogil=True)
def _multiply(like, place, k, repeats):  # type: ignore[no-untyped-def]
    for _ in range(repeats):
        tile(like, ROWS, 2, k, place, k * 4, 4, place + 16384, 2 * VECTOR_BYTES,
             place + 32768, 2 * VECTOR_BYTES, 0, 0)  # fmt: skip


@numba.njit(nogil=True)
def _triad(a, b, c):  # type: ignore[no-untyped-def]
    for i in range(a.size):
        a[i] = b[i] + np.float32(3) * c[i]


def measure_roofs(plan: Plan) -> Roofs:
    """The speed of multiply-adds in registers (float32), and of memory: a = b + 3 c (STREAM)."""
    threads, k = mt.get_num_threads(), 64
    buffer = np.zeros(65536 * (threads + 1), np.uint8)
    place = -(-buffer.ctypes.data // 4096) * 4096
    like = np.zeros(1, np.float32)
    repeats = max(int(plan.seconds * 1e6), 1)
    flops = 2.0 * ROWS * (2 * VECTOR_BYTES // 4) * k * repeats

    def best(call: Callable[[], Any]) -> float:
        return min(take_turns({HERE: call}, 4 * plan.rounds, 0.0, plan.pause / 3)[HERE])

    def multiply(thread: int) -> None:
        _multiply(like, place + thread * 65536, k, repeats)

    one = flops / best(lambda: multiply(0))
    arrays = [np.ones(plan.roof_megabytes << 18, np.float32) for _ in range(3)]
    parts = [np.array_split(array, threads) for array in arrays]
    with ThreadPoolExecutor(threads) as pool:
        every = flops * threads / best(lambda: list(pool.map(multiply, range(threads))))
        memory = 3 * arrays[0].nbytes / best(lambda: list(pool.map(_triad, *parts)))
    return Roofs(one / 1e9, every / 1e9, memory / 1e9)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine(against: Sequence[str]) -> dict[str, Any]:
    """The machine and the versions."""
    versions = {"python": platform.python_version(), "numpy": np.__version__}
    versions["numba"] = numba.__version__
    for side in against:
        versions[side] = str(load(side).__version__)
    return dict(
        description=describe(),
        system=platform.platform(),
        cores=cores(),
        threads=mt.get_num_threads(),
        vectors=SIMD,
        versions=versions,
    )


def load(side: str) -> Any:
    """The library of a side; InputError if it is not installed."""
    names = {"torch": "PyTorch", "numpy": "NumPy", "jax": "JAX"}
    wanted = {"torch": 'pip install "minitensor[torch]"', "jax": "pip install jax"}
    try:
        return __import__(side)
    except ImportError as error:
        raise InputError(
            f"{names[side]} is not installed: {wanted.get(side, '')}, or name other sides "
            "with --against"
        ) from error
