"""Two graphs side by side: which ops stayed, moved or changed, and which came or went.

What is compared is what runs and in which order, not which tensors an op reads: an op is known by
its name, the weights it uses and the numbered layer it runs in, such as encoder.layers.0.
"""

from __future__ import annotations

import bisect
import os
import re
from collections import Counter, defaultdict, deque
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

from . import write
from .model import Graph, Node
from .sides import sides
from .view import Options, View, view_of
from .window import display, frame

Pair = tuple[str, str]
Change = tuple[Graph, str, str, tuple[str | None, str | None]]  # graph, node, text, both nodes


@dataclass(repr=False)
class Difference:
    """The forward ops of two graphs, matched: ids of nodes in `a` and in `b`."""

    a: Graph
    b: Graph
    same: list[Pair]
    moved: list[Pair]  # the same op at another place in the order
    changed: list[Pair]  # at the same place, with other attributes or shapes
    added: list[str]  # in b alone
    removed: list[str]  # in a alone

    @property
    def before(self) -> dict[str, str]:
        """Return the status of each forward node of `a`: same, moved, changed or removed."""
        return _spread(self.a, self._statuses(0, self.removed, self._words[1]))

    @property
    def after(self) -> dict[str, str]:
        """Return the status of each forward node of `b`: same, moved, changed or added."""
        return _spread(self.b, self._statuses(1, self.added, self._words[0]))

    @property
    def _words(self) -> tuple[str, str]:
        """What the nodes of `added` and `removed` are called: those of compiled ops otherwise."""
        rewritten = any(self.b.nodes[key].rule for key in self.added)
        return ("rewritten", "replaced") if rewritten else ("added", "removed")

    def save(
        self,
        path: str | os.PathLike[str],
        level: str | View = "op",
        **options: Unpack[Options],
    ) -> None:
        """Write the difference: .html, .txt, or a picture, .svg, .png, .pdf or .dot.

        The page has both graphs side by side and a list of all changes; a picture shows `b`, with
        what moved, changed or was added marked, and what was removed under the title. `level` and
        `options` are those of `Graph.save`.
        """
        format = write.format_of(path)
        write.store(path, self.render(format, view_of(level, options)))

    def render(self, format: str, view: View) -> bytes:
        """Return that page, text or picture; ValueError for another format."""
        if format == "html":
            return self.page(view).encode()
        if format == "txt":
            return f"{self}\n".encode()
        if format not in write.PICTURES:
            known = ", ".join(("html", "txt", *write.PICTURES))
            raise ValueError(f"a difference can be written as {known}, not {format}")
        return write.render(self.b, format, view, self.after, self.notes)

    def show(self, level: str | View = "block", **options: Unpack[Options]) -> None:
        """Show the page of both graphs: in the browser, or in a notebook below the cell."""
        display(self.page(view_of(level, options, "show")), f"{self.a.name}-{self.b.name}")

    def page(self, view: View) -> str:
        """Return the HTML page with both graphs side by side, at first as `view` says."""
        changes = {
            kind: [(_named(graph, key), text, pair) for graph, key, text, pair in rows]
            for kind, rows in self._changes().items()
        }
        pairs = [*self.same, *self.moved, *self.changed]
        marks = self.before, self.after
        return sides((self.a, self.b), marks, pairs, changes, self._counts(), view)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": str(self), "text/html": frame(self.page(View("block")))}

    def _changes(self) -> dict[str, list[Change]]:
        a, b, (added, removed) = self.a, self.b, self._words
        return {
            "moved": [(b, pair[1], "", pair) for pair in self.moved],
            "changed": [(b, y, _change(a, x, b, y), (x, y)) for x, y in self.changed],
            added: [(b, key, b.nodes[key].rule, (None, key)) for key in self.added],
            removed: [(a, key, "", (key, None)) for key in self.removed],
        }

    @property
    def notes(self) -> list[str]:
        """Return the notes under the title of a picture of `b`."""
        gone = Counter(self.a.nodes[key].op for key in self.removed)
        told = ", ".join(op if n == 1 else f"{op} x{n}" for op, n in gone.items())
        return [
            f"compared with {self.a.name}: {self._counts()}",
            *[f"{self._words[1]}: {told}"][: len(gone)],
        ]

    def _counts(self) -> str:
        told = ", ".join(f"{len(rows)} {kind}" for kind, rows in self._changes().items())
        return f"{len(self.same)} ops the same, {told}"

    def _statuses(self, side: int, alone: list[str], status: str) -> dict[str, str]:
        pairs = {"same": self.same, "moved": self.moved, "changed": self.changed}
        found = {pair[side]: name for name in pairs for pair in pairs[name]}
        return {**found, **dict.fromkeys(alone, status)}

    def __repr__(self) -> str:
        a, b = self.a, self.b
        lines = [f"{a.name} -> {b.name}: {self._counts()}"]
        sizes = [
            f"{name} {a.dims.get(name, 'none')} -> {b.dims.get(name, 'none')}"
            for name in dict.fromkeys([*a.dims, *b.dims])
            if a.dims.get(name) != b.dims.get(name)
        ]
        lines += [f"sizes: {', '.join(sizes)}"] if sizes else []
        for title, rows in self._changes().items():
            lines += [title, *_report(rows)] if rows else []
        return "\n".join(lines)


