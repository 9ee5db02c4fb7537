"""The same value in several runs of a program."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from .formulas import Column
from .model import Graph, Value


class Twins:
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
