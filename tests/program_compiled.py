"""Run a random program as a compiled function of its leaves, and compare with the same uncompiled.

The statements up to the first backward pass become the body of a function, whose arguments are the
program's leaves and whose results are its variables. It is called several times with other numbers.
Half of the programs are left with the statements that a plan can be made of.
"""

from __future__ import annotations

import re
import textwrap
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from both import frozen
from program_table import PRELUDE

import minitensor as mt
from minitensor.replay import calls_of

_LEAF = re.compile(r"(\w+) = leaf\((.*)\)", re.DOTALL)
_BACKWARD = re.compile(r"backward\(|autograd\.grad\(|\.grad\b")
# Statements that are never replayed: hooks, functions of the user, modules, changes in place.
_APART = re.compile(
    r"hook|retain_grad|\b[A-Z]\w+\.apply|checkpoint|copy\.|requires_grad|\.data\b|log|linear\(|"
    r"Scale|Keep|Change|\w_\(|out=|\[.*\] [-+*/]?=|(?<![<>=!]) [-+*/]= |nonzero|item|class |with "
)
_NAME = re.compile(r"\b[a-z]\d+\b")
CALLS = 4
TOLERANCE = 1e-8  # of float64, relative to the largest number compared (or to 1)
SPACE: dict[str, Any] = {}
exec(
    "import copy, math\nimport minitensor as T\nfrom minitensor.autograd import checkpoint\n"
    f"F = T.nn.functional\nlog = []\n{PRELUDE}",
    SPACE,
)


def body(program: Sequence[str], plain: bool) -> tuple[dict[str, str], list[str]]:
    """Return the leaves of a program with their numbers, and the statements of its function."""
    leaves: dict[str, str] = {}
    kept: list[str] = []
    known: set[str] = set()
    for text in program:
        found = _LEAF.fullmatch(text)
        if found:
            leaves[found[1]] = found[2]
            known.add(found[1])
            continue
        if _BACKWARD.search(text):
            if plain:
                continue
            break
        made, _, rest = text.partition(" = ")
        targets = set(_NAME.findall(made)) if rest else set()
        if plain and (_APART.search(text) or not set(_NAME.findall(rest or text)) <= known):
            continue
        kept.append(text)
        known |= targets
    return leaves, kept


def function(program: Sequence[str], plain: bool) -> tuple[Any, dict[str, Any]]:
    """Return the function of a program, and its leaves' numbers."""
    leaves, kept = body(program, plain)
    names = [n for n in dict.fromkeys(_NAME.findall("\n".join(kept))) if n not in leaves]
    end = "found = {k: v for k, v in locals().items() if k in NAMES and isinstance(v, T.Tensor)}"
    give = "return {k: v * 1 for k, v in found.items()}" if plain else "return found"
    text = "\n".join([*kept, end, give])
    space = dict(SPACE, NAMES=tuple(names))
    exec(f"def f({', '.join(leaves)}):\n" + textwrap.indent(text, "    "), space)
    return space["f"], {name: eval(numbers) for name, numbers in leaves.items()}


def called(f: Any, leaves: dict[str, Any], seed: int) -> list[Any]:
    """Return what a call makes of leaves with other numbers, with the gradients; or the error."""
    noise = np.random.RandomState(seed)
    given = []
    for numbers in leaves.values():
        a = np.array(numbers, np.float64)
        a = a.reshape(-1)[noise.permutation(a.size)].reshape(a.shape) if seed else a
        given.append(mt.tensor(a, requires_grad=True))
    SPACE["log"].clear()
    try:
        found = f(*given)
        graded = [t for t in found.values() if t.requires_grad and t.dtype == mt.float64]
        seen = [frozen(t) for t in found.values()]  # as it is before hooks and changes
    except Exception as error:
        return [type(error).__name__]
    try:
        if graded:
            mt.autograd.backward(graded, [t.detach().cos() for t in graded])
    except RuntimeError:  # it depends on what the function changed in place: a version, say
        return ["backward"]
    return [list(found), seen, [frozen(t.grad) for t in given], frozen(list(SPACE["log"]))]


def difference(program: Sequence[str], plain: bool) -> tuple[str, bool]:
    """Return how compiled and uncompiled calls differ, or "", and if some were replayed."""
    f, leaves = function(program, plain)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = mt.compile(f)
        for seed in range(CALLS):
            expected, found = called(f, leaves, seed), called(compiled, leaves, seed)
            where = "" if expected == ["backward"] else _differ(expected, found)
            if where:
                return f"call {seed + 1}, compiled:{where}", False
    every = list(calls_of(compiled).entries)
    return "", any(plan.forward is not None for entry in every for plan in entry.plans)


def _differ(a: Any, b: Any, where: str = "") -> str:
    """Return where two outcomes differ by more than rounding, or ""."""
    if type(a) is type(b) and isinstance(a, tuple) and len(a) >= 4 and isinstance(a[3], bytes):
        if a[:3] != b[:3] or a[4:] != b[4:]:
            return f"{where}: {a[:3], a[4:]} became {b[:3], b[4:]}"
        if a[1] == "bool" or "int" in a[1]:
            return "" if a[3] == b[3] else f"{where}: other integers"
        x, y = (np.frombuffer(each[3], each[1]) for each in (a, b))
        scale = max(1.0, float(np.abs(x[np.isfinite(x)]).max(initial=0)))
        same = np.allclose(x, y, 0, TOLERANCE * scale, equal_nan=True)
        return "" if same else f"{where}: {x[:6].tolist()} became {y[:6].tolist()}"
    if type(a) is type(b) and isinstance(a, list | tuple) and len(a) == len(b):
        pairs = enumerate(zip(a, b, strict=True))
        return next(filter(None, (_differ(x, y, f"{where}[{n}]") for n, (x, y) in pairs)), "")
    return "" if a == b else f"{where}: {a} became {b}"
