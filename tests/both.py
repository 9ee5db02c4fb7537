"""A program run twice, as it is and with its functions compiled: all that it sees must be equal.

A case is a function of `compile`, which is once `minitensor.compile` and once leaves the function
as it is. It returns whatever it saw. Then are compared: that, bit by bit, with types, shapes and
whether a tensor requires a gradient and is a leaf; and the state of the random generator.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

import minitensor as mt
from minitensor.kernels.jit import COMPILED
from minitensor.replay import calls_of

CASES: dict[str, tuple[Callable[[Any], Any], str | None, float]] = {}
ANY = ""  # whether it is replayed or runs as it is does not matter


def case(told: str | None = None, error: float = 0) -> Callable[[Any], Any]:
    """Add a case. It must be replayed; or if `told`, run as it is with a warning that has this.

    `error` is how far floats may be apart, where ops are fused that round otherwise.
    """

    def add(function: Any) -> Any:
        assert function.__name__ not in CASES, function.__name__
        CASES[function.__name__] = function, told, error
        return function

    return add


def frozen(x: Any) -> Any:
    """Return what is seen of a value, such that it cannot change any more."""
    if isinstance(x, mt.Tensor):
        a = x._array
        look = (x.requires_grad, x.is_leaf, x.grad_fn is None)
        return type(x).__name__, a.dtype.name, a.shape, a.tobytes(), look
    if isinstance(x, np.ndarray):
        return "array", x.dtype.name, x.shape, x.tobytes()
    if isinstance(x, dict):
        return {k: frozen(v) for k, v in x.items()}
    if isinstance(x, list | tuple):
        return type(x).__name__, [frozen(each) for each in x]
    if isinstance(x, BaseException):
        return type(x).__name__, str(x)
    return x


def shown(x: Any) -> Any:
    """Return a value as `frozen` did, with numbers in place of bytes."""
    if isinstance(x, tuple) and len(x) >= 4 and isinstance(x[3], bytes):
        numbers = np.frombuffer(x[3], getattr(np, x[1], np.uint8)).tolist()[:6]
        return (*x[:3], numbers, *x[4:])
    if isinstance(x, list | tuple):
        return type(x)(map(shown, x))
    return x


def first_difference(a: Any, b: Any, where: str = "", error: float = 0) -> str:
    """Return where two frozen values differ, or ""."""
    if type(a) is type(b) and isinstance(a, list | tuple) and len(a) == len(b):
        if len(a) >= 4 and isinstance(a[3], bytes):
            if error and "float" in a[1] and (*a[:3], *a[4:]) == (*b[:3], *b[4:]):
                x, y = (np.frombuffer(each[3], each[1]) for each in (a, b))
                return "" if np.allclose(x, y, error, error) else f"{where}: {x} became {y}"
            return "" if a == b else f"{where}: {shown(a)} became {shown(b)}"
        for number, (x, y) in enumerate(zip(a, b, strict=True)):
            found = first_difference(x, y, f"{where}[{number}]", error)
            if found:
                return found
        return ""
    if type(a) is type(b) is dict and a.keys() == b.keys():
        each = (first_difference(a[k], b[k], f"{where}.{k}", error) for k in a)
        return next(filter(None, each), "")
    same = a == b or (a != a and b != b)
    return "" if same else f"{where}: {shown(a)} became {shown(b)}"


def _seeded() -> None:
    mt.manual_seed(0)
    random.seed(0)
    np.random.seed(0)


def check(function: Callable[[Any], Any], told: str | None = None, error: float = 0) -> None:
    """Run a case twice and compare; see `case`."""
    _seeded()
    expected = frozen(function(lambda f=None, **settings: f if f is not None else lambda g: g))
    state = mt.get_rng_state()
    _seeded()
    made: list[Any] = []

    def compiler(f: Any = None, **settings: Any) -> Any:
        if f is None:
            return compiler
        made.append(mt.compile(f, **settings))
        return made[-1]

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = frozen(function(compiler))
    difference = first_difference(expected, found, error=error)
    reasons = [str(w.message) for w in caught if "runs as it is" in str(w.message)]
    assert not difference, f"{difference} {reasons}"
    assert np.array_equal(mt.get_rng_state(), state), "the random stream differs"
    others = [str(w.message) for w in caught if "runs as it is" not in str(w.message)]
    assert not others, others
    if told == ANY or not COMPILED:
        return
    if told is None:
        assert not reasons, reasons
        assert any(replayed(each) for each in made), "nothing was replayed"
    else:
        assert any(told in reason for reason in reasons), f"expected {told!r}, told: {reasons}"
        assert len(set(reasons)) == len(reasons), reasons


def replayed(compiled: Any) -> bool:
    """Return True if calls of a compiled function were replayed."""
    entries = list(calls_of(compiled).entries)
    return any(plan.forward is not None for entry in entries for plan in entry.plans)
