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
    """Names for sources of sizes: axes and settings, in the sets that `Ties` puts together."""

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
        self._check(given)
        graph.dims = dict(given)
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

    def name(self, source: Hashable) -> str | None:
        """Return the name, or candidate for one, of an axis or setting."""
        return self.sets.get(self.ties.find(source))

    def _call(self, name: str, size: int, source: Hashable) -> None:
        self.sets[self.ties.find(source)] = name
        self.sizes[name] = size

    def _check(self, given: Mapping[str, Any]) -> None:
        """ValueError for a size that is no size, or that no axis has."""
        seen = sorted({n for value in self.graph.values.values() for n in value.shape})
        for name, size in given.items():
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise ValueError(f"dims: {name}={size!r} is no size: give a whole number above 0")
            if not any(n % size == 0 for n in seen):
                known = ", ".join(map(str, seen))
                raise ValueError(f"dims: no axis has the size {name}={size}; the sizes are {known}")

    def _tie_masks(self) -> None:
        """Tie an input that steers the program, but reaches no output, to those of its sizes."""
        used = used_inputs(self.graph)
        sources = [(v, a) for v in self.graph.inputs for a in range(len(self._shape(v)))]
        for source in sources:
            alike = [s for s in sources if s[0] in used and self._size(s) == self._size(source)]
            sets = set(map(self.ties.find, alike))
            if source[0] not in used and len(sets) == 1:
                self.ties.join(source, sets.pop())

    def _shape(self, value: str) -> tuple[int, ...]:
        return self.graph.values[value].shape

    def _size(self, source: Any) -> int:
        return (
            self.settings[source] if isinstance(source, str) else self._shape(source[0])[source[1]]
        )

    def _declare(self, key: str, text: str) -> None:
        """Take the names of the axes of an input or a parameter, or the name of a setting."""
        graph, tokens = self.graph, text.split()
        found = [v for v in graph.inputs if key in graph.values[v].names]
        found += [v for v in (f"parameter:{key}", f"buffer:{key}") if v in graph.values]
        sources: list[Any] = [(v, a) for v in found for a in range(len(self._shape(v)))]
        if not found:
            paths = [p for p in self.settings if p == key or p.endswith(f".{key}")]
            sources = [source for source in paths if self._size(source) == self._size(paths[0])]
            tokens *= len(sources) if len(tokens) == 1 else 1
        if not sources and not found:
            names = [graph.values[v].name for v in graph.inputs]
            raise ValueError(
                f"dims: {key}={text!r}: no input, parameter or setting is called {key!r}, and "
                f"{text!r} is no size; the inputs are {', '.join(names) or 'none'}"
            )
        if len(tokens) != len(sources):
            shape = self._shape(found[0]) if found else self._size(sources[0])
            raise ValueError(f"dims: {key}={text!r} does not fit {key}, whose size is {shape}")
        for token, source in zip(tokens, sources, strict=True):
            size = self._size(source)
            if token in ("_", "1", str(size)):
                continue
            if not token.isidentifier():
                raise ValueError(f"dims: {key}={text!r}: {token!r} is no name for a size")
            if graph.dims.setdefault(token, size) != size:
                raise ValueError(
                    f"dims: {token} is {graph.dims[token]} and, in {key}={text!r}, {size}"
                )
            self._give(token, size, source)

    def _give(self, name: str, size: int, source: Hashable) -> None:
        other = self.sets.get(self.ties.find(source), name)
        if other != name:
            raise ValueError(
                f"dims: {other} and {name} are one size: an op needs them to be equal; give it "
                "one name"
            )
        for root, known in list(self.sets.items()):
            if known == name:
                self.ties.join(root, source)
                del self.sets[root]
        self._call(name, size, source)

    def _find(self, size: int, names: list[str]) -> None:
        """Find the one set of axes and settings that each of the names of a size stands for."""
        sets = self._sets_of(size)
        free = {root: sources for root, sources in sets.items() if root not in self.sets}
        names = [name for name in names if name not in self.sizes]
        for name in list(names):
            called = [p for p, sources in free.items() if any(_is_called(s, name) for s in sources)]
            if called:
                names.remove(name)
            for root in called:
                self._give(name, size, free.pop(root)[0])
        axes = ((v.id, a) for v in self.graph.values.values() for a in range(len(v.shape)))
        tied = set(map(self.ties.find, axes)) if len(names) == 1 < len(free) else set()
        drawn = {root: sources for root, sources in free.items() if root in tied}
        if drawn:  # no number of layers, or of heads
            free = drawn
        if len(names) == len(free) == 1:
            self._give(names[0], size, next(iter(free)))
        elif len(names) == 1 and free:
            for number, (root, sources) in enumerate(free.items()):
                candidate = f"{names[0]}?{number}"
                self._call(candidate, size, root)
                self.candidates[candidate] = [_written(source) for source in sources]
        elif names and free:
            places = "; ".join(", ".join(map(_written, s)) for s in free.values())
            self.graph.notes.append(
                f"dims: {' and '.join(names)} are both {size}, so {places} stays a number. Give "
                "different sizes, or declare the axes."
            )

    def _sets_of(self, size: int) -> dict[Hashable, list[Any]]:
        """Return the sets of a size: of inputs and settings, or else of weights, or constants."""
        found: dict[Hashable, list[Any]] = defaultdict(list)
        for kinds in (("input",), ("parameter", "buffer"), ("constant",)):
            values = [v for v in self.graph.values.values() if v.kind in kinds]
            sources: list[Any] = [(v.id, a) for v in values for a in range(len(v.shape))]
            for source in [*sources, *(self.settings if "input" in kinds else ())]:
                if self._size(source) == size:
                    found[self.ties.find(source)].append(source)
            if found:
                break
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
        """Return the settings that may have to divide a size, such as heads a width."""
        sizes, size = self.sizes, self.sizes[name]
        found = [n for n in others if size % sizes[n] == 0 and 1 < sizes[n] < size]
        least = {sizes[n] for n in found}
        return [n for n in found if not any(sizes[n] % m == 0 and m < sizes[n] for m in least)]


