"""`check_op`: every check of one op, in one call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..autograd.grad_mode import no_grad
from ..autograd.gradcheck import gradcheck, gradgradcheck
from ..core import Op, Tensor, wrap
from ..dtype import FLOATING
from ..dtype import dtype as DType
from .cells import check_cells, runs
from .close import assert_close
from .samples import leaves, replaced, samples

# rtol and atol between a kernel and its decomposition in each type.
APART: dict[np.dtype[Any], float] = {np.dtype(np.float64): 1e-10, np.dtype(np.float32): 2e-5}


def check_op(
    op: Any,
    *args: Any,
    reference: Callable[..., Any] | None = None,
    second: bool = True,
    **kwargs: Any,
) -> Counter[str]:
    """Raise AssertionError unless `op(*args, **kwargs)` passes every check that applies.

    `op` is an `Op`, a `Function` or any function of tensors. Float tensors among the arguments that
    require grad are checked; they are best float64 and small. An `Op` without arguments is tried on
    each of its own samples.

    - forward: it gives the same numbers twice and leaves its arguments as they were;
    - backward: its gradients agree with central differences (`gradcheck`);
    - second derivative, if `second`: so do the gradients of its gradients (`gradgradcheck`);
    - `reference`, by default the op's own: the same values within 1e-10, and 2e-5 in float32, and
      the same gradients. It may return arrays; then only values are compared.
    - cells: an `Op` that has a `cell` or `moves` tells for some cells of its results what it
      computes, and exactly the cells that it reads (`check_cells`).

    Returns the number of checks of each kind, so that a test can see that there were any. The
    message names the op, the part that failed and the place.
    """
    own = isinstance(op, type) and issubclass(op, Op)
    name = op.op_name if own else getattr(op, "__name__", type(op).__name__)
    call = op.call if own else getattr(op, "apply", op)  # a Function has `apply`
    done: Counter[str] = Counter()
    cases = [(list(args), kwargs)] if args or kwargs or not own else samples(op)
    if not cases:
        raise ValueError(f"{name} has no samples: give check_op arguments to try it on")
    for a, k in cases:
        part = "forward"
        try:
            wanted = _forward(call, a, k)
            done["forwards"] += 1
            if wanted and (not own or op.differentiable):
                function = _closed(call, a, k)
                part = "backward"
                gradcheck(function, wanted)
                done["gradchecks"] += 1
                if second:
                    part = "second derivative"
                    gradgradcheck(function, wanted, fast_mode=True)
                    done["second-order checks"] += 1
            part = "reference"
            for one, two, aa, kk in _references(op, own, call, reference, a, k):
                for dtype in APART:
                    _agree(one, two, aa, kk, dtype)
                    done["references"] += 1
            part = "cells"
            if own and op.forward is not Op.forward:
                for forward_args, settings in runs(op, a, k):
                    done += check_cells(op, forward_args, settings, cells=2)
        except (AssertionError, RuntimeError, ValueError, TypeError) as error:
            raise AssertionError(f"{name}: {part}: {error}\nwith {_shown(a, k)}") from error
    return done


def _shown(args: Sequence[Any], kwargs: dict[str, Any]) -> str:
    def short(x: Any) -> str:
        return f"{x.dtype}{tuple(x.shape)}" if isinstance(x, Tensor) else repr(x)

    return ", ".join([*map(short, args), *(f"{key}={short(x)}" for key, x in kwargs.items())])


def _closed(
    call: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]
) -> Callable[..., tuple[Tensor, ...]]:
    """Return the call as a function of its tensors that require grad."""
    tensors = leaves([args, kwargs])

    def function(*new: Tensor) -> tuple[Tensor, ...]:
        given = iter(new)
        every = iter([next(given) if t.requires_grad else t for t in tensors])
        a, k = replaced([args, kwargs], every)
        return tuple(leaves([call(*a, **k)]))

    return function


def _forward(call: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> list[Tensor]:
    """Run it twice; the tensors to differentiate by, none if no result can be differentiated."""
    tensors = leaves([args, kwargs])
    before = [t._array.copy() for t in tensors]
    with no_grad():
        once, twice = (leaves([call(*args, **kwargs)]) for _ in range(2))
    for number, (a, b) in enumerate(zip(once, twice, strict=True)):
        if not np.array_equal(a._array, b._array, a._array.dtype.kind in FLOATING):
            raise AssertionError(f"output {number} differs in a second run")
    for number, (t, was) in enumerate(zip(tensors, before, strict=True)):
        if not np.array_equal(t._array, was, was.dtype.kind in FLOATING):
            raise AssertionError(f"tensor {number} of the arguments was changed")
    outs = leaves([call(*args, **kwargs)])
    if not any(out.requires_grad for out in outs):
        return []
    return [t for t in tensors if t.requires_grad]


def _references(
    op: Any,
    own: bool,
    call: Callable[..., Any],
    reference: Callable[..., Any] | None,
    args: list[Any],
    kwargs: dict[str, Any],
) -> Iterator[tuple[Callable[..., Any], Callable[..., Any], list[Any], dict[str, Any]]]:
    """Yield pairs of functions to compare and arguments; an op's reference is that of `apply`."""
    if reference is not None:
        yield call, reference, args, kwargs
        return
    if not own or op.decomposition is None:
        return
    seen: list[Any] = []
    apply = op.apply

    def spy(*a: Any, **k: Any) -> Any:
        seen.append((list(a), k))
        return apply(*a, **k)

    op.apply = spy
    try:
        call(*args, **kwargs)
    finally:
        del op.apply
    if not seen and op.fused:
        raise AssertionError(f"{op.__name__}.call does not reach {op.__name__}.apply")
    for a, k in seen:
        yield op.apply, op.decomposition, a, k


