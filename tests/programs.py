"""Random programs, run by PyTorch and by minitensor: the first difference is the next fault.

    python tests/programs.py --count 50000 --seed 1 --jobs 2
    python tests/programs.py --only 4711            # draw one program, run and shrink it
    python tests/programs.py --only 4711 --source   # print it as Python for both libraries

A program is a list of statements in Python that speak of `T`, which is one library or the other.
tests/program_table.py says how each kind of statement is drawn. A program is built against PyTorch
as it is drawn, so that shapes and refusals are known, then run by minitensor
(tests/program_runs.py). All that a user can see is compared: values, shapes, gradients of first and
second order, what hooks were given and in which order, and refusals, which must come at the same
statement with the same type. What differs is shrunk to the fewest and simplest statements that
differ in the same way (tests/program_shrink.py). Then the program is made a function, which must do
the same compiled as uncompiled (tests/program_compiled.py).
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import random
import re
import sys
import textwrap
import time
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import program_compiled
import torch
from program_runs import HEADS, SPACES, Difference, compiled, difference, run, source
from program_shrink import shrink
from program_table import ENDS, TABLE, VIEWS, WEIGHTS, Unfit, has_grad, off, overlaps

import minitensor

LARGEST = 200.0  # number that a program may make
MOST = 60  # elements of a tensor


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
            exec(compiled(text), self.space)

    # chance

    def of(self, choices: Sequence[Any]) -> Any:
        return self.random.choice(choices)

    def word(self, choices: str) -> str:
        return self.random.choice(choices.split())

    def whole(self, low: int, high: int) -> int:
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
        return self.whole(-t.ndim, t.ndim - 1)

    def value(self, text: str) -> Any:
        """Return the value of an expression in PyTorch, without recording it."""
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
        """Return True if two tensors broadcast; if `exact`, to the shape of `other`."""
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
        keep = self.whole(0, len(shape))
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
        count = self.whole(1, min(n, 3)) if count is None else count
        if distinct:
            chosen = self.random.sample(range(n), min(count, n))
        else:
            chosen = [self.whole(0, n - 1) for _ in range(count)]
        return f"T.tensor({chosen})"

    # views

    def view(self, t: Any) -> str:
        """Return a text that, appended to a tensor, makes a random view of it."""
        return VIEWS[self.of(list(VIEWS))](self, t)

    def target(self) -> str:
        """Return a target for a change in place: a variable, or a new view of one."""
        free = self.maybe(0.93)
        name = self.pick(lambda t: t.numel() > 0 and not (free and t.is_leaf and t.requires_grad))
        unused = self.unused(name)
        text, t = name, self[name]
        for _ in range(self.of([0, 0, 0, 1, 1, 2, 3])):
            try:
                step = self.view(t).format(name)
            except (Unfit, RuntimeError):  # the latter of a view that PyTorch has given up
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

    def times(self, name: str) -> int:
        """Return the number of statements that name a variable."""
        return sum(bool(re.search(rf"\b{name}\b", text)) for text in self.program)

    def unused(self, name: str) -> bool:
        """Return True for a leaf that no later statement has used yet."""
        return self.times(name) < 2 and not self[name]._is_view() and name[0] == "x"

    def tried(self, text: str) -> Any:
        try:
            return self.value(text)
        except (RuntimeError, IndexError):
            return None

    def probe(self, text: str) -> Any:
        """Return the value of a recorded expression in PyTorch; None if PyTorch refuses it."""
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
            if group == "backward" and self.maybe(0.5) and self.names(has_grad):
                kind = self.of(["grad_changed", "step"])
            try:
                return kind, TABLE[group][kind](self)
            except (Unfit, RuntimeError):  # the latter of a view that PyTorch has given up
                continue

    def step(self, kind: str, text: str, keep: float) -> bool:
        """Add a statement; one that PyTorch refuses ends the program, or is dropped again."""
        parts = re.split(r"\n(?! )", text)
        for number, part in enumerate(parts):
            try:
                exec(compiled(part), self.space)
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
    for _ in range(d.whole(1, 3)):
        d.step("new_leaf", TABLE["flag"]["new_leaf"](d), 1)
    size = d.whole(3, 15)
    while len(d.program) < size and not d.ended:
        kind, text = d.draw()
        d.step(kind, text, 0.12)
    for _ in range(20):
        if d.ended or d.kinds[-1] in ENDS:
            break
        kind = d.chosen(ENDS)
        try:
            text = TABLE["backward"][kind](d)
        except (Unfit, RuntimeError):  # the latter of a view that PyTorch has given up
            continue
        d.step(kind, text, 0.5)
    return d


def report(
    seed: int | None, program: Sequence[str], found: Difference | None = None
) -> tuple[str, Difference]:
    """The shrunk program and what both libraries make of it; or what compiled functions do."""
    if found is not None and found.kind[0] == "compiled":
        title = f"seed {seed}: compiled" if seed is not None else "compiled"
        return "\n".join(
            [title, *(textwrap.indent(t, "    ") for t in program), found.message]
        ), found
    small, found = shrink(program)
    head = [] if seed is None else [f"seed {seed}: {' '.join(found.kind)}"]
    return "\n".join([*head, *(textwrap.indent(t, "    ") for t in small), found.message]), found


# Many programs


@dataclass
class Tally:
    """The counts and failures of many programs."""

    programs: int = 0
    kept: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[int, list[str], Difference]] = field(default_factory=list)
    replayed: int = 0  # functions made of programs that were compiled, and not run as they are
    given_up: int = 0  # PyTorch refused in a second run what it had allowed in the first

    def add(self, other: Tally) -> None:
        """Count another part of the run in."""
        self.programs += other.programs
        self.kept += other.kept
        self.refused += other.refused
        self.failures += other.failures
        self.given_up += other.given_up
        self.replayed += other.replayed


def try_seeds(seeds: Sequence[int]) -> Tally:
    """Draw and run the programs of some seeds, compiled too."""
    tally = Tally()
    for seed in seeds:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                d = draw(seed)
            except RuntimeError:
                tally.given_up += 1
                continue
        theirs = run(d.program, torch)
        tally.programs += 1
        tally.kept.update(k for k in d.kinds[: theirs.stopped] if k)
        if theirs.stopped is not None:
            tally.refused[d.kinds[theirs.stopped]] += 1
        found = difference(d.program, theirs)
        if found:
            tally.failures.append((seed, d.program, found))
        for plain in (True, False):
            text, replayed = program_compiled.difference(d.program, plain)
            tally.replayed += replayed
            if text:
                tally.failures.append((seed, d.program, Difference(("compiled",), text)))
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
                print(report(seed, program, found)[0], flush=True)
                print(flush=True)
    print(table(tally))
    for kind, count in kinds.most_common():
        print(f"{count:6}  {' '.join(kind)}")
    took = time.monotonic() - begun
    undrawn = f", {tally.given_up} could not be drawn" if tally.given_up else ""
    rate = f"{tally.programs / took:.0f}/s"
    compiled = f"{tally.replayed} of {2 * tally.programs} functions of them were replayed"
    print(f"{tally.programs} programs, {len(tally.failures)} differ{undrawn}, {rate}; {compiled}")
    return 1 if tally.failures else 0


def _parts(chunks: Sequence[Sequence[int]], jobs: int) -> Iterator[Tally]:
    """Yield the tally of each chunk of seeds; a crash of PyTorch loses one chunk, with a notice."""
    if jobs == 1:
        yield from map(try_seeds, chunks)
        return
    left = list(chunks)
    while left:
        lost = yield from _some(left, jobs)
        for chunk in lost[:jobs]:  # those that ran when a process died: each by itself
            for alone in (yield from _some([chunk], 1)):
                print(f"a process died in seeds {alone[0]} to {alone[-1]}\n", flush=True)
        left = lost[jobs:]


def _some(chunks: Sequence[Any], jobs: int) -> Generator[Tally, None, list[Any]]:
    """Run chunks in a pool of processes; return those that were lost when one of them died."""
    lost = []
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, spawned, _quiet) as pool:
        futures = [(chunk, pool.submit(try_seeds, chunk)) for chunk in chunks]
        for chunk, future in futures:
            try:
                yield future.result()
            except BrokenProcessPool:
                lost.append(chunk)
    return lost


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
        for plain in (True, False):
            text, _ = program_compiled.difference(program, plain)
            if text:
                print(text)
                return 1
        print("both the same")
        return 0
    print(found.message, "\n")
    print(report(seed, program)[0])
    return 1


def table(tally: Tally) -> str:
    """Return a table of how often each kind of statement ran, and PyTorch refused it."""
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
