"""Linear maps, alone or fused with the activation and dropout that follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from .. import memory, random
from ..core import Op, Tensor
from ..kernels import activation as activations
from ..kernels import linear as kernel
from ..kernels import matmul as products
from ..kernels import parallel
from .activation import Gelu, Relu, Silu
from .checks import check_one_dtype, check_one_float_dtype, check_tensors
from .dropout import Dropout, kept
from .matmul import Matmul, rows_of
from .places import at, places
from .samples import Rand, Samples


def _check_linear(x: np.ndarray, w: np.ndarray, b: np.ndarray | None) -> None:
    """Raise RuntimeError unless x, a weight matrix and a bias fit together."""
    if not x.ndim:
        raise RuntimeError("input needs at least 1 dimension, it is a scalar")
    check_one_dtype(*((x, w) if b is None else (x, w, b)))
    if x.shape[-1] != w.shape[1]:
        hint = ". Is the weight transposed? It is (out, in)" if x.shape[-1] == len(w) else ""
        raise RuntimeError(
            f"the input has {x.shape[-1]} features, the weight takes {w.shape[1]}: "
            f"{x.shape} @ {w.shape[::-1]}{hint}"
        )


def product(x: str, ndim: int, w: str, b: np.ndarray | None, rows: str = "") -> str:
    """Return the cell of x wᵀ + b; its last letter, plus `rows`, is the row of w."""
    *place, last = places(ndim)
    last += rows
    total = f"sum({at(x, [*place, ':'])} * {w}[{last}, :])"
    return total if b is None else f"{total} + b[{last}]"


def linear_backward(
    dy: np.ndarray,
    x: np.ndarray | None,
    w: np.ndarray | None,
    needs_bias: bool,
    sums: Mapping[int, np.ndarray],
) -> tuple[np.ndarray | None, ...]:
    """Return dx, dw and db of y = x wᵀ + b; dx is None without w, dw without x.

    dx is added to `sums[0]` and dw to `sums[1]`, if there.
    """
    rows = rows_of(dy)
    dx = dw = db = None
    if w is not None:
        if dy.ndim > 1:
            dx = products.matmul(dy, w, sums.get(0), accumulate=0 in sums)
        else:
            dx = products.matmul(rows, w)[0]
    if x is not None:
        db = memory.empty(dy.shape[-1:], dy.dtype) if needs_bias else None
        dw = products.matmul(rows.T, rows_of(x), sums.get(1), None, 1 in sums, db)
    elif needs_bias:
        db = rows.sum(0)
        parallel.recording.miss()
    return dx, dw, db


class Linear(Op):
    """y = x wᵀ + b: (*, E), (F, E), (F) -> (*, F).  dx = dy w, dw = dyᵀ x, db = the sum of dy.

    In dw and db the leading dimensions count as one. `bias` may be None.
    """

    native = True
    one_type = True
    namespaces = "functional"
    fused = True
    fresh = True
    adds = True

    @staticmethod
    def call(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        check_tensors("linear", input=input, weight=weight)
        shape = weight._array.shape
        if len(shape) != 2 or (bias is not None and bias._array.shape != shape[:1]):
            if bias is not None and (weight.ndim < 2 or bias.ndim > max(input.ndim, 2)):
                raise RuntimeError(
                    f"linear: with a bias of shape {tuple(bias.shape)}, weight must be a matrix "
                    f"(out, in), its shape is {tuple(weight.shape)}"
                )
            y = Matmul.call(input, weight.t())
            return y if bias is None else y + bias.expand(y.shape)
        return Linear.apply(input, weight, bias)

    def forward(ctx, x: np.ndarray, w: np.ndarray, b: np.ndarray | None) -> np.ndarray:
        _check_linear(x, w, b)
        needs_x, needs_w, _ = ctx.needs_input_grad
        ctx.save(x if needs_w else None, w if needs_x else None)
        y = kernel.linear(x if x.ndim > 1 else x[None], w, b)
        return y if x.ndim > 1 else y[0]

    @staticmethod
    def cell(x: np.ndarray, w: np.ndarray, b: np.ndarray | None) -> str:
        return product("x", x.ndim, "w", b)

    def backward(ctx, dy: np.ndarray) -> tuple[np.ndarray | None, ...]:
        x, w = ctx.saved
        return linear_backward(dy, x, w, ctx.needs_input_grad[2], ctx.sums)

    @staticmethod
    def flops(args: Sequence[Any], kwargs: Any, outs: Sequence[Tensor]) -> int:
        return 2 * outs[0].numel() * args[0].size(-1)

    @staticmethod
    def backward_flops(
        args: Sequence[Any], kwargs: Any, outs: Sequence[Tensor], needs: Sequence[bool]
    ) -> int:
        return sum(needs[:2]) * Linear.flops(args, kwargs, outs)  # dx and dw: each as much

    @staticmethod
    def decomposition(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        y = input @ weight.t()
        return y if bias is None else y + bias

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2, 3), rand(4, 3), rand(4)
        yield rand(2, 3), rand(4, 3)
        yield rand(3), rand(4, 3), rand(4)
        yield rand(2, 5, 3), rand(4, 3), rand(4)
        yield rand(2, 0, 3), rand(4, 3), rand(4)
        yield rand(2, 0), rand(4, 0), rand(4)
        yield rand.constant(2, 3), rand(4, 3), rand(4)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(2, 3), rand(3, 4)
        yield rand(2, 3), rand(4, 3), rand(3)
        yield rand(), rand(4, 3)
        yield rand(2, 3), rand(4, 3, 2)
        yield rand(2, 3), rand.integers(0, 5, 4, 3)


class LinearActivation(Op):
    """y = dropout(f(x wᵀ + b)): (*, E), (F, E), (F) -> (*, F), f relu, gelu, gelu_tanh or silu.

    As `linear`, the activation and `dropout` in turn, without a pass over memory for either. With
    z = x wᵀ + b and dz = dropout(dy) * f'(z): dx = dz w, dw = dzᵀ x, db = the sum of dz. ValueError
    for another activation or p outside [0, 1].
    """

    native = True
    one_type = True
    namespaces = "functional"
    fused = True
    saves = ("x", "w", "before the activation")
    torch_name = None
    fresh = True
    adds = True

    @staticmethod
    def call(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        activation: str = "relu",
        p: float = 0.0,
        training: bool = True,
    ) -> Tensor:
        if activation not in _ACTIVATIONS:
            raise ValueError(
                f"linear_activation: activation must be one of {', '.join(_ACTIVATIONS)}, "
                f"got {activation!r}"
            )
        drops = training and p > 0
        if (
            weight.ndim != 2
            or (drops and (p == 1 or random.uses_torch_dropout()))
            or p < 0
            or p > 1
        ):
            y = _ACTIVATIONS[activation](Linear.call(input, weight, bias))
            return Dropout.call(y, p, training)
        size = input._array.size // max(1, weight._array.shape[1]) * weight._array.shape[0]
        key = random.default_generator.key(size) if drops else 0
        return LinearActivation.apply(
            input, weight, bias, kind=activation, p=p if drops else 0.0, key=key
        )

    def forward(
        ctx, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, *, kind: str, p: float, key: int
    ) -> np.ndarray:
        _check_linear(x, w, b)
        y, z = kernel.linear_activation(x, w, b, kind, p, key)
        ctx.save(x, w, z, kind, p, key)
        return y

    @staticmethod
    def cell(
        x: np.ndarray, w: np.ndarray, b: np.ndarray | None, *, kind: str, p: float, key: int
    ) -> str:
        z = product("x", x.ndim, "w", b)
        y = f"max({z}, 0)" if kind == "relu" else f"{kind}({z})"
        if kind == "gelu_tanh":
            y = f"({z}) * (1 + tanh(sqrt(2 / pi) * ({z} + 0.044715 * ({z}) ** 3))) / 2"
        return f"{y} / (1 - p) if kept else 0" if p else y

    @staticmethod
    def hidden(
        x: np.ndarray, w: np.ndarray, b: np.ndarray | None, *, kind: str, p: float, key: int
    ) -> dict[str, np.ndarray]:
        return kept((*x.shape[:-1], len(w)), p, key)

    def backward(ctx, dy: np.ndarray) -> tuple[np.ndarray | None, ...]:
        x, w, z, kind, p, key = ctx.saved
        needs_x, needs_w, needs_bias = ctx.needs_input_grad
        dz = activations.differentiate(kind, z, dy, p, key)
        x, w = x if needs_w else None, w if needs_x else None
        return linear_backward(dz, x, w, needs_bias, ctx.sums)

    flops = staticmethod(Linear.flops)
    backward_flops = staticmethod(Linear.backward_flops)

    @staticmethod
    def decomposition(
        x: Tensor, w: Tensor, b: Tensor | None, *, kind: str, p: float, key: int
    ) -> Tensor:
        y = _ACTIVATIONS[kind](Linear.call(x, w, b))
        return Dropout.apply(y, p, key) if p else y

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2, 3), rand(4, 3), rand(4), "gelu"
        yield rand(2, 5, 3), rand(4, 3), None, "silu"
        yield rand(2, 3), rand(4, 3), rand(4), "gelu_tanh"
        yield rand(3), rand(4, 3), rand(4), "gelu"
        yield rand(2, 0, 3), rand(4, 3), rand(4), "gelu"
        yield rand(2, 3), rand(4, 3), rand(4)


_ACTIVATIONS = {
    "relu": Relu.call,
    "gelu": Gelu.call,
    "gelu_tanh": partial(Gelu.call, approximate="tanh"),
    "silu": Silu.call,
}


class InProjectionPacked(Op):
    """q = query w₁ᵀ and kv = memory w₂ᵀ, for attention to a memory.

    (*, L, E), (*, S, E), (3E, E), (3E) -> (*, L, E), (*, S, 2E): the first E rows of `weight` are
    w₁, the others w₂; `bias` is added if given.

    dquery = dq w₁, dmemory = dkv w₂, dweight = [dqᵀ query; dkvᵀ memory] (3E, E), and dbias the sums
    of dq and dkv over all but the last dimension (3E).

    RuntimeError for types or shapes that do not fit.
    """

    native = True
    namespaces = "functional"
    fused = True
    torch_name = None
    fresh = True
    adds = True

    @staticmethod
    def call(
        query: Tensor, memory: Tensor, weight: Tensor, bias: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        check_one_float_dtype("in_projection_packed", query=query, memory=memory, weight=weight)
        w = weight._array.shape
        wrong = (
            len(w) != 2
            or w[0] % 3
            or min(query.ndim, memory.ndim) < 2
            or query._array.shape[-1] != w[1]
            or memory._array.shape[-1] != w[1]
            or (bias is not None and bias._array.shape != w[:1])
        )
        if wrong:
            raise RuntimeError(
                "in_projection_packed: expected query (..., L, E), memory (..., S, E), weight "
                f"(3E, E) and bias (3E) or None, got {tuple(query.shape)}, {tuple(memory.shape)}, "
                f"{w} and {None if bias is None else tuple(bias.shape)}"
            )
        return InProjectionPacked.apply(query, memory, weight, bias)

    def forward(
        ctx, query: np.ndarray, memory: np.ndarray, w: np.ndarray, b: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        ctx.save(query, memory, w)
        width = len(w) // 3
        b1, b2 = (None, None) if b is None else (b[:width], b[width:])
        q = products.matmul(query, w[:width].T, bias=b1)
        return q, products.matmul(memory, w[width:].T, bias=b2)

    @staticmethod
    def cell(
        query: np.ndarray, memory: np.ndarray, w: np.ndarray, b: np.ndarray | None
    ) -> tuple[str, str]:
        return (
            product("query", query.ndim, "w", b),
            product("memory", memory.ndim, "w", b, f" + {len(w) // 3}"),
        )

    def backward(ctx, dq: np.ndarray, dkv: np.ndarray) -> tuple[np.ndarray | None, ...]:
        query, source, w = ctx.saved
        needs_query, needs_memory, needs_w, needs_b = ctx.needs_input_grad
        width = len(w) // 3
        parts = ((dq, query, slice(width)), (dkv, source, slice(width, None)))
        sums = ctx.sums
        adds = 2 in sums
        dw = sums[2] if adds else memory.empty(w.shape, w.dtype) if needs_w else None
        db = memory.empty(len(w), w.dtype) if needs_b else None
        for dy, x, part in parts:
            rows = rows_of(dy)
            if dw is not None:
                row_sums = None if db is None else db[part]
                products.matmul(rows.T, rows_of(x), dw[part], None, adds, row_sums)
            elif db is not None:
                rows.sum(0, out=db[part])
                parallel.recording.miss()
        return (
            products.matmul(dq, w[:width], sums.get(0), None, 0 in sums) if needs_query else None,
            products.matmul(dkv, w[width:], sums.get(1), None, 1 in sums) if needs_memory else None,
            dw,
            db,
        )

    @staticmethod
    def flops(args: Sequence[Any], kwargs: Any, outs: Sequence[Tensor]) -> int:
        return 2 * sum(y.numel() for y in outs) * args[2].size(1)

    @staticmethod
    def backward_flops(
        args: Sequence[Any], kwargs: Any, outs: Sequence[Tensor], needs: Sequence[bool]
    ) -> int:
        sizes = [2 * y.numel() * args[2].size(1) for y in outs]
        needs_query, needs_memory, needs_weight, _ = needs
        return needs_query * sizes[0] + needs_memory * sizes[1] + needs_weight * sum(sizes)

    @staticmethod
    def decomposition(
        query: Tensor, memory: Tensor, weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        width = weight.size(0) // 3
        w1, w2 = weight.split((width, 2 * width))
        q, kv = query @ w1.t(), memory @ w2.t()
        if bias is None:
            return q, kv
        b1, b2 = bias.split((width, 2 * width))
        return q + b1, kv + b2

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2, 4, 5), rand(2, 3, 5), rand(15, 5), rand(15)
        yield rand(4, 5), rand(3, 5), rand(15, 5)
        yield rand(4, 2, 5).transpose(0, 1), rand(2, 3, 5), rand(15, 5), rand(15)
        yield rand(2, 0, 5), rand(2, 3, 5), rand(15, 5), rand(15)
        yield rand.constant(2, 4, 5), rand(2, 3, 5), rand(15, 5), rand(15)
