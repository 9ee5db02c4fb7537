"""Observers of ops, and the state of each thread: is it recording, and which observers are active.

Everything that has to see ops run does so as an Observer: `inference_mode`, `checkpoint`, the
recorder of a graph, checks of gradients. An op without any only sees an empty tuple.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .node import Node
    from .tensor import Tensor


class Observer:
    """Base class of observers; each method is called when its event happens.

    `with observe(observer):` shows it the ops of this thread.
    """

    sees_writes = False  # if True, in-place changes run as ops even without recording
    sees_whole = False  # if True, a compiled call may be shown to it as one op

    def ran(
        self, node: Node, args: Sequence[Any], kwargs: Mapping[str, Any], outs: Sequence[Tensor]
    ) -> None:
        """Note that the forward rule of `node` ran, given `args` and `kwargs`, and made `outs`.

        `node.recorded` is True if the run is part of a graph; `node.seconds` is the rule's time.
        """

    def returned(self, module: Any, result: Any) -> Any:
        """Return what a module is to return: `result`, or an equal one that can be told apart."""
        return result

    def writing(self, target: Tensor, before: Tensor) -> None:
        """Note that `target` is about to change in place; `before` stands for its old values."""

    def wrote(self, target: Tensor, made: Tensor | None) -> None:
        """Note that the values and history of `made` have replaced a tensor's; None: of no op."""

    def backward_begins(self, node: Node, grads: Sequence[Tensor | None]) -> None:
        """Note that the backward rule of `node` begins, given the gradients of its outputs."""

    def backward_ended(self, node: Node, grads: Sequence[Tensor | None]) -> None:
        """Note that it ended, with the gradients of the inputs; `node.seconds` is its time."""


class State(threading.local):
    """The part of the library's state that each thread has for itself."""

    def __init__(self) -> None:
        self.grad = True  # record ops for the backward pass
        self.twice = True  # and keep what the gradient of a gradient needs
        self.observers: tuple[Observer, ...] = ()  # innermost first
        # `quietly(rule, ...)` calls a rule in a context in which NumPy gives inf and NaN without
        # a warning; np.errstate takes ten times longer.
        quiet = contextvars.copy_context()
        quiet.run(np.seterr, all="ignore")
        self.quietly = quiet.run


state = State()
