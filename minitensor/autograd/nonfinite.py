"""The search for the first NaN or infinity: the op that made it, and the module it ran in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..core.op import Op
from ..core.state import enable_grad, module_path, state
from ..core.tensor import Tensor


def bad_value(values: Iterable[Any]) -> str:
    """Return "nan" if one of the tensors or numbers holds it, else "inf" likewise, else ""."""
    found = ""
    for x in values:
        array = x._array if isinstance(x, Tensor) else x
        if not isinstance(array, np.ndarray | np.generic | float):
            continue
        array = np.asarray(array)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            if np.isnan(array).any():
                return "nan"
            found = "inf"
    return found


class _Watch:
    """Sees every op of a forward and a backward pass; `found` tells of the first to go wrong."""

    def __init__(self) -> None:
        self.found = ""
        self._names: dict[Op, str] = {}

    def op(
        self, run: Op, args: Sequence[Any], kwargs: Mapping[str, Any], outs: Sequence[Tensor]
    ) -> None:
        path = module_path()
        self._names[run] = f"{run.op_name} in {path}" if path else f"{run.op_name} (in no module)"
        # A mask is infinite on purpose: it is made apart, and what it is added to is infinite too.
        made = [t for t in outs if t.requires_grad]
        self._judge(f"{self._names[run]} made", [*args, *kwargs.values()], made)

    def enter_backward(self, run: Op, grads: Sequence[Tensor | None]) -> None:
        self._judge(f"the gradients of what {self._names[run]} gave add up to", (), grads)

    def leave_backward(self, run: Op, dins: Sequence[Tensor | None]) -> None:
        self._judge(f"the backward of {self._names[run]} made", (), dins)

    def same(self, before: Tensor, target: Tensor) -> None:
        pass

    def assigned(self, target: Tensor, out: Tensor) -> None:
        pass

    def _judge(self, who: str, taken: Sequence[Any], made: Sequence[Any]) -> None:
        if self.found:
            return
        value = bad_value(made)
        if value and bad_value(taken) in ("", "inf" if value == "nan" else ""):
            self.found = f"{who} the first {value}"


def find_nonfinite(parameters: Mapping[str, Tensor], compute: Callable[[], Tensor]) -> str:
    """Return a clause on what first made a NaN or an infinity on the way to a loss and back.

    `compute` gives the loss, and is run once more for this; `parameters` are those of the model,
    by name, and their gradients are replaced.
    """
    for name, parameter in parameters.items():
        if value := bad_value([parameter]):
            return f"the update before made {name} {value}"
        parameter.grad = None
    watch = _Watch()
    state.set(recorder=watch)
    try:
        with enable_grad():
            loss = compute()
            if not bad_value([loss]):
                loss.backward()
    finally:
        state.set(recorder=None)
    for name, parameter in parameters.items():
        if not watch.found and (value := bad_value([parameter.grad])):
            return f"the gradients of {name} add up to {value}"
    if not watch.found and (value := bad_value([loss])):
        return f"an infinite number that an op was given led to {value}"
    return watch.found or "the norm of all gradients is too large for their type"
