"""The backward pass: from the outputs back through the graph, each node once.

Every node has a higher sequence number than all that it depends on, so visiting the nodes from the
highest number down is a topological order: when a node's turn comes, the gradients of its outputs
are complete.

Ownership. Backward rules, accumulators and the user share the arrays of gradients by these rules:

- A gradient that a backward rule returns is *borrowed*. The rule may have returned the gradient it
  was given, a view of it, or one array for two inputs, so it must not be written to.
- A gradient is *owned* by the `Accumulator` that holds it if nothing else refers to its array: a
  sum that the accumulator made itself, or the result of a rule with `fresh = True`. Only the owner
  writes to it (the next sum), and only an owned array may become a leaf's `grad` without a copy.
- `grad` belongs to the user from then on. Later passes add to it in place, as in PyTorch.

A hook or an observer may keep a gradient that it was shown, so that gradient is not owned.
References are never counted, because Python versions count them differently. The pool of memory
needs no rule here: it gets a buffer back when the last array over it dies, and not before.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from time import perf_counter
from typing import Any

import numpy as np

from .. import memory
from ..kernels import residual
from .node import Node
from .observe import state
from .tensor import Tensor, wrap

Roots = Sequence[tuple[Any, Tensor]]  # pairs of an edge or leaf and the gradient that arrives there


class Accumulator:
    """The sum of the gradients that reached one output of a node, or one leaf.

    The first gradient is kept without a copy. With `owned`, see the rules of the module, the next
    one is added into its array; otherwise the sum gets an array of its own.
    """

    __slots__ = ("owned", "value")

    def __init__(self, value: Tensor, owned: bool) -> None:
        self.value = value
        self.owned = owned

    def add(self, other: Tensor) -> None:
        """Add a gradient of the same shape and type."""
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

    def add_to_grad(self, t: Tensor) -> None:
        """Add the sum to `t.grad`, which lies in memory as `t` does."""
        g, before = self.value, t._grad
        if state.grad:
            copy = g.clone if g.is_contiguous() else g.contiguous
            t._grad = copy() if before is None else before + g
        elif before is None:
            array = g._array
            if not self.owned or array.strides != t._array.strides:
                array = np.empty_like(t._array)
                array[...] = g._array
            t._grad = wrap(array)
        else:
            before._array += g._array
            before._bump()


# Set by autograd.hooks with the first hook on a leaf: a function that counts, for each leaf, how
# often the nodes behind `roots` use it. With it a leaf is finished as soon as its gradient is
# complete, so that its hooks run in time; without it all leaves are finished at the end.
uses_of_leaves: Callable[[Roots], dict[Tensor, int]] | None = None


def run_backward(
    roots: Roots, keep_graph: bool, wanted: dict[Any, int] | None = None
) -> dict[int, Tensor]:
    """Run the backward pass from `roots`: leaves accumulate their gradients in `grad`.

    With `wanted`, which numbers edges and leaves, no `grad` is touched: only the nodes that lead to
    those are visited, and the gradients that arrive there are returned by number. Saved tensors are
    freed unless `keep_graph`. While `state.grad` is set, the pass itself is recorded. The pass is
    `send` and the `while` loop; all else serves `wanted` and the hooks on leaves.
    """
    pending: dict[Node, list[Accumulator | None]] = {}  # the gradient of each output of a node
    queue: list[tuple[int, Node]] = []  # the nodes that are pending, highest number first
    leaves: dict[Tensor, Accumulator] = {}
    needed = None if wanted is None else _needed_nodes(wanted, roots)
    uses = {} if uses_of_leaves is None else uses_of_leaves(roots)
    found: dict[int, Tensor] = {}
    here = state.__dict__

    def send(edge: Any, g: Tensor, owned: bool) -> None:
        """Add `g` to the gradient of an edge or a leaf; its first gradient queues a node."""
        if type(edge) is not tuple:
            if edge in leaves:
                leaves[edge].add(g)
            elif edge in wanted if wanted is not None else edge._requires_grad:
                leaves[edge] = Accumulator(g, owned)
            return
        node, number = edge
        if needed is not None and node not in needed:
            return
        outputs = pending.get(node)
        if outputs is None:
            outputs = pending[node] = [None] * len(node.output_meta)
            heapq.heappush(queue, (-node.sequence_nr, node))
        accumulator = outputs[number]
        if accumulator is None:
            outputs[number] = Accumulator(g, owned)
        else:
            accumulator.add(g)

    def finish(leaf: Tensor) -> None:
        """Store or return the gradient of a leaf, now that it is complete."""
        total = leaves.pop(leaf)
        if leaf._edge is not None:
            raise RuntimeError(
                f"leaf variable has been moved into the graph interior: the tensor of shape "
                f"{tuple(leaf.shape)} was a leaf when an op used it, and was changed in place since"
            )
        hooks = leaf._hooks
        if hooks is not None:
            total = Accumulator(hooks.before(total.value), owned=False)
        if wanted is not None:
            found[wanted[leaf]] = total.value.contiguous()
            return
        total.add_to_grad(leaf)
        if hooks is not None:
            hooks.after(leaf)

    def passed(edges: Iterable[Any]) -> None:
        """Count the uses `edges` as done; finish each leaf whose last use this was."""
        for edge in edges:
            if isinstance(edge, Tensor):
                uses[edge] -= 1
                if not uses[edge] and edge in leaves:
                    finish(edge)

    for edge, g in roots:
        send(edge, g, False)
    if uses:
        passed(edge for edge, _ in roots)
    while queue:
        node = heapq.heappop(queue)[1]
        grads = [None if a is None else a.value for a in pending.pop(node)]
        if node.hooks is not None:
            node.hooks(grads)
        if wanted is not None and needed is not None:
            for number, arrived in enumerate(grads):
                if arrived is not None and (node, number) in wanted:
                    found[wanted[node, number]] = arrived
            if not needed[node]:
                continue
        observers = here["observers"]
        inputs = _observed(node, grads) if observers else settled(node, node.gradients(grads))
        if not keep_graph:
            node.free()
        del grads  # its memory may serve the next node
        owned = node.fresh and not observers
        for edge, d in zip(node.edges, inputs, strict=False):
            if d is not None:
                send(edge, d, owned)
        del inputs
        if uses:
            passed(node.edges)
    for leaf in list(leaves):
        finish(leaf)
    return found


def settled(node: Node, made: tuple[Tensor | None, ...]) -> list[Tensor | None]:
    """Return what the rule of `node` made: a gradient for each edge, in its shape and type."""
    edges = node.edges
    if len(made) > len(edges) and any(d is not None for d in made[len(edges) :]):
        raise RuntimeError(
            f"function {node.name()} returned an incorrect number of gradients "
            f"(expected {len(edges)}, got {len(made)})"
        )
    found: list[Tensor | None] = []
    for edge, d in zip(edges, made, strict=False):
        if edge is None:
            d = None
        elif d is not None:
            if type(edge) is tuple:
                shape, dtype = edge[0].output_meta[edge[1]]
            else:
                shape, dtype = edge._array.shape, edge._array.dtype
            if d._array.shape != shape or d._array.dtype != dtype:
                d = _unbroadcast(d, shape, dtype, node, len(found))
        found.append(d)
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
