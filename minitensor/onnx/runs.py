"""A program run at several sizes, and the one program with formulas that all runs are."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..autograd.inplace import overwritten
from ..core import OPS, Tensor, wrap
from ..graph.copies import resized
from ..graph.program import Program
from ..graph.trace import leaves
from ..nn import Module
from ..recording import Call, Names, Recording, Value
from .axes import Axes
from .sizes import Solver
from .translate import TRANSLATIONS
from .translate.functions import WHOLE

Named = list[tuple[str, Tensor]]


class DifferentError(Exception):
    """The program did something else at other sizes or with other numbers."""


class Merged:
    """The program that all runs are, with formulas in place of what follows from sizes."""

    def __init__(self, recordings: list[Recording], solver: Solver) -> None:
        first = recordings[0]
        _check_alike(recordings, solver)
        self.solver = solver
        self.inputs = first.inputs
        self.departures = first.departures
        self.values: list[Value] = []
        self.arrays: list[list[np.ndarray | None]] = []  # of each value, in each run
        for values in zip(*(r.values for r in recordings), strict=True):
            columns = zip(*(v.shape for v in values), strict=True)
            shape: Any = tuple(map(solver.size, columns))
            v = values[0]
            self.values.append(Value(v.array, shape, v.dtype, v.kind, v.name, v.line))
            self.arrays.append([v.array for v in values])
        self.calls: list[Call] = []
        for calls in zip(*(r.calls for r in recordings), strict=True):
            args, kwargs = (solver.merged([getattr(c, which) for c in calls])
                            for which in ("args", "kwargs"))  # fmt: skip
            c = calls[0]
            self.calls.append(Call(c.op, args, kwargs, c.outs, c.path, c.line))
        self.outputs: list[int] = []


def _check_alike(recordings: list[Recording], solver: Solver) -> None:
    """Raise DifferentError unless the runs differ in sizes and numbers alone."""
    first, *others = recordings
    for other, sizes in zip(others, solver.runs[1:], strict=True):
        at = ", ".join(f"{name}={n}" for name, n in sizes.items()) or "other numbers in the inputs"
        for mine, its in zip(first.calls, other.calls, strict=False):
            if (mine.op, mine.path) != (its.op, its.path):
                raise DifferentError(
                    f"export: with {at}, the program runs {_told(its)} where it otherwise runs "
                    f"{_told(mine)}: it must do the same at all sizes and for all numbers"
                )
        if len(first.calls) != len(other.calls):
            raise DifferentError(
                f"export: with {at}, the program runs {len(other.calls)} ops, and otherwise "
                f"{len(first.calls)}: a loop over an axis needs an axis that keeps its size, so "
                "do not name it, or use a module that reads all of it at once, such as nn.LSTM"
            )
        kinds = ([(v.kind, v.name, len(v.shape)) for v in r.values] for r in (first, other))
        if next(kinds) != next(kinds):
            raise DifferentError(f"export: with {at}, the program uses other weights or constants")


def _told(call: Call) -> str:
    name = OPS[call.op].op_name if call.op in OPS else call.op
    return f"{name}{f' in {call.path}' if call.path else ''} at {call.line}"


def run_all(program: Program, named: Named, axes: Axes) -> tuple[Merged, Named]:
    """Run a program at the sizes of `axes`; return what it is, and its results.

    RuntimeError if it does not run, or is another program, at other sizes.
    """
    why = ""
    for runs in axes.ways():
        for again in (False, True):
            recordings: list[Recording] = []
            results: list[Named] = []
            sizes: Mapping[str, int] = {}
            try:
                for sizes in runs:
                    first = not recordings
                    with contextlib.nullcontext() if first else _quiet():
                        recording, found = _run(program, named, axes, sizes, moves=not first)
                    recordings.append(recording)
                    results.append(found)
                merged = Merged(recordings, Solver(runs))
            except DifferentError as error:
                if again:
                    raise RuntimeError(str(error)) from None
                continue  # a table of the program's may have become longer in these runs
            except Exception as error:
                if not recordings:
                    raise
                at = ", ".join(f"{name}={n}" for name, n in sizes.items())
                text = " ".join(str(error).split()) or type(error).__name__
                why = why or f"export: with {at} the program does not run: {text}"
                break
            merged.outputs = [recordings[0].number(t) for _, t in results[0]]
            return merged, results[0]
    raise RuntimeError(why)


def _run(
    program: Program, named: Named, axes: Axes, sizes: Mapping[str, int], moves: bool
) -> tuple[Recording, Named]:
    """Run the program on inputs of these sizes; with `moves`, with other numbers if it can."""
    twins = {id(t): _twin(t, axes.shape(name, t, sizes), moves) for name, t in named}
    recording = Recording(names_of(program), _opens, WHOLE)
    for name, t in named:
        recording.add_input(twins[id(t)], name)
    bound = program.bound()
    for name, x in bound.arguments.items():
        bound.arguments[name] = _replaced(x, twins)
    try:
        with _keeping_buffers(program), recording:
            result = program.function(*bound.args, **bound.kwargs)
    except Exception:
        if not moves:
            raise
        return _run(program, named, axes, sizes, moves=False)  # such numbers are not allowed
    found = list(leaves("", result))
    if not found:
        raise RuntimeError(f"export: {program.name} returned no tensor")
    for _, t in found:
        recording.number(t)
    return recording, found


@contextlib.contextmanager
def _keeping_buffers(program: Program) -> Iterator[None]:
    """Let the buffers of all modules have the numbers again that they had, after this block."""
    modules = [module for _, top in modules_of(program) for module in top.modules()]
    members = [(module._buffers, dict(module._buffers)) for module in modules]
    buffers = {id(b): b for _, before in members for b in before.values() if b is not None}
    arrays = [(b, b._array, b._array.copy()) for b in buffers.values()]
    try:
        yield
    finally:
        for now, before in members:
            now.clear()
            now.update(before)
        for b, array, numbers in arrays:
            if (array != numbers).any() and array.flags.writeable:
                array[...] = numbers
                overwritten(b)


def _opens(op: Any) -> bool:
    """Return True for a fused op that is recorded by its decomposition."""
    return op.decomposition is not None and op.__name__ not in TRANSLATIONS


def _twin(t: Tensor, shape: tuple[int, ...], moves: bool) -> Tensor:
    """Return a copy of an input in another shape, and if it `moves` with other numbers.

    They are of the range that its own are from. A matrix that has one number along each diagonal,
    as a causal mask, stays one.
    """
    twin = resized(t, shape, lambda most: most + 1)
    array = twin._array
    if moves and array.size and not _is_diagonal(array):
        array = np.roll(array.reshape(-1), 1)
        if array.dtype.kind == "b":
            array[0] = not array[0]
        elif array.dtype.kind in "iu":
            array[array == array.max()] = array.min()
        else:
            array = array * array.dtype.type(0.9375)
        array = array.reshape(shape)
    made: Tensor = wrap(np.array(array, order="C"), type(twin))
    return made


def _is_diagonal(a: np.ndarray) -> bool:
    return a.ndim == 2 and min(a.shape) > 1 and np.array_equal(a[1:, 1:], a[:-1, :-1])


def _replaced(x: Any, twins: Mapping[int, Tensor]) -> Any:
    """Return an argument with twins in place of the tensors in it."""
    if isinstance(x, Tensor):
        return twins.get(id(x), x)
    if isinstance(x, dict):
        return {key: _replaced(each, twins) for key, each in x.items()}
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return type(x)(*(_replaced(each, twins) for each in x))
    if isinstance(x, tuple | list):
        return type(x)(_replaced(each, twins) for each in x)
    if any(id(t) in twins for _, t in leaves("", x)):  # an object with tensors as attributes
        twin = object.__new__(type(x))
        twin.__dict__.update({key: _replaced(each, twins) for key, each in vars(x).items()})
        return twin
    return x


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


# Names


def modules_of(program: Program) -> list[tuple[str, Module]]:
    """Return the modules that a program uses, with the paths that their weights begin with."""
    return program.modules() if program.module is None else [("", program.module)]


def names_of(program: Program) -> Names:
    """Return the names of modules, weights, and other tensors that modules have."""
    names = Names({}, {})
    for root, top in modules_of(program):
        front = f"{root}." if root else ""
        for name, t in (*top.named_parameters(), *top.named_buffers()):
            names.tensors.setdefault(id(t._array), front + name)
        for path, module in top.named_modules():
            names.modules.setdefault(id(module), (front + path).rstrip("."))
            for name, x in vars(module).items():
                if isinstance(x, Tensor):
                    inside = f"{front}{path}.{name}" if path else front + name
                    names.tensors.setdefault(id(x._array), inside)
    return names
