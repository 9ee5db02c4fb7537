"""`trace`: the graph of a function or module; `of`: the autodiff graph of a tensor."""

from __future__ import annotations

import contextlib
import io
import statistics
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from ..autograd import grad
from ..core import Node as Run
from ..core import Tensor, wrap
from ..nn import Module, Parameter
from ..random import default_generator
from .data import LIMIT
from .describe import argument_names, describe, readable, saved_arrays
from .dims import name_axes
from .model import Graph, Group, Node
from .program import Program
from .record import Recorder

TIMED_RUNS = 5  # after the first, which also compiles kernels


def trace(
    function: Callable[..., Any],
    /,
    *inputs: Any,
    dims: Mapping[str, int | str] | None = None,
    backward: bool | str = False,
    decompose: bool = False,
    stats: bool = False,
    values: bool | int = False,
    **options: Any,
) -> Graph:
    """Run `function(*inputs, **options)`, a module or any function, and return its graph.

    - `dims` names the axes of inputs by declaration, {"x": "N L E"}, and sizes, {"N": 2, "E": 16};
      a setting or a parameter may be declared by its path too, {"embed_dim": "E"}. An axis gets a
      name, or a formula such as "E/H", only if that is certain: the program runs twice more, on
      copies of all that it reaches in which the sizes are others, and each axis is solved from its
      sizes. Others keep their numbers; `Graph.notes` says why. No constructor runs.
    - `backward` records a backward pass too; no `grad` is touched. It begins at the output called
      "loss", or else at the only one that is a scalar, or else at all of them, with gradients of
      one. `backward="logits"` names another output: its key, field or variable, or its number. A
      backward pass that `function` runs itself is recorded in any case.
    - `decompose` opens fused ops into their decomposition: attention into products, softmax, ...
    - `stats` measures tensors (rms, min, max, share of NaN), gradients (norm) and ops (seconds, the
      median of several runs of a copy of the program, after the one that is recorded).
    - `values` keeps what every tensor held, forward and backward and before and after a change, and
      where each number comes from: in 4 MiB in all, or in so many bytes. Of tensors that are too
      large for that, an even sample of rows and columns is kept.

    A function that has a parameter called dims, backward, decompose, stats or values itself is
    given it in advance: `trace(functools.partial(f, stats=...), x)`, or in a lambda.

    Of a function or module that `minitensor.compile` returned, the ops are drawn that it replays,
    after the rules, each with the `rule` that made it; or, if it runs as it is, a note says why.

    The numbers that `function` computes, and the random numbers it draws, are those of a run that
    is not traced.

    Raises ValueError if no tensor is returned, if `backward` has nothing to differentiate or names
    no output, for a name in `dims` whose size no axis has, and for a declaration that does not fit;
    TypeError for what cannot be called; RuntimeError while another trace is running.
    """
    if not callable(function):
        kind = type(function).__name__
        raise TypeError(f"trace: expected a function or a module to run, got {kind}")
    program, reason = _program(function, inputs, options)
    start = default_generator.get_state()
    limit = LIMIT if values is True else int(values)
    recorder = _record(program, backward, decompose, stats, limit)
    again = program.copies(recorder.changed)
    if stats:
        why = "it changes tensors that cannot be copied"
        if again:
            why = _time(recorder.graph, program, start, backward, decompose)
        if why:
            recorder.graph.timed_runs = 1
            recorder.notes.append(f"time: of one run, in which kernels may be compiled: {why}")
    if dims:

        def record(varied: Program) -> Graph:
            return _record(varied, backward, decompose, stats=False).graph

        name_axes(recorder.graph, dims, program, recorder.values.known, record if again else None)
    if reason:
        recorder.notes.insert(0, f"compile: it runs as it is: {reason}")
    recorder.graph.notes += recorder.notes
    return recorder.graph


def _program(function: Any, inputs: Any, options: Any) -> tuple[Program, str]:
    """Return what is traced; of a compiled function that runs as it is, also the reason."""
    from .compiled import Rewritten, compiled  # which needs `leaves`, by way of ONNX

    original = compiled(function)
    if original is None:
        return Program(function, inputs, options), ""
    program = Rewritten(original, inputs, options)
    reason = program.record()
    return (Program(original, inputs, options), reason) if reason else (program, "")


