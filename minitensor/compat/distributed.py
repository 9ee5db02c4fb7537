"""`torch.distributed` and `torch.multiprocessing` beyond minitensor: other backends, `spawn`."""

from __future__ import annotations

import multiprocessing as _python
from collections.abc import Callable
from typing import Any

from ..distributed import default_hooks, is_available
from ..distributed.launch import launched
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
