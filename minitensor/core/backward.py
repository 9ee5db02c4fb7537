"""The backward pass: from the outputs back through the graph, each node once.

Every node has a higher sequence number than all that it depends on, so visiting the nodes from the
highest number down is a topological order: when a node's turn comes, the gradients of its outputs
are complete.

Ownership. Backward rules, the pass and the user share the arrays of gradients by these rules:

- A gradient that a backward rule returns is *borrowed*. The rule may have returned the gradient it
  was given, a view of it, or one array for two inputs, so it must not be written to.
- A gradient is *owned* by the pass if nothing else refers to its array: a sum that the pass made
  itself, or the result of a rule with `fresh = True`. Only such an array is written to (by the next
  sum), and only it may become a leaf's `grad` without a copy.
- `grad` belongs to the user from then on. Later passes add to it in place, as in PyTorch.
- A rule with `adds = True` finds in `sums` the owned sums that its gradients go to, and each `grad`
  that nobody has read. It may add to such an array itself, as a product does; it returns the array.

A hook or an observer may keep a gradient that it was shown, so that gradient is not owned.
References are never counted, because Python versions count them differently.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import numpy as np

from ..kernels import residual
from .node import Node
from .observe import state
from .tensor import Tensor, wrap

Roots = Sequence[tuple[Any, Tensor]]  # pairs of an edge or leaf and the gradient that arrives there


def added(total: Tensor, other: Tensor, owned: bool) -> Tensor:
    """Return the sum of two gradients of one shape and type, in the array of `total` if `owned`."""
    if state.grad:
        return total + other
    if owned:
        if other._array is not total._array:  # otherwise the rule has added to it
            state.quietly(residual.add, total._array, other._array, total._array)
        return total
    return wrap(state.quietly(residual.add, total._array, other._array))


def add_to_grad(t: Tensor, g: Tensor, owned: bool = False) -> None:
    """Add `g` to `t.grad`, which lies in memory as `t` does; see the rules above for `owned`."""
    before = t._grad
    if state.grad:
        copy = g.clone if g.is_contiguous() else g.contiguous
        t._grad = copy() if before is None else before + g
    elif before is not None:
        if g is not before or not owned:
            state.quietly(residual.add, before._array, g._array, before._array)
        before._bump()
    else:
        array = g._array
        if not owned or array.strides != t._array.strides:
            array = np.empty_like(t._array if t._array.shape == array.shape else array)
            array[...] = g._array
        t._grad = wrap(array)
        t._grad._unread = True


# Set by autograd.hooks with the first hook on a leaf: counts how often the nodes behind `roots` use
# each leaf, which is then finished as soon as its gradient is complete, so that hooks run in time.
uses_of_leaves: Callable[[Roots], dict[Tensor, int]] | None = None


def run_backward(
    roots: Roots, keep_graph: bool, wanted: dict[Any, int] | None = None
) -> dict[int, Tensor]:
    """Run the backward pass from `roots`: leaves accumulate their gradients in `grad`.

    With `wanted`, which numbers edges and leaves, no `grad` is touched: only the nodes that lead to
    those are visited, and the gradients that arrive there are returned by number. Saved tensors are
    freed unless `keep_graph`. While `state.grad` is set, the pass itself is recorded.
    """
    # The nodes that gradients have reached, by their sequence numbers, which are negative here
    # because `heapq` gives the lowest first: the node, each output's gradient, and is it owned?
    pending: dict[int, tuple[Node, list[Tensor | None], list[bool]]] = {}
    queue: list[int] = []
    leaves: dict[Tensor, tuple[Tensor, bool]] = {}
    needed = None if wanted is None else _needed_nodes(wanted, roots)
    uses = {} if uses_of_leaves is None else uses_of_leaves(roots)
    found: dict[int, Tensor] = {}
    here = state.__dict__

    def send(edges: Sequence[Any], grads: Sequence[Tensor | None], owned: bool) -> None:
        """Add each gradient to that of its edge or leaf; the first for a node queues the node."""
        for position, g in enumerate(grads):
            if g is None:
                continue
            edge = edges[position]
            if type(edge) is tuple:
                node, number = edge
                if needed is not None and node not in needed:
                    continue
                order = -node.sequence_nr
                if order in pending:
                    _, arrived, flags = pending[order]
                else:
                    count = len(node.output_meta)
                    arrived, flags = [None] * count, [owned] * count
                    pending[order] = node, arrived, flags
                    heapq.heappush(queue, order)
                before = arrived[number]
                if before is None:
                    arrived[number], flags[number] = g, owned
                else:
                    arrived[number], flags[number] = added(before, g, flags[number]), True
            elif edge in leaves:
                before, mine = leaves[edge]
                leaves[edge] = added(before, g, mine), True
            elif edge in wanted if wanted is not None else edge._requires_grad:
                leaves[edge] = g, owned
        for edge in edges if uses else ():
            if isinstance(edge, Tensor):
                uses[edge] -= 1
                if not uses[edge] and edge in leaves:
                    finish(edge)  # this was its last use

    def sums(edges: Sequence[Any]) -> dict[int, np.ndarray]:
        """Return by number the arrays of sums at `edges` that a rule may add to."""
        totals: dict[int, np.ndarray] = {}
        for number, edge in enumerate(edges):
            g, owned = None, False
            if type(edge) is tuple and -edge[0].sequence_nr in pending:
                _, arrived, flags = pending[-edge[0].sequence_nr]
                g, owned = arrived[edge[1]], flags[edge[1]]
            elif isinstance(edge, Tensor):
                grad = edge._grad if edge._requires_grad and wanted is None else None
                if grad is not None and grad._unread and edge._hooks is None:
                    leaves.setdefault(edge, (grad, True))
                g, owned = leaves.get(edge, (None, False))
            if owned and g is not None and g._array.dtype.char in "fd":
                totals[number] = g._array
        return totals

    def finish(leaf: Tensor) -> None:
        """Store or return the gradient of a leaf, now that it is complete."""
        g, owned = leaves.pop(leaf)
        if leaf._edge is not None:
            raise RuntimeError(
                f"leaf variable has been moved into the graph interior: the tensor of shape "
                f"{tuple(leaf.shape)} was a leaf when an op used it, and was changed in place since"
            )
        hooks = leaf._hooks
        if hooks is not None:
            g, owned = hooks.before(g), False
        if wanted is not None:
            found[wanted[leaf]] = g.contiguous()
            return
        add_to_grad(leaf, g, owned)
        if hooks is not None:
            hooks.after(leaf)

    send([edge for edge, _ in roots], [g for _, g in roots], False)
    while queue:
        node, grads, _ = pending.pop(heapq.heappop(queue))
        if node.hooks is not None:
            node.hooks(grads)
        if wanted is not None and needed is not None:
            for number, arrived in enumerate(grads):
                if arrived is not None and (node, number) in wanted:
                    found[wanted[node, number]] = arrived
            if not needed[node]:
                continue
        observers = here["observers"]
        if node.adds and not (observers or here["grad"]):
            node.sums = sums(node.edges)
        inputs = _observed(node, grads) if observers else settled(node, node.gradients(grads))
        if not keep_graph:
            node.free()
        if node.adds:
            node.sums = {}
        del grads  # its memory may serve the next node
        send(node.edges, inputs, node.fresh and not observers)
        del inputs
    for leaf in list(leaves):
        finish(leaf)
    return found


def settled(node: Node, made: tuple[Tensor | None, ...]) -> list[Tensor | None]:
    """Return the gradients that the rule of `node` made, in the shapes and types of the edges."""
    edges = node.edges
    if len(made) > len(edges):
        if any(d is not None for d in made[len(edges) :]):
            raise RuntimeError(
                f"function {node.name()} returned an incorrect number of gradients "
                f"(expected {len(edges)}, got {len(made)})"
            )
        made = made[: len(edges)]
    found = list(made)
    for number, d in enumerate(made):
        edge = edges[number]
        if d is None or edge is None:
            found[number] = None
            continue
        if type(edge) is tuple:
            shape, dtype = edge[0].output_meta[edge[1]]
        else:
            shape, dtype = edge._array.shape, edge._array.dtype
        array = d._array  # of a type that is one object, or else equal
        if array.shape != shape or (array.dtype is not dtype and array.dtype != dtype):
            found[number] = _unbroadcast(d, shape, dtype, node, number)
    return found


def _observed(node: Node, grads: list[Tensor | None]) -> list[Tensor | None]:
    """Run the rule, shown to the observers and timed for them; return what `settled` does."""
    for observer in state.observers:
        observer.backward_begins(node, grads)
    start = perf_counter()
    inputs = settled(node, node.gradients(grads))
    node.seconds = perf_counter() - start
    for observer in state.observers:
        observer.backward_ended(node, inputs)
    return inputs


def _unbroadcast(g: Tensor, shape: tuple[int, ...], dtype: Any, node: Node, number: int) -> Tensor:
    """Return gradient `number` of `node` in the shape and type of the tensor it belongs to.

    Dimensions that were broadcast are summed; RuntimeError for any other difference.
    """
    have = g._array.shape
    if have != shape:
        extra = len(have) - len(shape)
        pairs = list(enumerate(zip(shape, have[max(extra, 0) :], strict=False)))
        if not node.broadcasts or extra < 0 or any(n not in (1, m) for _, (n, m) in pairs):
            raise RuntimeError(
                f"{node.name()} returned an invalid gradient at index {number}: got shape {have} "
                f"but expected shape {tuple(shape)}"
            )
        dims = tuple(range(extra)) + tuple(i + extra for i, (n, m) in pairs if n != m)
        g = g.sum(dims).reshape(shape)
    if g._array.dtype != dtype:
        g = g.to(dtype) if state.grad else wrap(state.quietly(g._array.astype, dtype))
    return g


def _needed_nodes(wanted: dict[Any, int], roots: Roots) -> dict[Node, bool]:
    """Return the nodes on the way to `wanted`; False where the pass can end."""
    seen: set[Node] = set()
    stack = [edge[0] for edge, _ in roots if not isinstance(edge, Tensor)]
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack += [e[0] for e in node.edges if type(e) is tuple and e[0] not in seen]
    targets = {edge[0] for edge in wanted if not isinstance(edge, Tensor)}
    needed: dict[Node, bool] = {}
    for node in sorted(seen, key=lambda n: n.sequence_nr):
        leads = any(
            (e in wanted) if isinstance(e, Tensor) else (e is not None and e[0] in needed)
            for e in node.edges
        )
        if leads or node in targets:
            needed[node] = leads
    return needed