def _is_called(source: Any, name: str) -> bool:
    """Return True for a setting that the program itself gives that name."""
    last = source.rpartition(".")[2] if isinstance(source, str) else ""
    return last == name or last.endswith(f"_{name}")


def _written(source: Any) -> str:
    return (
        source if isinstance(source, str) else f"axis {source[1]} of {source[0].partition(':')[2]}"
    )


# The varied run


def _run_varied(
    names: _Names,
    formulas: Formulas,
    program: Program,
    known: Callable[[Tensor], str | None],
    record: Callable[[Program], Graph],
) -> tuple[Graph, str]:
    """Run a copy at other sizes; return its graph, and the reason if it does not run at them."""
    least = min((then for _, then in formulas.sizes.values()), default=2)

    def size(source: Hashable, otherwise: int) -> int:
        two = formulas.sizes.get(names.name(source) or "")
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
    found = dict(_keyed(other))
    labels: dict[str, list[str]] = {}
    for key, value in _keyed(graph):
        twin = found.get(key)
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
    """Return a label with names for its candidates, or the size if one is not certain."""
    label = re.sub(r"\w*\?\d+", lambda found: certain.get(found[0], found[0]), label)
    return str(size) if "?" in label else label


def _note_fixed(graph: Graph, why: str) -> None:
    """Note the numbers that are left because the program did not run again."""
    made = {v for n in graph.nodes.values() if n.direction == "forward" for v in n.outputs}
    labels = {label for key in made for label in graph.values[key].dims}
    left = {int(label) for label in labels if label.isdigit() and int(label) > 1}
    if left:
        graph.notes.append(
            f"dims: axes of {', '.join(map(str, sorted(left)))} stay numbers: the program could "
            f"not run at other sizes: {why}"
        )


def _keyed(graph: Graph) -> Iterator[tuple[Any, Value]]:
    """Yield every value with a key that it has in each run: by line and count, not by id."""
    counts: Counter[Any] = Counter()
    for value in graph.values.values():
        if value.producer is None and value.kind != "gradient":
            yield value.id, value
    found: dict[str, Any] = {}  # the key of each node
    for node in graph.nodes.values():
        where: Any
        if node.of is not None:  # a loop is walked back in the other order
            where = ("backward", found[node.of])
        elif node.inside is not None and node.inside in found:
            where = (found[node.inside], node.op)
        else:
            where = (node.group, node.op, node.direction, node.source, node.origin)
        counts[where] += 1
        at = found[node.id] = (where, counts[where])
        mine = [v for v in map(graph.values.get, (*node.outputs, *node.saved)) if v is not None]
        for key in dict.fromkeys(v.id for v in mine if v.producer == node.id):
            yield (at, key.removeprefix(node.id)), graph.values[key]
        for number, key in enumerate(node.inputs):
            value = graph.values[key]
            if value.kind == "gradient" and value.producer is None:
                yield (at, "in", number), value
