"""A compiled program, as it is traced: the ops run that the rules of `compile` have made of it.

They run one after another, without the program's own code. What a reader knows them by comes from a
trace of the program as it is: lines of code, and the names of tensors that both have.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..autograd.grad_mode import Mode
from ..core import Tensor, state
from ..errors import running
from ..random import default_generator
from ..replay.compiled import Compiled, Entry, _formed, _signature
from ..replay.graph import Call
from ..replay.graph import Graph as Calls
from ..replay.left import given
from .model import Graph, Node
from .program import Program


def compiled(function: Any) -> Callable[..., Any] | None:
    """Return what `minitensor.compile` was given to make `function`, None for another one."""
    calls = getattr(function, "__dict__", {}).get("_calls")
    return calls.function if isinstance(calls, Compiled) else None


class Rewritten(Program):
    """A function with its arguments, of which the ops run that it was compiled to."""

    entry: Entry | None = None  # what was recorded of a call

    @property
    def name(self) -> str:
        """The name of the graph: "Transformer compiled"."""
        return f"{super().name} compiled"

    def plain(self) -> Program:
        """Return the program as it is. ValueError if a call cannot be replayed."""
        reason = "" if self.entry is not None else self.record()
        if reason:
            raise ValueError(f"trace: {self.name} is not replayed: {reason}")
        return Program(self.function, self.inputs, self.options, self._twins)

    def record(self) -> str:
        """Record and rewrite a call; return why it is not replayed, or ""."""
        start = default_generator.get_state()
        calls = Compiled(self.function)
        try:
            with self, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the reason is a note of the graph
                super().run()  # which may make what it keeps, such as a table of positions
                calls(*self.inputs, **self.options)
        finally:
            default_generator.set_state(start)
        (self.entry,) = calls.entries.values()
        return str(self.entry.reason)

    def run(self) -> Any:
        """Run the ops, each in the modules that it ran in."""
        assert self.entry is not None  # `plain` was asked before
        graph, tensors = self.entry.graph, list[Tensor]()
        _signature((self.inputs, self.options), tensors)
        env = {**dict(zip(graph.inputs, tensors, strict=True)), **graph.tensors}
        keys = [default_generator.key() for _ in range(graph.keys)]
        outside = running.modules
        try:
            with Mode(grad=state.grad):
                for call in graph.calls:
                    running.modules = (*outside, *call.modules)
                    one = Calls(graph.values, [call], [], list(call.outs))
                    needed = {n: env[n] for n in given(call)}
                    made = one.run(needed, keys, lambda on: setattr(state, "grad", on))
                    env.update(zip(call.outs, made, strict=True))
        finally:
            running.modules = outside
        return _formed(self.entry.form, (env[n] for n in graph.outputs))

    def tell(self, graph: Graph, plain: Graph) -> None:
        """Give the ops of a trace their rules and lines, and tensors their names in `plain`.

        What several ops became has the line of the last of them.
        """
        assert self.entry is not None
        before: dict[int, tuple[Node, str]] = {}  # by the number of a value: its node, and its id
        for call, node in _matched(self.entry.recorded, plain):
            before |= {n: (node, key) for n, key in zip(call.outs, node.outputs, strict=False)}
        lines = {node.source.rpartition("/")[2]: node for node, _ in before.values()}
        same = {key: key for key in plain.values if key in graph.values}
        same = {key: key for key in same if plain.values[key].producer is None}
        for node in graph.nodes.values():
            node.source = node.code = ""
        for call, node in _matched(self.entry.graph.calls, graph):
            node.rule = call.rule
            old = before[call.outs[0]][0] if call.outs[0] in before else lines.get(call.line)
            if old is not None:
                node.source, node.code = old.source, old.code
            for n, key in zip(call.outs, node.outputs, strict=False):
                if n in before:
                    same[before[n][1]] = key
            if old is not None and not call.rule:
                for one, other in zip(old.inputs, node.inputs, strict=False):
                    if graph.values[other].kind == "constant":
                        same[one] = other
                        graph.values[other].origin = plain.values[one].origin
        for one, other in same.items():
            value = graph.values[other]
            value.names[:] = dict.fromkeys([*value.names, *plain.values[one].names])
        for node in graph.nodes.values():
            host = node
            while host.inside or host.of:
                host = graph.nodes[host.inside or host.of or ""]
            node.source, node.code = host.source, host.code
        for key, group in graph.groups.items():
            known = plain.groups.get(key)
            for name, one in zip(known.input_names, known.inputs, strict=True) if known else ():
                if one in same:
                    group.inputs.append(same[one])
                    group.input_names.append(name)


def _matched(calls: Sequence[Call], graph: Graph) -> Iterator[tuple[Call, Node]]:
    """Yield the calls of ops with their nodes in a graph, which may have others between them."""
    nodes = (n for n in graph.nodes.values() if n.direction == "forward" and n.inside is None)
    for call in calls:
        if call.op is not None:
            yield call, next(node for node in nodes if node.op == call.op.op_name)
