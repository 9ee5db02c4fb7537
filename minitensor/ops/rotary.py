"""Rotary position embedding, of queries and keys."""

from __future__ import annotations

import numpy as np

from ..core import Op, Tensor
from ..kernels import rotary as kernel
from .checks import check_one_float_dtype
from .join import Cat, Stack
from .places import at, places
from .samples import Rand, Samples, strided


class RotaryEmbedding(Op):
    """y = x with each pair (a, b) of numbers turned: (*, K), (*, K/2), (*, K/2) -> (*, K).

    (a, b) becomes (a cos - b sin, b cos + a sin). Pairs are x[..., i] and x[..., i + K/2], or with
    `interleaved` neighbours, x[..., 2i] and x[..., 2i + 1]. The leading dimensions of `cos` and
    `sin` broadcast to those of x: (L, K/2) for x (N, H, L, K), (L, 1, K/2) for (N, L, H, K). Unless
    `interleaved`, they may also be (*, K), an angle for each number of the result.

    dx is dy turned by the opposite angles. RuntimeError for types or shapes that do not fit.

    J. Su and others, "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021.
    """

    namespaces = "functional"
    fused = fresh = native = True
    torch_name = None

    @staticmethod
    def call(input: Tensor, cos: Tensor, sin: Tensor, interleaved: bool = False) -> Tensor:
        check_one_float_dtype("rotary_embedding", input=input, cos=cos, sin=sin)
        x, angles = input._array.shape, cos._array.shape
        widths = (x[-1] // 2,) if interleaved else (x[-1] // 2, x[-1])
        fits = (
            x
            and x[-1] % 2 == 0
            and angles
            and angles == sin._array.shape
            and angles[-1] in widths
            and len(angles) <= len(x)
            and all(n in (1, m) for n, m in zip(angles[-2::-1], x[-2::-1], strict=False))
        )
        if not fits:
            raise RuntimeError(
                "rotary_embedding: expected input (*, K) with K even, cos and sin (*, K / 2)"
                f"{'' if interleaved else ' or (*, K)'} with leading dimensions that broadcast to "
                f"those of input, got {tuple(x)}, {tuple(angles)} and {tuple(sin.shape)}"
            )
        op = RotaryEmbedding
        fixed = not (cos.requires_grad or sin.requires_grad)
        run = op.apply if fixed else op.decomposition
        return run(input, cos, sin, interleaved)

    def forward(
        ctx, x: np.ndarray, cos: np.ndarray, sin: np.ndarray, interleaved: bool
    ) -> np.ndarray:
        ctx.save(cos, sin, interleaved)
        return kernel.rotate(x, cos, sin, interleaved)

    @staticmethod
    def cell(x: np.ndarray, cos: np.ndarray, sin: np.ndarray, interleaved: bool) -> str:
        *place, last = places(x.ndim)
        half = x.shape[-1] // 2
        first = f"{last} % 2 == 0" if interleaved else f"{last} < {half}"
        other = f"({last} + {half}) % {x.shape[-1]}"
        angle = last if cos.shape[-1] > half else f"{last} % {half}"
        if interleaved:
            other, angle = f"{last} + 1 - {last} % 2 * 2", f"{last} // 2"
        lead = [
            "0" if n == 1 else letter
            for n, letter in zip(cos.shape[:-1], place[len(place) - cos.ndim + 1 :], strict=True)
        ]
        turned = f"{at('x', [*place, other])} * {at('sin', [*lead, angle])}"
        return (
            f"{at('x', [*place, last])} * {at('cos', [*lead, angle])} + "
            f"(-{turned} if {first} else {turned})"
        )

    def backward(ctx, dy: np.ndarray) -> tuple[np.ndarray, None, None]:
        cos, sin, interleaved = ctx.saved
        return kernel.rotate(dy, cos, sin, interleaved, back=True), None, None

    @staticmethod
    def decomposition(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
        if interleaved:
            a, b = x.unflatten(-1, (x.size(-1) // 2, 2)).unbind(-1)
            return Stack.call((a * cos - b * sin, b * cos + a * sin), -1).flatten(-2)
        a, b = x.chunk(2, -1)
        whole = cos.size(-1) == x.size(-1)
        cos1, cos2 = cos.chunk(2, -1) if whole else (cos, cos)
        sin1, sin2 = sin.chunk(2, -1) if whole else (sin, sin)
        return Cat.call((a * cos1 - b * sin1, b * cos2 + a * sin2), -1)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2, 3, 4, 6), rand.constant(4, 3), rand.constant(4, 3)
        yield rand(2, 4, 3, 6), rand.constant(4, 1, 3), rand.constant(4, 1, 3), True
        yield rand(2, 3, 4, 6), rand.constant(2, 1, 4, 6), rand.constant(2, 1, 4, 6)
        yield strided(rand(4, 2, 8)), rand.constant(4, 4), rand.constant(4, 4), True
        yield rand(4, 6), rand.constant(3), rand.constant(3), True
        yield rand(2, 0, 6), rand.constant(3), rand.constant(3)
