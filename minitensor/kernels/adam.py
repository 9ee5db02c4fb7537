"""The updates of Adam, AdamW and SGD, fused: one call for all parameters of a dtype.

Elementwise and in one pass, in the dtype of the arrays. Bound by memory: Adam reads four arrays and
writes three, 28 bytes for each float32 weight.

D. Kingma, J. Ba, "Adam: A Method for Stochastic Optimization", 2015; I. Loshchilov, F. Hutter,
"Decoupled Weight Decay Regularization", 2019 (AdamW); S. Reddi, S. Kale, S. Kumar, "On the
Convergence of Adam and Beyond", 2018 (AMSGrad).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .jit import jit
from .multi_tensor import CHUNK, SIZES, MultiTensor, chunk_range
from .parallel import ParallelKernel, array_at, records, unpacked


@jit
def _adam_chunk(
    p: Any, g: Any, m: Any, v: Any, top: Any, numbers: tuple[float, ...], amsgrad: bool
) -> None:
    rate, beta1, beta2, eps, keep, l2, root, sign = numbers
    one = p.dtype.type(1)
    if amsgrad:
        for i in range(len(p)):
            d = sign * g[i] + l2 * p[i]
            m[i] += (one - beta1) * (d - m[i])
            v[i] = beta2 * v[i] + (one - beta2) * d * d
            top[i] = max(top[i], v[i])
            p[i] = keep * p[i] - rate * m[i] / (np.sqrt(top[i]) * root + eps)
    else:  # a loop of its own: `top` is `v` here, and LLVM would not vectorise over the alias
        for i in range(len(p)):
            d = sign * g[i] + l2 * p[i]
            mean = m[i] + (one - beta1) * (d - m[i])
            square = beta2 * v[i] + (one - beta2) * d * d
            m[i], v[i] = mean, square
            p[i] = keep * p[i] - rate * mean / (np.sqrt(square) * root + eps)


def _adam(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    for s in records(arguments, unpacked(arguments).count):
        p, g = array_at(exemplar, s.p, (s.length,)), array_at(exemplar, s.g, (s.length,))
        m, v = array_at(exemplar, s.m, (s.length,)), array_at(exemplar, s.v, (s.length,))
        top = array_at(exemplar, s.top if s.amsgrad else s.v, (s.length,))
        of = p.dtype.type
        numbers = (
            of(s.rate), of(s.beta1), of(s.beta2), of(s.eps), of(s.keep), of(s.l2), of(s.root),
            of(s.sign),
        )  # fmt: skip
        start, stop = chunk_range(s, task, tasks)
        for a in range(start, stop, CHUNK):
            b = min(a + CHUNK, s.length)
            _adam_chunk(p[a:b], g[a:b], m[a:b], v[a:b], top[a:b], numbers, s.amsgrad != 0)


_run_adam = ParallelKernel(
    _adam, f"{SIZES} p g m v top amsgrad", "rate beta1 beta2 eps keep l2 root sign"
)


def adam(
    multi: MultiTensor,
    dtype: np.dtype[Any],
    p: list[np.ndarray],
    g: list[np.ndarray],
    m: list[np.ndarray],
    v: list[np.ndarray],
    top: list[np.ndarray] | None,
    step: list[float],
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    l2: float,
    decay: float,
    sign: float,
) -> None:
    """Update p, m, v and `top`, the largest v so far (AMSGrad), in place, in `dtype`.

    d = sign * g + l2 * p; m and v are the running means of d and d^2;
    p = (1 - lr * decay) * p - lr * m' / (sqrt(v') + eps), where ' divides by 1 - beta^step.
    `multi` keeps addresses from call to call.
    """
    steps = np.array(step)
    multi.run(
        _run_adam,
        dtype,
        dict(g=g),
        dict(p=p, m=m, v=v) | ({} if top is None else dict(top=top)),
        amsgrad=top is not None,
        rate=lr / (1 - beta1**steps),
        beta1=beta1,
        beta2=beta2,
        eps=eps,
        keep=1 - lr * decay,
        l2=l2,
        root=(1 - beta2**steps) ** -0.5,
        sign=sign,
    )


@jit
def _sgd_chunk(p: Any, g: Any, m: Any, numbers: tuple[float, ...], nesterov: bool) -> None:
    rate, momentum, new, l2, sign = numbers
    if momentum == 0:
        for i in range(len(p)):
            p[i] -= rate * (sign * g[i] + l2 * p[i])
    else:
        for i in range(len(p)):
            d = sign * g[i] + l2 * p[i]
            m[i] = momentum * m[i] + new * d
            p[i] -= rate * (d + momentum * m[i] if nesterov else m[i])


def _sgd(arguments, exemplar, task, tasks):  # type: ignore[no-untyped-def]
    for s in records(arguments, unpacked(arguments).count):
        p, g = array_at(exemplar, s.p, (s.length,)), array_at(exemplar, s.g, (s.length,))
        m = array_at(exemplar, s.m if s.momentum else s.g, (s.length,))
        of = p.dtype.type
        numbers = of(s.rate), of(s.momentum), of(s.new), of(s.l2), of(s.sign)
        start, stop = chunk_range(s, task, tasks)
        for a in range(start, stop, CHUNK):
            b = min(a + CHUNK, s.length)
            _sgd_chunk(p[a:b], g[a:b], m[a:b], numbers, s.nesterov != 0)


_run_sgd = ParallelKernel(_sgd, f"{SIZES} p g m nesterov", "rate momentum new l2 sign")


def sgd(
    multi: MultiTensor,
    dtype: np.dtype[Any],
    p: list[np.ndarray],
    g: list[np.ndarray],
    m: list[np.ndarray],
    new: list[float],
    *,
    lr: float,
    momentum: float,
    l2: float,
    nesterov: bool,
    sign: float,
) -> None:
    """Update p and its momentum m in place, in `dtype`.

    d = sign * g + l2 * p; m = momentum * m + new * d; p -= lr * m, or with Nesterov momentum
    p -= lr * (d + momentum * m). Without momentum m and new are empty. `multi` keeps addresses from
    call to call.
    """
    multi.run(
        _run_sgd,
        dtype,
        dict(g=g),
        dict(p=p, m=m) if momentum else dict(p=p),
        nesterov=nesterov,
        rate=lr,
        momentum=momentum,
        new=new or 1.0,
        l2=l2,
        sign=sign,
    )
