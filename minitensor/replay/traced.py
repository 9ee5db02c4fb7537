"""A compiled program, as it is traced: the ops run that the rules of `compile` have made of it.

They run one after another, without the program's own code. What a reader knows them by comes from a
trace of the program as it is: lines of code, and the names of tensors that both have.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..graph.model import Graph, Node
from ..graph.program import Program
from ..random import default_generator
from .addresses import NotReplayable
from .graph import Call
from .values import arguments, formed

if TYPE_CHECKING:
    from .compiled import Compiled, Entry


def traced(
    calls: Compiled, inputs: tuple[Any, ...], options: Mapping[str, Any]
) -> tuple[Program, str]:
    """Return what is traced of a call of a compiled function; if it runs as it is, also why."""
    program = Rewritten(calls.function, inputs, options)
    program.compiled = type(calls)
    reason = program.record()
    return (Program(calls.function, inputs, options), reason) if reason else (program, "")


class Rewritten(Program):
    """A function with its arguments, of which the ops run that it was compiled to."""

    compiled: type[Compiled]
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

    def varied(self, *args: Any, **kwargs: Any) -> Program:
        """Return a copy with other sizes, as `Program.varied`, which is compiled as this one."""
        twin = super().varied(*args, **kwargs)
        assert isinstance(twin, Rewritten)
        twin.compiled = self.compiled
        return twin

    def record(self) -> str:
        """Record and rewrite a call; return why it is not replayed, or ""."""
        start = default_generator.get_state()
        calls = self.compiled(self.function)
        try:
            with self, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the reason is a note of the graph
                super().run()  # which may make what it keeps, such as a table of positions
                self.entry = calls.recorded(self.inputs, self.options)
        except NotReplayable as error:
            return str(error)
        finally:
            default_generator.set_state(start)
        return str(self.entry.reason)

    def run(self) -> Any:
        """Run the ops, each in the modules that it ran in."""
        assert self.entry is not None  # `plain` was asked before
        graph = self.entry.graph
        _, tensors = arguments(self.inputs, self.options)
        given = dict(zip(graph.inputs, tensors, strict=True)) | graph.tensors
        keys = [default_generator.key(size) for size in graph.keys]
        return formed(self.entry.form, graph.run(given, keys))

    def tell(self, graph: Graph, plain: Graph) -> None:
        """Give the ops of a trace their rules and lines, and tensors their names in `plain`.

        What several ops became has the line of the last of them.
        """
        assert self.entry is not None
        before: dict[int, str] = {}  # the ids of values in `plain`, by their numbers
        makers: dict[int, Node] = {}
        for call, node in _matched(self.entry.recorded, plain):
            before |= _values(call, node)
            makers |= dict.fromkeys(call.outs, node)
        lines = {node.source.rpartition("/")[2]: node for node in makers.values()}
        same: dict[str, str] = {}  # values of both, by their ids in `plain`
        for node in graph.nodes.values():
            node.source = node.code = ""
        for call, node in _matched(self.entry.graph.calls, graph):
            same |= {before[n]: key for n, key in _values(call, node).items() if n in before}
            old = makers.get(call.outs[0]) or lines.get(call.line)
            node.rule = call.rule
            if old is not None:
                node.source, node.code = old.source, old.code
        for one, other in same.items():
            value, known = graph.values[other], plain.values[one]
            value.names[:] = dict.fromkeys([*value.names, *known.names])
            value.origin = known.origin
        for node in graph.nodes.values():
            host = node
            while host.inside or host.of:
                host = graph.nodes[host.inside or host.of or ""]
            node.source, node.code = host.source, host.code
        for key, group in graph.groups.items():
            twin = plain.groups.get(key)
            for name, one in zip(twin.input_names, twin.inputs, strict=True) if twin else ():
                if one in same:
                    group.inputs.append(same[one])
                    group.input_names.append(name)


def _values(call: Call, node: Node) -> dict[int, str]:
    """Return the ids of values that a call reads and makes, by their numbers."""
    return dict(zip([*call.reads, *call.outs], [*node.inputs, *node.outputs], strict=False))


def _matched(calls: Sequence[Call], graph: Graph) -> Iterator[tuple[Call, Node]]:
    """Yield the calls of ops with their nodes in a graph, which may have others between them."""
    nodes = (n for n in graph.nodes.values() if n.direction == "forward" and n.inside is None)
    for call in calls:
        if call.op is not None:
            yield call, next(node for node in nodes if node.op == call.op.op_name)
