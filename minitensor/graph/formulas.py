"""Formulas of names, such as "E/H", solved from the sizes of an axis in several runs."""

from __future__ import annotations

import itertools
import math
import re
from collections import defaultdict
from collections.abc import Collection, Iterator
from fractions import Fraction

Column = tuple[int, ...]  # a size in each run, the recorded one first
_Product = tuple[tuple[str, int], ...]  # names with their powers
_Ratios = tuple[tuple[int, int], ...]  # of a size in the later runs to that in the first

_LARGEST = 16  # of a fraction's numbers: 8*E/3


def base_of(name: str) -> str:
    """Return the name that a candidate stands for: H of "H?0"; "" for a size without a name."""
    return name.partition("?")[0]


def _ratio(above: int, below: int) -> tuple[int, int]:
    divisor = math.gcd(above, below)
    return above // divisor, below // divisor


class Formulas:
    """Solves a size as a formula of the names, from the sizes of both in all runs.

    `fixed` are numbers that were the same in all runs, but may depend on a size: a factor or a
    difference that may be one of them is not certain.
    """

    def __init__(self, sizes: dict[str, Column], fixed: Collection[int] = ()) -> None:
        self.sizes = sizes
        self._fixed = {n for n in fixed if n > 1}
        self._known: dict[tuple[Column, bool], str | None] = {}
        self._columns = defaultdict(list)
        for name, column in sizes.items():
            self._columns[column].append(name)
        self._products: dict[_Ratios, list[_Product]] | None = None
        self._sums: dict[Column, list[str]] | None = None

    def of(self, column: Column, certain: bool = False) -> str | None:
        """Return the one formula of an axis, such as "E/nhead" or "3*E"; None if there is none.

        With `certain`, no fixed number can be in it.
        """
        if (column, certain) not in self._known:
            found: list[str] = []
            for solve in (self._exact, self._multiples, self._differences, self._sums_of_two):
                found = list(dict.fromkeys(solve(column, certain)))
                if found:
                    break
            names = [len([name for name in self.sizes if _has(text, name)]) for text in found]
            found = [text for text, n in zip(found, names, strict=True) if n == min(names)]
            self._known[column, certain] = found[0] if len(found) == 1 else None
        return self._known[column, certain]

    def signs(self, column: Column) -> list[str]:
        """Return the sizes without a name of which two make an axis: one over, or times, another.

        Those of several pairs are all returned.
        """
        found: list[str] = []
        nameless = [name for name in self.sizes if not base_of(name)]
        for x, y in itertools.permutations(nameless, 2):
            for power in (-1, 1):
                values = self._values(((x, 1), (y, power)))
                if all(n * values[0] == column[0] * v for n, v in zip(column, values, strict=True)):
                    found += [x, y]
        return list(dict.fromkeys(found))

    def _exact(self, column: Column, certain: bool) -> list[str]:
        return self._columns.get(column, [])

    def _multiples(self, column: Column, certain: bool) -> Iterator[str]:
        """Yield products and quotients with a factor: 3*E, E/H/2."""
        if self._products is None:
            self._products = defaultdict(list)
            for product in self._all_products():
                self._products[self._ratios(self._values(product))].append(product)
        ratios = tuple(_ratio(n, column[0]) for n in column[1:])
        for product in self._products.get(ratios, ()):
            factor = column[0] / self._values(product)[0]
            above, below = factor.numerator, factor.denominator
            small = 1 in (above, below) or max(above, below) <= _LARGEST
            if small and (certain or (self._is_free(above) and self._is_free(below))):
                yield _written(factor, product)

    def _differences(self, column: Column, certain: bool) -> Iterator[str]:
        """Yield a name with a number added or taken away: L+1, if it is no size over another."""
        sizes_over = itertools.permutations(self.sizes.values(), 2)
        if any(all(n * b == a for n, a, b in zip(column, *two, strict=True)) for two in sizes_over):
            return
        for name, sizes in self.sizes.items():
            steps = {n - size for n, size in zip(column, sizes, strict=True)}
            if len(steps) == 1:
                step = steps.pop()
                if certain or self._is_step(abs(step)):
                    yield f"{name}{step:+d}"

    def _sums_of_two(self, column: Column, certain: bool) -> Iterator[str]:
        """Yield sums of two sizes, and products with such a sum: H+2*G, (H+2*G)*E/H."""
        if self._sums is None:
            self._sums = defaultdict(list)
            for x, y in itertools.permutations(self.sizes, 2):
                for factor in (1, 2):
                    if (factor > 1 or x < y) and base_of(x) != base_of(y):
                        both = zip(self.sizes[x], self.sizes[y], strict=True)
                        text = f"{x}+{y}" if factor == 1 else f"{x}+{factor}*{y}"
                        self._sums[tuple(a + factor * b for a, b in both)].append(text)
        yield from self._sums.get(column, ())
        named = [name for name in self.sizes if base_of(name)]
        products: list[_Product] = [((name, 1),) for name in named]
        products += [((a, 1), (b, -1)) for a, b in itertools.permutations(named, 2)]
        for product in products:
            values = self._values(product)
            parts = [n / value for n, value in zip(column, values, strict=True)]
            if all(part.denominator == 1 for part in parts):
                for text in self._sums.get(tuple(part.numerator for part in parts), ()):
                    yield f"({text})*{_written(Fraction(1), product)}"

    def _is_free(self, factor: int) -> bool:
        """Return True for a factor that no fixed number can be a part of."""
        return factor == 1 or not any(factor % n == 0 or n % factor == 0 for n in self._fixed)

    def _is_step(self, step: int) -> bool:
        return not any(step in (n - 1, n, n + 1, n // 2, n // 2 * 2) for n in self._fixed)

    def _all_products(self) -> Iterator[_Product]:
        named = {name for name in self.sizes if base_of(name)}
        for count in (1, 2, 3):
            powers = list(itertools.product((1, -1, 2) if count < 3 else (1, -1), repeat=count))
            for names in itertools.combinations(self.sizes, count):
                nameless = sum(name not in named for name in names)
                bases = [base_of(name) for name in names if name in named]
                if nameless <= (1 if count < 3 else 0) and len(set(bases)) == len(bases):
                    several = [each for each in powers if max(each) > 0]
                    yield from (tuple(zip(names, each, strict=True)) for each in several)

    def _values(self, product: _Product) -> list[Fraction]:
        """Return the value of a product in each run."""
        found = []
        for run in range(len(next(iter(self.sizes.values())))):
            above = below = 1
            for name, power in product:
                if power < 0:
                    below *= self.sizes[name][run]
                else:
                    above *= self.sizes[name][run] ** power
            found.append(Fraction(above, below))
        return found

    def _ratios(self, values: list[Fraction]) -> _Ratios:
        first = values[0]
        return tuple(((v / first).numerator, (v / first).denominator) for v in values[1:])


def _has(text: str, name: str) -> bool:
    return name in re.split(r"[-+*/^()]", text)


def _written(factor: Fraction, product: _Product) -> str:
    above = [] if factor.numerator == 1 else [str(factor.numerator)]
    below = [] if factor.denominator == 1 else [str(factor.denominator)]
    for name, power in product:
        text = name if abs(power) == 1 else f"{name}^{abs(power)}"
        (above if power > 0 else below).append(text)
    return "/".join(["*".join(above) or "1", *below])
