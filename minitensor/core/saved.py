"""Saved tensors: arrays that a node keeps for the backward pass, checked for in-place changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .observe import state
from .tensor import Edge, Tensor, wrap

if TYPE_CHECKING:
    from .node import Node

ndarray = np.ndarray


# The tensor that a saved array was taken from: its place in the graph, its version counter, and the
# version then. The place is an edge, a leaf tensor itself, or None for a constant. An output of the
# node that saves it is named by its number alone: an edge to that node would be a reference cycle.
Origin = tuple[Any, list[int], int]


def origin_of(t: Tensor, source: Edge | Tensor | int | None) -> Origin:
    """Return the origin of an array saved from `t`; RuntimeError for an inference tensor."""
    box = t._version_box
    if box is None:
        raise RuntimeError(
            "Inference tensors cannot be saved for backward. To work around you can make a "
            "clone to get a normal tensor and use it in autograd."
        )
    return source, box, box[0]


class SavedTensors:
    """The values that a node saved: arrays with their origins, and plain settings between them.

    Arrays are kept, not tensors: a node that held its own output would keep itself alive. An array
    without an origin is private to the op and cannot be changed by others.
    """

    __slots__ = ("origins", "values")

    def __init__(self, values: tuple[Any, ...], origins: Sequence[Origin | None]) -> None:
        self.values = values
        self.origins = origins  # one for each value, or empty where no value has one

    @classmethod
    def of_rule(cls, values: Any, args: Any, arrays: Any, edges: Any, outs: Any) -> SavedTensors:
        """Return the saved `values` of a run, with the argument or output each array belongs to."""
        origins: list[Origin | None] = []
        for value in values if ndarray in map(type, values) else ():
            origin = None
            if type(value) is ndarray:
                number = 0
                for array in arrays:
                    if array is value:
                        if isinstance(args[number], Tensor):
                            origin = origin_of(args[number], edges[number])
                        break
                    number += 1
                else:
                    for number, out in enumerate(outs):
                        if out._array is value:
                            origin = origin_of(out, number)
            origins.append(origin)
        return cls(values, origins)

    def unpack(self) -> SavedTensors:
        """Return the saved tensors; those of a checkpoint are computed again here."""
        return self

    def operands(self) -> bool:
        """Return True if there is an array or a float among the values, not only settings."""
        return bool(self.origins) or float in map(type, self.values)

    def check(self, node: Node | str) -> None:
        """Raise RuntimeError if an array that `node` saved was changed in place since."""
        for number, origin in enumerate(self.origins):
            if origin is None or origin[1][0] == origin[2]:
                continue
            source, box, version = origin
            name, value = node if isinstance(node, str) else node.name(), self.values[number]
            whose = ""
            if isinstance(source, tuple):
                whose = f", which is output {source[1]} of {source[0].name()},"
            elif isinstance(source, int):
                whose = f", which is output {source} of {name},"
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an "
                f"inplace operation: the {value.dtype} tensor of shape {tuple(value.shape)}{whose} "
                f"saved by {name} is at version {box[0]}; expected version {version} instead. "
                "Clone it before changing it, or change it out of place."
            )

    def tensors(self, node: Node) -> tuple[Any, ...]:
        """Return the values, arrays as tensors; while recording, with their edges in the graph."""
        if not state.grad or not self.origins:
            return tuple(wrap(v) if type(v) is ndarray else v for v in self.values)
        found: list[Any] = []
        for value, origin in zip(self.values, self.origins, strict=True):
            source = None if origin is None else origin[0]
            if type(value) is not ndarray or isinstance(source, Tensor):
                found.append(value if source is None else source)
                continue
            t = wrap(value)
            if origin is not None and source is not None:
                t._edge = (node, source) if isinstance(source, int) else source
                t._requires_grad = True
                t._version_box = origin[1]
            found.append(t)
        return tuple(found)


NOTHING = SavedTensors((), ())  # of a node that saved nothing
FREED = SavedTensors((), ())  # of a node whose saved tensors were freed
