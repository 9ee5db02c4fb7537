"""Symbolic names for axis sizes. An axis that cannot be named with certainty keeps its number.

`dims` names the axes of inputs, {"x": "N L E"}, and sizes, {"E": 16}. A size is that of every input
axis and every setting that has it, if these must be equal: if ops tie them (`ties.py`), or if one
follows from the other in a constructor (`settings.py`). Then the program runs once more, on a copy
whose named sizes are others, and each axis is solved from its two sizes as a formula of names.
"""

from __future__ import annotations

import contextlib
import io
import math
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

from ..core import Tensor
from ..random import default_generator
from .formulas import Formulas, TwoSizes, base_of
from .model import Graph, Value
from .program import Program
from .ties import Ties, used_inputs

Dims = Mapping[str, int | str]

_PRIMES = [n for n in range(3, 300) if all(n % p for p in range(2, n))]
_ENOUGH = 11  # a size from here on may become smaller: no loop over it is expected


def name_axes(
    graph: Graph,
    dims: Dims,
    program: Program,
    known: Callable[[Tensor], str | None],
    record: Callable[[Program], Graph] | None,
) -> None:
    """Name the axes of all values of `graph` by `dims`.

    `known` gives the id of the value that a tensor is in the graph, `record` the graph of a copy of
    the program; it is None if a copy may not run. ValueError for a declaration that does not fit.
    """
    names = _Names(graph, dims, program, known)
    formulas, other, why = Formulas({}), Graph(""), "it changes tensors that were there before"
    if record is not None:
        formulas = names.varied()
        other, why = _run_varied(names, formulas, program, known, record)
    _label(graph, names, formulas if not why else Formulas({}), other)
    if why:
        _note_fixed(graph, why)
    for note in graph.notes:
        warnings.warn(note, stacklevel=3)


