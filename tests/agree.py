"""Compare every public name that minitensor shares with PyTorch, on generated inputs.

    python tests/agree.py                # the count, and what disagrees; exit code 0 if nothing
    python tests/agree.py torch.add mean # these names alone
    python tests/agree.py --explained    # also the differences that are meant, with their reasons

Each call runs in both libraries in turn, from the same seed and the same numbers. The two must give
the same values, types, shapes and gradients, change the same arguments, or raise the same class.
Calls come from the families of `agree_inputs`, the samples of the registered ops, and the
expressions of `agree_expressions`. A call that PyTorch refuses is not compared.
"""

from __future__ import annotations

import argparse
import ast
import functools
import multiprocessing
import re
import sys
import types
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from agree_expressions import EXPRESSIONS, evaluate, evaluate_layer
from agree_inputs import FAMILIES, Call, D, T
from test_nn_layers import LAYERS

import minitensor
from minitensor.core import NAMESPACES, OPS, Tensor
from minitensor.testing import samples
from minitensor.tools.differences import NO_INPUTS, reason_for
from minitensor.tools.surface import SPACES, is_there, names_of

# rtol and atol by the size of the less precise type.
NEAR = {"float64": 1e-9, "float32": 1e-4, "float16": 4e-3, "bfloat16": 2e-2}


@dataclass
class Outcome:
    """The error of a call, or its results, the gradients, and the arguments after it."""

    error: BaseException | None
    results: list[Any]
    gradients: list[Any]
    arguments: list[Any]
    least: float = 0.0  # the tolerance of the least precise type of the arguments


def spec_of(x: Any) -> Any:
    """Return the arguments of a sample as specs."""
    if isinstance(x, Tensor):
        array = np.array(x._array, order="K")
        return T(array, array.dtype.name) if array.flags.c_contiguous else _transposed(array)
    if isinstance(x, np.dtype | minitensor.dtype):
        return D(x.name)
    if isinstance(x, dict):
        return {key: spec_of(value) for key, value in x.items()}
    return type(x)(spec_of(y) for y in x) if type(x) in (list, tuple) else x


def _transposed(array: np.ndarray) -> T:
    return T(np.ascontiguousarray(array), array.dtype.name, "transposed" * (array.ndim > 1))


def made(library: Any, x: Any, grad: bool, leaves: list[Any]) -> Any:
    """Return nested specs as a library's arguments; tensors are added to `leaves`."""
    if isinstance(x, T):
        leaves.append(x.make(library, grad))
        return leaves[-1]
    if isinstance(x, D):
        return getattr(library, x.name)
    if isinstance(x, dict):
        return {key: made(library, value, grad, leaves) for key, value in x.items()}
    return type(x)(made(library, y, grad, leaves) for y in x) if type(x) in (list, tuple) else x


def is_tensor(x: Any) -> bool:
    """Return True for a tensor of either library."""
    return hasattr(x, "requires_grad") and hasattr(x, "dim")


def flat(x: Any) -> list[Any]:
    """Return the results in nested containers, in order; views and generators are read."""
    if isinstance(x, dict):
        return [*x, *(y for value in x.values() for y in flat(value))]
    if isinstance(x, (list, tuple, types.GeneratorType, set)) and not hasattr(x, "numel"):
        return [type(x).__name__ == "generator"] + [y for value in x for y in flat(value)]
    if type(x).__name__ == "Size":
        return [tuple(x)]
    return [x]


def run(
    library: Any, function: Callable[..., Any], call: Call, in_place: bool, grad: bool = True
) -> Outcome:
    """Make the call in a library."""
    leaves: list[Any] = []
    library.manual_seed(0)
    args, kwargs = made(library, call[0], grad, leaves), made(library, call[1], grad, leaves)
    if in_place and args and is_tensor(args[0]) and args[0].requires_grad:
        args = (args[0].clone(), *args[1:])
    try:
        results = flat(function(*args, **kwargs))
    except Exception as error:
        return Outcome(error, [], [], [])
    arguments = [args[0]] if in_place and args and is_tensor(args[0]) else leaves
    least = max(
        (NEAR.get(name_of(x.dtype), 0.0) for x in [*leaves, *filter(is_tensor, results)]),
        default=0.0,
    )
    return Outcome(None, results, gradients(library, results, leaves), arguments, least)


def gradients(library: Any, results: list[Any], leaves: list[Any]) -> list[Any]:
    """Return the gradients of the leaves for fixed gradients of the results."""
    outs = [y for y in results if is_tensor(y) and y.requires_grad]
    wanted = [x for x in leaves if x.requires_grad]
    if not outs or not wanted:
        return []
    try:
        given = []
        for y in outs:
            dy = library.from_numpy(np.cos(np.arange(y.numel(), dtype=np.float64)))
            given.append(dy.reshape(tuple(y.shape)).to(y.dtype))
        found: Any = library.autograd.grad(outs, wanted, given, allow_unused=True)
    except Exception as error:
        return [error]
    return list(found)


