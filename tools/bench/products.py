"""Topics `gemm` and `attention`: matrix products and attention at the sizes of a transformer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

import minitensor as mt

from .measure import HERE, Figure, Sides, compared, geometric_mean, library
from .plan import Plan, Step

# Relative to the better of the other sides; the geometric mean of the steps' products and that of
# the small ones is at least 1.
WORST_PRODUCT = 0.85
SMALL_PRODUCT = 1.0
ATTENTION_TARGETS = {32: 3.0, 64: 3.0}  # by length
NN, NT, TN = "NN", "NT", "TN"  # N: an operand as it lies in memory, T: its transpose


def measure_gemm(plan: Plan, against: Sequence[str]) -> Iterator[Figure]:
    """Measure the products of the training steps, forward (NT), backward (NN, TN) and of heads.

    Then small ones: cubes, batches of them, and a few rows by a weight, as in decoding. A name
    gives the number of products in a batch, then rows, inner length and columns.
    """
    figures = []
    for step in plan.steps:
        for batch, kind, m, k, n in products(step):
            sides = gemm_sides(against, batch, kind, m, k, n)
            count = batch or 1
            figure = compared(
                plan, "gemm", f"{step.name} {kind} {f'{batch} x ' if batch else ''}{m},{k},{n}",
                sides, flops=2.0 * count * m * k * n, bytes=4 * count * (m * k + k * n + m * n),
                target=WORST_PRODUCT, label=label(plan, step, batch, kind, m, k, n),
            )  # fmt: skip
            figures.append(figure)
            yield figure
    yield from geometric_mean("gemm", figures, 1.0)
    figures = []
    for batch, kind, m, k, n in small_products(plan.steps[-1]):
        name = f"{kind} {f'{batch} x ' if batch else ''}{m},{k},{n}"
        sides = gemm_sides(against, batch, kind, m, k, n, fresh=True)
        flops = 2.0 * (batch or 1) * m * k * n
        figure = compared(plan, "gemm", name, sides, True, flops=flops, target=SMALL_PRODUCT)
        figures.append(figure)
        yield figure
    yield from geometric_mean("gemm", figures, 1.0, "geometric mean of small ones")


def small_products(step: Step) -> Iterator[tuple[int, str, int, int, int]]:
    """Yield small products as `products` does, the last ones by weights of a step's model."""
    for size in (8, 16, 32, 64):
        yield 0, NN, size, size, size
    for batch, size in ((64, 8), (32, 16), (32, 32)):
        yield batch, NN, size, size, size
    for rows in (1, 4, 16):
        for width in (step.d_model, step.vocabulary):
            yield 0, NT, rows, step.d_model, width


def products(step: Step) -> Iterator[tuple[int, str, int, int, int]]:
    """Yield batch (0 if none), kind, rows, inner length and columns of a step's products."""
    d, tokens = step.d_model, step.tokens
    for k, n in ((d, d), (d, 3 * d), (d, step.feedforward), (step.feedforward, d),
                 (d, step.vocabulary)):  # fmt: skip
        yield 0, NT, tokens, k, n  # y = x W^T
        yield 0, NN, tokens, n, k  # dx = dy W
        yield 0, TN, n, tokens, k  # dW = dy^T x
    heads, length, width = step.batch * step.heads, step.length, d // step.heads
    yield heads, NT, length, width, length  # scores = q k^T
    yield heads, NN, length, length, width  # weights v
    yield heads, TN, length, length, width  # dv = weights^T dy


def label(plan: Plan, step: Step, batch: int, kind: str, *shape: int) -> str:
    """Return a label for the roofline plot; the first feed-forward product stands for all."""
    if step is not plan.steps[-1]:
        return ""
    if batch:
        return f"heads {kind}"
    tokens, d, hidden = step.tokens, step.d_model, step.feedforward
    first = {NT: (tokens, d, hidden), NN: (tokens, hidden, d), TN: (hidden, tokens, d)}
    return f"matmul {kind}" if shape == first[kind] else ""


