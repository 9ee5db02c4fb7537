"""Collective calls on tensors and objects, with PyTorch's names.

All sums are over the ranks in order, of each element for itself: they depend neither on the MPI
library, nor on what else is sent with them, and all ranks get the same bits. A large tensor is cut
into one part for each rank: all send their parts to each other, each rank reduces its own, and all
gather the results. A small one is gathered by all, which reduce the whole.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from .. import memory
from ..autograd import check_writable, no_grad
from ..autograd.inplace import overwritten
from ..core import Tensor
from ..dtype import FLOATING
from ..rounding import widened
from .processes import ProcessGroup, Steps, Work, world

SMALL = 1 << 12  # bytes of a tensor that all ranks reduce


class ReduceOp(enum.Enum):
    """The kinds of reduction: they make one number of those of the ranks."""

    SUM = 0
    AVG = 1
    PRODUCT = 2
    MIN = 3
    MAX = 4
    BAND = 5
    BOR = 6
    BXOR = 7


_UFUNCS: dict[ReduceOp, np.ufunc] = {
    ReduceOp.SUM: np.add,
    ReduceOp.AVG: np.add,
    ReduceOp.PRODUCT: np.multiply,
    ReduceOp.MIN: np.minimum,
    ReduceOp.MAX: np.maximum,
    ReduceOp.BAND: np.bitwise_and,
    ReduceOp.BOR: np.bitwise_or,
    ReduceOp.BXOR: np.bitwise_xor,
}


def _combined(rows: np.ndarray, op: ReduceOp) -> np.ndarray:
    """Return the reduction of rows in order; half precision is rounded once, at the end."""
    with np.errstate(all="ignore"):
        total = widened(rows[0])
        for row in rows[1:]:
            _UFUNCS[op](total, row, out=total)
        if op is ReduceOp.AVG:
            total /= len(rows)
        return total.astype(rows.dtype, copy=False)


def _octets(array: np.ndarray) -> np.ndarray:
    """Return the bytes of a contiguous array."""
    return array.reshape(-1).view(np.uint8)


def _array(name: str, what: str, t: Any, changes: bool = False) -> np.ndarray:
    """Return the array of an argument; TypeError for anything but a tensor.

    RuntimeError for one that the call `changes`, if several elements share their memory.
    """
    if not isinstance(t, Tensor):
        raise TypeError(
            f"Invalid function argument. Expected parameter `{what}` of {name} of type Tensor, "
            f"but got {type(t)} instead."
        )
    if changes:
        with no_grad():  # also a leaf that requires grad may be written
            check_writable(name, t)
    return t._array


def _written(tensors: Sequence[Tensor], arrays: Sequence[np.ndarray]) -> None:
    """Set the values of tensors, where they are not there yet."""
    for t, array in zip(tensors, arrays, strict=True):
        if array is not t._array:
            t._array[...] = array.reshape(t._array.shape)
        overwritten(t)


def _text(name: str, *arrays: np.ndarray, **settings: Any) -> str:
    """Return the description of a call, which is to be the same on all ranks."""
    shown = [f"{a.dtype.name} {tuple(a.shape)}" for a in arrays]
    return f"{name}({', '.join([*shown, *(f'{k}={v}' for k, v in settings.items())])})"


def _run(
    group: ProcessGroup, text: str, steps: Iterable[Any], async_op: bool, *tensors: Tensor
) -> Work | None:
    """Make a call that writes `tensors`; return it if `async_op`, else wait for it."""
    work = group.start(text, steps, tensors)
    if async_op:
        return work
    work.wait()
    return None


def _root(name: str, group: ProcessGroup, what: str, rank: int | None, own: int | None) -> int:
    """Return the number within the group of the rank given in the job, or in the group."""
    if own is None:
        if rank not in group.ranks:
            raise ValueError(f"{name}: {what}={rank} is no rank of the group, {group.ranks}")
        own = group.ranks.index(rank)
    if not 0 <= own < group.size():
        raise ValueError(f"{name}: group_{what}={own} is no rank of a group of {group.size()}")
    return own


def _check_op(name: str, op: ReduceOp, array: np.ndarray) -> ReduceOp:
    """Return a reduction; RuntimeError for one that there is not for the type of the array."""
    kind, bits = array.dtype.kind, (ReduceOp.BAND, ReduceOp.BOR, ReduceOp.BXOR)
    if op not in _UFUNCS:
        raise ValueError(f"{name}: expected a ReduceOp, got {op!r}")
    if (op is ReduceOp.AVG and kind not in FLOATING) or (op in bits and kind in FLOATING):
        raise RuntimeError(f"{name}: there is no {op.name} of {array.dtype.name}")
    return op


def broadcast(
    tensor: Tensor,
    src: int | None = None,
    group: ProcessGroup | None = None,
    async_op: bool = False,
    group_src: int | None = None,
) -> Work | None:
    """Give `tensor` the values that it has on rank `src`."""
    g = world(group)
    root = _root("broadcast", g, "src", src, group_src)
    array = _array("broadcast", "tensor", tensor, changes=g.rank() != root)
    held = np.ascontiguousarray(array).reshape(array.shape)

    def steps() -> Steps:
        yield g.stage(1).Ibcast(_octets(held), root)
        if g.rank() != root:
            _written([tensor], [held])

    return _run(g, _text("broadcast", array, src=root), steps(), async_op, tensor)


def _reduction(g: ProcessGroup, flat: np.ndarray, op: ReduceOp) -> Steps:
    """Replace a flat array, on all ranks, by its reduction over them."""
    size, width = g.size(), flat.itemsize
    if flat.nbytes <= SMALL:
        rows = memory.empty((size, flat.size), flat.dtype)
        yield g.stage(1).Iallgather(_octets(flat), _octets(rows))
        flat[...] = _combined(rows, op)
        return
    bounds = [flat.size * rank // size for rank in range(size + 1)]
    counts = [(stop - start) * width for start, stop in itertools.pairwise(bounds)]
    places = [start * width for start in bounds[:-1]]
    start, stop = bounds[g.rank()], bounds[g.rank() + 1]
    rows = memory.empty((size, stop - start), flat.dtype)
    yield g.stage(1).Ialltoallv(
        [_octets(flat), (counts, places)],
        [_octets(rows), ([counts[g.rank()]] * size, [r * counts[g.rank()] for r in range(size)])],
    )
    part = _combined(rows, op)
    yield g.stage(2).Iallgatherv(_octets(part), [_octets(flat), (counts, places)])


def all_reduce(
    tensor: Tensor,
    op: ReduceOp = ReduceOp.SUM,
    group: ProcessGroup | None = None,
    async_op: bool = False,
) -> Work | None:
    """Replace `tensor` on all ranks by the sum over the ranks, or another reduction.

    The sum is in the order of the ranks, so all get the same bits.
    """
    return _reduced("all_reduce", tensor, op, world(group), async_op, None)


def reduce(
    tensor: Tensor,
    dst: int | None = None,
    op: ReduceOp = ReduceOp.SUM,
    group: ProcessGroup | None = None,
    async_op: bool = False,
    group_dst: int | None = None,
) -> Work | None:
    """Replace `tensor` on rank `dst` by the sum over the ranks, or another reduction."""
    g = world(group)
    root = _root("reduce", g, "dst", dst, group_dst)
    return _reduced("reduce", tensor, op, g, async_op, root)


def _reduced(
    name: str, tensor: Tensor, op: ReduceOp, g: ProcessGroup, async_op: bool, root: int | None
) -> Work | None:
    array = _array(name, "tensor", tensor, changes=True)
    _check_op(name, op, array)
    in_place = array.flags.c_contiguous and root is None
    held = array if in_place else array.copy(order="C")

    def steps() -> Steps:
        yield from _reduction(g, held.reshape(-1), op)
        if root in (None, g.rank()):
            _written([tensor], [held])

    settings = {} if root is None else {"dst": root}
    return _run(g, _text(name, array, op=op.name, **settings), steps(), async_op, tensor)


def _listed(name: str, what: str, tensors: Any, g: ProcessGroup, like: np.ndarray) -> None:
    """Raise for a list that has not a tensor like `like` for each rank."""
    if not isinstance(tensors, list | tuple) or len(tensors) != g.size():
        raise ValueError(
            f"{name}: expected as `{what}` a list of {g.size()} tensors, one for each rank, got "
            f"{len(tensors) if isinstance(tensors, list | tuple) else type(tensors)}"
        )
    for number, t in enumerate(tensors):
        array = _array(name, f"{what}[{number}]", t)
        if array.dtype != like.dtype:
            raise ValueError(
                f"{name}: `{what}[{number}]` is {array.dtype}, the tensor is {like.dtype}"
            )
        if array.shape != like.shape:
            raise RuntimeError(
                f"{name}: invalid tensor size at index {number} of `{what}` (expected "
                f"{tuple(like.shape)}, got {tuple(array.shape)})"
            )


def _gathering(
    g: ProcessGroup, array: np.ndarray, root: int | None, use: Callable[[np.ndarray], None]
) -> Steps:
    """Call `use` with the arrays of all ranks: on all of them, or on one."""
    own = np.ascontiguousarray(array)
    receives = root in (None, g.rank())
    rows = memory.empty((g.size() * receives, *array.shape), array.dtype)
    if root is None:
        yield g.stage(1).Iallgather(_octets(own), _octets(rows))
    else:
        yield g.stage(1).Igather(_octets(own), _octets(rows) if receives else None, root)
    if receives:
        use(rows)


def all_gather(
    tensor_list: list[Tensor],
    tensor: Tensor,
    group: ProcessGroup | None = None,
    async_op: bool = False,
) -> Work | None:
    """Write into `tensor_list` the `tensor` of each rank; all have one shape and type."""
    g, array = world(group), _array("all_gather", "tensor", tensor)
    _listed("all_gather", "tensor_list", tensor_list, g, array)
    for t in tensor_list:
        _array("all_gather", "tensor_list", t, changes=True)
    steps = _gathering(g, array, None, lambda rows: _written(tensor_list, list(rows)))
    return _run(g, _text("all_gather", array), steps, async_op, *tensor_list)


def all_gather_into_tensor(
    output_tensor: Tensor,
    input_tensor: Tensor,
    group: ProcessGroup | None = None,
    async_op: bool = False,
) -> Work | None:
    """Write into `output_tensor` the `input_tensor` of each rank, one after another.

    For inputs (n, *) the output is (K * n, *) or (K, n, *).
    """
    g, name = world(group), "all_gather_into_tensor"
    out = _array(name, "output_tensor", output_tensor, changes=True)
    array = _array(name, "input_tensor", input_tensor)
    _check_parts(name, "output", out, "input", array, g)
    steps = _gathering(g, array, None, lambda rows: _written([output_tensor], [rows]))
    return _run(g, _text(name, array), steps, async_op, output_tensor)


def all_gather_shares(shares: Sequence[Sequence[Tensor]], g: ProcessGroup) -> None:
    """Give on all ranks the tensors `shares[r]` the values that they have on rank r."""
    sizes = [sum(t._array.nbytes for t in share) for share in shares]
    own = [_octets(np.ascontiguousarray(t._array)) for t in shares[g.rank()]]
    octets = memory.empty(sum(sizes), np.uint8)

    def steps() -> Steps:
        yield g.stage(1).Iallgatherv(np.concatenate([octets[:0], *own]), [octets, (sizes, None)])
        start = 0
        for rank, share in enumerate(shares):
            for t in share:
                stop = start + t._array.nbytes
                if rank != g.rank():
                    t._array[...] = octets[start:stop].view(t._array.dtype).reshape(t.shape)
                    overwritten(t)
                start = stop

    g.start(f"all_gather_shares({sizes})", steps()).wait()


def _check_parts(
    name: str, what: str, whole: np.ndarray, each: str, part: np.ndarray, g: ProcessGroup
) -> None:
    """Raise unless `whole` has the shape of a `part` for each rank."""
    if whole.dtype != part.dtype:
        raise TypeError(f"{name}: the {what} is {whole.dtype}, the {each} {part.dtype}")
    shapes = [(g.size(), *part.shape)]
    shapes.append((g.size() * part.shape[0], *part.shape[1:]) if part.ndim else (g.size(),))
    if whole.shape not in shapes:
        raise ValueError(
            f"{name}: with an {each} of shape {tuple(part.shape)} on each of {g.size()} ranks, the "
            f"{what} has to be {' or '.join(map(str, shapes))}, not {tuple(whole.shape)}"
        )


def gather(
    tensor: Tensor,
    gather_list: list[Tensor] | None = None,
    dst: int | None = None,
    group: ProcessGroup | None = None,
    async_op: bool = False,
    group_dst: int | None = None,
) -> Work | None:
    """Write into `gather_list`, which only rank `dst` (default 0) has, the tensors of all ranks."""
    g, array = world(group), _array("gather", "tensor", tensor)
    if dst is None and group_dst is None:
        group_dst = 0
    root = _root("gather", g, "dst", dst, group_dst)
    _only_root("gather", "gather_list", "destination", gather_list, g.rank() == root)
    targets = gather_list or []
    if g.rank() == root:
        _listed("gather", "gather_list", targets, g, array)
        for t in targets:
            _array("gather", "gather_list", t, changes=True)
    steps = _gathering(g, array, root, lambda rows: _written(targets, list(rows)))
    return _run(g, _text("gather", array, dst=root), steps, async_op, *targets)


def _only_root(name: str, what: str, which: str, tensors: Any, is_root: bool) -> None:
    if is_root and not tensors:
        raise ValueError(f"Argument ``{what}`` must be specified on {which} rank.")
    if not is_root and tensors:
        raise ValueError(f"Argument ``{what}`` must NOT be specified on non-{which} ranks.")


def scatter(
    tensor: Tensor,
    scatter_list: list[Tensor] | None = None,
    src: int | None = None,
    group: ProcessGroup | None = None,
    async_op: bool = False,
    group_src: int | None = None,
) -> Work | None:
    """Write into `tensor` this rank's of `scatter_list`, which only rank `src` (default 0) has."""
    g, array = world(group), _array("scatter", "tensor", tensor, changes=True)
    if src is None and group_src is None:
        group_src = 0
    root = _root("scatter", g, "src", src, group_src)
    _only_root("scatter", "scatter_list", "source", scatter_list, g.rank() == root)
    rows = None
    if scatter_list:
        _listed("scatter", "scatter_list", scatter_list, g, array)
        rows = _octets(np.stack([t._array for t in scatter_list]))
    held = np.empty(array.shape, array.dtype)

    def steps() -> Steps:
        yield g.stage(1).Iscatter(rows, _octets(held), root)
        _written([tensor], [held])

    return _run(g, _text("scatter", array, src=root), steps(), async_op, tensor)


