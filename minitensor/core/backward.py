"""The walk back through the graph: `backward`, `grad`, and the hooks on tensors."""

from __future__ import annotations

import heapq
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import memory
from ..kernels import residual
from .op import Alias, Op, clock, has_nan
from .saved import edge_for
from .state import Mode, explain, set_grad_enabled, state
from .tensor import Tensor, wrap


class _Sum:
    """Accumulates the gradients of one output or leaf.

    The first is kept without a copy; a sum is made when a second arrives. `owned` says that nothing
    else refers to the array of `value`, so that it may be written in or become a leaf's `grad`.
    """

    __slots__ = ("owned", "value")

    def __init__(self, value: Tensor, owned: bool) -> None:
        self.value = value
        self.owned = owned

    def add(self, other: Tensor) -> None:
        if state.grad:
            self.value = self.value + other
            return
        a, b = self.value._array, other._array
        out = a if self.owned else None
        large = a.nbytes >= memory.SMALLEST and a.flags.c_contiguous and b.flags.c_contiguous
        if large and a.dtype.char in "fd":
            total = residual.dropout_add(a, b, out=out)  # drops nothing: a sum by all threads
        else:
            total = np.asarray(state.quietly(np.add, a, b, out))
        if out is None:
            self.value = wrap(total)
            self.owned = True


def _fit(g: Tensor, edge: Any, op: Op, number: int) -> Tensor:
    """The gradient `g` in the shape and type of what it belongs to, or a RuntimeError."""
    if isinstance(edge, Tensor):
        shape, dtype = edge._array.shape, edge._array.dtype
    else:
        shape, dtype = edge[0].output_meta[edge[1]]
    have = g._array.shape
    if have == shape and g._array.dtype == dtype:
        return g
    if have != shape:
        extra = len(have) - len(shape)
        pairs = list(enumerate(zip(shape, have[max(extra, 0) :], strict=False)))
        if not op.broadcasts or extra < 0 or any(n not in (1, m) for _, (n, m) in pairs):
            raise RuntimeError(
                f"{op.name()} returned an invalid gradient at index {number}: got shape {have} but "
                f"expected shape {tuple(shape)}"
            )
        dims = tuple(range(extra)) + tuple(i + extra for i, (n, m) in pairs if n != m)
        g = g.sum(dims).reshape(shape)
    if g._array.dtype != dtype:
        g = g.to(dtype) if state.grad else wrap(g._array.astype(dtype))
    return g


def _gradients(node: Op, grads: list[Tensor | None]) -> tuple[Any, ...]:
    """The gradients of the arguments of `node`, as tensors, by its backward rule."""
    if len(grads) > 1 and node.materialize:
        grads = [
            wrap(np.zeros(*meta)) if g is None and meta[1] is not None else g
            for g, meta in zip(grads, node.output_meta, strict=True)
        ]
    if not node.fused:
        found = node.gradients(*grads)
        return found if type(found) is tuple else (found,)
    if state.grad:
        return _differentiate_reference(node, grads)
    node._saved.open()  # a checkpoint runs ops for it, which the call below may not
    given = [g for g in grads if g is not None]
    try:
        arrays = state.quietly(node.backward, *[g._array for g in given])
    except MemoryError as error:
        raise explain(f"{node.op_name} (backward)", error, given) from error
    if type(arrays) is not tuple:
        arrays = (arrays,)
    return tuple([None if a is None else wrap(np.asarray(a)) for a in arrays])


def _differentiate_reference(node: Op, grads: list[Any]) -> tuple[Any, ...]:
    """The gradients as functions that can be differentiated again, through the op's reference."""
    reference = type(node).decomposition
    if reference is None or node._inputs is None:
        raise RuntimeError(f"{node.op_name} has no second derivative: it carries no reference")
    inputs = node._inputs.open()
    inputs.check(node.name())
    # Fresh aliases, because one argument may have been computed from another.
    args = [Alias.apply(a) if isinstance(a, Tensor) else a for a in inputs.tensors(node)]
    outs = reference(*args, **(node._kwargs or {}))
    outs = outs if isinstance(outs, tuple) else (outs,)
    pairs = [(o, g) for o, g in zip(outs, grads, strict=True) if o.requires_grad]
    wanted = [a for a in args if isinstance(a, Tensor) and a.requires_grad]
    found = iter(
        grad(
            [o for o, _ in pairs],
            wanted,
            [g for _, g in pairs],
            create_graph=True,
            allow_unused=True,
        )
        if wanted
        else ()
    )
    return tuple(next(found) if isinstance(a, Tensor) and a.requires_grad else None for a in args)


