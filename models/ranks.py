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
import hashlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import minitensor as mt
from minitensor import Tensor, nn
from minitensor.distributed.launch import launched
from minitensor.optim import Optimizer

from .command import FAULTS, InputError, python, require, sentence
from .task import Task

Loss = Callable[[Any], Tensor]


class AgreedError(InputError):
    """A fault that all ranks know of: they end alike, and rank 0 prints it."""


@dataclass(frozen=True)
class Part:
    """The rows of a batch that are a rank's, and how much their loss counts in that of all.

    `scale` times the loss is what has the mean gradients of all ranks be those of the whole batch.
    """

    batch: Any
    first: int
    rows: int
    weight: float = 1.0
    scale: float = 1.0


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

    def place(self, rows: int, after: int = 0) -> int:
        """Return the first of this rank's rows of a batch, or of those of the rank `after` it."""
        return rows * (self.rank + after) // self.size

    def rows(self, rows: int) -> int:
        """Return how many rows of a batch are this rank's; one, if it would have none."""
        return max(1, self.place(rows, 1) - self.place(rows))

    def part(self, task: Task, batch: Any) -> Part:
        """Return this rank's rows of a batch; one that counts nothing, if there are too few."""
        tensors = list(batch.values()) if isinstance(batch, dict) else batch
        rows = len(tensors[0])
        if self.size == 1:
            return Part(batch, 0, rows)
        first, count = self.place(rows), self.rows(rows)
        own = task.part(batch, slice(first, first + count))
        weight = task.count(own) / task.count(batch) if self.place(rows, 1) > first else 0.0
        return Part(own, first, count, weight, weight * self.size)

    # Learning

    def shared(self, model: nn.Module, loss: Loss) -> Loss:
        """Return a loss whose backward pass leaves the mean gradients of all ranks on each.

        They are exchanged while the backward pass runs; those of a compiled loss, which come all at
        once, after it. The weights become those of rank 0.
        """
        if self.size == 1:
            return loss
        from minitensor.distributed import default_hooks
        from minitensor.nn.parallel import DistributedDataParallel

        parallel = DistributedDataParallel(
            _Learner(model, loss), broadcast_buffers=False, find_unused_parameters=True
        )
        if self.bf16_gradients:
            parallel.register_comm_hook(None, default_hooks.bf16_compress_hook)
        return parallel

    def optimizer(self, optimizer: Optimizer) -> Optimizer:
        """Return an optimizer that does the same, whose state is divided if that was asked for."""
        if self.size == 1 or not self.shard_optimizer:
            return optimizer
        from minitensor.distributed.optim import ZeroRedundancyOptimizer

        groups, defaults = optimizer.param_groups, optimizer.defaults
        return ZeroRedundancyOptimizer(groups, type(optimizer), **defaults)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the whole state dict of such an optimizer on rank 0, and nothing elsewhere."""
        if self.size > 1 and self.shard_optimizer:
            optimizer.consolidate_state_dict()  # type: ignore[attr-defined]
        return optimizer.state_dict() if self.first else {}

    def share_buffers(self, model: nn.Module) -> None:
        """Give the buffers of a model, such as the means of a batch norm, the values of rank 0."""
        if self.size == 1:
            return
        from minitensor import distributed

        for buffer in model.buffers():
            distributed.broadcast(buffer, 0)

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


ALONE = Ranks()


class _Learner(nn.Module):
    """A loss as a module, which has the model that learns from it."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, batch: Any) -> Tensor:
        """Return the loss of a batch."""
        return self.loss(batch)


def started() -> Ranks:
    """Return the ranks that mpiexec started; this process alone without it."""
    found = launched()
    if "WORLD_SIZE" not in found:
        return ALONE
    return Ranks(int(found.get("RANK", 0)), int(found["WORLD_SIZE"]))


def together(run: Callable[[Ranks], int], **options: bool) -> int:
    """Run a job on all ranks that mpiexec started; returns the exit code.

    `options` are those of Ranks. If the job fails on one rank, or one is killed, it ends on all; a
    line on standard error then names that rank.
    """
    ranks = started()
    if ranks.size == 1:
        return run(Ranks(**options))
    try:
        join(ranks)
        if options.get("bf16_gradients"):
            require("ml_dtypes")
        return run(Ranks(ranks.rank, ranks.size, **options))
    except AgreedError:
        if ranks.first:
            raise
        return 1
    except FAULTS as error:
        sys.stderr.write(f"error: rank {ranks.rank} of {ranks.size}: {sentence(error)}\n")
        return end(1)
    except KeyboardInterrupt as stopped:
        if not ranks.first:
            time.sleep(1)  # until rank 0, which was asked to end as well, has said so
        print("interrupted", file=sys.stderr)
        return end(128 + getattr(stopped, "number", signal.SIGINT))


def join(ranks: Ranks) -> None:
    """Let the ranks find each other; by this they also share the cores of their machines."""
    try:
        from minitensor import distributed

        distributed.init_process_group()
    except ImportError:
        raise AgreedError(
            f"mpiexec started {ranks.size} processes, but mpi4py is not installed: install it with "
            f"{python()} -m pip install mpi4py mpich"
        ) from None
    if distributed.get_world_size() != ranks.size:
        raise InputError(
            f"mpiexec started {ranks.size} processes, but mpi4py's MPI library sees "
            f"{distributed.get_world_size()}: use the mpiexec of that library"
        )


def end(code: int) -> int:
    """End the job on all ranks, some of which may wait for this one."""
    MPI = sys.modules.get("mpi4py.MPI")
    if MPI is not None and MPI.COMM_WORLD.Get_size() > 1:
        from minitensor import distributed

        distributed.abort(code)
    return code


def shows_progress() -> bool:
    """Return True if standard error ends in a terminal, perhaps by way of mpiexec."""
    if sys.stderr.isatty():
        return True
    process = os.getpid()
    with contextlib.suppress(OSError, ValueError, IndexError):
        for _ in range(4):  # a proxy of mpiexec, then mpiexec
            process = int(
                Path(f"/proc/{process}/stat").read_text("utf-8").rpartition(")")[2].split()[1]
            )
            if "mpiexec" in Path(f"/proc/{process}/comm").read_text("utf-8"):
                return os.readlink(f"/proc/{process}/fd/2").startswith(("/dev/pts/", "/dev/tty"))
    return False
