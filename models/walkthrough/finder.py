"""Finding boxes and tensors in a graph by paths, ops and names, never by place."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from minitensor.graph import Chapter, Graph, Node, Value


class Finder:
    """The graph of one training iteration, asked for what chapters speak of.

    Each method raises LookupError, with what was asked for, if there is no such thing.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.forward = [n for n in graph.nodes.values() if n.direction == "forward"]
        self.backward = [n for n in graph.nodes.values() if n.direction == "backward"]
        self.updates = [n for n in graph.nodes.values() if n.direction == "update"]

    # Ops

    def op(self, path: str, op: str, name: str = "", reads: str = "") -> Node:
        """Return the op of that name that runs in a module itself.

        `name` is what the code calls its output, `reads` a value that is among its inputs.
        """
        for node in self.forward:
            if node.group == path and node.inside is None and node.op == op:
                named = not name or any(name in self.value(v).names for v in node.outputs)
                if named and (not reads or self.same(reads).intersection(node.inputs)):
                    return node
        raise LookupError(f"no {op} {name} in {path or 'the program'}")

    def inner(self, node: Node, op: str, name: str = "", reads: str = "") -> Node:
        """Return the op of that name inside an op that was opened."""
        for each in self.forward:
            if each.inside == node.id and each.op == op:
                named = not name or any(name in self.value(v).names for v in each.outputs)
                if named and (not reads or reads in each.inputs):
                    return each
        raise LookupError(f"no {op} {name} inside {node.id}")

    def has(self, path: str, op: str) -> bool:
        """Return True if an op of that name runs in a module itself."""
        return any(n.group == path and n.inside is None and n.op == op for n in self.forward)

    def has_inner(self, node: Node, op: str) -> bool:
        """Return True if an op of that name runs inside an op that was opened."""
        return any(each.inside == node.id and each.op == op for each in self.forward)

    def maker(self, key: str) -> Node:
        """Return the op that made a value."""
        producer = self.value(key).producer
        if producer is None:
            raise LookupError(f"no op made {key}")
        return self.graph.nodes[producer]

    def same(self, key: str) -> set[str]:
        """Return the ids of a value, its views, and what modules passed on as it was."""
        found = {key, *(v.id for v in self.graph.values.values() if v.views == key)}
        for node in self.forward:
            if node.op == "identity" and node.inside is None and found.intersection(node.inputs):
                found.update(node.outputs)
        return found

    def readers(self, key: str, op: str) -> Iterator[Node]:
        """Yield the ops of that name that read a value, or what is the same."""
        shown = self.same(key)
        for node in self.forward:
            if node.op == op and shown.intersection(node.inputs):
                yield node

    def reader(self, key: str, op: str) -> Node:
        """Return the first op of that name that reads a value, or what is the same."""
        for node in self.readers(key, op):
            return node
        raise LookupError(f"no {op} reads {key}")

    def other(self, node: Node, key: str) -> str:
        """Return the input of an op of two that is not this value."""
        shown = self.same(key)
        for found in node.inputs:
            if found not in shown:
                return found
        raise LookupError(f"{node.id} reads {key} alone")

    def runs(self, path: str) -> Iterator[Node]:
        """Yield the ops that the program ran in a module, and in those inside it."""
        for node in self.forward:
            within = node.group == path or node.group.startswith(f"{path}.") or not path
            if within and node.inside is None:
                yield node

    # Values

    def value(self, key: str) -> Value:
        """Return a value by its id."""
        return self.graph.values[key]

    def array(self, key: str) -> np.ndarray:
        """Return the numbers of a value, all of which were kept."""
        data = self.value(key).data
        if data is None or data.at is not None:
            raise LookupError(f"the numbers of {key} were not kept, or not all of them")
        return data.array

    def weights(self) -> int:
        """Return the count of all numbers in weights."""
        found = (v for v in self.graph.values.values() if v.kind == "parameter" and v.of is None)
        return sum(math.prod(value.shape) for value in found)

    def out(self, path: str) -> str:
        """Return the value that a module made last."""
        nodes = list(self.runs(path))
        if not nodes:
            raise LookupError(f"nothing runs in {path}")
        return nodes[-1].outputs[0]

    def into(self, path: str) -> str:
        """Return the first value that a module was called with."""
        group = self.graph.groups.get(path)
        if group is None or not group.inputs:
            raise LookupError(f"no module {path} that was given a tensor")
        return group.inputs[0]

    def named(self, path: str, name: str) -> str:
        """Return the first value that ops of a module made, or got, under that name."""
        for node in self.runs(path):
            for key in (*node.outputs, *node.inputs):
                if name in self.value(key).names:
                    return key
        raise LookupError(f"no tensor {name} in {path or 'the program'}")

    def input(self, name: str) -> str:
        """Return an input of the program."""
        for key in self.graph.inputs:
            if key.removeprefix("input:") == name or name in self.value(key).names:
                return key
        raise LookupError(f"no input {name}")

    def weight(self, path: str) -> str:
        """Return a parameter by its path: "model.output.weight"."""
        for value in self.graph.values.values():
            if value.kind == "parameter" and value.of is None and path in value.names:
                return value.id
        raise LookupError(f"no parameter {path}")

    def gradient(self, key: str) -> str:
        """Return the gradient of a value: the sum, where several arrived."""
        found = [v for v in self.graph.values.values() if v.kind == "gradient" and v.of == key]
        if not found:
            raise LookupError(f"no gradient of {key}")
        whole = [v for v in found if v.producer is None]
        return (whole or found[-1:])[0].id

    def updated(self, key: str) -> Node:
        """Return the update of a weight."""
        for node in self.updates:
            if key in node.inputs:
                return node
        raise LookupError(f"no update of {key}")

    def arriving(self, key: str) -> str:
        """Return the gradient with which a weight was updated."""
        node = self.updated(key)
        return node.inputs[node.input_names.index("grad")]

    def of(self, node: Node) -> Node:
        """Return the backward of an op."""
        for each in self.backward:
            if each.of == node.id:
                return each
        raise LookupError(f"no backward of {node.id}")


def chapter(
    part: str,
    title: str,
    text: str,
    at: Node | None = None,
    values: dict[str, str] | None = None,
    formula: str = "",
    boxes: list[str] | None = None,
    facts: dict[str, str] | None = None,
) -> Chapter:
    """Return a chapter about an op: its line is lit, and its box unless `boxes` are given."""
    lit = boxes if boxes is not None else [at.id] if at is not None else []
    return Chapter(
        title,
        part,
        text,
        formula,
        facts or {},
        lit,
        values or {},
        at.source if at is not None else "",
        at.code if at is not None else "",
    )
