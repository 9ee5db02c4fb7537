"""Checks in three processes, for tests/test_distributed.py: `mpiexec -n 3 python tests/ranks.py`.

Every function `check_*` runs on all ranks; rank 0 prints a line of JSON for each.
"""

from __future__ import annotations

import json
import re
import traceback
from typing import Any

import numpy as np
import pytest

import minitensor as mt
import minitensor.distributed as dist
from minitensor import nn
from minitensor.distributed import ReduceOp, default_hooks
from minitensor.distributed.optim import ZeroRedundancyOptimizer
from minitensor.nn.parallel import DistributedDataParallel as DDP

RANK, SIZE = 0, 1  # set by `main`


def of_rank(rank: int, *shape: int, dtype: Any = mt.float32) -> Any:
    """Return the random numbers of a rank."""
    generator = mt.Generator().manual_seed(100 + rank)
    if dtype is mt.bool:
        return mt.rand(shape, generator=generator) > 0.5
    if not dtype.is_floating_point:
        return mt.randint(0, 9, shape, generator=generator).to(dtype)
    return mt.randn(shape, generator=generator).to(dtype)


def in_order(op: str, rows: list[np.ndarray]) -> np.ndarray:
    """Return the reduction of the ranks' arrays, one after another."""
    dtype = rows[0].dtype
    if dtype.name in ("bfloat16", "float16"):
        rows = [row.astype(np.float32) for row in rows]
    functions: dict[str, Any] = {"PRODUCT": np.multiply, "MIN": np.minimum, "MAX": np.maximum}
    functions |= {"BAND": np.bitwise_and, "BOR": np.bitwise_or, "BXOR": np.bitwise_xor}
    total = rows[0]
    for row in rows[1:]:
        total = functions.get(op, np.add)(total, row)
    if op == "AVG":
        total = total / np.float32(len(rows)) if total.dtype != np.float64 else total / len(rows)
    return total.astype(dtype)


def equal_everywhere(*tensors: Any) -> None:
    """Assert that tensors have the same bits on all ranks."""
    octets = b"".join(t.detach()._array.tobytes() for t in tensors)
    found: list[Any] = [None] * SIZE
    dist.all_gather_object(found, octets)
    assert all(other == octets for other in found)


def raises(error: type[Exception], words: str, function: Any) -> None:
    """Assert that a call raises, with these words in its sentence."""
    with pytest.raises(error, match=re.escape(words)):
        function()


def check_all_reduce_is_the_sum_in_order_of_the_ranks() -> None:
    floats = [mt.float32, mt.float64, mt.float16, mt.bfloat16]
    ints = [mt.int8, mt.int16, mt.int32, mt.int64, mt.uint8]
    cases: list[tuple[Any, str]] = [(t, op) for t in floats for op in ("SUM", "AVG", "MAX")]
    cases += [(t, op) for t in ints for op in ("SUM", "MIN", "BXOR")]
    cases += [(mt.bool, "SUM"), (mt.bool, "BAND"), (mt.float32, "PRODUCT"), (mt.int64, "BOR")]
    for dtype, op in cases:
        for shape in ((), (7,), (3, 0), (83, 101)):  # gathered by all; nothing; cut in parts
            x = of_rank(RANK, *shape, dtype=dtype)
            rows = [of_rank(r, *shape, dtype=dtype)._array for r in range(SIZE)]
            dist.all_reduce(x, ReduceOp[op])
            np.testing.assert_array_equal(x._array, in_order(op, rows), f"{dtype} {op} {shape}")


def check_strided_tensors_and_the_version() -> None:
    base = of_rank(RANK, 40, 60)
    x, before = base.t()[1::2], base._version
    dist.all_reduce(x)
    rows = [of_rank(r, 40, 60)._array for r in range(SIZE)]
    wanted = rows[RANK].copy()
    wanted[:, 1::2] = in_order("SUM", [row[:, 1::2] for row in rows])
    np.testing.assert_array_equal(base._array, wanted)
    assert base._version > before
    raises(RuntimeError, "single memory location", lambda: dist.all_reduce(mt.ones(1).expand(4)))


