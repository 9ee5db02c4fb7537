"""Tensors of random numbers: new ones, like another tensor, in place, by given probabilities.

Every function takes a `generator`; without one it draws from the default stream of
`minitensor.random`, in PyTorch's order, so the same seed gives PyTorch's numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from operator import index
from typing import Any

import numpy as np

from .autograd.inplace import in_place
from .core import Tensor, wrap
from .creation import float_dtype, lengths, made, method, writing
from .dtype import FLOATING, DType, as_dtype, int64
from .random import Generator, default_generator

__all__ = [
    "bernoulli",
    "multinomial",
    "normal",
    "rand",
    "rand_like",
    "randint",
    "randint_like",
    "randn",
    "randn_like",
    "randperm",
]


def _draws(name: str, dtype: Any) -> DType:
    kind = float_dtype(dtype)
    if kind.kind not in FLOATING:
        raise NotImplementedError(f"{name}: not implemented for {kind}; ask for a float dtype")
    return kind


@writing("dtype")
def rand(
    *shape: Any,
    size: Any = None,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Return uniform numbers in [0, 1)."""
    where = lengths("rand", shape, size)
    kind = _draws("rand", dtype)
    drawn = (generator or default_generator).uniform(math.prod(where), kind)
    return made(drawn.reshape(where), device, requires_grad)


