"""Symbolic names for axis sizes. An axis that cannot be named with certainty keeps its number.

`dims` names the axes of inputs, {"x": "N L E"}, and sizes, {"E": 16}. A size is that of every input
axis and every setting that has it (`names.py`), if these must be equal: if ops tie them
(`ties.py`), or if one follows from the other in a constructor (`settings.py`). Then the program
runs twice more, on copies in which all sizes are others, those without a name too (`varied.py`),
and each axis is solved from its three sizes as a formula of names (`formulas.py`).
"""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping

from ..core import Tensor
from .formulas import Formulas, base_of
from .model import Graph
from .names import Dims, Names
from .notes import note_fixed, note_numbers, note_unclear, note_unread
from .program import Program
from .twins import Twins
from .varied import Runs, run_varied


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
    names = Names(graph, dims, program, known)
    runs = Runs({}, frozenset(names.sizes), [], "it changes tensors that cannot be copied")
    if record is not None:
        runs = run_varied(names, program, known, record)
    lost = _label(graph, names, runs)
    note_unclear(graph, names, lost)
    note_unread(graph, names)
    if not runs.graphs:
        note_fixed(graph, names, runs.why)
    for note in graph.notes:  # what was asked for and could not be done
        warnings.warn(note, stacklevel=3)
    if runs.graphs:
        note_numbers(graph, names, runs, lost)


def _label(graph: Graph, names: Names, runs: Runs) -> dict[str, set[int]]:
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
    counts = set(map(names.name, names.read.growing))
    growing = [column for name, column in runs.sizes.items() if name in counts]
    twins = Twins(graph, runs.graphs, growing)
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
                for sign in () if found else formulas.signs(column) or ("",):
                    lost[sign].add(n)
            elif n > 1 and value.kind in ("activation", "parameter"):
                lost["="].add(n)
            labels[value.id].append(label)
    settled = _settled_names(names, runs, labels)
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


def _settled_names(names: Names, runs: Runs, labels: Mapping[str, list[str]]) -> dict[str, str]:
    """Return the candidates that are a name for certain; note the names that have several."""
    found = {c for dims in labels.values() for text in dims for c in re.findall(r"\w+\?\d+", text)}
    by_name = defaultdict(list)
    for candidate in names.candidates:
        by_name[base_of(candidate)].append(candidate)
    settled: dict[str, str] = {}
    for name, candidates in by_name.items():
        left = [c for c in candidates if c in found] if runs.graphs else candidates
        if runs.joined:
            settled |= dict.fromkeys(candidates, name)
        elif len(left) == 1:
            settled[left[0]] = name
        elif left:
            names.unclear.append(([name], [names.candidates[c] for c in left]))
    return settled


def _certain(graph: Graph, names: Names, runs: Runs) -> set[Hashable]:
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