def _walk(
    roots: list[tuple[Any, Tensor]],
    keep: bool,
    wanted: dict[Any, int] | None = None,
) -> dict[int, Tensor]:
    """Carry the gradients of `roots` back. Without `wanted`, leaves accumulate them; with it, only
    the way to those places is walked, and what arrives there is returned by its number."""
    sums: dict[Any, list[_Sum | None]] = {}  # per op, the gradient of each output
    leaves: dict[Tensor, _Sum] = {}
    queue: list[tuple[int, Op]] = []
    useful = None if wanted is None else _leading_to(wanted, [edge for edge, _ in roots])
    found: dict[int, Tensor] = {}

    uses = _uses_of_leaves([edge for edge, _ in roots]) if _leaves_have_hooks else {}

    def finish(leaf: Tensor) -> None:
        total = leaves.pop(leaf)
        if leaf._edge is not None:
            raise RuntimeError(
                f"leaf variable has been moved into the graph interior: the tensor of shape "
                f"{tuple(leaf.shape)} was a leaf when an op used it, and was changed in place since"
            )
        for hook in list((leaf._hooks or {}).values()):
            changed = hook(total.value)
            total.value = total.value if changed is None else changed
        if wanted is not None:
            g = total.value
            found[wanted[leaf]] = g if g.is_contiguous() else g.contiguous()
        else:
            _accumulate(leaf, total.value, total.owned)
            _run_post_hooks(leaf)

    def deliver(edge: Any, g: Tensor, owned: bool) -> None:
        if isinstance(edge, Tensor):
            if edge in wanted if wanted is not None else edge._requires_grad:
                if edge in leaves:
                    leaves[edge].add(g)
                else:
                    leaves[edge] = _Sum(g, owned)
            return
        node, number = edge
        if useful is not None and node not in useful:
            return
        slots = sums.get(node)
        if slots is None:
            slots = sums[node] = [None] * len(node.output_meta)
            heapq.heappush(queue, (-node.sequence_nr, node))
        slot = slots[number]
        if slot is None:
            slots[number] = _Sum(g, owned)
        else:
            slot.add(g)

    def used(edges: Sequence[Any]) -> None:
        for edge in edges:
            if isinstance(edge, Tensor):
                uses[edge] -= 1
                if not uses[edge] and edge in leaves:
                    finish(edge)

    for edge, g in roots:
        deliver(edge, g, False)
    if uses:
        used([edge for edge, _ in roots])
    while queue:
        node = heapq.heappop(queue)[1]
        grads = [None if s is None else s.value for s in sums.pop(node)]
        if node._hooks or node._retain:
            _run_hooks(node, grads)
        if wanted is not None:
            for number, arrived in enumerate(grads):
                if arrived is not None and (node, number) in wanted:
                    found[wanted[node, number]] = arrived
            if useful is not None and not useful[node]:
                continue
        dins = _watched_gradients(node, grads) if state.watched else _gradients(node, grads)
        if not keep:
            node.free()
        del grads
        edges = node.edges
        owned = node.fresh and not state.watched  # a recorder keeps gradients
        if len(dins) > len(edges) and any(d is not None for d in dins[len(edges) :]):
            raise RuntimeError(
                f"function {node.name()} returned an incorrect number of gradients "
                f"(expected {len(edges)}, got {len(dins)})"
            )
        for number, (edge, d) in enumerate(zip(edges, dins, strict=False)):
            if edge is None or d is None:
                continue
            deliver(edge, _fit(d, edge, node, number), owned)
        del dins
        if uses:
            used(edges)
    for leaf in list(leaves):
        finish(leaf)
    return found


# Once a leaf has a hook, it can be seen when its gradient is complete.
_leaves_have_hooks = False


def _uses_of_leaves(roots: list[Any]) -> dict[Tensor, int]:
    """For each leaf, by how many arguments of the ops that lead to `roots` it is used."""
    uses: dict[Tensor, int] = {}
    stack, seen = list(roots), set()
    while stack:
        edge = stack.pop()
        if isinstance(edge, Tensor):
            uses[edge] = uses.get(edge, 0) + 1
        elif edge is not None and edge[0] not in seen:
            seen.add(edge[0])
            stack += edge[0].edges
    return uses


_DEEPEST = 40  # backward passes inside one another on one thread, as each needs Python's stack


