"""Samplers: in which order a loader asks for items, and how it makes batches of them.

With the same seed the random ones give PyTorch's orders.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any, Generic, TypeVar

import numpy as np

from ..random import Generator, default_generator

T = TypeVar("T", covariant=True)


class Sampler(Generic[T]):
    """An order of items: a subclass defines `__iter__`, which gives their numbers."""

    def __init__(self, data_source: Any = None) -> None:
        """Nothing is kept."""

    def __iter__(self) -> Iterator[T]:
        raise NotImplementedError(f"{type(self).__name__} defines no __iter__")


class SequentialSampler(Sampler[int]):
    """0, 1, 2, ..."""

    def __init__(self, data_source: Sized) -> None:
        self.data_source = data_source

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        return len(self.data_source)


class RandomSampler(Sampler[int]):
    """All items in random order, or `num_samples` of them, with `replacement` if asked for.

    Without a generator of its own, each pass draws a seed from the default one.
    """

    def __init__(
        self,
        data_source: Sized,
        replacement: bool = False,
        num_samples: int | None = None,
        generator: Generator | None = None,
    ) -> None:
        self.data_source = data_source
        self.replacement = replacement
        self._num_samples = num_samples
        self.generator = generator
        if not isinstance(replacement, bool):
            raise TypeError(
                f"replacement should be a boolean value, but got replacement={replacement}"
            )
        if not isinstance(self.num_samples, int) or self.num_samples <= 0:
            raise ValueError(
                f"num_samples should be a positive integer value, but got {self.num_samples}"
            )

    @property
    def num_samples(self) -> int:
        """How many numbers one pass gives: by default one for each item."""
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def __iter__(self) -> Iterator[int]:
        n, count = len(self.data_source), self.num_samples
        generator = self.generator
        if generator is None:
            generator = Generator().manual_seed(draw_seed(None))
        if self.replacement:  # as many at a time as PyTorch draws, so that streams stay alike
            for _ in range(count // 32):
                yield from generator.randint(32, 0, n).tolist()
            yield from generator.randint(count % 32, 0, n).tolist()
            return
        for _ in range(count // n):
            yield from generator.randperm(n).tolist()
        yield from generator.randperm(n).tolist()[: count % n]

    def __len__(self) -> int:
        return self.num_samples


def draw_seed(generator: Generator | None) -> int:
    """A seed drawn from a stream."""
    return int((generator or default_generator).random(1, np.int64)[0])


class SubsetRandomSampler(Sampler[int]):
    """The given numbers in random order."""

    def __init__(self, indices: Sequence[int], generator: Generator | None = None) -> None:
        self.indices, self.generator = indices, generator

    def __iter__(self) -> Iterator[int]:
        for i in (self.generator or default_generator).randperm(len(self.indices)).tolist():
            yield self.indices[i]

    def __len__(self) -> int:
        return len(self.indices)


class WeightedRandomSampler(Sampler[int]):
    """`num_samples` numbers, each drawn with a probability proportional to its weight."""

    def __init__(
        self,
        weights: Sequence[float],
        num_samples: int,
        replacement: bool = True,
        generator: Generator | None = None,
    ) -> None:
        if not isinstance(num_samples, int) or isinstance(num_samples, bool) or num_samples <= 0:
            raise ValueError(
                f"num_samples should be a positive integer value, but got {num_samples}"
            )
        if not isinstance(replacement, bool):
            raise ValueError(f"replacement should be a boolean value, but got {replacement}")
        self.weights = np.asarray(weights, np.float64)
        if self.weights.ndim != 1:
            raise ValueError(f"weights should be a 1d sequence, got shape {self.weights.shape}")
        self.num_samples, self.replacement = num_samples, replacement
        self.generator = generator

    def __iter__(self) -> Iterator[int]:
        source = self.generator or default_generator
        drawn = source.multinomial(self.weights, self.num_samples, self.replacement)
        return iter(drawn.tolist())

    def __len__(self) -> int:
        return self.num_samples


class BatchSampler(Sampler[list[int]]):
    """Lists of `batch_size` numbers from another sampler; the last may be shorter or dropped."""

    def __init__(self, sampler: Iterable[int], batch_size: int, drop_last: bool) -> None:
        if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size <= 0:
            raise ValueError(f"batch_size should be a positive integer value, but got {batch_size}")
        if not isinstance(drop_last, bool):
            raise ValueError(f"drop_last should be a boolean value, but got drop_last={drop_last}")
        self.sampler, self.batch_size, self.drop_last = sampler, batch_size, drop_last

    def __iter__(self) -> Iterator[list[int]]:
        numbers = iter(self.sampler)
        while batch := list(itertools.islice(numbers, self.batch_size)):
            if len(batch) == self.batch_size or not self.drop_last:
                yield batch

    def __len__(self) -> int:
        count = len(self.sampler)  # type: ignore[arg-type]
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)


class TokenBatchSampler(Sampler[list[int]]):
    """Batches of items of about the same length, filled up to a number of tokens.

    `lengths` gives one length for each item, or (source, target) pairs. The items are shuffled,
    sorted by length (target, then source) within pools of `pool_size`, and cut into batches in
    which the number of items times the longest target is at most `max_tokens`; an item longer than
    that has a batch to itself. The batches come in random order.

    The order depends on `seed` and the epoch only: call `set_epoch` before each pass. Without
    `shuffle` all items are sorted, and the batches come from short to long.
    """

    def __init__(
        self,
        lengths: Sequence[int] | Sequence[tuple[int, int]] | np.ndarray,
        max_tokens: int,
        *,
        shuffle: bool = True,
        seed: int = 0,
        pool_size: int = 8192,
    ) -> None:
        table = np.asarray(lengths, np.int64)
        if table.ndim not in (1, 2) or max_tokens <= 0 or pool_size <= 0:
            raise ValueError(
                "TokenBatchSampler: expected a list of lengths or of pairs, and positive "
                f"max_tokens and pool_size, got shape {table.shape}, {max_tokens} and {pool_size}"
            )
        self.lengths = table if table.ndim == 2 else table[:, None]
        self.max_tokens, self.pool_size = max_tokens, pool_size
        self.shuffle, self.seed = shuffle, seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Make the batches of pass number `epoch`."""
        self.epoch = epoch
        self._batches = self._plan()

    def _plan(self) -> list[list[int]]:
        count = len(self.lengths)
        generator = Generator().manual_seed(self.seed + self.epoch)
        order = generator.randperm(count) if self.shuffle else np.arange(count)
        pool_size = self.pool_size if self.shuffle else max(count, 1)
        batches: list[list[int]] = []
        for start in range(0, count, pool_size):
            pool = order[start : start + pool_size]
            pool = pool[np.lexsort(self.lengths[pool].T)]
            batch: list[int] = []
            for item, length in zip(pool.tolist(), self.lengths[pool, -1].tolist(), strict=True):
                if batch and (len(batch) + 1) * length > self.max_tokens:
                    batches.append(batch)
                    batch = []
                batch.append(item)
            batches.append(batch)
        if self.shuffle:
            return [batches[i] for i in generator.randperm(len(batches)).tolist()]
        return batches

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)
