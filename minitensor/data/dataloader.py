"""DataLoader: batches from a dataset."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..random import Generator
from .collate import default_collate, default_convert
from .dataset import Items, IterableDataset
from .sampler import BatchSampler, RandomSampler, SequentialSampler, draw_seed
from .worker import Worker


class DataLoader:
    """Iterate over a dataset in batches; every `iter` is one pass.

    - `dataset`: a Dataset, an IterableDataset, or any sequence.
    - `batch_size`: the number of items in a batch (default 1); None yields single items.
    - `shuffle`: draw the items in random order.
    - `sampler`: yields the numbers of the items, instead of `shuffle`.
    - `batch_sampler`: yields the list of numbers of each batch, instead of `batch_size`, `shuffle`,
      `sampler` and `drop_last`.
    - `collate_fn`: turns a list of items into a batch (default `default_collate`).
    - `drop_last`: leave out a last batch that is not full.
    - `generator`: the source of random orders, the default generator if None. They are PyTorch's
      for the same seed.
    - `num_workers`: the number of workers, which load a batch each in turn. They share the calling
      thread, and have PyTorch's random streams of their own (`minitensor.data.worker`).
    - `worker_init_fn`: called with the number of each worker, in it, when it begins.
    - `persistent_workers`: let the workers and their streams go on from pass to pass.
    - all others: accepted for PyTorch's sake.

    Raises ValueError for arguments that exclude each other.
    """

    def __init__(
        self,
        dataset: Items,
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
        in_order: bool = True,
    ) -> None:
        if num_workers < 0:
            raise ValueError(f"num_workers option should be non-negative, got {num_workers}")
        if num_workers == 0 and (persistent_workers or prefetch_factor is not None):
            option = "persistent_workers" if persistent_workers else "prefetch_factor"
            raise ValueError(f"{option} option needs num_workers > 0")
        self._iterable = isinstance(dataset, IterableDataset)
        if self._iterable and (shuffle or sampler is not None or batch_sampler is not None):
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
        sized: Any = dataset  # those without a length raise TypeError
        if sampler is None and not self._iterable:
            if shuffle:
                sampler = RandomSampler(sized, generator=generator)
            else:
                sampler = SequentialSampler(sized)
        if batch_size is not None:
            batch_sampler = BatchSampler(sampler or (), batch_size, drop_last)
        self.dataset: Any = dataset
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.sampler = sampler
        self.batch_sampler = batch_sampler
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.generator = generator
        self.persistent_workers = persistent_workers
        self._worker_init_fn = worker_init_fn
        self._workers: list[Worker] = []
        if collate_fn is None:
            collate_fn = default_convert if batch_sampler is None else default_collate
        self.collate_fn = collate_fn

    def __iter__(self) -> Iterator[Any]:
        if not (self._workers and self.persistent_workers):
            seed = draw_seed(self.generator)  # as PyTorch does, also without workers
            self._workers = [
                Worker(number, self.num_workers, seed, self.dataset, self._worker_init_fn)
                for number in range(self.num_workers)
            ]
        if self._iterable:
            return self._shared_streams() if self._workers else self._stream(self.dataset)
        return self._batches()

    def _batches(self) -> Iterator[Any]:
        """Yield the batches of a dataset with numbered items, each worker's in its turn."""
        numbers: Any = self.sampler or () if self.batch_sampler is None else self.batch_sampler
        turns = itertools.cycle(self._workers) if self._workers else itertools.repeat(None)
        for indices, worker in zip(numbers, turns, strict=False):
            if worker is None:
                yield self._fetch(self.dataset, indices)
                continue
            with worker.running():
                batch = self._fetch(worker.info.dataset, indices)
            yield batch

    def _fetch(self, dataset: Any, indices: Any) -> Any:
        """Return the batch of the items of these numbers; the item, without batches."""
        if self.batch_sampler is None:
            return self.collate_fn(dataset[indices])
        fetch = getattr(dataset, "__getitems__", None)
        return self.collate_fn(fetch(indices) if fetch else [dataset[index] for index in indices])

    def _shared_streams(self) -> Iterator[Any]:
        """Yield the batches of each worker's IterableDataset in turn, until all are at an end."""
        going = [(worker, self._stream(worker.info.dataset)) for worker in self._workers]
        end = object()
        while going:
            for pair in list(going):
                worker, stream = pair
                with worker.running():
                    batch = next(stream, end)
                if batch is end:
                    going.remove(pair)
                else:
                    yield batch

    def _stream(self, dataset: Any) -> Iterator[Any]:
        """Yield the batches of an IterableDataset."""
        items = iter(dataset)
        if self.batch_size is None:
            yield from map(self.collate_fn, items)
            return
        while batch := list(itertools.islice(items, self.batch_size)):
            if len(batch) == self.batch_size or not self.drop_last:
                yield self.collate_fn(batch)

    def __len__(self) -> int:
        """Return the number of batches; TypeError if the dataset has no length."""
        if self._iterable:
            count = len(self.dataset)
            if self.batch_size is None:
                return count
            if self.drop_last:
                return count // self.batch_size
            return -(-count // self.batch_size)
        return len(self.sampler if self.batch_sampler is None else self.batch_sampler)  # type: ignore[arg-type]
