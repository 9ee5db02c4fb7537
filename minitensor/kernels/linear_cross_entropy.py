"""Cross entropy of linear scores with class indices, without the whole matrix of scores.

    z = x w^T + b (N, C)        loss = cross entropy of z with the target (`kernels.cross_entropy`)

For a large vocabulary z is the largest array of a training step, and its gradient dz is another.
Here they never exist: a chunk of rows of z is computed in a buffer, where dz takes its place, and
the chunk's part of the gradients is computed from it at once,

    dx = dz w (the chunk's rows)        dw += dz^T x        db += the sum of dz's rows

so three products suffice, as without chunks. The buffer has 8 MB, or 256 rows if these are more:
from there on reading w and adding to dw, once for each chunk, costs little beside the products.
Bound by the products.

Chunks depend on the shapes alone, so results do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .. import memory
from .cross_entropy import class_weights, cross_entropy_into, sum_target_weights
from .matmul import matmul
from .parallel import contiguous

CHUNK = 1 << 21  # elements of a chunk of scores, unless its least rows have more
LEAST_ROWS = 256


def chunk_rows(cols: int) -> int:
    """Return the number of rows in a chunk of scores."""
    return max(LEAST_ROWS, CHUNK // max(cols, 1) // LEAST_ROWS * LEAST_ROWS)


def linear_cross_entropy(
    x: np.ndarray,
    w: np.ndarray,
    b: np.ndarray | None,
    target: np.ndarray,
    weight: np.ndarray | None,
    needs: Sequence[bool],
    ignore: int,
    smoothing: float,
    mean: bool,
    dloss: np.ndarray | None = None,
) -> tuple[np.ndarray, float, tuple[np.ndarray | None, ...]]:
    """Return each row's loss (N), the divisor of a mean, and the gradients of x, w and b.

    - x (N, E), w (C, E), b (C) or None: the scores are x w^T + b.
    - needs: for x, w and b each, True if its gradient is wanted; else None takes its place.
    - target, weight, ignore, smoothing, mean: as in `cross_entropy`.
    - dloss: the gradient of each row's loss (N), or None for ones.

    Raises IndexError for a target that is neither a class nor `ignore`.
    """
    needs_x, needs_w, needs_b = needs
    cols, dtype = len(w), x.dtype
    target = np.ascontiguousarray(target, np.int64)
    weight = class_weights(weight, cols, dtype)
    total = sum_target_weights(target, weight, ignore)
    loss = memory.empty(len(x), dtype)
    dx = memory.empty(x.shape, dtype) if needs_x else None
    dw = memory.empty(w.shape, dtype) if needs_w else None
    db = np.zeros(cols, dtype) if needs_b else None
    if dw is not None and not len(x):
        dw.fill(0)
    step = chunk_rows(cols)
    buffer = memory.empty((min(step, len(x)), cols), dtype)
    row_sums = None if db is None else np.empty_like(db)
    for start in range(0, len(x), step):
        rows = slice(start, start + step)
        x_rows = contiguous(x[rows])
        z = matmul(x_rows, w.T, buffer[: len(x_rows)], b)
        dz = z if any(needs) else None
        cross_entropy_into(
            loss[rows], dz, z, target[rows], weight, ignore, smoothing, total if mean else 1.0
        )
        if dz is None:
            continue
        if dloss is not None:
            dz *= dloss[rows, None]
        if dx is not None:
            matmul(dz, w, dx[rows])
        if dw is not None:
            matmul(dz.T, x_rows, dw, accumulate=start > 0, row_sums=row_sums)
        elif row_sums is not None:
            dz.sum(0, out=row_sums)
        if db is not None:
            db += row_sums
    return loss, total, (dx, dw, db)
