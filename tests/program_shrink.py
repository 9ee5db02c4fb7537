"""Shrink a program that two libraries disagree on to the fewest and simplest statements."""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from program_runs import Difference, difference


def shrink(program: Sequence[str], budget: int = 3000) -> tuple[list[str], Difference]:
    """The smallest program found that differs in the same way."""
    best = list(program)
    found = difference(best)
    assert found is not None
    tried: set[str] = set()

    def better(candidate: list[str]) -> bool:
        nonlocal best, found, budget
        text = "\n".join(candidate)
        if text in tried or budget <= 0 or _size(candidate) >= _size(best):
            return False
        tried.add(text)
        budget -= 1
        new = difference(candidate)
        if new is None or found is None or new.kind != found.kind:
            return False
        best, found = candidate, new
        return True

    progress = True
    while progress:
        progress = False
        number = len(best) - 1
        while number >= 0:
            progress |= better(best[:number] + best[number + 1 :])
            number = min(number, len(best)) - 1
        number = len(best) - 1
        while number >= 0:
            # Several at once first, where one depends on the other.
            for other in range(number):
                if better([t for i, t in enumerate(best) if i not in (number, other)]):
                    progress = True
                    break
            number = min(number, len(best)) - 1
        for number in range(len(best)):
            again = True
            while again:
                again = any(
                    better([*best[:number], text, *best[number + 1 :]])
                    for text in _simpler(best, number)
                )
                progress |= again
    return best, found


def _size(program: Sequence[str]) -> tuple[int, ...]:
    lines = sum(t.count("\n") + 1 for t in program)
    text = "\n".join(program)
    names = set(re.findall(r"[a-z]\d+", text))
    nodes = sum(1 for t in program for _ in ast.walk(ast.parse(t)))
    return (
        lines,
        nodes,
        len(names),
        len(text),
        sum(int(n[1:]) for n in re.findall(r"[a-z]\d+", text)),
    )


def _simpler(program: Sequence[str], number: int) -> Iterator[str]:
    """Statements that could stand in place of one of a program."""
    tree = ast.parse(program[number])
    names = sorted(set(re.findall(r"\b[xv]\d+\b", "\n".join(program[:number]))))
    count = sum(1 for _ in ast.walk(tree))
    for place in range(count):
        for choice in range(40):
            copied = copy.deepcopy(tree)
            node = list(ast.walk(copied))[place]
            changed = _simplified(copied, node, choice, names)
            if changed is None:
                break
            try:
                yield ast.unparse(ast.fix_missing_locations(changed))
            except (ValueError, AttributeError, TypeError):
                continue


def _simplified(tree: Any, node: Any, choice: int, names: Sequence[str]) -> Any:
    """`tree` with `node` made simpler in the `choice`-th way; None if there are not so many."""
    ways: list[Callable[[], Any]] = []

    def instead(new: Any) -> Callable[[], Any]:
        return lambda: _Swap(node, new).visit(tree)

    def without(items: list[Any], item: Any) -> Callable[[], Any]:
        def change() -> Any:
            items.remove(item)
            return tree

        return change

    for field in ("body",):
        items = getattr(node, field, None)
        if isinstance(items, list) and len(items) > 1:
            ways += [without(items, item) for item in items]
    if isinstance(node, ast.With):
        ways.append(lambda: _Swap(node, node.body).visit(tree))
    if isinstance(node, ast.Assign):
        ways.append(lambda: _Swap(node, ast.Expr(node.value)).visit(tree))
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute):
            ways.append(instead(node.func.value))
        ways += [instead(a) for a in node.args if not isinstance(a, ast.Constant | ast.Lambda)]
        ways += [without(node.keywords, k) for k in node.keywords]
        ways += [without(node.args, a) for a in node.args]
    if isinstance(node, ast.BinOp):
        ways += [instead(node.left), instead(node.right)]
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
        ways.append(instead(node.value))
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
        ways.append(instead(node.value))
    if isinstance(node, ast.List | ast.Tuple) and isinstance(node.ctx, ast.Load):
        ways += [instead(e) for e in node.elts]
        if len(node.elts) > 1:
            ways += [without(node.elts, e) for e in node.elts]
    if isinstance(node, ast.UnaryOp):
        ways.append(instead(node.operand))
    if isinstance(node, ast.Constant) and isinstance(node.value, float) and node.value != 1:
        ways += [instead(ast.Constant(v)) for v in (1.0, 2.0, round(node.value, 1))]
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in names:
        ways += [instead(ast.Name(n, ast.Load())) for n in names if n != node.id]
    return ways[choice]() if choice < len(ways) else None


class _Swap(ast.NodeTransformer):
    def __init__(self, old: Any, new: Any) -> None:
        self.old, self.new = old, new

    def generic_visit(self, node: Any) -> Any:
        return self.new if node is self.old else super().generic_visit(node)
