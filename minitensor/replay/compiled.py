"""`compile`: a function or module whose calls are recorded once, rewritten and replayed."""

from __future__ import annotations

import sys
import threading
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import memory, random
from ..autograd.grad_mode import Mode
from ..core import Node, Tensor, state, wrap
from ..core.backward import run_backward
from ..core.node import clock, edge_for
from ..core.saved import FREED, SavedTensors, origin_of
from ..dtype import get_default_dtype
from ..errors import is_library
from ..kernels.jit import COMPILED
from ..nn.masks import is_causal_mask
from ..recording import refs
from .chains import fuse_chains
from .graph import Call, Graph, aliased, of_recording
from .guards import Guards
from .plan import Movable, NotReplayable, Pass, Place, Trace, array_of, bytes_of, ready
from .record import CallRecording
from .rules import Fired, rewrite
from .table import RULES
from .values import form, formed, signature

PLANS = 64  # of different arguments that are kept, the last used
_TURNS = 2  # calls at a time whose backward pass has yet to run
_CHANGES = "it changes"
_VARIANTS = 4  # of what is read besides the arguments, as in training and evaluation
# One call is recorded or replayed at a time; meanwhile those of other threads run as they are.
_lock = threading.RLock()


class Compiled:
    """A function whose calls are recorded and replayed."""

    def __init__(self, function: Callable[..., Any], explain: bool = False) -> None:
        self.function, self.explains = function, explain
        self.entries: OrderedDict[Any, Entry] = OrderedDict()
        self.told: set[str] = set()
        self.rooms: list[Room] = []
        self._again: set[Any] = set()  # kinds of calls that changed what they read, once

    def __reduce__(self) -> Any:
        return Compiled, (self.function, self.explains)  # a copy records anew

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function, by a plan if there is one for such arguments."""
        if not COMPILED or state.observers or random.uses_torch_dropout():
            return self.function(*args, **kwargs)
        tensors: list[Tensor] = []
        modes = state.grad, *ready()[:2], get_default_dtype()
        kind = signature((args, kwargs), tensors), *modes
        for key in ((*kind, number) for number in range(_VARIANTS)):
            if key not in self.entries:
                if not _lock.acquire(blocking=False):
                    return self.function(*args, **kwargs)
                try:
                    return self._record(key, tensors, args, kwargs)
                finally:
                    _lock.release()
            entry = self.entries[key]
            changed = entry.guards.changed()
            if not changed:
                break
        else:
            entry.reason = f"{changed} changes from call to call"
            entry.guards = Guards()
            self._tell(entry.reason)
        self.entries.move_to_end(key)
        plan = None
        if not entry.reason and _lock.acquire(blocking=False):
            try:
                room = self._room()
                plan = None if room is None else entry.plan(room)
                return self.function(*args, **kwargs) if plan is None else plan(tensors)
            except NotReplayable as error:
                entry.reason = str(error)
                self._tell(entry.reason)
            except Exception:  # which the function raises too, or not
                if plan is not None:
                    entry.plans.remove(plan)
            finally:
                _lock.release()
        return self.function(*args, **kwargs)

    def _room(self) -> Room | None:
        """Return memory that no backward pass is to use any more; None if all is in use."""
        for room in self.rooms:
            if room.idle:
                return room
        if len(self.rooms) == _TURNS:
            return None
        self.rooms.append(Room())
        return self.rooms[-1]

    def traced(self, inputs: Any, options: Any) -> Any:
        """Return the program that `graph.trace` runs for a call, and why it is not replayed."""
        from .traced import traced

        return traced(self, inputs, options)

    def _record(self, key: Any, tensors: Sequence[Tensor], args: Any, kwargs: Any) -> Any:
        """Call the function, and record the call for the next one with such arguments."""
        guards = Guards()
        guards.watch(self.function, "the function")
        guards.watch(args, "an argument")
        guards.watch(kwargs, "an argument")
        arguments = {id(t._array) for t in tensors}
        recording = CallRecording(
            {n: name for n, name in guards.leaves.items() if n not in arguments}
        )
        for number, t in enumerate(tensors):
            recording.add_input(t, f"input {number}")
        recorded = state.grad
        with recording:
            result = self.function(*args, **kwargs)
            if state.grad != recorded:
                recording.refuse("it changes whether gradients are recorded")
        entry = self.entries[key] = Entry(guards, "", self.explains)
        if len(self.entries) > PLANS:
            self.entries.popitem(last=False)
        entry.reason = self._obstacle(recording, guards)
        if entry.reason.startswith(_CHANGES) and key not in self._again:
            self._again.add(key)  # perhaps something that is made once: try the next call
            del self.entries[key]
            return result
        if not entry.reason:
            try:
                outputs: list[Any] = []
                entry.form = form(result, outputs)
                numbers = [recording.output(t) for t in outputs]
                entry.graph = of_recording(recording, numbers)
                entry.recorded = list(entry.graph.calls)
                entry.fired = rewrite(entry.graph, RULES)
                guards.numbers(entry.graph.read)
                entry.graph = fuse_chains(entry.graph)
            except NotReplayable as error:
                entry.reason = str(error)
        self._tell(entry.reason)
        if self.explains:
            from .explain import explanation

            print(explanation(entry))
        return result

    @staticmethod
    def _obstacle(recording: CallRecording, guards: Guards) -> str:
        """Return why a recorded call cannot be repeated, or ""."""
        if guards.hooked:
            return f"{guards.hooked} has hooks"
        left = [d for d in recording.departures if d.method != is_causal_mask.__name__]
        if left:
            departure = left[0]
            return f"{departure.line}: {departure.method}() reads a tensor's numbers"
        if recording.problem:
            return recording.problem
        if recording.draws:
            return "it draws random numbers other than dropout's"
        drawn = guards.drawn()
        if drawn:
            return f"it draws random numbers from {drawn}"
        changed = guards.changed()
        if changed:
            return f"{_CHANGES} {changed}"
        guards.numbers(recording.read)
        for code, names in recording.functions.items():
            guards.globals(code, names)
        return ""

    def _tell(self, reason: str) -> None:
        if reason and reason not in self.told:
            self.told.add(reason)
            name = getattr(self.function, "__qualname__", type(self.function).__name__)
            level, frame = 1, sys._getframe()
            while frame.f_back is not None and is_library(frame.f_code.co_filename):
                level, frame = level + 1, frame.f_back
            warnings.warn(f"compile: {name} runs as it is: {reason}", stacklevel=level)


class Entry:
    """A recorded call, for calls with arguments of its kind."""

    graph: Graph
    form: Any
    recorded: list[Call]  # before rules
    fired: list[Fired]

    def __init__(self, guards: Guards, reason: str, explains: bool = False) -> None:
        self.guards, self.reason = guards, reason  # why it cannot be replayed, or ""
        self.explains = explains
        self.plans: list[Plan] = []

    def plan(self, room: Room) -> Plan:
        """Return the plan that runs in this memory; NotReplayable if there can be none."""
        self.plans = [plan for plan in self.plans if plan.made_for == ready()]
        for plan in self.plans:
            if plan.broken:
                raise NotReplayable(plan.broken)
            if plan.room is room:
                return plan
        self.plans.append(Plan(self.graph, self.form, room, self.explains))
        return self.plans[-1]


class Room:
    """The memory of plans that do not run at once, and the call that has it until its backward."""

    def __init__(self) -> None:
        self.arena = memory.Arena()
        self.node: weakref.ref[CompiledNode] | None = None

    @property
    def idle(self) -> bool:
        """True if no result of an earlier call has its backward pass ahead."""
        node = None if self.node is None else self.node()
        return node is None or node.done


class Plan:
    """A graph with its programs, made at the first call and at the first backward pass."""

    def __init__(self, graph: Graph, form: Any, room: Room, explains: bool = False) -> None:
        self.graph, self.form, self.room, self.explains = graph, form, room, explains
        self.arena = room.arena
        self.leaves = _last_used_first(graph)
        self.sources = graph.inputs + self.leaves
        self.forward: Pass | None = None
        self.backward: Pass | None = None
        self.inner: list[Tensor] = []  # what the traced ops began with, until backward is traced
        self._made: list[Tensor | None] = []  # and their outputs
        self.made_for: Any = ready()

    def __call__(self, inputs: Sequence[Tensor]) -> Any:
        """Return what the function would return."""
        generator = random.default_generator
        before = generator.get_state() if self.graph.keys else None
        try:
            keys = [generator.key(size) for size in self.graph.keys]
            tensors = [*inputs, *(self.graph.tensors[n] for n in self.leaves)]
            arrays = [_contiguous(t._array) for t in inputs]
            if self.forward is None or (self._asked and self.backward is None):
                outs = self._make(arrays, tensors, keys)
                self._asked = False
            else:
                self._made, self.inner = [], []  # nobody asked for the gradients of the last call
                outs = self._replay(arrays, keys)
        except BaseException:
            if before is not None:
                generator.set_state(before)
            raise
        made: dict[int, Tensor] = {}
        boxes: dict[int, Any] = {}  # tensors that share memory count its changes together
        for n, out, place in zip(self.graph.outputs, outs, self._outs, strict=True):
            if n not in made:
                made[n] = tensors[self.sources.index(n)] if out is None else wrap(out)
                if isinstance(place, Place):
                    made[n]._version_box = boxes.setdefault(place.owner, made[n]._version_box)
        found = [made[n] for n in self.graph.outputs]
        if self.differentiates:
            self._attach(found, tensors, arrays, keys)
        for n, out in zip(reversed(self.graph.updates), reversed(found), strict=False):
            target = tensors[self.sources.index(n)]
            target._array[...] = out._array
            target._bump()
        return formed(self.form, iter(found))

    def _explain(self) -> None:
        if self.explains:
            from .explain import plan_explanation

            print(plan_explanation(self))

    # Forward

    def _make(
        self, arrays: Sequence[np.ndarray], tensors: Sequence[Tensor], keys: Sequence[int]
    ) -> list[Any]:
        """Run the ops, and keep what they do as a program."""
        self.made_for = ready()
        self.forward = self.backward = None
        trace = self.trace = Trace(self.arena, keys)
        count = len(arrays)
        for number, array in enumerate(arrays):
            if array.nbytes:
                trace.keep(array, owner=number)
        for call in self.graph.calls:
            for x in call.args:
                if isinstance(x, np.ndarray):  # a number
                    trace.keep(x)
        leaves: dict[int, Tensor] = {}
        self.inner = []
        for number, (n, t) in enumerate(zip(self.sources, tensors, strict=True)):
            leaf = wrap(arrays[number] if number < count else t._array)
            leaf._requires_grad = t.requires_grad and state.grad
            leaves[n] = leaf
            self.inner.append(leaf)
            if number >= count and leaf._array.nbytes:
                trace.keep(leaf._array)
        with Mode(grad=state.grad), trace:
            outs = self.graph.run(leaves, keys, lambda on: setattr(state, "grad", on))
        self._made = [
            None if n in self.sources else out
            for n, out in zip(self.graph.outputs, outs, strict=True)
        ]
        self._inputs = [Movable(*_range(a), 0, n) for n, a in enumerate(arrays)]
        found = [None if out is None else out._array for out in self._made]
        self._moved, self._outs = self._movable(found)
        self.forward = Pass(trace, trace.part(), self._inputs + self._moved)
        if ready() != self.made_for:  # a workspace grew: what was noted first is out of date
            self.made_for = ()
        self.differentiates = any(out is not None and out.requires_grad for out in self._made)
        self._metas = [
            None if out is None else (out._array.shape, out._array.dtype, out.requires_grad)
            for out in self._made
        ]
        self._saved = self._saved_sources() if self.differentiates else set()
        if not self.differentiates:
            self._made, self.inner = [], []
            self._explain()
        self._given = [m.owner[m.owner.start :][: m.size].copy() for m in self._moved]
        return [_output(place, self._given) for place in self._outs]

    differentiates = _asked = False  # does it record; did a backward pass find no program?
    broken = ""  # why it cannot be replayed after all

    def _movable(self, arrays: Sequence[Any]) -> tuple[list[Movable], list[Any]]:
        """Return the buffers that results lie in, and for each result its place, or a copy's."""
        moved: dict[int, Movable] = {}
        places: list[Any] = []
        for a in arrays:
            found = None if a is None or not a.nbytes else self.trace.memory.find(_range(a)[0])
            if a is None:
                places.append(None)
            elif found is None and a.nbytes:
                raise NotReplayable("it returns numbers made outside of the ops")
            elif found is None or not hasattr(found[0], "lent"):
                if found is None or not isinstance(found[0], int):
                    places.append(a)  # small, and always at the same address
                elif found[0] < len(self.graph.inputs):
                    raise NotReplayable("it returns a view of an argument")
                else:  # a gradient that is one of those that came in
                    at = found[0] + len(self._moved)
                    places.append(Place((at,), found[1], a.shape, a.strides, a.dtype, 0))
            else:
                buffer = found[0]
                if id(buffer) not in moved:
                    start = buffer.ctypes.data + buffer.start
                    moved[id(buffer)] = Movable(start, buffer.count, buffer.lent, buffer)
                number = list(moved).index(id(buffer))
                offset = a.ctypes.data - moved[id(buffer)].start
                places.append(Place(number, offset, a.shape, a.strides, a.dtype, 0))
        return list(moved.values()), places

    def _saved_sources(self) -> set[int]:
        """Return the numbers of the inputs and leaves that a backward rule needs."""
        saved: set[int] = set()
        boxes = {id(t._version_box): n for n, t in enumerate(self.inner)}
        stack = [out._edge[0] for out in self._made if out is not None and out._edge is not None]
        seen = set(stack)
        while stack:
            node = stack.pop()
            for origin in node._saved.origins:
                if origin is not None and id(origin[1]) in boxes:
                    saved.add(boxes[id(origin[1])])
            for edge in node.edges:
                if type(edge) is tuple and edge[0] not in seen:
                    seen.add(edge[0])
                    stack.append(edge[0])
        return saved

    def _replay(self, arrays: Sequence[np.ndarray], keys: Sequence[int]) -> list[Any]:
        """Run the program; return the outputs, each in memory of its own."""
        assert self.forward is not None
        self._given = [memory.empty((m.size,), np.uint8) for m in self._moved]
        self.forward.run([*map(bytes_of, arrays), *self._given], keys)
        return [_output(place, self._given) for place in self._outs]

    # Backward

    def _attach(
        self,
        outs: Sequence[Tensor],
        tensors: Sequence[Tensor],
        arrays: Sequence[np.ndarray],
        keys: Sequence[int],
    ) -> None:
        """Link the results to a node of the graph."""
        node = CompiledNode(self, tensors, arrays, keys)
        node.output_meta = [((), None) if meta is None else meta[:2] for meta in self._metas]
        for number, (out, meta) in enumerate(zip(outs, self._metas, strict=True)):
            if meta is not None and meta[2]:
                out._edge, out._requires_grad = (node, number), True
        self.room.node = weakref.ref(node)

    def gradients(
        self, node: CompiledNode, grads: Sequence[Tensor | None]
    ) -> list[np.ndarray | None] | None:
        """Return the gradients of inputs and leaves by the program; None if it is not made for it.

        It is made in the first pass.
        """
        given = [(n, _contiguous(g._array)) for n, g in enumerate(grads) if g is not None]
        which = tuple([n for n, _ in given])
        if self.room.node is None or self.room.node() is not node or self.made_for != ready():
            return None
        try:
            if self.backward is None:
                self._asked = not self._made
                return None if self._asked else self._make_backward(which, [a for _, a in given])
            return self._replay_backward(which, [a for _, a in given], node)
        except NotReplayable as error:
            self.broken = str(error)
            return None

    def _replay_backward(
        self, which: tuple[int, ...], given: Sequence[np.ndarray], node: CompiledNode
    ) -> list[np.ndarray | None] | None:
        """Run the program, if it is for gradients of these outputs."""
        if which != self._which or self.backward is None:
            return None
        found = [memory.empty((m.size,), np.uint8) for m in self._moved_back]
        arrays = [*map(bytes_of, node.arrays), *self._given, *map(bytes_of, given)]
        self.backward.run([*arrays, *found], node.keys)
        return [_output(place, found, arrays) for place in self._grads]

    def _make_backward(
        self, which: tuple[int, ...], given: Sequence[np.ndarray]
    ) -> list[np.ndarray | None]:
        """Run the backward pass, and keep what it does as a program."""
        trace, count = self.trace, len(self._inputs)
        incoming = []
        for number, array in enumerate(given):
            array = array.copy()
            if array.nbytes:
                trace.keep(array, owner=count + number)
            incoming.append(array)
        wanted = {leaf: n for n, leaf in enumerate(self.inner) if leaf._requires_grad}
        roots = []
        for n, array in zip(which, incoming, strict=True):
            out = self._made[n]
            assert out is not None
            roots.append((edge_for(out), wrap(array)))
        with Mode(grad=False), trace:
            found = run_backward(roots, False, wanted)
            del roots
        arrays = [found[n]._array if n in found else None for n in range(len(self.inner))]
        self._moved_back, self._grads = self._movable(arrays)
        entering = [Movable(*_range(a), 0, count + n) for n, a in enumerate(incoming)]
        self._which = which
        self.backward = Pass(
            trace, trace.part(), [*self._inputs, *self._moved, *entering, *self._moved_back]
        )
        self._made, self.inner = [], []
        if ready() != self.made_for:
            self.made_for = ()
        self._explain()
        return [None if a is None else a.copy() for a in arrays]

    def again(self, node: CompiledNode, grads: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Return the gradients by the ops themselves, computed again."""
        recorded = state.grad
        with Mode(grad=True):
            inner = [aliased(t, recorded) for t in node.tensors]
            tensors = dict(zip(self.sources, inner, strict=True))
            outs = self.graph.run(tensors, node.keys, lambda on: setattr(state, "grad", on))
        roots = [(edge_for(o), g) for o, g in zip(outs, grads, strict=True) if g is not None]
        wanted = {edge_for(t): n for n, t in enumerate(inner) if t.requires_grad}
        with Mode(grad=recorded):
            found = run_backward(roots, recorded, wanted)
        return [found.get(n) for n in range(len(inner))]


class CompiledNode(Node):
    """A call of a compiled function, as the backward pass sees it."""

    op_name = "compiled"
    fresh = True
    materialize = False

    def __init__(
        self,
        plan: Plan,
        tensors: Sequence[Tensor],
        arrays: Sequence[np.ndarray],
        keys: Sequence[int],
    ) -> None:
        self.plan, self.tensors, self.arrays, self.keys = plan, tensors, arrays, keys
        self.edges = [edge_for(t) for t in tensors]
        self.sequence_nr = next(clock)
        self.done = False  # has the plan's backward pass run?
        kept = [t for n, t in enumerate(tensors) if n in plan._saved]
        self._saved = SavedTensors(
            tuple([t._array for t in kept]), [origin_of(t, t._edge or t) for t in kept]
        )

    def name(self) -> str:
        """Return the name of the node."""
        return "CompiledBackward0"

    def gradients(self, grads: list[Tensor | None]) -> tuple[Any, ...]:
        """Run the plan's backward pass, or where it does not fit the ops'."""
        self._unpack()
        if not (self.done or state.grad) and _lock.acquire(blocking=False):
            try:
                found = self.plan.gradients(self, grads)
            finally:
                _lock.release()
            if found is not None:
                self.done = True
                return tuple([None if a is None else wrap(a) for a in found])
        return tuple(self.plan.again(self, grads))

    def free(self) -> None:
        """Free what the backward pass needed."""
        self._saved, self.done = FREED, True
        self.tensors = self.arrays = ()


def _range(a: np.ndarray) -> tuple[int, int]:
    low, high = np.lib.array_utils.byte_bounds(a)
    return low, high - low


def _output(place: Any, given: Sequence[np.ndarray], arrays: Sequence[np.ndarray] = ()) -> Any:
    """Return the array at a place in the memory given to it, or a copy of one elsewhere."""
    if isinstance(place, Place):
        if isinstance(place.owner, tuple):
            return array_of(arrays[place.owner[0]], place).copy()
        return array_of(given[place.owner], place)
    return None if place is None else place.copy()


def _contiguous(a: np.ndarray) -> np.ndarray:
    return a if a.flags.c_contiguous else a.copy()


def _last_used_first(graph: Graph) -> list[int]:
    """Return the leaves in the order in which a backward pass comes to them."""
    last: dict[int, tuple[int, int]] = {}
    for place, call in enumerate(graph.calls):
        for position, number in enumerate(refs(call.args)):
            last[number] = -place, position
    leaves = [n for n in graph.tensors if n not in graph.inputs]
    return sorted(leaves, key=lambda n: last.get(n, (1, 0)))
