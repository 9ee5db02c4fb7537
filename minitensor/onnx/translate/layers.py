"""Products of matrices, norms and softmax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..emit import Emitter, Tensor
from .table import TRANSLATIONS, translates


@translates("Matmul")
def matmul(g: Emitter, a: Tensor, b: Tensor) -> str:
    """a @ b, with NumPy's rules for the shapes."""
    return g.op("MatMul", a, b)


@translates("Linear")
def linear(g: Emitter, x: Tensor, w: Tensor, b: Tensor | None) -> str:
    """x wᵀ + b."""
    if x.ndim == 2 and not x.lengths:
        return g.op("Gemm", x, w, b, transB=1)
    y = g.op("MatMul", x, transposed(g, w))
    return y if b is None else g.op("Add", y, b)


def transposed(g: Emitter, w: Tensor) -> str:
    """Return the transpose of a matrix, made once for each weight."""
    return g.op("Transpose", w, perm=[1, 0])


@translates("Addmm")
def addmm(g: Emitter, x: Tensor, a: Tensor, b: Tensor, beta: float, alpha: float) -> str:
    """beta * x + alpha * (a @ b)."""
    product, dtype = g.op("MatMul", a, b), g.outs[0].dtype
    product = product if alpha == 1 else g.op("Mul", product, g.scalar(alpha, dtype))
    if beta == 0:
        return product
    return g.op("Add", x if beta == 1 else g.op("Mul", x, g.scalar(beta, dtype)), product)


TRANSLATIONS["Baddbmm"] = addmm


@translates("LayerNorm")
def layer_norm(
    g: Emitter, x: Tensor, weight: Tensor | None, bias: Tensor | None, *, dims: int, eps: float
) -> str:
    """(x - mean) / sqrt(var + eps) * weight + bias."""
    scale: Any = weight
    if weight is None:
        shape = x.shape[x.ndim - dims :]
        scale = g.op("Expand", g.constant(1, x.dtype), g.sizes(shape))
    return g.op("LayerNormalization", x, scale, bias, axis=-dims, epsilon=float(eps))


def _softmax(kind: str) -> Callable[..., str]:
    def translate(g: Emitter, x: Tensor, *, dim: int) -> str:
        if x.ndim:
            return g.op(kind, x, axis=dim)
        row = g.op(kind, g.op("Reshape", x, g.constant([1])), axis=0)
        return g.op("Squeeze", row, g.constant([0]))

    return translate


TRANSLATIONS.update(Softmax=_softmax("Softmax"), LogSoftmax=_softmax("LogSoftmax"))
