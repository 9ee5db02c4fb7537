"""The ops of a graph in the modules and functions that ran them, before anything is folded.

Every node belongs to one item. The backward of an op belongs to the item of the op, and so does
all that runs inside this backward, and the backward of that: gradients of gradients.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from .model import Graph, Group, Node

GLUE = 2  # ops that a function adds to a module at most, if it is not worth a box


@dataclass
class Item:
    """A module call, a function call, an optimizer's step or an op."""

    id: str
    group: str | None  # the module it is; of an op, if it is all there is in that module
    node: Node | None
    parameters: list[str]
    settings: str = ""
    label: str = ""  # of a function or a step: its name
    function: str = " "  # the function that ran it, "" for none, " " where that is not known
    children: list[Item] = field(default_factory=list)
    backward: list[Node] = field(default_factory=list)
    lo: int = 0  # its nodes are `ForwardGraph.order[lo:hi]`
    hi: int = 0
    key: bytes = b""  # equal for items of equal content, however they are wired

    @property
    def is_op(self) -> bool:
        """True for one op, False for what has several."""
        return self.node is not None

    @property
    def kind(self) -> str:
        """Return the kind of box that it is."""
        if self.ran is not None:
            return "op"
        if self.group is not None:
            return "module"
        node = self.children[0].node
        return "update" if node is not None and node.direction == "update" else "run"

    @property
    def ran(self) -> Node | None:
        """Its node, or a backward node whose forward node was not recorded."""
        return self.node or next(iter(self.backward), None)


class Items:
    """The tree of items of a graph, from `root` down, and the item of each node, by `of`."""

    def __init__(self, graph: Graph) -> None:
        whole = graph.groups.get("", Group("", "", graph.name, None))
        self.graph = graph
        self.root = Item("", "", None, whole.parameters, whole.settings)
        self.of: dict[str, Item] = {}
        self._modules = {"": self.root}
        self._names: set[str] = set()
        self._place()
        for item in reversed(preorder(self.root)):
            if item.is_op:
                continue
            merged = [self._merged(child) for child in item.children]
            rows = _functions(merged, "", f"{item.group}/" if item.group else "", self._named)
            if len(rows) == 1 and rows[0].kind == "run":  # a method in which all of it runs
                rows = rows[0].children
            item.children = rows

    def _place(self) -> None:
        """Put each node into the item it belongs to, and that into what it ran in."""
        nodes = self.graph.nodes
        for node in nodes.values():
            if node.direction != "backward":
                weights = (v for v in node.inputs if self.graph.values[v].kind == "parameter")
                item = Item(node.id, None, node, list(dict.fromkeys(weights)))
                self.of[node.id], item.function = item, node.function
        step: Item | None = None
        for node in nodes.values():
            if node.direction == "update" and "param" in node.input_names:
                if step is None:
                    step = Item(self._named("optimizer.step"), None, None, [])
                    step.label = "optimizer.step"
                    self.root.children.append(step)
                step.children.append(self.of[node.id])
                continue
            step = None
            outer = self.of.get(node.inside or "")
            if node.direction != "backward":
                parent = outer or self._module(node.group)
                parent.children.append(self.of[node.id])
            elif outer is not None and node.of is None:
                self.of[node.id] = outer
            elif node.of in self.of:
                self.of[node.id] = self.of[node.of]
                self.of[node.of].backward.append(node)
            else:
                item = self.of[node.id] = Item(node.id, None, None, [], backward=[node])
                self._module(node.group).children.append(item)

    def _module(self, path: str) -> Item:
        found: list[Item] = []
        while path not in self._modules:  # from the inside out
            group = self.graph.groups[path]
            item = Item(path, path, None, group.parameters, group.settings)
            self._modules[path], item.function = item, group.function
            found.append(item)
            path = group.parent or ""
        for item in reversed(found):
            outer = self.graph.groups[item.id].parent or ""
            self._modules[outer].children.append(item)
        return found[0] if found else self._modules[path]

    def _merged(self, item: Item) -> Item:
        """Return the item, or for a module of one op that op, under the name of the module.

        One with a buffer that the op reads stays as it is: the buffer is drawn inside it.
        """
        if item.group is None or item.is_op or len(item.children) != 1:
            return item
        op, prefix = item.children[0], f"buffer:{self.graph.groups[item.group].path}."
        if op.node is None or any(value.startswith(prefix) for value in op.node.inputs):
            return item
        if op.group is None:
            op.id, op.group, op.settings = item.id, item.group, item.settings
            op.function = item.function
        op.parameters = list(dict.fromkeys([*op.parameters, *item.parameters]))
        return op

    def _named(self, stem: str) -> str:
        """Return an id that no other item has."""
        name, count = stem, 1
        while name in self._names:
            count += 1
            name = f"{stem}#{count}"
        self._names.add(name)
        return name


def _functions(
    row: list[Item], around: str, prefix: str, named: Callable[[str], str]
) -> list[Item]:
    """Return a row of siblings in which those that a function of the user's ran are one item.

    A function runs without a break, so what stands between its ops ran in it too: modules, and
    functions that it called. One with a single op in it needs no item, nor one that only adds to a
    module what belongs to it: a norm, a residual.
    """
    names = [item.function for item in row]
    last = {name: at for at, name in enumerate(names)}
    found, at = [], 0
    while at < len(row):
        item, name, end = row[at], names[at], at + 1
        if name.strip() and name != around:
            inside = last[name] + 1
            while end < inside and names[end] not in ("", around):
                end += 1
            while names[end - 1] != name:
                end -= 1
        inner = _functions(row[at:end], name, prefix, named) if end - at > 1 else [item]
        if end - at > 1 and not _is_glue(inner):
            label = re.sub(r"#\d+$", "", name)
            item = Item(named(f"{prefix}{name}()"), None, None, [], label=label, children=inner)
            inner = [item]
        found += inner
        at = end
    return found


def _is_glue(row: list[Item]) -> bool:
    """Return True for one module of several ops, and at most as many ops more as glue needs."""
    modules = sum(item.kind == "module" for item in row)
    ops = sum(item.is_op for item in row)
    return modules == 1 and ops <= GLUE and modules + ops == len(row)


def preorder(root: Item) -> list[Item]:
    """Return the item and all that is in it, outer before inner, in the order they ran."""
    found, waiting = [], [root]
    while waiting:
        item = waiting.pop()
        found.append(item)
        waiting.extend(reversed(item.children))
    return found
