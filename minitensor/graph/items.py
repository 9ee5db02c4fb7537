"""The ops of a graph in the modules and functions that ran them, before anything is folded.

Every node belongs to one item. The backward of an op belongs to the item of the op, and so does
all that runs inside this backward, and the backward of that: gradients of gradients.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field

from .model import Graph, Group, Node

GLUE = 2  # ops that a function adds to a block at most, if it is not worth a box


@dataclass
class Item:
    """A module call, a function call, an optimizer's step or an op."""

    id: str
    group: str | None  # the module it is; of an op, if it is all there is in that module
    node: Node | None
    parameters: list[str]
    settings: str = ""
    label: str = ""  # of a function or a step: its name
    functions: list[str] | None = None  # that ran it in its module, outer first, if that is known
    call: str = ""  # the call of a public function that it is, a key of `Graph.calls`
    children: list[Item] = field(default_factory=list)
    backward: list[Node] = field(default_factory=list)
    lo: int = 0  # its nodes are `ForwardGraph.order[lo:hi]`
    hi: int = 0
    key: bytes = b""  # equal for items of equal content, however they are wired

    @property
    def is_op(self) -> bool:
        """True for one op, False for what has several."""
        return self.node is not None

    def function(self, depth: int) -> str:
        """Return the function that ran it, if `depth` is 0, or the one inside that, ..., or ""."""
        functions = self.functions or ()
        return functions[depth] if depth < len(functions) else ""

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
            _fill(merged)
            rows = self._functions(merged, 0, item.group or "")
            alone = len(rows) == 1 and rows[0].kind == "run" and not rows[0].call
            if alone:  # a method in which all of it runs
                rows = rows[0].children
            item.children = rows

    def _place(self) -> None:
        """Put each node into the item it belongs to, and that into what it ran in."""
        nodes = self.graph.nodes
        for node in nodes.values():
            if node.direction != "backward":
                weights = self._weights(node.inputs)
                item = Item(node.id, None, node, weights)
                self.of[node.id] = item
                item.functions = self._chain(node.group, node.function)
        step: Item | None = None
        for node in nodes.values():
            if node.direction == "update" and "param" in node.input_names:
                if step is None:
                    step = Item(self._named("optimizer.step"), None, None, [])
                    step.label = "optimizer.step"
                    step.functions = self.of[node.id].functions
                    self.root.children.append(step)
                step.children.append(self.of[node.id])
                self.of[node.id].functions = None
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
            item = Item(path, path, None, self._weights(group.parameters), group.settings)
            self._modules[path] = item
            item.functions = self._chain(group.parent or "", group.function)
            found.append(item)
            path = group.parent or ""
        for item in reversed(found):
            outer = self.graph.groups[item.id].parent or ""
            self._modules[outer].children.append(item)
        return found[0] if found else self._modules[path]

    def _weights(self, values: list[str]) -> list[str]:
        """Return the weights among some values: one that was updated is what it was before."""
        parameters = (v for v in values if self.graph.values[v].kind == "parameter")
        return list(dict.fromkeys(map(self.graph.weight, parameters)))

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
            op.functions = item.functions
        op.parameters = list(dict.fromkeys([*op.parameters, *item.parameters]))
        return op

    def _chain(self, group: str, function: str) -> list[str]:
        """Return the functions around one in a module and itself, the outermost first."""
        found = []
        while function:
            found.append(function)
            call = self.graph.call(group, function)
            function = call.function if call is not None else ""
        return found[::-1]

    def _functions(self, row: list[Item], depth: int, group: str) -> list[Item]:
        """Return a row of siblings in which those that one function ran are one item.

        All of the row ran in the same `depth` functions. A function runs without a break, and so
        does each that it calls. One with a single item in it is none itself; an op that is all
        there is in a public one goes by its name. Nor is one that runs no op itself, but hands data
        from block to block: a model's `encode`.
        """
        found = []
        for name, part in itertools.groupby(row, lambda item: item.function(depth)):
            items = list(part)
            if not name:
                found += items
                continue
            inside = self._functions(items, depth + 1, group)
            call = self.graph.call(group, name)
            key = f"{group}/{name}" if call is not None and call.public else ""
            if len(inside) > 1 and not _conducts(inside) and (key or not _is_glue(inside)):
                label = call.name if call is not None else re.sub(r"#\d+$", "", name)
                box = self._named(f"{group}/{name}()" if group else f"{name}()")
                inside = [Item(box, None, None, [], label=label, call=key, children=inside)]
            elif len(inside) == 1 and inside[0].is_op and inside[0].group is None:
                inside[0].call = inside[0].call or key
            found += inside
        return found

    def _named(self, stem: str) -> str:
        """Return an id that no other item has."""
        name, count = stem, 1
        while name in self._names:
            count += 1
            name = f"{stem}#{count}"
        self._names.add(name)
        return name


def _conducts(row: list[Item]) -> bool:
    """Return True for modules and functions alone, among them a module of modules of modules."""
    alone = any(item.is_op and item.group is None for item in row)
    return not alone and any(_height(item) >= 2 for item in row)


def _height(item: Item) -> int:
    """Return how many modules are inside each other in an item, itself one of them."""
    below = 0 if item.is_op else max(map(_height, item.children), default=0)
    return below + (item.group is not None and not item.is_op)


def _fill(row: list[Item]) -> None:
    """Let an item of which it is not known belong to the functions of both its neighbours."""
    following: list[str] = []
    after: list[list[str]] = []
    for item in reversed(row):
        following = following if item.functions is None else item.functions
        after.append(following)
    before: list[str] = []
    for item, following in zip(row, reversed(after), strict=True):
        if item.functions is None:
            pairs = zip(before, following, strict=False)
            item.functions = [one for one, _ in itertools.takewhile(lambda p: p[0] == p[1], pairs)]
        before = item.functions


def _is_glue(row: list[Item]) -> bool:
    """Return True for one block with modules, and at most as many ops more as glue needs."""
    blocks = [item for item in row if not item.is_op]
    return len(blocks) == 1 and _has_modules(blocks[0]) and len(row) - 1 <= GLUE


def _has_modules(item: Item) -> bool:
    """Return True for a module, and for a function that runs one."""
    return item.group is not None or any(map(_has_modules, item.children))


def preorder(root: Item) -> list[Item]:
    """Return the item and all that is in it, outer before inner, in the order they ran."""
    found, waiting = [], [root]
    while waiting:
        item = waiting.pop()
        found.append(item)
        waiting.extend(reversed(item.children))
    return found
