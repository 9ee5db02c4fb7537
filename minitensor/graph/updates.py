"""The end of a training step: gradients that are summed and clipped, and updated weights."""

from __future__ import annotations

from types import FrameType
from typing import Any

from ..core import Tensor
from ..nn.utils import clip
from ..optim import Optimizer
from .describe import note
from .frames import first_argument
from .model import ACCUMULATE
from .nodes import Nodes

_CLIPS = {f.__code__: f.__name__ for f in (clip.clip_grad_norm_, clip.clip_grad_value_)}
_GRADIENTS = clip._gradients.__code__
_ZERO = Optimizer.zero_grad.__code__


class Updates:
    """Makes nodes for the steps of optimizers and for clipping, and for sums of gradients."""

    def __init__(self, nodes: Nodes) -> None:
        self.changed: list[Any] = []  # leaves, whose gradients were changed, and optimizers
        self._nodes = nodes
        self._values = nodes.values
        self._clipped: list[Tensor] = []  # the gradients that are being clipped
        self._zeroed: set[int] = set()  # gradients whose numbers before no longer count
        self._step: tuple[FrameType, dict[int, tuple[str, int]]] | None = None

    def begins(self, frame: FrameType) -> None:
        """Note that a function begins: is it the `step` of an optimizer?"""
        optimizer = first_argument(frame)
        if self._step is None and isinstance(optimizer, Optimizer):
            self.changed.append(optimizer)
            before = {
                id(p): (self._values.of(p, frame), p._version)
                for group in optimizer.param_groups
                for p in group["params"]
            }
            self._step = frame, before
            self._nodes.updating += 1

    def returns(self, frame: FrameType, result: Any) -> None:
        """Note that a function returns."""
        code = frame.f_code
        if self._step is not None and frame is self._step[0]:
            self._stepped(frame, self._step[1])
            self._step = None
            self._nodes.updating -= 1
        elif code is _GRADIENTS and isinstance(result, list):
            self._clipped = result
        elif code in _CLIPS:
            self._was_clipped(_CLIPS[code], frame, result)
        elif code is _ZERO:
            for group in frame.f_locals["self"].param_groups:
                self._zeroed.update(id(p._grad) for p in group["params"] if p._grad is not None)

    def _stepped(self, frame: FrameType, before: dict[int, tuple[str, int]]) -> None:
        """Make a node for each weight that a step has changed."""
        optimizer: Optimizer = first_argument(frame)
        values = self._values.graph.values
        for p in (p for group in optimizer.param_groups for p in group["params"]):
            if p._grad is not None and p._version != before[id(p)][1]:
                self._values.of(p._grad)  # sums come before all updates
        for group in optimizer.param_groups:
            settings: dict[str, Any] = {}
            for name, x in group.items():
                if isinstance(x, bool | int | float | tuple) and x:
                    note(settings, name, x)
            for p in group["params"]:
                weight, version = before[id(p)]
                now = self._values.of(p)
                if now != weight:  # by ops, in an optimizer of the user's
                    values[now].of = weight
                    values[now].names = values[now].names or list(values[weight].names)
                elif p._version != version:
                    node = self._nodes.here(type(optimizer).__name__, frame)
                    node.attributes = dict(settings)
                    self._nodes.read(node, "param", weight)
                    if p._grad is not None:
                        self._nodes.read(node, "grad", self._values.of(p._grad))
                    self._nodes.enter(node)
                    now = self._nodes.made(node, p, "parameter", weight)
                    values[now].names, values[now].views = list(values[weight].names), None
                    self._values.changed(p, now)
                else:
                    continue
                self.changed.append(p)

    def wrote(self, before: str, now: str) -> None:
        """Note that the value `before` was changed in place: is it a weight, or a buffer?"""
        graph = self._values.graph
        weight = graph.values[graph.weight(before)]
        if weight.kind not in ("parameter", "buffer"):
            return
        value = graph.values[now]
        value.of, value.names = before, list(weight.names)
        node = graph.nodes.get(value.producer or "")
        if weight.kind == "parameter":
            value.kind = "parameter"
            if node is not None and node.direction == "forward":
                node.direction = "update"

    def _was_clipped(self, name: str, frame: FrameType, total: Any) -> None:
        """Make a node that reads and changes gradients."""
        if not self._clipped:
            return
        node = self._nodes.here(name, frame)
        node.direction, node.gradient = "update", False
        for argument in ("max_norm", "norm_type", "clip_value"):
            note(node.attributes, argument, frame.f_locals.get(argument))
        for g in self._clipped:
            self._nodes.read(node, "grad", self._values.of(g))
        self._nodes.enter(node)
        values = self._values.graph.values
        for g, before in zip(self._clipped, node.inputs, strict=True):
            now = self._nodes.made(node, g, "gradient", values[before].of)
            self._values.changed(g, now)
        if isinstance(total, Tensor):
            self._nodes.made(node, total)
        self.changed += [
            g for g, v in zip(self._clipped, node.inputs, strict=True) if self._values.was_there(v)
        ]
        self._clipped = []

    def accumulated(self, leaf: Tensor, parts: list[str], g: Tensor, frame: FrameType) -> None:
        """Note that `g`, the gradient of a leaf, has the sum of `parts`, and what it had before."""
        if self._values.was_there(self._values.of(leaf)):
            self.changed.append(leaf)
        known = None if id(g) in self._zeroed else self._values.known(g)
        self._zeroed.discard(id(g))
        parts = parts if known is None or known in parts else [known, *parts]
        if len(parts) == 1:
            self._values.late.pop(id(g), None)
            self._values.changed(g, parts[0])
            return
        graph = self._values.graph
        last = graph.nodes.get(graph.values[parts[-1]].producer or "")
        forward = graph.nodes.get((last and last.of) or "")
        node = self._nodes.here(ACCUMULATE, frame)
        node.direction = "backward"
        if forward is not None:  # the sum ends the backward of the op whose gradient came last
            node.of, node.group, node.function = forward.id, forward.group, forward.function

        def late(_: FrameType | None) -> None:
            self._nodes.read(node, "grad", *parts)
            self._nodes.enter(node)
            key = self._nodes.made(node, g, "gradient", self._values.of(leaf))
            self._values.changed(g, key)

        self._values.late[id(g)] = late
        self._values.kept.append(g)
