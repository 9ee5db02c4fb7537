"""The updates of Adam, AdamW and SGD: one call for all parameters of a type.

Element by element, so a result depends on nothing but its own element. Bound by memory: Adam reads
four arrays and writes three, 28 bytes for each float32 weight. Everything is computed in the type
of the arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .jit import jit
from .many import CHUNK, SIZES, Many, share
from .tasks import Tasks, array_at, records, unpacked


@jit
def _adam_chunk(
    p: Any, g: Any, m: Any, v: Any, top: Any, settings: tuple[float, ...], amsgrad: bool
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


def _adam(settings, like, task, tasks):  # type: ignore[no-untyped-def]
    for s in records(settings, unpacked(settings).count):
        p, g = array_at(like, s.p, (s.length,)), array_at(like, s.g, (s.length,))
        m, v = array_at(like, s.m, (s.length,)), array_at(like, s.v, (s.length,))
        top = array_at(like, s.top if s.amsgrad else s.v, (s.length,))
        of = p.dtype.type
        numbers = (
            of(s.rate), of(s.beta1), of(s.beta2), of(s.eps), of(s.keep), of(s.l2), of(s.root),
            of(s.sign),
        )  # fmt: skip
        start, stop = share(s, task, tasks)
        for a in range(start, stop, CHUNK):
            b = min(a + CHUNK, s.length)
            _adam_chunk(p[a:b], g[a:b], m[a:b], v[a:b], top[a:b], numbers, s.amsgrad != 0)


_run_adam = Tasks(_adam, f"{SIZES} p g m v top amsgrad", "rate beta1 beta2 eps keep l2 root sign")


def adam(
    many: Many,
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
    """Update p, m, v and `top`, the largest v so far (AMSGrad), in place, in the type `dtype`.

    d = sign * g + l2 * p; m and v are the running means of d and d^2;
    p = (1 - lr * decay) * p - lr * m' / (sqrt(v') + eps), where ' divides by 1 - beta^step.
    `many` keeps addresses from call to call.

    D. Kingma, J. Ba, "Adam: A Method for Stochastic Optimization", 2015; decay as in I. Loshchilov,
    F. Hutter, "Decoupled Weight Decay Regularization", 2019.
    """
    steps = np.array(step)
    many.run(
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
def _sgd_chunk(p: Any, g: Any, m: Any, settings: tuple[float, ...], nesterov: bool) -> None:
    rate, momentum, new, l2, sign = settings
    if momentum == 0:
        for i in range(len(p)):
            p[i] -= rate * (sign * g[i] + l2 * p[i])
    else:
        for i in range(len(p)):
            d = sign * g[i] + l2 * p[i]
            m[i] = momentum * m[i] + new * d
            p[i] -= rate * (d + momentum * m[i] if nesterov else m[i])


def _sgd(settings, like, task, tasks):  # type: ignore[no-untyped-def]
    for s in records(settings, unpacked(settings).count):
        p, g = array_at(like, s.p, (s.length,)), array_at(like, s.g, (s.length,))
        m = array_at(like, s.m if s.momentum else s.g, (s.length,))
        of = p.dtype.type
        numbers = of(s.rate), of(s.momentum), of(s.new), of(s.l2), of(s.sign)
        start, stop = share(s, task, tasks)
        for a in range(start, stop, CHUNK):
            b = min(a + CHUNK, s.length)
            _sgd_chunk(p[a:b], g[a:b], m[a:b], numbers, s.nesterov != 0)


_run_sgd = Tasks(_sgd, f"{SIZES} p g m nesterov", "rate momentum new l2 sign")


def sgd(
    many: Many,
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
    """Update p and its momentum m in place, in the type `dtype`.

    d = sign * g + l2 * p; m = momentum * m + new * d; p -= lr * m, or for Nesterov's
    lr * (d + momentum * m). Without momentum m and new are empty. `many` keeps addresses from call
    to call.
    """
    many.run(
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