def reduce_scatter(
    output: Tensor,
    input_list: list[Tensor],
    op: ReduceOp = ReduceOp.SUM,
    group: ProcessGroup | None = None,
    async_op: bool = False,
) -> Work | None:
    """Write into `output` on rank r the sum over the ranks of their `input_list[r]`."""
    g, array = world(group), _array("reduce_scatter", "output", output, changes=True)
    _listed("reduce_scatter", "input_list", input_list, g, array)
    rows = np.stack([t._array for t in input_list])
    return _scattered("reduce_scatter", output, rows, op, g, async_op)


def reduce_scatter_tensor(
    output: Tensor,
    input: Tensor,
    op: ReduceOp = ReduceOp.SUM,
    group: ProcessGroup | None = None,
    async_op: bool = False,
) -> Work | None:
    """Write into `output` on rank r part r of the sum over the ranks of `input`.

    For outputs (n, *) the input is (K * n, *) or (K, n, *).
    """
    g, name = world(group), "reduce_scatter_tensor"
    array = _array(name, "output", output, changes=True)
    whole = _array(name, "input", input)
    _check_parts(name, "input", whole, "output", array, g)
    rows = np.ascontiguousarray(whole).reshape(g.size(), *array.shape)
    return _scattered(name, output, rows, op, g, async_op)


