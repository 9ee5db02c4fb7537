"""Constants that a program made from sizes: recognised by their numbers at several sizes.

`arange(L)`, `zeros(N, H)`, the causal mask (L, L) and the like are no results of ops on the inputs.
A file that simply held them would be wrong at other sizes, so they are computed in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .emit import Emitter
from .sizes import Solver, Varying


def emit_constant(
    g: Emitter, arrays: Sequence[np.ndarray], shape: tuple[Any, ...], solver: Solver
) -> str:
    """Return the name of a tensor that was `arrays` in the runs, or "" if it is not recognised."""
    first = arrays[0]
    if all(a.shape == first.shape and _equal(a, first) for a in arrays):
        return g.constant(first, first.dtype)
    if any(isinstance(n, Varying) for n in shape):
        return ""
    return (
        _filled(g, arrays, shape)
        or _counted(g, arrays, shape, solver)
        or _diagonal(g, arrays, shape, solver)
    )


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def _filled(g: Emitter, arrays: Sequence[np.ndarray], shape: tuple[Any, ...]) -> str:
    """Return an array of one number everywhere."""
    numbers = {a.flat[0].item() for a in arrays if a.size}
    if len(numbers) != 1 or any(not (a == a.flat[0]).all() for a in arrays if a.size):
        return ""
    value = g.constant(numbers.pop(), arrays[0].dtype)
    return g.op("Expand", value, g.sizes(shape)) if shape else value


def _counted(
    g: Emitter, arrays: Sequence[np.ndarray], shape: tuple[Any, ...], solver: Solver
) -> str:
    """Return start, start + step, ...: a vector, or a 0-dim tensor."""
    first = arrays[0]
    if first.ndim > 1 or first.dtype.kind not in "iuf" or not all(a.size for a in arrays):
        return ""
    start: Any = solver.number(tuple(a.flat[0].item() for a in arrays))
    steps = {(a[1] - a[0]).item() for a in arrays if a.ndim and a.size > 1}
    integer = first.dtype.kind != "f"
    if integer or all(float(a.flat[0]).is_integer() for a in arrays):
        start = solver.size(tuple(int(a.flat[0]) for a in arrays))
    if isinstance(start, Varying) or len(steps) > 1:
        return ""
    if not first.ndim:
        return g.scalar(start, first.dtype)
    step = steps.pop() if steps else 1
    for a in arrays:
        if not np.allclose(a, a[0] + step * np.arange(a.size), rtol=1e-6, atol=0):
            return ""
    numbers = g.cast(g.range(shape[0]), first.dtype, np.dtype(np.int64))
    if step != 1:
        numbers = g.op("Mul", numbers, g.constant(step, first.dtype))
    if start != 0:
        numbers = g.op("Add", numbers, g.scalar(start, first.dtype))
    return numbers


def _diagonal(
    g: Emitter, arrays: Sequence[np.ndarray], shape: tuple[Any, ...], solver: Solver
) -> str:
    """Return a matrix with one number where j - i < k (or = k), and another elsewhere."""
    if len(shape) != 2:
        return ""
    for test in ("Less", "Equal"):
        edges: list[int] = []
        pairs: set[tuple[float, float]] = set()
        for a in arrays:
            found = _edge(a, test)
            if found is None:
                break
            edges.append(found[0])
            pairs.add(found[1:])
        edge = solver.size(tuple(edges)) if len(edges) == len(arrays) else None
        if edge is None or isinstance(edge, Varying) or len(pairs) != 1:
            continue
        inside, outside = pairs.pop()
        rows, columns = (g.unsqueeze(g.range(n), 1 - i) for i, n in enumerate(shape))
        distance = g.op("Sub", columns, rows)
        true = g.op(test, distance, g.scalar(edge))
        if arrays[0].dtype == np.bool_:
            return true if inside else g.op("Not", true)
        values = (g.constant(v, arrays[0].dtype) for v in (inside, outside))
        return g.op("Where", true, *values)
    return ""


def _edge(a: np.ndarray, test: str) -> tuple[int, float, float] | None:
    """Return k and the numbers inside and outside, for a matrix that `_diagonal` describes."""
    distance = np.arange(a.shape[1]) - np.arange(a.shape[0])[:, None]
    values = np.unique(a)
    if len(values) != 2:
        return None
    for inside, outside in (values.tolist(), values[::-1].tolist()):
        of_inside = distance[a == inside]
        k = int(of_inside.max()) + 1 if test == "Less" else int(of_inside[0])
        expected = distance < k if test == "Less" else distance == k
        if np.array_equal(a == inside, expected):
            return k, inside, outside
    return None
