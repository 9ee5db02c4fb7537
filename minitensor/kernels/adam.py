"""The updates of Adam, AdamW and SGD: one pass over each parameter.

Element by element on flat contiguous arrays, in chunks shared out among the threads, so a result
depends on nothing but its own element. Bound by memory: Adam reads four arrays and writes three,
28 bytes for each float32 weight. Everything is computed in the type of the arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from .jit import jit

CHUNK = 1 << 14  # elements a thread takes at a time: 64 KB of each float32 array
SERIAL = 2 * CHUNK  # up to here a second thread is not worth waking


@jit
def _adam_chunk(
    p: np.ndarray,
    g: np.ndarray,
    m: np.ndarray,
    v: np.ndarray,
    top: np.ndarray,
    settings: tuple[float, ...],
    amsgrad: bool,
) -> None:
    rate, beta1, beta2, eps, keep, l2, root, sign = settings
    one = p.dtype.type(1)
    if amsgrad:
        for i in range(len(p)):
            d = sign * g[i] + l2 * p[i]
            m[i] += (one - beta1) * (d - m[i])
            v[i] = beta2 * v[i] + (one - beta2) * d * d
            top[i] = max(top[i], v[i])
            p[i] = keep * p[i] - rate * m[i] / (np.sqrt(top[i]) * root + eps)
    else:  # a loop of its own: `top` is then `v`, and aliases would keep it from being vectorised
        for i in range(len(p)):
            d = sign * g[i] + l2 * p[i]
            m[i] += (one - beta1) * (d - m[i])
            v[i] = beta2 * v[i] + (one - beta2) * d * d
            p[i] = keep * p[i] - rate * m[i] / (np.sqrt(v[i]) * root + eps)


@jit(parallel=True)  # type: ignore[untyped-decorator]
def _adam_chunks(
    p: np.ndarray,
    g: np.ndarray,
    m: np.ndarray,
    v: np.ndarray,
    top: np.ndarray,
    settings: tuple[float, ...],
    amsgrad: bool,
) -> None:
    for c in prange((len(p) + CHUNK - 1) // CHUNK):
        a, b = c * CHUNK, (c + 1) * CHUNK
        _adam_chunk(p[a:b], g[a:b], m[a:b], v[a:b], top[a:b], settings, amsgrad)


def adam_settings(
    dtype: np.dtype,
    step: int,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    l2: float,
    decay: float,
    sign: float,
) -> tuple[Any, ...]:
    """What `adam` needs to know of a step besides arrays, in their type."""
    rate = lr / (1 - beta1**step)
    root = (1 - beta2**step) ** -0.5
    return tuple(map(dtype.type, (rate, beta1, beta2, eps, 1 - lr * decay, l2, root, sign)))


def adam(
    p: np.ndarray,
    g: np.ndarray,
    m: np.ndarray,
    v: np.ndarray,
    top: np.ndarray | None,
    settings: tuple[Any, ...],
) -> None:
    """Update p, m, v and `top`, the largest v so far (AMSGrad), in place; all (*), of one type.

    m, v and top are contiguous. d = sign * g + l2 * p; m and v are the running means of d and d^2;
    p = (1 - lr * decay) * p - lr * m' / (sqrt(v') + eps), where ' divides by 1 - beta^step.

    D. Kingma, J. Ba, "Adam: A Method for Stochastic Optimization", 2015; decay as in I. Loshchilov,
    F. Hutter, "Decoupled Weight Decay Regularization", 2019.
    """
    run = _adam_chunk if p.size <= SERIAL else _adam_chunks
    flat = p.reshape(-1)
    means = v.reshape(-1)
    tops = means if top is None else top.reshape(-1)
    run(flat, g.reshape(-1), m.reshape(-1), means, tops, settings, top is not None)
    if not p.flags.c_contiguous:  # then `flat` is a copy
        p[...] = flat.reshape(p.shape)


@jit
def _sgd_chunk(
    p: np.ndarray, g: np.ndarray, m: np.ndarray, settings: tuple[float, ...], nesterov: bool
) -> None:
    rate, momentum, new, l2, sign = settings
    for i in range(len(p)):
        d = sign * g[i] + l2 * p[i]
        m[i] = momentum * m[i] + new * d
        p[i] -= rate * (d + momentum * m[i] if nesterov else m[i])


@jit(parallel=True)  # type: ignore[untyped-decorator]
def _sgd_chunks(
    p: np.ndarray, g: np.ndarray, m: np.ndarray, settings: tuple[float, ...], nesterov: bool
) -> None:
    for c in prange((len(p) + CHUNK - 1) // CHUNK):
        a, b = c * CHUNK, (c + 1) * CHUNK
        _sgd_chunk(p[a:b], g[a:b], m[a:b], settings, nesterov)


def sgd(
    p: np.ndarray,
    g: np.ndarray,
    m: np.ndarray,
    *,
    lr: float,
    momentum: float,
    new: float,
    l2: float,
    nesterov: bool,
    sign: float,
) -> None:
    """Update p and its momentum m in place; all (*) of one float type, m contiguous.

    d = sign * g + l2 * p; m = momentum * m + new * d; p -= lr * m, or for Nesterov's
    lr * (d + momentum * m).
    """
    settings = tuple(map(p.dtype.type, (lr, momentum, new, l2, sign)))
    run = _sgd_chunk if p.size <= SERIAL else _sgd_chunks
    flat = p.reshape(-1)
    run(flat, g.reshape(-1), m.reshape(-1), settings, nesterov)
    if not p.flags.c_contiguous:  # then `flat` is a copy
        p[...] = flat.reshape(p.shape)