def check_broadcast_gather_scatter() -> None:
    for src in range(SIZE):
        x = of_rank(RANK, 5, 4).t()
        dist.broadcast(x, src)
        assert x.tolist() == of_rank(src, 5, 4).t().tolist()
    mine = of_rank(RANK, 2, 3)
    everyone = [of_rank(r, 2, 3) for r in range(SIZE)]
    found = [mt.empty(2, 3) for _ in range(SIZE)]
    dist.all_gather(found, mine)
    assert [t.tolist() for t in found] == [t.tolist() for t in everyone]
    for shape in ((SIZE * 2, 3), (SIZE, 2, 3)):
        whole = mt.empty(shape)
        dist.all_gather_into_tensor(whole, mine)
        assert whole.tolist() == mt.stack(everyone).view(shape).tolist()
    at_1 = [mt.empty(2, 3) for _ in range(SIZE)] if RANK == 1 else None
    dist.gather(mine, at_1, dst=1)
    if at_1 is not None:
        assert [t.tolist() for t in at_1] == [t.tolist() for t in everyone]
    part = mt.empty(2, 3)
    dist.scatter(part, everyone if RANK == 0 else None)
    assert part.tolist() == mine.tolist()
    summed = of_rank(RANK, 9)
    dist.reduce(summed, 1)
    rows = [of_rank(r, 9)._array for r in range(SIZE)]
    np.testing.assert_array_equal(summed._array, in_order("SUM", rows) if RANK == 1 else rows[RANK])


def check_reduce_scatter() -> None:
    parts = [[of_rank(10 * r + n, 4) for n in range(SIZE)] for r in range(SIZE)]
    wanted = in_order("SUM", [parts[r][RANK]._array for r in range(SIZE)])
    out = mt.empty(4)
    dist.reduce_scatter(out, parts[RANK])
    np.testing.assert_array_equal(out._array, wanted)
    dist.reduce_scatter_tensor(out.zero_(), mt.cat(parts[RANK]))
    np.testing.assert_array_equal(out._array, wanted)


def check_calls_under_way_may_be_waited_for_in_any_order() -> None:
    sizes = [5000, 3, 70_000, 1]
    tensors = [of_rank(RANK, n) for n in sizes]
    works: list[Any] = [dist.all_reduce(t, async_op=True) for t in tensors]
    works.append(dist.barrier(async_op=True))
    for work in works if RANK else reversed(works):
        assert work.wait()
    assert all(work.is_completed() for work in works)
    for t, n in zip(tensors, sizes, strict=True):
        rows = [of_rank(r, n)._array for r in range(SIZE)]
        np.testing.assert_array_equal(t._array, in_order("SUM", rows))


def check_objects() -> None:
    found: list[Any] = [None] * SIZE
    dist.all_gather_object(found, {"rank": RANK})
    assert found == [{"rank": r} for r in range(SIZE)]
    objects: list[Any] = [RANK, mt.ones(2) * RANK]
    dist.broadcast_object_list(objects, 2)
    assert objects[0] == 2
    assert objects[1].tolist() == [2, 2]


def check_what_differs_between_ranks_is_told() -> None:
    raises(
        RuntimeError,
        "rank 0 of 3 called all_reduce(float32 (3,), op=SUM), rank 2 all_reduce(float32 (4,)",
        lambda: dist.all_reduce(mt.ones(4 if RANK == 2 else 3)),
    )
    raises(
        RuntimeError,
        "rank 1 barrier()",
        lambda: dist.barrier() if RANK == 1 else dist.all_reduce(mt.ones(2)),
    )
    raises(
        RuntimeError,
        "expected (3,), got (2,)",
        lambda: dist.all_gather([mt.ones(2)] * 3, mt.ones(3)),
    )
    raises(ValueError, "3 tensors, one for each rank", lambda: dist.all_gather([], mt.ones(3)))
    raises(ValueError, "src=3 is no rank", lambda: dist.broadcast(mt.ones(2), 3))
    raises(
        RuntimeError, "no AVG of int64", lambda: dist.all_reduce(mt.ones(2).long(), ReduceOp.AVG)
    )
    raises(TypeError, "`tensor` of all_reduce", lambda: dist.all_reduce([1]))  # type: ignore[arg-type]
    raises(ValueError, "twice", dist.init_process_group)
    raises(
        RuntimeError,
        "rank 1 has 0.weight (4, 3) float32 where rank 0 has 0.weight (2, 3) float32",
        lambda: DDP(nn.Sequential(nn.Linear(3, 4 if RANK == 1 else 2))),
    )