def _record(
    program: Program, backward: bool | str, decompose: bool, stats: bool, limit: int = 0
) -> Recorder:
    plain, start, before = program.plain(), default_generator.get_state(), None
    if plain is not None:
        before = _record(plain, False, False, stats=False).graph
        default_generator.set_state(start)
    recorder = Recorder(program.name, program.module, program.method, decompose, stats, limit)
    for argument, t in _arguments(program):
        recorder.add_input(argument, t)
    with program, recorder:
        result = program.run()
        outputs = list(leaves("", result))
        if not outputs:
            raise ValueError(
                f"trace: {program.name} returned {type(result).__name__} and no tensor in it: "
                "return the tensor whose graph is wanted"
            )
        for path, t in outputs:
            recorder.add_output(readable(path), t)
        if backward:
            _differentiate(program.name, outputs, recorder, backward)
    if not recorder.graph.seed:
        recorder.graph.seed = _own_seed(recorder.graph)
    if before is not None:
        program.tell(recorder.graph, before)
    return recorder


def _time(
    graph: Graph, program: Program, start: np.ndarray, backward: bool | str, decompose: bool
) -> str:
    """Make the seconds of each node the median of several runs; return why that is not possible.

    Copies of the program run, with the random numbers that it drew from the state `start` on.
    """
    after = default_generator.get_state()
    quiet = io.StringIO()
    found: dict[str, list[float]] = {key: [] for key in graph.nodes}
    try:
        for _ in range(TIMED_RUNS):
            default_generator.set_state(start)
            with (
                contextlib.redirect_stdout(quiet),
                contextlib.redirect_stderr(quiet),
                warnings.catch_warnings(),
            ):
                warnings.simplefilter("ignore")
                again = _record(program.copy(), backward, decompose, stats=True).graph
            if list(again.nodes) != list(graph.nodes):
                return "it runs other ops the next time"
            for key, node in again.nodes.items():
                found[key].append(node.seconds or 0.0)
    except Exception as error:  # a program may be such that it does not run twice
        return " ".join(str(error).split()) or type(error).__name__
    finally:
        default_generator.set_state(after)
    for key, seconds in found.items():
        if graph.nodes[key].seconds is not None:
            graph.nodes[key].seconds = statistics.median(seconds)
    graph.timed_runs = TIMED_RUNS
    return ""


def _differentiate(
    program: str, outputs: list[tuple[str, Tensor]], recorder: Recorder, wanted: bool | str
) -> None:
    """Run a backward pass from the outputs, or from one that is wanted, for the recorder alone."""
    graph, key_of = recorder.graph, recorder.values.of
    names = {id(t): [*graph.values[key_of(t)].names, path] for path, t in outputs}
    roots = [t for _, t in outputs if t.requires_grad]
    if isinstance(wanted, str):
        roots = [t for path, t in outputs if wanted in (*names[id(t)], path.strip("[]"))]
        if not roots or not roots[0].requires_grad:
            known = ", ".join(repr(name) for named in names.values() for name in named if name)
            raise ValueError(
                f"trace: backward={wanted!r} names no output of {program} that requires grad; "
                f"its outputs are {known or 'a single tensor without a name: backward=True'}"
            )
        del roots[1:]
    elif roots and all(map(recorder.walked, roots)):  # a training step: its own pass is shown
        return
    leaves = recorder.values.leaves()
    if not roots or not leaves:
        raise ValueError(
            f"trace: backward=True, but no output of {program} requires grad: let a parameter or "
            "an input require it, and leave no_grad"
        )
    if not isinstance(wanted, str):
        losses = [t for t in roots if any(_last(name) == "loss" for name in names[id(t)])]
        scalars = [t for t in roots if t.numel() == 1]
        chosen = next((found for found in (losses, scalars) if len(found) == 1), None)
        if chosen is None and len(roots) > 1:
            shown = ", ".join(next(filter(None, names[id(t)]), "the output") for t in roots)
            recorder.notes.append(
                f"backward: no output is a single loss, so it begins at {shown} "
                "with gradients of one"
            )
        roots = chosen or [t for t in roots if not recorder.walked(t)]
    if len(roots) == 1:
        graph.seed = graph.called(key_of(roots[0])) or "output"
    ones = [wrap(np.ones_like(t._array)) for t in roots]
    recorder.own_ones = set(map(id, ones))
    grad(roots, leaves, ones, retain_graph=True, allow_unused=True)


def _last(path: str) -> str:
    """Return the last name in a path: "loss" of "out.loss"."""
    return path.rpartition(".")[2].lower()


def _own_seed(graph: Graph) -> str:
    """Return the name of what the program's own backward pass began from, if it is one value."""
    seeds = {
        value.of
        for node in graph.nodes.values()
        if node.direction == "backward" and node.inside is None
        for value in (graph.values[v] for v in node.inputs)
        if value.kind == "gradient" and value.producer is None
    }
    (seed,) = seeds if len(seeds) == 1 else (None,)
    return graph.called(seed) if seed is not None else ""


