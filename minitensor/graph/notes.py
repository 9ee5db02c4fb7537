"""Notes on numbers that got no name: three at most, with the entries of `dims` that name them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from .formulas import Column
from .model import Graph
from .names import Names
from .sized import last
from .varied import Runs

_MOST = 6  # numbers, or places, in a list
_LONGEST = 120  # letters of an error
_COMMON = {"num", "n", "dim", "size", "max", "number", "len", "length", "features", "in", "out"}


def note_unclear(graph: Graph, names: Names, lost: Mapping[str, set[int]]) -> None:
    """Note the names that may belong to several axes or settings, and how to declare them."""
    texts, entries, left = [], dict[str, str](), set[int]()
    for called, sets in names.unclear:
        size = names.size(sets[0][0])
        places = " or ".join(_few([_place(names, sources[0]) for sources in sets]))
        several = f"{' and '.join(called)} are both {size}, and"
        texts.append(f"{several if called[1:] else f'{called[0]}={size}'} may be {places}")
        left |= {size}.union(*(lost.get(names.name(s[0]) or "", ()) for s in sets))
        for name, sources in zip(called, sets, strict=False):
            key, text = _declaration(names, sources, name)
            entries[key] = _merged(entries.get(key), text)
    if texts:
        graph.notes.append(f"dims: {'; '.join(_few(texts))}, so {_stay(left)}. {_added(entries)}.")


def note_unread(graph: Graph, names: Names) -> None:
    """Note the names of settings that no axis has, as their constructors cannot be followed."""
    used = " ".join(label for value in graph.values.values() for label in value.dims)
    reader, texts = names.read.reader, list[str]()
    for name in graph.dims.keys() - set(re.findall(r"\w+", used)):
        places = (reader.argument(p) for p in names.settings if names.name(p) == name)
        for kind, argument in sorted(filter(None, places), key=str):
            if kind in reader.lost:
                texts.append(f"{name}={graph.dims[name]} ({argument} of {kind.__name__})")
    if texts:
        graph.notes.append(
            f"dims: what follows from {', '.join(_few(sorted(set(texts))))} is not known, as the "
            "constructor cannot be read to its end, so it stays a number."
        )


def note_fixed(graph: Graph, names: Names, why: str) -> None:
    """Note the numbers that are left because the program did not run again."""
    made = {v for n in graph.nodes.values() if n.direction == "forward" for v in n.outputs}
    labels = {label for key in made for label in graph.values[key].dims}
    left = {int(label) for label in labels if label.isdigit() and int(label) > 1}
    if left:
        _, entries = _entries(graph, names, dict.fromkeys(names.nameless, left), {})
        advice = f". {_added(entries)}" if entries else ""
        graph.notes.append(
            f"dims: {_stay(left)}, as the program does not run at other sizes: "
            f"{_shortened(why)}{advice}."
        )


def note_numbers(graph: Graph, names: Names, runs: Runs, lost: Mapping[str, set[int]]) -> None:
    """Note the numbers that depend on sizes, each once, and how they get names, if they can.

    `lost` has numbers by the sign of the size without a name, by "" those that are no formula, and
    by "=" those that did not change in the `runs`.
    """
    shown = {int(x) for value in graph.values.values() for x in value.dims if x.isdigit()}
    left = {sign: numbers & shown for sign, numbers in lost.items()}
    nameless, entries = _entries(graph, names, left, runs.sizes)
    if entries:
        graph.notes.append(f"dims: {_stay(nameless)} without a name. {_added(entries)}.")
    changing, same = left.get("", set()), left.get("=", set())
    parts = list[str]()
    found = changing & _from_values(graph)
    if found:
        parts.append(f"{_listed(found)} may follow from values, as what a mask picks does")
    changing = changing - found
    for held, text in _held(graph, names, runs):
        touched = {n for n in same if any(n % size == 0 for size in held.values())}
        touched |= changing if held else set()
        if touched:
            stuck = ", ".join(_few([f"{path}={size}" for path, size in sorted(held.items())]))
            parts.append(f"{_listed(touched)} may follow from {text.format(stuck)}")
            changing, same = changing - touched, same - touched
    if changing:
        one = len(changing) == 1
        verbs = "changes with the sizes, but is" if one else "change with the sizes, but are"
        parts.append(f"{_listed(changing)} {verbs} no formula of the names")
    if parts:
        graph.notes.append(f"dims: {'; '.join(parts)}.")


def _from_values(graph: Graph) -> set[int]:
    """Return the sizes that ops make from the values of tensors: a count of those that are true."""
    found: set[int] = set()
    for node in graph.nodes.values():
        masks = node.op == "index" and any(graph.values[v].dtype == "bool" for v in node.inputs[1:])
        if masks or node.op in ("nonzero", "unique"):
            found.update(n for v in node.outputs for n in graph.values[v].shape[:1])
    return found


def _held(graph: Graph, names: Names, runs: Runs) -> Iterator[tuple[dict[str, int], str]]:
    """Yield the sizes that were not varied, and why."""
    held = {p: n for p, n in names.settings.items() if names.name(p) in runs.fixed and n > 1}
    counted = names.read.counted
    yield (
        {p: n for p, n in held.items() if p in counted},
        "sizes that set what modules there are ({})",
    )
    yield {p: n for p, n in held.items() if p not in counted}, "sizes that cannot change alone ({})"
    called = {names.name(path) for path in names.settings}
    alone = {n: graph.dims[n] for n in runs.fixed - called if graph.dims.get(n, 1) > 1}
    why = _shortened(runs.why).replace("{", "{{").replace("}", "}}")
    yield alone, f"{{}}, as the program runs at no other: {why}"


def _entries(
    graph: Graph, names: Names, left: Mapping[str, set[int]], sizes: Mapping[str, Column]
) -> tuple[set[int], dict[str, str]]:
    """Return the numbers of sizes without a name, and entries of `dims` that name them.

    Those that were varied together get one name: the sides of an image, tokens and targets.
    """
    numbers, entries = set[int](), dict[str, str]()
    letters = [c for c in "LSTABCDEFGHIJKMNOPQRUVWXYZ" if c not in graph.dims]
    chosen: dict[Any, str] = {}  # by the sizes in all runs

    settings = defaultdict[Any, list[str]](list)
    for sign, sources in names.nameless.items():
        settings[sizes.get(sign, sign)] += [path for path in sources if isinstance(path, str)]

    def letter(source: Any) -> str:
        sign = names.name(source) or ""
        group = sizes.get(sign, sign)
        if group not in chosen:
            paths = settings[group]
            found = _initial(min(paths, key=len), letters) if paths else [*letters, "_"][0]
            letters[:] = [each for each in letters if each != found]
            chosen[group] = found
        return chosen[group]

    unclear = {names.name(sources[0]) for _, sets in names.unclear for sources in sets}
    wanted = {sizes.get(sign, sign) for sign, found in left.items() if found}
    for sign, sources in names.nameless.items():
        if sizes.get(sign, sign) not in wanted or sign in unclear:
            continue
        numbers |= left.get(sign, set())
        paths = [source for source in sources if isinstance(source, str)]
        if paths:
            path, group = min(paths, key=len), settings[sizes.get(sign, sign)]
            key, text = _declaration(names, [path], letter(path), group)
        else:
            value = graph.values[sources[0][0]]
            axes = enumerate(value.dims)
            texts = [letter((value.id, axis)) if _is_number(d) else d for axis, d in axes]
            key, text = value.name, " ".join(d if d.isidentifier() else "_" for d in texts)
        entries.setdefault(key, text)
    return numbers, entries


def _is_number(label: str) -> bool:
    return label.isdigit() and label != "1"


def _initial(path: str, letters: list[str]) -> str:
    """Return a letter for a setting, or else its own name."""
    parts = [part for part in last(path).split("_") if part not in _COMMON]
    initials = [part[0].upper() for part in parts if part[:1].isalpha()]
    return next((c for c in initials if c in letters), last(path))


def _declaration(
    names: Names, sources: list[Any], name: str, group: Collection[str] = ()
) -> tuple[str, str]:
    """Return an entry of `dims` that gives one name to the sources of a size.

    `group` has settings that may have that name too.
    """
    source = sources[0]
    if isinstance(source, str):
        alike = [p for p in names.settings if p == last(source) or p.endswith(f".{last(source)}")]
        alike = [p for p in alike if names.settings[p] == names.settings[alike[0]]]
        tied = len({names.ties.find(path) for path in alike}) == 1 or set(alike) <= set(group)
        return last(source) if tied and source in alike else source, name
    value, axis = source
    texts = [name if a == axis else "_" for a in range(len(names.shape(value)))]
    kind, _, path = value.partition(":")
    return names.graph.values[value].name if kind == "input" else path, " ".join(texts)


def _merged(one: str | None, other: str) -> str:
    """Return the names of axes of two entries for one input."""
    if one is None:
        return other
    pairs = zip(one.split(), other.split(), strict=False)
    return " ".join(b if a == "_" else a for a, b in pairs)


def _place(names: Names, source: Any) -> str:
    if isinstance(source, str):
        return last(source) if source.count(".") > 2 else source
    return f"axis {source[1]} of {names.graph.values[source[0]].name}"


def _few(texts: list[str]) -> list[str]:
    more = len(texts) - _MOST
    return texts if more <= 1 else [*texts[:_MOST], f"{more} more"]


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(_few(list(map(str, sorted(numbers)))))


def _stay(numbers: set[int]) -> str:
    return f"{_listed(numbers)} {'stays a number' if len(numbers) == 1 else 'stay numbers'}"


def _shortened(why: str) -> str:
    return why if len(why) <= _LONGEST else f"{why[:_LONGEST]} ..."


def _added(entries: Mapping[str, str]) -> str:
    """Return the advice to add entries to `dims`."""
    return "Add to dims: {" + ", ".join(f'"{k}": "{text}"' for k, text in entries.items()) + "}"
