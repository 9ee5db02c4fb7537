"""Datasets, samplers and loaders against PyTorch's; padding; batches by length."""

from __future__ import annotations

import tracemalloc
from collections import namedtuple
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest
from conftest import needs_torch
from hypothesis import given, settings
from hypothesis import strategies as st

import minitensor
from minitensor import data
from minitensor.core import Tensor

Point = namedtuple("Point", "x y")


def plain(x: Any) -> Any:
    """Nested results with tensors of either library as (dtype, values)."""
    if hasattr(x, "numpy"):
        return str(x.dtype).removeprefix("torch."), x.tolist()
    if isinstance(x, dict):
        return {key: plain(value) for key, value in x.items()}
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return type(x)(*map(plain, x))
    if isinstance(x, data.Subset) or type(x).__name__ == "Subset":
        return x.indices
    if isinstance(x, list | tuple):
        return type(x)(map(plain, x))
    return x


def in_both(run: Callable[[Any, Any], Any]) -> None:
    """`run(library, its data module)` gives the same in both, and draws as many numbers."""
    import torch
    import torch.utils.data

    results = []
    for library, module in ((minitensor, data), (torch, torch.utils.data)):
        library.manual_seed(11)
        results.append((plain(run(library, module)), library.rand(3).tolist()))
    assert results[0] == results[1]


class Squares:
    """Items by number, without any base class."""

    def __init__(self, size: int = 10) -> None:
        self.size = size

    def __getitem__(self, index: int) -> int:
        return index * index

    def __len__(self) -> int:
        return self.size


LOADERS = [
    dict(),
    dict(batch_size=3),
    dict(batch_size=3, drop_last=True),
    dict(batch_size=None),
    dict(batch_size=4, shuffle=True),
    dict(batch_size=None, shuffle=True),
    dict(batch_size=4, shuffle=True, num_workers=2),
    dict(batch_size=4, collate_fn=list),
    dict(batch_size=3, sampler=[5, 1, 1, 7]),
    dict(batch_sampler=[[1, 2], [9]]),
]


@needs_torch
@pytest.mark.parametrize("kwargs", LOADERS)
def test_loaders(kwargs: dict[str, Any]) -> None:
    def run(library: Any, module: Any) -> Any:
        loader = module.DataLoader(Squares(), **kwargs)
        return [len(loader), list(loader), list(loader)]

    in_both(run)


@needs_torch
@pytest.mark.parametrize("settings", [dict(), dict(num_samples=7), dict(num_samples=25)])
@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize("own", [False, True])
def test_random_samplers(settings: dict[str, Any], replacement: bool, own: bool) -> None:
    def run(library: Any, module: Any) -> Any:
        generator = library.Generator().manual_seed(5) if own else None
        sampler = module.RandomSampler(Squares(), replacement, generator=generator, **settings)
        loader = module.DataLoader(Squares(), 4, sampler=sampler, generator=generator)
        return [len(sampler), list(sampler), list(sampler), list(loader)]

    in_both(run)


@needs_torch
def test_other_samplers() -> None:
    def run(library: Any, module: Any) -> Any:
        weights = [0.1, 0.0, 3.0, 1.0, 0.5]
        generator = library.Generator().manual_seed(2)
        return [
            list(module.SequentialSampler(Squares(4))),
            list(module.SubsetRandomSampler([9, 8, 7, 6])),
            list(module.SubsetRandomSampler([9, 8, 7, 6], generator=generator)),
            list(module.WeightedRandomSampler(weights, 9)),
            list(module.WeightedRandomSampler(weights, 3, replacement=False)),
            list(module.BatchSampler(range(7), 3, False)),
            list(module.BatchSampler(range(7), 3, True)),
            [len(module.BatchSampler(range(7), 3, drop)) for drop in (False, True)],
        ]

    in_both(run)


@needs_torch
def test_a_generator_of_its_own() -> None:
    def run(library: Any, module: Any) -> Any:
        generator = library.Generator().manual_seed(3)
        loader = module.DataLoader(Squares(), 3, shuffle=True, generator=generator)
        return [list(loader), list(loader), library.rand(2, generator=generator)]

    in_both(run)


@needs_torch
def test_two_iterators_at_once() -> None:
    def run(library: Any, module: Any) -> Any:
        loader = module.DataLoader(Squares(), 3, shuffle=True)
        return [[a.tolist(), b.tolist()] for a, b in zip(loader, loader, strict=True)]

    in_both(run)


@needs_torch
@pytest.mark.parametrize(
    "kwargs",
    [dict(), dict(batch_size=3), dict(batch_size=3, drop_last=True), dict(batch_size=None)],
)
def test_items_in_turn(kwargs: dict[str, Any]) -> None:
    def run(library: Any, module: Any) -> Any:
        class Count(module.IterableDataset):
            def __iter__(self) -> Iterator[Any]:
                return iter(np.arange(14.0).reshape(7, 2))

            def __len__(self) -> int:
                return 7

        loader = module.DataLoader(Count(), **kwargs)
        return [len(loader), list(loader)]

    in_both(run)


