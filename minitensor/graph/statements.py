"""Statements of Python, read as `expressions.py` reads what is in them."""

from __future__ import annotations

import ast
import copy
import sys
from collections.abc import Sequence
from typing import Any

from .expressions import LONGEST, Expressions, Frame, Local
from .sized import UNKNOWN, AllUnknown, Lost, Made

_CHANGING = {
    "append", "extend", "insert", "update", "pop", "add_module", "register_buffer",
    "register_parameter", "register_module", "setdefault", "__setattr__",
}  # fmt: skip


class Statements(Expressions):
    """Reads the statements of a function."""

    def block(self, body: Sequence[ast.stmt], frame: Frame) -> bool:
        """Read statements; return True if they left the function or a loop."""
        return any(self._statement(each, frame) for each in body)

    def _statement(self, node: ast.stmt, frame: Frame) -> bool:
        match node:
            case ast.Expr(value):
                self.value(value, frame)
            case ast.Assign(targets, value):
                found = self.value(value, frame)
                for target in targets:
                    self.assign(target, found, frame)
            case ast.AnnAssign(target, _, value):
                if value is not None:
                    self.assign(target, self.value(value, frame), frame)
            case ast.AugAssign(target, op, value):
                read: Any = copy.copy(target)
                read.ctx = ast.Load()
                now, more = self.value(read, frame), self.value(value, frame)
                self.assign(target, self.operate(op, now, more), frame)
            case ast.If(test, body, orelse):
                chosen = self.truth(self.value(test, frame))
                if chosen is UNKNOWN:
                    self._forget([*body, *orelse], frame)
                else:
                    return self.block(body if chosen else orelse, frame)
            case ast.For(target, each, body, orelse):
                return self._loop(target, each, body, orelse, frame)
            case ast.While(test, body):
                for _ in range(LONGEST):
                    chosen = self.truth(self.value(test, frame))
                    if chosen is UNKNOWN:
                        self._forget(body, frame)
                        break
                    if not chosen or self.block(body, frame):
                        break
                return False
            case ast.With(items, body):
                for item in items:
                    if item.optional_vars is not None:
                        self.assign(item.optional_vars, UNKNOWN, frame)
                return self.block(body, frame)
            case ast.Try(body, _, orelse, final):
                return self.block([*body, *orelse, *final], frame)
            case ast.Return(value):
                frame.result = None if value is None else self.value(value, frame)
                return True
            case ast.Assert(test):
                self.truth(self.value(test, frame))
            case ast.FunctionDef(name):
                plain = not node.decorator_list
                frame.names[name] = Local(node, frame) if plain else UNKNOWN
            case ast.Raise():
                raise Lost("it raises")
            case ast.Pass() | ast.Global() | ast.Nonlocal():
                pass
            case ast.Continue() | ast.Break():
                frame.names["*loop"] = isinstance(node, ast.Break)
                return True
            case ast.Import(names) | ast.ImportFrom(_, names):
                self._import(node, names, frame)
            case _:
                self._forget([node], frame)
        return False

    def _import(self, node: Any, names: list[ast.alias], frame: Frame) -> None:
        """Bind names that a function imports, if they are loaded already."""
        for alias in names:
            found: Any = UNKNOWN
            if isinstance(node, ast.Import):
                found = sys.modules.get(alias.name, UNKNOWN) if alias.asname else UNKNOWN
                found = sys.modules.get(alias.name.partition(".")[0], found)
            elif not node.level and node.module in sys.modules:
                found = getattr(sys.modules[node.module], alias.name, UNKNOWN)
            frame.names[alias.asname or alias.name.partition(".")[0]] = found

    def _loop(
        self,
        target: ast.expr,
        each: ast.expr,
        body: list[ast.stmt],
        orelse: list[ast.stmt],
        frame: Frame,
    ) -> bool:
        items = self.items(self.value(each, frame), quietly=True)
        if items is UNKNOWN:
            self._forget([ast.Assign([target], ast.Constant(None)), *body], frame)
            return False
        for item in items:
            self.assign(target, item, frame)
            if self.block(body, frame):
                ended = frame.names.pop("*loop", None)
                if ended is None:
                    return True  # a return
                if ended:
                    return False
        return self.block(orelse, frame)

    def _forget(self, body: Sequence[ast.stmt], frame: Frame) -> None:
        """Pass over statements that may have run or not: what they set is not known."""
        for node in (each for stmt in body for each in ast.walk(stmt)):
            if isinstance(node, ast.Return | ast.Yield | ast.YieldFrom):
                raise Lost("it may return")
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = self.value(node.func.value, frame, quietly=True)
                if node.func.attr in _CHANGING:
                    if isinstance(owner, Made):
                        owner.attributes = AllUnknown()
                    elif isinstance(owner, list | dict):
                        raise Lost("it may change")
            context = getattr(node, "ctx", None)
            if isinstance(context, ast.Store | ast.Del) and isinstance(node, ast.Name):
                frame.names[node.id] = UNKNOWN
            elif isinstance(context, ast.Store) and isinstance(node, ast.Attribute):
                owner = self.value(node.value, frame, quietly=True)
                if isinstance(owner, Made):
                    self.attributes(owner)[node.attr] = UNKNOWN
            elif isinstance(node, ast.FunctionDef):
                frame.names[node.name] = UNKNOWN
