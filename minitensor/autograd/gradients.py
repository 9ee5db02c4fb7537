"""The two ways to run the backward pass: `backward` accumulates in leaves, `grad` returns."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..core import Tensor, attach, state, wrap
from ..core.backward import Roots, add_to_grad, run_backward
from ..core.node import edge_for
from ..errors import running
from ..kernels import clip
from .grad_mode import Mode, set_grad_enabled
from .inplace import overwritten


def backward(
    tensors: Tensor | Sequence[Tensor],
    grad_tensors: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Tensor | Sequence[Tensor] | None = None,
) -> None:
    """Accumulate the gradients of `tensors` in the `grad` of the leaves they depend on.

    With `inputs`, only in the `grad` of those. The saved tensors are freed unless `retain_graph`,
    which is `create_graph` by default; `create_graph` records the backward pass itself.

    Raises RuntimeError for a tensor that needs no gradient; for one of several elements without its
    gradient in `grad_tensors`; for a graph whose saved tensors were freed; for a saved tensor that
    was changed in place since.
    """
    outputs = _listed(tensors)
    grads = [None] * len(outputs) if grad_tensors is None else _listed(grad_tensors)
    keep = create_graph if retain_graph is None else retain_graph
    with _ending():
        if inputs is None:
            with Mode(grad=create_graph):
                _run(_roots(outputs, grads), keep)
            return
        targets = list(dict.fromkeys(_listed(inputs)))
        for t in targets:
            if not t.is_leaf:
                t.retain_grad()  # so that it accumulates as the pass goes through it
        found = grad(outputs, targets, grads, keep, create_graph, allow_unused=True)
        for t, g in zip(targets, found, strict=True):
            if g is not None and t.is_leaf:
                with set_grad_enabled(create_graph):
                    add_to_grad(t, g)
                    if t._hooks is not None:
                        t._hooks.after(t)


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Tensor, ...]:
    """Return the gradients of `outputs` with respect to `inputs`; no `grad` is touched.

    Raises RuntimeError for an input that `outputs` do not depend on, unless `allow_unused` (then
    its gradient is None) or `materialize_grads` (then it is zeros).
    """
    if is_grads_batched:
        raise NotImplementedError("is_grads_batched: call grad once for each gradient instead")
    outs, ins = _listed(outputs), _listed(inputs)
    grads = [None] * len(outs) if grad_outputs is None else _listed(grad_outputs)
    keep = create_graph if retain_graph is None else retain_graph
    wanted: dict[Any, int] = {}
    places: list[int | None] = []  # the number under which the gradient of each input is found
    for number, t in enumerate(ins):
        if not t.requires_grad:
            raise RuntimeError(
                f"One of the differentiated Tensors (number {number}) does not require grad"
            )
        edge = edge_for(t)
        places.append(None if edge is None else wanted.setdefault(edge, number))
    with Mode(grad=create_graph):
        found = _run(_roots(outs, grads), keep, wanted)
    result: list[Any] = []
    for number, (t, place) in enumerate(zip(ins, places, strict=True)):
        g = None if place is None else found.get(place)
        if g is None:
            if materialize_grads:
                g = wrap(np.zeros_like(t._array))
            elif not allow_unused:
                raise RuntimeError(
                    f"One of the differentiated Tensors (number {number}, shape {tuple(t.shape)}) "
                    "appears to not have been used in the graph. Set allow_unused=True if this is "
                    "the desired behavior."
                )
        result.append(g)
    return tuple(result)


def clear_gradients(tensors: Iterable[Tensor], set_to_none: bool) -> None:
    """Set the gradients of `tensors` to None, or else to zeros in place, in one pass over all.

    A gradient with a history is replaced by one over the same memory without it.
    """
    by_type: dict[np.dtype[Any], list[np.ndarray]] = {}
    for t in tensors:
        if set_to_none:
            t._grad = None
        elif t._grad is not None:
            if t._grad.requires_grad:
                t._grad = t._grad.detach()
            by_type.setdefault(t._grad._array.dtype, []).append(t._grad._array)
            overwritten(t._grad)
    for dtype, arrays in by_type.items():
        clip.zero(dtype, arrays)


def _listed(x: Any) -> list[Any]:
    return [x] if isinstance(x, Tensor) or x is None else list(x)


def _roots(outputs: Sequence[Tensor], grads: Sequence[Tensor | None]) -> Roots:
    """Return the edge of each output with its gradient, 1 for a scalar without one."""
    roots = []
    for number, (out, g) in enumerate(zip(outputs, grads, strict=True)):
        edge = edge_for(out)
        if edge is None or (isinstance(edge, Tensor) and edge is not out):
            raise RuntimeError(
                f"element {number} of tensors does not require grad and does not have a grad_fn"
            )
        if g is None:
            if out.numel() != 1:
                raise RuntimeError(
                    "grad can be implicitly created only for scalar outputs; this one has shape "
                    f"{tuple(out.shape)}: pass its gradient, or sum it first"
                )
            g = wrap(np.ones_like(out._array))
        elif g._array.shape != out._array.shape:
            raise RuntimeError(
                f"Mismatch in shape: grad_output[{number}] has a shape of {tuple(g.shape)} and "
                f"output[{number}] has a shape of {tuple(out.shape)}."
            )
        elif g._array.dtype != out._array.dtype:
            g = g.to(out._array.dtype)
        roots.append((edge, g))
    return roots


_DEEPEST = 40  # backward passes inside one another on one thread, as each needs Python's stack


AtEnd = Callable[[BaseException | None], None]


class _Depth(threading.local):
    passes = 0  # that run inside one another in this thread
    at_end: list[AtEnd] | None = None  # what to call at the end of the outermost `backward`


_depth = _Depth()


def at_end_of_backward(callback: AtEnd) -> None:
    """Have the `backward` that is running call `callback(error)` when all its gradients are there.

    `error` is the exception that ended it before, or None. For hooks; RuntimeError elsewhere.
    """
    if _depth.at_end is None:
        raise RuntimeError("at_end_of_backward: no backward pass is running")
    _depth.at_end.append(callback)


@contextmanager
def _ending() -> Iterator[None]:
    """Call what hooks asked for, at the end of a `backward` that runs in no other."""
    if _depth.at_end is not None:
        yield
        return
    callbacks = _depth.at_end = []
    failed: BaseException | None = None
    try:
        yield
    except BaseException as error:
        failed = error
        raise
    finally:
        _depth.at_end = None
        for callback in callbacks:
            callback(failed)


def _run(roots: Roots, keep_graph: bool, wanted: dict[Any, int] | None = None) -> dict[int, Tensor]:
    """Call `run_backward`, on a new thread if it is nested in too many others."""
    if _depth.passes < _DEEPEST:
        _depth.passes += 1
        try:
            return run_backward(roots, keep_graph, wanted)
        finally:
            _depth.passes -= 1
    grad, observers, modules = state.grad, state.observers, running.modules
    at_end = _depth.at_end
    found: dict[int, Tensor] = {}
    raised: list[BaseException] = []

    def run() -> None:
        state.grad, state.observers, running.modules = grad, observers, modules
        _depth.at_end = at_end
        try:
            found.update(_run(roots, keep_graph, wanted))
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
    return found


def _tensor_backward(
    self: Tensor,
    gradient: Tensor | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Tensor | Sequence[Tensor] | None = None,
) -> None:
    """Accumulate the gradient of this tensor in the `grad` of the leaves it depends on."""
    backward(self, gradient, retain_graph, create_graph, inputs)


attach("tensor", "backward", _tensor_backward)