def check_new_group() -> None:
    pair = dist.new_group([0, 2])
    if RANK == 1:
        raises(ValueError, "not a member", lambda: dist.get_rank(pair))
        return
    assert (dist.get_rank(pair), dist.get_world_size(pair)) == (RANK // 2, 2)
    x = mt.full((3,), RANK + 1.0)
    dist.all_reduce(x, group=pair)
    dist.broadcast(x, 2, group=pair)
    assert x.tolist() == [4, 4, 4]


def check_waiting_in_one_group_pushes_on_the_calls_of_others() -> None:
    pair = dist.new_group([0, 1])
    x, rows = of_rank(RANK, 5000), [of_rank(r, 5000)._array for r in (0, 1)]
    work = dist.all_reduce(x, group=pair, async_op=RANK == 0) if RANK < 2 else None
    dist.barrier()  # which rank 1 comes to after the second stage of that call
    if work is not None:
        work.wait()
    if RANK < 2:
        np.testing.assert_array_equal(x._array, in_order("SUM", rows))
    dist.destroy_process_group(pair)  # nothing for rank 2
    assert dist.is_initialized()


def check_threads_share_the_cores() -> None:
    from minitensor.kernels.jit import cores

    assert mt.get_num_threads() == max(1, len(cores()) // SIZE)


def network(dtype: Any = mt.float64) -> Any:
    """Return the same network every time."""
    mt.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 40), nn.Tanh(), nn.Linear(40, 3)
    ).to(dtype)


def batch(dtype: Any = mt.float64) -> tuple[Any, Any]:
    """Return a batch for all ranks together."""
    return of_rank(50, 4 * SIZE, 6, dtype=dtype), of_rank(51, 4 * SIZE, 3, dtype=dtype)


def loss_of(model: Any, part: slice) -> Any:
    """Return the loss of a part of the batch."""
    x, y = batch(next(model.parameters()).dtype)
    return nn.functional.mse_loss(model(x[part]), y[part])


def mine() -> slice:
    """Return the part of the batch that is this rank's."""
    return slice(RANK, None, SIZE)


def check_gradients_are_those_of_the_whole_batch() -> None:
    whole = network()
    loss_of(whole, slice(None)).backward()
    models = {
        "plain": DDP(network()),
        "many buckets": DDP(network(), bucket_cap_mb=0.001),
        "compiled inside": DDP(mt.compile(network())),
        "compiled outside": mt.compile(DDP(network())),
        "compiled later": DDP(network()),
    }
    models["compiled later"].compile()
    assert len(models["many buckets"]._buckets) == 3
    assert next(iter(models["plain"].state_dict())) == "module.0.weight"
    for name, model in models.items():
        for _ in range(3):  # recorded, planned, replayed
            model.zero_grad()
            loss_of(model, mine()).backward()
            for p, q in zip(model.parameters(), whole.parameters(), strict=True):
                np.testing.assert_allclose(p.grad._array, q.grad._array, 1e-12, 1e-15, err_msg=name)
                equal_everywhere(p.grad)


def check_buckets_are_sent_while_backward_runs() -> None:
    model: Any = DDP(network(), bucket_cap_mb=0.001)
    sent: list[int] = []
    model.module[0].weight.register_hook(lambda g: sent.append(model._sent))
    loss_of(model, mine()).backward()
    assert sent[0] == len(model._buckets) - 1 >= 2


def check_a_compiled_function_that_exchanges_runs_as_it_is() -> None:
    def mean(x: Any) -> Any:
        y = x * 2
        dist.all_reduce(y)
        return y / SIZE

    model: Any = DDP(network())

    def step(x: Any, y: Any) -> Any:
        return nn.functional.mse_loss(model(x), y)

    x, y = (t[mine()] for t in batch())
    compiled_mean, compiled_step = mt.compile(mean), mt.compile(step)
    with pytest.warns(UserWarning, match="it exchanges tensors with other processes"):
        compiled_mean(mt.full((2,), RANK + 1.0))
    with pytest.warns(UserWarning, match="it exchanges tensors with other processes"):
        compiled_step(x, y)
    for _ in range(3):
        assert compiled_mean(mt.full((2,), RANK + 1.0)).tolist() == [4, 4]
        model.zero_grad()
        compiled_step(x, y).backward()
        equal_everywhere(*(p.grad for p in model.parameters()))