def difference(a: Graph, b: Graph) -> Difference:
    """Match the forward ops of two graphs: which stayed, moved, changed, came or went.

    Of a fused op that the graphs have in different numbers (post-norm fuses sum and norm, pre-norm
    does not), the ops of its reference are compared, if they were traced with `decompose`; but not
    if `b` is compiled: then those that a rule made are compared with nothing.
    """
    compiled = any(node.rule for node in b.nodes.values())
    left, right = _run(a, b) if compiled else _compared(a, b)
    x, y = [_Known(a, node) for node in left], [_Known(b, node) for node in right]
    places = range(len(x)), range(len(y))
    same = _aligned([k.exact for k in x], [k.exact for k in y], *places)
    like_x, like_y = [k.like for k in x], [k.like for k in y]
    changed: list[tuple[int, int]] = []
    for gap in _gaps(same, *places):
        changed += _aligned(like_x, like_y, *gap)
    alone_a = set(places[0]) - {i for i, _ in same + changed}
    alone_b = set(places[1]) - {j for _, j in same + changed}
    moved: list[tuple[int, int]] = []
    for name in ("exact", "like"):
        waiting: defaultdict[Hashable, deque[int]] = defaultdict(deque)
        for i in sorted(alone_a):
            waiting[getattr(x[i], name)].append(i)
        found = [(w.popleft(), j) for j in sorted(alone_b) if (w := waiting[getattr(y[j], name)])]
        alone_a -= {i for i, _ in found}
        alone_b -= {j for _, j in found}
        moved += found

    def ids(pairs: list[tuple[int, int]]) -> list[Pair]:
        return [(left[i].id, right[j].id) for i, j in sorted(pairs, key=lambda pair: pair[1])]

    added, removed = [right[j].id for j in sorted(alone_b)], [left[i].id for i in sorted(alone_a)]
    return Difference(a, b, ids(same), ids(moved), ids(changed), added, removed)


class _Known:
    """The keys by which an op is recognized in another graph."""

    def __init__(self, graph: Graph, node: Node) -> None:
        values = graph.values
        parameters = [values[v] for v in node.inputs if values[v].kind == "parameter"]
        layer = re.match(r"(?:.*\.)?\d+(?=\.|$)", graph.groups[node.group].path)
        self.like = (node.op, layer and layer[0], *(p.id for p in parameters))
        self.exact = (*self.like, *_details(graph, node).items())
        if node.rule:
            self.like = self.exact = (node.id, node.rule)


def _details(graph: Graph, node: Node) -> dict[str, str]:
    """The attributes and shapes of an op, in words."""
    values = graph.values
    details = {name: str(value) for name, value in sorted(node.attributes.items())}
    for v in node.inputs:
        if values[v].kind == "parameter":
            details[v.rpartition(".")[2]] = values[v].label
    return {**details, "output": " ".join(values[v].label for v in node.outputs)}


def _compared(a: Graph, b: Graph) -> tuple[list[Node], list[Node]]:
    """The forward ops to compare, in order: the whole of fused ops, or else what is inside."""
    forward = [[n for n in g.nodes.values() if n.direction == "forward"] for g in (a, b)]
    counts = [Counter(n.op for n in nodes if n.inside is None) for nodes in forward]
    atoms = {n.op for nodes in forward for n in nodes if n.inside is not None}
    found = []
    for nodes in forward:
        full = {n.inside for n in nodes}
        opened = {
            n.id
            for n in nodes
            if n.id in full and n.op not in atoms and counts[0][n.op] != counts[1][n.op]
        }
        found.append(
            [n for n in nodes if n.id not in opened and (n.inside is None or n.inside in opened)]
        )
    return found[0], found[1]


def _run(a: Graph, b: Graph) -> tuple[list[Node], list[Node]]:
    """The forward ops that run, in order."""
    nodes = a.nodes.values(), b.nodes.values()
    left, right = ([n for n in g if n.direction == "forward" and n.inside is None] for g in nodes)
    return left, right


