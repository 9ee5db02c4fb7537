"""Changes in place: of arguments, and of tensors that a function has by itself.

A plan computes their new numbers beside the old ones, and writes them at its end. That is as the
function does it if no other tensor that the call reads shows the memory that is changed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..core import Tensor
from .addresses import NotReplayable
from .graph import Graph


class Targets:
    """The targets of a graph's updates among `sources`, its inputs and then its leaves.

    NotReplayable if two leaves share memory that is changed.
    """

    def __init__(self, graph: Graph, sources: Sequence[int]) -> None:
        self.places = [sources.index(n) for n in graph.updates]
        self._times = list(graph.updates.values())
        self._leaves = [graph.tensors[n]._array for n in sources[len(graph.inputs) :]]
        self._ranges = _ranges(self._leaves)
        own = [n - len(graph.inputs) for n in self.places if n >= len(graph.inputs)]
        if _shown(own, self._ranges, np.arange(len(self._leaves))):
            raise NotReplayable("two of its tensors share memory, and it changes one in place")

    def free(self, inputs: Sequence[Tensor]) -> bool:
        """Return True if all can be written, and none of the arguments and leaves shows another."""
        if not self.places:
            return True
        arrays = [t._array for t in inputs]
        every = [*arrays, *self._leaves]
        if not all(every[n].flags.writeable for n in self.places):
            return False
        # Two arguments of one array were that in the recorded call too, but not one and a leaf.
        which = np.array([*map(id, arrays), *range(-len(self._leaves), 0)])
        return not _shown(self.places, np.concatenate([_ranges(arrays), self._ranges]), which)

    def write(self, tensors: Sequence[Tensor], numbers: Sequence[Tensor]) -> None:
        """Write the new numbers, and count the changes as the function does."""
        for place, times, new in zip(self.places, self._times, numbers, strict=True):
            target = tensors[place]
            target._array[...] = new._array
            for _ in range(times):
                target._bump()


def _ranges(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Return the addresses at which the memory of each array begins and ends: (n, 2)."""
    return np.array(list(map(np.lib.array_utils.byte_bounds, arrays)), np.int64).reshape(-1, 2)


def _shown(places: Sequence[int], ranges: np.ndarray, which: np.ndarray) -> bool:
    """Return True if one of `places` overlaps with a range that is not of the same array."""
    low, high = ranges[:, 0], ranges[:, 1]
    overlaps = (low[places, None] < high) & (low < high[places, None])
    return bool((overlaps & (which[places, None] != which)).any())
