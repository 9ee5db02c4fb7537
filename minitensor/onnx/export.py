"""`export`: a model as an ONNX file."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any

from ..autograd import no_grad
from ..graph.program import Program
from ..graph.trace import leaves
from ..random import default_generator
from ..recording import refs
from .axes import named_axes
from .runs import Merged, Named, modules_of, run_all
from .write import model_of

OPSET = 18
LARGEST = 2**31 - 2**20  # bytes of a file that has its weights inside


def export(
    model: Callable[..., Any],
    args: Any = (),
    f: str | os.PathLike[str] | IO[bytes] | None = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    opset_version: int = OPSET,
    dynamic_axes: Mapping[str, Any] | None = None,
    dynamic_shapes: Mapping[str, Any] | Sequence[Any] | None = None,
) -> Any:
    """Write what `model(*args, **kwargs)` computes as an ONNX file, and return it as a ModelProto.

    - `model`: a module, a method of one, or any function of tensors. Modules run in eval mode.
    - `args`: a tensor, or a tuple of arguments.
    - `f`: a path, or a binary file; with None the model is only returned. Weights of more than
      2 GiB are written beside the file, as "<f>.data".
    - `input_names`, `output_names`: names for the tensors among the arguments and the results, by
      default those of the parameters, and "output" or the results' keys.
    - `dynamic_axes`: the axes whose size may change, by the name of the input: {"tokens": {0: "N",
      1: "L"}}; axes of one name have one size. Others keep the size that they have in `args`.
    - `dynamic_shapes`: the same by the name of the parameter, or in order: ({0: "N", 1: "L"},).
    - `opset_version`: 18 or later. Every op used here has in 18 the form that it still has, and
      runtimes since 2023 read it.

    Nodes are named after the modules that run them, "decoder.layers.0.linear1/MatMul", and weights
    as in the state dict. Fused ops are opened: attention becomes products and a softmax.

    The program runs several times, with other numbers and with other sizes of the named axes. What
    follows from a size, `reshape(N, L, -1)`, `arange(L)`, a causal mask, is computed in the file;
    what differs between runs in any other way raises an error that names it. A table that is read
    up to a size, as of positions, is as long in the file as in the model.

    A UserWarning says where the program looked at numbers in Python, as in `if x.any()`: the file
    does what the program did for these inputs.

    Raises RuntimeError for an op that has no translation and for what follows neither from the
    inputs nor from sizes, ValueError for names and axes that do not fit, ImportError without the
    package onnx.
    """
    try:
        import onnx  # noqa: F401
    except ImportError:
        message = "export needs the package onnx: pip install 'minitensor[onnx]'"
        raise ImportError(message) from None
    if opset_version < OPSET:
        raise ValueError(f"export: opset_version must be {OPSET} or later, not {opset_version}")
    args = args if isinstance(args, tuple) else (args,)
    program = Program(model, args, dict(kwargs or {}))
    given = [found for name, x in program.bound().arguments.items() for found in leaves(name, x)]
    named = _named_inputs(given, input_names)
    axes = named_axes(named, given, dynamic_axes, dynamic_shapes, output_names or ())
    with _evaluating(program), no_grad():
        merged, results = run_all(program, named, axes)
    names = _named_outputs([key for key, _ in results], output_names)
    made = model_of(merged, axes, names, opset_version, program.name)
    _warn(merged)
    if f is not None:
        _save(made, f)
    return made


@contextlib.contextmanager
def _evaluating(program: Program) -> Iterator[None]:
    """Let all modules be in eval mode, and random numbers go on where they were."""
    start = default_generator.get_state()
    training = [m for _, top in modules_of(program) for m in top.modules() if m.training]
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True
        default_generator.set_state(start)


def _named_inputs(given: Named, names: Sequence[str] | None) -> Named:
    """Return the tensors among the arguments, each once, with the names given, in order."""
    first = {id(t): (name, t) for name, t in reversed(given)}
    inputs = [first[key] for key in dict.fromkeys(id(t) for _, t in given)]
    found = _renamed("input_names", [name for name, _ in inputs], names)
    return [(name, t) for name, (_, t) in zip(found, inputs, strict=True)]


def _named_outputs(keys: list[str], names: Sequence[str] | None) -> list[str]:
    """Return the names of outputs: those given, and else their keys or fields, or "output"."""
    own = [key.strip("[]").replace("][", ".") for key in keys]
    own = [f"output{name}" if name[:1].isdigit() else name or "output" for name in own]
    return _renamed("output_names", own, names)


def _renamed(what: str, own: list[str], names: Sequence[str] | None) -> list[str]:
    """Return names, the first of them as given; ValueError for too many and for one twice."""
    given = list(names or ())
    if len(given) > len(own):
        raise ValueError(f"export: {len(given)} {what} for {len(own)} tensors: {', '.join(own)}")
    found = [*given, *own[len(given) :]]
    twice = [name for name in found if found.count(name) > 1]
    if twice:
        raise ValueError(f"export: {what} has {twice[0]!r} twice")
    return found


def _warn(merged: Merged) -> None:
    """Warn of numbers that left the graph and depend on the inputs."""
    depends = set(merged.inputs)
    for call in merged.calls:
        if depends.intersection(refs((call.args, call.kwargs))):
            depends.update(call.outs)
    found = {(d.line, d.method) for d in merged.departures if d.value in depends}
    for line, method in sorted(found):
        warnings.warn(
            f"export: at {line}, {method}() looks at numbers that depend on the inputs; the file "
            "does what the program did for those given",
            stacklevel=3,
        )


def _save(made: Any, f: str | os.PathLike[str] | IO[bytes]) -> None:
    """Write a model, the weights of a large one beside it."""
    import onnx

    if not isinstance(f, str | os.PathLike):
        f.write(made.SerializeToString())
    elif made.ByteSize() < LARGEST:
        onnx.save(made, os.fspath(f))
    else:
        name = f"{os.path.basename(f)}.data"
        onnx.save(made, os.fspath(f), save_as_external_data=True, location=name)
        onnx.checker.check_model(os.fspath(f), full_check=True)