def check_no_sync_accumulates() -> None:
    x, y = batch()
    whole = network()
    for rows in (slice(0, 2 * SIZE), slice(2 * SIZE, None)):
        nn.functional.mse_loss(whole(x[rows]), y[rows]).backward()
    model: Any = DDP(network())
    x, y = x[mine()], y[mine()]
    with model.no_sync():
        nn.functional.mse_loss(model(x[:2]), y[:2]).backward()
    first = model.module[0].weight.grad.clone()
    found: list[Any] = [None] * SIZE
    dist.all_gather_object(found, first.tolist())
    assert found[0] != found[1]
    nn.functional.mse_loss(model(x[2:]), y[2:]).backward()
    for p, q in zip(model.parameters(), whole.parameters(), strict=True):
        np.testing.assert_allclose(p.grad._array, q.grad._array, 1e-12, 1e-15)


class Branches(nn.Module):
    """Uses `b` on some ranks, and `c` nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 2), nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x: Any, with_b: bool) -> Any:
        return self.a(x) + self.b(x) if with_b else self.a(x)


def check_unused_parameters() -> None:
    model: Any = DDP(Branches(), find_unused_parameters=True)
    model(mt.ones(2, 3), RANK == 1).sum().backward()
    assert model.module.a.weight.grad[0, 0] == 2
    assert model.module.b.weight.grad.tolist() == np.full((2, 3), np.float32(2) / SIZE).tolist()
    assert model.module.c.weight.grad is None
    strict: Any = DDP(Branches())
    raises(
        RuntimeError,
        f"parameters got no gradient on rank {RANK} (b.weight, b.bias, c.weight, c.bias)",
        strict(mt.ones(2, 3), False).sum().backward,
    )


def check_parameters_used_in_no_sync_alone_are_averaged() -> None:
    model: Any = DDP(Branches(), find_unused_parameters=True)
    with model.no_sync():
        model(mt.full((2, 3), RANK + 1.0), RANK != 1).sum().backward()
    model(mt.ones(2, 3), False).sum().backward()
    wanted = np.float32(2 * (1 + 3)) / np.float32(SIZE)
    assert model.module.b.weight.grad.tolist() == np.full((2, 3), wanted).tolist()
    assert model.module.c.weight.grad is None
    before = model.module.b.weight.grad._version
    model(mt.ones(2, 3), False).sum().backward()  # which does not use it anywhere
    assert model.module.b.weight.grad._version == before


def check_bf16_hook() -> None:
    plain = DDP(network(mt.float32))
    model: Any = DDP(network(mt.float32), bucket_cap_mb=0.001)
    model.register_comm_hook(None, default_hooks.bf16_compress_hook)
    loss_of(plain, mine()).backward()
    loss_of(model, mine()).backward()
    for p, q in zip(model.parameters(), plain.parameters(), strict=True):
        grad = p.grad._array
        assert (grad == mt.tensor(grad).bfloat16().float()._array).all()
        np.testing.assert_allclose(grad, q.grad._array, 0.02, 0.02 * np.abs(q.grad._array).max())
        assert (grad != q.grad._array).any()
        equal_everywhere(p.grad)
    raises(
        RuntimeError,
        "once",
        lambda: model.register_comm_hook(None, default_hooks.fp16_compress_hook),
    )
    own = DDP(network(mt.float32))

    def halved(state: Any, bucket: Any) -> Any:
        work = dist.all_reduce(bucket.buffer(), async_op=True)
        return work.get_future().then(lambda future: future.value()[0] / (2 * SIZE))  # type: ignore[union-attr]

    own.register_comm_hook(None, halved)
    loss_of(own, mine()).backward()
    for p, q in zip(own.parameters(), plain.parameters(), strict=True):
        np.testing.assert_allclose(2 * p.grad._array, q.grad._array, 1e-5)


def check_buffers_become_those_of_rank_0() -> None:
    model: Any = DDP(nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)))
    model(of_rank(RANK, 8, 6))
    mean = model.module[1].running_mean
    found: list[Any] = [None] * SIZE
    dist.all_gather_object(found, mean.tolist())
    assert found[0] != found[1]
    model.eval()
    model(of_rank(RANK, 8, 6))
    assert mean.tolist() == found[0]


def trained(optimizer_class: Any, sharded: bool, steps: int = 4, **settings: Any) -> Any:
    """Return a model and its optimizer after steps with dropout of each rank's own."""
    mt.manual_seed(3)
    model: Any = DDP(nn.Sequential(nn.Linear(6, 50), nn.Dropout(0.3), nn.GELU(), nn.Linear(50, 3)))
    if sharded:
        optimizer = ZeroRedundancyOptimizer(
            model.parameters(), optimizer_class=optimizer_class, lr=0.01, **settings
        )
    else:
        optimizer = optimizer_class(model.parameters(), lr=0.01, **settings)
    mt.manual_seed(RANK)
    more(model, optimizer, steps)
    return model, optimizer


