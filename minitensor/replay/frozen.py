"""Weights that stay as they are: products read them from panels, laid out once for all plans.

A product packs its weight each time, which by some tens of rows takes a sixth of its time. It need
not if nobody writes into the weight but by what moves its version, as only the user can know: so
`compile(..., options={"freezing": True})` says it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..core import Tensor
from ..kernels.panels import LEAST, MOST, Panels, rounded
from ..ops.linear import Linear, LinearActivation
from .graph import Graph


@dataclass(frozen=True)
class Layout:
    """The panels of a weight, as it was when they were made."""

    weight: Tensor
    array: np.ndarray
    version: int
    panels: Panels

    @property
    def holds(self) -> bool:
        """True if nothing has changed it since, as far as that is counted."""
        return self.weight._array is self.array and version_of(self.weight) == self.version


class Frozen:
    """The weights of all plans that are read from panels, by their id()."""

    def __init__(self) -> None:
        self._made: dict[int, Layout] = {}

    def of(self, graph: Graph) -> list[Layout]:
        """Return those that products of a graph read."""
        found: dict[int, Layout] = {}
        for call in graph.calls:
            if call.op not in (Linear, LinearActivation):
                continue
            x, w = (each.number for each in call.args[:2])
            rows = math.prod(graph.values[x].shape[:-1])
            t = graph.tensors.get(w)  # None if it is computed or an argument
            if t is None or w in graph.updates or not LEAST <= rows <= MOST:
                continue
            if t._array.dtype.char in "fd" and t._version_box is not None:
                found[id(t)] = self._layout(t)
        return list(found.values())

    def hold(self, layouts: list[Layout]) -> bool:
        """Return True if all are as they were, and their weights have no newer ones."""
        return all(each.holds and self._made[id(each.weight)] is each for each in layouts)

    def _layout(self, weight: Tensor) -> Layout:
        known = self._made.get(id(weight))
        if known is None or not known.holds or known.panels.rounded != rounded(weight._array.dtype):
            array = weight._array
            known = Layout(weight, array, version_of(weight), Panels(array))
            self._made[id(weight)] = known
        return known


def version_of(t: Tensor) -> int:
    """Return how often the memory of a tensor was changed, as far as that is counted."""
    return 0 if t._version_box is None else t._version_box[0]