def array_of(x: Any) -> np.ndarray:
    """Return the numbers of a tensor, of a type that NumPy lacks in float32."""
    x = x.detach()
    x = x.float() if "bfloat16" in str(x.dtype) else x
    return np.asarray(x.numpy() if isinstance(x, Tensor) else x.numpy(force=True))


def name_of(dtype: Any) -> str:
    """Return the name of a type of either library."""
    return str(getattr(dtype, "name", dtype)).removeprefix("torch.")


def near(mine: np.ndarray, theirs: np.ndarray, dtype: str, least: float = 0.0) -> bool:
    """Return True if the numbers agree as closely as the type allows, or within `least`."""
    if dtype not in NEAR:
        return bool(np.array_equal(mine, theirs))
    tolerance = max(NEAR[dtype], least)
    with np.errstate(all="ignore"):
        return bool(np.allclose(mine, theirs, tolerance, tolerance, equal_nan=True))


def differs(mine: Any, theirs: Any, least: float = 0.0) -> tuple[str, str] | None:
    """Return the aspect in which two results differ, and both; None if they agree."""
    if is_tensor(theirs) != is_tensor(mine):
        return "type", f"{type(mine).__name__}, not {type(theirs).__name__}"
    if not is_tensor(theirs):
        return plain_differs(mine, theirs)
    own, other = name_of(mine.dtype), name_of(theirs.dtype)
    if own != other:
        return "dtype", f"{own}, not {other}"
    if tuple(mine.shape) != tuple(theirs.shape):
        return "shape", f"{tuple(mine.shape)}, not {tuple(theirs.shape)}"
    if mine.requires_grad != theirs.requires_grad:
        return "requires_grad", f"{mine.requires_grad}, not {theirs.requires_grad}"
    if not near(array_of(mine), array_of(theirs), other, least):
        return "value", f"{array_of(mine).ravel()[:6]}, not {array_of(theirs).ravel()[:6]}"
    return None


def plain_differs(mine: Any, theirs: Any) -> tuple[str, str] | None:
    """Return what differs between two results that are no tensors."""
    if isinstance(theirs, float) and isinstance(mine, float):
        same = near(np.array(mine), np.array(theirs), "float32")
    elif isinstance(theirs, str) and isinstance(mine, str):
        same = re.sub(r"\b(torch|minitensor)\.", "", mine) == theirs.replace("torch.", "")
    elif isinstance(theirs, bool | int | str | type(None) | tuple):
        same = type(mine) is type(theirs) and mine == theirs
    elif isinstance(theirs, np.ndarray):
        same = isinstance(mine, np.ndarray) and mine.dtype == theirs.dtype
        same = same and near(mine, theirs, str(theirs.dtype))
    elif isinstance(theirs, type):
        same = isinstance(mine, type) and mine.__name__ == theirs.__name__
    else:
        same = str(mine).rpartition(".")[2] == str(theirs).rpartition(".")[2] or (
            type(mine).__name__ == type(theirs).__name__
        )
    return None if same else ("value", f"{mine!r}, not {theirs!r}"[:200])


def compare(mine: Outcome, theirs: Outcome, unset: bool) -> tuple[str, str] | None:
    """Return the aspect in which two outcomes differ, and how; None if they agree.

    With `unset`, the numbers of the results mean nothing.
    """
    if theirs.error is not None or mine.error is not None:
        own, other = (
            type(o.error).__name__ if o.error is not None else None for o in (mine, theirs)
        )
        if own == other:
            return None
        if own is None:
            return "accepted", f"PyTorch: {other}: {theirs.error}"[:240]
        if other is None:
            return "refused", f"{own}: {mine.error}"[:240]
        return "class", f"{own}, not {other}: {theirs.error}"[:240]
    least = theirs.least
    if len(mine.results) != len(theirs.results):
        return "count", f"{len(mine.results)} results, not {len(theirs.results)}"
    for a, b in zip(mine.results, theirs.results, strict=True):
        found = differs(a, b, least)
        if found and not (unset and found[0] == "value"):
            return found
    for a, b in zip(mine.arguments, theirs.arguments, strict=True):
        found = differs(a, b, least)
        if found and not unset:
            return f"argument's {found[0]}", found[1]
    failed = [g for g in theirs.gradients if isinstance(g, Exception)]
    if failed:
        return "gradient", f"PyTorch: {failed[0]}"[:240]
    if len(mine.gradients) != len(theirs.gradients):
        return "gradient", f"{len(mine.gradients)}, not {len(theirs.gradients)}"
    for a, b in zip(mine.gradients, theirs.gradients, strict=True):
        told = gradient_differs(a, b, least)
        if told:
            return "gradient", told
    return None


