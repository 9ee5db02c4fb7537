"""Samplers: the order in which a loader reads items, and their division into batches.

Random orders are PyTorch's for the same seed. Where a sampler takes a `generator`, None is the
default generator.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any, Generic, TypeVar

import numpy as np

from ..random import Generator, default_generator

T = TypeVar("T", covariant=True)
PIECE = 1 << 12  # numbers that are Python objects at a time


class Sampler(Generic[T]):
    """An order of items; a subclass defines `__iter__`, which yields their numbers."""

    def __init__(self, data_source: Any = None) -> None:
        """Accept and ignore the dataset, which older code passes."""

    def __iter__(self) -> Iterator[T]:
        raise NotImplementedError(f"{type(self).__name__} defines no __iter__")


class SequentialSampler(Sampler[int]):
    """Yield 0, 1, 2, ...: the items of `data_source` in order."""

    def __init__(self, data_source: Sized) -> None:
        self.data_source = data_source

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        return len(self.data_source)


class RandomSampler(Sampler[int]):
    """Yield the numbers of the items in random order.

    - `data_source`: the dataset, of which only the length is used.
    - `replacement`: draw every number from all items, so that numbers repeat.
    - `num_samples`: the length of a pass, the number of items by default.
    - `generator`: the source; if None, every pass draws a seed from the default generator.

    Raises TypeError unless `replacement` is a bool, ValueError unless `num_samples` is positive.
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
        """The length of a pass."""
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def __iter__(self) -> Iterator[int]:
        n, count = len(self.data_source), self.num_samples
        generator = self.generator
        if generator is None:
            generator = Generator().manual_seed(draw_seed(None))
        if self.replacement:  # 32 at a time, as PyTorch draws them
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
    """Draw a seed from a generator."""
    return int((generator or default_generator).random(1, np.int64)[0])


class SubsetRandomSampler(Sampler[int]):
    """Yield given numbers in random order.

    - `indices`: the numbers.
    - `generator`: the source.
    """

    def __init__(self, indices: Sequence[int], generator: Generator | None = None) -> None:
        self.indices, self.generator = indices, generator

    def __iter__(self) -> Iterator[int]:
        for i in (self.generator or default_generator).randperm(len(self.indices)).tolist():
            yield self.indices[i]

    def __len__(self) -> int:
        return len(self.indices)


class WeightedRandomSampler(Sampler[int]):
    """Yield random numbers of items, with probabilities proportional to weights.

    - `weights`: one for each item.
    - `num_samples`: the length of a pass.
    - `replacement`: numbers may repeat (default True).
    - `generator`: the source.

    Raises ValueError for arguments of another type or size.
    """

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
        for start in range(0, len(drawn), PIECE):
            yield from drawn[start : start + PIECE].tolist()

    def __len__(self) -> int:
        return self.num_samples


class BatchSampler(Sampler[list[int]]):
    """Yield lists of numbers from another sampler.

    - `sampler`: yields the numbers.
    - `batch_size`: the length of a list.
    - `drop_last`: leave out a last list that is shorter.

    Raises ValueError unless `batch_size` is positive and `drop_last` is a bool.
    """

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
    """Yield batches of items of similar length, each with about the same number of tokens.

    Items are shuffled, sorted by length within pools, and cut into batches for which
    (number of items) * (longest target) <= max_tokens. A longer item is a batch by itself. The
    batches come in random order.

    - `lengths`: one length for each item, (items,), or pairs of source and target, (items, 2),
      which are sorted by target, then source.
    - `max_tokens`: the size of a batch, padding included.
    - `shuffle`: if False, all items are sorted, and the batches come from short to long.
    - `seed`: gives the order together with the epoch; call `set_epoch` before each pass.
    - `pool_size`: the number of items that are sorted together (default 8192).

    Raises ValueError for lengths of another shape, and sizes that are not positive.
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
        """Plan the batches of pass number `epoch`."""
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
