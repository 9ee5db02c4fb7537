"""Plans of calls: a graph with its programs, and the node that stands for a call of it."""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import memory, random
from ..autograd.grad_mode import Mode
from ..autograd.views import ViewMeta
from ..core import Node, Tensor, state, wrap
from ..core.backward import run_backward
from ..core.node import clock, edge_for
from ..core.saved import FREED, SavedTensors, origin_of
from ..kernels.panels import place_of, reading
from ..kernels.parallel import address
from ..ops.move import Clone
from ..recording import refs
from .addresses import NotReplayable, Place, raised
from .frozen import Frozen, Layout, version_of
from .graph import Graph, Returned, aliased
from .plan import Movable, Pass, Trace, ready
from .targets import Targets
from .values import formed

# One call is recorded or replayed at a time; meanwhile those of other threads run as they are.
ONE_AT_A_TIME = threading.RLock()


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

    def __init__(
        self,
        graph: Graph,
        form: Any,
        room: Room,
        explains: bool = False,
        frozen: Frozen | None = None,
    ) -> None:
        self.graph, self.form, self.room = graph, form, room
        self.explains, self.frozen = explains, frozen
        self.layouts: list[Layout] = []  # of weights that stay as they are
        self.arena = room.arena
        leaves = _last_used_first(graph)
        self.sources = graph.inputs + leaves
        self.leaves = [graph.tensors[n] for n in leaves]
        read = graph.read_by(graph.outputs[: len(graph.outputs) - len(graph.updates)])
        self.read = [n for n, source in enumerate(self.sources) if source in read]
        self.kept = [n for n in self.read if self.sources[n] in graph.updates]
        self.returned = [
            (None if each.source is None else self.sources.index(each.source), each)
            for each in graph.returned
        ]
        self._related = any(each != Returned() for each in graph.returned)
        self.targets = Targets(graph, self.sources)  # what the call changes in place
        self.forward: Pass | None = None
        self.backward: Pass | None = None
        self.inner: list[Tensor] = []  # what the traced ops began with, until backward is traced
        self._made: list[Tensor | None] = []  # and their outputs
        self.made_for: Any = ready()

    @property
    def holds(self) -> bool:
        """True if the weights that it has panels of are as they were."""
        return self.frozen is None or self.frozen.hold(self.layouts)

    def __call__(self, inputs: Sequence[Tensor]) -> Any:
        """Return what the function would return."""
        generator = random.default_generator
        before = generator.get_state() if self.graph.keys else None
        try:
            keys = [generator.key(size) for size in self.graph.keys]
            tensors = [*inputs, *self.leaves]
            arrays = [_contiguous(t._array) for t in inputs]
            if self.forward is None or (self._asked and self.backward is None):
                moved = self._make(arrays, tensors, keys)
                self._asked = False
            else:
                self._made, self.inner = [], []  # nobody asked for the gradients of the last call
                moved = self.forward.run(arrays, keys)
        except BaseException:
            if before is not None:
                generator.set_state(before)
            raise
        assert self.forward is not None
        outs: list[Any] = self.forward.results(moved)
        made: dict[Any, Tensor] = {}
        found = []
        boxes: dict[int, Any] = {}  # tensors that share memory count its changes together
        for n, out, place in zip(self.graph.outputs, outs, self.forward.places, strict=True):
            key = n, out is None  # an input, as it was, is written beside its copy
            if key not in made:
                made[key] = tensors[self.sources.index(n)] if out is None else wrap(out)
                if isinstance(place, Place):
                    made[key]._version_box = boxes.setdefault(place.owner, made[key]._version_box)
            found.append(made[key])
        for (place, returned), t in zip(self.returned, found, strict=False):
            if place is None and returned.version and t._version_box is not None:
                t._version_box[0] = returned.version  # which backward rules save
        node = CompiledNode(self, tensors, found, moved, keys) if self.graded else Node()
        for observer in state.observers:
            if observer.sees_whole:
                observer.ran(node, tensors, {}, found)
        count = len(self.returned)
        self.targets.write(tensors, found[count:])
        return formed(self.form, self._results(found[:count], tensors))

    def _results(self, made: Sequence[Tensor], tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the results: tensors that were there before as they are, and views of others."""
        if not self._related:
            return made
        found = []
        for (place, returned), t in zip(self.returned, made, strict=True):
            t = t if place is None else tensors[place]
            found.append(t if returned.make is None else returned.make(t))
        for (_, returned), t in zip(self.returned, found, strict=True):
            if returned.base is not None:
                at, functions, creation = returned.base
                base = found[at]
                if t._version_box is base._version_box:
                    t._view = ViewMeta(base, functions, creation, version_of(base))
        return found

    # Forward

    def _make(
        self, arrays: Sequence[np.ndarray], tensors: Sequence[Tensor], keys: Sequence[int]
    ) -> list[np.ndarray]:
        """Run the ops, and keep what they do as a program; return the memory that moves."""
        self.made_for = ready()
        memory.release()  # of buffers that the recorded call used, and replays do not
        self.forward = self.backward = None
        count, known = len(arrays), [t._array for t in self.leaves]
        for array in arrays:  # each in memory of its own, so that addresses tell whose they are
            shared = any(np.may_share_memory(array, other) for other in known)
            known.append(raised(array.copy() if shared else array))
        arrays = known[len(self.leaves) :]
        trace = self.trace = Trace(self.arena, keys, count)
        for number, array in enumerate(arrays):
            trace.keep(array, owner=number)
        for call in self.graph.calls:
            for x in call.args:
                if isinstance(x, np.ndarray):  # a number
                    trace.keep(x)
        self.inner = []
        for number, t in enumerate(tensors):
            leaf = wrap(arrays[number] if number < count else t._array)
            leaf._requires_grad = t.requires_grad and state.grad
            self.inner.append(leaf)
            if number >= count:
                trace.keep(leaf._array)
        others = tuple([o for o in state.observers if not o.sees_whole])
        if self.frozen is not None and not state.grad:
            self.layouts = self.frozen.of(self.graph)
        panels = {place_of(each.array): each.panels for each in self.layouts}
        with Mode(observers=others, twice=False), reading(panels), trace.noting():
            outs = self.graph.run(dict(zip(self.sources, self.inner, strict=True)), keys)
            outs = self._apart(outs)
        results = len(self.returned)
        self._made = [
            None if n in self.sources and place < results else out
            for place, (n, out) in enumerate(zip(self.graph.outputs, outs, strict=True))
        ]
        inputs = [Movable(address(a), a.nbytes, 0, n) for n, a in enumerate(arrays)]
        found = [None if out is None else out._array for out in self._made]
        for out, n in itertools.product(found[:results], self.sources[count:]):
            own = self.graph.tensors[n]._array if self.graph.values[n].kind == "leaf" else None
            if out is not None and own is not None and np.may_share_memory(out, own):
                raise NotReplayable("it returns a view of a tensor that it has by itself")
        self.forward = Pass(trace, inputs, found)
        # Of results: the numbers of those that require a gradient, and shapes and types
        made = list(enumerate(self._made))
        self.graded = [n for n, out in made if out is not None and out.requires_grad]
        self.metas = [((), None) if a is None else (a.shape, a.dtype) for a in found]
        if self.graded:
            self._find_saved()
            return self.forward.first(arrays)
        moved = self.forward.last(arrays)
        self._end_of_trace()
        return moved

    def _apart(self, outs: Sequence[Tensor]) -> list[Tensor]:
        """Return what a run gave, with copies of new numbers that lie in inputs or leaves."""
        count, known = len(self.returned), [t._array for t in self.inner]
        return [
            Clone.apply(out)
            if place >= count and any(np.may_share_memory(out._array, a) for a in known)
            else out
            for place, out in enumerate(outs)
        ]

    _asked = False  # did a backward pass find no program?
    broken = ""  # why it cannot be replayed after all

    def _find_saved(self) -> None:
        """Note the numbers of the inputs and leaves, and of results, that backward rules need."""
        saved: set[int] = set()
        stack = [out._edge[0] for out in self._made if out is not None and out._edge is not None]
        seen = set(stack)
        while stack:
            node = stack.pop()
            for origin in node._saved.origins:
                if origin is not None:
                    saved.add(id(origin[1]))
            for edge in node.edges:
                if type(edge) is tuple and edge[0] not in seen:
                    seen.add(edge[0])
                    stack.append(edge[0])

        def of(tensors: Sequence[Tensor | None]) -> list[int]:
            found = enumerate(tensors)
            return [n for n, t in found if t is not None and id(t._version_box) in saved]

        self.saved, self.saved_outs = of(self.inner), of(self._made)

    # Backward

    def gradients(
        self, node: CompiledNode, grads: Sequence[Tensor | None]
    ) -> list[np.ndarray | None] | None:
        """Return the gradients of inputs and leaves by the program; None if it is not made for it.

        It is made in the first pass.
        """
        given = {n: _contiguous(g._array) for n, g in enumerate(grads) if g is not None}
        if self.room.node is None or self.room.node() is not node or self.made_for != ready():
            return None
        try:
            if self.backward is None:
                self._asked = not self._made
                return None if self._asked else self._make_backward(node, given)
            if list(given) != self._which:  # gradients of other outputs
                return None
            arrays = [*node.arrays, *given.values()]
            return self.backward.results(self.backward.run(arrays, node.keys))
        except NotReplayable as error:
            self.broken = str(error)
            return None

    def _make_backward(
        self, node: CompiledNode, given: Mapping[int, np.ndarray]
    ) -> list[np.ndarray | None]:
        """Run the backward pass, and keep what it does as a program."""
        assert self.forward is not None
        memory.release()  # of gradients that the recorded call made
        trace, count = self.trace, self.trace.inputs
        incoming = []
        for number, array in enumerate(given.values(), count):
            incoming.append(raised(array.copy()))
            trace.keep(incoming[-1], owner=number)
        wanted = {leaf: n for n, leaf in enumerate(self.inner) if leaf._requires_grad}
        roots = []
        for n, array in zip(given, incoming, strict=True):
            out = self._made[n]
            assert out is not None
            roots.append((edge_for(out), wrap(array)))
        with Mode(grad=False), trace.noting():
            found = run_backward(roots, False, wanted)
            del roots
        arrays = [found[n]._array if n in found else None for n in range(len(self.inner))]
        entering = [Movable(address(a), a.nbytes, 0, n) for n, a in enumerate(incoming, count)]
        self._which = list(given)
        self.backward = Pass(trace, [*self.forward.movable, *entering], arrays)
        moved = self.backward.last([*node.arrays, *incoming])  # while what is lent is held
        self._end_of_trace()
        return self.backward.results(moved)

    def _end_of_trace(self) -> None:
        """Let go of what the programs were made of."""
        self._made, self.inner = [], []
        del self.trace
        if self.explains:
            from .explain import plan_explanation

            print(plan_explanation(self))

    def again(self, node: CompiledNode, grads: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Return the gradients by the ops themselves, computed again."""
        recorded = state.grad
        for n in self.read:
            t = node.tensors[n]
            if n not in node.before and version_of(t) != node.versions[n]:
                raise RuntimeError(
                    "one of the variables needed for gradient computation has been modified by an "
                    f"inplace operation: a tensor of shape {tuple(t.shape)} that a compiled call "
                    "has read, which these gradients compute again"
                )
        with Mode(grad=True):
            inner = [
                wrap(node.before[n]) if n in node.before else aliased(t, recorded)
                for n, t in enumerate(node.tensors)
            ]
            tensors = dict(zip(self.sources, inner, strict=True))
            outs = self.graph.run(tensors, node.keys)
        roots = [(edge_for(o), g) for o, g in zip(outs, grads, strict=True) if g is not None]
        wanted = {edge_for(t): n for n, t in enumerate(inner) if t.requires_grad}
        with Mode(grad=recorded):
            found = run_backward(roots, recorded, wanted)
        return [found.get(n) for n in range(len(inner))]


class CompiledNode(Node):
    """A call of a compiled function, as the backward pass sees it: its results are linked to it."""

    op_name = "compiled"
    fresh = True
    materialize = False

    def __init__(
        self,
        plan: Plan,
        tensors: Sequence[Tensor],
        outs: Sequence[Tensor],
        arrays: Sequence[np.ndarray],
        keys: Sequence[int],
    ) -> None:
        self.plan, self.tensors, self.arrays, self.keys = plan, tensors, arrays, keys
        self.edges = [edge_for(t) for t in tensors]
        self.sequence_nr = next(clock)
        self.done = False  # has the plan's backward pass run?
        # For gradients that are computed again: versions of the tensors, and what the call changed
        self.versions = list(map(version_of, tensors))
        self.before = {n: tensors[n]._array.copy() for n in plan.kept}
        kept = [(tensors[n], tensors[n]._edge or tensors[n]) for n in plan.saved]
        made = [(outs[n], n) for n in plan.saved_outs]
        self._saved = SavedTensors(
            tuple([t._array for t, _ in (*kept, *made)]),
            [*(origin_of(t, source) for t, source in kept), *(origin_of(*each) for each in made)],
        )
        self.output_meta = plan.metas
        for n in plan.graded:
            outs[n]._edge, outs[n]._requires_grad = (self, n), True
        plan.room.node = weakref.ref(self)

    def name(self) -> str:
        """Return the name of the node."""
        return "CompiledBackward0"

    def gradients(self, grads: list[Tensor | None]) -> tuple[Any, ...]:
        """Run the plan's backward pass, or where it does not fit the ops'."""
        self._unpack()
        if not (self.done or state.grad) and ONE_AT_A_TIME.acquire(blocking=False):
            try:
                found = self.plan.gradients(self, grads)
            finally:
                ONE_AT_A_TIME.release()
            if found is not None:
                self.done = True
                return tuple([None if a is None else wrap(a) for a in found])
        return tuple(self.plan.again(self, grads))

    def free(self) -> None:
        """Free what the backward pass needed."""
        self._saved, self.done = FREED, True
        self.tensors, self.arrays, self.before = (), (), {}


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
