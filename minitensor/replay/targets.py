"""Changes in place: of arguments, and of tensors that a function has by itself.

A plan computes their new numbers beside the old ones, and writes them at its end. That is as the
function does it if no other tensor that the call reads shows the memory that is changed.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from ..core import Tensor
from ..kernels.parallel import address
from .addresses import NotReplayable
from .graph import Graph


class Targets:
    """The targets of a graph's updates among `sources`, its inputs and then its leaves.

    NotReplayable if two leaves share memory that is changed.
    """

    def __init__(self, graph: Graph, sources: Sequence[int]) -> None:
        count = len(graph.inputs)
        leaves = [graph.tensors[n]._array for n in sources[count:]]
        self._places = [sources.index(n) for n in graph.updates]
        self._times = list(graph.updates.values())
        self._given = [n for n in self._places if n < count]
        own = [leaves[n - count] for n in self._places if n >= count]
        for target, leaf in itertools.product(own, leaves):
            if target is not leaf and np.may_share_memory(target, leaf):
                raise NotReplayable("two of its tensors share memory, and it changes one in place")
        # Arguments must not lie in what is changed, nor what is changed in any other tensor.
        self._ranges = _merged(map(_range, leaves if self._given else own))
        self._starts = [start for start, _ in self._ranges]

    def free(self, inputs: Sequence[Tensor]) -> bool:
        """Return True if all can be written, and no argument lies in memory that is changed.

        Arguments that share memory with each other, or with a leaf, count as if they did.
        """
        if not self._places:
            return True
        arrays = [t._array for t in inputs]
        if not all(arrays[n].flags.writeable for n in self._given):
            return False
        before = 0
        for low, high in sorted(map(_range, arrays)):
            at = bisect.bisect(self._starts, low)
            if low < before or (at and low < self._ranges[at - 1][1]):
                return False
            if at < len(self._starts) and self._starts[at] < high:
                return False
            before = high
        return True

    def write(self, tensors: Sequence[Tensor], numbers: Sequence[Tensor]) -> None:
        """Write the new numbers, and count the changes as the function does."""
        for place, times, new in zip(self._places, self._times, numbers, strict=True):
            target = tensors[place]
            target._array[...] = new._array
            if target._version_box is not None:
                target._version_box[0] += times


def _range(a: np.ndarray) -> tuple[int, int]:
    """Return the addresses at which the memory of an array begins and ends."""
    if a.flags.c_contiguous:
        start = address(a)
        return start, start + a.nbytes
    return np.lib.array_utils.byte_bounds(a)


def _merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return ranges in order, those that overlap as one."""
    found: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if found and low < found[-1][1]:
            low, before = found.pop()
            high = max(high, before)
        found.append((low, high))
    return found
