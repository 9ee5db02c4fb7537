"""The nodes of a recording: each with an id of its own, and the place in the program it ran at."""

from __future__ import annotations

from collections import Counter
from types import FrameType

from ..core import Tensor
from .frames import line_of, user_frame
from .model import Node
from .modules import Modules
from .values import Values


class Nodes:
    """The nodes of `values.graph`, in the order in which they run."""

    def __init__(self, values: Values, modules: Modules) -> None:
        self.values = values
        self.sequence: list[Node] = []  # all nodes, as they came
        self.outer: list[tuple[Node, int]] = []  # nodes whose inside is running; where it began
        self.passes = 0  # backward passes that are running
        self.updating = 0  # steps of optimizers that are running
        self.functions = modules.functions
        self._modules = modules
        self._counts: Counter[str] = Counter()

    def here(self, op: str, frame: FrameType) -> Node:
        """Return a node, not yet entered, for what runs in `frame`."""
        outer = self.outer[-1][0] if self.outer else None
        group = outer.group if outer else self._modules.group(frame)
        node = Node("", op, group, [], [])
        user, library = user_frame(frame)
        node.source, node.code = line_of(user)
        node.origin = "" if library is None else line_of(library)[0]
        if outer:
            node.inside, node.direction, node.function = outer.id, outer.direction, outer.function
        elif self.passes:
            node.direction = "backward"
        else:
            node.direction = "update" if self.updating else "forward"
            node.function = self.functions.name(frame, group)
        return node

    def enter(self, node: Node, stem: str = "") -> Node:
        """Give a node its id, which begins with `stem` or its place, and add it to the graph."""
        path = node.inside or node.group
        stem = stem or (f"{path}/{node.op}" if path else node.op)
        count = self._counts[stem]
        node.id = f"{stem}.{count}" if count else stem
        self._counts[stem] += 1
        self.values.graph.nodes[node.id] = node
        self.sequence.append(node)
        return node

    def read(self, node: Node, name: str, *values: str) -> None:
        """Note values as inputs of a node, by its name for them."""
        node.inputs += values
        node.input_names += [name] * len(values)

    def made(
        self,
        node: Node,
        t: Tensor,
        kind: str = "activation",
        of: str | None = None,
        port: int | None = None,
    ) -> str:
        """Note a tensor as the next output of a node; return its value."""
        port = len(node.outputs) if port is None else port
        key = self.values.add(t, f"{node.id}:{port}", kind, [], of)
        value = self.values.graph.values[key]
        value.producer, value.port = node.id, port
        node.outputs.append(key)
        return key
