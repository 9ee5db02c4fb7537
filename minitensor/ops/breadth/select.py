"""Bounds on one side, numbers for NaN, and mixtures of tensors."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...core import Op, Tensor
from ...dtype import FLOATING, finfo_of
from ..checks import check_floating, check_tensors, in_new_order
from ..composite import composite
from ..elementwise import Unary, is_float
from ..samples import Rand, Samples
from ..select import Clamp, Where


@composite(
    out="same", inplace=True, samples=lambda rand: [(rand(2, 3), 0.1), (rand(2, 3), rand(3))]
)
def clamp_min(input: Tensor, min: Any) -> Tensor:
    """y = x, not below `min`, as `clamp` gives it: (*), (*) -> (*)."""
    return Clamp.call(input, min, None)


@composite(
    out="same", inplace=True, samples=lambda rand: [(rand(2, 3), 0.1), (rand(2, 3), rand(3))]
)
def clamp_max(input: Tensor, max: Any) -> Tensor:
    """y = x, not above `max`, as `clamp` gives it: (*), (*) -> (*)."""
    return Clamp.call(input, None, max)


class NanToNum(Unary):
    """y = x with numbers for NaN and the infinities: (*) -> (*).  dx = dy where x was finite.

    The infinities become the largest and the smallest number of the type if none are given.
    """

    out = "same"

    @staticmethod
    def call(
        input: Tensor,
        nan: float | None = None,
        posinf: float | None = None,
        neginf: float | None = None,
    ) -> Tensor:
        if input._array.itemsize == 2 and input.is_floating_point():
            most = float(finfo_of(input._array.dtype).max)  # not that of float32, which computes
            posinf = most if posinf is None else posinf
            neginf = -most if neginf is None else neginf
        return NanToNum.apply(input, 0.0 if nan is None else nan, posinf, neginf)

    def forward(ctx, x: np.ndarray, nan: float, posinf: Any, neginf: Any) -> Any:
        ctx.save(x)
        if np.logical_and.reduce(np.isfinite(x), None):
            return x.copy("K")
        return np.nan_to_num(x, nan=nan, posinf=posinf, neginf=neginf)

    @staticmethod
    def cell(x: np.ndarray, nan: float, posinf: Any, neginf: Any) -> str:
        if x.dtype.kind not in FLOATING:
            return "x"
        high, low = (np.finfo(x.dtype).max if p is None else p for p in (posinf, neginf))
        low = -high if neginf is None else low
        return f"{nan} if isnan(x) else {high} if x == inf else {low} if x == -inf else x"

    def backward(ctx, dy: Tensor) -> Tensor:
        (x,) = ctx.saved
        return Where.apply(x.isfinite(), dy, 0.0)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        x = rand.constant(2, 3)
        x._array[0] = float("nan"), float("inf"), float("-inf")
        yield (x,)
        yield x, 1.0, 2.0, -2.0
        yield (rand(2, 3),)
        yield (rand.integers(0, 3, 3),)


class Lerp(Op):
    """y = a + w * (b - a): (*), (*), (*) -> (*); w may be a number.

    da = dy * (1 - w), db = dy * w, dw = dy * (b - a). RuntimeError if the tensors differ in type.
    """

    out = "same"
    inplace = True
    broadcasts = True
    cell = "a + w * (b - a)"

    @staticmethod
    def call(input: Tensor, end: Tensor, weight: Any) -> Tensor:
        if not isinstance(input, Tensor) or not isinstance(end, Tensor):
            check_tensors("lerp", input=input, end=end)
        dtype = input._array.dtype
        check_floating("lerp", input)
        for x in (end, weight):
            if isinstance(x, Tensor) and x._array.dtype != dtype:
                raise RuntimeError(f"lerp: expected {dtype} as of the first, got {x._array.dtype}")
        return Lerp.apply(input, end, weight if isinstance(weight, Tensor) else float(weight))

    def forward(ctx, a: np.ndarray, b: np.ndarray, w: Any) -> Any:
        needs_w = ctx.needs_input_grad[2]
        ctx.save(a if needs_w else None, b if needs_w else None, w)
        # From the nearer end, so that w = 1 gives b exactly.
        if type(w) is float:
            return a + w * (b - a) if w < 0.5 else b - (b - a) * (1 - w)
        return np.where(np.less(w, 0.5), a + w * (b - a), b - (b - a) * (1 - w)).astype(a.dtype)

    def backward(ctx, dy: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        a, b, w = ctx.saved
        return dy * (1.0 - w), dy * w, None if a is None else dy * (b - a)

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand(2, 3), rand(2, 3), 0.3
        yield rand(2, 3), rand(3), 0.75
        yield rand(2, 3), rand(3), rand.uniform(0, 1, 2, 1)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(3), rand.integers(0, 3, 3), 0.5
        yield rand.integers(0, 3, 3), rand.integers(0, 3, 3), 0.5


@composite(
    out="cast",
    inplace=True,
    samples=lambda rand: [
        (rand(2, 3), rand(2, 3), rand(3)),
        (rand(3), rand(2, 1), rand(3), dict(value=0.5)),
        (rand.integers(0, 5, 3), rand.integers(0, 5, 3), rand.integers(0, 5, 3), dict(value=2)),
    ],
)
def addcmul(
    input: Tensor, tensor1: Tensor, tensor2: Tensor, *deprecated: Tensor, value: float = 1
) -> Tensor:
    """y = x + value * a * b: (*), (*), (*) -> (*)."""
    if deprecated:
        tensor1, tensor2, value = in_new_order("addcmul", 2, tensor1, tensor2, *deprecated)
    if not (type(input) is type(tensor1) is type(tensor2) is Tensor):  # the usual case is quick
        check_tensors("addcmul", input=input, tensor1=tensor1, tensor2=tensor2)
    return input + (tensor1 * tensor2 if value == 1 else tensor1 * value * tensor2)


@composite(
    out="cast",
    inplace=True,
    samples=lambda rand: [
        (rand(2, 3), rand(2, 3), rand.positive(3)),
        (rand(3), rand(2, 1), rand.positive(3), dict(value=0.5)),
    ],
    errors=lambda rand: [(rand(3), rand.integers(1, 5, 3), rand.integers(1, 5, 3))],
)
def addcdiv(
    input: Tensor, tensor1: Tensor, tensor2: Tensor, *deprecated: Tensor, value: float = 1
) -> Tensor:
    """y = x + value * a / b: (*), (*), (*) -> (*). RuntimeError if a and b are both integers."""
    if deprecated:
        tensor1, tensor2, value = in_new_order("addcdiv", 2, tensor1, tensor2, *deprecated)
    if not (type(input) is type(tensor1) is type(tensor2) is Tensor):  # the usual case is quick
        check_tensors("addcdiv", input=input, tensor1=tensor1, tensor2=tensor2)
    if not is_float(tensor1) and not is_float(tensor2):
        raise RuntimeError("addcdiv: integer division is not supported: make one of them float")
    return input + (tensor1 if value == 1 else tensor1 * value) / tensor2
