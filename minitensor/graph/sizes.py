"""Other sizes for a program: such that it may still run, and that no two grow alike."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence

PRIMES = [n for n in range(2, 5000) if all(n % p for p in range(2, math.isqrt(n) + 1))]
_SMALL = 64  # a size up to here becomes larger in one of the runs: an op may fill up to a block
_FEW = 32  # equal numbers up to here may be heads, and groups of heads


def other_sizes(
    sizes: Mapping[str, int],
    settings: Collection[str],
    fixed: Collection[str],
    divided: Collection[tuple[str, str]],
    before: Mapping[str, int],
    growing: Collection[str],
    choice: int = 0,
    heads: bool = False,
    last_first: bool = False,
) -> dict[str, int]:
    """Return another size for each name: a prime, times what may have to divide it.

    A setting stays greater than what is less and no setting, as a context is longer than a text. It
    stays a multiple of those that divide it in a constructor: `divided` has pairs, the divisor
    last. With `heads`, it stays a multiple too of a setting that divides it now and is small beside
    it; of equal ones the later is a multiple of the earlier, or the other way round with
    `last_first`. The `fixed` keep their size, the `growing` become larger by one, and a smaller
    setting stays smaller than they are, as the experts that are chosen are fewer than all. The
    sizes are small, and others than those `before`, after which small ones are larger than they
    were; each `choice` has others.
    """
    found = {name: sizes[name] for name in sizes if name in fixed}
    found |= {name: before.get(name, sizes[name]) + 1 for name in growing if name not in found}
    order = [name for name in sizes if name not in found]
    if last_first:
        order.reverse()
    ratios: set[int] = set()
    for number, name in enumerate(sorted(order, key=lambda name: sizes[name])):
        size, factor, rest, parts, least = sizes[name], 1, sizes[name], list[str](), 2
        if name in settings:
            others = [
                n
                for n in found
                if n in settings
                and _divides(n, name, sizes)
                and ((heads and n not in growing) or (name, n) in divided)
            ]
            parts = [n for n in others if not _divided(n, others, sizes)]
            factor = math.lcm(*(found[n] for n in parts))
            rest = size // math.lcm(*(sizes[n] for n in parts))
            inputs = [n for n in found if n not in settings and sizes[n] < size]
            least = max((found[n] for n in inputs), default=2)
        factor *= math.gcd(rest, 2)  # halves stay whole
        if not parts:
            least = max(least, before.get(name, 2))
        if before and size <= _SMALL:
            least = max(least, size)
        taken = {size, before.get(name), *found.values()}
        larger = [found[n] for n in growing if n in settings and sizes[n] > size]
        most = min(larger) if larger and name in settings else None
        old = {n: (size // sizes[n], before and before[name] // before[n]) for n in parts}
        for step, below in ((factor, most), (factor if parts else 1, most), (factor, None)):
            fitting = (
                then
                for then in (prime * step for prime in PRIMES)
                if then > least
                and (below is None or then < below)
                and then not in taken
                and all(then // found[n] not in (*old[n], *ratios) for n in parts)
            )
            if chosen := list(itertools.islice(fitting, 1 + (choice >> number & 1))):
                break
        then = (chosen or [PRIMES[-1] * factor])[-1]
        found[name] = then
        ratios.update(then // found[n] for n in parts)
    return found


def are_apart(columns: Collection[Sequence[int]]) -> bool:
    """Return True if no simple formula of some sizes is one of others, in all runs alike."""
    seen: set[tuple[float, ...]] = set()
    found = list(columns)
    formulas = [[n * factor for n in x] for x in found for factor in (1, 2, 3, 4, 0.5)]
    for x, y in itertools.permutations(found, 2):
        quotient = [a / b for a, b in zip(x, y, strict=True)]
        formulas += [quotient, [n / 2 for n in quotient]]
    for formula in map(tuple, formulas):
        if formula in seen:
            return False
        seen.add(formula)
    steps = {tuple(n - x[0] for n in x[1:]) for x in found}
    return len(steps) == len(found)


def _divides(n: str, name: str, sizes: Mapping[str, int]) -> bool:
    """Return True if the setting `n` divides another, and may be a number of heads or groups."""
    part, size = sizes[n], sizes[name]
    if part < 2 or size % part:
        return False
    return size <= _FEW if part == size else part * part <= 4 * size


def _divided(n: str, others: Collection[str], sizes: Mapping[str, int]) -> bool:
    """Return True if a multiple of `n` is among the others."""
    return any(sizes[m] % sizes[n] == 0 and sizes[m] > sizes[n] for m in others)
