"""The recorder: sees every op as it runs, forward and backward, with its module and source line.

`Op.apply` calls the recorder for every op, and costs nothing without one. Python's profiling hook,
which is off while an op computes, follows the calls of modules, of functions without an op and of
optimizers, and the names of variables.
"""

from __future__ import annotations

import itertools
import math
import re
import sys
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any

import numpy as np

from ..autograd import Function, ViewScatter, observe, set_grad_enabled
from ..autograd.grad_mode import Mode
from ..autograd.gradients import backward, grad
from ..autograd.views import replay
from ..core import OPS, Observer, Op, Tensor, state, wrap
from ..core import Node as Run
from ..core.backward import run_backward
from ..nn import Module
from ..nn.masks import is_causal_mask
from ..random import default_generator
from .calls import Calls
from .cells import made
from .data import data_of
from .describe import (
    argument_names,
    describe,
    norm,
    note,
    ranges,
    readable,
    saved_arrays,
    tensors_in,
)
from .frames import CALL, VariableNames, is_users, name_of_tensor, named_tensors, user_frame, users
from .model import RETURNED, Graph, Node, Origins
from .modules import Modules
from .nodes import Nodes
from .trips import Trips
from .updates import Updates
from .values import Values, fit

_APPLY = Op.apply.__func__.__code__  # type: ignore[attr-defined]
_FUNCTION = Function.apply.__func__.__code__  # type: ignore[attr-defined]
_PASS = run_backward.__code__
_BEGINNINGS = grad.__code__, backward.__code__  # they have the first gradients


def _blocks_the_future(mask: Tensor | None) -> bool:
    """Return True for the causal mask (L, L) of an op, in which True allows; not for a (1, 1)."""
    if mask is None or not 1 < mask.numel() == math.prod(mask.shape[-2:]):
        return False
    array = mask._array.reshape(mask.shape[-2:])
    return is_causal_mask(wrap(array if mask.is_floating_point() else ~array))


