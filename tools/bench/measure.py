"""Measurement of several sides in turns, of the machine's roofs, and figures with targets.

The threads of OpenBLAS and of OpenMP runtimes keep spinning for milliseconds after a call and would
slow down the next side. So each side waits until no thread of the process computes, makes one call
that is not timed, then a number of calls that are. Each round begins with another side.
"""

from __future__ import annotations

import itertools
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, astuple, dataclass, field, replace
from functools import partial
from typing import Any

import numba
import numpy as np

import minitensor as mt
from minitensor.kernels.formats import rounded
from minitensor.kernels.jit import compiler
from minitensor.kernels.microkernel import microkernel
from minitensor.kernels.simd import MR, SIMD, VECTOR_BYTES
from minitensor.models.command import InputError

from ..compare import describe
from .plan import Plan

Sides = dict[str, Callable[[], Any]]
HERE = "here"


@dataclass
class Figure:
    """One measured quantity: the median for each side, and the ratios to the other sides.

    A ratio of times or speeds is the speed here relative to the other side; one of bytes is the
    memory here relative to it.
    """

    topic: str
    name: str
    values: dict[str, float] = field(default_factory=dict)  # by side
    unit: str = "s"  # or tokens/s, bytes, share, times
    ratios: dict[str, float] = field(default_factory=dict)  # by the other side
    flops: float = 0.0  # of one call
    bytes: float = 0.0  # that a call reads and writes at least
    target: float | None = None  # of the ratio; of the value if `of_value`
    of_value: bool = False
    label: str = ""  # in the roofline plot
    curve: str = ""  # of `growth`: what grows,
    size: float = 0.0  # how far,
    drawn_as: str = HERE  # and the name of the side here

    @property
    def ratio(self) -> float | None:
        """The ratio to the best of the other sides."""
        if not self.ratios:
            return None
        return (max if self.unit == "bytes" else min)(self.ratios.values())

    @property
    def gflops(self) -> float | None:
        """The speed here in GFLOP/s."""
        return self.flops / self.values[HERE] / 1e9 if self.flops else None

    @property
    def gbytes(self) -> float | None:
        """The speed here in GB/s."""
        return self.bytes / self.values[HERE] / 1e9 if self.bytes else None

    @property
    def at_most(self) -> bool:
        """True if the target is an upper bound."""
        return self.unit == "bytes" or (self.unit in ("s", "times") and self.of_value)

    @property
    def reached(self) -> float | None:
        """The share of the target that is reached, above 1 if it is met with room to spare.

        None without a target or without another side.
        """
        value = self.values[HERE] if self.of_value else self.ratio
        if self.target is None or value is None:
            return None
        return self.target / max(value, 1e-12) if self.at_most else value / self.target

    @property
    def met(self) -> bool | None:
        """True if the target is met; None as for `reached`."""
        return None if self.reached is None else self.reached >= 1

    def to_json(self) -> dict[str, Any]:
        """Return all fields and ratios, for a file."""
        return asdict(self) | dict(
            ratio=self.ratio, gflops=self.gflops, gbytes=self.gbytes, met=self.met
        )


def settle(pause: float, most: float = 1.0) -> None:
    """Sleep until no thread of this process computes, checked every `pause` seconds."""
    end = time.perf_counter() + most
    while time.perf_counter() < end:
        before = time.process_time()
        time.sleep(pause)
        if time.process_time() - before < pause / 10:
            return


def take_turns(
    sides: Sides, rounds: int, seconds: float, pause: float, most: int = 1000
) -> dict[str, list[float]]:
    """Return each side's seconds per call in each round; a turn lasts about `seconds`."""
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
            if count > 1:  # a long call is hardly disturbed
                call()
            start = time.perf_counter()
            for _ in itertools.repeat(None, count):
                call()
            times[side].append((time.perf_counter() - start) / count)
    return times


def compared(
    plan: Plan, topic: str, name: str, sides: Sides, small: bool = False, **more: Any
) -> Figure:
    """Time a call on all sides; a `small` one, without threads, for a tenth of the time."""
    seconds, pause = (plan.seconds / 10, plan.pause / 10) if small else (plan.seconds, plan.pause)
    times = take_turns(sides, plan.rounds, seconds, pause)
    return from_times(topic, name, times, **more)


def from_times(topic: str, name: str, times: dict[str, list[float]], **more: Any) -> Figure:
    """Return the figure of all rounds' seconds: medians, and medians of the rounds' ratios."""
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
    """Return a figure with the geometric mean of the ratios, or none without ratios."""
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


