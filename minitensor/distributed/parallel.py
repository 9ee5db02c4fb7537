"""DistributedDataParallel: one model on all ranks, each with its part of the batch.

The gradients of the parameters are averaged over the ranks in buckets. A bucket is under way as
soon as the backward pass has its last gradient, while it computes those of the layers before; each
further gradient pushes it on. At the end of the pass the averages replace the gradients. Buckets
are filled, and sent, in the reverse order of the parameters, which is about that of the backward
pass. A compiled module has all gradients at once, at the end of its backward pass: its buckets are
sent then, one while the next is packed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..autograd.gradients import at_end_of_backward
from ..autograd.inplace import overwritten
from ..core import Tensor, state, wrap
from ..nn import Module
from .collectives import ReduceOp, all_gather_object, all_reduce, broadcast, broadcast_object_list
from .processes import Future, ProcessGroup, refuse_recording, world

FIRST_BUCKET_MB = 1.0  # so that sending begins early
BUCKET_MB = 25.0

Hook = Callable[[Any, "GradBucket"], Future]


class GradBucket:
    """Gradients of some parameters, of one type, that are sent together."""

    def __init__(self, index: int, parameters: Sequence[Tensor]) -> None:
        self._index, self._parameters, self.last = index, list(parameters), False
        ends = np.cumsum([p._array.size for p in parameters]).tolist()
        self._slices = [slice(e - p._array.size, e) for p, e in zip(parameters, ends, strict=True)]
        self._buffer = wrap(np.empty(ends[-1], parameters[0]._array.dtype))
        self.absent = len(parameters)  # gradients that are still to come
        self.future: Future | None = None

    def index(self) -> int:
        """Return the number of the bucket, in the order in which they are sent."""
        return self._index

    def is_last(self) -> bool:
        """Return True for the last bucket of a backward pass."""
        return self.last

    def buffer(self) -> Tensor:
        """Return all its gradients as one tensor, (n,)."""
        return self._buffer

    def set_buffer(self, tensor: Tensor) -> None:
        """Replace the tensor of all gradients."""
        self._buffer = tensor

    def parameters(self) -> list[Tensor]:
        """Return the parameters."""
        return self._parameters

    def gradients(self) -> list[Tensor]:
        """Return the gradient of each parameter, in the memory of `buffer()`."""
        return [
            self._buffer[part].view(p.shape)
            for p, part in zip(self._parameters, self._slices, strict=True)
        ]

    def take(self, number: int) -> None:
        """Copy the gradient of a parameter, zeros if it has none."""
        grad = self._parameters[number]._grad
        part = self._buffer._array[self._slices[number]]
        part[...] = 0 if grad is None else grad._array.reshape(-1)
        self.absent -= 1

    def give(self, average: Tensor, used: Callable[[Tensor], bool]) -> None:
        """Copy the averages into the gradients of the parameters that are `used` somewhere."""
        for p, part in zip(self._parameters, self._slices, strict=True):
            if not used(p):
                continue
            values = average._array.reshape(-1)[part].reshape(p._array.shape)
            if p._grad is None:
                p._grad = wrap(np.empty_like(p._array))
            p._grad._array[...] = values
            overwritten(p._grad)


def _average(group: ProcessGroup, bucket: GradBucket) -> Future:
    """Send a bucket as it is."""
    work = all_reduce(bucket.buffer(), ReduceOp.AVG, group, async_op=True)
    assert work is not None
    return work.get_future().then(lambda future: future.value()[0])


class DistributedDataParallel(Module):
    """A module on all ranks of a group, whose gradients are averaged during `backward`.

    Each rank calls it with its own part of the batch. At the beginning parameters and buffers
    become those of rank 0; with equal gradients and equal optimizers they stay equal, bit by bit.
    The loss of a rank should be the mean over its part: then the average is the gradient of the
    mean over the whole batch, if the parts are of one size.

    - `module`: with a parameter that requires grad; available as `.module`, so the names in the
      state dict begin with "module.".
    - `broadcast_buffers`: before each forward pass buffers become those of rank 0 (default True).
    - `init_sync`: check and send parameters and buffers at the beginning (default True).
    - `process_group`: the group, by default all processes.
    - `bucket_cap_mb`: the size of a bucket in MiB (default 25).
    - `find_unused_parameters`: parameters may be without a gradient on some ranks, where it counts
      as zeros, or on all, where it is left as it was.
    - `static_graph`: as `find_unused_parameters`.
    - `device_ids`, `output_device`: None, as there is only the CPU.
    - `dim`, `check_reduction`, `gradient_as_bucket_view`: accepted for PyTorch's sake, without
      effect.

    A compiled module can be given, or the whole compiled later. Not there: `join`, for ranks
    with different numbers of batches.

    Raises RuntimeError for a module without a parameter that requires grad, and for parameters that
    differ between ranks; ValueError for `device_ids`, and without a group. `backward` raises
    RuntimeError if a parameter got no gradient, unless `find_unused_parameters`.

    S. Li et al., "PyTorch Distributed: Experiences on Accelerating Data Parallel Training", 2020.
    """

    compiles_inside = True  # `minitensor.compile` compiles `module`, as this one's calls exchange

    def __init__(
        self,
        module: Module,
        device_ids: Any = None,
        output_device: Any = None,
        dim: int = 0,
        broadcast_buffers: bool | None = None,
        init_sync: bool = True,
        process_group: ProcessGroup | None = None,
        bucket_cap_mb: float | None = None,
        find_unused_parameters: bool = False,
        check_reduction: bool = False,
        gradient_as_bucket_view: bool = False,
        static_graph: bool = False,
    ) -> None:
        super().__init__()
        if device_ids or output_device is not None:
            raise ValueError(
                "DistributedDataParallel device_ids and output_device arguments only work with "
                f"GPU modules, but got device_ids {device_ids}, output_device {output_device}, and "
                "module parameters on cpu: leave them out"
            )
        self.process_group = world(process_group)
        self.module = module
        self.broadcast_buffers = broadcast_buffers is not False
        self.find_unused_parameters = find_unused_parameters or static_graph
        self.require_backward_grad_sync = True
        named: list[tuple[str, Tensor]] = [
            (name, p) for name, p in module.named_parameters() if p.requires_grad
        ]
        if not named:
            raise RuntimeError(
                "DistributedDataParallel is not needed when a module doesn't have any parameters "
                "that require a gradient."
            )
        if init_sync:
            self._begin_equal()
        cap = BUCKET_MB if bucket_cap_mb is None else bucket_cap_mb
        self._names = {p: name for name, p in named}
        self._buckets = _divided([p for _, p in reversed(named)], cap)
        self._places = {
            p: (bucket, number)
            for bucket in self._buckets
            for number, p in enumerate(bucket.parameters())
        }
        self._hook: tuple[Any, Hook] = (self.process_group, _average)
        self._expects = False  # gradients to average, since a forward pass
        self._arrived: set[Tensor] = set()
        self._used: set[Tensor] = set()  # since the last average: those of `no_sync` as well
        self._sent = 0  # buckets
        for _, p in named:
            p.register_post_accumulate_grad_hook(self._on_gradient)

    def _begin_equal(self) -> None:
        """Give parameters and buffers the values of rank 0; RuntimeError if they differ in kind."""
        tensors = dict(self.module.named_parameters()) | dict(self.module.named_buffers())
        own = [(name, tuple(t.shape), t._array.dtype.name) for name, t in tensors.items()]
        theirs: list[Any] = [own]
        group, rank = self.process_group, self.process_group.rank()
        broadcast_object_list(theirs, group=group, group_src=0)
        pairs = zip(own + [None] * len(theirs[0]), theirs[0] + [None] * len(own), strict=False)
        differing = next((pair for pair in pairs if pair[0] != pair[1]), None)
        verdicts: list[Any] = [None] * group.size()
        all_gather_object(verdicts, differing, group)
        for number, found in enumerate(verdicts):
            if found is not None:
                here, there = ("nothing" if f is None else "{} {} {}".format(*f) for f in found)
                raise RuntimeError(
                    f"DistributedDataParallel (rank {rank} of {group.size()}): the modules differ: "
                    f"rank {number} has {here} where rank 0 has {there}"
                )
        for t in tensors.values():
            broadcast(t, group=group, group_src=0)

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """Call the module, with equal buffers; `backward` will average unless in `no_sync`."""
        refuse_recording()
        if self.broadcast_buffers and self.require_backward_grad_sync:
            works = [
                broadcast(buffer, group=self.process_group, async_op=True, group_src=0)
                for buffer in self.module.buffers()
            ]
            for work in works:
                work.wait()  # type: ignore[union-attr]
        self._expects = state.grad and self.require_backward_grad_sync
        return self.module(*inputs, **kwargs)

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """A block in which gradients are accumulated on each rank and not averaged.

        The first forward and backward pass after it average all that was accumulated.
        """
        before, self.require_backward_grad_sync = self.require_backward_grad_sync, False
        try:
            yield
        finally:
            self.require_backward_grad_sync = before

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the calls of the module."""
        self.module.compile(*args, **kwargs)

    def register_comm_hook(self, state: Any, hook: Hook) -> None:
        """Have `hook(state, bucket)` average each bucket: it returns a future of the tensor.

        `distributed.default_hooks.bf16_compress_hook` sends half the bytes. The state of the hooks
        there is the group, or None. Raises RuntimeError for a second hook.
        """
        if self._hook[1] is not _average:
            raise RuntimeError("register_comm_hook can only be called once")
        self._hook = state, hook

    def _on_gradient(self, p: Tensor) -> None:
        """Note that the gradient of a parameter is complete, and send the buckets that are."""
        self._used.add(p)
        if not self._expects:
            return
        if not self._arrived:
            at_end_of_backward(self._finish)
        if p in self._arrived:
            raise RuntimeError(
                f"Expected to mark a variable ready only once: parameter {self._names[p]} got a "
                "second gradient before the ranks had the average of the first"
            )
        self._arrived.add(p)
        bucket, number = self._places[p]
        bucket.take(number)
        self._send()
        self.process_group.progress()

    def _send(self) -> None:
        """Send the buckets that are complete, in order."""
        while self._sent < len(self._buckets) and not self._buckets[self._sent].absent:
            bucket = self._buckets[self._sent]
            bucket.future = self._hook[1](self._hook[0], bucket)
            self._sent += 1

    def _finish(self, error: BaseException | None) -> None:
        """Replace the gradients by the averages, at the end of the backward pass."""
        arrived, self._arrived, self._expects = self._arrived, set(), False
        try:
            if error is None:
                self._average(arrived)
        finally:
            self._sent = 0
            for bucket in self._buckets:
                bucket.absent, bucket.future = len(bucket.parameters()), None

    def _average(self, arrived: set[Tensor]) -> None:
        missing = [p for p in self._places if p not in arrived]
        if missing and not self.find_unused_parameters:
            names = ", ".join(self._names[p] for p in reversed(missing[-10:]))
            raise RuntimeError(
                "Expected to have finished reduction at the end of the backward pass: "
                f"{len(missing)} of {len(self._places)} parameters got no gradient on rank "
                f"{self.process_group.rank()} ({names}{', ...' if len(missing) > 10 else ''}), as "
                "they were not used in producing the loss. You can enable unused parameter "
                "detection by passing the keyword argument `find_unused_parameters=True` to "
                "`DistributedDataParallel`."
            )
        for p in missing:
            bucket, number = self._places[p]
            bucket.take(number)
        self._send()
        used = np.array([p in self._used for p in self._places])
        if self.find_unused_parameters:
            all_reduce(wrap(used), ReduceOp.MAX, self.process_group)
        used_somewhere = {p for p, u in zip(self._places, used.tolist(), strict=True) if u}
        for bucket in self._buckets:
            assert bucket.future is not None
            bucket.give(bucket.future.wait(), used_somewhere.__contains__)
        self._used.clear()


def _divided(parameters: Sequence[Tensor], cap_mb: float) -> list[GradBucket]:
    """Divide parameters into buckets, those of each type in their order."""
    full: list[list[Tensor]] = []
    open_ones: dict[Any, list[Tensor]] = {}
    for p in parameters:
        bucket = open_ones.get(p._array.dtype)
        if bucket is None:
            open_ones[p._array.dtype] = bucket = []
            full.append(bucket)
        bucket.append(p)
        limit = min(FIRST_BUCKET_MB, cap_mb) if bucket is full[0] else cap_mb
        if sum(q._array.nbytes for q in bucket) >= limit * 2**20:
            del open_ones[p._array.dtype]
    buckets = [GradBucket(index, members) for index, members in enumerate(full)]
    buckets[-1].last = True
    return buckets
