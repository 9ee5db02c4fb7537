"""Symbolic names for axis sizes. An axis that cannot be named with certainty keeps its number.

`dims` names the axes of inputs, {"x": "N L E"}, and sizes, {"E": 16}. A size is that of every input
axis and every setting that has it, if these must be equal: if ops tie them (`ties.py`), or if one
follows from the other in a constructor (`settings.py`). Then the program runs twice more, on copies
in which all sizes are others, those without a name too (`sizes.py`), and each axis is solved from
its three sizes as a formula of names.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import logging
import random
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from ..core import Tensor
from ..random import default_generator
from .formulas import Column, Formulas, base_of
from .model import Graph, Value
from .program import Program
from .settings import Settings
from .sized import last
from .sizes import PRIMES, are_apart, other_sizes
from .ties import Ties, used_inputs

Dims = Mapping[str, int | str]

_COMMON = {"num", "n", "dim", "size", "max", "number", "len", "length", "features", "in", "out"}
_RUNS = 2  # beside the recorded one
_LARGEST = 512, 4096  # sizes of inputs and settings in a varied run, unless there are larger ones


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
    runs = _Runs({}, frozenset(names.sizes), [], "it changes tensors that cannot be copied")
    if record is not None:
        runs = _run_varied(names, program, known, record)
    lost = _label(graph, names, runs)
    if not runs.graphs:
        _note_fixed(graph, runs.why)
    for note in graph.notes:  # what was asked for and could not be done
        warnings.warn(note, stacklevel=3)
    if runs.graphs:
        _note_numbers(graph, names, runs, lost)


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
        self.read = Settings()
        with contextlib.suppress(TypeError, ValueError):  # a builtin without a signature
            self.read = program.settings()
        self.settings = self.read.sizes
        self.weights: dict[str, frozenset[str]] = {}  # the settings that their shapes follow from
        self._tie_weights(known)
        self._tie_masks()
        declared = {key: text for key, text in dims.items() if isinstance(text, str)}
        given: dict[str, Any] = {name: size for name, size in dims.items() if name not in declared}
        self._check(given)
        graph.dims = dict(given)
        for key, text in declared.items():
            self._declare(key, text)
        for size in sorted(set(given.values())):
            self._find(size, [name for name in given if given[name] == size])
        self.nameless: dict[str, list[Any]] = {}  # where sizes without a name stand
        self._call_the_rest()

    def _tie_weights(self, known: Callable[[Tensor], str | None]) -> None:
        """Tie the axes of weights to the settings that they are."""
        probes = [
            {path: n * p for (path, n), p in zip(self.settings.items(), primes, strict=False)}
            for primes in (PRIMES, PRIMES[len(self.settings) :: -1])
        ]
        paths: dict[Any, str | None] = {}
        for path in self.settings:
            both = tuple(probe.get(path) for probe in probes)
            paths[both] = None if both in paths else path
        shapes = zip(*map(self.read.shapes, probes), strict=True)
        for (t, first), (_, second) in shapes:
            value, of = known(t), self.read.depends(t)
            if value is None or of is None:
                continue
            self.weights[value] = of
            for axis, both in enumerate(zip(first, second, strict=True)):
                if (tied := paths.get(both)) is not None:
                    self.ties.join((value, axis), tied)

    def _call_the_rest(self) -> None:
        """Give the axes of inputs, and settings, that have no name a sign to be varied by."""
        axes = ((v, a) for v in self.graph.inputs for a in range(len(self._shape(v))))
        for source in (*axes, *self.settings):
            if self._size(source) > 1:
                if self.name(source) is None:
                    self._call(f"?{len(self.nameless)}", self._size(source), source)
                    self.nameless[self.sets[self.ties.find(source)]] = []
                if (name := self.name(source)) in self.nameless:
                    self.nameless[str(name)].append(source)

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

    def entry(self, sign: str, letters: list[str]) -> tuple[str, str, str]:
        """Return where a size without a name stands, and an entry of `dims` that names it.

        A letter that it takes is removed from `letters`.
        """
        sources = self.nameless[sign]
        paths = [source for source in sources if isinstance(source, str)]
        if paths:
            path = min(paths, key=len)
            parts = [part for part in last(path).split("_") if part not in _COMMON]
            initials = [part[0].upper() for part in parts if part[:1].isalpha()]
            letter = next((c for c in initials if c in letters), None)
            if letter is None:
                return last(path), last(path), last(path)
            letters.remove(letter)
            return last(path), last(path), letter
        value, axis = sources[0]
        name = self.graph.values[value].name
        texts = []
        for a, n in enumerate(self._shape(value)):
            called = self.name((value, a))
            if called is not None and called not in self.nameless and "?" not in called:
                texts.append(called)
            else:
                texts.append(letters.pop(0) if n > 1 and called is not None and letters else "_")
        return f"axis {axis} of {name}", name, " ".join(texts)

    def first(self, candidate: str) -> str:
        """Return the first candidate for the same name."""
        return min(c for c in self.candidates if base_of(c) == base_of(candidate))

    def of_inputs(self) -> set[str | None]:
        """Return the names, and candidates for one, of the axes of inputs."""
        axes = ((v, a) for v in self.graph.inputs for a in range(len(self._shape(v))))
        return set(map(self.name, axes))

    def places(self) -> dict[str, frozenset[str]]:
        """Return the settings that each name or sign is the size of."""
        found = defaultdict[str, set[str]](set)
        for path in self.settings:
            if (name := self.name(path)) is not None:
                found[name].add(path)
        return {name: frozenset(paths) for name, paths in found.items()}


def _is_called(source: Any, name: str) -> bool:
    """Return True for a setting that the program itself gives that name."""
    last = source.rpartition(".")[2] if isinstance(source, str) else ""
    return last == name or last.endswith(f"_{name}")


def _written(source: Any) -> str:
    return (
        source if isinstance(source, str) else f"axis {source[1]} of {source[0].partition(':')[2]}"
    )


# The varied runs


@dataclasses.dataclass(frozen=True)
class _Runs:
    """The program at other sizes."""

    sizes: dict[str, Column]  # of names, in all runs
    fixed: frozenset[str]  # names whose sizes were not varied
    graphs: list[Graph]
    why: str = ""  # all sizes could not be varied
    joined: bool = False  # True if the candidates for one name had one size


def _run_varied(
    names: _Names,
    program: Program,
    known: Callable[[Tensor], str | None],
    record: Callable[[Program], Graph],
) -> _Runs:
    """Run copies at other sizes; return them, or none with the reason.

    Sizes without a name are varied as well, if the program runs so: what depends on them must not
    be taken for a formula of names.
    """
    why = ""
    tried: list[Any] = []
    for way in _ways(names):
        columns, fixed = _columns(names, way)
        if (columns, way.joined) in tried or not way.fits(names, columns):
            continue
        tried.append((columns, way.joined))
        graphs: list[Graph] = []
        for sizes in columns:
            other, error = _run(names, sizes, program, known, record)
            if error:
                why = error
                break
            graphs.append(other)
        else:
            order = [*names.graph.dims, *map(base_of, names.sizes)]
            called = sorted(names.sizes, key=lambda name: order.index(base_of(name)))
            every = {n: (names.sizes[n], *(c[n] for c in columns)) for n in called}
            return _Runs(every, fixed, graphs, why, way.joins_candidates)
    return _Runs({}, frozenset(names.sizes), [], why)


@dataclasses.dataclass(frozen=True)
class _Way:
    """A way to vary sizes."""

    joined: Mapping[str, str]  # names that get the size of another
    fixed: frozenset[str] = frozenset()
    heads: bool = True
    last_first: bool = False
    joins_candidates: bool = False

    def fits(self, names: _Names, columns: list[dict[str, int]]) -> bool:
        """Return False for sizes so large that a run would take long, and if nothing is joined."""
        inputs = names.of_inputs()
        most = {n: max(_LARGEST[n not in inputs], size) for n, size in names.sizes.items()}
        small = all(size <= most[n] for sizes in columns for n, size in sizes.items())
        return small and (not self.joins_candidates or bool(names.candidates))


def _ways(names: _Names) -> Iterator[_Way]:
    """Yield ways to vary sizes, until one runs.

    First all of them apart; then the candidates for a name together, which were not free apart, so
    they are one size: tokens and targets; then equal ones without a name, as the sides of an image;
    then the same with settings that stay multiples of others. At last, those without a name stay.
    """
    alike: dict[int, str] = {}
    sides = {name: alike.setdefault(names.sizes[name], name) for name in names.nameless}
    together = {name: names.first(name) for name in names.candidates}
    sizes = {names.sizes[first]: first for first in together.values()}
    more = {n: sizes[names.sizes[n]] for n in names.nameless if names.sizes[n] in sizes}
    for heads in (False, True):
        yield _Way({}, heads=heads)
        yield _Way(together, heads=heads, joins_candidates=True)
        yield _Way(sides, heads=heads)
        yield _Way({**sides, **more, **together}, heads=heads, joins_candidates=True)
    yield _Way({}, last_first=True)
    yield _Way({}, _idle(names))


def _idle(names: _Names) -> frozenset[str]:
    """Return the sizes without a name that need not vary when the named ones do."""
    places = names.places()
    named = [names.sizes[n] for n in places if n not in names.nameless and names.sizes[n] > 1]
    multiples = {n for n in places if any(names.sizes[n] % size == 0 for size in named)}
    return frozenset(names.nameless.keys() - multiples)


def _columns(names: _Names, way: _Way) -> tuple[list[dict[str, int]], frozenset[str]]:
    """Return the sizes of all names in each run, and the names whose sizes stay."""
    fixed = way.fixed
    columns: list[dict[str, int]] = []
    for choice in range(64):
        columns = []
        while len(columns) < _RUNS:
            before = columns[-1] if columns else {}
            sizes, more = _sizes_for(names, way, fixed, before, choice)
            columns = [*columns, sizes] if more == fixed or not columns else []
            fixed = more
        own = [n for n in names.sizes if n not in {*fixed, *way.joined}]
        if are_apart({(names.sizes[n], *(c[n] for c in columns)) for n in own}):
            break
    return columns, fixed


def _sizes_for(
    names: _Names,
    way: _Way,
    fixed: frozenset[str],
    before: Mapping[str, int],
    choice: int,
) -> tuple[dict[str, int], frozenset[str]]:
    """Return sizes for a run at which constructors would do what they did, and those left."""
    joined, places = way.joined, names.places()
    of = {path: name for name, paths in places.items() for path in paths}
    group = {name: joined.get(name, name) for name in names.sizes}
    divided = {(group[of[a]], group[of[b]]) for a, b in names.read.reader.divided}
    grown = names.read.growing()
    growing = {group[of[path]] for path in grown}
    fixed |= {of[path] for path in names.read.counted() - grown}
    while True:
        own = {g: names.sizes[g] for g in dict.fromkeys(group.values())}
        still = {group[name] for name in fixed}
        settings = {group[name] for name in places}
        found = other_sizes(
            own, settings, still, divided, before, growing, choice, way.heads, way.last_first
        )
        sizes = {name: found[group[name]] for name in names.sizes}
        fixed |= {name for name in group if group[name] in still}
        broken = {of[p] for p in names.read.broken({p: sizes[of[p]] for p in of})} - fixed
        if not broken:
            return sizes, fixed
        fixed |= (broken & names.nameless.keys()) or broken


def _run(
    names: _Names,
    sizes: Mapping[str, int],
    program: Program,
    known: Callable[[Tensor], str | None],
    record: Callable[[Program], Graph],
) -> tuple[Graph, str]:
    """Run a copy at other sizes; return its graph, and the reason if it does not run."""

    def size(source: Hashable, otherwise: int) -> int:
        return sizes.get(names.name(source) or "", otherwise)

    def shapes(t: Tensor, shape: list[int]) -> list[int]:
        value = known(t)
        return shape if value is None else [size((value, a), n) for a, n in enumerate(shape)]

    settings = {path: size(path, n) for path, n in names.settings.items()}
    pairs = [(n, settings[path]) for path, n in names.settings.items()]

    def least(most: int) -> int:
        """Return a number of tokens that exists, where `most` was the greatest."""
        return min((then for n, then in pairs if n > most), default=most + 1)

    try:
        with _quiet():
            return record(program.varied(names.read, settings, shapes, least)), ""
    except Exception as error:  # whatever a program does with sizes that do not fit
        return Graph(""), " ".join(str(error).split()) or type(error).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Let nothing be printed, logged, warned of or drawn from the generators."""
    start, python, arrays = default_generator.get_state(), random.getstate(), np.random.get_state()
    disabled, quiet = logging.root.manager.disable, io.StringIO()
    try:
        logging.disable(logging.CRITICAL)
        with (
            contextlib.redirect_stdout(quiet),
            contextlib.redirect_stderr(quiet),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        default_generator.set_state(start)
        random.setstate(python)
        np.random.set_state(arrays)


# The formula of each axis


def _label(graph: Graph, names: _Names, runs: _Runs) -> dict[str, set[int]]:
    """Give every axis the formula that holds in all runs, or the name that ops tie it to.

    Return the sizes without a name, by sign, with the numbers that they left: "?3": {4, 8}. The
    sign "" has numbers that change with the sizes, but are no formula of them, "=" those that do
    not change.
    """
    columns = {n: column for n, column in runs.sizes.items() if n not in runs.fixed}
    if runs.joined:
        firsts = {columns[first]: first for first in map(names.first, names.candidates)}
        columns = {n: column for n, column in columns.items() if firsts.get(column, n) == n}
    apart = {column: name for name, column in reversed(columns.items()) if name in names.nameless}
    columns = {n: c for n, c in columns.items() if n not in names.nameless or apart[c] == n}
    fixed = [names.sizes[name] for name in runs.fixed]
    formulas = Formulas(columns, [*fixed, *names.read.loose])
    certain = _certain(graph, names, runs)
    counts = set(map(names.name, names.read.growing()))
    growing = [column for name, column in runs.sizes.items() if name in counts]
    twins = _Twins(graph, runs.graphs, growing)
    labels: dict[str, list[str]] = {}
    lost = defaultdict[str, set[int]](set)
    for value in graph.values.values():
        shapes = twins.shapes(value)
        labels[value.id] = []
        for axis, n in enumerate(value.shape):
            source = (value.id, axis)
            name, label = names.name(source), str(n)
            if not shapes or name in runs.fixed:  # what ops tie it to is all that is known
                label = name or label
                if runs.graphs and n > 1 and name is None and value.kind != "gradient":
                    lost[""].add(n)
            elif any(shape[axis] != n for shape in shapes):
                column = (n, *(shape[axis] for shape in shapes))
                found = formulas.of(column, names.ties.find(source) in certain)
                label = found or label
                if found is None:
                    lost[""].add(n)
            elif n > 1 and value.kind in ("activation", "parameter"):
                lost["="].add(n)
            labels[value.id].append(label)
    shown = {c for c in names.candidates if any(c in "".join(dims) for dims in labels.values())}
    by_name = defaultdict(list)
    for candidate in sorted(names.candidates):
        by_name[base_of(candidate)].append(candidate)
    settled: dict[str, str] = {}
    for name, candidates in by_name.items():
        left = [c for c in candidates if c in shown] if runs.graphs else candidates
        if runs.joined:
            settled |= dict.fromkeys(candidates, name)
        elif len(left) == 1:
            settled[left[0]] = name
        elif left:
            places = "; ".join(", ".join(names.candidates[c]) for c in left)
            graph.notes.append(
                f"dims: {name}={graph.dims[name]} may be any of these, so they stay numbers: "
                f"{places}. Give different sizes, or declare the axes."
            )
    for key, dims in labels.items():
        value = graph.values[key]
        for text, n in zip(dims, value.shape, strict=True):
            for sign in re.findall(r"(?<!\w)\?\d+", text):
                lost[sign].add(n)
        value.dims = tuple(
            _settled(label, n, settled) for label, n in zip(dims, value.shape, strict=True)
        )
    for value in graph.values.values():
        of = graph.values.get(value.of or "")
        if of is not None and of.shape == value.shape:
            value.dims = of.dims
    return lost


def _certain(graph: Graph, names: _Names, runs: _Runs) -> set[Hashable]:
    """Return the sets with an axis whose factor an op gives it, or varied settings alone."""
    multiples = map(names.ties.find, names.ties.multiples)
    varied = {path for path in names.settings if names.name(path) not in runs.fixed}
    weights = (value for value, of in names.weights.items() if of <= varied)
    axes = ((value, axis) for value in weights for axis in range(len(graph.values[value].shape)))
    return {*multiples, *map(names.ties.find, axes)}


def _settled(label: str, size: int, certain: Mapping[str, str]) -> str:
    """Return a label with names for its candidates, or the size if one is not certain."""
    label = re.sub(r"\w*\?\d+", lambda found: certain.get(found[0], found[0]), label)
    return str(size) if "?" in label else label


# Notes


def _note_fixed(graph: Graph, why: str) -> None:
    """Note the numbers that are left because the program did not run again."""
    made = {v for n in graph.nodes.values() if n.direction == "forward" for v in n.outputs}
    labels = {label for key in made for label in graph.values[key].dims}
    left = {int(label) for label in labels if label.isdigit() and int(label) > 1}
    if left:
        graph.notes.append(
            f"dims: axes of {_listed(left)} stay numbers: the program could not run at other "
            f"sizes: {why}"
        )


def _note_numbers(graph: Graph, names: _Names, runs: _Runs, lost: Mapping[str, set[int]]) -> None:
    """Note the numbers that depend on sizes, each size once, and how they get names."""
    shown = {int(x) for value in graph.values.values() for x in value.dims if x.isdigit()}
    texts, entries = [], dict[str, str]()
    letters = [c for c in "LSTABCDEFGHIJKMNOPQRUVWXYZ" if c not in graph.dims]
    for sign in names.nameless:
        left = lost.get(sign, set()) & shown
        if left:
            where, key, names_of_it = names.entry(sign, letters)
            texts.append(f"{_listed(left)} ({where})")
            entries.setdefault(key, names_of_it)
    if texts:
        entry = ", ".join(f'"{key}": "{text}"' for key, text in entries.items())
        graph.notes.append(
            f"dims: some sizes have no name and stay numbers: {', '.join(texts)}. Name those you "
            f"want to see: dims={{{entry}}}."
        )
    left = (lost.get("", set()) | lost.get("=", set())) & shown
    counted = names.read.counted()
    for among, text in (
        (counted, "decides what modules there are"),
        (names.settings.keys() - counted, "cannot change alone"),
    ):
        held = [p for p in among if names.name(p) in runs.fixed and names.settings[p] > 1]
        touched = {n for n in left if any(n % names.settings[p] == 0 for p in held)} | (
            lost.get("", set()) & shown if held else set()
        )
        if touched and held:
            sizes = " and ".join(f"{path}={names.settings[path]}" for path in sorted(held))
            graph.notes.append(
                f"dims: {sizes} {text}, so numbers that may follow from it stay numbers: "
                f"{_listed(touched)}."
            )
            left = left - touched
    left = left & lost.get("", set())
    if left:
        graph.notes.append(
            "dims: some numbers change with the sizes, but are no formula of their names: "
            f"{_listed(left)}."
        )


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))