class Recorder(Observer):
    """Makes a `Graph` of the ops that run in its `with` block: `root`, or a method of it.

    With `decompose`, fused ops are run a second time as their `reference`, whose ops are recorded
    as their inside. With `stats`, tensors are measured and ops are timed. With `limit`, the numbers
    of tensors are kept, in so many bytes, and where each comes from.
    """

    sees_writes = True

    def __init__(
        self,
        name: str,
        root: Module | None,
        method: str = "",
        decompose: bool = False,
        stats: bool = False,
        limit: int = 0,
    ) -> None:
        self.graph = Graph(readable(name))
        self.root = root
        self.values = Values(self.graph, stats, name_of_tensor, limit)
        self._modules = Modules(self.values, root, method)
        self._decompose = decompose
        self._stats = stats
        self._names = VariableNames(self.values)
        self._ran: dict[Run, str] = {}  # nodes by their runs
        self._arguments: dict[str, list[str | None]] = {}  # values by position, of a node
        self._gradients: dict[Any, list[str]] = {}  # what reached an edge, by that edge
        self._begun: list[list[Any]] = []  # of each pass that runs: edges with given gradients
        self.own_ones: set[int] = set()  # the gradients of the pass that tracing adds
        self._leaf_grads: dict[str, np.ndarray] = {}
        self._backward_flops: dict[str, int] = {}
        self._saved: dict[Run, list[tuple[np.ndarray, str]]] = {}  # arrays with their values
        self._functions: list[int] = []  # how many nodes there were when a Function began
        self._returned: dict[int, str] = {}  # the variables of what the program returns
        self.notes: list[str] = []
        self._returning = False  # True while a module gets a tensor of its own to return
        # Of an opened op that can be differentiated: what its decomposition was given and made.
        self._opened: dict[Run, tuple[list[Any], tuple[Tensor, ...]]] = {}
        self._arrived: dict[Run, Sequence[Tensor | None]] = {}  # in its backward node, which runs
        self._opening: Node | None = None  # the backward node whose decomposition's pass runs
        self.changed: list[Any] = []  # tensors that were there before, and optimizers
        self._outdated: list[Tensor] = []  # views whose memory was changed in place
        self._references: set[Any] = set()
        if decompose:
            found = [op.decomposition for op in OPS.values() if op.decomposition is not None]
            self._references = {reference.__code__ for reference in found}

    # Beginning and end

    def __enter__(self) -> Recorder:
        if any(observer.sees_writes for observer in state.observers):
            raise RuntimeError("trace: a recording is running already; trace one thing at a time")
        self._nodes = Nodes(self.values, self._modules)
        self._trips = Trips(self._nodes)
        self._calls = Calls(self._nodes, self._trips)
        self._updates = Updates(self._nodes)
        self._profile = sys.getprofile()
        self._observing = observe(self)
        self._observing.__enter__()
        sys.setprofile(self._see)
        return self

    def __exit__(self, *exception: object) -> None:
        self._observing.__exit__(*exception)
        # A profiler in C, such as cProfile's, can be seen there but not be put back.
        sys.setprofile(self._profile if callable(self._profile) else None)
        self._trips.finish()
        for key, total in self._leaf_grads.items():
            self.graph.values[key].grad_norm = norm(total)
        self._names.finish()
        self.values.settle()
        unchanged = self._modules.finish()
        self._modules.functions.finish()
        if unchanged:
            self.notes.append(f"not drawn, as they return their input: {ranges(unchanged)}")
        self._drop_unread()
        fit(self.graph, self.values.limit)
        self.changed += self._updates.changed
        # They hold this recorder, or the variables of all functions that ran.
        del self._observing, self._nodes, self._trips, self._calls, self._updates, self._modules

    def _drop_unread(self) -> None:
        """Drop constants that nothing reads: empty(3) in empty(3).normal_()."""
        values, nodes = self.graph.values, self.graph.nodes.values()
        read = {v for n in nodes for v in (*n.inputs, *n.saved)}.union(self.graph.outputs)
        read |= {v for group in self.graph.groups.values() for v in group.inputs}
        read |= {v for call in self.graph.calls.values() for v in call.inputs}
        read |= {v for value in values.values() for v in (value.views, value.of) if v}
        read |= {v for n in nodes if n.origins is not None for v in n.origins.tensors.values()}
        unread = [v for v, value in values.items() if value.kind == "constant" and v not in read]
        for v in unread:
            del values[v]

    def add_input(self, name: str, t: Tensor) -> None:
        """Make `t` an input of the graph."""
        known = self.values.known(t)
        if known is not None:  # attention(x, x, x)
            self.graph.values[known].names.append(name)
            return
        self.graph.inputs.append(self.values.add(t, f"input:{name}", "input", [name]))

    def add_output(self, path: str, t: Tensor) -> None:
        """Make `t` an output of the graph, which goes by the last key or field in its `path`.

        Without one, it goes by its variable in the function that returned it.
        """
        key = self.values.of(t)
        if key not in self.graph.outputs:
            self.graph.outputs.append(key)
        names = self.graph.values[key].names
        name = re.sub(r"^(\[\d+\])+\.?", "", path) or self._returned.get(id(t), "")
        if name and self.graph.values[key].producer:
            names[:] = dict.fromkeys([name, *names])
        elif name and name not in names:
            names.append(name)

    def walked(self, t: Tensor) -> bool:
        """Return True if a recorded backward pass went through the op that made `t`."""
        producer = self.graph.values[self.values.of(t)].producer
        return f"{producer}:backward" in self.graph.nodes

    # The observer: ops, writes and backward nodes

    def ran(
        self, run: Run, args: Sequence[Any], kwargs: Mapping[str, Any], outs: Sequence[Tensor]
    ) -> None:
        """Record an op that has run."""
        sys.setprofile(None)  # the recorder does not watch itself
        graph = self.graph
        if self._opening is not None:  # in a rule that the program does not run: an amount alone
            if isinstance(run, Op) and self._nodes.outer:
                self._nodes.outer[-1][0].flops += run.flops(args, kwargs, outs)
            sys.setprofile(self._see)
            return
        frame = next(users(sys._getframe(1)), None)
        self._names.note_all(frame)
        op = RETURNED if self._returning else run.op_name
        node = self._nodes.here(op, sys._getframe(1))
        node.gradient = getattr(run, "differentiable", True)
        node.seconds = run.seconds if self._stats else None
        kind: Any = type(run)
        names = argument_names(kind.forward)
        positions: list[str | None] = []
        called = itertools.chain(names, itertools.repeat(names[-1] if names else ""))
        for name, a in (*zip(called, args, strict=False), *kwargs.items()):
            a = self._calls.numbers.get(id(a), a)
            keys = [self.values.of(t, frame) for t in tensors_in(a)]
            positions.append(keys[-1] if keys else None)
            self._nodes.read(node, name, *keys)
            back = self._trips.given(name, a, sys._getframe(1)) if not keys else {}
            self._trips.read(node, name, back)
            if not any(back.values()):
                note(node.attributes, name, a)
        self._nodes.enter(node)  # after those that its inputs may need
        for out in outs:
            key = self._nodes.made(node, out)
            for view in self._outdated if out._view is not None else ():
                if view.is_set_to(out) and view.dtype == out.dtype:  # its history is made again
                    self.values.changed(view, key)
        if (
            node.direction == "backward" and node.inside is None
        ):  # create_graph sums gradients by ops
            of = {graph.values[v].of for v in node.inputs}
            for v in node.outputs if len(of) == 1 else ():
                graph.values[v].kind, (graph.values[v].of,) = "gradient", of
        if outs and node.attributes.get("shape") == list(outs[0].shape):
            del node.attributes["shape"]  # the result has it, and names for its sizes
        if node.attributes.get("causal") is False:
            mask = {**dict(zip(names, args, strict=False)), **kwargs}.get("mask")
            node.attributes["causal"] = _blocks_the_future(mask)
        if isinstance(run, Op):
            node.flops = run.flops(args, kwargs, outs)
            node.origins = self._origins(node, type(run), args, kwargs)
        self._arguments[node.id] = positions
        if isinstance(run, Function) and self._functions:
            inside = self._nodes.sequence[self._functions.pop() : -1]
            for inner in inside:
                inner.inside = inner.inside or node.id
            if self._stats:
                node.seconds = sum(n.seconds or 0.0 for n in inside if n.inside == node.id)
        if run.recorded:
            self._ran[run] = node.id
            if isinstance(run, Op) and run.fused:
                self._backward_flops[node.id] = run.backward_flops(
                    args, kwargs, outs, run.needs_input_grad
                )
            saves = dict(zip(map(id, run._saved.values), run.saves, strict=False))
            opened = node.inside is not None and node.direction == "forward"
            for array in () if opened else saved_arrays(run):  # the fused op keeps its own
                number = sum(graph.values[s].kind == "saved" for s in node.saved)
                key = self.values.saved(f"{node.id}:saved{number}", array)
                if graph.values[key].producer is None and graph.values[key].kind == "saved":
                    graph.values[key].producer = node.id
                    graph.values[key].names += filter(None, [saves.get(id(array))])
                self._saved.setdefault(run, []).append((array, key))
                if key not in node.saved:
                    node.saved.append(key)
                    graph.values[key].saved_by.append(node.id)
        sys.setprofile(self._see)
        fused = isinstance(run, Op) and run.decomposition is not None
        if self._decompose and fused and not self._nodes.outer:
            self._open(node, run, args, kwargs)

    def returned(self, module: Module, result: Any) -> Any:
        """Let a module that returns its input, such as Dropout(p=0), give a tensor of its own.

        It is a view of the input, made by an op of that module, so that the module is drawn.
        """
        if self._nodes.outer or not self._modules.passes_on(module, result):
            return result
        sys.setprofile(None)
        self._returning = True
        try:
            return result.view(result.shape)
        finally:
            self._returning = False
            sys.setprofile(self._see)

    def _origins(
        self, node: Node, op: type[Op], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Origins | None:
        """Return where the numbers of a node's outputs come from, if numbers are kept."""
        if not self.values.limit:
            return None
        tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
        known = {id(t._array): self.values.of(t) for t in tensors}
        arrays = [a._array if isinstance(a, Tensor) else a for a in args]
        settings = {key: a._array if isinstance(a, Tensor) else a for key, a in kwargs.items()}
        how = made(op, arrays, settings)
        if how is None:
            return None
        for name, array in how.tensors.items():
            if id(array) not in known:  # the op draws it itself
                key = known[id(array)] = f"{node.id}/{name}"
                value = describe(key, "constant", array.shape, array.dtype)
                value.names, value.data = [name], data_of(array, self.values.limit)
                self.graph.values[key] = value
        names = {name: known[id(array)] for name, array in how.tensors.items()}
        return Origins(names, list(how.formulas), [m.astype(np.int32) for m in how.moved])

    def writing(self, original: Tensor, copy: Tensor) -> None:
        """Let `copy` stand for `original`, which is about to be changed in place."""
        key = self.values.of(original)
        self.values.again(copy, key)

    def wrote(self, target: Tensor, made: Tensor | None) -> None:
        """Record that `made` was written into `target`, and into the base that it is a view of."""
        if made is None:
            return
        key = self.values.of(made)
        base = self.values.base(target)
        before = self.values.of(target if base is None else base)
        if self.values.was_there(before):
            self.changed.append(target if base is None else base)
        self.values.changed(target, key)
        self._outdated = self.values.outdated(target, self._show)
        if base is None:
            self._updates.wrote(before, key)
            return
        node = self._nodes.enter(self._nodes.here("view_scatter", sys._getframe(1)))
        node.inputs, node.input_names = [before, key], ["base", "new"]
        self.values.changed(base, self._nodes.made(node, base))
        self._updates.wrote(before, node.outputs[0])
        self._arguments[node.id] = [before, key]
        if base._edge is not None and isinstance(base._edge[0], ViewScatter):
            self._ran[base._edge[0]] = node.id

    def _show(self, view: Tensor, frame: FrameType | None) -> None:
        """Make a view again of its base, whose memory was changed in place."""
        assert view._view is not None
        base = view._view.base
        with Mode(grad=False, observers=(self,)):
            again = replay(view._view.functions, base, relaxed=base._relaid or view._relaid)
        sys.setprofile(None)
        self.values.changed(view, self.values.of(again))

    def backward_begins(self, run: Run, grads: Sequence[Tensor | None]) -> None:
        """Begin a backward node, with the gradients of the outputs of its forward node."""
        sys.setprofile(None)
        graph = self.graph
        forward = graph.nodes.get(self._ran.get(run, ""))
        if forward is None:  # it ran before the recording began
            stem = f"{run.op_name}_backward"
            node = Node("", stem, "", [], [])
        else:
            stem = f"{forward.id}:backward"
            node = Node("", forward.op, forward.group, [], [], of=forward.id)
            node.source, node.code, node.origin = forward.source, forward.code, forward.origin
            node.function = forward.function
        node.direction = "backward"
        node.inside = None if self._opening is None else self._opening.id
        self._nodes.enter(node, stem)
        outs = forward.outputs if forward else [None] * len(grads)
        for number, g in enumerate(grads):
            if g is None:
                continue
            reached = self._gradients.pop((run, number), [])
            of = outs[number] if number < len(outs) else None
            summed = self.values.tensors.get(id(g)) if len(reached) > 1 else None
            if summed is not None and graph.values[summed].producer is not None:
                reached = [summed]  # with create_graph, sums are ops
            elif len(reached) != 1:  # where the walk begins, or a sum
                key = self.values.add(g, f"{node.id}:in{number}", "gradient", [], of)
                reached = reached or [key]
            else:
                self.values.again(g, reached[0])
            self._nodes.read(node, "grad", *reached)
            if self._stats and of is not None:
                graph.values[of].grad_norm = norm(g._array)
        for array, key in self._saved.get(run, ()):
            self.values.arrays[id(array)] = key
        if forward is not None:
            self._nodes.read(node, "saved", *forward.saved)
        if run in self._opened:
            self._arrived[run] = grads
        self._nodes.outer.append((node, len(self._nodes.sequence)))
        sys.setprofile(self._see)

    def backward_ended(self, run: Run, dins: Sequence[Tensor | None]) -> None:
        """End a backward node, with the gradients of the arguments of its forward node."""
        sys.setprofile(None)
        node, start = self._nodes.outer.pop()
        positions = self._arguments.get(node.of or "", [])
        for number, (edge, d) in enumerate(zip(run.edges, dins, strict=False)):
            if edge is None or d is None:
                continue
            of = positions[number] if number < len(positions) else None
            inner = self.graph.values.get(self.values.tensors.get(id(d), ""))
            key = self._nodes.made(node, d, "gradient", of, number)
            maker = self.graph.nodes.get((inner and inner.producer) or "")
            if inner is not None and maker is not None and maker.inside == node.id:
                inner.of = key
            self._gradients.setdefault(edge, []).append(key)
            leaf = isinstance(edge, Tensor) and self._opening is None
            if self._stats and leaf and of is not None:
                total = self._leaf_grads.get(of)
                self._leaf_grads[of] = d._array.copy() if total is None else total + d._array
        ran = [n for n in self._nodes.sequence[start:] if n.inside == node.id]
        node.flops += self._backward_flops.get(node.of or "", 0) + sum(n.flops for n in ran)
        if self._stats:
            node.seconds = sum(n.seconds or 0.0 for n in ran) if ran else run.seconds
        sys.setprofile(self._see)
        grads = self._arrived.pop(run, None)
        if grads is not None and not ran:
            self._open_backward(node, run, grads)

    # The profiling hook: calls, and variables

    def _see(self, frame: FrameType, event: str, result: Any) -> None:
        """Follow the calls and returns of functions, as `sys.setprofile` reports them."""
        code = frame.f_code
        if event == "call":
            if code is _APPLY:
                sys.setprofile(None)  # `ran` turns it on again
            elif code is CALL and not self._nodes.outer:
                self._modules.begin(frame)
            elif code.co_name == "forward" and not self._nodes.outer:
                self._modules.begin_forward(frame)
            elif code.co_name == "step":
                self._updates.begins(frame)
            elif code is _PASS:
                if self._opening is None:
                    self._begin_pass(frame)
                self._nodes.passes += 1
            elif code is _FUNCTION:
                self._functions.append(len(self._nodes.sequence))
            else:
                self._calls.begins(frame)
        elif event == "return":
            if code is _PASS:
                self._nodes.passes -= 1
                if self._opening is None:
                    self._end_pass(frame, result)
            elif code is CALL and not self._nodes.outer:
                self._modules.end(frame, result)
            elif code in self._references and self._nodes.outer:
                self._names.note(frame, f"{self._nodes.outer[-1][0].id}/")
            else:
                self._trips.returns(frame, result)
                self._calls.returns(frame, result)
                self._updates.returns(frame, result)
                if is_users(code.co_filename):
                    self._names.note(frame)
                    if next(users(frame.f_back), None) is None:  # the outermost
                        self._returned = {id(t): name for name, t in named_tensors(frame)}
                if code.co_name == "forward" and not self._nodes.outer:
                    self._modules.end(frame, result)

    def _begin_pass(self, frame: FrameType) -> None:
        """Note the gradients that the program gave to begin with, other than one of ones."""
        given: set[int] = set()
        for outer in (frame.f_back, frame.f_back and frame.f_back.f_back):
            if outer is not None and outer.f_code in _BEGINNINGS:
                given = {id(g) for g in outer.f_locals["grads"] if g is not None}
        user, _ = user_frame(frame)
        begun: list[Any] = []
        for edge, g in frame.f_locals["roots"]:
            known = id(g) in given or self.values.known(g) or id(g) in self.values.late
            if known and id(g) not in self.own_ones and not isinstance(edge, Tensor):
                self._gradients.setdefault(edge, []).append(self.values.of(g, user))
                begun.append(edge)
        self._begun.append(begun)

    def _end_pass(self, frame: FrameType, found: dict[int, Tensor] | None) -> None:
        """Note the gradients of leaves, now that a backward pass has ended."""
        for edge in self._begun.pop():  # one that the pass did not go to
            self._gradients.pop(edge, None)
        wanted = frame.f_locals["wanted"]
        for leaf in [edge for edge in self._gradients if isinstance(edge, Tensor)]:
            parts = self._gradients.pop(leaf)
            g = leaf._grad if wanted is None else (found or {}).get(wanted.get(leaf, -1))
            made_by_op = state.grad or (g is not None and wanted and self.values.known(g))
            if g is not None and not made_by_op:
                self._updates.accumulated(leaf, parts, g, frame)

    # Opening fused ops

    def _open(self, node: Node, run: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Record the ops of a fused op's reference as its inside."""
        start = default_generator.get_state()
        if run.recorded:  # leaves of a graph of its own
            args = [self._leaf(a, edge) for a, edge in zip(args, run.edges, strict=True)]
        self._nodes.outer.append((node, len(self._nodes.sequence)))
        try:
            with set_grad_enabled(run.recorded):
                made = type(run).decomposition(*args, **kwargs)
        finally:
            self._nodes.outer.pop()
            default_generator.set_state(start)
        made = made if isinstance(made, tuple) else (made,)
        for t, key in zip(made, node.outputs, strict=True):
            found = self.values.tensors.get(id(t))
            if found is not None and found != key:
                self.graph.values[found].of = key
        if run.recorded:
            self._opened[run] = [*args], made

    def _leaf(self, a: Any, edge: Any) -> Any:
        """Return an argument as a leaf in the same memory, which is the same value."""
        if not isinstance(a, Tensor):
            return a
        leaf = wrap(a._array)
        leaf._requires_grad = edge is not None
        self.values.tensors[id(leaf)] = self.values.of(a)
        self.values.kept.append(leaf)
        return leaf

    def _open_backward(self, node: Node, run: Run, grads: Sequence[Tensor | None]) -> None:
        """Record the backward pass of a fused op's reference as the inside of its backward node."""
        args, outs = self._opened[run]
        wanted = {a: i for i, a in enumerate(args) if isinstance(a, Tensor) and a._requires_grad}
        roots, values = [], self.graph.values
        for key, t, g in zip(self.graph.nodes[node.of or ""].outputs, outs, grads, strict=True):
            if g is not None and t._edge is not None:
                roots.append((t._edge, wrap(g._array)))
                named = zip(node.input_names, node.inputs, strict=True)
                reached = [v for name, v in named if name == "grad" and values[v].of == key]
                self._gradients[t._edge] = reached
        self._opening = node
        try:
            run_backward(roots, True, wanted)
            given = {values[key].port: key for key in node.outputs}
            for leaf, port in wanted.items():
                for term in self._gradients.get(leaf, []) if port in given else ():
                    values[term].term = given[port]
        finally:
            self._opening = None
            for edge in [*wanted, *(edge for edge, _ in roots)]:
                self._gradients.pop(edge, None)
