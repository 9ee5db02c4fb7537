"""The numbers of tensors, whole or an even sample of their rows and columns."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..dtype import FLOATING

BINS = 24  # of a histogram
LIMIT = 4 << 20  # bytes of a graph's numbers, unless its caller gives another limit


@dataclass
class Data:
    """The numbers of one tensor, and what is told of all of them."""

    array: np.ndarray  # whole, or what `at` picks
    at: list[list[int]] | None = None  # of a sample: the places that it has along each axis
    facts: dict[str, float] | None = None  # min, max, mean of the finite, nan (a count), inf
    counts: list[int] | None = None  # how many numbers are in each of BINS from min to max

    def sampled(self, cells: int) -> Data:
        """Return an even sample of at most `cells` numbers, with the first and last of each axis.

        Data that have no more are returned as they are.
        """
        array = self.array
        if array.size <= max(cells, 1):
            return self
        lengths = list(array.shape)
        while np.prod(lengths) > cells and max(lengths) > 1:
            longest = lengths.index(max(lengths))
            lengths[longest] = max(1, lengths[longest] * 3 // 4)
        picked = [
            np.unique(np.linspace(0, n - 1, m).round().astype(int)) if m > 1 else np.array([0])
            for n, m in zip(array.shape, lengths, strict=True)
        ]
        before = self.at or [list(range(n)) for n in array.shape]
        at = [[places[p] for p in found] for places, found in zip(before, picked, strict=True)]
        return Data(array[np.ix_(*picked)], at, self.facts, self.counts)

    def to_plain(self) -> dict[str, Any]:
        """Return the data as JSON has them: numbers in base64, little-endian."""
        return {"at": self.at, "facts": self.facts, "counts": self.counts, **packed(self.array)}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Data:
        """Return the data of `to_plain`."""
        return cls(unpacked(plain), plain["at"], plain["facts"], plain["counts"])


def data_of(array: np.ndarray, limit: int) -> Data:
    """Return a copy of the numbers of a tensor, a sample if they take more than `limit` bytes."""
    found = Data(array)
    if array.dtype.kind in FLOATING and array.size:
        good = array[np.isfinite(array)].astype(np.float64)
        nan, inf = int(np.isnan(array).sum()), int(np.isinf(array).sum())
        found.facts = {"nan": nan, "inf": inf}
        if good.size:
            low, high = float(good.min()), float(good.max())
            found.facts |= {"min": low, "max": high, "mean": float(good.mean())}
            if high > low and good.size >= BINS:  # of fewer, the cells themselves say as much
                found.counts = np.histogram(good, BINS, (low, high))[0].tolist()
    elif array.dtype.kind in "iu" and array.size:
        found.facts = {"min": int(array.min()), "max": int(array.max())}
    found = found.sampled(limit // max(array.itemsize, 1))
    found.array = np.array(found.array, order="C")
    return found


def fitting(sizes: Iterable[int], limit: int) -> int:
    """Return the most that each of several may take, so that all together take `limit`.

    The small ones are whole, and the others share what they leave.
    """
    rest, left = limit, sorted(sizes)
    while left and left[0] * len(left) <= rest:
        rest -= left.pop(0)
    return rest // len(left) if left else limit


def packed(array: np.ndarray) -> dict[str, Any]:
    """Return an array as JSON has it: integers in 4 bytes if they fit, half floats as float32."""
    kind = array.dtype
    if kind.itemsize == 2 and kind.kind in FLOATING:
        kind = np.dtype("f4")
    elif kind.kind in "iu":
        low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
        kind = np.dtype("i4") if -(2**31) <= low <= high < 2**31 else kind
    plain = np.ascontiguousarray(array, kind.newbyteorder("<"))
    text = base64.b64encode(plain.tobytes()).decode()
    return {"dtype": kind.str[1:], "shape": list(array.shape), "base64": text}


def unpacked(plain: dict[str, Any]) -> np.ndarray:
    """Return the array of `packed`; ValueError for anything else."""
    dtype = np.dtype("<" + plain["dtype"])
    return np.frombuffer(base64.b64decode(plain["base64"]), dtype).reshape(plain["shape"]).copy()