# The same value in two runs


class _Twins:
    """Finds the values of a graph in the graphs of other runs, by line and count, not by id.

    `growing` has the lengths of lists of modules in all runs, which grow at their end. A line in a
    loop over another size runs another number of times: its turns have twins if they make shapes in
    the same pattern: as many stretches of equal shapes, or shapes that come again and again.
    """

    def __init__(self, graph: Graph, others: list[Graph], growing: Collection[Column]) -> None:
        self._keys = {value.id: key for key, value in _keyed(graph)}
        self._found = [dict(_keyed(other)) for other in others]
        turns = self._turns = [_turns(found) for found in (dict(_keyed(graph)), *self._found)]
        # Of equal parts of a tensor there are as many as a size says: the first stands for them.
        self._parts = {
            v: node.outputs[0].removeprefix(node.id)
            for node in graph.nodes.values()
            for v in node.outputs[1:]
            if graph.values[v].shape == graph.values[node.outputs[0]].shape
        }
        self._stretches: dict[Any, list[tuple[int, ...]] | None] = {}
        for port, shapes in turns[0].items():
            several = [found.get(port, []) for found in turns[1:]]
            counts = [len(found) for found in several]
            layers = any(
                [n * column[0] for n in counts] == [len(shapes) * m for m in column[1:]]
                for column in growing
            )
            if any(n != len(shapes) for n in counts) and not layers:
                self._stretches[port] = _matched(shapes, several)

    def shapes(self, value: Value) -> list[tuple[int, ...]]:
        """Return the shapes of a value in the other runs, none if it is not in all of them."""
        key = self._keys.get(value.id)
        if key is None:
            return []
        first = self._parts.get(value.id)
        if first and any((key[0][0], *key[1:]) not in turns for turns in self._turns[1:]):
            key = (key[0], first)
        keys = [key] * len(self._found)
        if isinstance(key, tuple) and (port := (key[0][0], *key[1:])) in self._stretches:
            turns = self._stretches[port]
            if turns is None:
                return []
            keys = [((key[0][0], n + 1), *key[1:]) for n in turns[key[0][1] - 1]]
        twins = [found.get(key) for found, key in zip(self._found, keys, strict=True)]
        found = [twin.shape for twin in twins if twin is not None]
        alike = len(found) == len(twins) and all(len(s) == len(value.shape) for s in found)
        return found if alike else []


