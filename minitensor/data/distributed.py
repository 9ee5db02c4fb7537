"""DistributedSampler: for each rank of a group its part of a dataset."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sized

from ..names import show
from ..random import Generator
from .sampler import Sampler

__all__ = ["DistributedSampler"]


class DistributedSampler(Sampler[int]):
    """Yield the numbers of the items that are this rank's: every K-th of one order of all items.

    All ranks get as many: some items are repeated, or with `drop_last` left out. The order is
    PyTorch's for the same seed and epoch.

    - `dataset`: of which only the length is used.
    - `num_replicas`, `rank`: the number of ranks and that of this one; those of the group of all
      processes by default.
    - `shuffle`: draw a new order in each epoch (default True); call `set_epoch` before each.
    - `seed`: gives the order together with the epoch; the same on all ranks.
    - `drop_last`: leave items out so that the length is a multiple of `num_replicas`.

    Raises ValueError for a rank that is not in [0, num_replicas), and without a group if one of
    the two is left out.
    """

    def __init__(
        self,
        dataset: Sized,
        num_replicas: int | None = None,
        rank: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        if num_replicas is None or rank is None:
            from ..distributed import get_rank, get_world_size

            num_replicas = get_world_size() if num_replicas is None else num_replicas
            rank = get_rank() if rank is None else rank
        if not 0 <= rank < num_replicas:
            raise ValueError(
                f"Invalid rank {rank}, rank should be in the interval [0, {num_replicas - 1}]"
            )
        self.dataset, self.num_replicas, self.rank = dataset, num_replicas, rank
        self.shuffle, self.seed, self.drop_last = shuffle, seed, drop_last
        self.epoch = 0
        count = len(dataset)
        self.num_samples = count // num_replicas if drop_last else -(-count // num_replicas)
        self.total_size = self.num_samples * num_replicas

    def __iter__(self) -> Iterator[int]:
        count = len(self.dataset)
        if self.shuffle:
            order = Generator().manual_seed(self.seed + self.epoch).randperm(count).tolist()
        else:
            order = list(range(count))
        missing = self.total_size - count
        if missing > 0:
            order += (order * math.ceil(missing / count))[:missing]
        return iter(order[self.rank : self.total_size : self.num_replicas])

    def __len__(self) -> int:
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the epoch that begins."""
        self.epoch = epoch


show(__name__)
