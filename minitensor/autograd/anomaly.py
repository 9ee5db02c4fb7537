"""Anomaly detection: find the op, and the line of the user's code, that makes a gradient NaN."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import numpy as np

from ..core import Node, Observer, Tensor
from ..dtype import FLOATING
from ..errors import is_library
from .grad_mode import observe


class _Anomaly(Observer):
    """Notes the line of each recorded op, and looks for NaN among the gradients."""

    def __init__(self) -> None:
        self.lines: WeakKeyDictionary[Node, str] = WeakKeyDictionary()
        self.made_nan: WeakSet[Node] = WeakSet()

    def ran(
        self, node: Node, args: Sequence[Any], kwargs: Mapping[str, Any], outs: Sequence[Tensor]
    ) -> None:
        if node.recorded:
            self.lines[node] = user_line()
            if _has_nan(outs) and not _has_nan(args):
                self.made_nan.add(node)

    def backward_ended(self, node: Node, grads: Sequence[Tensor | None]) -> None:
        for number, g in enumerate(grads):
            if not _has_nan([g]):
                continue
            unknown = "an unrecorded line: enter detect_anomaly before the forward pass"
            line = self.lines.get(node, unknown)
            first = self._first_nan(node)
            advice = ""
            if first is not None:
                advice = (
                    f" The first NaN was made going forward, by {first.op_name} at "
                    f"{self.lines[first]}."
                )
            raise RuntimeError(
                f"Function '{node.name()}' returned nan values in its {number}th output. "
                f"The forward op is {node.op_name}, called at {line}.{advice}"
            )

    def _first_nan(self, node: Node) -> Node | None:
        """Return the earliest node before `node` that turned numbers into NaN going forward."""
        first: Node | None = None
        seen, stack = {node}, [node]
        while stack:
            here = stack.pop()
            if here in self.made_nan and (first is None or here.sequence_nr < first.sequence_nr):
                first = here
            for edge in here.edges:
                if type(edge) is tuple and edge[0] not in seen:
                    seen.add(edge[0])
                    stack.append(edge[0])
        return first


_ANOMALY = _Anomaly()


class detect_anomaly(observe):
    """Find the op that made the first NaN: `backward` raises, naming the op and its source line."""

    def __init__(self, mode: bool = True) -> None:
        super().__init__(_ANOMALY if mode else None, without=_Anomaly)


def _has_nan(values: Sequence[Any]) -> bool:
    """Return True if one of the tensors among `values` has a NaN in it."""
    return any(
        isinstance(t, Tensor) and t._array.dtype.kind in FLOATING and bool(np.isnan(t._array).any())
        for t in values
    )


def user_line() -> str:
    """Return the innermost running line outside this package, as "file:line: source"."""
    frame = sys._getframe(1)
    while frame.f_back is not None and is_library(frame.f_code.co_filename):
        frame = frame.f_back
    found = traceback.extract_stack(frame, limit=1)[0]
    return f"{found.filename}:{found.lineno}: {found.line}"