def _run(
    roots: list[tuple[Any, Tensor]], keep: bool, wanted: dict[Any, int] | None = None
) -> dict[int, Tensor]:
    """`_walk`, on a thread of its own if it runs inside of too many others."""
    if state.depth < _DEEPEST:
        state.depth += 1
        try:
            return _walk(roots, keep, wanted)
        finally:
            state.depth -= 1
    modes = state.modes()
    found: dict[int, Tensor] = {}
    raised: list[BaseException] = []

    def run() -> None:
        state.set(**modes)
        try:
            found.update(_walk(roots, keep, wanted))
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
    return found


def _leading_to(wanted: dict[Any, int], roots: list[Any]) -> dict[Op, bool]:
    """The ops on the way to `wanted`; True where something earlier than the op is wanted."""
    seen: set[Op] = set()
    stack = [edge[0] for edge in roots if not isinstance(edge, Tensor)]
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack += [e[0] for e in node.edges if type(e) is tuple and e[0] not in seen]
    targets = {place[0] for place in wanted if not isinstance(place, Tensor)}
    useful: dict[Op, bool] = {}
    for node in sorted(seen, key=lambda n: n.sequence_nr):
        passes = any(
            (e in wanted) if isinstance(e, Tensor) else (e is not None and e[0] in useful)
            for e in node.edges
        )
        if passes or node in targets:
            useful[node] = passes
    return useful


def _run_hooks(node: Op, grads: list[Tensor | None]) -> None:
    for number, g in enumerate(grads):
        if g is None:
            continue
        for hook in list((node._hooks or {}).get(number, {}).values()):
            changed = hook(g)
            g = g if changed is None else changed
        grads[number] = g
        keeper = (node._retain or {}).get(number)
        tensor = None if keeper is None else keeper()
        if tensor is not None:
            before = tensor._grad
            if before is None:
                _accumulate(tensor, g, False)
            else:
                tensor._grad = before + g


def _run_post_hooks(leaf: Tensor) -> None:
    for hook in list((leaf._post_hooks or {}).values()):
        hook(leaf)


def _accumulate(leaf: Tensor, g: Tensor, owned: bool) -> None:
    """Add `g` to `leaf.grad`, which takes over the array of the first `g` if it is `owned`.

    `grad` is laid out in memory as the leaf is, whatever `g` is.
    """
    before = leaf._grad
    if state.grad:
        copy = g.clone if g.is_contiguous() else g.contiguous
        leaf._grad = copy() if before is None else before + g
    elif before is None:
        array = g._array
        if leaf._hooks or not owned or array.strides != leaf._array.strides:
            array = np.empty_like(leaf._array)  # a hook may have kept the other
            array[...] = g._array
        leaf._grad = wrap(array)
    else:
        before._array += g._array
        before._bump()


def _watched_gradients(node: Op, grads: list[Tensor | None]) -> tuple[Any, ...]:
    """`_gradients`, with the recorder told, and anomalies sought if either is on."""
    recorder = state.recorder
    if recorder is not None:
        recorder.enter_backward(node, grads)
    dins = _gradients(node, grads)
    if state.anomaly:
        _check_for_nan(node, dins)
    if recorder is not None:
        pairs = enumerate(zip(node.edges, dins, strict=False))
        fitted = [d if e is None or d is None else _fit(d, e, node, i) for i, (e, d) in pairs]
        dins = (*fitted, *dins[len(fitted) :])
        recorder.leave_backward(node, dins)
    return dins


def _check_for_nan(node: Op, dins: tuple[Any, ...]) -> None:
    """RuntimeError that names the forward op's line if its backward rule made a NaN."""
    for number, d in enumerate(dins):
        if d is None or number >= len(node.edges) or node.edges[number] is None:
            continue
        if has_nan(d._array):
            first = _first_nan(node)
            line = node.line or "an unrecorded line: enter detect_anomaly before the forward pass"
            told = ""
            if first is not None:
                told = f" The first NaN was made going forward, by {first.op_name} at {first.line}."
            raise RuntimeError(
                f"Function '{node.name()}' returned nan values in its {number}th output. "
                f"The forward op is {node.op_name}, called at {line}.{told}"
            )


def _first_nan(node: Op) -> Op | None:
    """The earliest op before `node` that turned numbers into NaN going forward."""
    first, seen, stack = None, {node}, [node]
    while stack:
        here = stack.pop()
        if here.made_nan and (first is None or here.sequence_nr < first.sequence_nr):
            first = here
        for edge in here.edges:
            if type(edge) is tuple and edge[0] not in seen:
                seen.add(edge[0])
                stack.append(edge[0])
    return first


