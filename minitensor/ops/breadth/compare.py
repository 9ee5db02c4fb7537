"""Logic, tests for NaN and infinity, membership and closeness; none has a gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...core import Op, Tensor
from ...dtype import FLOATING
from ..checks import check_tensors
from ..compare import Comparison, Eq, Test
from ..composite import register
from ..convert import as_tensor
from ..elementwise import binary, unary
from ..places import reduced
from ..samples import Rand, Samples


class _Logical(Comparison, abstract=True):
    """A relation of truth values: an element that is not 0 is true."""

    tensors_only = True

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand.bools(2, 3), rand.bools(3)
        yield rand.integers(0, 2, 2, 3), rand(3)

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand.bools(3), True


def _of_floats(formula: str, otherwise: str) -> Callable[[np.ndarray], str]:
    """Return a `cell` that does not depend on numbers that are always finite."""
    return lambda x: formula if x.dtype.kind in FLOATING else otherwise


# fmt: off
binary("logical_and", np.logical_and, None, None, "y = (a != 0) & (b != 0).",
       base=_Logical, dtype=np.bool_)
binary("logical_or", np.logical_or, None, None, "y = (a != 0) | (b != 0).",
       base=_Logical, dtype=np.bool_)
binary("logical_xor", np.logical_xor, None, None,
       "y = (a != 0) ^ (b != 0).", base=_Logical, dtype=np.bool_)
_test: dict[str, Any] = dict(base=Test, dtype=np.bool_, floating=False, inplace=False, out="")
unary("isnan", np.isnan, None, "y = True where x is NaN.",
      cell=_of_floats("isnan(x)", "False"), **_test)
unary("isinf", np.isinf, None, "y = True where x is infinite.",
      cell=_of_floats("isinf(x)", "False"), **_test)
unary("isfinite", np.isfinite, None, "y = True where x is neither infinite nor NaN.",
      cell=_of_floats("isfinite(x)", "True"), **_test)
# fmt: on


_FEW = 4096  # pairs that are compared sooner than sorted


class Isin(Op):
    """y = True where x is among `test_elements`, or is not if `invert`: (*), (K) -> (*)."""

    out = "same"
    namespaces = "torch"
    differentiable = False

    @staticmethod
    def call(
        elements: Any, test_elements: Any, *, assume_unique: bool = False, invert: bool = False
    ) -> Tensor:
        if not isinstance(elements, Tensor) and not isinstance(test_elements, Tensor):
            raise TypeError("isin: elements or test_elements must be a Tensor")
        return Isin.apply(as_tensor(elements), as_tensor(test_elements), invert)

    def forward(ctx, x: np.ndarray, those: np.ndarray, invert: bool) -> Any:
        if x.size * those.size > _FEW:
            return np.isin(x, those, invert=invert)
        found = np.logical_or.reduce(x[..., None] == those.reshape(-1), -1)
        return np.logical_not(found) if invert else found

    @staticmethod
    def cell(x: np.ndarray, those: np.ndarray, invert: bool) -> str:
        every = reduced("those", those.ndim, range(those.ndim))
        return f"all({every} != x)" if invert else f"any({every} == x)"

    @staticmethod
    def samples(rand: Rand) -> Samples:
        yield rand.integers(0, 9, 2, 3), rand.integers(0, 9, 4)
        yield rand.integers(0, 3, 2, 3), 1
        yield rand.integers(0, 9, 2, 3), rand.integers(0, 9, 4), dict(invert=True)


class Isclose(Op):
    """y = True where |a - b| <= atol + rtol * |b|: (*), (*) -> (*), bool.

    NaN equals NaN if `equal_nan`. RuntimeError if the types differ.
    """

    differentiable = False
    broadcasts = True

    @staticmethod
    def call(
        input: Tensor,
        other: Tensor,
        rtol: float = 1e-05,
        atol: float = 1e-08,
        equal_nan: bool = False,
    ) -> Tensor:
        check_tensors("isclose", input=input, other=other)
        if input._array.dtype != other._array.dtype:
            raise RuntimeError(
                f"isclose: the types differ: {input._array.dtype} and {other._array.dtype}"
            )
        return Isclose.apply(input, other, rtol, atol, equal_nan)

    def forward(
        ctx, a: np.ndarray, b: np.ndarray, rtol: float, atol: float, equal_nan: bool
    ) -> Any:
        if a.dtype.kind == "b":
            return a == b
        # In float64, where integers do not overflow.
        return np.isclose(a.astype(np.float64), b.astype(np.float64), rtol, atol, equal_nan)

    @staticmethod
    def cell(a: np.ndarray, b: np.ndarray, rtol: float, atol: float, equal_nan: bool) -> str:
        if a.dtype.kind == "b":
            return "a == b"
        close = "(a == b) | (abs(a - b) <= atol + rtol * abs(b))"
        return f"{close} | (isnan(a) & isnan(b))" if equal_nan else close

    @staticmethod
    def samples(rand: Rand) -> Samples:
        x = rand.constant(2, 3)
        yield x, x.detach()
        yield x, rand.constant(3), dict(atol=0.5)
        yield x, rand.constant(2, 3), dict(rtol=0.5, atol=0.0)
        yield rand.integers(0, 9, 3), rand.integers(0, 9, 3), 0.5

    @staticmethod
    def errors(rand: Rand) -> Samples:
        yield rand(3), rand.integers(0, 3, 3)
        yield rand(3), 1.0
        yield rand(3), rand(4)


@register
def allclose(
    input: Tensor,
    other: Tensor,
    rtol: float = 1e-05,
    atol: float = 1e-08,
    equal_nan: bool = False,
) -> bool:
    """Return True if |input - other| <= atol + rtol * |other| everywhere; NaN as in `isclose`."""
    return bool(Isclose.call(input, other, rtol, atol, equal_nan)._array.all())


@register
def equal(input: Tensor, other: Tensor) -> bool:
    """Return True if both have the same shape and the same elements."""
    check_tensors("equal", input=input, other=other)
    return input._array.shape == other._array.shape and bool(Eq.call(input, other)._array.all())