def at_peak(topic: str, figures: Iterable[Figure], roofs: Roofs | None) -> list[Figure]:
    """Return what `geometric_mean` does for products at the peak of the processor, and all else 0.

    No faster side can be made; none is returned without figures with FLOPs, or roofs.
    """
    ratios = [
        replace(figure, ratios={"peak": figure.ratio * roofs.gflops / figure.gflops})
        for figure in figures
        if roofs is not None and figure.ratio and figure.gflops
    ]
    return geometric_mean(topic, ratios, name="geometric mean, if all were products at the peak")


def library(side: str) -> Any:
    """Return the module of a side that has PyTorch's names."""
    if side == HERE:
        return mt
    import torch

    return torch


# The machine


@dataclass(frozen=True)
class Roofs:
    """The measured limits of the machine, on one thread and on all."""

    gflops_one: float
    gflops: float
    gbytes: float  # of memory, not of caches
    rounded_one: float  # GFLOP/s with operands of bfloat16
    rounded: float

    def or_higher(self, other: Roofs) -> Roofs:
        """Return the higher of each limit."""
        return Roofs(*map(max, astuple(self), astuple(other)))


@compiler().njit(nogil=True)
def _multiply(exemplar, place, k, repeats):  # type: ignore[no-untyped-def]
    for _ in range(repeats):
        microkernel(
            exemplar, MR, 2, k, place, k * 4, 4, place + 16384, 2 * VECTOR_BYTES,
            place + 32768, 2 * VECTOR_BYTES, 0, 0,
        )  # fmt: skip


@compiler().njit(nogil=True)
def _multiply_rounded(exemplar, place, k, repeats):  # type: ignore[no-untyped-def]
    _multiply(rounded(exemplar), place, k, repeats)


@compiler().njit(nogil=True)
def _triad(a, b, c):  # type: ignore[no-untyped-def]
    for i in range(a.size):
        a[i] = b[i] + np.float32(3) * c[i]


def _all(pool: ThreadPoolExecutor, call: Callable[[int], None], threads: int) -> None:
    """Run a call on all threads, to the end."""
    list(pool.map(call, range(threads)))


def measure_roofs(plan: Plan) -> Roofs:
    """Measure multiply-adds in registers, and memory by a = b + 3 c (STREAM triad).

    These are of float32, and of bfloat16 summed in float32: as fast as can be here, with or without
    an instruction for it.
    """
    threads, k = mt.get_num_threads(), 64
    buffer = np.zeros(65536 * (threads + 1), np.uint8)
    place = -(-buffer.ctypes.data // 4096) * 4096
    exemplar = np.zeros(1, np.float32)
    repeats = max(int(plan.seconds * 1e6), 1)
    flops = 2.0 * MR * (2 * VECTOR_BYTES // 4) * k * repeats

    def best(call: Callable[[], Any]) -> float:
        return min(take_turns({HERE: call}, 4 * plan.rounds, 0.0, plan.pause / 3)[HERE])

    def multiply(kernel: Any, thread: int) -> None:
        kernel(exemplar, place + thread * 65536, k, repeats)

    arrays = [np.ones(plan.roof_megabytes << 18, np.float32) for _ in range(3)]
    parts = [np.array_split(array, threads) for array in arrays]
    peaks: list[float] = []
    with ThreadPoolExecutor(threads) as pool:
        for kernel, rank in ((_multiply, 1), (_multiply_rounded, 2)):
            call = partial(multiply, kernel)
            peaks.append(rank * flops / best(partial(call, 0)))
            seconds = best(partial(_all, pool, call, threads))
            peaks.append(rank * threads * flops / seconds)
        memory = 3 * arrays[0].nbytes / best(lambda: list(pool.map(_triad, *parts)))
    one, every, *rest = (peak / 1e9 for peak in peaks)
    return Roofs(one, every, memory / 1e9, *rest)


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine(against: Sequence[str]) -> dict[str, Any]:
    """Return a description of the machine and the versions."""
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
    """Return the library of a side; InputError if it is not installed."""
    names = {"torch": "PyTorch", "numpy": "NumPy", "jax": "JAX", "onnxruntime": "onnxruntime"}
    wanted = {"torch": 'pip install "minitensor[torch]"', "jax": "pip install jax"}
    wanted["onnxruntime"] = "pip install onnxruntime"
    try:
        return __import__(side)
    except ImportError as error:
        raise InputError(
            f"{names[side]} is not installed: {wanted.get(side, '')}, or name other sides "
            "with --against"
        ) from error