@needs_torch
def test_datasets() -> None:
    def run(library: Any, module: Any) -> Any:
        x, y = library.arange(12).reshape(6, 2), library.arange(6.0)
        pairs = module.TensorDataset(x, y)
        part = module.Subset(pairs, [5, 0, 2])
        both = module.ConcatDataset([part, pairs])
        return [
            len(pairs),
            pairs[3],
            pairs[1:3],
            len(part),
            part[1],
            len(both),
            [both[i] for i in (0, 2, 3, 8, -1, -9)],
            (pairs + part)[7],
            list(module.DataLoader(part, 2)),
            list(module.DataLoader(both, 4, shuffle=True)),
        ]

    in_both(run)


@needs_torch
@pytest.mark.parametrize("lengths", [[7, 3], [0.7, 0.3], [0.35, 0.35, 0.3], [10], [1.0], [4, 6, 0]])
@pytest.mark.filterwarnings("ignore")
def test_random_split(lengths: list[float]) -> None:
    in_both(lambda library, module: module.random_split(Squares(), lengths))
    in_both(
        lambda library, module: module.random_split(
            Squares(), lengths, generator=library.Generator().manual_seed(42)
        )
    )


BATCHES: list[Callable[[Any], Any]] = [
    lambda t: [1, 2],
    lambda t: [True, False],
    lambda t: [1.5, 2],
    lambda t: ["a", "b"],
    lambda t: [b"a", b"b"],
    lambda t: [(1, 2.0), (3, 4.0)],
    lambda t: [[1, "x"], [2, "y"]],
    lambda t: [dict(a=1, b=[2.0]), dict(a=3, b=[4.0])],
    lambda t: [Point(1, 2.0), Point(3, 4.0)],
    lambda t: [np.float32(1), np.float32(2)],
    lambda t: [np.arange(3), np.arange(3)],
    lambda t: [np.ones((2, 2), np.float32)] * 2,
    lambda t: [t.ones(2), t.zeros(2)],
    lambda t: [(t.ones(2), dict(k=t.tensor(1))), (t.zeros(2), dict(k=t.tensor(2)))],
]


@needs_torch
@pytest.mark.parametrize("number", range(len(BATCHES)))
def test_default_collate(number: int) -> None:
    in_both(lambda library, module: module.default_collate(BATCHES[number](library)))
    in_both(lambda library, module: module.default_convert(BATCHES[number](library)))


@needs_torch
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("rest", [(), (2,)])
@pytest.mark.parametrize("grad", [False, True])
def test_pad_sequence(batch_first: bool, side: str, rest: tuple[int, ...], grad: bool) -> None:
    import torch
    from torch.nn.utils.rnn import pad_sequence

    items = [np.random.RandomState(n).randn(n, *rest) for n in (2, 5, 1, 0)]
    mine = [minitensor.tensor(x, requires_grad=grad) for x in items]
    theirs = [torch.tensor(x, requires_grad=grad) for x in items]
    settings: Any = dict(batch_first=batch_first, padding_value=-3.0, padding_side=side)
    out, expected = data.pad_sequence(mine, **settings), pad_sequence(theirs, **settings)
    assert plain(out.detach()) == plain(expected.detach())
    assert out.is_contiguous()
    if grad:
        weight = np.random.RandomState(0).randn(*out.shape)
        (out * minitensor.tensor(weight)).sum().backward()
        (expected * torch.tensor(weight)).sum().backward()
        for a, b in zip(mine, theirs, strict=True):
            assert a.grad is not None
            np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy())


def test_padded_pairs() -> None:
    collate = data.PadCollate(padding_value=9)
    batch: list[Any] = [([1, 2, 3], minitensor.tensor([4])), ([5], minitensor.tensor([6, 7]))]
    source, target = collate(batch)
    assert source.tolist() == [[1, 2, 3], [5, 9, 9]]
    assert target.tolist() == [[4, 9], [6, 7]]
    assert source.dtype == target.dtype == minitensor.int64


lengths = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), max_size=60)


@settings(deadline=None)
@given(lengths, st.integers(1, 100), st.integers(1, 40), st.booleans(), st.integers(0, 3))
def test_batches_by_length(
    table: list[tuple[int, int]], most: int, pool: int, shuffle: bool, epoch: int
) -> None:
    def sampler() -> data.TokenBatchSampler:
        made = data.TokenBatchSampler(
            np.array(table).reshape(-1, 2), most, shuffle=shuffle, seed=1, pool_size=pool
        )
        made.set_epoch(epoch)
        return made

    batches = list(sampler())
    assert batches == list(sampler())
    assert len(sampler()) == len(batches)
    assert sorted(i for batch in batches for i in batch) == list(range(len(table)))
    for batch in batches:
        assert batch
        assert len(batch) == 1 or len(batch) * max(table[i][1] for i in batch) <= most


