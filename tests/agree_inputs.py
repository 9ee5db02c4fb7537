"""Inputs for comparing every shared name with PyTorch: calls by signature, and expressions.

A call is made of specs, which either library turns into its own tensors and types.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import minitensor

_FLOATS = ["float32", "float64", "float16", "bfloat16"]
_OTHERS = ["int64", "int32", "int16", "int8", "uint8", "bool"]
DTYPES = [name for name in (*_FLOATS, *_OTHERS) if hasattr(minitensor, name)]
WIDE = {"bfloat16": "float32"}  # how NumPy holds a type that it does not have


@dataclass(frozen=True, eq=False)
class T:
    """A tensor to be: an array, the name of a type, and the layout of the memory."""

    array: np.ndarray
    dtype: str
    layout: str = ""

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.array.shape)) or "scalar"
        return f"{self.dtype} {shape}{' ' * bool(self.layout)}{self.layout}"

    def make(self, library: Any, grad: bool) -> Any:
        """Make the tensor in a library; a float one requires a gradient if `grad`."""
        array = self.array.copy()
        if self.layout == "transposed":
            array = np.ascontiguousarray(array.swapaxes(-1, -2)).swapaxes(-1, -2)
        elif self.layout == "sliced":
            array = np.repeat(array, 2, -1)[..., ::2]
        made = library.from_numpy(array)
        if self.dtype in WIDE:
            made = made.to(getattr(library, self.dtype))
        return made.requires_grad_() if grad and self.is_float else made

    @property
    def is_float(self) -> bool:
        """True for a floating type."""
        return "float" in self.dtype


@dataclass(frozen=True)
class D:
    """A type, by its name."""

    name: str

    def __repr__(self) -> str:
        return self.name


_noise = np.random.RandomState(0)


def tensor(dtype: str, *shape: int, layout: str = "") -> T:
    """Numbers of a type: floats between -2 and 2, integers from -3 to 3, or from 0."""
    if dtype == "bool":
        return T(np.asarray(_noise.rand(*shape) < 0.5), dtype, layout)
    if "float" in dtype:
        values = np.asarray(_noise.uniform(-2, 2, shape), WIDE.get(dtype, dtype))
        return T(values, dtype, layout)
    low = 0 if dtype == "uint8" else -3
    return T(np.asarray(_noise.randint(low, 4, shape), dtype), dtype, layout)


def indices(high: int, *shape: int) -> T:
    """Indices below `high`."""
    return T(np.asarray(_noise.randint(0, high, shape)), "int64")


def special(dtype: str) -> T:
    """Zeros of both signs, infinities, NaN and their neighbours."""
    values = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 0.5, -2.5, 1e-30]
    return T(np.array(values, dtype), dtype)


F32, I64, BOOL = "float32", "int64", "bool"
Call = tuple[tuple[Any, ...], dict[str, Any]]


def _unary() -> Iterator[Call]:
    for dtype in DTYPES:
        for shape in ((2, 3), (), (3,), (0,), (0, 3)):
            yield (tensor(dtype, *shape),), {}
        yield (tensor(dtype, 3, 2, layout="transposed"),), {}
        yield (tensor(dtype, 2, 3, 4, layout="sliced"),), {}
    yield (special("float32"),), {}
    yield (special("float64"),), {}


def _dims() -> Iterator[Call]:
    for dtype, shape in itertools.product(
        (F32, I64, BOOL, "float64", "uint8"), ((2, 3), (), (3,), (0, 3), (2, 3, 4))
    ):
        for dim in (0, -1, 1, -2, 2):
            yield (tensor(dtype, *shape), dim), {}
    for shape in ((2, 3), (), (2, 0), (2, 3, 4)):
        several: tuple[Any, ...] = (0, -1, (0, 1), [-1], ())
        for dims in several:
            yield (tensor(F32, *shape),), dict(dim=dims)
            yield (tensor(F32, *shape),), dict(dim=dims, keepdim=True)
            yield (tensor(F32, *shape), dims, True), {}
    for dtype in DTYPES:
        yield (tensor(dtype, 2, 3),), dict(dim=1)
        yield (tensor(dtype, 3, 2, layout="transposed"), 0), {}


def _two_ints() -> Iterator[Call]:
    for shape in ((2, 3), (2, 3, 4), (3,), (), (0, 3)):
        for a, b in ((0, 1), (-1, 0), (1, -2), (0, 0), (1, 2)):
            yield (tensor(F32, *shape), a, b), {}
    yield (tensor(I64, 3, 4, layout="transposed"), 0, 1), {}
    yield (tensor(BOOL, 2, 3), -1, -2), {}


def _sizes() -> Iterator[Call]:
    for sizes in ((3, 2), (-1,), (6,), (1, 2, 3), (2, -1), (-1, 2, 3), ()):
        yield (tensor(F32, 2, 3), sizes), {}
        yield (tensor(F32, 2, 3), *sizes), {}
        yield (tensor(I64, 3, 2, layout="transposed"), sizes), {}
    for sizes in ((0,), (0, -1), (2, 0)):
        yield (tensor(F32, 0, 3), sizes), {}
    for dims in ((1, 0), (0, 1), (-1, 0), (0,)):
        yield (tensor(F32, 2, 3), dims), {}
        yield (tensor(F32, 2, 3, 4), dims), {}
    yield (tensor(F32, 2, 3, 4), (2, 0, 1)), {}
    yield (tensor(F32, 2, 3, 4), (0, 1), (2, 0)), {}
    yield (tensor(F32, 6, 2), 0, (2, 3)), {}
    yield (tensor(F32, 6, 2), (2, 4)), {}
    yield (tensor(F32, 6, 2), [2, 1, 3], 0), {}
    yield (tensor(F32, 2, 6), 2, -1), {}
    for size in (0, 1, 2, 3):
        yield (tensor(F32, 5, 3), size, 0), {}
        yield (tensor(F32, 5, 3), 0, size, 2), {}


def _binary() -> Iterator[Call]:
    yield (tensor(F32, 2, 3), tensor(F32, 3)), {}
    yield (tensor(I64, 2, 3), tensor(I64, 2, 3)), {}
    for a, b in itertools.product(DTYPES, DTYPES):
        yield (tensor(a, 2, 3), tensor(b, 3)), {}
        yield (tensor(a, 2, 3), tensor(b)), {}
        yield (tensor(a), tensor(b)), {}
    shapes = (((), (2, 3)), ((2, 1), (1, 3)), ((0, 3), (3,)), ((2, 3, 4), (4,)), ((2, 3), (2, 4)))
    for one, two in shapes:
        yield (tensor(F32, *one), tensor(F32, *two)), {}
    yield (tensor(F32, 3, 2, layout="transposed"), tensor(F32, 3, 2, layout="sliced")), {}
    yield (special("float32"), tensor(F32, 10)), {}
    yield (tensor(F32, 10), special("float32")), {}
    yield (special("float64"), special("float64")), {}


def _numbers() -> Iterator[Call]:
    yield (tensor(F32, 2, 3), 2), {}
    yield (tensor(I64, 2, 3), 2), {}
    for dtype, number in itertools.product(DTYPES, (2, 2.5, True, -1, 0, 0.5)):
        yield (tensor(dtype, 2, 3), number), {}
    for dtype in (F32, I64, "uint8", BOOL):
        yield (tensor(dtype), 3), {}
        yield (2, tensor(dtype, 2)), {}
        yield (1.5, tensor(dtype, 2)), {}
        yield (tensor(dtype, 2, 3), -0.5, 1.5), {}
        yield (tensor(dtype, 2, 3), 0, 1), {}
        yield (tensor(dtype, 2, 3),), dict(min=0)
        yield (tensor(dtype, 2, 3),), dict(max=1)
    yield (special("float32"), 2), {}
    yield (special("float32"), 0.0), {}


def _three() -> Iterator[Call]:
    yield (tensor(F32, 2, 3), tensor(F32, 3), tensor(F32, 2, 1)), {}
    for dtype in DTYPES:
        yield (tensor(dtype, 2, 3), tensor(dtype, 2, 3), tensor(dtype, 3)), {}
        yield (tensor(dtype, 2, 3), tensor(dtype, 2, 3), 0.5), {}
        yield (tensor(BOOL, 2, 3), tensor(dtype, 2, 3), tensor(F32, 3)), {}
        yield (tensor(BOOL, 2, 3), tensor(dtype, 3), 2), {}
        yield (tensor(BOOL, 2, 3), 1.5, tensor(dtype, 3)), {}
        yield (tensor(dtype, 3, 4), tensor(dtype, 3, 2), tensor(dtype, 2, 4)), {}
        yield (tensor(dtype, 3, 4),), dict(other=tensor(dtype, 4), alpha=2)
        yield (tensor(dtype, 2, 3), tensor(dtype, 3), tensor(dtype, 3)), dict(value=0.5)
    yield (tensor(F32, 2, 3, 5), tensor(F32, 2, 3, 4), tensor(F32, 2, 4, 5)), {}
    yield (tensor(F32, 4), tensor(F32, 3, 2), tensor(F32, 2, 4)), dict(beta=0.5, alpha=2)
    yield (tensor(F32, 2, 3), tensor(F32, 3), tensor(F32)), dict(value=2)


def _matrices() -> Iterator[Call]:
    shapes = (
        ((2, 3), (3, 4)), ((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 2)), ((2, 3, 4), (2, 4, 5)),
        ((2, 3, 4), (4, 5)), ((0, 3), (3, 2)), ((2, 0), (0, 3)), ((1, 2, 3), (5, 3, 2)),
        ((2, 3), (2, 3)),
    )  # fmt: skip
    for one, two in shapes:
        for dtype in (F32, "float64", I64):
            yield (tensor(dtype, *one), tensor(dtype, *two)), {}
    for dtype in DTYPES:
        yield (tensor(dtype, 2, 3), tensor(dtype, 3, 4)), {}
        yield (tensor(dtype, 3), tensor(dtype, 3)), {}
    yield (tensor(F32, 3, 2, layout="transposed"), tensor(F32, 2, 4, layout="sliced")), {}
    yield (tensor(F32, 2, 3), tensor("float64", 3, 4)), {}


def _indexed() -> Iterator[Call]:
    for dtype in DTYPES:
        for dim in (0, -1):
            yield (tensor(dtype, 3, 4), dim, indices(3, 2)), {}
            yield (tensor(dtype, 3, 3), dim, indices(3, 2, 3)), {}
            yield (tensor(dtype, 3, 2), dim, indices(2, 3), tensor(dtype, 3, 3)), {}
            yield (tensor(dtype, 3, 3), dim, indices(3, 3, 3), tensor(dtype, 3, 3)), {}
            yield (tensor(dtype, 3, 3), dim, indices(3, 3, 3), 2), {}
            yield (tensor(dtype, 3, 3), dim, indices(3, 2), 1), {}
            yield (tensor(dtype, 3, 3), dim, indices(3, 3), tensor(dtype, 3, 3)), {}
        yield (tensor(dtype, 3, 4), indices(3, 5)), {}
        yield (tensor(dtype, 3, 3), indices(3, 1, 3), 0), {}
        yield (tensor(dtype, 3, 2), (indices(3, 4), indices(2, 4)), tensor(dtype, 4)), {}
        yield (tensor(dtype, 3, 2), (indices(3, 4),), tensor(dtype, 2), True), {}
    yield (tensor(F32, 3, 4), 0, T(np.array(1), I64)), {}
    yield (tensor(F32, 3, 4), 0, indices(3, 0)), {}


def _masked() -> Iterator[Call]:
    for dtype in DTYPES:
        yield (tensor(dtype, 2, 3), tensor(BOOL, 2, 3)), {}
        yield (tensor(dtype, 2, 3), tensor(BOOL, 3)), {}
        yield (tensor(dtype, 2, 3), tensor(BOOL, 2, 3), 2), {}
        yield (tensor(dtype, 2, 3), tensor(BOOL, 3), 1.5), {}
        yield (tensor(dtype, 2, 3), tensor(BOOL, 2, 1), tensor(dtype)), {}
        yield (tensor(dtype, 2, 3), tensor(BOOL, 2, 3), tensor(dtype, 6)), {}
    yield (tensor(F32, 2, 3), tensor("uint8", 2, 3)), {}


def _lists() -> Iterator[Call]:
    for dtype in DTYPES:
        pair = [tensor(dtype, 2, 3), tensor(dtype, 2, 3)]
        yield (pair,), {}
        yield (tuple(pair), 1), {}
        yield (pair,), dict(dim=-1)
        yield ([tensor(dtype, 2), tensor(F32, 3)],), {}
    yield ([tensor(F32, 2, 3), tensor(F32, 0, 3)],), {}
    yield ([tensor(F32, 3)],), {}
    yield ([tensor(F32), tensor(I64)],), {}
    yield (tensor(F32, 2), tensor(I64, 3)), {}
    yield (tensor(F32, 2, 1), tensor(F32, 3)), {}


def _made() -> Iterator[Call]:
    for shape in ((2, 3), (2,), (), (0, 3)):
        yield shape, {}
        yield (shape,), {}
        yield (shape, 2), {}
        yield (shape, 1.5), {}
        yield (3, shape), {}
        for dtype in DTYPES:
            yield (shape,), dict(dtype=D(dtype))
            yield (shape, 3), dict(dtype=D(dtype))
    yield (2, 3), dict(requires_grad=True)
    for one, two in ((0, 5), (1.0, 2.5), (5, 0), (-2, 2)):
        yield (one, two), {}
        yield (one, two, 1), {}
        yield (one, two, 0.5), {}
        yield (one, two, 4), dict(dtype=D("float64"))
    yield (5,), dict(dtype=D("float64"))
    yield (3, 4), {}
    yield (3, 4, -1), {}


def _typed() -> Iterator[Call]:
    for dtype, other in itertools.product(DTYPES, DTYPES):
        yield (tensor(dtype, 2, 3),), dict(dtype=D(other))
    for dtype in DTYPES:
        yield (tensor(F32, 2, 3), D(dtype)), {}
        yield (tensor(dtype, 2, 3), D("float64")), {}
    for dtype in ("float64", I64, "float16"):
        yield (tensor(F32, 2, 3), 1), dict(dtype=D(dtype))
        yield (tensor(F32, 2, 3), (3, 2)), dict(dtype=D(dtype))
        yield (tensor(F32, 2, 3), (3, 2), 2), dict(dtype=D(dtype))
        yield (D(dtype), D(F32)), {}
        yield (D(dtype),), {}


def _normed() -> Iterator[Call]:
    for order in (1, 2, 0, 3.0, float("inf"), "fro"):
        yield (tensor(F32, 2, 3), order), {}
        yield (tensor("float64", 2, 3), order, 1), {}
        yield (tensor(F32, 2, 3), order, -1, True), {}
    yield (tensor(F32, 2, 3, 4), 2, (0, 2)), {}
    yield (tensor(F32, 5, 3), 2, -1, False), {}
    yield (tensor(F32, 5), 3), {}
    yield (tensor(F32, 5, 3), 2, 0), dict(largest=False)
    yield (tensor(I64, 5, 3), 1, 1), dict(descending=True)
    yield (tensor(F32, 5, 3),), dict(descending=True)
    yield (tensor(F32, 5, 3), True), {}
    yield (tensor(F32, 5, 3),), dict(dim=0, correction=0)
    yield (tensor(F32, 5, 3),), dict(dim=1, unbiased=False)


FAMILIES: dict[str, Callable[[], Iterator[Call]]] = {
    "a tensor": _unary,
    "a tensor and dimensions": _dims,
    "a tensor and two numbers": _two_ints,
    "a tensor and sizes": _sizes,
    "two tensors": _binary,
    "a tensor and numbers": _numbers,
    "three tensors": _three,
    "matrices": _matrices,
    "indices": _indexed,
    "masks": _masked,
    "lists of tensors": _lists,
    "shapes and numbers": _made,
    "types": _typed,
    "orders": _normed,
}
