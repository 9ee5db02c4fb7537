"""The same value in several runs of a program."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from .formulas import Column
from .model import Graph, Value


class _Line(NamedTuple):
    """A line of the program, or of an op, that may run several times: in turns."""

    what: tuple[Any, ...]
    of: Any = None  # the line that it is the backward of, turn by turn
    inside: Any = None  # the line, and its turn, of the op that runs it


class Twins:
    """Finds the values of a graph in the graphs of other runs, by line and turn, not by id.

    `growing` has the lengths of lists of modules in all runs, which grow at their end. A line in a
    loop over another size runs another number of times: its turns have twins if they make shapes in
    the same pattern: as many stretches of equal shapes, or shapes that come again and again.
    """

    def __init__(self, graph: Graph, others: list[Graph], growing: Collection[Column]) -> None:
        self._keys = {value.id: key for key, value in _keyed(graph)}
        self._found = [dict(_keyed(other)) for other in others]
        self._turns = [_turns(found) for found in (dict(_keyed(graph)), *self._found)]
        self._growing = growing
        # Of equal parts of a tensor there are as many as a size says: the first stands for them.
        self._parts = {
            v: node.outputs[0].removeprefix(node.id)
            for node in graph.nodes.values()
            for v in node.outputs[1:]
            if graph.values[v].shape == graph.values[node.outputs[0]].shape
        }
        self._ports: dict[_Line, tuple[Any, ...]] = {}  # the first output of each line
        for line, *port in self._turns[0]:
            self._ports.setdefault(line, tuple(port))
        self._lines: dict[_Line, list[_Line] | None] = {}
        self._matches: dict[Any, list[tuple[int, ...]] | None] = {}

    def shapes(self, value: Value) -> list[tuple[int, ...]]:
        """Return the shapes of a value in the other runs, none if it is not in all of them."""
        key = self._keys.get(value.id)
        if key is None:
            return []
        keys: list[Any] = [key] * len(self._found)
        if isinstance(key, tuple):
            (line, turn), *port = key
            lines = self._lines_of(line) or []
            first = self._parts.get(value.id)
            runs = zip(lines, self._turns[1:], strict=False)
            if first and any((other, *port) not in turns for other, turns in runs):
                port = [first]
            match = self._match(line, tuple(port))
            if match is None or turn > len(match):
                return []
            keys = [((other, n), *port) for other, n in zip(lines, match[turn - 1], strict=True)]
        twins = [found.get(key) for found, key in zip(self._found, keys, strict=True)]
        found = [twin.shape for twin in twins if twin is not None]
        alike = len(found) == len(twins) and all(len(s) == len(value.shape) for s in found)
        return found if alike else []

    def _lines_of(self, line: _Line) -> list[_Line] | None:
        """Return a line in the other runs: what is inside an op is inside its twin there."""
        if line not in self._lines:
            found: list[_Line] | None = [line] * len(self._found)
            if line.of is not None:
                lines = self._lines_of(line.of)
                found = lines and [line._replace(of=other) for other in lines]
            elif line.inside is not None:
                parent, turn = line.inside
                lines = self._lines_of(parent)
                match = lines and self._match(parent, self._ports.get(parent, ()))
                found = None
                if lines and match and turn <= len(match):
                    twins = zip(lines, match[turn - 1], strict=True)
                    found = [line._replace(inside=twin) for twin in twins]
            self._lines[line] = found
        return self._lines[line]

    def _match(self, line: _Line, port: tuple[Any, ...]) -> list[tuple[int, ...]] | None:
        """Return, for each turn of a line, the turns in the other runs that are its twins."""
        key = line, *port
        if key not in self._matches:
            lines = self._lines_of(line)
            shapes = self._turns[0].get(key, [])
            runs = zip(lines or (), self._turns[1:], strict=False)
            several = [turns.get((other, *port), []) for other, turns in runs]
            counts = [len(found) for found in several]
            layers = any(
                [n * column[0] for n in counts] == [len(shapes) * m for m in column[1:]]
                for column in self._growing
            )
            if lines is None:
                self._matches[key] = None
            elif layers or all(n == len(shapes) for n in counts):
                self._matches[key] = [(n + 1,) * len(counts) for n in range(len(shapes))]
            else:
                self._matches[key] = _matched(shapes, several)
        return self._matches[key]


def _turns(values: Mapping[Any, Value]) -> dict[Any, list[tuple[int, ...]]]:
    """Return the shapes that each output of a line had, turn by turn."""
    found = defaultdict[Any, list[tuple[int, ...]]](list)
    for key, value in values.items():
        if isinstance(key, tuple):
            (line, turn), *port = key
            turns = found[(line, *port)]
            turns += [()] * (turn - len(turns))  # those that had no such output
            turns[turn - 1] = value.shape
    return dict(found)


def _matched(
    shapes: list[tuple[int, ...]], others: list[list[tuple[int, ...]]]
) -> list[tuple[int, ...]] | None:
    """Return, for each turn, the turn of each other run that is its twin; None if it is not clear.

    The turns match if all runs have as many stretches of equal shapes, or one period.
    """
    stretches = [_stretches(found) for found in (shapes, *others)]
    if len({max(found, default=-1) for found in stretches}) == 1:
        return [tuple(found.index(k) + 1 for found in stretches[1:]) for k in stretches[0]]
    for period in range(2, 9):
        if all(
            len(found) >= period and found[period:] == found[:-period]
            for found in (shapes, *others)
        ):
            return [(i % period + 1,) * len(others) for i in range(len(shapes))]
    return None


def _stretches(shapes: list[tuple[int, ...]]) -> list[int]:
    """Return, for each turn, the number of its stretch of equal shapes."""
    changes = [int(a != b) for a, b in itertools.pairwise(shapes)]
    return list(itertools.accumulate([0, *changes])) if shapes else []


def _keyed(graph: Graph) -> Iterator[tuple[Any, Value]]:
    """Yield every value with a key that it has in each run: by line and turn, not by id."""
    counts: Counter[Any] = Counter()
    for value in graph.values.values():
        if value.producer is None and value.kind != "gradient":
            yield value.id, value
    found: dict[str, tuple[_Line, int]] = {}  # the line and the turn of each node
    for node in graph.nodes.values():
        of, inside = found.get(node.of or ""), found.get(node.inside or "")
        if of is not None:  # a loop is walked back in the other order: its turns are those of `of`
            counts[of] += 1
            found[node.id] = _Line((counts[of],), of=of[0]), of[1]
        else:
            path = graph.groups[node.group].path  # of a module in all its calls
            what = (path, node.op, node.direction, node.source, node.origin)
            line = _Line(what) if inside is None else _Line((node.op,), inside=inside)
            counts[line] += 1
            found[node.id] = line, counts[line]
        at = found[node.id]
        mine = [v for v in map(graph.values.get, (*node.outputs, *node.saved)) if v is not None]
        for key in dict.fromkeys(v.id for v in mine if v.producer == node.id):
            yield (at, key.removeprefix(node.id)), graph.values[key]
        for number, key in enumerate(node.inputs):
            value = graph.values[key]
            if value.kind == "gradient" and value.producer is None:
                yield (at, "in", number), value
