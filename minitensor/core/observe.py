"""Observers, and the state of each thread: what is recorded, and who watches.

Everything that has to see ops run does so as an Observer: `inference_mode` (whose results can join
no graph), `checkpoint` (which drops what ops save), `detect_anomaly` (which looks for the first
NaN), the recorder of a graph, checks of gradients. Without observers an op pays one look at a
tuple for all of them.
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
    """Base class of those who watch ops run; each method is called as its event happens.

    `with observe(observer):` lets it watch the ops of this thread.
    """

    sees_writes = False  # have changes in place run as ops even where nothing is recorded

    def ran(
        self, node: Node, args: Sequence[Any], kwargs: Mapping[str, Any], outs: Sequence[Tensor]
    ) -> None:
        """Note that the forward rule of `node` ran, given `args` and `kwargs`, and made `outs`.

        `node.recorded` says if the run is part of a graph, `node.seconds` what the rule took.
        """

    def writing(self, target: Tensor, before: Tensor) -> None:
        """Note that `target` is about to change in place; `before` stands for its old values."""

    def wrote(self, target: Tensor, made: Tensor) -> None:
        """Note that the values and the history of `made` have replaced those of `target`."""

    def backward_begins(self, node: Node, grads: Sequence[Tensor | None]) -> None:
        """Note that the backward rule of `node` begins, given the gradients of its outputs."""

    def backward_ended(self, node: Node, grads: Sequence[Tensor | None]) -> None:
        """Note that it ended, with the gradients of the inputs; `node.seconds` is what it took."""


class State(threading.local):
    """The part of the library's state that each thread has for itself."""

    def __init__(self) -> None:
        self.grad = True  # record ops for the backward pass
        self.observers: tuple[Observer, ...] = ()  # those who see every op, innermost first
        # `quietly(rule, ...)` calls a rule in a context in which NumPy gives inf and NaN without
        # a warning; np.errstate takes ten times longer.
        quiet = contextvars.copy_context()
        quiet.run(np.seterr, all="ignore")
        self.quietly = quiet.run


state = State()
