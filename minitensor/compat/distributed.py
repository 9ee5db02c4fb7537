"""`torch.distributed` and `torch.multiprocessing` beyond minitensor: other backends, `spawn`."""

from __future__ import annotations

import multiprocessing as _python
import os
from collections.abc import Callable
from typing import Any

from ..distributed import default_hooks, is_available
from ..names import show
from .answers import answer, namespace

__all__ = [
    "is_gloo_available",
    "is_mpi_available",
    "is_nccl_available",
    "is_torchelastic_launched",
]

is_nccl_available = is_gloo_available = is_torchelastic_launched = answer(False)
is_mpi_available = is_available

# Of the processes that mpiexec starts, as its kinds tell it: torchrun's name, then mpich's and Open
# MPI's.
_VARIABLES = (
    ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK"),
    ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE"),
    ("LOCAL_RANK", "MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK"),
    ("LOCAL_WORLD_SIZE", "MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE"),
)


def launched() -> dict[str, str]:
    """Return what torchrun would have set in the environment, if mpiexec started this process."""
    found = {}
    for name, *others in _VARIABLES:
        for other in others:
            if other in os.environ:
                found[name] = os.environ[other]
    return found


def spawn(
    fn: Callable[..., Any],
    args: tuple[Any, ...] = (),
    nprocs: int = 1,
    join: bool = True,
    daemon: bool = False,
    start_method: str = "spawn",
) -> None:
    """Call `fn(rank, *args)` in each of the processes that mpiexec has started.

    RuntimeError if these are not `nprocs`, as no others are started.
    """
    here = launched()
    if int(here.get("WORLD_SIZE", 1)) != nprocs:
        raise RuntimeError(
            f"spawn: minitensor starts no processes. Start the program as mpiexec -n {nprocs} "
            "python -m minitensor.compat script.py; each process then calls the function"
        )
    fn(int(here.get("RANK", 0)), *args)


multiprocessing = namespace(
    f"{__name__}.multiprocessing",
    "`torch.multiprocessing`: Python's own, and `spawn` for processes that mpiexec has started.",
    **{name: getattr(_python, name) for name in _python.__all__},
    spawn=spawn,
    start_processes=spawn,
    get_all_sharing_strategies=answer({"file_descriptor"}),
    get_sharing_strategy=answer("file_descriptor"),
    set_sharing_strategy=answer(),
)

algorithms = namespace(
    f"{__name__}.algorithms",
    "`torch.distributed.algorithms`.",
    ddp_comm_hooks=namespace(
        f"{__name__}.algorithms.ddp_comm_hooks",
        "`torch.distributed.algorithms.ddp_comm_hooks`.",
        default_hooks=default_hooks,
    ),
)

show(__name__)