def _scattered(
    name: str, output: Tensor, rows: np.ndarray, op: ReduceOp, g: ProcessGroup, async_op: bool
) -> Work | None:
    _check_op(name, op, rows)

    def steps() -> Steps:
        received = memory.empty_like(rows)
        yield g.stage(1).Ialltoall(_octets(rows), _octets(received))
        _written([output], [_combined(received, op)])

    return _run(g, _text(name, output._array, op=op.name), steps(), async_op, output)


def barrier(
    group: ProcessGroup | None = None,
    async_op: bool = False,
    device_ids: Any = None,
    timeout: Any = None,
) -> Work | None:
    """Wait until all ranks are here."""
    return _run(world(group), "barrier()", (), async_op)


def broadcast_object_list(
    object_list: list[Any],
    src: int | None = None,
    group: ProcessGroup | None = None,
    device: Any = None,
    group_src: int | None = None,
) -> None:
    """Replace the objects in a list by those of rank `src`, which are pickled."""
    g = world(group)
    root = _root("broadcast_object_list", g, "src", src, group_src)
    g.start(f"broadcast_object_list(of {len(object_list)}, src={root})").wait()
    object_list[:] = g.objects.bcast(object_list, root)


def all_gather_object(object_list: list[Any], obj: Any, group: ProcessGroup | None = None) -> None:
    """Write into `object_list`, which has an item for each rank, the objects of all ranks."""
    g = world(group)
    if len(object_list) != g.size():
        raise ValueError(
            f"all_gather_object: expected a list of {g.size()} items, one for each rank, got "
            f"{len(object_list)}"
        )
    g.start("all_gather_object()").wait()
    object_list[:] = g.objects.allgather(obj)
