"""The headline of ops that are drawn as one box: the line that they run, or the variable they make.

"mask = (1.0 - mask) * -1e9", "loss = cross_entropy(...)", "apply_rotary", but not "view, view,
cross_entropy". A headline is rather short: long arguments become "...", and what is still too long
is left to the name of the variable. Nothing is cut in the middle of a word.
"""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from .model import Graph, Node

LONGEST = 40  # characters of a headline
MOST = 3  # names in one
LINES = 3  # of code that the last one of them may stand for

_SIZES = re.compile(r"(?<=\w)_(?=\d*[A-Z])[A-Z0-9]+\b")  # letters for axes, as in scores_NHLS
_PLACES = re.compile(r"\b(?:(?:mt|minitensor|torch|np|math|nn|functional|F|self)\.)+(?=[A-Za-z_])")


class Headlines:
    """Finds the headlines of a graph's ops."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._readers: dict[str, list[Node]] = defaultdict(list)
        self._lines: dict[str, Counter[str]] = defaultdict(Counter)  # the ops that each line ran
        for node in graph.nodes.values():
            if node.direction == "forward":
                for value in node.inputs:
                    self._readers[value].append(node)
                if node.inside is None:
                    self._lines[node.source][node.op] += 1

    def of(self, nodes: Iterable[Node], modules: bool = False, *around: str) -> str:
        """Return the headline of some ops, or "" if the code has no word for what they make.

        It is the function of the user's that all of them run in; else the line, or the call of a
        function, that makes what leaves them, if that is one tensor; else the names of all that
        leave them. If some belong to `modules`, whose names say more than that of a variable, only
        a line that they all are, or a call, will do. Functions `around` them say nothing new.
        """
        row = [node for node in nodes if node.inside is None]
        functions = {self.graph.function(node) for node in row}
        if len(functions) == 1 and functions.isdisjoint(["", *around]):
            return functions.pop()
        inside = {node.id for node in row}
        made = [value for node in row for value in node.outputs if self._leaves(value, inside)]
        if len(made) == 1:
            value = self.graph.values[made[0]]
            node = self.graph.nodes[value.producer or ""]
            function = self.graph.function(node)
            if function not in ("", *around) and value.name:
                call = f"{value.name} = {function}(...)"
                return call if len(call) <= LONGEST else value.name
            few = len({other.source for other in row}) <= (1 if modules else LINES)
            ran_by = self.graph.call(node.group, node.function)
            public = ran_by.name if ran_by is not None and ran_by.public else ""
            whole = few and self._is_whole(node.source, row)
            line = statement(node, value.names, public) if whole else ""
            if line:
                return line
        if modules and len({node.source for node in row}) <= LINES:
            return ""
        names = dict.fromkeys(self._called(value) for value in made)
        own = dict.fromkeys(name for value in made if (name := self.graph.values[value].name))
        if not own and len({node.source for node in row}) > 1:  # what the first lines make
            values = (self.graph.values[value] for node in row for value in node.outputs)
            names = dict.fromkeys(value.name for value in values if value.name)
        return _listed(list(names)) if own or len(names) > 1 else ""

    def _called(self, value: str) -> str:
        """Return the name of a tensor; without one, that of the function or op that makes it."""
        node = self.graph.nodes[self.graph.values[value].producer or ""]
        call = self.graph.call(node.group, node.function)
        function = call.name if call is not None and call.public else node.op
        return self.graph.values[value].name or function

    def _is_whole(self, source: str, row: list[Node]) -> bool:
        """Return True if a line never ran other ops than those in the row, however often it ran."""
        mine = Counter(node.op for node in row if node.source == source)
        every = self._lines[source]
        times = {every[op] / count for op, count in mine.items()}
        return len(times) == 1 and every.keys() == mine.keys()

    def _leaves(self, value: str, inside: set[str]) -> bool:
        """Return True for a tensor that something outside reads, or the caller."""
        readers = self._readers.get(value, ())
        return value in self.graph.outputs or any(
            node.id not in inside and node.inside not in inside for node in readers
        )


def statement(node: Node, names: Sequence[str], call: str = "") -> str:
    """Return the line of an op as a headline: "loss = cross_entropy(...)"; "" if it is not whole.

    The line must give the tensor one of its `names`, or return what this very op makes, or the
    public function `call` that ran it.
    """
    try:
        body = ast.parse(node.code).body
    except SyntaxError:  # a part of a statement, or the head of a block
        return ""
    if len(body) != 1 or "lambda" in node.code:
        return ""
    line = body[0]
    if isinstance(line, ast.Assign) and len(line.targets) == 1:
        targets: list[ast.expr] = line.targets
    elif isinstance(line, ast.AnnAssign | ast.AugAssign):
        targets = [line.target]
        if isinstance(line, ast.AnnAssign) and line.value is not None:
            line = ast.Assign(targets, line.value, lineno=1)
    elif isinstance(line, ast.Return) and line.value is not None and _makes(line.value, node, call):
        return _short(line.value)
    else:
        return ""
    return _short(line) if _bare(targets[0]) in names else ""


def _makes(expression: ast.expr, node: Node, call: str) -> bool:
    """Return True if the last thing that an expression does is the op, or the public function."""
    if isinstance(expression, ast.Call):
        called = ast.unparse(expression.func).rpartition(".")[2]
        return called.lower() in (node.op.lower(), call)
    return isinstance(expression, ast.BinOp | ast.UnaryOp | ast.Subscript | ast.Compare)


def _short(line: ast.AST) -> str:
    """Write a statement or an expression, arguments as "..." if it is too long; or "" if it is."""
    for shorten in (None, _Short()):
        text = _bare(shorten.visit(line) if shorten else line)
        if len(text) <= LONGEST:
            return text
    return ""


def _bare(line: ast.AST) -> str:
    """Write code without the places of functions, and names without letters for axes."""
    return _SIZES.sub("", _PLACES.sub("", ast.unparse(line)))


class _Short(ast.NodeTransformer):
    """Writes "..." for the arguments of every call."""

    def visit_Call(self, node: ast.Call) -> ast.Call:
        """Leave out the arguments, but not those of calls on the way to the function."""
        arguments: list[ast.expr] = [ast.Constant(...)] if node.args or node.keywords else []
        return ast.Call(self.visit(node.func), arguments, [])


def _listed(names: list[str]) -> str:
    """Write the first names of a row, as many as there is room for: "cos, sin", "q, k, v, ..."."""
    for count in range(min(len(names), MOST), 0, -1):
        text = ", ".join([*names[:count], *["..."] * (count < len(names))])
        if len(text) <= LONGEST:
            return text
    return ""
