"""Groups of processes, started by `mpiexec -n K`, and the calls that all of a group make together.

Every collective call is a `Work`: a sequence of MPI's nonblocking calls, each of which is posted
when the one before has ended. The first exchanges a digest of the call, so that ranks which call
different things learn of it, instead of waiting for each other. Each stage has a communicator of
its own, and calls go through their stages in the order in which they were made; hence all ranks
post the same calls on a communicator in the same order, as MPI asks, whenever they make progress.
Who waits for a call makes progress in all groups, as others may wait for its part in those.
"""

from __future__ import annotations

import atexit
import functools
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from hashlib import blake2b
from importlib.util import find_spec
from typing import Any

import numpy as np

from ..core import Tensor, state
from ..kernels.jit import cores, share_cores
from .watch import Watched

STAGES = 3  # that a call has at most: the digest and two more
DIGEST = 8  # bytes
ENDED = "nothing more, as its program ended"  # the call of a rank at its end

Steps = Iterator[Any]  # yields MPI's requests, one for each stage after the first


class Work:
    """A collective call under way; its results are there after `wait()`."""

    def __init__(
        self, group: ProcessGroup, text: str, steps: Iterable[Any], tensors: Sequence[Tensor] = ()
    ) -> None:
        self._group, self._text, self._tensors = group, text, list(tensors)
        self._digest = np.frombuffer(blake2b(text.encode(), digest_size=DIGEST).digest(), np.uint8)
        self._digests = np.empty((group.size(), DIGEST), np.uint8)
        self._steps = iter(steps)
        self.request = group.stage(0).Iallgather(self._digest, self._digests)
        self.stage = 1  # the number of stages that have been posted
        self.done = False
        self._error: RuntimeError | None = None

    def wait(self, timeout: timedelta | None = None) -> bool:
        """Wait until the results are there; RuntimeError if the ranks called different things."""
        self._group.finish(self)
        if self._error is not None:
            raise self._error
        return True

    def get_future(self) -> Future:
        """Return a future of the tensors that the call writes."""
        return Future(self.wait, lambda: self._tensors)

    def is_completed(self) -> bool:
        """Return True if the results are there, and push on the calls under way."""
        self._group.progress()
        return self.done

    def ready(self) -> bool:
        """Return True if the last stage posted has ended."""
        return bool(self.request.Test())

    def advance(self) -> None:
        """Post the next stage, after the last one has ended."""
        if self.stage == 1 and (self._digests != self._digest).any():
            self._error = RuntimeError(self._group.disagreement(self._text))
            self.done = True
            return
        try:
            self.request = next(self._steps)
            self.stage += 1
        except StopIteration:
            self.done = True


class Future:
    """The result of a call under way, and of functions that are to be called with it."""

    def __init__(self, wait: Callable[[], Any], result: Callable[[], Any]) -> None:
        self._wait, self._result = wait, functools.cache(result)

    def wait(self) -> Any:
        """Wait for the result and return it."""
        self._wait()
        return self._result()

    value = wait

    def then(self, callback: Callable[[Future], Any]) -> Future:
        """Return the future of `callback(self)`, which is called when someone waits for it."""
        return Future(self.wait, lambda: callback(self))