def gradient_differs(mine: Any, theirs: Any, least: float) -> str | None:
    """Return the difference of two gradients; None stands for zeros."""
    if isinstance(mine, Exception):
        return repr(mine)
    if mine is None or theirs is None:
        other = theirs if mine is None else mine
        none = other is None or not array_of(other).any()
        return None if none else f"{mine}, not {theirs}"
    found = differs(mine, theirs, least)
    return f"{found[0]} {found[1]}" if found else None


# Names


@functools.cache
def families() -> dict[str, list[Call]]:
    """The calls of each family."""
    return {name: list(family()) for name, family in FAMILIES.items()}


@functools.cache
def samples_by_function() -> dict[int, list[Call]]:
    """The samples of the registered ops, by the identity of their public function."""
    found: dict[int, list[Call]] = {}
    for op in OPS.values():
        calls = [spec_of((tuple(a), k)) for t in ("float32", "float64") for a, k in samples(op, t)]
        for space in ("torch", "functional"):
            for name in (op.op_name, *getattr(op, "aliases", ())):
                if name in NAMESPACES[space]:
                    found[id(NAMESPACES[space][name])] = calls
        method = vars(Tensor).get(op.op_name)
        if method is not None:
            found[id(method)] = calls
    return found


def of(library: Any, space: str, name: str) -> Any:
    """Return an attribute of a namespace of a library."""
    path = space.removeprefix("torch").strip(".")
    if library is minitensor:
        path = SPACES[space].removeprefix("minitensor").strip(".")
    found = library
    for part in path.split("."):
        found = getattr(found, part) if part else found
    return getattr(found, name)


