"""Tensors side by side and one below the other; parts between indices."""

from __future__ import annotations

import itertools
from typing import Any

from ...core import Tensor
from ..checks import normal_dim
from ..composite import composite
from ..join import Cat, SplitWithSizes, _tensors
from ..shape import Reshape


@composite(
    out="cast",
    namespaces="torch",
    samples=lambda rand: [([rand(2), rand(3)],), ([rand(2, 1), rand(2, 3)],), ([rand(), rand()],)],
)
def hstack(tensors: Any) -> Tensor:
    """Return the tensors side by side: along dim 1, or dim 0 for vectors."""
    if not tensors:
        raise RuntimeError("hstack: expected a non-empty list of tensors")
    found = [
        t if t._array.ndim else Reshape.apply(t, shape=(1,)) for t in _tensors("hstack", tensors)
    ]
    return Cat.call(found, 0 if found[0]._array.ndim == 1 else 1)


@composite(
    out="cast",
    namespaces="torch",
    samples=lambda rand: [([rand(3), rand(2, 3)],), ([rand(), rand()],)],
)
def vstack(tensors: Any) -> Tensor:
    """Return the tensors one below the other: along dim 0, vectors as rows."""
    if not tensors:
        raise RuntimeError("vstack: expected a non-empty list of tensors")
    found = _tensors("vstack", tensors)
    return Cat.call([t if t._array.ndim > 1 else Reshape.apply(t, shape=(1, -1)) for t in found])


@composite(
    samples=lambda rand: [(rand(5, 2), 3), (rand(2, 5), (1, 3), 1), (rand(2, 5), (3, 1, 7), 1)],
    errors=lambda rand: [(rand(5), 0), (rand(), 2)],
)
def tensor_split(input: Tensor, indices_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """So many parts along `dim`, the first ones longer by one; or parts between indices."""
    shape = input._array.shape
    if not shape:
        raise RuntimeError("tensor_split: expects at least a 1-dimensional tensor")
    total = shape[normal_dim(dim, len(shape))]
    if isinstance(indices_or_sections, int):
        if indices_or_sections < 1:
            raise RuntimeError(
                f"tensor_split: number of sections must be larger than 0, got {indices_or_sections}"
            )
        length, longer = divmod(total, indices_or_sections)
        sizes = [length + (i < longer) for i in range(indices_or_sections)]
        return SplitWithSizes.apply(input, sizes=tuple(sizes), dim=dim)
    if isinstance(indices_or_sections, Tensor):
        indices_or_sections = indices_or_sections.tolist()
    bounds = [0, *indices_or_sections, total]
    return tuple(
        input[(*(slice(None),) * normal_dim(dim, len(shape)), slice(a, max(a, b)))]
        for a, b in itertools.pairwise(bounds)
    )
