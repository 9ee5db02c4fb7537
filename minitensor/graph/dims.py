"""Names for the sizes of axes: right, or none.

An axis gets a name because it follows that size: the same program runs twice more with other sizes,
on a copy of the module, and each axis is solved as a product of powers of the sizes that were
varied. What is varied is every axis of an input, and every setting a module was made with, that has
the size of a name. Which of those are one size is found by trying: what can change alone is a size
of its own.

A size that cannot be varied names the axes that have it if no other name has the same size. What
stays uncertain stays a number, and the graph's notes say why.
"""

from __future__ import annotations

import functools
import itertools
import math
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from fractions import Fraction
from typing import Any

from ..autograd import no_grad
from ..core import Tensor, wrap
from ..random import default_generator
from .model import Graph, Value
from .program import Program, Site

# Sizes of one run and of the other; they grow apart, so that no sum of one fits in both by chance.
_PRIMES = ((3, 7, 13, 19, 29, 37, 43, 53, 61, 71), (5, 11, 23, 31, 47, 59, 67, 79, 97, 109))
_ENOUGH = 11  # a size from here on may become smaller: no loop over it is expected
_LARGEST = 50_000  # of a program that is only run to see whether it runs
_TRIES = 48  # runs to find out which sites of one size belong together


def name_axes(
    graph: Graph,
    dims: dict[str, int],
    program: Program,
    record: Callable[[Program], Graph],
    again: bool = True,
) -> None:
    """Name the axes of all values of `graph` by `dims`, name -> size.

    `record` gives the graph of a program, if it may run `again`. ValueError for a name that is no
    whole number above 0, or whose size no axis has.
    """
    seen = sorted({n for value in graph.values.values() for n in value.shape})
    for name, size in dims.items():
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(f"dims: {name}={size!r} is no size: give a whole number above 0")
        if not any(n % size == 0 for n in seen):
            raise ValueError(
                f"dims: no axis has the size {name}={size}; the sizes are "
                f"{', '.join(map(str, seen))}"
            )
    graph.dims = dims
    start = default_generator.get_state()
    try:
        varied, runs = _vary(graph, dims, program, record) if again else ({}, [])
    finally:
        default_generator.set_state(start)
    _label(graph, dims, varied, runs)
    for note in graph.notes:
        warnings.warn(note, stacklevel=3)


# Which sizes there are


def _vary(
    graph: Graph, dims: dict[str, int], program: Program, record: Callable[[Program], Graph]
) -> tuple[dict[str, list[int]], list[Graph]]:
    """The names that can be varied, with their sizes in each run; and the graphs of these runs."""
    wanted = set(dims.values())
    try:
        sites = [site for site in program.sites() if site.size in wanted]
    except (TypeError, ValueError):
        return {}, []
    axes = [site for site in sites if site.axis is not None]
    for kept in (sites, axes):  # a module that cannot be made otherwise stays as it is
        spread = _Spread(program)
        groups = [[site for site in kept if site.size == n] for n in sorted(wanted)]
        groups = [group for group in groups if group]
        if groups and spread.begin(groups):
            classes = spread.split(groups)
            shows = functools.partial(spread.shows, groups=groups, record=record)
            named = _named(graph, dims, classes, shows)
            return _measured(named, spread, record)
    return {}, []


