"""The axes whose size may change, and sizes to try the program at."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..core import Tensor


class Axes:
    """The names of axes of inputs: {"tokens": {0: "N", 1: "L"}}."""

    def __init__(self, names: dict[str, dict[int, str]], sizes: dict[str, int]) -> None:
        self.names = names
        self.sizes = sizes  # of the names, in the inputs given

    def shape(self, name: str, t: Tensor, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Return the shape of an input at other sizes."""
        shape = list(t.shape)
        for axis, called in self.names.get(name, {}).items():
            shape[axis] = sizes[called]
        return tuple(shape)

    def ways(self) -> list[list[dict[str, int]]]:
        """Return sizes for several runs, the first with those given; the next if a run fails.

        No two names grow alike, so that their sums and products can be told apart, and one run has
        sizes that are far from the others, so that quotients differ. First all grow; then large
        ones shrink, as there may be a greatest length; then they grow to multiples, as they may
        have to be divisible.
        """
        if not self.sizes:
            return [[{}, {}]]
        more = [(3, 5, 11), (7, 4, 1), (2, 9, 6), (13, 8, 10), (5, 12, 3)]
        less = [(1, 2), (3, 1), (2, 3), (1, 3), (3, 2)]
        times = [(2, 3, 5), (3, 5, 2), (5, 2, 3), (4, 7, 3), (7, 3, 4)]
        ways: list[list[dict[str, int]]] = [[self.sizes] for _ in range(3)]
        for run in range(3):
            grown, shrunk, multiples = {}, {}, {}
            for number, (name, n) in enumerate(self.sizes.items()):
                row, lap = number % 5, number // 5
                grown[name] = n + more[row][run] + lap + (n if run == 2 else 0)
                less_by = n // 2 if run == 2 else less[row][run]
                shrunk[name] = n - less_by if n > 6 else grown[name]
                multiples[name] = n * (times[row][run] + lap)
            for way, sizes in zip(ways, (grown, shrunk, multiples), strict=True):
                way.append(sizes)
        return ways


def named_axes(
    named: Sequence[tuple[str, Tensor]],
    leaves: Sequence[tuple[str, Tensor]],
    dynamic_axes: Mapping[str, Any] | None,
    dynamic_shapes: Mapping[str, Any] | Sequence[Any] | None,
    outputs: Sequence[str],
) -> Axes:
    """Return the axes that `export` was given names for, by the names of inputs.

    ValueError for an input or axis that is not there, and for one name for two sizes.
    """
    if dynamic_axes is not None and dynamic_shapes is not None:
        raise ValueError("export: give dynamic_axes or dynamic_shapes, not both")
    tensors = dict(named)
    given: dict[str, Any] = {}
    if dynamic_axes is not None:
        given = dict(dynamic_axes)
    elif dynamic_shapes is not None:
        own = {id(t): name for name, t in named}
        paths: dict[str, Any] = {}
        if isinstance(dynamic_shapes, Mapping):
            for key, entry in dynamic_shapes.items():
                paths |= _paths(str(key), entry)
        else:
            tops = list(dict.fromkeys(re.split(r"[\[.]", path)[0] for path, _ in leaves))
            for key, entry in zip(tops, dynamic_shapes, strict=False):
                paths |= _paths(key, entry)
        by_path = {path: own[id(t)] for path, t in leaves}
        given = {by_path.get(path, path): entry for path, entry in paths.items()}
    names: dict[str, dict[int, str]] = {}
    sizes: dict[str, int] = {}
    for name, entry in given.items():
        if name not in tensors:
            if name in outputs:  # PyTorch takes these too; here they follow from the inputs
                continue
            raise ValueError(
                f"export: there is no input {name!r}; the inputs are {', '.join(tensors)}"
            )
        shape = tensors[name].shape
        for axis, called in _axes(name, entry).items():
            if not -len(shape) <= axis < len(shape):
                raise ValueError(
                    f"export: {name!r} has no axis {axis}, its shape is {tuple(shape)}"
                )
            axis %= len(shape)
            names.setdefault(name, {})[axis] = called
            if sizes.setdefault(called, shape[axis]) != shape[axis]:
                raise ValueError(
                    f"export: {called!r} is the name of axes of {sizes[called]} and of "
                    f"{shape[axis]}, in {name!r}: they must have one size, or other names"
                )
    return Axes(names, sizes)


def _paths(path: str, entry: Any) -> dict[str, Any]:
    """Return the entries for tensors in a parameter that holds several: {"states[0]": ...}."""
    if isinstance(entry, Mapping) and not all(isinstance(key, int) for key in entry):
        parts = {f"{path}[{key}]": inner for key, inner in entry.items()}
    elif isinstance(entry, tuple | list) and any(
        isinstance(inner, Mapping | tuple | list) for inner in entry
    ):
        parts = {f"{path}[{i}]": inner for i, inner in enumerate(entry)}
    else:
        return {path: entry}
    return {key: inner for p, each in parts.items() for key, inner in _paths(p, each).items()}


def _axes(name: str, entry: Any) -> dict[int, str]:
    """Return the names of axes: from {0: "N"}, ("N", None), or [0, 1] without names."""
    if entry is None:
        return {}
    if isinstance(entry, Mapping):
        items = list(entry.items())
    elif all(isinstance(axis, int) for axis in entry):
        items = [(axis, f"{name}_axis{axis}") for axis in entry]
    else:
        items = list(enumerate(entry))
    found: dict[int, str] = {}
    for axis, called in items:
        if called is None:
            continue
        called = getattr(called, "__name__", called)  # a torch.export.Dim
        if not isinstance(called, str) or not called.isidentifier():
            raise ValueError(
                f"export: {called!r} is no name for axis {axis} of {name!r}: give letters, digits "
                "and _, such as N"
            )
        found[axis] = called
    return found
