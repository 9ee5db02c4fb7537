"""Run a program by PyTorch and by minitensor, and compare what can be seen of the two runs."""

from __future__ import annotations

import ast
import functools
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from program_table import PRELUDE

import minitensor

PIECES = {node.name: ast.unparse(node) for node in ast.parse(PRELUDE).body if hasattr(node, "name")}
HEADS = {
    torch: "import torch as T\nfrom torch.utils.checkpoint import checkpoint",
    minitensor: "import minitensor as T\nfrom minitensor.autograd import checkpoint",
}
HEAD = "import copy, math\n{}\nF = T.nn.functional\nlog = []"

TOLERANCE = 1e-8  # of float64, relative to the largest number compared (or to 1)


def _spaces() -> dict[Any, dict[str, Any]]:
    spaces: dict[Any, dict[str, Any]] = {}
    for library, head in HEADS.items():
        spaces[library] = {}
        exec(HEAD.format(head) + PRELUDE, spaces[library])
    return spaces


SPACES = _spaces()


def _refreshed(name: str) -> None:
    """Let a method look at `grad_fn` first: else PyTorch crashes on a view whose base changed."""
    method = getattr(torch.Tensor, name)

    @functools.wraps(method)
    def called(self: torch.Tensor, *args: Any) -> Any:
        _ = self.grad_fn
        return method(self, *args)

    setattr(torch.Tensor, name, called)


_refreshed("register_hook")
_refreshed("retain_grad")


# Running a program


@dataclass
class Run:
    """The state in which a program left a library: all that can be seen from outside."""

    names: dict[str, Any]
    log: list[Any]
    stopped: int | None = None  # the statement that was refused
    error: BaseException | None = None


def run(program: Sequence[str], library: Any, *within: Any) -> Run:
    """Run the statements by one library, up to the first that it refuses."""
    base = SPACES[library]
    base["log"].clear()
    space = dict(base)
    stopped, error = None, None
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        for context in within:
            stack.enter_context(context())
        warnings.simplefilter("ignore")
        for number, text in enumerate(program):
            try:
                exec(compiled(text), space)
            except Exception as e:
                stopped, error = number, e.with_traceback(None)
                break
    names = {k: v for k, v in space.items() if k not in base and k != "__builtins__"}
    return Run(names, list(base["log"]), stopped, error)


_codes: dict[str, Any] = {}


def compiled(text: str) -> Any:
    code = _codes.get(text)
    if code is None:
        if len(_codes) > 5000:
            _codes.clear()
        code = _codes[text] = compile(text, "<program>", "exec")
    return code


# Comparing two runs


@dataclass
class Difference:
    """A difference between two runs; `kind` stays the same while the program is shrunk."""

    kind: tuple[str, ...]
    message: str


def _scrubbed(error: BaseException | None) -> str:
    """The first words of a message, without what changes from program to program."""
    text = re.sub(r"Output \d+ of \w+", "Output of", str(error))
    words = re.sub(r"'[^']*'|\"[^\"]*\"|\([^)]*\)|\[[^\]]*\]|-?\d+", "", text).split()
    return " ".join(words[:8])


def _brief(error: BaseException | None) -> str:
    if error is None:
        return "no error"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


def _builtin(error: BaseException) -> type:
    """The first of an error's types that is Python's own."""
    return next(t for t in type(error).__mro__ if t.__module__ == "builtins")


def compare(theirs: Run, ours: Run) -> Difference | None:
    """The first difference between what PyTorch made of a program and what minitensor did."""
    if theirs.stopped != ours.stopped:
        message = f"PyTorch: {_brief(theirs.error)}\nours: {_brief(ours.error)}"
        first_is_ours = theirs.stopped is None or (
            ours.stopped is not None and ours.stopped < theirs.stopped
        )
        if first_is_ours:
            return Difference(
                ("refused by ours", type(ours.error).__name__, _scrubbed(ours.error)), message
            )
        return Difference(("refused by PyTorch", _scrubbed(theirs.error)), message)
    if theirs.error is not None and not isinstance(ours.error, _builtin(theirs.error)):
        message = f"PyTorch: {_brief(theirs.error)}\nours: {_brief(ours.error)}"
        return Difference(
            ("error", type(theirs.error).__name__, type(ours.error).__name__), message
        )
    whole = theirs.error is None  # a refused backward pass may leave any gradients
    for name, a in theirs.names.items():
        found = _differ(a, ours.names.get(name), name, whole)
        if found:
            return found
    if not whole:
        return None
    a, b = ([entry[0] for entry in r.log] for r in (theirs, ours))
    if a != b and sorted(map(str, a)) == sorted(map(str, b)):
        return Difference(("order", "log"), f"hooks: PyTorch {a}, ours {b}")
    return _differ(theirs.log, ours.log, "log", whole)


