"""A rank of a measurement: mpiexec -n K python -m tools.scaling.worker TASK SETTINGS.

The settings are JSON, and so is the last line of rank 0's output, the result. Each rank keeps to a
core of its own, as far as there are enough.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from mpi4py import MPI

import minitensor as mt
from minitensor import distributed as dist
from minitensor import nn
from minitensor.models.transformer import Transformer
from minitensor.models.translation import predict, token_loss
from minitensor.nn.parallel import DistributedDataParallel

from ..bench.plan import Step

TURNS = 3  # of a measurement, whose median counts
SUMMED = 2**24  # bytes of the arrays that are added to measure gamma
WORLD = MPI.COMM_WORLD


def seconds_of(*calls: Callable[[], Any], budget: float = 0.3) -> list[float]:
    """Return the seconds of calls that all ranks make, in turns, each many times in a row.

    A time is that of the slowest rank, and the median over the turns.

    - budget: the seconds that all turns of a call may take, as long as the first call.
    """
    first = [WORLD.bcast(clock(call, 1)) for call in calls]
    counts = [max(1, int(budget / TURNS / seconds)) for seconds in first]
    turns = [list(map(clock, calls, counts)) for _ in range(TURNS)]
    return [statistics.median(series) for series in zip(*turns, strict=True)]


def clock(call: Callable[[], Any], count: int) -> float:
    """Return the seconds of one of `count` calls in a row, on the slowest rank."""
    WORLD.Barrier()
    start = time.perf_counter()
    for _ in range(count):
        call()
    return float(WORLD.allreduce((time.perf_counter() - start) / count, MPI.MAX))


def reductions(sizes: Sequence[int]) -> dict[str, Any]:
    """Measure all-reduces of so many bytes, MPI's and minitensor's, and how long it takes to add.

    MPI's is by the algorithm that its environment names.
    """
    found: dict[str, Any] = dict(mpi=[], minitensor=[])
    for size in sizes:
        data = mt.zeros(size // 4)
        found["mpi"] += seconds_of(partial(WORLD.Allreduce, MPI.IN_PLACE, data.numpy()))
        found["minitensor"] += seconds_of(partial(dist.all_reduce, data))
    total, term = np.zeros((2, SUMMED // 4), np.float32)
    found["gamma"] = seconds_of(partial(np.add, total, term, out=total))[0] / SUMMED
    return found


class Loss(nn.Module):
    """A translation model with its loss."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, src: mt.Tensor, tgt: mt.Tensor) -> mt.Tensor:
        """Return the mean loss of the target tokens (N, L), the source being (N, S)."""
        return token_loss(*predict(self.model, (src, tgt)), 0.1)


class Training:
    """Training on one batch, by the ranks of a group together, or by all of them for None."""

    def __init__(self, step: Step, group: Any) -> None:
        mt.manual_seed(0)
        loss = Loss(Transformer(step.config()))
        self.loss = DistributedDataParallel(loss, process_group=group)
        self.optimizer = mt.optim.Adam(self.loss.parameters(), lr=1e-4)
        self.batch = [mt.from_numpy(side) for side in step.data()]

    def step(self) -> list[float]:
        """Train for a step; return the times when its parts began, and when it ended."""
        times = [time.perf_counter()]
        self.optimizer.zero_grad()
        loss = self.loss(*self.batch)
        times.append(time.perf_counter())
        loss.backward()
        times.append(time.perf_counter())
        self.optimizer.step()
        times.append(time.perf_counter())
        return times


def alone() -> Any:
    """Return the group of this rank alone."""
    return [dist.new_group([rank]) for rank in range(WORLD.size)][WORLD.rank]


def steps(step: dict[str, Any], batches: Sequence[int]) -> dict[str, Any]:
    """Measure training steps with so many sentences on each rank.

    Each is measured twice: `alone`, of all ranks at once without communication, and `together`.
    """
    found: dict[str, list[float]] = dict(alone=[], together=[])
    for batch in batches:
        shape = Step(**step).resized(batch=batch)
        calls = [Training(shape, group).step for group in (alone(), None)[: WORLD.size]]
        for series, seconds in zip(found.values(), seconds_of(*calls, budget=1.5), strict=False):
            series.append(seconds)
    return found


def profile(step: dict[str, Any], rounds: int = 5) -> dict[str, Any]:
    """Measure the backward pass on one rank: its part of a step, and when each gradient is ready.

    The gradients are those of all parameters in their order, each with its bytes and the part of
    the backward pass that is over.
    """
    training = Training(Step(**step), alone())
    parameters = list(training.loss.parameters())
    ready = [0.0] * len(parameters)

    def note(number: int) -> Callable[[mt.Tensor], None]:
        def hook(parameter: mt.Tensor) -> None:
            ready[number] = time.perf_counter()

        return hook

    for number, parameter in enumerate(parameters):
        parameter.register_post_accumulate_grad_hook(note(number))
    training.step()
    shares, parts = [], []
    for _ in range(rounds):
        start, backward, update, stop = training.step()
        shares.append((update - backward) / (stop - start))
        parts.append([(moment - backward) / (update - backward) for moment in ready])
    return dict(
        backward=statistics.median(shares),
        gradients=[
            (parameter.nbytes, float(part))
            for parameter, part in zip(parameters, np.median(parts, 0), strict=True)
        ],
    )


TASKS = {task.__name__: task for task in (reductions, steps, profile)}


def main(name: str, settings: str) -> None:
    """Run a task on this rank; rank 0 prints the result."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[WORLD.rank % len(cores)]})
    dist.init_process_group()
    result = TASKS[name](**json.loads(settings))
    if WORLD.rank == 0:
        print(json.dumps(result), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
