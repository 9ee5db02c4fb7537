"""Workers of a DataLoader: their random streams, their share of the items, their dataset."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import minitensor as mt
from minitensor.data import DataLoader, Dataset, IterableDataset, get_worker_info


class Noisy(Dataset[Any]):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Any:
        return index, random.random(), np.random.rand(), mt.rand(1).item()


class Numbers(IterableDataset[int]):
    def __init__(self, end: int, share: bool) -> None:
        self.start, self.end, self.share = 0, end, share

    def __iter__(self) -> Iterator[int]:
        worker = get_worker_info()
        assert worker is not None
        numbers = range(self.start, self.end)
        return iter(numbers[worker.id :: worker.num_workers] if self.share else numbers)


def test_the_streams_of_workers_are_pytorchs_for_the_same_seed() -> None:
    mt.manual_seed(0)
    random.seed(1)
    loaded = list(DataLoader(Noisy(), batch_size=None, num_workers=2))
    expected = [  # of PyTorch 2.13
        (0, 0.2132, 0.8372, 0.7821),
        (1, 0.7734, 0.6703, 0.6938),
        (2, 0.2764, 0.3876, 0.0536),
    ]
    assert np.allclose(np.array(loaded), expected, atol=1e-4)
    assert mt.rand(1).item() == pytest.approx(0.08847743)  # the program's own goes on
    assert random.random() == random.Random(1).random()


def test_workers_take_turns_with_their_shares_of_a_stream() -> None:
    loader = DataLoader(Numbers(7, share=True), batch_size=2, num_workers=2)
    assert [batch.tolist() for batch in loader] == [[0, 2], [1, 3], [4, 6], [5]]
    loader = DataLoader(Numbers(2, share=False), batch_size=2, num_workers=2)
    assert [batch.tolist() for batch in loader] == [[0, 1], [0, 1]]


def test_each_worker_has_a_dataset_of_its_own_to_set_up() -> None:
    def init(number: int) -> None:
        worker: Any = get_worker_info()
        assert (worker.id, worker.num_workers) == (number, 2)
        worker.dataset.start = 10 * number
        worker.dataset.end = 10 * number + 2

    dataset = Numbers(7, share=False)
    loader = DataLoader(dataset, batch_size=None, num_workers=2, worker_init_fn=init)
    assert list(loader) == [0, 10, 1, 11]
    assert (dataset.start, dataset.end) == (0, 7)
    assert get_worker_info() is None


def test_streams_of_persistent_workers_go_on() -> None:
    mt.manual_seed(0)
    loader = DataLoader(Noisy(), batch_size=None, num_workers=1, persistent_workers=True)
    once = [item[3] for _ in range(2) for item in loader]
    assert len(set(once)) == 6
    with pytest.raises(ValueError, match="persistent_workers option needs num_workers > 0"):
        DataLoader(Noisy(), persistent_workers=True)


def test_an_error_in_a_worker_leaves_the_programs_streams_as_they_were() -> None:
    class Broken(Noisy):
        def __getitem__(self, index: int) -> Any:
            mt.rand(1)
            raise KeyError("gone")

    mt.manual_seed(3)
    batches = iter(DataLoader(Broken(), num_workers=2))
    before = mt.get_rng_state()
    with pytest.raises(KeyError, match="gone"):
        next(batches)
    assert (mt.get_rng_state() == before).all()
    assert get_worker_info() is None