class ProcessGroup:
    """Some or all of the processes, which are its ranks 0, 1, ..."""

    def __init__(self, comm: Any, ranks: Sequence[int]) -> None:
        self.ranks = list(ranks)  # their ranks in the whole job
        self._rank, self._size = comm.Get_rank(), comm.Get_size()
        self._comms = [comm.Dup() for _ in range(STAGES)]
        self.objects = comm.Dup()  # for the blocking calls
        self._under_way: list[Work] = []
        self.over = False  # a rank's program has ended
        _groups.append(self)

    def rank(self) -> int:
        """Return the number of this process in the group."""
        return self._rank

    def size(self) -> int:
        """Return the number of processes in the group."""
        return self._size

    def name(self) -> str:
        """Return the name of the backend: "mpi"."""
        return "mpi"

    def stage(self, number: int) -> Any:
        """Return the communicator of a stage."""
        return self._comms[number]

    def start(self, text: str, steps: Iterable[Any] = (), tensors: Sequence[Tensor] = ()) -> Work:
        """Begin a call that writes `tensors`; `text` describes it, the same on all ranks."""
        refuse_recording()
        if self.over:
            raise RuntimeError(f"{text}: the program of another rank of the group has ended")
        work = Work(self, text, steps, tensors)
        self._under_way.append(work)
        return work

    def progress(self) -> None:
        """Push on the calls under way as far as they can go without waiting."""
        posted = STAGES + 1  # by the call before, which goes first
        for work in self._under_way:
            while not work.done and work.stage < posted and work.ready():
                work.advance()
            if not work.done:
                posted = work.stage
        self._under_way = [work for work in self._under_way if not work.done]

    def finish(self, work: Work) -> None:
        """Wait for a call and those before it."""
        while not work.done:
            requests = [g._under_way[0].request for g in _groups if g._under_way]
            work.request.Waitany(requests)
            for g in _groups:
                g.progress()

    def disagreement(self, text: str) -> str:
        """Return the sentence about ranks that called different things."""
        texts = self.objects.allgather(text)
        self.over = ENDED in texts
        other = next(rank for rank, t in enumerate(texts) if t != texts[0])
        return (
            f"the ranks of the group disagree: rank 0 of {self._size} called {texts[0]}, "
            f"rank {other} {texts[other]}"
        )

    def free(self) -> None:
        """Give the communicators back."""
        _groups.remove(self)
        for comm in (*self._comms, self.objects):
            comm.Free()


_groups: list[ProcessGroup] = []  # that this process is in; those of all ranks are equal


def refuse_recording() -> None:
    """Have a function that is being compiled run as it is: replayed, it would exchange nothing."""
    for observer in state.observers:
        if hasattr(observer, "refuse"):
            observer.refuse("it exchanges tensors with other processes")


class GroupMember:
    """The group of all processes, None until `init_process_group`; and what a stranger gets."""

    WORLD: ProcessGroup | None = None
    NON_GROUP_MEMBER = object()


group = GroupMember


def is_available() -> bool:
    """Return True if mpi4py is installed."""
    return find_spec("mpi4py") is not None


def is_initialized() -> bool:
    """Return True between `init_process_group` and `destroy_process_group`."""
    return GroupMember.WORLD is not None


def init_process_group(
    backend: str | None = None,
    init_method: str | None = None,
    timeout: timedelta | None = None,
    world_size: int = -1,
    rank: int = -1,
    store: Any = None,
    group_name: str = "",
    pg_options: Any = None,
    device_id: Any = None,
) -> None:
    """Make the processes that `mpiexec -n K` started one group; without mpiexec, a group of one.

    - `backend`: "mpi". The other names of PyTorch's are taken for it, with a sentence.
    - `world_size`, `rank`: the size and the rank, if they are to be checked.

    The rest is accepted for PyTorch's sake. An exception that nobody catches ends the whole job
    from now on. Raises ImportError without mpi4py; ValueError for a group made twice, an unknown
    backend, and a size or rank that mpiexec did not give.
    """
    if GroupMember.WORLD is not None:
        raise ValueError("trying to initialize the default process group twice!")
    if world_size == -1 and "WORLD_SIZE" in os.environ:  # as torchrun sets it
        world_size = int(os.environ["WORLD_SIZE"])
    names = {part.rpartition(":")[2] for part in (backend or "mpi").lower().split(",")}
    if not names <= {"mpi", "gloo", "nccl", "ucc"}:
        raise ValueError(f"init_process_group: unknown backend {backend!r}; there is 'mpi'")
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise ImportError(
            f"init_process_group needs mpi4py and an MPI library ({error}): "
            "pip install 'minitensor[mpi]'"
        ) from None
    world = MPI.COMM_WORLD
    if world.Get_size() > 1:
        _abort_on_error(MPI)
    for what, asked, given in (
        ("world_size", world_size, world.Get_size()),
        ("rank", rank, world.Get_rank()),
    ):
        if asked not in (-1, given):
            raise ValueError(
                f"init_process_group: {what} is {given}, not {asked}: start the program as "
                "mpiexec -n K python ..."
            )
    if names != {"mpi"} and world.Get_rank() == 0:
        print(f"minitensor.distributed: MPI serves as backend {backend!r}", file=sys.stderr)
    if world.Get_size() > 1:
        _join(MPI)
    GroupMember.WORLD = ProcessGroup(world, range(world.Get_size()))


