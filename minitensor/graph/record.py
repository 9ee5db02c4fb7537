"""The recorder: sees every op as it runs, forward and backward, with its module and source line.

`Op.apply` calls the recorder for every op, and costs nothing without one. Python's profiling hook,
which is off while an op computes, follows the calls of modules and the names of variables.
"""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any

import numpy as np

from ..autograd import Function, ViewScatter, no_grad, observe
from ..core import OPS, Observer, Op, Tensor, state
from ..core import Node as Run
from ..core.backward import run_backward
from ..errors import running
from ..nn import Module, Parameter
from ..random import default_generator
from .describe import (
    argument_names,
    describe,
    measure,
    memory_of,
    norm,
    note,
    tensors_in,
)
from .frames import CALL, VariableNames, is_users, line_of, named_tensors, user_frame
from .model import Graph, Group, Node

_APPLY = Op.apply.__func__.__code__  # type: ignore[attr-defined]
_PASS = run_backward.__code__
_FUNCTION = Function.apply.__func__.__code__  # type: ignore[attr-defined]


class Recorder(Observer):
    """Makes a `Graph` of the ops that run in its `with` block.

    With `decompose`, fused ops are run a second time as their `reference`, whose ops are recorded
    as their inside. With `stats`, tensors are measured and ops are timed.
    """

    sees_writes = True

    def __init__(
        self, name: str, root: Module | None, decompose: bool = False, stats: bool = False
    ) -> None:
        self.graph = Graph(name)
        self.graph.groups[""] = Group("", "", type(root).__name__ if root else "function", None)
        self.root = root
        self._decompose = decompose
        self._stats = stats
        self._kept: list[Any] = []  # kept alive, so that no id() is given twice
        self._tensors: dict[int, str] = {}  # values by the id() of tensor, of array, of memory
        self._names = VariableNames(self._tensors, self.graph.values)
        self._arrays: dict[int, str] = {}
        self._memory: dict[int, str] = {}
        self._nodes: dict[Run, str] = {}
        self._arguments: dict[str, list[str | None]] = {}  # values by position, of a node
        self._gradients: dict[Any, list[str]] = {}  # what reached an edge, by that edge
        self._leaf_grads: dict[str, np.ndarray] = {}
        self._backward_flops: dict[str, int] = {}
        self._sequence: list[Node] = []  # all nodes, as they came
        self._outer: list[tuple[Node, int]] = []  # nodes whose inside is running; where it began
        self._modules: list[tuple[Module, str]] = []  # those running, with their groups
        self._saved: dict[Run, list[tuple[np.ndarray, str]]] = {}  # arrays with their values
        self._passes = 0  # backward passes that are running
        self._functions: list[int] = []  # how many nodes there were when a Function began
        self._counts: Counter[tuple[str, str]] = Counter()
        self._paths: dict[int, dict[int, str]] = {}
        self.changed = False  # True once something that was there before is changed
        self._references: set[Any] = set()
        if decompose:
            found = [op.decomposition for op in OPS.values() if op.decomposition is not None]
            self._references = {reference.__code__ for reference in found}

    # Beginning and end

    def __enter__(self) -> Recorder:
        if any(observer.sees_writes for observer in state.observers):
            raise RuntimeError("trace: a recording is running already; trace one thing at a time")
        self._depth = len(running.modules)
        self._start = sys._getframe(1)  # variables of frames outside are ignored
        self._profile = sys.getprofile()
        if self.root is not None:
            self._register(self.root, "")
        self._observing = observe(self)
        self._observing.__enter__()
        sys.setprofile(self._see)
        return self

    def __exit__(self, *exception: object) -> None:
        self._observing.__exit__(*exception)
        del self._observing  # it holds this recorder
        del self._start  # it holds this recorder
        # A profiler in C, such as cProfile's, can be seen there but not be put back.
        sys.setprofile(self._profile if callable(self._profile) else None)
        graph = self.graph
        for key, total in self._leaf_grads.items():
            graph.values[key].grad_norm = norm(total)
        used = set()
        for node in graph.nodes.values():
            group: str | None = node.group
            while group is not None and group not in used:
                used.add(group)
                group = graph.groups[group].parent
        graph.groups = {k: g for k, g in graph.groups.items() if k in used or not k}

    def add_input(self, name: str, t: Tensor) -> None:
        """Make `t` an input of the graph."""
        known = self._tensors.get(id(t))
        if known is not None:  # attention(x, x, x)
            self.graph.values[known].names.append(name)
            return
        self.graph.inputs.append(self._add(t, f"input:{name}", "input", [name]))

    def add_output(self, t: Tensor) -> None:
        """Make `t` an output of the graph."""
        self.graph.outputs.append(self._value(t, None))

    def known(self, t: Tensor) -> str | None:
        """Return the id of the value that a tensor is, if it was seen."""
        return self._tensors.get(id(t))

    def walked(self, t: Tensor) -> bool:
        """Return True if a recorded backward pass went through the op that made `t`."""
        producer = self.graph.values[self._value(t, None)].producer
        return f"{producer}:backward" in self.graph.nodes

    def leaves(self) -> list[Tensor]:
        """Return the leaves that require grad, of all tensors that were seen."""
        seen = {id(t): t for t in self._kept if isinstance(t, Tensor)}
        return [t for t in seen.values() if t._requires_grad and t._edge is None]

    # The observer: ops, writes and backward nodes

    def ran(
        self, run: Run, args: Sequence[Any], kwargs: Mapping[str, Any], outs: Sequence[Tensor]
    ) -> None:
        """Record an op that has run."""
        sys.setprofile(self._see)
        graph = self.graph
        frame, origin = user_frame()
        self._names.note_all(frame, self._start)
        outer = self._outer[-1][0] if self._outer else None
        group = outer.group if outer else self._group()
        node = self._new(outer.id if outer else group, run.op_name, group)
        node.inside = outer.id if outer else None
        node.direction = outer.direction if outer else "backward" if self._passes else "forward"
        node.seconds = run.seconds if self._stats else None
        node.source, node.code = line_of(frame)
        node.origin = "" if origin is None else line_of(origin)[0]
        kind: Any = type(run)
        names = argument_names(kind.forward)
        positions: list[str | None] = []
        called = itertools.chain(names, itertools.repeat(names[-1] if names else ""))
        for name, a in (*zip(called, args, strict=False), *kwargs.items()):
            keys = [self._value(t, frame) for t in tensors_in(a)]
            positions.append(keys[-1] if keys else None)
            node.inputs += keys
            node.input_names += [name] * len(keys)
            note(node.attributes, name, a)
        for port, out in enumerate(outs):
            key = self._add(out, f"{node.id}:{port}", "activation", [])
            graph.values[key].producer, graph.values[key].port = node.id, port
            node.outputs.append(key)
        if node.direction == "backward" and outer is None:  # create_graph sums gradients by ops
            of = {graph.values[v].of for v in node.inputs}
            for v in node.outputs if len(of) == 1 else ():
                graph.values[v].kind, (graph.values[v].of,) = "gradient", of
        if outs and node.attributes.get("shape") == list(outs[0].shape):
            del node.attributes["shape"]  # the result has it, and names for its sizes
        if isinstance(run, Op):
            node.flops = run.flops(args, kwargs, outs)
        self._arguments[node.id] = positions
        if isinstance(run, Function) and self._functions:
            inside = self._sequence[self._functions.pop() : -1]
            for inner in inside:
                inner.inside = inner.inside or node.id
            if self._stats:
                node.seconds = sum(n.seconds or 0.0 for n in inside if n.inside == node.id)
        if run.recorded:
            self._nodes[run] = node.id
            if isinstance(run, Op) and run.fused:
                self._backward_flops[node.id] = run.backward_flops(
                    args, kwargs, outs, run.needs_input_grad
                )
            self._keep_saved(node, run)
        fused = isinstance(run, Op) and run.decomposition is not None
        if self._decompose and fused and not self._outer:
            self._open(node, run, args, kwargs)

    def writing(self, original: Tensor, copy: Tensor) -> None:
        """Let `copy` stand for `original`, which is about to be changed in place."""
        self._kept.append(copy)
        key = self._value(original, None)
        self._tensors[id(copy)] = key
        self._arrays[id(copy._array)] = key

    def wrote(self, target: Tensor, made: Tensor) -> None:
        """Record that `made` was written into `target`, and into the base that it is a view of."""
        key = self._value(made, None)
        before = self._value(target if target._base is None else target._base, None)
        self.changed |= self.graph.values[before].kind != "activation"
        self._kept.append(target)
        self._tensors[id(target)] = key
        base = target._base
        if base is None:
            self._arrays[id(target._array)] = key
            return
        group = self._group()
        node = self._new(group, "view_scatter", group)
        node.inputs, node.input_names = [before, key], ["base", "new"]
        frame, _ = user_frame()
        node.source, node.code = line_of(frame)
        whole = self._add(base, f"{node.id}:0", "activation", [])
        self.graph.values[whole].producer = node.id
        self._arrays[id(base._array)] = whole
        node.outputs = [whole]
        self._arguments[node.id] = [before, key]
        if base._edge is not None and isinstance(base._edge[0], ViewScatter):
            self._nodes[base._edge[0]] = node.id

    def backward_begins(self, run: Run, grads: Sequence[Tensor | None]) -> None:
        """Begin a backward node, with the gradients of the outputs of its forward node."""
        graph = self.graph
        forward = graph.nodes.get(self._nodes.get(run, ""))
        if forward is None:  # it ran before the recording began
            node = self._new("", f"{run.op_name}_backward", "")
        else:
            node = self._new("", f"{forward.id}:backward", forward.group)
            node.op, node.of = forward.op, forward.id
            node.source, node.code, node.origin = forward.source, forward.code, forward.origin
        node.direction = "backward"
        outs = forward.outputs if forward else [None] * len(grads)
        for number, g in enumerate(grads):
            if g is None:
                continue
            reached = self._gradients.pop((run, number), [])
            of = outs[number] if number < len(outs) else None
            summed = self._tensors.get(id(g)) if len(reached) > 1 else None
            if summed is not None and graph.values[summed].producer is not None:
                reached = [summed]  # with create_graph, sums are ops
            elif len(reached) != 1:  # where the walk begins, or a sum
                key = self._add(g, f"{node.id}:in{number}", "gradient", [], of)
                reached = reached or [key]
            else:
                self._again(g, reached[0])
            node.inputs += reached
            node.input_names += ["grad"] * len(reached)
            if self._stats and of is not None:
                graph.values[of].grad_norm = norm(g._array)
        for array, key in self._saved.get(run, ()):
            self._arrays[id(array)] = key
        if forward is not None:
            node.inputs += forward.saved
            node.input_names += ["saved"] * len(forward.saved)
        self._outer.append((node, len(self._sequence)))

    def backward_ended(self, run: Run, dins: Sequence[Tensor | None]) -> None:
        """End a backward node, with the gradients of the arguments of its forward node."""
        node, start = self._outer.pop()
        positions = self._arguments.get(node.of or "", [])
        for number, (edge, d) in enumerate(zip(run.edges, dins, strict=False)):
            if edge is None or d is None:
                continue
            of = positions[number] if number < len(positions) else None
            inner = self.graph.values.get(self._tensors.get(id(d), ""))
            key = self._add(d, f"{node.id}:{number}", "gradient", [], of)
            maker = self.graph.nodes.get((inner and inner.producer) or "")
            if inner is not None and maker is not None and maker.inside == node.id:
                inner.of = key
            self.graph.values[key].producer, self.graph.values[key].port = node.id, number
            node.outputs.append(key)
            self._gradients.setdefault(edge, []).append(key)
            if self._stats and isinstance(edge, Tensor) and of is not None:
                total = self._leaf_grads.get(of)
                self._leaf_grads[of] = d._array.copy() if total is None else total + d._array
        ran = [n for n in self._sequence[start:] if n.inside == node.id]
        node.flops = self._backward_flops.get(node.of or "", 0) + sum(n.flops for n in ran)
        if self._stats:
            node.seconds = sum(n.seconds or 0.0 for n in ran) if ran else run.seconds

    # Values

    def _value(self, t: Tensor, frame: FrameType | None) -> str:
        """Return the value that a tensor is, a new one if no recorded op made it."""
        known = self._tensors.get(id(t)) or self._arrays.get(id(t._array))
        if known is not None:
            return known
        leaf = isinstance(t, Parameter) or t.requires_grad
        kind = "parameter" if leaf else "constant"
        name = next((n for n, v in named_tensors(frame) if v is t), "") if frame else ""
        key = name if name and f"{kind}:{name}" not in self.graph.values else ""
        if not key:
            self._counts[kind, name] += 1
            key = f"{name}{self._counts[kind, name]}"
        return self._add(t, f"{kind}:{key}", kind, [name] if name else [])

    def _add(self, t: Tensor, key: str, kind: str, names: list[str], of: str | None = None) -> str:
        array = t._array
        value = describe(key, kind, array.shape, array.dtype)
        value.names, value.of = names, of
        root = memory_of(array)
        owner = self._tensors.get(id(t._base)) if t._base is not None else None
        if owner is None and kind != "gradient":
            owner = self._memory.get(id(root))
        value.views = owner
        if self._stats:
            value.stats = measure(array)
        self.graph.values[key] = value
        self._kept += [t, array, root]
        self._memory.setdefault(id(root), key)
        self._arrays.setdefault(id(array), key)
        self._tensors[id(t)] = key
        return key

    def _again(self, t: Tensor, key: str) -> None:
        self._kept += [t, t._array]
        self._tensors[id(t)] = self._arrays[id(t._array)] = key

    def _keep_saved(self, node: Node, run: Run) -> None:
        """Note the saved tensors of a node."""
        values = self.graph.values
        names = dict(zip(map(id, run._saved.values), run.saves, strict=False))
        for array in run.saved_arrays():
            key = self._arrays.get(id(array)) or self._memory.get(id(memory_of(array)))
            if key is None or values[key].nbytes < array.nbytes:
                key = f"{node.id}:saved{sum(values[s].kind == 'saved' for s in node.saved)}"
                values[key] = describe(key, "saved", array.shape, array.dtype)
                values[key].producer = node.id
                values[key].names += filter(None, [names.get(id(array))])
                self._kept += [array, memory_of(array)]
                self._arrays[id(array)] = key
                self._memory.setdefault(id(memory_of(array)), key)
            self._saved.setdefault(run, []).append((array, key))
            if key not in node.saved:
                node.saved.append(key)
                values[key].saved_by.append(node.id)

    # Nodes, groups and paths

    def _new(self, path: str, op: str, group: str) -> Node:
        """Add a node with an id of its own, which begins with `path`."""
        stem = f"{path}/{op}" if path else op
        count = self._counts["node", stem]
        self._counts["node", stem] += 1
        node = Node(f"{stem}.{count}" if count else stem, op, group, [], [])
        self.graph.nodes[node.id] = node
        self._sequence.append(node)
        return node

    def _group(self) -> str:
        """Return the group of the module that is running."""
        inside = running.modules[self._depth :]
        known = self._modules
        while known and (len(known) > len(inside) or known[-1][0] is not inside[len(known) - 1]):
            known.pop()
        for module in inside[len(known) :]:
            self._push(module)
        return known[-1][1] if known else ""

    def _push(self, module: Module) -> None:
        """Give a module that begins to run a group."""
        groups = self.graph.groups
        parent, outer = self._modules[-1] if self._modules else (self.root, "")
        path = self._path(module, parent, groups[outer].path)
        self._counts["group", path] += 1
        count = self._counts["group", path]
        key = path if count == 1 else f"{path}#{count}"
        self._modules.append((module, key))
        if key in groups and key:
            return
        if not self._modules[:-1] and module is not self.root:
            self._register(module, path)
        kind = type(module).__name__
        group = Group(key, path, kind, None if not key else outer, settings=module.extra_repr())
        for name, parameter in module._parameters.items():
            if parameter is not None:
                group.parameters.append(self._known(parameter, "parameter", path, name))
        groups[key] = group

    def _take(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Note the tensors that a module's call is given, by the names of its parameters."""
        module, key = self._modules[-1]
        names = argument_names(type(module).forward)
        group = self.graph.groups[key]
        for name, argument in (*zip(names, args, strict=False), *kwargs.items()):
            known = [self._tensors.get(id(t)) for t in tensors_in(argument)]
            for value in filter(None, known):
                group.inputs.append(value)
                group.input_names.append(name)

    def _path(self, module: Module, parent: Module | None, outer: str) -> str:
        """Return the path of a module that runs inside `parent`, whose path is `outer`."""
        for whole, prefix in ((self.root, ""), (parent, outer)):
            if whole is None:
                continue
            if id(whole) not in self._paths:
                self._kept.append(whole)
                self._paths[id(whole)] = {id(m): p for p, m in whole.named_modules()}
            path = self._paths[id(whole)].get(id(module))
            if path is not None:
                return f"{prefix}.{path}" if prefix and path else prefix or path
        taken = self._paths.setdefault(0, {})  # modules that are in no other
        if id(module) not in taken:
            self._kept.append(module)
            kind = type(module).__name__
            self._counts["module", kind] += 1
            count = self._counts["module", kind]
            taken[id(module)] = kind if count == 1 else f"{kind}_{count}"
        name = taken[id(module)]
        return f"{outer}.{name}" if outer else name

    def _register(self, module: Module, path: str) -> None:
        """Give the parameters and buffers of a module their names."""
        for name, parameter in module.named_parameters():
            self._known(parameter, "parameter", path, name)
        for name, buffer in module.named_buffers():
            self._known(buffer, "buffer", path, name)

    def _known(self, t: Tensor, kind: str, path: str, name: str) -> str:
        if id(t) in self._tensors:
            return self._tensors[id(t)]
        full = f"{path}.{name}" if path else name
        return self._add(t, f"{kind}:{full}", kind, [full])

    # The profiling hook: calls of modules, and variables

    def _see(self, frame: FrameType, event: str, result: Any) -> None:
        """Follow the calls and returns of functions, as `sys.setprofile` reports them."""
        code = frame.f_code
        if event == "call":
            if code is _APPLY:
                sys.setprofile(None)  # `ran` turns it on again
            elif code is CALL and not self._outer:
                self._group()
                self._push(frame.f_locals["self"])
                self._take(frame.f_locals["args"], frame.f_locals["kwargs"])
            elif code is _PASS:
                self._passes += 1
            elif code is _FUNCTION:
                self._functions.append(len(self._sequence))
        elif event == "return":
            if code is _PASS:
                self._passes -= 1
            elif code is CALL and not self._outer:
                if self._modules and self._modules[-1][0] is frame.f_locals["self"]:
                    self._modules.pop()
            elif code in self._references and self._outer:
                self._names.note(frame, f"{self._outer[-1][0].id}/")
            elif is_users(code.co_filename):
                self._names.note(frame)

    # Opening fused ops

    def _open(self, node: Node, run: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Record the ops of a fused op's reference as its inside."""
        start = default_generator.get_state()
        self._outer.append((node, len(self._sequence)))
        try:
            with no_grad():
                made = type(run).decomposition(*args, **kwargs)
        finally:
            self._outer.pop()
            default_generator.set_state(start)
        made = made if isinstance(made, tuple) else (made,)
        for t, key in zip(made, node.outputs, strict=True):
            found = self._tensors.get(id(t))
            if found is not None and found != key:
                self.graph.values[found].of = key
