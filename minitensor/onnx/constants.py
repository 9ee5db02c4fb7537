"""Constants that a program made from sizes: recognised by their numbers at several sizes.

`arange(L)`, `zeros(N, H)`, the causal mask (L, L) and the like are no results of ops on the inputs.
A file that simply held them would be wrong at other sizes, so they are computed in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .emit import Emitter, is_float
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
        or _spaced(g, arrays, shape)
        or _diagonal(g, arrays, shape, solver)
    )


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a, b, equal_nan=is_float(a.dtype))


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
    if first.ndim > 1 or first.dtype.kind == "b" or not all(a.size for a in arrays):
        return ""
    start: Any = solver.number(tuple(a.flat[0].item() for a in arrays))
    steps = {(a[1] - a[0]).item() for a in arrays if a.ndim and a.size > 1}
    integer = not is_float(first.dtype)
    if integer or all(float(a.flat[0]).is_integer() for a in arrays):
        start = solver.size(tuple(int(a.flat[0]) for a in arrays))
    if isinstance(start, Varying) or len(steps) > 1:
        return ""
    if not first.ndim:
        return g.scalar(start, first.dtype)
    step = steps.pop() if steps else 1
    if not all(_is_line(a, step) for a in arrays):
        return ""
    numbers = g.cast(g.range(shape[0]), first.dtype, np.dtype(np.int64))
    if step != 1:
        numbers = g.op("Mul", numbers, g.constant(step, first.dtype))
    if start != 0:
        numbers = g.op("Add", numbers, g.scalar(start, first.dtype))
    return numbers


def _is_line(a: np.ndarray, step: float) -> bool:
    return np.allclose(a, a[0] + step * np.arange(a.size), rtol=1e-6, atol=1e-6 * abs(step))


def _spaced(g: Emitter, arrays: Sequence[np.ndarray], shape: tuple[Any, ...]) -> str:
    """Return a vector of equal steps between two numbers, as of linspace."""
    first = arrays[0]
    if first.ndim != 1 or not is_float(first.dtype) or not all(a.size > 1 for a in arrays):
        return ""
    start, end = first[0].item(), first[-1].item()
    if any(
        (a[0], a[-1]) != (start, end) or not _is_line(a, (end - start) / (a.size - 1))
        for a in arrays
    ):
        return ""
    numbers = g.cast(g.range(shape[0]), first.dtype, np.dtype(np.int64))
    steps = g.op("Sub", g.scalar(shape[0], first.dtype), g.constant(1, first.dtype))
    steps = g.op("Max", steps, g.constant(1, first.dtype))
    share = g.op("Mul", g.op("Div", numbers, steps), g.constant(end - start, first.dtype))
    return g.op("Add", share, g.constant(start, first.dtype))


def _diagonal(
    g: Emitter, arrays: Sequence[np.ndarray], shape: tuple[Any, ...], solver: Solver
) -> str:
    """Return a matrix with one number where j - i < k (or = k), and another elsewhere."""
    if len(shape) != 2:
        return ""
    for test in ("Less", "Equal"):
        every = [_edge(a, test) for a in arrays]
        edges = {found[0] for found in every if found}
        pairs = {found[1:] for found in every if found}
        if len(pairs) != 1 or (None in every and len(edges) != 1):
            continue
        inside, outside = pairs.pop()
        places = tuple(found[0] if found else min(edges) for found in every)
        edge = solver.size(places)
        pairing = zip(arrays, places, strict=True)
        if isinstance(edge, Varying) or not all(
            _holds(a, test, k, inside, outside) for a, k in pairing
        ):
            continue
        rows, columns = (g.unsqueeze(g.range(n), 1 - i) for i, n in enumerate(shape))
        distance = g.op("Sub", columns, rows)
        true = g.op(test, distance, g.scalar(edge))
        if arrays[0].dtype == np.bool_:
            return true if inside else g.op("Not", true)
        values = (g.constant(v, arrays[0].dtype) for v in (inside, outside))
        return g.op("Where", true, *values)
    return ""


def _edge(a: np.ndarray, test: str) -> tuple[int, float, float] | None:
    """Return k and the numbers inside and outside, if a matrix has both and is as `_diagonal` says.

    A small one, such as the causal mask of one token, has one of them alone.
    """
    distance = np.arange(a.shape[1]) - np.arange(a.shape[0])[:, None]
    values = np.unique(a)
    if len(values) != 2:
        return None
    for inside, outside in (values.tolist(), values[::-1].tolist()):
        of_inside = distance[a == inside]
        k = int(of_inside.max()) + 1 if test == "Less" else int(of_inside[0])
        if _holds(a, test, k, inside, outside):
            return k, inside, outside
    return None


def _holds(a: np.ndarray, test: str, k: int, inside: float, outside: float) -> bool:
    """Return True if a matrix has one number where j - i < k (or = k), and the other elsewhere."""
    distance = np.arange(a.shape[1]) - np.arange(a.shape[0])[:, None]
    return np.array_equal(a, np.where(distance < k if test == "Less" else distance == k,
                                      inside, outside).astype(a.dtype))  # fmt: skip
