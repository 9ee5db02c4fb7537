"""Each op's own backward, checked at the arguments that it runs with, as it runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

import numpy as np

from ..autograd import Function
from ..autograd.grad_mode import enable_grad, no_grad, observe
from ..autograd.gradients import grad
from ..core import Node, Observer, Tensor, module_path, state, wrap
from ..dtype import FLOATING
from ..graph.describe import argument_names
from ..graph.frames import line_of, user_frame
from ..random import default_generator
from .probe import Checked
from .report import How, Report, Row
from .samples import leaves


class Watch(Observer):
    """Checks the backward of each op that is recorded for one, at its arguments, as it runs."""

    sees_writes = True

    def __init__(self, how: How, report: Report) -> None:
        self.how, self.report = how, report
        self.rows: dict[Any, Row] = {}
        self.outside: list[FrameType] = []  # functions that called for the check

    def __enter__(self) -> None:
        if any(observer.sees_writes for observer in state.observers):
            raise RuntimeError("a recording is running already: trace or check one at a time")
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            self.outside.append(frame)
            frame = frame.f_back
        self._observing = observe(self)
        self._observing.__enter__()

    def __exit__(self, *exception: object) -> None:
        self._observing.__exit__(*exception)
        del self._observing  # it holds this watch
        self.outside.clear()

    def ran(self, run: Node, args: Sequence[Any], kwargs: Any, outs: Sequence[Tensor]) -> None:
        """Check the run of an op."""
        if not run.recorded or not any(edge is not None for edge in run.edges):
            return  # no gradient passes through it
        frame, inner = user_frame(sys._getframe(1))
        if frame in self.outside and inner is not None:  # the model uses only this library
            frame, inner = inner, None
        source, code = line_of(frame)
        line = f"{source} `{code}`" if code else source
        if inner is not None:
            line += f" ({line_of(inner)[0]})"
        place = module_path(), line
        random = default_generator.get_state()
        self.report.runs += 1
        try:
            with observe(without=Observer):
                for row in _rows(run, args, dict(kwargs), self.how):
                    self._note(row, run, args, place)
        finally:
            default_generator.set_state(random)

    def _note(self, row: Row, run: Node, args: Sequence[Any], place: tuple[str, str]) -> None:
        """Keep the worst row of the runs whose arguments have the same shapes and settings."""
        row.module, row.line = place
        given = tuple(a._array.shape if isinstance(a, Tensor) else repr(a) for a in args)
        key = type(run), row.name, row.order, given
        known = self.rows.get(key)
        if known is None:
            self.rows[key] = row
            self.report.ops.append(row)
            return
        runs = known.runs + 1
        worse = known.ok and (not row.ok or row.checked.error > known.checked.error)
        if worse:
            known.__dict__.update(row.__dict__)
        known.runs = runs


def _rows(run: Any, args: Sequence[Any], kwargs: dict[str, Any], how: How) -> Iterator[Row]:
    """Return the results for the arguments of an op that have a gradient."""
    names = argument_names(type(run).forward)
    places = [i for i, edge in enumerate(run.edges) if edge is not None]
    titles = [f"{run.op_name}: {names[min(i, len(names) - 1)]}" for i in places]
    if any(a._array.dtype != np.float64 for a in (args[i] for i in places)) or any(
        dtype != np.float64
        for _, dtype in run.output_meta
        if dtype is not None and dtype.kind in FLOATING
    ):
        for i, title in zip(places, titles, strict=True):
            problem = "it computes in another type than float64, where differences say nothing"
            yield Row(title, 1, Checked.failed(args[i]._array.shape, problem))
        return
    arrays = [_private(a._array) for a in (args[i] for i in places)]
    fixed: list[np.ndarray | None] = [None] * len(places)
    row = kwargs.get("padding_idx")
    if row is not None and "weight" in names and names.index("weight") in places:
        table = places.index(names.index("weight"))
        region = np.zeros(arrays[table].shape, bool)
        region[row] = True
        fixed[table] = how.fixed[id(args[places[table]])] = region
    mine = isinstance(run, Function)  # it may change its arguments, and draw random numbers
    start = default_generator.get_state()

    def call(tensors: Sequence[Tensor]) -> list[Tensor]:
        if mine:
            default_generator.set_state(start)
        given = list(args)
        for i, t in zip(places, tensors, strict=True):
            given[i] = t.clone() if mine else t
        made = type(run).apply(*given, **kwargs)
        outs = leaves([made])
        return [out for out in outs if out._array.dtype.kind in FLOATING]

    def values() -> list[np.ndarray]:
        with no_grad():
            return [out._array for out in call([wrap(a) for a in arrays])]

    def backward(tensors: Sequence[Tensor], dys: Sequence[Tensor], further: bool) -> Any:
        with enable_grad():
            pairs = [p for p in zip(call(tensors), dys, strict=True) if p[0].requires_grad]
            outs, starts = [o for o, _ in pairs], [dy for _, dy in pairs]
            return grad(outs, tensors, starts, create_graph=further, allow_unused=True)

    def leaf(array: np.ndarray) -> Tensor:
        made: Tensor = wrap(array)
        made._requires_grad = True
        return made

    weights = how.weights(values())
    try:
        # The arguments themselves, so that they lie in memory as they did.
        found = backward([leaf(args[i]._array) for i in places], [wrap(w) for w in weights], False)
    except Exception as error:
        for i, title in zip(places, titles, strict=True):
            yield Row(title, 1, Checked.failed(args[i]._array.shape, one_line(error)))
        return
    for array, title, g, some in zip(arrays, titles, found, fixed, strict=True):
        yield Row(title, 1, how.check(values, weights, array, g, some))
    if not how.second:
        return
    titles += [f"{run.op_name}: gradient of output {i}" for i in range(len(weights))]
    arrays += weights
    fixed += [None] * len(weights)
    tensors, count = [leaf(a) for a in arrays], len(places)
    try:
        first = backward(tensors[:count], tensors[count:], True)
        outer = how.weights(arrays[:count])
        pairs = [
            (g, wrap(w))
            for g, w in zip(first, outer, strict=True)
            if g is not None and g.requires_grad
        ]
        result: Sequence[Tensor | None] = [None] * len(tensors)
        if pairs:
            result = grad([g for g, _ in pairs], tensors, [w for _, w in pairs], allow_unused=True)
    except Exception as error:
        for array, title in zip(arrays, titles, strict=True):
            yield Row(title, 2, Checked.failed(array.shape, one_line(error)))
        return

    def gradients() -> list[np.ndarray]:
        made = backward([leaf(a) for a in arrays[:count]], [wrap(w) for w in arrays[count:]], False)
        return [
            np.zeros(a.shape) if g is None else g._array
            for g, a in zip(made, arrays[:count], strict=True)
        ]

    for array, title, g, some in zip(arrays, titles, result, fixed, strict=True):
        yield Row(title, 2, how.check(gradients, outer, array, g, some))


def _private(array: np.ndarray) -> np.ndarray:
    """Return a copy that can be changed; its dimensions lie in memory in the same order."""
    made = np.empty_like(array)
    made[...] = array
    return made


def one_line(error: Exception) -> str:
    """Return the class and message of an error, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