def _aligned(
    x: Sequence[Hashable], y: Sequence[Hashable], i: range, j: range
) -> list[tuple[int, int]]:
    """Places in two stretches with equal keys, rising in both.

    A longest common subsequence if keys are distinct. Of one that occurs several times, the first
    occurrences belong together, the second ones and so on, and what lies between two matches is
    aligned again in the same way: n log n for a chain of n ops.
    """
    found: list[tuple[int, int]] = []
    waiting = [(i, j)]
    while waiting:
        i, j = waiting.pop()
        matched = _ends(x, y, i, j)
        if not matched:
            places = {key: n for n, key in zip(j, _numbered(y, j), strict=True)}
            pairs = zip(i, _numbered(x, i), strict=True)
            matched = _rising([(n, places[key]) for n, key in pairs if key in places])
        if matched:
            found += matched
            waiting += _gaps(matched, i, j)
    return sorted(found)


def _ends(
    x: Sequence[Hashable], y: Sequence[Hashable], i: range, j: range
) -> list[tuple[int, int]]:
    """The equal places at the beginning and at the end of two stretches."""
    limit = min(len(i), len(j))
    first = 0
    while first < limit and x[i[first]] == y[j[first]]:
        first += 1
    last = 0
    while last < limit - first and x[i[-1 - last]] == y[j[-1 - last]]:
        last += 1
    matched = list(zip(i[:first], j[:first], strict=True))
    return matched + list(zip(i[len(i) - last :], j[len(j) - last :], strict=True))


def _numbered(keys: Sequence[Hashable], places: range) -> Iterator[tuple[Hashable, int]]:
    """The keys at some places, each with how often it occurred before."""
    seen: Counter[Hashable] = Counter()
    for place in places:
        yield keys[place], seen[keys[place]]
        seen[keys[place]] += 1


def _rising(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """A longest choice of pairs, given by rising first places, whose second places rise too."""
    tails: list[int] = []  # the least second place that a choice of each length can end with
    ends: list[int] = []  # the pair with that place
    before: list[int] = []  # for each pair, the one before it in its choice
    for number, (_, place) in enumerate(pairs):
        length = bisect.bisect_left(tails, place)
        tails[length : length + 1] = [place]
        ends[length : length + 1] = [number]
        before.append(ends[length - 1] if length else -1)
    chosen = []
    number = ends[-1] if ends else -1
    while number >= 0:
        chosen.append(pairs[number])
        number = before[number]
    return chosen[::-1]


def _gaps(matched: list[tuple[int, int]], i: range, j: range) -> Iterator[tuple[range, range]]:
    """Yield the gaps between matches in two stretches, where neither side is empty."""
    start_i, start_j = i.start, j.start
    for stop_i, stop_j in [*matched, (i.stop, j.stop)]:
        if start_i < stop_i and start_j < stop_j:
            yield range(start_i, stop_i), range(start_j, stop_j)
        start_i, start_j = stop_i + 1, stop_j + 1


def _spread(graph: Graph, found: dict[str, str]) -> dict[str, str]:
    """The statuses with those of the fused ops around and of the ops inside."""
    inside = defaultdict(list)
    for node in graph.nodes.values():
        if node.direction == "forward" and node.inside is not None:
            inside[node.inside].append(node.id)
    statuses = dict(found)
    for fused, ops in inside.items():
        if fused in found:
            statuses.update(dict.fromkeys(ops, found[fused]))
        else:
            kinds = {found[op] for op in ops}
            others = kinds - {"same"}
            plain = len(kinds) == 1 or others == {"moved"}
            statuses[fused] = (others or kinds).pop() if plain else "changed"
    return statuses


def _change(a: Graph, x: str, b: Graph, y: str) -> str:
    """Describe the changes of an op: "p 0.1 -> 0.2"."""
    old, new = _details(a, a.nodes[x]), _details(b, b.nodes[y])
    names = [name for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)]
    return ", ".join(f"{n} {old.get(n, 'none')} -> {new.get(n, 'none')}" for n in names)


def _named(graph: Graph, key: str) -> str:
    """Return the path and name of an op: "encoder.layers.0: layer_norm"."""
    node = graph.nodes[key]
    path = graph.groups[node.group].path
    return f"{path}: {node.op}" if path else node.op


def _report(rows: list[Change]) -> Iterator[str]:
    """A line for each op; what happened in all layers alike, encoder.layers.*, shares one."""
    lines: Counter[tuple[str, str, str]] = Counter()
    first: dict[tuple[str, str, str], str] = {}
    for graph, key, text, _ in rows:
        node = graph.nodes[key]
        path = graph.groups[node.group].path
        shape = " ".join(graph.values[v].label for v in node.outputs)
        line = re.sub(r"\b\d+\b", "*", path), node.op, text or shape
        lines[line] += 1
        first.setdefault(line, path)
    for line, count in lines.items():
        pattern, op, text = line
        path = pattern if count > 1 else first[line]
        yield f"  {f'{path}: ' * bool(path)}{op}{f' x{count}' * (count > 1)}  {text}"
