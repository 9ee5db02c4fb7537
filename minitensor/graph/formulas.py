"""Formulas of names, such as "E/H", solved from the sizes of an axis in two runs."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from fractions import Fraction

TwoSizes = dict[str, tuple[int, int]]  # of names, now and in the varied run
_Product = tuple[tuple[str, int], ...]  # names with their powers


def base_of(name: str) -> str:
    """Return the name that a candidate stands for: H of "H?0"."""
    return name.partition("?")[0]


def _ratio(above: int, below: int) -> tuple[int, int]:
    divisor = math.gcd(above, below)
    return above // divisor, below // divisor


class Formulas:
    """Solves a size as a formula of the names, from the sizes of both in two runs."""

    def __init__(self, sizes: TwoSizes) -> None:
        self.sizes = sizes
        self._known: dict[tuple[int, int], str] = {}
        self._products: dict[tuple[int, int], list[_Product]] = defaultdict(list)
        named = [name for name in sizes if base_of(name)]
        for count in (1, 2, 3):
            for names in itertools.combinations(named, count):
                if len(set(map(base_of, names))) < count:
                    continue  # two candidates for one name
                for powers in itertools.product((1, -1, 2), repeat=count):
                    product = tuple(zip(names, powers, strict=True))
                    now, then = self._value(product, 0), self._value(product, 1)
                    self._products[_ratio(then[0] * now[1], then[1] * now[0])].append(product)

    def _value(self, product: _Product, run: int) -> tuple[int, int]:
        """Return numerator and denominator of a product in one run."""
        above = below = 1
        for name, power in product:
            if power < 0:
                below *= self.sizes[name][run]
            else:
                above *= self.sizes[name][run] ** power
        return above, below

    def of(self, now: int, then: int) -> str:
        """Return the formula of an axis, such as "E/nhead" or "3*E", or its size without one."""
        if (now, then) not in self._known:
            found = self._fitting(now, then) if now != then and now and then else []
            self._known[now, then] = found[0] if len(found) == 1 else str(now)
        return self._known[now, then]

    def _fitting(self, now: int, then: int) -> list[str]:
        """Return the formulas that hold in both runs."""
        exact = [name for name, two in self.sizes.items() if two == (now, then)]
        if exact:
            return exact
        found = []
        for product in self._products.get(_ratio(then, now), ()):
            above, below = self._value(product, 0)
            factor = Fraction(now * below, above)
            if factor.numerator == 1 or factor.denominator == 1:
                found.append(_written(factor, product))
        for name, (a, b) in self.sizes.items():
            if now - a == then - b != 0:
                found.append(f"{name}{now - a:+d}")
        for (x, (a, b)), (y, (c, d)) in itertools.combinations(self.sizes.items(), 2):
            if (now, then) == (a + c, b + d):
                found.append(f"{x}+{y}")
        return found


def _written(factor: Fraction, product: _Product) -> str:
    above = [] if factor.numerator == 1 else [str(factor.numerator)]
    below = [] if factor.denominator == 1 else [str(factor.denominator)]
    for name, power in product:
        text = name if abs(power) == 1 else f"{name}^{abs(power)}"
        (above if power > 0 else below).append(text)
    return "/".join(["*".join(above) or "1", *below])
