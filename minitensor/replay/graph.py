"""Graphs: a recorded call as a list of ops on numbered values, which rules rewrite."""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..autograd.grad_mode import Mode
from ..core import Alias, Tensor, state, wrap
from ..errors import running
from ..recording import Ref, Value, mapped, refs
from .addresses import NotReplayable
from .plan import Key


@dataclass(eq=False)
class Call:
    """A run of an op: `args` and `kwargs` have a Ref for each tensor and a Key for a random key.

    `op` is None for a detached alias of a value. A call equals only itself.
    """

    op: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outs: tuple[int, ...]
    grad: bool  # does it record for the backward pass?
    line: str = ""  # of the user's code
    modules: tuple[Any, ...] = ()  # that were running, outermost first
    rule: str = ""  # that made it

    @functools.cached_property
    def reads(self) -> list[int]:
        """The values that it is given; rules make other calls, and change none."""
        return refs(self.args) + refs(self.kwargs)


@dataclass
class Returned:
    """The relation of a result of a call to what was there before it, and to the other results.

    - source: the input or leaf that it is or shows, changed or not; None if ops made it.
    - make: makes it of that, or of an earlier result, over the same memory; None for that itself.
    - base: of a view of another result that one's number, and as `ViewMeta` has them the view's
      functions and its creation.
    - version: how often its memory was changed, if ops made it.
    """

    source: int | None = None
    make: Callable[[Tensor], Tensor] | None = None
    base: tuple[int, Any, str] | None = None
    version: int = 0


@dataclass
class Graph:
    """Calls in order, on values that `inputs` and `tensors` are there for when it begins."""

    values: list[Value]
    calls: list[Call]
    inputs: list[int]
    outputs: list[int]
    tensors: dict[int, Tensor] = field(default_factory=dict)  # of leaves and constants
    keys: list[int] = field(default_factory=list)  # the numbers of elements they are for
    requires: set[int] = field(default_factory=set)
    read: list[Tensor] = field(default_factory=list)  # leaves whose numbers a rule relies on
    # What the last outputs are written to, and how often the call does it
    updates: dict[int, int] = field(default_factory=dict)
    # Of the outputs before those: the results, and then bases that some of them are views of
    returned: list[Returned] = field(default_factory=list)

    def users(self) -> Counter[int]:
        """Return how often each value is used, as an output too."""
        counts = Counter(self.outputs)
        for call in self.calls:
            counts.update(call.reads)
        return counts

    def read_by(self, results: Sequence[int]) -> set[int]:
        """Return all values that some results are computed from, and they themselves."""
        found = set(results)
        for call in reversed(self.calls):
            if found.intersection(call.outs):
                found.update(call.reads)
        return found

    def constant(self, number: int, read: list[Tensor]) -> np.ndarray | None:
        """Return the array of a value that is the same in each call; None for others.

        Leaves without a gradient count as constants, and are put into `read`.
        """
        value = self.values[number]
        if value.kind:
            changes = number in self.requires or number in self.updates
            fixed = value.kind == "leaf" and not changes
            if fixed:
                read.append(self.tensors[number])
            return value.array if fixed or value.kind == "constant" else None
        made = next((call for call in self.calls if number in call.outs), None)
        if made is None or made.op is None or any(isinstance(a, Key) for a in made.args):
            return None
        needed = {n: self.constant(n, read) for n in refs(made.args)}
        if any(array is None for array in needed.values()):
            return None
        small = Graph(self.values, [made], [], [number])
        (out,) = small.run({n: wrap(a) for n, a in needed.items() if a is not None})
        return out._array

    def without_unused(self) -> Graph:
        """Remove the calls whose results nobody uses, but those whose size may have been read."""
        chosen = [n for call in self.calls if self._chooses(call) for n in call.outs]
        needed = self.read_by([*self.outputs, *chosen])
        self.calls = [call for call in self.calls if needed.intersection(call.outs)]
        return self

    def _chooses(self, call: Call) -> bool:
        """Return True if the size of a call's result follows the numbers of a mask."""
        masks = (self.values[n].dtype == np.bool_ for n in call.reads)
        return call.op is not None and call.op.op_name == "index" and any(masks)

    def run(self, tensors: Mapping[int, Tensor], keys: Sequence[int] = ()) -> list[Tensor]:
        """Run the ops in their modules on tensors for inputs and leaves; return the outputs.

        NotReplayable if an op gives another shape than the recorded one did.
        """
        env, outside = dict(tensors), running.modules
        left = self.users()

        def now(x: Any) -> Any:
            if isinstance(x, Ref):
                return env[x.number]
            return keys[x.number] if isinstance(x, Key) else x

        with Mode(grad=state.grad), contextlib.ExitStack() as after:
            after.callback(setattr, running, "modules", outside)
            for call in self.calls:
                args, kwargs = mapped(call.args, now), mapped(call.kwargs, now)
                state.grad, running.modules = call.grad, (*outside, *call.modules)
                made = args[0].detach() if call.op is None else call.op.apply(*args, **kwargs)
                outs = made if type(made) is tuple else (made,)
                for number, out in zip(call.outs, outs, strict=True):
                    if out.shape != self.values[number].shape:
                        name = "detach" if call.op is None else call.op.op_name
                        raise NotReplayable(f"{name} gave another shape, {tuple(out.shape)}")
                    env[number] = out
                del made, outs, out, args, kwargs
                left.subtract(call.reads)
                for number in (*call.reads, *call.outs):
                    if not left[number]:
                        env.pop(number, None)
        return [env[number] for number in self.outputs]


def aliased(t: Tensor, grad: bool) -> Tensor:
    """Return a tensor with the memory of `t`: with its history, or a leaf of its own."""
    if grad:
        return Alias.apply(t)
    out = t.detach()
    out._requires_grad = t.requires_grad
    return out
