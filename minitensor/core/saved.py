"""Values kept for the backward pass, and the check that nobody changed them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .state import state
from .tensor import Tensor, wrap

if TYPE_CHECKING:
    from .op import Op


ndarray = np.ndarray


class SavedTensors:
    """Arrays kept for the backward pass, each with where it came from and the version it had.

    An origin is (edge or output number or None, version box, version); None for what is private to
    the op. An output is named by its number, because an edge to its own node would be a cycle.
    """

    __slots__ = ("origins", "values")

    def __init__(self, values: tuple[Any, ...], origins: list[Any] | None) -> None:
        self.values = values
        self.origins = origins

    @classmethod
    def of(
        cls,
        values: tuple[Any, ...],
        args: Sequence[Any],
        arrays: Sequence[Any],
        edges: Sequence[Any],
        outs: Sequence[Tensor],
    ) -> SavedTensors:
        """The bag of `values`, each traced to the argument or output whose array it is."""
        if ndarray not in map(type, values):  # settings alone: no origins
            return cls(values, [])
        origins: list[Any] = []
        for value in values:
            origin: Any = None
            if type(value) is ndarray:
                number = 0
                for array in arrays:
                    if array is value:
                        a = args[number]
                        if isinstance(a, Tensor):
                            box = a._version_box
                            origin = (edges[number], box, box[0] if box else _version(box))
                        break
                    number += 1
                else:
                    for number, out in enumerate(outs):
                        if out._array is value:
                            box = out._version_box or [0]
                            origin = (number, box, box[0])
            origins.append(origin)
        return cls(values, origins)

    @classmethod
    def of_arguments(
        cls, args: Sequence[Any], arrays: Sequence[Any], edges: Sequence[Any]
    ) -> SavedTensors:
        """The bag of all arguments."""
        origins: list[Any] = []
        for a, edge in zip(args, edges, strict=True):
            if isinstance(a, Tensor):
                box = a._version_box
                origins.append((edge, box, box[0] if box else _version(box)))
            else:
                origins.append(None)
        return cls(tuple(arrays), origins)

    @classmethod
    def of_tensors(
        cls,
        tensors: Sequence[Any],
        args: Sequence[Any] = (),
        edges: Sequence[Any] = (),
        outs: Sequence[Any] = (),
    ) -> SavedTensors:
        """The bag of tensors that a custom Function saved, which are known by themselves."""
        origins: list[Any] = []
        for t in tensors:
            if not isinstance(t, Tensor):
                origins.append(None)
                continue
            place: Any = next((number for number, out in enumerate(outs) if out is t), None)
            if place is None:
                place = next((e for a, e in zip(args, edges, strict=True) if a is t), None)
            box = t._version_box
            origins.append((place, box, box[0] if box else _version(box)))
        return cls(tuple(t._array if isinstance(t, Tensor) else t for t in tensors), origins)

    def open(self) -> SavedTensors:
        """Itself; a bag that a checkpoint emptied is filled again here."""
        return self

    def check(self, name: str) -> None:
        """RuntimeError if a tensor saved by the op of that name was changed in place since."""
        if not self.origins:
            return
        for value, origin in zip(self.values, self.origins, strict=True):
            if origin is None or origin[1] is None or origin[1][0] == origin[2]:
                continue
            whose = origin[0]
            if isinstance(whose, tuple):
                whose = f", which is output {whose[1]} of {whose[0].name()},"
            elif isinstance(whose, int):
                whose = f", which is output {whose} of {name},"
            else:
                whose = ""
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an "
                f"inplace operation: the {value.dtype} tensor of shape {tuple(value.shape)}{whose} "
                f"saved by {name} is at version {origin[1][0]}; expected version {origin[2]} "
                "instead. Clone it before changing it, or change it out of place."
            )

    def tensors(self, op: Op) -> tuple[Any, ...]:
        """The values, arrays as tensors; while recording, tied to the graph they came from."""
        if not state.grad or not self.origins:
            return tuple(wrap(v) if type(v) is ndarray else v for v in self.values)
        found: list[Any] = []
        for value, origin in zip(self.values, self.origins, strict=True):
            if type(value) is not ndarray:
                found.append(value)
                continue
            source = None if origin is None else origin[0]
            if isinstance(source, Tensor):
                found.append(source)
                continue
            t = wrap(value)
            if source is not None:
                t._edge = (op, source) if isinstance(source, int) else source
                t._requires_grad = True
                t._version_box = origin[1]
            found.append(t)
        return tuple(found)


def _version(box: list[int] | None) -> int:
    if box is None:
        raise RuntimeError(
            "Inference tensors cannot be saved for backward. To work around you can make a clone "
            "to get a normal tensor and use it in autograd."
        )
    return box[0]


def edge_for(t: Tensor) -> Any:
    """Where the gradient of `t` goes: an op's output, the leaf itself, or nowhere (None)."""
    if not t.requires_grad:
        return None
    edge = t.edge()
    if edge is None and not t._requires_grad:
        # A view made under no_grad requires grad as its base does, but its gradient goes nowhere.
        return t.detach()
    return t if edge is None else edge


FREED = SavedTensors((), None)
NOTHING = SavedTensors((), [])
