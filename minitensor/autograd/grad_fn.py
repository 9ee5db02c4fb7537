"""PyTorch's surface of a `grad_fn`: a node can be looked at, called and given hooks."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from typing import Any

from ..core import Node, Op, Tensor
from ..core.backward import add_to_grad, settled
from .hooks import RemovableHandle, hooks_of_leaf, hooks_of_node


class AccumulateGrad:
    """Stands for a leaf in `next_functions`, as in PyTorch: it adds to `variable.grad`."""

    next_functions = ()

    def __init__(self, variable: Tensor) -> None:
        self.variable = variable

    def name(self) -> str:
        """Return PyTorch's name of it."""
        return "torch::autograd::AccumulateGrad"

    def __repr__(self) -> str:
        return "<AccumulateGrad>"

    def __call__(self, grad: Tensor) -> None:
        """Add `grad` to that of the leaf."""
        add_to_grad(self.variable, grad)

    def register_prehook(self, hook: Callable[[tuple[Tensor]], Any]) -> RemovableHandle:
        """Call `hook((grad,))` before a gradient is accumulated; a tuple replaces it."""

        def before(grad: Tensor) -> Tensor | None:
            changed = hook((grad,))
            return None if changed is None else changed[0]

        return RemovableHandle(hooks_of_leaf(self.variable).on_grad, before)

    def register_hook(self, hook: Callable[[tuple[()], tuple[Any]], Any]) -> RemovableHandle:
        """Call `hook((), (grad,))` after `grad` was accumulated."""
        hooks = hooks_of_leaf(self.variable)
        return RemovableHandle(hooks.on_accumulated, lambda _: hook((), (hooks.arrived,)))


def _ends(node: Node) -> int:
    """Return the number of edges, without those of settings behind the last tensor of an op."""
    count = len(node.edges)
    if isinstance(node, Op) and not node.broadcasts:
        while count and node.edges[count - 1] is None:
            count -= 1
    return count


def _next_functions(self: Node) -> tuple[tuple[Any, int], ...]:
    """The nodes that the gradient goes to, each with the number of its output."""
    return tuple(
        (AccumulateGrad(e), 0) if isinstance(e, Tensor) else (None, 0) if e is None else e
        for e in self.edges[: _ends(self)]
    )


def _metadata(self: Node) -> dict[Any, Any]:
    """A dictionary for notes of the user's own."""
    notes: dict[Any, Any] = self.__dict__.setdefault("_notes", {})
    return notes


def _call(self: Node, *grads: Tensor | None) -> Any:
    """Return the gradients of the inputs for those of the outputs, a tensor or a tuple of several.

    Nothing is accumulated, no hook runs, nothing is freed, and a gradient of an operand that was
    broadcast is not summed. RuntimeError for a wrong number of gradients.
    """
    if len(grads) != len(self.output_meta):
        raise RuntimeError(
            f"{self.name()}: expected {len(self.output_meta)} gradients, got {len(grads)}"
        )
    found, count = type(self).gradients(self, list(grads)), _ends(self)
    inputs = [
        None if edge is None else d
        for edge, d in itertools.zip_longest(self.edges[:count], found[:count])
    ]
    return inputs[0] if count == 1 else tuple(inputs)


def register_prehook(
    self: Node, hook: Callable[[tuple[Tensor | None, ...]], Any]
) -> RemovableHandle:
    """Call `hook(grad_outputs)` before the rule runs; a tuple that it returns replaces them."""
    return RemovableHandle(hooks_of_node(self).before, hook)


def register_hook(self: Node, hook: Callable[[Any, Any], Any]) -> RemovableHandle:
    """Call `hook(grad_inputs, grad_outputs)` after the rule; a tuple replaces `grad_inputs`."""
    hooks: dict[int, Callable[[Any, Any], Any]]
    hooks = self.__dict__.setdefault("_after", {})
    node = weakref.ref(self)  # a node that refers to itself would wait for the garbage collector

    def gradients(grads: list[Tensor | None]) -> tuple[Tensor | None, ...]:
        this = node()
        assert this is not None
        inputs = tuple(settled(this, type(this).gradients(this, grads))[: _ends(this)])
        for each in list(hooks.values()):
            changed = each(inputs, tuple(grads))
            inputs = inputs if changed is None else tuple(changed)
        return inputs

    self.gradients = gradients  # type: ignore[method-assign]
    return RemovableHandle(hooks, hook)


for _name, _value in {
    "__call__": _call,
    "metadata": property(_metadata),
    "next_functions": property(_next_functions),
    "register_hook": register_hook,
    "register_prehook": register_prehook,
}.items():
    setattr(Node, _name, _value)
