"""One model trained by several processes: `mpiexec -n K python -m models.translate train ...`.

Each process, a rank, holds the whole model and reads the same data. A step takes the same batch on
all of them: each computes the loss of its rows, weighted by the units in them (`Task.count`), and
the gradients are summed over the ranks before the optimiser changes the weights, which so stay the
same. Losses, dropout and the state of the random numbers are those of one process with the whole
batch, up to rounding, so a run can go on with any number of processes. Rank 0 alone writes files
and prints. One process alone is the only rank, and exchanges nothing: mpi4py is not imported.

The processes see the same files, as on one machine or on a shared file system.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import minitensor as mt
from minitensor import nn

from .command import FAULTS, InputError, python, sentence
from .task import Task

# What tells a process how many were started, and its rank: MPICH, Intel MPI and MS-MPI; Open MPI.
STARTED = (("PMI_SIZE", "PMI_RANK"), ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"))


class AgreedError(InputError):
    """A fault that all ranks know of: they end alike, and rank 0 prints it."""


@dataclass(frozen=True)
class Part:
    """The rows of a batch that are a rank's, and how much their loss counts in that of all."""

    batch: Any
    first: int
    rows: int
    weight: float


@dataclass(frozen=True)
class Ranks:
    """The processes that train a model together, of which this is number `rank`.

    - shard_optimizer: each keeps the state of the optimiser of its part of the parameters alone.
    - bf16_gradients: gradients are sent as bfloat16.
    """

    rank: int = 0
    size: int = 1
    shard_optimizer: bool = False
    bf16_gradients: bool = False

    @property
    def first(self) -> bool:
        """True for the rank that writes files and prints."""
        return self.rank == 0

    def part(self, task: Task, batch: Any) -> Part:
        """Return this rank's rows of a batch; one that counts nothing, if there are too few."""
        tensors = list(batch.values()) if isinstance(batch, dict) else batch
        rows = len(tensors[0])
        if self.size == 1:
            return Part(batch, 0, rows, 1.0)
        start, stop = (rows * rank // self.size for rank in (self.rank, self.rank + 1))
        first, count = min(start, rows - 1), max(stop - start, 1)
        own = task.part(batch, slice(first, first + count))
        weight = task.count(own) / task.count(batch) if start < stop else 0.0
        return Part(own, first, count, weight)

    # Exchange

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all ranks, in their order."""
        if self.size == 1:
            return [value]
        from minitensor import distributed

        values = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    def table(self, *numbers: float) -> list[tuple[float, ...]]:
        """Return the numbers of each rank."""
        if self.size == 1:
            return [numbers]
        from minitensor import distributed

        rows = mt.empty(self.size, len(numbers), dtype=mt.float64)
        distributed.all_gather_into_tensor(rows, mt.tensor(numbers, dtype=mt.float64))
        return [tuple(row) for row in rows.tolist()]

    def sum_gradients(self, model: nn.Module) -> None:
        """Replace the gradients of a model by their sums over the ranks."""
        if self.size == 1:
            return
        from minitensor import distributed

        for parameter in model.parameters():
            if parameter.grad is not None:
                distributed.all_reduce(parameter.grad)

    @contextlib.contextmanager
    def agreed(self) -> Iterator[None]:
        """Raise AgreedError on all ranks if the block, which exchanges nothing, fails on one."""
        if self.size == 1:
            yield
            return
        fault = ""
        try:
            yield
        except FAULTS as error:
            fault = sentence(error)
        faults = self.gather(fault)
        for rank, found in enumerate(faults):
            if found:
                raise AgreedError(found if rank == 0 else f"rank {rank} of {self.size}: {found}")

    def check_same(self, task: Task) -> None:
        """Raise AgreedError unless all ranks read the same data."""
        if self.size == 1:
            return
        known = f"{task.digest} {sorted(task.texts().items())}".encode()
        digests = self.gather(hashlib.sha256(known).hexdigest())
        for rank, digest in enumerate(digests):
            if digest != digests[0]:
                raise AgreedError(f"rank {rank} of {self.size} read other data than rank 0")

    def describe(self) -> str:
        """Return a clause for the line about the run."""
        if self.size == 1:
            return ""
        threads = mt.get_num_threads()
        return f"; {self.size} processes with {threads} thread{'s' * (threads > 1)} each"


def started() -> Ranks:
    """Return the ranks that mpiexec started; this process alone without it."""
    for size, rank in STARTED:
        if size in os.environ:
            return Ranks(int(os.environ.get(rank, 0)), int(os.environ[size]))
    return Ranks()


def together(run: Callable[[Ranks], int], folder: Path, **options: bool) -> int:
    """Run a job that keeps its results in `folder` on all ranks; returns the exit code.

    `options` are those of Ranks. The job ends on all if it fails on one, or if one is killed; a
    line on standard error then names that rank.
    """
    ranks = started()
    if ranks.size == 1:
        return run(Ranks(**options))
    stand_by(ranks, folder)
    try:
        join(ranks)
        return run(Ranks(ranks.rank, ranks.size, **options))
    except AgreedError:
        if ranks.first:
            raise
        return 1
    except FAULTS as error:
        print(f"error: rank {ranks.rank} of {ranks.size}: {sentence(error)}", file=sys.stderr)
        return end(1)
    except KeyboardInterrupt as stopped:
        if not ranks.first:
            time.sleep(1)  # until rank 0, which was asked to end as well, has said so
        print("interrupted", file=sys.stderr)
        return end(128 + getattr(stopped, "number", signal.SIGINT))


def join(ranks: Ranks) -> None:
    """Let the ranks find each other, and share the cores of their machines."""
    try:
        from minitensor import distributed

        distributed.init_process_group()
    except ImportError:
        raise (InputError if ranks.first else AgreedError)(
            f"mpiexec started {ranks.size} processes, but mpi4py is not installed: install it with "
            f"{python()} -m pip install mpi4py mpich"
        ) from None
    if distributed.get_world_size() != ranks.size:
        raise InputError(
            f"mpiexec started {ranks.size} processes, but mpi4py's MPI library sees "
            f"{distributed.get_world_size()}: use the mpiexec of that library"
        )
    if "NUMBA_NUM_THREADS" not in os.environ:
        affinity = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        cores = (platform.node(), affinity)
        mt.set_num_threads(max(1, mt.get_num_threads() // ranks.gather(cores).count(cores)))


def end(code: int) -> int:
    """End the job on all ranks, some of which may wait for this one."""
    from minitensor import distributed

    if not distributed.is_initialized():
        return code
    from mpi4py import MPI

    sys.stdout.flush()
    sys.stderr.flush()
    MPI.COMM_WORLD.Abort(code)
    return code


def stand_by(ranks: Ranks, folder: Path) -> None:
    """Go on in a child process, while this one waits to say how it ended.

    Nobody else could: when a process is killed, mpiexec kills the others. Does nothing on systems
    without fork.
    """
    if not hasattr(os, "fork"):
        return
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if not child:
        if sys.platform == "linux":  # end with the parent: PR_SET_PDEATHSIG
            ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
        return
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: os.kill(child, number))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code < 0:
        left = folder / "last.safetensors"
        how = f": continue from {left} with --resume" if left.exists() else ""
        print(
            f"error: rank {ranks.rank} of {ranks.size} (process {child} on {platform.node()}) was "
            f"killed by {signal.Signals(-code).name}{how}",
            file=sys.stderr,
            flush=True,
        )
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(code)


def shows_progress() -> bool:
    """Return True if standard error ends in a terminal, perhaps by way of mpiexec."""
    if sys.stderr.isatty():
        return True
    process = os.getpid()
    with contextlib.suppress(OSError, ValueError, IndexError):
        for _ in range(5):  # the process that stood by, a proxy of mpiexec, mpiexec
            process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
            if "mpiexec" in Path(f"/proc/{process}/comm").read_text():
                return os.readlink(f"/proc/{process}/fd/2").startswith(("/dev/pts/", "/dev/tty"))
    return False
