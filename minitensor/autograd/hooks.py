"""Hooks on tensors: called with a gradient when it is complete.

Those of a leaf are kept on the leaf (`Tensor._hooks`), those of another tensor on the node that
made it (`Node.hooks`), so that they follow its history.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from ..core import Node, Tensor, attach, backward
from ..core.backward import Roots, add_to_grad
from ..core.node import clock

Hook = Callable[[Tensor], Any]


class RemovableHandle:
    """Removes a hook: by `remove()`, or at the end of a `with` block."""

    def __init__(self, hooks: dict[int, Any], hook: Any) -> None:
        self.id: int = next(clock)
        self._hooks = hooks
        hooks[self.id] = hook

    def remove(self) -> None:
        """Remove the hook; a second call does nothing."""
        self._hooks.pop(self.id, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()


def _run(hooks: dict[int, Hook], g: Tensor) -> Tensor:
    """Return `g`, or the gradient that the hooks replaced it by."""
    for hook in list(hooks.values()):
        changed = hook(g)
        g = g if changed is None else changed
    return g


class LeafHooks:
    """The hooks of a leaf."""

    def __init__(self) -> None:
        self.on_grad: dict[int, Hook] = {}
        self.on_accumulated: dict[int, Hook] = {}
        self.arrived: Tensor | None = None  # the gradient that is being accumulated

    def before(self, g: Tensor) -> Tensor:
        """Return the gradient to accumulate in place of `g`."""
        self.arrived = _run(self.on_grad, g)
        return self.arrived

    def after(self, leaf: Tensor) -> None:
        """Run the hooks that follow the accumulation."""
        for hook in list(self.on_accumulated.values()):
            hook(leaf)
        self.arrived = None


class NodeHooks:
    """The hooks of a node and of its outputs, and the outputs that retain their gradient."""

    def __init__(self) -> None:
        self.before: dict[int, Callable[[tuple[Tensor | None, ...]], Any]] = {}  # its rule runs
        self.on_grad: dict[int, dict[int, Hook]] = {}  # by the number of the output
        self.retained: dict[int, weakref.ref[Tensor]] = {}

    def __call__(self, grads: list[Tensor | None]) -> None:
        """Replace the gradients by the results of the hooks; accumulate the retained ones."""
        for number, g in enumerate(grads):
            if g is None:
                continue
            grads[number] = g = _run(self.on_grad.get(number, {}), g)
            retained = self.retained.get(number)
            t = None if retained is None else retained()
            if t is not None and t._grad is not None:
                t._grad = t._grad + g
            elif t is not None:
                add_to_grad(t, g)
        for hook in list(self.before.values()):
            changed = hook(tuple(grads))
            grads[:] = grads if changed is None else changed


def hooks_of_leaf(leaf: Tensor) -> LeafHooks:
    """Return the hooks of a leaf, and have the backward pass finish leaves in time for them."""
    backward.uses_of_leaves = _uses_of_leaves
    if leaf._hooks is None:
        leaf._hooks = LeafHooks()
    return leaf._hooks


def hooks_of_node(node: Node) -> NodeHooks:
    """Return the hooks of a node."""
    if node.hooks is None:
        node.hooks = NodeHooks()
    assert isinstance(node.hooks, NodeHooks)
    return node.hooks


def _uses_of_leaves(roots: Roots) -> dict[Tensor, int]:
    """Return, for each leaf, how often the nodes behind `roots` use it as an argument."""
    uses: dict[Tensor, int] = {}
    stack, seen = [edge for edge, _ in roots], set()
    while stack:
        edge = stack.pop()
        if isinstance(edge, Tensor):
            uses[edge] = uses.get(edge, 0) + 1
        elif edge is not None and edge[0] not in seen:
            seen.add(edge[0])
            stack += edge[0].edges
    return uses


def move_retained(t: Tensor, before: Any) -> None:
    """Move the `retain_grad` of `t` from the edge `before` to its present one."""
    retained = {} if before is None or before[0].hooks is None else before[0].hooks.retained
    reference = retained.get(before[1]) if retained else None
    if reference is not None and reference() is t and t._edge is not None and t._edge != before:
        del retained[before[1]]
        node, number = t._edge
        hooks_of_node(node).retained[number] = reference


def register_hook(self: Tensor, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
    """Call `hook(grad)` when the gradient of this tensor is known; its result replaces it."""
    if not self.requires_grad:
        raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
    edge = self.edge()
    if edge is None:
        return RemovableHandle(hooks_of_leaf(self).on_grad, hook)
    node, number = edge
    return RemovableHandle(hooks_of_node(node).on_grad.setdefault(number, {}), hook)


def register_post_accumulate_grad_hook(
    self: Tensor, hook: Callable[[Tensor], None]
) -> RemovableHandle:
    """Call `hook(tensor)` after the gradient of this leaf was accumulated."""
    if not self.requires_grad or not self.is_leaf:
        raise RuntimeError("post accumulate grad hooks cannot be registered on non-leaf tensors")
    return RemovableHandle(hooks_of_leaf(self).on_accumulated, hook)


def retain_grad(self: Tensor) -> None:
    """Keep the gradient of this non-leaf tensor in its `grad` too."""
    if not self.requires_grad:
        raise RuntimeError("can't retain_grad on Tensor that has requires_grad=False")
    edge = self.edge()
    if edge is not None:
        node, number = edge
        hooks_of_node(node).retained[number] = weakref.ref(self)


def _retains_grad(self: Tensor) -> bool:
    """True for a tensor that is no leaf and keeps its gradient: see `retain_grad`."""
    edge = self.edge()
    hooks = None if edge is None else edge[0].hooks
    return isinstance(hooks, NodeHooks) and edge is not None and edge[1] in hooks.retained


attach("tensor", "retains_grad", property(_retains_grad))
for _method in (register_hook, register_post_accumulate_grad_hook, retain_grad):
    attach("tensor", _method.__name__, _method)