@functools.cache
def _abort_on_error(MPI: Any) -> None:
    """Have an exception that nobody catches end the whole job."""
    world, pid, before = MPI.COMM_WORLD, os.getpid(), sys.excepthook

    def excepthook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        before(kind, error, trace)
        if os.getpid() == pid and not MPI.Is_finalized():
            sentence = "".join(traceback.format_exception_only(kind, error)).strip()
            rank = f"rank {world.Get_rank()} of {world.Get_size()}"
            sys.stderr.write(f"{rank} failed: {sentence}\n")  # at once: lines of ranks would mix
            abort()

    sys.excepthook = excepthook


def _join(MPI: Any) -> None:
    """Share the machine with its other ranks, and have them learn of this one's end."""
    global _watched
    if _watched is not None:
        return
    world, pid = MPI.COMM_WORLD, os.getpid()
    local = world.Split_type(MPI.COMM_TYPE_SHARED)
    share_cores(local.allgather(cores()))
    _watched = watched = Watched(local, world.Get_rank(), world.Get_size())

    def at_exit() -> None:
        if os.getpid() == pid:
            works = [(g, g.start(ENDED)) for g in _groups if not g.over]
            for g, work in works:
                g.finish(work)
            watched.farewell()

    atexit.register(at_exit)


_watched: Watched | None = None


def abort(code: int = 1) -> None:
    """End all processes of the job at once, for a program that has told the reason itself.

    - `code`: what mpiexec exits with.
    """
    from mpi4py import MPI

    sys.stdout.flush()
    sys.stderr.flush()
    time.sleep(0.3)  # as mpiexec ends without reading what is left, the reason may be lost
    if _watched is not None:
        _watched.farewell()
    MPI.COMM_WORLD.Abort(code)


def new_group(ranks: Sequence[int] | None = None, **settings: Any) -> Any:
    """Return a group of some ranks of all, in ascending order; all processes have to call this.

    A process that is none of them gets `GroupMember.NON_GROUP_MEMBER`. `settings` are PyTorch's,
    without effect here.
    """
    whole = world()
    members = sorted(whole.ranks if ranks is None else ranks)
    if not members or not set(members) <= set(whole.ranks) or len(set(members)) < len(members):
        raise ValueError(f"new_group: expected different ranks of {whole.ranks}, got {ranks}")
    whole.start(f"new_group({members})").wait()
    is_member = whole.rank() in members
    comm = whole.objects.Split(0 if is_member else 1)
    if is_member:
        return ProcessGroup(comm, members)
    return GroupMember.NON_GROUP_MEMBER


def destroy_process_group(group: ProcessGroup | None = None) -> None:
    """End a group, by default that of all processes; all its ranks have to call this.

    Without effect for `GroupMember.NON_GROUP_MEMBER`.
    """
    if group is GroupMember.NON_GROUP_MEMBER:
        return
    if group is None or group is GroupMember.WORLD:
        group, GroupMember.WORLD = world(), None
    group.start("destroy_process_group()").wait()
    group.free()


def world(group: ProcessGroup | None = None) -> ProcessGroup:
    """Return `group`, or the group of all processes; ValueError if there is none."""
    found = GroupMember.WORLD if group is None else group
    if found is GroupMember.NON_GROUP_MEMBER:
        raise ValueError("this process is not a member of the group")
    if found is None:
        raise ValueError(
            "Default process group has not been initialized, please make sure to call "
            "init_process_group."
        )
    return found


def get_rank(group: ProcessGroup | None = None) -> int:
    """Return the rank of this process in a group."""
    return world(group).rank()


def get_world_size(group: ProcessGroup | None = None) -> int:
    """Return the number of processes in a group."""
    return world(group).size()


def get_backend(group: ProcessGroup | None = None) -> str:
    """Return the name of the backend, "mpi"."""
    return world(group).name()
