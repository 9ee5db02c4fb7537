"""Sizes as formulas of named axes: solved from what a program did at several sizes.

A program runs at several assignments of sizes. A whole number in it that changed, such as an entry
of a shape or the end of a slice, is a formula of the sizes, "N", "2*L + 1", "N*L", or it is
`Varying`: no formula was found, so it may follow from something else, and nothing may use it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Column = tuple[int, ...]  # a number in each run


@dataclass(frozen=True)
class Size:
    """A formula of sizes: the sum of `terms`, each a factor and names to multiply, // `divisor`."""

    terms: tuple[tuple[int, tuple[str, ...]], ...]
    divisor: int = 1

    def at(self, sizes: Mapping[str, int]) -> int:
        """Return its value."""
        total = sum(factor * math.prod(sizes[n] for n in names) for factor, names in self.terms)
        return total // self.divisor

    def __neg__(self) -> Size:
        return Size(tuple((-factor, names) for factor, names in self.terms), self.divisor)

    def __str__(self) -> str:
        parts = []
        for factor, names in self.terms:
            front = [str(factor)] if factor != 1 or not names else []
            parts.append("*".join([*front, *names]))
        text = " + ".join(parts).replace("+ -", "- ")
        if self.divisor == 1:
            return text
        return f"({text})/{self.divisor}" if len(parts) > 1 else f"{text}/{self.divisor}"


@dataclass(frozen=True)
class Number:
    """factor * size ** power, a number that follows from sizes: 1 / L, sqrt(L)."""

    factor: float
    size: Size
    power: float


@dataclass(frozen=True)
class Varying:
    """A number that differs between runs, and follows from sizes by no formula that is known."""

    values: tuple[Any, ...]  # in each run


class Solver:
    """Finds the formulas, given the sizes by their names in each run."""

    def __init__(self, runs: Sequence[Mapping[str, int]]) -> None:
        self.runs = runs
        self._names = [n for n in runs[0] if len({sizes[n] for sizes in runs}) > 1]

    def size(self, column: Column) -> int | Size | Varying:
        """Return a formula for whole numbers, one in each run."""
        if len(set(column)) == 1:
            return column[0]
        found = next(filter(lambda size: self._fits(size, column), self._candidates(column)), None)
        return found or self._rounded(column) or Varying(column)

    def _fits(self, size: Size, column: Column) -> bool:
        return all(size.at(sizes) == n for sizes, n in zip(self.runs, column, strict=True))

    def _rounded(self, column: Column) -> Size | None:
        """Return (N + c) // k if one c alone is possible, as for a convolution with a stride."""
        for name in self._names:
            values = [sizes[name] for sizes in self.runs]
            first, last = (
                min(zip(values, column, strict=True)),
                max(zip(values, column, strict=True)),
            )
            if first[1] >= last[1]:
                continue
            near = round((last[0] - first[0]) / (last[1] - first[1]))
            every = [
                Size(((1, (name,)), *(((c, ()),) if c else ())), k)
                for k in range(max(near - 1, 2), near + 2)
                for c in range(column[0] * k - values[0], column[0] * k - values[0] + k)
            ]
            fitting = [size for size in every if self._fits(size, column)]
            if len(fitting) == 1:
                return fitting[0]
        return None

    def _candidates(self, column: Column) -> Iterator[Size]:
        """Yield formulas that may give `column`, the simplest first."""
        products = [
            names
            for count in (1, 2, 3)
            for names in itertools.combinations_with_replacement(self._names, count)
        ]
        for names in products:  # a * N, N / a
            value = math.prod(self.runs[0][n] for n in names)
            if value and column[0] % value == 0:
                yield Size(((column[0] // value, names),))
            if column[0] and value % column[0] == 0:
                yield Size(((1, names),), value // column[0])
        for names in products:  # N + c
            yield self._plus(column, (1, names))
        for many in (2, 3):
            for some in itertools.combinations(products, many):  # N + L + c
                yield self._plus(column, *((1, names) for names in some))
        for names in products:  # a * N + c, from the first two runs that tell
            values = [math.prod(sizes[n] for n in names) for sizes in self.runs]
            pairs = list(zip(values, column, strict=True))
            (v, n), other = pairs[0], next((p for p in pairs if p[0] != values[0]), None)
            if other is not None and (other[1] - n) % (other[0] - v) == 0:
                factor = (other[1] - n) // (other[0] - v)
                if factor:
                    yield self._plus(column, (factor, names))
        for one, two in itertools.permutations(self._names, 2):  # (N + c) * L
            if column[0] % self.runs[0][two] == 0:
                c = column[0] // self.runs[0][two] - self.runs[0][one]
                yield Size(((1, (one, two)), (c, (two,))))

    def _plus(self, column: Column, *terms: tuple[int, tuple[str, ...]]) -> Size:
        """Return the sum of the terms and of the constant that is missing in the first run."""
        rest = column[0] - Size(terms).at(self.runs[0])
        return Size((*terms, *(((rest, ()),) if rest else ())))

    def number(self, column: tuple[float, ...]) -> float | Number | Varying:
        """Return a formula for numbers, one in each run."""
        if len(set(column)) == 1 or all(x != x for x in column):
            return column[0]
        sizes = [Size(((1, names),)) for k in (1, 2)
                 for names in itertools.combinations_with_replacement(self._names, k)]  # fmt: skip
        for size, power in itertools.product(sizes, (1.0, -1.0, 0.5, -0.5)):
            values = [size.at(run) ** power for run in self.runs]
            factor = column[0] / values[0]
            if all(math.isclose(n, factor * v, rel_tol=1e-12)
                   for n, v in zip(column, values, strict=True)):  # fmt: skip
                return Number(factor, size, power)
        return Varying(column)

    def merged(self, values: Sequence[Any]) -> Any:
        """Return arguments of a call, given those of each run: with formulas where they differ."""
        first = values[0]
        if isinstance(first, slice) and all(isinstance(v, slice) for v in values):
            ends = [[v.start, v.stop, v.step] for v in values]
            return slice(*(self.merged(each) for each in zip(*ends, strict=True)))
        if isinstance(first, tuple | list):
            if any(type(v) is not type(first) or len(v) != len(first) for v in values):
                return Varying(tuple(values))
            return tuple(self.merged(each) for each in zip(*values, strict=True))
        if isinstance(first, dict):
            if any(v.keys() != first.keys() for v in values):
                return Varying(tuple(values))
            return {key: self.merged([v[key] for v in values]) for key in first}
        if all(type(v) is int for v in values):
            return self.size(tuple(values))
        if all(type(v) in (int, float) for v in values):
            return self.number(tuple(values))
        same = all(type(v) is type(first) and v == first for v in values)
        return first if same else Varying(tuple(values))
