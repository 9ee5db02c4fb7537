"""`compile`: a function or module whose calls are recorded once, rewritten and replayed."""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from types import CodeType
from typing import Any

from .. import random
from ..core import Tensor, state
from ..core.node import clock
from ..dtype import get_default_dtype
from ..errors import is_library
from ..kernels.jit import COMPILED
from ..nn.masks import is_causal_mask
from ..recording import leaves
from .addresses import NotReplayable
from .chains import fuse_chains
from .frozen import Frozen
from .graph import Call, Graph
from .guards import Guards
from .plan import ready
from .record import CallRecording
from .replayed import ONE_AT_A_TIME, Plan, Room
from .rules import Fired, rewrite
from .table import RULES
from .values import arguments, containers, form

PLANS = 64  # of different arguments that are kept, the last used
_TURNS = 2  # calls at a time whose backward pass has yet to run
_CHANGES = "it changes"
_SHOWN = 3  # recordings that may show code that was not known
_VARIANTS = 4  # of what is read besides the arguments, as in training and evaluation
_AS_IT_IS = object()


class Compiled:
    """A function whose calls are recorded and replayed."""

    def __init__(
        self, function: Callable[..., Any], explain: bool = False, freezes: bool = False
    ) -> None:
        self.function, self.explains = function, explain
        self.frozen = Frozen() if freezes else None  # weights that stay as they are
        self.kinds: dict[Any, list[Entry]] = {}  # of arguments: recorded calls
        self.told: set[str] = set()
        self.rooms: list[Room] = []
        self._tries: Counter[Any] = Counter()  # by kind: calls whose recording was not kept
        self._reached: dict[CodeType, Any] = {}  # code that ran in them

    def __reduce__(self) -> Any:
        made_with = self.function, self.explains, self.frozen is not None
        return Compiled, made_with  # a copy records anew

    @property
    def entries(self) -> list[Entry]:
        """All recorded calls that are kept."""
        return [entry for entries in self.kinds.values() for entry in entries]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function, by a plan if there is one for such arguments."""
        if not COMPILED or random.uses_torch_dropout():
            return self.function(*args, **kwargs)
        for observer in state.observers:
            if not observer.sees_whole:
                if not observer.sees_writes:  # otherwise it is a recording of the ops
                    self._tell(f"{type(observer).__name__} watches the block that it is in")
                return self.function(*args, **kwargs)
        now, observers = ready(), tuple(map(type, state.observers))
        given, tensors = arguments(args, kwargs)
        kind = given, state.grad, now[:2], get_default_dtype(), observers
        if not ONE_AT_A_TIME.acquire(blocking=False):
            return self.function(*args, **kwargs)
        try:
            entry = self._entry(kind, tensors)
            if entry is None:
                return self._record(kind, tensors, args, kwargs)
            result = _AS_IT_IS if entry.reason else self._replay(entry, tensors, now)
        finally:
            ONE_AT_A_TIME.release()
        return self.function(*args, **kwargs) if result is _AS_IT_IS else result

    def _entry(self, kind: Any, tensors: Sequence[Tensor]) -> Entry | None:
        """Return the recorded call for such arguments, None if there is none yet."""
        entries = self.kinds.get(kind)
        if entries is None:
            return None
        changed = ""
        for entry in entries:
            entry.used = next(clock)
            changed = entry.guards.changed() or entry.lies_elsewhere(tensors)
            if not changed:
                return entry
        if len(entries) < _VARIANTS:
            return None
        entry.reason = f"{changed} changes from call to call"
        entry.guards = Guards()
        self._tell(entry.reason)
        return entry

    def _replay(self, entry: Entry, tensors: Sequence[Tensor], now: Any) -> Any:
        """Return the result by a plan, `_AS_IT_IS` if the function has to run."""
        plan = None
        try:
            # Memory that no backward pass is to use any more
            room = next((room for room in self.rooms if room.idle), None)
            if room is None and len(self.rooms) < _TURNS:
                room = Room()
                self.rooms.append(room)
            if room is not None:
                plan = self._plan(entry, room, now)
                return plan(tensors) if plan.targets.free(tensors) else _AS_IT_IS
        except NotReplayable as error:
            entry.reason = str(error)
            self._tell(entry.reason)
        except Exception:  # which the function raises too, or not
            if plan is not None:
                entry.plans.remove(plan)
        return _AS_IT_IS

    def _plan(self, entry: Entry, room: Room, now: Any) -> Plan:
        """Return the plan that runs in this memory; NotReplayable if there can be none."""
        entry.plans = [plan for plan in entry.plans if plan.made_for == now and plan.holds]
        for plan in entry.plans:
            if plan.broken:
                raise NotReplayable(plan.broken)
            if plan.room is room:
                return plan
        entry.plans.append(Plan(entry.graph, entry.form, room, self.explains, self.frozen))
        return entry.plans[-1]

    def recorded(self, inputs: Any, options: Any) -> Entry:
        """Call until a recording is kept, and return it.

        The first ones may show code that was not known, or change something, as what is made once.
        NotReplayable if none is made here.
        """
        for _ in range(_SHOWN + 1):
            self(*inputs, **options)
            if self.kinds:
                (entry,) = self.entries
                return entry
        raise NotReplayable(
            "without compiled kernels, or with PyTorch's dropout, nothing is recorded"
        )

    def traced(self, inputs: Any, options: Any) -> Any:
        """Return the program that `graph.trace` runs for a call, and why it is not replayed."""
        from .traced import traced

        return traced(self, inputs, options)

    def _record(self, kind: Any, tensors: Sequence[Tensor], args: Any, kwargs: Any) -> Any:
        """Call the function, and record the call for the next one with such arguments."""
        guards = Guards()
        guards.watch(self.function, "the function")
        for x in leaves((args, kwargs)):
            if not isinstance(x, Tensor):
                guards.watch(x, "an argument")
        guards.reach(self._reached)
        known = {id(t._array) for t in tensors}
        recording = CallRecording({n: x for n, x in guards.leaves.items() if n not in known})
        for number, t in enumerate(tensors):
            recording.add_input(t, f"input {number}")
        recorded = state.grad
        with recording:
            result = self.function(*args, **kwargs)
            if state.grad != recorded:
                recording.refuse("it changes whether gradients are recorded")
        given, after = arguments(args, kwargs)
        if given != kind[0] or any(a is not b for a, b in zip(tensors, after, strict=True)):
            recording.refuse("it changes a list or dictionary of its arguments")
        if len(known) < len(tensors):
            recording.refuse("two of its arguments are one array")
        entry = Entry(guards, self._obstacle(recording, guards))
        # It may have shown code that was not known, or made something once: try the next call.
        shown = not entry.reason and guards.reach(recording.functions)
        if self._tries[kind] < (_SHOWN if shown else entry.reason.startswith(_CHANGES)):
            self._tries[kind] += 1
            self._reached |= recording.functions
            return result
        watched = guards.leaves
        places = [id(t._array) for t in tensors]
        entry.same = [(n, watched[place]) for n, place in enumerate(places) if place in watched]
        if len(self.kinds) == PLANS and kind not in self.kinds:
            del self.kinds[min(self.kinds, key=lambda k: self.kinds[k][0].used)]
        self.kinds.setdefault(kind, []).append(entry)
        if not entry.reason:
            try:
                outputs: list[Any] = []
                entry.form = form(result, outputs, {id(x) for x in containers((args, kwargs))})
                entry.graph = recording.graph(outputs)
                if recording.problem:  # of what is returned
                    raise NotReplayable(recording.problem)
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
        return f"{_CHANGES} {changed}" if changed else ""

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

    def __init__(self, guards: Guards, reason: str) -> None:
        self.guards, self.reason = guards, reason  # why it cannot be replayed, or ""
        self.plans: list[Plan] = []
        self.used = next(clock)
        # The numbers of arguments that the function has by itself too, with their names
        self.same: list[tuple[int, tuple[str, Tensor]]] = []

    def lies_elsewhere(self, tensors: Sequence[Tensor]) -> str:
        """Return the name of an argument that was one of the function's own tensors, and is not."""
        return next((s for n, (s, t) in self.same if tensors[n]._array is not t._array), "")
