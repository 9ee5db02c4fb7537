"""Checks of `Op.cell`: what an op tells of a cell is what it computes, and all that it reads."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..core import Op
from ..dtype import FLOATING
from ..graph.cells import Made, made
from ..ops.places import PLACE

NEAR = {2: 1e-2, 4: 1e-5, 8: 1e-9}  # relative, by the size of the type
Bounds = tuple[Any, Any]
Cells = Mapping[str, np.ndarray]  # flat numbers by the name of a tensor


Run = tuple[list[Any], dict[str, Any]]  # arguments of `forward`: arrays and settings


def runs(op: type[Op], args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Run]:
    """Return the arguments of each run of `op.forward` in `op.call(*args, **kwargs)`."""
    seen: list[Run] = []
    forward, own = op.forward, "forward" in vars(op)

    def spy(ctx: Op, *a: Any, **k: Any) -> Any:
        seen.append((list(a), k))
        return forward(ctx, *a, **k)

    op.forward = spy  # type: ignore[method-assign, assignment]
    try:
        op.call(*args, **kwargs)
    finally:
        if own:
            op.forward = forward  # type: ignore[method-assign]
        else:
            del op.forward
    return seen


def check_cells(
    op: type[Op], args: Sequence[Any], kwargs: Mapping[str, Any], cells: int = 6
) -> Counter[str]:
    """Check some `cells` of each result of `op.forward` on arrays; AssertionError if wrong.

    - The formula gives the number that the op computed.
    - It does not change if all cells that the formula does not read have other numbers.
    - Each cell that it reads matters: with another number there the result is another, if need be
      with other numbers in other cells too, as in a product with a zero. Only a softmax of a single
      number may be 1 whatever that is.

    An op that does not tell its cells is not checked. Returns the numbers of cells checked.
    """
    run = _Run(op, args, kwargs)
    done: Counter[str] = Counter()
    if run.how is None:
        return done
    for port, out in enumerate(run.outs):
        for flat in run.noise.permutation(out.size)[:cells]:
            place = tuple(map(int, np.unravel_index(flat, out.shape)))
            try:
                done += run.check(port, place)
            except AssertionError as error:
                shapes = {name: x.shape for name, x in run.tensors.items()}
                formula = run.how.formulas[port] if run.how.formulas else "moves"
                raise AssertionError(f"{list(place)} of {formula} of {shapes}: {error}") from error
    return done


class _Run:
    """A run of an op that can be repeated with other numbers."""

    def __init__(self, op: type[Op], args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self.op = op
        # Copies: two arguments may share their memory.
        self.args = [np.array(a) if isinstance(a, np.ndarray) else a for a in args]
        self.kwargs = dict(kwargs)
        self.how: Made | None = made(op, self.args, self.kwargs)
        self.tensors: dict[str, np.ndarray] = {}
        self.outs: list[np.ndarray] = []
        self.noise = np.random.RandomState(0)
        if self.how is not None:
            given = {id(a) for a in self.args}
            self.tensors = {n: x for n, x in self.how.tensors.items() if id(x) in given}
            if op.hidden is not None:  # it stands for the masks that no formula names
                named = set(re.findall(r"\w+", " ".join(self.how.formulas)))
                self.tensors = {
                    n: x for n, x in self.tensors.items() if n in named or x.dtype != np.bool_
                }
            self.outs = self.results({})
            self.bounds = {name: self._bounds(name) for name in self.tensors}

    def _bounds(self, name: str) -> Bounds:
        """Return the least and the largest number that a tensor may get.

        Of places in other tensors that is what it has: kernels do not check them.
        """
        x = self.tensors[name]
        if x.dtype.kind not in "iu":
            return -math.inf, math.inf
        assert self.how is not None
        if x.size and any(_steers(name, formula) for formula in self.how.formulas):
            return int(x.min()), int(x.max())
        info, wide = np.iinfo(x.dtype), 20
        low, high = (int(x.min()), int(x.max())) if x.size else (0, 0)
        return max(low - wide, int(info.min)), min(high + wide, int(info.max))

    def results(self, new: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Return the results with other tensors."""
        by_id = {id(self.tensors[name]): x for name, x in new.items()}
        args = [by_id.get(id(a), a) for a in self.args]
        run = self.op()
        run.edges = [None] * len(args)
        with np.errstate(all="ignore"):
            found = run.forward(*args, **self.kwargs)
        return [np.asarray(y) for y in (found if isinstance(found, tuple) else (found,))]

    def check(self, port: int, place: tuple[int, ...]) -> Counter[str]:
        """Check one cell; return how many cells it reads."""
        assert self.how is not None
        value, reads = self.how.cell(port, place)
        out = self.outs[port][place]
        if value is not None:
            near = NEAR.get(out.dtype.itemsize, 0) if out.dtype.kind in FLOATING else 0
            if not np.isclose(np.float64(value), np.float64(out), near, 1e-12, equal_nan=True):
                raise AssertionError(f"the formula gives {value}, the op {out}")
        others = {
            name: np.setdiff1d(np.arange(x.size), reads.get(name, []))
            for name, x in self.tensors.items()
        }
        after = self._with_others(others)[port][place]
        if not np.isclose(np.float64(after), np.float64(out), 1e-12, 0, equal_nan=True):
            raise AssertionError(f"it changes from {out} to {after} with cells it does not read")
        done = Counter({"cells": 1})
        for name in [name for name in self.tensors if name in reads]:
            low, high = self.bounds[name]
            for cell in reads[name]:
                if low == high:
                    done["cells read that allow one number alone"] += 1
                    continue
                found = self._matters(port, place, name, reads[name], cell)
                if next(found):
                    done["cells read"] += 1
                elif self._cancels(port, place, name, cell):
                    done["cells read that cancel out"] += 1
                elif any(found):
                    done["cells read"] += 1
                else:
                    raise AssertionError(f"cell {cell} of {name} does not matter")
        return done

    def _cancels(self, port: int, place: tuple[int, ...], name: str, cell: int) -> bool:
        """Return True if a softmax of one number is 1, whatever that is, in the formula too."""
        assert self.how is not None
        formula = self.how.formulas[port] if self.how.formulas else ""
        if not re.search(r"softmax\(|logsumexp\(|/ sum\(exp", formula):
            return False
        tensor = np.array(self.tensors[name], order="C")
        tensor.reshape(-1)[cell] += 1
        other = Made(self.how.tensors | {name: tensor}, self.how.formulas)
        was, now = (how.cell(port, place)[0] for how in (self.how, other))
        return bool(np.isclose(was, now, 1e-12, 1e-12))

    def _with_others(self, others: Cells) -> list[np.ndarray]:
        """Return the results with other numbers in some cells; integers where that is allowed."""
        new = {
            name: _changed(self.tensors[name], cells, self.bounds[name])
            for name, cells in others.items()
        }
        try:
            return self.results(new)
        except (RuntimeError, IndexError):  # a place beyond a tensor
            return self.results({n: x for n, x in new.items() if x.dtype.kind not in "iu"})

    def _matters(
        self, port: int, place: tuple[int, ...], name: str, cells: np.ndarray, cell: int
    ) -> Iterator[bool]:
        """Yield True if another number in `cell` gives another result; for each background."""
        extreme = self.outs[port].dtype == np.bool_  # NaN spreads to all that is multiplied by 0
        more = self._compared(port, place, name)
        for background in self._backgrounds(port, place, name, cells):
            known = _candidates(background[name], cells, cell, self.bounds[name], extreme)
            yield any(self._changes(port, place, name, background, cell, (*known, *more)))

    def _changes(
        self,
        port: int,
        place: tuple[int, ...],
        name: str,
        background: dict[str, np.ndarray],
        cell: int,
        numbers: Sequence[Any],
    ) -> Iterator[bool]:
        """Yield True for each of the numbers in `cell` that gives another result."""
        found = None
        for number in numbers:
            tensor = background[name].copy()
            tensor.reshape(-1)[cell] = number
            try:
                found = self.results(background)[port][place] if found is None else found
                new = self.results(background | {name: tensor})[port][place]
            except (RuntimeError, IndexError, ValueError):  # numbers that the op refuses
                continue
            yield not np.array_equal(new, found, found.dtype.kind in FLOATING)

    def _compared(self, port: int, place: tuple[int, ...], name: str) -> list[float]:
        """Return the numbers that a formula compares a tensor with."""
        assert self.how is not None
        found: list[float] = []
        if self.tensors[name].dtype == np.bool_:
            return found
        formula = self.how.formulas[port] if self.how.formulas else ""
        for word in re.findall(rf"\b{name}\b[^=]*[!=]= \(?(-?[\w.]+)", formula):
            if word in PLACE[: len(place)]:
                found.append(place[PLACE.index(word)])
            elif re.fullmatch(r"-?[\d.]+", word):
                found.append(float(word))
        return found

    def _backgrounds(
        self, port: int, place: tuple[int, ...], name: str, cells: np.ndarray
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yield other numbers in the tensors: none, then in the cells read of that tensor.

        Then in all tensors of truths and places. In all tensors, floats too, if the result is of
        truths or integers or has a bound: one truth may decide, or one bound.
        """
        x, more = self.tensors[name], self._compared(port, place, name)
        yield {name: x}
        low, high = self.bounds[name]
        numbers: list[Any] = [
            min(max(0, low), high),
            min(max(1, low), high),
            *(self._random(name, len(cells), more) for _ in range(8)),
        ]
        for values in numbers:
            tensor = np.array(x, order="C")
            tensor.reshape(-1)[cells] = values
            yield {name: tensor}
        formula = self.how.formulas[port] if self.how and self.how.formulas else ""
        whole = self.outs[port].dtype.kind not in FLOATING or re.search(r"\b(min|max)\(", formula)
        for _ in range(40):
            yield {
                n: self._random(n, t.size, self._compared(port, place, n)).reshape(t.shape)
                for n, t in self.tensors.items()
                if whole or t.dtype.kind not in FLOATING or n == name
            }

    def _random(self, name: str, count: int, more: Sequence[float]) -> np.ndarray:
        x = self.tensors[name]
        if x.dtype.kind in FLOATING:
            return (self.noise.randn(count) * (self.noise.rand(count) < 0.8)).astype(x.dtype)
        if x.dtype == np.bool_:
            return self.noise.rand(count) < 0.5
        low, high = self.bounds[name]
        pool = [*range(low, high + 1), *more]
        return self.noise.choice(pool, count).astype(x.dtype)


def _steers(name: str, formula: str) -> bool:
    """Return True if a formula names a tensor inside brackets, so for places in another."""
    depth = 0
    for word in re.findall(r"\w+|[][]", formula):
        depth += {"[": 1, "]": -1}.get(word, 0)
        if depth and word == name:
            return True
    return False


def _changed(x: np.ndarray, cells: np.ndarray, bounds: Bounds) -> np.ndarray:
    """Return a copy of `x` with other numbers in some cells."""
    copy = np.array(x, order="C")
    flat = copy.reshape(-1)
    now = flat[cells]
    if x.dtype == np.bool_:
        flat[cells] = ~now
    elif x.dtype.kind in FLOATING:
        flat[cells] = now * 0.83 + 0.011
    else:
        low, high = bounds
        flat[cells] = np.where(now > low, now - 1, high)
    return copy


def _candidates(
    x: np.ndarray, cells: np.ndarray, cell: int, bounds: Bounds, extreme: bool
) -> Iterator[Any]:
    """Yield other numbers for a cell: near and far ones, and those of the other cells."""
    now = x.reshape(-1)[cell]
    if x.dtype == np.bool_:
        yield ~now
        return
    if x.dtype.kind in FLOATING:
        yield from (now * 0.83 + 0.011, now + 40, now - 40, 0.7, -1.3, 0.0)
        yield from (np.inf, np.nan) if extreme else ()
    else:
        yield from range(bounds[0], bounds[1] + 1)
    yield from x.reshape(-1)[cells][:20]
