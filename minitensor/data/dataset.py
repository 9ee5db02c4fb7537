"""Datasets: items by number, or one after the other."""

from __future__ import annotations

import bisect
import itertools
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar

from ..core import Tensor
from ..random import Generator, default_generator

T = TypeVar("T", covariant=True)


class Items(Protocol):
    """Anything with items by number, such as a Dataset or a list."""

    def __getitem__(self, index: Any, /) -> Any: ...


class Dataset(Generic[T]):
    """A dataset whose items have numbers.

    A subclass defines `__getitem__`, and `__len__` if a sampler needs the number of items.
    """

    def __getitem__(self, index: Any) -> T:
        raise NotImplementedError(f"{type(self).__name__} defines no __getitem__")

    def __add__(self, other: Dataset[Any]) -> ConcatDataset[Any]:
        return ConcatDataset([self, other])


class IterableDataset(Dataset[T], Iterable[T]):
    """A dataset whose items come one after the other; a subclass defines `__iter__`."""


class TensorDataset(Dataset[tuple[Tensor, ...]]):
    """A dataset whose item i is the tuple of row i of each tensor.

    - `tensors`: tensors (N, *); AssertionError if their N differ.
    """

    def __init__(self, *tensors: Tensor) -> None:
        if any(t.size(0) != tensors[0].size(0) for t in tensors):
            raise AssertionError(
                f"Size mismatch between tensors: {', '.join(str(tuple(t.shape)) for t in tensors)}"
            )
        self.tensors = tensors

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        return tuple(t[index] for t in self.tensors)

    def __len__(self) -> int:
        return self.tensors[0].size(0)


class Subset(Dataset[T]):
    """A part of a dataset.

    - `dataset`: the whole.
    - `indices`: the numbers of its items in this part, in order.
    """

    def __init__(self, dataset: Dataset[T], indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, indices

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, list):
            return self.dataset[[self.indices[i] for i in index]]
        return self.dataset[self.indices[index]]

    def __len__(self) -> int:
        return len(self.indices)


class ConcatDataset(Dataset[T]):
    """Several datasets as one, each after the other.

    - `datasets`: the parts; AssertionError if there is none, or one is an IterableDataset.
    """

    def __init__(self, datasets: Iterable[Dataset[T]]) -> None:
        self.datasets: list[Any] = list(datasets)
        if not self.datasets:
            raise AssertionError("datasets should not be an empty iterable")
        if any(isinstance(d, IterableDataset) for d in self.datasets):
            raise AssertionError("ConcatDataset does not support IterableDataset")
        self.cumulative_sizes = list(itertools.accumulate(map(len, self.datasets)))

    def __getitem__(self, index: int) -> Any:
        if not -len(self) <= index < len(self):
            kind = ValueError if index < 0 else IndexError
            raise kind(f"index {index} is out of range for {len(self)} items")
        index %= len(self)
        number = bisect.bisect_right(self.cumulative_sizes, index)
        return self.datasets[number][index - (self.cumulative_sizes[number - 1] if number else 0)]

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]


def random_split(
    dataset: Dataset[T], lengths: Sequence[float], generator: Generator | None = None
) -> list[Subset[T]]:
    """Split a dataset at random into disjoint subsets.

    - `lengths`: the number of items of each, or its fraction if they sum to 1. Items left over by
      rounding go to the first subsets, one each.
    - `generator`: the source of the order, the default generator if None.

    Raises ValueError if the lengths do not add up to that of the dataset.
    """
    size = len(dataset)  # type: ignore[arg-type]
    if math.isclose(sum(lengths), 1) and sum(lengths) <= 1:
        for number, part in enumerate(lengths):
            if not 0 <= part <= 1:
                raise ValueError(f"Fraction at index {number} is not between 0 and 1")
        counts = [math.floor(size * part) for part in lengths]
        for number in range(size - sum(counts)):
            counts[number % len(counts)] += 1
        if 0 in counts:
            warnings.warn(f"Length of split at index {counts.index(0)} is 0.", stacklevel=2)
    else:
        counts = [int(length) for length in lengths]
    if sum(counts) != size:
        raise ValueError(
            f"Sum of input lengths does not equal the length of the input dataset: {sum(counts)}, "
            f"{size}"
        )
    order: Iterator[int] = iter((generator or default_generator).randperm(size).tolist())
    return [Subset(dataset, list(itertools.islice(order, count))) for count in counts]