def _roots(outputs: Sequence[Tensor], grads: Sequence[Tensor | None]) -> list[tuple[Any, Tensor]]:
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


def _listed(x: Any) -> list[Any]:
    return [x] if isinstance(x, Tensor) or x is None else list(x)


def backward(
    tensors: Tensor | Sequence[Tensor],
    grad_tensors: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Tensor | Sequence[Tensor] | None = None,
) -> None:
    """Accumulate the gradients of `tensors` in the `grad` of the leaves they depend on.

    Raises RuntimeError for a tensor that needs no gradient, and for one that is no scalar without
    its gradient; for a graph walked before without `retain_graph`; for a saved tensor that was
    changed since.
    """
    outputs = _listed(tensors)
    grads = [None] * len(outputs) if grad_tensors is None else _listed(grad_tensors)
    keep = create_graph if retain_graph is None else retain_graph
    if inputs is not None:
        places = list(dict.fromkeys(_listed(inputs)))
        for place in places:
            if not place.is_leaf:
                place.retain_grad()  # so that it accumulates as it is walked through
        found = grad(outputs, places, grads, keep, create_graph, allow_unused=True)
        for place, g in zip(places, found, strict=True):
            if g is not None and place.is_leaf:
                with set_grad_enabled(create_graph):
                    _accumulate(place, g, False)
                    _run_post_hooks(place)
        return
    with Mode(grad=create_graph):
        _run(_roots(outputs, grads), keep)


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
    """The gradients of `outputs` with respect to `inputs`; no `grad` is touched.

    Raises RuntimeError for an input that `outputs` do not depend on, unless `allow_unused` (then
    its gradient is None) or `materialize_grads` (then it is zeros).
    """
    if is_grads_batched:
        raise NotImplementedError("is_grads_batched: call grad once for each gradient instead")
    outs, ins = _listed(outputs), _listed(inputs)
    grads = [None] * len(outs) if grad_outputs is None else _listed(grad_outputs)
    keep = create_graph if retain_graph is None else retain_graph
    wanted: dict[Any, int] = {}
    places: list[int | None] = []  # by what number the gradient of each input is found
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


# What tensors get from here


def _method(function: Callable[..., Any]) -> Callable[..., Any]:
    setattr(Tensor, function.__name__.strip("0"), function)
    return function


def _tensor_backward(
    self: Tensor,
    gradient: Tensor | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Tensor | Sequence[Tensor] | None = None,
) -> None:
    """Accumulate the gradient of this tensor in the `grad` of the leaves it depends on."""
    backward(self, gradient, retain_graph, create_graph, inputs)


setattr(Tensor, "backward", _tensor_backward)


class RemovableHandle:
    """Removes a hook: by `remove()`, or at the end of a `with` block."""

    def __init__(self, hooks: dict[int, Callable[..., Any]], hook: Callable[..., Any]) -> None:
        self.id: int = next(clock)
        self._hooks = hooks
        hooks[self.id] = hook

    def remove(self) -> None:
        """Take the hook out; nothing happens the second time."""
        self._hooks.pop(self.id, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()


@_method
def register_hook(self: Tensor, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
    """Call `hook(grad)` when the gradient of this tensor is known; what it returns replaces it."""
    if not self.requires_grad:
        raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
    global _leaves_have_hooks
    edge = self.edge()
    if edge is None:
        _leaves_have_hooks = True
        if self._hooks is None:
            self._hooks = {}
        return RemovableHandle(self._hooks, hook)
    node, number = edge
    if node._hooks is None:
        node._hooks = {}
    return RemovableHandle(node._hooks.setdefault(number, {}), hook)


@_method
def register_post_accumulate_grad_hook(
    self: Tensor, hook: Callable[[Tensor], None]
) -> RemovableHandle:
    """Call `hook(tensor)` after the gradient of this leaf was accumulated."""
    if not self.requires_grad or not self.is_leaf:
        raise RuntimeError("post accumulate grad hooks cannot be registered on non-leaf tensors")
    global _leaves_have_hooks
    _leaves_have_hooks = True
    if self._post_hooks is None:
        self._post_hooks = {}
    return RemovableHandle(self._post_hooks, hook)


@_method
def retain_grad(self: Tensor) -> None:
    """Keep the gradient of this non-leaf tensor in its `grad` too."""
    if not self.requires_grad:
        raise RuntimeError("can't retain_grad on Tensor that has requires_grad=False")
    edge = self.edge()
    if edge is not None:
        node, number = edge
        if node._retain is None:
            node._retain = {}
        node._retain[number] = weakref.ref(self)
