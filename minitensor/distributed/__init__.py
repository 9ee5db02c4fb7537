"""Programs of several processes, over MPI, with PyTorch's names.

    mpiexec -n 4 python train.py

starts four processes. In each, `init_process_group()` gives it a rank from 0 to 3; collective calls
exchange tensors between all of them, and `DistributedDataParallel` trains one model on all.
`pip install 'minitensor[mpi]'` brings mpi4py and the MPI library mpich.
"""

from ..names import show
from .collectives import (
    ReduceOp,
    all_gather,
    all_gather_into_tensor,
    all_gather_object,
    all_reduce,
    barrier,
    broadcast,
    broadcast_object_list,
    gather,
    reduce,
    reduce_scatter,
    reduce_scatter_tensor,
    scatter,
)
from .processes import (
    GroupMember,
    ProcessGroup,
    Work,
    abort,
    destroy_process_group,
    get_backend,
    get_rank,
    get_world_size,
    group,
    init_process_group,
    is_available,
    is_initialized,
    new_group,
)

__all__ = [
    "GroupMember",
    "ProcessGroup",
    "ReduceOp",
    "Work",
    "abort",
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
    "is_initialized",
    "new_group",
    "reduce",
    "reduce_scatter",
    "reduce_scatter_tensor",
    "scatter",
]

show(__name__, [*__all__, "default_hooks", "optim", "parallel"])
