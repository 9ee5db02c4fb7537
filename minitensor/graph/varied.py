"""A program at other sizes: copies of it run, in which no two sizes grow alike."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import random
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

import numpy as np

from ..core import Tensor
from ..random import default_generator
from .formulas import Column, base_of
from .model import Graph
from .names import Names
from .program import Program
from .sizes import are_apart, other_sizes

_RUNS = 2  # beside the recorded one
_LARGEST = 512, 4096  # sizes of inputs and settings in a varied run, unless there are larger ones


@dataclasses.dataclass(frozen=True)
class Runs:
    """The program at other sizes."""

    sizes: dict[str, Column]  # of names, in all runs
    fixed: frozenset[str]  # names whose sizes were not varied
    graphs: list[Graph]
    why: str = ""  # all sizes could not be varied
    joined: bool = False  # True if the candidates for one name had one size


def run_varied(
    names: Names,
    program: Program,
    known: Callable[[Tensor], str | None],
    record: Callable[[Program], Graph],
) -> Runs:
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
                why = why if way.fixed - names.nameless.keys() else error
                break
            graphs.append(other)
        else:
            order = [*names.graph.dims, *map(base_of, names.sizes)]
            called = sorted(names.sizes, key=lambda name: order.index(base_of(name)))
            every = {n: (names.sizes[n], *(c[n] for c in columns)) for n in called}
            return Runs(every, fixed, graphs, why, way.joins_candidates)
    return Runs({}, frozenset(names.sizes), [], why)


@dataclasses.dataclass(frozen=True)
class _Way:
    """A way to vary sizes."""

    joined: Mapping[str, str]  # names that get the size of another
    fixed: frozenset[str] = frozenset()
    heads: bool = True
    last_first: bool = False
    joins_candidates: bool = False

    def fits(self, names: Names, columns: list[dict[str, int]]) -> bool:
        """Return False for sizes so large that a run would take long, and if nothing is joined."""
        inputs = names.of_inputs()
        most = {n: max(_LARGEST[n not in inputs], size) for n, size in names.sizes.items()}
        small = all(size <= most[n] for sizes in columns for n, size in sizes.items())
        return small and (not self.joins_candidates or bool(names.candidates))


def _ways(names: Names) -> Iterator[_Way]:
    """Yield ways to vary sizes, until one runs.

    Equal settings without a name of modules of one class, as of layers, are one size.

    First all of them apart; then the candidates for a name together, which were not free apart, so
    they are one size: tokens and targets; then equal ones without a name, as the sides of an image;
    then the same with settings that stay multiples of others. At last, those without a name stay,
    or one of the names.
    """
    alike: dict[int, str] = {}
    sides = {name: alike.setdefault(names.sizes[name], name) for name in names.nameless}
    equal = _equal(names)
    together = {name: names.first(name) for name in names.candidates}
    sizes = {names.sizes[first]: first for first in together.values()}
    more = {n: sizes[names.sizes[n]] for n in names.nameless if names.sizes[n] in sizes}
    for heads in (False, True):
        yield _Way(equal, heads=heads)
        yield _Way({**equal, **together}, heads=heads, joins_candidates=True)
        yield _Way(sides, heads=heads)
        yield _Way({**sides, **more, **together}, heads=heads, joins_candidates=True)
    yield _Way(equal, last_first=True)
    yield _Way(equal, _idle(names))
    yield _Way({**equal, **together}, _idle(names), joins_candidates=True)
    for name in names.graph.dims:
        fixed = frozenset(n for n in names.sizes if base_of(n) == name)
        yield _Way(equal, fixed)
        yield _Way({**equal, **together}, fixed, joins_candidates=True)


def _equal(names: Names) -> dict[str, str]:
    """Return sizes without a name that modules of one class share, each with the first of them."""
    first: dict[Any, str] = {}
    equal: dict[str, str] = {}
    for sign, sources in names.nameless.items():
        argument = names.read.reader.argument
        arguments = frozenset(argument(s) if isinstance(s, str) else None for s in sources)
        if None not in arguments:
            equal[sign] = first.setdefault((names.sizes[sign], arguments), sign)
    return equal


def _idle(names: Names) -> frozenset[str]:
    """Return the sizes without a name that need not vary when the named ones do."""
    places = names.places()
    named = [names.sizes[n] for n in places if n not in names.nameless and names.sizes[n] > 1]
    multiples = {n for n in places if any(names.sizes[n] % size == 0 for size in named)}
    return frozenset(names.nameless.keys() - multiples)


def _columns(names: Names, way: _Way) -> tuple[list[dict[str, int]], frozenset[str]]:
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
        own = [n for n in names.sizes if n not in fixed and way.joined.get(n, n) == n]
        if are_apart({(names.sizes[n], *(c[n] for c in columns)) for n in own}):
            break
    return columns, fixed


def _sizes_for(
    names: Names,
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
    grown = names.read.growing
    growing = {group[of[path]] for path in grown}
    fixed |= {of[path] for path in names.read.counted - grown}
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
    names: Names,
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
    pairs = [(names.sizes[name], then) for name, then in sizes.items()]

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