def _differ(a: Any, b: Any, name: str, grads: bool) -> Difference | None:
    if isinstance(a, torch.Tensor):
        return _tensors_differ(a, b, name, grads)
    if isinstance(a, torch.nn.Module):
        a, b = list(a.parameters()), list(b.parameters()) if hasattr(b, "parameters") else None
    if isinstance(a, list | tuple):
        if not isinstance(b, list | tuple) or len(a) != len(b):
            return Difference(
                ("length", re.sub(r"\d+", "", name)), f"{name}: PyTorch {a}, ours {b}"
            )
        for number, (x, y) in enumerate(zip(a, b, strict=True)):
            found = _differ(x, y, f"{name}[{number}]", grads)
            if found:
                return found
        return None
    if a is None or isinstance(a, bool | int | float | str):
        if a != b:
            return Difference(("is", re.sub(r"\d+", "", name)), f"{name}: PyTorch {a}, ours {b}")
        return None
    return None


def _tensors_differ(
    a: torch.Tensor, b: Any, name: str, grads: bool, leaf: bool = True
) -> Difference | None:
    if not grads and a.is_inference():
        return None  # PyTorch refuses the change of one, and makes it
    kind = re.sub(r"\d+|\[\d+\]", "", name) if name[0] in "lg" else "tensor"
    if b is None and kind == "g" and not a.detach().any():
        return None  # a derivative that is always zero, which ours does not make
    if not isinstance(b, minitensor.Tensor):
        return Difference(("missing", kind), f"{name}: PyTorch {a}, ours {b}")
    # The gradient of a gradient may be missing where it is zero: only values are compared.
    for what in () if kind != "tensor" or name.endswith(".grad") else ("requires_grad", "is_leaf"):
        x, y = _flag(a, what), _flag(b, what)
        given_up = isinstance(x, str) or any(text in str(y) for text in INTENDED)
        if x != y and not given_up:
            return Difference((what, kind), f"{name}.{what}: PyTorch {x}, ours {y}")
    x, y = a.detach().numpy(force=True), b.detach().numpy()
    if x.shape != y.shape or x.dtype != y.dtype:
        message = f"{name}: PyTorch {x.shape} {x.dtype}, ours {y.shape} {y.dtype}"
        return Difference(("shape", kind), message)
    # The order of axes in a result's memory is an op's own affair; a leaf's gradient has that of
    # the leaf.
    if name.endswith(".grad") and leaf and a.is_contiguous() and not b.is_contiguous():
        return Difference(("layout", kind), f"{name}: PyTorch {a.stride()}, ours {b.stride()}")
    if not _close(x, y):
        message = f"{name}: PyTorch {_show(x)}, ours {_show(y)}"
        if _show(x) == _show(y):
            message += f", differ by {np.abs(x - y).max():.1e}"
        return Difference(("value", kind), message)
    if not grads:
        return None
    g = a.grad if _flag(a, "is_leaf") is True or a.retains_grad else None
    h = b.grad
    if h is None and g is not None and not g.detach().any():
        return None
    if (g is None) != (h is None):
        message = f"{name}.grad: PyTorch {_show(g)}, ours {_show(h)}"
        return Difference(("missing", f"{kind}.grad"), message)
    if g is None:
        return None
    found = _tensors_differ(g, h, f"{name}.grad", False, _flag(a, "is_leaf") is True)
    if found:
        found.kind = (found.kind[0], f"{found.kind[1]}.grad")
    return found


def _flag(t: Any, what: str) -> Any:
    try:
        return getattr(t, what)
    except (RuntimeError, IndexError) as error:
        return str(error)


def _show(x: Any) -> str:
    if hasattr(x, "detach"):
        x = x.detach().numpy(force=True)
    return "None" if x is None else np.array2string(np.asarray(x), precision=6, separator=", ")


def _close(x: np.ndarray, y: np.ndarray) -> bool:
    if x.dtype.kind != "f":
        return bool((x == y).all())
    finite = np.isfinite(x)
    if not (finite == np.isfinite(y)).all():
        return False
    if not finite.all():
        if not np.array_equal(x[~finite], y[~finite], equal_nan=True):
            return False
        x, y = x[finite], y[finite]
    if not x.size:
        return True
    return bool(np.abs(x - y).max() <= TOLERANCE * max(1.0, float(np.abs(x).max())))


