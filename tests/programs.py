"""Random programs, run by PyTorch and by minitensor: the first difference is the next fault.

    python tests/programs.py --count 50000 --seed 1 --jobs 2
    python tests/programs.py --only 4711            # draw one program, run and shrink it
    python tests/programs.py --only 4711 --source   # print it as Python for both libraries

A program is a list of statements in Python that speak of `T`, which is one library or the other.
`TABLE` says how each kind of statement is drawn. A program is built against PyTorch as it is drawn,
so that shapes and refusals are known, then run by minitensor. All that a user can see is compared:
values, shapes, gradients of first and second order, what hooks were given and in which order, and
refusals, which must come at the same statement with the same type. What differs is shrunk to the
fewest and simplest statements that differ in the same way.
"""

from __future__ import annotations

import argparse
import ast
import copy
import functools
import math
import multiprocessing
import random
import re
import sys
import textwrap
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

import minitensor

from statements import ENDS, PRELUDE, TABLE, VIEWS, WEIGHTS, Unfit, off, overlaps

PIECES = {node.name: ast.unparse(node) for node in ast.parse(PRELUDE).body if hasattr(node, "name")}
HEADS = {
    torch: "import torch as T\nfrom torch.utils.checkpoint import checkpoint",
    minitensor: "import minitensor as T\nfrom minitensor.autograd import checkpoint",
}
HEAD = "import copy, math\n{}\nF = T.nn.functional\nlog = []"

TOLERANCE = 1e-8  # of float64, relative to the largest number compared (or to 1)
LARGEST = 200.0  # number that a program may make
MOST = 60  # elements of a tensor


def _spaces() -> dict[Any, dict[str, Any]]:
    spaces: dict[Any, dict[str, Any]] = {}
    for library, head in HEADS.items():
        spaces[library] = {}
        exec(HEAD.format(head) + PRELUDE, spaces[library])
    return spaces


SPACES = _spaces()


def _refreshed(name: str) -> None:
    """Let a method look at `grad_fn` first: on a view whose base was changed, PyTorch crashes else."""
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
    """How far a library came with a program, and what can be seen then."""

    names: dict[str, Any]
    log: list[Any]
    stopped: int | None = None  # the statement that was refused
    error: BaseException | None = None


def run(program: Sequence[str], library: Any, within: Any = nullcontext) -> Run:
    """Run the statements by one library, up to the first that it refuses."""
    base = SPACES[library]
    base["log"].clear()
    space = dict(base)
    stopped, error = None, None
    with warnings.catch_warnings(), within():
        warnings.simplefilter("ignore")
        for number, text in enumerate(program):
            try:
                exec(_compiled(text), space)
            except Exception as e:
                stopped, error = number, e.with_traceback(None)
                break
    names = {k: v for k, v in space.items() if k not in base and k != "__builtins__"}
    return Run(names, list(base["log"]), stopped, error)


_codes: dict[str, Any] = {}


def _compiled(text: str) -> Any:
    code = _codes.get(text)
    if code is None:
        if len(_codes) > 5000:
            _codes.clear()
        code = _codes[text] = compile(text, "<program>", "exec")
    return code


# Comparing two runs


