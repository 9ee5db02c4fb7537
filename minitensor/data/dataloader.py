"""DataLoader: batches from a dataset."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..random import Generator
from .collate import default_collate, default_convert
from .dataset import IterableDataset
from .sampler import BatchSampler, RandomSampler, SequentialSampler, draw_seed


class DataLoader:
    """Goes through a dataset in batches, each time `iter` is called.

    Batches have `batch_size` items (None: single items, not batches) in order, or in random order
    with `shuffle`, or in that of a `sampler`; or they are what a `batch_sampler` says. `collate_fn`
    makes a batch of a list of items; `drop_last` drops a last batch that is not full. Random
    orders come from `generator`, or the default one, and are PyTorch's for the same seed.

    Items are loaded in the calling thread, whatever `num_workers` says: orders and random numbers
    do not depend on it. It and the arguments after `worker_init_fn` are accepted for the sake of
    code written for PyTorch.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Iterable[int] | None = None,
        batch_sampler: Iterable[list[int]] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[Any], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], None] | None = None,
        multiprocessing_context: Any = None,
        generator: Generator | None = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
    ) -> None:
        if num_workers < 0:
            raise ValueError(f"num_workers option should be non-negative, got {num_workers}")
        self.in_turn = isinstance(dataset, IterableDataset)
        if self.in_turn and (shuffle or sampler is not None or batch_sampler is not None):
            raise ValueError(
                "DataLoader with IterableDataset: expected unspecified shuffle, sampler and "
                "batch_sampler options"
            )
        if sampler is not None and shuffle:
            raise ValueError("sampler option is mutually exclusive with shuffle")
        if batch_sampler is not None:
            if batch_size != 1 or shuffle or sampler is not None or drop_last:
                raise ValueError(
                    "batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, "
                    "and drop_last"
                )
            batch_size = None
        elif batch_size is None and drop_last:
            raise ValueError(
                "batch_size=None option disables auto-batching and is mutually exclusive with "
                "drop_last"
            )
        if sampler is None and not self.in_turn:
            if shuffle:
                sampler = RandomSampler(dataset, generator=generator)
            else:
                sampler = SequentialSampler(dataset)
        if batch_size is not None:
            batch_sampler = BatchSampler(sampler or (), batch_size, drop_last)
        self.dataset = dataset
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.sampler = sampler
        self.batch_sampler = batch_sampler
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.generator = generator
        if collate_fn is None:
            collate_fn = default_convert if batch_sampler is None else default_collate
        self.collate_fn = collate_fn

    def __iter__(self) -> Iterator[Any]:
        draw_seed(self.generator)  # PyTorch seeds its workers here: the stream has to go on alike
        return self._batches_in_turn() if self.in_turn else self._batches()

    def _batches(self) -> Iterator[Any]:
        dataset = self.dataset
        if self.batch_sampler is None:
            for index in self.sampler or ():
                yield self.collate_fn(dataset[index])
            return
        fetch = getattr(dataset, "__getitems__", None)
        for indices in self.batch_sampler:
            items = fetch(indices) if fetch else [dataset[index] for index in indices]
            yield self.collate_fn(items)

    def _batches_in_turn(self) -> Iterator[Any]:
        items = iter(self.dataset)
        if self.batch_size is None:
            yield from map(self.collate_fn, items)
            return
        while batch := list(itertools.islice(items, self.batch_size)):
            if len(batch) == self.batch_size or not self.drop_last:
                yield self.collate_fn(batch)

    def __len__(self) -> int:
        """The number of batches; TypeError if the dataset has no length."""
        if self.in_turn:
            count = len(self.dataset)
            if self.batch_size is None:
                return count
            if self.drop_last:
                return count // self.batch_size
            return -(-count // self.batch_size)
        return len(self.sampler if self.batch_sampler is None else self.batch_sampler)  # type: ignore[arg-type]


def get_worker_info() -> None:
    """None: items are loaded in the main process."""