def more(model: Any, optimizer: Any, steps: int) -> None:
    for step in range(steps):
        optimizer.zero_grad()
        model(of_rank(SIZE * step + RANK, 5, 6)).square().mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()


def check_weights_are_equal_on_all_ranks_and_in_each_run() -> None:
    model, _ = trained(mt.optim.AdamW, False)
    equal_everywhere(*model.parameters())
    again, _ = trained(mt.optim.AdamW, False)
    for p, q in zip(model.parameters(), again.parameters(), strict=True):
        assert p._array.tobytes() == q._array.tobytes()


def check_a_sharded_optimizer_is_the_plain_one_bit_for_bit() -> None:
    cases: list[tuple[Any, dict[str, Any]]] = [
        (mt.optim.Adam, {}),
        (mt.optim.SGD, {"momentum": 0.9}),
        (mt.optim.Adagrad, {}),
    ]
    for optimizer_class, settings in cases:
        model, optimizer = trained(optimizer_class, True, **settings)
        plain, reference = trained(optimizer_class, False, **settings)
        for p, q in zip(model.parameters(), plain.parameters(), strict=True):
            assert p._array.tobytes() == q._array.tobytes()
        own = len(optimizer.state)
        assert 0 < own < len(reference.state)
        if RANK:
            raises(RuntimeError, "has not been consolidated", optimizer.state_dict)
        optimizer.consolidate_state_dict()
        whole: list[Any] = [optimizer.state_dict() if RANK == 0 else None]
        dist.broadcast_object_list(whole, 0)
        theirs = reference.state_dict()
        assert whole[0]["param_groups"] == theirs["param_groups"]
        assert list(whole[0]["state"]) == list(theirs["state"])
        for number, state in theirs["state"].items():
            for key, value in state.items():
                assert whole[0]["state"][number][key]._array.tobytes() == value._array.tobytes()
        optimizer.load_state_dict(theirs)  # and on from there
        raises(RuntimeError, "has not been consolidated", optimizer.state_dict)
        assert len(optimizer.state) == own
        for one, its_optimizer in ((model, optimizer), (plain, reference)):
            mt.manual_seed(RANK)
            more(one, its_optimizer, 2)
        for p, q in zip(model.parameters(), plain.parameters(), strict=True):
            assert p._array.tobytes() == q._array.tobytes()
        equal_everywhere(*model.parameters())


def main() -> None:
    """Run the checks."""
    global RANK, SIZE
    dist.init_process_group()
    RANK, SIZE = dist.get_rank(), dist.get_world_size()
    for name, check in list(globals().items()):
        if not name.startswith("check_"):
            continue
        problem = ""
        try:
            check()
        except (Exception, pytest.fail.Exception):
            problem = traceback.format_exc()
        found: list[Any] = [None] * SIZE
        dist.all_gather_object(found, problem)
        if RANK == 0:
            print(json.dumps([name, [p for p in found if p]]), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
