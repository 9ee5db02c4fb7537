"""Names for the sizes of axes: right, or none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .model import Graph


@dataclass
class Program:
    """What was traced: a function with its arguments."""

    function: Callable[..., Any]
    inputs: tuple[Any, ...]
    options: Mapping[str, Any]


def name_axes(
    graph: Graph, dims: dict[str, int], program: Program, record: Callable[[Program], Graph]
) -> None:
    """Name the axes of all values of `graph` by `dims`."""
    graph.dims = dims
    names: dict[int, list[str]] = {}
    for name, size in dims.items():
        names.setdefault(size, []).append(name)
    for value in graph.values.values():
        value.dims = tuple(
            names[n][0] if len(names.get(n, ())) == 1 else str(n) for n in value.shape
        )
