"""Numbers as rows of the identity."""

from __future__ import annotations

from operator import index as as_int

import numpy as np

from ...core import Tensor, wrap
from ..composite import composite


@composite(
    namespaces="functional",
    samples=lambda rand: [
        (rand.integers(0, 4, 2, 3),),
        (rand.integers(0, 4, 2, 3), 5),
        (rand.integers(0, 4, 0), 5),
    ],
    errors=lambda rand: [
        (rand.integers(2, 4, 3), 2),
        (rand.integers(-3, 0, 3),),
        (rand(3),),
        (rand.integers(0, 1, 0),),
    ],
)
def one_hot(input: Tensor, num_classes: int = -1) -> Tensor:
    """1 at the position that each number names, else 0: (*) -> (*, num_classes), int64.

    Without `num_classes`, one more than the largest number.
    """
    array, num_classes = input._array, as_int(num_classes)
    if array.dtype != np.int64:
        raise RuntimeError(
            f"one_hot: is only applicable to index tensor of type int64, got {array.dtype}"
        )
    if array.size == 0 and num_classes < 1:
        raise RuntimeError("one_hot: Can not infer total number of classes from empty tensor.")
    if array.size and array.min() < 0:
        raise RuntimeError(f"one_hot: Class values must be non-negative, got {array.min()}.")
    if num_classes == -1:
        num_classes = int(array.max()) + 1
    elif array.size and array.max() >= num_classes:
        raise RuntimeError(
            f"one_hot: Class values must be smaller than num_classes: {array.max()} is not "
            f"smaller than {num_classes}."
        )
    return wrap((array[..., None] == np.arange(num_classes)).astype(np.int64))
