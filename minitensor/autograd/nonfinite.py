"""The search for the first NaN or infinity: the op that made it, and the module it ran in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..core import Node, Observer, Tensor
from ..dtype import FLOATING
from ..errors import module_path
from .grad_mode import enable_grad, observe


def bad_value(values: Iterable[Any]) -> str:
    """Return "nan" if one of the tensors or numbers holds it, else "inf" likewise, else ""."""
    found = ""
    for x in values:
        array = x._array if isinstance(x, Tensor) else x
        if not isinstance(array, np.ndarray | np.generic | float):
            continue
        array = np.asarray(array)
        if array.dtype.kind in FLOATING and not np.isfinite(array).all():
            if np.isnan(array).any():
                return "nan"
            found = "inf"
    return found


class _Watch(Observer):
    """Sees every op of a forward and a backward pass; `found` names the first to go wrong."""

    sees_writes = True

    def __init__(self) -> None:
        self.found = ""
        self._names: dict[Node, str] = {}

    def ran(
        self, node: Node, args: Sequence[Any], kwargs: Mapping[str, Any], outs: Sequence[Tensor]
    ) -> None:
        path = module_path()
        self._names[node] = f"{node.op_name} {f'in {path}' if path else '(in no module)'}"
        # A mask is infinite on purpose: it needs no gradient, and sums with it are infinite too.
        made = [t for t in outs if t.requires_grad]
        self._judge(f"{self._names[node]} made", [*args, *kwargs.values()], made)

    def backward_begins(self, node: Node, grads: Sequence[Tensor | None]) -> None:
        who = f"the gradients of what {self._name(node)} gave add up to"
        self._judge(who, (), grads)

    def backward_ended(self, node: Node, grads: Sequence[Tensor | None]) -> None:
        self._judge(f"the backward of {self._name(node)} made", (), grads)

    def _name(self, node: Node) -> str:
        return self._names.get(node, node.op_name)  # a change through a view does not run as an op

    def _judge(self, who: str, taken: Sequence[Any], made: Sequence[Any]) -> None:
        if self.found:
            return
        value = bad_value(made)
        if value and bad_value(taken) in ("", "inf" if value == "nan" else ""):
            self.found = f"{who} the first {value}"


def find_nonfinite(parameters: Mapping[str, Tensor], compute: Callable[[], Tensor]) -> str:
    """Return a clause that names the first op of a training step to make a NaN or an infinity.

    `compute` gives the loss, and is run once more for this; `parameters` are those of the model,
    by name, and their gradients are replaced.
    """
    for name, parameter in parameters.items():
        if value := bad_value([parameter]):
            return f"the update before made {name} {value}"
        parameter.grad = None
    watch = _Watch()
    with observe(watch), enable_grad():
        loss = compute()
        if not bad_value([loss]):
            loss.backward()
    for name, parameter in parameters.items():
        if not watch.found and (value := bad_value([parameter.grad])):
            return f"the gradients of {name} add up to {value}"
    if not watch.found and (value := bad_value([loss])):
        return f"an infinite number that an op was given led to {value}"
    return watch.found or "the norm of all gradients is too large for their type"
