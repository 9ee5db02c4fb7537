"""Weights that stay as they are: products read them from panels, laid out once for all plans.

A product packs its weight each time, which by some tens of rows takes a sixth of its time. It need
not if nobody writes into the weight but by what moves its version, as only the user can know: so
`compile(..., options={"freezing": True})` says it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..core import Tensor
from ..kernels.panels import LEAST, MOST, Panels, place_of, rounded
from ..ops.linear import Linear, LinearActivation
from .graph import Graph


class Frozen:
    """The panels of weights, by the id() of their arrays, with the versions they were made of."""

    def __init__(self) -> None:
        self._made: dict[int, tuple[np.ndarray, int, Panels]] = {}

    def panels(self, graph: Graph) -> tuple[dict[Any, Panels], list[tuple[Tensor, int]]]:
        """Return panels for the products of a graph by their `place_of`, and weights' versions."""
        panels: dict[Any, Panels] = {}
        versions: list[tuple[Tensor, int]] = []
        for call in graph.calls:
            if call.op not in (Linear, LinearActivation):
                continue
            x, w = (each.number for each in call.args[:2])
            rows = math.prod(graph.values[x].shape[:-1])
            t = graph.tensors.get(w)  # None if it is computed or an argument
            if t is None or w in graph.updates or not LEAST <= rows <= MOST:
                continue
            if t._array.dtype.char in "fd":
                panels[place_of(t._array)] = self._panels(t)
                versions.append((t, version_of(t)))
        return panels, versions

    def _panels(self, weight: Tensor) -> Panels:
        array, version = weight._array, version_of(weight)
        known = self._made.get(id(array))
        if known is None or known[0] is not array or known[1] != version:
            known = None
        if known is None or known[2].rounded != rounded(array.dtype):
            known = self._made[id(array)] = array, version, Panels(array)
        return known[2]


def version_of(t: Tensor) -> int:
    """Return how often the memory of a tensor was changed, as far as that is counted."""
    return 0 if t._version_box is None else t._version_box[0]