# Intended refusals of one library only: a part of the message, and the reason.
INTENDED = {
    "to a single memory location": "A change in place whose operand overlaps what it writes: "
    "PyTorch forbids some of these; ours computes the result first. Some writes to an expanded "
    "tensor: PyTorch writes and warns; ours refuses, as it does every such write.",
    "saved tensor that has been detached in-place": "Ours uses the history that the tensor had "
    "when it was saved, as after every other change of a variable.",
    "laid out anew in place": "PyTorch goes on with a view whose base was transposed in place, "
    "by strides; ours makes views again from the base, and says that it cannot.",
    "saved by ScaledDotProductAttention": "It keeps its arguments and its result for the way "
    "back, as PyTorch's does in four dimensions; with fewer PyTorch composes it of other ops.",
    "saved by Linear": "Ours wants all arguments of a fused op for its second derivative.",
    "saved by CrossEntropy": "So it does here; PyTorch's keeps the logarithms alone.",
    "Inference tensors cannot be saved": "As the two above: ours keeps what PyTorch does not.",
    "visited LerpBackward0 already": "Ours saves the weight, PyTorch no number.",
    "Setting requires_grad=True on inference tensor": "Ours lets it, and refuses to use the tensor "
    "in a graph.",
    "do not track version counter": "As the one before.",
    "A different number of tensors was saved": "A leaf that no longer requires a gradient: "
    "ours leaves it out, PyTorch counts the tensors that its checkpoint saves.",
    "Can't detach views in-place": "The result of a linear layer is a view in PyTorch alone.",
    "view size is not compatible": "The order of axes in the memory of a result: ours is NumPy's.",
    "visited IndexSelectBackward0 already": "Ours saves the indices of "
    "repeat_interleave; PyTorch's expands.",
}
VERSION = "one of the variables needed for gradient computation has been modified"
SEVERAL = "output of a function that returns multiple views"


@contextmanager
def one_by_one() -> Iterator[None]:
    """Let PyTorch make the views of unbind, split and chunk one by one, which it lets change."""
    methods = {name: getattr(torch.Tensor, name) for name in ("unbind", "split", "chunk")}
    methods["tensor_split"] = torch.Tensor.tensor_split

    def alone(name: str) -> Callable[..., Any]:
        def made(self: torch.Tensor, *args: Any) -> Any:
            parts = methods[name](self.detach(), *args)
            dim = (args if name == "unbind" else args[1:] or (0,)) or (0,)
            if name == "unbind":
                return tuple(self.select(dim[0], i) for i in range(len(parts)))
            sizes = [p.shape[dim[0]] for p in parts]
            starts = [sum(sizes[:i]) for i in range(len(sizes))]
            return tuple(
                self.narrow(dim[0], start, size) for start, size in zip(starts, sizes, strict=True)
            )

        return made

    for name in methods:
        setattr(torch.Tensor, name, alone(name))
    try:
        yield
    finally:
        for name, method in methods.items():
            setattr(torch.Tensor, name, method)


# Programs that only PyTorch refuses, and rewritings by which it gives the right gradients.
OTHERWISE = {
    VERSION: torch.autograd.graph.allow_mutation_on_saved_tensors,
    SEVERAL: one_by_one,
}


def difference(program: Sequence[str], theirs: Run | None = None) -> Difference | None:
    """Return the difference between the two libraries on a program; None if they agree.

    PyTorch saves more than it needs for some derivatives, and then refuses a harmless change of it;
    it also refuses to change the views that one op makes together. Where minitensor goes on, its
    gradients must be those of PyTorch with copies, or with views made one by one.
    """
    theirs = theirs or run(program, torch)
    ours = run(program, minitensor)
    found = compare(theirs, ours)
    if found is None:
        return None
    ways = dict(OTHERWISE)
    while found and found.kind[0] == "refused by PyTorch" and len(ways) > 0:
        text = next((t for t in ways if t in str(theirs.error)), None)
        if text is None:
            break
        del ways[text]
        theirs = run(program, torch, *(w for t, w in OTHERWISE.items() if t not in ways))
        found = compare(theirs, ours)
        if found:
            found.message += "\n(PyTorch refuses it as it stands; this is how it goes otherwise)"
    if found is None:
        return None
    if found.kind[0].startswith("refused by"):
        refusal = str((theirs if found.kind[0] == "refused by PyTorch" else ours).error)
        if any(text in refusal for text in INTENDED):
            return None
    if found.kind == ("value", "log") and "create_graph" in "".join(program):
        return None  # a hook sees which tensors a derivative is written in
    return found


def source(program: Sequence[str], library: Any) -> str:
    """A program as a file of its own for one library."""
    body = "\n".join(program)
    wanted: dict[str, str] = {}
    text = body
    while True:
        found = [n for n in PIECES if n not in wanted and re.search(rf"\b{n}\b", text)]
        if not found:
            break
        wanted.update((n, PIECES[n]) for n in found)
        text = "\n".join([body, *wanted.values()])
    pieces = [piece for name, piece in PIECES.items() if name in wanted]
    return "\n\n".join([HEAD.format(HEADS[library]), *pieces, body]) + "\n"