def test_batches_by_length_waste_little_and_change_with_the_epoch() -> None:
    noise = np.random.RandomState(0)
    table = noise.randint(5, 60, 5000)
    sampler = data.TokenBatchSampler(table, 2000)
    first = list(sampler)
    padded = sum(len(batch) * table[batch].max() for batch in first)
    assert table.sum() / padded > 0.97
    assert table.sum() / 2000 <= len(first) < 1.1 * table.sum() / 2000
    sampler.set_epoch(1)
    assert list(sampler) != first
    sampler.set_epoch(0)
    assert list(sampler) == first
    firsts = [table[batch[0]] for batch in first]
    assert firsts != sorted(firsts)
    plain = list(data.TokenBatchSampler(table, 2000, shuffle=False))
    assert [table[b].max() for b in plain] == sorted(table[b].max() for b in plain)


def test_a_loader_of_padded_batches() -> None:
    pairs = [(list(range(n)), list(range(n // 2 + 1))) for n in range(1, 40)]
    sampler = data.TokenBatchSampler([(len(s), len(t)) for s, t in pairs], 60)
    loader = data.DataLoader(pairs, batch_sampler=sampler, collate_fn=data.PadCollate())
    count = 0
    for source, target in loader:
        assert isinstance(source, Tensor)
        assert target.numel() <= 60
        count += len(source)
    assert count == len(pairs)
    assert len(loader) == len(sampler)


ERRORS = """
d.DataLoader(s, 3, shuffle=True, sampler=[1])
d.DataLoader(s, 3, batch_sampler=[[1]])
d.DataLoader(s, batch_sampler=[[1]], drop_last=True)
d.DataLoader(s, None, drop_last=True)
d.DataLoader(s, 0)
d.DataLoader(s, num_workers=-1)
d.DataLoader([], 2, shuffle=True)
d.DataLoader(turn, 3, shuffle=True)
d.DataLoader(turn, 3, sampler=[1])
len(d.DataLoader(turn, 3))
d.BatchSampler(s, 3, 1)
d.BatchSampler(s, -1, True)
d.RandomSampler(s, replacement=3)
d.RandomSampler(s, num_samples=0)
d.WeightedRandomSampler([1.0], 0)
d.WeightedRandomSampler([1.0], True)
d.WeightedRandomSampler([1.0], 1, replacement=3)
d.WeightedRandomSampler([[1.0]], 1)
d.TensorDataset(t.ones(2), t.ones(3))
d.ConcatDataset([])
d.ConcatDataset([s, s])[20]
d.ConcatDataset([turn])
d.random_split(s, [3, 3])
d.random_split(s, [1.5, -0.5])
d.Dataset()[0]
d.default_collate([object()])
d.default_collate([[1], [1, 2]])
d.default_collate([t.ones(2), t.ones(3)])
pad([])
pad([t.ones(2, 3), t.ones(2, 4)])
pad([t.ones(2, 3)], padding_side="x")
""".strip().splitlines()


@needs_torch
@pytest.mark.parametrize("line", ERRORS)
def test_errors(line: str) -> None:
    import torch
    import torch.utils.data
    from torch.nn.utils.rnn import pad_sequence

    def run(library: Any, module: Any, pad: Any) -> None:
        class Turn(module.IterableDataset):
            def __iter__(self) -> Iterator[int]:
                return iter(range(3))

        eval(line, dict(t=library, d=module, pad=pad, s=Squares(), turn=Turn()))

    with pytest.raises(Exception) as expected:
        run(torch, torch.utils.data, pad_sequence)
    with pytest.raises(expected.type):
        run(minitensor, data, data.pad_sequence)


def test_bad_token_batches() -> None:
    with pytest.raises(ValueError, match="TokenBatchSampler"):
        data.TokenBatchSampler([1, 2], 0)
    with pytest.raises(ValueError, match="TokenBatchSampler"):
        data.TokenBatchSampler(np.ones((1, 1, 1)), 5)


@needs_torch
@pytest.mark.parametrize("replacement", [True, False])
def test_a_sampler_of_ten_thousand_million_draws_as_it_goes(replacement: bool) -> None:
    """The first numbers are PyTorch's, also where others are drawn in between; nothing is kept."""
    import torch

    count = 10**10
    mine = data.RandomSampler(range(7), replacement, count, minitensor.Generator().manual_seed(3))
    theirs = torch.utils.data.RandomSampler(
        range(7), replacement, count, torch.Generator().manual_seed(3)
    )
    assert len(mine) == count
    own, other = iter(mine), iter(theirs)
    tracemalloc.start()
    try:
        for length in (1, 31, 40, 200):
            assert list(islice(own, length)) == list(islice(other, length))
            a = mine.generator.randint(3, 0, 100)  # type: ignore[union-attr]
            b = torch.randint(100, (3,), generator=theirs.generator)
            assert a.tolist() == b.tolist()
        assert tracemalloc.get_traced_memory()[1] < 10**6
    finally:
        tracemalloc.stop()
    batches = iter(data.DataLoader(range(7), batch_sampler=data.BatchSampler(mine, 4, False)))
    assert len(next(batches)) == 4