class _Spread:
    """Gives each class of sites a size of its own, and finds out what the classes are."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._multiples: set[tuple[Site, Site]] = set()  # the second must be one of the first

    def sizes(self, classes: Iterable[list[Site]], run: int = 0) -> dict[Site, int]:
        """New sizes: distinct primes, times what has to divide them."""
        found: dict[Site, int] = {}
        free = list(_PRIMES[run])
        tied = {site for pair in self._multiples for site in pair}  # they grow: small primes first
        for group in sorted(classes, key=lambda group: (tied.isdisjoint(group), group[0].size)):
            factor = math.lcm(*(found[a] for a, b in self._multiples if b in group and a in found))
            least = min(group[0].size, _ENOUGH)
            prime = next((p for p in free if p * factor >= least), free[-1])
            free.remove(prime)
            found.update(dict.fromkeys(group, prime * factor))
        return found

    def at(self, sizes: Mapping[Site, int]) -> Program:
        """The program with these sizes; an exception if they are refused."""
        if max(sizes.values(), default=0) > _LARGEST:
            raise ValueError("multiples of multiples have grown too large to run")
        made = self._program.remade(lambda site: sizes.get(site, site.size))
        smallest = min((n for site, n in sizes.items() if site.axis is None), default=None)
        if smallest is not None:  # tokens must stay inside a vocabulary that is smaller now
            made.inputs = tuple(_below(x, smallest) for x in made.inputs)
            made.options = {k: _below(x, smallest) for k, x in made.options.items()}
        return made

    def runs(self, classes: Iterable[list[Site]]) -> bool:
        """Whether the program runs with these classes apart."""
        try:
            program = self.at(self.sizes([group for group in classes if group]))
            with no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                program.run()
        except Exception:  # whatever a program does with sizes that do not fit
            return False
        return True

    def begin(self, groups: list[list[Site]]) -> bool:
        """Find what has to be a multiple of what, with all sites of one size taken together."""
        if self.runs(groups):
            return True
        numbers = [site for group in groups for site in group if site.axis is None]
        self._multiples = {
            (a, b) for a in numbers for b in numbers if a.size < b.size and b.size % a.size == 0
        }
        if not self.runs(groups):
            return False
        for large, small in itertools.product(reversed(groups), groups):
            self._need_few(small, large, groups)
        for pair in sorted(self._multiples, key=str):
            self._multiples.remove(pair)
            if not self.runs(_apart(groups, pair[1])):
                self._multiples.add(pair)
        return True

    def _need_few(self, small: list[Site], large: list[Site], groups: list[list[Site]]) -> None:
        """Let `large` be multiples of one site of `small`, or of none, if the program runs so.

        Each multiple that need not be makes the sizes larger, until nothing runs any more.
        """
        between = self._multiples & set(itertools.product(small, large))
        self._multiples -= between
        if not between or self.runs(groups):
            return
        for site in small:
            one = {pair for pair in between if pair[0] == site}
            self._multiples |= one
            if one and self.runs(_apart(groups, site)):
                return
            self._multiples -= one
        self._multiples |= between

    def split(self, groups: list[list[Site]]) -> list[list[Site]]:
        """The sites of each size, parted into what can change without the others."""
        classes: list[list[Site]] = []
        for number, group in enumerate(groups):
            others = groups[:number] + groups[number + 1 :]
            rest = group
            while rest:
                chosen = rest
                for part in itertools.islice(_choices(rest), _TRIES):
                    if len(part) == len(rest) or self.runs([*others, _without(group, part), part]):
                        chosen = part
                        break
                classes.append(chosen)
                rest = _without(rest, chosen)
        return classes

    def shows(
        self, group: list[Site], groups: list[list[Site]], record: Callable[[Program], Graph]
    ) -> bool:
        """Whether any tensor has the size of a class: a number of layers is the size of none."""
        if any(site.axis is not None for site in group):
            return True
        sizes = self.sizes(groups)
        larger = {site: 2 * n for site, n in sizes.items() if site in self._with_multiples(group)}
        try:
            one, two = (dict(_places(record(self.at(s)))) for s in (sizes, {**sizes, **larger}))
        except Exception:
            return True
        return any(k in two and two[k].shape != v.shape for k, v in one.items())

    def _with_multiples(self, group: list[Site]) -> list[Site]:
        """The sites of a class, and those that have to be its multiples."""
        found = list(group)
        for site in found:
            found += [b for a, b in self._multiples if a == site and b not in found]
        return found


def _choices(sites: list[Site]) -> Iterator[list[Site]]:
    """Sets of sites that hold the first, small ones first; all axes of inputs among the first."""
    first, *others = sites
    yield [first]
    axes = [site for site in sites if site.axis is not None]
    if first.axis is not None and len(axes) > 2:
        for size in (1, 2):
            for more in itertools.combinations([s for s in others if s.axis is not None], size):
                yield [first, *more]
        yield axes
    for size in range(1, len(others) + 1):
        for more in itertools.combinations(others, size):
            yield [first, *more]


def _apart(groups: list[list[Site]], site: Site) -> list[list[Site]]:
    return [*(_without(group, [site]) for group in groups), [site]]


def _without(sites: list[Site], taken: list[Site]) -> list[Site]:
    return [site for site in sites if site not in taken]


def _below(x: Any, limit: int) -> Any:
    if isinstance(x, Tensor) and x._array.dtype.kind in "iu":
        return wrap(x._array % limit)
    return x


def _named(
    graph: Graph,
    dims: dict[str, int],
    classes: list[list[Site]],
    shows: Callable[[list[Site]], bool],
) -> dict[str, list[Site]]:
    """The classes that have a name; what is ambiguous is noted and left out."""
    named: dict[str, list[Site]] = {}
    for size in sorted(set(dims.values())):
        names = [name for name, n in dims.items() if n == size]
        mine = [group for group in classes if group[0].size == size]
        for name in list(names):
            called = [group for group in mine if any(site.is_called(name) for site in group)]
            if called:
                named[name] = [site for group in called for site in group]
                names.remove(name)
                mine = [group for group in mine if group not in called]
        if names and len(mine) > 1:
            mine = [group for group in mine if shows(group)]
        if len(mine) == len(names) == 1:
            named[names[0]] = mine[0]
        elif names and mine:
            places = "; ".join(", ".join(map(str, group)) for group in mine)
            if len(names) > 1:
                graph.notes.append(_both(names, size, places))
            else:
                graph.notes.append(
                    f"dims: {names[0]}={size} may be any of these, so they stay numbers: {places}. "
                    "Give different sizes, or the settings' own names."
                )
            named.update({name: [] for name in names})
    return named


def _both(names: list[str], size: int, places: str) -> str:
    return (
        f"dims: {' and '.join(names)} are both {size}, so {places} stays a number. Give different "
        "sizes, or the settings' own names."
    )


def _measured(
    named: dict[str, list[Site]], spread: _Spread, record: Callable[[Program], Graph]
) -> tuple[dict[str, list[int]], list[Graph]]:
    """The sizes of the named classes in two runs, and the graphs of these runs."""
    unclear: dict[str, list[int]] = {name: [] for name, group in named.items() if not group}
    everything = {name: group for name, group in named.items() if group}
    alone = {name: group for name, group in everything.items() if spread.runs([group])}
    for chosen in (everything, alone):
        sizes = [spread.sizes(chosen.values(), run) for run in (0, 1)]
        try:
            runs = [record(spread.at(each)) for each in sizes]
        except Exception:
            continue
        found = {
            n: [group[0].size, *(run[group[0]] for run in sizes)] for n, group in chosen.items()
        }
        return {**unclear, **found}, runs
    return unclear, []


# What each axis follows


def _label(
    graph: Graph, dims: dict[str, int], varied: dict[str, list[int]], runs: list[Graph]
) -> None:
    """Give every axis the formula that holds in all runs, or leave its number."""
    fixed: dict[int, list[str]] = defaultdict(list)
    for name, size in dims.items():
        if name not in varied:
            fixed[size].append(name)
    formulas = _Formulas({name: varied[name] for name in dims if varied.get(name)})
    others = [dict(_places(run)) for run in runs]
    for place, value in _places(graph):
        found = [table[place].shape for table in others if place in table]
        if len(found) < len(runs) or any(len(s) != len(value.shape) for s in found):
            continue
        names = []
        for number, axis in enumerate(zip(value.shape, *found, strict=True)):
            n = axis[0]
            still = n > 1 and len(set(axis)) == 1
            if still and len(fixed[n]) == 1:
                names.append(fixed[n][0])
            else:
                names.append(formulas.of(axis) if runs else str(n))
            if still and len(fixed[n]) > 1:
                graph.notes.append(_both(fixed.pop(n), n, f"axis {number} of {value.id}"))
        value.dims = tuple(names)
    for value in graph.values.values():
        of = graph.values.get(value.of or "")
        if of is not None and of.shape == value.shape:
            value.dims = of.dims


def _places(graph: Graph) -> Iterator[tuple[Any, Value]]:
    """Every value with what it is in any run of the program: by line and count, not by number."""
    counts: Counter[Any] = Counter()
    for value in graph.values.values():
        if value.producer is None and value.kind != "gradient":
            yield value.id, value
    found: dict[str, Any] = {}  # the place of each node
    for node in graph.nodes.values():
        place: Any
        if node.of is not None:  # a loop is walked back in the other order
            place = ("backward", found[node.of])
        elif node.inside is not None and node.inside in found:
            place = (found[node.inside], node.op)
        else:
            place = (node.group, node.op, node.direction, node.source, node.origin)
        counts[place] += 1
        at = found[node.id] = (place, counts[place])
        mine = [v for v in map(graph.values.get, (*node.outputs, *node.saved)) if v is not None]
        for key in dict.fromkeys(v.id for v in mine if v.producer == node.id):
            yield (at, key.removeprefix(node.id)), graph.values[key]
        for number, key in enumerate(node.inputs):
            value = graph.values[key]
            if value.kind == "gradient" and value.producer is None:
                yield (at, "in", number), value


class _Formulas:
    """Finds what a size is of the sizes that were varied, given all of them in every run."""

    def __init__(self, sizes: dict[str, list[int]]) -> None:
        self._sizes = sizes
        self._known: dict[tuple[int, ...], str] = {}
        self._products: dict[tuple[Fraction, ...], tuple[tuple[str, int], ...]] = {}
        for count in range(4):
            for names in itertools.combinations(sizes, count):
                for powers in itertools.product((1, -1, 2), repeat=count):
                    values = self._values(tuple(zip(names, powers, strict=True)))
                    growth = tuple(v / values[0] for v in values)
                    self._products.setdefault(growth, tuple(zip(names, powers, strict=True)))

    def _values(self, product: tuple[tuple[str, int], ...]) -> list[Fraction]:
        runs = max((len(s) for s in self._sizes.values()), default=1)
        return [
            math.prod((Fraction(self._sizes[n][run]) ** p for n, p in product), start=Fraction(1))
            for run in range(runs)
        ]

    def of(self, axis: tuple[int, ...]) -> str:
        """The formula of an axis, such as "E/nhead" or "3*E"; its size where there is none."""
        if axis not in self._known:
            self._known[axis] = self._find(axis)
        return self._known[axis]

    def _find(self, axis: tuple[int, ...]) -> str:
        if len(set(axis)) == 1 or not all(axis):
            return str(axis[0])
        product = self._products.get(tuple(Fraction(n, axis[0]) for n in axis))
        if product:
            factor = axis[0] / self._values(product)[0]
            if factor.numerator == 1 or factor.denominator == 1:
                return _written(factor, product)
        offsets = {
            name: axis[0] - sizes[0]
            for name, sizes in self._sizes.items()
            if len({n - s for n, s in zip(axis, sizes, strict=True)}) == 1
        }
        if offsets:
            name = min(offsets, key=lambda name: abs(offsets[name]))
            return f"{name}{offsets[name]:+d}"
        for (a, first), (b, second) in itertools.combinations(self._sizes.items(), 2):
            if all(n == x + y for n, x, y in zip(axis, first, second, strict=True)):
                return f"{a}+{b}"
        return str(axis[0])


def _written(factor: Fraction, product: tuple[tuple[str, int], ...]) -> str:
    above = [] if factor.numerator == 1 else [str(factor.numerator)]
    below = [] if factor.denominator == 1 else [str(factor.denominator)]
    for name, power in product:
        text = name if abs(power) == 1 else f"{name}^{abs(power)}"
        (above if power > 0 else below).append(text)
    return "/".join(["*".join(above) or "1", *below])
