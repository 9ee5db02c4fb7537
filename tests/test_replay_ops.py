"""Every op, replayed: with other numbers than those it was recorded with, bit for bit."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from both import first_difference, frozen

import minitensor as mt
from minitensor import nn  # noqa: F401  # registers the ops
from minitensor.core import OPS
from minitensor.kernels.jit import COMPILED
from minitensor.ops.samples import Rand
from minitensor.replay import calls_of
from minitensor.testing import leaves, samples

if not COMPILED:
    pytest.skip("nothing is compiled", allow_module_level=True)

CASES = sorted(OPS)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = mt.get_num_threads()
    mt.set_num_threads(1)
    yield
    mt.set_num_threads(before)


def changed(x: Any, noise: np.random.RandomState) -> Any:
    """Return new tensors in the place of those of a sample: its floats in another order."""
    if isinstance(x, mt.Tensor):
        a = x._array
        if a.dtype.kind == "f" and a.size > 1:
            flat = a.reshape(-1)
            a = flat[noise.permutation(a.size)].reshape(a.shape)
        return mt.tensor(np.array(a)).requires_grad_(x.requires_grad)
    if isinstance(x, list | tuple) and not hasattr(x, "_fields"):
        return type(x)([changed(each, noise) for each in x])
    return {k: changed(v, noise) for k, v in x.items()} if isinstance(x, dict) else x


def outcome(call: Any, args: Any, kwargs: Any) -> Any:
    """Return the results and the gradients of all that requires one."""
    mt.manual_seed(3)
    found = call(*args, **kwargs)
    noise = np.random.RandomState(5)
    graded = [t for t in leaves([found]) if t.requires_grad]
    if graded:
        dys = [mt.tensor(noise.standard_normal(t.shape).astype(t.dtype.name)) for t in graded]
        mt.autograd.backward(graded, dys)
    return frozen([found, [t.grad for t in leaves([args, kwargs])]])


def replay(op: Any, args: Any, kwargs: Any, call: Any = None) -> tuple[str, Any, bool]:
    """Call an op four times with other numbers each; return a difference, and what was done."""
    call = call or op.call
    compiled = mt.compile(lambda *args, **kwargs: call(*args, **kwargs))
    for n in range(4):
        # The numbers of the sample come first and last, those in another order in between.
        new = [changed([args, kwargs], np.random.RandomState(n)) for _ in range(2)]
        try:
            expected = outcome(call, *new[0])
        except (RuntimeError, ValueError, IndexError) as error:
            with pytest.raises(type(error)):
                outcome(compiled, *new[1])
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            difference = first_difference(expected, outcome(compiled, *new[1]))
        if difference:
            return f"call {n}: {difference}", Counter(), False
    entries = list(calls_of(compiled).entries.values())
    return "", *programs(compiled)


def programs(compiled: Any) -> tuple[Counter[str], bool]:
    """Return how many kernels and steps a compiled function replays, and whether it does."""
    count: Counter[str] = Counter()
    for plan in plans(compiled):
        for program in (plan.forward, plan.backward):
            if program is not None:
                count.update(kernels=program.native, steps=program.steps)
    return count, bool(plans(compiled))


def plans(compiled: Any) -> list[Any]:
    found = []
    for entry in calls_of(compiled).entries.values():
        for each in entry if isinstance(entry, list) else [entry]:
            found += [plan for plan in each.plans if plan.forward is not None]
    return found


REPLAYED: Counter[str] = Counter()


@pytest.mark.parametrize("name", CASES)
def test_replayed_with_other_numbers(name: str) -> None:
    op = OPS[name]
    given = samples(op)
    done = Counter()
    for dtype in ("float64", "float32") if op.native else ("float64",):
        for args, kwargs in given if dtype == "float64" else samples(op, dtype):
            difference, _, replayed = replay(op, args, kwargs)
            assert not difference, f"{name}{args}{kwargs}: {difference}"
            done[replayed] += 1
    REPLAYED.update(["ops" if done[True] else "as it is"])