def gemm_sides(
    against: Sequence[str], batch: int, kind: str, m: int, k: int, n: int, fresh: bool = False
) -> Sides:
    """Return the product on each side.

    The others write to memory allocated beforehand, or with `fresh` to new memory, as here.
    """
    noise = np.random.RandomState(0)
    lead = (batch,) if batch else ()

    def operand(rows: int, cols: int, transposed: bool) -> np.ndarray:
        shape = (*lead, cols, rows) if transposed else (*lead, rows, cols)
        made = noise.standard_normal(shape).astype(np.float32)
        return made.swapaxes(-2, -1) if transposed else made

    a, b = operand(m, k, kind == TN), operand(k, n, kind == NT)
    sides: Sides = {HERE: bind_matmul(mt, a, b)}
    for side in against:
        if side == "numpy":
            sides[side] = bind_numpy(a, b, fresh)
        elif side == "torch":
            sides[side] = bind_torch(a, b, fresh)
        else:
            sides[side] = bind_jax(a, b)
    return sides


def bind_matmul(lib: Any, a: np.ndarray, b: np.ndarray) -> Callable[[], Any]:
    """Return the product here."""
    x, y = lib.from_numpy(a), lib.from_numpy(b)
    return lambda: lib.matmul(x, y)


def bind_numpy(a: np.ndarray, b: np.ndarray, fresh: bool = False) -> Callable[[], Any]:
    """Return the product by NumPy's BLAS."""
    out = None if fresh else np.matmul(a, b)
    return lambda: np.matmul(a, b, out=out)


def bind_torch(a: np.ndarray, b: np.ndarray, fresh: bool = False) -> Callable[[], Any]:
    """Return the product by PyTorch."""
    torch = library("torch")
    x, y = torch.from_numpy(a), torch.from_numpy(b)
    out = None if fresh else torch.matmul(x, y)
    return lambda: torch.matmul(x, y, out=out)


def bind_jax(a: np.ndarray, b: np.ndarray) -> Callable[[], Any]:
    """Return the product by JAX, jitted together with the transposition."""
    jax = __import__("jax")
    product = jax.jit(jax.numpy.matmul)
    x, y = jax.numpy.asarray(a), jax.numpy.asarray(b)
    return lambda: product(x, y).block_until_ready()


# Attention


def measure_attention(plan: Plan, against: Sequence[str]) -> Iterator[Figure]:
    """Measure scaled_dot_product_attention forward and backward, 8 heads, plain and causal.

    Two products are counted forward and four backward, half as many with a causal mask.
    """
    against = [side for side in against if side == "torch"]
    for width in (32, 64):
        for length in plan.attention_lengths:
            batch = max(plan.attention_scores // length**2, 1)
            for causal in (False, True):
                sides = {
                    side: attention_call(library(side), (batch, 8, length, width), causal)
                    for side in (HERE, *against)
                }
                name = f"S={length} K={width} N={batch}{' causal' if causal else ''}"
                flops = 6 * 2.0 * batch * 8 * length**2 * width
                yield compared(
                    plan, "attention", name, sides, flops=flops / 2 if causal else flops,
                    bytes=4 * 12 * batch * 8 * length * width,
                    target=None if causal else ATTENTION_TARGETS.get(length),
                    label="" if causal or width != 64 else f"attention {length}",
                )  # fmt: skip


def attention_call(lib: Any, shape: tuple[int, ...], causal: bool) -> Callable[[], Any]:
    """Return a call of attention of (N, H, S, K), forward and backward."""
    noise = np.random.RandomState(0)
    q, k, v, dy = (
        lib.from_numpy(noise.standard_normal(shape).astype(np.float32)) for _ in range(4)
    )
    inputs = [x.requires_grad_() for x in (q, k, v)]
    F = lib.nn.functional

    def call() -> None:
        y = F.scaled_dot_product_attention(*inputs, is_causal=causal)
        lib.autograd.grad(y, inputs, dy)

    return call
