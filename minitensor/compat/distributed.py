"""`torch.distributed` in a process that belongs to no group: programs run in one process."""

from __future__ import annotations

import multiprocessing as _python
from typing import Any

from ..data import Sampler
from ..names import show
from .answers import answer, namespace, refuse

__all__ = [
    "GroupMember",
    "ReduceOp",
    "all_gather",
    "all_gather_into_tensor",
    "all_gather_object",
    "all_reduce",
    "barrier",
    "broadcast",
    "broadcast_object_list",
    "destroy_process_group",
    "gather",
    "get_backend",
    "get_rank",
    "get_world_size",
    "group",
    "init_process_group",
    "is_available",
    "is_gloo_available",
    "is_initialized",
    "is_mpi_available",
    "is_nccl_available",
    "is_torchelastic_launched",
    "new_group",
    "reduce",
    "reduce_scatter",
    "scatter",
]

is_available = is_initialized = is_nccl_available = is_gloo_available = answer(False)
is_mpi_available = is_torchelastic_launched = answer(False)

NO_GROUP = "Default process group has not been initialized: minitensor runs in one process"
get_rank = get_world_size = get_backend = barrier = all_reduce = reduce = refuse(
    ValueError, NO_GROUP
)
broadcast = broadcast_object_list = all_gather = all_gather_object = get_rank
all_gather_into_tensor = gather = scatter = reduce_scatter = destroy_process_group = get_rank
init_process_group = new_group = refuse(
    RuntimeError, "minitensor has no process groups: start the program as one process"
)


class ReduceOp:
    """The names of reductions."""

    SUM, AVG, PRODUCT, MIN, MAX = "sum", "avg", "product", "min", "max"


class GroupMember:
    """The members of no group."""

    WORLD = NON_GROUP_MEMBER = None


group = GroupMember


class DistributedSampler(Sampler[int]):
    """A share of a data set for each process of a group, which there is none of."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError(f"DistributedSampler: {NO_GROUP}; a DataLoader takes shuffle=True")


data = namespace(
    f"{__name__}.data", "`torch.utils.data.distributed`.", DistributedSampler=DistributedSampler
)

multiprocessing = namespace(
    f"{__name__}.multiprocessing",
    "`torch.multiprocessing`: Python's own, without groups of processes.",
    **{name: getattr(_python, name) for name in _python.__all__},
    **dict.fromkeys(("spawn", "start_processes"), init_process_group),
    get_all_sharing_strategies=answer({"file_descriptor"}),
    get_sharing_strategy=answer("file_descriptor"),
    set_sharing_strategy=answer(),
)

show(__name__)
