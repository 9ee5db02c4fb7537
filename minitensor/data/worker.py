"""Workers of a DataLoader, which share the calling thread and have random streams of their own.

PyTorch's are processes. A batch loaded in one sees random numbers that the program itself does not
draw from, a copy of the dataset, and `get_worker_info()`. So it is here, with PyTorch's seeds: the
same seed gives the same augmentations, and datasets that share out their items do so.
"""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..random import default_generator
from .dataset import Dataset


@dataclass
class WorkerInfo:
    """Returned by `get_worker_info()` in a worker.

    - `id`: its number, from 0. `num_workers`: how many there are.
    - `seed`: of its random numbers. `dataset`: its copy of the dataset.
    """

    id: int
    num_workers: int
    seed: int
    dataset: Any


_running: WorkerInfo | None = None


def get_worker_info() -> WorkerInfo | None:
    """Return the description of the worker that calls; None outside of one."""
    return _running


class Worker:
    """The random streams of one worker, of Python, NumPy and minitensor, and its dataset.

    - `number`: its id, of `num_workers`. `base_seed`: the seed that all of them share.
    - `init`: called with the id, in the worker, when it begins.
    """

    def __init__(
        self,
        number: int,
        num_workers: int,
        base_seed: int,
        dataset: Any,
        init: Callable[[int], None] | None,
    ) -> None:
        # A shallow copy, for attributes that `init` sets: which items are this worker's.
        own = copy.copy(dataset) if isinstance(dataset, Dataset) else dataset
        self.info = WorkerInfo(number, num_workers, base_seed + number, own)
        self.streams: Any = None
        with self.running():
            random.seed(self.info.seed)
            default_generator.manual_seed(self.info.seed)
            entropy = [number, base_seed & 0xFFFFFFFF, base_seed >> 32, 0]
            np.random.seed(np.random.SeedSequence(entropy).generate_state(4))
            if init is not None:
                init(number)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Run a block in the worker: with its random streams, which go on where they were."""
        global _running
        outside, before = _running, _streams()
        if self.streams is not None:
            _set_streams(self.streams)
        _running = self.info
        try:
            yield
        finally:
            _running, self.streams = outside, _streams()
            _set_streams(before)


def _streams() -> tuple[Any, Any, Any]:
    return random.getstate(), np.random.get_state(), default_generator.get_state()


def _set_streams(states: tuple[Any, Any, Any]) -> None:
    random.setstate(states[0])
    np.random.set_state(states[1])
    default_generator.set_state(states[2])