class _Names:
    """Which sizes have a name: sets of axes and settings, as `Ties` puts them together."""

    def __init__(
        self,
        graph: Graph,
        dims: Dims,
        program: Program,
        known: Callable[[Tensor], str | None],
    ) -> None:
        self.graph = graph
        self.ties = Ties(graph)
        self.sizes: dict[str, int] = {}  # of names, and of candidates for a name: "H?0", "H?1"
        self.sets: dict[Hashable, str] = {}  # the name, or candidate, of a set
        self.candidates: dict[str, list[str]] = {}  # where each candidate stands
        self.settings: dict[str, int] = {}
        with contextlib.suppress(TypeError, ValueError):  # a builtin without a signature
            self.settings, weights = program.settings()
            for t, paths in weights:
                for axis, path in enumerate(paths):
                    if path is not None and (value := known(t)) is not None:
                        self.ties.join((value, axis), path)
        self._tie_masks()
        declared = {key: text for key, text in dims.items() if isinstance(text, str)}
        given: dict[str, Any] = {name: size for name, size in dims.items() if name not in declared}
        graph.dims = self._check(given)
        for key, text in declared.items():
            self._declare(key, text)
        for size in sorted(set(given.values())):
            self._find(size, [name for name in given if given[name] == size])
        self._free_multiples()

    def _free_multiples(self) -> None:
        """Let settings without a name vary with the named ones that may have to divide them."""
        named = {self.sizes[n] for n in map(self.name, self.settings) if n is not None}
        for number, (path, size) in enumerate(self.settings.items()):
            divided = any(size % n == 0 and 1 < n < size for n in named)
            if divided and self.name(path) is None:
                self._call(f"?{number}", size, path)

    def name(self, site: Hashable) -> str | None:
        """The name, or candidate for one, of an axis or setting."""
        return self.sets.get(self.ties.find(site))

    def _call(self, name: str, size: int, site: Hashable) -> None:
        self.sets[self.ties.find(site)] = name
        self.sizes[name] = size

    def _check(self, given: Mapping[str, Any]) -> dict[str, int]:
        seen = sorted({n for value in self.graph.values.values() for n in value.shape})
        for name, size in given.items():
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise ValueError(f"dims: {name}={size!r} is no size: give a whole number above 0")
            if not any(n % size == 0 for n in seen):
                raise ValueError(
                    f"dims: no axis has the size {name}={size}; the sizes are "
                    f"{', '.join(map(str, seen))}"
                )
        return dict(given)

    def _tie_masks(self) -> None:
        """Tie an input that steers the program, but reaches no output, to those of its sizes."""
        used = used_inputs(self.graph)
        sites = [(v, a) for v in self.graph.inputs for a in range(len(self._shape(v)))]
        for site in sites:
            alike = [s for s in sites if s[0] in used and self._size(s) == self._size(site)]
            sets = set(map(self.ties.find, alike))
            if site[0] not in used and len(sets) == 1:
                self.ties.join(site, sets.pop())

    def _shape(self, value: str) -> tuple[int, ...]:
        return self.graph.values[value].shape

    def _size(self, site: Any) -> int:
        return self.settings[site] if isinstance(site, str) else self._shape(site[0])[site[1]]

    def _declare(self, key: str, text: str) -> None:
        """Take the names of the axes of an input or a parameter, or the name of a setting."""
        graph, tokens = self.graph, text.split()
        found = [v for v in graph.inputs if key in graph.values[v].names]
        found += [v for v in (f"parameter:{key}", f"buffer:{key}") if v in graph.values]
        sites: list[Any] = [(v, a) for v in found for a in range(len(self._shape(v)))]
        if not found:
            paths = [p for p in self.settings if p == key or p.endswith(f".{key}")]
            sites = [site for site in paths if self._size(site) == self._size(paths[0])]
            tokens *= len(sites) if len(tokens) == 1 else 1
        if not sites and not found:
            names = [graph.values[v].name for v in graph.inputs]
            raise ValueError(
                f"dims: {key}={text!r}: no input, parameter or setting is called {key!r}, and "
                f"{text!r} is no size; the inputs are {', '.join(names) or 'none'}"
            )
        if len(tokens) != len(sites):
            shape = self._shape(found[0]) if found else self._size(sites[0])
            raise ValueError(f"dims: {key}={text!r} does not fit {key}, whose size is {shape}")
        for token, site in zip(tokens, sites, strict=True):
            size = self._size(site)
            if token in ("_", "1", str(size)):
                continue
            if not token.isidentifier():
                raise ValueError(f"dims: {key}={text!r}: {token!r} is no name for a size")
            if graph.dims.setdefault(token, size) != size:
                raise ValueError(
                    f"dims: {token} is {graph.dims[token]} and, in {key}={text!r}, {size}"
                )
            self._give(token, size, site)

    def _give(self, name: str, size: int, site: Hashable) -> None:
        other = self.sets.get(self.ties.find(site), name)
        if other != name:
            raise ValueError(
                f"dims: {other} and {name} are one size: an op needs them to be equal; give it "
                "one name"
            )
        for place, known in list(self.sets.items()):
            if known == name:
                self.ties.join(place, site)
                del self.sets[place]
        self._call(name, size, site)

    def _find(self, size: int, names: list[str]) -> None:
        """Find the one set of axes and settings that each of the names of a size stands for."""
        sets = self._sets_of(size)
        free = {place: sites for place, sites in sets.items() if place not in self.sets}
        names = [name for name in names if name not in self.sizes]
        for name in list(names):
            called = [p for p, sites in free.items() if any(_is_called(s, name) for s in sites)]
            if called:
                names.remove(name)
            for place in called:
                self._give(name, size, free.pop(place)[0])
        axes = ((v.id, a) for v in self.graph.values.values() for a in range(len(v.shape)))
        tied = set(map(self.ties.find, axes)) if len(names) == 1 < len(free) else set()
        drawn = {place: sites for place, sites in free.items() if place in tied}
        if drawn:  # no number of layers, or of heads
            free = drawn
        if len(names) == len(free) == 1:
            self._give(names[0], size, next(iter(free)))
        elif len(names) == 1 and free:
            for number, (place, sites) in enumerate(free.items()):
                candidate = f"{names[0]}?{number}"
                self._call(candidate, size, place)
                self.candidates[candidate] = [_written_site(site) for site in sites]
        elif names and free:
            places = "; ".join(", ".join(map(_written_site, s)) for s in free.values())
            self.graph.notes.append(
                f"dims: {' and '.join(names)} are both {size}, so {places} stays a number. Give "
                "different sizes, or declare the axes."
            )

    def _sets_of(self, size: int) -> dict[Hashable, list[Any]]:
        """The sets of a size with what is in them: of inputs and settings, or else of weights."""
        values = self.graph.values
        kinds: list[list[Any]] = [[], [], []]
        for value in values.values():
            number = {"input": 0, "parameter": 1, "buffer": 1, "constant": 2}.get(value.kind)
            if number is not None:
                kinds[number] += [(value.id, a) for a, n in enumerate(value.shape) if n == size]
        kinds[0] += [path for path, n in self.settings.items() if n == size]
        found: dict[Hashable, list[Any]] = defaultdict(list)
        for site in next((sites for sites in kinds if sites), []):
            found[self.ties.find(site)].append(site)
        return found

    def varied(self) -> Formulas:
        """Choose another size for each name: a prime, times what may have to divide it.

        No two of them, or of their quotients and halves, grow by one number: L+1 fits one name.
        """
        settings = set(map(self.name, self.settings))
        found: TwoSizes = {}
        primes, steps = list(_PRIMES), {0}

        def rank(name: str) -> tuple[bool, bool, int, str]:
            """Put settings first, for the least primes: they grow with those that divide them."""
            return name[0] == "?", name not in settings, self.sizes[name], name

        for name in sorted(self.sizes, key=rank):
            size, parts, factor = self.sizes[name], list[str](), 1
            others = [n for n in found if base_of(n) == base_of(name) != ""]
            if others:  # another candidate: multiples of one number stay small together
                found[name] = size, found[others[0]][1] * 2 ** len(others)
                continue
            if name in settings:
                parts = self._divisors(name, [n for n in found if n in settings])
                rest = size // math.lcm(*(self.sizes[n] for n in parts))
                factor = math.lcm(*(found[n][1] for n in parts)) * math.gcd(rest, 2)  # for halves
            divisors = [(1, 1), *(found[n] for n in parts)]
            halves = (1, 2) if parts else (1,)
            for prime in primes:
                then = prime * factor
                grown = {then // b // k - size // a // k for a, b in divisors for k in halves}
                if then >= min(size, _ENOUGH) and steps.isdisjoint(grown):
                    break
            primes.remove(prime)
            steps |= grown
            found[name] = size, then
        order = [*self.graph.dims, *map(base_of, found)]
        return Formulas({n: found[n] for n in sorted(found, key=lambda n: order.index(base_of(n)))})

    def _divisors(self, name: str, others: list[str]) -> list[str]:
        """The settings that may have to divide a size, such as heads a width; the least of them."""
        size = self.sizes[name]
        found = [n for n in others if size % self.sizes[n] == 0 and 1 < self.sizes[n] < size]
        named = {self.sizes[n] for n in found if "?" not in n}
        found = [n for n in found if "?" not in n or self.sizes[n] not in named]
        sizes = [self.sizes[n] for n in found]
        return [
            n for n in found if not any(self.sizes[n] % m == 0 and m < self.sizes[n] for m in sizes)
        ]


def _is_called(site: Any, name: str) -> bool:
    """Whether a site is a setting that the program itself gives that name."""
    last = site.rpartition(".")[2] if isinstance(site, str) else ""
    return last == name or last.endswith(f"_{name}")


def _written_site(site: Any) -> str:
    return site if isinstance(site, str) else f"axis {site[1]} of {site[0].partition(':')[2]}"


# The varied run


def _run_varied(
    names: _Names,
    formulas: Formulas,
    program: Program,
    known: Callable[[Tensor], str | None],
    record: Callable[[Program], Graph],
) -> tuple[Graph, str]:
    """Run a copy at other sizes: its graph, or the reason that it does not run at them."""
    least = min((then for _, then in formulas.sizes.values()), default=2)

    def size(site: Hashable, otherwise: int) -> int:
        two = formulas.sizes.get(names.name(site) or "")
        return two[1] if two else otherwise

    def shapes(t: Tensor, shape: list[int]) -> list[int]:
        value = known(t)
        return shape if value is None else [size((value, a), n) for a, n in enumerate(shape)]

    start = default_generator.get_state()
    quiet = io.StringIO()
    try:
        with (
            contextlib.redirect_stdout(quiet),
            contextlib.redirect_stderr(quiet),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            return record(program.varied(size, shapes, least)), ""
    except Exception as error:  # whatever a program does with sizes that do not fit
        return Graph(""), " ".join(str(error).split()) or type(error).__name__
    finally:
        default_generator.set_state(start)


# The formula of each axis


def _label(graph: Graph, names: _Names, formulas: Formulas, other: Graph) -> None:
    """Give every axis the formula that holds in both runs, or the name that ops tie it to."""
    found = dict(_places(other))
    labels: dict[str, list[str]] = {}
    for place, value in _places(graph):
        twin = found.get(place)
        shape = value.shape if twin is None or len(twin.shape) != len(value.shape) else twin.shape
        labels[value.id] = [
            names.name((value.id, axis)) or str(n) if then == n else formulas.of(n, then)
            for axis, (n, then) in enumerate(zip(value.shape, shape, strict=True))
        ]
    shown = {c for c in names.candidates if any(c in "".join(dims) for dims in labels.values())}
    by_name = defaultdict(list)
    for candidate in sorted(names.candidates):
        by_name[base_of(candidate)].append(candidate)
    certain: dict[str, str] = {}
    for name, candidates in by_name.items():
        left = [c for c in candidates if c in shown] if formulas.sizes else candidates
        if len(left) == 1:
            certain[left[0]] = name
        elif left:
            places = "; ".join(", ".join(names.candidates[c]) for c in left)
            graph.notes.append(
                f"dims: {name}={graph.dims[name]} may be any of these, so they stay numbers: "
                f"{places}. Give different sizes, or declare the axes."
            )
    for key, dims in labels.items():
        value = graph.values[key]
        value.dims = tuple(
            _settled(label, n, certain) for label, n in zip(dims, value.shape, strict=True)
        )
    for value in graph.values.values():
        of = graph.values.get(value.of or "")
        if of is not None and of.shape == value.shape:
            value.dims = of.dims


def _settled(label: str, size: int, certain: Mapping[str, str]) -> str:
    """A label with the names of the candidates in it, or the size if one of them is not certain."""
    label = re.sub(r"\w*\?\d+", lambda found: certain.get(found[0], found[0]), label)
    return str(size) if "?" in label else label


def _note_fixed(graph: Graph, why: str) -> None:
    """Note what the numbers are for that are left because the program did not run again."""
    made = {v for n in graph.nodes.values() if n.direction == "forward" for v in n.outputs}
    labels = {label for key in made for label in graph.values[key].dims}
    left = {int(label) for label in labels if label.isdigit() and int(label) > 1}
    if left:
        graph.notes.append(
            f"dims: axes of {', '.join(map(str, sorted(left)))} stay numbers: the program could "
            f"not run at other sizes: {why}"
        )


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