def called(space: str, name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return the function, or the reading of a property, of both libraries."""
    import torch

    mine, theirs = of(minitensor, space, name), of(torch, space, name)
    if space != "torch.Tensor":
        return mine, theirs

    def read(x: Any, *args: Any, **kwargs: Any) -> Any:
        found = getattr(x, name)
        return found(*args, **kwargs) if callable(found) and not is_tensor(found) else found

    return read, read


def calls_of(space: str, name: str) -> Iterator[tuple[str, list[Call]]]:
    """Yield the families of calls to try a name with."""
    mine = of(minitensor, space, name)
    own = samples_by_function().get(id(mine))
    if own is None and space == "torch.Tensor":
        own = samples_by_function().get(id(NAMESPACES["torch"].get(name.removesuffix("_"))))
    if own:
        yield "samples", own
    yield from families().items()


@dataclass
class Found:
    """A disagreement: the name, the aspect, how, the call, and the reason if it is meant."""

    name: str
    aspect: str
    how: str
    call: str
    reason: str | None = None


BY_FAMILIES = ("torch", "torch.Tensor", "torch.nn.functional", "torch.linalg")
UNSET = {
    "new",
    "empty",
    "empty_like",
    "new_empty",
    "data_ptr",
    "Tensor",
    "skip_init",
}  # any numbers
# What changes the state of the process, reads files or makes other things than tensors.
NO_FAMILIES = re.compile(
    r"(.*\.)?(set_\w+|seed|manual_seed|save|load|no_grad|enable_grad|inference_mode|Generator|"
    r"is_grad_enabled|is_inference_mode_enabled|register_\w+|backward|retain_grad|\w*Tensor)"
)


def agree(full: str, counts: Counter[str]) -> list[Found]:
    """Compare one name on all calls; `counts` gets the number of them under the name."""
    import torch

    space, _, name = full.rpartition(".")
    if space not in BY_FAMILIES or NO_FAMILIES.fullmatch(name):
        return []
    mine, theirs = called(space, name)
    if not callable(theirs) or isinstance(theirs, type | torch.dtype):  # a constant, a class
        counts[full] += 1
        difference = plain_differs(mine, theirs)
        return [Found(full, *difference, "")] if difference else []
    found = []
    in_place = name.endswith("_") and not name.endswith("__")
    for family, calls in calls_of(space, name):
        probes = calls if family == "samples" else calls[:: max(1, len(calls) // 12)]
        fits = any(run(torch, theirs, call, in_place).error is None for call in probes)
        for call in calls if fits else ():
            if space == "torch.Tensor" and not isinstance(call[0][0], T):
                continue
            other = run(torch, theirs, call, in_place)
            if other.error is not None:
                continue
            counts[full] += 1
            own = run(minitensor, mine, call, in_place)
            difference = compare(own, other, name in UNSET)
            if difference:
                found.append(Found(full, *difference, shown(call)))
    return found


def shown(call: Call) -> str:
    """Return the arguments of a call as text."""
    args, kwargs = call
    return ", ".join([*map(repr, args), *(f"{k}={v!r}" for k, v in kwargs.items())])


# Expressions


def named_in(expression: str, names: set[str]) -> set[str]:
    """Return those of the shared names that an expression uses; none if it uses others too."""
    if expression in LAYERS:
        return {f"torch.nn.{expression.split()[0].strip(',')}"} & names
    spaces = {
        "torch": "torch",
        "nn": "torch.nn",
        "F": "torch.nn.functional",
        "optim": "torch.optim",
        "S": "torch.optim.lr_scheduler",
        "data": "torch.utils.data",
    }
    found, missing = set(), False
    for node in ast.walk(ast.parse(expression, mode="eval")):
        if not isinstance(node, ast.Attribute):
            continue
        found.add(f"torch.Tensor.{node.attr}")
        path, base = [node.attr], node.value
        while isinstance(base, ast.Attribute):
            path.append(base.attr)
            base = base.value
        if isinstance(base, ast.Name) and base.id in spaces:
            full = ".".join([spaces[base.id], *reversed(path)])
            found.add(full)
            missing = missing or not is_there(full.removeprefix("torch."))
    return set() if missing else found & names


def evaluated(library: Any, expression: str) -> Outcome:
    """Evaluate an expression in a library."""
    try:
        if expression in LAYERS:
            make, arrays = LAYERS[expression]
            value, leaves = evaluate_layer(library, make, arrays)
        else:
            value, leaves = evaluate(expression, library)
    except Exception as error:
        return Outcome(error, [], [], [])
    results = flat(value)
    return Outcome(None, results, gradients(library, results, leaves), leaves)


def agree_on(expression: str) -> tuple[str, str] | None:
    """Compare the value of an expression; return the aspect that differs, and how."""
    import torch

    theirs = evaluated(torch, expression)
    if theirs.error is not None:
        raise AssertionError(f"PyTorch refuses {expression}") from theirs.error
    unset = any(f".{name}" in expression for name in ("skip_init", "empty"))
    return compare(evaluated(minitensor, expression), theirs, unset)


def shared() -> list[str]:
    """Return the full names of everything public that both libraries have."""
    found = []
    for space in SPACES:
        theirs = set(names_of(space))
        found += [f"{space}.{n}" for n in names_of(space, minitensor) if n in theirs]
    return found


def compared(names: Sequence[str]) -> tuple[list[Found], Counter[str]]:
    """Compare the names, one after the other."""
    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    minitensor.exact_dropout(True)
    counts: Counter[str] = Counter()
    return [f for n in names if not left_out(n) for f in agree(n, counts)], counts


def all_compared(names: Sequence[str], jobs: int = 2) -> tuple[list[Found], Counter[str]]:
    """Compare the names in several processes, then the expressions that use them."""
    found: list[Found] = []
    counts: Counter[str] = Counter()
    pieces = [names[k :: jobs * 8] for k in range(jobs * 8)]
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=spawned) as pool:
        for some, counted in pool.map(compared, pieces):
            found += some
            counts += counted
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        minitensor.exact_dropout(True)
        for expression in (*EXPRESSIONS, *LAYERS):
            used = named_in(expression, set(names))
            if used:
                counts.update(used)
                difference = agree_on(expression)
                if difference:
                    found.append(Found(min(used, key=len), *difference, expression))
    for f in found:
        f.reason = reason_for(f.name, f.aspect, f.how, f.call)
    return found, counts


def left_out(name: str) -> bool:
    """Return True if no calls of a name are generated, for a reason."""
    return any(re.fullmatch(pattern, name) for pattern in NO_INPUTS)


def without_inputs(names: Sequence[str], counts: Counter[str]) -> list[str]:
    """Return the names that no call was made for, without a reason."""
    return [n for n in names if not counts[n] and not left_out(n)]


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="names or ends of names (default: all shared)")
    parser.add_argument("--explained", action="store_true", help="also what differs on purpose")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    names = shared()
    if options.names:
        names = [n for n in names if {n, n.rpartition(".")[2]} & set(options.names)]
    found, counts = all_compared(names, options.jobs)
    shown_ones = [f for f in found if options.explained or f.reason is None]
    groups: dict[tuple[str, str, str], list[Found]] = defaultdict(list)
    for f in shown_ones:
        groups[f.name, f.aspect, f.how].append(f)
    for (name, aspect, how), those in groups.items():
        first = those[0]
        print(f"{name}({first.call}): {aspect}: {how} [{len(those)}]")
        if first.reason:
            print(f"    {first.reason}")
    without = without_inputs(names, counts)
    if without:
        print("no inputs for", *without)
    open_ones = sum(f.reason is None for f in found)
    print(
        f"{counts.total():,} comparisons of {len(counts)} names: {len(found) - open_ones} differ "
        f"on purpose, {open_ones} disagree"
    )
    return int(bool(open_ones or without))


if __name__ == "__main__":
    sys.exit(main())
