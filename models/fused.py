"""Modules as kernels: what the models for use alone share (`bert_fused`, `transformer_fused`).

Each part computes the function of a module in evaluation, on arrays and without gradients, by the
kernels that the ops call. It reads the arrays of the parameters, so what is changed in place counts
here too; but another array of a parameter does not, and a product with some tens of rows may read
its weight from a copy (`kernels.panels`), so whoever keeps parts has a `Watch` for changes, and
then makes new ones.

Every call takes `keep`, which returns its first argument: `Program.keep`, to record what is called,
or `kept`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

import minitensor as mt
from minitensor import Tensor, nn
from minitensor.core.observe import state as thread
from minitensor.kernels import linear as kernel
from minitensor.kernels import norm as norm_kernel
from minitensor.kernels.attention import attention
from minitensor.kernels.panels import LEAST, MOST, Panels, rounded

Keep = Callable[..., np.ndarray]


def kept(array: np.ndarray, *others: np.ndarray) -> np.ndarray:
    """Return the first array."""
    return array


def observed() -> bool:
    """Return True if something else than `inference_mode` sees the ops that run."""
    return len(thread.observers) > mt.is_inference_mode_enabled()


def modules_of(*roots: Any) -> list[Any]:
    """Return modules and all that are inside, in a third of the time of `modules()`."""
    found = [root for root in roots if root is not None]
    for module in found:
        found += filter(None, module._modules.values())
    return found


def parameters_of(modules: Iterable[Any]) -> list[nn.Parameter]:
    """Return the parameters of modules themselves."""
    return [p for module in modules for p in module._parameters.values() if p is not None]


class Watch:
    """Tells when one of the parameters has changed.

    It notices what their version counters notice, ops in place, optimizers and `load_state_dict`,
    and another array as `.data`; not what is written into the array that `.data` or `numpy()`
    gives, which no counter counts.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self._parameters = list(parameters)
        self._look()

    def _look(self) -> None:
        self._seen = [
            (p, p._array, p._version_box, p._version_box and p._version_box[0])
            for p in self._parameters
        ]

    def changed(self) -> bool:
        """Return True if that was so since the last call, or since this was made."""
        for p, array, box, version in self._seen:
            if p._array is not array or p._version_box is not box or (box and box[0] != version):
                self._look()
                return True
        return False


class Linear:
    """x w^T + b: (M, E) -> (M, F).

    With `repeated`, for a model that lasts, the weight is read from panels where that is quicker.
    """

    def __init__(self, weight: np.ndarray, bias: np.ndarray | None, repeated: bool = False) -> None:
        self.weight, self.bias, self.repeated = weight, bias, repeated
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
        if not (self.repeated and LEAST <= rows <= MOST):
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
        y, total, stats = norm_kernel.norm(
            self.centre, x, 1, self.weight, self.bias, self.eps, residual
        )
        keep(y, total, stats)
        return y, total


class Attention:
    """Self-attention of H heads over whole texts, of the tokens of all of them: (M, E) -> (M, E).

    `projection` is that of queries, keys and values side by side.
    """

    def __init__(self, projection: Linear, output: Linear, nhead: int) -> None:
        self.projection, self.output, self.nhead = projection, output, nhead

    def __call__(self, x: np.ndarray, texts: int, bias: np.ndarray | None) -> np.ndarray:
        """Attend in so many texts, with `bias` (N, 1, 1, L) on the scores."""
        M, E = x.shape
        H, K, N = self.nhead, E // self.nhead, texts
        qkv = self.projection(kept, x).reshape(N, M // N, 3, H, K)
        heads_NLHK = np.empty((N, M // N, H, K), x.dtype)
        attention(
            heads_NLHK.transpose(0, 2, 1, 3), tuple(qkv.transpose(2, 0, 3, 1, 4)), bias,
            False, 1 / math.sqrt(K), 0.0, 0,
        )  # fmt: skip
        return self.output(kept, heads_NLHK.reshape(M, E))


class FeedForward:
    """narrow(f(wide(x))), f one of `kernels.activation`: (M, E) -> (M, E)."""

    def __init__(self, wide: Linear, activation: str, narrow: Linear) -> None:
        self.wide, self.activation, self.narrow = wide, activation, narrow

    def __call__(self, keep: Keep, x: np.ndarray) -> np.ndarray:
        """Compute it."""
        return self.narrow(keep, self.wide.activated(keep, x, self.activation))


def run(
    keep: Keep,
    x: np.ndarray,
    sublayers: Iterable[Callable[[np.ndarray], np.ndarray]],
    norms: Sequence[Norm],
    norm_first: bool,
) -> np.ndarray:
    """Return x (M, E) after sub-layers, each with a sum and its norm; a last norm is the stack's.

    Pre-norm: x + sublayer(norm(x)). Post-norm: norm(x + sublayer(x)). A norm is one pass with the
    sum before it.
    """
    rest = iter(norms)
    y = next(rest)(keep, x)[0] if norm_first else x
    for sublayer in sublayers:
        y, total = next(rest)(keep, sublayer(y), x)
        x = total if norm_first else y
    for norm in rest:
        y, _ = norm(keep, x)
    return y