@writing("dtype")
def randn(
    *shape: Any,
    size: Any = None,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Return normal numbers of mean 0 and variance 1."""
    where = lengths("randn", shape, size)
    kind = _draws("randn", dtype)
    drawn = (generator or default_generator).normal(math.prod(where), kind)
    return made(drawn.reshape(where), device, requires_grad)


@writing("dtype")
def randint(
    low: Any = 0,
    high: Any = None,
    size: Any = None,
    *,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Draw integers in [low, high): `randint(high, size)` or `randint(low, high, size)`; int64."""
    if size is None:
        high, size = None, high
    if high is None:
        low, high = 0, low
    where = lengths("randint", (size,))
    kind = int64 if dtype is None else as_dtype(dtype)
    low, high = (int(end) if isinstance(end, Tensor) else index(end) for end in (low, high))
    drawn = (generator or default_generator).randint(math.prod(where), low, high, kind)
    return made(drawn.reshape(where), device, requires_grad)


@writing("dtype")
def randperm(
    n: int,
    *,
    generator: Generator | None = None,
    dtype: Any = int64,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Return the integers 0 to n - 1 in random order: (n,) int64."""
    n = index(n)
    if n < 0:
        raise RuntimeError(f"randperm: n must be non-negative, got {n}")
    drawn = (generator or default_generator).randperm(n)
    return made(drawn.astype(as_dtype(dtype), copy=False), device, requires_grad)


@writing("dtype")
def normal(
    mean: Any,
    std: Any = 1.0,
    size: Any = None,
    *,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Return normal numbers; mean and std are numbers (give `size`), or tensors that broadcast."""
    source = generator or default_generator
    tensors = [x for x in (mean, std) if isinstance(x, Tensor)]
    if np.any(_values(std) < 0):
        raise RuntimeError(f"normal: expected std >= 0.0, got {std}")
    if not tensors:
        where = lengths("normal", (() if size is None else size,))
        kind = _draws("normal", dtype)
        drawn = source.normal(math.prod(where), kind, float(mean), float(std)).reshape(where)
        return made(drawn, device, requires_grad)
    kind = _draws("normal", tensors[0].dtype)
    try:
        where = np.broadcast_shapes(*(t.shape for t in tensors))
    except ValueError:
        raise RuntimeError(
            f"normal: mean {tuple(mean.shape)} and std {tuple(std.shape)} do not broadcast"
        ) from None
    drawn = source.normal(math.prod(where), kind).reshape(where)
    drawn *= _values(std).astype(kind)
    drawn += _values(mean).astype(kind)
    return made(drawn, device, requires_grad)


def _values(x: Any) -> np.ndarray:
    return x._array if isinstance(x, Tensor) else np.asarray(x)


@writing("cast")
@method
def bernoulli(
    input: Tensor, p: float | None = None, *, generator: Generator | None = None
) -> Tensor:
    """Return 1 with the probability in each element of `input` (or `p`), else 0, in its type."""
    x = input._array
    chance: Any = _probabilities("bernoulli", x.ravel()) if p is None else _probability(p)
    if p is None and x.dtype.kind not in FLOATING:
        raise NotImplementedError(f"bernoulli: not implemented for {x.dtype}; give floats")
    drawn = (generator or default_generator).bernoulli(x.size, chance)
    return made(drawn.astype(x.dtype).reshape(x.shape), None, False)


def _probability(p: Any) -> float:
    if not 0 <= p <= 1:
        raise RuntimeError(f"bernoulli: expected p to be in [0, 1], got {p}")
    return float(p)


def _probabilities(name: str, p: np.ndarray) -> np.ndarray:
    if not ((p >= 0) & (p <= 1)).all():
        raise RuntimeError(f"{name}: expected probabilities in [0, 1], got {p.min()} to {p.max()}")
    return p


@writing("same")
@method
def multinomial(
    input: Tensor,
    num_samples: int,
    replacement: bool = False,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """Draw indices with probabilities proportional to `input`: (V) or (N, V) -> (..., count).

    RuntimeError for weights that are negative, infinite or all zero, and for more samples than
    weights without replacement.
    """
    weights = input._array
    if weights.ndim not in (1, 2):
        raise RuntimeError(f"multinomial: expected 1 or 2 dimensions, got shape {weights.shape}")
    if weights.dtype.kind not in FLOATING:
        raise RuntimeError(f"multinomial: expected floating-point weights, got {weights.dtype}")
    if num_samples <= 0:
        raise RuntimeError(f"multinomial: cannot sample {num_samples} samples")
    if not replacement and num_samples > weights.shape[-1]:
        raise RuntimeError(
            f"multinomial: cannot sample {num_samples} of {weights.shape[-1]} without replacement"
        )
    drawn = (generator or default_generator).multinomial(weights, num_samples, replacement)
    return made(drawn, None, False)


def _like(draw: Callable[..., Tensor], what: str) -> Callable[..., Tensor]:
    def create(
        input: Tensor,
        *,
        generator: Generator | None = None,
        dtype: Any = None,
        device: Any = None,
        requires_grad: bool = False,
        memory_format: Any = None,
    ) -> Tensor:
        strides = input._array.strides
        order = sorted(range(len(strides)), key=lambda d: -strides[d])  # that of memory
        drawn = draw(
            size=[input.shape[d] for d in order],
            generator=generator,
            dtype=input.dtype if dtype is None else dtype,
            device=device,
        )
        back = sorted(range(len(order)), key=order.__getitem__)
        return made(drawn._array.transpose(back), None, requires_grad)

    create.__name__ = create.__qualname__ = f"{draw.__name__}_like"
    create.__doc__ = f"{what}, with the shape of `input`; in its dtype unless `dtype` is given."
    return create


rand_like = _like(rand, "Uniform numbers in [0, 1)")
randn_like = _like(randn, "Normal numbers of mean 0 and variance 1")


def randint_like(
    input: Tensor,
    low: int = 0,
    high: int | None = None,
    *,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    memory_format: Any = None,
) -> Tensor:
    """Return integers in [low, high), or [0, low) without `high`, with the shape of `input`."""
    return randint(
        *((0, low) if high is None else (low, high)),
        tuple(input.shape),
        generator=generator,
        dtype=input.dtype if dtype is None else dtype,
        device=device,
        requires_grad=requires_grad,
    )


# In place


def _memory_order(array: np.ndarray) -> np.ndarray:
    """Return the array with its dimensions in the order of memory."""
    order = sorted(range(array.ndim), key=lambda d: -array.strides[d])
    return array.transpose(order)


def _fill(name: str, self: Tensor, draw: Callable[[int], np.ndarray]) -> Tensor:
    """Replace the values by drawn ones, in the order of memory."""

    def compute(_: Tensor) -> Tensor:
        made = np.empty_like(self._array)  # with its strides
        ordered = _memory_order(made)
        ordered[...] = draw(made.size).reshape(ordered.shape)
        return wrap(made)

    return in_place(name, self, compute)


@method
def normal_(
    self: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Generator | None = None
) -> Tensor:
    """Fill with normal numbers."""
    if std < 0:
        raise RuntimeError(f"normal_: expected std >= 0.0, got {std}")
    kind = _draws("normal_", self.dtype)
    source = generator or default_generator
    plain = self.is_contiguous()
    return _fill("normal", self, lambda n: source.normal(n, kind, float(mean), float(std), plain))


@method
def uniform_(
    self: Tensor, start: float = 0.0, to: float = 1.0, *, generator: Generator | None = None
) -> Tensor:
    """Fill with uniform numbers in [start, to)."""
    if start > to:
        raise RuntimeError(f"uniform_: expected a range [from, to), got from={start} > to={to}")
    kind = _draws("uniform_", self.dtype)
    source = generator or default_generator
    return _fill("uniform", self, lambda n: source.uniform(n, kind, float(start), float(to)))


@method
def exponential_(self: Tensor, lambd: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fill with exponential numbers of mean 1 / lambd."""
    if lambd <= 0:
        raise RuntimeError(f"exponential_: expected lambda > 0.0, got {lambd}")
    kind = _draws("exponential_", self.dtype)
    source = generator or default_generator
    return _fill("exponential", self, lambda n: source.exponential(n, float(lambd), kind))


@method
def bernoulli_(self: Tensor, p: Any = 0.5, *, generator: Generator | None = None) -> Tensor:
    """Fill with 1 with probability `p`, a number or a tensor that broadcasts, else with 0."""
    source = generator or default_generator
    chance: Any
    if isinstance(p, Tensor):
        expanded = np.broadcast_to(_probabilities("bernoulli_", p._array), self.shape)
        order = np.argsort([-s for s in self._array.strides], kind="stable")
        chance = expanded.transpose(order).ravel()
    else:
        chance = _probability(p)
    return _fill("bernoulli", self, lambda n: source.bernoulli(n, chance).astype(self.dtype))


@method
def random_(
    self: Tensor,
    start: int | None = None,
    to: int | None = None,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """Fill with integers: in [start, to), in [0, start), or any the type can hold from 0 on."""
    source = generator or default_generator
    if start is None:
        return _fill("random", self, lambda n: source.random(n, self.dtype))
    low, high = (0, start) if to is None else (start, to)
    return _fill("random", self, lambda n: source.randint(n, low, high, self.dtype))
