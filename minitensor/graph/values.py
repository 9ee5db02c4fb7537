"""The values of a recording: which one each tensor is, by the tensor, its array and its memory."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from types import FrameType
from typing import Any

import numpy as np

from ..core import Tensor
from ..nn import Parameter
from .data import Data, data_of, fitting
from .describe import describe, measure, memory_of
from .model import FunctionCall, Graph, Group

Late = Callable[[FrameType | None], None]  # makes the value of a tensor that no op made


class Values:
    """The values of `graph`, by the tensors that they were seen as.

    A tensor that no op made gets a value when it is first used. With `stats`, all are measured;
    with `limit`, what they hold is kept, in so many bytes.
    """

    def __init__(
        self,
        graph: Graph,
        stats: bool,
        name_of: Callable[[Tensor, FrameType], str],
        limit: int = 0,
    ) -> None:
        self.graph = graph
        self.kept: list[Any] = []  # kept alive, so that no id() is given twice
        self.tensors: dict[int, str] = {}  # ids of values by the id() of tensor, array, memory
        self.arrays: dict[int, str] = {}
        self.memory: dict[int, str] = {}
        self.late: dict[int, Late] = {}  # by the id() of tensors that are not used yet
        self.names: dict[int, str] = {}  # of those, where a variable has it
        self._stats = stats
        self.limit = limit
        self._name_of = name_of  # the variable of running functions that a tensor is in
        self._showing: defaultdict[int, list[int]] = defaultdict(list)  # tensors, by their array
        self._views: dict[int, Tensor] = {}  # views, the first of each array, by its id()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._waiting: list[tuple[Group | FunctionCall, int, Tensor]] = []  # arguments of no value

    def known(self, t: Tensor) -> str | None:
        """Return the value that a tensor is, None if it was not used yet."""
        if id(t) in self.late:
            return None
        return self.tensors.get(id(t)) or self.arrays.get(id(t._array))

    def was_there(self, key: str) -> bool:
        """Return True for a value that was there before the recording, and is no gradient."""
        value = self.graph.values[key]
        return value.producer is None and not value.origin and value.kind != "gradient"

    def of(self, t: Tensor, frame: FrameType | None = None) -> str:
        """Return the value that a tensor is, a new one if no recorded op made it.

        That has the name of the variable that the tensor is in, in `frame` or those outside.
        """
        late = self.late.pop(id(t), None)
        if late is not None:
            late(frame)
        return self.known(t) or self.source(t, frame)

    def source(self, t: Tensor, frame: FrameType | None, origin: str = "") -> str:
        """Add a tensor that was there before, or was made without any other, by `origin`."""
        leaf = isinstance(t, Parameter) or t.requires_grad
        kind = "parameter" if leaf else "constant"
        name = self.name(t, frame)
        key = name if name and f"{kind}:{name}" not in self.graph.values else ""
        if not key:
            self._counts[kind, name] += 1
            key = f"{name}{self._counts[kind, name]}"
        key = self.add(t, f"{kind}:{key}", kind, [name] if name else [])
        self.graph.values[key].origin = origin
        return key

    def name(self, t: Tensor, frame: FrameType | None) -> str:
        """Return the variable that a tensor is in, in `frame` or those outside, or was in."""
        return (self._name_of(t, frame) if frame else "") or self.names.get(id(t), "")

    def add(self, t: Tensor, key: str, kind: str, names: list[str], of: str | None = None) -> str:
        """Add a value, with the id `key` or, if another has that, one that begins with it."""
        array = t._array
        first, count = key, 1
        while key in self.graph.values:
            count += 1
            key = f"{first}#{count}"
        value = describe(key, kind, array.shape, array.dtype)
        value.names, value.of = names, of
        root = memory_of(array)
        owner = self.tensors.get(id(t._base)) if t._base is not None else None
        if owner is None and kind != "gradient":
            owner = self.memory.get(id(root))
        value.views = owner
        if self._stats:
            value.stats = measure(array)
        if self.limit:
            value.data = data_of(array, self.limit)
        self.graph.values[key] = value
        self.kept.append(root)
        self.memory.setdefault(id(root), key)
        known = self.arrays.get(id(array), key)
        self.again(t, key)
        self.arrays[id(array)] = known  # of detach's result, the array stays what it was
        return key

    def again(self, t: Tensor, key: str) -> None:
        """Note that a tensor, and its array, is a value that is there already."""
        self.late.pop(id(t), None)
        self.kept += [t, t._array]
        self.tensors[id(t)] = self.arrays[id(t._array)] = key
        self._showing[id(t._array)].append(id(t))
        if t._view is not None and t._view.base._array is not t._array:
            self._views.setdefault(id(t._array), t)

    def base(self, t: Tensor) -> Tensor | None:
        """Return the tensor that `t` is a view of, also if it is detached, or None."""
        view = self._views.get(id(t._array), t)
        return view._base if t._base is None else t._base

    def outdated(
        self, t: Tensor, again: Callable[[Tensor, FrameType | None], None]
    ) -> list[Tensor]:
        """Return the views of memory that a change of `t` in place has changed.

        `again(view, frame)` is called before one that shows the change is used, for a new value.
        """
        memory = memory_of(t._array)
        views = [view for view in self._views.values() if memory_of(view._array) is memory]
        for view in views:
            if view._array is not t._array and np.may_share_memory(view._array, t._array):
                for tensor in self._showing[id(view._array)]:
                    self.late[tensor] = partial(again, view)
        return views

    def changed(self, t: Tensor, key: str) -> None:
        """Note that the memory of a tensor, and of all that show it as a whole, is `key` now."""
        self.again(t, key)
        for tensor in self._showing[id(t._array)]:
            self.tensors[tensor] = key
            self.late.pop(tensor, None)

    def saved(self, key: str, array: np.ndarray) -> str:
        """Return the value that a saved array is, a new one, `key`, if it is of no tensor."""
        known = self.arrays.get(id(array)) or self.memory.get(id(memory_of(array)))
        if known is not None and self.graph.values[known].nbytes >= array.nbytes:
            return known
        self.graph.values[key] = describe(key, "saved", array.shape, array.dtype)
        if self.limit:
            self.graph.values[key].data = data_of(array, self.limit)
        self.kept += [array, memory_of(array)]
        self.arrays[id(array)] = key
        self.memory.setdefault(id(memory_of(array)), key)
        return key

    def given(self, call: Group | FunctionCall, arguments: Iterable[tuple[str, Tensor]]) -> None:
        """Note the tensors that a call is given, by the names of its parameters."""
        for name, t in arguments:
            known = self.known(t)
            if known is None:
                self.kept.append(t)
                self._waiting.append((call, len(call.inputs), t))
            call.inputs.append(known or "")
            call.input_names.append(name)

    def settle(self) -> None:
        """Complete what calls were given that had no value yet, but for what no op read."""
        for call, place, t in reversed(self._waiting):
            known = self.known(t)
            if known is None:
                del call.inputs[place], call.input_names[place]
            else:
                call.inputs[place] = known

    def leaves(self) -> list[Tensor]:
        """Return the leaves that require grad, of all tensors that were seen."""
        seen = {id(t): t for t in self.kept if isinstance(t, Tensor)}
        return [t for t in seen.values() if t._requires_grad and t._edge is None]


def fit(graph: Graph, limit: int) -> None:
    """Make the numbers of a graph take `limit` bytes together: sample those that are too large.

    Cells that were moved can be followed only between tensors that are whole.
    """
    data = [value.data for value in graph.values.values() if value.data is not None]
    most = fitting((d.array.nbytes for d in data), limit)
    for value in graph.values.values():
        if value.data is not None:
            value.data = value.data.sampled(most // max(value.data.array.itemsize, 1))
    for node in graph.nodes.values():
        if node.origins is not None and any(
            numbers.size != _whole(graph.values[out].data)
            for numbers, out in zip(node.origins.moved, node.outputs, strict=False)
        ):
            node.origins = None


def _whole(data: Data | None) -> int:
    """Return how many numbers are kept, -1 if that is a sample or nothing."""
    return -1 if data is None or data.at is not None else data.array.size
