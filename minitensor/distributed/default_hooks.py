"""Hooks for `DistributedDataParallel.register_comm_hook`: how a bucket of gradients is sent."""

from __future__ import annotations

from ..core import Tensor
from ..dtype import as_dtype, float16
from .collectives import ReduceOp, all_reduce
from .parallel import GradBucket
from .processes import Future, ProcessGroup


def allreduce_hook(process_group: ProcessGroup | None, bucket: GradBucket) -> Future:
    """Send the gradients as they are, as is done without a hook."""
    return _averaged(process_group, bucket.buffer(), bucket.buffer())


def bf16_compress_hook(process_group: ProcessGroup | None, bucket: GradBucket) -> Future:
    """Send the gradients as bfloat16: half the bytes of float32.

    Each is rounded before it is sent; the sums are float32, and the averages are rounded again.
    """
    buffer = bucket.buffer()
    return _averaged(process_group, buffer.to(as_dtype("bfloat16")), buffer)


def fp16_compress_hook(process_group: ProcessGroup | None, bucket: GradBucket) -> Future:
    """Send the gradients as float16: half the bytes of float32, and nothing above 65504."""
    buffer = bucket.buffer()
    return _averaged(process_group, buffer.to(float16), buffer)


def _averaged(group: ProcessGroup | None, sent: Tensor, buffer: Tensor) -> Future:
    """Average a tensor over the ranks, into `buffer`."""
    work = all_reduce(sent, ReduceOp.AVG, group, async_op=True)
    assert work is not None
    return work.get_future().then(lambda _: buffer if sent is buffer else buffer.copy_(sent))