@dataclass
class Difference:
    """Where two runs of a program differ: `kind` stays the same while it is shrunk."""

    kind: tuple[str, ...]
    told: str


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
        told = f"PyTorch: {_brief(theirs.error)}\nours: {_brief(ours.error)}"
        first_is_ours = theirs.stopped is None or (
            ours.stopped is not None and ours.stopped < theirs.stopped
        )
        if first_is_ours:
            return Difference(
                ("refused by ours", type(ours.error).__name__, _scrubbed(ours.error)), told
            )
        return Difference(("refused by PyTorch", _scrubbed(theirs.error)), told)
    if theirs.error is not None and not isinstance(ours.error, _builtin(theirs.error)):
        told = f"PyTorch: {_brief(theirs.error)}\nours: {_brief(ours.error)}"
        return Difference(("error", type(theirs.error).__name__, type(ours.error).__name__), told)
    whole = theirs.error is None  # a walk that was refused half way may have left any gradients
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
    # The gradient of a gradient may be missing where it is zero: that is told by its values.
    for what in () if kind != "tensor" or name.endswith(".grad") else ("requires_grad", "is_leaf"):
        x, y = _flag(a, what), _flag(b, what)
        if x != y and x != "RuntimeError":  # which PyTorch says of a view it has given up
            return Difference((what, kind), f"{name}.{what}: PyTorch {x}, ours {y}")
    x, y = a.detach().numpy(force=True), b.detach().numpy()
    if x.shape != y.shape or x.dtype != y.dtype:
        told = f"{name}: PyTorch {x.shape} {x.dtype}, ours {y.shape} {y.dtype}"
        return Difference(("shape", kind), told)
    as_it_comes = name.endswith(".grad") and not leaf
    if (
        a.is_contiguous() and not b.is_contiguous() and not as_it_comes
    ):  # so that `view` would refuse
        return Difference(("layout", kind), f"{name}: PyTorch {a.stride()}, ours {b.stride()}")
    if not _close(x, y):
        told = f"{name}: PyTorch {_show(x)}, ours {_show(y)}"
        if _show(x) == _show(y):
            told += f", differ by {np.abs(x - y).max():.1e}"
        return Difference(("value", kind), told)
    if not grads:
        return None
    g = a.grad if _flag(a, "is_leaf") is True or a.retains_grad else None
    h = b.grad
    if h is None and g is not None and not g.detach().any():
        return None
    if (g is None) != (h is None):
        told = f"{name}.grad: PyTorch {_show(g)}, ours {_show(h)}"
        return Difference(("missing", f"{kind}.grad"), told)
    if g is None:
        return None
    found = _tensors_differ(g, h, f"{name}.grad", False, a.is_leaf)
    if found:
        found.kind = (found.kind[0], f"{found.kind[1]}.grad")
    return found


def _flag(t: Any, what: str) -> Any:
    try:
        return getattr(t, what)
    except RuntimeError:
        return "RuntimeError"


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


