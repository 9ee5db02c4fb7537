"""Checks of gradients against finite differences, with PyTorch's signatures.

The analytic Jacobian comes from the backward pass, one row per output element; the numeric one from
central differences, one column per input element. They are compared element by element, so that a
failure says where it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..core import Alias, Tensor, wrap
from .grad_mode import enable_grad
from .gradients import grad


class GradcheckError(RuntimeError):
    """The analytic and the numeric gradient differ; the message says where."""


def gradcheck(
    func: Callable[..., Any],
    inputs: Tensor | Sequence[Any],
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    fast_mode: bool = False,
) -> bool:
    """Return True if the gradients of `func(*inputs)` agree with central differences of step `eps`.

    Every float64 tensor in `inputs` that requires grad is checked against every output that does:
    |analytic - numeric| <= atol + rtol * |numeric| for each pair of elements. The backward pass is
    run twice and must agree with itself within `nondet_tol`; with `check_undefined_grad`, an output
    whose gradient is not given must count as one with a gradient of zeros. `fast_mode` compares one
    random projection instead of every pair.

    Raises GradcheckError (a RuntimeError) that names the output, the input, the element and both
    numbers, or returns False if `raise_exception` is False. ValueError if nothing requires grad.
    """
    args = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    checked = [i for i, a in enumerate(args) if isinstance(a, Tensor) and a.requires_grad]
    if not checked:
        raise ValueError(
            "gradcheck expects at least one input tensor to require gradient, "
            "but none of them have requires_grad=True."
        )
    for i in checked:
        t = args[i]
        if t.dtype != np.float64:
            raise ValueError(
                f"gradcheck: input {i} is {t.dtype}; finite differences need float64: use .double()"
            )
        strides = zip(t._array.strides, t._array.shape, strict=True)
        if t._array.size and any(s == 0 and n > 1 for s, n in strides):
            raise RuntimeError(
                f"gradcheck: input {i} is expanded: several elements share one place in memory, "
                "so it cannot be perturbed element by element. Call .contiguous() first."
            )
    try:
        _check(func, args, checked, eps, atol, rtol, nondet_tol, fast_mode)
        if check_grad_dtypes:
            _check_dtypes(func, args, checked)
        if check_undefined_grad:
            _check_undefined(func, args, checked)
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def gradgradcheck(
    func: Callable[..., Any],
    inputs: Tensor | Sequence[Any],
    grad_outputs: Tensor | Sequence[Tensor] | None = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    gen_non_contig_grad_outputs: bool = False,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    fast_mode: bool = False,
) -> bool:
    """Check the second derivatives of `func`, also with respect to the output gradients.

    `grad_outputs` are the gradients to start from, random ones by default.
    """
    args = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    checked = [i for i, a in enumerate(args) if isinstance(a, Tensor) and a.requires_grad]
    if not checked:
        raise ValueError("gradgradcheck expects at least one input tensor to require gradient.")
    outs = _outputs(func, args)
    if grad_outputs is None:
        noise = np.random.RandomState(0)
        starts = []
        for out in outs:
            values = noise.randn(*out.shape) if out.ndim else np.asarray(noise.randn())
            if gen_non_contig_grad_outputs and out.ndim:
                values = np.repeat(values[..., None], 2, -1)[..., 0]
            start = wrap(values.astype(out.dtype))
            start._requires_grad = True
            starts.append(start)
    else:
        starts = [grad_outputs] if isinstance(grad_outputs, Tensor) else list(grad_outputs)

    def gradients(*both: Any) -> tuple[Tensor, ...]:
        given, dys = both[: len(args)], both[len(args) :]
        with enable_grad():
            results = _outputs(func, given)
            wanted = [given[i] for i in checked]
            found = grad(results, wanted, list(dys), create_graph=True, allow_unused=True)
        # One tensor may be the gradient of several inputs: each output is one of its own.
        return tuple(Alias.apply(g) for g in found if g is not None and g.requires_grad)

    if not gradients(*args, *starts):
        return True  # linear, with a constant gradient: nothing to check
    return gradcheck(
        gradients,
        (*args, *starts),
        eps=eps,
        atol=atol,
        rtol=rtol,
        raise_exception=raise_exception,
        nondet_tol=nondet_tol,
        check_undefined_grad=check_undefined_grad,
        check_grad_dtypes=check_grad_dtypes,
        fast_mode=fast_mode,
    )


def _outputs(func: Callable[..., Any], args: Sequence[Any]) -> list[Tensor]:
    """Return the outputs of `func` that have a gradient."""
    result = func(*args)
    results = [result] if isinstance(result, Tensor) else list(result)
    return [r for r in results if isinstance(r, Tensor) and r.requires_grad]


def _values(func: Callable[..., Any], args: Sequence[Any], count: int) -> list[np.ndarray]:
    """Return copies of the first `count` floating outputs."""
    result = func(*args)
    results = [result] if isinstance(result, Tensor) else list(result)
    floats = [r for r in results if isinstance(r, Tensor) and r.requires_grad]
    return [r._array.astype(np.float64, copy=True) for r in floats[:count]]


def _row(outs: list[Tensor], wanted: list[Tensor], which: int, dy: np.ndarray) -> list[np.ndarray]:
    """Return the gradients of all inputs for one gradient of one output."""
    found = grad(
        outs[which],
        wanted,
        wrap(np.asarray(dy, outs[which].dtype)),
        retain_graph=True,
        allow_unused=True,
    )
    return [
        np.zeros(t.shape) if g is None else g._array.astype(np.float64)
        for t, g in zip(wanted, found, strict=True)
    ]


def _check(
    func: Callable[..., Any],
    args: tuple[Any, ...],
    checked: list[int],
    eps: float,
    atol: float,
    rtol: float,
    nondet_tol: float,
    fast_mode: bool,
) -> None:
    with enable_grad():
        outs = _outputs(func, args)
    wanted = [args[i] for i in checked]
    if not outs:
        raise GradcheckError("gradcheck: no output of the function requires grad")
    noise = np.random.RandomState(7)
    starts: list[np.ndarray] = []  # per output, the gradients to start from, along the first axis
    jacobians: list[list[np.ndarray]] = []  # per output and input, the gradients for each start
    for o, out in enumerate(outs):
        if fast_mode:
            dys = direction_in(noise, out.shape)[None]
        else:
            dys = np.eye(out.numel()).reshape(out.numel(), *out.shape)
        rows = [_row(outs, wanted, o, dy) for dy in dys]
        starts.append(dys)
        jacobians.append([np.array([row[slot] for row in rows]) for slot in range(len(wanted))])
        if len(dys):
            again = _row(outs, wanted, o, dys[0])
            _check_repeats(o, checked, rows[0], again, nondet_tol)
    for slot, i in enumerate(checked):
        array = args[i]._array
        if array.size == 0:
            continue
        directions: Any = (
            [direction_in(noise, array.shape)] if fast_mode else np.ndindex(array.shape)
        )
        for direction in directions:
            differences = _difference(func, args, array, direction, eps, len(outs))
            for o, numeric in enumerate(differences):
                dys, jacobian = starts[o], jacobians[o][slot]
                if not len(dys):
                    continue
                count = len(dys)
                expected = (dys * numeric).reshape(count, -1).sum(1)
                if fast_mode:
                    found = (jacobian * direction).reshape(count, -1).sum(1)
                else:
                    found = jacobian[(slice(None), *direction)]
                near = np.isclose(found, expected, rtol=rtol, atol=atol, equal_nan=True)
                if near.all():
                    continue
                worst = int((~near).argmax())
                where = "along a random direction (run without fast_mode to see the element)"
                if not fast_mode:
                    place = np.unravel_index(worst, outs[o].shape)
                    where = (
                        f"at input element {tuple(map(int, direction))}, "
                        f"output element {tuple(map(int, place))}"
                    )
                raise GradcheckError(
                    f"Jacobian mismatch for output {o} with respect to input {i} {where}:\n"
                    f"numerical: {expected[worst]:.9g}\nanalytical: {found[worst]:.9g}\n"
                    f"difference {abs(found[worst] - expected[worst]):.3g} > "
                    f"atol={atol:g} + rtol={rtol:g} * |numerical|"
                )


def _check_repeats(
    o: int, checked: list[int], once: list[np.ndarray], again: list[np.ndarray], nondet_tol: float
) -> None:
    """Raise GradcheckError if two runs of the backward pass of output `o` differ."""
    for i, a, b in zip(checked, once, again, strict=True):
        if not np.all((np.abs(a - b) <= nondet_tol) | (a == b) | (np.isnan(a) & np.isnan(b))):
            raise GradcheckError(
                f"Backward is not reentrant: two runs of the backward of output {o} gave "
                f"gradients of input {i} that differ by {np.abs(a - b).max():.3g}, above "
                f"nondet_tol={nondet_tol}."
            )


def direction_in(noise: np.random.RandomState, shape: tuple[int, ...]) -> np.ndarray:
    """Return a random direction in which no element counts for little."""
    return np.asarray(noise.uniform(0.5, 1.5, shape) * noise.choice([-1.0, 1.0], shape))


def _difference(
    func: Callable[..., Any],
    args: tuple[Any, ...],
    array: np.ndarray,
    direction: Any,
    eps: float,
    count: int,
) -> list[np.ndarray]:
    """Return the central difference of every output along an element or direction of `array`."""
    before = array.copy()
    try:
        if isinstance(direction, tuple):
            array[direction] = before[direction] + eps
            high = _values(func, args, count)
            array[direction] = before[direction] - eps
        else:
            array[...] = before + eps * direction
            high = _values(func, args, count)
            array[...] = before - eps * direction
        low = _values(func, args, count)
    finally:
        array[...] = before
    return [(h - w) / (2 * eps) for h, w in zip(high, low, strict=True)]


def _check_dtypes(func: Callable[..., Any], args: tuple[Any, ...], checked: list[int]) -> None:
    outs = _outputs(func, args)
    for o, out in enumerate(outs):
        found = grad(
            out, [args[i] for i in checked], wrap(np.ones_like(out._array)), True, allow_unused=True
        )
        for i, g in zip(checked, found, strict=True):
            if g is not None and g.dtype != args[i].dtype:
                raise GradcheckError(
                    f"the gradient of input {i} from output {o} is {g.dtype}, not {args[i].dtype}"
                )


def _check_undefined(func: Callable[..., Any], args: tuple[Any, ...], checked: list[int]) -> None:
    """Check that an output left out of the backward pass counts as one with zero gradient."""
    outs = _outputs(func, args)
    if len(outs) < 2:
        return
    wanted = [args[i] for i in checked]
    for o, out in enumerate(outs):
        alone = grad(out, wanted, wrap(np.ones_like(out._array)), True, allow_unused=True)
        zeros = [
            wrap(np.ones_like(p._array) if p is out else np.zeros_like(p._array)) for p in outs
        ]
        together = grad(outs, wanted, zeros, True, allow_unused=True)
        for i, a, b in zip(checked, alone, together, strict=True):
            left = 0.0 if a is None else a._array
            right = 0.0 if b is None else b._array
            if not np.allclose(left, right, equal_nan=True):
                raise GradcheckError(
                    f"an undefined gradient is not taken as zeros: input {i}, output {o} alone"
                )