def _turns(values: Mapping[Any, Value]) -> dict[Any, list[tuple[int, ...]]]:
    """Return the shapes that each output of a line had, turn by turn."""
    found = defaultdict[Any, list[tuple[int, ...]]](list)
    for key, value in values.items():
        if isinstance(key, tuple):
            (where, count), *port = key
            turns = found[(where, *port)]
            turns += [()] * (count - 1 - len(turns))  # those that had no such output
            turns.append(value.shape)
    return dict(found)


def _matched(
    shapes: list[tuple[int, ...]], others: list[list[tuple[int, ...]]]
) -> list[tuple[int, ...]] | None:
    """Return, for each turn, the turn of each other run that is its twin; None if it is not clear.

    The turns match if all runs have as many stretches of equal shapes, or one period.
    """
    stretches = [_stretches(found) for found in (shapes, *others)]
    if len({max(found, default=-1) for found in stretches}) == 1:
        return [tuple(found.index(k) for found in stretches[1:]) for k in stretches[0]]
    for period in range(2, 9):
        if all(
            len(found) >= period and found[period:] == found[:-period]
            for found in (shapes, *others)
        ):
            return [(i % period,) * len(others) for i in range(len(shapes))]
    return None


def _stretches(shapes: list[tuple[int, ...]]) -> list[int]:
    """Return, for each turn, the number of its stretch of equal shapes."""
    changes = [int(a != b) for a, b in itertools.pairwise(shapes)]
    return list(itertools.accumulate([0, *changes])) if shapes else []


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
