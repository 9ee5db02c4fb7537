"""Names for sources of sizes: the axes of inputs, and the settings of modules."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping
from typing import Any

from ..core import Tensor
from .formulas import base_of
from .model import Graph
from .program import Program
from .settings import Settings
from .sizes import PRIMES
from .ties import Ties, used_inputs

Dims = Mapping[str, int | str]


class Names:
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
        self.candidates: dict[str, list[Any]] = {}  # the sources of each candidate
        self.unclear: list[tuple[list[str], list[list[Any]]]] = []  # names of several sets
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
        axes = ((v, a) for v in self.graph.inputs for a in range(len(self.shape(v))))
        for source in (*axes, *self.settings):
            if self.size(source) > 1:
                if self.name(source) is None:
                    self._call(f"?{len(self.nameless)}", self.size(source), source)
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
        """ValueError for a name that is no name, a size that is none, or that nothing has."""
        seen = sorted({n for value in self.graph.values.values() for n in value.shape})
        for name, size in given.items():
            if not isinstance(name, str) or not name.isidentifier():
                raise ValueError(
                    f"dims: {name!r} is no name for a size: give letters, digits and _, such as N"
                )
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise ValueError(f"dims: {name}={size!r} is no size: give a whole number above 0")
            if size not in seen and size not in self.settings.values():
                known = ", ".join(map(str, seen))
                raise ValueError(f"dims: no axis has the size {name}={size}; the sizes are {known}")

    def _tie_masks(self) -> None:
        """Tie an input that steers the program, but reaches no output, to those of its sizes."""
        used = used_inputs(self.graph)
        sources = [(v, a) for v in self.graph.inputs for a in range(len(self.shape(v)))]
        for source in sources:
            alike = [s for s in sources if s[0] in used and self.size(s) == self.size(source)]
            sets = set(map(self.ties.find, alike))
            if source[0] not in used and len(sets) == 1:
                self.ties.join(source, sets.pop())

    def shape(self, value: str) -> tuple[int, ...]:
        """Return the shape of a value."""
        return self.graph.values[value].shape

    def size(self, source: Any) -> int:
        """Return the size of an axis or setting."""
        return (
            self.settings[source] if isinstance(source, str) else self.shape(source[0])[source[1]]
        )

    def _declare(self, key: str, text: str) -> None:
        """Take the names of the axes of an input or a parameter, or the name of a setting."""
        graph, tokens = self.graph, text.split()
        found = [v for v in graph.inputs if key in graph.values[v].names]
        found += [v for v in (f"parameter:{key}", f"buffer:{key}") if v in graph.values]
        sources: list[Any] = [(v, a) for v in found for a in range(len(self.shape(v)))]
        if not found:
            paths = [p for p in self.settings if p == key or p.endswith(f".{key}")]
            sources = [source for source in paths if self.size(source) == self.size(paths[0])]
            tokens *= len(sources) if len(tokens) == 1 else 1
        if not sources and not found:
            names = [graph.values[v].name for v in graph.inputs]
            raise ValueError(
                f"dims: {key}={text!r}: no input, parameter or setting is called {key!r}, and "
                f"{text!r} is no size; the inputs are {', '.join(names) or 'none'}"
            )
        if len(tokens) != len(sources):
            shape = self.shape(found[0]) if found else self.size(sources[0])
            raise ValueError(f"dims: {key}={text!r} does not fit {key}, whose size is {shape}")
        for token, source in zip(tokens, sources, strict=True):
            size = self.size(source)
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
                self.candidates[candidate] = sources
        elif names and free:
            self.unclear.append((names, list(free.values())))

    def _sets_of(self, size: int) -> dict[Hashable, list[Any]]:
        """Return the sets of a size: of inputs and settings, or else of weights, or constants."""
        found: dict[Hashable, list[Any]] = defaultdict(list)
        for kinds in (("input",), ("parameter", "buffer"), ("constant",)):
            values = [v for v in self.graph.values.values() if v.kind in kinds]
            sources: list[Any] = [(v.id, a) for v in values for a in range(len(v.shape))]
            for source in [*sources, *(self.settings if "input" in kinds else ())]:
                if self.size(source) == size:
                    found[self.ties.find(source)].append(source)
            if found:
                break
        return found

    def first(self, candidate: str) -> str:
        """Return the first candidate for the same name."""
        return min(c for c in self.candidates if base_of(c) == base_of(candidate))

    def of_inputs(self) -> set[str | None]:
        """Return the names, and candidates for one, of the axes of inputs."""
        axes = ((v, a) for v in self.graph.inputs for a in range(len(self.shape(v))))
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