# Refusals of one library alone that are meant: a pattern of the message, and the reason.
INTENDED = {
    "to a single memory location": "A change in place whose operand overlaps what it writes: PyTorch "
    "forbids some of these; ours computes the result first. Some writes to an expanded tensor: "
    "PyTorch writes and warns; ours refuses, as it does every such write.",
    "saved tensor that has been detached in-place": "Ours goes the way the tensor had when it was "
    "saved, as after every other change of what a name stands for.",
    "laid out anew in place": "PyTorch goes on with a view whose base was transposed under it, by "
    "strides; ours makes views again from the base, and says that it cannot.",
    "saved by ScaledDotProductAttention": "It keeps its arguments and its result for the way back, "
    "as PyTorch's does in four dimensions; with fewer PyTorch composes it, and keeps what it needs.",
    "saved by Linear": "Ours wants all arguments of a fused op for its second derivative.",
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


# What PyTorch refuses for its own sake, and how it gives the right gradients all the same.
OTHERWISE = {
    VERSION: torch.autograd.graph.allow_mutation_on_saved_tensors,
    SEVERAL: one_by_one,
}


def difference(program: Sequence[str], theirs: Run | None = None) -> Difference | None:
    """How the two libraries differ on a program.

    PyTorch saves more than it needs for some derivatives, and then refuses a change of it that does
    no harm; and it does not change the views that one op makes together. Where ours goes on, its
    gradients have to be those of PyTorch with copies, or with views made one by one.
    """
    theirs = theirs or run(program, torch)
    ours = run(program, minitensor)
    found = compare(theirs, ours)
    if found is None:
        return None
    if found.kind[0] == "refused by PyTorch":
        for text, within in OTHERWISE.items():
            if text in str(theirs.error):
                theirs = run(program, torch, within)
                if theirs.stopped is not None and within is not one_by_one:
                    return found
                found = compare(theirs, ours)
                if found is None:
                    return None
                found.told += "\n(PyTorch refuses it as it stands; this is how it goes otherwise)"
                break
    if found.kind[0].startswith("refused by"):
        refusal = str((theirs if found.kind[0] == "refused by PyTorch" else ours).error)
        if any(text in refusal for text in INTENDED):
            return None
    if found.kind == ("value", "log") and "create_graph" in "".join(program):
        return None  # a hook sees which tensors a derivative is written in
    return found


# Drawing a program


class Drawing:
    """A program as it is drawn: its statements, and what PyTorch knows of its variables."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.program: list[str] = []
        self.kinds: list[str] = []
        self.count = 0
        self.ended = False
        self.space: dict[str, Any] = {}
        self._again()

    def _again(self) -> None:
        """Run all statements so far by PyTorch, from the start."""
        base = SPACES[torch]
        base["log"].clear()
        self.space = dict(base)
        for text in self.program:
            exec(_compiled(text), self.space)

    # chance

    def of(self, choices: Sequence[Any]) -> Any:
        return self.random.choice(choices)

    def word(self, choices: str) -> str:
        return self.random.choice(choices.split())

    def int(self, low: int, high: int) -> int:
        return self.random.randint(low, high)

    def maybe(self, p: float) -> bool:
        return self.random.random() < p

    def chosen(self, weights: dict[str, int]) -> str:
        return self.random.choices(list(weights), list(weights.values()))[0]

    # variables

    def __getitem__(self, name: str) -> Any:
        return self.space[name]

    def new(self, letter: str = "v") -> str:
        self.count += 1
        return f"{letter}{self.count}"

    def names(self, test: Callable[[Any], bool] = lambda t: True) -> list[str]:
        """The variables that are float tensors and pass `test`."""
        found = []
        with torch.no_grad():
            for name, t in self.space.items():
                if isinstance(t, torch.Tensor) and t.dtype == torch.float64:
                    try:
                        if test(t):
                            found.append(name)
                    except RuntimeError:
                        continue  # a view that PyTorch does not let anyone look at any more
        return found

    def pick(self, test: Callable[[Any], bool] = lambda t: True) -> str:
        """One of them, late ones a little rather."""
        found = self.names(test)
        if not found:
            raise Unfit
        if self.maybe(0.4):
            found = found[-4:]
        return self.of(found)

    def operand(self, test: Callable[[Any], bool] = lambda t: True) -> str:
        """A variable, now and then without its history."""
        x = self.pick(test)
        return x + (self.of([".detach()", ".detach()", ".data"]) if self.maybe(0.12) else "")

    def axis(self, t: Any) -> int:
        if not t.ndim:
            raise Unfit
        return self.int(-t.ndim, t.ndim - 1)

    def value(self, text: str) -> Any:
        """What an expression gives in PyTorch."""
        with torch.no_grad():
            return eval(text, self.space)

    # numbers

    def number(self) -> float:
        return self.of([-1, 1]) * round(self.random.uniform(0.3, 2.0), 2)

    def shape(self, ndim: int | None = None) -> tuple[int, ...]:
        ndim = self.of([0, 1, 1, 2, 2, 2, 2, 3, 3]) if ndim is None else ndim
        return tuple(self.of([1, 2, 2, 3, 3, 4] if ndim < 3 else [1, 2, 2, 3]) for _ in range(ndim))

    def literal(self, shape: Sequence[int], draw: Callable[[], Any] | None = None) -> str:
        """Nested lists of random numbers."""
        if not shape:
            return str((draw or self.number)())
        return "[" + ", ".join(self.literal(shape[1:], draw) for _ in range(shape[0])) + "]"

    def const(self, shape: Sequence[int]) -> str:
        return f"const({self.literal(shape)})"

    def exact(self, shape: Sequence[int]) -> str:
        """An expression of exactly this shape."""
        found = self.names(lambda t: t.shape == tuple(shape))
        if found and self.maybe(0.75):
            return self.of(found)
        return self.const(shape)

    def shape_of(self, text: str) -> tuple[int, ...]:
        """The shape of a variable or a view of one."""
        return tuple(self.value(text).shape)

    def broadcasts(self, t: Any, other: Any, exact: bool = False) -> bool:
        """Whether two tensors fit together, `exact`: in the shape of the other."""
        try:
            both = np.broadcast_shapes(tuple(t.shape), tuple(other.shape))
        except ValueError:
            return False
        return both == tuple(other.shape) if exact else math.prod(both) <= MOST

    def positive(self) -> str:
        """An expression that is positive everywhere."""
        x = self.operand()
        return f"({x} * {self.of([x, x, x + '.detach()'])} + 0.5)"

    def fit_tensor(self, shape: Sequence[int]) -> str:
        """A variable that broadcasts to this shape."""
        return self.of(
            self.names(lambda t: self.broadcasts(t, np.empty(shape), True)) or self.unfit()
        )

    def unfit(self) -> Any:
        raise Unfit

    def fit(self, shape: Sequence[int], exact: bool = False) -> str:
        """An operand for one of this shape: it broadcasts with it, or to it if `exact`."""

        def fits(t: Any) -> bool:
            try:
                both = np.broadcast_shapes(tuple(t.shape), tuple(shape))
            except ValueError:
                return False
            return both == tuple(shape) if exact else math.prod(both) <= MOST

        found = self.names(fits)
        if found and self.maybe(0.7):
            x = self.of(found)
            return x + (self.of([".detach()", ".data"]) if self.maybe(0.1) else "")
        if self.maybe(0.4):
            return str(self.number())
        keep = self.int(0, len(shape))
        return self.const(
            tuple(1 if self.maybe(0.2) else n for n in tuple(shape)[len(shape) - keep :])
        )

    def mask(self, shape: Sequence[int]) -> str:
        found = self.names(lambda t: t.shape == tuple(shape) and off(t - 0.1))
        if found and self.maybe(0.5):
            return f"({self.of(found)} > 0.1)"
        return f"T.tensor({self.literal(shape, lambda: self.maybe(0.5))}, dtype=T.bool)"

    def index(self, n: int, count: int | None = None, distinct: bool = False) -> str:
        """A tensor of indices into n places."""
        if not n:
            raise Unfit
        count = self.int(1, min(n, 3)) if count is None else count
        if distinct:
            chosen = self.random.sample(range(n), min(count, n))
        else:
            chosen = [self.int(0, n - 1) for _ in range(count)]
        return f"T.tensor({chosen})"

    # views

    def view(self, t: Any) -> str:
        """What to append to a tensor for a random view of it."""
        return VIEWS[self.of(list(VIEWS))](self, t)

    def target(self) -> str:
        """What a change in place is made to: a variable, or a view made for it."""
        free = self.maybe(0.93)
        name = self.pick(lambda t: t.numel() > 0 and not (free and t.is_leaf and t.requires_grad))
        unused = self.unused(name)
        text, t = name, self[name]
        for _ in range(self.of([0, 0, 0, 1, 1, 2, 3])):
            try:
                step = self.view(t).format(name)
            except Unfit:
                continue
            made = self.tried(text + step)
            if isinstance(made, torch.Tensor) and made.numel():
                text, t = text + step, made
        if overlaps(t):
            raise Unfit  # PyTorch does not notice, and changes some elements twice
        if ".data" in text + self.origin(name) and not unused:
            raise Unfit  # the derivative may see it or not, by what it saved
        return text

    def origin(self, name: str) -> str:
        """The statements that made a variable and those that it shows the memory of."""
        t = self[name]
        made = ""
        for text in self.program:
            for other in re.findall(r"(\bv\d+)(?=.*=)", text):
                if self[other].untyped_storage().data_ptr() == t.untyped_storage().data_ptr():
                    made += text
        return made

    def unused(self, name: str) -> bool:
        """Whether nothing was computed from a variable yet, nor it from another."""
        times = sum(bool(re.search(rf"\b{name}\b", text)) for text in self.program)
        return times < 2 and not self[name]._is_view() and name[0] == "x"

    def tried(self, text: str) -> Any:
        try:
            return self.value(text)
        except (RuntimeError, IndexError):
            return None

    def probe(self, text: str) -> Any:
        """What an expression that is recorded gives in PyTorch; None if it is refused."""
        try:
            return eval(text, self.space)
        except Exception:
            return None

    # statements

    def draw(self, groups: Sequence[str] = ()) -> tuple[str, str]:
        """A random kind of statement and its text."""
        while True:
            group = self.of(groups) if groups else self.chosen(WEIGHTS)
            kind = self.of(list(TABLE[group]))
            try:
                return kind, TABLE[group][kind](self)
            except Unfit:
                continue

    def step(self, kind: str, text: str, keep: float) -> bool:
        """Add a statement; one that PyTorch refuses ends the program, or is dropped again."""
        parts = re.split(r"\n(?! )", text)
        for number, part in enumerate(parts):
            try:
                exec(_compiled(part), self.space)
            except Exception:
                if not self.maybe(keep):
                    self._again()
                    return False
                self.ended = True
                del parts[number + 1 :]
                break
        if not self.ended and not self._tame():
            self._again()
            return False
        self.program += parts
        self.kinds += [""] * (len(parts) - 1) + [kind]
        return True

    def _tame(self) -> bool:
        for t in self.space.values():
            if isinstance(t, torch.Tensor) and t.dtype == torch.float64:
                if t.numel() > MOST:
                    return False
                a = t.detach().numpy()
                if a.size and not np.abs(a).max() < LARGEST:
                    return False
        return True


def draw(seed: int) -> Drawing:
    """The program of a seed."""
    d = Drawing(seed)
    for _ in range(d.int(1, 3)):
        d.step("new_leaf", TABLE["flag"]["new_leaf"](d), 1)
    size = d.int(3, 15)
    while len(d.program) < size and not d.ended:
        kind, text = d.draw()
        d.step(kind, text, 0.12)
    for _ in range(20):
        if d.ended or d.kinds[-1] in ENDS:
            break
        kind = d.chosen(ENDS)
        try:
            text = TABLE["backward"][kind](d)
        except Unfit:
            continue
        d.step(kind, text, 0.5)
    return d


# Shrinking


def shrink(program: Sequence[str], budget: int = 3000) -> tuple[list[str], Difference]:
    """The smallest program found that differs in the same way."""
    best = list(program)
    found = difference(best)
    assert found is not None
    tried: set[str] = set()

    def better(candidate: list[str]) -> bool:
        nonlocal best, found, budget
        text = "\n".join(candidate)
        if text in tried or budget <= 0 or _size(candidate) >= _size(best):
            return False
        tried.add(text)
        budget -= 1
        new = difference(candidate)
        if new is None or found is None or new.kind != found.kind:
            return False
        best, found = candidate, new
        return True

    progress = True
    while progress:
        progress = False
        number = len(best) - 1
        while number >= 0:
            progress |= better(best[:number] + best[number + 1 :])
            number = min(number, len(best)) - 1
        number = len(best) - 1
        while number >= 0:
            # Several at once first, where one depends on the other.
            for other in range(number):
                if better([t for i, t in enumerate(best) if i not in (number, other)]):
                    progress = True
                    break
            number = min(number, len(best)) - 1
        for number in range(len(best)):
            again = True
            while again:
                again = any(
                    better([*best[:number], text, *best[number + 1 :]])
                    for text in _simpler(best, number)
                )
                progress |= again
    return best, found


def _size(program: Sequence[str]) -> tuple[int, ...]:
    lines = sum(t.count("\n") + 1 for t in program)
    text = "\n".join(program)
    names = set(re.findall(r"[a-z]\d+", text))
    nodes = sum(1 for t in program for _ in ast.walk(ast.parse(t)))
    return (
        lines,
        nodes,
        len(names),
        len(text),
        sum(int(n[1:]) for n in re.findall(r"[a-z]\d+", text)),
    )


def _simpler(program: Sequence[str], number: int) -> Iterator[str]:
    """Statements that could stand in place of one of a program."""
    tree = ast.parse(program[number])
    names = sorted(set(re.findall(r"\b[xv]\d+\b", "\n".join(program[:number]))))
    count = sum(1 for _ in ast.walk(tree))
    for place in range(count):
        for choice in range(40):
            copied = copy.deepcopy(tree)
            node = list(ast.walk(copied))[place]
            changed = _simplified(copied, node, choice, names)
            if changed is None:
                break
            try:
                yield ast.unparse(ast.fix_missing_locations(changed))
            except (ValueError, AttributeError, TypeError):
                continue


def _simplified(tree: Any, node: Any, choice: int, names: Sequence[str]) -> Any:
    """`tree` with `node` made simpler in the `choice`-th way; None if there are not so many."""
    ways: list[Callable[[], Any]] = []

    def instead(new: Any) -> Callable[[], Any]:
        return lambda: _Swap(node, new).visit(tree)

    def without(items: list[Any], item: Any) -> Callable[[], Any]:
        def change() -> Any:
            items.remove(item)
            return tree

        return change

    for field in ("body",):
        items = getattr(node, field, None)
        if isinstance(items, list) and len(items) > 1:
            ways += [without(items, item) for item in items]
    if isinstance(node, ast.With):
        ways.append(lambda: _Swap(node, node.body).visit(tree))
    if isinstance(node, ast.Assign):
        ways.append(lambda: _Swap(node, ast.Expr(node.value)).visit(tree))
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute):
            ways.append(instead(node.func.value))
        ways += [instead(a) for a in node.args if not isinstance(a, ast.Constant | ast.Lambda)]
        ways += [without(node.keywords, k) for k in node.keywords]
        ways += [without(node.args, a) for a in node.args]
    if isinstance(node, ast.BinOp):
        ways += [instead(node.left), instead(node.right)]
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
        ways.append(instead(node.value))
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
        ways.append(instead(node.value))
    if isinstance(node, ast.List | ast.Tuple) and isinstance(node.ctx, ast.Load):
        ways += [instead(e) for e in node.elts]
        if len(node.elts) > 1:
            ways += [without(node.elts, e) for e in node.elts]
    if isinstance(node, ast.UnaryOp):
        ways.append(instead(node.operand))
    if isinstance(node, ast.Constant) and isinstance(node.value, float) and node.value != 1:
        ways += [instead(ast.Constant(v)) for v in (1.0, 2.0, round(node.value, 1))]
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in names:
        ways += [instead(ast.Name(n, ast.Load())) for n in names if n != node.id]
    return ways[choice]() if choice < len(ways) else None


class _Swap(ast.NodeTransformer):
    def __init__(self, old: Any, new: Any) -> None:
        self.old, self.new = old, new

    def generic_visit(self, node: Any) -> Any:
        return self.new if node is self.old else super().generic_visit(node)


# Telling


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


def report(seed: int | None, program: Sequence[str]) -> tuple[str, Difference]:
    """The shrunk program and what both libraries make of it."""
    small, found = shrink(program)
    head = [] if seed is None else [f"seed {seed}: {' '.join(found.kind)}"]
    return "\n".join([*head, *(textwrap.indent(t, "    ") for t in small), found.told]), found


# Many programs


@dataclass
class Tally:
    """What became of many programs."""

    programs: int = 0
    kept: Counter[str] = None  # type: ignore[assignment]
    refused: Counter[str] = None  # type: ignore[assignment]
    failures: list[tuple[int, list[str], Difference]] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        self.kept, self.refused, self.failures = Counter(), Counter(), []

    def add(self, other: Tally) -> None:
        """Count another part of the run in."""
        self.programs += other.programs
        self.kept += other.kept
        self.refused += other.refused
        self.failures += other.failures


def try_seeds(seeds: Sequence[int]) -> Tally:
    """Draw and run the programs of some seeds."""
    tally = Tally()
    for seed in seeds:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            d = draw(seed)
        theirs = run(d.program, torch)
        tally.programs += 1
        tally.kept.update(k for k in d.kinds[: theirs.stopped] if k)
        if theirs.stopped is not None:
            tally.refused[d.kinds[theirs.stopped]] += 1
        found = difference(d.program, theirs)
        if found:
            tally.failures.append((seed, d.program, found))
    return tally


def _quiet() -> None:
    torch.set_num_threads(1)
    minitensor.set_num_threads(1)


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare random programs with PyTorch.")
    parser.add_argument("--count", type=int, default=500, help="programs (500)")
    parser.add_argument("--seed", type=int, default=1, help="of the run (1)")
    parser.add_argument("--start", type=int, default=0, help="number of the first program (0)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (1)")
    parser.add_argument("--only", type=int, help="one program, by the number a report gives")
    parser.add_argument("--source", action="store_true", help="print it for both libraries")
    args = parser.parse_args()
    _quiet()
    if args.only is not None:
        return _one(args.only, args.source)
    first = args.seed * 10**9 + args.start
    step = 50
    chunks = [
        range(n, min(n + step, first + args.count)) for n in range(first, first + args.count, step)
    ]
    tally, begun, kinds = Tally(), time.monotonic(), Counter[tuple[str, ...]]()
    for part in _parts(chunks, args.jobs):
        tally.add(part)
        for seed, program, found in part.failures:
            kinds[found.kind] += 1
            if kinds[found.kind] <= 2:
                print(report(seed, program)[0], flush=True)
                print(flush=True)
    print(table(tally))
    for kind, count in kinds.most_common():
        print(f"{count:6}  {' '.join(kind)}")
    took = time.monotonic() - begun
    print(f"{tally.programs} programs, {len(tally.failures)} differ, {tally.programs / took:.0f}/s")
    return 1 if tally.failures else 0


def _parts(chunks: Sequence[Sequence[int]], jobs: int) -> Iterator[Tally]:
    if jobs == 1:
        yield from map(try_seeds, chunks)
        return
    with multiprocessing.get_context("spawn").Pool(jobs, _quiet) as pool:
        yield from pool.imap(try_seeds, chunks)


def _one(seed: int, with_source: bool) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = draw(seed).program
    if with_source:
        for library in HEADS:
            print(source(program, library))
    else:
        print("\n".join(program))
    found = difference(program)
    if found is None:
        print("both the same")
        return 0
    print(found.told, "\n")
    print(report(seed, program)[0])
    return 1


def table(tally: Tally) -> str:
    """How often each kind of statement ran and was refused by PyTorch."""
    cells = [
        f"{kind:22}{tally.kept[kind]:6}{tally.refused[kind]:6}"
        for group in TABLE.values()
        for kind in group
    ]
    rows = -(-len(cells) // 3)
    lines = ["   ".join(cells[i::rows]) for i in range(rows)]
    return "\n".join(["   ".join([f"{'statement':22}{'ran':>6}{'refus':>6}"] * 3), *lines])


if __name__ == "__main__":
    sys.exit(main())