def _agree(
    one: Callable[..., Any],
    two: Callable[..., Any],
    args: list[Any],
    kwargs: dict[str, Any],
    dtype: np.dtype,
) -> None:
    """Check that values and gradients of two functions agree in one type."""
    results, gradients = [], []
    for function in (one, two):
        tensors = [_as_type(t, dtype) for t in leaves([args, kwargs])]
        a, k = replaced([args, kwargs], iter(tensors))
        types = {key: x for key, x in k.items() if isinstance(x, np.dtype | DType)}
        doubles = [key for key, x in types.items() if x == np.float64]
        k.update(dict.fromkeys(doubles, dtype))
        made = function(*a, **k)
        outs = leaves([made]) or [wrap(np.asarray(x)) for x in _arrays(made)]
        noise = np.random.RandomState(3)
        for out in outs:
            if out.requires_grad:
                dy = np.asarray(noise.standard_normal(out.shape), out.dtype)
                out.backward(wrap(dy), retain_graph=True)
        results.append(outs)
        wanted = [t for t in tensors if t.requires_grad]
        gradients.append(
            [wrap(np.zeros_like(t._array)) if t.grad is None else t.grad for t in wanted]
        )
    near: dict[str, Any] = dict(
        rtol=APART[dtype], atol=APART[dtype], equal_nan=True, check_dtype=False
    )
    if len(results[0]) != len(results[1]):
        raise AssertionError(
            f"{len(results[0])} results, but {len(results[1])} of the decomposition"
        )
    for number, (mine, theirs) in enumerate(zip(*results, strict=True)):
        label = f"output {number} in {dtype}"
        assert_close(mine.detach(), theirs.detach(), msg=partial(_prefixed, label), **near)
    if not any(out.requires_grad for out in results[1]):
        return
    for number, (mine, theirs) in enumerate(zip(*gradients, strict=True)):
        label = f"gradient {number} in {dtype}"
        assert_close(mine, theirs, msg=partial(_prefixed, label), **near)


def _prefixed(place: str, message: str) -> str:
    return f"{place}: {message}"


def _arrays(made: Any) -> list[Any]:
    return list(made) if isinstance(made, tuple | list) else [made]


def _as_type(t: Tensor, dtype: np.dtype) -> Tensor:
    """Return a copy; float64 becomes `dtype`."""
    array = np.array(t._array)
    made: Tensor = wrap(array.astype(dtype) if array.dtype == np.float64 else array)
    made._requires_grad = t.requires_grad
    return made