def _arguments(program: Program) -> list[tuple[str, Tensor]]:
    """Return the tensors among the arguments, by the function's names for them."""
    try:
        named: Mapping[str, Any] = program.bound().arguments
    except (TypeError, ValueError):  # a builtin, or the call is wrong and will say so itself
        named = {**{f"input{i}": x for i, x in enumerate(program.inputs)}, **program.options}
    return [found for name, x in named.items() for found in leaves(name, x)]


def leaves(path: str, x: Any, around: tuple[int, ...] = ()) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in nested containers and in the attributes of objects, with their paths.

    Elements are "x[0]", keys "x[a]", fields "x.a"; without `path`, keys and fields stand alone.
    """
    if isinstance(x, Tensor):
        yield path, x
        return
    if id(x) in around or len(around) > 20 or isinstance(x, type | Module | str):
        return
    items: list[tuple[Any, Any]] = []
    form = f"{path}.{{}}" if path else "{}"
    if isinstance(x, Mapping):
        items, form = [*x.items()], f"{path}[{{}}]" if path else "{}"
    elif isinstance(x, tuple) and hasattr(x, "_fields"):
        items = [*zip(x._fields, x, strict=False)]
    elif isinstance(x, tuple | list):
        items, form = [*enumerate(x)], f"{path}[{{}}]"
    elif not callable(x):
        items = [*getattr(x, "__dict__", {}).items()]
        items += [
            (name, getattr(x, name))
            for name in getattr(type(x), "__slots__", ()) or ()
            if isinstance(name, str) and hasattr(x, name)
        ]
    for key, inner in items:
        yield from leaves(form.format(key), inner, (*around, id(x)))


def of(tensor: Tensor, name: str = "graph") -> Graph:
    """Return the autodiff graph of a tensor: the ops that its backward pass will go through.

    Nothing runs. It has what autodiff knows: the ops that were differentiated, their shapes, and
    saved tensors; not modules, source lines or tensors that need no gradient.

    Raises ValueError for a tensor that no recorded op made.
    """
    if tensor.grad_fn is None:
        raise ValueError(
            "of: no recorded op made this tensor, so no graph hangs on it; trace(function, ...) "
            "records one"
        )
    graph = Graph(name)
    graph.groups[""] = Group("", "", "graph", None)
    values, counts = graph.values, Counter[tuple[str, str]]()
    ids: dict[Any, str] = {}  # of ops, leaf tensors, and arrays by their id()

    def leaf(t: Tensor) -> str:
        if t not in ids:
            kind = "parameter" if isinstance(t, Parameter) else "input"
            key = ids[t] = f"{kind}:{counts['leaf', kind]}"
            counts["leaf", kind] += 1
            values[key] = describe(key, kind, t.shape, t._array.dtype)
            if kind == "input":
                graph.inputs.append(key)
        return ids[t]

    seen: set[Run] = {tensor.grad_fn}
    stack: list[Run] = [tensor.grad_fn]
    while stack:
        run = stack.pop()
        for edge in run.edges:
            if type(edge) is tuple and edge[0] not in seen:
                seen.add(edge[0])
                stack.append(edge[0])
    for run in sorted(seen, key=lambda run: run.sequence_nr):
        count = counts["op", run.op_name]
        counts["op", run.op_name] += 1
        node = Node(f"{run.op_name}.{count}" if count else run.op_name, run.op_name, "", [], [])
        graph.nodes[node.id] = node
        kind: Any = type(run)
        names = argument_names(kind.forward)
        for number, edge in enumerate(run.edges):
            if edge is not None:
                key = leaf(edge) if isinstance(edge, Tensor) else f"{ids[edge[0]]}:{edge[1]}"
                node.inputs.append(key)
                node.input_names.append(names[min(number, len(names) - 1)])
        ids[run] = node.id
        for port, (shape, dtype) in enumerate(run.output_meta):
            key = f"{node.id}:{port}"
            values[key] = describe(key, "activation", shape, dtype)
            values[key].producer, values[key].port = node.id, port
            node.outputs.append(key)
        for array in saved_arrays(run):
            if id(array) not in ids:
                key = ids[id(array)] = f"{node.id}:saved{len(node.saved)}"
                values[key] = describe(key, "saved", array.shape, array.dtype)
                values[key].producer, values[key].saved_by = node.id, [node.id]
                node.saved.append(key)
    edge = tensor._edge
    assert edge is not None
    graph.outputs.append(f"{ids[edge[0]]}:{edge[1]}")
    return graph
