"""Plans: what a run computes, kept as a list of kernel calls and of steps in Python, to run again.

All that is computed on arrays goes through `state.quietly`: the rules of ops, sums of gradients. A
`Trace` takes its place during one run and notes each *event*. If kernels did all of it, it is their
recorded calls: a function, arguments and tasks, which compiled code runs one after another without
Python. Otherwise it is a step: the rule is called again, on arrays without tensors.

Memory comes from an arena, so that every array has a fixed address: the pool frees and reuses
buffers while the run is traced, and the next run does as it did. What comes from outside or is
given away is *movable*: inputs, outputs and gradients. The words of the kernels' arguments that
point into a movable array are known, and are set before each run.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from .. import memory
from ..core import Op, state
from ..core.saved import SavedTensors
from ..kernels.dropout import THRESHOLDS, key_words
from ..kernels.gemm import Workspace
from ..kernels.jit import COMPILED, get_num_threads
from ..kernels.matmul import matmul as _matmul
from ..kernels.objectcode import ADDRESSES
from ..kernels.parallel import address, address_of_bytes, recording
from ..kernels.precision import rounds
from ..kernels.program import Program
from ..kernels.residual import add as _add
from ..recording import mapped
from .addresses import HEAP, Memory, NotReplayable, Place, array_of, bytes_of, may_be_addresses

_NATIVE = {_matmul, _add}  # functions that kernels compute, or say where they do not


@dataclass(frozen=True)
class Key:
    """The random key of a run, by its number."""

    number: int


@dataclass
class Run:
    """A run of an op: forward begins a new one, which backward goes on with."""

    op: type[Op]
    attributes: dict[str, Any]
    node: Any = None

    def begin(self) -> None:
        """Make a node as the traced one was."""
        self.node = self.op()
        self.node.__dict__.update(self.attributes)


@dataclass
class Step:
    """A rule that runs in Python."""

    name: str
    rule: Callable[..., Any]
    args: Any
    kwargs: Any
    outs: list[Any]  # where its results and saved arrays lie
    made: list[Any]  # what it is given when it asks for memory
    run: Run | None = None  # of the op whose rule it is
    forward: bool = False
    saved: Any = None  # for a rule of backward whose forward is native
    sums: dict[int, Any] | None = None


class Trace:
    """Takes the place of `state.quietly` in a block, and notes all that is computed."""

    def __init__(self, arena: memory.Arena, keys: Sequence[int], inputs: int) -> None:
        self.arena, self.memory, self.inputs = arena, Memory(), inputs
        self.keys = {key: Key(number) for number, key in enumerate(keys)}
        self.key_words = {word for key in keys for word in key_words(key)}
        self.time = 0
        self.events: list[tuple[int, list[Any] | Step]] = []  # kernel calls, or a step
        self.kept: list[Any] = []
        self._buffers = 0  # those of the arena that `memory` knows
        # By address: the size of a workspace, and its memory, which stays if a larger one comes.
        self.workspaces: dict[int, tuple[int, Any]] = {}

    @contextlib.contextmanager
    def noting(self) -> Iterator[None]:
        """Note what is computed in this block."""
        self._quietly = state.quietly
        with self.arena.entered():
            state.quietly = self  # type: ignore[assignment]
            recording.calls = []
            self._see_memory()
            try:
                yield
                self._catch_up()
            finally:
                recording.calls = None
                state.quietly = self._quietly

    def part(self) -> list[tuple[int, list[Any] | Step]]:
        """Return the events since this was last asked."""
        events, self.events = self.events, []
        return events

    def keep(self, array: np.ndarray, owner: Any = None) -> None:
        """Note an array that is there for as long as the plan, or moves if it has an owner."""
        if array.nbytes and (owner is not None or self.memory.find(address(array)) is None):
            self.kept.append(array)
            self.memory.add(array, array if owner is None else owner)

    def __call__(self, rule: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a rule, and note what it does."""
        self._catch_up()
        calls: Any = recording.calls
        self.time += 1
        self.arena.clock = self.time
        result = self._quietly(rule, *args, **kwargs)
        node = rule.args[0] if isinstance(rule, partial) else getattr(rule, "__self__", None)
        node = node if isinstance(node, Op) else None
        forward = node is not None and rule != node.backward
        if isinstance(result, np.generic):
            result = np.asarray(result) if node is None else node._as_array(result)
        outs = result if type(result) is tuple else (result,)
        outs = tuple([np.asarray(x) if isinstance(x, np.generic) else x for x in outs])
        result = outs if type(result) is tuple else outs[0]
        self._see_memory()
        if (
            not calls
            and node is not None
            and all(self._is_of(x, args) for x in outs)
            and (type(node).view or not forward or all(any(x is a for a in args) for x in outs))
        ):
            self.arena.made.clear()
            return result  # the same memory
        native = type(node).native if node is not None else rule in _NATIVE
        if native and all(map(self._is_known, outs)) and self._is_native(calls):
            self.events.append((self.time, list(calls)))
        else:
            step = self._step(rule, node, forward, args, kwargs, outs)
            self.events.append((self.time, step))
        calls.clear()
        self.arena.made.clear()
        return result

    def _catch_up(self) -> None:
        """Note the kernels that ran since the last event, outside of all rules."""
        calls: Any = recording.calls
        if calls or self.arena.made:
            self._see_memory()
            if not self._is_native(calls):
                raise NotReplayable("numbers are computed outside of the rules of ops")
            self.events.append((self.time, list(calls)))
            calls.clear()
            self.arena.made.clear()

    # What the kernels do

    def _see_memory(self) -> None:
        for buffer in self.arena.buffers[self._buffers :]:
            self.memory.add(buffer, buffer)
        self._buffers = len(self.arena.buffers)
        HEAP.look()
        for workspace in Workspace.every:
            if workspace.address not in self.workspaces:
                self.workspaces[workspace.address] = workspace.size, workspace.memory

    def _is_known(self, x: Any) -> bool:
        return x is None or not x.nbytes or self.memory.find(address(x)) is not None

    @staticmethod
    def _is_of(x: Any, args: Sequence[Any]) -> bool:
        """Return True if x is one of the arguments, or a view of its memory."""
        if x is None:
            return True
        return any(isinstance(a, np.ndarray) and np.may_share_memory(x, a) for a in args)

    def _is_native(self, calls: list[Any]) -> bool:
        """Return True if calls of kernels, and there are some, say all that was done."""
        if not calls or not COMPILED or any(call[3] is None for call in calls):
            return False
        kept: set[int] = set()
        for function, _, _, packed, record in calls:
            words = [_integers(packed, record)] if function else []
            for x in () if function else packed:
                if isinstance(x, bytes):
                    kept.add(address_of_bytes(x))
                    words.append(np.frombuffer(x[: len(x) // 8 * 8], np.int64))
                elif isinstance(x, np.ndarray):
                    kept.add(address(x))
            if not all(self._known_words(each, kept) for each in words):
                return False
        return True

    def _known_words(self, words: np.ndarray, kept: set[int]) -> bool:
        for word in words[may_be_addresses(words)].tolist():
            if word in kept or word in ADDRESSES or self.memory.find(word) is not None:
                continue
            if word in self.key_words or word in THRESHOLDS:
                continue
            if not any(0 <= word - at < size for at, (size, _) in self.workspaces.items()):
                return False
        return True

    # What Python does

    def _step(
        self, rule: Any, node: Any, forward: bool, args: Any, kwargs: Any, outs: tuple[Any, ...]
    ) -> Step:
        name = node.op_name if node is not None else getattr(rule, "__name__", "a function")
        for a in args:
            if not isinstance(a, np.ndarray):
                continue
            if not self._is_known(a) and np.any(a):  # zeros: of an output without a gradient
                raise NotReplayable(f"{name} is given numbers made outside of the ops")
            self.keep(a)
        step = Step(name, rule, self.placed(args), self.placed(kwargs), [], [], None, forward)
        results = list(outs)
        if node is not None:
            if forward:
                node._run = Run(type(node), {})
                values = node._saved if type(node._saved) is tuple else ()
                results += [x for x in values if isinstance(x, np.ndarray)]
            else:
                if not hasattr(node, "_run"):
                    node._run = Run(type(node), {})
                    step.saved = self.placed(node._saved.values)
                step.sums = {n: self.placed(x) for n, x in node.sums.items()}
            step.run = node._run
            step.run.attributes |= {
                "edges": tuple([None if e is None else True for e in node.edges]),
                "half": node.half,
                "output_meta": node.output_meta,
                "on_arrays": not forward,
                "_kwargs": node._kwargs,
            }
        for x in results:
            if isinstance(x, np.ndarray):
                self.keep(x)
        step.outs = self.placed(results)
        step.made = self.placed(
            [np.ndarray(shape, dtype, b, b.start) for b, shape, dtype in self.arena.made]
        )
        return step

    def placed(self, x: Any) -> Any:
        """Return a value with a Place for each array, and a Key for each random key."""
        return mapped(x, self._placed)

    def _placed(self, x: Any) -> Any:
        if isinstance(x, np.ndarray):
            found = self.memory.find(address(x)) if x.nbytes else None
            if found is None:
                return x if x.nbytes else x.copy()
            strides = tuple([s if n > 1 else 0 for n, s in zip(x.shape, x.strides, strict=True)])
            return Place(*found, x.shape, strides, x.dtype, self.time)
        return self.keys.get(x, x) if type(x) is int else x


@dataclass
class Movable:
    """Memory that is elsewhere in each run: `size` bytes at `start`, from an event on.

    `owner` is a buffer of the arena, or the number of an array that comes in.
    """

    start: int
    size: int
    since: int
    owner: Any


class Pass:
    """The events of one pass, forward or backward, ready to run again.

    - coming: the memory that it is given; of `movable`, the rest is that of its results.
    - native: the number of kernels that run without Python; steps: that of the other events.
    """

    def __init__(self, trace: Trace, coming: Sequence[Movable], results: Sequence[Any]) -> None:
        self.movable, self.coming = list(coming), len(coming)
        self._numbers = {_key(m.owner): n for n, m in enumerate(coming)}
        places = trace.placed(results)
        for place in places:
            owner: Any = getattr(place, "owner", None)
            if isinstance(place, np.ndarray) and place.nbytes:
                raise NotReplayable("it returns numbers made outside of the ops")
            if isinstance(owner, int) and owner < trace.inputs:
                raise NotReplayable("it returns a view of an argument")
            if hasattr(owner, "lent") and id(owner) not in self._numbers:
                self._numbers[id(owner)] = len(self.movable)
                start = owner.ctypes.data + owner.start
                self.movable.append(Movable(start, owner.count, owner.lent, owner))
        self.places = self._fixed(places)
        self._kept = [trace.kept, trace.workspaces, self.movable]
        self._arena = trace.arena
        self._program = Program()
        self._items: list[Any] = []  # steps, and ranges of kernels
        calls: list[Any] = []
        times: list[int] = []
        count = 0
        for time, event in trace.part():
            if isinstance(event, Step):
                self._items.append(event)
                for name in ("args", "kwargs", "outs", "made", "saved", "sums"):
                    setattr(event, name, self._fixed(getattr(event, name)))
                continue
            calls += event
            times += [time] * len(event)
            more = count + sum(call[0] != 0 for call in event)
            if self._items and type(self._items[-1]) is range:
                count = self._items.pop().start
            self._items.append(range(count, more))
            count = more
        self._program.take(calls, times)
        for m in self.movable:
            self._program.move(m.start, m.size, m.since)
        for key, slot in trace.keys.items():
            self._program.rekey(slot.number, key)
        self.native = len(self._program)
        self.steps = sum(isinstance(item, Step) for item in self._items)

    def run(self, arrays: Sequence[np.ndarray], keys: Sequence[int]) -> list[np.ndarray]:
        """Run on what comes in this time, contiguous arrays and random keys.

        Return all movable memory: those arrays, and new memory that has the results.
        """
        new = [memory.empty((m.size,), np.uint8) for m in self.movable[self.coming :]]
        arrays = [*arrays, *new]
        self._program.set([address(a) for a in arrays], keys)
        if not self.steps:
            self._program.run()
            return arrays
        contents = [bytes_of(a) for a in arrays]
        with self._arena.entered():
            for item in self._items:
                if type(item) is range:
                    self._program.run(item.start, item.stop)
                else:
                    self._do(item, contents, keys)
        return arrays

    def first(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return all movable memory, as `run` does, of the run that was traced."""
        return [*arrays, *[_content(m).copy() for m in self.movable[self.coming :]]]

    def last(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return what `first` does, once no pass follows: memory of results is not copied.

        The arena does without it, where nothing else was ever there.
        """
        buffers = [m.owner for m in self.movable if not isinstance(m.owner, int)]
        given = {id(buffer) for buffer in buffers if self._arena.give_away(buffer)}
        found = [*arrays]
        for m in self.movable[self.coming :]:
            found.append(_content(m) if id(m.owner) in given else _content(m).copy())
        for m in self.movable:
            m.owner = None
        return found

    def results(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray | None]:
        """Return the results, in the memory that `run` returned; copies of what lies elsewhere."""
        found: list[np.ndarray | None] = []
        for place in self.places:
            if type(place) is not Place:
                found.append(None if place is None else place.copy())
            else:
                array = array_of(arrays[place.owner], place)
                found.append(array.copy() if place.owner < self.coming else array)
        return found

    # Steps in Python

    def _fixed(self, x: Any) -> Any:
        """Return a value with arrays in place of what does not move."""

        def fixed(x: Any) -> Any:
            if type(x) is not Place:
                return x
            number = self._numbers.get(_key(x.owner))
            if number is None or x.time < self.movable[number].since:
                return array_of(x.owner, x)
            offset = x.offset if isinstance(x.owner, int) else x.offset - x.owner.start
            return replace(x, owner=number, offset=offset)

        return mapped(x, fixed)

    def _do(self, step: Step, arrays: Sequence[np.ndarray], keys: Sequence[int]) -> None:
        def at(x: Any) -> Any:
            if type(x) is Place:
                return array_of(arrays[x.owner], x)
            return keys[x.number] if type(x) is Key else x

        def now(x: Any) -> Any:
            return mapped(x, at)

        run, rule = step.run, step.rule
        node: Any = None
        if run is not None:
            if step.forward or step.saved is not None:
                run.begin()
            node = run.node
            if step.saved is not None:
                node._saved = SavedTensors(now(step.saved), ())
            if step.sums:
                node.sums = now(step.sums)
            if isinstance(rule, partial):
                rule = partial(rule.func, node, *rule.args[1:])
            else:
                rule = node.forward if step.forward else node.backward
        self._arena.given = iter(now(step.made))
        recording.calls = []  # so that it does as it did when it was traced
        try:
            result = state.quietly(rule, *now(step.args), **now(step.kwargs))
        finally:
            recording.calls = None
        found = list(result) if type(result) is tuple else [result]
        if step.forward and type(node._saved) is tuple:
            values = node._saved
            found += [x for x in values if isinstance(x, np.ndarray)]
            node._saved = SavedTensors(values, ())
        outs = now(step.outs)
        if len(outs) != len(found):
            raise NotReplayable(f"{step.name} gave another number of results")
        for target, x in zip(outs, found, strict=True):
            if target is None or x is None:
                if target is not x:
                    raise NotReplayable(f"{step.name} gave other results")
            elif np.shape(x) != target.shape:
                raise NotReplayable(f"{step.name} gave another shape, {np.shape(x)}")
            elif not isinstance(x, np.ndarray) or address(x) != address(target):
                target[...] = x


def _content(m: Movable) -> np.ndarray:
    content: np.ndarray = m.owner[m.owner.start :][: m.size]
    return content


def _key(owner: Any) -> int:
    return owner if isinstance(owner, int) else id(owner)


def _integers(packed: Any, record: np.dtype[Any]) -> np.ndarray:
    """Return the arguments of a kernel that are integers."""
    rows = np.frombuffer(packed, np.int64).reshape(-1, len(record.names or ()))
    count = sum(record[name].kind == "i" for name in record.names or ())
    return rows[:, :count].reshape(-1)


def ready() -> tuple[Any, ...]:
    """Return what a plan was made for: threads, precision, and whose workspaces."""
    return get_num_threads(), rounds(), threading.get_ident()
