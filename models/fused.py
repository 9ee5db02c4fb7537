"""Modules as kernels: what the models for use alone share (`bert_fused`, `transformer_fused`).

Each part computes the function of a module in evaluation, on arrays and without gradients, by the
kernels that the ops call. It reads the arrays of the parameters, so what is changed in place counts
here too; but a product with some tens of rows reads its weight from a copy (`kernels.panels`), so
whoever keeps parts has a `Watch` for changes, and then makes new ones.

Every call takes `keep`, which returns its first argument: `Program.keep`, to record what is called,
or `kept`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

import minitensor as mt
from minitensor import Tensor, nn
from minitensor.core.observe import state as thread
from minitensor.kernels import linear as kernel
from minitensor.kernels import norm as norms
from minitensor.kernels.panels import Panels, rounded

Keep = Callable[..., np.ndarray]
# Rows of a product between which panels pay: for fewer, the weight is read at the speed of memory
# as it is, and for more, packing it is little beside the product.
LEAST, MOST = 8, 256


def kept(array: np.ndarray, *others: np.ndarray) -> np.ndarray:
    """Return the first array."""
    return array


def observed() -> bool:
    """Return True if something else than `inference_mode` sees the ops that run."""
    return len(thread.observers) > mt.is_inference_mode_enabled()


class Watch:
    """Tells when one of the parameters has changed.

    It notices what their version counters notice, ops in place, optimizers and `load_state_dict`,
    and another array as `.data`; not what is written into the array that `.data` or `numpy()`
    gives, which no counter counts.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self._parameters = list(parameters)
        self._seen = self._look()

    def _look(self) -> list[Any]:
        return [(p._array, p._version_box and p._version_box[0]) for p in self._parameters]

    def changed(self) -> bool:
        """Return True if that was so since the last call, or since this was made."""
        before, self._seen = self._seen, self._look()
        return any(
            old[0] is not new[0] or old[1] != new[1]
            for old, new in zip(before, self._seen, strict=True)
        )


class Linear:
    """x w^T + b: (M, E) -> (M, F)."""

    def __init__(self, weight: np.ndarray, bias: np.ndarray | None) -> None:
        self.weight, self.bias = weight, bias
        self._panels: Panels | None = None

    def __call__(self, keep: Keep, x: np.ndarray) -> np.ndarray:
        """Compute it."""
        return keep(kernel.linear(x, self._layout(len(x)), self.bias))

    def activated(self, keep: Keep, x: np.ndarray, kind: str) -> np.ndarray:
        """Apply an activation, one of `kernels.activation`, to it."""
        layout = self._layout(len(x))
        return keep(kernel.linear_activation(x, layout, self.bias, kind, 0.0, 0, alone=True)[0])

    def _layout(self, rows: int) -> np.ndarray | Panels:
        """Return the weight as a product of so many rows reads it best."""
        if not LEAST <= rows <= MOST:
            return self.weight
        if self._panels is None or self._panels.rounded != rounded(self.weight.dtype):
            self._panels = Panels(self.weight)
        return self._panels


class Norm:
    """A layer norm or RMS norm: (M, E) -> (M, E)."""

    def __init__(self, norm: Any) -> None:
        self.centre = isinstance(norm, nn.LayerNorm)
        self.weight = norm.weight._array
        self.bias = norm.bias._array if self.centre else np.zeros_like(self.weight)
        self.eps = float(np.finfo(self.weight.dtype).eps if norm.eps is None else norm.eps)

    def __call__(
        self, keep: Keep, x: np.ndarray, residual: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the norm of residual + x, and the sum."""
        y, total, stats = norms.norm(self.centre, x, 1, self.weight, self.bias, self.eps, residual)
        keep(y, total, stats)
        return y, total
